"""Squads: agents and people under a leader, who decides what becomes of an issue."""

from __future__ import annotations

import sqlite3
import uuid

import msgspec

from daemon_core.hub import members
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx

HEADING = "## Squad Operating Protocol"
"""By this a daemon knows that its agent leads."""
OUTCOMES = ("action", "no_action", "failed")


class SquadBody(msgspec.Struct):
    """A squad as it is written. What is left out stays."""

    name: str | None = None
    description: str | None = None
    instructions: str | None = None
    leader_id: str | None = None


class MemberBody(msgspec.Struct):
    """Somebody in a squad."""

    member_type: str = ""
    member_id: str = ""
    role: str = ""


def require(tx: Tx, squad_id: str) -> sqlite3.Row:
    """The row of a squad of the transaction's workspace."""
    row = tx.one("SELECT * FROM squad WHERE id = ? AND workspace_id IS ?", (squad_id, tx.place))
    if row is None:
        raise RefusedError(404, "squad not found")
    return row


def create(tx: Tx, body: SquadBody) -> sqlite3.Row:
    """A new one; its leader is a member of it."""
    name, leader = (body.name or "").strip(), (body.leader_id or "").lower()
    if not name:
        raise RefusedError(400, "name is required")
    _check_agent(tx, leader)
    squad_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO squad (id, name, description, instructions, leader_id, workspace_id, created_at,"
        " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (squad_id, name, body.description or "", body.instructions or "", leader, tx.place, tx.now, tx.now),
    )
    add_member(tx, squad_id, MemberBody(member_type="agent", member_id=leader, role="leader"))
    return require(tx, squad_id)


def update(tx: Tx, squad_id: str, body: SquadBody) -> sqlite3.Row:
    """Change it."""
    row = require(tx, squad_id)
    leader = row["leader_id"]
    if body.leader_id is not None:
        leader = body.leader_id.lower()
        _check_agent(tx, leader)
        add_member(tx, squad_id, MemberBody(member_type="agent", member_id=leader, role="leader"))
    tx.run(
        "UPDATE squad SET name = ?, description = ?, instructions = ?, leader_id = ?, updated_at = ?"
        " WHERE id = ?",
        (
            (body.name or "").strip() or row["name"],
            row["description"] if body.description is None else body.description,
            row["instructions"] if body.instructions is None else body.instructions,
            leader,
            tx.now,
            squad_id,
        ),
    )
    return require(tx, squad_id)


def delete(tx: Tx, squad_id: str) -> None:
    """Take it away; its issues are with nobody then."""
    require(tx, squad_id)
    tx.run(
        "UPDATE issue SET assignee_type = NULL, assignee_id = NULL WHERE assignee_type = 'squad'"
        " AND assignee_id = ?",
        (squad_id,),
    )
    tx.run("DELETE FROM squad WHERE id = ?", (squad_id,))


def add_member(tx: Tx, squad_id: str, body: MemberBody) -> None:
    """Somebody joins, or has another role."""
    if body.member_type not in ("agent", "member"):
        raise RefusedError(400, "invalid member_type")
    if body.member_type == "agent":
        _check_agent(tx, body.member_id.lower())
    tx.run(
        "INSERT OR REPLACE INTO squad_member (squad_id, member_type, member_id, role) VALUES (?, ?, ?, ?)",
        (squad_id, body.member_type, body.member_id.lower(), body.role),
    )


def remove_member(tx: Tx, squad: sqlite3.Row, body: MemberBody) -> None:
    """Somebody leaves."""
    if (body.member_type, body.member_id.lower()) == ("agent", squad["leader_id"]):
        raise RefusedError(400, "the leader cannot leave the squad")
    gone = tx.run(
        "DELETE FROM squad_member WHERE squad_id = ? AND member_type = ? AND member_id = ?",
        (squad["id"], body.member_type, body.member_id.lower()),
    )
    if not gone:
        raise RefusedError(404, "squad member not found")


def _check_agent(tx: Tx, agent_id: str) -> None:
    if tx.one("SELECT 1 FROM agent WHERE id = ? AND workspace_id IS ?", (agent_id, tx.place)) is None:
        raise RefusedError(400, "agent not found")


def listing(tx: Tx) -> list[dict[str, object]]:
    """All of the transaction's workspace, by name."""
    rows = tx.all("SELECT * FROM squad WHERE workspace_id IS ? ORDER BY name", (tx.place,))
    return [view(tx, row) for row in rows]


def view(tx: Tx, row: sqlite3.Row) -> dict[str, object]:
    """A squad as it is shown."""
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "instructions": row["instructions"],
        "leader_id": row["leader_id"],
        "members": member_views(tx, row["id"]),
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def member_views(tx: Tx, squad_id: str) -> list[dict[str, object]]:
    """Who is in it."""
    rows = tx.all(
        "SELECT m.*, a.name FROM squad_member AS m LEFT JOIN agent AS a ON a.id = m.member_id"
        " WHERE m.squad_id = ? ORDER BY m.role = 'leader' DESC, a.name",
        (squad_id,),
    )
    return [
        {
            "member_type": row["member_type"],
            "member_id": row["member_id"],
            "name": row["name"] or (members.NAME if row["member_type"] == "member" else ""),
            "role": row["role"],
        }
        for row in rows
    ]


def briefing(tx: Tx, squad: sqlite3.Row) -> str:
    """What the leader is told about its squad."""
    lines = [
        HEADING,
        "",
        f"You lead the squad {squad['name']!r}. Decide what the issue needs: do it yourself, or hand it to a "
        "member by mentioning it in a comment. Then record what you decided, also if nothing is to be done.",
        "",
        "Members:",
    ]
    for each in member_views(tx, squad["id"]):
        kind, name, role = each["member_type"], each["name"], each["role"]
        lines.append(f"- [@{name}](mention://{kind}/{each['member_id']})" + (f", {role}" if role else ""))
    if squad["instructions"]:
        lines += ["", squad["instructions"]]
    return "\n".join(lines)


def evaluate(tx: Tx, issue: sqlite3.Row, task: sqlite3.Row | None, outcome: str, reason: str) -> None:
    """What the leader has decided in its task.

    Raises:
        RefusedError: 400, 403 where it is not the leader who says so.
    """
    if outcome not in OUTCOMES:
        raise RefusedError(400, "outcome must be 'action', 'no_action', or 'failed'")
    if issue["assignee_type"] != "squad":
        raise RefusedError(400, "issue is not assigned to a squad")
    squad = require(tx, issue["assignee_id"])
    if task is None or task["agent_id"] != squad["leader_id"] or task["issue_id"] != issue["id"]:
        raise RefusedError(403, "only the squad's leader records this, in its task on the issue")
    tx.run(
        "UPDATE task SET squad_outcome = ?, progress = coalesce(nullif(?, ''), progress) WHERE no = ?",
        (outcome, reason, task["no"]),
    )
