from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from daemon_core.workdirs import cleanup
from daemon_core.workdirs.cleanup import Answer, Environment, Verdict, judge
from daemon_core.workdirs.directories import Stamp
from daemon_core.workdirs.trash import Removed, Trash, remove_tree

NOW = 1_800_000_000.0
HOUR = 3600.0
ENDED = "2027-01-15T00:00:00Z"  # eight hours before NOW


def environment(stamp: Stamp | None, *, touched_h: float = 0) -> Environment:
    return Environment(path=Path("/data/ws/abcd"), stamp=stamp, touched=NOW - touched_h * HOUR)


def answer(status: str, ago_h: float | None = 0) -> Answer:
    return Answer(found=True, status=status, at=None if ago_h is None else NOW - ago_h * HOUR)


GONE = Answer(found=False)
ISSUE = Stamp(kind="issue", issue_id="i", task_id="t", completed_at=ENDED)
OLD_ISSUE = Stamp(kind="issue", issue_id="i", task_id="t", completed_at="2027-01-14T00:00:00Z")
CHAT = Stamp(kind="chat", chat_session_id="c", task_id="t", completed_at=ENDED)
AUTOPILOT = Stamp(kind="autopilot_run", autopilot_run_id="a", completed_at=ENDED)
QUICK = Stamp(kind="quick_create", task_id="t", completed_at=ENDED)


@pytest.mark.parametrize(
    ("stamp", "said", "touched_h", "action", "reason"),
    [
        (None, None, 71, "keep", "orphan"),
        (None, None, 73, "delete", "orphan"),
        (Stamp(kind="chat"), None, 73, "delete", "orphan"),
        (ISSUE, answer("in_progress"), 999, "keep", "issue_open"),
        (OLD_ISSUE, answer("in_progress"), 999, "artifacts", "issue_open"),
        (ISSUE, answer("done", 23), 999, "keep", "issue_done"),
        (OLD_ISSUE, answer("done", 23), 999, "artifacts", "issue_done"),
        (ISSUE, answer("done", 25), 0, "delete", "issue_done"),
        (ISSUE, answer("cancelled", 25), 0, "delete", "issue_done"),
        (ISSUE, answer("done", None), 999, "keep", "issue_open"),
        (ISSUE, GONE, 71, "keep", "not_known"),
        (ISSUE, GONE, 73, "delete", "not_known"),
        (CHAT, GONE, 0, "delete", "conversation_gone"),
        (CHAT, answer("active", 9999), 9999, "keep", "conversation"),
        (CHAT, answer("archived", 23), 0, "keep", "archived"),
        (CHAT, answer("archived", 25), 0, "delete", "archived"),
        (AUTOPILOT, answer("running"), 9999, "keep", "run_open"),
        (AUTOPILOT, answer("issue_created"), 0, "delete", "run_over"),
        (AUTOPILOT, GONE, 73, "delete", "not_known"),
        (QUICK, answer("running"), 9999, "keep", "run_open"),
        (QUICK, answer("failed"), 0, "delete", "run_over"),
        (QUICK, GONE, 71, "keep", "not_known"),
        (CHAT, None, 9999, "keep", "no_answer"),
        (ISSUE, None, 9999, "keep", "no_answer"),
    ],
)
def test_the_rules_of_the_protocol(
    stamp: Stamp | None, said: Answer | None, touched_h: float, action: str, reason: str
) -> None:
    verdict = judge(environment(stamp, touched_h=touched_h), said, NOW)
    assert (verdict.action, verdict.reason) == (action, reason)


@pytest.mark.parametrize("said", [GONE, answer("done", 99), answer("failed", 99), None])
@pytest.mark.parametrize("stamp", [ISSUE, CHAT, AUTOPILOT, QUICK, None])
def test_beside_a_directory_of_the_user_nothing_is_deleted(stamp: Stamp | None, said: Answer | None) -> None:
    import msgspec

    known = msgspec.structs.replace(stamp or Stamp(kind="issue"), local_directory="/home/u/project")
    assert judge(environment(known, touched_h=9999), said, NOW).action != "delete"


def test_when_a_directory_goes_is_told() -> None:
    assert judge(environment(CHAT), answer("archived", 1), NOW) == Verdict(
        action="keep", reason="archived", due=NOW + 23 * HOUR
    )
    assert judge(environment(None, touched_h=2), None, NOW).due == NOW + 70 * HOUR
    assert judge(environment(CHAT), answer("active"), NOW).due is None


def test_the_budget_takes_what_ended_first() -> None:
    old, new = environment(OLD_ISSUE), environment(CHAT)
    assert cleanup.over_budget([(new, 10), (old, 10)], 25, 0) == []
    assert cleanup.over_budget([(new, 10), (old, 10)], 25, 30) == []
    assert cleanup.over_budget([(new, 10), (old, 10)], 25, 20) == [(old, 10)]
    assert cleanup.over_budget([(new, 10), (old, 10)], 25, 1) == [(old, 10), (new, 10)]


def test_a_scan_sees_what_ostler_made_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "workspaces"
    made = root / "ws" / "abcd1234"
    (made / "workdir").mkdir(parents=True)
    cleanup.write_stamp(made, CHAT)
    bad = root / "ws" / "beef0000"
    bad.mkdir()
    (bad / ".gc_meta.json").write_bytes(b"\xff{")
    (root / "ws" / "file").write_text("x")
    (root / ".repos" / "ws" / "x").mkdir(parents=True)
    (root / "ws" / ".trash").mkdir()
    (root / "ws" / "link").symlink_to(tmp_path)
    (root / "linked").symlink_to(tmp_path)
    found = {each.path: each.stamp for each in cleanup.scan(root)}
    assert found == {made: CHAT, bad: None}
    assert list(cleanup.scan(tmp_path / "nowhere")) == []


@pytest.mark.parametrize(
    ("stamp", "subject"),
    [
        (CHAT, ("chat-sessions", "c")),
        (ISSUE, ("issues", "i")),
        (AUTOPILOT, ("autopilot-runs", "a")),
        (QUICK, ("tasks", "t")),
        (Stamp(issue_id="i"), ("issues", "i")),
        (Stamp(kind="comment", issue_id="i", task_id="t"), ("issues", "i")),
        (Stamp(kind="direct", task_id="t"), ("tasks", "t")),
        (Stamp(kind="chat", task_id="t"), None),
        (Stamp(), None),
    ],
)
def test_what_a_server_is_asked_about(stamp: Stamp, subject: object) -> None:
    assert cleanup.subject_of(stamp) == subject


# --- removing ----------------------------------------------------------------------------------------------


@pytest.fixture
def trash(tmp_path: Path) -> Trash:
    root = tmp_path / "workspaces"
    root.mkdir()
    return Trash(root)


def tree(path: Path) -> None:
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "file").write_bytes(b"x" * 10_000)
    (path / "a" / "b" / "read-only").write_text("x")
    (path / "a" / "b" / "read-only").chmod(0o400)


def test_a_directory_is_thrown_away_and_taken_apart(trash: Trash, tmp_path: Path) -> None:
    made = tmp_path / "workspaces" / "ws" / "abcd"
    tree(made)
    trash.put(made)
    assert not made.exists()
    assert not trash.is_empty()
    removed = trash.empty()
    assert trash.is_empty()
    assert removed.left == []
    assert removed.freed_bytes >= 10_000
    assert removed.entries == 5


def test_what_a_crash_left_in_the_trash_goes_the_next_time(trash: Trash, tmp_path: Path) -> None:
    made = tmp_path / "workspaces" / "ws" / "abcd"
    tree(made)
    trash.put(made)
    (path,) = trash.path.iterdir()
    (path / "a" / "file").unlink()  # half way
    assert Trash(tmp_path / "workspaces").empty().left == []
    assert trash.is_empty()


def test_links_out_of_the_tree_are_not_followed(trash: Trash, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    tree(outside)
    made = tmp_path / "workspaces" / "ws" / "abcd"
    made.mkdir(parents=True)
    (made / "directory").symlink_to(outside)
    (made / "file").symlink_to(outside / "a" / "file")
    os.link(outside / "a" / "file", made / "hard")
    (made / "broken").symlink_to("/nonexistent")
    trash.put(made)
    assert trash.empty().freed_bytes <= 12_288  # directories and links: the content has another name
    assert (outside / "a" / "file").stat().st_size == 10_000
    link = tmp_path / "workspaces" / "ws" / "link"
    link.symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        trash.put(link)
    assert link.is_symlink()


def test_odd_permissions_and_a_very_deep_tree(trash: Trash, tmp_path: Path) -> None:
    made = tmp_path / "workspaces" / "ws" / "abcd"
    tree(made)
    (made / "a" / "b").chmod(0o000)
    (made / "a").chmod(0o500)
    made.chmod(0o500)
    deep = os.open(made, os.O_RDONLY)
    made.chmod(0o700)
    for _ in range(2500):  # far beyond what a path can name
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    trash.put(made)
    removed = trash.empty()
    assert removed.left == []
    assert trash.is_empty()
    assert removed.entries > 2500


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_odd_permissions_as_an_ordinary_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for path in tmp_path.parents:
        if path != Path("/") and path.stat().st_uid == 0:
            path.chmod(path.stat().st_mode | 0o011)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    program = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from daemon_core.workdirs.trash import Trash
os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = Path(sys.argv[1]); made = root / "ws" / "abcd"
(made / "a" / "b").mkdir(parents=True)
(made / "a" / "b" / "f").write_text("x")
for path in (made / "a" / "b", made / "a", made):
    path.chmod(0)
trash = Trash(root)
trash.put(made)
print(trash.empty().left, trash.is_empty())
"""
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program, str(home), str(Path(__file__).parents[2])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[] True", done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_file_system_mounted_inside_is_left_alone(trash: Trash, tmp_path: Path) -> None:
    made = tmp_path / "workspaces" / "ws" / "abcd"
    tree(made)
    mounted = made / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], check=True)
    try:
        (mounted / "precious").write_text("x")
        trash.put(made)
        removed = trash.empty()
        assert any(path.endswith("/mounted") for path in removed.left)
        (kept,) = trash.path.rglob("precious")
        assert kept.read_text() == "x"
    finally:
        mounts = Path("/proc/self/mounts").read_text()
        for line in mounts.splitlines():
            if str(tmp_path) in line:
                subprocess.run(["umount", line.split()[1]], check=True)


def test_what_vanishes_meanwhile_is_no_error(tmp_path: Path) -> None:
    removed = Removed()
    remove_tree(tmp_path / "nothing", removed, overflow=tmp_path)
    assert removed == Removed()


def test_permissions_of_what_is_kept_stay(trash: Trash, tmp_path: Path) -> None:
    parent = tmp_path / "workspaces" / "ws"
    tree(parent / "abcd")
    parent.chmod(0o750)
    trash.put(parent / "abcd")
    assert stat.S_IMODE(parent.stat().st_mode) == 0o750
