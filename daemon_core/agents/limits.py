"""Limits of an account, as agents and model servers tell them: of what kind, and when they reset.

Agents say it in many ways: a field with a time, seconds to wait, an epoch behind a bar
(``usage limit reached|1764000000``), a clock time with a zone (``resets 3pm (Europe/Berlin)``), a date
(``resets Oct 3, 5am``). All become one ``Limit`` whose time is UTC. Nothing here raises on any input: what
cannot be read is a limit without a time. A time in the past, or further away than any plan's period, is none.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

from daemon_core.agents.events import Limit

LONGEST: Final = dt.timedelta(days=40)
"""Plans count by hours, weeks and months; whatever is further away was misread."""
PAST_GRACE: Final = dt.timedelta(minutes=10)
"""A reset that is just over is still one: the run may have ended while nobody looked."""
TEXT_LIMIT_CHARS: Final = 16 * 1024
_EPOCH_LEAST: Final = 1_500_000_000
_MILLISECONDS_LEAST: Final = _EPOCH_LEAST * 1000

_USAGE: Final = re.compile(
    r"usage[ _]limit|spend(?:ing)? limit|hit your .{0,40}\blimit|reached your .{0,40}\blimit"
    r"|\b(?:session|weekly|monthly|daily|\d+-hour|opus|sonnet|credit) limit\b|limit reached\b.{0,40}\breset"
    r"|quota|out of (?:usage )?credits|insufficient_balance|usage_limit_reached",
    re.IGNORECASE | re.DOTALL,
)
_NOT_OURS: Final = re.compile(
    r"(?:context|iteration|recursion|token|size|rate|turn|time|depth|output)[ _-]limit reached", re.IGNORECASE
)
_RATE: Final = re.compile(
    r"rate[ _-]?limit|too many requests|(?<!\d)(?:429|529)(?!\d)|overloaded|resource_exhausted|try again in",
    re.IGNORECASE,
)

_BAR_EPOCH: Final = re.compile(r"limit reached\s*\|\s*(\d{10,13})(?!\d)", re.IGNORECASE)
_NAMED_NUMBER: Final = re.compile(
    r"""["']?(resets?_?in_?seconds|retry[_-]?after(?:[_-]?(?:ms|seconds))?|retry_?after_?ms|retryDelay"""
    r"""|resets?_?at)["']?\s*[:=]\s*["']?(\d{1,13}(?:\.\d{1,9})?)(ms|s)?(?![\d:T-])""",
    re.IGNORECASE,
)
_ISO: Final = re.compile(
    r"(?<!\d)(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)(?!\d)",
    re.IGNORECASE,
)
_SPAN_LEAD: Final = re.compile(
    r"(?:resets?|try again|retry|available again|wait|reset)(?:\s+after)?(?:\s+in)?[:\s]+(?:about\s+)?"
    r"((?:\d{1,7}(?:\.\d{1,6})?\s*(?:milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)"
    r"(?![a-z])[\s,]*(?:and\s+)?){1,4})",
    re.IGNORECASE,
)
_SPAN_PART: Final = re.compile(
    r"(\d{1,7}(?:\.\d{1,6})?)\s*(milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)(?![a-z])",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(
    r"(?:resets?|reset|try again|available(?: again)?|renews?)(?:\s+(?:at|on|after))?[:\s]+"
    r"(?:(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?"
    r"(?:,?\s+(?P<year>\d{4}))?(?:,|\s+at)?\s+)?"
    r"(?:at\s+)?(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>[ap]\.?m\b\.?)?"
    r"(?:\s*\(?(?P<zone>[A-Za-z]+(?:/[A-Za-z_+\-0-9]+){1,2}|UTC|GMT|Z)\)?)?",
    re.IGNORECASE,
)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UNITS_S: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def limit_of(
    text: str,
    *,
    status: int = 0,
    kind: str = "",
    resets_at: Any = None,
    resets_in_s: Any = None,
    now: dt.datetime | None = None,
) -> Limit | None:
    """The limit that an error tells of, or None where it tells of none.

    Args:
        text: What the agent or the server said.
        status: The HTTP status that came with it, if any.
        kind: ``usage`` or ``rate`` where a field said that it is one; else it is read from text and status.
        resets_at: A field with the moment: seconds or milliseconds since 1970, or RFC 3339.
        resets_in_s: A field with the seconds to wait.
        now: The time now; for tests, and for what was said earlier.
    """
    said = text[-TEXT_LIMIT_CHARS:]
    kind = kind or kind_of(said, status)
    if not kind:
        return None
    moment = now or dt.datetime.now(dt.UTC)
    found = _moment(resets_at, moment) or _later(moment, resets_in_s) or reset_of(said, moment)
    return Limit(kind=kind, resets_at=_text(found) if found is not None else "")


def kind_of(text: str, status: int = 0) -> str:
    """``usage`` for a plan's quota, ``rate`` for too many requests just now, empty for neither."""
    if _USAGE.search(_NOT_OURS.sub("", text)):
        return "usage"
    if status in (429, 529) or (status == 0 and _RATE.search(text)):
        return "rate"
    return ""


def reset_of(text: str, now: dt.datetime) -> dt.datetime | None:
    """When it resets, as a text says it; None where it says nothing that can be understood."""
    for find in (_bar, _numbers, _iso, _span, _clock):
        found = find(text, now)
        if found is not None:
            return found
    return None


def told(limit: Limit) -> str:
    """One phrase for people and servers that have no field for it; empty where nobody said a time."""
    return f"the limit resets at {limit.resets_at}" if limit.resets_at else ""


# --- the ways in which it is said ------------------------------------------------------------------


def _bar(text: str, now: dt.datetime) -> dt.datetime | None:
    match = _BAR_EPOCH.search(text)
    return _moment(match[1], now) if match is not None else None


def _numbers(text: str, now: dt.datetime) -> dt.datetime | None:
    for match in _NAMED_NUMBER.finditer(text):
        name, number, unit = match[1].lower().replace("_", "").replace("-", ""), match[2], match[3]
        if name in ("resetsat", "resetat"):
            found = _moment(number, now)
        else:
            milliseconds = name.endswith("ms") or (unit or "").lower() == "ms"
            found = _later(now, float(number) / (1000.0 if milliseconds else 1.0))
        if found is not None:
            return found
    return None


def _iso(text: str, now: dt.datetime) -> dt.datetime | None:
    for match in _ISO.finditer(text):
        lead = text[max(0, match.start() - 40) : match.start()].lower()
        if any(word in lead for word in ("reset", "retry", "again", "until", "available", "renew")):
            found = _moment(match[1], now)
            if found is not None:
                return found
    return None


def _span(text: str, now: dt.datetime) -> dt.datetime | None:
    match = _SPAN_LEAD.search(text)
    if match is None:
        return None
    seconds = 0.0
    for number, unit in _SPAN_PART.findall(match[1]):
        unit = unit.lower()
        seconds += float(number) * (0.001 if unit.startswith(("ms", "mill")) else _UNITS_S[unit[0]])
    return _later(now, seconds)


def _clock(text: str, now: dt.datetime) -> dt.datetime | None:
    for match in _CLOCK.finditer(text):
        if match["half"] is None and match["minute"] is None:
            continue  # a number alone is no time
        found = _clock_time(match, now)
        if found is not None:
            return found
    return None


def _clock_time(match: re.Match[str], now: dt.datetime) -> dt.datetime | None:
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    half = (match["half"] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half.startswith("p") else 0)
    local = now.astimezone(_zone(match["zone"]))
    try:
        found = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if match["month"]:
            month = _MONTHS.index(match["month"].lower()) + 1
            found = found.replace(year=int(match["year"] or local.year), month=month, day=int(match["day"]))
            if not match["year"] and found < local - dt.timedelta(days=180):
                found = found.replace(year=found.year + 1)
        elif found < local - PAST_GRACE:
            # Added to the day, not to the moment: the clock says the same over a change of summer time.
            found = (found.replace(tzinfo=None) + dt.timedelta(days=1)).replace(tzinfo=local.tzinfo)
        return _possible(found.astimezone(dt.UTC), now)
    except (ValueError, OverflowError):
        return None


def _zone(name: str | None) -> dt.tzinfo | None:
    """The zone of a name; None (this machine's) where there is none or nobody knows it."""
    if not name:
        return None
    if name.upper() in ("UTC", "GMT", "Z"):
        return dt.UTC
    import zoneinfo  # 1 MiB for what few daemons ever hear

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


# --- moments -----------------------------------------------------------------------------------------


def _moment(value: Any, now: dt.datetime) -> dt.datetime | None:
    """A moment from a field: an epoch in seconds or milliseconds, or RFC 3339."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            try:
                found = dt.datetime.fromisoformat(text)
                return _possible(
                    (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC), now
                )
            except (ValueError, OverflowError):
                return None
    if not isinstance(value, int | float):
        return None
    if not _EPOCH_LEAST <= value < _MILLISECONDS_LEAST * 10:  # also false for what is no number
        return None
    seconds = value / 1000.0 if value >= _MILLISECONDS_LEAST else value
    try:
        return _possible(dt.datetime.fromtimestamp(seconds, dt.UTC), now)
    except (ValueError, OverflowError, OSError):
        return None


def _later(now: dt.datetime, seconds: Any) -> dt.datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not 0 <= seconds <= LONGEST.total_seconds():
        return None
    return _possible(now.astimezone(dt.UTC) + dt.timedelta(seconds=float(seconds)), now)


def _possible(found: dt.datetime, now: dt.datetime) -> dt.datetime | None:
    return found if now - PAST_GRACE <= found <= now + LONGEST else None


def _text(moment: dt.datetime) -> str:
    """RFC 3339 in UTC, to the second, never before the moment itself."""
    if moment.microsecond:
        moment = moment.replace(microsecond=0) + dt.timedelta(seconds=1)
    return moment.isoformat().replace("+00:00", "Z")
