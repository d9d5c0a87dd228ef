"""Files that belong to issues, comments and chats. They are kept in the database and go with their owner.

An address to download from is signed and good for a while, so that whoever was told it needs no token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import uuid
from collections.abc import Sequence
from typing import Final

from daemon_core.hub.clock import SECOND, rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx

ADDRESS_LIFE_S: Final = 600
_KEY: Final = secrets.token_bytes(32)
_COLUMNS: Final = (
    "id, filename, content_type, size_bytes, issue_id, comment_id, conversation_id, task_id,"
    " uploader_type, uploader_id, workspace_id, created_at"
)


def add(
    tx: Tx, uploader: tuple[str, str], filename: str, content_type: str, content: bytes, **owner: str | None
) -> sqlite3.Row:
    """Keep a file; ``owner`` is the column of what it belongs to, if that is known already."""
    attachment_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO attachment (id, filename, content_type, size_bytes, content, issue_id, comment_id,"
        " conversation_id, uploader_type, uploader_id, workspace_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attachment_id,
            filename,
            content_type,
            len(content),
            content,
            owner.get("issue_id"),
            owner.get("comment_id"),
            owner.get("conversation_id"),
            *uploader,
            tx.place,
            tx.now,
        ),
    )
    return require(tx, attachment_id)


def require(tx: Tx, attachment_id: str) -> sqlite3.Row:
    """The row of a file of the transaction's workspace, without its content."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM attachment WHERE id = ? AND workspace_id IS ?", (attachment_id, tx.place)
    )
    if row is None:
        raise RefusedError(404, "attachment not found")
    return row


def content(tx: Tx, attachment_id: str) -> tuple[sqlite3.Row, bytes]:
    """A file with its content, of whatever workspace: who may have it is checked elsewhere."""
    row = tx.one(f"SELECT {_COLUMNS}, content FROM attachment WHERE id = ?", (attachment_id,))
    if row is None:
        raise RefusedError(404, "attachment not found")
    return row, bytes(row["content"])


def link(tx: Tx, attachment_ids: Sequence[str], **owner: str | None) -> None:
    """Let uploaded files belong to something. One that belongs elsewhere already stays there."""
    for attachment_id in attachment_ids:
        row = require(tx, attachment_id)
        for column, value in owner.items():
            if column not in ("issue_id", "comment_id", "conversation_id", "task_id"):
                raise ValueError(column)
            if row[column] is None:
                tx.run(f"UPDATE attachment SET {column} = ? WHERE id = ?", (value, attachment_id))


def of(tx: Tx, column: str, owner: str) -> list[dict[str, object]]:
    """The files of something, oldest first."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM attachment WHERE {column} = ? ORDER BY created_at, rowid", (owner,)
    )
    return [view(row, tx.now) for row in rows]


def delete(tx: Tx, attachment_id: str) -> None:
    """Take a file away."""
    if not tx.run("DELETE FROM attachment WHERE id = ?", (attachment_id,)):
        raise RefusedError(404, "attachment not found")


def forget_unowned(tx: Tx, before: int) -> int:
    """Take away what was uploaded before a time and never came to belong to anything; tells how many."""
    return tx.run(
        "DELETE FROM attachment WHERE created_at < ? AND issue_id IS NULL AND comment_id IS NULL"
        " AND conversation_id IS NULL AND task_id IS NULL",
        (before,),
    )


def address(attachment_id: str, now: int) -> str:
    """Path and query to download a file from without a token."""
    expires = now // SECOND + ADDRESS_LIFE_S
    signature = _sign(attachment_id, expires)
    return f"/api/attachments/{attachment_id}/content?expires={expires}&signature={signature}"


def signed(attachment_id: str, expires: str, signature: str, now: int) -> bool:
    """Whether this is an address that was given out and is still good."""
    if not expires.isdecimal() or len(expires) > 18 or int(expires) < now // SECOND:
        return False
    return hmac.compare_digest(
        signature.encode("utf-8", "replace"), _sign(attachment_id, int(expires)).encode()
    )


def _sign(attachment_id: str, expires: int) -> str:
    return hmac.new(_KEY, f"{attachment_id} {expires}".encode(), hashlib.sha256).hexdigest()


def view(row: sqlite3.Row, now: int) -> dict[str, object]:
    """A file as it is shown. Its addresses begin with a slash: the route puts the server in front."""
    where = address(row["id"], now)
    return {
        "id": row["id"],
        "filename": row["filename"],
        "content_type": row["content_type"],
        "size_bytes": row["size_bytes"],
        "url": where,
        "download_url": where,
        "issue_id": row["issue_id"],
        "comment_id": row["comment_id"],
        "chat_session_id": row["conversation_id"],
        "uploader_type": row["uploader_type"],
        "uploader_id": row["uploader_id"],
        "created_at": rfc3339(row["created_at"]),
    }
