"""Workspaces, registration, heartbeats, and the life of a runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon_core.hub import ConflictError, NewTask, NotFoundError
from tests.hub.world import DAEMON_ID, NOWHERE, World

PROFILE = "11111111-1111-4111-8111-111111111111"


async def add_profile(world: World, *, enabled: bool = True) -> None:
    await world.hub.store.write(
        lambda tx: tx.run(
            "INSERT INTO runtime_profile (id, workspace_id, display_name, protocol_family, command_name,"
            " fixed_args, enabled, created_at, updated_at)"
            " VALUES (?, ?, 'Mine', 'codex', 'mine', '[\"-x\"]', ?, 1, 1)",
            (PROFILE, world.hub.workspace_id, int(enabled)),
        )
    )


async def test_there_is_one_workspace_and_it_stays_the_same(world: World) -> None:
    (only,) = (await world.get("/api/workspaces")).body
    assert (only["id"], only["name"]) == (world.hub.workspace_id, "Local")
    await world.reopen()
    assert (await world.get("/api/workspaces")).body == [only]


async def test_repositories_and_profiles_of_a_workspace(world: World) -> None:
    path = f"/api/daemon/workspaces/{world.hub.workspace_id}"
    assert await world.get(path + "/repos") == (
        200,
        {
            "workspace_id": world.hub.workspace_id,
            "repos": [],
            "repos_version": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "settings": None,
        },
    )
    assert await world.get(path + "/runtime-profiles") == (
        200,
        {"workspace_id": world.hub.workspace_id, "runtime_profiles": []},
    )
    for verb in ("repos", "runtime-profiles"):
        assert await world.get(f"/api/daemon/workspaces/{NOWHERE}/{verb}") == (
            404,
            {"error": "workspace not found"},
        )
        assert await world.get(f"/api/daemon/workspaces/x/{verb}") == (400, {"error": "invalid workspace_id"})


async def test_a_registration_tells_everything_about_each_runtime(bare: World) -> None:
    answer = await bare.register("claude")
    assert answer.status == 200
    (runtime,) = answer.body["runtimes"]
    assert {
        "workspace_id": bare.hub.workspace_id,
        "daemon_id": DAEMON_ID,
        "name": "Claude",
        "runtime_mode": "local",
        "provider": "claude",
        "status": "online",
        "device_info": "bench · 1.2.3",
        "metadata": {"version": "1.2.3", "cli_version": "0.4.0", "launched_by": ""},
        "profile_id": None,
    }.items() <= runtime.items()
    assert answer.body["repos"] == []
    assert answer.body["settings"] is None
    assert "repos_version" in answer.body


async def test_a_runtime_keeps_its_id(world: World) -> None:
    before = dict(world.runtimes)
    await world.register("claude", "shell", device_name="renamed", cli_version="9.9.9")
    assert world.runtimes == before
    await world.reopen()
    assert {each.status for each in await world.hub.runtimes()} == {"offline"}
    await world.register("shell", "claude")
    assert world.runtimes == before
    await world.register("shell", daemon_id=NOWHERE)
    assert world.runtimes["shell"] != before["shell"]
    assert len(await world.hub.runtimes()) == 3


async def test_a_type_is_trimmed_and_lowered(bare: World) -> None:
    answer = await bare.register(runtimes=[{"name": "X", "type": "  Claude "}, {"name": "Y", "type": ""}])
    assert [each["provider"] for each in answer.body["runtimes"]] == ["claude", "unknown"]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"daemon_id": ""}, 400, "daemon_id is required"),
        ({"workspace_id": None}, 400, "workspace_id is required"),
        ({"workspace_id": "x"}, 400, "invalid workspace_id"),
        ({"workspace_id": NOWHERE}, 404, "workspace not found"),
        ({"runtimes": []}, 400, "at least one runtime or failed profile is required"),
        ({"runtimes": None}, 400, "at least one runtime or failed profile is required"),
        ({"runtimes": "x"}, 400, "invalid request body"),
        ({"runtimes": [{"name": 1, "type": "x"}]}, 400, "invalid request body"),
        (
            {"runtimes": [{"name": "x", "type": "x", "profile_id": PROFILE}]},
            400,
            f"unknown runtime profile: {PROFILE}",
        ),
        ({"runtimes": [{"name": "x", "type": "x", "profile_id": "x"}]}, 400, "invalid profile_id"),
        ({"failed_profiles": [{"profile_id": PROFILE}]}, 400, f"unknown runtime profile: {PROFILE}"),
    ],
)
async def test_a_bad_registration_is_refused_in_the_protocols_words(
    bare: World, change: dict[str, object], status: int, text: str
) -> None:
    body = {
        "workspace_id": bare.hub.workspace_id,
        "daemon_id": DAEMON_ID,
        "runtimes": [{"name": "x", "type": "x"}],
    }
    assert await bare.post("/api/daemon/register", body | change) == (status, {"error": text})
    assert await bare.hub.runtimes() == []


async def test_a_profiles_family_overrides_the_type_and_its_runtime_has_its_own_id(world: World) -> None:
    await add_profile(world)
    entry = {"name": "Mine", "type": "ignored", "profile_id": PROFILE.upper()}
    answer = await world.register(runtimes=[entry])
    (runtime,) = answer.body["runtimes"]
    assert (runtime["provider"], runtime["profile_id"]) == ("codex", PROFILE)
    again = await world.register(runtimes=[entry])
    assert again.body["runtimes"][0]["id"] == runtime["id"]
    profiles = await world.get(f"/api/daemon/workspaces/{world.hub.workspace_id}/runtime-profiles")
    assert profiles.body["runtime_profiles"][0]["fixed_args"] == ["-x"]


async def test_a_failed_profile_is_an_offline_row_that_is_not_given_back(world: World) -> None:
    await add_profile(world)
    failed = [{"profile_id": PROFILE, "command_name": "mine", "reason": "not on PATH"}]
    answer = await world.register(runtimes=None, failed_profiles=failed)
    assert (answer.status, answer.body["runtimes"]) == (200, [])
    row = next(each for each in await world.hub.runtimes() if each.profile_id == PROFILE)
    assert row.status == "offline"
    assert (await world.hub.add_task(NewTask(prompt="x", provider="codex"))).waiting_reason == "no_runtime"


async def test_a_disabled_profile_is_a_conflict(world: World) -> None:
    await add_profile(world, enabled=False)
    entry = {"name": "Mine", "type": "x", "profile_id": PROFILE}
    assert await world.register(runtimes=[entry]) == (
        409,
        {"error": f"runtime profile is disabled: {PROFILE}"},
    )


async def test_rows_of_a_legacy_daemon_id_are_merged(world: World) -> None:
    old = world.runtimes["shell"]
    running = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    await world.task(running.id, "start")
    await world.task(running.id, "complete", {"session_id": "s"})
    reply = await world.hub.reply(running.id, "y")
    answer = await world.register("shell", daemon_id=NOWHERE, legacy_daemon_ids=[DAEMON_ID.upper(), "host"])
    new = answer.body["runtimes"][0]
    assert new["id"] != old
    assert new["metadata"]["legacy_daemon_ids"] == [DAEMON_ID]
    claimed = await world.claim()
    assert (claimed["id"], claimed["prior_session_id"]) == (reply.id, "s")
    assert await world.post("/api/daemon/heartbeat", {"runtime_id": old}) == (
        404,
        {"error": "runtime not found"},
    )
    others = {each.provider for each in await world.hub.runtimes() if each.daemon_id == DAEMON_ID}
    assert others == {"claude"}


async def test_deregistering_takes_offline_and_leaves_tasks_alone(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    shell = world.runtimes["shell"]
    assert await world.post("/api/daemon/deregister", {"runtime_ids": [shell, NOWHERE]}) == (
        200,
        {"status": "ok"},
    )
    assert {each.id: each.status for each in await world.hub.runtimes()}[shell] == "offline"
    assert await world.status(task.id) == "dispatched"
    for body, text in (
        ({}, "runtime_ids is required"),
        ({"runtime_ids": []}, "runtime_ids is required"),
        ({"runtime_ids": None}, "runtime_ids is required"),
        ({"runtime_ids": ["x"]}, "invalid runtime_id"),
        ({"runtime_ids": "x"}, "invalid request body"),
    ):
        assert await world.post("/api/daemon/deregister", body) == (400, {"error": text})


async def test_heartbeats(world: World) -> None:
    shell = world.runtimes["shell"]
    body = {"runtime_id": shell, "supports_batch_import": True, "unknown": [1]}
    assert await world.post("/api/daemon/heartbeat", body) == (200, {"status": "ok"})
    assert (await world.post("/api/daemon/heartbeat", {"runtime_id": shell.upper()})).status == 200
    assert await world.post("/api/daemon/heartbeat", {"runtime_id": NOWHERE}) == (
        404,
        {"error": "runtime not found"},
    )
    for bad in ({}, {"runtime_id": ""}, {"runtime_id": None}):
        assert await world.post("/api/daemon/heartbeat", bad) == (400, {"error": "runtime_id is required"})
    assert await world.post("/api/daemon/heartbeat", {"runtime_id": "x"}) == (
        400,
        {"error": "invalid runtime_id"},
    )


async def test_a_silent_runtime_is_shown_offline_and_its_tasks_are_left_alone(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    await world.task(task.id, "start")
    world.hub.start_timers()
    world.clock.advance(149)
    await world.post("/api/daemon/heartbeat", {"runtime_id": world.runtimes["claude"]})
    await world.hub.sweep()
    assert {each.status for each in await world.hub.runtimes()} == {"online"}
    world.clock.advance(1)
    world.changes.clear()
    await world.hub.sweep()
    states = {each.provider: each.status for each in await world.hub.runtimes()}
    assert states == {"shell": "offline", "claude": "online"}
    assert [each.kind for each in world.changes] == ["runtimes"]
    assert await world.status(task.id) == "running"
    await world.post("/api/daemon/heartbeat", {"runtime_id": world.runtimes["shell"]})
    assert {each.status for each in await world.hub.runtimes()} == {"online"}


async def test_a_claim_is_a_sign_of_life(world: World) -> None:
    await world.post("/api/daemon/deregister", {"runtime_ids": [world.runtimes["shell"]]})
    await world.claim()
    assert {each.status for each in await world.hub.runtimes()} == {"online"}


async def test_a_runtime_offline_for_a_week_is_forgotten_unless_it_is_needed(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="claude"))
    await world.claim("claude")
    world.hub.start_timers()
    world.clock.advance(200)
    await world.hub.sweep()
    world.clock.advance(7 * 86400)
    await world.hub.sweep()
    assert [each.provider for each in await world.hub.runtimes()] == ["claude"]
    await world.task(task.id, "fail", {"error": "x"})
    await world.hub.sweep()
    assert await world.hub.runtimes() == []


async def test_a_runtime_can_be_forgotten_by_hand(world: World) -> None:
    shell = world.runtimes["shell"]
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    with pytest.raises(ConflictError):
        await world.hub.forget_runtime(shell)
    await world.task(task.id, "fail", {"error": "x", "failure_reason": "runtime_recovery"})
    await world.hub.forget_runtime(shell)
    with pytest.raises(NotFoundError):
        await world.hub.forget_runtime(shell)
    again = (await world.hub.get(task.id)).retried_as  # type: ignore[union-attr]
    assert (await world.hub.get(again)).waiting_reason == "no_runtime"  # type: ignore[arg-type, union-attr]
    await world.register("shell")
    assert (await world.claim())["id"] == again


async def test_no_database_is_touched_by_an_ordinary_heartbeat(world: World, tmp_path: Path) -> None:
    before = await world.hub.store.read(lambda tx: tx.db.total_changes)
    for _ in range(10):
        await world.post("/api/daemon/heartbeat", {"runtime_id": world.runtimes["shell"]})
    assert await world.hub.store.read(lambda tx: tx.db.total_changes) == before


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b'{"runtime_id": 1}', b"{}{}", b"[" * 5000]
)
async def test_a_body_that_is_no_such_object_is_refused(world: World, body: bytes) -> None:
    for path in ("heartbeat", "register", "deregister"):
        if path == "register" and b"runtime_id" in body:
            continue
        if path == "deregister" and b"runtime_id" in body:
            continue
        answer = await world.post(f"/api/daemon/{path}", body)
        assert answer == (400, {"error": "invalid request body"})


async def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    body = json.dumps({"runtime_id": "x" * (2 << 20)}).encode()
    answer = await world.post("/api/daemon/heartbeat", body)
    assert answer == (413, {"error": "request body too large"})
