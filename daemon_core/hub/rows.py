"""How rows become views and wire structures."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from daemon_core.hub.clock import rfc3339, rfc3339_or_none
from daemon_core.hub.store import Tx
from daemon_core.hub.views import HubTask
from daemon_core.protocol import wire

_ALWAYS: Final = (
    "priority",
    "dispatched_at",
    "started_at",
    "completed_at",
    "result",
    "error",
    "issue_id",
    "attempt",
    "max_attempts",
)
"""What a task over the wire has even where it says nothing; the structure leaves defaults out."""

LIST_TEXT_CHARS: Final = 4000
"""Prompts, results and errors are cut to this in lists: fifty prompts of 1 MB are no list."""

_WAITING = """
    CASE
        WHEN t.status = 'waiting_local_directory' THEN 'local_directory'
        WHEN t.status = 'parked' THEN 'usage_limit'
        WHEN t.status != 'queued' THEN NULL
        WHEN t.runtime_id IS NULL OR r.id IS NULL THEN 'no_runtime'
        WHEN r.status != 'online' THEN 'runtime_offline'
        WHEN EXISTS (SELECT 1 FROM task AS o WHERE o.conversation_id = t.conversation_id
            AND o.status IN ('dispatched', 'waiting_local_directory', 'running')) THEN 'conversation_busy'
        WHEN t.kind = 'quick_create' AND EXISTS (SELECT 1 FROM task AS o WHERE o.agent_id = t.agent_id
            AND o.kind = 'quick_create'
            AND o.status IN ('dispatched', 'waiting_local_directory', 'running')) THEN 'agent_busy'
        WHEN EXISTS (SELECT 1 FROM agent AS a WHERE a.id = t.agent_id AND a.max_concurrent_tasks > 0
            AND (SELECT count(*) FROM task AS o WHERE o.agent_id = a.id
                AND o.status IN ('dispatched', 'waiting_local_directory', 'running'))
            >= a.max_concurrent_tasks) THEN 'agent_busy'
    END AS waiting_reason
"""


def _select(cut: bool) -> str:
    """The query for task views; a condition follows it."""

    def text(expression: str) -> str:
        return f"substr({expression}, 1, {LIST_TEXT_CHARS})" if cut else expression

    prompt = (
        "SELECT group_concat(content, char(10, 10)) FROM"
        " (SELECT content FROM chat_message WHERE turn_id = t.turn_id AND role IN ('user', 'notice')"
        " ORDER BY no)"
    )
    return (
        "SELECT t.no, t.id, t.conversation_id, t.status, t.provider, t.agent_name, t.runtime_id, t.priority,"
        " t.model, t.thinking_level, t.attempt, t.max_attempts, t.parent_task_id, t.created_at,"
        " t.dispatched_at, t.started_at, t.ended_at, t.session_id, t.work_dir, t.branch_name,"
        f" t.failure_reason, t.wait_detail, t.progress, t.kind, t.issue_id, t.parked_until, t.goes_on,"
        " c.parent_key, c.delegation_depth,"
        f" {text('t.output')} AS output,"
        f" {text('t.error')} AS error, {text(f'({prompt})')} AS prompt, c.title, c.directory, c.repo_url,"
        " c.repo_ref,"
        " (SELECT id FROM task AS n WHERE n.parent_task_id = t.id) AS retried_as,"
        f" {_WAITING}"
        " FROM task AS t JOIN conversation AS c ON c.id = t.conversation_id"
        " LEFT JOIN runtime AS r ON r.id = t.runtime_id "
    )


_WHOLE: Final = _select(cut=False)
_CUT: Final = _select(cut=True)


def load_tasks(tx: Tx, condition: str, parameters: tuple[object, ...] = (), *, cut: bool) -> list[HubTask]:
    """The views of the tasks ``t`` (of conversation ``c``) that meet ``condition``, in its order."""
    rows = tx.all((_CUT if cut else _WHOLE) + condition, parameters)
    return [_view(row, _usage(tx, row["no"])) for row in rows]


def load_task(tx: Tx, task_id: str) -> HubTask | None:
    """One task's view with its whole texts."""
    found = load_tasks(tx, "WHERE t.id = ?", (task_id,), cut=False)
    return found[0] if found else None


def _usage(tx: Tx, task_no: int) -> list[wire.Usage]:
    rows = tx.all("SELECT * FROM usage WHERE task_no = ? ORDER BY provider, model", (task_no,))
    return [
        wire.Usage(
            provider=row["provider"],
            model=row["model"],
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            cache_read_tokens=row["cache_read_tokens"],
            cache_write_tokens=row["cache_write_tokens"],
        )
        for row in rows
    ]


def _view(row: sqlite3.Row, usage: list[wire.Usage]) -> HubTask:
    return HubTask(
        id=row["id"],
        conversation_id=row["conversation_id"],
        title=row["title"],
        status=row["status"],
        provider=row["provider"],
        agent=row["agent_name"],
        prompt=row["prompt"] or "",
        created_at=rfc3339(row["created_at"]),
        model=row["model"],
        thinking_level=row["thinking_level"],
        directory=row["directory"],
        dispatched_at=rfc3339_or_none(row["dispatched_at"]),
        started_at=rfc3339_or_none(row["started_at"]),
        ended_at=rfc3339_or_none(row["ended_at"]),
        work_dir=row["work_dir"],
        session_id=row["session_id"],
        result=row["output"],
        branch_name=row["branch_name"],
        failure_reason=row["failure_reason"],
        error=row["error"],
        usage=usage,
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        parent_task_id=row["parent_task_id"],
        retried_as=row["retried_as"],
        waiting_reason=row["waiting_reason"],
        waiting_detail=row["wait_detail"] if row["status"] == "waiting_local_directory" else None,
        progress=row["progress"],
        runtime_id=row["runtime_id"],
        priority=row["priority"],
        repo_url=row["repo_url"],
        repo_ref=row["repo_ref"],
        kind=row["kind"],
        issue_id=row["issue_id"],
        parked_until=rfc3339_or_none(row["parked_until"]),
        goes_on=bool(row["goes_on"]),
        parent_key=row["parent_key"],
        depth=row["delegation_depth"],
    )


def on_the_wire(task: wire.Task) -> dict[str, object]:
    """A task as JSON will have it."""
    said: dict[str, object] = msgspec.to_builtins(task)
    return {name: getattr(task, name) for name in _ALWAYS} | said


def wire_task(row: sqlite3.Row, workspace_id: str) -> wire.Task:
    """A row of ``task`` as the daemon's routes answer it."""
    result = None
    if row["status"] == "completed":
        result = {"output": row["output"] or ""}
        if row["branch_name"]:
            result["branch_name"] = row["branch_name"]
        if row["pr_url"]:
            result["pr_url"] = row["pr_url"]
    return wire.Task(
        id=row["id"],
        agent_id=row["agent_id"],
        runtime_id=row["runtime_id"] or "",
        workspace_id=workspace_id,
        issue_id=row["issue_id"] or "",
        status=row["status"],
        priority=row["priority"],
        dispatched_at=rfc3339_or_none(row["dispatched_at"]),
        started_at=rfc3339_or_none(row["started_at"]),
        completed_at=rfc3339_or_none(row["ended_at"]),
        result=result,
        error=row["error"],
        failure_reason=row["failure_reason"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        parent_task_id=row["parent_task_id"],
        created_at=rfc3339(row["created_at"]),
        kind=row["kind"],
        chat_session_id=row["conversation_id"] if row["kind"] == "chat" else None,
        trigger_comment_id=row["trigger_comment_id"],
        autopilot_run_id=row["autopilot_run_id"],
        squad_id=row["squad_id"],
        handoff_note=row["handoff_note"],
        work_dir=row["work_dir"],
    )
