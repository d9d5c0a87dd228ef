"""Claiming: one poller a runtime. Slot before claim, barrier between them, the journal before all else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import UnreadableTaskError
from daemon_core.protocol import failures
from daemon_core.protocol.errors import RuntimeGoneError, ServerError, TransientError
from daemon_core.protocol.wire import FailRequest, Task
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
        self.claiming = False
        """A claim is on its way or not yet in the journal: cancelling now could lose a task for a while."""
        self._retired = False
        self._wake = asyncio.Event()
        poll_s = runtime.connection.timing.poll_s
        self._backoff = Backoff(min(FIRST_RETRY_S, poll_s), poll_s)
        self._delay_s = first_delay_s(runtime.runtime_id, poll_s)
        self._repeated = ""
        """Id of the task that was handed out last although it was here already."""

    def wake(self) -> None:
        """There may be a task: claim now. One pending wake-up is enough."""
        self._wake.set()

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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._delay_s):
                    await self._wake.wait()
            self._wake.clear()
            self._delay_s = self.runtime.connection.timing.poll_s
            while not self._is_over() and await self._claim_one():
                pass

    def _is_over(self) -> bool:
        return self._retired

    async def _claim_one(self) -> bool:
        """One try; whether another one makes sense at once."""
        engine, runtime = self.engine, self.runtime
        await runtime.connection.wait_usable()  # a refused credential is waited out, and holds no slot
        if engine.accounts is not None:
            await engine.accounts.wait(runtime.provider)
        await engine.claims_possible()
        slot: Slot | None = await engine.slots.acquire(runtime.provider)
        assert slot is not None
        asked_at = time.monotonic()
        self.claiming = True
        try:
            if engine.claims_held or (engine.accounts is not None and engine.accounts.held(runtime.provider)):
                return True  # since the wait for the slot began
            with engine.barrier.claiming():
                reach("before_claim")
                task = await runtime.connection.client.claim(runtime.runtime_id)
                self._backoff.reset()
                if task is None:
                    self._repeated = ""
                    return False
                reach("claimed")
                accepted = await self._accept(task, slot)
            if accepted:
                slot = None  # the task's life has it now
                self._repeated = ""
                return True
            # Here already. Perhaps there is another one behind it, but a server may be stuck with this one.
            again, self._repeated = self._repeated == task.id, task.id
            return not again
        except BarrierUpError:
            return True  # went up between the wait and the slot; wait for it again
        except RuntimeGoneError:
            engine.runtime_gone(runtime, asked_at)
            return False
        except UnreadableTaskError as error:
            log.error("a task cannot be understood: %s", error)
            await self._fail(error.task_id, f"this daemon does not understand the task: {error.cause}")
            return False
        except ServerError as error:
            log.warning("claiming for %s: %s", runtime.provider, error)
            runtime.connection.report(error, asked_at)
            if isinstance(error, TransientError):
                self._delay_s = max(min(self._delay_s, self._backoff.next()), error.retry_after_s or 0.0)
            return False
        finally:
            self.claiming = False
            if slot is not None:
                slot.release()

    async def _accept(self, task: Task, slot: Slot) -> bool:
        try:
            return await self.engine.accept(task, self.runtime, slot)
        except OSError as error:
            log.error("task %s cannot be kept on this machine: %s", task.id, error)
            await self._fail(task.id, f"the task cannot be kept on this machine: {error}")
            return False

    async def _fail(self, task_id: str, text: str) -> None:
        """Tell the server about a task that never was in the journal. If it does not hear, it hands the task
        out again, and is told again."""
        fail = FailRequest(error=text, failure_reason=failures.AGENT_UNKNOWN)
        with contextlib.suppress(ServerError):
            await self.runtime.connection.client.fail(task_id, fail)
