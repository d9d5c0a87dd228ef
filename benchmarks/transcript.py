"""A transcript of 200,000 messages from an agent to the server: rate, processor time, memory."""

from __future__ import annotations

import time
from typing import NamedTuple

from benchmarks import processes
from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, median, spread
from tests.support.scripted_agent import script

MESSAGES = 200_000
SMALL = 20_000
ROUNDS = 3
LONG = 50_000
LONG_TEXT = "line {n} " + "x" * 1000


class _Found(NamedTuple):
    rate: float
    whole_s: float
    cpu_s: float
    before_mib: float
    peak_mib: float
    after_mib: float
    after_pss_mib: float


def measure() -> list[Row]:
    """A small one first, then the large one a few times in the same daemon."""
    with home() as place:
        place.start()
        _run(place, 1000, 1)
        small = _run(place, SMALL, 2)
        large = [_run(place, MESSAGES, 3 + number) for number in range(ROUNDS)]
        long = _run(place, LONG, 3 + ROUNDS, LONG_TEXT)
        place.stop()
    rates = [each.rate for each in large]
    cpu = [each.cpu_s for each in large]
    return [
        Row("messages a second at the hub", median(rates), "1/s", "> 20000", spread(rates, "1/s")),
        Row(f"{MESSAGES:,} messages, added until ended", median(each.whole_s for each in large), "s"),
        Row("processor time of the daemon", median(cpu), "s", note=spread(cpu, "s")),
        Row("processor time a message", median(cpu) / MESSAGES * 1e6, "µs"),
        Row("resident size before", large[0].before_mib, "MiB", note=f"after one of {SMALL:,} messages"),
        Row(
            "its growth at the peak",
            max(each.peak_mib - large[0].before_mib for each in large),
            "MiB",
            note="; ".join(f"peak {each.peak_mib:.1f}" for each in large)
            + f"; {small.peak_mib:.1f} with {SMALL:,} messages",
        ),
        Row("resident size afterwards", large[-1].after_mib, "MiB"),
        Row("PSS afterwards", large[-1].after_pss_mib, "MiB", "< 45"),
        Row("messages of 1 KB a second at the hub", long.rate, "1/s", "> 20000", f"{LONG:,} of them, once"),
        Row("peak with messages of 1 KB", long.peak_mib, "MiB"),
    ]


def _run(place: BenchHome, messages: int, tasks: int, text: str = "line {n}") -> _Found:
    pid = place.pid
    processes.forget_peak(pid)
    before_mib = processes.memory_mib(pid)["Rss"]
    cpu_before = processes.cpu_s(pid)
    began = time.time_ns() / 1e9
    task_id = place.add(script({"lines": messages, "text": text}))
    place.settle(tasks)
    cpu_s = processes.cpu_s(pid) - cpu_before
    times = place.hub(
        "SELECT m.created_at, count(*) FROM message m JOIN task t ON t.no = m.task_no WHERE t.id = ?"
        " GROUP BY m.created_at ORDER BY m.created_at",
        task_id,
    )
    if sum(count for _, count in times) != messages:
        raise RuntimeError(f"{sum(count for _, count in times)} messages of {messages} arrived")
    after_first = messages - times[0][1]
    after = processes.memory_mib(pid)
    return _Found(
        rate=after_first / max((times[-1][0] - times[0][0]) / 1e6, 1e-6),
        whole_s=place.task_times(task_id)["ended_at"] / 1e6 - began,
        cpu_s=cpu_s,
        before_mib=before_mib,
        peak_mib=processes.peak_mib(pid),
        after_mib=after["Rss"],
        after_pss_mib=after["Pss"],
    )
