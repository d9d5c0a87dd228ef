"""The hub's one timer, and what goes on when something that it does fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.hub import Hub, HubChange, Limits, NewTask, StorageError
from daemon_core.hub.clock import SystemClock
from daemon_core.hub.timers import Timer
from tests.hub.world import DAEMON_ID, HeldClock, World


async def test_a_timer_rings_at_the_earliest_of_its_times() -> None:
    clock = HeldClock()
    timer = Timer(clock, 3600)
    timer.arm(clock.now() + 10_000_000)
    timer.arm(clock.now() + 1000)
    timer.arm(clock.now() + 5_000_000)
    assert timer.due == clock.now() + 1000
    async with asyncio.timeout(5):
        await timer.wait()
    assert timer.due is None


async def test_a_time_that_has_passed_rings_at_once_and_a_distant_one_is_looked_at_early() -> None:
    clock = HeldClock()
    timer = Timer(clock, 0.001)
    for due in (clock.now() - 5, clock.now() + 10**15):
        timer.arm(due)
        async with asyncio.timeout(5):
            await timer.wait()


async def test_a_disarmed_timer_does_not_ring() -> None:
    clock = HeldClock()
    timer = Timer(clock, 3600)
    timer.arm(clock.now())
    timer.disarm()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await timer.wait()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[World]:
    """A hub whose timers run."""
    world = World(tmp_path / "hub.db", limits=Limits(offline_after_s=0.05))
    await world.open()
    await world.register("shell")
    owner = asyncio.create_task(world.hub.run())
    yield world
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    await world.close()


async def told(world: World, kind: str) -> HubChange:
    async with asyncio.timeout(5):
        while True:
            for change in world.changes:
                if change.kind == kind:
                    return change
            await asyncio.sleep(0.001)


async def test_what_falls_due_is_done_without_being_asked_for(running: World) -> None:
    running.changes.clear()
    running.clock.advance(1)
    running.hub.start_timers()
    await told(running, "runtimes")
    assert [each.status for each in await running.hub.runtimes()] == ["offline"]


async def test_a_sweep_that_fails_is_not_the_end(
    running: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise StorageError("storage_failed", detail="disk full")

    with monkeypatch.context() as patch:
        patch.setattr(running.hub, "sweep", fail)
        running.hub.start_timers()
        async with asyncio.timeout(5):
            await failed.wait()
    await asyncio.sleep(0)
    assert "disk full" in caplog.text
    running.changes.clear()
    running.clock.advance(1)
    running.hub.start_timers()
    await told(running, "runtimes")


async def test_a_listener_that_fails_does_not_harm_the_hub(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(change: HubChange) -> None:
        raise KeyError(change.kind)

    hub = await Hub.open(tmp_path / "hub.db", daemon_id=DAEMON_ID, on_change=listen)
    task = await hub.add_task(NewTask(prompt="x", provider="shell"))
    assert await hub.get(task.id) == task
    assert "listener" in caplog.text
    await hub.close()


def test_the_real_clocks_go_forward() -> None:
    clock = SystemClock()
    assert clock.now() > 1_700_000_000_000_000
    assert clock.monotonic() <= clock.monotonic()
