"""What a run directory tells about its run. Reads only; cheap, synchronous, from any process.

Rules, in this order: ``exit.json`` is there: ended (the tree is gone, even if the shim is still letting go of
its locks). The lock is held: alive. ``shim.json`` is there: lost. None of these: never started.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


_T = TypeVar("_T")

BLANKED_LEAST_BYTES = 8
"""Nothing shorter is a secret, and it may be anywhere."""


class RunPhase(enum.Enum):
    """How far a run has got, as its directory tells."""

    NEVER_STARTED = "never_started"  # nothing was executed: it may be started (again)
    ALIVE = "alive"  # a shim holds the lock; its child may still be about to be executed
    ENDED = "ended"  # exit.json is there
    LOST = "lost"  # it was started and its shim is gone: processes of it may still live


class ShimInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``shim.json``. A pid is only good together with its start time and the boot."""

    pid: int
    started: int  # clock ticks since boot (Linux), else microseconds since 1970, approximate
    boot_id: str
    child_pid: int
    child_started: int
    socket: str
    cgroup: str | None = None
    subreaper: bool = False
    version: int = 1

    @property
    def shim_pid(self) -> int:
        return self.pid

    @property
    def shim_started(self) -> int:
        return self.started


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``exit.json``. Exactly one of ``code`` and ``signal`` is set, unless the child was never executed."""

    code: int | None
    signal: int | None
    ended_at: str  # RFC 3339, UTC
    # exited: by itself; killed: on request (`end`, SIGTERM to the shim); timed_out: by its time limit;
    # spawn_failed
    reason: str
    error: str = ""
    swept: int = 0  # processes that the child left behind and that were killed


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a run directory."""

    phase: RunPhase
    info: ShimInfo | None = None  # None: not started, or ALIVE and about to start
    exit: ExitStatus | None = None  # set exactly if ENDED


def read_state(run_dir: Path) -> RunState:
    """Looks at ``run_dir``. A directory that does not exist counts as never started.

    Raises OSError if the directory cannot be read.
    """
    # The lock first: a run that ends between the two looks has its exit.json by then.
    held = is_locked(run_dir / "lock")
    info = _read(run_dir / "shim.json", ShimInfo)
    status = _read(run_dir / "exit.json", ExitStatus)
    if status is not None:
        return RunState(phase=RunPhase.ENDED, info=info, exit=status)
    if held:
        return RunState(phase=RunPhase.ALIVE, info=info)
    if info is not None or (run_dir / "shim.json").exists():
        return RunState(phase=RunPhase.LOST, info=info)
    return RunState(phase=RunPhase.NEVER_STARTED)


def read_owner(run_dir: Path) -> dict[str, Any]:
    """``owner.json``, or an empty dictionary if it is missing or damaged."""
    try:
        found = msgspec.json.decode((run_dir / "owner.json").read_bytes())
    except (OSError, ValueError):  # ValueError: no JSON, or bytes that are no text
        return {}
    return found if isinstance(found, dict) else {}


def is_of_this_boot(info: ShimInfo) -> bool:
    """Whether the machine has not been started anew since that run; True where nobody can tell."""
    try:
        present = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return True
    return info.boot_id in ("", present)


def remove_secrets(run_dir: Path) -> None:
    """Removes what must not outlive a run, from the directory of one that is over."""
    left = [*run_dir.glob("spec.*")]
    for path in left:
        with contextlib.suppress(OSError):
            _blank_in_record(path)
    for path in [run_dir / "claim.json", run_dir / "spec", *left]:
        with contextlib.suppress(OSError):
            path.unlink()


def _blank_in_record(path: Path) -> None:
    """As a shim does at its end: what a file of secrets has added to the record of stdin is blanked."""
    secret = path.read_bytes()
    record = (path.parent / "stdin").read_bytes()
    if len(secret) < BLANKED_LEAST_BYTES or secret not in record:
        return
    with open(path.parent / "stdin", "r+b") as stream:
        stream.write(record.replace(secret, b"*" * len(secret)))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:  # no JSON, of another shape, or bytes that are no text
        # Written in one piece, so somebody else's doing, or a power cut: as good as none.
        return None


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock file ``path``. Raises OSError if it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        else:
            # Shared: two who look at the same time do not take each other for the shim.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
