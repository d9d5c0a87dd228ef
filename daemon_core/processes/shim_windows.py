"""The shim for Windows: the same run directory and the same protocol as shim.py. **Written, not yet tried.**

Run as ``python -I shim_windows.py RUN_DIR SPEC_NAME``. What differs, and why:

- The socket is a named pipe. asyncio's proactor serves it: a pipe read and written at the same time needs
  overlapped I/O, and nothing smaller in the standard library has that. It costs memory that the POSIX shim
  does not need.
- A **job object** does what process groups, sub-reaper, cgroup and parent-death signal do elsewhere. The
  shim is a member, so whatever the child starts is one too; when the shim dies, the system ends all the
  others. The sweep ends every member but the shim.
- There are no signals. ``signal`` is refused. The ladder closes the child's stdin, waits for the grace, and
  ends the job's members.
- The lock is a byte-range lock, which the system takes back when the process dies, a little later than on
  POSIX.
- Output that is kept up to a size loses its middle as there; where the file system makes no holes (all but
  NTFS and ReFS) it is kept whole.
- Not available: handing over open directory locks (a handle would have to be duplicated into the shim; the
  client passes none), and room reserved for output on a full disk (``exit.json`` has its room).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import msvcrt
import os
import queue
import subprocess
import sys
import threading
import time
from ctypes import wintypes
from datetime import UTC, datetime
from pathlib import Path

assert sys.platform == "win32"

VERSION = 1
CHUNK_BYTES = 65536
EXIT_RESERVE_BYTES = 4096
SWEEP_LIMIT_S = 10.0
RETRY_FIRST_S = 1.0
RETRY_LAST_S = 5.0
BLANKED_LEAST_BYTES = 8
WRITE_LIMIT_BYTES = 256 * 1024 * 1024

JOB_BASIC_PROCESS_ID_LIST = 3
JOB_EXTENDED_LIMITS = 9
JOB_KILL_ON_CLOSE = 0x2000
JOB_BREAKAWAY_OK = 0x0800  # for the shims of jobs that a run asks for
FSCTL_SET_SPARSE = 0x000900C4
FSCTL_SET_ZERO_DATA = 0x000980C8
HOLE_UNIT_BYTES = 65536
PROCESS_TERMINATE_AND_QUERY = 0x0001 | 0x1000
MEMBERS_LIMIT = 4096

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.CreateJobObjectW.restype = wintypes.HANDLE
kernel32.OpenProcess.restype = wintypes.HANDLE
kernel32.GetCurrentProcess.restype = wintypes.HANDLE


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION; only ``flags`` is used."""

    _fields_ = [
        ("process_time", ctypes.c_int64),
        ("job_time", ctypes.c_int64),
        ("flags", wintypes.DWORD),
        ("min_working_set", ctypes.c_size_t),
        ("max_working_set", ctypes.c_size_t),
        ("active_limit", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority", wintypes.DWORD),
        ("scheduling", wintypes.DWORD),
        ("io", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    ]


class _Members(ctypes.Structure):
    """JOBOBJECT_BASIC_PROCESS_ID_LIST."""

    _fields_ = [
        ("assigned", wintypes.DWORD),
        ("listed", wintypes.DWORD),
        ("pids", ctypes.c_size_t * MEMBERS_LIMIT),
    ]


class Job:
    """The job object that this process and everything below it is in."""

    def __init__(self) -> None:
        self.handle = wintypes.HANDLE(kernel32.CreateJobObjectW(None, None))
        limits = _Limits(flags=JOB_KILL_ON_CLOSE | JOB_BREAKAWAY_OK)
        size = ctypes.sizeof(limits)
        me = wintypes.HANDLE(kernel32.GetCurrentProcess())
        if not (
            self.handle.value
            and kernel32.SetInformationJobObject(self.handle, JOB_EXTENDED_LIMITS, ctypes.byref(limits), size)
            and kernel32.AssignProcessToJobObject(self.handle, me)
        ):
            raise ctypes.WinError(ctypes.get_last_error())

    def end_others(self) -> int:
        """Ends every member but this process; looks again until there is none. Gives how many were ended."""
        ended: set[int] = set()
        deadline = time.monotonic() + SWEEP_LIMIT_S
        while time.monotonic() < deadline:
            members = _Members()
            kernel32.QueryInformationJobObject(
                self.handle, JOB_BASIC_PROCESS_ID_LIST, ctypes.byref(members), ctypes.sizeof(members), None
            )
            pids = [pid for pid in members.pids[: members.listed] if pid != os.getpid()]
            if not pids:
                break
            for pid in pids:
                process = wintypes.HANDLE(kernel32.OpenProcess(PROCESS_TERMINATE_AND_QUERY, False, pid))
                if process.value:
                    # Asked through the handle: between listing and opening the pid
                    # may have become somebody else's.
                    is_member = wintypes.BOOL()
                    kernel32.IsProcessInJob(process, self.handle, ctypes.byref(is_member))
                    if is_member.value and kernel32.TerminateProcess(process, 1):
                        ended.add(pid)
                    kernel32.CloseHandle(process)
            time.sleep(0.005)
        return len(ended)


def punch(file: int, start: int, end: int) -> bool:
    """Gives the blocks of a stretch of a file back; its length stays. False where that cannot be had."""
    handle = wintypes.HANDLE(msvcrt.get_osfhandle(file))
    done = wintypes.DWORD()
    stretch = (ctypes.c_int64 * 2)(start, end)  # FILE_ZERO_DATA_INFORMATION
    return bool(
        kernel32.DeviceIoControl(handle, FSCTL_SET_SPARSE, None, 0, None, 0, ctypes.byref(done), None)
        and kernel32.DeviceIoControl(
            handle,
            FSCTL_SET_ZERO_DATA,
            ctypes.byref(stretch),
            ctypes.sizeof(stretch),
            None,
            0,
            ctypes.byref(done),
            None,
        )
    )


def started_at() -> int:
    """Microseconds since 1970, as psutil gives them, approximately."""
    return int(time.time() * 1e6)


class Run:
    """The state of one run. Everything but the relays and the feeder happens in the event loop."""

    def __init__(
        self, run_dir: Path, fields: list[tuple[str, bytes]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.dir = run_dir
        self.loop = loop
        one = dict(fields)
        self.argv = [value.decode() for key, value in fields if key == "arg"]
        self.env = dict(value.decode().split("=", 1) for key, value in fields if key == "env")
        self.cwd = one["cwd"].decode()
        self.socket = one["socket"].decode()
        self.merge = one.get("merge_stderr") == b"1"
        self.first = one.get("stdin")
        self.close_first = one.get("close_stdin") == b"1"
        out, err = (int(size) for size in one.get("output_keep", b"0 0").split())
        self.keep = {"stdout": out, "stderr": err}
        self.job = Job()
        self.sizes = {"stdout": 0, "stderr": 0}
        self.stalled = False
        self.last_output = time.monotonic()
        self.record = (run_dir / "stdin").open("wb", buffering=0)
        self.written = 0
        self.closed = False
        self.input: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.ending = False
        self.over = asyncio.Event()
        self.watches: list[tuple[Client, str, int, int]] = []
        self.waits: list[tuple[Client, str]] = []
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the child. Raises OSError."""
        (self.dir / "exit.json.reserve").write_bytes(bytes(EXIT_RESERVE_BYTES))
        # Before the child: a shim that dies between the two leaves a lost run behind, never one
        # to start twice.
        self.write_info(0)
        self.child = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if self.merge else subprocess.PIPE,
            cwd=self.cwd,
            env=self.env,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW,
        )
        self.write_info(self.child.pid)
        for name, pipe in (("stdout", self.child.stdout), ("stderr", self.child.stderr)):
            file = os.open(self.dir / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_BINARY)
            if pipe is not None:
                threading.Thread(target=self.relay, args=(name, pipe.fileno(), file), daemon=True).start()
        threading.Thread(target=self.feed, daemon=True).start()
        threading.Thread(target=self.await_exit, daemon=True).start()
        if self.first is not None:
            self.say(1, self.first)
        if self.close_first:
            self.say(self.written + 1, None)

    def write_info(self, child: int) -> None:
        info = {
            "pid": os.getpid(),
            "started": started_at(),
            "boot_id": "",
            "child_pid": child,
            "child_started": started_at(),
            "socket": self.socket,
            "cgroup": None,
            "version": VERSION,
        }
        (self.dir / "shim.json.new").write_text(json.dumps(info), "utf-8")
        os.replace(self.dir / "shim.json.new", self.dir / "shim.json")

    def relay(self, name: str, pipe: int, file: int) -> None:
        """Thread: pipe to file. A disk that takes nothing stops the reading, so the child waits."""
        drop_at = self.keep[name] or sys.maxsize
        while data := os.read(pipe, CHUNK_BYTES):
            self.last_output = time.monotonic()
            pause_s = RETRY_FIRST_S
            while data:
                try:
                    done = os.write(file, data)
                except OSError:
                    self.stalled = True
                    time.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, RETRY_LAST_S)
                    continue
                self.stalled = False
                self.sizes[name] += done
                data = data[done:]
            if self.sizes[name] >= drop_at:
                drop_at = self.drop_middle(name, file)
            self.loop.call_soon_threadsafe(self.answer_watches)

    def drop_middle(self, name: str, file: int) -> int:
        """Of an output that has reached its limit a quarter at the beginning stays, and half of the limit at
        the end; recorded first. Gives the size at which that is done again."""
        size, quarter = self.sizes[name], self.keep[name] // 4
        start = quarter + -quarter % HOLE_UNIT_BYTES
        end = (size - 2 * quarter) // HOLE_UNIT_BYTES * HOLE_UNIT_BYTES
        record = self.dir / f"{name}.gap"
        new = self.dir / f"{name}.gap.new"
        try:
            known = record.exists()
            new.write_text(f"{start} {end}\n", "ascii")
            os.replace(new, record)
        except OSError:
            return size + quarter  # a full disk: tried again after the next quarter
        if not punch(file, start, end) and not known:
            record.unlink(missing_ok=True)
            return sys.maxsize
        return size + quarter

    def feed(self) -> None:
        """Thread: what was said, to the child, as far as it reads."""
        assert self.child is not None
        assert self.child.stdin is not None
        try:
            while (data := self.input.get()) is not None:
                self.child.stdin.write(data)
                self.child.stdin.flush()
            self.child.stdin.close()
        except OSError:
            pass  # the child has closed its end; later writes go nowhere

    def await_exit(self) -> None:
        """Thread: waits for the child, sweeps, lets the relays come to their end, records."""
        assert self.child is not None
        code = self.child.wait()
        swept = self.job.end_others()
        # With every holder of the pipes gone the relays see the end; one on a full disk keeps them waiting.
        for thread in threading.enumerate():
            if getattr(thread, "_target", None) == self.relay:
                thread.join()
        self.input.put(None)
        self.write_exit(code, "killed" if self.ending else "exited", "", swept)
        self.loop.call_soon_threadsafe(self.finish)

    def write_exit(self, code: int | None, reason: str, error: str, swept: int) -> None:
        status = {
            "code": code,
            "signal": None,
            "ended_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "reason": reason,
            "error": error[:1000],
            "swept": swept,
        }
        reserve = self.dir / "exit.json.reserve"
        pause_s = 0.05
        while True:
            try:
                with reserve.open("r+b") as file:
                    file.write(json.dumps(status).encode())
                    file.truncate()
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(reserve, self.dir / "exit.json")
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_LAST_S)
        self.blank_in_record()
        for path in [self.dir / "claim.json", self.dir / "spec", *self.dir.glob("spec.*")]:
            path.unlink(missing_ok=True)

    def blank_in_record(self) -> None:
        """Takes the content of files of secrets, as far as it was said to the child, out of ``stdin``."""
        said = (self.dir / "stdin").read_bytes()
        hidden = said
        for path in self.dir.glob("spec.*"):
            secret = path.read_bytes()
            if len(secret) >= BLANKED_LEAST_BYTES:
                hidden = hidden.replace(secret, b"*" * len(secret))
        if hidden != said:
            with open(self.dir / "stdin", "r+b") as stream:
                stream.write(hidden)

    def finish(self) -> None:
        self.over.set()
        self.answer_watches()
        for client, request in self.waits:
            client.answer(request, "ok " + self.size_text())

    def say(self, number: int, data: bytes | None) -> str:
        """Does write ``number`` unless it is done already. Gives 'ok' or the code of an error."""
        if number <= self.written:
            return "ok"
        if self.closed:
            return "closed"
        if number != self.written + 1:
            return "gap"
        size = self.record.tell()
        try:
            record = b"%d close\n" % number if data is None else b"%d %d\n%s" % (number, len(data), data)
            while record:
                record = record[self.record.write(record) :]
        except OSError:
            self.record.truncate(size)
            self.record.seek(size)
            return "disk"
        self.written = number
        self.closed = data is None
        self.input.put(data)
        return "ok"

    def end(self, grace_s: float) -> None:
        if not self.ending:
            self.ending = True
            self.input.put(None)
        self.loop.call_later(grace_s, self.job.end_others)

    def size_text(self) -> str:
        out, err = self.sizes["stdout"], self.sizes["stderr"]
        return f"stdout={out} stderr={err} stalled={int(self.stalled)} ended={int(self.over.is_set())}"

    def status(self) -> str:
        assert self.child is not None
        idle_ms = int((time.monotonic() - self.last_output) * 1000)
        return (
            f"version={VERSION} pid={os.getpid()} child={self.child.pid} written={self.written} "
            f"stdin={'closed' if self.closed else 'open'} waiting=0 idle_ms={idle_ms} "
            f"ending={int(self.ending)} {self.size_text()}"
        )

    def answer_watches(self) -> None:
        out, err = self.sizes["stdout"], self.sizes["stderr"]
        due = [w for w in self.watches if self.over.is_set() or out > w[2] or err > w[3]]
        self.watches = [w for w in self.watches if w not in due]
        for client, request, _, _ in due:
            client.answer(request, "ok " + self.size_text())


class Client(asyncio.Protocol):
    """One connection. The pipe's default security lets only this user, and administrators, write to it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.run.watches = [w for w in self.run.watches if w[0] is not self]
        self.run.waits = [w for w in self.run.waits if w[0] is not self]

    def answer(self, request: str, text: str) -> None:
        if self.transport is not None:
            self.transport.write(f"{request} {text}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        try:
            while b"\n" in self.buffer:
                line, _, rest = self.buffer.partition(b"\n")
                words = line.decode("ascii").split(" ")
                payload: bytes | None = None
                if words[1] == "write":
                    size = int(words[3])
                    if not 0 <= size <= WRITE_LIMIT_BYTES:
                        raise ValueError
                    if len(rest) < size:
                        return
                    payload, rest = rest[:size], rest[size:]
                self.buffer = rest
                self.command(words, payload)
        except (ValueError, IndexError):
            if self.transport is not None:
                self.transport.abort()

    def command(self, words: list[str], payload: bytes | None) -> None:
        request, name = words[0], words[1]
        run = self.run
        if name == "status":
            self.answer(request, "ok " + run.status())
        elif name == "watch":
            run.watches.append((self, request, int(words[2]), int(words[3])))
            run.answer_watches()
        elif name == "wait":
            run.waits.append((self, request))
        elif name == "cancel":
            run.watches = [w for w in run.watches if w[0] is not self or w[1] != words[2]]
            run.waits = [w for w in run.waits if w[0] is not self or w[1] != words[2]]
        elif name in ("write", "close"):
            code = run.say(int(words[2]), payload)
            self.answer(request, "ok" if code == "ok" else f"err {code}")
        elif name == "end":
            run.end(int(words[2]) / 1000)
            self.answer(request, "ok")
        else:
            self.answer(request, "err unknown")


def parse(data: bytes) -> list[tuple[str, bytes]]:
    """The fields of a spec: ``KEY LENGTH`` newline, LENGTH bytes, newline."""
    fields = []
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        key, size = data[at:end].split(b" ")
        fields.append((key.decode(), data[end + 1 : end + 1 + int(size)]))
        at = end + int(size) + 2
    return fields


async def serve(run_dir: Path, spec_name: str, lock: int) -> None:
    """From the lock to the end of the run."""
    loop = asyncio.get_running_loop()
    os.replace(run_dir / spec_name, run_dir / "spec")
    run = Run(run_dir, parse((run_dir / "spec").read_bytes()), loop)
    servers = await loop.start_serving_pipe(lambda: Client(run), run.socket)  # type: ignore[attr-defined]
    try:
        run.start()
    except OSError as e:
        run.write_exit(None, "spawn_failed", str(e), 0)
        tell(f"error {e.errno or 22} {'chdir' if e.winerror == 267 else 'exec'}")
        return
    tell("ready")
    await run.over.wait()
    msvcrt.locking(lock, msvcrt.LK_UNLCK, 1)
    await asyncio.sleep(0.2)  # for the answers to be read: a pipe drops what its reader has not taken
    for server in servers:
        server.close()


def tell(line: str) -> None:
    """The one line for whoever started this program, then the end of that pipe."""
    os.write(1, f"{line}\n".encode())
    null = os.open("nul", os.O_RDWR)
    os.dup2(null, 1)


def main(argv: list[str]) -> None:
    run_dir = Path(argv[1])
    lock = os.open(run_dir / "lock", os.O_RDWR | os.O_CREAT)
    held = False
    for _ in range(200):
        if (run_dir / "shim.json").exists() or (run_dir / "exit.json").exists():
            break
        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
            held = True
            break
        except OSError:
            time.sleep(0.02)
    if not held or (run_dir / "shim.json").exists() or (run_dir / "exit.json").exists():
        (run_dir / argv[2]).unlink(missing_ok=True)
        tell("already")
        return
    try:
        asyncio.run(serve(run_dir, argv[2], lock))
    except OSError as e:
        tell(f"error {e.errno or 22} prepare {e}")


if __name__ == "__main__":
    main(sys.argv)
