"""The shim: the small process between the daemon and one child, which outlives the daemon.

Run as ``python -I -S shim.py RUN_DIR SPEC_NAME [FD ...]``, or as ``shim.py RUN_DIR --standby`` with a socket
as standard input, over which the rest comes later (`stand_by`); it knows nothing of the rest of the project.
Ten of them must cost next to nothing, so it imports only modules that are written in C, and is one file
although it is long: a second one would have to be found, read and kept in step (measured as five files, a
start takes a tenth more processor time and each shim 20 KiB more). Rules it keeps:

1. **Started at most once.** It holds the flock on ``lock`` for as long as it lives and refuses a directory
   with a ``shim.json`` or an ``exit.json``. ``shim.json`` is on disk before the child may exec: a shim that
   dies between the two leaves a lost run behind, never one that could be started a second time.
2. **The child's output is in files**, byte for byte, in order. When a file cannot be appended to (full
   disk, quota, I/O error) the pipe is not read, so the child waits; appending is tried again every 1 to 5
   s.
3. **Every write to stdin has a number** and is done once: number ``n`` up to the last one done is
   acknowledged and not done again, ``last + 1`` is recorded in ``stdin``, acknowledged, then forwarded from
   that file.
4. **When the child has exited, its tree is ended**: process group, cgroup, descendants (this process is
   their sub-reaper), and whatever carries the mark in its environment. A signal only goes to a process
   whose start time has been compared after a pidfd was opened.
5. **exit.json comes after that**, whether or not the pipes are at their end: a process that escaped with a
   copy of stdout delays nothing. Its blocks are written at the start, so it fits on a full disk.
6. **No timer runs while nothing happens.** The only timeouts are those of the ladder (`end`), of a full
   disk, and the child's time limit, if it has one.
7. **A child with a terminal** has a pseudo-terminal as all three of its standard streams, and its output is
   one file. The time limit is kept here, so that it holds while no daemon lives.
8. **Output that may be without end** (``output_limit`` in the spec) goes on in a new file when the present
   one is full: that is renamed to ``stdout.START``, START being the offset of its first byte in the whole
   output, and the oldest are removed. Sizes and offsets on the socket are always those of the whole output.
9. **Output that is kept up to a size** (``output_keep``) loses its middle when it gets there: the blocks are
   given back, the file's length stays, and ``stdout.gap`` says from where to where ("START END") before it
   happens. Where no hole can be made it goes on in further files as above, and the first one stays.

Protocol on the socket: requests are lines ``ID COMMAND [ARG ...]``, answers ``ID ok [KEY=VALUE ...]`` or
``ID err CODE``, in any order. Commands: ``status``; ``watch OUT ERR`` (answered once stdout is longer than
OUT, stderr longer than ERR, or the run has ended); ``write N LENGTH`` followed by LENGTH bytes; ``close
N``; ``signal NUMBER`` (to the child's process group); ``end GRACE_MS``; ``wait`` (answered when exit.json
is there and the locks are free); ``cancel ID`` (forget a watch or wait; no answer). Daemons of other
versions speak it too: only ever add to it.

Records in ``stdin``: a line ``NUMBER LENGTH``, then LENGTH bytes; or a line ``NUMBER close``.

What is not available on macOS, where there is no /proc, sub-reaper, parent-death signal or cgroup: the shim
ends the process group only, and the client sweeps the rest by the mark when it learns of the end. Not tried
there.
"""

import _signal  # type: ignore[import-not-found]  # `signal` would import enum, types and more
import _socket
import _thread
import errno
import fcntl
import posix
import select
import sys
import time

VERSION = 1
LINUX = sys.platform == "linux"
CHUNK_BYTES = 65536
BLANKED_LEAST_BYTES = 8  # nothing shorter is a secret, and it may be anywhere
LINE_LIMIT_BYTES = 512
WRITE_LIMIT_BYTES = 256 * 1024 * 1024
EXIT_RESERVE_BYTES = 4096
# What can be on its way when the disk is full: two pipes of 64 KiB and a chunk of each.
OUTPUT_RESERVE_BYTES = 4 * CHUNK_BYTES
TERM_GRACE_S = 10.0
SWEEP_LIMIT_S = 10.0
# After a requested end, output that still does not fit on the disk is given up, with a note in exit.json.
LAST_OUTPUT_LIMIT_S = 30.0
RETRY_FIRST_S = 1.0
RETRY_LAST_S = 5.0

SIGKILL, SIGTERM, SIGCONT, SIGHUP, SIGCHLD = (
    _signal.SIGKILL,
    _signal.SIGTERM,
    _signal.SIGCONT,
    _signal.SIGHUP,
    _signal.SIGCHLD,
)
IGNORED_SIGNALS = (
    *("SIGINT", "SIGQUIT", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGXFSZ"),
    *("SIGTSTP", "SIGTTIN", "SIGTTOU"),
)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SYS_CLONE3 = 435  # the same on every architecture; Linux 5.7 for the flag
CLONE_INTO_CGROUP = 0x200000000
# The module termios would cost memory for two numbers.
TIOCSCTTY = 0x540E if LINUX else 0x20007461
TIOCSWINSZ = 0x5414 if LINUX else 0x80087467
PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE
F_PUNCHHOLE = 99  # macOS
HOLE_UNIT_BYTES = 65536  # no file system's blocks are larger
NO_LIMIT = 1 << 62


class RefusedError(Exception):
    """The start is refused; the argument is the line for the one who asked."""


def json_text(value: object) -> str:
    """``value`` as JSON. Takes None, booleans, integers, text, and flat dictionaries of these."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(json_text(str(k)) + ": " + json_text(v) for k, v in value.items()) + "}"
    out = []
    for char in str(value):
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= code < 127:
            out.append(char)
        elif code < 0x10000:
            # A lone surrogate (a byte that is not UTF-8) is not valid in JSON text.
            out.append(f"\\u{0xFFFD if 0xD800 <= code < 0xE000 else code:04x}")
        else:
            code -= 0x10000
            out.append(f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}")
    return '"' + "".join(out) + '"'


def read_file(path: str | bytes) -> bytes:
    """The whole of a file. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while True:
            part = posix.read(fd, CHUNK_BYTES)
            if not part:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            parts.append(part)
    finally:
        posix.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of ``data`` to a blocking descriptor. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def write_atomically(name: str, text: str) -> None:
    """Makes ``name`` in the run directory appear with all of its content, or not at all. Not yet synced."""
    fd = posix.open(name + ".new", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        write_all(fd, text.encode())
    finally:
        posix.close(fd)
    posix.rename(name + ".new", name)


def sync(name: str) -> None:
    """Forces a file or directory to disk, as far as the file system can."""
    try:
        fd = posix.open(name, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        posix.fsync(fd)
    except OSError:
        pass
    finally:
        posix.close(fd)


def sync_later(*names: str) -> None:
    """`sync` in a thread: neither the start nor the output waits for a busy disk.

    A power cut meanwhile can lose what was written.
    """
    fds = [posix.open(name, posix.O_RDONLY | posix.O_CLOEXEC) for name in names]

    def work() -> None:
        for fd in fds:
            try:
                posix.fsync(fd)
            except OSError:
                pass
            posix.close(fd)

    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:  # a limit on threads: so be it
        work()


def remove(name: str | bytes) -> None:
    try:
        posix.unlink(name)
    except OSError:
        pass


def exists(name: str | bytes) -> bool:
    try:
        posix.stat(name)
    except OSError:
        return False
    return True


def call_c(name: str, *arguments: object) -> int:
    """Calls a function of the C library, through the C half of ctypes alone. -1 where that cannot be had."""
    if not LINUX:
        return -1
    try:
        import _ctypes

        program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
        return int(_ctypes.call_function(_ctypes.dlsym(program, name), arguments))
    except Exception:  # noqa: BLE001 - whatever is missing, the shim works without
        return -1


def prctl(option: int, value: int) -> bool:
    """prctl(2); False if it is not done."""
    return call_c("prctl", option, value, 0, 0, 0) == 0


def punch(fd: int, start: int, length: int) -> bool:
    """Gives the blocks of a stretch of a file back; its length stays. False where that cannot be had."""
    if LINUX:
        try:
            import _ctypes

            # As an argument a Python integer would be cut down to 32 bits.
            wide = type("wide", (_ctypes._SimpleCData,), {"_type_": "q"})
        except Exception:  # noqa: BLE001 - as in call_c
            return False
        # The offsets have 64 bits on 64-bit systems alone.
        wanted = sys.maxsize > 1 << 32
        return wanted and call_c("fallocate", fd, PUNCH_HOLE_KEEP_SIZE, wide(start), wide(length)) == 0
    # struct fpunchhole: flags, reserved, offset, length.
    block = bytes(8) + start.to_bytes(8, sys.byteorder) + length.to_bytes(8, sys.byteorder)
    try:
        fcntl.fcntl(fd, F_PUNCHHOLE, block)
    except OSError:
        return False
    return True


def fork_into(cgroup: str) -> int:
    """fork(2) with the child in ``cgroup`` from its first moment; -1 if that cannot be had.

    Moving a process makes the kernel wait for all processors, some 10 ms; being born there costs nothing. As
    only one thread exists, Python needs none of what posix.fork does besides.
    """
    try:
        fd = posix.open(cgroup, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return -1
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup.
    fields = (CLONE_INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, fd)
    block = b"".join(int(field).to_bytes(8, sys.byteorder) for field in fields)
    pid = call_c("syscall", SYS_CLONE3, block, len(block))
    posix.close(fd)
    return pid


def stat_of(pid: int | str) -> tuple[bytes, int, int] | None:
    """(state, parent pid, start time in clock ticks since boot) of a process, or None."""
    try:
        # The name, in parentheses, may itself contain spaces and parentheses.
        fields = read_file(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
        return fields[0], int(fields[1]), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def start_of(pid: int | str) -> int:
    """The start time that identifies a process: clock ticks since boot; elsewhere microseconds since 1970."""
    found = stat_of(pid) if LINUX else None
    return found[2] if found else (0 if LINUX else int(time.time() * 1e6))


def signal_identified(pid: int, started: int, number: int) -> bool:
    """Signals process ``pid`` if it is still the one that started at ``started``. Linux only."""
    try:
        handle = posix.pidfd_open(pid, 0)
    except OSError as e:
        if e.errno not in (errno.ENOSYS, errno.EMFILE, errno.EPERM):
            return False
        handle = -1
    try:
        found = stat_of(pid)
        if found is None or found[2] != started:
            return False
        if handle >= 0:
            _signal.pidfd_send_signal(handle, number)
        else:
            posix.kill(pid, number)
        return True
    except OSError:
        return False
    finally:
        if handle >= 0:
            posix.close(handle)


def own_cgroup() -> str:
    """The directory of the cgroup (version 2) that this process is in, or ''."""
    try:
        path = ""
        for line in read_file("/proc/self/cgroup").decode().splitlines():
            if line.startswith("0::/"):
                path = line[3:]
        for line in read_file("/proc/self/mountinfo").decode().splitlines():
            if path and " - cgroup2 " in line:
                root, point = line.split(" ")[3:5]
                root = "" if root == "/" else root
                if "\\" not in point and (path + "/").startswith(root + "/"):
                    return (point + path[len(root) :]).rstrip("/")
    except (OSError, ValueError):
        pass
    return ""


def make_cgroup(mark: bytes) -> str:
    """Makes a cgroup for the child below this process's own, or gives '' where that is not allowed."""
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in mark.decode("ascii", "replace"))
    base = own_cgroup() if LINUX and name else ""
    if not base:
        return ""
    path = f"{base}/ostler-{name[:64]}"
    try:
        try:
            posix.mkdir(path, 0o755)
        except FileExistsError:
            pass  # left by an attempt that died before its child was started
        posix.close(posix.open(path + "/cgroup.procs", posix.O_WRONLY | posix.O_CLOEXEC))
    except OSError:
        remove_cgroup(path)
        return ""
    return path


def remove_cgroup(path: str) -> None:
    """Removes a cgroup and those below it, as far as they are empty."""
    try:
        for name in posix.listdir(path):
            if posix.access(f"{path}/{name}/cgroup.procs", 0):
                remove_cgroup(f"{path}/{name}")
        posix.rmdir(path)
    except OSError:
        pass


def open_terminal(size: tuple[int, int]) -> tuple[int, int]:
    """A pseudo-terminal of (rows, columns): (our end, the child's). Raises OSError."""
    ours, theirs = posix.openpty()
    try:
        # struct winsize: rows, columns, and a size in pixels that nobody looks at.
        fields = (size[0], size[1], 0, 0)
        fcntl.ioctl(theirs, TIOCSWINSZ, b"".join(field.to_bytes(2, sys.byteorder) for field in fields))
    except OSError:
        posix.close(ours)
        posix.close(theirs)
        raise
    return ours, theirs


class Spec:
    """What to start. On disk: ``KEY LENGTH`` newline, LENGTH bytes, newline; unknown keys are skipped."""

    def __init__(self, data: bytes) -> None:
        self.argv: list[bytes] = []
        self.env: dict[bytes, bytes] = {}
        self.cwd = b"/"
        self.mark = b""
        self.socket = b""
        self.stdin: bytes | None = None
        self.close_stdin = False
        self.merge_stderr = False
        self.use_cgroup = True
        self.terminal: tuple[int, int] | None = None  # (rows, columns): the child gets a pseudo-terminal
        self.limit_s = 0.0  # how long the child may run; 0: no limit
        self.output_limit = (0, 0)  # (bytes, files): how much of each output is kept; 0: all in one file
        self.output_keep = (0, 0)  # bytes of stdout and stderr that are kept, without their middle; 0: all
        at = 0
        while at < len(data):
            end = data.index(b"\n", at)
            key, size = data[at:end].split(b" ")
            value = data[end + 1 : end + 1 + int(size)]
            at = end + int(size) + 2
            if key == b"arg":
                self.argv.append(value)
            elif key == b"env":
                name, _, text = value.partition(b"=")
                self.env[name] = text
            elif key == b"cwd":
                self.cwd = value
            elif key == b"mark":
                self.mark = value
            elif key == b"socket":
                self.socket = value
            elif key == b"stdin":
                self.stdin = value
            elif key == b"close_stdin":
                self.close_stdin = value == b"1"
            elif key == b"merge_stderr":
                self.merge_stderr = value == b"1"
            elif key == b"use_cgroup":
                self.use_cgroup = value == b"1"
            elif key == b"terminal":
                rows, columns = value.split(b" ")
                self.terminal = (int(rows), int(columns))
            elif key == b"limit_ms":
                self.limit_s = int(value) / 1000
            elif key == b"output_limit":
                size, count = value.split(b" ")
                self.output_limit = (int(size), max(2, int(count)))
            elif key == b"output_keep":
                out, err = value.split(b" ")
                self.output_keep = (int(out), int(err))
        if not self.argv or not self.socket:
            raise ValueError("incomplete spec")


class Output:
    """One output pipe of the child and the file it is appended to."""

    __slots__ = (
        *("file", "full", "held", "name", "pipe", "size", "start"),
        *("gap_end", "keep", "keep_at", "limit"),
    )

    def __init__(self, pipe: int, name: str, limit: tuple[int, int], keep: int) -> None:
        self.pipe = pipe  # -1: at its end
        self.name = name
        self.file = posix.open(name, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o600)
        self.size = 0  # bytes that are in the file, and in those before it
        self.start = 0  # offset of the file's first byte in the whole
        self.full: list[str] = []  # names of the files before it that are still there
        self.held = b""  # read from the pipe, not yet in the file; the pipe is not read while there is any
        self.limit = limit  # (bytes of a file, files); 0: all in one file
        self.keep = keep  # bytes that are kept, without the middle
        self.keep_at = keep or NO_LIMIT  # the size at which more of the middle goes
        self.gap_end = 0  # where what has gone ends


class Connection:
    """One client."""

    __slots__ = ("buffer", "fd", "request", "socket", "wanted")

    def __init__(self, sock: _socket.socket) -> None:
        self.socket = sock
        self.fd = sock.fileno()
        self.buffer = bytearray()
        self.request: list[bytes] = []  # the write whose bytes are still coming
        self.wanted = 0


class Shim:
    """The state of one run."""

    def __init__(self, lock_fds: list[int], spec: Spec) -> None:
        # Open for as long as the run lasts, the run directory's first. The child has none of them.
        self.lock_fds = lock_fds
        self.spec = spec
        self.mark = b"OSTLER_MARK=" + spec.mark if spec.mark else b""
        self.socket_path = spec.socket
        self.listener: _socket.socket | None = None
        self.poll = select.poll()
        self.connections: dict[int, Connection] = {}
        self.watches: list[tuple[Connection, bytes, int, int]] = []
        self.waits: list[tuple[Connection, bytes]] = []
        self.chunk = bytearray(CHUNK_BYTES)
        self.pid = posix.getpid()
        self.child = 0
        self.child_started = 0
        self.cgroup = ""
        self.subreaper = False
        self.outputs: list[Output] = []
        self.stdin_pipe = -1
        self.stdin_record = -1
        self.stdin_size = 0
        self.stdin_last = 0  # number of the last write that was done
        self.stdin_closed = False
        self.typed_to = 0  # offset in the record after the last byte that the child was given
        self.stdin_queue: list[list[int]] = []  # [offset in the record, bytes left]; [-1, 0] closes the pipe
        self.last_output = time.monotonic()
        self.kill_at = 0.0  # when the ladder goes on to SIGKILL; 0: no ladder
        self.limit_at = 0.0  # when the child's time is up; 0: no limit, or it has been
        self.timed_out = False
        self.ended_on_request = False
        self.retry_at = 0.0  # when appending is tried again; 0: the disk takes everything
        self.retry_s = RETRY_FIRST_S
        self.wait_status: int | None = None  # of the child, once it has exited
        self.exited_at = 0.0
        self.swept = 0
        self.left: list[int] = []
        self.ended = False
        self.wakeup = -1

    # Start ------------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Takes room for the exit status, and for what is in the pipes on a full disk. Raises OSError."""
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
        sizes = {"exit.json.reserve": EXIT_RESERVE_BYTES, "output.reserve": OUTPUT_RESERVE_BYTES}
        for name, size in sizes.items():
            fd = posix.open(name, flags, 0o600)
            try:
                if size > EXIT_RESERVE_BYTES and hasattr(posix, "posix_fallocate"):
                    posix.posix_fallocate(fd, 0, size)
                else:
                    # Written and not only allocated: overwriting then needs no further block.
                    write_all(fd, bytes(size))
            finally:
                posix.close(fd)

    def listen(self) -> None:
        """Binds the socket, in place of whatever is at its path. Raises OSError."""
        remove(self.socket_path)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        mask = posix.umask(0o177)
        try:
            sock.bind(self.socket_path)
        finally:
            posix.umask(mask)
        sock.listen(16)
        sock.setblocking(False)
        self.listener = sock

    def start(self) -> None:
        """Starts the child. Raises RefusedError with the line for the client if that fails."""
        self.subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.cgroup = make_cgroup(self.spec.mark) if self.spec.use_cgroup else ""
        self.record_first_input()
        if self.spec.terminal:
            # One descriptor for each direction, so that each is polled and closed by itself.
            out_r, stdin_r = open_terminal(self.spec.terminal)
            self.stdin_pipe = fcntl.fcntl(out_r, fcntl.F_DUPFD_CLOEXEC, 0)
            out_w = err_w = stdin_r
            self.outputs = self.make_outputs(out_r)
        else:
            stdin_r, self.stdin_pipe = posix.pipe()
            out_r, out_w = posix.pipe()
            self.outputs = self.make_outputs(out_r)
            err_w = out_w
            if not self.spec.merge_stderr:
                self.outputs[1].pipe, err_w = posix.pipe()
        go_r, go_w = posix.pipe()
        failed_r, failed_w = posix.pipe()
        self.child = fork_into(self.cgroup) if self.cgroup else -1
        born_there = self.child >= 0
        if not born_there:
            self.child = posix.fork()
        if self.child == 0:
            # Held here, a death of the shim would never be seen.
            posix.close(go_w)
            self.run_child(go_r, failed_w, (stdin_r, out_w, err_w), "" if born_there else self.cgroup)
        for fd in {stdin_r, out_w, err_w, go_r, failed_w}:
            posix.close(fd)
        for fd in (self.stdin_pipe, self.outputs[0].pipe, self.outputs[1].pipe):
            if fd >= 0:
                posix.set_blocking(fd, False)
        self.child_started = start_of(self.child)
        info = {
            "pid": self.pid,
            "started": start_of(self.pid),
            "boot_id": boot_id(),
            "child_pid": self.child,
            "child_started": self.child_started,
            "socket": self.socket_path.decode("utf-8", "surrogateescape"),
            "cgroup": self.cgroup or None,
            "subreaper": self.subreaper,
            "version": VERSION,
        }
        try:
            write_atomically("shim.json", json_text(info) + "\n")
        except OSError:
            posix.kill(self.child, SIGKILL)
            posix.waitpid(self.child, 0)
            raise
        posix.write(go_w, b"1")
        posix.close(go_w)
        if self.spec.limit_s > 0:
            self.limit_at = time.monotonic() + self.spec.limit_s
        failure = posix.read(failed_r, 256)
        posix.close(failed_r)
        if failure:
            number, what = failure.decode().split(" ", 1)
            posix.waitpid(self.child, 0)
            text = f"{what}: {posix.strerror(int(number))}"
            remove("output.reserve")
            self.write_exit({"code": None, "signal": None, "reason": "spawn_failed", "error": text})
            raise RefusedError(f"error {number} {what}")

    def make_outputs(self, pipe: int) -> list[Output]:
        limit, (out, err) = self.spec.output_limit, self.spec.output_keep
        return [Output(pipe, "stdout", limit, out), Output(-1, "stderr", limit, err)]

    def record_first_input(self) -> None:
        """Records what the spec has for stdin; it is forwarded once the child runs. Raises OSError."""
        # Truncated: an attempt that died before its child was started may have left a record of the same.
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_APPEND | posix.O_TRUNC | posix.O_CLOEXEC
        self.stdin_record = posix.open("stdin", flags, 0o600)
        first, self.spec.stdin = self.spec.stdin, None
        if first is not None and self.say(1, first) != "ok":
            raise OSError(errno.ENOSPC, posix.strerror(errno.ENOSPC))
        if self.spec.close_stdin and self.say(self.stdin_last + 1, None) != "ok":
            raise OSError(errno.ENOSPC, posix.strerror(errno.ENOSPC))

    def discard(self) -> None:
        """Takes back what was made for a child that was not started, so that it can be tried again."""
        remove(self.socket_path)
        for name in ("exit.json.reserve", "output.reserve", "shim.json.new"):
            remove(name)
        if self.cgroup:
            remove_cgroup(self.cgroup)

    def run_child(self, go: int, failed: int, stdio: tuple[int, int, int], cgroup: str) -> None:
        """The child's side of the fork: becomes the program, or tells ``failed`` why not. Never returns."""
        what = "setsid"
        try:
            # First of all: a handler that runs here would speak through the parent's pipe.
            _signal.set_wakeup_fd(-1)
            for number in range(1, 65):
                # An ignored signal stays ignored over exec.
                try:
                    _signal.signal(number, _signal.SIG_DFL)
                except (OSError, ValueError, RuntimeError):
                    pass
            posix.setsid()
            if cgroup:
                try:
                    fd = posix.open(cgroup + "/cgroup.procs", posix.O_WRONLY | posix.O_CLOEXEC)
                    posix.write(fd, b"0")
                except OSError:
                    pass
            prctl(PR_SET_PDEATHSIG, SIGKILL)
            if not posix.read(go, 1) or posix.getppid() != self.pid:
                posix._exit(127)
            what = "stdio"
            for target, fd in enumerate(stdio):
                posix.dup2(fd, target)
            if self.spec.terminal:
                what = "terminal"
                fcntl.ioctl(0, TIOCSCTTY, 0)
            what = "chdir"
            posix.chdir(self.spec.cwd)
            what = "exec"
            self.execute()
        except OSError as e:
            posix.write(failed, b"%d %s" % (e.errno or errno.EINVAL, what.encode()))
        except BaseException:  # noqa: BLE001 - nothing may get out of here into the parent's code
            posix.write(failed, b"%d %s" % (errno.EINVAL, what.encode()))
        finally:
            posix._exit(127)

    def execute(self) -> None:
        """execve(2), searching the child's own PATH for a bare name. Raises OSError."""
        argv, env = self.spec.argv, self.spec.env
        if b"/" in argv[0]:
            posix.execve(argv[0], argv, env)
        refusal = FileNotFoundError(errno.ENOENT, "")
        for folder in env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":"):
            # Relative entries are left out: the working directory may be one that the agent wrote.
            if folder.startswith(b"/"):
                try:
                    posix.execve(folder + b"/" + argv[0], argv, env)
                except OSError as e:
                    if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                        raise
                    if e.errno == errno.EACCES:
                        refusal = e  # type: ignore[assignment]
        raise refusal

    # Loop -------------------------------------------------------------------------------------------------

    def take_signals(self) -> None:
        """Takes over signals. From here on only SIGKILL ends this process before its child has ended."""
        self.wakeup, wakeup_w = posix.pipe()
        posix.set_blocking(self.wakeup, False)
        posix.set_blocking(wakeup_w, False)
        _signal.set_wakeup_fd(wakeup_w, warn_on_full_buffer=False)
        for name in IGNORED_SIGNALS:
            _signal.signal(getattr(_signal, name), _signal.SIG_IGN)
        for number in (SIGCHLD, SIGTERM, SIGHUP):
            _signal.signal(number, on_signal)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        self.poll.register(self.wakeup, select.POLLIN)

    def run(self) -> None:
        """Serves until the run has ended."""
        self.attend_listener()
        for output in self.outputs:
            self.attend(output)
        self.forward()
        self.reap()  # SIGCHLD from before the handler was there
        while not self.ended:
            for fd, _event in self.poll.poll(self.timeout_ms()):
                self.on_event(fd)
            self.on_time()
            if self.watches:
                self.answer_watches()

    def timeout_ms(self) -> int | None:
        moments = [at for at in (self.kill_at, self.retry_at, self.limit_at) if at]
        return max(0, int((min(moments) - time.monotonic()) * 1000) + 1) if moments else None

    def on_event(self, fd: int) -> None:
        connection = self.connections.get(fd)
        if connection is not None:
            self.on_connection(connection)
        elif fd == self.wakeup:
            self.on_wakeup()
        elif fd == self.stdin_pipe:
            self.forward()
        elif self.listener is not None and fd == self.listener.fileno():
            self.accept()
        else:
            for output in self.outputs:
                if fd == output.pipe and self.wait_status is None:
                    self.relay(output, 8)

    def on_wakeup(self) -> None:
        try:
            numbers = posix.read(self.wakeup, 512)
        except BlockingIOError:
            return
        if SIGTERM in numbers:
            self.end(TERM_GRACE_S)
        if SIGHUP in numbers and not exists(self.socket_path):
            self.listen_again()
        if SIGCHLD in numbers:
            self.reap()

    def on_time(self) -> None:
        now = time.monotonic()
        if self.limit_at and now >= self.limit_at:
            self.limit_at = 0.0
            if self.wait_status is None and not self.ended_on_request:
                self.timed_out = True
                self.end(TERM_GRACE_S)
        if self.kill_at and now >= self.kill_at:
            self.kill_at = 0.0
            self.signal_group(SIGKILL)
        if self.retry_at and now >= self.retry_at:
            self.retry_at = 0.0
            for output in self.outputs:
                self.append(output)
                self.attend(output)
            if self.retry_at:
                self.retry_s = min(self.retry_s * 1.5, RETRY_LAST_S)
            else:
                self.retry_s = RETRY_FIRST_S
            if self.wait_status is not None:
                self.drain()

    # Output -----------------------------------------------------------------------------------------------

    def attend(self, output: Output) -> None:
        """Polls the pipe of ``output`` exactly if it may be read now."""
        if output.pipe < 0:
            return
        if not output.held and self.wait_status is None:
            self.poll.register(output.pipe, select.POLLIN)
        else:
            # Unregistered and not set to 0: an empty mask still reports the end of the pipe, in a busy loop.
            self.forget(output.pipe)

    def forget(self, fd: int) -> None:
        try:
            self.poll.unregister(fd)
        except KeyError:
            pass

    def relay(self, output: Output, limit: int = 0) -> bool:
        """Moves chunks from pipe to file: up to ``limit``, or until one is not full; 0: all there are.

        True if there is nothing left to read.
        """
        rounds = 0
        while not limit or rounds < limit:
            rounds += 1
            try:
                size = posix.readv(output.pipe, [self.chunk])
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                size = 0
            if size == 0:
                self.forget(output.pipe)
                posix.close(output.pipe)
                output.pipe = -1
                return True
            self.last_output = time.monotonic()
            view = memoryview(self.chunk)[:size]
            if output.limit[0]:
                self.turn_over(output)
            try:
                done = posix.write(output.file, view)
            except OSError:
                done = 0
            output.size += done
            if output.size >= output.keep_at:
                self.drop_middle(output)
            if done < size:
                output.held = bytes(view[done:])
                self.append(output)
                if output.held:
                    self.attend(output)
                    return False
            if size < CHUNK_BYTES and limit:
                break
        return False

    def append(self, output: Output) -> None:
        """Appends what is held back. If the disk does not take it, plans the next attempt."""
        try:
            while output.held:
                done = posix.write(output.file, output.held)
                output.size += done
                output.held = output.held[done:]
        except OSError:
            # Whatever the reason is (ENOSPC, EDQUOT, EIO, EFBIG), the answer is the same: keep it, try again.
            self.retry_at = time.monotonic() + self.retry_s

    def turn_over(self, output: Output) -> None:
        """Begins a new file if the present one is full. Where that cannot be done the old one goes on.

        Nothing is copied and nothing cut off: whoever has the old file open reads it to its end.
        """
        limit, count = output.limit
        if output.size - output.start < limit:
            return
        fresh, old = output.name + ".new", f"{output.name}.{output.start}"
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_APPEND | posix.O_CLOEXEC
        try:
            file = posix.open(fresh, flags, 0o600)
        except OSError:
            return
        try:
            posix.rename(output.name, old)
            posix.rename(fresh, output.name)
        except OSError:
            posix.close(file)
            return
        posix.close(output.file)
        output.file = file
        output.start = output.size
        output.full.append(old)
        while len(output.full) >= count:
            remove(output.full.pop(1 if output.keep else 0))

    def drop_middle(self, output: Output) -> None:
        """Makes room: of an output that has reached its limit a quarter at the beginning stays, and half of
        the limit at the end. It is recorded first, so nobody takes the hole for output."""
        quarter = output.keep // 4
        output.keep_at = output.size + quarter
        start = quarter + -quarter % HOLE_UNIT_BYTES
        end = (output.size - 2 * quarter) // HOLE_UNIT_BYTES * HOLE_UNIT_BYTES
        begin = output.gap_end or start
        if end <= begin:
            return
        record = output.name + ".gap"
        try:
            write_atomically(record, f"{start} {end}\n")
        except OSError:
            return  # a full disk: tried again after the next quarter
        if punch(output.file, begin, end - begin):
            output.gap_end = end
        elif not output.gap_end:
            remove(record)
            output.keep_at = NO_LIMIT
            output.limit = (quarter, 3)
            self.turn_over(output)

    def drain(self) -> None:
        """After the sweep: what is still in the pipes, then the end. Comes back later if the disk is full."""
        for output in self.outputs:
            while output.pipe >= 0 and not output.held:
                self.relay(output)
                if not output.held:
                    break
        if any(output.held for output in self.outputs):
            if exists("output.reserve"):
                remove("output.reserve")
                self.retry_at = time.monotonic()
                return
            waited = time.monotonic() - self.exited_at
            if not (self.ended_on_request and waited > LAST_OUTPUT_LIMIT_S):
                self.retry_at = self.retry_at or time.monotonic() + self.retry_s
                return
        self.finish()

    # Stdin ------------------------------------------------------------------------------------------------

    def say(self, number: int, data: bytes | None) -> str:
        """Does write ``number`` (None: close) unless it was done before. Gives 'ok' or an error code."""
        if number <= self.stdin_last:
            return "ok"
        if self.wait_status is not None:
            return "ended"
        if self.stdin_closed:
            return "closed"
        if number != self.stdin_last + 1:
            return "gap"
        head = b"%d close\n" % number if data is None else b"%d %d\n" % (number, len(data))
        try:
            write_all(self.stdin_record, head)
            if data:
                write_all(self.stdin_record, data)
        except OSError:
            # No half records: what was not acknowledged has not been said.
            posix.ftruncate(self.stdin_record, self.stdin_size)
            return "disk"
        self.stdin_last = number
        start = self.stdin_size + len(head)
        self.stdin_size = start + len(data or b"")
        if data is None:
            self.stdin_closed = True
            self.stdin_queue.append([-1, 0])
        elif data:
            self.stdin_queue.append([start, len(data)])
        if self.stdin_pipe >= 0:
            self.forward()
        return "ok"

    def forward(self) -> None:
        """Feeds the child from the record, as far as it reads."""
        try:
            while self.stdin_queue:
                segment = self.stdin_queue[0]
                if segment[0] < 0:
                    if self.spec.terminal and not self.end_terminal_input():
                        raise BlockingIOError
                    self.close_stdin()
                    return
                data = posix.pread(self.stdin_record, min(segment[1], CHUNK_BYTES), segment[0])
                done = posix.write(self.stdin_pipe, data)
                segment[0] += done
                segment[1] -= done
                self.typed_to = segment[0]
                if segment[1] == 0:
                    del self.stdin_queue[0]
        except (BlockingIOError, InterruptedError):
            self.poll.register(self.stdin_pipe, select.POLLOUT)
            return
        except OSError:
            # The child has closed its end. Later writes are recorded and acknowledged, and go nowhere.
            self.close_stdin()
            return
        self.forget(self.stdin_pipe)

    def end_terminal_input(self) -> bool:
        """Types the end of file: twice after half a line, since the first then only hands that over."""
        last = posix.pread(self.stdin_record, 1, self.typed_to - 1) if self.typed_to else b"\n"
        keys = b"\x04" if last == b"\n" else b"\x04\x04"
        return posix.write(self.stdin_pipe, keys) > 0

    def close_stdin(self) -> None:
        if self.stdin_pipe >= 0:
            self.forget(self.stdin_pipe)
            posix.close(self.stdin_pipe)
            self.stdin_pipe = -1
        self.stdin_queue.clear()

    # Clients ----------------------------------------------------------------------------------------------

    def listen_again(self) -> None:
        """Somebody cleaned up the directory of the socket: makes both anew."""
        if self.listener is not None:
            self.forget(self.listener.fileno())
            self.listener.close()
            self.listener = None
        try:
            folder = self.socket_path.rpartition(b"/")[0] or b"/"
            if not exists(folder):
                posix.mkdir(folder, 0o700)
            # Below /tmp somebody else may have made it meanwhile, or a link.
            place = posix.stat(folder)
            owners = {place.st_uid, posix.lstat(folder).st_uid}
            if owners != {posix.geteuid()} or place.st_mode & 0o022:
                return
            self.listen()
        except OSError:
            return
        self.attend_listener()

    def attend_listener(self) -> None:
        assert self.listener is not None
        self.poll.register(self.listener.fileno(), select.POLLIN)

    def accept(self) -> None:
        assert self.listener is not None
        try:
            fd, _address = self.listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
        if peer_uid(sock) != posix.geteuid():
            sock.close()
            return
        sock.setblocking(False)
        self.connections[fd] = Connection(sock)
        self.poll.register(fd, select.POLLIN)

    def drop(self, connection: Connection) -> None:
        if self.connections.pop(connection.fd, None) is None:
            return
        self.forget(connection.fd)
        connection.socket.close()
        self.watches = [w for w in self.watches if w[0] is not connection]
        self.waits = [w for w in self.waits if w[0] is not connection]

    def answer(self, connection: Connection, request: bytes, text: str) -> None:
        try:
            line = request + b" " + text.encode() + b"\n"
            if posix.write(connection.fd, line) == len(line):
                return
        except OSError:
            pass
        # Gone, or has left hundreds of answers unread: it can connect again.
        self.drop(connection)

    def on_connection(self, connection: Connection) -> None:
        try:
            data = posix.read(connection.fd, CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.drop(connection)
            return
        buffer = connection.buffer
        buffer += data
        try:
            while connection.fd in self.connections:
                if connection.request:
                    if len(buffer) < connection.wanted:
                        return
                    request, connection.request = connection.request, []
                    payload = bytes(memoryview(buffer)[: connection.wanted])
                    del buffer[: connection.wanted]
                    self.answer_write(connection, request, payload)
                    continue
                end = buffer.find(b"\n", 0, LINE_LIMIT_BYTES)
                if end < 0:
                    if len(buffer) >= LINE_LIMIT_BYTES:
                        self.drop(connection)
                    return
                words = bytes(buffer[:end]).split(b" ")
                del buffer[: end + 1]
                if words[1] == b"write":
                    connection.wanted = int(words[3])
                    if not 0 <= connection.wanted <= WRITE_LIMIT_BYTES:
                        raise ValueError("size of a write")
                    connection.request = words
                else:
                    self.command(connection, words)
        except (ValueError, IndexError):
            self.drop(connection)

    def answer_write(self, connection: Connection, words: list[bytes], data: bytes | None) -> None:
        code = self.say(int(words[2]), data)
        self.answer(connection, words[0], "ok" if code == "ok" else "err " + code)

    def command(self, connection: Connection, words: list[bytes]) -> None:
        """Carries out one request. Raises ValueError or IndexError on one that makes no sense."""
        request, name = words[0], words[1]
        if name == b"status":
            self.answer(connection, request, "ok " + self.status())
        elif name == b"watch":
            self.watches.append((connection, request, int(words[2]), int(words[3])))
        elif name == b"wait":
            self.waits.append((connection, request))
        elif name == b"cancel":
            self.watches = [w for w in self.watches if w[0] is not connection or w[1] != words[2]]
            self.waits = [w for w in self.waits if w[0] is not connection or w[1] != words[2]]
        elif name == b"close":
            self.answer_write(connection, words, None)
        elif name == b"signal":
            number = int(words[2])
            self.answer(connection, request, "ok" if self.signal_group(number) else "err gone")
        elif name == b"end":
            self.end(int(words[2]) / 1000)
            self.answer(connection, request, "ok")
        else:
            self.answer(connection, request, "err unknown")

    def sizes(self) -> str:
        out, err = self.outputs
        stalled = int(bool(out.held or err.held))
        return f"stdout={out.size} stderr={err.size} stalled={stalled} ended={int(self.ended)}"

    def status(self) -> str:
        stdin = "open" if self.stdin_pipe >= 0 else "closed"
        waiting = sum(segment[1] for segment in self.stdin_queue)
        idle_ms = int((time.monotonic() - self.last_output) * 1000)
        return (
            f"version={VERSION} pid={self.pid} child={self.child} written={self.stdin_last} stdin={stdin} "
            f"waiting={waiting} idle_ms={idle_ms} ending={int(self.ended_on_request)} {self.sizes()}"
        )

    def answer_watches(self) -> None:
        out, err = (output.size for output in self.outputs)
        for watch in list(self.watches):
            if self.ended or out > watch[2] or err > watch[3]:
                if watch in self.watches:
                    self.watches.remove(watch)
                self.answer(watch[0], watch[1], "ok " + self.sizes())

    # End --------------------------------------------------------------------------------------------------

    def signal_group(self, number: int) -> bool:
        """Signals the child's process group, until the child is reaped: its id may be anybody's then."""
        if self.wait_status is not None:
            return False
        try:
            posix.killpg(self.child, number)
        except OSError as e:
            return e.errno == errno.EPERM
        return True

    def end(self, grace_s: float) -> None:
        """The ladder: SIGTERM now, SIGKILL after the grace. A second call can only make it shorter."""
        if self.wait_status is not None:
            return
        at = time.monotonic() + max(0.0, grace_s)
        if not self.ended_on_request:
            self.ended_on_request = True
            self.kill_at = at
            self.signal_group(SIGTERM)
            self.signal_group(SIGCONT)  # one that is stopped would not hear it
        elif self.kill_at:
            self.kill_at = min(self.kill_at, at)

    def reap(self) -> None:
        """Buries orphans. When the child itself has exited: sweeps, drains and finishes."""
        while self.wait_status is None:
            try:
                if hasattr(posix, "waitid"):
                    # Not yet reaped, its pid cannot be somebody else's group.
                    options = posix.WEXITED | posix.WNOHANG | posix.WNOWAIT
                    found = posix.waitid(posix.P_ALL, 0, options)
                    pid = found.si_pid if found else 0
                else:
                    pid, status = posix.waitpid(self.child, posix.WNOHANG)
                    if pid:
                        self.on_child_exit(status)
                    return
            except ChildProcessError:
                return
            if pid == self.child:
                self.signal_group(SIGKILL)
                self.on_child_exit(posix.waitpid(pid, 0)[1])
                return
            if pid == 0:
                return
            posix.waitpid(pid, posix.WNOHANG)

    def on_child_exit(self, status: int) -> None:
        self.kill_at = self.limit_at = 0.0
        self.exited_at = time.monotonic()
        if not hasattr(posix, "waitid"):
            self.signal_group(SIGKILL)  # microseconds after its leader was reaped: no better way there
        self.wait_status = status
        self.close_stdin()
        for output in self.outputs:
            self.attend(output)
        if LINUX:
            self.sweep()
        self.drain()

    def bury(self) -> int:
        """Reaps every dead child. Gives how many there were."""
        count = 0
        try:
            while True:
                pid, status = posix.waitpid(-1, posix.WNOHANG)
                if pid == 0:
                    return count
                count += 1
                if posix.WIFSIGNALED(status) and posix.WTERMSIG(status) == SIGKILL:
                    self.swept += 1
        except ChildProcessError:
            return count

    def survivors(self) -> list[tuple[int, int]]:
        """(pid, start time) of every living process of the run: descendants, marked ones, the cgroup's."""
        parents: dict[int, tuple[int, int]] = {}
        ours: set[int] = set()
        for name in posix.listdir("/proc"):
            if not name.isdigit():
                continue
            found = stat_of(name)
            pid = int(name)
            # One that is older than the child is none of ours. A zombie is dead.
            if found is None or found[2] < self.child_started or pid == self.pid:
                continue
            if found[0] not in (b"Z", b"X"):
                parents[pid] = (found[1], found[2])
                if self.mark and self.is_marked(name):
                    ours.add(pid)
        if self.cgroup:
            try:
                ours.update(int(p) for p in read_file(self.cgroup + "/cgroup.procs").split())
            except (OSError, ValueError):
                pass
        ours.add(self.pid)
        before = 0
        while len(ours) != before:
            before = len(ours)
            ours.update(pid for pid, (parent, _) in parents.items() if parent in ours)
        return [(pid, parents[pid][1]) for pid in ours if pid in parents]

    def is_marked(self, pid: str) -> bool:
        try:
            return self.mark in read_file(f"/proc/{pid}/environ").split(b"\0")
        except OSError:
            return False

    def kill_cgroup(self) -> None:
        if self.cgroup:
            try:
                fd = posix.open(self.cgroup + "/cgroup.kill", posix.O_WRONLY | posix.O_CLOEXEC)
            except OSError:
                return  # a kernel before 5.14: its processes are in `survivors`
            try:
                posix.write(fd, b"1")
            except OSError:
                pass
            finally:
                posix.close(fd)

    def sweep(self) -> None:
        """Ends what is left of the child's tree, and looks again until nothing is found. Bounded."""
        deadline = time.monotonic() + SWEEP_LIMIT_S
        rounds = 0
        while True:
            self.kill_cgroup()
            buried = self.bury()
            found = self.survivors()
            # A process can fork behind the back of a look at /proc, and die: its burial asks for another.
            if not found and not buried and not self.bury():
                break
            if time.monotonic() > deadline:
                self.left = [pid for pid, _ in found]
                break
            rounds += 1
            if found and rounds > 3:
                # Something forks faster than it is killed. Stopped ones fork no more and hold their place.
                found = self.stop_all(found, deadline)
            for pid, started in found:
                if signal_identified(pid, started, SIGKILL) and not self.subreaper:
                    self.swept += 1
            if found:
                time.sleep(min(0.0005 * rounds, 0.02))
        self.bury()

    def stop_all(self, found: list[tuple[int, int]], deadline: float) -> list[tuple[int, int]]:
        """Stops every process of the tree, until no new one appears. Gives all of them."""
        stopped: dict[tuple[int, int], bool] = {}
        while time.monotonic() < deadline:
            fresh = [each for each in found if each not in stopped]
            if not fresh:
                break
            for each in fresh:
                stopped[each] = signal_identified(each[0], each[1], _signal.SIGSTOP)
            found = self.survivors()
        return list(stopped)

    def finish(self) -> None:
        """The record of the end, then everything that was held, then the word to the clients."""
        assert self.wait_status is not None
        errors = []
        if self.left:
            errors.append("could not be ended: " + " ".join(str(pid) for pid in self.left))
        lost = sum(len(output.held) for output in self.outputs)
        if lost:
            errors.append(f"disk full: the last {lost} bytes of output are missing")
        signalled = posix.WIFSIGNALED(self.wait_status)
        status: dict[str, object] = {
            "code": None if signalled else posix.WEXITSTATUS(self.wait_status),
            "signal": posix.WTERMSIG(self.wait_status) if signalled else None,
            "reason": "timed_out" if self.timed_out else "killed" if self.ended_on_request else "exited",
            "error": "; ".join(errors),
        }
        self.write_exit(status)
        remove("output.reserve")
        self.ended = True
        # Who hears of the end may unmount the file system and take the locks at once.
        for output in self.outputs:
            posix.close(output.file)
        posix.close(self.stdin_record)
        posix.chdir("/")
        for fd in reversed(self.lock_fds):
            posix.close(fd)
        self.answer_watches()
        for connection, request in list(self.waits):
            self.answer(connection, request, "ok " + self.sizes())

    def write_exit(self, status: dict[str, object]) -> None:
        """Writes exit.json into its reserved blocks, and removes what must not outlive the run."""
        now = time.time()
        utc = time.gmtime(now)[:6]
        date = f"{utc[0]:04d}-{utc[1]:02d}-{utc[2]:02d}"
        status["ended_at"] = f"{date}T{utc[3]:02d}:{utc[4]:02d}:{utc[5]:02d}.{int(now % 1 * 1000):03d}Z"
        status["swept"] = self.swept
        text = (json_text(status) + "\n").encode()[:EXIT_RESERVE_BYTES]
        pause_s = 0.05
        while True:
            try:
                fd = posix.open("exit.json.reserve", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
                try:
                    write_all(fd, text)
                    posix.ftruncate(fd, len(text))
                    posix.fsync(fd)
                finally:
                    posix.close(fd)
                posix.rename("exit.json.reserve", "exit.json")
                break
            except FileNotFoundError:
                break  # the run directory has been removed: there is nobody to tell
            except OSError:
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_LAST_S)
        sync(".")
        if self.cgroup:
            remove_cgroup(self.cgroup)
        remove_secrets()
        remove(self.socket_path)


def on_signal(_number: int, _frame: object) -> None:
    """Nothing: the number comes out of the wake-up pipe."""


def remove_secrets() -> None:
    """Removes from the run directory what holds tokens and environment."""
    try:
        names = posix.listdir(".")
    except OSError:
        names = []
    for name in names:
        if name.startswith("spec."):
            blank_in_record(name)
        if name == "claim.json" or name == "spec" or name.startswith("spec."):
            remove(name)


def blank_in_record(name: str) -> None:
    """Takes the content of a file of secrets, as far as it was said to the child, out of ``stdin``: what is
    there keeps its length, so the record stays one."""
    try:
        secret, record = read_file(name), read_file("stdin")
        at = record.find(secret) if len(secret) >= BLANKED_LEAST_BYTES else -1
        if at < 0:
            return
        fd = posix.open("stdin", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            while at >= 0:
                posix.pwrite(fd, b"*" * len(secret), at)
                at = record.find(secret, at + len(secret))
        finally:
            posix.close(fd)
    except OSError:
        pass


def peer_uid(sock: _socket.socket) -> int:
    """The user id of the process at the other end, -1 if it cannot be told."""
    try:
        if LINUX:
            ucred = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            return int.from_bytes(ucred[4:8], sys.byteorder)
        # macOS: LOCAL_PEERCRED of SOL_LOCAL gives struct xucred {u_int version; uid_t uid; ...}.
        return int.from_bytes(sock.getsockopt(0, 1, 76)[4:8], sys.byteorder)
    except OSError:
        return -1


def boot_id() -> str:
    try:
        return read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    except OSError:
        return ""


def take_lock() -> int:
    """The lock of the run directory. Raises RefusedError if the run was started before."""
    fd = posix.open("lock", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    for attempt in range(200):
        held = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = False
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if exists("shim.json") or exists("exit.json"):
            posix.close(fd)
            raise RefusedError("already")
        if not held:
            return fd
        # Another start that has not got so far yet, or somebody looking whether the lock is free.
        time.sleep(0.001 if attempt < 20 else 0.02)
    posix.close(fd)
    raise RefusedError("busy")


def open_run(spec_name: str, lock_fds: list[int]) -> Shim:
    """From the run directory to a running child. Raises RefusedError or OSError."""
    held = list(lock_fds)
    try:
        held.insert(0, take_lock())
        posix.rename(spec_name, "spec")
        shim = Shim(held, Spec(read_file("spec")))
        shim.take_signals()
        try:
            shim.reserve()
            shim.listen()
            shim.start()
        except OSError:
            shim.discard()
            raise
        return shim
    except BaseException:
        # If it was not ours to start, the one who starts it may be over and not remove this any more.
        remove(spec_name)
        if len(held) > len(lock_fds):
            remove("spec")
        # Before the refusal is told: the answer to it may be another start.
        for fd in reversed(held):
            posix.close(fd)
        raise


def stand_by() -> tuple[str, list[int]]:
    """Waits to be told the name of the spec: a line, with the open file descriptions beside it. Ends the
    process if whoever would tell it is gone."""
    call_c("getpid")  # finds the C library while nobody waits
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, 0)
    told = b""
    fds: list[int] = []
    while not told.endswith(b"\n"):
        part, ancillary, _flags, _address = link.recvmsg(LINE_LIMIT_BYTES, 4096)
        if not part:
            posix._exit(0)
        told += part
        for level, kind, packed in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                ends = range(4, len(packed) + 1, 4)
                fds += [int.from_bytes(packed[end - 4 : end], sys.byteorder) for end in ends]
    link.detach()  # standard input is replaced like the other two
    return told[:-1].decode(), fds


def main(argv: list[str]) -> None:
    """Leaves the launching process behind, starts the child, says so on standard output, and serves."""
    if posix.fork():
        posix._exit(0)
    # A session of its own. No terminal is ever opened, so a second fork would keep nothing away.
    posix.setsid()
    if argv[2:] == ["--standby"]:
        spec_name, lock_fds = stand_by()
    else:
        spec_name, lock_fds = argv[2], [int(text) for text in argv[3:]]
    ready = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    if null > 2:
        posix.close(null)
    for fd in lock_fds:
        posix.set_inheritable(fd, False)
    try:
        posix.chdir(argv[1])
        shim = open_run(spec_name, lock_fds)
    except RefusedError as e:
        posix.write(ready, f"{e}\n".encode())
        return
    except (OSError, ValueError) as e:
        number = getattr(e, "errno", None) or errno.EINVAL
        posix.write(ready, f"error {number} prepare {e}\n".encode("utf-8", "replace"))
        return
    try:
        try:
            posix.write(ready, b"ready\n")
        except OSError:
            pass  # whoever asked has died: all the more reason to go on
        posix.close(ready)
        sync_later("shim.json", ".")
        shim.run()
    except BaseException:
        # A fault in this program: the interpreter prints it when it leaves, so give it a place to print to.
        log = posix.open("shim.log", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
        posix.dup2(log, 2)
        raise


if __name__ == "__main__":
    main(sys.argv)
