"""The panel at the tray: what needs an answer with the answers right there, what runs, what ended last, and a
line for the next task.

It is made at the first click and kept. It goes away when the focus does and on Escape; while it is away
nothing of it is refreshed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from PySide6.QtCore import QElapsedTimer, QEvent, QRect, QSettings, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QHideEvent, QKeyEvent, QPainter, QPaintEvent, QPen, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from desktop.commands import Command
from desktop.daemon.stats import StatsFeed
from desktop.models.state import DesktopState
from desktop.text import _
from desktop.theme import mark, tokens
from desktop.tray.view import shape_of
from desktop.windows.bits import (
    Elided,
    GlyphButton,
    hairline,
    label,
    quiet_button,
    refusal_label,
    tab_by_place,
    tint,
)
from desktop.windows.context import Context
from desktop.windows.now import Section, empty_sentence
from desktop.windows.quick_task import QuickTask
from desktop.windows.trouble import action_of, detail_sentence
from desktop.words import full_stop, link_sentence, status_sentence

WIDTH: Final = 400
HEIGHT: Final = 560
LEAST_HEIGHT: Final = 260
MARK: Final = 20
TICK_MS: Final = 1_000
TOLD_MS: Final = 10_000
ACTIVE: Final = 12
WAITING: Final = 3
ENDED: Final = 3
BOUNCE_MS: Final = 250
"""A click on the icon takes the focus away, which closes the panel: that click is not to open it again."""
LEAVING: Final = frozenset({"open", "open_task", "new_task", "show_logs", "quit", "open_directory"})
"""What shows something else: the panel makes room for it."""

Place = Callable[[QSize], QRect]


class Panel(QWidget):
    """Args:
    settings: The window's own.
    """

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__(
            None,
            Qt.WindowType.Tool
            | Qt.WindowType.FramelessWindowHint
            | Qt.WindowType.WindowStaysOnTopHint
            | Qt.WindowType.NoDropShadowWindowHint,
        )
        self._outside = context
        self._context = replace(context, do=self._do)
        self._place: Place | None = None
        self._closed_at = QElapsedTimer()
        self.setWindowTitle("Ostler")
        self.setStyleSheet(  # three answers in a row
            "QPushButton { padding-left: 9px; padding-right: 9px; }"
            "QPushButton:focus { padding-left: 8px; padding-right: 8px; }"
        )
        self.setAttribute(Qt.WidgetAttribute.WA_QuitOnClose, False)
        self._mark = _Mark(self._context)
        self._sentence = Elided(size=tokens.TITLE, strong=True)
        self.more = GlyphButton("ellipsis", _("More"), context.colours)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.more.setMenu(self.menu)
        self.more.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        head = QHBoxLayout()
        head.setContentsMargins(14, 10, 10, 10)
        head.setSpacing(10)
        head.addWidget(self._mark)
        head.addWidget(self._sentence, 1)
        head.addWidget(self.more)
        self._wrong = label(strong=True, wrap=True)
        self._trouble = label(wrap=True)
        self.act: QPushButton = quiet_button("", self._on_act)
        self._act: Command | None = None
        self._down = QWidget()
        down = QVBoxLayout(self._down)
        down.setContentsMargins(14, 0, 14, 12)
        down.setSpacing(tokens.GRID)
        down.addWidget(self._wrong)
        down.addWidget(self._trouble)
        down.addWidget(self.act, 0, Qt.AlignmentFlag.AlignLeft)
        self.needing = Section(self._context, _("Needs you"), ACTIVE, asking=True)
        self.active = Section(self._context, _("Running"), ACTIVE)
        self.waiting = Section(self._context, _("Waiting"), WAITING)
        self.ended = Section(self._context, _("Ended last"), ENDED)
        self._empty = label(wrap=True)
        self._empty.setContentsMargins(tokens.GRID, tokens.HALF, tokens.GRID, tokens.GRID)
        self._inner = QWidget()
        self._lines = lines = QVBoxLayout(self._inner)
        lines.setContentsMargins(6, 12, 6, 0)
        lines.setSpacing(0)
        lines.addWidget(self._empty)
        for section in self._sections():
            lines.addWidget(section)
        lines.addStretch(1)
        self._area = QScrollArea()
        self._area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._area.setWidgetResizable(True)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setWidget(self._inner)
        self._told = refusal_label()
        self._told.setContentsMargins(14, tokens.GRID, 14, 0)
        self._told.hide()
        self._untell = QTimer(self)
        self._untell.setSingleShot(True)
        self._untell.setInterval(TOLD_MS)
        self._untell.timeout.connect(lambda: self.tell(""))
        self.new_task = QuickTask(self._context, settings)
        self._column = column = QVBoxLayout(self)
        column.setContentsMargins(1, 1, 1, 1)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(self._down)
        column.addWidget(hairline())
        column.addWidget(self._area, 1)
        column.addWidget(hairline())
        column.addWidget(self._told)
        column.addWidget(self.new_task)
        self._stats = StatsFeed.of(context.link)
        self._stats.came.connect(self._on_stats)
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._on_tick)
        self._fit_soon = QTimer(self)
        self._fit_soon.setSingleShot(True)
        self._fit_soon.setInterval(0)
        self._fit_soon.timeout.connect(self._fit)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self.resize(WIDTH, HEIGHT)

    def toggle(self, place: Place) -> None:
        """A click on the icon: come up there, or go away."""
        if self.isVisible():
            self.close()
        elif not self._closed_at.isValid() or self._closed_at.hasExpired(BOUNCE_MS):
            self.come_up(place)

    def come_up(self, place: Place) -> None:
        """Show it at the place that is given for its size."""
        self._place = place
        self._show_state()
        self.new_task.refresh()
        self._fit()
        self.show()
        self.raise_()
        self.activateWindow()
        self._first().setFocus(Qt.FocusReason.PopupFocusReason)

    def tell(self, sentence: str) -> None:
        """Say for a while why something was not done; empty: no more."""
        tint(self._told, self._context.colours.failed)
        self._told.setText(sentence)
        self._told.setVisible(bool(sentence))
        if sentence:
            self._untell.start()
        self._fit_soon.start()

    def _first(self) -> QWidget:
        """What is to be answered comes before what is to be written."""
        for button in self.needing.findChildren(QPushButton):
            if button.isVisibleTo(self) and button.isEnabled():
                return button
        return self.new_task.prompt

    def _sections(self) -> tuple[Section, ...]:
        return (self.needing, self.active, self.waiting, self.ended)

    # --- what is shown -----------------------------------------------------------------------------

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        if self.isVisible():
            self._show_state()
            self._fit_soon.start()

    def _show_state(self) -> None:
        state = self._context.link.state
        self._mark.update()
        wrong = link_sentence(state)
        down = bool(wrong)
        # What is wrong is too long for one line beside the mark.
        self._sentence.set_text("Ostler" if down else status_sentence(state))
        self._down.setVisible(down)
        if down:
            self._wrong.setText(full_stop(wrong))
            self._trouble.setText(detail_sentence(state))
            self._trouble.setVisible(bool(self._trouble.text()))
            tint(self._trouble, self._context.colours.muted)
            found = action_of(state)
            self.act.setVisible(found is not None)
            if found is not None:
                text, self._act = found
                self.act.setText(text)
        self.needing.show_tasks(state.needing)
        self.active.show_tasks(state.active)
        self.waiting.show_tasks(state.waiting)
        self.ended.show_tasks(state.ended[:ENDED])
        self._empty.setText(empty_sentence(state))
        self._empty.setVisible(bool(self._empty.text()))
        tint(self._empty, self._context.colours.muted)
        self.new_task.show_state(state)
        if (state.needing or state.active) and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def _fit(self) -> None:
        """As high as what is in it, within limits; at its place again."""
        self._lines.activate()
        self._column.activate()
        least = self._column.minimumSize().height()
        if self._column.hasHeightForWidth():  # what is wrong may take two lines
            least = self._column.minimumHeightForWidth(WIDTH)
        rest = least - self._area.minimumSizeHint().height()
        needed = self._lines.heightForWidth(WIDTH - 2) if self._lines.hasHeightForWidth() else 0
        wanted = rest + max(needed, self._lines.sizeHint().height())
        size = QSize(WIDTH, min(HEIGHT, max(LEAST_HEIGHT, wanted)))
        if self._place is not None:
            self.setGeometry(self._place(size))
        else:
            self.resize(size)

    def _on_stats(self) -> None:
        for section in (self.needing, self.active):
            section.show_stats(self._stats)

    def _on_tick(self) -> None:
        now = dt.datetime.now(dt.UTC)
        for section in self._sections():
            section.show_time(now)

    def _recolour(self) -> None:
        self.more.recolour(self._context.colours)
        self.new_task.recolour()
        for section in self._sections():
            section.recolour()
        if self.isVisible():
            self._show_state()
        self.update()

    def _fill_menu(self) -> None:
        state = self._context.link.state
        self.menu.clear()

        def add(text: str, command: Command) -> None:
            self.menu.addAction(text).triggered.connect(lambda _checked=False: self._do(command))

        add(_("Open the window"), Command("open", "now"))
        add(_("History"), Command("open", "history"))
        if state.connected:
            self.menu.addSeparator()
            if state.barrier is not None and state.barrier.reason == "user":
                add(_("Take tasks again"), Command("resume"))
            else:
                add(_("Take no new tasks for an hour"), Command("pause", detail="1h"))
        self.menu.addSeparator()
        add(_("Settings…"), Command("open", "settings"))
        add(_("Quit…"), Command("quit"))

    # --- what is done ------------------------------------------------------------------------------

    def _do(self, command: Command) -> None:
        if command.name in LEAVING:
            self.close()
        self._outside.do(command)

    def _on_act(self) -> None:
        if self._act is not None:
            self._do(self._act)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        if event.key() == Qt.Key.Key_Escape:
            self.close()
        else:
            super().keyPressEvent(event)

    def event(self, event: QEvent) -> bool:
        # A menu or a list of choices of ours takes the focus too: that is not leaving.
        if event.type() == QEvent.Type.WindowDeactivate and QApplication.activePopupWidget() is None:
            self.close()
        return super().event(event)

    def focusNextPrevChild(self, next: bool) -> bool:  # noqa: N802 - Qt's names
        tab_by_place(self._inner)
        return super().focusNextPrevChild(next)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802
        super().showEvent(event)
        self._show_state()
        self._on_tick()
        self._stats.watch(self)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._closed_at.start()
        self._tick.stop()
        self._untell.stop()
        self._told.hide()
        self._stats.leave(self)
        self.needing.leave()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        colours = self._context.colours
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(colours.background))
        painter.setPen(QPen(QColor(colours.line), 1))
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()


class _Mark(QWidget):
    """The mark in the shape that the tray shows."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.setFixedSize(MARK, MARK)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        shape = shape_of(self._context.link.state)
        painter = QPainter(self)
        drawn = mark.pixmap(MARK, shape, QColor(self._context.colours.text), self.devicePixelRatioF())
        painter.drawPixmap(0, 0, drawn)
        painter.end()
