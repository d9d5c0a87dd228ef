"""The end of a run: its record, and that nothing of its tree is left."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon_core.processes import (
    ExitStatus,
    Lost,
    LostError,
    RunPhase,
    Shim,
    attach,
    end_survivors,
    read_state,
    remove_secrets,
    shim_command,
)
from daemon_core.processes.client import encode_spec
from daemon_core.processes.tree import Identity, descendants, identify, is_alive, marked, send

from .conftest import PYTHON, Stage, is_gone, marked_processes, needs_root, until


async def pids_from(shim: Shim, count: int) -> list[int]:
    """The first ``count`` pids that the child prints."""
    path = shim.run_dir / "stdout"
    await until(lambda: len(path.read_text().split()) >= count)
    return [int(word) for word in path.read_text().split()]


async def test_exit_code_and_signal(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "exit 77")
    status = await shim.wait()
    assert (status.code, status.signal, status.reason, status.error) == (77, None, "exited", "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", status.ended_at)
    shim = await stage.spawn("sh", "-c", "kill -SEGV $$")
    status = await shim.wait()
    assert (status.code, status.signal, status.reason) == (None, signal.SIGSEGV, "exited")
    assert await attach(shim.run_dir) == status
    assert read_state(shim.run_dir).exit == status


async def test_a_signal_goes_to_the_whole_group(stage: Stage) -> None:
    code = "trap 'echo got; exit 9' INT; sleep 1000 & echo ready; wait"
    shim = await stage.spawn("sh", "-c", code)
    await shim.watch(5, 0)
    await shim.signal(signal.SIGINT)
    assert (await shim.wait()).code == 9
    assert (shim.run_dir / "stdout").read_text() == "ready\ngot\n"


async def test_end_asks_first(stage: Stage) -> None:
    shim = await stage.spawn(
        "sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    )
    await shim.watch(5, 0)
    await shim.end(20)
    status = await shim.wait()
    assert (status.code, status.reason) == (3, "killed")
    assert (shim.run_dir / "stdout").read_text() == "ready\nbye\n"


async def test_end_kills_one_that_does_not_listen(stage: Stage) -> None:
    shim = await stage.spawn(
        "sh", "-c", "trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 0.02; done"
    )
    (tool,) = await pids_from(shim, 1)
    started = time.monotonic()
    await shim.end(0.3)
    assert (await shim.status()).ending
    status = await shim.wait()
    assert 0.25 < time.monotonic() - started < 5
    assert (status.signal, status.reason) == (signal.SIGKILL, "killed")
    assert is_gone(tool)


async def test_end_with_a_shorter_grace_overtakes(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done")
    await shim.watch(5, 0)
    await shim.end(1000)
    await shim.end(0)
    assert (await asyncio.wait_for(shim.wait(), 5)).reason == "killed"


async def test_end_wakes_one_that_is_stopped(stage: Stage) -> None:
    shim = await stage.spawn("sleep", "1000")
    await shim.signal(signal.SIGSTOP)
    await shim.end(30)
    assert (await asyncio.wait_for(shim.wait(), 5)).signal == signal.SIGTERM


async def test_the_ladder_goes_on_without_the_one_who_asked(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done")
    await shim.watch(5, 0)
    await shim.end(0.2)
    await shim.close()
    await until(lambda: read_state(shim.run_dir).phase is RunPhase.ENDED)


ESCAPES = {
    "own session": "setsid sleep 1000 & echo $!",
    "in the background": "sleep 1000 & echo $!",
    "daemonised": "(setsid sh -c 'sleep 1000 & echo $!; exit' &) ; sleep 0.05",
    "environment cleared": "env -i /usr/bin/setsid /bin/sh -c '/bin/sleep 1000 & echo $!' & wait; sleep 0.05",
    "ignores everything": "(trap '' TERM; setsid sh -c 'echo $$; while :; do sleep 0.05; done' &); sleep 0.1",
}


@pytest.mark.parametrize("use_cgroup", [True, False])
@pytest.mark.parametrize("escape", list(ESCAPES))
async def test_what_the_child_leaves_behind_is_ended(stage: Stage, escape: str, use_cgroup: bool) -> None:
    shim = await stage.spawn("sh", "-c", ESCAPES[escape], use_cgroup=use_cgroup)
    status = await shim.wait()
    (pid,) = await pids_from(shim, 1)
    assert is_gone(pid)
    assert status.swept >= 1
    assert status.error == ""
    assert status.reason == "exited"


async def test_a_marked_process_that_is_no_descendant_is_ended(stage: Stage) -> None:
    """What a service manager, or a terminal multiplexer that ran before, starts on the run's behalf."""
    shim = await stage.spawn("cat")
    environment = {"OSTLER_MARK": stage.specs[0].mark}
    stranger = subprocess.Popen(["/bin/sleep", "1000"], env=environment)  # noqa: ASYNC220
    other = subprocess.Popen(["/bin/sleep", "1000"], env={"OSTLER_MARK": stage.specs[0].mark + "0"})  # noqa: ASYNC220
    await shim.write(1, None)
    await shim.wait()
    assert await asyncio.to_thread(stranger.wait) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


@needs_root
@pytest.mark.root
async def test_the_child_is_in_a_cgroup_of_its_own(stage: Stage) -> None:
    shim = await stage.spawn("cat")
    if shim.info.cgroup is None:
        pytest.skip("no writable cgroup of version 2 here")
    place = Path(shim.info.cgroup)
    assert (place / "cgroup.procs").read_text().split() == [str(shim.info.child_pid)]
    await shim.end(1)
    await shim.wait()
    assert not place.exists()


async def test_zombies_and_orphans_are_buried_meanwhile(stage: Stage) -> None:
    shim = await stage.spawn(
        "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.01 &); done; sleep 0.3; echo x; cat"
    )
    await shim.watch(0, 0)
    children = Path(f"/proc/{shim.info.pid}/task/{shim.info.pid}/children")
    assert children.read_text().split() == [str(shim.info.child_pid)]
    await shim.write(1, None)
    assert (await shim.wait()).swept == 0


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGUSR1]
)
async def test_signals_to_the_shim_change_nothing(stage: Stage, number: int) -> None:
    shim = await stage.spawn("cat")
    os.kill(shim.info.pid, number)
    await shim.write(1, b"still here")
    await shim.watch(0, 0)
    assert is_alive(Identity(shim.info.pid, shim.info.started))
    assert is_alive(Identity(shim.info.child_pid, shim.info.child_started))


async def test_sigterm_to_the_shim_is_the_ladder(stage: Stage) -> None:
    shim = await stage.spawn("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done")
    await shim.watch(5, 0)
    os.kill(shim.info.pid, signal.SIGTERM)
    status = await shim.wait()
    assert (status.code, status.reason) == (6, "killed")


async def test_a_killed_shim_leaves_a_lost_run(stage: Stage) -> None:
    """The parent-death signal ends the child, the mark and the cgroup find the rest."""
    code = "setsid sleep 1000 & echo $!; setsid sh -c 'sleep 1000 & echo $!; wait' & exec sleep 1000"
    shim = await stage.spawn("sh", "-c", code)
    pids = await pids_from(shim, 2)
    watch = asyncio.ensure_future(shim.watch(10**9, 10**9))
    wait = asyncio.ensure_future(shim.wait())
    await shim.status()
    os.kill(shim.info.pid, signal.SIGKILL)
    for waiting in (watch, wait):
        with pytest.raises(LostError):
            await waiting
    with pytest.raises(LostError):
        await shim.write(1, b"x")
    await shim.end(1)
    await shim.signal(15)
    await until(lambda: is_gone(shim.info.child_pid))
    found = await attach(shim.run_dir)
    assert isinstance(found, Lost)
    assert found.info == shim.info
    assert found.mark == stage.specs[0].mark
    killed = await asyncio.to_thread(end_survivors, found.mark, shim.info.cgroup)
    assert set(pids) <= set(killed)
    assert marked_processes(stage.prefix) == []
    assert end_survivors(found.mark, shim.info.cgroup) == []
    assert (shim.run_dir / "spec").exists()
    remove_secrets(shim.run_dir)
    assert not (shim.run_dir / "spec").exists()


async def test_survivors_are_known_by_more_than_their_pid(stage: Stage) -> None:
    sleeper = subprocess.Popen(["/bin/sleep", "1000"], env={"OSTLER_MARK": stage.prefix + "-x"})  # noqa: ASYNC220
    found = identify(sleeper.pid)
    assert found is not None
    await until(lambda: marked(stage.prefix + "-x") == {found})  # in the middle of exec it has no environment
    assert found in descendants(os.getpid())
    assert not send(Identity(found.pid, found.started + 1), signal.SIGKILL)
    assert not is_alive(Identity(found.pid, found.started + 1))
    assert is_alive(found)
    assert end_survivors(stage.prefix, None) == []
    assert end_survivors(stage.prefix + "-x", None) == [sleeper.pid]
    assert identify(sleeper.pid) is None
    assert sleeper.wait() == -signal.SIGKILL
    assert not send(found, signal.SIGKILL)


async def test_a_run_goes_on_without_its_daemon(stage: Stage) -> None:
    starter = """
import asyncio, sys, os
from pathlib import Path
from daemon_core.processes import RunSpec, spawn
base, mark = Path(sys.argv[1]), sys.argv[2]
async def main():
    shim = await spawn(RunSpec(run_dir=base / "orphan", argv=("cat",), cwd=base, env={"PATH": "/usr/bin"},
        mark=mark, socket_dir=base / "run"))
    await shim.write(1, b"before\\n")
    print("up", flush=True)
    await shim.wait()
asyncio.run(main())
"""
    spec = stage.spec("cat", run_dir=stage.base / "orphan")
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", starter, str(stage.base), spec.mark], stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"up\n"
        daemon.kill()
    shim = await attach(spec.run_dir)
    assert isinstance(shim, Shim)
    stage.keep(shim)
    assert (await shim.status()).written == 1
    await shim.write(2, b"after\n")
    await shim.write(3, None)
    assert (await shim.wait()).code == 0
    assert (spec.run_dir / "stdout").read_text() == "before\nafter\n"


def living(uid: int) -> list[int]:
    """The living processes of a user (zombies, which wait for a slow init, do not live)."""
    found = subprocess.run(["pgrep", "-U", str(uid)], stdout=subprocess.PIPE, check=False).stdout.split()
    return [int(pid) for pid in found if identify(int(pid)) is not None]


BOMB = """
import posix
posix.write(1, b"x")
while True:
    try:
        if posix.fork() == 0:
            posix.setsid()
            posix.write(1, b"x")
    except OSError:
        pass
"""


@needs_root
@pytest.mark.root
async def test_a_fork_bomb_in_a_cgroup_loses(stage: Stage) -> None:
    pids = Path("/sys/fs/cgroup/pids")
    if not (pids / "cgroup.procs").exists():
        pytest.skip("no pids controller of version 1 here")
    limited = pids / f"ostler-test-{stage.prefix}"
    limited.mkdir()
    try:
        (limited / "pids.max").write_text("100")
        shim = await stage.spawn(
            "sh", "-c", f"echo $$ > {limited}/cgroup.procs; exec {sys.executable} -I -S -c '{BOMB}'"
        )
        await shim.watch(80, 0)
        await shim.end(0.2)
        status = await asyncio.wait_for(shim.wait(), 30)
        assert status.error == ""
        await until(lambda: (limited / "pids.current").read_text() == "0\n")
    finally:
        limited.rmdir()


@needs_root
@pytest.mark.root
@pytest.mark.xdist_group("nobody")  # the limit counts all processes of an account, so one at a time
@pytest.mark.parametrize("cleared", [False, True])
async def test_a_fork_bomb_of_another_account_loses_without_a_cgroup(stage: Stage, cleared: bool) -> None:
    """Under a limit of processes and with nothing but signals: every place freed is filled again at once."""
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("needs an interpreter that other users may run")
    nobody = 65534
    place = stage.base / "nobody"
    place.mkdir()
    stage.base.chmod(0o711)
    program = place / "shim.py"
    program.write_bytes((Path(shim_command()[-1]).parents[1] / "shim.py").read_bytes())
    run_dir = place / "run"
    run_dir.mkdir()
    prefix = ("/usr/bin/env", "-i") if cleared else ()
    spec = stage.spec(*prefix, str(python), "-I", "-S", "-c", BOMB, run_dir=run_dir)
    (run_dir / "spec.1").write_bytes(encode_spec(spec, str(place / "s.sock")))
    for path in (place, run_dir, run_dir / "spec.1", program):
        os.chown(path, nobody, nobody)
    started = await asyncio.to_thread(
        subprocess.run,
        ["prlimit", "--nproc=60", str(python), "-I", "-S", str(program), str(run_dir), "spec.1"],
        user=nobody,
        group=nobody,
        extra_groups=[],
        cwd="/",
        stdout=subprocess.PIPE,
        check=True,
    )
    assert started.stdout == b"ready\n"
    info = read_state(run_dir).info
    assert info is not None
    assert info.cgroup is None
    await until(lambda: len(living(nobody)) > 40)
    os.kill(info.pid, signal.SIGTERM)
    # A fork that was under way has a child that never saw the SIGTERM: the main one is killed like the rest.
    send(Identity(info.child_pid, info.child_started), signal.SIGKILL)
    await until(lambda: read_state(run_dir).phase is RunPhase.ENDED, 40)
    status = await attach(run_dir)
    assert isinstance(status, ExitStatus)
    assert status.error == ""
    assert status.swept >= 20
    await until(lambda: not living(nobody))


async def test_a_bare_exit_is_quick(stage: Stage) -> None:
    started = time.monotonic()
    for _ in range(5):
        shim = await stage.spawn(*PYTHON, "")
        await shim.wait()
    assert time.monotonic() - started < 5
