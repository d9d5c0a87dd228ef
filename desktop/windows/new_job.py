"""The box for a new job: a command, where it runs, and for how long at most."""

from __future__ import annotations

import os
import uuid

from PySide6.QtCore import QSettings, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QKeyEvent, Qt
from PySide6.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from daemon_core.control.job_views import JobRun
from daemon_core.control.views import JobView
from desktop.daemon.http import Failure
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.windows.bits import Choice, PromptBox, label, primary_button, quiet_button, refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.job_words import job_refusal


class NewJobBox(QWidget):
    """Starts jobs.

    Signals:
        started(object): The ``JobView`` of the job that was started.
        left(): Not now.
    """

    started = Signal(object)
    left = Signal()

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._settings = settings
        self._id = ""
        """Kept until the job is known to have started: asking again starts no other one."""
        self.command = PromptBox(_("Command, as in a terminal"), most_lines=10)
        self.command.setFont(mono_font())
        self.command.sent.connect(self.start)
        self.command.textChanged.connect(self._on_typed)
        self.directory = QLineEdit(str(settings.value("new_job/directory", "") or os.path.expanduser("~")))
        self.directory.setAccessibleName(_("Directory"))
        self.name = QLineEdit()
        self.name.textChanged.connect(lambda text: context.drafts.update({"new_job name": text}))
        self.name.setPlaceholderText(_("Optional"))
        self.name.setAccessibleName(_("Name"))
        self.limit = Choice(_("Time limit"), lambda: context.colours)
        for text, seconds in (
            (_("As the settings say"), None),
            (_("10 min"), 600.0),
            (_("1 h"), 3600.0),
            (_("8 h"), 28_800.0),
            (_("No limit"), 0.0),
        ):
            self.limit.addItem(text, seconds)
        self.button = primary_button(_("Start"), self.start)
        self.button.setToolTip(_("Ctrl+Enter"))
        self.button.setEnabled(False)
        self._refusal = refusal_label()
        self._refusal.hide()
        title = label(_("New job"), size=tokens.TITLE, strong=True)
        told = label(
            _("A command that goes on in the background, also when the window is closed."), wrap=True
        )
        self._told = told
        grid = QGridLayout()
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(tokens.GRID)
        grid.setColumnStretch(1, 1)
        where = QHBoxLayout()
        where.setSpacing(tokens.GRID)
        where.addWidget(self.directory, 1)
        where.addWidget(quiet_button(_("Choose…"), self._choose))
        bottom = QHBoxLayout()
        bottom.addWidget(self.limit)
        bottom.addStretch(1)
        grid.addWidget(label(_("Directory")), 0, 0)
        grid.addLayout(where, 0, 1)
        grid.addWidget(label(_("Name")), 1, 0)
        grid.addWidget(self.name, 1, 1)
        grid.addWidget(label(_("Time limit")), 2, 0)
        grid.addLayout(bottom, 2, 1)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(quiet_button(_("Cancel"), self.left.emit))
        buttons.addWidget(self.button)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, tokens.GRID * 2, 24, 24)
        column.setSpacing(12)
        column.addWidget(title)
        column.addWidget(told)
        column.addWidget(self.command)
        column.addLayout(grid)
        column.addWidget(self._refusal)
        column.addLayout(buttons)
        column.addStretch(1)
        self.setAcceptDrops(True)
        self.setFocusProxy(self.command)
        self.command.setPlainText(context.drafts.get("new_job", ""))
        self.name.setText(context.drafts.get("new_job name", ""))
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def start(self) -> None:
        """Start what is written there."""
        command = self.command.toPlainText()
        if not command.strip() or not self.button.isEnabled():
            return
        self._id = self._id or uuid.uuid4().hex
        wanted = JobRun(
            command=command,
            id=self._id,
            name=self.name.text(),
            directory=os.path.expanduser(self.directory.text().strip()),
            time_limit=self.limit.currentData(),
        )
        self.button.setEnabled(False)
        self._refusal.hide()
        self._context.link.call(
            JobView, "POST", "/v1/jobs", wanted, done=self._on_started, failed=self._on_refused
        )

    def _on_started(self, job: JobView) -> None:
        self._id = ""
        self._settings.setValue("new_job/directory", job.directory)
        self.command.clear()
        self.name.clear()
        self.started.emit(job)

    def _on_refused(self, failure: Failure) -> None:
        self._refusal.setText(job_refusal(failure))
        self._refusal.show()
        self.button.setEnabled(bool(self.command.toPlainText().strip()))

    def _on_typed(self) -> None:
        self._id = ""
        self._context.drafts["new_job"] = self.command.toPlainText()
        self.button.setEnabled(bool(self.command.toPlainText().strip()))

    def _choose(self) -> None:
        dialog = QFileDialog(self, _("Where should it run?"), self.directory.text())
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.directory.setText)
        dialog.open()

    def _recolour(self) -> None:
        tint(self._refusal, self._context.colours.failed)
        tint(self._told, self._context.colours.muted)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        if event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        for url in event.mimeData().urls():
            if url.isLocalFile():
                path = url.toLocalFile()
                self.directory.setText(path if os.path.isdir(path) else os.path.dirname(path))
                event.acceptProposedAction()
                return
