"""A resident's processes: what they use, and whether there is one that was not started here. All blocking."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable
from typing import Final

import msgspec
import psutil

from daemon_core.jobs.residents.files import Resident
from daemon_core.jobs.residents.places import Outside
from daemon_core.processes import tree
from daemon_core.processes.tree import Identity

RESIDENT_VARIABLE: Final = "OSTLER_RESIDENT_ID"
"""In the environment of every resident: which one it is."""
SAMPLE_S: Final = 0.2
"""Between two looks at the processor time, where there was none before to compare with."""
SAMPLE_GOOD_FOR_S: Final = 300.0
_PID_FILE_LIMIT_BYTES: Final = 64


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a tree of processes uses."""

    processes: int = 0
    memory_bytes: int = 0
    """Unique to it where the system tells (shared pages counted once), else resident."""
    cpu_s: float = 0.0
    """Processor time of the processes that live."""
    cpu_percent: float = 0.0
    """Of one processor, since the last look or over a moment."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A look to compare the next one with."""

    at: float
    cpu: dict[Identity, float]


def members(root: Identity, *, itself: bool) -> set[Identity]:
    """The tree below a process, with or without it. Empty if the root is not that process any more."""
    if not tree.is_alive(root):
        return set()
    return tree.descendants(root.pid) | ({root} if itself else set())


def measure(roots: Collection[tuple[Identity, bool]], last: Sample | None) -> tuple[Usage, Sample]:
    """What the trees below these processes use; (root, whether it counts itself)."""
    first = last
    if first is None or time.monotonic() - first.at > SAMPLE_GOOD_FOR_S:
        first = _sample(_all_members(roots))
        time.sleep(SAMPLE_S)
    found = _all_members(roots)
    second = _sample(found)
    spent = sum(max(0.0, now - first.cpu.get(who, 0.0)) for who, now in second.cpu.items())
    elapsed = max(second.at - first.at, 0.001)
    usage = Usage(
        processes=len(found),
        memory_bytes=sum(_memory(who.pid) for who in found),
        cpu_s=round(sum(second.cpu.values()), 3),
        cpu_percent=round(100 * spent / elapsed, 1),
    )
    return usage, second


def _all_members(roots: Collection[tuple[Identity, bool]]) -> set[Identity]:
    found: set[Identity] = set()
    for root, itself in roots:
        found |= members(root, itself=itself)
    return found


def _sample(processes: Iterable[Identity]) -> Sample:
    cpu = {}
    at = time.monotonic()
    for who in processes:
        try:
            times = psutil.Process(who.pid).cpu_times()
        except psutil.Error:
            continue
        cpu[who] = times.user + times.system
    return Sample(at=at, cpu=cpu)


def _memory(pid: int) -> int:
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        return int(line.split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            pass  # an older kernel, or another user's: resident memory will do
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


# --- started elsewhere ------------------------------------------------------------------------------


def find_outside(resident: Resident, argv: tuple[str, ...], ours: Collection[Identity]) -> list[Outside]:
    """Processes of this user that are this resident and were not started here, a launcher and the process it
    wraps counted as one. By its own pid file, and by command and directory; all of both must be the same,
    since a program of that name alone may be anybody's.
    """
    known = {who.pid for who in ours} | {os.getpid()}
    found: dict[int, psutil.Process] = {}
    written = _of_pid_file(resident.pid_file)
    if written is not None and written.pid not in known:
        found[written.pid] = written
    directory = os.path.realpath(resident.directory)
    wanted = _variants(argv, directory)
    for process in psutil.process_iter():
        if process.pid in known or process.pid in found:
            continue
        try:
            if hasattr(os, "geteuid") and process.uids().effective != os.geteuid():
                continue
            line = tuple(process.cmdline())
            here = _is_it(line, wanted, argv) and os.path.realpath(process.cwd()) == directory
            # Another resident may be the same program in the same directory, with other variables.
            named = process.environ().get(RESIDENT_VARIABLE, resident.id) if here else ""
            if here and named == resident.id and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
        except (psutil.Error, OSError):
            continue  # gone, or not to be looked at: not this user's
    return [
        outside
        for process in found.values()
        if not _below_another(process, found) and (outside := _outside(process)) is not None
    ]


def _is_it(line: tuple[str, ...], wanted: Collection[str], argv: tuple[str, ...]) -> bool:
    """Whether a command line is this command, behind an interpreter if it is a script."""
    size = len(argv)
    for skip in (0, 1, 2):
        if len(line) == size + skip and line[skip + 1 :] == argv[1:]:
            return line[skip] in wanted or (skip == 0 and os.path.realpath(line[0]) in wanted)
    return False


def _variants(argv: tuple[str, ...], directory: str) -> set[str]:
    program = argv[0]
    found = {program, os.path.realpath(os.path.join(directory, program)) if "/" in program else program}
    if "/" in program:
        found.add(os.path.normpath(os.path.join(directory, program)))
    return found


def _of_pid_file(path: str) -> psutil.Process | None:
    """The process that a pid file names, if it was started before the file was written."""
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            written = os.fstat(file.fileno()).st_mtime
            pid = int(file.read(_PID_FILE_LIMIT_BYTES).split()[0])
        process = psutil.Process(pid)
        if hasattr(os, "geteuid") and process.uids().effective != os.geteuid():
            return None
        # A process that is younger than the file has only got the number of the one that wrote it.
        if process.create_time() > written + 2.0 or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process
    except (OSError, ValueError, IndexError, OverflowError, psutil.Error):
        return None


def _below_another(process: psutil.Process, found: dict[int, psutil.Process]) -> bool:
    try:
        return any(parent.pid in found for parent in process.parents())
    except psutil.Error:
        return False


def _outside(process: psutil.Process) -> Outside | None:
    who = tree.identify(process.pid)
    if who is None:
        return None
    try:
        command = " ".join(process.cmdline())[:200]
    except psutil.Error:
        command = ""
    return Outside(pid=who.pid, started=who.started, command=command)
