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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daemon_core.agents.ends import signal_of
from daemon_core.agents.events import Event, Outcome, PlanEntry
from daemon_core.agents.family import (
    EndsExplicitly,
    HearsFiles,
    HearsMore,
    Reader,
    StdinWrite,
    TellsProgress,
)
from daemon_core.agents.writes import whole
from daemon_core.journal import Journal, Stretch
from daemon_core.processes.client import Lost, Shim, attach
from daemon_core.processes.errors import EndedError, LostError, UnreachableError
from daemon_core.processes.state import (
    ExitStatus,
    is_locked,
    is_of_this_boot,
    read_state,
    remove_secrets,
)
from daemon_core.processes.tree import Identity, end_survivors, send
from daemon_core.protocol.wire import SessionRequest, Usage
from daemon_core.tasks import clock
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import beside, keep_going
from daemon_core.tasks.pace import Pace
from daemon_core.tasks.patience import Patience
from daemon_core.tasks.requests import Decision, RequestBook
from daemon_core.tasks.translate import Digest, digest
from daemon_core.tasks.watchdog import Kind, Watchdog

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
"""Output taken at once: some ten milliseconds of work in a thread, and a bound for memory."""

PARTIAL_LINE_S = 1.0
"""A line without an end is shown after this long without more."""

UNREACHABLE_PAUSE_S = 1.0
"""Between tries at a shim that lives and does not answer (its machine is stopped or starved)."""

STDERR_TAIL_BYTES = 16 * 1024
LEFT_FILE_BYTES = 4 * 1024 * 1024
"""How much of a file that an agent has left is looked at."""
_NEVER = 1 << 62
"""An offset that no output reaches: standard error alone is no reason to wake up."""
INTERRUPT_GRACE_S = 5.0
"""How long an agent may take to end its turn when asked by its protocol."""
TERM_GRACE_S = 5.0
"""How long between the gentle and the firm signal."""
LINGER_S = 5.0
"""How long an agent that has said that it is done may take to go by itself."""
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


@dataclass(kw_only=True)
class RunEnd:
    """How a run ended: an exit status and the reader's verdict, or lost with its shim."""

    outcome: Outcome | None
    exit: ExitStatus | None
    stopped: StopReason | None = None
    silent: Kind = "idle"
    """What it was silent at, where silence ended it."""
    survivors: int = 0
    taken_down: bool = False
    """Whether it was ended by what ended everything around it: the machine was shut down, say."""


class Progress(msgspec.Struct, kw_only=True):
    """What the tray shows of a run that goes on. ``usage`` is that of the present run alone, so far."""

    tool_calls: int = 0
    last_action: str = ""
    notice: str = ""
    last_output_at: str = ""
    plan: tuple[PlanEntry, ...] = ()
    usage: tuple[Usage, ...] = ()


class More(msgspec.Struct, kw_only=True):
    """What an agent that has ended its turn is told next, and the notices that are in it."""

    text: str
    notices: tuple[int, ...]


async def _nothing_more() -> More | None:
    return None


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
        watchdog: Watchdog,
        requests: RequestBook,
        on_stretch: Callable[[Digest], None],
        on_session: Callable[[str], Awaitable[None]],
        on_requests: Callable[[], None],
        on_turn_over: Callable[[], Awaitable[More | None]] = _nothing_more,
        on_let_go: Callable[[], Sequence[tuple[str, bytes]]] = tuple,
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
        self.watchdog = watchdog
        self.requests = requests
        self.on_stretch = on_stretch
        self.on_session = on_session
        self.on_requests = on_requests
        self.on_turn_over = on_turn_over
        self.on_let_go = on_let_go
        """Gives reports that can go out while the agent, which was let go, ends."""
        self.stopped: StopReason | None = None
        self._stop = asyncio.Event()
        self._done = asyncio.Event()
        self._answered = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held while the reader is used: by a stretch that is read, or by an answer between two."""
        self._over = False
        self._pinned = reader.session_id
        self._committed = offset
        self._silent: Kind = "idle"
        self._answered_once = False
        self._turns_told = 0
        self._progressed = self._progress()

    def stop(self, reason: StopReason) -> None:
        """End the run: ask by protocol, then signals, then the tree. The first reason counts."""
        if self.stopped is None:
            self.stopped = reason
            self._stop.set()

    async def answer(self, request_id: str, decision: Decision, text: str) -> bool:
        """Answer an open request; False if it is not open (any more). Durable when this returns, and said to
        the agent then, once, whatever happens.
        """
        async with self._turn:
            waiting = {request.request_id for request in self.reader.open_requests}
            if request_id not in waiting or self._over or self.stopped is not None:
                return False
            events = self.reader.answer(request_id, decision, text)
            reach("answer_taken")
            await self._commit(events)
            reach("answer_kept")
            self.watchdog.answered()
        self._answered.set()
        return True

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
            async with (
                beside(keep_going(lambda: self._guard(shim), name), name),
                beside(keep_going(lambda: self._say_answers(shim), name), name),
            ):
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
        async with self._turn:
            await self._go_on()
            await self._say(shim)
        pace = Pace()
        flushed = True
        while True:
            timeout_s = None if flushed or self.reader.consumed >= self.position else PARTIAL_LINE_S
            try:
                async with asyncio.timeout(timeout_s):
                    state = await shim.watch(self.position, _NEVER)
            except TimeoutError:
                flushed = True
                async with self._turn:
                    await self._commit(self.reader.flush())
                continue
            before, said = self.position, False
            if state.stdout_bytes > before:
                async with self._turn:
                    await self._read_to(state.stdout_bytes)
                    if self.position > before:
                        await self._go_on()
                        said = await self._say(shim)
                if self.position == before and not state.ended:
                    # Going on would be blind: what the agent says and asks is lost.
                    raise OSError(errno.EIO, "the output was cut or removed while the agent ran")
            if self.position > before:
                flushed = False
                grown = self.position - before
                # The answer to what was said is never held back.
                if grown < READ_BYTES and not state.ended and not said and (pause_s := pace.pause_s()):
                    await asyncio.sleep(pause_s)
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

    async def _go_on(self) -> None:
        """The agent may have ended its turn and wait: it is told what there is for it, or let go."""
        reader = self.reader
        if not isinstance(reader, HearsMore) or not reader.turn_over:
            return
        more = None if self.stopped is not None else await self.on_turn_over()
        if more is None:
            reader.no_more()
            await self._commit((), reports=self.on_let_go())
            return
        turn = reader.turns + 1
        reader.say_more(more.text)
        reach("more_taken")
        await self._commit((), given=more.notices, turn=turn)
        reach("more_given")

    async def _commit(
        self,
        made: Digest | Sequence[Event],
        *,
        given: Sequence[int] = (),
        turn: int = 0,
        reports: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        found = made if isinstance(made, Digest) else digest(made, self.next_seq)
        self.next_seq = found.next_seq
        reports = list(reports)
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
        self._answered_once = self._answered_once or found.answered
        turns = self.reader.turns if isinstance(self.reader, HearsMore) else int(self._answered_once)
        if turns > self._turns_told:
            stretch.turns = turns
        progressed = self._progress()
        stretch.progressed = progressed > self._progressed
        if given:
            stretch.given, stretch.given_turn = given, turn
        if self.requests.update(self.reader.open_requests, found.settled, stretch.at):
            stretch.requests = self.requests.text()
        reach("before_commit")
        # Nothing is read further while the disk is full: the agent waits once its pipe is full, too.
        await self.patience.carry(lambda: self.journal.commit_stretch(stretch))
        reach("committed")
        self._turns_told = max(turns, self._turns_told)
        if session and session != self._pinned:
            self._pinned = session
            await self.on_session(session)
        if stretch.requests is not None:
            self.on_requests()
        if stretch.progressed:
            self._progressed = progressed
            self.watchdog.progressed()
        if stretch.stdout_offset > self._committed:
            self._committed = stretch.stdout_offset
            self.watchdog.heard()
        else:
            self.watchdog.heard_of()
        self.on_stretch(found)

    def _progress(self) -> int:
        return self.reader.progressed if isinstance(self.reader, TellsProgress) else 0

    async def _say_answers(self, shim: Shim) -> None:
        """What an answer has made is said at once: the agent waits for it and gives no output meanwhile."""
        while True:
            await self._answered.wait()
            self._answered.clear()
            async with self._turn:
                await self._say(shim)

    async def _say(self, shim: Shim) -> bool:
        """Say what the agent has not heard; whether there was anything: then its answer is waited for."""
        said = False
        for write in self.reader.pending_writes():
            if not await self._write(shim, write):
                return said
            self.reader.acknowledged(write.number)
            said = True
            reach("said")
        if isinstance(self.reader, EndsExplicitly) and self.reader.done:
            self._done.set()
        return said

    async def _write(self, shim: Shim, write: StdinWrite) -> bool:
        """One numbered write; False if there is nobody to say it to."""
        try:
            data = await asyncio.to_thread(self._whole, write) if write.files else write.data
        except FileNotFoundError:
            # The run is over, and its secrets with it.
            log.info("run %s: what was to be said is gone", self.run_id)
            return False
        while True:
            try:
                await shim.write(write.number, data)
            except EndedError:
                return False
            except UnreachableError:
                await asyncio.sleep(UNREACHABLE_PAUSE_S)
            except ValueError as error:
                log.error("run %s: %s", self.run_id, error)
                return False
            else:
                return True

    def _whole(self, write: StdinWrite) -> bytes | None:
        return whole(write, lambda name: (self.run_dir / name).read_bytes())

    # --- watching ------------------------------------------------------------------------------

    async def _guard(self, shim: Shim) -> None:
        """Wait for a reason to end the run, then end it. Cancelled when the run has ended by itself."""
        name = f"watch of run {self.run_id}"
        async with (
            beside(keep_going(lambda: self._watch(shim), name), name),
            beside(keep_going(lambda: self._linger(shim), name), name),
        ):
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
                    said = await self._write(shim, write)
                if said:
                    await shim.wait()
                    return
        except TimeoutError:
            log.info("run %s did not end when asked; it is ended by signals", self.run_id)
        await shim.end(TERM_GRACE_S)

    async def _linger(self, shim: Shim) -> None:
        """End an agent that is done and does not go."""
        await self._done.wait()
        await asyncio.sleep(LINGER_S)
        log.info("run %s is done and does not end; it is ended by signals", self.run_id)
        try:
            await shim.end(TERM_GRACE_S)
        except LostError:
            pass  # the pump sees it, too

    async def _watch(self, shim: Shim) -> None:
        """Silence and the time limit."""
        found = await self.watchdog.watch(shim, lambda: self.position)
        self._silent = self.watchdog.kind
        self.stop(StopReason.SILENCE if found == "silence" else StopReason.TIME_LIMIT)

    # --- the end -------------------------------------------------------------------------------

    async def _judge(self, status: ExitStatus) -> RunEnd:
        await self._read_rest()
        tail, taken_down = await asyncio.to_thread(self._look_at_end, status)
        outcome = self.reader.outcome(status.code, status.signal, tail)
        return RunEnd(
            outcome=outcome,
            exit=status,
            stopped=self.stopped,
            silent=self._silent,
            taken_down=taken_down,
        )

    def _look_at_end(self, status: ExitStatus) -> tuple[str, bool]:
        """The end of standard error, and whether the run was taken down (in a thread)."""
        return _tail(self.run_dir / "stderr", STDERR_TAIL_BYTES), self._was_taken_down(status)

    def _was_taken_down(self, status: ExitStatus) -> bool:
        """Whether the end was somebody's wish, and neither ours nor the agent's own: its shim was told to end
        it, or a signal has ended it and the machine has been started anew since."""
        if self.stopped is not None or (isinstance(self.reader, EndsExplicitly) and self.reader.done):
            return False
        if status.reason == "killed":
            return True
        info = read_state(self.run_dir).info
        by_signal = signal_of(status.code, status.signal) is not None
        return by_signal and info is not None and not is_of_this_boot(info)

    async def _lost(self) -> RunEnd:
        """The shim is gone without a word: what still lives of the run is ended, what it said is kept."""
        ended = await asyncio.to_thread(self._end_survivors)
        await self._read_rest()
        return RunEnd(outcome=None, exit=None, stopped=self.stopped, survivors=len(ended))

    async def _read_rest(self) -> None:
        async with self._turn:
            self._over = True
            await self._read_to(_size(self.run_dir / "stdout"))
            heard = await asyncio.to_thread(self._hear_files) if isinstance(self.reader, HearsFiles) else []
            events = [*heard, *self.reader.finish()]
            # Where nothing is added, nothing need be kept: who reads the end again comes to the same.
            if events or self.reader.consumed > self._committed or self.requests.open:
                await self._commit(events)

    def _hear_files(self) -> list[Event]:
        """What the agent has left in files (in a thread)."""
        found: list[Event] = []
        if isinstance(self.reader, HearsFiles):
            for name in self.reader.files_at_end:
                try:
                    with open(self.run_dir / name, "rb") as stream:
                        found += self.reader.hear_file(name, stream.read(LEFT_FILE_BYTES))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    log.warning("run %s: %s is not to be read: %s", self.run_id, name, error)
        return found

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
    if info is not None and not is_locked(run_dir / "lock"):  # what its shim did not get to remove
        for path in (Path(info.socket), run_dir / "output.reserve", run_dir / "exit.json.reserve"):
            with contextlib.suppress(OSError):
                path.unlink()
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
