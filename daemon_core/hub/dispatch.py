"""What makes a task of something: an assignment, a comment, a request to create an issue, an autopilot.

* An issue that an agent is given, and that is not parked in the backlog, is a task of that agent; given to
  a squad it is one of the squad's leader.
* A comment of a person is a task of the agent that the issue is with, unless it speaks to somebody else. A
  comment that mentions an agent is a task of that agent, whoever wrote it; nobody calls himself.
* While a task of an agent waits on an issue, another comment adds none: the one that waits will read it.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from daemon_core.hub import agents, comments, delegating, issues, projects, registry, service
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.service import Scope
from daemon_core.hub.store import Tx
from daemon_core.hub.views import HubTask

# Bounded everywhere: of a text that an agent wrote, no piece may be looked at more than a few hundred times.
_MENTION: Final = re.compile(r"\[[^\[\]\n]{0,500}\]\(mention://([a-z]{1,40})/([^()\[\]\s]{1,200})\)")
QUICK_CREATE_VERSION: Final = (0, 2, 21)
"""Daemons before this do not know the kind."""
_DESCRIBED: Final = re.compile(r"v?\d+\.\d+\.\d+-\d+-g[0-9a-f]+.*")
_SEMVER: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-+].*)?")

Initiator = tuple[str, str]
"""Who set a task off: kind and id."""


# --- issues -----------------------------------------------------------------------------------------------


def issue_created(tx: Tx, scope: Scope, issue: sqlite3.Row, by: Initiator, note: str | None) -> None:
    """An issue is there: with an agent at once?"""
    if issue["status"] not in ("backlog", *issues.CLOSED):
        assigned(tx, scope, issue, by, note)


def issue_changed(
    tx: Tx,
    scope: Scope,
    before: sqlite3.Row,
    after: sqlite3.Row,
    by: Initiator,
    note: str | None,
    acting: str | None = None,
) -> None:
    """An issue is different: given to somebody else, taken out of the backlog, or given up. ``acting``: the
    task that has changed it, which is not cancelled by what it does itself."""
    moved = (before["assignee_type"], before["assignee_id"]) != (after["assignee_type"], after["assignee_id"])
    if moved or (after["status"] == "cancelled" and before["status"] != "cancelled"):
        cancel_all(tx, after["id"], but=acting)
    woken = before["status"] == "backlog" and after["status"] != "backlog"
    if (moved or woken) and after["status"] not in ("backlog", *issues.CLOSED):
        assigned(tx, scope, after, by, note)
    if after["status"] == "done" and before["status"] != "done" and after["parent_issue_id"]:
        _child_done(tx, scope, after, by)


def assigned(tx: Tx, scope: Scope, issue: sqlite3.Row, by: Initiator, note: str | None) -> HubTask | None:
    """A task for whoever an issue is with; None where that is nobody who runs."""
    kind, assignee = issue["assignee_type"], issue["assignee_id"]
    if kind == "agent":
        agent = tx.one("SELECT * FROM agent WHERE id = ?", (assignee,))
        if agent is not None and not _waits(tx, issue["id"], agent["id"]):
            return issue_task(tx, scope, issue, agent, by, note=note)
    elif kind == "squad":
        squad = tx.one("SELECT * FROM squad WHERE id = ?", (assignee,))
        leader = None if squad is None else tx.one("SELECT * FROM agent WHERE id = ?", (squad["leader_id"],))
        if squad is not None and leader is not None and not _waits(tx, issue["id"], leader["id"]):
            return issue_task(tx, scope, issue, leader, by, note=note, squad_id=squad["id"])
    return None


def rerun(tx: Tx, scope: Scope, issue: sqlite3.Row, task_id: str | None, by: Initiator) -> HubTask:
    """Begin again, without the session of before: the assignee, or the agent of a task that is named."""
    agent_id, squad_id, trigger = None, None, None
    if task_id is not None:
        row = service.task_row(tx, task_id)
        if row["issue_id"] != issue["id"]:
            raise RefusedError(404, "task not found")
        agent_id, squad_id, trigger = row["agent_id"], row["squad_id"], row["trigger_comment_id"]
    elif issue["assignee_type"] == "agent":
        agent_id = issue["assignee_id"]
    elif issue["assignee_type"] == "squad":
        squad_id = issue["assignee_id"]
        squad = tx.one("SELECT leader_id FROM squad WHERE id = ?", (squad_id,))
        agent_id = None if squad is None else squad["leader_id"]
    agent = None if agent_id is None else tx.one("SELECT * FROM agent WHERE id = ?", (agent_id,))
    if agent is None:
        raise RefusedError(400, "issue is not assigned to an agent")
    for row in _unfinished(tx, issue["id"]):
        if row["agent_id"] == agent["id"]:
            delegating.cancel_task(tx, row["id"])
    comment = None if trigger is None else tx.one("SELECT * FROM comment WHERE id = ?", (trigger,))
    return issue_task(tx, scope, issue, agent, by, trigger=comment, squad_id=squad_id, fresh=True)


def issue_task(
    tx: Tx,
    scope: Scope,
    issue: sqlite3.Row,
    agent: sqlite3.Row,
    by: Initiator,
    *,
    trigger: sqlite3.Row | None = None,
    note: str | None = None,
    squad_id: str | None = None,
    fresh: bool = False,
) -> HubTask:
    """A task of an agent on an issue; ``trigger``: the comment that asks for it."""
    if trigger is not None:
        prompt = trigger["content"]
    else:
        prompt = "\n\n".join(part for part in (issue["title"], issue["description"], note) if part)
    about = {
        "kind": "direct" if trigger is None else "comment",
        "issue_id": issue["id"],
        "trigger_comment_id": None if trigger is None else trigger["id"],
        "handoff_note": note,
        "squad_id": squad_id,
    }
    home = _home_on_issue(tx, scope, issue, agent)
    return _task(tx, scope, home, prompt, by, about, issues.PRIORITIES[issue["priority"]], fresh=fresh)


def cancel_all(tx: Tx, issue_id: str, *, but: str | None = None) -> None:
    """Cancel what is not over of an issue, except a task that does this itself."""
    for row in _unfinished(tx, issue_id):
        if row["id"] != but:
            delegating.cancel_task(tx, row["id"])


def delete_issue(tx: Tx, issue: sqlite3.Row) -> None:
    """Take an issue away with all its tasks; sub-issues stay, without a parent."""
    for row in tx.all("SELECT id FROM conversation WHERE issue_id = ?", (issue["id"],)):
        delegating.delete_conversation(tx, row["id"])
    tx.run("UPDATE issue SET parent_issue_id = NULL WHERE parent_issue_id = ?", (issue["id"],))
    tx.run("DELETE FROM attachment WHERE issue_id = ?", (issue["id"],))
    tx.run(
        "DELETE FROM attachment WHERE comment_id IN (SELECT id FROM comment WHERE issue_id = ?)",
        (issue["id"],),
    )
    tx.run("DELETE FROM issue WHERE id = ?", (issue["id"],))


def _child_done(tx: Tx, scope: Scope, child: sqlite3.Row, by: Initiator) -> None:
    """Wake whoever the parent is with once all of a stage is done."""
    parent = tx.one("SELECT * FROM issue WHERE id = ?", (child["parent_issue_id"],))
    if parent is None or parent["status"] in ("backlog", *issues.CLOSED):
        return
    left = [
        each
        for each in issues.children(tx, parent["id"])
        if each["status"] not in issues.CLOSED and each["stage"] == child["stage"]
    ]
    if not left:
        assigned(tx, scope, parent, by, f"{issues.identifier(child)} is done.")


def _unfinished(tx: Tx, issue_id: str) -> list[sqlite3.Row]:
    return tx.all(
        "SELECT * FROM task WHERE issue_id = ? AND status NOT IN ('completed', 'failed', 'cancelled')"
        " ORDER BY no",
        (issue_id,),
    )


def _waits(tx: Tx, issue_id: str, agent_id: str) -> bool:
    """Whether a task of the agent on this issue has not been claimed yet."""
    row = tx.one(
        "SELECT 1 FROM task WHERE issue_id = ? AND agent_id = ? AND status IN ('queued', 'deferred')",
        (issue_id, agent_id),
    )
    return row is not None


# --- comments ---------------------------------------------------------------------------------------------


def mentions(content: str) -> list[tuple[str, str]]:
    """Who is called in a text, by kind and id: ``[@Name](mention://agent/<id>)``."""
    found = [(kind, name.lower()) for kind, name in _MENTION.findall(content)]
    return [each for each in dict.fromkeys(found) if each[0] != "issue"]


def commented(tx: Tx, scope: Scope, issue: sqlite3.Row, comment: sqlite3.Row, by: Initiator) -> list[HubTask]:
    """The tasks that a comment sets off."""
    author = (comment["author_type"], comment["author_id"])
    called = mentions(comment["content"])
    parent = None
    if comment["parent_id"] is not None:
        parent = tx.one("SELECT * FROM comment WHERE id = ?", (comment["root_id"],))
    if not called and parent is not None and author[0] == parent["author_type"] == "member":
        called = [each for each in mentions(parent["content"]) if each[0] == "agent"]
    wanted: dict[str, str | None] = {}
    if author[0] == "member" and _asks_assignee(tx, issue, comment, parent, called):
        if issue["assignee_type"] == "agent":
            wanted[issue["assignee_id"]] = None
        elif issue["assignee_type"] == "squad":
            squad = tx.one("SELECT * FROM squad WHERE id = ?", (issue["assignee_id"],))
            if squad is not None:
                wanted[squad["leader_id"]] = squad["id"]
    for kind, name in called:
        if kind == "agent":
            wanted.setdefault(name, None)
        elif kind == "squad":
            squad = _in_place(tx, "squad", name)
            if squad is not None:
                wanted.setdefault(squad["leader_id"], squad["id"])
    made = []
    for agent_id, squad_id in wanted.items():
        agent = _in_place(tx, "agent", agent_id)
        if agent is None or author == ("agent", agent_id) or _waits(tx, issue["id"], agent_id):
            continue
        made.append(issue_task(tx, scope, issue, agent, by, trigger=comment, squad_id=squad_id))
    return made


def _in_place(tx: Tx, table: Literal["agent", "squad"], row_id: str) -> sqlite3.Row | None:
    """One of the transaction's workspace: whoever is called may be somebody of another."""
    return tx.one(f"SELECT * FROM {table} WHERE id = ? AND workspace_id IS ?", (row_id, tx.place))


def _asks_assignee(
    tx: Tx,
    issue: sqlite3.Row,
    comment: sqlite3.Row,
    root: sqlite3.Row | None,
    called: Sequence[tuple[str, str]],
) -> bool:
    """Whether a person's comment is for whoever the issue is with."""
    if issue["assignee_type"] not in ("agent", "squad") or issue["status"] in ("backlog", *issues.CLOSED):
        return False
    if called:
        return (issue["assignee_type"], issue["assignee_id"]) in called
    if root is None or root["author_type"] != "member":
        return True
    taken_part = tx.one(
        "SELECT 1 FROM comment WHERE root_id = ? AND author_type = 'agent' AND id != ? LIMIT 1",
        (root["id"], comment["id"]),
    )
    return taken_part is not None


# --- the other kinds --------------------------------------------------------------------------------------


class QuickCreate(msgspec.Struct):
    """An issue that an agent is to make of a sentence."""

    prompt: str = ""
    agent_id: str = ""
    squad_id: str = ""
    project_id: str = ""
    parent_issue_id: str = ""
    priority: str = ""
    due_date: str = ""
    attachment_ids: list[str] = []


def quick_create(tx: Tx, scope: Scope, body: QuickCreate, by: Initiator) -> HubTask:
    """A task that makes an issue.

    Raises:
        RefusedError: 400, or 422 where the agent's daemon is too old for it.
    """
    prompt = body.prompt.strip()
    if not prompt:
        raise RefusedError(400, "prompt is required")
    if bool(body.agent_id) == bool(body.squad_id):
        raise RefusedError(400, "exactly one of agent_id and squad_id is required")
    agent_id = body.agent_id.lower()
    if body.squad_id:
        squad = _in_place(tx, "squad", body.squad_id.lower())
        if squad is None:
            raise RefusedError(404, "squad not found")
        agent_id = squad["leader_id"]
    agent = _in_place(tx, "agent", agent_id)
    if agent is None:
        raise RefusedError(404, "agent not found")
    parent = issues.require(tx, body.parent_issue_id) if body.parent_issue_id else None
    if body.project_id:
        projects.require(tx, body.project_id)
    _check_version(tx, scope, agent)
    request = {
        "prompt": prompt,
        "project_id": body.project_id or None,
        "parent_issue_id": None if parent is None else parent["id"],
        "attachment_ids": body.attachment_ids,
        "priority": body.priority or None,
        "due_date": body.due_date or None,
    }
    about = {
        "kind": "quick_create",
        "squad_id": body.squad_id.lower() or None,
        "request": msgspec.json.encode(request).decode(),
    }
    home = _new_home(tx, scope, agent, "quick_create", prompt)
    return _task(tx, scope, home, prompt, by, about, issues.PRIORITIES.get(body.priority, 0))


def _check_version(tx: Tx, scope: Scope, agent: sqlite3.Row) -> None:
    runtime_id = registry.choose(tx, scope.workspace_id, agent["provider"], agent["runtime_id"])
    runtime = None if runtime_id is None else tx.one("SELECT * FROM runtime WHERE id = ?", (runtime_id,))
    version = "" if runtime is None else runtime["cli_version"]
    parsed = _SEMVER.fullmatch(version)
    enough = parsed is not None and tuple(int(each) for each in parsed.groups()) >= QUICK_CREATE_VERSION
    if not enough and not _DESCRIBED.fullmatch(version):
        raise RefusedError(
            422,
            "the daemon is too old to create issues",
            code="daemon_version_unsupported",
            current_version=version,
            min_version=".".join(str(each) for each in QUICK_CREATE_VERSION),
            runtime_id=runtime_id or "",
        )


def trigger_autopilot(
    tx: Tx, scope: Scope, autopilot: sqlite3.Row, source: str, payload: Any, by: Initiator
) -> sqlite3.Row:
    """A run of an autopilot: a task of its own, or an issue for its agent."""
    agent = tx.one("SELECT * FROM agent WHERE id = ?", (autopilot["agent_id"],))
    if agent is None:
        raise RefusedError(400, "agent not found")
    run_id = str(uuid.uuid4())
    prompt = "\n\n".join(part for part in (autopilot["title"], autopilot["description"]) if part)
    tx.run(
        "INSERT INTO autopilot_run (id, autopilot_id, source, status, payload, created_at)"
        " VALUES (?, ?, ?, 'pending', ?, ?)",
        (
            run_id,
            autopilot["id"],
            source,
            None if payload is None else msgspec.json.encode(payload).decode(),
            tx.now,
        ),
    )
    if autopilot["execution_mode"] == "create_issue":
        body = issues.IssueBody(
            title=autopilot["title"],
            description=autopilot["description"],
            assignee_type="agent",
            assignee_id=agent["id"],
            allow_duplicate=True,
            origin_type="autopilot",
            origin_id=run_id,
        )
        issue = issues.create(tx, body, by)
        issue_created(tx, scope, issue, by, None)
        tx.run(
            "UPDATE autopilot_run SET status = 'issue_created', issue_id = ?, completed_at = ? WHERE id = ?",
            (issue["id"], tx.now, run_id),
        )
    else:
        home = _new_home(tx, scope, agent, "autopilot", autopilot["title"])
        task = _task(tx, scope, home, prompt, by, {"kind": "autopilot", "autopilot_run_id": run_id}, 0)
        tx.run("UPDATE autopilot_run SET task_id = ? WHERE id = ?", (task.id, run_id))
    row = tx.one("SELECT * FROM autopilot_run WHERE id = ?", (run_id,))
    assert row is not None
    return row


def chat_home(tx: Tx, scope: Scope, agent: sqlite3.Row, title: str) -> str:
    """A conversation with an agent in which nothing has been said yet."""
    return _new_home(tx, scope, agent, "chat", title)


# --- homes and tasks --------------------------------------------------------------------------------------


def _task(
    tx: Tx,
    scope: Scope,
    home: str,
    prompt: str,
    by: Initiator,
    about: Mapping[str, object],
    priority: int,
    *,
    fresh: bool = False,
) -> HubTask:
    columns = {**about, "priority": priority, "initiator_type": by[0], "initiator_id": by[1]}
    return service.new_turn(tx, scope, home, prompt, fresh=fresh, about=columns)


def _home_on_issue(tx: Tx, scope: Scope, issue: sqlite3.Row, agent: sqlite3.Row) -> str:
    """The one conversation of this agent on this issue."""
    row = tx.one(
        "SELECT id FROM conversation WHERE issue_id = ? AND agent_id = ?", (issue["id"], agent["id"])
    )
    if row is not None:
        return str(row["id"])
    return _new_home(tx, scope, agent, "issue", issue["title"], issue["id"])


def _new_home(
    tx: Tx, scope: Scope, agent: sqlite3.Row, kind: str, title: str, issue_id: str | None = None
) -> str:
    home = str(uuid.uuid4())
    tx.run(
        "INSERT INTO conversation (id, workspace_id, title, provider, agent_id, agent_name, max_attempts,"
        " kind, issue_id, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            home,
            scope.workspace_id,
            service.title_of(title),
            agent["provider"],
            agent["id"],
            agent["name"],
            scope.limits.max_attempts,
            kind,
            issue_id,
            tx.now,
            tx.now,
        ),
    )
    return home


def say_on_issue(tx: Tx, scope: Scope, task_id: str, content: str) -> HubTask:
    """Answer a task of an issue as the user: a comment under what it was about, and a task of its agent."""
    row = service.task_row(tx, task_id)
    issue = tx.one("SELECT * FROM issue WHERE id = ?", (row["issue_id"],))
    agent = agents.by_id(tx, row["agent_id"])
    if issue is None:
        raise RefusedError(404, "issue not found")
    root = None
    if row["trigger_comment_id"] is not None:
        root = tx.one("SELECT * FROM comment WHERE id = ?", (row["trigger_comment_id"],))
    by = ("member", scope.member_id)
    comment = comments.insert(tx, issue["id"], by, content, parent=root)
    return issue_task(tx, scope, issue, agent, by, trigger=comment, squad_id=row["squad_id"])
