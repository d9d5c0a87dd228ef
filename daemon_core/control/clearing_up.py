"""What a deleted conversation had on this machine goes with it: runs, jobs, notices, directories, records."""

from __future__ import annotations

import asyncio
from typing import Protocol

from daemon_core.control.changes import ChangeLog
from daemon_core.control.task_bell import TaskBell
from daemon_core.hub import DeletedConversation
from daemon_core.jobs.conversations import conversation_key, conversation_of
from daemon_core.journal import Journal, TaskRecord
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.housekeeping import Housekeeper
from daemon_core.tasks.owned import Nursery


class Source(Protocol):
    """Where that is which goes; the facade is one of these."""

    @property
    def changes(self) -> ChangeLog: ...
    @property
    def engine(self) -> Engine | None: ...
    @property
    def housekeeper(self) -> Housekeeper | None: ...
    @property
    def follow_up(self) -> FollowUp | None: ...
    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]: ...


class ClearingUp:
    """See the module.

    Args:
        bell: Rings when a run of a task has ended.
        owner: Has the work, which waits for runs to end.
    """

    def __init__(self, source: Source, bell: TaskBell, owner: Nursery) -> None:
        self._source = source
        self._bell = bell
        self._owner = owner

    def conversation_gone(self, deleted: DeletedConversation) -> list[str]:
        """The hub has deleted a conversation: clear up after it; gives the directories that will go."""
        engine = self._source.engine
        if engine is None:
            return []
        reach("conversation_deleted")
        own = [path for path in deleted.work_dirs if engine.task_directories.owns(path)]
        if engine.jobs is not None:
            ended = engine.jobs.end_conversation(conversation_key("hub", deleted.conversation_id))
            self._owner.start(ended, f"jobs of {deleted.conversation_id}")
        self._owner.start(self._clear(deleted.task_ids, own), f"clear {deleted.conversation_id}")
        return own

    async def _clear(self, task_ids: list[str], own: list[str]) -> None:
        """Once its runs have ended, remove what a deleted conversation had on this machine."""
        source = self._source
        engine, journal = source.ready(starting=True)
        for task_id in task_ids:
            for record in await journal.tasks_by_id(task_id):
                # An agent on an issue has its jobs under the name. (Once more when its run is over:
                # it may have started another one.)
                await _end_jobs(engine, record)
                while True:
                    with self._bell.listening(task_id) as changed:
                        if record.key not in engine.lives and record.key not in engine.deliveries:
                            break
                        await changed
                await _end_jobs(engine, record)
                for run in await journal.runs(record.key):
                    await asyncio.to_thread(engine.remove_run, run.run_id)
                if source.follow_up is not None:
                    await source.follow_up.conversation_deleted(conversation_of(record))
                await journal.delete_task(record.key)
            source.changes.publish("task_removed", f"task:{task_id}", {"id": task_id})
        if source.housekeeper is not None:
            for path in own:
                source.housekeeper.remove(path)
            await source.housekeeper.empty_trash()
        if own and engine.repositories is not None:
            await engine.repositories.repositories.prune(gone_only=True)


async def _end_jobs(engine: Engine, record: TaskRecord) -> None:
    """End the jobs of a deleted conversation; returns when nothing of them is in its directory."""
    if engine.jobs is not None:
        conversation = conversation_of(record)
        await engine.jobs.end_conversation(conversation)
        await engine.jobs.settled(conversation)
