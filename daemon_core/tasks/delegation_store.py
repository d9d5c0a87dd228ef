"""What the journal keeps of tasks that were handed on: who waits for them, and whether their end was told.

The tasks themselves and their links are the hub's. A row is here from the moment that the daemon has heard of
a child until it is forgotten with its conversation.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

import msgspec

from daemon_core.agents.events import PlanEntry
from daemon_core.jobs.notices import put_notice
from daemon_core.journal import Journal

Told = Literal["", "answer", "notice", "dropped"]
"""How the parent has heard of the end: not yet, as the answer to a call, by a notice, or not at all since it
is gone."""


class DelegationRow(msgspec.Struct, kw_only=True):
    """One child."""

    conversation_id: str
    task_id: str
    """Id of the child's first task: what the parent knows it by."""
    parent_key: str
    parent_conversation: str
    depth: int = 1
    waiting_key: str = ""
    """The task whose call waits for it, and which has lent its slot; empty: none does."""
    told: str = ""
    plan: str = "[]"
    """JSON: the child's newest to-do list."""
    turns: int = 0
    """How often it was asked to go on."""
    created_at: str = ""
    ended_at: str = ""

    @property
    def entries(self) -> list[PlanEntry]:
        return msgspec.json.decode(self.plan, type=list[PlanEntry])


_FIELDS = tuple(field.name for field in msgspec.structs.fields(DelegationRow))


class DelegationStore:
    """The rows, on the journal's thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def all(self) -> list[DelegationRow]:
        """Every row, oldest first."""

        def read(db: sqlite3.Connection) -> list[DelegationRow]:
            names = ", ".join(_FIELDS)
            rows = db.execute(f"SELECT {names} FROM delegations ORDER BY created_at, conversation_id")
            return [DelegationRow(**dict(zip(_FIELDS, row, strict=True))) for row in rows]

        return await self._journal.transact(read)

    async def add(self, row: DelegationRow) -> None:
        """Keep a row; one that is there stays as it is."""
        marks = ", ".join("?" * len(_FIELDS))
        values = [getattr(row, name) for name in _FIELDS]
        await self._journal.transact(
            lambda db: db.execute(
                f"INSERT OR IGNORE INTO delegations({', '.join(_FIELDS)}) VALUES ({marks})", values
            ).close()
        )

    async def update(self, row: DelegationRow, **changes: object) -> None:
        """Change columns, in the journal and then in ``row``."""
        names = ", ".join(f"{name} = ?" for name in changes)
        await self._journal.transact(
            lambda db: db.execute(
                f"UPDATE delegations SET {names} WHERE conversation_id = ?",
                (*changes.values(), row.conversation_id),
            ).close()
        )
        for name, value in changes.items():
            setattr(row, name, value)

    async def tell(self, row: DelegationRow, body: str, ended_at: str) -> bool:
        """Make the notice of its end, unless it was told; both in one transaction. Whether there is one."""

        def work(db: sqlite3.Connection) -> bool:
            made = db.execute(
                "UPDATE delegations SET told = 'notice', waiting_key = '', ended_at = ?"
                " WHERE conversation_id = ? AND told = ''",
                (ended_at, row.conversation_id),
            ).rowcount
            if made:
                put_notice(
                    db,
                    conversation=row.parent_conversation,
                    kind="child_ended",
                    subject=row.task_id,
                    body=body,
                    dedup=f"child_ended:{row.task_id}",
                )
            return made > 0

        told = await self._journal.transact(work)
        row.told, row.waiting_key, row.ended_at = row.told or "notice", "", ended_at
        return told

    async def forget(self, row: DelegationRow) -> None:
        """Its conversation is gone, and its parent has heard of it or is gone, too."""
        await self._journal.transact(
            lambda db: db.execute(
                "DELETE FROM delegations WHERE conversation_id = ?", (row.conversation_id,)
            ).close()
        )
