"""The page "Health": everything that is not as it should be, in sentences, each with what can be done."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from daemon_core.control.views import Condition
from desktop.commands import Command
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.tray.view import TROUBLES
from desktop.updates.section import UpdateSection
from desktop.windows.bits import Elided, GlyphLabel, hairline, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.diagnostics import DiagnosticsSection
from desktop.windows.settings_disk import DiskPanel
from desktop.words import (
    clock,
    condition_action,
    condition_next,
    condition_text,
    full_stop,
    link_sentence,
    updating,
)


class HealthPage(QWidget):
    """The page."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: list[Condition] | None = None
        self._sentence = Elided(size=tokens.SENTENCE, strong=True)
        self._area = QScrollArea()
        self._area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._area.setWidgetResizable(True)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._facts = label(wrap=True)
        self._conditions = QWidget()
        self.updates = UpdateSection(context)
        self.diagnostics = DiagnosticsSection(context)
        self.disk = QWidget()
        disk = QVBoxLayout(self.disk)
        disk.setContentsMargins(0, 0, 0, 0)
        disk.setSpacing(0)
        disk.addWidget(label(_("Disk and clean-up"), size=tokens.TITLE, strong=True))
        disk.addWidget(DiskPanel(context))
        inner = QWidget()
        self._inside = QVBoxLayout(inner)
        self._inside.setContentsMargins(24, tokens.GRID, 24, 24)
        self._inside.setSpacing(tokens.GRID * 3)
        self._inside.addWidget(self._conditions)
        self._inside.addWidget(self.updates)
        self._inside.addWidget(self.disk)
        self._inside.addWidget(self.diagnostics)
        self._inside.addStretch(1)
        self._area.setWidget(inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 24, 0, 0)
        column.setSpacing(tokens.GRID)
        head = QHBoxLayout()
        head.setContentsMargins(24, 0, 24, 0)
        head.addWidget(self._sentence)
        column.addLayout(head)
        column.addWidget(self._area, 1)
        column.addWidget(hairline())
        row = QHBoxLayout()
        row.setContentsMargins(24, tokens.HALF, 24, 12)
        row.addWidget(self._facts, 1)
        row.addWidget(quiet_button(_("Show the log"), lambda: context.do(Command("show_logs"))))
        column.addLayout(row)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)

    def _recolour(self) -> None:
        self._shown = None
        self.updates.recolour()
        self.diagnostics.recolour()
        self._show_state()

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        self._show_state()

    def _show_state(self) -> None:
        if not self.isVisible():
            return
        state = self._context.link.state
        conditions = sorted(state.conditions, key=lambda each: each.code not in TROUBLES)
        version = updating(state)
        if version:
            self._sentence.set_text(_("Updating to {version}; tasks go on", version=version))
        elif wrong := link_sentence(state):
            self._sentence.set_text(wrong)
        elif conditions:
            self._sentence.set_text(_("Some things are not as they should be"))
        else:
            self._sentence.set_text(_("All is well"))
        self.updates.show_state(state)
        self.disk.setVisible(state.connected)  # who is not there measures nothing
        tint(self._facts, self._context.colours.muted)
        status = state.status
        if status is not None:
            parts = [
                _("Version {version}", version=status.version),
                _("running since {time}", time=clock(status.started_at)) if status.started_at else "",
                _("profile {name}", name=status.profile) if status.profile != "default" else "",
                n_("{n} result waits to be taken", "{n} results wait to be taken", status.undelivered)
                if status.undelivered
                else "",
            ]
            self._facts.setText(" · ".join(part for part in parts if part))
        if conditions != self._shown:
            self._shown = conditions
            self._fill(conditions)

    def _fill(self, conditions: list[Condition]) -> None:
        rows = QWidget()
        column = QVBoxLayout(rows)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        for condition in conditions:
            column.addLayout(self._row(condition))
        self._inside.replaceWidget(self._conditions, rows)
        self._conditions.deleteLater()
        self._conditions = rows
        rows.setVisible(bool(conditions))

    def _row(self, condition: Condition) -> QHBoxLayout:
        colours = self._context.colours
        grave = condition.code in TROUBLES
        glyph = GlyphLabel()
        colour = colours.failed if grave else colours.waiting
        text = condition_text(condition)
        glyph.show_glyph("triangle-alert" if grave else "circle-alert", colour, text)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(full_stop(text), wrap=True))
        since = _("Since {time}.", time=clock(condition.since)) if condition.since else ""
        next_try = condition.next_try_at
        then = _("Next try at {time}.", time=clock(next_try)) if next_try else ""
        when = label(" ".join(part for part in (since, then, condition_next(condition)) if part), wrap=True)
        tint(when, colours.muted)
        if not when.text():
            when.hide()  # and not shown before it has its place: it would be a window for a moment
        words.addWidget(when)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        action = condition_action(condition)
        if action is not None and action[1].subject != "health":
            told, command = action
            row.addWidget(quiet_button(told, lambda: self._context.do(command)))
        return row

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show_state()
