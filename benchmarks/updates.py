"""The claim pause of an update: how long no task is taken while the daemon becomes the next version.

An installed daemon (its payloads run this source) goes from version to version with eight tasks running. The
pause is counted from the first moment in which a daemon shows the barrier to the first in which the next one
shows none; looked at from outside, every few milliseconds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.rows import Row, median, percentile, spread
from tests.end_to_end.home import wait_until
from tests.end_to_end.test_updates import InstalledHome

TASKS: Final = 8
ROUNDS: Final = 20
LOOK_S: Final = 0.005
PATIENCE_S: Final = 60.0


def measure() -> list[Row]:
    """Seconds without claims, for each of many updates in a row."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as place:
        root = Path(place)
        home = InstalledHome(root)
        home.environ |= {"OSTLER_DAEMON_SLOTS": str(TASKS + 2), "OSTLER_TEST_SETTLE": "0.2"}
        try:
            home.start()
            door = root / "door"
            tasks = [
                home.add(f"while [ ! -e {door} ]; do sleep 0.2; done", runtime="shell") for _ in range(TASKS)
            ]
            for task in tasks:
                home.wait(task, "running")
            pauses = [_pause(home, f"2.{number}") for number in range(ROUNDS)]
            door.touch()
            for task in tasks:
                assert home.wait(task)["status"] == "completed"
        finally:
            home.close()
    note = f"{TASKS} running tasks, all of them ended well; {spread(pauses, 's')}"
    return [
        Row("claim pause of an update, p50", median(pauses), "s", "", note),
        Row("claim pause of an update, p99", percentile(pauses, 99), "s", "< 5", note),
    ]


def _pause(home: InstalledHome, version: str) -> float:
    home.put(version, "good")
    home.apply(version)
    began = _until(home, held=True)
    ended = _until(home, held=False)
    wait_until(lambda: home.pointer().version == version, "the commit")
    return ended - began


def _until(home: InstalledHome, *, held: bool) -> float:
    """The moment in which a daemon says that claims are held back (or not)."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        status = home.status()
        if status and (status["barrier"] is not None) is held:
            return time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError(f"claims held back: {held}")
        time.sleep(LOOK_S)
