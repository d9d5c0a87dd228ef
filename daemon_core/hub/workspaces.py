"""Workspaces: what is known of one, its repositories and settings, and its custom runtime profiles.

The machine's own is always there. Others are made over HTTP, by people, and can be taken away again.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from typing import Any, Final

import msgspec

from daemon_core.hub import delegating, issues, places, registry
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.schema_places import OF_WORKSPACE
from daemon_core.hub.store import Hint, Tx
from daemon_core.hub.views import HubChange
from daemon_core.protocol import wire

FAMILIES: Final = frozenset(
    {
        "claude", "codebuddy", "codex", "copilot", "opencode", "openclaw", "hermes", "pi", "cursor", "kimi",
        "kiro", "antigravity", "qoder",
    }
)  # fmt: skip
"""What a profile can be of."""


_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
OWN_SLUG: Final = "local"
_PREFIX: Final = re.compile(r"[A-Z][A-Z0-9]{0,9}")


class NewWorkspace(msgspec.Struct):
    """A workspace as it is asked for. Without a slug or a prefix of issues they are made of the name."""

    name: str = ""
    slug: str = ""
    description: str | None = None
    context: str | None = None
    issue_prefix: str = ""


class WorkspaceBody(msgspec.Struct):
    """What can be changed of a workspace. What is left out stays; null takes settings away."""

    name: str | None = None
    description: str | None = None
    context: str | None = None
    settings: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    repos: list[wire.Repo] | None = None


class ProfileBody(msgspec.Struct):
    """A custom runtime profile as it is written. What is left out stays."""

    display_name: str | None = None
    protocol_family: str | None = None
    command_name: str | None = None
    description: str | None = None
    fixed_args: list[str] | None = None
    enabled: bool | None = None


def row_of(tx: Tx, workspace_id: str) -> sqlite3.Row:
    """The row of a workspace.

    Raises:
        RefusedError: 404.
    """
    places.require(tx, workspace_id)
    row = tx.one("SELECT * FROM workspace WHERE id = ?", (workspace_id,))
    assert row is not None
    return row


def listing(tx: Tx) -> list[sqlite3.Row]:
    """All, the machine's own first."""
    return tx.all("SELECT * FROM workspace ORDER BY slug IS NOT NULL, created_at, rowid")


def create(tx: Tx, body: NewWorkspace) -> str:
    """A new one; gives its id.

    Raises:
        RefusedError: 400, or 409 where the slug is taken.
    """
    name = body.name.strip()
    if not name:
        raise RefusedError(400, "name is required")
    slug = body.slug.strip() or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
    if not _SLUG.fullmatch(slug):
        raise RefusedError(400, "invalid slug")
    if slug == OWN_SLUG or tx.one("SELECT 1 FROM workspace WHERE slug = ?", (slug,)) is not None:
        raise RefusedError(409, "a workspace of this slug exists")
    prefix = body.issue_prefix.strip().upper() or re.sub(r"[^A-Z0-9]|^[0-9]+", "", slug.upper())[:3] or "WS"
    if not _PREFIX.fullmatch(prefix):
        raise RefusedError(400, "invalid issue_prefix")
    workspace_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO workspace (id, name, slug, issue_prefix, description, context, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (workspace_id, name, slug, prefix, body.description, body.context, tx.now),
    )
    tx.hints.append(Hint("workspaces", "", ""))
    return workspace_id


def remove(tx: Tx, workspace_id: str) -> None:
    """Take one away with everything in it; runs that are going on are told to end.

    Raises:
        RefusedError: 403 for the machine's own, 404.
    """
    if row_of(tx, workspace_id)["slug"] is None:
        raise RefusedError(403, "the machine's own workspace stays")
    for row in tx.all("SELECT id FROM conversation WHERE workspace_id = ?", (workspace_id,)):
        delegating.delete_conversation(tx, row["id"])
    for table in (*OF_WORKSPACE, "skill", "runtime", "runtime_profile"):
        tx.run(f"DELETE FROM {table} WHERE workspace_id = ?", (workspace_id,))
    tx.run("DELETE FROM workspace WHERE id = ?", (workspace_id,))
    tx.hints.append(Hint("workspaces", "", ""))
    tx.changes.append(HubChange(kind="runtimes"))


def view(tx: Tx, workspace_id: str) -> dict[str, object]:
    """The workspace as it is shown."""
    row = row_of(tx, workspace_id)
    return {
        "id": row["id"],
        "name": row["name"],
        "slug": row["slug"] or OWN_SLUG,
        "description": row["description"],
        "context": row["context"],
        "settings": None if row["settings"] is None else msgspec.json.decode(row["settings"]),
        "repos": repos(row),
        "issue_prefix": row["issue_prefix"] or issues.PREFIX,
        "avatar_url": None,
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"] or row["created_at"]),
    }


def repos(row: sqlite3.Row) -> list[wire.Repo]:
    """The repositories of the workspace."""
    return msgspec.json.decode(row["repos"], type=list[wire.Repo])


def for_daemon(tx: Tx, workspace_id: str) -> wire.WorkspaceRepos:
    """What a daemon asks again and again."""
    row = row_of(tx, workspace_id)
    known = repos(row)
    return wire.WorkspaceRepos(
        workspace_id=workspace_id,
        repos=[wire.Repo(url=repo.url, description=repo.description) for repo in known],
        repos_version=registry.repos_version([repo.url for repo in known]),
        settings=None if row["settings"] is None else msgspec.json.decode(row["settings"]),
    )


def update(tx: Tx, workspace_id: str, body: WorkspaceBody) -> dict[str, object]:
    """Change it."""
    row = row_of(tx, workspace_id)
    columns: dict[str, object] = {"updated_at": tx.now}
    for name in ("description", "context"):
        if getattr(body, name) is not None:
            columns[name] = getattr(body, name)
    if body.name is not None:
        if not body.name.strip():
            raise RefusedError(400, "name is required")
        columns["name"] = body.name.strip()
    if body.settings is not msgspec.UNSET:
        columns["settings"] = None if body.settings is None else msgspec.json.encode(body.settings).decode()
    if body.repos is not None:
        columns["repos"] = msgspec.json.encode(_checked(body.repos)).decode()
    assignments = ", ".join(f"{name} = ?" for name in columns)
    tx.run(f"UPDATE workspace SET {assignments} WHERE id = ?", (*columns.values(), row["id"]))
    tx.hints.append(Hint("workspaces", "", ""))
    return view(tx, workspace_id)


def _checked(given: list[wire.Repo]) -> list[wire.Repo]:
    made: dict[str, wire.Repo] = {}
    for repo in given:
        url = repo.url.strip()
        if not url:
            raise RefusedError(400, "url is required")
        made.setdefault(url, wire.Repo(url=url, description=repo.description, ref=repo.ref))
    return list(made.values())


# --- custom runtime profiles ------------------------------------------------------------------------------


def profiles(tx: Tx, workspace_id: str, *, enabled_only: bool) -> list[dict[str, object]]:
    """The profiles as the wire has them."""
    rows = tx.all(
        "SELECT * FROM runtime_profile WHERE workspace_id = ? AND (enabled OR NOT ?) ORDER BY id",
        (workspace_id, int(enabled_only)),
    )
    return [profile_view(row) for row in rows]


def profile_view(row: sqlite3.Row) -> dict[str, object]:
    """A profile as the wire has it."""
    return {
        "id": row["id"],
        "workspace_id": row["workspace_id"],
        "display_name": row["display_name"],
        "protocol_family": row["protocol_family"],
        "command_name": row["command_name"],
        "description": row["description"],
        "fixed_args": msgspec.json.decode(row["fixed_args"], type=list[str]),
        "visibility": "workspace",
        "created_by": None,
        "enabled": bool(row["enabled"]),
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def require_profile(tx: Tx, workspace_id: str, profile_id: str) -> sqlite3.Row:
    """The row of a profile of a workspace."""
    row = tx.one(
        "SELECT * FROM runtime_profile WHERE id = ? AND workspace_id = ?", (profile_id, workspace_id)
    )
    if row is None:
        raise RefusedError(404, "runtime profile not found")
    return row


def add_profile(tx: Tx, workspace_id: str, body: ProfileBody) -> sqlite3.Row:
    """A new one; daemons are told to look."""
    name, command = (body.display_name or "").strip(), (body.command_name or "").strip()
    if not name:
        raise RefusedError(400, "display_name is required")
    if not command:
        raise RefusedError(400, "command_name is required")
    if body.protocol_family not in FAMILIES:
        raise RefusedError(400, "invalid protocol_family")
    profile_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO runtime_profile (id, workspace_id, display_name, protocol_family, command_name,"
        " description, fixed_args, enabled, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            profile_id,
            workspace_id,
            name,
            body.protocol_family,
            command,
            body.description,
            msgspec.json.encode(body.fixed_args or []).decode(),
            int(body.enabled is not False),
            tx.now,
            tx.now,
        ),
    )
    _tell(tx, workspace_id, profile_id)
    return require_profile(tx, workspace_id, profile_id)


def edit_profile(tx: Tx, workspace_id: str, profile_id: str, body: ProfileBody) -> sqlite3.Row:
    """Change it; its family stays. Daemons are told to look."""
    row = require_profile(tx, workspace_id, profile_id)
    if body.protocol_family not in (None, row["protocol_family"]):
        raise RefusedError(400, "protocol_family cannot be changed")
    tx.run(
        "UPDATE runtime_profile SET display_name = ?, command_name = ?, description = ?, fixed_args = ?,"
        " enabled = ?, updated_at = ? WHERE id = ?",
        (
            (body.display_name or "").strip() or row["display_name"],
            (body.command_name or "").strip() or row["command_name"],
            row["description"] if body.description is None else body.description,
            row["fixed_args"] if body.fixed_args is None else msgspec.json.encode(body.fixed_args).decode(),
            row["enabled"] if body.enabled is None else int(body.enabled),
            tx.now,
            profile_id,
        ),
    )
    _tell(tx, workspace_id, profile_id)
    return require_profile(tx, workspace_id, profile_id)


def remove_profile(tx: Tx, workspace_id: str, profile_id: str) -> None:
    """Take it away with the runtimes that were registered for it, unless one of them works."""
    require_profile(tx, workspace_id, profile_id)
    runtimes = [row["id"] for row in tx.all("SELECT id FROM runtime WHERE profile_id = ?", (profile_id,))]
    for runtime_id in runtimes:
        if tx.one(
            "SELECT 1 FROM task WHERE runtime_id = ? AND status IN"
            " ('dispatched', 'waiting_local_directory', 'running')",
            (runtime_id,),
        ):
            raise RefusedError(409, "a runtime of this profile has unfinished tasks")
    for runtime_id in runtimes:
        registry.forget(tx, runtime_id)
    tx.run("DELETE FROM runtime_profile WHERE id = ?", (profile_id,))
    _tell(tx, workspace_id, profile_id)


def _tell(tx: Tx, workspace_id: str, profile_id: str) -> None:
    tx.hints.append(Hint("profiles", workspace_id, profile_id))
