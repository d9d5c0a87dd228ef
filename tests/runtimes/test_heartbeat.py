"""Heartbeats over a real socket: cadence, suppression, loss, actions, and what an idle connection costs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.clock import Clock
from daemon_core.connections.connection import Connection
from daemon_core.connections.health import State
from daemon_core.connections.timing import HUB, Timing
from daemon_core.protocol import wire
from daemon_core.runtimes import actions
from daemon_core.runtimes.actions import PendingAction, actions_of, refuse_action
from daemon_core.runtimes.heartbeat import Heartbeat
from tests.support.fake_server import (
    TOKEN,
    FakeRuntime,
    FakeServer,
    Fault,
    Hang,
    ResetAfter,
    eventually,
    html_502,
    refuse,
)

FAST = Timing(
    sync_s=60, heartbeat_s=0.1, first_retry_s=0.02, retry_limit_s=0.08, close_s=0.1, reconcile_quiet_s=0
)


class Gone:
    """Notes losses."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.event = asyncio.Event()

    def __call__(self, runtime_id: str, asked_at: float) -> None:
        self.told.append((runtime_id, asked_at))
        self.event.set()


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="w1")
        for id_ in ("r1", "r2", "r3"):
            server.runtimes[id_] = FakeRuntime(id_, "w1", "d", id_, id_, "1")
        yield server


@contextlib.asynccontextmanager
async def beating(
    server: FakeServer,
    *ids: str,
    link: bool = False,
    timing: Timing = FAST,
    clock: Clock | None = None,
    act: Callable[[PendingAction], Awaitable[dict[str, Any] | None]] = refuse_action,
) -> AsyncIterator[tuple[Connection, Heartbeat, Gone]]:
    """A running connection that beats for ``ids``, over HTTP alone unless ``link``."""
    connection = Connection("server", ServerClient(server.url, TOKEN), timing, clock=clock)
    gone = Gone()
    beats = Heartbeat(connection, gone=gone, act=act, rng=random.Random(1))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(connection.run()), group.create_task(beats.run())]
        await server.until(lambda: bool(server.seen("workspaces")))
        beats.set_runtimes(ids)
        if link:
            connection.link.set_runtimes(ids)
        try:
            yield connection, beats, gone
        finally:
            for task in tasks:
                task.cancel()


def beats_of(server: FakeServer, runtime_id: str) -> int:
    return sum(1 for request in server.seen("heartbeat") if request.body["runtime_id"] == runtime_id)


async def test_every_runtime_beats_every_interval(server: FakeServer) -> None:
    async with beating(server, "r1", "r2") as (_, beats, _gone):
        await server.until(lambda: beats_of(server, "r1") >= 3 and beats_of(server, "r2") >= 3)
        beats.set_runtimes(["r2"])
        count = beats_of(server, "r1")
        await server.until(lambda: beats_of(server, "r2") >= 6)
        assert beats_of(server, "r1") <= count + 1


async def test_first_beats_are_spread_over_the_interval_or_together_on_loopback(server: FakeServer) -> None:
    slow = dataclasses.replace(FAST, heartbeat_s=15)
    now = asyncio.get_running_loop().time()
    many = [f"r{n}" for n in range(200)]
    async with beating(server, *many, timing=slow) as (_, beats, _gone):
        due = sorted({at - now for at in beats._due.values()})
        assert due[0] >= 0
        assert due[-1] < 16
        assert 3 <= len(due) <= 6 + 1  # a handful of moments, and the one right now
    async with beating(server, "r1", "r2", timing=dataclasses.replace(slow, loopback=True)) as (_, beats, _g):
        beats.set_runtimes(["r1", "r2", "r3"])
        assert len(set(beats._due.values())) == 1


async def test_busy_threads_delay_no_beat(server: FakeServer) -> None:
    """A disk that does not answer takes all common threads; names are looked up elsewhere."""
    loop, release = asyncio.get_running_loop(), threading.Event()
    stuck = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    try:
        url = server.url.replace("127.0.0.1", "localhost")
        connection = Connection("server", ServerClient(url, TOKEN), FAST)
        beats = Heartbeat(connection, gone=Gone())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(connection.run()), group.create_task(beats.run())]
            beats.set_runtimes(["r1"])
            await server.until(lambda: beats_of(server, "r1") >= 2)
            await connection.client.drop_idle()  # and again with connections made anew
            count = beats_of(server, "r1")
            await server.until(lambda: beats_of(server, "r1") >= count + 2)
            for task in tasks:
                task.cancel()
    finally:
        release.set()
        await asyncio.gather(*stuck)


async def test_a_slow_sync_delays_no_beat(server: FakeServer) -> None:
    async with beating(server, "r1") as (connection, _, _gone):
        server.always("workspaces", Hang())
        connection.sync_now()
        await server.until(lambda: len(server.seen("workspaces")) >= 2)
        count = beats_of(server, "r1")
        await server.until(lambda: beats_of(server, "r1") >= count + 4)


async def test_a_fresh_acknowledgement_over_the_link_saves_the_http_beat(server: FakeServer) -> None:
    timing = dataclasses.replace(FAST, heartbeat_s=0.4)
    async with beating(server, "r1", "r2", link=True, timing=timing) as (connection, _, _gone):
        await server.until(lambda: bool(server.sockets) and len(server.sockets[0].frames) >= 2)
        await eventually(lambda: connection.link.fresh("r1") and connection.link.fresh("r2"))
        before, frames = len(server.seen("heartbeat")), len(server.sockets[0].frames)
        await server.until(lambda: len(server.sockets[0].frames) >= frames + 10)
        # A machine that stands still for a second makes acknowledgements old, and a beat over HTTP right.
        assert len(server.seen("heartbeat")) - before <= 2
        server.socket_silent = True  # half open: no acknowledgement, so HTTP takes over
        await server.until(lambda: len(server.seen("heartbeat")) >= before + 2)


async def test_a_slow_beat_delays_no_other(server: FakeServer) -> None:
    server.script("heartbeat", Hang())
    async with beating(server, "r1", "r2") as (_, _beats, _gone):
        await server.until(lambda: max(beats_of(server, "r1"), beats_of(server, "r2")) >= 5)
        assert min(beats_of(server, "r1"), beats_of(server, "r2")) == 1  # and none piles up behind it


async def test_a_lost_runtime_is_told_with_the_time_of_the_question(server: FakeServer) -> None:
    now = asyncio.get_running_loop().time()
    async with beating(server, "r1") as (_, beats, gone):
        del server.runtimes["r1"]
        await gone.event.wait()
        assert gone.told[0][0] == "r1"
        assert now < gone.told[0][1] < asyncio.get_running_loop().time()
        beats.set_runtimes([])


async def test_a_loss_told_over_the_link_counts_too(server: FakeServer) -> None:
    slow = dataclasses.replace(FAST, heartbeat_s=30)
    async with beating(server, "r1", link=True, timing=slow) as (connection, _, gone):
        await eventually(lambda: connection.link.fresh("r1"))
        del server.runtimes["r1"]
        connection.link.beat("r1")
        await gone.event.wait()
        assert not connection.link.fresh("r1")


@pytest.mark.parametrize(
    "fault", [refuse(404, "not found"), refuse(500, "failed to load runtime"), html_502()]
)
async def test_other_failures_do_not_mean_a_loss(server: FakeServer, fault: Fault) -> None:
    server.always("heartbeat", fault)
    async with beating(server, "r1") as (_, _beats, gone):
        await server.until(lambda: len(server.seen("heartbeat")) >= 4)
        assert gone.told == []


async def test_after_two_failures_in_a_row_connections_are_made_anew_once(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops = []

    async def drop(client: ServerClient) -> None:
        drops.append(len(server.seen("heartbeat")))

    monkeypatch.setattr(ServerClient, "drop_idle", drop)
    server.always("heartbeat", html_502())
    async with beating(server, "r1") as (_, _beats, _gone):
        await server.until(lambda: len(server.seen("heartbeat")) >= 5)
        assert drops == [2]


async def test_a_refused_credential_stops_the_beats(server: FakeServer) -> None:
    async with beating(server, "r1") as (connection, _, _gone):
        await server.until(lambda: len(server.seen("heartbeat")) >= 1)
        server.tokens.clear()
        await eventually(lambda: connection.health.state is State.SIGNED_OUT)
        count = len(server.seen("heartbeat"))
        with pytest.raises(TimeoutError):
            await server.until(lambda: len(server.seen("heartbeat")) > count, timeout_s=0.5)
        server.tokens.add(TOKEN)
        connection.token_changed()
        await server.until(lambda: len(server.seen("heartbeat")) > count)


async def test_flags_are_replaced_by_every_answer(server: FakeServer) -> None:
    server.feature_flags = {"version": 1, "flags": {"runtime_brief_slim": "on"}}
    async with beating(server, "r1") as (_, beats, _gone):
        await server.until(lambda: len(server.seen("heartbeat")) >= 2)
        assert beats.flags == {"runtime_brief_slim": "on"}
        server.feature_flags = None
        count = len(server.seen("heartbeat"))
        await server.until(lambda: len(server.seen("heartbeat")) >= count + 2)
        assert beats.flags == {}


async def test_a_jump_of_the_clock_is_noticed_at_a_beat(server: FakeServer) -> None:
    wall = [1000.0]
    async with beating(server, "r1", link=True, clock=Clock(wall=lambda: wall[0])):
        await server.until(lambda: len(server.handshakes) == 1 and bool(server.sockets))
        syncs = len(server.seen("workspaces"))
        wall[0] += 7200
        await server.until(lambda: len(server.handshakes) == 2)
        await server.until(lambda: len(server.seen("workspaces")) > syncs)


# --- actions ---------------------------------------------------------------------------------------


async def test_actions_that_are_not_supported_are_answered_in_words(server: FakeServer) -> None:
    server.actions["r1"] = {
        "pending_update": {"id": "u", "target_version": "9.9.9"},
        "pending_model_list": {"id": "m"},
        "pending_local_skills": {"id": "l"},
        "pending_local_skill_import": {"id": "i", "skill_key": "k"},
    }
    async with beating(server, "r1") as (_, _beats, _gone):
        await server.until(lambda: len(server.results) == 4)
    results = {(route, id_): body for route, id_, body in server.results}
    assert results["update", "u"]["status"] == "failed"
    assert "Ostler" in results["update", "u"]["error"]
    assert (results["models", "m"]["status"], results["models", "m"]["supported"]) == ("failed", False)
    assert results["local-skills", "l"] == {"status": "completed", "skills": [], "supported": False}
    assert results["local-skills/import", "i"]["status"] == "failed"


async def test_a_slow_action_delays_no_beat_and_one_told_twice_is_done_once(server: FakeServer) -> None:
    done: list[PendingAction] = []
    release = asyncio.Event()

    async def act(action: PendingAction) -> dict[str, Any] | None:
        done.append(action)
        await release.wait()
        return None

    server.actions["r1"] = {"pending_model_list": {"id": "m"}}
    async with beating(server, "r1", act=act) as (_, _beats, _gone):
        await server.until(lambda: len(server.seen("heartbeat")) >= 2)
        server.actions["r1"] = {"pending_model_list": {"id": "m"}}
        count = len(server.seen("heartbeat"))
        await server.until(lambda: len(server.seen("heartbeat")) >= count + 4)
        assert done == [PendingAction("model_list", "r1", "m")]
        release.set()
    assert server.results == []


async def test_a_broken_action_is_reported_as_failed(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(action: PendingAction) -> dict[str, Any]:
        raise RuntimeError("secret detail")

    server.actions["r1"] = {"pending_update": {"id": "u"}}
    async with beating(server, "r1", act=act):
        await server.until(lambda: len(server.results) == 1)
    assert server.results[0][2]["status"] == "failed"
    assert "secret" not in str(server.results)
    assert "update failed" in caplog.text


async def test_a_result_is_reported_again_unless_it_is_refused(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "RESULT_RETRIES_S", (0.0, 0.01, 0.01, 0.01))
    server.script("action", html_502(), ResetAfter())
    server.actions["r1"] = {"pending_update": {"id": "u1"}}
    async with beating(server, "r1", "r2"):
        await server.until(lambda: len(server.seen("action")) == 3)
        server.script("action", refuse(429, "slow down"))
        server.actions["r2"] = {"pending_update": {"id": "u2"}}
        await server.until(lambda: len(server.seen("action")) == 4)
        count = len(server.seen("heartbeat"))
        await server.until(lambda: len(server.seen("heartbeat")) >= count + 3)
        assert len(server.seen("action")) == 4


async def test_pending_work_makes_a_beat_at_once(server: FakeServer) -> None:
    slow = dataclasses.replace(FAST, heartbeat_s=30)
    async with beating(server, "r1", link=True, timing=slow) as (connection, _, _gone):
        await eventually(lambda: connection.link.fresh("r1"))
        server.actions["r1"] = {"pending_model_list": {"id": "m"}}
        server.push("daemon:pending_work", {"runtime_id": "r1"})
        server.push("daemon:pending_work", {"runtime_id": "elsewhere"})
        await server.until(lambda: len(server.results) == 1)


def test_the_single_import_repeats_the_first_of_the_list() -> None:
    first, second = wire.PendingImport(id="a", skill_key="x"), wire.PendingImport(id="b", skill_key="y")
    both = wire.HeartbeatResponse(
        pending_local_skill_import=first, pending_local_skill_imports=[first, second]
    )
    alone = wire.HeartbeatResponse(pending_local_skill_import=first)
    assert [a.request_id for a in actions_of("r", both)] == ["a", "b"]
    assert [(a.request_id, a.argument) for a in actions_of("r", alone)] == [("a", "x")]


# --- what idling costs -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="counts context switches in /proc")
async def test_an_idle_connection_at_hub_timing_stays_asleep() -> None:
    """The server is a process of its own, so that its wake-ups are not counted."""
    code = (
        "import asyncio\n"
        "from tests.support.fake_server import FakeRuntime, FakeServer\n"
        "async def main():\n"
        "    async with FakeServer() as server:\n"
        "        server.add_workspace(id_='w1')\n"
        "        for id_ in ('r1', 'r2', 'r3'):\n"
        "            server.runtimes[id_] = FakeRuntime(id_, 'w1', 'd', id_, id_, '1')\n"
        "        print(server.url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=os.getcwd()
    )
    assert process.stdout is not None
    ids = ["r1", "r2", "r3"]
    try:
        url = (await process.stdout.readline()).decode().strip()
        connection = Connection("hub", ServerClient(url, TOKEN), HUB)
        beats = Heartbeat(connection, gone=Gone())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(connection.run()), group.create_task(beats.run())]
            beats.set_runtimes(ids)
            connection.link.set_runtimes(ids)
            await eventually(lambda: all(connection.link.fresh(id_) for id_ in ids))
            await asyncio.sleep(1)  # the start has settled

            before, idle_s = _switches(), 8.0
            await asyncio.sleep(idle_s)
            idle = _switches() - before - 1  # the sleep's own end

            # One tick by hand, as it comes once a minute: three beats out, three answers in.
            before, answers = _switches(), []
            for id_ in ids:
                connection.link.beat(id_)
            await asyncio.sleep(0.5)
            answers = [connection.link.fresh(id_) for id_ in ids]
            tick = _switches() - before - 1
            for task in tasks:
                task.cancel()
        assert all(answers)
        wake_ups_per_s = max(idle, 0) / idle_s + max(tick, 0) / HUB.heartbeat_s
        assert wake_ups_per_s < 0.2, f"idle: {idle} in {idle_s:g} s, tick: {tick}"
    finally:
        process.terminate()
        await process.wait()


def _switches() -> int:
    """Voluntary context switches of this thread: how often it has gone to sleep."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        (line,) = (line for line in status if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])
