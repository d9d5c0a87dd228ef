"""Skills as files: where a provider looks for them, what their directories are called, what ``SKILL.md`` is.

The rules are the protocol's:

- A skill's directory is its name in lower case with everything outside ``a-z0-9`` as ``-``; nothing left:
  ``skill``. A directory that is taken gets ``-ostler``, ``-ostler-2``, … up to 64 tries.
- ``SKILL.md`` begins with YAML front matter that has a ``name``: none → made from name and description;
  without a name → it is put in; not valid (or not plain: ``plain_yaml``) → replaced; valid → untouched.
- A supporting file that would be ``SKILL.md`` again is left out, as is one with a path that is not safe, or
  one that another file of the skill is in the way of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon_core.protocol.wire import Skill
from daemon_core.workdirs.manifest import Plan
from daemon_core.workdirs.plain_yaml import what_is_not_plain

SUFFIX: Final = "ostler"
TRIES: Final = 64
SLUG_LIMIT_CHARS: Final = 100
"""File systems take 255 bytes; a suffix must fit, too."""
FRONT_MATTER_LIMIT_CHARS: Final = 64 * 1024
MAIN_FILE: Final = "SKILL.md"

_DASHES: Final = re.compile(r"[^a-z0-9]+")
_FRONT: Final = re.compile(
    r"\A\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)


class PlacedSkill(msgspec.Struct, frozen=True, kw_only=True):
    """A skill as it is on disk."""

    id: str
    name: str
    description: str
    directory: str
    """Relative to the root of the plan."""


def slug(name: str) -> str:
    """The directory name for a skill."""
    return _DASHES.sub("-", name.lower()).strip("-")[:SLUG_LIMIT_CHARS].strip("-") or "skill"


def is_safe_path(path: str) -> bool:
    """Whether a bundle's file path may be used: not empty, no NUL or backslash, relative, in cleaned form."""
    if not path or "\0" in path or "\\" in path or path.startswith("/"):
        return False
    if re.match(r"[A-Za-z]:", path):  # a drive
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def with_front_matter(content: str, name: str, description: str) -> str:
    """``SKILL.md`` with front matter that has a name. ``name`` is what is put in where it is missing."""
    found = _FRONT.match(content[: FRONT_MATTER_LIMIT_CHARS + 16])
    if found is None:
        return _front_matter(name, description) + content.removeprefix("\ufeff")
    body = content[found.end() :]
    fields = _fields(found["yaml"])
    if fields is None:
        return _front_matter(name, description) + body
    told = fields.get("name")
    if isinstance(told, str) and told.strip():
        return content
    if "name" in fields:  # there, but empty or no text: a second one would not be valid
        said = fields.get("description")
        return _front_matter(name, said if isinstance(said, str) and said else description) + body
    at = found.start("yaml")
    return f"{content[:at]}name: {_quoted(name)}\n{content[at:]}"


def place(plan: Plan, folder: str, skills: Sequence[Skill]) -> tuple[list[PlacedSkill], list[Skill]]:
    """Add skills to a plan below ``folder``; gives what was placed and what found no place."""
    placed: list[PlacedSkill] = []
    left: list[Skill] = []
    for skill in skills:
        directory = _free_directory(plan, folder, slug(skill.name))
        if directory is None:
            left.append(skill)
            continue
        name = directory.rpartition("/")[2]
        main = with_front_matter(skill.content, name, skill.description)
        if not plan.add_file(f"{directory}/{MAIN_FILE}", main.encode("utf-8", "replace")):
            left.append(skill)
            continue
        taken = {MAIN_FILE.casefold()}
        for file in skill.files or []:
            # Compared without case: some file systems know no difference.
            folded = file.path.casefold()
            if not is_safe_path(file.path) or folded in taken:
                continue
            if plan.add_file(f"{directory}/{file.path}", file.content.encode("utf-8", "replace")):
                taken.add(folded)
        placed.append(
            PlacedSkill(
                id=skill.id,
                name=skill.name or name,
                description=skill.description,
                directory=directory,
            )
        )
    return placed, left


def front_fields(content: str) -> dict[str, Any]:
    """What the front matter of a ``SKILL.md`` says; empty where there is none, or none that is valid."""
    found = _FRONT.match(content[: FRONT_MATTER_LIMIT_CHARS + 16])
    return (_fields(found["yaml"]) or {}) if found is not None else {}


def _free_directory(plan: Plan, folder: str, name: str) -> str | None:
    for number in range(TRIES + 1):
        ending = "" if number == 0 else f"-{SUFFIX}" if number == 1 else f"-{SUFFIX}-{number}"
        path = f"{folder}/{name}{ending}"
        if plan.free(path) and plan.free(f"{path}/{MAIN_FILE}"):
            return path
    return None


def _fields(text: str) -> dict[str, Any] | None:
    import yaml  # only tasks with skills need it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if what_is_not_plain(text, loader) is not None:
            return None
        found = yaml.load(text, Loader=loader)  # the safe one, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # ValueError: a date that is none
    return found if isinstance(found, dict) else None


def _front_matter(name: str, description: str) -> str:
    lines = ["---", f"name: {_quoted(name)}"]
    # Without what YAML cannot hold: a description of ours is always valid.
    said = " ".join("".join(char if char.isprintable() else " " for char in description).split())
    if said:
        lines.append(f"description: {json.dumps(said, ensure_ascii=False)}")
    return "\n".join([*lines, "---", "", ""])


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z][a-z0-9-]*", name) and name not in _WORDS else json.dumps(name)


_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
"""Plain words that YAML takes for something else than text."""
