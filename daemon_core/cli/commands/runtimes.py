"""``ostler runtimes``."""

from __future__ import annotations

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session, pages
from daemon_core.cli.words import runtime_reason
from daemon_core.control.client import WORK_TIMEOUT_S
from daemon_core.control.views import RuntimeView


@click.command(cls=Command)
@click.option("--refresh", is_flag=True, help="Look for agents again first.")
@pass_session
def runtimes(session: Session, refresh: bool) -> None:
    """The agents of this machine, also those that cannot be used, with the reason."""
    found = session.call(
        list[RuntimeView], "GET", pages("/v1/runtimes", refresh=refresh), timeout_s=WORK_TIMEOUT_S
    )
    if session.json:
        session.document(found)
        return
    if not found:
        session.note("No agent was found", "Install one, then `ostler runtimes --refresh`")
        return
    click.echo(
        show.table(
            ("RUNTIME", "VERSION", "STATE", "BUSY", "SERVER", "PATH"),
            (
                (
                    entry.provider,
                    entry.version or "-",
                    entry.status,
                    str(entry.busy),
                    entry.connection or "-",
                    entry.path or "-",
                )
                for entry in found
            ),
        )
    )
    for entry in found:
        if entry.reason:
            reason = runtime_reason(entry.reason, entry.reason_params)
            session.note(f"{entry.provider} cannot be used: {show.one_line(reason, 300)}")
