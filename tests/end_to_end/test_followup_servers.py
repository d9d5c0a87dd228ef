"""Tasks of another server that are kept open for their jobs: one result, whatever dies."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.errors import ControlError
from tests.end_to_end.home import PATIENCE_S, OstlerHome, wait_until
from tests.end_to_end.servers_world import ServersWorld, aside
from tests.support.fake_server import FakeServer, FakeTask
from tests.support.scripted_agent import script

EARLY = ("run_ended:1", "notices_put_back:1", "before_keeping", "keeping")
LATE = (
    "further_claim", "further_run", "notices_given:2", "before_spawn:2", "spawned:2", "run_ended:2",
    "before_result",
)  # fmt: skip


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.add_workspace("Team")
        yield made


@pytest.fixture
def world(home: OstlerHome) -> ServersWorld:
    return ServersWorld(home)


async def add(world: ServersWorld, server: FakeServer, go: Path) -> FakeTask:
    """A task that says something, and starts a job that goes on until a file is there."""
    job = [sys.executable, "-m", "daemon_core.cli", "job", "run", "--"]
    # What the job writes is in what its agent is told, and makes it say something.
    told = script({"text": "told"})
    command = f"while [ ! -e {go} ]; do sleep 0.05; done; echo '{told}'"
    runtime = await world.runtime(server, "claude")
    return server.add_task(
        runtime.id,
        chat_session_id="chat-1",
        chat_message=script({"text": "started"}, {"run": [*job, command]}),
    )


def open_for_jobs(world: ServersWorld, task: FakeTask) -> bool:
    try:
        found: dict[str, Any] = world.home.call("GET", f"/v1/tasks/{task.id}")
    except ControlError:
        return False  # it was not claimed yet
    return (found.get("waiting") or {}).get("code") == "waiting_jobs"


def check(server: FakeServer, task: FakeTask) -> None:
    lines = server.check_transcript(task.id)  # numbers from 1 without a hole
    assert "".join(line.get("content") or "" for line in lines if line["type"] == "text") == "startedtold"
    assert server.check(task.id).body["output"] == "started\n\ntold"
    (usage,) = task.usage
    assert usage["input_tokens"] == 20


async def test_a_task_stays_open_without_a_slot_until_its_job_has_ended(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    await world.start()
    await world.login(server)
    task = await add(world, server, go)
    await aside(lambda: wait_until(lambda: open_for_jobs(world, task), "the task to be kept open"))
    assert task.status == "running"
    assert (await aside(world.home.status))["active_runs"] == 0
    go.touch()
    await world.ended(server, task)
    check(server, task)
    await aside(lambda: world.home.wait_delivered(task.id))
    states = await aside(lambda: world.home.journal("SELECT state FROM notices"))
    assert states == [("delivered",)]


@pytest.mark.parametrize("place", [*EARLY, *LATE])
async def test_a_death_anywhere_leaves_one_result(
    world: ServersWorld, server: FakeServer, tmp_path: Path, place: str
) -> None:
    go = tmp_path / "go"
    await world.start()
    await world.login(server)
    await world.runtime(server, "claude")
    await aside(world.home.stop)
    await aside(lambda: world.home.start(kill_at=place))
    task = await add(world, server, go)
    if place in EARLY:
        await aside(world.home.wait_dead)
        await world.start()
        go.touch()
    else:
        await aside(lambda: wait_until(lambda: open_for_jobs(world, task), "the task to be kept open"))
        go.touch()
        await aside(world.home.wait_dead)
        await world.start()
    await world.ended(server, task)
    await aside(lambda: world.home.wait_delivered(task.id))
    check(server, task)
    assert await aside(lambda: world.home.journal("SELECT state FROM notices")) == [("delivered",)]


async def test_a_cancel_while_it_is_kept_open_is_heard(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    task = await add(world, server, tmp_path / "go")
    await aside(lambda: wait_until(lambda: open_for_jobs(world, task), "the task to be kept open"))
    await aside(world.home.kill)
    task.status = "cancelled"
    await world.start()

    def over() -> bool:
        rows = world.home.journal("SELECT outcome, delivery FROM tasks WHERE task_id = ?", task.id)
        return rows == [("cancelled", "delivered")]

    await aside(lambda: wait_until(over, "the task to be over", PATIENCE_S))
    assert not [request for request in server.seen("complete") if task.id in request.path]
