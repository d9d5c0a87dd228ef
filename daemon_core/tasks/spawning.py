"""A task's run begins: its directory held, its baseline taken, its agent started under a shim.

Also the second run of a task whose session is gone at the agent: it begins a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from daemon_core.agents.family import HearsMore, LaunchError, LaunchPlan, LaunchRequest
from daemon_core.agents.words import Words
from daemon_core.journal import RunRecord
from daemon_core.journal.records import Remark
from daemon_core.processes.client import Lost, RunSpec, Shim, spawn
from daemon_core.processes.errors import LostError, SpawnError
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Task
from daemon_core.tasks import clock, environment, homes, launch, own_mcp, policy, readying, results
from daemon_core.tasks.ending import FRESH_NOTE
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.launch import PrepareError
from daemon_core.tasks.owned import beside
from daemon_core.tasks.patience import PASSING
from daemon_core.tasks.recovery import mark_reported
from daemon_core.tasks.run import RunEnd
from daemon_core.tasks.secrets import ClaimFile, new_run_id

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

ERRORS_KEPT_BYTES: Final = 64 * 2**20
"""Of an agent's standard error: only its end is ever looked at."""
WARNING_LIMIT_CHARS: Final = 1000
WARNINGS_LIMIT: Final = 20
FRESH_SESSION: Final = Words(
    "The earlier session is gone at the agent: it does not know what was said before.", "fresh_session"
)


async def hold_directory(life: TaskLife) -> None:
    """The user directory must be ours before anything is started in it. Mostly it is; after a restart, or
    once the shim of an earlier run has let go of it, somebody else may have been quicker."""
    directory = life.record.directory
    if not directory or (life.lock is not None and life.lock.fd is not None):
        return
    locks = life.engine.directory_locks
    try:
        if life.lock is None:
            life.lock = await locks.acquire(Path(directory), life.record.task_id)
        else:
            await locks.secure(life.lock)
    except OSError as error:
        raise PrepareError(
            f"the directory {directory} cannot be locked: {error}", failures.LOCAL_DIRECTORY_ERROR
        ) from error


@dataclass(frozen=True, kw_only=True)
class ReadyRun:
    """A run whose files are all there; nothing of it has been started."""

    claim: Task
    """What it was made of: a newer one (with another token) makes it good for nothing."""
    run_id: str
    plan: LaunchPlan
    env: dict[str, str]


async def prepare_run(life: TaskLife) -> ReadyRun:
    """Everything that a run needs before it is started; may be done again. Raises ``PrepareError`` and
    ``OverError``."""
    claim = life.claim
    if claim is None:
        raise PrepareError(
            "the daemon was restarted before the run began, and what it needs to begin is gone",
            failures.RUNTIME_RECOVERY,
        )
    if not claim.auth_token.strip().startswith("mat_"):
        raise PrepareError("the server sent no task token (mat_...) with the task", failures.AGENT_AUTH)
    launcher = life.engine.launcher(life.record)
    if launcher is None:
        raise PrepareError(
            f"executable not found: the agent {life.record.provider!r} is not installed here any more",
            failures.AGENT_MISSING,
        )
    hub = life.connection.timing.loopback
    mode = policy.mode_of(claim, launcher, life.engine.permissions, hub=hub)
    launcher = policy.launcher_for(launcher, mode)
    run, run_dir, family = life.run, life.run_dir, launcher.family
    work_dir, directory = life.record.work_dir, life.record.directory
    prepared = life.files.prepared or await readying.lay_out(life, claim, Path(work_dir), directory)
    follow_up = life.engine.follow_up
    notices = await follow_up.carried(life, family.name) if follow_up is not None else []
    request = launch.request_of(claim, launcher, work_dir, run_dir, prepared, hub=hub, notices=notices)
    request = msgspec.structs.replace(request, permission_mode=mode)
    env = environment.child_environment(
        base=life.engine.base_environment,
        task=claim,
        run_id=run.run_id,
        mark=run.mark,
        slot=life.slot.number,
        server_url=life.connection.client.base_url,
        control_url=life.engine.control_url,
        loopback_port=life.engine.loopback_port,
        is_hub=hub,
        home=life.engine.home,
        profile=life.engine.profile,
    )
    env = launch.with_search_path(env, launcher)
    env.update(prepared.environment(env))
    request = await own_mcp.offered(life, request, env)
    request, left_out = await _checked_choice(life, launcher, request)
    try:
        plan = family.plan(request)
    except LaunchError as error:
        raise PrepareError(str(error), error.reason) from error
    if plan.dropped_args:
        log.warning("task %s: arguments left out: %s", life.record.task_id, ", ".join(plan.dropped_args))
    run.started_at = clock.now_text()
    run.family = family.name
    reader = family.reader(request)
    if follow_up is not None and isinstance(reader, HearsMore):
        reader.hold()
    run.reader = reader.snapshot()
    run.resumed_session = request.resume_session_id
    # None of these needs another one, and all are there before anything is started.
    home = homes.lay_out(life, family.name, request, prepared, env)
    async with beside(home, f"home of run {run.run_id}") as home_made:
        try:
            await life.engine.patience.carry(
                lambda: life.unless_over(asyncio.to_thread(launch.write_files, run_dir, plan))
            )
        except OSError as error:
            what = f"the run's files cannot be written: {error}"
            raise PrepareError(what, failures.AGENT_PROCESS) from error
        await warn(life, (*left_out, *launch.not_passed_on(request, family.name), *plan.warnings))
        await life.update_run(
            started_at=run.started_at,
            family=run.family,
            reader=run.reader,
            resumed_session=run.resumed_session,
        )
        env.update(await home_made)
    if run.resumed_session:
        try:
            await asyncio.to_thread(ClaimFile(run_dir).keep_for_retry)
        except OSError as error:
            log.warning("task %s: no second try if its session is gone: %s", life.record.task_id, error)
    return ReadyRun(claim=claim, run_id=run.run_id, plan=plan, env=launch.run_environment(env, plan))


async def spawn_run(life: TaskLife) -> Shim | Lost:
    """Start the task's newest run. Raises ``PrepareError`` and ``OverError``."""
    run, run_dir = life.run, life.run_dir
    ready = await life.ahead.run()
    if ready is None or ready.claim is not life.claim or ready.run_id != run.run_id:
        ready = await prepare_run(life)
    plan = ready.plan
    await life.ahead.baseline()
    reach("before_spawn")
    fds = (life.lock.fd,) if life.lock is not None and life.lock.fd is not None else ()
    try:
        shim = await _start(
            life,
            RunSpec(
                run_dir=run_dir,
                argv=plan.argv,
                cwd=Path(life.record.work_dir),
                env=ready.env,
                stdin=plan.stdin,
                # Nobody will ever say anything: on an open pipe some programs would wait for it for ever.
                close_stdin=plan.stdin is None,
                merge_stderr=plan.merge_stderr,
                output_keep=(0, ERRORS_KEPT_BYTES),
                lock_fds=fds,
                mark=run.mark,
                socket_dir=life.engine.socket_dir,
                owner=_owner(life),
                standby=await life.ahead.standby(),
            ),
        )
    except SpawnError as error:
        reason = launch.spawn_reason(error)
        if reason == failures.AGENT_MISSING:
            life.engine.agent_missing(life.record.provider)
        raise PrepareError(f"the agent cannot be started: {error}", reason) from error
    except ValueError as error:  # a NUL in an argument, say
        raise PrepareError(f"the agent cannot be started: {error}", failures.AGENT_CONFIG) from error
    except LostError as error:
        return Lost(run_dir=run_dir, info=error.info, mark=run.mark)
    run.pid = shim.info.child_pid
    try:
        await life.update_run(state="spawned", pid=run.pid)
    except BaseException:
        await shim.close()
        raise
    return shim


async def warn(life: TaskLife, texts: Sequence[str]) -> None:
    """Keep what the user should know of how the task is run."""
    if not texts:
        return
    log.warning("task %s: %s", life.record.task_id, "; ".join(texts))
    there = msgspec.json.decode(life.record.warnings, type=list[str])
    more = [text[:WARNING_LIMIT_CHARS] for text in texts if text[:WARNING_LIMIT_CHARS] not in there]
    known = msgspec.json.decode(life.record.remarks, type=list[Remark])
    said = [text for text in texts if isinstance(text, Words)]
    known += [Remark(text[:WARNING_LIMIT_CHARS], text.code, text.params) for text in said]
    changes = {
        "warnings": msgspec.json.encode([*there, *more][:WARNINGS_LIMIT]).decode(),
        "remarks": msgspec.json.encode(known[:WARNINGS_LIMIT]).decode(),
    }
    await life.engine.patience.carry(lambda: life.engine.journal.update_task(life.record.key, **changes))
    life.note(**changes)


async def _checked_choice(
    life: TaskLife, launcher: launch.Launcher, request: LaunchRequest
) -> tuple[LaunchRequest, tuple[str, ...]]:
    """The request without a model or thinking level that the agent does not have, and what is to be said."""
    if launcher.choose is None or not (request.model or request.thinking_level):
        return request, ()
    choice = await life.unless_over(launcher.choose(request.model, request.thinking_level))
    kept = msgspec.structs.replace(request, model=choice.model, thinking_level=choice.thinking_level)
    return kept, choice.warnings


async def _start(life: TaskLife, spec: RunSpec) -> Shim:
    """``spawn``; where there was no room for the run's directory it is tried again: nothing has begun by
    then. Raises what ``spawn`` does, and ``OverError``."""

    async def once() -> Shim:
        try:
            return await spawn(spec)
        except SpawnError as error:
            if error.what == "prepare" and error.errno in PASSING:
                raise OSError(error.errno, str(error)) from error
            raise

    return await life.engine.patience.carry(lambda: life.unless_over(once()))


def _owner(life: TaskLife) -> dict[str, object]:
    """Whose run it is, for ``owner.json``: enough to take it up without a journal, and no secrets."""
    record = life.record
    return {
        "task_id": record.task_id,
        "task_key": record.key,
        "run_id": life.run.run_id,
        "connection": record.connection,
        "workspace_id": record.workspace_id,
        "runtime_id": record.runtime_id,
        "kind": record.kind,
        "conversation_id": record.conversation_id,
        "provider": record.provider,
        "family": life.run.family,
        "reader": life.run.reader.decode() if life.run.reader else "",
        "work_dir": record.work_dir,
        "directory": record.directory,
        "slot": life.slot.number,
        "created_at": life.run.started_at,
        "mark": life.run.mark,
    }


def may_begin_fresh(life: TaskLife, end: RunEnd) -> bool:
    outcome = end.outcome
    if outcome is None or not outcome.resume_refused or not life.run.resumed_session:
        return False
    if end.stopped is not None or life.over.is_set():
        return False
    life.claim = ClaimFile(life.run_dir).read_retry() or life.claim
    return life.claim is not None


async def begin_fresh(life: TaskLife, end: RunEnd) -> None:
    assert life.claim is not None
    usage = results.add_usage(life.used(), end.outcome.usage if end.outcome else ())
    old_dir = life.run_dir
    run = RunRecord(
        run_id=new_run_id(),
        task_key=life.record.key,
        number=life.run.number + 1,
        mark=new_run_id(),
        note=FRESH_NOTE,
    )
    # Without the session: also after a restart this run is the one that does not resume.
    claim = msgspec.structs.replace(life.claim, prior_session_id=None)
    file = ClaimFile(life.engine.runs_dir / run.run_id)
    changes: dict[str, object] = {"usage": msgspec.json.encode(usage), "session_id": "", "requests": ""}
    patience, journal = life.engine.patience, life.engine.journal
    await patience.carry(lambda: asyncio.to_thread(file.write, claim))
    await patience.carry(lambda: journal.add_run(run, **changes))
    life.note(**changes, run_id=run.run_id)
    life.claim = claim
    life.run = run
    await warn(life, (FRESH_SESSION,))
    await asyncio.to_thread(leave, old_dir)


def leave(run_dir: Path) -> None:
    """An earlier run of a task that goes on with another one: nothing secret stays, nobody takes it up."""
    with contextlib.suppress(OSError):
        ClaimFile(run_dir).remove()
    mark_reported(run_dir)
