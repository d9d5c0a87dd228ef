"""The packaged programs against the same from source: what a person waits for, what it takes in memory, and
how large the installers are.

Each start goes through the launcher at its fixed place, as an installed one does. *Cold* is with the files
taken out of the system's cache first (those that no other process has mapped).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import processes
from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, median, spread

sys.path.append(str(Path(__file__).parents[1] / "packaging"))  # no package: its name is taken

from building import payload
from building.installers import layout, linux
from daemon_core.processes.client import shim_command
from tests.desktop.host import Host, make_host
from tests.desktop.screen import session_bus, x_server

ROUNDS: Final = 11
COLD_ROUNDS: Final = 3
PATIENCE_S: Final = 60.0
INSTALLER_AIM: Final = "< 42"
PLACE: Final = Path(__file__).parents[1]
MB: Final = 1e6


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        built = payload.build()
        source = layout.Source(payload=built / "payload", launcher=built / "launcher")
        place = Path(name) / "installed"
        layout.lay_out(source, "tarball", place)
        rows = _sizes(source, Path(name) / "out")
        rows += _starts(place, source.version)
    return rows


def _sizes(source: layout.Source, out: Path) -> list[Row]:
    rows = [
        Row("payload, unpacked", _bytes(source.payload) / MB, "MB"),
        Row("launcher, unpacked", _bytes(source.launcher) / MB, "MB"),
    ]
    for kind in linux.KINDS:
        made = linux.package(source, kind, out)
        rows.append(Row(f"installer, {kind}", made.stat().st_size / MB, "MB", INSTALLER_AIM))
    made = linux.tarball(source, out)
    rows.append(Row("installer, archive for a user", made.stat().st_size / MB, "MB", INSTALLER_AIM))
    shutil.rmtree(out)
    return rows


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


# --- starts ----------------------------------------------------------------------------------------


def _starts(place: Path, version: str) -> list[Row]:
    launcher = str(place / "launcher" / "ostler")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ostler-bench-")))
        display = stack.enter_context(x_server())
        address = stack.enter_context(session_bus(directory))
        bench = stack.enter_context(home(claude=False))
        # Once, so that the payload is where it is run from after that.
        _daemon(bench, [launcher, "--as=ostlerd"])
        versions = bench.root / "o" / "data" / "app" / "versions" / version
        kinds = {
            "from source": ([sys.executable, "-m"], [PLACE, Path(sys.prefix), Path(sys.base_prefix) / "lib"]),
            "packaged": ([launcher], [place, versions]),
        }
        rows: list[Row] = []
        for what, run in (
            ("ostler version", lambda command: _command(bench, [*command, "version"])),
            ("daemon to running", lambda command: _daemon(bench, command)),
        ):
            rows += _compared(what, _programs(what), kinds, run)
        rows += asyncio.run(_desktops(bench, display, address, kinds))
        rows += _shims([str(versions / "ostler-shim")])
    return rows


def _programs(what: str) -> tuple[str, list[str]]:
    """The module and the launcher's option of what is started."""
    if what.startswith("ostler"):
        return "daemon_core.cli", []
    return (
        ("desktop.app", ["--as=ostler-desktop"]) if "icon" in what else ("daemon_core.app", ["--as=ostlerd"])
    )


Kinds = dict[str, tuple[list[str], list[Path]]]


def _compared(
    what: str,
    program: tuple[str, list[str]],
    kinds: Kinds,
    run: Callable[[Sequence[str]], tuple[float, float]],
) -> list[Row]:
    """Both kinds in turns, warm and cold; ``run`` gives milliseconds and MiB (0: not told)."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for temperature, rounds in (("warm", ROUNDS), ("cold", COLD_ROUNDS)):
        for _ in range(rounds):
            for kind, (start, files) in kinds.items():
                if temperature == "cold":
                    _forget(files)
                command = [*start, *([program[0]] if kind == "from source" else program[1])]
                found.setdefault((temperature, kind), []).append(run(command))
    rows = []
    for (temperature, kind), values in found.items():
        took = [value for value, _ in values]
        aim = ""
        if kind == "packaged":
            aim = f"< {median([value for value, _ in found[temperature, 'from source']]) * 1.05:.0f}"
        rows.append(Row(f"{what}, {temperature}, {kind}", median(took), "ms", aim, spread(took, "ms")))
    for kind in kinds:
        memory = [value for _, value in found["warm", kind] if value]
        if memory:
            rows.append(Row(f"{what}: memory, {kind}", median(memory), "MiB", note="written to"))
    return rows


def _forget(places: Iterable[Path]) -> None:
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                try:
                    file = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                except OSError:
                    continue
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(file)


def _command(bench: BenchHome, command: Sequence[str]) -> tuple[float, float]:
    began = time.monotonic()
    subprocess.run(command, env=bench.environ, stdout=subprocess.DEVNULL, check=True, cwd=PLACE)
    return (time.monotonic() - began) * 1000, 0.0


def _daemon(bench: BenchHome, command: Sequence[str]) -> tuple[float, float]:
    began = time.monotonic()
    with subprocess.Popen(command, env=bench.environ, stderr=subprocess.DEVNULL, cwd=PLACE) as daemon:
        while bench.status().get("status") != "running":
            if daemon.poll() is not None or time.monotonic() - began > PATIENCE_S:
                raise RuntimeError(f"{command} does not start")
            time.sleep(0.002)
        took = (time.monotonic() - began) * 1000
        memory = _memory(daemon.pid)
        daemon.terminate()
    return took, memory


def _memory(pid: int) -> float:
    """What it has written to. Not what it has mapped: pages of libraries count for whoever is alone in using
    them, which a packaged program is and one of many from source is not."""
    return processes.memory_mib(pid)["Private_Dirty"]


async def _desktops(bench: BenchHome, display: str, address: str, kinds: Kinds) -> list[Row]:
    host = await make_host(address)
    loop = asyncio.get_running_loop()

    def run(command: Sequence[str]) -> tuple[float, float]:
        return asyncio.run_coroutine_threadsafe(
            _desktop(bench, host, display, address, command), loop
        ).result()

    what = "desktop to icon"
    try:
        return await asyncio.to_thread(_compared, what, _programs(what), kinds, run)
    finally:
        host.bus.disconnect()


async def _desktop(
    bench: BenchHome, host: Host, display: str, address: str, command: Sequence[str]
) -> tuple[float, float]:
    environ = {
        **bench.environ,
        "QT_QPA_PLATFORM": "xcb",
        "DISPLAY": display,
        "DBUS_SESSION_BUS_ADDRESS": address,
    }
    host.watcher.came.clear()
    began = time.monotonic()
    process = _spawn([*command, "--background"], environ)
    try:
        await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
        took = (time.monotonic() - began) * 1000
        await host.until_row("Nothing is running")
        memory = _memory(process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, PATIENCE_S)
    await asyncio.to_thread(_stop, bench)
    return took, memory


def _spawn(command: Sequence[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL, cwd=PLACE)


def _stop(bench: BenchHome) -> None:
    """The daemon that the desktop has started."""
    subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", "daemon", "stop"],
        env=bench.environ, stdout=subprocess.DEVNULL, check=True, cwd=PLACE,
    )  # fmt: skip


def _shims(packaged: Sequence[str]) -> list[Row]:
    """Without a run it looks around and ends: what is measured is getting there."""
    rows = []
    for kind, command in (("from source", shim_command()), ("packaged", packaged)):
        took = []
        for _ in range(ROUNDS * 2):
            began = time.monotonic()
            subprocess.run(
                [*command, "/", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
            took.append((time.monotonic() - began) * 1000)
        rows.append(Row(f"start of a run's supervisor, {kind}", median(took), "ms", note=spread(took, "ms")))
    return rows
