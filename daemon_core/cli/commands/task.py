"""``ostler task``: start, watch and end tasks."""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import Final

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.live import live_facts, request_lines
from daemon_core.cli.session import RESTART_S, Session, pages, quoted
from daemon_core.cli.transcript import Printer, WaitedTooLongError, raw_lines
from daemon_core.cli.words import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    CliError,
    condition,
    failure,
    plural,
    task_state,
    verb,
)
from daemon_core.control.client import WORK_TIMEOUT_S
from daemon_core.control.views import DelegationView, Deleted, JobView, TaskAdd, TaskReply, TaskRow, TaskView

_PROMPT_LIMIT_BYTES: Final = 4 * 1024 * 1024

task = LazyGroup(
    "task",
    {
        "add": ("task:add", "Start a task."),
        "reply": ("task:reply", "Continue a task's conversation in the same directory."),
        "list": ("task:list_", "Tasks, newest first."),
        "show": ("task:show_", "Everything about one task."),
        "logs": ("task:logs", "Its transcript."),
        "delegate": ("delegate:delegate", "Hand on work to another agent, inside a task."),
        "diff": ("diff:diff", "What it changed."),
        "answer": ("task_live:answer", "Answer what a running task asks."),
        "extend": ("task_live:extend", "Give a silent run more time."),
        "cancel": ("task:cancel", "End it."),
        "retry": ("task:retry", "Do it again."),
        "delete": ("task:delete", "Delete its conversation."),
    },
    help="Start, watch and end tasks. Ids may be shortened to a unique beginning, at least four characters.",
)


@click.command(cls=Command)
@click.argument("prompt")
@click.option("--runtime", default="", metavar="P", help="What runs it, as `ostler runtimes` has it.")
@click.option("--dir", "directory", default="", metavar="PATH", help="Your own directory to work in.")
@click.option("--repo", default="", metavar="URL", help="A repository to get into a directory of its own.")
@click.option("--ref", default="", metavar="R", help="Its branch, tag or commit.")
@click.option("--agent", default="", metavar="NAME", help="A named agent; see `ostler agent`.")
@click.option("--model", default="", metavar="M", help="Otherwise its own choice; see `ostler models`.")
@click.option("--thinking", default="", metavar="LEVEL", help="How hard it thinks, likewise.")
@click.option("--title", default="", metavar="T", help="Otherwise made from the prompt.")
@click.option(
    "--permissions", type=click.Choice(["allow", "ask", "deny"]), help="Otherwise as agent and settings say."
)
@click.option("--wait", is_flag=True, help="Show the transcript and return when the task has ended.")
@click.option("--timeout", metavar="S", help="Longest wait, in seconds or as 30m; the task goes on after it.")
@pass_session
def add(
    session: Session,
    prompt: str,
    runtime: str,
    directory: str,
    repo: str,
    ref: str,
    agent: str,
    model: str,
    thinking: str,
    title: str,
    permissions: str | None,
    wait: bool,
    timeout: str | None,
) -> int:
    """Start a task. PROMPT "-" reads it from standard input."""
    deadline = _deadline(timeout, wait)
    if repo and directory:
        raise CliError("usage", "--dir and --repo exclude each other", "Leave one out", EXIT_USAGE)
    if ref and not repo:
        raise CliError("usage", "--ref needs --repo", "Add --repo", EXIT_USAGE)
    if repo and "://" not in repo and os.path.isdir(os.path.expanduser(repo)):
        repo = os.path.abspath(os.path.expanduser(repo))
    wanted = TaskAdd(
        prompt=_prompt(prompt),
        runtime=runtime,
        directory=os.path.abspath(os.path.expanduser(directory)) if directory else "",
        repo=repo,
        ref=ref,
        agent=agent,
        model=model,
        thinking=thinking,
        title=title,
        permissions=permissions or "",
    )
    made = session.call(TaskView, "POST", "/v1/tasks", wanted, timeout_s=WORK_TIMEOUT_S)
    return _begun(session, made, wait, deadline)


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.argument("prompt")
@click.option("--wait", is_flag=True, help="Show the transcript and return when the task has ended.")
@click.option("--timeout", metavar="S", help="Longest wait, in seconds or as 30m; the task goes on after it.")
@pass_session
def reply(session: Session, ident: str, prompt: str, wait: bool, timeout: str | None) -> int:
    """Continue the conversation of a task in the same directory. PROMPT "-" reads standard input."""
    deadline = _deadline(timeout, wait)
    wanted = TaskReply(prompt=_prompt(prompt))
    path = f"/v1/tasks/{quoted(ident)}/reply"
    made = session.call(TaskView, "POST", path, wanted, timeout_s=WORK_TIMEOUT_S)
    return _begun(session, made, wait, deadline)


def _prompt(given: str) -> str:
    if given == "-":
        raw = sys.stdin.buffer.read(_PROMPT_LIMIT_BYTES + 1)
        try:
            given = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CliError(
                "invalid_input", "The prompt on standard input is not UTF-8 text", "Convert it", EXIT_USAGE
            ) from error
    try:
        size = len(given.encode("utf-8"))
    except UnicodeEncodeError as error:  # bytes of the command line that are no text in this locale
        raise CliError("invalid_input", "The prompt is not UTF-8 text", "Convert it", EXIT_USAGE) from error
    if size > _PROMPT_LIMIT_BYTES:
        raise CliError(
            "invalid_input",
            f"The prompt is longer than {_PROMPT_LIMIT_BYTES // 2**20} MiB",
            "Put it into a file and name that",
            EXIT_USAGE,
        )
    if not given.strip():
        raise CliError("invalid_input", "The prompt is empty", "Say what should be done", EXIT_USAGE)
    return given


def _deadline(timeout: str | None, wait: bool) -> float | None:
    if timeout is None:
        return None
    if not wait:
        raise CliError("usage", "--timeout needs --wait", "Add --wait", EXIT_USAGE)
    from daemon_core.cli.times import seconds

    return time.monotonic() + seconds(timeout, "--timeout")


def _begun(session: Session, made: TaskView, wait: bool, deadline: float | None) -> int:
    # What it waits for is said at once: silence looks like a fault.
    waits = condition(made.waiting.code, made.waiting.params) if made.waiting is not None else ("", "")
    if not wait:
        if session.json:
            session.document(made)
        else:
            click.echo(made.id)
            runtime = f" on {made.runtime}" if made.runtime else ""
            session.note(f"Queued{runtime}", f"`ostler task logs -f {made.id}` shows how it goes")
            if waits[0]:
                session.note(*waits)
        return 0
    if waits[0]:
        session.note(*waits)
    printer = None if session.json else Printer(made.runtime)
    try:
        for line in raw_lines(session, made.id, follow=True, deadline=deadline, reached=True):
            if printer is not None:
                printer.show(line)
        done = ended(session, made.id, deadline)
    except KeyboardInterrupt:
        raise CliError(
            "interrupted",
            f"The task {made.id} goes on",
            f"`ostler task logs -f {made.id}` shows it, `ostler task cancel {made.id}` ends it",
            EXIT_INTERRUPTED,
        ) from None
    finally:
        if printer is not None:
            printer.end()
    if session.json:
        session.document(done)
    else:
        _summary(session, done)
    return 0 if done.status == "completed" else EXIT_FAILED


def ended(session: Session, ident: str, deadline: float | None) -> TaskView:
    """The task once its state is final: its transcript may be complete a moment before."""
    while True:
        ask = functools.partial(session.client.call, TaskView, "GET", f"/v1/tasks/{ident}")
        found = session.patiently(ask, RESTART_S)
        if found.status in ("completed", "failed", "cancelled"):
            return found
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitedTooLongError(ident)
        time.sleep(0.05)


def _summary(session: Session, done: TaskView) -> None:
    took = show.between(done.started_at, done.ended_at)
    state = task_state(done.status).capitalize()
    told = f"{state} in {took}" if took and done.status == "completed" else state
    if done.failure_reason:
        told += f": {failure(done.failure_reason)}"
    if done.error:
        told += f" ({show.one_line(done.error, 300)})"
    session.note(
        told, f"`ostler task reply {done.id} PROMPT` continues" if done.status == "completed" else ""
    )


@click.command("list", cls=Command)
@click.option("--all", "include_all", is_flag=True, help="Also those that ended long ago.")
@pass_session
def list_(session: Session, include_all: bool) -> None:
    """Tasks, newest first."""
    rows = session.call(list[TaskRow], "GET", pages("/v1/tasks", all=include_all))
    if session.json:
        session.document(rows)
        return
    if not rows:
        more = "" if include_all else "; `ostler task list --all` looks further back"
        session.note(f"There are no tasks{more}", "Start one with `ostler task add PROMPT`")
        return
    short = show.prefixes([row.id for row in rows])
    click.echo(
        show.table(
            ("ID", "STATE", "RUNTIME", "CREATED", "TOOK", "TITLE"),
            (
                (
                    short[row.id],
                    task_state(row.status, row.needs_input),
                    row.agent or row.runtime,
                    show.local_time(row.created_at),
                    show.between(row.started_at, row.ended_at),
                    row.title,
                )
                for row in rows
            ),
        )
    )


@click.command("show", cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def show_(session: Session, ident: str) -> None:
    """Everything about one task."""
    found = session.call(TaskView, "GET", f"/v1/tasks/{quoted(ident)}")
    if session.json:
        session.document(found)
        return
    waiting = condition(found.waiting.code, found.waiting.params)[0] if found.waiting is not None else ""
    state = task_state(found.status, found.needs_input) + (f": {waiting}" if waiting else "")
    if found.failure_reason:
        state += f": {failure(found.failure_reason)}"
    took = show.between(found.started_at, found.ended_at)
    click.echo(
        show.facts(
            [
                ("Task", found.id),
                ("Title", show.safe(found.title)),
                ("State", state),
                ("Error", show.safe(found.error).strip()),
                ("Runtime", found.runtime),
                ("Agent", found.agent),
                ("Model", found.model),
                ("Created", show.local_time(found.created_at)),
                ("Started", show.local_time(found.started_at) if found.started_at else ""),
                ("Ended", show.local_time(found.ended_at) if found.ended_at else ""),
                ("Took", took if found.ended_at else ""),
                ("Repository", show.safe(found.repo) + (f" at {show.safe(found.ref)}" if found.ref else "")),
                ("Directory", found.work_dir or found.directory),
                ("Session", found.session_id),
                ("Server", found.server),
                ("Handed on by", found.parent_id),
                *(("Handed on", _child_line(child)) for child in found.children),
                *live_facts(found),
                *(("Usage", _usage_line(entry)) for entry in found.usage),
                ("Cost", _cost_line(found)),
                *(("Run", _run_line(run)) for run in found.runs),
            ]
        )
    )
    for line in request_lines(found):
        click.echo(line)
    if found.result.strip():
        click.echo("\n" + show.safe(found.result, colours=found.runtime == "shell").rstrip("\n"))


def _child_line(child: DelegationView) -> str:
    tools = f", {plural(child.tool_calls, 'tool call')}" if child.tool_calls else ""
    return f"{child.id} to {show.safe(child.agent or child.runtime)}: {task_state(child.status)}{tools}"


def _cost_line(found: TaskView) -> str:
    """What it cost; empty where nothing was used that is told."""
    from daemon_core.cli.commands.spend import dollars

    return dollars(found.cost, found.cost_how) if found.cost_how else ""


def _usage_line(entry: object) -> str:
    from daemon_core.protocol.wire import Usage

    assert isinstance(entry, Usage)
    cached = entry.cache_read_tokens + entry.cache_write_tokens
    told = f"{entry.input_tokens:,} in, {entry.output_tokens:,} out"
    return f"{entry.model or entry.provider}: {told}" + (f", {cached:,} cached" if cached else "")


def _run_line(run: object) -> str:
    from daemon_core.control.views import RunView

    assert isinstance(run, RunView)
    parts = [run.status.replace("_", " ")]
    parts += [f"pid {run.pid}"] if run.pid else []
    parts += [f"exit code {run.exit_code}"] if run.exit_code is not None else []
    parts += [f"signal {run.signal}"] if run.signal is not None else []
    took = show.between(run.started_at, run.ended_at)
    return ", ".join([*parts, took] if took else parts)


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option(
    "--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only what follows this line."
)
@pass_session
def logs(session: Session, ident: str, follow: bool, after: int) -> None:
    """The transcript of a task; with --json one object a line."""
    if session.json:
        out = sys.stdout.buffer
        for line in raw_lines(session, ident, after=after, follow=follow):
            out.write(line + b"\n")
            if follow:
                out.flush()
        return
    found = session.call(TaskView, "GET", f"/v1/tasks/{quoted(ident)}")
    printer = Printer(found.runtime)
    try:
        for line in raw_lines(session, found.id, after=after, follow=follow, reached=True):
            printer.show(line)
    finally:
        printer.end()
    if follow:
        _summary(session, ended(session, found.id, None))


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--jobs", "with_jobs", is_flag=True, help="End the jobs of its conversation, too.")
@pass_session
def cancel(session: Session, ident: str, with_jobs: bool) -> None:
    """End a task: everything that it started ends with it, its jobs apart (see --jobs)."""
    found = session.call(TaskView, "POST", f"/v1/tasks/{quoted(ident)}/cancel", timeout_s=WORK_TIMEOUT_S)
    told = _jobs_of_cancelled(session, found.id, with_jobs)
    if session.json:
        session.document(found)
    else:
        session.say(f"{show.one_line(found.title, 60)}: cancelled")
    if told:
        session.note(*told)


def _jobs_of_cancelled(session: Session, task_id: str, end: bool) -> tuple[str, str] | None:
    """End the jobs of a cancelled task, or say that they go on."""
    from daemon_core.control.errors import ControlError

    try:
        if end:
            ended = session.call(
                list[JobView], "POST", f"/v1/tasks/{task_id}/jobs/kill", timeout_s=WORK_TIMEOUT_S
            )
            return (f"{plural(len(ended), 'job')} of it ended, too", "") if ended else None
        jobs = session.call(list[JobView], "GET", pages("/v1/jobs", task=task_id))
    except ControlError as error:
        # The task is cancelled, and that has worked. (A run may not look at jobs that are not its own; a task
        # that never began here has none.)
        if not end or error.code == "not_found":
            return None
        raise
    going = [job for job in jobs if job.ended_at is None]
    if not going:
        return None
    return (
        f"{plural(len(going), 'job')} of its conversation {verb(len(going), 'goes', 'go')} on",
        "`ostler job list` shows them, `ostler job kill ID` ends one",
    )


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def retry(session: Session, ident: str) -> int:
    """Do an ended task again, as a new one."""
    made = session.call(TaskView, "POST", f"/v1/tasks/{quoted(ident)}/retry", timeout_s=WORK_TIMEOUT_S)
    return _begun(session, made, False, None)


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@pass_session
def delete(session: Session, ident: str) -> None:
    """Delete a task's conversation and the directory that Ostler made for it, never your own."""
    gone = session.call(Deleted, "DELETE", f"/v1/tasks/{quoted(ident)}", timeout_s=WORK_TIMEOUT_S)
    if session.json:
        session.document(gone)
        return
    removed = f" and its directory {gone.work_dir}" if gone.work_dir else ""
    session.say(f"Deleted the conversation of {plural(max(1, gone.tasks), 'task')}{removed}")
