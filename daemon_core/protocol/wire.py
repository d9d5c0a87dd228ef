"""Wire structures of the daemon protocol.

Field names are those of the wire. A field that the wire may leave out, send as null or send empty has a
default that stands for all three. Decoding never refuses an unknown field (msgspec's default); a wrong
type for a known one raises ``msgspec.ValidationError`` whose text names the path.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

CAPABILITIES_HEADER = "X-Client-Capabilities"
SKILL_BUNDLES = "skill-bundles-v1"
"""Skill references are resolved; without it servers hand out whole skills."""
COALESCED_COMMENTS = "coalesced-comments-v1"
"""Several comments of one run come as a list; without it they are packed into the trigger's text."""

TaskStatus = Literal[
    "deferred",
    "queued",
    "dispatched",
    "waiting_local_directory",
    "running",
    "completed",
    "failed",
    "cancelled",
]
TERMINAL_STATUSES: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""States that a server never leaves again. Any unknown status means: keep running."""

MessageType = Literal["text", "thinking", "tool_use", "tool_result", "error"]
TOOL_OUTPUT_LIMIT_BYTES = 8192
"""A tool result's ``output`` is cut to this many bytes of UTF-8 before it is sent."""


class Wire(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of all wire structures: keyword only, defaults are left out when encoding."""


class WireFull(msgspec.Struct, kw_only=True):
    """Base for structures whose every field is always present on the wire."""


# --- workspaces and registration -------------------------------------------------------------------


class Workspace(Wire):
    id: str
    name: str = ""


class Repo(Wire):
    url: str
    description: str | None = None
    ref: str | None = None


class WorkspaceRepos(WireFull):
    workspace_id: str
    repos: list[Repo] = []
    repos_version: str = ""
    settings: dict[str, Any] | None = None


class RuntimeEntry(WireFull):
    """One runtime as the daemon registers it. ``type`` is the provider (of a profile: its family)."""

    name: str
    type: str
    version: str = ""
    status: str = "online"
    profile_id: str | msgspec.UnsetType | None = msgspec.UNSET
    """Left out for a plain runtime."""


class FailedProfile(Wire):
    profile_id: str
    command_name: str = ""
    reason: str = ""


class RegisterRequest(WireFull):
    workspace_id: str = ""
    daemon_id: str = ""
    legacy_daemon_ids: list[str] | None = None
    device_name: str = ""
    cli_version: str = ""
    launched_by: str = ""
    runtimes: list[RuntimeEntry] | None = None
    failed_profiles: list[FailedProfile] | None = None


class Runtime(Wire):
    """A registered runtime as the server tells it; the daemon reads these five and tolerates the rest."""

    id: str
    name: str = ""
    provider: str = ""
    status: str = ""
    profile_id: str | None = None


class RegisterResponse(WireFull):
    runtimes: list[Runtime] | None = None
    repos: list[Repo] | None = None
    repos_version: str = ""
    settings: dict[str, Any] | None = None


class OfflineReason(WireFull):
    """Why a runtime is taken off: a word for programs, and for people what it is and what can be done."""

    code: str
    detail: str = ""
    repair: str = ""


class DeregisterRequest(WireFull):
    runtime_ids: list[str] = []
    offline_reasons: dict[str, OfflineReason] | msgspec.UnsetType = msgspec.UNSET
    """By runtime id; later servers show it."""


class RenewResponse(WireFull):
    """Answer of the token renewal; an empty ``expires_at`` means never."""

    expires_at: str = ""
    renewed: bool = False


# --- heartbeat -------------------------------------------------------------------------------------


class HeartbeatRequest(WireFull):
    runtime_id: str
    supports_batch_import: bool = True


class PendingUpdate(Wire):
    id: str
    target_version: str = ""


class PendingRequest(Wire):
    id: str


class PendingImport(Wire):
    id: str
    skill_key: str = ""


class FeatureFlags(Wire):
    version: int = 0
    flags: dict[str, str] = {}


class HeartbeatResponse(Wire):
    """Answer to a heartbeat. ``runtime_id`` and ``runtime_gone`` occur on the websocket only."""

    status: str = ""
    runtime_id: str = ""
    runtime_gone: bool = False
    pending_update: PendingUpdate | None = None
    pending_model_list: PendingRequest | None = None
    pending_local_skills: PendingRequest | None = None
    pending_local_skill_import: PendingImport | None = None
    pending_local_skill_imports: list[PendingImport] | None = None
    feature_flags: FeatureFlags | None = None


# --- websocket -------------------------------------------------------------------------------------

WS_HEARTBEAT = "daemon:heartbeat"
WS_HEARTBEAT_ACK = "daemon:heartbeat_ack"
WS_TASK_AVAILABLE = "daemon:task_available"
WS_PROFILES_CHANGED = "daemon:runtime_profiles_changed"
WS_TASK_CHANGED = "daemon:task_changed"
"""A hint of the hub alone, ``{task_id, status}``: look at this task's status now. Others never send it."""

WS_FRAME_LIMIT_BYTES = 64 * 1024


class Envelope(WireFull):
    """A websocket text frame; frames of unknown type and undecodable frames are ignored."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class TaskAvailable(Wire):
    runtime_id: str = ""
    task_id: str = ""


class TaskChanged(Wire):
    task_id: str = ""
    status: str = ""


# --- tasks -----------------------------------------------------------------------------------------


class SkillFile(Wire):
    path: str
    content: str = ""
    sha256: str = ""
    size_bytes: int = 0


class Skill(Wire):
    id: str
    name: str = ""
    source: str = ""
    description: str = ""
    hash: str = ""
    size_bytes: int = 0
    content: str = ""
    files: list[SkillFile] | None = None


class SkillRef(Wire):
    id: str
    source: str = ""
    name: str = ""
    description: str = ""
    hash: str = ""
    size_bytes: int = 0
    file_count: int = 0
    files: list[SkillFile] | None = None


class Agent(Wire):
    """The named configuration a task runs under. ``custom_env`` and ``mcp_config`` may hold secrets."""

    id: str = ""
    name: str = ""
    instructions: str = ""
    skills: list[Skill] | None = None
    skill_refs: list[SkillRef] | None = None
    custom_env: dict[str, str] | None = None
    custom_args: list[str] | None = None
    mcp_config: Any = None
    model: str | None = None
    thinking_level: str | None = None
    service_tier: str | None = None
    runtime_config: Any = None
    disabled_runtime_skills: Any = None
    """Skills of the machine that the agent is not to use; from later servers."""
    permissions: str | None = None
    """``allow``, ``ask`` or ``deny``: said by Ostler's embedded hub alone, and heeded from it alone."""
    resume_after_limit: bool | None = None
    """Likewise: whether the task goes on by itself when a usage limit has reset."""


class ProjectResource(Wire):
    id: str = ""
    resource_type: str = ""
    resource_ref: Any = None
    label: str | None = None


class Attachment(Wire):
    id: str
    filename: str = ""
    content_type: str | None = None


class CoalescedComment(Wire):
    """A comment that later servers deliver together with the one that triggered the task."""

    id: str = ""
    thread_id: str | None = None
    author_type: str | None = None
    author_name: str | None = None
    content: str = ""
    created_at: str | None = None


class Task(Wire):
    """A task as the claim hands it out (and, with fewer fields, as other routes answer it).

    Only the first five are certain; ``auth_token`` occurs in the claim alone and must never be logged or
    stored outside the run's own directory.
    """

    id: str
    agent_id: str = ""
    runtime_id: str = ""
    workspace_id: str = ""
    auth_token: str = ""

    issue_id: str | None = None
    status: str = ""
    priority: int = 0
    dispatched_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    result: Any = None
    error: str | None = None
    failure_reason: str | None = None
    attempt: int = 1
    max_attempts: int = 2
    parent_task_id: str | None = None
    created_at: str | None = None
    kind: str | None = None
    work_dir: str | None = None
    relative_work_dir: str | None = None

    workspace_context: str | None = None
    thread_name: str | None = None
    connected_apps: list[dict[str, Any]] | None = None
    repos: list[Repo] | None = None
    project_id: str | None = None
    project_title: str | None = None
    project_description: str | None = None
    project_resources: list[ProjectResource] | None = None
    prior_session_id: str | None = None
    prior_work_dir: str | None = None
    prior_session_resume_unavailable: bool | None = None
    """There was a session, and no server can say any more how it is gone on with."""
    issue_statuses: Any = None
    """What a workspace has beside the usual statuses, from later servers; see ``tasks.later``, which takes
    what it can understand of this and of the next two."""
    issue_statuses_omitted: Any = None
    active_sibling_runs: Any = None
    requesting_user_name: str | None = None
    requesting_user_profile_description: str | None = None
    initiator_type: str | None = None
    initiator_id: str | None = None
    initiator_name: str | None = None
    initiator_email: str | None = None

    trigger_comment_id: str | None = None
    trigger_thread_id: str | None = None
    trigger_comment_content: str | None = None
    trigger_summary: str | None = None
    trigger_author_type: str | None = None
    trigger_author_name: str | None = None
    new_comment_count: int | None = None
    new_comments_since: str | None = None
    coalesced_comments: list[CoalescedComment] | None = None
    """More comments that this run answers beside the trigger, oldest first; see ``COALESCED_COMMENTS``."""

    chat_session_id: str | None = None
    chat_channel_type: str | None = None
    chat_type: str | None = None
    """``group`` or ``p2p``: who reads a chat that is a channel; not told by earlier servers."""
    chat_channel_delivers_files: bool | None = None
    chat_intro: Any = None
    """The agent begins the chat: nobody has said anything."""
    chat_in_thread: bool | None = None
    chat_message: str | None = None
    fresh_message: str | None = None
    """What is said instead where no earlier session is resumed; only Ostler's embedded hub says it."""
    chat_message_attachments: list[Attachment] | None = None
    wake_text: str | None = None
    """The turn is begun to tell what became of a job or a delegated task: what there was to tell when it was.
    Said by Ostler's embedded hub, and by the daemon to itself; no part of the protocol."""

    autopilot_run_id: str | None = None
    autopilot_id: str | None = None
    autopilot_title: str | None = None
    autopilot_description: str | None = None
    autopilot_source: str | None = None
    autopilot_trigger_payload: Any = None

    quick_create_prompt: str | None = None
    quick_create_attachment_ids: list[str] | None = None
    quick_create_priority: str | None = None
    quick_create_due_date: str | None = None
    """What was chosen beside the request, at later servers: not to be found in its text."""
    squad_id: str | None = None
    squad_name: str | None = None
    parent_issue_id: str | None = None
    parent_issue_identifier: str | None = None

    handoff_note: str | None = None
    is_leader_task: bool | None = None
    leader_role_resolved: bool | None = None
    """Later servers say outright whether the agent leads a squad here; earlier ones only by a heading."""
    regenerate_quick_actions_for: str | None = None
    """If set, no agent is run: the task is completed with an empty output."""
    agent: Agent | None = None


class ClaimWish(Wire):
    """Which tasks a claim is for; empty: any. Understood by the embedded hub alone."""

    task_id: str = ""
    """This one and no other."""
    model: str = ""
    """Tasks of this model alone."""
    without: list[str] = []
    """Models of which nothing is wanted now."""
    default_model: str = ""
    """What a task without a model of its own gets."""


class ClaimResponse(Wire):
    task: Task | None = None
    held_back: list[str] = []
    """Models of ``ClaimWish.without`` that tasks wait for (hub)."""
    more: bool | None = None
    """Whether another claim like this one would get something now; None: not told (hub)."""


class ClaimManyRequest(WireFull):
    """A claim for several runtimes of a daemon at once; later servers alone know it."""

    daemon_id: str = ""
    runtime_ids: list[str] = []
    max_tasks: int = 0


class ClaimManyResponse(Wire):
    tasks: list[Task] | None = None


class TaskStatusResponse(WireFull):
    status: str


class TaskMessage(Wire):
    """One line of a transcript. ``seq`` starts at 1 and never starts again within a task (promise P3)."""

    seq: int
    type: str
    tool: str | None = None
    content: str | None = None
    input: Any = None
    output: str | None = None


class StoredMessage(TaskMessage):
    """A line as the server gives it back."""

    task_id: str = ""
    issue_id: str | None = None
    created_at: str | None = None


class Messages(WireFull):
    messages: list[TaskMessage] = []


class ProgressRequest(WireFull):
    summary: str = ""
    step: int = 0
    total: int = 0


class SessionRequest(Wire):
    session_id: str | None = None
    work_dir: str | None = None


class WaitRequest(WireFull):
    reason: str = ""


class Usage(WireFull):
    """Tokens of one model in one task. Counts are never below zero; all-zero entries are not sent.

    ``cost_usd`` and ``cost_partial`` are Ostler's own and never sent; a server is told ``cost_usd_ticks``.
    """

    provider: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd_ticks: int | msgspec.UnsetType = msgspec.UNSET
    """What the agent says that all of it cost, in 1e-10 dollars; above zero."""
    cost_usd: float | msgspec.UnsetType = msgspec.UNSET
    """What the agent says that it cost."""
    cost_partial: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether only some of the tokens are in ``cost_usd``."""


class UsageRequest(WireFull):
    usage: list[Usage] = []


class CompleteRequest(WireFull):
    """A complete without session and directory erases what was pinned, so both are always given."""

    output: str = ""
    branch_name: str | None = None
    session_id: str | None = None
    work_dir: str | None = None
    retired_session_id: str | msgspec.UnsetType = msgspec.UNSET
    """The session that was to be resumed and that the agent does not know any more; for later servers."""
    session_rollout_missing: bool | msgspec.UnsetType = msgspec.UNSET
    """There is no session that a later task could go on with, although there was one before."""


class Parked(Wire):
    """The task is not over: a limit of the account holds it up. ``until`` is empty where nobody said when
    that resets; ``goes_on``: it is to go on by itself then."""

    until: str = ""
    goes_on: bool = False


class FailRequest(WireFull):
    error: str = ""
    session_id: str | None = None
    work_dir: str | None = None
    failure_reason: str | None = None
    branch_name: str | msgspec.UnsetType = msgspec.UNSET
    retired_session_id: str | msgspec.UnsetType = msgspec.UNSET
    session_rollout_missing: bool | msgspec.UnsetType = msgspec.UNSET
    """These three as in a complete; later servers keep them."""
    parked: Parked | msgspec.UnsetType = msgspec.UNSET
    """Only told to Ostler's embedded hub."""


class CancelAckRequest(Wire):
    """The run of a cancelled task is over and its last lines are at the server. Later servers wait for it
    before they settle the cancellation."""

    branch_name: str | None = None
    durable_work_dir: str | None = None
    error_message: str | None = None
    failure_reason: str | None = None


class OrphansResponse(WireFull):
    orphaned: int = 0
    retried: int = 0


class ErrorBody(Wire):
    error: str = ""


class LocalDirectoryRef(Wire):
    """``resource_ref`` of a project resource of type ``local_directory``."""

    local_path: str = ""
    daemon_id: str = ""
    label: str | None = None
    execution_mode: str | None = None
    """``worktree``: the directory must not be worked in, only a work tree of it."""
