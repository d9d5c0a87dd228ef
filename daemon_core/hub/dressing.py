"""What goes along with a claimed task, by its kind: everything that its run needs to begin."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from daemon_core.hub import issues, members, parking, projects, skills, squads
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.rows import wire_task
from daemon_core.hub.service import Scope, prompt_of
from daemon_core.hub.store import Tx
from daemon_core.protocol import failures, wire

SUMMARY_CHARS: Final = 200


def dress(
    tx: Tx, scope: Scope, row: sqlite3.Row, token: str, capabilities: frozenset[str] = frozenset()
) -> wire.Task:
    """The claimed task with everything that its run needs."""
    conversation = tx.one("SELECT * FROM conversation WHERE id = ?", (row["conversation_id"],))
    assert conversation is not None, "a task without its conversation"
    workspace = tx.one("SELECT * FROM workspace WHERE id = ?", (conversation["workspace_id"],))
    assert workspace is not None, "no workspace"
    task = wire_task(row, workspace["id"])
    task.auth_token = token
    task.thread_name = conversation["title"]
    task.workspace_context = workspace["context"] or None
    task.repos = msgspec.json.decode(workspace["repos"], type=list[wire.Repo]) or None
    task.prior_session_id, task.prior_work_dir = _resume_pointer(tx, row, conversation)
    task.agent = _agent(tx, row, capabilities)
    _initiator(tx, scope, row, task)
    if row["woken"] and not row["gone_on"]:
        task.wake_text = prompt_of(tx, row["turn_id"])
    match row["kind"]:
        case "chat":
            _chat(tx, scope, row, conversation, task)
        case "quick_create":
            _quick_create(tx, row, task)
        case "autopilot":
            _autopilot(tx, row, task)
        case _:
            _issue(tx, row, task)
    if row["squad_id"] is not None:
        _lead(tx, row, task)
    return task


# --- by kind ----------------------------------------------------------------------------------------------


def _chat(tx: Tx, scope: Scope, row: sqlite3.Row, conversation: sqlite3.Row, task: wire.Task) -> None:
    task.chat_message = parking.prompt_of(tx, row)
    if task.chat_message == parking.GO_ON:
        task.fresh_message = prompt_of(tx, row["turn_id"])
    files = tx.all(
        "SELECT id, filename, content_type FROM attachment WHERE task_id = ? ORDER BY created_at, rowid",
        (row["turn_id"],),
    )
    task.chat_message_attachments = [
        wire.Attachment(id=each["id"], filename=each["filename"], content_type=each["content_type"])
        for each in files
    ] or None
    if task.agent is not None and conversation["permissions"]:
        task.agent.permissions = conversation["permissions"]
    if conversation["repo_url"]:
        task.repos = [wire.Repo(url=conversation["repo_url"], ref=conversation["repo_ref"])]
    if conversation["directory"]:
        reference = wire.LocalDirectoryRef(local_path=conversation["directory"], daemon_id=scope.daemon_id)
        task.project_resources = [
            wire.ProjectResource(
                id=conversation["id"],
                resource_type="local_directory",
                resource_ref=msgspec.to_builtins(reference),
            )
        ]


def _issue(tx: Tx, row: sqlite3.Row, task: wire.Task) -> None:
    issue = tx.one("SELECT * FROM issue WHERE id = ?", (row["issue_id"],))
    if issue is not None and issue["project_id"]:
        projects.attach(tx, issue["project_id"], task)
    if row["trigger_comment_id"] is None:
        return
    comment = tx.one("SELECT * FROM comment WHERE id = ?", (row["trigger_comment_id"],))
    if comment is None:  # deleted meanwhile
        return
    author = (comment["author_type"], comment["author_id"])
    task.trigger_thread_id = comment["root_id"]
    task.trigger_comment_content = comment["content"]
    task.trigger_summary = " ".join(comment["content"].split())[:SUMMARY_CHARS]
    task.trigger_author_type = author[0]
    task.trigger_author_name = _name(tx, *author)
    _news(tx, row, comment, task)


def _news(tx: Tx, row: sqlite3.Row, comment: sqlite3.Row, task: wire.Task) -> None:
    """How much was said since this agent last looked at the issue."""
    last = tx.one(
        "SELECT coalesce(started_at, dispatched_at) AS at FROM task WHERE conversation_id = ? AND no < ?"
        " AND dispatched_at IS NOT NULL AND turn_id != ? ORDER BY no DESC LIMIT 1",
        (row["conversation_id"], row["no"], row["turn_id"]),
    )
    if last is None:
        return
    count = tx.one(
        "SELECT count(*) AS n FROM comment WHERE issue_id = ? AND created_at > ? AND id != ?"
        " AND NOT (author_type = 'agent' AND author_id = ?)",
        (row["issue_id"], last["at"], comment["id"], row["agent_id"]),
    )
    task.new_comment_count = 0 if count is None else int(count["n"])
    task.new_comments_since = rfc3339(last["at"])


def _quick_create(tx: Tx, row: sqlite3.Row, task: wire.Task) -> None:
    request = msgspec.json.decode(row["request"])
    task.quick_create_prompt = request["prompt"]
    task.quick_create_attachment_ids = request["attachment_ids"] or None
    task.quick_create_priority = request.get("priority") or None
    task.quick_create_due_date = request.get("due_date") or None
    if request["project_id"]:
        projects.attach(tx, request["project_id"], task)
    if request["parent_issue_id"]:
        parent = tx.one("SELECT * FROM issue WHERE id = ?", (request["parent_issue_id"],))
        if parent is not None:
            task.parent_issue_id = parent["id"]
            task.parent_issue_identifier = issues.identifier(parent)


def _autopilot(tx: Tx, row: sqlite3.Row, task: wire.Task) -> None:
    run = tx.one(
        "SELECT r.*, a.title, a.description FROM autopilot_run AS r JOIN autopilot AS a"
        " ON a.id = r.autopilot_id WHERE r.id = ?",
        (row["autopilot_run_id"],),
    )
    if run is None:  # deleted meanwhile: what it was to do is still known
        task.autopilot_description = prompt_of(tx, row["turn_id"])
        return
    task.autopilot_id = run["autopilot_id"]
    task.autopilot_title = run["title"]
    task.autopilot_description = run["description"]
    task.autopilot_source = run["source"]
    if run["payload"] is not None:
        task.autopilot_trigger_payload = msgspec.json.decode(run["payload"])


def _lead(tx: Tx, row: sqlite3.Row, task: wire.Task) -> None:
    """The agent leads a squad in this task, and is told so."""
    squad = tx.one("SELECT * FROM squad WHERE id = ?", (row["squad_id"],))
    if squad is None or task.agent is None:
        return
    task.squad_name = squad["name"]
    said = [task.agent.instructions, squads.briefing(tx, squad)]
    task.agent.instructions = "\n\n".join(part for part in said if part)


# --- who --------------------------------------------------------------------------------------------------


def _initiator(tx: Tx, scope: Scope, row: sqlite3.Row, task: wire.Task) -> None:
    task.initiator_type = row["initiator_type"] or "member"
    if row["kind"] == "chat":
        return
    task.initiator_id = row["initiator_id"] or scope.member_id
    task.initiator_name = _name(tx, task.initiator_type, task.initiator_id)


def _name(tx: Tx, kind: str, name: str) -> str:
    if kind == "member":
        return members.NAME
    row = tx.one("SELECT name FROM agent WHERE id = ?", (name,))
    return "" if row is None else str(row["name"])


def _agent(tx: Tx, row: sqlite3.Row, capabilities: frozenset[str]) -> wire.Agent:
    agent = tx.one("SELECT * FROM agent WHERE id = ?", (row["agent_id"],))
    if agent is None:  # removed by hand or lost with a damaged file: the task still runs, without its extras
        return wire.Agent(
            id=row["agent_id"],
            name=row["agent_name"],
            model=row["model"],
            thinking_level=row["thinking_level"],
        )
    made = wire.Agent(
        id=agent["id"],
        name=agent["name"],
        instructions=agent["instructions"],
        custom_env=msgspec.json.decode(agent["custom_env"], type=dict[str, str]) or None,
        custom_args=msgspec.json.decode(agent["custom_args"], type=list[str]) or None,
        mcp_config=None if agent["mcp_config"] is None else msgspec.json.decode(agent["mcp_config"]),
        model=row["model"] or agent["model"],
        thinking_level=row["thinking_level"] or agent["thinking_level"],
    )
    made.permissions = agent["permissions"]
    if agent["resume_after_limit"] is not None:
        made.resume_after_limit = bool(agent["resume_after_limit"])
    known = skills.of_agent(tx, agent)
    if skills.CAPABILITY in capabilities:
        made.skill_refs = [skills.reference(skill) for skill in known] or None
    else:
        made.skills = known or None
    return made


# --- what to go on from -----------------------------------------------------------------------------------


def _resume_pointer(tx: Tx, row: sqlite3.Row, conversation: sqlite3.Row) -> tuple[str | None, str | None]:
    """Session and directory to go on from: an attempt's own, the conversation's, or an earlier turn's.

    A session counts only on the runtime that made it; a directory always: all runtimes are of one machine.
    """
    session_id, work_dir = row["session_id"], row["work_dir"]
    if row["fresh"]:
        return session_id, work_dir
    if session_id is None and conversation["session_id"]:
        if conversation["session_runtime_id"] == row["runtime_id"]:
            session_id = conversation["session_id"]
    elif session_id is None:
        session_id = _last_session(tx, row)
    return session_id, work_dir or conversation["work_dir"]


def _last_session(tx: Tx, row: sqlite3.Row) -> str | None:
    """The session of the newest earlier turn on this runtime that can be resumed."""
    earlier = tx.all(
        "SELECT session_id, failure_reason, error FROM task WHERE conversation_id = ? AND no < ?"
        " AND runtime_id = ? AND session_id IS NOT NULL AND status IN ('completed', 'failed', 'cancelled')"
        " ORDER BY no DESC",
        (row["conversation_id"], row["no"], row["runtime_id"]),
    )
    spoilt: set[str] = set()
    for task in earlier:
        if not failures.resumable(task["failure_reason"] or "", task["error"] or ""):
            spoilt.add(task["session_id"])
        elif task["session_id"] not in spoilt:
            return str(task["session_id"])
    return None
