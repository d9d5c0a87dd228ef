"""One daemon a profile: an operating-system lock held for the daemon's life, never a pid file alone.

The lock is on ``state/daemon.lock``, which is never removed. The kernel gives it back when the process is
gone, however that came about. ``daemon.json`` beside it says who the holder is: information for people and
for ``stop --force``, which still checks with the kernel before it ends anything.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from daemon_core.settings.atomic import write_private

_GRACE_S: Final = 0.3
"""How long ``acquire`` tries: a probe by ``held`` may have a shared lock for a moment."""


class LockHeldError(Exception):
    """Another daemon holds the lock. ``pid`` is its process as far as known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.path = path
        self.pid = pid
        super().__init__(path, pid)

    def __str__(self) -> str:
        return f"another daemon of this profile is running (pid {self.pid or 'unknown'})"


@dataclass(frozen=True, slots=True)
class DaemonInfo:
    """Content of ``daemon.json``. ``process_started`` is the kernel's start time of ``pid`` (0: unknown)."""

    pid: int
    started_at: str
    version: str
    port: int = 0
    socket: str = ""
    process_started: float = 0.0


def write_info(path: Path, info: DaemonInfo) -> None:
    write_private(path, json.dumps(asdict(info)).encode())


def read_info(path: Path) -> DaemonInfo | None:
    """What the last daemon wrote, or None. It may be long gone: ask ``held``."""
    try:
        raw = json.loads(path.read_bytes())
        return DaemonInfo(
            pid=int(raw["pid"]),
            started_at=str(raw.get("started_at", "")),
            version=str(raw.get("version", "")),
            port=int(raw.get("port") or 0),
            socket=str(raw.get("socket", "")),
            process_started=float(raw.get("process_started") or 0),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class DaemonLock:
    """The held lock. Release it last, or leave that to the kernel."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock for the life of this process. It is not inherited by children (close-on-exec).

        Raises:
            LockHeldError: Another daemon has it.
            OSError: The file cannot be opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        deadline = time.monotonic() + _GRACE_S
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise LockHeldError(path, holder(path))
                time.sleep(0.02)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the lock back. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def held(path: Path) -> bool:
    """Whether a daemon holds the lock right now."""
    close_on_exec = getattr(os, "O_CLOEXEC", 0)
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | close_on_exec)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            descriptor = os.open(path, os.O_RDONLY | close_on_exec)
    except FileNotFoundError:
        return False
    try:
        # The kernel's list is asked first: looking does not take anything.
        return _kernel_holder(descriptor) is not None or not _try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """Pid of the lock's holder by the kernel, else by ``daemon.json`` beside it; None if unknown."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        pid = _kernel_holder(descriptor)
    finally:
        os.close(descriptor)
    if pid is not None:
        return pid
    info = read_info(path.with_name("daemon.json"))
    return info.pid if info is not None else None


def _kernel_holder(descriptor: int) -> int | None:
    """The process with an exclusive lock on this file, from ``/proc/locks`` (Linux; None elsewhere)."""
    facts = os.fstat(descriptor)
    device = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}" if sys.platform != "win32" else ""
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return None
    for line in lines:
        # "1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF"; a waiter's line has "->" in second place.
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE":
            place = words[5].rpartition(":")
            if (
                place[0] == device
                and place[2] == str(facts.st_ino)
                and words[4].isdigit()
                and int(words[4]) > 0
            ):
                return int(words[4])
    return None


def process_started(pid: int) -> float:
    """When a process began, by the kernel: seconds since 1970; 0.0 if there is no such process."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def kill_holder(path: Path, info_path: Path) -> int | None:
    """End the daemon that holds the lock, at once (SIGKILL). Runs go on under their shims.

    The process is named by the kernel's own list of locks. Where there is none (other systems),
    ``daemon.json`` has to name a process with the same start time; a pid alone is never enough.

    Returns:
        The pid that was ended, or None where nobody could be identified.
    """
    import signal

    if not held(path):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        pid = _kernel_holder(descriptor)
    finally:
        os.close(descriptor)
    if pid is None:
        info = read_info(info_path)
        if info is None or not info.process_started:
            return None
        if abs(process_started(info.pid) - info.process_started) > 1.0:
            return None
        pid = info.pid
    if pid == os.getpid():
        return None
    try:
        os.kill(pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    except ProcessLookupError:
        return None
    return pid
