"""A task ends: its result is made durable, then what is left of it is tidied up."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from daemon_core.tasks import clock, results
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.results import Result
from daemon_core.tasks.secrets import ClaimFile
from daemon_core.tasks.stamps import stamp_of
from daemon_core.workdirs.worktrees import branch_of

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

FRESH_NOTE: Final = "fresh session: the earlier one is gone at the agent"
"""In the journal, of a run that takes the place of one whose session was gone."""


async def fail(life: TaskLife, error: str, reason: str) -> None:
    """The task ends without a run, or with one that is not worth judging; the server's word is first."""
    await end(
        life,
        results.failed(
            error,
            reason,
            session=life.record.session_id,
            usage=life.used(),
            server_status=life.server_status,
        ),
    )


async def end(life: TaskLife, result: Result) -> None:
    """Make the result durable; from then on it is delivered, whatever happens here."""
    record = life.record
    reports: list[tuple[str, bytes]] = []
    if life.server_status != "gone":
        branch = ""
        if record.work_dir and not record.directory:
            branch = await asyncio.to_thread(branch_of, Path(record.work_dir), record.task_id)
        retired = await _retired(life)
        reports = results.reports_of(result, record.work_dir, branch, retired, told=life.usage_told)
    now = clock.now_text()
    changes: dict[str, object] = {
        "outcome": result.outcome,
        "output": result.output,
        "error": result.error,
        "failure_reason": result.reason,
        "session_id": result.session,
        "usage": msgspec.json.encode(result.usage),
        "ended_at": now,
    }
    await life.ahead.settled()  # a task can end before its run has begun
    if life.engine.follow_up is not None:
        await life.engine.follow_up.run_over(life)  # a run that has begun has given back before
    await _keep_changes(life)  # before what Ostler wrote is taken out: that is no change of the task
    await asyncio.to_thread(life.files.take_out, record.task_id, record.directory)
    reach("before_result")
    await life.engine.patience.carry(lambda: life.engine.journal.end_task(record.key, changes, reports))
    reach("result")
    life.note(**changes, state="ended")
    life.delivery.ended()
    await asyncio.to_thread(_tidy, life, now)


async def _retired(life: TaskLife) -> str:
    """The session that an earlier run of the task was to resume and that its agent did not know; "" for
    none."""
    if life.run.number == 1:
        return ""
    runs = await life.engine.patience.carry(lambda: life.engine.journal.runs(life.record.key))
    for before, run in itertools.pairwise(sorted(runs, key=lambda each: each.number)):
        if run.note == FRESH_NOTE:
            return before.resumed_session
    return ""


async def _keep_changes(life: TaskLife) -> None:
    changes, record = life.engine.changes, life.record
    if changes is None:
        return
    reach("before_changes")
    try:
        await asyncio.to_thread(changes.finish, record.key)
    except (OSError, ValueError) as error:
        log.warning("task %s: what it changed is not known: %s", record.task_id, error)
    reach("changes")


def _tidy(life: TaskLife, now: str) -> None:
    """Stamp the directory for clean-up; secrets of a run that never started go, too (in a thread)."""
    record = life.record
    try:
        ClaimFile(life.run_dir).remove()
        if record.work_dir and not record.directory:
            life.engine.task_directories.stamp(record.work_dir, stamp_of(record, now))
    except OSError as error:
        log.warning("task %s is not tidied up: %s", record.task_id, error)
