"""The file operations of a switch, one method each, and the locks between processes.

Everything that changes the installation goes through one ``Files``, so that a test can make any single
operation fail, or be the last one before the power goes. What has to be on the disk is synced by name:
nothing here relies on an order that the file system might keep. Standard library only: this is frozen into
the launcher too.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COPY_BYTES = 1024 * 1024
LOCKED_PATIENCE_S = 5.0 if sys.platform == "win32" else 0.0
"""How long a file that another program holds (a virus scanner) is tried again. Windows refuses, others do
not."""
LOCK_STEP_S = 0.02
_LOCKED = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY})
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)


class Files:
    """The operations. Those that change something, and ``read``, raise ``OSError``."""

    locked_patience_s = LOCKED_PATIENCE_S

    # --- looking ---------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def names(self, path: str) -> list[str]:
        """What is in a directory, sorted; nothing if it cannot be looked into."""
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def facts(self, path: str) -> os.stat_result | None:
        """What the system knows of ``path`` itself (a link is not followed); None if it is not there, or out
        of reach (another user's, a broken disk): for what is to run that is the same."""
        try:
            return os.lstat(path)
        except OSError:
            return None

    # --- changing --------------------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        """One directory, 0700; it may be there."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def create(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """A new file. Not yet synced."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | _BINARY, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def copy(self, source: str, target: str, mode: int) -> None:
        """A new file with the content of another one. Not yet synced."""
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | _BINARY, 0o600)
        with os.fdopen(descriptor, "wb") as out, open(source, "rb") as given:
            while part := given.read(COPY_BYTES):
                out.write(part)
            if sys.platform != "win32":
                os.fchmod(out.fileno(), mode)

    def touch(self, path: str) -> None:
        """Set the time of a file, which is made if need be. It has no content and is not synced."""
        try:
            os.utime(path)
        except FileNotFoundError:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | _CLOEXEC, 0o600))

    def link(self, text: str, path: str) -> None:
        """A symbolic link."""
        os.symlink(text, path)

    def sync(self, path: str) -> None:
        """Force a file's content to the disk."""
        descriptor = os.open(path, (os.O_RDWR if sys.platform == "win32" else os.O_RDONLY) | _CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: str) -> None:
        """Force what a directory lists to the disk. Windows does that by itself."""
        if sys.platform != "win32":
            self.sync(path)

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has it."""
        os.replace(old, new)

    def rename(self, old: str, new: str) -> None:
        """Give a directory a name that nothing has."""
        os.rename(old, new)

    def settle_in(self, old: str, new: str) -> None:
        """``rename``, patiently: a file in it that somebody holds keeps a directory where it is."""
        self._patiently(lambda: self.rename(old, new))

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        """An empty one."""
        os.rmdir(path)

    # --- made of these ---------------------------------------------------------------------------

    def write(self, path: str, data: bytes) -> None:
        """Replace ``path`` by a 0600 file with ``data``, durably: it is the old one or the new one whatever
        happens. A file that somebody holds is tried again for a while."""
        directory, name = os.path.split(path)
        temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
        try:
            self.create(temporary, data)
            self.sync(temporary)
            self._patiently(lambda: self.replace(temporary, path))
        except OSError:
            try:
                self.unlink(temporary)
            except OSError:
                pass  # `tidy` takes it away; the error that counts is the first one
            raise
        self.sync_directory(directory)

    def remove_tree(self, path: str) -> None:
        """A directory with everything in it; links are not followed. It may be gone already."""
        facts = self.facts(path)
        if facts is None:
            return
        if not stat.S_ISDIR(facts.st_mode):
            self.unlink(path)
            return
        for name in self.names(path):
            self.remove_tree(os.path.join(path, name))
        self.remove_directory(path)

    def _patiently(self, step: Callable[[], None]) -> None:
        deadline = time.monotonic() + self.locked_patience_s
        pause_s = 0.01
        while True:
            try:
                step()
                return
            except OSError as error:
                if error.errno not in _LOCKED or time.monotonic() >= deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.2)


# --- locks -----------------------------------------------------------------------------------------------


class Lock:
    """A lock that is held; the kernel gives it back when the last process that has its descriptor is gone."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def hand_on(self) -> int:
        """Let programs that are executed from here have it, too; gives the descriptor."""
        os.set_inheritable(self.descriptor, True)
        return self.descriptor

    def release(self) -> None:
        """Give it back, as far as this process is concerned. May be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def try_lock(path: str, *, shared: bool = False) -> Lock | None:
    """Take the lock on a file, which is made if need be; None if somebody is against it.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o600)
    try:
        if _take(descriptor, shared=shared):
            return Lock(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextmanager
def locked(path: str, patience_s: float) -> Iterator[None]:
    """With the lock on a file.

    Raises:
        TimeoutError: Somebody else has it for longer than ``patience_s``.
        OSError: The file cannot be opened.
    """
    deadline = time.monotonic() + patience_s
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise TimeoutError(errno.ETIMEDOUT, "somebody else changes the installation", path)
        time.sleep(LOCK_STEP_S)
    with lock:
        yield


def is_free(path: str) -> bool:
    """Whether nobody holds the lock on a file, at this moment."""
    try:
        lock = try_lock(path, shared=True)
    except FileNotFoundError:
        return True
    if lock is None:
        return False
    lock.release()
    return True


def _take(descriptor: int, *, shared: bool) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            # There are no shared locks in the C library: who shares takes one byte of many, who wants the
            # file alone takes all of them.
            place = 1 + int.from_bytes(os.urandom(3), "big") if shared else 0
            os.lseek(descriptor, place, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1 if shared else 1 << 25)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True
