"""The hub's database: one connection in one thread, transactions, migrations, and what to do about damage.

Rules:

* Every read and write is a function that runs in the one database thread, so it is alone: what it reads is
  true when it writes, and no lock is needed anywhere.
* What a transaction wants to be known (changes, hints) is collected and published on the event loop only
  after the commit, and before whoever awaits the transaction goes on. It is published even if that one has
  been cancelled meanwhile.
* A damaged file is set aside with a time in its name, never deleted; what can be read is copied into a new
  one, and :attr:`Store.damage` tells. Damage found while running is handled alike, and the transaction is
  done again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from daemon_core.hub.clock import Clock
from daemon_core.hub.errors import StorageError
from daemon_core.hub.schema import MIGRATIONS, ORPHANS, TABLES
from daemon_core.hub.views import HubChange

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

CHECK_LIMIT_BYTES: Final = 16 << 20
"""A file up to this size is checked whole when opened (some 50 ms); a larger one when damage shows."""
_SALVAGE_ROWS: Final = 500
_COMPANIONS: Final = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class DamageReport:
    """A damaged database: where it is now, how many rows of each table were saved, which tables lost some."""

    set_aside: Path
    cause: str
    saved: dict[str, int]
    incomplete: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hint:
    """Something for the websockets: a task to claim (``available``) or to look at (``changed``), or to all
    of them that a custom runtime profile (``profiles``, its id in ``task_id``, its workspace in
    ``runtime_id``) or a workspace is different (``workspaces``)."""

    kind: str
    runtime_id: str
    task_id: str
    status: str = ""


@dataclass(slots=True)
class Tx:
    """One transaction, in the database thread. ``alarm`` is when the timer should look at the latest.

    ``place`` is the workspace that what is made belongs to and what is looked for is in, as rows have it:
    None is the machine's own. Rows that are reached from another row need no such look.
    """

    db: sqlite3.Connection
    now: int
    place: str | None = None
    changes: list[HubChange] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    alarm: int | None = None

    def one(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self.db.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """Every row."""
        return self.db.execute(sql, parameters).fetchall()

    def run(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Execute, and tell how many rows changed."""
        return self.db.execute(sql, parameters).rowcount

    def wake_at(self, due: int | None) -> None:
        """Ask for the timer at ``due`` (None: no wish)."""
        if due is not None and (self.alarm is None or due < self.alarm):
            self.alarm = due


class Store:
    """The database file and the thread that it lives in."""

    def __init__(self, path: Path, clock: Clock, publish: Callable[[Tx], None]) -> None:
        """``publish`` is called on the event loop with each committed transaction that has news."""
        self.path = path
        self.damage: DamageReport | None = None
        self.begun = False
        """Whether there was no file, or an empty one, when it was opened."""
        self._clock = clock
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hub-store")
        self._db: sqlite3.Connection | None = None
        self._closed = False

    async def open(self) -> None:
        """Open or begin the database.

        Raises:
            StorageError: the file cannot be opened or made (permissions, disk full).
        """
        try:
            await self._loop.run_in_executor(self._thread, self._open)
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            detail = str(getattr(error, "strerror", None) or error)
            raise StorageError("storage_failed", path=str(self.path), detail=detail) from error
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Let what is under way end, then close. Safe to call twice, and while being cancelled."""
        if self._closed:
            return
        self._closed = True
        closing = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))

    async def write(self, rule: Callable[[Tx], _T], place: str | None = None) -> _T:
        """Run ``rule`` in a transaction of its own, committed when it returns, rolled back when it raises.
        ``place``: see :class:`Tx`.

        Being cancelled here does not undo what has begun: it is committed and published all the same. Where
        damage shows, ``rule`` is run a second time on what could be saved: it must have no effects but on
        its transaction.

        Raises:
            StorageError: SQLite refused. Whatever ``rule`` raises is passed on.
        """
        return await self._call(self._write, rule, place)

    async def read(self, rule: Callable[[Tx], _T], place: str | None = None) -> _T:
        """Like :meth:`write` for what only reads: no transaction is begun."""
        return await self._call(self._read, rule, place)

    async def _call(
        self,
        how: Callable[[Callable[[Tx], _T], str | None], _T],
        rule: Callable[[Tx], _T],
        place: str | None,
    ) -> _T:
        if self._closed:
            raise StorageError("storage_closed")
        try:
            return await self._loop.run_in_executor(self._thread, how, rule, place)
        except sqlite3.Error as error:
            raise StorageError("storage_failed", path=str(self.path), detail=str(error)) from error

    # --- in the database thread ----------------------------------------------------------------------

    def _write(self, rule: Callable[[Tx], _T], place: str | None) -> _T:
        try:
            return self._transact(rule, place)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._replace(str(error))
            return self._transact(rule, place)

    def _transact(self, rule: Callable[[Tx], _T], place: str | None) -> _T:
        db = self._connection()
        tx = Tx(db, self._clock.now(), place)
        db.execute("BEGIN IMMEDIATE")
        try:
            result = rule(tx)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                db.execute("ROLLBACK")
            raise
        if tx.changes or tx.hints or tx.alarm is not None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to be told
                self._loop.call_soon_threadsafe(self._publish, tx)
        return result

    def _read(self, rule: Callable[[Tx], _T], place: str | None) -> _T:
        try:
            return rule(Tx(self._connection(), self._clock.now(), place))
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._replace(str(error))
            return rule(Tx(self._connection(), self._clock.now(), place))

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = _connect(self.path)
        return self._db

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.begun = os.stat(self.path).st_size == 0
        except FileNotFoundError:
            self.begun = True
        try:
            self._db = _connect(self.path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._replace(str(error))

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _replace(self, cause: str) -> None:
        """Set the damaged file aside, begin a new one, copy what can be read."""
        self._close()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for suffix in _COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        fresh: sqlite3.Connection | None = None
        try:
            fresh = _connect(self.path)
            saved, incomplete = _salvage(aside, fresh)
        except BaseException:
            # No room for the copy, most likely: back to where it was, for a time with more room. What was
            # begun holds nothing, and left there it would be taken for the whole.
            if fresh is not None:
                fresh.close()
            for suffix in _COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.path}{suffix}")
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{aside}{suffix}", f"{self.path}{suffix}")
            raise
        self._db = fresh
        self.damage = DamageReport(aside, cause, saved, incomplete)
        _log.warning(
            "The hub's database was damaged (%s). It is kept as %s; %d rows were saved, incomplete: %s.",
            cause,
            aside,
            sum(saved.values()),
            ", ".join(incomplete) or "nothing",
        )


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a checked and migrated database; the file is for this user alone."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA temp_store = MEMORY")
        if path.stat().st_size <= CHECK_LIMIT_BYTES:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise _Damaged(verdict)
        # Not heeded before: a table that is made anew takes what refers to it along when the old one goes.
        db.execute("PRAGMA foreign_keys = OFF")
        _migrate(db)
        db.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Apply the migrations that are missing. A newer version's additions are left as they are."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise


class _Damaged(sqlite3.DatabaseError):
    """The integrity check found something."""


def _is_damage(error: sqlite3.Error) -> bool:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _Damaged) or (
        code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def _salvage(damaged: Path, target: sqlite3.Connection) -> tuple[dict[str, int], tuple[str, ...]]:
    """Copy every readable row, from both ends of each table. Returns rows saved and tables with a loss."""
    saved: dict[str, int] = {}
    incomplete: list[str] = []
    source = sqlite3.connect(damaged, isolation_level=None)
    try:
        with contextlib.suppress(sqlite3.Error):
            # Makes SQLite read on in a file that is shorter than its header says.
            source.execute("PRAGMA writable_schema = ON")
        target.execute("PRAGMA foreign_keys = OFF")
        target.execute("BEGIN IMMEDIATE")
        for table, order in TABLES:
            whole = _copy(source, target, table, f"ORDER BY {order}")
            if not whole:
                incomplete.append(table)
                _copy(source, target, table, f"ORDER BY {order} DESC")
        for statement in ORPHANS:
            target.execute(statement)
        for table, _order in TABLES:
            saved[table] = target.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        target.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            target.execute("ROLLBACK")
        raise
    finally:
        target.execute("PRAGMA foreign_keys = ON")
        source.close()
    return saved, tuple(incomplete)


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str, order: str) -> bool:
    """Copy one table until it ends (True) or cannot be read on (False)."""
    known = {row[1] for row in target.execute(f"PRAGMA table_info({table})")}
    try:
        columns = [row[1] for row in source.execute(f"PRAGMA table_info({table})") if row[1] in known]
        if not columns:
            return False
        rows = source.execute(f"SELECT {', '.join(columns)} FROM {table} {order}")
    except sqlite3.Error:
        return False
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    for batch, whole in _batches(rows):
        for row in batch:
            with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError):  # a row of nonsense
                target.execute(insert, row)
        if not whole:
            return False
    return True


def _batches(rows: sqlite3.Cursor) -> Iterator[tuple[list[tuple[Any, ...]], bool]]:
    """Rows in batches, each with whether reading has gone well so far."""
    while True:
        batch: list[tuple[Any, ...]] = []
        try:
            while len(batch) < _SALVAGE_ROWS:
                row = rows.fetchone()
                if row is None:
                    yield batch, True
                    return
                batch.append(row)
        except (sqlite3.Error, UnicodeDecodeError):
            yield batch, False
            return
        yield batch, True
