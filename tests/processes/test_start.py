"""Starting a run: what becomes of good and bad specs, and that nothing is started twice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon_core.processes import (
    ExitStatus,
    LostError,
    NeverStarted,
    RunPhase,
    Shim,
    SpawnError,
    attach,
    begin_standby,
    read_owner,
    read_state,
    read_stdin_record,
    remove_secrets,
    shim_command,
    spawn,
)

from .conftest import PYTHON, Stage, is_gone, shims_below, until


async def test_run_directory_is_private_and_tells_everything(stage: Stage) -> None:
    shim = await stage.spawn("cat", stdin=b"x", owner={"task_id": "t1"}, env={"SECRET": "s3cret"})
    run_dir = shim.run_dir
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run_dir.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert {"spec", "lock", "shim.json", "owner.json", "stdin", "stdout", "stderr"} <= set(modes)
    assert stat.S_IMODE(Path(shim.info.socket).stat().st_mode) == 0o600
    assert read_owner(run_dir) == {"task_id": "t1", "mark": stage.specs[0].mark}
    info = json.loads((run_dir / "shim.json").read_bytes())
    assert {"pid", "started", "boot_id", "child_pid", "child_started", "socket", "cgroup", "version"} <= set(
        info
    )
    assert info["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert read_state(run_dir).phase is RunPhase.ALIVE


@pytest.mark.parametrize("shim_lives", [True, False])
async def test_what_a_secret_file_added_to_what_was_said_is_gone_too(stage: Stage, shim_lives: bool) -> None:
    """Also where the shim was killed, and whoever finds the run lost clears up."""
    shim = await stage.spawn("sh", "-c", "cat > /dev/null", stdin=b"hello")
    secret = b'[{"name":"key","value":"s3cret"}]'
    (shim.run_dir / "spec.servers.json").write_bytes(secret)
    await shim.write(2, b'{"servers":' + secret + b',"again":' + secret + b"}")
    assert b"s3cret" in (shim.run_dir / "stdin").read_bytes()
    if shim_lives:
        await shim.write(3, None)
        await shim.wait()
    else:
        os.kill(shim.info.pid, signal.SIGKILL)
        os.kill(shim.info.child_pid, signal.SIGKILL)
        remove_secrets(shim.run_dir)
    for path in shim.run_dir.iterdir():
        assert b"s3cret" not in path.read_bytes()
    hidden = b"*" * len(secret)
    said = [record.data for record in read_stdin_record(shim.run_dir)]
    assert said[:2] == [b"hello", b'{"servers":' + hidden + b',"again":' + hidden + b"}"]


async def test_secrets_are_gone_when_the_run_is(stage: Stage) -> None:
    shim = await stage.spawn("cat", stdin=b"", env={"SECRET": "s3cret"})
    assert b"s3cret" in (shim.run_dir / "spec").read_bytes()
    (shim.run_dir / "claim.json").write_text("{}")
    (shim.run_dir / "spec.left-by-a-dead-client").write_text("s3cret")
    await shim.write(2, None)
    await shim.wait()
    names = {path.name for path in shim.run_dir.iterdir()}
    assert names == {"lock", "shim.json", "exit.json", "owner.json", "stdin", "stdout", "stderr"}
    for path in shim.run_dir.iterdir():
        assert b"s3cret" not in path.read_bytes()
    assert not Path(shim.info.socket).exists()


async def test_no_secret_is_in_a_command_line(stage: Stage) -> None:
    shim = await stage.spawn("sleep", "1000", env={"SECRET": "s3cret"})
    for name in ("cmdline", "environ"):
        assert b"s3cret" not in Path(f"/proc/{shim.info.pid}/{name}").read_bytes()


@pytest.mark.parametrize("standing_by", [False, True])
async def test_child_gets_exactly_its_own(stage: Stage, standing_by: bool) -> None:
    code = (
        "import os, json; fds = sorted(map(int, os.listdir('/proc/self/fd')))[:-1];"
        "ignored = [l for l in open('/proc/self/status') if l.startswith('SigIgn')][0].split()[1];"
        "print(json.dumps([dict(os.environ), os.getcwd(), fds, os.getsid(0) == os.getpid(), ignored,"
        " os.umask(0)]))"
    )
    lock = os.open(stage.base / "dirlock", os.O_RDWR | os.O_CREAT)
    run_dir = stage.base / "runs" / "it"
    shim = await stage.spawn(
        sys.executable, "-I", "-c", code,
        run_dir=run_dir,
        env={"A": "ü", "LC_ALL": "C.UTF-8"},
        lock_fds=(lock,),
        standby=begin_standby(run_dir) if standing_by else None,
    )  # fmt: skip
    os.close(lock)
    status = await shim.wait()
    assert status.code == 0, (shim.run_dir / "stderr").read_text()
    environment, cwd, fds, leads, ignored, umask = json.loads((shim.run_dir / "stdout").read_bytes())
    wanted = {**stage.specs[0].env, "OSTLER_MARK": stage.specs[0].mark}
    assert environment == wanted
    assert cwd == str(stage.base)
    assert fds == [0, 1, 2]
    assert leads
    # Python itself ignores SIGPIPE and SIGXFSZ; 32 and 33 are the C library's own, which no program can set
    # (they come ignored from some launchers).
    assert int(ignored, 16) & ~sum(1 << (number - 1) for number in (13, 25, 32, 33)) == 0
    assert umask == _umask()


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


async def test_bare_name_is_found_in_the_childs_path_only(stage: Stage) -> None:
    tools = stage.base / "tools"
    tools.mkdir()
    tool = tools / "my-tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    shim = await stage.spawn("my-tool", env={"PATH": f"relative:{tools}"})
    await shim.wait()
    assert (shim.run_dir / "stdout").read_text() == "found\n"
    with pytest.raises(SpawnError):
        await stage.spawn("my-tool", cwd=tools)


@pytest.mark.parametrize("case", ["missing", "not-executable", "no-program", "cwd", "cwd-file", "too-big"])
async def test_what_cannot_be_executed_says_why(stage: Stage, case: str) -> None:
    plain = stage.base / "plain"
    plain.write_text("echo no\n")
    odd = stage.base / "odd"
    odd.write_bytes(b"\x00\x01\x02")
    odd.chmod(0o755)
    specs = {
        "missing": (stage.spec("/no/such/program"), errno.ENOENT, "exec"),
        "not-executable": (stage.spec(str(plain)), errno.EACCES, "exec"),
        "no-program": (stage.spec(str(odd)), errno.ENOEXEC, "exec"),
        "cwd": (stage.spec("true", cwd=stage.base / "missing"), errno.ENOENT, "chdir"),
        "cwd-file": (stage.spec("true", cwd=plain), errno.ENOTDIR, "chdir"),
        "too-big": (stage.spec("true", "x" * 3_000_000), errno.E2BIG, "exec"),
    }
    spec, number, what = specs[case]
    with pytest.raises(SpawnError) as caught:
        await spawn(spec)
    assert (caught.value.errno, caught.value.what) == (number, what)
    assert caught.value.hint
    assert caught.value.hint in str(caught.value)
    found = await attach(spec.run_dir)
    assert isinstance(found, ExitStatus)
    assert (found.reason, found.code, found.signal) == ("spawn_failed", None, None)
    assert os.strerror(number) in found.error
    assert not (spec.run_dir / "spec").exists()
    # Asked again, the answer is the same, and nothing is tried a second time.
    with pytest.raises(SpawnError):
        await spawn(spec)


async def test_nonsense_is_refused_at_once(stage: Stage) -> None:
    for options in ({"cwd": Path("relative")}, {"env": {"A=B": "x"}}, {"env": {"A": "\0"}}, {"mark": "a/b"}):
        with pytest.raises(ValueError):
            await stage.spawn("true", **options)
    with pytest.raises(ValueError):
        await stage.spawn("a\0b")


async def test_a_directory_that_cannot_be_made_is_a_spawn_error(stage: Stage) -> None:
    (stage.base / "file").write_text("")
    with pytest.raises(SpawnError) as caught:
        await stage.spawn("true", run_dir=stage.base / "file" / "run")
    assert caught.value.what == "prepare"
    assert caught.value.errno == errno.ENOTDIR


async def test_twenty_starts_at_once_start_one(stage: Stage) -> None:
    count = stage.base / "count"
    spec = stage.spec("sh", "-c", f"echo x >> {count}; exec sleep 1000")
    shims = [stage.keep(shim) for shim in await asyncio.gather(*(spawn(spec) for _ in range(20)))]
    assert len({shim.info.pid for shim in shims}) == 1
    await until(lambda: count.exists() and count.read_text())
    await shims[0].end(5)
    assert {(await shim.wait()).reason for shim in shims} == {"killed"}
    assert count.read_text() == "x\n"
    assert [path for path in spec.run_dir.iterdir() if path.name.startswith("spec")] == []


async def test_start_of_one_that_has_ended_gives_its_end(stage: Stage) -> None:
    spec = stage.spec("sh", "-c", "exit 4")
    first = stage.keep(await spawn(spec))
    assert (await first.wait()).code == 4
    again = stage.keep(await spawn(spec))
    assert (await again.wait()).code == 4
    status = await again.status()
    assert status.ended
    assert (await again.watch(10**9, 10**9)).ended


async def test_start_of_one_that_is_lost_is_refused(stage: Stage) -> None:
    spec = stage.spec("sleep", "1000")
    shim = stage.keep(await spawn(spec))
    os.kill(shim.info.pid, 9)
    await until(lambda: read_state(spec.run_dir).phase is RunPhase.LOST)
    with pytest.raises(LostError):
        await spawn(spec)
    await until(lambda: is_gone(shim.info.child_pid))


async def test_attach_tells_what_was_never_started(stage: Stage) -> None:
    run_dir = stage.base / "empty"
    assert isinstance(await attach(run_dir), NeverStarted)
    run_dir.mkdir()
    (run_dir / "owner.json").write_text("{}")
    (run_dir / "spec").write_text("x")
    assert isinstance(await attach(run_dir), NeverStarted)


@pytest.mark.parametrize("standing_by", [False, True])
async def test_directory_lock_is_held_as_long_as_the_run(stage: Stage, standing_by: bool) -> None:
    path = stage.base / "dirlock"
    mine = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    run_dir = stage.base / "runs" / "it"
    standby = begin_standby(run_dir) if standing_by else None
    shim = await stage.spawn("cat", run_dir=run_dir, lock_fds=(mine,), standby=standby)
    os.close(mine)
    other = os.open(path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await shim.write(1, None)
    await shim.wait()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


async def test_long_socket_directory_falls_back_to_a_private_one(stage: Stage) -> None:
    shim = await stage.spawn("cat", socket_dir=stage.base / ("x" * 120))
    folder = Path(shim.info.socket).parent
    assert folder.name == f"ostler-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (await shim.status()).child_pid == shim.info.child_pid


async def test_paths_and_arguments_need_not_be_ascii(stage: Stage) -> None:
    folder = stage.base / "grüße €"
    folder.mkdir()
    shim = await stage.spawn(
        "sh", "-c", 'printf %s "$1"; pwd', "sh", "\udcff€\n", cwd=folder, run_dir=folder / "run"
    )
    await shim.wait()
    assert (shim.run_dir / "stdout").read_bytes() == b"\xff\xe2\x82\xac\n" + os.fsencode(folder) + b"\n"


async def test_the_shim_is_nobodys_child(stage: Stage) -> None:
    shim = await stage.spawn("sleep", "1000")
    fields = Path(f"/proc/{shim.info.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()
    assert int(fields[3]) != os.getsid(0)
    # The process that was launched has been reaped; nothing is left to wait for.
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222


STARTER = """
import asyncio, sys
from pathlib import Path
from daemon_core.processes import RunSpec, spawn
base, run_dir, mark = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
spec = RunSpec(run_dir=run_dir, argv=("sh", "-c", f"echo x >> {run_dir}/count; exec cat"), cwd=base,
    env={"PATH": "/usr/bin:/bin"}, mark=mark, socket_dir=base / "run", stdin=b"first\\n")
print("go", flush=True)
asyncio.run(spawn(spec))
print("done", flush=True)
"""


async def test_killing_the_one_who_starts_never_starts_twice(stage: Stage) -> None:
    chance = random.Random(7)
    for _ in range(12):
        spec = stage.spec("sh", "-c", "")
        count = spec.run_dir / "count"
        command = [sys.executable, "-c", STARTER, str(stage.base), str(spec.run_dir), spec.mark]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as starter:  # noqa: ASYNC220
            assert starter.stdout is not None
            assert starter.stdout.readline() == b"go\n"
            time.sleep(chance.uniform(0, 0.03))  # the point at which it dies
            starter.kill()
        # Another process goes on with the same run, whatever had been done.
        answer = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True)
        assert answer.stdout == b"go\ndone\n"
        shim = await attach(spec.run_dir)
        assert isinstance(shim, Shim)
        stage.keep(shim)
        await shim.write(2, None)
        assert (await shim.wait()).code == 0
        assert count.read_text() == "x\n"
        assert (spec.run_dir / "stdout").read_text() == "first\n"
        assert [path for path in spec.run_dir.iterdir() if path.name.startswith("spec")] == []


async def test_a_cancelled_start_can_be_asked_for_again(stage: Stage) -> None:
    chance = random.Random(3)
    path = stage.base / "dirlock"
    for number in range(10):
        run_dir = stage.base / "runs" / str(number)
        standby = begin_standby(run_dir) if number % 2 else None
        lock = os.open(path, os.O_RDWR | os.O_CREAT)
        spec = stage.spec("cat", run_dir=run_dir, lock_fds=(lock,), standby=standby)
        start = asyncio.ensure_future(spawn(spec))
        await asyncio.sleep(chance.uniform(0, 0.02))
        start.cancel()
        await asyncio.wait([start])
        if not start.cancelled():
            stage.keep(start.result())
        shim = stage.keep(await spawn(spec))
        await shim.write(1, None)
        assert (await shim.wait()).code == 0
        os.close(spec.lock_fds[0])


def _kill(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.parametrize("ended", ["closed", "killed", "of another run"])
async def test_a_shim_that_stood_by_in_vain_leaves_nothing_and_costs_nothing(
    stage: Stage, ended: str
) -> None:
    run_dir = stage.base / "runs" / "it"
    standby = begin_standby(stage.base / "other" if ended == "of another run" else run_dir)
    assert standby is not None
    if ended == "closed":
        standby.close()
    elif ended == "killed":
        await until(lambda: shims_below(run_dir))
        # While it leaves its parent behind there are two of them.
        await until(lambda: not [_kill(pid) for pid in shims_below(run_dir)])
    shim = await stage.spawn("cat", run_dir=run_dir, stdin=b"x", close_stdin=True, standby=standby)
    assert (await shim.wait()).code == 0
    assert (run_dir / "stdout").read_bytes() == b"x"
    standby.close()


async def test_a_shim_that_stands_by_goes_with_whoever_has_begun_it(stage: Stage) -> None:
    code = (
        "import pathlib, os, signal, sys\n"
        "from daemon_core.processes import begin_standby\n"
        "kept = begin_standby(pathlib.Path(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run_dir = stage.base / "runs" / "it"
    command = [sys.executable, "-c", code, str(run_dir)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    await until(lambda: not [pid for pid in shims_below(run_dir) if not is_gone(pid)])
    assert not run_dir.exists()


async def test_the_shim_runs_from_byte_code(stage: Stage) -> None:
    assert shim_command()[-1].endswith(".pyc")
    assert shim_command()[1:3] == ["-I", "-S"]
    shim = await stage.spawn(*PYTHON, "print(1)")
    assert (await shim.wait()).code == 0


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"pid": "\xff"}', b"null", b"[]", b'{"pid": 1'])
def test_records_that_are_damaged_are_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    for name in ("shim.json", "exit.json", "owner.json"):
        (tmp_path / name).write_bytes(content)
    assert read_state(tmp_path).phase is RunPhase.LOST
    assert read_owner(tmp_path) == {}
