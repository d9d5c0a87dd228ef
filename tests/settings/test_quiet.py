"""Quiet hours: which day a night belongs to, and what is none."""

from __future__ import annotations

import datetime as dt

import pytest

from daemon_core.settings import quiet

TABLE = {"daily": "22:00-07:00", "sat": "23:30-10:00", "sun": "off"}
"""2026-03-06 is a Friday."""


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-06T21:59", None),
        ("2026-03-06T22:00", "2026-03-07T07:00"),
        ("2026-03-07T06:59", "2026-03-07T07:00"),
        ("2026-03-07T07:00", None),
        ("2026-03-07T23:00", None),
        ("2026-03-07T23:30", "2026-03-08T10:00"),
        ("2026-03-08T09:00", "2026-03-08T10:00"),
        ("2026-03-08T23:00", None),
        ("2026-03-09T03:00", None),
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(now: str, until: str | None) -> None:
    assert quiet.quiet_until(TABLE, at(now)) == (at(until) if until else None)


def test_the_next_change() -> None:
    assert quiet.next_change(TABLE, at("2026-03-06T12:00")) == at("2026-03-06T22:00")
    assert quiet.next_change(TABLE, at("2026-03-06T22:00")) == at("2026-03-07T07:00")
    assert quiet.next_change(TABLE, at("2026-03-08T10:00")) == at("2026-03-09T22:00")
    assert quiet.next_change({"wed": "9:00-17:00"}, at("2026-03-05T00:00")) == at("2026-03-11T09:00")
    assert quiet.next_change({}, at("2026-03-06T12:00")) is None
    assert quiet.next_change({"daily": "off"}, at("2026-03-06T12:00")) is None


def test_a_span_and_back() -> None:
    assert quiet.parse_span(" 9:05 \N{EN DASH} 17:00 ") == (dt.time(9, 5), dt.time(17))
    assert quiet.format_span(dt.time(9, 5), dt.time(17)) == "09:05-17:00"
    assert quiet.parse_span("OFF") is None


@pytest.mark.parametrize("wrong", ["", "22-7", "24:00-07:00", "22:00", "22:00-22:00", "22:00-07:60"])
def test_what_is_no_span(wrong: str) -> None:
    with pytest.raises(ValueError, match="must "):
        quiet.check({"mon": wrong})


def test_what_is_no_day() -> None:
    with pytest.raises(ValueError, match="must name days"):
        quiet.check({"monday": "off"})
