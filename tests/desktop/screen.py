"""A screen, a bus and a tray host of a test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.home import OstlerHome, wait_until

PLACE = Path(__file__).parents[2]


@contextmanager
def x_server(size: str = "1280x800x24") -> Iterator[str]:
    """A screen; gives its name for ``DISPLAY``. Xvfb chooses the number, so tests do not meet."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        # Without -noreset it begins anew when its last client has gone, and refuses those who come meanwhile.
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp", "-noreset"],
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with open(reading) as stream:
            number = stream.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def session_bus(directory: Path, environ: dict[str, str] | None = None) -> Iterator[str]:
    """A bus; gives its address. ``environ`` is what the services that it starts by itself get."""
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address=unix:path={directory}/bus"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )
    try:
        assert bus.stdout is not None
        address = bus.stdout.readline().strip()
        assert address, "dbus-daemon did not start"
        yield address
    finally:
        bus.terminate()
        bus.wait(20)
        assert bus.stdout is not None
        bus.stdout.close()


@contextmanager
def desktop(
    home: OstlerHome, *, background: bool = True, **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The real program over a home; ended in order at the end."""
    wanted = {**home.environ, "QT_QPA_PLATFORM": "xcb", "PYTHONFAULTHANDLER": "1", **environ}
    kept = home.directories.state / "desktop.ini"
    if kept.parent.is_dir() and not kept.exists():
        kept.write_text("[first_run]\ndone=true\n")  # nobody is shown around
    wanted.setdefault("DBUS_SESSION_BUS_ADDRESS", "disabled:")
    with open(home.root / "desktop.out", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "desktop.app", *(["--background"] if background else [])],
            env=wanted,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PLACE,
        )
    try:
        yield process
    except BaseException:
        print(_last_words(home, process))  # noqa: T201 - the test has failed: why?
        raise
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _last_words(home: OstlerHome, process: subprocess.Popen[bytes]) -> str:
    """What a desktop was at, from whoever did not get what was wanted of it."""
    ended = process.poll()
    if ended is None:
        process.send_signal(signal.SIGABRT)  # its threads are written down before it ends
        process.wait(20)
    logs = home.directories.log_dir
    files = [home.root / "desktop.out", *sorted(logs.glob("desktop*"))] if logs.is_dir() else []
    texts = [f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in files]
    return "\n".join([f"the desktop's exit status was {ended}", *texts])


def said(home: OstlerHome) -> str:
    """What the desktop wrote to standard error."""
    return (home.root / "desktop.out").read_text()


def until_running(home: OstlerHome) -> None:
    """Wait for a daemon, whoever started it."""

    def running() -> bool:
        try:
            return bool(home.status().get("status") == "running")
        except Exception:  # noqa: BLE001 - not there yet
            return False

    wait_until(running, "a daemon")


def windows_of(display: str, name: str) -> list[str]:
    """Windows in sight whose title this is."""
    found = subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--name", name],
        env={**os.environ, "DISPLAY": display}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.split()
