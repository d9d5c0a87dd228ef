"""How many files tasks have changed, for lists: put into rows that are made anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from daemon_core.control.views import TaskRow
from daemon_core.tasks.engine import Engine
from daemon_core.workdirs.changes import ChangeStore

ENDED: Final = frozenset({"completed", "failed", "cancelled"})


class Source(Protocol):
    """Where the engine is; the facade is one of these."""

    @property
    def engine(self) -> Engine | None: ...


class ChangedDesk:
    """Knows the counts."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def row(self, row: TaskRow) -> TaskRow:
        """A task in a list, as far as that is known without asking the disk."""
        store = self._store(row)
        return _with(row, store.counted(_key(row))) if store is not None else row

    async def rows(self, rows: Sequence[TaskRow]) -> list[TaskRow]:
        """Tasks in a list."""
        return await asyncio.to_thread(self._counted, rows)

    def _counted(self, rows: Sequence[TaskRow]) -> list[TaskRow]:
        found = []
        for row in rows:
            store = self._store(row) if row.changed_files is None else None
            if store is not None:
                count = store.counted(_key(row))
                row = _with(row, count if count is not None else store.count(_key(row)))
            found.append(row)
        return found

    def _store(self, row: TaskRow) -> ChangeStore | None:
        engine = self._source.engine
        return engine.changes if engine is not None and row.status in ENDED else None


def _key(row: TaskRow) -> str:
    return f"{row.server or 'hub'}/{row.id}"


def _with(row: TaskRow, count: int | None) -> TaskRow:
    return row if count is None else msgspec.structs.replace(row, changed_files=count)
