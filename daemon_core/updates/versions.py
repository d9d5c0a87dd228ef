"""The installed versions on the disk: what is whole, what is in use, and the pointer to what runs.

```
versions/<version>/       a payload; complete once ``manifest.json`` is in it, and never written again
versions/.new-<random>/   one that is being made: renamed when it is whole and synced
leases/<name>             held (shared) by every process that runs from it, runs' supervisors included
current.json              the pointer (``pointer``); ``current.copy.json`` is what was written last but for a
                          power cut, for the day on which the pointer cannot be read
trial.beat                its time shows that a healthy version on trial lives
switch.lock               held by whoever changes any of this
```

Every change is: lock, read, decide (``pointer``), write whole, sync. What a death at any operation leaves
behind is a complete old state, a complete new one, or rubbish that nobody looks at and ``tidy`` removes.

Standard library only: this is frozen into the launcher.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.errors import TrialGoneError
from daemon_core.updates.files import Files, Lock, locked, try_lock
from daemon_core.updates.pointer import (
    Bad,
    DamagedError,
    Facts,
    Pointer,
    Trial,
    is_newer,
    is_version,
    newest,
    version_key,
)

__all__ = [
    "Bad",
    "Facts",
    "Installation",
    "Pointer",
    "Seed",
    "Staging",
    "Store",
    "Trial",
    "app_directory",
    "boot_id",
    "executable",
    "is_newer",
    "is_version",
    "newest",
    "payload_version",
    "version_key",
]

PAYLOAD = "payload.json"
MANIFEST = "manifest.json"
POINTER = "current.json"
POINTER_COPY = "current.copy.json"
BEAT = "trial.beat"
NEW = ".new-"
LOCK_PATIENCE_S = 10.0
TIMES_MOST_S = {"healthy_s": 50.0, "settle_s": 600.0}
"""The longest times of a trial that are taken: the version before runs again within a minute of a start that
comes to nothing."""
FORMAT = 1


class Seed(NamedTuple):
    """The payload that came with the installer."""

    version: str
    path: str


class Store:
    """The versions of one user. Any number of processes may have one.

    Args:
        app_dir: where they are; made when something is to be written.
        seed_dir: the installer's own payload, if there is one.
    """

    def __init__(
        self, app_dir: str | os.PathLike[str], seed_dir: str = "", files: Files | None = None
    ) -> None:
        self.app_dir = os.fspath(app_dir)
        self.seed_dir = seed_dir
        self.files = files or Files()
        self.versions_dir = os.path.join(self.app_dir, "versions")
        self.leases_dir = os.path.join(self.app_dir, "leases")

    # --- what is here ----------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Everything in ``versions/`` that has a version's name, whole or not."""
        return [name for name in self.files.names(self.versions_dir) if is_version(name)]

    def complete(self) -> list[str]:
        """The versions that are here whole, oldest first."""
        return sorted((name for name in self.names() if self.is_complete(name)), key=version_key)

    def is_complete(self, version: str) -> bool:
        """Whether a version is here with all its files, by name, kind and size."""
        return is_version(version) and is_whole(self.directory(version), version, self.files)

    def directory(self, version: str) -> str:
        """Where a version is, or would be."""
        return os.path.join(self.versions_dir, version)

    def seed(self) -> Seed | None:
        """The installer's payload, if it is whole."""
        if not self.seed_dir:
            return None
        version = payload_version(self.seed_dir, self.files)
        if version is None or not is_whole(self.seed_dir, version, self.files):
            return None
        return Seed(version, self.seed_dir)

    def facts(self) -> Facts:
        seed = self.seed()
        return Facts(tuple(self.complete()), seed.version if seed is not None else None)

    def place(self, version: str) -> str | None:
        """The directory to run a version from: its own, else the installer's; None if it is not whole."""
        if self.is_complete(version):
            return self.directory(version)
        seed = self.seed()
        return seed.path if seed is not None and seed.version == version else None

    # --- the pointer -----------------------------------------------------------------------------

    def stored(self) -> Pointer | None:
        """The pointer as it is written, or its copy; None if neither can be read."""
        for name in (POINTER, POINTER_COPY):
            try:
                return deciding.decode(self.files.read(os.path.join(self.app_dir, name)))
            except (OSError, DamagedError):
                continue
        return None

    def pointer(self) -> Pointer:
        """What is to run, given what is here. Changes nothing and needs no lock."""
        return deciding.settled(self.stored(), self.facts())

    def change(self, decide: Callable[[Pointer], Pointer], patience_s: float = LOCK_PATIENCE_S) -> Pointer:
        """Change the pointer, durably, alone. Gives what it is now.

        Raises:
            OSError: It is what it was before (or, after an error of the very last sync, already the new one).
            TimeoutError: Somebody else changes it for too long.
        """
        with self.locked(patience_s):
            found = self.stored()
            wanted = decide(deciding.settled(found, self.facts()))
            if wanted != found or not self._is_whole(POINTER):
                self._write(wanted)
            return wanted

    @contextmanager
    def locked(self, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
        """Alone among all who change something here. Not twice in one thread."""
        self._make(self.app_dir)
        with locked(os.path.join(self.app_dir, "switch.lock"), patience_s):
            yield

    def write_locked(self, pointer: Pointer) -> None:
        """Write the pointer; the caller has ``locked`` and read it there."""
        self._write(pointer)

    def _write(self, pointer: Pointer) -> None:
        data = deciding.encode(pointer)
        self.files.write(os.path.join(self.app_dir, POINTER), data)
        try:
            self.files.write(os.path.join(self.app_dir, POINTER_COPY), data)
        except OSError:
            pass  # an older copy is a copy: what counts is on the disk

    def _is_whole(self, name: str) -> bool:
        try:
            deciding.decode(self.files.read(os.path.join(self.app_dir, name)))
        except (OSError, DamagedError):
            return False
        return True

    # --- trials ----------------------------------------------------------------------------------

    def begin_trial(self, trial: Trial) -> Pointer:
        """From now on starts of the daemon try this version. Raises ``OSError``: they do not."""
        return self.change(lambda pointer: deciding.tried(pointer, trial))

    def of_trial(
        self, trial_id: str, step: Callable[[Pointer], Pointer], patience_s: float = LOCK_PATIENCE_S
    ) -> Pointer:
        """Take a step of a trial (``pointer.healthy``, ``committed``, …).

        Raises:
            TrialGoneError: Somebody else has decided it.
            OSError: The step is not taken.
        """

        def decide(pointer: Pointer) -> Pointer:
            found = profiles.taken(pointer, trial_id, step)
            if found is None:
                raise TrialGoneError(trial_id)
            return found

        return self.change(decide, patience_s)

    def beat(self) -> None:
        """The version on trial lives. Raises ``OSError``: that cannot be shown."""
        self.files.touch(os.path.join(self.app_dir, BEAT))

    def beaten_at(self) -> int:
        """Another number after each ``beat``."""
        facts = self.files.facts(os.path.join(self.app_dir, BEAT))
        return facts.st_mtime_ns if facts is not None else 0

    # --- bad versions ----------------------------------------------------------------------------

    def bad(self, version: str) -> Bad | None:
        """Why a version is not tried again by itself; None if it may be."""
        return self.pointer().bad.get(version)

    revert_reason = bad

    def forgive(self, version: str) -> None:
        """The user wants a version to be tried again."""
        self.change(lambda pointer: deciding.forgiven(pointer, version))

    # --- leases ----------------------------------------------------------------------------------

    def lease(self, version: str) -> Lock | None:
        """Say that this process runs from a version; None while it is being removed.

        Look afterwards whether the version is still there: a removal takes ``manifest.json`` away first.
        """
        self._make(self.app_dir)
        self._make(self.leases_dir)
        return try_lock(os.path.join(self.leases_dir, version), shared=True)

    def in_use(self, version: str) -> bool:
        """Whether a process runs from a version."""
        path = os.path.join(self.leases_dir, version)
        return self.files.facts(path) is not None and not _is_alone(path)

    # --- new versions ----------------------------------------------------------------------------

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """A directory to put a new version into; it is removed unless it was published."""
        self._make(self.app_dir)
        self._make(self.versions_dir)
        self._make(self.leases_dir)
        name = f"{NEW}{os.urandom(6).hex()}"
        lease = try_lock(os.path.join(self.leases_dir, name))
        if lease is None:
            raise OSError(errno.EBUSY, "the name is taken", name)
        path = os.path.join(self.versions_dir, name)
        with lease:
            self.files.make_directory(path)
            try:
                yield Staging(self, path)
            finally:
                self._forget(path)

    def _forget(self, path: str) -> None:
        try:
            self.files.remove_tree(path)
            self.files.unlink(os.path.join(self.leases_dir, os.path.basename(path)))
        except OSError:
            pass  # `tidy` takes it away

    def publish(self, path: str, version: str) -> bool:
        """Give a directory that is whole and synced its version's name. False: that version is here already.

        Raises:
            OSError: It is not whole (``EBADF``), or a damaged one is in its place and in use (``EBUSY``).
        """
        if not is_version(version) or not is_whole(path, version, self.files):
            raise OSError(errno.EBADF, "this is not a whole version", path)
        target = self.directory(version)
        with self.locked():
            if self.files.facts(target) is not None:
                if self.is_complete(version):
                    return False
                if not self._remove(version):
                    raise OSError(errno.EBUSY, "a damaged version is in use", target)
            self.files.settle_in(path, target)
            self.files.sync_directory(self.versions_dir)
        return True

    def install_seed(self) -> str | None:
        """Copy the installer's payload to the versions, so that the package manager may take its own away at
        any time. Gives its version; None if there is none.

        Raises:
            OSError: There is no room, or the installer's files cannot be read.
        """
        seed = self.seed()
        if seed is None:
            return None
        if not self.is_complete(seed.version):
            with self.staging() as staging:
                self._copy(seed.path, staging.path, last=MANIFEST)
                staging.publish(seed.version)
        return seed.version

    def _copy(self, source: str, target: str, last: str = "") -> None:
        """A tree, synced, with one file of its top as the last one of all."""
        files = self.files
        for name in sorted(files.names(source), key=lambda name: (name == last, name)):
            old, new = os.path.join(source, name), os.path.join(target, name)
            facts = files.facts(old)
            if facts is None:
                raise FileNotFoundError(errno.ENOENT, "it has just been removed", old)
            if name == last:
                files.sync_directory(target)
            if stat.S_ISLNK(facts.st_mode):
                files.link(os.readlink(old), new)
            elif stat.S_ISDIR(facts.st_mode):
                files.make_directory(new)
                self._copy(old, new)
            else:
                files.copy(old, new, 0o755 if facts.st_mode & 0o100 else 0o644)
                files.sync(new)
        files.sync_directory(target)

    # --- old versions ----------------------------------------------------------------------------

    def remove_unused(self, keep: Iterable[str] = ()) -> list[str]:
        """Remove the versions that nothing runs from and nothing needs, and what was left half made. What is
        pointed to, the one before it and the one on trial stay. Gives what was removed.

        Raises:
            OSError: Something cannot be removed; the next round tries again.
        """
        removed = []
        with self.locked():
            pointer = self.pointer()
            needed = {pointer.version, pointer.previous, *profiles.needed(pointer), *keep}
            if pointer.trial is not None:
                needed.add(pointer.trial.version)
            for version in self.names():
                if version not in needed and self._remove(version):
                    removed.append(version)
            self._tidy()
        return removed

    def _remove(self, version: str) -> bool:
        """Remove a version, unless it is in use. It is no version any more before anything else goes."""
        path = self.directory(version)
        self._make(self.leases_dir)
        lease = try_lock(os.path.join(self.leases_dir, version))
        if lease is None:
            return False
        with lease:
            manifest = os.path.join(path, MANIFEST)
            if self.files.facts(manifest) is not None:
                self.files.unlink(manifest)
                self.files.sync_directory(path)
            self.files.remove_tree(path)
        # The lease's file stays: somebody may be about to lock it.
        return True

    def _tidy(self) -> None:
        """What deaths have left behind."""
        files = self.files
        for name in files.names(self.versions_dir):
            if name.startswith(NEW):
                lease = try_lock(os.path.join(self.leases_dir, name))
                if lease is not None:
                    with lease:
                        self._forget(os.path.join(self.versions_dir, name))
        for name in files.names(self.leases_dir):
            path = os.path.join(self.leases_dir, name)
            there = os.path.join(self.versions_dir, name)
            if name.startswith(NEW) and files.facts(there) is None and _is_alone(path):
                files.unlink(path)
        for name in files.names(self.app_dir):
            if name.startswith((f".{POINTER}.", f".{POINTER_COPY}.")):
                files.unlink(os.path.join(self.app_dir, name))

    def _make(self, path: str) -> None:
        missing = []
        while self.files.facts(path) is None:
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            self.files.make_directory(path)
            self.files.sync_directory(os.path.dirname(path))


class Staging:
    """A version that is being made. ``path`` is empty at first."""

    def __init__(self, store: Store, path: str) -> None:
        self.store = store
        self.path = path

    def publish(self, version: str) -> bool:
        """See ``Store.publish``. All files have to be synced, ``manifest.json`` last."""
        return self.store.publish(self.path, version)


def _is_alone(path: str) -> bool:
    """Whether nobody at all has the lock on a file."""
    try:
        lock = try_lock(path)
    except FileNotFoundError:
        return True
    if lock is None:
        return False
    lock.release()
    return True


# --- payloads ---------------------------------------------------------------------------------------------


def payload_version(path: str, files: Files | None = None) -> str | None:
    """The version of a payload directory by its own word; None if that cannot be had."""
    found = _table(os.path.join(path, PAYLOAD), files or Files())
    version = found.get("version") if found is not None and found.get("format") == FORMAT else None
    return version if isinstance(version, str) and is_version(version) else None


def is_whole(path: str, version: str, files: Files | None = None) -> bool:
    """Whether a directory has a payload of this version, with every file of its manifest by kind and size."""
    files = files or Files()
    manifest = _table(os.path.join(path, MANIFEST), files)
    if manifest is None or manifest.get("format") != FORMAT or manifest.get("version") != version:
        return False
    listed = manifest.get("files")
    if not isinstance(listed, dict) or PAYLOAD not in listed:
        return False
    for name, entry in listed.items():
        if not isinstance(entry, dict):
            return False
        facts = files.facts(os.path.join(path, name))
        if facts is None:
            return False
        if "link" in entry:
            if not stat.S_ISLNK(facts.st_mode):
                return False
        elif not stat.S_ISREG(facts.st_mode) or facts.st_size != entry.get("size"):
            return False
    return payload_version(path, files) == version


def _table(path: str, files: Files) -> dict[str, object] | None:
    try:
        found = json.loads(files.read(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def executable(directory: str, program: str) -> str:
    """Where a program of a payload (or of the launcher) is."""
    return os.path.join(directory, f"{program}.exe" if sys.platform == "win32" else program)


# --- where things are -------------------------------------------------------------------------------------


class Installation(NamedTuple):
    """An installed Ostler: the installer's own files, which no update changes."""

    launcher_dir: str

    @property
    def root(self) -> str:
        return os.path.dirname(self.launcher_dir)

    @property
    def launcher(self) -> str:
        """The program that chooses what runs."""
        return executable(self.launcher_dir, "ostler")

    @property
    def owned(self) -> bool:
        """Whether a package manager does the updates."""
        return os.path.exists(os.path.join(self.root, "owned-by-package-manager"))

    def about(self) -> dict[str, object]:
        """``install.json``; empty if it cannot be read."""
        return _table(os.path.join(self.root, "install.json"), Files()) or {}

    def trial_times(self) -> dict[str, float]:
        """The times of a trial that the installer gives, as ``Trial`` has them; what makes no sense is not
        taken."""
        given = self.about().get("trial")
        found = given if isinstance(given, dict) else {}
        return {
            name: float(value)
            for name, most_s in TIMES_MOST_S.items()
            if isinstance(value := found.get(name), (int, float)) and 0 < value <= most_s
        }

    def seed_dir(self) -> str:
        """The installer's own payload; empty if there is none."""
        found = self.about().get("seed")
        if isinstance(found, str) and found and not os.path.isabs(found) and ".." not in found.split("/"):
            return os.path.join(self.root, found)
        return ""

    def command(self, program: str, *arguments: str) -> list[str]:
        """How a program of the version that is to run is called."""
        return [self.launcher, f"--as={program}", *arguments]

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None) -> Installation | None:
        """The installation that this process runs from; None for a program run from source."""
        found = (os.environ if environ is None else environ).get("OSTLER_LAUNCHER", "")
        return cls(found) if found and os.path.isabs(found) else None


def app_directory(environ: Mapping[str, str]) -> str:
    """The directory of the versions: the same for all profiles, and the same as ``Directories.app``."""
    home = environ.get("OSTLER_HOME", "")
    if home:
        return os.path.join(os.path.abspath(os.path.expanduser(home)), "data", "app")
    return os.path.join(_user_data(environ), "app")


def lock_file(environ: Mapping[str, str], profile: str) -> str:
    """The file that the daemon of a profile has locked, the same as ``Directories.lock_file``."""
    home = environ.get("OSTLER_HOME", "")
    if home:
        state = os.path.join(os.path.abspath(os.path.expanduser(home)), "state")
    elif sys.platform in ("win32", "darwin"):
        state = os.path.join(os.path.dirname(_user_data(environ)), "state")
    else:
        state = os.path.join(_below_home(environ, "XDG_STATE_HOME", ".local/state"), "ostler")
    if profile != "default":
        state = os.path.join(state, "profiles", profile)
    return os.path.join(state, "daemon.lock")


def _user_data(environ: Mapping[str, str]) -> str:
    if sys.platform == "win32":
        base = environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
        return os.path.join(base, "ostler", "data")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/ostler/data")
    return os.path.join(_below_home(environ, "XDG_DATA_HOME", ".local/share"), "ostler")


def _below_home(environ: Mapping[str, str], variable: str, usual: str) -> str:
    return environ.get(variable, "").strip() or os.path.expanduser(f"~/{usual}")


def boot_id() -> str:
    """Tells one boot of the machine from another one; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
