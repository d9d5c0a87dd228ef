"""Processes and their trees, by identity.

A pid alone is never signalled: it is a process together with its start time, and on Linux the comparison is
made while a pidfd pins the process. Linux reads /proc directly, other systems go through psutil.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

LINUX = sys.platform == "linux"
SWEEP_LIMIT_S = 10.0
# Elsewhere the shim only knows about when it started something.
START_TOLERANCE = 0 if LINUX else 2_000_000


class Identity(NamedTuple):
    """A process that cannot be taken for another one with the same pid."""

    pid: int
    started: int  # clock ticks since boot (Linux), else microseconds since 1970


def identify(pid: int) -> Identity | None:
    """The identity of a living process, None if there is none (a zombie does not live)."""
    found = _look(pid)
    return Identity(pid, found[1]) if found else None


def is_alive(who: Identity) -> bool:
    """Whether exactly this process still lives."""
    found = _look(who.pid)
    return found is not None and abs(found[1] - who.started) <= START_TOLERANCE


def send(who: Identity, number: int) -> bool:
    """Signals exactly this process. False if it is gone or not ours to signal."""
    if sys.platform != "linux":
        if is_alive(who):
            try:
                psutil.Process(who.pid).send_signal(number)
                return True
            except psutil.Error:
                pass
        return False
    try:
        handle = os.pidfd_open(who.pid)
    except OSError:
        return False
    try:
        if not is_alive(who):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def descendants(pid: int) -> set[Identity]:
    """The living processes below ``pid``, itself not included."""
    return _below({pid}, dict(_all()))


def families(roots: Collection[int]) -> dict[int, set[Identity]]:
    """Each of these processes with the living ones below it, by one walk over all; without those gone."""
    everyone = dict(_all())
    return {
        pid: _below({pid}, everyone) | {Identity(pid, everyone[pid][1])} for pid in roots if pid in everyone
    }


def marked(mark: str) -> set[Identity]:
    """The living processes with ``OSTLER_MARK=<mark>`` in the environment they were started with."""
    return {Identity(pid, started) for pid, (_, started) in _all() if _has_mark(pid, mark)}


def end_survivors(mark: str, cgroup: str | None) -> list[int]:
    """Ends whatever still lives of a run that has lost its shim.

    Blocking (milliseconds, at most 10 s) and thread-safe.

    Finds processes by the mark in their environment, by the run's cgroup, and those below them. A process
    that has left both and has no living parent of the run any more (its environment cleared, no cgroup to
    be had) is not found.

    Args:
        mark: value of OSTLER_MARK that the run was started with.
        cgroup: directory of the run's cgroup, as in ``shim.json``; removed when it is empty.

    Returns:
        The pids that were killed, in order.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + SWEEP_LIMIT_S
    rounds = 0
    empty = 0
    while time.monotonic() < deadline:
        found = _survivors(mark, cgroup)
        if not found:
            empty += 1
            if empty == 2:
                break
            time.sleep(0.005)  # a process in the middle of execve(2) shows no environment
            continue
        empty = 0
        rounds += 1
        if rounds > 3:
            # Something forks faster than it is killed: stop all of it first.
            found = _stop_all(mark, cgroup, deadline)
        if cgroup:
            _write(Path(cgroup) / "cgroup.kill", "1")
            killed.update(who.pid for who in found)
        killed.update(who.pid for who in found if send(who, getattr(signal, "SIGKILL", signal.SIGTERM)))
        time.sleep(0.001 * rounds)
    if cgroup:
        _remove_cgroup(Path(cgroup))
    return sorted(killed)


def _stop_all(mark: str, cgroup: str | None, deadline: float) -> set[Identity]:
    stopped: set[Identity] = set()
    while time.monotonic() < deadline:
        fresh = _survivors(mark, cgroup) - stopped
        if not fresh:
            break
        for who in fresh:
            send(who, getattr(signal, "SIGSTOP", signal.SIGTERM))
        stopped |= fresh
    return stopped


def _survivors(mark: str, cgroup: str | None) -> set[Identity]:
    everyone = dict(_all())
    roots = {pid for pid in everyone if mark and _has_mark(pid, mark)}
    if cgroup:
        try:
            lines = (Path(cgroup) / "cgroup.procs").read_text().split()
        except OSError:
            lines = []
        roots |= {int(line) for line in lines}
    # Whoever asks is never swept, even inside of a run (then it has that run's mark, not this one's).
    roots.discard(os.getpid())
    here = {Identity(pid, everyone[pid][1]) for pid in roots if pid in everyone}
    return {who for who in here | _below(roots, everyone) if who.pid != os.getpid()}


def _below(roots: set[int], everyone: dict[int, tuple[int, int]]) -> set[Identity]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in everyone.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return {Identity(pid, everyone[pid][1]) for pid in found}


def _all() -> Iterator[tuple[int, tuple[int, int]]]:
    """(pid, (parent pid, start time)) of every living process."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()] if LINUX else psutil.pids():
        found = _look(pid)
        if found is not None:
            yield pid, found


def _look(pid: int) -> tuple[int, int] | None:
    if LINUX:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else (int(fields[1]), int(fields[19]))
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return process.ppid(), int(process.create_time() * 1e6)
    except psutil.Error:
        return None


def _has_mark(pid: int, mark: str) -> bool:
    if LINUX:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"OSTLER_MARK={mark}".encode() in file.read().split(b"\0")
        except OSError:
            return False
    try:
        return psutil.Process(pid).environ().get("OSTLER_MARK") == mark
    except (psutil.Error, OSError):
        return False


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError:
        pass  # an older kernel, or the cgroup is gone


def _remove_cgroup(path: Path) -> None:
    for _ in range(50):
        try:
            for below in path.iterdir():
                if below.is_dir():
                    _remove_cgroup(below)
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.002)  # its last process is still on its way out
