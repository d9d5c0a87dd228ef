"""A process that was started elsewhere and is kept an eye on here: told apart by pid and start time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from daemon_core.jobs.residents import trees
from daemon_core.jobs.residents.places import Outside
from daemon_core.processes import tree
from daemon_core.processes.tree import Identity

LOOK_S = 2.0
"""Where the system cannot tell of the end of a process that is no child."""


async def until_gone(who: Identity) -> None:
    """Returns when exactly this process is gone."""
    if sys.platform != "linux":
        while await asyncio.to_thread(tree.is_alive, who):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_S)
        return
    try:
        handle = os.pidfd_open(who.pid)
    except OSError:
        return
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    try:
        if not tree.is_alive(who):
            return  # the number belongs to another one
        loop.add_reader(handle, _done, gone)
        try:
            await gone
        finally:
            loop.remove_reader(handle)
    finally:
        os.close(handle)


def _done(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


class Adopted:
    """As much of a run's interface as there can be: no output, no exit status."""

    def __init__(self, outside: Outside) -> None:
        self.who = Identity(outside.pid, outside.started)
        self._tree: set[Identity] = set()

    async def wait(self) -> None:
        await until_gone(self.who)

    async def end(self, grace_s: float, *, ended: Callable[[], bool]) -> None:
        """SIGTERM, after the grace SIGKILL, then what is left of its tree."""
        members = await asyncio.to_thread(trees.members, self.who, itself=True)
        self._tree |= members
        tree.send(self.who, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await until_gone(self.who)
        except TimeoutError:
            pass
        if not ended():
            self._tree |= await asyncio.to_thread(trees.members, self.who, itself=True)
        for who in self._tree:
            tree.send(who, getattr(signal, "SIGKILL", signal.SIGTERM))
