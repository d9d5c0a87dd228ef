"""What a daemon costs that has nothing to do: three runtimes at the hub, every feature used once before."""

from __future__ import annotations

import time

from benchmarks import processes
from benchmarks.homes import home
from benchmarks.rows import Row
from tests.support.scripted_agent import install_scripted_agent, script

SECONDS = 60.0
SETTLE_S = 5.0


def measure() -> list[Row]:
    """Claude Code, the shell, and a third program that is driven as Claude Code is."""
    with home() as place:
        place.add_provider("second")
        install_scripted_agent(place.bin, "second", "second 2.1.0")
        place.start()
        place.add(script({"text": "hello"}, {"tool": {"name": "Bash", "output": "x"}}))
        place.add("echo hello", runtime="shell")
        place.add(script({"text": "hello"}), runtime="second")
        place.settle(3)
        place.call("GET", "/v1/snapshot")
        runtimes = place.status()["runtimes"]
        pid = place.pid
        time.sleep(SETTLE_S)
        began = time.monotonic()
        cpu_before, before = processes.cpu_s(pid), processes.wakeups_by_thread(pid)
        time.sleep(SECONDS)
        cpu_after, after = processes.cpu_s(pid), processes.wakeups_by_thread(pid)
        took_s = time.monotonic() - began
        memory = processes.memory_mib(pid)
        private = processes.private_mib(pid)
        place.stop()
    woken = {name: count - before.get(name, 0) for name, count in after.items()}
    by_thread = ", ".join(f"{name.split('/')[0]} {count}" for name, count in woken.items() if count)
    return [
        Row(
            "processor, part of one core", (cpu_after - cpu_before) / took_s * 100, "%", "< 0.1",
            f"{runtimes} runtimes, {took_s:.0f} s, {(cpu_after - cpu_before) * 1000:.1f} ms in all",
        ),
        Row(
            "wake-ups a second", sum(woken.values()) / took_s, "1/s", "< 1",
            f"by thread: {by_thread or 'none'}",
        ),
        Row("PSS", memory["Pss"], "MiB", "< 45", "after a task on each; more where no other Python runs"),
        Row("RSS", memory["Rss"], "MiB"),
        Row("USS", private, "MiB"),
        Row("threads", len(after), ""),
    ]  # fmt: skip
