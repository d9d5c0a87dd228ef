"""The real desktop while things go wrong around it: each is a state with a reason and one action."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from desktop.daemon import restarts
from desktop.daemon.link import Link
from desktop.daemon.supervisor import Supervisor
from desktop.models.state import LinkPhase, Supervision
from desktop.tray.view import tray_view
from desktop.windows.trouble import action_of, detail_sentence
from tests.desktop.host import PATIENCE_S, Host, make_host
from tests.desktop.screen import PLACE, desktop, said, session_bus, until_running, windows_of, x_server
from tests.end_to_end.home import OstlerHome, busy_port, wait_until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a small file system")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with x_server() as name:
        yield name


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    (tmp_path / "daemon.out").touch()
    yield found
    found.close()


def pid_of(home: OstlerHome) -> int:
    """Of the daemon; 0 while none answers."""
    try:
        return int(home.status().get("pid") or 0)
    except Exception:  # noqa: BLE001 - not there yet
        return 0


@contextmanager
def stand_in(home: OstlerHome, *versions: str) -> Iterator[subprocess.Popen[bytes]]:
    """Something else where the daemon should be."""
    home.directories.ensure()
    path = home.directories.checked_socket()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.desktop.stand_in", home.environ["OSTLER_HOME"], *versions],
        cwd=PLACE,
        env=home.environ,
    )
    try:
        wait_until(path.exists, "the other daemon")
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """What is open stays open; nothing else can be written any more."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_a_daemon_that_hangs_is_said_and_restarted_when_asked(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    """It is somebody else's child: it is ended because the user says so, and its task goes on."""
    home.start()
    task = await asyncio.to_thread(home.add, "sleep 1000", "shell", title="Goes on")
    await asyncio.to_thread(home.wait, task, "running")
    first = pid_of(home)
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
        await host.until_row("1 task is running")
        os.kill(first, signal.SIGSTOP)
        await host.click("Until I resume")  # what is asked of it has no answer: so it is looked at
        await host.until_tooltip("Ostler: Ostler's daemon does not answer.")
        await host.click("Restart it; tasks go on")
        assert home.daemon is not None
        await asyncio.to_thread(home.daemon.wait, 20)
        await asyncio.to_thread(wait_until, lambda: pid_of(home) not in (0, first), "another daemon")
        await host.until_row("1 task is running")
        assert home.task(task)["status"] == "running"


async def test_an_older_daemon_is_replaced_when_asked(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    with (
        stand_in(home, "0", "0") as other,
        desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address),
    ):
        await host.until_tooltip("Ostler: The daemon that runs is too old for this window.")
        await host.click(await host.until_row("Restart it with this version"))
        await asyncio.to_thread(other.wait, 20)
        await asyncio.to_thread(until_running, home)
        await host.until_row("Nothing is running")


async def test_a_newer_daemon_is_left_alone_and_the_window_begins_again(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    with (
        stand_in(home, "98", "99") as other,
        desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as ours,
    ):
        await host.until_tooltip("Ostler: The daemon that runs is newer than this window.")
        icons = len(host.watcher.items)
        await host.click(await host.until_row("Restart this window"))
        await asyncio.to_thread(wait_until, lambda: len(host.watcher.items) > icons, "the icon anew")
        await host.until_tooltip("Ostler: The daemon that runs is newer than this window.")
        assert ours.poll() is None  # the same process, begun again
        assert other.poll() is None


def test_a_foreign_program_in_the_daemons_place_is_called_that(qtbot: QtBot, home: OstlerHome) -> None:
    link = Link(home.directories)
    with stand_in(home, "garbage"):
        link.start()
        qtbot.waitUntil(lambda: link.state.link is LinkPhase.FOREIGN, timeout=20_000)
        found = action_of(link.state)
        assert found is not None
        assert found[1].name == "reconnect"
    link.connect_now()
    qtbot.waitUntil(lambda: link.state.link is LinkPhase.ABSENT, timeout=20_000)
    link.stop()


async def test_a_port_that_is_taken_is_said_and_started_once_it_is_free(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    home.directories.ensure()
    with busy_port() as port:
        home.directories.config_file.write_text(f"[daemon]\nport = {port}\n")
        with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
            await host.until_tooltip("Ostler: Ostler's daemon cannot start.")
            assert await host.until_row("Start it") == "Start it"
            assert await host.until_row("Show the log") == "Show the log"
            home.directories.config_file.write_text("")
            await host.click("Start it")
            await asyncio.to_thread(until_running, home)
            await host.until_row("Nothing is running")


@pytest.mark.root
@AS_ROOT
async def test_a_home_that_becomes_read_only_and_a_disk_that_fills_up(
    tmp_path: Path, display: str, address: str, host: Host
) -> None:
    with small_disk(tmp_path / "small", "24m") as place:
        home = OstlerHome(place, claude=False)
        home.root = tmp_path  # what the test itself writes goes elsewhere
        (tmp_path / "daemon.out").touch()
        try:
            with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as ours:
                await asyncio.to_thread(until_running, home)
                await host.until_row("Nothing is running")
                with read_only(place):
                    os.kill(pid_of(home), signal.SIGKILL)
                    await host.until_tooltip("Ostler: Ostler's daemon cannot start.")
                await host.click("Start it")
                await asyncio.to_thread(until_running, home)
                await host.until_row("Nothing is running")
                with open(place / "filler", "wb") as filler:
                    try:
                        while True:
                            filler.write(bytes(65536))
                            filler.flush()
                    except OSError:
                        pass  # full
                # A second start is handed over, and the window comes up and goes, without a byte to write.
                with desktop(
                    home, background=False, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address
                ) as second:
                    assert await asyncio.to_thread(second.wait, 20) == 0
                await asyncio.to_thread(wait_until, lambda: windows_of(display, "^Ostler$"), "the window")
                assert ours.poll() is None
            assert ours.returncode == 0
            assert "Traceback" not in said(home)
            (place / "filler").unlink()
        finally:
            home.close()


async def test_a_host_that_restarts_has_the_icon_again_and_the_end_is_in_order(
    home: OstlerHome, display: str, address: str
) -> None:
    home.start()
    first = await make_host(address)
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as ours:
        await asyncio.wait_for(first.watcher.came.wait(), PATIENCE_S)
        await first.until_row("Nothing is running")
        first.bus.disconnect()
        second = await make_host(address)
        try:
            await asyncio.wait_for(second.watcher.came.wait(), PATIENCE_S)
            await second.until_row("Nothing is running")
        finally:
            second.bus.disconnect()
        with desktop(home, background=False, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as other:
            assert await asyncio.to_thread(other.wait, 20) == 0
        await asyncio.to_thread(wait_until, lambda: windows_of(display, "^Ostler$"), "the window")
        ours.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(ours.wait, 20) == 0
    assert not home.directories.checked_socket().with_name("desktop.sock").exists()
    assert home.status()["status"] == "running"
    assert "Traceback" not in said(home)


async def test_a_session_that_has_another_bus_has_the_icon_again(
    home: OstlerHome, display: str, tmp_path: Path
) -> None:
    """Qt connects to one bus in a life: so the desktop begins another one."""
    home.start()
    with ExitStack() as first:
        address = first.enter_context(session_bus(tmp_path))
        host = await make_host(address)
        with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as process:
            await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
            await host.until_row("Nothing is running")
            host.bus.disconnect()
            first.close()
            with session_bus(tmp_path) as again:
                host = await make_host(again)
                try:
                    await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
                    await host.until_row("Nothing is running")
                finally:
                    host.bus.disconnect()
                assert process.poll() is None
    assert "Traceback" not in said(home)


def test_directories_that_cannot_be_used_are_said_in_a_window(home: OstlerHome, display: str) -> None:
    (home.root / "o").rename(home.root / "elsewhere")
    (home.root / "o").write_text("a file is in the way")
    with desktop(home, DISPLAY=display) as ours:
        wait_until(lambda: windows_of(display, "^Ostler$"), f"a window: {said(home)}")
        ours.send_signal(signal.SIGTERM)
        assert ours.wait(20) == 2
    (home.root / "o").unlink()
    (home.root / "elsewhere").rename(home.root / "o")


def test_a_daemon_that_crashes_again_and_again_is_given_up_with_its_last_words(
    qtbot: QtBot, home: OstlerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_S", 0.01)
    home.directories.ensure()
    home.directories.log_dir.mkdir(exist_ok=True)
    link = Link(home.directories)
    command = [sys.executable, "-S", "-c", "import sys; sys.exit('the stable is on fire')"]
    supervisor = Supervisor(link, home.directories, command)
    crashes: list[int] = []
    supervisor.crashed.connect(crashes.append)
    link.start()
    qtbot.waitUntil(lambda: link.state.link is LinkPhase.ABSENT)
    supervisor.start()
    qtbot.waitUntil(lambda: link.state.supervision is Supervision.GAVE_UP, timeout=20_000)
    assert crashes == [1, 2, 3, 4, 5]
    assert "the stable is on fire" in detail_sentence(link.state)
    found = action_of(link.state)
    assert found is not None
    assert found[1].name == "start_daemon"
    rows = [row.text for row in tray_view(link.state).rows]
    assert rows[:3] == ["Ostler's daemon stopped several times in a row", "Start it", "Show the log"]
    supervisor.let_go()
    link.stop()


@pytest.fixture
def xfce(home: OstlerHome, display: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real panel at the top left with nothing but a tray; the environment that it lives in."""
    config = home.user_home / ".config" / "xfce4" / "xfconf" / "xfce-perchannel-xml"
    config.mkdir(parents=True)
    (config / "xfce4-panel.xml").write_text(XFCE)
    environ = {**home.environ, "DISPLAY": display}
    with session_bus(tmp_path, environ) as address:
        environ["DBUS_SESSION_BUS_ADDRESS"] = address
        panel = subprocess.Popen(
            ["xfce4-panel", "--disable-wm-check"],
            env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield environ
        finally:
            panel.terminate()
            panel.wait(20)


def test_a_real_panel_shows_the_icon_and_a_click_on_it_the_panel_of_ours(
    home: OstlerHome, xfce: dict[str, str]
) -> None:
    home.start()
    address = xfce["DBUS_SESSION_BUS_ADDRESS"]
    with desktop(home, DISPLAY=xfce["DISPLAY"], DBUS_SESSION_BUS_ADDRESS=address) as ours:
        wait_until(lambda: _items(xfce), "the icon in the panel")

        def shown() -> list[str]:
            # The icon is drawn some time after it was registered, and a click before that is lost. But a
            # second click closes what the first one has opened late.
            if late := windows_of(xfce["DISPLAY"], "^Ostler$"):
                return late
            subprocess.run(["xdotool", "mousemove", "16", "16", "click", "1"], env=xfce, check=True)
            deadline = time.monotonic() + 2.0
            while not (found := windows_of(xfce["DISPLAY"], "^Ostler$")) and time.monotonic() < deadline:
                time.sleep(0.02)
            return found

        wait_until(shown, f"the panel of ours: {said(home)}")
        assert ours.poll() is None


def _items(environ: dict[str, str]) -> str:
    asked = subprocess.run(
        ["dbus-send", "--session", "--print-reply", "--dest=org.kde.StatusNotifierWatcher",
         "/StatusNotifierWatcher", "org.freedesktop.DBus.Properties.Get",
         "string:org.kde.StatusNotifierWatcher", "string:RegisteredStatusNotifierItems"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return asked.stdout if "StatusNotifierItem" in asked.stdout else ""


XFCE = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="size" type="uint" value="32"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/></property>
    </property>
  </property>
  <property name="plugins" type="empty"><property name="plugin-1" type="string" value="systray"/></property>
</channel>
"""
