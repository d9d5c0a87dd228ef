"""The loopback port of a profile: chosen once, then kept over restarts, since living runs know it.

Ports 19514 to 20513 are those of a Multica daemon on the same machine and never taken, nor is one out of
the range from which systems hand out short-lived ports (from 32768 on Linux).
"""

from __future__ import annotations

import errno
import hashlib
import socket
import sys
from collections.abc import Iterator
from typing import Final

from daemon_core.settings.atomic import write_private
from daemon_core.settings.directories import DEFAULT_PROFILE, Directories

FOREIGN_PORTS: Final = range(19514, 20514)
_FIRST: Final = 21514
_PROFILES: Final = 1000
_ATTEMPTS: Final = 50


class PortInUseError(Exception):
    """Something else listens on the port. ``fixed`` says why no other was taken: "configured" or "runs"."""

    def __init__(self, port: int, fixed: str) -> None:
        self.port = port
        self.fixed = fixed
        super().__init__(port, fixed)

    def __str__(self) -> str:
        return f"port {self.port} is in use by another program"


def default_port(profile: str) -> int:
    """Where a profile looks first."""
    if profile == DEFAULT_PROFILE:
        return _FIRST
    return _FIRST + 1 + int.from_bytes(hashlib.sha256(profile.encode()).digest()[:4], "big") % _PROFILES


def stored_port(directories: Directories) -> int | None:
    """The port of the last start, or None where there was none or the file is damaged."""
    try:
        port = int(directories.port_file.read_bytes()[:16])
    except (OSError, ValueError):
        return None
    return port if 1024 <= port <= 65535 and port not in FOREIGN_PORTS else None


def open_loopback(directories: Directories, configured: int = 0, *, may_move: bool = True) -> socket.socket:
    """A bound, listening socket on 127.0.0.1; its port is stored as the profile's.

    Args:
        configured: The user's own port; 0 leaves the choice to Ostler.
        may_move: Whether another port may be taken when the stored one is in use. Not while runs are alive.

    Raises:
        PortInUseError: The one port that may be used is taken.
        OSError: No socket can be had at all, or the port cannot be stored.
    """
    stored = stored_port(directories)
    if configured:
        listener = _bind(configured)
        if listener is None:
            raise PortInUseError(configured, "configured")
    elif stored is not None and not may_move:
        listener = _bind(stored)
        if listener is None:
            raise PortInUseError(stored, "runs")
    else:
        listener = None
        for port in _candidates(directories.profile, stored):
            listener = _bind(port)
            if listener is not None:
                break
        if listener is None:
            raise PortInUseError(default_port(directories.profile), "configured")
    port = listener.getsockname()[1]
    if port != stored:
        try:
            write_private(directories.port_file, f"{port}\n".encode())
        except BaseException:
            listener.close()
            raise
    return listener


def _candidates(profile: str, stored: int | None) -> Iterator[int]:
    if stored is not None:
        yield stored
    first = default_port(profile)
    for offset in range(_ATTEMPTS):
        yield first + offset


def _bind(port: int) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Lets a restarted daemon have its port back at once; a listener still keeps others out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return listener
