"""``python -m benchmarks [NAME…]``: run these benchmarks (all without a name) and print a table."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import (
    cleanup,
    deltas,
    desktop,
    environments,
    followup,
    idle,
    jobs,
    overhead,
    packaged,
    parsing,
    processes,
    repositories,
    servers,
    shim,
    start,
    status,
    tasks,
    transcript,
    updates,
    wakeup,
    windows,
)
from benchmarks.rows import Report, Result, Row, about, as_markdown, as_text, contention, machine


def _shim() -> list[Row]:
    """Its module stands alone; what it says beside a value is an aim only if it is a limit."""
    rows = []
    for found in asyncio.run(shim.measure()):
        said = str(found.get("aim", ""))
        is_limit = said.startswith(("< ", "> "))
        rows.append(
            Row(
                found["what"], float(found["value"]), found["unit"], said if is_limit else "",
                str(found.get("note", "")) if is_limit else said,
            )
        )  # fmt: skip
    return rows


BENCHMARKS: dict[str, tuple[Callable[[], list[Row]], str]] = {
    "start": (start.measure, "daemon start to running, 1, 5 and 20 agents, cold and warm cache"),
    "packaged": (packaged.measure, "sizes of installers; packaged programs against the same from source"),
    "deltas": (deltas.measure, "size of an update after a small change, time and memory of applying it"),
    "status": (status.measure, "ostler daemon status as a whole command"),
    "wakeup": (wakeup.measure, "task added to process started"),
    "followup": (followup.measure, "job ended to its agent's next turn"),
    "jobs": (jobs.measure, "200 jobs at once, and 1 GB of output through one"),
    "tasks": (tasks.measure, "short tasks a second"),
    "transcript": (transcript.measure, "200,000 messages from an agent to the server"),
    "parsing": (parsing.measure, "reading agents' output, by protocol family"),
    "overhead": (overhead.measure, "the one-tool task by the bare CLI and by Ostler"),
    "idle": (idle.measure, "an idle daemon over 60 s"),
    "repositories": (repositories.measure, "first and repeated checkout of 5,000 files"),
    "environments": (environments.measure, "preparing a task's directory: brief, skills, manifest"),
    "cleanup": (cleanup.measure, "clean-up over 5,000 work directories"),
    "servers": (servers.measure, "claims a second at the hub, hint to claim, 200 idle runtimes"),
    "desktop": (desktop.measure, "the desktop: start to icon, click to window, an idle minute"),
    "updates": (updates.measure, "claim pause of an update with eight running tasks"),
    "windows": (windows.measure, "the desktop's windows: frames of long transcripts and lists"),
    "shim": (_shim, "memory, start and relaying of a shim"),
}


def main() -> int:
    """Run what was asked for; a benchmark that breaks does not take the others with it."""
    listing = "\n".join(f"  {name:12}{what}" for name, (_, what) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures Ostler. Nothing of yours is touched: every daemon has a home of its own.",
        epilog=f"benchmarks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all without a name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file as well")
    parser.add_argument("--markdown", action="store_true", help="print a table for a README")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(BENCHMARKS)})")
    if sys.platform != "linux":
        parser.error("the benchmarks read /proc, which only Linux has")
    # Ended from outside, it still takes its daemons and directories with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    where = machine()
    results = []
    for name in options.names or BENCHMARKS:
        measure, what = BENCHMARKS[name]
        print(f"{name}: {what} …", end="", file=sys.stderr, flush=True)
        began, waited_s = time.monotonic(), processes.waited_s()
        try:
            result = Result(name, measure())
        except Exception as error:  # noqa: BLE001 - told in the table
            first = str(error).partition("\n")[0][:300]
            result = Result(name, [], f"{type(error).__name__}: {first}")
        waited_after_s = processes.waited_s()
        if waited_s is not None and waited_after_s is not None:
            part = (waited_after_s - waited_s) / (time.monotonic() - began) * 100
            result = msgspec.structs.replace(result, contention=round(part, 1))
        results.append(result)
        print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
        if options.json is not None:
            report = msgspec.json.encode(Report(where, results))
            options.json.write_bytes(msgspec.json.format(report, indent=2) + b"\n")
    print(f"{about(where)}\n{contention(results)}\n")
    print(as_markdown(results) if options.markdown else as_text(results))
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
