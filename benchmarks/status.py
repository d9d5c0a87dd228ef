"""``ostler daemon status`` as a whole command, as a person or a script waits for it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.homes import home
from benchmarks.rows import Row, median, spread

ROUNDS = 21


def measure() -> list[Row]:
    """In turns with a bare interpreter."""
    ostler = str(Path(sys.executable).with_name("ostler"))
    commands = {
        "ostler daemon status --json": [ostler, "daemon", "status", "--json"],
        "ostler daemon status": [ostler, "daemon", "status"],
        "ostler version": [ostler, "version"],
        "for comparison: python -c ''": [sys.executable, "-c", ""],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    stopped: list[float] = []
    with home() as place:

        def timed(argv: list[str], times: list[float]) -> None:
            began = time.perf_counter()
            subprocess.run(argv, env=place.environ, stdout=subprocess.DEVNULL, check=False)
            times.append(time.perf_counter() - began)

        place.start()
        timed([ostler, "daemon", "status"], [])
        for _ in range(ROUNDS):
            for name, argv in commands.items():
                timed(argv, found[name])
        place.stop()
        for _ in range(ROUNDS):
            timed([ostler, "daemon", "status"], stopped)
    rows = [
        Row(name, median(times), "s", "< 0.2" if "status" in name else "", spread(times, "s"))
        for name, times in found.items()
    ]
    rows.insert(
        2, Row("ostler daemon status, no daemon", median(stopped), "s", "< 0.2", spread(stopped, "s"))
    )
    return rows
