"""Section 1: transport, errors, ids."""

from __future__ import annotations

import uuid
from datetime import datetime

import pytest

from tests.conformance.target import NOWHERE, Scene, Target, section

pytestmark = section("1", "Conventions")

RUNTIME_ROUTES = [
    ("POST", "/api/daemon/runtimes/{}/tasks/claim"),
    ("GET", "/api/daemon/runtimes/{}/tasks/pending"),
    ("POST", "/api/daemon/runtimes/{}/recover-orphans"),
]
TASK_ROUTES = [
    ("GET", "/api/daemon/tasks/{}/status"),
    ("POST", "/api/daemon/tasks/{}/start"),
    ("POST", "/api/daemon/tasks/{}/wait-local-directory"),
    ("POST", "/api/daemon/tasks/{}/progress"),
    ("POST", "/api/daemon/tasks/{}/usage"),
    ("POST", "/api/daemon/tasks/{}/complete"),
    ("POST", "/api/daemon/tasks/{}/fail"),
    ("GET", "/api/daemon/tasks/{}/messages"),
    ("GET", "/api/daemon/tasks/{}/gc-check"),
]


@pytest.mark.parametrize(("method", "path"), RUNTIME_ROUTES)
async def test_a_malformed_runtime_id_is_400(target: Target, method: str, path: str) -> None:
    assert (await target.call(method, path.format("not-an-id"))).refused(400, "invalid runtime_id")


@pytest.mark.parametrize(("method", "path"), TASK_ROUTES)
async def test_a_malformed_task_id_is_400(target: Target, method: str, path: str) -> None:
    assert (await target.call(method, path.format("not-an-id"))).refused(400, "invalid task_id")


async def test_a_malformed_workspace_id_is_400(target: Target, scene: Scene) -> None:
    assert (await target.get("/api/daemon/workspaces/xyz/repos")).refused(400, "invalid workspace_id")
    body = scene.registration("claude", workspace_id="xyz")
    assert (await target.post("/api/daemon/register", body)).status == 400


@pytest.mark.parametrize(("method", "path"), RUNTIME_ROUTES)
async def test_a_runtime_that_is_not_there_is_gone_in_these_words(
    target: Target, method: str, path: str
) -> None:
    assert (await target.call(method, path.format(NOWHERE))).refused(404, "runtime not found")


@pytest.mark.parametrize(("method", "path"), TASK_ROUTES)
async def test_a_task_that_is_not_there_is_gone_in_these_words(
    target: Target, method: str, path: str
) -> None:
    assert (await target.call(method, path.format(NOWHERE))).refused(404, "task not found")


@pytest.mark.parametrize(
    "path",
    [
        "/api/daemon/register",
        "/api/daemon/deregister",
        "/api/daemon/heartbeat",
        f"/api/daemon/tasks/{NOWHERE}/complete",
        f"/api/daemon/tasks/{NOWHERE}/fail",
    ],
)
@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff\xfe"])
async def test_a_body_that_is_no_object_is_400_or_its_task_is_not_there(
    target: Target, path: str, body: bytes
) -> None:
    answer = await target.post(path, body)
    if answer.status == 404:
        assert answer.error == "task not found"
    else:
        assert answer.refused(400, "invalid request body")


async def test_a_route_that_is_not_there_is_404(target: Target) -> None:
    assert (await target.get("/api/daemon/no/such/route")).status == 404
    assert (await target.get("/api/no-such-route")).status == 404


async def test_ids_are_uuids_and_times_rfc_3339(scene: Scene) -> None:
    work = await scene.claimed()
    for name in ("id", "agent_id", "runtime_id", "issue_id", "workspace_id"):
        assert str(uuid.UUID(work.task[name])) == work.task[name].lower()
    for name in ("created_at", "dispatched_at"):
        assert datetime.fromisoformat(work.task[name]).tzinfo is not None
    assert work.task["started_at"] is None
    assert work.task["completed_at"] is None


async def test_ids_are_taken_in_any_case(scene: Scene) -> None:
    work = await scene.claimed()
    path = f"/api/daemon/tasks/{work.id.upper()}/status"
    assert (await scene.target.get(path)).ok() == {"status": "dispatched"}


@section("1.3", "Route index")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/tokens/current/renew"),
        ("GET", "/api/workspaces"),
        ("POST", "/api/daemon/register"),
        ("POST", "/api/daemon/deregister"),
        ("POST", "/api/daemon/heartbeat"),
        ("GET", "/api/daemon/ws"),
        ("GET", "/api/daemon/workspaces/{id}/repos"),
        ("GET", "/api/daemon/workspaces/{id}/runtime-profiles"),
        ("POST", "/api/daemon/runtimes/{id}/tasks/claim"),
        ("GET", "/api/daemon/runtimes/{id}/tasks/pending"),
        ("POST", "/api/daemon/runtimes/{id}/tasks/{id}/prepare-lease"),
        ("POST", "/api/daemon/runtimes/{id}/tasks/{id}/skill-bundles/resolve"),
        ("POST", "/api/daemon/runtimes/{id}/update/{id}/result"),
        ("POST", "/api/daemon/runtimes/{id}/models/{id}/result"),
        ("POST", "/api/daemon/runtimes/{id}/local-skills/{id}/result"),
        ("POST", "/api/daemon/runtimes/{id}/local-skills/import/{id}/result"),
        ("POST", "/api/daemon/runtimes/{id}/recover-orphans"),
        ("GET", "/api/daemon/tasks/{id}/status"),
        ("POST", "/api/daemon/tasks/{id}/start"),
        ("POST", "/api/daemon/tasks/{id}/wait-local-directory"),
        ("POST", "/api/daemon/tasks/{id}/progress"),
        ("POST", "/api/daemon/tasks/{id}/messages"),
        ("POST", "/api/daemon/tasks/{id}/usage"),
        ("POST", "/api/daemon/tasks/{id}/complete"),
        ("POST", "/api/daemon/tasks/{id}/fail"),
        ("POST", "/api/daemon/tasks/{id}/session"),
        ("GET", "/api/daemon/tasks/{id}/messages"),
        ("GET", "/api/daemon/issues/{id}/gc-check"),
        ("GET", "/api/daemon/chat-sessions/{id}/gc-check"),
        ("GET", "/api/daemon/autopilot-runs/{id}/gc-check"),
        ("GET", "/api/daemon/tasks/{id}/gc-check"),
    ],
)
async def test_the_route_is_there(target: Target, method: str, path: str) -> None:
    """With ids of nothing a route says that it has no such thing, which a router does not."""
    answer = await target.call(method, path.replace("{id}", NOWHERE))
    if answer.status >= 400:
        assert answer.status in (400, 404), answer
        assert answer.error != "not found", "this is what is said of routes that are not there"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/daemon/issues/{}/gc-check", "issue_id"),
        ("GET", "/api/daemon/chat-sessions/{}/gc-check", "chat_session_id"),
        ("GET", "/api/daemon/autopilot-runs/{}/gc-check", "run_id"),
        ("POST", "/api/daemon/runtimes/{}/models/" + NOWHERE + "/result", "runtime_id"),
        ("POST", "/api/daemon/runtimes/" + NOWHERE + "/update/{}/result", "update_id"),
        ("POST", "/api/daemon/runtimes/" + NOWHERE + "/tasks/{}/prepare-lease", "task_id"),
    ],
)
async def test_any_malformed_id_is_400(target: Target, method: str, path: str, name: str) -> None:
    answer = await target.call(method, path.format("not-an-id"))
    assert answer.status == 400
    assert answer.error.startswith("invalid "), f"as in: invalid {name}"
