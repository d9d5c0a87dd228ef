"""An engine in this process with everything real but the server and the agent: journal, shims, directories.

``World.life()`` is one life of a daemon; leaving it detaches as a stop does, and the next one recovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.family import Family
from daemon_core.agents.shell import ShellFamily
from daemon_core.connections.client import ServerClient
from daemon_core.connections.connection import Connection
from daemon_core.connections.timing import Timeouts, Timing
from daemon_core.journal import Journal, JournalError, TaskRecord
from daemon_core.processes.state import RunPhase, read_state
from daemon_core.processes.tree import marked
from daemon_core.runtimes.registration import RegisteredRuntime
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.launch import Launcher
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.run import end_run
from daemon_core.tasks.skills import SkillCache
from daemon_core.tasks.slots import Slots
from daemon_core.tasks.translate import Digest
from daemon_core.tasks.watchdog import WatchLimits
from daemon_core.workdirs import DirectoryLocks, TaskDirectories
from daemon_core.workdirs.environments import Environments
from tests.processes.conftest import shims_below
from tests.support.fake_server import TOKEN, FakeRuntime, FakeServer, FakeTask, eventually
from tests.support.layouts import layout_of
from tests.support.scripted_agent import install_scripted_agent, script

FAST = Timing(poll_s=0.05, status_poll_s=0.05, lease_s=0.03)
TIMEOUTS = Timeouts(control_s=2.0, connect_s=1.0, messages_s=1.0, pin_s=1.0, lease_s=1.0)
PATIENCE_S = 20.0
DAEMON_ID = "0198-daemon"


class Watching:
    """The engine's observer: what it was told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.delivered: list[str] = []
        self.trouble: list[bool] = []
        self.stretches = 0
        self.fails = False
        """Raise at every call: watching must not be able to harm."""

    def task_changed(self, life: TaskLife) -> None:
        self._maybe_fail()

    def task_stretched(self, life: TaskLife, made: Digest) -> None:
        self.stretches += 1
        self._maybe_fail()

    def task_ended(self, record: TaskRecord, server_status: str) -> None:
        self.ended.append((record.task_id, record.outcome))
        self._maybe_fail()

    def task_delivered(self, record: TaskRecord) -> None:
        self.delivered.append(record.task_id)
        self._maybe_fail()

    def journal_trouble(self, error: JournalError | None) -> None:
        self.trouble.append(error is not None)
        self._maybe_fail()

    def _maybe_fail(self) -> None:
        if self.fails:
            raise RuntimeError("an observer with a bug")


class World:
    """One machine: its directories, its server, and the engine of its present life."""

    def __init__(self, base: Path, server: FakeServer, *, slots: int = 2, timing: Timing = FAST) -> None:
        self.base = base
        self.server = server
        self.bin = base / "bin"
        self.timing = timing
        self.slots = Slots(slots)
        self.limits = WatchLimits()
        self.environ = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(base)}
        self.families: dict[str, Family] = {family.name: family for family in (ClaudeFamily(), ShellFamily())}
        self.executable = str(install_scripted_agent(self.bin))
        self.providers = ["claude", "shell"]
        self.gone: list[str] = []
        workspace = server.add_workspace(id_="ws1")
        for provider in self.providers:
            server.runtimes[provider] = FakeRuntime(
                provider, workspace, DAEMON_ID, provider, provider, "1", True
            )
        self.engine: Engine
        self.journal: Journal
        self.connection: Connection
        self.watching: Watching

    @contextlib.asynccontextmanager
    async def life(self, *, claim: bool = True, recover: bool = True, **fields: Any) -> AsyncIterator[Engine]:
        """A daemon's life: recover, then claim (unless told otherwise), at the end detach."""
        client = ServerClient(self.server.url, TOKEN, timeouts=TIMEOUTS)
        self.journal = await Journal.open(self.base / "journal.db")
        self.connection = Connection("srv", client, self.timing)
        self.watching = Watching()
        self.slots = Slots(self.slots.total, self.slots.limits)
        self.engine = Engine(
            **{
                "journal": self.journal,
                "slots": self.slots,
                "barrier": Barrier(),
                "observer": self.watching,
                "connections": {"srv": self.connection},
                "families": self.families,
                "launchers": self.launchers(),
                "task_directories": TaskDirectories(self.base / "workspaces"),
                "directory_locks": DirectoryLocks(self.base / "locks"),
                "environments": Environments(self.base / "prepared"),
                "skill_cache": SkillCache(self.base / "workspaces"),
                "watch_limits": self.limits,
                "runs_dir": self.base / "runs",
                "socket_dir": self.base / "run",
                "daemon_id": DAEMON_ID,
                "control_url": "http://127.0.0.1:1",
                "loopback_port": 1,
                "home": "",
                "profile": "default",
                "base_environment": self.environ,
                "runtime_gone": lambda runtime, at: self.gone.append(runtime.runtime_id),
                **fields,
            }
        )
        async with client:
            try:
                if recover:
                    await self.engine.recover()
                if claim:
                    self.claim()
                yield self.engine
            finally:
                await self.engine.detach()
                await self.journal.close()

    def claim(self, *providers: str) -> None:
        self.engine.set_runtimes([self.runtime(name) for name in providers or self.providers])

    def runtime(self, provider: str) -> RegisteredRuntime:
        return RegisteredRuntime(
            connection=self.connection, workspace_id="ws1", runtime_id=provider, provider=provider,
            name=provider, path=self.executable, version="1",
        )  # fmt: skip

    def launchers(self) -> dict[str, Launcher]:
        claude, shell = self.families["claude-stream-json"], self.families["plain"]
        return {
            "claude": Launcher(
                provider="claude", executable=self.executable, family=claude, layout=layout_of("claude")
            ),
            "shell": Launcher(provider="shell", executable="/bin/sh", family=shell),
        }

    # --- tasks -----------------------------------------------------------------------------------

    def add(self, *steps: dict[str, Any], provider: str = "claude", **more: Any) -> FakeTask:
        """Queue a task for the scripted agent."""
        fields = {"chat_session_id": "c1", "chat_message": script(*steps), **more}
        return self.server.add_task(provider, hint=False, **fields)

    def in_directory(self, path: Path | str, **ref: Any) -> dict[str, Any]:
        """Fields of a task that names a user directory of this machine."""
        ref = {"local_path": str(path), "daemon_id": DAEMON_ID, **ref}
        return {"project_resources": [{"id": "x", "resource_type": "local_directory", "resource_ref": ref}]}

    async def until(self, condition: Callable[[], Any]) -> None:
        await eventually(lambda: bool(condition()), PATIENCE_S)

    async def finished(self, task: FakeTask, status: str = "completed") -> None:
        """Wait until a task is over, here and there, with nothing left of it."""
        await self.until(lambda: task.status == status)
        await self.settled(task)

    async def settled(self, task: FakeTask) -> None:
        """Wait until nothing of a task is left to do here."""
        key = f"srv/{task.id}"
        await self.until(lambda: key not in self.engine.deliveries and key not in self.engine.lives)

    async def record(self, task: FakeTask) -> TaskRecord:
        found = await self.journal.task(f"srv/{task.id}")
        assert found is not None
        return found

    async def running(self, task: FakeTask) -> TaskLife:
        """Wait until the run of a task is driven."""
        key = f"srv/{task.id}"
        await self.until(lambda: key in self.engine.lives and self.engine.lives[key].driver is not None)
        return self.engine.lives[key]

    def text(self, task: FakeTask) -> str:
        lines = self.server.check_transcript(task.id)
        return "".join(line.get("content") or "" for line in lines if line["type"] == "text")

    def claims(self) -> int:
        return len(self.server.seen("claim"))

    # --- the end -----------------------------------------------------------------------------------

    async def assert_idle(self) -> None:
        """Every slot is back (a poller has one for as long as it asks) and every directory free."""
        assert self.engine.lives == {}
        assert self.engine.directory_locks._held == {}
        await self.until(lambda: self.slots.used == 0)

    async def close(self) -> None:
        """End what a failing test may have left; a passing one has left nothing."""
        left = []
        for run_dir in (self.base / "runs").glob("*"):
            if read_state(run_dir).phase in (RunPhase.ALIVE, RunPhase.LOST):
                left.append(run_dir.name)
                await end_run(run_dir, "")
        await eventually(lambda: not shims_below(self.base), PATIENCE_S)
        assert left == []


@contextlib.asynccontextmanager
async def new_world(**options: Any) -> AsyncIterator[World]:
    """A world; at its end nothing of it is left, no task, no process."""
    base = Path(tempfile.mkdtemp(prefix="ost-"))
    before = asyncio.all_tasks()
    try:
        async with FakeServer() as server:
            world = World(base, server, **options)
            yield world
            await world.close()
        assert asyncio.all_tasks() <= {*before, asyncio.current_task()}
    finally:
        shutil.rmtree(base, ignore_errors=True)


__all__ = ["DAEMON_ID", "FAST", "Watching", "World", "marked", "new_world"]
