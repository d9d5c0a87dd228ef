"""Tasks that a server may believe to run here although nobody here knows them any more.

They come of a lost journal: the run directory holds the claim, but the run never began and no record tells
how far the task was. Where a runtime has no other task here, its server is asked to fail all of the runtime,
these among them. Where it has, that would hit the living: then these are failed one by one. One that is
merely handed out is left alone, since its server hands it out again.

What is noted stays on the disk until it is dealt with: another start finds it again.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon_core.protocol import failures
from daemon_core.protocol.errors import RuntimeGoneError, ServerError, TaskGoneError, WorkspaceGoneError
from daemon_core.protocol.wire import FailRequest

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine

log = logging.getLogger(__name__)

_BEGUN: Final = frozenset({"running", "waiting_local_directory"})
_TEXT: Final = "the run was lost in a restart of this machine's daemon before it began"


@dataclass(frozen=True, slots=True)
class _LostClaim:
    task_id: str
    run_dir: Path


class LostClaims:
    """See the module. Implements ``runtimes.registration.LostTasks``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._noted: dict[str, list[_LostClaim]] = {}
        """By runtime id: a claim says no more of where it came from."""

    def note(self, runtime_id: str, task_id: str, run_dir: Path) -> None:
        """A claim without a record was found."""
        self._noted.setdefault(runtime_id, []).append(_LostClaim(task_id, run_dir))

    async def fail(self, connection: str, runtime_id: str) -> None:
        """Fail those of a runtime that have begun at its server, one by one."""
        there = self._engine.connections.get(connection)
        if there is None:
            return
        left = []
        for claim in self._noted.pop(runtime_id, []):
            # The hub was told which tasks are here, and has dealt with all others.
            if not there.timing.loopback:
                try:
                    await self._fail(connection, claim)
                except (TaskGoneError, WorkspaceGoneError, RuntimeGoneError):
                    pass
                except ServerError as error:
                    log.warning("task %s is lost here and its server not told yet: %s", claim.task_id, error)
                    left.append(claim)
                    continue
            await asyncio.to_thread(shutil.rmtree, claim.run_dir, ignore_errors=True)
        if left:
            self._noted.setdefault(runtime_id, []).extend(left)

    async def forget(self, connection: str, runtime_id: str) -> None:
        """The server has failed all of this runtime."""
        for claim in self._noted.pop(runtime_id, []):
            await asyncio.to_thread(shutil.rmtree, claim.run_dir, ignore_errors=True)

    async def _fail(self, connection: str, claim: _LostClaim) -> None:
        key = f"{connection}/{claim.task_id}"
        if key in self._engine.lives or key in self._engine.deliveries:
            return  # handed out again meanwhile
        client = self._engine.connections[connection].client
        if await client.status(claim.task_id) not in _BEGUN:
            return
        log.warning("task %s was lost here; its server is told", claim.task_id)
        request = FailRequest(error=_TEXT, failure_reason=failures.RUNTIME_RECOVERY)
        await client.fail(claim.task_id, request)
