"""``ostler resident``: long-lived agent processes that files describe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, Group, pass_session
from daemon_core.cli.resident_words import resident_hint, resident_reason
from daemon_core.cli.session import Session, quoted
from daemon_core.cli.words import (
    EXIT_CONFLICT,
    EXIT_FAILED,
    EXIT_USAGE,
    CliError,
    plural,
    refusal,
)
from daemon_core.control.resident_views import (
    ResidentClear,
    ResidentCleared,
    ResidentLogLine,
    ResidentRestart,
    ResidentsAnswer,
    ResidentsStats,
    ResidentStart,
    ResidentStats,
)
from daemon_core.control.views import ResidentView

STOP_TIMEOUT_S = 7 * 86400.0
"""A resident's own time to end is in its file; the daemon answers when it has ended."""

_STATES = {"gave_up": "gave up", "building": "being built", "waiting": "waits", "invalid": "not usable"}


@click.group(cls=Group)
def resident() -> None:
    """Long-lived agent processes: a YAML file each in the directory `residents` of the settings."""


@resident.command("list", cls=Command)
@pass_session
def list_command(session: Session) -> None:
    """Show all residents and how they are."""
    found = session.call(list[ResidentView], "GET", "/v1/residents")
    if session.json:
        session.document(found)
        return
    usable = [entry for entry in found if entry.state != "invalid"]
    if usable:
        click.echo(
            show.table(
                ("ID", "STATE", "ENABLED", "PID", "UP", "RESTARTS", "NAME"),
                (
                    (
                        entry.id,
                        _state(entry),
                        "yes" if entry.enabled else "no",
                        str(entry.pid or "-"),
                        show.between(entry.started_at, None) if entry.pid else "-",
                        str(entry.restarts),
                        show.safe(" ".join(part for part in (entry.name, entry.version) if part)),
                    )
                    for entry in usable
                ),
            )
        )
    elif not found:
        directory = session.directories.resident_files
        session.note("There are no residents", f"Describe one in {directory}/NAME.yaml")
    _explain(session, found)


@resident.command("start", cls=Command)
@click.argument("ident", metavar="[ID]", required=False)
@click.option("--all", "everyone", is_flag=True, help="All that are enabled.")
@click.option("--build", is_flag=True, help="Run its build first, whatever has changed.")
@click.option("--adopt", is_flag=True, help="Take on the one that runs already, started elsewhere.")
@pass_session
def start_command(session: Session, ident: str | None, everyone: bool, build: bool, adopt: bool) -> None:
    """Start a resident. One that runs is left alone."""
    if _everyone(ident, everyone):
        if build or adopt:
            raise CliError("usage", "--build and --adopt are for one resident", "Give its id", EXIT_USAGE)
        _tell_all(session, session.call(ResidentsAnswer, "POST", "/v1/residents/start", timeout_s=120.0))
        return
    found = session.call(
        ResidentView, "POST", _path(ident, "start"), ResidentStart(build=build, adopt=adopt), timeout_s=60.0
    )
    _tell_one(session, found)


@resident.command("stop", cls=Command)
@click.argument("ident", metavar="[ID]", required=False)
@click.option("--all", "everyone", is_flag=True, help="All that run.")
@pass_session
def stop_command(session: Session, ident: str | None, everyone: bool) -> None:
    """Ask a resident to end, and end it if it does not in the time that its file gives it. It stays stopped,
    also over restarts of the daemon, until it is started or enabled, or the machine starts anew."""
    if _everyone(ident, everyone):
        found = session.call(ResidentsAnswer, "POST", "/v1/residents/stop", timeout_s=STOP_TIMEOUT_S)
        _tell_all(session, found)
        return
    _tell_one(session, session.call(ResidentView, "POST", _path(ident, "stop"), timeout_s=STOP_TIMEOUT_S))


@resident.command("restart", cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--build", is_flag=True, help="Run its build first, whatever has changed.")
@pass_session
def restart_command(session: Session, ident: str, build: bool) -> None:
    """Stop a resident where it runs, and start it."""
    wanted = ResidentRestart(build=build)
    path = _path(ident, "restart")
    _tell_one(session, session.call(ResidentView, "POST", path, wanted, timeout_s=STOP_TIMEOUT_S))


@resident.command("kill", cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def kill_command(session: Session, ident: str) -> None:
    """End a resident at once, with everything that it has started."""
    _tell_one(session, session.call(ResidentView, "POST", _path(ident, "kill"), timeout_s=60.0))


@resident.command("enable", cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--now", is_flag=True, help="Start it, too.")
@pass_session
def enable_command(session: Session, ident: str, now: bool) -> None:
    """Have a resident started with the daemon. Changes that one value in its file."""
    found = session.call(ResidentView, "POST", _path(ident, "enable"))
    if now:
        found = session.call(ResidentView, "POST", _path(ident, "start"), ResidentStart(), timeout_s=60.0)
    _tell_switched(session, found)


@resident.command("disable", cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--now", is_flag=True, help="Stop it, too.")
@pass_session
def disable_command(session: Session, ident: str, now: bool) -> None:
    """Do not have a resident started with the daemon any more. Changes that one value in its file."""
    found = session.call(ResidentView, "POST", _path(ident, "disable"))
    if now:
        found = session.call(ResidentView, "POST", _path(ident, "stop"), timeout_s=STOP_TIMEOUT_S)
    _tell_switched(session, found)


@resident.command("clear", cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--memory", is_flag=True, help="The directories that its file names as memory.")
@click.option("--cache", is_flag=True, help="The directories that its file names as cache.")
@pass_session
def clear_command(session: Session, ident: str, memory: bool, cache: bool) -> None:
    """Empty a resident's directories. It must not run."""
    if not memory and not cache:
        raise CliError("usage", "Nothing to clear is named", "Give --memory, --cache or both", EXIT_USAGE)
    wanted = ResidentClear(memory=memory, cache=cache)
    done = session.call(ResidentCleared, "POST", _path(ident, "clear"), wanted, timeout_s=600.0)
    if session.json:
        session.document(done)
    elif not done.paths:
        session.say(f"There is nothing to clear for {done.id}")
    else:
        session.say(f"{', '.join(done.paths)} is empty now: {show.size(done.freed_bytes)} less")
    if done.left:
        raise CliError(
            "resident_clear", f"{plural(len(done.left), 'file')} could not be removed: {done.left[0]}"
        )


@resident.command("stats", cls=Command)
@click.argument("ident", metavar="[ID]", required=False)
@pass_session
def stats_command(session: Session, ident: str | None) -> None:
    """Show what a resident uses, with everything that it has started; without an id, all of them."""
    if ident is not None:
        one = session.call(ResidentStats, "GET", _path(ident, "stats"), timeout_s=30.0)
        if session.json:
            session.document(one)
        else:
            click.echo(_stats_table([one]))
        return
    found = session.call(ResidentsStats, "GET", "/v1/resident-stats", timeout_s=60.0)
    if session.json:
        session.document(found)
    elif found.residents:
        click.echo(_stats_table([*found.residents, found.total]))
    else:
        session.note("There are no residents")


@resident.command("logs", cls=Command)
@click.argument("ident", metavar="[ID]", required=False)
@click.option("-n", "--lines", default=200, show_default=True, help="So many of the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@pass_session
def logs_command(session: Session, ident: str | None, lines: int, follow: bool) -> None:
    """Show a resident's output, of all starts that are kept; without an id, that of all. With --json one
    object a line."""
    import msgspec

    base = _path(ident, "log") if ident is not None else "/v1/resident-log"
    # Not by `pages`: it leaves out a 0, which means something here.
    path = f"{base}?tail={max(0, lines)}" + ("&follow=1" if follow else "")
    decoder = msgspec.json.Decoder(ResidentLogLine)
    for raw in session.patiently(lambda: session.client.lines(path)):
        if not raw:
            continue
        line = decoder.decode(raw)
        if session.json:
            session.line(line)
        else:
            click.echo(show.safe(f"{line.resident}: {line.text}" if line.resident else line.text))


def _path(ident: str | None, what: str) -> str:
    return f"/v1/residents/{quoted(ident or '')}/{what}"


def _everyone(ident: str | None, everyone: bool) -> bool:
    if everyone == (ident is not None):
        raise CliError(
            "usage", "Either a resident or --all", "`ostler resident list` shows their ids", EXIT_USAGE
        )
    return everyone


def _state(entry: ResidentView) -> str:
    return _STATES.get(entry.state, entry.state)


def _tell_one(session: Session, found: ResidentView) -> None:
    if session.json:
        session.document(found)
    else:
        at = f" (process {found.pid})" if found.pid else ""
        session.say(f"{found.id}: {_state(found)}{at}")
        _explain(session, [found])
    if found.state in ("gave_up", "invalid"):
        raise SystemExit(EXIT_FAILED)


def _tell_switched(session: Session, found: ResidentView) -> None:
    if session.json:
        session.document(found)
        return
    when = "starts with the daemon" if found.enabled else "does not start with the daemon"
    session.say(f"{found.id} {when}; at present it is {_state(found)}")


def _tell_all(session: Session, found: ResidentsAnswer) -> None:
    if session.json:
        session.document(found)
    else:
        for entry in found.residents:
            if entry.state != "invalid":
                session.say(f"{entry.id}: {_state(entry)}")
        _explain(session, found.residents)
        for refused in found.refused:
            words = refusal(refused.code, refused.params)
            session.note(words.message, words.hint)
    if found.refused:
        raise SystemExit(EXIT_CONFLICT)


def _explain(session: Session, found: Iterable[ResidentView]) -> None:
    for entry in found:
        if not entry.reason or (entry.reason == "exited" and entry.state == "running"):
            continue
        said = show.one_line(resident_reason(entry.reason, entry.reason_params), 300)
        name = entry.name if entry.state == "invalid" else entry.id
        when = f"; next try at {show.local_time(entry.next_try_at)}" if entry.next_try_at else ""
        hint: Any = resident_hint(entry.reason, entry.reason_params, entry.id)
        session.note(f"{name}: {said}{when}", hint)


def _stats_table(found: Sequence[ResidentStats]) -> str:
    return show.table(
        ("ID", "STATE", "UP", "MEMORY", "CPU", "PROCESSES", "INSTANCES", "RESTARTS", "LOG"),
        (
            (
                entry.id or "all",
                _STATES.get(entry.state, entry.state),
                show.span(entry.uptime) if entry.uptime else "-",
                show.size(entry.memory),
                f"{entry.cpu:.1f} %",
                str(entry.processes),
                str(entry.instances),
                str(entry.restarts),
                show.size(entry.log_bytes),
            )
            for entry in found
        ),
    )
