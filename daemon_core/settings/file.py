"""``config.toml`` read as one frozen value of ``sections``.

Precedence: environment (``OSTLER_DAEMON_SLOTS`` for ``daemon.slots``, ``OSTLER_AGENTS_CLAUDE_PATH`` for
``agents.claude.path``), file, default. A misspelt key, a wrong type and a syntax error are refused with file,
line, key and what to write instead: nothing is ignored in silence. A daemon that starts may leave out keys
that it does not know (``unknown``): they may be those of a newer version that it takes the place of.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from daemon_core.settings import quiet, values
from daemon_core.settings.errors import BadValueError, SettingsError
from daemon_core.settings.ports import FOREIGN_PORTS
from daemon_core.settings.sections import AgentSettings, Settings
from daemon_core.settings.toml_lines import line_of
from daemon_core.settings.values import Key

SIZE_LIMIT_BYTES: Final = 1024 * 1024

Unknown = Callable[[SettingsError], bool]
"""Whether a setting that there is not may be left out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented setting. ``name`` is dotted; ``agents.<provider>.path`` stands for all providers."""

    name: str
    key: Key
    default: Any


@cache
def _sections() -> dict[str, Any]:
    hints = typing.get_type_hints(Settings)
    return {name: kind for name, kind in hints.items() if name != "agents"}


@cache
def _keys(section: Any) -> dict[str, Key]:
    hints = typing.get_type_hints(section, include_extras=True)
    return {name: typing.get_args(hint)[1] for name, hint in hints.items()}


def entries() -> Iterator[Entry]:
    """Every setting there is, in the order of the documentation."""
    for name, section in (*_sections().items(), ("agents.<provider>", AgentSettings)):
        default = section()
        for field, key in _keys(section).items():
            yield Entry(f"{name}.{field}", key, getattr(default, field))


_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]*")


def find(name: str, *, file: Path | None = None, line: int | None = None) -> Entry:
    """The entry for a dotted name, its own spelling kept (``agents.claude.path``).

    Raises:
        SettingsError: There is no such setting; the hint names the nearest one.
    """
    parts = name.split(".")
    section: Any = None
    if len(parts) == 3 and parts[0] == "agents" and _PROVIDER.fullmatch(parts[1]):
        section = AgentSettings
    elif len(parts) == 2:
        section = _sections().get(parts[0])
    if section is not None and parts[-1] in _keys(section):
        return Entry(name, _keys(section)[parts[-1]], getattr(section(), parts[-1]))
    near = _nearest(parts)
    raise SettingsError(
        f"there is no setting {name}",
        hint=f"Did you mean {near}?" if near else "`ostler config list` shows every setting",
        file=file,
        line=line,
        key=name,
        reason="no_setting",
        params={"near": near},
    )


def _nearest(parts: list[str]) -> str:
    """The setting that was probably meant; empty: none is like it."""
    provider = parts[1] if len(parts) == 3 else "claude"
    known = [entry.name.replace("<provider>", provider) for entry in entries()]
    name = ".".join(parts)
    # The right name in the wrong section comes before a similar one.
    near = [other for other in known if other.rpartition(".")[2] == parts[-1]][:1]
    near = near or difflib.get_close_matches(name, known, 1, 0.6)
    return near[0] if near else ""


def override_name(name: str) -> str:
    """The environment variable that overrides a setting."""
    return "OSTLER_" + re.sub(r"[.-]", "_", name).upper()


def load(
    path: Path,
    environ: Mapping[str, str],
    providers: Collection[str] | None = None,
    unknown: Unknown | None = None,
) -> Settings:
    """The settings of the file at ``path`` (which need not exist) and the overrides in ``environ``.

    Args:
        providers: Names that may stand below ``agents``, ``limits.runtimes``; None: any.
        unknown: Asked for each setting that there is not; what it answers with True is left out.

    Raises:
        SettingsError: With file, line and key where they can be told.
    """
    return parse(content(path), path, environ, providers, unknown)


def content(path: Path) -> bytes:
    """What stands in the file; nothing where there is none.

    Raises:
        SettingsError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(
            f"the settings cannot be read: {error.strerror}",
            hint="Check the file's permissions",
            file=path,
            reason="unreadable",
            params={"error": error.strerror or ""},
        ) from error


def parse(
    raw: bytes,
    path: Path,
    environ: Mapping[str, str] | None = None,
    providers: Collection[str] | None = None,
    unknown: Unknown | None = None,
) -> Settings:
    """The settings in ``raw``, the content of the file ``path``. Raises as ``load``."""
    text = _decode(raw, path)
    found: dict[str, Any] = {}
    for name, value in _flatten(_tree(text, path), text, path, unknown):
        try:
            entry = find(name, file=path, line=line_of(text, name))
        except SettingsError as error:
            if unknown is not None and unknown(error):
                continue
            raise
        try:
            found[name] = values.from_toml(entry.key, value)
            _check(name, found[name])
        except ValueError as error:
            raise SettingsError.of_value(
                name, error, hint=entry.key.what.rstrip("."), file=path, line=line_of(text, name)
            ) from error
        if providers is not None:
            _check_provider(name, found[name], providers, path, line_of(text, name))
    for name, entry, given in overrides(environ or {}):
        try:
            found[name] = values.from_toml(entry.key, values.from_text(entry.key, given))
            _check(name, found[name])
        except ValueError as error:
            raise SettingsError.of_value(
                override_name(name), error, hint="Correct or unset this environment variable"
            ) from error
    return _build(found)


def set_in(raw: bytes, path: Path, unknown: Unknown | None = None) -> dict[str, Any]:
    """What the file itself sets, also where that is the default: the plain values by dotted name. Sections
    that there are not are left out as in ``load``.

    Raises:
        SettingsError: It is not TOML, or has sections that are none. Values are not looked at.
    """
    text = _decode(raw, path)
    return dict(_flatten(_tree(text, path), text, path, unknown))


def overrides(environ: Mapping[str, str]) -> Iterator[tuple[str, Entry, str]]:
    """The settings that ``environ`` overrides: name, entry and text. An empty variable overrides nothing."""
    for entry in entries():
        head, marker, tail = entry.name.partition("<provider>")
        if not marker:
            given = environ.get(override_name(entry.name), "")
            if given:
                yield entry.name, entry, given
            continue
        start, end = override_name(head), "_" + tail[1:].upper()
        for variable in sorted(environ):
            provider = variable[len(start) : -len(end)].lower()
            if variable.startswith(start) and variable.endswith(end) and provider and environ[variable]:
                yield f"{head}{provider}{tail}", entry, environ[variable]


def unknown_overrides(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like a misspelt override, with the name that was probably meant."""
    known = [override_name(entry.name) for entry in entries() if "<" not in entry.name]
    taken = {override_name(name) for name, _, _ in overrides(environ)}
    found = []
    for variable in sorted(environ):
        if variable.startswith("OSTLER_") and variable not in known and variable not in taken:
            near = difflib.get_close_matches(variable, known, 1, 0.85)
            if near:
                found.append((variable, near[0]))
    return found


def _decode(raw: bytes, path: Path) -> str:
    if len(raw) > SIZE_LIMIT_BYTES:
        raise SettingsError(
            "the file is larger than 1 MiB",
            hint="Is it really a settings file?",
            file=path,
            reason="too_large",
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            "the file is not UTF-8 text",
            hint="Save it as UTF-8",
            file=path,
            line=raw.count(b"\n", 0, error.start) + 1,
            reason="not_utf8",
        ) from error


_POSITION = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")
_LONG_NUMBER = re.compile(r"[\d_]{4000}")


def _tree(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise SettingsError(
            "this is not valid TOML: nested too deeply",
            file=path,
            line=1,
            reason="not_toml",
            params={"error": "nested too deeply"},
        ) from error
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = _POSITION.search(message)
        line = int(position[1]) if position and position[1] else text.count("\n") + 1
        what = _POSITION.sub("", message)
        what = f"{what[:1].lower()}{what[1:]}"
        raise SettingsError(
            f"this is not valid TOML: {what}",
            hint='Correct the line; texts stand in quotation marks, as in idle = "30m"',
            file=path,
            line=line,
            reason="not_toml",
            params={"error": what},
        ) from error
    except ValueError as error:  # whatever else Python makes of a text: a number of thousands of digits
        long = _LONG_NUMBER.search(text)
        raise SettingsError(
            "this is not valid TOML: a number is too long",
            file=path,
            line=text.count("\n", 0, long.start() if long is not None else 0) + 1,
            reason="not_toml",
            params={"error": "a number is too long"},
        ) from error


def _flatten(
    tree: dict[str, Any], text: str, path: Path, unknown: Unknown | None = None
) -> Iterator[tuple[str, Any]]:
    for section, content in tree.items():
        if section != "agents" and section not in _sections():
            known = [*_sections(), "agents"]
            near = difflib.get_close_matches(section, known, 1, 0.6)
            error = SettingsError(
                f"there is no section {section}",
                hint=f"Did you mean {near[0]}?" if near else f"The sections are {', '.join(known)}",
                file=path,
                line=line_of(text, section),
                key=section,
                reason="no_section",
                params={"given": section, "near": near[0] if near else ""},
            )
            if unknown is not None and unknown(error):
                continue
            raise error
        if not isinstance(content, dict):
            raise SettingsError(
                f"{section} must be a section, written [{section}]",
                hint="Put its settings on lines of their own below that",
                file=path,
                line=line_of(text, section),
                key=section,
                reason="section",
                params={"given": section},
            )
        for name, value in content.items():
            dotted = f"{section}.{name}"
            if section != "agents":
                yield dotted, value
            elif isinstance(value, dict):
                for field, inner in value.items():
                    yield f"{dotted}.{field}", inner
            else:
                raise SettingsError(
                    f"{dotted} must be a section, written [{dotted}]",
                    hint=f'Write [agents.{name}] and below it path = "…"',
                    file=path,
                    line=line_of(text, dotted),
                    key=dotted,
                    reason="section",
                    params={"given": dotted},
                )


def _check(name: str, value: Any) -> None:
    """Rules that a kind and a range do not express."""
    if name == "daemon.port" and value and (value < 1024 or value in FOREIGN_PORTS):
        first, last = FOREIGN_PORTS.start, FOREIGN_PORTS.stop - 1
        raise BadValueError(
            f"must be 0 or from 1024 to 65535 without {first} to {last} (another program's), not {value}",
            "port",
            first=first,
            last=last,
            given=str(value),
        )
    if name == "notifications.quiet_hours":
        quiet.check(value)
    if name == "environment.set":
        for variable in value:
            if not variable or "=" in variable:
                raise BadValueError(
                    f'has a variable with the impossible name "{variable}"', "variable", given=f'"{variable}"'
                )
    if name.startswith("agents.") and name.endswith(".path") and value:
        given = os.path.expanduser(value)
        if os.sep in given and not os.path.isabs(given):
            raise BadValueError(
                f'must be an absolute path or a bare name, not "{value}"', "path", given=f'"{value}"'
            )


def _check_provider(name: str, value: Any, providers: Collection[str], path: Path, line: int | None) -> None:
    named: Collection[str] = ()
    if name.startswith("agents."):
        named = (name.split(".")[1],)
    elif name == "limits.runtimes":
        named = value
    for provider in named:
        if provider not in providers:
            near = difflib.get_close_matches(provider, providers, 1, 0.6)
            raise SettingsError(
                f"{name}: there is no provider {provider}",
                hint=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(providers))}",
                file=path,
                line=line,
                key=name,
                reason="no_provider",
                params={"given": provider, "near": near[0] if near else ""},
            )


def _build(found: Mapping[str, Any]) -> Settings:
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        section, _, field = name.rpartition(".")
        grouped.setdefault(section, {})[field] = value
    sections: dict[str, Any] = {name: kind(**grouped.get(name, {})) for name, kind in _sections().items()}
    agents = {
        section.partition(".")[2]: AgentSettings(**fields)
        for section, fields in grouped.items()
        if section.startswith("agents.")
    }
    return Settings(**sections, agents=agents)


def value_of(settings: Settings, name: str) -> Any:
    """The value in force of a setting, as it would be written into the file."""
    entry = find(name)
    parts = name.split(".")
    section = settings.agent(parts[1]) if parts[0] == "agents" else getattr(settings, parts[0])
    return values.to_toml(entry.key, getattr(section, parts[-1]))
