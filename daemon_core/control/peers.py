"""Who is at the other end (promise P9), and whether it is a run of ours.

Three questions, each a pure look at what the kernel tells:

- *Which user?* On the control socket from the socket's own peer credentials (on Windows from the pipe's
client, see ``pipes_windows``); on the loopback port from the kernel's table
  of connections (Linux), where every connection has the user that made it.
- *A web page?* A foreign ``Host`` (a name rebound to 127.0.0.1) and anything that only a browser sends.
- *A run?* An agent must not stop, pause or re-configure its own keeper. The process asking, or one of its
ancestors, has
  the mark of a run in its environment. This fences off accidents and obedient agents; a process that wants
  to can lose its ancestors, and without a sandbox nothing here can hold it (documentation of the permission
  policy says so).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

MARK: Final = "OSTLER_MARK"
_MARK_PREFIX: Final = b"OSTLER_MARK="
_PLATFORM: Final[str] = sys.platform
_ANCESTORS: Final = 64
_ENVIRON_LIMIT_BYTES: Final = 4 * 1024 * 1024

OWN_USER: Final = 0
ANOTHER_USER: Final = 1
"""Users have no numbers on Windows. These two are what a peer's is there."""

Foreign = Literal["host", "origin"]


class Peer(NamedTuple):
    pid: int
    uid: int


def own_uid() -> int:
    """The number that a peer of this user has."""
    return OWN_USER if sys.platform == "win32" else os.geteuid()


def unix_peer(connection: socket.socket) -> Peer | None:
    """Process and user at the other end of a unix socket when it was connected; None if it cannot be told."""
    if _PLATFORM == "linux":
        try:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
        pid, uid, _ = struct.unpack("3i", raw)
        return Peer(pid, uid)
    if _PLATFORM == "darwin":
        # xucred: version, uid, …; LOCAL_PEERCRED = 1, LOCAL_PEERPID = 2 at level SOL_LOCAL = 0 (sys/un.h).
        try:
            raw = connection.getsockopt(0, 1, 76)
            pid = connection.getsockopt(0, 2)
        except OSError:
            return None
        return Peer(pid, struct.unpack_from("=II", raw)[1])
    return None


def foreign(headers: Mapping[str, str], hosts: frozenset[str]) -> Foreign | None:
    """Why a request may come from a web page, or None.

    Args:
        headers: Case-insensitive.
        hosts: Names that may stand in ``Host``, without a port.
    """
    host = headers.get("Host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() not in hosts:
        return "host"
    if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "origin"
    return None


def tcp_peer_uid(local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """The user whose connection ``remote`` → ``local`` is, both on this machine; None if it cannot be told.

    Reads ``/proc/net/tcp`` and, for a dual-stack socket with a mapped address, ``/proc/net/tcp6`` (proc(5)).
    """
    for table, prefix in (("/proc/net/tcp", ""), ("/proc/net/tcp6", "0000000000000000FFFF0000")):
        theirs, ours = prefix + _hex_address(remote), prefix + _hex_address(local)
        try:
            with open(table, encoding="ascii") as file:
                next(file)
                for line in file:
                    fields = line.split(None, 8)
                    # The client's own end: its local address is the one we see as remote.
                    if fields[1] == theirs and fields[2] == ours:
                        return int(fields[7])
        except (OSError, StopIteration, ValueError, IndexError):
            continue
    return None


def _hex_address(address: tuple[str, int]) -> str:
    (packed,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{packed:08X}:{address[1]:04X}"


def descends_from_run(pid: int, owns_mark: Callable[[str], bool]) -> bool:
    """Whether the process or one of its ancestors carries the mark of a run.

    Fails closed for the process itself: one that is gone or cannot be looked at counts as a run. An
    ancestor that cannot be looked at (a login program, say) is passed over. Where there is no ``/proc``,
    nothing can be told: False.
    """
    if not os.path.isdir("/proc/self"):
        return False
    for depth, ancestor in enumerate(_lineage(pid)):
        try:
            with open(f"/proc/{ancestor}/environ", "rb") as file:
                environ = file.read(_ENVIRON_LIMIT_BYTES)
        except OSError:
            if depth == 0:
                return True
            continue
        for entry in environ.split(b"\0"):
            if entry.startswith(_MARK_PREFIX) and owns_mark(os.fsdecode(entry[len(_MARK_PREFIX) :])):
                return True
    return False


def _lineage(pid: int) -> Iterator[int]:
    for _ in range(_ANCESTORS):
        yield pid
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name in parentheses may contain anything, so the fields are counted from its end.
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        if pid <= 1:
            return
