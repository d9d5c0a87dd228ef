"""Keeps one resident: does what its machine says next, and takes a person's wishes.

While there is something to do one asyncio task does it (`_work`); a resident that is stopped costs nothing.
Everything that decides about the next step is on disk before the step is done, so a new life of the daemon
goes on where the old one was killed: `resume` is all there is to recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any, Final

from daemon_core.jobs.residents import building, trees
from daemon_core.jobs.residents.adopted import Adopted, until_gone
from daemon_core.jobs.residents.files import EnvFileError, Resident, RestartRules, read_env_file
from daemon_core.jobs.residents.machine import Machine, Phase
from daemon_core.jobs.residents.places import (
    LockedElsewhereError,
    Place,
    Record,
    ResidentLock,
    found_record,
)
from daemon_core.jobs.residents.surroundings import (
    HeldBackError,
    Surroundings,
    now_text,
    seconds_between,
)
from daemon_core.processes import (
    ExitStatus,
    Identity,
    Lost,
    NeverStarted,
    RunPhase,
    RunSpec,
    Shim,
    SpawnError,
    attach,
    end_survivors,
    read_state,
    spawn,
)
from daemon_core.processes.errors import LostError
from daemon_core.processes.state import remove_secrets
from daemon_core.settings.errors import SettingsError

log = logging.getLogger(__name__)

LOCK_RETRY_S: Final = 60.0
"""How often a resident that another daemon keeps is tried again: the system has no way to tell."""
LOCK_PATIENCE_S: Final = 2.0
"""For a shim of ours that is just starting, and for one that is just letting go."""
FAULT_PAUSE_S: Final = 5.0
BACKGROUND_S: Final = 30.0
"""One that ends well so soon and leaves processes behind has gone to the background."""
TERM_GRACE_S: Final = 10.0
_NEVER: Final = RestartRules(policy="never")
_OWN_PREFIXES: Final = ("OSTLER_", "MULTICA_")


class RefusedError(Exception):
    """A wish cannot be fulfilled; ``code`` and ``params`` say why."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.code = code
        self.params = params


class _CannotStartError(Exception):
    """A start fails before anything is executed. ``final``: the next one would, too."""

    def __init__(self, reason: str, *, final: bool = False, **params: Any) -> None:
        super().__init__(reason, params)
        self.reason = reason
        self.params = params
        self.final = final


class Keeper:
    """See the module."""

    def __init__(self, around: Surroundings, ident: str, record: Record | None = None) -> None:
        self.ident = ident
        self.place = Place(around.root, ident)
        self.record = record or found_record(self.place, around.boot_id)
        self.resident: Resident | None = None
        """What its file says, as far as last seen."""
        self._around = around
        self._shim: Shim | None = None
        self._adopted: Adopted | None = None
        self._lock: ResidentLock | None = None
        self._worker: asyncio.Task[Any] | None = None
        self._woken = asyncio.Event()
        self._settled: set[asyncio.Future[None]] = set()
        self._adopt_next = False
        self._grace_s: float | None = None
        self._told_s: float | None = None
        """The grace that the present run was told to end with."""

    @property
    def machine(self) -> Machine:
        return self.record.machine

    @property
    def shim(self) -> Shim | None:
        return self._shim

    def roots(self) -> list[tuple[Identity, bool]]:
        """The processes whose trees are this resident: (root, whether it belongs to it itself)."""
        if self._adopted is not None:
            return [(self._adopted.who, True)]
        if self._shim is not None:
            return [(Identity(self._shim.info.pid, self._shim.info.started), False)]
        return []

    @property
    def pid(self) -> int | None:
        if self._adopted is not None:
            return self._adopted.who.pid
        return self._shim.info.child_pid if self._shim is not None else None

    # --- wishes ----------------------------------------------------------------------------------

    async def start(self, *, build: bool = False, adopt: bool = False) -> None:
        """A person wants it to run. Returns once it runs, or it is clear that it does not yet.

        Raises:
            RefusedError: resident_elsewhere, resident_outside, resident_unusable.
            HeldBackError: an update is about to happen.
        """
        if self.machine.phase not in (Phase.RUNNING, Phase.STOPPING):
            await self._check_start(adopt=adopt)
        self._adopt_next = adopt
        self.record.build_asked = self.record.build_asked or build
        self._by_person(stopped=False)
        self.machine.start()
        await self._go(Phase.STARTING)

    async def restart(self, *, build: bool = False) -> None:
        """Stop it where it runs, then start it. Raises as ``start``."""
        if self.machine.phase is not Phase.RUNNING:
            await self.start(build=build)
            return
        self._around.gate.check()
        self.record.build_asked = self.record.build_asked or build
        self._by_person(stopped=False)
        self.machine.restart()
        await self._go(Phase.STOPPING, Phase.STARTING)

    async def stop(self, *, kill: bool = False) -> None:
        """A person does not want it to run. Returns once it does not; ``kill``: without asking it."""
        self._grace_s = 0.0 if kill else None
        self._by_person(stopped=True)
        self.machine.stop()
        await self._go(Phase.STOPPING)

    async def suspend(self) -> None:
        """The daemon ends and takes it along; the next one starts it again."""
        if not self.machine.at_work:
            return
        self.record.with_daemon = True
        self.machine.stop()
        await self._go(Phase.STOPPING)

    def resume(self, resident: Resident | None) -> None:
        """Go on where the last life of the daemon was; an enabled one starts."""
        self.resident = resident
        record = self.record
        if record.boot_id != self._around.boot_id:
            # The machine was off: nothing of it lives, and what a person said before is over.
            record.machine = Machine()
            record.boot_id = self._around.boot_id
            record.stopped = record.pending = False
            record.building, record.adopted = "", None
            self._note()
        wanted = record.with_daemon or (resident is not None and resident.enabled and not record.stopped)
        if self.machine.phase is Phase.STOPPED and wanted and resident is not None:
            record.with_daemon = False
            record.restarts = 0
            self._note()
            self.machine.start()
        elif self.machine.phase is Phase.STOPPED and self._is_alive():
            self.machine.phase = Phase.STOPPING  # a wish that was not carried out
        self._save_quietly()
        self._ensure_worker()

    async def close(self) -> None:
        """Let go of it; it runs on. Its worker has been cancelled by its owner."""
        if self._shim is not None:
            await self._shim.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def read_again(self, resident: Resident | None) -> None:
        """Its file may have changed."""
        self.resident = resident

    def keep(self) -> None:
        """Write down what was changed from outside. Blocking."""
        self._save_quietly()

    async def wait_change(self, limit_s: float) -> None:
        """Until something about it has changed, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._change()

    async def find_outside(self) -> list[Any]:
        """Processes of it that were not started here (see `trees.find_outside`)."""
        resident = self.resident
        if resident is None:
            return []
        try:
            argv = self._argv(resident)
        except _CannotStartError:
            return []
        return await asyncio.to_thread(self._look_outside, resident, argv, self.roots())

    # --- inside ----------------------------------------------------------------------------------

    def _by_person(self, *, stopped: bool) -> None:
        self.record.stopped = stopped
        self.record.reason, self.record.params = "", {}
        self.record.with_daemon = False
        self.record.restarts = 0
        self.record.boot_id = self._around.boot_id

    async def _check_start(self, *, adopt: bool) -> None:
        resident = self._around.look(self.ident)
        if resident is None:
            raise RefusedError("resident_unusable", id=self.ident)
        self.resident = resident
        if not adopt:
            self._around.gate.check()
        try:
            argv = self._argv(resident)
            await asyncio.to_thread(self._environment, resident)
        except _CannotStartError as error:
            raise RefusedError(
                "resident_unusable", id=self.ident, reason=error.reason, reason_params=error.params
            ) from error
        if self._lock is None:
            try:
                self._lock = await self._take_lock()
            except LockedElsewhereError as error:
                raise RefusedError("resident_elsewhere", id=self.ident, holder=error.holder) from error
        outside = await asyncio.to_thread(self._look_outside, resident, argv, self.roots())
        if outside and not adopt:
            self._let_go_of_lock()
            raise RefusedError(
                "resident_outside", id=self.ident, pid=outside[0].pid, command=outside[0].command
            )
        if adopt and not outside:
            self._let_go_of_lock()
            raise RefusedError("resident_not_outside", id=self.ident)

    async def _go(self, *passing: Phase) -> None:
        """Make a wish durable, have it worked on, and wait until none of these phases is left."""
        # Where that fails it is done all the same: nothing is executed before it is on disk, see `_spawn`.
        await asyncio.to_thread(self._save_quietly)
        self._tell()
        self._ensure_worker()
        self._woken.set()
        while self.machine.phase in passing and not (
            self.machine.phase is Phase.STARTING and self.record.reason
        ):
            await self._change()

    async def _change(self) -> None:
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled.add(settled)
        try:
            await settled
        finally:
            self._settled.discard(settled)

    def _ensure_worker(self) -> None:
        if self.machine.at_work and (self._worker is None or self._worker.done()):
            self._worker = self._around.owner.start(self._work(), self.ident)

    async def _work(self) -> None:
        while self.machine.at_work:
            try:
                match self.machine.phase:
                    case Phase.STARTING:
                        await self._begin()
                    case Phase.WAITING:
                        await self._pause()
                    case _:
                        await self._attend()
            except Exception:  # a fault here must leave neither a resident without a keeper nor a busy loop
                log.exception("resident %s: something went wrong; going on in a moment", self.ident)
                await asyncio.sleep(FAULT_PAUSE_S)
        self._let_go_of_lock()
        self._worker = None
        self._tell()

    async def _pause(self) -> None:
        """Until the next start is due, or a person wishes something else."""
        self._woken.clear()
        # A clock that was set back must not make it long; what was waited here has been waited.
        left_s = self.machine.next_at - time.time()
        rules = self.resident.restart if self.resident is not None else _NEVER
        is_due = not 0.0 < left_s <= max(rules.last_s, LOCK_RETRY_S) + 1.0
        if not is_due:
            try:
                async with asyncio.timeout(left_s):
                    await self._woken.wait()
            except TimeoutError:
                is_due = True
        if self.machine.phase is Phase.WAITING and is_due:
            self.machine.due()
            self.record.restarts += self.record.reason != "elsewhere"
            self._save_quietly()
            self._tell()

    async def _begin(self) -> None:
        """One start: everything that may speak against it, then the spawn."""
        record = self.record
        if record.pending and self._state_of_run() is not RunPhase.NEVER_STARTED:
            # The last life of the daemon died between the spawn and its record.
            record.pending = False
            self._spawned()
            return
        resident = self._around.look(self.ident)
        if resident is None:
            self._over("file_gone", {}, final=True)
            return
        self.resident = resident
        try:
            argv = self._argv(resident)
            env = await asyncio.to_thread(self._environment, resident)
            if self._lock is None:
                self._lock = await self._take_lock()
        except _CannotStartError as error:
            self._over(error.reason, error.params, final=error.final)
            return
        except LockedElsewhereError as error:
            if self._state_of_run() is RunPhase.ALIVE:
                self._spawned()  # it is held by a start of ours
                return
            self._hold("elsewhere", {"holder": error.holder}, LOCK_RETRY_S)
            return
        except (OSError, SettingsError) as error:
            self._over("not_started", {"error": str(error)})
            return
        outside = await asyncio.to_thread(self._look_outside, resident, argv, [])
        if outside and self._adopt_next:
            self._adopt_next = False
            record.adopted = outside[0]
            record.started_at = now_text()
            self._spawned()
            return
        if outside:
            self._note("outside", pid=outside[0].pid, command=outside[0].command)
            await self._until_woken(until_gone(Identity(outside[0].pid, outside[0].started)))
            return
        if self.machine.phase is not Phase.STARTING:
            return
        try:
            with self._around.gate.starting():
                await self._spawn(resident, argv, env)
        except HeldBackError as error:
            self._note("barrier", **error.params)
            await self._until_woken(self._around.gate.wait_open())
            if self.record.reason == "barrier":
                self._note()

    async def _spawn(self, resident: Resident, argv: tuple[str, ...], env: dict[str, str]) -> None:
        record = self.record
        if not record.pending:
            due = await asyncio.to_thread(building.due, resident, record.built, asked=record.build_asked)
            record.building = due or ""
            record.start = max([record.start, *await asyncio.to_thread(self.place.starts)]) + 1
            record.mark = f"resident-{secrets.token_hex(8)}"
            record.pending = True
        if record.building and resident.build is None:
            record.building = ""
        record.name = resident.name
        record.started_at = now_text()
        record.exit_code = record.signal = None
        record.ended_at = ""
        build = resident.build if record.building else None
        limit = (resident.log_bytes, resident.log_files)
        lock = self._lock
        spec = RunSpec(
            run_dir=self.place.run_dir(record.start),
            argv=build.argv if build is not None else argv,
            cwd=Path(resident.directory),
            env=env,
            close_stdin=True,
            merge_stderr=True,
            time_limit_s=build.limit_s if build is not None else 0.0,
            output_limit=limit,
            lock_fds=(lock.fd,) if lock is not None and lock.fd >= 0 else (),
            mark=record.mark,
            socket_dir=self._around.socket_dir,
            owner={"resident": self.ident, "build": build is not None, "started_at": record.started_at},
        )
        try:
            await asyncio.to_thread(self._save)
            self._around.reach("resident_recorded")
            shim = await spawn(spec)
        except SpawnError as error:
            record.pending = error.what == "prepare"
            self._over("not_started", {"error": str(error)})
            return
        except LostError:
            record.pending = False
            await self._sweep()
            self._over("lost", {})
            return
        except (OSError, SettingsError, ValueError) as error:
            self._over("not_started", {"error": str(error)})
            return
        self._around.reach("resident_spawned")
        record.pending = False
        self._shim = shim
        self._told_s = None
        self._spawned()
        await asyncio.to_thread(self.place.prune, resident.log_bytes * resident.log_files, record.start)

    def _spawned(self) -> None:
        self.machine.spawned()
        self._note("building" if self.record.building else "")

    async def _attend(self) -> None:
        """A run that goes on: wait for its end, and see that it ends when it is to."""
        found = await self._find_run()
        if isinstance(found, Shim | Adopted):
            ending = self._around.owner.start(_end_of(found), f"{self.ident}: end")
            ending.add_done_callback(lambda _: self._woken.set())
            try:
                while not ending.done():
                    self._woken.clear()
                    await self._tell_end(found, ending)
                    if not ending.done():
                        await self._woken.wait()
            finally:
                ending.cancel()
            found = ending.result()
            if self._shim is not None:
                await self._shim.close()
            self._shim = self._adopted = None
        if isinstance(found, ExitStatus):
            self._take_exit(found)
            return
        was_adopted, self.record.adopted = self.record.adopted is not None, None
        if not was_adopted:
            await self._sweep()
        self._over("ended_unseen" if was_adopted else "lost", {})

    async def _find_run(self) -> Shim | Adopted | ExitStatus | None:
        """What there is of the present start; None: it is lost, or never was."""
        if self.record.adopted is not None:
            if self._adopted is None:
                self._adopted = Adopted(self.record.adopted)
            return self._adopted
        if self._shim is None:
            self._told_s = None
            found = await attach(self.place.run_dir(self.record.start))
            if isinstance(found, Lost | NeverStarted):
                self.record.pending = False
                return None
            if isinstance(found, ExitStatus):
                return found
            self._shim = found
            self._tell()
        return self._shim

    async def _tell_end(self, found: Shim | Adopted, ending: asyncio.Task[Any]) -> None:
        """Ask for the end if it is wanted, and ask again only to have it sooner."""
        if self.machine.phase is not Phase.STOPPING:
            return
        rules = self.resident.grace_s if self.resident is not None else TERM_GRACE_S
        grace_s = self._grace_s if self._grace_s is not None else rules
        if self._told_s is not None and self._told_s <= grace_s:
            return
        again, self._told_s = self._told_s is not None, grace_s
        if isinstance(found, Shim):
            await found.end(grace_s)
        elif not again or grace_s == 0:
            self._around.owner.start(
                found.end(grace_s, ended=ending.done), f"{self.ident}: ending one that was adopted"
            )

    def _take_exit(self, status: ExitStatus) -> None:
        record = self.record
        record.exit_code, record.signal = status.code, status.signal
        building_of, record.building = record.building, ""
        if building_of and self.machine.phase is not Phase.STOPPING:
            if status.code == 0 and status.reason == "exited":
                record.built, record.build_asked = building_of, False
                self.machine.phase = Phase.STARTING
                self._note()
            else:
                record.build_asked = False
                self._over("build_failed", _params(status), final=True, at=status.ended_at)
            return
        lived_s = seconds_between(record.started_at, status.ended_at)
        left = status.swept if status.reason == "exited" and status.code == 0 else 0
        if left and lived_s is not None and lived_s < BACKGROUND_S:
            self._over("background", {"processes": left}, final=True, at=status.ended_at)
            return
        if status.reason == "spawn_failed":
            self._over("not_started", {"error": status.error}, at=status.ended_at)
            return
        self._over("exited", _params(status), success=status.code == 0, at=status.ended_at)

    def _over(
        self, reason: str, params: dict[str, Any], *, success: bool = False, final: bool = False, at: str = ""
    ) -> None:
        """The present start is over, or did not come about."""
        record = self.record
        asked = self.machine.phase is Phase.STOPPING
        rules = self.resident.restart if self.resident is not None else _NEVER
        if final:
            self.machine.give_up()
        else:
            self.machine.ended(rules, time.time(), success=success)
        record.ended_at = at or now_text()
        self._grace_s = None
        if asked:
            record.pending = False
            record.building = ""
            self._note()
        else:
            self._note(reason, **params)
        if self.machine.phase is Phase.GAVE_UP:
            log.warning("resident %s is not started again: %s %s", self.ident, reason, params or "")

    def _hold(self, reason: str, params: dict[str, Any], pause_s: float) -> None:
        self.machine.hold(time.time() + pause_s)
        self._note(reason, **params)

    async def _until_woken(self, moment: Any) -> None:
        """Wait for a moment, or for a wish."""
        self._woken.clear()
        waiting = self._around.owner.start(moment, f"{self.ident}: waiting")
        waiting.add_done_callback(lambda _: self._woken.set())
        try:
            await self._woken.wait()
        finally:
            waiting.cancel()

    async def _take_lock(self) -> ResidentLock:
        """The lock of the id; a shim that is on its way, either way, is waited for a moment.

        Raises LockedElsewhereError, OSError, SettingsError.
        """
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                return ResidentLock.take(self._around.locks, self.ident, self._around.holder)
            except LockedElsewhereError:
                if time.monotonic() > deadline or self._state_of_run() is RunPhase.ALIVE:
                    raise
            await asyncio.sleep(0.05)

    def _let_go_of_lock(self) -> None:
        if self._lock is not None and not self.machine.at_work:
            self._lock.release()
            self._lock = None

    async def _sweep(self) -> None:
        """End what is left of a start whose shim is gone."""
        run_dir = self.place.run_dir(self.record.start)
        state = await asyncio.to_thread(read_state, run_dir)
        cgroup = state.info.cgroup if state.info is not None else None
        if self.record.mark:
            await asyncio.to_thread(end_survivors, self.record.mark, cgroup)
        await asyncio.to_thread(remove_secrets, run_dir)

    def _state_of_run(self) -> RunPhase:
        try:
            return read_state(self.place.run_dir(self.record.start)).phase
        except OSError:
            return RunPhase.NEVER_STARTED

    def _is_alive(self) -> bool:
        return self.record.start > 0 and self._state_of_run() is RunPhase.ALIVE

    def _look_outside(
        self, resident: Resident, argv: tuple[str, ...], roots: list[tuple[Identity, bool]]
    ) -> list[Any]:
        ours: set[Identity] = set()
        for root, _ in roots:
            ours |= trees.members(root, itself=True)
        return trees.find_outside(resident, argv, ours)

    def _argv(self, resident: Resident) -> tuple[str, ...]:
        if not os.path.isdir(resident.directory):
            raise _CannotStartError("directory_gone", path=resident.directory)
        if resident.provider:
            program = self._around.program_of(resident.provider)
            if not program:
                raise _CannotStartError("provider_gone", provider=resident.provider)
            return (program, *resident.argv)
        program = os.path.expanduser(resident.argv[0])
        if "/" in program:
            program = os.path.normpath(os.path.join(resident.directory, program))
        return (program, *resident.argv[1:])

    def _environment(self, resident: Resident) -> dict[str, str]:
        """The daemon's, less what names Ostler; the file's over it; what must be, over that."""
        base = self._around.environment()
        env = {name: value for name, value in base.items() if not name.upper().startswith(_OWN_PREFIXES)}
        if resident.env_file:
            try:
                env.update(read_env_file(resident.env_file))
            except EnvFileError as error:
                raise _CannotStartError(
                    "env_file", file=error.path, line=error.line, what=error.what
                ) from error
        env.update(self._around.own_environment)
        env[trees.RESIDENT_VARIABLE] = self.ident
        return env

    def _note(self, reason: str = "", /, **params: Any) -> None:
        """Why it is as it is; kept and told."""
        self.record.reason, self.record.params = reason, params
        self._save_quietly()
        self._tell()

    def _save(self) -> None:
        self.place.write(self.record)

    def _save_quietly(self) -> None:
        """Where the step is done already: what is not kept now is found out from the run's directory."""
        try:
            self._save()
        except (OSError, SettingsError) as error:
            log.warning("resident %s: its state cannot be kept: %s", self.ident, error)

    def _tell(self) -> None:
        for settled in self._settled:
            if not settled.done():
                settled.set_result(None)
        self._around.changed(self.ident)


async def _end_of(found: Shim | Adopted) -> ExitStatus | None:
    """How a run ended; None if nobody knows."""
    if isinstance(found, Adopted):
        await found.wait()
        return None
    try:
        return await found.wait()
    except LostError:
        return None


def _params(status: ExitStatus) -> dict[str, Any]:
    found: dict[str, Any] = {"exit_code": status.code, "signal": status.signal}
    if status.reason == "timed_out":
        found["timed_out"] = True
    if status.error:
        found["error"] = status.error
    return found
