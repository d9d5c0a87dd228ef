"""Section 2: who may ask what."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Answer, Scene, Target, cannot, section

pytestmark = section("2", "Authentication and token renewal")

DAEMON = [
    ("POST", "/api/daemon/register"),
    ("POST", "/api/daemon/heartbeat"),
    ("GET", "/api/daemon/ws?runtime_ids=x"),
    ("POST", f"/api/daemon/runtimes/{NOWHERE}/tasks/claim"),
    ("POST", f"/api/daemon/tasks/{NOWHERE}/complete"),
    ("GET", f"/api/daemon/tasks/{NOWHERE}/status"),
]
OTHER = [
    ("GET", "/api/workspaces"),
    ("GET", "/api/issues"),
    ("POST", "/api/tokens/current/renew"),
    ("POST", f"/api/tasks/{NOWHERE}/cancel"),
]


@pytest.mark.parametrize(("method", "path"), DAEMON)
async def test_without_a_token_a_daemon_route_is_401(target: Target, method: str, path: str) -> None:
    assert (await target.call(method, path, token="")).refused(401, "missing authorization header")


@pytest.mark.parametrize(("method", "path"), DAEMON[1:4])
@pytest.mark.parametrize("header", ["Basic abc", "mul_" + "0" * 40])
async def test_another_scheme_is_401(target: Target, method: str, path: str, header: str) -> None:
    answer = await target.call(method, path, token="", headers={"Authorization": header})
    assert answer.refused(401, "invalid authorization format")


@pytest.mark.parametrize(("method", "path"), DAEMON)
@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("mul_" + "0" * 40, "invalid token"),
        ("mdt_" + "0" * 40, "invalid daemon token"),
        ("mat_" + "0" * 40, "invalid token"),
        ("eyJhbGciOiJIUzI1NiJ9.e30.x", "invalid token"),
    ],
)
async def test_a_stranger_is_401_on_daemon_routes(
    target: Target, method: str, path: str, token: str, text: str
) -> None:
    answer = await target.call(method, path, token=token)
    assert answer.status == 401
    if not token.startswith("mat_"):
        assert answer.error == text


@pytest.mark.parametrize(("method", "path"), OTHER)
async def test_other_routes_refuse_strangers(target: Target, method: str, path: str) -> None:
    assert (await target.call(method, path, token="")).refused(401, "missing authorization")
    for token in ("mul_" + "0" * 40, "mat_" + "0" * 40, "mdt_" + "0" * 40, "nonsense"):
        assert (await target.call(method, path, token=token)).refused(401, "invalid token")


async def test_a_tokens_kind_opens_its_routes_alone(target: Target) -> None:
    answer = await target.post("/api/daemon/heartbeat", token="mcn_" + "0" * 40)
    assert answer.status in (401, 503)


# --- task tokens ------------------------------------------------------------------------------------------


async def test_a_task_token_is_well_formed_and_each_claim_has_its_own(scene: Scene) -> None:
    first, second = await scene.claimed(), await scene.claimed(provider="codex")
    assert re.fullmatch("mat_[0-9a-f]{40}", first.token)
    assert first.token != second.token


@pytest.mark.parametrize(("method", "path"), DAEMON)
async def test_a_task_token_is_refused_on_daemon_routes(scene: Scene, method: str, path: str) -> None:
    work = await scene.claimed()
    assert (await scene.target.call(method, path, token=work.token)).status == 401


async def test_a_task_token_opens_the_routes_of_agents(scene: Scene) -> None:
    work = await scene.claimed()
    path = f"/api/issues/{work.issue['id']}"
    assert (await scene.target.get(path, token=work.token)).ok()["id"] == work.issue["id"]


async def test_a_task_token_says_who_acts_whatever_the_headers_say(scene: Scene) -> None:
    work = await scene.claimed()
    forged = {"X-Agent-ID": NOWHERE, "X-Task-ID": NOWHERE, "X-Workspace-ID": NOWHERE}
    answer = await scene.target.post(
        f"/api/issues/{work.issue['id']}/comments", {"content": "It is me."}, token=work.token, headers=forged
    )
    said = answer.ok(200, 201)
    assert (said["author_type"], said["author_id"]) == ("agent", work.agent_id)


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
async def test_a_task_token_ends_with_its_task(scene: Scene, end: str) -> None:
    work = await scene.running()
    path = f"/api/issues/{work.issue['id']}"
    assert (await scene.target.get(path, token=work.token)).status == 200
    if end == "cancel":
        (await work.cancel()).ok()
    else:
        body = {"output": "x"} if end == "complete" else {"error": "x"}
        (await work.post(end, body)).ok()
    assert (await scene.target.get(path, token=work.token)).refused(401, "invalid token")


async def test_a_task_token_cannot_make_tokens(scene: Scene) -> None:
    work = await scene.claimed()
    answer = await scene.target.post("/api/tokens", {"name": "x"}, token=work.token)
    assert answer.status in (401, 403, 404)


# --- daemon tokens ----------------------------------------------------------------------------------------


async def daemon_token(scene: Scene, daemon_id: str | None = None) -> str:
    return await scene.target.daemon_token(daemon_id or scene.daemon_id)


async def test_a_daemon_token_opens_daemon_routes_alone(scene: Scene) -> None:
    token = await daemon_token(scene)
    runtime_id = await scene.runtime()
    beat = await scene.target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id}, token=token)
    assert beat.ok()["status"] == "ok"
    for method, path in OTHER:
        assert (await scene.target.call(method, path, token=token)).status == 401


async def test_a_daemon_token_does_not_open_another_workspace(scene: Scene) -> None:
    token = await daemon_token(scene)
    body = scene.registration("claude", workspace_id=NOWHERE)
    answer = await scene.target.post("/api/daemon/register", body, token=token)
    assert answer.refused(404, "workspace not found")


async def test_a_daemon_token_does_not_open_another_daemons_websocket(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    other = await daemon_token(scene, "another daemon")
    answer = await scene.target.get(f"/api/daemon/ws?runtime_ids={runtime_id}", token=other)
    assert answer.status == 404


# --- renewal ----------------------------------------------------------------------------------------------


async def test_renewal_says_when_the_token_ends(target: Target) -> None:
    body = (await target.post("/api/tokens/current/renew")).ok()
    assert isinstance(body["renewed"], bool)
    if body["expires_at"]:
        assert datetime.fromisoformat(body["expires_at"]).tzinfo is not None


async def test_a_task_token_cannot_be_renewed(scene: Scene) -> None:
    work = await scene.claimed()
    answer = await scene.target.post("/api/tokens/current/renew", token=work.token)
    assert answer.refused(400, "only personal access tokens can be renewed")


async def own_token(target: Target, **more: object) -> Answer:
    answer = await target.post("/api/tokens", {"name": "conformance", **more})
    if answer.status not in (200, 201):
        cannot(f"create a personal access token ({answer.status})")
    assert re.fullmatch("mul_[0-9a-f]{40}", answer.body["token"])
    return answer


async def test_a_token_that_ends_soon_is_extended_by_90_days(target: Target) -> None:
    made = await own_token(target, expires_in_days=5)
    token, before = made.body["token"], datetime.fromisoformat(made.body["expires_at"])
    body = (await target.post("/api/tokens/current/renew", token=token)).ok()
    assert body["renewed"] is True
    after = datetime.fromisoformat(body["expires_at"])
    assert timedelta(days=84) < after - before < timedelta(days=86)
    again = (await target.post("/api/tokens/current/renew", token=token)).ok()
    assert again == {"expires_at": body["expires_at"], "renewed": False}
    await target.delete(f"/api/tokens/{made.body['id']}")


async def test_a_token_that_lives_longer_is_left_alone(target: Target) -> None:
    made = await own_token(target, expires_in_days=30)
    body = (await target.post("/api/tokens/current/renew", token=made.body["token"])).ok()
    assert body["renewed"] is False
    assert datetime.fromisoformat(body["expires_at"]) == datetime.fromisoformat(made.body["expires_at"])
    await target.delete(f"/api/tokens/{made.body['id']}")


async def test_a_token_without_an_end_never_ends(target: Target) -> None:
    made = await own_token(target)
    body = (await target.post("/api/tokens/current/renew", token=made.body["token"])).ok()
    assert body == {"expires_at": "", "renewed": False}
    await target.delete(f"/api/tokens/{made.body['id']}")


async def test_a_token_says_when_it_was_used_last(target: Target) -> None:
    made = (await own_token(target)).body

    async def used() -> Any:
        listed = (await target.get("/api/tokens")).ok()
        (found,) = [each for each in listed if each["id"] == made["id"]]
        if "last_used_at" not in found:
            cannot("say when a token was used")
        return found["last_used_at"]

    assert await used() is None
    (await target.get("/api/daemon/workspaces", token=made["token"])).ok(200, 404)
    first = datetime.fromisoformat(await used())
    (await target.get("/api/workspaces", token=made["token"])).ok()
    if target.advance is not None:
        await target.pass_time(3600)
        (await target.get("/api/workspaces", token=made["token"])).ok()
        assert timedelta(minutes=59) < datetime.fromisoformat(await used()) - first < timedelta(minutes=61)
    await target.delete(f"/api/tokens/{made['id']}")


async def test_a_revoked_token_is_401_everywhere(target: Target) -> None:
    made = await own_token(target)
    token = made.body["token"]
    assert (await target.get("/api/workspaces", token=token)).status == 200
    (await target.delete(f"/api/tokens/{made.body['id']}")).ok(200, 204)
    assert (await target.get("/api/workspaces", token=token)).status == 401
    assert (await target.post("/api/tokens/current/renew", token=token)).status == 401
    assert (await target.post("/api/daemon/heartbeat", token=token)).status == 401


async def test_an_expired_token_is_401(target: Target) -> None:
    made = await own_token(target, expires_in_days=1)
    await target.pass_time(24 * 3600 + 1)
    assert (await target.get("/api/workspaces", token=made.body["token"])).status == 401
