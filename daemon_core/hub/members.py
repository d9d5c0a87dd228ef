"""The one member of every workspace: the user of this machine."""

from __future__ import annotations

import uuid
from typing import Final

from daemon_core.hub.clock import rfc3339
from daemon_core.hub.store import Tx

NAME: Final = "Local user"
"""Nothing of the machine's account is told: what an agent reads may go anywhere."""


def member_id(own_workspace: str) -> str:
    """The user's id, the same in every workspace; made of the machine's own."""
    return str(uuid.uuid5(uuid.UUID(own_workspace), "member"))


def listing(tx: Tx, workspace_id: str, user_id: str) -> list[dict[str, object]]:
    """The members of the workspace."""
    row = tx.one("SELECT created_at FROM workspace WHERE id = ?", (workspace_id,))
    return [
        {
            "id": user_id,
            "user_id": user_id,
            "workspace_id": workspace_id,
            "name": NAME,
            "email": "",
            "role": "owner",
            "created_at": None if row is None else rfc3339(row["created_at"]),
        }
    ]
