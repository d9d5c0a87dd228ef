"""Output without end: files of a bounded size, and not a byte lost to whoever reads along."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from daemon_core.processes import Shim, attach, outputs

from .conftest import Stage, until

LINES = 40_000
EXPECTED = b"".join(b"%d a line of output\n" % i for i in range(LINES))
WRITE = f"for i in range({LINES}): print(i, 'a line of output')"


async def follow(shim: Shim) -> tuple[int, bytes]:
    """Everything from the first byte that can be had on, read as it comes."""
    found = b""
    start = None
    at = 0
    while True:
        state = await shim.watch(at, 0)
        while True:
            offset, data = await asyncio.to_thread(outputs.read, shim.run_dir, "stdout", at, 1 << 16)
            if not data:
                break
            if start is None:
                start = offset
            assert offset == at or not found, "a stretch was lost"
            found += data
            at = offset + len(data)
        if state.ended:
            return start or 0, found


async def test_whoever_reads_along_misses_nothing(stage: Stage) -> None:
    # As slow as a log is: the reader has always seen a file before it goes.
    code = (
        f"import sys, time\nfor i in range({LINES}):\n"
        "    print(i, 'a line of output')\n"
        "    if i % 500 == 0: sys.stdout.flush(); time.sleep(0.004)"
    )
    shim = await stage.python(code, output_limit=(100_000, 4))
    start, found = await follow(shim)
    assert (start, found) == (0, EXPECTED)
    assert outputs.size(shim.run_dir, "stdout") == len(EXPECTED)


async def test_only_so_many_files_of_that_size_stay(stage: Stage) -> None:
    shim = await stage.python(WRITE, output_limit=(100_000, 3))
    await shim.wait()
    files = sorted(shim.run_dir.glob("stdout*"))
    assert len(files) == 3
    # A file is full once it has reached the limit: the last chunk may go beyond it.
    assert all(path.stat().st_size <= 100_000 + 65536 for path in files)
    kept = outputs.first(shim.run_dir, "stdout")
    at, whole = kept, b""
    while True:
        offset, data = outputs.read(shim.run_dir, "stdout", at, 1 << 20)
        if not data:
            break
        assert offset == at
        whole += data
        at = offset + len(data)
    assert whole == EXPECTED[kept:]
    assert outputs.read(shim.run_dir, "stdout", 0, 10) == (kept, EXPECTED[kept : kept + 10])


async def test_offsets_go_on_for_one_who_comes_later(stage: Stage) -> None:
    shim = await stage.python(
        f"{WRITE}\nimport sys; sys.stdout.flush(); sys.stdin.read(); print('last')", output_limit=(100_000, 2)
    )
    later = await attach(shim.run_dir)
    assert isinstance(later, Shim)
    stage.keep(later)
    state = await later.watch(len(EXPECTED) - 1, 0)
    assert state.stdout_bytes == len(EXPECTED)
    await later.write(1, None)
    await later.wait()
    # Told from the files alone, since the shim is gone.
    assert (await later.watch(0, 0)).stdout_bytes == len(EXPECTED) + 5
    assert (await later.status()).stdout_bytes == len(EXPECTED) + 5


async def test_without_a_limit_it_is_one_file(stage: Stage) -> None:
    shim = await stage.python(WRITE)
    await shim.wait()
    assert [path.name for path in shim.run_dir.glob("stdout*")] == ["stdout"]
    assert outputs.read(shim.run_dir, "stdout", 0, 1 << 30) == (0, EXPECTED)
    assert outputs.first(shim.run_dir, "stdout") == 0


async def test_no_new_file_can_be_made(stage: Stage, base: Path) -> None:
    code = "import sys\nprint('a' * 200_000, flush=True)\nsys.stdin.read()\nprint('b' * 200_000)"
    shim = await stage.python(code, output_limit=(100_000, 3))
    await until(lambda: outputs.size(shim.run_dir, "stdout") == 200_001)
    (shim.run_dir / "stdout.new").mkdir(exist_ok=True)  # in the way, whoever one is
    await shim.write(1, None)
    assert (await shim.wait()).code == 0
    at, whole = 0, b""
    while data := (got := outputs.read(shim.run_dir, "stdout", at, 1 << 20))[1]:
        whole += data
        at = got[0] + len(data)
    assert whole == b"a" * 200_000 + b"\n" + b"b" * 200_000 + b"\n"


def test_nothing_there(tmp_path: Path) -> None:
    assert outputs.size(tmp_path, "stdout") == 0
    assert outputs.read(tmp_path / "none", "stdout", 5, 10) == (5, b"")


def test_a_shim_that_died_between_two_names(tmp_path: Path) -> None:
    (tmp_path / "stdout.0").write_bytes(b"abc")
    (tmp_path / "stdout.3").write_bytes(b"def")
    assert outputs.size(tmp_path, "stdout") == 6
    assert outputs.read(tmp_path, "stdout", 1, 10) == (1, b"bc")
    assert outputs.read(tmp_path, "stdout", 4, 10) == (4, b"ef")


@pytest.mark.parametrize("limit", [(0, 3), (10, 1)])
async def test_limits_that_make_no_sense(stage: Stage, limit: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="two files"):
        await stage.spawn("true", output_limit=limit)
