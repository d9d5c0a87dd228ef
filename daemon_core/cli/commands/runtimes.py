"""``ostler runtimes``: the agents of this machine, and what can be done with one of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session, session_of
from daemon_core.cli.session import Session, pages, quoted
from daemon_core.cli.words import EXIT_USAGE, CliError, plural, runtime_hint, runtime_reason, verb
from daemon_core.control.client import WORK_TIMEOUT_S
from daemon_core.control.runtime_requests import ProfilePath, SetPath
from daemon_core.control.views import RuntimeView


class _Group(LazyGroup):
    def invoke(self, ctx: click.Context) -> object:
        if not ctx._protected_args and not ctx.args:
            _list(session_of(ctx), refresh=bool(ctx.params.get("refresh")))
            return None
        return super().invoke(ctx)


runtimes = _Group(
    "runtimes",
    {
        "restart": ("runtimes:restart", "Look for an agent again and register it anew; its tasks go on."),
        "off": ("runtimes:off", "Take no more tasks for an agent; those that run go on."),
        "on": ("runtimes:on", "Take tasks for it again."),
        "set-path": ("runtimes:set_path", "Name the program of a custom profile on this machine."),
    },
    help="The agents of this machine, also those that cannot be used, with the reason.",
    invoke_without_command=True,
    no_args_is_help=False,
)
runtimes.params.insert(0, click.Option(["--refresh"], is_flag=True, help="Look for agents again first."))


@click.command(cls=Command)
@click.argument("runtime")
@pass_session
def restart(session: Session, runtime: str) -> None:
    """Look for an agent again and register it anew. RUNTIME is a name (then it is done everywhere), or the id
    of one runtime or its beginning. Tasks that run go on."""
    found = _do(session, runtime, "restart")
    if not session.json:
        _tell(session, found, "registered again")


@click.command(cls=Command)
@click.argument("runtime")
@pass_session
def off(session: Session, runtime: str) -> None:
    """Take no more tasks for an agent until `ostler runtimes on`; restarts of the daemon do not change that.
    RUNTIME is a name (then it is off everywhere), or the id of one runtime or its beginning."""
    found = _do(session, runtime, "off")
    if session.json:
        return
    _tell(session, found, "switched off")
    busy = sum(entry.busy for entry in found)
    if busy:
        session.note(f"{plural(busy, 'task')} of it {verb(busy, 'goes', 'go')} on")


@click.command(cls=Command)
@click.argument("runtime")
@pass_session
def on(session: Session, runtime: str) -> None:
    """Take tasks for an agent again that was switched off."""
    found = _do(session, runtime, "on")
    if not session.json:
        _tell(session, found, "switched on")


@click.command(cls=Command)
@click.argument("custom", metavar="PROFILE")
@click.argument("path", required=False)
@click.option("--unset", is_flag=True, help="Use the profile's own command again.")
@pass_session
def set_path(session: Session, custom: str, path: str | None, unset: bool) -> None:
    """Name the program that is started for a custom profile on this machine. PROFILE is its id, the beginning
    of it, or its name; an empty PATH (or --unset) takes it back."""
    if unset and path:
        raise CliError("usage", "Either a path or --unset", "Leave one out", EXIT_USAGE)
    if not unset and path is None:
        raise CliError("usage", "No path is given", "Give one, or --unset to take it back", EXIT_USAGE)
    whole = os.path.abspath(os.path.expanduser(path)) if path else ""
    found = session.call(
        ProfilePath,
        "POST",
        f"/v1/profiles/{quoted(custom)}/path",
        SetPath(path=whole),
        timeout_s=WORK_TIMEOUT_S,
    )
    if session.json:
        session.document(found)
        return
    name = found.name or found.profile
    if found.path:
        session.say(f"{name} is started with {found.path} on this machine")
    else:
        session.say(f"{name} is started with its own command {found.command}".rstrip())
    if found.reason:
        session.note(f"{name} cannot be used: {show.one_line(found.reason, 300)}")


def _do(session: Session, runtime: str, what: str) -> list[RuntimeView]:
    found = session.call(
        list[RuntimeView], "POST", f"/v1/runtimes/{quoted(runtime)}/{what}", timeout_s=WORK_TIMEOUT_S
    )
    if session.json:
        session.document(found)
    return found


def _tell(session: Session, found: Sequence[RuntimeView], done: str) -> None:
    for entry in found:
        where = f" at {entry.connection}" if entry.connection else ""
        session.say(f"{_name(entry)}{where} is {done}")
        if entry.reason and entry.reason != "switched_off":
            _explain(session, entry)


def _list(session: Session, *, refresh: bool) -> None:
    found = session.call(
        list[RuntimeView], "GET", pages("/v1/runtimes", refresh=refresh), timeout_s=WORK_TIMEOUT_S
    )
    if session.json:
        session.document(found)
        return
    if not found:
        session.note("No agent was found", "Install one, then `ostler runtimes --refresh`")
        return
    several = max(Counter(entry.provider for entry in found).values()) > 1
    ids = show.prefixes([entry.id for entry in found]) if several else {}
    click.echo(
        show.table(
            (*(("ID",) if several else ()), "RUNTIME", "VERSION", "STATE", "BUSY", "SERVER", "PATH"),
            (
                (
                    *((ids[entry.id],) if several else ()),
                    _name(entry),
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
            _explain(session, entry)
        elif entry.signed_in == "no":
            session.note(f"Nobody is signed in to {_name(entry)}", entry.hint)
    untried = [_name(entry) for entry in found if entry.status == "online" and not entry.verified]
    if untried:
        session.note(f"Nobody has tried these with Ostler yet: {', '.join(dict.fromkeys(untried))}")


def _name(entry: RuntimeView) -> str:
    return show.one_line(entry.name or entry.profile, 40) if entry.profile else entry.provider


def _explain(session: Session, entry: RuntimeView) -> None:
    reason = show.one_line(runtime_reason(entry.reason, entry.reason_params), 300)
    if entry.reason == "switched_off":
        session.note(
            f"{_name(entry)} is {reason}", f"`ostler runtimes on {entry.id}` takes tasks for it again"
        )
    else:
        session.note(
            f"{_name(entry)} cannot be used: {reason}", runtime_hint(entry.reason, entry.reason_params)
        )
