"""``ostler models``."""

from __future__ import annotations

from urllib.parse import quote

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session, pages
from daemon_core.cli.words import plural
from daemon_core.control.client import WORK_TIMEOUT_S
from daemon_core.control.model_views import ModelsView


@click.command(cls=Command)
@click.argument("runtime")
@click.option("--refresh", is_flag=True, help="Ask the agent again, whatever is known.")
@pass_session
def models(session: Session, runtime: str, refresh: bool) -> None:
    """The models and thinking levels of an agent."""
    path = f"/v1/runtimes/{quote(runtime, safe='')}/models"
    found = session.call(ModelsView, "GET", pages(path, refresh=refresh), timeout_s=WORK_TIMEOUT_S)
    if session.json:
        session.document(found)
        return
    if found.models:
        click.echo(
            show.table(
                ("MODEL", "NAME", "THINKING"),
                (
                    (
                        f"{entry.id} (default)" if entry.default else entry.id,
                        entry.name or "-",
                        ", ".join(entry.thinking_levels) or "-",
                    )
                    for entry in found.models
                ),
            )
        )
    if found.error:
        what = f"{found.runtime} could not be asked: {show.one_line(found.error, 300)}"
        session.note(
            what, f"Shown {plural(len(found.models), 'model')} that Ostler knows" if found.models else ""
        )
    elif not found.models:
        session.note(f"{found.runtime} does not tell its models", "Any name can be given with --model")
