"""Jobs without a daemon: a real journal, real shims, real commands, any number of lives of the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daemon_core.jobs.keeper import JobKeeper, JobWish
from daemon_core.jobs.notices import Notice, Notices
from daemon_core.jobs.retention import KeepRules
from daemon_core.jobs.store import JobRecord, JobStore
from daemon_core.journal import Journal
from daemon_core.processes import RunPhase, end_survivors, read_state
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.patience import Patience

PATIENCE_S = 30.0
CONVERSATION = "hub/conversation"


class JobWorld:
    """One directory of jobs. ``begin`` starts a life of the keeper, ``leave`` ends it without a word."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.work.mkdir()
        self.barrier = Barrier()
        self.rules = KeepRules()
        self.stall_s = 45.0
        self.keep_bytes = 0
        self.journal: Journal
        self.notices: Notices
        self.keeper: JobKeeper
        self.changes: list[tuple[str, str]] = []
        self.removed: list[str] = []
        self.told: list[str] = []
        self.moved = asyncio.Condition()
        self._pulse: asyncio.Event = asyncio.Event()

    async def begin(self) -> None:
        self.journal = await Journal.open(self.root / "journal.db")
        self.notices = Notices(self.journal)
        self.keeper = JobKeeper(
            store=JobStore(self.journal),
            root=self.root / "jobs",
            socket_dir=self.root / "run",
            owner=Nursery("jobs"),
            gate=self.barrier.starting,
            carry=Patience(lambda trouble: None).carry,
            watcher=self,
            told=self.told.append,
            rules=lambda: self.rules,
            stall_s=lambda: self.stall_s,
            keep_bytes=lambda: self.keep_bytes,
        )
        await self.keeper.recover()

    async def leave(self) -> None:
        await self.keeper.close()
        await self.journal.close()

    async def close(self) -> None:
        """End everything of this world."""
        await self.leave()
        jobs = self.root / "jobs"
        for place in jobs.iterdir() if jobs.exists() else ():
            state = read_state(place)
            if state.info is not None and state.phase is RunPhase.ALIVE:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state.info.pid, signal.SIGKILL)
            if state.phase is not RunPhase.ENDED:
                end_survivors(self.mark_of(place.name), state.info.cgroup if state.info else None)

    def mark_of(self, job_id: str) -> str:
        from daemon_core.processes import read_owner

        return str(read_owner(self.root / "jobs" / job_id).get("mark", ""))

    # --- told by the keeper ------------------------------------------------------------------------

    def job_changed(self, job: JobRecord) -> None:
        self.changes.append((job.id, job.status))
        self._pulse.set()

    def job_removed(self, job_id: str) -> None:
        self.removed.append(job_id)
        self._pulse.set()

    # --- what a test does --------------------------------------------------------------------------

    async def start(self, command: str, **more: Any) -> JobRecord:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root), "TERM": "xterm", **more.pop("env", {})}
        more.setdefault("conversation", CONVERSATION)
        cwd = str(more.pop("cwd", self.work))
        return await self.keeper.start(
            JobWish(command=command, cwd=cwd, env=env, id=more.pop("id", uuid.uuid4().hex), **more)
        )

    async def ended(self, job_id: str) -> JobRecord:
        assert await self.keeper.wait(job_id, PATIENCE_S), (
            f"job {job_id} did not end: {self.output(job_id)!r}"
        )
        found = await self.keeper.job(job_id)
        assert found is not None
        return found

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition (or a coroutine of one): looked at after every change, and now and then."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = condition()
                    if await found if isinstance(found, Awaitable) else found:
                        return
                    self._pulse.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._pulse.wait(), 0.02)
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE_S:.0f} s for: {what}") from None

    def output(self, job_id: str, stream: str = "stdout") -> bytes:
        try:
            return (self.root / "jobs" / job_id / stream).read_bytes()
        except FileNotFoundError:
            return b""

    async def says(self, job_id: str, text: bytes) -> None:
        """Wait until a job has written something."""
        await self.until(lambda: text in self.output(job_id), f"{text!r} of {job_id}")

    async def of(self, job_id: str) -> list[Notice]:
        return await self.notices.of_subject(job_id)
