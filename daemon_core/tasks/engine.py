"""The tasks of this daemon: takes up the unfinished ones, claims new ones, gives a view of them all.

It owns pollers, lives and deliveries. Order at the start: ``recover`` before anything is registered or
claimed. Order at the end (``stop``): barrier up, tasks between claim and spawn and between exit and outbox
get a moment, everything else is let go; runs live on under their shims.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from daemon_core.agents.family import Family
from daemon_core.connections.connection import Connection
from daemon_core.jobs.keeper import JobKeeper
from daemon_core.journal import Journal, JournalError, RunRecord, TaskRecord
from daemon_core.processes.state import RunPhase, read_state
from daemon_core.protocol.wire import Task
from daemon_core.runtimes.registration import LivingRuntime, RegisteredRuntime
from daemon_core.tasks import clock, prompts
from daemon_core.tasks.accounts import AccountLimits
from daemon_core.tasks.barrier import Barrier, BarrierState
from daemon_core.tasks.delivery import Delivery
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.keeping import FOR_SLOT
from daemon_core.tasks.launch import Launcher
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.orphans import LostClaims
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.patience import Patience
from daemon_core.tasks.poller import Poller
from daemon_core.tasks.recovery import Recovery, mark_reported
from daemon_core.tasks.repositories import TaskRepositories
from daemon_core.tasks.room import RoomGuard
from daemon_core.tasks.run import StopReason
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from daemon_core.tasks.skills import SkillCache
from daemon_core.tasks.slots import Slot, Slots
from daemon_core.tasks.spending import SpendBook
from daemon_core.tasks.sweeper import Sweeper
from daemon_core.tasks.translate import Digest
from daemon_core.tasks.watchdog import WatchLimits
from daemon_core.workdirs import DirectoryLock, DirectoryLocks, TaskDirectories
from daemon_core.workdirs.changes import ChangeStore
from daemon_core.workdirs.environments import Environments

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 5.0
"""How long a stopping daemon gives tasks between claim and spawn and between exit and outbox."""


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
    environments: Environments
    skill_cache: SkillCache
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
    permissions: Callable[[str], str] = lambda provider: "allow"
    """The permission policy of a provider's runs, as the settings are now."""
    accounts: AccountLimits | None = None
    """Providers for which nothing is claimed, since their account has met a limit."""
    resume_after_limit: Callable[[str], bool] = lambda provider: False
    """Whether a provider's tasks go on by themselves when a usage limit has reset."""
    offers_mcp: Callable[[str], bool] = lambda provider: True
    """Whether a provider's runs are given Ostler's own MCP server."""
    repositories: TaskRepositories | None = None
    changes: ChangeStore | None = None
    """Where it is kept what tasks change; None: it is not."""
    profile_launcher: Callable[[str, str], Launcher | None] = lambda connection, runtime_id: None
    """How a custom profile's runtime (of a connection, by id) is started; None for every other."""
    agent_missing: Callable[[str], None] = lambda provider: None
    """Hears that the program of a provider was not there when it was to be started."""
    room: RoomGuard | None = None
    spending: SpendBook | None = None
    """Holds claims while a disk is nearly full; None: nothing does."""

    jobs: JobKeeper | None = None
    """The jobs of this machine; the builder sets it."""
    follow_up: FollowUp | None = None
    """Gives notices to the agents they are for; None: nobody does. The builder sets it: it needs this."""

    may_hand_on: Callable[[TaskRecord], bool] = lambda record: True
    """Whether a task may hand on work to other agents, so that it is told how."""

    lives: dict[str, TaskLife] = field(default_factory=dict)
    """Tasks that have not ended here, by key."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """Deliveries of tasks that have ended here or not, by key."""
    _accepting: set[str] = field(default_factory=set)
    """Tasks whose claim is being recorded right now, by key."""
    _left: set[str] = field(default_factory=set)
    """Tasks that could not be brought to their end in this life of the daemon, by key."""
    _pollers: dict[tuple[str, str], tuple[Poller, asyncio.Task[None]]] = field(default_factory=dict)
    _sweepers: dict[str, tuple[Sweeper, asyncio.Task[None]]] = field(default_factory=dict)
    """By connection; none at the embedded hub, which tells everything by itself."""
    _lives_nursery: Nursery = field(default_factory=lambda: Nursery("lives"))
    _delivery_nursery: Nursery = field(default_factory=lambda: Nursery("deliveries"))
    _poller_nursery: Nursery = field(default_factory=lambda: Nursery("pollers"))
    _aside_nursery: Nursery = field(default_factory=lambda: Nursery("beside"))
    _pauses: dict[str, asyncio.Event] = field(default_factory=dict)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _hold_claims: asyncio.Event = field(default_factory=asyncio.Event)
    _claims_off: bool = False
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.patience = Patience(self._journal_trouble)
        self.lost = LostClaims(self)

    # --- start ---------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up everything unfinished: slots, directory locks and runs, then what was not delivered.

        Returns as soon as every unfinished task has its slot and every live run its directory in the book;
        nothing may be registered, claimed or cleaned before.
        """
        await Recovery(self).run()

    async def end_claims(self, connection: str) -> None:
        """No more claims for this connection: its pollers end, and a claim on its way is let come home.

        They stay ended until ``set_runtimes`` is told other runtimes of it.
        """
        waiting = []
        for key in [key for key in self._pollers if key[0] == connection]:
            poller, task = self._pollers.pop(key)
            if not poller.retire():
                task.cancel()
            waiting.append(task)
        if (swept := self._retire_sweeper(connection)) is not None:
            waiting.append(swept)
        if waiting:
            await asyncio.wait(waiting)

    async def give_up(self, connection: str, limit_s: float) -> int | None:
        """End this connection's tasks here, whatever its server says to it.

        Runs are ended; reports that the server does not take in time are given up, so that nothing of the
        connection is left here. What the tasks said and did is kept.

        Args:
            limit_s: how long runs may take to end, and then their reports to be delivered.

        Returns:
            Number of tasks whose reports were given up; None if a run does not end: nothing was given up.
        """
        prefix = f"{connection}/"

        def of_it(keys: Iterable[str]) -> list[str]:
            return [key for key in keys if key.startswith(prefix)]

        for key in of_it(self.lives):
            self.lives[key].stop(StopReason.DAEMON)
        for wanted in (self.lives, self.deliveries):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while of_it(wanted) and not (
                        wanted is self.deliveries
                        and all(self.deliveries[key].trouble is not None for key in of_it(wanted))
                    ):
                        self._settled.clear()
                        await self._settled.wait()
        if of_it(self.lives) or of_it(self._left):
            return None
        left = of_it(self.deliveries)
        for key in left:
            self.deliveries[key].give_up()
        while of_it(self.deliveries):
            self._settled.clear()
            await self._settled.wait()
        return len(left)

    def deliver_only(self, record: TaskRecord) -> None:
        """Send what is left of a task that has ended here."""
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
            patience=self.patience,
            pause=lambda delay_s: self.pause(record.connection, delay_s),
            on_done=lambda verdict: self.delivered(record, verdict),
        )
        delivery.ended()
        self.deliveries[record.key] = delivery
        self._delivery_nursery.start(delivery.run(), record.key)

    # --- claims --------------------------------------------------------------------------------

    @property
    def claims_held(self) -> bool:
        """Whether something else than the barrier is against claiming: no room to record it, the setting,
        the end of the daemon."""
        return self.patience.troubled or self._stopping or self._claims_off

    async def claims_possible(self) -> None:
        """Wait while the barrier is up, claims are held, enough was spent today, or there is no room on the
        disk."""
        while True:
            while self.claims_held or self.barrier.state is not BarrierState.DOWN:
                self._hold_claims.clear()
                if self.claims_held:
                    await self._hold_claims.wait()
                await self.barrier.wait_down()
            if self.spending is not None and self.spending.held:
                await self.spending.wait()
                continue
            if self.room is None or await self.room.enough():
                return
            await self.room.wait()

    def watch_by(self, limits: WatchLimits) -> None:
        """The settings have changed: these limits hold for runs that go on, too."""
        self.watch_limits = limits
        for life in self.lives.values():
            if life.driver is not None:
                life.driver.watchdog.limits = limits
                life.driver.watchdog.heard_of()

    def accept_claims(self, wanted: bool) -> None:
        """The setting: whether this machine takes tasks at all."""
        self._claims_off = not wanted
        if wanted:
            self._hold_claims.set()

    async def accept(self, task: Task, runtime: RegisteredRuntime, slot: Slot) -> bool:
        """Record a claim and begin its life; the slot is its then. False for one that is here already.

        Waits while the disk is full. Raises ``OSError`` if the claim cannot be kept at all, and
        ``JournalError`` for a damaged journal: the server then hands it out again.
        """
        key = f"{runtime.connection.name}/{task.id}"
        if key in self._accepting:
            # Twice at once (the first answer was slow, or came twice): two lives of a task are one too many.
            log.info("task %s was handed out again while its claim is recorded", task.id)
            return False
        self._accepting.add(key)
        try:
            return await self._accept(key, task, runtime, slot)
        finally:
            self._accepting.discard(key)

    async def _accept(self, key: str, task: Task, runtime: RegisteredRuntime, slot: Slot) -> bool:
        life = self.lives.get(key)
        if life is not None:
            # Handed out again (our lease was late, or an answer was lost): it is being worked on.
            log.info("task %s was handed out again; it is here already", task.id)
            await life.renew_claim(task)
            return False
        delivery = self.deliveries.get(key)
        if delivery is not None:
            # It has ended here and its result is on the way. Our word stands: it is not done twice. (One that
            # was left as it is, is the next start's.)
            log.info("task %s was handed out again; its result is on its way", task.id)
            delivery.wake()
            return False
        run_id = new_run_id()
        record = self.record_of(runtime.connection, task, run_id, runtime.provider, slot=slot.number)
        record.runtime_id = runtime.runtime_id
        run = RunRecord(run_id=run_id, task_key=key, mark=new_run_id())
        # The token first, in its own 0600 file: a claim in the journal can always be begun.
        claim_file = ClaimFile(self.runs_dir / run_id)
        await self.patience.carry(lambda: asyncio.to_thread(claim_file.write, task))
        reach("claim_file")
        added = await self.patience.carry(lambda: self.journal.add_task(record, run))
        reach("claim_recorded")
        if added:
            if self.follow_up is not None:
                await self.patience.carry(lambda: self._person_spoke(record, task))
            self.slots.try_model(slot, self.model_of(record))  # else it waits for it, and says so
            self.begin(runtime.connection, record, run, slot, task, fresh=True)
            return True
        await asyncio.to_thread(shutil.rmtree, claim_file.run_dir, ignore_errors=True)
        return await self._take_up_again(key, task, slot)

    async def _person_spoke(self, record: TaskRecord, task: Task) -> None:
        assert self.follow_up is not None
        await self.follow_up.accepted(record, task)

    async def _take_up_again(self, key: str, task: Task, slot: Slot) -> bool:
        """The journal has a task unfinished that nobody here works on: whoever did has failed."""
        record = await self.journal.task(key)
        if record is None or record.state == "ended" or key in self.lives:
            return False
        log.warning("task %s was left behind here; it is taken up again", task.id)
        recovery = Recovery(self)
        prepared = await recovery.prepare(record, slot)
        if prepared is None or key in self.lives:
            return False
        if prepared.claim is not None:
            prepared.claim = task
        recovery.begin(prepared)
        return True

    def set_runtimes(self, runtimes: Iterable[RegisteredRuntime]) -> None:
        """These runtimes are registered now: one poller each. Running tasks of others go on."""
        wanted = {
            (runtime.connection.name, runtime.runtime_id): runtime
            for runtime in runtimes
            if runtime.claimable
        }
        for key in [key for key in self._pollers if key not in wanted]:
            poller, task = self._pollers.pop(key)
            if not poller.retire():
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
        there = {name: each.connection for (name, _), each in wanted.items()}
        for name in self._sweepers.keys() - there.keys():
            self._retire_sweeper(name)
        for name, connection in there.items():
            if name not in self._sweepers and not connection.timing.loopback:
                sweeper = Sweeper(self, connection)
                self._sweepers[name] = (sweeper, self._poller_nursery.start(sweeper.run(), f"all of {name}"))

    def _retire_sweeper(self, connection: str) -> asyncio.Task[None] | None:
        """It ends at once, or after the claim that is on its way; gives its task."""
        if (found := self._sweepers.pop(connection, None)) is None:
            return None
        sweeper, task = found
        if not sweeper.retire():
            task.cancel()
        return task

    def swept(self, connection: str) -> bool:
        """Whether one request asks for all runtimes of a connection at the interval."""
        found = self._sweepers.get(connection)
        return found is not None and found[0].active

    def pollers(self, connection: str) -> list[Poller]:
        """Who claims at a connection."""
        return [poller for (name, _), (poller, _) in self._pollers.items() if name == connection]

    def poller(self, connection: str, runtime_id: str) -> Poller | None:
        """Who claims for a runtime; None: nobody does now."""
        found = self._pollers.get((connection, runtime_id))
        return found[0] if found is not None else None

    def beside_pollers(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start something that claims; it ends when the claims do."""
        return self._poller_nursery.start(work, name)

    def default_model(self, provider: str) -> str:
        """What a task of a provider gets that names no model, as far as this machine decides it."""
        launcher = self.launchers.get(provider)
        return launcher.model if launcher is not None else ""

    def model_of(self, record: TaskRecord) -> str:
        """The model that a task counts for."""
        launcher = self.launcher(record)
        return record.model or (launcher.model if launcher is not None else "")

    def wake(self, connection: str, runtime_id: str | None = None) -> None:
        """A hint that there is a task: for one runtime, or for all of a connection."""
        found = self._sweepers.get(connection)
        if not runtime_id and found is not None:
            found[0].wake()
            if found[0].active:
                return
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
        there = self.connections.get(connection)
        if there is not None and not there.usable:
            await there.wait_usable()  # a refused credential is waited out, not tried again and again
            return
        event = self._pauses.setdefault(connection, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await event.wait()

    # --- questions -----------------------------------------------------------------------------

    def family(self, name: str) -> Family | None:
        """A protocol family by name."""
        return self.families.get(name)

    def launcher(self, record: TaskRecord) -> Launcher | None:
        """How the agent of a task is started, or None if it is not here."""
        profile = self.profile_launcher(record.connection, record.runtime_id)
        return profile or self.launchers.get(record.provider)

    def active_runs(self) -> int:
        """Runs that live now."""
        return sum(1 for life in self.lives.values() if life.record.state == "started" and not life.waiting)

    def waiting_for_resources(self) -> int:
        """Tasks that cannot go on for want of something: their directory, a run of their model, a slot."""
        return sum(
            1
            for life in self.lives.values()
            if life.record.state == "waiting_directory" or life.waiting_model or life.waiting == FOR_SLOT
        )

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

    def living_runtimes(self, connection: str) -> list[LivingRuntime]:
        """The runtimes of a connection that have tasks here which have not ended."""
        records = [life.record for life in self.lives.values()]
        return [
            LivingRuntime(record.workspace_id, record.runtime_id, record.provider)
            for record in records
            if record.connection == connection
        ]

    # --- moments -------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Until no task is worked on here (one that is kept open for its jobs needs nothing)."""
        await self._until(lambda: not any(not life.waiting for life in self.lives.values()))

    async def between_stretches(self) -> None:
        """Until no task is in one of the short stretches before its spawn or after its exit."""
        await self._until(lambda: not any(life.between for life in self.lives.values()))

    async def attached(self) -> None:
        """Until every run that lives is read and watched again after a start."""

        def living() -> list[TaskLife]:
            return [
                life
                for life in self.lives.values()
                if read_state(life.run_dir).phase is RunPhase.ALIVE and not life.waiting
            ]

        for life in await asyncio.to_thread(living):
            await self._until(functools.partial(self._is_attached, life))

    def _is_attached(self, life: TaskLife) -> bool:
        return life.driver is not None or life.waiting != "" or self.lives.get(life.record.key) is not life

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._settled.clear()
            await self._settled.wait()

    # --- stop ----------------------------------------------------------------------------------

    async def stop(
        self,
        *,
        end_runs: bool,
        deadline_s: float,
        deliver_s: float = SETTLE_S,
        settle_s: float = SETTLE_S,
    ) -> int:
        """Stop in order; gives the number of runs that go on without the daemon.

        Args:
            end_runs: end them, too, and wait up to ``deadline_s`` for it.
            deliver_s: how long reports that are on their way are waited for; the rest goes after a start.
            settle_s: how long tasks between claim and spawn and between exit and outbox are waited for.
        """
        self._stopping = True
        self.barrier.hold("stop")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self.barrier.wait_up()
        await self._poller_nursery.close()
        self._pollers.clear()
        self._sweepers.clear()
        if end_runs:
            for life in list(self.lives.values()):
                life.stop(StopReason.DAEMON)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s if end_runs else settle_s):
                while any(life.between or end_runs for life in self.lives.values()):
                    self._settled.clear()
                    await self._settled.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deliver_s):
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
        for nursery in (
            self._poller_nursery, self._lives_nursery, self._delivery_nursery, self._aside_nursery
        ):  # fmt: skip
            await nursery.close()

    def beside_all(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start something that nobody waits for; it ends with the engine at the latest."""
        self._aside_nursery.start(work, name)

    # --- from the lives ------------------------------------------------------------------------

    def changed(self, life: TaskLife) -> None:
        self._settled.set()
        self._tell(lambda: self.observer.task_changed(life))

    def stretched(self, life: TaskLife, made: Digest) -> None:
        self._tell(lambda: self.observer.task_stretched(life, made))

    def ended(self, life: TaskLife) -> None:
        self.lives.pop(life.record.key, None)
        self._settled.set()
        self._tell(lambda: self.observer.task_ended(life.record, life.server_status))
        self._look_after(life.record)

    def left_behind(self, life: TaskLife) -> None:
        """A life could not be brought to its end, nor its task: the next start takes it up. What there is to
        deliver of it goes on being delivered."""
        self.lives.pop(life.record.key, None)
        self._left.add(life.record.key)
        self._settled.set()

    async def delivered(self, record: TaskRecord, verdict: str) -> None:
        """Everything of a task is at its server, or moot: nothing of it is left to do."""
        await self.patience.carry(lambda: self.journal.update_task(record.key, delivery=verdict))
        record.delivery = verdict
        await asyncio.to_thread(mark_reported, self.runs_dir / record.run_id)
        self.deliveries.pop(record.key, None)
        self._settled.set()
        self._tell(lambda: self.observer.task_delivered(record))
        self._look_after(record)

    def _look_after(self, record: TaskRecord) -> None:
        """Where something is to be told in its conversation, it may be possible now."""
        if self.follow_up is not None and not self._stopping:
            self.follow_up.task_over(record)

    def _journal_trouble(self, error: JournalError | None) -> None:
        """The journal cannot be written (no claims meanwhile), or can again."""
        if self.room is not None:
            self.room.look_again()
        if error is None:
            self._hold_claims.set()
        self._tell(lambda: self.observer.journal_trouble(error))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:  # somebody who only watches must not end a task
            log.exception("an observer failed")

    # --- inside --------------------------------------------------------------------------------

    def begin(
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
        """Start life and delivery of a task that is in the journal; slot and lock are the life's then."""
        life = TaskLife(self, connection, record, run, slot, claim, fresh=fresh, lock=lock)
        self.lives[record.key] = life
        self.deliveries[record.key] = life.delivery
        self._delivery_nursery.start(life.delivery.run(), record.key)
        self._lives_nursery.start(life.live(), record.key)
        self.changed(life)

    def record_of(
        self, connection: Connection, task: Task, run_id: str, provider: str, *, slot: int
    ) -> TaskRecord:
        """The journal's row of a task as claimed."""
        agent = task.agent
        return TaskRecord(
            key=f"{connection.name}/{task.id}",
            connection=connection.name,
            task_id=task.id,
            runtime_id=task.runtime_id,
            workspace_id=task.workspace_id,
            provider=provider,
            kind=prompts.kind_of(task),
            conversation_id=prompts.conversation_of(task),
            title=prompts.title_of(task),
            agent_id=task.agent_id,
            agent_name=agent.name if agent else "",
            model=(agent.model or "") if agent else "",
            slot=slot,
            run_id=run_id,
            claimed_at=clock.now_text(),
        )
