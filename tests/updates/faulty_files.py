"""File operations that fail at a chosen one, and a power cut that takes what was never synced.

The model of the disk is harsher than most file systems: whatever a directory lists is lost from some point
on unless that directory was synced, and a file that was not synced has lost its end, even where its name is
there. Nothing is really synced, so tests are fast.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from daemon_core.updates.files import Files

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
"""Where thousands of small files cost little (syncing is only a model here); None: the usual directory."""


class PowerCutError(BaseException):
    """The power goes. No code of ours catches it."""


class Fault(NamedTuple):
    """What happens at which operation (counted from 0)."""

    at: int
    kind: str
    """``before``, ``after``, ``half`` (power cuts), or an error's name: ``ENOSPC``, ``EACCES``, ``EBUSY``."""
    times: int = 1
    """An error lasts for so many operations."""
    keeps: int = 0
    """How many of the unsynced changes of directories survive a power cut."""


POWER = ("before", "half", "after")
ERRORS = ("ENOSPC", "EACCES", "EBUSY")


class FaultyFiles(Files):
    """See the module. Without a fault it is the real thing, but for syncing."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.count = 0
        self.struck = False
        self._entries: list[tuple[str, Callable[[], None]]] = []
        """Changes of directories that are not synced: the directory, and how to undo it."""
        self._content: set[str] = set()
        """Files whose content is not synced."""

    # --- the operations ------------------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        with self._operation():
            new = not os.path.isdir(path)
            super().make_directory(path)
            if new:
                self._entry(path, lambda: shutil.rmtree(path, ignore_errors=True))

    def create(self, path: str, data: bytes, mode: int = 0o600) -> None:
        with self._operation(lambda: self._part(path, data[: len(data) // 2])):
            super().create(path, data, mode)
            self._made(path)

    def copy(self, source: str, target: str, mode: int) -> None:
        with self._operation(lambda: self._part(target, b"")):
            super().copy(source, target, mode)
            self._made(target)

    def link(self, text: str, path: str) -> None:
        with self._operation():
            super().link(text, path)
            self._entry(path, lambda: _quietly(os.unlink, path))

    def sync(self, path: str) -> None:
        with self._operation():
            self._content.discard(path)

    def sync_directory(self, path: str) -> None:
        with self._operation():
            self._entries = [entry for entry in self._entries if entry[0] != path]

    def replace(self, old: str, new: str) -> None:
        with self._operation():
            before = _read(new)
            super().replace(old, new)
            self._moved(old, new)

            def undo() -> None:
                _quietly(os.replace, new, old)
                if before is not None:
                    _write(new, before)

            self._entry(new, undo)

    def rename(self, old: str, new: str) -> None:
        with self._operation():
            super().rename(old, new)
            self._moved(old, new)
            self._entry(new, lambda: _quietly(os.rename, new, old))

    def unlink(self, path: str) -> None:
        with self._operation():
            target = os.readlink(path) if os.path.islink(path) else None
            before = _read(path)
            super().unlink(path)

            def undo() -> None:
                if target is not None:
                    _quietly(os.symlink, target, path)
                elif before is not None:
                    _write(path, before)

            self._entry(path, undo)

    def remove_directory(self, path: str) -> None:
        with self._operation():
            super().remove_directory(path)
            self._entry(path, lambda: _quietly(os.mkdir, path))

    # --- faults --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _operation(self, half: Callable[[], None] = lambda: None):  # type: ignore[no-untyped-def]
        number, self.count = self.count, self.count + 1
        fault = self.fault
        if fault is None or not fault.at <= number < fault.at + (fault.times if fault.kind in ERRORS else 1):
            yield
            return
        self.struck = True
        if fault.kind in ERRORS:
            raise OSError(getattr(errno, fault.kind), f"injected at operation {number}")
        if fault.kind == "after":
            yield
        elif fault.kind == "half":
            half()
        self._lose(fault.keeps)
        raise PowerCutError

    def cut(self, keeps: int = 0) -> None:
        """The power goes while nothing is done."""
        self._lose(keeps)

    def _lose(self, keeps: int) -> None:
        for path in self._content:
            with contextlib.suppress(OSError):
                os.truncate(path, os.path.getsize(path) // 2)
        for _, undo in reversed(self._entries[keeps:]):
            undo()
        self._entries.clear()
        self._content.clear()

    def _entry(self, path: str, undo: Callable[[], None]) -> None:
        self._entries.append((os.path.dirname(path), undo))

    def _made(self, path: str) -> None:
        self._content.add(path)
        self._entry(path, lambda: _quietly(os.unlink, path))

    def _part(self, path: str, data: bytes) -> None:
        _write(path, data)
        self._made(path)

    def _moved(self, old: str, new: str) -> None:
        for path in list(self._content):
            if path == old or path.startswith(f"{old}/"):
                self._content.discard(path)
                self._content.add(new + path[len(old) :])


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _write(path: str, data: bytes) -> None:
    with contextlib.suppress(OSError), open(path, "wb") as file:
        file.write(data)


def _quietly(work: Callable[..., object], *arguments: str) -> None:
    with contextlib.suppress(OSError):
        work(*arguments)
