"""Custom profiles and switches at a registration, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.connection import Connection
from daemon_core.runtimes.book import Off, RuntimeBook
from daemon_core.runtimes.profiles import ProfileResolver
from daemon_core.runtimes.providers import builtin
from daemon_core.runtimes.registration import LivingRuntime, Registration
from tests.runtimes.test_registration import CLAUDE, FAST, IDENTITY, SHELL, Agent
from tests.support.fake_server import TOKEN, FakeServer, eventually, html_502, refuse


class World:
    """A running connection whose registration knows profiles and switches."""

    def __init__(self, server: FakeServer, root: Path, agents: list[Agent]) -> None:
        self.alive: set[str] = set()
        self.lost: list[tuple[str, str]] = []
        self.more = asyncio.Event()
        self.bin = root / "bin"
        self.book = RuntimeBook(root / "runtimes.json")
        self.connection = Connection("server", ServerClient(server.url, TOKEN), FAST)
        resolver = ProfileResolver(
            builtin().get,
            {"PATH": str(self.bin), "HOME": str(root)},
            self.book.path_of,
            lambda _: True,
            common_places=(),
        )
        self.registration = Registration(
            self.connection,
            IDENTITY,
            agents,
            lives=self.alive.__contains__,
            living=lambda: [LivingRuntime("w1", id_, "claude") for id_ in self.alive],
            changed=lambda _: self.more.set(),
            profiles=resolver,
            book=self.book,
            lost=self,
        )

    async def fail(self, connection: str, runtime_id: str) -> None:
        self.lost.append(("fail", runtime_id))

    async def forget(self, connection: str, runtime_id: str) -> None:
        self.lost.append(("forget", runtime_id))

    def install(self, name: str, version: str = "2.5.0") -> Path:
        self.bin.mkdir(exist_ok=True)
        path = self.bin / name
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
        return path

    def names(self, *, claimable: bool = True) -> list[str]:
        runtimes = self.registration.runtimes.values()
        return sorted(r.name for r in runtimes if r.claimable is claimable)

    def id_of(self, subject: str) -> str:
        (id_,) = (id_ for id_, r in self.registration.runtimes.items() if r.subject == subject)
        return id_

    async def beaten(self) -> None:
        """Wait until no first beat of a new link is on its way, which would show a runtime online again."""
        link = self.connection.link
        await eventually(lambda: all(link.fresh(id_) for id_ in self.registration.runtimes))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.more.clear()
                await self.more.wait()


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="w1")
        yield server


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.connection.run()), group.create_task(world.registration.run())]
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()


async def syncs(server: FakeServer, world: World, count: int) -> None:
    """Let this many more syncs happen, one after the other, and be over."""
    for _ in range(count):
        seen = len(server.seen("workspaces"))
        world.connection.sync_now()
        await server.until(lambda seen=seen: len(server.seen("workspaces")) > seen)  # type: ignore[misc]
        await eventually(lambda: world.connection._sync_wanted.is_set() is False)
    async with world.registration._busy:
        pass


async def test_a_profile_is_registered_beside_the_plain_runtime(server: FakeServer, tmp_path: Path) -> None:
    world = World(server, tmp_path, [CLAUDE])
    path = world.install("my-claude")
    profile = server.add_profile("w1", fixed_args=["--a", "b c"])
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 2)
        runtime = w.registration.runtimes[w.id_of(profile)]
        assert (runtime.provider, runtime.path, runtime.version) == ("claude", str(path), "2.5.0")
        assert (runtime.args, runtime.name) == (("--a", "b c"), "Mine (box)")
        sent = server.seen("register")[0].body["runtimes"]
        assert [entry.get("profile_id") for entry in sent] == [None, profile]
        assert sorted(server.orphans) == sorted(w.registration.runtimes)
        start = RuntimeBook.open(tmp_path / "runtimes.json").start_of("server", runtime.runtime_id)
        assert start is not None
        assert (start.provider, start.path, start.args) == ("claude", str(path), ("--a", "b c"))


async def test_a_profile_that_cannot_be_used_is_told_with_the_reason(
    server: FakeServer, tmp_path: Path
) -> None:
    profile = server.add_profile("w1")
    async with running(World(server, tmp_path, [CLAUDE])) as w:
        await w.until(lambda: w.names() == ["Claude (box)"])
        assert "not found in PATH" in server.failed_profiles[profile]
        ((workspace_id, failed, reason),) = w.registration.failed_profiles()
        assert (workspace_id, failed.id) == ("w1", profile)
        assert reason == server.failed_profiles[profile]
        w.install("my-claude")  # and found at the next sync, without a word to recover-orphans
        server.orphans.clear()
        w.connection.sync_now()
        await w.until(lambda: w.names() == ["Claude (box)", "Mine (box)"])
        assert server.orphans == []


async def test_failed_profiles_alone_are_told_once(server: FakeServer, tmp_path: Path) -> None:
    server.add_profile("w1")
    async with running(World(server, tmp_path, [])) as w:
        await server.until(lambda: len(server.seen("register")) == 1)
        assert server.seen("register")[0].body["runtimes"] == []
        await syncs(server, w, 3)
        assert len(server.seen("register")) == 1


async def test_drift_registers_again_in_place_without_recover_orphans(
    server: FakeServer, tmp_path: Path
) -> None:
    world = World(server, tmp_path, [CLAUDE])
    world.install("my-claude")
    first, second = server.add_profile("w1", fixed_args=["x"]), server.add_profile("w1", display_name="Two")
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 3)
        ids = {subject: w.id_of(subject) for subject in ("claude", first, second)}
        task = server.add_task(ids[first])
        await w.connection.client.claim(ids[first])
        server.orphans.clear()
        server.profiles["w1"][0]["fixed_args"] = ["y"]
        del server.profiles["w1"][1]
        server.push("daemon:runtime_profiles_changed", {"workspace_id": "w1", "runtime_profile_id": first})
        await w.until(lambda: w.registration.runtimes[ids[first]].args == ("y",))
        assert set(w.registration.runtimes) == {ids["claude"], ids[first]}
        await server.until(lambda: len(server.seen("deregister")) == 1)
        body = server.seen("deregister")[0].body
        assert body["runtime_ids"] == [ids[second]]
        assert body["offline_reasons"][ids[second]]["code"] == "profile_removed"
        assert server.orphans == []
        assert task.status == "dispatched"


async def test_a_name_alone_is_no_reason_to_register(server: FakeServer, tmp_path: Path) -> None:
    world = World(server, tmp_path, [CLAUDE])
    world.install("my-claude")
    server.add_profile("w1")
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 2)
        server.profiles["w1"][0]["description"] = "other"
        w.connection.sync_now()
        await server.until(lambda: len(server.seen("repos")) >= 1)
        assert len(server.seen("register")) == 1


async def test_with_nothing_left_everything_is_deregistered_and_left_at_that(
    server: FakeServer, tmp_path: Path
) -> None:
    world = World(server, tmp_path, [])
    world.install("my-claude")
    server.add_profile("w1")
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 1)
        (id_,) = w.registration.runtimes
        server.profiles["w1"].clear()
        w.connection.sync_now()
        await w.until(lambda: not w.registration.runtimes)
        await server.until(lambda: len(server.seen("deregister")) == 1)
        body = server.seen("deregister")[0].body
        assert body["runtime_ids"] == list(body["offline_reasons"]) == [id_]
        await syncs(server, w, 3)
        assert len(server.seen("register")) == 1
        server.add_profile("w1")
        w.connection.sync_now()
        await w.until(lambda: len(w.names()) == 1)


async def test_profiles_that_cannot_be_had_stay_as_they_were(server: FakeServer, tmp_path: Path) -> None:
    world = World(server, tmp_path, [CLAUDE])
    world.install("my-claude")
    server.add_profile("w1")
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 2)
        for fault in (html_502(), refuse(404, "not found")):
            server.script("profiles", fault)
            count = len(server.seen("repos"))
            w.connection.sync_now()
            await server.until(lambda count=count: len(server.seen("repos")) > count)  # type: ignore[misc]
        assert len(w.names()) == 2
        assert len(server.seen("register")) == 1


async def test_a_server_without_the_route_still_gets_the_plain_runtimes(
    server: FakeServer, tmp_path: Path
) -> None:
    server.always("profiles", refuse(404, "404 page not found"))
    async with running(World(server, tmp_path, [CLAUDE])) as w:
        await w.until(lambda: w.names() == ["Claude (box)"])


async def test_a_profile_that_changed_since_it_was_listed_is_asked_for_again(
    server: FakeServer, tmp_path: Path
) -> None:
    world = World(server, tmp_path, [CLAUDE])
    world.install("my-claude")
    profile = server.add_profile("w1")
    server.script("register", refuse(409, f"runtime profile is disabled: {profile}"))
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 2)
        assert len(server.seen("profiles")) == 2


async def test_a_profile_that_is_refused_whatever_was_listed_keeps_nothing_else_out(
    server: FakeServer, tmp_path: Path
) -> None:
    world = World(server, tmp_path, [CLAUDE])
    world.install("my-claude")
    profile = server.add_profile("w1")
    server.script("register", *[refuse(400, f"unknown runtime profile: {profile}")] * 2)
    async with running(world) as w:
        await w.until(lambda: w.names() == ["Claude (box)"])
        count = len(server.seen("register"))
        await syncs(server, w, 3)
        assert len(server.seen("register")) == count
        server.profiles["w1"][0]["fixed_args"] = ["new"]
        w.connection.sync_now()
        await w.until(lambda: len(w.names()) == 2)


async def test_a_profile_whose_start_cannot_be_written_down_is_not_offered(
    server: FakeServer, tmp_path: Path
) -> None:
    world = World(server, tmp_path, [CLAUDE])
    world.install("my-claude")
    server.add_profile("w1")
    world.book._path = tmp_path / "nowhere" / "file"
    async with running(world) as w:
        await w.until(lambda: w.names() == ["Claude (box)"])


async def test_another_path_for_a_profile_is_in_force_at_once(server: FakeServer, tmp_path: Path) -> None:
    world = World(server, tmp_path, [])
    world.install("my-claude")
    other = world.install("other", "3.0.0")
    profile = server.add_profile("w1")
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 1)
        await w.book.set_path(profile, str(other))
        await w.registration.follow()
        assert w.registration.runtimes[w.id_of(profile)].path == str(other)
        await w.book.set_path(profile, "")
        await w.registration.follow()
        assert w.registration.runtimes[w.id_of(profile)].path == str(world.bin / "my-claude")


# --- switches --------------------------------------------------------------------------------------


async def test_a_switched_off_agent_is_deregistered_and_comes_back_under_its_id(
    server: FakeServer, tmp_path: Path
) -> None:
    async with running(World(server, tmp_path, [CLAUDE, SHELL])) as w:
        await w.until(lambda: len(w.names()) == 2)
        await w.beaten()
        claude = w.id_of("claude")
        await w.book.switch(off=[Off(subject="claude")])
        await w.registration.follow()
        assert w.names() == ["Shell (box)"]
        assert not server.runtimes[claude].online
        assert server.seen("deregister")[0].body["offline_reasons"][claude]["code"] == "switched_off"
        (off,) = w.registration.switched_off()
        assert (off.runtime_id, off.provider) == (claude, "claude")
        server.orphans.clear()
        await w.book.switch(on=[Off(subject="claude")])
        await w.registration.follow()
        assert w.id_of("claude") == claude
        assert server.runtimes[claude].online
        assert server.orphans == []


async def test_everything_switched_off_is_not_registered_again_and_again(
    server: FakeServer, tmp_path: Path
) -> None:
    world = World(server, tmp_path, [CLAUDE])
    await world.book.switch(off=[Off(subject="claude")])
    async with running(world) as w:
        await syncs(server, w, 3)
        assert server.seen("register") == []
        assert [off.runtime_id for off in w.registration.switched_off()] == ["claude"]


async def test_one_workspaces_runtime_can_be_off_alone(server: FakeServer, tmp_path: Path) -> None:
    server.add_workspace(id_="w2")
    async with running(World(server, tmp_path, [CLAUDE])) as w:
        await w.until(lambda: len(w.names()) == 2)
        await w.book.switch(off=[Off(subject="claude", connection="server", workspace="w2")])
        await w.registration.follow()
        assert [r.workspace_id for r in w.registration.runtimes.values()] == ["w1"]


async def test_a_living_run_keeps_a_switched_off_runtime_until_it_has_ended(
    server: FakeServer, tmp_path: Path
) -> None:
    async with running(World(server, tmp_path, [CLAUDE, SHELL])) as w:
        await w.until(lambda: len(w.names()) == 2)
        await w.beaten()
        claude = w.id_of("claude")
        w.alive.add(claude)
        await w.book.switch(off=[Off(subject="claude")])
        await w.registration.follow()
        assert w.names(claimable=False) == ["Claude (box)"]
        assert server.seen("deregister") == []
        w.registration.settled(claude)  # another task of it ended
        w.alive.clear()
        w.registration.settled(claude)
        await w.until(lambda: claude not in w.registration.runtimes)
        await server.until(lambda: len(server.seen("deregister")) == 1)
        assert not server.runtimes[claude].online


async def test_a_run_of_before_a_restart_keeps_its_runtime_though_it_is_off(
    server: FakeServer, tmp_path: Path
) -> None:
    async with running(World(server, tmp_path, [CLAUDE, SHELL])) as w:
        await w.until(lambda: len(w.names()) == 2)
        claude = w.id_of("claude")
        await w.book.switch(off=[Off(subject="claude")])
    world = World(server, tmp_path, [CLAUDE, SHELL])
    world.book = world.registration._book = RuntimeBook.open(tmp_path / "runtimes.json")
    world.alive.add(claude)
    async with running(world) as w:
        await w.until(lambda: w.names() == ["Shell (box)"])
        assert w.names(claimable=False) == ["Claude (box)"]
        await server.until(lambda: any(claude in ids for ids in server.handshakes))  # it beats on
        # A server that has forgotten it meanwhile is not asked about it again and again.
        server.lose_runtime(claude)
        w.registration.runtime_gone(claude, asyncio.get_running_loop().time())
        await server.until(lambda: len(server.seen("register")) == 3)
        await syncs(server, w, 1)
        assert claude not in w.registration.runtimes


async def test_a_restart_deregisters_and_registers_one_runtime(server: FakeServer, tmp_path: Path) -> None:
    async with running(World(server, tmp_path, [CLAUDE, SHELL])) as w:
        await w.until(lambda: len(w.names()) == 2)
        claude, orphans = w.id_of("claude"), list(server.orphans)
        await w.registration.restart(claude)
        (asked,) = server.seen("deregister")
        assert asked.body["runtime_ids"] == [claude]
        assert asked.body["offline_reasons"][claude]["code"] == "runtime_restarting"
        assert len(server.seen("register")) == 2
        assert w.id_of("claude") == claude
        assert server.runtimes[claude].online
        w.alive.add(claude)
        await w.registration.restart(claude)
        assert len(server.seen("deregister")) == 1
        assert len(server.seen("register")) == 3
        assert server.orphans == orphans
        await w.registration.restart("unknown")


async def test_a_restart_that_fails_is_made_up_for(server: FakeServer, tmp_path: Path) -> None:
    async with running(World(server, tmp_path, [CLAUDE, SHELL])) as w:
        await w.until(lambda: len(w.names()) == 2)
        orphans = list(server.orphans)
        server.always("register", html_502())
        await w.registration.restart(w.id_of("claude"))
        assert len(w.names()) == 1
        server.heal("register")
        await w.until(lambda: len(w.names()) == 2)
        assert server.orphans == orphans


# --- lost tasks ------------------------------------------------------------------------------------


async def test_lost_tasks_are_failed_one_by_one_where_others_live(server: FakeServer, tmp_path: Path) -> None:
    async with running(World(server, tmp_path, [CLAUDE, SHELL])) as w:
        await w.until(lambda: len(w.names()) == 2)
        claude, shell = w.id_of("claude"), w.id_of("shell")
        assert sorted(w.lost) == sorted([("forget", claude), ("forget", shell)])
    server.orphans.clear()
    world = World(server, tmp_path, [CLAUDE, SHELL])
    world.alive.add(claude)
    async with running(world) as w:
        await w.until(lambda: len(w.names()) == 2)
        assert server.orphans == [shell]
        assert sorted(w.lost) == sorted([("fail", claude), ("forget", shell)])


async def test_an_upgraded_agent_is_registered_with_its_version(server: FakeServer, tmp_path: Path) -> None:
    async with running(World(server, tmp_path, [CLAUDE])) as w:
        await w.until(lambda: len(w.names()) == 1)
        w.registration.set_agents([dataclasses.replace(CLAUDE, version="2.2.0")])
        await eventually(lambda: w.registration.runtimes[w.id_of("claude")].version == "2.2.0")
