"""Whatever tasks, crashes and clean-ups come over a directory of the user: the user's own bytes, index and
references are afterwards what they were, apart from what the agent itself did."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daemon_core.workdirs import cleanup, gitstate
from daemon_core.workdirs.changes import Changes, ChangeStore
from daemon_core.workdirs.disk import find_artifacts
from daemon_core.workdirs.trash import Trash
from tests.workdirs.test_changes import fingerprint, git

NAMES = ("a.txt", "b.txt", "sub/c.txt", "sub/new.txt", "ignored/x", "ü\nname", "node_modules/m")
STEPS = ("find_work_tree", "capture", "known_commits", "differences", "commits_since", "head_of")


class CrashError(BaseException):
    """The daemon dies here. Not an ``Exception``: nothing may catch it and go on."""


@contextlib.contextmanager
def crash_at(step: str, visit: int) -> Iterator[None]:
    """Die before the n-th call of a step of the comparison."""
    patch = pytest.MonkeyPatch()
    count = 0
    real = getattr(gitstate, step)

    def dying(*arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == visit:
            raise CrashError
        return real(*arguments, **more)

    patch.setattr(gitstate, step, dying)
    try:
        yield
    finally:
        patch.undo()


def _perhaps(crash: tuple[str, int] | None) -> contextlib.AbstractContextManager[None]:
    return crash_at(*crash) if crash is not None else contextlib.nullcontext()


class UserDirectory(RuleBasedStateMachine):
    """``self.now`` is what the directory must look like: set after each thing that user or agent did."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="ostler-test-"))
        self.project = self.place / "project"
        self.store = ChangeStore(self.place / "changes")
        self.workspaces = self.place / "workspaces"
        self.trash = Trash(self.workspaces)
        self.runs = 0
        self.running = False
        self.at_start: dict[str, bytes] = {}

    @initialize(repository=st.booleans())
    def make(self, repository: bool) -> None:
        (self.project / "sub").mkdir(parents=True)
        for name in ("a.txt", "b.txt", "sub/c.txt"):
            (self.project / name).write_text(name * 3 + "\n")
        if repository:
            (self.project / ".gitignore").write_text("ignored/\nnode_modules/\n")
            git(self.project, "init", "-q")
            git(self.project, "add", "-A")
            git(self.project, "commit", "-q", "-m", "first")
        self.repository = repository
        self.now = fingerprint(self.project)

    # --- the user and the agent ----------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), content=st.binary(max_size=40))
    def write(self, name: str, content: bytes) -> None:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.now = fingerprint(self.project)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        (self.project / name).unlink(missing_ok=True)
        self.now = fingerprint(self.project)

    @rule(source=st.sampled_from(NAMES), goal=st.sampled_from(NAMES))
    def move(self, source: str, goal: str) -> None:
        if (self.project / source).exists():
            (self.project / goal).parent.mkdir(parents=True, exist_ok=True)
            (self.project / source).rename(self.project / goal)
            self.now = fingerprint(self.project)

    @rule(commit=st.booleans())
    def stage(self, commit: bool) -> None:
        if self.repository:
            git(self.project, "add", "-A")
            if commit:
                git(self.project, "commit", "-q", "--allow-empty", "-m", "more")
            self.now = fingerprint(self.project)

    # --- Ostler --------------------------------------------------------------------------------------

    @rule(crash=st.none() | st.tuples(st.sampled_from(STEPS), st.integers(1, 2)))
    def begin(self, crash: tuple[str, int] | None) -> None:
        if self.running:
            return
        self.runs += 1
        with contextlib.suppress(CrashError), _perhaps(crash):
            self.store.begin("hub/task", f"run-{self.runs}", str(self.project), own=False)
            self.running = True
            self.at_start = self._visible()
        self.store = ChangeStore(self.place / "changes")

    @rule()
    def look(self) -> None:
        found = self.store.now("hub/task")
        if self.running:
            self._check(found)

    @rule(crash=st.none() | st.tuples(st.sampled_from(STEPS), st.integers(1, 2)))
    def end(self, crash: tuple[str, int] | None) -> None:
        if not self.running:
            return
        with contextlib.suppress(CrashError), _perhaps(crash):
            self.store.finish("hub/task")
        self.store = ChangeStore(self.place / "changes")
        self.store.finish("hub/task")  # the next start does it again
        self.running = False
        self._check(self.store.read("hub/task"))

    @rule(link=st.booleans(), cut_short=st.booleans())
    def clean_up(self, link: bool, cut_short: bool) -> None:
        """A directory of ours goes that leads into the user's by links, with a crash in between."""
        environment = self.workspaces / "ws" / "abcd"
        work = environment / "workdir"
        work.mkdir(parents=True)
        (work / "link").symlink_to(self.project)
        (work / "node_modules").mkdir()
        if link:
            (work / "node_modules" / "project").symlink_to(self.project / "sub")
        (found,) = cleanup.scan(self.workspaces)
        for path in list(find_artifacts(found.path, cleanup.DEFAULT_ARTIFACTS)):
            self.trash.put(path)
        self.trash.put(found.path)
        if not cut_short:
            self.trash.empty()
        Trash(self.workspaces).empty()
        assert self.trash.is_empty()

    @invariant()
    def the_users_bytes_are_what_they_were(self) -> None:
        if hasattr(self, "now"):
            assert fingerprint(self.project) == self.now

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    # --- inside --------------------------------------------------------------------------------------

    def _visible(self) -> dict[str, bytes]:
        """What a diff has to be about: no .git, nothing ignored."""
        found = {}
        for folder, folders, names in os.walk(self.project):
            folders[:] = [name for name in folders if name not in (".git", "node_modules")]
            if self.repository:
                folders[:] = [name for name in folders if name != "ignored"]
            for name in names:
                path = Path(folder) / name
                found[str(path.relative_to(self.project))] = path.read_bytes()
        return found

    def _check(self, found: Changes | None) -> None:
        """Exactly the files whose content differs from the one at the start are told."""
        assert found is not None
        assert found.notes == []
        now = self._visible()
        differs = {
            path for path in self.at_start.keys() | now.keys() if self.at_start.get(path) != now.get(path)
        }
        told = {file.path for file in found.files} | {file.old_path for file in found.files if file.old_path}
        assert told == differs


TestUserDirectory = UserDirectory.TestCase
TestUserDirectory.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
