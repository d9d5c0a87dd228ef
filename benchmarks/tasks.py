"""Short tasks a second: 200 that do nothing, let loose at once on 8 slots."""

from __future__ import annotations

import datetime as dt

from benchmarks import processes
from benchmarks.homes import home
from benchmarks.rows import Row, median, spread

TASKS = 200
SLOTS = 8
ROUNDS = 3


def measure() -> list[Row]:
    """The barrier is up while they are queued; time runs from the first claim to the last end at the hub."""
    rates: list[float] = []
    cpu: list[float] = []
    most: list[int] = []
    with home() as place:
        place.set(f"[daemon]\nslots = {SLOTS}\n")
        place.start()
        total = 0
        for _ in range(ROUNDS):
            place.call("POST", "/v1/daemon/pause", {})
            first = place.hub("SELECT coalesce(max(no), 0) FROM task")[0][0]
            for _ in range(TASKS):
                place.add("true", runtime="shell")
            total += TASKS
            before = processes.cpu_s(place.pid)
            place.call("POST", "/v1/daemon/resume", {})
            place.settle(total)
            cpu.append((processes.cpu_s(place.pid) - before) / TASKS * 1000)
            times = place.hub("SELECT dispatched_at, ended_at FROM task WHERE no > ?", first)
            began = min(dispatched for dispatched, _ in times)
            rates.append(TASKS / ((max(ended for _, ended in times) - began) / 1e6))
            # By the journal: a slot is held from the claim until the result is durable here. The hub hears of
            # the end a moment later, when the next task may have been claimed already.
            held = place.journal(
                "SELECT claimed_at, ended_at FROM tasks ORDER BY claimed_at DESC LIMIT ?", TASKS
            )
            most.append(_most_at_once([(_us(claimed), _us(ended)) for claimed, ended in held]))
            failed = place.hub("SELECT count(*) FROM task WHERE status <> 'completed'")[0][0]
            if failed:
                raise RuntimeError(f"{failed} tasks did not complete")
        memory = processes.memory_mib(place.pid)
        place.stop()
    return [
        Row(f"short tasks a second, {SLOTS} slots", median(rates), "1/s", note=spread(rates, "1/s")),
        Row("processor time of the daemon a task", median(cpu), "ms"),
        Row("most slots held at once", max(most), "", f"< {SLOTS + 1}"),
        Row("PSS of the daemon afterwards", memory["Pss"], "MiB", "< 45", f"after {total} tasks"),
    ]


def _us(moment: str) -> int:
    return round(dt.datetime.fromisoformat(moment).timestamp() * 1e6)


def _most_at_once(times: list[tuple[int, ...]]) -> int:
    """How many were between claim and end at the same time."""
    events = sorted([(at, 1) for at, _ in times] + [(at, -1) for _, at in times])
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most
