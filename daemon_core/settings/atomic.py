"""Small files that are there whole or not at all, and only for this user."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def write_private(
    path: Path, data: bytes, *, before: Callable[[], None] | None = None, durable: bool = True
) -> None:
    """Replace ``path`` by a 0600 file with ``data``: temporary file, fsync, rename, fsync of the directory.

    Args:
        before: Called at the last moment before the rename; what it raises leaves the old content.
        durable: False: without the fsyncs, so a power cut may cost it. Then it takes next to no time.

    Raises:
        OSError: The old content is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if before is not None:
            before()
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    if durable and sys.platform != "win32":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
