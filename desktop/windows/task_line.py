"""A task in two lines, for the lists on the page "Now": what it is, and what it does."""

from __future__ import annotations

import datetime as dt

from PySide6.QtCore import QEvent, QObject, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QEnterEvent,
    QFocusEvent,
    QFontMetrics,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QWidget

from daemon_core.control.views import TaskRow
from desktop.daemon.stats import Series
from desktop.models.state import ACTIVE, ENDED
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.theme.palette import body_font, sized
from desktop.windows.bits import Elided, GlyphButton, GlyphLabel, at_the_end, tint
from desktop.windows.bits import label as text_label
from desktop.windows.context import Context
from desktop.windows.sparkline import Sparkline
from desktop.windows.wording import cost_text, seconds_between, short_number, span, state_glyph, state_text
from desktop.words import ago, condition_text, elapsed, place_of


class TaskLine(QWidget):
    """One task. A click or Enter opens it.

    Signals:
        wanted(str): Something is wanted of the task: the name of a command.
    """

    wanted = Signal(str)
    access_role = QAccessible.Role.ListItem

    def __init__(self, context: Context, task: TaskRow) -> None:
        super().__init__()
        self._context = context
        self.task = task
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        colours = context.colours
        self._glyph = GlyphLabel()
        self._title = Elided(strong=True)
        self._detail = Elided(size=tokens.BODY)
        self._time = text_label()
        self._time.setFont(sized(body_font(), tokens.BODY))
        at_the_end(self._time)
        self.line = Sparkline(context)
        self._time.setMinimumWidth(QFontMetrics(self._time.font()).horizontalAdvance("00:00:00"))
        self._extend = GlyphButton("hourglass", _("Give it more time"), colours)
        self._directory = GlyphButton("folder-open", _("Open its directory"), colours)
        self._cancel = GlyphButton("x", _("Cancel the task"), colours)
        self._retry = GlyphButton("rotate-ccw", _("Try again"), colours)
        names = {
            self._extend: "extend_task",
            self._directory: "open_directory",
            self._cancel: "cancel_task",
            self._retry: "retry_task",
        }
        self._buttons = tuple(names)
        tools = QHBoxLayout()
        tools.setSpacing(0)
        for button, name in names.items():
            button.clicked.connect(lambda _checked=False, wanted=name: self.wanted.emit(wanted))
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.installEventFilter(self)
            tools.addWidget(button)
        self._tools = QWidget()
        self._tools.setLayout(tools)
        tools.setContentsMargins(0, 0, 0, 0)
        grid = QGridLayout(self)
        grid.setContentsMargins(tokens.GRID, 6, tokens.GRID, 6)
        grid.setHorizontalSpacing(tokens.GRID)
        grid.setVerticalSpacing(0)
        grid.addWidget(self._glyph, 0, 0)
        grid.addWidget(self._title, 0, 1)
        grid.addWidget(self._detail, 1, 1)
        grid.addWidget(self._tools, 0, 2, 2, 1, Qt.AlignmentFlag.AlignVCenter)
        grid.addWidget(self._time, 0, 3)
        grid.addWidget(self.line, 1, 3, Qt.AlignmentFlag.AlignRight)
        grid.setColumnStretch(1, 1)
        self.show_task(task)
        self._show_tools()

    def open_it(self) -> None:
        """For a screen reader."""
        self.wanted.emit("open_task")

    def show_task(self, task: TaskRow) -> None:
        """Show this task as it is now."""
        self.task = task
        colours = self._context.colours
        state = state_text(task)
        self._glyph.show_glyph(*state_glyph(task, colours), state)
        self._title.set_text(task.title)
        silent = task.notice is not None and task.notice.code == "silent"
        self._detail.set_text(detail_text(task), colours.waiting if silent else colours.muted)
        self._extend.setVisible(silent)
        self._directory.setVisible(bool(task.directory))
        self._cancel.setVisible(task.status not in ENDED)
        self._retry.setVisible(task.status in ENDED)
        tint(self._time, colours.muted)
        for button in self._buttons:
            if button.colours is not colours:
                button.recolour(colours)
        self.show_time(dt.datetime.now(dt.UTC))
        self.setAccessibleName(f"{task.title}: {state}")

    def show_series(self, series: Series | None) -> None:
        """What it uses, while it runs."""
        self.line.show_series(series if self.task.status in ACTIVE else None)

    def show_time(self, now: dt.datetime) -> None:
        """The time that goes with it, as of now."""
        task = self.task
        if task.status in ACTIVE:
            text = elapsed(task.started_at or task.created_at, now)
        elif task.status in ENDED:
            text = ago(task.ended_at or task.created_at, now)
        else:
            text = ""
        if self._time.text() != text:
            self._time.setText(text)

    def _show_tools(self) -> None:
        self._tools.setVisible(self.underMouse() or self._has_focus())
        self.update()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() is QEvent.Type.FocusOut:
            # Where the focus goes is known afterwards.
            QTimer.singleShot(0, self, self._show_tools)
        return super().eventFilter(watched, event)

    def _has_focus(self) -> bool:
        focused = self.window().focusWidget() if self.window() is not None else None
        return focused is not None and (focused is self or self.isAncestorOf(focused))

    def enterEvent(self, event: QEnterEvent) -> None:  # noqa: N802 - Qt's name
        super().enterEvent(event)
        self._show_tools()

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802
        super().leaveEvent(event)
        self._show_tools()

    def focusInEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        super().focusInEvent(event)
        self._show_tools()

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        super().focusOutEvent(event)
        self._show_tools()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.button() is Qt.MouseButton.LeftButton and self.rect().contains(event.position().toPoint()):
            self.wanted.emit("open_task")

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.wanted.emit("open_task")
        elif event.key() == Qt.Key.Key_Delete and self.task.status not in ENDED:
            self.wanted.emit("cancel_task")
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        colours = self._context.colours
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        if self.underMouse():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colours.hover))
            painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        if self.hasFocus():
            painter.setPen(QPen(QColor(colours.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        painter.end()


def detail_text(task: TaskRow, *, costs: bool = True) -> str:
    """The second line: who and where, then what it does, or what became of it; with ``costs``, and what that
    cost."""
    parts = [task.agent or task.runtime, place_of(task)]
    if task.notice is not None and task.notice.code == "silent":
        parts.append(
            _("no progress for a while, and ended soon unless it gets more time")
            if task.notice.params.get("kind") == "progress"
            else _("silent for a while, and ended soon unless it gets more time")
        )
    elif task.status in ENDED:
        parts.append(state_text(task))
        took = seconds_between(task.started_at, task.ended_at)
        parts.append(span(took) if took is not None and took >= 1 else "")
        files = task.changed_files
        parts.append(n_("{n} file", "{n} files", files) if files else "")
        parts.append(cost_text(task.cost, task.cost_how) if costs and task.cost is not None else "")
    elif task.status in ACTIVE:
        said = task.notice is not None and task.notice.code == "agent"
        parts.append(condition_text(task.notice) if said and task.notice is not None else task.last_action)
        parts.append(n_("{n} step", "{n} steps", task.tool_calls) if task.tool_calls else "")
        parts.append(_("{number} tokens", number=short_number(task.tokens)) if task.tokens else "")
        parts.append(cost_text(task.cost, task.cost_how) if task.cost is not None else "")
    else:
        parts.append(condition_text(task.waiting) if task.waiting is not None else state_text(task))
    return " · ".join(part for part in parts if part)
