"""The skills that are installed on this machine for an agent: listed for a server, or bundled for it.

Rules:

- A provider's own folder in the user's home comes first, then ``~/.agents/skills``, which several share. Two
  skills with one key: the first folder counts.
- A skill is a directory with a ``SKILL.md``, at most four levels below its folder; its key is its path there.
  Directories that are links are followed, each real one once, so a circle ends.
- A bundle holds texts alone: a file that is too large, that is no UTF-8 text or that is a device or pipe is
  left out. Hidden files and licences are, too. A bundle that is too large as a whole is refused.
- What leads out of the skill and out of its folder is not read: a skill of somebody else may hold a link to
  a secret, and a bundle goes to a server.

Everything here touches the disk and may take its time: call it in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from daemon_core.workdirs.skills import MAIN_FILE, front_fields, is_safe_path

log = logging.getLogger(__name__)

DEPTH_LIMIT: Final = 4
FILE_LIMIT_BYTES: Final = 1 << 20
BUNDLE_LIMIT_BYTES: Final = 8 << 20
FILES_LIMIT: Final = 128
VISITS_LIMIT: Final = 5000
"""Directories looked at in one folder: a link to a whole disk must not keep a thread busy for minutes."""
_IGNORED: Final = frozenset({"license", "license.md", "license.txt"})
_UNIVERSAL: Final = "~/.agents/skills"


class LocalSkillError(Exception):
    """A skill cannot be bundled; the text says why and is for the server."""


class LocalSkill(msgspec.Struct, frozen=True, kw_only=True):
    """A skill as it is listed to a server; field names are those of the wire."""

    key: str
    name: str
    description: str = ""
    source_path: str = ""
    provider: str = ""
    root: str = "provider"
    """``provider`` or ``universal``."""
    file_count: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    key: str
    path: str
    """As it was found, for display."""
    folder: str
    """Real path of the folder it was found in."""
    root: str


def folder_of(places: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The first of a provider's folders that there can be: ``~`` and ``$NAME`` at its beginning are filled
    in, and one whose variable is not set is passed over. None: it has none."""
    for place in places:
        head, _, rest = place.partition("/")
        if head == "~":
            base = _home(environ)
        elif head.startswith("$"):
            base = environ.get(head[1:], "").strip()
        else:
            return place
        if os.path.isabs(base):
            return os.path.join(base, rest)
    return None


def list_skills(provider: str, places: Sequence[str], environ: Mapping[str, str]) -> list[LocalSkill] | None:
    """The skills of this machine for a provider, by key; None where the provider knows no such thing.

    Args:
        places: the provider's own folders, best first.
    """
    folder = folder_of(places, environ)
    if folder is None:
        return None
    home = _home(environ)
    listed = []
    for found in _all(folder, home).values():
        main = _main_text(found)
        if main is None:
            continue
        name, description = _told(main, found.key)
        listed.append(
            LocalSkill(
                key=found.key,
                name=name,
                description=description,
                source_path=_shown(found.path, home),
                provider=provider,
                root=found.root,
                file_count=1 + sum(1 for _ in _files(found)),
            )
        )
    return sorted(listed, key=lambda skill: skill.key)


def bundle(provider: str, places: Sequence[str], key: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """One skill with its files, as the wire has it.

    Raises:
        LocalSkillError: it is not there, not readable or too large.
    """
    folder = folder_of(places, environ)
    if folder is None:
        raise LocalSkillError(f"{provider} has no folder of local skills that this daemon knows")
    home = _home(environ)
    # Looked up among what is listed, so a key cannot lead anywhere else.
    found = _all(folder, home).get(key)
    main = _main_text(found) if found is not None else None
    if found is None or main is None:
        raise LocalSkillError(f"there is no local skill {key!r} on this machine")
    name, description = _told(main, key)
    size_bytes, files = len(main.encode()), []
    for path, real in _files(found):
        text = _read(real)
        if text is None:
            log.info("local skill %s: %s is left out", key, path)
            continue
        size_bytes += len(text.encode())
        files.append({"path": path, "content": text})
        if size_bytes > BUNDLE_LIMIT_BYTES:
            raise LocalSkillError(f"the skill is larger than {BUNDLE_LIMIT_BYTES >> 20} MiB")
        if len(files) >= FILES_LIMIT:
            raise LocalSkillError(f"the skill has more than {FILES_LIMIT} files")
    skill: dict[str, Any] = {
        "name": name,
        "description": description,
        "content": main,
        "source_path": _shown(found.path, home),
        "provider": provider,
    }
    if files:
        skill["files"] = files
    return skill


# --- looking ---------------------------------------------------------------------------------------


def _all(folder: str, home: str) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    universal = os.path.join(home, _UNIVERSAL.removeprefix("~/"))
    for root, place in (("provider", folder), ("universal", universal)):
        for skill in _scan(root, place):
            found.setdefault(skill.key, skill)
    return found


def _scan(root: str, folder: str) -> Iterator[_Found]:
    """The skills in one folder. What cannot be read is passed over."""
    real_folder = os.path.realpath(folder)
    visited: set[tuple[int, int]] = set()
    waiting = [("", 0)]
    while waiting:
        relative, depth = waiting.pop()
        path = os.path.join(folder, relative) if relative else folder
        try:
            facts = os.stat(path)
            identity = (facts.st_dev, facts.st_ino)
            if not stat.S_ISDIR(facts.st_mode) or identity in visited:
                continue
            visited.add(identity)
            if len(visited) > VISITS_LIMIT:
                log.warning("%s holds too many directories; not all skills in it are seen", folder)
                return
            if relative and os.path.isfile(os.path.join(path, MAIN_FILE)):
                if is_safe_path(relative) and relative.isprintable():
                    yield _Found(relative, path, real_folder, root)
                continue  # what is below belongs to the skill
            if depth == DEPTH_LIMIT:
                continue
            names = sorted((name for name in os.listdir(path) if not name.startswith(".")), reverse=True)
        except OSError:
            continue
        waiting += [(f"{relative}/{name}" if relative else name, depth + 1) for name in names]


def _files(found: _Found) -> Iterator[tuple[str, str]]:
    """Relative and real path of a skill's further files that are not too large, in order."""
    real_skill = os.path.realpath(found.path)
    visited: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        path = os.path.join(found.path, relative) if relative else found.path
        real = os.path.realpath(path)
        if not _inside(real, real_skill, found.folder):
            continue
        try:
            facts = os.stat(real)
            if stat.S_ISDIR(facts.st_mode):
                if (facts.st_dev, facts.st_ino) not in visited and len(visited) < VISITS_LIMIT:
                    visited.add((facts.st_dev, facts.st_ino))
                    names = sorted(os.listdir(real), reverse=True)
                    waiting += [f"{relative}/{name}" if relative else name for name in names if _wanted(name)]
            elif (
                stat.S_ISREG(facts.st_mode)
                and facts.st_size <= FILE_LIMIT_BYTES
                and relative != MAIN_FILE
                and is_safe_path(relative)
                and relative.isprintable()
            ):
                yield relative, real
        except OSError:
            continue


def _wanted(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in _IGNORED


def _inside(real: str, *directories: str) -> bool:
    return any(real == each or real.startswith(each + os.sep) for each in directories)


def _main_text(found: _Found) -> str | None:
    real = os.path.realpath(os.path.join(found.path, MAIN_FILE))
    if not _inside(real, os.path.realpath(found.path), found.folder):
        return None
    return _read(real)


def _read(real: str) -> str | None:
    """A text of at most the limit; None for anything else. ``real`` has no links left to follow."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open(os.open(real, flags), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return None
            data = stream.read(FILE_LIMIT_BYTES + 1)
        if len(data) <= FILE_LIMIT_BYTES and b"\0" not in data:
            return data.decode()
    return None


# --- telling ---------------------------------------------------------------------------------------


def _told(main: str, key: str) -> tuple[str, str]:
    """Name and description that a ``SKILL.md`` tells of itself; the name is its directory's otherwise."""
    told = front_fields(main)

    def text(field: str) -> str:
        value = told.get(field)
        return " ".join(value.split()) if isinstance(value, str) else ""

    return text("name") or key.rpartition("/")[2], text("description")


def _shown(path: str, home: str) -> str:
    shown = "~" + path[len(home.rstrip(os.sep)) :] if _inside(path, home.rstrip(os.sep)) else path
    return os.fsencode(shown).decode("utf-8", "replace")


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")
