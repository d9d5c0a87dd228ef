"""The state that everything on the screen is made of: one immutable value, replaced as a whole.

``apply`` is a pure step from one state to the next, so what the tray and the windows show can be tested
without a daemon and without Qt. A state says also what it does not know: ``link`` tells how fresh it is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from daemon_core.control.views import (
    AgentView,
    Barrier,
    ChangeEvent,
    Condition,
    DaemonStatus,
    JobView,
    ResidentView,
    RuntimeView,
    Snapshot,
    TaskRow,
    UpdateView,
)

ACTIVE: Final = frozenset({"dispatched", "running", "waiting_local_directory"})
"""Tasks that this daemon works on."""
WAITING: Final = frozenset({"queued", "parked"})
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
SHELL: Final = "shell"
"""The runtime that runs commands: always there, and no agent."""


class LinkPhase(enum.Enum):
    """How the desktop stands with its daemon."""

    CONNECTING = "connecting"
    """Nothing is known yet."""
    CONNECTED = "connected"
    ABSENT = "absent"
    """No daemon runs, or it has just gone."""
    HUNG = "hung"
    """One is there and does not answer."""
    FOREIGN = "foreign"
    """Something answers that is not Ostler's daemon."""
    TOO_OLD = "too_old"
    TOO_NEW = "too_new"
    """It speaks an API that this desktop does not."""


class Supervision(enum.Enum):
    """What the desktop does about a daemon that is not there."""

    NONE = "none"
    STARTING = "starting"
    WAITING = "waiting"
    """It crashed and is started again after a pause."""
    GAVE_UP = "gave_up"
    STOPPED = "stopped"
    """The user stopped it."""
    STUCK = "stuck"
    """Its process is there, and nobody can reach it."""
    FAILED = "failed"
    """It cannot be started: the words are its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesktopState:
    """Everything that is known now.

    Attributes:
        revision: Of the newest change that is in here.
        tasks: What goes on or waits, and the last that ended; by id, newest first.
        since: When ``link`` became what it is (RFC 3339).
        unsure: It was asked whether it is there and has not said so in good time: what is shown may be old.
        next_try_at: When the daemon is tried again by itself, as RFC 3339; empty: it is not.
        detail: What the last attempt to reach the daemon came to.
        said: What a daemon that does not start, or that crashed, said last.
    """

    link: LinkPhase = LinkPhase.CONNECTING
    supervision: Supervision = Supervision.NONE
    since: str = ""
    unsure: bool = False
    next_try_at: str = ""
    detail: str = ""
    said: str = ""
    revision: int = 0
    status: DaemonStatus | None = None
    runtimes: Mapping[str, RuntimeView] = field(default_factory=dict)
    tasks: Mapping[str, TaskRow] = field(default_factory=dict)
    agents: Mapping[str, AgentView] = field(default_factory=dict)
    jobs: Mapping[str, JobView] = field(default_factory=dict)
    residents: Mapping[str, ResidentView] = field(default_factory=dict)
    update: UpdateView | None = None

    @property
    def connected(self) -> bool:
        return self.link is LinkPhase.CONNECTED

    @property
    def needing(self) -> tuple[TaskRow, ...]:
        """Tasks that wait for an answer of the user's."""
        return tuple(task for task in self.tasks.values() if task.needs_input and task.status in ACTIVE)

    @property
    def active(self) -> tuple[TaskRow, ...]:
        """Tasks at work that need nothing, the longest-running first."""
        found = [task for task in self.tasks.values() if task.status in ACTIVE and not task.needs_input]
        return tuple(sorted(found, key=lambda task: task.started_at or task.created_at))

    @property
    def waiting(self) -> tuple[TaskRow, ...]:
        """Tasks that wait for a slot, a runtime or a time."""
        return tuple(task for task in self.tasks.values() if task.status in WAITING)

    @property
    def ended(self) -> tuple[TaskRow, ...]:
        """The last tasks that ended, the newest first."""
        found = [task for task in self.tasks.values() if task.status in ENDED]
        return tuple(sorted(found, key=lambda task: task.ended_at or task.created_at, reverse=True))

    @property
    def barrier(self) -> Barrier | None:
        return self.status.barrier if self.status is not None else None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(self.status.conditions) if self.status is not None else ()


def from_snapshot(state: DesktopState, snapshot: Snapshot) -> DesktopState:
    """The state that a snapshot tells; how the desktop stands with the daemon stays as it is."""
    return replace(
        state,
        revision=snapshot.revision,
        status=snapshot.status,
        runtimes={runtime.id: runtime for runtime in snapshot.runtimes},
        tasks={task.id: task for task in snapshot.tasks},
        agents={agent.name: agent for agent in snapshot.agents},
        jobs={job.id: job for job in snapshot.jobs},
        residents={resident.id: resident for resident in snapshot.residents},
        update=snapshot.update,
    )


class ResetNeededError(Exception):
    """The daemon has forgotten what happened meanwhile: a new snapshot is needed."""


def apply(state: DesktopState, events: Iterable[ChangeEvent]) -> DesktopState:
    """The state after these changes; unknown kinds are passed over.

    Raises ``ResetNeededError``.
    """
    changed: dict[str, Any] = {}
    revision = state.revision

    def table(name: str) -> dict[str, Any]:
        if name not in changed:
            changed[name] = dict(getattr(state, name))
        found: dict[str, Any] = changed[name]
        return found

    for event in events:
        revision = max(revision, event.revision)
        match event.kind:
            case "reset":
                raise ResetNeededError
            case "status":
                changed["status"] = _decode(event, DaemonStatus)
            case "task":
                task = _decode(event, TaskRow)
                tasks = table("tasks")
                if task.id in tasks:
                    tasks[task.id] = task
                else:
                    changed["tasks"] = {task.id: task, **tasks}
            case "task_removed":
                table("tasks").pop(_id(event), None)
            case "runtime":
                runtime = _decode(event, RuntimeView)
                table("runtimes")[runtime.id] = runtime
            case "runtime_removed":
                table("runtimes").pop(_id(event), None)
            case "job":
                job = _decode(event, JobView)
                table("jobs")[job.id] = job
            case "job_removed":
                table("jobs").pop(_id(event), None)
            case "resident":
                resident = _decode(event, ResidentView)
                table("residents")[resident.id] = resident
            case "resident_removed":
                table("residents").pop(_id(event), None)
            case "update":
                changed["update"] = _decode(event, UpdateView)
            case "agent":
                agent = _decode(event, AgentView)
                agents = table("agents")
                for name in [name for name, known in agents.items() if known.id == agent.id]:
                    del agents[name]
                agents[agent.name] = agent
            case "agent_removed":
                gone = _id(event)
                agents = table("agents")
                for name in [name for name, known in agents.items() if gone in (known.id, name)]:
                    del agents[name]
            case _:
                pass
    return replace(state, revision=revision, **changed)


def _decode(event: ChangeEvent, kind: type[Any]) -> Any:
    return msgspec.json.decode(event.data, type=kind)


def _id(event: ChangeEvent) -> str:
    return str(msgspec.json.decode(event.data, type=dict[str, Any]).get("id", ""))


def hangs(state: DesktopState) -> bool:
    """Whether a daemon is there that does not answer: only ending it helps."""
    return state.link is LinkPhase.HUNG or (
        state.supervision is Supervision.STUCK and state.link in (LinkPhase.ABSENT, LinkPhase.CONNECTING)
    )


def ready_agents(state: DesktopState) -> int:
    """How many agents can be given a task, each counted once however many servers it works for."""
    return len({
        runtime.provider
        for runtime in state.runtimes.values()
        if runtime.status == "online" and runtime.provider != SHELL
    })  # fmt: skip


def known_agents(state: DesktopState) -> list[tuple[str, str]]:
    """Who can be given a task here: (name, "agent NAME" or "runtime ID")."""
    known = [(agent.name, f"agent {agent.name}") for agent in state.agents.values()]
    seen = set()
    for runtime in state.runtimes.values():
        if runtime.status == "online" and runtime.connection in ("", "hub"):
            ident = runtime.id if runtime.profile else runtime.provider
            if ident not in seen:
                seen.add(ident)
                known.append((runtime.name or runtime.provider, f"runtime {ident}"))
    return known
