"""Whether a credential is good for a server: asked with calls that change nothing, before it is kept.

The order is that of a connection: renewal first, then the list of workspaces. A server that lets a token in
and lists workspaces is one that a daemon can work with; everything else is told apart by what the user can do
about it (:class:`SignInError`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from daemon_core.connections.client import NoAnswerError, ServerClient
from daemon_core.protocol import errors, wire

SignInCode = Literal[
    "token_refused", "token_kind", "token_unfit", "account", "not_a_server", "no_answer", "error"
]

_WRONG_KINDS: Final = {"mat_": "task", "mdt_": "daemon"}
"""Tokens that a server gives to a single task, or for one workspace of one daemon."""


class SignInError(Exception):
    """The credential cannot be used.

    Attributes:
        code: ``token_refused``; ``token_kind`` (a token for something else); ``token_unfit`` (characters that
            no token has); ``account`` (the server lets it in and refuses the account); ``not_a_server``
            (something else is at this address); ``no_answer`` (``params["reason"]`` says how); ``error`` (the
            server answers that it cannot).
        params: what the words need; never the credential.
    """

    def __init__(self, code: SignInCode, **params: Any) -> None:
        self.code = code
        self.params = params
        super().__init__(code, params)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the server says to the credential. ``expires_at`` empty: never, or not known."""

    workspaces: tuple[wire.Workspace, ...]
    expires_at: str = ""


def check_form(token: str) -> None:
    """Refuse what cannot be a credential for a daemon, without asking anybody.

    Raises:
        SignInError: ``token_kind`` or ``token_unfit``.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SignInError("token_unfit")
    for prefix, kind in _WRONG_KINDS.items():
        if token.startswith(prefix):
            raise SignInError("token_kind", kind=kind)


async def check(client: ServerClient) -> Accepted:
    """Ask the server.

    Args:
        client: an open one, with the credential.

    Raises:
        SignInError: it cannot be used, for now or at all.
    """
    expires_at = ""
    try:
        expires_at = (await client.renew_token()).expires_at or ""
    except errors.PermanentError as error:
        if error.status == 403:
            raise _error(error) from error
        # Not a kind that is renewed, or a server without the route: the next answer tells.
    except errors.ServerError as error:
        raise _error(error) from error
    try:
        return Accepted(tuple(await client.workspaces()), expires_at)
    except errors.ServerError as error:
        raise _error(error) from error


def _error(error: errors.ServerError) -> SignInError:
    if isinstance(error, errors.UnauthorizedError):
        return SignInError("token_refused")
    if isinstance(error, NoAnswerError):
        if error.code in ("not_the_server", "unreadable", "too_large"):
            return SignInError("not_a_server", reason=error.code, status=error.status)
        return SignInError("no_answer", reason=error.code, text=error.cause)
    if error.status == 403:
        return SignInError("account", text=error.body[:200])
    if error.status in (404, 405, 410):
        return SignInError("not_a_server", reason="http_status", status=error.status)
    return SignInError("error", status=error.status, text=error.body[:200])
