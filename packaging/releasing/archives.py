"""The full package of a version: its payload directory in a ``.tar.xz`` below ``ostler-<version>/``.

Packing gives the same bytes for the same payload. Opening checks everything that a client checks later, so
that what clients would refuse is never published.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from daemon_core.updates.delta import MANIFEST, DeltaError, Entry, read_manifest
from daemon_core.updates.pointer import is_version
from releasing.errors import ReleaseError

PAYLOAD: Final = "payload.json"
PRESET: Final = 6
NAME: Final = re.compile(
    r"ostler-(?P<version>[0-9][^-]*(?:-[^-]+)??)-(?P<platform>(?:linux|macos|windows)-\w+)\.tar\.xz"
)


@dataclass(frozen=True, slots=True)
class Package:
    """A full package that was opened and found whole.

    Attributes:
        payload: The unpacked payload directory.
        payload_sha256: Of its manifest, which names everything else.
    """

    archive: Path
    payload: Path
    version: str
    platform: str
    journal: int
    payload_sha256: str
    unpacked_bytes: int


def archive_name(version: str, platform: str) -> str:
    return f"ostler-{version}-{platform}.tar.xz"


def delta_name(before: str, version: str, platform: str) -> str:
    return f"ostler-{before}-to-{version}-{platform}.delta"


def pack(payload: Path, out_dir: Path, *, fast: bool = False) -> Path:
    """Make the full package of a payload directory.

    Args:
        fast: A large one, quickly.

    Raises:
        ReleaseError: The directory is no finished payload.
    """
    about = _about(payload)
    manifest = payload / MANIFEST
    entries = _entries(manifest)
    top = f"ostler-{about['version']}"
    out = out_dir / archive_name(about["version"], about["platform"])
    out_dir.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.part")
    with (
        lzma.open(partial, "wb", preset=0 if fast else PRESET) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for path, entry in {**entries, MANIFEST: Entry(manifest.stat().st_size)}.items():
            info = tarfile.TarInfo(f"{top}/{path}")
            if entry.link is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
                tar.addfile(info)
                continue
            info.size, info.mode = entry.size, entry.mode
            with open(payload / path, "rb") as file:
                if path != MANIFEST and _sha256(payload / path) != entry.sha256:
                    raise ReleaseError(f"{payload / path} is not what the manifest says: build again")
                tar.addfile(info, file)
    partial.replace(out)
    return out


def opened(archive: Path, into: Path) -> Package:
    """Unpack a full package into an empty directory and check all of it.

    Raises:
        ReleaseError: It is damaged, incomplete, or another version or platform than its name says.
    """
    named = NAME.fullmatch(archive.name)
    if named is None or not is_version(named["version"]):
        raise ReleaseError(f"{archive.name} is not called ostler-<version>-<platform>.tar.xz")
    top = f"ostler-{named['version']}"
    try:
        with tarfile.open(archive, "r:xz") as tar:
            tar.extractall(into, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ReleaseError(f"{archive} is damaged or half copied: {error}") from error
    payload = into / top
    if not payload.is_dir() or any(each.name != top for each in into.iterdir()):
        raise ReleaseError(f"{archive.name} does not hold {top}/ and nothing else")
    about = _about(payload)
    for name, wanted in (("version", named["version"]), ("platform", named["platform"])):
        if about[name] != wanted:
            raise ReleaseError(f"{archive.name} holds {name} {about[name]!r}, not {wanted!r}")
    size = check(payload)
    return Package(
        archive=archive,
        payload=payload,
        version=about["version"],
        platform=about["platform"],
        journal=int(about.get("journal") or 0),
        payload_sha256=_sha256(payload / MANIFEST),
        unpacked_bytes=size,
    )


def check(payload: Path) -> int:
    """That a payload directory is exactly what its manifest says; gives its size in bytes.

    Raises:
        ReleaseError: It is not.
    """
    entries = _entries(payload / MANIFEST)
    there = {
        path.relative_to(payload).as_posix()
        for path in payload.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    if surplus := there - set(entries) - {MANIFEST}:
        raise ReleaseError(f"{payload.name} has files that its manifest does not name: {sorted(surplus)[:3]}")
    if missing := set(entries) - there:
        raise ReleaseError(f"{payload.name} lacks files of its manifest: {sorted(missing)[:3]}")
    for path, entry in entries.items():
        place = payload / path
        if (entry.link is not None) != place.is_symlink():
            raise ReleaseError(f"{path} is not the kind of file that the manifest says")
        if entry.link is None and (place.stat().st_size != entry.size or _sha256(place) != entry.sha256):
            raise ReleaseError(f"{path} is not what the manifest says")
    return sum(entry.size for entry in entries.values()) + (payload / MANIFEST).stat().st_size


def _entries(manifest: Path) -> dict[str, Entry]:
    try:
        return read_manifest(manifest.read_bytes())
    except FileNotFoundError as error:
        raise ReleaseError(f"{manifest.parent} has no {MANIFEST}: it is not finished") from error
    except DeltaError as error:
        raise ReleaseError(f"{manifest}: {error.reason}") from error


def _about(payload: Path) -> dict[str, Any]:
    try:
        about = json.loads((payload / PAYLOAD).read_bytes())
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{payload / PAYLOAD} cannot be read: {error}") from error
    if not isinstance(about, dict) or not is_version(about.get("version")) or not about.get("platform"):
        raise ReleaseError(f"{payload / PAYLOAD} names no version and platform")
    return about


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
