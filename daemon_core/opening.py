"""What a daemon opens before anything else can begin: control socket, databases, loopback port.

What cannot be had is said in a sentence with what to do about it, and the daemon does not start.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon_core.control.facade import Facade
from daemon_core.control.server import ControlServer
from daemon_core.hub import Hub, HubChange
from daemon_core.hub.errors import StorageError
from daemon_core.journal import Journal, JournalError
from daemon_core.processes.state import RunPhase, read_state
from daemon_core.settings import lock as locking
from daemon_core.settings.directories import Directories
from daemon_core.settings.ports import PortInUseError, open_loopback
from daemon_core.settings.sections import Settings
from daemon_core.tasks import clock

log = logging.getLogger("ostler")

EXIT_FAILED: Final = 1
EXIT_CONFLICT: Final = 6
CHECK_DISK: Final = "Check the disk and its permissions, then start again"


class StartError(Exception):
    """The daemon cannot start. ``exit_code`` as the command line documents it."""

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(f"{message}. {hint}." if hint else f"{message}.")
        self.exit_code = exit_code


async def open_control(facade: Facade, directories: Directories) -> ControlServer:
    """The control API, answering. Raises ``StartError``."""
    control = ControlServer(facade, directories.checked_socket())
    try:
        await control.start()
    except OSError as error:
        what = f"the control socket {control.socket_path} cannot be made: {error.strerror or error}"
        raise StartError(what, CHECK_DISK) from error
    return control


async def open_stores(
    directories: Directories, settings: Settings, daemon_id: str, on_change: Callable[[HubChange], None]
) -> tuple[Journal, Hub | None]:
    """Journal and hub, side by side; None: no hub is wanted. Raises ``StartError``."""

    async def open_hub() -> Hub | None:
        if not settings.hub.enabled:
            return None
        return await Hub.open(
            directories.hub_file,
            daemon_id=daemon_id,
            retention=dt.timedelta(days=settings.retention.days),
            on_change=on_change,
        )

    try:
        journal, hub = await asyncio.gather(Journal.open(directories.journal_file), open_hub())
    except JournalError as error:
        raise StartError(str(error), CHECK_DISK) from error
    except StorageError as error:
        place, detail = error.params.get("path"), error.params.get("detail")
        raise StartError(f"the hub's database {place} cannot be opened: {detail}", CHECK_DISK) from error
    return journal, hub


async def listen(directories: Directories, configured: int, facade: Facade) -> socket.socket:
    """The loopback port: the profile's, which runs of before the start know. Raises ``StartError``.

    Args:
        configured: The port that the settings want; 0: any.
    """
    alive = await asyncio.to_thread(_any_run_alive, directories.runs)
    try:
        return await asyncio.to_thread(open_loopback, directories, configured, may_move=not alive)
    except PortInUseError as error:
        if error.fixed == "configured":
            hint = "End that program, or set another port with `ostler config set daemon.port`"
            raise StartError(
                f"port {error.port} is in use by another program", hint, EXIT_CONFLICT
            ) from error
        # Runs know the old port: they go on, but what they ask of Ostler will not reach it.
        log.error("port %s is in use by another program; running tasks cannot reach Ostler", error.port)
        facade.set_condition("port_in_use", port=error.port)
        return await asyncio.to_thread(open_loopback, directories, 0, may_move=True)


def write_info(directories: Directories, version: str, port: int) -> None:
    """Say in the profile's state who this daemon is and where."""
    locking.write_info(
        directories.info_file,
        locking.DaemonInfo(
            pid=os.getpid(),
            started_at=clock.now_text(),
            version=version,
            port=port,
            socket=str(directories.control_socket),
            process_started=locking.process_started(os.getpid()),
        ),
    )


def _any_run_alive(runs: Path) -> bool:
    try:
        names = [entry.path for entry in os.scandir(runs) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return False
    return any(_may_be_alive(Path(name)) for name in names)


def _may_be_alive(run_dir: Path) -> bool:
    try:
        return read_state(run_dir).phase is RunPhase.ALIVE
    except OSError as error:
        log.error("run %s cannot be read: %s", run_dir.name, error)
        return True  # it is not known: one run must not keep the daemon from starting
