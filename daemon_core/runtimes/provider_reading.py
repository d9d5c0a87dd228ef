"""Reads a provider's file and says what is wrong with it, and on which line.

A user's file says what differs: with ``extends = "claude"`` everything else is as that provider has it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon_core.agents.family import Drive
from daemon_core.agents.placeholders import KNOWN as PLACEHOLDERS
from daemon_core.agents.placeholders import named_in
from daemon_core.settings.toml_lines import line_of

if TYPE_CHECKING:
    from daemon_core.runtimes.providers import Mistake, Provider, Registry

FILE_LIMIT_BYTES: Final = 256 * 1024
FILES_LIMIT: Final = 200

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_ARITIES: Final = ("0", "1", "?", "*")


class ReadError(Exception):
    """A file is no provider. ``key`` is the dotted name of what is wrong."""

    def __init__(self, what: str, *, key: str = "", hint: str = "", line: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.key = key
        self.hint = hint
        self.line = line


def parsed(text: str) -> dict[str, Any]:
    """The tables of a file. Raises ``ReadError``."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = _POSITION.search(message)
        line = int(position[1]) if position and position[1] else text.count("\n") + 1
        what = _POSITION.sub("", message)
        raise ReadError(f"this is not valid TOML: {what[:1].lower()}{what[1:]}", line=line) from error
    except RecursionError as error:
        raise ReadError("this is not valid TOML: it is nested too deeply", line=1) from error


def decoded(tree: Mapping[str, Any]) -> Provider:
    """The provider that a file describes. Raises ``ReadError``."""
    from daemon_core.runtimes.providers import Provider

    try:
        return msgspec.convert(tree, Provider)
    except msgspec.ValidationError as error:
        raise _of_validation(str(error)) from error


def read_directory(
    directory: Path, known: Registry, families: Collection[str]
) -> tuple[list[Provider], list[Mistake]]:
    """All files of a directory: the providers in them, and the mistakes. Never raises."""
    from daemon_core.runtimes.providers import Mistake

    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".toml")
    except OSError as error:
        return [], [Mistake(file=str(directory), what=f"it cannot be read: {error.strerror or error}")]
    providers: list[Provider] = []
    mistakes: list[Mistake] = []
    taken: dict[str, str] = {}
    if len(paths) > FILES_LIMIT:
        what = f"there are {len(paths)} files; only the first {FILES_LIMIT} are read"
        mistakes.append(Mistake(file=str(directory), what=what))
    for path in paths[:FILES_LIMIT]:
        text = ""
        try:
            text = _text_of(path)
            tree = parsed(text)
            provider = _provider(tree, path, known, families)
            if provider.id in taken:
                raise ReadError(f"{provider.id} is in {taken[provider.id]} already", key="id")
        except ReadError as error:
            line = error.line or (_nearest_line(text, error.key) if error.key else None)
            mistakes.append(Mistake(file=str(path), what=error.what, line=line, hint=error.hint))
            continue
        taken[provider.id] = path.name
        providers.append(provider)
    return providers, mistakes


def _text_of(path: Path) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ReadError(f"it cannot be read: {error.strerror or error}") from error
    if len(content) > FILE_LIMIT_BYTES:
        raise ReadError(f"it is too large (over {FILE_LIMIT_BYTES // 1024} KiB)")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError("it is not UTF-8", line=content[: error.start].count(b"\n") + 1) from error


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that somebody put there must not hold up a start."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _provider(tree: dict[str, Any], path: Path, known: Registry, families: Collection[str]) -> Provider:
    tree = dict(tree)
    base = tree.pop("extends", None)
    provider_id = tree.setdefault("id", path.stem)
    if base is not None:
        parent = known.get(base) if isinstance(base, str) else None
        if parent is None:
            raise ReadError(
                f"there is no provider {base!r} to extend", key="extends", hint=_near(base, known.ids)
            )
        tree = _merged(msgspec.to_builtins(parent), {"verified": [], **tree})
    provider = decoded(tree)
    if known.get(provider.id) is not None:
        raise ReadError(
            f"{provider.id} is a provider of Ostler's own",
            key="id",
            hint=f'Give it another id, and extends = "{provider_id}" to begin with what that one has',
        )
    for error in problems(provider, families):
        raise error
    return provider


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, values and lists replaced."""
    made = dict(base)
    for name, value in changes.items():
        old = made.get(name)
        made[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {name: value for name, value in made.items() if value is not None}


def problems(provider: Provider, families: Collection[str]) -> Iterator[ReadError]:
    """What types do not say."""
    if not _ID.fullmatch(provider.id):
        yield ReadError(
            f"{provider.id!r} cannot be an id", key="id", hint="Use up to 32 of a-z, 0-9, - and _"
        )
    if not provider.name.strip() or not provider.name.isprintable():
        yield ReadError("the name is empty or has characters that cannot be shown", key="name")
    if not provider.executables:
        yield ReadError("no program is named", key="executables")
    for name in provider.executables:
        if not name or "\0" in name or (os.sep in name and not os.path.isabs(os.path.expanduser(name))):
            what = f"{name!r} is neither the name of a program nor an absolute path"
            yield ReadError(what, key="executables")
    for key, family in (("family", provider.family), ("ask_family", provider.ask_family)):
        if family not in families and (family or key == "family"):
            yield ReadError(f"there is no protocol family {family!r}", key=key, hint=_near(family, families))
    for key, version in (
        ("min_version", provider.min_version),
        ("models.from_version", provider.models.from_version),
    ):
        if version and not _VERSION.fullmatch(version):
            yield ReadError(f"{version!r} is no version", key=key, hint="Write it as in 1.2.3")
    if provider.brief.way == "file" and not provider.brief.file:
        yield ReadError("no file is named for the brief", key="brief")
    for key, relative in (
        ("brief.file", provider.brief.file),
        ("skills.directory", provider.skills.directory),
    ):
        if relative and not _is_inside(relative):
            yield ReadError(f"{relative!r} is no path inside a directory", key=key)
    if provider.check.answer and not provider.check.args:
        yield ReadError("it is not said what to ask the program with", key="check", hint="Add args")
    if provider.models.source == "command" and not provider.models.args:
        yield ReadError("it is not said what to ask the program with", key="models", hint="Add args")
    if provider.models.source == "command" and not provider.models.reader:
        yield ReadError("it is not said how the answer is written", key="models", hint="Add reader")
    yield from _wrong_drive("drive", provider.drive)
    if provider.ask_drive is not None:
        yield from _wrong_drive("ask_drive", provider.ask_drive)


def _wrong_drive(key: str, drive: Drive) -> Iterator[ReadError]:
    for option, arity in drive.blocked.items():
        if arity not in _ARITIES:
            hint = 'How many values it takes: "0", "1", "?" or "*"'
            yield ReadError(f"{arity!r} is no number of values", key=f"{key}.blocked.{option}", hint=hint)
    for variable in (*drive.env, *drive.drop_env):
        if not _VARIABLE.fullmatch(variable) or (variable.endswith("*") and variable in drive.env):
            yield ReadError(f"{variable!r} cannot be the name of a variable", key=f"{key}.env")
    texts = [(f"{key}.args", text) for text in drive.args]
    texts += [(f"{key}.env.{name}", text) for name, text in drive.env.items()]
    for where, text in texts:
        if "\0" in text:
            yield ReadError("it has a NUL character", key=where)
        for name in named_in(text):
            if name not in PLACEHOLDERS:
                hint = f"Known: {', '.join('{' + each + '}' for each in PLACEHOLDERS)}"
                yield ReadError(f"there is no placeholder {{{name}}}", key=where, hint=hint)


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\\" not in path and "\0" not in path


def _of_validation(message: str) -> ReadError:
    at = _AT.search(message)
    path = re.sub(r"\[[^\]]*\]", "", at[1]) if at else ""
    what = _AT.sub("", message)
    unknown, missing = _UNKNOWN.search(what), _MISSING.search(what)
    if unknown:
        key = f"{path}.{unknown[1]}".lstrip(".")
        return ReadError(f"there is no key {unknown[1]}", key=key, hint=_near(unknown[1], _names_at(path)))
    if missing:
        return ReadError(f"{missing[1]} is missing", key=path or "", line=None if path else 1)
    return ReadError(f"{path or 'it'}: {what[:1].lower()}{what[1:]}", key=path)


def _names_at(path: str) -> list[str]:
    """The keys that the table at this path may have."""
    from daemon_core.runtimes.providers import KnownModel, Provider

    kind: Any = Provider
    for part in path.split(".") if path else []:
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        kind = {"ask_drive": Drive, "known": KnownModel}.get(part, fields.get(part))
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return []
    names = [field.name for field in msgspec.structs.fields(kind)]
    return names if path else [*names, "extends"]


def _nearest_line(text: str, key: str) -> int | None:
    """The line of a key, or of what it is in."""
    parts = key.split(".")
    while parts:
        if (line := line_of(text, ".".join(parts))) is not None:
            return line
        parts.pop()
    return None


def _near(given: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(given), list(known), 1, 0.6)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known: {', '.join(sorted(known))}" if known else ""
