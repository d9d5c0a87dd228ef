"""Writes through a full disk."""

from __future__ import annotations

import asyncio
import errno

import pytest

from daemon_core.journal import JournalError
from daemon_core.tasks.owned import beside
from daemon_core.tasks.patience import Patience
from tests.support.fake_server import eventually


class Disk:
    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.heard: list[bool] = []
        self.patience = Patience(lambda error: self.heard.append(error is not None))

    def is_troubled(self) -> bool:
        return self.patience.troubled

    async def write(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "written"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr("daemon_core.tasks.patience.FIRST_RETRY_S", 0.001)
    return Disk()


async def test_a_write_waits_for_room(disk: Disk) -> None:
    disk.errors = [JournalError("full", full=True), OSError(errno.ENOSPC, "full"), OSError(errno.EMFILE, "x")]
    assert await disk.patience.carry(disk.write) == "written"
    assert disk.heard == [True, False]
    assert not disk.is_troubled()


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), JournalError("a rule is broken"), ValueError("a bug")]
)
async def test_what_does_not_pass_is_raised_at_once(disk: Disk, error: Exception) -> None:
    disk.errors = [error]
    with pytest.raises(type(error)):
        await disk.patience.carry(disk.write)
    assert disk.heard == []


async def test_what_does_not_pass_is_raised_also_after_waiting(disk: Disk) -> None:
    disk.errors = [OSError(errno.ENOSPC, "no room"), OSError(errno.EACCES, "no")]
    with pytest.raises(OSError, match="no"):
        await disk.patience.carry(disk.write)
    assert disk.heard == [True, False]


async def test_a_cancelled_write_holds_nothing_up_any_more(disk: Disk) -> None:
    disk.errors = [OSError(errno.ENOSPC, "no room")] * 100_000
    async with beside(disk.patience.carry(disk.write), "write") as writing:
        await eventually(disk.is_troubled)
    assert writing.cancelled()
    assert not disk.is_troubled()
    assert disk.heard == [True, False]


async def test_trouble_is_over_with_the_last_write_that_waits(disk: Disk) -> None:
    release = asyncio.Event()

    async def held() -> None:
        if not release.is_set():
            raise OSError(errno.ENOSPC, "no room")

    disk.errors = [OSError(errno.ENOSPC, "no room")]
    async with beside(disk.patience.carry(held), "held"):
        await eventually(disk.is_troubled)
        assert await disk.patience.carry(disk.write) == "written"
        assert disk.is_troubled()
        release.set()
        await eventually(lambda: not disk.is_troubled())
    assert disk.heard == [True, False]


async def test_a_damaged_journal_is_told_once_and_stays_so(disk: Disk) -> None:
    disk.errors = [JournalError("malformed", damaged=True)] * 2
    for _ in range(2):
        with pytest.raises(JournalError):
            await disk.patience.carry(disk.write)
    assert disk.is_troubled()
    disk.errors = [OSError(errno.ENOSPC, "no room")]
    await disk.patience.carry(disk.write)
    assert disk.is_troubled()
    assert disk.heard[0] is True
    assert False not in disk.heard
