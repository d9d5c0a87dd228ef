"""Agents are told: in the run that goes on, by the next turn, by a further run of a task kept open."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest

from daemon_core.jobs.notices import Notices
from daemon_core.protocol.wire import Task
from daemon_core.tasks import clock, keeping
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.telling import AGAIN, ASKED, FROM_OSTLER, prompt_with, told
from tests.support.fake_server import FakeTask
from tests.support.scripted_agent import script
from tests.tasks.world import World, new_world

HERE = "srv/c1"


class Follow:
    """A world with follow-up; ``jobs`` are how many jobs of the conversation go on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.jobs = 0
        self.limit = 20
        self.keep_open = True
        self.keep_open_for_s = 3600.0
        self.notices: Notices
        self.follow_up: FollowUp

    @contextlib.asynccontextmanager
    async def life(self, **fields: Any) -> AsyncIterator[Engine]:
        async def outstanding(conversation: str) -> int:
            return self.jobs if conversation == HERE else 0

        async with self.world.life(claim=False, recover=False, **fields) as engine:
            self.notices = Notices(engine.journal)
            self.follow_up = engine.follow_up = FollowUp(
                engine,
                self.notices,
                wake_limit=lambda: self.limit,
                keep_open=lambda: self.keep_open,
                keep_open_for_s=lambda: self.keep_open_for_s,
                outstanding=outstanding,
            )
            await engine.recover()
            await self.follow_up.start()
            self.world.claim()
            yield engine

    async def end_job(self, subject: str = "job1", text: str = "The job has ended.") -> None:
        """A job ends, with its notice."""
        self.jobs = max(0, self.jobs - 1)
        await self.notices.add(conversation=HERE, kind="job_ended", subject=subject, body=text)

    async def waiting(self, task: FakeTask, why: str = keeping.FOR_JOBS) -> None:
        key = f"srv/{task.id}"
        await self.world.until(
            lambda: key in self.world.engine.lives and self.world.engine.lives[key].waiting == why
        )

    async def states(self) -> list[str]:
        return [
            notice.state for number in range(1, 4) for notice in await self.notices.of_subject(f"job{number}")
        ]


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    async with new_world(slots=1) as world:
        yield Follow(world)


def completes(world: World, task: FakeTask) -> list[object]:
    return [request for request in world.server.seen("complete") if task.id in request.path]


def says(text: str) -> str:
    return script({"text": text})


async def test_the_next_turn_carries_what_is_pending_before_what_is_asked(follow: Follow) -> None:
    async with follow.life():
        await follow.end_job(text="The job has ended with exit code 3.")
        task = follow.world.add(chat_message="What now?")
        await follow.world.finished(task)
        text = follow.world.text(task)
        assert text.index("exit code 3") < text.index(ASKED) < text.index("What now?")
        assert await follow.states() == ["delivered"]


async def test_a_run_that_goes_on_is_told_at_the_end_of_its_turn(follow: Follow) -> None:
    async with follow.life():
        task = follow.world.add({"text": "first"}, {"wait_for": str(follow.world.base / "go")})
        await follow.world.running(task)
        await follow.world.until(lambda: "first" in follow.world.text(task))
        await follow.end_job(text="The job has ended.")
        (follow.world.base / "go").touch()
        await follow.world.finished(task)
        assert follow.world.text(task).startswith("first" + f"You said: {FROM_OSTLER}")
        assert len(await follow.world.journal.runs(f"srv/{task.id}")) == 1
        assert await follow.states() == ["delivered"]


async def test_a_shell_is_told_nothing(follow: Follow) -> None:
    async with follow.life():
        await follow.end_job()
        task = follow.world.add(provider="shell", chat_message="echo hello")
        await follow.world.finished(task)
        assert follow.world.text(task) == "hello\n"
        assert await follow.states() == ["pending"]


async def test_a_task_is_kept_open_for_its_jobs_without_a_slot_and_ends_once(follow: Follow) -> None:
    world = follow.world
    async with follow.life() as engine:
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
        assert task.status == "running"
        assert engine.active_runs() == 0
        other = world.add({"text": "other"}, chat_session_id="c2")  # there is one slot, and it is free
        await world.finished(other)
        await follow.end_job(text=says("told"))
        await world.finished(task)
        assert world.text(task) == "startedtold"
        record = await world.record(task)
        assert record.output == "started\n\ntold"
        assert len(await world.journal.runs(f"srv/{task.id}")) == 2
        assert len(completes(world, task)) == 1
        (usage,) = task.usage
        assert usage["input_tokens"] == 20  # of both runs
        assert await follow.states() == ["delivered"]
        await world.assert_idle()


async def test_jobs_that_tell_nobody_let_the_task_end(follow: Follow) -> None:
    async with follow.life():
        follow.jobs = 1
        task = follow.world.add({"text": "started"})
        await follow.waiting(task)
        follow.jobs = 0  # somebody has killed it
        follow.follow_up.look(HERE)
        await follow.world.finished(task)
        assert len(await follow.world.journal.runs(f"srv/{task.id}")) == 1


@pytest.mark.parametrize(("keep_open", "limit"), [(False, 20), (True, 0)])
async def test_without_the_setting_or_beyond_the_limit_a_task_ends_with_its_turn(
    follow: Follow, keep_open: bool, limit: int
) -> None:
    follow.keep_open, follow.limit = keep_open, limit
    async with follow.life():
        follow.jobs = 1
        task = follow.world.add({"text": "started"})
        await follow.world.finished(task)
        await follow.end_job(text=says("told"))
        await asyncio.sleep(0)
        assert await follow.states() == ["pending"]
        again = follow.world.add(chat_message="What now?")
        await follow.world.finished(again)
        assert await follow.states() == ["delivered"]


async def test_a_task_that_is_kept_open_waits_again_after_a_restart_and_goes_on(follow: Follow) -> None:
    world = follow.world
    async with follow.life():
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
    async with follow.life():
        await follow.waiting(task)
    async with follow.life():
        await follow.end_job(text=says("told"))
        await world.finished(task)
        assert world.text(task) == "startedtold"
        assert len(completes(world, task)) == 1
        assert await follow.states() == ["delivered"]
    left = [path.name for path in (world.base / "runs").glob("*/*.json")]
    assert {"claim.json", "retry.json", "further.json"}.isdisjoint(left)


async def test_a_task_whose_run_ended_without_a_daemon_goes_on_if_a_job_was_expected(
    follow: Follow,
) -> None:
    world = follow.world
    async with follow.life():
        task = world.add({"text": "started"}, {"wait_for": str(world.base / "go")})
        await world.running(task)
        follow.jobs = 1
        await follow.follow_up.job_started(f"srv/{task.id}")
    (world.base / "go").touch()
    async with follow.life():
        await follow.waiting(task)
        await follow.end_job(text=says("told"))
        await world.finished(task)
        assert world.text(task) == "startedtold"


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_a_server_that_ends_a_kept_open_task_is_heard(follow: Follow, status: str) -> None:
    world = follow.world
    async with follow.life():
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
        task.status = status
        await world.settled(task)
        record = await world.record(task)
        assert record.outcome == {"cancelled": "cancelled", "failed": "abandoned"}[status]
        assert completes(world, task) == []
        await world.assert_idle()


async def test_a_further_run_waits_for_the_barrier(follow: Follow) -> None:
    world = follow.world
    async with follow.life() as engine:
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
        engine.barrier.hold("update")
        await engine.barrier.wait_up()
        await follow.end_job(text=says("told"))
        await follow.waiting(task, keeping.FOR_SLOT)
        assert len(await world.journal.runs(f"srv/{task.id}")) == 1
        engine.barrier.let_go("update")
        await world.finished(task)
        assert world.text(task) == "startedtold"


async def test_a_server_is_not_waited_on_for_longer_than_it_lets_a_task_run(follow: Follow) -> None:
    world = follow.world
    async with follow.life() as engine:
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
        life = engine.lives[f"srv/{task.id}"]
        await world.until(lambda: life.kept_until)
        started = clock.parse(life.record.started_at)
        until = clock.parse(life.kept_until)
        assert started is not None
        assert until is not None
        assert (until - started).total_seconds() == follow.keep_open_for_s
        follow.keep_open_for_s = 0.001  # the time is up
        follow.follow_up.look(HERE)
        await world.finished(task)
        record = await world.record(task)
        assert record.output.startswith("started\n\n(Background work of this task still goes on.")
        assert "still goes on" in record.warnings
        assert len(completes(world, task)) == 1
        assert len(await world.journal.runs(f"srv/{task.id}")) == 1
        # What becomes of the job is not lost: the next turn carries it.
        await follow.end_job(text="The job has ended with exit code 3.")
        again = world.add(chat_message="What now?")
        await world.finished(again)
        assert "exit code 3" in world.text(again)
        assert await follow.states() == ["delivered"]


async def test_a_task_whose_time_was_up_without_a_daemon_ends_with_what_is_known(follow: Follow) -> None:
    world = follow.world
    async with follow.life():
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
    follow.keep_open_for_s = 0.001
    async with follow.life():
        await world.finished(task)
        assert "still goes on" in (await world.record(task)).output
        assert len(completes(world, task)) == 1


async def test_a_place_that_does_not_come_in_time_lets_the_task_end(follow: Follow) -> None:
    world = follow.world
    async with follow.life() as engine:
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
        engine.barrier.hold("update")
        await engine.barrier.wait_up()
        life = engine.lives[f"srv/{task.id}"]
        started = clock.parse(life.record.started_at)
        assert started is not None
        ran_s = (dt.datetime.now(dt.UTC) - started).total_seconds()
        follow.keep_open_for_s = ran_s + 1.0
        await follow.end_job(text=says("told"))
        await world.finished(task)
        assert await follow.states() == ["pending"]
        engine.barrier.let_go("update")
        await world.assert_idle()


async def test_a_later_server_is_waited_on_for_as_long_as_the_jobs_go_on(follow: Follow) -> None:
    world = follow.world
    follow.keep_open_for_s = 0.001
    world.server.later = True
    async with follow.life():
        await world.connection._list.look()  # what its own run does
        assert world.connection.is_later
        follow.jobs = 1
        task = world.add({"text": "started"})
        await follow.waiting(task)
        await follow.end_job(text=says("told"))
        await world.finished(task)
        assert world.text(task) == "startedtold"
    world.server.later = False
    async with follow.life():
        await world.connection._list.look()
        assert not world.connection.is_later


async def test_what_a_run_did_not_answer_is_told_again_as_such(follow: Follow) -> None:
    world = follow.world
    async with follow.life():
        await follow.end_job(text=script({"die": 9}))
        task = world.add(chat_message="x")
        await world.finished(task, "failed")
        assert await follow.states() == ["pending"]
        (notice,) = await follow.notices.pending(HERE)
        assert notice.times == 1
        assert AGAIN in told([notice])


def test_the_prompt_of_a_woken_turn_is_what_there_is_to_tell() -> None:
    claim = Task(id="t", wake_text="kept text")
    assert prompt_with("kept text", [], claim, resumes=True) == f"{AGAIN}\n\nkept text"
    assert prompt_with("the issue", [], claim, resumes=False).startswith("the issue\n\n")
    assert prompt_with("plain", [], Task(id="t"), resumes=True) == "plain"
