"""The desktop's log: what is in it after errors and crashes, and what is not."""

from __future__ import annotations

import faulthandler
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import qWarning

from daemon_core.settings.directories import Directories, resolve
from desktop import logs
from desktop.logs import kept, older

log = logging.getLogger("ostler.desktop.test")
SECRET = "the user's own words"


@pytest.fixture(autouse=True)
def crashes_of_the_tests_are_told() -> Iterator[None]:
    """The log takes over what tells of them, and gives it back to nobody."""
    before = faulthandler.is_enabled()
    yield
    if before:
        faulthandler.enable(sys.__stderr__ or sys.stderr)


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    found = resolve({"OSTLER_HOME": str(tmp_path / "o"), "HOME": str(tmp_path)}, None)
    found.ensure()
    return found


def test_an_error_leaves_its_kind_and_its_way_and_not_its_words(directories: Directories) -> None:
    def inner() -> None:
        raise ValueError(SECRET)

    def outer() -> None:
        try:
            inner()
        except ValueError as error:
            raise FileNotFoundError(2, "No such file or directory", SECRET) from error

    hooks = sys.excepthook
    with kept(directories):
        try:
            outer()
        except FileNotFoundError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        qWarning("a thing of Qt's")
    assert sys.excepthook is hooks
    path = directories.desktop_log_file
    said = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET not in said
    for words in ("CRITICAL", "in inner\nValueError\nand then\n", "in outer", "qt: a thing of Qt's",
                  "FileNotFoundError: No such file or directory"):  # fmt: skip
        assert words in said
    log.error("after the end")
    assert "after the end" not in path.read_text()


def test_it_does_not_grow_for_ever(directories: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT_BYTES", 2_000)
    with kept(directories):
        for number in range(200):
            log.warning("line %d of many", number)
    path = directories.desktop_log_file
    assert path.stat().st_size + older(path).stat().st_size < 5_000
    assert "line 199" in path.read_text()


CRASH = """
import faulthandler, os, sys
from daemon_core.settings.directories import resolve
from desktop.logs import kept

def deep_inside():
    faulthandler._sigabrt()

with kept(resolve(dict(os.environ), None)):
    deep_inside()
"""


def test_what_killed_the_process_is_told_by_the_next_one(directories: Directories, tmp_path: Path) -> None:
    environ = {"OSTLER_HOME": str(tmp_path / "o"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    place = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", CRASH], env=environ, cwd=place, check=False)
    assert died.returncode < 0
    with kept(directories):
        pass
    said = directories.desktop_log_file.read_text()
    assert "the desktop before this one crashed" in said
    assert "in deep_inside" in said
    with kept(directories):
        pass
    assert directories.desktop_log_file.read_text() == said  # told once


def test_a_place_that_cannot_be_written_costs_the_log_alone(
    directories: Directories, caplog: pytest.LogCaptureFixture
) -> None:
    directories.desktop_log_file.mkdir()
    with kept(directories):
        log.warning("still here")
    assert "no log of the desktop can be kept" in caplog.text
