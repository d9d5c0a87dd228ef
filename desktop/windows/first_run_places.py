"""The step of the first run in which directories are chosen that new tasks are offered."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from desktop.models.projects import find_projects
from desktop.text import _
from desktop.theme import tokens
from desktop.threads import Aside
from desktop.windows.bits import Elided, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.first_run_steps import Step
from desktop.windows.new_task import RECENT
from desktop.windows.switch import Switch

RECENT_KEY = "new_task/recent"


class PlaceLine(QWidget):
    """One directory, offered or not."""

    def __init__(self, context: Context, path: str, *, on: bool) -> None:
        super().__init__()
        self.path = path
        name = os.path.basename(path.rstrip(os.sep)) or path
        self.box = Switch(_("Offer {name}", name=name), lambda: context.colours)
        self.box.setChecked(on)
        self.box.setAccessibleDescription(path)
        where = Elided(middle=True)
        where.set_text(_short(path), context.colours.muted)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, tokens.HALF, 0, tokens.HALF)
        row.setSpacing(12)
        row.addWidget(label(name))
        row.addWidget(where, 1)
        row.addWidget(self.box)


class PlacesStep(Step):
    """The step."""

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__(context)
        self.heading = _("Where should agents work?")
        self.words = _(
            "These directories are offered for new tasks; any other can be chosen then, and a task can have a"
            " directory of its own."
        )
        self._settings = settings
        self._begun = False
        self._changed = False
        self.lines: dict[str, PlaceLine] = {}
        self._list = QVBoxLayout()
        self._list.setSpacing(0)
        self._empty = label(_("No project was found in the usual places."), wrap=True)
        self._empty.hide()
        self.add = quiet_button(_("Add a directory…"), self._choose)
        self._drop = label(_("or drop one here"))
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(self.add)
        row.addWidget(self._drop, 1)
        self._column.addLayout(self._list)
        self._column.addWidget(self._empty)
        self._column.addSpacing(tokens.HALF)
        self._column.addLayout(row)
        self._column.addStretch(1)
        self.setAcceptDrops(True)
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def begin(self) -> None:
        """What is offered already is; what is found besides can be."""
        if self._begun:
            return
        self._begun = True
        for path in self._kept():
            self.add_place(path, on=True)
        home = Path.home()
        search = Aside(lambda: find_projects(home), "project search")  # it may be on a slow disk
        search.done.connect(self._on_found)
        search.start()

    def end(self) -> None:
        """Write down what is ticked, the first ones first."""
        if not self._changed:
            return
        chosen = [path for path, line in self.lines.items() if line.box.isChecked()]
        self._settings.setValue(RECENT_KEY, chosen[:RECENT])

    def add_place(self, path: str, *, on: bool) -> None:
        """One more, or tick the one that is there."""
        if path in self.lines:
            self.lines[path].box.setChecked(on or self.lines[path].box.isChecked())
            return
        line = self.lines[path] = PlaceLine(self._context, path, on=on)
        line.box.toggled.connect(self._on_toggled)
        self._list.addWidget(line)
        QWidget.setTabOrder(line.box, self.add)
        self._empty.hide()

    def _on_found(self, paths: list[str]) -> None:
        for path in paths:
            self.add_place(path, on=False)
        self._empty.setVisible(not self.lines)

    def _on_toggled(self, _on: bool) -> None:
        self._changed = True

    def _kept(self) -> list[str]:
        found = self._settings.value(RECENT_KEY, [])
        return [str(path) for path in (found if isinstance(found, list) else [found]) if path]

    def _choose(self) -> None:
        dialog = QFileDialog(self, _("Where should it work?"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self._on_chosen)
        dialog.open()

    def _on_chosen(self, path: str) -> None:
        self._changed = True
        self.add_place(path, on=True)

    def _recolour(self) -> None:
        for each in (self._empty, self._drop):
            tint(each, self._context.colours.muted)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        if _dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        for path in _dropped(event):
            self._on_chosen(path)
        event.acceptProposedAction()


def _dropped(event: QDropEvent) -> list[str]:
    paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
    return [path for path in paths if os.path.isdir(path)]


def _short(path: str) -> str:
    home = str(Path.home())
    return "~" + path[len(home) :] if path.startswith(home + os.sep) else path
