"""One desktop a profile: the second one hands its wish to the first and ends.

The first one listens on a local socket in the daemon's run directory (0700), so only this user reaches it. A
socket that a killed desktop left behind is taken over: the lock beside it says whether somebody is there.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QLockFile, QObject, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket

from daemon_core.settings.directories import Directories

WAIT_MS: Final = 2_000
LIMIT_BYTES: Final = 4096


class SingleInstance(QObject):
    """Signals:
    asked(str): Another start wants this: ``open``, or ``open_task <id>``.
    """

    asked = Signal(str)

    def __init__(self, directories: Directories, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._name = str(directories.checked_socket().with_name("desktop.sock"))
        self._lock = QLockFile(str(directories.state / "desktop.lock"))
        self._lock.setStaleLockTime(0)
        self._server = QLocalServer(self)

    def first(self) -> bool:
        """Whether this is the only one; from then on the others come to it."""
        if not self._lock.tryLock(0):
            return False
        QLocalServer.removeServer(self._name)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._on_connection)
        return self._server.listen(self._name)

    def tell_first(self, wish: str) -> bool:
        """Hand a wish to the one that is there (before any window: this may wait)."""
        socket = QLocalSocket()
        socket.connectToServer(self._name)
        if not socket.waitForConnected(WAIT_MS):
            return False
        socket.write(wish.encode() + b"\n")
        told = socket.waitForBytesWritten(WAIT_MS)
        socket.disconnectFromServer()
        return told

    def close(self) -> None:
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
            self.asked.emit(bytes(socket.readLine().data()).decode("utf-8", "replace").strip())
