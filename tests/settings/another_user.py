"""Code run as another user, in a process of its own: a fork of a test runner has its locks and threads."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def open_place() -> Iterator[Path]:
    """A directory that every user can reach. Not below pytest's own, which other test runs close again."""
    with tempfile.TemporaryDirectory(prefix="ostler-open-") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place
