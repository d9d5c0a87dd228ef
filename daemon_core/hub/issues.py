"""Issues: what is to be done, by whom, as part of what. What a change sets off is in ``dispatch``."""

from __future__ import annotations

import re
import sqlite3
import uuid
from datetime import date
from typing import Any, Final

import msgspec

from daemon_core.hub import attachments, members, places
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx

PREFIX: Final = "LOC"
STATUSES: Final = ("backlog", "todo", "in_progress", "in_review", "blocked", "done", "cancelled")
CLOSED: Final = ("done", "cancelled")
PRIORITIES: Final = {"urgent": 4, "high": 3, "medium": 2, "low": 1, "none": 0}
ASSIGNEES: Final = ("member", "agent", "squad")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_KEY: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9]*)-)?(\d{1,9})")
_META_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
META_KEYS: Final = 50
META_BYTES: Final = 8192

_Given = str | None | msgspec.UnsetType


class IssueBody(msgspec.Struct):
    """An issue as it is written. What is left out stays; null takes away."""

    title: _Given = msgspec.UNSET
    description: _Given = msgspec.UNSET
    status: _Given = msgspec.UNSET
    priority: _Given = msgspec.UNSET
    parent_issue_id: _Given = msgspec.UNSET
    project_id: _Given = msgspec.UNSET
    stage: int | msgspec.UnsetType | None = msgspec.UNSET
    start_date: _Given = msgspec.UNSET
    due_date: _Given = msgspec.UNSET
    assignee_type: _Given = msgspec.UNSET
    assignee_id: _Given = msgspec.UNSET
    handoff_note: str | None = None
    allow_duplicate: bool = False
    origin_type: str | None = None
    origin_id: str | None = None
    attachment_ids: list[str] | None = None


def require(tx: Tx, given: str) -> sqlite3.Row:
    """The row of an issue of the transaction's workspace, by its id or its key."""
    row = tx.one("SELECT * FROM issue WHERE id = ? AND workspace_id IS ?", (given.lower(), tx.place))
    if row is None and (key := _KEY.fullmatch(given)):
        row = tx.one("SELECT * FROM issue WHERE number = ? AND workspace_id IS ?", (int(key[2]), tx.place))
        if row is not None and key[1] is not None and key[1].upper() != (row["prefix"] or PREFIX).upper():
            row = None  # an issue of another workspace, where the same number is another one
    if row is None:
        raise RefusedError(404, "issue not found")
    return row


def create(tx: Tx, body: IssueBody, creator: tuple[str, str]) -> sqlite3.Row:
    """A new one.

    Raises:
        RefusedError: 400, or 409 where an open one of the same title and place exists.
    """
    title = (body.title or "").strip()
    if not title:
        raise RefusedError(400, "title is required")
    columns = _columns(tx, body, None)
    if not body.allow_duplicate:
        twin = tx.one(
            "SELECT * FROM issue WHERE title = ? AND status NOT IN ('done', 'cancelled')"
            " AND parent_issue_id IS ? AND project_id IS ? AND workspace_id IS ?",
            (title, columns.get("parent_issue_id"), columns.get("project_id"), tx.place),
        )
        if twin is not None:
            raise RefusedError(409, f"an open issue with this title exists: {identifier(twin)}")
    # Each workspace counts by itself, and a number is never given again.
    home = tx.place or places.own(tx)
    tx.run(
        "UPDATE workspace SET issue_count = max(issue_count,"
        " (SELECT coalesce(max(number), 0) FROM issue WHERE workspace_id IS ?)) + 1 WHERE id = ?",
        (tx.place, home),
    )
    workspace = tx.one("SELECT * FROM workspace WHERE id = ?", (home,))
    assert workspace is not None, "an issue without its workspace"
    columns = {
        "status": "todo",
        "priority": "none",
        **columns,
        "id": str(uuid.uuid4()),
        "number": workspace["issue_count"],
        "title": title,
        "creator_type": creator[0],
        "creator_id": creator[1],
        "origin_type": body.origin_type,
        "origin_id": body.origin_id,
        "workspace_id": tx.place,
        "prefix": None if tx.place is None else workspace["issue_prefix"],
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    marks = ", ".join("?" * len(columns))
    tx.run(f"INSERT INTO issue ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values()))
    if body.attachment_ids:
        attachments.link(tx, body.attachment_ids, issue_id=columns["id"])
    return require(tx, str(columns["id"]))


def update(tx: Tx, row: sqlite3.Row, body: IssueBody) -> sqlite3.Row:
    """Change it."""
    columns = _columns(tx, body, row)
    if body.title is not msgspec.UNSET:
        title = (body.title or "").strip()
        if not title:
            raise RefusedError(400, "title is required")
        columns["title"] = title
    columns["updated_at"] = tx.now
    assignments = ", ".join(f"{name} = ?" for name in columns)
    tx.run(f"UPDATE issue SET {assignments} WHERE id = ?", (*columns.values(), row["id"]))
    if body.attachment_ids:
        attachments.link(tx, body.attachment_ids, issue_id=row["id"])
    return require(tx, row["id"])


def set_status(tx: Tx, issue_id: str, status: str) -> None:
    """Change the status alone."""
    tx.run("UPDATE issue SET status = ?, updated_at = ? WHERE id = ?", (status, tx.now, issue_id))


def _columns(tx: Tx, body: IssueBody, row: sqlite3.Row | None) -> dict[str, Any]:
    """The checked columns of what was given, without the title."""
    columns: dict[str, Any] = {}
    if isinstance(body.description, str | None):
        columns["description"] = body.description
    if isinstance(body.status, str):
        columns["status"] = _one_of("status", body.status, STATUSES)
    if isinstance(body.priority, str):
        columns["priority"] = _one_of("priority", body.priority, tuple(PRIORITIES))
    if isinstance(body.stage, int | None):
        columns["stage"] = body.stage
    for name in ("start_date", "due_date"):
        given = getattr(body, name)
        if given is not msgspec.UNSET:
            if given and not _is_date(given):
                raise RefusedError(400, f"invalid {name}")
            columns[name] = given or None
    if isinstance(body.parent_issue_id, str | None):
        columns["parent_issue_id"] = _parent(tx, body.parent_issue_id, row)
    if isinstance(body.project_id, str | None):
        known = "SELECT 1 FROM project WHERE id = ? AND workspace_id IS ?"
        if body.project_id and tx.one(known, (body.project_id, tx.place)) is None:
            raise RefusedError(400, "project not found")
        columns["project_id"] = body.project_id or None
    columns |= _assignee(tx, body)
    return columns


def _is_date(given: str) -> bool:
    """Whether it begins with a day that there is; a time may follow."""
    try:
        date.fromisoformat(given[:10])
    except ValueError:
        return False
    return _DATE.match(given) is not None


def _parent(tx: Tx, given: str | None, row: sqlite3.Row | None) -> str | None:
    if not given:
        return None
    try:
        parent = require(tx, given)
    except RefusedError:
        raise RefusedError(400, "parent issue not found") from None
    above: sqlite3.Row | None = parent
    while row is not None and above is not None:
        if above["id"] == row["id"]:
            raise RefusedError(400, "an issue cannot be below itself")
        above = (
            None
            if above["parent_issue_id"] is None
            else tx.one("SELECT * FROM issue WHERE id = ?", (above["parent_issue_id"],))
        )
    return str(parent["id"])


def _assignee(tx: Tx, body: IssueBody) -> dict[str, str | None]:
    if body.assignee_type is msgspec.UNSET and body.assignee_id is msgspec.UNSET:
        return {}
    kind = body.assignee_type or None
    assignee = body.assignee_id or None
    if kind is None and assignee is None:
        return {"assignee_type": None, "assignee_id": None}
    if not isinstance(kind, str) or not isinstance(assignee, str):
        raise RefusedError(400, "assignee_type and assignee_id go together")
    _one_of("assignee_type", kind, ASSIGNEES)
    if kind != "member":
        table = "agent" if kind == "agent" else "squad"
        known = f"SELECT 1 FROM {table} WHERE id = ? AND workspace_id IS ?"
        if tx.one(known, (assignee.lower(), tx.place)) is None:
            raise RefusedError(400, f"{kind} not found")
    return {"assignee_type": kind, "assignee_id": assignee.lower()}


def _one_of(name: str, given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise RefusedError(400, f'invalid {name} "{given}"; valid values: {", ".join(known)}')
    return given


# --- reading ----------------------------------------------------------------------------------------------


def identifier(row: sqlite3.Row) -> str:
    """The key that people use."""
    return f"{row['prefix'] or PREFIX}-{row['number']}"


def view(tx: Tx, row: sqlite3.Row, workspace_id: str, *, whole: bool = True) -> dict[str, object]:
    """An issue as it is shown; in lists without what it says and what hangs on it."""
    shown: dict[str, object] = {
        "id": row["id"],
        "workspace_id": workspace_id,
        "number": row["number"],
        "identifier": identifier(row),
        "title": row["title"],
        "description": row["description"],
        "status": row["status"],
        "priority": row["priority"],
        "assignee_type": row["assignee_type"],
        "assignee_id": row["assignee_id"],
        "creator_type": row["creator_type"],
        "creator_id": row["creator_id"],
        "parent_issue_id": row["parent_issue_id"],
        "project_id": row["project_id"],
        "stage": row["stage"],
        "start_date": row["start_date"],
        "due_date": row["due_date"],
        "origin_type": row["origin_type"],
        "origin_id": row["origin_id"],
        "metadata": msgspec.json.decode(row["metadata"]),
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }
    if whole:
        shown["attachments"] = attachments.of(tx, "issue_id", row["id"])
    return shown


def search(
    tx: Tx, filters: dict[str, str], *, text: str = "", limit: int, offset: int = 0, closed: bool = True
) -> tuple[list[sqlite3.Row], int]:
    """Issues of the transaction's workspace that meet every filter, newest first, and how many in all."""
    conditions: list[str] = ["workspace_id IS ?"]
    values: list[str | None] = [tx.place]
    for column, value in filters.items():
        if column not in ("status", "priority", "assignee_id", "assignee_type", "project_id", "creator_id"):
            raise ValueError(column)
        conditions.append(f"{column} = ?")
        values.append(value)
    for word in text.split():
        conditions.append(
            "(title LIKE ? ESCAPE '!' OR coalesce(description, '') LIKE ? ESCAPE '!'"
            " OR EXISTS (SELECT 1 FROM comment WHERE issue_id = issue.id AND content LIKE ? ESCAPE '!')"
            f" OR coalesce(prefix, '{PREFIX}') || '-' || number = ?)"
        )
        escaped = "%" + re.sub(r"([!%_])", r"!\1", word) + "%"
        values += [escaped, escaped, escaped, word.upper()]
    if not closed:
        conditions.append("status NOT IN ('done', 'cancelled')")
    where = " AND ".join(conditions)
    total = tx.db.execute(f"SELECT count(*) FROM issue WHERE {where}", values).fetchone()[0]
    rows = tx.all(
        f"SELECT * FROM issue WHERE {where} ORDER BY number DESC LIMIT ? OFFSET ?", (*values, limit, offset)
    )
    return rows, total


def children(tx: Tx, issue_id: str) -> list[sqlite3.Row]:
    """The issues right below one, by stage, then age."""
    return tx.all(
        "SELECT * FROM issue WHERE parent_issue_id = ? ORDER BY stage IS NULL, stage, number", (issue_id,)
    )


# --- notes ------------------------------------------------------------------------------------------------


def set_note(tx: Tx, row: sqlite3.Row, key: str, value: object) -> dict[str, Any]:
    """Write a note of an issue; gives them all."""
    _check_key(key)
    if value is None:
        raise RefusedError(400, "value cannot be null (use DELETE to remove a key)")
    notes: dict[str, Any] = msgspec.json.decode(row["metadata"])
    if key not in notes and len(notes) >= META_KEYS:
        raise RefusedError(400, f"metadata cannot exceed {META_KEYS} keys")
    return _keep_notes(tx, row, {**notes, key: value})


def delete_note(tx: Tx, row: sqlite3.Row, key: str) -> dict[str, Any]:
    """Remove a note, if it is there; gives those that are left."""
    _check_key(key)
    notes: dict[str, Any] = msgspec.json.decode(row["metadata"])
    notes.pop(key, None)
    return _keep_notes(tx, row, notes)


def _keep_notes(tx: Tx, row: sqlite3.Row, notes: dict[str, Any]) -> dict[str, Any]:
    encoded = msgspec.json.encode(notes)
    if len(encoded) > META_BYTES:
        raise RefusedError(400, "metadata exceeds the 8KB size limit")
    tx.run(
        "UPDATE issue SET metadata = ?, updated_at = ? WHERE id = ?", (encoded.decode(), tx.now, row["id"])
    )
    return notes


def _check_key(key: str) -> None:
    if not _META_KEY.fullmatch(key):
        raise RefusedError(400, "key must match ^[a-zA-Z_][a-zA-Z0-9_.-]{0,63}$")


# --- names ------------------------------------------------------------------------------------------------


def names(tx: Tx, member_id: str) -> dict[tuple[str, str], str]:
    """What everybody who can write is called, by kind and id."""
    found = {("member", member_id): members.NAME}
    found |= {("agent", row["id"]): row["name"] for row in tx.all("SELECT id, name FROM agent")}
    return found
