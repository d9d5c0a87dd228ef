"""The panel at the tray in its states, for the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from PySide6.QtCore import QPoint, QRect, QSettings, QSize

from desktop.daemon.link import Link
from desktop.models.state import LinkPhase, Supervision
from desktop.theme.palette import Theme
from desktop.windows.context import Context
from desktop.windows.panel import Panel
from tests.desktop import canned

Make = Callable[[Link, Theme, QSettings], Panel]


def panel_scenes() -> Iterator[tuple[str, Make]]:
    """(name, what makes it)."""

    def panel(tell: dict[str, Any], *, asks: bool = False) -> Make:
        def make(link: Link, theme: Theme, settings: QSettings) -> Panel:
            made = Panel(Context(link, theme, lambda _command: None), settings)
            link.tell(**tell)
            made.come_up(lambda size: QRect(QPoint(0, 0), QSize(size)))
            if asks:
                made.needing.show_requests(canned.asking_view(canned.permission()))
            return made

        return make

    busy = canned.busy_rows()
    yield "panel-busy", panel(canned.connected(*busy), asks=True)
    yield "panel-calm", panel(canned.connected(*(row for row in busy if row.status == "completed")))
    yield "panel-empty", panel(canned.connected())
    yield "panel-daemon-down", panel(
        {**canned.connected(*busy[-2:]), "link": LinkPhase.ABSENT, "supervision": Supervision.GAVE_UP,
         "said": "no module named x"}
    )  # fmt: skip
