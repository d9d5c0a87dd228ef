"""The signed repository: a directory that any static web server serves.

``metadata/timestamp.json``      THE pointer: what it leads to is what clients see. Replaced atomically, last.
``metadata/N.snapshot.json``, ``N.targets.json``, ``N.root.json``   never written again once there
``metadata/root.json``           the newest root, for installers (clients fetch the numbered ones)
``targets/<sha256>.<name>``      the files, named by content

So every change is: files, then metadata with new numbers, then the timestamp. A death in between leaves files
that nothing names; the next change uses numbers behind theirs. The one thing that is visible by itself is a
new root: `install_root` says how it is brought in.

All writing goes through `Files`, so that a test can stop at each operation.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from daemon_core.updates.files import Files, try_lock
from releasing.errors import KeyMissingError, ReleaseError
from releasing.keys import KeyRing

ROLES: Final = ("root", "targets", "snapshot", "timestamp")
OFFLINE: Final = ("root", "targets")
ONLINE: Final = ("snapshot", "timestamp")
SIGNED_AT: Final = "x-signed-at"
"""A field of ours in everything signed: lets a clock that is behind be noticed."""
CLOCK_SLACK: Final = dt.timedelta(hours=1)
Clock = Callable[[], dt.datetime]
SomeT = TypeVar("SomeT", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Days until a role expires, counted from its signing. Shorter notices a frozen mirror sooner, longer
    forgives whoever has to sign again.

    Attributes:
        root: Signed on a key ceremony; a year forces one before people and media are forgotten.
        targets: Signed with offline keys at each release, and once a month where there is none.
        snapshot: Signed by a machine with the timestamp; a week survives a long weekend of that machine.
        timestamp: How long an attacker who serves old files goes unnoticed. Two days with a daily job: one
        run may
            fail. At least one, at most three.
    """

    root: int = 365
    targets: int = 30
    snapshot: int = 7
    timestamp: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.timestamp <= 3:
            raise ReleaseError(
                "the timestamp lives from 1 to 3 days: longer and a frozen mirror goes unnoticed"
            )
        if not self.timestamp <= self.snapshot <= self.targets <= self.root:
            raise ReleaseError(
                "no role may live longer than the one above it (root, targets, snapshot, timestamp)"
            )

    def of(self, role: str) -> dt.timedelta:
        return dt.timedelta(days=int(getattr(self, role)))


@dataclass(slots=True)
class State:
    """What clients see."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    troubles: list[str] = field(default_factory=list)
    """What is wrong with it and can be signed away."""

    def signed(self, role: str) -> Signed:
        metadata: dict[str, Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]] = {
            "root": self.root,
            "targets": self.targets,
            "snapshot": self.snapshot,
            "timestamp": self.timestamp,
        }
        return metadata[role].signed


class Repository:
    """One repository.

    Args:
        directory: Where it is, or will be.
        clock: Gives the time in UTC.
    """

    def __init__(
        self,
        directory: Path,
        *,
        files: Files | None = None,
        clock: Clock | None = None,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self.directory = directory
        self.metadata = directory / "metadata"
        self.targets = directory / "targets"
        self.files = files or Files()
        self.lifetimes = lifetimes or Lifetimes()
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))

    def now(self) -> dt.datetime:
        return self._clock().replace(microsecond=0)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among release tools.

        Raises:
            ReleaseError: Another one is at work.
        """
        if not self.directory.is_dir():
            raise ReleaseError(f"there is no {self.directory} (make a repository: release init)")
        lock = try_lock(str(self.directory / ".release.lock"))
        if lock is None:
            raise ReleaseError(f"another release tool is at work in {self.directory}")
        with lock:
            self._tidy()
            yield

    # --- reading -------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return (self.metadata / "timestamp.json").exists() or (self.metadata / "1.root.json").exists()

    def state(self) -> State:
        """What clients see, verified as they do (but for expiry).

        Raises:
            ReleaseError: There is no repository, or a part of it is missing or damaged.
        """
        root = self.root()
        troubles: list[str] = []
        timestamp = self._load("timestamp.json", Timestamp)
        snapshot = self._load(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
        targets = self._load(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        for role, metadata in (("timestamp", timestamp), ("snapshot", snapshot), ("targets", targets)):
            try:
                root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError:
                troubles.append(f"{role} is not signed by the keys of the root (run: release resign)")
        return State(root, targets, snapshot, timestamp, troubles)

    def root(self) -> Metadata[Root]:
        """The newest root, by the chain that clients follow.

        Raises:
            ReleaseError: There is none, or the chain is broken.
        """
        if not self.metadata.is_dir():
            raise ReleaseError(f"{self.directory} has no repository (make one: release init)")
        numbers = self._numbers("root")
        if not numbers:
            raise ReleaseError(f"{self.metadata} has no root: half copied, or another directory")
        if numbers != list(range(1, len(numbers) + 1)):
            raise ReleaseError(
                f"{self.metadata} lacks roots: there are {numbers}; copy the others from a back-up"
            )
        root = self._load("1.root.json", Root)
        for number in numbers[1:]:
            following = self._load(f"{number}.root.json", Root)
            try:
                root.verify_delegate("root", following)
                following.verify_delegate("root", following)
            except RepositoryError as error:
                raise ReleaseError(
                    f"{number}.root.json does not follow from the one before: {error}"
                ) from error
            root = following
        return root

    def _load(self, name: str, kind: type[SomeT]) -> Metadata[SomeT]:
        try:
            metadata: Metadata[SomeT] = Metadata.from_bytes(self.files.read(str(self.metadata / name)))
        except FileNotFoundError as error:
            raise ReleaseError(f"{name} is missing in {self.metadata}: half copied, or lost") from error
        except (DeserializationError, RepositoryError) as error:
            raise ReleaseError(f"{self.metadata / name} is damaged: {error}") from error
        if not isinstance(metadata.signed, kind):
            raise ReleaseError(f"{self.metadata / name} is no {kind.type}")
        return metadata

    def _numbers(self, role: str) -> list[int]:
        matches = (
            re.fullmatch(rf"(\d+)\.{role}\.json", name) for name in self.files.names(str(self.metadata))
        )
        return sorted(int(match[1]) for match in matches if match is not None)

    def target_path(self, target: TargetFile) -> Path:
        """Where the file of a target is."""
        return self.targets / f"{target.hashes['sha256']}.{target.path}"

    # --- signing -------------------------------------------------------------------------------------------

    def signers(self, root: Root, role: str, ring: KeyRing) -> list[Signer]:
        """Everybody at hand who signs for a role.

        Raises:
            KeyMissingError: They are fewer than the threshold.
        """
        entry = root.roles[role]
        here = [keyid for keyid in entry.keyids if ring.has(keyid)]
        if len(here) < entry.threshold:
            missing = ", ".join(keyid[:12] for keyid in entry.keyids if keyid not in here)
            raise KeyMissingError(
                f"{role} needs {entry.threshold} of {len(entry.keyids)} keys, {len(here)} at hand; "
                f"missing: {missing} (name where they are with --keys)"
            )
        return [ring.signer(keyid) for keyid in here]

    def expires(self, role: str, before: Signed | None = None) -> dt.datetime:
        """When something that is signed now expires.

        Args:
            before: What is there now.

        Raises:
            ReleaseError: That was signed later than now: this machine's clock is behind.
        """
        now = self.now()
        signed_at = str(before.unrecognized_fields.get(SIGNED_AT, "")) if before is not None else ""
        if signed_at and dt.datetime.fromisoformat(signed_at) > now + CLOCK_SLACK:
            raise ReleaseError(
                f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC, but {role} was signed at "
                f"{signed_at}: "
                "set the clock"
            )
        return now + self.lifetimes.of(role)

    def _signed(self, signed: SomeT, signers: list[Signer]) -> bytes:
        metadata = Metadata(deepcopy(signed))
        metadata.signed.unrecognized_fields[SIGNED_AT] = self.now().isoformat()
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    # --- writing -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the directories."""
        for path in (self.directory, self.metadata, self.targets):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files.make_directory(str(path))
            os.chmod(path, 0o755)  # a web server's user reads them

    def put_target(self, source: Path, target: TargetFile) -> None:
        """Bring a file in, whole or not at all. One that is there already is kept if it is the same.

        Raises:
            ReleaseError: The file is not what it was when it was looked at.
        """
        place = self.target_path(target)
        if place.exists() and self._is(place, target):
            return
        temporary = self.targets / f".{place.name}.part"
        if temporary.exists():
            self.files.unlink(str(temporary))
        self.files.copy(str(source), str(temporary), 0o644)
        if not self._is(temporary, target):
            self.files.unlink(str(temporary))
            raise ReleaseError(f"{source} has changed while it was copied")
        self.files.sync(str(temporary))
        self.files.replace(str(temporary), str(place))

    def commit(
        self,
        state: State,
        ring: KeyRing,
        *,
        targets: Targets | None = None,
        snapshot: bool = False,
        also: dict[str, list[Signer]] | None = None,
    ) -> None:
        """Make a new state visible: what is given and all below it is signed anew.

        Args:
            targets: The new targets; version and expiry are set here.
            snapshot: Sign the snapshot anew although the targets are the same.
            also: Further signers by role, for a change of keys.

        Raises:
            ReleaseError: A key is missing, the clock is wrong. Nothing was written.
            OSError: The disk is full. Clients see the old state.
        """
        root, more = state.root.signed, also or {}
        signers = {
            role: [*self.signers(root, role, ring), *more.get(role, [])]
            for role in (
                "timestamp",
                *(["snapshot"] if snapshot or targets else []),
                *(["targets"] if targets else []),
            )
        }
        fresh: list[tuple[str, bytes]] = []
        new_snapshot, new_timestamp = deepcopy(state.snapshot.signed), deepcopy(state.timestamp.signed)
        if targets is not None:
            targets.version = max([state.targets.signed.version, *self._numbers("targets")]) + 1
            targets.expires = self.expires("targets", state.targets.signed)
            data = self._signed(targets, signers["targets"])
            fresh.append((f"{targets.version}.targets.json", data))
            new_snapshot.meta["targets.json"] = MetaFile.from_data(targets.version, data, ["sha256"])
        if targets is not None or snapshot:
            new_snapshot.version = max([state.snapshot.signed.version, *self._numbers("snapshot")]) + 1
            new_snapshot.expires = self.expires("snapshot", state.snapshot.signed)
            data = self._signed(new_snapshot, signers["snapshot"])
            fresh.append((f"{new_snapshot.version}.snapshot.json", data))
            new_timestamp.snapshot_meta = MetaFile.from_data(new_snapshot.version, data, ["sha256"])
        new_timestamp.version = state.timestamp.signed.version + 1
        new_timestamp.expires = self.expires("timestamp", state.timestamp.signed)
        last = self._signed(new_timestamp, signers["timestamp"])

        self.files.sync_directory(str(self.targets))
        for name, data in fresh:
            self._put(name, data)
        if fresh:
            self.files.sync_directory(str(self.metadata))
        self._put("timestamp.json", last)
        self.files.sync_directory(str(self.metadata))

    def install_root(self, root: Root, signers: list[Signer]) -> None:
        """Bring a new root in. It counts from the moment its file is there, so what is signed for the other
        roles has to be valid under it already (and still under the one before, until then)."""
        data = self._signed(root, signers)
        self._put(f"{root.version}.root.json", data)
        self.files.sync_directory(str(self.metadata))
        self._put("root.json", data)
        self.files.sync_directory(str(self.metadata))

    def first(self, root: Root, ring: KeyRing) -> None:
        """The first state of all: no targets yet."""
        targets = Targets(version=1, expires=self.expires("targets"))
        snapshot = Snapshot(version=1, expires=self.expires("snapshot"))
        timestamp = Timestamp(version=1, expires=self.expires("timestamp"))
        targets_data = self._signed(targets, self.signers(root, "targets", ring))
        snapshot.meta["targets.json"] = MetaFile.from_data(1, targets_data, ["sha256"])
        snapshot_data = self._signed(snapshot, self.signers(root, "snapshot", ring))
        timestamp.snapshot_meta = MetaFile.from_data(1, snapshot_data, ["sha256"])
        self.begin()
        self._put("1.targets.json", targets_data)
        self._put("1.snapshot.json", snapshot_data)
        self._put("timestamp.json", self._signed(timestamp, self.signers(root, "timestamp", ring)))
        self.install_root(root, self.signers(root, "root", ring))

    def _put(self, name: str, data: bytes) -> None:
        path = str(self.metadata / name)
        temporary = str(self.metadata / f".{name}.part")
        if self.files.facts(temporary) is not None:
            self.files.unlink(temporary)
        self.files.create(temporary, data, 0o644)
        self.files.sync(temporary)
        self.files.replace(temporary, path)

    def _is(self, path: Path, target: TargetFile) -> bool:
        with open(path, "rb") as file:
            try:
                target.verify_length_and_hashes(file)
            except RepositoryError:
                return False
        return True

    def _tidy(self) -> None:
        """Take away what a death left behind."""
        for place in (self.metadata, self.targets):
            for name in self.files.names(str(place)):
                if name.startswith(".") and name.endswith(".part"):
                    self.files.unlink(str(place / name))


def words(error: OSError) -> str:
    """An error of the system for whoever releases."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename}); what clients see has not changed"
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)
