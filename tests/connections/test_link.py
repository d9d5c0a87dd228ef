"""The websocket link over a real socket: hints, acknowledgements, reconnecting, half-open sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.clock import Clock
from daemon_core.connections.link import CHANGED, HELD, RECONNECT, Link
from daemon_core.connections.timing import Timing
from daemon_core.protocol import errors, wire
from tests.support.fake_server import TOKEN, FakeRuntime, FakeServer, Fault, Hang, ResetBefore, refuse

FAST = Timing(
    heartbeat_s=5,
    first_retry_s=0.02,
    retry_limit_s=0.08,
    stable_s=30,
    handshake_s=0.3,
    close_s=0.1,
    write_s=1,
)


class Ears:
    """Notes everything that the link says, and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []
        self._more = asyncio.Event()

    def _note(self, what: str, detail: object = None) -> None:
        self.heard.append((what, detail))
        self._more.set()

    def count(self, what: str) -> int:
        return sum(1 for heard, _ in self.heard if heard == what)

    def details(self, what: str) -> list[Any]:
        return [detail for heard, detail in self.heard if heard == what]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def link_up(self) -> None:
        self._note("up")

    def link_down(self, reason: str, *, expected: bool) -> None:
        self._note("down", (reason, expected))

    def link_refused(self, error: errors.ServerError, asked_at: float) -> None:
        self._note("refused", error)

    def heartbeat_acked(self, ack: wire.HeartbeatResponse, asked_at: float) -> None:
        self._note("ack", (ack.runtime_id, ack.runtime_gone))

    def task_available(self, runtime_id: str) -> None:
        self._note("task", runtime_id)

    def task_changed(self, task_id: str) -> None:
        self._note("changed", task_id)

    def profiles_changed(self, workspace_id: str) -> None:
        self._note("profiles", workspace_id)

    def workspaces_changed(self) -> None:
        self._note("workspaces")

    def work_pending(self, runtime_id: str) -> None:
        self._note("pending", runtime_id)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        for id_ in ("r1", "r2", "r3"):
            server.runtimes[id_] = FakeRuntime(id_, "w", "d", id_, id_, "1")
        yield server


@contextlib.asynccontextmanager
async def linked(
    server: FakeServer, *ids: str, timing: Timing = FAST, clock: Clock | None = None
) -> AsyncIterator[tuple[Link, Ears]]:
    """A running link with its ears; stopped in order at the end."""
    ears = Ears()
    async with ServerClient(server.url, TOKEN, version="1.0") as client:
        link = Link(client, timing, ears, clock=clock)
        link.set_runtimes(ids)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            try:
                yield link, ears
            finally:
                task.cancel()


async def test_connecting_names_the_runtimes_and_beats_for_each(server: FakeServer) -> None:
    async with linked(server, "r2", "r1") as (link, ears):
        await ears.until(lambda: ears.count("ack") == 2)
        assert server.handshakes == [["r1", "r2"]]
        assert ears.heard[0] == ("up", None)
        assert link.connected
        assert link.fresh("r1")
        assert not link.fresh("r3")
        (open_socket,) = server.sockets
        assert open_socket.headers["X-Client-Platform"] == "daemon"
        assert open_socket.headers["Authorization"] == f"Bearer {TOKEN}"
        assert "X-Client-Capabilities" not in open_socket.headers
        assert open_socket.frames[0] == {
            "type": "daemon:heartbeat",
            "payload": {"runtime_id": "r1", "supports_batch_import": True},
        }
    assert ears.heard[-1] == ("down", ("", True))
    await server.until(lambda: not server.sockets)


async def test_hints_are_passed_on_and_everything_else_is_ignored(server: FakeServer) -> None:
    async with linked(server, "r1") as (_, ears):
        await ears.until(lambda: ears.count("ack") == 1)
        for text in ("not json", "[]", '{"type":5}', '{"type":"daemon:new","payload":{}}', '{"payload":{}}'):
            server.push_raw(text)
        server.push("daemon:task_available", {"runtime_id": 5})
        server.push("daemon:task_changed", {})
        server.push("daemon:heartbeat_ack", {"status": "ok"})
        server.push("daemon:task_available", {"runtime_id": "r1", "task_id": "t"})
        server.push("daemon:task_available", {})
        server.push("daemon:task_available", {"runtime_id": None})
        server.push("daemon:task_changed", {"task_id": "t", "status": "cancelled"})
        server.push("daemon:runtime_profiles_changed", {"workspace_id": "w", "runtime_profile_id": "p"})
        server.push("daemon:workspaces_changed", {})
        server.push("daemon:pending_work", {"runtime_id": "r1"})
        await ears.until(lambda: ears.count("pending") == 1)
        assert ears.heard[2:] == [
            ("task", "r1"),
            ("task", ""),
            ("task", ""),
            ("changed", "t"),
            ("profiles", "w"),
            ("workspaces", None),
            ("pending", "r1"),
        ]


async def test_pings_are_answered(server: FakeServer) -> None:
    async with linked(server, "r1") as (_, ears):
        await ears.until(lambda: ears.count("up") == 1)
        server.ping()
        await server.until(lambda: server.sockets[0].pongs == 1)


async def test_a_changed_set_of_runtimes_reconnects_at_once(server: FakeServer) -> None:
    slow = dataclasses.replace(FAST, first_retry_s=60, retry_limit_s=60)
    async with linked(server, "r1", timing=slow) as (link, ears):
        await ears.until(lambda: ears.count("ack") == 1)
        link.set_runtimes(["r1"])
        link.set_runtimes(["r1", "r2"])
        await ears.until(lambda: ears.count("ack") == 3)
        assert server.handshakes == [["r1"], ["r1", "r2"]]
        assert ears.details("down") == [(CHANGED, True)]
        link.set_runtimes([])
        await ears.until(lambda: ears.count("down") == 2)
        link.set_runtimes(["r3"])
        await ears.until(lambda: ears.count("up") == 3)


async def test_a_set_that_changes_while_backing_off_or_shaking_hands_counts(server: FakeServer) -> None:
    slow = dataclasses.replace(FAST, first_retry_s=60, retry_limit_s=60)
    server.script("ws", refuse(503, "daemon websocket unavailable"))
    async with linked(server, "r1", timing=slow) as (link, ears):
        await ears.until(lambda: ears.count("refused") == 1)
        server.script("ws", Hang())
        link.set_runtimes(["r2"])
        await server.until(lambda: len(server.handshakes) == 2)
        link.set_runtimes(["r3"])
        await ears.until(lambda: ears.count("up") == 1)
        assert server.handshakes[-1] == ["r3"]


async def test_a_lost_link_comes_back_with_back_off(server: FakeServer) -> None:
    async with linked(server, "r1") as (link, ears):
        await ears.until(lambda: ears.count("ack") == 1)
        server.drop_sockets()
        await ears.until(lambda: ears.count("down") == 1)
        assert not link.fresh("r1")
        await ears.until(lambda: ears.count("ack") == 2)
        assert link.fresh("r1")
        await server.stop()
        await ears.until(lambda: ears.count("refused") >= 3)
        await server.start()
        await ears.until(lambda: ears.count("up") == 3)
        assert [expected for _, expected in ears.details("down")] == [False, False]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refuse(401, "invalid token"), errors.UnauthorizedError),
        (refuse(404, "runtime not found"), errors.PermanentError),
        (refuse(503, "daemon websocket unavailable"), errors.TransientError),
        (Hang(), errors.TransientError),
        (ResetBefore(), errors.TransientError),
    ],
)
async def test_a_refused_handshake_is_told_and_tried_again(
    server: FakeServer, fault: Fault, kind: type[errors.ServerError]
) -> None:
    server.script("ws", fault, fault)
    async with linked(server, "r1") as (_, ears):
        await ears.until(lambda: ears.count("up") == 1)
        refusals = ears.details("refused")
        # The transport itself repeats a GET whose connection broke.
        assert len(refusals) == (1 if fault == ResetBefore() else 2)
        assert all(isinstance(error, kind) for error in refusals)
        assert TOKEN not in repr(refusals)


async def test_a_held_link_stays_away_until_released(server: FakeServer) -> None:
    async with linked(server, "r1") as (link, ears):
        await ears.until(lambda: ears.count("up") == 1)
        link.hold()
        await ears.until(lambda: ears.count("down") == 1)
        link.set_runtimes(["r2"])
        link.reconnect()
        await server.until(lambda: not server.sockets)
        assert ears.details("down") == [(HELD, True)]
        assert len(server.handshakes) == 1
        link.release()
        await ears.until(lambda: ears.count("up") == 2)
        link.reconnect()
        await ears.until(lambda: ears.count("up") == 3)
        assert ears.details("down")[1] == (RECONNECT, True)


async def test_a_half_open_socket_is_noticed_by_the_missing_answer(server: FakeServer) -> None:
    server.socket_silent = True
    timing = dataclasses.replace(FAST, answer_s=0.1, read_deadline_s=None)
    async with linked(server, "r1", timing=timing) as (link, ears):
        await ears.until(lambda: ears.count("up") == 1)
        assert link.connected
        assert not link.fresh("r1")  # connected says nothing, only an answer does
        await ears.until(lambda: ears.count("down") == 1)
        reason, expected = ears.details("down")[0]
        assert "without an answer" in reason
        assert not expected
        server.socket_silent = False
        await ears.until(lambda: ears.count("ack") == 1)


async def test_an_answered_beat_sets_no_deadline_for_the_silence_after_it(server: FakeServer) -> None:
    timing = dataclasses.replace(FAST, answer_s=0.1, read_deadline_s=None)
    async with linked(server, "r1", "r2", timing=timing) as (link, ears):
        await ears.until(lambda: ears.count("ack") == 2)
        with pytest.raises(TimeoutError):  # nothing happens for longer than an answer may take
            await ears.until(lambda: ears.count("down") > 0, timeout_s=0.3)
        assert link.connected


async def test_silence_beyond_the_read_deadline_ends_a_link_and_pings_extend_it(server: FakeServer) -> None:
    timing = dataclasses.replace(FAST, answer_s=30, read_deadline_s=0.4)
    async with linked(server, "r1", timing=timing) as (_, ears):
        await ears.until(lambda: ears.count("up") == 1)
        for pong in range(1, 5):
            await asyncio.sleep(0.15)
            server.ping()
            await server.until(lambda pong=pong: server.sockets[0].pongs == pong)  # type: ignore[misc]
        assert ears.count("down") == 0
        await ears.until(lambda: ears.count("down") == 1)
        assert ears.details("down") == [("silent for 0.4 s", False)]


async def test_a_frame_over_the_limit_ends_the_link_and_one_at_it_does_not(server: FakeServer) -> None:
    async with linked(server, "r1") as (_, ears):
        await ears.until(lambda: ears.count("ack") == 1)
        frame = '{"type":"daemon:task_available","payload":{},"x":"'
        server.push_raw(frame + "y" * (wire.WS_FRAME_LIMIT_BYTES - len(frame) - 2) + '"}')
        await ears.until(lambda: ears.count("task") == 1)
        server.push_raw(frame + "y" * wire.WS_FRAME_LIMIT_BYTES + '"}')
        await ears.until(lambda: ears.count("down") == 1)
        assert ears.details("down") == [("broken frame (1009)", False)]
        await ears.until(lambda: ears.count("up") == 2)


async def test_freshness_ages_and_a_lost_runtime_is_not_fresh(server: FakeServer) -> None:
    now = [100.0]
    async with linked(server, "r1", "r2", clock=Clock(lambda: now[0])) as (link, ears):
        await ears.until(lambda: ears.count("ack") == 2)
        now[0] += FAST.fresh_s - 0.1
        assert link.fresh("r1")
        now[0] += 0.2
        assert not link.fresh("r1")
        assert link.beat("r1")
        del server.runtimes["r2"]
        assert link.beat("r2")
        assert not link.beat("r3")  # not named in the handshake
        await ears.until(lambda: ears.count("ack") == 4)
        assert ears.details("ack")[2:] == [("r1", False), ("r2", True)]
        assert (link.fresh("r1"), link.fresh("r2")) == (True, False)


async def test_a_full_queue_drops_beats(server: FakeServer) -> None:
    async with linked(server, "r1") as (link, ears):
        await ears.until(lambda: ears.count("ack") == 1)
        taken = [link.beat("r1") for _ in range(20)]  # without giving the writer a chance
        assert taken == [True] * 16 + [False] * 4
    assert not link.beat("r1")


async def test_without_runtimes_there_is_no_link(server: FakeServer) -> None:
    async with linked(server) as (link, _):
        await asyncio.sleep(0)
        link.hold()
        link.release()
        await asyncio.sleep(0)
    assert server.handshakes == []


async def test_a_link_speaks_for_as_many_runtimes_as_an_address_can_name(server: FakeServer) -> None:
    ids = [f"00000000-0000-0000-0000-{number:012}" for number in range(250)]
    for id_ in ids:
        server.runtimes[id_] = FakeRuntime(id_, "w", "d", id_, id_, "1")
    async with linked(server, *ids) as (link, ears):
        await ears.until(lambda: ears.count("ack") == 200)
        assert server.handshakes == [ids[:200]]
        assert (link.beat(ids[199]), link.beat(ids[200])) == (True, False)
        assert not link.fresh(ids[200])
        link.set_runtimes(ids[100:])
        await ears.until(lambda: ears.count("up") == 2)
        assert server.handshakes[-1] == ids[100:]


async def test_every_frame_fits_what_a_server_reads(server: FakeServer) -> None:
    async with linked(server, "r" * 36) as (_, ears):
        server.runtimes["r" * 36] = FakeRuntime("r" * 36, "w", "d", "p", "n", "1")
        await ears.until(lambda: ears.count("ack") == 1)
        (frame,) = server.sockets[0].frames
        assert frame == {
            "type": "daemon:heartbeat",
            "payload": {"runtime_id": "r" * 36, "supports_batch_import": True},
        }
