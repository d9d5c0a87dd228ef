"""Section 6: workspaces, repositories, settings."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, Target, cannot, section

pytestmark = section("6", "Workspaces: list, repos, settings")


async def change(target: Target, **what: Any) -> None:
    answer = await target.patch(f"/api/workspaces/{target.workspace_id}", what)
    if answer.status != 200:
        cannot(f"change its workspace ({answer.status})")


async def repos(target: Target) -> Any:
    return (await target.get(f"/api/daemon/workspaces/{target.workspace_id}/repos")).ok()


async def test_the_list_of_workspaces(target: Target) -> None:
    listed = (await target.get("/api/workspaces")).ok()
    assert isinstance(listed, list)
    mine = next(each for each in listed if each["id"] == target.workspace_id)
    assert mine["name"]
    wanted = {"slug", "description", "context", "settings", "repos", "issue_prefix", "avatar_url"}
    assert wanted | {"created_at", "updated_at"} <= set(mine)


async def test_a_workspace_by_its_id(target: Target) -> None:
    one = (await target.get(f"/api/workspaces/{target.workspace_id}")).ok()
    assert one["id"] == target.workspace_id


async def test_repositories_have_a_version_that_their_addresses_make(target: Target) -> None:
    urls = ["https://example.org/b.git", "https://example.org/a.git"]
    await change(target, repos=[{"url": url, "description": "x", "ref": "main"} for url in urls])
    body = await repos(target)
    assert body["workspace_id"] == target.workspace_id
    assert {each["url"] for each in body["repos"]} == set(urls)
    assert body["repos_version"] == hashlib.sha256("\n".join(sorted(urls)).encode()).hexdigest()
    await change(target, repos=[{"url": url, "ref": "other"} for url in reversed(urls)])
    assert (await repos(target))["repos_version"] == body["repos_version"], "neither order nor ref counts"
    await change(target, repos=[])
    empty = await repos(target)
    assert empty["repos"] in ([], None)
    assert empty["repos_version"] == hashlib.sha256(b"").hexdigest()


async def test_addresses_are_trimmed_and_doubles_count_once(target: Target) -> None:
    url = "https://example.org/a.git"
    await change(target, repos=[{"url": f" {url} "}, {"url": url}])
    assert (await repos(target))["repos_version"] == hashlib.sha256(url.encode()).hexdigest()
    await change(target, repos=[])


@pytest.mark.parametrize(
    "given", [{"github_enabled": False}, {"co_authored_by_enabled": False, "other": [1]}]
)
async def test_settings_reach_daemons_with_whatever_is_in_them(
    target: Target, scene: Scene, given: dict[str, Any]
) -> None:
    await change(target, settings=given)
    assert (await repos(target))["settings"] == given
    assert (await scene.register("claude"))["settings"] == given
    await change(target, settings={})
    assert not (await repos(target))["settings"]


async def test_another_workspace_is_not_found(target: Target) -> None:
    answer = await target.get(f"/api/daemon/workspaces/{NOWHERE}/repos")
    assert answer.status == 404
    assert answer.error in ("workspace not found", "not found")
