"""One task at a time in one directory, whoever asks, by whatever path (promise P5)."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon_core.tasks.owned import beside
from daemon_core.workdirs import DirectoryLock, DirectoryLocks


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryLocks:
    monkeypatch.setattr("daemon_core.workdirs.locks.RETRY_S", 0.01)
    return DirectoryLocks(tmp_path / "locks")


def has_file(lock: DirectoryLock) -> bool:
    return lock.fd is not None


async def settle() -> None:
    """Let everything that can go on now go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_free_directory_is_had_at_once_and_given_back(locks: DirectoryLocks, place: Path) -> None:
    assert locks.holder_of(place) is None
    lock = locks.try_acquire(place, "t1")
    assert lock is not None
    assert locks.holder_of(place) == "t1"
    assert locks.try_acquire(place, "t2") is None
    lock.release()
    lock.release()
    assert locks.holder_of(place) is None
    assert locks._held == {}


async def test_two_paths_to_one_place_are_one_directory(locks: DirectoryLocks, place: Path) -> None:
    link = place.parent / "link"
    link.symlink_to(place)
    lock = locks.try_acquire(place, "t1")
    assert lock is not None
    assert locks.try_acquire(link, "t2") is None
    assert locks.try_acquire(place.parent / "place" / ".." / "place", "t2") is None
    lock.release()


async def test_a_directory_inside_another_is_another_one(locks: DirectoryLocks, place: Path) -> None:
    inner = place / "inner"
    inner.mkdir()
    held = [locks.try_acquire(place, "t1"), locks.try_acquire(inner, "t2")]
    assert None not in held
    for lock in held:
        assert lock is not None
        lock.release()


async def test_who_waits_gets_it_in_the_order_of_asking(locks: DirectoryLocks, place: Path) -> None:
    order: list[int] = []
    first = locks.try_acquire(place, "t0")
    assert first is not None

    async def one(number: int) -> None:
        lock = await locks.acquire(place, f"t{number}")
        order.append(number)
        await asyncio.sleep(0)
        lock.release()

    async with asyncio.TaskGroup() as group:
        for number in range(1, 6):
            group.create_task(one(number))
            await settle()
        assert locks.try_acquire(place, "late") is None
        first.release()
        assert locks.try_acquire(place, "overtaking") is None
    assert order == [1, 2, 3, 4, 5]
    assert locks._held == {}
    assert locks._waiting == {}


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_cancelling_while_waiting_leaves_no_place_taken(
    locks: DirectoryLocks, place: Path, which: int
) -> None:
    held = locks.try_acquire(place, "t0")
    assert held is not None
    loop = asyncio.get_running_loop()
    waiting = []
    for number in range(3):
        waiting.append(loop.create_task(locks.acquire(place, f"w{number}")))
        await settle()
    waiting[which].cancel()
    await settle()
    held.release()
    for number in (number for number in range(3) if number != which):
        lock = await asyncio.wait_for(waiting[number], 5)
        assert locks.holder_of(place) == f"w{number}"
        lock.release()
    assert waiting[which].cancelled()
    assert locks._held == {}
    assert locks._waiting == {}


async def test_a_cancellation_that_meets_the_wake_up_is_not_lost(locks: DirectoryLocks, place: Path) -> None:
    """On Python 3.11 ``wait_for`` swallows it, and the task would run in a directory it gave up."""
    held = locks.try_acquire(place, "t0")
    assert held is not None
    waiting = asyncio.get_running_loop().create_task(locks.acquire(place, "t1"))
    await settle()
    held.release()  # wakes it
    waiting.cancel()  # before it runs
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert locks._held == {}
    assert locks._waiting == {}


HOLDER = """
import asyncio, sys
from pathlib import Path
from daemon_core.workdirs import DirectoryLocks
async def main():
    lock = DirectoryLocks(Path(sys.argv[1])).try_acquire(Path(sys.argv[2]), "of-another-process")
    print("held" if lock else "not", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


async def test_another_process_that_holds_it_is_waited_for(locks: DirectoryLocks, place: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - a moment
        [sys.executable, "-c", HOLDER, str(locks.lock_dir), str(place)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        assert locks.try_acquire(place, "t1") is None
        assert locks.holder_of(place) == "of-another-process"
        async with beside(locks.acquire(place, "t1"), "waiting") as waiting:
            await asyncio.sleep(0.05)
            assert not waiting.done()
            process.kill()  # as it is with every death: the lock goes with the process
            lock = await asyncio.wait_for(asyncio.shield(waiting), 5)
        assert locks.holder_of(place) == "t1"
        lock.release()


async def test_a_shim_that_lives_on_keeps_the_directory(locks: DirectoryLocks, place: Path) -> None:
    lock = locks.try_acquire(place, "t1")
    assert lock is not None
    assert lock.fd is not None
    shims = os.dup(lock.fd)
    lock.release()  # this daemon is gone
    after = DirectoryLocks(locks.lock_dir)
    assert after.try_acquire(place, "t2") is None
    assert after.holder_of(place) == "t1"
    adopted = after.adopt(place, "t1")
    assert adopted.fd is None
    assert after.holder_of(place) == "t1"
    async with beside(after.acquire(place, "t2"), "waiting") as waiting:
        await asyncio.sleep(0.05)
        assert not waiting.done()
        os.close(shims)
        await asyncio.sleep(0.05)
        assert not waiting.done()  # the shim has gone, the task has not ended yet
        adopted.release()
        (await asyncio.wait_for(asyncio.shield(waiting), 5)).release()
    assert after._held == {}


async def test_a_second_run_under_an_adopted_lock_waits_for_the_file(
    locks: DirectoryLocks, place: Path
) -> None:
    elsewhere = DirectoryLocks(locks.lock_dir)
    foreign = elsewhere.try_acquire(place, "other")
    adopted = locks.adopt(place, "t1")
    assert foreign is not None
    assert not has_file(adopted)
    async with beside(locks.secure(adopted), "securing") as securing:
        await asyncio.sleep(0.05)
        assert not securing.done()
        foreign.release()
        await asyncio.wait_for(asyncio.shield(securing), 5)
    assert has_file(adopted)
    adopted.release()
    assert locks._held == {}


async def test_to_adopt_what_another_task_holds_takes_nothing_from_it(
    locks: DirectoryLocks, place: Path
) -> None:
    first = locks.adopt(place, "t1")
    second = locks.adopt(place, "t2")
    second.release()
    assert locks.holder_of(place) == "t1"
    first.release()
    assert locks.holder_of(place) is None


async def test_a_run_whose_directory_is_gone_can_be_adopted(locks: DirectoryLocks, place: Path) -> None:
    place.rmdir()
    lock = locks.adopt(place, "../../t1")
    lock.release()
    assert locks._held == {}
    assert not locks.lock_dir.exists() or not list(locks.lock_dir.iterdir())


async def test_a_directory_that_is_gone_cannot_be_locked(locks: DirectoryLocks, place: Path) -> None:
    place.rmdir()
    with pytest.raises(FileNotFoundError):
        locks.try_acquire(place, "t1")
    with pytest.raises(FileNotFoundError):
        await locks.acquire(place, "t1")
    assert locks._waiting == {}


async def test_a_directory_that_goes_while_a_task_waits_for_it_is_refused(
    locks: DirectoryLocks, place: Path
) -> None:
    held = locks.try_acquire(place, "t0")
    assert held is not None
    async with beside(locks.acquire(place, "t1"), "waiting") as waiting:
        await settle()
        place.rmdir()
        held.release()
        with pytest.raises(FileNotFoundError):
            await asyncio.wait_for(asyncio.shield(waiting), 5)
    assert locks._held == {}


async def test_a_directory_that_was_made_anew_while_a_task_waited_is_locked_as_what_it_is(
    locks: DirectoryLocks, place: Path
) -> None:
    held = locks.try_acquire(place, "t0")
    assert held is not None
    async with beside(locks.acquire(place, "t1"), "waiting") as waiting:
        await settle()
        place.rename(place.with_name("old"))
        place.mkdir()
        held.release()
        lock = await asyncio.wait_for(asyncio.shield(waiting), 5)
    assert locks.holder_of(place) == "t1"
    assert locks.holder_of(place.with_name("old")) is None
    lock.release()


async def test_a_full_disk_does_not_keep_a_directory_locked(
    locks: DirectoryLocks, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        lock = locks.try_acquire(place, "t1")
    assert lock is not None
    lock.release()
    assert locks.holder_of(place) is None


async def test_a_file_system_without_locks_is_said(
    locks: DirectoryLocks, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(fd: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("daemon_core.workdirs.locks._lock_file", none_here)
    with pytest.raises(OSError, match="no locks"):
        locks.try_acquire(place, "t1")


async def test_lock_files_are_private(locks: DirectoryLocks, place: Path) -> None:
    lock = locks.try_acquire(place, "t1")
    assert lock is not None
    assert locks.lock_dir.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in locks.lock_dir.iterdir()] == [0o600]
    lock.release()
