"""Agents hear of what became of their jobs and of the tasks they handed on: notices are given to whoever they
are for.

One notice goes into one turn, by the first of these ways that there is:

* the conversation's next turn carries it before what the user says (``carried``, when a run is started);
* a run that goes on is told at the end of its turn, where its agent takes another message (``more``);
* a conversation of the embedded hub whose turn is over is woken: the hub queues another turn of the same
  session, which takes a slot like any other, so the barrier and the user's pause hold it, too;
* a task of another server is kept open meanwhile (``keeping``) and goes on with a further run.

Between a person's words a conversation is woken a limited number of times; then it waits for the user, who is
told. Nothing here decides that a notice has arrived: that is written with the agent's first answer.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from daemon_core.jobs.conversations import conversation_of
from daemon_core.jobs.notices import Notice, Notices, worth_a_turn
from daemon_core.journal import JournalError, TaskRecord
from daemon_core.protocol.wire import Task
from daemon_core.tasks import clock
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import keep_going
from daemon_core.tasks.prompts import PLAIN_FAMILIES
from daemon_core.tasks.run import More
from daemon_core.tasks.secrets import ClaimFile
from daemon_core.tasks.telling import told

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

RETRY_S: Final = 60.0
"""A conversation that could not be woken (its server's disk is full, say) is looked at again after this."""

KEPT: Final = dt.timedelta(days=7)
"""Notices that were told are known this long, so that nothing makes them anew."""

Outstanding = Callable[[str], Awaitable[int]]
"""How much of a conversation goes on that will wake it when it ends."""
WakeHub = Callable[[str, str], Awaitable[bool | None]]
"""Queue another turn in the conversation of a task, with a text; False if there is one to come already, None
if there can be none (its agent was removed, say)."""


async def _nothing(conversation: str) -> int:
    return 0


class FollowUp:
    """See the module. Used on the event loop alone."""

    def __init__(
        self,
        engine: Engine,
        notices: Notices,
        *,
        wake_hub: WakeHub | None = None,
        wake_limit: Callable[[], int] = lambda: 20,
        keep_open: Callable[[], bool] = lambda: True,
        keep_open_for_s: Callable[[], float] = lambda: 0.0,
        outstanding: Outstanding = _nothing,
        on_held: Callable[[str, TaskRecord | None], None] = lambda conversation, record: None,
        on_given_up: Callable[[str], None] = lambda conversation: None,
    ) -> None:
        self.engine = engine
        self.notices = notices
        self.wake_hub = wake_hub
        self.wake_limit = wake_limit
        self.keep_open = keep_open
        self.keep_open_for_s = keep_open_for_s
        """For how long after its start at most, where the server would fail it one day; 0: without end."""
        self.outstanding = outstanding
        self.on_held = on_held
        """Hears that a conversation waits for the user, since it was woken too often (with its newest task),
        or does so no longer (with None)."""
        self.on_given_up = on_given_up
        """Hears that a conversation is not woken although there is something to tell."""
        self._refused: set[str] = set()
        """Conversations whose server has refused that, since the user last said something."""
        self._held: set[str] = set()
        self._wanted: dict[str, None] = {}
        self._wake = asyncio.Event()
        notices.on_added = self.look

    # --- the loop ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier life of the daemon left; called once its runs are taken up again."""
        living = {life.run.run_id for life in self.engine.lives.values()}
        for run_id in await self.notices.holders():
            if run_id not in living:
                await self.notices.put_back(run_id, untried=True)
        for conversation in await self.notices.waiting():
            if await self._newest(conversation) is None:
                await self.notices.drop_conversation(conversation)  # it went while nobody was here
            else:
                self.look(conversation)
        self.engine.beside_all(keep_going(self._run, "follow-up"), "follow-up")

    def look(self, conversation: str) -> None:
        """Something is different for this conversation: a notice, a job that ended, a turn that is over."""
        for life in self._lives(conversation):
            life.noticed.set()
        self._wanted[conversation] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                conversation = next(iter(self._wanted))
                del self._wanted[conversation]
                try:
                    await self._follow(conversation)
                except Exception as error:  # one conversation must not hold up the others
                    if isinstance(error, JournalError) and error.damaged:
                        raise
                    log.exception("conversation %s cannot be woken now", conversation)
                    asyncio.get_running_loop().call_later(RETRY_S, self.look, conversation)

    def _lives(self, conversation: str) -> list[TaskLife]:
        return [life for life in self.engine.lives.values() if conversation_of(life.record) == conversation]

    async def _follow(self, conversation: str) -> None:
        """Wake a conversation that has nothing to come by itself."""
        if self.wake_hub is None or self._lives(conversation):
            return
        pending = await self.notices.pending(conversation)
        if not worth_a_turn(pending):
            self._let_go(conversation)
            return
        record = await self._newest(conversation)
        if record is None or record.key in self.engine.deliveries or not self._can_be_woken(record):
            return
        if record.outcome == "cancelled" and not worth_a_turn(_since(pending, record.ended_at)):
            return  # whoever cancelled the turn does not want another one for what was there already
        if await self.notices.wakes(conversation) >= self.wake_limit():
            if conversation not in self._held:
                log.warning("conversation %s was woken too often; it waits for the user", conversation)
                self._held.add(conversation)
                self.on_held(conversation, record)
                self.on_given_up(conversation)
            return
        reach("before_wake")
        woken = await self.wake_hub(record.task_id, told(pending))
        if woken:
            reach("woken")
            await self.notices.woken(conversation)
            log.info("task %s: its conversation was woken", record.task_id)
        elif woken is None:
            self._refused.add(conversation)
            self.on_given_up(conversation)

    def _can_be_woken(self, record: TaskRecord) -> bool:
        connection = self.engine.connections.get(record.connection)
        launcher = self.engine.launcher(record)
        return (
            connection is not None
            and connection.timing.loopback
            and (launcher is None or launcher.family.name not in PLAIN_FAMILIES)
        )

    async def _newest(self, conversation: str) -> TaskRecord | None:
        connection, _, rest = conversation.partition("/")
        found = await self.engine.journal.tasks_of(connection, rest.partition("/")[0])
        return next((record for record in found if conversation_of(record) == conversation), None)

    # --- a turn begins -------------------------------------------------------------------------

    async def accepted(self, record: TaskRecord, claim: Task) -> None:
        """A claim was recorded: where it is a person's word, wake-ups are counted anew."""
        if claim.wake_text is None and not claim.fresh_message and (claim.attempt or 1) <= 1:
            conversation = conversation_of(record)
            await self.notices.person_spoke(conversation)
            self._refused.discard(conversation)
            self._let_go(conversation)

    async def carried(self, life: TaskLife, family: str) -> list[Notice]:
        """What the first turn of a task's run is to tell; its from here on, unless it is put back."""
        if family in PLAIN_FAMILIES:
            return []  # its prompt is a command
        conversation, run_id = conversation_of(life.record), life.run.run_id
        taken = await self.engine.patience.carry(lambda: self.notices.take(conversation, run_id))
        reach("notices_given")
        return taken

    async def more(self, life: TaskLife) -> More | None:
        """What a run is told at the end of its turn, if there is anything that is worth another one."""
        conversation = conversation_of(life.record)
        pending = await self.notices.pending(conversation)
        if not worth_a_turn(pending) or life.over.is_set():
            return None
        if await self.notices.wakes(conversation) >= self.wake_limit():
            return None
        await self.notices.woken(conversation)
        return More(text=told(pending), notices=tuple(notice.id for notice in pending))

    # --- a turn ends ---------------------------------------------------------------------------

    async def run_over(self, life: TaskLife) -> None:
        """A run has ended, or will not begin: what it was given and has not taken up is pending again."""
        run = life.run
        count = await self.engine.patience.carry(
            lambda: self.notices.put_back(run.run_id, unseen=run.pid is None)
        )
        if count:
            log.info("run %s of task %s left %d notices", run.run_id, life.record.task_id, count)
        reach("notices_put_back")

    def task_over(self, record: TaskRecord) -> None:
        """A task has ended here, or its last report has arrived."""
        self.look(conversation_of(record))

    async def expects_more(self, life: TaskLife) -> bool:
        """Whether a task that could end now will have something to be told, and may be told."""
        conversation = conversation_of(life.record)
        if not self.keep_open() or await self.notices.wakes(conversation) >= self.wake_limit():
            return False
        return await self.outstanding(conversation) > 0 or await self.has_news(life)

    async def will_wake(self, record: TaskRecord) -> bool:
        """Whether the conversation of a task whose turn is over goes on by itself: something that it has
        begun goes on, or is still to be told."""
        conversation = conversation_of(record)
        if self.wake_hub is None or conversation in self._refused or not self._can_be_woken(record):
            return False
        if await self.notices.wakes(conversation) >= self.wake_limit():
            return False
        # In this order: a job's end and its notice are one transaction.
        return await self.outstanding(conversation) > 0 or worth_a_turn(
            await self.notices.pending(conversation)
        )

    async def has_news(self, life: TaskLife) -> bool:
        """Whether there is something to tell that is worth another turn."""
        return worth_a_turn(await self.notices.pending(conversation_of(life.record)))

    async def news(self, life: TaskLife) -> list[Notice]:
        """All that there is to tell a task."""
        return await self.notices.pending(conversation_of(life.record))

    async def count(self, life: TaskLife) -> None:
        """A task that was kept open goes on: that is a wake-up."""
        await self.notices.woken(conversation_of(life.record))

    async def job_started(self, task_key: str) -> None:
        """A task has started something that will wake it. One of another server may have to go on after its
        run has ended, also where no daemon sees that: what it needs for it is kept."""
        life = self.engine.lives.get(task_key)
        if life is None or life.connection.timing.loopback or not self.keep_open():
            return
        try:
            await asyncio.to_thread(ClaimFile(life.run_dir).keep_for_further)
        except OSError as error:
            log.warning("task %s: it may not go on after a restart: %s", life.record.task_id, error)

    # --- the end of a conversation -------------------------------------------------------------

    async def prune(self) -> None:
        """Forget what was told long ago."""
        before = clock.text(dt.datetime.now(dt.UTC) - KEPT)
        await self.engine.patience.carry(lambda: self.notices.prune(before))

    async def conversation_deleted(self, conversation: str) -> None:
        """Its notices go with it."""
        await self.notices.drop_conversation(conversation)
        self._wanted.pop(conversation, None)
        self._refused.discard(conversation)
        self._let_go(conversation)

    def _let_go(self, conversation: str) -> None:
        if conversation in self._held:
            self._held.discard(conversation)
            self.on_held(conversation, None)


def _since(notices: Iterable[Notice], moment: str) -> list[Notice]:
    """Those of what happened later."""
    return [notice for notice in notices if notice.created_at > moment]
