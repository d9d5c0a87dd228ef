"""Conversations: replies and what they resume, retries, deletion in every state, retention, finding."""

from __future__ import annotations

import functools
from datetime import timedelta
from pathlib import Path

import pytest

from daemon_core.hub import ConflictError, HubTask, InvalidInputError, NewTask, NotFoundError
from daemon_core.hub.store import Tx
from tests.hub.test_states import WIRE_STATES, bring_to
from tests.hub.world import NOWHERE, World


async def turn(world: World, task: HubTask, provider: str = "shell", **report: object) -> None:
    claimed = await world.claim(provider)
    assert claimed["id"] == task.id
    await world.task(task.id, "start")
    verb = "fail" if "error" in report else "complete"
    assert (await world.task(task.id, verb, report)).status == 200


async def test_a_reply_resumes_session_and_directory(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="claude", title="Talk", model="m"))
    await turn(world, first, "claude", output="1", session_id="s1", work_dir="/w")
    second = await world.hub.reply(first.id, "two")
    assert second.conversation_id == first.conversation_id
    assert (second.title, second.model) == ("Talk", "m")
    claimed = await world.claim("claude")
    assert claimed["chat_message"] == "two"
    assert (claimed["prior_session_id"], claimed["prior_work_dir"]) == ("s1", "/w")


async def test_a_reply_may_name_another_model_for_itself(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="claude", model="a"))
    await turn(world, first, "claude", output="1")
    await world.hub.reply(first.id, "two", model="b")
    claimed = await world.claim("claude")
    assert claimed["agent"]["model"] == "b"
    await world.run(claimed["id"])
    await world.hub.reply(first.id, "three")
    assert (await world.claim("claude"))["agent"]["model"] == "a"


async def test_a_turn_without_a_session_keeps_the_one_before(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    await turn(world, first, output="1", session_id="s1", work_dir="/w")
    await turn(world, await world.hub.reply(first.id, "two"), output="2")
    await world.hub.reply(first.id, "three")
    claimed = await world.claim()
    assert (claimed["prior_session_id"], claimed["prior_work_dir"]) == ("s1", "/w")


@pytest.mark.parametrize("end", ["complete", "fail"])
@pytest.mark.parametrize("fresh", ["", "s2"])
async def test_a_session_that_its_agent_does_not_know_is_not_handed_out_again(
    world: World, end: str, fresh: str
) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    await turn(world, first, output="1", session_id="s1", work_dir="/w")
    report = {"output": "2"} if end == "complete" else {"error": "boom", "branch_name": "agent/x"}
    second = await world.hub.reply(first.id, "two")
    await turn(world, second, session_id=fresh, work_dir="/w", retired_session_id="s1", **report)
    if end == "fail":
        shown = await world.hub.get(second.id)
        assert shown is not None
        assert shown.branch_name == "agent/x"
    await world.hub.reply(first.id, "three")
    claimed = await world.claim()
    assert (claimed.get("prior_session_id", ""), claimed["prior_work_dir"]) == (fresh, "/w")


async def test_a_report_that_comes_too_late_retires_nothing(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    await turn(world, first, output="1", session_id="s1", work_dir="/w")
    late = {"error": "x", "retired_session_id": "s1"}
    assert (await world.task(first.id, "fail", late)).status == 200
    await world.hub.reply(first.id, "two")
    assert (await world.claim())["prior_session_id"] == "s1"


@pytest.mark.parametrize(
    ("reason", "error", "resumed"),
    [
        ("agent_error.unknown", "boom", "s2"),
        ("idle_watchdog", "silent", "s2"),
        ("iteration_limit", "too many", "s1"),
        ("agent_fallback_message", "x", "s1"),
        ("api_invalid_request", "x", "s1"),
        ("codex_semantic_inactivity", "x", "s1"),
        ("agent_error.unknown", "400 {invalid_request_error}", "s1"),
    ],
)
async def test_a_failed_turn_is_resumed_only_if_its_session_is_sound(
    world: World, reason: str, error: str, resumed: str
) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell", max_attempts=1))
    await turn(world, first, output="1", session_id="s1", work_dir="/w1")
    second = await world.hub.reply(first.id, "two")
    await turn(world, second, error=error, failure_reason=reason, session_id="s2", work_dir="/w1")
    await world.hub.reply(first.id, "three")
    assert (await world.claim())["prior_session_id"] == resumed


async def test_a_session_that_was_spoilt_is_not_resumed_again(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell", max_attempts=1))
    await turn(world, first, output="1", session_id="s1", work_dir="/w")
    second = await world.hub.reply(first.id, "two")
    await turn(world, second, error="x", failure_reason="api_invalid_request", session_id="s1")
    await world.hub.reply(first.id, "three")
    claimed = await world.claim()
    assert "prior_session_id" not in claimed
    assert claimed["prior_work_dir"] == "/w"


async def test_a_session_of_another_runtime_is_not_resumed(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    await turn(world, first, output="1", session_id="s1", work_dir="/w")
    await world.post("/api/daemon/deregister", {"runtime_ids": [world.runtimes["shell"]]})
    second = await world.hub.reply(first.id, "two")
    await world.register("shell", daemon_id=NOWHERE)
    claimed = await world.claim()
    assert claimed["id"] == second.id
    assert "prior_session_id" not in claimed
    assert claimed["prior_work_dir"] == "/w"


async def test_a_cancelled_turn_is_gone_on_from_but_its_words_are_not_repeated(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="sleep 100", provider="shell"))
    await world.claim()
    await world.task(first.id, "start")
    await world.task(first.id, "session", {"session_id": "s", "work_dir": "/w"})
    await world.hub.cancel(first.id)
    await world.hub.reply(first.id, "echo hello")
    claimed = await world.claim()
    assert claimed["chat_message"] == "echo hello"
    assert (claimed["prior_session_id"], claimed["prior_work_dir"]) == ("s", "/w")


async def test_a_retry_says_the_same_again(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell", max_attempts=1))
    with pytest.raises(ConflictError) as refused:
        await world.hub.retry(first.id)
    assert refused.value.code == "task_active"
    await turn(world, first, error="boom", session_id="s", work_dir="/w")
    again = await world.hub.retry(first.id)
    assert again.id != first.id
    claimed = await world.claim()
    assert (claimed["id"], claimed["chat_message"]) == (again.id, "one")
    assert claimed["prior_session_id"] == "s"
    await world.run(again.id, session_id="s", work_dir="/w")
    await world.hub.retry(again.id, fresh=True)
    claimed = await world.claim()
    assert claimed["chat_message"] == "one"
    assert "prior_session_id" not in claimed
    assert "prior_work_dir" not in claimed


@pytest.mark.parametrize("state", WIRE_STATES)
async def test_a_conversation_is_deleted_in_any_state(world: World, state: str, tmp_path: Path) -> None:
    task_id = await bring_to(world, state)
    await world.task(task_id, "messages", {"messages": [{"seq": 1, "type": "text", "content": "x"}]})
    task = await world.hub.get(task_id)
    assert task is not None
    other = await world.hub.add_task(NewTask(prompt="stays", provider="shell"))
    world.changes.clear()
    deleted = await world.hub.delete(task_id)
    assert deleted.conversation_id == task.conversation_id
    assert deleted.task_ids == [task_id]
    assert [each.kind for each in world.changes] == ["conversation_deleted"]
    assert await world.hub.get(task_id) is None
    assert await world.status(task_id) == "404 task not found"
    for verb in ("complete", "fail", "messages", "usage", "session"):
        answer = await world.task(task_id, verb, {"session_id": "x"})
        assert answer == (404, {"error": "task not found"})
    for call in (world.hub.delete(task_id), world.hub.cancel(task_id), world.hub.reply(task_id, "x")):
        with pytest.raises(NotFoundError):
            await call
    with pytest.raises(NotFoundError):
        await world.hub.conversation(task.conversation_id)
    rows = await world.hub.store.read(
        lambda tx: [tx.all(f"SELECT * FROM {table}") for table in ("message", "token", "usage")]
    )
    assert rows == [[], [], []]
    gc = await world.get(f"/api/daemon/chat-sessions/{task.conversation_id}/gc-check")
    assert gc == (404, {"error": "chat session not found"})
    assert (await world.claim())["id"] == other.id


async def test_a_deletion_tells_the_directories(world: World, tmp_path: Path) -> None:
    first = await world.hub.add_task(NewTask(prompt="x", provider="shell", directory=str(tmp_path)))
    await turn(world, first, output="1", work_dir=str(tmp_path))
    await turn(world, await world.hub.reply(first.id, "y"), output="1", work_dir="/other")
    deleted = await world.hub.delete(first.conversation_id)
    assert deleted.work_dirs == [str(tmp_path), "/other"]
    assert deleted.directory == str(tmp_path)
    assert len(deleted.task_ids) == 2


async def test_what_has_ended_long_ago_is_deleted(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db", retention=timedelta(days=30))
    await world.open()
    try:
        await world.register("shell")
        old = await world.hub.add_task(NewTask(prompt="old", provider="shell"))
        await turn(world, old, output="1")
        queued = await world.hub.add_task(NewTask(prompt="queued", provider="claude"))
        busy = await world.hub.add_task(NewTask(prompt="busy", provider="shell"))
        await world.claim()
        await world.task(busy.id, "start")
        world.clock.advance(29 * 86400)
        await world.hub.sweep()
        assert await world.hub.get(old.id) is not None
        young = await world.hub.add_task(NewTask(prompt="young", provider="shell"))
        await turn(world, young, output="1")
        world.clock.advance(86400)
        await world.hub.sweep()
        assert await world.hub.get(old.id) is not None, "no sweep before the daemon has its runs again"
        world.hub.start_timers()
        await world.hub.sweep()
        assert await world.hub.get(old.id) is None
        for task in (queued, busy, young):
            assert await world.hub.get(task.id) is not None
        assert await world.status(queued.id) == "queued"
        assert await world.status(busy.id) == "running"
    finally:
        await world.close()


async def test_retention_of_zero_keeps_everything(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db", retention=timedelta(0))
    await world.open()
    try:
        await world.register("shell")
        old = await world.hub.add_task(NewTask(prompt="old", provider="shell"))
        await turn(world, old, output="1")
        world.hub.start_timers()
        world.clock.advance(10_000 * 86400)
        await world.hub.sweep()
        assert await world.hub.get(old.id) is not None
    finally:
        await world.close()


async def test_a_running_task_has_no_cap_and_keeps_its_token(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    token = (await world.claim())["auth_token"]
    await world.task(added.id, "start")
    world.hub.start_timers()
    for _ in range(10):
        world.clock.advance(86400)
        assert (await world.get("/api/agents", token=token)).status == 200
        await world.hub.sweep()
    assert await world.status(added.id) == "running"
    assert (await world.get("/api/agents", token=token)).status == 200


async def test_finding_by_the_beginning_of_an_id(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    second = await world.hub.reply(first.id, "two")
    assert [each.id for each in await world.hub.find(first.id[:8].upper())] == [first.id]
    assert [each.id for each in await world.hub.find(first.id)] == [first.id]
    assert [each.id for each in await world.hub.find(first.conversation_id[:8])] == [second.id]
    assert await world.hub.find("zzzz") == []
    assert await world.hub.find("%%%%") == []
    with pytest.raises(InvalidInputError) as refused:
        await world.hub.find(first.id[:3])
    assert refused.value.code == "id_too_short"


async def test_an_ambiguous_beginning_finds_all_of_them(world: World) -> None:
    ids = ["abcd0000-0000-4000-8000-00000000000" + end for end in "123"]
    sql = "UPDATE task SET id = ?, turn_id = ? WHERE id = ?"
    for wanted in ids:
        task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
        change = functools.partial(Tx.run, sql=sql, parameters=(wanted, wanted, task.id))
        await world.hub.store.write(change)
    assert [each.id for each in await world.hub.find("abcd")] == ids[::-1]


async def test_the_list_is_newest_first_and_keeps_what_is_not_over(world: World) -> None:
    tasks = [await world.hub.add_task(NewTask(prompt=str(n), provider="shell")) for n in range(5)]
    await turn(world, tasks[0], output="x")
    await turn(world, tasks[1], output="x")
    assert [each.prompt for each in await world.hub.list(limit=1)] == ["4", "3", "2"]
    assert [each.prompt for each in await world.hub.list(limit=50)] == ["4", "3", "2", "1", "0"]
    assert len(await world.hub.list(all=True)) == 5


async def test_a_title_is_the_given_one_or_the_prompts_first_line(world: World) -> None:
    for prompt, title, expected in (
        ("\n  first   line \nsecond", None, "first line"),
        ("x", "Given\ttitle", "Given title"),
        ("y" * 200, None, "y" * 79 + "…"),
        ("x", "  ", "x"),
    ):
        task = await world.hub.add_task(NewTask(prompt=prompt, provider="shell", title=title))
        assert task.title == expected


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NewTask(prompt="", provider="shell"), "prompt_empty"),
        (NewTask(prompt=" \n", provider="shell"), "prompt_empty"),
        (NewTask(prompt="x" * (9 << 20), provider="shell"), "prompt_too_long"),
        (NewTask(prompt="x\udcff", provider="shell"), "not_text"),
        (NewTask(prompt="x", provider="shell", title="\udcff"), "not_text"),
        (NewTask(prompt="x"), "provider_missing"),
        (NewTask(prompt="x", provider="shell", directory="relative"), "directory_not_absolute"),
        (NewTask(prompt="x", provider="shell", directory="/a\0b"), "directory_not_absolute"),
        (NewTask(prompt="x", provider="shell", priority=5), "priority_out_of_range"),
        (NewTask(prompt="x", provider="shell", max_attempts=0), "max_attempts_out_of_range"),
    ],
)
async def test_nonsense_is_refused_with_a_code(world: World, new: NewTask, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await world.hub.add_task(new)
    assert refused.value.code == code
    assert await world.hub.list() == []


async def test_the_clean_up_checks(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    chat = await world.get(f"/api/daemon/chat-sessions/{task.conversation_id}/gc-check")
    assert (chat.status, chat.body["status"]) == (200, "active")
    assert chat.body["updated_at"].endswith("Z")
    path = f"/api/daemon/tasks/{task.id}/gc-check"
    assert await world.get(path) == (200, {"status": "queued", "completed_at": "0001-01-01T00:00:00Z"})
    await turn(world, task, output="x")
    assert (await world.get(path)).body["status"] == "completed"
    for kind, text in (("issues", "issue not found"), ("autopilot-runs", "autopilot run not found")):
        assert await world.get(f"/api/daemon/{kind}/{NOWHERE}/gc-check") == (404, {"error": text})
