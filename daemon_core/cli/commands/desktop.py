"""``ostler desktop``, and ``ostler`` alone: becomes the desktop's program."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.words import EXIT_USAGE, CliError
from daemon_core.settings import installed

_INSTEAD = (
    "Start the daemon with `ostler daemon start` and a first task with `ostler task add PROMPT`; "
    "`ostler --help` shows the rest"
)


def open_desktop(session: Session, *, background: bool = False) -> None:
    """Become the desktop; comes back only on Windows, at its end. Raises ``CliError``."""
    if session.json:
        raise CliError("usage", "The desktop has no JSON form", _INSTEAD, EXIT_USAGE)
    if importlib.util.find_spec("PySide6") is None or importlib.util.find_spec("desktop") is None:
        raise CliError("no_desktop", "This installation has no desktop", _INSTEAD, EXIT_USAGE)
    on_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not on_screen and not os.environ.get("QT_QPA_PLATFORM"):
        raise CliError("no_screen", "There is no screen here", _INSTEAD, EXIT_USAGE)
    profile = session.directories.profile
    program = installed.program("ostler-desktop")
    argv = [*program, "--profile", profile, *(["--background"] if background else [])]
    if sys.platform == "win32":
        import subprocess

        subprocess.run(argv, check=False)
        return
    os.execv(argv[0], argv)


@click.command(cls=Command)
@click.option("--background", is_flag=True, help="Only the icon, no window.")
@pass_session
def desktop(session: Session, background: bool) -> None:
    """Open the desktop: a tray icon, and the daemon if it does not run. One that is open comes up."""
    open_desktop(session, background=background)
