"""Claiming for all runtimes of a server with one request, where the server can be asked so.

Later servers have a route for it. Whenever nothing but time has passed, one request then takes the place of
one a runtime: a machine with many runtimes asks little and is woken seldom. One task is asked for at a time,
with one slot, so what holds for every claim holds for these: slot before claim, the barrier between them, the
journal before all else; and an answer that is lost costs one task its redelivery time.

Left to the pollers is what they are better at: a hint for one runtime, runtimes of a provider with a limit of
its own (their slot has to be one of the provider from the first moment), and every runtime of a server that
lacks the route. While a sweeper is ``active``, it is their clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import UnreadableTaskError
from daemon_core.connections.connection import Connection
from daemon_core.protocol.errors import ServerError, TransientError
from daemon_core.tasks.barrier import BarrierUpError
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import keep_going
from daemon_core.tasks.poller import FIRST_RETRY_S, Poller, fail_unread, first_delay_s

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

ANY_PROVIDER: Final = ""
"""The group of a slot whose task is not known yet; no limit is on it."""
WORTH_IT: Final = 2
"""Runtimes from which on one request for all of them saves any."""
_NO_ROUTE: Final = frozenset({400, 403, 404, 405})
"""What a server answers that cannot be asked for many runtimes, or not with this credential."""


class Sweeper:
    """Claims at one connection until cancelled or retired; an unexpected error never ends it."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self.engine = engine
        self.connection = connection
        self.active = False
        """Whether the server has been asked like this: pollers then leave the interval to it."""
        self._wake = asyncio.Event()
        poll_s = connection.timing.poll_s
        self._backoff = Backoff(min(FIRST_RETRY_S, poll_s), poll_s)
        self._delay_s = first_delay_s(connection.name, poll_s)
        self._lacking = False
        """The server lacks the route, as far as is known: it is not asked again before :meth:`wake`."""
        self._retired = False
        self._claiming = False
        self._repeated = ""
        """Id of the task that was handed out last although it was here already."""

    def wake(self) -> None:
        """There may be a task for any runtime; and the server may be a newer one by now."""
        self._lacking = False
        self._wake.set()

    def retire(self) -> bool:
        """End after the claim that is on its way. False if there is none: it may be cancelled at once."""
        self._retired = True
        return self._claiming

    async def run(self) -> None:
        """Wait for a wake-up or the interval, then claim until there is nothing."""
        await keep_going(self._run, f"claims for all of {self.connection.name}")

    async def _run(self) -> None:
        while not self._is_over():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._lacking else self._delay_s):
                    await self._wake.wait()
            self._wake.clear()
            self._delay_s = self.connection.timing.poll_s
            covered = self._covered()
            if self.active:
                swept = set(covered.values()) if len(covered) >= WORTH_IT else set()
                self._rouse(each for each in self._pollers() if each not in swept)
            while not self._is_over() and await self._claim_one():
                pass

    def _is_over(self) -> bool:
        return self._retired

    def _pollers(self) -> list[Poller]:
        return self.engine.pollers(self.connection.name)

    def _covered(self) -> dict[str, Poller]:
        """By runtime, those for which any slot will do now."""
        engine = self.engine
        found = {}
        for poller in self._pollers():
            provider = poller.runtime.provider
            held = engine.accounts is not None and engine.accounts.held(provider)
            if provider not in engine.slots.limits and not held:
                found[poller.runtime.runtime_id] = poller
        return found

    def _rouse(self, pollers: Iterable[Poller]) -> None:
        for poller in pollers:
            poller.wake()

    async def _claim_one(self) -> bool:
        """One try; whether another one makes sense at once."""
        engine = self.engine
        if len(self._covered()) < WORTH_IT:
            return False
        await self.connection.wait_usable()
        await engine.claims_possible()
        slot = await engine.slots.acquire(ANY_PROVIDER)
        kept = False
        asked_at = time.monotonic()
        self._claiming = True
        try:
            # Since the wait for the slot began, much may be different.
            covered = self._covered()
            if self._retired or len(covered) < WORTH_IT:
                return False
            if engine.claims_held or (engine.spending is not None and engine.spending.held):
                return True
            with engine.barrier.claiming():
                reach("before_claim")
                task = await self.connection.client.claim_any(engine.daemon_id, covered)
                self._backoff.reset()
                self.active = True
                if task is None:
                    self._repeated = ""
                    return False
                reach("claimed")
                poller = covered.get(task.runtime_id)
                if poller is None:
                    log.error("task %s was handed out for a runtime that nobody asked for", task.id)
                    return False
                slot.group = poller.runtime.provider
                kept = await poller.accept(task, slot)
            if kept:
                self._repeated = ""
                return True
            # Here already. Perhaps there is another one behind it, but a server may be stuck with this one.
            again, self._repeated = self._repeated == task.id, task.id
            return not again
        except BarrierUpError:
            return True  # went up between the wait and the slot; wait for it again
        except UnreadableTaskError as error:
            await fail_unread(self.connection, error)
            return False
        except ServerError as error:
            self._failed(error, asked_at)
            return False
        finally:
            self._claiming = False
            if not kept:
                slot.release()

    def _failed(self, error: ServerError, asked_at: float) -> None:
        if error.status in _NO_ROUTE:
            if self.active:
                log.info("%s is asked for each runtime by itself: %s", self.connection.name, error)
            self.active, self._lacking = False, True
            self._rouse(self._pollers())
            return
        log.warning("claiming for all of %s: %s", self.connection.name, error)
        self.connection.report(error, asked_at)
        if isinstance(error, TransientError):
            self._delay_s = max(min(self._delay_s, self._backoff.next()), error.retry_after_s or 0.0)
