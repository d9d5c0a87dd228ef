"""Notices that agent CLIs were installed, upgraded or removed, without a restart and at next to no cost.

A look is a handful of ``stat`` calls: of every directory in which a program could appear (that changes when
something is installed, removed, or linked anew, which is how package managers and the agents' own updaters
work), and of every program that was found, through its links (that changes when it is replaced in place).
Only when the picture differs is anything searched, and only programs that changed are asked for their
version. There is no timer: a look is asked for where the daemon is awake anyway (a beat of a heartbeat, a
link that came up, the end of a sleep, somebody who asks for the list), and is taken at most every
:data:`LOOK_EVERY_S`.

Considered and not taken: inotify and its kin. They need a library or a foreign function interface a platform,
cannot watch a directory that is not there yet, do not see through links to where version managers really put
programs, and on network drives say nothing. Half a millisecond a minute is less than their upkeep.

What a look cannot see (a wrapper whose path stays as it is, while what it starts changes) is seen by
``ostler runtimes --refresh``; a program that turns out to be gone when it is to be started makes for a look.
"""

from __future__ import annotations

import asyncio
import glob
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from daemon_core.connections.connection import Connection, ConnectionListener

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 15.0

Picture = frozenset[tuple[str, int, int, int]]
"""Path, inode, size and time of change of everything that was looked at and is there."""


def expanded(places: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Directories with ``~``, ``$NAME`` and ``*`` filled in, and what holds the ones with a ``*``: a new
    version of an interpreter brings a new directory."""
    found: list[str] = []
    for place in places:
        head, _, rest = place.partition("/")
        if head == "~":
            path = os.path.join(environ.get("HOME", ""), rest)
        elif head.startswith("$"):
            path = os.path.join(environ.get(head[1:], ""), rest)
        else:
            path = place
        if not os.path.isabs(path):
            continue
        if "*" in path:
            found.append(path.partition("*")[0].rstrip(os.sep))
            found += glob.glob(path)
        else:
            found.append(path)
    return found


def picture(directories: Iterable[str], programs: Iterable[str]) -> Picture:
    """How things are now. Touches the disk: in a thread."""
    seen = set()
    for path in (*directories, *programs):
        try:
            facts = os.stat(path)
        except (OSError, ValueError):
            continue
        # A directory's size says nothing that its time does not.
        size = 0 if os.path.isdir(path) else facts.st_size
        seen.add((path, facts.st_ino, size, facts.st_mtime_ns))
    return frozenset(seen)


class AgentWatch(ConnectionListener):
    """Looks when it is told to, and calls ``changed`` when something is different from the look before.

    Args:
        places: the directories to look at, as :func:`expanded` takes them; asked at each look.
        programs: the programs found so far; asked at each look.
        environ: of the daemon.
        changed: searches again; its failure is logged, and the next look finds the same difference.
    """

    def __init__(
        self,
        places: Callable[[], Iterable[str]],
        programs: Callable[[], Iterable[str]],
        environ: Mapping[str, str],
        changed: Callable[[], Awaitable[object]],
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._places = places
        self._programs = programs
        self._environ = dict(environ)
        self._changed = changed
        self._every_s = every_s
        self._wanted = asyncio.Event()
        self._last: Picture | None = None
        self._looked_at = float("-inf")
        self._urgent = False
        self.looks = 0
        """Looks that are over, searches included."""

    def look(self, *, now: bool = False, every_s: float | None = None) -> None:
        """The daemon is awake: look, unless that was just done (by default within ``LOOK_EVERY_S``).

        ``now``: something is known to have changed, so search in any case.
        """
        least_s = self._every_s if every_s is None else every_s
        if now or asyncio.get_running_loop().time() - self._looked_at >= least_s:
            self._urgent = self._urgent or now
            self._wanted.set()

    def wake_all(self, connection: Connection) -> None:
        """A link came up, or the machine woke up."""
        self.look()

    async def run(self) -> None:
        """Look whenever that is wanted, until cancelled. The first look only takes the picture."""
        while True:
            self._looked_at = asyncio.get_running_loop().time()
            seen = await asyncio.to_thread(self._look)
            urgent, self._urgent = self._urgent, False
            if (self._last is not None and seen != self._last) or urgent:
                log.info("programs of agents may have changed; looking for agents")
                try:
                    await self._changed()
                except Exception:  # the boundary of a search: the watch goes on
                    log.exception("looking for agents failed")
                else:
                    # Taken anew: what was found may be elsewhere by now.
                    seen = await asyncio.to_thread(self._look)
                    self._last = seen
            else:
                self._last = seen
            self.looks += 1
            await self._wanted.wait()
            self._wanted.clear()

    def _look(self) -> Picture:
        path = [each for each in self._environ.get("PATH", "").split(os.pathsep) if os.path.isabs(each)]
        directories = [*path, *expanded(self._places(), self._environ)]
        return picture(dict.fromkeys(directories), dict.fromkeys(self._programs()))
