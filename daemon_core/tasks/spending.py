"""What is spent in a day, and the limit at which no more tasks are claimed.

Booked is the difference between what a task has used in all and what was booked of it: so a death between
two bookings, a retry on the same id and a result that corrects an estimate all come out right. A day is that
of the clock on the wall; a clock that is set only changes which day counts. What is booked stays as it is
when prices change.

At the limit claims wait until midnight, or until the user lets this day go on. Runs go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon_core.protocol.wire import Usage
from daemon_core.tasks import clock
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.prices import Cost, How, Prices, add_costs
from daemon_core.tasks.spend_store import KEPT_DAYS, DayTotal, SpendRow, SpendStore

log = logging.getLogger(__name__)

ALLOWED_META: Final = "spend_allowed"
"""The day that the user lets go on beyond the limit."""
LOOK_AGAIN_S: Final = 300.0
"""Longest sleep towards midnight: the clock may be set, and machines sleep."""
REMEMBERED: Final = 1_000
"""Tasks whose cost is known without asking the journal."""
CATCH_UP: Final = dt.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Spender:
    """Whose usage it is."""

    key: str
    connection: str
    agent: str
    provider: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How the day stands. ``limit`` 0: there is none."""

    day: str
    spent: float = 0.0
    unknown: int = 0
    limit: float = 0.0
    warn_at: float = 0.0
    allowed: bool = False
    """The user lets this day go on."""

    @property
    def held(self) -> bool:
        """Whether nothing is claimed."""
        return self.limit > 0 and self.spent >= self.limit and not self.allowed

    @property
    def near(self) -> bool:
        """Whether the user should know."""
        return self.limit > 0 and not self.held and self.spent >= self.warn_at


class SpendBook:
    """Books usage, and holds claims at the limit.

    Args:
        store: Where it is kept.
        carry: Has a write succeed sooner or later.
        keep_allowed: Makes durable which day may go on.
        on_change: How the day stands is another thing now.
        on_booked: A task's cost is another one; its key.
        now: The clock on the wall, with its zone.
    """

    def __init__(
        self,
        store: SpendStore,
        *,
        carry: Callable[[Callable[[], Awaitable[DayTotal]]], Awaitable[DayTotal]],
        keep_allowed: Callable[[str | None], Awaitable[None]],
        on_change: Callable[[], None] = lambda: None,
        on_booked: Callable[[str], None] = lambda key: None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now().astimezone(),
    ) -> None:
        self.store = store
        self.prices = Prices({})
        self._carry = carry
        self._keep_allowed = keep_allowed
        self._on_change = on_change
        self._on_booked = on_booked
        self._now = now
        self._limit = 0.0
        self._warn = 0.8
        self._total = DayTotal()
        self._day = ""
        """That ``_total`` is of."""
        self._allowed = ""
        self._pending: dict[str, tuple[Spender, list[Usage]]] = {}
        self._rows: dict[str, list[SpendRow]] = {}
        """All rows of the tasks that were booked in this life and go on."""
        self._costs: OrderedDict[str, Cost] = OrderedDict()
        self._nursery = Nursery("spending")
        self._working = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._told: Standing | None = None

    # --- beginning and end -------------------------------------------------------------------------

    async def open(self, allowed: str | None) -> None:
        """Take up what was kept, and book what ended without being booked."""
        self._allowed = allowed or ""
        await self._reload()
        since = clock.text(dt.datetime.now(dt.UTC) - CATCH_UP)
        for key, connection, agent, provider, usage in await self.store.unbooked(since):
            self.book(Spender(key, connection, agent, provider), usage)
        await self.settled()
        self._tell()

    async def close(self) -> None:
        """Book what is known and look at the clock no more."""
        await self.settled()
        self._stop_timer()
        await self._nursery.close()

    def set_limit(self, limit_usd: float, warn_share: float) -> None:
        """The settings: how much a day may cost (0: anything), and at which share of it the user is told."""
        self._limit, self._warn = limit_usd, warn_share
        self._changed.set()
        self._tell()

    def set_prices(self, prices: Prices) -> None:
        """The table for what is booked from now on."""
        self.prices = prices

    # --- how it stands -----------------------------------------------------------------------------

    def standing(self) -> Standing:
        """How the day stands, as far as known at this moment."""
        day = self._today()
        total = self._total if day == self._day else DayTotal()
        return Standing(
            day=day,
            spent=total.cost,
            unknown=total.unknown,
            limit=self._limit,
            warn_at=self._limit * self._warn,
            allowed=self._allowed == day,
        )

    @property
    def held(self) -> bool:
        """Whether a claim has to wait, or to look again since the day is another one."""
        return self._limit > 0 and (self._day != self._today() or self.standing().held)

    def resets_at(self) -> str:
        """The next midnight."""
        return clock.text(self._midnight().astimezone(dt.UTC))

    async def wait(self) -> None:
        """Until nothing holds claims."""
        while self.held:
            self._changed.clear()
            if self._day != self._today():
                await self._reload()
                self._tell()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_midnight_s()):
                    await self._changed.wait()

    async def allow_today(self) -> Standing:
        """The user lets this day go on, whatever it costs."""
        self._allowed = self._today()
        self._changed.set()
        self._tell()
        await self._keep_allowed(self._allowed)
        return self.standing()

    def cost_of(self, key: str) -> Cost | None:
        """What a task has cost so far, if that is known without asking."""
        return self._costs.get(key)

    async def costs(self, keys: Iterable[str]) -> dict[str, Cost]:
        """What tasks have cost; those of which nothing was booked are left out."""
        wanted = set(keys)
        found = {key: self._costs[key] for key in wanted if key in self._costs}
        by_key: dict[str, list[SpendRow]] = {}
        for row in await self.store.of_tasks(wanted - found.keys()):
            by_key.setdefault(row.task_key, []).append(row)
        for key, rows in by_key.items():
            cost = _cost_of(rows)
            if cost is not None:
                found[key] = cost
        return found

    # --- booking -----------------------------------------------------------------------------------

    def book(self, who: Spender, usage: Sequence[Usage], *, last: bool = False) -> None:
        """A task has used this in all so far. ``last``: it has ended."""
        if not usage and who.key not in self._rows and not last:
            return
        self._pending[who.key] = (who, list(usage))
        if not self._working:
            self._working = True
            self._idle.clear()
            self._nursery.start(self._work(), "booking")

    async def settled(self) -> None:
        """Until everything is booked that was told."""
        await self._idle.wait()

    async def _work(self) -> None:
        try:
            while self._pending:
                pending, self._pending = self._pending, {}
                await self._book(pending)
        finally:
            self._working = False
            self._idle.set()

    async def _book(self, pending: dict[str, tuple[Spender, list[Usage]]]) -> None:
        day = self._today()
        unknown = [key for key in pending if key not in self._rows]
        for row in await self.store.of_tasks(unknown):
            self._rows.setdefault(row.task_key, []).append(row)
        changed: list[SpendRow] = []
        for key, (who, usage) in pending.items():
            rows = self._rows.setdefault(key, [])
            changed += self._differences(who, usage, rows, day)
            cost = _cost_of(rows)
            if cost is not None:
                self._costs[key] = cost
                self._costs.move_to_end(key)
        while len(self._costs) > REMEMBERED:
            gone, _cost = self._costs.popitem(last=False)
            self._rows.pop(gone, None)
        if not changed:
            return
        self._total = await self._carry(lambda: self.store.put(changed, day))
        self._day = day
        self._tell()
        for key in pending:
            self._on_booked(key)

    def _differences(
        self, who: Spender, usage: Sequence[Usage], rows: list[SpendRow], day: str
    ) -> list[SpendRow]:
        """What is to be booked on a day, in ``rows`` already; nothing where all of it was."""
        changed = []
        for entry in usage:
            provider = entry.provider or who.provider
            same = [row for row in rows if (row.provider, row.model) == (provider, entry.model)]
            cost = self.prices.cost(entry)
            today = next((row for row in same if row.day == day), None)
            if today is None:
                today = SpendRow(
                    task_key=who.key, day=day, provider=provider, model=entry.model,
                    connection=who.connection, agent=who.agent, how=cost.how,
                )  # fmt: skip
                new = True
            else:
                new = False
            more = {
                name: getattr(entry, name) - sum(getattr(row, name) for row in same)
                for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
            }
            money = cost.usd - sum(row.cost for row in same)
            if not any(more.values()) and abs(money) < 1e-9 and (new or today.how == cost.how):
                continue
            for name, count in more.items():
                setattr(today, name, getattr(today, name) + count)
            today.cost += money
            today.how = cost.how
            if new:
                rows.append(today)
            changed.append(today)
        return changed

    # --- the clock ---------------------------------------------------------------------------------

    def _today(self) -> str:
        return self._now().date().isoformat()

    def _midnight(self) -> dt.datetime:
        """The next one here, whatever becomes of summer time until then."""
        return dt.datetime.combine(self._now().date() + dt.timedelta(days=1), dt.time()).astimezone()

    def _until_midnight_s(self) -> float:
        return min(max((self._midnight() - self._now()).total_seconds(), 0.01), LOOK_AGAIN_S)

    async def _reload(self) -> None:
        day = self._today()
        self._total = await self.store.total(day)
        self._day = day
        await self.store.forget((self._now().date() - dt.timedelta(days=KEPT_DAYS)).isoformat())

    def _tell(self) -> None:
        """Say so where it stands otherwise, and look again while something is shown that midnight ends."""
        standing = self.standing()
        if self._told is not None and self._told.held and not standing.held:
            log.info("the limit of spending holds claims no more")
            self._changed.set()
        elif standing.held and (self._told is None or not self._told.held):
            log.warning(
                "no tasks are claimed before midnight: %.2f USD of %.2f were spent",
                standing.spent,
                standing.limit,
            )
        if standing != self._told:
            self._told = standing
            self._on_change()
        self._stop_timer()
        if standing.held or standing.near:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._until_midnight_s(), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._day != self._today():
            self._nursery.start(self._new_day(), "a new day")
        else:
            self._tell()

    async def _new_day(self) -> None:
        await self._reload()
        self._tell()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _cost_of(rows: Sequence[SpendRow]) -> Cost | None:
    """What these rows come to: how it is known is said by the newest of each model."""
    newest: dict[tuple[str, str], SpendRow] = {}
    for row in sorted(rows, key=lambda row: row.day):
        newest[row.provider, row.model] = row
    usd = sum(row.cost for row in rows)
    known = add_costs(Cost(how=_how(row.how)) for row in newest.values())
    return Cost(usd=usd, how=known.how) if known is not None else None


def _how(text: str) -> How:
    return text if text in ("stated", "priced", "partial") else "unknown"  # type: ignore[return-value]
