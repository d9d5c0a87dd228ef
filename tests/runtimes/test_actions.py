"""What servers ask of a runtime: models, local skills, imports, updates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.connection import Connection
from daemon_core.connections.timing import Timing
from daemon_core.runtimes import actions
from daemon_core.runtimes.actions import ModelAnswer, ModelLister, PendingAction, RuntimeActions
from daemon_core.runtimes.heartbeat import Heartbeat
from daemon_core.runtimes.registration import RegisteredRuntime
from tests.runtimes.test_local_skills import skill
from tests.support.fake_server import TOKEN, FakeRuntime, FakeServer

FAST = Timing(sync_s=60, heartbeat_s=0.05, close_s=0.1)
PLACES = {"claude": ("~/.claude/skills",)}


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="w1")
        server.runtimes["r1"] = FakeRuntime("r1", "w1", "d", "claude", "Claude", "2")
        yield server


def made(
    home: Path,
    *,
    provider: str = "claude",
    models: ModelLister | None = None,
    connection: Connection | None = None,
) -> RuntimeActions:
    there = connection or Connection("server", ServerClient("http://127.0.0.1:1", TOKEN), FAST)
    runtime = RegisteredRuntime(there, "w1", "r1", provider, provider, "/bin/x", "1")
    return RuntimeActions(
        {"r1": runtime}.get,
        {"HOME": str(home)},
        lambda name: PLACES.get(name, ()),
        models=models,
        disk=asyncio.Semaphore(1),
    )


def wire_form(answer: dict[str, Any] | None) -> Any:
    return msgspec.json.decode(msgspec.json.encode(answer))


async def test_an_update_is_answered_in_words(tmp_path: Path) -> None:
    answer = wire_form(await made(tmp_path)(PendingAction("update", "r1", "u", "9.9.9")))
    assert answer["status"] == "failed"
    assert "Ostler" in answer["error"]
    assert "9.9.9" in answer["error"]


async def test_where_it_can_be_done_an_update_is(tmp_path: Path) -> None:
    asked: list[PendingAction] = []

    async def update(action: PendingAction) -> dict[str, Any] | None:
        asked.append(action)
        return None

    act = RuntimeActions(lambda _: None, {}, lambda _: (), disk=asyncio.Semaphore(1), update=update)
    wanted = PendingAction("update", "r1", "u", "1.1.0")
    assert await act(wanted) is None
    assert asked == [wanted]


async def test_local_skills_are_listed_as_the_wire_has_them(tmp_path: Path) -> None:
    skill(tmp_path / ".claude/skills", "one", **{"a.md": "a"})
    answer = wire_form(await made(tmp_path)(PendingAction("local_skills", "r1", "q")))
    assert answer == {
        "status": "completed",
        "supported": True,
        "skills": [
            {
                "key": "one",
                "name": "one",
                "description": "About one",
                "source_path": "~/.claude/skills/one",
                "provider": "claude",
                "root": "provider",
                "file_count": 2,
            }
        ],
    }


async def test_a_provider_without_skills_says_so(tmp_path: Path) -> None:
    act = made(tmp_path, provider="shell")
    listed = wire_form(await act(PendingAction("local_skills", "r1", "q")))
    assert listed == {"status": "completed", "skills": [], "supported": False}
    imported = await act(PendingAction("local_skill_import", "r1", "q", "one"))
    assert imported is not None
    assert imported["status"] == "failed"


async def test_an_unknown_skill_is_reported_as_failed(tmp_path: Path) -> None:
    answer = await made(tmp_path)(PendingAction("local_skill_import", "r1", "q", "../x"))
    assert answer is not None
    assert answer["status"] == "failed"
    assert "no local skill" in answer["error"]


async def test_models_come_from_the_lister(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def models(runtime: RegisteredRuntime) -> ModelAnswer:
        return ModelAnswer(models=[{"id": "opus", "label": "Opus", "default": True}])

    action = PendingAction("model_list", "r1", "q")
    assert await made(tmp_path, models=models)(action) == {
        "status": "completed",
        "models": [{"id": "opus", "label": "Opus", "default": True}],
        "supported": True,
    }

    async def broken(runtime: RegisteredRuntime) -> ModelAnswer:
        return ModelAnswer(error="not signed in")

    assert await made(tmp_path, models=broken)(action) == {
        "status": "failed",
        "models": [],
        "supported": True,
        "error": "not signed in",
    }

    async def hanging(runtime: RegisteredRuntime) -> ModelAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(actions, "MODELS_LIMIT_S", 0.02)
    answer = await made(tmp_path, models=hanging)(action)
    assert answer is not None
    assert (answer["status"], "in time" in answer["error"]) == ("failed", True)
    refused = await made(tmp_path)(action)
    assert refused is not None
    assert refused["supported"] is False


async def test_nothing_is_reported_for_a_runtime_that_is_gone(tmp_path: Path) -> None:
    assert await made(tmp_path)(PendingAction("local_skills", "other", "q")) is None


@contextlib.asynccontextmanager
async def beating(server: FakeServer, home: Path, *, link: bool) -> AsyncIterator[Connection]:
    connection = Connection("server", ServerClient(server.url, TOKEN), FAST)
    beats = Heartbeat(connection, gone=lambda *_: None, act=made(home, connection=connection))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(connection.run()), group.create_task(beats.run())]
        beats.set_runtimes(["r1"])
        if link:
            connection.link.set_runtimes(["r1"])
        try:
            yield connection
        finally:
            for task in tasks:
                task.cancel()


@pytest.mark.parametrize("link", [False, True], ids=["http", "websocket"])
async def test_a_batch_of_imports_is_done_once_each(server: FakeServer, tmp_path: Path, link: bool) -> None:
    for key in ("a", "b"):
        skill(tmp_path / ".claude/skills", key, f"text of {key}")
    batch = [{"id": f"q{n}", "skill_key": key} for n, key in enumerate(["a", "b", "gone", "a"])]
    async with beating(server, tmp_path, link=link):
        server.actions["r1"] = {
            "pending_local_skill_import": batch[0],
            "pending_local_skill_imports": batch,
        }
        await server.until(lambda: len(server.results) == 4)
        server.actions["r1"] = {"pending_local_skill_imports": batch}  # told once more
        beats = len(server.seen("heartbeat")) + sum(len(each.frames) for each in server.sockets)
        await server.until(
            lambda: (
                len(server.seen("heartbeat")) + sum(len(each.frames) for each in server.sockets) >= beats + 3
            )
        )
        assert len(server.results) == 4
    results = {id_: body for _, id_, body in server.results}
    assert {id_: body["status"] for id_, body in results.items()} == {
        "q0": "completed",
        "q1": "completed",
        "q2": "failed",
        "q3": "completed",
    }
    assert results["q0"]["skill"]["content"] == "text of a"


async def test_a_skill_that_cannot_be_sent_is_reported_as_failed(
    server: FakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(action: PendingAction) -> dict[str, Any]:
        return {"status": "completed", "name": "\udc80"}

    connection = Connection("server", ServerClient(server.url, TOKEN), FAST)
    beats = Heartbeat(connection, gone=lambda *_: None, act=act)
    server.actions["r1"] = {"pending_local_skills": {"id": "q"}}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(connection.run()), group.create_task(beats.run())]
        beats.set_runtimes(["r1"])
        await server.until(lambda: len(server.results) == 1)
        for task in tasks:
            task.cancel()
    assert server.results[0][2]["status"] == "failed"
    assert "local_skills failed" in caplog.text
