"""Credentials of the hub: its own, which lives in memory alone, and the tokens of tasks.

A task token is minted when its task is claimed. Only its SHA-256 is kept, and that is deleted when the task
ends; an agent can therefore not act any more once its task is over (promise P7).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from typing import Final

from daemon_core.hub.clock import SECOND
from daemon_core.hub.limits import Limits

HUB_PREFIX: Final = "mul_"
TASK_PREFIX: Final = "mat_"
DAEMON_PREFIX: Final = "mdt_"

_SECRET = re.compile(rb"(mat|mul|mdt)_[0-9a-f]{40}")


def new_credential() -> str:
    """A personal access token for the daemon of this process."""
    return HUB_PREFIX + secrets.token_hex(20)


def same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def redact(body: bytes) -> bytes:
    """A body without any of the protocol's tokens in it: agents print their environment."""
    if b"mat_" not in body and b"mul_" not in body and b"mdt_" not in body:
        return body
    return _SECRET.sub(rb"\1_[redacted]", body)


def mint(db: sqlite3.Connection, task_no: int, now: int, limits: Limits) -> str:
    """A new token for a task, beside those it may have already (a redelivery does not revoke the first)."""
    token = TASK_PREFIX + secrets.token_hex(20)
    db.execute(
        "INSERT INTO token (hash, task_no, expires_at) VALUES (?, ?, ?)",
        (digest(token), task_no, now + int(limits.token_life_s * SECOND)),
    )
    return token


def revoke(db: sqlite3.Connection, task_no: int) -> None:
    """Delete every token of a task."""
    db.execute("DELETE FROM token WHERE task_no = ?", (task_no,))


def find(db: sqlite3.Connection, token: str, now: int) -> sqlite3.Row | None:
    """The task a token acts for (what is its own and does not change while it runs), or None.

    A task that runs or waits keeps its token even where the timer has not yet extended it.
    """
    row: sqlite3.Row | None = db.execute(
        "SELECT task.no, task.id, task.conversation_id, task.agent_id, task.kind, task.issue_id,"
        " task.trigger_comment_id, task.squad_id, task.squad_outcome, conversation.workspace_id"
        " FROM token JOIN task ON task.no = token.task_no"
        " JOIN conversation ON conversation.id = task.conversation_id"
        " WHERE token.hash = ? AND (token.expires_at > ?"
        " OR task.status IN ('running', 'waiting_local_directory'))",
        (digest(token), now),
    ).fetchone()
    return row


def expire(db: sqlite3.Connection, now: int, limits: Limits) -> int | None:
    """Extend the tokens that are due and in use, delete the other due ones; tell the next due time."""
    db.execute(
        "UPDATE token SET expires_at = ? WHERE expires_at <= ? AND task_no IN"
        " (SELECT no FROM task WHERE status IN ('running', 'waiting_local_directory'))",
        (now + int(limits.token_life_s * SECOND), now),
    )
    db.execute("DELETE FROM token WHERE expires_at <= ?", (now,))
    due: int | None = db.execute("SELECT min(expires_at) FROM token").fetchone()[0]
    return due
