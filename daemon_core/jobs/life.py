"""One job from its start to its end, through its shim: begun once, watched for stalls, ended and recorded.

Nothing polls. The shim tells when the output has grown and when the job has ended; a timer runs only while
output is coming (a look every few seconds at most) or while its end looks like a question.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from daemon_core.jobs import output, words
from daemon_core.jobs.files import owner_of
from daemon_core.jobs.stalls import Prompt, prompt_of
from daemon_core.jobs.store import JobNotice, JobRecord
from daemon_core.processes import (
    OUTPUT_KEEP_LEAST_BYTES,
    EndedError,
    ExitStatus,
    Lost,
    LostError,
    NeverStarted,
    RunSpec,
    Shim,
    SpawnError,
    UnreachableError,
    attach,
    end_survivors,
    spawn,
)

if TYPE_CHECKING:
    from daemon_core.jobs.keeper import JobKeeper

log = logging.getLogger(__name__)

T = TypeVar("T")

TERMINAL_SIZE: Final = (40, 120)
"""Rows and columns that a command finds: wide enough for tables, as a person's window has it."""
PACE_S: Final = 5.0
"""While output is coming its end is looked at this often at most."""
KILL_GRACE_S: Final = 5.0
"""Between the gentle and the firm signal."""
UNREACHABLE_PAUSE_S: Final = 1.0
ENDED_OUTSIDE: Final = "it was ended from outside, as when the machine is shut down or the user logs out"
"""Of one whose keeper was told to end it, and not by us: nobody has killed it, so its agent is told."""
_NEVER: Final = sys.maxsize >> 1


class JobLife:
    """A job that has not ended. ``live`` carries it; everything else asks or wishes."""

    def __init__(self, keeper: JobKeeper, job: JobRecord, *, fresh: bool) -> None:
        self.keeper = keeper
        self.job = job
        self.directory: Path = keeper.files.of(job.id)
        self.begun = asyncio.Event()
        """Its process has been executed, or never will be."""
        self.over = asyncio.Event()
        self.shim: Shim | None = None
        self._fresh = fresh
        self._kill = asyncio.Event()
        self._saying = asyncio.Lock()
        self._prompt: Prompt | None = None

    async def live(self) -> None:
        """From where it stands to its recorded end."""
        try:
            found = await self._begin()
            if isinstance(found, Shim):
                self.shim = found
                self.begun.set()
                self.keeper.changed(self.job)
                found = await self._watched(found)
            await self._end(found)
        finally:
            self.begun.set()
            if self.shim is not None:
                await self.shim.close()

    # --- wishes --------------------------------------------------------------------------------

    async def kill(self, grace_s: float = KILL_GRACE_S) -> None:
        """Begin to end it, with everything that it has started. It is marked as killed already."""
        self._kill.set()
        await self.begun.wait()
        if self.shim is not None and not self.over.is_set():
            await self.shim.end(grace_s)

    async def say(self, data: bytes | None) -> None:
        """Write to its standard input, or close it; returns when the shim has it.

        Raises ``EndedError``, ``LostError``, ``UnreachableError``, and ``ValueError`` where it is closed.
        """
        await self.begun.wait()
        shim = self.shim
        if shim is None:
            raise ValueError("it has not begun")
        async with self._saying:
            number = (await shim.status()).written + 1
            await shim.write(number, data)

    async def grown(self, stdout_beyond: int, stderr_beyond: int) -> None:
        """Until it has more output than that, or has ended. Safe to cancel."""
        await self.begun.wait()
        if self.shim is None or self.over.is_set():
            return
        with contextlib.suppress(LostError):
            await self.shim.watch(stdout_beyond, stderr_beyond)

    # --- begin ---------------------------------------------------------------------------------

    async def _begin(self) -> Shim | ExitStatus | Lost | str:
        """Its shim; or how it has ended; or in words why it could not be started."""
        job = self.job
        if not self._fresh:
            found = await attach(self.directory)
            if not isinstance(found, NeverStarted):
                if not job.started_at:  # begun, and the daemon died before it could record that
                    owned = await asyncio.to_thread(self.keeper.files.owned, job.id)
                    job.started_at = (owned.started_at if owned is not None else "") or job.created_at
                if isinstance(found, Shim) and job.state == "created":
                    await self._record_start(found)
                return found
            if job.state != "created":
                return Lost(run_dir=self.directory, info=None, mark=job.mark)
        if job.status == "killed" or self._kill.is_set():
            return "it was killed before it began"
        start = await asyncio.to_thread(self.keeper.files.start_of, job.id)
        if start is None:
            return "what was needed to start it is gone"
        job.started_at = _now()
        kept_bytes = self.keeper.keep_bytes()
        if kept_bytes:
            kept_bytes = max(kept_bytes, OUTPUT_KEEP_LEAST_BYTES)
        spec = RunSpec(
            run_dir=self.directory,
            argv=start.argv,
            cwd=Path(job.cwd),
            env=start.env,
            stdin=None,
            terminal=TERMINAL_SIZE if job.terminal else None,
            time_limit_s=job.time_limit_s,
            output_keep=(kept_bytes, kept_bytes),
            mark=job.mark,
            socket_dir=self.keeper.socket_dir,
            owner=owner_of(job),
        )
        self.keeper.reach("job_before_spawn")
        try:
            shim = await self.keeper.carry(lambda: _once(spec))
        except SpawnError as error:
            return str(error)
        except (ValueError, OSError) as error:  # a NUL in it, say; a directory that cannot be written
            return str(error)
        except LostError as error:
            return Lost(run_dir=self.directory, info=error.info, mark=job.mark)
        self.keeper.reach("job_spawned")
        try:
            await self._record_start(shim)
        except BaseException:
            await shim.close()
            raise
        return shim

    async def _record_start(self, shim: Shim) -> None:
        job = self.job
        job.pid = shim.info.child_pid
        job.state = "started"
        job.started_at = job.started_at or _now()
        await self.keeper.carry(
            lambda: self.keeper.store.update(job.id, state="started", started_at=job.started_at, pid=job.pid)
        )
        self.keeper.reach("job_started")
        await asyncio.to_thread(self.keeper.files.begun, job.id)

    # --- watching ------------------------------------------------------------------------------

    async def _watched(self, shim: Shim) -> ExitStatus | Lost:
        if self._kill.is_set() or self.job.status == "killed":
            await shim.end(KILL_GRACE_S)
        while True:
            try:
                return await self._until_end(shim)
            except LostError as error:
                return Lost(run_dir=self.directory, info=error.info, mark=self.job.mark)
            except EndedError as error:
                return error.status
            except UnreachableError:
                await asyncio.sleep(UNREACHABLE_PAUSE_S)

    async def _until_end(self, shim: Shim) -> ExitStatus:
        pace_s = min(PACE_S, self.keeper.stall_s() / 3)
        while True:
            status = await shim.status()
            if status.ended:
                return await shim.wait()
            await self._look()
            heard_at = time.monotonic() - status.idle_s
            sizes = (status.stdout_bytes, status.stderr_bytes)
            grew = await self._quiet_since(shim, sizes, heard_at)
            if self.job.stalled_at:
                await self._goes_on()
            if not grew:
                return await shim.wait()
            # More is coming, most likely: one look for all of it.
            if await _within(pace_s, shim.watch(_NEVER, _NEVER)) is not None:
                return await shim.wait()

    async def _quiet_since(self, shim: Shim, sizes: tuple[int, int], heard_at: float) -> bool:
        """Until there is more output (True) or the end; says meanwhile that it seems to wait for input."""
        while True:
            left_s: float | None = None
            if self._prompt is not None and not self.job.stalled_at and self.job.status == "running":
                left_s = max(0.01, heard_at + self.keeper.stall_s() - time.monotonic())
            state = await _within(left_s, shim.watch(*sizes))
            if state is not None:
                return not state.ended
            await self._stalled(time.monotonic() - heard_at)
            self._prompt = None  # said: from here on without a timer

    async def _look(self) -> None:
        """Whether the end of the output asks for something now."""
        tails = await asyncio.to_thread(self._tails)
        self._prompt = next((found for tail in tails if (found := prompt_of(output.plain(tail), tail))), None)
        since = _parse(self.job.stalled_at)
        # By the files: the clock that tells how long it was silent stands still while the machine sleeps.
        if since is not None and await asyncio.to_thread(output.grew_at, self.directory) > since.timestamp():
            await self._goes_on()  # there was output while no daemon looked

    def _tails(self) -> list[bytes]:
        streams = ("stdout",) if self.job.terminal else output.STREAMS
        return [tail for stream in streams if (tail := output.read_tail(self.directory, stream))]

    async def _stalled(self, silent_s: float) -> None:
        prompt = self._prompt
        assert prompt is not None
        tails = await asyncio.to_thread(self._tails)
        tail = next((tail for tail in tails if prompt_of(output.plain(tail), tail)), b"")
        notice = words.stalled_notice(
            self.job,
            prompt,
            "\n".join(output.plain(tail, cut_start=True).splitlines()[-20:]),
            str(self.directory / "stdout"),
            self.job.stalls + 1,
            silent_s,
        )
        found = await self.keeper.carry(lambda: self.keeper.store.stall(self.job.id, _now(), notice))
        self.keeper.reach("job_stalled")
        if found is None:
            return
        self.job.stalled_at, self.job.stalls = found.stalled_at, found.stalls
        log.info("job %s seems to wait for input (%s)", self.job.id, prompt.kind)
        self.keeper.told(self.job)
        self.keeper.changed(self.job)

    async def _goes_on(self) -> None:
        self.job.stalled_at = ""
        await self.keeper.carry(lambda: self.keeper.store.update(self.job.id, stalled_at=""))
        self.keeper.changed(self.job)

    # --- end -----------------------------------------------------------------------------------

    async def _end(self, found: ExitStatus | Lost | str) -> None:
        job = self.job
        changes: dict[str, object] = {}
        if isinstance(found, Lost):
            cgroup = found.info.cgroup if found.info is not None else None
            left = await asyncio.to_thread(end_survivors, found.mark or job.mark, cgroup)
            log.warning("job %s is lost; %d of its processes were ended", job.id, len(left))
            changes |= {"status": "lost", "ended_at": _now()}
        elif isinstance(found, str):
            changes |= {"status": "failed", "error": found, "ended_at": _now()}
        else:
            outside = found.reason == "killed" and job.status != "killed"
            changes |= {
                "status": "failed" if outside else _verdict(found),
                "exit_code": found.code,
                "signal": found.signal,
                "error": "; ".join(part for part in (ENDED_OUTSIDE if outside else "", found.error) if part),
                "ended_at": found.ended_at,
            }
        changes["started_at"] = job.started_at if not isinstance(found, str) else ""
        await asyncio.to_thread(self.keeper.files.settle, job.id)
        for name, value in changes.items():
            setattr(job, name, value)
        notice = await asyncio.to_thread(self._notice) if job.conversation else None
        self.keeper.reach("job_ended")
        recorded = await self.keeper.carry(lambda: self.keeper.store.end(job.id, changes, notice, _now()))
        self.keeper.reach("job_end_recorded")
        if recorded is not None:
            self.job = recorded
        self.over.set()
        self.keeper.ended(self)

    def _notice(self) -> JobNotice | None:
        job, place = self.job, self.directory
        errors = None if job.terminal else output.digest(place, "stderr", output.DIGEST_LIMIT_CHARS // 4)
        return words.ended_notice(job, output.digest(place), str(place / "stdout"), errors)


async def _once(spec: RunSpec) -> Shim:
    """``spawn``, where no room for its directory is an ``OSError``: nothing has begun then."""
    try:
        return await spawn(spec)
    except SpawnError as error:
        if error.what == "prepare" and error.errno:
            raise OSError(error.errno, str(error)) from error
        raise


def _verdict(status: ExitStatus) -> str:
    if status.reason in ("timed_out", "killed"):
        return status.reason
    return "done" if status.code == 0 else "failed"


async def _within(limit_s: float | None, waiting: Awaitable[T]) -> T | None:
    """What comes in that time, or None."""
    try:
        async with asyncio.timeout(limit_s):
            return await waiting
    except TimeoutError:
        return None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
