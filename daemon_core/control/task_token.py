"""Whose task a request on the loopback port comes from: told by the task's own token alone."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife


def bearer_of(request: web.Request) -> str:
    """The token that a request shows, or an empty text."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def life_of_token(engine: Engine, request: web.Request) -> TaskLife | None:
    """The task that a request may act for; None where it shows no token of a task that goes on here."""
    token = bearer_of(request)
    if not token:
        return None
    return next((life for life in engine.lives.values() if has_token(life, token)), None)


def has_token(life: TaskLife, token: str) -> bool:
    """Whether this is the token of a task that goes on."""
    own = life.claim.auth_token.strip() if life.claim is not None else ""
    return (
        life.record.state != "ended"
        and own.startswith("mat_")
        # Bytes of a header that are no text come as surrogates, which cannot be encoded.
        and hmac.compare_digest(own.encode(), token.encode("utf-8", "replace"))
    )
