"""A job's command as a script of its own, so that no quote, variable or line of it is lost on the way.

Where there is a POSIX shell it is bash (else sh); on Windows Git's bash, else cmd.exe.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

SHELL_NAME: Final = "command.sh"
BATCH_NAME: Final = "command.cmd"


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be written into the job's directory, and how it is run from there."""

    name: str
    content: bytes
    program: tuple[str, ...]
    """What comes before the path of the file."""


def script_of(command: str, env: Mapping[str, str]) -> Script:
    """The script of a command line. Looks at the disk."""
    if sys.platform == "win32":
        bash = _git_bash(env)
        if bash is None:
            content = "@echo off\r\n" + command.replace("\r\n", "\n").replace("\n", "\r\n") + "\r\n"
            cmd = env.get("COMSPEC") or "cmd.exe"
            return Script(
                name=BATCH_NAME, content=content.encode("utf-8", "surrogateescape"), program=(cmd, "/d", "/c")
            )
        return _shell(command, (bash,))
    path = env.get("PATH") or os.defpath
    bash = shutil.which("bash", path=path) or shutil.which("bash") or ""
    return _shell(command, (bash or shutil.which("sh", path=path) or "/bin/sh",))


def _shell(command: str, program: tuple[str, ...]) -> Script:
    return Script(name=SHELL_NAME, content=f"{command}\n".encode("utf-8", "surrogateescape"), program=program)


def _git_bash(env: Mapping[str, str]) -> str | None:
    """Git's own bash: the one of Windows' Linux subsystem, which is in the PATH too, sees other files."""
    roots = [env.get(name, "") for name in ("ProgramFiles", "ProgramW6432", "LocalAppData")]
    git = shutil.which("git", path=env.get("PATH"))
    places = [Path(root) / "Git" / "bin" / "bash.exe" for root in roots if root]
    if git is not None:
        places.insert(0, Path(git).parents[1] / "bin" / "bash.exe")
    return next((str(place) for place in places if place.is_file()), None)
