"""The row of the settings that shows the first steps again."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from desktop.commands import Command
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import label, quiet_button, tint
from desktop.windows.context import Context


class FirstStepsRow(QWidget):
    """What they are, and a button."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._hint = label(
            _("Where tasks come from, agents and how to get more, directories, notifications."), wrap=True
        )
        self.again = quiet_button(_("Show them again"), lambda: context.do(Command("first_run")))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(_("The first steps")))
        words.addWidget(self._hint)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, tokens.GRID, tokens.ROW + tokens.HALF, tokens.GRID)
        row.setSpacing(tokens.GRID)
        row.addLayout(words, 1)
        row.addWidget(self.again, 0, Qt.AlignmentFlag.AlignVCenter)
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def _recolour(self) -> None:
        tint(self._hint, self._context.colours.muted)
