"""What a daemon reports about a task: session, progress, usage, results, and what becomes of them."""

from __future__ import annotations

import pytest

from daemon_core.hub import HubTask, NewTask
from tests.hub.world import NOWHERE, World


async def running(world: World, prompt: str = "x", **new: object) -> str:
    added = await world.hub.add_task(NewTask(prompt=prompt, provider="shell", **new))  # type: ignore[arg-type]
    await world.claim()
    await world.task(added.id, "start")
    return added.id


async def view(world: World, task_id: str) -> HubTask:
    task = await world.hub.get(task_id)
    assert task is not None
    return task


async def test_a_complete_is_answered_with_the_task_and_kept(world: World) -> None:
    task_id = await running(world)
    answer = await world.task(
        task_id,
        "complete",
        {"output": "all good", "branch_name": "b", "session_id": "s", "work_dir": "/w"},
    )
    assert answer.status == 200
    assert answer.body["result"] == {"output": "all good", "branch_name": "b"}
    assert answer.body["completed_at"].endswith("Z")
    task = await view(world, task_id)
    assert (task.status, task.result, task.session_id, task.work_dir) == ("completed", "all good", "s", "/w")
    assert task.ended_at is not None
    conversation = await world.hub.conversation(task.conversation_id)
    assert [(each.role, each.content) for each in conversation.messages] == [
        ("user", "x"),
        ("assistant", "all good"),
    ]


async def test_completing_with_empty_output_is_a_success(world: World) -> None:
    task_id = await running(world)
    assert (await world.task(task_id, "complete", {})).body["status"] == "completed"
    assert (await view(world, task_id)).result == ""


async def test_a_second_report_changes_nothing(world: World) -> None:
    task_id = await running(world)
    await world.task(task_id, "complete", {"output": "one", "session_id": "s", "work_dir": "/w"})
    first = await view(world, task_id)
    for verb, body in (("complete", {"output": "two"}), ("fail", {"error": "three"})):
        assert (await world.task(task_id, verb, body)).body["result"] == {"output": "one"}
    assert await view(world, task_id) == first
    assert len((await world.hub.conversation(first.conversation_id)).messages) == 2


async def test_a_complete_without_session_erases_the_pin_and_a_fail_keeps_it(world: World) -> None:
    for verb, body, kept in (("complete", {"output": "x"}, None), ("fail", {"error": "boom"}, "s1")):
        task_id = await running(world)
        pinned = await world.task(task_id, "session", {"session_id": "s1", "work_dir": "/w1"})
        assert pinned.status == 204
        assert (await view(world, task_id)).session_id == "s1"
        await world.task(task_id, verb, body)
        task = await view(world, task_id)
        assert (task.session_id, task.work_dir) == (kept, kept and "/w1")


async def test_a_pin_counts_in_dispatched_and_running_alone(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert (await world.task(added.id, "session", {"session_id": "early"})).status == 204
    assert (await view(world, added.id)).session_id is None
    await world.claim()
    await world.task(added.id, "session", {"session_id": "s"})
    await world.task(added.id, "session", {"work_dir": "/w", "session_id": None})
    assert ((await view(world, added.id)).session_id, (await view(world, added.id)).work_dir) == ("s", "/w")
    await world.task(added.id, "start")
    await world.task(added.id, "complete", {"session_id": "t"})
    assert (await world.task(added.id, "session", {"session_id": "late"})).status == 204
    assert (await view(world, added.id)).session_id == "t"


async def test_a_pin_of_nothing_is_refused(world: World) -> None:
    task_id = await running(world)
    for body in ({}, {"session_id": "", "work_dir": ""}, {"session_id": None}):
        assert (await world.task(task_id, "session", body)).status == 400


async def test_a_failure_without_a_reason_is_classified_by_its_text(world: World) -> None:
    for error, given, reason in (
        ("HTTP 429 slow down", "", "agent_error.provider_capacity_or_rate_limit"),
        ("nobody knows", None, "agent_error.unknown"),
        ("429", "idle_watchdog", "idle_watchdog"),
        ("400 invalid_request_error", "", "api_invalid_request"),
        ("x", "something_new", "something_new"),
    ):
        task_id = await running(world)
        await world.task(task_id, "fail", {"error": error, "failure_reason": given})
        task = await view(world, task_id)
        assert (task.status, task.failure_reason, task.error) == ("failed", reason, error)
        told = (await world.hub.conversation(task.conversation_id)).messages[-1]
        assert (told.role, told.content, told.error) == ("assistant", error, True)


async def test_usage_is_set_per_model_and_never_below_zero(world: World) -> None:
    task_id = await running(world)

    def entry(model: str, **counts: int) -> dict[str, object]:
        return {"provider": "claude", "model": model, **counts}

    await world.task(task_id, "usage", {"usage": [entry("a", input_tokens=5), entry("zero")]})
    await world.task(
        task_id,
        "usage",
        {"usage": [entry("a", input_tokens=7, output_tokens=-3), entry("b", output_tokens=1)]},
    )
    usage = (await view(world, task_id)).usage
    assert [(each.model, each.input_tokens, each.output_tokens) for each in usage] == [
        ("a", 7, 0),
        ("b", 0, 1),
    ]


async def test_usage_is_taken_for_a_cancelled_task(world: World) -> None:
    task_id = await running(world)
    await world.hub.cancel(task_id)
    body = {"usage": [{"provider": "p", "model": "m", "input_tokens": 1}]}
    assert await world.task(task_id, "usage", body) == (200, {"status": "ok"})
    assert len((await view(world, task_id)).usage) == 1


async def test_progress_is_kept(world: World) -> None:
    task_id = await running(world)
    answer = await world.task(task_id, "progress", {"summary": "Launching", "step": 1, "total": 2})
    assert answer == (200, {"status": "ok"})
    assert (await view(world, task_id)).progress == "Launching"


async def test_waiting_shows_why(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    reason = "local_directory /x (held by task 12345678)"
    answer = await world.task(added.id, "wait-local-directory", {"reason": reason})
    assert answer.body["status"] == "waiting_local_directory"
    task = await view(world, added.id)
    assert (task.waiting_reason, task.waiting_detail) == ("local_directory", reason)
    assert (await world.task(added.id, "wait-local-directory", {"reason": reason})).status == 400
    await world.task(added.id, "start")
    assert (await view(world, added.id)).waiting_detail is None


@pytest.mark.parametrize("verb", ["start", "wait-local-directory", "progress", "usage", "complete", "fail"])
async def test_an_unknown_task_is_gone_and_a_malformed_id_invalid(world: World, verb: str) -> None:
    assert await world.task(NOWHERE, verb) == (404, {"error": "task not found"})
    assert await world.task("12345678", verb) == (400, {"error": "invalid task_id"})


async def test_the_status_of_an_unknown_task_says_gone(world: World) -> None:
    assert await world.status(NOWHERE) == "404 task not found"
    for path in (f"tasks/{NOWHERE}/gc-check", f"tasks/{NOWHERE}/messages"):
        assert await world.get(f"/api/daemon/{path}") == (404, {"error": "task not found"})


# --- lost runs are tried again --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "inherits"),
    [
        ("runtime_recovery", True),
        ("runtime_offline", True),
        ("timeout", True),
        ("codex_semantic_inactivity", False),
    ],
)
async def test_a_lost_run_is_tried_once_more(world: World, reason: str, inherits: bool) -> None:
    task_id = await running(world, "the prompt")
    later = await world.hub.reply(task_id, "later")
    report = {"error": "lost", "failure_reason": reason, "session_id": "s", "work_dir": "/w"}
    await world.task(task_id, "fail", report)
    lost = await view(world, task_id)
    again = await world.claim()
    assert again["id"] == lost.retried_as
    assert again["id"] != later.id
    assert (again["attempt"], again["max_attempts"], again["parent_task_id"]) == (2, 2, task_id)
    assert again["chat_message"] == "the prompt"
    assert (again.get("prior_session_id"), again.get("prior_work_dir")) == (
        ("s", "/w") if inherits else (None, None)
    )
    messages = (await world.hub.conversation(lost.conversation_id)).messages
    assert [each.role for each in messages] == ["user", "user"]
    await world.task(again["id"], "fail", report)
    assert (await view(world, again["id"])).retried_as is None
    assert (await world.claim())["id"] == later.id


async def test_other_failures_are_not_tried_again(world: World) -> None:
    for reason in ("idle_watchdog", "cancelled", "local_directory_error", "agent_error.unknown"):
        task_id = await running(world)
        await world.task(task_id, "fail", {"error": "x", "failure_reason": reason})
        assert (await view(world, task_id)).retried_as is None


async def test_a_task_may_be_added_so_that_it_is_tried_once_only(world: World) -> None:
    task_id = await running(world, max_attempts=1)
    await world.task(task_id, "fail", {"error": "x", "failure_reason": "runtime_recovery"})
    assert await world.claim() is None


async def test_recover_orphans_fails_what_the_runtime_had_and_tries_again(world: World) -> None:
    states = {}
    for prompt in ("dispatched", "waiting", "running"):
        added = await world.hub.add_task(NewTask(prompt=prompt, provider="shell"))
        await world.claim()
        states[prompt] = added.id
    await world.task(states["waiting"], "wait-local-directory", {"reason": "r"})
    await world.task(states["running"], "start")
    await world.task(states["running"], "session", {"session_id": "s"})
    queued = await world.hub.add_task(NewTask(prompt="queued", provider="shell"))
    once = await world.hub.add_task(NewTask(prompt="other", provider="claude"))
    await world.claim("claude")
    path = f"/api/daemon/runtimes/{world.runtimes['shell']}/recover-orphans"
    assert await world.post(path) == (200, {"orphaned": 3, "retried": 3})
    for task_id in states.values():
        task = await view(world, task_id)
        assert (task.status, task.failure_reason) == ("failed", "runtime_recovery")
    assert await world.status(once.id) == "dispatched"
    assert await world.status(queued.id) == "queued"
    got = [await world.claim() for _ in range(4)]
    assert [task["chat_message"] for task in got] == ["dispatched", "waiting", "running", "queued"]
    assert got[2]["prior_session_id"] == "s"
    assert await world.post(path) == (200, {"orphaned": 4, "retried": 1})
