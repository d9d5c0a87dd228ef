"""``config.toml`` as one frozen value, with every setting documented where it is declared.

``Settings`` is read once at the edge and handed on. Precedence: environment (``OSTLER_DAEMON_SLOTS`` for
``daemon.slots``, ``OSTLER_AGENTS_CLAUDE_PATH`` for ``agents.claude.path``), file, default. A misspelt key,
a wrong type and a syntax error are refused with file, line, key and what to write instead: nothing is
ignored in silence. A daemon that starts may leave out keys that it does not know (``unknown``): they may be
those of a newer version that it takes the place of.
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
from typing import Annotated, Any, Final

import msgspec

from daemon_core.settings import quiet, values
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.ports import FOREIGN_PORTS
from daemon_core.settings.toml_lines import line_of
from daemon_core.settings.values import Key

SIZE_LIMIT_BYTES: Final = 1024 * 1024

Unknown = Callable[[SettingsError], bool]
"""Whether a setting that there is not may be left out."""
MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all sections. Every field but ``Settings.agents`` carries its ``Key``."""


class DaemonSettings(Section, frozen=True, kw_only=True):
    slots: Annotated[
        int,
        Key(
            "count",
            "How many runs may go on at once.",
            "An agent takes 0.2 to 0.9 GB in all: the protocol's 20 would fill a desktop machine",
            least=1,
            most=256,
        ),
    ] = 8
    claim: Annotated[
        bool,
        Key(
            "flag", "Whether tasks are taken at all.", "Off: this machine shows its runtimes and runs nothing"
        ),
    ] = True
    port: Annotated[
        int,
        Key(
            "count",
            "Port on 127.0.0.1 for what runs and the hub's clients need; 0: chosen once, then kept.",
            "Living runs know the port, so it stays the same over restarts",
            most=65535,
            live=False,
        ),
    ] = 0
    name: Annotated[
        str, Key("text", "Name of this machine at a server; empty: its host name.", live=False)
    ] = ""
    stop_timeout: Annotated[
        float,
        Key(
            "duration",
            "How long a stopping daemon goes on delivering reports.",
            "What is left then is delivered after the next start",
            least=0,
            most=10 * MINUTE_S,
        ),
    ] = 5.0


class LimitSettings(Section, frozen=True, kw_only=True):
    per_runtime: Annotated[
        int,
        Key("count", "Most runs of one runtime at once; 0: only daemon.slots limits.", most=256),
    ] = 0
    runtimes: Annotated[
        dict[str, int],
        Key(
            "counts",
            "Most runs at once of a provider, instead of per_runtime: { claude = 2 }.",
            most=256,
        ),
    ] = {}
    models: Annotated[
        dict[str, int],
        Key(
            "counts",
            'Most runs at once with a model, whatever runs it: { "claude-opus-4-8" = 1 }.',
            "A model may cost more, or be allowed less, than the provider as a whole; named as tasks, agents"
            " and settings name it",
            least=1,
            most=256,
        ),
    ] = {}


class DelegationSettings(Section, frozen=True, kw_only=True):
    depth: Annotated[
        int,
        Key(
            "count",
            "How deep tasks may hand on work: 1: what was handed on may not hand on more; 0: not at all.",
            "One level is what agents make good use of; more multiplies cost before anybody sees it",
            most=8,
        ),
    ] = 1
    at_once: Annotated[
        int,
        Key(
            "count",
            "How many tasks that a conversation has handed on may be open at once.",
            "More than that wait for slots anyway",
            least=1,
            most=256,
        ),
    ] = 8
    per_task: Annotated[
        int,
        Key(
            "count",
            "How many tasks one task may hand on in all.",
            "A task that goes on handing on is going in circles",
            least=1,
            most=10000,
        ),
    ] = 50
    more_turns: Annotated[
        int,
        Key(
            "count",
            "How often a task that was handed on and ends with an unfinished to-do list is asked to go on.",
            "What is not done after that is told as it is",
            most=20,
        ),
    ] = 2


class JobSettings(Section, frozen=True, kw_only=True):
    time_limit: Annotated[
        float,
        Key(
            "duration",
            "Time after which a job is ended, unless it names its own; 0: never.",
            "Long enough for a build; one that hangs is not forgotten",
        ),
    ] = HOUR_S
    stall: Annotated[
        float,
        Key(
            "duration",
            "Silence of a job after which a question at the end of its output is told.",
            "Programs pause; a question that nobody sees costs the whole time limit",
            least=1,
            most=HOUR_S,
        ),
    ] = 45.0
    keep_told: Annotated[
        float,
        Key("duration", "How long an ended job and its output stay once its agent knows.", least=1),
    ] = HOUR_S
    keep_untold: Annotated[
        float,
        Key("duration", "How long an ended job and its output stay that nobody was told of.", least=1),
    ] = 24 * HOUR_S
    wake_limit: Annotated[
        int,
        Key(
            "count",
            "How often a conversation is woken by what becomes of its jobs before you say something in it.",
            "An agent that starts a job in each turn would go on for ever; 0: it is never woken",
            most=10000,
        ),
    ] = 20
    keep_open: Annotated[
        bool,
        Key(
            "flag",
            "Whether a task of another server stays open while its jobs go on, to be told how they end.",
            "Such a server cannot wake an agent; off: its task is over with its turn",
        ),
    ] = True
    output_budget: Annotated[
        int,
        Key(
            "size",
            "Most room that the files of ended jobs may take together; 0: no limit.",
            "What ended first goes first; a job that goes on never goes",
        ),
    ] = 2 * 2**30


class SpendSettings(Section, frozen=True, kw_only=True):
    daily_limit: Annotated[
        float,
        Key(
            "amount",
            "Most that tasks may cost in a day, in US dollars; then none is taken until midnight. 0: any.",
            "What a day may cost is yours to say; costs are what the agents state, else by list prices",
            most=1_000_000,
        ),
    ] = 0.0
    warn_at: Annotated[
        int,
        Key(
            "count",
            "Per cent of the limit at which you are told that it is near.",
            "Time enough to decide before tasks wait",
            least=1,
            most=100,
        ),
    ] = 80


class WatchdogSettings(Section, frozen=True, kw_only=True):
    idle: Annotated[
        float,
        Key(
            "duration",
            "Silence after which a run with no tool in flight is ended; 0: never.",
            "The protocol's own value: a model that thinks says something sooner",
        ),
    ] = 30 * MINUTE_S
    tool: Annotated[
        float,
        Key(
            "duration",
            "Silence after which a run with a tool in flight is ended; 0: never.",
            "Builds and test suites may be silent for long",
        ),
    ] = 2 * HOUR_S
    request: Annotated[
        float,
        Key(
            "duration",
            "Silence after which a run that waits for your answer is ended; 0: never.",
            "You may be away; what waits costs nothing but its slot",
        ),
    ] = 0.0
    run_time_limit: Annotated[
        float,
        Key("duration", "Time after which a run is ended in any case; 0: never.", "Long work is no fault"),
    ] = 0.0


class PermissionSettings(Section, frozen=True, kw_only=True):
    default: Annotated[
        str,
        Key(
            "choice",
            "Whether agents may use their tools: all of them, ask you, or none that they would ask for.",
            "A task is meant to go on by itself. None of these fences what an agent's own shell does once it"
            " may run: that takes a sandbox",
            choices=("allow", "ask", "deny"),
        ),
    ] = "allow"


class RetentionSettings(Section, frozen=True, kw_only=True):
    days: Annotated[
        int,
        Key(
            "count",
            "Days that ended conversations and their own work directories are kept; 0: for ever.",
            "A month back is what people look for; your own directories are never touched",
            most=36500,
        ),
    ] = 30
    run_days: Annotated[
        int,
        Key(
            "count",
            "Days that the raw output of an ended run is kept; 0: for ever.",
            "The transcript has it all; the raw output only helps with a fault",
            most=36500,
        ),
    ] = 7


class WorkdirSettings(Section, frozen=True, kw_only=True):
    budget: Annotated[
        int,
        Key(
            "size",
            "Most room that the work directories made by Ostler may take together; 0: no limit.",
            "What ended first goes first, also before its time; what is in use and your own never goes",
        ),
    ] = 0
    free_floor: Annotated[
        int,
        Key(
            "size",
            "With less free space than this no task is taken (of a disk at most a quarter counts); 0: off.",
            "Runs that fail on a full disk lose work; those that go on keep this much for their output",
        ),
    ] = 2 * 2**30
    artifacts: Annotated[
        tuple[str, ...],
        Key(
            "words",
            "Names of directories that tools make again, removed from work directories of open issues.",
            "They take most of the room and hold nobody's work",
        ),
    ] = ("node_modules", ".next", ".turbo")


class HubSettings(Section, frozen=True, kw_only=True):
    enabled: Annotated[
        bool,
        Key(
            "flag",
            "Whether the embedded server runs.",
            "Without it, local tasks cannot be started",
            live=False,
        ),
    ] = True


class RepositorySettings(Section, frozen=True, kw_only=True):
    urls: Annotated[
        tuple[str, ...],
        Key(
            "words",
            "Repositories that agents of your own tasks may check out, besides the one of their task.",
            "An agent gets what it was given; a local path has to be listed by you",
        ),
    ] = ()
    co_author: Annotated[
        str,
        Key(
            "text",
            "Added to the commits of your own tasks as Co-authored-by: Name <mail>; empty: nothing is.",
            "Servers decide for their own tasks",
        ),
    ] = ""


class McpSettings(Section, frozen=True, kw_only=True):
    offer: Annotated[
        bool,
        Key(
            "flag",
            "Whether agents that take MCP servers are given Ostler's own, beside yours.",
            "Its tools do what the command line does inside a task: jobs, issues, repositories",
        ),
    ] = True


class DiscoverySettings(Section, frozen=True, kw_only=True):
    login_shell: Annotated[
        bool,
        Key(
            "flag",
            "Whether the login shell is asked for PATH when an agent is not found.",
            "A daemon started by the desktop does not have the PATH of a terminal",
        ),
    ] = True
    timeout: Annotated[
        float,
        Key(
            "duration",
            "How long an agent may take to tell its version.",
            "Node programs need 1 to 3 s on a busy machine",
            least=0.1,
            most=MINUTE_S,
        ),
    ] = 10.0


class EnvironmentSettings(Section, frozen=True, kw_only=True):
    set: Annotated[
        dict[str, str],
        Key("texts", 'Variables that every run gets in addition: { EDITOR = "true" }.'),
    ] = {}
    drop: Annotated[
        tuple[str, ...],
        Key("words", "Variables of the daemon that no run gets; a name may end in *."),
    ] = ()


class LogSettings(Section, frozen=True, kw_only=True):
    level: Annotated[
        str, Key("choice", "How much the log says.", choices=("debug", "info", "warning", "error"))
    ] = "info"
    size: Annotated[
        int,
        Key(
            "size",
            "Size at which the log file is rotated.",
            "Weeks of quiet use",
            least=65536,
            most=2**30,
            live=False,
        ),
    ] = 10 * 2**20
    files: Annotated[int, Key("count", "How many rotated log files are kept.", most=100, live=False)] = 3


class DesktopSettings(Section, frozen=True, kw_only=True):
    """Read by the desktop, over the control API; the daemon only keeps them."""

    appearance: Annotated[
        str,
        Key(
            "choice",
            "Whether the window is light or dark; system: as your desktop is, also when that changes.",
            choices=("system", "light", "dark"),
        ),
    ] = "system"
    language: Annotated[
        str,
        Key(
            "choice",
            "Language of the tray and the window; system: that of your desktop where Ostler knows it.",
            choices=("system", "en", "de", "zh_CN"),
        ),
    ] = "system"
    explain_close: Annotated[
        bool,
        Key(
            "flag",
            "Whether closing the window says that Ostler goes on in the tray.",
            "Said once: it is switched off by itself after that",
        ),
    ] = True
    terminal: Annotated[
        str,
        Key(
            "text",
            "Command that opens a terminal, {directory} being where; empty: that of your desktop.",
        ),
    ] = ""
    editor: Annotated[
        str,
        Key(
            "text",
            "Command that opens an editor, {directory} being what; empty: one that is found.",
        ),
    ] = ""
    global_shortcut: Annotated[
        str,
        Key(
            "text",
            "Keys that open the box for a new task from anywhere, such as Ctrl+Alt+O; empty: none.",
            "Keys belong to you: none are taken without being asked",
        ),
    ] = ""


class NotificationSettings(Section, frozen=True, kw_only=True):
    """Read by the desktop, over the control API; the daemon only keeps them."""

    enabled: Annotated[
        bool,
        Key("flag", "Whether notifications are shown at all.", "What they would say is listed in any case"),
    ] = True
    needs_you: Annotated[
        bool,
        Key(
            "flag",
            "Whether a task that waits for your answer is notified, also in quiet hours.",
            "Without an answer nothing goes on",
        ),
    ] = True
    finished: Annotated[bool, Key("flag", "Whether a task that is done is notified.")] = True
    failed: Annotated[bool, Key("flag", "Whether a task that failed is notified.")] = True
    stalled: Annotated[
        bool, Key("flag", "Whether a task that has been silent for long is notified before it is ended.")
    ] = True
    parked: Annotated[bool, Key("flag", "Whether a task that waits for a usage limit is notified.")] = True
    update: Annotated[bool, Key("flag", "Whether an update that is ready is notified.")] = True
    trouble: Annotated[
        bool,
        Key(
            "flag",
            "Whether trouble with Ostler itself is notified, also in quiet hours.",
            "Tasks may not be taken meanwhile",
        ),
    ] = True
    sound: Annotated[
        bool,
        Key("flag", "Whether notifications may make the sound that your desktop gives them."),
    ] = True
    respect_do_not_disturb: Annotated[
        bool,
        Key(
            "flag",
            'Whether notifications wait while your desktop is on "do not disturb".',
            "What waited is told in one summary afterwards",
        ),
    ] = True
    quiet_hours: Annotated[
        dict[str, str],
        Key(
            "texts",
            'When notifications wait: { daily = "22:00-07:00", sat = "23:00-10:00", sun = "off" }.',
            "Days are mon to sun; daily stands for those not named. What waited is told in one summary",
        ),
    ] = {}
    per_minute: Annotated[
        int,
        Key(
            "count",
            "How many notifications may come in a minute; more become one summary.",
            "Ten tasks that end at once are one piece of news",
            least=1,
            most=60,
        ),
    ] = 5


class UpdateSettings(Section, frozen=True, kw_only=True):
    check: Annotated[
        bool,
        Key(
            "flag",
            "Whether newer versions are looked for and fetched by themselves.",
            "Off: `ostler update check` and the tray's own entry do it when you want",
        ),
    ] = True
    automatic: Annotated[
        bool,
        Key(
            "flag",
            "Whether a version that is ready is put in place by itself, when no task runs.",
            "It takes seconds, and runs go on. Off: it waits for you",
        ),
    ] = True
    interval: Annotated[
        float,
        Key(
            "duration",
            "How often newer versions are looked for.",
            "Each look spreads itself, so that not all machines come at once",
            least=15 * MINUTE_S,
            most=30 * 24 * HOUR_S,
        ),
    ] = 6 * HOUR_S
    quiet_limit: Annotated[
        float,
        Key(
            "duration",
            "How long a moment without tasks is waited for, before it is put in place anyway; 0: not.",
            "Runs go on over it in any case; a machine that is never idle would never be updated",
            most=30 * 24 * HOUR_S,
        ),
    ] = 24 * HOUR_S
    size_limit: Annotated[
        int,
        Key(
            "size",
            "A larger file than this is not fetched.",
            "Some times what Ostler takes",
            least=2**20,
        ),
    ] = 512 * 2**20
    url: Annotated[
        str,
        Key(
            "text",
            "Where newer versions are looked for, in place of the installer's own address; empty: there.",
            "A mirror: what comes from it has to have the same signatures",
        ),
    ] = ""


class AgentSettings(Section, frozen=True, kw_only=True):
    """``[agents.<provider>]``: how one provider is started on this machine."""

    enabled: Annotated[bool, Key("flag", "Whether this provider is offered as a runtime.")] = True
    path: Annotated[
        str,
        Key("text", "Its program (for shell: the shell); empty: looked for in PATH. ~ is your home."),
    ] = ""
    args: Annotated[
        tuple[str, ...], Key("words", "Arguments added to each start, before those of Ostler (which win).")
    ] = ()
    model: Annotated[
        str, Key("text", "Model where neither task nor agent names one; empty: its own choice.")
    ] = ""
    thinking: Annotated[str, Key("text", "Thinking level where neither task nor agent names one.")] = ""
    permissions: Annotated[
        str,
        Key(
            "choice",
            "Instead of permissions.default: allow, ask, deny, or as-default.",
            choices=("as-default", "allow", "ask", "deny"),
        ),
    ] = "as-default"
    mcp: Annotated[
        str,
        Key(
            "choice",
            "Instead of mcp.offer: on, off, or as-default.",
            choices=("as-default", "on", "off"),
        ),
    ] = "as-default"
    resume_after_limit: Annotated[
        bool,
        Key(
            "flag",
            "Whether a task that met a usage limit goes on by itself when that has reset.",
            "Off: it uses up what you may want to use yourself; the task waits for you",
        ),
    ] = False


class Settings(Section, frozen=True, kw_only=True):
    daemon: DaemonSettings = DaemonSettings()
    limits: LimitSettings = LimitSettings()
    delegation: DelegationSettings = DelegationSettings()
    jobs: JobSettings = JobSettings()
    spend: SpendSettings = SpendSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    permissions: PermissionSettings = PermissionSettings()
    retention: RetentionSettings = RetentionSettings()
    workdirs: WorkdirSettings = WorkdirSettings()
    hub: HubSettings = HubSettings()
    repositories: RepositorySettings = RepositorySettings()
    mcp: McpSettings = McpSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    environment: EnvironmentSettings = EnvironmentSettings()
    log: LogSettings = LogSettings()
    desktop: DesktopSettings = DesktopSettings()
    notifications: NotificationSettings = NotificationSettings()
    updates: UpdateSettings = UpdateSettings()
    agents: dict[str, AgentSettings] = {}

    def agent(self, provider: str) -> AgentSettings:
        """The settings of a provider, defaults where there are none."""
        return self.agents.get(provider) or AgentSettings()

    def permission_mode(self, provider: str) -> str:
        """``allow``, ``ask`` or ``deny`` for the runs of a provider."""
        chosen = self.agent(provider).permissions
        return self.permissions.default if chosen == "as-default" else chosen

    def offers_mcp(self, provider: str) -> bool:
        """Whether the runs of a provider are given Ostler's own MCP server."""
        chosen = self.agent(provider).mcp
        return self.mcp.offer if chosen == "as-default" else chosen == "on"

    def run_limit(self, provider: str) -> int:
        """Most runs at once of one runtime of ``provider``."""
        limit = self.limits.runtimes.get(provider, self.limits.per_runtime)
        return min(limit or self.daemon.slots, self.daemon.slots)


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
    raise SettingsError(f"there is no setting {name}", hint=_nearest(parts), file=file, line=line, key=name)


def _nearest(parts: list[str]) -> str:
    provider = parts[1] if len(parts) == 3 else "claude"
    known = [entry.name.replace("<provider>", provider) for entry in entries()]
    name = ".".join(parts)
    # The right name in the wrong section comes before a similar one.
    near = [other for other in known if other.rpartition(".")[2] == parts[-1]][:1]
    near = near or difflib.get_close_matches(name, known, 1, 0.6)
    return f"Did you mean {near[0]}?" if near else "`ostler config list` shows every setting"


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
            f"the settings cannot be read: {error.strerror}", hint="Check the file's permissions", file=path
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
            raise SettingsError(
                f"{name} {error}",
                hint=entry.key.what.rstrip("."),
                file=path,
                line=line_of(text, name),
                key=name,
            ) from error
        if providers is not None:
            _check_provider(name, found[name], providers, path, line_of(text, name))
    for name, entry, given in overrides(environ or {}):
        try:
            found[name] = values.from_toml(entry.key, values.from_text(entry.key, given))
            _check(name, found[name])
        except ValueError as error:
            variable = override_name(name)
            raise SettingsError(
                f"{variable} {error}", hint="Correct or unset this environment variable", key=variable
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
        raise SettingsError("the file is larger than 1 MiB", hint="Is it really a settings file?", file=path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            "the file is not UTF-8 text",
            hint="Save it as UTF-8",
            file=path,
            line=raw.count(b"\n", 0, error.start) + 1,
        ) from error


_POSITION = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def _tree(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise SettingsError("this is not valid TOML: nested too deeply", file=path, line=1) from error
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = _POSITION.search(message)
        line = int(position[1]) if position and position[1] else text.count("\n") + 1
        what = _POSITION.sub("", message)
        raise SettingsError(
            f"this is not valid TOML: {what[:1].lower()}{what[1:]}",
            hint='Correct the line; texts stand in quotation marks, as in idle = "30m"',
            file=path,
            line=line,
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
                )


def _check(name: str, value: Any) -> None:
    """Rules that a kind and a range do not express."""
    if name == "daemon.port" and value and (value < 1024 or value in FOREIGN_PORTS):
        raise ValueError(
            f"must be 0 or from 1024 to 65535 without {FOREIGN_PORTS.start} to {FOREIGN_PORTS.stop - 1} "
            f"(another program's), not {value}"
        )
    if name == "notifications.quiet_hours":
        quiet.check(value)
    if name == "environment.set":
        for variable in value:
            if not variable or "=" in variable:
                raise ValueError(f'has a variable with the impossible name "{variable}"')
    if name.startswith("agents.") and name.endswith(".path") and value:
        given = os.path.expanduser(value)
        if os.sep in given and not os.path.isabs(given):
            raise ValueError(f'must be an absolute path or a bare name, not "{value}"')


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
