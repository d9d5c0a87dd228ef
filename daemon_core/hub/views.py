"""What the hub takes from, and shows to, the other rooms of its process. Times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon_core.protocol.wire import Skill, Usage


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the views: frozen, keyword only."""


class NewTask(View, frozen=True):
    """A task as asked for: it begins a conversation.

    ``provider`` may be left out where ``agent`` names one. ``directory`` is the user's own, absolute; without
    it the daemon makes one; ``repo_url`` (without credentials) is checked out into that one, at ``repo_ref``
    or the default branch. ``priority`` goes from 0 (none) to 4 (urgent). ``max_attempts`` counts the first
    attempt; 1 means that a lost run is not tried again.
    """

    prompt: str
    provider: str | None = None
    agent: str | None = None
    directory: str | None = None
    model: str | None = None
    thinking_level: str | None = None
    title: str | None = None
    max_attempts: int | None = None
    priority: int = 0
    repo_url: str | None = None
    repo_ref: str | None = None
    permissions: str | None = None
    """``allow``, ``ask`` or ``deny``; None: as agent and daemon have it."""


class HubTask(View, frozen=True):
    """One turn of a conversation.

    ``waiting_reason`` is a code: of a queued task ``no_runtime`` (nothing offers its provider),
    ``runtime_offline``, ``conversation_busy`` (an earlier turn is not over), ``agent_busy``; of one that
    waits ``local_directory``, with the daemon's words in ``waiting_detail``. ``retried_as`` is the task that
    tries again what was lost here. In lists ``prompt``, ``result`` and ``error`` are cut to 4,000 characters.
    """

    id: str
    conversation_id: str
    title: str
    status: str
    provider: str
    agent: str
    prompt: str
    created_at: str
    model: str | None = None
    thinking_level: str | None = None
    directory: str | None = None
    dispatched_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    work_dir: str | None = None
    session_id: str | None = None
    result: str | None = None
    branch_name: str | None = None
    failure_reason: str | None = None
    error: str | None = None
    usage: list[Usage] = []
    attempt: int = 1
    max_attempts: int = 2
    parent_task_id: str | None = None
    retried_as: str | None = None
    waiting_reason: str | None = None
    waiting_detail: str | None = None
    progress: str | None = None
    runtime_id: str | None = None
    priority: int = 0
    repo_url: str | None = None
    repo_ref: str | None = None
    kind: str = "chat"
    """``chat``, ``comment``, ``direct`` (both with ``issue_id``), ``autopilot``, ``quick_create``."""
    issue_id: str | None = None
    parked_until: str | None = None
    """When a parked one can go on, where somebody said it; ``goes_on``: it does so by itself."""
    goes_on: bool = False
    parent_key: str | None = None
    """Which task has handed it on, by the daemon's name (``<connection>/<id>``); None: it was not."""
    depth: int = 0
    """How deep it was handed on."""


class ChatMessage(View, frozen=True):
    """A line of a conversation; ``error`` marks an assistant's line that tells of a failure."""

    task_id: str
    role: Literal["user", "assistant"]
    content: str
    created_at: str
    error: bool = False


class Conversation(View, frozen=True):
    """A conversation with its turns, oldest first (each with its whole text)."""

    id: str
    title: str
    provider: str
    agent: str
    created_at: str
    updated_at: str
    directory: str | None = None
    session_id: str | None = None
    work_dir: str | None = None
    turns: list[HubTask] = []
    messages: list[ChatMessage] = []


class DeletedConversation(View, frozen=True):
    """What a deletion has taken away. ``work_dirs`` includes the user's own directory, if there was one."""

    conversation_id: str
    task_ids: list[str]
    work_dirs: list[str]
    directory: str | None = None


class AgentSpec(View, frozen=True):
    """A new named agent. ``max_concurrent_tasks`` 0 means: as many as there are slots."""

    name: str
    provider: str
    instructions: str = ""
    model: str | None = None
    thinking_level: str | None = None
    custom_env: dict[str, str] = {}
    custom_args: list[str] = []
    mcp_config: Any = None
    max_concurrent_tasks: int = 0
    skills: list[Skill] = []
    permissions: str | None = None
    resume_after_limit: bool | None = None
    """Whether its tasks go on by themselves after a usage limit; None: as the daemon has it."""


class AgentChanges(View, frozen=True):
    """What to change of an agent; what is left out stays. ``custom_env`` and ``skills`` replace the whole."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    instructions: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType | None = msgspec.UNSET
    thinking_level: str | msgspec.UnsetType | None = msgspec.UNSET
    custom_env: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    custom_args: list[str] | msgspec.UnsetType = msgspec.UNSET
    mcp_config: Any = msgspec.UNSET
    max_concurrent_tasks: int | msgspec.UnsetType = msgspec.UNSET
    skills: list[Skill] | msgspec.UnsetType = msgspec.UNSET
    permissions: str | msgspec.UnsetType | None = msgspec.UNSET
    resume_after_limit: bool | msgspec.UnsetType | None = msgspec.UNSET


class AgentView(View, frozen=True):
    """A named agent. The values of ``custom_env`` and ``mcp_config`` are secrets: None unless asked for."""

    id: str
    name: str
    provider: str
    instructions: str
    is_default: bool
    created_at: str
    updated_at: str
    model: str | None = None
    thinking_level: str | None = None
    custom_env_names: list[str] = []
    custom_env: dict[str, str] | None = None
    custom_args: list[str] = []
    has_mcp_config: bool = False
    mcp_config: Any = None
    max_concurrent_tasks: int = 0
    skill_names: list[str] = []
    active_tasks: int = 0
    permissions: str | None = None
    resume_after_limit: bool | None = None


class HubRuntime(View, frozen=True):
    """A runtime as registered here."""

    id: str
    name: str
    provider: str
    status: Literal["online", "offline"]
    daemon_id: str
    version: str = ""
    profile_id: str | None = None
    created_at: str = ""


class HubChange(View, frozen=True):
    """Something is different now. ``messages`` means that lines were added to a task's transcript."""

    kind: Literal["task", "messages", "conversation_deleted", "agents", "runtimes"]
    task_id: str = ""
    conversation_id: str = ""
    status: str = ""
