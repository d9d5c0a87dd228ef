"""The connections of the daemon: the hub's and any number of servers', added and removed while it runs.

Rules kept here:

* Each connection has tasks of its own: one that fails or hangs delays no other, and an unexpected error
  begins that connection's work anew. Slots, claim barrier and agents are common to all.
* A connection is there from the start with the tasks of its server, whether or not its credential can be
  had: signed out it delivers nothing and keeps everything (promise P1).
* Signing in at a server that is known already revives its connection: what waited is delivered.
* Signing out is refused while tasks of the server are here: each of them is owed one report. Forced, runs are
  ended, and only what the server does not take within a limit is given up, said with its number.
* A server's name is in the journal, so tasks whose server is missing from the list (a damaged file) keep a
  signed-out connection of that name; signing in at the server again finds it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from daemon_core.connections import sign_in as signing
from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import ServerClient, normalise_base_url
from daemon_core.connections.connection import Connection, ConnectionListener
from daemon_core.connections.health import Health, State
from daemon_core.connections.network import NetworkWatch
from daemon_core.connections.timing import HUB, SERVER, Timing
from daemon_core.control.connection_views import (
    ConnectionDetail,
    CredentialView,
    SignedIn,
    SignedOut,
    SignIn,
    SignOut,
    TryAgain,
    WorkspaceView,
)
from daemon_core.control.errors import ControlError
from daemon_core.control.facade import Facade
from daemon_core.runtimes import offline
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.heartbeat import Heartbeat
from daemon_core.runtimes.registration import RegisteredRuntime, Registration
from daemon_core.settings import proxies
from daemon_core.settings import servers as server_list
from daemon_core.settings.credentials import CredentialError, CredentialStore
from daemon_core.settings.directories import Directories
from daemon_core.settings.servers import ServerEntry
from daemon_core.tasks import clock
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.owned import Nursery, cancel_and_wait, keep_going

log = logging.getLogger("ostler")

HUB_NAME: Final = "hub"
UNKNOWN_URL: Final = "http://unknown.invalid"
"""Stands for the address of a server that is known from its tasks alone; no name ends in ``.invalid``."""
FORCE_S: Final = 20.0
"""Forced sign-out: so long runs may take to end, and then their reports to be delivered."""
LEAVE_S: Final = 5.0
CREDENTIAL_RETRY_S: Final = (30.0, 600.0)
"""Pauses before a keyring that could not be asked is asked again: it is opened when somebody logs in."""
TOKEN_LIMIT: Final = 8192


class Joins(Protocol):
    """What is made for a connection when it begins: given by the builder, who knows identity and agents."""

    def __call__(self, connection: Connection) -> tuple[Registration, Heartbeat]: ...


@dataclasses.dataclass(slots=True)
class _Server:
    """One connection and what belongs to it."""

    connection: Connection
    entry: ServerEntry
    """Of the hub: only its name counts."""
    token: str = ""
    task: asyncio.Task[None] | None = None
    leaving: bool = False
    """Its tasks are being let go of: nothing is claimed from it any more."""
    look: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Somebody wants the credential to be looked for now."""

    def has_token(self) -> bool:
        """Whether there is a credential, good or not."""
        return bool(self.token)


class Servers:
    """See the module. Answers ``/v1/connections`` as ``control.connection_routes.ConnectionHost``.

    Args:
        directories: of the profile; the list and credentials in files are there.
        environ: of the daemon, for keyring and proxy.
        facade: is told of every change, and shares ``connections`` and ``registrations``.
        version: what servers are told as the client's version.
    """

    def __init__(
        self,
        directories: Directories,
        environ: Mapping[str, str],
        facade: Facade,
        *,
        version: str,
        timing: Timing = SERVER,
    ) -> None:
        self.connections: dict[str, Connection] = facade.connections
        self.registrations: dict[str, Registration] = facade.registrations
        self.heartbeats: dict[str, Heartbeat] = {}
        self.credentials = CredentialStore(directories.credentials, environ)
        self._list_file = directories.servers_file
        self._environ = environ
        self._facade = facade
        self._version = version
        self._timing = timing
        self._servers: dict[str, _Server] = {}
        self._engine: Engine | None = None
        self._join: Joins | None = None
        self._nursery = Nursery("servers")
        self._changing = asyncio.Lock()
        """One sign-in or sign-out at a time."""
        self._network = NetworkWatch(self._network_changed)
        self.on_network: Callable[[], None] = lambda: None
        """Hears that the network has changed."""
        self._settled = asyncio.Event()
        self._closing = False

    # --- start and end -------------------------------------------------------------------------

    def add_hub(self, url: str, credential: Callable[[], str]) -> None:
        """The embedded hub, a connection like any other but for its credential."""
        client = ServerClient(url, credential, version=self._version)
        self._adopt(_Server(Connection(HUB_NAME, client, HUB), ServerEntry(name=HUB_NAME)))

    async def load(self, task_connections: Sequence[str]) -> None:
        """Make the connections that are stored, and those that only tasks tell of. Nothing is asked yet.

        Args:
            task_connections: names of the connections that unfinished or undelivered tasks are of.
        """
        loaded = await asyncio.to_thread(server_list.load, self._list_file)
        if loaded.damaged is not None:
            log.error("the list of servers was damaged and set aside as %s", loaded.damaged)
            self._facade.set_condition("servers_damaged", path=str(loaded.damaged))
        entries = {entry.name: entry for entry in loaded.entries}
        for name in task_connections:
            if name != HUB_NAME and name not in entries:
                log.error("there are tasks of %s, which is not among the servers: sign in there again", name)
                entries[name] = ServerEntry(name=name)
        for entry in entries.values():
            self._adopt(self._made(entry))

    async def open(self) -> None:
        """Open the clients: from now on calls can be made."""
        for server in self._servers.values():
            await server.connection.client.__aenter__()

    def begin(self, engine: Engine, join: Joins) -> None:
        """Register, beat, listen: for every connection there is, and each that comes."""
        self._engine = engine
        self._join = join
        for server in self._servers.values():
            self._serve(server)
        self._network.start()
        self._check_settled()

    async def settled(self) -> None:
        """Wait until the daemon can do what it will be able to do for now: the hub's runtimes are registered;
        without a hub, those of any server, or every server has been tried once. A dead one is not waited
        for."""
        await self._settled.wait()

    async def deregister(self) -> None:
        """At a real stop: show the runtimes that have no run offline, at all servers at once."""
        wanted = [each for each in self.registrations.values() if each.connection.usable]
        async with asyncio.TaskGroup() as group:
            for registration in wanted:
                group.create_task(_in_time(registration.deregister()))

    async def close(self) -> None:
        """End all connections. Safe to call twice."""
        self._closing = True
        self._network.close()
        await self._nursery.close()
        for server in self._servers.values():
            await server.connection.client.__aexit__(None, None, None)

    # --- what happens --------------------------------------------------------------------------

    def set_agents(self, usable: Sequence[FoundAgent]) -> None:
        """Other agents were found: offer them everywhere."""
        for registration in self.registrations.values():
            registration.set_agents(usable)

    def runtimes_changed(self, registration: Registration) -> None:
        """The set of a connection's runtimes changed: pollers, heartbeat and link follow."""
        name = registration.connection.name
        ids = list(registration.runtimes)
        registration.connection.link.set_runtimes(ids)
        if name in self.heartbeats:
            self.heartbeats[name].set_runtimes(ids)
        self._publish_runtimes()
        self._check_settled()

    def runtime_gone(self, runtime: RegisteredRuntime, asked_at: float) -> None:
        """A claim was answered with "I do not know this runtime"."""
        registration = self.registrations.get(runtime.connection.name)
        if registration is not None:
            registration.runtime_gone(runtime.runtime_id, asked_at)

    def health_changed(self, *, moved: bool) -> None:
        """Of any connection; ``moved`` into another state, which its runtimes show."""
        if moved:
            self._facade.runtimes_changed()
        else:
            self._facade.status_changed()
        self._check_settled()

    def _network_changed(self) -> None:
        for server in self._servers.values():
            server.connection.network_changed()
        self.on_network()

    # --- the control API -----------------------------------------------------------------------

    async def details(self) -> list[ConnectionDetail]:
        """Every connection, the hub first."""
        return [self._detail(server) for server in self._servers.values()]

    async def sign_in(self, request: SignIn) -> SignedIn:
        """Check the credential at the server, keep it, connect with it."""
        self._running()
        url, token = _checked_url(request.url), request.token.strip()
        if not token:
            raise ControlError("invalid_input", {"field": "token", "why": "empty"})
        if len(token) > TOKEN_LIMIT:
            raise ControlError("invalid_input", {"field": "token", "why": "too_long", "limit": TOKEN_LIMIT})
        found = await self._checked(url, token)
        async with self._changing:
            server = self._known(url)
            added = server is None or not server.entry.url
            taken = [entry.name for entry in self._entries() if entry.url]
            if server is None:
                name = server_list.name_for(url, taken)
                account = f"{url} [{os.urandom(4).hex()}]"
                server = self._servers.get(name) or self._made(ServerEntry(name=name))
                entry = msgspec.structs.replace(
                    server.entry, url=url, account=account, added_at=clock.now_text()
                )
            else:
                entry = server.entry
            try:
                kept = await self.credentials.keep(entry.name, entry.account, token, request.store)
            except CredentialError as error:
                raise _keyring(error, "keep") from error
            entry = msgspec.structs.replace(entry, place=kept.place, backend=kept.backend)
            try:
                await self._store_with(entry)
            except OSError as error:
                if added:
                    await self._forget_credential(entry)
                detail = error.strerror or str(error)
                raise _keyring(CredentialError("unreadable", detail), "keep") from error
            server.entry = entry
            server.connection.client.readdress(url, proxies.proxy_for(url, self._environ))
            if entry.name not in self._servers:
                await server.connection.client.__aenter__()
                self._adopt(server)
                self._serve(server)
            server.token = token
            server.look.set()
            server.connection.token_changed()
            log.info("signed in at %s (%s), the credential is in the %s", entry.name, url, kept.place)
        self._facade.status_changed()
        notes = [] if found.workspaces else ["no_workspace"]
        if url.startswith("http://") and not proxies.is_loopback(url):
            notes.append("insecure")
        return SignedIn(
            connection=msgspec.structs.replace(
                self._detail(server), workspaces=_workspaces(found.workspaces)
            ),
            added=added,
            why_file=kept.why_file,
            expires_at=found.expires_at,
            notes=notes,
        )

    async def sign_out(self, request: SignOut) -> SignedOut:
        """Remove a server with its credential; see the module for what happens to its tasks."""
        engine = self._running()
        async with self._changing:
            server = self._named(request.server)
            name = server.entry.name
            server.leaving = True
            try:
                await engine.end_claims(name)
                given_up = await self._let_go(server, engine, force=request.force)
                if server.entry.url:
                    await self._forget_credential(server.entry)
                    await self._store_without(name)
            except BaseException:
                server.leaving = False
                self._publish_runtimes()  # it claims again
                raise
            await self._leave(server)
        return SignedOut(name=name, url=server.entry.url, given_up=given_up)

    async def try_again(self, request: TryAgain) -> list[ConnectionDetail]:
        """Look now, whatever the back-off says."""
        self._running()
        wanted = [self._named(request.server)] if request.server else list(self._servers.values())
        for server in wanted:
            server.look.set()
            if server.has_token() and not server.connection.usable:
                server.connection.token_changed()  # refused before; perhaps it is good again
            server.connection.look_now()
        return [self._detail(server) for server in wanted]

    # --- one connection ------------------------------------------------------------------------

    def _made(self, entry: ServerEntry) -> _Server:
        """A connection that waits for its credential."""
        url = entry.url or UNKNOWN_URL
        server: _Server
        client = ServerClient(
            url,
            lambda: server.token,
            version=self._version,
            proxy=proxies.proxy_for(url, self._environ),
            needs_token=True,
            skill_bundles=True,
        )
        server = _Server(Connection(entry.name, client, self._timing), entry)
        server.connection.await_token()
        if not entry.url:
            server.connection.sign_out("not_listed")
        return server

    def _adopt(self, server: _Server) -> None:
        self._servers[server.entry.name] = server
        self.connections[server.entry.name] = server.connection

    def _serve(self, server: _Server) -> None:
        assert self._join is not None
        connection = server.connection
        connection.add_listener(_Hints(self))
        registration, heartbeat = self._join(connection)
        self.registrations[connection.name] = registration
        self.heartbeats[connection.name] = heartbeat
        parts = [registration.run, heartbeat.run, connection.run]
        if server.entry.name != HUB_NAME:
            parts.append(lambda: self._find_credential(server))

        async def live() -> None:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part(), name=f"{part.__qualname__} {connection.name}")

        name = f"connection {connection.name}"
        server.task = self._nursery.start(keep_going(live, name), name)

    async def _find_credential(self, server: _Server) -> None:
        """Get the stored credential; a keyring that is not open yet is asked again, rarely."""
        entry, connection = server.entry, server.connection
        first_s, limit_s = CREDENTIAL_RETRY_S
        backoff = Backoff(first_s, limit_s, jitter=0.1)
        while not server.has_token() and entry.url:
            server.look.clear()
            try:
                token = await self.credentials.read(entry.name, entry.account, entry.place)
                if not token:
                    raise CredentialError("missing")
            except CredentialError as error:
                if server.has_token():
                    return  # signed in meanwhile
                log.warning("%s: its credential cannot be had (%s)", entry.name, error)
                pause_s = None if error.code == "missing" else backoff.next()
                next_try_at = time.time() + pause_s if pause_s is not None else None
                connection.sign_out(error.code, next_try_at=next_try_at)
                try:
                    async with asyncio.timeout(pause_s):
                        await server.look.wait()
                except TimeoutError:
                    pass
            else:
                if not server.has_token():
                    server.token = token
                    connection.token_changed()

    async def _let_go(self, server: _Server, engine: Engine, *, force: bool) -> int:
        """See that no task of this server is here; gives the number of those whose reports were given up.

        Raises:
            ControlError: there are some, and they are to go on; or one does not end.
        """
        name = server.entry.name
        tasks = engine.known_tasks(name)
        if not tasks:
            return 0
        if not force:
            params = {"what": "connection_busy", "server": name, "tasks": len(tasks)}
            raise ControlError("conflict", {**params, "undelivered": self._undelivered(name)})
        given_up = await engine.give_up(name, FORCE_S)
        if given_up is None:
            raise ControlError("conflict", {"what": "runs_do_not_end", "server": name})
        if given_up:
            log.warning("signed out of %s: the reports of %d tasks were given up", name, given_up)
        return given_up

    async def _forget_credential(self, entry: ServerEntry) -> None:
        try:
            await self.credentials.remove(entry.name, entry.account, entry.place)
        except CredentialError as error:
            # Where no keyring runs any more there is nothing that could be removed, or said about it.
            if error.code != "keyring_absent":
                raise _keyring(error, "remove") from error

    async def _leave(self, server: _Server) -> None:
        """End a connection that has no task and no credential any more."""
        name = server.entry.name
        registration = self.registrations.get(name)
        if registration is not None and server.connection.usable:
            await _in_time(registration.deregister(offline.SIGNED_OUT))
        if server.task is not None:
            await cancel_and_wait(server.task)
        for book in (self._servers, self.connections, self.registrations, self.heartbeats):
            book.pop(name, None)
        server.token = ""
        await server.connection.client.__aexit__(None, None, None)
        self._publish_runtimes()
        self._facade.status_changed()
        log.info("signed out of %s", name)

    # --- the list ------------------------------------------------------------------------------

    def _entries(self) -> list[ServerEntry]:
        return [server.entry for name, server in self._servers.items() if name != HUB_NAME]

    async def _store_with(self, entry: ServerEntry) -> None:
        others = [each for each in self._entries() if each.url and each.name != entry.name]
        await asyncio.to_thread(server_list.store, self._list_file, [*others, entry])

    async def _store_without(self, name: str) -> None:
        left = [each for each in self._entries() if each.url and each.name != name]
        try:
            await asyncio.to_thread(server_list.store, self._list_file, left)
        except OSError as error:
            detail = error.strerror or str(error)
            raise _keyring(CredentialError("unreadable", detail), "remove") from error

    def _known(self, url: str) -> _Server | None:
        return next((each for each in self._servers.values() if url and each.entry.url == url), None)

    def _named(self, given: str) -> _Server:
        """The server by name or address; without either the only one. Raises ``ControlError``."""
        own = {name: each for name, each in self._servers.items() if name != HUB_NAME}
        wanted = given.strip()
        if not wanted:
            if len(own) == 1:
                return next(iter(own.values()))
            if own:
                raise ControlError(
                    "ambiguous_id", {"kind": "connection", "id": "--server", "candidates": sorted(own)}
                )
            raise ControlError("not_found", {"kind": "connection", "id": "", "known": []})
        found = own.get(wanted.lower())
        if found is None:
            try:
                found = self._known(normalise_base_url(wanted))
            except ValueError:
                found = None
        if found is None:
            raise ControlError("not_found", {"kind": "connection", "id": wanted, "known": sorted(own)})
        return found

    # --- small ---------------------------------------------------------------------------------

    def _running(self) -> Engine:
        if self._engine is None or self._closing or self._facade.phase == "stopping":
            raise ControlError("not_ready")
        return self._engine

    async def _checked(self, url: str, token: str) -> signing.Accepted:
        client = ServerClient(url, token, version=self._version, proxy=proxies.proxy_for(url, self._environ))
        try:
            signing.check_form(token)
            async with client:
                return await signing.check(client)
        except signing.SignInError as error:
            params = {"why": error.code, "server": client.host, "url": url, **error.params}
            raise ControlError("sign_in_failed", params) from error

    def _check_settled(self) -> None:
        if self._settled.is_set():
            return
        states = {name: connection.health.state for name, connection in self.connections.items()}
        served = {name for name, each in self.registrations.items() if each.runtimes}
        if HUB_NAME in states:
            done = HUB_NAME in served or states[HUB_NAME] is State.OK
        else:
            done = bool(served) or State.STARTING not in states.values()
        if done:
            self._settled.set()

    def _publish_runtimes(self) -> None:
        if self._engine is None:
            return
        registered = [
            runtime
            for name, each in self.registrations.items()
            if not self._servers[name].leaving
            for runtime in each.runtimes.values()
        ]
        self._engine.set_runtimes(registered)
        self._facade.runtimes_changed()

    def _undelivered(self, name: str) -> int:
        deliveries = self._engine.deliveries.items() if self._engine is not None else ()
        return sum(1 for key, each in deliveries if key.startswith(f"{name}/") and each.trouble is not None)

    def _detail(self, server: _Server) -> ConnectionDetail:
        entry, connection = server.entry, server.connection
        view = self._facade.status_desk.connection_view(connection)
        registration = self.registrations.get(entry.name)
        credential = CredentialView()
        if entry.url:
            path = str(self.credentials.file_of(entry.name))
            detail = path if entry.place == "file" else entry.backend
            credential = CredentialView(place=entry.place, detail=detail)
        return ConnectionDetail(
            name=entry.name,
            url=entry.url or (connection.client.base_url if entry.name == HUB_NAME else ""),
            status=view.status,
            reason=view.reason,
            reason_params={"server": entry.name, **view.reason_params} if view.reason else {},
            since=view.since,
            next_try_at=view.next_try_at,
            websocket=view.websocket,
            workspaces=[
                WorkspaceView(id=each.id, name=each.name, problem=_problem_of(registration, each.id))
                for each in connection.workspaces.values()
            ],
            runtimes=len(registration.runtimes) if registration is not None else 0,
            tasks=len(self._engine.known_tasks(entry.name)) if self._engine is not None else 0,
            undelivered=self._undelivered(entry.name),
            credential=credential,
            renewed_at=_moment(connection.renewed_at),
            expires_at=connection.expires_at,
            embedded=entry.name == HUB_NAME,
        )


class _Hints(ConnectionListener):
    """What a connection hears, for the engine and the status."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._state = State.STARTING

    @property
    def _engine(self) -> Engine:
        assert self._servers._engine is not None
        return self._servers._engine

    def health_changed(self, connection: Connection, health: Health) -> None:
        moved, self._state = health.state is not self._state, health.state
        self._servers.health_changed(moved=moved)

    def wake_all(self, connection: Connection) -> None:
        self._engine.wake(connection.name)
        self._engine.reconcile(connection.name)

    def task_available(self, connection: Connection, runtime_id: str) -> None:
        self._engine.wake(connection.name, runtime_id)

    def task_changed(self, connection: Connection, task_id: str) -> None:
        if task_id:
            self._engine.reconcile(connection.name, task_id)


def _checked_url(text: str) -> str:
    if not text.strip():
        raise ControlError("invalid_input", {"field": "server", "why": "empty"})
    try:
        return normalise_base_url(text)
    except ValueError as error:
        raise ControlError(
            "invalid_input", {"field": "server", "why": "url", "detail": str(error)}
        ) from error


def _keyring(error: CredentialError, action: str) -> ControlError:
    return ControlError("credential_store", {"why": error.code, "detail": error.detail, "action": action})


def _workspaces(found: Sequence[Any]) -> list[WorkspaceView]:
    return [WorkspaceView(id=each.id, name=each.name) for each in found]


def _problem_of(registration: Registration | None, workspace_id: str) -> str:
    state = registration.workspaces.get(workspace_id) if registration is not None else None
    return state.problem if state is not None else ""


def _moment(wall: float) -> str:
    return clock.text(dt.datetime.fromtimestamp(wall, dt.UTC)) if wall else ""


async def _in_time(work: Any) -> None:
    try:
        async with asyncio.timeout(LEAVE_S):
            await work
    except TimeoutError:
        log.warning("a server does not take that its runtimes go offline; it will notice by itself")
