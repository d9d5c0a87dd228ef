"""``ostler daemon``: with a daemon in memory, with a hung one, and with the real one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon_core.control.views import Barrier, TaskAdd
from daemon_core.settings import lock
from tests.cli.conftest import Ostler, end, interrupt
from tests.control.memory_backend import NOW, MemoryBackend

HUNG = """
import pathlib, socket, sys, time
from daemon_core.settings.lock import DaemonLock
held = DaemonLock.acquire(pathlib.Path(sys.argv[1]))
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
print("hung", flush=True)
time.sleep(600)
"""


async def test_status_of_none_is_stopped(ostler: Ostler) -> None:
    done = await ostler("daemon", "status", "--json")
    assert done.code == 3
    assert done.document["status"] == "stopped"
    done = await ostler("daemon", "status")
    assert (done.code, done.out) == (3, "")
    assert done.err == "Ostler's daemon is not running. Start it with `ostler daemon start`.\n"


@pytest.mark.usefixtures("backend")
async def test_status_tells_people_and_scripts(ostler: Ostler) -> None:
    done = await ostler("daemon", "status")
    assert done.code == 0
    assert f"Running for 1 min 1 s (pid {os.getpid()}, version 9.9.9, port 21514).\n" in done.out
    assert "0 of 8 slots in use" in done.out
    document = (await ostler("daemon", "status", "--json")).document
    assert (document["status"], document["slots"], document["barrier"]) == ("running", 8, None)


async def test_pause_and_resume(ostler: Ostler, backend: MemoryBackend) -> None:
    assert (await ostler("daemon", "pause")).out.startswith(
        "Paused until `ostler daemon resume`: no new tasks"
    )
    assert backend.barrier == Barrier(since=NOW)
    assert (await ostler("daemon", "pause", "--for", "1h", "--json")).document["barrier"]["until"]
    assert (await ostler("daemon", "pause", "--until", "2999-01-01T00:00:00Z")).code == 0
    assert backend.barrier == Barrier(since=NOW, until="2999-01-01T00:00:00.000Z")
    assert "Paused until 2999-01-01" in (await ostler("daemon", "status")).out
    assert (await ostler("daemon", "resume")).out == "Tasks are taken again.\n"
    assert (await ostler("daemon", "status", "--json")).document["barrier"] is None
    for wrong in (
        ["--for", "1"],
        ["--for", "soon"],
        ["--until", "2001-01-01"],
        ["--until", "x"],
        ["--for", "1h", "--until", "18:00"],
    ):
        done = await ostler("daemon", "pause", *wrong)
        assert done.code == (0 if wrong == ["--for", "1"] else 2), wrong


async def test_stop_says_what_goes_on(ostler: Ostler, backend: MemoryBackend) -> None:
    for _ in range(2):
        await backend.add_task(TaskAdd(prompt="x"))
    done = await ostler("daemon", "stop")
    assert done.code == 0
    assert done.out == "Ostler's daemon has stopped. 2 runs go on without the daemon.\n"
    done = await ostler("daemon", "stop")
    assert (done.code, done.out) == (0, "Ostler's daemon is not running.\n")


async def test_stop_waits_for_the_lock(ostler: Ostler, backend: MemoryBackend) -> None:
    done = await ostler("daemon", "stop", "--runs", "--json")
    assert done.document["was_running"] is True
    assert done.document["runs_alive"] == 0
    assert not lock.held(ostler.directories.lock_file)


@pytest.mark.usefixtures("backend")
async def test_a_second_daemon_is_a_conflict_and_a_second_start_is_none(ostler: Ostler) -> None:
    done = await ostler("daemon", "run")
    assert done.code == 6
    assert (
        done.err == f"Ostler's daemon is already running (pid {os.getpid()}). See `ostler daemon status`.\n"
    )
    done = await ostler("daemon", "start")
    assert (done.code, done.out) == (
        0,
        f"Ostler's daemon is already running (pid {os.getpid()}), with 2 runtimes.\n",
    )


@pytest.fixture
def hung(ostler: Ostler) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the daemon's lock and socket that never answers."""
    directories = ostler.directories
    directories.ensure()
    arguments = [sys.executable, "-c", HUNG, str(directories.lock_file), str(directories.control_socket)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_a_hung_daemon_is_told_and_can_be_ended(ostler: Ostler, hung: subprocess.Popen[bytes]) -> None:
    done = await ostler("daemon", "status", "--json")
    assert done.code == 3
    assert done.document["status"] == "starting"
    assert done.document["pid"] == hung.pid
    assert done.document["conditions"][0]["code"] == "daemon_not_answering"
    done = await ostler("daemon", "stop")
    assert done.code == 1
    assert "does not stop" in done.err
    assert "--force" in done.err
    done = await ostler("daemon", "stop", "--force")
    assert (done.code, done.out) == (0, "Ostler's daemon has stopped.\n")
    assert await asyncio.to_thread(hung.wait) == -signal.SIGKILL


async def test_a_setting_with_a_mistake_is_told_before_anything_starts(ostler: Ostler) -> None:
    ostler.directories.ensure()
    ostler.directories.config_file.write_text("[daemon]\nslots = many\n")
    done = await ostler("daemon", "start")
    assert done.code == 2
    file = ostler.directories.config_file
    assert done.err.startswith(f"{file}:2: ")
    assert not lock.held(ostler.directories.lock_file)


async def test_logs_without_a_daemon(ostler: Ostler) -> None:
    done = await ostler("daemon", "logs")
    assert (done.code, "There is no log yet" in done.err) == (0, True)
    log = ostler.directories.log_file
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\x1b]0;a title\x07\nthree\n")  # what a server said does not reach the terminal
    assert (await ostler("daemon", "logs", "-n", "2")).out == "two\nthree\n"
    process = await ostler.begin("daemon", "logs", "-f", "-n", "1")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"three\n"
    with log.open("a") as more:
        more.write("four\n")
    # Lines come out as they are written, also into a pipe.
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"four\n"
    assert (await interrupt(process)).code == 130


# --- the real daemon -------------------------------------------------------------------------------


@pytest.fixture
async def real(ostler: Ostler) -> AsyncIterator[Ostler]:
    pytest.importorskip("daemon_core.app")
    # No agent of this machine: the shell runtime is all that these tests need.
    ostler.environ = {"PATH": "/usr/bin:/bin", "OSTLER_DISCOVERY_LOGIN_SHELL": "false"}
    yield ostler
    await ostler("daemon", "stop", "--runs", "--force")


async def test_start_returns_when_the_daemon_runs_and_stop_when_it_has_gone(real: Ostler) -> None:
    # A run that cannot be read keeps nobody from starting.
    (real.home / "state" / "runs" / ("0" * 32) / "exit.json").mkdir(parents=True)
    done = await real("daemon", "start", "--json")
    assert done.code == 0, done.err + done.out
    assert done.document["status"] == "running"
    pid = done.document["pid"]
    assert (await real("daemon", "start", "--json")).document["pid"] == pid
    done = await real("daemon", "restart", "--json")
    assert done.document["pid"] != pid
    assert (await real("daemon", "status")).code == 0
    assert (await real("daemon", "stop")).out == "Ostler's daemon has stopped.\n"
    assert not lock.held(real.directories.lock_file)
    assert (await real("daemon", "status")).code == 3


async def test_a_home_that_is_not_absolute_is_the_same_for_the_daemon(real: Ostler) -> None:
    real.environ["OSTLER_HOME"] = os.path.relpath(real.home)
    done = await real("daemon", "start")
    assert done.code == 0, done.err
    assert lock.held(real.directories.lock_file)


async def test_what_a_new_task_waits_for_is_said_at_once(real: Ostler) -> None:
    await real("daemon", "start")
    await real("daemon", "pause")
    done = await real("task", "add", "echo one", "--runtime", "shell")
    assert done.code == 0
    assert done.err.endswith("Taking tasks is paused. `ostler daemon resume` goes on.\n")
    done = await real("task", "add", "echo two", "--runtime", "shell", "--wait", "--timeout", "0.5")
    assert (done.code, done.out) == (124, "")
    assert done.err.startswith("Taking tasks is paused. `ostler daemon resume` goes on.\n")


async def test_a_daemon_that_cannot_start_says_why(real: Ostler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        real.environ["OSTLER_DAEMON_PORT"] = str(port)
        done = await real("daemon", "start")
    assert done.code not in (0, 3)
    assert str(port) in done.err
    assert not lock.held(real.directories.lock_file)


@pytest.mark.parametrize("name", ["data/hub.db", "state/daemon.id", "run/control.token"])
async def test_a_file_that_is_in_the_way_of_a_start_is_named_with_what_to_do(real: Ostler, name: str) -> None:
    (real.home / name).mkdir(parents=True)
    done = await real("daemon", "start")
    assert done.code == 1
    assert name.rpartition("/")[2] in done.err
    assert "Is a directory" in done.err
    assert "Check the disk and its permissions, then start again" in done.err


async def test_run_stays_in_the_foreground_and_ends_in_order(real: Ostler) -> None:
    process = await real.begin("daemon", "run")
    async with asyncio.timeout(30):
        while (await real("daemon", "status", "--json")).document["status"] != "running":
            pass  # each look is a process of its own
    status = (await real("daemon", "status", "--json")).document
    assert status["pid"] == process.pid, "no process in between: a supervisor's signals reach the daemon"
    process.terminate()
    done = await end(process)
    assert done.code == 0
    assert not Path(real.directories.control_socket).exists()
