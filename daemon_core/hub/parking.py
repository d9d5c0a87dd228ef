"""Tasks that a limit of the account holds up: they are not over, hold no slot, and go on later.

A parked task keeps its session and directory. It is queued again at the time its daemon has told (if it was
told to go on by itself), or when the user wants it to; what the agent is told then is to go on, since it
knows what it was at. A reply of the user's takes its place: the parked turn has failed then.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Final

from daemon_core.hub import service, tokens
from daemon_core.hub.clock import SECOND
from daemon_core.hub.rows import load_task
from daemon_core.hub.states import TaskEvent, TaskState, TransitionError
from daemon_core.hub.store import Hint, Tx
from daemon_core.hub.views import HubTask
from daemon_core.protocol import failures, wire

GO_ON: Final = (
    "Your work on this was interrupted by a usage limit, which has reset. Go on where you were, and finish"
    " it."
)
LATEST: Final = 400 * 86400 * SECOND
"""A time further away than this is a mistake: then nobody said one."""


def fail(tx: Tx, task_id: str, report: wire.FailRequest) -> sqlite3.Row:
    """The daemon reports an end that may only be a pause."""
    if not isinstance(report.parked, wire.Parked):
        return service.fail(tx, task_id, report)
    row = service.task_row(tx, task_id)
    until = _stored(report.parked.until, tx.now)
    session_id = report.session_id or row["session_id"]
    work_dir = report.work_dir or row["work_dir"]
    try:
        service.move(
            tx,
            row,
            TaskEvent.PARK,
            error=report.error,
            failure_reason=report.failure_reason or failures.AGENT_QUOTA,
            session_id=session_id,
            work_dir=work_dir,
            parked_until=until,
            goes_on=int(report.parked.goes_on and until is not None),
            lease_until=None,
            wait_detail=None,
        )
    except TransitionError:
        return row
    tokens.revoke(tx.db, row["no"])
    service.point(tx, row, session_id, work_dir)
    service.let_next_go(tx, row)
    if report.parked.goes_on:
        tx.wake_at(until)
    return service.task_row(tx, task_id)


def resume_due(tx: Tx) -> int | None:
    """Queue again what may go on by now; tell when the next may."""
    for row in tx.all(
        "SELECT * FROM task WHERE status = 'parked' AND goes_on = 1 AND parked_until <= ? ORDER BY no",
        (tx.now,),
    ):
        _go_on(tx, row)
    found: int | None = tx.db.execute(
        "SELECT min(parked_until) FROM task WHERE status = 'parked' AND goes_on = 1"
    ).fetchone()[0]
    return found


def offer_due(tx: Tx) -> int | None:
    """Offer attempts whose pause is over; tell when the next one's is."""
    waiting = "status = 'queued' AND parked_until IS NOT NULL"
    for row in tx.all(f"SELECT * FROM task WHERE {waiting} AND parked_until <= ? ORDER BY no", (tx.now,)):
        tx.run("UPDATE task SET parked_until = NULL WHERE no = ?", (row["no"],))
        if row["runtime_id"] is not None:
            tx.hints.append(Hint("available", row["runtime_id"], row["id"]))
    found: int | None = tx.db.execute(f"SELECT min(parked_until) FROM task WHERE {waiting}").fetchone()[0]
    return found


def resume_now(tx: Tx, task_id: str) -> HubTask | None:
    """The user wants it to go on; None if it is not parked."""
    row = service.task_row(tx, task_id)
    if row["status"] != TaskState.PARKED:
        return None
    _go_on(tx, row)
    return load_task(tx, task_id)


def give_way(tx: Tx, task_id: str) -> None:
    """The user replies: what is parked in this conversation is not gone on with."""
    conversation_id = service.task_row(tx, task_id)["conversation_id"]
    for row in tx.all(
        "SELECT * FROM task WHERE conversation_id = ? AND status = 'parked' ORDER BY no", (conversation_id,)
    ):
        report = wire.FailRequest(error=row["error"] or "", failure_reason=row["failure_reason"])
        service.fail(tx, row["id"], report)


def prompt_of(tx: Tx, row: sqlite3.Row) -> str:
    """What the agent is told by a task that is handed out."""
    if row["gone_on"] and row["session_id"]:
        return GO_ON
    return service.prompt_of(tx, row["turn_id"])


def _go_on(tx: Tx, row: sqlite3.Row) -> None:
    service.move(
        tx,
        row,
        TaskEvent.DUE,
        parked_until=None,
        goes_on=0,
        gone_on=1,
        error=None,
        failure_reason=None,
        dispatched_at=None,
        started_at=None,
    )
    if row["runtime_id"] is not None:
        tx.hints.append(Hint("available", row["runtime_id"], row["id"]))


def _stored(text: str, now: int) -> int | None:
    """A time as it is stored; None for none, and for one that cannot be meant."""
    try:
        moment = datetime.fromisoformat(text)
        found = int(moment.timestamp() * SECOND)
    except (ValueError, OverflowError):
        return None
    return found if found <= now + LATEST else None
