"""A daemon that keeps everything in memory: the whole ``Backend`` contract, with nothing behind it."""

from __future__ import annotations

import asyncio
import itertools
import os

import msgspec

from daemon_core.control.backend import Backend, TranscriptPage, resolve_id
from daemon_core.control.changes import ChangeLog
from daemon_core.control.connection_routes import ConnectionHost
from daemon_core.control.delegation_desk import DelegationDesk
from daemon_core.control.errors import ControlError
from daemon_core.control.history_desk import HistoryDesk
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.models_desk import ModelsDesk
from daemon_core.control.requests_desk import RequestsDesk
from daemon_core.control.resident_desk import ResidentDesk
from daemon_core.control.runtime_routes import RuntimeHost
from daemon_core.control.settings_desk import SettingsDesk
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
    TranscriptLine,
)

NOW = "2026-05-04T10:00:00Z"
ENDED = ("completed", "failed", "cancelled")


class MemoryBackend:
    """Tasks do what the test says: ``say`` adds a line, ``finish`` ends one."""

    def __init__(self) -> None:
        self.changes = ChangeLog()
        self.servers: ConnectionHost | None = None
        self.requests: RequestsDesk | None = None
        self.delegation_desk: DelegationDesk | None = None
        self.history: HistoryDesk | None = None
        self.job_desk: JobDesk | None = None
        self.resident_desk: ResidentDesk | None = None
        self.models: ModelsDesk | None = None
        self.runtime_desk: RuntimeHost | None = None
        self.settings_desk: SettingsDesk | None = None
        self.update_desk: UpdateHost | None = None
        self.stats_desk: StatsDesk | None = None
        self.turns_desk: TurnsDesk | None = None
        self.spend_desk: SpendDesk | None = None
        self.changed: TaskChanges | None = None
        self.report = DiskReport()
        self.round = CleanRound()
        self.tasks: dict[str, TaskView] = {}
        self.lines: dict[str, list[TranscriptLine]] = {}
        self.named: dict[str, AgentView] = {}
        self.barrier: Barrier | None = None
        self.state = "running"
        self.stopped = asyncio.Event()
        self.own_marks: set[str] = set()
        self.reloads = 0
        self._moved = asyncio.Condition()
        self._numbers = itertools.count(1)

    # --- what a test does --------------------------------------------------------------------------

    async def say(self, task_id: str, *lines: TranscriptLine) -> None:
        async with self._moved:
            self.lines[task_id].extend(lines)
            self._moved.notify_all()

    async def text(self, task_id: str, content: str) -> None:
        seq = len(self.lines[task_id]) + 1
        await self.say(task_id, TranscriptLine(seq=seq, type="text", content=content, at=NOW))

    async def finish(
        self, task_id: str, status: str = "completed", reason: str = "", error: str = ""
    ) -> None:
        async with self._moved:
            self._put(
                msgspec.structs.replace(
                    self.tasks[task_id], status=status, ended_at=NOW, failure_reason=reason, error=error
                )
            )
            self._moved.notify_all()

    def _put(self, view: TaskView) -> TaskView:
        self.tasks[view.id] = view
        self.changes.publish("task", f"task:{view.id}", _row(view))
        return view

    def _find(self, given: str) -> TaskView:
        return self.tasks[resolve_id("task", given, self.tasks)]

    def _check_runtime(self, runtime: str) -> None:
        if runtime not in ("", "shell", "claude"):
            raise ControlError("unknown_runtime", {"runtime": runtime, "known": ["claude", "shell"]})

    # --- the contract ------------------------------------------------------------------------------

    def owns_mark(self, mark: str) -> bool:
        return mark in self.own_marks

    async def status(self) -> DaemonStatus:
        return DaemonStatus(
            status="running" if self.state == "running" else "starting",
            pid=os.getpid(),
            version="9.9.9",
            uptime=61.5,
            port=21514,
            active_runs=sum(task.status == "running" for task in self.tasks.values()),
            slots=8,
            barrier=self.barrier,
            runtimes=2,
        )

    async def health(self) -> Health:
        return Health(status="running", pid=os.getpid(), os="linux", uptime="1m1s", version="9.9.9")

    async def runtimes(self, refresh: bool) -> list[RuntimeView]:
        return [
            RuntimeView(id="r-1", provider="shell", version="5.2", path="/bin/sh", connection="hub"),
            RuntimeView(
                id="",
                provider="claude",
                status="unusable",
                version="1.0.3",
                reason="version_too_old",
                reason_params={"version": "1.0.3", "min_version": "2.0.0"},
            ),
        ]

    async def pause(self, request: Pause) -> DaemonStatus:
        self.barrier = Barrier(reason="user", since=NOW, until=request.until)
        return await self.status()

    async def resume(self) -> DaemonStatus:
        self.barrier = None
        return await self.status()

    async def stop(self, request: Stop) -> StopAnswer:
        self.stopped.set()
        running = sum(task.status == "running" for task in self.tasks.values())
        return StopAnswer(runs_alive=0 if request.runs else running, pid=os.getpid())

    async def reload_settings(self) -> ReloadAnswer:
        self.reloads += 1
        return ReloadAnswer(applied=["daemon.slots"], needs_restart=["daemon.port"])

    async def add_task(self, request: TaskAdd) -> TaskView:
        self._check_runtime(request.runtime)
        if request.agent and request.agent not in self.named:
            raise ControlError("no_such_agent", {"agent": request.agent, "known": sorted(self.named)})
        if request.directory and not os.path.isdir(request.directory):
            raise ControlError("directory_not_found", {"path": request.directory})
        ident = f"{next(self._numbers):08d}-0000-7000-8000-000000000000"
        self.lines[ident] = []
        return self._put(
            TaskView(
                id=ident,
                title=request.title or request.prompt[:40],
                status="running",
                runtime=request.runtime or "claude",
                created_at=NOW,
                started_at=NOW,
                conversation_id=f"c-{ident}",
                prompt=request.prompt,
                directory=request.directory,
            )
        )

    async def reply(self, task_id: str, request: TaskReply) -> TaskView:
        before = self._find(task_id)
        made = await self.add_task(TaskAdd(prompt=request.prompt, runtime=before.runtime))
        return self._put(msgspec.structs.replace(made, conversation_id=before.conversation_id))

    async def list_tasks(self, include_all: bool) -> list[TaskRow]:
        return [_row(task) for task in reversed(self.tasks.values())]

    async def get_task(self, task_id: str) -> TaskView:
        return self._find(task_id)

    async def cancel(self, task_id: str) -> TaskView:
        found = self._find(task_id)
        if found.status in ENDED:
            raise ControlError("conflict", {"what": "task_ended", "id": found.id})
        await self.finish(found.id, "cancelled")
        return self.tasks[found.id]

    async def retry(self, task_id: str) -> TaskView:
        found = self._find(task_id)
        if found.status not in ENDED:
            raise ControlError("conflict", {"what": "task_not_ended", "id": found.id})
        return await self.add_task(TaskAdd(prompt=found.prompt, runtime=found.runtime))

    async def delete(self, task_id: str) -> Deleted:
        found = self._find(task_id)
        del self.tasks[found.id]
        self.changes.publish("task_removed", f"task:{found.id}", {"id": found.id})
        return Deleted(id=found.id, conversation_id=found.conversation_id, tasks=1)

    async def transcript(self, task_id: str, after: int, limit: int) -> TranscriptPage:
        lines = self.lines[task_id][after : after + limit]
        ended = self.tasks[task_id].status in ENDED and after + len(lines) == len(self.lines[task_id])
        return TranscriptPage(lines=lines, ended=ended)

    async def wait_transcript(self, task_id: str, after: int) -> None:
        async with self._moved:
            await self._moved.wait_for(
                lambda: len(self.lines[task_id]) > after or self.tasks[task_id].status in ENDED
            )

    async def task_changes(self, task_id: str, stat: bool) -> TaskChanges:
        found = self._find(task_id)
        changed = self.changed or TaskChanges(id=found.id)
        files = [msgspec.structs.replace(file, diff="" if stat else file.diff) for file in changed.files]
        return msgspec.structs.replace(changed, id=found.id, files=files)

    async def disk(self) -> DiskReport:
        return self.report

    async def clean_disk(self, request: CleanRequest) -> CleanRound:
        return msgspec.structs.replace(self.round, dry_run=request.dry_run)

    async def agents(self) -> list[AgentView]:
        return list(self.named.values())

    async def add_agent(self, request: AgentAdd) -> AgentView:
        self._check_runtime(request.runtime)
        if request.name in self.named:
            raise ControlError("agent_exists", {"agent": request.name})
        self.named[request.name] = AgentView(
            id=f"a-{request.name}",
            name=request.name,
            runtime=request.runtime,
            model=request.model,
            instructions=request.instructions,
            args=request.args,
            env_names=sorted(request.env),
        )
        return self.named[request.name]

    async def edit_agent(self, name: str, request: AgentEdit) -> AgentView:
        if name not in self.named:
            raise ControlError("no_such_agent", {"agent": name, "known": sorted(self.named)})
        given = msgspec.to_builtins(request)
        if "env" in given:
            given["env_names"] = sorted(given.pop("env"))
        self.named[name] = msgspec.structs.replace(self.named[name], **given)
        return self.named[name]

    async def remove_agent(self, name: str) -> AgentView:
        if name not in self.named:
            raise ControlError("no_such_agent", {"agent": name, "known": sorted(self.named)})
        return self.named.pop(name)


def _row(view: TaskView) -> TaskRow:
    shared = {field: getattr(view, field) for field in TaskRow.__struct_fields__ if hasattr(view, field)}
    return TaskRow(**shared)


def _check(backend: MemoryBackend) -> Backend:
    """Held by the type checker: this is the whole contract."""
    return backend
