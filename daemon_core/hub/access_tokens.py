"""Tokens that outlive a start of the hub: a user's own (``mul_…``) and one daemon's (``mdt_…``).

Only their hashes are kept. The daemon of this process needs none: it has the credential in memory.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import uuid
from typing import Final

from daemon_core.hub.clock import SECOND, rfc3339, rfc3339_or_none
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx
from daemon_core.hub.tokens import DAEMON_PREFIX, HUB_PREFIX
from daemon_core.protocol import wire

_DAY: Final = 24 * 3600 * SECOND
RENEWED_DAYS: Final = 90
"""A renewed token lives this long from then on."""
RENEWABLE_DAYS: Final = 7
"""Renewed is what ends within this."""
_SHOWN_CHARS: Final = 12
USED_EVERY: Final = 600 * SECOND
"""When a token was used last is kept to this: one write in ten minutes, not one a request."""


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def add(tx: Tx, name: str, *, days: int | None, daemon_id: str | None = None) -> tuple[str, sqlite3.Row]:
    """A new token, which is told this once, and its row."""
    token = (HUB_PREFIX if daemon_id is None else DAEMON_PREFIX) + secrets.token_hex(20)
    token_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO access_token (id, hash, name, prefix, daemon_id, expires_at, workspace_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token_id,
            _hash(token),
            name,
            token[:_SHOWN_CHARS],
            daemon_id,
            tx.now + days * _DAY if days else None,
            None if daemon_id is None else tx.place,
            tx.now,
        ),
    )
    row = tx.one("SELECT * FROM access_token WHERE id = ?", (token_id,))
    assert row is not None
    return token, row


def find(tx: Tx, token: str) -> sqlite3.Row | None:
    """The row of a token that is valid now."""
    return tx.one(
        "SELECT * FROM access_token WHERE hash = ? AND (expires_at IS NULL OR expires_at > ?)",
        (_hash(token), tx.now),
    )


def use_is_old(row: sqlite3.Row, now: int) -> bool:
    """Whether what is kept of a token's last use is so old that it is worth a write."""
    return row["last_used_at"] is None or not 0 <= now - row["last_used_at"] < USED_EVERY


def used(tx: Tx, token_id: str) -> None:
    """A token is in use."""
    tx.run("UPDATE access_token SET last_used_at = ? WHERE id = ?", (tx.now, token_id))


def list_all(tx: Tx) -> list[dict[str, object]]:
    """The user's own, newest first."""
    rows = tx.all("SELECT * FROM access_token WHERE daemon_id IS NULL ORDER BY created_at DESC, id")
    return [view(row) for row in rows]


def view(row: sqlite3.Row) -> dict[str, object]:
    """A token as it is shown."""
    return {
        "id": row["id"],
        "name": row["name"],
        "token_prefix": row["prefix"],
        "expires_at": rfc3339_or_none(row["expires_at"]),
        "last_used_at": rfc3339_or_none(row["last_used_at"]),
        "created_at": rfc3339(row["created_at"]),
    }


def revoke(tx: Tx, token_id: str) -> None:
    """It is not valid any more."""
    if not tx.run("DELETE FROM access_token WHERE id = ?", (token_id,)):
        raise RefusedError(404, "token not found")


def renew(tx: Tx, token: str) -> wire.RenewResponse:
    """Extend what ends soon; the token itself stays the same."""
    row = find(tx, token)
    if row is None:
        raise RefusedError(401, "token is no longer valid")
    expires_at = row["expires_at"]
    if expires_at is None:
        return wire.RenewResponse()
    soon = expires_at <= tx.now + RENEWABLE_DAYS * _DAY
    if soon:
        expires_at = tx.now + RENEWED_DAYS * _DAY
        tx.run("UPDATE access_token SET expires_at = ? WHERE id = ?", (expires_at, row["id"]))
    return wire.RenewResponse(expires_at=rfc3339(expires_at), renewed=soon)
