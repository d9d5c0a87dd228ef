"""Runtimes: which agent CLIs of which daemon are offered here, and which of them a provider's tasks go to.

A runtime keeps its id for as long as (daemon, provider) or (daemon, profile) stay the same, whatever else
changes. A queued task is bound to a runtime of its provider when it is added, or, where there is none, when
one is registered; one whose runtime has gone is bound anew in the same way.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Sequence

import msgspec

from daemon_core.hub import members, places
from daemon_core.hub.clock import SECOND, rfc3339
from daemon_core.hub.errors import ConflictError, NotFoundError, RefusedError
from daemon_core.hub.store import Hint, Tx
from daemon_core.hub.views import HubChange, HubRuntime
from daemon_core.protocol import wire

_CHANGED = HubChange(kind="runtimes")


class RuntimeRow(wire.WireFull):
    """A runtime as the registration answers it, every field present."""

    id: str
    workspace_id: str
    daemon_id: str
    name: str
    provider: str
    status: str
    device_info: str
    metadata: dict[str, object]
    profile_id: str | None
    created_at: str
    updated_at: str
    owner_id: str
    runtime_mode: str = "local"
    launch_header: str = ""
    visibility: str = "private"
    last_seen_at: str | None = None


class Registered(wire.WireFull):
    """Answer to a registration."""

    runtimes: list[RuntimeRow]
    repos: list[wire.Repo]
    repos_version: str
    settings: dict[str, object] | None = None


def repos_version(urls: Sequence[str]) -> str:
    """The version of a list of repositories: it changes when the set of their addresses does."""
    cleaned = sorted({url.strip() for url in urls if url.strip()})
    return hashlib.sha256("\n".join(cleaned).encode()).hexdigest()


def register(tx: Tx, workspace_id: str, request: wire.RegisterRequest) -> Registered:
    """Take up the runtimes of one daemon.

    Raises:
        RefusedError: a profile that is unknown (400) or disabled (409).
    """
    rows = [_upsert(tx, workspace_id, request, entry) for entry in request.runtimes or []]
    for failed in request.failed_profiles or []:
        _record_failure(tx, workspace_id, request, failed)
    for row in rows:
        if row["profile_id"] is None:
            _bind(tx, workspace_id, row["provider"], row["id"])
    _hint_queued(tx, [row["id"] for row in rows])
    tx.changes.append(_CHANGED)
    workspace = tx.one("SELECT settings, repos FROM workspace WHERE id = ?", (workspace_id,))
    assert workspace is not None
    repos = msgspec.json.decode(workspace["repos"], type=list[wire.Repo])
    return Registered(
        runtimes=[wire_runtime(tx, row["id"]) for row in rows],
        repos=repos,
        repos_version=repos_version([repo.url for repo in repos]),
        settings=None if workspace["settings"] is None else msgspec.json.decode(workspace["settings"]),
    )


def _upsert(
    tx: Tx, workspace_id: str, request: wire.RegisterRequest, entry: wire.RuntimeEntry
) -> sqlite3.Row:
    profile_id = entry.profile_id or None
    provider = entry.type.strip().lower() or "unknown"
    if profile_id is not None:
        provider = _profile(tx, workspace_id, profile_id)["protocol_family"]
        known = tx.one(
            "SELECT id FROM runtime WHERE workspace_id = ? AND daemon_id = ? AND profile_id = ?",
            (workspace_id, request.daemon_id, profile_id),
        )
    else:
        known = tx.one(
            "SELECT id FROM runtime WHERE workspace_id = ? AND daemon_id = ? AND provider = ?"
            " AND profile_id IS NULL",
            (workspace_id, request.daemon_id, provider),
        )
    runtime_id = known["id"] if known is not None else str(uuid.uuid4())
    tx.run(
        "INSERT INTO runtime (id, workspace_id, daemon_id, provider, profile_id, name, version, cli_version,"
        " launched_by, device_name, status, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'online', ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version,"
        " cli_version = excluded.cli_version, launched_by = excluded.launched_by,"
        " device_name = excluded.device_name, provider = excluded.provider, status = 'online',"
        " offline_at = NULL, failure = NULL, updated_at = excluded.updated_at",
        (
            runtime_id,
            workspace_id,
            request.daemon_id,
            provider,
            profile_id,
            entry.name,
            entry.version,
            request.cli_version,
            request.launched_by,
            request.device_name,
            tx.now,
            tx.now,
        ),
    )
    if profile_id is None:
        _merge_legacy(tx, workspace_id, runtime_id, provider, request)
    row = tx.one("SELECT * FROM runtime WHERE id = ?", (runtime_id,))
    assert row is not None
    return row


def _merge_legacy(
    tx: Tx, workspace_id: str, runtime_id: str, provider: str, request: wire.RegisterRequest
) -> None:
    """Rows of the same machine under an older daemon id become this one."""
    legacy = {each.casefold() for each in request.legacy_daemon_ids or []} - {request.daemon_id.casefold()}
    if not legacy:
        return
    others = tx.all(
        "SELECT id, daemon_id, legacy_ids FROM runtime"
        " WHERE workspace_id = ? AND provider = ? AND profile_id IS NULL AND id != ?",
        (workspace_id, provider, runtime_id),
    )
    for other in others:
        if other["daemon_id"].casefold() not in legacy:
            continue
        tx.run("UPDATE task SET runtime_id = ? WHERE runtime_id = ?", (runtime_id, other["id"]))
        tx.run("UPDATE agent SET runtime_id = ? WHERE runtime_id = ?", (runtime_id, other["id"]))
        tx.run(
            "UPDATE conversation SET session_runtime_id = ? WHERE session_runtime_id = ?",
            (runtime_id, other["id"]),
        )
        mine = tx.one("SELECT legacy_ids FROM runtime WHERE id = ?", (runtime_id,))
        assert mine is not None
        merged = {
            *msgspec.json.decode(mine["legacy_ids"], type=list[str]),
            *msgspec.json.decode(other["legacy_ids"], type=list[str]),
            other["daemon_id"],
        }
        tx.run(
            "UPDATE runtime SET legacy_ids = ? WHERE id = ?",
            (msgspec.json.encode(sorted(merged)).decode(), runtime_id),
        )
        tx.run("DELETE FROM runtime WHERE id = ?", (other["id"],))


def _profile(tx: Tx, workspace_id: str, profile_id: str) -> sqlite3.Row:
    row = tx.one(
        "SELECT * FROM runtime_profile WHERE id = ? AND workspace_id = ?", (profile_id.lower(), workspace_id)
    )
    if row is None:
        raise RefusedError(400, f"unknown runtime profile: {profile_id}")
    if not row["enabled"]:
        raise RefusedError(409, f"runtime profile is disabled: {profile_id}")
    return row


def _record_failure(
    tx: Tx, workspace_id: str, request: wire.RegisterRequest, failed: wire.FailedProfile
) -> None:
    """A profile that this machine cannot run: an offline row that says why, not given back."""
    profile = _profile(tx, workspace_id, failed.profile_id)
    failure = {
        "runtime_profile_registration_error": True,
        "runtime_profile_failure_reason": failed.reason,
        "command_name": failed.command_name,
    }
    tx.run(
        "INSERT INTO runtime (id, workspace_id, daemon_id, provider, profile_id, name, cli_version,"
        " launched_by, device_name, status, offline_at, failure, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'offline', ?, ?, ?, ?)"
        " ON CONFLICT (workspace_id, daemon_id, profile_id) WHERE profile_id IS NOT NULL"
        " DO UPDATE SET status = 'offline', offline_at = excluded.offline_at, failure = excluded.failure,"
        " updated_at = excluded.updated_at",
        (
            str(uuid.uuid4()),
            workspace_id,
            request.daemon_id,
            profile["protocol_family"],
            profile["id"],
            profile["display_name"],
            request.cli_version,
            request.launched_by,
            request.device_name,
            tx.now,
            msgspec.json.encode(failure).decode(),
            tx.now,
            tx.now,
        ),
    )


def _bind(tx: Tx, workspace_id: str, provider: str, runtime_id: str) -> None:
    """Give this runtime the queued tasks of its provider that have none, or none that is there."""
    tx.run(
        "UPDATE task SET runtime_id = ? WHERE status = 'queued' AND provider = ? AND (runtime_id IS NULL"
        " OR runtime_id NOT IN (SELECT id FROM runtime WHERE workspace_id = ? AND status = 'online'))"
        " AND NOT EXISTS (SELECT 1 FROM agent JOIN runtime ON runtime.id = agent.runtime_id"
        " WHERE agent.id = task.agent_id)"
        " AND conversation_id IN (SELECT id FROM conversation WHERE workspace_id = ?)",
        (runtime_id, provider, workspace_id, workspace_id),
    )


def _hint_queued(tx: Tx, runtime_ids: Sequence[str]) -> None:
    for runtime_id in runtime_ids:
        row = tx.one("SELECT id FROM task WHERE runtime_id = ? AND status = 'queued' LIMIT 1", (runtime_id,))
        if row is not None:
            tx.hints.append(Hint("available", runtime_id, row["id"]))


def choose(tx: Tx, workspace_id: str, provider: str, bound_to: str | None = None) -> str | None:
    """The runtime for a new task of a provider: the one its agent is bound to, else one that is online, and
    rather a plain one than a profile's."""
    if bound_to is not None and tx.one("SELECT 1 FROM runtime WHERE id = ?", (bound_to,)) is not None:
        return bound_to
    row = tx.one(
        "SELECT id FROM runtime WHERE workspace_id = ? AND provider = ? AND failure IS NULL"
        " ORDER BY status = 'online' DESC, profile_id IS NULL DESC, updated_at DESC LIMIT 1",
        (workspace_id, provider),
    )
    return None if row is None else str(row["id"])


def require(tx: Tx, runtime_id: str) -> None:
    """Raise NotFoundError where there is no such runtime."""
    workspace_of(tx, runtime_id)


def workspace_of(tx: Tx, runtime_id: str) -> str:
    """The workspace that a runtime is registered in.

    Raises:
        NotFoundError: ``unknown_runtime``.
    """
    row = tx.one("SELECT workspace_id FROM runtime WHERE id = ?", (runtime_id,))
    if row is None:
        raise NotFoundError("unknown_runtime", runtime=runtime_id)
    return str(row["workspace_id"])


def set_online(tx: Tx, runtime_id: str) -> None:
    """A sign of life from a runtime that was taken for offline."""
    changed = tx.run(
        "UPDATE runtime SET status = 'online', offline_at = NULL, updated_at = ?"
        " WHERE id = ? AND status != 'online'",
        (tx.now, runtime_id),
    )
    if changed:
        tx.changes.append(_CHANGED)
        _hint_queued(tx, [runtime_id])


def set_offline(tx: Tx, runtime_ids: Sequence[str]) -> None:
    """These are not there any more. Their tasks are left alone: the daemon reports for them."""
    for runtime_id in runtime_ids:
        changed = tx.run(
            "UPDATE runtime SET status = 'offline', offline_at = ?, updated_at = ?"
            " WHERE id = ? AND status = 'online'",
            (tx.now, tx.now, runtime_id),
        )
        if changed:
            tx.changes.append(_CHANGED)


def forget(tx: Tx, runtime_id: str) -> None:
    """Delete a runtime; its queued tasks wait for another.

    Raises:
        NotFoundError: ``unknown_runtime``.
        ConflictError: ``runtime_in_use``: it has claimed tasks that are not over.
    """
    active = tx.one(
        "SELECT count(*) AS n FROM task WHERE runtime_id = ?"
        " AND status IN ('dispatched', 'waiting_local_directory', 'running')",
        (runtime_id,),
    )
    if active is not None and active["n"]:
        raise ConflictError("runtime_in_use", runtime=runtime_id, active_tasks=active["n"])
    if not tx.run("DELETE FROM runtime WHERE id = ?", (runtime_id,)):
        raise NotFoundError("unknown_runtime", runtime=runtime_id)
    tx.run("UPDATE task SET runtime_id = NULL WHERE runtime_id = ? AND status = 'queued'", (runtime_id,))
    tx.changes.append(_CHANGED)


def forget_stale(tx: Tx, keep_s: float) -> int | None:
    """Forget what has been offline for long and is not needed; tell when the next is due."""
    keep = int(keep_s * SECOND)
    idle = (
        "status = 'offline' AND offline_at IS NOT NULL AND id NOT IN"
        " (SELECT runtime_id FROM task WHERE runtime_id IS NOT NULL"
        " AND status IN ('queued', 'dispatched', 'waiting_local_directory', 'running'))"
        " AND id NOT IN (SELECT runtime_id FROM agent WHERE runtime_id IS NOT NULL)"
    )
    if tx.run(f"DELETE FROM runtime WHERE offline_at <= ? AND {idle}", (tx.now - keep,)):
        tx.changes.append(_CHANGED)
    oldest: int | None = tx.db.execute(f"SELECT min(offline_at) FROM runtime WHERE {idle}").fetchone()[0]
    return None if oldest is None else oldest + keep


def wire_runtimes(tx: Tx, workspace_id: str) -> list[RuntimeRow]:
    """All as the wire has them, those that failed to register among them, oldest first."""
    rows = tx.all("SELECT id FROM runtime WHERE workspace_id = ? ORDER BY created_at, id", (workspace_id,))
    return [wire_runtime(tx, row["id"]) for row in rows]


def list_runtimes(tx: Tx) -> list[HubRuntime]:
    """All of every workspace, oldest first."""
    rows = tx.all("SELECT * FROM runtime ORDER BY created_at, id")
    return [
        HubRuntime(
            id=row["id"],
            name=row["name"],
            provider=row["provider"],
            status=row["status"],
            daemon_id=row["daemon_id"],
            version=row["version"],
            profile_id=row["profile_id"],
            created_at=rfc3339(row["created_at"]),
        )
        for row in rows
    ]


def wire_runtime(tx: Tx, runtime_id: str) -> RuntimeRow:
    """A runtime as the wire has it."""
    row = tx.one("SELECT * FROM runtime WHERE id = ?", (runtime_id,))
    assert row is not None
    metadata: dict[str, object] = {
        "version": row["version"],
        "cli_version": row["cli_version"],
        "launched_by": row["launched_by"],
    }
    legacy = msgspec.json.decode(row["legacy_ids"], type=list[str])
    if legacy:
        metadata["legacy_daemon_ids"] = legacy
    if row["failure"]:
        metadata |= msgspec.json.decode(row["failure"])
    return RuntimeRow(
        id=row["id"],
        workspace_id=row["workspace_id"],
        daemon_id=row["daemon_id"],
        name=row["name"],
        provider=row["provider"],
        status=row["status"],
        device_info=" · ".join(part for part in (row["device_name"], row["version"]) if part),
        metadata=metadata,
        profile_id=row["profile_id"],
        created_at=rfc3339(row["created_at"]),
        updated_at=rfc3339(row["updated_at"]),
        owner_id=members.member_id(places.own(tx)),
        last_seen_at=rfc3339(row["updated_at"]),
    )
