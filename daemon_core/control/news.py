"""What engine and hub say while they work, passed on to whoever follows: published, counted, waited for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from daemon_core.control.agent_desk import AgentDesk
from daemon_core.control.changes import ChangeLog
from daemon_core.control.delegation_desk import DelegationDesk
from daemon_core.control.refusals import asked
from daemon_core.control.shown_tasks import ShownTasks
from daemon_core.control.spend_desk import SpendDesk
from daemon_core.control.status_desk import StatusDesk
from daemon_core.control.task_bell import TaskBell
from daemon_core.control.task_finder import TaskFinder
from daemon_core.hub import Hub, HubChange
from daemon_core.journal import Journal, JournalError, TaskRecord
from daemon_core.runtimes.registration import Registration
from daemon_core.tasks.accounts import Held
from daemon_core.tasks.delegation_store import DelegationRow
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.translate import Digest

log = logging.getLogger(__name__)

QUEUED_MOST: Final = 50
"""So many waiting tasks are told anew when the reason why they all wait is another one."""


class Source(Protocol):
    """Where it is told; the facade is one of these."""

    @property
    def changes(self) -> ChangeLog: ...
    @property
    def hub(self) -> Hub | None: ...
    @property
    def journal(self) -> Journal | None: ...
    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def delegation_desk(self) -> DelegationDesk: ...
    @property
    def spend_desk(self) -> SpendDesk: ...
    @property
    def status_desk(self) -> StatusDesk: ...
    def runtimes_changed(self) -> None: ...


class News:
    """Implements ``tasks.engine.Observer``, and hears the hub. Called on the loop; nothing waits here.

    Args:
        bell: Rung for every change of a task.
        owner: Has what has to be asked before it can be published.
    """

    def __init__(
        self,
        source: Source,
        *,
        shown: ShownTasks,
        finder: TaskFinder,
        bell: TaskBell,
        agents: AgentDesk,
        owner: Nursery,
    ) -> None:
        self._source = source
        self._shown = shown
        self._finder = finder
        self._bell = bell
        self._agents = agents
        self._owner = owner

    # --- of the hub ----------------------------------------------------------------------------

    def hub_changed(self, change: HubChange) -> None:
        """Something changed at the hub (on the loop, after its commit)."""
        delegations = self._source.delegation_desk.delegations
        if delegations is not None:
            delegations.hub_changed(change)
        if change.kind == "task":
            self._bell.ring(change.task_id)
            self.publish_task(change.task_id)
        elif change.kind == "agents":
            self._owner.start(self._agents.publish(), "agents")

    # --- of the engine -------------------------------------------------------------------------

    def task_changed(self, life: TaskLife) -> None:
        self._bell.ring(life.record.task_id)
        if life.record.connection == "hub":
            self.publish_task(life.record.task_id)
        else:
            self._publish_record(life.record)
        self._source.status_desk.publish()

    def task_stretched(self, life: TaskLife, made: Digest) -> None:
        task_id = life.record.task_id
        self._bell.ring(task_id)
        delegations = self._source.delegation_desk.delegations
        if delegations is not None:
            delegations.stretched(life, made)
        if made.chunks:
            data = {"task_id": task_id, "seq": made.next_seq - 1}
            self._source.changes.publish("transcript", f"transcript:{task_id}", data)
        if made.usage is not None:
            self._source.spend_desk.seen(life)

    def task_ended(self, record: TaskRecord, server_status: str) -> None:
        self._bell.ring(record.task_id)
        self._source.spend_desk.ended(record)
        delegations = self._source.delegation_desk.delegations
        if delegations is not None:
            delegations.task_ended(record)
        if record.connection != "hub":
            self._publish_record(record)
        if record.outcome == "abandoned":
            log.warning(
                "task %s had been ended at its server (%s) while it ran here; its result is kept",
                record.task_id, server_status,
            )  # fmt: skip
        self._source.status_desk.publish()

    def task_delivered(self, record: TaskRecord) -> None:
        self._bell.ring(record.task_id)
        if (registration := self._source.registrations.get(record.connection)) is not None:
            registration.settled(record.runtime_id)

    def journal_trouble(self, error: JournalError | None) -> None:
        status, journal = self._source.status_desk, self._source.journal
        if error is None:
            status.clear_condition("disk_full")
        elif journal is not None:
            status.set_condition("disk_full", path=str(journal.path.parent))

    def conversation_held(self, conversation: str, record: TaskRecord | None) -> None:
        """A conversation was woken too often and waits for the user, or does not any more."""
        status = self._source.status_desk
        if record is None:
            status.clear_condition("wake_limit", conversation)
        else:
            status.set_condition("wake_limit", conversation, task=record.task_id, title=record.title)

    def account_changed(self, provider: str, held: Held | None) -> None:
        """The account of a provider has met a limit, or is not held by one any more."""
        status = self._source.status_desk
        if held is None:
            status.clear_condition("usage_limit", provider)
        else:
            status.set_condition(
                "usage_limit", provider, provider=provider, until=held.until, resets_at=held.resets_at
            )
        self._source.runtimes_changed()

    # --- of others -----------------------------------------------------------------------------

    def spending_changed(self) -> None:
        """How the day stands changed; at the limit, so does why tasks wait."""
        source = self._source
        source.status_desk.publish()
        if source.hub is not None and source.status_desk.phase == "running":
            self._owner.start(self._publish_queued(source.hub), "spending")

    def delegation_changed(self, row: DelegationRow) -> None:
        """Something of a task that was handed on is different; so is its parent."""
        source = self._source
        if source.status_desk.phase != "stopping":
            self._owner.start(source.delegation_desk.publish_now(row), f"publish {row.task_id}")
            connection, _, task_id = row.parent_key.partition("/")
            if connection == "hub":
                self.publish_task(task_id)
            elif (life := self._finder.life(task_id, connection)) is not None:
                self._publish_record(life.record)

    # --- published -----------------------------------------------------------------------------

    def publish_task(self, task_id: str) -> None:
        """Have a task of the hub published as it is now."""
        hub = self._source.hub
        if hub is not None and self._source.status_desk.phase != "stopping":
            self._owner.start(self._publish_hub_task(hub, task_id), f"publish {task_id}")

    async def _publish_hub_task(self, hub: Hub, task_id: str) -> None:
        task = await hub.get(task_id)
        if task is not None:
            self._source.changes.publish("task", f"task:{task_id}", self._shown.row(task))

    def _publish_record(self, record: TaskRecord) -> None:
        self._source.changes.publish("task", f"task:{record.task_id}", self._shown.row_of_record(record))

    async def _publish_queued(self, hub: Hub) -> None:
        for task in await asked(hub.list(all=False, limit=QUEUED_MOST)):
            if task.status == "queued":
                self._source.changes.publish("task", f"task:{task.id}", self._shown.row(task))
