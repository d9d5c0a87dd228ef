"""The tasks of this daemon: takes up the unfinished ones, claims new ones, gives a view of them all.

It owns pollers, lives and deliveries. Order at the start: ``recover`` before anything is registered or
claimed. Order at the end (``stop``): barrier up, tasks between claim and spawn and between exit and outbox
get a moment, everything else is let go; runs live on under their shims.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from daemon_core.agents.family import Family
from daemon_core.connections.connection import Connection
from daemon_core.journal import Journal, JournalError, RunRecord, TaskRecord
from daemon_core.processes.client import Lost, NeverStarted, Shim, attach
from daemon_core.processes.state import read_state, remove_secrets
from daemon_core.processes.tree import end_survivors
from daemon_core.protocol.wire import Task
from daemon_core.runtimes.registration import RegisteredRuntime
from daemon_core.tasks import clock, environment
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.delivery import Delivery
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.poller import Poller
from daemon_core.tasks.run import StopReason, WatchLimits
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from daemon_core.tasks.slots import Slot, Slots
from daemon_core.tasks.translate import Digest
from daemon_core.workdirs import DirectoryLock, DirectoryLocks, TaskDirectories

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""How long a stopping daemon gives tasks between claim and spawn and between exit and outbox."""


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """How a provider is started on this machine."""

    provider: str
    executable: str
    family: Family
    model: str = ""
    args: tuple[str, ...] = ()


class Observer(Protocol):
    """Who wants to hear what happens. Called on the loop; must be quick."""

    def task_changed(self, life: TaskLife) -> None: ...

    def task_stretched(self, life: TaskLife, made: Digest) -> None: ...

    def task_ended(self, record: TaskRecord, server_status: str) -> None: ...

    def task_delivered(self, record: TaskRecord) -> None: ...

    def journal_trouble(self, error: JournalError | None) -> None: ...


@dataclass(kw_only=True)
class Engine:
    """See the module. All fields are given by the builder; nothing here reads settings or environment."""

    journal: Journal
    slots: Slots
    barrier: Barrier
    observer: Observer
    connections: Mapping[str, Connection]
    families: Mapping[str, Family]
    launchers: dict[str, Launcher]
    task_directories: TaskDirectories
    directory_locks: DirectoryLocks
    watch_limits: WatchLimits
    runs_dir: Path
    socket_dir: Path
    daemon_id: str
    control_url: str
    loopback_port: int
    home: str
    profile: str
    base_environment: Mapping[str, str]
    runtime_gone: Callable[[RegisteredRuntime, float], None]

    lives: dict[str, TaskLife] = field(default_factory=dict)
    """Tasks that have not ended here, by key."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """Deliveries of tasks that have ended here or not, by key."""
    _pollers: dict[tuple[str, str], tuple[Poller, asyncio.Task[None]]] = field(default_factory=dict)
    _lives_nursery: Nursery = field(default_factory=lambda: Nursery("lives"))
    _delivery_nursery: Nursery = field(default_factory=lambda: Nursery("deliveries"))
    _poller_nursery: Nursery = field(default_factory=lambda: Nursery("pollers"))
    _pauses: dict[str, asyncio.Event] = field(default_factory=dict)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _hold_claims: asyncio.Event = field(default_factory=asyncio.Event)
    _disk_full: bool = False
    _claims_off: bool = False
    _stopping: bool = False

    # --- start ---------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up everything unfinished: slots, directory locks and runs, then what was not delivered.

        Returns as soon as every unfinished task has its slot, its run is attached (or known to be over) and
        its directory is in the book; nothing may be registered, claimed or cleaned before.
        """
        unfinished = await self.journal.unfinished()
        for record in unfinished:
            await self._take_up(record)
        for record in await self.journal.undelivered():
            self._deliver_only(record)
        known = await self.journal.known_runs()
        await self._adopt_strangers(known)

    async def _take_up(self, record: TaskRecord) -> None:
        connection = self.connections.get(record.connection)
        runs = await self.journal.runs(record.key)
        run = next((run for run in runs if run.run_id == record.run_id), None)
        if run is None:
            run = RunRecord(run_id=record.run_id or new_run_id(), task_key=record.key, mark=record.run_id)
            await self.journal.add_run(run)
        if connection is None:
            log.warning(
                "task %s is of connection %s, which is not configured", record.task_id, record.connection
            )
            return
        slot = self.slots.adopt(record.slot, record.provider)
        claim = await asyncio.to_thread(ClaimFile(self.runs_dir / run.run_id).read)
        lock = None
        if record.directory and record.state == "started":
            lock = self.directory_locks.adopt(Path(record.directory), record.task_id)
        self._begin(connection, record, run, slot, claim, fresh=False, lock=lock)

    def _deliver_only(self, record: TaskRecord) -> None:
        connection = self.connections.get(record.connection)
        if connection is None:
            return
        delivery = Delivery(
            self.journal,
            connection.client,
            record.key,
            record.task_id,
            record.runtime_id,
            fresh=False,
            pause=lambda delay_s: self.pause(record.connection, delay_s),
            on_done=lambda verdict: self._mark_delivered(record, verdict),
        )
        delivery.ended()
        self.deliveries[record.key] = delivery
        self._delivery_nursery.start(delivery.run(), record.key)

    async def _adopt_strangers(self, known: set[str]) -> None:
        """Run directories that the journal does not know: a damaged journal's runs, or a claim cut short.

        What lives is taken up from its owner file and claim; what never started and what has ended is
        removed once it is a day old (it may hold the only trace of what happened).
        """
        names = await asyncio.to_thread(_run_directories, self.runs_dir)
        for name in names:
            if name in known:
                continue
            run_dir = self.runs_dir / name
            found = await attach(run_dir)
            if isinstance(found, NeverStarted):
                await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)
                continue
            claim = await asyncio.to_thread(ClaimFile(run_dir).read)
            owner = await asyncio.to_thread(_owner, run_dir)
            if isinstance(found, Shim):
                await found.close()
                if claim is None or owner is None or owner.connection not in self.connections:
                    log.error("run %s belongs to nobody known: it is ended", name)
                    await asyncio.to_thread(_end, run_dir, owner.mark if owner else "")
                    continue
                await self._adopt(name, owner, claim)
            elif isinstance(found, Lost):
                await asyncio.to_thread(_end, run_dir, owner.mark if owner else "")
            elif claim is not None and owner is not None and owner.connection in self.connections:
                await self._adopt(name, owner, claim)

    async def _adopt(self, run_id: str, owner: _Owner, claim: Task) -> None:
        """Rebuild what the journal lost. The transcript is read again from its beginning; the lines that the
        server has already are told apart by their numbers when they are sent (promise P3)."""
        connection = self.connections[owner.connection]
        run_dir = self.runs_dir / run_id
        family_name = owner.family
        family = self.families.get(family_name)
        if family is None:
            log.error("run %s: family %r is not known: it is ended", run_id, family_name)
            await asyncio.to_thread(_end, run_dir, owner.mark)
            return
        now = clock.now_text()
        record = self._record(connection, claim, run_id, owner.provider, slot=owner.slot)
        record.state = "started"
        record.work_dir = owner.work_dir
        record.directory = owner.directory
        record.started_at = owner.created_at or now
        run = RunRecord(
            run_id=run_id,
            task_key=record.key,
            state="spawned",
            family=family_name,
            mark=owner.mark,
            reader=family.reader().snapshot(),
            started_at=owner.created_at or now,
            note="taken up after the journal was lost",
        )
        if not await self.journal.add_task(record, run):
            return
        log.warning("run %s of task %s was taken up from its directory", run_id, claim.id)
        slot = self.slots.adopt(record.slot, record.provider)
        lock = None
        if record.directory:
            lock = self.directory_locks.adopt(Path(record.directory), record.task_id)
        self._begin(connection, record, run, slot, claim, fresh=False, lock=lock)

    # --- claims --------------------------------------------------------------------------------

    async def claims_possible(self) -> None:
        """Wait while the barrier is up or the disk is full."""
        while self._disk_full or self._stopping or self._claims_off:
            self._hold_claims.clear()
            await self._hold_claims.wait()
        await self.barrier.wait_down()

    def accept_claims(self, wanted: bool) -> None:
        """The setting: whether this machine takes tasks at all."""
        self._claims_off = not wanted
        if wanted:
            self._hold_claims.set()

    async def accept(self, task: Task, runtime: RegisteredRuntime, slot: Slot) -> bool:
        """Record a claim and begin its life; the slot is its then. False for one that is here already."""
        key = f"{runtime.connection.name}/{task.id}"
        life = self.lives.get(key)
        if life is not None:
            # Handed out again (our lease was late, or an answer was lost): it is being worked on.
            log.info("task %s was handed out again; it is here already", task.id)
            if life.claim is not None and task.auth_token and life.record.state != "started":
                life.claim = task
                await asyncio.to_thread(ClaimFile(life.run_dir).write, task)
            return False
        run_id = new_run_id()
        record = self._record(runtime.connection, task, run_id, runtime.provider, slot=slot.number)
        record.runtime_id = runtime.runtime_id
        run = RunRecord(run_id=run_id, task_key=key, mark=new_run_id())
        # The token first, in its own 0600 file: a claim in the journal can always be begun.
        await self.patiently(lambda: asyncio.to_thread(ClaimFile(self.runs_dir / run_id).write, task))
        reach("claim_file")
        added = False

        async def add() -> None:
            nonlocal added
            added = await self.journal.add_task(record, run)

        await self.patiently(add)
        reach("claim_recorded")
        if not added:
            await asyncio.to_thread(shutil.rmtree, self.runs_dir / run_id, ignore_errors=True)
            return False
        self._begin(runtime.connection, record, run, slot, task, fresh=True)
        return True

    def set_runtimes(self, runtimes: Iterable[RegisteredRuntime]) -> None:
        """These runtimes are registered now: one poller each. Running tasks of others go on."""
        wanted = {
            (runtime.connection.name, runtime.runtime_id): runtime
            for runtime in runtimes
            if runtime.claimable
        }
        for key in [key for key in self._pollers if key not in wanted]:
            _, task = self._pollers.pop(key)
            task.cancel()
        if self._stopping:
            return
        for key, runtime in wanted.items():
            if key in self._pollers:
                self._pollers[key][0].runtime = runtime
                continue
            poller = Poller(self, runtime)
            self._pollers[key] = (poller, self._poller_nursery.start(poller.run(), f"{runtime.provider}"))
            poller.wake()

    def wake(self, connection: str, runtime_id: str | None = None) -> None:
        """A hint that there is a task: for one runtime, or for all of a connection."""
        for (name, there), (poller, _) in self._pollers.items():
            if name == connection and runtime_id in (None, "", there):
                poller.wake()

    def reconcile(self, connection: str, task_id: str | None = None) -> None:
        """Look at the server's word on a task (or all of a connection) now, and retry what was waiting."""
        for life in self.lives.values():
            if life.record.connection == connection and task_id in (None, "", life.record.task_id):
                life.look_now()
        if not task_id:
            event = self._pauses.pop(connection, None)
            if event is not None:
                event.set()

    async def pause(self, connection: str, delay_s: float) -> None:
        """Wait before another try at a server, shorter if the connection comes back meanwhile."""
        event = self._pauses.setdefault(connection, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await event.wait()

    # --- questions -----------------------------------------------------------------------------

    def family(self, name: str) -> Family | None:
        """A protocol family by name."""
        return self.families.get(name)

    def launcher(self, provider: str) -> Launcher | None:
        """How a provider is started, or None if it is not here."""
        return self.launchers.get(provider)

    def active_runs(self) -> int:
        """Runs that live now."""
        return sum(1 for life in self.lives.values() if life.record.state == "started")

    def known_tasks(self, connection: str) -> list[str]:
        """Ids of a connection's tasks that are worked on here, or whose reports are still on their way."""
        prefix = f"{connection}/"
        keys = self.lives.keys() | self.deliveries.keys()
        return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]

    def undelivered(self) -> int:
        """Tasks whose reports a server does not take at present."""
        return sum(1 for delivery in self.deliveries.values() if delivery.trouble is not None)

    def remove_run(self, run_id: str) -> None:
        """Remove the directory of a run that is over (touches the disk: in a thread)."""
        shutil.rmtree(self.runs_dir / run_id, ignore_errors=True)

    def has_live_run(self, connection: str, runtime_id: str) -> bool:
        """Whether a runtime has a task here that has not ended at its server: worked on, or its result on
        its way. A server's "fail everything of this runtime" would hit it."""
        prefix = f"{connection}/"
        return any(
            key.startswith(prefix) and delivery.runtime_id == runtime_id
            for key, delivery in self.deliveries.items()
        )

    # --- stop ----------------------------------------------------------------------------------

    async def stop(self, *, end_runs: bool, deadline_s: float) -> int:
        """Stop in order; gives the number of runs that go on without the daemon."""
        self._stopping = True
        self.barrier.hold("stop")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self.barrier.wait_up()
        await self._poller_nursery.close()
        self._pollers.clear()
        if end_runs:
            for life in list(self.lives.values()):
                life.stop(StopReason.DAEMON)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s if end_runs else SETTLE_S):
                while any(life.between or end_runs for life in self.lives.values()):
                    self._settled.clear()
                    await self._settled.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self.deliveries and not all(
                    delivery.trouble is not None or key in self.lives
                    for key, delivery in self.deliveries.items()
                ):
                    self._settled.clear()
                    await self._settled.wait()
        left = self.active_runs()
        await self.detach()
        return left

    async def detach(self) -> None:
        """Let go of everything at once; runs go on under their shims. Safe to call again."""
        self._stopping = True
        for nursery in (self._poller_nursery, self._lives_nursery, self._delivery_nursery):
            await nursery.close()

    # --- from the lives ------------------------------------------------------------------------

    def changed(self, life: TaskLife) -> None:
        self._settled.set()
        self.observer.task_changed(life)

    def stretched(self, life: TaskLife, made: Digest) -> None:
        self.observer.task_stretched(life, made)

    def ended(self, life: TaskLife) -> None:
        self.lives.pop(life.record.key, None)
        self._settled.set()
        self.observer.task_ended(life.record, life.server_status)

    def delivered(self, life: TaskLife, verdict: str) -> None:
        self._mark_delivered(life.record, verdict)

    def journal_trouble(self, error: JournalError | None) -> None:
        """The journal cannot be written (no claims meanwhile), or can again."""
        self._disk_full = error is not None
        if error is None:
            self._hold_claims.set()
        self.observer.journal_trouble(error)

    async def patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Carry a write through a full disk: nothing else can be done with the task until it is recorded."""
        delay_s = 0.5
        troubled = False
        while True:
            try:
                await work()
            except JournalError as error:
                if not error.full:
                    raise
                troubled = True
                self.journal_trouble(error)
            except OSError as error:
                troubled = True
                self.journal_trouble(JournalError(str(error), full=True))
            else:
                if troubled:
                    self.journal_trouble(None)
                return
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 30.0)

    # --- inside --------------------------------------------------------------------------------

    def _begin(
        self,
        connection: Connection,
        record: TaskRecord,
        run: RunRecord,
        slot: Slot,
        claim: Task | None,
        *,
        fresh: bool,
        lock: DirectoryLock | None = None,
    ) -> None:
        life = TaskLife(self, connection, record, run, slot, claim, fresh=fresh)
        life.lock = lock
        self.lives[record.key] = life
        self.deliveries[record.key] = life.delivery
        self._delivery_nursery.start(life.delivery.run(), record.key)
        self._lives_nursery.start(life.live(), record.key)
        self.observer.task_changed(life)

    def _record(
        self, connection: Connection, task: Task, run_id: str, provider: str, *, slot: int
    ) -> TaskRecord:
        agent = task.agent
        return TaskRecord(
            key=f"{connection.name}/{task.id}",
            connection=connection.name,
            task_id=task.id,
            runtime_id=task.runtime_id,
            workspace_id=task.workspace_id,
            provider=provider,
            kind=environment.kind_of(task),
            conversation_id=environment.conversation_of(task),
            title=environment.title_of(task),
            agent_id=task.agent_id,
            agent_name=agent.name if agent else "",
            model=(agent.model or "") if agent else "",
            slot=slot,
            run_id=run_id,
            claimed_at=clock.now_text(),
        )

    def _mark_delivered(self, record: TaskRecord, verdict: str) -> None:
        self.deliveries.pop(record.key, None)
        record.delivery = verdict
        self._settled.set()
        self._delivery_nursery.start(self._keep_delivered(record, verdict), f"mark {record.key}")

    async def _keep_delivered(self, record: TaskRecord, verdict: str) -> None:
        await self.patiently(lambda: self.journal.update_task(record.key, delivery=verdict))
        self.observer.task_delivered(record)


class _Owner(msgspec.Struct, kw_only=True):
    """What a run directory says of whose it is."""

    task_id: str = ""
    connection: str = ""
    runtime_id: str = ""
    provider: str = ""
    family: str = ""
    work_dir: str = ""
    directory: str = ""
    slot: int = 0
    created_at: str = ""
    mark: str = ""


def _owner(run_dir: Path) -> _Owner | None:
    try:
        return msgspec.json.decode((run_dir / "owner.json").read_bytes(), type=_Owner)
    except (OSError, msgspec.DecodeError):
        return None


def _end(run_dir: Path, mark: str) -> None:
    info = read_state(run_dir).info
    end_survivors(mark, info.cgroup if info is not None else None)
    remove_secrets(run_dir)


def _run_directories(runs_dir: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(runs_dir) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
