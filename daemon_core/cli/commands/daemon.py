"""``ostler daemon``: start, stop and watch it."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.words import (
    EXIT_CONFLICT,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    NOT_RUNNING,
    START_HINT,
    CliError,
    condition,
    plural,
    sentence,
    verb,
)
from daemon_core.control.views import Barrier, DaemonStatus, Pause, StopAnswer

daemon = LazyGroup(
    "daemon",
    {
        "start": ("daemon:start", "Start it; returns once it is ready."),
        "stop": ("daemon:stop", "Stop it; runs go on without it."),
        "restart": ("daemon:restart", "Stop and start it; runs go on meanwhile."),
        "status": ("daemon:status", "What it does."),
        "logs": ("daemon:logs", "The end of its log."),
        "pause": ("daemon:pause", "Take no tasks for a while."),
        "resume": ("daemon:resume", "Take tasks again."),
        "run": ("daemon:run", "Run it here, in the foreground; for supervisors."),
    },
    help="Start, stop and watch the daemon.",
)


@click.command(cls=Command)
@click.option("--foreground", is_flag=True, help="Accepted for clarity: it always stays in the foreground.")
@pass_session
def run(session: Session, foreground: bool) -> None:
    """Run the daemon in this process; it logs to standard error and to its file."""
    from daemon_core.cli import lifecycle
    from daemon_core.settings import installed, lock

    directories = session.directories
    directories.ensure()
    if lock.held(directories.lock_file):
        pid = lock.holder(directories.lock_file)
        raise CliError(
            "already_running",
            f"Ostler's daemon is already running (pid {pid or 'unknown'})",
            "See `ostler daemon status`",
            EXIT_CONFLICT,
        )
    arguments = lifecycle.command(directories, "--foreground")
    # Run from anywhere, a checkout included: -m looks in the current directory first.
    os.chdir(installed.working_directory())
    sys.stdout.flush()
    if sys.platform == "win32":  # there execve would leave the daemon behind and the console to the shell
        import subprocess

        child = subprocess.Popen(arguments, env=lifecycle.environment())
        while True:
            try:
                sys.exit(child.wait())
            except KeyboardInterrupt:
                continue  # the daemon hears of it, too, and ends
    os.execve(arguments[0], arguments, lifecycle.environment())


@click.command(cls=Command)
@pass_session
def start(session: Session) -> None:
    """Start the daemon; returns once it is ready, or says why it is not."""
    from daemon_core.cli import lifecycle

    found, was_running = lifecycle.start(session)
    _started(session, found, "is already running" if was_running else "is running")


def _started(session: Session, found: DaemonStatus, what: str) -> None:
    if session.json:
        session.document(found)
        return
    session.say(f"Ostler's daemon {what} (pid {found.pid}), with {plural(found.runtimes, 'runtime')}")
    _tell_conditions(found)


@click.command(cls=Command)
@click.option("--runs", is_flag=True, help="End the runs too.")
@click.option("--force", is_flag=True, help="End a daemon that does not answer.")
@pass_session
def stop(session: Session, runs: bool, force: bool) -> None:
    """Stop the daemon. What agents do goes on without it and is picked up at the next start."""
    from daemon_core.cli import lifecycle

    answer = lifecycle.stop(session, runs=runs, force=force)
    if session.json:
        stopped = answer or StopAnswer()
        session.document({"was_running": answer is not None, **_plain(stopped)})
    elif answer is None:
        session.say(NOT_RUNNING)
    else:
        session.say(_stopped(answer))


def _plain(answer: StopAnswer) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(answer))


def _stopped(answer: StopAnswer) -> str:
    told = "Ostler's daemon has stopped"
    if answer.runs_ended:
        told += f"; {plural(answer.runs_ended, 'run')} ended with it"
    if answer.runs_alive:
        count = answer.runs_alive
        told += f". {plural(count, 'run')} {verb(count, 'goes', 'go')} on without the daemon"
    if answer.jobs_alive:
        count = answer.jobs_alive
        told += f". {plural(count, 'job')} {verb(count, 'goes', 'go')} on"
        told += "" if answer.runs_alive else " without the daemon"
    return told


@click.command(cls=Command)
@click.option("--force", is_flag=True, help="End a daemon that does not answer.")
@pass_session
def restart(session: Session, force: bool) -> None:
    """Stop and start the daemon; what agents do goes on meanwhile."""
    from daemon_core.cli import lifecycle

    answer = lifecycle.stop(session, runs=False, force=force, restart=True)
    found, _ = lifecycle.start(session)
    what = "has restarted" if answer is not None else "was not running and has been started"
    _started(session, found, what)
    if answer is not None and answer.runs_alive and not session.json:
        session.say(f"{plural(answer.runs_alive, 'run')} went on meanwhile")


@click.command(cls=Command)
@pass_session
def status(session: Session) -> int:
    """What the daemon does. Exit code 3 where it does not answer."""
    from daemon_core.cli import lifecycle

    found = lifecycle.status(session)
    answers = found.status != "stopped" and found.api[0] > 0 and not _mute(found)
    if session.json:
        session.document(found)
    elif found.status == "stopped":
        click.echo(sentence(NOT_RUNNING, START_HINT), err=True)
    else:
        _describe(found)
    return 0 if answers else EXIT_UNREACHABLE


def _mute(found: DaemonStatus) -> bool:
    return any(entry.code == "daemon_not_answering" for entry in found.conditions)


def _describe(found: DaemonStatus) -> None:
    from daemon_core.cli.show import local_time, span

    state = {"running": "Running", "starting": "Starting", "stopping": "Stopping"}.get(
        found.status, found.status
    )
    facts = [f"pid {found.pid}"] if found.pid else []
    facts += [f"version {found.version}"] if found.version else []
    facts += [f"port {found.port}"] if found.port else []
    since = f" for {span(found.uptime)}" if found.uptime >= 1 else ""
    click.echo(f"{state}{since} ({', '.join(facts)}).")
    if _mute(found):
        _tell_conditions(found)
        return
    click.echo(
        f"{found.active_runs} of {plural(found.slots, 'slot')} in use, {found.queued} waiting. "
        f"{plural(found.runtimes, 'runtime')}."
    )
    if found.needs_input:
        count = found.needs_input
        click.echo(f"{plural(count, 'task')} {verb(count, 'needs', 'need')} an answer from you.")
    if found.barrier is not None:
        click.echo(sentence(_barrier(found.barrier)))
    for connection in found.connections:
        told = connection.status.replace("_", " ")
        if connection.reason:
            params = {"server": connection.name, **connection.reason_params}
            told += f": {condition(connection.reason, params)[0]}"
            told += f" (since {local_time(connection.since)})" if connection.since else ""
        if connection.next_try_at:
            told += f"; next try at {local_time(connection.next_try_at)}"
        click.echo(f"{connection.name}: {told}.")
    if found.spend is not None and (found.spend.spent or found.spend.limit):
        from daemon_core.cli.commands.spend import today_sentence

        click.echo(today_sentence(found.spend))
    if found.undelivered:
        click.echo(f"{plural(found.undelivered, 'report')} to deliver.")
    _tell_conditions(found)


def _barrier(barrier: Barrier) -> str:
    from daemon_core.cli.show import local_time

    if barrier.reason == "update":
        return "An update is being applied: no new tasks are taken"
    until = f"until {local_time(barrier.until)}" if barrier.until else "until `ostler daemon resume`"
    return f"Paused {until}: no new tasks are taken, running ones go on"


def _tell_conditions(found: DaemonStatus) -> None:
    from daemon_core.cli.show import local_time

    for entry in found.conditions:
        what, hint = condition(entry.code, entry.params)
        if entry.since:
            what += f" (since {local_time(entry.since)})"
        if entry.next_try_at:
            what += f"; next try at {local_time(entry.next_try_at)}"
        click.echo(sentence(what, hint))


@click.command(cls=Command)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@click.option("-n", "--lines", "count", type=click.IntRange(0), default=100, show_default=True, metavar="N")
@pass_session
def logs(session: Session, follow: bool, count: int) -> None:
    """The end of the daemon's log. Works with no daemon running."""
    from daemon_core.cli.show import safe
    from daemon_core.control import logtail

    path = session.directories.log_file
    found = logtail.follow(path, count) if follow else iter(logtail.tail(path, count))
    empty = True
    for line in found:
        empty = False
        if session.json:
            session.line({"line": line.decode("utf-8", "replace")})
        else:
            click.echo(safe(line.decode("utf-8", "replace")))
    if empty and not path.exists():
        session.note(f"There is no log yet at {path}", "`ostler daemon start` starts the daemon")


@click.command(cls=Command)
@click.option("--for", "for_", metavar="D", help='How long: "30m", "2h".')
@click.option("--until", metavar="T", help='Until when: "18:00", "tomorrow", "2026-05-04 18:00".')
@pass_session
def pause(session: Session, for_: str | None, until: str | None) -> None:
    """Take no tasks, for a time or until `ostler daemon resume`; running ones go on. Holds over restarts."""
    from daemon_core.cli import times

    end = None
    if for_ is not None and until is not None:
        raise CliError("usage", "--for and --until exclude each other", "Give one of them", EXIT_USAGE)
    if for_ is not None:
        from datetime import UTC, datetime, timedelta

        length_s = times.seconds(for_, "--for")
        if length_s <= 0:
            raise CliError("usage", "--for must be longer than nothing", 'Give "30m", say', EXIT_USAGE)
        try:
            end = times.stamp(datetime.now(UTC) + timedelta(seconds=length_s))
        except OverflowError as error:
            raise CliError("usage", "--for is too long", "Leave it out", EXIT_USAGE) from error
    elif until is not None:
        end = times.stamp(times.moment(until, "--until"))
    found = session.call(DaemonStatus, "POST", "/v1/daemon/pause", Pause(until=end))
    _told_barrier(session, found)


@click.command(cls=Command)
@pass_session
def resume(session: Session) -> None:
    """Take tasks again."""
    _told_barrier(session, session.call(DaemonStatus, "POST", "/v1/daemon/resume"))


def _told_barrier(session: Session, found: DaemonStatus) -> None:
    if session.json:
        session.document(found)
    elif found.barrier is None:
        session.say("Tasks are taken again")
    else:
        session.say(_barrier(found.barrier))
