"""Tasks as they are shown: what the hub, the journal and the running task know of one, put together."""

from __future__ import annotations

from typing import Protocol

from daemon_core.control import task_views, waiting
from daemon_core.control.changed_desk import ChangedDesk
from daemon_core.control.delegation_desk import DelegationDesk
from daemon_core.control.live_views import live_row, live_view
from daemon_core.control.task_finder import TaskFinder
from daemon_core.control.views import RunView, TaskRow, TaskView
from daemon_core.control.waiting import waiting_of
from daemon_core.hub import HubTask
from daemon_core.journal import Journal, TaskRecord
from daemon_core.tasks.engine import Engine


class Source(waiting.Source, Protocol):
    """Where all that is; the facade is one of these."""

    @property
    def changed(self) -> ChangedDesk: ...
    @property
    def delegation_desk(self) -> DelegationDesk: ...
    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]: ...


class ShownTasks:
    """Makes rows for lists, without asking anybody, and views of single tasks."""

    def __init__(self, source: Source, finder: TaskFinder) -> None:
        self._source = source
        self._finder = finder

    def row(self, task: HubTask) -> TaskRow:
        """A task of the hub in a list, as it is at this moment."""
        source = self._source
        row = task_views.row(task, self._last_action(task.id), waiting_of(source, task, None))
        row = source.changed.row(source.spend_desk.row(live_row(row, self._finder.life(task.id))))
        return source.delegation_desk.row(row, task.parent_key, task.depth)

    def row_of_record(self, record: TaskRecord) -> TaskRow:
        """The same for another server's."""
        source = self._source
        life = self._finder.life(record.task_id, record.connection)
        last_action = self._last_action(record.task_id, record.connection)
        row = source.spend_desk.row(live_row(task_views.row_of_record(record, last_action), life))
        return source.delegation_desk.row(source.changed.row(row), None, 0)

    async def rows(self, rows: list[TaskRow]) -> list[TaskRow]:
        """Rows with what is kept elsewhere: their costs, and how many files they changed."""
        return await self._source.changed.rows(await self._source.spend_desk.rows(rows))

    async def view(self, task: HubTask, record: TaskRecord | None) -> TaskView:
        """A task of the hub with everything about it; ``record``: what the journal has of it."""
        source = self._source
        runs = await self._runs(record) if record is not None else []
        view = task_views.view(task, record, runs, waiting_of(source, task, record))
        view = await source.spend_desk.task(live_view(view, record, self._finder.life(task.id)))
        return await source.delegation_desk.view(view, task.parent_key, task.depth)

    async def view_of_record(self, record: TaskRecord) -> TaskView:
        """The same for another server's."""
        view = task_views.view_of_record(record, await self._runs(record))
        view = live_view(view, record, self._finder.life(record.task_id, record.connection))
        view = await self._source.spend_desk.task(view)
        return await self._source.delegation_desk.view(view, None, 0)

    def _last_action(self, task_id: str, connection: str = "hub") -> str:
        life = self._finder.life(task_id, connection)
        return life.progress.last_action if life is not None else ""

    async def _runs(self, record: TaskRecord) -> list[RunView]:
        _, journal = self._source.ready(starting=True)
        return [
            task_views.run_view(run, current=run.run_id == record.run_id)
            for run in await journal.runs(record.key)
        ]
