"""To which conversation a task belongs: what its jobs, delegations and notices are kept under."""

from __future__ import annotations

from daemon_core.journal import TaskRecord


def conversation_of(record: TaskRecord) -> str:
    """``<connection>/<conversation id>``; a task without a conversation is one of its own.

    Persons' jobs belong to none: there the conversation is empty.
    """
    return conversation_key(record.connection, record.conversation_id or record.task_id)


def conversation_key(connection: str, conversation_id: str) -> str:
    """The same of a conversation that is known by its id."""
    return f"{connection}/{conversation_id}"
