"""What was spent, as the journal keeps it: one row for each task, day and model.

Rows stay when their task is deleted: the money is spent all the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from daemon_core.journal import Journal
from daemon_core.protocol.wire import Usage

KEPT_DAYS: Final = 400
_AT_ONCE: Final = 400
"""Parameters of one statement."""


class SpendRow(msgspec.Struct, kw_only=True):
    """What one task has used of one model on one day."""

    task_key: str
    day: str
    """As the clock on the wall had it."""
    provider: str
    model: str
    connection: str = ""
    agent: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: float = 0.0
    """US dollars."""
    how: str = "unknown"
    """See ``prices.How``."""


class DayTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a day."""

    cost: float = 0.0
    unknown: int = 0
    """Tasks of whose cost something is not known."""


_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(SpendRow))
_NAMES: Final = ", ".join(_FIELDS)


class SpendStore:
    """The rows, on the journal's thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def put(self, rows: Sequence[SpendRow], day: str) -> DayTotal:
        """Keep these rows as they are now; the total of a day after that."""

        def write(db: sqlite3.Connection) -> DayTotal:
            marks = ", ".join("?" * len(_FIELDS))
            db.executemany(
                f"INSERT OR REPLACE INTO spend({_NAMES}) VALUES ({marks})",
                [tuple(getattr(row, name) for name in _FIELDS) for row in rows],
            )
            return _total(db, day)

        return await self._journal.transact(write)

    async def total(self, day: str) -> DayTotal:
        """The total of a day."""
        return await self._journal.transact(lambda db: _total(db, day))

    async def of_tasks(self, keys: Collection[str]) -> list[SpendRow]:
        """All rows of these tasks."""
        wanted = list(keys)

        def read(db: sqlite3.Connection) -> list[SpendRow]:
            found: list[SpendRow] = []
            for place in range(0, len(wanted), _AT_ONCE):
                some = wanted[place : place + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                found += _rows(db, f"WHERE task_key IN ({marks})", some)
            return found

        return await self._journal.transact(read) if wanted else []

    async def since(self, day: str) -> list[SpendRow]:
        """Sums of each day from this one on, by connection, agent and model (``task_key`` is empty)."""

        def read(db: sqlite3.Connection) -> list[SpendRow]:
            sums = [name for name in _FIELDS if name.endswith("_tokens")]
            cursor = db.execute(
                "SELECT day, provider, model, connection, agent, how, sum(cost),"
                f" {', '.join(f'sum({name})' for name in sums)} FROM spend WHERE day >= ?"
                " GROUP BY day, provider, model, connection, agent, how"
                " ORDER BY day, connection, agent, model",
                (day,),
            )
            return [
                SpendRow(
                    task_key="", day=row[0], provider=row[1], model=row[2], connection=row[3], agent=row[4],
                    how=row[5], cost=row[6], **dict(zip(sums, row[7:], strict=True)),
                )
                for row in cursor
            ]  # fmt: skip

        return await self._journal.transact(read)

    async def unbooked(self, since: str) -> list[tuple[str, str, str, str, list[Usage]]]:
        """(key, connection, agent, provider, usage) of tasks that ended since then and used something."""

        def read(db: sqlite3.Connection) -> list[tuple[str, str, str, str, list[Usage]]]:
            cursor = db.execute(
                "SELECT key, connection, agent_name, provider, usage FROM tasks"
                " WHERE ended_at >= ? AND usage <> '[]'",
                (since,),
            )
            return [(*row[:4], msgspec.json.decode(row[4], type=list[Usage])) for row in cursor]

        return await self._journal.transact(read)

    async def forget(self, before: str) -> None:
        """Days before this one."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM spend WHERE day < ?", (before,))

        await self._journal.transact(write)


def _rows(db: sqlite3.Connection, where: str, parameters: Sequence[object]) -> list[SpendRow]:
    cursor = db.execute(f"SELECT {_NAMES} FROM spend {where}", tuple(parameters))
    return [SpendRow(**dict(zip(_FIELDS, row, strict=True))) for row in cursor]


def _total(db: sqlite3.Connection, day: str) -> DayTotal:
    cost, unknown = db.execute(
        "SELECT coalesce(sum(cost), 0), count(DISTINCT CASE WHEN how IN ('unknown', 'partial')"
        " THEN task_key END) FROM spend WHERE day = ?",
        (day,),
    ).fetchone()
    return DayTotal(cost=float(cost), unknown=int(unknown))
