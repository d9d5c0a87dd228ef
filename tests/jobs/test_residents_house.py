"""Residents without a daemon around them, with real shims: the barrier, wishes at once, damage."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon_core.control.resident_desk import BarrierGate
from daemon_core.jobs.residents.house import House
from daemon_core.jobs.residents.keeper import Keeper, RefusedError
from daemon_core.jobs.residents.machine import Phase
from daemon_core.jobs.residents.surroundings import HeldBackError
from daemon_core.processes import RunPhase, outputs, read_state
from daemon_core.tasks.barrier import Barrier
from daemon_core.tasks.owned import Nursery


class Village:
    """One house after the other in the same place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.barrier = Barrier()
        self.work = root / "work"
        self.files = root / "files"
        for each in (self.work, self.files):
            each.mkdir()

    def describe(
        self, ident: str, command: str, more: str = "restart: {policy: always, from: 10ms}\n"
    ) -> None:
        (self.work / ident).mkdir(exist_ok=True)
        script = self.work / ident / "run"
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)
        text = f"id: {ident}\ncommand: ./run\ndirectory: {self.work / ident}\n{more}"
        (self.files / f"{ident}.yaml").write_text(text)

    @asynccontextmanager
    async def house(self, *, own: dict[str, str] | None = None) -> AsyncIterator[House]:
        workers = Nursery("residents")
        house = House(
            files=self.files,
            root=self.root / "state",
            locks=self.root / "locks",
            socket_dir=self.root / "s",
            holder="a test",
            owner=workers,
            gate=BarrierGate(self.barrier),
            environment=lambda: {"PATH": os.environ["PATH"], "OSTLER_TOKEN": "not for residents"},
            own_environment=own or {},
            program_of=lambda name: sys.executable if name == "python" else None,
            own_directories=(self.root / "state",),
        )
        await house.open()
        try:
            yield house
        finally:
            await workers.close()
            await house.detach()


@pytest.fixture
async def village() -> AsyncIterator[Village]:
    root = Path(tempfile.mkdtemp(prefix="res"))
    made = Village(root)
    yield made
    async with made.house() as house:
        for keeper in house.keepers.values():
            await keeper.stop(kill=True)
    shutil.rmtree(root)


async def until(keeper: Keeper, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await keeper.wait_change(1.0)


async def phase(keeper: Keeper, wanted: Phase) -> None:
    await until(keeper, lambda: keeper.machine.phase is wanted)


async def test_nothing_starts_while_an_update_is_due(village: Village) -> None:
    village.describe("one", "sleep 999")
    async with village.house() as house:
        one = house.keepers["one"]
        await phase(one, Phase.RUNNING)
        village.barrier.hold("update")
        await village.barrier.wait_up()
        first = one.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(one, lambda: one.record.reason == "barrier")
        with pytest.raises(HeldBackError):
            await one.restart()
        await one.stop()
        with pytest.raises(HeldBackError):
            await one.start()
        assert one.machine.phase is Phase.STOPPED
        village.barrier.let_go("update")
        await one.start()
        village.barrier.hold("update")
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        await until(one, lambda: one.record.reason == "barrier")
        village.barrier.let_go("update")
        await phase(one, Phase.RUNNING)
        assert one.record.reason == ""


async def test_wishes_that_meet(village: Village) -> None:
    village.describe("one", "echo up; sleep 999")
    async with village.house() as house:
        one = house.keepers["one"]
        await phase(one, Phase.RUNNING)
        for _ in range(5):
            await asyncio.gather(one.stop(), one.start(), one.restart(), one.start())
        await until(one, lambda: one.machine.phase in (Phase.RUNNING, Phase.STOPPED))
        await one.start()
        await phase(one, Phase.RUNNING)
        alive = [
            number
            for number in one.place.starts()
            if read_state(one.place.run_dir(number)).phase is RunPhase.ALIVE
        ]
        assert alive == [one.record.start]


async def test_it_starts_what_its_file_says_at_that_moment(village: Village) -> None:
    village.describe("one", "echo first; sleep 999")
    async with village.house() as house:
        one = house.keepers["one"]
        await phase(one, Phase.RUNNING)
        village.describe("one", "echo second; sleep 999", "name: Another\nrestart: always\n")
        await one.restart()
        assert one.record.name == "Another"
        (village.files / "one.yaml").unlink()
        await house.look()
        assert [keeper.ident for keeper in house.shown()] == ["one"]  # it runs
        await one.stop()
        assert house.shown() == []
        with pytest.raises(RefusedError):
            await one.start()


async def test_its_directory_of_a_start_is_removed_under_it(village: Village) -> None:
    village.describe("one", "echo up; sleep 999")
    async with village.house() as house:
        one = house.keepers["one"]
        await phase(one, Phase.RUNNING)
        pid = one.pid
        shutil.rmtree(one.place.path)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(one, lambda: one.pid not in (None, pid))
        await phase(one, Phase.RUNNING)


async def test_what_it_is_given(village: Village) -> None:
    village.describe("one", "env; sleep 999", "env_file: .env\n")
    (village.work / "one" / ".env").write_text("A=1\nOSTLER_HOME=mine\n")
    async with village.house(own={"OSTLER_HOME": "/ours"}) as house:
        one = house.keepers["one"]
        await phase(one, Phase.RUNNING)
        run_dir = one.place.run_dir(1)
        async with asyncio.timeout(20):
            shim = one.shim
            assert shim is not None
            size = 0
            while b"OSTLER_MARK" not in outputs.read(run_dir, "stdout", 0, 10_000)[1]:
                size = (await shim.watch(size, 0)).stdout_bytes
        given = set(outputs.read(run_dir, "stdout", 0, 10_000)[1].decode().splitlines())
        assert {"A=1", "OSTLER_HOME=/ours", "OSTLER_RESIDENT_ID=one"} <= given
        assert not any("not for residents" in line for line in given)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("env_file: none\n", "env_file"),
        ("provider: nobody\n", "provider_gone"),
        ("directory: none\n", "directory_gone"),
    ],
)
async def test_what_speaks_against_a_start_is_said(village: Village, more: str, reason: str) -> None:
    village.describe("one", "sleep 999", "enabled: false\n")
    path = village.files / "one.yaml"
    lines = [
        line
        for line in path.read_text().splitlines()
        if line.split(":")[0] != more.split(":")[0]
        and not (line.startswith("command") and more.startswith("provider"))
    ]
    path.write_text("\n".join(lines) + "\n" + more)
    async with village.house() as house:
        one = house.keepers["one"]
        with pytest.raises(RefusedError) as refused:
            await one.start()
        assert (refused.value.code, refused.value.params["reason"]) == ("resident_unusable", reason)
        assert one.machine.phase is Phase.STOPPED


async def test_a_program_that_is_not_there(village: Village) -> None:
    more = "restart: {policy: always, from: 10ms, give_up_after: 2}\n"
    village.describe("one", "sleep 999", more)
    (village.work / "one" / "run").unlink()
    async with village.house() as house:
        one = house.keepers["one"]
        await phase(one, Phase.GAVE_UP)
        assert one.record.reason == "not_started"
        assert "check its path" in one.record.params["error"]
        village.describe("one", "sleep 999", more)
        await one.start()
        await phase(one, Phase.RUNNING)


async def test_a_provider_is_the_program(village: Village) -> None:
    (village.files / "p.yaml").write_text(
        f"id: p\nprovider: python\narguments: [-S, -c, 'import time; time.sleep(999)']\n"
        f"directory: {village.work}\n"
    )
    async with village.house() as house:
        await phase(house.keepers["p"], Phase.RUNNING)


async def test_after_the_machine_was_off(village: Village) -> None:
    """Told by the boot's id: what a person said before is over, and so is what ran."""
    village.describe("busy", "sleep 999")
    village.describe("idle", "sleep 999", "enabled: false\n")
    async with village.house() as house:
        await phase(house.keepers["busy"], Phase.RUNNING)
        await house.keepers["busy"].stop()
        await house.keepers["idle"].start()
        await house.keepers["idle"].stop(kill=True)
        house.keepers["idle"].machine.phase = Phase.RUNNING
        for keeper in house.keepers.values():
            keeper.record.boot_id = "an earlier one"
            keeper.keep()
    async with village.house() as house:
        await phase(house.keepers["busy"], Phase.RUNNING)
        assert house.keepers["idle"].machine.phase is Phase.STOPPED


async def test_a_clock_that_was_set_back_makes_no_pause_long(village: Village) -> None:
    village.describe("x", "echo on >>starts; exit 3", "restart: {policy: always, from: 1h, to: 1h}\n")
    starts = village.work / "x" / "starts"
    async with village.house() as house:
        await phase(house.keepers["x"], Phase.WAITING)
        house.keepers["x"].machine.next_at += 365 * 86400  # as if the clock were a year behind
        house.keepers["x"].keep()
    async with village.house() as house:
        await until(house.keepers["x"], lambda: starts.read_text().count("on") == 2)


async def test_many_crash_at_once_and_nothing_is_left(village: Village) -> None:
    for number in range(3):
        more = "restart: {policy: always, from: 0, to: 0s, give_up_after: 25, within: 5m}\n"
        village.describe(f"r{number}", "exit 1", more)
    async with village.house() as house:
        for keeper in house.keepers.values():
            await phase(keeper, Phase.GAVE_UP)
            assert keeper.record.start == 25
            assert len(keeper.place.starts()) <= 21
            assert keeper.pid is None


async def test_two_of_one_program_are_two(village: Village) -> None:
    """The same command in the same directory: told apart by what they are given."""
    village.describe("one", "sleep 999")
    text = (village.files / "one.yaml").read_text()
    (village.files / "two.yaml").write_text(text.replace("id: one", "id: two"))
    async with village.house() as house:
        for keeper in house.keepers.values():
            await phase(keeper, Phase.RUNNING)
            assert (await house.statistics(keeper.ident)).instances == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_build_goes_on_while_no_daemon_lives(village: Village, killed: bool) -> None:
    """And is done again if what kept it was killed: then nobody knows what it left."""
    build = "build: [sh, -c, 'echo building >> built; echo begun; until [ -e go ]; do sleep 0.02; done']\n"
    village.describe("one", "sleep 999", f"restart: {{policy: always, from: 10ms}}\n{build}")
    built = village.work / "one" / "built"
    async with village.house() as house:
        one = house.keepers["one"]
        await phase(one, Phase.RUNNING)
        assert one.record.building
        shim = one.shim
        assert shim is not None
        await shim.watch(0, 0)
        first = shim.info
    if killed:
        os.kill(first.pid, signal.SIGKILL)
    (village.work / "one" / "go").touch()
    async with village.house() as house:
        one = house.keepers["one"]
        await until(one, lambda: one.machine.phase is Phase.RUNNING and bool(one.record.built))
        assert one.record.start == (3 if killed else 2)
        assert built.read_text().count("building") == (2 if killed else 1)
