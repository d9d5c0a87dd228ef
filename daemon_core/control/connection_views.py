"""What crosses the control API about connections to servers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon_core.control.views import Request, View


class SignIn(Request, frozen=True, kw_only=True):
    """Sign in at a server; the one with this address if it is known already, otherwise a new connection."""

    url: str
    token: str
    store: Literal["auto", "keyring", "file"] = "auto"
    """``auto``: the system keyring, and a file of this user's own where no keyring runs."""

    def __repr__(self) -> str:
        return f"SignIn(url={self.url!r}, token=…, store={self.store!r})"


class SignOut(Request, frozen=True, kw_only=True):
    """``server``: a name or an address; empty: the only one. ``force``: end its tasks here, and give up
    reports that the server does not take."""

    server: str = ""
    force: bool = False


class TryAgain(Request, frozen=True, kw_only=True):
    """``server``: a name or an address; empty: all."""

    server: str = ""


class WorkspaceView(View, frozen=True, kw_only=True):
    """``problem``: why its server does not take the runtimes of this machine; empty: it does."""

    id: str
    name: str = ""
    problem: str = ""


class CredentialView(View, frozen=True, kw_only=True):
    """Where a credential is. ``detail``: the keyring's name, or the path of the file."""

    place: Literal["keyring", "file", "none"] = "none"
    detail: str = ""


class ConnectionDetail(View, frozen=True, kw_only=True):
    """One server with everything about it. ``reason`` is a condition's code with ``reason_params``."""

    name: str
    url: str = ""
    status: str = "connecting"
    reason: str = ""
    reason_params: dict[str, Any] = msgspec.field(default_factory=dict)
    since: str = ""
    next_try_at: str | None = None
    websocket: bool = False
    workspaces: list[WorkspaceView] = msgspec.field(default_factory=list)
    runtimes: int = 0
    tasks: int = 0
    """Tasks of this server here: worked on, or their reports on the way."""
    undelivered: int = 0
    credential: CredentialView = CredentialView()
    renewed_at: str = ""
    """When the server last prolonged the credential; empty: not since the daemon started."""
    expires_at: str = ""
    """When the credential ends unless it is prolonged; empty: it does not, or the server has not told."""
    embedded: bool = False
    """The hub: no credential, and nobody signs in or out there."""


class SignedIn(View, frozen=True, kw_only=True):
    """``added``: there was no connection to this server before. ``why_file``: why the credential is in a file
    although nobody asked for that, as a code; empty otherwise. ``notes``: ``insecure`` (the token goes over
    the network unencrypted), ``no_workspace``."""

    connection: ConnectionDetail
    added: bool = True
    why_file: str = ""
    expires_at: str = ""
    notes: list[str] = msgspec.field(default_factory=list)


class SignedOut(View, frozen=True, kw_only=True):
    """``given_up``: tasks whose reports were given up."""

    name: str
    url: str = ""
    given_up: int = 0
