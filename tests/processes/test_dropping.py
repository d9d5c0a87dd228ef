"""Output that is kept up to a size: its middle goes, beginning and end stay, offsets stay valid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.processes import LostError, Shim, attach, outputs
from daemon_core.processes.client import OUTPUT_KEEP_LEAST_BYTES as KEEP

from .conftest import Stage, needs_root

SLACK = 3 * 65536
"""A chunk, and blocks that a hole does not cover as a whole."""
LINE = 32


def code(size: int, then: str = "") -> str:
    """Writes numbered lines of 32 bytes, ``size`` in all."""
    return (
        "import sys\n"
        f"for at in range(0, {size}, 4096):\n"
        "    sys.stdout.write(''.join('%030d.\\n' % each for each in range(at, at + 4096, 32)))\n"
        f"sys.stdout.flush()\n{then}"
    )


def expected(start: int, length: int) -> bytes:
    first = start - start % LINE
    lines = b"".join(b"%030d.\n" % at for at in range(first, start + length, LINE))
    return lines[start - first : start - first + length]


def used_bytes(run_dir: Path) -> int:
    # A file system in memory counts no blocks; there are no holes there either.
    facts = [path.stat() for path in run_dir.glob("stdout*")]
    return sum(each.st_blocks * 512 if each.st_blocks else each.st_size for each in facts)


def check(run_dir: Path, size: int, kept_bytes: int = KEEP) -> None:
    """Everything that is left is what was written there, and is enough."""
    assert outputs.size(run_dir, "stdout") == size
    gap = outputs.gap(run_dir, "stdout")
    assert gap is not None
    assert gap.start >= KEEP // 4
    assert size - gap.end >= KEEP // 4
    assert used_bytes(run_dir) <= kept_bytes + SLACK
    at, jumps = 0, []
    while (got := outputs.read(run_dir, "stdout", at, 100_000))[1]:
        begins, data = got
        if begins != at:
            jumps.append((at, begins))
        assert data == expected(begins, len(data))
        at = begins + len(data)
    assert at == size
    assert jumps == [tuple(gap)]
    inside = (gap.start + gap.end) // 2
    assert outputs.read(run_dir, "stdout", inside, 64) == (gap.end, expected(gap.end, 64))
    before = gap.start - 10
    assert outputs.read(run_dir, "stdout", before, 64) == (before, expected(before, 10))


async def test_the_middle_goes_and_the_true_size_stays(stage: Stage) -> None:
    size = 8 * KEEP
    shim = await stage.python(code(size), output_keep=(KEEP, 0))
    assert (await shim.wait()).code == 0
    assert (await shim.status()).stdout_bytes == size
    assert (shim.run_dir / "stdout").stat().st_size == size
    check(shim.run_dir, size)


async def test_nothing_goes_before_the_limit_and_without_one(stage: Stage) -> None:
    shim = await stage.python(code(KEEP - 4096), output_keep=(KEEP, 0))
    other = await stage.python(code(2 * KEEP), output_keep=(0, KEEP))
    for each, size in ((shim, KEEP - 4096), (other, 2 * KEEP)):
        await each.wait()
        assert outputs.gap(each.run_dir, "stdout") is None
        assert outputs.read(each.run_dir, "stdout", 0, 3 * KEEP) == (0, expected(0, size))


async def test_a_reader_that_comes_along_gets_only_what_was_written(stage: Stage) -> None:
    """Also at the moment in which a stretch becomes a hole."""
    size = 24 * KEEP
    shim = await stage.python(code(size), output_keep=(KEEP, 0))

    def read_all() -> int:
        at = 0
        while at < size:
            begins, data = outputs.read(shim.run_dir, "stdout", at, 20_000)
            assert data == expected(begins, len(data))
            at = begins + len(data)
        return at

    assert await asyncio.to_thread(read_all) == size
    await shim.wait()


async def test_a_death_of_the_shim_leaves_what_was_kept(stage: Stage) -> None:
    shim = await stage.python(code(4 * KEEP, "sys.stdin.read()"), output_keep=(KEEP, 0))
    await shim.watch(4 * KEEP - 1, 0)
    os.kill(shim.info.pid, signal.SIGKILL)
    with pytest.raises(LostError):
        await shim.wait()
    check(shim.run_dir, 4 * KEEP)


async def test_it_goes_on_while_nobody_looks(stage: Stage) -> None:
    shim = await stage.python(code(4 * KEEP, "sys.stdin.read()\n" + code(KEEP)), output_keep=(KEEP, 0))
    await shim.watch(4 * KEEP - 1, 0)
    await shim.close()
    later = await attach(shim.run_dir)
    assert isinstance(later, Shim)
    stage.keep(later)
    assert (await later.status()).stdout_bytes == 4 * KEEP
    await later.write(1, None)
    await later.wait()
    assert outputs.size(shim.run_dir, "stdout") == 5 * KEEP
    assert used_bytes(shim.run_dir) <= KEEP + SLACK


@pytest.fixture
async def without_holes(stage: Stage) -> AsyncIterator[Path]:
    """A file system that gives nothing back of the middle of a file."""
    path = stage.base / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(path)], check=True)
    yield path
    await stage.close()
    subprocess.run(["umount", str(path)], check=True)


@needs_root
@pytest.mark.root
async def test_where_there_are_no_holes_further_files_come_and_the_first_stays(
    stage: Stage, without_holes: Path
) -> None:
    size = 8 * KEEP
    shim = await stage.python(code(size), run_dir=without_holes / "run", output_keep=(KEEP, 0))
    assert (await shim.wait()).code == 0
    files = sorted(path.name for path in shim.run_dir.glob("stdout*"))
    assert len(files) == 3
    assert "stdout.0" in files
    assert "stdout.gap" not in files
    check(shim.run_dir, size, KEEP + KEEP // 2)


@pytest.mark.parametrize("keep", [(KEEP - 1, 0), (0, -5)])
async def test_sizes_that_make_no_sense(stage: Stage, keep: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="are kept"):
        await stage.spawn("true", output_keep=keep)


async def test_a_damaged_record_of_what_was_dropped_is_as_good_as_none(stage: Stage) -> None:
    shim = await stage.python(code(4096))
    await shim.wait()
    (shim.run_dir / "stdout.gap").write_bytes(b"x y z")
    assert outputs.gap(shim.run_dir, "stdout") is None
    assert outputs.read(shim.run_dir, "stdout", 0, 9999) == (0, expected(0, 4096))
