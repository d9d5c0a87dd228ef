"""``ostler job``: commands that go on in the background, for persons and from inside tasks."""

from __future__ import annotations

import os
import shlex
import sys
import time
import uuid
from typing import Final

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.job_link import JobLink
from daemon_core.cli.job_output import Printer
from daemon_core.cli.session import Session, pages, quoted
from daemon_core.cli.words import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TIMEOUT, EXIT_USAGE, CliError
from daemon_core.control.job_views import JobDigest, JobInput, JobOutput, JobRun
from daemon_core.control.views import JobView

WAIT_S: Final = 20.0
"""How long one question waits for news; then it is asked again."""
_PAUSE_S: Final = 0.05
"""Before the next question: an answer without news may come at once, as from a daemon that stops."""
_SIGNAL_BASE: Final = 128

job = LazyGroup(
    "job",
    {
        "run": ("job:run", "Start a command."),
        "list": ("job:list_", "Jobs, newest first."),
        "show": ("job:show_", "Everything about one job."),
        "output": ("job:output", "What it has written."),
        "input": ("job:input_", "Answer what it asks."),
        "wait": ("job:wait", "Wait until it has ended."),
        "kill": ("job:kill", "End it with everything it has started."),
    },
    help="Commands that go on in the background. Inside a task: those of its conversation. Ids may be"
    " shortened to a unique beginning, at least four characters.",
)


@click.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--name", default="", metavar="N", help="A short name for it.")
@click.option("--dir", "directory", default="", metavar="D", help="Where it runs; otherwise here.")
@click.option(
    "--timeout", metavar="S", help="Time limit, in seconds or as 30m; 0: none. Otherwise an hour (a setting)."
)
@click.option("--wait", "wait_", is_flag=True, help="Return when it has ended: 0 if it is done, 1 if not.")
@click.option("--no-pty", is_flag=True, help="No terminal: standard error is kept apart.")
@click.option("--no-wake", is_flag=True, help="Inside a task: its end is no reason for a new turn.")
@click.option(
    "--foreground-for",
    metavar="S",
    help="Show its output and pass on its exit code for that long; then it goes on in the background.",
)
@pass_session
def run(
    session: Session,
    command: tuple[str, ...],
    name: str,
    directory: str,
    timeout: str | None,
    wait_: bool,
    no_pty: bool,
    no_wake: bool,
    foreground_for: str | None,
) -> int:
    """Start COMMAND in the background; what follows `--` is the command.

    A single word is taken as a shell would take it; of several, each is one argument.
    """
    from daemon_core.cli.times import seconds

    if wait_ and foreground_for is not None:
        raise CliError("usage", "--wait and --foreground-for exclude each other", "Leave one out", EXIT_USAGE)
    attached_s = seconds(foreground_for, "--foreground-for") if foreground_for is not None else None
    link = JobLink(session)
    wanted = JobRun(
        command=command[0] if len(command) == 1 else shlex.join(command),
        id=uuid.uuid4().hex,
        name=name,
        directory=os.path.abspath(os.path.expanduser(directory)) if directory else _here(),
        fallback=not directory,
        time_limit=seconds(timeout, "--timeout") if timeout is not None else None,
        terminal=not no_pty,
        wake=not no_wake,
    )
    try:
        wanted.command.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CliError("invalid_input", "The command is not UTF-8 text", "Convert it", EXIT_USAGE) from error
    # From here on: a Ctrl-C ends the waiting, never the job.
    made = link.ask(JobView, "POST", "/jobs", wanted)
    if made.status == "failed" and made.started_at is None:
        link.ask(JobView, "POST", f"/jobs/{made.id}/heard")
        raise CliError("job_not_started", f"The job could not be started: {made.error}", "", EXIT_FAILED)
    try:
        if attached_s is not None:
            return _attached(session, link, made, time.monotonic() + attached_s)
        if wait_:
            return _waited(session, link, made)
    except KeyboardInterrupt:
        raise _interrupted(made.id) from None
    if session.json:
        session.document(made)
    else:
        click.echo(made.id)
        session.note("Started", f"`ostler job output -f {made.id[:8]}` shows how it goes")
    return 0


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise CliError(
            "directory_not_found",
            "The directory this was called in is gone",
            "Give one with --dir",
            EXIT_USAGE,
        ) from error


def _attached(session: Session, link: JobLink, made: JobView, deadline: float) -> int:
    """Output as it comes until the deadline, then the job is on its own."""
    printer = Printer(sys.stdout.isatty()) if not session.json else None
    over = _follow(link, made.id, "stdout", printer, deadline)
    if not over:
        found = link.ask(JobView, "GET", f"/jobs/{made.id}")
        if session.json:
            session.document(found)
        session.note(
            f"It goes on in the background as job {made.id}",
            f"`ostler job output -f {made.id[:8]}` shows it, `ostler job wait {made.id[:8]}` waits for it",
        )
        return 0
    if not made.terminal:
        _follow(link, made.id, "stderr", Printer(sys.stderr.isatty(), err=True), None)
    found = _heard(link, link.ask(JobView, "GET", f"/jobs/{made.id}"))
    if session.json:
        session.document(found)
    if found.status == "timed_out":
        session.note("It was ended at its time limit")
        return EXIT_TIMEOUT
    if found.exit_code is not None:
        return found.exit_code
    if found.status != "done":
        session.note(_outcome(found))
    return _SIGNAL_BASE + found.signal if found.signal is not None else EXIT_FAILED


def _waited(session: Session, link: JobLink, made: JobView) -> int:
    """Until it has ended; an agent gets beginning and end of the output, a person all of it as it comes."""
    if not session.json and not link.inside:
        _follow(link, made.id, "stdout", Printer(sys.stdout.isatty()), None)
    found = _until_ended(link, made.id, None)
    assert found is not None
    if session.json:
        session.document(found)
    else:
        if link.inside:
            _digest(link, made.id, "stdout")
        session.note(_outcome(found))
    _heard(link, found)
    return EXIT_TIMEOUT if found.status == "timed_out" else _exit_of(found)


def _heard(link: JobLink, found: JobView) -> JobView:
    """Inside a task, whoever waits is who would be told: it need not be told once more."""
    return link.ask(JobView, "POST", f"/jobs/{found.id}/heard") if link.inside else found


def _exit_of(found: JobView) -> int:
    return 0 if found.status == "done" else EXIT_FAILED


def _until_ended(link: JobLink, ident: str, deadline: float | None) -> JobView | None:
    """The job when it has ended; None when the time is up before."""
    while True:
        left = WAIT_S if deadline is None else max(0.0, min(WAIT_S, deadline - time.monotonic()))
        found = link.ask(
            JobView, "GET", pages(f"/jobs/{quoted(ident)}/wait", seconds=f"{left:.3f}"), deadline=deadline
        )
        if found.ended_at is not None:
            return found
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(_PAUSE_S)


def _follow(
    link: JobLink,
    ident: str,
    stream: str,
    printer: Printer | None,
    deadline: float | None,
    *,
    offset: int = 0,
    limit: int | None = None,
    follow: bool = True,
) -> bool:
    """Print output from an offset on; True when that was all there will be."""
    try:
        while True:
            wait = WAIT_S if follow else 0.0
            if deadline is not None:
                wait = max(0.0, min(wait, deadline - time.monotonic()))
            path = pages(
                f"/jobs/{quoted(ident)}/output", offset=offset, limit=limit, stream=stream, wait=f"{wait:.3f}"
            )
            found = link.ask(JobOutput, "GET", path, deadline=deadline)
            if found.offset > offset and found.dropped_to is not None:
                _tell_dropped(found)
            if found.data and printer is not None:
                printer.show(found.data)
            offset = found.next_offset
            if limit is not None:
                limit -= len(found.data)
                if limit <= 0:
                    return found.ended and offset >= found.size
            if found.ended and offset >= found.size:
                return True
            if not follow and not found.data:
                return False
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if not found.data:
                time.sleep(_PAUSE_S)
    finally:
        if printer is not None:
            printer.end()


def _tell_dropped(found: JobOutput) -> None:
    """Beside the output, which may go into a file."""
    click.echo(
        f"[... bytes {found.dropped_from} to {found.dropped_to} were dropped, since the output is longer"
        f" than is kept; it goes on at {found.dropped_to} ...]",
        err=True,
    )


def _digest(link: JobLink, ident: str, stream: str) -> None:
    found = link.ask(JobDigest, "GET", pages(f"/jobs/{quoted(ident)}/digest", stream=stream))
    if found.text:
        click.echo(found.text.rstrip("\n"))


def _outcome(found: JobView) -> str:
    took = show.between(found.started_at, found.ended_at)
    told = {
        "done": "Done",
        "failed": "Failed",
        "killed": "Killed",
        "timed_out": "Ended at its time limit",
        "lost": "Lost",
        "running": "Running",
    }.get(found.status, found.status)
    if found.status == "killed" and found.ended_at is None:
        told = "Being killed"
    if found.stalled:
        told += ", seems to wait for input"
    if took and found.ended_at is not None:
        told += f" after {took}" if found.status != "done" else f" in {took}"
    if found.signal is not None and found.status == "failed":
        told += f", by signal {found.signal}"
    elif found.exit_code:
        told += f", exit code {found.exit_code}"
    why = "what supervised it was ended from outside" if found.status == "lost" else found.error
    return told + (f": {show.one_line(why, 300)}" if why else "")


def _interrupted(ident: str) -> CliError:
    return CliError(
        "interrupted",
        f"The job {ident} goes on",
        f"`ostler job output -f {ident[:8]}` shows it, `ostler job kill {ident[:8]}` ends it",
        EXIT_INTERRUPTED,
    )


@click.command("list", cls=Command)
@pass_session
def list_(session: Session) -> None:
    """Jobs, newest first: those that go on, and those that ended not long ago."""
    rows = JobLink(session).ask(list[JobView], "GET", "/jobs")
    if session.json:
        session.document(rows)
        return
    if not rows:
        session.note("There are no jobs", "Start one with `ostler job run -- COMMAND`")
        return
    short = show.prefixes([row.id for row in rows])
    click.echo(
        show.table(
            ("ID", "STATE", "STARTED", "TOOK", "OUTPUT", "COMMAND"),
            (
                (
                    short[row.id],
                    "waits for input" if row.stalled else row.status.replace("_", " "),
                    show.local_time(row.started_at or row.created_at),
                    show.between(row.started_at, row.ended_at),
                    show.size(row.output_bytes + row.errors_bytes),
                    row.name or row.command,
                )
                for row in rows
            ),
        )
    )


@click.command("show", cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def show_(session: Session, ident: str) -> None:
    """Everything about one job."""
    found = JobLink(session).ask(JobView, "GET", f"/jobs/{quoted(ident)}")
    if session.json:
        session.document(found)
        return
    limit = f"{show.span(found.time_limit)}" if found.time_limit else "none"
    click.echo(
        show.facts(
            [
                ("Job", found.id),
                ("Name", show.safe(found.name)),
                ("State", _outcome(found)),
                ("Command", show.one_line(found.command, 500)),
                ("Directory", found.directory),
                ("Task", found.task_id),
                ("Process", str(found.pid) if found.pid and found.ended_at is None else ""),
                ("Started", show.local_time(found.started_at) if found.started_at else ""),
                ("Ended", show.local_time(found.ended_at) if found.ended_at else ""),
                ("Time limit", limit),
                ("Output", f"{found.output_path} ({show.size(found.output_bytes)})"),
                (
                    "Errors",
                    f"{found.errors_path} ({show.size(found.errors_bytes)})" if found.errors_path else "",
                ),
            ]
        )
    )


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@click.option("--offset", type=click.IntRange(0), metavar="N", help="Begin at this byte.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many bytes.")
@click.option("--stderr", "errors", is_flag=True, help="Standard error, of a job without a terminal.")
@click.option("--raw", is_flag=True, help="As it came, with the control sequences of a terminal.")
@click.option("--all", "everything", is_flag=True, help="All of it, inside a task, too.")
@pass_session
def output(
    session: Session,
    ident: str,
    follow: bool,
    offset: int | None,
    limit: int | None,
    errors: bool,
    raw: bool,
    everything: bool,
) -> None:
    """What a job has written so far. Inside a task: beginning and end, at most 16,000 characters."""
    link = JobLink(session)
    stream = "stderr" if errors else "stdout"
    plain = not (follow or raw or everything or offset is not None or limit is not None)
    if plain and session.json:
        path = pages(f"/jobs/{quoted(ident)}/digest", stream=stream)
        session.document(link.ask(JobDigest, "GET", path))
        return
    if plain and link.inside:
        _digest(link, ident, stream)
        return
    whole = link.ask(JobView, "GET", f"/jobs/{quoted(ident)}").id  # a prefix may become ambiguous meanwhile
    if session.json and not follow:
        path = pages(f"/jobs/{whole}/output", offset=offset or None, limit=limit, stream=stream)
        found = link.ask(JobOutput, "GET", path)
        session.document(
            {
                "id": found.id,
                "offset": found.offset,
                "next_offset": found.next_offset,
                "size": found.size,
                "ended": found.ended,
                "dropped_from": found.dropped_from,
                "dropped_to": found.dropped_to,
                "text": found.data.decode("utf-8", "replace"),
            }
        )
        return
    printer = Printer(sys.stdout.isatty(), raw=raw, line=session.line if session.json else None)
    try:
        _follow(link, whole, stream, printer, None, offset=offset or 0, limit=limit, follow=follow)
    except KeyboardInterrupt:
        raise _interrupted(whole) from None


@click.command("input", cls=Command)
@click.argument("ident", metavar="ID")
@click.argument("text", required=False)
@click.option("--no-newline", is_flag=True, help="Without Enter behind it.")
@click.option("--eof", is_flag=True, help="Nothing more follows.")
@pass_session
def input_(session: Session, ident: str, text: str | None, no_newline: bool, eof: bool) -> None:
    """Say TEXT to a job that waits for input. TEXT "-" reads it from standard input."""
    if text is None and not eof:
        raise CliError(
            "usage", "There is nothing to say", 'Give a TEXT ("" for Enter alone), or --eof', EXIT_USAGE
        )
    if text == "-":
        text = sys.stdin.buffer.read(64 * 1024).decode("utf-8", "replace").rstrip("\n")
    wanted = JobInput(text=text or "", newline=not no_newline and text is not None, eof=eof)
    found = JobLink(session).ask(JobView, "POST", f"/jobs/{quoted(ident)}/input", wanted, again=False)
    if session.json:
        session.document(found)
    else:
        session.note("Said")


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--timeout", metavar="S", help="Longest wait, in seconds or as 30m; the job goes on after it.")
@pass_session
def wait(session: Session, ident: str, timeout: str | None) -> int:
    """Wait until a job has ended: 0 if it is done, 1 if it failed or was ended, 124 if the time is up."""
    from daemon_core.cli.times import seconds

    deadline = time.monotonic() + seconds(timeout, "--timeout") if timeout is not None else None
    link = JobLink(session)
    whole = link.ask(JobView, "GET", f"/jobs/{quoted(ident)}").id
    try:
        found = _until_ended(link, whole, deadline)
    except KeyboardInterrupt:
        raise _interrupted(whole) from None
    if found is None:
        raise CliError(
            "wait_timeout",
            "The time is up; the job goes on",
            f"`ostler job output -f {whole[:8]}` shows it, `ostler job kill {whole[:8]}` ends it",
            EXIT_TIMEOUT,
        )
    if session.json:
        session.document(found)
    else:
        session.say(_outcome(found))
    _heard(link, found)
    return _exit_of(found)


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def kill(session: Session, ident: str) -> None:
    """End a job with everything that it has started. It stays killed, and nobody is told of its end."""
    found = JobLink(session).ask(JobView, "POST", f"/jobs/{quoted(ident)}/kill")
    if session.json:
        session.document(found)
    elif found.status != "killed":
        session.say(f"It had ended before: {_outcome(found).lower()}")
    else:
        session.say("Killed" if found.ended_at is not None else "It is being killed and takes its time")
