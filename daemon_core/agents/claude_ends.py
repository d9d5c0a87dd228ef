"""How a run of Claude Code ended: the verdict, and its failure reasons. The rules are in ``claude``."""

from __future__ import annotations

from typing import Final

from daemon_core.agents.claude_state import Result, State
from daemon_core.agents.ends import exit_text, without_result
from daemon_core.agents.events import Outcome
from daemon_core.agents.limits import limit_of
from daemon_core.agents.statuses import reason_of_status
from daemon_core.protocol import failures

_REFUSED: Final = ("no conversation found", "--resume requires a valid session")


def verdict(state: State, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
    """What became of the run; see ``family.Reader.outcome``."""
    result = state.result
    ended = result is not None and not state.turn_open
    error = ""
    reason = ""
    if result is not None and ended and result.success:
        if exit_code == 0 and not signal:
            reason = failures.poison_of(result.text) or ""
            if not reason:
                output = "\n\n".join(part for part in (state.earlier, result.text) if part.strip())
                return Outcome(success=True, output=output, session_id=state.session_id, usage=state.usage)
            error = result.text.strip()
        else:
            error = f"the agent said that it was done, but then {exit_text(exit_code, signal)}"
            reason = failures.AGENT_PROCESS
    elif result is not None and ended:
        error = result.error
        reason = _reason_of(result)
    else:
        error, reason = without_result(exit_code, signal, stderr_tail.strip()[-2000:])
    if state.interrupted:
        reason = failures.CANCELLED
    refused = _resume_refused(state, error, stderr_tail)
    limit = None
    if not refused and not state.interrupted and not (result is not None and ended and result.success):
        limit = limit_of(
            error,
            status=result.status if result is not None and ended else 0,
            kind="usage" if state.resets_at else "",
            resets_at=state.resets_at or None,
        )
        if limit is not None and reason in (failures.AGENT_PROCESS, failures.AGENT_UNKNOWN):
            reason = failures.AGENT_QUOTA if limit.kind == "usage" else failures.AGENT_RATE_LIMIT
    return Outcome(
        success=False,
        output=result.text if result is not None and result.success else "",
        error=error,
        reason=reason,
        session_id="" if refused else state.session_id,
        usage=state.usage,
        resume_refused=refused,
        limit=limit,
    )


def _reason_of(result: Result) -> str:
    """The failure reason of a failed result. The HTTP status counts for more than numbers in the text."""
    if result.subtype == "error_max_turns" or result.terminal == "max_turns":
        return failures.ITERATION_LIMIT
    if result.terminal == "prompt_too_long":
        return failures.AGENT_CONTEXT
    said = failures.classify(result.error)
    reason = reason_of_status(result.status, said)
    if reason is not None:
        return reason
    if said == failures.AGENT_UNKNOWN and result.terminal.startswith("aborted_"):
        return failures.AGENT_PROCESS
    return said


def _resume_refused(state: State, error: str, stderr_tail: str) -> bool:
    """Whether a failed run failed because its session is gone, so that a fresh one may be tried.

    Never after the model has said or done anything: a second try would do it again.
    """
    if not state.resume or state.progress:
        return False
    told = f"{error}\n{stderr_tail}".lower()
    if any(phrase in told for phrase in _REFUSED):
        return True
    shown = state.session_id or (state.result.session_id if state.result is not None else "")
    return shown not in ("", state.resume)
