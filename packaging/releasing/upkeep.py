"""What has to be done although nothing is released: making the repository, signing again, changing keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import Root

from releasing.errors import KeyMissingError, ReleaseError
from releasing.keys import KeyRing
from releasing.repository import OFFLINE, ONLINE, ROLES, Repository, State

WARN_DAYS: Final = {"root": 45, "targets": 10, "snapshot": 3, "timestamp": 0.75}
"""From then on somebody is told: enough time to fetch offline keys; for the online ones, to look at the
machine."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a role expires.

    Attributes:
        soon: It has to be signed within its time of warning, or is too late already.
    """

    role: str
    version: int
    expires: dt.datetime
    left: dt.timedelta
    soon: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """How many keys a role has, and how many have to sign."""

    keys: int
    threshold: int


DEFAULT_SHAPES: Final[Mapping[str, Shape]] = {
    "root": Shape(3, 2),
    "targets": Shape(3, 2),
    "snapshot": Shape(1, 1),
    "timestamp": Shape(1, 1),
}


def init(
    repository: Repository,
    ring: KeyRing,
    places: Mapping[str, Path],
    shapes: Mapping[str, Shape] = DEFAULT_SHAPES,
    *,
    unprotected_online: bool = False,
) -> None:
    """Make keys and the first state of a repository.

    Args:
        places: Where the keys of each role go.
        unprotected_online: The keys of snapshot and timestamp get no passphrase: for a machine that has
        nobody to
            type one and keeps the files by other means.

    Raises:
        ReleaseError: There are keys or a repository already.
    """
    if repository.exists():
        raise ReleaseError(f"{repository.directory} has a repository already")
    for role, shape in shapes.items():
        if not 1 <= shape.threshold <= shape.keys:
            raise ReleaseError(f"{role} cannot have {shape.threshold} of {shape.keys} keys sign")
        if sorted(places[role].glob(f"{role}-*.*")):
            raise ReleaseError(f"{places[role]} has keys of {role} already: they are never written over")
    root = Root(version=1, expires=repository.expires("root"), consistent_snapshot=True)
    for role in ROLES:
        shape = shapes[role]
        for _number in range(shape.keys):
            signer = ring.make(role, places[role], protected=role in OFFLINE or not unprotected_online)
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = shape.threshold
    repository.first(root, ring)


def dues(repository: Repository, state: State) -> list[Due]:
    """When each role expires."""
    now = repository.now()
    found: list[Due] = []
    for role in ROLES:
        signed = state.signed(role)
        left = signed.expires - now
        found.append(
            Due(role, signed.version, signed.expires, left, left < dt.timedelta(days=WARN_DAYS[role]))
        )
    return found


def resign(
    repository: Repository, ring: KeyRing, roles: tuple[str, ...] = (), *, dry_run: bool = False
) -> tuple[list[str], list[str]]:
    """Sign again, so that nothing expires. Meant to be run daily by a machine that has the online keys.

    Args:
        roles: What to sign; empty: snapshot and timestamp, and of the others what is due and has its keys
        here.

    Returns:
        The roles that were signed, and what could not be and is due: then somebody has to bring keys.

    Raises:
        KeyMissingError: A role that was asked for, or the timestamp, has not enough keys here.
    """
    state = repository.state()
    due = {each.role for each in dues(repository, state) if each.soon}
    due |= {trouble.partition(" ")[0] for trouble in state.troubles}
    wanted = list(roles) or [role for role in ROLES if role in ONLINE or role in due]
    for role in wanted:
        if role not in ROLES:
            raise ReleaseError(f"there is no role {role!r} (there are: {', '.join(ROLES)})")
    cannot: list[str] = []
    for role in list(wanted):
        try:
            repository.signers(state.root.signed, role, ring)
        except KeyMissingError as error:
            if roles or role in ONLINE:
                raise
            wanted.remove(role)
            cannot.append(f"{role} expires {state.signed(role).expires:%Y-%m-%d}: {error}")
    if dry_run:
        return wanted, cannot
    if "root" in wanted:
        root = deepcopy(state.root.signed)
        root.version += 1
        root.expires = repository.expires("root", root)
        repository.install_root(root, repository.signers(root, "root", ring))
        state = repository.state()
    targets = deepcopy(state.targets.signed) if "targets" in wanted else None
    repository.commit(state, ring, targets=targets, snapshot="snapshot" in wanted)
    return [role for role in ROLES if role in wanted or role == "timestamp"], cannot


def rotate_key(
    repository: Repository,
    ring: KeyRing,
    role: str,
    old: str,
    place: Path,
    *,
    protected: bool = True,
    dry_run: bool = False,
) -> str:
    """Replace one key of a role by a new one; gives the new one's name.

    First everything is signed by the old and the new keys together, then the new root comes in: clients that
    have either root accept what they find at every moment. Only if the old key is lost, and the threshold
    cannot be met without it, there is a moment between the two in which clients refuse (and try again later).

    Args:
        old: Name or id of the key to be replaced.
        place: Where the new key goes.

    Raises:
        KeyMissingError: Root cannot be signed with what is here.
        ReleaseError: The role has no such key.
    """
    state = repository.state()
    root = deepcopy(state.root.signed)
    keyid = _keyid(root, ring, role, old)
    old_root_signers = repository.signers(state.root.signed, "root", ring)
    if dry_run:
        return ""
    fresh = ring.make(role, place, protected=protected)
    threshold = root.roles[role].threshold
    root.revoke_key(keyid, role)
    root.add_key(fresh.public_key, role)
    root.roles[role].threshold = threshold
    root.version += 1
    root.expires = repository.expires("root", root)
    if role == "root":
        signers = {each.public_key.keyid: each for each in old_root_signers}
        signers[fresh.public_key.keyid] = fresh
        repository.install_root(root, list(signers.values()))
    else:
        # Who has the old root and who has the new one are both to accept what is there when the root comes
        # in.
        _sign_for_both(repository, state, ring, role, fresh)
        repository.install_root(root, old_root_signers)
        if repository.state().troubles:  # the old key was lost: mended from here on
            _sign_again(repository, ring, role)
    return ring.names([fresh.public_key.keyid])[fresh.public_key.keyid]


def _sign_for_both(repository: Repository, state: State, ring: KeyRing, role: str, fresh: Signer) -> None:
    also: dict[str, list[Signer]] = {role: [fresh]}
    try:
        repository.signers(state.root.signed, role, ring)
    except KeyMissingError:
        return  # lost: nothing can be valid under both
    try:
        repository.commit(
            state,
            ring,
            targets=deepcopy(state.targets.signed) if role == "targets" else None,
            snapshot=role == "snapshot",
            also=also,
        )
    except KeyMissingError as error:
        raise KeyMissingError(f"what the changed role leads to has to be signed, too: {error}") from error


def _sign_again(repository: Repository, ring: KeyRing, role: str) -> None:
    state = repository.state()
    targets = deepcopy(state.targets.signed) if role == "targets" else None
    repository.commit(state, ring, targets=targets, snapshot=role == "snapshot")


def _keyid(root: Root, ring: KeyRing, role: str, old: str) -> str:
    if role not in ROLES:
        raise ReleaseError(f"there is no role {role!r} (there are: {', '.join(ROLES)})")
    names = ring.names(root.roles[role].keyids)
    fitting = [
        keyid for keyid, name in names.items() if old == name or (len(old) >= 8 and keyid.startswith(old))
    ]
    if len(fitting) != 1:
        known = ", ".join(f"{name} ({keyid[:12]})" for keyid, name in names.items())
        raise ReleaseError(f"{role} has no key {old!r}; it has: {known}")
    return fitting[0]
