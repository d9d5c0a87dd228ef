"""Claiming: one poller a runtime. Slot before claim, barrier between them, the journal before all else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from daemon_core.connections.client import UnreadableTaskError
from daemon_core.protocol import failures
from daemon_core.protocol.errors import RuntimeGoneError, ServerError, UnauthorizedError
from daemon_core.protocol.wire import FailRequest
from daemon_core.runtimes.registration import RegisteredRuntime
from daemon_core.tasks.barrier import BarrierUpError
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.slots import Slot

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


def first_delay_s(runtime_id: str, poll_s: float) -> float:
    """Offset of a runtime's first poll, spread over the interval: FNV-1a of its id modulo the interval."""
    value = _FNV_OFFSET
    for byte in runtime_id.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return (value % round(poll_s * 1e9)) / 1e9


class Poller:
    """Claims for one runtime until cancelled; its tasks belong to the engine and go on without it."""

    def __init__(self, engine: Engine, runtime: RegisteredRuntime) -> None:
        self.engine = engine
        self.runtime = runtime
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be a task: claim now. One pending wake-up is enough."""
        self._wake.set()

    async def run(self) -> None:
        """Wait for a wake-up or the interval, then claim until there is nothing."""
        runtime = self.runtime
        poll_s = runtime.connection.timing.poll_s
        delay_s = first_delay_s(runtime.runtime_id, poll_s)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            self._wake.clear()
            delay_s = poll_s
            while await self._claim_one():
                pass

    async def _claim_one(self) -> bool:
        """One try; whether another one makes sense at once."""
        engine, runtime = self.engine, self.runtime
        await engine.claims_possible()
        slot: Slot | None = await engine.slots.acquire(runtime.provider)
        assert slot is not None
        asked_at = time.monotonic()
        try:
            with engine.barrier.claiming():
                reach("before_claim")
                task = await runtime.connection.client.claim(runtime.runtime_id)
                if task is None:
                    return False
                reach("claimed")
                accepted = await engine.accept(task, runtime, slot)
            if accepted:
                slot = None  # the task's life has it now
            return True
        except BarrierUpError:
            return True  # went up between the wait and the slot; wait for it again
        except RuntimeGoneError:
            engine.runtime_gone(runtime, asked_at)
            return False
        except UnreadableTaskError as error:
            log.error("a task cannot be understood: %s", error)
            fail = FailRequest(
                error=f"this daemon does not understand the task: {error.cause}",
                failure_reason=failures.AGENT_UNKNOWN,
            )
            with contextlib.suppress(ServerError):
                await runtime.connection.client.fail(error.task_id, fail)
            return False
        except UnauthorizedError as error:
            runtime.connection.report(error, asked_at)
            return False
        except ServerError as error:
            log.warning("claiming for %s: %s", runtime.provider, error)
            runtime.connection.report(error, asked_at)
            return False
        finally:
            if slot is not None:
                slot.release()
