"""Reads the files that describe residents, and says what is wrong with one, and on which line.

A file that cannot be read is a ``Mistake``; all the others load. Nothing is watched: ``Catalog.look`` looks
at names, sizes and times when somebody asks, and reads only what has changed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from daemon_core.settings.values import parse_duration, parse_size
from daemon_core.workdirs.plain_yaml import what_is_not_plain

FILE_LIMIT_BYTES: Final = 64 * 1024
FILES_LIMIT: Final = 200
SUFFIXES: Final = (".yaml", ".yml")
LEAST_LOG_BYTES: Final = 16 * 1024
LONGEST_S: Final = 7 * 86400.0

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Policy = Literal["always", "on-failure", "never"]
BuildWhen = Literal["changed", "always", "asked"]


class RestartRules(msgspec.Struct, frozen=True, kw_only=True):
    """When it is started again by itself."""

    policy: Policy = "on-failure"
    first_s: float = 1.0
    """The pause before the first restart; each further one is twice as long."""
    last_s: float = 300.0
    give_up_after: int = 5
    """So many ends within ``within_s``, and it is not started again by itself; 0: never give up."""
    within_s: float = 600.0


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What is run before a start."""

    argv: tuple[str, ...]
    when: BuildWhen = "changed"
    inputs: tuple[str, ...] = ()
    """Files and directories whose change asks for another build, as they are in the file."""
    limit_s: float = 900.0


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """One file's content, checked. Paths are absolute."""

    id: str
    file: str
    name: str
    version: str = ""
    description: str = ""
    argv: tuple[str, ...] = ()
    """What is started; without its program where ``provider`` is set."""
    provider: str = ""
    directory: str
    env_file: str = ""
    enabled: bool = True
    restart: RestartRules = RestartRules()
    grace_s: float = 10.0
    """Between the request to end and the kill."""
    build: Build | None = None
    memory: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    log_bytes: int = 10 * 1000 * 1000
    """Of one file of the log."""
    log_files: int = 5
    pid_file: str = ""
    """Where it writes its own process id, to know one that was started elsewhere."""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file is no resident."""

    file: str
    what: str
    line: int | None = None
    hint: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else self.file


class ReadError(Exception):
    """A file is no resident. ``key`` is the dotted name of what is wrong."""

    def __init__(self, what: str, *, key: str = "", hint: str = "", line: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.key = key
        self.hint = hint
        self.line = line


@dataclass
class Catalog:
    """All residents of a directory, by id, and the files with mistakes."""

    directory: Path
    residents: dict[str, Resident] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()
    _seen: tuple[Any, ...] | None = None
    _read: dict[str, tuple[Any, Resident | Mistake]] = field(default_factory=dict)

    def look(self) -> bool:
        """See what is there now; reads only what has changed. True if anything has. Never raises."""
        try:
            facts = {
                entry.path: _stamp(entry.stat())
                for entry in sorted(os.scandir(self.directory), key=lambda entry: entry.name)
                if entry.name.endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
            }
        except FileNotFoundError:
            facts = {}
        except OSError as error:
            mistake = Mistake(file=str(self.directory), what=f"it cannot be read: {error.strerror or error}")
            changed = self.mistakes != (mistake,)
            self.residents, self.mistakes, self._seen = {}, (mistake,), None
            return changed
        seen = tuple(facts.items())
        if seen == self._seen:
            return False
        self._seen = seen
        fresh: dict[str, tuple[Any, Resident | Mistake]] = {}
        for path, stamp in list(facts.items())[:FILES_LIMIT]:
            old = self._read.get(path)
            fresh[path] = old if old is not None and old[0] == stamp else (stamp, read(Path(path)))
        self._read = fresh
        self._sort_out(facts)
        return True

    def _sort_out(self, facts: Mapping[str, Any]) -> None:
        residents: dict[str, Resident] = {}
        mistakes: list[Mistake] = []
        for _, found in self._read.values():
            if isinstance(found, Mistake):
                mistakes.append(found)
            elif found.id in residents:
                first = os.path.basename(residents[found.id].file)
                mistakes.append(
                    Mistake(
                        file=found.file,
                        what=f"{first} already describes a resident with the id {found.id}",
                        line=line_of_key(Path(found.file), "id"),
                        hint="Give one of them another id",
                    )
                )
            else:
                residents[found.id] = found
        if len(facts) > FILES_LIMIT:
            mistakes.append(
                Mistake(file=str(self.directory), what=f"only the first {FILES_LIMIT} files are read")
            )
        self.residents, self.mistakes = residents, tuple(mistakes)


def read(path: Path) -> Resident | Mistake:
    """One file. Never raises."""
    lines: dict[str, int] = {}
    try:
        tree, lines = parsed(_text(path))
        return _resident(tree, path)
    except ReadError as error:
        line = error.line
        key = error.key
        while line is None and key:
            line = lines.get(key)
            key = key.rpartition(".")[0]
        return Mistake(file=str(path), what=error.what, line=line, hint=error.hint)


def parsed(text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's content, and the line of every key by its dotted name. Raises ``ReadError``."""
    import yaml

    try:
        match what_is_not_plain(text, yaml.SafeLoader):
            case "reference", line:
                what = "references to other places (*name) are not taken"
                raise ReadError(what, hint="Write the value out", line=line)
            case "depth", line:
                raise ReadError("this is nested too deeply", line=line)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[str, int] = {}
        if node is None:
            raise ReadError("the file is empty", line=1)
        if not isinstance(node, yaml.MappingNode):
            raise ReadError("this is not a list of names and values", hint='Write "id: ..." first', line=1)
        _note_lines(node, "", lines)
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "it cannot be understood"
        raise ReadError(
            f"this is not valid YAML: {what}", line=mark.line + 1 if mark is not None else None
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ReadError(f"this is not valid YAML: {' '.join(str(error).split())[:200]}", line=1) from error
    return tree, lines


def line_of_key(path: Path, key: str) -> int | None:
    """The line of a key in a file, if both are there."""
    try:
        return parsed(_text(path))[1].get(key)
    except ReadError:
        return None


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ReadError(f"the file cannot be read: {error.strerror or error}") from error
    if len(data) > FILE_LIMIT_BYTES:
        raise ReadError(f"the file is larger than {FILE_LIMIT_BYTES // 1024} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ReadError("the file is not UTF-8 text", line=line) from error


def _note_lines(node: Any, prefix: str, lines: dict[str, int]) -> None:
    import yaml

    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in lines:
            raise ReadError(f"{name} is there twice, also on line {lines[name]}", line=line)
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _note_lines(value, f"{name}.", lines)


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


# --- what the keys mean -----------------------------------------------------------------------------


class _Table:
    """A mapping of the file, with the words for what is wrong with a value."""

    def __init__(self, tree: Any, name: str = "") -> None:
        if not isinstance(tree, dict):
            raise ReadError(f"{name} must have names and values below it", key=name)
        self._tree = dict(tree)
        self._name = name

    def key(self, name: str) -> str:
        return f"{self._name}.{name}" if self._name else name

    def take(self, name: str) -> Any:
        return self._tree.pop(name, None)

    def text(self, name: str, default: str = "") -> str:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)  # `version: 1.0` is a number in YAML, and meant as text
        if not isinstance(value, str) or "\0" in value:
            # Words such as on, off, yes and no are no texts in YAML.
            raise ReadError(
                f"{self.key(name)} must be a text", key=self.key(name), hint="Put it in quotation marks"
            )
        return value.strip()

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ReadError(f"{self.key(name)} must be true or false", key=self.key(name))
        return value

    def count(self, name: str, default: int, least: int, most: int) -> int:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ReadError(
                f"{self.key(name)} must be a whole number from {least} to {most}", key=self.key(name)
            )
        return value

    def duration(self, name: str, default: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
            return 0.0
        try:
            found = parse_duration(value) if isinstance(value, str) else None
        except ValueError:
            found = None
        if found is None or found > LONGEST_S:
            raise ReadError(
                f'{self.key(name)} must be a duration such as "30s" or "5m", at most 7 days',
                key=self.key(name),
            )
        return found

    def size(self, name: str, default: int, least: int) -> int:
        value = self.take(name)
        if value is None:
            return default
        try:
            found = parse_size(str(value)) if isinstance(value, str | int) else -1
        except ValueError:
            found = -1
        if isinstance(value, bool) or found < least:
            raise ReadError(
                f'{self.key(name)} must be a size such as "10MB", at least {least // 1024} KiB',
                key=self.key(name),
            )
        return found

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.take(name)
        if value is None:
            return default
        if value not in choices:
            raise ReadError(
                f"{self.key(name)} must be {', '.join(choices[:-1])} or {choices[-1]}", key=self.key(name)
            )
        return str(value)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text that is divided as a shell would."""
        value = self.take(name)
        if value is None:
            return ()
        if isinstance(value, str):
            try:
                value = shlex.split(value)
            except ValueError as error:
                raise ReadError(f"{self.key(name)} has an open quotation mark", key=self.key(name)) from error
        return self._texts(name, value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text."""
        value = self.take(name)
        if value is None:
            return ()
        return self._texts(name, [value] if isinstance(value, str) else value)

    def _texts(self, name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ReadError(f"{self.key(name)} must be a text or a list of texts", key=self.key(name))
        found = []
        for word in value:
            if isinstance(word, int | float) and not isinstance(word, bool):
                word = str(word)
            if not isinstance(word, str) or "\0" in word:
                raise ReadError(f"{self.key(name)} has something in it that is no text", key=self.key(name))
            found.append(word)
        return tuple(found)

    def end(self) -> None:
        """Nothing may be left: a name that is not known was meant."""
        for name in self._tree:
            raise ReadError(f"{self.key(str(name))} is not known here", key=self.key(str(name)))


def _resident(tree: dict[str, Any], path: Path) -> Resident:
    table = _Table(tree)
    ident = table.text("id")
    if not ident:
        raise ReadError("the id is missing", hint='Add "id: NAME"', line=1)
    if not _ID.fullmatch(ident):
        raise ReadError(
            f"{ident!r} cannot be an id",
            key="id",
            hint="Use up to 64 of a-z, 0-9, - and _, beginning with a letter or digit",
        )
    command, provider, arguments = table.words("command"), table.text("provider"), table.words("arguments")
    if bool(command) == bool(provider):
        raise ReadError(
            "there must be either a command or a provider",
            key="command" if command else "id",
            hint='Write "command: PROGRAM ARGUMENTS", or "provider: NAME" and "arguments: [...]"',
        )
    if command and not command[0]:
        raise ReadError("the command names no program", key="command")
    directory = _absolute(table.text("directory") or ".", path.parent, "directory")
    env_file = table.text("env_file")
    log_table = _Table(table.take("log") or {}, "log")
    stop_table = _Table(table.take("stop") or {}, "stop")
    pid_file = table.text("pid_file")
    found = Resident(
        id=ident,
        file=str(path),
        name=table.text("name") or ident,
        version=table.text("version"),
        description=table.text("description"),
        argv=(*command, *arguments),
        provider=provider,
        directory=directory,
        env_file=_absolute(env_file, Path(directory), "env_file") if env_file else "",
        enabled=table.flag("enabled", True),
        restart=_restart(table.take("restart")),
        grace_s=stop_table.duration("grace", 10.0),
        build=_build(table.take("build")),
        memory=_named(table.texts("memory"), "memory"),
        cache=_named(table.texts("cache"), "cache"),
        log_bytes=log_table.size("size", 10_000_000, LEAST_LOG_BYTES),
        log_files=log_table.count("files", 5, 2, 100),
        pid_file=_absolute(pid_file, Path(directory), "pid_file") if pid_file else "",
    )
    log_table.end()
    stop_table.end()
    table.end()
    return found


def _restart(tree: Any) -> RestartRules:
    if tree is None:
        return RestartRules()
    table = _Table({"policy": tree} if isinstance(tree, str) else tree, "restart")
    policies = ("always", "on-failure", "never")
    if isinstance(tree, str) and tree not in policies:
        raise ReadError("restart must be always, on-failure or never", key="restart")
    first_s = table.duration("from", 1.0)
    rules = RestartRules(
        policy=table.choice("policy", "on-failure", policies),  # type: ignore[arg-type]
        first_s=first_s,
        last_s=table.duration("to", max(300.0, first_s)),
        give_up_after=table.count("give_up_after", 5, 0, 1000),
        within_s=table.duration("within", 600.0),
    )
    table.end()
    if rules.last_s < rules.first_s:
        raise ReadError("restart.to is shorter than restart.from", key="restart.to")
    return rules


def _build(tree: Any) -> Build | None:
    if tree is None:
        return None
    table = _Table({"command": tree} if isinstance(tree, str | list) else tree, "build")
    argv = table.words("command")
    if not argv or not argv[0]:
        raise ReadError("the build has no command", key="build")
    when = table.choice("when", "changed", ("changed", "always", "asked"))
    build = Build(
        argv=argv,
        when=when,  # type: ignore[arg-type]
        inputs=_named(table.texts("inputs"), "build.inputs"),
        limit_s=table.duration("time_limit", 900.0),
    )
    table.end()
    return build


def _named(paths: tuple[str, ...], key: str) -> tuple[str, ...]:
    if any(not path.strip() for path in paths):
        raise ReadError(f"{key} names an empty path", key=key)
    return paths


def _absolute(path: str, base: Path, key: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ReadError(f"{key}: the home directory in {path} is not known", key=key)
    return os.path.normpath(base / expanded)


# --- environment files ------------------------------------------------------------------------------


class EnvFileError(Exception):
    """An environment file cannot be used. ``line`` 0: it is not about one line."""

    def __init__(self, path: str, what: str, line: int = 0) -> None:
        super().__init__(f"{path}:{line}: {what}" if line else f"{path}: {what}")
        self.path = path
        self.what = what
        self.line = line


def read_env_file(path: str) -> dict[str, str]:
    """The variables of a ``.env`` file.

    Lines ``NAME=VALUE``, with ``export`` before them if one likes. A value in single quotes is taken as it
    is, one in double quotes with ``\\n``, ``\\t``, ``\\"`` and ``\\\\``; both may go over several lines.
    Outside of quotes a `` #`` begins a comment. Nothing is put in for ``$NAME``.

    Raises:
        EnvFileError: it cannot be read, or a line cannot be understood.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise EnvFileError(path, f"it cannot be read: {error.strerror or error}") from error
    if len(data) > FILE_LIMIT_BYTES:
        raise EnvFileError(path, f"it is larger than {FILE_LIMIT_BYTES // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EnvFileError(path, "it is not UTF-8 text") from error
    found: dict[str, str] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        number = at + 1
        line = lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        name, equals, rest = line.removeprefix("export ").partition("=")
        name = name.strip()
        # What is not understood is not quoted: it may be half a secret.
        if not equals:
            raise EnvFileError(path, "there is no = on this line", number)
        if not _VARIABLE.fullmatch(name):
            raise EnvFileError(path, "what is before the = cannot be the name of a variable", number)
        rest = rest.strip()
        if rest[:1] in ("'", '"'):
            quote = rest[0]
            body = rest[1:]
            while (end := _closing(body, quote)) < 0:
                if at >= len(lines):
                    raise EnvFileError(path, "the quotation mark of this line is never closed", number)
                body += "\n" + lines[at]
                at += 1
            after = body[end + 1 :].strip()
            if after and not after.startswith("#"):
                raise EnvFileError(path, "there is more after the closing quotation mark", number)
            value = body[:end] if quote == "'" else _unescaped(body[:end])
        else:
            value = re.split(r"\s#", rest, maxsplit=1)[0].strip()
        if "\0" in value:
            raise EnvFileError(path, "the value contains a NUL character", number)
        found[name] = value
    return found


def _closing(body: str, quote: str) -> int:
    at = 0
    while at < len(body):
        if body[at] == "\\" and quote == '"':
            at += 1
        elif body[at] == quote:
            return at
        at += 1
    return -1


def _unescaped(text: str) -> str:
    known = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}
    return re.sub(r"\\(.)", lambda m: known.get(m[1], m[0]), text, flags=re.DOTALL)
