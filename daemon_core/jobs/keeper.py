"""Keeps the jobs: starts, finds again after a restart, ends, forgets.

Exactly once: a job's directory with what is to be started comes first, then its row, then its process; the
shim refuses a second start. So whatever a crash leaves behind is either nothing (a directory without a row
that was never started) or a job that the next start takes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from daemon_core.jobs.files import JobFiles
from daemon_core.jobs.life import JobLife
from daemon_core.jobs.retention import KeepRules, due
from daemon_core.jobs.scripts import script_of
from daemon_core.jobs.stalls import STALL_S
from daemon_core.jobs.store import JobRecord, JobStore
from daemon_core.processes import NeverStarted, attach

log = logging.getLogger(__name__)

T = TypeVar("T")

PRUNE_PAUSE_S: Final = 60.0
"""After an end the files are looked at this much later: many ends are one look."""
PRUNE_LIMIT_S: Final = 3600.0
"""The longest pause between two looks while there is anything to prune: the wall clock may be set."""
RETRY_S: Final = 600.0
LIFE_PAUSE_S: Final = 5.0
PERSON_MARK: Final = "person-"
"""What the mark of a person's job begins with: it is no part of a run, and may do what the person may."""


class JobWish(msgspec.Struct, kw_only=True):
    """A job that is wanted. The environment may hold secrets; it is never in the journal."""

    command: str
    cwd: str
    env: dict[str, str]
    id: str = ""
    """Chosen by whoever asks, so that asking again after a lost answer finds the same job."""
    conversation: str = ""
    task_key: str = ""
    run_id: str = ""
    name: str = ""
    terminal: bool = True
    time_limit_s: float = 3600.0
    wake: bool = True


class TakenError(Exception):
    """The id that was asked for is another's."""


async def _nothing(task_key: str) -> None:
    return None


class Owner(Protocol):
    """Starts the tasks of this room (``tasks.owned.Nursery``)."""

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...

    async def close(self) -> None: ...


class Carry(Protocol):
    """Carries a write through a full disk (``tasks.patience.Patience.carry``)."""

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T: ...


class Watcher(Protocol):
    """Hears of every change, on the loop."""

    def job_changed(self, job: JobRecord) -> None: ...

    def job_removed(self, job_id: str) -> None: ...


class JobKeeper:
    """See the module.

    Attributes:
        lives: Jobs that have not ended, by id.
        stall_s: How long output that asks for something must not have grown before that is said.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        root: Path,
        socket_dir: Path,
        owner: Owner,
        gate: Callable[[], AbstractContextManager[None]],
        carry: Carry,
        watcher: Watcher,
        told: Callable[[str], object] = lambda conversation: None,
        expects: Callable[[str], Awaitable[None]] = _nothing,
        reach: Callable[[str], None] = lambda place: None,
        rules: Callable[[], KeepRules] = KeepRules,
        stall_s: Callable[[], float] = lambda: STALL_S,
        keep_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        Args:
            owner: Owns the tasks; closed by ``close``.
            gate: Entered around each start; raises where none may be.
            told: Hears of which conversation a job has ended or got a notice.
            expects: Hears, before it is started, which task starts a job that will wake it.
            reach: Places where tests kill the daemon.
            keep_bytes: How much of an output is kept of a job that is started now; 0: all of it.
        """
        self.store = store
        self.files = JobFiles(root)
        self.socket_dir = socket_dir
        self.carry = carry
        self.reach = reach
        self.stall_s = stall_s
        self.keep_bytes = keep_bytes
        self.lives: dict[str, JobLife] = {}
        self._owner = owner
        self._gate = gate
        self._watcher = watcher
        self._told = told
        self._expects = expects
        self._rules = rules
        self._starting: dict[str, asyncio.Task[JobRecord | Exception]] = {}
        self._prune_soon = asyncio.Event()
        self._pruning = asyncio.Lock()
        self._removing = asyncio.Lock()

    # --- start of the daemon ---------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up every job that has not ended, and what a crash has left. Before anything else of jobs."""
        known = await self.store.ids()
        for name in await asyncio.to_thread(self.files.names):
            if name not in known:
                await self._found(name)
        for job in await self.store.unfinished():
            self._begin(job, fresh=False)
        self._owner.start(self._prune_for_ever(), "retention")
        self._prune_soon.set()

    async def _found(self, job_id: str) -> None:
        """A directory that the journal knows nothing of: a start that never was, or a lost journal."""
        place = self.files.of(job_id)
        try:
            state = await attach(place)
            job = await asyncio.to_thread(self.files.owned, job_id)
            if isinstance(state, NeverStarted) or job is None:
                await asyncio.to_thread(self.files.remove, job_id)
                return
        except OSError as error:
            log.warning("the directory of job %s cannot be read: %s", job_id, error)
            return
        close = getattr(state, "close", None)
        if close is not None:
            await close()
        log.warning("job %s is in no journal; it is taken up from its directory", job_id)
        job.state = "started"
        await self.carry(lambda: self.store.add(job))

    async def close(self) -> None:
        """Let go of all; they go on. Safe to call again."""
        await self._owner.close()

    # --- starting --------------------------------------------------------------------------------

    async def start(self, wish: JobWish) -> JobRecord:
        """Start a job; returns when its process has begun (or could not be started: then it has ended).

        Asking again with the same id gives the same job. Raises what the gate raises, ``TakenError``, and
        ``OSError`` where its directory cannot be made.
        """
        job_id = wish.id or uuid.uuid4().hex
        there = self._starting.get(job_id)
        if there is not None:
            found = await asyncio.shield(there)
            return self._same(found, wish) if isinstance(found, JobRecord) else await self.start(wish)
        # Whoever asked may go away: what was begun is carried through all the same.
        starting = self._owner.start(self._tried(job_id, wish), f"start of job {job_id}")
        self._starting[job_id] = starting
        starting.add_done_callback(lambda _: self._starting.pop(job_id, None))
        found = await asyncio.shield(starting)
        if isinstance(found, JobRecord):
            return found
        raise found

    async def _tried(self, job_id: str, wish: JobWish) -> JobRecord | Exception:
        try:
            return await self._start(job_id, wish)
        except Exception as error:  # noqa: BLE001 - raised again for whoever has asked
            return error

    async def _start(self, job_id: str, wish: JobWish) -> JobRecord:
        with self._gate():
            there = await self.store.get(job_id)
            if there is not None:
                return self._same(there, wish)
            job = JobRecord(
                id=job_id,
                conversation=wish.conversation,
                task_key=wish.task_key,
                run_id=wish.run_id,
                name=wish.name,
                command=wish.command,
                cwd=wish.cwd,
                terminal=wish.terminal,
                time_limit_s=wish.time_limit_s,
                wake=wish.wake,
                created_at=_now(),
                mark=f"{'job-' if wish.conversation else PERSON_MARK}{uuid.uuid4().hex}",
            )
            if job.task_key and job.wake:
                await self._expects(job.task_key)
            await self.carry(lambda: asyncio.to_thread(self._lay_out, job, wish.env))
            self.reach("job_files")
            if not await self.carry(lambda: self.store.add(job)):
                there = await self.store.get(job_id)
                if there is None:
                    raise TakenError(job_id)
                return self._same(there, wish)
            self.reach("job_recorded")
            life = self._begin(job, fresh=True)
            self.changed(job)
            await life.begun.wait()
            if life.shim is None:
                await life.over.wait()
            return life.job

    def _lay_out(self, job: JobRecord, env: dict[str, str]) -> None:
        self.files.prepare(job, script_of(job.command, env), env)

    def _same(self, there: JobRecord, wish: JobWish) -> JobRecord:
        if there.conversation != wish.conversation or there.command != wish.command or there.removed:
            raise TakenError(there.id)
        return self.lives[there.id].job if there.id in self.lives else there

    def _begin(self, job: JobRecord, *, fresh: bool) -> JobLife:
        life = JobLife(self, job, fresh=fresh)
        self.lives[job.id] = life
        self._owner.start(self._carried(life), job.id)
        if job.removed or job.status == "killed":
            self._owner.start(life.kill(0.0), f"end of {job.id}")
        return life

    async def _carried(self, life: JobLife) -> None:
        job_id = life.job.id
        try:
            while True:
                try:
                    await life.live()
                    return
                except Exception:  # the boundary of a job: what went wrong is no reason to forget it
                    log.exception("job %s could not be looked after; that begins again", job_id)
                life.over.set()
                await asyncio.sleep(LIFE_PAUSE_S)
                life = self.lives[job_id] = JobLife(self, life.job, fresh=False)
        finally:
            self.lives.pop(job_id, None)
            life.over.set()

    # --- asking ----------------------------------------------------------------------------------

    async def job(self, job_id: str) -> JobRecord | None:
        """A job as it stands, None where there is none (any more)."""
        life = self.lives.get(job_id)
        found = life.job if life is not None else await self.store.get(job_id)
        return None if found is None or found.removed else found

    async def jobs(self, conversation: str | None = None) -> list[JobRecord]:
        """All jobs, or those of a conversation, oldest first."""
        if conversation is None:
            return await self.store.all()
        return await self.store.of_conversation(conversation)

    def going(self) -> int:
        """How many jobs go on, those that are being ended apart."""
        return sum(1 for life in self.lives.values() if life.job.status == "running" and not life.job.removed)

    async def wait(self, job_id: str, limit_s: float | None = None) -> bool:
        """Until it has ended; False if it has not after ``limit_s``."""
        life = self.lives.get(job_id)
        if life is None:
            return True
        try:
            async with asyncio.timeout(limit_s):
                await life.over.wait()
        except TimeoutError:
            return False
        return True

    async def grown(self, job_id: str, stdout_beyond: int, stderr_beyond: int, limit_s: float) -> None:
        """Until its output is longer than that, it has ended, or the time is up."""
        life = self.lives.get(job_id)
        if life is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await life.grown(stdout_beyond, stderr_beyond)

    async def outstanding(self, conversation: str) -> int:
        """How many jobs of a conversation go on that will wake it; asked of the journal, so that it is right
        before they have been taken up again, too."""
        jobs = await self.store.of_conversation(conversation)
        return sum(1 for job in jobs if job.wake and job.status == "running" and not job.ended)

    async def heard(self, job_id: str) -> None:
        """Whoever started it knows of its end: it is not told once more."""
        await self.carry(lambda: self.store.heard(job_id, _now()))
        self._prune_soon.set()

    # --- ending ----------------------------------------------------------------------------------

    async def kill(self, job_id: str) -> JobRecord | None:
        """End it with everything that it has started; from now on it is killed, however its process ends.

        Returns when that has begun (``wait`` tells its end); one that has ended is left as it is.
        """
        if await self.carry(lambda: self.store.mark_killed(job_id, _now())):
            life = self.lives.get(job_id)
            if life is not None:
                life.job.status = "killed"
                self.reach("job_kill_recorded")
                self._owner.start(life.kill(), f"end of {job_id}")
                self.changed(life.job)
        return await self.job(job_id)

    async def end_conversation(self, conversation: str) -> int:
        """The conversation is deleted: its jobs end, and nothing of them stays. Gives how many were left.

        What is begun here a restart carries on.
        """
        ids = await self.carry(lambda: self.store.give_up(conversation))
        for job_id in ids:
            life = self.lives.get(job_id)
            if life is not None:
                life.job.status, life.job.removed = "killed", True
                self._owner.start(life.kill(), f"end of {job_id}")
            self._watcher.job_removed(job_id)
        if ids:
            self._owner.start(self._clear(ids), f"jobs of {conversation}")
        return len(ids)

    async def kill_all(self, conversation: str) -> None:
        """Kill every job of a conversation that goes on, as ``kill`` does each."""
        for job in await self.store.of_conversation(conversation):
            if not job.ended:
                await self.kill(job.id)

    async def settled(self, conversation: str) -> None:
        """Until the jobs of a conversation that are here now have ended."""
        for life in list(self.lives.values()):
            if life.job.conversation == conversation:
                await life.over.wait()

    async def _clear(self, ids: list[str]) -> None:
        for job_id in ids:
            await self.wait(job_id)
            await self._remove(job_id)

    # --- retention -------------------------------------------------------------------------------

    async def prune(self, now: dt.datetime | None = None) -> dt.datetime | None:
        """Remove ended jobs whose time has come, with their files; gives when the next one's does."""
        async with self._pruning:
            for job_id in await self.store.removing():
                if job_id not in self.lives:
                    await self._remove(job_id)
            ended = await self.store.ended()
            sizes = await asyncio.to_thread(
                lambda: {job.id: self.files.used_bytes(job.id) for job, _ in ended}
            )
            going, following = due(ended, sizes, self._rules(), now or dt.datetime.now(dt.UTC))
            for job_id in going:
                if await self.store.begin_removal(job_id):
                    self.reach("job_removing")
                    self._watcher.job_removed(job_id)
                    await self._remove(job_id)
            return following

    async def _remove(self, job_id: str) -> None:
        try:
            async with self._removing:  # two at one directory would each stumble over what the other took
                await asyncio.to_thread(self.files.remove, job_id)
        except OSError as error:
            log.warning("files of job %s stay for now: %s", job_id, error)
            return
        self.reach("job_files_removed")
        await self.carry(lambda: self.store.forget(job_id))

    async def _prune_for_ever(self) -> None:
        limit_s: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._prune_soon.wait()
                await asyncio.sleep(min(PRUNE_PAUSE_S, self._rules().told_s))
            self._prune_soon.clear()
            try:
                following = await self.prune()
            except Exception:  # the boundary of a round: the next one tries again
                log.exception("jobs could not be pruned")
                limit_s = RETRY_S
                continue
            limit_s = None
            if following is not None:
                left_s = (following - dt.datetime.now(dt.UTC)).total_seconds()
                limit_s = min(max(left_s, 1.0), PRUNE_LIMIT_S)

    # --- from the lives --------------------------------------------------------------------------

    def changed(self, job: JobRecord) -> None:
        """What is shown of a job is another."""
        if not job.removed:
            self._watcher.job_changed(job)

    def told(self, job: JobRecord) -> None:
        """Its conversation has got a notice, or has nothing more to expect of it."""
        if job.conversation:
            self._told(job.conversation)

    def ended(self, life: JobLife) -> None:
        """A job's end is recorded."""
        self.lives.pop(life.job.id, None)
        self.told(life.job)
        self.changed(life.job)
        self._prune_soon.set()


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
