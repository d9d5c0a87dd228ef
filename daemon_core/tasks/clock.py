"""Wall-clock times as they are recorded: RFC 3339 in UTC."""

from __future__ import annotations

import datetime as dt


def now_text() -> str:
    """The time now, to the millisecond."""
    return text(dt.datetime.now(dt.UTC))


def text(moment: dt.datetime) -> str:
    """A moment as RFC 3339 in UTC."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(value: str) -> dt.datetime | None:
    """A recorded time; None for what is none."""
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
