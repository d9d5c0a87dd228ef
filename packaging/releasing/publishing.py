"""What changes what clients are offered: publish, fraction, withdraw.

All of a change is looked at before anything is written; then files, then metadata, the timestamp last.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import TargetFile, Targets

from daemon_core.updates.pointer import is_newer, is_version, version_key
from releasing import archives, deltas
from releasing.archives import Package
from releasing.errors import ReleaseError
from releasing.keys import KeyRing
from releasing.repository import Repository, State

KEPT_VERSIONS: Final = 5
"""Of each platform: enough for the one before and for a look back; every client reads the whole list."""
DELTAS_FROM: Final = 3
"""How many versions before get a delta; who is further behind takes the full package."""
DELTA_WORTH: Final = 0.6
"""Of the full package's size; a larger delta saves too little for another thing that can go wrong."""
SPARE_BYTES: Final = 64 << 20
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Offered:
    """One published version on one platform."""

    version: str
    platform: str
    fraction: float
    withdrawn: bool
    released_at: str
    bytes: int
    deltas_from: tuple[str, ...]


def publish(
    repository: Repository,
    ring: KeyRing,
    version: str,
    found: Iterable[Path],
    notes: Mapping[str, list[str]],
    *,
    fraction: float = 1.0,
    deltas_from: int = DELTAS_FROM,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> None:
    """Offer a version.

    Args:
        found: Its full packages, one a platform.
        fraction: The share of installations that is offered it by itself.

    Raises:
        ReleaseError: Something is not as it has to be. Clients see what they saw before.
        OSError: The disk is full or refuses. The same.
    """
    _check_fraction(fraction)
    if not is_version(version):
        raise ReleaseError(f"{version!r} is no version")
    state = repository.state()
    for role in ("targets", "snapshot", "timestamp"):  # before minutes of work
        repository.signers(state.root.signed, role, ring)
    chosen = _archives(version, found)
    targets = deepcopy(state.targets.signed)
    for archive in chosen:
        named = archives.NAME.fullmatch(archive.name)
        assert named is not None
        _check_order(version, named["platform"], targets)
    with tempfile.TemporaryDirectory(prefix="ostler-release-") as work_name:
        work = Path(work_name)
        fresh: list[tuple[Path, TargetFile]] = []
        for number, archive in enumerate(chosen):
            say(f"looking through {archive.name}")
            package = archives.opened(archive, _made(work / f"new-{number}"))
            _check_journal(package, targets)
            about = {
                "version": version,
                "platform": package.platform,
                "fraction": _as_text(fraction),
                "withdrawn": False,
                "notes": dict(notes),
                "payload_sha256": package.payload_sha256,
                "unpacked_bytes": package.unpacked_bytes,
                "journal": package.journal,
                "released_at": repository.now().isoformat().replace("+00:00", "Z"),
            }
            full = _target(archive, {**about, "kind": "full"})
            fresh.append((archive, full))
            made = _deltas(
                repository, targets, package, full.length, deltas_from, work / f"deltas-{number}", say
            )
            fresh += [(path, _target(path, {**about, "kind": "delta", "from": old})) for old, path in made]
            _forget_old(targets, package, say)
        for _path, target in fresh:
            targets.targets[target.path] = target
        _check_space(repository, fresh)
        if dry_run:
            for path, target in fresh:
                say(f"would publish {target.path} ({path.stat().st_size / 1e6:.1f} MB)")
            return
        for path, target in fresh:
            repository.put_target(path, target)
            say(f"published {target.path} ({target.length / 1e6:.1f} MB)")
        repository.commit(state, ring, targets=targets)


def set_fraction(
    repository: Repository, ring: KeyRing, version: str, fraction: float, *, dry_run: bool = False
) -> None:
    """Offer a published version to another share of the installations.

    Raises:
        ReleaseError: There is no such version, or it is withdrawn.
    """
    _check_fraction(fraction)

    def change(custom: dict[str, Any]) -> None:
        if custom["withdrawn"]:
            raise ReleaseError(f"{version} is withdrawn: publish a higher version instead")
        custom["fraction"] = _as_text(fraction)

    _change(repository, ring, version, change, dry_run=dry_run)


def withdraw(repository: Repository, ring: KeyRing, version: str, *, dry_run: bool = False) -> None:
    """Offer a version to nobody any more. Installations that run it are not touched: they get the next one.

    Raises:
        ReleaseError: There is no such version, or it is withdrawn already.
    """

    def change(custom: dict[str, Any]) -> None:
        if custom["withdrawn"]:
            raise ReleaseError(f"{version} is withdrawn already")
        custom["withdrawn"] = True

    _change(repository, ring, version, change, dry_run=dry_run)


def offered(state: State) -> list[Offered]:
    """What is published, newest first."""
    targets = state.targets.signed.targets.values()
    starts: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        about = target.custom or {}
        if about.get("kind") == "delta":
            starts.setdefault((about["version"], about["platform"]), []).append(about["from"])
    found = [
        Offered(
            version=about["version"],
            platform=about["platform"],
            fraction=float(about["fraction"]),
            withdrawn=bool(about["withdrawn"]),
            released_at=about["released_at"],
            bytes=target.length,
            deltas_from=tuple(sorted(starts.get((about["version"], about["platform"]), []), key=version_key)),
        )
        for target in targets
        if (about := target.custom or {}).get("kind") == "full"
    ]
    return sorted(found, key=lambda each: (version_key(each.version), each.platform), reverse=True)


def prune(repository: Repository, days: float, *, dry_run: bool = False) -> list[str]:
    """Remove files and signed lists that nothing names and that were written longer ago than ``days``: who is
    in the middle of a download keeps it. Roots stay, clients follow their chain. Gives the names."""
    state = repository.state()
    wanted = {repository.target_path(target).name for target in state.targets.signed.targets.values()}
    present = {f"{state.signed(role).version}.{role}.json" for role in ("snapshot", "targets")}
    horizon = repository.now().timestamp() - days * 86_400
    unnamed = [
        repository.targets / name
        for name in repository.files.names(str(repository.targets))
        if name not in wanted
    ]
    unnamed += [
        repository.metadata / name
        for name in repository.files.names(str(repository.metadata))
        if name.endswith((".snapshot.json", ".targets.json")) and name not in present
    ]
    gone = [path for path in unnamed if path.stat().st_mtime < horizon]
    if not dry_run:
        for path in gone:
            repository.files.unlink(str(path))
    return [path.name for path in gone]


def _change(
    repository: Repository,
    ring: KeyRing,
    version: str,
    change: Callable[[dict[str, Any]], None],
    *,
    dry_run: bool,
) -> None:
    state = repository.state()
    targets = deepcopy(state.targets.signed)
    touched = 0
    for target in targets.targets.values():
        about = target.custom
        if about is not None and about.get("version") == version:
            change(about)
            touched += 1
    if not touched:
        known = ", ".join(sorted({each.version for each in offered(state)}, key=version_key)) or "none"
        raise ReleaseError(f"{version} is not published here (published: {known})")
    for role in ("targets", "snapshot", "timestamp"):
        repository.signers(state.root.signed, role, ring)
    if not dry_run:
        repository.commit(state, ring, targets=targets)


def _archives(version: str, found: Iterable[Path]) -> list[Path]:
    chosen = [
        path
        for path in sorted(found)
        if (named := archives.NAME.fullmatch(path.name)) is not None and named["version"] == version
    ]
    if not chosen:
        raise ReleaseError(f"there is no ostler-{version}-<platform>.tar.xz (make it: release build)")
    return chosen


def _check_order(version: str, platform: str, targets: Targets) -> None:
    """A version comes after all that are there: clients never go back, so a lower one would reach nobody."""
    for about in _full(targets, platform):
        if about["version"] == version:
            raise ReleaseError(
                f"{version} is published already for {platform}: what is out never changes, take the "
                "next number"
            )
        if is_newer(about["version"], version):
            raise ReleaseError(
                f"{about['version']} is published already and is newer than {version}: clients never go back"
            )


def _check_journal(package: Package, targets: Targets) -> None:
    """A version can read what those before it wrote."""
    for about in _full(targets, package.platform):
        if not about["withdrawn"] and int(about.get("journal") or 0) > package.journal:
            raise ReleaseError(
                f"{package.version} knows {package.journal} steps of the journal, {about['version']} "
                f"{about['journal']}: it could not read what that one wrote"
            )


def _full(targets: Targets, platform: str) -> list[dict[str, Any]]:
    found = [target.custom or {} for target in targets.targets.values()]
    return [about for about in found if (about.get("kind"), about.get("platform")) == ("full", platform)]


def _deltas(
    repository: Repository,
    targets: Targets,
    package: Package,
    full_bytes: int,
    count: int,
    work: Path,
    say: Say,
) -> list[tuple[str, Path]]:
    """Deltas from the newest versions that are published, as far as they are worth it."""
    before = sorted(
        (
            target
            for target in targets.targets.values()
            if (about := target.custom or {}).get("kind") == "full"
            and about["platform"] == package.platform
            and not about["withdrawn"]
        ),
        key=lambda target: version_key((target.custom or {})["version"]),
        reverse=True,
    )[:count]
    made: list[tuple[str, Path]] = []
    for target in before:
        version = (target.custom or {})["version"]
        source = repository.target_path(target)
        if not source.exists():
            raise ReleaseError(
                f"{source.name} ({target.path}) is missing in {repository.targets}: half copied?"
            )
        named = _made(work / version) / target.path
        named.symlink_to(source.resolve())
        old = archives.opened(named, _made(work / version / "payload"))
        path = work / archives.delta_name(version, package.version, package.platform)
        result = deltas.make(old.payload, package.payload, path)
        if result.size <= full_bytes * DELTA_WORTH:
            made.append((version, path))
            say(f"a delta from {version}: {result.size / 1e6:.2f} MB of {full_bytes / 1e6:.1f} MB")
        else:
            say(f"no delta from {version}: it would have {result.size / 1e6:.1f} MB")
        shutil.rmtree(work / version)
    return made


def _forget_old(targets: Targets, package: Package, say: Say) -> None:
    """Keep the newest versions of a platform, and the deltas that lead to the newest ones."""
    versions = sorted(
        {
            about["version"]
            for target in targets.targets.values()
            if (about := target.custom or {}).get("platform") == package.platform
        },
        key=version_key,
        reverse=True,
    )
    kept = set(versions[: KEPT_VERSIONS - 1])
    with_deltas = set(versions[:1])  # the one before: who is not in the new one's share yet takes that
    for path, target in list(targets.targets.items()):
        about = target.custom or {}
        if about.get("platform") != package.platform:
            continue
        wanted = with_deltas if about.get("kind") == "delta" else kept
        if about["version"] not in wanted:
            del targets.targets[path]
            say(f"no longer listed: {path}")


def _check_space(repository: Repository, fresh: list[tuple[Path, TargetFile]]) -> None:
    needed = sum(target.length for _path, target in fresh) + SPARE_BYTES
    free = shutil.disk_usage(repository.targets).free
    if free < needed:
        raise ReleaseError(
            f"{repository.targets} has room for {free / 1e6:.0f} MB, {needed / 1e6:.0f} MB are needed: "
            "nothing was written (release prune frees what nobody needs)"
        )


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ReleaseError(f"a fraction is from 0 to 1, not {fraction}")


def _as_text(fraction: float) -> str:
    """What is signed is canonical JSON, which has no fractions: a decimal number as text."""
    return f"{fraction:.6f}".rstrip("0").rstrip(".")


def _target(path: Path, custom: dict[str, Any]) -> TargetFile:
    target = TargetFile.from_file(path.name, str(path), ["sha256"])
    target.unrecognized_fields["custom"] = custom
    return target


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory
