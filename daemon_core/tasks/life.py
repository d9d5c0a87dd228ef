"""The life of one task, from its claim to its durable result.

The order of steps is what keeps the promises; each ends in a journal state, and a death between any two is
mended by entering again at the state that was reached:

* *claimed*: claim and token are on disk. Prepare the directory (again).
* *ready*: the directory is there. Ask the server for the start; if it says that the task runs already, an
  earlier life of this daemon was heard.
* *started*: the server has accepted; the run is recorded. Spawn it, unless its shim shows that it was.
* *ended*: the result is in the outbox. Nothing is left to do here.

A user directory is locked whenever something of the task may touch it: the lock is had before *ready*, and
after a restart before anything is spawned. Whatever fails unexpectedly ends in words: the run is ended and
the task reported as failed; if not even that can be recorded, the next start of the daemon takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.connection import Connection
from daemon_core.journal import JournalError, RunRecord, TaskRecord
from daemon_core.processes.client import Lost, NeverStarted, Shim, attach
from daemon_core.processes.state import ExitStatus, RunPhase, read_state
from daemon_core.protocol import failures
from daemon_core.protocol.errors import (
    PermanentError,
    RuntimeGoneError,
    ServerError,
    TaskGoneError,
    TransientError,
    UnauthorizedError,
    WorkspaceGoneError,
)
from daemon_core.protocol.wire import TERMINAL_STATUSES, Task, Usage
from daemon_core.tasks import clock, ending, keeping, parking, readying, results, spawning
from daemon_core.tasks.ahead import Ahead
from daemon_core.tasks.delivery import Delivery
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.launch import OverError, PrepareError
from daemon_core.tasks.owned import beside, cancel_and_wait, keep_going
from daemon_core.tasks.preparing import TaskFiles
from daemon_core.tasks.requests import RequestBook
from daemon_core.tasks.run import More, Progress, RunDriver, RunEnd, StopReason, end_run
from daemon_core.tasks.secrets import ClaimFile
from daemon_core.tasks.slots import Slot
from daemon_core.tasks.steps import Steps
from daemon_core.tasks.translate import Digest
from daemon_core.tasks.watchdog import Watchdog
from daemon_core.workdirs import DirectoryLock

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

T = TypeVar("T")


class TaskLife:
    """One task here. ``live`` is its owner's coroutine; cancelling it detaches and leaves its run alive."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        record: TaskRecord,
        run: RunRecord,
        slot: Slot,
        claim: Task | None,
        *,
        fresh: bool,
        lock: DirectoryLock | None = None,
    ) -> None:
        self.engine = engine
        self.connection = connection
        self.record = record
        self.run = run
        self.slot = slot
        self.claim = claim
        """None after a restart whose claim file is gone; then nothing new can be started for this task."""
        self.fresh = fresh
        self.lock = lock
        self.progress = Progress()
        self.usage_told: list[Usage] = []
        """What its server has been told of it, or is, in this life of the daemon."""
        self.waiting_model = ""
        """The model whose limit of runs it waits for, while it does."""
        self.server_status = ""
        """What ended the task at the server (``gone`` for a task it does not know), else empty."""
        self.stop_reason: StopReason | None = None
        self.driver: RunDriver | None = None
        self.files = TaskFiles(engine.environments)
        self.steps = Steps(self)
        self.ahead = Ahead(self)
        self.waiting = ""
        """Why it has no run although it is not over (``keeping.FOR_JOBS``, ``FOR_SLOT``), else empty."""
        self.kept_until = ""
        """When it is over in any case although its jobs go on (RFC 3339); empty: it waits for them."""
        self.noticed = asyncio.Event()
        """Set when something of its conversation is different: a notice, a job that has ended."""
        self.over = asyncio.Event()
        """Set with ``server_status`` or ``stop_reason``: what has not begun is not to begin any more."""
        self._look = asyncio.Event()
        self.delivery = Delivery(
            engine.journal,
            connection.client,
            record.key,
            record.task_id,
            record.runtime_id,
            fresh=fresh,
            patience=engine.patience,
            pause=lambda delay_s: engine.pause(connection.name, delay_s),
            on_done=lambda verdict: engine.delivered(record, verdict),
            on_gone=self.look_now,
            before_last=self.steps.ended,
        )

    # --- from outside --------------------------------------------------------------------------

    def look_now(self) -> None:
        """Ask the server about the task at once (a hint came, or a connection is back)."""
        self._look.set()

    def stop(self, reason: StopReason) -> None:
        """End the run from here (the user stops daemon and runs)."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self.over.set()
        if self.driver is not None:
            self.driver.stop(reason)

    async def extend(self, seconds: float) -> bool:
        """Give a silent run more time; False if there is no run. Kept over restarts."""
        if self.driver is None:
            return False
        until = self.driver.watchdog.extend(seconds)
        await self.engine.patience.carry(
            lambda: self.engine.journal.update_task(self.record.key, extended_until=until)
        )
        self.note(extended_until=until)
        self.engine.changed(self)
        return True

    async def renew_claim(self, claim: Task) -> None:
        """The task was handed out again before it began: the newer token is the one that counts."""
        if self.claim is None or not claim.auth_token or self.record.state in ("started", "ended"):
            return
        self.claim = claim
        file = ClaimFile(self.run_dir)
        try:
            await asyncio.to_thread(file.write, claim)
        except OSError as error:
            log.warning("task %s: its newer claim is not kept: %s", self.record.task_id, error)
        if self.record.state == "ended":
            await asyncio.to_thread(file.remove)  # it ended meanwhile, and no token stays behind

    @property
    def between(self) -> bool:
        """In one of the short stretches before the spawn or after the exit, which a stop waits for."""
        return self.driver is None and self.record.state != "waiting_directory" and not self.waiting

    # --- the life ------------------------------------------------------------------------------

    async def live(self) -> None:
        """Go on from the recorded state to the durable result, then give back directory and slot."""
        if not self.fresh:
            self._look.set()  # the server may have ended it while nobody was here
        name = f"watch of task {self.record.task_id}"
        try:
            async with beside(keep_going(self._watch_server, name), name), contextlib.aclosing(self.ahead):
                try:
                    await self._live()
                except Exception as error:  # the boundary of a task: it ends in words, whatever it was
                    log.exception("task %s cannot go on", self.record.task_id)
                    await self._broken(error)
        except asyncio.CancelledError:
            # Only the book of this process: the shim keeps the directory's lock file.
            self.give_back()
            raise
        except Exception:  # nothing can be recorded: the next start takes it up
            log.exception("task %s is left as it is for the next start of the daemon", self.record.task_id)
            if not self._run_alive():
                self.give_back()  # else the run keeps its place: it is there
            self.engine.left_behind(self)
            return
        self.give_back()
        self.engine.ended(self)

    def give_back(self) -> None:
        """Slot and directory are free for others."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None
        self.slot.release()

    def _run_alive(self) -> bool:
        try:
            return read_state(self.run_dir).phase is RunPhase.ALIVE
        except OSError:
            return True  # in doubt it counts

    async def _broken(self, error: Exception) -> None:
        """Something failed that must not. A run that nobody reads and watches is not left alone: it is ended,
        and the task with it."""
        if isinstance(error, JournalError) and error.damaged:
            raise error  # the run goes on, and the next start mends the journal
        self.driver = None
        self.usage_told = []  # whether that has been kept is not known
        if self.record.state != "ended":
            try:
                await end_run(self.run_dir, self.run.mark)
            except OSError:
                log.exception("run %s cannot be ended", self.run.run_id)
            await ending.fail(
                self,
                f"Ostler failed while it worked on the task ({type(error).__name__}: {error});"
                " the daemon's log has more",
                failures.AGENT_UNKNOWN,
            )
        self.delivery.ended()

    async def _live(self) -> None:
        try:
            if self.claim is not None and self.claim.regenerate_quick_actions_for:
                await self.until_over(readying.begin_without_agent(self), "start")
                await ending.end(self, results.without_agent(self.server_status))
                return
            if self.record.state in ("claimed", "waiting_directory", "ready"):
                await self.until_over(readying.get_ready(self), "preparation")
            result = await self._run_to_result()
            while await keeping.goes_on(self, result):
                result = await self._run_to_result()
            result = await keeping.parting(self, result)
        except OverError:
            await ending.fail(self, results.ENDED_WITH_DAEMON, failures.CANCELLED)
        except PrepareError as error:
            await ending.fail(self, str(error), error.reason)
        else:
            if self.server_status:  # it may have come while the task was kept open
                result = msgspec.structs.replace(result, outcome=results.by_server(self.server_status))
            await ending.end(self, result)

    async def _run_to_result(self) -> results.Result:
        """The current run to its end (or that of the one that takes its place), and what it came to."""
        end = await self._run_to_end()
        while spawning.may_begin_fresh(self, end):
            log.info("task %s: its session is gone at the agent; it begins a fresh one", self.record.task_id)
            await spawning.begin_fresh(self, end)
            end = await self._run_to_end()
        result = results.of_run(
            end,
            session=self.record.session_id,
            usage=self.used(),
            server_status=self.server_status,
            limits=self.engine.watch_limits,
        )
        await self._note_account(result)
        result = results.after(self.record.output, result)
        return parking.settle(
            result,
            self.claim,
            self.record.provider,
            self.engine.resume_after_limit,
            hub=self.connection.timing.loopback,
        )

    async def _note_account(self, result: results.Result) -> None:
        """A limit that was met, or that cannot be there any more, is one of all tasks of the provider."""
        accounts = self.engine.accounts
        if accounts is None or parking.own_account(self.claim):
            return
        if result.limit is not None:
            await accounts.met(self.record.provider, result.limit)
        elif result.outcome == "completed":
            await accounts.lift(self.record.provider)

    async def until_over(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do something that may take long, unless the task ends first. Raises ``OverError``."""
        name = f"of task {self.record.task_id}"
        async with (
            beside(work, f"{what} {name}") as doing,
            beside(self.over.wait(), f"end {name}") as over,
        ):
            await asyncio.wait({doing, over}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                await cancel_and_wait(doing)
                if not doing.cancelled() and isinstance(doing.exception(), OverError):
                    await doing  # it has noticed the end itself: its word, and no failure of it
                raise OverError
            await doing

    # --- patience with the server --------------------------------------------------------------

    async def status_patiently(self) -> str:
        """The task's status; empty if the server will not tell."""
        backoff = Backoff(0.5, 15.0)
        while True:
            try:
                return await self.connection.client.status(self.record.task_id)
            except (TaskGoneError, WorkspaceGoneError):
                self.server_ended("gone")
                raise OverError from None
            except ServerError as error:
                if isinstance(error, PermanentError | RuntimeGoneError) and error.is_verdict:
                    return ""
                await self.hold_on(error, backoff, "its status is not to be had")

    async def hold_on(self, error: ServerError, backoff: Backoff, what: str) -> None:
        """Wait before the next try at a server that cannot do something at present."""
        log.warning("task %s: %s: %s", self.record.task_id, what, error)
        if isinstance(error, UnauthorizedError):
            self.connection.report(error)
        delay_s = backoff.next()
        if isinstance(error, TransientError) and error.retry_after_s is not None:
            delay_s = max(delay_s, error.retry_after_s)
        await self.engine.pause(self.connection.name, delay_s)

    # --- run -----------------------------------------------------------------------------------

    async def _run_to_end(self) -> RunEnd:
        """Spawn or take up the current run and drive it to its end.

        Raises ``OverError`` if the task ended before there was a run, and ``PrepareError``.
        """
        found = await attach(self.run_dir)
        if isinstance(found, NeverStarted):
            await self.until_over(spawning.hold_directory(self), "directory")
            if self.over.is_set():
                raise OverError
            found = await spawning.spawn_run(self)
        elif self.record.directory and self.lock is None:
            self.lock = self.engine.directory_locks.adopt(Path(self.record.directory), self.record.task_id)
        try:
            driver = self._driver(found)
        except BaseException:
            if isinstance(found, Shim):
                await found.close()
            raise
        reach("spawned")
        self.driver = driver
        if self.stop_reason is not None:
            driver.stop(self.stop_reason)
        elif self.server_status:
            driver.stop(StopReason.SERVER)
        self.delivery.wake()
        self.engine.changed(self)
        if isinstance(found, Shim):
            end = await driver.drive()
        elif isinstance(found, ExitStatus):
            end = await driver.drive(found)
        else:
            end = await driver.drive_lost()
        self.driver = None
        self.record.next_seq = driver.next_seq
        self.record.session_id = driver.reader.session_id or self.record.session_id
        if self.engine.follow_up is not None:
            await self.engine.follow_up.run_over(self)
        await self.update_run(
            state="ended" if end.exit is not None else "lost",
            ended_at=end.exit.ended_at if end.exit is not None else clock.now_text(),
            exit_code=end.exit.code if end.exit is not None else None,
            signal=end.exit.signal if end.exit is not None else None,
            **({"note": end.exit.error} if end.exit is not None and end.exit.error else {}),
        )
        reach("run_ended")
        return end

    def _driver(self, found: Shim | ExitStatus | Lost) -> RunDriver:
        family = self.engine.family(self.run.family)
        if family is None:
            raise ValueError(f"this version does not know how to read {self.run.family!r}")
        reader = family.reader(snapshot=self.run.reader)
        requests = RequestBook.read(self.record.requests)
        return RunDriver(
            journal=self.engine.journal,
            patience=self.engine.patience,
            task_key=self.record.key,
            run_id=self.run.run_id,
            run_dir=self.run_dir,
            mark=self.run.mark,
            shim=found if isinstance(found, Shim) else None,
            reader=reader,
            offset=self.run.stdout_offset,
            next_seq=self.record.next_seq,
            work_dir=self.record.work_dir,
            watchdog=Watchdog(
                reader,
                self.engine.watch_limits,
                started_wall=_wall(self.run.started_at),
                extended_until=self.record.extended_until,
                answered_at=requests.answered_at,
                progress_at=self.run.progress_at,
                on_warning=lambda: self.engine.changed(self),
            ),
            requests=requests,
            on_stretch=self._on_stretch,
            on_session=self._on_session,
            on_requests=self._on_requests,
            on_turn_over=self._on_turn_over,
            on_let_go=self._on_let_go,
        )

    async def unless_over(self, work: Coroutine[Any, Any, T]) -> T:
        """For what is tried again and again: the end of the task ends it before another try."""
        if self.over.is_set():
            work.close()
            raise OverError
        return await work

    # --- what the run tells --------------------------------------------------------------------

    def _on_stretch(self, made: Digest) -> None:
        self.progress.tool_calls += made.tool_calls
        self.progress.last_action = made.last_action or self.progress.last_action
        self.progress.last_output_at = clock.now_text()
        noticed = made.notice is not None and made.notice != self.progress.notice
        if made.notice is not None:
            self.progress.notice = made.notice
        if made.plan is not None:
            self.progress.plan = made.plan
        if made.usage is not None:
            self.progress.usage = made.usage
        if made.chunks or made.session_id or self.usage_told:
            self.delivery.wake()
        self.engine.stretched(self, made)
        if noticed:
            self.engine.changed(self)

    def _on_requests(self) -> None:
        assert self.driver is not None
        self.record.requests = self.driver.requests.text()
        self.engine.changed(self)

    async def _on_turn_over(self) -> More | None:
        follow_up = self.engine.follow_up
        return await follow_up.more(self) if follow_up is not None else None

    def _on_let_go(self) -> list[tuple[str, bytes]]:
        """The agent is done and takes a moment to go: its usage is told meanwhile."""
        used = results.add_usage(self.used(), self.progress.usage)
        self.usage_told = results.counted(used)
        return results.usage_reports(self.usage_told)

    async def _on_session(self, session_id: str) -> None:
        self.record.session_id = session_id
        if self.run.resumed_session == session_id:
            with contextlib.suppress(OSError):  # the resume has worked; the end removes it in any case
                await asyncio.to_thread(ClaimFile(self.run_dir).forget_retry)

    # --- the server's word ---------------------------------------------------------------------

    async def _watch_server(self) -> None:
        while not self.server_status:
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.connection.timing.status_poll_s):
                    await self._look.wait()
            if not self.connection.usable:
                continue  # a refused credential is waited out
            try:
                status = await self.connection.client.status(self.record.task_id)
            except TaskGoneError:
                status = "gone"
            except UnauthorizedError as error:
                self.connection.report(error)
                continue
            except ServerError:
                continue  # every other error is ignored: the run goes on
            if status == "gone" or status in TERMINAL_STATUSES:
                self.server_ended(status)

    def server_ended(self, status: str) -> None:
        """The server says that the task is over: the first word counts, and what goes on here is ended."""
        if self.record.state == "ended" or self.server_status:
            return
        log.info("task %s has been ended at the server (%s)", self.record.task_id, status)
        self.server_status = status
        self.over.set()
        if self.driver is not None:
            self.driver.stop(StopReason.SERVER)

    # --- small ---------------------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        """The directory of the task's newest run."""
        return self.engine.runs_dir / self.run.run_id

    async def set_state(self, state: str, **changes: object) -> None:
        """Record a step, with what goes with it, and tell who watches."""
        changes["state"] = state
        await self.engine.patience.carry(lambda: self.engine.journal.update_task(self.record.key, **changes))
        self.note(**changes)
        self.engine.changed(self)

    async def update_run(self, **changes: object) -> None:
        """Record something of the newest run."""
        await self.engine.patience.carry(lambda: self.engine.journal.update_run(self.run.run_id, **changes))

    def note(self, **changes: object) -> None:
        """Keep in memory what the journal has just taken."""
        for name, value in changes.items():
            setattr(self.record, name, value)

    def used(self) -> list[Usage]:
        """What earlier runs of the task have used."""
        return msgspec.json.decode(self.record.usage, type=list[Usage])


def _wall(started_at: str) -> float:
    moment = clock.parse(started_at)
    return moment.timestamp() if moment is not None else time.time()
