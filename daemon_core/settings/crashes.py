"""What a program died of without another word (a fault in a library, say): the interpreter writes it into a
file on its way out, and the next life of the program has it in its log."""

from __future__ import annotations

import datetime as dt
import faulthandler
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

log = logging.getLogger(__name__)

CRASH_BYTES: Final = 16 * 1024


@contextmanager
def kept(path: Path, program: str) -> Iterator[None]:
    """Have a crash written into a file, for this user alone; what is there already tells of the life before
    this one and goes into the log. Where the file cannot be written, no crash leaves a trace, and the log
    says so.

    Args:
        program: As people know it, for the log: "the daemon".
    """
    file = _begun(path, program)
    if file is None:
        yield
        return
    with file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()


def _begun(path: Path, program: str) -> IO[str] | None:
    try:
        try:
            said = path.read_bytes()[:CRASH_BYTES].decode("utf-8", "replace").strip()
            at = dt.datetime.fromtimestamp(path.stat().st_mtime).astimezone()
        except FileNotFoundError:
            said, at = "", dt.datetime.now().astimezone()
        if said:
            log.critical("%s before this one crashed at %s\n%s", program, f"{at:%Y-%m-%d %H:%M:%S}", said)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
        return open(os.open(path, flags, 0o600), "w", encoding="utf-8")
    except OSError as error:
        log.warning("crashes will leave no trace: %s", error)
        return None
