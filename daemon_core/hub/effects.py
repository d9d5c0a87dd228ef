"""What the end of a task does beside ending it: an answer on its issue, a run of an autopilot over, news."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Final

from daemon_core.hub import comments, issues, places
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.store import Tx

_TRIVIAL: Final = frozenset({"done", "ok", "okay", "finished", "completed"})
ON_ISSUE: Final = ("comment", "direct")


def started(tx: Tx, row: sqlite3.Row) -> None:
    """Its run begins."""
    _run_is(tx, row, "running")


def completed(tx: Tx, row: sqlite3.Row, output: str) -> None:
    """It succeeded. ``row`` is the task as it was before.

    What it put out becomes a comment where its agent has written none meanwhile: whoever waits on the issue
    is answered either way.
    """
    _run_is(tx, row, "completed")
    if row["kind"] == "quick_create":
        made = tx.one("SELECT * FROM issue WHERE origin_id = ? ORDER BY number LIMIT 1", (row["id"],))
        if made is None:
            _tell(tx, row, "quick_create_failed", "No issue was created", output)
        else:
            title = f"{issues.identifier(made)} {made['title']}"
            _tell(tx, row, "quick_create_done", title, output, made["id"])
        return
    text = output.strip()
    if row["kind"] not in ON_ISSUE or not text or row["squad_outcome"] == "no_action":
        return
    trigger = _trigger(tx, row)
    if trigger is not None and text.strip(" .!").lower() in _TRIVIAL:
        return
    if not _has_issue(tx, row) or comments.written_since(
        tx, row["issue_id"], row["agent_id"], row["started_at"] or row["created_at"]
    ):
        return
    comments.insert(
        tx, row["issue_id"], ("agent", row["agent_id"]), output, parent=trigger, task_id=row["id"]
    )


def failed(tx: Tx, row: sqlite3.Row, error: str, *, lost: bool) -> None:
    """It failed for good. ``lost``: it was not its daemon that said so, so its issue is open again."""
    _run_is(tx, row, "failed")
    if row["kind"] == "quick_create":
        _tell(tx, row, "quick_create_failed", "The issue could not be created", error)
    if row["kind"] not in ON_ISSUE or not _has_issue(tx, row):
        return
    comments.insert(
        tx,
        row["issue_id"],
        ("agent", row["agent_id"]),
        error or "The task failed.",
        parent=_trigger(tx, row),
        kind="system",
        task_id=row["id"],
    )
    if lost:
        _reopen(tx, row)


def cancelled(tx: Tx, row: sqlite3.Row) -> None:
    """It was cancelled."""
    _run_is(tx, row, "failed", "cancelled")


def _reopen(tx: Tx, row: sqlite3.Row) -> None:
    still = tx.one(
        "SELECT 1 FROM task WHERE issue_id = ? AND id != ? AND status IN"
        " ('deferred', 'queued', 'dispatched', 'waiting_local_directory', 'running')",
        (row["issue_id"], row["id"]),
    )
    issue = tx.one("SELECT status FROM issue WHERE id = ?", (row["issue_id"],))
    if still is None and issue is not None and issue["status"] == "in_progress":
        issues.set_status(tx, row["issue_id"], "todo")


def _trigger(tx: Tx, row: sqlite3.Row) -> sqlite3.Row | None:
    if row["trigger_comment_id"] is None:
        return None
    return tx.one("SELECT * FROM comment WHERE id = ?", (row["trigger_comment_id"],))


def _has_issue(tx: Tx, row: sqlite3.Row) -> bool:
    return tx.one("SELECT 1 FROM issue WHERE id = ?", (row["issue_id"],)) is not None


def _run_is(tx: Tx, row: sqlite3.Row, status: str, reason: str | None = None) -> None:
    if row["autopilot_run_id"] is not None:
        ended_at = None if status == "running" else tx.now
        tx.run(
            "UPDATE autopilot_run SET status = ?, failure_reason = ?, completed_at = ? WHERE id = ?",
            (status, reason, ended_at, row["autopilot_run_id"]),
        )


# --- news -------------------------------------------------------------------------------------------------


def _tell(tx: Tx, task: sqlite3.Row, kind: str, title: str, body: str, issue_id: str | None = None) -> None:
    place = places.of_conversation(tx, task["conversation_id"])
    tx.run(
        "INSERT INTO inbox_item (id, type, title, body, issue_id, task_id, workspace_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (str(uuid.uuid4()), kind, title, body, issue_id, task["id"], place, tx.now),
    )


def inbox(tx: Tx) -> list[dict[str, object]]:
    """The news of the transaction's workspace, newest first."""
    rows = tx.all(
        "SELECT * FROM inbox_item WHERE workspace_id IS ? ORDER BY created_at DESC, rowid DESC LIMIT 500",
        (tx.place,),
    )
    return [
        {
            "id": row["id"],
            "type": row["type"],
            "title": row["title"],
            "body": row["body"],
            "issue_id": row["issue_id"],
            "task_id": row["task_id"],
            "read": bool(row["read"]),
            "created_at": rfc3339(row["created_at"]),
        }
        for row in rows
    ]
