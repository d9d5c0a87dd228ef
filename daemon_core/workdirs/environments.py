"""What a task finds in its directory: brief, skills, context files; and how all of it goes again.

Two kinds of directory, two ways:

- **Ostler's own** (``<env root>/workdir``): everything is written into it. The manifest is beside it
  (``.ostler_manifest.json``) and is rolled back before the next task uses the directory.
- **The user's own**: as little as possible is written. The context files go to the run's directory. A brief
  goes by the agent's own option for instructions where it has one; else into the brief file, if there is none
  or the directory is in no repository (an edit there would be a change for git); else it leads the prompt.
  Skills and markers are written where the agent looks for them. The manifest is in one place of the user for
  all profiles, rolled back when the task ends, by whoever takes the directory next, and at every start of a
  daemon for each directory that nobody has locked.

Git does not show what is written into a user's repository: the run's environment names an excludes file (the
user's own excludes and our paths). Nothing in ``.git`` is touched.

The layout is the protocol's with names of our own. All functions touch the disk: call them
in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon_core.protocol.wire import Skill
from daemon_core.workdirs import manifest as manifests
from daemon_core.workdirs import skills as skill_files
from daemon_core.workdirs.manifest import Plan, RolledBack, Step
from daemon_core.workdirs.skills import PlacedSkill

log = logging.getLogger(__name__)

BriefWay = Literal["none", "instructions", "file", "prompt"]
"""How a brief reaches the agent: not at all, by its option for instructions, by a file, before the prompt."""

OWN_FOLDER: Final = ".ostler"
OWN_MANIFEST: Final = ".ostler_manifest.json"
CONTEXT_FOLDER: Final = "context"
"""Below the run's directory: the context files of a task in a user's directory."""
GIT_LIMIT_S: Final = 5.0


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where one provider looks; by default nowhere (a shell, for one): then it gets no brief."""

    way: BriefWay = "none"
    brief_file: str = ""
    skills: str = ".agent_context/skills"
    home_skills: bool = False
    """Skills go into the provider's own home of the task (``provider_homes``), not into the directory."""


class Refused(Exception):  # noqa: N818 - a verdict, like DirectoryRefusedError
    """A directory cannot be prepared: something in it is in the way and belongs to another program."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """A file that tells a command line which program's task this directory is for."""

    path: str
    managed_by: str
    fields: dict[str, str] = {}

    def content(self) -> bytes:
        told = {name: value for name, value in self.fields.items() if value}
        return msgspec.json.encode({"managed_by": self.managed_by, **told}) + b"\n"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a task is to find."""

    label: str
    """The task's id."""
    layout: Layout = Layout()
    work_dir: Path
    user_owned: bool
    run_dir: Path
    brief: Callable[[Sequence[PlacedSkill], str], str] | None = None
    """Makes the brief from the skills as they were placed and the folder of the context files (both as the
    agent can open them: absolute, or relative to the directory). None: no brief."""
    skills: Sequence[Skill] = ()
    context: Mapping[str, bytes] = {}
    """Context files by relative path."""
    markers: Sequence[Marker] = ()
    settings: Mapping[str, bytes] = {}
    """Files of the provider's settings by path, without secrets; never in place of one that is there."""
    settings_anywhere: bool = False
    """Whether they may be in a user's directory, too, where that is all of a repository or in none."""
    environ: Mapping[str, str] = {}
    """Of the run, for what the user's git is set to."""
    user_markers: Sequence[Marker] = ()
    """Those that are needed in a user's directory, too."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    way: BriefWay = "none"
    brief: str = ""
    skills: tuple[PlacedSkill, ...] = ()
    home_skills: tuple[Skill, ...] = ()
    """Skills that the provider's home is to hold."""
    settings: tuple[str, ...] = ()
    """Files of the provider's settings that are there now."""
    excludes: str = ""
    """An excludes file for git, empty if none is needed."""
    notes: tuple[str, ...] = ()
    """What could not be done as usual, for the log."""

    @property
    def instructions(self) -> str:
        return self.brief if self.way == "instructions" else ""

    def prompt(self, prompt: str) -> str:
        """The prompt, with the brief in front of it if that is its way."""
        return f"{self.brief.rstrip()}\n\n---\n\n{prompt}" if self.way == "prompt" and self.brief else prompt

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """What the run's environment needs beside what it has."""
        if not self.excludes:
            return {}
        count = base.get("GIT_CONFIG_COUNT", "")
        number = int(count) if count.isascii() and count.isdigit() else 0
        return {
            "GIT_CONFIG_COUNT": str(number + 1),
            f"GIT_CONFIG_KEY_{number}": "core.excludesFile",
            f"GIT_CONFIG_VALUE_{number}": self.excludes,
        }


class Environments:
    """Prepares directories and takes out again what it put there.

    Args:
        user_manifests: Directory for the manifests of users' directories: the user's, shared by all profiles.
    """

    def __init__(self, user_manifests: Path) -> None:
        self.user_manifests = user_manifests

    def manifest_of(self, work_dir: Path, *, user_owned: bool) -> Path:
        """Where the manifest of a directory is."""
        if not user_owned:
            return work_dir.parent / OWN_MANIFEST
        name = hashlib.sha256(os.fsencode(os.path.realpath(work_dir))).hexdigest()[:32]
        return self.user_manifests / f"{name}.json"

    def prepare(self, wanted: Wanted, *, step: Step = lambda: None) -> Prepared:
        """Bring a directory to what a task is to find; doing it again is doing it anew.

        A user's directory must be locked for the task.

        Raises:
            Refused: Something of another program is in the way.
            OSError: The disk; what was made is taken out again, now or at the next chance.
        """
        self.roll_back(wanted.work_dir, user_owned=wanted.user_owned, step=step)
        layout = wanted.layout
        plan = Plan(wanted.work_dir)
        aside = wanted.run_dir / CONTEXT_FOLDER
        if aside.exists():
            shutil.rmtree(aside)
        notes: list[str] = []
        outside: dict[str, bytes] = {}
        for marker in wanted.user_markers if wanted.user_owned else (*wanted.markers, *wanted.user_markers):
            _mark(plan, marker)
        for path, content in wanted.context.items():
            if wanted.user_owned:
                outside[path] = content
            elif not plan.add_file(f"{OWN_FOLDER}/{path}", content):
                notes.append(f"{OWN_FOLDER}/{path} is somebody else's and was left as it is")
        settings: list[str] = []
        for path, content in wanted.settings.items() if _takes_settings(wanted) else ():
            if plan.add_file(path, content):
                settings.append(path)
            else:
                notes.append(f"{path} is somebody else's and was left as it is")
        placed: list[PlacedSkill] = []
        left: list[Skill] = []
        if not layout.home_skills:
            placed, left = skill_files.place(plan, layout.skills, wanted.skills)
        if left:
            notes.append(f"{layout.skills} cannot be used: {len(left)} skills are beside the directory")
            placed += _place_aside(aside, left, outside)
        brief = ""
        way: BriefWay = "none"
        if wanted.brief is not None and layout.way != "none":
            folder = str(aside) if wanted.user_owned else OWN_FOLDER
            brief = wanted.brief(placed, folder)
            way = self._bring(plan, layout, wanted, brief)
        for path, content in outside.items():
            _write(aside / path, content)
        excludes = ""
        if plan:
            if wanted.user_owned:
                excludes = _excludes(wanted, plan, aside)
            self._carry_out(wanted, plan, step)
        return Prepared(
            way=way,
            brief=brief,
            skills=tuple(placed),
            home_skills=tuple(wanted.skills) if layout.home_skills else (),
            settings=tuple(settings),
            excludes=excludes,
            notes=tuple(notes),
        )

    def roll_back(
        self, work_dir: Path, *, user_owned: bool, label: str | None = None, step: Step = lambda: None
    ) -> list[RolledBack]:
        """Take out of a directory what is recorded for it (by any path that leads to it).

        Args:
            label: Only what this task has put there; None takes everything, which needs the directory's lock.

        Raises ``OSError`` where something cannot be removed now.
        """
        if not user_owned:
            listed = [self.manifest_of(work_dir, user_owned=False)]
        else:
            listed = [
                manifest
                for manifest in self._user_manifests()
                if (root := manifests.root_of(manifest)) is not None and _same(root, work_dir)
            ]
        found = []
        for manifest in listed:
            if label is not None and manifests.label_of(manifest) != label:
                continue
            done = manifests.roll_back(manifest, step=step)
            if done is not None:
                found.append(done)
        return found

    def left(self) -> list[Path]:
        """Users' directories that something of a task is recorded for."""
        roots = [manifests.root_of(manifest) for manifest in self._user_manifests()]
        return sorted({root for root in roots if root is not None})

    def our_paths(self, work_dir: Path, *, user_owned: bool) -> list[str]:
        """Paths in a directory that are ours at present, relative, with slashes: no changes of the task."""
        if not user_owned:
            return manifests.recorded_paths(self.manifest_of(work_dir, user_owned=False))
        return [
            path
            for manifest in self._user_manifests()
            if (root := manifests.root_of(manifest)) is not None and _same(root, work_dir)
            for path in manifests.recorded_paths(manifest)
        ]

    # --- inside --------------------------------------------------------------------------------

    def _user_manifests(self) -> list[Path]:
        return sorted(self.user_manifests.glob("*.json"))

    def _bring(self, plan: Plan, layout: Layout, wanted: Wanted, brief: str) -> BriefWay:
        if layout.way != "file":
            return layout.way
        there = os.path.lexists(wanted.work_dir / layout.brief_file)
        if wanted.user_owned and there and repository_of(wanted.work_dir) is not None:
            return "prompt"
        return "file" if plan.add_block(layout.brief_file, brief) else "prompt"

    def _carry_out(self, wanted: Wanted, plan: Plan, step: Step) -> None:
        manifest = self.manifest_of(wanted.work_dir, user_owned=wanted.user_owned)
        try:
            # In a directory of Ostler's own a power cut costs nobody anything.
            manifests.carry_out(manifest, plan, label=wanted.label, durable=wanted.user_owned, step=step)
        except OSError:
            with contextlib.suppress(OSError):
                manifests.roll_back(manifest)
            raise


def repository_of(directory: Path) -> Path | None:
    """The top of the git work tree that a directory is in, or None."""
    real = Path(os.path.realpath(directory))
    return next((place for place in (real, *real.parents) if os.path.lexists(place / ".git")), None)


def _takes_settings(wanted: Wanted) -> bool:
    if not wanted.user_owned:
        return True
    # Programs look for them at the top of the repository.
    top = repository_of(wanted.work_dir)
    return wanted.settings_anywhere and (top is None or _same(top, wanted.work_dir))


def _mark(plan: Plan, marker: Marker) -> None:
    content = marker.content()
    if plan.add_file(marker.path, content):
        return
    target = plan.root / marker.path
    old = b""
    found: object = None
    with contextlib.suppress(OSError, msgspec.DecodeError):
        old = b"" if target.is_symlink() else target.read_bytes()
        found = msgspec.json.decode(old)
    if not isinstance(found, dict) or found.get("managed_by") != marker.managed_by:
        raise Refused(f"{target} is in the way: it belongs to another program")
    plan.replace(marker.path, old, content)


def _place_aside(aside: Path, skills: Sequence[Skill], outside: dict[str, bytes]) -> list[PlacedSkill]:
    """Skills that the directory has no room for: beside it, where the brief says they are."""
    spare = Plan(aside)
    placed, _ = skill_files.place(spare, "skills", skills)
    outside.update(spare.contents)
    return [msgspec.structs.replace(skill, directory=str(aside / skill.directory)) for skill in placed]


def _excludes(wanted: Wanted, plan: Plan, aside: Path) -> str:
    """An excludes file for git: the user's own and what the plan puts into a repository. "" if it is none."""
    work_dir = wanted.work_dir
    top = repository_of(work_dir)
    if top is None:
        return ""
    prefix = os.path.relpath(os.path.realpath(work_dir), top)
    prefix = "" if prefix == "." else prefix.replace(os.sep, "/") + "/"
    made = {entry.path for entry in plan.entries if entry.kind != "edit"}
    tops = sorted(path for path in made if not any(path.startswith(f"{other}/") for other in made))
    lines = ["", "# What Ostler put there for the task", *(f"/{_literal(prefix + path)}" for path in tops)]
    target = aside / "git-excludes"
    _write(
        target,
        _users_excludes(work_dir, wanted.environ)
        + "\n".join([*lines, ""]).encode("utf-8", "surrogateescape"),
    )
    return str(target)


def _users_excludes(work_dir: Path, environ: Mapping[str, str]) -> bytes:
    fallback = os.path.join(
        environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", os.sep), ".config"),
        "git",
        "ignore",
    )
    named = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "config", "--type=path", "--get", "core.excludesFile"],
            cwd=work_dir, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=GIT_LIMIT_S, check=False,
        )  # fmt: skip
        named = os.fsdecode(done.stdout).strip()
    try:
        return Path(named or fallback).read_bytes()
    except (OSError, ValueError):
        return b""


def _literal(path: str) -> str:
    """A path as a pattern of git that matches it alone."""
    return "".join(f"\\{char}" if char in "\\*?[ !#" else char for char in path)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as stream:
        stream.write(content)


def _same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
