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
import time

from daemon_core.updates import pointer as deciding
from daemon_core.updates.files import is_free
from daemon_core.updates.pointer import Pointer, Trial
from daemon_core.updates.versions import Installation, Store, app_directory, lock_file

LOOK_S = 0.25
"""How often the pointer is looked at, for the minute or so of a trial."""
KILL_LIMIT_S = 5.0
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

    def is_alive(self) -> bool:
        return started_at(self.pid) == self.started

    def wait(self, limit_s: float) -> bool:
        """Wait for its end; whether it has ended."""
        if not self.is_alive():
            return True
        if self._handle >= 0:
            import select

            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            return bool(poll.poll(limit_s * 1000))
        time.sleep(limit_s)
        return not self.is_alive()

    def kill(self) -> bool:
        """End it at once; whether it has ended."""
        if not self.is_alive():
            return True
        try:
            if self._handle >= 0 and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
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
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "?"


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
    ) -> None:
        self.store = store
        self.process = process
        self.trial_id = trial_id
        self.start = start
        self.version = version
        self.daemon_lock = daemon_lock

    def watch(self) -> bool:
        """Until it is decided; whether a daemon may have to be started."""
        began = time.monotonic()
        healthy_at: float | None = None
        while (trial := self.trial()) is not None and not trial.stopped:
            if trial.healthy and healthy_at is None:
                healthy_at = time.monotonic()
            if healthy_at is None:
                late = time.monotonic() - began > trial.healthy_s
            else:
                late = time.monotonic() - healthy_at > trial.settle_s + trial.slack_s
            ended = self.process.wait(0.0 if late else LOOK_S)
            if not ended and not late:
                continue
            if ended:
                detail = "it ended after it had come up" if healthy_at else "it ended before it had come up"
                decided = self._decide(deciding.CRASHED, detail)
            else:
                detail = "it came up and then did not go on" if healthy_at else "it did not come up in time"
                decided = self._decide(deciding.HUNG, detail)
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

    def trial(self) -> Trial | None:
        found = self.store.stored()
        trial = found.trial if found is not None else None
        ours = trial is not None and (trial.id, trial.start) == (self.trial_id, self.start)
        return trial if ours else None

    def _decide(self, reason: str, detail: str) -> bool | None:
        """Go back; whether a daemon may have to be started. None: it has been decided otherwise."""
        deadline = time.monotonic() + self.write_limit_s
        while True:
            try:
                with self.store.locked():
                    trial = self.trial()
                    if trial is None or trial.stopped:
                        return None
                    if self.process.wait(0.0) and not is_free(self.daemon_lock):
                        return False  # another start of this trial runs; it has a guard of its own
                    self.process.kill()
                    found = self.store.stored() or Pointer()
                    self.store.write_locked(deciding.reverted(found, reason, detail))
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
        bad = found.bad.get(self.version)
        if found.trial is not None or bad is None or bad.reason != deciding.UNHEALTHY:
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
    daemon_lock = lock_file(environ, profile_of(rest, environ))
    process = Process(int(pid), began)
    guard = Guard(store, process, daemon_lock, trial_id=trial_id, start=start, version=version)
    trial = guard.trial()
    if not guard.watch() or not guard.revive(trial.revive_s if trial is not None else Trial("", "").revive_s):
        return 0
    return launch("ostlerd", rest, environ)
