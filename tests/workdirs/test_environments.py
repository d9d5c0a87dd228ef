from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from daemon_core.protocol.wire import Skill
from daemon_core.workdirs import marked_block
from daemon_core.workdirs.environments import Environments, Marker, Refused, Wanted
from daemon_core.workdirs.manifest import Plan
from tests.support.layouts import layout_of
from tests.workdirs.test_manifest import state

SKILL = Skill(id="s", name="Deploy", content="how", description="about it")
MULTICA = Marker(path=".multica/daemon_task_context.json", managed_by="multica-daemon-task")


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    return Environments(tmp_path / "manifests")


def wanted(
    tmp_path: Path, root: Path, *, provider: str = "opencode", user_owned: bool = True, label: str = "t1"
) -> Wanted:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Wanted(
        label=label,
        layout=layout_of(provider),
        work_dir=root,
        user_owned=user_owned,
        run_dir=tmp_path / "run",
        brief=lambda skills, folder: f"brief {[skill.directory for skill in skills]} {folder}",
        skills=[SKILL],
        context={"context.md": b"card\n", "project/resources.json": b"{}\n"},
        markers=[Marker(path=".ostler/task.json", managed_by="ostler-task", fields={"agent_id": "a"})],
        environ=dict(os.environ),
        user_markers=[MULTICA],
    )


def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    return root


def repository(tmp_path: Path) -> Path:
    root = project(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def own(tmp_path: Path) -> Path:
    root = tmp_path / "env" / "workdir"
    root.mkdir(parents=True)
    return root


# --- Ostler's own directories --------------------------------------------------------------------


def test_an_own_directory_has_everything(environments: Environments, tmp_path: Path) -> None:
    root = own(tmp_path)
    prepared = environments.prepare(wanted(tmp_path, root, user_owned=False))
    assert sorted(path for path, (_, content) in state(root).items() if content is not None) == [
        ".multica/daemon_task_context.json",
        ".opencode/skills/deploy/SKILL.md",
        ".ostler/context.md",
        ".ostler/project/resources.json",
        ".ostler/task.json",
        "AGENTS.md",
    ]
    assert json.loads((root / ".ostler" / "task.json").read_text()) == {
        "managed_by": "ostler-task",
        "agent_id": "a",
    }
    assert prepared.way == "file"
    assert prepared.brief == "brief ['.opencode/skills/deploy'] .ostler"
    assert (root / "AGENTS.md").read_bytes() == marked_block.block(prepared.brief)
    assert prepared.excludes == ""
    assert (tmp_path / "env" / ".ostler_manifest.json").exists()
    assert "AGENTS.md" in environments.our_paths(root, user_owned=False)


def test_a_reused_directory_loses_what_the_run_before_had(environments: Environments, tmp_path: Path) -> None:
    root = own(tmp_path)
    environments.prepare(wanted(tmp_path, root, user_owned=False))
    (root / "made-by-agent").write_text("keep")
    (root / "AGENTS.md").write_bytes((root / "AGENTS.md").read_bytes() + b"learnt\n")
    environments.prepare(wanted(tmp_path, root, user_owned=False, provider="claude", label="t2"))
    files = [path for path, (_, content) in state(root).items() if content is not None]
    assert ".opencode/skills/deploy/SKILL.md" not in files
    assert ".claude/skills/deploy/SKILL.md" in files
    assert (root / "AGENTS.md").read_bytes() == b"learnt\n"
    assert "made-by-agent" in files


def test_a_context_file_that_somebody_else_has_is_left(environments: Environments, tmp_path: Path) -> None:
    root = own(tmp_path)
    (root / ".ostler").mkdir()
    (root / ".ostler" / "context.md").write_text("theirs")
    prepared = environments.prepare(wanted(tmp_path, root, user_owned=False))
    assert (root / ".ostler" / "context.md").read_text() == "theirs"
    assert any("context.md" in note for note in prepared.notes)


# --- markers -----------------------------------------------------------------------------------


def test_a_marker_of_ours_is_refreshed_and_comes_back(environments: Environments, tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / ".multica").mkdir()
    file = root / MULTICA.path
    file.write_text('{"managed_by": "multica-daemon-task", "issue_id": "old"}')
    before = state(root)
    environments.prepare(wanted(tmp_path, root))
    assert json.loads(file.read_text()) == {"managed_by": "multica-daemon-task"}
    environments.roll_back(root, user_owned=True)
    assert state(root) == before


@pytest.mark.parametrize("content", ["", "[]", '{"managed_by": "somebody"}'])
def test_a_marker_of_another_program_is_refused_and_nothing_is_left(
    environments: Environments, tmp_path: Path, content: str
) -> None:
    root = project(tmp_path)
    (root / ".multica").mkdir()
    (root / MULTICA.path).write_text(content)
    before = state(root)
    with pytest.raises(Refused, match="another program"):
        environments.prepare(wanted(tmp_path, root))
    assert state(root) == before


# --- users' directories --------------------------------------------------------------------------


def test_claude_needs_only_its_skills_in_a_users_directory(
    environments: Environments, tmp_path: Path
) -> None:
    root = project(tmp_path)
    (root / "CLAUDE.md").write_text("mine")
    request = wanted(tmp_path, root, provider="claude")
    prepared = environments.prepare(request)
    assert prepared.instructions == prepared.brief
    assert prepared.prompt("p") == "p"
    assert (root / "CLAUDE.md").read_text() == "mine"
    assert not (root / ".ostler").exists()
    assert (tmp_path / "run" / "context" / "context.md").read_text() == "card\n"
    assert str(tmp_path / "run" / "context") in prepared.brief
    environments.roll_back(root, user_owned=True, label="t1")
    assert state(root).keys() == {"CLAUDE.md"}


@pytest.mark.parametrize(
    ("exists", "in_repository", "way"),
    [(False, False, "file"), (False, True, "file"), (True, False, "file"), (True, True, "prompt")],
)
def test_how_a_brief_reaches_a_provider_without_an_option_for_it(
    environments: Environments, tmp_path: Path, exists: bool, in_repository: bool, way: str
) -> None:
    root = repository(tmp_path) if in_repository else project(tmp_path)
    if exists:
        (root / "AGENTS.md").write_bytes(b"mine")
    prepared = environments.prepare(wanted(tmp_path, root))
    assert prepared.way == way
    if way == "file":
        assert prepared.prompt("p") == "p"
        assert marked_block.block(prepared.brief) in (root / "AGENTS.md").read_bytes()
    else:
        assert prepared.prompt("p") == f"{prepared.brief}\n\n---\n\np"
        assert (root / "AGENTS.md").read_bytes() == b"mine"
    environments.roll_back(root, user_owned=True)
    assert (root / "AGENTS.md").exists() == exists


def test_a_provider_without_a_layout_gets_no_brief(environments: Environments, tmp_path: Path) -> None:
    prepared = environments.prepare(wanted(tmp_path, project(tmp_path), provider="shell"))
    assert (prepared.way, prepared.prompt("p"), prepared.instructions) == ("none", "p", "")


def test_git_shows_nothing_of_ours(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "home" / ".config" / "git").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "git" / "ignore").write_text("*.secret")
    top = repository(tmp_path)
    root = top / "sub [1]"
    (root / ".opencode" / "skills" / "theirs").mkdir(parents=True)
    (root / ".opencode" / "skills" / "theirs" / "SKILL.md").write_text("theirs")
    (root / "a.secret").write_text("x")
    prepared = environments.prepare(wanted(tmp_path, root))

    def status() -> str:
        env = {**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.quotePath",
               "GIT_CONFIG_VALUE_0": "false"}  # fmt: skip
        env.update(prepared.environment(env))
        done = subprocess.run(
            ["git", "status", "--porcelain", "-uall"], cwd=root, env=env, check=True, capture_output=True
        )
        return done.stdout.decode()

    assert status().splitlines() == ['?? "sub [1]/.opencode/skills/theirs/SKILL.md"']
    environments.roll_back(root, user_owned=True)
    assert status().splitlines() == ['?? "sub [1]/.opencode/skills/theirs/SKILL.md"']


def test_skills_without_a_place_are_beside_the_directory(environments: Environments, tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / ".claude").write_text("a file")
    prepared = environments.prepare(wanted(tmp_path, root, provider="claude"))
    (skill,) = prepared.skills
    assert skill.directory == str(tmp_path / "run" / "context" / "skills" / "deploy")
    assert (Path(skill.directory) / "SKILL.md").exists()
    assert skill.directory in prepared.brief


def test_what_an_earlier_task_left_goes_before_the_next_by_any_path(
    environments: Environments, tmp_path: Path
) -> None:
    root = project(tmp_path)
    environments.prepare(wanted(tmp_path, root, label="dead"))
    other = tmp_path / "other-name"
    other.symlink_to(root)
    environments.prepare(wanted(tmp_path, other, provider="claude", label="next"))
    assert not (root / ".opencode").exists()
    environments.roll_back(root, user_owned=True, label="dead")  # its end comes late: not its files any more
    assert (root / ".claude").exists()
    assert environments.left() == [root]
    environments.roll_back(other, user_owned=True, label="next")
    assert state(root) == {}
    assert environments.left() == []


def test_a_full_disk_leaves_nothing_behind(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path)
    real = os.mkdir
    calls = 0

    def mkdir(path: str, mode: int = 0o777) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device")
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="No space"):
        environments.prepare(wanted(tmp_path, root))
    assert state(root) == {}


def test_preparing_twice_is_preparing_once(environments: Environments, tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / "AGENTS.md").write_bytes(b"mine")
    environments.prepare(wanted(tmp_path, root))
    once = state(root)
    environments.prepare(wanted(tmp_path, root))
    assert state(root) == once


def test_a_plan_that_is_empty_writes_no_manifest(environments: Environments, tmp_path: Path) -> None:
    root = project(tmp_path)
    request = Wanted(label="t", work_dir=root, user_owned=True, run_dir=tmp_path / "run")
    environments.prepare(request)
    assert not environments.user_manifests.exists()
    assert not Plan(root)


def test_settings_of_a_provider_are_put_where_there_are_none(
    environments: Environments, tmp_path: Path
) -> None:
    root = repository(tmp_path)
    (root / "below").mkdir()
    before = state(root)
    path = ".cursor/mcp.json"
    asked = msgspec.structs.replace(wanted(tmp_path, root), settings={path: b"{}\n"})
    assert environments.prepare(asked).settings == ()
    environments.roll_back(root, user_owned=True)
    anywhere = msgspec.structs.replace(asked, settings_anywhere=True)
    assert environments.prepare(anywhere).settings == (path,)
    assert (root / path).read_bytes() == b"{}\n"
    environments.roll_back(root, user_owned=True)
    assert state(root) == before

    # The program looks at the top of the repository alone, and that is not ours.
    below = msgspec.structs.replace(anywhere, work_dir=root / "below")
    assert environments.prepare(below).settings == ()
    environments.roll_back(root / "below", user_owned=True)

    (root / ".cursor").mkdir()
    (root / path).write_text("theirs")
    found = environments.prepare(anywhere)
    assert found.settings == ()
    assert any(path in note for note in found.notes)
    environments.roll_back(root, user_owned=True)
    assert (root / path).read_text() == "theirs"
