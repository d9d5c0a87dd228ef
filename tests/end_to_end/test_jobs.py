"""Jobs of a real daemon: the command line, from outside and from inside tasks, kill -9 at every place."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.client import ControlClient, DaemonUnreachableError
from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, wait_gone, wait_until

SHELL_PLACES = ["job_files", "job_recorded", "job_before_spawn", "job_spawned", "job_started"]
END_PLACES = ["job_ended", "job_end_recorded"]
PIDS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    made = OstlerHome(tmp_path, claude=False)
    yield made
    made.close()


def begin(home: OstlerHome, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "daemon_core.cli", *arguments],
        env={**home.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=cwd or home.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def ostler(
    home: OstlerHome, *arguments: str, expect: int | None = 0, cwd: Path | None = None
) -> tuple[str, str]:
    """One call of the command line; standard output and error."""
    command = begin(home, *arguments, cwd=cwd)
    out, err = command.communicate(timeout=60)
    assert expect is None or command.returncode == expect, (command.returncode, out, err, home.said())
    return out, err


def document(home: OstlerHome, *arguments: str, expect: int | None = 0) -> Any:
    group, verb, *rest = arguments
    return json.loads(ostler(home, group, verb, "--json", *rest, expect=expect)[0])


def run(home: OstlerHome, command: str, *options: str) -> str:
    """Start a job as a person; its id."""
    return str(json.loads(ostler(home, "job", "run", *options, "--json", "--", command)[0])["id"])


def job(home: OstlerHome, ident: str) -> dict[str, Any]:
    found: dict[str, Any] = home.call("GET", f"/v1/jobs/{ident}")
    return found


def ended(home: OstlerHome, ident: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        with contextlib.suppress(DaemonUnreachableError):
            found = job(home, ident)
            return found if found["ended_at"] else None
        return None

    found: dict[str, Any] = wait_until(over, f"job {ident} to end: {home.said()[-500:]}")
    return found


def output(home: OstlerHome, ident: str) -> str:
    return (home.directories.jobs / ident / "stdout").read_text(errors="replace")


def inside(home: OstlerHome, script: str, **more: Any) -> str:
    """Run a script in a task; what it said."""
    task = home.add(script, "shell", **more)
    done = home.wait(task)
    assert done["status"] == "completed", (done["error"], home.text(task), home.said())
    return home.text(task)


def notices(home: OstlerHome, ident: str) -> list[tuple[Any, ...]]:
    return home.journal("SELECT kind, state FROM notices WHERE subject = ? ORDER BY id", ident)


# --- the command line ------------------------------------------------------------------------------


def test_the_command_line_of_a_person(home: OstlerHome) -> None:
    home.start()
    made = document(home, "job", "run", "--name", "nap", "--", "sleep", "600")
    assert made["status"] == "running"
    shown = document(home, "job", "show", made["id"][:4])
    for field in ("id", "status", "exit_code", "started_at", "ended_at", "pid", "output_path", "stalled"):
        assert field in shown
    assert (shown["status"], shown["ended_at"], shown["stalled"]) == ("running", None, False)
    assert shown["directory"] == str(home.root)
    assert Path(shown["output_path"]).exists()
    os.kill(shown["pid"], 0)
    assert [row["id"] for row in document(home, "job", "list")] == [made["id"]]
    assert "nap" in ostler(home, "job", "list")[0]
    assert document(home, "job", "wait", made["id"], "--timeout", "0.2", expect=124)["error"]["code"] == (
        "wait_timeout"
    )
    killed = document(home, "job", "kill", made["id"])
    assert killed["status"] == "killed"
    assert killed["ended_at"]
    wait_gone(shown["pid"])
    ostler(home, "job", "wait", made["id"], expect=1)
    ostler(home, "job", "input", made["id"], "x", expect=6)
    ostler(home, "job", "show", "ffff", expect=5)
    ostler(home, "job", "show", "abc", expect=2)
    ostler(home, "job", "run", "--dir", str(home.root / "gone"), "--", "true", expect=2)
    ostler(home, "job", "run", expect=2)


def test_waiting_gives_the_verdict_and_the_output(home: OstlerHome) -> None:
    home.start()
    out, _ = ostler(home, "job", "run", "--wait", "--", "echo out; echo err >&2; exit 5", expect=1)
    assert out.split() == ["out", "err"]
    assert ostler(home, "job", "run", "--wait", "--", "printf", "%s|", "a b", "$HOME", "'")[0].strip() == (
        "a b|$HOME|'|"
    )
    done = document(home, "job", "run", "--wait", "--no-pty", "--", "echo hi; exit 0")
    assert (done["status"], done["exit_code"]) == ("done", 0)
    ostler(home, "job", "run", "--wait", "--timeout", "0.3", "--", "sleep 600", expect=124)
    ostler(home, "job", "run", "--foreground-for", "30", "--", "echo here; exit 7", expect=7)
    out, err = ostler(home, "job", "run", "--foreground-for", "0.5", "--", "echo now; sleep 600")
    assert out.strip() == "now"
    going = document(home, "job", "list")[0]
    assert going["id"] in err
    assert going["status"] == "running"


def test_output_at_any_offset_and_followed_over_a_restart(home: OstlerHome) -> None:
    home.start()
    go = home.root / "go"
    ident = run(home, f"echo first; while [ ! -e {go} ]; do sleep 0.02; done; echo second", "--no-pty")
    wait_until(lambda: output(home, ident) == "first\n", "the first line")
    piece = document(home, "job", "output", ident, "--offset", "2", "--limit", "3")
    assert (piece["text"], piece["size"], piece["ended"]) == ("rst", 6, False)
    follower = begin(home, "job", "output", "-f", ident)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "first\n"
    home.kill()
    home.start()
    go.touch()
    assert follower.communicate(timeout=60)[0] == "second\n"
    assert follower.returncode == 0
    assert ended(home, ident)["status"] == "done"


def test_binary_and_huge_output_are_kept_and_told_short(home: OstlerHome) -> None:
    home.start()
    binary = run(home, "head -c 300000 /dev/urandom; exit 0", "--no-pty")
    huge = run(home, "yes 0123456789abcde | head -c 200000000", "--no-pty")
    assert ended(home, binary)["output_bytes"] == 300_000
    raw = subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", "job", "output", "--raw", binary],
        env={**home.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
    ).stdout
    assert raw == (home.directories.jobs / binary / "stdout").read_bytes()
    assert len(document(home, "job", "output", binary)["text"]) < 17_000
    before = _memory(home)
    assert ended(home, huge)["output_bytes"] == 200_000_000
    found = document(home, "job", "output", huge)
    assert found["size"] == 200_000_000
    assert found["shortened"]
    assert len(found["text"]) < 17_000
    assert _memory(home) - before < 30 * 2**20


def test_output_beyond_its_limit_loses_its_middle_and_says_so_over_a_death(home: OstlerHome) -> None:
    home.start()
    ostler(home, "config", "set", "jobs.output_limit", "1MiB")
    go = home.root / "go"
    half = "yes 0123456789abcde | head -c 4000000"
    ident = run(home, f"{half}; while [ ! -e {go} ]; do sleep 0.02; done; {half}; echo end", "--no-pty")
    wait_until(lambda: job(home, ident)["output_bytes"] == 4_000_000, "the first half")
    home.kill()
    go.touch()  # the rest comes while no daemon lives
    place = home.directories.jobs / ident
    wait_until(lambda: (place / "exit.json").exists(), "the end of the command")
    home.start()
    found = ended(home, ident)
    assert (found["status"], found["output_bytes"]) == ("done", 8_000_004)
    assert sum(each.stat().st_blocks * 512 for each in place.iterdir()) < 1_500_000
    piece = document(home, "job", "output", ident, "--offset", "3000000", "--limit", "32")
    gone, back = piece["dropped_from"], piece["dropped_to"]
    assert 2**18 <= gone < 3_000_000 < back
    assert piece["offset"] == back
    assert piece["text"] == ("0123456789abcde\n" * 3)[back % 16 :][:32]
    out, err = ostler(home, "job", "output", "--all", ident)
    assert len(out) == gone + 8_000_004 - back
    assert out.endswith("\nend\n")
    assert f"bytes {gone} to {back} were dropped" in err
    assert f"goes on at {back}" in err


def _memory(home: OstlerHome) -> int:
    assert home.daemon is not None
    for line in Path(f"/proc/{home.daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_a_job_that_asks_is_answered(home: OstlerHome) -> None:
    home.directories.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.directories.config_file.write_text('[jobs]\nstall = "1s"\n')
    home.start()
    ident = run(home, 'read -p "Go on? [y/N] " answer; echo "it was $answer"')
    wait_until(lambda: job(home, ident)["stalled"], "the stall")
    assert "waits for input" in ostler(home, "job", "list")[0]
    ostler(home, "job", "input", ident, "y")
    assert ended(home, ident)["stalled"] is False
    assert "it was y" in output(home, ident)
    reader = run(home, "cat")
    ostler(home, "job", "input", reader, "one")
    ostler(home, "job", "input", reader, "--eof")
    assert ended(home, reader)["status"] == "done"
    # A program that takes each key as it is has to get what the Enter key sends.
    keys = run(home, "stty raw -echo; echo ready; head -c 3 | od -An -tx1; stty sane")
    wait_until(lambda: "ready" in output(home, keys), "the program to take keys")
    ostler(home, "job", "input", keys, "ab")
    ended(home, keys)
    assert "61 62 0d" in output(home, keys)


# --- inside a task -----------------------------------------------------------------------------------


def test_a_task_has_jobs_of_its_own_that_outlive_its_run(home: OstlerHome) -> None:
    home.start()
    persons = run(home, "sleep 600")
    said = inside(
        home,
        "mkdir sub; cd sub; ostler job run --json -- 'pwd; env; sleep 600' > ../made;"
        f" ostler job show {persons}; echo rc=$?; ostler job kill {persons[:8]}; echo rc=$?;"
        " ostler job run --wait -- 'echo inner; exit 3'; echo rc=$?;"
        " ostler job run --dir / -- true; echo rc=$?; ostler job list --json | grep -c '\"id\"'; cat ../made",
    )
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("rc=")] == ["rc=5", "rc=5", "rc=1", "rc=2"]
    assert "inner" in lines
    assert "2" in lines  # its own two, not the person's
    made = json.loads(said[said.index("{\n") :])
    task = home.call("GET", "/v1/tasks")[0]["id"]
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    found = job(home, made["id"])
    assert (found["status"], found["task_id"]) == ("running", task)
    os.kill(found["pid"], 0)  # the end of the run has not touched it
    env = output(home, made["id"])
    assert env.splitlines()[0].endswith("/sub")
    assert f"OSTLER_TASK_ID={task}" in env
    assert "OSTLER_TOKEN=mat_" in env
    run_mark = home.journal("SELECT mark FROM runs")[0][0]
    assert run_mark not in env
    assert job(home, persons)["status"] == "running"
    # Another conversation does not see it, and no task may use the persons' way.
    other = inside(
        home,
        f"ostler job output {made['id']}; echo rc=$?; OSTLER_TASK_ID= ostler job list; echo rc=$?",
    )
    assert [line for line in other.splitlines() if line.startswith("rc=")] == ["rc=5", "rc=4"]
    # The next turn of the same conversation does.
    turn = home.call("POST", f"/v1/tasks/{task}/reply", {"prompt": f"ostler job kill {made['id'][:6]}"})["id"]
    home.wait(turn)
    assert job(home, made["id"])["status"] == "killed"
    wait_gone(found["pid"])
    assert notices(home, made["id"]) == []


def test_the_end_of_a_job_is_noted_for_its_conversation_unless_it_was_waited_for(home: OstlerHome) -> None:
    home.start()
    said = inside(
        home,
        "ostler job run --json -- 'sleep 0.5; exit 3' | grep '\"id\"';"
        " ostler job run --json --wait -- 'exit 4' | grep '\"id\"'",
    )
    first, second = (line.split('"')[3] for line in said.splitlines() if '"id"' in line)
    assert ended(home, first)["exit_code"] == 3
    assert notices(home, first) == [("job_ended", "pending")]
    assert notices(home, second) == [("job_ended", "dropped")]


def test_the_tools_for_agents(home: OstlerHome) -> None:
    calls = [
        ("job_run", {"command": "echo tool; read x; echo got $x", "name": "n"}),
        ("job_list", {}),
        ("job_run", {"command": ""}),
        ("job_run", {"command": "true", "directory": "/"}),
        ("job_output", {"id": "ffffffff"}),
    ]
    (home.root / "calls.json").write_text(json.dumps(calls))
    (home.root / "ask.py").write_text(_ASK)
    home.start()
    answers = [json.loads(line) for line in inside(home, f"{sys.executable} {home.root}/ask.py").splitlines()]
    names = {tool["name"] for tool in answers[0]["result"]["tools"]}
    assert {"job_run", "job_list", "job_output", "job_input", "job_kill"} <= names
    made, listed, empty, outside, unknown, said, text, killed = (answer["result"] for answer in answers[1:])
    assert made["structuredContent"]["status"] == "running"
    assert [each["id"] for each in listed["structuredContent"]["jobs"]] == [made["structuredContent"]["id"]]
    assert empty["isError"]
    assert outside["isError"]
    assert "not inside" in outside["content"][0]["text"]
    assert unknown["isError"]
    assert not said["isError"]
    assert text["structuredContent"]["text"].endswith("got it\n")
    assert killed["structuredContent"]["status"] == "done"


_ASK = """
import json, os, sys, time, urllib.request
def ask(method, **params):
    request = urllib.request.Request(
        os.environ["OSTLER_CONTROL_URL"] + "/mcp",
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode(),
        {"Authorization": "Bearer " + os.environ["OSTLER_TOKEN"], "Content-Type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request, timeout=60))
def tool(wanted, /, **arguments):
    return ask("tools/call", name=wanted, arguments=arguments)
print(json.dumps(ask("tools/list")))
first = ""
for name, arguments in json.load(open(os.path.join(os.path.dirname(sys.argv[0]), "calls.json"))):
    answer = tool(name, **arguments)
    first = first or answer["result"]["structuredContent"]["id"]
    print(json.dumps(answer))
print(json.dumps(tool("job_input", id=first, text="it")))
while not tool("job_output", id=first)["result"]["structuredContent"]["ended"]:
    time.sleep(0.05)
print(json.dumps(tool("job_output", id=first)))
print(json.dumps(tool("job_kill", id=first)))
"""


def test_a_command_in_a_task_waits_for_the_daemon_to_come_back(home: OstlerHome) -> None:
    home.start()
    go, times = home.root / "go", home.root / "times"
    task = home.add(
        f"touch {home.root}/begun; while [ ! -e {go} ]; do sleep 0.02; done;"
        f" ostler job run --wait -- 'echo x >> {times}; sleep 0.5'; echo rc=$?",
        "shell",
    )
    wait_until((home.root / "begun").exists, "the run")
    home.kill()
    go.touch()
    time.sleep(0.5)  # the command asks while nobody listens
    home.launch(kill_at="job_spawned")  # the command asks again at once: it may be over before it "runs"
    home.wait_dead()
    home.start()
    assert home.wait(task)["status"] == "completed"
    assert "rc=0" in home.text(task)
    assert times.read_text() == "x\n"


# --- what belongs to a task ----------------------------------------------------------------------------


def test_deleting_a_conversation_ends_its_jobs_and_cancelling_a_task_asks(home: OstlerHome) -> None:
    home.start()
    script = "ostler job run -- 'sleep 600' > {}; sleep 600"
    first = home.add(script.format(home.root / "first"), "shell")
    second = home.add(script.format(home.root / "second"), "shell")
    jobs = [_written(home.root / name) for name in ("first", "second")]
    pids = [job(home, ident)["pid"] for ident in jobs]
    assert "1 job of its conversation goes on" in ostler(home, "task", "cancel", first)[1]
    home.wait(first)
    assert job(home, jobs[0])["status"] == "running"
    assert "1 job of it ended" in ostler(home, "task", "cancel", "--jobs", second)[1]
    assert ended(home, jobs[1])["status"] == "killed"
    ostler(home, "task", "delete", first)
    wait_gone(*pids)
    wait_until(lambda: not (home.directories.jobs / jobs[0]).exists(), "its files to go")
    with pytest.raises(ControlError):
        job(home, jobs[0])
    assert [row["id"] for row in home.call("GET", "/v1/jobs")] == [jobs[1]]


def test_killed_in_the_middle_of_deleting_a_conversation_its_jobs_end(home: OstlerHome) -> None:
    home.start(kill_at="conversation_deleted")
    task = home.add("ostler job run -- 'sleep 600'", "shell")
    home.wait(task)
    ident = home.text(task).split()[0]
    pid = job(home, ident)["pid"]
    ostler(home, "task", "delete", task, expect=None)
    home.wait_dead()
    home.start()
    wait_gone(pid)
    wait_until(lambda: not (home.directories.jobs / ident).exists(), "its files to go")


def _written(path: Path) -> str:
    return str(wait_until(lambda: _text(path), str(path)))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def test_jobs_are_in_the_snapshot_and_in_the_stream(home: OstlerHome) -> None:
    home.start()
    snapshot = home.call("GET", "/v1/snapshot")
    assert snapshot["jobs"] == []
    ident = run(home, "exit 3")
    ended(home, ident)
    states = []
    for line in home.client.lines(f"/v1/events?since={snapshot['revision']}", timeout_s=30):
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["kind"] == "job":
                states.append(event["data"]["status"])
                break
    assert states == ["failed"]  # the newest of a subject takes the place of those before
    assert [each["id"] for each in home.call("GET", "/v1/snapshot")["jobs"]] == [ident]
    assert "jobs" in {area["name"] for area in home.call("GET", "/v1/disk")["areas"]}


# --- death ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", SHELL_PLACES)
def test_killed_in_the_middle_of_a_start_the_job_is_started_once(home: OstlerHome, place: str) -> None:
    home.start(kill_at=place)
    times = home.root / "times"
    command = begin(home, "job", "run", "--wait", "--", f"echo x >> {times}; sleep 0.3; exit 3")
    home.wait_dead()
    home.start()
    out, err = command.communicate(timeout=60)
    assert command.returncode == 1, (out, err, home.said())
    assert times.read_text() == "x\n"
    (found,) = home.call("GET", "/v1/jobs")
    assert (found["status"], found["exit_code"]) == ("failed", 3)
    assert os.listdir(home.directories.jobs) == [found["id"]]
    assert not list((home.directories.jobs / found["id"]).glob("spec*"))


@pytest.mark.parametrize("place", END_PLACES)
def test_killed_in_the_middle_of_an_end_it_is_told_once(home: OstlerHome, place: str) -> None:
    home.start(kill_at=place)
    go = home.root / "go"
    said = inside(home, f"ostler job run -- 'while [ ! -e {go} ]; do sleep 0.02; done; exit 3'")
    ident = said.split()[0]
    go.touch()
    home.wait_dead()
    home.start()
    assert ended(home, ident)["status"] == "failed"
    assert [kind for kind, _ in notices(home, ident)] == ["job_ended"]
    home.kill()
    home.start()
    assert [kind for kind, _ in notices(home, ident)] == ["job_ended"]


def test_killed_in_the_middle_of_a_kill_it_is_killed(home: OstlerHome) -> None:
    home.start(kill_at="job_kill_recorded")
    ident = inside(home, "ostler job run -- 'trap \"\" TERM; sleep 600; sleep 600'").split()[0]
    pid = job(home, ident)["pid"]
    command = begin(home, "job", "kill", ident)
    home.wait_dead()
    home.start()
    command.communicate(timeout=60)
    assert command.returncode == 0
    assert ended(home, ident)["status"] == "killed"
    wait_gone(pid)
    assert notices(home, ident) == []


@pytest.mark.parametrize("place", ["job_removing", "job_files_removed"])
def test_killed_in_the_middle_of_removing_it_is_removed(home: OstlerHome, place: str) -> None:
    home.directories.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.directories.config_file.write_text('[jobs]\nkeep_told = "1s"\nkeep_untold = "1s"\n')
    home.start(kill_at=place)
    run(home, "true")
    home.wait_dead()
    home.start()
    wait_until(lambda: not os.listdir(home.directories.jobs), "its files to go")
    wait_until(lambda: not home.journal("SELECT 1 FROM jobs"), "its row to go")


def test_any_order_of_deaths_leaves_every_job_in_its_right_state(home: OstlerHome) -> None:
    """Jobs that end by themselves, are killed, or lose their shim, while the daemon is killed at random."""
    luck = random.Random(int(os.environ.get("OSTLER_TEST_SEED", "7")))
    home.start()
    wanted = {
        uuid.uuid4().hex: luck.choice(["done", "failed", "killed", "lost", "timed_out"]) for _ in range(24)
    }
    names = list(wanted)
    with ThreadPoolExecutor(4) as pool:
        while names:
            some = [names.pop() for _ in range(4)]
            begun = [pool.submit(_begin_and_end, home, ident, wanted[ident]) for ident in some]
            for _ in range(luck.randrange(3)):
                time.sleep(luck.random() * 0.3)  # a random moment is the point
                home.kill()
                home.start()
            for each in begun:
                each.result()
    home.kill()
    home.start()
    for ident, kind in wanted.items():
        found = ended(home, ident)
        assert found["status"] == kind, found
        assert (home.root / f"count-{ident}").read_text() == "x\n"
    wait_until(lambda: len(home.processes()) == 1, f"nothing but the daemon to be left: {home.processes()}")


def _begin_and_end(home: OstlerHome, ident: str, kind: str) -> None:
    """Ask for a job until the answer is there, and for what is to become of it."""
    code = {"done": "exit 0", "failed": "exit 3"}.get(kind, "sleep 600")
    count = home.root / f"count-{ident}"
    wanted: dict[str, Any] = {
        "id": ident,
        "command": f"echo x >> {count}; {code}",
        "directory": str(home.root),
        "time_limit": 1 if kind == "timed_out" else 600,
    }
    _insist(home, "/v1/jobs", wanted)
    wait_until(count.exists, "the command to begin")
    if kind == "killed":
        _insist(home, f"/v1/jobs/{ident}/kill", None)
    elif kind == "lost":
        shim = json.loads((home.directories.jobs / ident / "shim.json").read_bytes())
        os.kill(shim["pid"], signal.SIGKILL)


def _insist(home: OstlerHome, path: str, body: Any) -> None:
    def asked() -> bool:
        try:
            home.call("POST", path, body)
        except DaemonUnreachableError:
            return False
        except ControlError as error:
            if error.code != "not_ready":
                raise
            return False
        return True

    wait_until(asked, path)


# --- real commands ---------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_an_installation_from_the_registry(home: OstlerHome) -> None:
    home.start()
    (home.root / "package.json").write_text('{"name": "x", "version": "1.0.0"}')
    ident = run(home, "npm install --no-audit --no-fund ms", "--timeout", "60")
    found = ended(home, ident)
    if found["status"] != "done":
        pytest.skip(f"no registry here: {output(home, ident)[-300:]}")
    assert (home.root / "node_modules" / "ms" / "package.json").exists()


def test_a_server_that_never_ends_serves_over_restarts_until_it_is_killed(home: OstlerHome) -> None:
    home.start()
    script = (
        "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
        " print(s.server_port, flush=True); s.serve_forever()"
    )
    ident = run(home, f'{sys.executable} -c "{script}"', "--timeout", "0")
    port = int(wait_until(lambda: output(home, ident).strip(), "the server's port"))
    for _ in range(2):
        home.kill()
        home.start()
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert answer.status == 200
    ostler(home, "job", "kill", ident)
    assert job(home, ident)["status"] == "killed"


def test_a_process_that_makes_itself_a_daemon_ends_with_its_job(home: OstlerHome) -> None:
    home.start()
    script = (
        "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        f"open({str(home.root / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    (home.root / "d.py").write_text(script)
    ident = run(home, f"{sys.executable} d.py; while [ ! -s pid ]; do sleep 0.02; done; sleep 0.1; exit 0")
    assert ended(home, ident)["status"] == "done"
    wait_gone(int((home.root / "pid").read_text()))


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(PIDS, os.W_OK), reason="needs root and the pids controller of cgroups"
)
def test_a_fork_bomb_within_a_limit_is_killed(home: OstlerHome) -> None:
    group = PIDS / f"ostler-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        (group / "pids.max").write_text("80")
        home.start()
        ident = run(
            home, f"echo $$ > {group}/cgroup.procs && bomb() {{ bomb | bomb & bomb; }}; bomb", "--no-pty"
        )
        wait_until(lambda: int((group / "pids.current").read_text()) > 40, "the bomb to go off")
        ostler(home, "job", "kill", ident)
        assert ended(home, ident)["status"] == "killed"
        wait_until(lambda: int((group / "pids.current").read_text()) == 0, "all of it to end")
    finally:
        home.close()
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the cgroup to be empty")
        group.rmdir()


def test_two_daemons_do_not_see_each_others_jobs(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    other = OstlerHome(tmp_path / "other", claude=False)
    try:
        other.start()
        ident = run(home, "sleep 600")
        assert isinstance(other.client, ControlClient)
        assert other.call("GET", "/v1/jobs") == []
        ostler(other, "job", "kill", ident, expect=5)
        other.stop()
        assert job(home, ident)["status"] == "running"
    finally:
        other.close()


def test_a_stopped_daemon_leaves_jobs_alone_and_takes_none(home: OstlerHome) -> None:
    home.start()
    ident = run(home, "sleep 600")
    pid = job(home, ident)["pid"]
    assert home.stop()["jobs_alive"] == 1
    os.kill(pid, 0)
    ostler(home, "job", "run", "--", "true", expect=3)
    home.start()
    assert job(home, ident)["pid"] == pid
