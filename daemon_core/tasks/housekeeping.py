"""Keeps the disk in order by itself, and says what is used by what and why it is kept.

A round looks at every directory that Ostler made for a task, asks the servers about what those belong to, and
removes what the rules of ``workdirs.cleanup`` let go; then it forgets old tasks and the raw output of old
runs. Rules kept here:

* Never a directory in use: that is looked at on the event loop in the same step as the rename into the trash,
  and a task is in the engine's book before its directory is prepared.
* Never the user's own: only what is below Ostler's own root is looked at at all.
* What a round did stays visible: log lines, and the last round's result on disk for ``ostler disk``.

Rounds are rare (twice a working day), one at a time, and one more when the disk gets low.

Caches go by themselves, too: a mirror of a repository that has no work tree left and was not used for
``retention_days``, or that is more than the budget allows (mirrors never cost a directory its place in it); a
cached skill after 72 hours without use. What git can throw away in a mirror it does about once a week, in
``collect``, apart from rounds, since it may take minutes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from daemon_core.connections.connection import Connection
from daemon_core.journal import Journal, WorkDirRow
from daemon_core.protocol.errors import ServerError
from daemon_core.tasks import clock, homes
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.stamps import stamp_of
from daemon_core.workdirs import cleanup
from daemon_core.workdirs.changes import ChangeStore
from daemon_core.workdirs.cleanup import Answer, Environment, Subject, Verdict
from daemon_core.workdirs.disk import Room, Size, Space, find_artifacts, tree_size
from daemon_core.workdirs.repository_errors import RepositoryError
from daemon_core.workdirs.trash import Removed, Trash

log = logging.getLogger(__name__)

_Question = tuple[str, Subject, str]
"""Connection, kind of thing, id."""
_DAY_S: Final = 24 * 3600.0
COLLECT_S: Final = 7 * _DAY_S
"""Git tidies up a mirror this often."""
ASKING_AT_ONCE: Final = 4
"""Questions to one server at a time: a round is in no hurry."""


@dataclass(frozen=True, kw_only=True)
class CleanRules:
    """The settings that a round goes by. Days 0: for ever. ``budget_bytes`` 0: none."""

    retention_days: int = 30
    run_days: int = 7
    artifacts: Sequence[str] = cleanup.DEFAULT_ARTIFACTS
    budget_bytes: int = 0


class Mirror(Protocol):
    """A repository in the cache."""

    @property
    def path(self) -> Path: ...

    @property
    def worktrees(self) -> Sequence[Path]: ...

    @property
    def last_used_at(self) -> float: ...

    @property
    def collected_at(self) -> float: ...


class RepositoryCache(Protocol):
    """What housekeeping needs of the cache of repositories."""

    def usage(self) -> Sequence[Mirror]: ...

    async def prune(self) -> object: ...

    async def remove(self, mirror: Path) -> bool: ...

    async def collect(self, mirror: Path) -> bool: ...


class Item(msgspec.Struct, kw_only=True, frozen=True):
    """One thing that a round took away, or would."""

    path: str
    action: str
    """``delete``, ``artifacts`` or ``repository`` (out of the cache)."""
    reason: str
    bytes: int = 0
    task_id: str = ""
    title: str = ""


class Round(msgspec.Struct, kw_only=True, frozen=True):
    """What a round did. ``left``: paths that could not be removed."""

    at: str = ""
    dry_run: bool = False
    items: list[Item] = []
    freed_bytes: int = 0
    tasks: int = 0
    """Tasks forgotten with their transcripts."""
    runs: int = 0
    """Runs whose raw output was removed."""
    left: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One of our directories, what it is for, and why it is there."""

    environment: Environment
    verdict: Verdict
    size: Size
    row: WorkDirRow | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Everything that Ostler has on the disk."""

    kept: list[Kept]
    mirrors: list[tuple[Mirror, Size]]
    areas: dict[str, tuple[Path, int]]
    """By name: ``trash``, ``runs``, ``changes``, ``journal``, ``hub``, ``logs``."""
    spaces: list[Space]
    last: Round | None


@dataclass(kw_only=True)
class Housekeeper:
    """See the module. ``rules`` is asked at every round, so that a changed setting acts at once."""

    engine: Engine
    journal: Journal
    changes: ChangeStore
    room: Room
    root: Path
    rules: Callable[[], CleanRules]
    state_file: Path
    """Where the last round is kept."""
    areas: Mapping[str, Path]
    """Further files and directories by name, for the report."""
    repositories: RepositoryCache | None = None
    forget_skills: Callable[[float], int] = lambda _: 0
    """Removes cached skills that are not used any more, given the time; gives the bytes freed."""
    now: Callable[[], float] = time.time
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sizes: dict[tuple[str, str, float], Size] = field(default_factory=dict)
    _stripped: set[tuple[str, str]] = field(default_factory=set)
    """Directories whose artefacts are gone, with the end of their last task: not searched again."""

    def __post_init__(self) -> None:
        self.trash = Trash(self.root)

    # --- rounds ----------------------------------------------------------------------------------

    async def resume(self) -> None:
        """After the start: go on with what a crash has left in the trash."""
        if not await asyncio.to_thread(self.trash.is_empty):
            removed = await asyncio.to_thread(self.trash.empty)
            log.info("clean-up: %d bytes that were left over are gone", removed.freed_bytes)

    async def clean(self, *, dry_run: bool = False) -> Round:
        """One round; with ``dry_run`` only what it would do."""
        async with self._lock:
            done = await self._round(dry_run)
        if not dry_run:
            self.room.forget()
            await asyncio.to_thread(self._keep, done)
            log.info(
                "clean-up: %d things, %d bytes freed, %d tasks forgotten, raw output of %d runs removed",
                len(done.items), done.freed_bytes, done.tasks, done.runs,
            )  # fmt: skip
            if done.left:
                log.warning("clean-up: these could not be removed: %s", ", ".join(done.left))
        return done

    async def _round(self, dry_run: bool) -> Round:
        rules = self.rules()
        rows = await self.journal.work_dirs()
        judged = await self._judged(rows, write_stamps=not dry_run)
        wanted = [(each, verdict) for each, verdict in judged if verdict.action != "keep"]
        over, used = await self._over_budget(judged, rules)
        wanted += over
        items: list[Item] = []
        for environment, verdict in wanted:
            item = await self._apply(environment, verdict, rows, rules, dry_run)
            if item is not None:
                items.append(item)
        if dry_run:
            items += await self._clean_mirrors(rules, used, items, dry_run=True)
            return Round(
                at=clock.now_text(), dry_run=True, items=items, freed_bytes=sum(item.bytes for item in items)
            )
        removed = await asyncio.to_thread(self.trash.empty)
        freed = removed.freed_bytes
        await asyncio.to_thread(self._remove_empty_workspaces)
        if self.repositories is not None:
            try:
                await self.repositories.prune()
                gone = await self._clean_mirrors(rules, used, items, dry_run=False)
                freed += sum(item.bytes for item in gone)
                items += gone
            except OSError as error:
                log.warning("clean-up: the cache of repositories was left: %s", error)
        freed += await asyncio.to_thread(self.forget_skills, self.now())
        tasks, runs = await self._forget_old(rules)
        return Round(
            at=clock.now_text(), items=items, freed_bytes=freed, tasks=tasks, runs=runs, left=removed.left
        )

    async def _clean_mirrors(
        self, rules: CleanRules, used_bytes: int, gone: Sequence[Item], *, dry_run: bool
    ) -> list[Item]:
        """Remove mirrors that no work tree uses: the ones unused for long, and where directories and mirrors
        together take more than the budget, those used longest ago.

        Args:
            used_bytes: What the directories take that stay.
            gone: What has gone already, or would: work trees in there do not count.
        """
        if self.repositories is None or not (rules.retention_days or rules.budget_bytes):
            return []
        idle: list[tuple[Mirror, int]] = []
        for mirror in await asyncio.to_thread(self.repositories.usage):
            size = 0
            if rules.budget_bytes:
                size = (await asyncio.to_thread(tree_size, mirror.path)).total_bytes
                used_bytes += size
            doomed = [_real(Path(item.path)) for item in gone if item.action == "delete"]
            if all(any(_is_in(tree, path) for path in doomed) for tree in mirror.worktrees):
                idle.append((mirror, size))
        items: list[Item] = []
        for mirror, size in sorted(idle, key=lambda each: each[0].last_used_at):
            due = mirror_due(mirror, rules, used=False)
            if due is not None and self.now() > due:
                reason = "unused"
            elif rules.budget_bytes and used_bytes > rules.budget_bytes:
                reason = "over_budget"
            else:
                continue
            size = size or (await asyncio.to_thread(tree_size, mirror.path)).total_bytes
            if dry_run or await self.repositories.remove(mirror.path):
                used_bytes -= size
                items.append(
                    Item(
                        path=str(mirror.path), action="repository", reason=reason, bytes=size,
                        title=mirror_title(mirror.path),
                    )
                )  # fmt: skip
        return items

    async def collect(self) -> None:
        """Let git tidy up the mirrors whose turn it is, one after the other. A checkout goes before."""
        if self.repositories is None:
            return
        if any(space.low for space in await asyncio.to_thread(lambda: self.room.look(fresh=True))):
            return  # it needs room itself
        for mirror in await asyncio.to_thread(self.repositories.usage):
            if self.now() - mirror.collected_at > COLLECT_S:
                try:
                    if await self.repositories.collect(mirror.path):
                        log.info("clean-up: git has tidied up %s", mirror.path)
                except (RepositoryError, OSError) as error:
                    log.warning("clean-up: git could not tidy up %s: %s", mirror.path, error)

    async def _judged(
        self, rows: Mapping[str, WorkDirRow], *, write_stamps: bool
    ) -> list[tuple[Environment, Verdict]]:
        now = self.now()
        found = await asyncio.to_thread(lambda: list(cleanup.scan(self.root)))
        in_use = self._in_use()
        judged: list[tuple[Environment, Verdict]] = []
        asked: list[Environment] = []
        for environment in found:
            if _real(environment.work_dir) in in_use:
                judged.append((environment, Verdict(action="keep", reason="in_use")))
            else:
                asked.append(self._completed(environment, rows, write_stamps))
        answers = await self._ask(asked, rows)
        judged += [
            (environment, cleanup.judge(environment, answer, now))
            for environment, answer in zip(asked, answers, strict=True)
        ]
        return judged

    def _completed(
        self, environment: Environment, rows: Mapping[str, WorkDirRow], write: bool
    ) -> Environment:
        """A directory without metadata whose task the journal knows: a crash came before the writing."""
        row = rows.get(_real(environment.work_dir))
        if environment.stamp is not None or row is None or not row.ended_at:
            return environment
        stamp = stamp_of(row, row.ended_at)
        if write:
            try:
                cleanup.write_stamp(environment.path, stamp)
            except OSError as error:
                log.info("clean-up: no metadata for %s: %s", environment.path, error)
        return Environment(path=environment.path, stamp=stamp, touched=environment.touched)

    async def _ask(
        self, environments: Sequence[Environment], rows: Mapping[str, WorkDirRow]
    ) -> list[Answer | None]:
        """What the servers say, in the same order; every thing is asked about once."""
        questions: dict[_Question, Answer | None] = {}
        keys: list[_Question | None] = []
        for environment in environments:
            key = self._question(environment, rows)
            keys.append(key)
            if key is not None:
                questions[key] = None
        limits = {name: asyncio.Semaphore(ASKING_AT_ONCE) for name in self.engine.connections}
        silent: set[str] = set()

        async def ask(key: _Question) -> None:
            async with limits[key[0]]:
                connection = self.engine.connections.get(key[0])  # it may have been removed meanwhile
                if connection is not None and connection.usable and key[0] not in silent:
                    questions[key] = await _asked(connection, key[1], key[2], silent)

        for start in range(0, len(questions), 200):
            async with asyncio.TaskGroup() as group:
                for key in list(questions)[start : start + 200]:
                    group.create_task(ask(key))
        return [questions.get(key) if key is not None else None for key in keys]

    def _question(self, environment: Environment, rows: Mapping[str, WorkDirRow]) -> _Question | None:
        stamp = environment.stamp
        subject = cleanup.subject_of(stamp) if stamp is not None else None
        if stamp is None or subject is None:
            return None
        row = rows.get(_real(environment.work_dir))
        name = stamp.connection or (row.connection if row is not None else "")
        if not name and len(self.engine.connections) == 1:
            name = next(iter(self.engine.connections))
        return (name, *subject) if name in self.engine.connections else None

    async def _over_budget(
        self, judged: Sequence[tuple[Environment, Verdict]], rules: CleanRules
    ) -> tuple[list[tuple[Environment, Verdict]], int]:
        """What has to go for the budget, and the room that all that stays takes; 0 without a budget."""
        if not rules.budget_bytes:
            return [], 0
        used = 0
        candidates: list[tuple[Environment, int]] = []
        for environment, verdict in judged:
            if verdict.action == "delete":
                continue
            size = await self._size(environment, rules, in_use=verdict.reason == "in_use")
            used += size.total_bytes
            local = environment.stamp is not None and environment.stamp.local_directory
            if verdict.reason != "in_use" and not local:
                candidates.append((environment, size.total_bytes))
        verdict = Verdict(action="delete", reason="over_budget")
        chosen = cleanup.over_budget(candidates, used, rules.budget_bytes)
        return [(environment, verdict) for environment, _ in chosen], used - sum(size for _, size in chosen)

    async def _apply(
        self,
        environment: Environment,
        verdict: Verdict,
        rows: Mapping[str, WorkDirRow],
        rules: CleanRules,
        dry_run: bool,
    ) -> Item | None:
        work_dir = _real(environment.work_dir)
        if verdict.action == "artifacts":
            mark = (str(environment.path), environment.stamp.completed_at if environment.stamp else "")
            if mark in self._stripped:
                return None
            targets = await asyncio.to_thread(lambda: list(find_artifacts(environment.path, rules.artifacts)))
            size = await asyncio.to_thread(lambda: sum(tree_size(path).total_bytes for path in targets))
            if not dry_run:
                self._stripped.add(mark)
        else:
            targets = [environment.path]
            size = (await self._size(environment, rules)).total_bytes
        if not targets:
            return None
        if not dry_run and not self._throw_away(targets, work_dir):
            return None
        row = rows.get(work_dir)
        return Item(
            path=str(environment.path),
            action=verdict.action,
            reason=verdict.reason,
            bytes=size,
            task_id=row.task_id
            if row is not None
            else environment.stamp.task_id
            if environment.stamp
            else "",
            title=row.title if row is not None else "",
        )

    def _throw_away(self, targets: Iterable[Path], work_dir: str) -> bool:
        """On the event loop, without a pause between the look and the renames: a task that wants the
        directory is in the book before, or finds it gone."""
        if work_dir in self._in_use():
            return False
        thrown = False
        for path in targets:
            try:
                self.trash.put(path)
                thrown = True
            except OSError as error:
                log.warning("clean-up: %s stays: %s", path, error)
        return thrown

    def _in_use(self) -> set[str]:
        found: set[str] = set()
        for life in self.engine.lives.values():
            for path in (life.record.work_dir, life.claim.prior_work_dir if life.claim is not None else ""):
                if path:
                    found.add(_real(Path(path)))
        # A job goes on when its turn is over, in the task's directory or below it.
        for job in self.engine.jobs.lives.values() if self.engine.jobs is not None else ():
            place = Path(_real(Path(job.job.cwd)))
            found.update(str(path) for path in (place, *place.parents))
        return found

    def _users_directories(self) -> set[str]:
        found = {life.record.directory for life in self.engine.lives.values()}
        # One that is just being taken is not recorded yet.
        found |= {life.record.work_dir for life in self.engine.lives.values()}
        return {path for path in found if path}

    def remove(self, work_dir: str) -> bool:
        """Throw away the directory of a conversation that was deleted; it is taken apart by the next
        ``resume`` or round. False if it is not ours or in use. On the event loop."""
        if not work_dir or not self.engine.task_directories.owns(work_dir):
            return False
        real = _real(Path(work_dir))
        return os.path.isdir(real) and self._throw_away([Path(real).parent], real)

    async def _forget_old(self, rules: CleanRules) -> tuple[int, int]:
        now = dt.datetime.fromtimestamp(self.now(), dt.UTC)
        tasks = runs = 0
        if rules.retention_days:
            before = clock.text(now - dt.timedelta(days=rules.retention_days))
            keys = len(await self.journal.task_keys())
            for run_id in await self.journal.prune(before):
                await asyncio.to_thread(self.engine.remove_run, run_id)
            tasks = keys - len(await self.journal.task_keys())
        if rules.run_days:
            before = clock.text(now - dt.timedelta(days=rules.run_days))
            for run_id in await self.journal.runs_ended_before(before):
                if (self.engine.runs_dir / run_id).is_dir():
                    runs += 1
                    await asyncio.to_thread(self.engine.remove_run, run_id)
        if rules.retention_days:
            await homes.forget_unused(
                self.engine.runs_dir, self.now() - rules.retention_days * _DAY_S, self._users_directories
            )
        names = await asyncio.to_thread(self.changes.names)
        await asyncio.to_thread(self.changes.forget_others, await self.journal.task_keys(), names)
        return tasks, runs

    def _remove_empty_workspaces(self) -> None:
        for entry in os.scandir(self.root) if self.root.is_dir() else ():
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                try:
                    os.rmdir(entry.path)
                except OSError:
                    pass  # something is in it, which is the rule

    def _keep(self, done: Round) -> None:
        try:
            temporary = self.state_file.with_suffix(".new")
            temporary.write_bytes(msgspec.json.encode(done))
            os.replace(temporary, self.state_file)
        except OSError as error:
            log.warning("clean-up: the result of the round is not kept: %s", error)

    # --- report ----------------------------------------------------------------------------------

    async def usage(self) -> Usage:
        """What is used by what, and why it is kept. Asks the servers as a round does, changes nothing."""
        rules = self.rules()
        rows = await self.journal.work_dirs()
        kept = []
        for environment, verdict in await self._judged(rows, write_stamps=False):
            size = await self._size(environment, rules, in_use=verdict.reason == "in_use")
            row = rows.get(_real(environment.work_dir))
            kept.append(Kept(environment=environment, verdict=verdict, size=size, row=row))
        kept.sort(key=lambda each: -each.size.total_bytes)
        mirrors: list[tuple[Mirror, Size]] = []
        if self.repositories is not None:
            for mirror in await asyncio.to_thread(self.repositories.usage):
                mirrors.append((mirror, await asyncio.to_thread(tree_size, mirror.path)))
        paths = {**self.areas, "trash": self.trash.path, "runs": self.engine.runs_dir,
                 "changes": self.changes.root}  # fmt: skip
        areas = {
            name: (path, await asyncio.to_thread(_area_bytes, path)) for name, path in sorted(paths.items())
        }
        spaces = await asyncio.to_thread(lambda: self.room.look(fresh=True))
        return Usage(
            kept=kept, mirrors=mirrors, areas=areas, spaces=spaces, last=await asyncio.to_thread(self._last)
        )

    async def _size(self, environment: Environment, rules: CleanRules, *, in_use: bool = False) -> Size:
        """Room of a directory. One that nobody uses does not change, so it is measured once."""
        ended = environment.stamp.completed_at if environment.stamp is not None else ""
        key = (str(environment.path), ended, environment.touched)
        if not in_use and ended and key in self._sizes:
            return self._sizes[key]
        size = await asyncio.to_thread(tree_size, environment.path, rules.artifacts)
        if not in_use and ended:
            if len(self._sizes) > 20_000:
                self._sizes.clear()
            self._sizes[key] = size
        return size

    def _last(self) -> Round | None:
        try:
            return msgspec.json.decode(self.state_file.read_bytes(), type=Round)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def empty_trash(self) -> Removed:
        """Take apart what ``remove`` has thrown away."""
        return await asyncio.to_thread(self.trash.empty)


async def _asked(connection: Connection, subject: Subject, ident: str, silent: set[str]) -> Answer | None:
    try:
        found = await connection.client.gc_check(subject, ident)
    except ServerError as error:
        if error.status == 404 and error.by_server:  # what a proxy cannot find may well be there
            return Answer(found=False, deleted="session not found" in error.body.lower())
        if not error.status:
            silent.add(connection.name)  # it does not answer at all: the rest need not be tried
        return None
    return Answer(
        found=True,
        status=found.status,
        at=cleanup.parse_time(found.updated_at or found.completed_at or ""),
    )


def _area_bytes(path: Path) -> int:
    """A directory with all below it; for a database also its companions."""
    total = tree_size(path).total_bytes
    if path.suffix == ".db":
        total += sum(tree_size(path.with_name(path.name + end)).total_bytes for end in ("-wal", "-shm"))
    return total


def mirror_due(mirror: Mirror, rules: CleanRules, *, used: bool) -> float | None:
    """When a mirror goes if nobody uses it until then; None: it does not go by itself.

    Args:
        used: Whether a work tree of it is there.
    """
    if used or not rules.retention_days:
        return None
    return mirror.last_used_at + rules.retention_days * _DAY_S


def mirror_title(path: Path) -> str:
    """What a mirror is a copy of, as its name says it: ``host/team/app``, or a path of this machine."""
    return unquote(path.name.removesuffix(".git").replace("+", "/")).removeprefix("_local")


def _is_in(path: Path, directory: str) -> bool:
    return Path(_real(path)).is_relative_to(directory)


def _real(path: Path) -> str:
    return os.path.realpath(path)
