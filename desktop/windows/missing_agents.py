"""Agents that are not on this machine, each with the command that brings it."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QGridLayout, QLineEdit, QWidget

from daemon_core.control.runtime_requests import MissingAgent
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.windows.bits import GlyphButton, label, tint
from desktop.windows.context import Context

COPIED_MS = 1_500


class MissingAgents(QWidget):
    """A quiet heading and a line for each; not there while none is missing.

    Args:
        most: So many are shown; of two dozen agents nobody wants them all.
    """

    def __init__(self, context: Context, most: int) -> None:
        super().__init__()
        self._context = context
        self._most = most
        self._shown: list[MissingAgent] = []
        self.fields: list[QLineEdit] = []
        self._buttons: list[GlyphButton] = []
        self._heading = label(_("Not here yet"), size=tokens.SMALL, strong=True)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(tokens.GRID)
        self._grid.setVerticalSpacing(tokens.GRID)
        self._grid.setColumnStretch(1, 1)
        self._grid.addWidget(self._heading, 0, 0, 1, 3)
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self.hide()

    def show_agents(self, found: Sequence[MissingAgent]) -> None:
        """How to get those that can be had with one command: the ones that were tried with Ostler first."""
        wanted = [agent for agent in found if agent.install][: self._most]
        self.setVisible(bool(wanted))
        if wanted == self._shown:
            return
        self._shown = wanted
        while self._grid.count() > 1:
            item = self._grid.takeAt(1)
            gone = item.widget() if item is not None else None
            if gone is not None:
                gone.hide()
                gone.deleteLater()
        self.fields, self._buttons = [], []
        for row, agent in enumerate(wanted, 1):
            self._add(row, agent)

    def _add(self, row: int, agent: MissingAgent) -> None:
        name = agent.name or agent.provider
        command = QLineEdit(agent.install)
        command.setReadOnly(True)
        command.setFont(mono_font())
        command.setCursorPosition(0)
        command.setAccessibleName(_("How to install {agent}", agent=name))
        copy = GlyphButton("copy", _("Copy"), self._context.colours)
        copy.setAccessibleName(_("Copy how to install {agent}", agent=name))
        copy.clicked.connect(lambda _checked=False: _copy(copy, agent.install))
        self._grid.addWidget(label(name), row, 0, Qt.AlignmentFlag.AlignVCenter)
        self._grid.addWidget(command, row, 1)
        self._grid.addWidget(copy, row, 2)
        self.fields.append(command)
        self._buttons.append(copy)

    def _recolour(self) -> None:
        tint(self._heading, self._context.colours.muted)
        for button in self._buttons:
            button.recolour(self._context.colours)


def _copy(button: GlyphButton, text: str) -> None:
    """Onto the clipboard, and say for a moment that it is there."""
    QGuiApplication.clipboard().setText(text)
    colours = button.colours
    button.show_glyph("circle-check", colours.done)
    QTimer.singleShot(COPIED_MS, button, lambda: button.recolour(button.colours))
