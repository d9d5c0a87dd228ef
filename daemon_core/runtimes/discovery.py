"""Which agent CLIs this machine has, where, in which version, and whether they can be used.

Rules:

- A setting names a program and nothing else is looked for then; otherwise PATH, the login shell's PATH (what
  the user's terminal finds), the provider's own places and the common ones are looked at, in this order. The
  first program that can be used counts: one that is too old or broken (left behind by another installer, say)
  hides no good one, and is told of only where there is none.
- All versions are asked for at once, each within ``PROBE_LIMIT_S``. What is known from before is not asked
  again: the cache is keyed by the path, what it leads to and what identifies that file, so with a warm cache
  no process is started. A shim of a version manager stays the same file when its program changes: it is
  asked every time.
- A program finds its interpreter where the user's terminal does: probes and runs get ``search_path``.
- Nothing found makes discovery fail. What cannot be used is listed with a status and a reason code.
- A damaged or unwritable cache costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import glob
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon_core.agents.families import families as drivable_families
from daemon_core.runtimes import formats, login_path, probes
from daemon_core.runtimes.places import COMMON_PLACES
from daemon_core.runtimes.probes import Answer
from daemon_core.runtimes.providers import Provider
from daemon_core.runtimes.sign_in import SignedIn, signed_in
from daemon_core.settings.atomic import write_private

log = logging.getLogger(__name__)

PROBE_LIMIT_S: Final = 10.0
CANDIDATES_LIMIT: Final = 4
"""So many programs of a provider are asked, one after the other, until one can be used."""
HANGING_FOR_S: Final = 600.0
"""How long a program that hung is not asked again: every start of the daemon would wait for it."""

Status = Literal["usable", "unsupported", "too_old", "broken", "not_executable", "missing"]

# Reason codes, with their parameters.
NOT_SUPPORTED: Final = "not_supported_yet"
TOO_OLD: Final = "version_too_old"  # version, min_version
TIMED_OUT: Final = "probe_timed_out"  # limit_s
NOT_STARTED: Final = "probe_not_started"  # error
WRONG_ARCHITECTURE: Final = "wrong_architecture"  # built_for, machine
INTERPRETER_MISSING: Final = "interpreter_missing"  # interpreter
FAILED: Final = "probe_failed"  # exit_code, output
UNREADABLE: Final = "version_unreadable"  # output
ANOTHER_PROGRAM: Final = "another_program"
NOT_EXECUTABLE: Final = "not_executable"  # path
NOT_FOUND: Final = "not_found"  # executables
OVERRIDE_NOT_FOUND: Final = "override_not_found"  # path, source

_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_OUTPUT_CHARS: Final = 200
_NO_COMMAND: Final = 127
# The file is a program, but not one for here: on Linux, macOS (two) and Windows (two).
_FOREIGN: Final = frozenset({errno.ENOEXEC, 86, 193, 216})
# What version managers put in place of a program (beside what is in a directory "shims").
_SHIMS: Final = frozenset({"volta-shim", "mise", "asdf", "proto-shim", "nodenv", "rtx"})
# Never seen by a program that is only asked for its version: credentials of this daemon, and what makes an
# agent believe that it runs inside another one.
_HIDDEN_ENV: Final = ("OSTLER_", "MULTICA_", "CLAUDECODE", "CLAUDE_CODE_")


class FoundAgent(msgspec.Struct, frozen=True, kw_only=True):
    """One provider on this machine."""

    provider: str
    name: str
    status: Status
    path: str = ""
    """Absolute, as found (not resolved: package managers switch versions behind a link)."""
    version: str = ""
    family: str = ""
    reason: str = ""
    """A code; empty if usable."""
    params: dict[str, str] = {}
    """What belongs to the reason."""
    min_version: str = ""
    install_hint: str = ""
    signed_in: SignedIn = "unknown"
    """As far as that can be seen without asking anybody."""
    sign_in_hint: str = ""
    sign_in_how: str = ""
    """The hint as a code; empty where there are only words."""
    sign_in_params: dict[str, str] = {}
    verified: bool = False
    """Whether anybody has run this kind of program under Ostler."""
    search_path: tuple[str, ...] = ()
    """Directories that a run's PATH has to end with, so that the program finds its interpreter."""

    @property
    def usable(self) -> bool:
        return self.status == "usable"


class _Entry(msgspec.Struct, frozen=True):
    """What is known of one program. ``hanging_until`` (wall clock, s) says that it did not answer."""

    identity: str
    """Of the file: device, number, size and times."""
    version: str = ""
    hanging_until: float = 0.0
    right: bool = True
    """Whether it has answered the provider's check as it should."""


class _Cache(msgspec.Struct):
    version: int = 3
    entries: dict[str, _Entry] = {}
    login_path: str = ""
    login_state: str = ""
    """What the login shell's answer depended on; empty: it has not been asked."""


class _Located(msgspec.Struct, frozen=True):
    """A program that is to be asked, or known already."""

    provider: Provider
    path: str
    key: str
    """Path, real path and arguments: what the cache is keyed by, with the identity inside the entry."""
    identity: str
    shim: bool = False
    """Whether it only leads on to a program that may change without it."""


async def discover(
    providers: Iterable[Provider],
    *,
    environ: Mapping[str, str],
    cache_path: Path | None,
    overrides: Mapping[str, str] | None = None,
    refresh: bool = False,
    common_places: Sequence[str] = COMMON_PLACES,
    limit_s: float = PROBE_LIMIT_S,
    login_shell: bool = False,
    run_environ: Mapping[str, str] | None = None,
    families: Collection[str] | None = None,
) -> list[FoundAgent]:
    """Look for all providers; one entry each, in their order. Never raises but for cancellation.

    Args:
        providers: What to look for.
        environ: The daemon's environment: PATH, HOME, and ``OSTLER_<PROVIDER>_PATH`` to name a program.
        cache_path: The cache file; None: none is used.
        overrides: Programs named by the settings, by provider; the environment goes before them.
        refresh: Ask all programs again, whatever the cache says.
        common_places: Directories to look in after PATH.
        limit_s: Time for each program.
        login_shell: Whether to ask the login shell for its PATH. Its answer is cached until its start files
            change.
        run_environ: What a run would be given, to see who is signed in; None: as ``environ``.
        families: Protocol families that can be driven; None: all that Ostler has.

    Cancelling is safe: programs being asked are killed first.
    """
    cancelled = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(
        None,
        _discover,
        list(providers),
        dict(environ),
        cache_path,
        dict(overrides or {}),
        refresh,
        common_places,
        limit_s,
        login_shell,
        dict(environ if run_environ is None else run_environ),
        frozenset(drivable_families() if families is None else families),
        cancelled,
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([work], timeout=2.0)
        raise


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The first ``1.2.3`` in a text as numbers."""
    found = _VERSION.search(text)
    if found is None:
        return None
    major, minor, patch = found.group().split(".")
    return int(major), int(minor), int(patch)


def version_in(text: str) -> str:
    """The version in the first line that holds one, or empty."""
    for line in _ESCAPES.sub("", text).splitlines():
        found = _VERSION.search(line)
        if found is not None:
            return found.group()
    return ""


def _discover(
    providers: list[Provider],
    environ: dict[str, str],
    cache_path: Path | None,
    overrides: dict[str, str],
    refresh: bool,
    common_places: Sequence[str],
    limit_s: float,
    login_shell: bool,
    run_environ: dict[str, str],
    families: frozenset[str],
    cancelled: threading.Event,
) -> list[FoundAgent]:
    known = _read_cache(cache_path)
    fresh = _Cache(login_path=known.login_path, login_state=known.login_state)
    found: dict[str, FoundAgent] = {}
    if login_shell:
        state = login_path.state(environ)
        if refresh or known.login_state != state:
            # First of all: what it says decides which programs there are, and what their scripts find.
            fresh.login_path = _ask_login_shell(environ, cancelled)
            fresh.login_state = state
    login = fresh.login_path.split(os.pathsep) if login_shell and fresh.login_path else []
    places = _expand(common_places, environ)
    waiting: dict[str, list[_Located]] = {}
    for provider in providers:
        there = _locate(provider, environ, overrides, login, places)
        if isinstance(there, FoundAgent):
            found[provider.id] = there
        else:
            waiting[provider.id] = there
    while waiting:
        to_ask: list[_Located] = []
        judged: list[tuple[_Located, _Entry, Answer | None]] = []
        for programs in waiting.values():
            located = programs.pop(0)
            entry = known.entries.get(located.key)
            if entry is None or refresh or not _still_true(entry, located):
                to_ask.append(located)
            else:
                fresh.entries[located.key] = entry
                judged.append((located, entry, None))
        checked = [each for each in to_ask if each.provider.check.args]
        questions = [_question(each, environ, login, limit_s) for each in to_ask]
        questions += [_question(each, environ, login, limit_s, check=True) for each in checked]
        answers = probes.ask_all(questions, cancelled)
        right = {
            each.key: _is_right(each.provider, answer)
            for each, answer in zip(checked, answers[len(to_ask) :], strict=True)
        }
        for located, answer in zip(to_ask, answers, strict=False):
            entry = _entry_of(located, answer, right.get(located.key, True))
            lasts = (entry.version or located.provider.version_optional) and entry.right
            if entry.hanging_until or (lasts and not located.shim):
                fresh.entries[located.key] = entry
            judged.append((located, entry, answer))
        for located, entry, said in judged:
            name = located.provider.id
            verdict = _verdict(located, entry, said, limit_s, families)
            if name not in found or verdict.usable:
                found[name] = verdict
            if verdict.status not in ("too_old", "broken") or not waiting[name] or cancelled.is_set():
                del waiting[name]
    if cache_path is not None and fresh != known and not cancelled.is_set():
        _write_cache(cache_path, fresh)
    return [_dressed(found[each.id], each, environ, run_environ, login) for each in providers]


def _ask_login_shell(environ: Mapping[str, str], cancelled: threading.Event) -> str:
    asked = login_path.question(environ)
    return "" if asked is None else login_path.path_in(probes.ask_all([asked], cancelled)[0])


def _dressed(
    agent: FoundAgent,
    provider: Provider,
    environ: Mapping[str, str],
    run_environ: Mapping[str, str],
    login: Sequence[str],
) -> FoundAgent:
    """With what does not depend on an answer of the program."""
    if not agent.path:
        return agent
    how, params = provider.sign_in.how
    own = set(environ.get("PATH", "").split(os.pathsep))
    beyond = dict.fromkeys(part for part in (*login, os.path.dirname(agent.path)) if os.path.isabs(part))
    return msgspec.structs.replace(
        agent,
        signed_in=signed_in(provider, run_environ),
        sign_in_hint=provider.sign_in.hint,
        sign_in_how=how,
        sign_in_params=params,
        search_path=tuple(part for part in beyond if part not in own),
    )


# --- looking -------------------------------------------------------------------------------------


def _locate(
    provider: Provider,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
    login: Sequence[str],
    places: Sequence[str],
) -> list[_Located] | FoundAgent:
    """The programs to ask, best first, or the verdict if there are none."""
    variable = f"OSTLER_{provider.id.upper().replace('-', '_')}_PATH"
    named = environ.get(variable) or overrides.get(provider.id) or ""
    names: Sequence[str] = provider.executables
    if named:
        names = [_home(named, environ)]
    elsewhere = [*login, *_expand(provider.places, environ), *places]
    unusable = ""
    located: dict[str, _Located] = {}
    """By what they lead to: a program under several names is asked once."""
    for name in names:
        for path in _candidates(name, environ, elsewhere):
            if len(located) == CANDIDATES_LIMIT:
                break
            try:
                info = os.stat(path)
            except (OSError, ValueError):
                continue
            if not stat.S_ISREG(info.st_mode):
                continue
            if not os.access(path, os.X_OK):
                unusable = unusable or path
                continue
            real = os.path.realpath(path)
            key = "\0".join((path, real, *provider.version_args))
            shim = _is_shim(path, real)
            located.setdefault(path if shim else real, _Located(provider, path, key, _identity(info), shim))
    if located:
        return list(located.values())
    if unusable:
        return _entry_for(
            provider, "not_executable", NOT_EXECUTABLE, path=unusable, params={"path": unusable}
        )
    if named:
        source = variable if environ.get(variable) else "settings"
        params = {"path": named, "source": source}
        return _entry_for(provider, "missing", OVERRIDE_NOT_FOUND, params=params)
    return _entry_for(provider, "missing", NOT_FOUND, params={"executables": ", ".join(names)})


def _identity(info: os.stat_result) -> str:
    # Packers write old times into what they unpack; the time of the change of the entry is the system's own.
    times = (info.st_mtime_ns, info.st_ctime_ns)
    return ":".join(str(part) for part in (info.st_dev, info.st_ino, info.st_size, *times))


def _is_shim(path: str, real: str) -> bool:
    return os.path.basename(os.path.dirname(path)) == "shims" or os.path.basename(real) in _SHIMS


def _candidates(name: str, environ: Mapping[str, str], elsewhere: Sequence[str]) -> Iterable[str]:
    """Where a program of this name could be, best first."""
    if os.path.isabs(name):
        yield name
        return
    if os.sep in name:
        return  # relative to what? A daemon's current directory means nothing.
    hooks = os.path.join(environ.get("HOME", ""), ".multica", "hooks")
    for directory in [*environ.get("PATH", "").split(os.pathsep), *elsewhere]:
        # Wrappers of another daemon live there and must not be taken for the agents themselves.
        if os.path.isabs(directory) and not (directory + os.sep).startswith(hooks + os.sep):
            yield os.path.join(directory, name)


def _expand(places: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Places with ``~`` and ``*`` filled in, newest versions first."""
    expanded: list[str] = []
    for place in places:
        path = filled_place(place, environ)
        if not path:
            continue
        if "*" not in path:
            expanded.append(path)
            continue
        expanded.extend(
            sorted(glob.glob(path), key=lambda one: parse_version(one) or (0, 0, 0), reverse=True)
        )
    return expanded


def filled_place(place: str, environ: Mapping[str, str]) -> str:
    """A place with ``~`` and ``$NAME`` filled in; empty where the variable is not set."""
    if not place.startswith("$"):
        return _home(place, environ)
    name, slash, rest = place[1:].partition("/")
    value = environ.get(name, "")
    return value + slash + rest if os.path.isabs(value) else ""


def _home(path: str, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return os.path.join(home, path[2:]) if path.startswith("~/") and home else path


def probe_env(environ: Mapping[str, str], path: str, beyond: Sequence[str] = ()) -> dict[str, str]:
    """The daemon's environment without what is its own, with PATH as a run of the program has it: a script of
    a version manager finds its interpreter beside itself, or where the user's terminal does."""
    env = {name: value for name, value in environ.items() if not name.startswith(_HIDDEN_ENV)}
    parts = (env.get("PATH", ""), *beyond, os.path.dirname(path))
    env["PATH"] = os.pathsep.join(part for part in parts if part)
    env["NO_COLOR"] = "1"
    return env


# --- judging -------------------------------------------------------------------------------------


def _question(
    located: _Located,
    environ: Mapping[str, str],
    login: Sequence[str],
    limit_s: float,
    *,
    check: bool = False,
) -> probes.Question:
    provider = located.provider
    argv = (located.path, *(provider.check.args if check else provider.version_args))
    return probes.Question(argv=argv, env=probe_env(environ, located.path, login), limit_s=limit_s)


def _entry_of(located: _Located, answer: Answer, right: bool) -> _Entry:
    hanging_until = time.time() + HANGING_FOR_S if answer.failure == "timed_out" else 0.0
    return _Entry(located.identity, _version_of(answer), hanging_until, right)


def _is_right(provider: Provider, answer: Answer) -> bool:
    """Whether a program has answered its provider's check as it should."""
    if answer.failure or answer.exit_code != 0:
        return False
    wanted = provider.check.answer.items()
    for line in answer.stdout.splitlines():
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            continue
        if (
            isinstance(found, dict)
            and wanted
            <= {name: value for name, value in found.items() if isinstance(value, str | int | bool)}.items()
        ):
            return True
    return not wanted


def _version_of(answer: Answer) -> str:
    if answer.failure or answer.exit_code != 0:
        return ""
    return version_in(answer.stdout) or version_in(answer.stderr)


def _verdict(
    located: _Located, entry: _Entry, answer: Answer | None, limit_s: float, families: Collection[str]
) -> FoundAgent:
    """What a program is good for; ``answer`` None: the cache knows."""
    provider = located.provider

    def verdict(
        status: Status, reason: str = "", told: Mapping[str, str] | None = None, **params: str
    ) -> FoundAgent:
        params |= told or {}
        return _entry_for(provider, status, reason, path=located.path, version=entry.version, params=params)

    if provider.family not in families:
        return verdict("unsupported", NOT_SUPPORTED)
    if entry.version:
        least = parse_version(provider.min_version)
        has = parse_version(entry.version)
        if least is not None and has is not None and has < least:
            return verdict("too_old", TOO_OLD, version=entry.version, min_version=provider.min_version)
        return verdict("usable") if entry.right else verdict("broken", ANOTHER_PROGRAM)
    if provider.version_optional and entry.right:
        return verdict("usable")
    if entry.hanging_until:
        return verdict("broken", TIMED_OUT, limit_s=f"{limit_s:g}")
    if answer is None or answer.failure == "cancelled":
        return verdict("broken", FAILED, exit_code="", output="")
    if answer.failure == "not_started":
        return verdict("broken", *_why_not_started(located.path, answer))
    said = _ESCAPES.sub("", answer.stdout.strip() or answer.stderr.strip())[:_OUTPUT_CHARS]
    output = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in said)
    if answer.exit_code == _NO_COMMAND and (missing := _missing_interpreter(located.path, answer)):
        return verdict("broken", INTERPRETER_MISSING, {"interpreter": missing})
    if answer.exit_code:
        return verdict("broken", FAILED, exit_code=str(answer.exit_code), output=output)
    return verdict("broken", UNREADABLE, output=output)


def _why_not_started(path: str, answer: Answer) -> tuple[str, dict[str, str]]:
    """Why the system refused to start a program that is there and executable."""
    head = formats.head_of(path)
    if answer.number in _FOREIGN and (built_for := formats.built_for(head)):
        machine = formats.this_machine()
        if built_for != machine:
            return WRONG_ARCHITECTURE, {"built_for": built_for, "machine": machine}
    if answer.number == errno.ENOENT and (interpreter := formats.interpreter_of(head)):
        return INTERPRETER_MISSING, {"interpreter": interpreter}
    return NOT_STARTED, {"error": answer.error}


def _missing_interpreter(path: str, answer: Answer) -> str:
    """What the first line of a script asks for and the system did not find."""
    interpreter = formats.interpreter_of(formats.head_of(path))
    return interpreter if interpreter and interpreter in answer.stderr else ""


def _entry_for(
    provider: Provider,
    status: Status,
    reason: str,
    *,
    path: str = "",
    version: str = "",
    params: Mapping[str, str],
) -> FoundAgent:
    return FoundAgent(
        provider=provider.id,
        name=provider.name,
        status=status,
        path=path,
        version=version,
        family=provider.family,
        reason=reason,
        params=dict(params),
        min_version=provider.min_version,
        install_hint=provider.install,
        verified=bool(provider.verified),
    )


# --- the cache -----------------------------------------------------------------------------------


def _still_true(entry: _Entry, located: _Located) -> bool:
    if entry.identity != located.identity or (located.shim and not entry.hanging_until):
        return False
    return not entry.hanging_until or time.time() < entry.hanging_until


def _read_cache(path: Path | None) -> _Cache:
    if path is None:
        return _Cache()
    try:
        cache = msgspec.json.decode(path.read_bytes(), type=_Cache)
    except FileNotFoundError:
        return _Cache()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.info("the cache of agent versions cannot be read and is made anew: %s", error)
        return _Cache()
    return cache if cache.version == _Cache().version else _Cache()


def _write_cache(path: Path, cache: _Cache) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, msgspec.json.encode(cache))
    except OSError as error:
        log.info("the cache of agent versions cannot be written: %s", error)
