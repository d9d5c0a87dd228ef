"""One desktop a profile: the second one is heard, or says that it was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from desktop import single as single_module
from desktop.single import SingleInstance
from tests.desktop.conftest import Desk
from tests.desktop.screen import PLACE, desktop, said, windows_of
from tests.end_to_end.home import OstlerHome, wait_until

SECOND = """
import os, sys
from PySide6.QtCore import QCoreApplication
from daemon_core.settings.directories import resolve
from desktop.single import SingleInstance
app = QCoreApplication([])
second = SingleInstance(resolve({"OSTLER_HOME": sys.argv[1], "HOME": sys.argv[1]}, None))
sys.exit(second.first() or not second.tell_first("open", "may-come-up"))
"""


def test_a_wish_comes_with_the_right_to_the_focus(qtbot: QtBot, desk: Desk, tmp_path: Path) -> None:
    first = SingleInstance(desk.link.directories)
    assert first.first()
    with (
        qtbot.waitSignal(first.asked, timeout=20_000) as asked,
        subprocess.Popen([sys.executable, "-c", SECOND, str(tmp_path / "o")], cwd=PLACE) as second,
    ):
        qtbot.waitUntil(lambda: second.poll() is not None, timeout=20_000)
    assert asked.args == ["open\tmay-come-up"]
    assert second.returncode == 0
    first.close()


@pytest.mark.parametrize("whole", [False, True])
def test_a_socket_that_somebody_removed_is_there_again(
    qtbot: QtBot, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(single_module, "GONE_MS", 10)
    first = SingleInstance(desk.link.directories)
    assert first.first()
    path = desk.link.directories.checked_socket().with_name("desktop.sock")
    if whole:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    qtbot.waitUntil(path.exists, timeout=20_000)
    with (
        qtbot.waitSignal(first.asked, timeout=20_000),
        subprocess.Popen([sys.executable, "-c", SECOND, str(tmp_path / "o")], cwd=PLACE) as second,
    ):
        qtbot.waitUntil(lambda: second.poll() is not None, timeout=20_000)
    assert second.returncode == 0
    first.close()
    assert not path.exists()


def test_a_wish_that_nobody_takes_was_not_heard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_module, "TAKEN_MS", 50)
    first, second = SingleInstance(desk.link.directories), SingleInstance(desk.link.directories)
    assert first.first()
    assert not second.first()
    assert not second.tell_first("open")  # this loop does not turn meanwhile: the first one hangs
    first.close()


def test_a_first_one_that_hangs_is_said_in_a_window(tmp_path: Path, display: str) -> None:
    home = OstlerHome(tmp_path, claude=False)
    home.start()
    try:
        with desktop(home, DISPLAY=display) as first:
            wait_until((home.directories.checked_socket().with_name("desktop.sock")).exists, "the desktop")
            os.kill(first.pid, signal.SIGSTOP)
            try:
                with desktop(home, background=False, DISPLAY=display) as second:
                    wait_until(lambda: windows_of(display, "^Ostler$"), f"a window: {said(home)}")
                    second.send_signal(signal.SIGTERM)
                    assert second.wait(20) == 1
            finally:
                os.kill(first.pid, signal.SIGCONT)
    finally:
        home.close()
