"""Handing tasks out: which one a claim gets, what goes with it, and when it is handed out again."""

from __future__ import annotations

import sqlite3

import msgspec

from daemon_core.hub import tokens
from daemon_core.hub.clock import SECOND
from daemon_core.hub.rows import wire_task
from daemon_core.hub.service import Scope, move, prompt_of, task_row
from daemon_core.hub.states import TaskEvent
from daemon_core.hub.store import Hint, Tx
from daemon_core.protocol import failures, wire

_LOST = (
    "status = 'dispatched' AND started_at IS NULL AND dispatched_at <= ?"
    " AND (lease_until IS NULL OR lease_until <= ?)"
)

# One active task a conversation, the agent's own limit, priority, then age.
_NEXT = """
    SELECT t.* FROM task AS t LEFT JOIN agent AS a ON a.id = t.agent_id
    WHERE t.runtime_id = ? AND t.status = 'queued'
      AND NOT EXISTS (SELECT 1 FROM task AS o WHERE o.conversation_id = t.conversation_id
            AND o.status IN ('dispatched', 'waiting_local_directory', 'running'))
      AND (coalesce(a.max_concurrent_tasks, 0) = 0
            OR (SELECT count(*) FROM task AS o WHERE o.agent_id = t.agent_id
                AND o.status IN ('dispatched', 'waiting_local_directory', 'running'))
               < a.max_concurrent_tasks)
    ORDER BY t.priority DESC, t.queue_no, t.no LIMIT 1
"""


def claim(tx: Tx, scope: Scope, runtime_id: str, *, redeliver: bool) -> wire.Task | None:
    """The next task of a runtime, dispatched and leased, with a token of its own; None when there is none.

    ``redeliver`` is False until the daemon has taken up its runs again: before that, a claim that looks lost
    may be one that it still has.
    """
    lease_until = tx.now + int(scope.limits.lease_s * SECOND)
    row = None
    if redeliver:
        lost_before = tx.now - int(scope.limits.redelivery_s * SECOND)
        row = tx.one(
            f"SELECT * FROM task WHERE runtime_id = ? AND {_LOST} ORDER BY dispatched_at LIMIT 1",
            (runtime_id, lost_before, tx.now),
        )
    event = TaskEvent.REDELIVER
    if row is None:
        event = TaskEvent.CLAIM
        row = tx.one(_NEXT, (runtime_id,))
    if row is None:
        return None
    move(tx, row, event, dispatched_at=tx.now, lease_until=lease_until)
    tx.wake_at(tx.now + int(scope.limits.redelivery_s * SECOND))
    token = tokens.mint(tx.db, row["no"], tx.now, scope.limits)
    tx.wake_at(tx.now + int(scope.limits.token_life_s * SECOND))
    return _dress(tx, scope, task_row(tx, row["id"]), token)


def pending(tx: Tx, scope: Scope, runtime_id: str) -> list[wire.Task]:
    """Queued and dispatched tasks of a runtime."""
    rows = tx.all(
        "SELECT * FROM task WHERE runtime_id = ? AND status IN ('queued', 'dispatched')"
        " ORDER BY priority DESC, queue_no, no",
        (runtime_id,),
    )
    return [wire_task(row, scope.workspace_id) for row in rows]


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


def _dress(tx: Tx, scope: Scope, row: sqlite3.Row, token: str) -> wire.Task:
    """The claimed task with everything that its run needs."""
    conversation = tx.one("SELECT * FROM conversation WHERE id = ?", (row["conversation_id"],))
    assert conversation is not None, "a task without its conversation"
    task = wire_task(row, scope.workspace_id)
    task.auth_token = token
    task.thread_name = conversation["title"]
    task.chat_message = prompt_of(tx, row["turn_id"])
    task.prior_session_id, task.prior_work_dir = _resume_pointer(tx, row, conversation)
    task.initiator_type = "member"
    task.agent = _agent(tx, row)
    if conversation["repo_url"]:
        task.repos = [wire.Repo(url=conversation["repo_url"], ref=conversation["repo_ref"])]
    if conversation["directory"]:
        reference = wire.LocalDirectoryRef(local_path=conversation["directory"], daemon_id=scope.daemon_id)
        task.project_resources = [
            wire.ProjectResource(
                id=conversation["id"],
                resource_type="local_directory",
                resource_ref=msgspec.to_builtins(reference),
            )
        ]
    return task


def _resume_pointer(tx: Tx, row: sqlite3.Row, conversation: sqlite3.Row) -> tuple[str | None, str | None]:
    """Session and directory to go on from: an attempt's own, the conversation's, or an earlier turn's.

    A session counts only on the runtime that made it; a directory always: all runtimes are of one machine.
    """
    session_id, work_dir = row["session_id"], row["work_dir"]
    if row["fresh"]:
        return session_id, work_dir
    if session_id is None and conversation["session_id"]:
        if conversation["session_runtime_id"] == row["runtime_id"]:
            session_id = conversation["session_id"]
    elif session_id is None:
        session_id = _last_session(tx, row)
    return session_id, work_dir or conversation["work_dir"]


def _last_session(tx: Tx, row: sqlite3.Row) -> str | None:
    """The session of the newest earlier turn on this runtime that can be resumed."""
    earlier = tx.all(
        "SELECT session_id, failure_reason, error FROM task WHERE conversation_id = ? AND no < ?"
        " AND runtime_id = ? AND session_id IS NOT NULL AND status IN ('completed', 'failed', 'cancelled')"
        " ORDER BY no DESC",
        (row["conversation_id"], row["no"], row["runtime_id"]),
    )
    spoilt: set[str] = set()
    for task in earlier:
        if not failures.resumable(task["failure_reason"] or "", task["error"] or ""):
            spoilt.add(task["session_id"])
        elif task["session_id"] not in spoilt:
            return str(task["session_id"])
    return None


def _agent(tx: Tx, row: sqlite3.Row) -> wire.Agent:
    agent = tx.one("SELECT * FROM agent WHERE id = ?", (row["agent_id"],))
    if agent is None:  # removed by hand or lost with a damaged file: the task still runs, without its extras
        return wire.Agent(
            id=row["agent_id"],
            name=row["agent_name"],
            model=row["model"],
            thinking_level=row["thinking_level"],
        )
    return wire.Agent(
        id=agent["id"],
        name=agent["name"],
        instructions=agent["instructions"],
        custom_env=msgspec.json.decode(agent["custom_env"], type=dict[str, str]) or None,
        custom_args=msgspec.json.decode(agent["custom_args"], type=list[str]) or None,
        mcp_config=None if agent["mcp_config"] is None else msgspec.json.decode(agent["mcp_config"]),
        skills=msgspec.json.decode(agent["skills"], type=list[wire.Skill]) or None,
        model=row["model"] or agent["model"],
        thinking_level=row["thinking_level"] or agent["thinking_level"],
    )
