"""Registration over a real socket: what is offered, recovered, retired and deregistered, and when."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.connection import Connection
from daemon_core.connections.health import State
from daemon_core.connections.timing import Timing
from daemon_core.runtimes.registration import Identity, Registration, display_name
from daemon_core.runtimes.schedule import RecoverySchedule
from tests.support.fake_server import (
    TOKEN,
    FakeServer,
    ResetAfter,
    Says,
    Status,
    eventually,
    html_502,
    refuse,
)

FAST = Timing(
    sync_s=60,
    first_retry_s=0.02,
    retry_limit_s=0.08,
    close_s=0.1,
    reconcile_quiet_s=0,
    recovery_window_s=0.2,
    recovery_retry_s=0.1,
)
IDENTITY = Identity("d-1", device_name="box", cli_version="0.5.0", launched_by="desktop")


@dataclass(frozen=True)
class Agent:
    provider: str
    path: str = "/bin/agent"
    version: str = "2.0.0"


CLAUDE, SHELL = Agent("claude", "/bin/claude"), Agent("shell", "/bin/sh", "5")


class World:
    """A running connection with its registration, and what was seen of it."""

    def __init__(self, connection: Connection, agents: list[Agent]) -> None:
        self.alive: set[str] = set()
        self.changes: list[list[str]] = []
        self._more = asyncio.Event()
        self.connection = connection
        self.registration = Registration(
            connection, IDENTITY, agents, lives=self.alive.__contains__, changed=self._changed
        )

    def _changed(self, registration: Registration) -> None:
        self.changes.append(sorted(r.provider for r in registration.runtimes.values() if r.claimable))
        self._more.set()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def id_of(self, provider: str, workspace_id: str = "w1") -> str:
        (id_,) = (
            id_
            for id_, runtime in self.registration.runtimes.items()
            if (runtime.provider, runtime.workspace_id) == (provider, workspace_id)
        )
        return id_


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="w1")
        yield server


@contextlib.asynccontextmanager
async def world(server: FakeServer, *agents: Agent, timing: Timing = FAST) -> AsyncIterator[World]:
    world = World(Connection("server", ServerClient(server.url, TOKEN), timing), list(agents))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.connection.run()), group.create_task(world.registration.run())]
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()


# --- the pure part ---------------------------------------------------------------------------------


def test_triggers_coalesce_and_stale_ones_are_dropped() -> None:
    schedule = RecoverySchedule(window_s=30, retry_s=60)
    assert schedule.next_at() is None
    assert schedule.gone("w", asked_at=10, now=11)
    assert schedule.gone("w", asked_at=10, now=12)
    assert schedule.due(11) == ["w"]
    schedule.registered("w", 13, recovery=True)
    assert schedule.due(1000) == []
    assert not schedule.gone("w", asked_at=12.9, now=14)  # began before the registration
    assert schedule.gone("w", asked_at=14, now=15)  # a real one, within the window: later
    assert schedule.pending("w")
    assert schedule.due(42.9) == []
    assert schedule.due(43) == ["w"]


def test_a_failed_recovery_waits_a_minute_and_stays_due() -> None:
    schedule = RecoverySchedule(window_s=30, retry_s=60)
    schedule.gone("w", 0, 1)
    schedule.failed("w", 2)
    schedule.gone("w", 3, 4)
    assert schedule.next_at() == 62
    schedule.forget("w")
    assert schedule.next_at() is None
    assert not schedule.pending("w")


def test_a_first_registration_opens_no_window() -> None:
    schedule = RecoverySchedule(window_s=30, retry_s=60)
    schedule.registered("w", 10)
    assert schedule.gone("w", 11, 12)
    assert schedule.due(12) == ["w"]


def test_workspaces_are_independent_and_due_in_order() -> None:
    schedule = RecoverySchedule(30, 60)
    schedule.gone("b", 1, 2)
    schedule.gone("a", 1, 3)
    assert schedule.due(3) == ["b", "a"]


@pytest.mark.parametrize(
    ("provider", "device", "name"),
    [("claude", "box", "Claude (box)"), ("traecli", "", "Trae"), ("openCode", "x", "OpenCode (x)")],
)
def test_a_runtime_is_named_after_provider_and_device(provider: str, device: str, name: str) -> None:
    assert display_name(provider, device) == name


# --- registering -----------------------------------------------------------------------------------


async def test_agents_are_registered_in_every_workspace(server: FakeServer) -> None:
    server.add_workspace(id_="w2")
    server.repos["w1"] = [{"url": "https://x/r.git"}]
    server.settings["w1"] = {"github_enabled": False}
    async with world(server, CLAUDE, SHELL, Agent("claude", "/other")) as w:
        await w.until(lambda: len(w.registration.runtimes) == 4)
        runtime = w.registration.runtimes[w.id_of("claude", "w2")]
        assert (runtime.name, runtime.path, runtime.version) == ("Claude (box)", "/bin/claude", "2.0.0")
        assert runtime.connection is w.connection
        request = server.seen("register")[0].body
        assert request == {
            "workspace_id": "w1",
            "daemon_id": "d-1",
            "legacy_daemon_ids": [],
            "device_name": "box",
            "cli_version": "0.5.0",
            "launched_by": "desktop",
            "runtimes": [
                {"name": "Claude (box)", "type": "claude", "version": "2.0.0", "status": "online"},
                {"name": "Shell (box)", "type": "shell", "version": "5", "status": "online"},
            ],
            "failed_profiles": None,
        }
        state = w.registration.workspaces["w1"]
        assert [r.url for r in state.repos] == ["https://x/r.git"]
        assert state.settings == {"github_enabled": False}
        await server.until(lambda: bool(server.handshakes) and len(server.handshakes[-1]) == 4)


async def test_orphans_are_recovered_before_a_runtime_is_offered(server: FakeServer) -> None:
    async with world(server, CLAUDE, SHELL) as w:
        await w.until(lambda: bool(w.changes))
        assert sorted(server.orphans) == sorted(w.registration.runtimes)
        routes = [r.route for r in server.requests]
        assert routes == ["renew", "workspaces", "register", "orphans", "orphans"]


async def test_orphans_of_a_runtime_with_a_living_task_are_left_alone(server: FakeServer) -> None:
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        first = w.id_of("claude")
        task = server.add_task(first)
        task.status = "running"
        server.orphans.clear()
    async with world(server, CLAUDE) as w:
        w.alive.add(first)  # re-attached after a restart
        await w.until(lambda: bool(w.changes))
        assert server.orphans == []
        assert task.status == "running"
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        assert server.orphans == [first]
        assert task.status == "failed"


async def test_a_lost_answer_to_recover_orphans_is_asked_again(server: FakeServer) -> None:
    server.script("orphans", ResetAfter())
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        assert len(server.orphans) == 2


async def test_a_registration_whose_answer_is_lost_is_repeated_without_a_double(server: FakeServer) -> None:
    server.script("register", ResetAfter(), html_502())
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        assert len(server.runtimes) == 1
        assert len(server.seen("register")) == 3


@pytest.mark.parametrize(
    "refusal",
    [refuse(409, "runtime profile is disabled: x"), refuse(402, "a seat is missing"), refuse(500, "no")],
)
async def test_one_refused_workspace_does_not_keep_another_out(server: FakeServer, refusal: Status) -> None:
    server.add_workspace(id_="w2")
    server.script("register", refusal)
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        assert {r.workspace_id for r in w.registration.runtimes.values()} == {"w2"}
        await eventually(lambda: w.connection.health.state is State.OK)
        problems = {id_: state.problem for id_, state in w.registration.workspaces.items()}
        assert problems == {"w1": json.loads(refusal.body)["error"], "w2": ""}
        w.connection.sync_now()  # without runtimes: registered again at the next sync
        await w.until(lambda: len(w.registration.runtimes) == 2)
        assert w.registration.workspaces["w1"].problem == ""
        await server.until(lambda: len(server.seen("repos")) == 1)


@pytest.mark.parametrize(
    "answer",
    [
        {"runtimes": []},
        {"runtimes": None, "settings": None},
        {
            "runtimes": [
                {"id": "x", "provider": "codex"},
                {"id": "y", "provider": "claude", "profile_id": "p"},
            ]
        },
    ],
)
async def test_an_answer_without_our_runtimes_is_tried_again_at_the_next_sync(
    server: FakeServer, answer: object
) -> None:
    server.script("register", Says(answer))
    async with world(server, CLAUDE) as w:
        await server.until(lambda: len(server.seen("register")) == 1)
        await eventually(lambda: w.connection.health.state is State.OK)
        assert w.changes == []
        w.connection.sync_now()
        await w.until(lambda: bool(w.changes))


async def test_repositories_and_settings_are_kept_up_to_date(server: FakeServer) -> None:
    server.settings["w1"] = {"github_enabled": False}
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        server.repos["w1"] = [{"url": "https://x/new.git"}]
        server.settings["w1"] = None
        server.script("repos", html_502())
        state = w.registration.workspaces["w1"]
        for times in (1, 2, 3):
            w.connection.sync_now()
            await server.until(lambda times=times: len(server.seen("repos")) >= times)  # type: ignore[misc]
        await eventually(lambda: bool(state.repos))
        assert (state.repos[0].url, state.settings) == ("https://x/new.git", None)
        assert len(server.seen("register")) == 1


async def test_a_workspace_that_is_left_is_dropped_without_a_call(server: FakeServer) -> None:
    server.add_workspace(id_="w2")
    async with world(server, CLAUDE) as w:
        await w.until(lambda: len(w.registration.runtimes) == 2)
        del server.workspaces["w1"]
        w.connection.sync_now()
        await w.until(lambda: len(w.registration.runtimes) == 1)
        assert list(w.registration.workspaces) == ["w2"]
        assert server.seen("deregister") == []
        await server.until(lambda: server.handshakes[-1] == [w.id_of("claude", "w2")])


# --- loss and recovery -----------------------------------------------------------------------------


async def test_lost_runtimes_are_dropped_at_once_and_registered_again_in_one_go(server: FakeServer) -> None:
    async with world(server, CLAUDE, SHELL) as w:
        await w.until(lambda: len(w.registration.runtimes) == 2)
        before = dict(w.registration.runtimes)
        server.orphans.clear()
        for runtime_id in before:
            server.lose_runtime(runtime_id)
        asked_at = asyncio.get_running_loop().time()
        for runtime_id in before:
            w.registration.runtime_gone(runtime_id, asked_at)
            assert runtime_id not in w.registration.runtimes
        await w.until(lambda: len(w.registration.runtimes) == 2)
        assert before.keys().isdisjoint(w.registration.runtimes)
        assert len(server.seen("register")) == 2
        assert sorted(server.orphans) == sorted(w.registration.runtimes)
        fresh = w.id_of("claude")
        w.registration.runtime_gone(fresh, asked_at)  # stale word
        w.registration.runtime_gone("unknown", asked_at + 100)
        assert fresh in w.registration.runtimes


async def test_a_sibling_that_was_not_lost_keeps_its_tasks(server: FakeServer) -> None:
    async with world(server, CLAUDE, SHELL) as w:
        await w.until(lambda: len(w.registration.runtimes) == 2)
        shell, claude = w.id_of("shell"), w.id_of("claude")
        task = server.add_task(shell)
        await w.connection.client.claim(shell)
        server.orphans.clear()
        server.lose_runtime(claude)
        w.registration.runtime_gone(claude, asyncio.get_running_loop().time())
        await w.until(lambda: len(w.registration.runtimes) == 2)
        assert server.orphans == [w.id_of("claude")]
        assert task.status == "dispatched"


async def test_a_recovery_that_fails_is_tried_again_later(server: FakeServer) -> None:
    async with world(server, CLAUDE) as w:
        await w.until(lambda: len(w.registration.runtimes) == 1)
        server.script("register", html_502(), html_502())
        runtime_id = w.id_of("claude")
        server.lose_runtime(runtime_id)
        w.registration.runtime_gone(runtime_id, asyncio.get_running_loop().time())
        await w.until(lambda: len(w.registration.runtimes) == 1)
        assert w.id_of("claude") != runtime_id


async def test_a_second_loss_within_the_window_waits_for_its_end(server: FakeServer) -> None:
    async with world(server, CLAUDE) as w:
        await w.until(lambda: len(w.registration.runtimes) == 1)
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(2):
            runtime_id = w.id_of("claude")
            server.lose_runtime(runtime_id)
            w.registration.runtime_gone(runtime_id, loop.time())
            await w.until(lambda: len(w.registration.runtimes) == 1)
            times.append(loop.time())
        assert times[1] - times[0] >= FAST.recovery_window_s * 0.9


# --- agents come and go ----------------------------------------------------------------------------


async def test_a_new_agent_is_registered_without_touching_orphans(server: FakeServer) -> None:
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        task = server.add_task(w.id_of("claude"))
        await w.connection.client.claim(w.id_of("claude"))
        server.orphans.clear()
        w.registration.set_agents([CLAUDE])
        w.registration.set_agents([CLAUDE, SHELL])
        await w.until(lambda: w.changes[-1] == ["claude", "shell"])
        w.registration.set_agents([dataclasses.replace(CLAUDE, version="2.1.0"), SHELL])
        await w.until(lambda: w.registration.runtimes[w.id_of("claude")].version == "2.1.0")
        assert server.orphans == []
        assert task.status == "dispatched"
        assert len(server.seen("register")) == 3


async def test_a_removed_agent_is_deregistered_unless_a_run_of_it_lives(server: FakeServer) -> None:
    async with world(server, CLAUDE, SHELL) as w:
        await w.until(lambda: len(w.registration.runtimes) == 2)
        shell, claude = w.id_of("shell"), w.id_of("claude")
        w.alive.add(shell)
        w.registration.set_agents([])
        await w.until(lambda: w.changes[-1] == [])
        assert not w.registration.runtimes[shell].claimable
        await server.until(lambda: len(server.seen("deregister")) == 1)
        body = server.seen("deregister")[0].body
        assert body["runtime_ids"] == [claude]
        assert set(body["offline_reasons"][claude]) == {"code", "detail", "repair"}
        assert body["offline_reasons"][claude]["code"] == "agent_missing"
        w.connection.sync_now()
        await server.until(lambda: len(server.seen("workspaces")) >= 2)
        assert shell in w.registration.runtimes
        w.alive.clear()
        w.connection.sync_now()
        await w.until(lambda: not w.registration.runtimes)
        w.registration.set_agents([SHELL])
        await w.until(lambda: w.changes[-1] == ["shell"])
        assert w.id_of("shell") == shell
        assert server.runtimes[shell].online


async def test_a_change_that_could_not_be_registered_is_made_up_for(server: FakeServer) -> None:
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.changes))
        server.script("register", html_502())
        w.registration.set_agents([CLAUDE, SHELL])
        await w.until(lambda: w.changes[-1] == ["claude", "shell"])  # the failure made the connection look


async def test_stopping_deregisters_what_has_no_living_run(server: FakeServer) -> None:
    async with world(server, CLAUDE, SHELL) as w:
        await server.until(lambda: bool(server.sockets) and len(server.sockets[0].frames) == 2)
        shell, claude = w.id_of("shell"), w.id_of("claude")
        w.alive.add(claude)
        await w.registration.deregister()
        assert list(w.registration.runtimes) == [claude]
        assert (server.runtimes[shell].online, server.runtimes[claude].online) == (False, True)
        assert server.seen("deregister")[0].body["offline_reasons"][shell]["code"] == "daemon_stopped"
        await w.registration.deregister()
        assert len(server.seen("deregister")) == 1
        w.alive.clear()
        server.script("deregister", html_502())
        await w.registration.deregister()  # a server that is away does not hold up a stop
        assert not w.registration.runtimes


async def test_a_server_that_dislikes_the_reason_is_told_without(server: FakeServer) -> None:
    async with world(server, CLAUDE) as w:
        await w.until(lambda: bool(w.registration.runtimes))
        claude = w.id_of("claude")
        server.script("deregister", refuse(400, "invalid offline reason"))
        await w.registration.deregister()
        assert "offline_reasons" not in server.seen("deregister")[-1].body
        assert not server.runtimes[claude].online
