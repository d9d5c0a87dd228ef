"""The control API from outside, for short programs: synchronous, on a plain socket (on Windows on a named
pipe), nothing but msgspec beside it.

A call is one connection. It raises ``DaemonUnreachableError`` where no answer came and ``ControlError`` where
the answer is a refusal. A stream that ends early is told apart from one that is complete (chunked encoding
says which), so that a transcript can be taken up again after the daemon's restart.

Importing this module costs about 25 ms; ``http.client`` would be 30 more, an asynchronous library 200.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from daemon_core.control import pipes
from daemon_core.control.errors import ControlError

TIMEOUT_S: Final = 5.0
"""For an answer to anything that the daemon has at hand. One that does not come in that time: the daemon
hangs.
"""
WORK_TIMEOUT_S: Final = 60.0
"""For what takes the daemon work: a new task, a fresh look for agents."""
_HEAD_LIMIT_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 64 * 1024

_Answer = TypeVar("_Answer")


class DaemonUnreachableError(Exception):
    """No answer. ``why``: nothing listens, nothing came in time, the connection broke, or it is not our
    daemon.
    """

    def __init__(self, why: Literal["absent", "timeout", "broken", "foreign"], detail: str = "") -> None:
        self.why = why
        self.detail = detail
        super().__init__(why, detail)


class ControlClient:
    """Speaks to the daemon behind one control socket."""

    def __init__(self, socket_path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.socket_path = socket_path
        self._timeout_s = timeout_s

    def call(
        self,
        kind: type[_Answer],
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float | None = None,
    ) -> _Answer:
        """One request and its whole answer, decoded as ``kind``.

        Raises:
            DaemonUnreachableError: No answer, or none that could be understood.
            ControlError: A refusal.
        """
        with closing(self._send(method, path, body, timeout_s)) as connection:
            status, pieces = self._receive(connection)
            raw = b"".join(pieces)
        if status >= 400:
            raise _refusal(status, raw)
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.MsgspecError as error:
            raise DaemonUnreachableError("broken", f"an answer that makes no sense: {error}") from error

    def lines(self, path: str, *, timeout_s: float | None = None) -> Iterator[bytes]:
        """A streamed answer line by line, without line ends, as it comes.

        Args:
            timeout_s: Longest silence; None: for ever.

        Raises:
            DaemonUnreachableError: It could not be had, or broke off before its end.
            ControlError: A refusal.
        """
        with closing(self._send("GET", path, None, None)) as connection:
            status, pieces = self._receive(connection)
            if status >= 400:
                raise _refusal(status, b"".join(pieces))
            try:
                connection.settimeout(timeout_s)
            except OSError as error:
                raise DaemonUnreachableError("broken", str(error)) from error
            rest = b""
            for piece in pieces:
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if rest:
                yield rest

    def _send(self, method: str, path: str, body: Any, timeout_s: float | None) -> pipes.Connection:
        content = msgspec.json.encode(body) if body is not None else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: ostler\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        connection = self._connect(timeout_s if timeout_s is not None else self._timeout_s)
        try:
            connection.sendall(head.encode("ascii") + content)
        except TimeoutError as error:
            connection.close()
            raise DaemonUnreachableError("timeout") from error
        except OSError:
            # The daemon may refuse a large body before it has read it: the answer is there all the same.
            pass
        return connection

    def _connect(self, timeout_s: float) -> pipes.Connection:
        if sys.platform == "win32":
            from daemon_core.control.pipes_windows import SystemCalls

            return through_pipe(pipes.address(self.socket_path), timeout_s, SystemCalls())
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(os.fspath(self.socket_path))
        except OSError as error:
            connection.close()
            # EAGAIN, the backlog is full: somebody listens and does not answer.
            hangs = isinstance(error, TimeoutError | BlockingIOError)
            raise DaemonUnreachableError("timeout" if hangs else "absent", str(error)) from error
        if _foreign(connection):
            connection.close()
            raise DaemonUnreachableError("foreign")
        return connection

    def _receive(self, connection: pipes.Connection) -> tuple[int, Iterator[bytes]]:
        """Status and the pieces of the body, which are read as they are asked for."""
        reader = _Reader(connection)
        head = reader.until(b"\r\n\r\n", _HEAD_LIMIT_BYTES)
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        try:
            status = int(first.split(" ", 2)[1])
            if headers.get("transfer-encoding", "").lower() == "chunked":
                return status, _chunks(reader)
            return status, reader.exactly(int(headers.get("content-length", "0")))
        except (ValueError, IndexError) as error:
            raise DaemonUnreachableError("broken", "not an HTTP answer") from error


class _Reader:
    """Buffered reading from a connection, with this module's errors."""

    def __init__(self, connection: pipes.Connection) -> None:
        self._connection = connection
        self._buffer = b""

    def _more(self) -> None:
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except TimeoutError as error:
            raise DaemonUnreachableError("timeout") from error
        except OSError as error:
            raise DaemonUnreachableError("broken", str(error)) from error
        if not data:
            raise DaemonUnreachableError("broken", "the connection was closed in the middle")
        self._buffer += data

    def until(self, mark: bytes, limit_bytes: int) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > limit_bytes:
                raise DaemonUnreachableError("broken", "not an HTTP answer")
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def exactly(self, count: int) -> Iterator[bytes]:
        while count > 0:
            if not self._buffer:
                self._more()
            piece, self._buffer = self._buffer[:count], self._buffer[count:]
            count -= len(piece)
            yield piece


def _chunks(reader: _Reader) -> Iterator[bytes]:
    """RFC 9112 section 7.1, without trailers: the server sends none."""
    while True:
        size = reader.until(b"\r\n", 1024)
        try:
            count = int(size.split(b";")[0], 16)
        except ValueError as error:
            raise DaemonUnreachableError("broken", "not a chunk") from error
        if count == 0:
            return
        yield from reader.exactly(count)
        reader.until(b"\r\n", 2)


def through_pipe(name: str, timeout_s: float, calls: pipes.Calls) -> pipes.Connection:
    """A connection to the daemon behind a named pipe. Raises ``DaemonUnreachableError``."""
    try:
        return pipes.connect(name, timeout_s, calls)
    except pipes.ForeignPipeError as error:
        raise DaemonUnreachableError("foreign") from error
    except TimeoutError as error:
        raise DaemonUnreachableError("timeout", str(error)) from error
    except OSError as error:
        raise DaemonUnreachableError("absent", str(error)) from error


def _foreign(connection: socket.socket) -> bool:
    """Whether the process that listens is another user's: it must not be told anything."""
    if sys.platform != "linux":
        return False
    import struct

    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", raw)[1] != os.geteuid())


def _refusal(status: int, raw: bytes) -> Exception:
    try:
        error = msgspec.json.decode(raw)["error"]
        return ControlError(str(error["code"]), dict(error.get("params") or {}), status)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return DaemonUnreachableError("broken", f"HTTP status {status}")
