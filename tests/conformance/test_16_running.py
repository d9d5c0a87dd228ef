"""Sections 15 and 16: what is told while a task waits and runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, Work, section

pytestmark = section("16", "Run phase: progress, messages, session pin, status poll, watchdogs")
WAITING = section("15", "local_directory resources and path locks")


@WAITING
async def test_waiting_for_a_directory(scene: Scene) -> None:
    work = await scene.claimed()
    body = (
        await work.post("wait-local-directory", {"reason": "local_directory /w (held by task 1a2b)"})
    ).ok()
    assert (body["id"], body["status"]) == (work.id, "waiting_local_directory")
    assert await work.status() == "waiting_local_directory"


@WAITING
async def test_waiting_is_said_once_and_from_dispatched_alone(scene: Scene) -> None:
    work = await scene.claimed()
    (await work.post("wait-local-directory", {"reason": "x"})).ok()
    assert (await work.post("wait-local-directory", {"reason": "x"})).status == 400
    assert await work.status() == "waiting_local_directory"
    (await work.post("start")).ok()
    assert (await work.post("wait-local-directory", {"reason": "x"})).status == 400
    assert await work.status() == "running"


@pytest.mark.parametrize("step", [1, 2])
async def test_progress(scene: Scene, step: int) -> None:
    work = await scene.running()
    body = {"summary": "Launching", "step": step, "total": 2}
    assert (await work.post("progress", body)).ok() == {"status": "ok"}


# --- messages ---------------------------------------------------------------------------------------------

LINES: list[dict[str, Any]] = [
    {"seq": 1, "type": "thinking", "content": "Hm."},
    {"seq": 2, "type": "text", "content": "I look — é."},
    {"seq": 3, "type": "tool_use", "tool": "Bash", "input": {"command": "ls", "deep": [1, {"a": None}]}},
    {"seq": 4, "type": "tool_result", "tool": "Bash", "output": "a\nb"},
    {"seq": 5, "type": "error", "content": "Oh."},
]


async def read(work: Work, since: str = "") -> Any:
    query = f"?since={since}" if since else ""
    return (await work.target.get(f"/api/daemon/tasks/{work.id}/messages{query}")).ok()


async def test_messages_are_kept_and_given_back(scene: Scene) -> None:
    work = await scene.running()
    assert (await work.post("messages", {"messages": LINES})).ok() == {"status": "ok"}
    found = await read(work)
    assert isinstance(found, list)
    assert [each["seq"] for each in found] == [1, 2, 3, 4, 5]
    for sent, got in zip(LINES, found, strict=True):
        assert sent.items() <= got.items()
        assert got["task_id"] == work.id


async def test_messages_since(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("messages", {"messages": LINES})).ok()
    assert [each["seq"] for each in await read(work, "3")] == [4, 5]
    assert await read(work, "5") == []
    assert [each["seq"] for each in await read(work, "0")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("since", ["x", "1.5", "-"])
async def test_since_is_a_number(scene: Scene, since: str) -> None:
    work = await scene.running()
    path = f"/api/daemon/tasks/{work.id}/messages?since={since}"
    assert (await work.target.get(path)).refused(400, "invalid since parameter")


async def test_messages_come_in_any_number_of_batches(scene: Scene) -> None:
    work = await scene.running()
    for line in LINES:
        (await work.post("messages", {"messages": [line]})).ok()
    (await work.post("messages", {"messages": []})).ok()
    (await work.post("messages", {})).ok()
    assert [each["seq"] for each in await read(work)] == [1, 2, 3, 4, 5]


async def test_many_messages(scene: Scene) -> None:
    work = await scene.running()
    lines = [{"seq": seq, "type": "text", "content": f"line {seq}"} for seq in range(1, 2501)]
    (await work.post("messages", {"messages": lines})).ok()
    assert [each["seq"] for each in await read(work)] == list(range(1, 2501))


async def test_the_last_words_of_a_task_may_come_late(scene: Scene) -> None:
    work = await scene.running()
    (await work.cancel()).ok()
    assert (await work.post("messages", {"messages": LINES})).ok() == {"status": "ok"}
    assert len(await read(work)) == 5


async def test_messages_of_a_task_that_is_not_there(scene: Scene) -> None:
    answer = await scene.target.post(f"/api/daemon/tasks/{NOWHERE}/messages", {"messages": LINES})
    assert answer.refused(404, "task not found")


async def test_users_and_agents_read_messages_too(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("messages", {"messages": LINES})).ok()
    path = f"/api/tasks/{work.id}/messages"
    for token in (None, work.token):
        body = (await work.target.get(path, token=token)).ok()
        listed = body if isinstance(body, list) else body["messages"]
        assert [each["seq"] for each in listed] == [1, 2, 3, 4, 5]


# --- session and status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [{"session_id": "s"}, {"work_dir": "/w"}, {"session_id": "s", "work_dir": "/w"}]
)
async def test_a_session_is_pinned(scene: Scene, body: dict[str, str]) -> None:
    work = await scene.running()
    answer = await work.post("session", body)
    assert (answer.status, answer.body) == (204, None)


@pytest.mark.parametrize("body", [{}, {"session_id": "", "work_dir": ""}, {"session_id": None}])
async def test_a_pin_of_nothing_is_400(scene: Scene, body: dict[str, Any]) -> None:
    work = await scene.running()
    answer = await work.post("session", body)
    assert answer.status == 400
    assert answer.error


async def test_a_pin_is_what_is_gone_on_from(scene: Scene) -> None:
    work = await scene.running()
    assert (await work.post("session", {"session_id": "s-1", "work_dir": "/w/1"})).status == 204
    (await work.post("fail", {"error": "lost", "failure_reason": "runtime_recovery"})).ok()
    task = await scene.claim(work.runtime_id)
    assert (task["parent_task_id"], task["attempt"]) == (work.id, 2)
    assert (task["prior_session_id"], task["prior_work_dir"]) == ("s-1", "/w/1")


async def test_a_pin_of_what_is_over_has_no_effect(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x", "session_id": "s-1", "work_dir": "/w/1"})).ok()
    assert (await work.post("session", {"session_id": "s-2", "work_dir": "/w/2"})).status == 204
    await scene.comment(work.issue["id"], "Go on.")
    assert (await scene.claim(work.runtime_id))["prior_session_id"] == "s-1"


async def test_the_status_is_all_that_a_poll_tells(scene: Scene) -> None:
    work = await scene.claimed()
    path = f"/api/daemon/tasks/{work.id}/status"
    assert (await work.target.get(path)).ok() == {"status": "dispatched"}
    (await work.post("start")).ok()
    assert (await work.target.get(path)).ok() == {"status": "running"}
    (await work.cancel()).ok()
    assert (await work.target.get(path)).ok() == {"status": "cancelled"}


async def test_a_task_of_a_deleted_issue_is_gone(scene: Scene) -> None:
    work = await scene.running()
    (await work.target.delete(f"/api/issues/{work.issue['id']}")).ok(200, 204)
    answer = await work.target.get(f"/api/daemon/tasks/{work.id}/status")
    assert (
        answer.refused(404, "task not found")
        if answer.status == 404
        else answer.body["status"] == "cancelled"
    )


# --- secrets ----------------------------------------------------------------------------------------------

SECRETS = [
    "ghp_" + "a1B2" * 9,
    "sk-ant-" + "api03-" + "x9_Y" * 10,
    "AKIA" + "ABCDEFGH12345678",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
async def test_secrets_that_an_agent_prints_are_not_kept(scene: Scene, secret: str) -> None:
    work = await scene.running()
    lines = [
        {"seq": 1, "type": "text", "content": f"It is:\n{secret}\nNow you know."},
        {"seq": 2, "type": "tool_use", "tool": "Bash", "input": {"command": f'echo "{secret}"'}},
        {"seq": 3, "type": "tool_result", "tool": "Bash", "output": f"TOKEN={secret}"},
        {"seq": 4, "type": "text", "content": "a task-" + "b" * 40 + " is none"},
    ]
    (await work.post("messages", {"messages": lines})).ok()
    found = await read(work)
    assert [each["seq"] for each in found] == [1, 2, 3, 4]
    core = secret.splitlines()[-2] if "\n" in secret else secret[8:]
    assert core not in str(found[:3])
    assert found[0]["content"].startswith("It is:\n")
    assert found[0]["content"].endswith("\nNow you know.")
    assert found[3]["content"] == lines[3]["content"]
