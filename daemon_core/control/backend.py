"""What the control server asks of the daemon. The daemon implements it; the server calls nothing else.

Everything runs in the daemon's one event loop. A method that refuses raises ``ControlError``; any other
exception is logged and answered as ``internal``. Ids may be given shortened wherever a parameter is called
``task_id``; ``resolve_id`` is the rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from daemon_core.control.changes import ChangeLog
from daemon_core.control.connection_routes import ConnectionHost
from daemon_core.control.errors import ControlError
from daemon_core.control.views import (
    AgentAdd,
    AgentEdit,
    AgentView,
    CleanRequest,
    CleanRound,
    DaemonStatus,
    Deleted,
    DiskReport,
    Health,
    Pause,
    ReloadAnswer,
    RuntimeView,
    Stop,
    StopAnswer,
    TaskAdd,
    TaskChanges,
    TaskReply,
    TaskRow,
    TaskView,
    TranscriptLine,
)

if TYPE_CHECKING:
    from daemon_core.control.delegation_desk import DelegationDesk
    from daemon_core.control.history_desk import HistoryDesk
    from daemon_core.control.job_desk import JobDesk
    from daemon_core.control.models_desk import ModelsDesk
    from daemon_core.control.requests_desk import RequestsDesk
    from daemon_core.control.resident_desk import ResidentDesk
    from daemon_core.control.runtime_routes import RuntimeHost
    from daemon_core.control.settings_desk import SettingsDesk
    from daemon_core.control.spend_desk import SpendDesk
    from daemon_core.control.stats_desk import StatsDesk
    from daemon_core.control.turns_desk import TurnsDesk
from daemon_core.control.update_routes import UpdateHost

PREFIX_LEAST: Final = 4
_CANDIDATES: Final = 10


class TranscriptPage(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a transcript, in order. ``ended``: the task is over and nothing follows these lines."""

    lines: list[TranscriptLine]
    ended: bool


class Backend(Protocol):
    """The daemon as its control API sees it."""

    changes: ChangeLog
    """Where every change of what the views show is published (kinds: see ``views.ChangeEvent``)."""

    @property
    def servers(self) -> ConnectionHost | None:
        """The connections; None while they are being built."""
        ...

    @property
    def requests(self) -> RequestsDesk | None:
        """Answers to what running tasks ask."""
        ...

    @property
    def delegation_desk(self) -> DelegationDesk | None:
        """Tasks that others have handed on; None where there are none."""
        ...

    @property
    def history(self) -> HistoryDesk | None:
        """Tasks by pages."""
        ...

    @property
    def job_desk(self) -> JobDesk | None:
        """Background commands; None where there are none."""
        ...

    @property
    def resident_desk(self) -> ResidentDesk | None:
        """Long-lived agent processes; None where there are none."""
        ...

    @property
    def models(self) -> ModelsDesk | None:
        """Which models agents have; None while the daemon starts."""
        ...

    @property
    def runtime_desk(self) -> RuntimeHost | None:
        """What can be done with one runtime."""
        ...

    @property
    def update_desk(self) -> UpdateHost | None:
        """The updater; None while the daemon starts."""
        ...

    @property
    def settings_desk(self) -> SettingsDesk | None:
        """The settings; None while the daemon starts."""
        ...

    @property
    def spend_desk(self) -> SpendDesk | None:
        """What tasks cost."""
        ...

    @property
    def turns_desk(self) -> TurnsDesk | None:
        """The tasks of a conversation."""
        ...

    @property
    def stats_desk(self) -> StatsDesk | None:
        """What tasks, jobs and residents use."""
        ...

    def owns_mark(self, mark: str) -> bool:
        """Whether this is the mark (``OSTLER_MARK``) of a run of this daemon, going on or ended."""
        ...

    async def status(self) -> DaemonStatus:
        """Answers at any time, also while starting and stopping, and waits for nobody."""
        ...

    async def health(self) -> Health:
        """As ``status``, for the loopback port."""
        ...

    async def runtimes(self, refresh: bool) -> list[RuntimeView]:
        """All that were found, the unusable ones too. ``refresh``: look for agents again first."""
        ...

    async def pause(self, request: Pause) -> DaemonStatus:
        """Raise the user's own barrier (or change its end). Holds over restarts."""
        ...

    async def resume(self) -> DaemonStatus:
        """Take the user's own barrier down; nothing happens where it is not up."""
        ...

    async def stop(self, request: Stop) -> StopAnswer:
        """Begin to stop. Answers before the control socket closes."""
        ...

    async def reload_settings(self) -> ReloadAnswer:
        """Read the settings file again. Where it is damaged (settings_invalid) the old ones stay in force."""
        ...

    async def add_task(self, request: TaskAdd) -> TaskView:
        """Start a conversation.

        Errors: invalid_input, unknown_runtime, runtime_unusable, no_such_agent, directory_*, hub_disabled.
        """
        ...

    async def reply(self, task_id: str, request: TaskReply) -> TaskView:
        """A new task in the same conversation. Errors: not_found, ambiguous_id, conflict."""
        ...

    async def list_tasks(self, include_all: bool) -> list[TaskRow]:
        """Newest first. Without ``include_all``: what goes on or waits, and the last that ended."""
        ...

    async def get_task(self, task_id: str) -> TaskView: ...

    async def cancel(self, task_id: str) -> TaskView:
        """Errors: not_found, ambiguous_id, conflict (task_ended)."""
        ...

    async def retry(self, task_id: str) -> TaskView:
        """The new task. Errors: not_found, ambiguous_id, conflict (task_not_ended)."""
        ...

    async def delete(self, task_id: str) -> Deleted:
        """Delete the conversation. Errors: not_found, ambiguous_id, conflict (task_not_ended)."""
        ...

    async def transcript(self, task_id: str, after: int, limit: int) -> TranscriptPage:
        """At most ``limit`` lines with ``seq`` above ``after``; ``ended`` only if none follow them."""
        ...

    async def wait_transcript(self, task_id: str, after: int) -> None:
        """Return when there is a line above ``after`` or the task has ended. Safe to cancel."""
        ...

    async def task_changes(self, task_id: str, stat: bool) -> TaskChanges:
        """What the task changed; ``stat``: without the diffs. Errors: not_found, ambiguous_id."""
        ...

    async def disk(self) -> DiskReport:
        """What is used by what, and why it is kept."""
        ...

    async def clean_disk(self, request: CleanRequest) -> CleanRound:
        """Remove now what may go, or say what would."""
        ...

    async def agents(self) -> list[AgentView]: ...

    async def add_agent(self, request: AgentAdd) -> AgentView:
        """Errors: invalid_input, agent_exists, unknown_runtime."""
        ...

    async def edit_agent(self, name: str, request: AgentEdit) -> AgentView:
        """Errors: no_such_agent, agent_exists, invalid_input, unknown_runtime."""
        ...

    async def remove_agent(self, name: str) -> AgentView:
        """Errors: no_such_agent, busy."""
        ...


def resolve_id(kind: str, given: str, ids: Iterable[str]) -> str:
    """The one id that ``given`` is, or begins with (at least four characters).

    Raises:
        ControlError: not_found; ambiguous_id with up to ten candidates; invalid_input where it is too short.
    """
    wanted = given.strip().lower()
    matches = []
    for known in ids:
        if known == wanted:
            return known
        if known.startswith(wanted):
            matches.append(known)
    if len(wanted) < PREFIX_LEAST:
        raise ControlError("invalid_input", {"field": "id", "why": "too_short", "id": given})
    if not matches:
        raise ControlError("not_found", {"kind": kind, "id": given})
    if len(matches) > 1:
        raise ControlError(
            "ambiguous_id", {"kind": kind, "id": given, "candidates": sorted(matches)[:_CANDIDATES]}
        )
    return matches[0]
