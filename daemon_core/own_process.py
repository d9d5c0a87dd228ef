"""The daemon as a process of this machine: its memory, its log file, its last words, its own command."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from daemon_core.opening import CHECK_DISK
from daemon_core.settings.directories import Directories, make_private
from daemon_core.settings.sections import Settings

_M_ARENA_MAX: Final = -8  # malloc.h


def spare_memory() -> None:
    """Keep the C library from giving every thread a heap of its own, which it never gives back: a fifth less
    memory after a large transcript, at the same speed. Linux with glibc; must come before any thread."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def set_up_logging(directories: Directories, settings: Settings, *, foreground: bool) -> None:
    """The rotated log file (0600), and standard error for whoever watches. Raises OSError."""
    from logging.handlers import RotatingFileHandler

    class PrivateFileHandler(RotatingFileHandler):
        def _open(self) -> Any:
            descriptor = os.open(
                self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600
            )
            return open(descriptor, self.mode, encoding="utf-8", errors="backslashreplace")

    make_private(directories.log_dir)
    handlers: list[logging.Handler] = [
        PrivateFileHandler(
            directories.log_file, maxBytes=settings.log.size, backupCount=settings.log.files, encoding="utf-8"
        )
    ]
    if foreground:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=settings.log.level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
    logging.raiseExceptions = False  # a full disk must not fill standard error, too
    logging.captureWarnings(True)


def said_of(error: BaseException) -> str:
    """An error in a sentence for whoever started the daemon: of a file, which one and what to do."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, OSError):
        place = error.filename2 or error.filename  # of a rename the one that was to be replaced
        if isinstance(place, str | bytes):
            return f"{os.fsdecode(place)}: {error.strerror}. {CHECK_DISK}."
    return f"the daemon ends because of an error: {error!r}. The log has more."


def say(message: str, code: int) -> int:
    """Say the last words; gives the exit code."""
    sys.stderr.write(f"ostlerd: {message}\n")
    return code


def own_command(arguments: Sequence[str]) -> list[str]:
    """What starts this program again."""
    if getattr(sys, "frozen", False):
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "daemon_core.app", *arguments]
