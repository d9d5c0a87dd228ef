"""Skill references of a claim made into skills: from the cache, or asked of the server one by one.

Rules of the protocol:

- A bundle is taken only if its id and source are those asked for, its hash is the one computed from what it
  holds, and every path in it is safe. The server answers with its **current** content, so the hash may be
  newer than the reference's; it is kept under its own.
- A bundle of the cache must match the reference besides: hash, number of files, and size if the reference has
  one. One that does not is removed and asked for anew.
- A reference that cannot be resolved fails the task. What was fetched stays, so that repeated tries converge.

The cache is ``<root>/.skill-cache/v1/<workspace>/<source>/<id>/<hash>/bundle.json``; an entry is made under a
temporary name and renamed. Within a daemon one lock an entry keeps concurrent tasks from fetching it twice.
An entry that no task has used for 72 hours goes with the next clean-up (``forget_unused``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from daemon_core.protocol.errors import PermanentError, TransientError
from daemon_core.protocol.wire import Skill, SkillRef, Task
from daemon_core.workdirs.disk import tree_size
from daemon_core.workdirs.skills import is_safe_path

log = logging.getLogger(__name__)

CACHE_NAME: Final = ".skill-cache"
TRIES: Final = 4
"""Calls for one bundle before a server that does not answer fails the task."""
SKILLS_LIMIT: Final = 256
FILES_LIMIT: Final = 2000
UNUSED_S: Final = 72 * 3600.0
"""An entry that was not used for so long goes (section 25)."""
SIZE_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Content and files of one skill; also what a server's answer may hold."""

_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]")


class SkillError(Exception):
    """A skill of the task is not to be had; the text says which and why.

    ``passing``: its server did not answer; another try later may do.
    """

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


Pause = Callable[[int, float], Awaitable[None]]
"""Waits before another try: is told how many have failed, and the least seconds that the server asks for."""


class Resolver(Protocol):
    """The part of a server's client that is needed here."""

    async def resolve_skill(self, runtime_id: str, task_id: str, ref: SkillRef) -> Skill: ...


def manifest_hash(skill: Skill) -> str:
    """The hash of everything a skill holds. Lengths are bytes, files are sorted by the bytes of their
    paths.
    """
    digest = hashlib.sha256()

    def add(text: str) -> None:
        data = text.encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
        digest.update(b"\n")

    for part in ("v1", skill.source, skill.id, skill.name, skill.description, skill.content):
        add(part)
    for file in sorted(skill.files or [], key=lambda file: file.path.encode()):
        add(file.path)
        add(f"sha256:{hashlib.sha256(file.content.encode()).hexdigest()}")
        add(file.content)
    return f"sha256:{digest.hexdigest()}"


def size_of(skill: Skill) -> int:
    """Bytes of content and files."""
    return len(skill.content.encode()) + sum(len(file.content.encode()) for file in skill.files or [])


def segment(text: str) -> str:
    """A piece of a cache path."""
    made = _OTHER.sub("_", text)
    if made in (".", ".."):
        return f"_{made}"
    return made or "_"


class SkillCache:
    """Skills of all workspaces on disk.

    Args:
        root: Directory that holds the workspaces of tasks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / CACHE_NAME / "v1"
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def resolved(self, task: Task, resolver: Resolver, pause: Pause) -> Task:
        """The task with whole skills in place of references; the task itself if it has none.

        Args:
            pause: Waits before another try.

        Raises:
            SkillError: One is not to be had.
            ServerError: The server has ended the task, or refuses this machine.
        """
        agent = task.agent
        refs = agent.skill_refs if agent is not None else None
        if agent is None or not refs:
            return task
        if len(refs) > SKILLS_LIMIT:
            raise SkillError(f"the task has {len(refs)} skills; {SKILLS_LIMIT} is the limit")
        skills = list(agent.skills or [])
        for ref in refs:
            skills.append(await self._resolve(task, ref, resolver, pause))
        dressed = msgspec.structs.replace(agent, skills=skills, skill_refs=None)
        return msgspec.structs.replace(task, agent=dressed)

    async def _resolve(self, task: Task, ref: SkillRef, resolver: Resolver, pause: Pause) -> Skill:
        called = ref.name or ref.id
        if not (ref.id and ref.source and ref.hash):
            raise SkillError(f"skill {called!r}: the server's reference has no id, source or hash")
        folder = self.root / segment(task.workspace_id) / segment(ref.source) / segment(ref.id)
        with self._lock(str(folder)) as lock:
            async with lock:
                found = await asyncio.to_thread(_read, folder / segment(ref.hash), ref)
                if found is not None:
                    return found
                skill = await self._fetch(task, ref, resolver, pause)
                try:
                    await asyncio.to_thread(_store, folder / segment(skill.hash), skill)
                except OSError as error:  # it is here all the same
                    log.warning("skill %s cannot be kept: %s", called, error)
                return skill

    async def _fetch(self, task: Task, ref: SkillRef, resolver: Resolver, pause: Pause) -> Skill:
        called = ref.name or ref.id
        tries = 0
        while True:
            try:
                skill = await resolver.resolve_skill(task.runtime_id, task.id, ref)
                break
            except (TransientError, PermanentError) as error:
                if isinstance(error, PermanentError) and error.is_verdict:
                    why: object = error
                    if error.status == 409 and "not preparing" in error.body.lower():
                        why = "the server says that the task is not being prepared any more"
                    raise SkillError(f"skill {called!r} cannot be fetched: {why}") from error
                tries += 1
                if tries >= TRIES:
                    text = f"skill {called!r} cannot be fetched: {error}"
                    raise SkillError(text, passing=True) from error
                asked_s = error.retry_after_s if isinstance(error, TransientError) else None
                await pause(tries, asked_s or 0.0)
        problem = await asyncio.to_thread(flaw, skill)  # it may be large
        if not problem and (skill.id, skill.source) != (ref.id, ref.source):
            problem = "the server sent another skill"
        if problem:
            raise SkillError(f"skill {called!r} cannot be used: {problem}")
        return skill

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[asyncio.Lock]:
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            yield lock
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


def forget_unused(cache: Path, now: float) -> int:
    """Remove entries that no task has used for ``UNUSED_S``, what a crash has left of one being made, and
    directories that are empty then (touches the disk). Safe beside tasks: one that finds its entry gone asks
    the server again.

    Args:
        cache: ``<root>/.skill-cache``.

    Returns:
        Bytes freed.
    """
    freed = 0
    for entry in cache.glob("v1/*/*/*/*"):  # hidden ones too: half-made
        try:
            if entry.is_symlink() or now - entry.stat().st_mtime <= UNUSED_S:
                continue
        except OSError:
            continue
        size = tree_size(entry).total_bytes
        shutil.rmtree(entry, ignore_errors=True)
        freed += size if not entry.exists() else 0
    for pattern in ("v1/*/*/*", "v1/*/*", "v1/*"):
        for folder in cache.glob(pattern):
            with contextlib.suppress(OSError):  # something is in it, which is the rule
                folder.rmdir()
    return freed


def flaw(skill: Skill) -> str:
    """Why a bundle cannot be used, or ""."""
    files = skill.files or []
    if len(files) > FILES_LIMIT:
        return f"it has {len(files)} files; {FILES_LIMIT} is the limit"
    if size_of(skill) > SIZE_LIMIT_BYTES:
        return f"it is larger than {SIZE_LIMIT_BYTES // (1024 * 1024)} MiB"
    for file in files:
        if not is_safe_path(file.path):
            return f"it has a file with the path {file.path[:200]!r}"
    if skill.hash != manifest_hash(skill):
        return "its content does not match its hash"
    return ""


def _read(place: Path, ref: SkillRef) -> Skill | None:
    """A bundle of the cache that matches a reference; one that does not is removed."""
    try:
        skill = msgspec.json.decode((place / "bundle.json").read_bytes(), type=Skill)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("the cached skill %s cannot be read: %s", place, error)
        shutil.rmtree(place, ignore_errors=True)
        return None
    if (
        (skill.id, skill.source, skill.hash) == (ref.id, ref.source, ref.hash)
        and len(skill.files or []) == ref.file_count
        and (ref.size_bytes <= 0 or size_of(skill) == ref.size_bytes)
        and not flaw(skill)
    ):
        with contextlib.suppress(OSError):
            os.utime(place)  # it is in use: see ``forget_unused``
        return skill
    shutil.rmtree(place, ignore_errors=True)
    return None


def _store(place: Path, skill: Skill) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = place.with_name(f".{os.getpid()}.{os.urandom(6).hex()}.new")
    temporary.mkdir(mode=0o700)
    try:
        (temporary / "bundle.json").write_bytes(msgspec.json.encode(skill))
        try:
            os.rename(temporary, place)
        except OSError:
            if not (place / "bundle.json").exists():  # else another daemon was quicker, with the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
