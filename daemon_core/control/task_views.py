"""Tasks as the control API shows them, made of what the hub and the journal know. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from daemon_core.control.views import Condition, RunView, TaskRow, TaskView
from daemon_core.hub import HubTask
from daemon_core.journal import RunRecord, TaskRecord
from daemon_core.protocol import wire

ACTION_CHARS: Final = 120


def row(task: HubTask, last_action: str, waiting: Condition | None = None) -> TaskRow:
    """A task of the hub in a list."""
    return TaskRow(
        id=task.id,
        title=task.title,
        status=task.status,
        runtime=task.provider,
        agent=task.agent,
        model=task.model or "",
        created_at=task.created_at,
        started_at=task.started_at,
        ended_at=task.ended_at,
        conversation_id=task.conversation_id,
        directory=task.directory or "",
        failure_reason=task.failure_reason or "",
        last_action=last_action[:ACTION_CHARS],
        server="hub",
        parked_until=task.parked_until,
        waiting=waiting,
        tokens=sum(
            used.input_tokens + used.output_tokens + used.cache_read_tokens + used.cache_write_tokens
            for used in task.usage
        ),
    )


def row_of_record(record: TaskRecord, last_action: str) -> TaskRow:
    """A task of another server in a list, as the journal has it."""
    return TaskRow(
        id=record.task_id,
        title=record.title,
        status=status_of(record),
        runtime=record.provider,
        agent=record.agent_name,
        model=record.model,
        created_at=record.claimed_at,
        started_at=record.started_at or None,
        ended_at=record.ended_at or None,
        conversation_id=record.conversation_id,
        directory=record.directory,
        failure_reason=record.failure_reason,
        last_action=last_action[:ACTION_CHARS],
        server=record.connection,
    )


def view(
    task: HubTask, record: TaskRecord | None, runs: list[RunView], waiting: Condition | None
) -> TaskView:
    """A task of the hub with everything about it; ``record`` is what this machine knows of it."""
    result, error = task.result or "", task.error or ""
    usage = task.usage
    messages = 0
    session_id, work_dir = task.session_id or "", task.work_dir or ""
    if record is not None:
        messages = record.next_seq - 1
        session_id = session_id or record.session_id
        work_dir = work_dir or record.work_dir
        # A result that came after the server had ended the task is kept here alone.
        result = result or record.output
        error = error or record.error
        usage = usage or msgspec.json.decode(record.usage, type=list[wire.Usage])
    return TaskView(
        id=task.id,
        title=task.title,
        status=task.status,
        runtime=task.provider,
        agent=task.agent,
        model=task.model or "",
        created_at=task.created_at,
        started_at=task.started_at,
        ended_at=task.ended_at,
        work_dir=work_dir,
        session_id=session_id,
        result=result,
        failure_reason=task.failure_reason or "",
        error=error,
        usage=usage,
        runs=runs,
        server="hub",
        conversation_id=task.conversation_id,
        directory=task.directory or "",
        prompt=task.prompt,
        thinking=task.thinking_level or "",
        waiting=waiting,
        attempt=task.attempt,
        messages=messages,
        repo=task.repo_url or "",
        ref=task.repo_ref or "",
        parked_until=task.parked_until,
        goes_on=task.goes_on,
    )


def view_of_record(record: TaskRecord, runs: list[RunView]) -> TaskView:
    """A task of another server with everything about it, as the journal has it."""
    return TaskView(
        id=record.task_id,
        title=record.title,
        status=status_of(record),
        runtime=record.provider,
        agent=record.agent_name,
        model=record.model,
        created_at=record.claimed_at,
        started_at=record.started_at or None,
        ended_at=record.ended_at or None,
        work_dir=record.work_dir,
        session_id=record.session_id,
        result=record.output,
        failure_reason=record.failure_reason,
        error=record.error,
        usage=msgspec.json.decode(record.usage, type=list[wire.Usage]),
        runs=runs,
        server=record.connection,
        conversation_id=record.conversation_id,
        directory=record.directory,
        messages=record.next_seq - 1,
    )


def run_view(run: RunRecord, *, current: bool) -> RunView:
    """One run; ``current`` is whether it is the task's last."""
    states = {"created": "starting", "spawned": "running", "ended": "ended", "lost": "lost"}
    status = states.get(run.state, "ended")
    if status == "starting" and not current:
        status = "never_started"
    return RunView(
        id=run.run_id,
        status=status,  # type: ignore[arg-type]
        pid=run.pid,
        exit_code=run.exit_code,
        signal=run.signal,
        started_at=run.started_at or None,
        ended_at=run.ended_at or None,
        reason=run.note,
    )


def status_of(record: TaskRecord) -> str:
    """A task's status in the words of the protocol."""
    if record.state == "ended":
        return {"abandoned": "cancelled"}.get(record.outcome, record.outcome)
    return {"waiting_directory": "waiting_local_directory", "started": "running"}.get(
        record.state, "dispatched"
    )
