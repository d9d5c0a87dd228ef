from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.protocol.wire import Skill, SkillFile
from daemon_core.workdirs import skills
from daemon_core.workdirs.manifest import Plan


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deploy", "deploy"),
        ("Deploy to  AWS!", "deploy-to-aws"),
        ("--x--", "x"),
        ("日本", "skill"),
        ("", "skill"),
        ("../../etc", "etc"),
        ("a" * 300, "a" * 100),
    ],
)
def test_the_directory_of_a_skill(name: str, expected: str) -> None:
    assert skills.slug(name) == expected


@pytest.mark.parametrize("path", ["a", "a/b.md", "a b/ü", ".hidden", "a..b"])
def test_paths_that_are_safe(path: str) -> None:
    assert skills.is_safe_path(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0", "C:/a", "C:a", ".", ".."]
)
def test_paths_that_are_not(path: str) -> None:
    assert not skills.is_safe_path(path)


def test_front_matter_that_is_valid_is_untouched() -> None:
    for content in ("---\nname: x\ndescription: y\n---\nbody", "---\r\nname: x\r\n---\r\nbody"):
        assert skills.with_front_matter(content, "other", "told") == content


def test_front_matter_is_made_completed_or_replaced() -> None:
    made = skills.with_front_matter("body", "deploy", 'Say: "hi" # now')
    assert yaml.safe_load(made.split("---")[1]) == {"name": "deploy", "description": 'Say: "hi" # now'}
    assert made.endswith("---\n\nbody")
    completed = skills.with_front_matter("---\ndescription: y\n---\nbody", "deploy", "")
    assert completed == "---\nname: deploy\ndescription: y\n---\nbody"
    replaced = skills.with_front_matter("---\nname: a\ndescription: Use when: x\n---\nbody", "deploy", "told")
    assert replaced == '---\nname: deploy\ndescription: "told"\n---\n\nbody'
    empty = skills.with_front_matter("---\nname:\ndescription: kept\n---\nbody", "deploy", "told")
    assert empty == '---\nname: deploy\ndescription: "kept"\n---\n\nbody'
    assert skills.with_front_matter("---\n- a\n---\nbody", "x", "").endswith("---\n\nbody")
    assert skills.with_front_matter("---\nno end", "x", "") == "---\nname: x\n---\n\n---\nno end"


def test_front_matter_that_would_fill_the_memory_is_replaced() -> None:
    lines = ["a0: &a0 {x: 1}"]
    for number in range(40):
        lines.append(f"a{number + 1}: &a{number + 1} {{<<: [{', '.join([f'*a{number}'] * 9)}]}}")
    content = "\n".join(["---", "name: x", *lines, "---", "body"])
    assert skills.with_front_matter(content, "deploy", "") == "---\nname: deploy\n---\n\nbody"
    assert skills.front_fields(content) == {}


@pytest.mark.parametrize("piece", ["- ", "[", "{a: ", "? "])
def test_front_matter_that_would_take_the_stack_is_replaced(piece: str) -> None:
    content = f"---\nname: x\nmore:\n  {piece * (60_000 // len(piece))}\n---\nbody"
    assert skills.with_front_matter(content, "deploy", "") == "---\nname: deploy\n---\n\nbody"


@given(st.text(), st.text(), st.text())
def test_every_main_file_begins_with_front_matter_that_has_a_name(
    content: str, name: str, description: str
) -> None:
    made = skills.with_front_matter(content, skills.slug(name), description)
    found = skills._FRONT.match(made)
    assert found is not None
    fields = skills._fields(found["yaml"])
    assert fields is not None
    assert isinstance(fields["name"], str)
    assert fields["name"].strip()


def test_skills_are_placed_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "s" / "deploy").mkdir(parents=True)
    plan = Plan(tmp_path)
    placed, left = skills.place(
        plan,
        "s",
        [
            Skill(
                id="1",
                name="Deploy",
                content="one",
                files=[
                    SkillFile(path="skill.md", content="no"),
                    SkillFile(path="../out", content="no"),
                    SkillFile(path="a", content="yes"),
                    SkillFile(path="A", content="no"),
                    SkillFile(path="a/b", content="no"),
                ],
            ),
            Skill(id="2", name="deploy", content="two"),
        ],
    )
    assert [skill.directory for skill in placed] == ["s/deploy-ostler", "s/deploy-ostler-2"]
    assert left == []
    assert sorted(plan.contents) == [
        "s/deploy-ostler-2/SKILL.md",
        "s/deploy-ostler/SKILL.md",
        "s/deploy-ostler/a",
    ]


def test_a_skill_that_finds_no_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file")
    placed, left = skills.place(Plan(tmp_path), "s", [Skill(id="1", name="x")])
    assert (placed, [skill.id for skill in left]) == ([], ["1"])
