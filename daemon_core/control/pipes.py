"""The named pipe that the control API has on Windows, where other systems have its socket file.

What is here needs nothing of Windows: the pipe's name, and a connection over a handful of calls of the
system, which ``pipes_windows`` makes. **Those have been written and not yet tried there.**

The name is a digest of user and socket path: every program of one user finds the same pipe for one home, and
two homes, profiles or users have two. Names of pipes are no secret and anybody may take one that is free, so
each end looks who is at the other: the server at every request, the client before it says anything.
"""

from __future__ import annotations

import math
import ntpath
import os
import sys
import time
from pathlib import Path
from typing import Final, Protocol

ERROR_FILE_NOT_FOUND: Final = 2
ERROR_ACCESS_DENIED: Final = 5
ERROR_BROKEN_PIPE: Final = 109
ERROR_SEM_TIMEOUT: Final = 121
ERROR_PIPE_BUSY: Final = 231
ERROR_NO_DATA: Final = 232
ERROR_PIPE_NOT_CONNECTED: Final = 233
ERROR_OPERATION_ABORTED: Final = 995

_PREFIX: Final = "\\\\.\\pipe\\ostler-"
_ENDED: Final = (ERROR_BROKEN_PIPE, ERROR_NO_DATA, ERROR_PIPE_NOT_CONNECTED)
_PIECE_BYTES: Final = 64 * 1024
_LONGEST_WAIT_MS: Final = 0x7FFF_FFFF


class ForeignPipeError(PermissionError):
    """The pipe is another user's: it must not be told anything."""


class Connection(Protocol):
    """What a client of the control API needs of its connection; a socket has it, too."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, limit: int, /) -> bytes: ...

    def settimeout(self, timeout_s: float | None, /) -> None: ...

    def close(self) -> None: ...


class Operation(Protocol):
    """A read or write that has begun. ``finish`` has to be called: until then the system uses its buffer."""

    def wait(self, limit_ms: int | None) -> bool:
        """Whether it is over within so many milliseconds (None: for ever)."""

    def cancel(self) -> None:
        """End it early; it may be over all the same."""

    def finish(self) -> int:
        """Wait for its end and give how many bytes it moved. Raises ``OSError``, also where cancelled."""

    def data(self) -> bytes:
        """What a read has got, after ``finish``."""


class Calls(Protocol):
    """The calls of the system. Their ``OSError`` has the system's code as ``winerror``."""

    def open(self, name: str) -> int:
        """A handle of a new connection."""

    def wait_free(self, name: str, limit_ms: int) -> None:
        """Returns when the pipe may take another connection."""

    def is_own_server(self, handle: int) -> bool:
        """Whether a program of this user serves the pipe."""

    def read(self, handle: int, limit: int) -> Operation: ...

    def write(self, handle: int, data: bytes) -> Operation: ...

    def close(self, handle: int) -> None: ...


def address(socket_path: Path) -> str:
    """What programs of this user connect to: the socket's path, on Windows the name of its pipe."""
    if sys.platform == "win32":
        from daemon_core.control.pipes_windows import own_user

        return pipe_name(socket_path, own_user())
    return os.fspath(socket_path)


def pipe_name(socket_path: Path, user: str) -> str:
    """The pipe of a user for a socket path, whatever the case and slashes of that.

    Args:
        socket_path: Absolute.
        user: The user's security identifier.
    """
    import hashlib

    path = ntpath.normcase(ntpath.normpath(os.fspath(socket_path)))
    digest = hashlib.sha256(f"{user}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()
    return _PREFIX + digest[:32]


def is_foreign(socket_path: Path) -> bool:
    """Whether another user's program serves our pipe. Elsewhere the socket's directory keeps others out.

    For a client whose connection does not look itself (Qt's); it waits for nothing.
    """
    if sys.platform == "win32":
        from daemon_core.control.pipes_windows import SystemCalls

        try:
            connect(address(socket_path), 0.0, SystemCalls()).close()
        except ForeignPipeError:
            return True
        except OSError:
            pass  # nobody serves it, or somebody who is busy
    return False


def connect(name: str, timeout_s: float | None, calls: Calls) -> PipeConnection:
    """Connect to a pipe and make sure of its server.

    Raises:
        ForeignPipeError: Another user serves it.
        TimeoutError: It is there and took no connection in time.
        OSError: ``winerror`` says why; ``ERROR_FILE_NOT_FOUND`` where nobody serves it.
    """
    deadline = _deadline(timeout_s)
    while True:
        try:
            handle = calls.open(name)
            break
        except OSError as error:
            if _code(error) == ERROR_ACCESS_DENIED:
                raise ForeignPipeError(name) from error
            if _code(error) != ERROR_PIPE_BUSY:
                raise
        left_ms = _left_ms(deadline)
        if left_ms == 0:
            raise TimeoutError(name)
        try:
            # It may be somebody else's again by the time that it is opened: hence the loop.
            calls.wait_free(name, _LONGEST_WAIT_MS if left_ms is None else left_ms)
        except OSError as error:
            if _code(error) == ERROR_SEM_TIMEOUT:
                raise TimeoutError(name) from error
            raise
    try:
        own = calls.is_own_server(handle)
    except BaseException:
        calls.close(handle)
        raise
    if not own:
        calls.close(handle)
        raise ForeignPipeError(name)
    return PipeConnection(handle, timeout_s, calls)


class PipeConnection:
    """One connection, for one thread. A time-out is for each ``recv`` and each ``sendall``, as a socket's."""

    def __init__(self, handle: int, timeout_s: float | None, calls: Calls) -> None:
        self._handle: int | None = handle
        self._timeout_s = timeout_s
        self._calls = calls

    def settimeout(self, timeout_s: float | None, /) -> None:
        self._timeout_s = timeout_s

    def sendall(self, data: bytes, /) -> None:
        deadline = _deadline(self._timeout_s)
        while data:
            data = data[_complete(self._calls.write(self._open(), data[:_PIECE_BYTES]), deadline) :]

    def recv(self, limit: int, /) -> bytes:
        """Some bytes; none where the other end is closed."""
        deadline = _deadline(self._timeout_s)
        while True:
            try:
                operation = self._calls.read(self._open(), limit)
                count = _complete(operation, deadline)
            except OSError as error:
                if _code(error) in _ENDED:
                    return b""
                raise
            if count:  # an empty message is not the end
                return operation.data()[:count]

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._calls.close(handle)

    def _open(self) -> int:
        if self._handle is None:
            raise OSError("the connection is closed")
        return self._handle


def _complete(operation: Operation, deadline: float | None) -> int:
    in_time = False
    try:
        in_time = operation.wait(_left_ms(deadline))
    except BaseException:  # Ctrl+C: the system may not write into a buffer that is gone
        operation.cancel()
        try:
            operation.finish()
        except OSError:
            pass  # cancelled, as it was to be
        raise
    if not in_time:
        operation.cancel()
    try:
        return operation.finish()
    except OSError as error:
        if not in_time and _code(error) == ERROR_OPERATION_ABORTED:
            raise TimeoutError("the other end took too long") from None
        raise


def _code(error: OSError) -> int | None:
    code: int | None = getattr(error, "winerror", None)
    return code


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left_ms(deadline: float | None) -> int | None:
    if deadline is None:
        return None
    return min(max(0, math.ceil((deadline - time.monotonic()) * 1000)), _LONGEST_WAIT_MS)
