"""The desktop's own restart: when the daemon is another version for good, the desktop becomes it, too.

The new desktop is started beside this one, through the launcher, and shows its icon; then it asks this one
for its place, and this one goes. So there is an icon at every moment, and where the new one does not come up
the old one stays: it tries that once for each version.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, QSocketNotifier, QTimer, Signal

from daemon_core.settings import installed
from desktop.daemon.link import Link
from desktop.daemon.supervisor import RUN_VARIABLES
from desktop.models.state import DesktopState, LinkPhase
from desktop.single import SingleInstance
from desktop.words import UPDATE_AWAY

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("ostler.desktop.updates")

PATIENCE_MS: Final = 60_000
"""So long a new desktop has to take its place."""
LOOK_MS: Final = 1_000
"""Only where there is no handle for a process."""
EXIT_SAME: Final = 7
"""The new desktop is the version that this one is: nothing to be done."""
READY_MS: Final = 500
"""A new icon is with the host by then; no system tells."""
AT_LATEST_MS: Final = 5_000
"""A new desktop takes its place even if the daemon does not answer it."""
WISH: Final = "take_over"


def wanted_version(state: DesktopState, own: str) -> str:
    """The version that the desktop should become; empty: it is right as it is, or nothing is decided yet."""
    if state.link is LinkPhase.TOO_NEW:
        return state.status.version if state.status is not None else "newer"
    update, status = state.update, state.status
    if not state.connected or update is None or status is None or update.stage in UPDATE_AWAY:
        return ""
    return status.version if status.version not in ("", own) else ""


class Renewal(QObject):
    """Starts the next version of the desktop when it is time.

    Args:
        own: This desktop's version.
        command: How a desktop is started through the launcher; empty: there is none, and nothing ever
        happens. page: The page that the window shows; empty: no window is open.
    """

    def __init__(
        self,
        link: Link,
        own: str,
        command: Sequence[str],
        page: Callable[[], str],
        parent: QObject | None = None,
        *,
        patience_ms: int = PATIENCE_MS,
    ) -> None:
        super().__init__(parent)
        self._link = link
        self._own = own
        self._command = list(command)
        self._page = page
        self._tried: set[str] = set()
        self._child: subprocess.Popen[bytes] | None = None
        self._handle: QSocketNotifier | None = None
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(patience_ms)
        self._patience.timeout.connect(self._on_too_late)
        self._look = QTimer(self)
        self._look.setInterval(LOOK_MS)
        self._look.timeout.connect(self._on_look)
        link.changed.connect(self._on_changed)

    @property
    def going_on(self) -> bool:
        """Whether a new desktop is coming up."""
        return self._child is not None

    def start(self) -> bool:
        """Start a desktop that takes the place of this one; False: there is no launcher to start it
        through."""
        if not self._command:
            return False
        if self._child is not None:
            return True
        import subprocess

        page = self._page()
        command = [*self._command, f"--take-over={self._own}"]
        command += ["--background"] if not page else [f"--page={page}"]
        env = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                cwd=installed.working_directory(),
                env=env,
                **installed.apart(),
            )
        except OSError as error:
            log.warning("the new desktop cannot be started: %s", error)
            return False
        log.info("a new desktop is starting as process %d", self._child.pid)
        self._watch(self._child.pid)
        self._patience.start()
        return True

    def let_go(self) -> None:
        """This desktop ends; a new one does not end with it."""
        self._patience.stop()
        self._forget_handle()
        self._child = None

    # --- the new one -------------------------------------------------------------------------------

    def _on_changed(self, _before: DesktopState, state: DesktopState) -> None:
        version = wanted_version(state, self._own)
        if version and self._command and version not in self._tried:
            self._tried.add(version)
            self.start()

    def _watch(self, pid: int) -> None:
        if hasattr(os, "pidfd_open"):
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                self._look.start()
                return
            self._handle = QSocketNotifier(fd, QSocketNotifier.Type.Read, self)
            self._handle.activated.connect(self._on_look)
        else:
            self._look.start()

    def _forget_handle(self) -> None:
        self._look.stop()
        if self._handle is not None:
            self._handle.setEnabled(False)
            os.close(int(self._handle.socket()))
            self._handle.deleteLater()
            self._handle = None

    def _on_look(self) -> None:
        """It has ended without taking this one's place."""
        child = self._child
        if child is None or (code := child.poll()) is None:
            return
        self._patience.stop()
        self._forget_handle()
        self._child = None
        if code != EXIT_SAME:
            log.warning("the new desktop ended with exit code %d; this one goes on", code)

    def _on_too_late(self) -> None:
        if self._child is not None and self._child.poll() is None:
            log.warning("the new desktop did not come up; this one goes on")
            self._child.kill()


class TakingOver(QObject):
    """The new one's side: wait until there is an icon, ask for the place, take it.

    Signals:
        taken(): This is the only desktop now.
        refused(): The other one stays: this one has to go.
    """

    taken = Signal()
    refused = Signal()

    def __init__(
        self,
        single: SingleInstance,
        link: Link,
        parent: QObject | None = None,
        *,
        ready_ms: int = READY_MS,
        at_latest_ms: int = AT_LATEST_MS,
    ) -> None:
        super().__init__(parent)
        self._single = single
        self._link = link
        self._ready_ms = ready_ms
        self._moment = QTimer(self)
        self._moment.setSingleShot(True)
        self._moment.timeout.connect(self._on_moment)
        self._moment.start(at_latest_ms)
        single.given.connect(self.taken)
        single.kept.connect(self.refused)
        link.changed.connect(self._on_changed)

    def _on_changed(self, before: DesktopState, state: DesktopState) -> None:
        if state.connected and not before.connected and self._moment.isActive():
            self._link.changed.disconnect(self._on_changed)
            self._moment.start(min(self._ready_ms, self._moment.remainingTime()))

    def _on_moment(self) -> None:
        self._single.ask_for_place(WISH)
