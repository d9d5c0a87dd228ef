"""Where a task is, as servers show it: step 1 of 2 once it has begun, step 2 just before its last word.

Of no consequence if it is lost, so it is told once, a server that does not answer holds nothing up, and
errors are ignored. The embedded hub knows it from the state of the task and is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from daemon_core.protocol.errors import ServerError

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

STEPS: Final = 2
FIRST_S: Final = 5.0
"""How long the first may take: it goes beside everything else."""
LAST_S: Final = 1.0
"""The second comes before the result, which waits for it this long at most."""


class Steps:
    """The steps of one task, in this life of the daemon."""

    def __init__(self, life: TaskLife) -> None:
        self._life = life
        self._begun = False

    def begun(self) -> None:
        """The server has taken the start. Returns at once."""
        life = self._life
        if life.connection.timing.loopback:
            return
        self._begun = True
        text = f"{life.record.provider} works on it"
        life.engine.beside_all(self._tell(text, 1, FIRST_S), f"step of task {life.record.task_id}")

    async def ended(self) -> None:
        """The result goes to the server next."""
        if self._begun:
            await self._tell("The result is there", STEPS, LAST_S)

    async def _tell(self, text: str, step: int, limit_s: float) -> None:
        life = self._life
        with contextlib.suppress(ServerError, TimeoutError):
            async with asyncio.timeout(limit_s):
                await life.connection.client.progress(life.record.task_id, text, step, STEPS)
