"""Section 9: signs of life, and what a daemon is asked in return."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Answer, Scene, Target, cannot, section

pytestmark = section("9", "Heartbeat, pending actions and their result routes")


async def beat(target: Target, runtime_id: str, **more: Any) -> Any:
    body = {"runtime_id": runtime_id, "supports_batch_import": True, **more}
    answer = (await target.post("/api/daemon/heartbeat", body)).ok()
    assert answer["status"] == "ok"
    return answer


async def ask(target: Target, runtime_id: str, what: str, body: Any = None) -> Any:
    answer = await target.post(f"/api/runtimes/{runtime_id}/{what}", body)
    if answer.status not in (200, 201, 202):
        cannot(f"ask a runtime for {what} ({answer.status} {answer.body})")
    return answer.body


async def asked(target: Target, runtime_id: str, what: str, request_id: str) -> Any:
    return (await target.get(f"/api/runtimes/{runtime_id}/{what}/{request_id}")).ok()


async def result(target: Target, runtime_id: str, what: str, request_id: str, **body: Any) -> Answer:
    return await target.post(f"/api/daemon/runtimes/{runtime_id}/{what}/{request_id}/result", body)


async def test_a_heartbeat_says_ok_without_the_runtime(scene: Scene) -> None:
    body = await beat(scene.target, await scene.runtime())
    assert "runtime_id" not in body
    assert not {name for name in body if name.startswith("pending")}


async def test_a_heartbeat_may_leave_out_what_it_can(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    assert (await scene.target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})).status == 200


async def test_a_heartbeat_needs_a_runtime_that_is_there(scene: Scene) -> None:
    path = "/api/daemon/heartbeat"
    assert (await scene.target.post(path, {})).refused(400, "runtime_id is required")
    assert (await scene.target.post(path, {"runtime_id": NOWHERE})).refused(404, "runtime not found")
    assert (await scene.target.post(path, {"runtime_id": "x"})).status == 400


async def test_a_heartbeat_brings_an_offline_runtime_back(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    await scene.target.post("/api/daemon/deregister", {"runtime_ids": [runtime_id]})
    answer = await scene.target.post(f"/api/runtimes/{runtime_id}/models")
    assert answer.refused(503, "runtime is offline")
    await beat(scene.target, runtime_id)
    assert (await scene.target.post(f"/api/runtimes/{runtime_id}/models")).status in (200, 201, 202)


# --- update -----------------------------------------------------------------------------------------------


async def test_an_update_is_taken_along_once_and_runs_then(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "update", {"target_version": "9.9.9"})
    assert (await asked(target, runtime_id, "update", made["id"]))["status"] == "pending"
    body = await beat(target, runtime_id)
    assert body["pending_update"] == {"id": made["id"], "target_version": "9.9.9"}
    assert (await asked(target, runtime_id, "update", made["id"]))["status"] == "running"
    assert "pending_update" not in await beat(target, runtime_id)


async def test_there_is_one_update_of_a_runtime_at_a_time(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "update", {"target_version": "1.0.0"})
    path = f"/api/runtimes/{runtime_id}/update"
    assert (await target.post(path, {"target_version": "2.0.0"})).status == 409
    await beat(target, runtime_id)
    assert (await target.post(path, {"target_version": "2.0.0"})).status == 409
    (await result(target, runtime_id, "update", made["id"], status="failed", error="no")).ok()
    await ask(target, runtime_id, "update", {"target_version": "2.0.0"})


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_the_result_of_an_update(scene: Scene, end: str) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "update", {"target_version": "1.0.0"})
    await beat(target, runtime_id)
    running = await result(target, runtime_id, "update", made["id"], status="running")
    assert running.ok() == {"status": "ok"}
    answer = await result(target, runtime_id, "update", made["id"], status=end, output="done", error="no")
    assert answer.ok() == {"status": "ok"}
    assert (await asked(target, runtime_id, "update", made["id"]))["status"] == end
    late = await result(target, runtime_id, "update", made["id"], status="running")
    assert late.ok() == {"status": "ok"}, "what is over stays so, and that is no error"
    assert (await asked(target, runtime_id, "update", made["id"]))["status"] == end


async def test_an_update_has_no_other_states(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "update", {"target_version": "1.0.0"})
    answer = await result(target, runtime_id, "update", made["id"], status="perhaps")
    assert answer.refused(400, "invalid status: perhaps")


async def test_results_of_what_was_not_asked(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    answer = await result(target, runtime_id, "update", NOWHERE, status="completed")
    assert answer.refused(404, "update not found")
    for what in ("models", "local-skills", "local-skills/import"):
        answer = await result(target, runtime_id, what, NOWHERE, status="completed")
        assert answer.refused(404, "request not found")


async def test_a_request_is_one_runtimes_alone(scene: Scene) -> None:
    target = scene.target
    both = (await scene.register("claude", "codex"))["runtimes"]
    made = await ask(target, both[0]["id"], "models")
    assert "pending_model_list" not in await beat(target, both[1]["id"])
    answer = await result(target, both[1]["id"], "models", made["id"], status="completed")
    assert answer.status == 404
    assert (await beat(target, both[0]["id"]))["pending_model_list"] == {"id": made["id"]}


# --- models and skills ------------------------------------------------------------------------------------

MODELS = [
    {
        "id": "m-1",
        "label": "Model 1",
        "provider": "p",
        "default": True,
        "thinking": {"supported_levels": [{"value": "low", "label": "Low"}], "default_level": "low"},
    },
    {"id": "m-2", "label": "Model 2"},
]


@pytest.mark.parametrize("supported", [{}, {"supported": True}, {"supported": False}])
async def test_a_list_of_models(scene: Scene, supported: dict[str, bool]) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "models")
    assert (await beat(target, runtime_id))["pending_model_list"] == {"id": made["id"]}
    answer = await result(
        target, runtime_id, "models", made["id"], status="completed", models=MODELS, **supported
    )
    assert answer.ok() == {"status": "ok"}
    body = await asked(target, runtime_id, "models", made["id"])
    assert (body["status"], body["models"]) == ("completed", MODELS)
    assert body["supported"] is supported.get("supported", True)


@pytest.mark.parametrize("status", ["failed", "running", "perhaps"])
async def test_every_other_status_of_a_list_is_a_failure(scene: Scene, status: str) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "models")
    await beat(target, runtime_id)
    (await result(target, runtime_id, "models", made["id"], status=status, error="no")).ok()
    assert (await asked(target, runtime_id, "models", made["id"]))["status"] == "failed"


async def test_a_list_of_local_skills(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, "local-skills")
    assert (await beat(target, runtime_id))["pending_local_skills"] == {"id": made["id"]}
    found = [
        {
            "key": "deploy",
            "name": "Deploy",
            "description": "",
            "source_path": "~/.claude/skills/deploy",
            "provider": "claude",
            "root": "provider",
            "file_count": 2,
        }
    ]
    answer = await result(target, runtime_id, "local-skills", made["id"], status="completed", skills=found)
    assert answer.ok() == {"status": "ok"}
    body = await asked(target, runtime_id, "local-skills", made["id"])
    assert (body["status"], body["skills"]) == ("completed", found)


async def imports(target: Target, runtime_id: str, count: int) -> list[str]:
    made = [
        await ask(target, runtime_id, "local-skills/import", {"skill_key": f"key-{number}"})
        for number in range(count)
    ]
    return [each["id"] for each in made]


@section("31", "Easy to get wrong")
async def test_imports_come_in_batches_of_ten_and_the_first_comes_twice(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    wanted = await imports(target, runtime_id, 12)
    body = await beat(target, runtime_id)
    batch = body["pending_local_skill_imports"]
    assert [each["id"] for each in batch] == wanted[:10]
    assert batch[0]["skill_key"] == "key-0"
    assert body["pending_local_skill_import"] == batch[0]
    rest = (await beat(target, runtime_id))["pending_local_skill_imports"]
    assert [each["id"] for each in rest] == wanted[10:]
    assert "pending_local_skill_imports" not in await beat(target, runtime_id)


async def test_a_daemon_without_batches_gets_one_at_a_time(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    wanted = await imports(target, runtime_id, 2)
    for request_id in wanted:
        body = (await target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})).ok()
        assert body["pending_local_skill_import"]["id"] == request_id
        assert not body.get("pending_local_skill_imports")


async def test_an_imported_skill(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    (request_id,) = await imports(target, runtime_id, 1)
    await beat(target, runtime_id)
    skill = {
        "name": scene.name("skill"),
        "description": "Deploys.",
        "content": "# Deploy",
        "source_path": "~/.claude/skills/deploy",
        "provider": "claude",
        "files": [{"path": "a/b.md", "content": "é"}],
    }
    answer = await result(
        target, runtime_id, "local-skills/import", request_id, status="completed", skill=skill
    )
    assert answer.ok() == {"status": "ok"}
    body = await asked(target, runtime_id, "local-skills/import", request_id)
    assert (body["status"], body["skill"]["name"]) == ("completed", skill["name"])


async def test_an_import_that_failed(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    (request_id,) = await imports(target, runtime_id, 1)
    await beat(target, runtime_id)
    body = {"status": "failed", "error": "too large"}
    (await result(target, runtime_id, "local-skills/import", request_id, **body)).ok()
    found = await asked(target, runtime_id, "local-skills/import", request_id)
    assert (found["status"], found["error"]) == ("failed", "too large")


@pytest.mark.parametrize(
    ("what", "body", "pending_s", "running_s"),
    [
        ("update", {"target_version": "1.0.0"}, 120, 150),
        ("models", {}, 30, 60),
        ("local-skills", {}, 180, 60),
        ("local-skills/import", {"skill_key": "x"}, 180, 60),
    ],
)
@pytest.mark.parametrize("state", ["pending", "running"])
async def test_what_nobody_answers_times_out(
    scene: Scene, what: str, body: dict[str, str], pending_s: int, running_s: int, state: str
) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, what, body)
    if state == "running":
        await beat(target, runtime_id)
    await target.pass_time((pending_s if state == "pending" else running_s) - 5)
    assert (await asked(target, runtime_id, what, made["id"]))["status"] == state
    await target.pass_time(6)
    assert (await asked(target, runtime_id, what, made["id"]))["status"] == "timeout"
    late = await result(target, runtime_id, what, made["id"], status="completed")
    assert late.ok() == {"status": "ok"}
    assert (await asked(target, runtime_id, what, made["id"]))["status"] == "timeout"


async def test_the_websocket_takes_requests_along_too(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    async with target.link(runtime_id) as link:
        made = await ask(target, runtime_id, "models")
        await link.beat(runtime_id, supports_batch_import=True)
        ack = await link.next("daemon:heartbeat_ack")
        assert ack["pending_model_list"] == {"id": made["id"]}
    assert "pending_model_list" not in await beat(target, runtime_id)


@pytest.mark.parametrize(("what", "kept_s"), [("models", 120), ("local-skills", 300)])
async def test_a_result_can_be_fetched_for_a_while(scene: Scene, what: str, kept_s: int) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    made = await ask(target, runtime_id, what)
    await beat(target, runtime_id)
    (await result(target, runtime_id, what, made["id"], status="completed")).ok()
    await target.pass_time(kept_s - 10)
    assert (await asked(target, runtime_id, what, made["id"]))["status"] == "completed"
    await target.pass_time(20)
    gone = await target.get(f"/api/runtimes/{runtime_id}/{what}/{made['id']}")
    assert gone.refused(404, "request not found")


async def test_a_heartbeat_is_when_a_runtime_was_last_seen(scene: Scene) -> None:
    target, runtime_id = scene.target, await scene.runtime()
    await target.pass_time(100)
    await beat(target, runtime_id)
    await target.pass_time(40)
    listed = (await target.get("/api/runtimes")).ok()
    mine = next(each for each in listed if each["id"] == runtime_id)
    registered, seen = (datetime.fromisoformat(mine[name]) for name in ("created_at", "last_seen_at"))
    # A server may write it down in batches of half a minute, or at most once a minute.
    assert timedelta(seconds=30) <= seen - registered < timedelta(seconds=135)
