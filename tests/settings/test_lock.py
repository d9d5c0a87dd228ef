"""One daemon a profile, whatever became of the one before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_core.settings import lock
from daemon_core.settings.lock import DaemonInfo, DaemonLock, LockHeldError
from tests.end_to_end.home import wait_until

HOLD = """
import sys, pathlib
from daemon_core.settings.lock import DaemonLock
held = DaemonLock.acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


LOOK = """
import sys, pathlib
from daemon_core.settings import lock
lock._kernel_holder = lambda descriptor: None
print(flush=True)
while True:
    lock.held(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "daemon.lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
        child.kill()


def test_a_second_daemon_is_refused_and_told_the_first(path: Path, holder: subprocess.Popen[bytes]) -> None:
    assert lock.held(path)
    assert lock.holder(path) == holder.pid
    with pytest.raises(LockHeldError) as error:
        DaemonLock.acquire(path)
    assert error.value.pid == holder.pid


def test_a_killed_daemon_leaves_the_lock_free(path: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert not lock.held(path)
    with DaemonLock.acquire(path):
        assert lock.held(path)
    assert not lock.held(path)


def test_looking_never_keeps_a_daemon_from_starting(path: Path) -> None:
    DaemonLock.acquire(path).release()
    looking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            LOOK,
            str(path),
        ],
        stdout=subprocess.PIPE,
    )
    assert looking.stdout is not None
    looking.stdout.readline()
    try:
        for _ in range(20):
            DaemonLock.acquire(path).release()
    finally:
        looking.kill()
        looking.communicate()


def test_the_lock_is_not_inherited_by_what_the_daemon_starts(path: Path) -> None:
    held = DaemonLock.acquire(path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        held.release()
        held.release()
        # The kernel closes a new program's descriptors after it has begun, and the one that tells Popen of it
        # first: a child that had inherited the lock would keep it for its life, this one has it for a moment.
        wait_until(lambda: not lock.held(path), "the lock to be free")
        assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_no_file_is_no_daemon(path: Path) -> None:
    assert not lock.held(path)
    assert lock.holder(path) is None
    assert lock.kill_holder(path, path.with_name("daemon.json")) is None


def test_a_hung_daemon_is_ended_by_the_kernels_word(path: Path, holder: subprocess.Popen[bytes]) -> None:
    info = path.with_name("daemon.json")
    lock.write_info(info, DaemonInfo(pid=os.getppid(), started_at="", version=""))  # stale, and not asked
    assert lock.kill_holder(path, info) == holder.pid
    assert holder.wait() == -9


def test_without_the_kernels_word_pid_and_start_time_have_to_agree(
    path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_kernel_holder", lambda descriptor: None)
    info = path.with_name("daemon.json")
    for started in (0.0, time.time() - 10_000):
        lock.write_info(info, DaemonInfo(holder.pid, "", "", process_started=started))
        assert lock.kill_holder(path, info) is None
        assert holder.poll() is None
    lock.write_info(info, DaemonInfo(holder.pid, "", "", process_started=lock.process_started(holder.pid)))
    assert lock.kill_holder(path, info) == holder.pid


@pytest.mark.parametrize("left", [b"", b"{}", b"[]", b'{"pid": "x"}', b"\xff", b'{"pid": 1, "port": []}'])
def test_damaged_information_is_none(path: Path, left: bytes) -> None:
    path.write_bytes(left)
    found = lock.read_info(path)
    assert found is None or found.port == 0


def test_information_is_read_as_written(path: Path) -> None:
    info = DaemonInfo(7, "2026-05-04T10:00:00Z", "1.0", 21514, "/s", 12.5)
    lock.write_info(path, info)
    assert lock.read_info(path) == info
