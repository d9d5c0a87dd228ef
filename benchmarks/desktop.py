"""The real desktop on a screen, a bus and a tray host of its own: what a person waits for, and what it costs.

"Icon" is the moment in which the item is registered with the tray's host, "panel" the one in which the X
server has mapped it; both are seen from outside.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import processes
from benchmarks.homes import BenchHome, home
from benchmarks.rows import Row, median, spread
from tests.desktop.host import Host, make_host
from tests.desktop.screen import session_bus, x_server

ROUNDS: Final = 7
SECONDS: Final = 60.0
SETTLE_S: Final = 5.0
PATIENCE_S: Final = 30.0
PLACE: Final = Path(__file__).parents[1]
PAGES: Final = 6
"""Pages of the rail, by their keys Ctrl+1 and so on."""


class Maps:
    """Windows as the X server maps them."""

    _SUBSTRUCTURE: Final = 1 << 19
    _MAP_NOTIFY: Final = 19

    def __init__(self, display: str) -> None:
        self._x = ctypes.CDLL("libX11.so.6")
        self._x.XOpenDisplay.restype = ctypes.c_void_p
        self._x.XDefaultRootWindow.restype = ctypes.c_ulong
        opened = self._x.XOpenDisplay(display.encode())
        assert opened, f"no screen at {display}"
        self._display = ctypes.c_void_p(opened)
        root = ctypes.c_ulong(self._x.XDefaultRootWindow(self._display))
        self._x.XSelectInput(self._display, root, ctypes.c_long(self._SUBSTRUCTURE))
        self._x.XSync(self._display, 0)
        self._event = (ctypes.c_long * 24)()

    def clear(self) -> None:
        """Forget what was mapped so far."""
        self._x.XSync(self._display, 1)

    def wait(self) -> float:
        """Wait for the next one; the moment on the monotonic clock. Raises ``TimeoutError``."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            while self._x.XPending(self._display):
                self._x.XNextEvent(self._display, self._event)
                if self._event[0] & 0xFFFFFFFF == self._MAP_NOTIFY:
                    return time.monotonic()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no window was shown")
            select.select([self._x.XConnectionNumber(self._display)], [], [], left)

    def close(self) -> None:
        self._x.XCloseDisplay(self._display)


def measure() -> list[Row]:
    """Start, clicks, and a minute of nothing with the window closed and open."""
    with ExitStack() as stack:
        place = stack.enter_context(home())
        display = stack.enter_context(x_server())
        address = stack.enter_context(session_bus(place.root))
        place.start()
        for number in range(3):
            place.add(f"echo {number}", runtime="shell")
        maps = Maps(display)
        stack.callback(maps.close)
        try:
            return asyncio.run(_measure(place, display, address, maps))
        finally:
            place.stop()


async def _measure(place: BenchHome, display: str, address: str, maps: Maps) -> list[Row]:
    host = await make_host(address)
    icon, first, again = [], [], []
    for _ in range(ROUNDS):
        took, process = await _started(place, host, display, address)
        icon.append(took)
        first.append(await _clicked(host, maps))
        again.append(await _reopened(host, maps))
        await asyncio.to_thread(_end, process)
    _, process = await _started(place, host, display, address)
    closed = await asyncio.to_thread(_idle, process.pid, "window never opened")
    await _second_start(place, display, address, maps)
    for page in range(1, PAGES + 1):
        _keys(display, f"ctrl+{page}")
        await asyncio.sleep(0.5)
    opened = await asyncio.to_thread(_idle, process.pid, "window open, every page shown once")
    await asyncio.to_thread(_end, process)
    host.bus.disconnect()
    return [
        Row("start to icon", median(icon), "ms", "< 500", spread(icon, "ms")),
        Row("first click to panel", median(first), "ms", "", spread(first, "ms")),
        Row("click to panel, later ones", median(again), "ms", "< 100", spread(again, "ms")),
        *_rows(closed, 60),
        *_rows(opened, 110),
    ]


async def _started(
    place: BenchHome, host: Host, display: str, address: str
) -> tuple[float, subprocess.Popen[bytes]]:
    host.watcher.came.clear()
    began = time.monotonic()
    process = _spawn(place, display, address, "--background")
    await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
    took = (time.monotonic() - began) * 1000
    await host.until_row("Nothing is running")
    return took, process


def _spawn(place: BenchHome, display: str, address: str, *options: str) -> subprocess.Popen[bytes]:
    environ = {
        **place.environ,
        "QT_QPA_PLATFORM": "xcb",
        "DISPLAY": display,
        "DBUS_SESSION_BUS_ADDRESS": address,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "desktop.app", *options],
        env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PLACE,
    )  # fmt: skip


async def _clicked(host: Host, maps: Maps) -> float:
    maps.clear()
    began = time.monotonic()
    await host.call("/StatusNotifierItem", "org.kde.StatusNotifierItem", "Activate", "ii", 600, 20)
    return (await asyncio.to_thread(maps.wait) - began) * 1000


async def _reopened(host: Host, maps: Maps) -> float:
    """Closed by a click, then clicked for again."""
    await host.call("/StatusNotifierItem", "org.kde.StatusNotifierItem", "Activate", "ii", 600, 20)
    await asyncio.sleep(1)
    return await _clicked(host, maps)


async def _second_start(place: BenchHome, display: str, address: str, maps: Maps) -> None:
    """A second start brings the window of the first one up."""
    maps.clear()
    process = await asyncio.to_thread(_spawn, place, display, address)
    await asyncio.to_thread(maps.wait)
    await asyncio.to_thread(process.wait, PATIENCE_S)
    await asyncio.sleep(1)


def _keys(display: str, keys: str) -> None:
    window = ["search", "--onlyvisible", "--name", "^Ostler$", "windowfocus"]  # nobody else gives it
    subprocess.run(["xdotool", *window, "key", keys], env={**os.environ, "DISPLAY": display}, check=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(PATIENCE_S)


_Idle = tuple[str, float, float, dict[str, float]]


def _idle(pid: int, what: str) -> _Idle:
    """What; processor in percent of a core, wake-ups a second, memory."""
    time.sleep(SETTLE_S)
    began = time.monotonic()
    cpu, woken = processes.cpu_s(pid), _wakeups(pid)
    time.sleep(SECONDS)
    took_s = time.monotonic() - began
    cpu, woken = processes.cpu_s(pid) - cpu, _wakeups(pid) - woken
    return what, cpu / took_s * 100, woken / took_s, processes.memory_mib(pid)


def _wakeups(pid: int) -> int:
    return sum(processes.wakeups_by_thread(pid).values())


def _rows(found: _Idle, most_mib: int) -> list[Row]:
    what, cpu, woken, memory = found
    return [
        Row("processor, part of one core", cpu, "%", "< 0.1", f"{what}, {SECONDS:.0f} s"),
        Row("wake-ups a second", woken, "1/s", "", what),
        Row("PSS", memory["Pss"], "MiB", f"< {most_mib}", f"{what}; RSS {memory['Rss']:.0f} MiB"),
    ]
