"""Writes to stdin: numbered, recorded, done exactly once."""

from __future__ import annotations

import asyncio
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_core.processes import EndedError, Shim, StdinRecord, attach, read_stdin_record

from .conftest import Stage, until


async def test_a_number_is_done_once(stage: Stage) -> None:
    gate = stage.base / "gate"
    shim = await stage.spawn("sh", "-c", f"cat; while [ ! -e {gate} ]; do sleep 0.02; done", stdin=b"a")
    await shim.write(1, b"not again")
    await shim.write(2, b"b")
    await shim.write(2, b"b")
    await shim.write(3, None)
    await shim.write(3, None)
    await shim.write(2, b"b")
    gate.touch()
    assert (await shim.wait()).code == 0
    assert (shim.run_dir / "stdout").read_bytes() == b"ab"
    assert read_stdin_record(shim.run_dir) == [
        StdinRecord(1, b"a"),
        StdinRecord(2, b"b"),
        StdinRecord(3, None),
    ]
    assert stat.S_IMODE((shim.run_dir / "stdin").stat().st_mode) == 0o600


async def test_gaps_and_writes_after_the_close_are_refused(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "cat; exec sleep 1000")
    with pytest.raises(ValueError, match="gap"):
        await shim.write(2, b"x")
    await shim.write(1, None)
    with pytest.raises(ValueError, match="closed"):
        await shim.write(2, b"x")
    assert (await shim.status()).written == 1


async def test_the_first_input_and_its_close_come_with_the_spec(stage: Stage) -> None:
    shim = await stage.spawn("cat", stdin=b"x" * 1_500_000, close_stdin=True)
    assert (await shim.wait()).code == 0
    assert (shim.run_dir / "stdout").stat().st_size == 1_500_000
    assert [record.number for record in read_stdin_record(shim.run_dir)] == [1, 2]
    shim = await stage.spawn("cat", close_stdin=True)
    assert (await shim.wait()).code == 0


async def test_two_megabytes_to_one_who_does_not_read_yet(stage: Stage) -> None:
    """Partial writes to a full pipe: the rest is kept, nothing blocks meanwhile."""
    gate = stage.base / "gate"
    shim = await stage.spawn("sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done; cat")
    data = bytes(range(256)) * 8192
    await asyncio.wait_for(shim.write(1, data), 10)
    await asyncio.wait_for(shim.write(2, b"end"), 10)
    status = await asyncio.wait_for(shim.status(), 10)
    assert status.written == 2
    assert status.stdin_waiting_bytes > 1_900_000
    await shim.write(3, None)
    gate.touch()
    assert (await shim.wait()).code == 0
    assert (shim.run_dir / "stdout").read_bytes() == data + b"end"


async def test_acknowledged_input_arrives_without_the_one_who_wrote_it(stage: Stage) -> None:
    gate = stage.base / "gate"
    shim = await stage.spawn("sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done; cat")
    await shim.write(1, b"y" * 500_000)
    await shim.write(2, None)
    await shim.close()
    gate.touch()
    again = await attach(shim.run_dir)
    assert isinstance(again, Shim)
    await stage.keep(again).wait()
    assert (shim.run_dir / "stdout").stat().st_size == 500_000


async def test_a_child_that_closes_its_stdin_is_no_error(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "exec <&-; echo closed; sleep 1000")
    await shim.watch(0, 0)
    await shim.write(1, b"x" * 200_000)
    await shim.write(2, b"y")
    await until(lambda: True)
    assert not (await shim.status()).stdin_open
    await shim.signal(signal.SIGTERM)
    assert (await shim.wait()).signal == signal.SIGTERM


async def test_a_run_that_is_over_takes_no_more(stage: Stage) -> None:
    shim = await stage.spawn("true")
    await shim.wait()
    with pytest.raises(EndedError) as caught:
        await shim.write(1, b"x")
    assert caught.value.status.code == 0
    await shim.signal(15)
    await shim.end(1)


async def test_garbage_on_the_socket_only_ends_its_connection(stage: Stage) -> None:
    shim = await stage.spawn("cat")
    garbage = [
        b"\n",
        b"x" * 5000,
        b"1 write 1 -5\n",
        b"1 write 1 99999999999\n",
        b"a\n",
        b"1 signal x\n",
        b"\0" * 9,
    ]
    for line in garbage:
        reader, writer = await asyncio.open_unix_connection(shim.info.socket)
        writer.write(line)
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()
    # The first half of a write, then nothing: it has not been said.
    _, writer = await asyncio.open_unix_connection(shim.info.socket)
    writer.write(b"1 write 1 100\nhalf")
    await writer.drain()
    writer.close()
    await shim.write(1, b"whole")
    await shim.write(2, None)
    assert (await shim.wait()).code == 0
    assert (shim.run_dir / "stdout").read_bytes() == b"whole"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 200_000)),
        st.tuples(st.just("write"), st.integers(0, 20)),
        st.tuples(st.just("repeat"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 200_000)),
        st.tuples(st.just("reconnect"), st.just(0)),
        st.tuples(st.just("cut"), st.integers(1, 50_000)),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_whatever_happens_in_between_input_arrives_once(
    base: Path, operations: list[tuple[str, int]]
) -> None:
    asyncio.run(_say_everything(base, operations))


async def _say_everything(base: Path, operations: list[tuple[str, int]]) -> None:
    stage = Stage(base)
    shim = await stage.spawn("cat")
    said = b""
    number = 0
    try:
        for name, size in operations:
            data = bytes([65 + number % 26]) * size
            if name == "write":
                number += 1
                await shim.write(number, data)
                said += data
            elif name == "repeat" and number:
                await shim.write(max(1, number - size), b"never")
            elif name == "cancel":
                number += 1
                attempt = asyncio.ensure_future(shim.write(number, data))
                await asyncio.sleep(0.0005 * (size % 3))
                attempt.cancel()
                await asyncio.wait([attempt])
                await shim.write(number, data)
                said += data
            elif name == "cut":
                # A client that dies in the middle of a write.
                number += 1
                _, writer = await asyncio.open_unix_connection(shim.info.socket)
                writer.write(b"1 write %d %d\n" % (number, size) + b"-" * (size - 1))
                writer.close()
                await shim.write(number, data)
                said += data
            elif name == "reconnect":
                await shim.close()
                found = await attach(shim.run_dir)
                assert isinstance(found, Shim)
                shim = stage.keep(found)
                assert (await shim.status()).written == number
        await shim.write(number + 1, None)
        assert (await shim.wait()).code == 0
        assert (shim.run_dir / "stdout").read_bytes() == said
        assert b"".join(r.data or b"" for r in read_stdin_record(shim.run_dir)) == said
    finally:
        await stage.close()
