"""Switches a resident on or off in its file, and leaves every other byte of it as it is."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from daemon_core.jobs.residents.files import ReadError, parsed

_LINE = re.compile(r"(?P<key>(?:enabled|'enabled'|\"enabled\")[ \t]*:[ \t]*)(?P<value>[^\s#]*)(?P<rest>.*)")


class CannotEditError(Exception):
    """The file is left as it is; the text says why, to be shown after its name."""


def set_enabled(path: Path, enabled: bool) -> bool:
    """Write ``enabled`` into the file; True if it had to be changed.

    The change is made to the text and held against the old content afterwards: if anything but this one
    value would read differently, nothing is written.

    Raises:
        CannotEditError: the file cannot be read, changed with certainty, or written.
    """
    # A link is followed: the file it leads to is the one that is to change.
    target = Path(os.path.realpath(path))
    try:
        before = target.read_bytes()
        facts = target.stat()
        text = before.decode("utf-8")
        old, lines = parsed(text)
    except (OSError, UnicodeDecodeError, ReadError) as error:
        raise CannotEditError(str(error)) from error
    if old.get("enabled", True) is enabled:
        return False
    new = _edited(text, lines.get("enabled"), enabled)
    try:
        found, _ = parsed(new)
    except ReadError as error:
        raise CannotEditError("the line of `enabled` cannot be changed safely") from error
    if found != {**old, "enabled": enabled}:
        raise CannotEditError("the line of `enabled` cannot be changed safely")
    try:
        if target.read_bytes() != before:
            raise CannotEditError("somebody else changes the file at this moment")
        _replace(target, new.encode(), stat.S_IMODE(facts.st_mode))
    except OSError as error:
        raise CannotEditError(error.strerror or str(error)) from error
    return True


def _edited(text: str, line: int | None, enabled: bool) -> str:
    word = "true" if enabled else "false"
    rows = text.splitlines(keepends=True)
    if line is not None:
        row = rows[line - 1]
        bom = "\ufeff" if row.startswith("\ufeff") else ""
        match = _LINE.match(row[len(bom) :])
        if match is None:
            raise CannotEditError(f"line {line} is not of the form `enabled: {word}`")
        end = row[len(bom) + match.end() :]
        rows[line - 1] = f"{bom}{match['key']}{word}{match['rest']}{end}"
        return "".join(rows)
    # After the line of the id, where whoever reads the file will look for it.
    _, lines = parsed(text)
    at = lines.get("id", 0)
    newline = "\r\n" if "\r\n" in text else "\n"
    if at and not rows[at - 1].endswith(("\n", "\r")):
        rows[at - 1] += newline
    rows.insert(at, f"enabled: {word}{newline}")
    return "".join(rows)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """The new content in place of the old, with the old one's permissions. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
