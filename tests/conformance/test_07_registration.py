"""Sections 7 and 8: runtimes come and go, custom profiles among them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, Target, cannot, section

pytestmark = section("7", "Register / deregister")
IDENTITY = section("3", "Identity, legacy ids, local config files")
FIELDS = {
    "id", "workspace_id", "daemon_id", "name", "runtime_mode", "provider", "launch_header", "status",
    "device_info", "metadata", "owner_id", "visibility", "profile_id", "last_seen_at", "created_at",
    "updated_at",
}  # fmt: skip


async def test_a_registered_runtime_has_every_field(scene: Scene) -> None:
    body = await scene.register("claude", launched_by="desktop")
    assert set(body) >= {"runtimes", "repos", "repos_version", "settings"}
    (runtime,) = body["runtimes"]
    assert set(runtime) >= FIELDS
    assert runtime["workspace_id"] == scene.target.workspace_id
    assert runtime["daemon_id"] == scene.daemon_id
    assert (runtime["provider"], runtime["status"], runtime["runtime_mode"]) == ("claude", "online", "local")
    assert runtime["device_info"] == "bench · 2.1.0"
    told = {"version": "2.1.0", "cli_version": "0.5.0", "launched_by": "desktop"}
    assert told.items() <= runtime["metadata"].items()
    assert runtime["profile_id"] is None
    assert runtime["owner_id"], "whoever registered it"


async def test_a_runtime_keeps_its_id(scene: Scene) -> None:
    first = await scene.register("claude", "codex")
    again = await scene.register("codex", "claude", cli_version="0.6.0")
    assert {each["id"] for each in first["runtimes"]} == {each["id"] for each in again["runtimes"]}
    assert len({each["id"] for each in first["runtimes"]}) == 2


async def test_another_daemon_gets_ids_of_its_own(scene: Scene) -> None:
    mine = await scene.runtime()
    scene.daemon_id = str(uuid.uuid4())
    assert await scene.runtime() != mine


async def test_the_answer_has_what_was_asked_for_alone(scene: Scene) -> None:
    await scene.register("claude", "codex")
    (runtime,) = (await scene.register("codex"))["runtimes"]
    assert runtime["provider"] == "codex"


@pytest.mark.parametrize(("given", "stored"), [(" CLAUDE ", "claude"), ("", "unknown")])
async def test_types_are_trimmed_and_lowered(scene: Scene, given: str, stored: str) -> None:
    (runtime,) = (await scene.register(given))["runtimes"]
    assert runtime["provider"] == stored


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ({"daemon_id": ""}, "daemon_id is required"),
        ({"workspace_id": ""}, "workspace_id is required"),
        ({"runtimes": []}, "at least one runtime or failed profile is required"),
        ({"runtimes": None}, "at least one runtime or failed profile is required"),
    ],
)
async def test_what_is_missing_is_said(scene: Scene, missing: dict[str, Any], text: str) -> None:
    answer = await scene.target.post("/api/daemon/register", scene.registration("claude", **missing))
    assert answer.refused(400, text)


async def test_a_workspace_that_is_not_there(scene: Scene) -> None:
    body = scene.registration("claude", workspace_id=NOWHERE)
    assert (await scene.target.post("/api/daemon/register", body)).refused(404, "workspace not found")


@IDENTITY
@pytest.mark.parametrize("case", [str.lower, str.upper])
async def test_a_legacy_id_takes_its_runtime_along(scene: Scene, case: Any) -> None:
    legacy = f"Old-Host-{scene.mark}.local"
    now, scene.daemon_id = scene.daemon_id, legacy
    old = await scene.runtime()
    agent_id = await scene.agent(old)
    issue = await scene.issue(agent_id)
    scene.daemon_id = now
    new = await scene.runtime(legacy_daemon_ids=[case(legacy)])
    assert new != old
    beat = await scene.target.post("/api/daemon/heartbeat", {"runtime_id": old})
    assert beat.refused(404, "runtime not found")
    task = await scene.claim(new)
    assert task["issue_id"] == issue["id"], "what waited for the old one waits for the new one"


@IDENTITY
async def test_a_legacy_id_of_another_provider_is_left_alone(scene: Scene) -> None:
    now, scene.daemon_id = scene.daemon_id, f"old-{scene.mark}"
    old = await scene.runtime("codex")
    legacy, scene.daemon_id = scene.daemon_id, now
    await scene.runtime("claude", legacy_daemon_ids=[legacy])
    assert (await scene.target.post("/api/daemon/heartbeat", {"runtime_id": old})).status == 200


async def test_deregistered_runtimes_are_offline_and_keep_their_tasks(scene: Scene) -> None:
    work = await scene.running()
    answer = await scene.target.post("/api/daemon/deregister", {"runtime_ids": [work.runtime_id]})
    assert answer.ok() == {"status": "ok"}
    assert await work.status() == "running"
    listed = await scene.target.get("/api/runtimes")
    if listed.status == 200:
        mine = next(each for each in listed.body if each["id"] == work.runtime_id)
        assert mine["status"] == "offline"


async def test_deregistering_needs_ids_and_passes_over_strange_ones(scene: Scene) -> None:
    path = "/api/daemon/deregister"
    assert (await scene.target.post(path, {"runtime_ids": []})).refused(400, "runtime_ids is required")
    assert (await scene.target.post(path, {})).refused(400, "runtime_ids is required")
    assert (await scene.target.post(path, {"runtime_ids": ["x"]})).status == 400
    assert (await scene.target.post(path, {"runtime_ids": [NOWHERE]})).ok() == {"status": "ok"}


# --- what a daemon's version allows -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "nonsense", "0.2.20", "0.1.99"])
async def test_an_old_daemon_creates_no_issues(scene: Scene, version: str) -> None:
    runtime_id = await scene.runtime(cli_version=version)
    agent_id = await scene.agent(runtime_id)
    answer = await scene.target.post("/api/issues/quick-create", {"agent_id": agent_id, "prompt": "Do x."})
    assert answer.status == 422
    assert answer.body["code"] == "daemon_version_unsupported"
    assert answer.body["current_version"] == version
    assert answer.body["runtime_id"] == runtime_id
    assert answer.body["min_version"]


@pytest.mark.parametrize("version", ["0.2.21", "v0.3.0", "1.0.0", "v0.1.2-4-gabc1234"])
async def test_a_daemon_of_today_creates_issues(scene: Scene, version: str) -> None:
    agent_id = await scene.agent(await scene.runtime(cli_version=version))
    answer = await scene.target.post("/api/issues/quick-create", {"agent_id": agent_id, "prompt": "Do x."})
    assert answer.ok(200, 202)["task_id"]


# --- custom profiles --------------------------------------------------------------------------------------

PROFILES = section("8", "Custom runtime profiles and the profile signature")


async def profile(scene: Scene, **more: Any) -> dict[str, Any]:
    body = {
        "display_name": scene.name("profile"),
        "protocol_family": "claude",
        "command_name": "my-claude",
        "fixed_args": ["--a", "b c"],
        **more,
    }
    answer = await scene.target.post(f"/api/workspaces/{scene.target.workspace_id}/runtime-profiles", body)
    if answer.status not in (200, 201):
        cannot(f"create a runtime profile ({answer.status})")
    made: dict[str, Any] = answer.body
    return made


async def disable(scene: Scene, profile_id: str) -> None:
    path = f"/api/workspaces/{scene.target.workspace_id}/runtime-profiles/{profile_id}"
    if (await scene.target.patch(path, {"enabled": False})).status != 200:
        cannot("disable a runtime profile")


def of_profile(profile_id: str) -> list[dict[str, Any]]:
    return [{"name": "Mine", "type": "codex", "version": "1", "status": "online", "profile_id": profile_id}]


async def listed(scene: Scene) -> Any:
    path = f"/api/daemon/workspaces/{scene.target.workspace_id}/runtime-profiles"
    body = (await scene.target.get(path)).ok()
    assert body["workspace_id"] == scene.target.workspace_id
    return body["runtime_profiles"]


@PROFILES
async def test_daemons_see_enabled_profiles_with_every_field(scene: Scene) -> None:
    made, off = await profile(scene, description="Mine."), await profile(scene)
    await disable(scene, off["id"])
    found = {each["id"]: each for each in await listed(scene)}
    assert off["id"] not in found
    one = found[made["id"]]
    assert one["workspace_id"] == scene.target.workspace_id
    assert (one["protocol_family"], one["command_name"]) == ("claude", "my-claude")
    assert one["fixed_args"] == ["--a", "b c"]
    assert (one["visibility"], one["enabled"], one["description"]) == ("workspace", True, "Mine.")
    assert set(one) >= {"display_name", "created_by", "created_at", "updated_at"}


@PROFILES
async def test_a_profile_of_an_unknown_family_is_refused(scene: Scene) -> None:
    await profile(scene)
    body = {"display_name": "x", "protocol_family": "traecli", "command_name": "x"}
    answer = await scene.target.post(f"/api/workspaces/{scene.target.workspace_id}/runtime-profiles", body)
    assert answer.status == 400


@PROFILES
async def test_a_profiles_family_overrides_the_type_that_is_told(scene: Scene) -> None:
    made = await profile(scene)
    body = await scene.register("claude")
    both = await scene.register("claude", runtimes=of_profile(made["id"]))
    (runtime,) = both["runtimes"]
    assert (runtime["provider"], runtime["profile_id"]) == ("claude", made["id"])
    assert runtime["id"] != body["runtimes"][0]["id"], "a profile is a runtime of its own"
    again = await scene.register("claude", runtimes=of_profile(made["id"]))
    assert again["runtimes"][0]["id"] == runtime["id"]


@PROFILES
async def test_an_unknown_profile_is_400_and_a_disabled_one_409(scene: Scene) -> None:
    answer = await scene.target.post("/api/daemon/register", scene.registration(runtimes=of_profile(NOWHERE)))
    assert answer.refused(400, f"unknown runtime profile: {NOWHERE}")
    made = await profile(scene)
    await disable(scene, made["id"])
    answer = await scene.target.post(
        "/api/daemon/register", scene.registration(runtimes=of_profile(made["id"]))
    )
    assert answer.refused(409, f"runtime profile is disabled: {made['id']}")


@PROFILES
async def test_a_failed_profile_is_recorded_and_not_given_back(scene: Scene) -> None:
    made = await profile(scene)
    failed = [{"profile_id": made["id"], "command_name": "my-claude", "reason": "not on the PATH"}]
    body = await scene.register(runtimes=None, failed_profiles=failed)
    assert not body["runtimes"]
    runtimes = (await scene.target.get("/api/runtimes")).ok()
    (row,) = [each for each in runtimes if each["profile_id"] == made["id"]]
    assert row["status"] == "offline"
    told = row["metadata"]
    assert told["runtime_profile_registration_error"] is True
    assert told["runtime_profile_failure_reason"] == "not on the PATH"
    assert told["command_name"] == "my-claude"


@PROFILES
async def test_a_change_of_profiles_is_told_over_the_websocket(scene: Scene, target: Target) -> None:
    runtime_id = await scene.runtime()
    async with target.link(runtime_id) as link:
        made = await profile(scene)
        told = await link.next("daemon:runtime_profiles_changed")
        assert told["workspace_id"] == target.workspace_id
        assert told.get("runtime_profile_id", made["id"]) == made["id"]
