"""The states of a task at the server, as one table. Nothing but :func:`step` says what may follow what.

    deferred ──due──▶ queued ──claim──▶ dispatched ──start──▶ running ──complete──▶ completed
                                          │  ▲ └─wait─▶ waiting_local_directory ──start──▶ running
                                          └──┘ redeliver
    dispatched, waiting_local_directory, running ──fail──▶ failed
    dispatched, waiting_local_directory, running ──park──▶ parked ──due──▶ queued
    parked ──fail──▶ failed
    every state that is not final ──cancel──▶ cancelled

The final states are never left. What a refusal means differs by event and is the protocol's: a start or wait
that is not allowed is an error, a complete, fail or cancel that comes too late changes nothing and says so by
answering with the unchanged task.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task is."""

    DEFERRED = "deferred"
    """Not to be claimed before its time."""
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    """Claimed; the daemon prepares it."""
    WAITING = "waiting_local_directory"
    """Claimed; another task works in the directory it wants."""
    RUNNING = "running"
    PARKED = "parked"
    """A limit of the account holds it up; no run, no slot."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskEvent(StrEnum):
    """What can happen to a task."""

    DUE = "due"
    CLAIM = "claim"
    REDELIVER = "redeliver"
    WAIT = "wait"
    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    PARK = "park"
    CANCEL = "cancel"


ACTIVE: Final = frozenset({TaskState.DISPATCHED, TaskState.WAITING, TaskState.RUNNING})
"""Claimed and not over: at most one of these per conversation."""
FINAL: Final = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})

TRANSITIONS: Final[dict[tuple[TaskState, TaskEvent], TaskState]] = {
    (TaskState.DEFERRED, TaskEvent.DUE): TaskState.QUEUED,
    (TaskState.QUEUED, TaskEvent.CLAIM): TaskState.DISPATCHED,
    (TaskState.DISPATCHED, TaskEvent.REDELIVER): TaskState.DISPATCHED,
    (TaskState.DISPATCHED, TaskEvent.WAIT): TaskState.WAITING,
    (TaskState.DISPATCHED, TaskEvent.START): TaskState.RUNNING,
    (TaskState.WAITING, TaskEvent.START): TaskState.RUNNING,
    (TaskState.RUNNING, TaskEvent.COMPLETE): TaskState.COMPLETED,
    **{(state, TaskEvent.FAIL): TaskState.FAILED for state in (*ACTIVE, TaskState.PARKED)},
    **{(state, TaskEvent.PARK): TaskState.PARKED for state in ACTIVE},
    (TaskState.PARKED, TaskEvent.DUE): TaskState.QUEUED,
    **{(state, TaskEvent.CANCEL): TaskState.CANCELLED for state in TaskState if state not in FINAL},
}


class TransitionError(Exception):
    """An event that a state does not allow. Its text goes over the wire as the reason of a 400."""

    def __init__(self, state: TaskState, event: TaskEvent) -> None:
        self.state = state
        self.event = event
        super().__init__(state, event)

    def __str__(self) -> str:
        return f"cannot {self.event} a task that is {self.state}"


def step(state: TaskState, event: TaskEvent) -> TaskState:
    """The state after ``event``.

    Raises:
        TransitionError: the table has no such transition.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise TransitionError(state, event) from None
