"""What tasks said, line by line: from the journal, or from the hub for tasks that no run here has."""

from __future__ import annotations

from typing import Protocol

import msgspec

from daemon_core.control.backend import TranscriptPage
from daemon_core.control.refusals import asked
from daemon_core.control.task_bell import TaskBell
from daemon_core.control.task_finder import TaskFinder
from daemon_core.control.views import TranscriptLine
from daemon_core.hub import Hub, HubTask
from daemon_core.journal import Journal
from daemon_core.protocol import wire
from daemon_core.tasks.engine import Engine

_Messages = msgspec.json.Decoder(list[wire.TaskMessage])


class Source(Protocol):
    """Where the lines are; the facade is one of these."""

    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]: ...
    def need_hub(self) -> Hub: ...


class Transcripts:
    """Reads them.

    Args:
        bell: Rings when a task has new lines.
    """

    def __init__(self, source: Source, finder: TaskFinder, bell: TaskBell) -> None:
        self._source = source
        self._finder = finder
        self._bell = bell

    async def page(self, task_id: str, after: int, limit: int) -> TranscriptPage:
        """At most ``limit`` lines with ``seq`` above ``after``; ``ended`` only if none follow them."""
        _, journal = self._source.ready()
        task, record = await self._finder.find(task_id)
        if record is None:
            assert task is not None
            return await self._page_of_hub(task, after, limit)
        chunks = await journal.transcript(record.key, after, max(1, limit // 100))
        lines: list[TranscriptLine] = []
        complete = True
        for chunk in chunks:
            for message in _Messages.decode(chunk.body):
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
        # No lines at all: what is missing was lost with a damaged journal, and nobody needs to wait for it.
        ended = over and complete and (last >= record.next_seq - 1 or not lines)
        return TranscriptPage(lines=lines, ended=ended)

    async def wait(self, task_id: str, after: int) -> None:
        """Return when there is a line above ``after`` or the task has ended. Safe to cancel."""
        task, record = await self._finder.find(task_id)
        full_id = task.id if task is not None else record.task_id if record is not None else task_id
        while True:
            with self._bell.listening(full_id) as changed:
                page = await self.page(full_id, after, 1)
                if page.lines or page.ended:
                    return
                await changed

    async def _page_of_hub(self, task: HubTask, after: int, limit: int) -> TranscriptPage:
        stored = await asked(self._source.need_hub().messages(task.id, after, limit))
        lines = [
            TranscriptLine(
                seq=line.seq, type=line.type, content=line.content, tool=line.tool, input=line.input,
                output=line.output, at=line.created_at or "",
            )
            for line in stored
        ]  # fmt: skip
        ended = task.status in wire.TERMINAL_STATUSES and len(lines) < limit
        return TranscriptPage(lines=lines, ended=ended)
