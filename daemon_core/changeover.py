"""One version taking another one's place, as the daemon sees it: the switch to the next, and the proof of
itself when it was started on trial.

It joins what ``updates`` decides with the rooms that it is about: barrier and tasks, the control socket, and
the start and end of the process (``app``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import NamedTuple

from daemon_core.control.client import ControlClient, DaemonUnreachableError
from daemon_core.control.views import DaemonStatus
from daemon_core.journal import Journal
from daemon_core.processes.client import RunSpec, keep_open, spawn
from daemon_core.settings.directories import Directories
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.secrets import new_run_id
from daemon_core.updates import profiles
from daemon_core.updates.switching import UPDATE_HOLDER, Switch, execute_launcher
from daemon_core.updates.trial import Check, OnTrial, TrialState
from daemon_core.updates.versions import Installation, Store

log = logging.getLogger(__name__)

TRIAL_VARIABLE = "OSTLER_TRIAL"
LEASE_VARIABLE = "OSTLER_LEASE_FD"
GIVEN_VARIABLES = frozenset({TRIAL_VARIABLE, LEASE_VARIABLE})
PROBE_META = "trial_check"
PROBE_WORD = b"ostler"
ANSWER_S = 5.0


class Given(NamedTuple):
    """What the launcher gave to this process."""

    trial_id: str = ""
    lease: int = -1


def take_given(environ: MutableMapping[str, str]) -> Given:
    """Take it out of the environment: it is this process's alone."""
    trial_id, lease = environ.pop(TRIAL_VARIABLE, ""), environ.pop(LEASE_VARIABLE, "")
    if lease.isdigit():
        try:
            os.set_inheritable(int(lease), False)
        except OSError:
            lease = ""
    return Given(trial_id, int(lease) if lease.isdigit() else -1)


def broken_at_once(directories: Directories, given: Given, text: str) -> None:
    """This process cannot even begin; where it is on trial, that is why (blocks). What keeps the version that
    was gone back to from beginning, too, was nothing against the other one."""
    store = Store(directories.app)
    if given.trial_id:
        OnTrial(store, given.trial_id, reopen=lambda: None, decided=lambda state: None).fail(text)
        return
    found = store.stored()
    if found is None or not profiles.failed_like(found, directories.profile, text):
        return
    try:
        store.change(lambda pointer: profiles.forgiven(pointer, directories.profile, found.version))
    except OSError as error:
        log.warning("that version %s may be tried again is not written down: %s", found.version, error)


class Changeover:
    """One for each daemon process.

    Args:
        end: ends this process in order; with True the launcher is to follow in its place.
        told: something is to be shown.
    """

    def __init__(
        self,
        directories: Directories,
        barrier: Barrier,
        given: Given,
        *,
        version: str,
        end: Callable[[bool], None],
        told: Callable[[], None],
    ) -> None:
        self.installation = Installation.of()
        self.store = Store(
            directories.app, self.installation.seed_dir() if self.installation is not None else ""
        )
        self.barrier = barrier
        self.engine: Engine | None = None
        self.switch = Switch(
            self.store, self.installation, self, version=version, profile=directories.profile,
            ready=lambda: self.check_ready(),
        )  # fmt: skip
        self.check_ready: Callable[[], None] = lambda: None
        """Raises ``UpdateError`` where the next daemon could not start, whatever its version; may block."""
        self.trial = (
            OnTrial(self.store, given.trial_id, reopen=self._reopen, decided=self._decided)
            if given.trial_id
            else None
        )
        self.on_decided: Callable[[TrialState], None] = lambda state: None
        """Hears how the trial of this process has ended."""
        self.on_leaving: Callable[[], None] = lambda: None
        """Hears that this process is about to make way for another version."""
        self._directories = directories
        self._end = end
        self._told = told
        if given.lease >= 0:
            keep_open(given.lease)
        if self.trial is not None:
            self.barrier.hold(UPDATE_HOLDER)  # before anything could be claimed

    # --- what the switch asks for ----------------------------------------------------------------

    async def quiet(self) -> None:
        if self.engine is not None:
            await self.engine.quiet()

    async def between_stretches(self) -> None:
        if self.engine is not None:
            await self.engine.between_stretches()

    def update_changed(self) -> None:
        self._told()

    def make_way(self) -> None:
        self.on_leaving()
        self._end(True)

    # --- on trial --------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether this version has found that it does not work here."""
        return self.trial is not None and self.trial.state is TrialState.FAILED

    @property
    def reason(self) -> str:
        """Why it has failed."""
        return self.trial.detail if self.trial is not None else ""

    async def prove(self, engine: Engine, journal: Journal) -> None:
        """Show that this version works, where it is on trial. All it had to take up is taken up."""
        if self.trial is not None and self.trial.is_open:
            await self.trial.prove(
                [
                    Check("writing and reading its journal", lambda: _journal_works(journal)),
                    Check("taking up the tasks that run", lambda: _all_taken_up(engine), once=True),
                    Check("asking itself over its own socket", lambda: _answers(self._directories)),
                    Check("starting a program", lambda: _starts_programs(self._directories), once=True),
                ]
            )

    def broken(self, text: str) -> None:
        """This process cannot go on (blocks)."""
        if self.trial is not None:
            self.trial.fail(text)

    async def stopping(self, *, by_somebody: bool) -> None:
        """This process is about to end, in order."""
        if self.trial is not None and by_somebody:
            await asyncio.to_thread(self.trial.stop)

    def _reopen(self) -> None:
        self.barrier.let_go(UPDATE_HOLDER)
        self._told()

    def _decided(self, state: TrialState) -> None:
        self.on_decided(state)
        if state is TrialState.GONE:
            self._end(True)
        elif state is TrialState.FAILED:
            self._end(False)

    # --- the end of the process ------------------------------------------------------------------

    def execute(self, arguments: list[str]) -> bool:
        """Become the launcher, where there is one. If this returns: whether it was started beside us (on
        Windows), so that this process only has to end."""
        if self.installation is None:
            return False
        try:
            execute_launcher(self.installation, arguments, dict(os.environ))
        except OSError as error:
            log.error("the launcher %s cannot be executed: %s", self.installation.launcher, error)
            return False
        return True


# --- checks -----------------------------------------------------------------------------------------------


async def _journal_works(journal: Journal) -> None:
    word = new_run_id()
    await journal.set_meta(PROBE_META, word)
    if await journal.get_meta(PROBE_META) != word:
        raise RuntimeError("what was written is not what is read")
    await journal.set_meta(PROBE_META, None)


async def _all_taken_up(engine: Engine) -> None:
    await engine.attached()
    if engine.jobs is not None:
        for job in list(engine.jobs.lives.values()):
            await job.begun.wait()


async def _answers(directories: Directories) -> None:
    client = ControlClient(directories.control_socket, ANSWER_S)
    try:
        status = await asyncio.to_thread(client.call, DaemonStatus, "GET", "/v1/status")
    except DaemonUnreachableError as error:
        why = f"no answer within {ANSWER_S:g} s" if error.why == "timeout" else error.why
        raise RuntimeError(why) from error
    if status.pid != os.getpid():
        raise RuntimeError(f"another process (pid {status.pid}) answers")


async def _starts_programs(directories: Directories) -> None:
    """A run of nothing, by the same supervisor that keeps real ones alive."""
    name = new_run_id()
    place = directories.state / "trial-check" / name
    shell = ("cmd", "/c") if sys.platform == "win32" else ("/bin/sh", "-c")
    try:
        shim = await spawn(
            RunSpec(
                run_dir=place,
                argv=(*shell, f"echo {PROBE_WORD.decode()}"),
                cwd=Path(directories.state),
                env={"PATH": os.environ.get("PATH", os.defpath)},
                mark=name,
                socket_dir=directories.run,
                use_cgroup=False,
            )
        )
        try:
            status = await shim.wait()
        finally:
            await shim.close()
        said = await asyncio.to_thread((place / "stdout").read_bytes)
        if status.code != 0 or said.strip() != PROBE_WORD:
            raise RuntimeError(f"a program that should have said a word ended with {status.code}")
    finally:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(shutil.rmtree, place.parent)
