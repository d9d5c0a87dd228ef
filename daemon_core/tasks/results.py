"""What a task came to: from the end of a run (or from what prevented one) to the last reports.

Fail closed: only an explicit success is a success. The server's word stands where it
came first; then there is nothing to say but the usage, and the result is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from daemon_core.agents.events import Limit, Outcome
from daemon_core.protocol import failures
from daemon_core.protocol.wire import (
    CancelAckRequest,
    CompleteRequest,
    FailRequest,
    Parked,
    Usage,
    UsageRequest,
)
from daemon_core.tasks.run import RunEnd, StopReason
from daemon_core.tasks.translate import storable_text
from daemon_core.tasks.watchdog import WatchLimits

ENDED_WITH_DAEMON = "the run was ended together with the daemon"
WENT_DOWN = "the machine or the run's keeper went down while the agent worked"
TICKS: Final = 10_000_000_000
"""Of a dollar, as servers count."""


class Result(msgspec.Struct, kw_only=True):
    """The end of a task as the journal keeps it. ``outcome`` is a ``journal.records.TaskOutcome``."""

    outcome: str
    output: str = ""
    error: str = ""
    reason: str = ""
    session: str = ""
    usage: list[Usage] = []
    limit: Limit | None = None
    """The limit of the account that ended the run."""
    parked: Parked | None = None
    """With the outcome ``parked``: what the hub is told."""


def of_run(
    end: RunEnd, *, session: str, usage: Sequence[Usage], server_status: str, limits: WatchLimits
) -> Result:
    """The result of a task whose last run has ended.

    Args:
        session: the task's session as far as known before.
        usage: what earlier runs of the task have used.
        server_status: what ended the task at its server, if that came first.
    """
    outcome = end.outcome or Outcome(success=False, error=WENT_DOWN, reason=failures.RUNTIME_RECOVERY)
    if end.taken_down and not outcome.success and outcome.limit is None:
        # An orderly shutdown is no other end than a power cut: the work goes on in the same session.
        outcome = msgspec.structs.replace(outcome, error=WENT_DOWN, reason=failures.RUNTIME_RECOVERY)
    usage = add_usage(usage, outcome.usage)
    session = outcome.session_id or session
    if end.exit is not None and end.exit.reason == "spawn_failed":
        text = end.exit.error or "the agent could not be started"
        outcome = Outcome(
            success=False, error=text, reason=failures.classify(end.exit.error or "exit status")
        )
    poison = failures.poison_of(outcome.output) if outcome.success else None
    if poison is not None:
        outcome = msgspec.structs.replace(outcome, success=False, error=outcome.output, reason=poison)
    if not outcome.success:
        outcome = _explain_stop(outcome, end, limits)
    verdict = "completed" if outcome.success else "failed"
    error, reason = "", ""
    if not outcome.success:
        error = outcome.error or "the agent failed without a word"
        reason = outcome.reason or failures.classify(outcome.error)
    return Result(
        outcome=by_server(server_status) if server_status else verdict,
        output=storable_text(outcome.output),
        error=storable_text(error),
        reason=reason,
        session=session,
        usage=usage,
        limit=outcome.limit if verdict == "failed" and end.stopped is None else None,
    )


def failed(error: str, reason: str, *, session: str, usage: Sequence[Usage], server_status: str) -> Result:
    """The result of a task that fails without a run, or with one that is not worth judging."""
    return Result(
        outcome=by_server(server_status) if server_status else "failed",
        error=storable_text(error),
        reason="" if server_status else reason,
        session=session,
        usage=list(usage),
    )


def without_agent(server_status: str) -> Result:
    """The result of a task for which no agent is run. It names no session: a later turn resumes that of the
    task before."""
    return Result(outcome=by_server(server_status) if server_status else "completed")


def after(earlier: str, result: Result) -> Result:
    """The result of a task that has said something in earlier runs, which it had completed."""
    if not earlier or result.outcome != "completed":
        return result
    parts = [part for part in (earlier, result.output) if part.strip()]
    return msgspec.structs.replace(result, output="\n\n".join(parts))


def by_server(server_status: str) -> str:
    """The outcome of a task that its server has ended or lost."""
    return "cancelled" if server_status == "cancelled" else "abandoned"


def counted(usage: Sequence[Usage]) -> list[Usage]:
    """What a server is told of a usage: the entries that count something."""
    return [as_reported(entry) for entry in usage if _tokens(entry)]


def usage_reports(told: Sequence[Usage]) -> list[tuple[str, bytes]]:
    """The report of a usage (``counted``) for the outbox; none where there is nothing to tell. Said again it
    replaces what was said before."""
    return [("usage", msgspec.json.encode(UsageRequest(usage=list(told))))] if told else []


def reports_of(
    result: Result, work_dir: str, branch: str = "", retired: str = "", *, told: Sequence[Usage] = ()
) -> list[tuple[str, bytes]]:
    """The last reports for the outbox, in order: usage (also of a cancelled task), then the one last word;
    for a task that its server has cancelled, that its run is over.

    Args:
        branch: What the task has worked on, where that is one thing; "" else.
        retired: The session that was to be resumed and that the agent did not know; "" for none.
        told: The usage that is in the outbox already, or was.
    """
    used = counted(result.usage)
    reports = usage_reports(used) if used != list(told) else []
    session, where = result.session or None, work_dir or None
    if result.outcome == "completed":
        complete = CompleteRequest(
            output=result.output, branch_name=branch or None, session_id=session, work_dir=where
        )
        _retire(complete, retired)
        reports.append(("complete", msgspec.json.encode(complete)))
    elif result.outcome in ("failed", "parked"):
        fail = FailRequest(
            error=result.error, failure_reason=result.reason or None, session_id=session, work_dir=where
        )
        if branch:
            fail.branch_name = branch
        _retire(fail, retired)
        if result.parked is not None:
            fail.parked = result.parked
        reports.append(("fail", msgspec.json.encode(fail)))
    elif result.outcome == "cancelled":
        # After everything else: nothing more of the task is to come.
        ack = CancelAckRequest(branch_name=branch or None, durable_work_dir=where)
        reports.append(("cancel_ack", msgspec.json.encode(ack)))
    return reports


def _retire(report: CompleteRequest | FailRequest, retired: str) -> None:
    """Say that a session is not to be handed out again, and where nothing has taken its place, that too."""
    if retired and retired != report.session_id:
        report.retired_session_id = retired
        if not report.session_id:
            report.session_rollout_missing = True


def as_reported(usage: Usage) -> Usage:
    """As a server is told it. What it cost is told where the agent has said it of all the tokens."""
    ticks: int | msgspec.UnsetType = msgspec.UNSET
    if usage.cost_usd is not msgspec.UNSET and usage.cost_partial is not True:
        ticks = round(usage.cost_usd * TICKS) or msgspec.UNSET
    return msgspec.structs.replace(
        usage, cost_usd=msgspec.UNSET, cost_partial=msgspec.UNSET, cost_usd_ticks=ticks
    )


def add_usage(first: Sequence[Usage], second: Sequence[Usage]) -> list[Usage]:
    """The sum per provider and model, never below zero. A cost that is known of some of it alone is kept as
    such."""
    total: dict[tuple[str, str], Usage] = {}
    for entry in (*first, *second):
        found = total.setdefault(
            (entry.provider, entry.model), Usage(provider=entry.provider, model=entry.model)
        )
        found_before = _tokens(found)
        found.input_tokens += max(0, entry.input_tokens)
        found.output_tokens += max(0, entry.output_tokens)
        found.cache_read_tokens += max(0, entry.cache_read_tokens)
        found.cache_write_tokens += max(0, entry.cache_write_tokens)
        _add_cost(found, entry, first=found_before == 0)
    return list(total.values())


def _add_cost(total: Usage, entry: Usage, *, first: bool) -> None:
    """``total`` has the tokens of ``entry`` already; ``first``: and no others."""
    if entry.cost_usd is not msgspec.UNSET:
        known = 0.0 if total.cost_usd is msgspec.UNSET else total.cost_usd
        if total.cost_usd is msgspec.UNSET and not first:
            total.cost_partial = True
        total.cost_usd = known + max(0.0, entry.cost_usd)
        if entry.cost_partial:
            total.cost_partial = True
    elif total.cost_usd is not msgspec.UNSET and _tokens(entry):
        total.cost_partial = True


def _explain_stop(outcome: Outcome, end: RunEnd, limits: WatchLimits) -> Outcome:
    match end.stopped:
        case StopReason.SILENCE if end.silent == "request":
            silent = f"nobody answered what the agent asked within the limit ({limits.request_s:.0f} s)"
            return msgspec.structs.replace(outcome, error=silent, reason=failures.IDLE_WATCHDOG)
        case StopReason.SILENCE if end.silent == "progress":
            stuck = (
                f"codex semantic inactivity timeout: it made no progress for longer than the limit"
                f" ({limits.progress_s:.0f} s)"
            )
            return msgspec.structs.replace(outcome, error=stuck, reason=failures.CODEX_SEMANTIC_INACTIVITY)
        case StopReason.SILENCE:
            silent = (
                f"the agent was silent for longer than the limit ({limits.idle_s:.0f} s,"
                f" with a tool at work {limits.tool_s:.0f} s)"
            )
            return msgspec.structs.replace(outcome, error=silent, reason=failures.IDLE_WATCHDOG)
        case StopReason.TIME_LIMIT:
            late = f"timed out after {limits.run_s:.0f} s"
            return msgspec.structs.replace(outcome, error=late, reason=failures.TIMEOUT)
        case StopReason.DAEMON:
            return msgspec.structs.replace(outcome, error=ENDED_WITH_DAEMON, reason=failures.CANCELLED)
        case _:
            return outcome


def _tokens(entry: Usage) -> int:
    return entry.input_tokens + entry.output_tokens + entry.cache_read_tokens + entry.cache_write_tokens
