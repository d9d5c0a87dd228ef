"""Which repositories a task may have, what its server's settings do, and who may ask on the loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from daemon_core.control.checkout import checkout_route
from daemon_core.protocol.wire import Agent, Repo, Task
from daemon_core.tasks.repositories import (
    NotConfiguredError,
    OwnRepositories,
    TaskRepositories,
    lies_inside,
)
from daemon_core.workdirs.repositories import Repositories
from daemon_core.workdirs.repository_errors import RepositoryInputError, RepositoryUnavailableError
from tests.support.git_server import GitServer, add_commit, clean_environment, git, make_repository

TOKEN = "mat_own"


class Workspace:
    """Stands for a registration: what its server answers next, and how often it was asked."""

    def __init__(self) -> None:
        self.now = SimpleNamespace(repos=list[Repo](), settings=None)
        self.known = SimpleNamespace(repos=list[Repo](), settings=None)
        self.asked = 0
        self.hangs = False

    @property
    def workspaces(self) -> dict[str, Any]:
        return {"ws": self.known}

    async def refresh_workspace(self, workspace_id: str) -> Any:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3600)
        assert workspace_id == "ws"
        self.known = SimpleNamespace(repos=list(self.now.repos), settings=self.now.settings)
        return self.known


class World:
    def __init__(self, root: Path, server: GitServer) -> None:
        self.root = root
        self.source = make_repository(root / "srv" / "app")
        self.url = server.url("app/.git")
        environ = {
            **clean_environment(root),
            "GIT_CONFIG_GLOBAL": str(server.helper_config(root / "gitconfig")),
        }
        self.workspace = Workspace()
        self.own = OwnRepositories()
        self.repositories = TaskRepositories(
            Repositories(root / "repos", environ), cast("Any", {"team": self.workspace}), lambda: self.own
        )
        self.work_dir = root / "work"
        self.work_dir.mkdir()

    def life(self, *, hub: bool = False, repos: list[Repo] | None = None) -> Any:
        claim = Task(
            id="abcdef01-x", workspace_id="ws", auth_token=TOKEN, repos=repos, agent=Agent(name="Ann")
        )
        record = SimpleNamespace(
            task_id=claim.id, workspace_id="ws", state="started", work_dir=str(self.work_dir)
        )
        connection = SimpleNamespace(
            name="hub" if hub else "team", timing=SimpleNamespace(loopback=hub), client=None
        )
        return SimpleNamespace(claim=claim, record=record, connection=connection)

    async def checkout(self, life: Any, url: str = "", ref: str = "") -> Any:
        return await self.repositories.checkout(life, life.claim, url or self.url, ref, self.work_dir)


@pytest.fixture
def server(tmp_path: Path) -> Any:
    server = GitServer(tmp_path / "srv")
    yield server
    server.close()


@pytest.fixture
def world(tmp_path: Path, server: GitServer) -> World:
    return World(tmp_path, server)


async def test_a_repository_that_was_just_added_is_allowed_at_once(world: World) -> None:
    with pytest.raises(NotConfiguredError):
        await world.checkout(world.life())
    world.workspace.now.repos = [Repo(url=world.url.replace("//", "//user:secret@"))]
    done = await world.checkout(world.life())
    assert done.branch == "agent/ann/abcdef01"
    assert world.workspace.asked == 2
    world.workspace.now.repos = []
    with pytest.raises(NotConfiguredError) as caught:
        await world.checkout(world.life())
    assert caught.value.code == "not_configured"


async def test_a_tasks_own_repositories_survive_a_refresh_and_bring_their_ref(world: World) -> None:
    git("checkout", "-q", "-b", "dev", cwd=world.source)
    commit = add_commit(world.source, {"dev": "1"})
    git("checkout", "-q", "main", cwd=world.source)
    life = world.life(repos=[Repo(url=world.url, ref="dev")])
    assert (await world.checkout(life)).commit == commit
    assert (await world.checkout(life, ref="main")).commit != commit


async def test_a_server_that_does_not_answer_leaves_what_was_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon_core.tasks.repositories.REFRESH_LIMIT_S", 0.05)
    world.workspace.known.repos = [Repo(url=world.url)]
    world.workspace.hangs = True
    assert (await world.checkout(world.life())).made


async def test_configured_and_not_to_be_had_is_no_refusal(world: World, server: GitServer) -> None:
    world.workspace.now.repos = [Repo(url=world.url)]
    server.open = False
    with pytest.raises(RepositoryUnavailableError) as caught:
        await world.checkout(world.life())
    assert "may be used here" in str(caught.value)


async def test_the_workspaces_settings_decide_on_the_trailer(world: World) -> None:
    world.workspace.now.repos = [Repo(url=world.url)]
    life = world.life()
    done = await world.checkout(life)
    add_commit(done.path, {"a": "1"}, "a")
    assert "multica-agent <github@multica.ai>" in git("log", "-1", "--format=%b", cwd=done.path)
    for settings in ({"github_enabled": False}, {"co_authored_by_enabled": False}):
        world.workspace.now.settings = settings
        await world.checkout(life)
        add_commit(done.path, {"a": str(settings)}, "b")
        assert git("log", "-1", "--format=%b", cwd=done.path) == ""
        world.workspace.now.settings = None
        await world.checkout(life)
        add_commit(done.path, {"a": f"{settings}!"}, "c")
        assert git("log", "-1", "--format=%b", cwd=done.path) != ""


async def test_a_local_path_is_for_the_hubs_tasks_where_the_user_gave_it(world: World) -> None:
    path = str(world.source)
    with pytest.raises(RepositoryInputError) as caught:
        await world.checkout(world.life(repos=[Repo(url=path)]), path)
    assert caught.value.code == "local_refused"
    with pytest.raises(NotConfiguredError):
        await world.checkout(world.life(hub=True), path)
    assert (await world.checkout(world.life(hub=True, repos=[Repo(url=path)]), f"file://{path}")).made
    world.own = OwnRepositories(urls=[path], co_author="not an identity")
    assert not (await world.checkout(world.life(hub=True), path)).made


def test_lies_inside(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (inside / "out").symlink_to(tmp_path)
    assert lies_inside(str(inside), str(tmp_path / "a"))
    assert lies_inside(str(tmp_path / "a"), str(tmp_path / "a"))
    for path in ("", "a", str(tmp_path), str(tmp_path / "ab"), f"{inside}/..//..", f"{inside}/out", "/\0"):
        assert not lies_inside(path, str(tmp_path / "a")), path


# --- the route, as a server's own command line uses it ---------------------------------------------------


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    world.workspace.now.repos = [Repo(url=world.url)]
    engine = SimpleNamespace(lives={"team/x": world.life()}, repositories=world.repositories)
    app = web.Application()
    app.router.add_routes([checkout_route(lambda: cast("Any", engine), "own")])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    world.life_served = engine.lives["team/x"]  # type: ignore[attr-defined]
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/repo/checkout"
    await runner.cleanup()


async def post(address: str, body: dict[str, Any], token: str = "") -> tuple[int, str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, json=body, headers=headers) as answer,
    ):
        return answer.status, (await answer.text()).strip(), answer.headers


async def test_an_older_command_line_without_a_token(world: World, address: str) -> None:
    body = {
        "url": world.url,
        "workspace_id": "ws",
        "workdir": str(world.work_dir),
        "agent_name": "Ann",
        "task_id": "abcdef01-x",
    }
    status, said, _ = await post(address, body)
    assert status == 200, said
    assert (world.work_dir / "app" / "README.md").exists()
    for change in (
        {"task_id": "other"},
        {"task_id": ""},
        {"workspace_id": "no"},
        {"in_task_directory": True},
    ):
        assert (await post(address, {**body, **change}))[0] == 401
    assert (await post(address, {**body, "workdir": str(world.root)}))[0] == 403
    world.life_served.record.state = "ready"  # type: ignore[attr-defined]
    assert (await post(address, body))[0] == 401
    assert (await post(address, body, TOKEN))[0] == 200


async def test_errors_of_the_route_are_plain_text_with_a_code(world: World, address: str) -> None:
    body = {"url": world.url, "workspace_id": "ws", "workdir": str(world.work_dir)}
    status, said, headers = await post(address, {**body, "url": "https://example.com/x"}, TOKEN)
    assert (status, headers["X-Ostler-Error"]) == (400, "not_configured")
    status, said, headers = await post(address, {**body, "ref": "nowhere"}, TOKEN)
    assert (status, headers["X-Ostler-Error"]) == (400, "unknown_ref")
    assert "nowhere" in said
