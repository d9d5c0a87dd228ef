"""The two files that make a directory a payload: what it is, and what is in it.

``manifest.json`` is written last: a payload without it is not finished. Nothing in a payload is ever written
again once it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1
PAYLOAD: Final = "payload.json"
MANIFEST: Final = "manifest.json"
_CHUNK_BYTES: Final = 1 << 20


def write_payload(directory: Path, facts: dict[str, Any]) -> None:
    """Say what a payload is: its version, platform, and so on."""
    _write(directory / PAYLOAD, {"format": FORMAT, **facts})


def read_payload(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / PAYLOAD).read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{directory / PAYLOAD} is damaged")
    return found


def write_manifest(directory: Path, known: dict[str, Any] | None = None) -> None:
    """List every file of a payload with size and hash.

    Args:
        directory: The payload, complete with its ``payload.json``.
        known: Entries of files that are the same as in another payload; only the others are read.
    """
    version = read_payload(directory)["version"]
    files: dict[str, Any] = {}
    for folder, directories, names in os.walk(directory):
        directories.sort()
        links = [name for name in directories if Path(folder, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder, name)
            relative = path.relative_to(directory).as_posix()
            if relative == MANIFEST:
                continue
            if known is not None and relative in known:
                files[relative] = known[relative]
            else:
                files[relative] = _entry(path)
    _write(directory / MANIFEST, {"format": FORMAT, "version": version, "files": dict(sorted(files.items()))})


def read_manifest(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / MANIFEST).read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{directory / MANIFEST} is damaged")
    return found


def _entry(path: Path) -> dict[str, Any]:
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return {"link": os.readlink(path)}
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return {"size": facts.st_size, "sha256": digest.hexdigest(), "mode": stat.S_IMODE(facts.st_mode)}


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)
