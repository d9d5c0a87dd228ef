"""Whether a resident is to be built before it is started. Blocking."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.jobs.residents.files import Resident

FILES_LIMIT: Final = 20_000
"""More files than that are not looked at; a build of theirs is asked for by a person."""


def due(resident: Resident, built: str, *, asked: bool) -> str | None:
    """What a build of now would be made of, if there is to be one."""
    build = resident.build
    if build is None:
        return None
    made_of = fingerprint(resident)
    if asked or build.when == "always" or (build.when == "changed" and made_of != built):
        return made_of
    return None


def fingerprint(resident: Resident) -> str:
    """Of the command of the build and the names, sizes and times of its inputs."""
    assert resident.build is not None
    digest = hashlib.sha256(msgspec.json.encode((resident.build.argv, resident.directory, resident.version)))
    for count, (path, size, changed_ns) in enumerate(_inputs(resident)):
        if count == FILES_LIMIT:
            break
        digest.update(os.fsencode(path) + f"\0{size}\0{changed_ns}\0".encode())
    return digest.hexdigest()


def _inputs(resident: Resident) -> Iterator[tuple[str, int, int]]:
    assert resident.build is not None
    for name in resident.build.inputs:
        path = Path(resident.directory) / os.path.expanduser(name)
        if not path.is_dir():
            yield from _file(path)
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(each for each in folders if each not in (".git", "__pycache__"))
            for each in sorted(files):
                yield from _file(Path(folder) / each)


def _file(path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        found = path.stat()
    except OSError:
        yield str(path), -1, 0
        return
    yield str(path), found.st_size, found.st_mtime_ns
