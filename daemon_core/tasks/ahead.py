"""What can be begun for a run before its server has said that the task may start: nothing that an agent could
do anything with, only what takes time.

- the program of its shim, which waits (``processes.standby``);
- the files of its run (``tasks.spawning``), made anew if the task was handed out again meanwhile;
- how its directory is before it (``workdirs.changes``), taken anew if the start was long in coming.

All of it is done again where it is missing, so nothing of it has to outlive this process, and a failure here
is none of the task.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon_core.processes.client import begin_standby
from daemon_core.processes.standby import Standby
from daemon_core.tasks import spawning
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.launch import OverError, PrepareError
from daemon_core.tasks.owned import Nursery

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

BASELINE_GOOD_S: Final = 1.0
"""What the user does in the directory between the baseline and the start would be taken for the task's."""


class Ahead:
    """Of one task. Whoever uses it closes it."""

    def __init__(self, life: TaskLife) -> None:
        self._life = life
        self._nursery = Nursery(f"ahead of task {life.record.task_id}")
        self._shim: asyncio.Task[None] | None = None
        self._run: asyncio.Task[spawning.ReadyRun | None] | None = None
        self._baseline: asyncio.Task[None] | None = None
        self._baseline_of = ""
        """The run that the newest baseline is of."""
        self._taken_at = float("-inf")
        self._standby: Standby | None = None
        self._wanted = 0
        """Grows with each program that is not wanted any more, also while it begins in its thread."""
        self._turn = threading.Lock()
        """Around these two."""

    def begin_shim(self) -> None:
        """Begin the program of the next run's shim, unless it was. Returns at once."""
        if self._shim is None:
            begin = asyncio.to_thread(self._begin, self._life.run_dir, self._wanted)
            self._shim = self._nursery.start(begin, "shim")

    def forget_shim(self) -> None:
        """The run is not to come soon: nothing waits for it."""
        with self._turn:
            self._wanted += 1
            standby, self._standby = self._standby, None
        self._shim = None
        if standby is not None:
            standby.close()

    def begin_run(self) -> None:
        """Make the files of the task's run, whose directory is laid out. Returns at once."""
        if self._run is None:
            self._run = self._nursery.start(self._prepare_run(), "run")

    def begin_baseline(self) -> None:
        """Look how the directory is, which has to hold all that is laid out. Returns at once."""
        if self._baseline is None or self._baseline.done():
            self._baseline = self._nursery.start(self._take_baseline(), "baseline")

    async def standby(self) -> Standby | None:
        """The program that was begun, if it was."""
        if self._shim is not None:
            await self._shim
        return self._standby

    async def run(self) -> spawning.ReadyRun | None:
        """The run that was made ready, if it was, for one use."""
        run, self._run = self._run, None
        return await run if run is not None else None

    async def baseline(self) -> None:
        """The newest run's baseline is there when this returns, or will not be known."""
        if self._baseline is not None:
            await self._baseline
        late = time.monotonic() - self._taken_at > BASELINE_GOOD_S
        if late or self._baseline_of != self._life.run.run_id:
            await self._take_baseline()

    async def settled(self) -> None:
        """Nobody looks at the directory or writes files of the run any more when this returns."""
        begun = [each for each in (self._baseline, self._run) if each is not None]
        if begun:
            await asyncio.wait(begun)

    async def aclose(self) -> None:
        """Let go of what was not wanted. Safe to call again."""
        self.forget_shim()
        await self._nursery.close()

    def _begin(self, run_dir: Path, wanted: int) -> None:
        try:
            begun = begin_standby(run_dir)
        except OSError as error:
            log.debug("the program of a shim cannot be begun ahead: %s", error)
            return
        with self._turn:
            if wanted == self._wanted:
                self._standby, begun = begun, None
        if begun is not None:
            begun.close()

    async def _prepare_run(self) -> spawning.ReadyRun | None:
        try:
            return await spawning.prepare_run(self._life)
        except (PrepareError, OverError):
            return None  # whoever is to start the run meets it again, when the server may hear of it

    async def _take_baseline(self) -> None:
        """How the directory is before the run: what the task changes is told from it. Never fails a task."""
        life = self._life
        changes, record, run_id = life.engine.changes, life.record, life.run.run_id
        if changes is None:
            return
        work_dir, own = Path(record.work_dir), not record.directory
        try:
            ours = await asyncio.to_thread(life.engine.environments.our_paths, work_dir, user_owned=not own)
            await asyncio.to_thread(changes.begin, record.key, run_id, record.work_dir, own=own, ours=ours)
        except (OSError, ValueError) as error:
            log.warning("task %s: what it changes will not be known: %s", record.task_id, error)
        self._baseline_of, self._taken_at = run_id, time.monotonic()
        reach("baseline")
