"""``/v1/spend``: what tasks cost, and the user's word that a day may go on beyond its limit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.route import Query, Route
from daemon_core.control.spend_views import PriceView, SpendEntry, SpendReport
from daemon_core.control.views import Condition, SpendView, TaskRow, TaskView
from daemon_core.control.web import answer, number
from daemon_core.journal import TaskRecord
from daemon_core.protocol.wire import Usage
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.prices import Cost
from daemon_core.tasks.results import add_usage
from daemon_core.tasks.spend_store import KEPT_DAYS
from daemon_core.tasks.spending import SpendBook, Spender

DAYS: Final = 30
CENT: Final = 2

SPEND_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "spend",
        "GET",
        "/v1/spend",
        "What tasks cost, by day, connection, agent and model.",
        SpendReport,
        query=(Query("days", f"How many days, today among them; left out: {DAYS}.", "integer"),),
        refusals=("invalid_input", "not_ready"),
    ),
    Route(
        "spend_on",
        "POST",
        "/v1/spend/continue",
        "Take tasks again today, whatever they cost; the limit holds again from midnight on.",
        SpendView,
        guarded=True,
        refusals=("not_ready",),
    ),
)


class SpendDesk:
    """Answers the routes above, and puts costs into the views of tasks.

    Args:
        changed: The day stands otherwise.
        booked: The cost of an ended task of the hub is another one; its id.
    """

    def __init__(self, changed: Callable[[], None], booked: Callable[[str], None]) -> None:
        self.book: SpendBook | None = None
        self._changed = changed
        self._booked = booked
        self._since = ""
        self._shown = SpendView()

    # --- told ----------------------------------------------------------------------------------

    def seen(self, life: TaskLife) -> None:
        """A running task has used more."""
        if self.book is not None:
            self.book.book(_spender(life.record), add_usage(life.used(), life.progress.usage))

    def ended(self, record: TaskRecord) -> None:
        """A task has ended: what it used is known for good."""
        if self.book is not None:
            usage = msgspec.json.decode(record.usage, type=list[Usage])
            self.book.book(_spender(record), usage, last=True)

    def on_change(self) -> None:
        """The book says that the day stands otherwise: told where that is to be seen."""
        view = self.view()
        if view is not None and _shown(view) != _shown(self._shown):
            self._shown = view
            self._changed()

    def on_booked(self, key: str) -> None:
        """The book has booked something of a task."""
        connection, _slash, task_id = key.partition("/")
        if connection == "hub":
            self._booked(task_id)

    # --- shown ---------------------------------------------------------------------------------

    def view(self) -> SpendView | None:
        """How the day stands; None while the daemon starts."""
        book = self.book
        if book is None:
            return None
        now = book.standing()
        return SpendView(
            day=now.day,
            spent=round(now.spent, 6),
            limit=now.limit,
            warn_at=round(now.warn_at, 6),
            unknown_tasks=now.unknown,
            held=now.held,
            allowed=now.allowed,
            resets_at=book.resets_at(),
        )

    def conditions(self) -> list[Condition]:
        """What is to be said about it."""
        view = self.view()
        if view is None or not (
            view.held or (view.limit > 0 and not view.allowed and view.spent >= view.warn_at)
        ):
            self._since = ""
            return []
        if not self._since:
            self._since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        params = {
            "spent": round(view.spent, CENT),
            "limit": view.limit,
            "currency": view.currency,
            "unknown_tasks": view.unknown_tasks,
            "day": view.day,
        }
        if not view.held:
            return [Condition(code="spend_near", params=params, since=self._since)]
        return [
            Condition(
                code="spend_limit",
                params=params,
                since=self._since,
                next_try_at=view.resets_at,
                action="continue_today",
            )
        ]

    def waiting(self) -> Condition | None:
        """Why a task is not taken, if this is why."""
        return next((each for each in self.conditions() if each.code == "spend_limit"), None)

    def row(self, row: TaskRow) -> TaskRow:
        """A task in a list with its cost, as far as that is known without asking."""
        cost = self.book.cost_of(f"{row.server or 'hub'}/{row.id}") if self.book is not None else None
        return _row(row, cost) if cost is not None else row

    async def rows(self, rows: Sequence[TaskRow]) -> list[TaskRow]:
        """Tasks in a list with their costs."""
        if self.book is None:
            return list(rows)
        costs = await self.book.costs(f"{row.server or 'hub'}/{row.id}" for row in rows if not row.cost_how)
        return [_row(row, costs.get(f"{row.server or 'hub'}/{row.id}")) for row in rows]

    async def task(self, view: TaskView) -> TaskView:
        """A task with its cost."""
        if self.book is None:
            return view
        key = f"{view.server or 'hub'}/{view.id}"
        cost = (await self.book.costs([key])).get(key)
        if cost is None:
            return view
        return msgspec.structs.replace(view, cost=_told(cost), cost_how=cost.how)

    # --- asked ---------------------------------------------------------------------------------

    async def report(self, days: int) -> SpendReport:
        """What was spent. Raises ``ControlError``: invalid_input, not_ready."""
        book, today = self._ready()
        if not 1 <= days <= KEPT_DAYS:
            raise ControlError("invalid_input", {"field": "days", "why": "range", "most": KEPT_DAYS})
        since = (dt.date.fromisoformat(today.day) - dt.timedelta(days=days - 1)).isoformat()
        entries = [
            SpendEntry(
                day=row.day,
                connection=row.connection,
                agent=row.agent,
                provider=row.provider,
                model=row.model,
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                cache_read_tokens=row.cache_read_tokens,
                cache_write_tokens=row.cache_write_tokens,
                cost=None if row.how == "unknown" else round(row.cost, 6),
                how=row.how,
            )
            for row in await book.store.since(since)
        ]
        models = sorted({entry.model for entry in entries})
        known = {model: price for model in models if (price := book.prices.find(model)) is not None}
        return SpendReport(
            today=today,
            entries=entries,
            prices=[
                PriceView(
                    model=model,
                    input=price.input,
                    output=price.output,
                    cache_read=price.cache_read,
                    cache_write=price.cache_write,
                    as_of=price.as_of,
                )
                for model, price in known.items()
            ],
            prices_as_of=book.prices.as_of,
            own_prices=book.prices.own,
            unknown_models=sorted({each.model for each in entries if each.how in ("unknown", "partial")}),
        )

    async def allow_today(self) -> SpendView:
        """The user lets this day go on."""
        book, _today = self._ready()
        await book.allow_today()
        return self._ready()[1]

    def _ready(self) -> tuple[SpendBook, SpendView]:
        view = self.view()
        if self.book is None or view is None:
            raise ControlError("not_ready")
        return self.book, view


def _spender(record: TaskRecord) -> Spender:
    return Spender(record.key, record.connection, record.agent_name, record.provider)


def _told(cost: Cost) -> float | None:
    return None if cost.how == "unknown" else round(cost.usd, 6)


def _row(row: TaskRow, cost: Cost | None) -> TaskRow:
    if cost is None:
        return row
    return msgspec.structs.replace(row, cost=_told(cost), cost_how=cost.how)


def _shown(view: SpendView) -> tuple[object, ...]:
    return (view.day, round(view.spent, CENT), view.limit, view.warn_at, view.unknown_tasks, view.held,
            view.allowed, view.spent >= view.warn_at)  # fmt: skip


class HasSpend(Protocol):
    """What the routes need of the daemon."""

    @property
    def spend_desk(self) -> SpendDesk | None: ...


def spend_handlers(backend: HasSpend) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    def desk() -> SpendDesk:
        if backend.spend_desk is None:
            raise ControlError("not_ready")
        return backend.spend_desk

    async def spend(request: web.Request) -> web.Response:
        days = number(request, "days")
        return answer(await desk().report(DAYS if days is None else days))

    async def spend_on(request: web.Request) -> web.Response:
        return answer(await desk().allow_today())

    return {"spend": spend, "spend_on": spend_on}
