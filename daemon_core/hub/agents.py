"""Named agents: configurations of a provider. Each provider has one that is made when first needed."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any

import msgspec

from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import ConflictError, InvalidInputError, NotFoundError
from daemon_core.hub.store import Tx
from daemon_core.hub.views import AgentChanges, AgentSpec, AgentView, HubChange
from daemon_core.protocol.wire import Skill

_CHANGED = HubChange(kind="agents")


def for_task(tx: Tx, name: str | None, provider: str | None) -> sqlite3.Row:
    """The agent that a new task runs under: the named one, or its provider's default.

    Raises:
        NotFoundError: ``unknown_agent``, with the ``known`` names.
        InvalidInputError: ``provider_missing``, or ``agent_provider_mismatch`` where both are given.
    """
    wanted = (provider or "").strip().lower()
    if name is None:
        if not wanted:
            raise InvalidInputError("provider_missing")
        return _default(tx, wanted)
    row = _by_name(tx, name)
    if wanted and row["provider"] != wanted:
        raise InvalidInputError(
            "agent_provider_mismatch", agent=row["name"], provider=wanted, agent_provider=row["provider"]
        )
    return row


def of_conversation(tx: Tx, conversation: sqlite3.Row) -> sqlite3.Row:
    """The agent of a conversation's next turn; where its provider's default was removed, a new default.

    Raises:
        ConflictError: ``agent_removed``.
    """
    row = tx.one("SELECT * FROM agent WHERE id = ?", (conversation["agent_id"],))
    if row is not None:
        return row
    if conversation["agent_name"] == conversation["provider"]:
        row = _default(tx, conversation["provider"])
        tx.run(
            "UPDATE conversation SET agent_id = ?, agent_name = ? WHERE id = ?",
            (row["id"], row["name"], conversation["id"]),
        )
        return row
    raise ConflictError("agent_removed", agent=conversation["agent_name"])


def by_id(tx: Tx, agent_id: str) -> sqlite3.Row:
    """The row of an agent of the transaction's workspace.

    Raises:
        NotFoundError: ``unknown_agent``.
    """
    row = tx.one("SELECT * FROM agent WHERE id = ? AND workspace_id IS ?", (agent_id, tx.place))
    if row is None:
        raise NotFoundError("unknown_agent", agent=agent_id, known=[])
    return row


def check_permissions(wanted: str | None) -> None:
    """Refuse what is no permission policy."""
    if wanted is not None and wanted not in ("allow", "ask", "deny"):
        raise InvalidInputError("permissions_unknown", field="permissions", permissions=wanted)


def _default(tx: Tx, provider: str) -> sqlite3.Row:
    row = tx.one("SELECT * FROM agent WHERE provider = ? AND is_default", (provider,))
    if row is not None:
        return row
    name, number = provider, 1
    while tx.one("SELECT 1 FROM agent WHERE name_key = ?", (name.casefold(),)) is not None:
        number += 1
        name = f"{provider} {number}"  # the user has an agent of that name
    return _insert(tx, AgentSpec(name=name, provider=provider), is_default=True)


def list_agents(tx: Tx) -> list[AgentView]:
    """All of the transaction's workspace, by name."""
    rows = tx.all("SELECT * FROM agent WHERE workspace_id IS ? ORDER BY name_key", (tx.place,))
    return [_view(tx, row, secrets=False) for row in rows]


def get(tx: Tx, name: str, *, secrets: bool) -> AgentView:
    """One, by its name in any case."""
    return _view(tx, _by_name(tx, name), secrets=secrets)


def add(tx: Tx, spec: AgentSpec) -> AgentView:
    """A new one.

    Raises:
        ConflictError: ``agent_exists``.
        InvalidInputError: an empty name or provider, or a nonsense value.
    """
    provider = spec.provider.strip().lower()
    if not provider:
        raise InvalidInputError("provider_missing")
    name = _free_name(tx, spec.name)
    _check(spec.custom_env, spec.max_concurrent_tasks)
    check_permissions(spec.permissions)
    row = _insert(tx, msgspec.structs.replace(spec, name=name, provider=provider), is_default=False)
    return _view(tx, row, secrets=False)


def edit(tx: Tx, name: str, changes: AgentChanges) -> AgentView:
    """Change some of it; tasks that are claimed already keep what they were given."""
    row = _by_name(tx, name)
    columns: dict[str, Any] = {"updated_at": tx.now}
    given = {
        field: getattr(changes, field)
        for field in changes.__struct_fields__
        if getattr(changes, field) is not msgspec.UNSET
    }
    if "name" in given and _key(tx, given["name"]) != row["name_key"]:
        given["name"] = _free_name(tx, given["name"])
    _check(given.get("custom_env", {}), given.get("max_concurrent_tasks", 0))
    check_permissions(given.get("permissions"))
    for field, value in given.items():
        if field in ("custom_env", "custom_args", "skills"):
            columns[field] = _json(value)
        elif field == "mcp_config":
            columns[field] = None if value is None else _json(value)
        else:
            columns[field] = value
    if "name" in columns:
        columns["name"] = columns["name"].strip()
        columns["name_key"] = _key(tx, columns["name"])
        tx.run("UPDATE conversation SET agent_name = ? WHERE agent_id = ?", (columns["name"], row["id"]))
        tx.run("UPDATE task SET agent_name = ? WHERE agent_id = ?", (columns["name"], row["id"]))
    assignments = ", ".join(f"{column} = ?" for column in columns)
    tx.run(f"UPDATE agent SET {assignments} WHERE id = ?", (*columns.values(), row["id"]))
    tx.changes.append(_CHANGED)
    return get(tx, str(columns.get("name", row["name"])), secrets=False)


def remove(tx: Tx, name: str) -> None:
    """Take it away.

    Raises:
        ConflictError: ``agent_in_use``: a task of it is queued or going on.
    """
    row = _by_name(tx, name)
    active = _active(tx, row["id"])
    if active:
        raise ConflictError("agent_in_use", agent=row["name"], active_tasks=active)
    tx.run(
        "UPDATE issue SET assignee_type = NULL, assignee_id = NULL WHERE assignee_type = 'agent'"
        " AND assignee_id = ?",
        (row["id"],),
    )
    tx.run("DELETE FROM squad_member WHERE member_type = 'agent' AND member_id = ?", (row["id"],))
    tx.run("DELETE FROM agent WHERE id = ?", (row["id"],))
    tx.changes.append(_CHANGED)


def _insert(tx: Tx, spec: AgentSpec, *, is_default: bool) -> sqlite3.Row:
    agent_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO agent (id, name, name_key, provider, instructions, model, thinking_level, custom_env,"
        " custom_args, mcp_config, skills, max_concurrent_tasks, permissions, resume_after_limit, is_default,"
        " workspace_id, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            agent_id,
            spec.name,
            _key(tx, spec.name),
            spec.provider,
            spec.instructions,
            spec.model,
            spec.thinking_level,
            _json(spec.custom_env),
            _json(spec.custom_args),
            None if spec.mcp_config is None else _json(spec.mcp_config),
            _json(spec.skills),
            spec.max_concurrent_tasks,
            spec.permissions,
            spec.resume_after_limit,
            int(is_default),
            tx.place,
            tx.now,
            tx.now,
        ),
    )
    tx.changes.append(_CHANGED)
    row = tx.one("SELECT * FROM agent WHERE id = ?", (agent_id,))
    assert row is not None
    return row


def _by_name(tx: Tx, name: str) -> sqlite3.Row:
    row = tx.one("SELECT * FROM agent WHERE name_key = ?", (_key(tx, name.strip()),))
    if row is None:
        rows = tx.all("SELECT name FROM agent WHERE workspace_id IS ? ORDER BY name_key", (tx.place,))
        raise NotFoundError("unknown_agent", agent=name, known=[each["name"] for each in rows])
    return row


def _key(tx: Tx, name: str) -> str:
    """What no two agents of a workspace have alike."""
    return name.casefold() if tx.place is None else f"{name.casefold()}\x1f{tx.place}"


def _free_name(tx: Tx, name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise InvalidInputError("agent_name_invalid", name=name)
    taken = tx.one("SELECT name FROM agent WHERE name_key = ?", (_key(tx, name),))
    if taken is not None:
        raise ConflictError("agent_exists", agent=taken["name"])
    return name


def _check(custom_env: dict[str, str], max_concurrent_tasks: int) -> None:
    for variable, value in custom_env.items():
        if not variable or "=" in variable or "\0" in variable or "\0" in value:
            raise InvalidInputError("custom_env_invalid", name=variable)
    if max_concurrent_tasks < 0:
        raise InvalidInputError("max_concurrent_tasks_invalid", value=max_concurrent_tasks)


def works(tx: Tx, agent_id: str) -> bool:
    """Whether a task of it is with a daemon."""
    found = tx.one(
        "SELECT 1 FROM task WHERE agent_id = ? AND status IN"
        " ('dispatched', 'waiting_local_directory', 'running') LIMIT 1",
        (agent_id,),
    )
    return found is not None


def _active(tx: Tx, agent_id: str) -> int:
    count: int = tx.db.execute(
        "SELECT count(*) FROM task WHERE agent_id = ?"
        " AND status IN ('queued', 'dispatched', 'waiting_local_directory', 'running')",
        (agent_id,),
    ).fetchone()[0]
    return count


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _view(tx: Tx, row: sqlite3.Row, *, secrets: bool) -> AgentView:
    custom_env = msgspec.json.decode(row["custom_env"], type=dict[str, str])
    mcp_config = None if row["mcp_config"] is None else msgspec.json.decode(row["mcp_config"])
    return AgentView(
        id=row["id"],
        name=row["name"],
        provider=row["provider"],
        instructions=row["instructions"],
        is_default=bool(row["is_default"]),
        created_at=rfc3339(row["created_at"]),
        updated_at=rfc3339(row["updated_at"]),
        model=row["model"],
        thinking_level=row["thinking_level"],
        custom_env_names=sorted(custom_env),
        custom_env=custom_env if secrets else None,
        custom_args=msgspec.json.decode(row["custom_args"], type=list[str]),
        has_mcp_config=mcp_config is not None,
        mcp_config=mcp_config if secrets else None,
        max_concurrent_tasks=row["max_concurrent_tasks"],
        skill_names=[skill.name for skill in msgspec.json.decode(row["skills"], type=list[Skill])],
        active_tasks=_active(tx, row["id"]),
        permissions=row["permissions"],
        resume_after_limit=None if row["resume_after_limit"] is None else bool(row["resume_after_limit"]),
    )
