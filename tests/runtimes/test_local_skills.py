"""Skills installed on this machine: what is listed, what is bundled, and what never leaves the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon_core.runtimes import local_skills
from daemon_core.runtimes.local_skills import LocalSkillError, bundle, folder_of, list_skills

PLACES = ["~/.claude/skills"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def env(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), **more}


def skill(folder: Path, key: str, text: str = "", **files: str) -> Path:
    directory = folder / key
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "SKILL.md").write_text(text or f"---\nname: {key}\ndescription: About {key}\n---\nDo it.\n")
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def test_a_skill_is_listed_with_what_it_tells_of_itself(home: Path) -> None:
    skill(home / ".claude/skills", "one")
    (found,) = list_skills("claude", PLACES, env(home)) or []
    assert found.source_path == "~/.claude/skills/one"
    assert (found.key, found.name, found.description) == ("one", "one", "About one")
    assert (found.root, found.provider, found.file_count) == ("provider", "claude", 1)


@pytest.mark.parametrize("value", ["", "relative"])
def test_the_first_place_that_there_can_be_counts(home: Path, tmp_path: Path, value: str) -> None:
    places = ["$CODEX_HOME/skills", "~/.codex/skills"]
    assert folder_of(places, env(home, CODEX_HOME=str(tmp_path / "x"))) == str(tmp_path / "x" / "skills")
    assert folder_of(places, env(home, CODEX_HOME=value)) == str(home / ".codex/skills")
    assert folder_of(["/opt/skills"], env(home)) == "/opt/skills"


def test_a_provider_without_skills_is_told_apart_from_one_with_none(home: Path) -> None:
    assert list_skills("shell", [], env(home)) is None
    assert list_skills("claude", PLACES, env(home)) == []
    with pytest.raises(LocalSkillError):
        bundle("shell", [], "x", env(home))


def test_the_providers_folder_goes_before_the_shared_one(home: Path) -> None:
    skill(home / ".claude/skills", "both", "mine")
    skill(home / ".agents/skills", "both", "shared")
    skill(home / ".agents/skills", "group/deep", "deep", **{"ref/a.md": "a", "b.md": "b"})
    found = list_skills("claude", PLACES, env(home)) or []
    assert [(s.key, s.root, s.name, s.file_count) for s in found] == [
        ("both", "provider", "both", 1),
        ("group/deep", "universal", "deep", 3),
    ]
    assert bundle("claude", PLACES, "both", env(home))["content"] == "mine"


def test_a_bundle_holds_everything_but_hidden_files_and_licences(home: Path) -> None:
    skill(
        home / ".claude/skills",
        "s",
        "---\nname: A skill\ndescription: >\n  two\n  lines\n---\nbody",
        **{"a.py": "print()", "ref/b.md": "é", ".env": "SECRET", "LICENSE": "x", "license.TXT": "x"},
    )
    assert bundle("claude", PLACES, "s", env(home)) == {
        "name": "A skill",
        "description": "two lines",
        "content": "---\nname: A skill\ndescription: >\n  two\n  lines\n---\nbody",
        "source_path": "~/.claude/skills/s",
        "provider": "claude",
        "files": [{"path": "a.py", "content": "print()"}, {"path": "ref/b.md", "content": "é"}],
    }


def test_what_is_too_deep_or_hidden_is_not_seen(home: Path) -> None:
    folder = home / ".claude/skills"
    skill(folder, "a/b/c/d")
    skill(folder, "a/b/c/d2/e")
    skill(folder, ".hidden")
    skill(folder, "outer")
    skill(folder, "outer/inner")  # part of the outer one
    assert [s.key for s in list_skills("claude", PLACES, env(home)) or []] == ["a/b/c/d", "outer"]


def test_linked_directories_are_followed_and_circles_end(home: Path, tmp_path: Path) -> None:
    folder = home / ".claude/skills"
    folder.mkdir(parents=True)
    real = skill(tmp_path / "elsewhere", "linked", "text", **{"ref/x.md": "x"})
    (folder / "linked").symlink_to(real)
    (folder / "again").symlink_to(real)  # the same directory once more
    (folder / "circle").symlink_to(folder)
    (real / "ref" / "up").symlink_to(real)
    found = list_skills("claude", PLACES, env(home)) or []
    assert [s.key for s in found] == ["again"]
    assert [f["path"] for f in bundle("claude", PLACES, "again", env(home))["files"]] == ["ref/x.md"]


def test_a_link_out_of_a_skill_is_not_read(home: Path) -> None:
    secret = home / ".ssh" / "id_rsa"
    secret.parent.mkdir()
    secret.write_text("PRIVATE")
    directory = skill(home / ".claude/skills", "s", "main", **{"ok.md": "fine"})
    (directory / "key.md").symlink_to(secret)
    (directory / "ssh").symlink_to(secret.parent)
    (directory / "also.md").symlink_to(directory / "ok.md")
    files = bundle("claude", PLACES, "s", env(home))["files"]
    assert [(f["path"], f["content"]) for f in files] == [("also.md", "fine"), ("ok.md", "fine")]
    other = home / ".claude/skills" / "t"
    other.mkdir()
    (other / "SKILL.md").symlink_to(secret)
    assert [s.key for s in list_skills("claude", PLACES, env(home)) or []] == ["s"]
    with pytest.raises(LocalSkillError):
        bundle("claude", PLACES, "t", env(home))


def test_only_texts_of_a_bearable_size_are_bundled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = skill(home / ".claude/skills", "s", "main", **{"a.md": "a"})
    (directory / "b.bin").write_bytes(b"\xff\xfe")
    (directory / "c.bin").write_bytes(b"a\0b")
    (directory / "d.md").write_bytes(b"x" * ((1 << 20) + 1))
    os.mkfifo(directory / "pipe")  # would wait for ever
    assert [f["path"] for f in bundle("claude", PLACES, "s", env(home))["files"]] == ["a.md"]
    monkeypatch.setattr(local_skills, "BUNDLE_LIMIT_BYTES", 4)
    with pytest.raises(LocalSkillError, match="larger"):
        bundle("claude", PLACES, "s", env(home))


def test_too_many_files_are_refused(home: Path) -> None:
    skill(home / ".claude/skills", "s", "main", **{f"{n:03}.md": "x" for n in range(128)})
    with pytest.raises(LocalSkillError, match="more than"):
        bundle("claude", PLACES, "s", env(home))
    (home / ".claude/skills/s/000.md").unlink()
    assert len(bundle("claude", PLACES, "s", env(home))["files"]) == 127


@pytest.mark.parametrize("key", ["../x", "/etc", "", ".", "s/..", "s\0", "unknown"])
def test_a_key_leads_nowhere_else(home: Path, key: str) -> None:
    skill(home / ".claude/skills", "s")
    skill(home / ".claude", "x")
    with pytest.raises(LocalSkillError, match="no local skill"):
        bundle("claude", PLACES, key, env(home))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_passed_over(home: Path) -> None:
    skill(home / ".claude/skills", "a")
    closed = skill(home / ".claude/skills", "b/c")
    closed.parent.chmod(0)
    try:
        assert [s.key for s in list_skills("claude", PLACES, env(home)) or []] == ["a"]
    finally:
        closed.parent.chmod(0o700)


@pytest.mark.parametrize("front", ["", "---\n: [\n---\n", "---\nname: 3\n---\n", "---\n- a\n---\n"])
def test_a_name_that_is_not_told_is_the_directorys(home: Path, front: str) -> None:
    skill(home / ".claude/skills", "group/thing", f"{front}text")
    (found,) = list_skills("claude", PLACES, env(home)) or []
    assert (found.name, found.description) == ("thing", "")
