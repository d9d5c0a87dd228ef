"""Where things are in the source tree, and what kind of machine this is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

PACKAGING: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = PACKAGING.parent
CACHE: Final = SOURCE / ".cache" / "bundle"
FIRST_COMMIT_TIME: Final = 1_700_000_000
"""Stands for the time of the commit where there is no git."""


def platform_name() -> str:
    """The platform a payload runs on, as it is written in the names of releases: ``linux-x86_64``."""
    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, "linux")
    machine = platform.machine().lower()
    return f"{system}-{ {'amd64': 'x86_64', 'aarch64': 'arm64'}.get(machine, machine) }"


def commit() -> str:
    """The commit that is checked out, empty if that cannot be told."""
    return _git("rev-parse", "HEAD")


def source_time() -> int:
    """The time that everything built from this source carries: the commit's (or ``SOURCE_DATE_EPOCH``)."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given or _git("log", "-1", "--format=%ct") or FIRST_COMMIT_TIME)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, check=False, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
