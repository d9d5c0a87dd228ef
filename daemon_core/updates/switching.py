"""The switch in the daemon: from one version to the next, with claims held for seconds and runs going on.

*waiting* for a quiet moment, up to a limit (``hurry`` ends it) → *holding*: the barrier, until claims on
their way are home, and the short stretches of tasks → the trial is written durably → *switching*: the daemon
ends in order and executes the launcher, which starts the new version in the same process. Until the trial is
written every failure lets the barrier go and says why; after that the launcher decides what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, TypeVar

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.errors import TrialGoneError, UpdateError
from daemon_core.updates.files import is_free
from daemon_core.updates.pointer import Own, Pointer, Trial, is_newer
from daemon_core.updates.versions import Installation, Store, lock_file

log = logging.getLogger(__name__)

UPDATE_HOLDER: Final = "update"
"""Who holds the barrier while a version gives way to another one."""

T = TypeVar("T")


class Limits(NamedTuple):
    """How long things may take. What concerns the trial goes into its record."""

    claims_s: float = 30.0
    """For claims that are on their way; longer, and the switch is called off."""
    stretches_s: float = 2.0
    """For tasks between claim and spawn and between exit and report. What takes longer is done again."""
    healthy_s: float = 40.0
    settle_s: float = 30.0
    revive_s: float = 3.0
    most_starts: int = 3


def limits_of(installation: Installation | None) -> Limits:
    """The limits as an installation has them: ``install.json`` may give the trial's own times."""
    return Limits(**(installation.trial_times() if installation is not None else {}))  # type: ignore[arg-type]


class Pending(NamedTuple):
    """A switch on its way."""

    version: str
    stage: str
    """``waiting``, ``holding`` or ``switching``."""
    since: str
    """When the stage began."""
    until: str = ""
    """When the wait for a quiet moment ends."""


class Gate(Protocol):
    """The claim barrier, as far as it matters here."""

    def hold(self, holder: str) -> None: ...

    def let_go(self, holder: str) -> None: ...

    async def wait_up(self) -> None: ...


class Host(Protocol):
    """The daemon."""

    @property
    def barrier(self) -> Gate: ...

    async def quiet(self) -> None:
        """Returns when no task runs."""
        ...

    async def between_stretches(self) -> None:
        """Returns when no task is in one of the short stretches before its spawn or after its exit."""
        ...

    def update_changed(self) -> None:
        """Something of the switch is to be shown."""
        ...

    def make_way(self) -> None:
        """End this process in order, runs going on, and execute the launcher in its place."""
        ...


class Switch:
    """The one switch of a daemon."""

    def __init__(
        self,
        store: Store,
        installation: Installation | None,
        host: Host,
        *,
        version: str,
        profile: str,
        limits: Limits | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        ready: raises ``UpdateError`` where no daemon of any version could start at present; may block.
        """
        self.store = store
        self.installation = installation
        self.limits = limits or limits_of(installation)
        self.version = version
        """What this process runs."""
        self.pending: Pending | None = None
        """The switch that is on its way."""
        self._host = host
        self._ready = ready
        self._profile = profile
        self._now = asyncio.Event()

    def impossible(self) -> str:
        """Why nothing can be switched here: the code of an ``UpdateError``; empty: it can be."""
        if self.installation is None:
            return "not_installed"
        if not os.access(self.installation.launcher, os.X_OK):
            return "launcher_missing"
        return ""

    def hurry(self) -> None:
        """Do not wait for a quiet moment any longer."""
        self._now.set()

    async def apply(self, version: str, *, quiet_s: float = 0.0, asked: bool = False) -> None:
        """Make ``version`` what runs. Does not return where that works: this process becomes it.

        Args:
            quiet_s: wait up to so long for a moment without runs; ``hurry`` ends the wait.
            asked: it is the user's own wish, so that a version that failed before is tried again.

        Raises:
            UpdateError: It does not go ahead; claims are possible again.
        """
        await self._apply(version, quiet_s=quiet_s, asked=asked, back=False)

    async def rollback(self) -> None:
        """The user wants the version before: the same road. Raises ``UpdateError``."""
        pointer = await asyncio.to_thread(self.store.pointer)
        if pointer.previous is None:
            raise UpdateError("nothing_before")
        await self._apply(pointer.previous, quiet_s=0.0, asked=True, back=True)

    async def _apply(self, version: str, *, quiet_s: float, asked: bool, back: bool) -> None:
        if self.pending is not None:
            raise UpdateError("busy")
        if (code := self.impossible()) != "":
            raise UpdateError(code)
        self._now.clear()
        self._show(version, "waiting", quiet_s)
        held = False
        try:
            await asyncio.to_thread(self._check, version, asked)
            await asyncio.to_thread(self._ready)
            if quiet_s > 0:
                await self._quiet(quiet_s)
            self._show(version, "holding")
            held = True
            await self._hold()
            await self._write(version, asked=asked, back=back)
            self._show(version, "switching")
            log.info("version %s gives way to %s", self.version, version)
            self._host.make_way()
        except BaseException:
            self.pending = None
            if held:  # what holds it on trial is not ours to let go
                self._host.barrier.let_go(UPDATE_HOLDER)
            self._host.update_changed()
            raise
        await asyncio.get_running_loop().create_future()  # the end of the daemon is the end of this

    def _show(self, version: str, stage: str, for_s: float = 0.0) -> None:
        until = _time_text(for_s) if for_s > 0 else ""
        self.pending = Pending(version, stage, _time_text(), until)
        self._host.update_changed()

    def _check(self, version: str, asked: bool) -> Pointer:
        pointer = self.store.pointer()
        if version == self.version and version == pointer.version:
            raise UpdateError("current", version=version)
        own = pointer.own.get(self._profile, Own())
        for trial in (pointer.trial, own.trial):
            if trial is not None and self._is_going_on(trial):
                raise UpdateError("trial", version=trial.version)
        if not self.store.is_complete(version):
            raise UpdateError("version_missing", version=version)
        if not asked and is_newer(pointer.version, version):
            raise UpdateError("older", version=version)
        bad = own.bad.get(version) or (pointer.bad.get(version) if version != pointer.version else None)
        if bad is not None and not asked:
            raise UpdateError("version_bad", version=version, reason=bad.reason)
        return pointer

    def _is_going_on(self, trial: Trial) -> bool:
        """Whether a process is on this trial: we, or another profile's daemon. One that nobody takes part in
        any more does not stand in the way."""
        if trial.profile == self._profile:
            return trial.version == self.version
        return not is_free(lock_file(os.environ, trial.profile))

    async def _quiet(self, limit_s: float) -> None:
        """Wait for a moment without runs, the limit, or somebody who is in a hurry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
                waits = [group.create_task(self._host.quiet()), group.create_task(self._now.wait())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()

    async def _hold(self) -> None:
        barrier = self._host.barrier
        barrier.hold(UPDATE_HOLDER)
        self._host.update_changed()
        try:
            async with asyncio.timeout(self.limits.claims_s):
                await barrier.wait_up()
        except TimeoutError as error:
            raise UpdateError("claims", seconds=f"{self.limits.claims_s:.0f}") from error
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.stretches_s):
                await self._host.between_stretches()

    async def _write(self, version: str, *, asked: bool, back: bool) -> None:
        """Write the trial down. Whatever breaks this off, it is not there afterwards, or this returns."""
        trial = Trial(
            version=version,
            id=os.urandom(8).hex(),
            profile=self._profile,
            most_starts=self.limits.most_starts,
            asked=back,
            healthy_s=self.limits.healthy_s,
            settle_s=self.limits.settle_s,
            revive_s=self.limits.revive_s,
            began_at=deciding.now_text(),
        )

        def work() -> None:
            # Looked at again: much may have happened since the beginning of the wait.
            pointer = self._check(version, asked)
            if version == pointer.version:
                # It has proven itself already, with another profile; with this one the launcher tries it.
                self.store.change(lambda pointer: profiles.forgiven(pointer, self._profile, version))
                return
            if not self.store.is_complete(pointer.version):
                self.store.install_seed()  # what is gone back to must not go with an installer's files
            self.store.begin_trial(trial)

        try:
            await _to_the_end(work)
        except OSError as error:
            await _to_the_end(lambda: self._withdraw(trial))
            raise UpdateError("disk", detail=error.strerror or str(error)) from error
        except asyncio.CancelledError:
            await _to_the_end(lambda: self._withdraw(trial))
            raise

    def _withdraw(self, trial: Trial) -> None:
        """Take a trial back of which it is not sure that it was written."""
        try:
            self.store.of_trial(trial.id, deciding.withdrawn)
        except TrialGoneError:
            pass
        except OSError as error:
            log.warning("the trial of %s cannot be taken back: %s", trial.version, error)


async def _to_the_end(work: Callable[[], T]) -> T:
    """In a thread, and never left alone: a cancellation is heard when it is done."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _time_text(in_s: float = 0.0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + in_s))


def execute_launcher(installation: Installation, arguments: list[str], environ: dict[str, str]) -> None:
    """Become the launcher, as the daemon; on Windows start it and return, to end. Raises ``OSError``."""
    command = installation.command("ostlerd", *arguments)
    if sys.platform == "win32":
        import subprocess

        subprocess.Popen(command, env=environ, creationflags=subprocess.DETACHED_PROCESS, close_fds=True)
        return
    os.execve(command[0], command, environ)
