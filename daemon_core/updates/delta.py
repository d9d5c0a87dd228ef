"""Deltas: the next version made from the one that is here and a small file.

A delta holds only what is not here yet: the new manifest, files that are new, and patches for large files
that changed. Everything else is copied from the version it starts from. Nothing is believed: every file of
the result is held against the new manifest while it is written, the manifest against what the caller was
promised, and it is written last, so a directory without it was never finished. Whatever does not fit ends in
a `DeltaError`, and the full package is taken.

The file is one xz stream::

    ostler-delta 1\\n
    <length of the header, decimal>\\n
    <header: JSON: "from", "to", "manifest_bytes", "parts": [{"path", "kind": "whole"|"patch", "old"}]>
    <the new manifest.json, as it is>
    <the parts, one after the other, each as long as the manifest says it becomes>

A patch is a row of steps, each ``>QQq`` (added, copied, moved) followed by its bytes: ``added`` bytes are
summed with as many of the old file (modulo 256, what bsdiff found to be alike), ``copied`` are taken as they
are, then the place in the old file moves on. It is over when the file has its size.

Applying reads the delta once from front to end and the old files where the patch says. Memory is bounded by
the chunk, the manifests and xz's dictionary, whatever the file claims. Blocking: for a thread or a child
process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from .errors import UpdateError

MAGIC: Final = b"ostler-delta 1\n"
MANIFEST: Final = "manifest.json"
CHUNK_BYTES: Final = 1 << 20
HEADER_LIMIT_BYTES: Final = 4 << 20
MANIFEST_LIMIT_BYTES: Final = 16 << 20
XZ_MEMORY_BYTES: Final = 80 << 20
"""What unpacking may take: xz's strongest usual setting needs 65 MiB; a stream that asks for more is
refused."""
UNPACKED_LIMIT_BYTES: Final = 2 << 30
_READING: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe in the place of a file is told by its kind, not waited for
    | getattr(os, "O_BINARY", 0)
)
STEP: Final = struct.Struct(">QQq")


class DeltaError(UpdateError):
    """This delta does not lead from that directory to the version it promises; take the full package.

    Attributes:
        reason: What did not fit, for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("delta_unusable", reason=reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a payload as its manifest has it; ``link`` set: a symbolic link, and the rest is empty."""

    size: int = 0
    sha256: str = ""
    mode: int = 0o644
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What the delta brings for one file; ``old`` is the file it is a patch of, empty: it is brought
    whole."""

    path: str
    old: str = ""


def apply(
    old_dir: Path,
    delta_file: Path,
    new_dir: Path,
    *,
    manifest_sha256: str | None = None,
    limit_bytes: int = UNPACKED_LIMIT_BYTES,
) -> None:
    """Make ``new_dir`` from ``old_dir`` and the delta.

    ``new_dir`` must not exist or be empty; after an error nothing of it is left. The files are written but
    not synced: whoever renames the directory into place syncs it first, as with a full package.

    Args:
        manifest_sha256: What the new manifest must hash to, where the caller knows it from a signed source.
        limit_bytes: The most that the new version may take.

    Raises:
        DeltaError: The delta is damaged, is for another version, or a file of ``old_dir`` is not what it was.
        OSError: The disk is full, or refuses.
    """
    new_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(new_dir.iterdir()):
        raise ValueError(f"{new_dir} is not empty")
    try:
        with open(delta_file, "rb") as raw:
            _apply(old_dir, _Unpacking(raw), new_dir, manifest_sha256, limit_bytes)
    except BaseException:
        shutil.rmtree(new_dir, ignore_errors=True)
        raise


def _apply(
    old_dir: Path, stream: _Unpacking, new_dir: Path, manifest_sha256: str | None, limit_bytes: int
) -> None:
    header = _read_header(stream)
    manifest_bytes = stream.exactly(_size(header.get("manifest_bytes"), MANIFEST_LIMIT_BYTES, "manifest"))
    if manifest_sha256 is not None and hashlib.sha256(manifest_bytes).hexdigest() != manifest_sha256:
        raise DeltaError("the new manifest is not the one that was promised")
    entries = read_manifest(manifest_bytes)
    if sum(entry.size for entry in entries.values()) > limit_bytes:
        raise DeltaError("the new version is larger than was promised")
    parts = _parts(header.get("parts"), entries)
    old_entries = _old_manifest(old_dir)

    for path in entries:
        (new_dir / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _copy_unchanged(old_dir, old_entries, new_dir, entries, {part.path for part in parts})
    for part in parts:
        entry = entries[part.path]
        if part.old:
            with _open_old(old_dir, part.old, old_entries) as old:
                _write(new_dir / part.path, entry, part.path, _patched(old, stream, entry.size))
        else:
            _write(new_dir / part.path, entry, part.path, stream.pieces(entry.size))
    stream.expect_end()
    for path, entry in entries.items():
        if entry.link is not None:  # last, so that nothing was written through one
            os.symlink(entry.link, new_dir / path)
    with open(new_dir / MANIFEST, "xb") as file:
        file.write(manifest_bytes)


# --- what the file says ----------------------------------------------------------------------------------


def _read_header(stream: _Unpacking) -> dict[str, Any]:
    if stream.exactly(len(MAGIC)) != MAGIC:
        raise DeltaError("this is not a delta, or one of another kind")
    digits = b""
    while (byte := stream.exactly(1)) != b"\n":
        digits += byte
        if not byte.isdigit() or len(digits) > 9:
            raise DeltaError("the header has no length")
    if not digits or int(digits) > HEADER_LIMIT_BYTES:
        raise DeltaError("the header is too long")
    return _object(stream.exactly(int(digits)), "header")


def read_manifest(data: bytes) -> dict[str, Entry]:
    """The files of a payload by path, in the manifest's order, checked.

    Raises:
        DeltaError: It is damaged, or names a place outside the payload.
    """
    files = _object(data, "manifest").get("files")
    if not isinstance(files, dict):
        raise DeltaError("the manifest names no files")
    entries: dict[str, Entry] = {}
    for path, raw in files.items():
        check_path(path)
        if not isinstance(raw, dict):
            raise DeltaError(f"the manifest's entry for {path} is damaged")
        entries[path] = _entry(path, raw)
    _check_places(entries)
    return entries


def _entry(path: str, raw: dict[str, Any]) -> Entry:
    link = raw.get("link")
    if link is not None:
        _check_link(path, link)
        return Entry(link=link)
    sha256, mode = raw.get("sha256"), raw.get("mode", 0o644)
    if isinstance(mode, str):  # octal digits, as people write it
        mode = int(mode, 8) if mode.isdigit() and not set(mode) & set("89") else None
    if not (isinstance(sha256, str) and len(sha256) == 64) or type(mode) is not int or mode & ~0o777:
        raise DeltaError(f"the manifest's entry for {path} is damaged")
    return Entry(_size(raw.get("size"), UNPACKED_LIMIT_BYTES, path), sha256, mode)


def check_path(path: object) -> None:
    """That ``path`` stays below the directory it is put under, on every system.

    Raises:
        DeltaError: It does not, or is the manifest itself.
    """
    if not isinstance(path, str) or not path or len(path) > 1024:
        raise DeltaError("a path is empty or too long")
    odd = any(character in '\\:*?"<>|' or character < " " for character in path)
    if odd or any(piece in ("", ".", "..") or piece[-1] in " ." for piece in path.split("/")):
        raise DeltaError(f"the path {path!r} is not allowed")
    if path == MANIFEST:
        raise DeltaError("the manifest names itself")


def _check_link(path: str, link: object) -> None:
    """A link leads to a place within the payload and names it relative to itself."""
    if (
        not isinstance(link, str)
        or not link
        or link.startswith("/")
        or "\\" in link
        or "\0" in link
        or ":" in link
    ):
        raise DeltaError(f"the link {path} leads outside")
    depth = path.count("/")
    for piece in link.split("/"):
        depth += -1 if piece == ".." else 0 if piece in ("", ".") else 1
        if depth < 0:
            raise DeltaError(f"the link {path} leads outside")


def _check_places(entries: dict[str, Entry]) -> None:
    """No two names for one place (also where case does not count), no file or link that is another's
    directory."""
    folded: dict[str, str] = {}
    for path in entries:
        if folded.setdefault(path.casefold(), path) != path:
            raise DeltaError(f"{path} and {folded[path.casefold()]} are one file on some systems")
    for path in entries:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent.casefold() in folded:
                raise DeltaError(f"{parent} is a file and a directory")
    if MANIFEST in folded:
        raise DeltaError("the manifest names itself")


def _parts(raw: object, entries: dict[str, Entry]) -> list[Part]:
    if not isinstance(raw, list):
        raise DeltaError("the header names no parts")
    parts: list[Part] = []
    seen: set[str] = set()
    for each in raw:
        if not isinstance(each, dict):
            raise DeltaError("a part of the header is damaged")
        path, kind, old = each.get("path"), each.get("kind"), each.get("old", "")
        if not isinstance(path, str) or path in seen or path not in entries or entries[path].link is not None:
            raise DeltaError(f"the delta brings {path!r}, which the manifest does not want")
        if kind not in ("whole", "patch") or (kind == "patch") != bool(old):
            raise DeltaError(f"the delta does not say how {path} is made")
        if old:
            check_path(old)
        seen.add(path)
        parts.append(Part(path, old))
    return parts


def _old_manifest(old_dir: Path) -> dict[str, Entry]:
    try:
        with open(old_dir / MANIFEST, "rb") as file:
            data = file.read(MANIFEST_LIMIT_BYTES + 1)
    except OSError as error:
        raise DeltaError(f"the version to start from cannot be read: {error.strerror}") from error
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise DeltaError("the manifest of the version to start from is too long")
    return read_manifest(data)


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DeltaError(f"the {name} is damaged") from error
    if not isinstance(value, dict):
        raise DeltaError(f"the {name} is damaged")
    return value


def _size(value: object, limit: int, name: str) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise DeltaError(f"the size of {name} is not possible")
    return value


# --- writing ---------------------------------------------------------------------------------------------


def _copy_unchanged(
    old_dir: Path, old_entries: dict[str, Entry], new_dir: Path, entries: dict[str, Entry], brought: set[str]
) -> None:
    """Everything that the delta does not bring, from whichever old file has that content."""
    by_content: dict[str, str] = {}
    for path, entry in old_entries.items():
        if entry.link is None:
            by_content.setdefault(entry.sha256, path)
    for path, entry in entries.items():
        if path in brought or entry.link is not None:
            continue
        same = old_entries.get(path)
        source = path if same is not None and same.sha256 == entry.sha256 else by_content.get(entry.sha256)
        if source is None:
            raise DeltaError(f"neither the delta nor the version here has {path}")
        with _open_old(old_dir, source, old_entries) as old:
            _write(new_dir / path, entry, path, _pieces_of(old))


@contextlib.contextmanager
def _open_old(old_dir: Path, path: str, old_entries: dict[str, Entry]) -> Iterator[BinaryIO]:
    if path not in old_entries or old_entries[path].link is not None:
        raise DeltaError(f"{path} is no file of the version to start from")
    try:
        descriptor = os.open(old_dir / path, _READING)
    except OSError as error:
        raise DeltaError(f"{path} of the version to start from cannot be read: {error.strerror}") from error
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DeltaError(f"{path} of the version to start from is no file")
        yield file


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece


def _write(target: Path, entry: Entry, path: str, pieces: Iterator[bytes]) -> None:
    """Write a file that was not there, and hold it against the manifest.

    Raises:
        DeltaError: It became another file than the manifest says.
    """
    digest, written = hashlib.sha256(), 0
    with open(target, "xb", buffering=0) as file:
        for piece in pieces:
            written += len(piece)
            if written > entry.size:
                raise DeltaError(f"{path} is longer than the manifest says")
            digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
    if written != entry.size or digest.hexdigest() != entry.sha256:
        raise DeltaError(f"{path} did not become what the manifest says")
    os.chmod(target, entry.mode)


def _patched(old: BinaryIO, stream: _Unpacking, size: int) -> Iterator[bytes]:
    made, place = 0, 0
    while made < size:
        added, copied, moved = STEP.unpack(stream.exactly(STEP.size))
        if added + copied > size - made or added + copied + abs(moved) == 0:
            raise DeltaError("a patch makes more than the file has")
        if added:
            if not 0 <= place <= UNPACKED_LIMIT_BYTES:
                raise DeltaError("a patch reads before the beginning of the old file")
            old.seek(place)
            for difference in stream.pieces(added):
                yield sum_bytes(difference, _exactly(old, len(difference)))
        yield from stream.pieces(copied)
        made += added + copied
        place += added + moved


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    while len(data) < count:  # an unbuffered read may be short; at the end of the file it is empty
        more = file.read(count - len(data))
        if not more:
            raise DeltaError("a patch reads behind the end of the old file")
        data += more
    return data


def sum_bytes(left: bytes, right: bytes) -> bytes:
    """The sums of the bytes of two equally long strings, each modulo 256.

    As two large integers: the low seven bits of all bytes are added at once, so that no carry leaves its
    byte, and the high bits are put in afterwards. Some hundred megabytes a second, where a loop has two.
    """
    count = len(left)
    if left.count(0) == count:
        return right
    a, b = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    low, high = _masks(count)
    return (((a & low) + (b & low)) ^ ((a ^ b) & high)).to_bytes(count, "little")


@functools.lru_cache(maxsize=2)
def _masks(count: int) -> tuple[int, int]:
    return int.from_bytes(b"\x7f" * count, "little"), int.from_bytes(b"\x80" * count, "little")


class _Unpacking:
    """The unpacked stream of a delta, read from front to end. Damage shows as `DeltaError`."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._xz = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
        self._ready = b""

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes in pieces of at most a chunk."""
        while count:
            if not self._ready:
                self._fill()
            piece, self._ready = self._ready[:count], self._ready[count:]
            count -= len(piece)
            yield piece

    def exactly(self, count: int) -> bytes:
        return b"".join(self.pieces(count))

    def expect_end(self) -> None:
        """That nothing is left; also checks the sum at the stream's end."""
        if not self._ready and not self._xz.eof:
            self._fill(at_end=True)
        if self._ready or not self._xz.eof or self._xz.unused_data or self._raw.read(1):
            raise DeltaError("the delta is longer than it says")

    def _fill(self, *, at_end: bool = False) -> None:
        while not self._ready and not self._xz.eof:
            fresh = b""
            if self._xz.needs_input:
                fresh = self._raw.read(CHUNK_BYTES)
                if not fresh:
                    raise DeltaError("the delta ends too early")
            try:
                self._ready = self._xz.decompress(fresh, max_length=CHUNK_BYTES)
            except lzma.LZMAError as error:
                raise DeltaError(f"the delta is damaged: {error}") from error
        if not self._ready and not at_end:
            raise DeltaError("the delta ends too early")
