"""What tasks cost on this machine: the book of it, by the shipped prices with the user's over them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from daemon_core.closing import limited
from daemon_core.control.facade import Facade
from daemon_core.in_force import InForce
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.prices import Prices, PricesError
from daemon_core.tasks.spend_store import SpendStore
from daemon_core.tasks.spending import ALLOWED_META, SpendBook

log = logging.getLogger("ostler")


class Costs:
    """See the module.

    Args:
        own_prices: The user's own file of prices; it need not be there.
    """

    def __init__(self, own_prices: Path, in_force: InForce, facade: Facade) -> None:
        self._own_prices = own_prices
        self._in_force = in_force
        self._facade = facade
        self._book: SpendBook | None = None

    async def open(self, engine: Engine, stack: AsyncExitStack) -> None:
        """What was spent today holds claims from the first one on."""
        journal, desk = engine.journal, self._facade.spend_desk
        book = SpendBook(
            SpendStore(journal),
            carry=engine.patience.carry,
            keep_allowed=lambda day: engine.patience.carry(lambda: journal.set_meta(ALLOWED_META, day)),
            on_change=desk.on_change,
            on_booked=desk.on_booked,
        )
        stack.push_async_callback(limited, book.close, "what was spent")
        await self._apply(book)
        await book.open(await journal.get_meta(ALLOWED_META))
        self._book = engine.spending = desk.book = book

    async def settings_changed(self) -> None:
        """Prices and limit may be others."""
        if self._book is not None:
            await self._apply(self._book)

    async def _apply(self, book: SpendBook) -> None:
        await self._take_prices(book)
        spend = self._in_force.settings.spend
        book.set_limit(spend.daily_limit, spend.warn_at / 100)

    async def _take_prices(self, book: SpendBook) -> None:
        """With a mistake in the user's file, those before it."""
        wrong: PricesError | None = None
        for own in (self._own_prices, None):
            try:
                book.set_prices(await asyncio.to_thread(Prices.load, own))
                break
            except PricesError as error:
                log.error("prices are not used: %s", error)
                wrong = wrong or error
                if book.prices.models:
                    break
        if wrong is None:
            self._facade.clear_condition("prices_invalid")
        else:
            self._facade.set_condition("prices_invalid", path=str(wrong.path), what=wrong.what)
