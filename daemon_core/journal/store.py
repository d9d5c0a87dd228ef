"""The journal's one connection, on a thread of its own.

Every method is one transaction. Methods are coroutines that hop to the journal's thread; once the hop is
made the transaction is carried through even if the caller is cancelled, so a caller that is cancelled must
count with both outcomes (which is what a crash at this point amounts to, too).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from daemon_core.journal import salvage, schema
from daemon_core.journal.records import Report, RunRecord, TaskRecord, TranscriptChunk, WorkDirRow

log = logging.getLogger(__name__)

T = TypeVar("T")

QUICK_CHECK_LIMIT_BYTES = 64 * 1024 * 1024
"""A journal up to this size is checked as a whole on opening; reading a larger one would delay the start."""

_TASK_FIELDS = tuple(field.name for field in msgspec.structs.fields(TaskRecord))
_RUN_FIELDS = tuple(field.name for field in msgspec.structs.fields(RunRecord))
_WORK_DIR_FIELDS = tuple(field.name for field in msgspec.structs.fields(WorkDirRow))


class JournalError(Exception):
    """The journal cannot be used now: ``damaged`` (set aside at the next start) or ``full`` (no room on the
    disk or it cannot be written at the moment: the same transaction may succeed later). Neither: the
    transaction breaks a rule of the schema, and would again."""

    def __init__(self, message: str, *, damaged: bool = False, full: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged
        self.full = full


class Stretch(msgspec.Struct, kw_only=True):
    """What one stretch of an agent's output came to: committed as a whole or not at all.

    ``chunks`` are JSON arrays of messages with their sequence numbers already given; ``next_seq`` is the
    number after the last of them.
    """

    run_id: str
    task_key: str
    stdout_offset: int
    reader: bytes
    next_seq: int
    at: str
    chunks: Sequence[tuple[int, int, bytes]] = ()
    session_id: str = ""
    progressed: bool = False
    """Whether the agent was seen to get on."""
    reports: Sequence[tuple[str, bytes]] = ()
    """Further reports to put in the outbox behind the messages: (kind, body)."""
    requests: str | None = None
    """The task's requests where they have changed."""
    turns: int = 0
    """How many turns the agent has taken up in this run: what they were given to tell is delivered."""
    given: Sequence[int] = ()
    """Notices that go into a turn of this run, with what the reader has to say now."""
    given_turn: int = 0


class Journal:
    """See the module. Open with ``Journal.open``; ``close`` waits for transactions in flight."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where a damaged journal was put on opening, if it was."""
        self.salvaged: dict[str, int] = {}
        self.on_damage: Callable[[], None] = lambda: None
        """Called on the loop when damage shows while the journal is in use; may be called again."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._connection: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: Path) -> Journal:
        """Open or create the journal; a damaged one is set aside and what is readable carried over.

        Raises ``JournalError`` when the file cannot be created or written.
        """
        journal = cls(path)
        try:
            await journal._run(journal._open)
        except BaseException:
            journal._executor.shutdown(wait=False)
            raise
        return journal

    async def close(self) -> None:
        """Finish what is in flight and close. Safe to call twice."""
        if self._connection is None:
            return
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown(wait=True)

    # --- tasks ---------------------------------------------------------------------------------

    async def add_task(self, task: TaskRecord, run: RunRecord) -> bool:
        """Record a claim with its first run. False if the task is already there and not ended.

        A task that had ended here and was handed out again (a retry on the same id) is begun anew; its
        transcript and sequence numbers go on.
        """

        def add(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT state, next_seq, usage FROM tasks WHERE key = ?", (task.key,)).fetchone()
            if row is not None:
                if row[0] != "ended":
                    return False
                task.next_seq = row[1]
                task.usage = row[2]  # a server is told sums over all runs
                db.execute("DELETE FROM outbox WHERE task_key = ? AND kind <> 'messages'", (task.key,))
                run.number = (
                    1
                    + db.execute(
                        "SELECT coalesce(max(number), 0) FROM runs WHERE task_key = ?", (task.key,)
                    ).fetchone()[0]
                )
                _update(db, "tasks", "key", task.key, {name: getattr(task, name) for name in _TASK_FIELDS})
            else:
                _insert(db, "tasks", _TASK_FIELDS, task)
            _insert(db, "runs", _RUN_FIELDS, run)
            return True

        return await self._transaction(add)

    async def add_run(self, run: RunRecord, **changes: object) -> None:
        """Record a further run of a task and make it the current one, with these changes of the task.

        One transaction: usage that the earlier run is leaving behind must not be added twice.
        """

        def add(db: sqlite3.Connection) -> None:
            _insert(db, "runs", _RUN_FIELDS, run)
            _update(db, "tasks", "key", run.task_key, {**changes, "run_id": run.run_id})

        await self._transaction(add)

    async def update_task(self, key: str, **changes: object) -> None:
        """Change columns of a task."""
        await self._transaction(lambda db: _update(db, "tasks", "key", key, changes))

    async def update_run(self, run_id: str, **changes: object) -> None:
        """Change columns of a run."""
        await self._transaction(lambda db: _update(db, "runs", "run_id", run_id, changes))

    async def task(self, key: str) -> TaskRecord | None:
        """One task by its key."""
        found = await self._tasks("WHERE key = ?", (key,))
        return found[0] if found else None

    async def tasks_by_id(self, task_id: str) -> list[TaskRecord]:
        """Tasks with this id at any connection."""
        return await self._tasks("WHERE task_id = ?", (task_id,))

    async def find_tasks(self, prefix: str) -> list[TaskRecord]:
        """Tasks whose id or conversation begins like this (hexadecimal digits and dashes only)."""
        return await self._tasks(
            "WHERE task_id GLOB ? || '*' OR conversation_id GLOB ? || '*'", (prefix, prefix)
        )

    async def tasks_of(self, connection: str, conversation_id: str) -> list[TaskRecord]:
        """The tasks of a conversation (or the one task of this id), newest first."""
        return await self._tasks(
            "WHERE connection = ? AND (conversation_id = ? OR task_id = ?)"
            " ORDER BY claimed_at DESC, rowid DESC",
            (connection, conversation_id, conversation_id),
        )

    async def unfinished(self) -> list[TaskRecord]:
        """Tasks that have not ended here, oldest first."""
        return await self._tasks("WHERE state <> 'ended' ORDER BY claimed_at")

    async def undelivered(self) -> list[TaskRecord]:
        """Tasks that have ended here and whose reports are not all at the server."""
        return await self._tasks("WHERE state = 'ended' AND delivery = 'pending' ORDER BY claimed_at")

    async def open_connections(self) -> set[str]:
        """Names of the connections that unfinished or undelivered tasks are of."""

        def read(db: sqlite3.Connection) -> set[str]:
            rows = db.execute(
                "SELECT DISTINCT connection FROM tasks WHERE state <> 'ended' OR delivery = 'pending'"
            )
            return {str(row[0]) for row in rows if row[0]}

        return await self._transaction(read)

    async def recent(self, limit: int) -> list[TaskRecord]:
        """Tasks, newest first."""
        return await self._tasks("ORDER BY claimed_at DESC LIMIT ?", (limit,))

    async def history(
        self, before: int | None, limit: int, words: str, statuses: Sequence[str]
    ) -> list[tuple[int, TaskRecord]]:
        """(number, task) of a page of other servers' tasks, newest first; as the hub's for its own."""
        conditions, parameters = ["connection <> 'hub'"], list[object]()
        if before is not None:
            conditions.append("rowid < ?")
            parameters.append(before)
        if statuses:
            status = (
                "CASE WHEN state <> 'ended' THEN CASE state WHEN 'waiting_directory' THEN"
                " 'waiting_local_directory' WHEN 'started' THEN 'running' ELSE 'dispatched' END"
                " WHEN outcome = 'abandoned' THEN 'cancelled' ELSE outcome END"
            )
            conditions.append(f"{status} IN ({', '.join('?' * len(statuses))})")
            parameters += statuses
        if words:
            plain = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            columns = ("title", "agent_name", "provider", "directory")
            conditions.append("(" + " OR ".join(f"{name} LIKE ? ESCAPE '\\'" for name in columns) + ")")
            parameters += [f"%{plain}%"] * len(columns)

        def read(db: sqlite3.Connection) -> list[tuple[int, TaskRecord]]:
            rows = db.execute(
                f"SELECT rowid, {', '.join(_TASK_FIELDS)} FROM tasks WHERE {' AND '.join(conditions)}"
                " ORDER BY rowid DESC LIMIT ?",
                (*parameters, limit),
            )
            return [(row[0], TaskRecord(**dict(zip(_TASK_FIELDS, row[1:], strict=True)))) for row in rows]

        return await self._transaction(read)

    async def runs(self, task_key: str) -> list[RunRecord]:
        """The runs of a task, first to last."""

        def read(db: sqlite3.Connection) -> list[RunRecord]:
            names = ", ".join(_RUN_FIELDS)
            rows = db.execute(f"SELECT {names} FROM runs WHERE task_key = ? ORDER BY number", (task_key,))
            return [RunRecord(**dict(zip(_RUN_FIELDS, row, strict=True))) for row in rows]

        return await self._transaction(read)

    async def known_runs(self) -> set[str]:
        """Ids of all runs in the journal."""
        return await self._transaction(lambda db: {row[0] for row in db.execute("SELECT run_id FROM runs")})

    async def runs_ended_before(self, moment: str) -> list[str]:
        """Ids of runs that ended before a time (RFC 3339, UTC) and whose task has ended."""
        query = (
            "SELECT runs.run_id FROM runs JOIN tasks ON key = task_key"
            " WHERE runs.ended_at <> '' AND runs.ended_at < ? AND tasks.state = 'ended'"
        )
        return await self._transaction(lambda db: [row[0] for row in db.execute(query, (moment,))])

    async def work_dirs(self) -> dict[str, WorkDirRow]:
        """For each work directory the last task that was in it."""

        def read(db: sqlite3.Connection) -> dict[str, WorkDirRow]:
            names = ", ".join(_WORK_DIR_FIELDS)
            rows = db.execute(f"SELECT {names} FROM tasks WHERE work_dir <> '' ORDER BY claimed_at")
            found = (WorkDirRow(**dict(zip(_WORK_DIR_FIELDS, row, strict=True))) for row in rows)
            return {row.work_dir: row for row in found}

        return await self._transaction(read)

    async def task_keys(self) -> set[str]:
        """Keys of all tasks in the journal."""
        return await self._transaction(lambda db: {row[0] for row in db.execute("SELECT key FROM tasks")})

    async def has_tasks_of(self, connection: str) -> bool:
        """Whether there is any task of this connection."""
        query = "SELECT EXISTS (SELECT 1 FROM tasks WHERE connection = ?)"
        return bool(await self._transaction(lambda db: db.execute(query, (connection,)).fetchone()[0]))

    async def delete_task(self, key: str) -> None:
        """Forget a task with its runs, transcript and reports."""
        await self._transaction(lambda db: db.execute("DELETE FROM tasks WHERE key = ?", (key,)))

    async def prune(self, ended_before: str) -> list[str]:
        """Forget delivered tasks that ended before a time (RFC 3339, UTC); gives the ids of their runs."""

        def prune(db: sqlite3.Connection) -> list[str]:
            # A parked task goes on, with the numbers of its transcript; it goes with its conversation.
            where = "state = 'ended' AND delivery <> 'pending' AND ended_at < ? AND outcome <> 'parked'"
            runs = db.execute(
                f"SELECT run_id FROM runs WHERE task_key IN (SELECT key FROM tasks WHERE {where})",
                (ended_before,),
            ).fetchall()
            db.execute(f"DELETE FROM tasks WHERE {where}", (ended_before,))
            return [row[0] for row in runs]

        return await self._transaction(prune)

    # --- output --------------------------------------------------------------------------------

    async def commit_stretch(self, stretch: Stretch) -> None:
        """Commit messages, offset and reader state of one stretch of output together."""
        await self._transaction(lambda db: _commit_stretch(db, stretch))

    async def end_task(
        self, key: str, changes: dict[str, object], reports: Iterable[tuple[str, bytes]]
    ) -> None:
        """Make a result durable: the task's final columns and its last reports in one transaction.

        A terminal report that is there already stays the only one (promise P1).
        """

        def end(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT state FROM tasks WHERE key = ?", (key,)).fetchone()
            if row is None or row[0] == "ended":
                return
            _update(db, "tasks", "key", key, {**changes, "state": "ended"})
            for kind, body in reports:
                db.execute(
                    "INSERT OR IGNORE INTO outbox(task_key, kind, body) VALUES (?, ?, ?)", (key, kind, body)
                )

        await self._transaction(end)

    async def transcript(self, task_key: str, after: int, limit: int) -> list[TranscriptChunk]:
        """Chunks holding messages after ``after``, at most ``limit`` of them, in order."""

        def read(db: sqlite3.Connection) -> list[TranscriptChunk]:
            rows = db.execute(
                "SELECT first_seq, last_seq, at, body FROM transcript WHERE task_key = ?1 AND last_seq > ?2"
                # The chunk that holds ?2 + 1 is the last one that begins at or before it: by the index.
                " AND first_seq >= coalesce((SELECT max(first_seq) FROM transcript"
                " WHERE task_key = ?1 AND first_seq <= ?2 + 1), 0) ORDER BY first_seq LIMIT ?3",
                (task_key, after, limit),
            )
            return [
                TranscriptChunk(first_seq=first, last_seq=last, at=at, body=bytes(body))
                for first, last, at, body in rows
            ]

        return await self._transaction(read)

    # --- outbox --------------------------------------------------------------------------------

    async def reports(self, task_key: str, max_messages: int, max_bytes: int) -> list[Report]:
        """The next reports of a task in order: leading ``messages`` up to the limits, or one other."""

        def read(db: sqlite3.Connection) -> list[Report]:
            found: list[Report] = []
            count = size = 0
            for row in db.execute(
                "SELECT o.id, o.kind, o.first_seq, o.last_seq, coalesce(o.body, t.body)"
                " FROM outbox o LEFT JOIN transcript t"
                " ON o.kind = 'messages' AND t.task_key = o.task_key AND t.first_seq = o.first_seq"
                " WHERE o.task_key = ? ORDER BY o.id",
                (task_key,),
            ):
                report = Report(
                    id=row[0], task_key=task_key, kind=row[1], first_seq=row[2], last_seq=row[3],
                    body=bytes(row[4] if row[4] is not None else b"[]"),
                )  # fmt: skip
                count += report.last_seq - report.first_seq + 1
                size += len(report.body)
                if found and (report.kind != "messages" or count > max_messages or size > max_bytes):
                    break
                found.append(report)
                if report.kind != "messages":
                    break
            return found

        return await self._transaction(read)

    async def acknowledge(self, report_ids: Sequence[int]) -> None:
        """Reports have reached the server: take them out of the outbox."""
        await self._transaction(
            # Closed here: a cursor that dies in another thread resets a statement that this one is using.
            lambda db: db.executemany("DELETE FROM outbox WHERE id = ?", [(n,) for n in report_ids]).close()
        )

    async def replace_report(self, report_id: int, kind: str, body: bytes) -> None:
        """Say something else in place of a report that the server refuses for good."""
        await self._transaction(
            lambda db: db.execute(
                "UPDATE outbox SET kind = ?, body = ? WHERE id = ?", (kind, body, report_id)
            )
        )

    async def drop_reports(self, task_key: str) -> None:
        """The server does not want anything of this task any more."""
        await self._transaction(lambda db: db.execute("DELETE FROM outbox WHERE task_key = ?", (task_key,)))

    async def outbox_size(self) -> int:
        """Number of reports that wait."""
        return await self._transaction(lambda db: db.execute("SELECT count(*) FROM outbox").fetchone()[0])

    # --- tables of other rooms ------------------------------------------------------------------

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction of a store that keeps its tables here, on the journal's thread.

        ``work`` must be quick and must not keep the connection or a cursor. Raises ``JournalError``; any
        other error of ``work`` undoes the transaction and is raised as it is.
        """
        return await self._transaction(work)

    # --- small facts ---------------------------------------------------------------------------

    async def get_meta(self, name: str) -> str | None:
        """A small fact by name."""

        def read(db: sqlite3.Connection) -> str | None:
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            return None if row is None else str(row[0])

        return await self._transaction(read)

    async def set_meta(self, name: str, value: str | None) -> None:
        """Keep (or with None forget) a small fact."""

        def write(db: sqlite3.Connection) -> None:
            if value is None:
                db.execute("DELETE FROM meta WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", (name, value))

        await self._transaction(write)

    # --- inside --------------------------------------------------------------------------------

    async def _tasks(self, where: str, parameters: Sequence[object] = ()) -> list[TaskRecord]:
        def read(db: sqlite3.Connection) -> list[TaskRecord]:
            rows = db.execute(f"SELECT {', '.join(_TASK_FIELDS)} FROM tasks {where}", tuple(parameters))
            return [TaskRecord(**dict(zip(_TASK_FIELDS, row, strict=True))) for row in rows]

        return await self._transaction(read)

    async def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transact() -> T:
            assert self._connection is not None
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    return work(self._connection)
            except sqlite3.Error as error:
                explained = _explain(self.path, error)
                if explained.damaged:
                    self._suspect()
                raise explained from error

        try:
            return await self._run(transact)
        except JournalError as error:
            if error.damaged:
                self.on_damage()
            raise

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, work))

    def _suspect(self) -> None:
        """Leave a note for the next start: a journal too large to be checked then is checked all the same."""
        with contextlib.suppress(OSError):
            _suspected(self.path).touch(mode=0o600)

    def _open(self) -> None:
        try:
            self._connection = self._connect()
        except JournalError as error:
            if not error.damaged:
                raise
            self.set_aside = salvage.set_aside(self.path)
            self._connection = self._connect()
            try:
                self.salvaged = salvage.copy_readable(self.set_aside, self._connection)
            except sqlite3.Error as failure:
                # No room for the copy, most likely: back to where it was, for a start with more room.
                self._connection.close()
                self._connection = None
                salvage.put_back(self.set_aside, self.path)
                raise _explain(self.path, failure) from failure
            log.error(
                "the journal was damaged (%s); it was set aside as %s and %s of its rows were carried over",
                error,
                self.set_aside.name,
                sum(self.salvaged.values()),
            )

    def _connect(self) -> sqlite3.Connection:
        try:
            # 0600 from the first moment: SQLite takes over the mode for its companions.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise JournalError(f"the journal {self.path} cannot be opened: {why}") from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # Survives the death of the process; a power cut may cost the last moments, never consistency.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA busy_timeout = 5000")
            connection.execute("PRAGMA cache_size = -1024")
            connection.execute("PRAGMA journal_size_limit = 4194304")
            suspected = _suspected(self.path)
            if suspected.exists() or self.path.stat().st_size <= QUICK_CHECK_LIMIT_BYTES:
                verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise JournalError(str(verdict), damaged=True)
                suspected.unlink(missing_ok=True)
            schema.migrate(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _explain(self.path, error) from error
        except JournalError:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _commit_stretch(db: sqlite3.Connection, stretch: Stretch) -> None:
    for first, last, body in stretch.chunks:
        db.execute(
            "INSERT INTO transcript(task_key, first_seq, last_seq, at, body) VALUES (?, ?, ?, ?, ?)",
            (stretch.task_key, first, last, stretch.at, body),
        )
        db.execute(
            "INSERT INTO outbox(task_key, kind, first_seq, last_seq) VALUES (?, 'messages', ?, ?)",
            (stretch.task_key, first, last),
        )
    for kind, body in stretch.reports:
        db.execute(
            "INSERT INTO outbox(task_key, kind, body) VALUES (?, ?, ?)", (stretch.task_key, kind, body)
        )
    if stretch.requests is not None:
        _update(db, "tasks", "key", stretch.task_key, {"requests": stretch.requests})
    if stretch.turns:
        db.execute(
            "UPDATE notices SET state = 'delivered', settled_at = ?"
            " WHERE given_to = ? AND state = 'given' AND given_turn <= ?",
            (stretch.at, stretch.run_id, stretch.turns),
        )
    if stretch.given:
        db.executemany(
            "UPDATE notices SET state = 'given', given_to = ?, given_turn = ?, given_at = ?,"
            " times = times + 1 WHERE id = ? AND state = 'pending'",
            [(stretch.run_id, stretch.given_turn, stretch.at, number) for number in stretch.given],
        ).close()
    progress_at = stretch.at if stretch.progressed else ""
    db.execute(
        "UPDATE runs SET stdout_offset = ?, reader = ?, progress_at = CASE ? WHEN '' THEN progress_at"
        " ELSE ? END WHERE run_id = ?",
        (stretch.stdout_offset, stretch.reader, progress_at, progress_at, stretch.run_id),
    )
    db.execute(
        "UPDATE tasks SET next_seq = ?, session_id = CASE ? WHEN '' THEN session_id ELSE ? END WHERE key = ?",
        (stretch.next_seq, stretch.session_id, stretch.session_id, stretch.task_key),
    )


def _insert(db: sqlite3.Connection, table: str, names: Sequence[str], row: object) -> None:
    marks = ", ".join("?" * len(names))
    db.execute(
        f"INSERT INTO {table}({', '.join(names)}) VALUES ({marks})", [getattr(row, name) for name in names]
    )


def _update(db: sqlite3.Connection, table: str, key: str, value: str, changes: dict[str, object]) -> None:
    names = ", ".join(f"{name} = ?" for name in changes)
    db.execute(f"UPDATE {table} SET {names} WHERE {key} = ?", (*changes.values(), value))


def _suspected(path: Path) -> Path:
    return path.with_name(f"{path.name}.check")


_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def _explain(path: Path, error: sqlite3.Error) -> JournalError:
    text = str(error)
    # The extended code has the primary one in its lowest byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return JournalError(f"the journal {path}: {text}", damaged=code in _DAMAGED, full=code in _PASSING)
