"""A connection: one server with its credential, its health, its workspaces and its link.

:meth:`Connection.run` renews the token before the first other call and then every three days, keeps the list
of workspaces, and keeps the link. Nothing that a server does or fails to do ends it or another connection:
failures become a state with a reason (:mod:`daemon_core.connections.health`) and are tried again with
back-off. While a token is refused nothing is done with it, but for one question now and then whether it still
is.

What happens is told to listeners, in the order in which they were added.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Mapping
from typing import Final

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import ServerClient
from daemon_core.connections.clock import Clock, JumpDetector
from daemon_core.connections.health import Health, State, diagnose
from daemon_core.connections.link import Link
from daemon_core.connections.timing import Timing
from daemon_core.connections.workspaces import WorkspaceList, WorkspaceSync
from daemon_core.protocol import errors, wire

log = logging.getLogger(__name__)

_NETWORK_STATES: Final = (State.WAITING_FOR_NETWORK, State.SERVER_UNREACHABLE, State.REFUSED)
"""States that another network may end: the last one may have been one that lets nobody through."""

__all__ = ["Connection", "ConnectionListener", "WorkspaceSync"]


class ConnectionListener:
    """Hears what happens at a connection; override what matters. The plain methods must not block."""

    def health_changed(self, connection: Connection, health: Health) -> None:
        """Another state, reason or next attempt."""

    def wake_all(self, connection: Connection) -> None:
        """Anything may have been missed: claim now, look at the status of every running task now."""

    def task_available(self, connection: Connection, runtime_id: str) -> None:
        """Claim now for this runtime; empty: for all of the connection."""

    def task_changed(self, connection: Connection, task_id: str) -> None:
        """Look at this task's status now."""

    def heartbeat_acked(self, connection: Connection, ack: wire.HeartbeatResponse, asked_at: float) -> None:
        """A beat over the link was answered; it was sent at ``asked_at`` (monotonic)."""

    def work_pending(self, connection: Connection, runtime_id: str) -> None:
        """An action waits for a beat of this runtime."""

    def profiles_changed(self, connection: Connection, workspace_id: str) -> None:
        """Custom profiles of this workspace changed; a sync follows by itself."""

    async def workspaces_synced(self, connection: Connection, sync: WorkspaceSync) -> None:
        """The list was fetched. May talk to the server; a ServerError raised here counts as a failed sync."""


class Connection:
    """One server as the daemon sees it.

    Attributes:
        name: ``hub``, or the host of the server; unique in a daemon.
        timing: every period and deadline.
        client: the HTTP client; opened and closed by :meth:`run`.
        link: the websocket.
    """

    def __init__(
        self,
        name: str,
        client: ServerClient,
        timing: Timing,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.client = client
        self.timing = timing
        self._clock = clock or Clock()
        self.link = Link(client, timing, _Hints(self), clock=self._clock, rng=rng)
        self._listeners: list[ConnectionListener] = []
        self._health = Health(State.STARTING, since=self._clock.wall())
        # The hub tells changes by itself, and its list costs nothing.
        self._list = WorkspaceList(client, own_route=not timing.loopback)
        self._backoff = Backoff(
            timing.first_retry_s, timing.retry_limit_s, jitter=timing.retry_jitter, rng=rng
        )
        self._jumps = JumpDetector(self._clock, timing.clock_jump_s)
        self._sync_wanted = asyncio.Event()
        self._quiet_until = 0.0
        """Monotonic: requests to sync before this are dropped; the state is new enough."""
        self._later: asyncio.TimerHandle | None = None
        """A look that follows as soon as it is not right after another one."""
        self._suspicion = Backoff(
            timing.first_retry_s, timing.retry_limit_s, jitter=timing.retry_jitter, rng=rng
        )
        self._suspected = (float("-inf"), 0.0)
        """Monotonic: when doubts last made it look, and before when they do not again."""
        self._renew_at = (0.0, 0.0)
        """Monotonic and wall clock: the next token renewal is due when either says so. On a machine that
        sleeps much, three days by the monotonic clock alone could be longer than a token's last days."""
        self._renewed = False
        """Whether the present token has had its renewal before the first other call."""
        self.renewed_at = 0.0
        """Wall clock of the last renewal that a server has answered; 0: there was none in this life."""
        self.expires_at = ""
        """When the token ends, as the server told with its renewal; empty: never, or it has not told."""
        self._token_at = float("-inf")
        """Monotonic: when the present credential came; refusals of earlier requests mean the one before."""
        self._slept = False
        """The machine slept, or its network is another one: pooled connections are suspect."""
        self._returns = False
        """Signed out since the last good look: what waits is to be woken by the next one."""
        self._usable = asyncio.Event()
        self._usable.set()
        self._recheck = Backoff(timing.recheck_s, timing.recheck_limit_s, jitter=timing.retry_jitter, rng=rng)
        self._recheck_at: float | None = None
        """Monotonic: when the credential that was refused is shown again; None: there is none that was."""

    def __repr__(self) -> str:
        return f"<Connection {self.name} {self._health.state.value}>"

    @property
    def health(self) -> Health:
        """The present state with its reason."""
        return self._health

    @property
    def workspaces(self) -> Mapping[str, wire.Workspace]:
        """The workspaces as of the last look, by id. Kept while the server cannot be asked."""
        return self._list.known

    @property
    def is_later(self) -> bool:
        """Whether the server is known to be one of the later ones, which leave what runs alone for as long as
        its runtime is there."""
        return self._list.own_route_known

    @property
    def usable(self) -> bool:
        """False while the credential is refused: no call makes sense then."""
        return self._usable.is_set()

    async def wait_usable(self) -> None:
        """Wait until there is a credential that has not been refused."""
        await self._usable.wait()

    def add_listener(self, listener: ConnectionListener) -> None:
        """Tell ``listener`` from now on."""
        self._listeners.append(listener)

    def sync_now(self) -> None:
        """Look at the server now instead of at the next tick; dropped right after another look."""
        now = self._clock.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + self.timing.reconcile_quiet_s
            self._sync_wanted.set()

    def change_told(self) -> None:
        """The server says that something is different now: look, and right after another look, which may have
        been too early, in a moment."""
        wait_s = self._quiet_until - self._clock.monotonic()
        if wait_s <= 0:
            self.sync_now()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(wait_s, self._look_late)

    def _look_late(self) -> None:
        self._later = None
        self._quiet_until = self._clock.monotonic() + self.timing.reconcile_quiet_s
        self._sync_wanted.set()

    def await_token(self) -> None:
        """There is no credential yet: try nothing until :meth:`token_changed` (or :meth:`sign_out`)."""
        self._usable.clear()
        self._recheck_at = None
        self.link.hold()

    def sign_out(self, code: str, *, next_try_at: float | None = None) -> None:
        """No credential can be had; nothing is tried until :meth:`token_changed`.

        Args:
            code: why, as in ``Health.code``.
            next_try_at: wall-clock time at which whoever looks for the credential looks again.
        """
        self._usable.clear()
        self._recheck_at = None
        self._returns = True
        self._show(Health(State.SIGNED_OUT, code, {"host": self.client.host}, next_try_at=next_try_at))
        self.link.hold()
        self._sync_wanted.set()

    def look_now(self) -> None:
        """Somebody asks for another try, whatever the back-off says."""
        self._backoff.reset()
        self._sync_wanted.set()
        if not self.link.connected:
            self.link.reconnect()

    def network_changed(self) -> None:
        """Other addresses or routes than before: what could not be reached may be now, so no back-off is
        waited out; and what seems to be open may be dead without saying so."""
        if self._health.state in _NETWORK_STATES:
            self.look_now()
        elif self._health.state is State.OK and not self.timing.loopback:
            self._slept = True
            self.link.probe()
            self._doubt()

    def token_changed(self) -> None:
        """There is a new credential: start over with it."""
        self._token_at = self._clock.monotonic()
        self._renew_at = (0.0, 0.0)
        self._renewed = False
        self.renewed_at, self.expires_at = 0.0, ""
        self._list.forget_way()
        self._backoff.reset()
        self._recheck.reset()
        self._recheck_at = None
        self._usable.set()
        self._show(Health(State.STARTING))
        self.link.release()
        self._sync_wanted.set()

    def report(self, error: errors.ServerError, asked_at: float | None = None) -> None:
        """A call that somebody else made through :attr:`client` failed.

        A refused credential signs the connection out; other failures make it look for itself, the more seldom
        the more often it found nothing: a look is a request for each workspace, of a server in trouble.

        Args:
            asked_at: when the call began (monotonic); a refusal from before a change of token is ignored.
                None: not known, so a refusal only makes it look for itself.
        """
        if isinstance(error, errors.UnauthorizedError):
            if asked_at is None:
                self._sync_wanted.set()  # perhaps of the credential before: the next look tells
            elif asked_at >= self._token_at:
                self._sign_out(error)
        elif isinstance(error, errors.TransientError) and self._health.state is State.OK:
            self._doubt()

    def _doubt(self) -> None:
        """Look whether all is well; in a row ever more seldom."""
        now = self._clock.monotonic()
        looked_at, not_before = self._suspected
        if now < not_before:
            return
        if now - looked_at > 2 * self.timing.retry_limit_s:
            self._suspicion.reset()
        self._suspected = (now, now + self._suspicion.next())
        self.sync_now()

    def check_clock(self, late_s: float = 0.0) -> bool:
        """Called at every tick that happens anyway: whether time jumped; if so everything is re-checked.

        Args:
            late_s: how much later than planned the tick came.
        """
        if not self._jumps.jumped(late_s):
            return False
        log.info("%s: the clock jumped or the machine slept; checking everything", self.name)
        self._slept = True
        self._backoff.reset()
        self._sync_wanted.set()
        self.link.reconnect()
        self._wake_all()
        return True

    async def run(self) -> None:
        """Keep the connection going until cancelled. Failures of the server do not end it.

        Opens the client for as long as it runs, unless whoever made it has opened it before.
        """
        async with contextlib.AsyncExitStack() as stack:
            if not self.client.is_open:
                await stack.enter_async_context(self.client)
            stack.callback(self._forget_late_look)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            group.create_task(self.link.run(), name=f"link {self.name}")
            group.create_task(self._sync_forever(), name=f"sync {self.name}")

    def _forget_late_look(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    async def _sync_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._until_usable()
            self._sync_wanted.clear()
            if self._slept:
                self._slept = False
                await self.client.drop_idle()
            pause_s = await self._sync_once()
            due = loop.time() + pause_s
            try:
                async with asyncio.timeout_at(due):
                    await self._sync_wanted.wait()
            except TimeoutError:
                self.check_clock(loop.time() - due)

    async def _until_usable(self) -> None:
        """Wait for a credential: another one, or the refused one if the server changes its mind."""
        while not self.usable:
            wait_s = None if self._recheck_at is None else self._recheck_at - self._clock.monotonic()
            try:
                async with asyncio.timeout(wait_s):
                    await self._usable.wait()
            except TimeoutError:
                await self._ask_again()

    async def _ask_again(self) -> None:
        """Whether the credential is still refused. Nothing is shown before it is not."""
        token_at = self._token_at
        try:
            await self.client.workspaces()
        except errors.ServerError as error:
            log.debug("%s: still signed out: %s", self.name, error)
        else:
            if token_at == self._token_at and self._recheck_at is not None:
                log.info("%s takes the credential again", self.name)
                self.token_changed()
        if self._recheck_at is not None:
            self._show(dataclasses.replace(self._health, next_try_at=self._plan_recheck()))

    def _plan_recheck(self) -> float:
        """Wall-clock time of the next time that the refused credential is shown."""
        pause_s = self._recheck.next()
        self._recheck_at = self._clock.monotonic() + pause_s
        return self._clock.wall() + pause_s

    async def _sync_once(self) -> float:
        """One look at the server. Returns the pause until the next one, in seconds."""
        asked_at = self._clock.monotonic()
        try:
            await self._renew_if_due()
            await self._look()
        except errors.UnauthorizedError as error:
            self.report(error, asked_at)
            return 0.0
        except errors.ServerError as error:
            pause_s = self._backoff.next()
            self._list.forget_way()  # whoever answers next may be a newer server
            if isinstance(error, errors.TransientError) and error.retry_after_s is not None:
                pause_s = max(pause_s, error.retry_after_s)
            log.info("%s: %s; next try in %.1f s", self.name, error, pause_s)
            if self.usable:
                next_try_at = self._clock.wall() + pause_s
                self._show(dataclasses.replace(diagnose(error, self.client.host), next_try_at=next_try_at))
            return pause_s
        if not self.usable:  # somebody else's call was refused meanwhile
            return 0.0
        self._backoff.reset()
        self._quiet_until = self._clock.monotonic() + self.timing.reconcile_quiet_s
        recovered = self._returns or self._health.state not in (State.OK, State.STARTING)
        self._returns = False
        self._show(Health(State.OK))
        if recovered:
            self._wake_all()
        return self.timing.sync_s

    async def _renew_if_due(self) -> None:
        """As the protocol has it: before the first other call, then every three days. Failures do not matter,
        except a refusal, and except no answer at all to the very first: then there is nobody to talk to."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        if now < self._renew_at[0] and wall < self._renew_at[1]:
            return
        pause_s = self.timing.renew_s
        try:
            answer = await self.client.renew_token()
            self.renewed_at, self.expires_at = wall, answer.expires_at
        except errors.UnauthorizedError:
            raise
        except errors.TransientError as error:
            if not self._renewed and error.status == 0 and not error.maybe_applied:
                raise
            pause_s = self.timing.renew_retry_s
        except errors.ServerError as error:
            log.debug("%s: the token is not renewed: %s", self.name, error)  # not a kind that can be
        self._renew_at = (now + pause_s, wall + pause_s)
        self._renewed = True

    async def _look(self) -> None:
        sync = await self._list.look()
        failure: errors.ServerError | None = None
        for listener in self._listeners:
            try:
                await listener.workspaces_synced(self, sync)
            except errors.ServerError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _sign_out(self, error: errors.ServerError) -> None:
        if self.usable:
            log.warning("%s refuses the credential: sign in again", self.name)
            self._usable.clear()
            self._returns = True
            health = diagnose(error, self.client.host)
            self._show(dataclasses.replace(health, next_try_at=self._plan_recheck()))
        self.link.hold()
        self._sync_wanted.set()  # a loop that pauses goes on to waiting for a credential

    def _show(self, health: Health) -> None:
        """Take a new state; the time it began is kept while state and reason stay the same."""
        old = self._health
        same = old.state is health.state and old.code == health.code
        health = dataclasses.replace(health, since=old.since if same else self._clock.wall())
        if health != old:
            self._health = health
            for listener in self._listeners:
                listener.health_changed(self, health)

    def _wake_all(self) -> None:
        for listener in self._listeners:
            listener.wake_all(self)


class _Hints:
    """What the link hears, passed on in the connection's name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def link_up(self) -> None:
        self._connection._wake_all()
        self._connection.sync_now()

    def link_down(self, reason: str, *, expected: bool) -> None:
        if not expected:
            self._connection.sync_now()  # is the server still there?

    def link_refused(self, error: errors.ServerError, asked_at: float) -> None:
        self._connection.report(error, asked_at)

    def heartbeat_acked(self, ack: wire.HeartbeatResponse, asked_at: float) -> None:
        for listener in self._connection._listeners:
            listener.heartbeat_acked(self._connection, ack, asked_at)

    def task_available(self, runtime_id: str) -> None:
        for listener in self._connection._listeners:
            listener.task_available(self._connection, runtime_id)

    def task_changed(self, task_id: str) -> None:
        for listener in self._connection._listeners:
            listener.task_changed(self._connection, task_id)

    def profiles_changed(self, workspace_id: str) -> None:
        for listener in self._connection._listeners:
            listener.profiles_changed(self._connection, workspace_id)
        self._connection.change_told()

    def workspaces_changed(self) -> None:
        self._connection.change_told()

    def work_pending(self, runtime_id: str) -> None:
        for listener in self._connection._listeners:
            listener.work_pending(self._connection, runtime_id)
