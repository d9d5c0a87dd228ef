"""What the kernel tells of a process: processor time, memory, switches. Linux."""

from __future__ import annotations

from pathlib import Path

MIB = 1024.0
"""The kernel's tables are in KiB."""


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def cpu_s(pid: int) -> float:
    """Processor time of a process's living threads. Finer than the 10 ms of /proc/PID/stat."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in _threads(pid)) / 1e9


def wakeups(pid: int) -> int:
    """How often its living threads have gone to sleep and been woken."""
    total = 0
    for thread in _threads(pid):
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def wakeups_by_thread(pid: int) -> dict[str, int]:
    """The same for each thread, by name and id."""
    found = {}
    for thread in _threads(pid):
        fields = dict(
            line.split(":", 1) for line in (thread / "status").read_text().splitlines() if ":" in line
        )
        found[f"{fields['Name'].strip()}/{thread.name}"] = int(fields["voluntary_ctxt_switches"])
    return found


def memory_mib(pid: int) -> dict[str, float]:
    """``Rss``, ``Pss``, ``Private_Dirty`` and so on."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(value) / MIB for name, value, *_ in (line.split() for line in lines)}


def private_mib(pid: int) -> float:
    """Memory that nobody else shares (USS)."""
    found = memory_mib(pid)
    return found["Private_Clean"] + found["Private_Dirty"]


def peak_mib(pid: int) -> float:
    """The highest resident size since the start or since :func:`forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / MIB
    raise ValueError(f"no VmHWM of {pid}")


def forget_peak(pid: int) -> None:
    """Let the peak begin anew at the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def waited_s() -> float | None:
    """How long something on this machine has waited for a processor, since its start; None: not told."""
    try:
        line = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return None
    return int(line.rpartition("total=")[2]) / 1e6
