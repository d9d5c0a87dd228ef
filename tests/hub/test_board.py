"""What the hub alone decides about issues, comments, files and their tasks; the protocol's part is shown by
the conformance suite."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon_core.hub import AgentSpec, ConflictError, Limits, NewTask, dispatch
from tests.hub.world import NOWHERE, World

DAY_S = 24 * 3600


async def agent(world: World, name: str = "Ann", **more: Any) -> str:
    return (await world.hub.add_agent(AgentSpec(name=name, provider="shell", **more))).id


async def issue(world: World, agent_id: str | None = None, **more: Any) -> Any:
    body = {"title": "Mend the door", "description": "It squeaks.", **more}
    if agent_id is not None:
        body |= {"assignee_type": "agent", "assignee_id": agent_id}
    answer = await world.post("/api/issues", body)
    assert answer.status == 201, answer
    return answer.body


async def working(world: World, **more: Any) -> tuple[Any, Any]:
    """An issue with an agent whose task runs."""
    made = await issue(world, await agent(world), **more)
    task = await world.claim()
    assert (await world.task(task["id"], "start")).status == 200
    return made, task


async def comments(world: World, issue_id: str) -> list[str]:
    return [each["content"] for each in (await world.get(f"/api/issues/{issue_id}/comments")).body]


async def test_a_task_of_an_issue_is_among_the_local_ones(world: World) -> None:
    made, task = await working(world, priority="high")
    shown = await world.hub.get(task["id"])
    assert shown is not None
    assert (shown.kind, shown.issue_id, shown.title) == ("direct", made["id"], "Mend the door")
    assert shown.prompt == "Mend the door\n\nIt squeaks."
    assert (shown.status, shown.agent, shown.priority) == ("running", "Ann", 3)
    await world.task(task["id"], "complete", {"output": "Done it."})
    shown = await world.hub.get(task["id"])
    assert shown is not None
    assert shown.result == "Done it."


async def test_a_reply_to_a_task_of_an_issue_is_a_comment(world: World) -> None:
    made, task = await working(world)
    await world.task(task["id"], "complete", {"output": "Oiled.", "session_id": "s", "work_dir": "/w"})
    reply = await world.hub.reply(task["id"], "It still squeaks.")
    assert (reply.kind, reply.issue_id, reply.status) == ("comment", made["id"], "queued")
    assert await comments(world, made["id"]) == ["Oiled.", "It still squeaks."]
    claimed = await world.claim()
    assert claimed["trigger_comment_content"] == "It still squeaks."
    assert (claimed["prior_session_id"], claimed["prior_work_dir"]) == ("s", "/w")


async def test_nobody_replies_to_the_run_of_an_autopilot(world: World) -> None:
    body = {"title": "Look", "assignee_id": await agent(world)}
    autopilot = (await world.post("/api/autopilots", body)).body
    run = (await world.post(f"/api/autopilots/{autopilot['id']}/trigger")).body
    with pytest.raises(ConflictError, match="not_a_conversation"):
        await world.hub.reply(run["task_id"], "Hello?")


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_retry_is_about_the_same(world: World, fresh: bool) -> None:
    made, task = await working(world)
    await world.task(task["id"], "fail", {"error": "x", "failure_reason": "timeout", "session_id": "s"})
    await world.hub.cancel((await world.hub.list())[0].id)  # what the hub tries again by itself
    again = await world.hub.retry(task["id"], fresh=fresh)
    assert (again.kind, again.issue_id) == ("direct", made["id"])
    claimed = await world.claim()
    assert claimed["issue_id"] == made["id"]
    assert claimed.get("prior_session_id") == (None if fresh else "s")


async def test_local_conversations_are_of_the_kind_chat(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert (task.kind, task.issue_id) == ("chat", None)
    claimed = await world.claim()
    assert (claimed["kind"], claimed["chat_session_id"]) == ("chat", task.conversation_id)
    assert not claimed.get("initiator_id")


async def test_an_issue_outlives_its_tasks(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db", retention=timedelta(days=30))
    await world.open()
    await world.register("shell")
    world.hub.start_timers()
    made, task = await working(world)
    await world.task(task["id"], "complete", {"output": "Oiled."})
    world.clock.advance(31 * DAY_S)
    await world.hub.sweep()
    assert await world.hub.get(task["id"]) is None
    assert (await world.get(f"/api/issues/{made['id']}")).status == 200
    assert await comments(world, made["id"]) == ["Oiled."]
    await world.close()


async def test_the_board_survives_a_restart(world: World) -> None:
    made, task = await working(world)
    await world.task(task["id"], "complete", {"output": "Oiled."})
    await world.put_note(made["id"])
    await world.reopen()
    found = (await world.get("/api/issues/LOC-1")).body
    assert (found["id"], found["metadata"]) == (made["id"], {"pr": 7})
    assert await comments(world, made["id"]) == ["Oiled."]
    assert (await issue(world, title="Another"))["identifier"] == "LOC-2"


async def test_deleting_an_issue_ends_its_runs(world: World) -> None:
    made, task = await working(world)
    async with world.connect(world.runtimes["shell"]) as socket:
        assert (await world.call("DELETE", f"/api/issues/{made['id']}")).status == 204
        frame = await socket.receive_json(timeout=10)
    assert frame == {"type": "daemon:task_changed", "payload": {"task_id": task["id"], "status": "deleted"}}
    assert await world.status(task["id"]) == "404 task not found"
    assert (await world.get("/api/issues", token=task["auth_token"])).status == 401


async def test_an_agent_deletes_no_issue(world: World) -> None:
    made, task = await working(world)
    answer = await world.call("DELETE", f"/api/issues/{made['id']}", token=task["auth_token"])
    assert answer == (403, {"error": "this needs a person"})


async def test_an_agent_adds_repositories_and_changes_nothing_else(world: World) -> None:
    path = f"/api/workspaces/{world.hub.workspace_id}"
    assert (await world.call("PATCH", path, {"repos": [{"url": "https://example.org/a"}]})).status == 200
    _made, task = await working(world)
    token = task["auth_token"]
    refused: tuple[tuple[int, dict[str, Any]], ...] = (
        (409, {"repos": []}),
        (409, {"repos": [{"url": "https://example.org/b"}]}),
        (403, {"settings": {}}),
        (403, {"name": "Mine"}),
        (403, {"context": "x", "repos": [{"url": "https://example.org/a"}]}),
    )
    for status, body in refused:
        assert (await world.call("PATCH", path, body, token=token)).status == status, body
    more = {"repos": [{"url": "https://example.org/a"}, {"url": "https://example.org/b"}]}
    assert (await world.call("PATCH", path, more, token=token)).status == 200


async def test_a_removed_agent_leaves_its_issues_to_nobody(world: World) -> None:
    made, task = await working(world)
    await world.task(task["id"], "complete", {"output": "x"})
    await world.hub.remove_agent("Ann")
    found = (await world.get(f"/api/issues/{made['id']}")).body
    assert (found["assignee_type"], found["assignee_id"]) == (None, None)
    assert (await world.post(f"/api/issues/{made['id']}/comments", {"content": "Anybody?"})).status == 201
    assert await world.claim() is None


async def test_a_task_that_was_not_claimed_goes_with_the_comment_that_asked(world: World) -> None:
    made, task = await working(world)
    await world.task(task["id"], "complete", {"output": ""})
    said = (await world.post(f"/api/issues/{made['id']}/comments", {"content": "Now?"})).body
    assert (await world.call("DELETE", f"/api/comments/{said['id']}")).status == 204
    assert await world.claim() is None


async def test_the_last_part_of_a_stage_wakes_whoever_has_the_whole(world: World) -> None:
    made, task = await working(world)
    parts = [
        await issue(world, title=f"Part {number}", parent_issue_id=made["id"], stage=1, status="todo")
        for number in range(2)
    ]
    await world.task(task["id"], "complete", {"output": "Split."})
    for number, part in enumerate(parts):
        assert await world.claim() is None, number
        assert (await world.call("PUT", f"/api/issues/{part['id']}", {"status": "done"})).status == 200
    claimed = await world.claim()
    assert claimed["issue_id"] == made["id"]
    assert claimed["handoff_note"] == "LOC-3 is done."


async def test_an_issue_is_not_below_itself(world: World) -> None:
    upper = await issue(world)
    lower = await issue(world, title="Lower", parent_issue_id=upper["identifier"])
    for below in (upper["id"], lower["id"]):
        answer = await world.call("PUT", f"/api/issues/{upper['id']}", {"parent_issue_id": below})
        assert answer == (400, {"error": "an issue cannot be below itself"})


async def test_a_creation_that_made_nothing_is_told(world: World) -> None:
    agent_id = await agent(world)
    await world.post("/api/issues/quick-create", {"agent_id": agent_id, "prompt": "Do."})
    task = await world.claim()
    assert (await world.hub.get(task["id"])).waiting_reason is None  # type: ignore[union-attr]
    await world.post("/api/issues/quick-create", {"agent_id": agent_id, "prompt": "Do more."})
    waiting = (await world.hub.list())[0]
    assert (waiting.kind, waiting.waiting_reason) == ("quick_create", "agent_busy")
    async with world.connect(world.runtimes["shell"]) as socket:
        await world.run(task["id"])
        frame = await socket.receive_json(timeout=10)
    assert frame["payload"]["task_id"] == waiting.id, "the one that waited is hinted at"
    (news,) = (await world.get("/api/inbox")).body
    assert (news["type"], news["task_id"]) == ("quick_create_failed", task["id"])


async def test_text_is_found_literally(world: World) -> None:
    made = await issue(world, title="Costs 100% more")
    await issue(world, title="Costs 1000 more")
    for query, found in (("100%25", [made["id"]]), ("100%25 costs", [made["id"]]), ("_", [])):
        body = (await world.get(f"/api/issues/search?q={query}")).body
        assert [each["id"] for each in body["issues"]] == found, query


# --- files ------------------------------------------------------------------------------------------------


async def upload(world: World, content: bytes, name: str = "a.txt", **fields: str) -> tuple[int, Any]:
    form = aiohttp.FormData(quote_fields=False)
    for field, value in fields.items():
        form.add_field(field, value)
    form.add_field("file", content, filename=name)
    headers = {"Authorization": f"Bearer {world.token}"}
    async with world.http.post(world.url + "/api/upload-file", data=form, headers=headers) as response:
        return response.status, await response.json()


async def test_a_signed_address_needs_no_token_and_is_good_for_a_while(world: World) -> None:
    _status, made = await upload(world, b"secret")
    address = made["download_url"]
    async with world.http.get(address) as response:
        assert (response.status, await response.read()) == (200, b"secret")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Disposition"].startswith("attachment;")
    for wrong in (address[:-1] + ("0" if address[-1] != "0" else "1"), address.partition("?")[0]):
        async with world.http.get(wrong) as response:
            assert response.status == 401
    other = (await upload(world, b"other"))[1]["id"]
    async with world.http.get(address.replace(made["id"], other)) as response:
        assert response.status == 401
    world.clock.advance(601)
    async with world.http.get(address) as response:
        assert response.status == 401


async def test_a_file_has_a_limit(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db", limits=Limits(attachment_bytes=1000))
    await world.open()
    status, _made = await upload(world, b"x" * 1000)
    assert status == 200
    refused = await upload(world, b"x" * 1001)
    assert refused == (413, {"error": "file too large"})
    await world.close()


@pytest.mark.parametrize(
    ("given", "kept"), [("../../etc/passwd", "passwd"), ("a\\b.txt", "b.txt"), ("..", "file")]
)
async def test_a_files_name_is_a_name(world: World, given: str, kept: str) -> None:
    status, made = await upload(world, b"x", given)
    assert (status, made["filename"]) == (200, kept)


async def test_a_file_that_belongs_to_nothing_is_forgotten(world: World) -> None:
    world.hub.start_timers()
    _status, loose = await upload(world, b"x")
    _status, kept = await upload(world, b"x", issue_id=(await issue(world))["id"])
    world.clock.advance(DAY_S + 1)
    await world.hub.sweep()
    assert (await world.get(f"/api/attachments/{loose['id']}")).status == 404
    assert (await world.get(f"/api/attachments/{kept['id']}")).status == 200


async def test_files_go_with_what_they_belong_to(world: World) -> None:
    made = await issue(world)
    _status, file = await upload(world, b"x", issue_id=made["id"])
    await world.call("DELETE", f"/api/issues/{made['id']}")
    assert (await world.get(f"/api/attachments/{file['id']}")).status == 404
    assert (await world.call("DELETE", f"/api/attachments/{NOWHERE}")).status == 404


@pytest.mark.parametrize("piece", ["[", "[](mention://a/", "[@x](mention://agent/"])
def test_a_text_of_beginnings_of_mentions_takes_no_time(piece: str) -> None:
    assert dispatch.mentions(piece * (300_000 // len(piece))) == []
    assert dispatch.mentions(piece * 9 + "[@Bob](mention://agent/ID)") == [("agent", "id")]
