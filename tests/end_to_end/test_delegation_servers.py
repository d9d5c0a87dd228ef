"""Tasks of another server hand on work: it ends with them, and they hear of its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, wait_until
from tests.end_to_end.servers_world import ServersWorld, aside
from tests.support.fake_server import FakeServer, FakeTask
from tests.support.scripted_agent import script


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.add_workspace("Team")
        yield made


@pytest.fixture
def world(home: OstlerHome) -> ServersWorld:
    return ServersWorld(home)


async def add(world: ServersWorld, server: FakeServer, prompt: str, *options: str) -> FakeTask:
    """A task that hands on a command of a shell."""
    command = ["ostler", "task", "delegate", prompt, "--runtime", "shell", *options]
    runtime = await world.runtime(server, "claude")
    return server.add_task(
        runtime.id, chat_session_id="chat-1", chat_message=script({"run": command}, {"text": "handed on"})
    )


def children(world: ServersWorld) -> list[tuple[Any, ...]]:
    return world.home.hub(
        "SELECT t.id, t.status FROM task t JOIN conversation c ON c.id = t.conversation_id"
        " WHERE c.parent_key IS NOT NULL"
    )


async def test_a_task_waits_for_what_it_has_handed_on(world: ServersWorld, server: FakeServer) -> None:
    await world.start(OSTLER_DAEMON_SLOTS="1")
    await world.login(server)
    task = await add(world, server, "echo worked", "--wait")
    await world.ended(server, task)
    assert task.status == "completed"
    ((child, status),) = await aside(lambda: children(world))
    assert status == "completed"
    seen = await aside(lambda: world.home.task(task.id))
    assert [each["id"] for each in seen["children"]] == [child]
    assert await aside(lambda: world.home.journal("SELECT told FROM delegations")) == [("answer",)]


async def test_a_task_is_kept_open_and_hears_of_the_end(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    await world.start()
    await world.login(server)
    task = await add(world, server, f"while [ ! -e {go} ]; do sleep 0.05; done; echo worked at last")
    await aside(lambda: wait_until(lambda: children(world), "the child"))
    await aside(world.home.kill)
    await world.start()
    go.touch()
    await world.ended(server, task)
    assert task.status == "completed"
    output = server.check(task.id).body["output"]
    assert output.startswith("handed on")
    assert output.count("worked at last") == 1


async def test_what_was_handed_on_ends_when_the_server_cancels(
    world: ServersWorld, server: FakeServer
) -> None:
    await world.start()
    await world.login(server)
    task = await add(world, server, "sleep 600", "--wait")
    await aside(lambda: wait_until(lambda: children(world), "the child"))
    server.end_task(task.id, "cancelled")

    def cancelled() -> bool:
        return [status for _, status in children(world)] == ["cancelled"]

    await aside(lambda: wait_until(cancelled, "the child to be cancelled"))
    told = "SELECT told FROM delegations WHERE told IN ('dropped', 'answer')"
    await aside(lambda: wait_until(lambda: world.home.journal(told), "the end of it"))
    assert await aside(lambda: world.home.journal("SELECT 1 FROM notices")) == []
