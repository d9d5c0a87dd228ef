"""Autopilots: instructions that run by themselves, or when somebody says so, and their runs."""

from __future__ import annotations

import sqlite3
import uuid

import msgspec

from daemon_core.hub.clock import rfc3339, rfc3339_or_none
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx

MODES = ("run_only", "create_issue")
SOURCES = ("manual", "schedule", "webhook", "api")


class AutopilotBody(msgspec.Struct):
    """An autopilot as it is written. What is left out stays. ``assignee_id`` is the agent."""

    title: str | None = None
    description: str | None = None
    assignee_id: str | None = None
    execution_mode: str | None = None
    status: str | None = None


def require(tx: Tx, autopilot_id: str) -> sqlite3.Row:
    """The row of an autopilot of the transaction's workspace."""
    row = tx.one("SELECT * FROM autopilot WHERE id = ? AND workspace_id IS ?", (autopilot_id, tx.place))
    if row is None:
        raise RefusedError(404, "autopilot not found")
    return row


def create(tx: Tx, body: AutopilotBody) -> sqlite3.Row:
    """A new one."""
    title = (body.title or "").strip()
    if not title:
        raise RefusedError(400, "title is required")
    _check(tx, body)
    if body.assignee_id is None:
        raise RefusedError(400, "assignee_id is required")
    autopilot_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO autopilot (id, title, description, agent_id, execution_mode, status, workspace_id,"
        " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            autopilot_id,
            title,
            body.description,
            body.assignee_id.lower(),
            body.execution_mode or MODES[0],
            body.status or "active",
            tx.place,
            tx.now,
            tx.now,
        ),
    )
    return require(tx, autopilot_id)


def update(tx: Tx, autopilot_id: str, body: AutopilotBody) -> sqlite3.Row:
    """Change it."""
    row = require(tx, autopilot_id)
    _check(tx, body)
    tx.run(
        "UPDATE autopilot SET title = ?, description = ?, agent_id = ?, execution_mode = ?, status = ?,"
        " updated_at = ? WHERE id = ?",
        (
            (body.title or "").strip() or row["title"],
            row["description"] if body.description is None else body.description,
            row["agent_id"] if body.assignee_id is None else body.assignee_id.lower(),
            body.execution_mode or row["execution_mode"],
            body.status or row["status"],
            tx.now,
            autopilot_id,
        ),
    )
    return require(tx, autopilot_id)


def delete(tx: Tx, autopilot_id: str) -> None:
    """Take it away with the record of its runs."""
    require(tx, autopilot_id)
    tx.run("DELETE FROM autopilot WHERE id = ?", (autopilot_id,))


def _check(tx: Tx, body: AutopilotBody) -> None:
    if body.execution_mode is not None and body.execution_mode not in MODES:
        raise RefusedError(400, "invalid execution_mode")
    if body.status is not None and body.status not in ("active", "paused"):
        raise RefusedError(400, "invalid status")
    if body.assignee_id is not None:
        given = (body.assignee_id.lower(), tx.place)
        if tx.one("SELECT 1 FROM agent WHERE id = ? AND workspace_id IS ?", given) is None:
            raise RefusedError(400, "agent not found")


def listing(tx: Tx) -> list[dict[str, object]]:
    """All of the transaction's workspace, newest first."""
    rows = tx.all(
        "SELECT * FROM autopilot WHERE workspace_id IS ? ORDER BY created_at DESC, rowid DESC", (tx.place,)
    )
    return [view(row) for row in rows]


def view(row: sqlite3.Row) -> dict[str, object]:
    """An autopilot as it is shown."""
    return {
        "id": row["id"],
        "title": row["title"],
        "description": row["description"],
        "assignee_type": "agent",
        "assignee_id": row["agent_id"],
        "execution_mode": row["execution_mode"],
        "status": row["status"],
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def runs(tx: Tx, autopilot_id: str) -> list[dict[str, object]]:
    """Its runs, newest first."""
    require(tx, autopilot_id)
    rows = tx.all(
        "SELECT * FROM autopilot_run WHERE autopilot_id = ? ORDER BY created_at DESC, rowid DESC LIMIT 500",
        (autopilot_id,),
    )
    return [run_view(row) for row in rows]


def run_view(row: sqlite3.Row) -> dict[str, object]:
    """A run as it is shown."""
    return {
        "id": row["id"],
        "autopilot_id": row["autopilot_id"],
        "source": row["source"],
        "status": row["status"],
        "issue_id": row["issue_id"],
        "task_id": row["task_id"],
        "failure_reason": row["failure_reason"],
        "trigger_payload": None if row["payload"] is None else msgspec.json.decode(row["payload"]),
        "created_at": rfc3339(row["created_at"]),
        "completed_at": rfc3339_or_none(row["completed_at"]),
    }
