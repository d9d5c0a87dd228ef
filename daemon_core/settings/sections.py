"""Which settings there are: every one documented where it is declared, with its kind, limits and default.

``Settings`` is one frozen value, read once at the edge (``file``) and handed on.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from daemon_core.settings.values import Key

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
    keep_open_for: Annotated[
        float,
        Key(
            "duration",
            "For how long after its start such a task stays open at most; 0: as long as its jobs go on.",
            "Earlier servers fail what has run for two and a half hours; later ones, which do not, are known",
        ),
    ] = 140 * MINUTE_S
    output_budget: Annotated[
        int,
        Key(
            "size",
            "Most room that the files of ended jobs may take together; 0: no limit.",
            "What ended first goes first; a job that goes on never goes",
        ),
    ] = 2 * 2**30
    output_limit: Annotated[
        int,
        Key(
            "size",
            "How much of a job's output is kept: of more the middle goes; at least 1 MiB, 0: all of it.",
            "A command that never stops talking must not fill the disk; its beginning and its end stay",
        ),
    ] = 2**30


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
    progress: Annotated[
        float,
        Key(
            "duration",
            "Time without progress after which a run of Codex with no tool in flight is ended; 0: never.",
            "The protocol's own value: it may go on to tell of tokens and connections and do nothing",
        ),
    ] = 10 * MINUTE_S
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
    job: Annotated[
        bool,
        Key(
            "flag",
            "Whether the end of a job is notified that you have started yourself.",
            "Nobody else is told of it; one that was over within ten seconds is not",
        ),
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
