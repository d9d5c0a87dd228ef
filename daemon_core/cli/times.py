"""Times and durations as given on a command line."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Final

from daemon_core.cli.words import EXIT_USAGE, CliError

LONGEST_S: Final = 100 * 365 * 86400.0
"""More cannot be waited for: clocks and sockets count no further than a few times that."""


def seconds(text: str, option: str) -> float:
    """ "90", "90s", "5m", "1h30m": plain numbers are seconds."""
    from daemon_core.settings.values import parse_duration

    try:
        found = float(text) if text.replace(".", "", 1).isdecimal() else parse_duration(text)
    except ValueError as error:
        raise CliError("usage", f"{option} {error}", "", EXIT_USAGE) from error
    if found > LONGEST_S:
        raise CliError("usage", f"{option} is longer than a hundred years", "Give less", EXIT_USAGE)
    return found


def moment(text: str, option: str, now: datetime | None = None) -> datetime:
    """A time of the user's clock: RFC 3339, "2026-05-04 18:00", "18:00" (the next one) or "tomorrow"."""
    here = (now or datetime.now(UTC)).astimezone()
    try:
        if text.strip().lower() == "tomorrow":
            # Local midnight, whatever the clocks do that night.
            return datetime.combine(here.date() + timedelta(days=1), time()).astimezone()
        if len(text) <= 5 and ":" in text:
            wanted = datetime.combine(here.date(), time.fromisoformat(text.zfill(5))).astimezone()
            return wanted if wanted > here else wanted + timedelta(days=1)
        given = datetime.fromisoformat(text).astimezone(UTC)  # without a zone it is the user's own
    except (ValueError, OverflowError) as error:  # no time, or one beyond those that can be told
        raise CliError(
            "usage",
            f"{option} {text!r} is not a time",
            'Give "18:00", "tomorrow", "2026-05-04 18:00" or an RFC 3339 time',
            EXIT_USAGE,
        ) from error
    if given <= here:
        raise CliError("usage", f"{option} {text!r} is in the past", "Give a later time", EXIT_USAGE)
    return given


def stamp(value: datetime) -> str:
    """RFC 3339 in UTC."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
