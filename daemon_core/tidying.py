"""Room on the disk: what nobody needs any more goes, a few times a day, and when a disk is nearly full."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Final

from daemon_core.control.facade import Facade
from daemon_core.in_force import InForce
from daemon_core.journal import JournalError
from daemon_core.settings.directories import Directories
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.homes import HOMES
from daemon_core.tasks.housekeeping import Housekeeper
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.room import RoomGuard
from daemon_core.tasks.skills import CACHE_NAME, forget_unused
from daemon_core.workdirs.disk import Room, Space

log = logging.getLogger("ostler")

HOUSEKEEPING_S: Final = 6 * 3600.0
FIRST_HOUSEKEEPING_S: Final = 5 * 60.0
"""A machine that is on for some hours a day has its disk kept in order, too; not in the rush of a start."""
LOW_DISK_ROUND_S: Final = 10 * 60.0
"""A disk that stays low is not cleaned more often than this."""


class Tidying:
    """See the module.

    Args:
        owner: Has a round that is not of the usual ones.

    Attributes:
        room: Looks at the disks, and holds claims while one is nearly full.
    """

    def __init__(self, directories: Directories, in_force: InForce, facade: Facade, owner: Nursery) -> None:
        self._directories = directories
        self._in_force = in_force
        self._facade = facade
        self._owner = owner
        self.room = RoomGuard(
            Room((directories.data, directories.state), in_force.settings.workdirs.free_floor),
            self._room_changed,
        )
        self._engine: Engine | None = None
        self._housekeeper: Housekeeper | None = None
        self._tidied_at = float("-inf")

    def open(self, engine: Engine) -> Housekeeper:
        """From now on it is known what is needed."""
        directories = self._directories
        assert engine.changes is not None
        self._engine = engine
        self._housekeeper = Housekeeper(
            engine=engine,
            journal=engine.journal,
            changes=engine.changes,
            room=self.room.room,
            root=directories.workspaces,
            rules=self._in_force.clean_rules,
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
        return self._housekeeper

    async def run(self) -> None:
        """For ever; see ``tasks.housekeeping`` for what is done."""
        assert self._housekeeper is not None
        try:
            await self._housekeeper.resume()
        except OSError as error:
            log.warning("what was thrown away before the start is still there: %s", error)
        delay_s = FIRST_HOUSEKEEPING_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = HOUSEKEEPING_S
            await self._tidy_quietly()

    def settings_changed(self) -> None:
        """What counts as nearly full may be something else."""
        self.room.room.floor_bytes = self._in_force.settings.workdirs.free_floor
        self.room.look_again()

    def _room_changed(self, space: Space | None) -> None:
        """A disk is nearly full, or not any more: say so, and see what can go."""
        if space is None:
            self._facade.clear_condition("disk_low")
            return
        self._facade.set_condition(
            "disk_low", path=space.path, free=space.free_bytes, floor=space.floor_bytes
        )
        if asyncio.get_running_loop().time() - self._tidied_at >= LOW_DISK_ROUND_S:
            self._owner.start(self._tidy_quietly(), "making room")

    async def _tidy_quietly(self) -> None:
        self._tidied_at = asyncio.get_running_loop().time()
        try:
            await self._tidy()
        except (JournalError, OSError) as error:
            log.warning("tidying up failed and is tried again later: %s", error)
        except Exception:  # the boundary of a round: whatever it is, the daemon goes on
            log.exception("tidying up failed and is tried again later")
        self.room.look_again()

    async def _tidy(self) -> None:
        """One round."""
        engine = self._engine
        assert engine is not None
        assert self._housekeeper is not None
        await self._housekeeper.clean()
        if engine.jobs is not None:
            await engine.jobs.prune()
        if engine.follow_up is not None:
            await engine.follow_up.prune()
        await self._housekeeper.collect()
