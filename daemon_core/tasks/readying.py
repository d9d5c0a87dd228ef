"""A task gets ready: its directory, repositories, brief and skills, then its server's word to start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from daemon_core.connections.backoff import Backoff
from daemon_core.protocol import failures
from daemon_core.protocol.errors import (
    PermanentError,
    RuntimeGoneError,
    ServerError,
    TaskGoneError,
    UnauthorizedError,
    WorkspaceGoneError,
)
from daemon_core.protocol.wire import TERMINAL_STATUSES, Task
from daemon_core.tasks import clock, launch, own_mcp, preparing
from daemon_core.tasks.briefs import HUB_COMMANDS
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.launch import OverError, PrepareError
from daemon_core.tasks.owned import beside, keep_going
from daemon_core.tasks.prompts import kind_of
from daemon_core.tasks.running_jobs import running_jobs
from daemon_core.tasks.secrets import ClaimFile
from daemon_core.tasks.skills import SkillError
from daemon_core.workdirs import DirectoryRefusedError, validate_user_directory
from daemon_core.workdirs.environments import Layout, Prepared, Refused
from daemon_core.workdirs.repository_errors import RepositoryError

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

STRANGE_REFUSALS: Final = 5
"""So often a start is tried that is refused by somebody who is not the server, while the server answers."""
SKILL_ROUNDS: Final = 3
"""So often skills are asked for anew that could not be fetched, as long as the task may still be prepared."""


async def get_ready(life: TaskLife) -> None:
    name = f"lease of task {life.record.task_id}"
    async with beside(keep_going(lambda: _keep_lease(life), name), name):
        await _wait_for_model(life)
        if life.record.state != "ready" or (life.record.directory and life.lock is None):
            await _prepare_directory(life)
        await _report_start(life)


async def begin_without_agent(life: TaskLife) -> None:
    """The server wants it completed without an agent: it is started, as nothing else can be completed."""
    if life.record.state == "started":
        return
    name = f"lease of task {life.record.task_id}"
    async with beside(keep_going(lambda: _keep_lease(life), name), name):
        await _report_start(life)


async def _wait_for_model(life: TaskLife) -> None:
    """As many runs as its model allows go on: wait for one to end, with the lease kept, before anything of it
    begins. (What the embedded hub hands out mostly has its place already.)"""
    engine = life.engine
    model = engine.model_of(life.record)
    if engine.slots.try_model(life.slot, model):
        return
    log.info("task %s waits: the limit of runs with %s is reached", life.record.task_id, model)
    life.waiting_model = model
    engine.changed(life)
    try:
        await engine.slots.want_model(life.slot, model)
    finally:
        life.waiting_model = ""
        engine.changed(life)


async def _prepare_directory(life: TaskLife) -> None:
    claim = life.claim
    if claim is None:
        raise PrepareError(
            "the daemon was restarted before the task began, and what it needs to begin is gone",
            failures.RUNTIME_RECOVERY,
        )
    if not claim.workspace_id:
        raise PrepareError("the server sent a task without a workspace", failures.AGENT_UNKNOWN)
    directory = launch.named_directory(claim, life.engine.daemon_id)
    if not claim.repos:  # else it takes its time
        life.ahead.begin_shim()
    if directory:
        work_dir = await _take_directory(life, directory)
        directory = str(work_dir)
    else:
        prior = claim.prior_work_dir or life.record.work_dir
        try:
            work_dir = await asyncio.to_thread(
                life.engine.task_directories.prepare, claim.workspace_id, claim.id, prior
            )
        except OSError as error:
            raise PrepareError(
                f"the task's directory cannot be made: {error}", failures.AGENT_UNKNOWN
            ) from error
        if claim.repos and not life.record.work_dir:
            # Known also if the checkout fails: it goes with its conversation, a reply goes on in it.
            await life.set_state(life.record.state, work_dir=str(work_dir))
        await _get_repositories(life, work_dir)
    life.ahead.begin_shim()
    await lay_out(life, claim, work_dir, directory)
    reach("prepared")
    await life.set_state("ready", work_dir=str(work_dir), directory=directory, waiting_for="")
    life.ahead.begin_baseline()
    life.ahead.begin_run()


async def _get_repositories(life: TaskLife, work_dir: Path) -> None:
    """Check out what the task begins with, into a directory that Ostler made."""
    repositories = life.engine.repositories
    if repositories is None:
        return
    try:
        found = await repositories.prepare(life, work_dir)
    except RepositoryError as error:
        raise PrepareError(str(error), failures.AGENT_UNKNOWN) from error
    except OSError as error:
        raise PrepareError(
            f"the task's repository cannot be checked out: {error}", failures.AGENT_UNKNOWN
        ) from error
    notices = [notice.message for each in found for notice in each.notices]
    if notices:
        life.progress.notice = notices[0]


async def _take_directory(life: TaskLife, directory: str) -> Path:
    """Validate and lock a user directory; gives it cleaned."""
    locks = life.engine.directory_locks
    try:
        path = await asyncio.to_thread(validate_user_directory, directory)
        if life.lock is None:
            life.lock = locks.try_acquire(path, life.record.task_id)
        if life.lock is None:
            life.ahead.forget_shim()
            holder = locks.holder_of(path) or "unknown"
            await life.set_state("waiting_directory", directory=str(path), waiting_for=holder)
            reason = f"local_directory {path} (held by task {holder[:8]})"
            with contextlib.suppress(ServerError):  # a repeat is refused; waiting goes on all the same
                await life.connection.client.wait_local_directory(life.record.task_id, reason)
            life.lock = await locks.acquire(path, life.record.task_id)
            # The one before may have taken it away, or its permissions.
            path = await asyncio.to_thread(validate_user_directory, directory)
    except DirectoryRefusedError as error:
        raise PrepareError(str(error), failures.LOCAL_DIRECTORY_ERROR) from error
    except OSError as error:
        raise PrepareError(
            f"the directory {directory} cannot be locked: {error}", failures.LOCAL_DIRECTORY_ERROR
        ) from error
    return path


async def lay_out(life: TaskLife, claim: Task, work_dir: Path, directory: str) -> Prepared:
    """Write what the task is to find. ``directory`` is that of the user, if any, and is locked."""
    claim = await _with_skills(life, claim)
    launcher = life.engine.launcher(life.record)
    wanted = preparing.wanted_of(
        claim,
        layout=launcher.layout if launcher is not None else Layout(),
        work_dir=work_dir,
        user_owned=bool(directory),
        run_dir=life.run_dir,
        # An issue of the hub's is worked on as one of any server: its agent has to be told of it.
        hub=life.connection.timing.loopback and kind_of(claim) == "chat",
        environ=life.engine.base_environment,
        jobs=running_jobs(life),
        commands=HUB_COMMANDS if life.engine.may_hand_on(life.record) else HUB_COMMANDS - {"delegate"},
        settings=own_mcp.settings_of(life, claim, launcher) if launcher is not None else {},
        settings_anywhere=launcher is not None and own_mcp.is_for_anywhere(launcher.drive),
    )

    async def lay_out() -> Prepared:
        return await asyncio.to_thread(life.files.lay_out, wanted)

    try:
        if directory:
            return await lay_out()  # a full or broken disk of the user's need not hold up all the others
        return await life.engine.patience.carry(lambda: life.unless_over(lay_out()))
    except (Refused, OSError) as error:
        raise PrepareError(
            f"the directory {work_dir} cannot be prepared: {error}",
            failures.LOCAL_DIRECTORY_ERROR if directory else failures.AGENT_UNKNOWN,
        ) from error


async def _with_skills(life: TaskLife, claim: Task) -> Task:
    """The claim with whole skills instead of references; on disk, too, for a later life."""
    connection = life.connection

    async def pause(failed: int, least_s: float) -> None:
        await life.engine.pause(connection.name, max(min(2.0**failed, 15.0), least_s))

    backoff = Backoff(0.5, 15.0)
    rounds = 0
    while True:
        try:
            whole = await life.engine.skill_cache.resolved(claim, connection.client, pause)
            break
        except (TaskGoneError, WorkspaceGoneError) as error:
            life.server_ended("gone")
            raise OverError from error
        except UnauthorizedError as error:
            await life.hold_on(error, backoff, "its skills cannot be asked for yet")
        except (SkillError, ServerError) as error:
            # A task that is not being prepared any more has mostly ended there.
            status = await life.status_patiently()
            if status in TERMINAL_STATUSES:
                life.server_ended(status)
                raise OverError from error
            passing = isinstance(error, SkillError) and error.passing
            rounds += 1
            if passing and rounds < SKILL_ROUNDS:  # it answers again: what it could not give it may give now
                await pause(0, 0.0)
                continue
            reason = failures.SKILL_BUNDLE_UNAVAILABLE if passing else failures.AGENT_CONFIG
            raise PrepareError(str(error), reason) from error
    if whole is claim:
        return claim
    # The newest claim counts: it may have been handed out again meanwhile, with another token.
    life.claim = msgspec.structs.replace(life.claim or whole, agent=whole.agent)
    file = ClaimFile(life.run_dir)
    await life.engine.patience.carry(lambda: asyncio.to_thread(file.write, life.claim or whole))
    return life.claim


async def _keep_lease(life: TaskLife) -> None:
    if not life.fresh:
        await _extend_lease(life)  # the time that no daemon was there counts against it
    while True:
        await asyncio.sleep(life.connection.timing.lease_s)
        await _extend_lease(life)


async def _extend_lease(life: TaskLife) -> None:
    try:
        await life.connection.client.prepare_lease(life.record.runtime_id, life.record.task_id)
    except ServerError as error:
        log.debug("task %s: the lease was not extended: %s", life.record.task_id, error)


async def _report_start(life: TaskLife) -> None:
    backoff = Backoff(0.5, 15.0)
    client = life.connection.client
    refusals = 0
    while True:
        try:
            reach("before_start")
            await client.start(life.record.task_id)
            reach("start_accepted")
            break
        except (TaskGoneError, WorkspaceGoneError) as error:
            life.server_ended("gone")
            raise OverError from error
        except (PermanentError, RuntimeGoneError) as error:
            # Refused unless dispatched or waiting: either we were heard before, or it has ended.
            status = await life.status_patiently()
            if status == "running":
                break
            if status in TERMINAL_STATUSES:
                life.server_ended(status)
                raise OverError from error
            refusals += 1
            if not error.is_verdict and refusals < STRANGE_REFUSALS:
                await life.hold_on(error, backoff, "it cannot be started yet")
                continue
            text = f"start task failed: {error}"
            raise PrepareError(text, failures.classify(text)) from error
        except ServerError as error:
            await life.hold_on(error, backoff, "it cannot be started yet")
    await life.set_state("started", started_at=clock.now_text())
    reach("started")
    life.steps.begun()
