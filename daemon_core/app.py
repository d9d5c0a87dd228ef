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
import datetime as dt
import gc
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final

from daemon_core import __version__
from daemon_core.agents.families import families
from daemon_core.agents_here import AgentsHere
from daemon_core.changeover import GIVEN_VARIABLES, Changeover, Given, broken_at_once, take_given
from daemon_core.closing import limited
from daemon_core.connections.connection import Connection
from daemon_core.control.checkout import checkout_route
from daemon_core.control.delegation_routes import task_delegation_routes
from daemon_core.control.delegation_tools import DelegationTools
from daemon_core.control.facade import Facade
from daemon_core.control.job_routes import task_job_routes
from daemon_core.control.job_tools import JobTools
from daemon_core.control.loopback import LoopbackServer, build_app, make_token
from daemon_core.control.mcp import ToolSource, mcp_routes
from daemon_core.control.mcp_tools import CheckoutTool, VerbTools
from daemon_core.control.settings_desk import SettingsDesk, condition_params
from daemon_core.control.views import ReloadAnswer
from daemon_core.costs import Costs
from daemon_core.hub import Hub
from daemon_core.hub import routes as hub_routes
from daemon_core.in_force import InForce, load_settings, provider_names
from daemon_core.jobs.keeper import PERSON_MARK
from daemon_core.journal import Journal
from daemon_core.opening import (
    CHECK_DISK,
    EXIT_CONFLICT,
    EXIT_FAILED,
    StartError,
    listen,
    open_control,
    open_stores,
    write_info,
)
from daemon_core.own_process import own_command, said_of, say, set_up_logging, spare_memory
from daemon_core.protocol import first_use
from daemon_core.runtimes import providers
from daemon_core.runtimes.actions import DISK_AT_ONCE, RuntimeActions
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.heartbeat import Heartbeat
from daemon_core.runtimes.registration import Identity, Registration
from daemon_core.servers import HUB_NAME, Servers
from daemon_core.settings import crashes
from daemon_core.settings import identity as identity_file
from daemon_core.settings import lock as locking
from daemon_core.settings.directories import Directories, make_private, resolve, settle_home
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.sections import Settings
from daemon_core.side_work import SideWork
from daemon_core.tasks import accounts
from daemon_core.tasks.accounts import AccountLimits
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.engine import SETTLE_S, Engine
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import Nursery, keep_going
from daemon_core.tasks.repositories import TaskRepositories
from daemon_core.tasks.skills import SkillCache
from daemon_core.tasks.slots import Slots
from daemon_core.tidying import Tidying
from daemon_core.updates.errors import UpdateError
from daemon_core.upkeep import Upkeep
from daemon_core.workdirs import DirectoryLocks, TaskDirectories
from daemon_core.workdirs.changes import ChangeStore
from daemon_core.workdirs.environments import Environments
from daemon_core.workdirs.repositories import Repositories

log = logging.getLogger("ostler")

EXIT_USAGE: Final = 2
END_RUNS_S = 30.0
"""How long `stop --runs` waits for runs to end: each is asked, then told, then killed, well within this."""
UPDATE_DELIVER_S = 0.5
"""How long reports on their way are waited for when another version follows at once: it goes on with them."""
NOT_OURS_TOLD = 3
"""How many unknown settings are told in full; all of them are on the page of the settings, and in the log."""
ANEW_MIN_S = 10.0
"""A daemon that lived shorter than this is not followed by another one of its own accord."""
REPORTED_CLI_VERSION = "0.4.23"
"""What servers are told as ``cli_version``: their own gates are on the numbers of their own daemon, and this
is the newest of them whose features are there. From 0.4.24 on people may ask for work trees of a local
directory, which are not made here."""


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
        self.environ = dict(environ)
        self.in_force = InForce(directories, self.environ, settings, not_ours)
        known = providers.load(directories.providers)
        self.barrier = Barrier()
        self.slots = Slots(settings.daemon.slots, self.in_force.run_limits(known), settings.limits.models)
        self.device_name = settings.daemon.name or socket.gethostname()
        self.facade = Facade(
            version=__version__,
            profile=directories.profile,
            device_name=self.device_name,
            started_at=dt.datetime.now(dt.UTC),
            owns_mark=lambda mark: not mark.startswith(PERSON_MARK),
        )
        self._tell_not_ours(not_ours)
        self.nursery = Nursery("daemon")
        self.engine: Engine | None = None
        self.hub: Hub | None = None
        self.servers = Servers(directories, self.environ, self.facade, version=REPORTED_CLI_VERSION)
        self.agents = AgentsHere(
            directories,
            self.environ,
            known,
            in_force=self.in_force,
            facade=self.facade,
            slots=self.slots,
            servers=self.servers,
        )
        self.settings_desk = self.facade.settings_desk = SettingsDesk(
            directories.config_file,
            self.environ,
            self.facade.changes,
            in_force=lambda: self.in_force.settings,
            reload=self.reload,
            providers=lambda: provider_names(self.agents.providers),
            present=lambda: [found.provider for found in self.facade.found if found.path],
            not_ours=self.in_force.is_left_out,
        )
        self.tidying = Tidying(directories, self.in_force, self.facade, self.nursery)
        self.costs = Costs(directories.config / "prices.toml", self.in_force, self.facade)
        self.side_work = SideWork(
            directories,
            self.environ,
            in_force=self.in_force,
            facade=self.facade,
            agents=self.agents,
            barrier=self.barrier,
            resident_locks=_user_lock_directory().with_name("resident-locks"),
        )
        self._action_disk = asyncio.Semaphore(DISK_AT_ONCE)
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
            settings=lambda: self.in_force.settings,
            connections=self.servers.connections,
        )
        self.servers.on_network = self.upkeep.network_changed
        self._for_update = False
        """It ends for the sake of an update: the switch has waited for what is worth waiting for."""

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
        return await self.agents.discover(refresh)

    def _check_ready(self) -> None:
        """A settings file that was broken since this daemon began would keep every next one from starting."""
        try:
            self.in_force.check()
        except SettingsError as error:
            raise UpdateError("settings", what=str(error)) from error

    async def reload(self) -> ReloadAnswer:
        """Read the settings again; what is damaged leaves the old ones in force."""
        try:
            reread = await self.in_force.reread()
        except SettingsError as error:
            self.facade.set_condition("settings_invalid", **condition_params([error]))
            self.settings_desk.taken_over(error)
            raise
        settings, engine = self.in_force.settings, self.engine
        self.agents.resize_slots()
        logging.getLogger().setLevel(settings.log.level.upper())
        if engine is not None:
            engine.watch_by(self.in_force.watch_limits())
            engine.accept_claims(settings.daemon.claim)
            engine.base_environment = self.in_force.base_environment()
        await self.costs.settings_changed()
        self.tidying.settings_changed()
        if self.hub is not None:
            self.hub.retention = dt.timedelta(days=settings.retention.days)
        self._tell_not_ours(reread.left_out)
        if reread.concerns("agents", "discovery", "environment") or await self.agents.files_changed():
            self.nursery.start(self.discover(refresh=False), "discovery after a change of settings")
        self.settings_desk.taken_over()
        self.upkeep.look()
        return ReloadAnswer(applied=reread.applied, needs_restart=reread.needs_restart)

    def _tell_not_ours(self, left_out: Sequence[SettingsError]) -> None:
        """The first ones stand for all: the page of the settings has the whole list."""
        if left_out:
            self.facade.set_condition("settings_invalid", **condition_params(left_out[:NOT_OURS_TOLD]))
        else:
            self.facade.clear_condition("settings_invalid")

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, run until asked to stop, stop in order. Raises ``StartError``."""
        facade, directories = self.facade, self.directories
        facade.host = self
        facade.models = self.agents.models
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, lambda: self.request_stop(end_runs=False))
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(
                signal.SIGHUP, lambda: self.nursery.start(self._reload_quietly(), "reload")
            )
        async with AsyncExitStack() as stack:
            control = await open_control(facade, directories)
            stack.push_async_callback(limited, control.close, "the control API")
            stack.push_async_callback(limited, facade.close, "the control API's own tasks")
            stack.push_async_callback(limited, self.nursery.close, "background work")
            identity = await asyncio.to_thread(
                identity_file.load_or_create, directories.id_file, directories.id_copy
            )
            facade.status_desk.daemon_id = identity.daemon_id
            discovery = self.nursery.start(self.agents.look(refresh=False), "discovery")
            journal, hub = await self._open_stores(stack, identity.daemon_id)
            listener = await listen(directories, self.in_force.settings.daemon.port, facade)
            port = facade.status_desk.port = int(listener.getsockname()[1])
            token = await asyncio.to_thread(make_token, directories.token_file)
            served = hub_routes(hub) if hub is not None else ()
            sources: list[ToolSource] = [
                CheckoutTool(lambda: self.engine),
                VerbTools(),
                JobTools(facade.job_desk),
                DelegationTools(facade.delegation_desk),
            ]
            tools = mcp_routes(self._taken_up, sources)
            checkout = checkout_route(self._taken_up, token)
            jobs = task_job_routes(self._taken_up, facade.job_desk)
            handing_on = task_delegation_routes(self._taken_up, facade.delegation_desk)
            app = build_app(facade, token, routes=[checkout, *tools, *jobs, *handing_on, *served])
            loopback = LoopbackServer(app, listener)
            await loopback.start()
            stack.push_async_callback(limited, loopback.close, "the loopback server")
            if hub is not None:
                self.servers.add_hub(f"http://127.0.0.1:{port}", lambda: hub.credential)
            try:
                await self.servers.load(sorted(await journal.open_connections()))
            except OSError as error:
                raise StartError(f"the list of servers cannot be read: {error}") from error
            write_info(directories, __version__, port)
            stack.callback(lambda: directories.info_file.unlink(missing_ok=True))

            try:
                async with asyncio.TaskGroup() as group:
                    await self._go(group, stack, journal, hub, identity, discovery, port)
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
        self.engine = facade.engine = self.agents.engine = self.changeover.engine = engine
        await self.side_work.open_jobs(engine, stack)
        facade.runtime_desk.book = self.agents.book
        facade.runtime_desk.discover = lambda: self.agents.discover(refresh=True)
        facade.runtime_desk.glance = self.agents.glance
        facade.housekeeper = self.tidying.open(engine)
        engine.accept_claims(self.in_force.settings.daemon.claim)
        engine.accounts = AccountLimits(
            lambda text: engine.patience.carry(lambda: journal.set_meta(accounts.META_NAME, text)),
            facade.news.account_changed,
        )
        engine.accounts.restore(await journal.get_meta(accounts.META_NAME))
        stack.callback(engine.accounts.close)
        await self.costs.open(engine, stack)
        await facade.pause_desk.restore()
        stack.push_async_callback(limited, self.side_work.close_delegations, "what was handed on")
        stack.push_async_callback(limited, engine.detach, "the tasks")
        stack.push_async_callback(limited, servers.close, "the connections")
        await servers.open()
        found = await discovery
        self.agents.take(found)
        self.side_work.open_follow_up(engine)
        await engine.recover()
        facade.job_desk.engine, facade.job_desk.keeper = engine, engine.jobs
        if hub is not None:
            known = engine.known_tasks(HUB_NAME)
            await hub.take_stock(known)
            await self.side_work.end_jobs_of_deleted(hub)
            hub.start_timers(known)
            group.create_task(hub.run(), name="hub")
        await self.side_work.begin(engine, hub, stack)
        self.nursery.start(self.changeover.prove(engine, journal), "trial")
        updater = await self.upkeep.open(identity.daemon_id, engine, hub)
        stack.callback(self.upkeep.close)
        group.create_task(keep_going(updater.run, "the updater"), name="updater")
        servers.begin(engine, lambda connection: self._join(connection, identity))
        facade.servers = servers
        group.create_task(self.tidying.run(), name="housekeeping")
        group.create_task(keep_going(self.agents.watch.run, "the watch of agents"), name="watch of agents")
        await self._until_settled()
        gc.collect()
        gc.freeze()  # what is there now stays: later collections need not look at it
        facade.set_phase("running")
        log.info("running: %s", ", ".join(agent.provider for agent in found if agent.usable) or "no agents")

    def _taken_up(self) -> Engine | None:
        """The engine once it has its tasks again: before that nobody's token can be told from a false one."""
        return self.engine if self.facade.job_desk.keeper is not None else None

    async def _open_stores(self, stack: AsyncExitStack, daemon_id: str) -> tuple[Journal, Hub | None]:
        facade = self.facade
        journal, hub = await open_stores(
            self.directories, self.in_force.settings, daemon_id, facade.news.hub_changed
        )
        stack.push_async_callback(limited, journal.close, "the journal")
        facade.journal = journal
        journal.on_damage = self.begin_anew
        if journal.set_aside is not None:
            facade.set_condition("journal_damaged", path=str(journal.set_aside))
        if hub is not None:
            stack.push_async_callback(limited, hub.close, "the hub")
            self.hub = facade.hub = hub
            hub.on_expired = facade.clearing_up.conversation_gone
            if hub.damage is not None:
                facade.set_condition("hub_damaged", path=str(hub.damage.set_aside))
            if hub.begun and await journal.has_tasks_of(HUB_NAME):
                log.error("%s was lost, and the local tasks with it", self.directories.hub_file)
                facade.set_condition("hub_lost", path=str(self.directories.hub_file))
        return journal, hub

    def _build_engine(
        self, journal: Journal, connections: Mapping[str, Connection], daemon_id: str, port: int
    ) -> Engine:
        directories = self.directories
        return Engine(
            journal=journal,
            slots=self.slots,
            barrier=self.barrier,
            observer=self.facade.news,
            connections=connections,
            families=families(),
            launchers={},
            task_directories=TaskDirectories(directories.workspaces),
            directory_locks=DirectoryLocks(_user_lock_directory()),
            environments=Environments(_user_lock_directory().with_name("prepared")),
            changes=ChangeStore(directories.state / "changes"),
            room=self.tidying.room,
            skill_cache=SkillCache(directories.workspaces),
            watch_limits=self.in_force.watch_limits(),
            permissions=lambda provider: self.in_force.settings.permission_mode(provider),
            resume_after_limit=lambda provider: self.in_force.settings.agent(provider).resume_after_limit,
            offers_mcp=lambda provider: self.in_force.settings.offers_mcp(provider),
            runs_dir=directories.runs,
            socket_dir=directories.run,
            daemon_id=daemon_id,
            control_url=f"http://127.0.0.1:{port}",
            loopback_port=port,
            home=self.environ.get("OSTLER_HOME", ""),
            profile=directories.profile,
            base_environment=self.in_force.base_environment(),
            runtime_gone=self.servers.runtime_gone,
            profile_launcher=self.agents.profile_launcher,
            agent_missing=lambda _: self.agents.watch.look(now=True),
            repositories=TaskRepositories(
                Repositories(directories.repositories, self.in_force.base_environment(), reach=reach),
                self.facade.registrations,
                self.in_force.own_repositories,
            ),
        )

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
            self.agents.usable(),
            lives=lambda runtime_id: engine.has_live_run(connection.name, runtime_id),
            living=lambda: engine.living_runtimes(connection.name),
            changed=self.servers.runtimes_changed,
            profiles=self.agents.profiles,
            book=self.agents.book,
            lost=engine.lost,
        )
        connection.add_listener(self.agents.watch)
        act = RuntimeActions(
            registration.runtime,
            self.environ,
            self.agents.skill_places,
            self.agents.list_models,
            disk=self._action_disk,
            update=self.upkeep.asked if connection.name == HUB_NAME else None,
        )
        heartbeat = Heartbeat(
            connection, gone=registration.runtime_gone, act=act, ticked=lambda: self.agents.watch.look()
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
        facade, engine, settings = self.facade, self.engine, self.in_force.settings
        facade.set_phase("stopping")
        await self.changeover.stopping(by_somebody=not self._for_update and not self.anew)
        left = 0
        if engine is not None:
            left = await engine.stop(
                end_runs=self._end_runs,
                deadline_s=END_RUNS_S,
                deliver_s=UPDATE_DELIVER_S if self._for_update else settings.daemon.stop_timeout,
                settle_s=0.0 if self._for_update else SETTLE_S,
            )
        if self._end_runs and self.side_work.residents is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_RUNS_S):
                    await self.side_work.residents.suspend()
        if not self._restart:
            await self.servers.deregister()
        log.info("stopped; %d run%s without the daemon", left, " goes on" if left == 1 else "s go on")

    async def _reload_quietly(self) -> None:
        try:
            await self.reload()
        except SettingsError as error:
            log.error("the settings are not valid: %s", error)


class _DoneError(Exception):
    """Ends the task group of the daemon."""


def _user_lock_directory() -> Path:
    """Where directory locks are: one place of the user for all profiles and homes of Ostler."""
    import platformdirs

    return platformdirs.user_state_path("ostler", appauthor=False) / "directory-locks"


def main() -> None:
    """The ``ostlerd`` program."""
    sys.exit(run(sys.argv[1:], dict(os.environ)))


def run(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run a daemon to its end; gives the exit code. What goes wrong is said in one line."""
    import argparse

    spare_memory()
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
        return say(str(error), EXIT_USAGE)
    except locking.LockHeldError as error:
        return say(f"{error}. `ostler daemon status` shows what it does.", EXIT_CONFLICT)
    except OSError as error:
        return say(said_of(error), EXIT_FAILED)
    with lock, ExitStack() as crashes_kept:
        try:
            # After an update was taken back the file may have settings of the newer version; without a
            # daemon nobody could be told.
            not_ours: list[SettingsError] = []

            def left_out(mistake: SettingsError) -> bool:
                not_ours.append(mistake)
                return True

            settings = load_settings(directories, environ, left_out)
            set_up_logging(directories, settings, foreground=options.foreground)
            crashes_kept.enter_context(crashes.kept(directories.crash_file, "the daemon"))
        except SettingsError as error:
            broken_at_once(directories, given, str(error))
            # What was on trial is started again as the version before: whoever supervises is to see to it.
            return say(str(error), EXIT_FAILED if given.trial_id else EXIT_USAGE)
        except OSError as error:
            what = f"the log file {directories.log_file} cannot be written: {error.strerror or error}"
            return say(f"{what}. {CHECK_DISK}.", EXIT_FAILED)
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
            return say(str(error), EXIT_FAILED if changeover.failed else error.exit_code)
        except BaseException as error:  # the boundary of the process: whatever it is, the log has it
            log.critical("the daemon ends because of an error", exc_info=error)
            changeover.broken(f"{type(error).__name__}: {error}")
            return say(said_of(error), EXIT_FAILED)
        if changeover.failed:
            return say(f"this version does not work on this machine: {changeover.reason}.", EXIT_FAILED)
        if daemon.gives_way or (daemon.anew and time.monotonic() - began > ANEW_MIN_S):
            # The lock is not inherited: the new one takes it again. Damage that shows at once, every time,
            # is the disk's, and no restart mends that.
            if sys.platform == "win32":
                lock.release()  # there the next one is started beside us
            if changeover.execute(arguments):
                return 0
            logging.shutdown()
            os.execv(sys.executable, own_command(arguments))
    return EXIT_FAILED if daemon.anew else 0


if __name__ == "__main__":
    main()
