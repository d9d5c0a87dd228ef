"""``ostler task answer`` and ``extend``: what a running task needs of the user."""

from __future__ import annotations

from typing import Final, Literal, cast

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session, quoted
from daemon_core.cli.times import seconds
from daemon_core.control.client import WORK_TIMEOUT_S
from daemon_core.control.views import TaskAnswer, TaskExtend, TaskView

DEFAULT_EXTENSION: Final = "30m"
_DONE: Final = {
    "allow": "allowed",
    "allow-task": "allowed, also what is like it for the rest of the task",
    "deny": "denied",
}


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.argument("request", metavar="REQUEST")
@click.argument("decision", type=click.Choice(["allow", "allow-task", "deny"]))
@click.option("--text", default="", metavar="T", help="The answer to a question, or why not.")
@pass_session
def answer(session: Session, ident: str, request: str, decision: str, text: str) -> None:
    """Answer a permission request or a question; `ostler task show ID` lists what is open.

    A question is answered with `allow --text ANSWER`.
    """
    wanted = TaskAnswer(decision=cast("Literal['allow', 'allow-task', 'deny']", decision), text=text)
    path = f"/v1/tasks/{quoted(ident)}/requests/{quoted(request)}/answer"
    found = session.call(TaskView, "POST", path, wanted, timeout_s=WORK_TIMEOUT_S)
    if session.json:
        session.document(found)
    else:
        session.say(f"{show.one_line(found.title, 60)}: {_DONE[decision]}")


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.argument("duration", default=DEFAULT_EXTENSION, metavar="[DURATION]")
@pass_session
def extend(session: Session, ident: str, duration: str) -> None:
    """Give a silent run more time (30 minutes unless said otherwise) before it is ended."""
    wanted = TaskExtend(seconds=seconds(duration, "DURATION"))
    path = f"/v1/tasks/{quoted(ident)}/extend"
    found = session.call(TaskView, "POST", path, wanted, timeout_s=WORK_TIMEOUT_S)
    if session.json:
        session.document(found)
        return
    ends = found.watch.ends_at if found.watch is not None else None
    until = f"; if it stays silent it is ended at {show.local_time(ends)}" if ends else ""
    session.say(f"{show.one_line(found.title, 60)}: has more time{until}")
