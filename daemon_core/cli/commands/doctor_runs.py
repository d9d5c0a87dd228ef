"""``ostler doctor --run-agents``: a tiny real task for each agent: there is no other way to know it works.

It uses the user's account with the agent's maker, so it is done only when asked for. The task is the embedded
server's, in a directory that Ostler makes; both are removed afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from daemon_core.cli import show
from daemon_core.cli.checks import Check
from daemon_core.cli.commands.task import ended
from daemon_core.cli.session import Session
from daemon_core.cli.transcript import WaitedTooLongError, raw_lines
from daemon_core.cli.words import failure, refusal, unreachable
from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError
from daemon_core.control.views import Deleted, RuntimeView, TaskAdd, TaskView

LIMIT_S: Final = 180.0
EXPECTED: Final = "OK"
_PROMPT: Final = f"Reply with the single word {EXPECTED} and nothing else. Do not use any tool."
_SHELL: Final = "shell"


def dry_runs(session: Session, named: Iterable[str], *, all_of_them: bool) -> Iterator[Check]:
    """Start a task for each agent that is named, or for each that is online, one after the other."""
    wanted = list(dict.fromkeys(named))
    try:
        found = session.client.call(list[RuntimeView], "GET", "/v1/runtimes")
    except (DaemonUnreachableError, ControlError) as error:
        yield Check("dry run", False, f"The agents cannot be run: {error}", "Start the daemon first")
        return
    if all_of_them:
        online = [entry.provider for entry in found if entry.status == "online" and entry.provider != _SHELL]
        wanted = list(dict.fromkeys([*wanted, *online]))
    if not wanted:
        yield Check("dry run", True, "No agent is online, so none was run")
    for provider in wanted:
        session.note(f"Asking {provider} to answer one word; this uses your account with it")
        yield _dry_run(session, provider)


def _dry_run(session: Session, provider: str) -> Check:
    name = f"run of {provider}"
    prompt = f"echo {EXPECTED}" if provider == _SHELL else _PROMPT
    began = time.monotonic()
    try:
        made = session.client.call(
            TaskView, "POST", "/v1/tasks", TaskAdd(prompt=prompt, runtime=provider, title="ostler doctor")
        )
        try:
            for _ in raw_lines(session, made.id, follow=True, deadline=began + LIMIT_S, reached=True):
                pass
            done = ended(session, made.id, began + LIMIT_S)
        finally:
            _remove(session, made.id)
    except WaitedTooLongError:
        what = f"It did not answer within {LIMIT_S:g} s"
        return Check(name, False, what, "`ostler daemon logs` may say why")
    except ControlError as error:
        words = refusal(error.code, error.params)
        return Check(name, False, words.message, words.hint)
    except DaemonUnreachableError as error:
        words = unreachable(error.why)
        return Check(name, False, words.message, words.hint)
    return _verdict(name, done, time.monotonic() - began)


def _verdict(name: str, done: TaskView, took_s: float) -> Check:
    took = f"{took_s:.1f} s"
    if done.status != "completed":
        why = failure(done.failure_reason) if done.failure_reason else done.status
        said = f" ({show.one_line(done.error, 300)})" if done.error else ""
        return Check(name, False, f"Its task failed after {took}: {why}{said}", "Run it by itself once")
    if EXPECTED.lower() in done.result.lower():
        return Check(name, True, f"It answered in {took}")
    said = show.one_line(done.result, 100) or "nothing"
    return Check(name, True, f"It answered in {took}, though not what was asked: {said}")


def _remove(session: Session, ident: str) -> None:
    """End the task if it goes on, and remove all of it."""
    try:
        session.client.call(TaskView, "POST", f"/v1/tasks/{ident}/cancel")
    except (ControlError, DaemonUnreachableError):
        pass  # it has ended
    try:
        ended(session, ident, time.monotonic() + 30.0)
        session.client.call(Deleted, "DELETE", f"/v1/tasks/{ident}")
    except (ControlError, DaemonUnreachableError, WaitedTooLongError) as error:
        session.note(f"The task of this check is still there: {error}", f"`ostler task delete {ident}`")
