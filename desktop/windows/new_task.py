"""The box for a new task: what should be done, and in quiet choices by whom and where."""

from __future__ import annotations

import os
from typing import Final

from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.control.model_views import ModelsView
from daemon_core.control.views import TaskAdd, TaskView
from desktop.commands import Command
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import DesktopState
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import Choice, PromptBox, label, primary_button, tint
from desktop.windows.context import Context
from desktop.windows.task import refusal_sentence

RECENT: Final = 8
"""Directories that are offered again."""
_OWN, _OTHER = "", "\0other"


class NewTaskBox(QWidget):
    """Starts tasks. What was chosen last is chosen again.

    Args:
        settings: Where the choices are kept.
    """

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._settings = settings
        self._known: list[tuple[str, str]] = []
        self._models_of = ""
        self.prompt = PromptBox(_("What should be done?"))
        self.prompt.sent.connect(self.start)
        self.prompt.textChanged.connect(self._on_typed)
        self.agent = Choice(_("Agent"), lambda: context.colours)
        self.folder = Choice(_("Directory"), lambda: context.colours)
        self.model = Choice(_("Model"), lambda: context.colours)
        self.button = primary_button(_("Start"), self.start)
        self.button.setToolTip(_("Ctrl+Enter"))
        self.button.setEnabled(False)
        self._refusal = label(wrap=True)
        self._refusal.hide()
        row = QHBoxLayout()
        row.setSpacing(tokens.GRID)
        for choice in (self.agent, self.folder, self.model):
            row.addWidget(choice)
        row.addStretch(1)
        row.addWidget(self.button)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 12, 24, 12)
        column.setSpacing(tokens.GRID)
        column.addWidget(self._refusal)
        column.addWidget(self.prompt)
        column.addLayout(row)
        self.agent.activated.connect(lambda _row: self._on_agent())
        self.folder.activated.connect(lambda _row: self._on_folder())
        self.setAcceptDrops(True)
        self._fill_folders()
        self.show_state(context.link.state)

    def show_state(self, state: DesktopState) -> None:
        """Offer the agents that there are now."""
        known = [(agent.name, f"agent {agent.name}") for agent in state.agents.values()]
        seen = set()
        for runtime in state.runtimes.values():
            if runtime.status == "online" and runtime.connection in ("", "hub"):
                ident = runtime.id if runtime.profile else runtime.provider
                if ident not in seen:
                    seen.add(ident)
                    known.append((runtime.name or runtime.provider, f"runtime {ident}"))
        if known == self._known:
            return
        self._known = known
        chosen = self.agent.currentData() or str(self._settings.value("new_task/agent", ""))
        self.agent.clear()
        for name, what in known:
            self.agent.addItem(name, what)
        self.agent.setCurrentIndex(max(0, self.agent.findData(chosen)))
        self.agent.setVisible(bool(known))
        self._models_of = ""
        self._fill_models([])

    def start(self) -> None:
        """Start what is written there."""
        prompt = self.prompt.toPlainText()
        if not prompt.strip() or not self.button.isEnabled():
            return
        what, _space, name = str(self.agent.currentData() or "").partition(" ")
        directory = str(self.folder.currentData() or "")
        wanted = TaskAdd(
            prompt=prompt,
            agent=name if what == "agent" else "",
            runtime=name if what == "runtime" else "",
            directory=directory,
            model=str(self.model.currentData() or ""),
        )
        self._settings.setValue("new_task/agent", self.agent.currentData())
        self._settings.setValue("new_task/directory", directory)
        self.button.setEnabled(False)
        self._refusal.hide()
        self._context.link.call(
            TaskView, "POST", "/v1/tasks", wanted, timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_started, failed=self._on_refused,
        )  # fmt: skip

    def choose_directory(self, path: str) -> None:
        """Take this directory, and offer it again later."""
        recent = [path, *(each for each in self._recent() if each != path)][:RECENT]
        self._settings.setValue("new_task/recent", recent)
        self._settings.setValue("new_task/directory", path)
        self._fill_folders()

    def _on_started(self, task: TaskView) -> None:
        self.prompt.clear()
        self._context.do(Command("open_task", task.id))

    def _on_refused(self, failure: Failure) -> None:
        tint(self._refusal, self._context.colours.failed)
        self._refusal.setText(refusal_sentence(failure))
        self._refusal.show()
        self._on_typed()

    def _on_typed(self) -> None:
        self.button.setEnabled(bool(self.prompt.toPlainText().strip()))
        self._ask_models()

    def _on_agent(self) -> None:
        self._models_of = ""
        self._fill_models([])
        self._ask_models()

    def _ask_models(self) -> None:
        """Ask for the models once somebody begins to write: an agent may have to be started for it."""
        what, _space, name = str(self.agent.currentData() or "").partition(" ")
        if what != "runtime" or name in (self._models_of, "shell") or not self._context.link.state.connected:
            return
        self._models_of = name

        def show(found: ModelsView) -> None:
            if self._models_of == name:
                self._fill_models([(model.name or model.id, model.id) for model in found.models])

        self._context.link.call(
            ModelsView, "GET", f"/v1/runtimes/{name}/models", done=show, timeout_ms=WORK_TIMEOUT_MS
        )

    def _fill_models(self, models: list[tuple[str, str]]) -> None:
        self.model.clear()
        self.model.addItem(_("Usual model"), "")
        for name, ident in models:
            self.model.addItem(name, ident)
        self.model.setVisible(bool(models))

    def _recent(self) -> list[str]:
        found = self._settings.value("new_task/recent", [])
        paths = found if isinstance(found, list) else [found]
        return [str(path) for path in paths if path and os.path.isdir(str(path))]

    def _fill_folders(self) -> None:
        last = str(self._settings.value("new_task/directory", "") or "")
        self.folder.clear()
        self.folder.addItem(_("In a directory of its own"), _OWN)
        for path in self._recent():
            self.folder.addItem(os.path.basename(path) or path, path)
            self.folder.setItemData(self.folder.count() - 1, path, Qt.ItemDataRole.ToolTipRole)
        self.folder.addItem(_("Another directory…"), _OTHER)
        self.folder.setCurrentIndex(max(0, self.folder.findData(last)))

    def _on_folder(self) -> None:
        if self.folder.currentData() != _OTHER:
            return
        self.folder.setCurrentIndex(0)
        dialog = QFileDialog(self, _("Where should it work?"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.choose_directory)
        dialog.open()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        if _dropped_directory(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        path = _dropped_directory(event)
        if path:
            self.choose_directory(path)
            event.acceptProposedAction()


def _dropped_directory(event: QDropEvent) -> str:
    for url in event.mimeData().urls():
        if url.isLocalFile() and os.path.isdir(url.toLocalFile()):
            return url.toLocalFile()
    return ""
