"""The page "Now": what needs somebody, runs, waits, and ended last; and the box for a new task."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QSettings, Qt, QTimer
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from daemon_core.control.views import TaskRow, TaskView
from desktop.commands import Command
from desktop.daemon.http import Call, Failure
from desktop.daemon.stats import StatsFeed
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.windows.bits import Elided, hairline, label, quiet_button, tab_by_place, tint
from desktop.windows.context import Context
from desktop.windows.new_task import NewTaskBox
from desktop.windows.requests import RequestList
from desktop.windows.spend_strip import SpendStrip
from desktop.windows.task_line import TaskLine
from desktop.words import link_sentence, status_sentence

TICK_MS: Final = 1_000
MOST: Final = 40
"""Rows of one kind; what is more is in the history."""
ENDED: Final = 6


class Section(QWidget):
    """Tasks of one kind under a quiet heading; not there while there are none."""

    def __init__(self, context: Context, title: str, most: int, *, asking: bool = False) -> None:
        super().__init__()
        self._context = context
        self._asking = asking
        self._most = most
        self.lines: dict[str, TaskLine] = {}
        self._requests: dict[str, RequestList] = {}
        self._calls: dict[str, Call[TaskView]] = {}
        self._order: list[str] = []
        self._unasked: set[str] = set()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, tokens.GRID * 2)
        column.setSpacing(0)
        self._heading = label(title, size=tokens.SMALL, strong=True)
        self._heading.setContentsMargins(tokens.GRID, 0, 0, tokens.HALF)
        tint(self._heading, context.colours.muted)
        column.addWidget(self._heading)
        self._column = QVBoxLayout()
        self._column.setSpacing(0)
        column.addLayout(self._column)
        self._more = quiet_button("", lambda: context.do(Command("open", "history")))
        self._more.setProperty("quiet", True)
        column.addWidget(self._more, 0, Qt.AlignmentFlag.AlignLeft)
        self.hide()

    def show_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """Show these; what is there already is only changed."""
        shown = tasks[: self._most]
        wanted = {task.id: task for task in shown}
        for ident in [ident for ident in self.lines if ident not in wanted]:
            self._remove(ident)
        for task in shown:
            line = self.lines.get(task.id)
            if line is None:
                line = self._add(task)
            elif line.task != task:
                line.show_task(task)
                self._ask(task.id)
        for ident in self._unasked & wanted.keys():
            self._ask(ident)
        self._unasked.clear()
        order = [task.id for task in shown]
        if order != self._order:
            self._order = order
            for place, ident in enumerate(order):
                at = place * 2 if self._asking else place
                self._column.insertWidget(at, self.lines[ident])
                if self._asking:
                    self._column.insertWidget(at + 1, self._requests[ident])
        more = len(tasks) - len(shown)
        self._more.setVisible(more > 0)
        self._more.setText(n_("{n} more…", "{n} more…", more))
        self.setVisible(bool(shown))

    def leave(self) -> None:
        """Not seen any more: what was asked is asked again when it is."""
        for ident, call in self._calls.items():
            call.cancel()
            self._unasked.add(ident)
        self._calls.clear()

    def show_requests(self, task: TaskView) -> None:
        """What one of the tasks asks."""
        self._calls.pop(task.id, None)
        if task.id in self._requests:
            self._requests[task.id].show_task(task)

    def show_time(self, now: dt.datetime) -> None:
        """Count on."""
        for line in self.lines.values():
            line.show_time(now)

    def show_stats(self, stats: StatsFeed) -> None:
        """What each of them uses."""
        for ident, line in self.lines.items():
            line.show_series(stats.series("task", ident))

    def recolour(self) -> None:
        """The look is another one."""
        tint(self._heading, self._context.colours.muted)
        for line in self.lines.values():
            line.show_task(line.task)

    def _add(self, task: TaskRow) -> TaskLine:
        line = TaskLine(self._context, task)
        line.wanted.connect(lambda name, ident=task.id: self._context.do(Command(name, ident)))
        self.lines[task.id] = line
        if self._asking:
            requests = RequestList(self._context)
            requests.setContentsMargins(tokens.GRID * 4, 0, tokens.GRID, tokens.GRID)
            self._requests[task.id] = requests
            self._ask(task.id)
        return line

    def _ask(self, ident: str) -> None:
        link = self._context.link
        if self._asking and ident not in self._calls and link.state.connected:

            def failed(_failure: Failure) -> None:
                # It ended meanwhile, or the daemon went: the next change of the state says which.
                self._calls.pop(ident, None)

            self._calls[ident] = link.call(
                TaskView, "GET", f"/v1/tasks/{ident}", done=self.show_requests, failed=failed
            )

    def _remove(self, ident: str) -> None:
        widgets: list[QWidget | None] = [self.lines.pop(ident), self._requests.pop(ident, None)]
        for widget in widgets:
            if widget is not None:
                self._column.removeWidget(widget)
                widget.hide()
                widget.deleteLater()
        call = self._calls.pop(ident, None)
        if call is not None:
            call.cancel()
        self._order = [each for each in self._order if each != ident]


class NowPage(QWidget):
    """The page."""

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._stale = True
        self._sentence = Elided(size=tokens.SENTENCE, strong=True)
        self.needing = Section(context, _("Needs you"), MOST, asking=True)
        self.active = Section(context, _("Running"), MOST)
        self.waiting = Section(context, _("Waiting"), MOST)
        self.ended = Section(context, _("Ended last"), ENDED)
        self.empty = label(wrap=True)
        tint(self.empty, context.colours.muted)
        self.spend = SpendStrip(context)
        self._stats = StatsFeed.of(context.link)
        self._stats.came.connect(self._on_stats)
        self.new_task = NewTaskBox(context, settings)
        self._inner = inner = QWidget()
        lines = QVBoxLayout(inner)
        lines.setContentsMargins(24 - tokens.GRID, 0, 24 - tokens.GRID, 0)
        lines.setSpacing(0)
        self.empty.setContentsMargins(tokens.GRID, 0, 0, tokens.GRID * 2)
        lines.addWidget(self.empty)
        for section in self._sections():
            lines.addWidget(section)
        lines.addStretch(1)
        area = QScrollArea()
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(inner)
        head = QVBoxLayout()
        head.setContentsMargins(24, 24, 24, tokens.GRID * 2)
        head.setSpacing(tokens.GRID)
        head.addWidget(self._sentence)
        head.addWidget(self.spend)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(area, 1)
        column.addWidget(hairline())
        column.addWidget(self.new_task)
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._on_tick)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self.setFocusProxy(self.new_task.prompt)

    def focus_new_task(self) -> None:
        """Ready to be told what to do."""
        self.new_task.prompt.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def _sections(self) -> tuple[Section, ...]:
        return (self.needing, self.active, self.waiting, self.ended)

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        self._stale = True
        if self.isVisible():
            self._show_state()

    def _show_state(self) -> None:
        state = self._context.link.state
        # What is wrong with the link stands above the page already.
        if not link_sentence(state):
            self._sentence.set_text(status_sentence(state))
        else:
            self._sentence.set_text(_("As it was last") if state.tasks else _("Tasks"))
        self.spend.show_state(state)
        self.needing.show_tasks(state.needing)
        self.active.show_tasks(state.active)
        self.waiting.show_tasks(state.waiting)
        self.ended.show_tasks(state.ended)
        self.new_task.show_state(state)
        self.empty.setText(empty_sentence(state))
        self.empty.setVisible(bool(self.empty.text()))
        if (state.needing or state.active) and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def _on_stats(self) -> None:
        for section in (self.needing, self.active):
            section.show_stats(self._stats)

    def _on_tick(self) -> None:
        now = dt.datetime.now(dt.UTC)
        for section in self._sections():
            section.show_time(now)

    def _recolour(self) -> None:
        tint(self.empty, self._context.colours.muted)
        self.spend.show_state(self._context.link.state)
        for section in self._sections():
            section.recolour()

    def focusNextPrevChild(self, next: bool) -> bool:  # noqa: N802 - Qt's names
        tab_by_place(self._inner)
        return super().focusNextPrevChild(next)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show_state()
        self._on_tick()
        self._stats.watch(self)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._tick.stop()
        self._stats.leave(self)
        self.needing.leave()


def empty_sentence(state: DesktopState) -> str:
    """What this page is for, while there is nothing on it; and the next step."""
    if not state.connected and not state.tasks:
        return _("What runs and what waits is shown here as soon as Ostler's daemon answers.")
    if not state.connected or state.tasks:
        return ""
    if not any(runtime.status == "online" for runtime in state.runtimes.values()):
        return _("No agent is ready yet. See under Runtimes what was found and what is missing.")
    return _("Write below what should be done. The task appears here and goes on while you do other things.")
