"""Rounds of clean-up with a real journal, a real client and a server that answers as it is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daemon_core.connections.client import ServerClient
from daemon_core.journal import Journal, RunRecord, TaskRecord
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.housekeeping import CleanRules, Housekeeper
from daemon_core.tasks.room import RoomGuard
from daemon_core.workdirs import TaskDirectories, cleanup
from daemon_core.workdirs.changes import ChangeStore
from daemon_core.workdirs.directories import Stamp
from daemon_core.workdirs.disk import Room, Space

NOW = 1_800_000_000.0
OLD = "2027-01-01T00:00:00Z"


class World:
    def __init__(self, root: Path) -> None:
        self.root = root / "workspaces"
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.rules = CleanRules()
        self.lives: dict[str, Any] = {}
        self.keeper = cast("Housekeeper", None)
        self.journal = cast("Journal", None)

    async def answer(self, request: web.Request) -> web.Response:
        place = f"{request.match_info['kind']}/{request.match_info['id']}"
        self.asked.append(place)
        status, body = self.answers.get(place, (404, {"error": "not found"}))
        return web.json_response(body, status=status)

    def environment(self, name: str, stamp: Stamp | None, *, touched: float = NOW - 3600) -> Path:
        path = self.root / "ws" / name
        (path / "workdir" / "node_modules").mkdir(parents=True)
        (path / "workdir" / "node_modules" / "x").write_bytes(b"x" * 50_000)
        (path / "workdir" / "own").write_bytes(b"x" * 50_000)
        if stamp is not None:
            cleanup.write_stamp(path, stamp)
        for each in (path / "workdir", path):
            os.utime(each, (touched, touched))
        return path

    async def task(self, path: Path, **more: Any) -> None:
        fields: dict[str, Any] = {
            "key": f"srv/{path.name}", "connection": "srv", "task_id": path.name, "runtime_id": "r",
            "workspace_id": "ws", "provider": "shell", "kind": "chat", "conversation_id": "c", "title": "T",
            "work_dir": str(path / "workdir"), "state": "ended", "ended_at": OLD, "delivery": "delivered",
            "run_id": f"run-{path.name}", "claimed_at": OLD,
        }  # fmt: skip
        record = TaskRecord(**{**fields, **more})
        run = RunRecord(run_id=record.run_id, task_key=record.key, ended_at=OLD, state="ended")
        assert await self.journal.add_task(record, run)
        await self.journal.update_task(record.key, ended_at=record.ended_at, state=record.state)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.root.mkdir()
    app = web.Application()
    app.router.add_get("/api/daemon/{kind}/{id}/gc-check", made.answer)
    made.journal = await Journal.open(tmp_path / "journal.db")
    (tmp_path / "runs").mkdir()
    async with TestServer(app) as server, ServerClient(str(server.make_url("")), "mul_x") as client:
        engine = SimpleNamespace(
            lives=made.lives,
            connections={"srv": SimpleNamespace(name="srv", client=client)},
            task_directories=TaskDirectories(made.root),
            runs_dir=tmp_path / "runs",
            remove_run=lambda run_id: shutil.rmtree(tmp_path / "runs" / run_id, ignore_errors=True),
        )
        made.keeper = Housekeeper(
            engine=cast("Engine", engine),
            journal=made.journal,
            changes=ChangeStore(tmp_path / "changes"),
            room=Room([tmp_path], 0),
            root=made.root,
            rules=lambda: made.rules,
            state_file=tmp_path / "cleanup.json",
            areas={"journal": tmp_path / "journal.db"},
            now=lambda: NOW,
        )
        yield made
    await made.journal.close()


def chat(ident: str, completed_at: str = OLD) -> Stamp:
    return Stamp(kind="chat", chat_session_id=ident, completed_at=completed_at, connection="srv")


def issue(ident: str, **more: str) -> Stamp:
    return Stamp(kind="issue", issue_id=ident, completed_at=OLD, connection="srv", **more)


async def test_a_round_follows_what_the_servers_say(world: World) -> None:
    world.rules = CleanRules(retention_days=0, run_days=0)
    kept = world.environment("kept", chat("kept"))
    gone = world.environment("gone", chat("gone"))
    unsure = world.environment("unsure", chat("unsure"))
    done = world.environment("done", issue("done"))
    is_open = world.environment("open", issue("open"))
    local = world.environment("local", issue("done", local_directory="/home/u/p"))
    broken = world.environment("broken", chat("broken"))
    orphan = world.environment("orphan", None, touched=NOW - 73 * 3600)
    world.answers = {
        "chat-sessions/kept": (200, {"status": "active", "updated_at": OLD}),
        "chat-sessions/gone": (404, {"error": "chat session not found"}),
        "chat-sessions/broken": (500, {"error": "x"}),
        "issues/done": (200, {"status": "done", "updated_at": OLD}),
        "issues/open": (200, {"status": "in_progress", "updated_at": OLD}),
    }
    dry = await world.keeper.clean(dry_run=True)
    assert gone.exists()
    done_round = await world.keeper.clean()
    assert [item.path for item in dry.items] == [item.path for item in done_round.items]
    assert {Path(item.path).name: item.action for item in done_round.items} == {
        "gone": "delete", "done": "delete", "orphan": "delete", "open": "artifacts", "local": "artifacts",
    }  # fmt: skip
    assert [path.exists() for path in (gone, done, orphan)] == [False] * 3
    for path in (is_open, local):
        assert (path / "workdir" / "own").exists()
        assert not (path / "workdir" / "node_modules").exists()
    for path in (kept, unsure, broken):
        assert (path / "workdir" / "node_modules").exists()
    assert done_round.freed_bytes > 300_000
    assert world.asked.count("issues/done") == 2  # once a round, although two directories belong to it
    usage = await world.keeper.usage()
    assert {each.environment.path.name: each.verdict.reason for each in usage.kept} == {
        "kept": "conversation", "unsure": "not_known", "open": "issue_open", "local": "local_directory",
        "broken": "no_answer",
    }  # fmt: skip
    assert usage.last is not None
    assert usage.last.freed_bytes == done_round.freed_bytes
    assert (await world.keeper.clean()).items == []


async def test_a_directory_in_use_is_left_also_if_it_came_into_use_during_the_round(world: World) -> None:
    path = world.environment("gone", chat("gone"))
    world.answers = {"chat-sessions/gone": (404, {"error": "chat session not found"})}
    life = SimpleNamespace(
        record=SimpleNamespace(work_dir=""), claim=SimpleNamespace(prior_work_dir=str(path / "workdir"))
    )
    real = world.keeper._size

    async def size(*arguments: Any, **more: Any) -> Any:
        world.lives["srv/x"] = life  # claimed between the verdict and the rename
        return await real(*arguments, **more)

    world.keeper._size = size  # type: ignore[method-assign]
    assert (await world.keeper.clean()).items == []
    assert path.exists()
    assert not world.keeper.remove(str(path / "workdir"))
    (kept,) = (await world.keeper.usage()).kept
    assert kept.verdict.reason == "in_use"
    world.lives.clear()
    assert world.keeper.remove(str(path / "workdir"))
    assert not world.keeper.remove(str(path / "workdir"))
    assert not world.keeper.remove("/etc")
    await world.keeper.resume()
    assert world.keeper.trash.is_empty()


async def test_metadata_that_a_crash_kept_from_being_written_come_from_the_journal(world: World) -> None:
    path = world.environment("kept", None, touched=NOW - 999 * 3600)
    await world.task(path, conversation_id="kept")
    world.answers = {"chat-sessions/kept": (200, {"status": "active", "updated_at": OLD})}
    world.rules = CleanRules(retention_days=0, run_days=0)
    assert (await world.keeper.clean()).items == []
    stamp = cleanup.read_stamp(path)
    assert stamp is not None
    assert (stamp.kind, stamp.chat_session_id, stamp.connection) == ("chat", "kept", "srv")


async def test_the_budget_takes_what_ended_first(world: World) -> None:
    first = world.environment("first", chat("a", "2026-01-01T00:00:00Z"))
    second = world.environment("second", chat("b", "2026-02-01T00:00:00Z"))
    local = world.environment("local", issue("i", local_directory="/home/u/p"))
    world.answers = {
        place: (200, {"status": "active", "updated_at": OLD})
        for place in ("chat-sessions/a", "chat-sessions/b", "issues/i")
    }
    world.rules = CleanRules(budget_bytes=300_000, artifacts=())
    assert [Path(item.path).name for item in (await world.keeper.clean()).items] == ["first"]
    assert not first.exists()
    world.rules = CleanRules(budget_bytes=1, artifacts=())
    assert [item.reason for item in (await world.keeper.clean()).items] == ["over_budget"]
    assert not second.exists()
    assert local.exists()


async def test_old_tasks_and_the_raw_output_of_old_runs_go(world: World, tmp_path: Path) -> None:
    path = world.environment("old", chat("old"))
    world.answers = {"chat-sessions/old": (200, {"status": "active", "updated_at": OLD})}
    await world.task(path)
    (tmp_path / "runs" / "run-old").mkdir()
    (tmp_path / "changes" / "0123").mkdir(parents=True)
    world.rules = CleanRules(retention_days=30, run_days=7)
    done = await world.keeper.clean()
    assert (done.tasks, done.runs) == (0, 1)
    assert not (tmp_path / "runs" / "run-old").exists()
    assert not (tmp_path / "changes" / "0123").exists()
    world.rules = CleanRules(retention_days=1, run_days=7)
    assert (await world.keeper.clean()).tasks == 1
    assert path.exists()  # the conversation is kept, and so is its directory


async def test_claims_wait_for_room_and_go_on_by_themselves(tmp_path: Path) -> None:
    free = 50
    said: list[Space | None] = []
    guard = RoomGuard(Room([tmp_path], 100, usage=lambda _: (free, 1000)), said.append)
    assert not await guard.enough()
    assert not await guard.enough()
    assert [space.free_bytes for space in said if space is not None] == [50]
    free = 500
    guard.look_again()
    await guard.wait()
    assert said[1:] == [None]
