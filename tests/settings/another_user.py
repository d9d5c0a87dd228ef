"""Code run as another user, in a process of its own: a fork of a test runner has its locks and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
_DROP = f"""
import encodings.idna, fcntl, os, pwd, stat, sys, tomllib
from daemon_core.settings import atomic, directories, edit, errors, file
def become_another():
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
"""


def run_as_another(code: str, *arguments: str) -> str:
    """What ``code`` printed.

    It calls ``become_another()`` once it has imported what it needs: the interpreter itself may be where only
    root can read.
    """
    done = subprocess.run(
        [sys.executable, "-c", _DROP + code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_to_all(path: Path) -> None:
    """Let every user reach a place below pytest's temporary directory."""
    for place in (path, *path.parents):
        if place.stat().st_uid == os.geteuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
