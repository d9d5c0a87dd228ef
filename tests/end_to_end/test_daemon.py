"""The daemon as a whole: its start and end, pause, conversations, who may talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, wait_until
from tests.settings.another_user import open_place
from tests.support.scripted_agent import script


def get(port: int, path: str, **headers: str) -> tuple[int, Any]:
    """One request on the loopback port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(
            "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_health_says_starting_at_once_and_running_when_claims_are_possible(home: OstlerHome) -> None:
    go = home.root / "go"
    slow = home.bin / "codex"
    slow.write_text(f"#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho codex-cli 0.169.0\n")
    slow.chmod(0o755)
    home.launch()
    wait_until(lambda: home.status().get("port"), "the port")
    status = home.status()
    assert status["status"] == "starting"
    assert get(status["port"], "/health")[1]["status"] == "starting"
    with pytest.raises(ControlError) as early:
        home.add("true", "shell")
    assert early.value.code == "not_ready"
    go.touch()
    wait_until(lambda: home.status()["status"] == "running", "the start to end")
    code, health = get(status["port"], "/health")
    assert (code, health["status"], health["agents"]) == (200, "running", ["claude", "codex", "shell"])
    found = {view["provider"]: view for view in home.call("GET", "/v1/runtimes")}
    assert (found["codex"]["status"], found["codex"]["version"]) == ("online", "0.169.0")


def test_the_port_and_the_identity_stay_over_restarts(home: OstlerHome) -> None:
    home.start()
    first = home.status()
    home.stop()
    home.start()
    second = home.status()
    assert (second["port"], second["daemon_id"]) == (first["port"], first["daemon_id"])
    runtimes = {view["provider"]: view["id"] for view in home.call("GET", "/v1/runtimes")}
    home.kill()
    home.start()
    assert {view["provider"]: view["id"] for view in home.call("GET", "/v1/runtimes")} == runtimes


def test_two_profiles_live_side_by_side(home: OstlerHome, tmp_path: Path) -> None:
    other = OstlerHome(tmp_path / "other", environ={"OSTLER_PROFILE": "work"})
    other.environ["OSTLER_HOME"] = home.environ["OSTLER_HOME"]
    from daemon_core.control.client import ControlClient
    from daemon_core.settings.directories import resolve

    other.directories = resolve(other.environ)
    other.client = ControlClient(other.directories.control_socket)
    home.start()
    other.start()
    assert home.status()["port"] != other.status()["port"]
    assert home.wait(home.add("echo one", "shell"))["result"] == "one"
    assert other.wait(other.add("echo two", "shell"))["result"] == "two"
    assert len(home.call("GET", "/v1/tasks")) == len(other.call("GET", "/v1/tasks")) == 1
    other.stop()


def test_a_pause_holds_claims_over_a_restart_until_it_is_taken_back(home: OstlerHome) -> None:
    home.start()
    assert home.call("POST", "/v1/daemon/pause", {})["barrier"]["reason"] == "user"
    task = home.add("echo later", "shell")
    home.kill()
    home.start()
    assert home.status()["barrier"]["reason"] == "user"
    waiting = home.task(task)
    assert (waiting["status"], waiting["waiting"]["code"]) == ("queued", "paused")
    home.call("POST", "/v1/daemon/resume", {})
    assert home.wait(task)["result"] == "later"


def test_a_pause_ends_by_itself(home: OstlerHome) -> None:
    from datetime import UTC, datetime, timedelta

    home.start()
    until = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    home.call("POST", "/v1/daemon/pause", {"until": until})
    task = home.add("echo soon", "shell")
    assert home.task(task)["status"] == "queued"
    assert home.wait(task)["result"] == "soon"
    assert home.status()["barrier"] is None


def test_never_more_runs_than_slots_and_the_next_one_follows_at_once(
    home: OstlerHome, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    home.start(OSTLER_DAEMON_SLOTS="2")
    tasks = [home.add(f"while [ ! -e {go} ]; do sleep 0.02; done; echo {n}", "shell") for n in range(5)]
    wait_until(lambda: home.status()["active_runs"] == 2, "two runs")
    assert [home.task(task)["status"] for task in tasks[2:]] == ["queued"] * 3
    assert home.task(tasks[4])["waiting"]["code"] == "waiting_slot"
    go.touch()
    assert [home.wait(task)["result"] for task in tasks] == ["0", "1", "2", "3", "4"]


def test_deleting_a_conversation_ends_its_run_and_removes_its_own_directory(
    home: OstlerHome, tmp_path: Path
) -> None:
    home.start()
    task = home.add(script({"text": "here"}, {"wait_for": str(tmp_path / "never")}))
    wait_until(lambda: len(home.server_messages(task)) == 1, "the first line")
    shown = home.task(task)
    run_dir, agent = home.run_dir(task), home.shim(task)["child_pid"]
    work_dir = Path(home.journal("SELECT work_dir FROM tasks WHERE task_id = ?", task)[0][0])
    assert work_dir.is_dir()
    deleted = home.call("DELETE", f"/v1/tasks/{task}")
    assert deleted["conversation_id"] == shown["conversation_id"]
    wait_until(lambda: not Path(f"/proc/{agent}").exists(), "the agent to end")
    wait_until(lambda: not home.journal("SELECT 1 FROM tasks"), "the journal to forget it")
    wait_until(lambda: not run_dir.exists(), "its run directory to go")
    wait_until(lambda: not work_dir.exists(), "its work directory to go")
    assert home.call("GET", "/v1/tasks") == []


def test_deleting_never_touches_the_users_own_directory(home: OstlerHome, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    home.start()
    task = home.add("echo content > file", "shell", directory=str(project))
    home.wait(task)
    home.wait_delivered(task)
    assert home.call("DELETE", f"/v1/tasks/{task}")["work_dir"] == ""
    wait_until(lambda: not home.journal("SELECT 1 FROM tasks"), "the journal to forget it")
    assert (project / "file").read_text() == "content\n"


def test_a_retry_is_a_new_turn_with_the_same_prompt(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    flag = tmp_path / "flag"
    task = home.add(f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}; echo second time", "shell")
    assert home.wait(task)["status"] == "failed"
    again = home.call("POST", f"/v1/tasks/{task}/retry", {})
    assert again["id"] != task
    done = home.wait(again["id"])
    assert (done["status"], done["result"]) == ("completed", "second time")
    assert done["conversation_id"] == home.task(task)["conversation_id"]


def test_the_transcript_can_be_followed_while_the_daemon_is_replaced(
    home: OstlerHome, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.add(f"echo one; while [ ! -e {go} ]; do sleep 0.02; done; echo two", "shell")
    follow = [sys.executable, "-m", "daemon_core.cli", "task", "logs", "-f", task]
    with subprocess.Popen(
        follow,
        env={**home.environ, "OSTLER_TASK_ID": "x"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "one\n"
        home.kill()
        go.touch()
        home.start()
        rest = reader.communicate(timeout=60)
    assert rest[0] == "two\n", rest


# --- who may talk to the daemon (promise P9) ---------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_a_web_page_is_refused_on_every_route(home: OstlerHome, headers: dict[str, str]) -> None:
    home.start()
    port = home.status()["port"]
    for path in ("/health", "/api/workspaces", "/api/daemon/ws", "/nonesuch"):
        code, answer = get(port, path, **headers)
        assert code == 403, path
        assert answer["error"]["code"] == "refused_peer"


def test_the_hub_takes_nobody_without_its_credential(home: OstlerHome) -> None:
    home.start()
    port = home.status()["port"]
    assert get(port, "/api/workspaces")[0] == 401
    assert get(port, "/api/workspaces", Authorization="Bearer mul_" + "0" * 40)[0] == 401


def test_nothing_listens_beyond_loopback(home: OstlerHome) -> None:
    import psutil

    home.start()
    assert home.daemon is not None
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(home.daemon.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_a_run_cannot_stop_its_own_daemon(home: OstlerHome) -> None:
    home.start()
    assert home.daemon is not None
    done = home.wait(home.add(f"{sys.executable} -m daemon_core.cli daemon stop; echo code $?", "shell"))
    assert done["result"].endswith("code 4")
    assert home.daemon.poll() is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_another_user_of_the_machine_is_refused() -> None:
    with open_place() as place:
        home = OstlerHome(place)
        try:
            home.start()
            # As open as can be: only the daemon's own checks are left.
            for directory in (home.root / "o", home.directories.run):
                directory.chmod(0o755)
            home.directories.control_socket.chmod(0o777)
            assert _asked_by_nobody(home) == ["403", "403"]
        finally:
            home.close()


def _asked_by_nobody(home: OstlerHome) -> list[str]:
    """What another user is answered on the control socket and on the loopback port."""
    port = home.status()["port"]
    program = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
control = {str(home.directories.control_socket)!r}
for family, address in ((socket.AF_UNIX, control), (socket.AF_INET, ("127.0.0.1", {port}))):
    s = socket.socket(family); s.connect(address)
    path = b"/v1/status" if family == socket.AF_UNIX else b"/health"
    s.sendall(b"GET " + path + b" HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    print(s.makefile("rb").readline().decode().split()[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_idle_daemon_hardly_wakes_up(home: OstlerHome) -> None:
    """Not a measurement (see the benchmarks): it fails if somebody polls several times a second."""
    home.start()
    home.wait(home.add("true", "shell"))
    assert home.daemon is not None
    time.sleep(1.0)  # what ends a task has settled

    def switches() -> int:
        total = 0
        for status in Path(f"/proc/{home.daemon.pid if home.daemon else 0}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    before = switches()
    time.sleep(5.0)
    assert switches() - before <= 15


def test_events_tell_what_happens_and_can_be_resumed(home: OstlerHome) -> None:
    home.start()
    snapshot = home.call("GET", "/v1/snapshot")
    task = home.add("echo hi", "shell")
    home.wait(task)

    def kinds(since: int) -> set[tuple[str, str]]:
        found = set()
        with contextlib.suppress(DaemonUnreachableError):
            for line in home.client.lines(f"/v1/events?since={since}", timeout_s=1.0):
                if line.startswith(b"data: "):
                    event = msgspec.json.decode(line[6:])
                    found.add((event["kind"], str(event["data"].get("status", ""))))
        return found

    assert ("task", "completed") in kinds(snapshot["revision"])
    assert any(kind == "transcript" for kind, _ in kinds(snapshot["revision"]))
    home.kill()
    home.start()
    assert ("reset", "") in kinds(snapshot["revision"])


def test_a_stale_socket_file_does_not_matter(home: OstlerHome) -> None:
    home.start()
    home.kill()
    assert home.directories.control_socket.exists()
    home.start()
    home.stop()
    home.directories.control_socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as stray:
        stray.bind(str(home.directories.control_socket))
    home.start()
    assert home.status()["status"] == "running"


def test_local_tasks_that_are_gone_are_said_to_be(home: OstlerHome) -> None:
    home.start()
    home.wait_delivered(home.wait(home.add("echo kept", "shell"))["id"])
    home.stop()
    home.directories.hub_file.write_bytes(b"")
    home.start()
    assert "hub_lost" in {condition["code"] for condition in home.status()["conditions"]}
    home.stop()
    home.start()  # what is new since is whole
    assert "hub_lost" not in {condition["code"] for condition in home.status()["conditions"]}


def test_a_fault_that_takes_the_daemon_leaves_a_trace(home: OstlerHome) -> None:
    home.start()
    assert home.daemon is not None
    home.daemon.send_signal(signal.SIGSEGV)
    home.wait_dead()
    crash = home.directories.crash_file
    assert "Segmentation fault" in crash.read_text()
    assert crash.stat().st_mode & 0o077 == 0
    home.start()
    assert "the daemon before this one crashed" in home.directories.log_file.read_text()
    assert crash.read_text() == ""


def test_a_journal_damaged_under_a_living_daemon_is_mended_by_a_new_start(
    home: OstlerHome, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    home.start()
    done = home.add(script({"lines": 30000, "text": "{n} " + "x" * 80}))
    home.wait(done)
    home.wait_delivered(done)
    task = home.add(f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; echo over", "shell")
    home.wait(task, "running")
    first = home.status()["started_at"]
    wait_until(lambda: home.status()["uptime"] > 10.5, "the daemon to be old enough to begin anew by itself")
    for name in ("journal.db", "journal.db-wal"):
        path = home.directories.state / name
        with open(path, "r+b") as stream:
            size = path.stat().st_size
            stream.seek(4096)
            stream.write(b"\xff" * max(0, size - 4096))

    def poked() -> bool:
        with contextlib.suppress(DaemonUnreachableError, ControlError):
            home.transcript(done)  # reads what is not in memory any more
            status = home.status()
            return status.get("status") == "running" and status.get("started_at") != first
        return False

    wait_until(poked, "a new daemon to run")
    assert any(condition["code"] == "journal_damaged" for condition in home.status()["conditions"])
    go.touch()
    assert home.wait(task)["status"] == "completed"
    assert home.agent_starts() == 1


def test_settings_that_are_said_to_apply_at_once_do(home: OstlerHome) -> None:
    home.start(GREETING_OLD="old")
    assert home.wait(home.add("echo [$GREETING][$GREETING_OLD]", "shell"))["result"] == "[][old]"
    home.directories.config_file.write_text(
        '[environment]\nset = { GREETING = "hello" }\ndrop = ["GREETING_*"]\n[log]\nsize = 131072\n'
    )
    answer = home.call("POST", "/v1/settings/reload", {})
    assert answer == {"applied": ["environment.drop", "environment.set"], "needs_restart": ["log.size"]}
    assert home.wait(home.add("echo [$GREETING][$GREETING_OLD]", "shell"))["result"] == "[hello][]"


def test_a_setting_of_another_version_is_left_out_and_said(home: OstlerHome) -> None:
    """After an update was taken back the settings may have what only the newer version knows."""
    home.directories.ensure()
    file = home.directories.config_file
    file.write_text("[daemon]\nslots = 3\nwings = 2\n\n[weather]\nrain = true\n")
    home.start()
    status = home.status()
    assert status["slots"] == 3
    (told,) = [each for each in status["conditions"] if each["code"] == "settings_invalid"]
    assert "weather" in told["params"]["what"]
    assert "there is no setting daemon.wings" in home.said()
    file.write_text("[daemon]\nslots = 4\nwings = 2\n")
    home.call("POST", "/v1/settings/reload")
    assert home.status()["slots"] == 4
    # Everything else can be changed meanwhile, and what is left out stays for the version that knows it.
    assert home.call("PUT", "/v1/settings/daemon.slots", {"value": 5})["applied"]
    assert file.read_text() == "[daemon]\nslots = 5\nwings = 2\n"
    settings = home.call("GET", "/v1/settings?sections=daemon")
    assert settings["problem"] is None
    assert [(each["key"], each["line"]) for each in settings["left_out"]] == [("daemon.wings", 3)]
    home.call("DELETE", "/v1/settings/daemon.slots")
    file.write_text("")
    home.call("POST", "/v1/settings/reload")
    assert not [each for each in home.status()["conditions"] if each["code"] == "settings_invalid"]
    home.stop()
