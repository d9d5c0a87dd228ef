"""``ostler disk`` and ``ostler task diff``: what people see of them."""

from __future__ import annotations

from daemon_core.control.views import (
    ChangeNote,
    CleanItem,
    CleanRound,
    CommitView,
    DiskArea,
    DiskDirectory,
    DiskReport,
    DiskRepository,
    DiskSpace,
    FileChangeView,
    TaskChanges,
)
from tests.cli.conftest import Ostler
from tests.control.memory_backend import MemoryBackend


async def test_disk_says_what_is_used_by_what_and_why(ostler: Ostler, backend: MemoryBackend) -> None:
    done = await ostler("disk")
    assert (done.code, "no clean-up yet" in done.err) == (0, True)
    backend.report = DiskReport(
        total_bytes=5_000_000_000,
        directories=[
            DiskDirectory(path="/w/1", bytes=4_200_000_000, artifact_bytes=4_000_000_000,
                          task_id="abcdef123456", title="Fix \x1b[31mit", reason="conversation"),
            DiskDirectory(path="/w/2", bytes=10, reason="orphan", goes_at="2026-05-07T10:00:00Z"),
        ],
        repositories=[
            DiskRepository(path="/r", name="h/team/app", bytes=790_000_000, worktrees=2),
            DiskRepository(path="/s", bytes=10_000_000, goes_at="2026-05-08T10:00:00Z"),
        ],
        areas=[DiskArea(name="journal", path="/j", bytes=12_345), DiskArea(name="trash", path="/t")],
        spaces=[DiskSpace(path="/", free=10**9, total=10**11, floor=2 * 10**9, low=True)],
        budget=50 * 10**9,
        last_clean=CleanRound(at="2026-05-04T10:00:00Z", freed_bytes=999),
    )  # fmt: skip
    done = await ostler("disk")
    assert done.code == 0
    expected = (
        "4.2 GB",
        "abcdef12",
        "its conversation is kept",
        "GOES",
        "h/team/app",
        "used by 2 task directories",
        "kept for the next task",
        "4.0 GB that tools can make again",
        "800 MB in 2 repositories",
        "12 kB",
        "50 GB",
        "below 2.0 GB no tasks are taken",
    )
    for words in expected:
        assert words in done.out, words
    assert "\x1b" not in done.out
    assert "being removed" not in done.out.lower()
    assert "nearly full" in done.err
    assert "999 B freed" in done.err
    assert (await ostler("disk", "--json")).document["budget"] == 50 * 10**9


async def test_clean_shows_what_goes(ostler: Ostler, backend: MemoryBackend) -> None:
    done = await ostler("disk", "clean", "--dry-run")
    assert done.out == "Nothing would go.\n"
    assert (await ostler("disk", "clean")).out == "No directory had to go.\n"
    backend.round = CleanRound(
        items=[
            CleanItem(path="/w/1", action="delete", reason="conversation_gone", bytes=2_000_000, title="T"),
            CleanItem(path="/w/2", action="artifacts", reason="issue_open", bytes=3_000),
            CleanItem(path="/r", action="repository", reason="unused", bytes=7, title="h/app"),
        ],
        freed_bytes=2_003_000, tasks=2, runs=1, left=["/w/.trash/x"],
    )  # fmt: skip
    done = await ostler("disk", "clean", "--dry-run")
    assert "T: its conversation was deleted" in done.out
    assert "/w/2 (what tools can make again): its issue is open" in done.out
    assert "Ostler's copy of h/app: no task has used it for long" in done.out
    assert "2.0 MB would be freed" in done.out
    done = await ostler("disk", "clean")
    assert "2.0 MB freed, 2 old tasks forgotten, the raw output of 1 run removed" in done.out
    assert "/w/.trash/x could not be removed" in done.err
    assert (await ostler("disk", "clean", "--json")).document["runs"] == 1


async def test_diff_shows_patches_commits_and_what_cannot_be_shown(
    ostler: Ostler, backend: MemoryBackend
) -> None:
    task = (await ostler("task", "add", "x", "--json")).document["id"]
    done = await ostler("task", "diff", task)
    assert (done.code, done.err) == (0, "Nothing was changed.\n")
    backend.changed = TaskChanges(
        id="",
        kind="git",
        files=[
            FileChangeView(path="a", status="modified", added=1, deleted=2, before=True, cut=True,
                           diff="diff --git a/a b/a\n-x\x1b]0;evil\x07\n"),
            FileChangeView(path="big", status="added", note="too_large"),
            FileChangeView(path="new", old_path="old", status="renamed", added=0, deleted=0),
            FileChangeView(path="picture", status="deleted", binary=True),
        ],
        files_total=4, added=1, deleted=2,
        commits=[CommitView(id="0123456789abcdef", subject="fix", made=False, repository="r")],
        commits_total=3,
        before=["a"], before_total=1,
        notes=[ChangeNote(code="bounded", params={"count": 7}), ChangeNote(code="of_the_future")],
    )  # fmt: skip
    done = await ostler("task", "diff", task)
    assert done.code == 0
    assert "commit 0123456789ab in r: fix (made before, only brought in)\n… and 2 more commits" in done.out
    assert "diff --git a/a b/a\n-x\n… the rest of a is left out" in done.out
    assert "A  big  (too large for a diff)" in done.out
    assert "7 directories were left out" in done.err
    assert "Of the future" in done.err
    assert "1 file had changes of yours before" in done.err
    done = await ostler("task", "diff", "--stat", task)
    assert "M  a  +1 -2  (you had changed it before)" in done.out
    assert "R  old → new  +0 -0" in done.out
    assert "D  picture  (binary)" in done.out
    assert "4 files changed, 1 line added, 2 taken away" in done.out
    assert (await ostler("task", "diff", "nonesuch")).code == 5
