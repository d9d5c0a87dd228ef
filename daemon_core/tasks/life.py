"""The life of one task, from its claim to its durable result.

The order of steps is what keeps the promises; each ends in a journal state, and a death between any two is
mended by entering again at the state that was reached:

* *claimed*: claim and token are on disk. Prepare the directory (again).
* *ready*: the directory is there. Ask the server for the start; if it says that the task runs already, an
  earlier life of this daemon was heard.
* *started*: the server has accepted; the run is recorded. Spawn it, unless its shim shows that it was.
* *ended*: the result is in the outbox. Nothing is left to do here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon_core.agents.events import Outcome
from daemon_core.agents.family import Family, LaunchError, LaunchPlan, LaunchRequest
from daemon_core.connections.backoff import Backoff
from daemon_core.connections.connection import Connection
from daemon_core.journal import RunRecord, TaskRecord
from daemon_core.processes.client import Lost, NeverStarted, RunSpec, Shim, attach, spawn
from daemon_core.processes.errors import LostError, SpawnError
from daemon_core.processes.state import ExitStatus
from daemon_core.protocol import failures
from daemon_core.protocol.errors import (
    PermanentError,
    ServerError,
    TaskGoneError,
    TransientError,
    UnauthorizedError,
    WorkspaceGoneError,
)
from daemon_core.protocol.wire import (
    TERMINAL_STATUSES,
    Agent,
    CompleteRequest,
    FailRequest,
    LocalDirectoryRef,
    Task,
    Usage,
    UsageRequest,
)
from daemon_core.tasks import clock, environment
from daemon_core.tasks.delivery import Delivery
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import beside
from daemon_core.tasks.run import Progress, RunDriver, RunEnd, StopReason
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from daemon_core.tasks.slots import Slot
from daemon_core.tasks.translate import Digest
from daemon_core.workdirs import DirectoryLock, DirectoryRefusedError, validate_user_directory
from daemon_core.workdirs.directories import Stamp

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)


class _ServerEndedError(Exception):
    """The server has ended or lost the task while it was being prepared."""


class _PrepareError(Exception):
    """The task cannot be run; reported as failed with this reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


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
    ) -> None:
        self.engine = engine
        self.connection = connection
        self.record = record
        self.run = run
        self.slot = slot
        self.claim = claim
        """None after a restart whose claim file is gone; then nothing new can be started for this task."""
        self.fresh = fresh
        self.progress = Progress()
        self.server_status = ""
        """What ended the task at the server (``gone`` for a task it does not know), else empty."""
        self.stop_reason: StopReason | None = None
        self.driver: RunDriver | None = None
        self.lock: DirectoryLock | None = None
        self._ended_there = asyncio.Event()
        self._look = asyncio.Event()
        self.delivery = Delivery(
            engine.journal,
            connection.client,
            record.key,
            record.task_id,
            record.runtime_id,
            fresh=fresh,
            pause=lambda delay_s: engine.pause(connection.name, delay_s),
            on_done=lambda verdict: engine.delivered(self, verdict),
        )

    # --- from outside --------------------------------------------------------------------------

    def look_now(self) -> None:
        """Ask the server about the task at once (a hint came, or a connection is back)."""
        self._look.set()

    def stop(self, reason: StopReason) -> None:
        """End the run from here (the user stops daemon and runs)."""
        if self.stop_reason is None:
            self.stop_reason = reason
        if self.driver is not None:
            self.driver.stop(reason)

    def extend(self, seconds: float) -> None:
        """Give a silent run more time."""
        if self.driver is not None:
            self.driver.extend(seconds)

    @property
    def between(self) -> bool:
        """In one of the short stretches before the spawn or after the exit, which a stop waits for."""
        return self.driver is None and self.record.state != "waiting_directory"

    # --- the life ------------------------------------------------------------------------------

    async def live(self) -> None:
        """Go on from the recorded state to the durable result, then give back directory and slot."""
        if not self.fresh:
            self._look.set()  # the server may have ended it while nobody was here
        try:
            async with beside(self._watch_server(), f"watch of task {self.record.task_id}"):
                await self._live()
        finally:
            # When cancelled only the book of this process: the shim keeps the directory's lock file.
            self._release()
        self.engine.ended(self)

    def _release(self) -> None:
        if self.lock is not None:
            self.lock.release()
            self.lock = None
        self.slot.release()

    async def _live(self) -> None:
        try:
            if self.record.state in ("claimed", "waiting_directory"):
                await self._prepare()
            if self.record.state == "ready":
                await self._report_start()
        except _ServerEndedError:
            await self._finish_without_run(
                outcome="cancelled" if self.server_status == "cancelled" else "abandoned"
            )
            return
        except _PrepareError as error:
            await self._fail(str(error), error.reason)
            return
        end = await self._run_to_end()
        while end is not None and self._try_fresh(end):
            log.info("task %s: its session is gone at the agent; it begins a fresh one", self.record.task_id)
            await self._note_fresh_session(end)
            end = await self._run_to_end()
        if end is not None:
            await self._finish(end)

    # --- prepare -------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        name = f"of task {self.record.task_id}"
        async with (
            beside(self._keep_lease(), f"lease {name}"),
            beside(self._prepare_directory(), f"preparation {name}") as prepared,
            beside(self._ended_there.wait(), f"end {name}") as gone,
        ):
            await asyncio.wait({prepared, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not prepared.done():
                raise _ServerEndedError
            await prepared

    async def _prepare_directory(self) -> None:
        claim = self.claim
        if claim is None:
            raise _PrepareError(
                "the daemon was restarted before the task began, and what it needs to begin is gone",
                failures.RUNTIME_RECOVERY,
            )
        if not claim.workspace_id:
            raise _PrepareError("the server sent a task without a workspace", failures.AGENT_UNKNOWN)
        directory = self._named_directory(claim)
        if directory:
            await self._take_directory(directory)
            work_dir = Path(directory)
        else:
            prior = claim.prior_work_dir or self.record.work_dir
            try:
                work_dir = await asyncio.to_thread(
                    self.engine.task_directories.prepare, claim.workspace_id, claim.id, prior
                )
            except OSError as error:
                raise _PrepareError(
                    f"the task's directory cannot be made: {error}", failures.AGENT_UNKNOWN
                ) from error
        reach("prepared")
        self.record.work_dir = str(work_dir)
        self.record.directory = directory
        await self._set_state("ready", work_dir=str(work_dir), directory=directory, waiting_for="")

    def _named_directory(self, claim: Task) -> str:
        """The user directory of this machine that the task names, or "". Fails as the protocol says."""
        mine: list[str] = []
        for resource in claim.project_resources or []:
            if resource.resource_type != "local_directory":
                continue
            try:
                found = msgspec.convert(resource.resource_ref, LocalDirectoryRef)
            except msgspec.ValidationError as error:
                raise _PrepareError(
                    f"a local directory of the task cannot be read: {error}", failures.LOCAL_DIRECTORY_ERROR
                ) from error
            if not found.daemon_id.strip():
                raise _PrepareError(
                    "a local directory of the task does not say whose machine it is on",
                    failures.LOCAL_DIRECTORY_ERROR,
                )
            if found.daemon_id.strip() == self.engine.daemon_id:
                mine.append(found.local_path)
        if len(mine) > 1:
            raise _PrepareError(
                "the task names two local directories on this machine", failures.LOCAL_DIRECTORY_ERROR
            )
        return mine[0] if mine else ""

    async def _take_directory(self, directory: str) -> None:
        try:
            path = await asyncio.to_thread(validate_user_directory, directory)
        except DirectoryRefusedError as error:
            raise _PrepareError(str(error), failures.LOCAL_DIRECTORY_ERROR) from error
        locks = self.engine.directory_locks
        try:
            self.lock = locks.try_acquire(path, self.record.task_id)
            if self.lock is None:
                holder = locks.holder_of(path) or "unknown"
                await self._set_state("waiting_directory", directory=str(path), waiting_for=holder)
                reason = f"local_directory {path} (held by task {holder[:8]})"
                with contextlib.suppress(ServerError):  # a repeat is refused; waiting goes on all the same
                    await self.connection.client.wait_local_directory(self.record.task_id, reason)
                self.lock = await locks.acquire(path, self.record.task_id)
        except OSError as error:
            raise _PrepareError(
                f"the directory {directory} cannot be locked: {error}", failures.LOCAL_DIRECTORY_ERROR
            ) from error

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self.connection.timing.lease_s)
            try:
                await self.connection.client.prepare_lease(self.record.runtime_id, self.record.task_id)
            except ServerError as error:
                log.debug("task %s: the lease was not extended: %s", self.record.task_id, error)

    async def _report_start(self) -> None:
        backoff = Backoff(0.5, 15.0)
        client = self.connection.client
        while True:
            if self.server_status:
                raise _ServerEndedError
            try:
                reach("before_start")
                await client.start(self.record.task_id)
                reach("start_accepted")
                break
            except (TaskGoneError, WorkspaceGoneError) as error:
                self._server_ended("gone")
                raise _ServerEndedError from error
            except PermanentError as error:
                # Refused unless dispatched or waiting: either we were heard before, or it has ended.
                status = await self._status_patiently()
                if status == "running":
                    break
                if status in TERMINAL_STATUSES:
                    self._server_ended(status)
                    raise _ServerEndedError from error
                text = f"start task failed: {error}"
                raise _PrepareError(text, failures.classify(text)) from error
            except (TransientError, UnauthorizedError) as error:
                log.warning("task %s cannot be started yet: %s", self.record.task_id, error)
                with contextlib.suppress(ServerError):
                    await client.prepare_lease(self.record.runtime_id, self.record.task_id)
                await self.engine.pause(self.connection.name, backoff.next())
        now = clock.now_text()
        self.record.started_at = now
        await self._set_state("started", started_at=now)
        reach("started")

    async def _status_patiently(self) -> str:
        backoff = Backoff(0.5, 15.0)
        while True:
            try:
                return await self.connection.client.status(self.record.task_id)
            except (TaskGoneError, WorkspaceGoneError):
                self._server_ended("gone")
                raise _ServerEndedError from None
            except ServerError as error:
                log.warning("task %s: its status is not to be had: %s", self.record.task_id, error)
                await self.engine.pause(self.connection.name, backoff.next())

    # --- run -----------------------------------------------------------------------------------

    async def _run_to_end(self) -> RunEnd | None:
        """Spawn or take up the current run and drive it; None if the task was ended instead."""
        try:
            found = await attach(self.run_dir)
            if isinstance(found, NeverStarted):
                if self.stop_reason is not None or self.server_status:
                    await self._finish_without_run(
                        outcome="cancelled" if self.server_status == "cancelled" else "abandoned"
                    )
                    return None
                found = await self._spawn()
        except _PrepareError as error:
            await self._fail(str(error), error.reason)
            return None
        if self.record.directory and self.lock is None:
            self.lock = self.engine.directory_locks.adopt(Path(self.record.directory), self.record.task_id)
        family = self.engine.family(self.run.family)
        if family is None:
            await self._fail(
                f"this version does not know how to read {self.run.family!r}", failures.RUNTIME_RECOVERY
            )
            return None
        reader = family.reader(snapshot=self.run.reader)
        reach("spawned")
        driver = RunDriver(
            journal=self.engine.journal,
            task_key=self.record.key,
            run_id=self.run.run_id,
            run_dir=self.run_dir,
            mark=self.run.mark,
            shim=found if isinstance(found, Shim) else None,
            reader=reader,
            offset=self.run.stdout_offset,
            next_seq=self.record.next_seq,
            work_dir=self.record.work_dir,
            limits=self.engine.watch_limits,
            started_wall=_wall(self.run.started_at),
            on_stretch=self._on_stretch,
            on_trouble=self.engine.journal_trouble,
            on_session=self._on_session,
        )
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
            assert isinstance(found, Lost)
            end = await driver.drive_lost()
        self.driver = None
        self.record.next_seq = driver.next_seq
        self.record.session_id = reader.session_id or self.record.session_id
        self.run.reader = reader.snapshot()
        await self.engine.journal.update_run(
            self.run.run_id,
            state="ended" if end.exit is not None else "lost",
            ended_at=end.exit.ended_at if end.exit is not None else clock.now_text(),
            exit_code=end.exit.code if end.exit is not None else None,
            signal=end.exit.signal if end.exit is not None else None,
            **({"note": end.exit.error} if end.exit is not None and end.exit.error else {}),
        )
        reach("run_ended")
        return end

    async def _spawn(self) -> Shim | Lost:
        claim = self.claim
        if claim is None:
            raise _PrepareError(
                "the daemon was restarted before the run began, and what it needs to begin is gone",
                failures.RUNTIME_RECOVERY,
            )
        token = claim.auth_token.strip()
        if not token.startswith("mat_"):
            raise _PrepareError("the server sent no task token (mat_...) with the task", failures.AGENT_AUTH)
        family, request, plan = self._plan(claim)
        mark = self.run.mark
        env = environment.child_environment(
            base=self.engine.base_environment,
            task=claim,
            run_id=self.run.run_id,
            mark=mark,
            slot=self.slot.number,
            server_url=self.connection.client.base_url,
            control_url=self.engine.control_url,
            loopback_port=self.engine.loopback_port,
            is_hub=self.connection.timing.loopback,
            home=self.engine.home,
            profile=self.engine.profile,
        )
        for name in [name for name in env if _dropped(name, plan.drop_env)]:
            del env[name]
        env.update(plan.env)
        run_dir = self.run_dir
        try:
            await asyncio.to_thread(_write_files, run_dir, plan)
        except OSError as error:
            raise _PrepareError(
                f"the run's files cannot be written: {error}", failures.AGENT_PROCESS
            ) from error
        self.run.started_at = clock.now_text()
        self.run.family = family.name
        self.run.reader = family.reader(request).snapshot()
        await self.engine.journal.update_run(
            self.run.run_id,
            started_at=self.run.started_at,
            family=family.name,
            reader=self.run.reader,
            resumed_session=request.resume_session_id,
        )
        self.run.resumed_session = request.resume_session_id
        if request.resume_session_id:
            await asyncio.to_thread(ClaimFile(run_dir).keep_for_retry)
        reach("before_spawn")
        fds = (self.lock.fd,) if self.lock is not None and self.lock.fd is not None else ()
        try:
            shim = await spawn(
                RunSpec(
                    run_dir=run_dir,
                    argv=plan.argv,
                    cwd=Path(self.record.work_dir),
                    env=env,
                    stdin=plan.stdin,
                    merge_stderr=plan.merge_stderr,
                    lock_fds=fds,
                    mark=mark,
                    socket_dir=self.engine.socket_dir,
                    owner={
                        "task_id": self.record.task_id,
                        "task_key": self.record.key,
                        "run_id": self.run.run_id,
                        "connection": self.record.connection,
                        "runtime_id": self.record.runtime_id,
                        "provider": self.record.provider,
                        "family": family.name,
                        "work_dir": self.record.work_dir,
                        "directory": self.record.directory,
                        "slot": self.slot.number,
                        "created_at": self.run.started_at,
                        "mark": mark,
                    },
                )
            )
        except SpawnError as error:
            raise _PrepareError(f"the agent cannot be started: {error}", _spawn_reason(error)) from error
        except LostError as error:
            return Lost(run_dir=run_dir, info=error.info, mark=mark)
        self.run.pid = shim.info.child_pid
        await self.engine.journal.update_run(self.run.run_id, state="spawned", pid=shim.info.child_pid)
        return shim

    def _plan(self, claim: Task) -> tuple[Family, LaunchRequest, LaunchPlan]:
        agent = claim.agent or Agent()
        runtime = self.engine.launcher(self.record.provider)
        if runtime is None:
            raise _PrepareError(
                f"executable not found: the agent {self.record.provider!r} is not installed here any more",
                failures.AGENT_MISSING,
            )
        resume = ""
        prior_dir = claim.prior_work_dir or ""
        # A session is bound to its directory: resumed only in the identical one.
        same = bool(prior_dir) and os.path.realpath(prior_dir) == os.path.realpath(self.record.work_dir)
        if claim.prior_session_id and same and self.run.number == 1:
            resume = claim.prior_session_id
        servers = agent.mcp_config if isinstance(agent.mcp_config, dict) else None
        if servers is not None and isinstance(servers.get("mcpServers"), dict):
            servers = servers["mcpServers"]
        request = LaunchRequest(
            executable=runtime.executable,
            prompt=environment.prompt_of(claim),
            work_dir=self.record.work_dir,
            run_dir=str(self.run_dir),
            resume_session_id=resume,
            model=agent.model or runtime.model,
            thinking_level=agent.thinking_level or "",
            instructions=agent.instructions,
            mcp_servers=servers,
            extra_args=(*runtime.args, *(agent.custom_args or ())),
        )
        try:
            plan = runtime.family.plan(request)
        except LaunchError as error:
            raise _PrepareError(str(error), error.reason) from error
        if plan.dropped_args:
            log.warning("task %s: arguments left out: %s", self.record.task_id, ", ".join(plan.dropped_args))
        return runtime.family, request, plan

    def _try_fresh(self, end: RunEnd) -> bool:
        outcome = end.outcome
        if outcome is None or not outcome.resume_refused or not self.run.resumed_session:
            return False
        if end.stopped is not None or self.server_status or self.stop_reason is not None:
            return False
        if self.claim is None:
            self.claim = ClaimFile(self.run_dir).read_retry()
        return self.claim is not None

    async def _note_fresh_session(self, end: RunEnd) -> None:
        assert self.claim is not None
        usage = _add_usage(self._usage(), end.outcome.usage if end.outcome else ())
        self.record.usage = msgspec.json.encode(usage)
        self.record.session_id = ""
        old_dir = self.run_dir
        run = RunRecord(
            run_id=new_run_id(),
            task_key=self.record.key,
            number=self.run.number + 1,
            mark=new_run_id(),
            note="fresh session: the earlier one is gone at the agent",
        )
        await asyncio.to_thread(ClaimFile(self.engine.runs_dir / run.run_id).write, self.claim)
        await self.engine.journal.update_task(self.record.key, usage=self.record.usage, session_id="")
        await self.engine.journal.add_run(run)
        await asyncio.to_thread(ClaimFile(old_dir).remove)
        self.run = run
        self.record.run_id = run.run_id

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
            await asyncio.to_thread(ClaimFile(self.run_dir).forget_retry)  # the resume has worked

    # --- the server's word ---------------------------------------------------------------------

    async def _watch_server(self) -> None:
        while True:
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.connection.timing.status_poll_s):
                    await self._look.wait()
            try:
                status = await self.connection.client.status(self.record.task_id)
            except TaskGoneError:
                status = "gone"
            except ServerError:
                continue  # every other error is ignored: the run goes on
            if status == "gone" or status in TERMINAL_STATUSES:
                self._server_ended(status)
                return

    def _server_ended(self, status: str) -> None:
        if self.record.state == "ended" or self.server_status:
            return
        log.info("task %s has been ended at the server (%s)", self.record.task_id, status)
        self.server_status = status
        self._ended_there.set()
        if self.driver is not None:
            self.driver.stop(StopReason.SERVER)

    # --- the result ----------------------------------------------------------------------------

    async def _finish(self, end: RunEnd) -> None:
        """Classify what the run came to and make it durable."""
        usage = _add_usage(self._usage(), end.outcome.usage if end.outcome else ())
        session = (end.outcome.session_id if end.outcome else "") or self.record.session_id
        outcome = end.outcome or Outcome(
            success=False,
            error="the machine or the run's keeper went down while the agent worked",
            reason=failures.RUNTIME_RECOVERY,
            session_id=session,
        )
        if end.exit is not None and end.exit.reason == "spawn_failed":
            outcome = Outcome(
                success=False, error=end.exit.error or "the agent could not be started",
                reason=failures.classify(end.exit.error or "exit status"), session_id=session,
            )  # fmt: skip
        stopped = end.stopped
        poison = failures.poison_of(outcome.output) if outcome.success else None
        if poison is not None:
            outcome = msgspec.structs.replace(outcome, success=False, error=outcome.output, reason=poison)
        if not outcome.success:
            outcome = self._explain_stop(outcome, stopped)
        verdict = "completed" if outcome.success else "failed"
        if self.server_status:
            # The server was first: its word stands there, our result is kept here.
            verdict = "cancelled" if self.server_status == "cancelled" else "abandoned"
        await self._end(
            verdict,
            output=outcome.output,
            error="" if outcome.success else outcome.error or "the agent failed without a word",
            reason="" if outcome.success else outcome.reason or failures.classify(outcome.error),
            session=session,
            usage=usage,
        )

    def _explain_stop(self, outcome: Outcome, stopped: StopReason | None) -> Outcome:
        limits = self.engine.watch_limits
        match stopped:
            case StopReason.SILENCE:
                silent = (
                    f"the agent was silent for longer than the limit ({limits.idle_s:.0f} s,"
                    f" with a tool at work {limits.tool_s:.0f} s)"
                )
                return msgspec.structs.replace(outcome, error=silent, reason=failures.IDLE_WATCHDOG)
            case StopReason.TIME_LIMIT:
                late = f"timed out after {limits.run_s:.0f} s"
                return msgspec.structs.replace(outcome, error=late, reason=failures.TIMEOUT)
            case StopReason.DAEMON:
                told = "the run was ended together with the daemon"
                return msgspec.structs.replace(outcome, error=told, reason=failures.CANCELLED)
            case _:
                return outcome

    async def _fail(self, error: str, reason: str) -> None:
        """The task fails without a run (or with one that could not begin)."""
        if self.server_status:
            await self._finish_without_run(
                outcome="cancelled" if self.server_status == "cancelled" else "abandoned", error=error
            )
            return
        await self._end(
            "failed",
            output="",
            error=error,
            reason=reason,
            session=self.record.session_id,
            usage=self._usage(),
        )

    async def _finish_without_run(self, outcome: str, error: str = "") -> None:
        await self._end(
            outcome,
            output="",
            error=error,
            reason="",
            session=self.record.session_id,
            usage=self._usage(),
        )

    async def _end(
        self, outcome: str, *, output: str, error: str, reason: str, session: str, usage: Sequence[Usage]
    ) -> None:
        record = self.record
        reports: list[tuple[str, bytes]] = []
        counted = [entry for entry in usage if _tokens(entry)]
        if counted:
            reports.append(("usage", msgspec.json.encode(UsageRequest(usage=counted))))
        work_dir = record.work_dir or None
        if outcome == "completed":
            complete = CompleteRequest(output=output, session_id=session or None, work_dir=work_dir)
            reports.append(("complete", msgspec.json.encode(complete)))
        elif outcome == "failed":
            fail = FailRequest(
                error=error, failure_reason=reason or None, session_id=session or None, work_dir=work_dir
            )
            reports.append(("fail", msgspec.json.encode(fail)))
        if self.server_status == "gone":
            reports = []
        now = clock.now_text()
        changes: dict[str, object] = {
            "outcome": outcome,
            "output": output,
            "error": error,
            "failure_reason": reason,
            "session_id": session,
            "usage": msgspec.json.encode(list(usage)),
            "ended_at": now,
        }
        reach("before_result")
        await self._patiently_end(changes, reports)
        reach("result")
        for name, value in changes.items():
            setattr(record, name, value)
        record.state = "ended"
        await asyncio.to_thread(self._tidy, now)
        self.delivery.ended()

    async def _patiently_end(self, changes: dict[str, object], reports: list[tuple[str, bytes]]) -> None:
        await self.engine.patiently(lambda: self.engine.journal.end_task(self.record.key, changes, reports))

    def _tidy(self, now: str) -> None:
        """Stamp the directory for clean-up; secrets of a run that never started go, too (in a thread)."""
        ClaimFile(self.run_dir).remove()
        record = self.record
        if record.work_dir and not record.directory:
            with contextlib.suppress(OSError):
                self.engine.task_directories.stamp(
                    record.work_dir,
                    Stamp(
                        kind=record.kind,
                        chat_session_id=record.conversation_id if record.kind == "chat" else "",
                        task_id=record.task_id,
                        workspace_id=record.workspace_id,
                        completed_at=now,
                    ),
                )

    # --- small ---------------------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        return self.engine.runs_dir / self.run.run_id

    async def _set_state(self, state: str, **changes: object) -> None:
        await self.engine.patiently(
            lambda: self.engine.journal.update_task(self.record.key, state=state, **changes)
        )
        self.record.state = state
        for name, value in changes.items():
            setattr(self.record, name, value)
        self.engine.changed(self)

    def _usage(self) -> list[Usage]:
        return msgspec.json.decode(self.record.usage, type=list[Usage])


def _add_usage(first: Sequence[Usage], second: Sequence[Usage]) -> list[Usage]:
    """The sum per provider and model, never below zero."""
    total: dict[tuple[str, str], Usage] = {}
    for entry in (*first, *second):
        found = total.setdefault(
            (entry.provider, entry.model), Usage(provider=entry.provider, model=entry.model)
        )
        found.input_tokens += max(0, entry.input_tokens)
        found.output_tokens += max(0, entry.output_tokens)
        found.cache_read_tokens += max(0, entry.cache_read_tokens)
        found.cache_write_tokens += max(0, entry.cache_write_tokens)
    return list(total.values())


def _tokens(entry: Usage) -> int:
    return entry.input_tokens + entry.output_tokens + entry.cache_read_tokens + entry.cache_write_tokens


def _dropped(name: str, patterns: Sequence[str]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def _write_files(run_dir: Path, plan: LaunchPlan) -> None:
    for name, content in plan.files.items():
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise OSError(f"not a plain file name: {name!r}")
        path = run_dir / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)


def _spawn_reason(error: SpawnError) -> str:
    if error.what == "exec" and error.errno == errno.ENOENT:
        return failures.AGENT_MISSING
    return failures.AGENT_PROCESS


def _wall(started_at: str) -> float:
    moment = clock.parse(started_at)
    return moment.timestamp() if moment is not None else time.time()
