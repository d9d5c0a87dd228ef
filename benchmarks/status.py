"""``ostler daemon status`` as a whole command, as a person or a script waits for it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.homes import home
from benchmarks.rows import Row, median, spread

ROUNDS = 21
EXIT_UNREACHABLE = 3
"""What the command says of a daemon that does not run."""


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

        def timed(argv: list[str], times: list[float], code: int = 0) -> None:
            null = subprocess.DEVNULL
            began = time.perf_counter()
            ended = subprocess.run(argv, env=place.environ, stdout=null, stderr=null, check=False)
            times.append(time.perf_counter() - began)
            if ended.returncode != code:
                raise RuntimeError(f"{' '.join(argv)} ended with {ended.returncode}, not {code}")

        place.start()
        timed([ostler, "daemon", "status"], [])
        for _ in range(ROUNDS):
            for name, argv in commands.items():
                timed(argv, found[name])
        place.stop()
        for _ in range(ROUNDS):
            timed([ostler, "daemon", "status"], stopped, EXIT_UNREACHABLE)
    rows = [
        Row(name, median(times), "s", "< 0.2" if "status" in name else "", spread(times, "s"))
        for name, times in found.items()
    ]
    rows.insert(
        2, Row("ostler daemon status, no daemon", median(stopped), "s", "< 0.2", spread(stopped, "s"))
    )
    return rows
