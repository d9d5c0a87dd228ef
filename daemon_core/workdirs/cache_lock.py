"""One git operation at a time on one mirror: between tasks, daemons and profiles.

Within a daemon tasks queue in order. Between processes an advisory lock on a file holds. The file names
the git command that works under it: one that has outlived its killed daemon has no time limit and nobody who
waits for its result, so whoever takes the lock next ends it first (told by its start time, so that nobody
else is hit). The open file itself is not handed to commands: a credential helper that stays would keep it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import psutil

from daemon_core.workdirs.git import kill_tree
from daemon_core.workdirs.locks import _lock_file
from daemon_core.workdirs.repository_errors import RepositoryBusyError

WAIT_LIMIT_S: Final = 900.0
"""Longer than any one command may take, with room for a few that are ahead."""
_FIRST_RETRY_S: Final = 0.02
_LAST_RETRY_S: Final = 0.5
_ORPHAN_LIMIT_S: Final = 10.0


class _Holder(msgspec.Struct, omit_defaults=True):
    pid: int = 0
    started: float = 0.0
    command: int = 0
    command_started: float = 0.0


class HeldLock:
    """A held lock. ``note`` writes down which command works under it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._holder = _Holder(pid=os.getpid(), started=_started(os.getpid()))
        self._write()

    def note(self, pid: int) -> None:
        """This command works under the lock now."""
        self._holder.command, self._holder.command_started = pid, _started(pid)
        self._write()

    def _write(self) -> None:
        encoded = msgspec.json.encode(self._holder)
        with contextlib.suppress(OSError):  # on a full disk the lock itself still holds
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)  # no pwrite on Windows
            os.write(self._fd, encoded)


class CacheLocks:
    """The locks of all mirrors, by path of the lock file."""

    def __init__(self) -> None:
        self._queues: dict[Path, asyncio.Lock] = {}
        self._users: dict[Path, int] = {}

    def is_wanted(self, path: Path) -> bool:
        """Whether somebody waits for a lock besides who holds it."""
        return self._users.get(path, 0) > 1

    @asynccontextmanager
    async def hold(self, path: Path, *, wait_s: float = WAIT_LIMIT_S) -> AsyncIterator[HeldLock]:
        """Hold a mirror's lock for the block. Cancelling gives the place up.

        Raises:
            RepositoryBusyError: It was not to be had in ``wait_s``.
        """
        queue = self._queues.setdefault(path, asyncio.Lock())
        self._users[path] = self._users.get(path, 0) + 1
        deadline = time.monotonic() + wait_s
        try:
            try:
                async with asyncio.timeout(wait_s):
                    await queue.acquire()
            except TimeoutError as error:
                raise _busy() from error
            try:
                fd = await _take(path, deadline)
                try:
                    yield HeldLock(fd)
                finally:
                    os.close(fd)
            finally:
                queue.release()
        finally:
            self._users[path] -= 1
            if not self._users[path]:
                del self._users[path], self._queues[path]


async def _take(path: Path, deadline: float) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    retry_s = _FIRST_RETRY_S
    try:
        while True:
            try:
                _lock_file(fd)
            except OSError:
                if time.monotonic() >= deadline:
                    raise _busy() from None
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
            else:
                await asyncio.to_thread(_end_orphan, path)
                return fd
    except BaseException:
        os.close(fd)
        raise


def _busy() -> RepositoryBusyError:
    return RepositoryBusyError("another operation on this repository takes long; try again in a moment")


def _end_orphan(path: Path) -> None:
    """End the command of the holder before, if that is dead itself; returns when the command is gone."""
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=_Holder)
    except (OSError, ValueError):
        return
    if not holder.command or (holder.pid and _is(holder.pid, holder.started)):
        return
    if _is(holder.command, holder.command_started):
        kill_tree(holder.command)
    elif sys.platform != "win32" and not psutil.pid_exists(holder.command):
        # Its leader is gone. While the group has members its number is nobody else's.
        with contextlib.suppress(OSError):
            os.killpg(holder.command, signal.SIGKILL)
    deadline = time.monotonic() + _ORPHAN_LIMIT_S
    while _is(holder.command, holder.command_started) and time.monotonic() < deadline:
        time.sleep(_FIRST_RETRY_S)


def _started(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _is(pid: int, started: float) -> bool:
    """Whether the process that had this id and start time still lives."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
