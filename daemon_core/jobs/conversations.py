"""To which conversation a task belongs: what its jobs, delegations and notices are kept under."""

from __future__ import annotations

from daemon_core.journal import TaskRecord

CHAT_KINDS = ("", "chat")


def conversation_of(record: TaskRecord) -> str:
    """``<connection>/<conversation id>``; a task without a conversation is one of its own.

    Several agents can work on one issue, each in a session of its own: there the agent is a part of it.
    Persons' jobs belong to none: their conversation is empty.
    """
    key = conversation_key(record.connection, record.conversation_id or record.task_id)
    shared = record.kind not in CHAT_KINDS and record.conversation_id not in ("", record.task_id)
    return f"{key}/{record.agent_id}" if shared and record.agent_id else key


def conversation_key(connection: str, conversation_id: str) -> str:
    """The same of a conversation that is known by its id. What belongs to agents on an issue begins with
    this and a slash."""
    return f"{connection}/{conversation_id}"
