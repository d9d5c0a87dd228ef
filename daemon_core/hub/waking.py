"""A conversation whose turn is over is woken: another turn, begun not by the user but by what a job came to.

Its text is the daemon's, and stands in the conversation under a role of its own. The daemon keeps what there
is to tell and gives it to whichever turn comes next; so there is never more than one such turn to come, and a
message of the user's that comes before it was claimed takes its place.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from daemon_core.hub import service
from daemon_core.hub.store import Tx
from daemon_core.hub.views import HubTask

ROLE: Final = "notice"
"""Of the message that such a turn begins with."""


def wake(tx: Tx, scope: service.Scope, task_id: str, text: str) -> HubTask | None:
    """Another turn in the conversation of a task: its agent, model, thinking level, session and directory.

    None where a turn goes on or is to come (that one is told), and where the user has just cancelled the turn
    that was to tell the same.

    Raises:
        NotFoundError: ``unknown_task``. ConflictError: ``agent_removed``. InvalidInputError: the text.
    """
    conversation_id = service.task_row(tx, task_id)["conversation_id"]
    checked = service.check_prompt(text, scope.limits)
    open_turn = tx.one(
        "SELECT 1 FROM task WHERE conversation_id = ? AND status NOT IN ('completed', 'failed', 'cancelled')",
        (conversation_id,),
    )
    if open_turn is not None:
        return None
    last = tx.one("SELECT * FROM task WHERE conversation_id = ? ORDER BY no DESC LIMIT 1", (conversation_id,))
    assert last is not None, "a conversation without a turn"
    if _was_declined(last) and service.prompt_of(tx, last["turn_id"]) == checked:
        return None
    about: dict[str, object] = {name: last[name] for name in service.ABOUT}
    about |= {"thinking_level": last["thinking_level"], "woken": 1}
    return service.new_turn(
        tx, scope, conversation_id, checked, model=last["model"], fresh=False, about=about, role=ROLE
    )


def _was_declined(row: sqlite3.Row) -> bool:
    return bool(row["woken"]) and row["status"] == "cancelled" and row["dispatched_at"] is None


def give_way(tx: Tx, conversation_id: str) -> None:
    """The user says something: what the turn that waits would have told goes with it."""
    for row in tx.all(
        "SELECT id FROM task WHERE conversation_id = ? AND status = 'queued' AND woken = 1 AND attempt = 1",
        (conversation_id,),
    ):
        service.cancel(tx, row["id"])
