"""One run: its shim is read, talked to, watched, ended and judged.

The loop is: wait until the output has grown (the shim tells), read the stretch, let the family's reader make
events of it, number them, commit messages and offset together, only then say to the agent what has to be
said. A restart of the daemon enters the same loop at the committed offset.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import Reader
from daemon_core.journal import Journal, Stretch
from daemon_core.processes.client import Lost, Shim, attach
from daemon_core.processes.errors import EndedError, LostError, UnreachableError
from daemon_core.processes.state import ExitStatus, read_state, remove_secrets
from daemon_core.processes.tree import Identity, end_survivors, send
from daemon_core.protocol.wire import SessionRequest
from daemon_core.tasks import clock
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import beside, keep_going
from daemon_core.tasks.patience import Patience
from daemon_core.tasks.translate import Digest, digest

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
"""Output taken at once: some ten milliseconds of work in a thread, and a bound for memory."""

COALESCE_S = 0.04
"""After a small stretch the next one is given this long to grow: a chatty agent costs one transaction and
one request a batch instead of one a line. The first line after a silence is never held back."""

PARTIAL_LINE_S = 1.0
"""A line without an end is shown after this long without more."""

UNREACHABLE_PAUSE_S = 1.0
"""Between tries at a shim that lives and does not answer (its machine is stopped or starved)."""

STDERR_TAIL_BYTES = 16 * 1024
_NEVER = 1 << 62
"""An offset that no output reaches: standard error alone is no reason to wake up."""
INTERRUPT_GRACE_S = 5.0
"""How long an agent may take to end its turn when asked by its protocol."""
TERM_GRACE_S = 5.0
"""How long between the gentle and the firm signal."""
END_LIMIT_S = 30.0
"""How long a shim may take over the whole ladder before the run is ended without it."""


class StopReason(enum.Enum):
    """Why a run is ended from here."""

    SERVER = "server"
    """The server has ended or lost the task."""
    SILENCE = "silence"
    TIME_LIMIT = "time_limit"
    DAEMON = "daemon"
    """The user stops the daemon and its runs."""


@dataclass(frozen=True, kw_only=True)
class WatchLimits:
    """Seconds of silence allowed without and with a tool in flight, and for the whole run; 0 is no limit."""

    idle_s: float = 30 * 60.0
    tool_s: float = 2 * 3600.0
    run_s: float = 0.0


@dataclass(kw_only=True)
class RunEnd:
    """How a run ended: an exit status and the reader's verdict, or lost with its shim."""

    outcome: Outcome | None
    exit: ExitStatus | None
    stopped: StopReason | None = None
    survivors: int = 0


class Progress(msgspec.Struct, kw_only=True):
    """What the tray shows of a run that goes on."""

    tool_calls: int = 0
    last_action: str = ""
    notice: str = ""
    last_output_at: str = ""


class RunDriver:
    """Drives one run to its end. Cancelling ``drive`` (called once) detaches and leaves the run alive."""

    def __init__(
        self,
        *,
        journal: Journal,
        patience: Patience,
        task_key: str,
        run_id: str,
        run_dir: Path,
        mark: str,
        shim: Shim | None,
        reader: Reader,
        offset: int,
        next_seq: int,
        work_dir: str,
        limits: WatchLimits,
        started_wall: float,
        on_stretch: Callable[[Digest], None],
        on_session: Callable[[str], Awaitable[None]],
    ) -> None:
        self.journal = journal
        self.patience = patience
        self.task_key = task_key
        self.run_id = run_id
        self.run_dir = run_dir
        self.mark = mark
        self.shim = shim
        self.reader = reader
        self.position = offset
        self.next_seq = next_seq
        self.work_dir = work_dir
        self.limits = limits
        self.started_wall = started_wall
        self.on_stretch = on_stretch
        self.on_session = on_session
        self.stopped: StopReason | None = None
        self._stop = asyncio.Event()
        self._tools_changed = asyncio.Event()
        self._extended_until = 0.0
        self._pinned = reader.session_id

    def stop(self, reason: StopReason) -> None:
        """End the run: ask by protocol, then signals, then the tree. The first reason counts."""
        if self.stopped is None:
            self.stopped = reason
            self._stop.set()

    def extend(self, seconds: float) -> None:
        """The user gives a silent run more time."""
        self._extended_until = max(self._extended_until, time.monotonic()) + seconds
        self._tools_changed.set()

    async def drive(self, ended: ExitStatus | None = None) -> RunEnd:
        """Read until the end; with ``ended`` the run is over already and its rest is read.

        A full disk is waited out. Raises ``JournalError`` for a damaged journal and ``OSError`` for output
        that cannot be read; the run goes on then, and ``end_run`` ends it.
        """
        if self.shim is None:
            assert ended is not None
            return await self._judge(ended)
        try:
            shim, name = self.shim, f"guard of run {self.run_id}"
            async with beside(keep_going(lambda: self._guard(shim), name), name):
                status = await self._pump(shim)
        except LostError:
            return await self._lost()
        finally:
            await self.shim.close()
        return await self._judge(status)

    async def drive_lost(self) -> RunEnd:
        """The run was found lost: end what still lives of it and keep what it said."""
        return await self._lost()

    # --- reading -------------------------------------------------------------------------------

    async def _pump(self, shim: Shim) -> ExitStatus:
        await self._say(shim)
        flushed = True
        while True:
            timeout_s = None if flushed or self.reader.consumed >= self.position else PARTIAL_LINE_S
            try:
                async with asyncio.timeout(timeout_s):
                    state = await shim.watch(self.position, _NEVER)
            except TimeoutError:
                flushed = True
                await self._commit(self.reader.flush())
                continue
            before = self.position
            if state.stdout_bytes > before:
                await self._read_to(state.stdout_bytes)
                if self.position == before and not state.ended:
                    # Going on would be blind: what the agent says and asks is lost.
                    raise OSError(errno.EIO, "the output was cut or removed while the agent ran")
            if self.position > before:
                flushed = False
                grown = self.position - before
                await self._say(shim)
                if grown < READ_BYTES and not state.ended:
                    await asyncio.sleep(COALESCE_S)
            elif state.ended:
                return await shim.wait()
            elif not state.stalled_on_disk:
                # Nothing new and not over: the shim is out of reach for a moment.
                await asyncio.sleep(UNREACHABLE_PAUSE_S)

    async def _read_to(self, end: int) -> None:
        while self.position < end:
            events, read = await asyncio.to_thread(self._take, min(READ_BYTES, end - self.position))
            if not read:
                return  # shorter than told: the file was cut from outside; what is there has been read
            await self._commit(events)

    def _take(self, size: int) -> tuple[Digest, int]:
        """Read and understand one stretch (in a thread; the reader is used by one thread at a time)."""
        try:
            with open(self.run_dir / "stdout", "rb") as stream:
                stream.seek(self.position)
                data = stream.read(size)
        except FileNotFoundError:
            data = b""  # removed from outside: what was read of it is all there is
        self.position += len(data)
        made = digest(self.reader.feed(data), self.next_seq)
        self.next_seq = made.next_seq
        return made, len(data)

    async def _commit(self, made: Digest | Sequence[Event]) -> None:
        found = made if isinstance(made, Digest) else digest(made, self.next_seq)
        self.next_seq = found.next_seq
        reports: list[tuple[str, bytes]] = []
        session = self.reader.session_id
        if session and session != self._pinned:
            pin = SessionRequest(session_id=session, work_dir=self.work_dir)
            reports.append(("session", msgspec.json.encode(pin)))
        stretch = Stretch(
            run_id=self.run_id,
            task_key=self.task_key,
            stdout_offset=self.reader.consumed,
            reader=self.reader.snapshot(),
            next_seq=found.next_seq,
            at=clock.now_text(),
            chunks=found.chunks,
            session_id=session,
            reports=reports,
        )
        reach("before_commit")
        # Nothing is read further while the disk is full: the agent waits once its pipe is full, too.
        await self.patience.carry(lambda: self.journal.commit_stretch(stretch))
        reach("committed")
        if session and session != self._pinned:
            self._pinned = session
            await self.on_session(session)
        self._tools_changed.set()
        self.on_stretch(found)

    async def _say(self, shim: Shim) -> None:
        for write in self.reader.pending_writes():
            if not await self._write(shim, write.number, write.data):
                return
            self.reader.acknowledged(write.number)
            reach("said")

    async def _write(self, shim: Shim, number: int, data: bytes | None) -> bool:
        """One numbered write; False if there is nobody to say it to."""
        while True:
            try:
                await shim.write(number, data)
            except EndedError:
                return False
            except UnreachableError:
                await asyncio.sleep(UNREACHABLE_PAUSE_S)
            except ValueError as error:
                log.error("run %s: %s", self.run_id, error)
                return False
            else:
                return True

    # --- watching ------------------------------------------------------------------------------

    async def _guard(self, shim: Shim) -> None:
        """Wait for a reason to end the run, then end it. Cancelled when the run has ended by itself."""
        name = f"watch of run {self.run_id}"
        async with beside(keep_going(lambda: self._watch(shim), name), name):
            await self._stop.wait()
        log.info("run %s is being ended (%s)", self.run_id, self.stopped.value if self.stopped else "")
        try:
            await self._end(shim)
        except LostError:
            pass  # the pump sees it, too

    async def _end(self, shim: Shim) -> None:
        said = False
        try:
            async with asyncio.timeout(INTERRUPT_GRACE_S):
                for write in self.reader.interrupt():
                    said = await self._write(shim, write.number, write.data)
                if said:
                    await shim.wait()
                    return
        except TimeoutError:
            log.info("run %s did not end when asked; it is ended by signals", self.run_id)
        await shim.end(TERM_GRACE_S)

    async def _watch(self, shim: Shim) -> None:
        """Silence and the time limit. Wakes only when one of them may be due."""
        while True:
            self._tools_changed.clear()
            try:
                status = await shim.status()
            except (UnreachableError, LostError):
                await asyncio.sleep(UNREACHABLE_PAUSE_S)  # the pump sees a lost one, and ends this
                continue
            now = time.monotonic()
            # Output that nobody has read is not silence, nor is an agent held up by a full disk.
            unread = status.stdout_bytes > self.position or status.stalled_on_disk
            budget_s = self.limits.tool_s if self.reader.tools_in_flight else self.limits.idle_s
            silent_s = 0.0 if unread else status.idle_s
            waits: list[float] = []
            if budget_s > 0:
                left = max(budget_s - silent_s, self._extended_until - now)
                if left <= 0:
                    self.stop(StopReason.SILENCE)
                    return
                waits.append(left)
            if self.limits.run_s > 0:
                left = self.limits.run_s - (time.time() - self.started_wall)
                if left <= 0:
                    self.stop(StopReason.TIME_LIMIT)
                    return
                waits.append(left)
            in_flight = bool(self.reader.tools_in_flight)
            deadline = time.monotonic() + min(waits) if waits else None
            while bool(self.reader.tools_in_flight) == in_flight:
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._tools_changed.wait()
                self._tools_changed.clear()

    # --- the end -------------------------------------------------------------------------------

    async def _judge(self, status: ExitStatus) -> RunEnd:
        await self._read_to(_size(self.run_dir / "stdout"))
        await self._commit(self.reader.finish())
        tail = await asyncio.to_thread(_tail, self.run_dir / "stderr", STDERR_TAIL_BYTES)
        outcome = self.reader.outcome(status.code, status.signal, tail)
        return RunEnd(outcome=outcome, exit=status, stopped=self.stopped)

    async def _lost(self) -> RunEnd:
        """The shim is gone without a word: what still lives of the run is ended, what it said is kept."""
        ended = await asyncio.to_thread(self._end_survivors)
        await self._read_to(_size(self.run_dir / "stdout"))
        await self._commit(self.reader.finish())
        return RunEnd(outcome=None, exit=None, stopped=self.stopped, survivors=len(ended))

    def _end_survivors(self) -> list[int]:
        return _sweep(self.run_dir, self.mark)


async def end_run(run_dir: Path, mark: str) -> None:
    """End whatever lives of a run that nobody drives: through its shim, and without it if need be (promise
    P6). Its transcript stays as far as it has been read. Raises ``OSError``."""
    found = await attach(run_dir)
    if isinstance(found, Shim):
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await found.end(TERM_GRACE_S)
                await found.wait()
                return
        except (TimeoutError, LostError):
            log.error("run %s does not end by its shim; it is ended without", run_dir.name)
            send(Identity(found.info.pid, found.info.started), getattr(signal, "SIGKILL", signal.SIGTERM))
        finally:
            await found.close()
    elif not isinstance(found, Lost):
        return
    await asyncio.to_thread(_sweep, run_dir, mark)


def _sweep(run_dir: Path, mark: str) -> list[int]:
    info = read_state(run_dir).info
    ended = end_survivors(mark, info.cgroup if info is not None else None)
    remove_secrets(run_dir)
    return ended


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # the shim never got as far as the agent's output


def _tail(path: Path, size: int) -> str:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
