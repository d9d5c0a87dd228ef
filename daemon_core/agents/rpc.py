"""JSON-RPC over lines, as the state of a reader: what was asked and not answered yet, in both directions.

A conversation of requests and answers outlives the daemon: ``RpcState`` is part of the reader's snapshot, so
a reader that is restored knows every request it has made (and why), and goes on with the same numbers.
Requests of ours are numbered from 1; since a reader that reads the same bytes asks the same things, a
restored one gives the same writes.

Messages are read with and without the ``jsonrpc`` member. What is no message becomes ``Unreadable``; nothing
here raises on any input, and what is remembered is bounded.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

from daemon_core.agents.events import Unreadable
from daemon_core.agents.lenient import understood
from daemon_core.agents.lines import OverlongLine, cut_output, raw_text
from daemon_core.agents.writes import Writes

METHOD_NOT_FOUND: Final = -32601
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

OUTSTANDING_LIMIT: Final = 256
"""Requests of ours without an answer that are remembered; the oldest are forgotten first."""
ERROR_LIMIT_BYTES: Final = 16 * 1024
ID_LIMIT_CHARS: Final = 512
"""A longer id is that of no request that can be answered."""

RequestId: TypeAlias = int | str
"""Whatever the other side numbers its requests with; an answer repeats it."""


class Outstanding(msgspec.Struct, frozen=True):
    """A request of ours that waits for its answer.

    Attributes:
        method: What was asked.
        context: What the asker needs to know when the answer comes; its own words.
    """

    method: str
    context: str = ""


class RpcState(msgspec.Struct):
    """The part of a reader's snapshot that is this."""

    next_id: int = 1
    outstanding: dict[int, Outstanding] = {}


class RpcError(msgspec.Struct, frozen=True):
    """How a request was refused. ``data`` is whatever came with it."""

    code: int
    message: str
    data: Any = None

    @property
    def text(self) -> str:
        """The message with what ``data`` adds to it, for people and for the classifier."""
        more = self.data
        if isinstance(more, dict):
            more = more.get("message") or more.get("details") or more.get("detail")
        if isinstance(more, str) and more and more not in self.message:
            return cut_output(f"{self.message}: {more}", ERROR_LIMIT_BYTES)
        return self.message


class Response(msgspec.Struct, frozen=True):
    """The answer to a request of ours. ``error`` None: it worked."""

    id: int
    request: Outstanding
    result: Any = None
    error: RpcError | None = None


class Notification(msgspec.Struct, frozen=True):
    """The other side tells something. ``params`` is empty where it gave none, or none that are an object."""

    method: str
    params: dict[str, Any]


class Request(msgspec.Struct, frozen=True):
    """The other side asks something: to be answered with ``Rpc.respond`` or ``Rpc.refuse``, now or later."""

    id: RequestId
    method: str
    params: dict[str, Any]


Message: TypeAlias = Response | Notification | Request


class _Line(msgspec.Struct, gc=False):
    """The fields of a line that matter, of any type: nothing a line holds may make the reader fail."""

    id: Any = None
    method: Any = None
    params: Any = None
    result: Any = msgspec.UNSET
    error: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode
_NOTHING: Final[dict[str, Any]] = {}


class Rpc:
    """One side of a conversation. Requests may be made from several threads.

    Args:
        writes: Takes what is to be said.
        state: Of a snapshot; None at the beginning.
        versioned: Whether messages carry ``"jsonrpc": "2.0"``.
    """

    def __init__(self, writes: Writes, state: RpcState | None = None, *, versioned: bool = True) -> None:
        self._writes = writes
        self._state = state or RpcState()
        self._versioned = versioned
        self._lock = threading.Lock()

    # --- saying --------------------------------------------------------------------------------

    def request(self, method: str, params: Any = None, context: str = "", files: tuple[str, ...] = ()) -> int:
        """Ask something; gives the request's number, or 0 if standard input is closed already. ``files`` are
        those that ``params`` name (``writes.named``)."""
        with self._lock:
            state = self._state
            if self._writes.closed:
                return 0
            number = state.next_id
            state.next_id += 1
            state.outstanding[number] = Outstanding(method, context)
            if len(state.outstanding) > OUTSTANDING_LIMIT:
                del state.outstanding[next(iter(state.outstanding))]
            self._say({"id": number, "method": method, "params": params}, files)
            return number

    def notify(self, method: str, params: Any = None) -> None:
        """Tell something that needs no answer."""
        with self._lock:
            self._say({"method": method, "params": params} if params is not None else {"method": method})

    def respond(self, request_id: RequestId, result: Any) -> None:
        """Answer a request of the other side."""
        with self._lock:
            self._say({"id": request_id, "result": result})

    def refuse(self, request_id: RequestId, code: int, message: str) -> None:
        """Answer a request of the other side with an error."""
        with self._lock:
            self._say({"id": request_id, "error": {"code": code, "message": message}})

    def refuse_unknown(self, request: Request) -> None:
        """Answer what nobody here understands, so that the other side does not wait for ever."""
        self.refuse(request.id, METHOD_NOT_FOUND, f"Method not found: {request.method}")

    # --- hearing -------------------------------------------------------------------------------

    def incoming(self, lines: Iterable[bytes | OverlongLine]) -> Iterator[Message | Unreadable]:
        """What these lines say, one after the other. Answers to what was not asked are passed over."""
        for line in lines:
            if isinstance(line, OverlongLine):
                yield Unreadable(raw_text(line.head), "the line is too long")
                continue
            if not line or line.isspace():
                continue
            found = understand(line)
            if found is None:
                yield Unreadable(raw_text(line), "not a message of the protocol")
                continue
            message = self._message(found)
            if isinstance(message, Unreadable):
                yield Unreadable(raw_text(line), message.why)
            elif message is not None:
                yield message

    def outstanding(self, *methods: str) -> bool:
        """Whether a request of one of these methods (none: any) waits for its answer."""
        with self._lock:
            waiting = self._state.outstanding.values()
            return any(not methods or request.method in methods for request in waiting)

    def state(self) -> RpcState:
        """A copy for the snapshot."""
        with self._lock:
            return RpcState(self._state.next_id, dict(self._state.outstanding))

    def _message(self, line: _Line) -> Message | Unreadable | None:
        if isinstance(line.method, str):
            params = line.params if isinstance(line.params, dict) else _NOTHING
            if line.id is None:
                return Notification(line.method, params)
            if not is_request_id(line.id):
                return Unreadable("", "a request without an id that can be answered")
            return Request(line.id, line.method, params)
        if line.method is not None or (line.result is msgspec.UNSET and line.error is None):
            return Unreadable("", "neither a request nor an answer")
        number = line.id
        if isinstance(number, str) and number.isascii() and number.isdecimal() and len(number) < 16:
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            return None if line.error is None else Unreadable("", "an error that belongs to no request")
        with self._lock:
            request = self._state.outstanding.pop(number, None)
        if request is None:
            return None
        if line.error is not None:
            return Response(number, request, None, _error(line.error))
        return Response(number, request, line.result)

    def _say(self, message: dict[str, Any], files: tuple[str, ...] = ()) -> None:
        if message.get("params", ...) is None:
            del message["params"]
        if self._versioned:
            message = {"jsonrpc": "2.0", **message}
        self._writes.say(encoded(message), files)


def understand(line: bytes) -> _Line | None:
    """The fields of a line, or None if it is not a JSON object."""
    return understood(line, _decode_line)


def encoded(message: Any) -> bytes:
    """A message as a line; texts that have no UTF-8 form (half a character) are mended."""
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError:
        text = json.dumps(message, ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode() + b"\n"


def is_request_id(value: Any) -> bool:
    """Whether a request with this id can be answered."""
    if isinstance(value, str):
        return len(value) <= ID_LIMIT_CHARS
    # Larger ones do not pass through every JSON library unchanged.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _error(found: Any) -> RpcError:
    if not isinstance(found, dict):
        text = found if isinstance(found, str) else "the request was refused"
        return RpcError(INTERNAL_ERROR, cut_output(text, ERROR_LIMIT_BYTES))
    code = found.get("code")
    message = found.get("message")
    return RpcError(
        code if isinstance(code, int) and not isinstance(code, bool) else INTERNAL_ERROR,
        cut_output(message, ERROR_LIMIT_BYTES) if isinstance(message, str) else "the request was refused",
        found.get("data"),
    )
