"""How a conversation over ACP ended, and what the run came to.

- Only a turn that the agent itself has called ended well is a success; how the process ended after that does
  not matter (some have to be ended by signals).
- Errors come in as many forms as there are agents: the code is the HTTP status (gemini), the status leads
  the text in ``data.details`` (qwen), or is not told at all (opencode).
- Some say that the turn went well although their request to the model failed: then it is in stderr only.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from daemon_core.agents.ends import without_result
from daemon_core.agents.events import Outcome
from daemon_core.agents.limits import limit_of
from daemon_core.agents.lines import cut_output
from daemon_core.agents.rpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from daemon_core.agents.statuses import KNOWN_BETTER, reason_of_status
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage

AUTH_REQUIRED: Final = -32000
RESOURCE_NOT_FOUND: Final = -32002
ERROR_LIMIT_BYTES: Final = 16 * 1024

_GONE: Final = (
    "session not found",
    "no session found",
    "unknown session",
    "no saved session found",
    "resource not found: session",
    "invalid session identifier",
    "no previous sessions found",
)
# Said before what is really meant; the classifier would take the first for the server's fault.
_LEAD: Final = re.compile(
    r"^(?:internal error|invalid params|invalid request|server error)\s*:\s*", re.IGNORECASE
)
_STATUS_LEAD: Final = re.compile(r"^\W{0,3}(?:api error\W{0,3})?(?:http\W?)?([45]\d\d)(?!\d)", re.IGNORECASE)
_STATUS_NAMED: Final = re.compile(
    r"(?:\bhttp|status(?:[ _]?code)?|error code)[\s\"':=]{1,4}([45]\d\d)(?!\d)", re.IGNORECASE
)
_STDERR_FAILURE: Final = re.compile(
    r"api call failed|api request failed|\bapi[ _]?error\b|\bhttp[/ ][\d. ]{0,5}[45]\d\d(?!\d)"
    r"|(?:status(?:[ _]?code)?|error code)[\s\"':=]{1,4}[45]\d\d(?!\d)"
    r"|\b(?:authentication|permissiondenied|ratelimit|apistatus|apiconnection)error\b"
    r"|invalid api key|unauthorized|rate limit|quota|insufficient balance",
    re.IGNORECASE,
)


class End(msgspec.Struct, frozen=True):
    """What the agent itself said about the end of its turn (or of what came before it).

    Attributes:
        stop: Why the turn stopped, in the protocol's word; empty where something failed.
        error: In words; empty for a success.
        reason: A failure reason; empty for a success.
        status: HTTP status, where one was told.
        gone: Whether the session that was to be resumed does not exist any more.
    """

    stop: str = ""
    error: str = ""
    reason: str = ""
    status: int = 0
    gone: bool = False


def stopped(stop: str) -> End:
    """The turn was answered with a stop reason."""
    match stop:
        case "end_turn":
            return End(stop=stop)
        case "max_tokens":
            text = "the agent stopped at the token limit of its model"
            return End(stop, text, failures.classify(text))
        case "max_turn_requests":
            return End(stop, "the agent stopped at its limit of steps in a turn", failures.ITERATION_LIMIT)
        case "refusal":
            return End(stop, "the model refused to go on", failures.AGENT_UNKNOWN)
        case "cancelled":
            return End(stop, "the agent broke its turn off", failures.AGENT_UNKNOWN)
    said = f" ({stop})" if stop else ""
    return End(
        stop or "?",
        f"the agent ended its turn without saying that it went well{said}",
        failures.AGENT_UNKNOWN,
    )


def refused(method: str, error: RpcError, *, resuming: bool) -> End:
    """A request that the run cannot do without was answered with an error.

    Args:
        resuming: Whether a session is to be resumed and the agent has done nothing yet.
    """
    text = words(error)
    status = status_of(error, text)
    if method == "authenticate" or error.code == AUTH_REQUIRED:
        reason = failures.AGENT_AUTH
        text = f"the agent is not signed in: {text}"
    else:
        reason = reason_of(status, text)
    gone = resuming and _is_gone(method, error, text, reason)
    return End(error=text, reason=reason, status=status, gone=gone)


def words(error: RpcError) -> str:
    """An error as people should read it: without envelopes, also where it is JSON in a text."""
    text = error.text.strip()
    for _ in range(3):
        inner = _inner_message(text)
        if inner is None:
            break
        text = inner.strip()
    shorter = _LEAD.sub("", text)
    return cut_output(shorter or text or "the agent refused without a word", ERROR_LIMIT_BYTES)


def status_of(error: RpcError, text: str) -> int:
    """The HTTP status that an error tells of; 0: none."""
    data = error.data if isinstance(error.data, dict) else {}
    for value in (error.code, data.get("status"), data.get("statusCode"), data.get("code")):
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    match = _STATUS_LEAD.search(text) or _STATUS_NAMED.search(text)
    return int(match[1]) if match is not None else 0


def reason_of(status: int, text: str) -> str:
    """The failure reason of an error. The HTTP status counts for more than numbers in the text."""
    said = failures.classify(text)
    return reason_of_status(status, said, (*KNOWN_BETTER, failures.AGENT_AUTH)) or said


def judge(
    *,
    end: End | None,
    text: str,
    progress: bool,
    interrupted: bool,
    failure_in_stderr: bool,
    session_id: str,
    usage: tuple[Usage, ...],
    exit_code: int | None,
    signal: int | None,
    stderr_tail: str,
) -> Outcome:
    """What a run came to, once its process has ended."""
    if end is not None and end.stop == "end_turn":
        end = _really_well(end, text, progress, failure_in_stderr, stderr_tail)
        if not end.error:
            return Outcome(success=True, output=text, session_id=session_id, usage=usage)
    if end is None:
        end = _without_end(exit_code, signal, stderr_tail)
    reason = failures.CANCELLED if interrupted else end.reason
    gone = end.gone and not interrupted
    limit = None if gone or interrupted else limit_of(end.error, status=end.status)
    if limit is not None and reason in (failures.AGENT_PROCESS, failures.AGENT_UNKNOWN):
        reason = failures.AGENT_QUOTA if limit.kind == "usage" else failures.AGENT_RATE_LIMIT
    return Outcome(
        success=False,
        output=text if end.stop else "",
        error=end.error,
        reason=reason,
        session_id="" if gone else session_id,
        usage=usage,
        resume_refused=gone,
        limit=limit,
    )


def _really_well(end: End, text: str, progress: bool, failure_in_stderr: bool, stderr_tail: str) -> End:
    """A turn that is said to have ended well, looked at again."""
    told = _stderr_failure(stderr_tail) if failure_in_stderr or not progress else ""
    if told and not text.strip():
        reason = reason_of(_status_in(told), told)
        return End(end.stop, cut_output(told, ERROR_LIMIT_BYTES), reason, _status_in(told))
    if not progress:
        return End(end.stop, "the agent returned empty output", failures.AGENT_EMPTY)
    poison = failures.poison_of(text)
    return End(end.stop, text.strip(), poison) if poison else end


def _stderr_failure(stderr_tail: str) -> str:
    """The last line of stderr that tells of a failed request to the model."""
    for line in reversed(stderr_tail.splitlines()):
        if _STDERR_FAILURE.search(line):
            return line.strip()
    return ""


def _status_in(text: str) -> int:
    match = _STATUS_NAMED.search(text) or re.search(r"(?<!\d)([45]\d\d)(?!\d)", text)
    return int(match[1]) if match is not None else 0


def _without_end(exit_code: int | None, signal: int | None, stderr_tail: str) -> End:
    """The agent has gone without saying how its turn ended."""
    said = stderr_tail.strip()[-2000:]
    error, reason = without_result(exit_code, signal, said)
    if reason == failures.AGENT_EMPTY and (told := failures.classify(said)) != failures.AGENT_UNKNOWN:
        reason = told
    return End(error=error, reason=reason)


def _is_gone(method: str, error: RpcError, text: str, reason: str) -> bool:
    lowered = f"{error.text}\n{text}".lower()
    if any(phrase in lowered for phrase in _GONE):
        return True
    # Nothing has been done yet, and several agents have no words of their own for it.
    codes = (INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND, METHOD_NOT_FOUND)
    passing = (failures.AGENT_AUTH, failures.AGENT_NETWORK, failures.AGENT_RATE_LIMIT, failures.AGENT_QUOTA)
    return method in ("session/load", "session/resume") and error.code in codes and reason not in passing


def _inner_message(text: str) -> str | None:
    """The message inside a text that is a JSON error object."""
    if not text.startswith(("{", "[")):
        return None
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict) and isinstance(found.get("error"), dict | str):
        found = found["error"]
    if isinstance(found, dict):
        found = found.get("message")
    return found if isinstance(found, str) and found else None
