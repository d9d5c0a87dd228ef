"""The websockets of daemons: heartbeats in, acknowledgements and hints out.

Rules:

* Tasks never travel here; a hint only says that it is worth asking. A lost hint costs a poll interval.
* Each connection has its own bounded queue, in which frames about the same thing replace each other. A peer
  that lets it fill is cut off; it connects again and then asks for everything anyway.
* A frame that cannot be read, is of an unknown type or about a runtime that the connection did not name is
  ignored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from daemon_core.hub.limits import Limits
from daemon_core.hub.store import Hint
from daemon_core.protocol import wire

_log = logging.getLogger(__name__)

Beat = Callable[[str, bool], Awaitable[wire.HeartbeatResponse | None]]
"""Takes a sign of life of a runtime, and whether its daemon takes several imports at once; gives what there
is to say to it, None when there is no such runtime."""
WS_PENDING_WORK = "daemon:pending_work"
"""A hint that a sign of life would take something along; not every daemon knows it."""
WS_WORKSPACES_CHANGED = "daemon:workspaces_changed"
"""A hint to look at the workspaces again; not every daemon knows it."""


class Heartbeat(wire.WireFull):
    """A sign of life. Daemons that take one import at a time leave the second member out."""

    runtime_id: str = ""
    supports_batch_import: bool = False


class _Frame(wire.WireFull):
    type: str
    payload: object


class _Link:
    """One connection: the runtimes it named, and what waits to be sent, newest word on each thing."""

    def __init__(self, runtime_ids: frozenset[str], transport: asyncio.Transport | None, limit: int) -> None:
        self.runtime_ids = runtime_ids
        self.closing = False
        self._transport = transport
        self._limit = limit
        self._waiting: dict[tuple[str, str], _Frame] = {}
        self._wake = asyncio.Event()

    def put(self, kind: str, about: str, payload: object) -> None:
        """Queue a frame; too many cut the connection off."""
        key = (kind, about)
        if key not in self._waiting and len(self._waiting) >= self._limit:
            _log.warning("A daemon's websocket does not keep up; it is cut off.")
            self.stop()
            if self._transport is not None:
                self._transport.abort()
            return
        self._waiting[key] = _Frame(type=kind, payload=payload)
        self._wake.set()

    def stop(self) -> None:
        """Let the sender end."""
        self.closing = True
        self._wake.set()

    async def next(self) -> _Frame | None:
        """The next frame to send; None when there will be none."""
        while not self._waiting:
            if self.closing:
                return None
            self._wake.clear()
            await self._wake.wait()
        if self.closing:
            return None
        return self._waiting.pop(next(iter(self._waiting)))


class Links:
    """All websockets of one hub."""

    def __init__(self, limits: Limits, beat: Beat) -> None:
        self._limits = limits
        self._beat = beat
        self._links: set[_Link] = set()
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def closed(self) -> bool:
        """Whether new connections are refused."""
        return self._closed

    def __len__(self) -> int:
        return len(self._links)

    def send(self, hint: Hint) -> None:
        """Pass a hint to every connection that named its runtime, or to all where it is about none."""
        if hint.kind == "profiles":
            about = {"workspace_id": hint.runtime_id, "runtime_profile_id": hint.task_id}
            for link in list(self._links):
                link.put(wire.WS_PROFILES_CHANGED, hint.task_id, about)
            return
        if hint.kind == "workspaces":
            for link in list(self._links):
                link.put(WS_WORKSPACES_CHANGED, "", {})
            return
        for link in [each for each in self._links if hint.runtime_id in each.runtime_ids]:
            if hint.kind == "available":
                payload = wire.TaskAvailable(runtime_id=hint.runtime_id, task_id=hint.task_id)
                link.put(wire.WS_TASK_AVAILABLE, hint.runtime_id, payload)
            else:
                changed = wire.TaskChanged(task_id=hint.task_id, status=hint.status)
                link.put(wire.WS_TASK_CHANGED, hint.task_id, changed)

    def pending_work(self, runtime_id: str, kind: str) -> None:
        """Tell a daemon that its next sign of life would take something along."""
        for link in [each for each in self._links if runtime_id in each.runtime_ids]:
            link.put(WS_PENDING_WORK, runtime_id, {"runtime_id": runtime_id, "kind": kind})

    async def serve(self, request: web.Request, runtime_ids: frozenset[str]) -> web.WebSocketResponse:
        """Upgrade a request and stay with it until either side closes."""
        socket = web.WebSocketResponse(
            heartbeat=self._limits.ping_interval_s,
            max_msg_size=self._limits.link_read_bytes,
            compress=False,
        )
        await socket.prepare(request)
        link = _Link(runtime_ids, request.transport, self._limits.link_queue)
        if self._closed:
            await socket.close(code=WSCloseCode.GOING_AWAY)
            return socket
        self._links.add(link)
        self._empty.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket, link), name="hub-link-writer")
                await self._read(socket, link)
                link.stop()
        finally:
            link.stop()
            self._links.discard(link)
            if not self._links:
                self._empty.set()
        return socket

    async def close(self, timeout_s: float = 2.0) -> None:
        """Close every connection and refuse new ones. Those that do not answer are cut off. Idempotent."""
        self._closed = True
        for link in list(self._links):
            link.stop()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            for link in list(self._links):
                if link._transport is not None:
                    link._transport.abort()

    async def _write(self, socket: web.WebSocketResponse, link: _Link) -> None:
        """Send what is queued until the link stops, then close the socket."""
        try:
            while (frame := await link.next()) is not None:
                await socket.send_str(msgspec.json.encode(frame).decode())
            await socket.close(code=WSCloseCode.GOING_AWAY)
        except ConnectionError:
            link.stop()  # the peer is gone: the reader sees it too

    async def _read(self, socket: web.WebSocketResponse, link: _Link) -> None:
        """Answer heartbeats until the socket closes."""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            try:
                envelope = msgspec.json.decode(message.data, type=wire.Envelope)
                if envelope.type != wire.WS_HEARTBEAT:
                    continue
                beat = msgspec.json.decode(envelope.payload, type=Heartbeat)
            except (msgspec.DecodeError, UnicodeError):
                continue
            if beat.runtime_id not in link.runtime_ids:
                continue
            ack = await self._acknowledge(beat.runtime_id, beat.supports_batch_import)
            if ack is not None:
                link.put(wire.WS_HEARTBEAT_ACK, beat.runtime_id, ack)

    async def _acknowledge(self, runtime_id: str, batch: bool) -> wire.HeartbeatResponse | None:
        try:
            ack = await self._beat(runtime_id, batch)
        except Exception:  # noqa: BLE001 - the daemon's own fallback over HTTP is told what is wrong
            _log.exception("A heartbeat could not be handled.")
            return None
        if ack is None:
            return wire.HeartbeatResponse(status="runtime_gone", runtime_id=runtime_id, runtime_gone=True)
        ack.runtime_id = runtime_id
        return ack
