"""Tasks hand on work: a running task gives a prompt to another agent of this machine, and hears of its end.

The child is a task of the embedded hub with a conversation of its own (``hub.delegating`` has its links, its
limits and its end with its parent). What is kept here:

* **Telling.** A child is over when its newest turn has ended at the hub, its slot is free here, nothing that
  it has begun itself will wake it (its jobs, what it has handed on), and its to-do list is done (or it was
  asked to go on often enough). Then its parent is told exactly once: as the answer to
  a call that waits (acknowledged by whoever asked), or by a notice, like the end of a job. Which of them it
  was is one column of one row, so no crash can make it both or neither.
* **Waiting.** A task whose call waits lends its slot to the child (``tasks.slots``) and has it back before
  the call is answered. A call that goes away without a word (its process was killed, the daemon was
  restarted) is waited for a while; then the slot is taken back, and the end is told by a notice. After a
  restart everything is as the journal's rows say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from daemon_core.hub import Hub, HubChange, NewTask
from daemon_core.hub.delegating import Child, Link
from daemon_core.jobs.conversations import conversation_key, conversation_of
from daemon_core.jobs.notices import Notices
from daemon_core.journal import JournalError, TaskRecord
from daemon_core.protocol.wire import TaskMessage
from daemon_core.tasks import clock
from daemon_core.tasks.delegation_store import DelegationRow, DelegationStore
from daemon_core.tasks.delegation_words import ask_to_go_on, told_of
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import Nursery, keep_going
from daemon_core.tasks.translate import Digest

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

HUB: Final = "hub"
"""The name of the embedded server's connection."""
GRACE_S: Final = 40.0
"""How long a call that waited may be silent before it counts as gone: longer than a restart of the daemon."""
LOOK_AGAIN_S: Final = 5.0
"""What keeps a queued child from being claimed may end without a word about it (its agent is busy, say)."""
RETRY_S: Final = 30.0
MESSAGE_CHARS: Final = 300

_Lines = msgspec.json.Decoder(list[TaskMessage])


async def _nothing(conversation: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationRules:
    """The settings."""

    depth: int = 1
    at_once: int = 8
    per_task: int = 50
    more_turns: int = 2


@dataclass(slots=True)
class ChildProgress:
    """What a child does, as its parent and the desktop see it."""

    tool_calls: int = 0
    last_tool: str = ""
    last_message: str = ""


@dataclass(slots=True)
class _Wait:
    """A task whose call waits for a child."""

    key: str
    calls: int = 0
    timer: asyncio.TimerHandle | None = None
    claimer: asyncio.Task[None] | None = None


class Delegations:
    """See the module. Used on the event loop alone."""

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        notices: Notices,
        rules: Callable[[], DelegationRules],
        *,
        on_change: Callable[[DelegationRow], None] = lambda row: None,
        end_jobs: Callable[[str], Awaitable[None]] = _nothing,
        grace_s: float = GRACE_S,
    ) -> None:
        self.engine = engine
        self.hub = hub
        self.notices = notices
        self.rules = rules
        self.on_change = on_change
        """Hears that something of a child is different."""
        self.end_jobs = end_jobs
        """Ends the jobs of a conversation."""
        self.store = DelegationStore(engine.journal)
        self.rows: dict[str, DelegationRow] = {}
        """All children there are, by conversation."""
        self.progress: dict[str, ChildProgress] = {}
        self._grace_s = grace_s
        self._over: dict[str, Child | None] = {}
        """Children whose end was seen in this life of the daemon; None: deleted."""
        self._waits: dict[str, _Wait] = {}
        self._listening: dict[str, set[asyncio.Future[None]]] = {}
        self._wanted: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._nursery = Nursery("delegations")

    # --- life ----------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take up what an earlier life left: rows, lent slots, ends that were not told. After the engine has
        taken up its runs, before anything is claimed."""
        for row in await self.store.all():
            self.rows[row.conversation_id] = row
        for child in await self.hub.delegating.all():
            if child.conversation_id not in self.rows:
                await self._keep(child)  # handed on just before the end of the daemon
        for row in self.rows.values():
            if row.told:
                continue
            if row.waiting_key:
                await self._restore_wait(row)
            self._look(row.conversation_id)
        for row in list(self.rows.values()):
            if not row.told and await self._parent_ended(row):
                await self.hub.delegating.cancel(row.conversation_id)
        self._nursery.start(keep_going(self._run, "delegations"), "delegations")

    async def close(self) -> None:
        """Let go of everything; what waits is taken up by the next life."""
        for wait in self._waits.values():
            if wait.timer is not None:
                wait.timer.cancel()
        await self._nursery.close()

    async def _restore_wait(self, row: DelegationRow) -> None:
        life = self.engine.lives.get(row.waiting_key)
        if life is None:
            await self.store.update(row, waiting_key="")
            return
        child = await self.hub.delegating.child(row.conversation_id)
        own = self.engine.lives.get(f"{HUB}/{child.task.id}") if child is not None else None
        life.slot.lend()
        if own is not None and own.slot.number == life.slot.number:
            self.engine.slots.link(life.slot, own.slot)
        wait = self._waits[row.conversation_id] = _Wait(row.waiting_key)
        self._claim_beside(row, wait, life)
        self._give_time(row.conversation_id, wait)

    # --- handing on ----------------------------------------------------------------------------

    async def hand_on(self, life: TaskLife, new: NewTask, request: str) -> DelegationRow:
        """Begin a child of a running task. The same request again gives the same child.

        Raises what ``Delegating.hand_on`` does.
        """
        record, rules = life.record, self.rules()
        link = Link(
            parent_key=record.key,
            parent_conversation=conversation_of(record),
            parent_task=record.task_id if record.connection == HUB else None,
            request=f"{record.key}/{request}",
            depth=rules.depth,
            at_once=rules.at_once,
            per_task=rules.per_task,
        )
        if self.engine.follow_up is not None:
            await self.engine.follow_up.job_started(record.key)
        child = await self.hub.delegating.hand_on(new, link)
        reach("delegation_added")
        row = self.rows.get(child.conversation_id) or await self._keep(child)
        reach("delegation_recorded")
        if (life.over.is_set() or life.record.state == "ended") and await self._parent_ended(row):
            await self.hub.delegating.cancel(row.conversation_id)  # it was cancelled meanwhile
        self.on_change(row)
        return row

    async def _keep(self, child: Child) -> DelegationRow:
        row = DelegationRow(
            conversation_id=child.conversation_id,
            task_id=child.id,
            parent_key=child.parent_key,
            parent_conversation=child.parent_conversation,
            depth=child.depth,
            created_at=child.created_at,
        )
        await self.engine.patience.carry(lambda: self.store.add(row))
        row = self.rows.setdefault(row.conversation_id, row)
        self._look(row.conversation_id)
        return row

    # --- questions -----------------------------------------------------------------------------

    def of(self, conversation: str) -> list[DelegationRow]:
        """What a conversation has handed on, oldest first."""
        found = [row for row in self.rows.values() if row.parent_conversation == conversation]
        return sorted(found, key=lambda row: (row.created_at, row.task_id))

    def open_of(self, conversation: str) -> int:
        """How much of it is not over, or not told yet."""
        return sum(
            1 for row in self.rows.values() if row.parent_conversation == conversation and not row.told
        )

    async def outstanding(self, conversation: str) -> int:
        """The same, for who keeps a task open."""
        return self.open_of(conversation)

    def depth_of(self, record: TaskRecord) -> int:
        """How deep a task was handed on; 0: it was not."""
        row = self.rows.get(record.conversation_id) if record.connection == HUB else None
        return row.depth if row is not None else 0

    def may_hand_on(self, record: TaskRecord) -> bool:
        """Whether a task is above the depth at which nothing is handed on any more."""
        return self.depth_of(record) < self.rules().depth

    def is_over(self, row: DelegationRow) -> bool:
        """Whether its end was seen: then nothing of it goes on."""
        return row.conversation_id in self._over or row.told != ""

    async def child(self, row: DelegationRow) -> Child | None:
        """The child as it ended, or as it is; None: deleted."""
        if row.conversation_id in self._over:
            return self._over[row.conversation_id]
        return await self.hub.delegating.child(row.conversation_id)

    # --- waiting -------------------------------------------------------------------------------

    async def wait(self, life: TaskLife, row: DelegationRow, limit_s: float) -> bool:
        """A call of ``life`` waits for a child, this long at most; whether the child is over.

        When it is, the slot of whoever waits is back. The call asks again or says that it does not
        (``leave``, ``acknowledge``); until then, and for a while if it says nothing, it is waited for.
        """
        name = row.conversation_id
        if self.is_over(row) and name not in self._waits:
            return True
        wait = await self._begin(life, row)
        try:
            async with asyncio.timeout(limit_s):
                while not self.is_over(row):
                    await self._changed(name)
                await self._resume(life)
        except TimeoutError:
            return False
        finally:
            wait.calls -= 1
            if self._waits.get(name) is wait and wait.calls == 0:
                self._give_time(name, wait)
        return True

    async def _begin(self, life: TaskLife, row: DelegationRow) -> _Wait:
        name, key = row.conversation_id, life.record.key
        wait = self._waits.get(name)
        if wait is None or wait.key != key:
            if wait is not None:
                self._end(name)
            wait = self._waits[name] = _Wait(key)
        wait.calls += 1
        if wait.timer is not None:
            wait.timer.cancel()
            wait.timer = None
        try:
            if row.waiting_key != key:
                await self.engine.patience.carry(lambda: self.store.update(row, waiting_key=key))
                reach("delegation_waits")
        except BaseException:
            wait.calls -= 1
            self._give_time(name, wait)
            raise
        if self._waits.get(name) is wait and not self.is_over(row):
            life.slot.lend()
            self.engine.changed(life)
            self._claim_beside(row, wait, life)
        return wait

    async def _resume(self, life: TaskLife) -> None:
        """Give a task its slot back, unless another child is waited for."""
        key = life.record.key
        if any(wait.key == key and name not in self._over for name, wait in self._waits.items()):
            return
        await life.slot.resume()
        self.engine.changed(life)

    async def leave(self, row: DelegationRow) -> None:
        """The call does not wait any more: the child goes on, and its end is told by a notice."""
        self._end(row.conversation_id)
        await self._not_waiting(row)

    async def acknowledge(self, row: DelegationRow) -> None:
        """Whoever asked has got the end of a child: it is told. A notice that is on its way is taken back."""
        if not self.is_over(row):
            return
        self._end(row.conversation_id)
        if row.told == "":
            changes = {"told": "answer", "waiting_key": "", "ended_at": row.ended_at or clock.now_text()}
            await self.engine.patience.carry(lambda: self.store.update(row, **changes))
            reach("delegation_answered")
            self._told(row)
        elif row.told == "notice":
            await self.notices.drop_subject(row.task_id)

    async def cancel(self, row: DelegationRow) -> None:
        """End a child and everything below it, its jobs, too: nobody else could be asked about them."""
        await self.hub.delegating.cancel(row.conversation_id)
        await self.end_jobs(conversation_key(HUB, row.conversation_id))
        self._look(row.conversation_id)

    def _give_time(self, name: str, wait: _Wait) -> None:
        """Nobody asks just now: the call may come back."""
        loop = asyncio.get_running_loop()
        wait.timer = loop.call_later(self._grace_s, self._silent, name, wait)

    def _silent(self, name: str, wait: _Wait) -> None:
        if self._waits.get(name) is wait and wait.calls == 0:
            log.info("the call that waited for conversation %s does not come back", name)
            self._end(name)
            row = self.rows.get(name)
            if row is not None:
                self._nursery.start(self._not_waiting(row), f"wait for {name}")

    def _end(self, name: str) -> None:
        """A wait is over; with the last one of its task its slot is taken back."""
        wait = self._waits.pop(name, None)
        if wait is None:
            return
        if wait.timer is not None:
            wait.timer.cancel()
        if wait.claimer is not None:
            wait.claimer.cancel()
        life = self.engine.lives.get(wait.key)
        if life is not None and not any(other.key == wait.key for other in self._waits.values()):
            life.slot.take_back()
            self.engine.changed(life)

    async def _not_waiting(self, row: DelegationRow) -> None:
        if row.waiting_key:
            await self.engine.patience.carry(lambda: self.store.update(row, waiting_key=""))
        self._look(row.conversation_id)

    def _claim_beside(self, row: DelegationRow, wait: _Wait, life: TaskLife) -> None:
        if wait.claimer is None or wait.claimer.done():
            wait.claimer = self._nursery.start(self._claim_for(row, life), f"claim of {row.task_id}")

    async def _claim_for(self, row: DelegationRow, life: TaskLife) -> None:
        """Claim the child's turns with the slot that was lent to it. (With another one, others do.)"""
        while not self.is_over(row):
            child = await self.hub.delegating.child(row.conversation_id)
            if child is None:
                return
            # One that was handed out and is not here: its claim was lost, and it is handed out again.
            waits = child.task.status in ("queued", "dispatched")
            if waits and child.task.runtime_id and f"{HUB}/{child.task.id}" not in self.engine.lives:
                poller = self.engine.poller(HUB, child.task.runtime_id)
                if poller is not None:
                    model = child.model or self.engine.default_model(child.task.provider)
                    await poller.claim_child(child.task.id, model, life.slot)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._changed(row.conversation_id)

    # --- what happens --------------------------------------------------------------------------

    def hub_changed(self, change: HubChange) -> None:
        """Something changed at the hub."""
        name = change.conversation_id
        if name in self.rows:
            self._look(name)
        if change.status == "cancelled" or change.kind == "conversation_deleted":
            self._look_at_open()
        if change.kind == "task" and change.status == "cancelled" and self._is_parent(change):
            # Also where it was not cancelled by the hub's own door, which does this in one transaction.
            self._nursery.start(
                self.hub.delegating.cancel_below_home(name), f"cancel what {name} has handed on"
            )

    def _is_parent(self, change: HubChange) -> bool:
        key = f"{HUB}/{change.task_id}"
        return any(row.parent_key == key and not row.told for row in self.rows.values())

    def stretched(self, life: TaskLife, made: Digest) -> None:
        """A run has said something."""
        row = self.rows.get(life.record.conversation_id) if life.record.connection == HUB else None
        if row is None or row.told:
            return
        progress = self.progress.setdefault(row.conversation_id, ChildProgress())
        progress.tool_calls += made.tool_calls
        progress.last_tool = made.last_action or progress.last_tool
        progress.last_message = _last_text(made) or progress.last_message
        if made.plan is not None:
            plan = msgspec.json.encode(made.plan).decode()
            self._nursery.start(self._keep_plan(row, plan), f"plan of {row.task_id}")
        parent = self.engine.lives.get(row.waiting_key)
        if parent is not None and parent.driver is not None:
            parent.driver.watchdog.answered()  # who waits for somebody at work is not silent
        self.on_change(row)

    async def _keep_plan(self, row: DelegationRow, plan: str) -> None:
        await self.engine.patience.carry(lambda: self.store.update(row, plan=plan))

    def task_ended(self, record: TaskRecord) -> None:
        """A task has ended here: its slot is free."""
        if record.connection == HUB and record.conversation_id in self.rows:
            self._look(record.conversation_id)
        for name, wait in list(self._waits.items()):
            if wait.key == record.key:
                self._end(name)
                if (row := self.rows.get(name)) is not None:
                    self._nursery.start(self._not_waiting(row), f"wait for {name}")
        if record.connection != HUB and record.outcome in ("cancelled", "abandoned"):
            conversation = conversation_of(record)
            if self.open_of(conversation):
                self._look_at_open()
                self._nursery.start(
                    self.hub.delegating.cancel_below(conversation), f"cancel what {record.key} has handed on"
                )

    # --- the end of a child --------------------------------------------------------------------

    def conversation_changed(self, conversation: str) -> None:
        """Something that a conversation has begun has ended, or it is not woken for it: where that is a
        child's, it may be over now."""
        connection, _, name = conversation.partition("/")
        if connection == HUB and name in self.rows:
            self._look(name)

    def _look(self, name: str) -> None:
        self._wanted[name] = None
        self._wake.set()

    def _look_at_open(self) -> None:
        """A parent may have ended: then nobody wants its children any more."""
        for row in self.rows.values():
            if row.told == "":
                self._look(row.conversation_id)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                name = next(iter(self._wanted))
                del self._wanted[name]
                try:
                    await self._follow(name)
                except Exception as error:  # one child must not hold up the others
                    if isinstance(error, JournalError) and error.damaged:
                        raise
                    log.exception("the end of conversation %s cannot be told now", name)
                    asyncio.get_running_loop().call_later(RETRY_S, self._look, name)

    async def _follow(self, name: str) -> None:
        row = self.rows.get(name)
        if row is None:
            return
        if not self.is_over(row):
            child = await self.hub.delegating.child(name)
            self._tell_listeners(name)
            if self._works(name) or (child is not None and not await self._has_ended(row, child)):
                self.on_change(row)
                return
            reach("child_ended")
            self._over[name] = child
            self._tell_listeners(name)
        if row.told == "" and name not in self._waits:
            await self._tell(row, self._over[name])
        elif row.told and await self.hub.delegating.child(name) is None:
            await self._forget(row)

    def _works(self, name: str) -> bool:
        """Whether something of a child is here yet: then its slot is not free."""
        return any(
            life.record.conversation_id == name and life.record.connection == HUB
            for life in self.engine.lives.values()
        )

    async def _has_ended(self, row: DelegationRow, child: Child) -> bool:
        if not child.over:
            return False
        if child.task.status != "completed" or await self._parent_ended(row):
            return True
        if await self._goes_on(child):
            return False
        unfinished = [entry for entry in row.entries if entry.status != "completed"]
        if not unfinished or row.turns >= self.rules().more_turns:
            return True
        prompt = ask_to_go_on(unfinished)
        if await self.hub.delegating.go_on(row.conversation_id, child.task.id, prompt) is not None:
            log.info("task %s has not done all of its list; it goes on", child.task.id)
            reach("child_goes_on")
            turns = row.turns + 1
            await self.engine.patience.carry(lambda: self.store.update(row, turns=turns))
        return False

    async def _goes_on(self, child: Child) -> bool:
        """Whether a child whose turn is over will be woken by what it has begun itself."""
        follow_up = self.engine.follow_up
        record = await self.engine.journal.task(f"{HUB}/{child.task.id}")
        return follow_up is not None and record is not None and await follow_up.will_wake(record)

    async def _tell(self, row: DelegationRow, child: Child | None) -> None:
        ended_at = (child.task.ended_at if child is not None else None) or clock.now_text()
        if await self._parent_ended(row):
            # With its parent goes all that it has begun: it is not to be woken by that any more.
            conversation = conversation_key(HUB, row.conversation_id)
            await self.end_jobs(conversation)
            await self.notices.drop_conversation(conversation)
            changes = {"told": "dropped", "waiting_key": "", "ended_at": ended_at}
            await self.store.update(row, **changes)
        elif await self.store.tell(row, told_of(row, child), ended_at):
            reach("child_told")
            log.info("task %s has ended; %s is told", row.task_id, row.parent_conversation)
            self.notices.on_added(row.parent_conversation)
        self._told(row)
        if child is None:
            await self._forget(row)

    def _told(self, row: DelegationRow) -> None:
        self.on_change(row)
        if self.engine.follow_up is not None:
            self.engine.follow_up.look(row.parent_conversation)

    async def _forget(self, row: DelegationRow) -> None:
        await self.store.forget(row)
        self.rows.pop(row.conversation_id, None)
        self._over.pop(row.conversation_id, None)
        self.progress.pop(row.conversation_id, None)

    async def _parent_ended(self, row: DelegationRow) -> bool:
        """Whether the parent is deleted or cancelled: then nobody wants to hear of the child."""
        connection, _, task_id = row.parent_key.partition("/")
        if connection == HUB:
            task = await self.hub.get(task_id)
            if task is None or task.status == "cancelled":
                return True
            above = self.rows.get(task.conversation_id)
            return above is not None and await self._parent_ended(above)
        record = await self.engine.journal.task(row.parent_key)
        return record is None or record.outcome in ("cancelled", "abandoned")

    # --- small ---------------------------------------------------------------------------------

    async def _changed(self, name: str) -> None:
        """Until something of a child may be different."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        listening = self._listening.setdefault(name, set())
        listening.add(future)
        try:
            await future
        finally:
            listening.discard(future)
            if not listening and self._listening.get(name) is listening:
                del self._listening[name]

    def _tell_listeners(self, name: str) -> None:
        for future in self._listening.get(name, ()):
            if not future.done():
                future.set_result(None)


def _last_text(made: Digest) -> str:
    """The beginning of the last text of a stretch; empty if it has none."""
    for _, _, body in reversed(made.chunks):
        found: Iterable[TaskMessage] = reversed(_Lines.decode(body))
        for message in found:
            if message.type == "text" and (text := (message.content or "").strip()):
                return text[-MESSAGE_CHARS:]
    return ""
