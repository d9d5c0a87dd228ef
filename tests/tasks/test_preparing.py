"""What a task finds in its directory, through a whole life of it in an engine."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.tasks import skills
from daemon_core.workdirs.environments import Environments, Prepared, Wanted
from tests.support.fake_server import Hang, refuse
from tests.support.layouts import layout_of
from tests.tasks.test_skills import bundle, ref
from tests.tasks.world import World

HELLO = {"text": "hello"}


def agent(**more: Any) -> dict[str, Any]:
    return {"id": "a1", "name": "Bo", "instructions": "Be kind.", **more}


def everything_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


async def test_referred_skills_and_context_are_in_an_own_directory(world: World) -> None:
    skill = bundle("main", ("ref/a.md", "é"))
    world.server.skills[skill.id] = msgspec.to_builtins(skill)
    async with world.life():
        task = world.add(
            HELLO,
            agent=agent(skill_refs=[msgspec.to_builtins(ref(skill))]),
            project_id="p1",
            project_title="Doors",
        )
        await world.finished(task)
        root = Path((await world.record(task)).work_dir)
    assert everything_in(root) == {
        ".claude/skills/deploy/SKILL.md",
        ".claude/skills/deploy/ref/a.md",
        ".multica/daemon_task_context.json",
        ".ostler/context.md",
        ".ostler/project/resources.json",
        ".ostler/task.json",
    }
    marker = json.loads((root / ".multica" / "daemon_task_context.json").read_text())
    assert marker["managed_by"] == "multica-daemon-task"
    (asked,) = world.server.seen("skills")
    assert asked.body == {"skills": [msgspec.to_builtins(ref(skill))]}
    assert asked.parameters["tid"] == task.id


async def test_a_skill_that_is_not_to_be_had_fails_the_task_in_words(world: World) -> None:
    missing = bundle()
    async with world.life():
        task = world.add(HELLO, agent=agent(skill_refs=[msgspec.to_builtins(ref(missing))]))
        await world.finished(task, "failed")
        report = world.server.check(task.id)
    assert "skill 'deploy' cannot be fetched" in report.body["error"]
    assert "skill bundle not found" in report.body["error"]
    assert task.starts == 0


async def test_a_task_that_ends_while_its_skills_are_fetched_is_left(world: World) -> None:
    skill = bundle()
    world.server.script("skills", Hang())
    async with world.life():
        task = world.add(HELLO, agent=agent(skill_refs=[msgspec.to_builtins(ref(skill))]))
        await world.until(lambda: world.server.seen("skills"))
        world.server.end_task(task.id)
        await world.settled(task)
        assert (await world.record(task)).outcome == "cancelled"
        await world.assert_idle()


async def test_a_refusal_after_the_task_has_ended_is_no_failure(world: World) -> None:
    skill = bundle()
    world.server.always("skills", refuse(409, "task is not preparing"))
    async with world.life():
        task = world.add(HELLO, agent=agent(skill_refs=[msgspec.to_builtins(ref(skill))]))
        await world.finished(task, "failed")
        assert "not being prepared any more" in world.server.check(task.id).body["error"]


async def test_a_users_directory_has_our_files_only_while_the_task_goes_on(
    world: World, tmp_path: Path
) -> None:
    project, go = tmp_path / "project", tmp_path / "go"
    project.mkdir()
    (project / "mine").write_text("mine")
    skill = {"id": "s", "name": "Deploy", "content": "how"}
    async with world.life():
        task = world.add(
            {"wait_for": str(go)}, HELLO, agent=agent(skills=[skill]), **world.in_directory(project)
        )
        await world.running(task)
        assert everything_in(project) == {
            "mine",
            ".claude/skills/deploy/SKILL.md",
            ".multica/daemon_task_context.json",
        }
    async with world.life():  # a live run keeps them over a restart
        await world.running(task)
        assert ".claude/skills/deploy/SKILL.md" in everything_in(project)
        go.touch()
        await world.finished(task)
        assert [path.name for path in project.iterdir()] == ["mine"]
        await world.assert_idle()


async def test_something_of_another_program_in_the_way_fails_the_task(world: World, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".multica").mkdir(parents=True)
    (project / ".multica" / "daemon_task_context.json").write_text("theirs")
    async with world.life():
        task = world.add(HELLO, **world.in_directory(project))
        await world.finished(task, "failed")
        report = world.server.check(task.id)
    assert report.body["failure_reason"] == "local_directory_error"
    assert "another program" in report.body["error"]
    assert everything_in(project) == {".multica/daemon_task_context.json"}


class Slow(Environments):
    """Waits in the middle of preparing."""

    def __init__(self, manifests: Path) -> None:
        super().__init__(manifests)
        self.began = threading.Event()
        self.go = threading.Event()

    def prepare(self, wanted: Wanted, **more: Any) -> Prepared:
        self.began.set()
        assert self.go.wait(20)
        return super().prepare(wanted, **more)


async def test_files_written_while_the_task_ends_are_taken_out_all_the_same(
    world: World, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    slow = Slow(tmp_path / "prepared")
    async with world.life(environments=slow):
        task = world.add(HELLO, **world.in_directory(project))
        await asyncio.to_thread(slow.began.wait, 20)
        world.server.end_task(task.id)
        life = next(iter(world.engine.lives.values()))
        await world.until(lambda: life.server_status)
        slow.go.set()
        await world.settled(task)
        await world.assert_idle()
    assert not list(project.iterdir())


async def test_what_a_dead_daemon_left_goes_at_the_next_start(world: World, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    left = Environments(world.base / "prepared")
    left.prepare(
        Wanted(
            label="dead", layout=layout_of("opencode"), work_dir=project, user_owned=True,
            run_dir=tmp_path / "run", brief=lambda skills, folder: "brief",
        )
    )  # fmt: skip
    assert (project / "AGENTS.md").exists()
    async with world.life(claim=False):
        assert not list(project.iterdir())
        await world.assert_idle()


@pytest.mark.parametrize("size", [skills.SKILLS_LIMIT + 1])
async def test_too_many_skills_are_refused(world: World, size: int) -> None:
    reference = msgspec.to_builtins(ref(bundle()))
    async with world.life():
        task = world.add(HELLO, agent=agent(skill_refs=[reference] * size))
        await world.finished(task, "failed")
        assert "is the limit" in world.server.check(task.id).body["error"]
