"""The new version's side of its trial: show that it works, and only then stay.

Healthy is what this version can do on this machine: whatever checks it is given, one after the other. No
server and no network is part of it. Until then it claims nothing (the barrier is held from before the first
connection). For a while after that it shows that it lives (``Store.beat``), then what could have stopped
working has to work once more, and it commits. What fails is written down with a reason and ends this
process; the guard and the launcher see to the version before.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.errors import TrialGoneError
from daemon_core.updates.pointer import Pointer, Trial
from daemon_core.updates.versions import Store

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""How soon a mark that could not be written is tried again."""
BEAT_S = 2.0
"""How often a healthy version shows that it lives."""
AGAIN_SHARE = 0.8
"""What the checks before the commit may take of the time in which it has to come."""


class Check(NamedTuple):
    """Something that has to work."""

    name: str
    """In plain words, for the reason of a failure, which follows: "taking up the tasks that run"."""
    passes: Callable[[], Awaitable[None]]
    """Raises, or takes too long, where it does not."""
    once: bool = False
    """It is not asked again before the commit."""


class TrialState(enum.Enum):
    PROVING = "proving"
    SETTLING = "settling"
    COMMITTED = "committed"
    FAILED = "failed"
    """Written down where that was possible: this process has to end."""
    GONE = "gone"
    """Somebody else has decided: this process has to make room for what runs now."""
    STOPPED = "stopped"
    """In an orderly way; the next start goes on with the trial."""


class OnTrial:
    """This process is a start of a trial.

    Args:
        reopen: called when it is healthy: claims are possible from now on.
        decided: called once, with the state that ends the trial as far as this process is concerned.
    """

    def __init__(
        self,
        store: Store,
        trial_id: str,
        *,
        reopen: Callable[[], None],
        decided: Callable[[TrialState], None],
    ) -> None:
        self.store = store
        self.trial_id = trial_id
        self.state = TrialState.PROVING
        self.detail = ""
        self._reopen = reopen
        self._decided = decided

    @property
    def is_open(self) -> bool:
        """Whether it is not decided yet."""
        return self.state in (TrialState.PROVING, TrialState.SETTLING)

    async def prove(self, checks: Sequence[Check]) -> None:
        """All of it. Returns when it is decided."""
        try:
            trial = await asyncio.to_thread(self._trial)
            await self._check(trial.healthy_s, checks)
            beat_s = BEAT_S if await asyncio.to_thread(self._beat) else 0.0
            await self._mark(lambda pointer: deciding.healthy(pointer, beat_s), trial.healthy_s)
            self.state = TrialState.SETTLING
            log.info("version %s works on this machine; it is kept in %.0f s", trial.version, trial.settle_s)
            self._reopen()
            await self._settle(trial.settle_s)
            again = [check for check in checks if not check.once]
            await self._check(trial.slack_s * AGAIN_SHARE, again)
            await self._mark(deciding.committed, trial.healthy_s)
            log.info("version %s is kept", trial.version)
            self._end(TrialState.COMMITTED)
        except TrialGoneError:
            log.error("the trial of this version is over; the one that is to run takes its place")
            self._end(TrialState.GONE)
        except _FailedError as error:
            await asyncio.to_thread(self.fail, str(error))

    def fail(self, detail: str) -> None:
        """This version does not work here: write down why (blocks). The caller ends the process."""
        if not self.is_open:
            return
        log.error("this version does not work on this machine: %s", detail)
        try:
            self.store.of_trial(
                self.trial_id, lambda pointer: deciding.reverted(pointer, deciding.UNHEALTHY, detail)
            )
        except (OSError, TrialGoneError) as error:
            log.error("that cannot be written down: %s", error)  # the guard does, when this process ends
        self.detail = detail
        self._end(TrialState.FAILED)

    def stop(self) -> None:
        """This process is stopped by somebody, which is nothing against the version (blocks)."""
        if not self.is_open:
            return
        try:
            self.store.of_trial(self.trial_id, deciding.stopped)
        except (OSError, TrialGoneError) as error:
            log.warning("the stop of a version on trial is not written down: %s", error)
        self.state = TrialState.STOPPED

    def _end(self, state: TrialState) -> None:
        self.state = state
        self._decided(state)

    def _trial(self) -> Trial:
        found = profiles.find(self.store.stored(), self.trial_id)
        if found is None:
            raise TrialGoneError(self.trial_id)
        return found

    async def _settle(self, for_s: float) -> None:
        """Go on for a while, and show it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + for_s
        while (left_s := until - loop.time()) > 0:
            await asyncio.sleep(min(left_s, BEAT_S))
            await asyncio.to_thread(self._beat)

    def _beat(self) -> bool:
        try:
            self.store.beat()
        except OSError as error:
            log.warning("that this version lives cannot be shown: %s", error)
            return False
        return True

    async def _check(self, limit_s: float, checks: Sequence[Check]) -> None:
        name = ""
        try:
            async with asyncio.timeout(limit_s):
                for check in checks:
                    name = check.name
                    await check.passes()
        except TimeoutError as error:
            raise _FailedError(f"{name}: not in {limit_s:g} s") from error
        except Exception as error:  # whatever it is, the version does not work
            log.exception("a check of the version on trial failed")
            raise _FailedError(f"{name}: {str(error) or type(error).__name__}") from error

    async def _mark(self, step: Callable[[Pointer], Pointer], limit_s: float) -> None:
        """A step of the trial, durably; a disk that is full is given some time."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    try:
                        await asyncio.to_thread(self.store.of_trial, self.trial_id, step)
                        return
                    except OSError as error:
                        log.warning("a mark of the trial cannot be written: %s", error)
                    await asyncio.sleep(RETRY_S)
        except TimeoutError as error:
            raise _FailedError("its marks cannot be written to the disk") from error


class _FailedError(Exception):
    """The trial has failed; the text says why."""
