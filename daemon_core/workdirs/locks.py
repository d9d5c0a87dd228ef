"""One task at a time in one directory of the user.

A lock is a file of the user (not of the profile) named after the directory's device and inode, so that two
paths to one place, two profiles and two daemons all meet the same one. It is an advisory OS lock on an open
file: the shim of the run inherits the open file and so keeps the directory locked while no daemon lives.
Within one daemon tasks queue for a directory in the order they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from collections import OrderedDict
from pathlib import Path

import msgspec

RETRY_S = 2.0
"""How often a lock held by another process is tried again: the OS has no way to be told."""


class _Holder(msgspec.Struct):
    task_id: str
    pid: int


class DirectoryLock:
    """A held lock. ``fd`` is handed to the run's shim; ``release`` gives back this daemon's share.

    ``fd`` is None where only the book is ours, because the shim of a run holds the file: before another run
    is started under this lock, the file must be had as well (``DirectoryLocks.secure``).
    """

    def __init__(self, locks: DirectoryLocks, key: str, fd: int | None) -> None:
        self._locks = locks
        self._key = key
        self.fd = fd

    def release(self) -> None:
        """Give the directory back. Safe to call twice."""
        if self._key:
            key, self._key = self._key, ""
            if self.fd is not None:
                os.close(self.fd)
                self.fd = None
            self._locks._released(key, self)


class DirectoryLocks:
    """All directory locks of this daemon. ``lock_dir`` is the user's, shared by all profiles."""

    def __init__(self, lock_dir: Path) -> None:
        self.lock_dir = lock_dir
        self._held: dict[str, tuple[str, DirectoryLock]] = {}
        self._waiting: dict[str, OrderedDict[int, asyncio.Future[None]]] = {}
        self._ticket = 0

    def holder_of(self, directory: Path) -> str | None:
        """Id of the task that holds a directory in this daemon, or that a lock file names; None if free."""
        key = self._key(directory)
        if key in self._held:
            return self._held[key][0]
        fd = self._try(key)
        if fd is None:
            return self._read_holder(key)
        os.close(fd)
        return None

    def try_acquire(self, directory: Path, task_id: str) -> DirectoryLock | None:
        """The lock if it is free now, else None. Raises ``OSError`` if the directory is gone."""
        key = self._key(directory)
        if key in self._held or self._waiting.get(key):
            return None
        fd = self._try(key)
        if fd is None:
            return None
        return self._take(key, task_id, fd)

    async def acquire(self, directory: Path, task_id: str) -> DirectoryLock:
        """Wait for the lock; cancelling gives up the place in the queue.

        Raises ``OSError`` if the directory is gone, also if it went while this waited: what is there then
        is another directory, with a lock of its own.
        """
        while True:
            key = self._key(directory)
            lock = await self._acquire(key, task_id)
            try:
                if self._key(directory) == key:
                    return lock
            except OSError:
                lock.release()
                raise
            lock.release()

    def adopt(self, directory: Path, task_id: str) -> DirectoryLock:
        """Take over the lock of a re-attached run: its shim holds the file, we only keep the book.

        Called before anything else takes locks, so that a live run comes before whoever waits.
        """
        try:
            key = self._key(directory)
            fd = self._try(key)
        except OSError:
            # The user removed the directory under the run, or its lock: nothing is left to guard.
            return DirectoryLock(self, "", None)
        lock = DirectoryLock(self, key, fd)
        self._held.setdefault(key, (task_id, lock))
        return lock

    async def secure(self, lock: DirectoryLock) -> None:
        """Wait until the lock's file is ours, too: the run whose shim held it is over, and another process
        may have been quicker. Cancelling leaves everything as it was. Raises ``OSError``."""
        while lock.fd is None and lock._key:
            lock.fd = self._try(lock._key)
            if lock.fd is None:
                await asyncio.sleep(RETRY_S)

    # --- inside --------------------------------------------------------------------------------

    async def _acquire(self, key: str, task_id: str) -> DirectoryLock:
        self._ticket += 1
        ticket = self._ticket
        queue = self._waiting.setdefault(key, OrderedDict())
        loop = asyncio.get_running_loop()
        try:
            while True:
                woken = queue[ticket] = loop.create_future()
                retry_s: float | None = None
                if key not in self._held and next(iter(queue)) == ticket:
                    fd = self._try(key)
                    if fd is not None:
                        return self._take(key, task_id, fd)
                    retry_s = RETRY_S  # another process holds it
                # Not wait_for: on Python 3.11 it can swallow a cancellation that meets the wake-up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(retry_s):
                        await woken
        finally:
            queue.pop(ticket, None)
            if not queue and self._waiting.get(key) is queue:
                del self._waiting[key]
            self._wake(key)

    def _take(self, key: str, task_id: str, fd: int) -> DirectoryLock:
        with contextlib.suppress(OSError):  # on a full disk: the name is for whoever waits, no more
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)  # no pwrite on Windows
            os.write(fd, msgspec.json.encode(_Holder(task_id, os.getpid())))
        lock = DirectoryLock(self, key, fd)
        self._held[key] = (task_id, lock)
        return lock

    def _released(self, key: str, lock: DirectoryLock) -> None:
        held = self._held.get(key)
        if held is not None and held[1] is lock:
            del self._held[key]
            self._wake(key)

    def _wake(self, key: str) -> None:
        for future in self._waiting.get(key, {}).values():
            if not future.done():
                future.set_result(None)
            break

    def _key(self, directory: Path) -> str:
        found = os.stat(directory)
        return f"{found.st_dev:x}-{found.st_ino:x}"

    def _path(self, key: str) -> Path:
        return self.lock_dir / f"{key}.lock"

    def _try(self, key: str) -> int | None:
        self.lock_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path(key), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock_file(fd)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                return None
            raise  # a file system without locks: waiting would never end
        return fd

    def _read_holder(self, key: str) -> str:
        try:
            return msgspec.json.decode(self._path(key).read_bytes(), type=_Holder).task_id
        except (OSError, ValueError):
            return "unknown"


if sys.platform == "win32":  # pragma: no cover - Windows only

    def _lock_file(fd: int) -> None:
        import msvcrt

        # A byte far behind the content, so that the holder's name stays readable while locked.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:

    def _lock_file(fd: int) -> None:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
