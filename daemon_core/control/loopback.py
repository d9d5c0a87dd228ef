"""The guarded application on 127.0.0.1: ``/health``, and room for what must be reached from inside runs.

Everybody on the machine can connect to a loopback port, so nothing is answered for free: foreign ``Host``,
``Origin`` and cross-site requests are refused on every route, ``/health`` is for this user (the kernel says
whose connection it is) or for whoever has the token of ``run/control.token``. Routes that are mounted here
bring a credential check of their own; ``own_user`` is there for those that need none but that.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from daemon_core.control import peers
from daemon_core.control.backend import Backend
from daemon_core.control.errors import ControlError
from daemon_core.control.web import BODY_LIMIT_BYTES, answer, errors, guard
from daemon_core.settings.atomic import write_private

HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
_SHUTDOWN_S: Final = 2.0


def make_token(path: Path) -> str:
    """A new credential for this life of the daemon, stored 0600 at ``path``.

    Raises:
        OSError: It cannot be stored.
    """
    token = secrets.token_urlsafe(32)
    write_private(path, f"{token}\n".encode())
    return token


def own_user(request: web.Request, token: str) -> bool:
    """Whether this user's own program asks, by the token or by the kernel's table of connections."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    given = given.strip()
    # Bytes of a header that are no text come as surrogates, which cannot be encoded.
    if scheme.lower() == "bearer" and hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        return True
    if request.transport is None:
        return False
    ours, theirs = request.transport.get_extra_info("sockname"), request.transport.get_extra_info("peername")
    if not ours or not theirs:
        return False
    return peers.tcp_peer_uid(ours[:2], theirs[:2]) == peers.own_uid()


def build_app(
    backend: Backend,
    token: str,
    *,
    routes: Iterable[web.AbstractRouteDef] = (),
    middlewares: Iterable[Middleware] = (),
) -> web.Application:
    """The application, to be served by ``LoopbackServer``.

    Args:
        routes: More routes (the hub's ``/api/…``); sub-applications can be added to the result.
        middlewares: Run after the guard, around every route.
    """
    app = web.Application(middlewares=[errors, guard(HOSTS), *middlewares], client_max_size=BODY_LIMIT_BYTES)

    async def health(request: web.Request) -> web.Response:
        if not own_user(request, token):
            raise ControlError("refused_peer", {"why": "credential"})
        return answer(await backend.health())

    app.router.add_get("/health", health)
    app.router.add_routes(routes)
    return app


class LoopbackServer:
    """Serves an application on a listening socket of ``settings.ports.open_loopback``."""

    def __init__(self, app: web.Application, listener: socket.socket) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        assert listener.getsockname()[0] == "127.0.0.1"

    async def start(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def close(self) -> None:
        """Stop listening; requests in flight have two seconds. May be called again."""
        await self._runner.cleanup()
        self._listener.close()
