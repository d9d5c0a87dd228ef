"""The user's pause: in force exactly when it is kept, and taken back at any moment."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from daemon_core.control.facade import Facade
from daemon_core.control.views import Pause
from daemon_core.journal import Journal, JournalError
from daemon_core.tasks import clock
from daemon_core.tasks.barrier import BarrierState
from daemon_core.tasks.engine import Engine
from tests.tasks.world import new_world


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Facade, Engine, Journal]]:
    async with new_world() as world, world.life(claim=False) as engine:
        facade = Facade(
            version="1", profile="default", device_name="d", started_at=dt.datetime.now(dt.UTC),
            owns_mark=lambda mark: False,
        )  # fmt: skip
        facade.engine, facade.journal = engine, world.journal
        facade.set_phase("running")
        yield facade, engine, world.journal
        await facade.close()


async def writable(journal: Journal, yes: bool) -> None:
    """Whether the journal takes anything: as on a disk that is full, or fine again."""

    def switch() -> None:
        assert journal._connection is not None
        journal._connection.execute(f"PRAGMA query_only = {'OFF' if yes else 'ON'}")

    await journal._run(switch)


async def test_a_pause_that_cannot_be_kept_is_not_in_force_and_one_that_cannot_be_forgotten_stays() -> None:
    async with running() as (facade, engine, journal):
        await writable(journal, False)
        with pytest.raises(JournalError):
            await facade.pause(Pause())
        assert (await facade.status()).barrier is None
        assert engine.barrier.state is BarrierState.DOWN

        await writable(journal, True)
        barrier = (await facade.pause(Pause())).barrier
        assert barrier is not None
        assert barrier.reason == "user"
        await writable(journal, False)
        with pytest.raises(JournalError):
            await facade.resume()
        assert (await facade.status()).barrier == barrier
        assert engine.barrier.holders == ("user",)
        await writable(journal, True)
        assert (await facade.resume()).barrier is None
        assert engine.barrier.state is BarrierState.DOWN


async def test_a_pause_that_is_taken_back_while_it_waits_for_a_claim_is_answered() -> None:
    async with running() as (facade, engine, _), asyncio.TaskGroup() as group:
        with engine.barrier.claiming():
            pausing = group.create_task(facade.pause(Pause()))
            await engine.barrier._wait(BarrierState.RAISING)
            assert not pausing.done()
            await facade.resume()
            assert (await asyncio.wait_for(pausing, 20)).barrier is None
        assert engine.barrier.state is BarrierState.DOWN


async def test_a_pause_whose_time_has_come_ends_though_that_cannot_be_kept() -> None:
    async with running() as (facade, engine, journal):
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.3)
        await facade.pause(Pause(until=clock.text(until)))
        await writable(journal, False)
        await asyncio.wait_for(engine.barrier.wait_down(), 20)
        assert (await facade.status()).barrier is None
        await writable(journal, True)
