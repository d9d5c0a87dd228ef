"""The desktop's own log, so that a crash leaves a trace: ``logs/desktop.log`` beside the daemon's.

For this user alone (0600) and of limited size. Words of the user's own are kept out of it: of an exception it
has the kind and the places that it went through, and of its text no more than what the operating system said.
What kills the process itself is written by the interpreter to a file beside it, which the next start takes
over into the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final

from PySide6.QtCore import QtMsgType, qInstallMessageHandler

from daemon_core.settings import crashes
from daemon_core.settings.directories import Directories

if TYPE_CHECKING:
    from PySide6.QtCore import QMessageLogContext

log = logging.getLogger("ostler.desktop")

LIMIT_BYTES: Final = 512 * 1024
"""Of one file; there are two of them at most."""
FORM: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_QT_LEVELS: Final = {
    QtMsgType.QtDebugMsg: logging.DEBUG,
    QtMsgType.QtInfoMsg: logging.INFO,
    QtMsgType.QtWarningMsg: logging.WARNING,
    QtMsgType.QtCriticalMsg: logging.ERROR,
    QtMsgType.QtFatalMsg: logging.CRITICAL,
}

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Discreet(logging.Formatter):
    """Tells of exceptions what they are and where they went through, and not what they say."""

    def format(self, record: logging.LogRecord) -> str:
        kept, record.exc_text = record.exc_text, None  # what another handler made of it says more
        try:
            return super().format(record)
        finally:
            record.exc_text = kept

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - the library's name
        parts: list[str] = []
        error, seen = ei[1], set[int]()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            found = traceback.extract_tb(error.__traceback__)
            places = [f"  {each.filename}:{each.lineno} in {each.name}" for each in found]
            parts.append("\n".join([*places, _named(error)]))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\nand then\n".join(reversed(parts))


def _named(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.strerror else name


class _File(logging.Handler):
    """Appends to a file and begins another one when it is full. What cannot be written is left out: a full
    disk does not end the desktop, and standard error has it all the same."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._stream = _opened(path)
        self.setFormatter(Discreet(FORM))

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            if os.fstat(self._stream.fileno()).st_size > LIMIT_BYTES:
                os.replace(self._path, older(self._path))
                full, self._stream = self._stream, _opened(self._path)
                full.close()
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        super().close()


def older(path: Path) -> Path:
    """Where a full log goes."""
    return path.with_name(f"{path.name}.1")


@contextmanager
def kept(directories: Directories) -> Iterator[None]:
    """Write the log until the end of the block, and whatever nobody expected into it.

    A place that cannot be written costs the log and nothing else.
    """
    root = logging.getLogger()
    path = directories.desktop_log_file
    try:
        handler = _File(path)
    except OSError as error:
        log.warning("no log of the desktop can be kept: %s", error)
        yield
        return
    root.addHandler(handler)
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = _on_error, _on_unraisable
    qInstallMessageHandler(_on_qt)
    try:
        with crashes.kept(directories.desktop_crash_file, "the desktop"):
            yield
    finally:
        qInstallMessageHandler(None)
        sys.excepthook, sys.unraisablehook = hooks
        root.removeHandler(handler)
        handler.close()


def _opened(path: Path) -> IO[str]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace")


def _on_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("an error that nobody expected", exc_info=(kind, error, trace))


def _on_unraisable(found: sys.UnraisableHookArgs) -> None:
    error = found.exc_value
    info: Any = (found.exc_type, error, found.exc_traceback) if error is not None else None
    log.error("an error where none can be told: %s", found.err_msg or "", exc_info=info)


def _on_qt(kind: QtMsgType, _context: QMessageLogContext, message: str | None) -> None:
    logging.getLogger("qt").log(_QT_LEVELS.get(kind, logging.WARNING), "%s", message)
