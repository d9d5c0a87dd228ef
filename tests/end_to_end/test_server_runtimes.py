"""Runtimes at a server on a real socket while runs live: what a restart, a switch and a loss do to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.home import PATIENCE_S, OstlerHome
from tests.end_to_end.servers_world import ServersWorld
from tests.support.fake_server import FakeServer, FakeTask


@pytest.fixture
def world(home: OstlerHome) -> ServersWorld:
    return ServersWorld(home)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="w1")
        yield server


async def running(world: ServersWorld, server: FakeServer, go: Path) -> FakeTask:
    """A task of the server that runs until ``go`` is there."""
    task = await world.add(server, f"while [ ! -e {go} ]; do sleep 0.05; done; echo made it")
    await server.until(lambda: task.status == "running", PATIENCE_S)
    return task


async def test_a_surviving_run_is_never_hit_by_the_bulk_recovery(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    task = await running(world, server, tmp_path / "go")
    assert task.runtime_id in server.orphans  # freshly registered: there was nothing to hit
    server.orphans.clear()
    registrations = len(server.seen("register"))
    await world.restart()
    await server.until(lambda: len(server.seen("register")) > registrations, PATIENCE_S)
    claude = await world.runtime(server, "claude")
    await server.until(lambda: claude.id in server.orphans, PATIENCE_S)  # nothing of it lives
    assert task.runtime_id not in server.orphans
    (tmp_path / "go").touch()
    await world.ended(server, task)
    assert server.check_terminal(task.id).kind == "complete"


async def test_a_switched_off_runtime_beats_on_until_its_run_is_over(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    task = await running(world, server, tmp_path / "go")
    said = await world.ostler("runtimes", "off", "shell", "--json")
    assert said.code == 0, said
    assert {view["connection"]: view["busy"] for view in said.document}["hub"] == 0
    sockets = len(server.handshakes)
    await world.restart()
    await server.until(lambda: any(task.runtime_id in ids for ids in server.handshakes[sockets:]), PATIENCE_S)
    assert server.runtimes[task.runtime_id].online
    later = server.add_task(task.runtime_id, chat_session_id="c", chat_message="echo never")
    (tmp_path / "go").touch()
    await world.ended(server, task)
    assert server.check_terminal(task.id).kind == "complete"
    await server.until(lambda: not server.runtimes[task.runtime_id].online, PATIENCE_S)
    assert later.status == "queued"
    assert (await world.ostler("runtimes", "on", "shell", "--json")).code == 0
    await world.ended(server, later)
    assert later.status == "completed"


async def test_a_runtime_that_the_server_lost_comes_back_and_its_run_goes_on(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    task = await running(world, server, tmp_path / "go")
    server.lose_runtime(task.runtime_id)
    server.drop_sockets()  # the next beat is over HTTP, or the next claim says so
    await server.until(
        lambda: any(
            each.provider == "shell" and each.id != task.runtime_id for each in server.runtimes.values()
        ),
        PATIENCE_S + 20,
    )
    assert task.status == "running"
    (tmp_path / "go").touch()
    await world.ended(server, task)
    assert server.check_terminal(task.id).kind == "complete"
