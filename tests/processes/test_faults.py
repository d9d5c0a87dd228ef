"""What the machine does to a run: full disks, vanished sockets, other users."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.processes import (
    LostError,
    RunPhase,
    Shim,
    SpawnError,
    UnreachableError,
    attach,
    client,
    read_state,
    read_stdin_record,
)
from daemon_core.processes.tree import Identity, is_alive

from .conftest import Stage, needs_root, until

LINES = 200_000
WRITER = f"""
import sys
for i in range({LINES}): sys.stdout.write("%07d some text\\n" % i)
sys.stdout.flush()
sys.stdin.read()
"""
EXPECTED = b"".join(b"%07d some text\n" % i for i in range(LINES))


@pytest.fixture
async def small_disk(stage: Stage) -> AsyncIterator[Path]:
    """A file system of 2 MB, made before and unmounted after the runs that use it."""
    path = stage.base / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], check=True)
    yield path
    await stage.close()
    subprocess.run(["umount", str(path)], check=True)


async def until_stalled(shim: Shim) -> None:
    for _ in range(500):
        if (await shim.status()).stalled_on_disk:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the disk did not fill up")


def fill(disk: Path) -> None:
    """Takes all the space there is."""
    with (disk / "filler").open("wb") as filler:
        try:
            while True:
                os.write(filler.fileno(), b"x" * 4096)
        except OSError:
            return  # full


@needs_root
@pytest.mark.root
async def test_a_full_disk_makes_the_child_wait_and_loses_nothing(stage: Stage, small_disk: Path) -> None:
    shim = await stage.spawn("python3", "-c", WRITER, run_dir=small_disk / "run")
    await until_stalled(shim)
    before = (await shim.status()).stdout_bytes
    assert 1_000_000 < before < 2_000_000
    assert (shim.run_dir / "stdout").stat().st_size == before
    # Stdin cannot be recorded, so it is not acknowledged; and it does not get in twice later.
    write = asyncio.ensure_future(shim.write(1, b"x" * 300_000))
    await asyncio.sleep(0.1)
    assert not write.done()
    assert (await shim.status()).written == 0
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    state = await shim.watch(len(EXPECTED) - 1, 0)
    assert state.stdout_bytes == len(EXPECTED)
    await write
    assert not (await shim.status()).stalled_on_disk
    await shim.write(2, None)
    status = await shim.wait()
    assert (status.code, status.error) == (0, "")
    assert (shim.run_dir / "stdout").read_bytes() == EXPECTED
    assert [(r.number, len(r.data or b"")) for r in read_stdin_record(shim.run_dir)] == [(1, 300_000), (2, 0)]


@needs_root
@pytest.mark.root
async def test_a_full_disk_has_room_for_the_end(stage: Stage, small_disk: Path) -> None:
    """What the child got rid of before it was killed is in the file, and so is its end."""
    shim = await stage.spawn("python3", "-c", WRITER, run_dir=small_disk / "run")
    await until_stalled(shim)
    await shim.end(5)
    status = await asyncio.wait_for(shim.wait(), 20)
    assert (status.signal, status.reason, status.error) == (signal.SIGTERM, "killed", "")
    written = (shim.run_dir / "stdout").read_bytes()
    assert EXPECTED.startswith(written)
    assert not (shim.run_dir / "spec").exists()


@needs_root
@pytest.mark.root
async def test_a_disk_without_any_room_still_takes_the_exit_status(stage: Stage, small_disk: Path) -> None:
    """Somebody else takes every byte, at once, all the time."""
    shim = await stage.spawn("sh", "-c", "cat >/dev/null; exit 8", run_dir=small_disk / "run")
    fill(small_disk)
    (shim.run_dir / "output.reserve").rename(small_disk / "taken-as-well")
    await shim.signal(signal.SIGTERM)
    status = await asyncio.wait_for(shim.wait(), 20)
    assert status.signal == signal.SIGTERM
    assert json.loads((shim.run_dir / "exit.json").read_bytes())["error"] == ""


@needs_root
@pytest.mark.root
async def test_no_start_on_a_full_disk(stage: Stage, small_disk: Path) -> None:
    fill(small_disk)
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - 20_000)
    spec = stage.spec("cat", run_dir=small_disk / "run")
    with pytest.raises(SpawnError) as caught:
        await client.spawn(spec)
    assert caught.value.what == "prepare"
    assert "disk is full" in str(caught.value)
    # Nothing was executed: with space it can be tried again.
    assert read_state(spec.run_dir).phase is RunPhase.NEVER_STARTED
    assert not list(spec.run_dir.glob("spec*"))
    (small_disk / "filler").unlink()
    shim = stage.keep(await client.spawn(spec))
    await shim.end(1)
    await shim.wait()


async def test_a_vanished_socket_is_made_again(stage: Stage) -> None:
    shim = await stage.spawn("cat")
    Path(shim.info.socket).unlink()
    found = await attach(shim.run_dir)
    assert isinstance(found, Shim)
    await stage.keep(found).write(1, b"hello")
    assert (await shim.watch(0, 0)).stdout_bytes == 5
    await found.close()
    shutil.rmtree(stage.base / "run")
    again = await attach(shim.run_dir)
    assert isinstance(again, Shim)
    await stage.keep(again).write(2, None)
    assert (await again.wait()).code == 0


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("made", ["directory", "link"])
async def test_no_socket_is_made_in_a_place_that_somebody_else_has_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    monkeypatch.setattr(client, "CONNECT_PATIENCE_S", 0.3)
    shim = await stage.spawn("cat")
    folder = Path(shim.info.socket).parent
    shutil.rmtree(folder)
    (stage.base / "trap").mkdir()
    (stage.base / "trap").chmod(0o777 if made == "directory" else 0o700)
    if made == "directory":
        (stage.base / "trap").rename(folder)
    else:
        folder.symlink_to(stage.base / "trap")
    os.chown(folder, 65534, 65534, follow_symlinks=False)
    with pytest.raises(UnreachableError):
        await shim.status()
    assert list(folder.iterdir()) == []


async def test_without_any_socket_files_are_looked_at(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_PATIENCE_S", 0.1)
    shim = await stage.spawn("sh", "-c", "while :; do echo x; sleep 0.05; done")
    folder = Path(shim.info.socket).parent
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.raises(UnreachableError):
        await shim.status()
    with pytest.raises(UnreachableError):
        await shim.write(1, b"x")
    assert (await shim.watch(0, 0)).stdout_bytes > 0
    wait = asyncio.ensure_future(shim.wait())
    watch = asyncio.ensure_future(shim.watch(10**9, 0))
    await shim.end(1)
    assert (await wait).reason == "killed"
    assert (await watch).ended


async def test_without_a_socket_a_lost_run_is_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_PATIENCE_S", 0.1)
    shim = await stage.spawn("sleep", "1000")
    folder = Path(shim.info.socket).parent
    shutil.rmtree(folder)
    folder.write_text("in the way")
    wait = asyncio.ensure_future(shim.wait())
    await asyncio.sleep(0.3)
    os.kill(shim.info.pid, signal.SIGKILL)
    with pytest.raises(LostError):
        await wait


async def test_closing_lets_go_of_those_who_wait(stage: Stage) -> None:
    shim = await stage.spawn("cat")
    wait = asyncio.ensure_future(shim.wait())
    status = await shim.status()
    assert not status.ended
    await shim.close()
    await shim.close()
    wait.cancel()
    await asyncio.wait([wait])
    assert read_state(shim.run_dir).phase is RunPhase.ALIVE


@needs_root
@pytest.mark.root
async def test_another_user_is_not_served(stage: Stage) -> None:
    """Even where the directory's permissions would let them through."""
    shim = await stage.spawn("cat")
    stage.base.chmod(0o711)
    (stage.base / "run").chmod(0o711)
    Path(shim.info.socket).chmod(0o666)
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'1 end 0\\n'); print(s.recv(100))"
    )
    command = ["/usr/bin/python3", "-c", code, shim.info.socket]
    run = await asyncio.to_thread(
        subprocess.run,
        command,
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    assert run.stdout in (b"b''\n", b""), run.stderr
    if not run.stdout:
        assert b"BrokenPipe" in run.stderr or b"ConnectionReset" in run.stderr
    assert not (await shim.status()).ending


async def test_faults_of_the_shim_itself_end_the_child(stage: Stage) -> None:
    """A run directory that is removed under a living run: nothing goes on for ever."""
    shim = await stage.spawn("cat")
    shutil.rmtree(shim.run_dir)
    await shim.end(1)
    child = Identity(shim.info.child_pid, shim.info.child_started)
    program = Identity(shim.info.pid, shim.info.started)
    await until(lambda: not is_alive(child) and not is_alive(program))


async def test_two_hundred_starts_and_ends_leave_nothing_open(stage: Stage) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    await (await stage.spawn("true")).wait()
    before = descriptors()
    for _ in range(20):
        shims = await asyncio.gather(*(stage.spawn("true") for _ in range(10)))
        statuses = await asyncio.gather(*(shim.wait() for shim in shims))
        assert {status.code for status in statuses} == {0}
        for shim in shims:
            await shim.close()
    await asyncio.sleep(0)
    assert descriptors() <= before
