"""Taking up what an earlier life of the daemon has left: the journal's unfinished tasks, what was not
delivered, and run directories that the journal does not know (it was damaged, or a claim was cut short).

Two passes, so that order cannot matter: first every live run has its slot and its directory in the book, only
then does any task begin to want one (promise P5).
"""

from __future__ import annotations

import asyncio
import bisect
import codecs
import contextlib
import itertools
import logging
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon_core.agents.family import Family, Reader
from daemon_core.connections.connection import Connection
from daemon_core.journal import RunRecord, TaskRecord
from daemon_core.processes.state import RunPhase, read_state
from daemon_core.protocol.errors import ServerError
from daemon_core.protocol.wire import Task
from daemon_core.tasks import clock
from daemon_core.tasks.run import end_run
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from daemon_core.tasks.slots import Slot
from daemon_core.workdirs import DirectoryLock

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

REPORTED_NAME = "reported"
"""In a run directory: its result has reached the server, so it needs no taking up if the journal is lost."""
STRANGER_KEPT_S = 86400.0
"""A run directory that nobody knows and that is over may hold the only trace of what happened: a day."""


class Owner(msgspec.Struct, kw_only=True):
    """``owner.json`` of a run directory: whose run it is. No secrets."""

    task_id: str = ""
    task_key: str = ""
    run_id: str = ""
    connection: str = ""
    workspace_id: str = ""
    runtime_id: str = ""
    kind: str = ""
    conversation_id: str = ""
    provider: str = ""
    family: str = ""
    reader: str = ""
    """The state of the reader at the beginning of the run: what a conversation goes on from."""
    work_dir: str = ""
    directory: str = ""
    slot: int = 0
    created_at: str = ""
    mark: str = ""


def mark_reported(run_dir: Path) -> None:
    """Note in a run directory that its result is at the server (in a thread)."""
    with contextlib.suppress(OSError):
        (run_dir / REPORTED_NAME).touch(mode=0o600)


class Prepared(msgspec.Struct, kw_only=True):
    """A task that is about to be taken up."""

    record: TaskRecord
    run: RunRecord
    slot: Slot
    claim: Task | None
    lock: DirectoryLock | None


class Recovery:
    """One taking-up, at the start of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def run(self) -> None:
        """See ``Engine.recover``."""
        engine = self.engine
        found: list[Prepared] = []
        for record in await engine.journal.unfinished():
            prepared = await self.prepare(record)
            if prepared is not None:
                found.append(prepared)
        found += await self._strangers(await engine.journal.known_runs())
        # Asked for before anything begins: a task that ends at once has a delivery of its own.
        undelivered = await engine.journal.undelivered()
        await self._take_out_left()
        for prepared in found:
            self.begin(prepared)
        for record in undelivered:
            engine.deliver_only(record)

    async def prepare(self, record: TaskRecord, slot: Slot | None = None) -> Prepared | None:
        """Slot, directory and claim of an unfinished task; None if it cannot be taken up (from here)."""
        engine = self.engine
        if record.connection not in engine.connections:
            log.warning(
                "task %s is of connection %s, which is not configured", record.task_id, record.connection
            )
            return None
        runs = await engine.journal.runs(record.key)
        run = next((run for run in runs if run.run_id == record.run_id), None)
        if run is None:
            run_dir = engine.runs_dir / record.run_id
            if record.run_id and _phase(run_dir) is not RunPhase.NEVER_STARTED and _owner(run_dir):
                # Salvaged without its run, so without the place it was read up to: its directory knows more.
                await engine.journal.delete_task(record.key)
                return None
            run = RunRecord(run_id=new_run_id(), task_key=record.key, mark=new_run_id())
            await engine.journal.add_run(run)
            record.run_id = run.run_id
        run_dir = engine.runs_dir / run.run_id
        lock = None
        if record.directory and _phase(run_dir) is not RunPhase.NEVER_STARTED:
            lock = engine.directory_locks.adopt(Path(record.directory), record.task_id)
        claim = await asyncio.to_thread(ClaimFile(run_dir).read)
        model = engine.model_of(record) if record.state == "started" else ""
        slot = slot or engine.slots.adopt(record.slot, record.provider, model)
        return Prepared(record=record, run=run, slot=slot, claim=claim, lock=lock)

    async def _take_out_left(self) -> None:
        """What tasks have left in users' directories goes, wherever nobody works. Live runs have their locks
        by now; a task that has yet to begin prepares its directory anew."""
        engine = self.engine
        for root in await asyncio.to_thread(engine.environments.left):
            try:
                lock = engine.directory_locks.try_acquire(root, "recovery")
            except OSError as error:
                log.warning("files of a task are still in %s, which cannot be reached: %s", root, error)
                continue
            if lock is None:
                continue
            try:
                await asyncio.to_thread(engine.environments.roll_back, root, user_owned=True)
            except OSError as error:
                log.warning("files of a task stay in %s for now: %s", root, error)
            finally:
                lock.release()

    def begin(self, prepared: Prepared) -> None:
        """Let the task's life go on."""
        connection = self.engine.connections[prepared.record.connection]
        self.engine.begin(
            connection,
            prepared.record,
            prepared.run,
            prepared.slot,
            prepared.claim,
            fresh=False,
            lock=prepared.lock,
        )

    # --- run directories that the journal does not know ------------------------------------------

    async def _strangers(self, known: set[str]) -> list[Prepared]:
        runs_dir = self.engine.runs_dir
        names = [name for name in await asyncio.to_thread(_run_directories, runs_dir) if name not in known]
        owners = {name: await asyncio.to_thread(_owner, runs_dir / name) for name in names}
        # The newest first: of several runs of one task it is the one that counts.
        names.sort(key=lambda name: owner.created_at if (owner := owners[name]) else "", reverse=True)
        found: list[Prepared] = []
        for name in names:
            try:
                prepared = await self._stranger(name, owners[name])
            except OSError as error:
                log.error("run %s cannot be looked at: %s", name, error)
                continue
            if prepared is not None:
                found.append(prepared)
        return found

    async def _stranger(self, name: str, owner: Owner | None) -> Prepared | None:
        engine = self.engine
        run_dir = engine.runs_dir / name
        phase = _phase(run_dir)
        if phase is RunPhase.NEVER_STARTED:
            # Not recorded, so not begun here: mostly its server hands the task out again.
            if not await self._note_claim(run_dir):
                await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)
            return None
        if phase is RunPhase.ENDED and (run_dir / REPORTED_NAME).exists():
            await asyncio.to_thread(_remove_old, run_dir)
            return None
        prepared = None
        if owner is not None and owner.task_id and owner.connection in engine.connections:
            if await engine.journal.task(f"{owner.connection}/{owner.task_id}") is not None:
                log.info("run %s is an earlier one of task %s", name, owner.task_id)
            else:
                prepared = await self._adopt(name, owner)
        if prepared is None:
            if phase is not RunPhase.ENDED:
                log.error("run %s belongs to nobody known: it is ended", name)
                await end_run(run_dir, owner.mark if owner is not None else "")
            await asyncio.to_thread(_remove_old, run_dir)
        return prepared

    async def _note_claim(self, run_dir: Path) -> bool:
        """Whether a claim without a run is of a task that only its server knows now: it is told later."""
        claim = await asyncio.to_thread(ClaimFile(run_dir).read)
        if claim is None or not claim.runtime_id or await asyncio.to_thread(_is_old, run_dir):
            return False
        if await self.engine.journal.tasks_by_id(claim.id):
            return False
        self.engine.lost.note(claim.runtime_id, claim.id, run_dir)
        return True

    async def _adopt(self, run_id: str, owner: Owner) -> Prepared | None:
        """Rebuild what the journal lost. The transcript is read again from its beginning; the lines that the
        server has already are told apart by their numbers when they are sent (promise P3). Where numbers
        would not tell (a text that was cut as it came), reading goes on behind the text the server has."""
        engine = self.engine
        family = engine.family(owner.family)
        if family is None:
            log.error("run %s: family %r is not known", run_id, owner.family)
            return None
        claim = await asyncio.to_thread(ClaimFile(engine.runs_dir / run_id).read)  # gone if it has ended
        given = claim or Task(id=owner.task_id, runtime_id=owner.runtime_id, workspace_id=owner.workspace_id)
        connection = engine.connections[owner.connection]
        started_at = owner.created_at or clock.now_text()
        record = engine.record_of(connection, given, run_id, owner.provider, slot=owner.slot)
        record.runtime_id = owner.runtime_id or record.runtime_id
        record.kind = owner.kind or record.kind
        record.conversation_id = owner.conversation_id or record.conversation_id
        record.state = "started"
        record.work_dir = owner.work_dir
        record.directory = owner.directory
        record.started_at = started_at
        run = RunRecord(
            run_id=run_id,
            task_key=record.key,
            state="spawned",
            family=owner.family,
            mark=owner.mark,
            reader=_first_reader(family, owner).snapshot(),
            started_at=started_at,
            note="taken up after the journal was lost",
        )
        if family.cut_by_time:
            await self._go_on_behind(connection, record, run, family, owner)
        if not await engine.journal.add_task(record, run):
            return None
        log.warning("run %s of task %s was taken up from its directory", run_id, owner.task_id)
        lock = None
        if record.directory:
            lock = engine.directory_locks.adopt(Path(record.directory), record.task_id)
        slot = engine.slots.adopt(record.slot, record.provider, engine.model_of(record))
        return Prepared(record=record, run=run, slot=slot, claim=claim, lock=lock)

    async def _go_on_behind(
        self, connection: Connection, record: TaskRecord, run: RunRecord, family: Family, owner: Owner
    ) -> None:
        """Set number, offset and reader of a run to where the server's transcript ends."""
        try:
            there = await connection.client.messages_since(record.task_id, 0)
        except ServerError as error:
            log.warning("task %s: what its server has of it is not to be had: %s", record.task_id, error)
            return
        if not there:
            return
        said = "".join(line.content or "" for line in there if line.type == "text")
        reader = _first_reader(family, owner)
        stdout = self.engine.runs_dir / run.run_id / "stdout"
        await asyncio.to_thread(_skip, reader, stdout, said.count("\n"), len(said) - said.rfind("\n") - 1)
        record.next_seq = there[-1].seq + 1
        run.stdout_offset = reader.consumed
        run.reader = reader.snapshot()


def _skip(reader: Reader, stdout: Path, lines: int, characters: int) -> None:
    """Feed a reader what has been told: so many whole lines and so many characters of the next one.

    Lines are counted, not characters of all the text: a server may have taken secrets out of it.
    """
    with open(stdout, "rb") as stream:
        for line in itertools.islice(stream, lines):
            reader.feed(line)
        rest = stream.readline(characters * 4 + 4)
    if characters:
        sizes = range(len(rest) + 1)
        size = bisect.bisect_left(
            sizes, characters, key=lambda end: len(codecs.utf_8_decode(rest[:end], "replace", False)[0])
        )
        reader.feed(rest[:size])
        reader.flush()


def _phase(run_dir: Path) -> RunPhase:
    """Raises nothing: a directory that cannot be read has told all it has to tell."""
    try:
        return read_state(run_dir).phase
    except OSError as error:
        log.error("run %s cannot be read: %s", run_dir.name, error)
        return RunPhase.LOST


def _first_reader(family: Family, owner: Owner) -> Reader:
    """A reader for the beginning of a run's output."""
    try:
        return family.reader(snapshot=owner.reader.encode()) if owner.reader else family.reader()
    except ValueError:  # written by another version
        return family.reader()


def _owner(run_dir: Path) -> Owner | None:
    try:
        return msgspec.json.decode((run_dir / "owner.json").read_bytes(), type=Owner)
    except (OSError, ValueError):
        return None


def _is_old(run_dir: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - run_dir.stat().st_mtime > STRANGER_KEPT_S
    return False


def _remove_old(run_dir: Path) -> None:
    if _is_old(run_dir):
        shutil.rmtree(run_dir, ignore_errors=True)


def _run_directories(runs_dir: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(runs_dir) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
