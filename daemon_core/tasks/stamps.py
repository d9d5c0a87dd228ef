"""What is written beside a work directory, so that clean-up can tell what it belongs to."""

from __future__ import annotations

from daemon_core.journal import TaskRecord, WorkDirRow
from daemon_core.workdirs.directories import Stamp


def stamp_of(row: WorkDirRow | TaskRecord, completed_at: str) -> Stamp:
    """The metadata for what the journal knows of a task."""
    own = row.conversation_id if row.conversation_id != row.task_id else ""
    return Stamp(
        kind=row.kind,
        chat_session_id=row.conversation_id if row.kind == "chat" else "",
        autopilot_run_id=own if row.kind == "autopilot" else "",
        issue_id=own if row.kind not in ("chat", "autopilot", "quick_create") else "",
        task_id=row.task_id,
        workspace_id=row.workspace_id,
        completed_at=completed_at,
        connection=row.connection,
    )
