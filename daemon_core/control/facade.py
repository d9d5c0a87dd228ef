"""The daemon as its control API sees it: questions and wishes in, views and codes out.

Tasks of the embedded hub are the hub's to tell (it knows those that wait, too); what is on this machine
(runs, transcript, last action) is the journal's and the engine's. Every change of what the views show is
published (``news``). What can be asked of one kind of thing is in a class of its own, which the facade holds
and gives what it needs.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from daemon_core.connections.connection import Connection
from daemon_core.control.agent_desk import AgentDesk
from daemon_core.control.backend import TranscriptPage
from daemon_core.control.changed_desk import ChangedDesk
from daemon_core.control.changes import ChangeLog
from daemon_core.control.clearing_up import ClearingUp
from daemon_core.control.connection_routes import ConnectionHost
from daemon_core.control.delegation_desk import DelegationDesk
from daemon_core.control.diskviews import changes_view, disk_view, round_view
from daemon_core.control.errors import ControlError
from daemon_core.control.history_desk import HistoryDesk
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.models_desk import ModelsDesk
from daemon_core.control.new_tasks import NewTasks
from daemon_core.control.news import News
from daemon_core.control.pause_desk import PauseDesk
from daemon_core.control.refusals import asked
from daemon_core.control.requests_desk import RequestsDesk
from daemon_core.control.resident_desk import ResidentDesk
from daemon_core.control.runtime_desk import RuntimeDesk
from daemon_core.control.settings_desk import SettingsDesk, settings_refusal
from daemon_core.control.shown_tasks import ShownTasks
from daemon_core.control.spend_desk import SpendDesk
from daemon_core.control.stats_desk import StatsDesk
from daemon_core.control.status_desk import StatusDesk
from daemon_core.control.task_bell import TaskBell
from daemon_core.control.task_finder import TaskFinder
from daemon_core.control.transcripts import Transcripts
from daemon_core.control.turns_desk import TurnsDesk
from daemon_core.control.update_routes import UpdateHost
from daemon_core.control.views import (
    AgentAdd,
    AgentEdit,
    AgentView,
    CleanRequest,
    CleanRound,
    DaemonStatus,
    Deleted,
    DiskReport,
    Health,
    Pause,
    ReloadAnswer,
    RuntimeView,
    Stop,
    StopAnswer,
    TaskAdd,
    TaskChanges,
    TaskReply,
    TaskRow,
    TaskView,
)
from daemon_core.hub import Hub, HubTask
from daemon_core.journal import Journal
from daemon_core.protocol import wire
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.providers import Mistake
from daemon_core.runtimes.registration import Registration
from daemon_core.settings.errors import SettingsError
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.housekeeping import Housekeeper
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.requests import RequestBook

log = logging.getLogger(__name__)

RECENT_TASKS: Final = 50


class Host(Protocol):
    """What only the builder can do."""

    async def discover(self, refresh: bool) -> list[FoundAgent]: ...

    def request_stop(self, *, end_runs: bool, restart: bool = False) -> None: ...

    async def reload(self) -> ReloadAnswer: ...


class Facade:
    """Implements ``control.backend.Backend``.

    It is there from the first moment, so that the status can be asked while the rest is being built: the
    attributes below are None until then, and what needs them answers ``not_ready``.

    Attributes:
        news: Hears the engine and the hub.
        clearing_up: Hears of conversations that the hub has deleted by itself.
    """

    def __init__(
        self,
        *,
        version: str,
        profile: str,
        device_name: str,
        started_at: dt.datetime,
        owns_mark: Callable[[str], bool],
    ) -> None:
        self.changes = ChangeLog()
        self.host: Host | None = None
        self.hub: Hub | None = None
        self.journal: Journal | None = None
        self.engine: Engine | None = None
        self.housekeeper: Housekeeper | None = None
        self.follow_up: FollowUp | None = None
        self.connections: dict[str, Connection] = {}
        self.registrations: dict[str, Registration] = {}
        self.found: list[FoundAgent] = []
        self.provider_mistakes: Sequence[Mistake] = ()
        """What is wrong with the user's own kinds of agent."""
        self._owns_mark = owns_mark
        self._nursery = Nursery("control")
        bell = TaskBell()
        self._finder = TaskFinder(self)
        self._shown = ShownTasks(self, self._finder)
        self._transcripts = Transcripts(self, self._finder, bell)
        self.clearing_up = ClearingUp(self, bell, self._nursery)
        self._agents = AgentDesk(self)
        self.news = News(
            self, shown=self._shown, finder=self._finder, bell=bell, agents=self._agents, owner=self._nursery
        )
        self.new_tasks = NewTasks(self)
        self.pause_desk = PauseDesk(self, self._nursery)
        self.status_desk = StatusDesk(
            self, version=version, profile=profile, device_name=device_name, started_at=started_at
        )
        self.spend_desk = SpendDesk(self.news.spending_changed, self.news.publish_task)
        self.changed = ChangedDesk(self)
        self.delegation_desk = DelegationDesk(self)
        self.delegation_desk.publish = self.news.delegation_changed
        self.runtime_desk = RuntimeDesk(self)
        self.servers: ConnectionHost | None = None
        self.models: ModelsDesk | None = None
        self.requests: RequestsDesk | None = RequestsDesk(self)
        self.history: HistoryDesk | None = HistoryDesk(
            self, self._shown.row, self._shown.row_of_record, self._shown.rows
        )
        self.job_desk = JobDesk(self.changes)
        self.resident_desk = ResidentDesk(self)
        self.stats_desk: StatsDesk | None = StatsDesk(self)
        self.turns_desk: TurnsDesk | None = TurnsDesk(self, self.get_task, self.spend_desk.rows)
        self.settings_desk: SettingsDesk | None = None
        self.update_desk: UpdateHost | None = None

    async def close(self) -> None:
        """End what was begun here."""
        self.pause_desk.close()
        await self._nursery.close()

    def owns_mark(self, mark: str) -> bool:
        return self._owns_mark(mark)

    # --- status --------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        """starting, running or stopping."""
        return self.status_desk.phase

    def set_phase(self, phase: str) -> None:
        self.status_desk.set_phase(phase)

    def status_changed(self) -> None:
        """Publish the status as it is now."""
        self.status_desk.publish()

    def set_condition(self, code: str, subject: str = "", **params: Any) -> None:
        """Something is not as it should be; ``subject`` tells several of one kind apart."""
        self.status_desk.set_condition(code, subject, **params)

    def clear_condition(self, code: str, subject: str = "") -> None:
        """It is as it should be again."""
        self.status_desk.clear_condition(code, subject)

    async def status(self) -> DaemonStatus:
        return await self.status_desk.status()

    async def health(self) -> Health:
        return await self.status_desk.health()

    # --- pause, stop, settings -----------------------------------------------------------------

    async def pause(self, request: Pause) -> DaemonStatus:
        await self.pause_desk.pause(request)
        return self.status_desk.view()

    async def resume(self) -> DaemonStatus:
        await self.pause_desk.resume()
        return self.status_desk.view()

    async def stop(self, request: Stop) -> StopAnswer:
        if self.host is None:
            raise ControlError("not_ready")
        runs = self.engine.active_runs() if self.engine else 0
        jobs = self.engine.jobs.going() if self.engine and self.engine.jobs else 0
        answer = StopAnswer(
            runs_alive=0 if request.runs else runs,
            runs_ended=runs if request.runs else 0,
            jobs_alive=jobs,
            pid=os.getpid(),
        )
        self.host.request_stop(end_runs=request.runs, restart=request.restart)
        return answer

    async def reload_settings(self) -> ReloadAnswer:
        if self.host is None:
            raise ControlError("not_ready")
        try:
            return await self.host.reload()
        except SettingsError as error:
            raise settings_refusal(error) from error

    # --- runtimes ------------------------------------------------------------------------------

    async def runtimes(self, refresh: bool) -> list[RuntimeView]:
        if refresh:
            if self.host is None:
                raise ControlError("not_ready")
            await self.host.discover(refresh=True)
        else:
            self.runtime_desk.glance()
        return self.runtime_desk.views()

    def runtimes_changed(self) -> None:
        """Publish the runtimes as they are now."""
        self.runtime_desk.publish()
        self.status_changed()

    # --- tasks ---------------------------------------------------------------------------------

    async def add_task(self, request: TaskAdd) -> TaskView:
        new = await self.new_tasks.checked(request)
        return await self._shown.view(await asked(self.need_hub().add_task(new)), None)

    async def reply(self, task_id: str, request: TaskReply) -> TaskView:
        self.ready()
        task = await self._finder.of_hub(task_id)
        await self._lift_limit(task)
        return await self._shown.view(await asked(self.need_hub().reply(task.id, request.prompt)), None)

    async def retry(self, task_id: str) -> TaskView:
        self.ready()
        task = await self._finder.of_hub(task_id)
        await self._lift_limit(task)
        return await self._shown.view(await asked(self.need_hub().retry(task.id)), None)

    async def _lift_limit(self, task: HubTask) -> None:
        """The user wants a parked task to go on: it is tried, whatever was said about the account."""
        if task.status == "parked" and self.engine is not None and self.engine.accounts is not None:
            await self.engine.accounts.lift(task.provider)

    async def cancel(self, task_id: str) -> TaskView:
        self.ready()
        task = await self._finder.of_hub(task_id)
        if task.status in wire.TERMINAL_STATUSES:
            raise ControlError("conflict", {"what": "task_ended", "id": task.id, "status": task.status})
        cancelled = await asked(self.need_hub().cancel(task.id))
        return await self._shown.view(cancelled, await self._finder.record(cancelled.id))

    async def delete(self, task_id: str) -> Deleted:
        self.ready()
        task = await self._finder.of_hub(task_id)
        deleted = await asked(self.need_hub().delete(task.id))
        own = self.clearing_up.conversation_gone(deleted)
        return Deleted(
            id=task.id,
            conversation_id=deleted.conversation_id,
            tasks=len(deleted.task_ids),
            work_dir=own[0] if own else "",
        )

    async def list_tasks(self, include_all: bool) -> list[TaskRow]:
        _, journal = self.ready()
        rows: list[TaskRow] = []
        if self.hub is not None:
            tasks = await asked(self.hub.list(all=include_all, limit=RECENT_TASKS))
            rows += [self._shown.row(task) for task in tasks]
        others = await journal.recent(10_000 if include_all else RECENT_TASKS)
        known = {row.id for row in rows}
        rows += [
            self._shown.row_of_record(record)
            for record in others
            if record.connection != "hub" and record.task_id not in known
        ]
        rows.sort(key=lambda row: row.created_at, reverse=True)
        return await self._shown.rows(rows)

    async def get_task(self, task_id: str) -> TaskView:
        self.ready()
        task, record = await self._finder.find(task_id)
        if task is not None:
            return await self._shown.view(task, record)
        assert record is not None
        return await self._shown.view_of_record(record)

    async def task_changes(self, task_id: str, stat: bool) -> TaskChanges:
        engine, _ = self.ready()
        task, record = await self._finder.find(task_id)
        ident = task.id if task is not None else record.task_id if record is not None else task_id
        found, live = None, False
        if record is not None and engine.changes is not None:
            changes, key = engine.changes, record.key
            if key in engine.lives:
                try:
                    found = await asyncio.to_thread(changes.now, key)
                except OSError as error:  # it ends at this moment: what is kept is told
                    log.info("the changes of %s so far cannot be told: %s", key, error)
            live = found is not None
            if found is None:
                found = await asyncio.to_thread(changes.read, key)
        return changes_view(ident, found, live=live, stat=stat)

    async def transcript(self, task_id: str, after: int, limit: int) -> TranscriptPage:
        return await self._transcripts.page(task_id, after, limit)

    async def wait_transcript(self, task_id: str, after: int) -> None:
        await self._transcripts.wait(task_id, after)

    def life_of(self, view: TaskView) -> TaskLife | None:
        """The life of a task, while it is worked on here."""
        return self._finder.life(view.id, view.server or "hub")

    async def request_book(self, view: TaskView) -> RequestBook:
        """What the journal has of a task's requests."""
        _, journal = self.ready()
        record = await journal.task(f"{view.server or 'hub'}/{view.id}")
        return RequestBook.read(record.requests if record is not None else "")

    # --- disk ----------------------------------------------------------------------------------

    async def disk(self) -> DiskReport:
        keeper = self._housekeeper()
        return disk_view(await keeper.usage(), keeper.rules())

    async def clean_disk(self, request: CleanRequest) -> CleanRound:
        done = round_view(await self._housekeeper().clean(dry_run=request.dry_run))
        if self.engine is not None and self.engine.room is not None:
            self.engine.room.look_again()
        return done

    def _housekeeper(self) -> Housekeeper:
        self.ready()
        if self.housekeeper is None:
            raise ControlError("not_ready")
        return self.housekeeper

    # --- agents --------------------------------------------------------------------------------

    async def agents(self) -> list[AgentView]:
        return await self._agents.everyone()

    async def add_agent(self, request: AgentAdd) -> AgentView:
        return await self._agents.add(request)

    async def edit_agent(self, name: str, request: AgentEdit) -> AgentView:
        return await self._agents.edit(name, request)

    async def remove_agent(self, name: str) -> AgentView:
        return await self._agents.remove(name)

    # --- what the parts need -------------------------------------------------------------------

    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]:
        """Engine and journal while the daemon runs; ``starting``: as soon as they are there."""
        if self.engine is None or self.journal is None or (self.phase != "running" and not starting):
            raise ControlError("not_ready")
        return self.engine, self.journal

    def need_hub(self) -> Hub:
        """The hub. Raises ``ControlError``: hub_disabled."""
        if self.hub is None:
            raise ControlError("hub_disabled")
        return self.hub
