from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.protocol.wire import Skill, SkillFile
from daemon_core.workdirs import manifest as manifests
from daemon_core.workdirs import marked_block
from daemon_core.workdirs.environments import Environments, Marker, Refused, Wanted
from daemon_core.workdirs.manifest import Plan
from tests.support.layouts import layout_of


class Crash(BaseException):
    """The machine goes down here."""


def crash_at(number: int) -> Callable[[], None]:
    left = number

    def step() -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1

    return step


def state(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Every path with its mode and content (a link's target, None for a directory)."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for place in sorted(root.rglob("*")):
        content: bytes | str | None
        if place.is_symlink():
            content = os.readlink(place)
        else:
            content = place.read_bytes() if place.is_file() else None
        found[str(place.relative_to(root))] = (place.lstat().st_mode, content)
    return found


# --- the block ---------------------------------------------------------------------------------


@given(st.binary(), st.text())
def test_a_block_comes_out_of_a_file_to_the_byte(content: bytes, text: str) -> None:
    if marked_block.BEGIN in content:
        return
    assert marked_block.without_block(marked_block.with_block(content, text)) == content


def test_a_block_that_is_there_is_replaced_where_it_is() -> None:
    once = marked_block.with_block(b"before", "one") + b"after\n"
    twice = marked_block.with_block(once, "two")
    assert twice == b"before\n\n" + marked_block.block("two") + b"after\n"
    assert marked_block.without_block(twice) == b"beforeafter\n"


def test_a_block_without_its_end_goes_to_the_end_of_the_file() -> None:
    broken = b"mine\n\n" + marked_block.BEGIN + b"\nlost"
    assert marked_block.with_block(broken, "new") == b"mine\n\n" + marked_block.block("new")
    assert marked_block.without_block(broken) == b"mine"


def test_an_end_before_the_beginning_does_not_count() -> None:
    content = marked_block.END + b"\nmine"
    assert marked_block.without_block(marked_block.with_block(content, "x")) == content


def test_markers_in_a_brief_do_not_end_its_block() -> None:
    made = marked_block.block(f"a {marked_block.END.decode()} b {marked_block.BEGIN.decode()} c")
    assert (made.count(marked_block.BEGIN), made.count(marked_block.END)) == (1, 1)


# --- any sequence of preparing, dying and rolling back -------------------------------------------

_NAMES = ("AGENTS.md", ".opencode", ".opencode/skills", ".opencode/skills/deploy",
          ".opencode/skills/deploy/SKILL.md", ".opencode/skills/deploy/scripts/run.sh",
          ".multica/daemon_task_context.json", "src/main.py", ".ostler/context.md")  # fmt: skip
_CONTENTS = st.sampled_from(
    [
        b"",
        b"mine",
        b"mine\n",
        b"mine\n\n",
        b"\xff\x00\r\n",
        marked_block.with_block(b"old\n", "stale") + b"tail",
        b"x" * 5000,
        Marker(path="x", managed_by="multica-daemon-task", fields={"agent_id": "other"}).content(),
    ]
)
_TREES = st.dictionaries(
    st.sampled_from(_NAMES), st.tuples(_CONTENTS, st.sampled_from([0o644, 0o600, 0o755])), max_size=6
)
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("prepare"), st.integers(0, 60)),
        st.tuples(st.just("roll_back"), st.integers(0, 40)),
        st.tuples(st.just("prepare"), st.none()),
        st.tuples(st.just("roll_back"), st.none()),
    ),
    max_size=6,
)


def _wanted(root: Path, run_dir: Path, provider: str) -> Wanted:
    return Wanted(
        label="t1",
        layout=layout_of(provider),
        work_dir=root,
        user_owned=True,
        run_dir=run_dir,
        brief=lambda skills, folder: f"Brief: {[skill.directory for skill in skills]} {folder}",
        skills=[
            Skill(
                id="s1",
                name="Deploy",
                content="# how\n",
                files=[SkillFile(path="scripts/run.sh", content="echo\n"), SkillFile(path="empty")],
            ),
            Skill(id="s2", name="deploy", content="---\nname: deploy\n---\nother"),
        ],
        context={"context.md": b"card\n"},
        user_markers=[
            Marker(
                path=".multica/daemon_task_context.json",
                managed_by="multica-daemon-task",
                fields={"agent_id": "a"},
            )
        ],
    )


@settings(max_examples=150, deadline=None)
@given(_TREES, _ACTIONS, st.sampled_from(["opencode", "claude"]), st.booleans())
def test_whatever_happens_the_users_bytes_are_as_they_were(
    tree: dict[str, tuple[bytes, int]],
    actions: list[tuple[str, int | None]],
    provider: str,
    repository: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        root, run_dir = base / "project", base / "run"
        root.mkdir()
        run_dir.mkdir()
        if repository:
            (root / ".git").mkdir()
        for name, (content, mode) in tree.items():
            target = root / name
            if target.exists() or any((root / part).is_file() for part in target.relative_to(root).parents):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(mode)
        before = state(root)
        times = {name: (root / name).stat().st_mtime_ns for name in before if (root / name).is_file()}
        environments = Environments(base / "manifests")
        for action, when in actions:
            step = crash_at(when) if when is not None else lambda: None
            try:
                if action == "prepare":
                    environments.prepare(_wanted(root, run_dir, provider), step=step)
                else:
                    environments.roll_back(root, user_owned=True, step=step)
            except Crash:
                environments = Environments(base / "manifests")  # another life
            except Refused:
                pass
        environments.roll_back(root, user_owned=True)
        assert state(root) == before
        assert {name: (root / name).stat().st_mtime_ns for name in times} == times
        assert not list((base / "manifests").glob("*.json"))


def test_a_death_at_every_single_write_is_mended(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "AGENTS.md").write_bytes(b"mine, without a newline")
    before = state(root)
    environments = Environments(tmp_path / "manifests")
    (tmp_path / "run").mkdir()
    number = 0
    while True:
        try:
            environments.prepare(_wanted(root, tmp_path / "run", "opencode"), step=crash_at(number))
        except Crash:
            again = 0
            while True:
                try:
                    environments.roll_back(root, user_owned=True, step=crash_at(again))
                except Crash:
                    again += 1
                else:
                    break
            assert state(root) == before, f"after a death at write {number}"
            number += 1
        else:
            break
    assert number > 20
    assert b"mine, without a newline" in (root / "AGENTS.md").read_bytes()


# --- what others did meanwhile -------------------------------------------------------------------


def _made(tmp_path: Path, fill: Callable[[Plan], object]) -> tuple[Path, Path]:
    root = tmp_path / "project"
    root.mkdir(exist_ok=True)
    plan = Plan(root)
    fill(plan)
    manifests.carry_out(tmp_path / "m" / "manifest.json", plan, label="t1")
    return root, tmp_path / "m" / "manifest.json"


def test_a_file_that_somebody_changed_stays_and_is_told(tmp_path: Path) -> None:
    def fill(plan: Plan) -> None:
        plan.add_file("a/ours", b"ours")
        plan.add_file("a/changed", b"ours")

    root, manifest = _made(tmp_path, fill)
    (root / "a" / "changed").write_bytes(b"theirs")
    done = manifests.roll_back(manifest)
    assert done is not None
    assert done.kept == ["a/changed"]
    assert state(root).keys() == {"a", "a/changed"}


def test_what_an_agent_wrote_around_the_block_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "AGENTS.md").write_bytes(b"mine\n")
    _, manifest = _made(tmp_path, lambda plan: plan.add_block("AGENTS.md", "brief"))
    with open(root / "AGENTS.md", "ab") as file:
        file.write(b"learnt today\n")
    done = manifests.roll_back(manifest)
    assert done is not None
    assert done.kept == ["AGENTS.md"]
    assert (root / "AGENTS.md").read_bytes() == b"mine\nlearnt today\n"


def test_a_brief_file_of_ours_that_somebody_wrote_into_loses_the_block_only(tmp_path: Path) -> None:
    root, manifest = _made(tmp_path, lambda plan: plan.add_block("AGENTS.md", "brief"))
    with open(root / "AGENTS.md", "ab") as file:
        file.write(b"learnt today\n")
    manifests.roll_back(manifest)
    assert (root / "AGENTS.md").read_bytes() == b"learnt today\n"


def test_a_symbolic_link_to_a_brief_file_inside_is_followed_and_one_outside_is_left(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "AGENTS.md").write_bytes(b"mine")
    (root / "CLAUDE.md").symlink_to("AGENTS.md")
    outside = tmp_path / "outside.md"
    outside.write_bytes(b"mine")
    (root / "GEMINI.md").symlink_to(outside)
    plan = Plan(root)
    assert plan.add_block("CLAUDE.md", "brief")
    assert not plan.add_block("GEMINI.md", "brief")
    before = state(root)
    manifests.carry_out(tmp_path / "manifest.json", plan)
    assert (root / "CLAUDE.md").is_symlink()
    assert b"brief" in (root / "AGENTS.md").read_bytes()
    manifests.roll_back(tmp_path / "manifest.json")
    assert state(root) == before


def test_hard_links_inode_and_time_of_an_edited_file_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    file = root / "AGENTS.md"
    file.write_bytes(b"mine\n")
    os.utime(file, ns=(1, 1_000_000_007))
    os.link(file, tmp_path / "other-name")
    inode = file.stat().st_ino
    _, manifest = _made(tmp_path, lambda plan: plan.add_block("AGENTS.md", "brief"))
    manifests.roll_back(manifest)
    found = file.stat()
    assert (found.st_ino, found.st_nlink, found.st_mtime_ns) == (inode, 2, 1_000_000_007)
    assert file.read_bytes() == b"mine\n"


def test_nothing_is_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / ".claude").symlink_to(elsewhere)
    plan = Plan(root)
    assert not plan.add_file(".claude/skills/x/SKILL.md", b"x")
    assert not plan
    assert not list(elsewhere.iterdir())


def test_a_file_where_a_directory_is_needed_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".claude").write_bytes(b"a file")
    assert not Plan(tmp_path).add_file(".claude/skills/x/SKILL.md", b"x")


def test_a_name_that_somebody_takes_in_between_stays_theirs(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    plan = Plan(root)
    plan.add_file("ours", b"ours")
    (root / "ours").write_bytes(b"theirs")
    manifests.carry_out(tmp_path / "manifest.json", plan)
    manifests.roll_back(tmp_path / "manifest.json")
    assert state(root).keys() == {"ours"}
    assert (root / "ours").read_bytes() == b"theirs"


def test_a_directory_that_is_not_mounted_keeps_its_manifest(tmp_path: Path) -> None:
    root, manifest = _made(tmp_path, lambda plan: plan.add_file("a", b"a"))
    shutil.move(root, tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        manifests.roll_back(manifest)
    shutil.move(tmp_path / "away", root)
    manifests.roll_back(manifest)
    assert state(root) == {}


def test_a_manifest_is_not_written_over(tmp_path: Path) -> None:
    root, manifest = _made(tmp_path, lambda plan: plan.add_file("a", b"a"))
    plan = Plan(root)
    plan.add_file("b", b"b")
    with pytest.raises(FileExistsError):
        manifests.carry_out(manifest, plan)
    assert not (root / "b").exists()


@pytest.mark.parametrize("content", [b"{", b'{"root": "\xff"}'])
def test_a_damaged_manifest_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert manifests.roll_back(tmp_path / "manifest.json") is None
    assert (tmp_path / "manifest.damaged").exists()
    assert "cannot be read" in caplog.text
