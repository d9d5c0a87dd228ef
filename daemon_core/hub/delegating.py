"""Tasks that another task has handed on: who their parent is, how many there may be, and their end with it.

A child is a conversation like any other, with a link to the task that handed it on. The parent may be of the
hub or of any other server (then only its names are known here). Kept in the transactions of this module:

* a request is carried out once, however often it is asked: ``Link.request`` names it for all time;
* neither depth nor numbers go beyond their limits;
* when a parent of the hub is cancelled or deleted, everything below it is cancelled in the same transaction.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from daemon_core.hub import service
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import ConflictError
from daemon_core.hub.rows import load_tasks
from daemon_core.hub.service import Scope
from daemon_core.hub.states import ACTIVE, TaskState
from daemon_core.hub.store import Store, Tx
from daemon_core.hub.views import DeletedConversation, HubTask, NewTask, View
from daemon_core.protocol.wire import TERMINAL_STATUSES

_DONE: Final = "('completed', 'failed', 'cancelled')"
_BEGUN: Final = frozenset({*ACTIVE, TaskState.PARKED})
_OPEN: Final = f"EXISTS (SELECT 1 FROM task WHERE conversation_id = c.id AND status NOT IN {_DONE})"
_BELOW: Final = """
    WITH RECURSIVE below (id) AS (
        SELECT id FROM conversation WHERE {where}
        UNION SELECT c.id FROM conversation AS c JOIN below ON c.parent_home = below.id
    )
"""


class Link(View, frozen=True):
    """Who hands on a task, and what it may.

    ``parent_key`` and ``parent_conversation`` are names of the daemon's; ``parent_task`` is the parent's id
    where it is a task of the hub.
    """

    parent_key: str
    parent_conversation: str
    request: str
    parent_task: str | None = None
    depth: int = 1
    """How deep tasks may be handed on."""
    at_once: int = 8
    """How many of a conversation may be open."""
    per_task: int = 50


class Child(View, frozen=True):
    """A conversation that was handed on, with its newest task. ``id`` is that of its first task."""

    id: str
    conversation_id: str
    parent_key: str
    parent_conversation: str
    depth: int
    created_at: str
    task: HubTask
    model: str = ""
    """What the newest task runs with, by itself or its agent."""

    @property
    def over(self) -> bool:
        return self.task.status in TERMINAL_STATUSES


class Delegating:
    """What the daemon asks of the hub about tasks that were handed on."""

    def __init__(self, store: Store, scope: Scope) -> None:
        self._store = store
        self._scope = scope

    async def hand_on(self, new: NewTask, link: Link) -> Child:
        """Begin a conversation for a parent; the one that is there for the same request.

        Raises:
            ConflictError: ``delegation_too_deep``, ``delegations_open``, ``delegations_used_up``.
            InvalidInputError, NotFoundError: as for any task.
        """
        return await self._store.write(lambda tx: hand_on(tx, self._scope, new, link))

    async def child(self, conversation_id: str) -> Child | None:
        """One by its conversation; None if that is gone (or was not handed on)."""

        def read(tx: Tx) -> Child | None:
            found = _children(tx, "c.id = ?", (conversation_id,))
            return found[0] if found else None

        return await self._store.read(read)

    async def all(self) -> list[Child]:
        """Every one that is there, oldest first."""
        return await self._store.read(lambda tx: _children(tx, "c.parent_key IS NOT NULL", ()))

    async def below(self, *, parent_conversation: str = "", home: str = "") -> list[Child]:
        """Everything below a conversation, by the daemon's name for it or by its id here."""

        def read(tx: Tx) -> list[Child]:
            ids = _below(tx, parent_conversation, home)
            found = [each for number in ids for each in _children(tx, "c.id = ?", (number,))]
            return sorted(found, key=lambda child: (child.created_at, child.id))

        return await self._store.read(read)

    async def go_on(self, conversation_id: str, after: str, prompt: str) -> HubTask | None:
        """Another turn for a child whose newest task is still ``after``; None if it is not."""

        def rule(tx: Tx) -> HubTask | None:
            newest = tx.one(
                "SELECT id FROM task WHERE conversation_id = ? ORDER BY no DESC LIMIT 1", (conversation_id,)
            )
            if newest is None or newest["id"] != after:
                return None
            return service.new_turn(tx, self._scope, conversation_id, prompt, fresh=False)

        return await self._store.write(rule)

    async def cancel(self, conversation_id: str) -> None:
        """Cancel what goes on or waits in a child's conversation, and everything below it."""

        def rule(tx: Tx) -> None:
            cancel_below(tx, home=conversation_id)
            _cancel_tasks(tx, conversation_id)

        await self._store.write(rule)

    async def cancel_below(self, parent_conversation: str) -> None:
        """The parent, a conversation of another server, is over and not wanted any more."""
        await self._store.write(lambda tx: cancel_below(tx, parent_conversation=parent_conversation))

    async def cancel_below_home(self, home: str) -> None:
        """The same of a parent whose conversation is here."""
        await self._store.write(lambda tx: cancel_below(tx, home=home))


def hand_on(tx: Tx, scope: Scope, new: NewTask, link: Link) -> Child:
    """See ``Delegating.hand_on``."""
    there = _children(tx, "c.delegation_request = ?", (link.request,))
    if there:
        return there[0]
    home, depth = None, 1
    if link.parent_task is not None:
        home = service.task_row(tx, link.parent_task)["conversation_id"]
        above = tx.one("SELECT delegation_depth FROM conversation WHERE id = ?", (home,))
        depth += 0 if above is None else int(above["delegation_depth"])
    if depth > link.depth:
        raise ConflictError("delegation_too_deep", limit=link.depth)
    open_now = tx.one(
        f"SELECT count(*) AS n FROM conversation AS c WHERE parent_conversation = ? AND {_OPEN}",
        (link.parent_conversation,),
    )
    if open_now is not None and open_now["n"] >= link.at_once:
        raise ConflictError("delegations_open", limit=link.at_once)
    made = tx.one("SELECT count(*) AS n FROM conversation WHERE parent_key = ?", (link.parent_key,))
    if made is not None and made["n"] >= link.per_task:
        raise ConflictError("delegations_used_up", limit=link.per_task)
    task = service.add_task(tx, scope, new)
    tx.run(
        "UPDATE conversation SET parent_key = ?, parent_conversation = ?, parent_home = ?,"
        " delegation_depth = ?, delegation_request = ? WHERE id = ?",
        (link.parent_key, link.parent_conversation, home, depth, link.request, task.conversation_id),
    )
    return _children(tx, "c.id = ?", (task.conversation_id,))[0]


def cancel_below(tx: Tx, *, parent_conversation: str = "", home: str = "") -> None:
    """Cancel everything that was handed on by a conversation, and what those have handed on."""
    for conversation_id in _below(tx, parent_conversation, home):
        _cancel_tasks(tx, conversation_id)


def cancel_task(tx: Tx, task_id: str) -> sqlite3.Row:
    """Cancel a task, and where it has begun everything that its conversation has handed on. What is over is
    left alone; one that nobody has claimed has handed on nothing, and an earlier turn may still go on."""
    row = service.task_row(tx, task_id)
    if row["status"] in _BEGUN:
        cancel_below(tx, home=row["conversation_id"])
    return service.cancel(tx, task_id)


def delete_conversation(tx: Tx, conversation_id: str) -> DeletedConversation:
    """Delete a conversation, and cancel everything that it has handed on."""
    cancel_below(tx, home=conversation_id)
    return service.delete(tx, conversation_id)


def _cancel_tasks(tx: Tx, conversation_id: str) -> None:
    # The newest first: a turn that is let go by the end of the one before would only be told to end.
    for row in tx.all(
        f"SELECT id FROM task WHERE conversation_id = ? AND status NOT IN {_DONE} ORDER BY no DESC",
        (conversation_id,),
    ):
        service.cancel(tx, row["id"])


def _below(tx: Tx, parent_conversation: str, home: str) -> list[str]:
    where, name = ("parent_home = ?", home) if home else ("parent_conversation = ?", parent_conversation)
    return [row["id"] for row in tx.all(_BELOW.format(where=where) + " SELECT id FROM below", (name,))]


def _children(tx: Tx, where: str, parameters: tuple[object, ...]) -> list[Child]:
    rows = tx.all(
        "SELECT c.*, (SELECT max(no) FROM task WHERE conversation_id = c.id) AS newest,"
        " (SELECT id FROM task WHERE conversation_id = c.id ORDER BY no LIMIT 1) AS first"
        f" FROM conversation AS c WHERE c.parent_key IS NOT NULL AND {where} ORDER BY c.created_at, c.rowid",
        parameters,
    )
    return [_child(tx, row) for row in rows if row["newest"] is not None]


def _child(tx: Tx, row: sqlite3.Row) -> Child:
    (task,) = load_tasks(tx, "WHERE t.no = ?", (row["newest"],), cut=False)
    model = tx.one(
        "SELECT coalesce(t.model, a.model, '') AS model FROM task AS t LEFT JOIN agent AS a"
        " ON a.id = t.agent_id WHERE t.no = ?",
        (row["newest"],),
    )
    return Child(
        id=row["first"],
        conversation_id=row["id"],
        parent_key=row["parent_key"],
        parent_conversation=row["parent_conversation"],
        depth=row["delegation_depth"],
        created_at=rfc3339(row["created_at"]),
        task=task,
        model="" if model is None else str(model["model"]),
    )
