"""The question before the end, in the states that it is asked in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PySide6.QtCore import QSettings

from desktop.daemon.link import Link
from desktop.daemon.supervisor import Supervisor
from desktop.leaving import Leaving
from desktop.theme.palette import Theme
from desktop.windows.question import Question
from tests.desktop import canned


def quit_scenes() -> Iterator[tuple[str, Callable[[Link, Theme, QSettings], Question]]]:
    """(name, what asks)."""

    def asked(link: Link, theme: Theme, settings: QSettings) -> Question:
        supervisor = Supervisor(link, link.directories, parent=link)
        leaving = Leaving(link, supervisor, theme, lambda: True, lambda: settings, link)
        leaving.ask(about_nothing=True)
        assert leaving.box is not None
        return leaving.box

    def busy(link: Link, theme: Theme, settings: QSettings) -> Question:
        link.tell(**canned.connected(*canned.busy_rows()))
        return asked(link, theme, settings)

    def idle(link: Link, theme: Theme, settings: QSettings) -> Question:
        link.tell(**canned.connected())
        return asked(link, theme, settings)

    yield "quit-busy", busy
    yield "quit-idle", idle
