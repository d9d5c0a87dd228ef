"""What a task puts into a directory, written down first and taken out again to the byte.

A manifest is one file, outside of the directory it is about. Rules:

- **Written ahead.** Every path is in the manifest, durably, before it is made; so a death at any point leaves
  nothing that the next roll-back does not know.
- **Nothing that is there is overwritten.** Files appear whole, under a temporary name of ours first, and by a
  link that fails if the name is taken. A directory is recorded only if it is not there yet. Nothing is
  written through a symbolic link that leads out of the directory.
- **Taken out only what is ours.** A file goes if it still holds what was written; one that somebody has
  changed meanwhile is somebody's, and stays. A directory goes if it is empty then.
- **Edits** (our block in a file that was there) change the file in place, which keeps its inode, owner, mode
  and hard links, and keep the old content in the manifest until it is back. If somebody changed the file
  meanwhile, only our block is taken out of it.
- **Rolling back** can be broken off anywhere and begun again; the manifest goes last.

All functions touch the disk: call them in a thread. ``step`` is called before each change on disk; it exists
for tests, which end things there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon_core.settings.atomic import write_private
from daemon_core.workdirs import marked_block

log = logging.getLogger(__name__)

Step = Callable[[], None]

EDIT_LIMIT_BYTES: Final = 1024 * 1024
"""A file larger than this is not edited."""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One path of ours, relative to the directory, with slashes."""

    path: str
    kind: Literal["dir", "file", "edit"]
    sha256: str = ""
    """Of what was written into a new file."""
    block: bool = False
    """A file made of our block alone: if somebody wrote more into it, only the block goes."""
    old: bytes = b""
    """An edited file as it was."""
    new: bytes = b""
    """An edited file with our block in it."""
    mtime_ns: int = 0
    """Its time as it was, given back with the content."""
    restore: bytes | None = None
    """Set while an edited file that somebody changed is written back: what it is to become."""


class _Record(msgspec.Struct, kw_only=True):
    version: int = 1
    root: str
    label: str = ""
    """Whose it is: a task's id."""
    nonce: str
    """In the temporary names, which are ``.ostler-<nonce>-<number of the entry>``."""
    entries: list[Entry] = []


class Plan:
    """What is to be put into a directory. Looks at the directory, changes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[Entry] = []
        self.contents: dict[str, bytes] = {}
        self._dirs: set[str] = set()
        self._real_root = os.path.realpath(root)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def free(self, path: str) -> bool:
        """Whether nothing has this name, on disk or in the plan, and it could be made."""
        return (
            path not in self.contents
            and path not in self._dirs
            and not os.path.lexists(self.root / path)
            and self._reachable(path)
        )

    def add_file(self, path: str, content: bytes, *, block: bool = False) -> bool:
        """A new file; False (and nothing planned) if the name is taken or cannot be had."""
        if not self.free(path):
            return False
        self._add_parents(path)
        self.contents[path] = content
        self.entries.append(Entry(path=path, kind="file", sha256=_digest(content), block=block))
        return True

    def add_block(self, path: str, text: str) -> bool:
        """Our block in a file: a new one, or one that is there. False if the file is not one to be edited: no
        regular file, too large, not writable, or somewhere else by a symbolic link.
        """
        target = self.root / path
        if not os.path.lexists(target):
            return self.add_file(path, marked_block.block(text), block=True)
        try:
            if not self._inside(os.path.realpath(target)):
                return False
            found = os.stat(target)
            if not stat.S_ISREG(found.st_mode) or found.st_size > EDIT_LIMIT_BYTES:
                return False
            if not os.access(target, os.R_OK | os.W_OK):
                return False
            old = target.read_bytes()
        except OSError:
            return False
        self._edit(path, old, marked_block.with_block(old, text), found)
        return True

    def replace(self, path: str, old: bytes, new: bytes) -> None:
        """Other content for a file that is there and holds ``old``, until the roll-back. Raises
        ``OSError``.
        """
        self._edit(path, old, new, os.stat(self.root / path))

    def _edit(self, path: str, old: bytes, new: bytes, found: os.stat_result) -> None:
        self.contents[path] = new
        self.entries.append(Entry(path=path, kind="edit", old=old, new=new, mtime_ns=found.st_mtime_ns))

    def _add_parents(self, path: str) -> None:
        parent = os.path.dirname(path)
        if not parent or parent in self._dirs:
            return
        self._add_parents(parent)
        if not os.path.lexists(self.root / parent):
            self._dirs.add(parent)
            self.entries.append(Entry(path=parent, kind="dir"))

    def _reachable(self, path: str) -> bool:
        """Whether each parent is a directory of ours to be, or one that is there and inside of the root."""
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            return False
        for count in range(1, len(parts)):
            parent = "/".join(parts[:count])
            if parent in self.contents:
                return False
            place = self.root / parent
            if os.path.lexists(place) and not (
                os.path.isdir(place)
                and os.access(place, os.W_OK | os.X_OK)
                and self._inside(os.path.realpath(place))
            ):
                return False
        return True

    def _inside(self, real: str) -> bool:
        return real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)


class RolledBack(msgspec.Struct, kw_only=True):
    """What a roll-back came to."""

    label: str = ""
    root: str = ""
    removed: int = 0
    kept: list[str] = []
    """Paths of ours that somebody had changed and that were left where they are."""


def carry_out(
    manifest: Path, plan: Plan, *, label: str = "", durable: bool = True, step: Step = lambda: None
) -> None:
    """Write the manifest, then everything in the plan.

    Args:
        durable: Also a power cut shall leave nothing unrecorded, which costs two syncs.

    Raises:
        FileExistsError: There is a manifest already: roll it back first.
        OSError: What had been made stays, with its manifest; roll it back.
    """
    if manifest.exists():
        raise FileExistsError(f"{manifest} has not been rolled back")
    record = _Record(
        root=os.path.realpath(plan.root), label=label, nonce=os.urandom(8).hex(), entries=plan.entries
    )
    manifest.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    step()
    if durable:
        write_private(manifest, msgspec.json.encode(record))
    else:
        temporary = manifest.with_name(f"{manifest.name}.new")
        temporary.write_bytes(msgspec.json.encode(record))
        os.replace(temporary, manifest)
    for number, entry in enumerate(plan.entries):
        target = plan.root / entry.path
        match entry.kind:
            case "dir":
                step()
                os.mkdir(target, 0o700)
            case "file":
                _create(target, _temporary(target, record.nonce, number), plan.contents[entry.path], step)
            case "edit":
                _overwrite(target, entry.old, entry.new, step)


def roll_back(manifest: Path, *, step: Step = lambda: None) -> RolledBack | None:
    """Take out again what a manifest lists; None if there is no manifest (which is no error).

    Raises ``OSError`` where something cannot be removed or the directory is not there: the manifest then
    stays for another try.
    """
    record = _read(manifest)
    if record is None:
        return None
    root = Path(record.root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there (any more, or not mounted)")
    done = RolledBack(label=record.label, root=record.root)
    for number, entry in reversed(list(enumerate(record.entries))):
        target = root / entry.path
        match entry.kind:
            case "dir":
                if target.is_symlink():
                    continue
                with contextlib.suppress(OSError):  # not there, not empty, or a file by now
                    step()
                    os.rmdir(target)
                    done.removed += 1
            case "file":
                temporary = _temporary(target, record.nonce, number)
                if os.path.lexists(temporary):
                    step()
                    temporary.unlink(missing_ok=True)
                _take_out_file(manifest, record, entry, target, done, step)
            case "edit":
                _take_out_edit(manifest, record, entry, target, done, step)
    step()
    manifest.unlink(missing_ok=True)
    return done


def recorded_paths(manifest: Path) -> list[str]:
    """Paths below the directory that are ours at present (edited files are the user's and not listed)."""
    record = _read(manifest)
    return [] if record is None else [entry.path for entry in record.entries if entry.kind != "edit"]


def root_of(manifest: Path) -> Path | None:
    """The directory a manifest is about."""
    record = _read(manifest)
    return None if record is None else Path(record.root)


def label_of(manifest: Path) -> str | None:
    """Whose manifest it is."""
    record = _read(manifest)
    return None if record is None else record.label


# --- inside ------------------------------------------------------------------------------------


def _take_out_file(
    manifest: Path, record: _Record, entry: Entry, target: Path, done: RolledBack, step: Step
) -> None:
    current = _content(target)
    if current is None:
        if os.path.lexists(target):
            done.kept.append(entry.path)  # a directory or a link by now
        return
    if _digest(current) == entry.sha256:
        step()
        target.unlink(missing_ok=True)
        done.removed += 1
        return
    if not entry.block or (rest := marked_block.without_block(current)) == current:
        done.kept.append(entry.path)
    elif rest:
        _put_back(manifest, record, entry, target, current, rest, step)
        done.kept.append(entry.path)
    else:
        step()
        target.unlink(missing_ok=True)
        done.removed += 1


def _take_out_edit(
    manifest: Path, record: _Record, entry: Entry, target: Path, done: RolledBack, step: Step
) -> None:
    current = _content(target)
    if current is None:
        return  # somebody removed it: that is how it is to be now
    if entry.restore is not None:
        wanted = entry.restore
    elif _torn(current, entry.old, entry.new):
        wanted = entry.old
    else:
        wanted = _without_ours(current, entry.old)
    if current != wanted:
        _put_back(manifest, record, entry, target, current, wanted, step)
        done.removed += 1
    if wanted == entry.old and entry.mtime_ns:
        found = os.stat(target)
        if found.st_mtime_ns != entry.mtime_ns:
            step()
            os.utime(target, ns=(found.st_atime_ns, entry.mtime_ns))
    elif wanted != entry.old:
        done.kept.append(entry.path)


def _without_ours(current: bytes, old: bytes) -> bytes:
    """A file that somebody changed while our block was in it, with the block as it was before us."""
    was = marked_block.find_block(old)
    now = marked_block.find_block(current)
    if was is None or now is None:
        return marked_block.without_block(current)
    return current[: now[0]] + old[was[0] : was[1]] + current[now[1] :]


def _put_back(
    manifest: Path, record: _Record, entry: Entry, target: Path, current: bytes, wanted: bytes, step: Step
) -> None:
    if not current.startswith(wanted) and entry.restore is None:
        # Two writes: what they are to come to is made durable first.
        entry.restore = wanted
        step()
        write_private(manifest, msgspec.json.encode(record))
    _overwrite(target, current, wanted, step)


def _torn(current: bytes, old: bytes, new: bytes) -> bool:
    """Whether a file is what our write of ``new`` over ``old`` leaves, complete or broken off anywhere: the
    beginning of the new content, then what is left of the old."""
    same = len(os.path.commonprefix([current, new]))  # noqa: RUF071 - of bytes, not of paths
    return current == new or current[same:] == old[same:]


def _create(target: Path, temporary: Path, content: bytes, step: Step) -> None:
    step()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write_all(fd, content, step)
    finally:
        os.close(fd)
    step()
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass  # somebody was quicker: it is theirs
    except OSError:
        # No hard links here. The name was free a moment ago; rename would take it from nobody.
        if not os.path.lexists(target):
            os.rename(temporary, target)
            return
    step()
    os.unlink(temporary)


def _overwrite(target: Path, old: bytes, new: bytes, step: Step) -> None:
    """Change a file in place. Appending and cutting off are one write each."""
    fd = os.open(target, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        if new.startswith(old):
            os.lseek(fd, len(old), os.SEEK_SET)
            _write_all(fd, new[len(old) :], step)
        elif not old.startswith(new):
            _write_all(fd, new, step)
        if len(new) < len(old):
            step()
            os.ftruncate(fd, len(new))
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, step: Step) -> None:
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        step()
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]


def _temporary(target: Path, nonce: str, number: int) -> Path:
    return target.with_name(f".ostler-{nonce}-{number}")


def _content(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(manifest: Path) -> _Record | None:
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=_Record)
    except FileNotFoundError:
        return None
    except ValueError:  # no JSON, of another shape, or bytes that are no text
        # Written atomically, so this is damage from outside. What it listed cannot be known any more.
        log.error("the manifest %s cannot be read; it is set aside", manifest)
        os.replace(manifest, manifest.with_suffix(".damaged"))
        return None
