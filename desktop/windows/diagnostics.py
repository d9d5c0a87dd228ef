"""The part of "Health" that gathers one file for whoever helps: what is in it, how far it is, where it went.

``ostler diagnostics`` does the work in a process of its own, so that it works with the daemon down and
nothing here waits.
"""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec
from PySide6.QtCore import QDateTime, QProcess, QStandardPaths, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.settings import installed
from desktop.text import _, mark
from desktop.theme import tokens
from desktop.windows.bits import label, quiet_button, tint
from desktop.windows.context import Context

PARTS: Final = {
    "versions.json": mark("Versions of Ostler, Python and the libraries"),
    "system.json": mark("The operating system, the desktop, memory and disks"),
    "doctor.json": mark("What the checks of Ostler find"),
    "status.json": mark("What the daemon says of itself, or why it says nothing"),
    "settings.json": mark("Your settings, values of secrets and environments removed"),
    "timeline.txt": mark("Starts, ends, crashes and updates"),
    "records.json": mark("How many tasks, runs and reports there are; nothing they say"),
    "updates.json": mark("What the updater did last"),
    "files.txt": mark("Names and sizes of Ostler's own files"),
    "daemon.log": mark("The end of the daemon's log"),
    "start-error.log": mark("What a daemon said that could not start"),
    "desktop.log": mark("The end of the desktop's log"),
}
"""What the command gathers, in the user's language; a part that is not known here is shown by its name."""


class DiagnosticsSection(QWidget):
    """The part."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._process: QProcess | None = None
        self._saved = ""
        self._read = b""
        heading = label(_("Diagnostics"), size=tokens.TITLE, strong=True)
        self._about = label(
            _(
                "One file for whoever helps you: versions, checks, settings, logs and counts. No prompts,"
                " transcripts or secrets are in it, and nothing is sent anywhere."
            ),
            wrap=True,
        )
        self.contents = label(wrap=True)
        self.contents.hide()
        self.told = label(wrap=True)
        self.told.hide()
        self.preview = quiet_button(_("See what is in it"), self.look)
        self.save = quiet_button(_("Save the file…"), self.choose)
        self.folder = quiet_button(_("Open its directory"), self._open)
        self.folder.hide()
        row = QHBoxLayout()
        row.setSpacing(tokens.GRID)
        for button in (self.save, self.preview, self.folder):
            row.addWidget(button)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(tokens.GRID)
        for part in (heading, self._about, self.contents, self.told):
            column.addWidget(part)
        column.addLayout(row)
        self.recolour()

    def recolour(self) -> None:
        """The look is another one."""
        for part in (self._about, self.contents, self.told):
            tint(part, self._context.colours.muted)

    def look(self) -> None:
        """Say what would be in it."""
        if self.contents.isVisible():
            self.contents.hide()
            self.preview.setText(_("See what is in it"))
            return
        self._run(["--preview"], "")

    def choose(self) -> None:
        """Ask where it goes."""
        place = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DownloadLocation)
        stamp = QDateTime.currentDateTime().toString("yyyyMMdd-HHmm")
        dialog = QFileDialog(self, _("Where should the file go?"), place)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("zip")
        dialog.selectFile(f"ostler-diagnostics-{stamp}.zip")
        dialog.fileSelected.connect(self.gather)
        dialog.open()

    def gather(self, path: str) -> None:
        """Write it there."""
        self._run(["--output", path, "--progress"], path)

    def _run(self, wanted: list[str], path: str) -> None:
        if self._process is not None:
            return
        program, *rest = installed.program("ostler")
        profile = self._context.link.directories.profile
        self._process = process = QProcess(self)
        self._saved = path
        self._read = b""
        process.setWorkingDirectory(str(installed.working_directory()))
        process.readyReadStandardError.connect(self._on_progress)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._enable(False)
        self.folder.hide()
        self._tell(_("Gathering…"))
        process.start(program, [*rest, "diagnostics", "--json", "--profile", profile, *wanted])

    def _on_progress(self) -> None:
        if self._process is None:
            return
        *lines, self._read = (self._read + bytes(self._process.readAllStandardError().data())).split(b"\n")
        for line in lines:
            number, _slash, rest = line.decode("utf-8", "replace").partition("/")
            total, _space, _name = rest.partition(" ")
            if number.isdigit() and total.isdigit():
                self._tell(_("Gathering part {number} of {total}…", number=number, total=total))

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error is QProcess.ProcessError.FailedToStart and self._process is not None:
            why = self._process.errorString()
            self._end()
            self._tell(_("It could not be gathered: {why}", why=why), failed=True)

    def _on_finished(self) -> None:
        if self._process is None:
            return
        raw = bytes(self._process.readAllStandardOutput().data())
        self._end()
        try:
            answer: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        except ValueError:
            answer = {"error": {"message": _("the command said nothing that makes sense")}}
        if "error" in answer:
            why = str(answer["error"].get("message", ""))
            self._tell(_("It could not be gathered: {why}", why=why), failed=True)
            return
        self._show_contents(answer["parts"])
        if self._saved:
            self._tell(_("Saved as {path}. Look through it before you hand it on.", path=self._saved))
            self.folder.show()
        else:
            self.told.hide()

    def _show_contents(self, parts: list[dict[str, Any]]) -> None:
        locale = self.locale()
        lines = []
        for part in parts:
            known = PARTS.get(part["name"])
            what = _(known) if known is not None else str(part["name"])
            lines.append(f"• {what} ({locale.formattedDataSize(int(part['bytes']), 0)})")
        self.contents.setText("\n".join(lines))
        self.contents.show()
        self.preview.setText(_("Hide what is in it"))

    def _tell(self, sentence: str, *, failed: bool = False) -> None:
        tint(self.told, self._context.colours.failed if failed else self._context.colours.muted)
        self.told.setText(sentence)
        self.told.show()

    def _enable(self, on: bool) -> None:
        self.save.setEnabled(on)
        self.preview.setEnabled(on)

    def _end(self) -> None:
        if self._process is not None:
            self._process.deleteLater()
            self._process = None
        self._enable(True)

    def _open(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(os.path.dirname(self._saved)))
