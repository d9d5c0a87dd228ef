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

from daemon_core.agents.family import LaunchError
from daemon_core.connections.backoff import Backoff
from daemon_core.connections.connection import Connection
from daemon_core.journal import JournalError, RunRecord, TaskRecord
from daemon_core.processes.client import Lost, NeverStarted, RunSpec, Shim, attach, spawn
from daemon_core.processes.errors import LostError, SpawnError
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
from daemon_core.tasks import clock, environment, launch, preparing, results
from daemon_core.tasks.delivery import Delivery
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.launch import PrepareError
from daemon_core.tasks.owned import beside, keep_going
from daemon_core.tasks.patience import PASSING
from daemon_core.tasks.preparing import TaskFiles
from daemon_core.tasks.recovery import mark_reported
from daemon_core.tasks.results import Result
from daemon_core.tasks.run import Progress, RunDriver, RunEnd, StopReason, end_run
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from daemon_core.tasks.skills import SkillError
from daemon_core.tasks.slots import Slot
from daemon_core.tasks.stamps import stamp_of
from daemon_core.tasks.translate import Digest
from daemon_core.workdirs import DirectoryLock, DirectoryRefusedError, validate_user_directory
from daemon_core.workdirs.environments import Prepared, Refused
from daemon_core.workdirs.repository_errors import RepositoryError
from daemon_core.workdirs.worktrees import branch_of

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

T = TypeVar("T")


class _OverError(Exception):
    """The server has ended or lost the task, or the user ends it with the daemon, before its run began."""


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
        self.server_status = ""
        """What ended the task at the server (``gone`` for a task it does not know), else empty."""
        self.stop_reason: StopReason | None = None
        self.driver: RunDriver | None = None
        self.files = TaskFiles(engine.environments)
        self._over = asyncio.Event()
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
        )

    # --- from outside --------------------------------------------------------------------------

    def look_now(self) -> None:
        """Ask the server about the task at once (a hint came, or a connection is back)."""
        self._look.set()

    def stop(self, reason: StopReason) -> None:
        """End the run from here (the user stops daemon and runs)."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self._over.set()
        if self.driver is not None:
            self.driver.stop(reason)

    def extend(self, seconds: float) -> None:
        """Give a silent run more time."""
        if self.driver is not None:
            self.driver.extend(seconds)

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
        return self.driver is None and self.record.state != "waiting_directory"

    # --- the life ------------------------------------------------------------------------------

    async def live(self) -> None:
        """Go on from the recorded state to the durable result, then give back directory and slot."""
        if not self.fresh:
            self._look.set()  # the server may have ended it while nobody was here
        name = f"watch of task {self.record.task_id}"
        try:
            async with beside(keep_going(self._watch_server, name), name):
                try:
                    await self._live()
                except Exception as error:  # the boundary of a task: it ends in words, whatever it was
                    log.exception("task %s cannot go on", self.record.task_id)
                    await self._broken(error)
        except asyncio.CancelledError:
            # Only the book of this process: the shim keeps the directory's lock file.
            self._release()
            raise
        except Exception:  # nothing can be recorded: the next start takes it up
            log.exception("task %s is left as it is for the next start of the daemon", self.record.task_id)
            if not self._run_alive():
                self._release()  # else the run keeps its place: it is there
            self.engine.left_behind(self)
            return
        self._release()
        self.engine.ended(self)

    def _release(self) -> None:
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
        if self.record.state != "ended":
            try:
                await end_run(self.run_dir, self.run.mark)
            except OSError:
                log.exception("run %s cannot be ended", self.run.run_id)
            await self._fail(
                f"Ostler failed while it worked on the task ({type(error).__name__}: {error});"
                " the daemon's log has more",
                failures.AGENT_UNKNOWN,
            )
        self.delivery.ended()

    async def _live(self) -> None:
        try:
            if self.record.state in ("claimed", "waiting_directory", "ready"):
                await self._until_over(self._get_ready(), "preparation")
            end = await self._run_to_end()
            while self._try_fresh(end):
                log.info(
                    "task %s: its session is gone at the agent; it begins a fresh one", self.record.task_id
                )
                await self._note_fresh_session(end)
                end = await self._run_to_end()
        except _OverError:
            await self._fail(results.ENDED_WITH_DAEMON, failures.CANCELLED)
        except PrepareError as error:
            await self._fail(str(error), error.reason)
        else:
            await self._end(
                results.of_run(
                    end,
                    session=self.record.session_id,
                    usage=self._usage(),
                    server_status=self.server_status,
                    limits=self.engine.watch_limits,
                )
            )

    async def _until_over(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do something that may take long, unless the task ends first. Raises ``_OverError``."""
        name = f"of task {self.record.task_id}"
        async with (
            beside(work, f"{what} {name}") as doing,
            beside(self._over.wait(), f"end {name}") as over,
        ):
            await asyncio.wait({doing, over}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise _OverError
            await doing

    # --- prepare -------------------------------------------------------------------------------

    async def _get_ready(self) -> None:
        name = f"lease of task {self.record.task_id}"
        async with beside(keep_going(self._keep_lease, name), name):
            if self.record.state != "ready" or (self.record.directory and self.lock is None):
                await self._prepare_directory()
            await self._report_start()

    async def _prepare_directory(self) -> None:
        claim = self.claim
        if claim is None:
            raise PrepareError(
                "the daemon was restarted before the task began, and what it needs to begin is gone",
                failures.RUNTIME_RECOVERY,
            )
        if not claim.workspace_id:
            raise PrepareError("the server sent a task without a workspace", failures.AGENT_UNKNOWN)
        directory = launch.named_directory(claim, self.engine.daemon_id)
        if directory:
            work_dir = await self._take_directory(directory)
            directory = str(work_dir)
        else:
            prior = claim.prior_work_dir or self.record.work_dir
            try:
                work_dir = await asyncio.to_thread(
                    self.engine.task_directories.prepare, claim.workspace_id, claim.id, prior
                )
            except OSError as error:
                raise PrepareError(
                    f"the task's directory cannot be made: {error}", failures.AGENT_UNKNOWN
                ) from error
            if claim.repos and not self.record.work_dir:
                # Known also if the checkout fails: it goes with its conversation, a reply goes on in it.
                await self._set_state(self.record.state, work_dir=str(work_dir))
            await self._get_repositories(work_dir)
        await self._lay_out(claim, work_dir, directory)
        reach("prepared")
        await self._set_state("ready", work_dir=str(work_dir), directory=directory, waiting_for="")

    async def _get_repositories(self, work_dir: Path) -> None:
        """Check out what the task begins with, into a directory that Ostler made."""
        repositories = self.engine.repositories
        if repositories is None:
            return
        try:
            found = await repositories.prepare(self, work_dir)
        except RepositoryError as error:
            raise PrepareError(str(error), failures.AGENT_UNKNOWN) from error
        except OSError as error:
            raise PrepareError(
                f"the task's repository cannot be checked out: {error}", failures.AGENT_UNKNOWN
            ) from error
        notices = [notice.message for each in found for notice in each.notices]
        if notices:
            self.progress.notice = notices[0]

    async def _take_directory(self, directory: str) -> Path:
        """Validate and lock a user directory; gives it cleaned."""
        locks = self.engine.directory_locks
        try:
            path = await asyncio.to_thread(validate_user_directory, directory)
            if self.lock is None:
                self.lock = locks.try_acquire(path, self.record.task_id)
            if self.lock is None:
                holder = locks.holder_of(path) or "unknown"
                await self._set_state("waiting_directory", directory=str(path), waiting_for=holder)
                reason = f"local_directory {path} (held by task {holder[:8]})"
                with contextlib.suppress(ServerError):  # a repeat is refused; waiting goes on all the same
                    await self.connection.client.wait_local_directory(self.record.task_id, reason)
                self.lock = await locks.acquire(path, self.record.task_id)
                # The one before may have taken it away, or its permissions.
                path = await asyncio.to_thread(validate_user_directory, directory)
        except DirectoryRefusedError as error:
            raise PrepareError(str(error), failures.LOCAL_DIRECTORY_ERROR) from error
        except OSError as error:
            raise PrepareError(
                f"the directory {directory} cannot be locked: {error}", failures.LOCAL_DIRECTORY_ERROR
            ) from error
        return path

    async def _lay_out(self, claim: Task, work_dir: Path, directory: str) -> Prepared:
        """Write what the task is to find. ``directory`` is that of the user, if any, and is locked."""
        claim = await self._with_skills(claim)
        wanted = preparing.wanted_of(
            claim,
            provider=self.record.provider,
            work_dir=work_dir,
            user_owned=bool(directory),
            run_dir=self.run_dir,
            hub=self.connection.timing.loopback,
            environ=self.engine.base_environment,
        )

        async def lay_out() -> Prepared:
            return await asyncio.to_thread(self.files.lay_out, wanted)

        try:
            if directory:
                return await lay_out()  # a full or broken disk of the user's need not hold up all the others
            return await self.engine.patience.carry(lambda: self._unless_over(lay_out()))
        except (Refused, OSError) as error:
            raise PrepareError(
                f"the directory {work_dir} cannot be prepared: {error}",
                failures.LOCAL_DIRECTORY_ERROR if directory else failures.AGENT_UNKNOWN,
            ) from error

    async def _with_skills(self, claim: Task) -> Task:
        """The claim with whole skills instead of references; on disk, too, for a later life."""
        connection = self.connection

        async def pause(failed: int) -> None:
            await self.engine.pause(connection.name, min(2.0**failed, 15.0))

        backoff = Backoff(0.5, 15.0)
        while True:
            try:
                whole = await self.engine.skill_cache.resolved(claim, connection.client, pause)
                break
            except (TaskGoneError, WorkspaceGoneError) as error:
                self._server_ended("gone")
                raise _OverError from error
            except UnauthorizedError as error:
                await self._hold_on(error, backoff, "its skills cannot be asked for yet")
            except (SkillError, ServerError) as error:
                # A task that is not being prepared any more has mostly ended there.
                status = await self._status_patiently()
                if status in TERMINAL_STATUSES:
                    self._server_ended(status)
                    raise _OverError from error
                raise PrepareError(str(error), failures.AGENT_CONFIG) from error
        if whole is claim:
            return claim
        # The newest claim counts: it may have been handed out again meanwhile, with another token.
        self.claim = msgspec.structs.replace(self.claim or whole, agent=whole.agent)
        file = ClaimFile(self.run_dir)
        await self.engine.patience.carry(lambda: asyncio.to_thread(file.write, self.claim or whole))
        return self.claim

    async def _keep_lease(self) -> None:
        if not self.fresh:
            await self._extend_lease()  # the time that no daemon was there counts against it
        while True:
            await asyncio.sleep(self.connection.timing.lease_s)
            await self._extend_lease()

    async def _extend_lease(self) -> None:
        try:
            await self.connection.client.prepare_lease(self.record.runtime_id, self.record.task_id)
        except ServerError as error:
            log.debug("task %s: the lease was not extended: %s", self.record.task_id, error)

    async def _report_start(self) -> None:
        backoff = Backoff(0.5, 15.0)
        client = self.connection.client
        while True:
            try:
                reach("before_start")
                await client.start(self.record.task_id)
                reach("start_accepted")
                break
            except (TaskGoneError, WorkspaceGoneError) as error:
                self._server_ended("gone")
                raise _OverError from error
            except (PermanentError, RuntimeGoneError) as error:
                # Refused unless dispatched or waiting: either we were heard before, or it has ended.
                status = await self._status_patiently()
                if status == "running":
                    break
                if status in TERMINAL_STATUSES:
                    self._server_ended(status)
                    raise _OverError from error
                text = f"start task failed: {error}"
                raise PrepareError(text, failures.classify(text)) from error
            except ServerError as error:
                await self._hold_on(error, backoff, "it cannot be started yet")
        await self._set_state("started", started_at=clock.now_text())
        reach("started")

    async def _status_patiently(self) -> str:
        """The task's status; empty if the server will not tell."""
        backoff = Backoff(0.5, 15.0)
        while True:
            try:
                return await self.connection.client.status(self.record.task_id)
            except (TaskGoneError, WorkspaceGoneError):
                self._server_ended("gone")
                raise _OverError from None
            except (PermanentError, RuntimeGoneError):
                return ""
            except ServerError as error:
                await self._hold_on(error, backoff, "its status is not to be had")

    async def _hold_on(self, error: ServerError, backoff: Backoff, what: str) -> None:
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

        Raises ``_OverError`` if the task ended before there was a run, and ``PrepareError``.
        """
        found = await attach(self.run_dir)
        if isinstance(found, NeverStarted):
            await self._until_over(self._hold_directory(), "directory")
            if self._over.is_set():
                raise _OverError
            found = await self._spawn()
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
        await self._update_run(
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
        return RunDriver(
            journal=self.engine.journal,
            patience=self.engine.patience,
            task_key=self.record.key,
            run_id=self.run.run_id,
            run_dir=self.run_dir,
            mark=self.run.mark,
            shim=found if isinstance(found, Shim) else None,
            reader=family.reader(snapshot=self.run.reader),
            offset=self.run.stdout_offset,
            next_seq=self.record.next_seq,
            work_dir=self.record.work_dir,
            limits=self.engine.watch_limits,
            started_wall=_wall(self.run.started_at),
            on_stretch=self._on_stretch,
            on_session=self._on_session,
        )

    async def _hold_directory(self) -> None:
        """The user directory must be ours before anything is started in it. Mostly it is; after a restart, or
        once the shim of an earlier run has let go of it, somebody else may have been quicker."""
        directory = self.record.directory
        if not directory or (self.lock is not None and self.lock.fd is not None):
            return
        locks = self.engine.directory_locks
        try:
            if self.lock is None:
                self.lock = await locks.acquire(Path(directory), self.record.task_id)
            else:
                await locks.secure(self.lock)
        except OSError as error:
            raise PrepareError(
                f"the directory {directory} cannot be locked: {error}", failures.LOCAL_DIRECTORY_ERROR
            ) from error

    async def _spawn(self) -> Shim | Lost:
        claim = self.claim
        if claim is None:
            raise PrepareError(
                "the daemon was restarted before the run began, and what it needs to begin is gone",
                failures.RUNTIME_RECOVERY,
            )
        if not claim.auth_token.strip().startswith("mat_"):
            raise PrepareError("the server sent no task token (mat_...) with the task", failures.AGENT_AUTH)
        launcher = self.engine.launcher(self.record.provider)
        if launcher is None:
            raise PrepareError(
                f"executable not found: the agent {self.record.provider!r} is not installed here any more",
                failures.AGENT_MISSING,
            )
        run, run_dir, family = self.run, self.run_dir, launcher.family
        work_dir, directory = self.record.work_dir, self.record.directory
        prepared = self.files.prepared or await self._lay_out(claim, Path(work_dir), directory)
        hub = self.connection.timing.loopback
        request = launch.request_of(claim, launcher, work_dir, run_dir, prepared, hub=hub)
        try:
            plan = family.plan(request)
            await self.engine.patience.carry(
                lambda: self._unless_over(asyncio.to_thread(launch.write_files, run_dir, plan))
            )
        except LaunchError as error:
            raise PrepareError(str(error), error.reason) from error
        except OSError as error:
            raise PrepareError(
                f"the run's files cannot be written: {error}", failures.AGENT_PROCESS
            ) from error
        if plan.dropped_args:
            log.warning("task %s: arguments left out: %s", self.record.task_id, ", ".join(plan.dropped_args))
        env = environment.child_environment(
            base=self.engine.base_environment,
            task=claim,
            run_id=run.run_id,
            mark=run.mark,
            slot=self.slot.number,
            server_url=self.connection.client.base_url,
            control_url=self.engine.control_url,
            loopback_port=self.engine.loopback_port,
            is_hub=hub,
            home=self.engine.home,
            profile=self.engine.profile,
        )
        env.update(prepared.environment(env))
        run.started_at = clock.now_text()
        run.family = family.name
        run.reader = family.reader(request).snapshot()
        run.resumed_session = request.resume_session_id
        await self._update_run(
            started_at=run.started_at,
            family=run.family,
            reader=run.reader,
            resumed_session=run.resumed_session,
        )
        if run.resumed_session:
            try:
                await asyncio.to_thread(ClaimFile(run_dir).keep_for_retry)
            except OSError as error:
                log.warning("task %s: no second try if its session is gone: %s", self.record.task_id, error)
        await self._take_baseline()
        reach("before_spawn")
        fds = (self.lock.fd,) if self.lock is not None and self.lock.fd is not None else ()
        try:
            shim = await self._start(
                RunSpec(
                    run_dir=run_dir,
                    argv=plan.argv,
                    cwd=Path(self.record.work_dir),
                    env={**launch.without_dropped(env, plan.drop_env), **plan.env},
                    stdin=plan.stdin,
                    merge_stderr=plan.merge_stderr,
                    lock_fds=fds,
                    mark=run.mark,
                    socket_dir=self.engine.socket_dir,
                    owner=self._owner(),
                )
            )
        except SpawnError as error:
            reason = launch.spawn_reason(error)
            raise PrepareError(f"the agent cannot be started: {error}", reason) from error
        except ValueError as error:  # a NUL in an argument, say
            raise PrepareError(f"the agent cannot be started: {error}", failures.AGENT_CONFIG) from error
        except LostError as error:
            return Lost(run_dir=run_dir, info=error.info, mark=run.mark)
        run.pid = shim.info.child_pid
        try:
            await self._update_run(state="spawned", pid=run.pid)
        except BaseException:
            await shim.close()
            raise
        return shim

    async def _start(self, spec: RunSpec) -> Shim:
        """``spawn``; where there was no room for the run's directory it is tried again: nothing has begun by
        then. Raises what ``spawn`` does, and ``_OverError``."""

        async def once() -> Shim:
            try:
                return await spawn(spec)
            except SpawnError as error:
                if error.what == "prepare" and error.errno in PASSING:
                    raise OSError(error.errno, str(error)) from error
                raise

        return await self.engine.patience.carry(lambda: self._unless_over(once()))

    async def _unless_over(self, work: Coroutine[Any, Any, T]) -> T:
        """For what is tried again and again: the end of the task ends it before another try."""
        if self._over.is_set():
            work.close()
            raise _OverError
        return await work

    def _owner(self) -> dict[str, object]:
        """Whose run it is, for ``owner.json``: enough to take it up without a journal, and no secrets."""
        record = self.record
        return {
            "task_id": record.task_id,
            "task_key": record.key,
            "run_id": self.run.run_id,
            "connection": record.connection,
            "workspace_id": record.workspace_id,
            "runtime_id": record.runtime_id,
            "kind": record.kind,
            "conversation_id": record.conversation_id,
            "provider": record.provider,
            "family": self.run.family,
            "work_dir": record.work_dir,
            "directory": record.directory,
            "slot": self.slot.number,
            "created_at": self.run.started_at,
            "mark": self.run.mark,
        }

    def _try_fresh(self, end: RunEnd) -> bool:
        outcome = end.outcome
        if outcome is None or not outcome.resume_refused or not self.run.resumed_session:
            return False
        if end.stopped is not None or self._over.is_set():
            return False
        self.claim = ClaimFile(self.run_dir).read_retry() or self.claim
        return self.claim is not None

    async def _note_fresh_session(self, end: RunEnd) -> None:
        assert self.claim is not None
        usage = results.add_usage(self._usage(), end.outcome.usage if end.outcome else ())
        old_dir = self.run_dir
        run = RunRecord(
            run_id=new_run_id(),
            task_key=self.record.key,
            number=self.run.number + 1,
            mark=new_run_id(),
            note="fresh session: the earlier one is gone at the agent",
        )
        # Without the session: also after a restart this run is the one that does not resume.
        claim = msgspec.structs.replace(self.claim, prior_session_id=None)
        file = ClaimFile(self.engine.runs_dir / run.run_id)
        changes: dict[str, object] = {"usage": msgspec.json.encode(usage), "session_id": ""}
        patience, journal = self.engine.patience, self.engine.journal
        await patience.carry(lambda: asyncio.to_thread(file.write, claim))
        await patience.carry(lambda: journal.add_run(run, **changes))
        self._note(**changes, run_id=run.run_id)
        self.claim = claim
        self.run = run
        await asyncio.to_thread(_leave, old_dir)

    # --- what the run tells --------------------------------------------------------------------

    def _on_stretch(self, made: Digest) -> None:
        self.progress.tool_calls += made.tool_calls
        self.progress.last_action = made.last_action or self.progress.last_action
        self.progress.last_output_at = clock.now_text()
        if made.notice is not None:
            self.progress.notice = made.notice
        if made.chunks or made.session_id:
            self.delivery.wake()
        self.engine.stretched(self, made)

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
                self._server_ended(status)

    def _server_ended(self, status: str) -> None:
        if self.record.state == "ended" or self.server_status:
            return
        log.info("task %s has been ended at the server (%s)", self.record.task_id, status)
        self.server_status = status
        self._over.set()
        if self.driver is not None:
            self.driver.stop(StopReason.SERVER)

    # --- the result ----------------------------------------------------------------------------

    async def _fail(self, error: str, reason: str) -> None:
        """The task ends without a run, or with one that is not worth judging; the server's word is first."""
        await self._end(
            results.failed(
                error,
                reason,
                session=self.record.session_id,
                usage=self._usage(),
                server_status=self.server_status,
            )
        )

    async def _end(self, result: Result) -> None:
        """Make the result durable; from then on it is delivered, whatever happens here."""
        record = self.record
        branch = ""
        if result.outcome == "completed" and record.work_dir and not record.directory:
            branch = await asyncio.to_thread(branch_of, Path(record.work_dir), record.task_id)
        reports = [] if self.server_status == "gone" else results.reports_of(result, record.work_dir, branch)
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
        await self._keep_changes()  # before what Ostler wrote is taken out: that is no change of the task
        await asyncio.to_thread(self.files.take_out, record.task_id, record.directory)
        reach("before_result")
        await self.engine.patience.carry(lambda: self.engine.journal.end_task(record.key, changes, reports))
        reach("result")
        self._note(**changes, state="ended")
        self.delivery.ended()
        await asyncio.to_thread(self._tidy, now)

    async def _take_baseline(self) -> None:
        """How the directory is before the run: what the task changes is told from it. Never fails a task."""
        changes, record = self.engine.changes, self.record
        if changes is None:
            return
        work_dir, own = Path(record.work_dir), not record.directory
        try:
            ours = await asyncio.to_thread(self.engine.environments.our_paths, work_dir, user_owned=not own)
            await asyncio.to_thread(
                changes.begin, record.key, self.run.run_id, record.work_dir, own=own, ours=ours
            )
        except (OSError, ValueError) as error:
            log.warning("task %s: what it changes will not be known: %s", record.task_id, error)
        reach("baseline")

    async def _keep_changes(self) -> None:
        changes, record = self.engine.changes, self.record
        if changes is None or not await asyncio.to_thread(changes.has_baseline, record.key):
            return
        reach("before_changes")
        try:
            await asyncio.to_thread(changes.finish, record.key)
        except (OSError, ValueError) as error:
            log.warning("task %s: what it changed is not known: %s", record.task_id, error)
        reach("changes")

    def _tidy(self, now: str) -> None:
        """Stamp the directory for clean-up; secrets of a run that never started go, too (in a thread)."""
        record = self.record
        try:
            ClaimFile(self.run_dir).remove()
            if record.work_dir and not record.directory:
                self.engine.task_directories.stamp(record.work_dir, stamp_of(record, now))
        except OSError as error:
            log.warning("task %s is not tidied up: %s", record.task_id, error)

    # --- small ---------------------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        return self.engine.runs_dir / self.run.run_id

    async def _set_state(self, state: str, **changes: object) -> None:
        changes["state"] = state
        await self.engine.patience.carry(lambda: self.engine.journal.update_task(self.record.key, **changes))
        self._note(**changes)
        self.engine.changed(self)

    async def _update_run(self, **changes: object) -> None:
        await self.engine.patience.carry(lambda: self.engine.journal.update_run(self.run.run_id, **changes))

    def _note(self, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self.record, name, value)

    def _usage(self) -> list[Usage]:
        return msgspec.json.decode(self.record.usage, type=list[Usage])


def _leave(run_dir: Path) -> None:
    """An earlier run of a task that goes on with another one: nothing secret stays, nobody takes it up."""
    with contextlib.suppress(OSError):
        ClaimFile(run_dir).remove()
    mark_reported(run_dir)


def _wall(started_at: str) -> float:
    moment = clock.parse(started_at)
    return moment.timestamp() if moment is not None else time.time()
