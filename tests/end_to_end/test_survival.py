"""A run survives its daemon: killed at chosen places, stopped, lost, found again (P1, P2, P3, P6)."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.end_to_end.home import OstlerHome, check_transcript, holding, wait_gone, wait_until
from tests.support.scripted_agent import script

PLACES = [
    "before_claim",
    "claimed",
    "claim_file",
    "claim_recorded",
    "prepared",
    "before_start",
    "start_accepted",
    "started",
    "before_spawn",
    "spawned",
    "before_commit",
    "committed",
    "report_session",
    "reported_session",
    "report_messages",
    "reported_messages",
    "before_commit:2",
    "committed:2",
    "said",
    "run_ended",
    "before_result",
    "result",
    "report_usage",
    "reported_usage",
    "report_complete",
    "reported_complete",
]


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_place_the_task_ends_once_and_its_transcript_is_whole(
    home: OstlerHome, tmp_path: Path, place: str
) -> None:
    go = tmp_path / "go"
    home.start(OSTLER_DAEMON_CLAIM="false")
    task = home.add(
        script(
            {"lines": 300, "text": "first {n}\n"},
            {"tool": {"name": "Bash", "input": {"command": "true"}, "output": "ok"}},
            {"wait_for": str(go)},
            {"lines": 300, "text": "second {n}\n"},
        )
    )
    home.stop()
    home.launch(kill_at=place)
    if place in PLACES[PLACES.index("before_commit:2") :]:
        go.touch()
    home.wait_dead()
    assert home.daemon is not None
    assert home.daemon.returncode == -signal.SIGKILL
    go.touch()
    home.start()
    done = home.wait(task)
    assert done["status"] == "completed", done["error"]
    home.wait_delivered(task)
    expected = "".join(f"{part} {n}\n" for part in ("first", "second") for n in range(1, 301))
    check_transcript(home, task, expected)
    assert home.agent_starts() == 1
    assert len(home.hub("SELECT 1 FROM chat_message WHERE role = 'assistant'")) == 1
    assert done["usage"]


def test_a_killed_daemon_finds_its_run_and_goes_on(home: OstlerHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.add(
        script({"lines": 50, "text": "{n}\n"}, {"wait_for": str(go)}, {"lines": 50, "text": "x{n}\n"})
    )
    home.wait(task, "running")
    agent = home.shim(task)["child_pid"]
    wait_until(lambda: len(home.server_messages(task)) == 50, "the first half at the server")
    for _ in range(3):
        home.kill()
        os.kill(agent, 0)  # it lives
        home.start()
        status = home.wait(task, "running")
        assert [run["pid"] for run in status["runs"]] == [agent]
    go.touch()
    assert home.wait(task)["status"] == "completed"
    home.wait_delivered(task)
    check_transcript(home, task, "".join(f"{p}{n}\n" for p in ("", "x") for n in range(1, 51)))
    assert home.agent_starts() == 1


def test_a_run_that_ended_while_no_daemon_lived_is_reported(home: OstlerHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.add(f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; echo over; exit 3", "shell")
    home.wait(task, "running")
    run_dir = home.run_dir(task)
    wait_until(lambda: (run_dir / "shim.json").exists(), "the run to begin")
    home.kill()
    go.touch()
    wait_until(lambda: (run_dir / "exit.json").exists(), "the run to end by itself")
    home.start()
    done = home.wait(task)
    assert (done["status"], done["runs"][0]["exit_code"]) == ("failed", 3)
    assert done["failure_reason"] == "agent_error.process_failure"
    home.wait_delivered(task)
    check_transcript(home, task, "begun\nover\n")


def test_a_stop_leaves_runs_alive_and_says_how_many(home: OstlerHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.add(script({"wait_for": str(go)}, {"text": "after"}))
    home.wait(task, "running")
    agent = home.shim(task)["child_pid"]
    pid = home.daemon.pid if home.daemon else 0
    assert home.stop() == {"runs_alive": 1, "runs_ended": 0, "jobs_alive": 0, "pid": pid}
    os.kill(agent, 0)
    go.touch()
    home.start()
    assert home.wait(task)["result"] == "after"
    assert home.agent_starts() == 1


def test_a_stop_with_runs_ends_them_and_reports_it(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    task = home.add(script({"wait_for": str(tmp_path / "never")}))
    home.wait(task, "running")
    agent = home.shim(task)["child_pid"]
    assert home.stop(runs=True)["runs_ended"] == 1
    assert not Path(f"/proc/{agent}").exists()
    home.start()
    done = home.wait(task, "failed")  # the stop does not wait for a report longer than it may
    assert done["failure_reason"] == "cancelled"


def test_a_run_whose_shim_died_is_lost_its_agent_ended_and_the_next_attempt_resumes(
    home: OstlerHome, tmp_path: Path
) -> None:
    home.start()
    child = tmp_path / "child"
    task = home.add(
        script(
            {"count_start": str(tmp_path / "counted")},
            {"spawn": {"seconds": 600, "pid_file": str(child)}},
            {"text": "here"},
            {"wait_for": str(tmp_path / "never")},
        )
    )
    wait_until(lambda: len(home.server_messages(task)) == 1, "the first line")
    shim = home.shim(task)
    home.kill()
    os.kill(shim["pid"], signal.SIGKILL)
    home.start()
    done = home.wait(task, "failed")
    assert done["failure_reason"] == "runtime_recovery"
    assert done["session_id"]
    wait_gone(shim["child_pid"], int(child.read_text()))
    run_dir = home.run_dir(task)
    assert not list(run_dir.glob("*.reserve"))
    assert not Path(shim["socket"]).exists()
    # The hub tries once more, in the same session and directory.
    (again,) = [row[0] for row in home.hub("SELECT id FROM task WHERE parent_task_id = ?", task)]
    home.wait(again, "running")
    assert home.task(again)["attempt"] == 2
    home.call("POST", f"/v1/tasks/{again}/cancel")
    home.wait(again, "cancelled")


def test_cancel_ends_the_whole_tree_also_what_left_its_session(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    pid_file = tmp_path / "pid"
    task = home.add(f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 600' & sleep 600", "shell")
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the child to start")
    escaped = int(pid_file.read_text())
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait(task, "cancelled")
    wait_until(lambda: not Path(f"/proc/{escaped}").exists(), "the escaped child to be ended")
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")


def test_nothing_is_left_of_a_run_that_ended_well(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    task = home.add("setsid sleep 600 & (sleep 600 &) ; echo done", "shell")
    assert home.wait(task)["status"] == "completed"
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")


def test_secrets_are_in_the_run_directory_alone_and_gone_with_the_run(
    home: OstlerHome, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.add(
        f"printf %s $OSTLER_TOKEN > {tmp_path}/token; while [ ! -e {go} ]; do sleep 0.05; done", "shell"
    )
    token_file = tmp_path / "token"
    wait_until(lambda: token_file.exists() and token_file.read_text(), "the token")
    token = token_file.read_bytes()
    assert token.startswith(b"mat_")
    run_dir = home.run_dir(task)
    found = holding(tmp_path / "o", token)
    assert found
    for path in found:
        assert path.parent == run_dir, path
        assert path.stat().st_mode & 0o777 == 0o600
    assert run_dir.stat().st_mode & 0o777 == 0o700
    for pid in home.processes():
        with contextlib.suppress(OSError):  # the command's own sleep may have ended
            assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
    home.kill()  # the shim does it, daemon or no daemon
    go.touch()
    wait_until(lambda: (run_dir / "exit.json").exists(), "the run to end")
    # The status is made durable first. A shim that dies in between leaves them to the next daemon.
    wait_until(lambda: not holding(tmp_path / "o", token), "the secrets to be gone")


def test_a_damaged_journal_loses_neither_run_nor_transcript(home: OstlerHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.add(script({"lines": 20, "text": "{n}\n"}, {"wait_for": str(go)}, {"text": "end"}))
    wait_until(lambda: len(home.server_messages(task)) == 20, "the first lines")
    home.kill()
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (home.directories.state / name).unlink(missing_ok=True)
    (home.directories.state / "journal.db").write_bytes(b"no database at all" * 1000)
    home.start()
    assert any(condition["code"] == "journal_damaged" for condition in home.status()["conditions"])
    assert list(home.directories.state.glob("journal.db.damaged-*"))
    go.touch()
    assert home.wait(task)["status"] == "completed"
    home.wait_delivered(task)
    check_transcript(home, task, "".join(f"{n}\n" for n in range(1, 21)) + "end")
    assert home.agent_starts() == 1


def test_lines_that_a_damaged_journal_has_lost_are_not_waited_for(home: OstlerHome) -> None:
    home.start()
    task = home.add("echo one", "shell")
    home.wait(task)
    home.wait_delivered(task)
    home.stop()
    with contextlib.closing(sqlite3.connect(home.directories.journal_file)) as journal, journal:
        journal.execute("DELETE FROM transcript")
    home.start()
    assert [*home.client.lines(f"/v1/tasks/{task}/transcript?follow=1", timeout_s=20)] == []


def test_a_damaged_journal_doubles_no_text_of_a_shell_task(home: OstlerHome, tmp_path: Path) -> None:
    """Its text is cut into messages as it comes, so reading it again would make other messages."""
    go = tmp_path / "go"
    home.start()
    expected = "".join(f"Größe {n}\n" for n in range(1, 6)) + "half a lüne"
    task = home.add(
        "for n in 1 2 3 4 5; do echo Größe $n; sleep 0.1; done; printf 'half a lüne';"
        f" while [ ! -e {go} ]; do sleep 0.05; done; echo ' and the rest'; echo end",
        "shell",
    )
    wait_until(
        lambda: "".join(text for _, _, text in home.server_messages(task)) == expected, "the text so far"
    )
    assert len(home.server_messages(task)) > 2
    home.kill()
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (home.directories.state / name).unlink(missing_ok=True)
    home.start()
    go.touch()
    done = home.wait(task)
    assert done["status"] == "completed"
    assert done["result"] == expected + " and the rest\nend"
    home.wait_delivered(task)
    check_transcript(home, task, expected + " and the rest\nend\n")
