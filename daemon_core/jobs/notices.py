"""What an agent is still to be told: that a job of its conversation, or a task it has handed on, has ended or
waits for something.

A notice is kept in the journal and goes this way, and no other:

    pending ── give ──▶ given (to a turn of a run) ── the agent takes up the turn ──▶ delivered
       ▲                   │
       └──── put back ─────┘          pending or given ── its conversation is deleted ──▶ dropped

One that was put back waits for the conversation's next turn, whatever that is for: an agent that fails at
each turn is not woken again and again.

*Delivered* is written by the journal itself, in the transaction that commits the first events of the turn
that carries the notice (``Stretch.turns``). So a crash can at most have it shown twice, which is then said;
it is never lost. A notice is made once: its ``dedup`` text names what it tells, and a second one with the
same text is the first one.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from daemon_core.journal import Journal

NoticeState = Literal["pending", "given", "delivered", "dropped"]

_FIELDS = (
    "id, conversation, kind, subject, body, wake, created_at, state, given_to, given_turn, times, given_at"
)


class Notice(msgspec.Struct, kw_only=True, frozen=True):
    """One thing to be told. ``body`` is plain text, whole sentences, for the agent's eyes."""

    id: int
    conversation: str
    kind: str
    """``job_ended``, ``job_stalled``, ``job_timed_out``, ``child_ended``, ..."""
    subject: str
    """What it is about: a job's id, a task's key."""
    body: str
    wake: bool
    """Whether a new turn is begun for it. False: it waits for the next turn there is."""
    created_at: str
    state: str
    given_to: str = ""
    """The run that it was given to."""
    given_turn: int = 0
    """The turn within that run, 1 for its first."""
    tried: bool = False
    """Whether it was given to a turn before: nothing is begun for it any more, it waits for the next turn."""
    times: int = 0
    """How often it may have been shown before it was given this time."""


def worth_a_turn(notices: Iterable[Notice]) -> bool:
    """Whether a turn is begun for any of these."""
    return any(notice.wake and not notice.tried for notice in notices)


class Notices:
    """The store, on the journal's thread. ``on_added`` hears on the loop which conversation has got one."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.on_added: Callable[[str], None] = lambda conversation: None

    async def add(
        self, *, conversation: str, kind: str, subject: str, body: str, dedup: str = "", wake: bool = True
    ) -> int:
        """Keep a notice and tell who gives it; the id of the one that is there already if there is one.

        Args:
            dedup: what it tells, unique for all time; kind and subject if it is not given.
        """
        number = await self.journal.transact(
            lambda db: put_notice(
                db, conversation=conversation, kind=kind, subject=subject, body=body, dedup=dedup, wake=wake
            )
        )
        self.on_added(conversation)
        return number

    async def pending(self, conversation: str) -> list[Notice]:
        """What is to be told and not given to any run, oldest first."""
        return await self._read("WHERE conversation = ? AND state = 'pending' ORDER BY id", (conversation,))

    async def given(self, run_id: str) -> list[Notice]:
        """What a run has been given and has not been seen to take up."""
        return await self._read("WHERE given_to = ? AND state = 'given' ORDER BY id", (run_id,))

    async def of_subject(self, subject: str) -> list[Notice]:
        """Everything about one job or task, oldest first."""
        return await self._read("WHERE subject = ? ORDER BY id", (subject,))

    async def waiting(self) -> list[str]:
        """Conversations with something pending."""

        def read(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "SELECT conversation FROM notices WHERE state = 'pending'"
                " GROUP BY conversation ORDER BY min(id)"
            )
            return [str(row[0]) for row in rows]

        return await self.journal.transact(read)

    async def holders(self) -> list[str]:
        """Runs that have been given something and have not been seen to take it up."""

        def read(db: sqlite3.Connection) -> list[str]:
            return [
                row[0] for row in db.execute("SELECT DISTINCT given_to FROM notices WHERE state = 'given'")
            ]

        return await self.journal.transact(read)

    async def take(self, conversation: str, run_id: str) -> list[Notice]:
        """Give everything that is pending to the first turn of a run; all that this turn has been given,
        also before a crash, oldest first."""

        def take(db: sqlite3.Connection) -> list[Notice]:
            where = "WHERE conversation = ? AND state = 'pending' ORDER BY id"
            give_notices(db, [notice.id for notice in _rows(db, where, (conversation,))], run_id, 1)
            where = "WHERE given_to = ? AND given_turn = 1 AND state = 'given' ORDER BY id"
            return _rows(db, where, (run_id,))

        return await self.journal.transact(take)

    async def give(self, ids: Iterable[int], run_id: str, turn: int = 1) -> None:
        """These go into a turn of a run. Those that are not pending (any more) are left as they are."""
        wanted = [int(number) for number in ids]
        await self.journal.transact(lambda db: give_notices(db, wanted, run_id, turn))

    async def delivered(self, run_id: str, turns: int = 1) -> None:
        """The run has taken up this many turns (normally said by ``Stretch.turns``, with the output)."""
        at = _now()
        await self.journal.transact(
            lambda db: db.execute(
                "UPDATE notices SET state = 'delivered', settled_at = ?"
                " WHERE given_to = ? AND state = 'given' AND given_turn <= ?",
                (at, run_id, turns),
            ).close()
        )

    async def put_back(self, run_id: str, *, unseen: bool = False, untried: bool = False) -> int:
        """What a run was given and has not taken up is pending again; gives how many those are.

        Args:
            unseen: the agent cannot have seen them: its run has never begun.
            untried: a new turn may be begun for them: nobody knows of the run any more.
        """

        def put(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE notices SET state = 'pending', given_to = '', given_turn = 0,"
                " given_at = CASE ? WHEN 1 THEN '' ELSE given_at END, times = times - ?"
                " WHERE given_to = ? AND state = 'given'",
                (int(untried), int(unseen), run_id),
            ).rowcount

        return await self.journal.transact(put)

    async def drop_subject(self, subject: str) -> int:
        """Nobody is to be told about this any more (somebody killed the job); what was given stays given."""
        return await self._drop("subject = ? AND state = 'pending'", subject)

    async def drop_conversation(self, conversation: str) -> int:
        """The conversation is gone, and its notices with it; gives how many that ends."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM wakes WHERE conversation = ?", (conversation,)).close()

        count = await self._drop("conversation = ? AND state IN ('pending', 'given')", conversation)
        await self.journal.transact(forget)
        return count

    async def prune(self, before: str) -> int:
        """Forget what was settled before a time (RFC 3339, UTC); gives how many those were."""
        return await self.journal.transact(
            lambda db: (
                db.execute(
                    "DELETE FROM notices WHERE settled_at <> '' AND settled_at < ?", (before,)
                ).rowcount
            )
        )

    # --- wake-ups ------------------------------------------------------------------------------

    async def wakes(self, conversation: str) -> int:
        """How often the conversation was woken since a person last said something in it."""

        def read(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT count FROM wakes WHERE conversation = ?", (conversation,)).fetchone()
            return int(row[0]) if row is not None else 0

        return await self.journal.transact(read)

    async def woken(self, conversation: str) -> int:
        """Count a wake-up; gives how many there are now."""
        at = _now()

        def count(db: sqlite3.Connection) -> int:
            row = db.execute(
                "INSERT INTO wakes(conversation, count, at) VALUES (?1, 1, ?2)"
                " ON CONFLICT(conversation) DO UPDATE SET count = count + 1, at = ?2 RETURNING count",
                (conversation, at),
            ).fetchone()
            return int(row[0])

        return await self.journal.transact(count)

    async def person_spoke(self, conversation: str) -> None:
        """A person has said something: wake-ups are counted from here again."""
        await self.journal.transact(
            lambda db: db.execute("DELETE FROM wakes WHERE conversation = ?", (conversation,)).close()
        )

    # --- inside --------------------------------------------------------------------------------

    async def _read(self, where: str, parameters: tuple[object, ...]) -> list[Notice]:
        return await self.journal.transact(lambda db: _rows(db, where, parameters))

    async def _drop(self, where: str, parameter: str) -> int:
        at = _now()
        return await self.journal.transact(
            lambda db: (
                db.execute(
                    f"UPDATE notices SET state = 'dropped', settled_at = ? WHERE {where}", (at, parameter)
                ).rowcount
            )
        )


def put_notice(
    db: sqlite3.Connection,
    *,
    conversation: str,
    kind: str,
    subject: str,
    body: str,
    dedup: str = "",
    wake: bool = True,
) -> int:
    """The same as ``Notices.add`` within a transaction of the caller (a job's end and its notice together).

    ``Notices.on_added`` is to be called when the transaction is through.
    """
    dedup = dedup or f"{kind}:{subject}"
    db.execute(
        "INSERT OR IGNORE INTO notices(dedup, conversation, kind, subject, body, wake, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (dedup, conversation, kind, subject, body, int(wake), _now()),
    ).close()
    row = db.execute("SELECT id FROM notices WHERE dedup = ?", (dedup,)).fetchone()
    return int(row[0])


def give_notices(db: sqlite3.Connection, ids: Iterable[int], run_id: str, turn: int) -> None:
    """The same as ``Notices.give`` within a transaction of the caller."""
    db.executemany(
        "UPDATE notices SET state = 'given', given_to = ?, given_turn = ?, given_at = ?, times = times + 1"
        " WHERE id = ? AND state = 'pending'",
        [(run_id, turn, _now(), number) for number in ids],
    ).close()


def _rows(db: sqlite3.Connection, where: str, parameters: tuple[object, ...]) -> list[Notice]:
    return [
        Notice(
            id=row[0], conversation=row[1], kind=row[2], subject=row[3], body=row[4], wake=bool(row[5]),
            created_at=row[6], state=row[7], given_to=row[8], given_turn=row[9],
            times=row[10] - int(row[7] == "given"), tried=bool(row[11]),
        )
        for row in db.execute(f"SELECT {_FIELDS} FROM notices {where}", parameters)
    ]  # fmt: skip


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
