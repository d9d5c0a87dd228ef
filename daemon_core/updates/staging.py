"""From what was fetched to a version that is here whole: unpacked, held against its manifest, synced,
renamed.

The archive has the right sum by now, and is believed nothing all the same: its names stay below the
directory, links lead nowhere else, there are no devices, nothing is larger than was signed. Nothing of it is
executed. Everything here blocks and is meant for a thread; ``cancel`` ends it between two pieces.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon_core.updates import delta
from daemon_core.updates.delta import DeltaError, Entry
from daemon_core.updates.download import of_system
from daemon_core.updates.offers import ProblemError
from daemon_core.updates.versions import MANIFEST, PAYLOAD, Store, payload_version

CHUNK_BYTES: Final = 1 << 20
ENTRIES_LIMIT: Final = 50_000
UNPACKED_LIMIT_BYTES: Final = 2 << 30
"""Where nothing was signed about the size."""
MANIFEST_LIMIT_BYTES: Final = 16 << 20
SLACK: Final = 1.1
"""Files take whole blocks: somewhat more than their sizes together."""


class CancelledStagingError(Exception):
    """Whoever asked does not want it any more."""


def check_space(path: Path, needed_bytes: int, floor_bytes: int) -> None:
    """That there is room, before anything is fetched.

    Raises:
        ProblemError: ``disk_full`` with what is missing.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        raise of_system(error, place) from error
    # On a small disk a quarter of it is floor enough.
    floor = min(floor_bytes, usage.total // 4)
    if usage.free < needed_bytes + floor:
        raise ProblemError("disk_full", path=str(place), needed=needed_bytes + floor, free=usage.free)


def stage(
    store: Store,
    archive: Path,
    version: str,
    *,
    platform: str,
    manifest_sha256: str,
    unpacked_bytes: int,
    from_dir: Path | None = None,
    cancel: threading.Event | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Put a version in place.

    Args:
        archive: The full package, or with ``from_dir`` a delta that leads from the version there.
        manifest_sha256: What its manifest must hash to; empty: not signed.
        unpacked_bytes: What it takes; 0: not signed.
        progress: Called with bytes written; from this thread.

    Raises:
        ProblemError: It is not what it should be, or the disk refuses.
        DeltaError: The delta does not fit; the full package will.
        CancelledStagingError: ``cancel`` was set.
    """
    cancel = cancel or threading.Event()
    limit_bytes = int(unpacked_bytes * SLACK) if unpacked_bytes else UNPACKED_LIMIT_BYTES
    try:
        with store.staging() as staging:
            place = Path(staging.path)
            if from_dir is not None:
                delta.apply(
                    from_dir,
                    archive,
                    place,
                    manifest_sha256=manifest_sha256 or None,
                    limit_bytes=limit_bytes,
                )
            else:
                unpack(archive, place, f"ostler-{version}", limit_bytes, cancel=cancel, progress=progress)
            verify(place, version, platform, manifest_sha256, cancel=cancel)
            sync(place)
            staging.publish(version)
    except OSError as error:
        raise of_system(error, Path(store.app_dir)) from error


# --- unpacking --------------------------------------------------------------------------------------------


def unpack(
    archive: Path,
    place: Path,
    top: str,
    limit_bytes: int,
    *,
    cancel: threading.Event | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Unpack what is below ``top`` in an archive (tar, xz) into an empty directory.

    Raises:
        ProblemError: ``archive_damaged``, ``archive_unsafe``, ``too_large``.
        OSError: The disk refuses.
    """
    cancel = cancel or threading.Event()
    written = 0
    links: list[tuple[str, str]] = []
    try:
        with tarfile.open(archive, "r|xz") as tar:
            for count, member in enumerate(tar, 1):
                if cancel.is_set():
                    raise CancelledStagingError
                if count > ENTRIES_LIMIT:
                    raise ProblemError("archive_unsafe", lasting=True, detail="too many entries")
                name = _name(member, top)
                if name is None:
                    continue
                if member.issym():
                    _check_link(name, member.linkname)
                    links.append((name, member.linkname))
                elif member.isdir():
                    os.makedirs(place / name, mode=0o755, exist_ok=True)
                elif member.isreg():
                    written += member.size
                    if written > limit_bytes:
                        raise ProblemError("too_large", lasting=True, size=written, limit=limit_bytes)
                    _write(tar, member, place / name, cancel)
                    progress(written)
                else:
                    raise ProblemError("archive_unsafe", lasting=True, name=member.name[:200])
            _expect_end(tar)
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise ProblemError("archive_damaged", lasting=True, detail=str(error)[:200]) from error
    # Last: so nothing was written through one.
    for name, target in links:
        _make_parents(place, name)
        try:
            os.symlink(target, place / name)
        except FileExistsError as error:
            raise ProblemError("archive_unsafe", lasting=True, name=name[:200]) from error


def _name(member: tarfile.TarInfo, top: str) -> str | None:
    """The place of a member below the directory; None for the directory itself."""
    plain = member.name.rstrip("/")
    if plain == top and member.isdir():
        return None
    beginning, _, name = plain.partition("/")
    if beginning != top:
        raise ProblemError("archive_unsafe", lasting=True, name=member.name[:200])
    try:
        if name != MANIFEST:
            delta.check_path(name)
    except DeltaError as error:
        raise ProblemError("archive_unsafe", lasting=True, name=member.name[:200]) from error
    return name


def _check_link(name: str, target: str) -> None:
    """A link is relative and stays within the payload."""
    depth = name.count("/")
    unsafe = not target or target.startswith("/") or "\\" in target or "\0" in target or ":" in target
    for piece in target.split("/"):
        depth += -1 if piece == ".." else 0 if piece in ("", ".") else 1
        unsafe = unsafe or depth < 0
    if unsafe:
        raise ProblemError("archive_unsafe", lasting=True, name=name[:200])


def _make_parents(place: Path, name: str) -> None:
    try:
        (place / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ProblemError("archive_unsafe", lasting=True, name=name[:200]) from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, cancel: threading.Event) -> None:
    source = tar.extractfile(member)
    assert source is not None  # a regular file has content
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(path, "xb", buffering=0) as file:
            while piece := source.read(CHUNK_BYTES):
                if cancel.is_set():
                    raise CancelledStagingError
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ProblemError("archive_unsafe", lasting=True, name=member.name[:200]) from error
    os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)


def _expect_end(tar: tarfile.TarFile) -> None:
    """Read to the end of the compressed stream, whose sum is checked there; a bomb behind the last file is
    not unpacked."""
    stream = tar.fileobj
    assert stream is not None
    behind = 0
    while piece := stream.read(tarfile.RECORDSIZE):
        behind += len(piece)
        if behind > 64 * tarfile.RECORDSIZE or any(piece):
            raise tarfile.ReadError("something follows the end")


# --- checking ---------------------------------------------------------------------------------------------


def verify(
    place: Path,
    version: str,
    platform: str,
    manifest_sha256: str,
    *,
    cancel: threading.Event | None = None,
) -> None:
    """That a directory is the payload of a version for this machine: exactly the files of its manifest, each
    with its sum and its mode.

    Raises:
        ProblemError: ``manifest``, ``wrong_version``.
        OSError: It cannot be read.
    """
    cancel = cancel or threading.Event()
    entries = _manifest(place, version, manifest_sha256)
    there = set(_names(place))
    for name in sorted(there ^ {*entries, MANIFEST}):
        raise ProblemError("manifest", lasting=True, name=name[:200])
    for name, entry in entries.items():
        if cancel.is_set():
            raise CancelledStagingError
        if not _is(place / name, entry):
            raise ProblemError("manifest", lasting=True, name=name[:200])
    about = _json(place / PAYLOAD)
    if payload_version(os.fspath(place)) != version or about.get("platform") != platform:
        said = f"{about.get('version')} for {about.get('platform')}"
        raise ProblemError("wrong_version", lasting=True, detail=said[:200])


def _manifest(place: Path, version: str, manifest_sha256: str) -> dict[str, Entry]:
    try:
        with open(place / MANIFEST, "rb") as file:
            data = file.read(MANIFEST_LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        raise ProblemError("manifest", lasting=True, name=MANIFEST) from error
    if manifest_sha256 and hashlib.sha256(data).hexdigest() != manifest_sha256:
        raise ProblemError("manifest", lasting=True, name=MANIFEST, detail="it has another sum than signed")
    try:
        entries = delta.read_manifest(data)
    except DeltaError as error:
        raise ProblemError("manifest", lasting=True, name=MANIFEST, detail=error.reason) from error
    said = _json(place / MANIFEST).get("version")
    if said != version:
        raise ProblemError("wrong_version", lasting=True, detail=str(said)[:200])
    return entries


def _names(place: Path) -> list[str]:
    """Everything below a directory that is no directory, links not followed."""
    found = []
    for directory, inner, files in os.walk(place):
        below = os.path.relpath(directory, place)
        # A link to a directory is listed as one, and not followed.
        links = [name for name in inner if os.path.islink(os.path.join(directory, name))]
        for name in (*files, *links):
            found.append(name if below == "." else f"{below}/{name}".replace(os.sep, "/"))
    return found


def _is(path: Path, entry: Entry) -> bool:
    facts = os.lstat(path)
    if entry.link is not None:
        return path.is_symlink() and os.readlink(path) == entry.link
    if path.is_symlink() or facts.st_size != entry.size:
        return False
    if sys.platform != "win32" and facts.st_mode & 0o7777 != entry.mode:
        return False
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest() == entry.sha256


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sync(place: Path) -> None:
    """Force a tree to the disk: files, then directories from the inside, the manifest's directory last."""
    for directory, _, files in os.walk(place, topdown=False):
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                _sync(path)
        if sys.platform != "win32":
            _sync(directory)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
