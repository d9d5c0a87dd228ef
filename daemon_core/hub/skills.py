"""Skills: those of the workspace, those of an agent, and how they go out with a task.

A daemon that can resolve references gets references, and the content when it asks; others get everything with
the claim. An agent keeps a copy of each of its skills; where the workspace has one of the same id, that one's
content counts.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx
from daemon_core.protocol.wire import Skill, SkillFile, SkillRef

CAPABILITY: Final = "skill-bundles-v1"
"""A daemon that says this resolves references."""


def file_digest(content: str) -> str:
    """What stands for a file's content."""
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def manifest_hash(skill: Skill) -> str:
    """What stands for everything a skill holds; all lengths are bytes."""
    parts = ["v1", skill.source, skill.id, skill.name, skill.description, skill.content]
    for file in sorted(skill.files or [], key=lambda each: each.path.encode()):
        parts += [file.path, file_digest(file.content), file.content]
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d:%s\n" % (len(encoded), encoded))
    return f"sha256:{digest.hexdigest()}"


def whole(skill: Skill) -> Skill:
    """With its hashes and sizes, and a source and id even where it was stored without."""
    made = msgspec.structs.replace(
        skill,
        id=skill.id or f"local:{skill.name}",
        source=skill.source or "workspace",
        files=[
            SkillFile(
                path=file.path,
                content=file.content,
                sha256=file_digest(file.content),
                size_bytes=len(file.content.encode()),
            )
            for file in skill.files or []
        ]
        or None,
    )
    made.hash = manifest_hash(made)
    made.size_bytes = len(made.content.encode()) + sum(file.size_bytes for file in made.files or [])
    return made


def reference(skill: Skill) -> SkillRef:
    """What goes out in the place of a skill."""
    made = whole(skill)
    files = [
        SkillFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes) for file in made.files or []
    ]
    return SkillRef(
        id=made.id,
        source=made.source,
        name=made.name,
        description=made.description,
        hash=made.hash,
        size_bytes=made.size_bytes,
        file_count=len(files),
        files=files or None,
    )


def of_agent(tx: Tx, agent: sqlite3.Row) -> list[Skill]:
    """An agent's skills with the content they have now."""
    found = []
    for skill in msgspec.json.decode(agent["skills"], type=list[Skill]):
        row = tx.one("SELECT * FROM skill WHERE id = ?", (skill.id,))
        found.append(skill if row is None else _skill(row))
    return found


def resolve(tx: Tx, agent: sqlite3.Row | None, wanted: Sequence[SkillRef]) -> list[Skill]:
    """The bundles of references, with the content they have now."""
    bundles = []
    mine = [] if agent is None else [whole(skill) for skill in of_agent(tx, agent)]
    for ref in wanted:
        if not ref.id or not ref.source or not ref.hash:
            raise RefusedError(400, "invalid skill ref")
        found = next((each for each in mine if each.id == ref.id and each.source == ref.source), None)
        if found is None:
            raise RefusedError(404, "skill bundle not found")
        bundles.append(found)
    return bundles


def _skill(row: sqlite3.Row) -> Skill:
    return Skill(
        id=row["id"],
        source="workspace",
        name=row["name"],
        description=row["description"],
        content=row["content"],
        files=msgspec.json.decode(row["files"], type=list[SkillFile]) or None,
    )


# --- the workspace's ------------------------------------------------------------------------------------


class SkillBody(msgspec.Struct):
    """A skill as it is written by people. What is None stays."""

    name: str | None = None
    description: str | None = None
    content: str | None = None
    files: list[SkillFile] | None = None


def list_all(tx: Tx) -> list[dict[str, object]]:
    """All of the transaction's workspace, by name, without their contents."""
    rows = tx.all("SELECT * FROM skill WHERE workspace_id IS ? ORDER BY name", (tx.place,))
    return [{key: value for key, value in view(row).items() if key != "files"} for row in rows]


def require(tx: Tx, skill_id: str) -> sqlite3.Row:
    """The row of a skill of the workspace."""
    row = tx.one("SELECT * FROM skill WHERE id = ? AND workspace_id IS ?", (skill_id, tx.place))
    if row is None:
        raise RefusedError(404, "skill not found")
    return row


def add(tx: Tx, body: SkillBody) -> sqlite3.Row:
    """A new one."""
    name = (body.name or "").strip()
    if not name:
        raise RefusedError(400, "name is required")
    if tx.one("SELECT 1 FROM skill WHERE name = ? AND workspace_id IS ?", (name, tx.place)) is not None:
        raise RefusedError(409, "a skill of this name exists")
    skill_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO skill (id, name, description, content, files, workspace_id, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            skill_id,
            name,
            body.description or "",
            body.content or "",
            _files(body.files or []),
            tx.place,
            tx.now,
            tx.now,
        ),
    )
    return require(tx, skill_id)


def take_in(tx: Tx, body: SkillBody) -> sqlite3.Row:
    """One that was handed over: it takes the place of another of its name."""
    row = tx.one(
        "SELECT id FROM skill WHERE name = ? AND workspace_id IS ?", ((body.name or "").strip(), tx.place)
    )
    return add(tx, body) if row is None else edit(tx, row["id"], body)


def edit(tx: Tx, skill_id: str, body: SkillBody) -> sqlite3.Row:
    """Change it; tasks that are claimed from now on get the new content."""
    row = require(tx, skill_id)
    tx.run(
        "UPDATE skill SET name = ?, description = ?, content = ?, files = ?, updated_at = ? WHERE id = ?",
        (
            (body.name or "").strip() or row["name"],
            row["description"] if body.description is None else body.description,
            row["content"] if body.content is None else body.content,
            row["files"] if body.files is None else _files(body.files),
            tx.now,
            skill_id,
        ),
    )
    return require(tx, skill_id)


def remove(tx: Tx, skill_id: str) -> None:
    """Take it away; agents that have it keep their copy."""
    if not tx.run("DELETE FROM skill WHERE id = ? AND workspace_id IS ?", (skill_id, tx.place)):
        raise RefusedError(404, "skill not found")


def give(tx: Tx, agent_id: str, skill_ids: Sequence[str]) -> list[Skill]:
    """Let an agent have these skills of the workspace, and no others."""
    given = [_skill(require(tx, each)) for each in skill_ids]
    tx.run(
        "UPDATE agent SET skills = ?, updated_at = ? WHERE id = ?",
        (msgspec.json.encode(given).decode(), tx.now, agent_id),
    )
    return given


def view(row: sqlite3.Row) -> dict[str, object]:
    """A skill of the workspace as it is shown."""
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "content": row["content"],
        "files": msgspec.json.decode(row["files"], type=list[SkillFile]),
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def _files(files: Sequence[SkillFile]) -> str:
    for file in files:
        parts = file.path.split("/")
        if file.path.startswith("/") or "\\" in file.path or "\0" in file.path or {"", ".", ".."} & {*parts}:
            raise RefusedError(400, "invalid file path")
    return msgspec.json.encode([SkillFile(path=file.path, content=file.content) for file in files]).decode()
