"""Which workspace something is in: the machine's own, or one that was made beside it.

What the user does on this machine is in the machine's own workspace, which is always there. Rows of it have
no workspace, rows of another have its id (``schema_places``); a conversation and a runtime always have one.
"""

from __future__ import annotations

from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx


def own(tx: Tx) -> str:
    """The id of the machine's own workspace."""
    row = tx.one("SELECT id FROM workspace WHERE slug IS NULL ORDER BY rowid LIMIT 1")
    assert row is not None, "no workspace"
    return str(row["id"])


def of(tx: Tx, workspace_id: str) -> str | None:
    """A workspace as rows have it."""
    row = tx.one("SELECT slug FROM workspace WHERE id = ?", (workspace_id,))
    return None if row is None or row["slug"] is None else workspace_id


def of_conversation(tx: Tx, conversation_id: str) -> str | None:
    """The workspace of a conversation as rows have it."""
    return of(tx, workspace_of(tx, conversation_id))


def workspace_of(tx: Tx, conversation_id: str) -> str:
    """The id of the workspace of a conversation."""
    row = tx.one("SELECT workspace_id FROM conversation WHERE id = ?", (conversation_id,))
    assert row is not None, "a task without its conversation"
    return str(row["workspace_id"])


def require(tx: Tx, workspace_id: str) -> None:
    """Refuse a workspace that is not there."""
    if tx.one("SELECT 1 FROM workspace WHERE id = ?", (workspace_id,)) is None:
        raise RefusedError(404, "workspace not found")
