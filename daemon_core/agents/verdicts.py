"""How the run of a one-shot program is judged, from what its stream said and how its process ended.

Fail closed: a success is exit code 0 and an explicit, successful end in the stream and an answer that is no
poison.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from daemon_core.agents.ends import exit_text, signal_of, without_result
from daemon_core.agents.events import Outcome
from daemon_core.agents.limits import limit_of
from daemon_core.agents.statuses import reason_of_status
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage

REFUSED: Final = (
    "no conversation found",
    "no previous sessions found",
    "no saved session found",
    "no session found",
    "session not found",
    "unknown session",
    "invalid session identifier",
    "no session matching",
)
"""What programs say of a session that is gone."""

_SAYS_NOTHING: Final = (failures.AGENT_PROCESS, failures.AGENT_UNKNOWN)
_TAIL_CHARS: Final = 2000
_COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Said(msgspec.Struct, kw_only=True):
    """What a stream came to.

    Attributes:
        end: ``success`` or ``error`` as the program itself said it; empty: it has not said how it ended.
        status: HTTP status of the request to the model that failed, if any.
        reason: A failure reason that is known better than by the words of the error.
        retry_after_s: Seconds until the model's server takes requests again, where it said so.
        progress: Whether the model has said or done anything.
    """

    end: str = ""
    answer: str = ""
    error: str = ""
    status: int = 0
    reason: str = ""
    retry_after_s: float = 0.0
    session_id: str = ""
    resume: str = ""
    progress: bool = False
    usage: tuple[Usage, ...] = ()
    refused: bool = False
    """Whether the program has said in its stream that the session to resume is gone."""


def judge(
    said: Said,
    exit_code: int | None,
    signal: int | None,
    stderr_tail: str,
    exit_reasons: Mapping[int, str],
) -> Outcome:
    """The verdict. ``exit_reasons`` are the program's own exit codes, for where its stream says nothing."""
    stderr = _COLOURS.sub("", stderr_tail).strip()
    if said.end == "success":
        if exit_code == 0 and not signal:
            poison = failures.poison_of(said.answer)
            if poison is None:
                return Outcome(success=True, output=said.answer, session_id=said.session_id, usage=said.usage)
            error, reason = said.answer.strip(), poison
        else:
            error = f"the agent said that it was done, but then {exit_text(exit_code, signal)}"
            reason = failures.AGENT_PROCESS
    elif said.end == "error":
        error = said.error or "the agent reported an error"
        reason = said.reason or reason_of(said.status, error)
        if reason == failures.AGENT_UNKNOWN and exit_code is not None:
            reason = exit_reasons.get(exit_code, reason)
    else:
        error, reason = _without_end(said, exit_code, signal, stderr, exit_reasons)
    limit = None
    if reason in (failures.AGENT_QUOTA, failures.AGENT_RATE_LIMIT):
        limit = limit_of(
            error,
            status=said.status,
            kind="usage" if reason == failures.AGENT_QUOTA else "rate",
            resets_in_s=said.retry_after_s or None,
        )
    refused = said.refused or _resume_refused(said, error, stderr)
    if not refused and reason in _SAYS_NOTHING and bool(exit_code) and not signal_of(exit_code, signal):
        # Nobody knows the words of all programs. One that leaves by itself, with an error that says nothing
        # else and before it has told any session, has most likely not found this one.
        refused = bool(said.resume) and not said.progress and not said.session_id
    return Outcome(
        success=False,
        output=said.answer if said.end == "success" else "",
        error=error,
        reason=reason,
        session_id="" if refused else said.session_id,
        usage=said.usage,
        resume_refused=refused,
        limit=limit,
    )


def reason_of(status: int, error: str) -> str:
    """The failure reason of a request that failed. The HTTP status counts for more than the words."""
    said = failures.classify(error)
    return reason_of_status(status, said) or said


def _without_end(
    said: Said,
    exit_code: int | None,
    signal: int | None,
    stderr: str,
    exit_reasons: Mapping[int, str],
) -> tuple[str, str]:
    """Error and reason where the program has not told how it ended."""
    told = "\n".join(text for text in (said.error, stderr[-_TAIL_CHARS:]) if text)
    error, reason = without_result(
        exit_code, signal, told, reason_of=partial(reason_of, said.status), exit_reasons=exit_reasons
    )
    return error, said.reason or reason


def _resume_refused(said: Said, error: str, stderr: str) -> bool:
    """Whether a failed run failed because its session is gone, so that a fresh one may be tried.

    Never after the model has said or done anything: a second try would do it again.
    """
    if not said.resume or said.progress:
        return False
    told = f"{error}\n{stderr}".lower()
    return any(phrase in told for phrase in REFUSED) or said.session_id not in ("", said.resume)
