"""The websocket of a connection: hints in, heartbeats out.

The link is an optimisation and may be gone at any time: everything it says can be found out over HTTP too.
Rules kept here:

- One coroutine, :meth:`Link.run`, owns the socket and everything about it. Cancelling it closes in order.
- Reconnecting: at once when the set of runtimes changes (or on request), otherwise with back-off from 1 to
  30 s, which starts anew after a link that lasted 10 s. Without runtimes it waits, asleep.
- A link is alive by end-to-end answers alone. An acknowledgement makes its runtime *fresh*, which saves HTTP
  beats; a beat that no frame at all follows within ``Timing.answer_s`` ends the link (half-open socket); and
  so does silence for ``Timing.read_deadline_s``, which any frame, also a ping, extends.
- Frames above 64 KiB end the link; unknown types and undecodable frames are ignored.
- One link speaks for at most 200 runtimes (the address of its handshake has to fit); HTTP covers the others.
- Outgoing beats queue up to ``max(16, 2 x runtimes)``; a full queue drops the beat (HTTP covers it).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import Final, Protocol

import aiohttp
import msgspec

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import ServerClient
from daemon_core.connections.clock import Clock
from daemon_core.connections.decoding import decode
from daemon_core.connections.timing import Timing
from daemon_core.protocol import errors, wire

log = logging.getLogger(__name__)

_QUEUE_MIN: Final = 16
_RUNTIMES_MAX: Final = 200
"""They are named in the address of the handshake, and servers and proxies take 8 KiB of that at most. Those
beyond it beat and poll over HTTP alone."""
_WORKSPACES_CHANGED: Final = "daemon:workspaces_changed"
_PENDING_WORK: Final = "daemon:pending_work"
"""Hints of later servers: sync the workspaces now; beat for a runtime now."""

# Why a link ended. These are for logs; only the first three decide anything (no back-off follows).
CHANGED: Final = "the set of runtimes changed"
RECONNECT: Final = "reconnecting"
HELD: Final = "held"
_AT_ONCE: Final = frozenset({CHANGED, RECONNECT, HELD})


class LinkListener(Protocol):
    """Who hears what the link hears. Called in the link's own loop: must not block, must not raise."""

    def link_up(self) -> None:
        """Connected: hints may have been missed, so wake and reconcile everything."""

    def link_down(self, reason: str, *, expected: bool) -> None:
        """No longer connected; ``expected`` if we ended it ourselves."""

    def link_refused(self, error: errors.ServerError, asked_at: float) -> None:
        """The handshake that began at ``asked_at`` (monotonic) failed."""

    def heartbeat_acked(self, ack: wire.HeartbeatResponse, asked_at: float) -> None:
        """An acknowledgement of a beat that was sent at ``asked_at`` (monotonic)."""

    def task_available(self, runtime_id: str) -> None:
        """Claim now for this runtime; empty: for all."""

    def task_changed(self, task_id: str) -> None:
        """Look at this task's status now."""

    def profiles_changed(self, workspace_id: str) -> None:
        """Custom runtime profiles of this workspace changed."""

    def workspaces_changed(self) -> None:
        """The list of workspaces changed."""

    def work_pending(self, runtime_id: str) -> None:
        """A pending action waits for a heartbeat of this runtime."""


class _ProfilesChanged(wire.Wire):
    workspace_id: str = ""


class _PendingWork(wire.Wire):
    runtime_id: str = ""


class Link:
    """The websocket of one connection. Not thread-safe; everything but :meth:`run` returns at once."""

    def __init__(
        self,
        client: ServerClient,
        timing: Timing,
        listener: LinkListener,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._timing = timing
        self._listener = listener
        self._clock = clock or Clock()
        self._backoff = Backoff(
            timing.first_retry_s, timing.retry_limit_s, jitter=timing.retry_jitter, rng=rng
        )
        self._wanted: frozenset[str] = frozenset()
        self._held = False
        self._attention = asyncio.Event()
        """Something changed for whoever waits between two links."""
        self._live: _Live | None = None

    @property
    def connected(self) -> bool:
        """Whether a socket is open. Says nothing about whether anybody answers: see :meth:`fresh`."""
        return self._live is not None

    def set_runtimes(self, runtime_ids: Iterable[str]) -> None:
        """The runtimes to speak for. A changed set reconnects at once."""
        wanted = frozenset(runtime_ids)
        if wanted != self._wanted:
            self._wanted = wanted
            self._interrupt(CHANGED)

    def reconnect(self) -> None:
        """Drop what there is and connect at once, without back-off: after a sleep of the machine."""
        self._interrupt(RECONNECT)

    def probe(self) -> None:
        """See whether there is still somebody: by a beat that has to be answered soon."""
        if self._live is not None:
            self._live.probe()

    def hold(self) -> None:
        """Disconnect and stay so until :meth:`release`: the credential is refused."""
        if not self._held:
            self._held = True
            self._interrupt(HELD)

    def release(self) -> None:
        """Connect again after :meth:`hold`."""
        if self._held:
            self._held = False
            self._interrupt(RECONNECT)

    def beat(self, runtime_id: str) -> bool:
        """Send a heartbeat, if there is a link that speaks for this runtime and its queue has room."""
        return self._live is not None and self._live.beat(runtime_id)

    def fresh(self, runtime_id: str) -> bool:
        """Whether the server has acknowledged a beat of this runtime on this link recently enough."""
        at = self._live.acked_at.get(runtime_id) if self._live is not None else None
        return at is not None and self._clock.monotonic() - at < self._timing.fresh_s

    async def run(self) -> None:
        """Keep the link up until cancelled. No failure of the server ends it."""
        while True:
            self._attention.clear()
            if self._held or not self._wanted:
                await self._attention.wait()
                continue
            began = self._clock.monotonic()
            reason = await self._connect_once(began)
            if reason in _AT_ONCE:
                self._backoff.reset()
                continue
            if self._clock.monotonic() - began >= self._timing.stable_s:
                self._backoff.reset()
            try:
                async with asyncio.timeout(self._backoff.next()):
                    await self._attention.wait()
                self._backoff.reset()
            except TimeoutError:
                pass

    async def _connect_once(self, began: float) -> str:
        """One life of the link, from handshake to close. Returns why it ended."""
        timing, wanted = self._timing, frozenset(sorted(self._wanted)[:_RUNTIMES_MAX])
        live = None
        reason = ""
        try:
            async with self._client.websocket(
                wanted,
                handshake_s=timing.handshake_s,
                close_s=timing.close_s,
                limit_bytes=wire.WS_FRAME_LIMIT_BYTES,
            ) as socket:
                if self._attention.is_set():  # changed, or held, during the handshake
                    return CHANGED
                live = _Live(socket, wanted, timing, self._clock, self._listener)
                self._live = live
                log.info("link to %s is up for %d runtimes", self._client.host, len(wanted))
                self._listener.link_up()
                try:
                    reason = await live.serve()
                finally:
                    self._live = None
        except errors.ServerError as error:
            log.info("no link to %s: %s", self._client.host, error)
            self._listener.link_refused(error, began)
            return str(error)
        finally:
            if live is not None:
                expected = reason in _AT_ONCE or not reason  # no reason: cancelled
                log.info("link to %s is down: %s", self._client.host, reason or "stopped")
                self._listener.link_down(reason, expected=expected)
        return reason

    def _interrupt(self, reason: str) -> None:
        self._attention.set()
        if self._live is not None:
            self._live.end(reason)


class _Live:
    """One open socket: a reader, a writer, and the one future that says why it ended."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        runtime_ids: frozenset[str],
        timing: Timing,
        clock: Clock,
        listener: LinkListener,
    ) -> None:
        self._socket = socket
        self._runtime_ids = runtime_ids
        self._timing = timing
        self._clock = clock
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(max(_QUEUE_MIN, 2 * len(runtime_ids)))
        self._asked_at: dict[str, float] = {}
        """Monotonic time of the earliest beat that has no acknowledgement yet."""
        self._unanswered: asyncio.TimerHandle | None = None
        """Fires when no frame at all followed a beat; any frame cancels it."""
        self.acked_at: dict[str, float] = {}
        """Monotonic time of the last acknowledgement, by runtime."""

    def end(self, reason: str) -> None:
        """Let :meth:`serve` return ``reason``; the first one counts."""
        if not self._ended.done():
            self._ended.set_result(reason)

    def beat(self, runtime_id: str) -> bool:
        if runtime_id not in self._runtime_ids:
            return False
        try:
            self._outgoing.put_nowait(runtime_id)
        except asyncio.QueueFull:
            return False
        return True

    def probe(self) -> None:
        self._expect_an_answer(self._timing.probe_s)
        self.beat(min(self._runtime_ids))

    async def serve(self) -> str:
        """Read and write until something ends the link. The socket is closed by whoever opened it."""
        for runtime_id in sorted(self._runtime_ids):
            self.beat(runtime_id)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._read(), name="link reader"),
                group.create_task(self._write(), name="link writer"),
            ]
            try:
                return await self._ended
            finally:
                for task in tasks:
                    task.cancel()
                self._answered()

    async def _read(self) -> None:
        while True:
            try:
                frame = await self._socket.receive(self._timing.read_deadline_s)
            except TimeoutError:
                self.end(f"silent for {self._timing.read_deadline_s:g} s")
                return
            self._answered()
            match frame.type:
                case aiohttp.WSMsgType.TEXT:
                    self._hear(frame.data.encode())
                case aiohttp.WSMsgType.PING:
                    if not await self._send(frame.data, aiohttp.WSMsgType.PONG):
                        return
                case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                    self.end(f"closed by the server ({self._socket.close_code})")
                    return
                case aiohttp.WSMsgType.ERROR:
                    self.end(f"broken frame ({self._socket.close_code})")
                    return
                case _:
                    pass  # pongs and binary frames say no more than that somebody is there

    async def _write(self) -> None:
        while True:
            runtime_id = await self._outgoing.get()
            self._asked_at.setdefault(runtime_id, self._clock.monotonic())
            payload = msgspec.json.encode(wire.HeartbeatRequest(runtime_id=runtime_id))
            frame = msgspec.json.encode(wire.Envelope(type=wire.WS_HEARTBEAT, payload=msgspec.Raw(payload)))
            if not await self._send(frame, aiohttp.WSMsgType.TEXT):
                return
            if self._unanswered is None:
                self._expect_an_answer(self._timing.answer_s)

    async def _send(self, data: bytes, kind: aiohttp.WSMsgType) -> bool:
        try:
            async with asyncio.timeout(self._timing.write_s):
                await self._socket.send_frame(data, kind)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.end("cannot write")
            return False
        return True

    def _expect_an_answer(self, within_s: float) -> None:
        self._answered()
        reason = f"a beat without an answer for {within_s:g} s"
        self._unanswered = self._loop.call_later(within_s, self.end, reason)

    def _answered(self) -> None:
        if self._unanswered is not None:
            self._unanswered.cancel()
            self._unanswered = None

    def _hear(self, data: bytes) -> None:
        """One text frame. What cannot be understood is ignored, as the protocol says."""
        try:
            envelope = decode(data, wire.Envelope)
            payload = bytes(envelope.payload)
            match envelope.type:
                case wire.WS_HEARTBEAT_ACK:
                    self._acked(decode(payload, wire.HeartbeatResponse))
                case wire.WS_TASK_AVAILABLE:
                    self._listener.task_available(decode(payload, wire.TaskAvailable).runtime_id)
                case wire.WS_TASK_CHANGED:
                    if task_id := decode(payload, wire.TaskChanged).task_id:
                        self._listener.task_changed(task_id)
                case wire.WS_PROFILES_CHANGED:
                    self._listener.profiles_changed(decode(payload, _ProfilesChanged).workspace_id)
                case _ if envelope.type == _WORKSPACES_CHANGED:
                    self._listener.workspaces_changed()
                case _ if envelope.type == _PENDING_WORK:
                    self._listener.work_pending(decode(payload, _PendingWork).runtime_id)
                case _:
                    pass
        except msgspec.DecodeError as error:
            log.debug("ignored a frame: %s", error)

    def _acked(self, ack: wire.HeartbeatResponse) -> None:
        if not ack.runtime_id:
            return
        now = self._clock.monotonic()
        asked_at = self._asked_at.pop(ack.runtime_id, now)
        if ack.runtime_gone:
            self.acked_at.pop(ack.runtime_id, None)  # an answer, but not a sign of life
        else:
            self.acked_at[ack.runtime_id] = now
        self._listener.heartbeat_acked(ack, asked_at)
