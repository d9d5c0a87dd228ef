"""A question in a window of its own. Qt's own message box has a fixed width, and buttons with longer words
than "OK" are cut off in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDialog, QHBoxLayout, QPushButton, QVBoxLayout

from desktop.text import _
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.bits import label, primary_button, quiet_button, tint
from desktop.windows.switch import Switch

WIDTH: Final = 392


class Question(QDialog):
    """Args:
    title: What is so.
    text: What is to be known before answering.
    answers: (key, words); the first one is what is meant most often, and Enter.
    always: Words of a switch; empty: there is none.

    Signals:
        answered(str, bool): The key, or nothing where it was closed; and the switch.
    """

    answered = Signal(str, bool)

    def __init__(
        self,
        title: str,
        text: str,
        answers: Sequence[tuple[str, str]],
        colours: Callable[[], Colours],
        always: str = "",
    ) -> None:
        super().__init__()
        self.setWindowTitle("Ostler")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.title = label(title, size=tokens.TITLE, strong=True, wrap=True)
        self.text = label(text, wrap=True)
        tint(self.text, colours().muted)
        # Of the text and not of the window: a window with a least width asks nobody how wide its buttons are.
        self.text.setMinimumWidth(WIDTH)
        self.setAccessibleName(title)
        self.setAccessibleDescription(text)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 16)
        column.setSpacing(tokens.GRID)
        column.addWidget(self.title)
        column.addWidget(self.text)
        self.always: Switch | None = None
        if always:
            self.always = Switch(always, colours)
            words = label(always, wrap=True)
            words.setBuddy(self.always)
            row = QHBoxLayout()
            row.setContentsMargins(0, tokens.GRID, 0, 0)
            row.setSpacing(tokens.GRID)
            row.addWidget(self.always)
            row.addWidget(words, 1)
            column.addLayout(row)
        column.addSpacing(tokens.GRID)
        self.buttons: dict[str, QPushButton] = {}
        buttons = QHBoxLayout()
        buttons.setSpacing(tokens.GRID)
        buttons.addStretch(1)
        for key, words_of in answers:
            make = quiet_button if self.buttons else primary_button
            self.buttons[key] = make(words_of, lambda key=key: self._answer(key))  # type: ignore[misc]
        self.buttons[""] = quiet_button(_("Cancel"), self.reject)
        for button in reversed(self.buttons.values()):  # what is meant most often stands at the end
            buttons.addWidget(button)
        column.addLayout(buttons)
        first = next(iter(self.buttons.values()))
        first.setDefault(True)
        first.setFocus(Qt.FocusReason.OtherFocusReason)
        self._key = ""
        self.finished.connect(self._on_finished)

    def _answer(self, key: str) -> None:
        self._key = key
        self.accept()

    def _on_finished(self, _result: int) -> None:
        self.answered.emit(self._key, self.always is not None and self.always.isChecked())
