"""``/v1/connections``: signing in and out of servers, and how each connection is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.connection_views import (
    ConnectionDetail,
    SignedIn,
    SignedOut,
    SignIn,
    SignOut,
    TryAgain,
)
from daemon_core.control.errors import ControlError
from daemon_core.control.route import Route
from daemon_core.control.web import answer, body

CONNECTION_ROUTES: Final[tuple[Route, ...]] = (
    Route("connections", "GET", "/v1/connections", "Every server, the hub included.", list[ConnectionDetail]),
    Route(
        "sign_in",
        "POST",
        "/v1/connections/sign-in",
        "Check a credential, keep it, and connect with it from now on.",
        SignedIn,
        SignIn,
        guarded=True,
        refusals=("invalid_input", "sign_in_failed", "credential_store", "not_ready"),
    ),
    Route(
        "sign_out",
        "POST",
        "/v1/connections/sign-out",
        "Remove a server and its credential. Refused while tasks of it are here, unless forced.",
        SignedOut,
        SignOut,
        guarded=True,
        refusals=("not_found", "ambiguous_id", "conflict", "credential_store", "not_ready"),
    ),
    Route(
        "try_again",
        "POST",
        "/v1/connections/try-again",
        "Look at servers now instead of when the back-off is over.",
        list[ConnectionDetail],
        TryAgain,
        refusals=("not_found", "not_ready"),
    ),
)


class ConnectionHost(Protocol):
    """Who answers them. Methods that refuse raise ``ControlError``."""

    async def details(self) -> list[ConnectionDetail]: ...

    async def sign_in(self, request: SignIn) -> SignedIn: ...

    async def sign_out(self, request: SignOut) -> SignedOut: ...

    async def try_again(self, request: TryAgain) -> list[ConnectionDetail]: ...


class HasConnections(Protocol):
    """What the routes need of the daemon."""

    @property
    def servers(self) -> ConnectionHost | None: ...


def connection_handlers(backend: HasConnections) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    def host() -> ConnectionHost:
        if backend.servers is None:
            raise ControlError("not_ready")
        return backend.servers

    async def connections(request: web.Request) -> web.Response:
        return answer(await host().details())

    async def sign_in(request: web.Request) -> web.Response:
        return answer(await host().sign_in(await body(request, SignIn)))

    async def sign_out(request: web.Request) -> web.Response:
        return answer(await host().sign_out(await body(request, SignOut)))

    async def try_again(request: web.Request) -> web.Response:
        return answer(await host().try_again(await body(request, TryAgain)))

    return {
        "connections": connections,
        "sign_in": sign_in,
        "sign_out": sign_out,
        "try_again": try_again,
    }
