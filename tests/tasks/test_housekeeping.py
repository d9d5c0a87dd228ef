"""Rounds of clean-up with a real journal, a real client and a server that answers as it is told."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daemon_core.connections.client import ServerClient
from daemon_core.journal import Journal, RunRecord, TaskRecord
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.housekeeping import CleanRules, Housekeeper
from daemon_core.tasks.room import RoomGuard
from daemon_core.workdirs import TaskDirectories, cleanup
from daemon_core.workdirs.changes import ChangeStore
from daemon_core.workdirs.directories import Stamp
from daemon_core.workdirs.disk import Room, Space
from daemon_core.workdirs.repositories import MirrorUse
from daemon_core.workdirs.repository_errors import RepositoryError

NOW = 1_800_000_000.0
OLD = "2027-01-01T00:00:00Z"


class World:
    def __init__(self, root: Path) -> None:
        self.root = root / "workspaces"
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.rules = CleanRules()
        self.lives: dict[str, Any] = {}
        self.jobs: dict[str, Any] = {}
        self.keeper = cast("Housekeeper", None)
        self.journal = cast("Journal", None)

    async def answer(self, request: web.Request) -> web.Response:
        place = f"{request.match_info['kind']}/{request.match_info['id']}"
        self.asked.append(place)
        status, body = self.answers.get(place, (404, {"error": "not found"}))
        return web.json_response(body, status=status)

    def environment(self, name: str, stamp: Stamp | None, *, touched: float = NOW - 3600) -> Path:
        path = self.root / "ws" / name
        (path / "workdir" / "node_modules").mkdir(parents=True)
        (path / "workdir" / "node_modules" / "x").write_bytes(b"x" * 50_000)
        (path / "workdir" / "own").write_bytes(b"x" * 50_000)
        if stamp is not None:
            cleanup.write_stamp(path, stamp)
        for each in (path / "workdir", path):
            os.utime(each, (touched, touched))
        return path

    async def task(self, path: Path, **more: Any) -> None:
        fields: dict[str, Any] = {
            "key": f"srv/{path.name}", "connection": "srv", "task_id": path.name, "runtime_id": "r",
            "workspace_id": "ws", "provider": "shell", "kind": "chat", "conversation_id": "c", "title": "T",
            "work_dir": str(path / "workdir"), "state": "ended", "ended_at": OLD, "delivery": "delivered",
            "run_id": f"run-{path.name}", "claimed_at": OLD,
        }  # fmt: skip
        record = TaskRecord(**{**fields, **more})
        run = RunRecord(run_id=record.run_id, task_key=record.key, ended_at=OLD, state="ended")
        assert await self.journal.add_task(record, run)
        await self.journal.update_task(record.key, ended_at=record.ended_at, state=record.state)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.root.mkdir()
    app = web.Application()
    app.router.add_get("/api/daemon/{kind}/{id}/gc-check", made.answer)
    made.journal = await Journal.open(tmp_path / "journal.db")
    (tmp_path / "runs").mkdir()
    async with TestServer(app) as server, ServerClient(str(server.make_url("")), "mul_x") as client:
        engine = SimpleNamespace(
            lives=made.lives,
            jobs=SimpleNamespace(lives=made.jobs),
            connections={"srv": SimpleNamespace(name="srv", client=client, usable=True)},
            task_directories=TaskDirectories(made.root),
            runs_dir=tmp_path / "runs",
            remove_run=lambda run_id: shutil.rmtree(tmp_path / "runs" / run_id, ignore_errors=True),
        )
        made.keeper = Housekeeper(
            engine=cast("Engine", engine),
            journal=made.journal,
            changes=ChangeStore(tmp_path / "changes"),
            room=Room([tmp_path], 0),
            root=made.root,
            rules=lambda: made.rules,
            state_file=tmp_path / "cleanup.json",
            areas={"journal": tmp_path / "journal.db"},
            now=lambda: NOW,
        )
        yield made
    await made.journal.close()


def chat(ident: str, completed_at: str = OLD) -> Stamp:
    return Stamp(kind="chat", chat_session_id=ident, completed_at=completed_at, connection="srv")


def issue(ident: str, **more: str) -> Stamp:
    return Stamp(kind="issue", issue_id=ident, completed_at=OLD, connection="srv", **more)


async def test_a_round_follows_what_the_servers_say(world: World) -> None:
    world.rules = CleanRules(retention_days=0, run_days=0)
    kept = world.environment("kept", chat("kept"))
    gone = world.environment("gone", chat("gone"))
    unsure = world.environment("unsure", chat("unsure"))
    done = world.environment("done", issue("done"))
    is_open = world.environment("open", issue("open"))
    local = world.environment("local", issue("done", local_directory="/home/u/p"))
    broken = world.environment("broken", chat("broken"))
    orphan = world.environment("orphan", None, touched=NOW - 73 * 3600)
    world.answers = {
        "chat-sessions/kept": (200, {"status": "active", "updated_at": OLD}),
        "chat-sessions/gone": (404, {"error": "chat session not found"}),
        "chat-sessions/broken": (500, {"error": "x"}),
        "issues/done": (200, {"status": "done", "updated_at": OLD}),
        "issues/open": (200, {"status": "in_progress", "updated_at": OLD}),
    }
    dry = await world.keeper.clean(dry_run=True)
    assert gone.exists()
    done_round = await world.keeper.clean()
    assert [item.path for item in dry.items] == [item.path for item in done_round.items]
    assert {Path(item.path).name: item.action for item in done_round.items} == {
        "gone": "delete", "done": "delete", "orphan": "delete", "open": "artifacts", "local": "artifacts",
    }  # fmt: skip
    assert [path.exists() for path in (gone, done, orphan)] == [False] * 3
    for path in (is_open, local):
        assert (path / "workdir" / "own").exists()
        assert not (path / "workdir" / "node_modules").exists()
    for path in (kept, unsure, broken):
        assert (path / "workdir" / "node_modules").exists()
    assert done_round.freed_bytes > 300_000
    assert world.asked.count("issues/done") == 2  # once a round, although two directories belong to it
    usage = await world.keeper.usage()
    assert {each.environment.path.name: each.verdict.reason for each in usage.kept} == {
        "kept": "conversation", "unsure": "not_known", "open": "issue_open", "local": "local_directory",
        "broken": "no_answer",
    }  # fmt: skip
    assert usage.last is not None
    assert usage.last.freed_bytes == done_round.freed_bytes
    assert (await world.keeper.clean()).items == []


async def test_a_directory_in_use_is_left_also_if_it_came_into_use_during_the_round(world: World) -> None:
    path = world.environment("gone", chat("gone"))
    world.answers = {"chat-sessions/gone": (404, {"error": "chat session not found"})}
    life = SimpleNamespace(
        record=SimpleNamespace(work_dir=""), claim=SimpleNamespace(prior_work_dir=str(path / "workdir"))
    )
    real = world.keeper._size

    async def size(*arguments: Any, **more: Any) -> Any:
        world.lives["srv/x"] = life  # claimed between the verdict and the rename
        return await real(*arguments, **more)

    world.keeper._size = size  # type: ignore[method-assign]
    assert (await world.keeper.clean()).items == []
    assert path.exists()
    assert not world.keeper.remove(str(path / "workdir"))
    (kept,) = (await world.keeper.usage()).kept
    assert kept.verdict.reason == "in_use"
    world.lives.clear()
    assert world.keeper.remove(str(path / "workdir"))
    assert not world.keeper.remove(str(path / "workdir"))
    assert not world.keeper.remove("/etc")
    await world.keeper.resume()
    assert world.keeper.trash.is_empty()


async def test_a_directory_that_a_job_works_in_is_left(world: World) -> None:
    gone, stripped = world.environment("gone", chat("gone")), world.environment("open", issue("open"))
    world.answers = {
        "chat-sessions/gone": (404, {"error": "chat session not found"}),
        "issues/open": (200, {"status": "in_progress", "updated_at": OLD}),
    }
    world.rules = CleanRules(budget_bytes=1)
    for path in (gone, stripped):  # no run is there any more, the job waits to wake its agent
        below = path / "workdir" / "node_modules"
        world.jobs[path.name] = SimpleNamespace(job=SimpleNamespace(cwd=str(below)))
    assert (await world.keeper.clean()).items == []
    assert not world.keeper.remove(str(gone / "workdir"))
    world.jobs.clear()
    assert {item.path for item in (await world.keeper.clean()).items} == {str(gone), str(stripped)}


async def test_metadata_that_a_crash_kept_from_being_written_come_from_the_journal(world: World) -> None:
    path = world.environment("kept", None, touched=NOW - 999 * 3600)
    await world.task(path, conversation_id="kept")
    world.answers = {"chat-sessions/kept": (200, {"status": "active", "updated_at": OLD})}
    world.rules = CleanRules(retention_days=0, run_days=0)
    assert (await world.keeper.clean()).items == []
    stamp = cleanup.read_stamp(path)
    assert stamp is not None
    assert (stamp.kind, stamp.chat_session_id, stamp.connection) == ("chat", "kept", "srv")


async def test_the_budget_takes_what_ended_first(world: World) -> None:
    first = world.environment("first", chat("a", "2026-01-01T00:00:00Z"))
    second = world.environment("second", chat("b", "2026-02-01T00:00:00Z"))
    local = world.environment("local", issue("i", local_directory="/home/u/p"))
    world.answers = {
        place: (200, {"status": "active", "updated_at": OLD})
        for place in ("chat-sessions/a", "chat-sessions/b", "issues/i")
    }
    world.rules = CleanRules(budget_bytes=300_000, artifacts=())
    assert [Path(item.path).name for item in (await world.keeper.clean()).items] == ["first"]
    assert not first.exists()
    world.rules = CleanRules(budget_bytes=1, artifacts=())
    assert [item.reason for item in (await world.keeper.clean()).items] == ["over_budget"]
    assert not second.exists()
    assert local.exists()


class Cache:
    """Mirrors of repositories, as housekeeping sees them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mirrors: list[MirrorUse] = []
        self.collected: list[str] = []
        self.busy: set[str] = set()

    def add(self, name: str, *, used: float, tree: Path | None = None, collected: float = NOW) -> Path:
        path = self.root / "ws" / f"{name}.git"
        path.mkdir(parents=True)
        (path / "pack").write_bytes(b"x" * 100_000)
        trees = (tree,) if tree is not None else ()
        self.mirrors.append(
            MirrorUse(path=path, workspace="ws", worktrees=trees, last_used_at=used, collected_at=collected)
        )
        return path

    def usage(self) -> list[MirrorUse]:
        return [
            dataclasses.replace(use, worktrees=tuple(tree for tree in use.worktrees if tree.is_dir()))
            for use in self.mirrors
            if use.path.is_dir()
        ]

    async def prune(self) -> None:
        pass

    async def remove(self, mirror: Path) -> bool:
        if mirror.name in self.busy:
            return False
        shutil.rmtree(mirror)
        return True

    async def collect(self, mirror: Path) -> bool:
        self.collected.append(mirror.name)
        if mirror.name in self.busy:
            raise RepositoryError("git", "no")
        return True


async def test_mirrors_that_nobody_has_used_for_long_go(world: World, tmp_path: Path) -> None:
    cache = world.keeper.repositories = Cache(tmp_path / "repos")
    gone = world.environment("gone", chat("gone"))
    kept = world.environment("kept", chat("kept"))
    world.answers = {
        "chat-sessions/gone": (404, {"error": "chat session not found"}),
        "chat-sessions/kept": (200, {"status": "active", "updated_at": OLD}),
    }
    old = NOW - 31 * 86400
    idle, doomed = cache.add("h+idle", used=old), cache.add("h+doomed", used=old, tree=gone / "workdir")
    stay = [
        cache.add("h+new", used=NOW - 86400), cache.add("h+used", used=old, tree=kept / "workdir"),
        cache.add("h+busy", used=old),
    ]  # fmt: skip
    cache.busy = {"h+busy.git"}
    dry = await world.keeper.clean(dry_run=True)
    assert idle.exists()
    assert {item.title for item in dry.items if item.action == "repository"} == {
        "h/idle", "h/doomed", "h/busy",
    }  # fmt: skip
    done = await world.keeper.clean()
    assert {item.title: item.reason for item in done.items if item.action == "repository"} == {
        "h/idle": "unused", "h/doomed": "unused",
    }  # fmt: skip
    assert done.freed_bytes > 300_000
    assert not idle.exists()
    assert not doomed.exists()
    assert all(path.exists() for path in stay)
    cache.busy = set()
    world.rules = CleanRules(retention_days=0)  # for ever
    assert (await world.keeper.clean()).items == []


async def test_the_budget_counts_mirrors_but_they_cost_no_directory(world: World, tmp_path: Path) -> None:
    cache = world.keeper.repositories = Cache(tmp_path / "repos")
    kept = world.environment("kept", chat("kept"))
    world.answers = {"chat-sessions/kept": (200, {"status": "active", "updated_at": OLD})}
    used = cache.add("used", used=NOW - 9000, tree=kept / "workdir")
    older, newer = cache.add("older", used=NOW - 5000), cache.add("newer", used=NOW - 10)
    world.rules = CleanRules(budget_bytes=400_000, artifacts=(), retention_days=0)
    assert [item.title for item in (await world.keeper.clean(dry_run=True)).items] == ["older"]
    assert [item.reason for item in (await world.keeper.clean()).items] == ["over_budget"]
    assert (older.exists(), newer.exists()) == (False, True)
    world.rules = CleanRules(budget_bytes=180_000, artifacts=(), retention_days=0)
    await world.keeper.clean()
    assert (kept.exists(), used.exists(), newer.exists()) == (True, True, False)


async def test_git_tidies_up_each_mirror_about_once_a_week(world: World, tmp_path: Path) -> None:
    cache = world.keeper.repositories = Cache(tmp_path / "repos")
    week = NOW - 8 * 86400
    cache.add("busy", used=NOW, collected=week)
    cache.add("due", used=NOW, collected=week)
    cache.add("fresh", used=NOW, collected=NOW - 86400)
    cache.busy = {"busy.git"}
    await world.keeper.collect()
    assert cache.collected == ["busy.git", "due.git"]
    world.keeper.room = Room([tmp_path], 100, usage=lambda _: (50, 1000))
    await world.keeper.collect()  # it needs room itself
    assert len(cache.collected) == 2


async def test_skills_that_are_not_used_any_more_go_with_a_round(world: World) -> None:
    asked: list[float] = []

    def forget(now: float) -> int:
        asked.append(now)
        return 77

    world.keeper.forget_skills = forget
    assert (await world.keeper.clean(dry_run=True)).freed_bytes == 0
    assert (await world.keeper.clean()).freed_bytes == 77
    assert asked == [NOW]


async def test_old_tasks_and_the_raw_output_of_old_runs_go(world: World, tmp_path: Path) -> None:
    path = world.environment("old", chat("old"))
    world.answers = {"chat-sessions/old": (200, {"status": "active", "updated_at": OLD})}
    await world.task(path)
    (tmp_path / "runs" / "run-old").mkdir()
    (tmp_path / "changes" / "0123").mkdir(parents=True)
    world.rules = CleanRules(retention_days=30, run_days=7)
    done = await world.keeper.clean()
    assert (done.tasks, done.runs) == (0, 1)
    assert not (tmp_path / "runs" / "run-old").exists()
    assert not (tmp_path / "changes" / "0123").exists()
    world.rules = CleanRules(retention_days=1, run_days=7)
    assert (await world.keeper.clean()).tasks == 1
    assert path.exists()  # the conversation is kept, and so is its directory


async def test_claims_wait_for_room_and_go_on_by_themselves(tmp_path: Path) -> None:
    free = 50
    said: list[Space | None] = []
    guard = RoomGuard(Room([tmp_path], 100, usage=lambda _: (free, 1000)), said.append)
    assert not await guard.enough()
    assert not await guard.enough()
    assert [space.free_bytes for space in said if space is not None] == [50]
    free = 500
    guard.look_again()
    await guard.wait()
    assert said[1:] == [None]


async def test_a_server_that_is_signed_out_is_not_asked_and_what_is_its_stays(world: World) -> None:
    path = world.environment("gone", chat("gone"))
    world.answers = {"chat-sessions/gone": (404, {"error": "chat session not found"})}
    connection = world.keeper.engine.connections["srv"]
    connection.usable = False  # type: ignore[misc]
    assert (await world.keeper.clean()).items == []
    assert world.asked == []
    assert path.exists()
    connection.usable = True  # type: ignore[misc]
    assert [item.action for item in (await world.keeper.clean()).items] == ["delete"]
