"""Jobs as they are asked for: by persons over the control socket, by tasks with their own token.

A task sees the jobs of its conversation and no others: what is not its own is not there. The directory and
environment of its jobs are its own, too.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from daemon_core.control.backend import resolve_id
from daemon_core.control.changes import ChangeLog
from daemon_core.control.errors import ControlError
from daemon_core.control.job_views import JobDigest, JobInput, JobOutput, JobRun
from daemon_core.control.views import JobView
from daemon_core.jobs import output
from daemon_core.jobs.conversations import conversation_of
from daemon_core.jobs.keeper import JobKeeper, JobWish, TakenError
from daemon_core.jobs.store import JobRecord
from daemon_core.processes import EndedError, LostError, UnreachableError
from daemon_core.tasks.barrier import BarrierUpError
from daemon_core.tasks.environment import (
    MARK_NAME,
    child_environment,
    is_own_name,
    search_path,
)
from daemon_core.tasks.repositories import lies_inside

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

COMMAND_LIMIT_CHARS: Final = 128 * 1024
NAME_LIMIT_CHARS: Final = 200
INPUT_LIMIT_CHARS: Final = 64 * 1024
TIME_LIMIT_MOST_S: Final = 30 * 86400.0
WAIT_LIMIT_S: Final = 30.0
"""A question that waits for an answer is asked again after this long: it holds up no end of the daemon."""
KILL_WAIT_S: Final = 15.0
"""How long a kill is waited for; it goes on by itself."""
PAGE_BYTES: Final = 256 * 1024
EOF_CHARACTER: Final = b"\x04"
"""What a terminal takes for the end of its input, at the beginning of a line."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class JobDesk:
    """Implements ``control.job_routes`` and hears of every change.

    Attributes:
        keeper: Given by the builder when the jobs of before the start have been taken up.
        time_limit_s: The time limit of a job that names none.
        environment: What a person's job begins with.
    """

    def __init__(self, changes: ChangeLog) -> None:
        self._changes = changes
        self.keeper: JobKeeper | None = None
        self.engine: Engine | None = None
        self.time_limit_s: Callable[[], float] = lambda: 3600.0
        self.environment: Callable[[], Mapping[str, str]] = dict

    # --- asked ---------------------------------------------------------------------------------

    async def run(self, life: TaskLife | None, wanted: JobRun) -> JobView:
        """Start a job for a task, or for a person (None).

        Raises:
            ControlError: invalid_input; directory_*; barrier_up; conflict (job_id_taken, task_ended);
                not_ready.
        """
        keeper = self._ready()
        if life is not None and life.over.is_set():
            # It is being ended: what it still begins would outlive the wish to end it.
            raise ControlError("conflict", {"what": "task_ended", "id": life.record.task_id})
        _check(wanted)
        time_limit_s = self.time_limit_s() if wanted.time_limit is None else wanted.time_limit
        if life is None:
            cwd, env = (
                await asyncio.to_thread(_person_directory, wanted.directory),
                self._person_environment(),
            )
        else:
            cwd = await asyncio.to_thread(_task_directory, life, wanted)
            env = self._task_environment(life)
        if wanted.terminal and sys.platform != "win32":
            env.setdefault("TERM", "xterm-256color")
        wish = JobWish(
            id=wanted.id,
            command=wanted.command,
            cwd=cwd,
            env=env,
            conversation=conversation_of(life.record) if life is not None else "",
            task_key=life.record.key if life is not None else "",
            run_id=life.run.run_id if life is not None else "",
            name=wanted.name.strip(),
            terminal=wanted.terminal,
            time_limit_s=time_limit_s,
            wake=wanted.wake,
        )
        try:
            return self.view(await keeper.start(wish))
        except BarrierUpError as error:
            raise ControlError("barrier_up", {"reason": error.holders[0]}) from error
        except TakenError as error:
            raise ControlError("conflict", {"what": "job_id_taken", "id": wanted.id}) from error
        except OSError as error:
            detail = error.strerror or str(error)
            raise ControlError(
                "invalid_input", {"field": "command", "why": "system", "detail": detail}
            ) from error

    async def jobs(self, life: TaskLife | None, task: str = "") -> list[JobView]:
        """Jobs, newest first: all, those of a task's conversation (by the task's id), or the caller's own."""
        keeper = self._ready()
        if life is not None:
            jobs = await keeper.jobs(conversation_of(life.record))
        elif task:
            jobs = await keeper.jobs(await self._conversation(task))
        else:
            jobs = await keeper.jobs()
        return [self.view(self._present(job)) for job in reversed(jobs)]

    async def get(self, life: TaskLife | None, ident: str) -> JobView:
        """One job. Raises ``ControlError``: not_found, ambiguous_id, invalid_input, not_ready."""
        return self.view(await self._find(life, ident))

    async def wait(self, life: TaskLife | None, ident: str, seconds: float) -> JobView:
        """The job when it has ended, or after that long (at most 30 s) as it is then."""
        job = await self._find(life, ident)
        await self._ready().wait(job.id, min(seconds, WAIT_LIMIT_S))
        return self.view(await self._find(life, job.id))

    async def output(
        self, life: TaskLife | None, ident: str, *, offset: int, limit: int, stream: str, wait_s: float
    ) -> JobOutput:
        """Output from an offset on, after at most ``wait_s`` if there is none yet and the job goes on."""
        keeper = self._ready()
        job = await self._find(life, ident)
        stream = _stream(stream)
        place = keeper.files.of(job.id)
        limit = min(limit or PAGE_BYTES, output.PIECE_LIMIT_BYTES)
        # Whether it has ended first: then what is read afterwards is all of it.
        ended = job.ended
        piece = await asyncio.to_thread(output.read_piece, place, stream, offset, limit)
        if not piece.data and not ended and wait_s > 0:
            sizes = (offset, 1 << 60) if stream == "stdout" else (1 << 60, offset)
            try:
                await keeper.grown(job.id, *sizes, min(wait_s, WAIT_LIMIT_S))
            except UnreachableError:
                pass  # asked again by whoever waits
            ended = (await self._find(life, job.id)).ended
            piece = await asyncio.to_thread(output.read_piece, place, stream, offset, limit)
        return JobOutput(
            id=job.id,
            offset=piece.offset,
            next_offset=piece.offset + len(piece.data),
            size=piece.size,
            ended=ended,
            data=piece.data,
            dropped_from=piece.gap.start if piece.gap is not None else None,
            dropped_to=piece.gap.end if piece.gap is not None else None,
        )

    async def digest(self, life: TaskLife | None, ident: str, stream: str = "") -> JobDigest:
        """Beginning and end of the output as plain text."""
        keeper = self._ready()
        job = await self._find(life, ident)
        found = await asyncio.to_thread(output.digest, keeper.files.of(job.id), _stream(stream))
        return JobDigest(
            id=job.id,
            text=found.text,
            size=found.size,
            shortened=found.shortened,
            ended=job.ended,
            dropped_from=found.gap.start if found.gap is not None else None,
            dropped_to=found.gap.end if found.gap is not None else None,
        )

    async def input(self, life: TaskLife | None, ident: str, wanted: JobInput) -> JobView:
        """Say something to a job; returns when it is sure that it gets it.

        Raises:
            ControlError: besides those of ``get``: conflict (job_ended, job_input_closed, job_unreachable).
        """
        job = await self._find(life, ident)
        if len(wanted.text) > INPUT_LIMIT_CHARS:
            raise ControlError(
                "invalid_input", {"field": "text", "why": "too_long", "limit": INPUT_LIMIT_CHARS}
            )
        text = wanted.text + ("\n" if wanted.newline and not (wanted.eof and not wanted.text) else "")
        if job.terminal and sys.platform != "win32":
            # The Enter key sends a carriage return. A terminal makes a line end of it, unless its program
            # wants each key as it is, and then that is what it waits for.
            text = text.replace("\r\n", "\n").replace("\n", "\r")
        data = text.encode("utf-8", "surrogateescape")
        found = self._ready().lives.get(job.id)
        try:
            if found is None:
                raise ControlError("conflict", {"what": "job_ended", "id": job.id, "status": job.status})
            if data:
                await found.say(data)
            if wanted.eof:
                # A terminal is not closed: the program would lose it. It is told by its own character.
                await found.say(EOF_CHARACTER if job.terminal else None)
        except (EndedError, LostError) as error:
            raise ControlError("conflict", {"what": "job_ended", "id": job.id}) from error
        except UnreachableError as error:
            raise ControlError("conflict", {"what": "job_unreachable", "id": job.id}) from error
        except ValueError as error:
            raise ControlError("conflict", {"what": "job_input_closed", "id": job.id}) from error
        return self.view(await self._find(life, job.id))

    async def kill(self, life: TaskLife | None, ident: str) -> JobView:
        """End a job with everything that it has started. One that has ended is left as it is."""
        keeper = self._ready()
        job = await self._find(life, ident)
        await keeper.kill(job.id)
        await keeper.wait(job.id, KILL_WAIT_S)
        return self.view(await self._find(life, job.id))

    async def kill_of_task(self, task: str) -> list[JobView]:
        """End all jobs of a task's conversation that go on."""
        keeper = self._ready()
        going = [job for job in await keeper.jobs(await self._conversation(task)) if not job.ended]
        return list(await asyncio.gather(*(self.kill(None, job.id) for job in going)))

    async def heard(self, life: TaskLife | None, ident: str) -> JobView:
        """Whoever started the job has seen its end: it is not told once more."""
        keeper = self._ready()
        job = await self._find(life, ident)
        if job.ended:
            await keeper.heard(job.id)
        return self.view(job)

    async def snapshot(self) -> list[JobView]:
        """All jobs, newest first; none while the daemon starts."""
        return await self.jobs(None) if self.keeper is not None else []

    # --- told ----------------------------------------------------------------------------------

    def job_changed(self, job: JobRecord) -> None:
        """Publish a job as it is now. (While the daemon starts nobody has seen it as it was before.)"""
        if self.keeper is None:
            return
        self._changes.publish("job", f"job:{job.id}", self.view(job))

    def job_removed(self, job_id: str) -> None:
        """It is not there any more."""
        self._changes.publish("job_removed", f"job:{job_id}", {"id": job_id})

    # --- inside --------------------------------------------------------------------------------

    def _ready(self) -> JobKeeper:
        if self.keeper is None:
            raise ControlError("not_ready")
        return self.keeper

    def _present(self, job: JobRecord) -> JobRecord:
        life = self._ready().lives.get(job.id)
        return life.job if life is not None else job

    async def _find(self, life: TaskLife | None, ident: str) -> JobRecord:
        keeper = self._ready()
        conversation = conversation_of(life.record) if life is not None else None
        wanted = ident.strip().lower()
        found = await keeper.job(wanted) if _ID.fullmatch(wanted) else None
        if found is not None and conversation in (None, found.conversation):
            return found
        jobs = {job.id: job for job in await keeper.jobs(conversation)}
        return self._present(jobs[resolve_id("job", ident, jobs)])

    async def _conversation(self, task: str) -> str:
        """The conversation of a task, by the task's whole id."""
        engine = self.engine
        if engine is None:
            raise ControlError("not_ready")
        records = await engine.journal.tasks_by_id(task)
        if not records:
            raise ControlError("not_found", {"kind": "task", "id": task})
        return conversation_of(records[0])

    def _person_environment(self) -> dict[str, str]:
        base = self.environment()
        env = {name: value for name, value in base.items() if not is_own_name(name)}
        env["PATH"] = search_path(base)
        return env

    def _task_environment(self, life: TaskLife) -> dict[str, str]:
        engine, claim = life.engine, life.claim
        if claim is None:
            raise ControlError("not_ready")
        env = child_environment(
            base=engine.base_environment,
            task=claim,
            run_id=life.run.run_id,
            mark="",
            slot=life.slot.number,
            server_url=life.connection.client.base_url,
            control_url=engine.control_url,
            loopback_port=engine.loopback_port,
            is_hub=life.connection.timing.loopback,
            home=engine.home,
            profile=engine.profile,
        )
        del env[MARK_NAME]  # it outlives the run, so it must not be taken for a part of it
        if life.files.prepared is not None:
            env.update(life.files.prepared.environment(env))
        return env

    def view(self, job: JobRecord) -> JobView:
        """A job as it is told. Looks at the sizes of its output."""
        keeper = self._ready()
        place = keeper.files.of(job.id)
        return JobView(
            id=job.id,
            status=job.status,
            name=job.name,
            command=job.command,
            directory=job.cwd,
            task_id=job.task_key.partition("/")[2],
            conversation=job.conversation.partition("/")[2],
            exit_code=job.exit_code,
            signal=job.signal,
            error=job.error,
            created_at=job.created_at,
            started_at=job.started_at or None,
            ended_at=job.ended_at or None,
            pid=job.pid,
            output_path=str(place / "stdout"),
            output_bytes=output.size_of(place),
            errors_path="" if job.terminal else str(place / "stderr"),
            errors_bytes=0 if job.terminal else output.size_of(place, "stderr"),
            stalled=bool(job.stalled_at),
            stalled_at=job.stalled_at or None,
            time_limit=job.time_limit_s,
            terminal=job.terminal,
            wake=job.wake,
        )


def _check(wanted: JobRun) -> None:
    def refused(field: str, why: str, **more: object) -> ControlError:
        return ControlError("invalid_input", {"field": field, "why": why, **more})

    if not wanted.command.strip():
        raise refused("command", "empty")
    for field, text, limit in (
        ("command", wanted.command, COMMAND_LIMIT_CHARS),
        ("name", wanted.name, NAME_LIMIT_CHARS),
    ):
        if "\0" in text:
            raise refused(field, "nul")
        if len(text) > limit:
            raise refused(field, "too_long", limit=limit)
    if wanted.id and not _ID.fullmatch(wanted.id):
        raise refused("id", "schema", detail="32 hexadecimal digits")
    limit_s = wanted.time_limit
    if limit_s is not None and not (math.isfinite(limit_s) and 0 <= limit_s <= TIME_LIMIT_MOST_S):
        raise refused("time_limit", "schema", detail="0 (none) to 30 days")


def _stream(name: str) -> str:
    if name and name not in output.STREAMS:
        raise ControlError("invalid_input", {"field": "stream", "why": "unknown", "detail": name[:40]})
    return name or "stdout"


def _person_directory(path: str) -> str:
    """Where a person's job runs. Looks at the disk."""
    if not os.path.isabs(path) or "\0" in path:
        raise ControlError("directory_not_absolute", {"path": path})
    if not os.path.exists(path):
        raise ControlError("directory_not_found", {"path": path})
    if not os.path.isdir(path):
        raise ControlError("directory_not_a_directory", {"path": path})
    return path


def _task_directory(life: TaskLife, wanted: JobRun) -> str:
    """Where a task's job runs: the work directory or below. Looks at the disk."""
    work_dir = life.record.work_dir
    if not work_dir:
        raise ControlError("not_ready")
    path = wanted.directory or work_dir
    if not os.path.isabs(path):
        path = os.path.join(work_dir, path)
    if lies_inside(path, work_dir):
        return path
    if wanted.fallback:
        return work_dir
    if not os.path.isdir(path):
        raise ControlError("directory_not_found", {"path": path})
    raise ControlError("directory_outside", {"path": path, "work_dir": work_dir})
