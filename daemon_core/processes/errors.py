"""What can go wrong with a child process, sorted by what the caller can do about it.

ProcessError
├── SpawnError        nothing was executed: fix the cause (``errno``, ``what``, ``hint``)
├── EndedError        the run is over: there is nobody to write to; ``status`` says how it ended
├── LostError         the run was started and its shim is gone: end what is left of it and report it as lost
└── UnreachableError  the shim lives, but its socket cannot be had: try again later
"""

from __future__ import annotations

import errno as errors
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .state import ExitStatus, ShimInfo


class ProcessError(Exception):
    """Something about the process of a run failed."""

    def __init__(self, run_dir: Path, *details: object) -> None:
        self.run_dir = run_dir
        super().__init__(str(run_dir), *details)

    def __str__(self) -> str:
        return f"run {self.run_dir.name}: {type(self).__name__}"


class SpawnError(ProcessError):
    """The program of the run could not be executed.

    Attributes:
        errno: of the system call that failed, 0 if there was none.
        what: the step that failed: ``prepare`` (the run directory: may be tried again), ``setsid``,
        ``stdio``,
            ``chdir``, ``exec`` (the directory has an exit.json now), ``shim`` (the shim itself did not
            start).
        detail: what it was about: the program, the directory, or the words of the system.
        hint: what to do, in plain words.
    """

    def __init__(self, run_dir: Path, errno: int, what: str, detail: str) -> None:
        self.errno = errno
        self.what = what
        self.detail = detail
        super().__init__(run_dir, errno, what, detail)

    @property
    def hint(self) -> str:
        return _HINTS.get((self.what, self.errno)) or _HINTS.get(("", self.errno)) or ""

    def __str__(self) -> str:
        cause = os.strerror(self.errno) if self.errno else "no answer"
        text = f"cannot start ({self.what}) {self.detail}: {cause}"
        return f"{text}; {self.hint}" if self.hint else text


class EndedError(ProcessError):
    """The run is over."""

    def __init__(self, run_dir: Path, status: ExitStatus) -> None:
        self.status = status
        super().__init__(run_dir, status)


class LostError(ProcessError):
    """The shim died without a record of the run's end. ``info`` is what it left about itself, if anything."""

    def __init__(self, run_dir: Path, info: ShimInfo | None) -> None:
        self.info = info
        super().__init__(run_dir, info)


class UnreachableError(ProcessError):
    """The shim is alive but does not answer on its socket, nor does it make a new one."""


_HINTS = {
    ("exec", errors.ENOENT): "the program, or the interpreter it names, does not exist: check its path",
    ("exec", errors.EACCES): "the program is not executable for this user: check its permissions",
    ("exec", errors.ENOEXEC): "the file is no program for this machine: a script needs a first line with #!",
    ("exec", errors.E2BIG): "arguments and environment are too big: pass long text on stdin",
    ("chdir", errors.ENOENT): "the working directory does not exist: create it or choose another",
    ("chdir", errors.ENOTDIR): "the working directory is not a directory: choose another",
    ("chdir", errors.EACCES): "the working directory cannot be entered by this user: check its permissions",
    ("", errors.ENOSPC): "the disk is full: free some space",
    ("", errors.EDQUOT): "the disk quota is used up: free some space",
    ("", errors.EAGAIN): "no more processes can be started: a limit of the user or the system is reached",
    ("", errors.ENOMEM): "there is not enough memory to start another process",
    ("", errors.EMFILE): "too many files are open",
}
