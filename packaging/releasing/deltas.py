"""Making deltas: what `daemon_core.updates.delta` applies.

Finding what two files have in common is bsdiff's work (the
``bsdiff4`` package, of the release tool only), and it takes memory of
many times the file.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.updates.delta import MAGIC, MANIFEST, STEP, Entry, read_manifest

PATCHED_FROM_BYTES: Final = 2 << 10
"""Below, the whole file is as good."""
PATCHED_UP_TO_BYTES: Final = 96 << 20
"""Above, bsdiff would take gigabytes."""
PRESET: Final = 7
DICTIONARY_BYTES: Final = 16 << 20
"""Large enough that patches of alike files see each other; unpacking takes little more than this."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a delta became: its size and, for each file it brings, how many bytes it costs before the last
    packing."""

    size: int
    whole: dict[str, int]
    patched: dict[str, int]


def make(old_dir: Path, new_dir: Path, out: Path) -> Made:
    """Write the delta that leads from one payload directory to another. Equal directories give equal bytes.

    Raises:
        DeltaError: One of the manifests is damaged.
        ValueError: A file is not what its manifest says: this is no finished payload.
    """
    old_entries = read_manifest((old_dir / MANIFEST).read_bytes())
    manifest = (new_dir / MANIFEST).read_bytes()
    entries = read_manifest(manifest)
    here = {entry.sha256 for entry in old_entries.values() if entry.link is None}
    parts: list[dict[str, str]] = []
    whole: dict[str, int] = {}
    patched: dict[str, int] = {}
    bodies: list[bytes] = []
    for path, entry in entries.items():
        data = _checked(new_dir, path, entry)
        if entry.link is not None or entry.sha256 in here:
            continue
        source = _like(path, entry, old_entries)
        patch = _patch(_checked(old_dir, source, old_entries[source]), data) if source is not None else None
        if source is not None and patch is not None and _packed(patch) < _packed(data):
            parts.append({"path": path, "kind": "patch", "old": source})
            bodies.append(patch)
            patched[path] = _packed(patch)
        else:
            parts.append({"path": path, "kind": "whole"})
            bodies.append(data)
            whole[path] = _packed(data)
    header = json.dumps(
        {
            "from": _version(old_dir),
            "to": _version(new_dir),
            "manifest_bytes": len(manifest),
            "parts": parts,
        },
        sort_keys=True,
    ).encode()
    total = sum(len(body) for body in bodies) + len(manifest)
    # A dictionary larger than the content would only cost memory.
    filters = [
        {"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": min(DICTIONARY_BYTES, max(1 << 16, total))}
    ]
    temporary = out.with_name(f".{out.name}.part")
    with open(temporary, "wb") as raw:
        with lzma.open(raw, "wb", check=lzma.CHECK_CRC64, filters=filters) as packed:
            packed.write(MAGIC + b"%d\n" % len(header) + header + manifest)
            for body in bodies:
                packed.write(body)
        raw.flush()
        os.fsync(raw.fileno())
    os.replace(temporary, out)
    return Made(out.stat().st_size, whole, patched)


def _version(directory: Path) -> str:
    return str(json.loads((directory / MANIFEST).read_bytes()).get("version", ""))


def _checked(directory: Path, path: str, entry: Entry) -> bytes:
    if entry.link is not None:
        if os.readlink(directory / path) != entry.link:
            raise ValueError(f"{directory / path} is not what the manifest says")
        return b""
    data = (directory / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ValueError(f"{directory / path} is not what the manifest says")
    return data


def _like(path: str, entry: Entry, old_entries: dict[str, Entry]) -> str | None:
    """The old file to patch: the one at this path, or the only one that differs in the digits of its name."""
    if entry.size < PATCHED_FROM_BYTES or entry.size > PATCHED_UP_TO_BYTES:
        return None

    def fits(candidate: str) -> bool:
        old = old_entries[candidate]
        return old.link is None and PATCHED_FROM_BYTES <= old.size <= PATCHED_UP_TO_BYTES

    if path in old_entries:
        return path if fits(path) else None
    shape = re.sub(r"\d+", "#", path)
    alike = [old for old in old_entries if re.sub(r"\d+", "#", old) == shape and fits(old)]
    return alike[0] if len(alike) == 1 else None


def _patch(old: bytes, new: bytes) -> bytes:
    """bsdiff's patch with its three blocks dealt out step by step, so that it is applied in one reading."""
    import bsdiff4  # type: ignore[import-untyped]  # of the release tool only

    raw: bytes = bsdiff4.diff(old, new)
    control_bytes, difference_bytes = (_number(raw[at : at + 8]) for at in (8, 16))
    behind = 32 + control_bytes
    control = bz2.decompress(raw[32:behind])
    differences = bz2.decompress(raw[behind : behind + difference_bytes])
    extras = bz2.decompress(raw[behind + difference_bytes :])
    pieces: list[bytes] = []
    added_at = copied_at = 0
    for at in range(0, len(control), 24):
        added, copied, moved = (_number(control[at + each : at + each + 8]) for each in (0, 8, 16))
        pieces += (
            STEP.pack(added, copied, moved),
            differences[added_at : added_at + added],
            extras[copied_at : copied_at + copied],
        )
        added_at, copied_at = added_at + added, copied_at + copied
    return b"".join(pieces)


def _number(raw: bytes) -> int:
    """bsdiff writes the sign into the highest bit and the absolute value below it."""
    value = int.from_bytes(raw, "little")
    return -(value & ~(1 << 63)) if value >> 63 else value


def _packed(data: bytes) -> int:
    """About what it will cost in the delta, quickly."""
    return len(zlib.compress(data, 3))
