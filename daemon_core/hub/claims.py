"""Handing tasks out: which one a claim gets, what goes with it, and when it is handed out again."""

from __future__ import annotations

import msgspec

from daemon_core.hub import registry, tokens
from daemon_core.hub.clock import SECOND
from daemon_core.hub.dressing import dress
from daemon_core.hub.rows import wire_task
from daemon_core.hub.service import Scope, move, task_row
from daemon_core.hub.states import TaskEvent
from daemon_core.hub.store import Hint, Tx
from daemon_core.protocol import wire

_LOST = (
    "status = 'dispatched' AND started_at IS NULL AND dispatched_at <= ?"
    " AND (lease_until IS NULL OR lease_until <= ?)"
)

# One active task a conversation (of an agent on an issue), one of an agent that creates an issue, the agent's
# own limit, priority, then age.
_NEXT = """
    SELECT t.* FROM task AS t LEFT JOIN agent AS a ON a.id = t.agent_id
    WHERE t.runtime_id = :runtime_id AND t.status = 'queued' AND coalesce(t.parked_until, 0) <= :now
      AND NOT EXISTS (SELECT 1 FROM task AS o WHERE o.conversation_id = t.conversation_id
            AND o.status IN ('dispatched', 'waiting_local_directory', 'running'))
      AND NOT (t.kind = 'quick_create' AND EXISTS (SELECT 1 FROM task AS o WHERE o.agent_id = t.agent_id
            AND o.kind = 'quick_create' AND o.status IN ('dispatched', 'waiting_local_directory', 'running')))
      AND (coalesce(a.max_concurrent_tasks, 0) = 0
            OR (SELECT count(*) FROM task AS o WHERE o.agent_id = t.agent_id
                AND o.status IN ('dispatched', 'waiting_local_directory', 'running'))
               < a.max_concurrent_tasks)
      AND (:task_id = '' OR t.id = :task_id)
      AND (:model = '' OR coalesce(t.model, a.model, :default_model) = :model)
      AND coalesce(t.model, a.model, :default_model) NOT IN (SELECT value FROM json_each(:without))
    ORDER BY t.priority DESC, t.queue_no, t.no LIMIT 1
"""

_HELD_BACK = """
    SELECT DISTINCT coalesce(t.model, a.model, :default_model) AS model
    FROM task AS t LEFT JOIN agent AS a ON a.id = t.agent_id
    WHERE t.runtime_id = :runtime_id AND t.status = 'queued'
      AND coalesce(t.model, a.model, :default_model) IN (SELECT value FROM json_each(:without))
"""


def claim(
    tx: Tx,
    scope: Scope,
    runtime_id: str,
    *,
    redeliver: bool,
    capabilities: frozenset[str] = frozenset(),
    wish: wire.ClaimWish | None = None,
) -> wire.Task | None:
    """The next task of a runtime, dispatched and leased, with a token of its own; None when there is none.

    ``redeliver`` is False until the daemon has taken up its runs again: before that, a claim that looks lost
    may be one that it still has.
    """
    lease_until = tx.now + int(scope.limits.lease_s * SECOND)
    row = None
    wished = {**_wished(runtime_id, wish), "now": tx.now}
    if redeliver and not (wish is not None and wish.model):
        lost_before = tx.now - int(scope.limits.redelivery_s * SECOND)
        row = tx.one(
            f"SELECT * FROM task WHERE runtime_id = ? AND {_LOST} AND (? = '' OR id = ?)"
            " ORDER BY dispatched_at LIMIT 1",
            (runtime_id, lost_before, tx.now, wished["task_id"], wished["task_id"]),
        )
    event = TaskEvent.REDELIVER
    if row is None:
        event = TaskEvent.CLAIM
        row = tx.one(_NEXT, wished)
    if row is None:
        return None
    move(tx, row, event, dispatched_at=tx.now, lease_until=lease_until)
    tx.wake_at(tx.now + int(scope.limits.redelivery_s * SECOND))
    token = tokens.mint(tx.db, row["no"], tx.now, scope.limits)
    tx.wake_at(tx.now + int(scope.limits.token_life_s * SECOND))
    return dress(tx, scope, task_row(tx, row["id"]), token, capabilities)


def held_back(tx: Tx, runtime_id: str, wish: wire.ClaimWish) -> list[str]:
    """Models that nothing is wanted of now, of which tasks wait."""
    return [row["model"] for row in tx.all(_HELD_BACK, _wished(runtime_id, wish))] if wish.without else []


def claimable(tx: Tx, runtime_id: str, wish: wire.ClaimWish) -> bool:
    """Whether there is a task that a claim would get, lost ones apart: of those the daemon is told."""
    return tx.one(_NEXT, {**_wished(runtime_id, wish), "now": tx.now}) is not None


def _wished(runtime_id: str, wish: wire.ClaimWish | None) -> dict[str, str]:
    wish = wish or wire.ClaimWish()
    return {
        "runtime_id": runtime_id,
        "task_id": wish.task_id,
        "model": wish.model,
        "default_model": wish.default_model,
        "without": msgspec.json.encode(wish.without).decode(),
    }


def pending(tx: Tx, runtime_id: str) -> list[wire.Task]:
    """Queued and dispatched tasks of a runtime.

    Raises:
        NotFoundError: ``unknown_runtime``.
    """
    workspace_id = registry.workspace_of(tx, runtime_id)
    rows = tx.all(
        "SELECT * FROM task WHERE runtime_id = ? AND status IN ('queued', 'dispatched')"
        " ORDER BY priority DESC, queue_no, no",
        (runtime_id,),
    )
    return [wire_task(row, workspace_id) for row in rows]


def release_unknown(tx: Tx, scope: Scope, known: frozenset[str], before: int) -> None:
    """Hand out at once what was dispatched before ``before`` and the daemon knows nothing of: its claim was
    lost in a crash, so nobody waits for the lease."""
    lost = tx.now - int(scope.limits.redelivery_s * SECOND)
    rows = tx.all(
        "SELECT id FROM task WHERE status = 'dispatched' AND started_at IS NULL AND dispatched_at < ?",
        (before,),
    )
    for row in rows:
        if row["id"] not in known:
            tx.run(
                "UPDATE task SET dispatched_at = min(dispatched_at, ?), lease_until = NULL WHERE id = ?",
                (lost, row["id"]),
            )


def wake_lost(tx: Tx, scope: Scope) -> int | None:
    """Hint at every claim that was lost; tell when the next may be."""
    lost_before = tx.now - int(scope.limits.redelivery_s * SECOND)
    rows = tx.all(f"SELECT id, runtime_id FROM task WHERE {_LOST}", (lost_before, tx.now))
    for row in rows:
        if row["runtime_id"] is not None:
            tx.hints.append(Hint("available", row["runtime_id"], row["id"]))
    due: int | None = tx.db.execute(
        "SELECT min(max(dispatched_at + ?, coalesce(lease_until, 0))) FROM task"
        " WHERE status = 'dispatched' AND started_at IS NULL",
        (int(scope.limits.redelivery_s * SECOND),),
    ).fetchone()[0]
    if due is not None and due <= tx.now:
        # Hinted at just now and not yet claimed: the daemon may be full. Look again, but not at once.
        due = tx.now + int(scope.limits.redelivery_s * SECOND)
    return due
