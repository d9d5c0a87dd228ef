"""What a task waits to be answered, with the answers right there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from daemon_core.control.views import RequestView, TaskView
from desktop.commands import Command
from desktop.models.requests import encode_answer, request_sentence
from desktop.models.transcript import Step
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.windows.bits import label, plain, primary_button, quiet_button
from desktop.windows.context import Context
from desktop.windows.flow import Flow
from desktop.words import cut

SHOWN_CHARS: Final = 160
SETTLED_MS: Final = 4_000
MOST_OPTIONS: Final = 4
"""More than that are written, not pressed."""


class RequestRow(QWidget):
    """One open request of a task."""

    def __init__(self, context: Context, task_id: str, request: RequestView) -> None:
        super().__init__()
        self.request = request
        self._context = context
        self._task = task_id
        self._buttons: list[QPushButton] = []
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.HALF, 0, tokens.GRID)
        column.setSpacing(2)
        asked = label(request_sentence(request), wrap=True)
        asked.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column.addWidget(asked)
        detail = Step(tool=request.tool, input=request.input).summary
        if detail and request.kind != "question":
            told = label(cut(detail, SHOWN_CHARS), wrap=True)
            told.setFont(mono_font())
            told.setToolTip(Step(tool=request.tool, input=request.input).input_text[:4000])
            column.addWidget(told)
        if request.kind == "question" and not 0 < len(request.options) <= MOST_OPTIONS:
            self._make_field(column)
            return
        row = Flow()
        column.addSpacing(6)
        column.addWidget(row)
        if request.kind == "question":
            for option in request.options:
                self._button(row, quiet_button, plain(cut(option, 32)), "allow", option)
        else:
            self._button(row, primary_button, _("Allow once"), "allow")
            self._button(row, quiet_button, _("For this task"), "allow-task")
            self._button(row, quiet_button, _("Deny"), "deny")

    def _make_field(self, column: QVBoxLayout) -> None:
        row = QHBoxLayout()
        row.setContentsMargins(0, 6, 0, 0)
        row.setSpacing(tokens.GRID)
        column.addLayout(row)
        answer = QLineEdit()
        answer.setPlaceholderText(_("Your answer"))
        answer.setAccessibleName(_("Your answer"))
        row.addWidget(answer, 1)

        def send() -> None:
            if answer.text().strip():
                self._answer("allow", answer.text())

        answer.returnPressed.connect(send)
        button = primary_button(_("Answer"), send)
        self._buttons.append(button)
        row.addWidget(button)

    def _button(
        self,
        row: Flow,
        make: Callable[[str, Callable[[], None]], QPushButton],
        text: str,
        choice: str,
        words: str = "",
    ) -> None:
        button = make(text, lambda: self._answer(choice, words))
        self._buttons.append(button)
        row.add(button)

    def _enable(self, on: bool) -> None:
        for button in self._buttons:
            button.setEnabled(on)

    def _answer(self, choice: str, words: str = "") -> None:
        self._enable(False)
        # An answer that is taken ends the request, and this with it. One that is not can be given again.
        QTimer.singleShot(SETTLED_MS, self, lambda: self._enable(True))
        self._context.do(Command("answer", self._task, self.request.id, encode_answer(choice, words)))


class RequestList(QWidget):
    """All open requests of a task."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._rows: dict[str, RequestRow] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(0)
        self.hide()

    def show_task(self, task: TaskView) -> None:
        """Show what this task asks."""
        wanted = {request.id: request for request in task.requests}
        for ident in [ident for ident in self._rows if ident not in wanted]:
            row = self._rows.pop(ident)
            self._column.removeWidget(row)
            row.deleteLater()
        for ident, request in wanted.items():
            if ident not in self._rows:
                self._rows[ident] = RequestRow(self._context, task.id, request)
                self._column.addWidget(self._rows[ident])
        self.setVisible(bool(self._rows))
