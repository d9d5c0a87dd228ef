"""Why a connection does or does not work: one state, its reason, since when, and what comes next.

Codes and parameters cross the control API; whoever shows them makes the words.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from daemon_core.connections.client import NoAnswerError
from daemon_core.protocol import errors


class State(enum.Enum):
    """The states of a connection. Only OK is green."""

    STARTING = "starting"
    """Nothing known yet: just built, or given a new token."""
    OK = "ok"
    """The last conversation with the server went well."""
    WAITING_FOR_NETWORK = "waiting_for_network"
    """This machine does not get as far as the server's network. Tried again with back-off."""
    SERVER_UNREACHABLE = "server_unreachable"
    """The server does not answer, or answers that it cannot. Tried again with back-off."""
    SIGNED_OUT = "signed_out"
    """The credential is refused, or cannot be had. Nothing is tried until there is a new one; but a refused
    one is shown again now and then."""
    REFUSED = "refused"
    """The server answers and will not have us: the account is disabled, say. Tried again, too."""


_NETWORK_CODES = frozenset({"name_not_resolved", "network_unreachable"})


@dataclass(frozen=True, slots=True)
class Health:
    """One state with its story.

    Attributes:
        state: see :class:`State`.
        code: the reason: a ``NoAnswerCode``, ``http_status``, ``token_refused``, why the credential cannot be
            had (``keyring_locked``, ``missing``, …), or empty.
        params: what the words need: ``host``, ``status``, ``text``.
        since: wall-clock time, seconds since the epoch, when this state and code began.
        next_try_at: wall-clock time of the next attempt; None where nothing is tried by itself.
    """

    state: State
    code: str = ""
    params: dict[str, str | int] = field(default_factory=dict)
    since: float = 0.0
    next_try_at: float | None = None


def diagnose(error: errors.ServerError, host: str) -> Health:
    """The state that an error means; ``since`` and ``next_try_at`` are the caller's to fill in."""
    params: dict[str, str | int] = {"host": host}
    if isinstance(error, errors.UnauthorizedError):
        return Health(State.SIGNED_OUT, "token_refused", params)
    if isinstance(error, NoAnswerError):
        network = error.code in _NETWORK_CODES
        return Health(
            State.WAITING_FOR_NETWORK if network else State.SERVER_UNREACHABLE,
            error.code,
            {**params, "text": error.cause},
        )
    params |= {"status": error.status, "text": error.body[:200]}
    if isinstance(error, errors.TransientError):
        return Health(State.SERVER_UNREACHABLE, "http_status", params)
    if not error.by_server:  # somebody answers in its place: a proxy without it, a firewall
        return Health(State.SERVER_UNREACHABLE, "not_the_server", params)
    return Health(State.REFUSED, "http_status", params)
