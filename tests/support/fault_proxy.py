"""A proxy between a daemon and its server, on real sockets, that does to requests what networks do to them.

::

    async with FaultProxy(server.port) as proxy:
        proxy.plan = lambda asked: CutAnswer(0.5) if asked.route == "complete" and asked.visit == 1 else PASS
        ...
        proxy.freeze()     # every websocket stays open and says nothing any more
        await proxy.close_door()   # nobody listens

It understands just enough of HTTP/1.1 to see where a request and its answer end; what it passes on, it passes
on byte for byte. What is asked of the server while the answer is spoilt has happened there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from tests.support.fake_server import stop_accepting

LIMIT_BYTES: Final = 16 * 1024 * 1024

_ROUTES: Final = (
    (r"POST /api/tokens/current/renew$", "renew"),
    (r"GET /api/(?:daemon/)?workspaces$", "workspaces"),
    (r"GET /api/daemon/workspaces/[^/]+/repos$", "repos"),
    (r"GET /api/daemon/workspaces/[^/]+/runtime-profiles$", "profiles"),
    (r"GET /api/daemon/ws\b", "ws"),
    (r"POST /api/daemon/(register|deregister|heartbeat)$", ""),
    (r"POST /api/daemon/runtimes/[^/]+/tasks/(claim)$", ""),
    (r"POST /api/daemon/tasks/claim$", "claim_many"),
    (r"POST /api/daemon/runtimes/[^/]+/(recover-orphans)$", ""),
    (r"POST /api/daemon/runtimes/[^/]+/tasks/[^/]+/prepare-(lease)$", ""),
    (r"POST /api/daemon/runtimes/[^/]+/tasks/[^/]+/(skill)-bundles/resolve$", ""),
    (r"GET /api/daemon/tasks/[^/]+/messages\b", "messages_since"),
    (r"(?:GET|POST) /api/daemon/tasks/[^/]+/([a-z-]+)$", ""),
)
_TASK: Final = re.compile(r"/tasks/([^/?]+)/")


# --- faults -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Nothing is done to the request."""


@dataclass(frozen=True)
class Slow(Fault):
    """Held back before it goes on, and its answer as well."""

    before_s: float = 0.0
    after_s: float = 0.0


@dataclass(frozen=True)
class CutRequest(Fault):
    """The server gets a part of it, then both sides are reset."""

    part: float = 0.5


@dataclass(frozen=True)
class CutAnswer(Fault):
    """The daemon gets a part of the answer (head and body), then a reset."""

    part: float = 0.5


@dataclass(frozen=True)
class ResetBefore(Fault):
    """Reset; the server never hears of it."""


@dataclass(frozen=True)
class ResetAfter(Fault):
    """The server acts, and the daemon gets a reset instead of an answer."""


@dataclass(frozen=True)
class Twice(Fault):
    """The server gets it twice, the daemon the second answer."""


@dataclass(frozen=True)
class Instead(Fault):
    """Another answer. ``acted``: the server got the request all the same."""

    status: int
    body: str = ""
    kind: str = "text/html"
    headers: tuple[tuple[str, str], ...] = ()
    acted: bool = False


@dataclass(frozen=True)
class HalfJson(Fault):
    """An answer that is whole as HTTP and half as JSON."""


@dataclass(frozen=True)
class WrongTypes(Fault):
    """Every value of the answer's JSON is of another type."""


@dataclass(frozen=True)
class MoreFields(Fault):
    """Every object of the answer has fields that nobody knows: not a fault, to be borne without a word."""


@dataclass(frozen=True)
class BlackHole(Fault):
    """Taken and never answered. ``acted``: the server got it, only its answer is swallowed."""

    acted: bool = False


PASS: Final = Fault()
BAD_GATEWAY: Final = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@dataclass(frozen=True)
class Asked:
    """A request as the plan sees it. ``visit`` counts those of this route (and task) from 1."""

    route: str
    task_id: str
    visit: int


Plan = Callable[[Asked], Fault]


# --- the proxy --------------------------------------------------------------------------------------


@dataclass
class _Pair:
    """A client's connection and, while there is one, that to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: asyncio.StreamWriter | None = None
    frozen: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class FaultProxy:
    """See the module.

    Attributes:
        plan: what is done to each request; none of it unless a test says so.
        done: how often each kind of fault has struck, by its name.
    """

    def __init__(self, upstream_port: int, seed: int = 0) -> None:
        self.upstream_port = upstream_port
        self.plan: Plan = lambda asked: PASS
        self.done: Counter[str] = Counter()
        self._visits: Counter[tuple[str, str]] = Counter()
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._pairs: dict[asyncio.Task[None], _Pair] = {}

    @property
    def url(self) -> str:
        """Base URL for the daemon; the same for the proxy's whole life."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> FaultProxy:
        await self.open_door()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_door()

    async def open_door(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self._port, limit=LIMIT_BYTES, reuse_address=True
            )
            self._port = self._server.sockets[0].getsockname()[1]

    async def close_door(self) -> None:
        """Stop listening and reset everything that is open."""
        server, self._server = self._server, None
        if server is not None:
            for listener in server.sockets:
                await stop_accepting(listener.fileno())
            server.close()
        self.cut()
        waiting = list(self._pairs)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)

    def cut(self) -> None:
        """Reset every connection, websockets among them."""
        for pair in list(self._pairs.values()):
            _reset(pair.writer)
            if pair.upstream is not None:
                _reset(pair.upstream)

    def freeze(self) -> int:
        """Every websocket stays open and nothing passes any more, either way; gives their number."""
        found = [pair for pair in self._pairs.values() if pair.tasks]
        for pair in found:
            pair.frozen = True
        return len(found)

    # --- one connection ---------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            _reset(writer)
            return
        pair = _Pair(reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(pair))
        self._pairs[task] = pair
        task.add_done_callback(lambda task: self._pairs.pop(task, None))

    async def _serve(self, pair: _Pair) -> None:
        try:
            while await self._one(pair):
                pass
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # one side has gone
        finally:
            pair.writer.close()
            if pair.upstream is not None:
                pair.upstream.close()

    async def _one(self, pair: _Pair) -> bool:
        """One request and its answer; whether the connection can take another."""
        head = await pair.reader.readuntil(b"\r\n\r\n")
        request = head + await _body(pair.reader, head, answer=False)
        first = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        asked = self._asked(first[0], first[1])
        fault = self.plan(asked)
        if fault != PASS:
            self.done[type(fault).__name__] += 1
        if asked.route == "ws" and type(fault) in (Fault, Slow, MoreFields):
            await self._websocket(pair, request)
            return False
        return await self._strike(pair, request, fault)

    async def _strike(self, pair: _Pair, request: bytes, fault: Fault) -> bool:
        match fault:
            case ResetBefore():
                _reset(pair.writer)
                return False
            case BlackHole(acted=False):
                await _until_closed(pair.reader)
                return False
            case CutRequest(part=part):
                writer = (await self._connect(pair))[1]
                writer.write(request[: max(1, int(len(request) * part))])
                await writer.drain()
                _reset(writer)
                _reset(pair.writer)
                return False
            case Instead(acted=False):
                pair.writer.write(_answer(fault))
                await pair.writer.drain()
                return True
            case Slow(before_s=before_s):
                await asyncio.sleep(before_s)
            case Twice():
                await self._ask(pair, request)
            case _:
                pass
        answer = await self._ask(pair, request)
        match fault:
            case ResetAfter():
                _reset(pair.writer)
                return False
            case BlackHole():
                await _until_closed(pair.reader)
                return False
            case CutAnswer(part=part):
                pair.writer.write(answer[: max(1, min(len(answer) - 1, int(len(answer) * part)))])
                await pair.writer.drain()
                _reset(pair.writer)
                return False
            case Instead():
                answer = _answer(fault)
            case HalfJson():
                answer = _with_body(answer, lambda body: body[: len(body) // 2])
            case WrongTypes():
                answer = _with_body(answer, self._wrong)
            case MoreFields():
                answer = _with_body(answer, _with_more)
            case Slow(after_s=after_s):
                await asyncio.sleep(after_s)
            case _:
                pass
        pair.writer.write(answer)
        await pair.writer.drain()
        return True

    async def _connect(self, pair: _Pair) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=LIMIT_BYTES)
        except OSError:
            _reset(pair.writer)  # nobody there: no connection, as far as the daemon can see
            raise
        pair.upstream = writer
        return reader, writer

    async def _ask(self, pair: _Pair, request: bytes) -> bytes:
        """The server's answer to a request, on a connection of its own."""
        reader, writer = await self._connect(pair)
        try:
            writer.write(request)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await _body(reader, head, answer=True)
        except (OSError, asyncio.IncompleteReadError):
            _reset(pair.writer)
            raise
        finally:
            pair.upstream = None
            writer.close()

    async def _websocket(self, pair: _Pair, request: bytes) -> None:
        reader, writer = await self._connect(pair)
        writer.write(request)

        async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    if not pair.frozen:
                        sink.write(data)
                        await sink.drain()
            if not pair.frozen:
                sink.close()

        async with asyncio.TaskGroup() as group:
            pair.tasks = {
                group.create_task(relay(pair.reader, writer)),
                group.create_task(relay(reader, pair.writer)),
            }

    def _asked(self, method: str, target: str) -> Asked:
        line = f"{method} {target}"
        route = "other"
        for pattern, name in _ROUTES:
            if found := re.match(pattern, line):
                route = name or found.group(1)
                break
        task = _TASK.search(target)
        task_id = task.group(1) if task is not None else ""
        self._visits[route, task_id] += 1
        return Asked(route, task_id, self._visits[route, task_id])

    def _wrong(self, body: bytes) -> bytes:
        return json.dumps(self._other(json.loads(body))).encode() if body.strip() else body

    def _other(self, value: Any) -> Any:
        match value:
            case dict():
                return {key: self._other(item) for key, item in value.items()}
            case list():
                return [self._other(item) for item in value] or {"0": "no list"}
            case str():
                return self._random.choice([7, ["no text"], {"no": "text"}])
            case bool() | int() | float():
                return self._random.choice(["no number", [], {"no": "number"}])
            case _:
                return self._random.choice([1, "nothing", {"not": "null"}])


# --- bytes ------------------------------------------------------------------------------------------


def _field(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


async def _body(reader: asyncio.StreamReader, head: bytes, *, answer: bool) -> bytes:
    """What follows a head, as it is on the wire."""
    if answer:
        status = int(head.split(b" ", 2)[1])
        if status in (101, 204, 304):
            return b""
    if "chunked" in _field(head, "transfer-encoding").lower():
        parts = []
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            parts += [line, await reader.readexactly(size + 2)]
            if size == 0:
                return b"".join(parts)
    length = _field(head, "content-length")
    return await reader.readexactly(int(length)) if length else b""


def _answer(fault: Instead) -> bytes:
    body = fault.body.encode()
    lines = [f"HTTP/1.1 {fault.status} Spoilt", f"Content-Type: {fault.kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in fault.headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _with_body(answer: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The answer with another body, its length right; one without a body as it is."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not body:
        return answer
    changed = change(body)
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*kept, b"Content-Length: %d" % len(changed), b"", changed])


def _with_more(body: bytes) -> bytes:
    def more(value: Any) -> Any:
        if isinstance(value, dict):
            added = {"x_new": {"deep": [1, None, "ü"]}, "x_null": None}
            return {key: more(item) for key, item in value.items()} | added
        return [more(item) for item in value] if isinstance(value, list) else value

    return json.dumps(more(json.loads(body))).encode()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """End with an RST instead of a farewell."""
    transport = writer.transport
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
