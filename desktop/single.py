"""One desktop a profile: the second one hands its wish to the first and ends.

The first one listens on a local socket in the daemon's run directory (0700), so only this user reaches it. A
socket that a killed desktop left behind is taken over: the lock beside it says whether somebody is there.

A newer version takes the place of the first one while that still runs: it asks, the first one lets go and
ends, and the end of the connection says that it is gone.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

from PySide6.QtCore import QFileSystemWatcher, QLockFile, QObject, QTimer, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket

from daemon_core.control import pipes
from daemon_core.settings.directories import Directories, make_private
from daemon_core.settings.errors import SettingsError

log = logging.getLogger("ostler.desktop")

WAIT_MS: Final = 2_000
TAKEN_MS: Final = 5_000
"""So long a desktop may be busy with something else."""
TAKEN: Final = b"taken\n"
LIMIT_BYTES: Final = 4096
GONE_MS: Final = 1_000
"""A socket that somebody removed is made again after this time: whole directories take a moment to go."""
PLACE_MS: Final = 15_000
"""So long the first one has to go."""


class SingleInstance(QObject):
    """Signals:
    asked(str): Another start wants this: ``open``, ``open_task <id>``, or ``take_over``; after a tab what
        lets this one take the focus for it.
    given(): The place that was asked for is ours.
    kept(): The first one keeps its place.
    """

    asked = Signal(str)
    given = Signal()
    kept = Signal()

    def __init__(self, directories: Directories, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._path = directories.checked_socket().with_name("desktop.sock")
        self._name = pipes.address(self._path)
        self._lock = QLockFile(str(directories.state / "desktop.lock"))
        self._lock.setStaleLockTime(0)
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._on_connection)
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(self._on_directory_changed)
        self._gone = QTimer(self)
        self._gone.setSingleShot(True)
        self._gone.setInterval(GONE_MS)
        self._gone.timeout.connect(self._on_gone)
        self._wish = ""
        self._asking: QLocalSocket | None = None
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PLACE_MS)
        self._patience.timeout.connect(self._on_place)

    def first(self) -> bool:
        """Whether this is the only one; from then on the others come to it."""
        if not self._lock.tryLock(0) and self._lock.error() is QLockFile.LockError.LockFailedError:
            return False
        # A disk that is full or cannot be written takes no lock: there the socket alone tells who was first.
        if not self._lock.isLocked() and self._answers():
            return False
        self._listen()
        return True

    def _listen(self) -> None:
        QLocalServer.removeServer(self._name)
        if not self._server.listen(self._name):
            log.warning("no other start can reach this one: %s", self._server.errorString())
        if sys.platform != "win32" and self._path.parent.is_dir():
            self._watcher.addPath(str(self._path.parent))

    def _on_directory_changed(self, _path: str) -> None:
        if self._server.isListening() and not os.path.exists(self._path):
            self._gone.start()

    def _on_gone(self) -> None:
        """Somebody removed the socket, or the directory that it was in. Where more than that is gone nothing
        is put there again: Ostler is being removed."""
        if os.path.exists(self._path) or not self._path.parent.parent.is_dir():
            return
        self._server.close()
        try:
            make_private(self._path.parent)
        except (OSError, SettingsError) as error:
            log.warning("no other start can reach this one: %s", error)
            return
        self._listen()

    def _answers(self) -> bool:
        socket = QLocalSocket()
        socket.connectToServer(self._name)
        found = socket.waitForConnected(WAIT_MS)
        socket.abort()
        return found

    def tell_first(self, wish: str, token: str = "") -> bool:
        """Hand a wish to the one that is there; whether it has taken it (before any window: this may wait).

        Args:
            token: What lets the one that is there take the focus.
        """
        socket = QLocalSocket()
        socket.connectToServer(self._name)
        if not socket.waitForConnected(WAIT_MS):
            return False
        socket.write(f"{wish}\t{token}\n".encode())
        socket.flush()
        # Written alone says nothing: the kernel takes it for a program that hangs, too.
        taken = socket.waitForReadyRead(TAKEN_MS) and bytes(socket.readAll().data()) == TAKEN
        socket.disconnectFromServer()
        return taken

    def ask_for_place(self, wish: str) -> None:
        """Have the first one go; ``given`` or ``kept`` tells what came of it."""
        self._wish = wish
        self._asking = QLocalSocket(self)
        self._asking.connected.connect(self._on_connected)
        self._asking.disconnected.connect(self._on_place)
        self._asking.errorOccurred.connect(self._on_place)
        self._patience.start()
        self._asking.connectToServer(self._name)

    def _on_connected(self) -> None:
        if self._asking is not None:
            self._asking.write(self._wish.encode() + b"\n")

    def _on_place(self) -> None:
        """The first one has gone, was not there, or takes too long."""
        if self._asking is None:
            return
        self._patience.stop()
        # Closed by its end, later: this may be inside of one of its own signals.
        asking, self._asking = self._asking, None
        asking.disconnected.disconnect(self._on_place)
        asking.errorOccurred.disconnect(self._on_place)
        asking.deleteLater()
        if self.first():
            self.given.emit()
        else:
            self.kept.emit()

    def close(self) -> None:
        self._gone.stop()
        self._server.close()
        self._lock.unlock()

    def _on_connection(self) -> None:
        while (socket := self._server.nextPendingConnection()) is not None:
            socket.readyRead.connect(self._on_ready)
            socket.disconnected.connect(socket.deleteLater)
            if socket.canReadLine():
                self._take(socket)

    def _on_ready(self) -> None:
        socket = self.sender()
        if isinstance(socket, QLocalSocket):
            self._take(socket)

    def _take(self, socket: QLocalSocket) -> None:
        if socket.bytesAvailable() > LIMIT_BYTES:
            socket.abort()
            return
        while socket.canReadLine():
            wish = bytes(socket.readLine().data()).decode("utf-8", "replace").strip("\n")
            socket.write(TAKEN)
            socket.flush()
            self.asked.emit(wish)
