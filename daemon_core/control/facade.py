"""The daemon as its control API sees it: questions and wishes in, views and codes out.

Tasks of the embedded hub are the hub's to tell (it knows those that wait, too); what is on this machine
(runs, transcript, last action) is the journal's and the engine's. Every change of what the views show is
published.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import msgspec

from daemon_core.connections.connection import Connection
from daemon_core.connections.health import State
from daemon_core.control import task_views
from daemon_core.control.agent_views import agent_view, changes_of, spec_of
from daemon_core.control.backend import PREFIX_LEAST, TranscriptPage, resolve_id
from daemon_core.control.changed_desk import ChangedDesk
from daemon_core.control.changes import ChangeLog
from daemon_core.control.connection_routes import ConnectionHost
from daemon_core.control.delegation_desk import DelegationDesk
from daemon_core.control.diskviews import changes_view, disk_view, round_view
from daemon_core.control.errors import ControlError
from daemon_core.control.history_desk import HistoryDesk
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.live_views import live_row, live_view
from daemon_core.control.models_desk import ModelsDesk
from daemon_core.control.refusals import asked
from daemon_core.control.requests_desk import RequestsDesk, waiting_tasks
from daemon_core.control.resident_desk import ResidentDesk
from daemon_core.control.runtime_desk import RuntimeDesk
from daemon_core.control.settings_desk import SettingsDesk, settings_refusal
from daemon_core.control.spend_desk import SpendDesk
from daemon_core.control.stats_desk import StatsDesk
from daemon_core.control.turns_desk import TurnsDesk
from daemon_core.control.update_routes import UpdateHost
from daemon_core.control.views import (
    AgentAdd,
    AgentEdit,
    AgentView,
    Barrier,
    CleanRequest,
    CleanRound,
    Condition,
    ConnectionView,
    DaemonStatus,
    Deleted,
    DiskReport,
    Health,
    Pause,
    ReloadAnswer,
    RuntimeView,
    RunView,
    Stop,
    StopAnswer,
    TaskAdd,
    TaskChanges,
    TaskReply,
    TaskRow,
    TaskView,
    TranscriptLine,
    WorkspaceHealth,
)
from daemon_core.hub import (
    DeletedConversation,
    Hub,
    HubChange,
    HubTask,
    NewTask,
)
from daemon_core.jobs.conversations import conversation_key, conversation_of
from daemon_core.journal import Journal, JournalError, TaskRecord
from daemon_core.protocol import wire
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.providers import Mistake
from daemon_core.runtimes.registration import Registration
from daemon_core.settings.errors import SettingsError
from daemon_core.tasks import clock, policy
from daemon_core.tasks.accounts import Held
from daemon_core.tasks.barrier import BarrierState
from daemon_core.tasks.delegation_store import DelegationRow
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.housekeeping import Housekeeper
from daemon_core.tasks.launch import PrepareError
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.requests import RequestBook
from daemon_core.tasks.translate import Digest
from daemon_core.workdirs import DirectoryRefusedError, validate_user_directory
from daemon_core.workdirs.mirrors import check_ref
from daemon_core.workdirs.repository_errors import RepositoryInputError
from daemon_core.workdirs.repository_urls import parse_url

log = logging.getLogger(__name__)

T = TypeVar("T")

RECENT_TASKS = 50
PAUSE_META = "pause"
USER_HOLDER = "user"

_CONNECTION_STATES: Mapping[State, tuple[str, str]] = {
    State.STARTING: ("connecting", ""),
    State.OK: ("connected", ""),
    State.WAITING_FOR_NETWORK: ("unreachable", "network_down"),
    State.SERVER_UNREACHABLE: ("unreachable", "server_unreachable"),
    State.SIGNED_OUT: ("signed_out", "signed_out"),
    State.REFUSED: ("unreachable", "server_refuses"),
}

_Line = msgspec.json.Decoder(list[wire.TaskMessage])


def _checked_repository(request: TaskAdd) -> str:
    """The address of a task's repository as it may be stored. Looks at the disk."""
    try:
        url = parse_url(request.repo, allow_local=True)
        if request.ref:
            check_ref(request.ref)
    except RepositoryInputError as error:
        raise ControlError("repository_refused", {"why": error.code, "detail": str(error)}) from error
    why = ""
    if request.directory:
        why = "directory_too"
    elif url.had_credentials:
        why = "credentials_in_url"
    elif url.local and not os.path.isdir(url.path):
        why = "not_found"
    if why:
        raise ControlError("repository_refused", {"why": why, "repo": url.text})
    return url.text


class Host(Protocol):
    """What only the builder can do."""

    async def discover(self, refresh: bool) -> list[FoundAgent]: ...

    def request_stop(self, *, end_runs: bool, restart: bool = False) -> None: ...

    async def reload(self) -> ReloadAnswer: ...


class Facade:
    """Implements ``control.backend.Backend`` and listens to the engine and the hub.

    It is there from the first moment, so that the status can be asked while the rest is being built: the
    attributes below are None until then, and what needs them answers ``not_ready``.
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
        self.version = version
        self.profile = profile
        self.device_name = device_name
        self.started_at = started_at
        self.daemon_id = ""
        self.port: int | None = None
        self.phase = "starting"
        self.host: Host | None = None
        self.hub: Hub | None = None
        self.journal: Journal | None = None
        self.engine: Engine | None = None
        self.housekeeper: Housekeeper | None = None
        self.servers: ConnectionHost | None = None
        self.models: ModelsDesk | None = None
        self.requests: RequestsDesk | None = RequestsDesk(self)
        self.spend_desk = SpendDesk(self._spending_changed, self._publish_task)
        self.changed = ChangedDesk(self)
        self.history: HistoryDesk | None = HistoryDesk(self, self._row, self._row_of_record, self._told)
        self.delegation_desk = DelegationDesk(self)
        self.delegation_desk.publish = self._publish_delegation
        self.job_desk: JobDesk | None = JobDesk(self.changes)
        self.resident_desk: ResidentDesk | None = ResidentDesk(self)
        self.stats_desk: StatsDesk | None = StatsDesk(self)
        self.turns_desk: TurnsDesk | None = TurnsDesk(self, self.get_task, self.spend_desk.rows)
        self.follow_up: FollowUp | None = None
        self.connections: dict[str, Connection] = {}
        self.registrations: dict[str, Registration] = {}
        self.found: list[FoundAgent] = []
        self.provider_mistakes: Sequence[Mistake] = ()
        """What is wrong with the user's own kinds of agent."""
        self.settings_desk: SettingsDesk | None = None
        self._agents_told: set[str] = set()
        """Ids of the named agents that somebody was told of, and not yet that they are gone."""
        self.conditions: dict[str, Condition] = {}
        self.runtime_desk = RuntimeDesk(self)
        self.update_desk: UpdateHost | None = None
        self._owns_mark = owns_mark
        self._started = time.monotonic()
        self._pause: Barrier | None = None
        self._pause_timer: asyncio.TimerHandle | None = None
        self._held_since = ""
        """Since when something else than the user's pause holds claims back."""
        self._nursery = Nursery("control")
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._queued = 0

    async def close(self) -> None:
        """End what was begun here."""
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        await self._nursery.close()

    def owns_mark(self, mark: str) -> bool:
        return self._owns_mark(mark)

    # --- status --------------------------------------------------------------------------------

    def set_phase(self, phase: str) -> None:
        """starting, running or stopping."""
        self.phase = phase
        self.status_changed()

    def status_changed(self) -> None:
        """Publish the status as it is now."""
        self.changes.publish("status", "status", self._status())

    def set_condition(self, code: str, subject: str = "", **params: Any) -> None:
        """Something is not as it should be; ``subject`` tells several of one kind apart."""
        key = f"{code}:{subject}"
        old = self.conditions.get(key)
        since = old.since if old is not None else clock.now_text()
        condition = Condition(code=code, params=params, since=since)
        if condition != old:
            self.conditions[key] = condition
            self.status_changed()

    def clear_condition(self, code: str, subject: str = "") -> None:
        """It is as it should be again."""
        if self.conditions.pop(f"{code}:{subject}", None) is not None:
            self.status_changed()

    async def status(self) -> DaemonStatus:
        await self._count_queued()
        return self._status()

    def _status(self) -> DaemonStatus:
        engine = self.engine
        return DaemonStatus(
            status=self.phase,  # type: ignore[arg-type]
            pid=os.getpid(),
            version=self.version,
            uptime=round(time.monotonic() - self._started, 3),
            port=self.port,
            active_runs=engine.active_runs() if engine else 0,
            slots=engine.slots.total if engine else 0,
            barrier=self._barrier(),
            connections=[self.connection_view(connection) for connection in self.connections.values()],
            runtimes=sum(len(found.runtimes) for found in self.registrations.values()),
            conditions=self._all_conditions(),
            profile=self.profile,
            started_at=clock.text(self.started_at),
            daemon_id=self.daemon_id,
            queued=self._queued,
            needs_input=waiting_tasks(engine.lives) if engine else 0,
            undelivered=sum(1 for delivery in engine.deliveries.values() if delivery.trouble)
            if engine
            else 0,
            spend=self.spend_desk.view(),
        )

    async def _count_queued(self) -> None:
        if self.hub is not None and self.phase == "running":
            self._queued = await self.hub.count_queued()

    def _barrier(self) -> Barrier | None:
        if self._pause is not None:
            return self._pause
        if self.engine is not None and self.engine.barrier.state is not BarrierState.DOWN:
            self._held_since = self._held_since or clock.now_text()
            return Barrier(reason="update", since=self._held_since)
        self._held_since = ""
        return None

    def connection_view(self, connection: Connection) -> ConnectionView:
        """A connection as the status tells it."""
        health = connection.health
        status, reason = _CONNECTION_STATES[health.state]
        return ConnectionView(
            name=connection.name,
            url=connection.client.base_url,
            status=status,  # type: ignore[arg-type]
            workspaces=len(connection.workspaces),
            websocket=connection.link.connected,
            reason=reason,
            reason_params={"reason": health.code, **health.params} if reason else {},
            since=_time(health.since),
            next_try_at=_time(health.next_try_at) if health.next_try_at else None,
        )

    def _all_conditions(self) -> list[Condition]:
        found = list(self.conditions.values())
        for connection in self.connections.values():
            health = connection.health
            _, code = _CONNECTION_STATES[health.state]
            if code:
                found.append(
                    Condition(
                        code=code,
                        params={"server": connection.name, "reason": health.code, **health.params},
                        since=_time(health.since),
                        next_try_at=_time(health.next_try_at) if health.next_try_at else None,
                        action="sign_in" if health.state is State.SIGNED_OUT else "try_again",
                    )
                )
        if self.phase == "running" and not any(
            agent.usable and agent.provider != "shell" for agent in self.found
        ):
            found.append(
                Condition(code="no_agents", since=clock.text(self.started_at), action="install_agent")
            )
        found += self.spend_desk.conditions()
        return found

    async def health(self) -> Health:
        uptime_s = time.monotonic() - self._started
        engine = self.engine
        workspaces: dict[str, list[str]] = {}
        for registration in self.registrations.values():
            for runtime in registration.runtimes.values():
                workspaces.setdefault(runtime.workspace_id, []).append(runtime.runtime_id)
        return Health(
            status=self.phase,  # type: ignore[arg-type]
            pid=os.getpid(),
            os=_os_name(),
            uptime=_go_duration(uptime_s),
            daemon_id=self.daemon_id,
            device_name=self.device_name,
            server_url=next((c.client.base_url for c in self.connections.values()), ""),
            cli_version=self.version,
            active_task_count=len(engine.lives) if engine else 0,
            agents=sorted(agent.provider for agent in self.found if agent.usable),
            workspaces=[WorkspaceHealth(id=name, runtimes=ids) for name, ids in workspaces.items()] or None,
            version=self.version,
            uptime_s=round(uptime_s, 3),
            active_runs=engine.active_runs() if engine else 0,
            barrier=self._barrier(),
        )

    # --- pause, stop, settings -----------------------------------------------------------------

    async def pause(self, request: Pause) -> DaemonStatus:
        engine, journal = self._ready()
        until = None
        if request.until is not None:
            until = clock.parse(request.until)
            if until is None:
                raise ControlError("invalid_input", {"field": "until", "why": "not_a_time"})
            if until <= dt.datetime.now(dt.UTC):
                raise ControlError("invalid_input", {"field": "until", "why": "past"})
        self._pause = Barrier(
            reason="user", since=clock.now_text(), until=clock.text(until) if until is not None else None
        )
        await journal.set_meta(PAUSE_META, msgspec.json.encode(self._pause).decode())
        engine.barrier.hold(USER_HOLDER)
        await engine.barrier.wait_up()
        self._arm_pause()
        self.status_changed()
        return self._status()

    async def resume(self) -> DaemonStatus:
        engine, journal = self._ready()
        self._pause = None
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        await journal.set_meta(PAUSE_META, None)
        engine.barrier.let_go(USER_HOLDER)
        self.status_changed()
        return self._status()

    async def restore_pause(self) -> None:
        """Take up the user's pause of before the restart; before anything can be claimed."""
        engine, journal = self._ready(starting=True)
        text = await journal.get_meta(PAUSE_META)
        if text is None:
            return
        try:
            pause = msgspec.json.decode(text, type=Barrier)
        except msgspec.DecodeError as error:
            log.error("the pause that was kept cannot be read (%s); claims stay held back", error)
            pause = Barrier(reason="user", since=clock.now_text())
        until = clock.parse(pause.until) if pause.until else None
        if until is not None and until <= dt.datetime.now(dt.UTC):
            await journal.set_meta(PAUSE_META, None)
            return
        self._pause = pause
        engine.barrier.hold(USER_HOLDER)
        self._arm_pause()

    def _arm_pause(self) -> None:
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None
        until = clock.parse(self._pause.until) if self._pause and self._pause.until else None
        if until is None:
            return
        left_s = (until - dt.datetime.now(dt.UTC)).total_seconds()
        # Looked at again at the latest after an hour: the wall clock may be set meanwhile.
        delay_s = min(max(left_s, 0.0), 3600.0)
        self._pause_timer = asyncio.get_running_loop().call_later(delay_s, self._pause_due)

    def _pause_due(self) -> None:
        until = clock.parse(self._pause.until) if self._pause and self._pause.until else None
        if until is None:
            return
        if until > dt.datetime.now(dt.UTC):
            self._arm_pause()
            return
        log.info("the pause is over")
        self._nursery.start(self.resume(), "resume")

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
        new = await self.new_task(request)
        return await self._view(await asked(self._hub().add_task(new)), None)

    async def new_task(self, request: TaskAdd) -> NewTask:
        """A wish for a task, checked. Raises ``ControlError``."""
        self._ready()
        self._hub()
        provider = await self._provider(request.runtime, request.agent)
        directory = None
        if request.directory:
            try:
                directory = str(await asyncio.to_thread(validate_user_directory, request.directory))
            except DirectoryRefusedError as error:
                code = "not_writable" if error.code == "not_readable" else error.code
                raise ControlError(f"directory_{code}", {"path": error.path}) from error
        self._check_permissions(provider, request.permissions)
        repo_url = await asyncio.to_thread(_checked_repository, request) if request.repo else None
        return NewTask(
            prompt=request.prompt,
            provider=provider or None,
            agent=request.agent or None,
            directory=directory,
            repo_url=repo_url,
            repo_ref=(request.ref or None) if repo_url else None,
            model=request.model or None,
            thinking_level=request.thinking or None,
            title=request.title or None,
            permissions=request.permissions or None,
        )

    async def check_agent(self, agent: str) -> None:
        """Refuse a named agent that is not there, or whose program cannot run now."""
        found = await asked(self._hub().get_agent(agent))
        await self._provider(found.provider, agent)

    async def _provider(self, runtime: str, agent: str) -> str:
        usable = {
            found.provider: found
            for found in self.found
            if found.usable and not self.runtime_desk.is_off_at("hub", found.provider)
        }
        if not runtime:
            if agent:
                return ""
            for provider in usable:
                # Never the shell by default: it would take the prompt for a command.
                if provider != "shell":
                    return provider
            raise ControlError("no_agent", {"known": sorted(usable)})
        by_id = {
            registered.runtime_id: registered.provider
            for registration in self.registrations.values()
            for registered in registration.runtimes.values()
        }
        wanted = runtime.lower()
        if wanted in usable:
            return wanted
        ids = [known for known in by_id if known == wanted or known.startswith(wanted)]
        if len(wanted) >= PREFIX_LEAST and len(ids) == 1:
            return by_id[ids[0]]
        found = next((found for found in self.found if found.provider == wanted), None)
        if found is not None and found.status != "missing":
            raise ControlError(
                "runtime_unusable",
                {
                    "runtime": wanted,
                    "reason": found.reason or "switched_off",
                    "reason_params": dict(found.params),
                },
            )
        raise ControlError("unknown_runtime", {"runtime": runtime, "known": sorted(usable)})

    def _check_permissions(self, provider: str, asked_for: str) -> None:
        """Refuse what would only fail later: an agent that cannot be run under this policy."""
        engine = self.engine
        launcher = engine.launchers.get(provider) if engine is not None else None
        if engine is None or launcher is None:
            return
        if asked_for and asked_for not in policy.MODES:
            raise ControlError("invalid_input", {"field": "permissions", "why": "unknown"})
        try:
            wanted = asked_for or engine.permissions(provider)
            policy.launcher_for(launcher, policy.mode_of(None, launcher, lambda _: wanted, hub=True))
        except PrepareError as error:
            raise ControlError(
                "invalid_input", {"field": "permissions", "why": "unsupported", "detail": str(error)}
            ) from error

    async def reply(self, task_id: str, request: TaskReply) -> TaskView:
        self._ready()
        task, _ = await self._find(task_id, local=True)
        assert task is not None
        await self._lift_limit(task)
        return await self._view(await asked(self._hub().reply(task.id, request.prompt)), None)

    async def retry(self, task_id: str) -> TaskView:
        self._ready()
        task, _ = await self._find(task_id, local=True)
        assert task is not None
        await self._lift_limit(task)
        return await self._view(await asked(self._hub().retry(task.id)), None)

    async def _lift_limit(self, task: HubTask) -> None:
        """The user wants a parked task to go on: it is tried, whatever was said about the account."""
        if task.status == "parked" and self.engine is not None and self.engine.accounts is not None:
            await self.engine.accounts.lift(task.provider)

    async def cancel(self, task_id: str) -> TaskView:
        self._ready()
        task, _ = await self._find(task_id, local=True)
        assert task is not None
        if task.status in wire.TERMINAL_STATUSES:
            raise ControlError("conflict", {"what": "task_ended", "id": task.id, "status": task.status})
        cancelled = await asked(self._hub().cancel(task.id))
        return await self._view(cancelled, await self._record(cancelled.id))

    async def delete(self, task_id: str) -> Deleted:
        self._ready()
        task, _ = await self._find(task_id, local=True)
        assert task is not None
        deleted = await asked(self._hub().delete(task.id))
        own = self.conversation_gone(deleted)
        return Deleted(
            id=task.id,
            conversation_id=deleted.conversation_id,
            tasks=len(deleted.task_ids),
            work_dir=own[0] if own else "",
        )

    def conversation_gone(self, deleted: DeletedConversation) -> list[str]:
        """The hub has deleted a conversation: clear up after it; gives the directories that will go."""
        engine = self.engine
        if engine is None:
            return []
        reach("conversation_deleted")
        own = [path for path in deleted.work_dirs if engine.task_directories.owns(path)]
        if engine.jobs is not None:
            ended = engine.jobs.end_conversation(conversation_key("hub", deleted.conversation_id))
            self._nursery.start(ended, f"jobs of {deleted.conversation_id}")
        self._nursery.start(self._clear(deleted.task_ids, own), f"clear {deleted.conversation_id}")
        return own

    async def _clear(self, task_ids: list[str], own: list[str]) -> None:
        """Once its runs have ended, remove what a deleted conversation had on this machine."""
        engine, journal = self._ready(starting=True)
        for task_id in task_ids:
            for record in await journal.tasks_by_id(task_id):
                # An agent on an issue has its jobs under the name. (Once more when its run is over:
                # it may have started another one.)
                await self._end_jobs(engine, record)
                while True:
                    with self._listening(task_id) as changed:
                        if record.key not in engine.lives and record.key not in engine.deliveries:
                            break
                        await changed
                await self._end_jobs(engine, record)
                for run in await journal.runs(record.key):
                    await asyncio.to_thread(engine.remove_run, run.run_id)
                if self.follow_up is not None:
                    await self.follow_up.conversation_deleted(conversation_of(record))
                await journal.delete_task(record.key)
            self.changes.publish("task_removed", f"task:{task_id}", {"id": task_id})
        if self.housekeeper is not None:
            for path in own:
                self.housekeeper.remove(path)
            await self.housekeeper.empty_trash()
        if own and engine.repositories is not None:
            await engine.repositories.repositories.prune(gone_only=True)

    async def _end_jobs(self, engine: Engine, record: TaskRecord) -> None:
        """End the jobs of a deleted conversation; returns when nothing of them is in its directory."""
        if engine.jobs is not None:
            conversation = conversation_of(record)
            await engine.jobs.end_conversation(conversation)
            await engine.jobs.settled(conversation)

    async def list_tasks(self, include_all: bool) -> list[TaskRow]:
        _, journal = self._ready()
        rows: list[TaskRow] = []
        if self.hub is not None:
            tasks = await asked(self.hub.list(all=include_all, limit=RECENT_TASKS))
            rows += [self._row(task) for task in tasks]
        others = await journal.recent(10_000 if include_all else RECENT_TASKS)
        known = {row.id for row in rows}
        rows += [
            self._row_of_record(record)
            for record in others
            if record.connection != "hub" and record.task_id not in known
        ]
        rows.sort(key=lambda row: row.created_at, reverse=True)
        return await self._told(rows)

    async def _told(self, rows: list[TaskRow]) -> list[TaskRow]:
        """Rows with what is kept elsewhere: their costs, and how many files they changed."""
        return await self.changed.rows(await self.spend_desk.rows(rows))

    async def get_task(self, task_id: str) -> TaskView:
        self._ready()
        task, record = await self._find(task_id)
        if task is not None:
            return await self._view(task, record)
        assert record is not None
        return await self._view_of_record(record)

    async def task_changes(self, task_id: str, stat: bool) -> TaskChanges:
        engine, _ = self._ready()
        task, record = await self._find(task_id)
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
        self._ready()
        if self.housekeeper is None:
            raise ControlError("not_ready")
        return self.housekeeper

    async def transcript(self, task_id: str, after: int, limit: int) -> TranscriptPage:
        _, journal = self._ready()
        task, record = await self._find(task_id)
        if record is None:
            assert task is not None
            stored = await asked(self._hub().messages(task.id, after, limit))
            lines = [
                TranscriptLine(
                    seq=line.seq, type=line.type, content=line.content, tool=line.tool, input=line.input,
                    output=line.output, at=line.created_at or "",
                )
                for line in stored
            ]  # fmt: skip
            ended = task.status in wire.TERMINAL_STATUSES and len(lines) < limit
            return TranscriptPage(lines=lines, ended=ended)
        chunks = await journal.transcript(record.key, after, max(1, limit // 100))
        lines = []
        complete = True
        for chunk in chunks:
            for message in _Line.decode(chunk.body):
                if message.seq <= after:
                    continue
                if len(lines) == limit:
                    complete = False
                    break
                lines.append(
                    TranscriptLine(
                        seq=message.seq, type=message.type, content=message.content, tool=message.tool,
                        input=message.input, output=message.output, at=chunk.at,
                    )
                )  # fmt: skip
        last = lines[-1].seq if lines else after
        over = record.state == "ended" and (
            record.outcome != "parked" or task is None or task.status in wire.TERMINAL_STATUSES
        )
        ended = over and complete and last >= record.next_seq - 1
        return TranscriptPage(lines=lines, ended=ended)

    async def wait_transcript(self, task_id: str, after: int) -> None:
        task, record = await self._find(task_id)
        full_id = task.id if task is not None else record.task_id if record is not None else task_id
        while True:
            with self._listening(full_id) as changed:
                page = await self.transcript(full_id, after, 1)
                if page.lines or page.ended:
                    return
                await changed

    @contextmanager
    def _listening(self, task_id: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when something of a task changes. Begin to listen, then look, then wait:
        so nothing is missed in between."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(task_id, set())
        waiting.add(future)
        try:
            yield future
        finally:
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(task_id, None)

    def _notify(self, task_id: str) -> None:
        for future in self._waiting.get(task_id, ()):
            if not future.done():
                future.set_result(None)

    # --- finding -------------------------------------------------------------------------------

    async def _find(self, given: str, *, local: bool = False) -> tuple[HubTask | None, TaskRecord | None]:
        """A task by its id, the beginning of it, or that of its conversation (then its newest turn)."""
        _, journal = self._ready()
        wanted = given.strip().lower()
        if len(wanted) < PREFIX_LEAST:
            resolve_id("task", given, ())
        tasks: dict[str, HubTask] = {}
        if self.hub is not None:
            exact = await self.hub.get(wanted)
            if exact is not None:
                return exact, await self._record(exact.id)
            tasks = {task.id: task for task in await asked(self.hub.find(wanted))}
        records: dict[str, TaskRecord] = {}
        if all(character in "0123456789abcdef-" for character in wanted):
            newest: dict[str, TaskRecord] = {}
            for record in await journal.find_tasks(wanted):
                if record.connection == "hub" and self.hub is not None:
                    continue
                if record.task_id.startswith(wanted):
                    records[record.task_id] = record
                elif record.claimed_at >= newest.get(record.conversation_id, record).claimed_at:
                    newest[record.conversation_id] = record
            records |= {record.task_id: record for record in newest.values()}
        found = [*tasks, *records]
        if len(found) > 1:
            params = {"kind": "task", "id": given, "candidates": sorted(found)[:10]}
            raise ControlError("ambiguous_id", params)
        if tasks:
            (task,) = tasks.values()
            return task, await self._record(task.id)
        if not records:
            raise ControlError("not_found", {"kind": "task", "id": given})
        (record,) = records.values()
        if local:
            raise ControlError("conflict", {"what": "not_local", "id": record.task_id})
        return None, record

    async def _record(self, task_id: str) -> TaskRecord | None:
        _, journal = self._ready()
        found = await journal.tasks_by_id(task_id)
        return found[0] if found else None

    # --- views ---------------------------------------------------------------------------------

    def _life(self, task_id: str, connection: str = "hub") -> TaskLife | None:
        return self.engine.lives.get(f"{connection}/{task_id}") if self.engine is not None else None

    def life_of(self, view: TaskView) -> TaskLife | None:
        """The life of a task, while it is worked on here."""
        return self._life(view.id, view.server or "hub")

    async def request_book(self, view: TaskView) -> RequestBook:
        """What the journal has of a task's requests."""
        _, journal = self._ready()
        record = await journal.task(f"{view.server or 'hub'}/{view.id}")
        return RequestBook.read(record.requests if record is not None else "")

    def _last_action(self, task_id: str, connection: str = "hub") -> str:
        life = self._life(task_id, connection)
        return life.progress.last_action if life is not None else ""

    def _row(self, task: HubTask) -> TaskRow:
        row = task_views.row(task, self._last_action(task.id), self._waiting_of(task, None))
        row = self.changed.row(self.spend_desk.row(live_row(row, self._life(task.id))))
        return self.delegation_desk.row(row, task.parent_key, task.depth)

    def _row_of_record(self, record: TaskRecord) -> TaskRow:
        life = self._life(record.task_id, record.connection)
        last_action = self._last_action(record.task_id, record.connection)
        row = self.spend_desk.row(live_row(task_views.row_of_record(record, last_action), life))
        return self.delegation_desk.row(self.changed.row(row), None, 0)

    async def _view(self, task: HubTask, record: TaskRecord | None) -> TaskView:
        runs = await self._runs(record) if record is not None else []
        view = task_views.view(task, record, runs, self._waiting_of(task, record))
        view = await self.spend_desk.task(live_view(view, record, self._life(task.id)))
        return await self.delegation_desk.view(view, task.parent_key, task.depth)

    async def _view_of_record(self, record: TaskRecord) -> TaskView:
        view = task_views.view_of_record(record, await self._runs(record))
        view = live_view(view, record, self._life(record.task_id, record.connection))
        view = await self.spend_desk.task(view)
        return await self.delegation_desk.view(view, None, 0)

    async def _runs(self, record: TaskRecord) -> list[RunView]:
        _, journal = self._ready(starting=True)
        return [
            task_views.run_view(run, current=run.run_id == record.run_id)
            for run in await journal.runs(record.key)
        ]

    def _waiting_of(self, task: HubTask, record: TaskRecord | None) -> Condition | None:
        if task.status == "waiting_local_directory":
            holder = record.waiting_for if record else ""
            lives = self.engine.lives.values() if self.engine is not None else ()
            title = next(
                (life.record.title for life in lives if holder and life.record.task_id == holder), ""
            )
            params = {"path": task.directory or "", "held_by": holder, "held_by_title": title}
            return Condition(code="waiting_directory", params=params)
        if task.status == "parked":
            until = task.parked_until
            return Condition(
                code="usage_limit",
                params={"provider": task.provider, "until": until, "goes_on": task.goes_on},
                next_try_at=until if task.goes_on else None,
                action="retry",
            )
        if task.status != "queued":
            return None
        engine = self.engine
        if self._pause is not None:
            return Condition(code="paused", params={"until": self._pause.until}, since=self._pause.since)
        if (spent := self.spend_desk.waiting()) is not None:
            return spent
        for code in ("disk_low", "disk_full"):
            if f"{code}:" in self.conditions:
                return self.conditions[f"{code}:"]
        held = f"usage_limit:{task.provider}"
        if held in self.conditions:
            return self.conditions[held]
        if task.waiting_reason == "conversation_busy":
            return Condition(code="waiting_turn")
        if task.waiting_reason in ("no_runtime", "runtime_offline"):
            return Condition(code="waiting_runtime", params={"runtime": task.provider})
        model = task.model or (engine.default_model(task.provider) if engine is not None else "")
        if engine is not None and model in engine.slots.full_models():
            return Condition(
                code="waiting_model", params={"model": model, "limit": engine.slots.models[model]}
            )
        if task.waiting_reason == "agent_busy" or (
            engine is not None and not engine.slots.free_for(task.provider)
        ):
            return Condition(code="waiting_slot", params={"slots": engine.slots.total if engine else 0})
        return None

    # --- agents --------------------------------------------------------------------------------

    async def agents(self) -> list[AgentView]:
        if self.hub is None:
            return []
        found = [agent_view(agent) for agent in await asked(self.hub.list_agents())]
        self._agents_told |= {agent.id for agent in found}
        return found

    async def add_agent(self, request: AgentAdd) -> AgentView:
        hub = self._hub()
        spec = spec_of(request, await self._known_provider(request.runtime))
        return agent_view(await asked(hub.add_agent(spec)))

    async def edit_agent(self, name: str, request: AgentEdit) -> AgentView:
        hub = self._hub()
        if request.runtime is not msgspec.UNSET:
            current = await asked(hub.get_agent(name))
            if await self._known_provider(request.runtime) != current.provider:
                raise ControlError(
                    "invalid_input", {"field": "runtime", "why": "an agent's runtime cannot be changed"}
                )
        changes = changes_of(request)
        return agent_view(await asked(hub.edit_agent(name, changes)))

    async def remove_agent(self, name: str) -> AgentView:
        hub = self._hub()
        agent = agent_view(await asked(hub.get_agent(name)))
        await asked(hub.remove_agent(name))
        return agent

    async def _known_provider(self, runtime: str) -> str:
        known = {agent.provider for agent in self.found}
        if runtime.lower() in known:
            return runtime.lower()
        raise ControlError("unknown_runtime", {"runtime": runtime, "known": sorted(known)})

    # --- what happens --------------------------------------------------------------------------

    def hub_changed(self, change: HubChange) -> None:
        """Something changed at the hub (on the loop, after its commit)."""
        if self.delegation_desk.delegations is not None:
            self.delegation_desk.delegations.hub_changed(change)
        if change.kind == "task":
            self._notify(change.task_id)
            self._publish_task(change.task_id)
        elif change.kind == "agents":
            self._nursery.start(self._publish_agents(), "agents")

    def task_changed(self, life: TaskLife) -> None:
        self._notify(life.record.task_id)
        if life.record.connection == "hub":
            self._publish_task(life.record.task_id)
        else:
            self._publish_record(life.record)
        self.status_changed()

    def task_stretched(self, life: TaskLife, made: Digest) -> None:
        task_id = life.record.task_id
        self._notify(task_id)
        if self.delegation_desk.delegations is not None:
            self.delegation_desk.delegations.stretched(life, made)
        if made.chunks:
            data = {"task_id": task_id, "seq": made.next_seq - 1}
            self.changes.publish("transcript", f"transcript:{task_id}", data)
        if made.usage is not None:
            self.spend_desk.seen(life)

    def task_ended(self, record: TaskRecord, server_status: str) -> None:
        self._notify(record.task_id)
        self.spend_desk.ended(record)
        if self.delegation_desk.delegations is not None:
            self.delegation_desk.delegations.task_ended(record)
        if record.connection != "hub":
            self._publish_record(record)
        if record.outcome == "abandoned":
            log.warning(
                "task %s had been ended at its server (%s) while it ran here; its result is kept",
                record.task_id, server_status,
            )  # fmt: skip
        self.status_changed()

    def task_delivered(self, record: TaskRecord) -> None:
        self._notify(record.task_id)
        if (registration := self.registrations.get(record.connection)) is not None:
            registration.settled(record.runtime_id)

    def journal_trouble(self, error: JournalError | None) -> None:
        if error is None:
            self.clear_condition("disk_full")
        elif self.journal is not None:
            self.set_condition("disk_full", path=str(self.journal.path.parent))

    def conversation_held(self, conversation: str, record: TaskRecord | None) -> None:
        """A conversation was woken too often and waits for the user, or does not any more."""
        if record is None:
            self.clear_condition("wake_limit", conversation)
        else:
            self.set_condition("wake_limit", conversation, task=record.task_id, title=record.title)

    def account_changed(self, provider: str, held: Held | None) -> None:
        """The account of a provider has met a limit, or is not held by one any more."""
        if held is None:
            self.clear_condition("usage_limit", provider)
        else:
            self.set_condition(
                "usage_limit", provider, provider=provider, until=held.until, resets_at=held.resets_at
            )
        self.runtimes_changed()

    def _spending_changed(self) -> None:
        """How the day stands changed; at the limit, so does why tasks wait."""
        self.status_changed()
        if self.hub is not None and self.phase == "running":
            self._nursery.start(self._publish_queued(self.hub), "spending")

    async def _publish_queued(self, hub: Hub) -> None:
        for task in await asked(hub.list(all=False, limit=RECENT_TASKS)):
            if task.status == "queued":
                self.changes.publish("task", f"task:{task.id}", self._row(task))

    def connection_changed(self) -> None:
        """Health of a connection changed."""
        self.status_changed()

    def _publish_task(self, task_id: str) -> None:
        if self.hub is not None and self.phase != "stopping":
            self._nursery.start(self._publish_hub_task(self.hub, task_id), f"publish {task_id}")

    async def _publish_hub_task(self, hub: Hub, task_id: str) -> None:
        task = await hub.get(task_id)
        if task is not None:
            self.changes.publish("task", f"task:{task_id}", self._row(task))

    def _publish_record(self, record: TaskRecord) -> None:
        self.changes.publish("task", f"task:{record.task_id}", self._row_of_record(record))

    def _publish_delegation(self, row: DelegationRow) -> None:
        if self.phase != "stopping":
            self._nursery.start(self.delegation_desk.publish_now(row), f"publish {row.task_id}")
            connection, _, task_id = row.parent_key.partition("/")
            if connection == "hub":
                self._publish_task(task_id)
            elif (life := self._life(task_id, connection)) is not None:
                self._publish_record(life.record)

    async def _publish_agents(self) -> None:
        found = await self.agents()
        for gone in self._agents_told - {agent.id for agent in found}:
            self._agents_told.discard(gone)
            self.changes.publish("agent_removed", f"agent:{gone}", {"id": gone})
        for agent in found:
            self.changes.publish("agent", f"agent:{agent.id}", agent)

    # --- small ---------------------------------------------------------------------------------

    def _ready(self, *, starting: bool = False) -> tuple[Engine, Journal]:
        if self.engine is None or self.journal is None or (self.phase != "running" and not starting):
            raise ControlError("not_ready")
        return self.engine, self.journal

    def _hub(self) -> Hub:
        if self.hub is None:
            raise ControlError("hub_disabled")
        return self.hub


def _time(moment: float | None) -> str:
    if not moment:
        return ""
    return clock.text(dt.datetime.fromtimestamp(moment, dt.UTC))


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _os_name() -> str:
    import sys

    return {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
