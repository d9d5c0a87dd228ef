"""Why tasks fail: the classifier against its table, poisoned output, what may be resumed."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon_core.protocol import failures

TABLE = """
context_overflow | context length; context_length_exceeded; maximum context; prompt is too long; \
context size has been exceeded; token + limit; context window limit; model_context_window_exceeded
missing_config | missing environment variable; missing + api_key; api key + required; no llm \
provider configured; no provider configured
provider_auth_or_access | #401; #403; unauthorized; login required; not logged in; please login \
again; refresh token; invalid api key; access token; subscription access; does not have access; you \
may not have access
provider_quota_limit | #402; insufficient_balance; balance is too low; monthly usage limit; usage \
limit; you've hit your limit; you\u2019ve hit your limit; credits; quota
provider_capacity_or_rate_limit | #429; rate limit; overloaded; #529; no capacity available
provider_server_error | server had an error; provider returned error; internal error; service \
unavailable; bad gateway; #5xx
provider_network | stream disconnected; error sending request; unable to connect; dial tcp; \
connection refused; connectionrefused; dns; i/o timeout; connection closed; mid-response; deadline \
exceeded; timeout exceeded while awaiting; opencode stream ended
model_not_found_or_unavailable | model + not found; unknown model; selected model; http 404; 404 \
page not found
empty_or_unparseable_output | returned empty output; returned no parseable output
agent_timeout | timed out after
runtime_missing_executable | executable not found; exec format error
runtime_version_unsupported | below the minimum supported version; requires a newer version
process_failure | exit status; signal; panic; sigsegv; process exited; pipe has been ended; file \
already closed; initialize failed; start codex:
"""
RULES = [
    (f"agent_error.{name.strip()}", [[part.strip() for part in one.split("+")] for one in texts.split(";")])
    for name, _, texts in (line.partition("|") for line in TABLE.strip().splitlines())
]
PARTS = sorted({part for _, alternatives in RULES for parts in alternatives for part in parts})


def occurs(part: str, text: str) -> bool:
    if part.startswith("#"):
        return re.search(rf"(?<!\d){part[1:].replace('xx', '[0-9][0-9]')}(?!\d)", text) is not None
    return part in text


def expected(text: str) -> str:
    lowered = text.lower()
    if "invalid_request_error" in lowered and "400" in lowered:
        return failures.API_INVALID_REQUEST
    for reason, alternatives in RULES:
        if any(all(occurs(part, lowered) for part in parts) for parts in alternatives):
            return reason
    return failures.AGENT_UNKNOWN


SHOWN = [part.replace("#5xx", "503").lstrip("#") for part in PARTS]
PIECES = st.one_of(st.sampled_from([*SHOWN, "invalid_request_error", "400"]), st.text(max_size=8))


@given(st.lists(PIECES, max_size=6), st.sampled_from(["", " ", ": ", "1", "x"]), st.booleans())
@example(["4290"], "", False)
@example(["15031"], "", False)
@example(["\u2019"], "", True)
def test_the_first_rule_that_matches_counts(pieces: list[str], glue: str, upper: bool) -> None:
    text = glue.join(pieces)
    assert failures.classify(text.upper() if upper else text) == expected(text.upper() if upper else text)


@pytest.mark.parametrize("reason", [reason for reason, _ in RULES])
def test_every_reason_is_reached(reason: str) -> None:
    alternatives = next(alternatives for name, alternatives in RULES if name == reason)
    texts = [" ".join(part.replace("#5xx", "503").lstrip("#") for part in parts) for parts in alternatives]
    reached = [text for text in texts if failures.classify(text) == reason]
    assert reached == [text for text in texts if expected(text) == reason]
    assert reached


@given(st.text(max_size=400))
def test_poison_is_short_and_says_one_of_two_things(text: str) -> None:
    found = failures.poison_of(text)
    if found is not None:
        assert len(text.strip().encode("utf-8", "replace")) <= 320


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("  I reached the ITERATION limit. ", "iteration_limit"),
        ("Put your final update inside the content string", "agent_fallback_message"),
        ("i reached the iteration limit" + "x" * 291, "iteration_limit"),
        ("i reached the iteration limit" + "x" * 292, None),
        ("i reached the iteration limit" + "\u00e9" * 146, None),  # bytes count, not characters
        (" " * 500 + "i reached the iteration limit", "iteration_limit"),
        ("done", None),
    ],
)
def test_poison(text: str, reason: str | None) -> None:
    assert failures.poison_of(text) == reason


@pytest.mark.parametrize(
    ("reason", "error", "may"),
    [
        ("iteration_limit", "", False),
        ("agent_fallback_message", "", False),
        ("api_invalid_request", "", False),
        ("codex_semantic_inactivity", "", False),
        ("codex_resume_oversized", "", False),
        ("agent_error.context_overflow", "", False),
        ("agent_error.unknown", "API Error: 400 invalid_request_error", False),
        ("agent_error.unknown", "Could not resolve authentication method", False),
        ("agent_error.unknown", "messages: at least one message is required", False),
        ("agent_error.unknown", "400", True),
        ("agent_error.provider_network", "connection refused", True),
        ("idle_watchdog", "", True),
        ("something new", "", True),
    ],
)
def test_what_may_be_resumed(reason: str, error: str, may: bool) -> None:
    assert failures.resumable(reason, error) is may


@pytest.mark.parametrize(
    ("provider", "text", "reason"),
    [
        ("codex", "Codex semantic inactivity timeout after 600 s", "codex_semantic_inactivity"),
        ("codex", "codex app-server no progress timeout", "codex_semantic_inactivity"),
        ("codex", "timed out after 5 s", "timeout"),
        ("claude", "codex semantic inactivity timeout", "timeout"),
    ],
)
def test_timeouts(provider: str, text: str, reason: str) -> None:
    assert failures.timeout_reason(provider, text) == reason
