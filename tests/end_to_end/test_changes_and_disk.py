"""What tasks changed, clean-up and full disks, with the whole daemon."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.workdirs.directories import Stamp
from daemon_core.workdirs.disk import LOOK_S
from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.git_server import make_repository
from tests.workdirs.test_changes import fingerprint, git


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    git(made, "init", "-q")
    (made / "a.txt").write_text("one\ntwo\n")
    git(made, "add", "-A")
    git(made, "commit", "-q", "-m", "first", GIT_COMMITTER_DATE="2020-01-01T00:00:00Z")
    (made / "mine.txt").write_text("mine\n")
    return made


def changes(home: OstlerHome, task: str, *, stat: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = home.call("GET", f"/v1/tasks/{task}/changes" + ("?stat=1" if stat else ""))
    return found


def paths(found: dict[str, Any]) -> list[str]:
    return [file["path"] for file in found["files"]]


def command(home: OstlerHome, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *arguments],
        env=home.environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_what_a_task_changed_while_it_runs_and_when_it_has_ended(
    home: OstlerHome, project: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    home.start()
    script = f"echo x > a.txt; while [ ! -e {go} ]; do sleep 0.02; done; echo y > b.txt"
    task = home.add(script, "shell", directory=str(project))
    wait_until(lambda: (project / "a.txt").read_text() == "x\n", "the first change")
    found = changes(home, task)
    assert found["live"]
    assert (found["kind"], paths(found), found["before"]) == ("git", ["a.txt"], ["mine.txt"])
    go.touch()
    home.wait(task)
    found = changes(home, task)
    assert not found["live"]
    assert paths(found) == ["a.txt", "b.txt"]
    assert "+y" in found["files"][1]["diff"]
    assert changes(home, task, stat=True)["files"][1]["diff"] == ""
    shown = command(home, "task", "diff", task[:8])
    assert shown.returncode == 0
    assert "+++ b/b.txt" in shown.stdout
    assert "mine.txt" not in shown.stdout
    stat = command(home, "task", "diff", "--stat", task)
    assert "A  b.txt  +1 -0" in stat.stdout
    assert json.loads(command(home, "task", "diff", "--json", task).stdout)["files_total"] == 2


@pytest.mark.parametrize(
    "place", ["baseline", "spawned", "run_ended", "before_changes", "changes", "before_result"]
)
def test_the_daemon_dies_around_the_baseline_or_the_comparison(
    home: OstlerHome, project: Path, place: str
) -> None:
    home.start(kill_at=place)
    before = fingerprint(project)
    task = home.add("echo x > a.txt; echo y > b.txt", "shell", directory=str(project))
    home.wait_dead()
    home.start()
    assert home.wait(task)["status"] == "completed"
    found = changes(home, task)
    assert paths(found) == ["a.txt", "b.txt"]
    assert found["before"] == ["mine.txt"]
    after = fingerprint(project)
    assert {path for path in before if before[path] != after.get(path)} == {str(project / "a.txt")}
    assert after.keys() - before.keys() == {str(project / "b.txt")}
    assert not list((home.directories.state / "changes").glob("*/baseline"))


def test_a_task_in_a_directory_of_its_own_and_the_next_turn(home: OstlerHome) -> None:
    home.start()
    first = home.add("echo one > file", "shell")
    home.wait(first)
    assert paths(changes(home, first)) == ["file"]
    second = home.call("POST", f"/v1/tasks/{first}/reply", {"prompt": "echo two > file"})["id"]
    home.wait(second)
    assert "-one\n+two\n" in changes(home, second)["files"][0]["diff"]
    queued = home.call("POST", "/v1/daemon/pause", {}) and home.add("true", "shell")
    assert [note["code"] for note in changes(home, queued)["notes"]] == ["no_baseline"]


def test_disk_says_what_is_kept_and_why_and_clean_takes_what_may_go(home: OstlerHome) -> None:
    home.start()
    task = home.add("mkdir -p node_modules && echo x > node_modules/x; echo y > file", "shell")
    home.wait(task)
    home.wait_delivered(task)
    work_dir = Path(home.task(task)["work_dir"])
    wait_until((work_dir.parent / ".gc_meta.json").exists, "the stamp")
    orphan = home.directories.workspaces / "ws" / "dead0000"
    (orphan / "workdir").mkdir(parents=True)
    (orphan / "workdir" / "x").write_bytes(b"x" * 100_000)
    (orphan / "outside").symlink_to(home.user_home)
    (home.user_home / "precious").write_text("x")
    gone = home.directories.workspaces / "ws" / "beef0000"
    (gone / "workdir").mkdir(parents=True)
    stamp = Stamp(kind="chat", chat_session_id="3f2a0000-0000-7000-8000-000000000001", connection="hub")
    (gone / ".gc_meta.json").write_bytes(msgspec.json.encode(stamp))
    for path in (orphan / "workdir", orphan):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)

    report = home.call("GET", "/v1/disk")
    found = {entry["path"]: entry for entry in report["directories"]}
    assert found[str(work_dir.parent)]["reason"] == "conversation"
    assert found[str(work_dir.parent)]["task_id"] == task
    assert found[str(work_dir.parent)]["goes_at"] is None
    assert found[str(orphan)]["reason"] == "orphan"
    assert found[str(gone)]["reason"] == "conversation_gone"
    assert {area["name"] for area in report["areas"]} >= {
        "journal",
        "hub",
        "logs",
        "runs",
        "changes",
        "trash",
    }

    dry = command(home, "disk", "clean", "--dry-run", "--json")
    assert {item["path"] for item in json.loads(dry.stdout)["items"]} == {str(orphan), str(gone)}
    assert orphan.exists()
    done = command(home, "disk", "clean")
    assert done.returncode == 0
    assert "freed" in done.stdout
    assert not orphan.exists()
    assert not gone.exists()
    assert (work_dir / "node_modules" / "x").exists()
    assert (home.user_home / "precious").exists()
    again = json.loads(command(home, "disk", "--json").stdout)
    assert [entry["path"] for entry in again["directories"]] == [str(work_dir.parent)]
    assert again["last_clean"]["freed_bytes"] >= 100_000
    assert "its conversation is kept" in command(home, "disk").stdout
    refused = home.wait(home.add(f"{sys.executable} -m daemon_core.cli disk clean; echo code $?", "shell"))
    assert refused["result"].endswith("code 4")


def test_a_directory_in_use_stays_whatever_the_budget_says(home: OstlerHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.start(OSTLER_WORKDIRS_BUDGET="1")
    ended = home.add("head -c 100000 /dev/zero > big", "shell")
    home.wait(ended)
    home.wait_delivered(ended)
    running = home.add(f"head -c 100000 /dev/zero > big; while [ ! -e {go} ]; do sleep 0.02; done", "shell")
    home.wait(running, "running")
    done = home.call("POST", "/v1/disk/clean", {})
    assert [(item["task_id"], item["reason"]) for item in done["items"]] == [(ended, "over_budget")]
    go.touch()
    assert home.wait(running)["status"] == "completed"
    # The conversation whose directory went goes on in a new one.
    reply = home.call("POST", f"/v1/tasks/{ended}/reply", {"prompt": "ls"})["id"]
    assert home.wait(reply)["result"] == ""


def test_what_was_thrown_away_before_a_crash_goes_at_the_next_start(home: OstlerHome) -> None:
    left = home.directories.workspaces / ".trash" / "0123-x"
    left.mkdir(parents=True)
    (left / "file").write_text("x")
    (left / "closed").mkdir(mode=0o000)
    home.start()
    wait_until(lambda: not left.exists(), "the trash to be emptied")


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_no_task_is_taken_on_a_nearly_full_disk_and_it_resumes_by_itself(tmp_path: Path) -> None:
    place = tmp_path / "small"
    with small_disk(place, "40m"):
        home = OstlerHome(place)
        try:
            home.start(OSTLER_WORKDIRS_FREE_FLOOR="8MiB")
            assert home.wait(home.add("echo before", "shell"))["status"] == "completed"
            ballast = place / "ballast"
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            ballast.write_bytes(b"\0" * (free - 6 * 2**20))
            time.sleep(LOOK_S + 0.2)  # the last look holds that long
            held = home.add("echo held", "shell")
            wait_until(lambda: "disk_low" in str(home.status()["conditions"]), "the condition")
            waiting = home.task(held)["waiting"]
            assert waiting["code"] == "disk_low"
            assert waiting["params"]["floor"] == 8 * 2**20
            ballast.unlink()
            assert home.wait(held)["status"] == "completed"
            assert "disk_low" not in str(home.status()["conditions"])
        finally:
            home.close()


@pytest.mark.parametrize("by_command", [False, True])
def test_changes_in_a_repository_that_ostler_checked_out(tmp_path: Path, by_command: bool) -> None:
    home = OstlerHome(tmp_path, environ={"GIT_CONFIG_NOSYSTEM": "1"}, claude=False)
    (home.user_home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    (home.bin / "ostler").symlink_to(Path(sys.executable).parent / "ostler")
    source = make_repository(tmp_path / "srv" / "app")
    try:
        command(home, "config", "set", "repositories.urls", str(source))
        home.start()
        work = "cd app && echo new > new.txt && git add . && git commit -qm agent && echo more > more.txt"
        if by_command:
            task = home.add(f"ostler repo checkout {source} && {work}", "shell")
        else:
            task = home.add(work, "shell", repo=str(source))
        assert home.wait(task)["status"] == "completed", home.text(task)
        found = changes(home, task)
        assert paths(found) == ["app/more.txt", "app/new.txt"]
        assert [(commit["subject"], commit["repository"]) for commit in found["commits"]] == [
            ("agent", "app")
        ]
        assert found["notes"] == []
        report = home.call("GET", "/v1/disk")
        assert [repository["worktrees"] for repository in report["repositories"]] == [1]
        assert home.call("DELETE", f"/v1/tasks/{task}")["work_dir"]
        wait_until(lambda: home.call("GET", "/v1/disk")["directories"] == [], "the directory to go")
    finally:
        home.close()
