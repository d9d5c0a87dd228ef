"""The line that searches in what is shown."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QWidget

from desktop.text import _
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.bits import GlyphButton, label, tint


class SearchBar(QWidget):
    """Signals:
    changed(str): Another text is looked for; empty: none.
    moved(int): The next hit (1) or the one before (-1) is wanted.
    closed(): It is over.
    """

    changed = Signal(str)
    moved = Signal(int)
    closed = Signal()

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.field = QLineEdit()
        self.field.setPlaceholderText(_("Search in the transcript"))
        self.field.setAccessibleName(_("Search in the transcript"))
        self.field.setClearButtonEnabled(True)
        self.field.setMaximumWidth(360)
        self.field.textChanged.connect(self.changed)
        self._count = label(size=tokens.SMALL)
        tint(self._count, colours.muted)
        self.before = GlyphButton("chevron-up", _("The hit before (Shift+Enter)"), colours)
        self.before.clicked.connect(lambda _checked=False: self.moved.emit(-1))
        self.after = GlyphButton("chevron-down", _("The next hit (Enter)"), colours)
        self.after.clicked.connect(lambda _checked=False: self.moved.emit(1))
        self._back = back = GlyphButton("x", _("Close the search"), colours)
        back.clicked.connect(lambda _checked=False: self.close_search())
        row = QHBoxLayout(self)
        row.setContentsMargins(24, tokens.GRID, 24, tokens.HALF)
        row.setSpacing(tokens.HALF)
        row.addWidget(self.field, 1)
        row.addWidget(self.before)
        row.addWidget(self.after)
        row.addWidget(self._count)
        row.addStretch(1)
        row.addWidget(back)
        self.hide()

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        tint(self._count, colours.muted)
        for button in (self.before, self.after, self._back):
            button.recolour(colours)

    def begin(self) -> None:
        """Show it, ready to be typed into."""
        self.show()
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()

    def close_search(self) -> None:
        """Away with it, and with what it marked."""
        self.field.clear()
        self.hide()
        self.closed.emit()

    def show_count(self, hit: int, hits: int) -> None:
        """Which hit is shown of how many."""
        for button in (self.before, self.after):
            button.setEnabled(hits > 0)
        if not self.field.text():
            self._count.setText("")
        elif not hits:
            self._count.setText(_("Not found"))
        else:
            self._count.setText(_("{hit} of {hits}", hit=hit, hits=hits))

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.moved.emit(-1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1)
        elif event.key() == Qt.Key.Key_Escape:
            self.close_search()
        else:
            super().keyPressEvent(event)
