"""Tasks with an owner: nothing ends in silence, nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from daemon_core.tasks.owned import Nursery, beside, keep_going


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise RuntimeError("a bug")


async def test_what_is_beside_a_block_ends_with_it() -> None:
    async with beside(forever(), "x") as task:
        assert not task.done()
    assert task.cancelled()


async def test_an_error_beside_a_block_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with beside(fail(), "watch of x") as task:
        await asyncio.wait([task])
    assert "watch of x ended with an error" in caplog.text


async def test_an_error_that_the_block_ends_by_is_not_logged_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        async with beside(fail(), "x") as task:
            await task
    assert not caplog.records


async def test_what_must_not_stop_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daemon_core.tasks.owned.RESTART_FIRST_S", 0.001)
    left = [RuntimeError("one"), OSError("two")]

    async def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    assert await keep_going(work, "the work") == "done"
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["the work failed"] * 2


async def test_a_cancellation_ends_what_must_not_stop() -> None:
    async with beside(keep_going(forever, "x"), "x") as task:
        await asyncio.sleep(0)
    assert task.cancelled()


async def test_a_closed_nursery_takes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    nursery = Nursery("n")
    nursery.start(forever(), "a")
    failed = nursery.start(fail(), "b")
    await asyncio.wait([failed])
    assert len(nursery) == 1
    await nursery.close()
    await nursery.close()
    assert len(nursery) == 0
    with pytest.raises(RuntimeError, match="closed"):
        nursery.start(forever(), "c")
    assert "n: b ended with an error" in caplog.text
