"""Which task is meant: by its id, the beginning of it, or that of its conversation, wherever it is stored."""

from __future__ import annotations

from typing import Protocol

from daemon_core.control.backend import PREFIX_LEAST, resolve_id
from daemon_core.control.errors import ControlError
from daemon_core.control.refusals import asked
from daemon_core.hub import Hub, HubTask
from daemon_core.journal import Journal, TaskRecord
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.life import TaskLife


class Source(Protocol):
    """Where the tasks are; the facade is one of these."""

    @property
    def hub(self) -> Hub | None: ...
    @property
    def engine(self) -> Engine | None: ...
    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]: ...


class TaskFinder:
    """Looks in the hub, in the journal and among the running tasks."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def find(self, given: str) -> tuple[HubTask | None, TaskRecord | None]:
        """The one task that is meant; by its conversation, that one's newest turn.

        Returns:
            What the hub has of it (None: it is another server's), and what the journal has; never neither.

        Raises:
            ControlError: not_found, ambiguous_id, invalid_input (too short), not_ready.
        """
        _, journal = self._source.ready()
        wanted = given.strip().lower()
        if len(wanted) < PREFIX_LEAST:
            resolve_id("task", given, ())
        tasks: dict[str, HubTask] = {}
        hub = self._source.hub
        if hub is not None:
            exact = await hub.get(wanted)
            if exact is not None:
                return exact, await self.record(exact.id)
            tasks = {task.id: task for task in await asked(hub.find(wanted))}
        records: dict[str, TaskRecord] = {}
        if all(character in "0123456789abcdef-" for character in wanted):
            newest: dict[str, TaskRecord] = {}
            for record in await journal.find_tasks(wanted):
                if record.connection == "hub" and hub is not None:
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
            return task, await self.record(task.id)
        if not records:
            raise ControlError("not_found", {"kind": "task", "id": given})
        (record,) = records.values()
        return None, record

    async def of_hub(self, given: str) -> HubTask:
        """The same where only the hub's will do. Raises ``ControlError``: conflict (not_local), too."""
        task, record = await self.find(given)
        if task is None:
            assert record is not None
            raise ControlError("conflict", {"what": "not_local", "id": record.task_id})
        return task

    async def record(self, task_id: str) -> TaskRecord | None:
        """What the journal has of a task, by its whole id."""
        _, journal = self._source.ready()
        found = await journal.tasks_by_id(task_id)
        return found[0] if found else None

    def life(self, task_id: str, connection: str = "hub") -> TaskLife | None:
        """The life of a task, while it is worked on here."""
        engine = self._source.engine
        return engine.lives.get(f"{connection}/{task_id}") if engine is not None else None
