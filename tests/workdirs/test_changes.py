from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from daemon_core.workdirs import changes as changes_module
from daemon_core.workdirs.changes import Changes, ChangeStore, FileChange
from daemon_core.workdirs.snapshots import SnapshotLimits

KEY = "hub/3f2a0000-0000-7000-8000-000000000001"
GIT_ENV = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "HOME": "/nonexistent",
}


@pytest.fixture(autouse=True)
def _plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.fixture
def store(tmp_path: Path) -> ChangeStore:
    return ChangeStore(tmp_path / "changes")


def git(directory: Path, *arguments: str, **environ: str) -> str:
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments],
        cwd=directory, env={**GIT_ENV, **environ}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "replace").strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    git(made, "init", "-q")
    (made / "a.txt").write_text("one\ntwo\nthree\n")
    (made / "b.txt").write_text("b\n" * 20)
    (made / "sub").mkdir()
    (made / "sub" / "c.txt").write_text("c\n")
    (made / ".gitignore").write_text("ignored/\n*.log\n")
    git(made, "add", "-A")
    git(made, "commit", "-q", "-m", "first", GIT_COMMITTER_DATE="2020-01-01T00:00:00Z")
    return made


def fingerprint(directory: Path) -> dict[str, tuple[str, str]]:
    """Every file with mode and content: the user's bytes, index, references and objects included."""
    found = {}
    for folder, _, names in os.walk(os.fsencode(directory)):
        for name in names:
            path = os.path.join(folder, name)
            content = os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
            found[os.fsdecode(path)] = (oct(os.lstat(path).st_mode), hashlib.sha256(content).hexdigest())
    return found


def begin(store: ChangeStore, directory: Path, *, own: bool = False, run_id: str = "run-1") -> None:
    store.begin(KEY, run_id, str(directory), own=own)


def finish(store: ChangeStore) -> Changes:
    store.finish(KEY)
    found = store.read(KEY)
    assert found is not None
    return found


def by_path(found: Changes) -> dict[str, FileChange]:
    return {file.path: file for file in found.files}


def notes(found: Changes) -> set[str]:
    return {note.code for note in found.notes}


# --- in a repository ---------------------------------------------------------------------------------------


def test_a_changed_a_new_a_deleted_and_a_moved_file_in_a_repository(
    store: ChangeStore, repository: Path
) -> None:
    before = fingerprint(repository)
    begin(store, repository)
    assert fingerprint(repository) == before
    (repository / "a.txt").write_text("one\n2\nthree\n")
    (repository / "new.txt").write_text("new\n")
    (repository / "sub" / "c.txt").unlink()
    (repository / "b.txt").rename(repository / "sub" / "moved.txt")
    (repository / "ignored").mkdir()
    (repository / "ignored" / "x").write_text("x")
    changed = fingerprint(repository)
    found = finish(store)
    assert fingerprint(repository) == changed
    assert found.kind == "git"
    assert notes(found) == set()
    files = by_path(found)
    assert {path: file.status for path, file in files.items()} == {
        "a.txt": "modified",
        "new.txt": "added",
        "sub/c.txt": "deleted",
        "sub/moved.txt": "renamed",
    }
    assert files["sub/moved.txt"].old_path == "b.txt"
    assert (files["a.txt"].added, files["a.txt"].deleted) == (1, 1)
    assert "-two\n+2\n" in files["a.txt"].diff
    assert files["a.txt"].diff.startswith("diff --git a/a.txt b/a.txt\n")
    assert "--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+new\n" in files["new.txt"].diff
    assert (found.added, found.deleted) == (2, 2)


def test_a_diff_can_be_applied(store: ChangeStore, repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    begin(store, repository)
    (repository / "a.txt").write_text("one\n2\nthree\nno end")
    (repository / "new file.txt").write_text("new\n")
    (repository / "sub" / "c.txt").unlink()
    (repository / "b.txt").rename(repository / "moved.txt")
    patch = "".join(file.diff for file in finish(store).files)
    (tmp_path / "patch").write_text(patch)
    git(copy, "apply", str(tmp_path / "patch"))
    names = ("a.txt", "new file.txt", "moved.txt")
    assert [(copy / name).read_text() for name in names] == [
        (repository / name).read_text() for name in names
    ]
    assert not (copy / "sub" / "c.txt").exists()


def test_what_the_user_had_changed_before_is_told_apart(store: ChangeStore, repository: Path) -> None:
    (repository / "a.txt").write_text("users\ntwo\nthree\n")
    (repository / "b.txt").write_text("staged\n")
    git(repository, "add", "b.txt")
    (repository / "notes.txt").write_text("mine\n")
    begin(store, repository)
    (repository / "a.txt").write_text("users\ntwo\nagent\n")
    found = finish(store)
    files = by_path(found)
    assert list(files) == ["a.txt"]
    assert files["a.txt"].before
    assert "users" not in [line[1:] for line in files["a.txt"].diff.splitlines() if line[:1] in "+-"]
    assert found.before == ["a.txt", "b.txt", "notes.txt"]


def test_commits_of_the_agent_are_listed_and_their_changes_shown(
    store: ChangeStore, repository: Path
) -> None:
    (repository / "notes.txt").write_text("mine\n")
    begin(store, repository)
    (repository / "a.txt").write_text("committed\n")
    git(repository, "commit", "-q", "-am", "second: with ünicode")
    git(repository, "checkout", "-q", "-b", "side")
    (repository / "d.txt").write_text("d\n")
    git(repository, "add", "d.txt")
    git(repository, "commit", "-q", "-m", "third")
    git(repository, "checkout", "-q", "main")
    found = finish(store)
    assert [file.path for file in found.files] == ["a.txt"]
    assert {commit.subject for commit in found.commits} == {"second: with ünicode", "third"}
    assert all(commit.made and commit.author == "Ada" for commit in found.commits)
    assert found.commits_total == 2


def test_commits_that_were_only_fetched_are_told_apart(
    store: ChangeStore, repository: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    (repository / "a.txt").write_text("theirs\n")
    git(repository, "commit", "-q", "-am", "theirs", GIT_COMMITTER_DATE="2021-01-01T00:00:00Z")
    begin(store, copy)
    git(copy, "pull", "-q")
    (commit,) = finish(store).commits
    assert (commit.subject, commit.made) == ("theirs", False)


def test_a_commit_that_was_taken_back_is_not_listed(store: ChangeStore, repository: Path) -> None:
    begin(store, repository)
    (repository / "a.txt").write_text("x\n")
    git(repository, "commit", "-q", "-am", "gone")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    found = finish(store)
    assert found.commits == []
    assert found.files == []


def test_a_sub_directory_of_a_repository_shows_only_itself(store: ChangeStore, repository: Path) -> None:
    begin(store, repository / "sub")
    (repository / "a.txt").write_text("elsewhere\n")
    (repository / "sub" / "c.txt").write_text("here\n")
    (repository / "sub" / "n.txt").write_text("new\n")
    found = finish(store)
    assert sorted(by_path(found)) == ["c.txt", "n.txt"]
    assert "a/c.txt" in by_path(found)["c.txt"].diff


def test_a_repository_without_a_commit(store: ChangeStore, tmp_path: Path) -> None:
    made = tmp_path / "empty"
    made.mkdir()
    git(made, "init", "-q")
    (made / "mine").write_text("mine\n")
    begin(store, made)
    (made / "theirs").write_text("theirs\n")
    git(made, "add", "-A")
    git(made, "commit", "-q", "-m", "first")
    found = finish(store)
    assert list(by_path(found)) == ["theirs"]
    assert found.before == ["mine"]
    assert [commit.subject for commit in found.commits] == ["first"]


def test_names_of_any_bytes_links_binaries_and_modes(store: ChangeStore, repository: Path) -> None:
    root = os.fsencode(repository)
    begin(store, repository)
    for name in (b"tab\there", b"line\nfeed", b"\xff\xfe", b'"quoted"', b"-rf", b":(glob)*", " ü".encode()):
        with open(os.path.join(root, name), "wb") as stream:
            stream.write(b"x\n")
    (repository / "picture").write_bytes(b"\0\1\2")
    (repository / "link").symlink_to("/etc/passwd")
    (repository / "sub" / "c.txt").chmod(0o755)
    (repository / "b.txt").unlink()
    (repository / "b.txt").symlink_to("a.txt")
    files = by_path(finish(store))
    assert {"tab\there", "line\nfeed", "\\xff\\xfe", '"quoted"', "-rf", ":(glob)*", " ü"} <= files.keys()
    assert files["picture"].binary
    assert "+/etc/passwd" in files["link"].diff
    assert "root:" not in files["link"].diff
    assert "new mode 100755" in files["sub/c.txt"].diff
    assert files["b.txt"].status == "type_changed"
    assert files["tab\there"].diff.count("diff --git") == 1


def test_a_file_and_a_directory_that_change_places(store: ChangeStore, repository: Path) -> None:
    begin(store, repository)
    (repository / "a.txt").unlink()
    (repository / "a.txt").mkdir()
    (repository / "a.txt" / "inside").write_text("x\n")
    (repository / "sub" / "c.txt").unlink()
    (repository / "sub").rmdir()
    (repository / "sub").write_text("now a file\n")
    files = by_path(finish(store))
    assert {path: file.status for path, file in files.items()} == {
        "a.txt": "deleted",
        "a.txt/inside": "added",
        "sub": "added",
        "sub/c.txt": "deleted",
    }


def test_large_files_are_known_by_size_and_time(
    store: ChangeStore, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon_core.workdirs.gitstate.FILE_LIMIT_BYTES", 1000)
    (repository / "kept.bin").write_bytes(b"k" * 2000)
    (repository / "grows.bin").write_bytes(b"g" * 2000)
    begin(store, repository)
    (repository / "grows.bin").write_bytes(b"g" * 3000)
    (repository / "new.bin").write_bytes(b"n" * 3000)
    (repository / "a.txt").write_bytes(b"a" * 3000)
    files = by_path(finish(store))
    assert {path: (file.status, file.note) for path, file in files.items()} == {
        "grows.bin": ("modified", "too_large"),
        "new.bin": ("added", "too_large"),
        "a.txt": ("modified", "too_large"),
    }


def test_nothing_of_the_user_is_run(store: ChangeStore, repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {ran}\ncat\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.dat filter=evil diff=evil\n*.txt diff=evil\n")
    (repository / "x.dat").write_text("data\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "attributes")
    for name in ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.command",
                 "diff.evil.textconv", "diff.external", "core.fsmonitor", "core.pager"):  # fmt: skip
        git(repository, "config", name, str(program))
    git(repository, "config", "filter.evil.required", "true")
    for hook in ("post-index-change", "pre-auto-gc", "reference-transaction", "fsmonitor-watchman"):
        (repository / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\necho {hook} >> {ran}\n")
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    before = fingerprint(repository)
    begin(store, repository)
    assert fingerprint(repository) == before
    (repository / "x.dat").write_text("changed\n")
    (repository / "a.txt").write_text("changed\n")
    files = by_path(finish(store))
    assert not ran.exists()
    assert files["x.dat"].note == "filtered"
    assert "+changed" in files["a.txt"].diff


def test_an_unmerged_index_is_no_obstacle(store: ChangeStore, repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "side")
    (repository / "a.txt").write_text("side\n")
    git(repository, "commit", "-q", "-am", "side")
    git(repository, "checkout", "-q", "main")
    (repository / "a.txt").write_text("main\n")
    git(repository, "commit", "-q", "-am", "main")
    subprocess.run(
        ["git", "merge", "-q", "side"], cwd=repository, env=GIT_ENV, capture_output=True, check=False
    )
    before = fingerprint(repository)
    begin(store, repository)
    assert fingerprint(repository) == before
    (repository / "a.txt").write_text("resolved\n")
    (file,) = finish(store).files
    assert file.status == "modified"
    assert "+resolved" in file.diff
    assert "-<<<<<<<" in file.diff


def test_submodules_and_nested_repositories_are_told_by_their_commit(
    store: ChangeStore, repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(repository), str(other))
    git(repository, "submodule", "--quiet", "add", str(other), "module")
    git(repository, "commit", "-q", "-m", "module")
    begin(store, repository)
    (repository / "module" / "a.txt").write_text("x\n")
    git(repository / "module", "commit", "-q", "-am", "inside")
    git(tmp_path, "clone", "-q", str(other), str(repository / "nested"))
    (repository / "unborn").mkdir()
    git(repository / "unborn", "init", "-q")
    files = by_path(finish(store))
    assert files["module"].note == "submodule"
    assert "Subproject commit" in files["module"].diff
    assert files["nested"].note == "submodule"


def test_a_linked_work_tree_is_a_repository_too(store: ChangeStore, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    before = fingerprint(repository)
    begin(store, tmp_path / "tree")
    (tmp_path / "tree" / "a.txt").write_text("x\n")
    found = finish(store)
    assert list(by_path(found)) == ["a.txt"]
    assert fingerprint(repository) == before


def test_a_split_and_a_sparse_index_are_read_and_left_alone(store: ChangeStore, repository: Path) -> None:
    git(repository, "update-index", "--split-index")
    before = fingerprint(repository)
    begin(store, repository)
    (repository / "a.txt").write_text("x\n")
    assert [file.path for file in finish(store).files] == ["a.txt"]
    (repository / "a.txt").write_text("one\ntwo\nthree\n")
    assert fingerprint(repository) == before


def test_a_damaged_repository_does_no_harm(store: ChangeStore, repository: Path) -> None:
    (repository / ".git" / "index").write_bytes(b"rubbish")
    begin(store, repository)
    (repository / "a.txt").write_text("x\n")
    found = finish(store)
    assert notes(found) & {"not_compared", "before_unknown"}


def test_a_directory_that_is_gone_at_the_end(store: ChangeStore, repository: Path) -> None:
    begin(store, repository)
    repository.rename(repository.with_name("elsewhere"))
    assert notes(finish(store)) == {"not_compared"}


def test_an_ignored_directory_of_a_repository_is_a_plain_one(store: ChangeStore, repository: Path) -> None:
    inside = repository / "ignored" / "work"
    inside.mkdir(parents=True)
    begin(store, inside)
    (inside / "x").write_text("x\n")
    found = finish(store)
    assert found.kind == "snapshot"
    assert list(by_path(found)) == ["x"]


def test_without_git_a_repository_is_compared_as_a_directory(
    store: ChangeStore, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    begin(store, repository)
    (repository / "a.txt").write_text("x\n")
    found = finish(store)
    assert found.kind == "snapshot"
    assert "+x" in by_path(found)["a.txt"].diff


# --- plain directories -------------------------------------------------------------------------------------


def test_a_plain_directory(store: ChangeStore, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "keep").write_text("keep\n")
    (work / "edit").write_text("one\ntwo")
    (work / "gone").write_text("gone\n")
    (work / "move").write_text("move\n")
    (work / "bin").write_bytes(b"\0" * 10)
    (work / "link").symlink_to("keep")
    (work / "node_modules").mkdir()
    begin(store, work)
    (work / "edit").write_text("one\nTWO\n")
    (work / "gone").unlink()
    (work / "move").rename(work / "moved")
    (work / "bin").write_bytes(b"\0" * 11)
    (work / "link").unlink()
    (work / "link").symlink_to("edit")
    (work / "node_modules" / "x").write_text("x")
    (work / "keep").touch()
    os.mkfifo(work / "pipe")
    found = finish(store)
    files = by_path(found)
    assert {path: file.status for path, file in files.items()} == {
        "edit": "modified",
        "gone": "deleted",
        "moved": "renamed",
        "bin": "modified",
        "link": "modified",
        "pipe": "added",
    }
    assert files["edit"].diff.endswith("@@ -1,2 +1,2 @@\n one\n-two\n\\ No newline at end of file\n+TWO\n"), (
        files["edit"].diff
    )
    assert files["bin"].binary or files["bin"].note == "not_copied"
    assert files["pipe"].note == "special"
    assert "-keep" in files["link"].diff
    assert found.kind == "snapshot"


def test_a_snapshot_that_is_too_large_says_so_and_calls_nothing_new_or_gone(
    tmp_path: Path,
) -> None:
    store = ChangeStore(tmp_path / "changes", limits=SnapshotLimits(entries=20))
    work = tmp_path / "work"
    for folder in range(5):
        (work / f"d{folder}").mkdir(parents=True)
        for number in range(8):
            (work / f"d{folder}" / f"f{number}").write_text("x\n")
    begin(store, work)
    (work / "d0" / "f0").write_text("changed\n")
    for folder in range(5):
        (work / f"d{folder}" / "new").write_text("new\n")
    found = finish(store)
    assert "bounded" in notes(found)
    assert all(file.status != "deleted" for file in found.files)
    assert len(found.files) <= 3


def test_a_repository_that_the_task_checked_out_shows_what_came_after_it(
    store: ChangeStore, repository: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "own").write_text("x\n")
    begin(store, work, own=True)
    git(tmp_path, "clone", "-q", str(repository), str(work / "project"))
    (work / "project" / "a.txt").write_text("changed\n")
    git(work / "project", "commit", "-q", "-am", "by the agent")
    (work / "project" / "new.txt").write_text("new\n")
    (work / "own").write_text("y\n")
    found = finish(store)
    assert sorted(by_path(found)) == ["own", "project/a.txt", "project/new.txt"]
    assert "b/project/a.txt" in by_path(found)["project/a.txt"].diff
    assert [(commit.subject, commit.repository) for commit in found.commits] == [("by the agent", "project")]


def test_a_linked_work_tree_of_a_bare_repository_that_the_task_checked_out(
    store: ChangeStore, repository: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(tmp_path / "cache.git"))
    begin(store, work, own=True)
    git(tmp_path / "cache.git", "worktree", "add", "-q", "-b", "agent/x", str(work / "project"), "main")
    (work / "project" / "a.txt").write_text("changed\n")
    git(work / "project", "commit", "-q", "-am", "by the agent")
    found = finish(store)
    assert list(by_path(found)) == ["project/a.txt"], found
    assert [commit.subject for commit in found.commits] == ["by the agent"]


def test_a_repository_that_the_task_began(store: ChangeStore, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    begin(store, work, own=True)
    (work / "made").mkdir()
    git(work / "made", "init", "-q")
    (work / "made" / "x").write_text("x\n")
    git(work / "made", "add", "-A")
    git(work / "made", "commit", "-q", "-m", "first")
    found = finish(store)
    assert by_path(found)["made/x"].status == "added"
    assert [commit.subject for commit in found.commits] == ["first"]


def test_a_repository_inside_is_there_on_the_next_turn(
    store: ChangeStore, repository: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(tmp_path, "clone", "-q", str(repository), str(work / "project"))
    (work / "project" / "a.txt").write_text("turn one\n")
    begin(store, work, own=True)
    (work / "project" / "b.txt").write_text("turn two\n")
    found = finish(store)
    assert list(by_path(found)) == ["project/b.txt"]
    assert found.before == ["project/a.txt"]


def test_a_directory_that_is_named_by_a_link(store: ChangeStore, repository: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    repository.rename(real / "project")
    (tmp_path / "link").symlink_to(real)
    begin(store, tmp_path / "link")
    (real / "project" / "a.txt").write_text("x\n")
    (real / "plain").write_text("x\n")
    assert sorted(by_path(finish(store))) == ["plain", "project/a.txt"]
    begin(store, tmp_path / "link" / "project")
    (real / "project" / "b.txt").write_text("x\n")
    found = finish(store)
    assert (found.kind, list(by_path(found))) == ("git", ["b.txt"])


def test_a_repository_above_a_directory_of_ostler_is_not_looked_at(
    store: ChangeStore, repository: Path
) -> None:
    work = repository / "data" / "workdir"
    work.mkdir(parents=True)
    begin(store, work, own=True)
    (work / "x").write_text("x\n")
    assert finish(store).kind == "snapshot"


# --- the store ---------------------------------------------------------------------------------------------


def test_changes_of_a_running_task_and_again_at_its_end(store: ChangeStore, repository: Path) -> None:
    begin(store, repository)
    (repository / "a.txt").write_text("x\n")
    live = store.now(KEY)
    assert live is not None
    assert [file.path for file in live.files] == ["a.txt"]
    (repository / "b.txt").write_text("x\n")
    assert sorted(by_path(finish(store))) == ["a.txt", "b.txt"]
    assert store.now(KEY) is None
    assert not store.has_baseline(KEY)
    store.finish(KEY)
    assert store.read(KEY) is not None
    assert store.counted(KEY) == store.count(KEY) == 2
    later = ChangeStore(store.root)
    assert later.counted(KEY) is None
    assert later.count(KEY) == 2
    assert later.counted(KEY) == 2
    begin(store, repository, run_id="run-2")
    assert store.counted(KEY) is None
    assert store.count(KEY) is None


def test_a_second_run_of_the_task_keeps_the_baseline_and_a_repeated_start_takes_a_new_one(
    store: ChangeStore, repository: Path
) -> None:
    begin(store, repository, run_id="run-1")
    (repository / "a.txt").write_text("x\n")
    begin(store, repository, run_id="run-2")
    assert [file.path for file in finish(store).files] == ["a.txt"]
    begin(store, repository, run_id="run-3")
    assert store.read(KEY) is None
    (repository / "b.txt").write_text("user, before the start\n")
    begin(store, repository, run_id="run-3")
    assert finish(store).files == []


def test_a_long_diff_is_cut_and_says_so(
    store: ChangeStore, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "FILE_DIFF_BYTES", 500)
    begin(store, repository)
    (repository / "long").write_text("".join(f"line {number}\n" for number in range(1000)))
    found = finish(store)
    (file,) = found.files
    assert file.cut
    assert len(file.diff) <= 500
    assert file.diff.endswith("\n")
    assert file.added == 1000
    assert "diff_cut" in notes(found)


def test_only_the_changes_of_known_tasks_are_kept(store: ChangeStore, repository: Path) -> None:
    begin(store, repository)
    finish(store)
    store.begin("hub/other", "run", str(repository), own=False)
    assert store.forget_others([KEY], store.names()) == 1
    assert store.read(KEY) is not None
    assert not store.has_baseline("hub/other")


def test_a_baseline_does_not_take_long(store: ChangeStore, tmp_path: Path) -> None:
    """A bound far above what it takes, so that a slow machine passes."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q")
    for folder in range(50):
        (work / f"d{folder}").mkdir()
        for number in range(100):
            (work / f"d{folder}" / f"f{number}").write_text(f"{folder} {number}\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "many")
    began = time.monotonic()
    begin(store, work)
    assert time.monotonic() - began < 3.0
    assert finish(store).notes == []
