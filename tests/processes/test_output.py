"""Output: every byte, once, in order, in the files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest

from daemon_core.processes import OutputState, Shim, attach

from .conftest import Stage, is_gone, until


async def test_stdout_and_stderr_go_to_their_files(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "echo out; echo err >&2; echo out2")
    await shim.wait()
    assert (shim.run_dir / "stdout").read_text() == "out\nout2\n"
    assert (shim.run_dir / "stderr").read_text() == "err\n"


async def test_merged_stderr_keeps_the_order(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "for i in 1 2 3; do echo o$i; echo e$i >&2; done", merge_stderr=True)
    await shim.wait()
    assert (shim.run_dir / "stdout").read_text() == "o1\ne1\no2\ne2\no3\ne3\n"
    assert (shim.run_dir / "stderr").read_bytes() == b""


@pytest.mark.parametrize("buffering", ["block", "line", "tiny"])
async def test_lines_are_exact(stage: Stage, buffering: str) -> None:
    count = {"block": 200_000, "line": 50_000, "tiny": 3_000}[buffering]
    flush = {"block": "", "line": "sys.stdout.reconfigure(line_buffering=True)", "tiny": ""}[buffering]
    write = (
        "os.write(1, f'{i} '.encode()); os.write(1, b'line\\n')"
        if buffering == "tiny"
        else "print(i, 'line')"
    )
    shim = await stage.spawn("python3", "-c", f"import os, sys\n{flush}\nfor i in range({count}): {write}")
    status = await shim.wait()
    assert status.code == 0
    expected = b"".join(b"%d line\n" % i for i in range(count))
    assert (shim.run_dir / "stdout").read_bytes() == expected


async def test_a_hundred_megabytes_of_anything(stage: Stage) -> None:
    code = (
        "import os, hashlib, random; r = random.Random(1); d = r.randbytes(1 << 20); h = hashlib.sha256()\n"
        "for i in range(100):\n"
        "    block = i.to_bytes(4, 'big') + d; h.update(block); view = memoryview(block)\n"
        "    while view: view = view[os.write(1, view):]\n"
        "os.write(2, h.hexdigest().encode())"
    )
    shim = await stage.spawn("python3", "-c", code)
    assert (await shim.wait()).code == 0
    digest = hashlib.sha256()
    with (shim.run_dir / "stdout").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    assert digest.hexdigest() == (shim.run_dir / "stderr").read_text()
    assert (shim.run_dir / "stdout").stat().st_size == 100 * (4 + (1 << 20))


async def test_a_million_lines_take_seconds_and_no_memory(stage: Stage) -> None:
    code = (
        "import sys\nfor i in range(1000000): sys.stdout.write('%07d %s\\n' % (i, 'x' * 72))\n"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    started = time.monotonic()
    shim = await stage.spawn("python3", "-c", code)
    size = 1_000_000 * 81
    await shim.watch(size - 1, 0)
    assert time.monotonic() - started < 20
    status = await shim.status()
    assert status.stdout_bytes == size
    rollup = dict(
        line.split()[:2]
        for line in Path(f"/proc/{shim.info.pid}/status").read_text().splitlines()
        if "VmHWM" in line
    )
    assert int(rollup["VmHWM:"]) < 16_000
    await shim.write(1, None)
    await shim.wait()


async def test_watch_waits_for_growth_and_tells_of_the_end(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "while read line; do echo $line; done")
    watch = asyncio.ensure_future(shim.watch(0, 0))
    await shim.status()
    assert not watch.done()
    await shim.write(1, b"abc\n")
    assert await watch == OutputState(stdout_bytes=4, stderr_bytes=0, ended=False, stalled_on_disk=False)
    assert (await shim.watch(3, 0)).stdout_bytes == 4
    watch = asyncio.ensure_future(shim.watch(4, 0))
    await shim.write(2, None)
    assert (await watch).ended
    assert (shim.run_dir / "exit.json").exists()
    assert (await shim.watch(4, 0)).ended


async def test_a_cancelled_watch_leaves_nothing_behind(stage: Stage) -> None:
    shim = await stage.spawn("cat")
    for _ in range(50):
        watch = asyncio.ensure_future(shim.watch(0, 0))
        await asyncio.sleep(0)
        watch.cancel()
    await shim.write(1, b"x")
    assert (await shim.watch(0, 0)).stdout_bytes == 1
    assert (await shim.status()).written == 1


async def test_several_clients_see_the_same(stage: Stage) -> None:
    first = await stage.spawn("cat")
    others = [await attach(first.run_dir) for _ in range(5)]
    watches = []
    for other in others:
        assert isinstance(other, Shim)
        watches.append(asyncio.ensure_future(stage.keep(other).watch(0, 0)))
    await first.write(1, b"hello")
    assert {(await watch).stdout_bytes for watch in watches} == {5}
    waits = [asyncio.ensure_future(other.wait()) for other in others if isinstance(other, Shim)]
    await first.write(2, None)
    assert {(await wait).code for wait in waits} == {0}


async def test_silence_is_measured(stage: Stage) -> None:
    shim = await stage.spawn("cat")
    await until(lambda: True)
    await asyncio.sleep(0.3)
    assert (await shim.status()).idle_s >= 0.3
    await shim.write(1, b"x")
    await shim.watch(0, 0)
    assert (await shim.status()).idle_s < 0.3


async def test_an_idle_shim_never_wakes(stage: Stage) -> None:
    shim = await stage.spawn("sleep", "1000")
    watch = asyncio.ensure_future(shim.watch(0, 0))
    wait = asyncio.ensure_future(shim.wait())
    await shim.status()

    def switches() -> list[str]:
        lines = Path(f"/proc/{shim.info.pid}/status").read_text().splitlines()
        return [line for line in lines if "voluntary_ctxt" in line]

    await asyncio.sleep(0.2)
    before = switches()
    await asyncio.sleep(1)
    assert switches() == before
    for task in (watch, wait):
        task.cancel()
    await shim.end(1)


async def test_a_grandchild_that_keeps_stdout_open_delays_nothing(stage: Stage) -> None:
    started = time.monotonic()
    shim = await stage.spawn("sh", "-c", "setsid sleep 1000 & echo $!; exit 5")
    status = await shim.wait()
    assert time.monotonic() - started < 5
    assert (status.code, status.swept) == (5, 1)
    text = (shim.run_dir / "stdout").read_text()
    assert is_gone(int(text))


async def test_what_was_written_just_before_the_end_is_there(stage: Stage) -> None:
    """Chunks that still are in the pipe when the child exits."""
    for size in (1, 4096, 60_000):
        code = f"import os; os.write(1, b'x' * {size}); os.kill(os.getpid(), 9)"
        shim = await stage.python(code.replace("import os", "import posix as os"))
        status = await shim.wait()
        assert (status.code, status.signal, status.reason) == (None, 9, "exited")
        assert (shim.run_dir / "stdout").stat().st_size == size
        assert os.path.getsize(shim.run_dir / "stdout") == size
