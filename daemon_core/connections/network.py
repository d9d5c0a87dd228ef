"""Told when this machine's network changes, so that nobody has to wait for the end of a back-off.

On Linux the kernel says it over a netlink socket: addresses, routes and links that come or go. Nothing is
polled and an idle machine stays asleep. Elsewhere nothing is told; the back-off's limit bounds the wait.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

QUIET_S: Final = 0.5
"""A change comes in several steps (link, address, route): the first look is after them."""
LEAST_S: Final = 5.0
"""Containers that come and go change the network all the time: not more often than this."""
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE."""
_READ_BYTES: Final = 64 * 1024


class NetworkWatch:
    """Calls ``changed`` on the loop after the network changed; several changes in a row are one."""

    def __init__(self, changed: Callable[[], None], *, quiet_s: float = QUIET_S) -> None:
        self._changed = changed
        self._quiet_s = quiet_s
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    def start(self) -> bool:
        """Begin to listen; whether this machine tells."""
        if sys.platform != "linux":
            return False
        try:
            listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError as error:
            log.info("changes of the network are not told: %s", error)
            return False
        try:
            listener.setblocking(False)
            listener.bind((0, _GROUPS))
            asyncio.get_running_loop().add_reader(listener, self._readable)
        except OSError as error:
            listener.close()
            log.info("changes of the network are not told: %s", error)
            return False
        self._socket = listener
        return True

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            while self._socket.recv(_READ_BYTES):
                pass  # what changed does not matter: whether a server can be reached is found out by asking
        except BlockingIOError:
            pass
        except OSError as error:  # ENOBUFS: more than the kernel keeps for us; something changed, certainly
            log.debug("changes of the network were missed: %s", error)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + self._quiet_s, self._not_before)
            self._timer = loop.call_at(at, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._not_before = asyncio.get_running_loop().time() + LEAST_S
        self._changed()
