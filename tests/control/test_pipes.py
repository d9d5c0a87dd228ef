"""The named pipe of Windows as far as another system can try it: its name, and a connection whose few calls
of the system are made on a unix socket here, against the real server.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon_core.control import pipes
from daemon_core.control.client import ControlClient, DaemonUnreachableError, through_pipe
from daemon_core.control.errors import ControlError
from daemon_core.control.server import ControlServer
from daemon_core.control.views import DaemonStatus, TaskAdd, TaskView, TranscriptLine
from tests.control.memory_backend import MemoryBackend

NAME = r"\\.\pipe\ostler-test"


class SystemCallError(OSError):
    def __init__(self, code: int) -> None:
        super().__init__(code, f"code {code}")
        self.winerror = code


class SocketOperation:
    """One read or write, begun and not yet done."""

    def __init__(self, connection: socket.socket, given: bytes | None, limit: int = 0) -> None:
        self._connection = connection
        self._given = given
        self._limit = limit
        self._got = b""
        self.cancelled = False
        self.finished = False

    def wait(self, limit_ms: int | None) -> bool:
        limit_s = None if limit_ms is None else limit_ms / 1000
        reading, writing = ([self._connection], []) if self._given is None else ([], [self._connection])
        return any(select.select(reading, writing, [], limit_s))

    def cancel(self) -> None:
        self.cancelled = True

    def finish(self) -> int:
        self.finished = True
        if self.cancelled and not self.wait(0):
            raise SystemCallError(pipes.ERROR_OPERATION_ABORTED)
        if self._given is not None:
            return self._connection.send(self._given)
        self._got = self._connection.recv(self._limit)
        if not self._got:
            raise SystemCallError(pipes.ERROR_BROKEN_PIPE)
        return len(self._got)

    def data(self) -> bytes:
        return self._got


class SocketCalls:
    """The system's calls on a unix socket. ``failures`` is what opening answers first."""

    def __init__(self, path: Path, *failures: int, frees: bool = True, own: bool = True) -> None:
        self._path = path
        self._failures = list(failures)
        self._frees = frees
        self._own = own
        self._open: dict[int, socket.socket] = {}
        self.operations: list[SocketOperation] = []

    @property
    def handles(self) -> int:
        return len(self._open)

    def open(self, name: str) -> int:
        assert name == NAME
        if self._failures:
            raise SystemCallError(self._failures.pop(0))
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self._path))
        self._open[connection.fileno()] = connection
        return connection.fileno()

    def wait_free(self, name: str, limit_ms: int) -> None:
        assert limit_ms > 0
        if not self._frees:
            raise SystemCallError(pipes.ERROR_SEM_TIMEOUT)

    def is_own_server(self, handle: int) -> bool:
        return self._own

    def read(self, handle: int, limit: int) -> SocketOperation:
        return self._begun(SocketOperation(self._open[handle], None, limit))

    def write(self, handle: int, data: bytes) -> SocketOperation:
        return self._begun(SocketOperation(self._open[handle], data))

    def _begun(self, operation: SocketOperation) -> SocketOperation:
        self.operations.append(operation)
        return operation

    def close(self, handle: int) -> None:
        self._open.pop(handle).close()


class PipeClient(ControlClient):
    def __init__(self, calls: SocketCalls, timeout_s: float = 5.0) -> None:
        super().__init__(Path("unused"), timeout_s)
        self._calls = calls

    def _connect(self, timeout_s: float) -> pipes.Connection:
        return through_pipe(NAME, timeout_s, self._calls)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes connections and never says anything."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        yield tmp_path / "silent"


def test_a_user_has_one_pipe_for_one_socket_path() -> None:
    def name(path: str, user: str = "S-1-5-21-1-2-3-1001") -> str:
        return pipes.pipe_name(Path(path), user)

    found = name(r"C:\Users\Ada\AppData\Local\ostler\run\control.sock")
    # Written out: programs of two versions have to find each other.
    assert found == r"\\.\pipe\ostler-348446d4fc553f2a467c7a085da0373f"
    assert found == name("c:/users/ada/AppData/Local/Ostler/run/../run/control.sock")
    others = [
        name(r"C:\Users\Ada\AppData\Local\ostler\run\desktop.sock"),
        name(r"C:\Users\Ada\AppData\Local\ostler\run\profiles\second\control.sock"),
        name(r"C:\Users\Ada\AppData\Local\ostler\run\control.sock", "S-1-5-21-1-2-3-1002"),
        name("C:\\" + "d" * 32_000 + "\\\ud800.sock"),
    ]
    assert len({found, *others}) == 5
    for each in (found, *others):
        assert len(each) < 100
        assert each.count("\\") == 4, "no other backslash may be in the name of a pipe"


async def test_requests_and_streams_go_through_a_pipe(server: ControlServer, backend: MemoryBackend) -> None:
    calls = SocketCalls(server.socket_path, pipes.ERROR_PIPE_BUSY, pipes.ERROR_PIPE_BUSY)
    made = await backend.add_task(TaskAdd(prompt="x"))
    await backend.say(made.id, *(TranscriptLine(seq=n, type="text", content="é" * n) for n in range(1, 300)))

    def work() -> None:
        client = PipeClient(calls)
        assert client.call(DaemonStatus, "GET", "/v1/status").version == "9.9.9"
        large = client.call(TaskView, "POST", "/v1/tasks", TaskAdd(prompt="p" * 2_000_000))
        assert len(large.prompt) == 2_000_000
        with pytest.raises(ControlError) as refused:
            client.call(TaskView, "GET", "/v1/tasks/ffffffff")
        assert refused.value.code == "not_found"
        assert len(list(client.lines(f"/v1/tasks/{made.id}/transcript"))) == 299

    await asyncio.to_thread(work)
    assert calls.handles == 0, "every connection was closed"


def test_a_daemon_that_says_nothing_is_a_timeout(silent: Path) -> None:
    calls = SocketCalls(silent)
    with pytest.raises(DaemonUnreachableError) as caught:
        PipeClient(calls, timeout_s=0.01).call(DaemonStatus, "GET", "/v1/status")
    assert caught.value.why == "timeout"
    assert calls.operations[-1].cancelled
    assert calls.operations[-1].finished, "the system has let go of the buffer"
    assert calls.handles == 0


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (pipes.ERROR_FILE_NOT_FOUND, "absent"),
        (pipes.ERROR_ACCESS_DENIED, "foreign"),
        (pipes.ERROR_PIPE_BUSY, "timeout"),
    ],
)
def test_what_is_wrong_with_a_pipe_is_told_apart(silent: Path, failure: int, why: str) -> None:
    with pytest.raises(DaemonUnreachableError) as caught:
        through_pipe(NAME, 1.0, SocketCalls(silent, failure, frees=False))
    assert caught.value.why == why


def test_a_pipe_that_stays_busy_is_not_tried_for_ever(silent: Path) -> None:
    with pytest.raises(DaemonUnreachableError) as caught:
        through_pipe(NAME, 0.0, SocketCalls(silent, pipes.ERROR_PIPE_BUSY))
    assert caught.value.why == "timeout"


def test_another_users_pipe_is_told_nothing(silent: Path) -> None:
    calls = SocketCalls(silent, own=False)
    with pytest.raises(DaemonUnreachableError) as caught:
        PipeClient(calls).call(TaskView, "POST", "/v1/tasks", TaskAdd(prompt="a secret"))
    assert caught.value.why == "foreign"
    assert (calls.operations, calls.handles) == ([], 0)


def test_the_end_of_a_pipe_is_the_end_of_what_is_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with closing(pipes.connect(NAME, 5.0, SocketCalls(tmp_path / "s"))) as connection:
            theirs, _ = listener.accept()
            with theirs:
                theirs.sendall(b"the rest")
            assert (connection.recv(3), connection.recv(100), connection.recv(100)) == (b"the", b" rest", b"")
        connection.close()  # again
        with pytest.raises(OSError, match="closed"):
            connection.recv(1)


def test_a_read_that_is_interrupted_is_ended_before_its_buffer_goes(
    silent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_self: SocketOperation, limit_ms: int | None) -> bool:
        if limit_ms == 0:
            return False
        raise KeyboardInterrupt

    calls = SocketCalls(silent)
    with closing(pipes.connect(NAME, None, calls)) as connection:
        monkeypatch.setattr(SocketOperation, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection.recv(1)
    assert calls.operations[0].cancelled
    assert calls.operations[0].finished
