"""Residents for the control API: wishes in, views and codes out; changes and conditions told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from daemon_core.control.changes import ChangeLog
from daemon_core.control.errors import ControlError
from daemon_core.control.resident_views import (
    ResidentClear,
    ResidentCleared,
    ResidentLogLine,
    ResidentRefusal,
    ResidentRestart,
    ResidentsAnswer,
    ResidentsStats,
    ResidentStart,
    ResidentStats,
)
from daemon_core.control.views import ResidentView
from daemon_core.jobs.residents.clearing import ClearRefusedError
from daemon_core.jobs.residents.enabling import CannotEditError
from daemon_core.jobs.residents.files import Mistake
from daemon_core.jobs.residents.house import House, Statistics
from daemon_core.jobs.residents.keeper import Keeper, RefusedError
from daemon_core.jobs.residents.logs import LogReader
from daemon_core.jobs.residents.machine import Phase
from daemon_core.jobs.residents.surroundings import HeldBackError, now_text, seconds_between, text_of
from daemon_core.tasks.barrier import Barrier, BarrierUpError

QUIET_S: Final = 60.0
"""A reader that follows is looked after so often while there is nothing new."""


class BarrierGate:
    """The daemon's barrier as residents know it: an update holds their starts back, the user's pause not."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier

    @contextmanager
    def starting(self) -> Iterator[None]:
        try:
            held = self._barrier.starting()
            held.__enter__()
        except BarrierUpError as error:
            raise HeldBackError({"reason": "update", "holders": list(error.holders)}) from error
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def check(self) -> None:
        with self.starting():
            pass

    async def wait_open(self) -> None:
        await self._barrier.wait_startable()


class Conditions(Protocol):
    """Where it is said that something is not as it should be."""

    changes: ChangeLog

    def set_condition(self, code: str, subject: str = "", **params: Any) -> None: ...

    def clear_condition(self, code: str, subject: str = "") -> None: ...


class ResidentDesk:
    """Implements the routes. ``house`` is None while the daemon starts."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._house: House | None = None
        self._told: set[str] = set()
        self._mistaken: set[str] = set()

    def open(self, house: House) -> None:
        """Take it over, with everything that is so already."""
        self._house = house
        house.changed = self._changed
        house.looked = self._looked
        self._looked()
        for keeper in house.shown():
            self._changed(keeper.ident)

    def close(self) -> None:
        """The daemon ends: nothing can be asked any more."""
        self._house = None

    @property
    def house(self) -> House:
        if self._house is None:
            raise ControlError("not_ready")
        return self._house

    # --- questions -------------------------------------------------------------------------------

    async def everyone(self) -> list[ResidentView]:
        """All of them as they are now, and the files with mistakes."""
        await self.house.look()
        return self.snapshot()

    def snapshot(self) -> list[ResidentView]:
        """The same without a look at the files."""
        if self._house is None:
            return []
        found = [self._view(keeper) for keeper in self._house.shown()]
        return found + [_mistake_view(mistake) for mistake in self._house.mistakes]

    async def get(self, ident: str) -> ResidentView:
        await self.house.look()
        return self._view(self._keeper(ident))

    async def stats(self, ident: str) -> ResidentStats:
        await self.house.look()
        keeper = self._keeper(ident)
        return self._stats(keeper, await self.house.statistics(keeper.ident))

    async def all_stats(self) -> ResidentsStats:
        await self.house.look()
        keepers = self.house.shown()
        figures = await asyncio.gather(*(self.house.statistics(keeper.ident) for keeper in keepers))
        found = [self._stats(keeper, each) for keeper, each in zip(keepers, figures, strict=True)]
        total = ResidentStats(
            state=f"{sum(1 for each in found if each.state == 'running')}/{len(found)}",
            uptime=max((each.uptime for each in found), default=0.0),
            memory=sum(each.memory for each in found),
            cpu=round(sum(each.cpu for each in found), 1),
            cpu_time=round(sum(each.cpu_time for each in found), 3),
            processes=sum(each.processes for each in found),
            instances=sum(each.instances for each in found),
            restarts=sum(each.restarts for each in found),
            log_bytes=sum(each.log_bytes for each in found),
        )
        return ResidentsStats(residents=tuple(found), total=total)

    async def log(
        self, ident: str, count: int, *, follow: bool
    ) -> AsyncGenerator[list[ResidentLogLine], None]:
        """The last lines of one log, or of all with an empty id, and with ``follow`` what is added."""
        await self.house.look()
        keepers = [self._keeper(ident)] if ident else self.house.shown()
        idents = [keeper.ident for keeper in keepers]
        readers = {each: await asyncio.to_thread(self.house.log_from, each, count) for each in idents}
        while True:
            grown = False
            for each, reader in readers.items():
                while lines := await asyncio.to_thread(reader.read):
                    grown = True
                    yield [_line(line, "" if ident else each) for line in lines]
                if not follow and (rest := reader.unfinished()):
                    yield [_line(rest, "" if ident else each)]
            if not follow or self._house is None:
                return
            if not grown:
                await self._wait_any(self._house, readers)
                yield []  # for whoever reads to see whether anybody still listens

    async def _wait_any(self, house: House, readers: dict[str, LogReader]) -> None:
        async with asyncio.TaskGroup() as group:
            waits = [
                group.create_task(house.wait_log(ident, reader.position)) for ident, reader in readers.items()
            ]
            # One more, so that there is always something to wait for.
            waits.append(group.create_task(asyncio.sleep(QUIET_S)))
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    # --- wishes ----------------------------------------------------------------------------------

    async def start(self, ident: str, wanted: ResidentStart) -> ResidentView:
        await self.house.look()
        keeper = self._keeper(ident)
        await _asked(keeper.start(build=wanted.build, adopt=wanted.adopt))
        return self._view(keeper)

    async def stop(self, ident: str, *, kill: bool = False) -> ResidentView:
        keeper = self._keeper(ident)
        await keeper.stop(kill=kill)
        return self._view(keeper)

    async def restart(self, ident: str, wanted: ResidentRestart) -> ResidentView:
        await self.house.look()
        keeper = self._keeper(ident)
        await _asked(keeper.restart(build=wanted.build))
        return self._view(keeper)

    async def start_all(self) -> ResidentsAnswer:
        refused = await self.house.start_all()
        return ResidentsAnswer(
            residents=tuple(self.snapshot()),
            refused=tuple(
                ResidentRefusal(id=ident, code=error.code, params=error.params)
                for ident, refusal in refused.items()
                for error in [_refusal(refusal)]
            ),
        )

    async def stop_all(self) -> ResidentsAnswer:
        await self.house.stop_all()
        return ResidentsAnswer(residents=tuple(self.snapshot()))

    async def switch(self, ident: str, *, on: bool) -> ResidentView:
        await self.house.look()
        keeper = self._keeper(ident)
        try:
            await self.house.set_enabled(keeper.ident, on)
        except CannotEditError as error:
            file = keeper.resident.file if keeper.resident is not None else ""
            raise ControlError("resident_file", {"id": ident, "file": file, "detail": str(error)}) from error
        except KeyError:
            raise ControlError("resident_file", {"id": ident, "file": "", "detail": "it is gone"}) from None
        self._changed(keeper.ident)
        return self._view(keeper)

    async def clear(self, ident: str, wanted: ResidentClear) -> ResidentCleared:
        keeper = self._keeper(ident)
        if not wanted.memory and not wanted.cache:
            raise ControlError("invalid_input", {"field": "directories", "why": "empty"})
        try:
            done = await self.house.clear(keeper.ident, memory=wanted.memory, cache=wanted.cache)
        except ClearRefusedError as error:
            params = {"id": ident, "path": error.path, "why": error.why}
            raise ControlError("resident_clear", params) from error
        except RefusedError as error:
            raise _refusal(error) from error
        except KeyError:
            raise ControlError("resident_file", {"id": ident, "file": "", "detail": "it is gone"}) from None
        return ResidentCleared(
            id=keeper.ident, paths=tuple(done.paths), freed_bytes=done.freed_bytes, left=tuple(done.left)
        )

    # --- inside ----------------------------------------------------------------------------------

    def _keeper(self, ident: str) -> Keeper:
        """By its whole id, or the beginning of one alone."""
        house = self.house
        try:
            return house.get(ident)
        except KeyError:
            found = [keeper for keeper in house.shown() if ident and keeper.ident.startswith(ident)]
        if len(found) == 1:
            return found[0]
        if found:
            names = [keeper.ident for keeper in found]
            raise ControlError("ambiguous_id", {"kind": "resident", "id": ident, "candidates": names})
        raise ControlError("not_found", {"kind": "resident", "id": ident})

    def _changed(self, ident: str) -> None:
        """Publish how it is, or that it is gone."""
        if self._house is None:
            return
        try:
            keeper = self._house.get(ident)
        except KeyError:
            self._gone(ident)
            return
        view = self._view(keeper)
        self._told.add(ident)
        self._conditions.changes.publish("resident", f"resident:{ident}", view)
        if view.state == "gave_up":
            params = {"id": ident, "name": view.name, "why": view.reason, "params": view.reason_params}
            self._conditions.set_condition("resident_gave_up", ident, **params)
        else:
            self._conditions.clear_condition("resident_gave_up", ident)

    def _gone(self, ident: str) -> None:
        if ident in self._told:
            self._told.discard(ident)
            self._conditions.changes.publish("resident_removed", f"resident:{ident}", {"id": ident})
        self._conditions.clear_condition("resident_gave_up", ident)

    def _looked(self) -> None:
        """The files have changed: tell of all, and of what is wrong with them."""
        house = self._house
        if house is None:
            return
        shown = {keeper.ident for keeper in house.shown()}
        mistaken = {mistake.file: mistake for mistake in house.mistakes}
        for file in self._mistaken - mistaken.keys():
            self._conditions.clear_condition("resident_invalid", file)
        for file, mistake in mistaken.items():
            self._conditions.set_condition("resident_invalid", file, **_mistake_params(mistake))
            view = _mistake_view(mistake)
            shown.add(view.id)
            self._told.add(view.id)
            self._conditions.changes.publish("resident", f"resident:{view.id}", view)
        self._mistaken = set(mistaken)
        for ident in self._told - shown:
            self._gone(ident)
        for keeper in house.shown():
            self._changed(keeper.ident)

    def _view(self, keeper: Keeper) -> ResidentView:
        record, resident, machine = keeper.record, keeper.resident, keeper.machine
        state: Any = machine.phase.value
        if record.building and machine.phase is Phase.RUNNING:
            state = "building"
        log_path = str(keeper.place.run_dir(record.start) / "stdout") if record.start else ""
        return ResidentView(
            id=keeper.ident,
            name=resident.name if resident is not None else record.name or keeper.ident,
            version=resident.version if resident is not None else "",
            description=resident.description if resident is not None else "",
            file=resident.file if resident is not None else "",
            enabled=resident is not None and resident.enabled,
            state=state,
            reason="" if record.reason == "building" else record.reason,
            reason_params=record.params,
            pid=keeper.pid if machine.at_work else None,
            started_at=record.started_at or None,
            ended_at=record.ended_at or None,
            exit_code=record.exit_code,
            signal=record.signal,
            restarts=record.restarts,
            next_try_at=text_of(machine.next_at) if machine.next_at else None,
            adopted=record.adopted is not None,
            directory=resident.directory if resident is not None else "",
            log_path=log_path,
        )

    def _stats(self, keeper: Keeper, found: Statistics) -> ResidentStats:
        lives = keeper.pid is not None and keeper.machine.at_work
        uptime_s = seconds_between(keeper.record.started_at, now_text()) if lives else 0.0
        return ResidentStats(
            id=keeper.ident,
            state=self._view(keeper).state,
            uptime=round(max(0.0, uptime_s or 0.0), 3),
            memory=found.usage.memory_bytes,
            cpu=found.usage.cpu_percent,
            cpu_time=found.usage.cpu_s,
            processes=found.usage.processes,
            instances=found.instances,
            restarts=keeper.record.restarts,
            log_bytes=found.log_bytes,
        )


async def _asked(wish: Awaitable[None]) -> None:
    """A wish. Raises ``ControlError`` where it is refused."""
    try:
        await wish
    except (RefusedError, HeldBackError) as error:
        raise _refusal(error) from error


def _refusal(error: RefusedError | HeldBackError) -> ControlError:
    if isinstance(error, HeldBackError):
        return ControlError("barrier_up", {"reason": "update", "until": None})
    return ControlError(error.code, error.params)


def _line(line: bytes, name: str) -> ResidentLogLine:
    return ResidentLogLine(text=line.rstrip(b"\r").decode("utf-8", "replace"), resident=name)


def _mistake_params(mistake: Mistake) -> dict[str, Any]:
    return {"file": mistake.file, "line": mistake.line, "what": mistake.what, "hint": mistake.hint}


def _mistake_view(mistake: Mistake) -> ResidentView:
    name = mistake.file.rpartition("/")[2]
    return ResidentView(
        id=f"file:{name}",
        name=name,
        file=mistake.file,
        state="invalid",
        reason="resident_invalid",
        reason_params=_mistake_params(mistake),
    )
