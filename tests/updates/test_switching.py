"""The switch in a daemon and the proof of a version on trial, over real files."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from daemon_core.tasks.barrier import Barrier, BarrierState, BarrierUpError
from daemon_core.updates import pointer as deciding
from daemon_core.updates import trial as proving
from daemon_core.updates.errors import UpdateError
from daemon_core.updates.files import try_lock
from daemon_core.updates.launcher import choose_for_daemon
from daemon_core.updates.pointer import Trial
from daemon_core.updates.switching import UPDATE_HOLDER, Limits, Switch
from daemon_core.updates.trial import Check, OnTrial, TrialState
from daemon_core.updates.versions import Installation, Store
from tests.updates.faulty_files import Fault, FaultyFiles
from tests.updates.payloads import write_installation, write_payload

OLD, NEW = "1.0", "1.1"


class Host:
    """What a switch needs of a daemon: a real barrier, and tasks as the test says."""

    def __init__(self) -> None:
        self.barrier = Barrier()
        self.idle = asyncio.Event()
        self.over = asyncio.Event()
        self.over.set()
        self.left = asyncio.Event()
        self.stages: list[str | None] = []
        self.switch: Switch | None = None

    async def quiet(self) -> None:
        await self.idle.wait()

    async def between_stretches(self) -> None:
        await self.over.wait()

    def update_changed(self) -> None:
        if self.switch is not None:
            self.stages.append(self.switch.pending.stage if self.switch.pending else None)

    def make_way(self) -> None:
        self.left.set()


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        launcher = write_installation(root / "installed", OLD, small=True)
        self.installation = Installation(str(launcher))
        self.host = Host()
        self.switch = self.switch_of(Store(root / "o" / "data" / "app", self.installation.seed_dir()))
        self.store = self.switch.store
        self.store.change(lambda pointer: pointer)
        write_payload(Path(self.store.versions_dir) / NEW, NEW, small=True)

    def switch_of(self, store: Store, **limits: float) -> Switch:
        self.host.switch = Switch(
            store,
            self.installation,
            self.host,
            version=OLD,
            profile="default",
            limits=Limits(**limits),  # type: ignore[arg-type]
        )
        return self.host.switch

    async def refused(self, work: Coroutine[Any, Any, None]) -> str:
        """The code of a refusal; nothing is held and nothing is on trial after it."""
        with pytest.raises(UpdateError) as refusal:
            await asyncio.wait_for(work, 30)
        assert self.switch.pending is None
        assert self.host.barrier.state is BarrierState.DOWN
        stored = self.store.stored()
        assert stored is None or stored.trial is None
        return refusal.value.code


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OSTLER_HOME", str(tmp_path / "o"))
    return World(tmp_path)


async def test_it_waits_for_a_quiet_moment_holds_the_barrier_and_leaves(world: World) -> None:
    host, switch = world.host, world.switch
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(switch.apply(NEW, quiet_s=1000))
        await until(lambda: switch.pending is not None and switch.pending.until != "")
        assert switch.pending is not None
        assert switch.pending.stage == "waiting"
        with host.barrier.claiming():
            host.idle.set()
            await until(lambda: switch.pending is not None and switch.pending.stage == "holding")
            with pytest.raises(BarrierUpError) as refusal, host.barrier.starting():
                pass
            assert refusal.value.holders == (UPDATE_HOLDER,)
            stored = world.store.stored()
            assert stored is not None
            assert stored.trial is None, "not while a claim is on its way"
        await host.left.wait()
        stored = world.store.stored()
        assert stored is not None
        assert stored.trial is not None
        assert (stored.version, stored.trial.version, stored.trial.profile) == (OLD, NEW, "default")
        assert host.barrier.state is BarrierState.UP
        assert host.stages[-1] == "switching"
        assert world.store.is_complete(OLD), "what is gone back to is not left to the installer"
        with pytest.raises(UpdateError) as busy:
            await switch.apply(NEW)
        assert busy.value.code == "busy"
        applying.cancel()


async def test_somebody_in_a_hurry_ends_the_wait(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(world.switch.apply(NEW, quiet_s=1000))
        await until(lambda: world.switch.pending is not None and world.switch.pending.until != "")
        world.switch.hurry()
        await world.host.left.wait()
        applying.cancel()


async def test_claims_that_do_not_come_home_call_it_off(world: World) -> None:
    world.switch = world.switch_of(world.store, claims_s=0.05)
    with world.host.barrier.claiming():
        assert await world.refused(world.switch.apply(NEW)) == "claims"
        with world.host.barrier.claiming():
            pass


async def test_a_task_that_is_long_in_preparation_does_not_hold_it_up(world: World) -> None:
    world.switch = world.switch_of(world.store, stretches_s=0.05)
    world.host.over.clear()
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(world.switch.apply(NEW))
        await world.host.left.wait()
        applying.cancel()


async def test_a_full_disk_calls_it_off(world: World) -> None:
    world.store.install_seed()
    world.switch = world.switch_of(
        Store(
            world.store.app_dir, world.store.seed_dir, FaultyFiles(Fault(0, "ENOSPC", times=10**6, keeps=0))
        )
    )
    assert await world.refused(world.switch.apply(NEW)) == "disk"


async def test_what_cannot_be_switched_to_is_refused_in_words(world: World) -> None:
    store, switch = world.store, world.switch
    assert await world.refused(switch.apply("9.9")) == "version_missing"
    assert await world.refused(switch.apply("../1.1")) == "version_missing"
    assert await world.refused(switch.apply(OLD)) == "current"
    assert await world.refused(switch.rollback()) == "nothing_before"
    write_payload(Path(store.versions_dir) / "0.9", "0.9", small=True)
    assert await world.refused(switch.apply("0.9")) == "older"
    store.begin_trial(Trial(version=NEW, id="x"))
    store.of_trial("x", lambda pointer: deciding.reverted(pointer, deciding.CRASHED))
    assert await world.refused(switch.apply(NEW)) == "version_bad"
    Path(world.installation.launcher).unlink()
    assert await world.refused(switch.apply(NEW, asked=True)) == "launcher_missing"


async def test_from_source_there_is_nothing_to_switch(world: World) -> None:
    switch = Switch(world.store, None, world.host, version=OLD, profile="default")
    assert switch.impossible() == "not_installed"
    assert await world.refused(switch.apply(NEW)) == "not_installed"


async def test_the_user_may_try_a_failed_one_again(world: World) -> None:
    world.store.begin_trial(Trial(version=NEW, id="x"))
    world.store.of_trial("x", lambda pointer: deciding.reverted(pointer, deciding.CRASHED))
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(world.switch.apply(NEW, asked=True))
        await world.host.left.wait()
        applying.cancel()
    trial = world.store.pointer().trial
    assert trial is not None
    world.store.of_trial(trial.id, deciding.committed)
    assert world.store.bad(NEW) is None


async def test_what_another_profile_has_proven_is_the_launchers_to_try_with_this_one(world: World) -> None:
    environ = {"OSTLER_HOME": str(world.root / "o")}
    assert choose_for_daemon(world.store, "default", environ).trial is None
    world.store.change(lambda pointer: pointer._replace(version=NEW, previous=OLD))
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(world.switch.apply(NEW))
        await world.host.left.wait()
        applying.cancel()
    assert world.store.pointer().trial is None
    world.switch.pending = None
    world.host.barrier.let_go(UPDATE_HOLDER)
    chosen = choose_for_daemon(world.store, "default", environ)
    assert (chosen.version, chosen.trial is not None) == (NEW, True)
    trial = world.store.pointer().own["default"].trial
    assert trial is not None
    assert trial == chosen.trial
    assert world.store.pointer().trial is None, "nobody else's daemon takes part"

    # Where it does not work, it is tried again only if the user wants that.
    world.store.of_trial(trial.id, lambda pointer: deciding.reverted(pointer, deciding.CRASHED))
    assert choose_for_daemon(world.store, "default", environ).version == OLD
    assert await world.refused(world.switch.apply(NEW)) == "version_bad"
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(world.switch.apply(NEW, asked=True))
        world.host.left.clear()
        await world.host.left.wait()
        applying.cancel()
    chosen = choose_for_daemon(world.store, "default", environ)
    assert chosen.trial is not None
    world.store.of_trial(chosen.trial.id, deciding.committed)
    chosen = choose_for_daemon(world.store, "default", environ)
    assert (chosen.version, chosen.trial) == (NEW, None)


async def test_the_trial_of_another_profile_is_let_end(world: World) -> None:
    world.store.begin_trial(Trial(version=NEW, id="x", profile="work"))
    place = world.root / "o" / "state" / "profiles" / "work"
    place.mkdir(parents=True)
    with try_lock(str(place / "daemon.lock")) or pytest.fail("the lock is taken"):
        with pytest.raises(UpdateError) as refusal:
            await world.switch.apply(NEW)
        assert refusal.value.code == "trial"


def test_two_processes_that_change_the_pointer_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "app", str(write_payload(tmp_path / "seed", OLD, small=True)))
    program = (
        "import sys; from daemon_core.updates.versions import Store, Bad\n"
        "store = Store(sys.argv[1], sys.argv[2])\n"
        "for n in range(6):\n"
        "    store.change(lambda p: p._replace(bad={**p.bad, f'{sys.argv[3]}.{n}': Bad('asked')}))\n"
    )
    changers = [
        subprocess.Popen([sys.executable, "-c", program, store.app_dir, store.seed_dir, str(number)])
        for number in (2, 3, 4)
    ]
    assert [changer.wait() for changer in changers] == [0, 0, 0]
    assert len(store.pointer().bad) == 18


# --- the proof ----------------------------------------------------------------------------------------


class Proof:
    def __init__(self, world: World, files: FaultyFiles | None = None, **times: float) -> None:
        trial = Trial(version=NEW, id="t", **{"healthy_s": 30.0, "settle_s": 0.0, **times})  # type: ignore[arg-type]
        world.store.begin_trial(trial)
        self.store = world.store
        self.opened = 0
        self.decided: list[TrialState] = []
        store = Store(world.store.app_dir, world.store.seed_dir, files)
        self.on_trial = OnTrial(store, "t", reopen=self.reopen, decided=self.decided.append)

    def reopen(self) -> None:
        stored = self.store.stored()
        assert stored is not None
        assert stored.trial is not None
        assert stored.trial.healthy, "claims are possible when it is on the disk that it works"
        self.opened += 1


async def works() -> None:
    return None


async def breaks() -> None:
    raise ValueError("no such table")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_what_works_is_committed(world: World) -> None:
    proof = Proof(world)
    await proof.on_trial.prove([Check("it works", works)])
    assert (proof.opened, proof.decided) == (1, [TrialState.COMMITTED])
    pointer = world.store.pointer()
    assert (pointer.version, pointer.previous, pointer.trial) == (NEW, OLD, None)
    proof.on_trial.stop()
    assert world.store.pointer() == pointer


async def test_what_breaks_after_it_was_found_healthy_is_not_kept(world: World) -> None:
    proof = Proof(world, settle_s=0.05)
    asked = 0

    async def once() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise ValueError("no answer")

    await proof.on_trial.prove([Check("it answers", once)])
    assert (proof.opened, proof.decided) == (1, [TrialState.FAILED])
    bad = world.store.bad(NEW)
    assert bad is not None
    assert (bad.reason, bad.detail) == (deciding.UNHEALTHY, "it answers: no answer")


async def test_a_healthy_version_shows_that_it_lives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "BEAT_S", 0.01)
    proof = Proof(world, settle_s=3600.0)
    async with asyncio.TaskGroup() as group:
        proving_it = group.create_task(proof.on_trial.prove([]))
        await until(lambda: (trial := world.store.pointer().trial) is not None and trial.beat_s == 0.01)
        for _ in range(3):
            before = world.store.beaten_at()
            await until(lambda before=before: world.store.beaten_at() != before)  # type: ignore[misc]
        proving_it.cancel()


async def test_where_that_cannot_be_shown_nobody_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = Proof(world)

    def refused(path: str) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(proof.on_trial.store.files, "touch", refused)
    beats: list[float] = []

    async def look() -> None:
        trial = world.store.pointer().trial
        assert trial is not None
        beats.append(trial.beat_s if trial.healthy else -1.0)

    await proof.on_trial.prove([Check("its beat", look)])
    assert proof.decided == [TrialState.COMMITTED]
    assert beats == [-1.0, 0.0]


@pytest.mark.parametrize(("check", "said"), [(breaks, "no such table"), (hangs, "not in 0.05 s")])
async def test_what_does_not_work_says_why(
    world: World, check: Callable[[], Coroutine[Any, Any, None]], said: str
) -> None:
    proof = Proof(world, healthy_s=0.05)
    await proof.on_trial.prove([Check("its journal", check)])
    assert (proof.opened, proof.decided) == (0, [TrialState.FAILED])
    bad = world.store.bad(NEW)
    assert bad is not None
    assert bad.reason == deciding.UNHEALTHY
    assert bad.detail.startswith("its journal: ")
    assert said in bad.detail


async def test_a_mark_that_cannot_be_written_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "RETRY_S", 0.001)
    proof = Proof(world, FaultyFiles(Fault(0, "ENOSPC", times=4, keeps=0)))
    await proof.on_trial.prove([])
    assert proof.decided == [TrialState.COMMITTED]


async def test_a_trial_that_somebody_else_has_decided_is_left(world: World) -> None:
    proof = Proof(world)
    world.store.of_trial("t", lambda pointer: deciding.reverted(pointer, deciding.HUNG))
    await proof.on_trial.prove([Check("it works", works)])
    assert (proof.opened, proof.decided) == (0, [TrialState.GONE])
    assert world.store.pointer().version == OLD


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - much of it is on the disk
            await asyncio.sleep(0.005)
