"""Children with a pseudo-terminal, and children with a time limit."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from daemon_core.processes import Shim, attach

from .conftest import Stage, until

SIZE = (40, 132)


def said(shim: Shim) -> bytes:
    return (shim.run_dir / "stdout").read_bytes()


async def until_said(shim: Shim, text: bytes) -> None:
    await until(lambda: text in said(shim))


async def test_the_child_has_a_terminal_of_the_size_asked_for(stage: Stage) -> None:
    shim = await stage.spawn(
        "sh",
        "-c",
        "test -t 0 && test -t 1 && test -t 2 && stty size && tty && ps -o tty= -p $$",
        terminal=SIZE,
    )
    assert (await shim.wait()).code == 0
    lines = said(shim).split()
    assert lines[:2] == [b"40", b"132"]
    assert lines[2] == b"/dev/" + lines[3]  # and it is the one that controls it
    assert not (shim.run_dir / "stderr").read_bytes()


async def test_what_is_typed_arrives_and_is_echoed(stage: Stage) -> None:
    shim = await stage.spawn("bash", "-c", 'read -p "Name? " name; echo "hello $name"', terminal=SIZE)
    await until_said(shim, b"Name? ")
    await shim.write(1, b"Ada\n")
    assert (await shim.wait()).code == 0
    assert said(shim) == b"Name? Ada\r\nhello Ada\r\n"


async def test_a_password_is_not_echoed(stage: Stage) -> None:
    script = 'stty -echo; printf "Password: "; read -r word; stty echo; echo; echo ${#word}'
    shim = await stage.spawn("sh", "-c", script, terminal=SIZE)
    await until_said(shim, b"Password: ")
    await shim.write(1, b"secret\n")
    assert (await shim.wait()).code == 0
    assert b"secret" not in said(shim)
    assert said(shim).endswith(b"6\r\n")


@pytest.mark.parametrize("typed", [b"", b"a line\n", b"half a line"])
async def test_closing_the_input_is_the_end_of_file(stage: Stage, typed: bytes) -> None:
    shim = await stage.spawn("sh", "-c", "wc -c", terminal=SIZE)
    if typed:
        await shim.write(1, typed)
    await shim.write(2 if typed else 1, None)
    assert (await shim.wait()).code == 0
    assert int(re.findall(rb"\d+", said(shim))[-1]) == len(typed)


async def test_ctrl_c_is_a_key(stage: Stage) -> None:
    shim = await stage.spawn(
        "bash",
        "-c",
        "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done",
        terminal=SIZE,
    )
    await until_said(shim, b"ready")
    await shim.write(1, b"\x03")
    assert (await shim.wait()).code == 7
    assert b"caught" in said(shim)


async def test_much_output_through_a_terminal_is_whole(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "stty -onlcr; seq 200000", terminal=SIZE)
    assert (await shim.wait()).code == 0
    assert said(shim).split() == [str(n).encode() for n in range(1, 200001)]


async def test_a_terminal_outlives_the_one_who_asked(stage: Stage) -> None:
    shim = await stage.spawn("bash", "-c", 'read -p "Go? " x; echo "got $x"', terminal=SIZE)
    await until_said(shim, b"Go? ")
    await shim.close()
    found = await attach(shim.run_dir)
    assert isinstance(found, Shim)
    stage.keep(found)
    await found.write(1, b"yes\n")
    assert (await found.wait()).code == 0
    assert said(found).endswith(b"got yes\r\n")


async def test_a_process_that_keeps_the_terminal_open_delays_nothing(stage: Stage, tmp_path: Path) -> None:
    shim = await stage.spawn(
        "bash", "-c", f"setsid sh -c 'trap \"\" TERM HUP; echo $$ > {tmp_path}/pid; sleep 1000' & "
        f"while [ ! -s {tmp_path}/pid ]; do sleep 0.02; done; echo over", terminal=SIZE,
    )  # fmt: skip
    assert (await shim.wait()).code == 0
    assert b"over" in said(shim)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_time_is_up(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "echo begun; exec sleep 1000", time_limit_s=0.5)
    status = await shim.wait()
    assert status.reason == "timed_out"
    assert status.signal == signal.SIGTERM
    assert said(shim) == b"begun\n"


async def test_who_ends_in_time_is_not_timed_out(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "exit 3", time_limit_s=1000)
    status = await shim.wait()
    assert (status.reason, status.code) == ("exited", 3)


async def test_a_run_that_is_ended_is_not_called_timed_out(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "trap '' TERM; echo on; sleep 1000 & wait; wait", time_limit_s=1.0)
    await until_said(shim, b"on")
    await shim.end(2.0)
    assert (await shim.wait()).reason == "killed"


async def test_a_terminal_has_a_size(stage: Stage) -> None:
    with pytest.raises(ValueError, match="rows and columns"):
        await stage.spawn("true", terminal=(0, 80))
