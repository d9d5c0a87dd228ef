"""Handing on tasks, as tasks and persons see it.

A caller from inside a run acts for its task's conversation: what others have handed on is "not found". Where
a child works is decided here: never in a directory that somebody works in (promise P5).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from daemon_core.control.backend import resolve_id
from daemon_core.control.changes import ChangeLog
from daemon_core.control.delegation_views import DelegationAdd
from daemon_core.control.errors import ControlError
from daemon_core.control.new_tasks import NewTasks
from daemon_core.control.refusals import refusal_of
from daemon_core.control.views import DelegationView, PlanEntryView, TaskAdd, TaskRow, TaskView
from daemon_core.hub import ConflictError, Hub, HubError, HubTask, NewTask
from daemon_core.hub.delegating import Child
from daemon_core.jobs.conversations import conversation_of
from daemon_core.journal import TaskRecord
from daemon_core.tasks import policy
from daemon_core.tasks.barrier import BarrierUpError
from daemon_core.tasks.delegation import HUB, ChildProgress, Delegations
from daemon_core.tasks.delegation_store import DelegationRow

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

WAIT_LIMIT_S: Final = 30.0
"""Longest stretch of one waiting question; then it is asked again."""
PUBLISH_EVERY_S: Final = 1.0
"""A child's progress is not told more often."""

_LIMITS: Final = {
    "delegation_too_deep": "depth",
    "delegations_open": "open",
    "delegations_used_up": "used_up",
}


class Host(Protocol):
    """What the desk needs of the daemon."""

    changes: ChangeLog
    hub: Hub | None
    engine: Engine | None

    @property
    def new_tasks(self) -> NewTasks: ...


class DelegationDesk:
    """See the module. ``delegations`` is None until the daemon has taken up its runs."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.delegations: Delegations | None = None
        self.publish: Callable[[DelegationRow], None] = lambda row: None
        """Has ``publish_now`` done in the background."""
        self._told: dict[str, float] = {}

    # --- for tasks -----------------------------------------------------------------------------

    async def add(self, life: TaskLife, wanted: DelegationAdd) -> DelegationView:
        """Hand on a task.

        Raises:
            ControlError: as for any new task; delegation_limit, directory_taken, barrier_up.
        """
        delegations, engine = self._ready(), self._host.engine
        assert engine is not None
        if not wanted.request.strip():
            raise ControlError("invalid_input", {"field": "request", "why": "empty"})
        new = await self._new_task(life, wanted)
        try:
            with engine.barrier.starting():
                row = await delegations.hand_on(life, new, wanted.request)
        except BarrierUpError as error:
            raise ControlError("barrier_up", {"reason": error.holders[0]}) from error
        except ConflictError as error:
            if error.code not in _LIMITS:
                raise refusal_of(error) from error
            limit = error.params.get("limit")
            raise ControlError("delegation_limit", {"why": _LIMITS[error.code], "limit": limit}) from error
        except HubError as error:
            raise refusal_of(error) from error
        return await self._view(row)

    async def children(self, life: TaskLife) -> list[DelegationView]:
        """What the task's conversation has handed on, oldest first."""
        rows = self._ready().of(conversation_of(life.record))
        return [await self._view(row) for row in rows]

    async def get(self, life: TaskLife, given: str) -> DelegationView:
        """One of them."""
        return await self._view(self._own(life, given))

    async def wait(self, life: TaskLife, given: str, seconds: float) -> DelegationView:
        """One of them once it is over, or as it is when the time is up."""
        row = self._own(life, given)
        if not await self._ready().wait(life, row, min(max(seconds, 0.0), WAIT_LIMIT_S)):
            return msgspec.structs.replace(await self._view(row), over=False)
        return await self._view(row)

    async def leave(self, life: TaskLife, given: str) -> DelegationView:
        """Whoever waited does so no longer."""
        row = self._own(life, given)
        await self._ready().leave(row)
        return await self._view(row)

    async def heard(self, life: TaskLife, given: str) -> DelegationView:
        """Its end has been seen by who asked: it is not told once more."""
        row = self._own(life, given)
        view = await self._view(row)
        await self._ready().acknowledge(row)
        return view

    async def cancel(self, life: TaskLife, given: str) -> DelegationView:
        """End one of them."""
        row = self._own(life, given)
        await self._ready().cancel(row)
        return await self._view(row)

    def may_hand_on(self, life: TaskLife) -> bool:
        """Whether a task may hand on anything."""
        return self.delegations is not None and self.delegations.may_hand_on(life.record)

    def has_handed_on(self, life: TaskLife) -> bool:
        """Whether it has."""
        return self.delegations is not None and bool(self.delegations.of(conversation_of(life.record)))

    # --- for persons ---------------------------------------------------------------------------

    async def below(self, view: TaskView) -> list[DelegationView]:
        """Everything that a task's conversation has handed on, and what that has."""
        delegations = self._ready()
        record = TaskRecord(
            key="", connection=view.server or HUB, task_id=view.id, runtime_id="", workspace_id="",
            provider="", conversation_id=view.conversation_id,
        )  # fmt: skip
        home = view.conversation_id if record.connection == HUB else ""
        children = await delegations.hub.delegating.below(
            parent_conversation=conversation_of(record), home=home
        )
        return [self._view_of(child, delegations.rows.get(child.conversation_id)) for child in children]

    def row(self, row: TaskRow, parent_key: str | None, depth: int) -> TaskRow:
        """A task in a list, with who has handed it on and what it has."""
        open_now = 0
        if self.delegations is not None:
            key = f"{row.server or HUB}/{row.conversation_id or row.id}"
            open_now = self.delegations.open_of(key)
        if not parent_key and not open_now:
            return row
        return msgspec.structs.replace(
            row, parent_id=(parent_key or "").partition("/")[2], depth=depth, open_children=open_now
        )

    async def view(self, view: TaskView, parent_key: str | None, depth: int) -> TaskView:
        """A task with everything about it, likewise."""
        if self.delegations is None:
            return view
        children = await self.below(view)
        if not parent_key and not children:
            return view
        return msgspec.structs.replace(
            view, parent_id=(parent_key or "").partition("/")[2], depth=depth, children=children
        )

    def changed(self, row: DelegationRow) -> None:
        """Something of a child is different: published at most once a second while it works."""
        now = time.monotonic()
        last = self._told.get(row.conversation_id, 0.0)
        if not row.told and now - last < PUBLISH_EVERY_S:
            return
        self._told[row.conversation_id] = now
        if row.told:
            del self._told[row.conversation_id]
        self.publish(row)

    async def publish_now(self, row: DelegationRow) -> None:
        """Tell who listens how a child is now."""
        if self.delegations is not None and row.conversation_id in self.delegations.rows:
            view = await self._view(row)
            self._host.changes.publish("delegation", f"delegation:{row.task_id}", view)

    # --- inside --------------------------------------------------------------------------------

    def _ready(self) -> Delegations:
        if self.delegations is None:
            raise ControlError(
                "hub_disabled" if self._host.hub is None and self._host.engine else "not_ready"
            )
        return self.delegations

    def _own(self, life: TaskLife, given: str) -> DelegationRow:
        rows = {row.task_id: row for row in self._ready().of(conversation_of(life.record))}
        return rows[resolve_id("delegation", given, rows)]

    async def _new_task(self, life: TaskLife, wanted: DelegationAdd) -> NewTask:
        engine = self._host.engine
        assert engine is not None
        runtime = wanted.runtime
        if wanted.agent:
            await self._host.new_tasks.check_agent(wanted.agent)
        elif not runtime:
            runtime = life.record.provider
        repo, ref = ("", "") if wanted.directory else await self._repository(life)
        new = await self._host.new_tasks.checked(
            TaskAdd(
                prompt=wanted.prompt,
                runtime=runtime,
                agent=wanted.agent,
                model=wanted.model,
                thinking=wanted.thinking,
                title=wanted.title,
                directory=wanted.directory,
                repo=repo,
                ref=ref,
                permissions=await self._permissions(life, wanted.agent, runtime),
            )
        )
        if new.directory is not None and engine.directory_locks.holder_of(Path(new.directory)) is not None:
            raise ControlError("directory_taken", {"path": new.directory})
        return new

    async def _permissions(self, life: TaskLife, agent: str, runtime: str) -> str:
        """What the parent was told to ask for, its child asks for as well; "" where the child's own policy is
        no laxer, or nobody said anything about this parent in particular."""
        engine, hub = self._host.engine, self._host.hub
        told = (
            life.claim.agent.permissions if life.claim is not None and life.claim.agent is not None else None
        )
        if engine is None or hub is None or not life.connection.timing.loopback or told not in policy.MODES:
            return ""
        named = await hub.get_agent(agent) if agent else None
        own = (named.permissions if named is not None else None) or engine.permissions(
            named.provider if named is not None else runtime
        )
        return told if policy.MODES.index(told) > policy.MODES.index(own) else ""

    async def _repository(self, life: TaskLife) -> tuple[str, str]:
        """The repository that a child gets a work tree of, and from where on; two empty texts for none."""
        record, hub = life.record, self._host.hub
        if record.directory:
            branch = await asyncio.to_thread(_branch_of, Path(record.directory))
            return (record.directory, branch) if branch else ("", "")
        if record.connection != HUB or hub is None:
            return "", ""
        task: HubTask | None = await hub.get(record.task_id)
        return (task.repo_url or "", task.repo_ref or "") if task is not None else ("", "")

    async def _view(self, row: DelegationRow) -> DelegationView:
        child = await self._ready().child(row)
        if child is None:
            return DelegationView(
                id=row.task_id, title="", status="cancelled", over=True, depth=row.depth, task_id=row.task_id,
                parent_id=row.parent_key.partition("/")[2], created_at=row.created_at,
                conversation_id=row.conversation_id, error="It was deleted.",
            )  # fmt: skip
        return self._view_of(child, row)

    def _view_of(self, child: Child, row: DelegationRow | None) -> DelegationView:
        delegations = self._ready()
        progress = delegations.progress.get(child.conversation_id) or ChildProgress()
        task = child.task
        return DelegationView(
            id=child.id,
            title=task.title,
            status=task.status,
            over=delegations.is_over(row) if row is not None else child.over,
            agent=task.agent,
            runtime=task.provider,
            model=child.model,
            created_at=child.created_at,
            started_at=task.started_at,
            ended_at=task.ended_at,
            depth=child.depth,
            parent_id=child.parent_key.partition("/")[2],
            task_id=task.id,
            conversation_id=child.conversation_id,
            waited_for=bool(row is not None and row.waiting_key),
            tool_calls=progress.tool_calls,
            last_tool=progress.last_tool,
            last_message=progress.last_message,
            to_do=[PlanEntryView(text=entry.text, status=entry.status) for entry in row.entries]
            if row is not None
            else [],
            work_dir=task.work_dir or "",
            branch=task.branch_name or "",
            result=task.result or "",
            failure_reason=task.failure_reason or "",
            error=task.error or "",
        )


def _branch_of(directory: Path) -> str:
    """The branch that a git work tree is on; empty for a directory that is the top of none, and for a head
    without a branch. Looks at the disk."""
    place = directory / ".git"
    try:
        if place.is_file():  # a linked work tree
            place = directory / place.read_text("utf-8").partition("gitdir:")[2].strip()
        head = (place / "HEAD").read_text("utf-8").strip()
        if head.startswith("ref: refs/heads/"):
            branch = head.removeprefix("ref: refs/heads/")
            common = place / "commondir"
            top = place / common.read_text("utf-8").strip() if common.is_file() else place
            packed = top / "packed-refs"
            there = (top / "refs" / "heads" / branch).is_file() or (
                packed.is_file() and f" refs/heads/{branch}\n" in packed.read_text("utf-8")
            )
            return branch if there else ""  # a repository without a commit has nothing to work on
    except (OSError, UnicodeDecodeError):
        pass  # not readable is as good as none
    return ""
