"""Keeps a daemon running, and never ends one that is not ours to end.

The daemon is started in a session of its own and goes on when the desktop ends. A daemon that is there
already is adopted: it is watched in the same way and nothing else. Its process is watched by a handle of the
kernel where there is one, and by the link to it everywhere; nothing is polled.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, QSocketNotifier, QTimer, Signal

from daemon_core.control.views import Stop, StopAnswer
from daemon_core.settings import installed, lock
from daemon_core.settings.directories import Directories
from daemon_core.settings.errors import SettingsError
from desktop.daemon.http import Failure
from desktop.daemon.link import Link, now_text
from desktop.daemon.restarts import EXIT_CONFLICT, EXIT_USAGE, Adopt, GiveUp, LeaveIt, Restarts, Wait
from desktop.models.state import DesktopState, LinkPhase, Supervision
from desktop.words import updating

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("ostler.desktop")

ERROR_TAIL_BYTES: Final = 4096
REAP_MS: Final = 1_000
"""Only where there is no handle for a process: how often a child that is starting is looked at."""
STARTS_MS: Final = 30_000
"""A daemon that was started and that nobody can reach after this time does not come up any more."""
LEAVES_MS: Final = 5_000
"""So long a daemon that cannot be reached may take to end, or to be there for the first time."""
RUN_VARIABLES: Final = ("OSTLER_TASK_ID", "OSTLER_RUN_ID", "OSTLER_TOKEN", "OSTLER_MARK")


def daemon_command(profile: str) -> list[str]:
    """How the daemon of a profile is started from here."""
    return [*installed.program("ostlerd"), "--profile", profile]


class Supervisor(QObject):
    """The daemon's process, as far as it concerns the desktop.

    Signals:
        crashed(int): It ended without being asked; how many times lately.
        refused(object): It was to stop for another one and does not: the ``Failure``.
    """

    crashed = Signal(int)
    refused = Signal(object)

    def __init__(
        self,
        link: Link,
        directories: Directories,
        command: Sequence[str] | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._link = link
        self._directories = directories
        self._command = list(command or daemon_command(directories.profile))
        self._restarts = Restarts()
        self._child: subprocess.Popen[bytes] | None = None
        self._watched = 0
        """The process whose end is waited for; 0: none is, or it was told already."""
        self._handle: QSocketNotifier | None = None
        self._unheard = False
        self._wanted_down = False
        self._again = False
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.timeout.connect(self._start)
        self._reap = QTimer(self)
        self._reap.setInterval(REAP_MS)
        self._reap.timeout.connect(self._look_at_child)
        self._stuck = QTimer(self)
        self._stuck.setSingleShot(True)
        self._stuck.timeout.connect(self._on_stuck)
        link.changed.connect(self._on_changed)

    @property
    def owned(self) -> bool:
        """Whether the daemon that runs was started from here. One that was found is not ours."""
        status = self._link.state.status
        return self._child is not None and status is not None and status.pid == self._child.pid

    def start(self) -> None:
        """The user (or the start of the desktop) wants a daemon: start one unless one is there."""
        self._restarts.started_by_user()
        self._wanted_down = False
        if not self._link.state.connected:
            self._start()

    def stop(self, *, runs: bool, done: Callable[[], None], failed: Callable[[Failure], None]) -> None:
        """The user wants it stopped; ``runs``: their tasks with it. ``done``: it has said that it will."""
        self._wanted_down = True
        self._pause.stop()

        def refused(failure: Failure) -> None:
            self._wanted_down = False
            failed(failure)

        self._link.call(
            StopAnswer, "POST", "/v1/daemon/stop", Stop(runs=runs),
            done=lambda _answer: done(), failed=refused,
        )  # fmt: skip

    def restart(self) -> None:
        """Stop it and start this version's; tasks go on. One that hangs is ended: its runs do not need it.

        Only the process that holds this profile's lock is, whoever started it: the user has asked for it.
        """
        if self._link.state.connected or self._link.state.link is LinkPhase.TOO_OLD:
            self._link.call(
                StopAnswer,
                "POST",
                "/v1/daemon/stop",
                Stop(restart=True),
                done=lambda answer: self._start_when_gone(answer.pid),
                failed=self.refused.emit,
            )
            return
        held = lock.holder(self._directories.lock_file) if self._held() else None
        if held:
            self._watch(held)  # before it can be gone
        killed = lock.kill_holder(self._directories.lock_file, self._directories.info_file) if held else None
        child = self._child
        if not killed and child is not None and child.poll() is None:
            self._watch(child.pid)  # it does not even come to take the lock
            child.kill()
            killed = child.pid
        self._start_when_gone(killed or 0)

    def _start_when_gone(self, pid: int) -> None:
        """Start another one once this process has ended; at once where nothing tells of that."""
        if pid:
            self._watch(pid)
        self._again = bool(pid) and self._handle is not None
        if not self._again:
            self._start_after()

    def let_go(self) -> None:
        """The desktop ends; the daemon does not."""
        self._pause.stop()
        self._reap.stop()
        self._stuck.stop()
        self._forget_handle()

    # --- starting ----------------------------------------------------------------------------------

    def _start_after(self) -> None:
        self._restarts.started_by_user()
        self._wanted_down = False
        self._pause.start(0 if self._child is None else 250)

    def _start(self) -> None:
        if self._child is not None and self._child.poll() is None:
            if self._link.state.connected:
                return
            self._pause.start(250)  # the one before is about to end, or is said to be stuck
            if not self._stuck.isActive():
                self._stuck.start(LEAVES_MS)
            return
        self._link.tell(supervision=Supervision.STARTING, next_try_at="", since=now_text())
        try:
            self._directories.ensure()
            self._child = self._spawn()
        except (OSError, SettingsError) as error:
            self._link.tell(supervision=Supervision.FAILED, said=str(error))
            return
        self._watch(self._child.pid)
        self._stuck.start(STARTS_MS)
        if self._handle is None:
            self._reap.start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        import subprocess

        errors = os.open(self._directories.start_error_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        env = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=installed.working_directory(),
                env=env,
                **installed.apart(),
            )
        finally:
            os.close(errors)

    # --- watching ----------------------------------------------------------------------------------

    def _watch(self, pid: int) -> None:
        """Be told when this process ends."""
        if pid == self._watched and self._handle is not None:
            return
        self._forget_handle()
        self._watched = pid
        if not pid or not hasattr(os, "pidfd_open"):
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        self._handle = QSocketNotifier(fd, QSocketNotifier.Type.Read, self)
        self._handle.activated.connect(self._on_gone)

    def _forget_handle(self) -> None:
        self._unheard = False
        if self._handle is not None:
            self._handle.setEnabled(False)
            os.close(int(self._handle.socket()))
            self._handle.deleteLater()
            self._handle = None

    def _on_changed(self, before: DesktopState, state: DesktopState) -> None:
        if state.connected and state.status is not None and state.status.pid:
            if self._unheard and state.status.pid == self._watched:
                return  # its last words
            self._reap.stop()
            self._stuck.stop()
            self._watch(state.status.pid)
            if state.supervision is not Supervision.NONE:
                self._link.tell(supervision=Supervision.NONE)
        elif self._unheard or (before.connected and self._handle is None and state.link is LinkPhase.ABSENT):
            self._ended(None)
        elif state.link is LinkPhase.HUNG and self._handle is None:
            self._watch_holder()
        elif before.connected and state.link is LinkPhase.ABSENT:
            self._stuck.start(LEAVES_MS)  # its process is there: it ends, or its socket is gone

    def _look_at_child(self) -> None:
        if self._child is None or self._child.poll() is not None:
            self._reap.stop()
            self._on_gone()

    def _on_gone(self) -> None:
        code: int | None = None
        if self._child is not None and self._child.pid == self._watched:
            code = self._child.wait()  # it has ended: this does not wait
            self._child = None
        self._forget_handle()
        if code is None and self._link.state.connected:
            # Nobody tells how it ended but itself, and its last words are on their way. The link tells when
            # it has heard them.
            self._unheard = True
            return
        self._ended(code)

    def _watch_holder(self) -> None:
        """A daemon that never answered this desktop: when it is gone, another one is started."""
        if self._held():
            self._watch(lock.holder(self._directories.lock_file) or 0)

    def _held(self) -> bool:
        """Whether a daemon holds the profile's lock; a place that cannot be read holds none."""
        try:
            return lock.held(self._directories.lock_file)
        except OSError as error:
            log.warning("nobody can tell whether a daemon holds its lock: %s", error)
            return False

    def _on_stuck(self) -> None:
        """Nobody reaches it, and its process is there. It is not ended unless the user says so."""
        state = self._link.state
        if state.link not in (LinkPhase.ABSENT, LinkPhase.CONNECTING):
            return  # what is wrong is said
        if state.detail == "not_ready" or updating(state):
            self._stuck.start(STARTS_MS)  # it has much to do before it is ready
            return
        child = self._child
        if self._handle is None and (child is None or child.poll() is not None):
            return
        self._pause.stop()
        self._link.tell(supervision=Supervision.STUCK, since=now_text())

    def _ended(self, code: int | None) -> None:
        """The process is gone, which is told once for each."""
        pid, self._watched, self._unheard = self._watched, 0, False
        if not pid:
            return
        self._stuck.stop()
        self._link.connect_now()
        if self._again:
            self._again = False
            self._start_after()
            return
        if code == EXIT_CONFLICT and not self._held():
            code = EXIT_USAGE  # no other daemon is in its way but something else: its port, say
        wanted = self._wanted_down or self._asked(pid)
        self._wanted_down = False
        decision = self._restarts.ended(code, time.monotonic(), wanted=wanted)
        match decision:
            case Adopt():
                self._link.tell(supervision=Supervision.NONE)
                if not self._link.state.connected:
                    self._watch_holder()
                    self._stuck.start(LEAVES_MS)
            case LeaveIt(failed=True):
                self._link.tell(supervision=Supervision.FAILED, said=self._last_words(), since=now_text())
            case LeaveIt():
                self._link.tell(supervision=Supervision.STOPPED, since=now_text())
            case GiveUp():
                self.crashed.emit(len(self._restarts.crashes))
                self._link.tell(supervision=Supervision.GAVE_UP, said=self._last_words(), since=now_text())
            case Wait(pause_s):
                self.crashed.emit(len(self._restarts.crashes))
                self._link.tell(
                    supervision=Supervision.WAITING,
                    said=self._last_words(),
                    next_try_at=now_text(round(pause_s * 1000)),
                    since=now_text(),
                )
                self._pause.start(round(pause_s * 1000))

    def _asked(self, pid: int) -> bool:
        """Whether this daemon said, before it went, that it was stopping: somebody asked it to."""
        status = self._link.state.status
        return status is not None and status.pid == pid and status.status == "stopping"

    def _last_words(self) -> str:
        for path in (self._directories.start_error_file, self._directories.log_file):
            try:
                with open(path, "rb") as stream:
                    stream.seek(max(0, os.fstat(stream.fileno()).st_size - ERROR_TAIL_BYTES))
                    lines = stream.read().decode("utf-8", "replace").strip().splitlines()
            except OSError:
                continue
            if lines:
                return "\n".join(lines[-6:])
        return ""
