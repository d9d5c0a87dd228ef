"""One claim for all runtimes, at a server that can be asked so; and as before at every other one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from daemon_core.tasks import poller
from daemon_core.tasks.barrier import BarrierState
from daemon_core.tasks.slots import Slots
from tests.support.fake_server import Delay, FakeServer, FakeTask, HangAfter, ResetAfter, Says, Status, refuse
from tests.tasks.world import World, new_world

HELLO = {"text": "hello"}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(poller, "SWEPT_INTERVALS", 10_000)
    async with new_world() as made:
        made.server.later = True
        yield made


async def swept(world: World) -> None:
    """Until the server is asked for all at once, and the pollers' own clocks have run down."""
    await world.until(lambda: world.engine.swept("srv"))
    before = world.claims()
    while True:
        await asyncio.sleep(3 * world.timing.poll_s)
        if world.claims() == before:
            return
        before = world.claims()


def together(server: FakeServer) -> int:
    return len(server.seen("claim_many"))


async def test_time_makes_one_request_and_its_task_runs(world: World) -> None:
    async with world.life():
        await swept(world)
        singles, claims = world.claims(), together(world.server)
        await world.until(lambda: together(world.server) >= claims + 3)
        first, second = world.add(HELLO), world.server.add_task("shell", hint=False, chat_session_id="s",
                                                               chat_message="echo shell")  # fmt: skip
        await world.finished(first)
        await world.finished(second)
        for task in (first, second):
            world.server.check(task.id)
        assert world.claims() == singles, "no runtime was asked for by itself"
        asked = world.server.seen("claim_many")[-1].body
        assert {**asked, "runtime_ids": sorted(asked["runtime_ids"])} == {
            "daemon_id": "0198-daemon", "runtime_ids": ["claude", "shell"], "max_tasks": 1,
        }  # fmt: skip
        await world.assert_idle()


async def test_a_hint_for_one_runtime_is_followed_by_its_poller_and_one_for_all_is_not(world: World) -> None:
    async with world.life():
        await swept(world)
        singles = world.claims()
        world.engine.wake("srv", "shell")
        await world.until(lambda: world.claims() == singles + 1)
        claims = together(world.server)
        world.engine.wake("srv")
        await world.until(lambda: together(world.server) > claims)
        assert world.claims() == singles + 1


async def test_what_is_passed_over_in_silence_is_found_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.always("claim_many", Status(200, '{"tasks":[]}'))
    monkeypatch.setattr(poller, "SWEPT_INTERVALS", 5)
    async with world.life():
        await world.until(lambda: together(world.server) > 5)
        task = world.add(HELLO)
        await world.finished(task)
        assert world.claims() < together(world.server)


@pytest.mark.parametrize(
    "answer", [Status(404, "404 page not found", "text/plain"), refuse(403, "daemon_id mismatch")]
)
async def test_a_server_without_it_is_asked_once_and_for_each_runtime(world: World, answer: Status) -> None:
    world.server.always("claim_many", answer)
    async with world.life():
        await world.until(lambda: together(world.server) == 1)
        task = world.add(HELLO)
        await world.finished(task)
        await world.until(lambda: world.claims() > 8)
        assert together(world.server) == 1
        world.server.heal("claim_many")
        world.engine.wake("srv")  # it came back, and may have been upgraded meanwhile
        await swept(world)
        # And the other way round.
        world.server.later = False
        task, singles = world.add(HELLO), world.claims()
        await world.finished(task)
        await world.until(lambda: world.claims() > singles + 4)
        assert not world.engine.swept("srv")


async def test_a_limit_of_a_provider_holds(world: World) -> None:
    world.slots = Slots(2, {"shell": 1})
    world.server.runtimes["third"] = world.server.runtimes["claude"]
    log, go = world.base / "log", world.base / "go"
    command = f"echo + >> {log}; until [ -e {go} ]; do sleep .01; done; echo - >> {log}"
    async with world.life():
        world.engine.set_runtimes([world.runtime(name) for name in ("claude", "shell", "third")])
        await swept_but_for(world, "shell")
        tasks = [
            world.server.add_task("shell", hint=False, chat_session_id=str(number), chat_message=command)
            for number in range(3)
        ]
        await world.until(lambda: log.exists())
        await world.until(lambda: together(world.server) > 5)
        assert world.slots.in_group("shell") == 1
        go.touch()
        for task in tasks:
            await world.finished(task)
        assert all("shell" not in asked.body["runtime_ids"] for asked in world.server.seen("claim_many"))
    assert log.read_text().split() == ["+", "-"] * 3


async def swept_but_for(world: World, provider: str) -> None:
    """Until all runtimes but one provider's are asked for at once; that one is woken as often."""
    await world.until(lambda: world.engine.swept("srv"))

    def asked() -> int:
        return sum(request.parameters["rid"] == provider for request in world.server.seen("claim"))

    before = asked()
    await world.until(lambda: asked() > before + 2)


async def test_an_answer_that_is_lost_costs_nothing_but_time(world: World) -> None:
    world.server.redeliver_s = 0.2
    async with world.life():
        await swept(world)
        world.server.script("claim_many", ResetAfter(), ResetAfter(), Status(502, "<html>", "text/html"))
        tasks = [world.add(HELLO, chat_session_id=str(number)) for number in range(3)]
        for task in tasks:
            await world.finished(task)
            world.server.check(task.id)
            assert task.starts == 1
        await world.assert_idle()


async def test_no_claim_while_the_barrier_is_up_and_the_barrier_waits_for_one(world: World) -> None:
    async with world.life():
        await swept(world)
        for round_ in range(3):
            world.server.script("claim_many", Delay(0.05))
            before = together(world.server)
            await world.until(lambda before=before: together(world.server) > before)  # type: ignore[misc]
            world.engine.barrier.hold("test")
            await world.engine.barrier.wait_up()
            before = together(world.server)
            task = world.add(HELLO, chat_session_id=str(round_))
            world.engine.wake("srv")
            await asyncio.sleep(0.12)  # two intervals: what must not happen has this long to happen
            assert (together(world.server), task.claims) == (before, 0)
            assert world.engine.barrier.state is BarrierState.UP
            world.engine.barrier.let_go("test")
            await world.finished(task)


async def test_a_connection_that_is_left_claims_no_more(world: World) -> None:
    async with world.life():
        await swept(world)
        world.server.script("claim_many", Delay(0.2))
        task: FakeTask = world.add(HELLO)
        await world.until(lambda: task.claims == 1)
        await world.engine.end_claims("srv")  # the one that is on its way comes home
        assert f"srv/{task.id}" in world.engine.lives
        claims = together(world.server)
        await world.finished(task)
        await asyncio.sleep(0.15)  # three intervals
        assert (together(world.server), world.engine.swept("srv")) == (claims, False)


async def test_a_task_that_is_not_understood_is_failed_in_words_and_a_strangers_is_left(world: World) -> None:
    async with world.life():
        await swept(world)
        odd = world.add(HELLO, priority="high")
        await world.until(lambda: odd.status == "failed")
        assert "not understand" in odd.reports[0].body["error"]
        world.server.redeliver_s = 0.2
        stranger = {"tasks": [{"id": "x", "runtime_id": "nobodys", "workspace_id": "ws1"}]}
        world.server.script("claim_many", Says(stranger), Says({"tasks": None}), Says({}), Says([]))
        task = world.add(HELLO)
        await world.finished(task)
        world.server.check(task.id)
        await world.assert_idle()


async def test_a_server_that_is_stuck_with_one_task_is_not_asked_without_a_pause(world: World) -> None:
    async with world.life():
        await swept(world)
        world.server.always("start", refuse(503, "later"))
        task = world.add(HELLO)
        await world.until(lambda: task.claims == 1)
        world.server.always("claim_many", Says({"tasks": [{"id": task.id, "runtime_id": "claude"}]}))
        before = together(world.server)
        await asyncio.sleep(0.5)  # what must not happen has this long to happen
        assert together(world.server) - before < 40
        world.server.heal()
        world.engine.reconcile("srv")
        await world.finished(task)


async def test_a_server_that_hangs_holds_nothing_but_its_own_claim(world: World) -> None:
    async with world.life():
        await swept(world)
        world.server.always("claim_many", HangAfter())
        claims = together(world.server)
        await world.until(lambda: together(world.server) > claims)
        task = world.server.add_task("shell", hint=False, chat_session_id="s", chat_message="echo x")
        world.engine.wake("srv", "shell")
        await world.finished(task)
