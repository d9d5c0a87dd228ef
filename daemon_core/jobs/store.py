"""The journal's rows of jobs: what was started, how it stands, how it ended.

A row is there before its process is (so that a start is never forgotten) and until its files are gone (so
that nothing on the disk is nobody's). What an agent is to be told of a change is written in the same
transaction as the change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from daemon_core.jobs.notices import put_notice
from daemon_core.journal import Journal

JobStatus = Literal["running", "done", "failed", "killed", "timed_out", "lost"]
"""``killed``: somebody wanted it ended; it stays that however its process ends."""


class JobRecord(msgspec.Struct, kw_only=True):
    """One job. No field holds a secret, apart from what somebody has written into the command itself."""

    id: str
    conversation: str = ""
    """Whose it is; empty: a person's."""
    task_key: str = ""
    """The task that has started it."""
    run_id: str = ""
    name: str = ""
    command: str
    cwd: str
    terminal: bool = True
    time_limit_s: float = 0.0
    wake: bool = True
    state: str = "created"
    """``created``: it may have to be started yet. ``started``: it was. ``ended``: its tree is gone."""
    status: str = "running"
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    created_at: str
    started_at: str = ""
    ended_at: str = ""
    pid: int | None = None
    stalled_at: str = ""
    """Since when it seems to wait for input; empty: it does not."""
    stalls: int = 0
    followed_up_at: str = ""
    """When whoever started it had heard of its end, where that was not by a notice."""
    mark: str = ""
    removed: bool = False
    """Its files are being removed, then it is forgotten."""

    @property
    def ended(self) -> bool:
        return self.state == "ended"


_FIELDS = tuple(field.name for field in msgspec.structs.fields(JobRecord))
_NAMES = ", ".join(_FIELDS)
_FLAGS = ("terminal", "wake", "removed")


class JobNotice(msgspec.Struct, kw_only=True, frozen=True):
    """What the agent is to be told of a change."""

    kind: str
    body: str
    dedup: str
    wake: bool


class JobStore:
    """See the module."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def add(self, job: JobRecord) -> bool:
        """Record a job that is about to be started; False if there is one with its id."""

        def add(db: sqlite3.Connection) -> bool:
            marks = ", ".join("?" * len(_FIELDS))
            values = [getattr(job, name) for name in _FIELDS]
            return db.execute(f"INSERT OR IGNORE INTO jobs({_NAMES}) VALUES ({marks})", values).rowcount == 1

        return await self._journal.transact(add)

    async def update(self, job_id: str, **changes: object) -> None:
        """Change columns of a job that has not ended."""
        names = ", ".join(f"{name} = ?" for name in changes)
        await self._journal.transact(
            lambda db: db.execute(
                f"UPDATE jobs SET {names} WHERE id = ? AND state <> 'ended'", (*changes.values(), job_id)
            ).close()
        )

    async def mark_killed(self, job_id: str, at: str) -> bool:
        """Somebody wants it ended: from here on that is what it is. False if it had ended before.

        What its agent would have been told of it, and was not yet, is not told any more.
        """

        def mark(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE jobs SET status = 'killed' WHERE id = ? AND state <> 'ended'", (job_id,)
            ).rowcount
            if changed:
                # A stall that nobody was told of is over; that it was killed is known to who killed it.
                _drop(db, job_id, at)
            return changed == 1

        return await self._journal.transact(mark)

    async def end(
        self, job_id: str, changes: dict[str, object], notice: JobNotice | None, at: str
    ) -> JobRecord | None:
        """Make an end durable, with what is to be told of it; the row afterwards, None if it is gone.

        A job that has ended is left as it is, and one that was killed stays killed and tells nobody.
        """

        def end(db: sqlite3.Connection) -> JobRecord | None:
            job = _one(db, job_id)
            if job is None or job.ended:
                return job
            found = {**changes, "state": "ended", "ended_at": changes.get("ended_at") or at, "stalled_at": ""}
            if job.status == "killed":
                found["status"] = "killed"
                _drop(db, job_id, at)  # one that was put back meanwhile
            _put(db, job_id, found)
            if notice is not None and job.conversation and found["status"] != "killed":
                _tell(db, job, notice)
            return _one(db, job_id)

        return await self._journal.transact(end)

    async def stall(self, job_id: str, at: str, notice: JobNotice) -> JobRecord | None:
        """It seems to wait for input: said once until its output grows. None if there is nothing new."""

        def stall(db: sqlite3.Connection) -> JobRecord | None:
            job = _one(db, job_id)
            if job is None or job.ended or job.stalled_at or job.status != "running":
                return None
            _put(db, job_id, {"stalled_at": at, "stalls": job.stalls + 1})
            if job.conversation:
                _tell(db, job, notice)
            return _one(db, job_id)

        return await self._journal.transact(stall)

    async def get(self, job_id: str) -> JobRecord | None:
        """One job by its whole id."""
        return await self._journal.transact(lambda db: _one(db, job_id))

    async def unfinished(self) -> list[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return await self._read("WHERE state <> 'ended' ORDER BY created_at")

    async def of_conversation(self, conversation: str) -> list[JobRecord]:
        """The jobs of a conversation, oldest first."""
        return await self._read("WHERE conversation = ? AND removed = 0 ORDER BY created_at", (conversation,))

    async def all(self) -> list[JobRecord]:
        """Every job that is known, oldest first."""
        return await self._read("WHERE removed = 0 ORDER BY created_at")

    async def ids(self) -> set[str]:
        """Ids of all jobs, those that are being removed, too."""
        return await self._journal.transact(lambda db: {row[0] for row in db.execute("SELECT id FROM jobs")})

    async def heard(self, job_id: str, at: str) -> None:
        """Whoever started it has seen its end: it is not told once more."""

        def note(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE jobs SET followed_up_at = ? WHERE id = ? AND state = 'ended' AND followed_up_at = ''",
                (at, job_id),
            ).rowcount
            if changed:
                _drop(db, job_id, at)

        await self._journal.transact(note)

    # --- retention -----------------------------------------------------------------------------

    async def ended(self) -> list[tuple[JobRecord, str]]:
        """Jobs that have ended and were not removed, oldest end first, each with when its end was followed up
        (empty: it was not)."""

        def read(db: sqlite3.Connection) -> list[tuple[JobRecord, str]]:
            told = dict(
                db.execute(
                    "SELECT subject, max(settled_at) FROM notices WHERE state = 'delivered'"
                    " AND kind IN ('job_ended', 'job_timed_out') GROUP BY subject"
                ).fetchall()
            )
            jobs = _rows(db, "WHERE state = 'ended' AND removed = 0 ORDER BY ended_at")
            return [(job, job.followed_up_at or told.get(job.id, "")) for job in jobs]

        return await self._journal.transact(read)

    async def removing(self) -> list[str]:
        """Jobs whose removal was begun."""
        return await self._journal.transact(
            lambda db: [row[0] for row in db.execute("SELECT id FROM jobs WHERE removed = 1")]
        )

    async def give_up(self, conversation: str) -> list[str]:
        """Its conversation is gone: each of its jobs is killed and to be removed; gives the ids of those that
        were not yet."""

        def mark(db: sqlite3.Connection) -> list[str]:
            ids = [
                row[0]
                for row in db.execute(
                    "SELECT id FROM jobs WHERE conversation = ? AND removed = 0", (conversation,)
                )
            ]
            db.execute(
                "UPDATE jobs SET removed = 1, status = CASE state WHEN 'ended' THEN status ELSE 'killed' END"
                " WHERE conversation = ?",
                (conversation,),
            ).close()
            return ids

        return await self._journal.transact(mark)

    async def begin_removal(self, job_id: str) -> bool:
        """From here on the job is not there any more; its files may go. False for one that goes on."""
        return await self._journal.transact(
            lambda db: (
                db.execute("UPDATE jobs SET removed = 1 WHERE id = ? AND state = 'ended'", (job_id,)).rowcount
                == 1
            )
        )

    async def forget(self, job_id: str) -> None:
        """Its files are gone: so is it."""
        await self._journal.transact(
            lambda db: db.execute("DELETE FROM jobs WHERE id = ? AND removed = 1", (job_id,)).close()
        )

    async def _read(self, where: str, parameters: Sequence[object] = ()) -> list[JobRecord]:
        return await self._journal.transact(lambda db: _rows(db, where, parameters))


def _rows(db: sqlite3.Connection, where: str, parameters: Sequence[object] = ()) -> list[JobRecord]:
    found = []
    for row in db.execute(f"SELECT {_NAMES} FROM jobs {where}", tuple(parameters)):
        values = dict(zip(_FIELDS, row, strict=True))
        values.update({name: bool(values[name]) for name in _FLAGS})
        found.append(JobRecord(**values))
    return found


def _one(db: sqlite3.Connection, job_id: str) -> JobRecord | None:
    found = _rows(db, "WHERE id = ?", (job_id,))
    return found[0] if found else None


def _put(db: sqlite3.Connection, job_id: str, changes: dict[str, object]) -> None:
    names = ", ".join(f"{name} = ?" for name in changes)
    db.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*changes.values(), job_id)).close()


def _drop(db: sqlite3.Connection, job_id: str, at: str) -> None:
    """What is not told yet of a job is not told any more."""
    db.execute(
        "UPDATE notices SET state = 'dropped', settled_at = ? WHERE subject = ? AND state = 'pending'",
        (at, job_id),
    ).close()


def _tell(db: sqlite3.Connection, job: JobRecord, notice: JobNotice) -> None:
    put_notice(
        db,
        conversation=job.conversation,
        kind=notice.kind,
        subject=job.id,
        body=notice.body,
        dedup=notice.dedup,
        wake=notice.wake,
    )
