"""Why tasks fail: the reasons on the wire, the classifier of error texts, poisoned output.

The order of the classifier's rules matters (first match wins) and is part of the protocol. Readers accept
unknown reasons.
"""

from __future__ import annotations

import re
from typing import Final

QUEUED_EXPIRED: Final = "queued_expired"
RUNTIME_OFFLINE: Final = "runtime_offline"
RUNTIME_RECOVERY: Final = "runtime_recovery"
TIMEOUT: Final = "timeout"
ITERATION_LIMIT: Final = "iteration_limit"
AGENT_BLOCKED: Final = "agent_blocked"
API_INVALID_REQUEST: Final = "api_invalid_request"
AGENT_FALLBACK_MESSAGE: Final = "agent_fallback_message"
CODEX_SEMANTIC_INACTIVITY: Final = "codex_semantic_inactivity"
IDLE_WATCHDOG: Final = "idle_watchdog"
LOCAL_DIRECTORY_ERROR: Final = "local_directory_error"
CANCELLED: Final = "cancelled"
RUNTIME_RECONNECT_TIMEOUT: Final = "runtime_reconnect_timeout"
RUNTIME_CLI_TIMEOUT: Final = "runtime_cli_timeout"
SKILL_BUNDLE_UNAVAILABLE: Final = "skill_bundle_unavailable"
INVALID_TASK_IDENTITY: Final = "invalid_task_identity"
ISSUE_WINDOW_RESTRICTED: Final = "issue_window_restricted"
CODEX_RESUME_OVERSIZED: Final = "codex_resume_oversized"

AGENT_AUTH: Final = "agent_error.provider_auth_or_access"
AGENT_QUOTA: Final = "agent_error.provider_quota_limit"
AGENT_RATE_LIMIT: Final = "agent_error.provider_capacity_or_rate_limit"
AGENT_SERVER: Final = "agent_error.provider_server_error"
AGENT_NETWORK: Final = "agent_error.provider_network"
AGENT_PROCESS: Final = "agent_error.process_failure"
AGENT_EMPTY: Final = "agent_error.empty_or_unparseable_output"
AGENT_TIMEOUT: Final = "agent_error.agent_timeout"
AGENT_CONTEXT: Final = "agent_error.context_overflow"
AGENT_CONFIG: Final = "agent_error.missing_config"
AGENT_MODEL: Final = "agent_error.model_not_found_or_unavailable"
AGENT_VERSION: Final = "agent_error.runtime_version_unsupported"
AGENT_MISSING: Final = "agent_error.runtime_missing_executable"
AGENT_UNKNOWN: Final = "agent_error.unknown"

NOT_RESUMABLE: Final = frozenset(
    {
        ITERATION_LIMIT,
        AGENT_FALLBACK_MESSAGE,
        API_INVALID_REQUEST,
        CODEX_SEMANTIC_INACTIVITY,
        CODEX_RESUME_OVERSIZED,
        AGENT_CONTEXT,
    }
)
"""A session that ended like this is never resumed by a later task: it would end like this again."""

# What a session that cannot be used any more makes the model's server say, whatever the reason is.
_SPOILT: Final = (
    ("400", "invalid_request_error"),
    ("resolve authentication method",),
    ("at least one message is required",),
    ("messages must have non-empty content",),
    ("text content blocks must be non-empty",),
)

_CODEX_STALLED: Final = ("codex semantic inactivity timeout", "codex app-server no progress timeout")

# Each rule: the reason, and alternatives; an alternative is a tuple of texts that must all occur. A text of
# three digits is a number of its own: no part of a longer one.
_RULES: Final[tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]] = (
    (
        AGENT_CONTEXT,
        (
            ("context length",),
            ("context_length_exceeded",),
            ("maximum context",),
            ("prompt is too long",),
            ("context size has been exceeded",),
            ("context window limit",),
            ("model_context_window_exceeded",),
            ("token", "limit"),
        ),
    ),
    (
        AGENT_CONFIG,
        (
            ("missing environment variable",),
            ("missing", "api_key"),
            ("api key", "required"),
            ("no llm provider configured",),
            ("no provider configured",),
        ),
    ),
    (
        AGENT_AUTH,
        (
            ("401",),
            ("403",),
            ("unauthorized",),
            ("login required",),
            ("not logged in",),
            ("please login again",),
            ("refresh token",),
            ("invalid api key",),
            ("access token",),
            ("subscription access",),
            ("does not have access",),
            ("you may not have access",),
        ),
    ),
    (
        AGENT_QUOTA,
        (
            ("402",),
            ("insufficient_balance",),
            ("balance is too low",),
            ("monthly usage limit",),
            ("usage limit",),
            ("you've hit your limit",),
            ("you\u2019ve hit your limit",),
            ("credits",),
            ("quota",),
        ),
    ),
    (AGENT_RATE_LIMIT, (("429",), ("rate limit",), ("overloaded",), ("529",), ("no capacity available",))),
    (
        AGENT_SERVER,
        (
            ("server had an error",),
            ("provider returned error",),
            ("internal error",),
            ("service unavailable",),
            ("bad gateway",),
        ),
    ),
    (
        AGENT_NETWORK,
        (
            ("stream disconnected",),
            ("error sending request",),
            ("unable to connect",),
            ("dial tcp",),
            ("connection refused",),
            ("connectionrefused",),
            ("dns",),
            ("i/o timeout",),
            ("connection closed",),
            ("mid-response",),
            ("deadline exceeded",),
            ("timeout exceeded while awaiting",),
            ("opencode stream ended",),
        ),
    ),
    (
        AGENT_MODEL,
        (
            ("model", "not found"),
            ("unknown model",),
            ("selected model",),
            ("http 404",),
            ("404 page not found",),
        ),
    ),
    (AGENT_EMPTY, (("returned empty output",), ("returned no parseable output",))),
    (AGENT_TIMEOUT, (("timed out after",),)),
    (AGENT_MISSING, (("executable not found",), ("exec format error",))),
    (AGENT_VERSION, (("below the minimum supported version",), ("requires a newer version",))),
    (
        AGENT_PROCESS,
        (
            ("exit status",),
            ("signal",),
            ("panic",),
            ("sigsegv",),
            ("process exited",),
            ("pipe has been ended",),
            ("file already closed",),
            ("initialize failed",),
            ("start codex:",),
        ),
    ),
)
_SERVER_STATUS = re.compile(r"(?<!\d)5\d\d(?!\d)")

POISON_LIMIT_BYTES: Final = 320


def classify(text: str) -> str:
    """The failure reason for an error text; ``agent_error.unknown`` for an empty or unmatched one."""
    lowered = text.lower()
    if "400" in lowered and "invalid_request_error" in lowered:
        return API_INVALID_REQUEST
    for reason, alternatives in _RULES:
        if any(all(_occurs(part, lowered) for part in parts) for parts in alternatives):
            return reason
        if reason == AGENT_SERVER and _SERVER_STATUS.search(lowered):
            return reason
    return AGENT_UNKNOWN


def poison_of(output: str) -> str | None:
    """The reason for which the output of a "completed" run is no result after all, or None.

    Only short outputs (at most 320 bytes of UTF-8, trimmed) can be poison.
    """
    trimmed = output.strip()
    if len(trimmed.encode("utf-8", "replace")) > POISON_LIMIT_BYTES:
        return None
    lowered = trimmed.lower()
    if "i reached the iteration limit" in lowered:
        return ITERATION_LIMIT
    if "put your final update inside the content string" in lowered:
        return AGENT_FALLBACK_MESSAGE
    return None


def resumable(reason: str, error: str) -> bool:
    """Whether a later task may resume the session of one that failed like this."""
    lowered = error.lower()
    return reason not in NOT_RESUMABLE and not any(
        all(part in lowered for part in parts) for parts in _SPOILT
    )


def timeout_reason(provider: str, text: str) -> str:
    """The reason of a run that ran into a time limit: of codex it may be one of its own."""
    lowered = text.lower()
    if provider == "codex" and any(stalled in lowered for stalled in _CODEX_STALLED):
        return CODEX_SEMANTIC_INACTIVITY
    return TIMEOUT


def _occurs(part: str, lowered: str) -> bool:
    if len(part) == 3 and part.isdigit():
        return re.search(rf"(?<!\d){part}(?!\d)", lowered) is not None
    return part in lowered
