"""The guard: stays behind when a version on trial is started, until it has turned out well or has not.

It waits for one of four things: the commit, or that somebody else has decided (it ends quietly); an orderly
stop (the same); the end of the process; the end of the time to become healthy, or to commit. After the last
two it goes back to the version before: it ends the process, which costs no run, and writes down why, both
with the lock on the installation, so that whoever starts the daemon meanwhile waits for the outcome. When
nobody does, it becomes the launcher itself, as the daemon.

Its own death is no loss: starts are counted, and the next one decides. At the end of a session or of the
machine it is told to go (SIGTERM) like everybody else, and goes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.files import is_free
from daemon_core.updates.pointer import Pointer, Trial
from daemon_core.updates.versions import Installation, Store, app_directory, lock_file

_SYNCHRONIZE = 0x100000
_NO_SUCH_PROCESS = 87
LOOK_S = 0.25
"""How often the pointer is looked at, for the minute or so of a trial."""
LONGEST_LOOK_S = 1.0
"""A look that took longer counts for so much: the machine slept, or had no time for us either."""
MISSED_BEATS = 8
"""A version that has not shown for so many times in a row that it lives does not."""
SYSTEMD_REVIVE_S = 10.0
"""How long is waited for systemd to start its service again: a daemon that it did not start would not be the
service's."""
KILL_LIMIT_S = 5.0
LET_GO_S = 2.0
LEAVE_S = 15.0
"""How long a process whose trial is over may take to go."""
WRITE_LIMIT_S = 10.0
"""How long a disk that takes nothing is tried again."""


class Process:
    """A process by its pid and its start, so that no other one is ever meant. Not a child of ours."""

    def __init__(self, pid: int, started: str) -> None:
        self.pid = pid
        self.started = started
        self._handle = -1
        if hasattr(os, "pidfd_open"):
            try:
                self._handle = os.pidfd_open(pid)
            except OSError:
                pass  # gone, or an old kernel: looked at by its start instead
        self._gone = started_at(pid) != started  # the handle is of another one, or of none

    def is_alive(self) -> bool:
        """Whether anything of it is left: while one of its threads is, its files are still open."""
        if self._gone:
            return False
        return not self._poll(0.0) if self._handle >= 0 else started_at(self.pid) == self.started

    def wait(self, limit_s: float) -> bool:
        """Wait for its end; whether it has ended."""
        if not self.is_alive():
            return True
        if self._handle >= 0:
            return self._poll(limit_s)
        time.sleep(limit_s)
        return not self.is_alive()

    def _poll(self, limit_s: float) -> bool:
        import select

        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))

    def kill(self) -> bool:
        """End it at once; whether it has ended."""
        if not self.is_alive():
            return True
        try:
            if self._handle >= 0 and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        deadline = time.monotonic() + KILL_LIMIT_S
        while time.monotonic() < deadline:
            if self.wait(LOOK_S):
                return True
        return False


def started_at(pid: int) -> str:
    """What tells a process from another one that gets its pid later; empty if there is none (or it is a
    zombie). Where the system does not say, the pid has to do."""
    if os.path.exists("/proc/self/stat"):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name, in parentheses, may itself contain spaces and parentheses.
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    if sys.platform == "win32":  # where signal 0 is Ctrl+C
        import _winapi

        try:
            handle = _winapi.OpenProcess(_SYNCHRONIZE, False, pid)
        except OSError as error:
            return "" if error.winerror == _NO_SUCH_PROCESS else "?"
        try:
            return "" if _winapi.WaitForSingleObject(handle, 0) == _winapi.WAIT_OBJECT_0 else "?"
        finally:
            _winapi.CloseHandle(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "?"


class _Patience:
    """How long things have taken, and when that is too long."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._now_s = 0.0
        self.healthy_at_s: float | None = None
        self._beat = 0
        self._beat_at_s = 0.0

    def over(self, trial: Trial, beat: int) -> str:
        """What has not come in time; empty: nothing yet."""
        at = time.monotonic()
        self._now_s += min(at - self._looked_at, LONGEST_LOOK_S)
        self._looked_at = at
        if trial.healthy and self.healthy_at_s is None:
            self.healthy_at_s = self._now_s
        if beat != self._beat or not trial.healthy:
            self._beat, self._beat_at_s = beat, self._now_s
        if self.healthy_at_s is None:
            return "it did not come up in time" if self._now_s > trial.healthy_s else ""
        if trial.beat_s and self._now_s - self._beat_at_s > trial.beat_s * MISSED_BEATS:
            return "it came up and then hung"
        late = self._now_s - self.healthy_at_s > trial.settle_s + trial.slack_s
        return "it came up and then did not go on" if late else ""


class Guard:
    """One start of a trial, looked after."""

    write_limit_s = WRITE_LIMIT_S

    def __init__(
        self,
        store: Store,
        process: Process,
        daemon_lock: str,
        *,
        trial_id: str,
        start: str,
        version: str,
        profile: str = "default",
    ) -> None:
        self.store = store
        self.process = process
        self.trial_id = trial_id
        self.start = start
        self.version = version
        self.profile = profile
        self.daemon_lock = daemon_lock

    def watch(self) -> bool:
        """Until it is decided; whether a daemon may have to be started."""
        patience = _Patience()
        while (trial := self.trial()) is not None:
            late = patience.over(trial, self.store.beaten_at())
            ended = self.process.wait(0.0 if late else LOOK_S)
            if ended:
                when = "before it had come up" if patience.healthy_at_s is None else "after it had come up"
                decided = self._decide(deciding.CRASHED, f"it ended {when}")
            elif late:
                decided = self._decide(deciding.HUNG, late)
            else:
                continue
            if decided is not None:
                return decided
        return self._over()

    def revive(self, revive_s: float) -> bool:
        """Wait for somebody to start a daemon; whether nobody did."""
        deadline = time.monotonic() + revive_s
        while is_free(self.daemon_lock):
            if time.monotonic() >= deadline:
                return True
            time.sleep(LOOK_S / 2)
        return False

    def _let_go(self) -> None:
        """A program that the daemon was just about to start has its lock for a moment longer."""
        deadline = time.monotonic() + LET_GO_S
        while not is_free(self.daemon_lock) and time.monotonic() < deadline:
            time.sleep(0.02)

    def trial(self) -> Trial | None:
        """The trial, for as long as it is about our process. Of two starts at once one stays, and the mark
        may be that of the other one: a guard whose process lives goes on."""
        trial = profiles.find(self.store.stored(), self.trial_id)
        if trial is None or trial.stopped:
            return None
        return trial if trial.start == self.start or self.process.is_alive() else None

    def _decide(self, reason: str, detail: str) -> bool | None:
        """Go back; whether a daemon may have to be started. None: it has been decided otherwise."""
        deadline = time.monotonic() + self.write_limit_s
        while True:
            try:
                if not self.process.is_alive():
                    self._let_go()
                with self.store.locked():
                    if self.trial() is None:
                        return None
                    if not self.process.is_alive() and not is_free(self.daemon_lock):
                        return False  # another start of this trial runs; it has a guard of its own
                    self.process.kill()
                    reverted = profiles.taken(
                        self.store.stored() or Pointer(),
                        self.trial_id,
                        lambda pointer: deciding.reverted(pointer, reason, detail),
                    )
                    if reverted is not None:
                        self.store.write_locked(reverted)
                    return True
            except OSError:
                # A full disk, or somebody hangs with the lock. A start that cannot be counted runs the
                # version before in any case.
                if time.monotonic() >= deadline:
                    self.process.kill()
                    return True
            time.sleep(LOOK_S)

    def _over(self) -> bool:
        """It was decided elsewhere: by a commit, by the version itself, by the launcher, by a stop."""
        found = self.store.stored() or Pointer()
        bad = profiles.bad(found, self.profile).get(self.version)
        goes_on = profiles.find(found, self.trial_id) is not None or (
            found.trial is not None and found.trial.profile == self.profile
        )
        if goes_on or bad is None or bad.reason != deciding.UNHEALTHY:
            return False
        # It found itself not to be well, and is about to end.
        if not self.process.wait(LEAVE_S):
            self.process.kill()
        return True


def main(arguments: list[str], environ: dict[str, str]) -> int:
    """``--guard PID BEGAN TRIAL START VERSION -- ARGUMENT...``, the last ones being the daemon's."""
    from daemon_core.updates.launcher import launch, profile_of

    if len(arguments) < 6 or arguments[5] != "--" or not arguments[0].isdigit():
        return 2
    pid, began, trial_id, start, version = arguments[:5]
    rest = arguments[6:]
    installation = Installation.of(environ)
    store = Store(app_directory(environ), installation.seed_dir() if installation is not None else "")
    profile = profile_of(rest, environ)
    daemon_lock = lock_file(environ, profile)
    process = Process(int(pid), began)
    guard = Guard(
        store, process, daemon_lock, trial_id=trial_id, start=start, version=version, profile=profile
    )
    limit_s = revive_limit_s(guard.trial(), int(pid), environ)
    if not guard.watch() or not guard.revive(limit_s):
        return 0
    return launch("ostlerd", rest, environ)


def revive_limit_s(trial: Trial | None, pid: int, environ: Mapping[str, str]) -> float:
    """How long the daemon ``pid`` may be missed before it is started from here."""
    limit_s = (trial or Trial("", "")).revive_s
    of_systemd = environ.get("SYSTEMD_EXEC_PID") == str(pid)
    return max(limit_s, SYSTEMD_REVIVE_S) if of_systemd else limit_s
