"""What goes on beside the runs of tasks: background jobs, tasks that were handed on, residents.

Who has begun such work is told when it has ended, and woken for it; so jobs, handed-on tasks and notices know
of one another, through here alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from daemon_core.agents_here import AgentsHere
from daemon_core.closing import limited
from daemon_core.control.facade import Facade
from daemon_core.control.resident_desk import BarrierGate
from daemon_core.hub import Hub
from daemon_core.hub.errors import ConflictError, InvalidInputError, NotFoundError
from daemon_core.in_force import InForce
from daemon_core.jobs.keeper import JobKeeper
from daemon_core.jobs.notices import Notices
from daemon_core.jobs.residents.house import House
from daemon_core.jobs.store import JobStore
from daemon_core.servers import HUB_NAME
from daemon_core.settings.directories import Directories
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.delegation import Delegations
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.owned import Nursery

log = logging.getLogger("ostler")


class SideWork:
    """See the module. What it makes is closed by the stack that it is made on.

    Args:
        resident_locks: One lock for each resident's id, for all profiles and homes of this user.

    Attributes:
        residents: None until they are taken up.
    """

    def __init__(
        self,
        directories: Directories,
        environ: Mapping[str, str],
        *,
        in_force: InForce,
        facade: Facade,
        agents: AgentsHere,
        barrier: Barrier,
        resident_locks: Path,
    ) -> None:
        self._directories = directories
        self._environ = environ
        self._in_force = in_force
        self._facade = facade
        self._agents = agents
        self._barrier = barrier
        self._resident_locks = resident_locks
        self.residents: House | None = None
        self._jobs: JobKeeper | None = None
        self._follow_up: FollowUp | None = None
        self._delegations: Delegations | None = None
        self._handed_on_known = asyncio.Event()
        """Set when what tasks have handed on has been taken up."""
        facade.job_desk.time_limit_s = lambda: in_force.settings.jobs.time_limit
        facade.job_desk.environment = in_force.base_environment

    # --- taken up, in this order -----------------------------------------------------------------

    async def open_jobs(self, engine: Engine, stack: AsyncExitStack) -> None:
        """Take up the jobs of before the start; before the tasks, which may wait for them."""
        self._jobs = engine.jobs = JobKeeper(
            store=JobStore(engine.journal),
            root=self._directories.jobs,
            socket_dir=self._directories.run,
            owner=Nursery("jobs"),
            gate=self._barrier.starting,
            carry=engine.patience.carry,
            watcher=self._facade.job_desk,
            told=self._job_told,
            expects=self._expects_job,
            reach=reach,
            rules=self._in_force.job_rules,
            stall_s=lambda: self._in_force.settings.jobs.stall,
            keep_bytes=lambda: self._in_force.settings.jobs.output_limit,
        )
        stack.push_async_callback(limited, self._jobs.close, "the jobs")
        await self._jobs.recover()

    def open_follow_up(self, engine: Engine) -> None:
        """Who wakes conversations; it waits until the tasks are taken up."""
        self._follow_up = engine.follow_up = self._facade.follow_up = FollowUp(
            engine,
            Notices(engine.journal),
            wake_hub=self._wake_hub,
            wake_limit=lambda: self._in_force.settings.jobs.wake_limit,
            keep_open=lambda: self._in_force.settings.jobs.keep_open,
            keep_open_for_s=lambda: self._in_force.settings.jobs.keep_open_for,
            outstanding=self._outstanding,
            on_held=self._facade.news.conversation_held,
            on_given_up=self._child_changed,
        )

    async def end_jobs_of_deleted(self, hub: Hub) -> None:
        """A death between the deletion of a conversation and the end of its jobs is made good. (Not where the
        hub has lost its memory: then nothing was deleted by anybody.)"""
        assert self._jobs is not None
        if hub.damage is not None:
            return
        for job in [life.job for life in self._jobs.lives.values()]:
            connection, _, task_id = job.task_key.partition("/")
            conversation_id = job.conversation.partition("/")[2]
            if connection == HUB_NAME and not (await hub.get(task_id) or await hub.find(conversation_id)):
                await self._jobs.end_conversation(job.conversation)

    async def begin(self, engine: Engine, hub: Hub | None, stack: AsyncExitStack) -> None:
        """The tasks are taken up, and the hub knows which: go on with the rest."""
        assert self._jobs is not None
        assert self._follow_up is not None
        if hub is not None:
            self._delegations = Delegations(
                engine,
                hub,
                self._follow_up.notices,
                self._in_force.delegation_rules,
                on_change=self._facade.delegation_desk.changed,
                end_jobs=self._jobs.kill_all,
            )
            engine.may_hand_on = self._delegations.may_hand_on
            await self._delegations.restore()
            self._facade.delegation_desk.delegations = self._delegations
        self._handed_on_known.set()
        await self._follow_up.start()
        await self._open_residents(stack)

    async def close_delegations(self) -> None:
        """What was handed on goes on; the next daemon takes it up."""
        if self._delegations is not None:
            await self._delegations.close()

    async def _open_residents(self, stack: AsyncExitStack) -> None:
        """Take up the residents that run, start those that are enabled."""
        directories = self._directories
        workers = Nursery("residents")
        house = House(
            files=directories.resident_files,
            root=directories.residents,
            locks=self._resident_locks,
            socket_dir=directories.run,
            holder=f"profile {directories.profile}, state in {directories.state}",
            owner=workers,
            gate=BarrierGate(self._barrier),
            environment=self._in_force.base_environment,
            own_environment={
                "OSTLER_PROFILE": directories.profile,
                **{name: self._environ[name] for name in ("OSTLER_HOME",) if self._environ.get(name)},
            },
            program_of=self._agents.program_of,
            own_directories=(
                *(directories.config, directories.data, directories.state),
                *(directories.cache, directories.run),
            ),
            reach=reach,
        )
        self.residents = house
        stack.push_async_callback(limited, house.detach, "the residents")
        stack.push_async_callback(limited, workers.close, "the residents' keepers")
        await house.open()
        self._facade.resident_desk.open(house)
        stack.callback(self._facade.resident_desk.close)

    # --- told of one another ---------------------------------------------------------------------

    def _job_told(self, conversation: str) -> None:
        """A job of a conversation has ended, or its agent is to be told something of it."""
        if self._follow_up is not None:
            self._follow_up.look(conversation)
        self._child_changed(conversation)

    def _child_changed(self, conversation: str) -> None:
        """Where a conversation is one that was handed on, it may be over now."""
        if self._delegations is not None:
            self._delegations.conversation_changed(conversation)

    async def _expects_job(self, task_key: str) -> None:
        """A task is about to start a job that will wake it."""
        if self._follow_up is not None:
            await self._follow_up.job_started(task_key)

    async def _outstanding(self, conversation: str) -> int:
        """How much of a conversation goes on that wakes it when it ends."""
        assert self._jobs is not None
        # A task that was kept open for it is here again before it: it must not take it for over.
        await self._handed_on_known.wait()
        handed_on = self._delegations.open_of(conversation) if self._delegations is not None else 0
        return handed_on + await self._jobs.outstanding(conversation)

    async def _wake_hub(self, task_id: str, text: str) -> bool | None:
        hub = self._facade.hub
        if hub is None:
            return None
        try:
            return await hub.wake(task_id, text) is not None
        except (NotFoundError, ConflictError, InvalidInputError) as error:
            log.warning("the conversation of task %s cannot be woken: %s", task_id, error)
            return None
