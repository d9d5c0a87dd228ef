"""When Ostler started, stopped, crashed and was updated, as its log and its updater tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

_LINE: Final = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:,\d+)? (\w+)\s+([\w.]+): (.*)$")
_START: Final = re.compile(r"^Ostler \S+ starts ")
_STOP: Final = re.compile(r"^stopped; ")
_DEATH: Final = re.compile(r"^the daemon ends because of an error")
MOST: Final = 2_000


def timeline(lines: Iterable[str]) -> list[str]:
    """The lines that tell of starts and ends, with crashes (a start after which no end was told) named."""
    found = list(_events(lines))
    return found[-MOST:]


def _events(lines: Iterable[str]) -> Iterator[str]:
    up = False
    last = ""
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        at, level, logger, text = match.groups()
        if _START.match(text):
            if up:
                yield f"{last} CRASH    nothing was said at the end; this was the last line"
            up = True
            yield f"{at} START    {text}"
        elif _STOP.match(text):
            up = False
            yield f"{at} STOP     {text}"
        elif _DEATH.match(text):
            up = False
            yield f"{at} CRASH    {text}"
        elif level in ("CRITICAL", "ERROR"):
            yield f"{at} {level:<8} {logger}: {text}"
        elif logger.startswith("daemon_core.updates"):
            yield f"{at} UPDATE   {text}"
        last = at
