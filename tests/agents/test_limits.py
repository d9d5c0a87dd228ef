"""Limits of an account, as agents tell them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon_core.agents.limits import LONGEST, PAST_GRACE, kind_of, limit_of, reset_of, told

NOW = dt.datetime(2026, 3, 10, 12, 0, tzinfo=dt.UTC)
EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("text", "resets_at"),
    [
        (f"Claude AI usage limit reached|{EPOCH + 3600}", "2026-03-10T13:00:00Z"),
        (f"Claude AI usage limit reached|{(EPOCH + 3600) * 1000}", "2026-03-10T13:00:00Z"),
        ("You've hit your session limit · resets 3pm (Europe/Berlin)", "2026-03-10T14:00:00Z"),
        ("You\u2019ve hit your limit · resets 3:50pm (Europe/Berlin)", "2026-03-10T14:50:00Z"),
        ("5-hour limit reached \u2219 resets 11am (UTC)", "2026-03-11T11:00:00Z"),
        ("Weekly limit reached \u2219 resets Mar 13, 5am (America/New_York)", "2026-03-13T09:00:00Z"),
        ("Your limit will reset at 3pm (America/New_York). usage limit", "2026-03-10T19:00:00Z"),
        ("You've hit your usage limit. Try again in 2 hours 30 minutes.", "2026-03-10T14:30:00Z"),
        ("You've hit your usage limit. Try again in 3 days 1 hour.", "2026-03-13T13:00:00Z"),
        ('{"type":"usage_limit_reached","resets_in_seconds": 7200}', "2026-03-10T14:00:00Z"),
        (f'{{"type":"usage_limit_reached","resets_at":{EPOCH + 60}}}', "2026-03-10T12:01:00Z"),
        ("usage limit reached, resets at 2026-03-10T18:00:00Z", "2026-03-10T18:00:00Z"),
        ("usage limit, available again at 2026-03-10T18:00:00+01:00", "2026-03-10T17:00:00Z"),
        ("Your quota will reset after 21h4m13s.", "2026-03-11T09:04:13Z"),
    ],
)
def test_a_usage_limit_and_its_reset_time(text: str, resets_at: str) -> None:
    limit = limit_of(text, now=NOW)
    assert limit is not None
    assert (limit.kind, limit.resets_at) == ("usage", resets_at)
    assert told(limit) == f"the limit resets at {resets_at}"


@pytest.mark.parametrize(
    ("text", "status", "resets_at"),
    [
        ("API Error: 429 rate_limit_error", 429, ""),
        ("Rate limit reached for gpt-5. Please try again in 11.054s.", 0, "2026-03-10T12:00:12Z"),
        ("Rate limit reached. Please try again in 820ms.", 0, "2026-03-10T12:00:01Z"),
        ("429 Too Many Requests, retry-after: 30", 0, "2026-03-10T12:00:30Z"),
        ('{"error":{"code":429,"details":[{"retryDelay":"57s"}]}}', 0, "2026-03-10T12:00:57Z"),
        ("Retry-After-Ms: 1500, rate limit", 0, "2026-03-10T12:00:02Z"),
        ("Overloaded", 529, ""),
    ],
)
def test_a_rate_limit(text: str, status: int, resets_at: str) -> None:
    limit = limit_of(text, status=status, now=NOW)
    assert limit is not None
    assert (limit.kind, limit.resets_at) == ("rate", resets_at)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 0),
        ("the tests failed", 0),
        ("Context limit reached", 0),
        ("I reached the iteration limit reached", 0),
        ("internal error 500", 500),
        ("rate limited by nobody", 401),  # another status says what it was
        ("line 4290 is wrong", 0),
    ],
)
def test_what_is_no_limit(text: str, status: int) -> None:
    assert limit_of(text, status=status, now=NOW) is None


def test_a_field_counts_for_more_than_the_text() -> None:
    limit = limit_of("usage limit, resets 3pm (UTC)", resets_at=EPOCH + 5, now=NOW)
    assert limit is not None
    assert limit.resets_at == "2026-03-10T12:00:05Z"
    limit = limit_of("", kind="usage", resets_in_s=90, now=NOW)
    assert limit is not None
    assert (limit.kind, limit.resets_at) == ("usage", "2026-03-10T12:01:30Z")


@pytest.mark.parametrize("value", [True, "soon", -5, 12, 10**18, float("nan"), float("inf"), [], {}, "1e400"])
def test_a_field_that_is_no_time_is_none(value: object) -> None:
    limit = limit_of("", kind="usage", resets_at=value, resets_in_s=value if value != 12 else None, now=NOW)
    assert limit is not None
    assert limit.resets_at == ""


def test_a_clock_time_keeps_its_meaning_over_summer_time() -> None:
    """Clocks go forward in the night to 29 March 2026 in Berlin."""
    now = dt.datetime(2026, 3, 28, 20, 0, tzinfo=dt.UTC)  # nine in the evening there
    assert reset_of("resets 8pm (Europe/Berlin)", now) == dt.datetime(2026, 3, 29, 18, 0, tzinfo=dt.UTC)
    assert reset_of("resets 11pm (Europe/Berlin)", now) == dt.datetime(2026, 3, 28, 22, 0, tzinfo=dt.UTC)


def test_a_date_without_a_year_is_the_next_one() -> None:
    now = dt.datetime(2026, 12, 30, 12, 0, tzinfo=dt.UTC)
    assert reset_of("resets Jan 3, 5am (UTC)", now) == dt.datetime(2027, 1, 3, 5, 0, tzinfo=dt.UTC)


def test_an_unknown_zone_is_this_machines() -> None:
    assert reset_of("resets 3pm (Mars/Olympus)", NOW) is not None


WORDS = st.sampled_from(
    [
        "usage limit reached",
        "|",
        "resets",
        "3pm",
        "13:00",
        "(Europe/Berlin)",
        "(X/Y)",
        "Feb 30",
        "retry-after:",
        "in",
        "999999999",
        "99 days",
        "0.5s",
        "1764000000",
        "resets_at",
        ":",
        "429",
        "2026-13-40T99:99:99Z",
        "at",
        "24:00",
        "0am",
        "12am",
        "12pm",
        "Dec 31 9999",
        "ms",
    ]
)


@given(st.one_of(st.text(max_size=300), st.lists(WORDS, max_size=12).map(" ".join)), st.integers(-1, 600))
@example("resets Feb 29, 5am", 0)
@example("usage limit reached|99999999999999", 0)
@example("resets 3pm (../../etc/passwd)", 0)
def test_no_text_makes_it_fail_and_no_time_is_far_away(text: str, status: int) -> None:
    limit = limit_of(text, status=status, now=NOW)
    found = reset_of(text, NOW)
    if found is not None:
        assert found.utcoffset() == dt.timedelta(0)
        assert NOW - PAST_GRACE <= found <= NOW + LONGEST
    if limit is not None:
        assert limit.kind in ("usage", "rate")
        assert limit.kind == kind_of(text, status)
