"""Start at login, as the system itself says it is: no setting of Ostler's, so nothing can disagree."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from desktop.autostart import Autostart
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import label, refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.switch import Switch

__all__ = ["Autostart", "AutostartRow"]


class AutostartRow(QWidget):
    """The switch. It is read anew each time it is shown: another program may have changed it. ``way_back``:
    it stands below settings, each of which has room for the way back to its default at its end."""

    def __init__(self, context: Context, *, way_back: bool = True) -> None:
        super().__init__()
        self._context = context
        name = _("Start at login")
        self.switch = Switch(name, lambda: context.colours)
        self.switch.clicked.connect(self._on_clicked)
        self._hint = label(wrap=True)
        self.error = refusal_label()
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(name))
        words.addWidget(self._hint)
        words.addWidget(self.error)
        row = QHBoxLayout(self)
        room = tokens.ROW + tokens.HALF if way_back else 0
        row.setContentsMargins(0, tokens.GRID, room, tokens.GRID)
        row.setSpacing(tokens.GRID)
        row.addLayout(words, 1)
        row.addWidget(self.switch, 0, Qt.AlignmentFlag.AlignVCenter)
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self.read()

    def read(self) -> None:
        """Show what the system says."""
        autostart = self._context.autostart
        state = autostart.enabled() if autostart is not None else None
        if autostart is None:
            self.hide()  # never shown from here: before it has its place it would be a window
        self.switch.setChecked(bool(state))
        self.switch.setEnabled(state is not None)
        said = autostart.explanation() if autostart is not None else ""
        self._hint.setText(said)
        self._hint.setVisible(bool(said))
        self.switch.setAccessibleDescription(said)
        self.error.hide()

    def _on_clicked(self, on: bool) -> None:
        autostart = self._context.autostart
        if autostart is None:
            return
        try:
            autostart.enable(on)
        except OSError as error:
            self.read()
            why = error.strerror or str(error)
            self.error.setText(_("The system does not take that: {why}.", why=why))
            self.error.show()
        else:
            self.read()

    def _recolour(self) -> None:
        tint(self._hint, self._context.colours.muted)
        tint(self.error, self._context.colours.failed)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self.read()
