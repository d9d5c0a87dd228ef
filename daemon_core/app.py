"""Builds the daemon from settings and runs it: the one place that knows all rooms.

Order at the start: lock, control socket (status ``starting``), then journal, hub and discovery side by side,
the loopback port, everything unfinished taken up again, and only then connections that register and claim.
``running`` is said when the hub's runtimes are registered (without a hub: see ``Servers.settled``).

Order at the end, whatever asks for it: barrier up, pollers ended, tasks in their short stretches given a
moment, runs let go (or ended, if the user wants that), reports delivered as far as they can be, runtimes
without runs deregistered, hub, journal and sockets closed, lock released.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
import gc
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from daemon_core import __version__
from daemon_core.agents.families import families
from daemon_core.changeover import GIVEN_VARIABLES, Changeover, Given, broken_at_once, take_given
from daemon_core.connections.connection import Connection
from daemon_core.control.checkout import checkout_route
from daemon_core.control.delegation_routes import task_delegation_routes
from daemon_core.control.delegation_tools import DelegationTools
from daemon_core.control.facade import Facade
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.job_routes import task_job_routes
from daemon_core.control.job_tools import JobTools
from daemon_core.control.loopback import LoopbackServer, build_app, make_token
from daemon_core.control.mcp import ToolSource, mcp_routes
from daemon_core.control.mcp_tools import CheckoutTool, VerbTools
from daemon_core.control.models_desk import ModelsDesk
from daemon_core.control.resident_desk import BarrierGate
from daemon_core.control.server import ControlServer
from daemon_core.control.settings_desk import SettingsDesk
from daemon_core.control.views import ReloadAnswer
from daemon_core.hub import Hub, HubChange
from daemon_core.hub import routes as hub_routes
from daemon_core.hub.errors import ConflictError, InvalidInputError, NotFoundError, StorageError
from daemon_core.jobs.keeper import PERSON_MARK, JobKeeper
from daemon_core.jobs.notices import Notices
from daemon_core.jobs.residents.house import House
from daemon_core.jobs.retention import KeepRules
from daemon_core.jobs.store import JobStore
from daemon_core.journal import Journal, JournalError
from daemon_core.processes.state import RunPhase, read_state
from daemon_core.protocol import first_use
from daemon_core.runtimes import providers
from daemon_core.runtimes.actions import DISK_AT_ONCE, ModelAnswer, RuntimeActions
from daemon_core.runtimes.book import RuntimeBook
from daemon_core.runtimes.discovery import FoundAgent, discover
from daemon_core.runtimes.heartbeat import Heartbeat
from daemon_core.runtimes.models import ModelCatalog, wire_models
from daemon_core.runtimes.places import COMMON_PLACES
from daemon_core.runtimes.profiles import ProfileResolver
from daemon_core.runtimes.providers import Registry
from daemon_core.runtimes.registration import Identity, RegisteredRuntime, Registration
from daemon_core.runtimes.watching import AgentWatch
from daemon_core.servers import HUB_NAME, Servers
from daemon_core.settings import file as settings_file
from daemon_core.settings import identity as identity_file
from daemon_core.settings import lock as locking
from daemon_core.settings.directories import Directories, make_private, resolve, settle_home
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.file import Settings
from daemon_core.settings.ports import PortInUseError, open_loopback
from daemon_core.tasks import accounts, clock
from daemon_core.tasks.accounts import AccountLimits
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.delegation import DelegationRules, Delegations
from daemon_core.tasks.engine import SETTLE_S, Engine
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.followup import FollowUp
from daemon_core.tasks.homes import HOMES
from daemon_core.tasks.housekeeping import CleanRules, Housekeeper
from daemon_core.tasks.launch import Launcher
from daemon_core.tasks.owned import Nursery, keep_going
from daemon_core.tasks.prices import Prices, PricesError
from daemon_core.tasks.repositories import OwnRepositories, TaskRepositories
from daemon_core.tasks.room import RoomGuard
from daemon_core.tasks.skills import CACHE_NAME, SkillCache, forget_unused
from daemon_core.tasks.slots import Slots
from daemon_core.tasks.spend_store import SpendStore
from daemon_core.tasks.spending import ALLOWED_META, SpendBook
from daemon_core.tasks.watchdog import WatchLimits
from daemon_core.updates.errors import UpdateError
from daemon_core.upkeep import Upkeep
from daemon_core.workdirs import DirectoryLocks, TaskDirectories
from daemon_core.workdirs.changes import ChangeStore
from daemon_core.workdirs.disk import Room, Space
from daemon_core.workdirs.environments import Environments
from daemon_core.workdirs.repositories import Repositories

log = logging.getLogger("ostler")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFLICT = 6
END_RUNS_S = 30.0
"""How long `stop --runs` waits for runs to end: each is asked, then told, then killed, well within this."""
UPDATE_DELIVER_S = 0.5
"""How long reports on their way are waited for when another version follows at once: it goes on with them."""
CLOSE_LIMIT_S = 5.0
"""Each step of the end may take this long; then the next one begins all the same."""
HOUSEKEEPING_S = 6 * 3600.0
FIRST_HOUSEKEEPING_S = 5 * 60.0
"""A machine that is on for some hours a day has its disk kept in order, too; not in the rush of a start."""
LOW_DISK_ROUND_S = 10 * 60.0
"""A disk that stays low is not cleaned more often than this."""
NOT_OURS_TOLD = 3
"""How many unknown settings are told in full; all of them are on the page of the settings, and in the log."""
ANEW_MIN_S = 10.0
"""A daemon that lived shorter than this is not followed by another one of its own accord."""
GLANCE_EVERY_S = 1.0
"""How often somebody who looks at the list of agents makes the daemon see whether they have changed."""
_M_ARENA_MAX = -8  # malloc.h
CHECK_DISK = "Check the disk and its permissions, then start again"
REPORTED_CLI_VERSION = "0.4.23"
"""What servers are told as ``cli_version``: their own gates are on the numbers of their own daemon, and this
is the newest of them whose features are there. From 0.4.24 on people may ask for work trees of a local
directory, which are not made here."""


class StartError(Exception):
    """The daemon cannot start. ``exit_code`` as the command line documents it."""

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(f"{message}. {hint}." if hint else f"{message}.")
        self.exit_code = exit_code


class Daemon:
    """One daemon of one profile, from its lock to its end."""

    def __init__(
        self,
        directories: Directories,
        settings: Settings,
        environ: Mapping[str, str],
        given: Given = Given(),  # noqa: B008 - a tuple
        not_ours: Sequence[SettingsError] = (),
    ) -> None:
        self.directories = directories
        self.settings = settings
        self.environ = dict(environ)
        self.providers = providers.load(directories.providers)
        self.barrier = Barrier()
        self.slots = Slots(settings.daemon.slots, _limits(settings, self.providers), settings.limits.models)
        self.device_name = settings.daemon.name or socket.gethostname()
        self.facade = Facade(
            version=__version__,
            profile=directories.profile,
            device_name=self.device_name,
            started_at=dt.datetime.now(dt.UTC),
            owns_mark=lambda mark: not mark.startswith(PERSON_MARK),
        )
        self._not_ours = {mistake.key for mistake in not_ours}
        """Settings of the file that this version does not know and has left out."""
        self._tell_not_ours(not_ours)
        self.nursery = Nursery("daemon")
        self.jobs: JobKeeper | None = None
        self.residents: House | None = None
        self.job_desk = self.facade.job_desk = JobDesk(self.facade.changes)
        self.job_desk.time_limit_s = lambda: self.settings.jobs.time_limit
        self.job_desk.environment = self._base_environment
        self.settings_desk = self.facade.settings_desk = SettingsDesk(
            directories.config_file,
            self.environ,
            self.facade.changes,
            in_force=lambda: self.settings,
            reload=self.reload,
            providers=lambda: _provider_names(self.providers),
            present=lambda: [found.provider for found in self.facade.found if found.path],
            not_ours=lambda mistake: mistake.key in self._not_ours,
        )
        self.delegations: Delegations | None = None
        self._handed_on_known = asyncio.Event()
        """Set when what tasks have handed on has been taken up."""
        self.engine: Engine | None = None
        self.housekeeper: Housekeeper | None = None
        self.room = RoomGuard(
            Room((directories.data, directories.state), settings.workdirs.free_floor), self._room_changed
        )
        self.hub: Hub | None = None
        self.servers = Servers(directories, self.environ, self.facade, version=REPORTED_CLI_VERSION)
        self.book = RuntimeBook.open(directories.state / "runtimes.json")
        self.watch = AgentWatch(
            self._agent_places,
            lambda: [agent.path for agent in self.facade.found if agent.path],
            self.environ,
            lambda: self.discover(refresh=False),
        )
        self._action_disk = asyncio.Semaphore(DISK_AT_ONCE)
        self._profiles = ProfileResolver(
            lambda name: self.providers.get(name),
            self.environ,
            self.book.path_of,
            lambda provider: provider.family in families(),
            beyond=lambda: self._terminal_path(),
        )
        self.models = ModelsDesk(
            ModelCatalog(directories.cache / "models.json"),
            registry=lambda: self.providers,
            found=lambda: self.facade.found,
            environ=self._base_environment,
            provider_of=self._provider_of,
        )
        self._stop = asyncio.Event()
        self._end_runs = False
        self._restart = False
        self.anew = False
        """Whether this process is to be followed by another one at once."""
        self.gives_way = False
        """Whether the launcher is to follow in this process's place: another version is to run."""
        self.changeover = Changeover(
            directories,
            self.barrier,
            given,
            version=__version__,
            end=self._end_for_update,
            told=self.facade.status_changed,
        )
        self.changeover.check_ready = self._check_ready
        self.upkeep = Upkeep(
            directories,
            self.environ,
            self.facade,
            self.changeover,
            self.nursery,
            version=__version__,
            settings=lambda: self.settings,
            connections=self.servers.connections,
        )
        self.servers.on_network = self.upkeep.network_changed
        self._for_update = False
        """It ends for the sake of an update: the switch has waited for what is worth waiting for."""
        self._tidied_at = float("-inf")

    # --- what the facade may ask for -------------------------------------------------------------

    def request_stop(self, *, end_runs: bool, restart: bool = False) -> None:
        """Begin to stop; a second wish can only add the end of the runs.

        ``restart``: another daemon follows at once, so the runtimes stay registered.
        """
        self._end_runs = self._end_runs or end_runs
        self._restart = restart
        self.gives_way = False
        self._stop.set()

    def _end_for_update(self, follow: bool) -> None:
        """End in order, runs going on; ``follow``: the launcher takes this process's place."""
        if not self._stop.is_set():
            self.request_stop(end_runs=False, restart=True)
            self.gives_way = follow
            self._for_update = True

    def begin_anew(self) -> None:
        """The journal turned out to be damaged: the next start sets it aside, so there has to be one."""
        if not self.anew:
            log.critical("the journal is damaged; the daemon starts anew to mend it, runs go on meanwhile")
            self.anew = True
            self.request_stop(end_runs=False, restart=True)

    async def discover(self, refresh: bool) -> list[FoundAgent]:
        """Look for agents and offer what was found."""
        found = await self._discover(refresh=refresh)
        self._take_agents(found)
        return found

    def _check_ready(self) -> None:
        """A settings file that was broken since this daemon began would keep every next one from starting."""
        try:
            _load_settings(self.directories, self.environ, lambda _error: True)
        except SettingsError as error:
            raise UpdateError("settings", what=str(error)) from error

    async def reload(self) -> ReloadAnswer:
        """Read the settings again; what is damaged leaves the old ones in force."""
        old = self.settings
        left_out: list[SettingsError] = []

        def unknown(mistake: SettingsError) -> bool:
            if mistake.key not in self._not_ours:
                return False
            left_out.append(mistake)
            return True

        try:
            new = await asyncio.to_thread(_load_settings, self.directories, self.environ, unknown)
        except SettingsError as error:
            self.facade.set_condition("settings_invalid", what=str(error))
            self.settings_desk.taken_over(error)
            raise
        changed = _changed(old, new)
        live = {entry.name for entry in settings_file.entries() if entry.key.live}
        needs_restart = [name for name in changed if not _is_live(name, live)]
        self.settings = new
        self.slots.resize(new.daemon.slots, _limits(new, self.providers), new.limits.models)
        logging.getLogger().setLevel(new.log.level.upper())
        if self.engine is not None:
            self.engine.watch_by(_watch_limits(new))
            self.engine.accept_claims(new.daemon.claim)
            self.engine.base_environment = self._base_environment()
        if self.engine is not None and self.engine.spending is not None:
            await self._take_prices(self.engine.spending)
            self.engine.spending.set_limit(new.spend.daily_limit, new.spend.warn_at / 100)
        self.room.room.floor_bytes = new.workdirs.free_floor
        self.room.look_again()
        if self.hub is not None:
            self.hub.retention = dt.timedelta(days=new.retention.days)
        self._tell_not_ours(left_out)
        if any(name.startswith(("agents.", "discovery.", "environment.")) for name in changed) or (
            await asyncio.to_thread(providers.load, self.directories.providers) != self.providers
        ):
            self.nursery.start(self.discover(refresh=False), "discovery after a change of settings")
        self.settings_desk.taken_over()
        self.upkeep.look()
        return ReloadAnswer(
            applied=[name for name in changed if name not in needs_restart], needs_restart=needs_restart
        )

    def _tell_not_ours(self, left_out: Sequence[SettingsError]) -> None:
        """The first ones stand for all: the page of the settings has the whole list."""
        if left_out:
            told = " ".join(str(mistake) for mistake in left_out[:NOT_OURS_TOLD])
            self.facade.set_condition("settings_invalid", what=told)
        else:
            self.facade.clear_condition("settings_invalid")

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, run until asked to stop, stop in order. Raises ``StartError``."""
        facade, directories = self.facade, self.directories
        facade.host = self
        facade.models = self.models
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, lambda: self.request_stop(end_runs=False))
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(
                signal.SIGHUP, lambda: self.nursery.start(self._reload_quietly(), "reload")
            )
        async with AsyncExitStack() as stack:
            control = ControlServer(facade, directories.checked_socket())
            try:
                await control.start()
            except OSError as error:
                what = f"the control socket {control.socket_path} cannot be made: {error.strerror or error}"
                raise StartError(what, CHECK_DISK) from error
            stack.push_async_callback(_limited, control.close, "the control API")
            stack.push_async_callback(_limited, facade.close, "the control API's own tasks")
            stack.push_async_callback(_limited, self.nursery.close, "background work")
            identity = await asyncio.to_thread(
                identity_file.load_or_create, directories.id_file, directories.id_copy
            )
            facade.daemon_id = identity.daemon_id
            discovery = self.nursery.start(self._discover(refresh=False), "discovery")
            journal, hub = await self._open_stores(stack, identity.daemon_id)
            listener = await self._listen()
            facade.port = listener.getsockname()[1]
            token = await asyncio.to_thread(make_token, directories.token_file)
            served = hub_routes(hub) if hub is not None else ()
            sources: list[ToolSource] = [
                CheckoutTool(lambda: self.engine),
                VerbTools(),
                JobTools(self.job_desk),
                DelegationTools(facade.delegation_desk),
            ]
            tools = mcp_routes(self._taken_up, sources)
            checkout = checkout_route(self._taken_up, token)
            jobs = task_job_routes(self._taken_up, self.job_desk)
            handing_on = task_delegation_routes(self._taken_up, facade.delegation_desk)
            app = build_app(facade, token, routes=[checkout, *tools, *jobs, *handing_on, *served])
            loopback = LoopbackServer(app, listener)
            await loopback.start()
            stack.push_async_callback(_limited, loopback.close, "the loopback server")
            if hub is not None:
                self.servers.add_hub(f"http://127.0.0.1:{facade.port}", lambda: hub.credential)
            try:
                await self.servers.load(sorted(await journal.open_connections()))
            except OSError as error:
                raise StartError(f"the list of servers cannot be read: {error}") from error
            _write_info(directories, facade.port)
            stack.callback(lambda: directories.info_file.unlink(missing_ok=True))

            try:
                async with asyncio.TaskGroup() as group:
                    await self._go(group, stack, journal, hub, identity, discovery, facade.port)
                    await self._stop.wait()
                    await self._wind_down()
                    raise _DoneError  # everything in the group runs for ever
            except* _DoneError:
                pass

    async def _go(
        self,
        group: asyncio.TaskGroup,
        stack: AsyncExitStack,
        journal: Journal,
        hub: Hub | None,
        identity: identity_file.Identity,
        discovery: asyncio.Task[list[FoundAgent]],
        port: int,
    ) -> None:
        facade = self.facade
        servers = self.servers
        engine = self._build_engine(journal, servers.connections, identity.daemon_id, port)
        self.engine = facade.engine = self.changeover.engine = engine
        self.jobs = engine.jobs = self._build_jobs(engine)
        stack.push_async_callback(_limited, self.jobs.close, "the jobs")
        await self.jobs.recover()
        facade.runtime_desk.book = self.book
        facade.runtime_desk.discover = lambda: self.discover(refresh=True)
        facade.runtime_desk.glance = lambda: self.watch.look(every_s=GLANCE_EVERY_S)
        self.housekeeper = facade.housekeeper = self._build_housekeeper(engine)
        engine.accept_claims(self.settings.daemon.claim)
        engine.accounts = AccountLimits(
            lambda text: engine.patience.carry(lambda: journal.set_meta(accounts.META_NAME, text)),
            facade.account_changed,
        )
        engine.accounts.restore(await journal.get_meta(accounts.META_NAME))
        stack.callback(engine.accounts.close)
        await self._open_spending(engine, stack)
        await facade.restore_pause()
        stack.push_async_callback(_limited, self._close_delegations, "what was handed on")
        stack.push_async_callback(_limited, engine.detach, "the tasks")
        stack.push_async_callback(_limited, servers.close, "the connections")
        await servers.open()
        found = await discovery
        self._take_agents(found)
        follow_up = engine.follow_up = facade.follow_up = self._build_follow_up(engine)
        await engine.recover()
        self.job_desk.engine, self.job_desk.keeper = engine, self.jobs
        if hub is not None:
            known = engine.known_tasks(HUB_NAME)
            await hub.take_stock(known)
            await self._end_jobs_of_deleted(hub)
            hub.start_timers(known)
            group.create_task(hub.run(), name="hub")
            self.delegations = Delegations(
                engine,
                hub,
                follow_up.notices,
                self._delegation_rules,
                on_change=facade.delegation_desk.changed,
                end_jobs=self.jobs.kill_all,
            )
            engine.may_hand_on = self.delegations.may_hand_on
            await self.delegations.restore()
            facade.delegation_desk.delegations = self.delegations
        self._handed_on_known.set()
        await follow_up.start()
        await self._open_residents(stack)
        self.nursery.start(self.changeover.prove(engine, journal), "trial")
        updater = await self.upkeep.open(identity.daemon_id, engine, hub)
        stack.callback(self.upkeep.close)
        group.create_task(keep_going(updater.run, "the updater"), name="updater")
        servers.begin(engine, lambda connection: self._join(connection, identity))
        facade.servers = servers
        group.create_task(self._housekeeping(), name="housekeeping")
        group.create_task(keep_going(self.watch.run, "the watch of agents"), name="watch of agents")
        await self._until_settled()
        gc.collect()
        gc.freeze()  # what is there now stays: later collections need not look at it
        facade.set_phase("running")
        log.info("running: %s", ", ".join(agent.provider for agent in found if agent.usable) or "no agents")

    def _taken_up(self) -> Engine | None:
        """The engine once it has its tasks again: before that nobody's token can be told from a false one."""
        return self.engine if self.job_desk.keeper is not None else None

    async def _open_stores(self, stack: AsyncExitStack, daemon_id: str) -> tuple[Journal, Hub | None]:
        facade, directories, settings = self.facade, self.directories, self.settings

        async def open_hub() -> Hub | None:
            if not settings.hub.enabled:
                return None
            return await Hub.open(
                directories.hub_file,
                daemon_id=daemon_id,
                retention=dt.timedelta(days=settings.retention.days),
                on_change=self._hub_changed,
            )

        try:
            journal, hub = await asyncio.gather(Journal.open(directories.journal_file), open_hub())
        except JournalError as error:
            raise StartError(str(error), CHECK_DISK) from error
        except StorageError as error:
            place, detail = error.params.get("path"), error.params.get("detail")
            raise StartError(f"the hub's database {place} cannot be opened: {detail}", CHECK_DISK) from error
        stack.push_async_callback(_limited, journal.close, "the journal")
        facade.journal = journal
        journal.on_damage = self.begin_anew
        if journal.set_aside is not None:
            facade.set_condition("journal_damaged", path=str(journal.set_aside))
        if hub is not None:
            stack.push_async_callback(_limited, hub.close, "the hub")
            self.hub = facade.hub = hub
            hub.on_expired = facade.conversation_gone
            if hub.damage is not None:
                facade.set_condition("hub_damaged", path=str(hub.damage.set_aside))
        return journal, hub

    async def _listen(self) -> socket.socket:
        directories, configured = self.directories, self.settings.daemon.port
        alive = await asyncio.to_thread(_any_run_alive, directories.runs)
        try:
            return await asyncio.to_thread(open_loopback, directories, configured, may_move=not alive)
        except PortInUseError as error:
            if error.fixed == "configured":
                hint = "End that program, or set another port with `ostler config set daemon.port`"
                raise StartError(
                    f"port {error.port} is in use by another program", hint, EXIT_CONFLICT
                ) from error
            # Runs know the old port: they go on, but what they ask of Ostler will not reach it.
            log.error("port %s is in use by another program; running tasks cannot reach Ostler", error.port)
            self.facade.set_condition("port_in_use", port=error.port)
            return await asyncio.to_thread(open_loopback, directories, 0, may_move=True)

    def _build_engine(
        self, journal: Journal, connections: Mapping[str, Connection], daemon_id: str, port: int
    ) -> Engine:
        directories = self.directories
        return Engine(
            journal=journal,
            slots=self.slots,
            barrier=self.barrier,
            observer=self.facade,
            connections=connections,
            families=families(),
            launchers={},
            task_directories=TaskDirectories(directories.workspaces),
            directory_locks=DirectoryLocks(_user_lock_directory()),
            environments=Environments(_user_lock_directory().with_name("prepared")),
            changes=ChangeStore(directories.state / "changes"),
            room=self.room,
            skill_cache=SkillCache(directories.workspaces),
            watch_limits=_watch_limits(self.settings),
            permissions=lambda provider: self.settings.permission_mode(provider),
            resume_after_limit=lambda provider: self.settings.agent(provider).resume_after_limit,
            offers_mcp=lambda provider: self.settings.offers_mcp(provider),
            runs_dir=directories.runs,
            socket_dir=directories.run,
            daemon_id=daemon_id,
            control_url=f"http://127.0.0.1:{port}",
            loopback_port=port,
            home=self.environ.get("OSTLER_HOME", ""),
            profile=directories.profile,
            base_environment=self._base_environment(),
            runtime_gone=self.servers.runtime_gone,
            profile_launcher=self._profile_launcher,
            agent_missing=lambda _: self.watch.look(now=True),
            repositories=TaskRepositories(
                Repositories(directories.repositories, self._base_environment(), reach=reach),
                self.facade.registrations,
                self._own_repositories,
            ),
        )

    def _build_jobs(self, engine: Engine) -> JobKeeper:
        return JobKeeper(
            store=JobStore(engine.journal),
            root=self.directories.jobs,
            socket_dir=self.directories.run,
            owner=Nursery("jobs"),
            gate=self.barrier.starting,
            carry=engine.patience.carry,
            watcher=self.job_desk,
            told=self._job_told,
            expects=self._expects_job,
            reach=reach,
            rules=self._job_rules,
            stall_s=lambda: self.settings.jobs.stall,
        )

    async def _open_residents(self, stack: AsyncExitStack) -> None:
        """Take up the residents that run, start those that are enabled."""
        directories = self.directories
        workers = Nursery("residents")
        house = House(
            files=directories.resident_files,
            root=directories.residents,
            locks=_user_lock_directory().with_name("resident-locks"),
            socket_dir=directories.run,
            holder=f"profile {directories.profile}, state in {directories.state}",
            owner=workers,
            gate=BarrierGate(self.barrier),
            environment=self._base_environment,
            own_environment={
                "OSTLER_PROFILE": directories.profile,
                **{name: self.environ[name] for name in ("OSTLER_HOME",) if self.environ.get(name)},
            },
            program_of=lambda provider: next(
                (agent.path for agent in self.facade.found if agent.provider == provider and agent.usable),
                None,
            ),
            own_directories=(
                *(directories.config, directories.data, directories.state),
                *(directories.cache, directories.run),
            ),
            reach=reach,
        )
        self.residents = house
        stack.push_async_callback(_limited, house.detach, "the residents")
        stack.push_async_callback(_limited, workers.close, "the residents' keepers")
        await house.open()
        assert self.facade.resident_desk is not None
        self.facade.resident_desk.open(house)
        stack.callback(self.facade.resident_desk.close)

    def _job_told(self, conversation: str) -> None:
        """A job of a conversation has ended, or its agent is to be told something of it."""
        if self.engine is not None and self.engine.follow_up is not None:
            self.engine.follow_up.look(conversation)
        self._child_changed(conversation)

    def _child_changed(self, conversation: str) -> None:
        """Where a conversation is one that was handed on, it may be over now."""
        if self.delegations is not None:
            self.delegations.conversation_changed(conversation)

    async def _end_jobs_of_deleted(self, hub: Hub) -> None:
        """A death between the deletion of a conversation and the end of its jobs is made good. (Not where the
        hub has lost its memory: then nothing was deleted by anybody.)"""
        assert self.jobs is not None
        if hub.damage is not None:
            return
        for job in [life.job for life in self.jobs.lives.values()]:
            connection, _, task_id = job.task_key.partition("/")
            conversation_id = job.conversation.partition("/")[2]
            if connection == HUB_NAME and not (await hub.get(task_id) or await hub.find(conversation_id)):
                await self.jobs.end_conversation(job.conversation)

    async def _expects_job(self, task_key: str) -> None:
        """A task is about to start a job that will wake it."""
        if self.engine is not None and self.engine.follow_up is not None:
            await self.engine.follow_up.job_started(task_key)

    def _build_follow_up(self, engine: Engine) -> FollowUp:
        return FollowUp(
            engine,
            Notices(engine.journal),
            wake_hub=self._wake_hub,
            wake_limit=lambda: self.settings.jobs.wake_limit,
            keep_open=lambda: self.settings.jobs.keep_open,
            outstanding=self._outstanding,
            on_held=self.facade.conversation_held,
            on_given_up=self._child_changed,
        )

    async def _outstanding(self, conversation: str) -> int:
        """How much of a conversation goes on that wakes it when it ends."""
        assert self.jobs is not None
        # A task that was kept open for it is here again before it: it must not take it for over.
        await self._handed_on_known.wait()
        handed_on = self.delegations.open_of(conversation) if self.delegations is not None else 0
        return handed_on + await self.jobs.outstanding(conversation)

    def _delegation_rules(self) -> DelegationRules:
        chosen = self.settings.delegation
        return DelegationRules(
            depth=chosen.depth,
            at_once=chosen.at_once,
            per_task=chosen.per_task,
            more_turns=chosen.more_turns,
        )

    async def _close_delegations(self) -> None:
        if self.delegations is not None:
            await self.delegations.close()

    async def _wake_hub(self, task_id: str, text: str) -> bool | None:
        if self.hub is None:
            return None
        try:
            return await self.hub.wake(task_id, text) is not None
        except (NotFoundError, ConflictError, InvalidInputError) as error:
            log.warning("the conversation of task %s cannot be woken: %s", task_id, error)
            return None

    def _job_rules(self) -> KeepRules:
        chosen = self.settings.jobs
        return KeepRules(
            told_s=chosen.keep_told, untold_s=chosen.keep_untold, budget_bytes=chosen.output_budget
        )

    def _own_repositories(self) -> OwnRepositories:
        chosen = self.settings.repositories
        return OwnRepositories(urls=chosen.urls, co_author=chosen.co_author)

    def _build_housekeeper(self, engine: Engine) -> Housekeeper:
        directories = self.directories
        assert engine.changes is not None
        return Housekeeper(
            engine=engine,
            journal=engine.journal,
            changes=engine.changes,
            room=self.room.room,
            root=directories.workspaces,
            rules=self._clean_rules,
            state_file=directories.state / "cleanup.json",
            areas={
                "journal": directories.journal_file,
                "hub": directories.hub_file,
                "logs": directories.log_dir,
                "jobs": directories.jobs,
                "residents": directories.residents,
                "skills": directories.workspaces / CACHE_NAME,
                "homes": directories.state / HOMES,
            },
            repositories=engine.repositories.repositories if engine.repositories is not None else None,
            forget_skills=functools.partial(forget_unused, directories.workspaces / CACHE_NAME),
        )

    def _clean_rules(self) -> CleanRules:
        retention, workdirs = self.settings.retention, self.settings.workdirs
        return CleanRules(
            retention_days=retention.days,
            run_days=retention.run_days,
            artifacts=workdirs.artifacts,
            budget_bytes=workdirs.budget,
        )

    def _base_environment(self) -> dict[str, str]:
        chosen = self.settings.environment
        env = {name: value for name, value in self.environ.items() if not _matches(name, chosen.drop)}
        return {**env, **chosen.set}

    def _join(
        self, connection: Connection, identity: identity_file.Identity
    ) -> tuple[Registration, Heartbeat]:
        """Who registers and beats at a connection."""
        engine = self.engine
        assert engine is not None
        registration = Registration(
            connection,
            Identity(
                daemon_id=identity.daemon_id,
                device_name=self.device_name,
                cli_version=REPORTED_CLI_VERSION,
                launched_by="desktop",
                legacy_daemon_ids=identity.legacy_ids,
            ),
            [agent for agent in self.facade.found if agent.usable],
            lives=lambda runtime_id: engine.has_live_run(connection.name, runtime_id),
            living=lambda: engine.living_runtimes(connection.name),
            changed=self.servers.runtimes_changed,
            profiles=self._profiles,
            book=self.book,
            lost=engine.lost,
        )
        connection.add_listener(self.watch)
        act = RuntimeActions(
            registration.runtime,
            self.environ,
            self._skill_places,
            self.list_models,
            disk=self._action_disk,
            update=self.upkeep.asked if connection.name == HUB_NAME else None,
        )
        heartbeat = Heartbeat(
            connection, gone=registration.runtime_gone, act=act, ticked=lambda: self.watch.look()
        )
        return registration, heartbeat

    async def _until_settled(self) -> None:
        """Wait until there is something to claim for, or the wish to stop."""
        async with asyncio.TaskGroup() as group:
            waits = [
                group.create_task(self.servers.settled()),
                group.create_task(self._stop.wait()),
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _wind_down(self) -> None:
        facade, engine = self.facade, self.engine
        facade.set_phase("stopping")
        await self.changeover.stopping(by_somebody=not self._for_update and not self.anew)
        left = 0
        if engine is not None:
            left = await engine.stop(
                end_runs=self._end_runs,
                deadline_s=END_RUNS_S,
                deliver_s=UPDATE_DELIVER_S if self._for_update else self.settings.daemon.stop_timeout,
                settle_s=0.0 if self._for_update else SETTLE_S,
            )
        if self._end_runs and self.residents is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_RUNS_S):
                    await self.residents.suspend()
        if not self._restart:
            await self.servers.deregister()
        log.info("stopped; %d run%s without the daemon", left, " goes on" if left == 1 else "s go on")

    # --- events ----------------------------------------------------------------------------------

    def _hub_changed(self, change: HubChange) -> None:
        self.facade.hub_changed(change)

    async def _reload_quietly(self) -> None:
        try:
            await self.reload()
        except SettingsError as error:
            log.error("the settings are not valid: %s", error)

    # --- agents ----------------------------------------------------------------------------------

    async def _discover(self, *, refresh: bool) -> list[FoundAgent]:
        self._take_providers(await asyncio.to_thread(providers.load, self.directories.providers))
        overrides = {
            name: os.path.expanduser(agent.path) for name, agent in self.settings.agents.items() if agent.path
        }
        return await discover(
            self.providers,
            environ=self.environ,
            cache_path=self.directories.agents_cache_file,
            overrides=overrides,
            refresh=refresh,
            limit_s=self.settings.discovery.timeout,
            login_shell=self.settings.discovery.login_shell,
            run_environ=self._base_environment(),
        )

    def _take_providers(self, known: Registry) -> None:
        """Use these kinds of agent from now on; what is wrong with the user's files is said."""
        new = {mistake.file: mistake for mistake in known.mistakes}
        for mistake in self.providers.mistakes:
            if mistake.file not in new:
                self.facade.clear_condition("provider_invalid", mistake.file)
        for file, mistake in new.items():
            self.facade.set_condition(
                "provider_invalid", file, file=file, line=mistake.line, what=mistake.what, hint=mistake.hint
            )
            if mistake not in self.providers.mistakes or self.facade.phase == "starting":
                log.warning("%s is no provider: %s", mistake.place, mistake.what)
        changed = known != self.providers
        self.providers = known
        self.facade.provider_mistakes = known.mistakes
        if changed:
            self.slots.resize(self.settings.daemon.slots, _limits(self.settings, known))

    def _take_agents(self, found: list[FoundAgent]) -> None:
        enabled = [
            agent if self.settings.agent(agent.provider).enabled else _switched_off(agent) for agent in found
        ]
        self.facade.found = enabled
        usable = [agent for agent in enabled if agent.usable]
        engine = self.engine
        if engine is not None:
            launchers = [self._launcher(agent) for agent in usable]
            engine.launchers = {each.provider: each for each in launchers if each is not None}
        self.servers.set_agents(usable)

    def _launcher(self, agent: FoundAgent) -> Launcher | None:
        """How an agent that was found is started; None if its provider is gone or cannot be driven."""
        provider, known = self.providers.get(agent.provider), families()
        if provider is None or provider.family not in known:
            return None
        chosen = self.settings.agent(agent.provider)
        return Launcher(
            provider=agent.provider,
            executable=agent.path,
            family=known[provider.family],
            drive=provider.drive,
            ask_family=known.get(provider.ask_family),
            ask_drive=provider.ask_drive or provider.drive,
            layout=provider.layout(),
            search_path=agent.search_path,
            choose=functools.partial(self.models.choose, agent.provider),
            model=chosen.model,
            thinking=chosen.thinking,
            args=chosen.args,
        )

    def _profile_launcher(self, connection: str, runtime_id: str) -> Launcher | None:
        """How a custom profile's runtime is started: like its family, with a program and arguments of its
        own. Known from the book, since a task may go on before its server has been asked."""
        start = self.book.start_of(connection, runtime_id)
        if start is None:
            return None
        base = self._terminal_path(start.provider)
        plain = FoundAgent(
            provider=start.provider,
            name="",
            status="usable",
            path=start.path,
            search_path=(*base, os.path.dirname(start.path)),
        )
        launcher = self._launcher(plain)
        return launcher and dataclasses.replace(launcher, args=(*start.args, *launcher.args))

    def _terminal_path(self, provider: str = "") -> tuple[str, ...]:
        """Where the user's terminal looks beside the daemon's PATH: as for an agent, if that was found, or
        for the shell, which always is."""
        found = {agent.provider: agent.search_path for agent in self.facade.found if agent.path}
        return found.get(provider) or found.get("shell", ())

    def _agent_places(self) -> list[str]:
        own = [place for provider in self.providers for place in provider.places]
        return [*own, *COMMON_PLACES]

    def _skill_places(self, name: str) -> tuple[str, ...]:
        provider = self.providers.get(name)
        return provider.skills.user if provider is not None else ()

    def _provider_of(self, runtime_id: str) -> str:
        """The provider of a runtime at a server; empty for what is no such runtime."""
        for registration in self.facade.registrations.values():
            if (found := registration.runtimes.get(runtime_id)) is not None:
                return found.provider
        return ""

    async def list_models(self, runtime: RegisteredRuntime) -> ModelAnswer:
        """The models of a runtime's agent, for a server."""
        found = await self.models.of_runtime(runtime)
        if found is None:
            return ModelAnswer(supported=False)
        return ModelAnswer(
            models=wire_models(found),
            supported=found.source != "none",
            error=found.error if not found.models else "",
        )

    # --- housekeeping ----------------------------------------------------------------------------

    async def _housekeeping(self) -> None:
        """What is done a few times a day: remove what nobody needs any more, see ``tasks.housekeeping``."""
        assert self.housekeeper is not None
        try:
            await self.housekeeper.resume()
        except OSError as error:
            log.warning("what was thrown away before the start is still there: %s", error)
        delay_s = FIRST_HOUSEKEEPING_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = HOUSEKEEPING_S
            await self._tidy_quietly()

    async def _tidy_quietly(self) -> None:
        self._tidied_at = asyncio.get_running_loop().time()
        try:
            await self.tidy()
        except (JournalError, OSError) as error:
            log.warning("tidying up failed and is tried again later: %s", error)
        except Exception:  # the boundary of a round: whatever it is, the daemon goes on
            log.exception("tidying up failed and is tried again later")
        self.room.look_again()

    async def _open_spending(self, engine: Engine, stack: AsyncExitStack) -> None:
        """What was spent today holds claims from the first one on."""
        journal, desk = engine.journal, self.facade.spend_desk
        book = SpendBook(
            SpendStore(journal),
            carry=engine.patience.carry,
            keep_allowed=lambda day: engine.patience.carry(lambda: journal.set_meta(ALLOWED_META, day)),
            on_change=desk.on_change,
            on_booked=desk.on_booked,
        )
        stack.push_async_callback(_limited, book.close, "what was spent")
        await self._take_prices(book)
        book.set_limit(self.settings.spend.daily_limit, self.settings.spend.warn_at / 100)
        await book.open(await journal.get_meta(ALLOWED_META))
        engine.spending = desk.book = book

    async def _take_prices(self, book: SpendBook) -> None:
        """The shipped prices with the user's over them; with a mistake in the user's, those before."""
        wrong: PricesError | None = None
        for own in (self.directories.config / "prices.toml", None):
            try:
                book.set_prices(await asyncio.to_thread(Prices.load, own))
                break
            except PricesError as error:
                log.error("prices are not used: %s", error)
                wrong = wrong or error
                if book.prices.models:
                    break
        if wrong is None:
            self.facade.clear_condition("prices_invalid")
        else:
            self.facade.set_condition("prices_invalid", path=str(wrong.path), what=wrong.what)

    def _room_changed(self, space: Space | None) -> None:
        """A disk is nearly full, or not any more: say so, and see what can go."""
        if space is None:
            self.facade.clear_condition("disk_low")
            return
        self.facade.set_condition("disk_low", path=space.path, free=space.free_bytes, floor=space.floor_bytes)
        if asyncio.get_running_loop().time() - self._tidied_at >= LOW_DISK_ROUND_S:
            self.nursery.start(self._tidy_quietly(), "making room")

    async def tidy(self) -> None:
        """One round of it."""
        assert self.housekeeper is not None
        await self.housekeeper.clean()
        if self.jobs is not None:
            await self.jobs.prune()
        if self.engine is not None and self.engine.follow_up is not None:
            await self.engine.follow_up.prune()
        await self.housekeeper.collect()


class _DoneError(Exception):
    """Ends the task group of the daemon."""


# --- small ---------------------------------------------------------------------------------------------


def _limits(settings: Settings, known: Registry) -> dict[str, int]:
    return {
        provider.id: settings.run_limit(provider.id)
        for provider in known
        if settings.run_limit(provider.id) < settings.daemon.slots
    }


def _watch_limits(settings: Settings) -> WatchLimits:
    chosen = settings.watchdog
    return WatchLimits(
        idle_s=chosen.idle, tool_s=chosen.tool, request_s=chosen.request, run_s=chosen.run_time_limit
    )


def _switched_off(agent: FoundAgent) -> FoundAgent:
    import msgspec

    return msgspec.structs.replace(agent, status="unsupported", reason="disabled", params={})


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def _changed(old: Settings, new: Settings) -> list[str]:
    import msgspec

    before, after = (dict(_leaves(msgspec.to_builtins(each))) for each in (old, new))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path.count(".") < (2 if path.startswith("agents") else 1):
            found += _leaves(value, f"{path}.")
        else:
            found.append((path, value))
    return found


def _is_live(name: str, live: set[str]) -> bool:
    parts = name.split(".")
    if parts[0] == "agents" and len(parts) == 3:
        parts[1] = "<provider>"
    return ".".join(parts) in live


def _load_settings(
    directories: Directories, environ: Mapping[str, str], unknown: settings_file.Unknown | None = None
) -> Settings:
    named = _provider_names(providers.load(directories.providers))
    return settings_file.load(directories.config_file, environ, named, unknown)


def _provider_names(known: Registry) -> list[str]:
    # One whose file has a mistake at present is no reason to refuse the settings.
    return [*known.ids, *(Path(mistake.file).stem for mistake in known.mistakes)]


def _any_run_alive(runs: Path) -> bool:
    try:
        names = [entry.path for entry in os.scandir(runs) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return False
    return any(_may_be_alive(Path(name)) for name in names)


def _may_be_alive(run_dir: Path) -> bool:
    try:
        return read_state(run_dir).phase is RunPhase.ALIVE
    except OSError as error:
        log.error("run %s cannot be read: %s", run_dir.name, error)
        return True  # it is not known: one run must not keep the daemon from starting


def _user_lock_directory() -> Path:
    """Where directory locks are: one place of the user for all profiles and homes of Ostler."""
    import platformdirs

    return platformdirs.user_state_path("ostler", appauthor=False) / "directory-locks"


def _write_info(directories: Directories, port: int) -> None:
    locking.write_info(
        directories.info_file,
        locking.DaemonInfo(
            pid=os.getpid(),
            started_at=clock.now_text(),
            version=__version__,
            port=port,
            socket=str(directories.control_socket),
            process_started=locking.process_started(os.getpid()),
        ),
    )


async def _limited(close: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await close()
    except TimeoutError:
        log.error("%s did not close in time; the end goes on without it", what)
    except Exception:  # the end reaches its final state whatever fails
        log.exception("closing %s failed", what)


def set_up_logging(directories: Directories, settings: Settings, *, foreground: bool) -> None:
    """The rotated log file (0600), and standard error for whoever watches."""
    from logging.handlers import RotatingFileHandler

    class PrivateFileHandler(RotatingFileHandler):
        def _open(self) -> Any:
            descriptor = os.open(
                self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600
            )
            return open(descriptor, self.mode, encoding="utf-8", errors="backslashreplace")

    make_private(directories.log_dir)
    handlers: list[logging.Handler] = [
        PrivateFileHandler(
            directories.log_file, maxBytes=settings.log.size, backupCount=settings.log.files, encoding="utf-8"
        )
    ]
    if foreground:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=settings.log.level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
    logging.raiseExceptions = False  # a full disk must not fill standard error, too
    logging.captureWarnings(True)


def main() -> None:
    """The ``ostlerd`` program."""
    sys.exit(run(sys.argv[1:], dict(os.environ)))


def run(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run a daemon to its end; gives the exit code. What goes wrong is said in one line."""
    import argparse

    _spare_memory()
    began = time.monotonic()
    given = take_given(os.environ)
    settle_home(os.environ)
    own = {name: value for name, value in environ.items() if name not in GIVEN_VARIABLES}
    settle_home(own)
    environ = own
    parser = argparse.ArgumentParser(prog="ostlerd", description="Ostler's daemon.")
    parser.add_argument("--profile", help="a second, separate daemon with its own settings and tasks")
    parser.add_argument("--foreground", action="store_true", help="log to standard error as well")
    parser.add_argument("--version", action="version", version=f"ostlerd {__version__}")
    options = parser.parse_args(arguments)
    try:
        directories = resolve(environ, options.profile)
        directories.ensure()
        make_private(directories.runs)
        lock = locking.DaemonLock.acquire(directories.lock_file)
    except SettingsError as error:
        return _say(str(error), EXIT_USAGE)
    except locking.LockHeldError as error:
        return _say(f"{error}. `ostler daemon status` shows what it does.", EXIT_CONFLICT)
    except OSError as error:
        return _say(_said_of(error), EXIT_FAILED)
    with lock:
        try:
            # After an update was taken back the file may have settings of the newer version; without a
            # daemon nobody could be told.
            not_ours: list[SettingsError] = []

            def left_out(mistake: SettingsError) -> bool:
                not_ours.append(mistake)
                return True

            settings = _load_settings(directories, environ, left_out)
            set_up_logging(directories, settings, foreground=options.foreground)
        except SettingsError as error:
            broken_at_once(directories, given, str(error))
            return _say(str(error), EXIT_USAGE)
        except OSError as error:
            what = f"the log file {directories.log_file} cannot be written: {error.strerror or error}"
            return _say(f"{what}. {CHECK_DISK}.", EXIT_FAILED)
        log.info(
            "Ostler %s starts (pid %d, Python %s, profile %s)",
            __version__, os.getpid(), platform.python_version(), directories.profile,
        )  # fmt: skip
        for mistake in not_ours:
            log.warning("left out: %s", mistake)
        first_use.prepare()
        daemon = Daemon(directories, settings, environ, given, not_ours)
        changeover = daemon.changeover
        try:
            asyncio.run(daemon.run())
        except StartError as error:
            log.error("%s", error)
            changeover.broken(str(error))
            return _say(str(error), error.exit_code)
        except BaseException as error:  # the boundary of the process: whatever it is, the log has it
            log.critical("the daemon ends because of an error", exc_info=error)
            changeover.broken(f"{type(error).__name__}: {error}")
            return _say(_said_of(error), EXIT_FAILED)
        if changeover.failed:
            return _say(f"this version does not work on this machine: {changeover.reason}.", EXIT_FAILED)
        if daemon.gives_way or (daemon.anew and time.monotonic() - began > ANEW_MIN_S):
            # The lock is not inherited: the new one takes it again. Damage that shows at once, every time,
            # is the disk's, and no restart mends that.
            if sys.platform == "win32":
                lock.release()  # there the next one is started beside us
            if changeover.execute(arguments):
                return 0
            logging.shutdown()
            os.execv(sys.executable, _own_command(arguments))
    return EXIT_FAILED if daemon.anew else 0


def _said_of(error: BaseException) -> str:
    """An error in a sentence for whoever started the daemon: of a file, which one and what to do."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, OSError):
        place = error.filename2 or error.filename  # of a rename the one that was to be replaced
        if isinstance(place, str | bytes):
            return f"{os.fsdecode(place)}: {error.strerror}. {CHECK_DISK}."
    return f"the daemon ends because of an error: {error!r}. The log has more."


def _own_command(arguments: list[str]) -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "daemon_core.app", *arguments]


def _spare_memory() -> None:
    """Keep the C library from giving every thread a heap of its own, which it never gives back: a fifth less
    memory after a large transcript, at the same speed. Linux with glibc; must come before any thread."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"ostlerd: {message}\n")
    return code


if __name__ == "__main__":
    main()
