"""The daemon's side of the shim: start one, find one again, talk to it.

Rules:

- `spawn` can be asked for again after a crash at any point: a run directory is started at most once, and one
  that was started is attached to.
- Everything may be cancelled. What was sent by then may still be done; writes to stdin carry a number, so
  they can be sent again.
- No timer runs while the shim's socket works. When the socket has vanished (somebody cleaned up), the shim is
  asked by SIGHUP for a new one, and if that does not help, files and lock are looked at twice a second.
- Processes started here are reaped here; the shim itself is no child of the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import outputs, tree
from .errors import EndedError, LostError, SpawnError, UnreachableError
from .standby import Standby
from .state import (
    ExitStatus,
    RunPhase,
    RunState,
    ShimInfo,
    is_locked,
    read_owner,
    read_state,
    remove_secrets,
)

MARK_VARIABLE = "OSTLER_MARK"
# sun_path holds 108 bytes on Linux and 104 on macOS, with the terminating zero.
SOCKET_PATH_LIMIT_BYTES = 100
POLL_INTERVAL_S = 0.5
CONNECT_PATIENCE_S = 2.0
START_PATIENCE_S = 10.0
LOCK_PATIENCE_S = 2.0
OUTPUT_KEEP_LEAST_BYTES = 1 << 20
DISK_RETRY_FIRST_S = 1.0
DISK_RETRY_LAST_S = 5.0


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to start, and where its files go."""

    run_dir: Path
    argv: tuple[str, ...]  # a first element without "/" is looked for in the PATH of `env`
    cwd: Path  # absolute
    env: dict[str, str]  # the whole environment; OSTLER_MARK is added
    stdin: bytes | None = None  # write number 1; None: nothing is written, and the pipe stays open
    close_stdin: bool = False  # the next write (1 or 2) is the close
    merge_stderr: bool = False
    terminal: tuple[int, int] | None = None  # (rows, columns): a pseudo-terminal; its output is `stdout`
    time_limit_s: float = 0.0  # then it is ended, and exit.json says timed_out; 0: no limit
    # (bytes, files): output without end goes on in a new file after so many bytes; so many files are kept, at
    # least two, to be read with `outputs`. None: all of it is one file.
    output_limit: tuple[int, int] | None = None
    # Bytes of stdout and stderr that are kept: of what is longer the middle is dropped while the child goes
    # on. The first quarter stays, and the newest half at least; offsets stay what they are. 0: all is kept.
    output_keep: tuple[int, int] = (0, 0)
    lock_fds: tuple[
        int, ...
    ] = ()  # open file descriptions that the shim keeps open; the caller keeps its own
    mark: str  # unique to the run; letters, digits, "-" and "_"
    socket_dir: Path
    owner: dict[str, Any] = {}  # for owner.json: no secrets
    use_cgroup: bool = True  # False: do not even try
    standby: Standby | None = None  # begun before, it saves the time that a program takes to begin


class ShimStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of a run."""

    shim_pid: int
    child_pid: int
    written: int  # number of the last write to stdin that was done
    stdin_open: bool  # the child can still be written to
    stdin_waiting_bytes: int  # recorded, not yet read by the child
    stdout_bytes: int
    stderr_bytes: int
    idle_s: float  # since the last output, or the start; without the time the machine slept
    stalled_on_disk: bool
    ending: bool  # `end` was called, or the shim got SIGTERM
    ended: bool


class OutputState(msgspec.Struct, frozen=True, kw_only=True):
    """How much output there is. With ``ended`` it is all there will be, and exit.json is there."""

    stdout_bytes: int
    stderr_bytes: int
    ended: bool
    stalled_on_disk: bool


class NeverStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was ever executed for this directory."""

    run_dir: Path


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The run was started and its shim is gone. `end_survivors` takes ``mark`` and ``info.cgroup``."""

    run_dir: Path
    info: ShimInfo | None
    mark: str  # from owner.json; "" if that is missing


class StdinRecord(msgspec.Struct, frozen=True):
    """One write to the child's stdin; ``data`` None closed it."""

    number: int
    data: bytes | None


_kept_open: list[int] = []


def keep_open(descriptor: int) -> None:
    """From now on every shim has this open file description, too: the lease on the version that it runs
    from, which must stay on the disk for as long as the shim lives."""
    _kept_open.append(descriptor)


def shim_command() -> list[str]:
    """The command that runs the shim, without its arguments."""
    if getattr(sys, "frozen", False):
        name = "ostler-shim.exe" if sys.platform == "win32" else "ostler-shim"
        return [str(Path(sys.executable).with_name(name))]
    # The interpreter itself and not a venv's link to it: nothing of the venv is needed, and -S saves
    # reading it.
    python: str = getattr(sys, "_base_executable", None) or sys.executable
    name = "shim_windows.py" if sys.platform == "win32" else "shim.py"
    source = Path(__file__).with_name(name)
    if sys.platform == "win32":
        return [python, "-I", str(source)]
    return [python, "-I", "-S", _compiled(source) or str(source)]


def begin_standby(run_dir: Path) -> Standby | None:
    """Begins the program of a shim for a run that is about to be spawned; None where that is not to be had.

    Blocks for a millisecond or two. Raises OSError.
    """
    return None if sys.platform == "win32" else Standby(shim_command(), run_dir, _shim_environment())


async def spawn(spec: RunSpec) -> Shim:
    """Prepares the run directory, starts the shim, returns once the child is executed.

    If the directory shows that the run was started before, attaches to it instead (if it has ended since,
    then `Shim.wait` returns at once). When cancelled the start may still take place; ask again to find it.

    Raises:
        SpawnError: the child could not be executed, now or at the earlier start.
        LostError: it was started earlier and its shim has died.
        ValueError: the spec makes no sense (a null byte, a relative path, an "=" in a variable's name).
    """
    _check(spec)
    launch = _Launch(spec)
    try:
        line = await asyncio.to_thread(launch.run)
    except asyncio.CancelledError:
        launch.abandon()
        raise
    words = line.split(" ", 2)
    if words[0] == "error" and len(words) == 3:
        detail = str(spec.cwd) if words[2] == "chdir" else spec.argv[0] if words[2] == "exec" else words[2]
        raise SpawnError(spec.run_dir, int(words[1]), words[2].split(" ")[0], detail)
    found = await attach(spec.run_dir)
    if words[0] == "ready" and isinstance(found, Shim):
        return found
    if isinstance(found, Lost):
        raise LostError(spec.run_dir, found.info)
    if isinstance(found, NeverStarted):
        raise SpawnError(spec.run_dir, 0, "shim", line.strip() or "the shim ended without a word")
    state = await asyncio.to_thread(read_state, spec.run_dir)
    if words[0] != "ready" and isinstance(found, Shim):
        # Somebody else's start: wait until it is past the exec.
        with contextlib.suppress(EndedError, UnreachableError):
            await found.status()
        state = await asyncio.to_thread(read_state, spec.run_dir)
    if state.exit is not None and state.exit.reason == "spawn_failed":
        raise SpawnError(spec.run_dir, 0, "exec", state.exit.error)
    if isinstance(found, Shim):
        return found
    assert state.info is not None
    return Shim(spec.run_dir, state.info)


async def attach(run_dir: Path) -> Shim | ExitStatus | Lost | NeverStarted:
    """Finds a run again by its directory.

    For one that has ended, secrets that its shim did not get to remove are removed. For a lost one that is
    left to the caller (`remove_secrets`), who may need them.

    Raises OSError if the directory cannot be read.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_PATIENCE_S
    while True:
        state = read_state(run_dir)
        if state.phase is not RunPhase.ALIVE or state.info is not None or loop.time() > deadline:
            break
        await asyncio.sleep(0.005)  # it is about to start: milliseconds
    if state.exit is not None:
        remove_secrets(run_dir)
        return state.exit
    if state.phase is RunPhase.ALIVE and state.info is not None:
        return Shim(run_dir, state.info)
    if state.phase is RunPhase.NEVER_STARTED:
        return NeverStarted(run_dir=run_dir)
    return Lost(run_dir=run_dir, info=state.info, mark=str(read_owner(run_dir).get("mark", "")))


def read_stdin_record(run_dir: Path) -> list[StdinRecord]:
    """Everything that was written to the run's stdin. Raises OSError."""
    data = (run_dir / "stdin").read_bytes()
    records = []
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        number, size = data[at:end].split(b" ")
        at = end + 1
        if size == b"close":
            records.append(StdinRecord(int(number), None))
        else:
            records.append(StdinRecord(int(number), data[at : at + int(size)]))
            at += int(size)
    return records


class Shim:
    """One run, through its shim. Any number of these, in any number of processes, may look at the same run.

    Attributes:
        run_dir: the run directory; output is read from its files.
        info: who the shim and the child are.
    """

    def __init__(self, run_dir: Path, info: ShimInfo) -> None:
        self.run_dir = run_dir
        self.info = info
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def status(self) -> ShimStatus:
        """A moment of the run; of one that is over, what its files tell.

        Raises LostError, UnreachableError.
        """
        try:
            found = await self._call("status")
        except EndedError:
            return await asyncio.to_thread(self._final_status)
        return ShimStatus(
            shim_pid=int(found["pid"]),
            child_pid=int(found["child"]),
            written=int(found["written"]),
            stdin_open=found["stdin"] == "open",
            stdin_waiting_bytes=int(found["waiting"]),
            stdout_bytes=int(found["stdout"]),
            stderr_bytes=int(found["stderr"]),
            idle_s=int(found["idle_ms"]) / 1000,
            stalled_on_disk=found["stalled"] == "1",
            ending=found["ending"] == "1",
            ended=found["ended"] == "1",
        )

    async def watch(self, stdout_beyond: int, stderr_beyond: int) -> OutputState:
        """Returns when there is more output than that, or when the run has ended.

        All the output up to then comes in one answer: who reads slowly asks seldom. Raises LostError.
        """
        try:
            found = await self._call("watch", stdout_beyond, stderr_beyond)
        except EndedError:
            return self._sizes(ended=True)
        except UnreachableError:
            return await self._poll(stdout_beyond, stderr_beyond)
        return OutputState(
            stdout_bytes=int(found["stdout"]),
            stderr_bytes=int(found["stderr"]),
            ended=found["ended"] == "1",
            stalled_on_disk=found["stalled"] == "1",
        )

    async def write(self, number: int, data: bytes | None) -> None:
        """Does write ``number`` to the child's stdin (None closes it); returns when it is acknowledged.

        Acknowledged means recorded: the child gets it when it reads, whatever happens to this process. A
        number that was done before is acknowledged and not done again. On a full disk this waits and tries
        again.

        Raises:
            EndedError: the run is over.
            LostError: the shim is gone.
            UnreachableError: it cannot be told at present; try again with the same number.
            ValueError: ``number`` is not the one after the last, or stdin is closed already.
        """
        retry_s = DISK_RETRY_FIRST_S
        while True:
            if data is None:
                found = await self._call("close", number)
            else:
                found = await self._call("write", number, len(data), payload=data)
            code = found.get("err")
            if code is None:
                return
            if code == "ended":
                raise EndedError(self.run_dir, await self.wait())
            if code != "disk":
                raise ValueError(f"write {number} to the stdin of run {self.run_dir.name} is refused: {code}")
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 1.5, DISK_RETRY_LAST_S)

    async def signal(self, number: int) -> None:
        """Signals the child's process group. Of a run that is over or lost there is nobody to signal.

        Raises UnreachableError.
        """
        with contextlib.suppress(EndedError, LostError):
            await self._call("signal", number)

    async def end(self, grace_s: float) -> None:
        """Starts the ladder: SIGTERM to the process group, SIGKILL after ``grace_s``, the sweep of the tree.

        The shim does it all, whatever becomes of the daemon. Returns when it has begun; `wait` for its end.
        Can be called again with a shorter grace. Does nothing for a run that is over or lost.
        """
        try:
            await self._call("end", int(grace_s * 1000))
        except (EndedError, LostError):
            pass
        except UnreachableError:
            # SIGTERM to the shim means the ladder with its own grace of 10 s.
            tree.send(tree.Identity(self.info.pid, self.info.started), signal.SIGTERM)

    async def wait(self) -> ExitStatus:
        """Returns when the run is over and its shim has let go of its locks.

        Raises LostError if the shim dies without a record of the end.
        """
        try:
            await self._call("wait")
        except EndedError:
            pass
        except UnreachableError:
            await self._poll(sys.maxsize, sys.maxsize)
        delay_s = 0.002
        waited_s = 0.0
        while is_locked(self.run_dir / "lock") and waited_s < LOCK_PATIENCE_S:
            await asyncio.sleep(delay_s)
            waited_s += delay_s
            delay_s = min(delay_s * 2, 0.05)
        state = read_state(self.run_dir)
        if state.exit is None:
            raise LostError(self.run_dir, self.info)
        if sys.platform == "darwin":
            # There the shim can only end the process group.
            mark = str(read_owner(self.run_dir).get("mark", ""))
            await asyncio.to_thread(tree.end_survivors, mark, None)
        return state.exit

    async def close(self) -> None:
        """Lets go of the shim; the run goes on. Calls that still wait raise UnreachableError. Idempotent."""
        self._closed = True
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _call(self, command: str, *words: int, payload: bytes = b"") -> dict[str, str]:
        """Asks until there is an answer.

        Raises EndedError, LostError or UnreachableError when there can be none.
        """
        while True:
            link = await self._connected()
            try:
                return await link.ask(command, words, payload)
            except _LinkLostError:
                if self._closed:
                    raise UnreachableError(self.run_dir) from None

    async def _connected(self) -> _Link:
        if self._link is not None and not self._link.is_lost:
            return self._link
        async with self._connecting:
            if self._link is not None and not self._link.is_lost:
                return self._link
            self._link = None
            self._link = await self._connect()
            return self._link

    async def _connect(self) -> _Link:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_PATIENCE_S
        delay_s = 0.002
        asked = False
        while True:
            if self._closed:
                raise UnreachableError(self.run_dir)
            try:
                return await _open_link(self.info.socket)
            except OSError:
                self._raise_if_over()
            if loop.time() > deadline:
                raise UnreachableError(self.run_dir)
            # A shim that is just dying still holds its lock for a moment, hence not at the first failure.
            if not asked and delay_s > 0.01:
                asked = True
                tree.send(tree.Identity(self.info.pid, self.info.started), getattr(signal, "SIGHUP", 1))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 0.2)

    def _raise_if_over(self) -> RunState:
        state = read_state(self.run_dir)
        if state.exit is not None:
            raise EndedError(self.run_dir, state.exit)
        if state.phase is not RunPhase.ALIVE:
            raise LostError(self.run_dir, self.info)
        return state

    async def _poll(self, stdout_beyond: int, stderr_beyond: int) -> OutputState:
        while True:
            found = self._sizes()
            if found.ended or found.stdout_bytes > stdout_beyond or found.stderr_bytes > stderr_beyond:
                return found
            await asyncio.sleep(POLL_INTERVAL_S)

    def _sizes(self, ended: bool = False) -> OutputState:
        """From the files. Raises LostError."""
        if not ended:
            try:
                self._raise_if_over()
            except EndedError:
                ended = True
        return OutputState(
            stdout_bytes=outputs.size(self.run_dir, "stdout"),
            stderr_bytes=outputs.size(self.run_dir, "stderr"),
            ended=ended,
            stalled_on_disk=False,
        )

    def _final_status(self) -> ShimStatus:
        try:
            written = len(read_stdin_record(self.run_dir))
        except (OSError, ValueError):
            written = 0
        sizes = self._sizes(ended=True)
        return ShimStatus(
            shim_pid=self.info.pid,
            child_pid=self.info.child_pid,
            written=written,
            stdin_open=False,
            stdin_waiting_bytes=0,
            stdout_bytes=sizes.stdout_bytes,
            stderr_bytes=sizes.stderr_bytes,
            idle_s=0.0,
            stalled_on_disk=False,
            ending=False,
            ended=True,
        )


class _LinkLostError(Exception):
    """The connection to the shim ended before the answer came."""


class _Link(asyncio.Protocol):
    """One connection. A protocol and not a stream: it needs no task of its own to read answers."""

    def __init__(self) -> None:
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._last = 0
        self._open: dict[int, asyncio.Future[dict[str, str]]] = {}

    async def ask(self, command: str, words: Sequence[int], payload: bytes) -> dict[str, str]:
        """Sends one request and waits for its answer. Raises _LinkLostError."""
        if self.is_lost or self._transport is None:
            raise _LinkLostError
        self._last += 1
        request = self._last
        future: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._open[request] = future
        line = " ".join([str(request), command, *map(str, words)])
        self._transport.write(f"{line}\n".encode() + payload)
        try:
            return await future
        except asyncio.CancelledError:
            if command in ("watch", "wait") and not self.is_lost:
                self._transport.write(f"0 cancel {request}\n".encode())
            raise
        finally:
            self._open.pop(request, None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request, verdict, *rest = line.decode("ascii", "replace").split(" ")
            future = self._open.get(int(request))
            if future is not None and not future.done():
                if verdict == "err":
                    future.set_result({"err": rest[0] if rest else "unknown"})
                else:
                    future.set_result(dict(word.partition("=")[::2] for word in rest))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        for future in self._open.values():
            if not future.done():
                future.set_exception(_LinkLostError())


async def _open_link(path: str) -> _Link:
    loop: Any = asyncio.get_running_loop()
    if sys.platform == "win32":
        _, link = await loop.create_pipe_connection(_Link, path)
    else:
        _, link = await loop.create_unix_connection(_Link, path)
    assert isinstance(link, _Link)
    return link


class _Launch:
    """One start of a shim, in a thread. Owns copies of the lock descriptors until they are handed over."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        # Copied here and now: if the wait for the thread is cancelled, the caller may close its own.
        self._fds = [os.dup(fd) for fd in (*spec.lock_fds, *_kept_open)]
        self._turn = threading.Lock()
        self._taken = False

    def abandon(self) -> None:
        """If the thread has not begun, it never will."""
        with self._turn:
            if not self._taken:
                self._taken = True
                self._close_fds()

    def run(self) -> str:
        """Blocking. Gives the shim's first line. Raises SpawnError."""
        with self._turn:
            if self._taken:
                return ""
            self._taken = True
        try:
            return self._start()
        except OSError as e:
            detail = f"{e.strerror} ({e.filename})" if e.filename else str(e)
            raise SpawnError(self._spec.run_dir, e.errno or 0, "prepare", detail) from e
        finally:
            self._close_fds()

    def _start(self) -> str:
        spec = self._spec
        spec.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(spec.run_dir, 0o700)
        if read_state(spec.run_dir).phase not in (RunPhase.NEVER_STARTED, RunPhase.ALIVE):
            return "already"
        owner = msgspec.json.encode({**spec.owner, "mark": spec.mark})
        _write_private(spec.run_dir / "owner.json", owner)
        # A name of its own: of several starts at once only the one that gets the lock makes it the spec.
        name = f"spec.{secrets.token_hex(8)}"
        path = spec.run_dir / name
        try:
            _write_private(path, encode_spec(spec, _socket_path(spec.socket_dir)))
            line = None
            if spec.standby is not None and spec.standby.run_dir == spec.run_dir:
                line = spec.standby.start(name, self._fds)
            if line or (line is not None and not path.exists()):
                return line.decode("utf-8", "replace").strip()
            return self._run_shim([*shim_command(), str(spec.run_dir), name])
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def _run_shim(self, command: list[str]) -> str:
        options: dict[str, Any] = {"pass_fds": self._fds}
        if sys.platform == "win32":
            flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_BREAKAWAY_FROM_JOB
            options = {"creationflags": flags}
        else:
            command = [*command, *map(str, self._fds)]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._spec.run_dir.anchor,
            env=_shim_environment(),
            **options,
        ) as process:
            assert process.stdout is not None
            line: bytes = process.stdout.readline()
            if sys.platform == "win32":
                process.returncode = 0  # it is the shim itself and goes on
            return line.decode("utf-8", "replace").strip()

    def _close_fds(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def _shim_environment() -> dict[str, str]:
    """Not the daemon's own: the shim must not carry the mark of a run that started this daemon."""
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
    return {key: os.environ[key] for key in kept if key in os.environ}


def encode_spec(spec: RunSpec, socket: str) -> bytes:
    """The ``spec`` file: fields ``KEY LENGTH`` newline, LENGTH bytes, newline. Its reader is the shim."""
    fields = [("arg", os.fsencode(arg)) for arg in spec.argv]
    env = {**spec.env, MARK_VARIABLE: spec.mark}
    fields += [("env", os.fsencode(f"{key}={value}")) for key, value in env.items()]
    fields += [
        ("cwd", os.fsencode(spec.cwd)),
        ("mark", spec.mark.encode()),
        ("socket", os.fsencode(socket)),
        ("close_stdin", b"1" if spec.close_stdin else b"0"),
        ("merge_stderr", b"1" if spec.merge_stderr else b"0"),
        ("use_cgroup", b"1" if spec.use_cgroup else b"0"),
    ]
    if spec.terminal is not None:
        fields.append(("terminal", b"%d %d" % spec.terminal))
    if spec.time_limit_s > 0:
        fields.append(("limit_ms", b"%d" % max(1, round(spec.time_limit_s * 1000))))
    if spec.output_limit is not None:
        fields.append(("output_limit", b"%d %d" % spec.output_limit))
    if any(spec.output_keep):
        fields.append(("output_keep", b"%d %d" % spec.output_keep))
    if spec.stdin is not None:
        fields.append(("stdin", spec.stdin))
    return b"".join(b"%s %d\n%s\n" % (key.encode(), len(value), value) for key, value in fields)


def _check(spec: RunSpec) -> None:
    if not spec.argv or not spec.argv[0]:
        raise ValueError("argv is empty")
    if not spec.cwd.is_absolute() or not spec.run_dir.is_absolute():
        raise ValueError("cwd and run_dir must be absolute")
    if not spec.mark or not spec.mark.replace("-", "").replace("_", "").isalnum() or not spec.mark.isascii():
        raise ValueError(f"a mark has letters, digits, - and _ only: {spec.mark!r}")
    if any(not key or "=" in key for key in spec.env):
        raise ValueError("a variable of the environment has no name or an = in it")
    if spec.terminal is not None and not all(0 < number < 1 << 16 for number in spec.terminal):
        raise ValueError(f"a terminal has 1 to 65535 rows and columns: {spec.terminal!r}")
    if spec.output_limit is not None and (spec.output_limit[0] < 1 or spec.output_limit[1] < 2):
        raise ValueError(f"output goes into at least two files of at least one byte: {spec.output_limit!r}")
    if spec.output_limit is not None and any(spec.output_keep):
        raise ValueError("output is kept in further files or without its middle, not both")
    if any(0 != size < OUTPUT_KEEP_LEAST_BYTES for size in spec.output_keep):
        raise ValueError(
            f"at least {OUTPUT_KEEP_LEAST_BYTES} bytes of an output are kept: {spec.output_keep!r}"
        )
    texts = [*spec.argv, str(spec.cwd), *spec.env, *spec.env.values()]
    if any("\0" in text for text in texts):
        raise ValueError("an argument or a variable contains a null byte")


def _socket_path(socket_dir: Path) -> str:
    """A fresh path for a socket, short enough. Raises OSError, also if the fallback is not ours alone."""
    name = f"{secrets.token_hex(6)}.sock"
    if sys.platform == "win32":
        return rf"\\.\pipe\ostler-{name}"
    socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = socket_dir / name
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES:
        return str(path)
    private = Path(tempfile.gettempdir()) / f"ostler-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(1, "belongs to somebody else, or is open to others", str(private))
    return str(private / name)


def _write_private(path: Path, data: bytes) -> None:
    """Writes a 0600 file that appears in one piece. Raises OSError."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _compiled(source: Path) -> str | None:
    """The byte code of ``source``, made if need be: it saves the shim the compiling. None if impossible."""
    try:
        cached = Path(importlib.util.cache_from_source(str(source)))
        if not _is_current(cached, source):
            import py_compile

            py_compile.compile(str(source), doraise=True)
        return str(cached) if _is_current(cached, source) else None
    except Exception:  # noqa: BLE001 - only a shortcut
        return None


def _is_current(cached: Path, source: Path) -> bool:
    """Whether ``cached`` is what the import system would take for ``source`` (PEP 552, by time and size)."""
    try:
        with cached.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    found = source.stat()
    expected = struct.pack("<II", int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    return head == importlib.util.MAGIC_NUMBER + bytes(4) + expected
