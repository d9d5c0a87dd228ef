"""``ostler update`` and ``/v1/update`` with a real updater behind them."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_type_hints

import aiohttp
import msgspec
import pytest

from daemon_core.cli import update_words
from daemon_core.control.changes import ChangeLog
from daemon_core.control.update_desk import UpdateDesk
from daemon_core.control.update_views import REASONS
from daemon_core.control.views import UpdateView
from daemon_core.tasks.owned import Nursery
from daemon_core.updates.history import ServerWish
from daemon_core.updates.stages import HERE, Stage
from tests.cli.conftest import Ostler
from tests.control.memory_backend import MemoryBackend
from tests.updates.mirror import Status
from tests.updates.updater_world import Process, World

RULES: dict[str, Any] = {"automatic": False, "check": False}


class Told:
    """What a desk tells."""

    def __init__(self, changes: ChangeLog) -> None:
        self.changes = changes
        self.conditions: dict[str, dict[str, Any]] = {}
        self.reports: list[tuple[str, dict[str, Any]]] = []

    def set_condition(self, code: str, subject: str = "", **params: Any) -> None:
        self.conditions[code] = params

    def clear_condition(self, code: str, subject: str = "") -> None:
        self.conditions.pop(code, None)

    async def report(self, wish: ServerWish, told: dict[str, Any]) -> bool:
        self.reports.append((wish.request_id, told))
        return True


@dataclasses.dataclass
class Daemon:
    """A daemon in memory but for its updates, which are real."""

    world: World
    backend: MemoryBackend
    told: Told
    desk: UpdateDesk
    process: Process

    async def until(self, *stages: Stage) -> None:
        await self.process.until(lambda: self.process.stage in stages)


@pytest.fixture
async def daemon(tmp_path: Path, backend: MemoryBackend) -> AsyncIterator[Daemon]:
    nursery = Nursery("test")
    told = Told(backend.changes)
    async with World(tmp_path / "world") as world:
        world.rules = dataclasses.replace(world.rules, **RULES)
        world.publish("1.1.0")
        desk = UpdateDesk(told, nursery, told.report)
        process = await world.start(listener=desk)
        desk.open(process.updater)
        backend.update_desk = desk
        yield Daemon(world, backend, told, desk, process)
        await nursery.close()


async def test_what_is_ready_is_shown_put_off_and_put_in_place(ostler: Ostler, daemon: Daemon) -> None:
    plain = await ostler("update", "status")
    assert plain.code == 0
    assert "1.0.0" in plain.out
    assert "up to date as far as is known" in plain.out

    checked = await ostler("update", "check", "--json")
    assert checked.code == 0
    view = msgspec.convert(checked.document, UpdateView)
    assert view.version is not None
    assert view.version.version == "1.1.0"
    # Fetching is not asked for where checks are off; the wish to have it is.
    applied = await ostler("update", "apply", "--version", "1.1.0")
    assert (applied.code, applied.err) == (0, "")
    assert "1.1.0 is on its way" in applied.out
    await daemon.process.until_way_made()
    shown = await ostler("update", "status")
    assert "being put in place" in shown.out
    conflict = await ostler("update", "rollback", "--json")
    assert (conflict.code, conflict.error["code"]) == (6, "update_conflict")


async def test_later_means_later(ostler: Ostler, daemon: Daemon) -> None:
    nothing = await ostler("update", "remind-later", "--json")
    assert (nothing.code, nothing.error["code"]) == (6, "no_update")
    daemon.world.rules = dataclasses.replace(daemon.world.rules, check=True)
    daemon.process.updater.look()
    await daemon.until(*HERE)
    await daemon.process.until(lambda: bool(daemon.process.book.notices))
    later = await ostler("update", "remind-later", "--for", "2d")
    assert later.code == 0
    assert "1.1.0 is not mentioned again before" in later.out
    view = msgspec.convert((await ostler("update", "status", "--json")).document, UpdateView)
    assert (view.waits_for, view.ready, view.notices) == ("reminder", True, [])
    assert "What is new in 1.1.0" in (await ostler("update", "status")).out
    assert (await ostler("update", "remind-later", "--for", "3000d")).code == 2


async def test_refusals_have_words(ostler: Ostler, daemon: Daemon) -> None:
    gone = await ostler("update", "rollback", "--json")
    assert (gone.code, gone.error["code"]) == (6, "no_update")
    assert "no version before" in gone.error["message"]
    other = await ostler("update", "apply", "--version", "5.0.0")
    assert other.code == 6
    assert "There is no version 5.0.0" in other.err
    daemon.world.mirror.always("timestamp", Status(500))
    down = await ostler("update", "apply", "--version", "5.0.0", "--json")
    assert down.error["message"] == (
        "What is new could not be learnt: the update server answers with status 500"
    )


async def test_the_stream_and_the_snapshot_have_it(ostler: Ostler, daemon: Daemon) -> None:
    connector = aiohttp.UnixConnector(str(ostler.directories.control_socket))
    async with aiohttp.ClientSession("http://ostler", connector=connector) as http:
        async with http.get("/v1/snapshot") as response:
            snapshot = await response.json()
        assert snapshot["update"]["current"] == "1.0.0"
        async with http.get("/v1/events", params={"since": snapshot["revision"]}) as events:
            async with http.post("/v1/update/check") as response:
                assert response.status == 200
            seen: list[str] = []
            async with asyncio.timeout(10):
                async for line in events.content:
                    if line.startswith(b"data: "):
                        event = msgspec.json.decode(line[6:])
                        if event["kind"] == "update":
                            seen.append(event["data"]["stage"])
                    if "available" in seen:
                        break
        assert seen[0] in ("checking", "available")  # of one subject the newest is told
        async with http.post("/v1/update/told", json={"kind": "ready", "version": "1.1.0"}) as response:
            assert response.status == 200
        assert "ready 1.1.0" in daemon.process.book.told
        async with http.post("/v1/update/apply", json={"verson": "1.1.0"}) as response:
            assert response.status == 400


async def test_what_a_server_asks_for_is_answered(daemon: Daemon) -> None:
    assert await daemon.desk.server_asks("hub", "r", "u1", "1.0.0") is None
    await daemon.process.until(lambda: len(daemon.told.reports) == 2)
    assert daemon.told.reports == [
        ("u1", {"status": "running"}),
        ("u1", {"status": "completed", "output": "Ostler runs version 1.0.0."}),
    ]
    daemon.told.reports.clear()
    failed = await daemon.desk.server_asks("hub", "r", "u2", "4.0.0")
    assert failed is not None
    assert failed["status"] == "failed"
    assert await daemon.desk.server_asks("hub", "r", "u3", "") is None
    await daemon.process.until_way_made()
    assert [each.request_id for each in daemon.process.book.wishes] == ["u3"]


async def test_blocked_for_long_is_a_condition(daemon: Daemon) -> None:
    daemon.world.repo.expire("timestamp")
    await daemon.process.updater.check()
    assert daemon.told.conditions == {}
    daemon.world.offset = dt.timedelta(days=15)
    daemon.process.updater.look()
    await daemon.process.until(lambda: "update_blocked" in daemon.told.conditions)
    params = daemon.told.conditions["update_blocked"]
    assert params["reason"] == "expired"
    assert "has expired" in update_words.blocked(params)


def test_every_code_has_words() -> None:
    for code in REASONS:
        assert update_words.update_reason(code, {}) != code.replace("_", " ")
    stages = get_type_hints(UpdateView)["stage"].__args__
    assert set(update_words.STAGES) == set(stages) == {stage.value for stage in Stage}
