"""Residents under the real daemon: real processes, real files, and deaths of every kind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, wait_gone, wait_until

SERVE = """\
import os, signal, sys, time
print("up", os.getpid(), os.environ.get("GREETING", ""), flush=True)
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
while True:
    signal.pause()
"""


class Residents:
    """The residents of a home, by its control API."""

    def __init__(self, home: OstlerHome) -> None:
        self.home = home
        self.work = home.root / "work"
        self.work.mkdir(exist_ok=True)
        home.directories.resident_files.mkdir(parents=True, exist_ok=True)
        (self.work / "serve.py").write_text(SERVE)

    def describe(self, ident: str, command: list[str] | None = None, more: str = "") -> Path:
        """Write a resident's file."""
        argv = command or [sys.executable, "-S", "serve.py"]
        path = self.home.directories.resident_files / f"{ident}.yaml"
        path.write_text(
            f"# {ident}\nid: {ident}\ncommand: {msgspec.json.encode(argv).decode()}\n"
            f"directory: {self.work}\n{more}"
        )
        return path

    def call(self, ident: str, what: str, body: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = self.home.call("POST", f"/v1/residents/{ident}/{what}", body or {})
        return found

    def get(self, ident: str) -> dict[str, Any]:
        found: dict[str, Any] = self.home.call("GET", f"/v1/residents/{ident}")
        return found

    def wait(self, ident: str, state: str, reason: str = "") -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            found = self.get(ident)
            right = found["state"] == state and (not reason or found["reason"] == reason)
            return found if right else None

        found: dict[str, Any] = wait_until(reached, f"{ident} to be {state} {reason}", 20)
        return found

    def log(self, ident: str, tail: int = 200) -> list[str]:
        return [
            msgspec.json.decode(line)["text"]
            for line in self.home.client.lines(f"/v1/residents/{ident}/log?tail={tail}")
            if line
        ]

    def wait_log(self, ident: str, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.log(ident)), f"{text!r} in the log", 20)

    def stats(self, ident: str) -> dict[str, Any]:
        found: dict[str, Any] = self.home.call("GET", f"/v1/residents/{ident}/stats")
        return found

    def processes(self, part: str) -> list[int]:
        """Living processes of this home with this in their command line."""
        return [
            pid
            for pid in self.home.processes()
            if part in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        ]


@pytest.fixture
def residents(home: OstlerHome) -> Residents:
    return Residents(home)


def ups(lines: list[str]) -> list[int]:
    """Process ids of all starts, as they told."""
    return [int(line.split()[1]) for line in lines if line.startswith("up ")]


def test_enabled_ones_start_with_the_daemon_and_live_through_it(residents: Residents) -> None:
    home = residents.home
    residents.describe("one")
    residents.describe("idle", more="enabled: false\n")
    home.start()
    first = residents.wait("one", "running")
    assert residents.get("idle")["state"] == "stopped"
    residents.wait_log("one", "up ")
    home.kill()
    home.start()
    assert residents.wait("one", "running")["pid"] == first["pid"]
    home.stop()
    home.start()
    assert residents.wait("one", "running")["pid"] == first["pid"]
    assert ups(residents.log("one")) == [first["pid"]]
    snapshot = home.call("GET", "/v1/snapshot")["residents"]
    assert {entry["id"]: entry["state"] for entry in snapshot} == {"one": "running", "idle": "stopped"}


def test_stop_is_gentle_and_holds_over_a_restart_of_the_daemon(residents: Residents) -> None:
    home = residents.home
    residents.describe("one")
    home.start()
    pid = residents.wait("one", "running")["pid"]
    residents.wait_log("one", "up ")
    assert residents.call("one", "stop")["state"] == "stopped"
    wait_gone(pid)
    assert residents.log("one")[-1] == "bye"
    home.kill()
    home.start()
    assert residents.get("one")["state"] == "stopped"
    again = residents.call("one", "start")
    assert again["state"] == "running"
    assert again["pid"] != pid


def test_one_that_ignores_the_request_is_ended_firmly(residents: Residents) -> None:
    code = (
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(999)"
    )
    residents.describe("deaf", [sys.executable, "-S", "-c", code], "stop:\n  grace: 300ms\n")
    residents.home.start()
    pid = residents.wait("deaf", "running")["pid"]
    residents.wait_log("deaf", "deaf")
    assert residents.call("deaf", "stop")["state"] == "stopped"
    wait_gone(pid)
    assert residents.get("deaf")["signal"] == signal.SIGKILL


def test_a_kill_waits_for_nobody(residents: Residents) -> None:
    code = (
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(999)"
    )
    residents.describe("deaf", [sys.executable, "-S", "-c", code], "stop:\n  grace: 10m\n")
    residents.home.start()
    residents.wait("deaf", "running")
    residents.wait_log("deaf", "deaf")
    stopping = threading.Thread(target=residents.call, args=("deaf", "stop"))
    stopping.start()
    residents.wait("deaf", "stopping")
    assert residents.call("deaf", "kill")["state"] == "stopped"
    stopping.join(20)
    assert not stopping.is_alive()


def test_one_that_crashes_at_once_is_given_up_and_said(residents: Residents) -> None:
    more = "restart:\n  policy: on-failure\n  from: 10ms\n  to: 40ms\n  give_up_after: 4\n  within: 1m\n"
    residents.describe("bad", ["/bin/sh", "-c", "echo start; exit 3"], more)
    residents.home.start()
    found = residents.wait("bad", "gave_up")
    assert (found["reason"], found["exit_code"], found["restarts"]) == ("exited", 3, 3)
    assert residents.log("bad") == ["start"] * 4
    (condition,) = [
        each for each in residents.home.status()["conditions"] if each["code"] == "resident_gave_up"
    ]
    assert condition["params"]["id"] == "bad"
    # It stays so over a restart, and a person can try again.
    residents.home.kill()
    residents.home.start()
    assert residents.get("bad")["state"] == "gave_up"
    residents.describe("bad", ["/bin/sh", "-c", "echo well; sleep 999"], more)
    assert residents.call("bad", "start")["state"] == "running"
    assert not [each for each in residents.home.status()["conditions"] if each["code"] == "resident_gave_up"]


def test_killed_from_outside_it_comes_back(residents: Residents) -> None:
    residents.describe("one", more="restart: {policy: always, from: 10ms}\n")
    residents.home.start()
    first = residents.wait("one", "running")["pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: residents.get("one")["pid"] not in (None, first), "a second one")
    assert residents.wait("one", "running")["restarts"] == 1


@pytest.mark.parametrize("also_daemon", [False, True])
def test_its_shim_is_killed(residents: Residents, also_daemon: bool) -> None:
    home = residents.home
    code = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '987'], start_new_session=True)\n"
    code += "print('up', 0, flush=True)\ntime.sleep(999)"
    residents.describe("one", [sys.executable, "-S", "-c", code], "restart: {policy: always, from: 10ms}\n")
    home.start()
    first = residents.wait("one", "running")
    residents.wait_log("one", "up")
    shim = msgspec.json.decode((Path(first["log_path"]).parent / "shim.json").read_bytes())
    if also_daemon:
        home.kill()
    os.kill(shim["pid"], signal.SIGKILL)
    if also_daemon:
        home.start()
    wait_until(lambda: residents.get("one")["pid"] not in (None, first["pid"]), "a second one")
    wait_gone(first["pid"])
    wait_until(lambda: len(residents.processes("sleep 987")) == 1, "the rest of the first to be ended")


def test_a_wrapper_and_what_it_wraps_are_one_instance(residents: Residents) -> None:
    wrapper = residents.work / "wrapper"
    wrapper.write_text(f"#!/bin/sh\n{sys.executable} -S serve.py & wait\n")
    wrapper.chmod(0o755)
    residents.describe("wrapped", ["./wrapper"])
    residents.home.start()
    residents.wait("wrapped", "running")
    residents.wait_log("wrapped", "up ")
    found = residents.stats("wrapped")
    assert (found["instances"], found["processes"]) == (1, 2)
    assert found["memory"] > 1_000_000
    assert found["uptime"] > 0
    assert found["log_bytes"] > 0
    (inner,) = ups(residents.log("wrapped"))
    assert residents.call("wrapped", "stop")["state"] == "stopped"
    wait_gone(inner)


def test_one_that_goes_to_the_background_is_told_of(residents: Residents) -> None:
    code = (
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(999)"
    )
    residents.describe("shy", [sys.executable, "-S", "-c", code])
    residents.home.start()
    found = residents.wait("shy", "gave_up", "background")
    assert found["reason_params"]["processes"] >= 1
    wait_until(lambda: not residents.processes("time.sleep(999)"), "it to be gone")


@pytest.fixture
def stray(residents: Residents) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the resident's command without Ostler."""
    made: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        made.append(
            subprocess.Popen(
                [sys.executable, "-S", "serve.py"],
                cwd=residents.work,
                env=residents.home.environ,
                stdout=subprocess.DEVNULL,
            )
        )
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()


def test_one_that_runs_already_is_not_started_twice(
    residents: Residents, stray: Callable[[], subprocess.Popen[bytes]]
) -> None:
    residents.describe("one")
    process = stray()
    residents.home.start()
    found = residents.wait("one", "starting", "outside")
    assert found["reason_params"]["pid"] == process.pid
    with pytest.raises(ControlError) as refused:
        residents.call("one", "start")
    assert refused.value.code == "resident_outside"
    # It is told of the end, and takes over.
    process.terminate()
    process.wait()
    assert residents.wait("one", "running")["pid"] != process.pid


def test_one_that_runs_already_is_adopted(
    residents: Residents, stray: Callable[[], subprocess.Popen[bytes]]
) -> None:
    residents.describe("one", more="enabled: false\nrestart: always\n")
    residents.home.start()
    process = stray()
    threading.Thread(target=process.wait).start()  # else it stays as a zombie
    found = residents.call("one", "start", {"adopt": True})
    assert (found["state"], found["pid"], found["adopted"]) == ("running", process.pid, True)
    assert residents.stats("one")["instances"] == 1
    residents.home.kill()
    residents.home.start()
    assert residents.wait("one", "running")["pid"] == process.pid
    assert residents.call("one", "stop")["state"] == "stopped"
    wait_gone(process.pid)


def test_two_daemons_never_run_one_twice(residents: Residents, tmp_path: Path) -> None:
    home = residents.home
    residents.describe("one")
    home.start()
    residents.wait("one", "running")
    other = OstlerHome(tmp_path / "other", environ={"HOME": str(home.user_home)})
    try:
        theirs = Residents(other)
        theirs.describe("one")
        other.start()
        found = theirs.wait("one", "waiting", "elsewhere")
        assert str(home.directories.state) in found["reason_params"]["holder"]
        with pytest.raises(ControlError) as refused:
            theirs.call("one", "start")
        assert refused.value.code == "resident_elsewhere"
        # Also while the one that started it is dead.
        home.kill()
        with pytest.raises(ControlError):
            theirs.call("one", "start")
        home.start()
        residents.call("one", "stop")
        assert theirs.call("one", "start")["state"] == "running"
    finally:
        other.close()


@pytest.mark.parametrize("place", ["resident_recorded", "resident_spawned"])
def test_the_daemon_dies_in_the_middle_of_a_start(residents: Residents, place: str) -> None:
    home = residents.home
    residents.describe("one")
    home.launch(kill_at=place)
    home.wait_dead()
    home.start()
    found = residents.wait("one", "running")
    residents.wait_log("one", "up ")
    assert ups(residents.log("one")) == [found["pid"]]
    assert len(residents.processes("serve.py")) == 1


def test_the_daemon_dies_in_the_middle_of_a_stop(residents: Residents) -> None:
    code = (
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(999)"
    )
    residents.describe("deaf", [sys.executable, "-S", "-c", code], "stop: {grace: 1s}\n")
    home = residents.home
    home.start()
    residents.wait_log("deaf", "deaf")

    def stop() -> None:
        with contextlib.suppress(DaemonUnreachableError):  # it dies meanwhile
            residents.call("deaf", "stop")

    stopping = threading.Thread(target=stop)
    stopping.start()
    record = home.directories.residents / "deaf" / "resident.json"
    wait_until(lambda: b'"stopping"' in record.read_bytes(), "the wish to be on disk")
    home.kill()
    stopping.join(20)
    home.start()
    residents.wait("deaf", "stopped")
    assert not residents.processes("time.sleep(999)")


def test_a_damaged_record_is_repaired(residents: Residents) -> None:
    home = residents.home
    residents.describe("one")
    home.start()
    pid = residents.wait("one", "running")["pid"]
    home.kill()
    (home.directories.residents / "one" / "resident.json").write_text("{")
    home.start()
    assert residents.wait("one", "running")["pid"] == pid
    home.kill()
    (home.directories.residents / "one" / "resident.json").unlink()
    home.start()
    assert residents.wait("one", "running")["pid"] == pid
    assert len(residents.processes("serve.py")) == 1


def test_stop_with_runs_takes_them_along_and_back(residents: Residents) -> None:
    home = residents.home
    residents.describe("one", more="enabled: false\n")
    home.start()
    pid = residents.call("one", "start")["pid"]
    home.stop(runs=True)
    wait_gone(pid)
    home.start()
    assert residents.wait("one", "running")["pid"] != pid


def test_files_with_mistakes_are_told_and_the_others_load(residents: Residents) -> None:
    home = residents.home
    residents.describe("good")
    bad = home.directories.resident_files / "bad.yaml"
    bad.write_text("id: bad\ncommand: [sleep, '9']\ndirectory: /tmp\nrestart:\n  policy: sometimes\n")
    home.start()
    found = {entry["id"]: entry for entry in home.call("GET", "/v1/residents")}
    assert found["good"]["state"] in ("starting", "running")
    assert found["file:bad.yaml"]["state"] == "invalid"
    assert found["file:bad.yaml"]["reason_params"]["line"] == 5
    assert "resident_invalid" in [each["code"] for each in home.status()["conditions"]]
    # Looked at again when somebody asks.
    bad.write_text("id: bad\ncommand: [sleep, '999']\ndirectory: /tmp\n")
    found = {entry["id"]: entry for entry in home.call("GET", "/v1/residents")}
    assert found["bad"]["state"] == "stopped"
    assert "resident_invalid" not in [each["code"] for each in home.status()["conditions"]]


def test_enable_and_disable_change_one_value(residents: Residents) -> None:
    path = residents.describe("one", more="enabled: true   # as I like it\n# the end\n")
    residents.home.start()
    residents.wait("one", "running")
    before = path.read_text()
    found = residents.call("one", "disable")
    assert (found["enabled"], found["state"]) == (False, "running")
    assert path.read_text() == before.replace("enabled: true ", "enabled: false ")
    assert residents.call("one", "enable")["enabled"] is True
    assert path.read_text() == before


def test_the_environment_file_wins(residents: Residents) -> None:
    (residents.work / ".env").write_text("GREETING='hello there'\nexport OSTLER_PROFILE=mine\n")
    residents.describe("one", more="env_file: .env\n")
    residents.home.start(GREETING="inherited")
    residents.wait_log("one", "hello there")


def test_the_build_runs_when_something_changed(residents: Residents) -> None:
    home = residents.home
    (residents.work / "source").write_text("1")
    residents.describe(
        "one", more="build:\n  command: [sh, -c, 'echo built $(cat source)']\n  inputs: source\n"
    )
    home.start()
    residents.wait("one", "running")
    residents.wait_log("one", "up ")
    residents.call("one", "restart")
    residents.wait("one", "running")
    wait_until(lambda: len(ups(residents.log("one"))) == 2, "a second start")
    assert [line for line in residents.log("one") if line.startswith("built")] == ["built 1"]
    (residents.work / "source").write_text("22")
    residents.call("one", "restart")
    wait_until(lambda: len(ups(residents.log("one"))) == 3, "a third start")
    residents.call("one", "restart", {"build": True})
    wait_until(lambda: len(ups(residents.log("one"))) == 4, "a fourth start")
    built = [line for line in residents.log("one") if line.startswith("built")]
    assert built == ["built 1", "built 22", "built 22"]
    residents.describe("one", more="build: [sh, -c, 'echo broken; exit 1']\n")
    residents.call("one", "restart")
    assert residents.wait("one", "gave_up", "build_failed")["reason_params"]["exit_code"] == 1


def test_a_log_is_followed_over_files_and_starts(residents: Residents) -> None:
    code = (
        "import sys\nfor i in range(6000):\n    print(i, 'x' * 20)\n    i % 50 or sys.stdout.flush()\n"
        "sys.stdout.flush()\nsys.exit(1)"
    )
    more = "restart: {from: 300ms, give_up_after: 3}\nlog: {size: 40000B, files: 4}\nenabled: false\n"
    residents.describe("loud", [sys.executable, "-S", "-c", code], more)
    residents.home.start()
    found: list[str] = []
    done = threading.Event()

    def follow() -> None:
        for raw in residents.home.client.lines("/v1/residents/loud/log?tail=0&follow=1"):
            if raw:
                found.append(msgspec.json.decode(raw)["text"])
                if len(found) >= 18_000:
                    break
        done.set()

    reader = threading.Thread(target=follow)
    reader.start()
    residents.call("loud", "start")
    residents.wait("loud", "gave_up")
    assert done.wait(20), len(found)
    reader.join()
    assert [int(line.split()[0]) for line in found] == [*range(6000)] * 3
    # What is kept is bounded.
    kept = sum(
        path.stat().st_size for path in (residents.home.directories.residents / "loud").rglob("stdout*")
    )
    assert kept <= 4 * (40_000 + 65_536) * 2
    assert residents.log("loud", 3) == [f"{i} {'x' * 20}" for i in (5997, 5998, 5999)]


def test_all_at_once(residents: Residents) -> None:
    residents.describe("a", more="enabled: false\n")
    for ident in ("b", "c"):
        (residents.work / ident).mkdir()
        residents.describe(ident, more=f"directory: {residents.work}/{ident}\n")
        path = residents.home.directories.resident_files / f"{ident}.yaml"
        path.write_text(
            re.sub(r"directory: \S+/work\n", "", path.read_text()).replace(
                "serve.py", f"{residents.work}/serve.py"
            )
        )
    home = residents.home
    home.start()
    for ident in ("b", "c"):
        residents.wait(ident, "running")
        residents.wait_log(ident, "up ")
    stopped = home.call("POST", "/v1/residents/stop", {})
    assert {entry["state"] for entry in stopped["residents"]} == {"stopped"}
    started = home.call("POST", "/v1/residents/start", {})
    assert {entry["id"]: entry["state"] for entry in started["residents"]} == {
        "a": "stopped",
        "b": "running",
        "c": "running",
    }
    wait_until(lambda: len(ups(residents.log("b"))) == 2 and len(ups(residents.log("c"))) == 2, "both logs")
    found = home.call("GET", "/v1/resident-stats")
    assert found["total"]["processes"] == 2
    assert found["total"]["memory"] == sum(each["memory"] for each in found["residents"])
    lines = [msgspec.json.decode(line) for line in home.client.lines("/v1/resident-log") if line]
    assert {line["resident"] for line in lines} == {"b", "c"}


def test_clearing_is_careful(residents: Residents) -> None:
    work = residents.work
    (work / "memory" / "deep").mkdir(parents=True)
    (work / "memory" / "deep" / "file").write_text("x" * 1000)
    (work / "keep").mkdir()
    (work / "keep" / "file").write_text("kept")
    (work / "memory" / "link").symlink_to(work / "keep")
    residents.describe("one", more="memory: memory\ncache: [memory, ../keep]\n")
    residents.home.start()
    residents.wait("one", "running")
    with pytest.raises(ControlError) as refused:
        residents.call("one", "clear", {"memory": True})
    assert refused.value.code == "resident_at_work"
    residents.call("one", "stop")
    with pytest.raises(ControlError) as refused:
        residents.call("one", "clear", {"cache": True})
    assert refused.value.params["why"] == "outside"
    assert (work / "memory" / "deep" / "file").exists()
    done = residents.call("one", "clear", {"memory": True})
    assert done["paths"] == [str(work / "memory")]
    assert done["freed_bytes"] >= 1000
    assert list((work / "memory").iterdir()) == []
    assert (work / "keep" / "file").read_text() == "kept"


def test_nothing_starts_while_an_update_waits(residents: Residents) -> None:
    """The user's pause, which holds claims back, does not hold residents."""
    residents.describe("one", more="enabled: false\n")
    residents.home.start()
    residents.home.call("POST", "/v1/daemon/pause", {})
    assert residents.call("one", "start")["state"] == "running"


def test_changes_are_told(residents: Residents) -> None:
    residents.describe("one", more="enabled: false\n")
    residents.home.start()
    revision = residents.home.call("GET", "/v1/snapshot")["revision"]
    residents.call("one", "start")
    states = []
    for raw in residents.home.client.lines(f"/v1/events?since={revision}"):
        if raw.startswith(b"data: "):
            event = msgspec.json.decode(raw[6:])
            if event["kind"] == "resident":
                states.append(event["data"]["state"])
                if states[-1] == "running":
                    break
    assert states[-1] == "running"


def test_by_command_and_not_from_inside(residents: Residents) -> None:
    home = residents.home
    residents.describe("one", more="enabled: false\n")
    home.start()

    def ostler(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "daemon_core.cli", *arguments],
            env=home.environ,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        return done.returncode, done.stdout + done.stderr

    code, said = ostler("resident", "start", "one")
    assert (code, said.split()[:2]) == (0, ["one:", "running"])
    code, said = ostler("resident", "list")
    assert code == 0
    assert "one  running" in said
    code, said = ostler("resident", "list", "--json")
    assert msgspec.json.decode(said)[0]["id"] == "one"
    code, said = ostler("resident", "stats")
    assert code == 0
    assert re.search(r"^one +running", said, re.MULTILINE)
    assert re.search(r"^all ", said, re.MULTILINE)
    residents.wait_log("one", "up ")
    assert ostler("resident", "logs", "one")[1].startswith("up ")
    assert ostler("resident", "start", "nobody")[0] == 5
    assert ostler("resident", "clear", "one")[0] == 2
    assert ostler("resident", "clear", "one", "--cache")[0] == 6
    assert ostler("resident", "disable", "one", "--now")[1].startswith("one does not start with the daemon")
    assert residents.get("one")["state"] == "stopped"
    assert ostler("resident", "stop")[0] == 2
    assert ostler("resident", "start", "--all")[0] == 0
    task = home.add(f"{sys.executable} -m daemon_core.cli resident start one; echo code $?", runtime="shell")
    home.wait(task, "completed")
    assert "code 4" in home.text(task)
    assert residents.get("one")["state"] == "stopped"
