"""A task of another server whose agent has ended its turn while jobs that will wake it go on.

The server's protocol knows no wake-up: a task that is reported as complete is over. So it stays running
there, without a run and without a slot here, its directory free for others, until the jobs have something to
tell; then a further run of the same task resumes the session with it. The server hears one result, in the
end, with the usage of all runs (promise P1), and one transcript (promise P3).

Earlier servers fail what has run for a time, whatever it does, and its result would be lost. So the waiting
ends before that (``closes_at``): the task is over with what is known and says that something of it goes on,
and what becomes of that waits for the conversation's next turn.

Nothing of the waiting is recorded, since it follows from what is: a new life of the daemon finds a task whose
run has ended, judges the run once more and comes to wait again.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from daemon_core.journal import RunRecord
from daemon_core.protocol.wire import Task
from daemon_core.settings.values import format_duration
from daemon_core.tasks import clock, spawning
from daemon_core.tasks.barrier import BarrierUpError
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.launch import OverError
from daemon_core.tasks.preparing import TaskFiles
from daemon_core.tasks.results import Result
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from daemon_core.tasks.slots import Slot
from daemon_core.tasks.telling import told

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

FOR_JOBS: Final = "jobs"
"""``TaskLife.waiting``: its agent has ended its turn, its jobs have not ended."""
FOR_SLOT: Final = "slot"
"""They have something to tell; a place to go on is waited for."""
LOOK_S: Final = 300.0
"""While a task is kept open the clock is looked at so often: timers stand still while a machine sleeps."""
SAID: Final = (
    "Background work of this task still goes on. Its server ends tasks that are open for long, so it was not"
    " waited for beyond {limit} after the start; how it ends is told at the next turn of this conversation."
)
"""Behind the result of a task that was over before what it had begun."""


def closes_at(life: TaskLife, follow_up: FollowUp) -> dt.datetime | None:
    """When the waiting ends, so that the server does not fail the task first; None: it never does.

    The server counts from the start that it has accepted, and so is counted here.
    """
    limit_s = follow_up.keep_open_for_s()
    started = clock.parse(life.record.started_at)
    if not limit_s or life.connection.is_later or started is None:
        return None
    return started + dt.timedelta(seconds=limit_s)


def is_closed(life: TaskLife, follow_up: FollowUp) -> bool:
    """Whether the server is not to be waited on any more."""
    left_s = _open_s(life, follow_up)
    return left_s is not None and left_s <= 0


async def goes_on(life: TaskLife, result: Result) -> bool:
    """Wait for a reason to go on, and record the further run that does; False if the task is over now."""
    follow_up = _follow_up(life, result)
    if follow_up is None or is_closed(life, follow_up) or not await follow_up.expects_more(life):
        return False
    file = ClaimFile(life.run_dir)
    claim = life.claim or await asyncio.to_thread(file.read_further)
    if claim is None:
        log.warning("task %s: what it would need to go on is gone", life.record.task_id)
        return False
    life.claim = claim  # its token stands for it while it waits, too
    try:
        await life.engine.patience.carry(lambda: asyncio.to_thread(file.keep_for_further, claim))
        with contextlib.suppress(OverError):
            await life.until_over(_make_room(life), "release")
            await life.until_over(_wait_for_news(life, follow_up), "wait")
        if life.over.is_set() or not await follow_up.has_news(life):
            return False
        life.waiting = FOR_SLOT
        life.engine.changed(life)
        with contextlib.suppress(OverError, TimeoutError):
            return await _take_place(life, follow_up, result, claim)
        return False
    finally:
        life.waiting = life.kept_until = ""


async def parting(life: TaskLife, result: Result) -> Result:
    """The result of a task that is over now: with that something of it goes on, where its server would not
    have waited for that. It follows from what is, so a death in between changes nothing."""
    follow_up = _follow_up(life, result)
    if follow_up is None or not is_closed(life, follow_up) or not await follow_up.expects_more(life):
        return result
    limit = format_duration(follow_up.keep_open_for_s())
    log.warning("task %s is not kept open for longer than %s", life.record.task_id, limit)
    await spawning.warn(life, (SAID.format(limit=limit),))
    output = "\n\n".join(part for part in (result.output, f"({SAID.format(limit=limit)})") if part.strip())
    return msgspec.structs.replace(result, output=output)


def _follow_up(life: TaskLife, result: Result) -> FollowUp | None:
    """What knows of a task's background work, for one that could go on with that in a further run."""
    if life.connection.timing.loopback or result.outcome != "completed" or not result.session:
        return None
    return None if life.over.is_set() else life.engine.follow_up


async def _make_room(life: TaskLife) -> None:
    """Give back slot and directory; what Ostler wrote for the run leaves the user's directory."""
    reach("before_keeping")
    life.waiting = FOR_JOBS
    files = life.files
    life.files = TaskFiles(life.engine.environments)
    await asyncio.to_thread(files.take_out, life.record.task_id, life.record.directory)
    life.give_back()
    log.info("task %s is kept open: jobs of it go on", life.record.task_id)
    life.engine.changed(life)
    reach("keeping")


async def _wait_for_news(life: TaskLife, follow_up: FollowUp) -> None:
    while await follow_up.expects_more(life):
        life.noticed.clear()
        # A job's end and its notice are one transaction, so between these two nothing is missed.
        if await follow_up.has_news(life):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_left_s(life, follow_up)):
                await life.noticed.wait()
        if is_closed(life, follow_up):
            return


def _left_s(life: TaskLife, follow_up: FollowUp) -> float | None:
    """How long may be waited before the next look; it is shown until when in all."""
    until = closes_at(life, follow_up)
    shown = clock.text(until) if until is not None else ""
    if shown != life.kept_until:
        life.kept_until = shown
        life.engine.changed(life)
    left_s = _open_s(life, follow_up)
    return None if left_s is None else min(LOOK_S, max(0.0, left_s))


def _open_s(life: TaskLife, follow_up: FollowUp) -> float | None:
    """How long the task may be kept open yet, negative when that is over; None: without end."""
    until = closes_at(life, follow_up)
    return None if until is None else (until - dt.datetime.now(dt.UTC)).total_seconds()


async def _take_place(life: TaskLife, follow_up: FollowUp, result: Result, claim: Task) -> bool:
    """A slot, the barrier, then the further run, in the order in which a claim takes them."""
    engine = life.engine
    places: list[Slot] = []
    try:
        while True:
            await life.until_over(_take_slot_in_time(life, follow_up, places), "slot")
            try:
                if not engine.claims_held:
                    with engine.barrier.claiming():
                        # Not broken off by the end of the task: what is written here has to be known here.
                        await _record(life, follow_up, result, claim, places[-1])
                        life.slot = places.pop()
                        return True
            except BarrierUpError:
                pass  # it went up between the wait and the slot
            places.pop().release()
    finally:
        for slot in places:
            slot.release()


async def _take_slot_in_time(life: TaskLife, follow_up: FollowUp, places: list[Slot]) -> None:
    """Raises ``TimeoutError`` when the server is not to be waited on any more."""
    async with asyncio.timeout(_open_s(life, follow_up)):
        await _take_slot(life, places)


async def _take_slot(life: TaskLife, places: list[Slot]) -> None:
    engine, provider = life.engine, life.record.provider
    if engine.accounts is not None:
        await engine.accounts.wait(provider)
    await engine.claims_possible()
    places.append(await engine.slots.acquire(provider))


async def _record(life: TaskLife, follow_up: FollowUp, result: Result, claim: Task, slot: Slot) -> None:
    record, old_dir = life.record, life.run_dir
    news = await follow_up.news(life)
    run = RunRecord(
        run_id=new_run_id(),
        task_key=record.key,
        number=life.run.number + 1,
        mark=new_run_id(),
        note="goes on with what its jobs have come to",
    )
    claim = msgspec.structs.replace(
        claim, prior_session_id=result.session, prior_work_dir=record.work_dir, wake_text=told(news)
    )
    file = ClaimFile(life.engine.runs_dir / run.run_id)
    changes: dict[str, object] = {
        "usage": msgspec.json.encode(result.usage),
        "session_id": result.session,
        "output": result.output,
        "requests": "",
        "slot": slot.number,
    }
    patience, journal = life.engine.patience, life.engine.journal
    await patience.carry(lambda: asyncio.to_thread(file.write, claim))
    reach("further_claim")
    await patience.carry(lambda: journal.add_run(run, **changes))
    life.note(**changes, run_id=run.run_id)
    life.claim = claim
    life.run = run
    life.progress.usage = ()
    await follow_up.count(life)
    reach("further_run")
    await asyncio.to_thread(spawning.leave, old_dir)
