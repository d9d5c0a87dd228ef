"""The new-task line of the panel: what should be done, by whom and where; Enter starts."""

from __future__ import annotations

import os
from typing import Final

from PySide6.QtCore import QSettings, Qt
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from daemon_core.control.views import TaskAdd, TaskView
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import DesktopState, known_agents
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import Choice, GlyphButton, refusal_label, tint
from desktop.windows.context import Context

CHOICE_WIDTH: Final = 176


class QuickTask(QWidget):
    """Starts tasks with what the window's box chose last.

    Args:
        settings: The window's, where the choices are kept.
    """

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._settings = settings
        self._known: list[tuple[str, str]] = []
        self._starting = False
        self.prompt = QLineEdit()
        self.prompt.setPlaceholderText(_("What should be done?"))
        self.prompt.setAccessibleName(_("What should be done?"))
        self.prompt.returnPressed.connect(self.start)
        self.prompt.textChanged.connect(self._on_typed)
        self.agent = Choice(_("Agent"), lambda: context.colours)
        self.folder = Choice(_("Directory"), lambda: context.colours)
        for choice in (self.agent, self.folder):
            choice.setMaximumWidth(CHOICE_WIDTH)
        self.button = GlyphButton("send", _("Start the task"), context.colours)
        self.button.clicked.connect(self.start)
        self._refusal = refusal_label()
        self._refusal.hide()
        first = QHBoxLayout()
        first.setSpacing(tokens.HALF)
        first.addWidget(self.prompt, 1)
        first.addWidget(self.button)
        second = QHBoxLayout()
        second.setSpacing(tokens.GRID)
        second.addWidget(self.agent)
        second.addWidget(self.folder)
        second.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 10, 12, 10)
        column.setSpacing(6)
        column.addWidget(self._refusal)
        column.addLayout(first)
        column.addLayout(second)
        self.prompt.setText(context.drafts.get("quick_task", ""))
        self._show_button()

    def show_state(self, state: DesktopState) -> None:
        """Offer what there is now."""
        known = known_agents(state)
        if known != self._known:
            self._known = known
            chosen = self.agent.currentData() or str(self._settings.value("new_task/agent", ""))
            self.agent.clear()
            for name, what in known:
                self.agent.addItem(name, what)
            self.agent.setCurrentIndex(max(0, self.agent.findData(chosen)))
            self.agent.setVisible(bool(known))
        self._show_button()

    def refresh(self) -> None:
        """Take up what was chosen in the window meanwhile."""
        last = str(self._settings.value("new_task/directory", "") or "")
        found = self._settings.value("new_task/recent", [])
        recent = [str(path) for path in (found if isinstance(found, list) else [found]) if path]
        self.folder.clear()
        self.folder.addItem(_("Own directory"), "")
        for path in recent:
            if os.path.isdir(path):
                self.folder.addItem(os.path.basename(path) or path, path)
                self.folder.setItemData(self.folder.count() - 1, path, Qt.ItemDataRole.ToolTipRole)
        self.folder.setCurrentIndex(max(0, self.folder.findData(last)))
        at = self.agent.findData(str(self._settings.value("new_task/agent", "")))
        if at >= 0:
            self.agent.setCurrentIndex(at)

    def recolour(self) -> None:
        """The look is another one."""
        self.button.recolour(self._context.colours)

    def start(self) -> None:
        """Start what is written there."""
        prompt = self.prompt.text()
        if not prompt.strip() or not self.button.isEnabled():
            return
        what, _space, name = str(self.agent.currentData() or "").partition(" ")
        wanted = TaskAdd(
            prompt=prompt,
            agent=name if what == "agent" else "",
            runtime=name if what == "runtime" else "",
            directory=str(self.folder.currentData() or ""),
        )
        self._settings.setValue("new_task/agent", self.agent.currentData())
        self._settings.setValue("new_task/directory", wanted.directory)
        self._starting = True
        self._show_button()
        self._refusal.hide()
        self._context.link.call(
            TaskView, "POST", "/v1/tasks", wanted, timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_started, failed=self._on_refused,
        )  # fmt: skip

    def _on_started(self, _task: TaskView) -> None:
        self._starting = False
        self.prompt.clear()
        self._show_button()

    def _on_refused(self, failure: Failure) -> None:
        from desktop.windows.task import refusal_sentence

        self._starting = False
        tint(self._refusal, self._context.colours.failed)
        self._refusal.setText(refusal_sentence(failure))
        self._refusal.show()
        self._show_button()

    def _on_typed(self, text: str) -> None:
        self._context.drafts["quick_task"] = text
        self._show_button()

    def _show_button(self) -> None:
        ready = self._context.link.state.connected and not self._starting
        self.button.setEnabled(ready and bool(self.prompt.text().strip()))
