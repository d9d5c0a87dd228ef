"""Claiming: one poller a runtime. Slot before claim, barrier between them, the journal before all else.

Where a server can be asked for all runtimes at once, ``tasks.sweeper`` does that at the interval, and a
poller claims when it is woken, and now and then.

The embedded hub is told what may not be handed out now (models whose limit is reached), and answers what it
has held back: for each such model somebody takes a place in the line for it, so that it is first come, first
served there, too. Tasks that another one waits for are claimed by name, with the slot that was lent to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import UnreadableTaskError
from daemon_core.connections.connection import Connection
from daemon_core.protocol import failures
from daemon_core.protocol.errors import RuntimeGoneError, ServerError, TransientError
from daemon_core.protocol.wire import ClaimWish, FailRequest, Task
from daemon_core.runtimes.registration import RegisteredRuntime
from daemon_core.tasks.barrier import BarrierUpError
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import keep_going
from daemon_core.tasks.slots import Slot

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3

FIRST_RETRY_S = 1.0
"""After a claim that failed; doubled up to the poll interval. A task may wait at a server that stumbled."""
SWEPT_INTERVALS = 20
"""Where all runtimes are asked for at once, one is asked for by itself only so seldom: for the case that such
a server passes it over in silence."""


def first_delay_s(runtime_id: str, poll_s: float) -> float:
    """Offset of a runtime's first poll, spread over the interval: FNV-1a of its id modulo the interval."""
    value = _FNV_OFFSET
    for byte in runtime_id.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return (value % round(poll_s * 1e9)) / 1e9


class Poller:
    """Claims for one runtime until cancelled or retired; its tasks belong to the engine and go on without it.

    An unexpected error never ends it: a dead poller would look like a machine without tasks.
    """

    def __init__(self, engine: Engine, runtime: RegisteredRuntime) -> None:
        self.engine = engine
        self.runtime = runtime
        self._claims = 0
        """Claims that are on their way or not yet in the journal: cancelling now could lose a task for a
        while."""
        self._in_line: set[str] = set()
        """Models for which somebody waits in line."""
        self._retired = False
        self._wake = asyncio.Event()
        poll_s = runtime.connection.timing.poll_s
        self._backoff = Backoff(min(FIRST_RETRY_S, poll_s), poll_s)
        self._delay_s = first_delay_s(runtime.runtime_id, poll_s)
        self._failures = 0
        """Claims that the server did not answer as it should."""
        self._repeated = ""
        """Id of the task that was handed out last although it was here already."""

    def wake(self) -> None:
        """There may be a task: claim now. One pending wake-up is enough."""
        self._wake.set()

    @property
    def claiming(self) -> bool:
        """Whether a claim is on its way."""
        return self._claims > 0

    def retire(self) -> bool:
        """The runtime is not ours to claim for any more: end after the claim that is on its way. False if
        there is none, and the poller may be cancelled at once."""
        self._retired = True
        return self.claiming

    async def run(self) -> None:
        """Wait for a wake-up or the interval, then claim until there is nothing."""
        await keep_going(self._run, f"poller of {self.runtime.provider}")

    async def _run(self) -> None:
        while not self._is_over():
            poll_s = self.runtime.connection.timing.poll_s
            delay_s = self._delay_s
            # After a failure it is tried again soon, whoever has the clock.
            if delay_s == poll_s and self.engine.swept(self.runtime.connection.name):
                delay_s *= SWEPT_INTERVALS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            self._wake.clear()
            self._delay_s = poll_s
            while not self._is_over() and await self._claim_one():
                pass

    def _is_over(self) -> bool:
        return self._retired

    async def _claim_one(self) -> bool:
        """One try; whether another one makes sense at once."""
        engine, runtime = self.engine, self.runtime
        await self._possible()
        slot = await engine.slots.acquire(runtime.provider)
        wish = ClaimWish()
        if runtime.connection.timing.loopback:
            default = engine.default_model(runtime.provider)
            wish = ClaimWish(without=engine.slots.full_models(), default_model=default)
        return await self._claim_with(slot, wish)

    async def claim_child(self, task_id: str, model: str, lender: Slot) -> None:
        """Claim one task of the hub with the slot that whoever waits for it has lent; returns when the task
        is claimed, by whomever, or has ended."""
        engine, runtime = self.engine, self.runtime
        pause = Backoff(FIRST_RETRY_S, self.runtime.connection.timing.poll_s)
        while not self._is_over():
            await self._possible()
            slot = await engine.slots.acquire(runtime.provider, model, lender=lender)
            failed = self._failures
            # Whoever waits may go away at any time; a claim that is on its way is let come home.
            claim = engine.beside_pollers(
                self._claim_with(slot, ClaimWish(task_id=task_id)), f"{runtime.provider} {task_id}"
            )
            again = await asyncio.shield(claim)
            if not again and failed == self._failures:
                return
            if not again:
                await asyncio.sleep(pause.next())
            elif f"{runtime.connection.name}/{task_id}" in engine.lives:
                return

    def _stand_in_line(self, models: list[str]) -> None:
        """Tasks wait for models whose limit is reached: take a place in the line of each."""
        for model in models:
            if model not in self._in_line and not self._is_over():
                self._in_line.add(model)
                self.engine.beside_pollers(self._claim_of_model(model), f"{self.runtime.provider} {model}")

    async def _claim_of_model(self, model: str) -> None:
        engine, runtime = self.engine, self.runtime
        try:
            while not self._is_over():
                await self._possible()
                slot = await engine.slots.acquire(runtime.provider, model)
                default = engine.default_model(runtime.provider)
                if not await self._claim_with(slot, ClaimWish(model=model, default_model=default)):
                    return
        finally:
            self._in_line.discard(model)
            self.wake()  # what came in between is seen

    async def _possible(self) -> None:
        engine, runtime = self.engine, self.runtime
        await runtime.connection.wait_usable()  # a refused credential is waited out, and holds no slot
        if engine.accounts is not None:
            await engine.accounts.wait(runtime.provider)
        await engine.claims_possible()

    async def _claim_with(self, given: Slot, wish: ClaimWish) -> bool:
        """Claim with a slot, which is the task's then or given back; whether another try makes sense at
        once."""
        engine, runtime = self.engine, self.runtime
        slot: Slot | None = given
        asked_at = time.monotonic()
        self._claims += 1
        try:
            if engine.claims_held or (engine.accounts is not None and engine.accounts.held(runtime.provider)):
                return True  # since the wait for the slot began
            if engine.spending is not None and engine.spending.held:
                return True
            with engine.barrier.claiming():
                reach("before_claim")
                answer = await runtime.connection.client.claim_of_hub(runtime.runtime_id, wish)
                task = answer.task
                self._backoff.reset()
                self._stand_in_line(answer.held_back)
                if task is None:
                    if wish.task_id == "":
                        self._repeated = ""
                    return False
                reach("claimed")
                accepted = await self.accept(task, given)
            if accepted:
                slot = None  # the task's life has it now
                self._repeated = ""
                # Of what is queued later there is a hint; to ask in vain would only hold up this one's start.
                return answer.more is not False
            # Here already. Perhaps there is another one behind it, but a server may be stuck with this one.
            again, self._repeated = self._repeated == task.id, task.id
            return not again
        except BarrierUpError:
            return True  # went up between the wait and the slot; wait for it again
        except RuntimeGoneError:
            self._failures += 1
            engine.runtime_gone(runtime, asked_at)
            return False
        except UnreadableTaskError as error:
            await fail_unread(runtime.connection, error)
            return False
        except ServerError as error:
            self._failures += 1
            log.warning("claiming for %s: %s", runtime.provider, error)
            runtime.connection.report(error, asked_at)
            if isinstance(error, TransientError):
                self._delay_s = max(min(self._delay_s, self._backoff.next()), error.retry_after_s or 0.0)
            return False
        finally:
            self._claims -= 1
            if slot is not None:
                slot.release()

    async def accept(self, task: Task, slot: Slot) -> bool:
        """Take a task that was claimed for this runtime; whether the slot is its now."""
        try:
            return await self.engine.accept(task, self.runtime, slot)
        except OSError as error:
            log.error("task %s cannot be kept on this machine: %s", task.id, error)
            text = f"the task cannot be kept on this machine: {error}"
            await _fail(self.runtime.connection, task.id, text)
            return False


async def fail_unread(connection: Connection, error: UnreadableTaskError) -> None:
    """A task was handed out in a form that nobody here understands."""
    log.error("a task cannot be understood: %s", error)
    await _fail(connection, error.task_id, f"this daemon does not understand the task: {error.cause}")


async def _fail(connection: Connection, task_id: str, text: str) -> None:
    """Tell the server about a task that never was in the journal. If it does not hear, it hands the task
    out again, and is told again."""
    fail = FailRequest(error=text, failure_reason=failures.AGENT_UNKNOWN)
    with contextlib.suppress(ServerError):
        await connection.client.fail(task_id, fail)
