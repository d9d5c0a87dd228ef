"""From the exit of a job until its agent has begun the turn that tells of it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, percentile
from tests.end_to_end.home import wait_until
from tests.support.scripted_agent import script

WAKES = 15
TURNS = 15
WARM_UP = 2


def measure() -> list[Row]:
    """A conversation whose turn is over is woken; and a run that waits is told in the same process."""
    with home() as place:
        place.start()
        for number in range(WARM_UP):
            _woken(place, number)
        woken = [_woken(place, number) for number in range(WARM_UP, WARM_UP + WAKES)]
        noticed = [_noticed(place, number) for number in range(TURNS)]
        place.stop()
    note = f"scripted agent, n={WAKES}"
    return [
        Row("job's exit → woken agent works, p50", percentile(woken, 50), "ms", note=note),
        Row("job's exit → woken agent works, p90", percentile(woken, 90), "ms"),
        Row("job's exit → notice is in the journal, p50", percentile(noticed, 50), "ms", note=f"n={TURNS}"),
        Row("job's exit → notice is in the journal, p90", percentile(noticed, 90), "ms"),
    ]


def _woken(place: BenchHome, number: int) -> float:
    """The turn is over; the job ends; the agent of the new turn touches a file."""
    go, at, mark = (place.root / f"{name}-{number}" for name in ("go", "at", "mark"))
    _conversation(place, go, at, script({"touch": str(mark)}))
    go.touch()
    wait_until(mark.exists, "the woken agent to work")
    wait_until(place.all_delivered, "the delivery")
    return mark.stat().st_mtime_ns / 1e6 - float(at.read_text()) * 1000


def _noticed(place: BenchHome, number: int) -> float:
    """The part of it that is the daemon's hearing of the end."""
    go, at = (place.root / f"{name}-noticed-{number}" for name in ("go", "at"))
    _conversation(place, go, at, script({"text": "told"}))
    go.touch()
    wait_until(place.all_delivered, "the delivery")

    def told() -> list[tuple[object, ...]]:
        return place.journal(
            "SELECT (julianday(created_at) - 2440587.5) * 86400000.0 FROM notices WHERE state = 'delivered'"
            " ORDER BY id DESC LIMIT 1"
        )

    wait_until(lambda: at.exists() and at.read_text().endswith("\n"), "the job to end")
    ended = float(at.read_text()) * 1000
    found = wait_until(lambda: [row for row in told() if float(str(row[0])) > ended - 50], "the notice")
    wait_until(place.all_delivered, "the delivery")
    return max(0.0, float(str(found[0][0])) - ended)


def _conversation(place: BenchHome, go: Path, at: Path, says: str) -> None:
    """A turn that starts a job and ends; the job goes on until a file is there, and writes when it ends."""
    command = f"while [ ! -e {go} ]; do sleep 0.01; done; echo '{says}'; echo $EPOCHREALTIME > {at}"
    start = [sys.executable, "-m", "daemon_core.cli", "job", "run", "--", command]
    task_id = place.add(script({"run": start}, {"text": "started"}))
    place.wait(task_id)
    wait_until(place.all_delivered, "the delivery")
