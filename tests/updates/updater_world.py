"""An installation, a repository, a server and a daemon process that can be ended and started again."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from daemon_core.tasks.barrier import Barrier
from daemon_core.updates import places, update_child
from daemon_core.updates import pointer as deciding
from daemon_core.updates.download import Limits
from daemon_core.updates.fetching import Fetcher
from daemon_core.updates.history import Book, ServerWish
from daemon_core.updates.launcher import choose_for_daemon
from daemon_core.updates.ledger import Listener
from daemon_core.updates.offers import Problem
from daemon_core.updates.policy import Rules, Timing
from daemon_core.updates.stages import Stage
from daemon_core.updates.switching import Limits as SwitchLimits
from daemon_core.updates.switching import Switch
from daemon_core.updates.trial import OnTrial
from daemon_core.updates.trust import Trust
from daemon_core.updates.updater import Updater
from daemon_core.updates.versions import Installation, Store
from tests.updates.mirror import PLATFORM, Mirror, SignedRepository, made_payload
from tests.updates.payloads import write_installation, write_manifest

PATIENCE_S = 20.0
DAEMON_ID = "0196f0a2-0000-7000-8000-000000000001"


class Near(Trust):
    """The same questions and answers, in a thread of this process."""

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(update_child._answer, question)


class World:
    """``async with World(tmp_path) as world``. What is not a process is on the disk."""

    def __init__(self, place: Path, *, filler: int = 0) -> None:
        self.place = place
        self.filler = filler
        self.repo = SignedRepository(place / "repo")
        self.mirror = Mirror(self.repo.directory)
        self.launcher = write_installation(place / "lib", "1.0.0")
        seed = place / "lib" / "payload" / "1.0.0"
        about = {"format": 1, "version": "1.0.0", "platform": PLATFORM, "journal": 1}
        (seed / "payload.json").write_text(json.dumps(about))
        write_manifest(seed, "1.0.0")
        (place / "lib" / "root.json").write_bytes(self.repo.trusted.read_bytes())
        self.environ = {"OSTLER_LAUNCHER": str(self.launcher), "OSTLER_HOME": str(place / "home")}
        self.app = place / "home" / "data" / "app"
        self.rules = Rules(interval_s=3600.0)
        self.offset = dt.timedelta()
        self.ask_in_a_process = False
        """Slower by the start of an interpreter for each check."""
        self.processes: list[Process] = []

    async def __aenter__(self) -> World:
        await self.mirror.__aenter__()
        self.write_install()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self.processes):
            await process.die()
        await self.mirror.__aexit__(kind, error, trace)

    def write_install(self, **changes: object) -> None:
        facts = {"format": 1, "version": "1.0.0", "kind": "tarball", "seed": "payload/1.0.0"}
        facts["url"] = f"{self.mirror.url}/metadata/"
        (self.place / "lib" / "install.json").write_text(json.dumps({**facts, **changes}))

    def publish(self, version: str, **custom: object) -> None:
        payload = made_payload(self.place / "payloads" / version, version, filler=self.filler)
        self.repo.add(version, payload, **custom)
        self.repo.publish()

    def publish_delta(self, start: str, version: str, content: bytes) -> None:
        file = self.place / "made" / f"ostler-{start}-to-{version}-{PLATFORM}.delta"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        custom = self.repo.custom(version)
        self.repo.add_file(file, **{**custom, "kind": "delta", "from": start})
        self.repo.publish()

    def store(self) -> Store:
        return Store(self.app, Installation(str(self.launcher)).seed_dir())

    async def start(self, profile: str = "default", listener: Listener | None = None) -> Process:
        """What the launcher does when the daemon is started."""
        store = self.store()
        await asyncio.to_thread(store.install_seed)
        await asyncio.to_thread(store.change, lambda pointer: pointer)
        choice = await asyncio.to_thread(choose_for_daemon, store, profile, self.environ)
        trial_id = choice.trial.id if choice.trial is not None else ""
        process = Process(self, choice.version, trial_id, profile, listener)
        self.processes.append(process)
        await process.begin()
        return process


class Process:
    """One daemon process, as far as updates are concerned: real updater, switch, trial and barrier."""

    def __init__(
        self, world: World, version: str, trial_id: str, profile: str, listener: Listener | None = None
    ) -> None:
        self.world = world
        self.version = version
        self.barrier = Barrier()
        self.busy = False
        self.way_made = asyncio.Event()
        self.blocked: Problem | None = None
        self.settled: list[tuple[str, Problem | None, str]] = []
        self._changed = asyncio.Event()
        self._quiet = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        store = world.store()
        quick = SwitchLimits(claims_s=1, stretches_s=0.1, healthy_s=5, settle_s=0)
        switch = Switch(
            store, Installation(str(world.launcher)), self, version=version, profile=profile, limits=quick
        )
        self.updater = Updater(
            store=store,
            switch=switch,
            trust=(Trust if world.ask_in_a_process else Near)(
                dict(os.environ), limit_s=10, read_timeout_s=1
            ),
            fetcher=Fetcher(store, world.app / "downloads", PLATFORM),
            listener=listener or self,
            running=version,
            platform=PLATFORM,
            bucket=DAEMON_ID,
            find_place=lambda: places.find(world.environ, world.rules.url),
            find_seed=Installation(str(world.launcher)).seed_dir,
            rules=lambda: world.rules,
            busy=lambda: self.busy,
            quiet=self.quiet,
            profile=profile,
            timing=Timing(
                first_least_s=0.0, first_most_s=0.01, retry_first_s=30.0, quiet_s=0.01, settle_s=0.0,
                announce_s=30.0, network_least_s=0.0, network_most_s=0.01,
            ),
            limits=Limits(
                connect_s=2, stall_s=0.3, slow_bytes=1, attempts=1, first_pause_s=0.01, floor_bytes=0
            ),
            rng=random.Random(1),
            now=lambda: dt.datetime.now(dt.UTC) + world.offset,
        )  # fmt: skip
        self.trial = (
            OnTrial(store, trial_id, reopen=lambda: None, decided=lambda _: self.updater.look())
            if trial_id
            else None
        )

    # --- the daemon ------------------------------------------------------------------------------

    async def begin(self) -> None:
        await self.updater.open()
        self._tasks.append(asyncio.create_task(self.updater.run()))

    async def prove(self) -> None:
        """The version on trial works; returns when it is kept."""
        assert self.trial is not None
        await self.trial.prove([])

    async def fail(self) -> None:
        """The version on trial finds that it does not work here."""
        assert self.trial is not None
        await asyncio.to_thread(self.trial.fail, "no such luck")

    async def die(self) -> None:
        """At once, like a process that was killed."""
        if self in self.world.processes:
            self.world.processes.remove(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.updater.close()

    def set_busy(self, busy: bool) -> None:
        self.busy = busy
        if busy:
            self._quiet.clear()
        else:
            self._quiet.set()

    # --- what the switch asks of it --------------------------------------------------------------

    async def quiet(self) -> None:
        await self._quiet.wait()

    async def between_stretches(self) -> None:
        pass

    def make_way(self) -> None:
        self.updater.leaving()
        self.way_made.set()

    # --- what the updater tells ------------------------------------------------------------------

    def update_changed(self) -> None:
        self._changed.set()

    def update_blocked(self, problem: Problem | None, since: str) -> None:
        self.blocked = problem
        self._changed.set()

    def wish_settled(self, wish: ServerWish, problem: Problem | None, running: str) -> None:
        self.settled.append((wish.request_id, problem, running))
        self._changed.set()

    # --- what tests look at ----------------------------------------------------------------------

    @property
    def book(self) -> Book:
        return self.updater.book

    @property
    def stage(self) -> Stage:
        return self.updater.book.state.stage

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a condition; every change is looked at."""
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self._changed.wait()

    async def until_stage(self, *wanted: Stage) -> None:
        try:
            await self.until(lambda: self.stage in wanted)
        except TimeoutError:
            raise AssertionError(f"{self.book.state} instead of {wanted}") from None

    async def until_way_made(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.way_made.wait()


def pointer_of(world: World) -> deciding.Pointer:
    return world.store().pointer()
