"""``ostler desktop``, and ``ostler`` alone."""

from __future__ import annotations

from typing import NoReturn

import click

from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.words import EXIT_USAGE, CliError


def no_desktop(session: Session) -> NoReturn:
    raise CliError(
        "no_desktop",
        "This build of Ostler has no desktop yet",
        "Start the daemon with `ostler daemon start` and a first task with `ostler task add PROMPT`; "
        "`ostler --help` shows the rest",
        EXIT_USAGE,
    )


@click.command(cls=Command)
@pass_session
def desktop(session: Session) -> None:
    """Open the desktop."""
    no_desktop(session)
