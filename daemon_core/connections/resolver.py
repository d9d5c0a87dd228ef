"""Names looked up in threads of their own.

The daemon's common threads do disk work: with a dead network drive or a full queue of it, a look-up among
them would wait, and with it a heartbeat that needs a new connection. These two have nothing else to do.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS: Final = 2
"""A name server that does not answer must not hold up the look-up of another name."""


class OwnThreadsResolver(AbstractResolver):
    """For one pool of connections. Its threads begin with the first look-up and end after :meth:`close`."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a name. Raises ``OSError``."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="names")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _look_up, host, port, family)

    async def close(self) -> None:
        """A look-up that still hangs is left to end by itself."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    try:
        infos = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=getattr(socket, "AI_ADDRCONFIG", 0)
        )
    except socket.gaierror:
        if host.rstrip(".").casefold() != "localhost":
            raise
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = []
    for kind, _, protocol, _, address in infos:
        where = str(address[0])
        if kind == socket.AF_INET6 and len(address) > 3 and address[3]:
            # A link-local address means nothing without its interface.
            where, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        found.append(
            ResolveResult(
                hostname=host,
                host=where,
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=numeric,
            )
        )
    return found
