"""Why a task of the hub waits: what holds all tasks comes before what holds this one alone."""

from __future__ import annotations

from typing import Protocol

from daemon_core.control.pause_desk import PauseDesk
from daemon_core.control.spend_desk import SpendDesk
from daemon_core.control.status_desk import StatusDesk
from daemon_core.control.views import Condition
from daemon_core.hub import HubTask
from daemon_core.journal import TaskRecord
from daemon_core.tasks.engine import Engine


class Source(Protocol):
    """Where the reasons are; the facade is one of these."""

    @property
    def engine(self) -> Engine | None: ...
    @property
    def pause_desk(self) -> PauseDesk: ...
    @property
    def spend_desk(self) -> SpendDesk: ...
    @property
    def status_desk(self) -> StatusDesk: ...


def waiting_of(source: Source, task: HubTask, record: TaskRecord | None) -> Condition | None:
    """Why the task waits; None for one that does not, or where nothing is known.

    Args:
        record: What the journal has of it, where that was asked.
    """
    if task.status == "waiting_local_directory":
        return _for_directory(source.engine, task, record)
    if task.status == "parked":
        until = task.parked_until
        return Condition(
            code="usage_limit",
            params={"provider": task.provider, "until": until, "goes_on": task.goes_on},
            next_try_at=until if task.goes_on else None,
            action="retry",
        )
    return _queued(source, task) if task.status == "queued" else None


def _for_directory(engine: Engine | None, task: HubTask, record: TaskRecord | None) -> Condition:
    holder = record.waiting_for if record else ""
    lives = engine.lives.values() if engine is not None else ()
    title = next((life.record.title for life in lives if holder and life.record.task_id == holder), "")
    params = {"path": task.directory or "", "held_by": holder, "held_by_title": title}
    return Condition(code="waiting_directory", params=params)


def _queued(source: Source, task: HubTask) -> Condition | None:
    engine, pause, conditions = source.engine, source.pause_desk.standing, source.status_desk.conditions
    if pause is not None:
        return Condition(code="paused", params={"until": pause.until}, since=pause.since)
    if (spent := source.spend_desk.waiting()) is not None:
        return spent
    for held in ("disk_low:", "disk_full:", f"usage_limit:{task.provider}"):
        if held in conditions:
            return conditions[held]
    if task.waiting_reason == "conversation_busy":
        return Condition(code="waiting_turn")
    if task.waiting_reason in ("no_runtime", "runtime_offline"):
        return Condition(code="waiting_runtime", params={"runtime": task.provider})
    model = task.model or (engine.default_model(task.provider) if engine is not None else "")
    if engine is not None and model in engine.slots.full_models():
        return Condition(code="waiting_model", params={"model": model, "limit": engine.slots.models[model]})
    if task.waiting_reason == "agent_busy" or (
        engine is not None and not engine.slots.free_for(task.provider)
    ):
        return Condition(code="waiting_slot", params={"slots": engine.slots.total if engine else 0})
    return None
