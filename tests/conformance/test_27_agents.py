"""Section 27: what an agent's command line asks, with the token of its task."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.conformance.target import NOWHERE, Answer, Scene, Work, section

pytestmark = section("27", "Routes an agent's CLI uses")


async def ask(work: Work, method: str, path: str, body: Any = None, **options: Any) -> Answer:
    """As the agent of a task."""
    headers = {"X-Client-Platform": "cli"}
    return await work.target.call(method, path, body, token=work.token, headers=headers, **options)


def on(work: Work, rest: str = "") -> str:
    return f"/api/issues/{work.issue['id']}{rest}"


def listed(body: Any, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body if isinstance(body, list) else body[name]
    return found


# --- issues -----------------------------------------------------------------------------------------------


async def test_an_issue_by_its_id_and_its_key(scene: Scene) -> None:
    work = await scene.claimed(priority="high")
    by_id = (await ask(work, "GET", on(work))).ok()
    by_key = (await ask(work, "GET", f"/api/issues/{by_id['identifier']}")).ok()
    assert by_id["id"] == by_key["id"] == work.issue["id"]
    assert by_id["description"] == "What it is about."
    assert (by_id["status"], by_id["priority"]) == ("todo", "high")
    assert (by_id["assignee_type"], by_id["assignee_id"]) == ("agent", work.agent_id)
    assert by_id["identifier"].endswith(f"-{by_id['number']}")
    assert by_id["metadata"] == {}
    wanted = {
        "creator_type",
        "creator_id",
        "parent_issue_id",
        "project_id",
        "stage",
        "start_date",
        "due_date",
    }
    assert wanted | {"created_at", "updated_at", "workspace_id"} <= set(by_id)


@pytest.mark.parametrize("name", [NOWHERE, "XYZ-99999999"])
async def test_an_issue_that_is_not_there(scene: Scene, name: str) -> None:
    work = await scene.claimed()
    assert (await ask(work, "GET", f"/api/issues/{name}")).status == 404


async def test_the_list_of_issues_and_its_filters(scene: Scene) -> None:
    work = await scene.claimed()
    other = await scene.issue(status="backlog", priority="low")
    for query, there in (
        ("", {work.issue["id"], other["id"]}),
        ("?status=backlog", {other["id"]}),
        ("?priority=low", {other["id"]}),
        (f"?assignee_id={work.agent_id}", {work.issue["id"]}),
    ):
        body = (await ask(work, "GET", f"/api/issues{query}")).ok()
        found = {each["id"] for each in listed(body, "issues")}
        assert found & {work.issue["id"], other["id"]} == there, query
    page = (await ask(work, "GET", f"/api/issues?assignee_id={work.agent_id}&limit=1&offset=1")).ok()
    assert listed(page, "issues") == []


async def test_issues_are_found_by_their_text(scene: Scene) -> None:
    work = await scene.claimed()
    body = (await ask(work, "GET", f"/api/issues/search?q={scene.mark}")).ok()
    assert work.issue["id"] in {each["id"] for each in listed(body, "issues")}
    body = (await ask(work, "GET", "/api/issues/search?q=no-such-word-anywhere")).ok()
    assert listed(body, "issues") == []


async def test_an_agent_creates_sub_issues(scene: Scene) -> None:
    work = await scene.claimed()
    body = {
        "title": scene.name("sub"),
        "description": "Part.",
        "parent_issue_id": work.issue["id"],
        "priority": "low",
        "stage": 2,
        "due_date": "2030-01-31",
        "status": "backlog",
    }
    made = (await ask(work, "POST", "/api/issues", body)).ok(200, 201)
    assert (made["creator_type"], made["creator_id"]) == ("agent", work.agent_id)
    assert (made["parent_issue_id"], made["stage"]) == (work.issue["id"], 2)
    assert made["due_date"].startswith("2030-01-31")
    children = listed((await ask(work, "GET", on(work, "/children"))).ok(), "issues")
    assert [each["id"] for each in children] == [made["id"]]


async def test_an_issue_needs_a_title_and_known_words(scene: Scene) -> None:
    work = await scene.claimed()
    for body in (
        {"title": ""},
        {"title": "x", "status": "perhaps"},
        {"title": "x", "priority": "very"},
        {"title": "x", "assignee_type": "agent", "assignee_id": NOWHERE},
        {"title": "x", "parent_issue_id": NOWHERE},
        {"title": "x", "due_date": "2030-02-31"},
        {"title": "x", "start_date": "soon"},
    ):
        answer = await ask(work, "POST", "/api/issues", body)
        assert answer.status in (400, 404), body


async def test_an_issue_is_not_created_twice_by_mistake(scene: Scene) -> None:
    work = await scene.claimed()
    body = {"title": scene.name("twin"), "status": "backlog"}
    (await ask(work, "POST", "/api/issues", body)).ok(200, 201)
    assert (await ask(work, "POST", "/api/issues", body)).status == 409
    (await ask(work, "POST", "/api/issues", {**body, "allow_duplicate": True})).ok(200, 201)


async def test_a_created_issue_says_where_it_came_from(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    body = {"agent_id": agent_id, "prompt": "The door squeaks."}
    (await scene.target.post("/api/issues/quick-create", body)).ok(200, 202)
    task = await scene.claim(runtime_id)
    work = Work(scene.target, runtime_id, agent_id, {}, task)
    (await work.post("start")).ok()
    made = {
        "title": scene.name("door"),
        "status": "backlog",
        "origin_type": "quick_create",
        "origin_id": task["id"],
    }
    issue = (await ask(work, "POST", "/api/issues", made)).ok(200, 201)
    (await work.post("complete", {"output": "Created."})).ok()
    news = (await scene.target.get("/api/inbox")).ok()
    assert any(each.get("issue_id") == issue["id"] for each in listed(news, "items"))


async def test_status_assignment_and_the_rest_are_changed_alike(scene: Scene) -> None:
    work = await scene.claimed()
    for body in (
        {"status": "in_progress"},
        {"title": scene.name("new")},
        {"description": "Newer."},
        {"priority": "urgent"},
        {"stage": 3},
    ):
        changed = (await ask(work, "PUT", on(work), body)).ok()
        assert body.items() <= changed.items()
    assert changed["assignee_id"] == work.agent_id, "what was not named stays"
    cleared = (await ask(work, "PUT", on(work), {"stage": None})).ok()
    assert cleared["stage"] is None
    assert (await ask(work, "PUT", on(work), {"status": "perhaps"})).status == 400


# --- comments ---------------------------------------------------------------------------------------------


async def thread(scene: Scene, work: Work, *texts: str) -> list[dict[str, Any]]:
    """A comment of the user's and replies to it; what it sets off is taken back."""
    made = [await scene.comment(work.issue["id"], texts[0])]
    for text in texts[1:]:
        made.append(await scene.comment(work.issue["id"], text, parent_id=made[0]["id"]))
    return made


async def read(work: Work, query: str = "") -> list[dict[str, Any]]:
    return listed((await ask(work, "GET", on(work, f"/comments{query}"))).ok(), "comments")


def texts(comments: list[dict[str, Any]]) -> list[str]:
    return [each["content"] for each in comments]


async def test_a_comment(scene: Scene) -> None:
    work = await scene.claimed()
    said = (await ask(work, "POST", on(work, "/comments"), {"content": "I see **this**: é"})).ok(200, 201)
    assert (said["author_type"], said["author_id"]) == ("agent", work.agent_id)
    assert (said["issue_id"], said["parent_id"]) == (work.issue["id"], None)
    assert said["content"] == "I see **this**: é"
    assert [each["id"] for each in await read(work)] == [said["id"]]


async def test_a_comment_needs_words_and_a_parent_of_its_issue(scene: Scene) -> None:
    work = await scene.claimed()
    path = on(work, "/comments")
    assert (await ask(work, "POST", path, {"content": ""})).refused(400, "content is required")
    answer = await ask(work, "POST", path, {"content": "x", "parent_id": NOWHERE})
    assert answer.refused(400, "invalid parent comment")
    other = await scene.comment((await scene.issue())["id"], "Elsewhere.")
    answer = await ask(work, "POST", path, {"content": "x", "parent_id": other["id"]})
    assert answer.refused(400, "invalid parent comment")
    assert (await ask(work, "POST", path, {"content": "x", "parent_id": "xyz"})).status == 400


async def test_comments_come_oldest_first(scene: Scene) -> None:
    work = await scene.claimed()
    for text in ("a", "b", "c"):
        await scene.comment(work.issue["id"], text)
    assert texts(await read(work)) == ["a", "b", "c"]


async def test_comments_since(scene: Scene) -> None:
    from urllib.parse import quote

    work = await scene.claimed()
    first = await scene.comment(work.issue["id"], "a")
    await scene.comment(work.issue["id"], "b")
    assert texts(await read(work, f"?since={quote(first['created_at'])}")) == ["b"]
    assert (await ask(work, "GET", on(work, "/comments?since=yesterday"))).status == 400


async def test_a_thread_by_any_of_its_comments(scene: Scene) -> None:
    work = await scene.claimed()
    made = await thread(scene, work, "root", "one", "two", "three")
    await scene.comment(work.issue["id"], "elsewhere")
    for each in made:
        assert texts(await read(work, f"?thread={each['id']}")) == ["root", "one", "two", "three"]
    assert (await ask(work, "GET", on(work, f"/comments?thread={NOWHERE}"))).status == 404


async def test_the_tail_of_a_thread_and_what_was_before(scene: Scene) -> None:
    work = await scene.claimed()
    made = await thread(scene, work, "root", "one", "two", "three")
    path = on(work, f"/comments?thread={made[0]['id']}&tail=2")
    answer = await ask(work, "GET", path)
    assert texts(listed(answer.ok(), "comments")) == ["root", "two", "three"]
    before, before_id = cursor(answer)
    answer = await ask(work, "GET", f"{path}&before={before}&before_id={before_id}")
    assert texts(listed(answer.ok(), "comments")) == ["root", "one"]
    assert "X-Multica-Next-Before" not in answer.headers


def cursor(answer: Answer) -> tuple[str, str]:
    from urllib.parse import quote

    return quote(answer.headers["X-Multica-Next-Before"]), answer.headers["X-Multica-Next-Before-Id"]


async def test_the_threads_that_are_alive(scene: Scene) -> None:
    work = await scene.claimed()
    first = await thread(scene, work, "a")
    await thread(scene, work, "b", "b1")
    await thread(scene, work, "c")
    await scene.comment(work.issue["id"], "a1", parent_id=first[0]["id"])
    answer = await ask(work, "GET", on(work, "/comments?recent=2"))
    assert texts(listed(answer.ok(), "comments")) == ["a", "c", "a1"]
    before, before_id = cursor(answer)
    answer = await ask(work, "GET", on(work, f"/comments?recent=2&before={before}&before_id={before_id}"))
    assert texts(listed(answer.ok(), "comments")) == ["b", "b1"]
    assert "X-Multica-Next-Before" not in answer.headers


async def test_roots_alone_and_shortened(scene: Scene) -> None:
    work = await scene.claimed()
    await thread(scene, work, "root " + "x" * 3000, "reply")
    assert [each["parent_id"] for each in await read(work, "?roots_only=true")] == [None]
    (short, _reply) = await read(work, "?summary=true")
    assert len(short["content"]) < 1000


async def test_settled_threads_are_folded(scene: Scene) -> None:
    work = await scene.claimed()
    made = await thread(scene, work, "root", "reply")
    await scene.comment(work.issue["id"], "open")
    resolved = (await ask(work, "POST", f"/api/comments/{made[0]['id']}/resolve")).ok(200, 201)
    assert resolved["resolved_at"]
    assert texts(await read(work)) == ["root", "reply", "open"]
    assert texts(await read(work, "?fold=true")) == ["root", "open"]
    (await ask(work, "DELETE", f"/api/comments/{made[0]['id']}/resolve")).ok(200, 204)
    assert texts(await read(work, "?fold=true")) == ["root", "reply", "open"]


async def test_a_reply_opens_a_settled_thread(scene: Scene) -> None:
    work = await scene.claimed()
    (root,) = await thread(scene, work, "root")
    (await ask(work, "POST", f"/api/comments/{root['id']}/resolve")).ok(200, 201)
    await scene.comment(work.issue["id"], "But.", parent_id=root["id"])
    assert (await read(work))[0]["resolved_at"] is None


async def test_a_comment_is_deleted_with_what_hangs_on_it(scene: Scene) -> None:
    work = await scene.claimed()
    mine = (await ask(work, "POST", on(work, "/comments"), {"content": "Mine."})).ok(200, 201)
    await scene.comment(work.issue["id"], "A reply.", parent_id=mine["id"])
    (await ask(work, "DELETE", f"/api/comments/{mine['id']}")).ok(200, 204)
    assert await read(work) == []
    assert (await ask(work, "DELETE", f"/api/comments/{mine['id']}")).status == 404


async def test_an_agent_deletes_nobody_elses_comment(scene: Scene) -> None:
    work = await scene.claimed()
    theirs = await scene.comment(work.issue["id"], "Theirs.")
    assert (await ask(work, "DELETE", f"/api/comments/{theirs['id']}")).status == 403
    assert texts(await read(work)) == ["Theirs."]


async def asked(scene: Scene) -> tuple[Work, dict[str, Any]]:
    """A task that a comment has set off, and that comment."""
    work = await scene.running()
    (await work.post("complete", {"output": ""})).ok()
    said = await scene.comment(work.issue["id"], "What of this?")
    work.task = await scene.claim(work.runtime_id)
    return work, said


async def test_an_answer_belongs_below_the_comment_that_asked(scene: Scene) -> None:
    work, said = await asked(scene)
    path = on(work, "/comments")
    other = await scene.comment(work.issue["id"], "Something else.")
    for body in ({"content": "x"}, {"content": "x", "parent_id": other["id"]}):
        assert (await ask(work, "POST", path, body)).status == 409
    answer = await ask(work, "POST", path, {"content": "So.", "parent_id": said["id"]})
    assert answer.ok(200, 201)["parent_id"] == said["id"]


async def test_on_another_issue_an_agent_writes_where_it_likes(scene: Scene) -> None:
    work, _said = await asked(scene)
    other = await scene.issue()
    answer = await ask(work, "POST", f"/api/issues/{other['id']}/comments", {"content": "See here."})
    assert answer.status in (200, 201)


# --- notes ------------------------------------------------------------------------------------------------


async def test_notes_are_written_read_and_removed(scene: Scene) -> None:
    work = await scene.claimed()
    assert (await ask(work, "GET", on(work, "/metadata"))).ok()["metadata"] == {}
    for key, value in (("pr", 12), ("waits.on", "x"), ("deep", {"a": [1]}), ("pr", 13)):
        (await ask(work, "PUT", on(work, f"/metadata/{key}"), {"value": value})).ok()
    expected = {"pr": 13, "waits.on": "x", "deep": {"a": [1]}}
    assert (await ask(work, "GET", on(work, "/metadata"))).ok()["metadata"] == expected
    assert (await ask(work, "GET", on(work))).ok()["metadata"] == expected
    (await ask(work, "DELETE", on(work, "/metadata/pr"))).ok(200, 204)
    (await ask(work, "DELETE", on(work, "/metadata/pr"))).ok(200, 204)
    assert set((await ask(work, "GET", on(work, "/metadata"))).ok()["metadata"]) == {"waits.on", "deep"}


async def test_notes_have_limits(scene: Scene) -> None:
    work = await scene.claimed()
    for key, body in (("1x", {"value": 1}), ("a b", {"value": 1}), ("x", {"value": None}), ("x", {})):
        assert (await ask(work, "PUT", on(work, f"/metadata/{key}"), body)).status == 400
    assert (await ask(work, "PUT", on(work, "/metadata/big"), {"value": "x" * 9000})).status == 400


# --- squads -----------------------------------------------------------------------------------------------


async def led(scene: Scene) -> Work:
    """A task of a squad's leader that runs."""
    runtime_id = await scene.runtime()
    leader = await scene.agent(runtime_id)
    body = {"name": scene.name("squad"), "leader_id": leader}
    squad = (await scene.target.post("/api/squads", body)).ok(200, 201)
    issue = await scene.issue(assignee_type="squad", assignee_id=squad["id"])
    work = Work(scene.target, runtime_id, leader, issue, await scene.claim(runtime_id))
    (await work.post("start")).ok()
    return work


@pytest.mark.parametrize("outcome", ["action", "no_action", "failed"])
async def test_a_leader_records_what_it_decided(scene: Scene, outcome: str) -> None:
    work = await led(scene)
    body = {"outcome": outcome, "reason": "So it is."}
    (await ask(work, "POST", on(work, "/squad-evaluated"), body)).ok(200, 201, 204)


async def test_no_action_is_no_comment(scene: Scene) -> None:
    work = await led(scene)
    (await ask(work, "POST", on(work, "/squad-evaluated"), {"outcome": "no_action"})).ok(200, 201, 204)
    assert (await ask(work, "POST", on(work, "/comments"), {"content": "But."})).status == 409
    (await work.post("complete", {"output": "Nothing to do here, really."})).ok()
    assert await work.comments() == []


async def test_what_is_decided_has_three_words_and_needs_a_squad(scene: Scene) -> None:
    work = await led(scene)
    assert (await ask(work, "POST", on(work, "/squad-evaluated"), {"outcome": "perhaps"})).status == 400
    plain = await scene.claimed(provider="codex")
    assert (await ask(plain, "POST", on(plain, "/squad-evaluated"), {"outcome": "action"})).status == 400


# --- runs -------------------------------------------------------------------------------------------------


async def test_the_runs_of_an_issue(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x"})).ok()
    await scene.comment(work.issue["id"], "Again.")
    runs = listed((await scene.target.get(on(work, "/task-runs"))).ok(), "tasks")
    assert [(each["status"], each["kind"]) for each in runs] == [
        ("queued", "comment"),
        ("completed", "direct"),
    ]
    assert not any(each.get("auth_token") for each in runs)


async def test_a_rerun_is_accepted(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("fail", {"error": "x", "failure_reason": "agent_error.unknown"})).ok()
    answer = await scene.target.post(on(work, "/rerun"), {"task_id": work.id})
    assert answer.status == 202
    task = await scene.claim(work.runtime_id)
    assert (task["issue_id"], task["agent_id"]) == (work.issue["id"], work.agent_id)
    nobody = await scene.issue()
    assert (await scene.target.post(f"/api/issues/{nobody['id']}/rerun")).status == 400


# --- the workspace ----------------------------------------------------------------------------------------


async def test_what_is_in_the_workspace(scene: Scene) -> None:
    work = await scene.claimed()
    workspace = f"/api/workspaces/{scene.target.workspace_id}"
    assert (await ask(work, "GET", workspace)).ok()["id"] == scene.target.workspace_id
    assert listed((await ask(work, "GET", f"{workspace}/members")).ok(), "members")[0]["name"]
    agents = listed((await ask(work, "GET", "/api/agents")).ok(), "agents")
    assert work.agent_id in {each["id"] for each in agents}
    assert not any(each.get("custom_env") for each in agents), "secrets of agents are not for agents"
    for path, name in (("/api/squads", "squads"), ("/api/projects", "projects")):
        listed((await ask(work, "GET", path)).ok(), name)


async def test_repositories_are_added_by_an_agent(scene: Scene) -> None:
    work = await scene.claimed()
    path = f"/api/workspaces/{scene.target.workspace_id}"
    known = (await ask(work, "GET", path)).ok()["repos"] or []
    url = f"https://example.org/{scene.mark}.git"
    (await ask(work, "PATCH", path, {"repos": [*known, {"url": url}]})).ok()
    assert url in {each["url"] for each in (await ask(work, "GET", path)).ok()["repos"]}
    (await scene.target.patch(path, {"repos": known})).ok()


async def test_a_project_and_an_autopilot_are_shown(scene: Scene) -> None:
    work = await scene.claimed()
    project = (await scene.target.post("/api/projects", {"title": scene.name("project")})).ok(200, 201)
    assert (await ask(work, "GET", f"/api/projects/{project['id']}")).ok()["title"] == project["title"]
    body = {"title": scene.name("autopilot"), "assignee_id": work.agent_id, "execution_mode": "run_only"}
    autopilot = (await scene.target.post("/api/autopilots", body)).ok(200, 201)
    assert (await ask(work, "GET", f"/api/autopilots/{autopilot['id']}")).status == 200
    for path in (f"/api/projects/{NOWHERE}", f"/api/autopilots/{NOWHERE}", f"/api/squads/{NOWHERE}"):
        assert (await ask(work, "GET", path)).status == 404


# --- files ------------------------------------------------------------------------------------------------


async def upload(work: Work, name: str, content: bytes, **fields: str) -> Answer:
    form = aiohttp.FormData(quote_fields=False)
    for field, value in fields.items():
        form.add_field(field, value)
    form.add_field("file", content, filename=name, content_type="application/octet-stream")
    return await ask(work, "POST", "/api/upload-file", data=form)


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 3000])
async def test_a_file_goes_up_and_comes_down_as_it_was(scene: Scene, content: bytes) -> None:
    work = await scene.claimed()
    made = (await upload(work, "notes é.bin", content)).ok(200, 201)
    told = (await ask(work, "GET", f"/api/attachments/{made['id']}")).ok()
    assert told["filename"] == "notes é.bin"
    assert told["size_bytes"] == len(content)
    address = told["download_url"]
    if address.startswith("/"):
        address = scene.target.url + address
    headers = {"Authorization": f"Bearer {work.token}"}
    async with scene.target.http.get(address, headers=headers) as response:
        assert response.status == 200
        assert await response.read() == content


async def test_files_of_issues_and_comments(scene: Scene) -> None:
    work = await scene.claimed()
    first = (await upload(work, "a.txt", b"a", issue_id=work.issue["id"])).ok(200, 201)
    second = (await upload(work, "b.txt", b"b")).ok(200, 201)
    body = {"content": "See.", "attachment_ids": [second["id"]]}
    said = (await ask(work, "POST", on(work, "/comments"), body)).ok(200, 201)
    assert [each["id"] for each in said["attachments"]] == [second["id"]]
    issue = (await ask(work, "GET", on(work))).ok()
    assert first["id"] in {each["id"] for each in issue["attachments"]}


async def test_a_file_that_is_none(scene: Scene) -> None:
    work = await scene.claimed()
    assert (await ask(work, "POST", "/api/upload-file", {"no": "form"})).status == 400
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("other", b"x", filename="x")
    assert (await ask(work, "POST", "/api/upload-file", data=form)).status == 400
    assert (await ask(work, "GET", f"/api/attachments/{NOWHERE}")).status == 404


# --- chat -------------------------------------------------------------------------------------------------


async def chatting(scene: Scene, *said: str) -> Work:
    """A task of a chat in which each of these was said and answered, the last one not yet."""
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    session_id: str | None = None
    work = None
    for text in said:
        if work is not None:
            (await work.post("start")).ok()
            (await work.post("complete", {"output": f"To {work.task['chat_message']}"})).ok()
        session_id, _task = await scene.chat(agent_id, text, session_id)
        work = Work(scene.target, runtime_id, agent_id, {}, await scene.claim(runtime_id))
    assert work is not None
    return work


def said_in(message: dict[str, Any]) -> str:
    return str(message.get("content") or message.get("text"))


async def test_an_agent_reads_the_chat_of_its_task(scene: Scene) -> None:
    work = await chatting(scene, "one", "two")
    body = (await ask(work, "GET", "/api/chat/history")).ok()
    assert [(each["role"], said_in(each)) for each in body["messages"]] == [
        ("user", "one"),
        ("assistant", "To one"),
        ("user", "two"),
    ]


async def test_the_history_of_a_chat_in_pages(scene: Scene) -> None:
    work = await chatting(scene, "one", "two")
    body = (await ask(work, "GET", "/api/chat/history?limit=2")).ok()
    assert [said_in(each) for each in body["messages"]] == ["To one", "two"]
    body = (await ask(work, "GET", f"/api/chat/history?limit=2&before={body['next_cursor']}")).ok()
    assert [said_in(each) for each in body["messages"]] == ["one"]


async def test_the_thread_of_a_chat(scene: Scene) -> None:
    work = await chatting(scene, "one")
    assert isinstance((await ask(work, "GET", "/api/chat/thread")).ok()["messages"], list)


async def test_chats_are_read_in_their_own_tasks_alone(scene: Scene) -> None:
    work = await scene.claimed()
    assert (await ask(work, "GET", "/api/chat/history")).status == 400
    assert (await scene.target.get("/api/chat/history")).status == 403
