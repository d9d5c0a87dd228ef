"""A connection against a real server: its states with their reasons, its workspaces, its independence."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable

import pytest

from daemon_core.connections.client import NoAnswerError, ServerClient
from daemon_core.connections.clock import Clock
from daemon_core.connections.connection import Connection, ConnectionListener, WorkspaceSync
from daemon_core.connections.health import Health, State, diagnose
from daemon_core.connections.timing import Timeouts, Timing
from daemon_core.protocol import errors, wire
from tests.support.fake_server import (
    TOKEN,
    FakeRuntime,
    FakeServer,
    Hang,
    Status,
    html_502,
    refuse,
    too_many,
)

FAST = Timing(
    sync_s=60, first_retry_s=0.02, retry_limit_s=0.08, close_s=0.1, reconcile_quiet_s=0, handshake_s=0.5
)


class Witness(ConnectionListener):
    """Notes what the connection says."""

    def __init__(self) -> None:
        self.states: list[Health] = []
        self.wakes = 0
        self.syncs: list[WorkspaceSync] = []
        self.hints: list[tuple[str, str]] = []
        self.refuse: errors.ServerError | None = None
        self._more = asyncio.Event()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def health_changed(self, connection: Connection, health: Health) -> None:
        assert connection.health is health
        self.states.append(health)
        self._more.set()

    def wake_all(self, connection: Connection) -> None:
        self.wakes += 1
        self._more.set()

    def task_available(self, connection: Connection, runtime_id: str) -> None:
        self.hints.append(("task", runtime_id))
        self._more.set()

    def task_changed(self, connection: Connection, task_id: str) -> None:
        self.hints.append(("changed", task_id))
        self._more.set()

    def heartbeat_acked(self, connection: Connection, ack: wire.HeartbeatResponse, asked_at: float) -> None:
        self.hints.append(("ack", ack.runtime_id))
        self._more.set()

    def work_pending(self, connection: Connection, runtime_id: str) -> None:
        self.hints.append(("pending", runtime_id))
        self._more.set()

    def profiles_changed(self, connection: Connection, workspace_id: str) -> None:
        self.hints.append(("profiles", workspace_id))
        self._more.set()

    async def workspaces_synced(self, connection: Connection, sync: WorkspaceSync) -> None:
        self.syncs.append(sync)
        self._more.set()
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="w1")
        yield server


@contextlib.asynccontextmanager
async def connected(
    url: str, *, token: Callable[[], str] = lambda: TOKEN, timing: Timing = FAST, clock: Clock | None = None
) -> AsyncIterator[tuple[Connection, Witness]]:
    """A running connection with its witness."""
    short = Timeouts(control_s=1, workspaces_s=1, renew_s=1)
    connection = Connection("server", ServerClient(url, token, timeouts=short), timing, clock=clock)
    witness = Witness()
    connection.add_listener(ConnectionListener())
    connection.add_listener(witness)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(connection.run())
        try:
            yield connection, witness
        finally:
            task.cancel()


def ids(workspaces: tuple[wire.Workspace, ...]) -> list[str]:
    return [workspace.id for workspace in workspaces]


async def test_the_token_is_renewed_before_anything_else_and_workspaces_are_handed_over(
    server: FakeServer,
) -> None:
    async with connected(server.url) as (connection, witness):
        assert connection.health.state is State.STARTING
        await witness.until(lambda: connection.health.state is State.OK)
        assert [r.route for r in server.requests] == ["renew", "workspaces"]
        server.add_workspace(id_="w2")
        connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 2)
        del server.workspaces["w1"]
        connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 3)
        assert [(ids(s.current), ids(s.joined), ids(s.left)) for s in witness.syncs] == [
            (["w1"], ["w1"], []),
            (["w1", "w2"], ["w2"], []),
            (["w2"], [], ["w1"]),
        ]
        assert list(connection.workspaces) == ["w2"]
        assert len(server.seen("renew")) == 1
        assert [h.state for h in witness.states] == [State.OK]
        assert "ok" in repr(connection)


async def test_the_token_is_renewed_every_three_days(server: FakeServer) -> None:
    now = [1000.0]
    async with connected(server.url, clock=Clock(lambda: now[0])) as (connection, witness):
        for sync, days in enumerate((2.9, 0.2, 2.7, 0.2), start=1):
            await witness.until(lambda sync=sync: len(witness.syncs) == sync)  # type: ignore[misc]
            now[0] += days * 86400
            connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 5)
        assert len(server.seen("renew")) == 2


async def test_days_asleep_count_for_the_renewal(server: FakeServer) -> None:
    wall = [1e9]
    async with connected(server.url, clock=Clock(wall=lambda: wall[0])) as (connection, witness):
        await witness.until(lambda: len(witness.syncs) == 1)
        wall[0] += 3.1 * 86400
        connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 2)
        assert len(server.seen("renew")) == 2


@pytest.mark.parametrize("fault", [refuse(400, "only personal access tokens can be renewed"), html_502()])
async def test_a_renewal_that_fails_does_no_harm(server: FakeServer, fault: Status) -> None:
    server.script("renew", fault)
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 2)
        assert len(server.seen("renew")) == 1


@pytest.mark.parametrize("route", ["renew", "workspaces"])
async def test_a_refused_token_is_a_state_that_waits_for_another(server: FakeServer, route: str) -> None:
    tokens = ["mul_old"]
    server.tokens.add("mul_old")
    server.script(route, refuse(401, "invalid token"))
    async with connected(server.url, token=lambda: tokens[0]) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.SIGNED_OUT)
        assert not connection.usable
        assert connection.health.code == "token_refused"
        assert connection.health.next_try_at is not None
        assert 200 < connection.health.next_try_at - time.time() < 400
        before = len(server.requests)
        with pytest.raises(TimeoutError):  # many back-off periods long nothing is tried
            await witness.until(lambda: connection.usable, timeout_s=0.4)
        assert len(server.requests) == before
        tokens[0] = TOKEN
        connection.token_changed()
        await connection.wait_usable()
        await witness.until(lambda: connection.health.state is State.OK)
        assert [h.state for h in witness.states] == [State.SIGNED_OUT, State.STARTING, State.OK]
        assert [r.route for r in server.requests][-2:] == ["renew", "workspaces"]


async def test_a_server_that_refused_everybody_is_found_again_without_anybody(server: FakeServer) -> None:
    timing = dataclasses.replace(FAST, recheck_s=0.05, recheck_limit_s=0.2)
    async with connected(server.url, timing=timing) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        server.tokens.clear()  # its store is down, so it knows nobody
        connection.sync_now()
        await witness.until(lambda: connection.health.state is State.SIGNED_OUT)
        since = connection.health.since
        tries = [health.next_try_at for health in witness.states]
        await witness.until(lambda: len(witness.states) >= len(tries) + 3)
        assert not connection.usable
        assert connection.health.since == since
        server.script("workspaces", refuse(503, "starting"))
        server.tokens.add(TOKEN)
        await witness.until(lambda: connection.health.state is State.OK)
        shown = [health.state for health in witness.states]
        assert [state for last, state in zip([None, *shown], shown, strict=False) if state != last] == [
            State.OK, State.SIGNED_OUT, State.STARTING, State.OK,
        ]  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
async def test_a_401_that_somebody_else_met_signs_out_too(server: FakeServer, known: bool) -> None:
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        server.tokens.clear()
        asked_at = time.monotonic()
        with pytest.raises(errors.UnauthorizedError) as caught:
            await connection.client.claim("r")
        for _ in range(2):
            connection.report(caught.value, asked_at if known else None)
        if known:
            assert connection.health.state is State.SIGNED_OUT
        await witness.until(lambda: connection.health.state is State.SIGNED_OUT)
        server.tokens.add(TOKEN)
        connection.token_changed()
        await witness.until(lambda: connection.health.state is State.OK)


async def test_a_refusal_of_unknown_age_is_looked_into_and_no_more(server: FakeServer) -> None:
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        connection.report(errors.UnauthorizedError("POST", "/x", 401))  # the new token's, or the old one's?
        await witness.until(lambda: len(witness.syncs) == 2)
        assert connection.health.state is State.OK
        assert [health.state for health in witness.states] == [State.OK]


async def test_a_refusal_of_the_token_before_means_nothing_for_the_new_one(server: FakeServer) -> None:
    now = [1000.0]
    async with connected(server.url, clock=Clock(lambda: now[0])) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        late = errors.UnauthorizedError("POST", "/api/daemon/heartbeat", 401, "invalid token")
        now[0] += 10
        connection.token_changed()
        connection.report(late, asked_at=1005)
        await witness.until(lambda: connection.health.state is State.OK)
        connection.report(late, asked_at=1011)
        assert connection.health.state is State.SIGNED_OUT


async def test_a_token_refused_by_the_websocket_signs_out(server: FakeServer) -> None:
    server.runtimes["r"] = FakeRuntime("r", "w1", "d", "claude", "Claude", "1")
    server.script("ws", refuse(401, "invalid token"))
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        connection.link.set_runtimes(["r"])
        await witness.until(lambda: connection.health.state is State.SIGNED_OUT)
        connection.token_changed()
        await witness.until(lambda: ("ack", "r") in witness.hints)


async def test_an_unreachable_server_is_tried_again_and_said_when(server: FakeServer) -> None:
    await server.stop()
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: len(witness.states) == 3)
        first, second, third = witness.states[:3]
        assert {h.state for h in (first, second, third)} == {State.SERVER_UNREACHABLE}
        assert first.code == "refused"
        assert first.params["host"] == connection.client.host
        assert first.since == second.since == third.since
        assert first.next_try_at is not None
        assert second.next_try_at is not None
        assert first.next_try_at < second.next_try_at
        await server.start()
        await witness.until(lambda: connection.health.state is State.OK)
        assert witness.wakes >= 1
        assert connection.health.next_try_at is None


@pytest.mark.parametrize(
    ("fault", "state", "code"),
    [
        (html_502(), State.SERVER_UNREACHABLE, "http_status"),
        (Hang(), State.SERVER_UNREACHABLE, "timeout"),
        (refuse(403, "account disabled"), State.REFUSED, "http_status"),
        (refuse(404, "not found"), State.REFUSED, "http_status"),
        (Status(404, "404 page not found", "text/plain"), State.SERVER_UNREACHABLE, "not_the_server"),
        (Status(200, "<html>", "text/html"), State.SERVER_UNREACHABLE, "not_the_server"),
    ],
)
async def test_each_failure_has_its_state_and_passes(
    server: FakeServer, fault: Status | Hang, state: State, code: str
) -> None:
    server.script("workspaces", fault)
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: len(witness.states) == 2)
        assert [(h.state, h.code) for h in witness.states] == [(state, code), (State.OK, "")]
        assert connection.workspaces.keys() == {"w1"}


def test_no_network_is_not_a_server_that_is_down() -> None:
    error = NoAnswerError("GET", "/", "name_not_resolved", "the name x was not found", maybe_applied=False)
    assert diagnose(error, "x").state is State.WAITING_FOR_NETWORK


async def test_a_server_that_asks_for_patience_gets_it(server: FakeServer) -> None:
    server.script("workspaces", too_many("300"))
    async with connected(server.url, clock=Clock(wall=lambda: 5000.0)) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.SERVER_UNREACHABLE)
        assert connection.health.next_try_at == 5300


async def test_workspaces_are_remembered_while_the_server_is_away(server: FakeServer) -> None:
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        await server.stop()
        connection.sync_now()
        await witness.until(lambda: connection.health.state is State.SERVER_UNREACHABLE)
        assert list(connection.workspaces) == ["w1"]


async def test_a_listener_that_is_refused_makes_the_sync_fail_and_be_repeated(server: FakeServer) -> None:
    async with connected(server.url) as (connection, witness):
        witness.refuse = errors.TransientError("POST", "/api/daemon/register", 500, "store")
        await witness.until(lambda: connection.health.state is State.OK)
        assert [h.state for h in witness.states] == [State.SERVER_UNREACHABLE, State.OK]
        assert [ids(s.joined) for s in witness.syncs] == [["w1"], []]


async def test_hints_come_through_and_a_new_link_reconciles(server: FakeServer) -> None:
    server.runtimes["r"] = FakeRuntime("r", "w1", "d", "claude", "Claude", "1")
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        connection.link.set_runtimes(["r"])
        await witness.until(lambda: ("ack", "r") in witness.hints and len(witness.syncs) == 2)
        assert witness.wakes == 1
        server.push("daemon:task_available", {"runtime_id": "r"})
        server.push("daemon:task_changed", {"task_id": "t"})
        server.push("daemon:pending_work", {"runtime_id": "r"})
        server.push("daemon:runtime_profiles_changed", {"workspace_id": "w1"})
        await witness.until(lambda: len(witness.syncs) == 3)
        server.push("daemon:workspaces_changed", {})
        await witness.until(lambda: len(witness.syncs) == 4)
        assert witness.hints[1:] == [("task", "r"), ("changed", "t"), ("pending", "r"), ("profiles", "w1")]
        server.drop_sockets()
        await witness.until(lambda: witness.wakes == 2)


async def test_a_lost_link_makes_the_connection_look_for_itself(server: FakeServer) -> None:
    server.runtimes["r"] = FakeRuntime("r", "w1", "d", "claude", "Claude", "1")
    async with connected(server.url) as (connection, witness):
        connection.link.set_runtimes(["r"])
        await witness.until(lambda: ("ack", "r") in witness.hints)
        await server.stop()
        await witness.until(lambda: connection.health.state is State.SERVER_UNREACHABLE)


async def test_requests_to_sync_in_a_row_are_one(server: FakeServer) -> None:
    timing = dataclasses.replace(FAST, reconcile_quiet_s=1)
    now = [1000.0]
    async with connected(server.url, timing=timing, clock=Clock(lambda: now[0])) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        connection.sync_now()  # just looked
        now[0] += 1
        connection.sync_now()
        connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 2)
        server.add_workspace(id_="w2")
        now[0] += 1
        connection.sync_now()
        await witness.until(lambda: len(witness.syncs) == 3)
        assert len(server.seen("workspaces")) == 3


async def test_a_change_that_is_told_right_after_a_look_is_not_missed(server: FakeServer) -> None:
    server.runtimes["r"] = FakeRuntime("r", "w1", "d", "claude", "Claude", "1")
    timing = dataclasses.replace(FAST, reconcile_quiet_s=0.3)
    async with connected(server.url, timing=timing) as (connection, witness):
        connection.link.set_runtimes(["r"])
        await witness.until(lambda: ("ack", "r") in witness.hints)
        for _ in range(3):  # each of the first two may come in the middle of a look
            id_ = server.add_workspace()
            server.push("daemon:workspaces_changed", {})
            server.push("daemon:runtime_profiles_changed", {"workspace_id": "w1"})
            await witness.until(lambda id_=id_: id_ in connection.workspaces)  # type: ignore[misc]
        looks = len(server.seen("workspaces"))
        assert looks <= 2 + 3 * 2, "two hints in a row are one look"


async def test_failures_of_others_at_a_server_that_answers_make_it_look_ever_more_seldom(
    server: FakeServer,
) -> None:
    timing = dataclasses.replace(FAST, first_retry_s=1, retry_limit_s=30, retry_jitter=0)
    now = [1000.0]
    async with connected(server.url, timing=timing, clock=Clock(lambda: now[0])) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        looks = []
        for _ in range(120):  # a failed claim a second
            connection.report(errors.TransientError("POST", "/x", 500, "failed to claim task"), now[0])
            wanted = connection._sync_wanted.is_set()
            if wanted:
                looks.append(now[0] - 1000)
                await witness.until(lambda: len(witness.syncs) == len(looks) + 1)
            now[0] += 1
        assert looks == [0, 1, 3, 7, 15, 31, 61, 91]
        now[0] += 1000
        connection.report(errors.TransientError("POST", "/x", 500, "failed to claim task"), now[0])
        await witness.until(lambda: len(witness.syncs) == len(looks) + 2)


async def test_after_a_sleep_everything_is_checked_at_once(server: FakeServer) -> None:
    server.runtimes["r"] = FakeRuntime("r", "w1", "d", "claude", "Claude", "1")
    wall = [1000.0]
    timing = dataclasses.replace(FAST, reconcile_quiet_s=60)
    async with connected(server.url, timing=timing, clock=Clock(wall=lambda: wall[0])) as (
        connection,
        witness,
    ):
        await witness.until(lambda: connection.health.state is State.OK)
        connection.link.set_runtimes(["r"])
        await witness.until(lambda: ("ack", "r") in witness.hints)
        assert len(witness.syncs) == 1
        wall[0] += 9
        assert not connection.check_clock()
        wall[0] += 3600
        assert connection.check_clock()
        await witness.until(lambda: len(witness.syncs) == 2 and witness.hints.count(("ack", "r")) == 2)
        assert witness.wakes == 3  # link up, jump, link up


async def test_another_network_is_no_reason_to_wait_for_what_is_dead(server: FakeServer) -> None:
    server.runtimes["r"] = FakeRuntime("r", "w1", "d", "claude", "Claude", "1")
    timing = dataclasses.replace(FAST, answer_s=60, read_deadline_s=None, probe_s=0.1)
    async with connected(server.url, timing=timing) as (connection, witness):
        connection.link.set_runtimes(["r"])
        await witness.until(lambda: ("ack", "r") in witness.hints and connection.health.state is State.OK)
        connection.network_changed()
        await witness.until(lambda: len(witness.hints) > 1)  # answered: all is well
        server.socket_silent = True
        looks = len(witness.syncs)
        connection.network_changed()
        await server.until(lambda: len(server.handshakes) == 2)
        await witness.until(lambda: len(witness.syncs) > looks)
        server.socket_silent = False
        await server.stop()
        await witness.until(lambda: connection.health.state is State.SERVER_UNREACHABLE)
        await server.start()
        connection.network_changed()
        await witness.until(lambda: connection.health.state is State.OK)


async def test_one_failing_connection_delays_no_other(server: FakeServer) -> None:
    async with FakeServer() as dead:
        dead.always("renew", Hang())
        dead.always("workspaces", Hang())
        async with connected(dead.url) as (bad, _), connected(server.url) as (good, witness):
            async with asyncio.timeout(0.9):  # less than one time-out of the dead one
                await witness.until(lambda: good.health.state is State.OK)
                server.add_workspace(id_="w2")
                good.sync_now()
                await witness.until(lambda: len(witness.syncs) == 2)
            assert bad.health.state is State.STARTING


async def test_without_a_credential_nothing_is_asked_until_there_is_one(server: FakeServer) -> None:
    witness = Witness()
    client = ServerClient(server.url, TOKEN, timeouts=Timeouts(connect_s=0.5))
    connection = Connection("c", client, FAST)
    connection.add_listener(witness)
    connection.await_token()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(connection.run())
        connection.sign_out("keyring_locked", next_try_at=5.0)
        health = connection.health
        assert (health.state, health.code, health.next_try_at) == (State.SIGNED_OUT, "keyring_locked", 5.0)
        connection.look_now()
        connection.sync_now()
        with pytest.raises(TimeoutError):
            await witness.until(lambda: connection.usable, timeout_s=0.3)
        assert server.requests == []
        assert server.asked_own_list == []
        connection.token_changed()
        await witness.until(lambda: connection.health.state is State.OK)
        assert witness.wakes == 1  # what waited is woken
        task.cancel()


async def test_somebody_who_asks_waits_for_no_back_off(server: FakeServer) -> None:
    slow = dataclasses.replace(FAST, first_retry_s=60, retry_limit_s=60)
    server.script("workspaces", html_502())
    async with connected(server.url, timing=slow) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.SERVER_UNREACHABLE)
        connection.look_now()
        await witness.until(lambda: connection.health.state is State.OK)


async def test_a_pushed_change_of_workspaces_is_fetched_with_the_tag_of_the_list(server: FakeServer) -> None:
    server.later = True
    async with connected(server.url) as (connection, witness):
        await witness.until(lambda: connection.health.state is State.OK)
        server.runtimes["r"] = FakeRuntime("r", "w1", "d", "p", "n", "1")
        connection.link.set_runtimes(["r"])
        await server.until(lambda: bool(server.sockets))
        await witness.until(lambda: len(witness.syncs) == 2)  # a new link reconciles
        server.add_workspace(id_="w2")
        server.push("daemon:workspaces_changed", {})
        await witness.until(lambda: ids(witness.syncs[-1].joined) == ["w2"])
        assert "If-None-Match" in server.asked_own_list[-1]
        assert server.seen("workspaces") == []
