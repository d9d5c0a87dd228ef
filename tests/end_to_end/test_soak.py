"""Many runtimes at several servers for a while, and servers that come and go: nothing is lost, nothing leaks.

50 runtimes in 10 workspaces on 3 servers, besides the own hub; short tasks all the while; servers restarted,
credentials revoked and renewed, workspaces removed and back again. ``OSTLER_TEST_SOAK_S`` is how long that
goes on (20 if unset).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.end_to_end.faults_world import FaultsWorld, HurriedHome
from tests.end_to_end.home import PATIENCE_S, wait_until
from tests.end_to_end.servers_world import aside, name_of
from tests.support.fake_server import FakeServer, FakeTask, ResetAfter
from tests.support.scripted_agent import install_scripted_agent, script

SECONDS = float(os.environ.get("OSTLER_TEST_SOAK_S", "20"))
SLOTS = 8
WAITING = 24
"""So many tasks may be on their way at once; then a further one waits for the ends of others."""
PROVIDERS = ("shell", "claude", "second", "third", "fourth")
WORKSPACES = (4, 3, 3)
"""At each server; each workspace has a runtime of every provider."""


class Soak:
    """One daemon, its servers, and everything that was asked of it."""

    def __init__(self, world: FaultsWorld, servers: list[FakeServer], seed: int) -> None:
        self.world = world
        self.servers = servers
        self.random = random.Random(seed)
        self.tasks: list[tuple[FakeServer, FakeTask]] = []
        self.own: list[str] = []
        self.tokens: dict[str, str] = {}
        self.did: Counter[str] = Counter()
        self.count = 0

    # --- work -----------------------------------------------------------------------------------------

    def open(self) -> int:
        return sum(task.status not in ("completed", "failed", "cancelled") for _, task in self.tasks)

    def add(self) -> None:
        """A task at a random runtime of a random server; most are for the shell, which begins fast."""
        server = self.random.choice(self.servers)
        runtimes = [each for each in server.runtimes.values() if each.workspace_id in server.workspaces]
        shells = [each for each in runtimes if each.provider == "shell"]
        runtime = self.random.choice(runtimes if self.random.random() < 0.15 else shells)
        self.count += 1
        mark = f"t{self.count}"
        if runtime.provider == "shell":
            task = self.world.add_logged(server, runtime.id, mark, self.random.choice([0.0, 0.0, 0.2]))
        else:
            said = script({"lines": 3, "text": mark + " {n}\n"})
            task = server.add_task(runtime.id, chat_session_id=mark, chat_message=said)
        self.tasks.append((server, task))

    async def feed(self, until: float) -> None:
        while time.monotonic() < until:
            if self.open() < WAITING:
                self.add()
            if self.random.random() < 0.02:
                self.own.append(await aside(lambda: self.world.home.add("echo own", "shell")))
            await asyncio.sleep(0.03)  # the pace of the story

    # --- trouble --------------------------------------------------------------------------------------

    async def trouble(self, until: float) -> None:
        """All kinds in a random order, and again. Each leaves everything as it was."""
        kinds = [
            self.restart_server, self.revoke, self.leave_workspace, self.drop, self.cancel, self.lose_answers
        ]  # fmt: skip
        while time.monotonic() < until:
            for kind in self.random.sample(kinds, len(kinds)):
                await kind(self.random.choice(self.servers))
                self.did[kind.__name__] += 1
                await asyncio.sleep(0.3)

    async def restart_server(self, server: FakeServer) -> None:
        await server.stop()
        await asyncio.sleep(self.random.uniform(0.0, 1.0))
        await server.start()

    async def revoke(self, server: FakeServer) -> None:
        token = "mul_" + f"{self.random.getrandbits(160):040x}"
        server.tokens = {token}
        server.drop_sockets()
        await self.world.wait_status(name_of(server), "signed_out")
        body = {"url": server.url, "token": token, "store": "file"}
        await aside(lambda: self.world.home.call("POST", "/v1/connections/sign-in", body))

    async def leave_workspace(self, server: FakeServer) -> None:
        id_ = self.random.choice(list(server.workspaces))
        row = server.workspaces.pop(id_)
        await self.known_workspaces(server)
        server.workspaces[id_] = row
        await self.known_workspaces(server)

    async def known_workspaces(self, server: FakeServer) -> None:
        """Wait until the daemon knows the workspaces as they are now."""

        def known() -> bool:
            for each in self.world.home.call("GET", "/v1/connections"):
                if each["name"] == name_of(server):
                    return {one["id"] for one in each["workspaces"]} == set(server.workspaces)
            return False

        await aside(lambda: wait_until(known, "the workspaces to be known"))

    async def drop(self, server: FakeServer) -> None:
        server.drop_sockets()

    async def cancel(self, server: FakeServer) -> None:
        going = [task for of, task in self.tasks if of is server and task.status == "running"]
        for task in going[:2]:
            server.end_task(task.id)

    async def lose_answers(self, server: FakeServer) -> None:
        for route in ("claim", "claim_many", "start", "messages", "complete"):
            server.script(route, ResetAfter())

    # --- the end --------------------------------------------------------------------------------------

    def check(self) -> Counter[str]:
        """Promise P1 and P3 for every task; gives how they ended."""
        ends: Counter[str] = Counter()
        for server, task in self.tasks:
            ends[task.status] += 1
            effective = [report for report in task.reports if report.effective]
            server.check_transcript(task.id)
            assert task.starts <= 1
            if task.status == "cancelled":
                assert effective == []
            elif effective:
                server.check_terminal(task.id)
                assert effective[0].kind == "complete", effective
            else:
                # The server's own word on a claim whose answer was lost while its workspace was left.
                assert (task.status, task.starts) == ("failed", 0), task
        return ends


class Facts:
    """What a daemon holds, from outside."""

    def __init__(self, pid: int, tasks: Counter[str]) -> None:
        links = []
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(entry))
        self.sockets = sum(link.startswith("socket:") for link in links)
        self.files = Counter(link for link in links if not link.startswith("socket:"))
        self.threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        self.tasks = tasks

    def __repr__(self) -> str:
        return (
            f"{self.sockets} sockets, {sum(self.files.values())} files, {self.threads} threads, {self.tasks}"
        )


async def facts(home: HurriedHome, told: Path) -> Facts:
    """Ask the daemon for its asyncio tasks, the kernel for the rest."""
    assert home.daemon is not None
    told.unlink(missing_ok=True)
    os.kill(home.daemon.pid, signal.SIGUSR1)
    await aside(lambda: wait_until(told.exists, "the daemon to tell its tasks"))
    names = [re.sub(r"[0-9a-f-]{8,}|\d+", "#", name) for name in told.read_text().splitlines()]
    return Facts(home.daemon.pid, Counter(name for name in names if not name.startswith("Task-")))


async def settled(home: HurriedHome, told: Path, links: int) -> Facts:
    """The facts once every connection has its link: after a cut one is made again in its own time."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await facts(home, told)).tasks["link reader"] != links:  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # outside of this process
    return found


@pytest.mark.timeout(180 + 2 * SECONDS)
async def test_many_runtimes_at_several_servers_for_a_while(tmp_path: Path) -> None:
    told = tmp_path / "asyncio-tasks"
    home = HurriedHome(tmp_path, environ={"OSTLER_DAEMON_SLOTS": str(SLOTS), "OSTLER_TEST_TASKS": str(told)})
    for provider in PROVIDERS[2:]:
        install_scripted_agent(home.bin, provider, f"{provider} 2.1.0")
        file = home.directories.providers / f"{provider}.toml"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(f'extends = "claude"\nname = "{provider}"\nexecutables = ["{provider}"]\n')
    world = FaultsWorld(home)
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for count in WORKSPACES:
            server = await stack.enter_async_context(FakeServer())
            server.redeliver_s = 2.0
            server.later = count == max(WORKSPACES)
            for number in range(count):
                server.add_workspace(f"Team {number}")
            servers.append(server)
        stack.push_async_callback(aside, home.close)
        await world.start()
        for server in servers:
            await world.sign_in(server.url)
        soak = Soak(world, servers, 11)

        def registered() -> bool:
            wanted = [count * len(PROVIDERS) for count in WORKSPACES]
            online = [sum(each.online for each in server.runtimes.values()) for server in servers]
            return online == wanted

        await aside(lambda: wait_until(registered, "50 runtimes", PATIENCE_S))
        assert sum(WORKSPACES) * len(PROVIDERS) == 50
        # A first round of everything, so that what is made once is there before it is counted.
        for _ in range(20):
            soak.add()
        await aside(lambda: wait_until(lambda: soak.open() == 0, "the first tasks", PATIENCE_S))
        await world.at_rest()
        before = await settled(home, told, len(servers) + 1)

        until = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as group:
            group.create_task(soak.feed(until))
            group.create_task(soak.trouble(until))
        for server in servers:
            server.heal()
        await aside(lambda: wait_until(lambda: soak.open() == 0, "all tasks to end", PATIENCE_S))
        await world.at_rest()
        ends = soak.check()
        after = await settled(home, told, len(servers) + 1)
        said = f"{ends}, {len(soak.own)} of the hub's, {soak.did}\nbefore: {before}\nafter: {after}"
        assert ends["completed"] > SECONDS, said
        assert set(soak.did) >= {"restart_server", "revoke", "leave_workspace"}
        for task in soak.own:
            assert (await aside(functools.partial(home.wait, task)))["status"] == "completed"
        world.check_log(SLOTS)
        assert len(home.processes()) == 1
        assert after.tasks == before.tasks, said
        assert after.files == before.files, said
        assert after.threads <= before.threads + 2, said
        # Pooled connections come and go; one a task, a restart or a sign-in would be hundreds.
        assert after.sockets <= before.sockets + 25, said
        known = {row[0] for row in home.journal("SELECT task_id FROM tasks")}
        # What never came here, its server has failed itself (``check``); all the rest is in the journal.
        given = {task.id for _, task in soak.tasks if (task.status, task.starts) != ("failed", 0)}
        assert given | set(soak.own) <= known, said
        assert known <= {task.id for _, task in soak.tasks} | set(soak.own), said
