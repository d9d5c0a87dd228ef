"""What is kept of a resident between two lives of the daemon, and that only one daemon starts it.

``state/residents/<id>/resident.json`` is the machine's state and the number of the present start;
``state/residents/<id>/<number>/`` is the run directory of that start. The number is durable before anything
is executed, and a run directory is started at most once: so whatever dies, nothing is started twice.

The lock is a file of the user (not of the profile) named after the id. The shim of the resident inherits it
open, so it holds while no daemon lives.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon_core.jobs.residents.machine import Machine, Phase
from daemon_core.processes import RunPhase, outputs, read_owner, read_state
from daemon_core.settings.atomic import write_private
from daemon_core.settings.directories import make_private

STARTS_KEPT: Final = 20
"""Directories of earlier starts, for their part of the log."""
FORGET_AFTER_S: Final = 30 * 86400.0
"""What is left of a resident whose file is gone."""
_RECORD: Final = "resident.json"


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was not started here."""

    pid: int
    started: int
    command: str = ""


class Record(msgspec.Struct, kw_only=True):
    """``resident.json``."""

    machine: Machine = msgspec.field(default_factory=Machine)
    boot_id: str = ""
    """Of the machine's start that the above is about: a person's stop holds until the next one."""
    start: int = 0
    """Number of the present start, or of the last one."""
    mark: str = ""
    pending: bool = False
    """Whether that start is about to be executed: it may have been."""
    building: str = ""
    """If that start is of its build: what it is made of."""
    build_asked: bool = False
    """Whether the next start builds first, whatever has changed."""
    built: str = ""
    """What the last good build was made of."""
    adopted: Outside | None = None
    """Started elsewhere and taken on."""
    name: str = ""
    started_at: str = ""
    ended_at: str = ""
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    """Why it is as it is, as a code; empty where there is nothing to say."""
    params: dict[str, Any] = {}
    stopped: bool = False
    """Whether a person stopped it: then it does not start with the daemon."""
    with_daemon: bool = False
    """Whether it was ended along with the daemon, to be started with the next one."""
    restarts: int = 0
    """Starts by itself since a person's (or the daemon's)."""


class Place:
    """The directory of one resident."""

    def __init__(self, root: Path, ident: str) -> None:
        self.path = root / ident

    def read(self) -> Record | None:
        """The record; None if there is none, or none that can be understood."""
        try:
            return msgspec.json.decode((self.path / _RECORD).read_bytes(), type=Record)
        except (OSError, ValueError):
            return None

    def write(self, record: Record) -> None:
        """Keep the record, durably. Raises OSError."""
        make_private(self.path)
        write_private(self.path / _RECORD, msgspec.json.encode(record))

    def run_dir(self, number: int) -> Path:
        return self.path / f"{number:08d}"

    def starts(self) -> list[int]:
        """Numbers of the starts whose directories are there, oldest first."""
        try:
            return sorted(int(name) for name in os.listdir(self.path) if name.isascii() and name.isdigit())
        except FileNotFoundError:
            return []

    def prune(self, keep_bytes: int, present: int) -> None:
        """Remove the oldest starts: beyond a number, and beyond a size of all that stay."""
        total = 0
        for position, number in enumerate(reversed(self.starts())):
            run_dir = self.run_dir(number)
            total += kept_bytes(run_dir)
            if number != present and (position >= STARTS_KEPT or total > keep_bytes):
                shutil.rmtree(run_dir, ignore_errors=True)

    def log_bytes(self) -> int:
        """Of all of its log that is there."""
        return sum(kept_bytes(self.run_dir(number)) for number in self.starts())


def found_record(place: Place, boot_id: str) -> Record:
    """The record; where it is missing or damaged, what the run directories tell."""
    record = place.read()
    if record is not None:
        return record
    record = Record(boot_id=boot_id)
    for number in place.starts():
        record.start = number
    if record.start and read_state(place.run_dir(record.start)).phase is RunPhase.ALIVE:
        owner = read_owner(place.run_dir(record.start))
        record.mark = str(owner.get("mark", ""))
        record.started_at = str(owner.get("started_at", ""))
        record.machine.phase = Phase.RUNNING
    return record


def kept_bytes(run_dir: Path) -> int:
    """How much of a start's output is there."""
    return max(0, outputs.size(run_dir, "stdout") - outputs.first(run_dir, "stdout"))


def known_places(root: Path) -> list[str]:
    """Ids of the residents that something is kept of."""
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def forget(root: Path, ident: str, now: float, is_alive: Callable[[Path], bool]) -> bool:
    """Remove what is kept of a resident whose file has been gone for long. True if it was removed."""
    place = Place(root, ident)
    try:
        age_s = now - (place.path / _RECORD).stat().st_mtime
    except FileNotFoundError:
        age_s = FORGET_AFTER_S + 1
    if age_s < FORGET_AFTER_S or any(is_alive(place.run_dir(number)) for number in place.starts()):
        return False
    shutil.rmtree(place.path, ignore_errors=True)
    return True


class LockedElsewhereError(Exception):
    """Another daemon keeps this resident. ``holder`` is what it wrote about itself."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class ResidentLock:
    """Held as long as ``fd`` is open, here or in a shim."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, directory: Path, ident: str, holder: str) -> ResidentLock:
        """The lock of an id. Raises ``LockedElsewhereError``, ``OSError``."""
        make_private(directory)
        path = directory / f"{ident}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock(fd)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise LockedElsewhereError(_first_line(path)) from None
            raise  # a file system without locks
        try:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)  # no pwrite on Windows
            os.write(fd, f"{holder}\n".encode())
        except OSError:
            pass  # a full disk: the name is for whoever is refused, no more
        return cls(fd)

    def release(self) -> None:
        """Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(200).strip()
    except OSError:
        return ""


if sys.platform == "win32":  # pragma: no cover - Windows only

    def _lock(fd: int) -> None:
        import msvcrt

        # A byte far behind the content, so that the holder's name stays readable while locked.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:

    def _lock(fd: int) -> None:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
