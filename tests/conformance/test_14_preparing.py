"""Section 14: lease, skills, start."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, cannot, section

pytestmark = section("14", "Prepare phase: lease, skill bundles, manifest hash, start")
CAPABLE = {"X_Client_Capabilities": "skill-bundles-v1"}


async def test_a_lease_is_given_to_what_is_prepared(scene: Scene) -> None:
    work = await scene.claimed()
    answer = await work.of_runtime("prepare-lease")
    assert answer.ok()["id"] == work.id
    (await work.post("wait-local-directory", {"reason": "held"})).ok()
    assert (await work.of_runtime("prepare-lease")).status == 200


async def test_a_lease_is_not_given_to_what_runs_or_is_over(scene: Scene) -> None:
    work = await scene.running()
    assert (await work.of_runtime("prepare-lease")).status == 400
    (await work.post("complete", {"output": "x"})).ok()
    assert (await work.of_runtime("prepare-lease")).status == 400


async def test_a_lease_is_for_the_tasks_own_runtime(scene: Scene) -> None:
    work = await scene.claimed()
    work.runtime_id = await scene.runtime("codex")
    assert (await work.of_runtime("prepare-lease")).refused(404, "task not found")
    work.task["id"] = NOWHERE
    assert (await work.of_runtime("prepare-lease")).refused(404, "task not found")


async def test_a_start_is_answered_with_the_task(scene: Scene) -> None:
    work = await scene.claimed()
    body = (await work.post("start")).ok()
    assert (body["id"], body["status"]) == (work.id, "running")
    assert body["started_at"]
    assert not body.get("auth_token")


# --- skills -----------------------------------------------------------------------------------------------


def manifest_hash(skill: dict[str, Any]) -> str:
    """What stands for a skill, as the section says."""
    digest = hashlib.sha256()

    def add(text: str) -> None:
        data = text.encode()
        digest.update(f"{len(data)}:".encode() + data + b"\n")

    for part in ("v1", skill["source"], skill["id"], skill["name"], skill.get("description", "")):
        add(part)
    add(skill["content"])
    for file in sorted(skill.get("files") or [], key=lambda each: each["path"].encode()):
        add(file["path"])
        add("sha256:" + hashlib.sha256(file["content"].encode()).hexdigest())
        add(file["content"])
    return "sha256:" + digest.hexdigest()


def test_the_worked_values() -> None:
    skill = {"source": "workspace", "id": "skill-1", "name": "deploy", "content": "main"}
    assert manifest_hash(skill) == ("sha256:b83948ff81671da9ad2125bf2aa6adb5dcb2dbda53affbdff848130c30eeec19")
    skill["files"] = [{"path": "b.md", "content": "b"}, {"path": "a.md", "content": "é"}]  # type: ignore[assignment]
    assert manifest_hash(skill) == ("sha256:4ac08ea67746657da67f33c4f00de1b01a07c05a468dc9941f6299cf4f864b4a")


async def skilled(scene: Scene, **more: Any) -> tuple[str, str, dict[str, Any]]:
    """A runtime, the agent on it, and its skill."""
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    body = {
        "name": scene.name("skill"),
        "description": "How it is done.",
        "content": "# Füße",
        "files": [{"path": "b.md", "content": "b"}, {"path": "a/é.md", "content": "é"}],
        **more,
    }
    answer = await scene.target.post("/api/skills", body)
    if answer.status not in (200, 201):
        cannot(f"create a skill ({answer.status})")
    given = await scene.target.put(f"/api/agents/{agent_id}/skills", {"skill_ids": [answer.body["id"]]})
    if given.status != 200:
        cannot(f"give an agent a skill ({given.status})")
    return runtime_id, agent_id, answer.body


def mine(skills: list[dict[str, Any]]) -> dict[str, Any]:
    """The one that is no built-in of the server's."""
    (found,) = [each for each in skills if not each["id"].startswith("builtin:")]
    return found


async def test_without_the_capability_skills_come_whole(scene: Scene) -> None:
    runtime_id, agent_id, skill = await skilled(scene)
    await scene.issue(agent_id)
    agent = (await scene.claim(runtime_id))["agent"]
    found = mine(agent["skills"])
    assert (found["name"], found["content"]) == (skill["name"], "# Füße")
    assert {each["path"]: each["content"] for each in found["files"]} == {"b.md": "b", "a/é.md": "é"}
    assert not agent.get("skill_refs")


async def test_with_the_capability_references_come(scene: Scene) -> None:
    runtime_id, agent_id, skill = await skilled(scene)
    await scene.issue(agent_id)
    agent = (await scene.claim(runtime_id, **CAPABLE))["agent"]
    assert not agent.get("skills")
    ref = mine(agent["skill_refs"])
    assert (ref["source"], ref["name"], ref["file_count"]) == ("workspace", skill["name"], 2)
    assert ref["size_bytes"] == len("# Füße".encode()) + 1 + 2, "sizes are bytes"
    assert ref["hash"].startswith("sha256:")
    for file in ref.get("files") or []:
        assert file["sha256"].startswith("sha256:")
        assert not file.get("content")


async def test_a_reference_is_resolved_to_its_content(scene: Scene) -> None:
    runtime_id, agent_id, _skill = await skilled(scene)
    await scene.issue(agent_id)
    task = await scene.claim(runtime_id, **CAPABLE)
    ref = mine(task["agent"]["skill_refs"])
    path = f"/api/daemon/runtimes/{runtime_id}/tasks/{task['id']}/skill-bundles/resolve"
    (bundle,) = (await scene.target.post(path, {"skills": [ref]})).ok()["bundles"]
    assert (bundle["id"], bundle["source"]) == (ref["id"], ref["source"])
    assert bundle["hash"] == ref["hash"] == manifest_hash(bundle)


@section("31", "Easy to get wrong")
async def test_what_is_resolved_is_the_skill_as_it_is_now(scene: Scene) -> None:
    runtime_id, agent_id, skill = await skilled(scene)
    await scene.issue(agent_id)
    task = await scene.claim(runtime_id, **CAPABLE)
    ref = mine(task["agent"]["skill_refs"])
    (await scene.target.put(f"/api/skills/{skill['id']}", {"content": "# Newer"})).ok()
    path = f"/api/daemon/runtimes/{runtime_id}/tasks/{task['id']}/skill-bundles/resolve"
    (bundle,) = (await scene.target.post(path, {"skills": [ref]})).ok()["bundles"]
    assert bundle["content"] == "# Newer"
    assert bundle["hash"] != ref["hash"]
    assert bundle["hash"] == manifest_hash(bundle)


@pytest.mark.parametrize("missing", ["id", "source", "hash"])
async def test_an_incomplete_reference_is_400(scene: Scene, missing: str) -> None:
    work = await scene.claimed()
    ref = {"id": NOWHERE, "source": "workspace", "hash": "sha256:0", missing: ""}
    answer = await work.of_runtime("skill-bundles/resolve", {"skills": [ref]})
    assert answer.refused(400, "invalid skill ref")


async def test_an_unknown_skill_is_404(scene: Scene) -> None:
    work = await scene.claimed()
    ref = {"id": NOWHERE, "source": "workspace", "hash": "sha256:0"}
    answer = await work.of_runtime("skill-bundles/resolve", {"skills": [ref]})
    assert answer.refused(404, "skill bundle not found")


async def test_skills_are_resolved_while_a_task_is_prepared(scene: Scene) -> None:
    work = await scene.running()
    ref = {"id": NOWHERE, "source": "workspace", "hash": "sha256:0"}
    answer = await work.of_runtime("skill-bundles/resolve", {"skills": [ref]})
    assert answer.refused(409, "task is not preparing")
    work.task["id"] = NOWHERE
    answer = await work.of_runtime("skill-bundles/resolve", {"skills": [ref]})
    assert answer.refused(404, "task not found")
