"""Quiet hours: when notifications wait, by the day of the week, as ``notifications.quiet_hours`` has them.

A table of day to span: ``{ daily = "22:00-07:00", sat = "23:00-10:00", sun = "off" }``. ``daily`` holds for
each day that is not named. A span whose end is not after its begin lasts into the next morning and belongs to
the day on which it begins. Local time by the wall clock: what the user reads on it is what counts, also in
the night when it is changed.

Standard library only: the desktop reads the same table with this module.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Final

from daemon_core.settings.errors import BadValueError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""In the order of ``datetime.weekday``."""
DAILY: Final = "daily"
OFF: Final = "off"

Span = tuple[dt.time, dt.time]

_SPAN: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*[-\u2013]\s*([01]?\d|2[0-3]):([0-5]\d)")


def parse_span(text: str) -> Span | None:
    """From and until of "22:00-07:00"; None for "off".

    Raises:
        ValueError: It is neither; the text completes "<key> …".
    """
    if text.strip().lower() == OFF:
        return None
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise BadValueError(
            f'must be spans such as "22:00-07:00", or "off", not "{text[:40]}"',
            "span",
            given=f'"{text[:40]}"',
        )
    begin = dt.time(int(found[1]), int(found[2]))
    end = dt.time(int(found[3]), int(found[4]))
    if begin == end:
        raise BadValueError(
            f'must begin and end at different times, not "{text}"', "span_empty", given=f'"{text}"'
        )
    return begin, end


def format_span(begin: dt.time, end: dt.time) -> str:
    """The text that ``parse_span`` reads as the same."""
    return f"{begin:%H:%M}-{end:%H:%M}"


def check(table: Mapping[str, str]) -> None:
    """Raises ``ValueError`` where this is no table of quiet hours."""
    for day, span in table.items():
        if day not in (DAILY, *DAYS):
            days = f"{DAILY}, {', '.join(DAYS)}"
            raise BadValueError(
                f'must name days as {days}, not "{day[:40]}"', "day", days=days, given=f'"{day[:40]}"'
            )
        parse_span(span)


def span_of(table: Mapping[str, str], weekday: int) -> Span | None:
    """What begins on a day (0: Monday); None where nothing does."""
    text = table.get(DAYS[weekday], table.get(DAILY, OFF))
    return parse_span(text)


def quiet_until(table: Mapping[str, str], now: dt.datetime) -> dt.datetime | None:
    """When the quiet hours end in which the local time ``now`` lies; None where it lies in none.

    Args:
        now: Local wall-clock time; what comes back has the same zone (or none).
    """
    ends = []
    for back in (0, 1):
        day = now.date() - dt.timedelta(days=back)
        span = span_of(table, day.weekday())
        if span is None:
            continue
        begin = dt.datetime.combine(day, span[0], now.tzinfo)
        end = dt.datetime.combine(day, span[1], now.tzinfo)
        if span[1] <= span[0]:
            end += dt.timedelta(days=1)
        if begin <= now < end:
            ends.append(end)
    return max(ends) if ends else None


def next_change(table: Mapping[str, str], now: dt.datetime) -> dt.datetime | None:
    """The next moment after ``now`` at which quiet may begin or end; None where it never does."""
    moments = []
    for ahead in range(-1, 8):
        day = now.date() + dt.timedelta(days=ahead)
        span = span_of(table, day.weekday())
        if span is None:
            continue
        end = dt.datetime.combine(day, span[1], now.tzinfo)
        if span[1] <= span[0]:
            end += dt.timedelta(days=1)
        moments += [dt.datetime.combine(day, span[0], now.tzinfo), end]
    later = [moment for moment in moments if moment > now]
    return min(later) if later else None
