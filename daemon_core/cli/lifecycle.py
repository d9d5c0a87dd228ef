"""Starting and stopping the daemon from outside: spawn and watch, ask and wait.

Whether a daemon is there is the lock's word alone (``settings.lock``); whether it is ready, its own
(``/v1/status``).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from daemon_core.cli.words import EXIT_CONFLICT, EXIT_FAILED, EXIT_USAGE, CliError
from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.views import Condition, DaemonStatus, Stop, StopAnswer
from daemon_core.settings import installed, lock

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from daemon_core.cli.session import Session
    from daemon_core.settings.directories import Directories

START_LIMIT_S: Final = 45.0
STOP_LIMIT_S: Final = 45.0
_LOOK_S: Final = 0.03
_ERROR_TAIL_BYTES: Final = 4096
_LEAST_ROOM_BYTES: Final = 64 * 1024
# What a run has in its environment; a daemon that is started from inside one must not pass it on.
_RUN_VARIABLES: Final = (
    "OSTLER_TASK_ID",
    "OSTLER_RUN_ID",
    "OSTLER_WORKSPACE_ID",
    "OSTLER_AGENT_ID",
    "OSTLER_AGENT_NAME",
    "OSTLER_TASK_SLOT",
    "OSTLER_SERVER_URL",
    "OSTLER_TOKEN",
    "OSTLER_CONTROL_URL",
    "OSTLER_MARK",
)


def command(directories: Directories, *options: str) -> list[str]:
    """How the daemon of this profile is called."""
    return [*installed.program("ostlerd"), "--profile", directories.profile, *options]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _RUN_VARIABLES}


def status(session: Session) -> DaemonStatus:
    """What the daemon says, or what can be said about one that says nothing."""
    try:
        return session.call(DaemonStatus, "GET", "/v1/status")
    except DaemonUnreachableError as error:
        directories = session.directories
        if error.why == "foreign" or not lock.held(directories.lock_file):
            if error.why == "foreign":
                raise
            return DaemonStatus(status="stopped", profile=directories.profile)
        info = lock.read_info(directories.info_file)
        # Somebody holds the lock and does not answer: starting, or hanging.
        return DaemonStatus(
            status="starting",
            pid=lock.holder(directories.lock_file),
            version=info.version if info is not None else "",
            started_at=info.started_at if info is not None else "",
            profile=directories.profile,
            conditions=[Condition(code="daemon_not_answering", action="force_stop")],
        )


def start(session: Session, limit_s: float = START_LIMIT_S) -> tuple[DaemonStatus, bool]:
    """Start the daemon and wait until it says that it runs.

    Returns:
        Its status, and whether it was running already.

    Raises:
        CliError: It ended at once, with what it said; or it is not ready in time.
        SettingsError: It would not start with these settings.
    """
    from daemon_core.settings.file import load

    directories = session.directories
    directories.ensure()
    # What only another version knows is left out by the daemon, which says so.
    load(directories.config_file, os.environ, unknown=lambda mistake: True)
    deadline = time.monotonic() + limit_s
    was_running = lock.held(directories.lock_file)
    child = None if was_running else _spawn(directories)
    while True:
        found = _ready(session)
        if found is not None and found.status == "running":
            return found, was_running
        code = child.poll() if child is not None else None
        if code is not None:
            if code == EXIT_CONFLICT and lock.held(directories.lock_file):
                child, was_running = None, True  # somebody else was faster: theirs is as good
                continue
            raise _failed(directories, code)
        if was_running and found is None and not lock.held(directories.lock_file):
            child, was_running = _spawn(directories), False  # it was about to stop
            continue
        if time.monotonic() >= deadline:
            if was_running:
                pid = lock.holder(directories.lock_file)
                raise CliError(
                    "start_timeout",
                    f"The daemon (pid {pid or 'unknown'}) runs already"
                    f" and is not ready after {limit_s:.0f} s",
                    "If it hangs, `ostler daemon stop --force` ends it; runs go on without it",
                    EXIT_FAILED,
                )
            raise CliError(
                "start_timeout",
                f"The daemon was started and is not ready after {limit_s:.0f} s",
                "See `ostler daemon status` and `ostler daemon logs -n 50`",
                EXIT_FAILED,
            )
        time.sleep(_LOOK_S)


def _spawn(directories: Directories) -> subprocess.Popen[bytes]:
    import subprocess

    errors = os.open(directories.start_error_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(
            command(directories),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=installed.working_directory(),
            env=environment(),
            **installed.apart(),
        )
    finally:
        os.close(errors)


def _ready(session: Session) -> DaemonStatus | None:
    try:
        return session.client.call(DaemonStatus, "GET", "/v1/status", timeout_s=2.0)
    except DaemonUnreachableError as error:
        if error.why == "foreign":
            raise
        return None


def _failed(directories: Directories, code: int) -> CliError:
    try:
        raw = directories.start_error_file.read_bytes()[-_ERROR_TAIL_BYTES:]
    except OSError:
        raw = b""
    said = [line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]
    how = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
    if not said and _is_full(directories.state):
        message = f"The daemon did not start: the disk of {directories.state} is full"
        return CliError("start_failed", message, "Make some room, then start it again", EXIT_FAILED)
    message = f"The daemon did not start: {said[-1]}" if said else f"The daemon did not start: it {how}"
    exit_code = code if code in (EXIT_USAGE, EXIT_CONFLICT) else EXIT_FAILED
    return CliError("start_failed", message, f"All it said is in {directories.start_error_file}", exit_code)


def _is_full(directory: Path) -> bool:
    """Whether there was no room even for saying so."""
    import shutil

    try:
        return shutil.disk_usage(directory).free < _LEAST_ROOM_BYTES
    except OSError:
        return False


def stop(
    session: Session, *, runs: bool, force: bool, restart: bool = False, limit_s: float = STOP_LIMIT_S
) -> StopAnswer | None:
    """Ask the daemon to stop and wait until its lock is free.

    Returns:
        What goes on without it; None where no daemon was running.

    Raises:
        CliError: It does not stop; the hint says what can be done.
    """
    lock_file = session.directories.lock_file
    deadline = time.monotonic() + limit_s
    while True:
        try:
            answer = session.client.call(
                StopAnswer, "POST", "/v1/daemon/stop", Stop(runs=runs, restart=restart)
            )
            break
        except DaemonUnreachableError as error:
            if error.why == "foreign":
                raise
            if not lock.held(lock_file):
                return None
            if force:
                return _kill(session)
            if error.why == "timeout" or time.monotonic() >= deadline:
                raise _hangs(session) from error
            time.sleep(_LOOK_S)  # it has its lock and not yet, or no longer, its socket
    while lock.held(lock_file):
        if time.monotonic() >= deadline:
            if force:
                return _kill(session)
            raise _hangs(session)
        time.sleep(_LOOK_S)
    return answer


def _hangs(session: Session) -> CliError:
    pid = lock.holder(session.directories.lock_file)
    return CliError(
        "daemon_hangs",
        f"Ostler's daemon (pid {pid or 'unknown'}) does not stop",
        "Wait and try again, or `ostler daemon stop --force` ends it at once; runs go on without it",
        EXIT_FAILED,
    )


def _kill(session: Session) -> StopAnswer:
    directories = session.directories
    pid = lock.kill_holder(directories.lock_file, directories.info_file)
    deadline = time.monotonic() + 10.0
    while lock.held(directories.lock_file):
        if pid is None or time.monotonic() >= deadline:
            raise CliError(
                "daemon_hangs",
                "The daemon cannot be ended: the process that holds its lock is not known for sure",
                f"Find it with `fuser {directories.lock_file}`",
                EXIT_FAILED,
            )
        time.sleep(_LOOK_S)
    return StopAnswer(pid=pid or 0)
