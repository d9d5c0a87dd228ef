"""Looks whether a directory has changes that are not committed: git is asked, and nothing waits."""

from __future__ import annotations

import shutil
from typing import Final

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

LIMIT_MS: Final = 5_000
MOST_BYTES: Final = 1024 * 1024


class FolderLook(QObject):
    """Looks at one directory at a time.

    Signals:
        known(str, int): The directory, and how many files in it have changes; -1: it is no work tree, or git
            did not say in time.
    """

    known = Signal(str, int)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None
        self._directory = ""
        self._limit = QTimer(self)
        self._limit.setSingleShot(True)
        self._limit.setInterval(LIMIT_MS)
        self._limit.timeout.connect(self.stop)

    def look(self, directory: str) -> None:
        """Look at this one; an earlier look is given up."""
        self.stop()
        git = shutil.which("git")
        if git is None:
            self.known.emit(directory, -1)
            return
        self._directory = directory
        process = self._process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("GIT_OPTIONAL_LOCKS", "0")
        environment.insert("LC_ALL", "C")
        process.setProcessEnvironment(environment)
        process.setStandardErrorFile(QProcess.nullDevice())
        process.finished.connect(lambda code, _status: self._on_finished(process, code))
        process.errorOccurred.connect(lambda _error: self._on_finished(process, -1))
        self._limit.start()
        # A repository may name programs to be run for this; that is nothing to do for a glance.
        process.start(
            git,
            ["-c", "core.fsmonitor=false", "-C", directory, "status", "--porcelain", "-z", "--no-renames",
             "--ignore-submodules=all", "--untracked-files=normal"],
        )  # fmt: skip

    def stop(self) -> None:
        """Want no answer any more."""
        self._limit.stop()
        process, self._process = self._process, None
        if process is not None:
            if process.state() is QProcess.ProcessState.NotRunning:
                process.deleteLater()
            else:
                process.kill()

    def _on_finished(self, process: QProcess, code: int) -> None:
        ours = process is self._process
        if ours:
            self._process = None
            self._limit.stop()
        output = bytes(process.readAllStandardOutput().data()) if code == 0 else b""
        process.deleteLater()
        if ours:
            count = sum(1 for entry in output[:MOST_BYTES].split(b"\0") if entry)
            self.known.emit(self._directory, count if code == 0 else -1)
