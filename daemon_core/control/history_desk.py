"""``/v1/history``: tasks of all servers by pages, newest first, searched and filtered where they are stored.

A cursor names the last task of each source that was given (the hub's tasks and the journal's records of other
servers are numbered each for themselves), so a page costs the same however far down the list it is, and tasks
that come meanwhile shift nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.refusals import asked
from daemon_core.control.route import Query, Route
from daemon_core.control.views import TaskRow, View
from daemon_core.control.web import answer, number
from daemon_core.hub import Hub, HubTask
from daemon_core.journal import Journal, TaskRecord

DEFAULT: Final = 100
MOST: Final = 500
WORDS_CHARS: Final = 200
STATUSES: Final = frozenset(
    {
        "queued", "dispatched", "waiting_local_directory", "running", "parked", "completed", "failed",
        "cancelled",
    }
)  # fmt: skip


class HistoryPage(View, frozen=True, kw_only=True):
    """A page of tasks. ``next``: what to give as ``before`` for the one after it; empty: there is none."""

    tasks: list[TaskRow] = msgspec.field(default_factory=list)
    next: str = ""


HISTORY_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "history",
        "GET",
        "/v1/history",
        "Tasks by pages, newest first.",
        HistoryPage,
        query=(
            Query("before", "`next` of the page before; left out: from the newest.", "string"),
            Query("limit", f"How many at most, up to {MOST}.", "integer"),
            Query("q", "Words that title, agent or directory contain.", "string"),
            Query("status", "Only these, with commas between them.", "string"),
        ),
        refusals=("invalid_input", "not_ready"),
    ),
)


class Source(Protocol):
    """Where the tasks are; the facade is one of these."""

    @property
    def hub(self) -> Hub | None: ...
    @property
    def journal(self) -> Journal | None: ...


class HistoryDesk:
    """Answers the route above.

    Args:
        row: How a task of the hub shows in a list, as it is at this moment.
        row_of_record: The same for another server's.
        costs: Puts into rows what their tasks cost.
    """

    def __init__(
        self,
        source: Source,
        row: Callable[[HubTask], TaskRow],
        row_of_record: Callable[[TaskRecord], TaskRow],
        costs: Callable[[list[TaskRow]], Awaitable[list[TaskRow]]],
    ) -> None:
        self._source = source
        self._row = row
        self._row_of_record = row_of_record
        self._costs = costs

    async def page(
        self, *, before: str = "", limit: int = DEFAULT, words: str = "", statuses: tuple[str, ...] = ()
    ) -> HistoryPage:
        """One page. Raises ``ControlError``: invalid_input, not_ready."""
        hub_before, journal_before = _positions(before)
        unknown = sorted(set(statuses) - STATUSES)
        if unknown:
            raise ControlError("invalid_input", {"field": "status", "why": "unknown", "given": unknown[0]})
        limit = min(max(limit, 1), MOST)
        words = words.strip()[:WORDS_CHARS]
        journal = self._source.journal
        if journal is None:
            raise ControlError("not_ready")
        # One more than wanted: it tells whether anything follows.
        own = []
        if self._source.hub is not None and hub_before != 0:
            own = await asked(self._source.hub.history(hub_before, limit + 1, words, statuses))
        others = []
        if journal_before != 0:
            others = await journal.history(journal_before, limit + 1, words, statuses)
        found = [(task.created_at, "hub", no, self._row(task)) for no, task in own]
        found += [(record.claimed_at, "journal", no, self._row_of_record(record)) for no, record in others]
        # Each source stays in its own order, whatever a clock that was set back says.
        merged = _merge(found)
        taken = merged[:limit]
        for _at, source, no, _row in taken:
            if source == "hub":
                hub_before = no
            else:
                journal_before = no
        more = len(merged) > limit
        cursor = f"{_told(hub_before)}.{_told(journal_before)}" if more else ""
        return HistoryPage(tasks=await self._costs([row for *_rest, row in taken]), next=cursor)


_Found = tuple[str, str, int, TaskRow]


def _merge(found: list[_Found]) -> list[_Found]:
    hub = [each for each in found if each[1] == "hub"]
    others = [each for each in found if each[1] != "hub"]
    merged: list[_Found] = []
    first = second = 0
    while first < len(hub) or second < len(others):
        if second == len(others) or (first < len(hub) and hub[first][0] >= others[second][0]):
            merged.append(hub[first])
            first += 1
        else:
            merged.append(others[second])
            second += 1
    return merged


def _told(position: int | None) -> str:
    return "" if position is None else str(position)


def _positions(before: str) -> tuple[int | None, int | None]:
    if not before:
        return None, None
    hub, dot, journal = before.partition(".")
    parts = []
    for part in (hub, journal):
        if not dot or (part and (not part.isascii() or not part.isdigit() or len(part) > 18)):
            raise ControlError("invalid_input", {"field": "before", "why": "not_a_cursor"})
        parts.append(int(part) if part else None)
    return parts[0], parts[1]


class HasHistory(Protocol):
    """What the route needs of the daemon."""

    @property
    def history(self) -> HistoryDesk | None: ...


def history_handlers(backend: HasHistory) -> Mapping[str, Handler]:
    """The answering function by the name of its route."""

    async def history(request: web.Request) -> web.Response:
        if backend.history is None:
            raise ControlError("not_ready")
        statuses = tuple(each for each in request.query.get("status", "").split(",") if each)
        return answer(
            await backend.history.page(
                before=request.query.get("before", ""),
                limit=number(request, "limit") or DEFAULT,
                words=request.query.get("q", ""),
                statuses=statuses,
            )
        )

    return {"history": history}
