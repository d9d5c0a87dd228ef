"""How a Codex run ended: its errors as failure reasons, and the verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon_core.agents.codex_items import count, ident, text_of
from daemon_core.agents.events import Limit
from daemon_core.agents.limits import limit_of
from daemon_core.agents.lines import cut_output
from daemon_core.agents.statuses import reason_of_refusal, reason_of_status
from daemon_core.protocol import failures

ERROR_LIMIT_BYTES: Final = 16 * 1024
STDERR_CHARS: Final = 2000
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STATUS: Final = re.compile(r"\b(?:status|http)[ :]+(\d{3})\b", re.IGNORECASE)

# What the program calls an error. Where it only names a place ("other"), the text decides.
_KINDS: Final[Mapping[str, str]] = {
    "contextWindowExceeded": failures.AGENT_CONTEXT,
    "sessionBudgetExceeded": failures.AGENT_QUOTA,
    "usageLimitExceeded": failures.AGENT_QUOTA,
    "rateLimitExceeded": failures.AGENT_RATE_LIMIT,
    "flexUnavailable": failures.AGENT_RATE_LIMIT,
    "serverOverloaded": failures.AGENT_RATE_LIMIT,
    "policyCapacityUnavailable": failures.AGENT_RATE_LIMIT,
    "modelNotFound": failures.AGENT_MODEL,
    "internalServerError": failures.AGENT_SERVER,
    "unauthorized": failures.AGENT_AUTH,
    "badRequest": failures.API_INVALID_REQUEST,
    "sandboxError": failures.AGENT_PROCESS,
}
_NETWORK_KINDS: Final = frozenset(
    {"httpConnectionFailed", "responseStreamConnectionFailed", "responseStreamDisconnected"}
)
_TOO_LONG: Final = "exceeds the maximum length"
"""Of a prompt: it takes a million characters at most."""
_SESSION_GONE: Final = ("rollout", "invalid session id", "thread not found", "invalid thread id")
"""Of a resume: what it calls a rollout is the file of the session, which is not there or cannot be read."""


class TurnError(msgspec.Struct):
    """An error as the program tells it."""

    text: str = ""
    kind: str = ""
    status: int = 0
    body: bool = False
    """Whether the text is an answer of the model's server, as it came: a request that it refused."""


def error_of(found: Any) -> TurnError:
    """An error of a turn or of a notification, whatever was given."""
    if not isinstance(found, dict):
        return TurnError()
    text = text_of(found.get("message"))
    info = found.get("codexErrorInfo")
    kind, status = ident(info), 0
    if isinstance(info, dict) and info:
        kind, more = next(iter(info.items()))
        kind = ident(kind)
        if isinstance(more, dict):
            status = count(more.get("httpStatusCode"))
    if not status and (said := _STATUS.search(text[:ERROR_LIMIT_BYTES])) is not None:
        status = int(said[1])
    told = _body_text(text)
    details = text_of(found.get("additionalDetails"))
    shown = told or text
    if details and details not in shown:
        shown = f"{shown}: {details}" if shown else details
    return TurnError(cut_output(shown, ERROR_LIMIT_BYTES), kind, status, bool(told))


def reason_of(error: TurnError) -> str:
    """The failure reason. What the program calls it counts for more than numbers in the text."""
    named = _KINDS.get(error.kind)
    if named is not None:
        return named
    if _TOO_LONG in error.text:
        return failures.AGENT_CONTEXT
    said = failures.classify(error.text)
    reason = reason_of_status(error.status, said)
    if reason is not None:
        return reason
    if error.body:
        return reason_of_refusal(said)
    if error.kind in _NETWORK_KINDS and not error.status:
        return failures.AGENT_NETWORK
    return said


def limit_of_error(error: TurnError, resets_at: int) -> Limit | None:
    """The account's limit that an error tells of. ``resets_at``: of the limit that is used up, if known."""
    reason = reason_of(error)
    if reason == failures.AGENT_QUOTA:
        # A limit for one session's costs is nobody's to wait for.
        if error.kind == "sessionBudgetExceeded":
            return None
        return limit_of(error.text, kind="usage", resets_at=resets_at or None)
    if reason == failures.AGENT_RATE_LIMIT:
        return limit_of(error.text, kind="rate")
    return None


def session_gone(message: str) -> bool:
    """Whether a refused resume was refused because there is no such thread (any more)."""
    lowered = message.lower()
    return any(phrase in lowered for phrase in _SESSION_GONE)


def last_words(stderr_tail: str) -> str:
    """What the program wrote to standard error last, without colours."""
    return _COLOURS.sub("", stderr_tail).strip()[-STDERR_CHARS:]


def used_up(limits: Any) -> int:
    """When the account's limit that is used up resets (seconds since 1970); 0 if none is, or nobody knows."""
    if not isinstance(limits, dict):
        return 0
    resets = [0]
    for name in ("primary", "secondary"):
        window = limits.get(name)
        if isinstance(window, dict) and count(window.get("usedPercent")) >= 100:
            resets.append(count(window.get("resetsAt")))
    own = limits.get("individualLimit")
    if isinstance(own, dict) and limits.get("spendControlReached") is True:
        resets.append(count(own.get("resetsAt")))
    return max(resets)


def _body_text(text: str) -> str:
    """The words of an error that is a server's whole answer; empty if it is none."""
    if not text.lstrip().startswith("{") or len(text) > ERROR_LIMIT_BYTES:
        return ""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return ""
    kind = ident(error.get("type"))
    return f"{error['message']} ({kind})" if kind else str(error["message"])
