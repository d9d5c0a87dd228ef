"""All residents of this daemon: found, taken up again at the start, and what is asked of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.jobs.residents import clearing, trees
from daemon_core.jobs.residents.enabling import set_enabled
from daemon_core.jobs.residents.files import Catalog, Mistake, Resident
from daemon_core.jobs.residents.keeper import Keeper, RefusedError
from daemon_core.jobs.residents.logs import LogReader, Position, before_last
from daemon_core.jobs.residents.places import forget, known_places
from daemon_core.jobs.residents.surroundings import Gate, HeldBackError, Owner, Surroundings, boot_id
from daemon_core.processes import RunPhase, UnreachableError, read_state
from daemon_core.processes.errors import LostError

log = logging.getLogger(__name__)

NEW_START_LOOK_S: Final = 1.0
"""For one that is followed and does not run: its next start is looked for no later than that."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a resident uses at this moment."""

    usage: trees.Usage = trees.Usage()
    log_bytes: int = 0
    instances: int = 0
    """Of the resident, its own and those started elsewhere; a launcher and what it wraps are one."""


class House:
    """See the module. ``changed`` is called with the id whenever something that is shown has changed."""

    def __init__(
        self,
        *,
        files: Path,
        root: Path,
        locks: Path,
        socket_dir: Path,
        holder: str,
        owner: Owner,
        gate: Gate,
        environment: Callable[[], Mapping[str, str]],
        own_environment: Mapping[str, str],
        program_of: Callable[[str], str | None],
        own_directories: Iterable[Path],
        reach: Callable[[str], None] = lambda _place: None,
    ) -> None:
        self.catalog = Catalog(files)
        self.keepers: dict[str, Keeper] = {}
        self.changed: Callable[[str], None] = lambda _ident: None
        self.looked: Callable[[], None] = lambda: None
        """Called when the files turn out to have changed."""
        self._own = tuple(own_directories)
        self._samples: dict[str, trees.Sample] = {}
        self._around = Surroundings(
            root=root,
            locks=locks,
            socket_dir=socket_dir,
            holder=holder,
            boot_id=boot_id(),
            owner=owner,
            gate=gate,
            environment=environment,
            own_environment=own_environment,
            program_of=program_of,
            look=self._look_at,
            changed=lambda ident: self._keeper_changed(ident),
            reach=reach,
        )

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up what runs, start what is enabled. Never fails because of one of them."""
        await asyncio.to_thread(self.catalog.look)
        root = self._around.root
        for ident in await asyncio.to_thread(known_places, root):
            if ident not in self.catalog.residents and await asyncio.to_thread(
                forget, root, ident, time.time(), _is_alive
            ):
                continue
            self.keepers[ident] = await asyncio.to_thread(Keeper, self._around, ident)
        self._admit()
        for ident, keeper in self.keepers.items():
            keeper.resume(self.catalog.residents.get(ident))
        self.looked()

    async def suspend(self) -> None:
        """End all of them along with the daemon; the next one starts them again."""
        await asyncio.gather(*(keeper.suspend() for keeper in self.keepers.values()))

    async def detach(self) -> None:
        """Let go; they run on. Their workers have been cancelled by their owner."""
        for keeper in self.keepers.values():
            await keeper.close()

    # --- what there is ---------------------------------------------------------------------------

    async def look(self) -> None:
        """See whether the files have changed."""
        if await asyncio.to_thread(self.catalog.look):
            self._take_files()

    def shown(self) -> list[Keeper]:
        """Those with a file, and those that are at work without one."""
        return [
            keeper
            for ident, keeper in sorted(self.keepers.items())
            if ident in self.catalog.residents or keeper.machine.at_work
        ]

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return self.catalog.mistakes

    def get(self, ident: str) -> Keeper:
        """Raises ``KeyError``."""
        keeper = self.keepers[ident]
        if ident not in self.catalog.residents and not keeper.machine.at_work:
            raise KeyError(ident)
        return keeper

    # --- wishes ----------------------------------------------------------------------------------

    async def start_all(self) -> dict[str, RefusedError | HeldBackError]:
        """Start all that are enabled; what was refused, by id."""
        await self.look()
        wanted = [
            keeper
            for ident, keeper in sorted(self.keepers.items())
            if (resident := self.catalog.residents.get(ident)) is not None and resident.enabled
        ]
        answers = await asyncio.gather(*(keeper.start() for keeper in wanted), return_exceptions=True)
        refused: dict[str, RefusedError | HeldBackError] = {}
        for keeper, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, RefusedError | HeldBackError):
                refused[keeper.ident] = answer
            elif isinstance(answer, BaseException):
                raise answer
        return refused

    async def stop_all(self) -> None:
        """Stop all that are at work."""
        await asyncio.gather(*(keeper.stop() for keeper in self.keepers.values() if keeper.machine.at_work))

    async def set_enabled(self, ident: str, enabled: bool) -> bool:
        """Switch one on or off in its file; True if that was a change. Neither starts nor stops it.

        Raises:
            KeyError: there is no file of that id.
            CannotEditError: the file is left as it is.
        """
        await self.look()
        resident = self.catalog.residents[ident]
        changed = await asyncio.to_thread(set_enabled, Path(resident.file), enabled)
        if enabled:
            self.keepers[ident].record.stopped = False
            await asyncio.to_thread(self.keepers[ident].keep)
        await self.look()
        return changed

    async def clear(self, ident: str, *, memory: bool, cache: bool) -> clearing.Cleared:
        """Empty what its file names.

        Raises ``KeyError``, ``RefusedError``, ``clearing.ClearRefusedError``.
        """
        await self.look()
        resident = self.catalog.residents[ident]
        if self.keepers[ident].machine.at_work:
            raise RefusedError("resident_at_work", id=ident)
        names = [*(resident.memory if memory else ()), *(resident.cache if cache else ())]
        return await asyncio.to_thread(clearing.clear, resident, names, self._own)

    # --- figures and log -------------------------------------------------------------------------

    async def statistics(self, ident: str) -> Statistics:
        """Raises ``KeyError``."""
        keeper = self.get(ident)
        roots = keeper.roots()
        outside = await keeper.find_outside()
        if roots:
            usage, sample = await asyncio.to_thread(trees.measure, roots, self._samples.get(ident))
            self._samples[ident] = sample
        else:
            usage = trees.Usage()
            self._samples.pop(ident, None)
        return Statistics(
            usage=usage,
            log_bytes=await asyncio.to_thread(keeper.place.log_bytes),
            instances=bool(roots) + len(outside),
        )

    def log_from(self, ident: str, count: int) -> LogReader:
        """A reader of the last lines and what follows. Blocking. Raises ``KeyError``."""
        place = self.get(ident).place
        return LogReader(place, before_last(place, count))

    async def wait_log(self, ident: str, position: Position) -> None:
        """Until there is more of the log than that, as far as one can be told, or a moment has passed."""
        keeper = self.keepers[ident]
        shim = keeper.shim
        if shim is None or keeper.record.start != position.number or keeper.record.adopted is not None:
            if position.number < keeper.record.start and await asyncio.to_thread(
                keeper.place.run_dir(keeper.record.start).exists
            ):
                return
            await keeper.wait_change(NEW_START_LOOK_S)
            return
        try:
            state = await shim.watch(position.offset, 0)
        except (LostError, UnreachableError):
            await keeper.wait_change(NEW_START_LOOK_S)
            return
        if state.ended and state.stdout_bytes <= position.offset:
            await keeper.wait_change(NEW_START_LOOK_S)

    # --- inside ----------------------------------------------------------------------------------

    def _look_at(self, ident: str) -> Resident | None:
        """Before a start: what its file says now."""
        if self.catalog.look():
            self._take_files()
        return self.catalog.residents.get(ident)

    def _take_files(self) -> None:
        self._admit()
        for ident, keeper in self.keepers.items():
            keeper.read_again(self.catalog.residents.get(ident))
        self.looked()

    def _admit(self) -> None:
        for ident in self.catalog.residents:
            if ident not in self.keepers:
                self.keepers[ident] = Keeper(self._around, ident)
                self.keepers[ident].read_again(self.catalog.residents[ident])

    def _keeper_changed(self, ident: str) -> None:
        self.changed(ident)


def _is_alive(run_dir: Path) -> bool:
    return read_state(run_dir).phase is RunPhase.ALIVE
