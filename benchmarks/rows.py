"""What a benchmark gives, and the forms in which it is shown."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from daemon_core import __version__


class Row(msgspec.Struct, frozen=True):
    """One measured value. ``aim`` is ``"< 20"``, ``"> 20"`` or empty, in the row's unit."""

    name: str
    value: float
    unit: str
    aim: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        sign, _, limit = self.aim.partition(" ")
        if not limit:
            return None
        return self.value < float(limit) if sign == "<" else self.value > float(limit)


class Result(msgspec.Struct, frozen=True):
    """What one benchmark found, or why it could not."""

    benchmark: str
    rows: list[Row]
    error: str = ""
    contention: float | None = None
    """Part of its time (%) in which something on the machine waited for a processor: its own processes or
    others. Times of a benchmark that stands beside a high one tell little; None: the kernel does not say."""


class Machine(msgspec.Struct, frozen=True):
    """Where and when."""

    date: str
    version: str
    system: str
    processor: str
    cores: int
    memory_gib: float
    python: str
    load_before: float


class Report(msgspec.Struct, frozen=True):
    """Everything that ``--json`` writes."""

    machine: Machine
    results: list[Result]


def machine() -> Machine:
    """This machine, now."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        version=__version__,
        system=f"{_distribution()}, {platform.system()} {platform.release()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(pages / 2**30, 1),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load_before=round(os.getloadavg()[0], 1),
    )


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(values: Sequence[float], unit: str = "") -> str:
    """Smallest and largest, for a note."""
    return f"{number(min(values))} to {number(max(values))}{' ' + unit if unit else ''}, n={len(values)}"


def number(value: float) -> str:
    """With three digits that say something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


# --- forms -------------------------------------------------------------------------------------------

_HEAD = ("benchmark", "what", "value", "unit", "aim", "", "note")


def _table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for result in results:
        for row in result.rows:
            verdict = {True: "ok", False: "MISSED", None: ""}[row.met]
            lines.append(
                (result.benchmark, row.name, number(row.value), row.unit, row.aim, verdict, row.note)
            )
        if result.error:
            lines.append((result.benchmark, "could not be measured", "", "", "", "", result.error))
    return lines


def about(where: Machine) -> str:
    """The machine in a sentence."""
    return (
        f"Ostler {where.version}, {where.python}, {where.system}, {where.cores} cores of {where.processor},"
        f" {where.memory_gib:g} GiB, {where.date}, load before: {where.load_before:g}"
    )


def contention(results: Sequence[Result]) -> str:
    """How much each benchmark was in the company of others."""
    told = [f"{each.benchmark} {each.contention:.0f} %" for each in results if each.contention is not None]
    return f"Time in which something waited for a processor: {', '.join(told)}" if told else ""


def as_text(results: Sequence[Result]) -> str:
    """For a terminal."""
    lines = [_HEAD, *_table(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    shown = []
    for line in lines:
        cells = [
            cell.rjust(width) if column == 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def as_markdown(results: Sequence[Result]) -> str:
    """For a README."""
    lines = ["| what | value | aim | note |", "|---|---|---|---|"]
    for benchmark, what, value, unit, aim, verdict, note in _table(results):
        cells = (f"{benchmark}: {what}", f"{value} {unit}".strip(), f"{aim} {verdict}".strip(), note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
