"""What a shim costs: memory, start, relaying. ``python -m benchmarks.shim`` prints a table.

The machine is noisy: variants are run interleaved and medians compared, so trust the ratios.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from daemon_core.processes import RunSpec, Shim, spawn

Row = dict[str, Any]

LINES = 1_000_000
LINE_BYTES = 81
PYTHON = [sys.executable, "-I", "-S", "-c"]
WRITERS = {
    "block-buffered": f"import sys\nfor i in range({LINES}): sys.stdout.write('%07d %s\\n' % (i, 'x' * 72))",
    "line-buffered": (
        f"import sys\nsys.stdout.reconfigure(line_buffering=True)\n"
        f"for i in range({LINES}): sys.stdout.write('%07d %s\\n' % (i, 'x' * 72))"
    ),
}


def _spec(base: Path, *argv: str) -> RunSpec:
    mark = f"bench-{secrets.token_hex(6)}"
    return RunSpec(
        run_dir=base / mark,
        argv=argv,
        cwd=base,
        env={"PATH": "/usr/bin:/bin"},
        mark=mark,
        socket_dir=base / "run",
    )


async def _end(shims: list[Shim]) -> None:
    for shim in shims:
        await shim.end(5)
    for shim in shims:
        await shim.wait()
        await shim.close()


def _memory_kb(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(value) for name, value, *_ in (line.split() for line in lines)}


async def memory(base: Path, count: int = 10) -> list[Row]:
    """Memory of each of ``count`` running shims, after each has relayed something. Linux."""
    shims = [await spawn(_spec(base, "cat")) for _ in range(count)]
    for shim in shims:
        await shim.write(1, b"x" * 100_000)
        await shim.watch(99_999, 0)
    found = [_memory_kb(shim.info.pid) for shim in shims]
    await _end(shims)
    private = [each["Private_Clean"] + each["Private_Dirty"] for each in found]
    return [
        {
            "what": f"PSS of a shim, {count} running",
            "value": statistics.median(each["Pss"] for each in found) / 1024,
            "unit": "MiB",
            "aim": "< 4",
        },
        {
            "what": f"PSS of the biggest of {count}",
            "value": max(each["Pss"] for each in found) / 1024,
            "unit": "MiB",
        },
        {"what": "USS of a shim", "value": statistics.median(private) / 1024, "unit": "MiB"},
    ]


async def start(base: Path, count: int = 100) -> list[Row]:
    """From the call of `spawn` until the child is executed; and from the end of its input to the news."""
    times = []
    ends = []
    plain = []
    for _ in range(count + 5):
        began = time.perf_counter()
        shim = await spawn(_spec(base, "cat"))
        times.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        await shim.write(1, None)
        await shim.wait()
        ends.append((time.perf_counter() - began) * 1000)
        await shim.close()
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        plain.append((time.perf_counter() - began) * 1000)
    times, ends, plain = sorted(times[5:]), sorted(ends[5:]), sorted(plain[5:])
    return [
        {"what": "start, median", "value": statistics.median(times), "unit": "ms", "aim": "< 20"},
        {"what": "start, p99", "value": times[int(len(times) * 0.99) - 1], "unit": "ms"},
        {"what": "for comparison: python -I -S -c ''", "value": statistics.median(plain), "unit": "ms"},
        {
            "what": "close stdin of cat until wait returns, median",
            "value": statistics.median(ends),
            "unit": "ms",
        },
    ]


async def start_at_once(base: Path, count: int = 10) -> list[Row]:
    """Ten starts at the same time."""
    totals = []
    for _ in range(5):
        began = time.perf_counter()
        shims = await asyncio.gather(*(spawn(_spec(base, "cat")) for _ in range(count)))
        totals.append((time.perf_counter() - began) * 1000)
        await _end(list(shims))
    return [{"what": f"{count} starts at once, all done", "value": statistics.median(totals), "unit": "ms"}]


def _to_file(base: Path, code: str) -> float:
    began = time.perf_counter()
    with (base / "plain").open("wb") as file:
        subprocess.run([*PYTHON, code], stdout=file, check=True)
    return time.perf_counter() - began


def _to_cat(base: Path, code: str) -> float:
    began = time.perf_counter()
    pipe = subprocess.PIPE
    with (base / "plain").open("wb") as file, subprocess.Popen([*PYTHON, code], stdout=pipe) as writer:
        subprocess.run(["cat"], stdin=writer.stdout, stdout=file, check=True)
    return time.perf_counter() - began


async def _to_shim(base: Path, code: str) -> float:
    began = time.perf_counter()
    shim = await spawn(_spec(base, *PYTHON, code))
    status = await shim.wait()
    took = time.perf_counter() - began
    size = (shim.run_dir / "stdout").stat().st_size
    assert status.code == 0
    assert size == LINES * LINE_BYTES, size
    (shim.run_dir / "stdout").unlink()
    await shim.close()
    return took


async def throughput(base: Path, rounds: int = 5) -> list[Row]:
    """A million lines of 81 bytes: through a shim, through ``| cat``, and straight into a file."""
    rows: list[Row] = []
    for name, code in WRITERS.items():
        files, cats, shims = [], [], []
        for _ in range(rounds):
            files.append(await asyncio.to_thread(_to_file, base, code))
            cats.append(await asyncio.to_thread(_to_cat, base, code))
            shims.append(await _to_shim(base, code))
        file_s, cat_s, shim_s = (statistics.median(each) for each in (files, cats, shims))
        rows += [
            {"what": f"1M lines, {name}, to a file", "value": file_s * 1000, "unit": "ms"},
            {"what": f"1M lines, {name}, | cat", "value": cat_s * 1000, "unit": "ms"},
            {
                "what": f"1M lines, {name}, shim (start and end included)",
                "value": shim_s * 1000,
                "unit": "ms",
                "aim": f"{shim_s / cat_s:.2f} of | cat, {shim_s / file_s:.2f} of a file",
            },
        ]
    return rows


async def idle(base: Path, seconds: float = 5) -> list[Row]:
    """Wake-ups of an idle shim. Linux."""
    shim = await spawn(_spec(base, "sleep", "1000"))
    await shim.status()

    def switches() -> int:
        lines = Path(f"/proc/{shim.info.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    await asyncio.sleep(0.2)
    before = switches()
    await asyncio.sleep(seconds)
    after = switches()
    await _end([shim])
    return [
        {"what": "wake-ups of an idle shim", "value": (after - before) / seconds, "unit": "1/s", "aim": "0"}
    ]


async def measure() -> list[Row]:
    """Everything, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="ost-") as folder:
        base = Path(folder)
        rows = await start(base)
        rows += await start_at_once(base)
        if sys.platform == "linux":
            rows += await memory(base)
            rows += await idle(base)
        return rows + await throughput(base)


def main() -> None:
    for row in asyncio.run(measure()):
        print(f"{row['what']:58} {row['value']:10.2f} {row['unit']:4} {row.get('aim', '')}")


if __name__ == "__main__":
    main()
