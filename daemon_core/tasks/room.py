"""Room on the disk as a condition for claiming: a run that begins on a full disk fails and loses work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from daemon_core.workdirs.disk import Room, Space

log = logging.getLogger(__name__)


class RoomGuard:
    """Holds claims while a disk is nearly full. Asked before each claim; looks again by itself only while
    somebody waits."""

    RETRY_S: Final = 15.0

    def __init__(
        self,
        room: Room,
        on_low: Callable[[Space | None], None],
    ) -> None:
        self.room = room
        self._on_low = on_low
        self._low = False
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    async def enough(self) -> bool:
        """Whether there is room for another run. Cheap: a look holds for some seconds."""
        if self.room.due:
            async with self._lock:
                if self.room.due:
                    await asyncio.to_thread(self.room.look)
        space = self.room.known_low()
        if (space is not None) != self._low:
            self._low = space is not None
            if space is not None:
                log.warning(
                    "no tasks are taken: %d bytes are free at %s, %d are to stay free",
                    space.free_bytes, space.path, space.floor_bytes,
                )  # fmt: skip
            else:
                log.info("there is room again: tasks are taken")
            self._on_low(space)
        return space is None

    async def wait(self) -> None:
        """Until there is room."""
        while not await self.enough():
            self._changed.clear()
            try:
                async with asyncio.timeout(self.RETRY_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def look_again(self) -> None:
        """Something may have changed (room was made, or a setting): whoever waits looks now."""
        self.room.forget()
        self._changed.set()
