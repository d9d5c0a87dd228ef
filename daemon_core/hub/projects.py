"""Projects: what issues belong to, with repositories and directories of their own."""

from __future__ import annotations

import os
import sqlite3
import uuid
from typing import Any

import msgspec

from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx
from daemon_core.protocol import wire


class ProjectBody(msgspec.Struct):
    """A project as it is written. What is left out stays."""

    title: str | None = None
    description: str | None = None
    status: str | None = None


class ResourceBody(msgspec.Struct):
    """Something that a project has."""

    resource_type: str = ""
    resource_ref: dict[str, Any] = {}
    label: str | None = None


def require(tx: Tx, project_id: str) -> sqlite3.Row:
    """The row of a project of the transaction's workspace."""
    row = tx.one("SELECT * FROM project WHERE id = ? AND workspace_id IS ?", (project_id, tx.place))
    if row is None:
        raise RefusedError(404, "project not found")
    return row


def create(tx: Tx, body: ProjectBody) -> sqlite3.Row:
    """A new one."""
    title = (body.title or "").strip()
    if not title:
        raise RefusedError(400, "title is required")
    project_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO project (id, title, description, status, workspace_id, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (project_id, title, body.description, body.status or "planned", tx.place, tx.now, tx.now),
    )
    return require(tx, project_id)


def update(tx: Tx, project_id: str, body: ProjectBody) -> sqlite3.Row:
    """Change it."""
    row = require(tx, project_id)
    tx.run(
        "UPDATE project SET title = ?, description = ?, status = ?, updated_at = ? WHERE id = ?",
        (
            (body.title or "").strip() or row["title"],
            row["description"] if body.description is None else body.description,
            body.status or row["status"],
            tx.now,
            project_id,
        ),
    )
    return require(tx, project_id)


def delete(tx: Tx, project_id: str) -> None:
    """Take it away; its issues stay, without a project."""
    require(tx, project_id)
    tx.run("UPDATE issue SET project_id = NULL WHERE project_id = ?", (project_id,))
    tx.run("DELETE FROM project WHERE id = ?", (project_id,))


def listing(tx: Tx) -> list[dict[str, object]]:
    """All of the transaction's workspace, newest first."""
    rows = tx.all(
        "SELECT * FROM project WHERE workspace_id IS ? ORDER BY created_at DESC, rowid DESC", (tx.place,)
    )
    return [view(tx, row) for row in rows]


def view(tx: Tx, row: sqlite3.Row) -> dict[str, object]:
    """A project as it is shown."""
    count = tx.db.execute("SELECT count(*) FROM issue WHERE project_id = ?", (row["id"],)).fetchone()[0]
    return {
        "id": row["id"],
        "title": row["title"],
        "description": row["description"],
        "status": row["status"],
        "issue_count": count,
        "resources": resources(tx, row["id"]),
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def resources(tx: Tx, project_id: str) -> list[dict[str, object]]:
    """What it has, oldest first."""
    rows = tx.all(
        "SELECT * FROM project_resource WHERE project_id = ? ORDER BY created_at, rowid", (project_id,)
    )
    return [resource_view(row) for row in rows]


def resource_view(row: sqlite3.Row) -> dict[str, object]:
    """A resource as it is shown."""
    return {
        "id": row["id"],
        "project_id": row["project_id"],
        "resource_type": row["resource_type"],
        "resource_ref": msgspec.json.decode(row["resource_ref"]),
        "label": row["label"],
        "created_at": rfc3339(row["created_at"]),
    }


def add_resource(tx: Tx, project_id: str, body: ResourceBody) -> sqlite3.Row:
    """Give a project a repository or a directory.

    Raises:
        RefusedError: 400, or 409 for a second directory on one machine.
    """
    require(tx, project_id)
    _check_resource(tx, project_id, body)
    resource_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO project_resource (id, project_id, resource_type, resource_ref, label, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            resource_id,
            project_id,
            body.resource_type,
            msgspec.json.encode(body.resource_ref).decode(),
            body.label,
            tx.now,
        ),
    )
    row = tx.one("SELECT * FROM project_resource WHERE id = ?", (resource_id,))
    assert row is not None
    return row


def remove_resource(tx: Tx, project_id: str, resource_id: str) -> None:
    """Take it away again."""
    gone = tx.run("DELETE FROM project_resource WHERE id = ? AND project_id = ?", (resource_id, project_id))
    if not gone:
        raise RefusedError(404, "resource not found")


def _check_resource(tx: Tx, project_id: str, body: ResourceBody) -> None:
    ref = body.resource_ref
    if body.resource_type == "github_repo":
        if not isinstance(ref.get("url"), str) or not ref["url"].strip():
            raise RefusedError(400, "url is required")
        return
    if body.resource_type != "local_directory":
        raise RefusedError(400, "invalid resource_type")
    path, daemon_id = ref.get("local_path"), ref.get("daemon_id")
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
        raise RefusedError(400, "local_path must be an absolute path")
    if not isinstance(daemon_id, str) or not daemon_id.strip():
        raise RefusedError(400, "daemon_id is required")
    for other in resources(tx, project_id):
        known = other["resource_ref"]
        if other["resource_type"] != "local_directory" or not isinstance(known, dict):
            continue
        if str(known.get("daemon_id", "")).strip() == daemon_id.strip():
            raise RefusedError(409, "the project has a local directory on this machine")


def attach(tx: Tx, project_id: str, task: wire.Task) -> None:
    """Put a project into a task. Its repositories take the place of the workspace's."""
    row = tx.one("SELECT * FROM project WHERE id = ?", (project_id,))
    if row is None:
        return
    task.project_id = row["id"]
    task.project_title = row["title"]
    task.project_description = row["description"] or None
    found = msgspec.convert(resources(tx, project_id), list[wire.ProjectResource])
    task.project_resources = found or None
    repos = [
        wire.Repo(url=each.resource_ref["url"], ref=each.resource_ref.get("ref"))
        for each in found
        if each.resource_type == "github_repo"
    ]
    if repos:
        task.repos = repos
