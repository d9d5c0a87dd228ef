"""The updater with everything around it: built from the daemon's parts, and what it is asked for by servers.

It joins what ``updates`` decides with settings, tasks, the control API and the connections; the switch itself
is ``changeover``'s.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from daemon_core.changeover import Changeover
from daemon_core.connections.connection import Connection
from daemon_core.control.facade import Facade
from daemon_core.control.update_desk import UpdateDesk
from daemon_core.hub import Hub
from daemon_core.runtimes.actions import PendingAction, report_result
from daemon_core.servers import HUB_NAME
from daemon_core.settings import installed
from daemon_core.settings.directories import Directories
from daemon_core.settings.sections import Settings
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.owned import Nursery
from daemon_core.updates import places
from daemon_core.updates.fetching import Fetcher
from daemon_core.updates.history import ServerWish
from daemon_core.updates.policy import Rules
from daemon_core.updates.trust import Trust
from daemon_core.updates.updater import Updater

_MACHINES: Final = {"AMD64": "x86_64", "aarch64": "arm64"}


def platform_name() -> str:
    """This machine as payloads name it, where the payload does not say it itself."""
    import platform

    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    machine = platform.machine()
    return f"{system}-{_MACHINES.get(machine, machine)}"


class Upkeep:
    """One for each daemon process.

    Args:
        version: What this process runs.
        settings: The present ones.
        connections: By name, as they are now.
    """

    def __init__(
        self,
        directories: Directories,
        environ: Mapping[str, str],
        facade: Facade,
        changeover: Changeover,
        nursery: Nursery,
        *,
        version: str,
        settings: Callable[[], Settings],
        connections: Mapping[str, Connection],
    ) -> None:
        self._directories = directories
        self._environ = dict(environ)
        self._facade = facade
        self._changeover = changeover
        self._settings = settings
        self._connections = connections
        self._version = version
        self.updater: Updater | None = None
        self.desk = UpdateDesk(facade, nursery, self._report)

    async def open(self, daemon_id: str, engine: Engine, hub: Hub | None) -> Updater:
        """Take up what an earlier life left behind. Claims may be possible already or not; nothing is asked
        of any server yet."""
        agent = f"ostler/{self._version}"
        platform = str(installed.payload().get("platform") or platform_name())
        store, installation = self._changeover.store, self._changeover.installation
        updater = Updater(
            store=store,
            switch=self._changeover.switch,
            trust=Trust(self._environ, agent=agent),
            fetcher=Fetcher(store, self._directories.app / "downloads", platform, agent=agent),
            listener=self.desk,
            running=self._version,
            platform=platform,
            bucket=daemon_id,
            find_place=lambda: places.find(self._environ, self._settings().updates.url),
            find_seed=lambda: installation.seed_dir() if installation is not None else "",
            rules=self._rules,
            # Claims that are on their way are the switch's matter: it waits for them in any case.
            busy=lambda: any(not life.waiting for life in engine.lives.values()),
            quiet=engine.quiet,
            profile=self._directories.profile,
        )
        self.updater = updater
        self._changeover.on_decided = lambda state: self.look()
        self._changeover.on_leaving = updater.leaving
        await updater.open(lambda wishes: self._known_again(hub, wishes))
        self.desk.open(updater)
        self._facade.update_desk = self.desk
        return updater

    def close(self) -> None:
        """Let another daemon look after the updates."""
        if self.updater is not None:
            self.updater.close()

    def network_changed(self) -> None:
        if self.updater is not None:
            self.updater.network_changed()

    def look(self) -> None:
        """The settings have changed, or a trial is decided."""
        if self.updater is not None:
            self.updater.look()

    async def asked(self, action: PendingAction) -> dict[str, Any] | None:
        """The hub was asked to have this machine updated. See ``runtimes.actions.ActionHandler``."""
        return await self.desk.server_asks(HUB_NAME, action.runtime_id, action.request_id, action.argument)

    def _known_again(self, hub: Hub | None, wishes: Iterable[ServerWish]) -> None:
        """The hub forgets what it was asked when it ends; an update ends it, and is answered afterwards."""
        if hub is None:
            return
        for wish in wishes:
            hub.requests.restore("update", wish.runtime_id, wish.request_id, target_version=wish.version)

    def _rules(self) -> Rules:
        chosen = self._settings().updates
        return Rules(
            check=chosen.check,
            automatic=chosen.automatic,
            interval_s=chosen.interval,
            quiet_limit_s=chosen.quiet_limit,
            url=chosen.url,
            size_limit_bytes=chosen.size_limit,
        )

    async def _report(self, wish: ServerWish, told: dict[str, Any]) -> bool:
        connection = self._connections.get(wish.connection)
        if connection is None:
            return True  # signed out meanwhile
        action = PendingAction("update", wish.runtime_id, wish.request_id, wish.version)
        return await report_result(connection, action, told)
