"""Which runtimes a connection has: registration, recovery of lost ones, deregistration.

Rules kept here:

- A runtime is published (pollers, heartbeat and link see it) only once it is registered, and after
  recover-orphans if that is called for it: a task claimed before could be failed by it.
- recover-orphans is asked for freshly registered runtimes alone, never after a change of the agents found,
  and never while a task of that runtime lives in this daemon: its owner then fails lost tasks one by one.
- A runtime that the server has lost is dropped at once and its workspace registered again, at most every 30 s
  a workspace and not within 60 s of a failure. Word of a loss that is older than the last successful
  registration is stale and means nothing.
- A workspace without runtimes is registered again at the next sync. One that is gone from the list is dropped
  without a call.
- A runtime whose agent disappeared is deregistered, but kept, unclaimable, while a run of it lives.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from daemon_core.connections.clock import Clock
from daemon_core.connections.connection import Connection, ConnectionListener, WorkspaceSync
from daemon_core.protocol import errors, wire

log = logging.getLogger(__name__)

_DISPLAY_NAMES: Final = {"traecli": "Trae"}
_ORPHAN_RETRIES_S: Final = (0.5, 2.0)


class UsableAgent(Protocol):
    """An agent CLI that can be offered as a runtime. Discovery's ``FoundAgent`` is one."""

    @property
    def provider(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> str: ...


Offer = frozenset[tuple[str, str, str]]
"""Agents by provider, path and version: whether a registration still says what is the case."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who registers."""

    daemon_id: str
    device_name: str = ""
    cli_version: str = ""
    """A version that the server's own gates understand, not necessarily Ostler's."""
    launched_by: str = ""
    legacy_daemon_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredRuntime:
    """One agent CLI of this machine, registered in one workspace of one connection."""

    connection: Connection
    workspace_id: str
    runtime_id: str
    provider: str
    name: str
    path: str
    version: str
    claimable: bool = True
    """False: its agent is gone; it stays for the runs that it still has."""


@dataclass(slots=True)
class WorkspaceState:
    """What is known of a workspace. ``settings`` None means defaults."""

    workspace: wire.Workspace
    repos: list[wire.Repo] = field(default_factory=list)
    repos_version: str = ""
    settings: dict[str, Any] | None = None
    offered: Offer | None = None
    """What was registered last by this process."""


def display_name(provider: str, device_name: str) -> str:
    """``Claude (device)``."""
    name = _DISPLAY_NAMES.get(provider) or provider[:1].upper() + provider[1:]
    return f"{name} ({device_name})" if device_name else name


class RecoverySchedule:
    """When to register a workspace again whose runtimes are gone. Pure: times are handed in (monotonic)."""

    def __init__(self, window_s: float, retry_s: float) -> None:
        self._window_s = window_s
        self._retry_s = retry_s
        self._registered_at: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def gone(self, workspace_id: str, asked_at: float, now: float) -> bool:
        """Word of a loss, by a request that began at ``asked_at``. False: stale, means nothing."""
        if asked_at <= self._registered_at.get(workspace_id, float("-inf")):
            return False
        self._due.setdefault(workspace_id, max(now, self._not_before.get(workspace_id, now)))
        return True

    def registered(self, workspace_id: str, now: float, *, recovery: bool = False) -> None:
        """A registration succeeded; only one that was a recovery opens the window."""
        self._registered_at[workspace_id] = now
        self._due.pop(workspace_id, None)
        if recovery:
            self._not_before[workspace_id] = now + self._window_s

    def failed(self, workspace_id: str, now: float) -> None:
        """A recovery failed: it stays due, later."""
        self._not_before[workspace_id] = self._due[workspace_id] = now + self._retry_s

    def forget(self, workspace_id: str) -> None:
        """The workspace is no longer ours."""
        for times in (self._registered_at, self._not_before, self._due):
            times.pop(workspace_id, None)

    def due(self, now: float) -> list[str]:
        """The workspaces to register now, longest due first."""
        return [id_ for id_, at in sorted(self._due.items(), key=lambda item: item[1]) if at <= now]

    def pending(self, workspace_id: str) -> bool:
        """Whether a recovery of this workspace is going to be due."""
        return workspace_id in self._due

    def next_at(self) -> float | None:
        """When :meth:`due` will next have something; None: not before another loss."""
        return min(self._due.values(), default=None)


class Registration(ConnectionListener):
    """The runtimes of one connection. Add it to the connection as a listener, and run :meth:`run`.

    Args:
        connection: whose runtimes these are.
        identity: who registers.
        agents: the agent CLIs to offer; see :meth:`set_agents`.
        lives: whether a task of this runtime id lives in this daemon: claimed, prepared or running.
        changed: called with the registration after the set of runtimes changed; must not block.
    """

    def __init__(
        self,
        connection: Connection,
        identity: Identity,
        agents: Sequence[UsableAgent],
        *,
        lives: Callable[[str], bool],
        changed: Callable[[Registration], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._agents = _by_provider(agents)
        self._lives = lives
        self._changed = changed
        self._clock = clock or Clock()
        timing = connection.timing
        self._schedule = RecoverySchedule(timing.recovery_window_s, timing.recovery_retry_s)
        self._workspaces: dict[str, WorkspaceState] = {}
        self._runtimes: dict[str, RegisteredRuntime] = {}
        self._busy = asyncio.Lock()
        """One registration at a time."""
        self._attention = asyncio.Event()
        self._agents_changed = False
        connection.add_listener(self)

    @property
    def connection(self) -> Connection:
        """Whose runtimes these are."""
        return self._connection

    @property
    def runtimes(self) -> Mapping[str, RegisteredRuntime]:
        """The published runtimes, by id."""
        return self._runtimes

    @property
    def workspaces(self) -> Mapping[str, WorkspaceState]:
        """The workspaces with their settings and repositories, by id."""
        return self._workspaces

    def set_agents(self, agents: Sequence[UsableAgent]) -> None:
        """Agents were installed, upgraded or removed: register again, without recover-orphans."""
        found = _by_provider(agents)
        if _offer(found) == _offer(self._agents):
            return
        self._agents = found
        self._agents_changed = True
        self._attention.set()

    async def refresh_workspace(self, workspace_id: str) -> WorkspaceState | None:
        """Ask for the repositories and settings of a workspace now; what is known if that fails.

        None for a workspace that is not ours.
        """
        state = self._workspaces.get(workspace_id)
        if state is not None:
            try:
                await self._refresh(state)
            except errors.UnauthorizedError as error:
                log.info("%s: repositories of %s: %s", self._connection.name, workspace_id, error)
        return state

    def runtime_gone(self, runtime_id: str, asked_at: float) -> None:
        """The server does not know this runtime, says the answer to a request begun at ``asked_at``."""
        runtime = self._runtimes.get(runtime_id)
        if runtime is None:
            return
        if self._schedule.gone(runtime.workspace_id, asked_at, self._clock.monotonic()):
            log.warning("%s lost the runtime %s", self._connection.name, runtime.name)
            self._publish(drop=[runtime_id])
            self._attention.set()

    async def workspaces_synced(self, connection: Connection, sync: WorkspaceSync) -> None:
        """Register what is new or has no runtimes, refresh the rest, drop what is gone.

        Raises:
            ServerError: something could not be registered for now; the others were taken care of.
        """
        for workspace in sync.current:
            state = self._workspaces.setdefault(workspace.id, WorkspaceState(workspace))
            state.workspace = workspace
        gone = self._workspaces.keys() - {workspace.id for workspace in sync.current}
        for workspace_id in gone:
            del self._workspaces[workspace_id]
            self._schedule.forget(workspace_id)
        self._publish(drop=[id_ for id_, runtime in self._runtimes.items() if runtime.workspace_id in gone])
        self._let_go_of_the_ended()

        failure: errors.ServerError | None = None
        for workspace_id, state in list(self._workspaces.items()):
            try:
                if state.offered is not None and state.offered != _offer(self._agents):
                    await self._register(state, fresh=False)
                elif any(self._runtimes[id_].claimable for id_ in self._ids_of(workspace_id)):
                    await self._refresh(state)
                elif not self._schedule.pending(workspace_id):
                    await self._register(state, fresh=True)
            except (errors.TransientError, errors.UnauthorizedError) as error:
                failure = failure or error
            except errors.ServerError as error:
                log.warning("%s: workspace %s: %s", self._connection.name, workspace_id, error)
        if failure is not None:
            raise failure

    async def run(self) -> None:
        """Recover lost runtimes and follow changes of the agents, until cancelled."""
        while True:
            self._attention.clear()
            await self._connection.wait_usable()
            if self._agents_changed:
                self._agents_changed = False
                await self._follow_agents()
            for workspace_id in self._schedule.due(self._clock.monotonic()):
                await self._recover(workspace_id)
            next_at = self._schedule.next_at()
            pause_s = None if next_at is None else max(next_at - self._clock.monotonic(), 0.0)
            try:
                async with asyncio.timeout(pause_s):
                    await self._attention.wait()
            except TimeoutError:
                pass

    async def deregister(self) -> None:
        """At a real stop: show the runtimes offline that have no living task. Failures do not matter.

        Call it after the pollers and the heartbeat have ended and while the connection still runs.
        """
        ids = [id_ for id_ in self._runtimes if not self._lives(id_)]
        if not ids:
            return
        self._publish(drop=ids)  # first, or a beat would show them online again
        await self._say_offline(ids)

    # --- inside ------------------------------------------------------------------------------------

    async def _refresh(self, state: WorkspaceState) -> None:
        try:
            answer = await self._connection.client.workspace_repos(state.workspace.id)
        except errors.UnauthorizedError:
            raise
        except errors.ServerError as error:  # nothing depends on it right now
            log.info("%s: repositories of %s: %s", self._connection.name, state.workspace.id, error)
        else:
            _take(state, answer.repos, answer.repos_version, answer.settings)

    async def _recover(self, workspace_id: str) -> None:
        state = self._workspaces.get(workspace_id)
        if state is None:
            self._schedule.forget(workspace_id)
            return
        try:
            await self._register(state, fresh=True, recovery=True)
        except errors.ServerError as error:
            log.warning("%s: not registered again: %s", self._connection.name, error)
            self._schedule.failed(workspace_id, self._clock.monotonic())
            self._connection.report(error)

    async def _follow_agents(self) -> None:
        for state in list(self._workspaces.values()):
            try:
                await self._register(state, fresh=False)
            except errors.ServerError as error:
                # The next sync sees that this workspace was registered with another offer.
                log.warning("%s: %s: %s", self._connection.name, state.workspace.id, error)
                self._connection.report(error)

    async def _register(self, state: WorkspaceState, *, fresh: bool, recovery: bool = False) -> None:
        """Register one workspace and publish what the server answers, which is authoritative for it."""
        async with self._busy:
            workspace_id = state.workspace.id
            agents = dict(self._agents)
            runtimes: dict[str, RegisteredRuntime] = {}
            if agents:
                answer = await self._connection.client.register(self._request(workspace_id, agents))
                runtimes = self._registered(workspace_id, answer.runtimes or [], agents)
                _take(state, answer.repos or [], answer.repos_version, answer.settings)
                if not runtimes:
                    log.warning("%s: no runtime came of the registration", self._connection.name)
                if fresh:
                    for runtime_id in runtimes.keys() - self._runtimes.keys():
                        await self._recover_orphans(runtime_id)
            if self._workspaces.get(workspace_id) is not state:
                return  # the workspace was left meanwhile
            state.offered = _offer(agents)
            self._schedule.registered(workspace_id, self._clock.monotonic(), recovery=recovery)
            lost = [id_ for id_ in self._ids_of(workspace_id) if id_ not in runtimes]
            await self._retire(lost)
            self._publish(runtimes)

    def _request(self, workspace_id: str, agents: Mapping[str, UsableAgent]) -> wire.RegisterRequest:
        identity = self._identity
        return wire.RegisterRequest(
            workspace_id=workspace_id,
            daemon_id=identity.daemon_id,
            legacy_daemon_ids=list(identity.legacy_daemon_ids),
            device_name=identity.device_name,
            cli_version=identity.cli_version,
            launched_by=identity.launched_by,
            runtimes=[
                wire.RuntimeEntry(
                    name=display_name(provider, identity.device_name), type=provider, version=agent.version
                )
                for provider, agent in agents.items()
            ],
        )

    def _registered(
        self, workspace_id: str, answered: Iterable[wire.Runtime], agents: Mapping[str, UsableAgent]
    ) -> dict[str, RegisteredRuntime]:
        runtimes = {}
        for runtime in answered:
            agent = agents.get(runtime.provider)
            if agent is None or runtime.profile_id:
                log.info("%s: a runtime that was not offered: %s", self._connection.name, runtime.provider)
                continue
            runtimes[runtime.id] = RegisteredRuntime(
                connection=self._connection,
                workspace_id=workspace_id,
                runtime_id=runtime.id,
                provider=runtime.provider,
                name=runtime.name or display_name(runtime.provider, self._identity.device_name),
                path=str(agent.path),
                version=agent.version,
            )
        return runtimes

    async def _recover_orphans(self, runtime_id: str) -> None:
        """Before the runtime is published: afterwards a task in flight could be hit."""
        if self._lives(runtime_id):
            return
        for pause_s in (*_ORPHAN_RETRIES_S, None):
            try:
                answer = await self._connection.client.recover_orphans(runtime_id)
            except errors.TransientError as error:
                if pause_s is None:
                    log.warning("%s: orphans not recovered: %s", self._connection.name, error)
                    return
                await asyncio.sleep(pause_s)
            except errors.UnauthorizedError:
                raise
            except errors.ServerError as error:
                log.warning("%s: orphans not recovered: %s", self._connection.name, error)
                return
            else:
                if answer.orphaned:
                    log.info("%s: %d orphaned tasks", self._connection.name, answer.orphaned)
                return

    async def _retire(self, runtime_ids: Sequence[str]) -> None:
        """These are no longer offered. One with a living run keeps its heartbeat until that has ended."""
        ended = [id_ for id_ in runtime_ids if not self._lives(id_)]
        kept = {
            id_: dataclasses.replace(self._runtimes[id_], claimable=False)
            for id_ in runtime_ids
            if id_ not in ended
        }
        self._publish(kept, drop=ended)
        if ended:
            await self._say_offline(ended)

    async def _say_offline(self, runtime_ids: Sequence[str]) -> None:
        try:
            await self._connection.client.deregister(runtime_ids)
        except errors.ServerError as error:
            log.info("%s: not deregistered: %s", self._connection.name, error)

    def _let_go_of_the_ended(self) -> None:
        """Runtimes that were only kept for runs which have ended by now."""
        self._publish(
            drop=[
                id_
                for id_, runtime in self._runtimes.items()
                if not runtime.claimable and not self._lives(id_)
            ]
        )

    def _publish(
        self, add: Mapping[str, RegisteredRuntime] | None = None, *, drop: Iterable[str] = ()
    ) -> None:
        runtimes = dict(self._runtimes)
        for runtime_id in drop:
            runtimes.pop(runtime_id, None)
        runtimes.update(add or {})
        if runtimes != self._runtimes:
            self._runtimes = runtimes
            self._connection.link.set_runtimes(runtimes)
            self._changed(self)

    def _ids_of(self, workspace_id: str) -> list[str]:
        return [id_ for id_, runtime in self._runtimes.items() if runtime.workspace_id == workspace_id]


def _by_provider(agents: Iterable[UsableAgent]) -> dict[str, UsableAgent]:
    """The first of each provider counts."""
    found: dict[str, UsableAgent] = {}
    for agent in agents:
        found.setdefault(agent.provider, agent)
    return found


def _offer(agents: Mapping[str, UsableAgent]) -> Offer:
    return frozenset((provider, str(agent.path), agent.version) for provider, agent in agents.items())


def _take(
    state: WorkspaceState, repos: list[wire.Repo], version: str, settings: dict[str, Any] | None
) -> None:
    state.repos = repos
    state.repos_version = version
    state.settings = settings or None
