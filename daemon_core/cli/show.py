"""How things look to a person: times, tables, safe text. Nothing here is part of ``--json``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from typing import Final

_LEAST_PREFIX: Final = 8
# Control characters but tab and line feed, and the sequences that move a terminal's cursor, change its title
# or its character set, or reset it.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_COLOUR_CHARS: Final = 64
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


def width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def safe(text: str, *, colours: bool = False) -> str:
    """Text of an agent or a command without what would take over a terminal; colours may stay."""
    plain = _ESCAPES.sub(
        lambda m: m[0] if colours and _COLOUR.match(m[0]) else "", text.replace("\r\n", "\n")
    )
    # What is left of escapes are those of colours, and pieces of what was cut.
    return _CONTROLS.sub(
        lambda m: m[0] if colours and _COLOUR.match(plain[m.start() : m.start() + _COLOUR_CHARS]) else "",
        plain,
    )


def one_line(text: str, limit: int) -> str:
    """At most ``limit`` characters on one line, shortened in the middle: both ends of a path matter."""
    flat = " ".join(safe(text).split())
    if len(flat) <= limit:
        return flat
    tail = max(0, (limit - 1) // 3)
    return flat[: limit - 1 - tail] + "…" + (flat[-tail:] if tail else "")


def local_time(stamp: str | None) -> str:
    """An RFC 3339 time as the user's clock shows it: the time today, else with the date."""
    if not stamp:
        return "-"
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone()
    today = datetime.now(UTC).astimezone()
    return moment.strftime("%H:%M:%S" if moment.date() == today.date() else "%Y-%m-%d %H:%M")


def span(seconds: float) -> str:
    """A duration in its two largest units: "3 d 4 h", "12 min 5 s"."""
    rest = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def size(count: int) -> str:
    """Bytes in the unit that fits: "0 B", "4.2 MB", "18 GB"."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def between(start: str | None, end: str | None) -> str:
    """Time from one RFC 3339 time to another (None: until now), empty where it did not begin."""
    if not start:
        return ""
    from datetime import UTC, datetime

    try:
        first = datetime.fromisoformat(start)
        last = datetime.fromisoformat(end) if end else datetime.now(UTC)
        return span((last - first).total_seconds())
    except (ValueError, TypeError):
        return ""


def prefixes(ids: Sequence[str]) -> dict[str, str]:
    """For each id the shortest beginning that names it alone among these (at least eight characters)."""
    ordered = sorted(set(ids))
    found = {}
    for index, ident in enumerate(ordered):
        need = _LEAST_PREFIX
        for other in (*ordered[max(0, index - 1) : index], *ordered[index + 1 : index + 2]):
            common = next(
                (at for at, (a, b) in enumerate(zip(ident, other, strict=False)) if a != b), len(ident)
            )
            need = max(need, common + 1)
        found[ident] = ident[:need].rstrip("-")
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns. The last one is cut at the terminal's edge rather than wrapped."""
    lines = [list(head), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    rest = max(20, width() - sum(widths) - 2 * len(widths))
    shown = []
    for line in lines:
        cells = [cell.ljust(size) for cell, size in zip(line, widths, strict=False)]
        shown.append("  ".join([*cells, one_line(line[-1], rest)]).rstrip())
    return "\n".join(shown)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Name and value a line, aligned; empty values are left out."""
    given = [(name, safe(value)) for name, value in pairs if value]
    size = max((len(name) for name, _ in given), default=0)
    return "\n".join(f"{name.ljust(size)}  {value}" for name, value in given)
