"""Threads beside Qt's: where cycles are collected meanwhile, and that nobody starts one in another way."""

from __future__ import annotations

import ast
import gc
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
        return f"{threading.current_thread().name}: {bool(kept)}, {gc.isenabled()}, {found}"

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
