"""Task directories: the ones Ostler makes, and the checks a directory of the user has to pass.

All functions here touch the disk and are called from threads.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

_PROTECTED_POSIX = ("/", "/Users", "/Users/Shared", "/home", "/root", "/var", "/etc", "/tmp", "/usr", "/opt")
_PROTECTED_WINDOWS = (
    "C:\\Users",
    "C:\\ProgramData",
    "C:\\Program Files",
    "C:\\Program Files (x86)",
    "C:\\Windows",
)
_STAMP_NAME = ".gc_meta.json"
_OWNER_NAME = ".ostler_task"
"""Beside a work directory: the id of the task that it was made for."""
_SEGMENT = re.compile(r"[0-9a-zA-Z_-]+")


class DirectoryRefusedError(Exception):
    """A user directory cannot be used. ``code`` is one of ``not_absolute``, ``not_found``,
    ``not_a_directory``, ``not_readable``, ``not_writable``, ``protected``."""

    _WORDS: ClassVar = {
        "not_absolute": "is not an absolute path",
        "not_found": "does not exist",
        "not_a_directory": "is not a directory",
        "not_readable": "cannot be listed",
        "not_writable": "cannot be written to",
        "protected": "is a protected place; use a directory inside it",
    }

    def __init__(self, code: str, path: str, cause: str = "") -> None:
        self.code = code
        self.path = path
        words = f"the directory {path or '(none)'} {self._WORDS[code]}"
        super().__init__(f"{words} ({cause})" if cause else words)


def is_protected(path: str, home: str) -> bool:
    """Whether exactly this place must never be a task's directory: by its name, with links resolved, or
    because it is the same directory under yet another name (other case, a second mount)."""
    resolved = os.path.realpath(path)
    if sys.platform == "win32":  # pragma: no cover - Windows only
        listed: tuple[str, ...] = (*_PROTECTED_WINDOWS, home)
        if protected_on_windows(path, resolved, home):
            return True
    else:
        listed = (*_PROTECTED_POSIX, home)
        if protected_on_posix(path, resolved, home, [os.path.realpath(name) for name in listed]):
            return True
    return any(_same_place(path, name) for name in listed)


def protected_on_posix(path: str, resolved: str, home: str, resolved_list: Sequence[str]) -> bool:
    """The protocol's rule on Linux and macOS: the name against the list, the resolved name
    against the list and the list as resolved (on macOS ``/tmp`` is ``/private/tmp``)."""
    listed = [*_PROTECTED_POSIX, posixpath.normpath(home)]
    return posixpath.normpath(path) in listed or resolved in listed or resolved in resolved_list


def protected_on_windows(path: str, resolved: str, home: str) -> bool:
    """The same on Windows, where case does not count, a path may be given with slashes or the prefix for long
    ones, and the roots of drives and of shares are protected."""
    listed = [ntpath.normcase(ntpath.normpath(name)) for name in (*_PROTECTED_WINDOWS, home)]
    for form in (path, resolved):
        plain = ntpath.normpath(form)
        if plain.startswith("\\\\?\\UNC\\"):
            plain = "\\\\" + plain[8:]
        elif plain.startswith(("\\\\?\\", "\\\\.\\")):
            plain = plain[4:]
        drive, rest = ntpath.splitdrive(plain)
        if (drive and rest in ("\\", "")) or ntpath.normcase(plain).rstrip("\\") in listed:
            return True
    return False


def _same_place(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def validate_user_directory(path: str) -> Path:
    """Check a directory that the user named for a task; gives it cleaned.

    Raises ``DirectoryRefusedError`` with the first rule it breaks: absolute, not protected, exists, is a
    directory, can be listed, can be written to (tried with a file that is removed again).
    """
    if not path.strip() or not os.path.isabs(path) or "\0" in path or not _encodable(path):
        raise DirectoryRefusedError("not_absolute", path)
    cleaned = os.path.normpath(path)
    if is_protected(cleaned, os.path.expanduser("~")):
        raise DirectoryRefusedError("protected", cleaned)
    try:
        if not stat.S_ISDIR(os.stat(cleaned).st_mode):
            raise DirectoryRefusedError("not_a_directory", cleaned)
    except (FileNotFoundError, ValueError) as error:  # ValueError: no file name on this system
        raise DirectoryRefusedError("not_found", cleaned) from error
    except OSError as error:
        raise DirectoryRefusedError("not_readable", cleaned, error.strerror or "") from error
    try:
        with os.scandir(cleaned) as entries:
            next(iter(entries), None)
    except OSError as error:
        raise DirectoryRefusedError("not_readable", cleaned, error.strerror or "") from error
    try:
        with tempfile.NamedTemporaryFile(dir=cleaned, prefix=".ostler-rwcheck-"):
            pass
    except OSError as error:
        raise DirectoryRefusedError("not_writable", cleaned, error.strerror or "") from error
    return Path(cleaned)


def _encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


class Stamp(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What clean-up later goes by. Field names are those of the protocol's metadata file."""

    kind: str = ""
    issue_id: str = ""
    chat_session_id: str = ""
    autopilot_run_id: str = ""
    task_id: str = ""
    workspace_id: str = ""
    completed_at: str = ""
    local_directory: str = ""
    connection: str = ""
    """Whose task it was: the server to ask. Ours, not the protocol's."""


class TaskDirectories:
    """The directories that Ostler makes for tasks, below one root: ``<workspace>/<8 hex>/workdir``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self, workspace_id: str, task_id: str, prior_work_dir: str) -> Path:
        """A task's own directory: the one its conversation used before, if it is still there, else a new one.

        Only a prior directory that is one of ours is taken over: the path comes from a server. A directory
        made for another task is never shared, however alike the ids begin; one that an earlier try of this
        task made is taken again. Raises ``OSError``.
        """
        if prior_work_dir and self.owns(prior_work_dir) and os.path.isdir(prior_work_dir):
            return Path(os.path.realpath(prior_work_dir))
        name = re.sub("[^0-9a-f]", "", task_id.lower())[:8] or "task"
        workspace = "-".join(_SEGMENT.findall(workspace_id)) or "workspace"
        parent = self.root / workspace
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = parent / name
        number = 1
        while not self._make(environment, task_id):
            number += 1
            environment = parent / f"{name}-{number}"
        work_dir = environment / "workdir"
        work_dir.mkdir(mode=0o700, exist_ok=True)
        return Path(os.path.realpath(work_dir))

    def _make(self, environment: Path, task_id: str) -> bool:
        """Make it, or find it made for this task by a try that died before it had begun; else False."""
        owner = environment / _OWNER_NAME
        try:
            environment.mkdir(mode=0o700)
        except FileExistsError:
            try:
                made_for = owner.read_text(errors="replace")
            except OSError:
                return False  # never wiped here: it may hold somebody's work
            return made_for == task_id and not (environment / _STAMP_NAME).exists()
        owner.write_text(task_id, errors="replace")
        return True

    def owns(self, work_dir: str) -> bool:
        """Whether a directory is one of ours (and so may be removed with its conversation).

        It has to be ``<root>/<workspace>/<name>/workdir`` itself, and no link to somewhere else.
        """
        if not work_dir or "\0" in work_dir or not _encodable(work_dir):
            return False
        parent, name = os.path.split(work_dir.rstrip(os.sep))
        path = Path(os.path.realpath(parent), name)
        root = Path(os.path.realpath(self.root))
        return path.name == "workdir" and path.parent.parent.parent == root and not path.is_symlink()

    def stamp(self, work_dir: str, stamp: Stamp) -> None:
        """Write the clean-up metadata beside one of our directories; never into the user's own."""
        if not self.owns(work_dir):
            return
        target = Path(os.path.realpath(work_dir)).parent / _STAMP_NAME
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(stamp))
        os.replace(temporary, target)

    def remove(self, work_dir: str) -> bool:
        """Remove one of our directories with all that is in it; False if it is not ours or not there."""
        if not self.owns(work_dir) or not os.path.isdir(work_dir):
            return False
        shutil.rmtree(Path(os.path.realpath(work_dir)).parent)
        return True
