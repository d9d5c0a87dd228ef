"""From the start of the daemon's process until ``/v1/status`` says ``running``.

The agents are stand-ins that tell their version in some 15 ms; real ones take longer, which a cold start
waits for. *Cold* is without the cache of versions; the system's own caches are warm in any case.
"""

from __future__ import annotations

import datetime as dt
import time

from benchmarks import processes
from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, median, spread

ROUNDS = 9
COUNTS = (1, 5, 20)
AIM_S = "< 0.8"


def measure() -> list[Row]:
    """In turns: each number of agents, without and with the cache of versions."""
    # With a login shell, as everybody has one: a cold start asks it for PATH.
    shell = {"SHELL": "/bin/bash"}
    with (
        home(claude=False, environ=shell) as one,
        home(claude=False, environ=shell) as five,
        home(claude=False, environ=shell) as twenty,
    ):
        homes = dict(zip(COUNTS, (one, five, twenty), strict=True))
        first = {}
        for count, place in homes.items():
            place.install(count)
            first[count] = _start(place)
        found: dict[tuple[int, str], list[dict[str, float]]] = {}
        for _ in range(ROUNDS):
            for count, place in homes.items():
                for kind in ("cold", "warm"):
                    if kind == "cold":
                        place.directories.agents_cache_file.unlink()
                    found.setdefault((count, kind), []).append(_start(place))
    rows = []
    for (count, kind), starts in found.items():
        whole = [each["whole"] for each in starts]
        rows.append(
            Row(
                f"{count} agent{'s' * (count > 1)}, {kind} cache",
                median(whole),
                "s",
                AIM_S if kind == "warm" else "",
                f"{spread(whole, 's')}; {median(each['cpu'] for each in starts):.2f} s of processor time",
            )
        )
    warm = [each for (_, kind), starts in found.items() if kind == "warm" for each in starts]
    rows += [
        Row("of a warm one: until Python runs", median(each["python"] for each in warm), "s"),
        Row("of a warm one: imports until main()", median(each["imports"] for each in warm), "s"),
        Row(
            "of a warm one: from main() to running",
            median(each["main"] for each in warm),
            "s",
            note="by the log",
        ),
        Row("the very first start of a home, 5 agents", first[5]["whole"], "s", note="once"),
    ]
    return rows


def _start(place: BenchHome) -> dict[str, float]:
    began = time.time_ns()
    daemon = place.launch()
    while place.status().get("status") != "running":
        if daemon.poll() is not None:
            raise RuntimeError(place.said())
        time.sleep(0.005)
    running = time.time_ns()
    cpu_s = processes.cpu_s(daemon.pid)
    python, main = place.began()
    logged = _logged(place, "running:")
    place.stop()
    return {
        "whole": (running - began) / 1e9,
        "python": (python - began) / 1e9,
        "imports": (main - python) / 1e9,
        "main": logged - main / 1e9,
        "cpu": cpu_s,
    }


def _logged(place: BenchHome, words: str) -> float:
    """When the log's last line with these words was written (s since 1970)."""
    line = [line for line in place.directories.log_file.read_text().splitlines() if words in line][-1]
    return dt.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
