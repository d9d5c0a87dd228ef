"""The barrier among many pollers, slow claims, cancellations and updates (promise P4).

Barrier, slots, the switch and the installed versions are the real ones; pollers are loops that claim in the
real order, from a server that answers when the test wants.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon_core.tasks.barrier import Barrier, BarrierState, BarrierUpError
from daemon_core.tasks.slots import Slots
from daemon_core.updates import pointer as deciding
from daemon_core.updates.errors import UpdateError
from daemon_core.updates.switching import UPDATE_HOLDER, Limits, Switch
from daemon_core.updates.versions import Installation, Store
from tests.updates.faulty_files import MEMORY, Fault, FaultyFiles
from tests.updates.payloads import write_installation, write_payload

POLLERS = 4
OLD, NEW = "1.0", "1.1"


class Daemon:
    """One process: its barrier and what goes on in it. It is the host of its switch."""

    def __init__(self, machine: Updates, version: str, *, on_trial: bool) -> None:
        self.machine = machine
        self.version = version
        self.barrier = Barrier()
        self.on_trial = on_trial
        if on_trial:
            self.barrier.hold(UPDATE_HOLDER)
        self.slots = Slots(POLLERS - 1, {}, {})
        self.claims: dict[int, asyncio.Future[bool]] = {}
        """Claims that are on their way, by poller: whether there is a task."""
        self.records: dict[int, asyncio.Future[None]] = {}
        """Tasks that are on their way into the journal."""
        self.starts: list[asyncio.Future[None]] = []
        self.stretch: asyncio.Event = asyncio.Event()
        self.stretch.set()
        self.wakes = [asyncio.Event() for _ in range(POLLERS)]
        self.gone = False
        self.switch = Switch(
            machine.store(),
            machine.installation,
            self,
            version=version,
            profile="default",
            limits=Limits(claims_s=3600.0, stretches_s=3600.0),
        )
        self.apply: asyncio.Task[None] | None = None
        self.tasks = [machine.loop.create_task(self.poll(number)) for number in range(POLLERS)]

    # --- as the switch's host ------------------------------------------------------------------------

    async def quiet(self) -> None:
        return None

    async def between_stretches(self) -> None:
        await self.stretch.wait()

    def update_changed(self) -> None:
        return None

    def make_way(self) -> None:
        assert not self.claims, "a claim is on its way while the process goes"
        assert not self.records, "a task is not in the journal while the process goes"
        assert not self.starts, "something is being started while the process goes"
        assert self.barrier.state is BarrierState.UP
        stored = self.switch.store.stored()
        assert stored is not None
        assert stored.trial is not None
        self.gone = True

    # --- what goes on --------------------------------------------------------------------------------

    async def poll(self, number: int) -> None:
        while True:
            await self.barrier.wait_down()
            slot = await self.slots.acquire("agent")
            try:
                with self.barrier.claiming():
                    await self.claim(number)
            except (BarrierUpError, ConnectionError):
                pass
            finally:
                slot.release()
            await self.wakes[number].wait()
            self.wakes[number].clear()

    async def claim(self, number: int) -> None:
        assert self.barrier.state is BarrierState.DOWN
        assert not self.barrier.holders
        assert not self.gone
        loop = self.machine.loop
        try:
            answer = self.claims[number] = loop.create_future()
            if await answer:
                record = self.records[number] = loop.create_future()
                await record
        finally:
            self.claims.pop(number, None)
            self.records.pop(number, None)

    async def start_job(self) -> None:
        with suppress(BarrierUpError), self.barrier.starting():
            assert UPDATE_HOLDER not in self.barrier.holders
            started: asyncio.Future[None] = self.machine.loop.create_future()
            self.starts.append(started)
            try:
                await started
            finally:
                self.starts.remove(started)

    async def end(self) -> None:
        self.tasks += [self.apply] if self.apply is not None else []
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Updates(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="updates", dir=MEMORY))
        self.loop = asyncio.new_event_loop()
        # One thread: what was given to it before is done when it has done what is given to it now.
        self.loop.set_default_executor(ThreadPoolExecutor(1))
        self.installation = Installation(str(write_installation(self.root / "installed", OLD, small=True)))
        self.fault: Fault | None = None
        store = self.store()
        write_payload(Path(store.versions_dir) / NEW, NEW, small=True)
        store.change(lambda pointer: pointer)
        store.install_seed()
        self.refusals: list[str] = []
        self.run(self.start_daemon(OLD, on_trial=False))

    async def start_daemon(self, version: str, *, on_trial: bool) -> None:
        self.daemon = Daemon(self, version, on_trial=on_trial)

    def teardown(self) -> None:
        if hasattr(self, "daemon"):
            self.loop.run_until_complete(self.daemon.end())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.root)

    def store(self) -> Store:
        return Store(self.root / "app", self.installation.seed_dir(), FaultyFiles(self.fault))

    def run(self, work: object = None) -> None:
        """Until everything waits for something that only the test gives."""

        async def settle() -> None:
            if work is not None:
                await work  # type: ignore[misc]
            for _ in range(3):
                await self.loop.run_in_executor(None, lambda: None)
                for _ in range(8):
                    await asyncio.sleep(0)

        self.loop.run_until_complete(settle())

    # --- the server, the journal, jobs ---------------------------------------------------------------

    @rule(number=st.integers(0, POLLERS - 1))
    def wake(self, number: int) -> None:
        self.daemon.wakes[number].set()
        self.run()

    @precondition(lambda self: self.daemon.claims)
    @rule(data=st.data(), answer=st.sampled_from(["task", "nothing", "error"]))
    def answer(self, data: st.DataObject, answer: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.daemon.claims)))
        future = self.daemon.claims[number]
        if not future.done():
            if answer == "error":
                future.set_exception(ConnectionError())
            else:
                future.set_result(answer == "task")
        self.run()

    @precondition(lambda self: self.daemon.records)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        self.daemon.records[data.draw(st.sampled_from(sorted(self.daemon.records)))].set_result(None)
        self.run()

    @rule()
    def begin_job(self) -> None:
        self.daemon.tasks.append(self.loop.create_task(self.daemon.start_job()))
        self.run()

    @precondition(lambda self: self.daemon.starts)
    @rule()
    def job_has_begun(self) -> None:
        self.daemon.starts[0].set_result(None)
        self.run()

    @rule(number=st.integers(0, POLLERS - 1))
    def cancel_a_poller(self, number: int) -> None:
        """Its runtime is gone, and comes back."""
        self.daemon.tasks[number].cancel()
        self.run()
        self.daemon.tasks[number] = self.loop.create_task(self.daemon.poll(number))
        self.run()

    @rule(long=st.booleans())
    def stretch(self, long: bool) -> None:
        (self.daemon.stretch.clear if long else self.daemon.stretch.set)()
        self.run()

    @rule(hold=st.booleans())
    def pause(self, hold: bool) -> None:
        (self.daemon.barrier.hold if hold else self.daemon.barrier.let_go)("user")
        self.run()

    # --- updates -------------------------------------------------------------------------------------

    @rule(
        fault=st.one_of(
            st.none(),
            st.builds(
                Fault, at=st.integers(0, 8), kind=st.just("ENOSPC"), times=st.just(1), keeps=st.just(0)
            ),
        )
    )
    def update(self, fault: Fault | None) -> None:
        daemon = self.daemon
        if daemon.switch.pending is None:
            self.fault = fault
            daemon.switch.store = self.store()
            self.fault = None

        async def apply() -> None:
            try:
                await daemon.switch.apply(NEW if daemon.version == OLD else OLD, asked=True)
            except UpdateError as error:
                self.refusals.append(error.code)

        if daemon.apply is None or daemon.apply.done():
            daemon.apply = self.loop.create_task(apply())
        else:
            daemon.tasks.append(self.loop.create_task(apply()))
        self.run()

    @precondition(lambda self: self.daemon.apply is not None and not self.daemon.apply.done())
    @rule()
    def give_up_the_update(self) -> None:
        assert self.daemon.apply is not None
        if not self.daemon.gone:
            self.daemon.apply.cancel()
            self.run()
            assert self.daemon.apply.done()

    @precondition(lambda self: self.daemon.gone)
    @rule()
    def become_the_next(self) -> None:
        """The process has made way; what the launcher starts is on trial."""
        paused = "user" in self.daemon.barrier.holders
        self.loop.run_until_complete(self.daemon.end())
        store = self.store()
        trial = store.pointer().trial
        assert trial is not None
        store.change(lambda pointer: deciding.started(pointer, "default", "s", "")[0])
        self.run(self.start_daemon(trial.version, on_trial=True))
        assert not self.daemon.claims
        if paused:
            self.daemon.barrier.hold("user")

    @precondition(lambda self: self.daemon.on_trial)
    @rule(works=st.booleans())
    def decide(self, works: bool) -> None:
        store = self.store()
        trial = store.pointer().trial
        assert trial is not None
        if works:
            store.of_trial(trial.id, deciding.committed)
            self.daemon.on_trial = False
            self.daemon.barrier.let_go(UPDATE_HOLDER)
            self.run()
            return
        store.of_trial(trial.id, lambda pointer: deciding.reverted(pointer, deciding.CRASHED))
        self.loop.run_until_complete(self.daemon.end())
        self.run(self.start_daemon(store.pointer().version, on_trial=False))

    # --- always --------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_claimed_behind_the_barrier(self) -> None:
        if not hasattr(self, "daemon"):
            return
        daemon = self.daemon
        daemon.barrier.assert_valid()
        assert daemon.barrier.in_flight == len({*daemon.claims, *daemon.records}) + len(daemon.starts)
        assert len(daemon.claims) <= POLLERS - 1
        if daemon.on_trial:
            assert not daemon.claims
            assert UPDATE_HOLDER in daemon.barrier.holders
        elif daemon.switch.pending is None:
            assert UPDATE_HOLDER not in daemon.barrier.holders, "whatever breaks an update off reopens"
            trial = self.store().pointer().trial
            assert trial is None, "what was broken off leaves no trial"


TestUpdates = Updates.TestCase
TestUpdates.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
