"""Jobs: 200 at once (start, memory, an idle and a talking daemon), and 1 GB of output through one."""

from __future__ import annotations

import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, median, spread

JOBS = 200
AT_ONCE = 4
IDLE_S = 10.0
OUTPUT_BYTES = 1_000_000_000
ROUNDS = 3
WRITE = f"yes 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrs | head -c {OUTPUT_BYTES}"
PATIENCE_S = 300.0


def measure() -> list[Row]:
    """Two homes: the memory of the one with many jobs must not hold that of the other."""
    with home() as place:
        place.start()
        rows = _many(place)
        place.stop()
    with home() as place:
        place.start()
        rows += _much(place)
        place.stop()
    return rows


def _many(place: BenchHome) -> list[Row]:
    _run(place, "true")  # what is loaded once is loaded
    before = processes.memory_mib(place.pid)["Pss"]
    alone: list[float] = []
    for _ in range(20):
        began = time.perf_counter()
        _ask(place, "sleep 3600")
        alone.append((time.perf_counter() - began) * 1000)
    cpu = processes.cpu_s(place.pid)
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ids = list(pool.map(lambda _: _ask(place, "sleep 3600")["id"], range(JOBS - 20)))
    together_s = time.perf_counter() - began
    start_cpu = (processes.cpu_s(place.pid) - cpu) / len(ids) * 1000
    after = processes.memory_mib(place.pid)["Pss"]
    cpu = processes.cpu_s(place.pid)
    time.sleep(IDLE_S)
    idle = (processes.cpu_s(place.pid) - cpu) / IDLE_S * 100
    went = [row["id"] for row in place.call("GET", "/v1/jobs") if row["ended_at"] is None]
    if len(went) != JOBS:
        raise RuntimeError(f"{len(went)} of {JOBS} jobs run")
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda ident: place.call("POST", f"/v1/jobs/{ident}/kill"), went))
    kill_s = time.perf_counter() - began
    return [
        Row("job asked for to its process executed", median(alone), "ms", note=spread(alone, "ms")),
        Row(f"jobs started a second, {AT_ONCE} asked for at once", len(ids) / together_s, "1/s"),
        Row("processor time of the daemon a start", start_cpu, "ms"),
        Row(f"PSS of the daemon for each of {JOBS} jobs", (after - before) * 1024 / JOBS, "KiB", "< 100"),
        Row(f"processor of the daemon with {JOBS} silent jobs", idle, "%", "< 1"),
        Row("jobs killed a second, whole trees", JOBS / kill_s, "1/s"),
    ]


def _much(place: BenchHome) -> list[Row]:
    """Variants interleaved: the machine is noisy."""
    _run(place, "true")
    before = processes.memory_mib(place.pid)["Pss"]
    plain: list[float] = []
    through: list[float] = []
    terminal: list[float] = []
    cpu: list[float] = []
    for _ in range(ROUNDS):
        plain.append(_plain(place.root / "plain"))
        began = processes.cpu_s(place.pid)
        through.append(_run(place, WRITE, terminal=False))
        cpu.append(processes.cpu_s(place.pid) - began)
        terminal.append(_run(place, WRITE.replace(str(OUTPUT_BYTES), str(OUTPUT_BYTES // 10))) * 10)
    grown = processes.memory_mib(place.pid)["Pss"] - before
    rate = OUTPUT_BYTES / 1e6
    return [
        Row("1 GB into a file, plain redirect", rate / median(plain), "MB/s", note=spread(plain, "s")),
        Row("1 GB through a job", rate / median(through), "MB/s", note=spread(through, "s")),
        Row("a job against the redirect", median(through) / median(plain), "times as long"),
        Row("1 GB through a job with a terminal", rate / median(terminal), "MB/s", note="a tenth of it"),
        Row("processor time of the daemon for 1 GB", median(cpu) * 1000, "ms", "< 200"),
        Row(f"growth of the daemon by {ROUNDS} GB", grown, "MiB", "< 5"),
    ]


def _plain(target: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["bash", "-c", f"{WRITE} > {target}"], check=True)
    took = time.perf_counter() - began
    target.unlink()
    return took


def _ask(place: BenchHome, command: str, **more: Any) -> dict[str, Any]:
    wanted = {"id": uuid.uuid4().hex, "command": command, "directory": str(place.root), **more}
    found: dict[str, Any] = place.call("POST", "/v1/jobs", wanted)
    return found


def _run(place: BenchHome, command: str, **more: Any) -> float:
    """Run a job to its end; how long its process took. Its files go, so that the disk does not fill."""
    began = time.perf_counter()
    ident = _ask(place, command, **more)["id"]
    while (found := place.call("GET", f"/v1/jobs/{ident}/wait?seconds=20"))["ended_at"] is None:
        if time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError("the job does not end")
    took = time.perf_counter() - began
    if found["status"] != "done":
        raise RuntimeError(f"a job ended as {found['status']}: {found['error']}")
    Path(found["output_path"]).unlink()
    return took
