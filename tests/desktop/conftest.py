"""Windows offscreen, with one look for the whole session. A warning of Qt's fails the test it came in."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QCoreApplication, QEvent, QSettings
from PySide6.QtWidgets import QApplication

from daemon_core.settings.directories import resolve
from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.theme.palette import Theme
from desktop.windows.context import Context
from tests.desktop.host import Host, make_host
from tests.desktop.screen import session_bus, x_server


@pytest.fixture(scope="session")
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, "light")


@pytest.fixture(scope="session", autouse=True)
def imported_apart() -> Iterator[None]:
    """What is there before the first test is not looked through after each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def collected_here(request: pytest.FixtureRequest) -> None:
    """Servers of the tests have threads, and Qt's objects must not be destroyed there."""
    if request.module.__name__.rpartition(".")[2] != "test_threads":  # which is about just that
        gc.disable()


def pytest_runtest_logfinish(nodeid: str) -> None:
    """What a test threw away is gone before the next one begins, and it is this thread that takes it away.
    Not in a fixture: pytest holds what others gave until all of them have ended."""
    if QCoreApplication.instance() is not None:
        QCoreApplication.sendPostedEvents(None, int(QEvent.Type.DeferredDelete.value))
    gc.collect()
    gc.enable()


@pytest.fixture
def display() -> Iterator[str]:
    with x_server() as name:
        yield name


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with session_bus(tmp_path) as found:
        yield found


@pytest.fixture
async def host(address: str) -> AsyncIterator[Host]:
    found = await make_host(address)
    yield found
    found.bus.disconnect()


class Desk:
    """A context whose link was told things by hand, and the commands that windows asked for."""

    def __init__(self, root: Path, theme: Theme) -> None:
        directories = resolve({"OSTLER_HOME": str(root / "o"), "HOME": str(root)}, None)
        directories.ensure()
        self.link = Link(directories)
        self.asked: list[Command] = []
        self.context = Context(self.link, theme, self.asked.append)
        self.settings = QSettings(str(root / "desktop.ini"), QSettings.Format.IniFormat)


@pytest.fixture
def desk(tmp_path: Path, theme: Theme) -> Iterator[Desk]:
    made = Desk(tmp_path, theme)
    yield made
    made.link.stop()
