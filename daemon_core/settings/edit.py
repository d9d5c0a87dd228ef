"""Changes to ``config.toml`` that keep comments, order and spelling of everything else.

A change is checked as a whole before it replaces the file; what is refused leaves the file as it was. Two
programs that change it at once take turns (a lock on the directory). An editor takes no turns: what it saved
while a change was being made is noticed right before the file is replaced, and the change is made anew on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daemon_core.settings import values
from daemon_core.settings.atomic import write_private
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.file import Unknown, content, entries, find, override_name, parse

if TYPE_CHECKING:
    import tomlkit

TRIES: Final = 10
"""An editor that saves more often than this while one change is made is no editor."""


class _SavedMeanwhileError(Exception):
    """The file is another one than the change was made on."""


def set_value(
    path: Path,
    name: str,
    text: str,
    providers: Collection[str] | None = None,
    unknown: Unknown | None = None,
) -> None:
    """Set one setting from text, as ``ostler config set`` has it.

    Args:
        providers: Names that may stand below ``agents`` and ``limits.runtimes``; None: any.
        unknown: Asked for each setting of the file that there is not; what it answers with True stays as it
            is, anything else refuses the change.

    Raises:
        SettingsError: No such setting, or not a value for it, or the file was damaged before.
    """
    entry = find(name)
    try:
        plain = values.from_text(entry.key, text)
    except ValueError as error:
        raise _refused(name, error) from error
    set_plain(path, name, plain, providers, unknown)


def set_plain(
    path: Path,
    name: str,
    plain: Any,
    providers: Collection[str] | None = None,
    unknown: Unknown | None = None,
) -> None:
    """Set one setting to what is to stand in the file: "30m", 8, true, ["a"], {"claude": 2}.

    Raises as ``set_value``.
    """
    entry = find(name)
    try:
        values.from_toml(entry.key, plain)
    except ValueError as error:
        raise _refused(name, error) from error

    def change(document: tomlkit.TOMLDocument) -> None:
        import tomlkit

        table: Any = document
        *sections, field = name.split(".")
        for depth, section in enumerate(sections):
            if section not in table:
                # Only the last table needs a header of its own: [agents.claude], not [agents] before it.
                table.add(section, tomlkit.table(is_super_table=depth < len(sections) - 1))
            table = table[section]
        if isinstance(plain, dict):
            inline = tomlkit.inline_table()
            inline.update(plain)
            table[field] = inline
        else:
            table[field] = plain

    _change(path, change, providers, unknown)


def _refused(name: str, problem: ValueError) -> SettingsError:
    return SettingsError.of_value(name, problem, hint=find(name).key.what.rstrip("."))


def unset_value(path: Path, name: str, unknown: Unknown | None = None) -> bool:
    """Take one setting out of the file. Returns whether it was there. ``unknown``: as in ``set_value``."""
    find(name)
    removed = False

    def change(document: tomlkit.TOMLDocument) -> None:
        nonlocal removed
        table: Any = document
        *sections, field = name.split(".")
        for section in sections:
            if section not in table:
                return
            table = table[section]
        removed = field in table
        if removed:
            del table[field]

    _change(path, change, unknown=unknown)
    return removed


def replace_text(path: Path, text: str) -> None:
    """Put a whole new text into the file, if it is valid.

    Raises:
        SettingsError: With line and key; the file is as it was.
    """
    parse(text.encode(), path)
    with _turn(path):
        _write(path, text)


def _change(
    path: Path,
    change: Callable[[tomlkit.TOMLDocument], None],
    providers: Collection[str] | None = None,
    unknown: Unknown | None = None,
) -> None:
    import tomlkit

    with _turn(path):
        for _ in range(TRIES):
            raw = content(path)
            parse(raw, path, unknown=unknown)  # a file that is damaged already is told as such, with its line
            document = tomlkit.parse(raw.decode("utf-8-sig"))
            change(document)
            text = tomlkit.dumps(document)
            parse(text.encode(), path, providers=providers, unknown=unknown)
            try:
                _write(path, text, instead_of=raw)
            except _SavedMeanwhileError:
                continue
            return
    raise SettingsError(
        "the file is being changed by another program all the time",
        hint="Try again",
        file=path,
        reason="changing",
    )


def _write(path: Path, text: str, instead_of: bytes | None = None) -> None:
    """Replace the file; where ``instead_of`` is given, only while that is its content."""

    def unchanged() -> None:
        if instead_of is not None and content(path) != instead_of:
            raise _SavedMeanwhileError

    try:
        # A link is kept and its target replaced: settings often live in a repository of dot files.
        write_private(Path(os.path.realpath(path)), text.encode(), before=unchanged)
    except OSError as error:
        raise SettingsError(
            f"the settings cannot be written: {error.strerror}",
            hint="Check the permissions and the space of the disk",
            file=path,
            reason="unwritable",
            params={"error": error.strerror or ""},
        ) from error


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def template(environ: Mapping[str, str] | None = None) -> str:
    """A settings file that sets nothing and documents everything."""
    lines = [
        "# Settings of Ostler. Every line is a default: take the # away and change it.",
        "# `ostler config list` shows what is in force; a running daemon takes most changes over at once.",
    ]
    section = ""
    for entry in entries():
        here, _, field = entry.name.replace("<provider>", "claude").rpartition(".")
        if here != section:
            section = here
            lines += ["", f"# [{here}]"]
        lines.append(f"# {entry.key.what}")
        if entry.key.why:
            lines.append(f"# {entry.key.why}.")
        lines.append(f"# {field} = {_toml(values.to_toml(entry.key, entry.default))}")
        if environ and environ.get(override_name(entry.name)):
            lines.append(f"# (overridden now by {override_name(entry.name)})")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{}"
    return str(value)
