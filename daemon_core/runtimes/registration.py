"""Which runtimes a connection has: registration, recovery of lost ones, deregistration.

Rules kept here:

- Offered are the agents that were found and the workspace's custom profiles, but for what the user has
  switched off; profiles that cannot be used here are told with the reason.
- A runtime is published (pollers, heartbeat and link see it) only once it is registered, and after
  recover-orphans if that is called for it: a task claimed before could be failed by it. How a profile's
  runtime is started is on the disk before that, too.
- recover-orphans is asked for freshly registered runtimes alone, never after a change of what is offered,
  and never while a task of that runtime lives in this daemon: lost tasks are then failed one by one.
- A runtime that the server has lost is dropped at once and its workspace registered again, at most every 30 s
  a workspace and not within 60 s of a failure. Word of a loss that is older than the last successful
  registration is stale and means nothing. A sibling that was not lost is not asked about: its poller may have
  a claim on the way, which recover-orphans would fail.
- A workspace without runtimes is registered again at the next sync, unless there is nothing to register. One
  that is gone from the list is dropped without a call.
- A runtime that is not offered any more is deregistered; while a run of it lives it is kept, unclaimable: its
  server would take its tasks for lost without its heartbeat. That holds after a restart, too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol

from daemon_core.connections.client import RuntimeProfile
from daemon_core.connections.clock import Clock
from daemon_core.connections.connection import Connection, ConnectionListener, WorkspaceSync
from daemon_core.protocol import errors, wire
from daemon_core.runtimes import offline
from daemon_core.runtimes.book import RuntimeBook, Start
from daemon_core.runtimes.offering import Offered, Offering, UsableAgent, by_provider, display_name, offering
from daemon_core.runtimes.profiles import ProfileResolver, signature
from daemon_core.runtimes.schedule import RecoverySchedule

log = logging.getLogger(__name__)

__all__ = [
    "Identity",
    "LivingRuntime",
    "LostTasks",
    "RegisteredRuntime",
    "Registration",
    "UsableAgent",
    "display_name",
]

_Why = Literal["sync", "drift", "recovery", "restart"]
_ORPHAN_RETRIES_S: Final = (0.5, 2.0)
_NOT_REGISTERED: Final = "not registered"
"""A signature that no offering has."""
_PROFILE_REFUSALS: Final = ("unknown runtime profile", "runtime profile is disabled")


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
    """False: its agent is gone or switched off; it stays for the runs that it still has."""
    profile_id: str = ""
    args: tuple[str, ...] = ()
    """Of a custom profile: given to every start, before all others."""

    @property
    def subject(self) -> str:
        """What tells the runtimes of one workspace apart, also over a new registration."""
        return self.profile_id or self.provider


class LivingRuntime(NamedTuple):
    """A runtime that has tasks here, as they tell of it."""

    workspace_id: str
    runtime_id: str
    provider: str


class LostTasks(Protocol):
    """Tasks that a server may believe to run here and that do not."""

    async def fail(self, connection: str, runtime_id: str) -> None:
        """Fail those of a runtime one by one: it has others that live. Raises nothing."""

    async def forget(self, connection: str, runtime_id: str) -> None:
        """The server has been asked to fail all of a runtime. Raises nothing."""


@dataclass(slots=True)
class WorkspaceState:
    """What is known of a workspace. ``settings`` None means defaults."""

    workspace: wire.Workspace
    repos: list[wire.Repo] = field(default_factory=list)
    repos_version: str = ""
    settings: dict[str, Any] | None = None
    profiles: list[RuntimeProfile] = field(default_factory=list)
    """As of the last look that succeeded."""
    offered: Offering | None = None
    """What was registered last by this process."""
    problem: str = ""
    """Why what is offered could not be registered; empty: it is, as far as is known."""
    refused: str = ""
    """Signature of profiles that the server listed and then refused: they are left out until it changes."""


class Registration(ConnectionListener):
    """The runtimes of one connection. Add it to the connection as a listener, and run :meth:`run`.

    Args:
        connection: whose runtimes these are.
        identity: who registers.
        agents: the agent CLIs to offer; see :meth:`set_agents`.
        lives: whether a task of this runtime id lives in this daemon: claimed, prepared or running.
        living: the runtimes of this connection that tasks here are of, registered or not.
        changed: called with the registration after the set of runtimes changed; must not block.
        profiles: finds the programs of custom profiles; None: there are none here.
        book: what the user has switched off, and where it is kept how profiles are started.
        lost: takes care of lost tasks where the server must not be asked to fail all.
    """

    def __init__(
        self,
        connection: Connection,
        identity: Identity,
        agents: Sequence[UsableAgent],
        *,
        lives: Callable[[str], bool],
        living: Callable[[], Iterable[LivingRuntime]] = tuple,
        changed: Callable[[Registration], None] = lambda _: None,
        profiles: ProfileResolver | None = None,
        book: RuntimeBook | None = None,
        lost: LostTasks | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._agents = by_provider(agents)
        self._lives = lives
        self._living = living
        self._changed = changed
        self._profiles = profiles
        self._book = book or RuntimeBook()
        self._lost = lost
        self._clock = clock or Clock()
        timing = connection.timing
        self._schedule = RecoverySchedule(timing.recovery_window_s, timing.recovery_retry_s)
        self._workspaces: dict[str, WorkspaceState] = {}
        self._runtimes: dict[str, RegisteredRuntime] = {}
        self._ids: dict[tuple[str, str], str] = {}
        """Runtime id by workspace and subject, also of what is not registered now."""
        self._lost_ids: set[str] = set()
        """Runtimes that the server said it does not know."""
        self._busy = asyncio.Lock()
        """One registration at a time."""
        self._attention = asyncio.Event()
        self._offer_changed = False
        self._some_ended = False
        connection.add_listener(self)

    @property
    def connection(self) -> Connection:
        """Whose runtimes these are."""
        return self._connection

    @property
    def runtimes(self) -> Mapping[str, RegisteredRuntime]:
        """The published runtimes, by id."""
        return self._runtimes

    def runtime(self, runtime_id: str) -> RegisteredRuntime | None:
        """A published runtime."""
        return self._runtimes.get(runtime_id)

    @property
    def workspaces(self) -> Mapping[str, WorkspaceState]:
        """The workspaces with their settings and repositories, by id."""
        return self._workspaces

    def switched_off(self) -> list[RegisteredRuntime]:
        """What would be offered if the user had not switched it off. One that never was registered by this
        process has its subject for an id."""
        return [
            self._as_registered(workspace_id, self._ids.get((workspace_id, subject), subject), offered)
            for workspace_id, state in self._workspaces.items()
            if state.offered is not None
            for subject, offered in state.offered.off.items()
        ]

    def failed_profiles(self) -> list[tuple[str, RuntimeProfile, str]]:
        """Custom profiles that cannot be used here: workspace, profile, reason."""
        return [
            (workspace_id, profile, failed.reason)
            for workspace_id, state in self._workspaces.items()
            if state.offered is not None
            for failed in state.offered.failed
            for profile in state.profiles
            if profile.id == failed.profile_id
        ]

    def set_agents(self, agents: Sequence[UsableAgent]) -> None:
        """Agents were installed, upgraded or removed: register again, without recover-orphans."""
        found = by_provider(agents)
        if offering(found) == offering(self._agents):
            return
        self._agents = found
        self.look_again()

    def look_again(self) -> None:
        """Something else than the agents may change what is offered: a path, a switch."""
        self._offer_changed = True
        self._attention.set()

    def settled(self, runtime_id: str) -> None:
        """A task of this runtime has ended here, its reports included."""
        runtime = self._runtimes.get(runtime_id)
        if runtime is not None and not runtime.claimable:
            self._some_ended = True
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
            self._lost_ids.add(runtime_id)
            self._publish(drop=[runtime_id])
            self._attention.set()

    async def follow(self) -> None:
        """Register now what has changed in what is offered. Failures are made up for at the next sync."""
        self._offer_changed = False
        for state in list(self._workspaces.values()):
            try:
                await self._register(state, "drift")
            except errors.ServerError as error:
                # The next sync sees that this workspace was registered with another offer.
                self._note(state, error)
                self._connection.report(error)

    async def restart(self, runtime_id: str) -> None:
        """Take one runtime away and register it again; one with living tasks is only registered again.

        A server that does not answer gets it at the next sync.
        """
        runtime = self._runtimes.get(runtime_id)
        state = self._workspaces.get(runtime.workspace_id) if runtime is not None else None
        if state is None:
            return
        async with self._busy:
            if not self._lives(runtime_id):
                self._publish(drop=[runtime_id])
                await self._say_offline({runtime_id: offline.RESTARTING})
        try:
            await self._register(state, "restart")
        except errors.ServerError as error:
            self._note(state, error)
            if state.offered is not None:  # or the next sync would find everything as it was
                state.offered = dataclasses.replace(state.offered, signature=_NOT_REGISTERED)
            self._connection.report(error)

    async def workspaces_synced(self, connection: Connection, sync: WorkspaceSync) -> None:
        """Register what is new or has no runtimes, refresh the rest, drop what is gone.

        Raises:
            ServerError: the server does not answer, or could register nothing for now. What one workspace
                alone meets is its ``problem``, and tried again at the next sync.
        """
        for workspace in sync.current:
            state = self._workspaces.setdefault(workspace.id, WorkspaceState(workspace))
            state.workspace = workspace
        gone = self._workspaces.keys() - {workspace.id for workspace in sync.current}
        for workspace_id in gone:
            del self._workspaces[workspace_id]
            self._schedule.forget(workspace_id)
        self._publish(drop=[id_ for id_, runtime in self._runtimes.items() if runtime.workspace_id in gone])
        await self._let_go_of_the_ended()

        failure: errors.ServerError | None = None
        well = False
        for state in list(self._workspaces.values()):
            try:
                await self._fetch_profiles(state)
                well = await self._register(state, "sync") or await self._refresh(state) or well
            except errors.ServerError as error:
                self._note(state, error)
                if isinstance(error, errors.TransientError | errors.UnauthorizedError):
                    failure = failure or error
        alone = isinstance(failure, errors.TransientError) and failure.status >= 400 and well
        if failure is not None and not alone:
            raise failure

    def _note(self, state: WorkspaceState, error: errors.ServerError) -> None:
        """A workspace could not be registered: said once for each reason, and shown while it lasts."""
        if state.problem != error.said:
            log.warning("%s: workspace %s: %s", self._connection.name, state.workspace.id, error)
        state.problem = error.said

    async def run(self) -> None:
        """Recover lost runtimes and follow changes of what is offered, until cancelled."""
        while True:
            self._attention.clear()
            await self._connection.wait_usable()
            if self._some_ended:
                self._some_ended = False
                await self._let_go_of_the_ended()
            if self._offer_changed:
                await self.follow()
            for workspace_id in self._schedule.due(self._clock.monotonic()):
                await self._recover(workspace_id)
            next_at = self._schedule.next_at()
            pause_s = None if next_at is None else max(next_at - self._clock.monotonic(), 0.0)
            try:
                async with asyncio.timeout(pause_s):
                    await self._attention.wait()
            except TimeoutError:
                pass

    async def deregister(self, why: wire.OfflineReason = offline.STOPPED) -> None:
        """At a real stop: show the runtimes offline that have no living task. Failures do not matter.

        Call it after the pollers and the heartbeat have ended and while the connection still runs.
        """
        ids = [id_ for id_ in self._runtimes if not self._lives(id_)]
        if not ids:
            return
        self._publish(drop=ids)  # first, or a beat would show them online again
        await self._say_offline(dict.fromkeys(ids, why))

    # --- what is offered ---------------------------------------------------------------------------

    async def _fetch_profiles(self, state: WorkspaceState) -> None:
        """The workspace's custom profiles; what is known stays if they are not to be had."""
        if self._profiles is None:
            return
        try:
            profiles = await self._connection.client.runtime_profiles(state.workspace.id)
        except errors.UnauthorizedError:
            raise
        except errors.ServerError as error:  # earlier servers lack the route
            log.debug("%s: profiles of %s: %s", self._connection.name, state.workspace.id, error)
        else:
            state.profiles = profiles

    async def _offering(self, state: WorkspaceState) -> Offering:
        """What this workspace is to be offered, as far as it is known here."""
        name, workspace_id = self._connection.name, state.workspace.id
        word = signature(state.profiles)
        resolved = None
        if self._profiles is not None and state.profiles and word != state.refused:
            resolved = await self._profiles.resolve(state.profiles)
        return offering(
            self._agents,
            resolved,
            signature=word,
            device_name=self._identity.device_name,
            is_off=lambda subject: self._book.is_off(name, workspace_id, subject),
        )

    async def _refresh(self, state: WorkspaceState) -> bool:
        """Ask for repositories and settings; whether the server has told them."""
        try:
            answer = await self._connection.client.workspace_repos(state.workspace.id)
        except errors.UnauthorizedError:
            raise
        except errors.ServerError as error:  # nothing depends on it right now
            log.info("%s: repositories of %s: %s", self._connection.name, state.workspace.id, error)
            return False
        _take(state, answer.repos, answer.repos_version, answer.settings)
        return True

    async def _recover(self, workspace_id: str) -> None:
        state = self._workspaces.get(workspace_id)
        if state is None:
            self._schedule.forget(workspace_id)
            return
        try:
            await self._register(state, "recovery")
        except errors.ServerError as error:
            self._note(state, error)
            self._schedule.failed(workspace_id, self._clock.monotonic())
            self._connection.report(error)

    # --- registering -------------------------------------------------------------------------------

    async def _register(self, state: WorkspaceState, why: _Why) -> bool:
        """Register one workspace, if there is a reason to, and publish what the server answers, which is
        authoritative for it. Whether there was one."""
        async with self._busy:
            workspace_id = state.workspace.id
            # Put together in here: an older offer must not follow a newer one.
            offer = await self._offering(state)
            if (fresh := self._is_fresh(state, offer, why)) is None:
                if offer == state.offered and not self._schedule.pending(workspace_id):
                    state.problem = ""  # what was to change has changed back
                return False
            self._withdraw(workspace_id, offer)
            runtimes: dict[str, RegisteredRuntime] = {}
            if offer.entries or offer.failed:
                offer, answer = await self._ask(state, offer)
                runtimes = self._registered(workspace_id, answer.runtimes or [], offer)
                _take(state, answer.repos or [], answer.repos_version, answer.settings)
                if not runtimes and offer.entries:
                    log.warning("%s: no runtime came of the registration", self._connection.name)
                runtimes = await self._kept_in_mind(runtimes)
                if fresh:
                    for runtime_id in runtimes.keys() - self._runtimes.keys():
                        await self._recover_orphans(runtime_id)
            if self._workspaces.get(workspace_id) is not state:
                return True  # the workspace was left meanwhile
            state.offered = offer
            state.problem = ""
            self._schedule.registered(workspace_id, self._clock.monotonic(), recovery=why == "recovery")
            self._lost_ids -= runtimes.keys()
            for runtime_id, runtime in runtimes.items():
                self._ids[workspace_id, runtime.subject] = runtime_id
            lost = [id_ for id_ in self._ids_of(workspace_id) if id_ not in runtimes]
            await self._replace(workspace_id, lost, runtimes)
            return True

    def _is_fresh(self, state: WorkspaceState, offer: Offering, why: _Why) -> bool | None:
        """Whether the tasks of runtimes that come of a registration may be taken for lost; None: there is
        nothing to register."""
        if why == "recovery":
            return True
        if why == "restart":
            return False
        if state.offered is not None and offer != state.offered:
            return False
        if why == "drift" or self._schedule.pending(state.workspace.id):
            return None
        has_some = any(self._runtimes[id_].claimable for id_ in self._ids_of(state.workspace.id))
        return True if state.offered is None or (offer.entries and not has_some) else None

    async def _ask(self, state: WorkspaceState, offer: Offering) -> tuple[Offering, wire.RegisterResponse]:
        """Register. Profiles that the server does not take, whatever it listed, do not keep the rest out."""
        client = self._connection.client
        for again in (True, False):
            try:
                return offer, await client.register(self._request(state.workspace.id, offer))
            except errors.PermanentError as error:
                if not offer.has_profiles or not any(text in error.body for text in _PROFILE_REFUSALS):
                    raise
                log.warning("%s: %s", self._connection.name, error)
            if again:  # they have changed since they were listed
                await self._fetch_profiles(state)
                offer = await self._offering(state)
        state.refused = signature(state.profiles)
        offer = await self._offering(state)
        if not offer.entries:
            return offer, wire.RegisterResponse()
        return offer, await client.register(self._request(state.workspace.id, offer))

    def _request(self, workspace_id: str, offer: Offering) -> wire.RegisterRequest:
        identity = self._identity
        return wire.RegisterRequest(
            workspace_id=workspace_id,
            daemon_id=identity.daemon_id,
            legacy_daemon_ids=list(identity.legacy_daemon_ids),
            device_name=identity.device_name,
            cli_version=identity.cli_version,
            launched_by=identity.launched_by,
            runtimes=[offered.entry() for offered in offer.entries.values()],
            failed_profiles=list(offer.failed) or None,
        )

    def _registered(
        self, workspace_id: str, answered: Iterable[wire.Runtime], offer: Offering
    ) -> dict[str, RegisteredRuntime]:
        runtimes = {}
        for runtime in answered:
            offered = offer.entries.get(runtime.profile_id or runtime.provider)
            if offered is None:
                log.info("%s: a runtime that was not offered: %s", self._connection.name, runtime.provider)
                continue
            made = self._as_registered(workspace_id, runtime.id, offered)
            runtimes[runtime.id] = dataclasses.replace(made, name=runtime.name or made.name)
        return runtimes

    def _as_registered(self, workspace_id: str, runtime_id: str, offered: Offered) -> RegisteredRuntime:
        return RegisteredRuntime(
            connection=self._connection,
            workspace_id=workspace_id,
            runtime_id=runtime_id,
            provider=offered.provider,
            name=offered.name,
            path=offered.path,
            version=offered.version,
            profile_id=offered.profile_id,
            args=offered.args,
        )

    async def _kept_in_mind(self, runtimes: dict[str, RegisteredRuntime]) -> dict[str, RegisteredRuntime]:
        """The runtimes without those of profiles whose start could not be written down."""
        starts = [
            (id_, Start(provider=each.provider, path=each.path, args=each.args, profile_id=each.profile_id))
            for id_, each in runtimes.items()
            if each.profile_id
        ]
        if not starts:
            return runtimes
        try:
            await self._book.remember(self._connection.name, starts)
        except OSError as error:
            log.error("custom profiles are not offered: how to start them cannot be kept: %s", error)
            return {id_: each for id_, each in runtimes.items() if not each.profile_id}
        return runtimes

    async def _recover_orphans(self, runtime_id: str) -> None:
        """Before the runtime is published: afterwards a task in flight could be hit."""
        name = self._connection.name
        # The embedded hub is told which tasks are here, and fails the others by itself.
        if self._connection.timing.loopback or self._lives(runtime_id):
            if self._lost is not None:
                await self._lost.fail(name, runtime_id)
            return
        for pause_s in (*_ORPHAN_RETRIES_S, None):
            try:
                answer = await self._connection.client.recover_orphans(runtime_id)
            except errors.TransientError as error:
                if pause_s is None:
                    log.warning("%s: orphans not recovered: %s", name, error)
                    return
                await asyncio.sleep(pause_s)
                if self._lives(runtime_id):
                    return  # a claim of another life of this runtime came in meanwhile
            except errors.UnauthorizedError:
                raise
            except errors.ServerError as error:
                log.warning("%s: orphans not recovered: %s", name, error)
                return
            else:
                if answer.orphaned:
                    log.info("%s: %d orphaned tasks", name, answer.orphaned)
                if self._lost is not None:
                    await self._lost.forget(name, runtime_id)
                return

    # --- taking away -------------------------------------------------------------------------------

    def _withdraw(self, workspace_id: str, offer: Offering) -> None:
        """What is not offered any more is not claimed for from now on, whenever the server hears of it."""
        self._publish(
            {
                id_: dataclasses.replace(self._runtimes[id_], claimable=False)
                for id_ in self._ids_of(workspace_id)
                if self._runtimes[id_].subject not in offer.entries
            }
        )

    def _of_earlier_lives(self, workspace_id: str) -> dict[str, RegisteredRuntime]:
        """Runtimes that are not offered any more, of runs that an earlier life of the daemon began."""
        return {
            living.runtime_id: RegisteredRuntime(
                connection=self._connection,
                workspace_id=workspace_id,
                runtime_id=living.runtime_id,
                provider=living.provider,
                name=display_name(living.provider, self._identity.device_name),
                path="",
                version="",
                claimable=False,
            )
            for living in self._living()
            if living.workspace_id == workspace_id
            and living.runtime_id not in self._lost_ids
            and living.runtime_id not in self._runtimes
        }

    async def _replace(
        self, workspace_id: str, lost: Sequence[str], runtimes: Mapping[str, RegisteredRuntime]
    ) -> None:
        """Publish these, and no longer those. One with a living run keeps its heartbeat until that has
        ended."""
        ended = [id_ for id_ in lost if not self._lives(id_)]
        kept = {
            id_: dataclasses.replace(self._runtimes[id_], claimable=False) for id_ in lost if id_ not in ended
        }
        reasons = {id_: self._reason(self._runtimes[id_]) for id_ in ended}
        self._publish({**kept, **self._of_earlier_lives(workspace_id), **runtimes}, drop=ended)
        if reasons:
            await self._say_offline(reasons)

    def _reason(self, runtime: RegisteredRuntime) -> wire.OfflineReason:
        state = self._workspaces.get(runtime.workspace_id)
        offer = state.offered if state is not None else None
        return offline.reason_of(runtime.subject, is_profile=bool(runtime.profile_id), offer=offer)

    async def _say_offline(self, reasons: Mapping[str, wire.OfflineReason]) -> None:
        client = self._connection.client
        try:
            try:
                await client.deregister(list(reasons), reasons)
            except errors.PermanentError as error:
                if error.status != 400:
                    raise
                await client.deregister(list(reasons))  # perhaps it does not like our words
        except errors.ServerError as error:
            log.info("%s: not deregistered: %s", self._connection.name, error)

    async def _let_go_of_the_ended(self) -> None:
        """Runtimes that were only kept for runs which have ended by now."""
        ended = {
            id_: self._reason(runtime)
            for id_, runtime in self._runtimes.items()
            if not runtime.claimable and not self._lives(id_)
        }
        if ended:
            self._publish(drop=ended)
            await self._say_offline(ended)

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


def _take(
    state: WorkspaceState, repos: list[wire.Repo], version: str, settings: dict[str, Any] | None
) -> None:
    state.repos = repos
    state.repos_version = version
    state.settings = settings or None
