"""What a daemon says beside the work itself, and what later servers add to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_server import FakeTask, Hang, html_502, refuse
from tests.tasks.world import World

HELLO = {"text": "hello"}


def steps_of(world: World) -> list[str]:
    """The order in which a task's reports arrived."""
    routes = ("start", "progress", "session", "messages", "usage", "complete", "fail", "cancel_ack")
    return [request.route for request in world.server.requests if request.route in routes]


async def heard(world: World, task: FakeTask) -> None:
    """Wait until the server has something of what the task says."""
    await world.until(lambda: task.messages)


async def test_both_steps_are_told_the_second_right_before_the_result(world: World) -> None:
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
    assert [(told["step"], told["total"]) for told in task.progress] == [(1, 2), (2, 2)]
    assert "claude" in task.progress[0]["summary"]
    order = steps_of(world)
    assert order[0] == "start"
    assert order[-3:] == ["usage", "progress", "complete"]


@pytest.mark.parametrize("fault", [Hang(), html_502(), refuse(404, "not found")], ids=["hang", "502", "404"])
async def test_a_server_that_does_not_take_the_steps_holds_nothing_up(world: World, fault: Any) -> None:
    world.server.always("progress", fault)
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
    assert world.server.check(task.id).kind == "complete"
    assert task.progress == []


@pytest.mark.parametrize("later", [True, False])
async def test_a_later_server_hears_when_a_cancelled_run_is_over(
    world: World, tmp_path: Path, later: bool
) -> None:
    world.server.later = later
    world.server.script("cancel_ack", refuse(500, "not now")) if later else None
    async with world.life():
        for _ in range(2):
            task = world.add(HELLO, {"wait_for": str(tmp_path / "never")})
            await world.running(task)
            await heard(world, task)
            world.server.end_task(task.id)
            await world.settled(task)
            record = await world.record(task)
            assert (record.outcome, record.delivery) == ("cancelled", "delivered")
            assert task.reports == []
            if later:
                assert [ack["durable_work_dir"] for ack in task.cancel_acks] == [record.work_dir]
        assert steps_of(world)[-1] == ("cancel_ack" if later else "usage")
    assert len(world.server.seen("cancel_ack")) == (3 if later else 1)


async def test_a_task_that_needs_no_agent_is_completed_without_one(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, regenerate_quick_actions_for="c1", prior_session_id="s", prior_work_dir="/w")
        await world.finished(task)
        assert (await world.record(task)).state == "ended"
        await world.assert_idle()
    body = world.server.check(task.id).body
    assert (body["output"], body["session_id"], body["work_dir"]) == ("", None, None)
    assert (task.starts, task.messages) == (1, [])
    assert not list((world.base / "runs").glob("*/shim.json"))


async def test_a_task_that_needs_no_agent_outlives_the_daemon_like_any_other(world: World) -> None:
    world.server.script("complete", Hang())
    async with world.life():
        task = world.add(HELLO, regenerate_quick_actions_for="c1")
        await world.until(lambda: world.server.seen("complete"))
    async with world.life():
        await world.finished(task)
    assert world.server.check(task.id).kind == "complete"


@pytest.mark.parametrize("status", [402, 409, 422, 500])
async def test_a_claim_that_the_server_has_settled_by_itself_is_no_reason_to_stop(
    world: World, status: int
) -> None:
    world.server.script("claim", *[refuse(status, "task cancelled: local_directory_error")] * 3)
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
    assert world.gone == []


async def test_a_directory_that_wants_a_work_tree_is_not_worked_in(world: World, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with world.life():
        task = world.add(HELLO, **world.in_directory(place, execution_mode="worktree"))
        await world.finished(task, "failed")
    assert world.server.check(task.id).body["failure_reason"] == "local_directory_error"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"issue_statuses": {"a": 1}, "active_sibling_runs": 3, "chat_intro": "yes"},
        {"issue_statuses": ["todo", None, {"key": 1}], "issue_statuses_omitted": "many"},
        {
            "agent": {"id": "a", "disabled_runtime_skills": "all"},
            "active_sibling_runs": [[], {"issue_id": {}}],
        },
    ],
)
async def test_what_a_later_server_tells_in_another_form_costs_no_task(
    world: World, odd: dict[str, Any]
) -> None:
    async with world.life():
        task = world.add(HELLO, issue_id="i1", **odd)
        await world.finished(task)
    assert world.server.check(task.id).kind == "complete"


async def test_a_service_tier_that_nobody_takes_is_said(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, agent={"id": "a", "name": "A", "service_tier": "flex"})
        await world.finished(task)
        assert "'flex' is not passed on: claude" in (await world.record(task)).warnings


async def test_comments_that_came_together_reach_the_agent(world: World) -> None:
    more = [
        {"id": "c1", "content": "echo first"},
        {"id": "c2", "content": "echo second", "author_type": None},
    ]
    async with world.life():
        task = world.add(
            provider="shell", chat_session_id=None, chat_message=None, issue_id="i1",
            trigger_comment_id="c3", trigger_comment_content="echo third",
            coalesced_comment_ids=["c1", "c2"], coalesced_comments=more,
        )  # fmt: skip
        await world.finished(task)
    assert world.server.check(task.id).body["output"] == "first\nsecond\nthird"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (html_502(), "skill_bundle_unavailable"),
        (refuse(400, "invalid skill ref"), "agent_error.missing_config"),
    ],
)
async def test_a_skill_that_is_not_to_be_had_fails_the_task_with_its_reason(
    world: World, fault: Any, reason: str
) -> None:
    world.server.always("skills", fault)
    ref = {
        "id": "s1",
        "source": "workspace",
        "name": "deploy",
        "hash": "sha256:ab",
        "size_bytes": 4,
        "file_count": 0,
    }
    async with world.life():
        task = world.add(HELLO, agent={"id": "a", "name": "A", "skill_refs": [ref]})

        def failed() -> bool:
            world.engine.reconcile("srv")  # no pause between two tries is waited out
            return task.status == "failed"

        await world.until(failed)
        await world.settled(task)
    assert world.server.check(task.id).body["failure_reason"] == reason
    assert "deploy" in task.reports[0].body["error"]


async def test_every_kind_of_task_reaches_its_agent(world: World, tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "comment": {"issue_id": "i1", "trigger_comment_id": "c1", "trigger_comment_content": "echo comment"},
        "chat": {"chat_session_id": "s1", "chat_message": "echo chat"},
        "autopilot": {
            "autopilot_run_id": "r1",
            "autopilot_id": "a1",
            "autopilot_description": "echo autopilot",
        },
        "quick_create": {"quick_create_prompt": "echo quick_create"},
        "direct": {"issue_id": "i2", "handoff_note": "echo direct"},
    }
    async with world.life():
        tasks = {
            kind: world.server.add_task("shell", hint=False, kind=kind, **fields)
            for kind, fields in kinds.items()
        }
        for kind, task in tasks.items():
            await world.finished(task)
            assert world.server.check(task.id).body["output"] == kind
            assert (await world.record(task)).kind == kind
