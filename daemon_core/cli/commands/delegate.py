"""``ostler task delegate``: a task hands on work to another agent, and hears of its end."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from typing import Final

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, Group, pass_session
from daemon_core.cli.commands.task import _prompt
from daemon_core.cli.job_link import JobLink
from daemon_core.cli.session import Session, pages, quoted
from daemon_core.cli.words import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TIMEOUT,
    EXIT_USAGE,
    CliError,
    failure,
    task_state,
)
from daemon_core.control.delegation_views import DelegationAdd
from daemon_core.control.views import DelegationView

WAIT_S: Final = 20.0
"""How long one question waits for news; then it is asked again."""
TELL_EVERY_S: Final = 15.0
"""Somebody who waits is told this often how far it is: silence looks like a fault."""
_PATH: Final = "/delegations"


class _DelegateGroup(Group):
    """``delegate PROMPT`` and ``delegate list``: what is no command of the group is a prompt."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = list(args)
        while rest and rest[0] == "--json":
            rest.pop(0)
        if rest and rest[0] not in self.commands and rest[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    "delegate",
    cls=_DelegateGroup,
    short_help="Hand on work to another agent.",
    no_args_is_help=True,
)
def delegate() -> None:
    """Inside a task: hand on a part of the work to another agent of this machine.

    `ostler task delegate PROMPT [--agent NAME] [--wait]` starts it as a task of its own, which knows nothing
    but PROMPT. Without --wait you are told of its end when it comes.
    """


@delegate.command("run", cls=Command, hidden=True)
@click.argument("prompt")
@click.option("--agent", default="", metavar="NAME", help="A named agent; see `ostler agent`.")
@click.option("--runtime", default="", metavar="P", help="A kind of agent; otherwise your own.")
@click.option("--model", default="", metavar="M", help="Otherwise its own choice; see `ostler models`.")
@click.option("--thinking", default="", metavar="LEVEL", help="How hard it thinks, likewise.")
@click.option("--title", default="", metavar="T", help="Otherwise made from the prompt.")
@click.option(
    "--dir", "directory", default="", metavar="PATH", help="A free directory; otherwise one of its own."
)
@click.option("--wait", is_flag=True, help="Return when it is over, with its result.")
@click.option("--timeout", metavar="S", help="Longest wait, in seconds or as 30m; the task goes on after it.")
@pass_session
def run(
    session: Session,
    prompt: str,
    agent: str,
    runtime: str,
    model: str,
    thinking: str,
    title: str,
    directory: str,
    wait: bool,
    timeout: str | None,
) -> int:
    """Hand on PROMPT ("-" reads it from standard input)."""
    from daemon_core.cli.times import seconds

    if timeout is not None and not wait:
        raise CliError("usage", "--timeout needs --wait", "Add --wait", EXIT_USAGE)
    limit_s = seconds(timeout, "--timeout") if timeout is not None else None
    deadline = time.monotonic() + limit_s if limit_s is not None else None
    link = _link(session)
    wanted = DelegationAdd(
        prompt=_prompt(prompt),
        request=uuid.uuid4().hex,
        agent=agent,
        runtime=runtime,
        model=model,
        thinking=thinking,
        title=title,
        directory=os.path.abspath(os.path.expanduser(directory)) if directory else "",
    )
    made = link.ask(DelegationView, "POST", _PATH, wanted)
    if wait:
        return _waited(session, link, made, deadline)
    if session.json:
        session.document(made)
    else:
        click.echo(made.id)
        session.note(f"Handed on to {made.agent or made.runtime}", "You are told when it is over")
    return 0


@delegate.command("list", cls=Command)
@pass_session
def list_(session: Session) -> None:
    """What was handed on from this conversation."""
    found = _link(session).ask(list[DelegationView], "GET", _PATH)
    if session.json:
        session.document(found)
        return
    if not found:
        session.note("Nothing was handed on from here")
        return
    short = show.prefixes([each.id for each in found])
    click.echo(
        show.table(
            ("ID", "STATE", "AGENT", "TOOLS", "DOES", "TITLE"),
            (
                (
                    short[each.id],
                    task_state(each.status),
                    each.agent or each.runtime,
                    str(each.tool_calls),
                    show.one_line(each.last_tool or each.last_message, 40),
                    each.title,
                )
                for each in found
            ),
        )
    )


@delegate.command("result", cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--wait", is_flag=True, help="Return when it is over.")
@click.option("--timeout", metavar="S", help="Longest wait, in seconds or as 30m.")
@pass_session
def result(session: Session, ident: str, wait: bool, timeout: str | None) -> int:
    """How one of them is, and its result once it is over."""
    from daemon_core.cli.times import seconds

    if timeout is not None and not wait:
        raise CliError("usage", "--timeout needs --wait", "Add --wait", EXIT_USAGE)
    limit_s = seconds(timeout, "--timeout") if timeout is not None else None
    link = _link(session)
    found = link.ask(DelegationView, "GET", f"{_PATH}/{quoted(ident)}")
    if wait:
        deadline = time.monotonic() + limit_s if limit_s is not None else None
        return _waited(session, link, found, deadline)
    if found.over:
        return _over(session, link, found)
    if session.json:
        session.document(found)
    else:
        click.echo(_progress(found))
    return 0


@delegate.command("cancel", cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def cancel(session: Session, ident: str) -> None:
    """End one of them, with everything that it has handed on."""
    found = _link(session).ask(DelegationView, "POST", f"{_PATH}/{quoted(ident)}/cancel")
    if session.json:
        session.document(found)
    else:
        session.say(f"{show.one_line(found.title, 60)}: cancelled")


def _link(session: Session) -> JobLink:
    link = JobLink(session)
    if not link.inside:
        raise CliError(
            "not_in_a_task",
            "This works inside a task only: it hands on a part of its work",
            "Outside, start a task with `ostler task add`",
            EXIT_USAGE,
        )
    return link


def _waited(session: Session, link: JobLink, found: DelegationView, deadline: float | None) -> int:
    """Wait for an end, over restarts of the daemon."""
    told_at, path = time.monotonic(), f"{_PATH}/{found.id}"
    try:
        while True:
            left_s = WAIT_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                break
            wanted = f"{min(left_s, WAIT_S):.3f}"
            found = link.ask(DelegationView, "GET", pages(f"{path}/wait", seconds=wanted), deadline=deadline)
            if found.over:
                return _over(session, link, found)
            if time.monotonic() - told_at >= TELL_EVERY_S:
                told_at = time.monotonic()
                session.note(_progress(found))
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):  # the daemon finds out by itself, a little later
            link.ask(DelegationView, "POST", f"{path}/leave", again=False)
        raise CliError(
            "interrupted", f"The task {found.id} goes on", "You are told when it is over", EXIT_INTERRUPTED
        ) from None
    found = link.ask(DelegationView, "POST", f"{path}/leave")
    raise CliError(
        "timed_out",
        f"The task {found.id} is not over yet ({_progress(found)})",
        "It goes on, and you are told when it is over; `ostler task delegate cancel` ends it",
        EXIT_TIMEOUT,
    )


def _over(session: Session, link: JobLink, found: DelegationView) -> int:
    """Show an end, then say that it was shown."""
    if session.json:
        session.document(found)
    elif found.status == "completed":
        click.echo(show.safe(found.result, colours=found.runtime == "shell").rstrip("\n"))
        where = f"It worked in {found.work_dir}" if found.work_dir else ""
        session.note("Completed", where + (f", on the branch {found.branch}" if found.branch else ""))
        if left := [entry.text for entry in found.to_do if entry.status != "completed"]:
            session.note("Its to-do list is not done: " + "; ".join(show.one_line(text, 80) for text in left))
    else:
        told = task_state(found.status).capitalize()
        if found.failure_reason:
            told += f": {failure(found.failure_reason)}"
        if found.error:
            told += f" ({show.one_line(found.error, 300)})"
        session.note(told)
    link.ask(DelegationView, "POST", f"{_PATH}/{found.id}/heard")
    return 0 if found.status == "completed" else EXIT_FAILED


def _progress(found: DelegationView) -> str:
    # Its turn can be over and it not: it is woken by what it has begun itself.
    state = "waits for what it has begun" if found.status == "completed" else task_state(found.status)
    told = f"{found.agent or found.runtime}: {state}"
    if found.tool_calls:
        told += f", {found.tool_calls} tool calls, last {show.safe(found.last_tool)}"
    if found.last_message:
        told += f", said: {show.one_line(found.last_message, 120)}"
    return told
