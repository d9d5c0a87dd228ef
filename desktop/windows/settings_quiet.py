"""The field for quiet hours: one span for every day, and other ones for single days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from PySide6.QtCore import QSignalBlocker, Qt, QTime, Signal
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QGridLayout, QTimeEdit, QVBoxLayout, QWidget

from daemon_core.settings import quiet
from desktop.text import _, mark
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.bits import label, quiet_button
from desktop.windows.settings_editors import CalmChoice, Editor

FIRST: Final = (dt.time(22), dt.time(7))
"""What is offered to who has none yet."""
NAMES: Final[Mapping[str, str]] = {
    quiet.DAILY: mark("Every day"),
    "mon": mark("Monday"),
    "tue": mark("Tuesday"),
    "wed": mark("Wednesday"),
    "thu": mark("Thursday"),
    "fri": mark("Friday"),
    "sat": mark("Saturday"),
    "sun": mark("Sunday"),
}
AS_DAILY: Final = "as_daily"
HOURS: Final = "hours"


class ClockEdit(QTimeEdit):
    """A time of the day, in the form that the user's locale has."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setKeyboardTracking(False)
        self.setFixedWidth(72)
        self.setAlignment(Qt.AlignmentFlag.AlignHCenter)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        event.ignore()


class DayRow:
    """The fields of one day: whether, from, until."""

    def __init__(self, day: str, colours: Callable[[], Colours], tell: Callable[[], None]) -> None:
        self.day = day
        name = _(NAMES[day])
        self.name = label(name)
        self.mode = CalmChoice(_("Quiet hours: {day}", day=name), colours)
        if day != quiet.DAILY:
            self.mode.addItem(_("As every day"), AS_DAILY)
        self.mode.addItem(_("None"), quiet.OFF)
        self.mode.addItem(_("Between"), HOURS)
        self.begin = ClockEdit(_("{day}: quiet from", day=name))
        self.until = label(_("and"))
        self.end = ClockEdit(_("{day}: quiet until", day=name))
        self.mode.activated.connect(lambda _row: self._on_mode(tell))
        self.begin.editingFinished.connect(tell)
        self.end.editingFinished.connect(tell)

    @property
    def widgets(self) -> tuple[QWidget, ...]:
        return self.name, self.mode, self.begin, self.until, self.end

    def show_span(self, text: str | None) -> None:
        """Show what stands in the table for the day; None: nothing does."""
        mode = AS_DAILY if text is None and self.day != quiet.DAILY else quiet.OFF
        span = quiet.parse_span(text) if text is not None else None
        if span is not None:
            mode = HOURS
        self.mode.setCurrentIndex(self.mode.findData(mode))
        begin, end = span or FIRST
        for field, time in ((self.begin, begin), (self.end, end)):
            with QSignalBlocker(field):
                field.setTime(QTime(time.hour, time.minute))
        self._show_fields()

    def text(self) -> str | None:
        """What is to stand in the table for it."""
        match self.mode.currentData():
            case "hours":
                return quiet.format_span(_time(self.begin), _time(self.end))
            case "off" if self.day != quiet.DAILY:
                return quiet.OFF
            case _:
                return None

    def _on_mode(self, tell: Callable[[], None]) -> None:
        self._show_fields()
        tell()

    def _show_fields(self) -> None:
        shown = self.mode.currentData() == HOURS and not self.mode.isHidden()
        for field in (self.begin, self.until, self.end):
            field.setVisible(shown)


class QuietHoursEditor(Editor):
    """Signals: as every field. The days are folded until one of them has hours of its own."""

    wide = True
    aligned = False
    unfolded = Signal()

    def __init__(self, colours: Callable[[], Colours]) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}
        self.rows = {day: DayRow(day, colours, self._tell) for day in NAMES}
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(tokens.HALF)
        grid.setVerticalSpacing(tokens.HALF)
        grid.setColumnStretch(5, 1)
        for line, row in enumerate(self.rows.values()):
            for column, widget in enumerate(row.widgets):
                grid.addWidget(widget, line, column)
        self.more = quiet_button(_("Other hours on single days"), lambda: self._unfold(True))
        self.more.setProperty("quiet", True)
        column_layout = QVBoxLayout(self)
        column_layout.setContentsMargins(0, 0, 0, 0)
        column_layout.addLayout(grid)
        column_layout.addWidget(self.more)
        self.setFocusProxy(self.rows[quiet.DAILY].mode)
        self._unfold(False)

    def show_value(self, value: Any) -> None:
        table = dict(value or {})
        self._shown = table
        for day, row in self.rows.items():
            row.show_span(table.get(day))
        if any(day != quiet.DAILY for day in table):
            self._unfold(True)

    def _unfold(self, open_: bool) -> None:
        for day, row in self.rows.items():
            if day != quiet.DAILY:
                for widget in (row.name, row.mode):
                    widget.setVisible(open_)
                row._show_fields()
        self.more.setVisible(not open_)

    def _tell(self) -> None:
        wanted = {}
        for day, row in self.rows.items():
            if row.mode.currentData() == HOURS and _time(row.begin) == _time(row.end):
                self.wrong.emit(_("Quiet hours begin and end at different times."))
                return
            text = row.text()
            if text is not None:
                wanted[day] = text
        if wanted != self._shown:
            self._shown = wanted
            self.edited.emit(wanted)


def _time(field: QTimeEdit) -> dt.time:
    return dt.time(field.time().hour(), field.time().minute())
