"""From the moment a task is added until its process runs its first instruction, and where the time goes."""

from __future__ import annotations

import time

from benchmarks import processes
from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, median, percentile
from tests.end_to_end.home import wait_until
from tests.support.scripted_agent import script

TASKS = 120
AGENT_TASKS = 20
WARM_UP = 5


def measure() -> list[Row]:
    """One task after the other, each with the machine at rest before it."""
    with home() as place:
        place.start()
        for _ in range(WARM_UP):
            _one(place)
        cpu_before = processes.cpu_s(place.pid)
        tasks = [_one(place) for _ in range(TASKS)]
        cpu_s = processes.cpu_s(place.pid) - cpu_before
        agents = [_agent(place) for _ in range(AGENT_TASKS)]
        place.stop()
    whole = [each["whole"] for each in tasks]
    parts = {
        "asked → task at the hub": "created",
        "task at the hub → claimed": "claimed",
        "claimed → started (recorded, directory, start)": "started",
        "started → process runs": "process",
    }
    return [
        Row("task added → process runs, p50", percentile(whole, 50), "ms", "< 50", f"shell, n={TASKS}"),
        Row("task added → process runs, p90", percentile(whole, 90), "ms"),
        Row("task added → process runs, p99", percentile(whole, 99), "ms"),
        *(Row(f"of it: {name}", median(each[key] for each in tasks), "ms") for name, key in parts.items()),
        Row(
            "task added → scripted agent runs, p50", percentile(agents, 50), "ms",
            note=f"Python's own start included, n={AGENT_TASKS}",
        ),
        Row("process runs → task ended at the hub, p50", median(each["ended"] for each in tasks), "ms"),
        Row("processor time of the daemon a task", cpu_s / TASKS * 1000, "ms", note="whole life of a task"),
    ]  # fmt: skip


def _one(place: BenchHome) -> dict[str, float]:
    mark = place.root / "mark"
    mark.unlink(missing_ok=True)
    began = time.time_ns() / 1e6
    # A builtin: nothing but the shell has to be started for it.
    task_id = place.add(f"echo $EPOCHREALTIME > {mark}", runtime="shell")
    time.sleep(0.1)  # neither the process nor the daemon is disturbed by our asking
    wait_until(lambda: mark.exists() and mark.read_text().endswith("\n"), "the process to run")
    ran = float(mark.read_text()) * 1000
    wait_until(lambda: place.hub("SELECT 1 FROM task WHERE id = ? AND ended_at > 0", task_id), "the end")
    wait_until(place.all_delivered, "the delivery")
    at = {name: value / 1000 for name, value in place.task_times(task_id).items()}
    return {
        "whole": ran - began,
        "created": at["created_at"] - began,
        "claimed": at["dispatched_at"] - at["created_at"],
        "started": at["started_at"] - at["dispatched_at"],
        "process": ran - at["started_at"],
        "ended": at["ended_at"] - ran,
    }


def _agent(place: BenchHome) -> float:
    """The scripted agent touches a file as soon as it understands its prompt."""
    mark = place.root / "touched"
    mark.unlink(missing_ok=True)
    began = time.time_ns()
    task_id = place.add(script({"touch": str(mark)}))
    time.sleep(0.15)
    wait_until(mark.exists, "the agent to run")
    ran = mark.stat().st_mtime_ns
    wait_until(lambda: place.hub("SELECT 1 FROM task WHERE id = ? AND ended_at > 0", task_id), "the end")
    wait_until(place.all_delivered, "the delivery")
    return (ran - began) / 1e6
