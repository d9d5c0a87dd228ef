"""Everything that crosses the control API: frozen, keyword-only structures.

Times are RFC 3339 in UTC, durations seconds, sizes bytes. Unknown fields are tolerated on both ends; fields
are added, never renamed or taken away within ``/v1``. What has to be worded for people is a code with
parameters.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon_core.protocol.wire import Usage

API_VERSIONS = (1, 1)
"""Oldest and newest version of the API that this code speaks; face and daemon shake hands on it."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the daemon tells."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is asked. A misspelt field is refused rather than ignored: it was meant."""


# --- daemon ----------------------------------------------------------------------------------------


class Condition(View, frozen=True, kw_only=True):
    """Something that is not as it should be, in a form that each front end words for itself."""

    code: str
    params: dict[str, Any] = {}
    since: str = ""
    next_try_at: str | None = None
    """When something happens next by itself; None: nothing does."""
    action: str = ""
    """The one thing the user can do, as a code; empty: nothing needs doing."""


class Barrier(View, frozen=True, kw_only=True):
    """Why nothing is claimed. ``until`` None: until it is taken down."""

    reason: Literal["user", "update"] = "user"
    since: str = ""
    until: str | None = None


class ConnectionView(View, frozen=True, kw_only=True):
    """One server as the daemon sees it. ``reason`` is a condition's code, empty where all is well."""

    name: str
    url: str = ""
    status: Literal["connecting", "connected", "unreachable", "signed_out", "off"] = "connecting"
    workspaces: int = 0
    websocket: bool = False
    reason: str = ""
    reason_params: dict[str, Any] = {}
    since: str = ""
    next_try_at: str | None = None


class SpendView(View, frozen=True, kw_only=True):
    """What tasks have cost today, in US dollars. ``limit`` 0: there is none."""

    day: str = ""
    """As the clock of this machine has it."""
    spent: float = 0.0
    limit: float = 0.0
    warn_at: float = 0.0
    currency: str = "USD"
    unknown_tasks: int = 0
    """Tasks of whose cost something is not known: ``spent`` is at least that much."""
    held: bool = False
    """The limit is reached: no tasks are taken before ``resets_at``."""
    allowed: bool = False
    """The user lets this day go on beyond the limit."""
    resets_at: str = ""


class DaemonStatus(View, frozen=True, kw_only=True):
    status: Literal["starting", "running", "stopping", "stopped"]
    pid: int | None = None
    version: str = ""
    uptime: float = 0.0
    port: int | None = None
    active_runs: int = 0
    slots: int = 0
    barrier: Barrier | None = None
    connections: list[ConnectionView] = []
    runtimes: int = 0
    conditions: list[Condition] = []
    profile: str = "default"
    started_at: str = ""
    daemon_id: str = ""
    queued: int = 0
    """Tasks that wait for a slot or a runtime."""
    needs_input: int = 0
    """Running tasks that wait for an answer."""
    undelivered: int = 0
    """Reports that no server has taken yet."""
    api: tuple[int, int] = API_VERSIONS
    spend: SpendView | None = None


class WorkspaceHealth(View, frozen=True, kw_only=True):
    id: str
    runtimes: list[str] = []


class Health(View, frozen=True, kw_only=True):
    """Answer of ``/health`` on the loopback port: the protocol's fields, then Ostler's own."""

    status: Literal["starting", "running", "stopping"]
    pid: int
    os: str
    uptime: str
    """As Go prints a duration: "1h2m3s"."""
    daemon_id: str = ""
    device_name: str = ""
    server_url: str = ""
    cli_version: str = ""
    profile: str = ""
    """Whose daemon this is: another profile's command must not take it for its own."""
    launched_by: str = "desktop"
    """Who looks after the daemon, as servers are told it."""
    active_task_count: int = 0
    running_task_count: int = 0
    """Of these, those whose agents are at work."""
    resource_wait_task_count: int = 0
    """Of these, those that wait for a directory, a model or a slot."""
    agents: list[str] = []
    workspaces: list[WorkspaceHealth] | None = None

    version: str = ""
    uptime_s: float = 0.0
    active_runs: int = 0
    barrier: Barrier | None = None
    api: tuple[int, int] = API_VERSIONS


class Pause(Request, frozen=True, kw_only=True):
    """``until`` None: until ``resume``."""

    until: str | None = None


class Stop(Request, frozen=True, kw_only=True):
    """``runs``: end the runs too; otherwise they go on without the daemon.

    ``restart``: another one follows at once, so runtimes stay registered at their servers.
    """

    runs: bool = False
    restart: bool = False


class StopAnswer(View, frozen=True, kw_only=True):
    """``runs_alive``: runs that go on without the daemon. ``runs_ended``: those that are being ended.
    ``jobs_alive``: jobs that go on without it; a stop ends none."""

    runs_alive: int = 0
    runs_ended: int = 0
    jobs_alive: int = 0
    pid: int = 0


class ReloadAnswer(View, frozen=True, kw_only=True):
    """Settings that changed: those in force now, and those that a restart will bring."""

    applied: list[str] = []
    needs_restart: list[str] = []


# --- runtimes and agents ---------------------------------------------------------------------------


class RuntimeView(View, frozen=True, kw_only=True):
    """An agent found on this machine; one that cannot be used has ``status`` unusable and a ``reason``."""

    id: str
    provider: str
    version: str = ""
    path: str = ""
    status: str = "online"
    """online, offline, off (switched off by the user), unusable (see ``reason``)."""
    connection: str = ""
    workspace: str = ""
    workspace_id: str = ""
    profile: str = ""
    """Id of the custom profile that it comes of; empty for a plain agent."""
    busy: int = 0
    """Runs going on."""
    reason: str = ""
    """Code for why it is not online; empty otherwise."""
    name: str = ""
    reason_params: dict[str, Any] = {}
    verified: bool = True
    """Whether this kind of agent was tried with Ostler by its makers; the others may have surprises."""
    signed_in: str = "unknown"
    """yes, no, or unknown: as far as files and variables tell."""
    hint: str = ""
    """How to sign in, if nobody is."""
    hint_code: str = ""
    """The same as a code, with what it names; empty where there are only words for it."""
    hint_params: dict[str, str] = {}


class AgentView(View, frozen=True, kw_only=True):
    """A named agent of the hub. Of its environment only the names are told."""

    id: str
    name: str
    runtime: str = ""
    """Provider that it runs on."""
    model: str = ""
    thinking: str = ""
    permissions: str = ""
    """allow, ask or deny; empty: as the settings say."""
    resume_after_limit: bool | None = None
    """Whether its tasks go on by themselves after a usage limit; None: as the settings say."""
    instructions: str = ""
    args: list[str] = []
    env_names: list[str] = []
    mcp_servers: list[str] = []
    skills: list[str] = []
    created_at: str = ""


class AgentSkill(Request, frozen=True, kw_only=True):
    """A skill to give to an agent: ``SKILL.md`` is its content, ``files`` are further texts by relative
    path.
    """

    name: str
    content: str
    description: str = ""
    files: dict[str, str] = {}


class AgentAdd(Request, frozen=True, kw_only=True):
    name: str
    runtime: str
    model: str = ""
    thinking: str = ""
    permissions: str = ""
    """allow, ask or deny; empty: as the settings say."""
    resume_after_limit: bool | None = None
    """Whether its tasks go on by themselves after a usage limit; None: as the settings say."""
    instructions: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    mcp_config: dict[str, Any] | None = None
    skills: list[AgentSkill] = []


class AgentEdit(Request, frozen=True, kw_only=True):
    """Fields left out stay as they are; ``env``, ``mcp_config`` and ``skills`` replace what was there."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    runtime: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    thinking: str | msgspec.UnsetType = msgspec.UNSET
    permissions: str | msgspec.UnsetType = msgspec.UNSET
    resume_after_limit: bool | msgspec.UnsetType | None = msgspec.UNSET
    instructions: str | msgspec.UnsetType = msgspec.UNSET
    args: list[str] | msgspec.UnsetType = msgspec.UNSET
    env: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    mcp_config: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    skills: list[AgentSkill] | msgspec.UnsetType = msgspec.UNSET


# --- tasks -----------------------------------------------------------------------------------------


class RunView(View, frozen=True, kw_only=True):
    """One execution by a process. ``exit_code`` is None where a signal ended it, or nothing has yet."""

    id: str
    status: Literal["starting", "running", "ended", "lost", "never_started"] = "starting"
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    reason: str = ""


class RequestView(View, frozen=True, kw_only=True):
    """What a running task's agent waits to be answered. ``kind``: permission (it asks before it uses a tool)
    or question (it asks the user something; ``options`` are the answers it offers). ``input`` is bounded."""

    id: str
    kind: str = "permission"
    tool: str = ""
    input: Any = None
    title: str = ""
    options: list[str] = []
    since: str = ""


class PlanEntryView(View, frozen=True, kw_only=True):
    """A line of the agent's own list of things to do. ``status``: pending, in_progress, completed."""

    text: str
    status: str = "pending"


class WatchView(View, frozen=True, kw_only=True):
    """The watchdog of a run. ``kind`` is which budget counts: idle, progress (it says something, but has to
    get on), tool (one is at work), request (an answer is waited for). ``budget`` 0: silence ends nothing.
    ``ends_at`` None: nothing ends the run by itself."""

    kind: str
    budget: float
    silent_since: str
    ends_at: str | None = None
    warned: bool = False
    """Whether the end is near enough that the user should know."""


class DelegationView(View, frozen=True, kw_only=True):
    """A task that another one has handed on. ``over``: nothing of it goes on any more."""

    id: str
    title: str
    status: str
    """That of its newest turn, whose other facts these are."""
    over: bool = False
    agent: str = ""
    runtime: str = ""
    model: str = ""
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    depth: int = 1
    parent_id: str = ""
    task_id: str = ""
    """Its newest turn; ``id`` is the first."""
    conversation_id: str = ""
    waited_for: bool = False
    """A call of its parent waits for it."""
    tool_calls: int = 0
    last_tool: str = ""
    last_message: str = ""
    """The end of the last thing it said."""
    to_do: list[PlanEntryView] = []
    work_dir: str = ""
    branch: str = ""
    result: str = ""
    failure_reason: str = ""
    error: str = ""


class TaskRow(View, frozen=True, kw_only=True):
    """A task in a list."""

    id: str
    title: str
    status: str
    runtime: str = ""
    agent: str = ""
    model: str = ""
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    conversation_id: str = ""
    directory: str = ""
    """The user's own directory, empty where Ostler made one."""
    needs_input: bool = False
    failure_reason: str = ""
    last_action: str = ""
    """The last thing it did, as the transcript has it, cut to a line."""
    server: str = ""
    notice: Condition | None = None
    """What is worth showing of a running one: silent (it will be ended), agent (its own words)."""
    parked_until: str | None = None
    """When a parked one can go on; None also where nobody said a time."""
    waiting: Condition | None = None
    """Why it does not go on, while it waits."""
    tool_calls: int = 0
    """Of a running one: how many tools it has used in this run."""
    tokens: int = 0
    """All that it used so far, where the agent tells; 0: not known."""
    parent_id: str = ""
    """The task that has handed it on; empty: none has."""
    depth: int = 0
    """How deep it was handed on."""
    open_children: int = 0
    """Tasks that its conversation has handed on and that are not over."""
    cost: float | None = None
    """US dollars so far; null: not known, or nothing was used."""
    cost_how: str = ""
    """stated by the agent, priced by a list, partial (at least so much), unknown; empty: nothing
    was used that is told."""
    changed_files: int | None = None
    """How many files it changed; null while it goes on, and where that is not known."""


class TaskView(View, frozen=True, kw_only=True):
    """A task with everything about it."""

    id: str
    title: str
    status: str
    runtime: str = ""
    agent: str = ""
    model: str = ""
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    work_dir: str = ""
    session_id: str = ""
    result: str = ""
    failure_reason: str = ""
    error: str = ""
    usage: list[Usage] = []
    runs: list[RunView] = []
    server: str = ""

    conversation_id: str = ""
    directory: str = ""
    prompt: str = ""
    thinking: str = ""
    needs_input: bool = False
    waiting: Condition | None = None
    """Why it does not go on, while it waits (for a slot, a directory, a runtime)."""
    attempt: int = 1
    messages: int = 0
    """Lines of the transcript so far."""
    repo: str = ""
    ref: str = ""
    requests: list[RequestView] = []
    """What it waits to be answered; ``needs_input`` says whether there is any."""
    plan: list[PlanEntryView] = []
    watch: WatchView | None = None
    """Of a run that goes on."""
    notices: list[Condition] = []
    """silent, agent (its own words: a retry, say), warning (what was asked for and is not done)."""
    parked_until: str | None = None
    goes_on: bool = False
    """Whether a parked one goes on by itself then."""
    parent_id: str = ""
    """The task that has handed it on; empty: none has."""
    depth: int = 0
    children: list[DelegationView] = []
    """What its conversation has handed on, and what those have."""
    cost: float | None = None
    """As in a list (``TaskRow``)."""
    cost_how: str = ""


class TaskAnswer(Request, frozen=True, kw_only=True):
    """An answer to an open request. ``decision``: allow, allow-task (this and what is like it for the rest
    of the task), deny. ``text``: the answer to a question, or why not."""

    decision: Literal["allow", "allow-task", "deny"]
    text: str = ""


class TaskExtend(Request, frozen=True, kw_only=True):
    """``seconds`` more before silence ends the run."""

    seconds: float


class TaskAdd(Request, frozen=True, kw_only=True):
    """Starts a conversation. ``directory`` is absolute; empty: Ostler makes one."""

    prompt: str
    runtime: str = ""
    """Provider or runtime id; empty: the agent's, else the first usable one."""
    directory: str = ""
    agent: str = ""
    model: str = ""
    thinking: str = ""
    title: str = ""
    repo: str = ""
    """Address of a repository (or a path of this machine) to check out into the directory that Ostler makes;
    not together with ``directory``."""
    ref: str = ""
    """Its branch, tag or commit; empty: the default branch."""
    permissions: str = ""
    """allow, ask or deny; empty: as agent and settings say."""


class TaskReply(Request, frozen=True, kw_only=True):
    prompt: str


class Deleted(View, frozen=True, kw_only=True):
    """What a deletion removed."""

    id: str
    conversation_id: str = ""
    tasks: int = 0
    work_dir: str = ""
    """The directory of its own that was removed; empty where there was none. Never the user's."""


class TranscriptLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a transcript; fields that its type does not have are left out."""

    seq: int
    type: str
    content: str | None = None
    tool: str | None = None
    input: Any = None
    output: str | None = None
    at: str = ""


class CommitView(View, frozen=True, kw_only=True):
    """A commit that a task brought. ``made`` False: it was made before, and only fetched or merged."""

    id: str
    subject: str = ""
    author: str = ""
    at: str = ""
    repository: str = ""
    """Path below the task's directory; empty: the directory itself."""
    made: bool = True


class FileChangeView(View, frozen=True, kw_only=True):
    """One file that a task changed. Counts are None where there is no text to count."""

    path: str
    status: str
    """added, modified, deleted, renamed, type_changed."""
    old_path: str = ""
    added: int | None = None
    deleted: int | None = None
    binary: bool = False
    before: bool = False
    """Whether the user had changed it before the task began; the diff shows the task's part alone."""
    note: str = ""
    """Why there is no diff: too_large, too_many, filtered, special, unreadable, submodule, not_copied,
    moved."""
    cut: bool = False
    """Whether the diff is longer than what is here."""
    diff: str = ""
    """Unified; left out when only the statistics were asked for."""


class ChangeNote(View, frozen=True, kw_only=True):
    """What the reader has to know about the answer: bounded, copies_cut, diff_cut, files_cut, before_unknown,
    base_unknown, not_compared, no_baseline."""

    code: str
    params: dict[str, Any] = {}


class TaskChanges(View, frozen=True, kw_only=True):
    """What a task changed in its directory. ``live``: it runs, and this is how it is now."""

    id: str
    live: bool = False
    work_dir: str = ""
    kind: str = ""
    """git or snapshot (the directory is in no repository); empty where nothing is known."""
    since: str = ""
    taken_at: str = ""
    files: list[FileChangeView] = []
    files_total: int = 0
    added: int = 0
    deleted: int = 0
    commits: list[CommitView] = []
    commits_total: int = 0
    before: list[str] = []
    """What the user had changed before the task began; none of it is in ``files`` unless changed again."""
    before_total: int = 0
    notes: list[ChangeNote] = []


# --- disk ------------------------------------------------------------------------------------------


class DiskDirectory(View, frozen=True, kw_only=True):
    """A directory that Ostler made for tasks. ``goes_at`` None: it does not go by itself for now."""

    path: str
    bytes: int = 0
    artifact_bytes: int = 0
    """Part of it that tools can make again."""
    task_id: str = ""
    conversation_id: str = ""
    title: str = ""
    server: str = ""
    ended_at: str | None = None
    reason: str = ""
    """Why it is kept (or goes): in_use, conversation, conversation_gone, archived, issue_open, issue_done,
    run_open, run_over, orphan, not_known, no_answer, local_directory."""
    goes_at: str | None = None


class DiskRepository(View, frozen=True, kw_only=True):
    """A repository in the cache."""

    path: str
    bytes: int = 0
    worktrees: int = 0
    last_used_at: str = ""
    name: str = ""
    """Host and path of the repository."""
    goes_at: str | None = None
    """When it goes if nobody uses it until then; None: it does not go by itself for now."""


class DiskArea(View, frozen=True, kw_only=True):
    """One of journal, hub, logs, runs (raw output), changes, skills, jobs, homes, trash."""

    name: str
    path: str
    bytes: int = 0


class DiskSpace(View, frozen=True, kw_only=True):
    """A file system that Ostler writes to. With less than ``floor`` free no task is taken."""

    path: str
    free: int
    total: int
    floor: int
    low: bool


class CleanItem(View, frozen=True, kw_only=True):
    path: str
    action: str
    """delete, artifacts (what tools can make again), or repository (out of the cache)."""
    reason: str
    bytes: int = 0
    task_id: str = ""
    title: str = ""


class CleanRound(View, frozen=True, kw_only=True):
    """What a clean-up took away, or with ``dry_run`` would."""

    at: str = ""
    dry_run: bool = False
    items: list[CleanItem] = []
    freed_bytes: int = 0
    tasks: int = 0
    """Tasks forgotten, with their transcripts."""
    runs: int = 0
    """Runs whose raw output was removed."""
    left: list[str] = []
    """What could not be removed."""


class DiskReport(View, frozen=True, kw_only=True):
    """What is used by what. ``budget`` 0: there is none."""

    total_bytes: int = 0
    directories: list[DiskDirectory] = []
    repositories: list[DiskRepository] = []
    areas: list[DiskArea] = []
    spaces: list[DiskSpace] = []
    budget: int = 0
    retention_days: int = 0
    run_days: int = 0
    last_clean: CleanRound | None = None


class CleanRequest(Request, frozen=True, kw_only=True):
    dry_run: bool = False


# --- jobs ------------------------------------------------------------------------------------------


class JobView(View, frozen=True, kw_only=True):
    """A background command. ``status``: running, done, failed, killed, timed_out, lost (what supervised it
    was ended from outside). It is over when ``ended_at`` is set: a killed one may still be ending."""

    id: str
    status: str
    name: str = ""
    command: str = ""
    directory: str = ""
    task_id: str = ""
    """The task that has started it; empty: a person has."""
    conversation: str = ""
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    pid: int | None = None
    output_path: str = ""
    output_bytes: int = 0
    errors_path: str = ""
    """Standard error, where that is kept apart."""
    errors_bytes: int = 0
    stalled: bool = False
    """It seems to wait for input."""
    stalled_at: str | None = None
    time_limit: float = 0.0
    terminal: bool = True
    wake: bool = True
    """Whether its agent is called again when it ends."""


# --- residents -------------------------------------------------------------------------------------


class ResidentView(View, frozen=True, kw_only=True):
    """A long-lived agent process that a file describes. A file with a mistake is one too (``invalid``)."""

    id: str
    name: str = ""
    version: str = ""
    description: str = ""
    file: str = ""
    """Empty: it is gone, and what it described still runs."""
    enabled: bool = False
    """Whether it starts with the daemon."""
    state: Literal[
        "stopped",
        "starting",
        "building",
        "running",
        "stopping",
        "waiting",
        "gave_up",
        "ended",
        "invalid",
    ] = "stopped"
    """waiting: it is started again at ``next_try_at``; ended: by itself, and its rules ask for no more."""
    reason: str = ""
    """exited, lost, not_started, build_failed, background (it went there by itself), directory_gone,
    provider_gone, env_file, file_gone, elsewhere (another daemon keeps it), outside (it runs and was not
    started here), barrier, ended_unseen, resident_invalid; empty where there is nothing to say."""
    reason_params: dict[str, Any] = {}
    pid: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    """By itself, since a person or the daemon started it."""
    next_try_at: str | None = None
    adopted: bool = False
    """Started elsewhere and taken on: it has no log here."""
    directory: str = ""
    log_path: str = ""
    """Where the output of its present start is."""


# --- updates ---------------------------------------------------------------------------------------


class UpdateVersion(View, frozen=True, kw_only=True):
    """A version that can be had. ``notes``: what is new, by language, a line each ("en" is always there)."""

    version: str
    notes: dict[str, list[str]] = {}
    released_at: str = ""
    download_bytes: int = 0
    """What is fetched: the whole, or what changed."""


class UpdateProgress(View, frozen=True, kw_only=True):
    """``phase``: download, or unpack (which checks, too). ``total_bytes`` 0: not known."""

    phase: Literal["download", "unpack"] = "download"
    done_bytes: int = 0
    total_bytes: int = 0


class UpdateNotice(View, frozen=True, kw_only=True):
    """What the user has not been told yet; told once, by whoever says so (``POST /v1/update/told``).

    ``kind``: ready (it can be restarted into), updated (it runs now), rolled_back (it did not work here, or
    the user wanted the one before: ``from_version`` runs), failed (it could not be put in place; nothing
    changed).
    """

    kind: Literal["ready", "updated", "rolled_back", "failed"]
    version: str
    from_version: str = ""
    notes: dict[str, list[str]] = {}
    reason: Condition | None = None


class UpdateResult(View, frozen=True, kw_only=True):
    """A line of the history. ``asked_by``: automatic, user, server, or installer (a package was installed).

    ``rolled_back``: ``version`` was left, and ``from_version`` is what runs again.
    """

    version: str
    from_version: str
    result: Literal["committed", "rolled_back", "failed"]
    at: str
    asked_by: str = "automatic"
    reason: Condition | None = None


class UpdateView(View, frozen=True, kw_only=True):
    """How Ostler stands with its updates.

    ``stage``: idle; checking (asks for the newest version); available (there is one; it is fetched next, or
    again at ``next_try_at``); downloading (``progress`` says how far, unpacking included); staged (it is here
    and checked; nothing happens by itself); waiting (the same, and it is applied by itself: see
    ``waits_for``); switching (no task is taken for some seconds); restarting; verifying (the new version is
    on trial); committed, rolled_back, failed (the last result, until the next check).
    """

    stage: Literal[
        "idle",
        "checking",
        "available",
        "downloading",
        "staged",
        "waiting",
        "switching",
        "restarting",
        "verifying",
        "committed",
        "rolled_back",
        "failed",
    ] = "idle"
    since: str = ""
    current: str = ""
    """The version that the daemon is."""
    previous: str = ""
    """The version that ``rollback`` goes to; empty: there is none."""
    possible: bool = True
    why_not: Condition | None = None
    """Why there are no updates here: source (not run from an installation), package_manager, launcher_gone,
    no_trust (the root of trust is missing), no_address."""
    version: UpdateVersion | None = None
    """The version that all this is about."""
    ready: bool = False
    """It is here and whole: a restart brings it."""
    progress: UpdateProgress | None = None
    asked_by: str = ""
    """Who wanted it: automatic, user, server; empty where nothing goes on."""
    automatic: bool = True
    """Whether it is applied by itself (the setting ``updates.automatic``)."""
    waits_for: Literal["", "quiet", "reminder"] = ""
    """quiet: until no task runs, at the latest at ``applies_at``; reminder: until ``remind_at``."""
    applies_at: str | None = None
    remind_at: str | None = None
    """The user wants to hear no more of it until then: nothing is shown before."""
    next_try_at: str | None = None
    """When what failed is tried again by itself."""
    problem: Condition | None = None
    """Why the last attempt did not succeed."""
    checked_at: str | None = None
    """The last check that was answered well."""
    next_check_at: str | None = None
    notices: list[UpdateNotice] = []
    history: list[UpdateResult] = []
    """The newest first."""


# --- changes ---------------------------------------------------------------------------------------


class Snapshot(View, frozen=True, kw_only=True):
    """The whole state at ``revision``; ask ``/v1/events?since=<revision>`` for what comes after it.

    A change that happened while the snapshot was taken may be in it and in the stream too. Every event
    carries a whole view, so taking it twice does no harm.
    """

    revision: int
    status: DaemonStatus
    runtimes: list[RuntimeView] = []
    tasks: list[TaskRow] = []
    agents: list[AgentView] = []
    jobs: list[JobView] = []
    residents: list[ResidentView] = []
    update: UpdateView | None = None
    """None from a daemon that has none yet."""


def _no_data() -> msgspec.Raw:
    return msgspec.Raw(b"{}")


class ChangeEvent(View, frozen=True, kw_only=True):
    """One change.

    ``kind`` and what ``data`` is: status (DaemonStatus), runtime (RuntimeView), runtime_removed ({id}),
    task (TaskRow), task_removed ({id}), agent (AgentView), agent_removed ({id}), job (JobView), job_removed
    ({id}), resident (ResidentView), resident_removed ({id}), delegation (DelegationView), transcript
    ({task_id, seq}: there are lines up to seq), update (UpdateView), settings ({}), reset ({reason}: take a
    new snapshot), hello ({}: first on every stream). Others are to be ignored.
    """

    revision: int
    kind: str
    data: msgspec.Raw = msgspec.field(default_factory=_no_data)
