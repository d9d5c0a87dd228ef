"""``/v1/tasks/{id}/turns``: the tasks of one conversation, in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.live_views import all_tokens
from daemon_core.control.refusals import asked
from daemon_core.control.route import Route
from daemon_core.control.task_views import status_of
from daemon_core.control.turn_views import TurnView
from daemon_core.control.views import TaskRow, TaskView
from daemon_core.control.web import answer
from daemon_core.hub import Hub
from daemon_core.journal import Journal, TaskRecord
from daemon_core.protocol.wire import Usage

MOST: Final = 500
PROMPT_CHARS: Final = 200

TURN_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "turns",
        "GET",
        "/v1/tasks/{id}/turns",
        f"The tasks of the task's conversation, oldest first; the newest {MOST} of them.",
        list[TurnView],
        refusals=("not_found", "ambiguous_id", "invalid_input", "not_ready"),
    ),
)


class Source(Protocol):
    """Where the tasks are; the facade is one of these."""

    @property
    def hub(self) -> Hub | None: ...
    @property
    def journal(self) -> Journal | None: ...


class TurnsDesk:
    """Answers the route above.

    Args:
        task: One task by its id or the beginning of it. Raises ``ControlError``.
        costs: Puts into rows what their tasks cost.
    """

    def __init__(
        self,
        source: Source,
        task: Callable[[str], Awaitable[TaskView]],
        costs: Callable[[list[TaskRow]], Awaitable[list[TaskRow]]],
    ) -> None:
        self._source = source
        self._task = task
        self._costs = costs

    async def turns(self, task_id: str) -> list[TurnView]:
        """The turns. Raises ``ControlError``: not_found, ambiguous_id, invalid_input, not_ready."""
        view = await self._task(task_id)
        if view.server == "hub" and self._source.hub is not None:
            conversation = await asked(self._source.hub.conversation(view.conversation_id))
            found = [
                TurnView(
                    id=task.id,
                    status=task.status,
                    prompt=(task.prompt or "")[:PROMPT_CHARS],
                    created_at=task.created_at,
                    started_at=task.started_at,
                    ended_at=task.ended_at,
                    failure_reason=task.failure_reason or "",
                    attempt=task.attempt,
                    tokens=all_tokens(task.usage),
                )
                for task in conversation.turns[-MOST:]
            ]
        else:
            found = await self._of_server(view)
        rows = [TaskRow(id=turn.id, title="", status=turn.status, server=view.server) for turn in found]
        costs = {row.id: row for row in await self._costs(rows)}
        return [
            msgspec.structs.replace(turn, cost=costs[turn.id].cost, cost_how=costs[turn.id].cost_how)
            for turn in found
        ]

    async def _of_server(self, view: TaskView) -> list[TurnView]:
        journal = self._source.journal
        if journal is None:
            raise ControlError("not_ready")
        if not view.conversation_id:
            keys = [f"{view.server}/{view.id}"]
        else:

            def read(db: sqlite3.Connection) -> list[str]:
                rows = db.execute(
                    "SELECT key FROM tasks WHERE conversation_id = ? AND connection = ?"
                    " ORDER BY rowid DESC LIMIT ?",
                    (view.conversation_id, view.server, MOST),
                )
                return [str(row[0]) for row in rows][::-1]

            keys = await journal.transact(read)
        records = [await journal.task(key) for key in keys]
        return [_of_record(record) for record in records if record is not None]


def _of_record(record: TaskRecord) -> TurnView:
    return TurnView(
        id=record.task_id,
        status=status_of(record),
        prompt=record.title[:PROMPT_CHARS],
        created_at=record.claimed_at,
        started_at=record.started_at or None,
        ended_at=record.ended_at or None,
        failure_reason=record.failure_reason,
        tokens=all_tokens(msgspec.json.decode(record.usage, type=list[Usage])),
    )


class HasTurns(Protocol):
    """What the route needs of the daemon."""

    @property
    def turns_desk(self) -> TurnsDesk | None: ...


def turn_handlers(backend: HasTurns) -> Mapping[str, Handler]:
    """The answering function by the name of its route."""

    async def turns(request: web.Request) -> web.Response:
        if backend.turns_desk is None:
            raise ControlError("not_ready")
        return answer(await backend.turns_desk.turns(request.match_info["id"]))

    return {"turns": turns}
