"""Sections 17, 18 and 19: how a task ends, what comes of it, and what may follow what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, Work, section

pytestmark = section("17", "Usage, complete, fail, recover-orphans")
WRONG = section("31", "Easy to get wrong")
STATES = section("19", "Server task state machine")
REASONS = section("18", "Failure-reason taxonomy, classifier, poison and resume rules")


async def next_of(scene: Scene, work: Work) -> Any:
    """What the agent is given when somebody writes to the issue."""
    await scene.comment(work.issue["id"], "Go on.")
    return await scene.claim(work.runtime_id)


async def test_usage_is_taken_in_any_state(scene: Scene) -> None:
    work = await scene.running()
    entry = {
        "provider": "claude",
        "model": "m",
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_tokens": 3,
        "cache_write_tokens": 4,
    }
    assert (await work.post("usage", {"usage": [entry]})).ok() == {"status": "ok"}
    (await work.cancel()).ok()
    assert (await work.post("usage", {"usage": [{**entry, "output_tokens": 9}]})).ok() == {"status": "ok"}
    assert (await work.post("usage", {"usage": []})).ok() == {"status": "ok"}


# --- complete ---------------------------------------------------------------------------------------------


async def test_a_complete_is_answered_with_the_task(scene: Scene) -> None:
    work = await scene.running()
    body = (await work.post("complete", {"output": "The answer.", "branch_name": "agent/x"})).ok()
    assert (body["id"], body["status"]) == (work.id, "completed")
    assert body["completed_at"]
    assert body["result"]["output"] == "The answer."
    assert await work.status() == "completed"


async def test_an_empty_output_is_a_success(scene: Scene) -> None:
    work = await scene.running()
    assert (await work.post("complete", {"output": ""})).ok()["status"] == "completed"


@WRONG
@pytest.mark.parametrize("state", ["dispatched", "waiting_local_directory", "failed", "cancelled"])
async def test_a_complete_in_the_wrong_state_changes_nothing_and_is_200(scene: Scene, state: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    body = (await work.post("complete", {"output": "late", "session_id": "s", "work_dir": "/w"})).ok()
    assert (body["id"], body["status"]) == (work.id, state)
    assert body["result"] is None
    assert await work.status() == state


async def test_a_complete_twice_keeps_the_first(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "first"})).ok()
    assert (await work.post("complete", {"output": "second"})).ok()["result"]["output"] == "first"


@WRONG
async def test_a_complete_without_session_and_directory_erases_what_was_pinned(scene: Scene) -> None:
    work = await scene.running()
    await work.post("session", {"session_id": "s-1", "work_dir": "/w/1"})
    (await work.post("complete", {"output": "x"})).ok()
    assert not (await work.row()).get("work_dir")
    assert not (await next_of(scene, work)).get("prior_session_id")


@WRONG
async def test_a_fail_without_session_and_directory_keeps_what_was_pinned(scene: Scene) -> None:
    work = await scene.running()
    await work.post("session", {"session_id": "s-1", "work_dir": "/w/1"})
    (await work.post("fail", {"error": "exit status 1"})).ok()
    assert (await work.row())["work_dir"] == "/w/1"
    task = await next_of(scene, work)
    assert (task["prior_session_id"], task["prior_work_dir"]) == ("s-1", "/w/1")


async def test_an_end_overwrites_what_was_pinned(scene: Scene) -> None:
    work = await scene.running()
    await work.post("session", {"session_id": "s-1", "work_dir": "/w/1"})
    (await work.post("complete", {"output": "x", "session_id": "s-2", "work_dir": "/w/2"})).ok()
    task = await next_of(scene, work)
    assert (task["prior_session_id"], task["prior_work_dir"]) == ("s-2", "/w/2")


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_a_bad_body_is_400(scene: Scene, verb: str) -> None:
    work = await scene.running()
    assert (await work.post(verb, b"{nonsense")).refused(400, "invalid request body")
    assert await work.status() == "running"


@pytest.mark.parametrize("verb", ["complete", "fail", "start", "usage", "progress"])
async def test_a_task_that_is_not_there(scene: Scene, verb: str) -> None:
    answer = await scene.target.post(f"/api/daemon/tasks/{NOWHERE}/{verb}")
    assert answer.refused(404, "task not found")


# --- what comes of it -------------------------------------------------------------------------------------


async def test_an_output_becomes_a_comment_where_the_agent_wrote_none(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "All is well."})).ok()
    (said,) = await work.comments()
    assert (said["author_type"], said["author_id"]) == ("agent", work.agent_id)
    assert said["content"] == "All is well."


async def test_an_output_becomes_no_comment_where_the_agent_wrote_one(scene: Scene) -> None:
    work = await scene.running()
    path = f"/api/issues/{work.issue['id']}/comments"
    (await scene.target.post(path, {"content": "My own words."}, token=work.token)).ok(200, 201)
    (await work.post("complete", {"output": "All is well."})).ok()
    assert [each["content"] for each in await work.comments()] == ["My own words."]


async def test_an_empty_output_becomes_no_comment(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": ""})).ok()
    assert await work.comments() == []


async def test_an_output_is_threaded_under_the_comment_that_asked(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": ""})).ok()
    asked = await scene.comment(work.issue["id"], "What of this?")
    task = await scene.claim(work.runtime_id)
    path = f"/api/daemon/tasks/{task['id']}"
    (await scene.target.post(path + "/start")).ok()
    (await scene.target.post(path + "/complete", {"output": "It is so."})).ok()
    said = (await work.comments())[-1]
    assert (said["content"], said["parent_id"]) == ("It is so.", asked["id"])


async def test_a_mere_done_is_no_answer_to_a_comment(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": ""})).ok()
    await scene.comment(work.issue["id"], "What of this?")
    task = await scene.claim(work.runtime_id)
    path = f"/api/daemon/tasks/{task['id']}"
    (await scene.target.post(path + "/start")).ok()
    (await scene.target.post(path + "/complete", {"output": "Done."})).ok()
    assert [each["author_type"] for each in await work.comments()] == ["member"]


async def test_a_failure_is_told_on_the_issue(scene: Scene) -> None:
    work = await scene.running()
    (
        await work.post("fail", {"error": "exit status 1", "failure_reason": "agent_error.process_failure"})
    ).ok()
    (said,) = await work.comments()
    assert said["type"] == "system"
    assert "exit status 1" in said["content"]


async def test_an_answer_in_a_chat(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    session_id, task_id = await scene.chat(await scene.agent(runtime_id), "Hello.")
    await scene.claim(runtime_id)
    path = f"/api/daemon/tasks/{task_id}"
    (await scene.target.post(path + "/start")).ok()
    (await scene.target.post(path + "/complete", {"output": "Hello yourself."})).ok()
    said = (await scene.target.get(f"/api/chat/sessions/{session_id}/messages")).ok()
    assert [(each["role"], each["content"]) for each in said] == [
        ("user", "Hello."),
        ("assistant", "Hello yourself."),
    ]


# --- fail and retry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["dispatched", "waiting_local_directory", "running"])
async def test_a_fail_counts_from_wherever_it_is_claimed(scene: Scene, state: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    body = (await work.post("fail", {"error": "no", "failure_reason": "local_directory_error"})).ok()
    assert (body["status"], body["failure_reason"], body["error"]) == (
        "failed",
        "local_directory_error",
        "no",
    )


@WRONG
@pytest.mark.parametrize("state", ["completed", "cancelled"])
async def test_a_fail_of_what_is_over_changes_nothing_and_is_200(scene: Scene, state: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    assert (await work.post("fail", {"error": "late"})).ok()["status"] == state
    assert await work.status() == state


@REASONS
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("maximum context length exceeded", "agent_error.context_overflow"),
        ("missing environment variable X", "agent_error.missing_config"),
        ("unauthorized", "agent_error.provider_auth_or_access"),
        ("You've hit your limit", "agent_error.provider_quota_limit"),
        ("rate limit", "agent_error.provider_capacity_or_rate_limit"),
        ("bad gateway", "agent_error.provider_server_error"),
        ("dial tcp: connection refused", "agent_error.provider_network"),
        ("unknown model x", "agent_error.model_not_found_or_unavailable"),
        ("returned empty output", "agent_error.empty_or_unparseable_output"),
        ("timed out after 5 s", "agent_error.agent_timeout"),
        ("executable not found", "agent_error.runtime_missing_executable"),
        ("requires a newer version", "agent_error.runtime_version_unsupported"),
        ("exit status 1", "agent_error.process_failure"),
        ("something else", "agent_error.unknown"),
        ("", "agent_error.unknown"),
    ],
)
async def test_a_fail_without_a_reason_is_classified(scene: Scene, text: str, reason: str) -> None:
    work = await scene.running()
    assert (await work.post("fail", {"error": text})).ok()["failure_reason"] == reason


@REASONS
@pytest.mark.parametrize("reason", ["a_reason_of_tomorrow", "idle_watchdog", "cancelled"])
async def test_any_reason_is_kept(scene: Scene, reason: str) -> None:
    work = await scene.running()
    assert (await work.post("fail", {"error": "x", "failure_reason": reason})).ok()[
        "failure_reason"
    ] == reason


@REASONS
@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("iteration_limit", "x"),
        ("agent_fallback_message", "x"),
        ("api_invalid_request", "x"),
        ("agent_error.unknown", "400 invalid_request_error"),
    ],
)
async def test_a_spoilt_session_is_not_gone_on_from(scene: Scene, reason: str, error: str) -> None:
    work = await scene.running()
    body = {"error": error, "failure_reason": reason, "session_id": "s-1", "work_dir": "/w/1"}
    (await work.post("fail", body)).ok()
    assert not (await next_of(scene, work)).get("prior_session_id")


@pytest.mark.parametrize("reason", ["runtime_offline", "runtime_recovery", "timeout"])
async def test_what_was_lost_is_tried_again_once(scene: Scene, reason: str) -> None:
    work = await scene.running()
    body = {"error": "lost", "failure_reason": reason, "session_id": "s-1", "work_dir": "/w/1"}
    assert (await work.post("fail", body)).ok()["status"] == "failed"
    again = await scene.claim(work.runtime_id)
    assert (again["parent_task_id"], again["attempt"], again["issue_id"]) == (work.id, 2, work.issue["id"])
    assert (again["prior_session_id"], again["prior_work_dir"]) == ("s-1", "/w/1")
    (await scene.target.post(f"/api/daemon/tasks/{again['id']}/fail", body)).ok()
    assert await scene.claim(work.runtime_id) is None


async def test_a_codex_that_went_silent_is_tried_afresh(scene: Scene) -> None:
    work = await scene.running()
    body = {"error": "silent", "failure_reason": "codex_semantic_inactivity", "session_id": "s-1"}
    (await work.post("fail", body)).ok()
    again = await scene.claim(work.runtime_id)
    assert again["parent_task_id"] == work.id
    assert not again.get("prior_session_id")


@pytest.mark.parametrize("reason", ["agent_error.process_failure", "local_directory_error", "idle_watchdog"])
async def test_what_failed_by_itself_is_not_tried_again(scene: Scene, reason: str) -> None:
    work = await scene.running()
    (await work.post("fail", {"error": "x", "failure_reason": reason})).ok()
    assert await scene.claim(work.runtime_id) is None


# --- recover-orphans --------------------------------------------------------------------------------------


async def recover(scene: Scene, runtime_id: str) -> Any:
    return (await scene.target.post(f"/api/daemon/runtimes/{runtime_id}/recover-orphans")).ok()


@WRONG
@pytest.mark.parametrize("state", ["dispatched", "waiting_local_directory", "running"])
async def test_recovery_fails_everything_that_is_claimed(scene: Scene, state: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    assert await recover(scene, work.runtime_id) == {"orphaned": 1, "retried": 1}
    row = await work.row()
    assert (row["status"], row["failure_reason"]) == ("failed", "runtime_recovery")
    assert (await scene.claim(work.runtime_id))["parent_task_id"] == work.id


async def test_recovery_leaves_what_waits_and_what_is_over(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x"})).ok()
    await scene.issue(work.agent_id)
    assert await recover(scene, work.runtime_id) == {"orphaned": 0, "retried": 0}
    assert await scene.claim(work.runtime_id) is not None


async def test_recovery_is_one_runtimes(scene: Scene) -> None:
    work = await scene.running()
    assert await recover(scene, await scene.runtime("codex")) == {"orphaned": 0, "retried": 0}
    assert await work.status() == "running"


@STATES
async def test_an_issue_that_nobody_works_on_any_more_is_to_do_again(scene: Scene) -> None:
    work = await scene.running()
    path = f"/api/issues/{work.issue['id']}"
    (await scene.target.put(path, {"status": "in_progress"}, token=work.token)).ok()
    await recover(scene, work.runtime_id)
    assert (await scene.target.get(path)).ok()["status"] == "in_progress", "it is tried again"
    await scene.claim(work.runtime_id)
    await recover(scene, work.runtime_id)
    assert (await scene.target.get(path)).ok()["status"] == "todo"


@STATES
async def test_a_reported_failure_leaves_the_issue_alone(scene: Scene) -> None:
    work = await scene.running()
    path = f"/api/issues/{work.issue['id']}"
    (await scene.target.put(path, {"status": "in_progress"}, token=work.token)).ok()
    (await work.post("fail", {"error": "x", "failure_reason": "agent_error.unknown"})).ok()
    assert (await scene.target.get(path)).ok()["status"] == "in_progress"


# --- states -----------------------------------------------------------------------------------------------


async def bring_to(work: Work, state: str) -> None:
    """From dispatched to a state."""
    if state == "waiting_local_directory":
        (await work.post("wait-local-directory", {"reason": "held"})).ok()
    elif state in ("running", "completed"):
        (await work.post("start")).ok()
        if state == "completed":
            (await work.post("complete", {"output": "x"})).ok()
    elif state == "failed":
        (await work.post("fail", {"error": "x", "failure_reason": "agent_error.unknown"})).ok()
    elif state == "cancelled":
        (await work.cancel()).ok()
    assert await work.status() == state


@STATES
@WRONG
@pytest.mark.parametrize("state", ["running", "completed", "failed", "cancelled"])
@pytest.mark.parametrize("verb", ["start", "wait-local-directory"])
async def test_a_start_or_wait_in_the_wrong_state_is_400(scene: Scene, state: str, verb: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    answer = await work.post(verb, {"reason": "x"})
    assert answer.status == 400
    assert answer.error
    assert await work.status() == state


@STATES
async def test_a_start_from_waiting(scene: Scene) -> None:
    work = await scene.claimed()
    await bring_to(work, "waiting_local_directory")
    assert (await work.post("start")).ok()["status"] == "running"


@STATES
@pytest.mark.parametrize("verb", ["start", "wait-local-directory", "complete", "fail"])
async def test_a_task_that_nobody_claimed_moves_by_no_daemon(scene: Scene, verb: str) -> None:
    runtime_id = await scene.runtime()
    await scene.issue(await scene.agent(runtime_id))
    (queued,) = (await scene.target.get(f"/api/daemon/runtimes/{runtime_id}/tasks/pending")).ok()
    answer = await scene.target.post(f"/api/daemon/tasks/{queued['id']}/{verb}", {"error": "x"})
    assert answer.status == (200 if verb in ("complete", "fail") else 400)
    status = await scene.target.get(f"/api/daemon/tasks/{queued['id']}/status")
    assert status.ok() == {"status": "queued"}


@STATES
@pytest.mark.parametrize("state", ["dispatched", "waiting_local_directory", "running"])
async def test_a_task_is_cancelled_wherever_it_is(scene: Scene, state: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    assert (await work.cancel()).ok()["status"] == "cancelled"
    assert await work.status() == "cancelled"


@STATES
@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
async def test_a_cancel_of_what_is_over_changes_nothing(scene: Scene, state: str) -> None:
    work = await scene.claimed()
    await bring_to(work, state)
    assert (await work.cancel()).ok()["status"] == state


@STATES
async def test_a_cancelled_task_that_waits_is_not_claimed(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    issue = await scene.issue(await scene.agent(runtime_id))
    (queued,) = (await scene.target.get(f"/api/daemon/runtimes/{runtime_id}/tasks/pending")).ok()
    path = f"/api/issues/{issue['id']}/tasks/{queued['id']}/cancel"
    assert (await scene.target.post(path)).ok()["status"] == "cancelled"
    assert await scene.claim(runtime_id) is None


@STATES
async def test_giving_an_issue_to_another_agent_cancels_what_goes_on(scene: Scene) -> None:
    work = await scene.running()
    other = await scene.agent(work.runtime_id)
    body = {"assignee_type": "agent", "assignee_id": other}
    (await scene.target.put(f"/api/issues/{work.issue['id']}", body)).ok()
    assert await work.status() == "cancelled"
    assert (await scene.claim(work.runtime_id))["agent_id"] == other


@STATES
async def test_a_cancel_over_the_websocket_is_not_needed_to_see_it(scene: Scene) -> None:
    """The poll alone is enough; what a server says beside it is its own affair."""
    work = await scene.running()
    (await work.cancel()).ok()
    assert await work.status() == "cancelled"
    assert (await work.post("complete", {"output": "late"})).ok()["status"] == "cancelled"


@STATES
async def test_an_agent_works_while_a_task_of_it_is_claimed(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)

    async def state() -> str:
        return str((await scene.target.get(f"/api/agents/{agent_id}")).ok()["status"])

    assert await state() == "idle"
    await scene.issue(agent_id)
    task = await scene.claim(runtime_id)
    path = f"/api/daemon/tasks/{task['id']}"
    (await scene.target.post(path + "/start")).ok()
    assert await state() == "working"
    (await scene.target.post(path + "/complete", {"output": "x"})).ok()
    assert await state() == "idle"
