"""Threads beside Qt's: where cycles are collected meanwhile, and that nobody starts one in another way."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, QTimer
from pytestqt.qtbot import QtBot

import desktop
from desktop.threads import Aside, collect_anywhere, collect_here

FORBIDDEN = {"threading", "concurrent", "multiprocessing", "QThread", "QThreadPool", "QRunnable", "to_thread"}


class Cycle:
    """Garbage that only a collection finds; says in which thread it was."""

    def __init__(self, found: list[threading.Thread]) -> None:
        self.itself = self
        weakref.finalize(self, lambda: found.append(threading.current_thread()))


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    assert gc.isenabled()
    yield
    assert gc.isenabled()


def test_work_aside_collects_nothing_and_its_result_comes_here(qtbot: QtBot) -> None:
    found: list[threading.Thread] = []

    def work() -> str:
        Cycle(found)
        kept: list[list[int]] = [[] for _ in range(20 * gc.get_threshold()[0])]
        # The Qt thread may have had a moment to collect meanwhile, and nobody else.
        others = [each.name for each in found if each is not threading.main_thread()]
        return f"{threading.current_thread().name}: {bool(kept)}, {gc.isenabled()}, {others}"

    aside = Aside(work, "digging")
    told: list[tuple[str, threading.Thread]] = []
    aside.done.connect(lambda result: told.append((result, threading.current_thread())))
    aside.start()
    qtbot.waitUntil(lambda: bool(told))
    assert told == [("digging: True, False, []", threading.main_thread())]


def test_what_fails_is_logged(qtbot: QtBot, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        raise OSError("the disk is on fire")

    Aside(work, "digging").start()  # nobody else keeps it
    qtbot.waitUntil(gc.isenabled)
    assert "digging failed" in caplog.text
    assert "the disk is on fire" in caplog.text


def test_a_thread_that_stays_does_not_keep_garbage(qtbot: QtBot) -> None:
    """Two at once: the first that ends must not open the door for the other."""
    first, second = QObject(), QObject()
    collect_here(first)
    collect_here(second)
    try:
        found: list[threading.Thread] = []
        Cycle(found)
        kept: list[list[int]] = [[] for _ in range(gc.get_threshold()[0] + 1)]
        assert not found
        QTimer.singleShot(0, lambda: None)  # something happens, and the loop rests again
        qtbot.waitUntil(lambda: found == [threading.main_thread()])
        assert kept
        collect_anywhere(first)
        assert not gc.isenabled()
    finally:
        collect_anywhere(first)
        collect_anywhere(second)
    collect_anywhere(second)


def test_nobody_starts_threads_in_another_way() -> None:
    place = Path(desktop.__file__).parent
    known = {place / "threads.py", place / "notifications" / "library.py"}
    for path in place.rglob("*.py"):
        if path in known:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0], *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Attribute):
                names = {node.attr}
            assert not names & FORBIDDEN, f"{path}:{node.lineno}"  # type: ignore[attr-defined]


SEARCH = """
import sys
from pathlib import Path
from desktop.models.projects import find_projects
from desktop.notifications import service
find_projects(Path(sys.argv[1]))
sys.exit("msgspec" in sys.modules)
"""


def test_what_runs_aside_knows_no_structure(tmp_path: Path) -> None:
    """Two threads that use one for the first time end the process: it is all the Qt thread's."""
    place = Path(desktop.__file__).parent
    aside = [path for path in place.rglob("*.py") if "Aside(" in path.read_text()]
    assert sorted(path.name for path in aside) == ["first_run_places.py", "threads.py"]  # find_projects alone
    done = subprocess.run([sys.executable, "-c", SEARCH, str(tmp_path)], cwd=place.parent, check=False)
    assert done.returncode == 0
    tree = ast.parse((place / "notifications" / "library.py").read_bytes())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.startswith(("msgspec", "daemon_core"))]
