"""The hub as the rooms of its own process use it.

Everything that changes something is one transaction; ``on_change`` and the hints to websockets follow its
commit. The hub's timers do not run before :meth:`Hub.start_timers`: until the daemon has taken up its runs
again, what looks lost may be well.
"""

from __future__ import annotations

import builtins
import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from daemon_core.hub import (
    access_tokens,
    agents,
    attachments,
    claims,
    delegating,
    dispatch,
    history,
    parking,
    places,
    registry,
    service,
    tokens,
    transcripts,
    waking,
)
from daemon_core.hub.clock import SECOND, Clock, SystemClock, rfc3339
from daemon_core.hub.errors import ConflictError, NotFoundError, RefusedError, StorageError
from daemon_core.hub.limits import Limits
from daemon_core.hub.links import Links
from daemon_core.hub.requests import Requests
from daemon_core.hub.rows import load_task
from daemon_core.hub.service import Scope
from daemon_core.hub.store import DamageReport, Store, Tx
from daemon_core.hub.timers import Timer
from daemon_core.hub.views import (
    AgentChanges,
    AgentSpec,
    AgentView,
    Conversation,
    DeletedConversation,
    HubChange,
    HubRuntime,
    HubTask,
    NewTask,
)
from daemon_core.protocol import wire

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

WORKSPACE_NAME: Final = "Local"
DEFAULT_RETENTION: Final = timedelta(days=30)
_AFTER_FAILURE_S: Final = 60
"""A sweep that failed (disk full, say) is tried again after this."""


class Hub:
    """The embedded server. Made by :meth:`open`.

    Attributes:
        credential: what the daemon of this process authenticates with; made anew at each start, never stored.
        workspace_id: the machine's own workspace, ``Local``; others may be made beside it.
        scope: whose hub this is, and its limits; of that workspace.
        store: the database.
        links: the websockets.
        requests: what daemons are asked beside tasks.
        delegating: tasks that were handed on by others.
    """

    def __init__(
        self, store: Store, scope: Scope, clock: Clock, on_change: Callable[[HubChange], None]
    ) -> None:
        self.credential = tokens.new_credential()
        self.workspace_id = scope.workspace_id
        self.scope = scope
        self.store = store
        self.links = Links(scope.limits, self.heartbeat)
        self.requests = Requests(clock)
        self.delegating = delegating.Delegating(store, scope)
        self.retention = DEFAULT_RETENTION
        self.on_expired: Callable[[DeletedConversation], object] = lambda deleted: None
        """Hears of each conversation that aged out, so that its directories can go, too; must be cheap."""
        self._clock = clock
        self._on_change = on_change
        self._timer = Timer(clock, scope.limits.longest_sleep_s)
        self._timers_started = False
        self._opened_at = clock.now()
        self._known_tasks: frozenset[str] | None = None
        self._online: dict[str, bool] = {}
        self._places: dict[str, str] = {}
        self._seen: dict[str, float] = {}

    @classmethod
    async def open(
        cls,
        database: Path,
        *,
        daemon_id: str,
        retention: timedelta = DEFAULT_RETENTION,
        on_change: Callable[[HubChange], None] = lambda change: None,
        clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> Hub:
        """Open the hub on its database, which is begun where there is none.

        Args:
            database: the file; its directory is made.
            daemon_id: the daemon of this process, to whom local directories belong.
            retention: how long a conversation is kept after its last turn has ended; zero or less: for ever.
            on_change: called on the event loop after each commit that changed something; it must be cheap.

        Raises:
            StorageError: the database cannot be opened or made. A damaged one is replaced (:attr:`damage`).
        """
        clock = clock or SystemClock()
        hub: Hub | None = None

        def publish(tx: Tx) -> None:
            if hub is not None:
                hub._publish(tx)

        store = Store(database, clock, publish)
        await store.open()
        try:
            workspace_id = await store.write(_begin)
        except BaseException:
            await store.close()
            raise
        hub = cls(store, Scope(workspace_id, daemon_id, limits or Limits()), clock, on_change)
        hub.retention = retention
        try:
            await hub._reload_runtimes()
        except BaseException:
            await store.close()
            raise
        return hub

    async def close(self) -> None:
        """Close the websockets, let transactions end, close the database. Idempotent."""
        self._timer.disarm()
        try:
            await self.links.close()
        finally:
            await self.store.close()

    @property
    def damage(self) -> DamageReport | None:
        """What happened to a damaged database since the start, or None."""
        return self.store.damage

    @property
    def begun(self) -> bool:
        """Whether there was nothing in the database's place: a first start, or a file that was lost."""
        return self.store.begun

    # --- timers ---------------------------------------------------------------------------------------

    @property
    def timers_started(self) -> bool:
        """Whether lost claims are handed out again."""
        return self._timers_started

    def start_timers(self, known_tasks: Collection[str] | None = None) -> None:
        """Begin redelivery and sweeps; called once the daemon has taken up its runs again.

        ``known_tasks`` are the ids of all tasks the daemon knows to be with it. Where given, a task that was
        dispatched before this start and is not among them is handed out again at once instead of after its
        90 s: its claim was lost in a crash.
        """
        self._known_tasks = None if known_tasks is None else frozenset(known_tasks)
        self._timers_started = True
        self._timer.ring()

    async def take_stock(self, known_tasks: Collection[str]) -> int:
        """Fail as lost what runs here by the record and is not with the daemon any more; gives how many.

        Called once the daemon has taken up its runs again and before it registers. Tasks that were claimed
        and never started are left to :meth:`start_timers`, which hands them out again.
        """
        known = frozenset(known_tasks)
        return await self.store.write(lambda tx: service.fail_unknown(tx, known))

    async def run(self) -> None:
        """Do what falls due, until cancelled. Belongs in the daemon's task group."""
        while True:
            await self._timer.wait()
            try:
                await self.sweep()
            except StorageError as error:
                _log.warning("The hub could not do what is due: %s", error)
                self._timer.arm(self._clock.now() + _AFTER_FAILURE_S * SECOND)

    async def sweep(self) -> None:
        """Do everything that is due now, and arm the timer for what comes next."""
        if not self._timers_started:
            return
        now = self._clock.now()
        limits = self.scope.limits
        if self._known_tasks is not None:
            known, before = self._known_tasks, self._opened_at
            await self.store.write(lambda tx: claims.release_unknown(tx, self.scope, known, before))
            self._known_tasks = None
        kept_since = now - int(limits.forget_upload_s * SECOND)
        await self.store.write(lambda tx: attachments.forget_unowned(tx, kept_since))
        dues: list[int | None] = [
            await self.store.write(lambda tx: claims.wake_lost(tx, self.scope)),
            await self.store.write(parking.resume_due),
            await self.store.write(parking.offer_due),
            await self.store.write(lambda tx: tokens.expire(tx.db, tx.now, limits)),
            await self._sweep_runtimes(now),
            await self._sweep_conversations(now),
        ]
        earliest = min((due for due in dues if due is not None), default=None)
        if earliest is not None:
            self._timer.arm(earliest)

    async def _sweep_runtimes(self, now: int) -> int | None:
        limits = self.scope.limits
        moment = self._clock.monotonic()
        silent = [
            runtime_id
            for runtime_id, online in self._online.items()
            if online and moment - self._seen.get(runtime_id, moment) >= limits.offline_after_s
        ]
        if silent:
            await self.store.write(lambda tx: registry.set_offline(tx, silent))
        due = await self.store.write(lambda tx: registry.forget_stale(tx, limits.forget_runtime_s))
        await self._reload_runtimes()
        waits = [
            self._seen.get(runtime_id, moment) + limits.offline_after_s - moment
            for runtime_id, online in self._online.items()
            if online
        ]
        if waits:
            offline_due = now + int(min(waits) * SECOND)
            due = offline_due if due is None else min(due, offline_due)
        return due

    async def _sweep_conversations(self, now: int) -> int | None:
        if self.retention <= timedelta(0):
            return None
        keep = int(self.retention.total_seconds() * SECOND)
        while True:  # one transaction each: a claim may come in between
            deleted = await self.store.write(lambda tx: service.delete_oldest(tx, now - keep))
            if deleted is None:
                break
            self.on_expired(deleted)
        oldest = await self.store.read(service.oldest_ended)
        return None if oldest is None else oldest + keep

    # --- tasks ----------------------------------------------------------------------------------------

    async def add_task(self, new: NewTask) -> HubTask:
        """Begin a conversation.

        Raises:
            InvalidInputError: prompt, directory, priority, provider.
            NotFoundError: ``unknown_agent`` with the ``known`` names.
        """
        return await self.store.write(lambda tx: service.add_task(tx, self.scope, new))

    async def reply(self, task_id: str, prompt: str, *, model: str | None = None) -> HubTask:
        """Another turn in the conversation of a task, after those that are there; ``model`` for it alone.
        To a task of an issue it is a comment of the user's on the issue, and a task of its agent.

        Raises:
            NotFoundError: ``unknown_task``. InvalidInputError: the prompt.
            ConflictError: ``agent_removed``; ``not_a_conversation`` (nobody can be answered there).
        """

        def rule(tx: Tx) -> HubTask:
            parking.give_way(tx, task_id)
            row = service.task_row(tx, task_id)
            waking.give_way(tx, row["conversation_id"])
            tx.place = places.of_conversation(tx, row["conversation_id"])
            if row["issue_id"] is None:
                return service.reply(tx, self.scope, task_id, prompt, model)
            service.check_prompt(prompt, self.scope.limits)
            try:
                within = self.scope.within(places.workspace_of(tx, row["conversation_id"]))
                return dispatch.say_on_issue(tx, within, task_id, prompt)
            except RefusedError as error:
                raise ConflictError("not_a_conversation", task=task_id) from error

        return await self.store.write(rule)

    async def retry(self, task_id: str, *, fresh: bool = False) -> HubTask:
        """The prompt of a task that is over as a new turn; ``fresh``: without its session and directory.
        A parked one goes on at once.

        Raises:
            NotFoundError: ``unknown_task``. ConflictError: ``task_active``, ``agent_removed``.
        """

        def rule(tx: Tx) -> HubTask:
            parked = None if fresh else parking.resume_now(tx, task_id)
            return parked or service.retry(tx, self.scope, task_id, fresh=fresh)

        return await self.store.write(rule)

    async def wake(self, task_id: str, text: str) -> HubTask | None:
        """Another turn in the conversation of a task, to tell its agent something; None where a turn goes on
        or is to come.

        Raises:
            NotFoundError: ``unknown_task``. ConflictError: ``agent_removed``. InvalidInputError: the text.
        """
        return await self.store.write(lambda tx: waking.wake(tx, self.scope, task_id, text))

    async def cancel(self, task_id: str) -> HubTask:
        """Cancel a task; one that is over is given back as it is.

        Raises:
            NotFoundError: ``unknown_task``.
        """

        def rule(tx: Tx) -> HubTask:
            row = service.task_row(tx, task_id)
            service.cancel(tx, task_id)
            delegating.cancel_below(tx, home=row["conversation_id"])
            return _known(load_task(tx, task_id), task_id)

        return await self.store.write(rule)

    async def delete(self, task_id: str) -> DeletedConversation:
        """Delete the conversation of a task (or of this id), in whatever state it is.

        Raises:
            NotFoundError: ``unknown_task``.
        """

        def rule(tx: Tx) -> DeletedConversation:
            row = tx.one(
                "SELECT conversation_id FROM task WHERE id = ?"
                " UNION SELECT id FROM conversation WHERE id = ?",
                (task_id, task_id),
            )
            if row is None:
                raise NotFoundError("unknown_task", task=task_id)
            return delegating.delete_conversation(tx, row["conversation_id"])

        return await self.store.write(rule)

    async def get(self, task_id: str) -> HubTask | None:
        """One task, or None."""
        return await self.store.read(lambda tx: load_task(tx, task_id))

    async def find(self, prefix: str) -> list[HubTask]:
        """Tasks whose id, or conversation's id, begins like this (at least four characters); newest first.

        Raises:
            InvalidInputError: ``id_too_short``.
        """
        return await self.store.read(lambda tx: service.find(tx, prefix))

    async def list(self, *, all: bool = False, limit: int = 50) -> builtins.list[HubTask]:
        """Newest first: the newest ``limit`` and every one that is not over; with ``all`` every task."""
        return await self.store.read(lambda tx: service.list_tasks(tx, all, limit))

    async def history(
        self, before: int | None, limit: int, words: str, statuses: Sequence[str]
    ) -> builtins.list[tuple[int, HubTask]]:
        """(number, task) of a page of all tasks, newest first; see ``history.page``."""
        return await self.store.read(
            lambda tx: history.page(tx, before=before, limit=limit, words=words, statuses=statuses)
        )

    async def count_queued(self) -> int:
        """Tasks that nobody has claimed yet."""
        row = await self.store.read(
            lambda tx: tx.one("SELECT count(*) AS number FROM task WHERE status = 'queued'")
        )
        return 0 if row is None else int(row["number"])

    async def messages(self, task_id: str, after: int, limit: int) -> builtins.list[wire.StoredMessage]:
        """Up to ``limit`` lines of a transcript behind number ``after``.

        Raises:
            NotFoundError: ``unknown_task``.
        """
        return await self.store.read(lambda tx: transcripts.page(tx, task_id, after, limit))

    async def conversation(self, conversation_id: str) -> Conversation:
        """A conversation with its turns.

        Raises:
            NotFoundError: ``unknown_conversation``.
        """
        found = await self.store.read(lambda tx: service.conversation(tx, conversation_id))
        if found is None:
            raise NotFoundError("unknown_conversation", conversation=conversation_id)
        return found

    # --- agents ---------------------------------------------------------------------------------------

    async def list_agents(self) -> builtins.list[AgentView]:
        """All, by name."""
        return await self.store.read(agents.list_agents)

    async def get_agent(self, name: str, *, secrets: bool = False) -> AgentView:
        """One by name, in any case; ``secrets`` shows the values of its environment and MCP configuration.

        Raises:
            NotFoundError: ``unknown_agent`` with the ``known`` names.
        """
        return await self.store.read(lambda tx: agents.get(tx, name, secrets=secrets))

    async def add_agent(self, spec: AgentSpec) -> AgentView:
        """A new agent.

        Raises:
            ConflictError: ``agent_exists``. InvalidInputError: name, provider, environment.
        """
        return await self.store.write(lambda tx: agents.add(tx, spec))

    async def edit_agent(self, name: str, changes: AgentChanges) -> AgentView:
        """Change an agent.

        Raises:
            NotFoundError, ConflictError, InvalidInputError: as above.
        """
        return await self.store.write(lambda tx: agents.edit(tx, name, changes))

    async def remove_agent(self, name: str) -> None:
        """Remove an agent.

        Raises:
            NotFoundError: ``unknown_agent``. ConflictError: ``agent_in_use``.
        """
        await self.store.write(lambda tx: agents.remove(tx, name))

    # --- runtimes -------------------------------------------------------------------------------------

    async def runtimes(self) -> builtins.list[HubRuntime]:
        """What is registered here, online or not, in every workspace."""
        return await self.store.read(registry.list_runtimes)

    async def register(self, request: wire.RegisterRequest) -> registry.Registered:
        """Take up a daemon's runtimes in the workspace that it names (over the wire).

        Raises:
            RefusedError: there is none; a profile that is unknown or disabled.
        """

        def rule(tx: Tx) -> registry.Registered:
            places.require(tx, request.workspace_id)
            return registry.register(tx, request.workspace_id, request)

        answer = await self.store.write(rule)
        await self._reload_runtimes()
        moment = self._clock.monotonic()
        self._seen.update((runtime.id, moment) for runtime in answer.runtimes)
        self._timer.arm(self._clock.now() + int(self.scope.limits.offline_after_s * SECOND))
        return answer

    async def deregister(self, runtime_ids: Sequence[str]) -> None:
        """Runtimes are not offered any more (over the wire); their tasks are not touched."""
        await self.store.write(lambda tx: registry.set_offline(tx, runtime_ids))
        await self._reload_runtimes()

    async def forget_runtime(self, runtime_id: str) -> None:
        """Delete a runtime for good.

        Raises:
            NotFoundError: ``unknown_runtime``. ConflictError: ``runtime_in_use``.
        """
        await self.store.write(lambda tx: registry.forget(tx, runtime_id))
        await self._reload_runtimes()

    async def beat(self, runtime_id: str) -> bool:
        """A sign of life; False when there is no such runtime. Touches the database only on a change."""
        online = self._online.get(runtime_id)
        if online is None:
            return False
        self._seen[runtime_id] = self._clock.monotonic()
        if not online:
            await self.store.write(lambda tx: registry.set_online(tx, runtime_id))
            await self._reload_runtimes()
            self._timer.arm(self._clock.now() + int(self.scope.limits.offline_after_s * SECOND))
        return True

    async def heartbeat(self, runtime_id: str, batch: bool) -> wire.HeartbeatResponse | None:
        """A sign of life over the wire, and what the daemon is asked in return; None: no such runtime."""
        if not await self.beat(runtime_id):
            return None
        answer = wire.HeartbeatResponse(status="ok")
        self.requests.hand_out(runtime_id, batch=batch, answer=answer)
        return answer

    def is_online(self, runtime_id: str) -> bool:
        """Whether it has given a sign of life lately."""
        return self._online.get(runtime_id, False)

    def last_seen(self, runtime_id: str) -> str | None:
        """When it last gave a sign of life; None where it has given none to this life of the hub."""
        seen = self._seen.get(runtime_id)
        if seen is None:
            return None
        return rfc3339(self._clock.now() - int((self._clock.monotonic() - seen) * SECOND))

    def knows_runtime(self, runtime_id: str) -> bool:
        """Whether it is registered, online or not."""
        return runtime_id in self._online

    def workspace_of_runtime(self, runtime_id: str) -> str | None:
        """The workspace it is registered in; None where it is not."""
        return self._places.get(runtime_id)

    async def look_at_runtimes(self) -> None:
        """Runtimes were added or taken away behind the hub's back."""
        await self._reload_runtimes()

    async def _reload_runtimes(self) -> None:
        rows = await self.store.read(lambda tx: tx.all("SELECT id, status, workspace_id FROM runtime"))
        self._online = {row["id"]: row["status"] == "online" for row in rows}
        self._places = {row["id"]: row["workspace_id"] for row in rows}
        self._seen = {key: value for key, value in self._seen.items() if key in self._online}

    # --- tokens ---------------------------------------------------------------------------------------

    async def add_access_token(self, name: str, *, days: int | None = None) -> str:
        """A token of the user's for other programs (``mul_…``); ``days`` None: it never ends."""
        token, _row = await self.store.write(lambda tx: access_tokens.add(tx, name, days=days))
        return token

    async def add_daemon_token(
        self, daemon_id: str, *, days: int | None = None, workspace_id: str | None = None
    ) -> str:
        """A token of one daemon's in one workspace (``mdt_…``; unless told otherwise the machine's own): for
        the daemon routes, and nothing else."""

        def rule(tx: Tx) -> str:
            tx.place = None if workspace_id is None else places.of(tx, workspace_id)
            return access_tokens.add(tx, "daemon", days=days, daemon_id=daemon_id)[0]

        return await self.store.write(rule)

    # --- claims ---------------------------------------------------------------------------------------

    async def claim(
        self,
        runtime_id: str,
        capabilities: frozenset[str] = frozenset(),
        wish: wire.ClaimWish | None = None,
    ) -> wire.Task | None:
        """The next task of a runtime (over the wire); ``capabilities``: what its daemon says it can;
        ``wish``: which tasks it is for.

        Raises:
            NotFoundError: ``unknown_runtime``.
        """
        await self.beat(runtime_id)

        def rule(tx: Tx) -> wire.Task | None:
            registry.require(tx, runtime_id)
            return claims.claim(
                tx,
                self.scope,
                runtime_id,
                redeliver=self._timers_started,
                capabilities=capabilities,
                wish=wish,
            )

        return await self.store.write(rule)

    async def held_back(self, runtime_id: str, wish: wire.ClaimWish) -> builtins.list[str]:
        """Models that a claim did not wish for and that tasks of the runtime wait for."""
        return await self.store.read(lambda tx: claims.held_back(tx, runtime_id, wish))

    async def claimable(self, runtime_id: str, wish: wire.ClaimWish) -> bool:
        """Whether another claim would get a task now."""
        return await self.store.read(lambda tx: claims.claimable(tx, runtime_id, wish))

    # --- publishing -----------------------------------------------------------------------------------

    def _publish(self, tx: Tx) -> None:
        """Tell what a committed transaction has changed. Runs on the event loop."""
        if tx.alarm is not None and self._timers_started:
            self._timer.arm(tx.alarm)
        for hint in tx.hints:
            self.links.send(hint)
        for change in tx.changes:
            try:
                self._on_change(change)
            except Exception:  # noqa: BLE001 - whoever listens must not break the hub
                _log.exception("A listener of the hub failed.")


def _known(task: HubTask | None, task_id: str) -> HubTask:
    if task is None:
        raise NotFoundError("unknown_task", task=task_id)
    return task


def _begin(tx: Tx) -> str:
    """The machine's own workspace, made on the first start (or found again where a damaged file has lost its
    row).

    Nobody is connected yet, so every runtime is offline until it registers again.
    """
    row = tx.one(
        "SELECT id FROM workspace WHERE slug IS NULL"
        " UNION ALL SELECT workspace_id FROM conversation"
        " WHERE workspace_id NOT IN (SELECT id FROM workspace)"
        " UNION ALL SELECT workspace_id FROM runtime"
        " WHERE workspace_id NOT IN (SELECT id FROM workspace) LIMIT 1"
    )
    workspace_id = str(uuid.uuid4()) if row is None else str(row["id"])
    tx.run(
        "INSERT OR IGNORE INTO workspace (id, name, created_at) VALUES (?, ?, ?)",
        (workspace_id, WORKSPACE_NAME, tx.now),
    )
    tx.run("UPDATE runtime SET status = 'offline', offline_at = ? WHERE status = 'online'", (tx.now,))
    return workspace_id
