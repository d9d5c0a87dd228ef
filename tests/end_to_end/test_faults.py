"""The real daemon behind a network that misbehaves: nothing is lost or doubled, every state has its reason.

``OSTLER_TEST_FAULTS`` sets the number of random stories (3 if unset).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from daemon_core.hub import Limits
from tests.end_to_end.faults_world import FaultsWorld, HurriedHome, check_served
from tests.end_to_end.home import PATIENCE_S, wait_until
from tests.end_to_end.servers_world import aside, name_of
from tests.support import fault_proxy as faults
from tests.support.fake_server import FakeServer, FakeTask
from tests.support.fault_proxy import PASS, Asked, Fault, FaultProxy
from tests.support.hub_server import HubServer
from tests.support.scripted_agent import script

pytestmark = pytest.mark.timeout(300)
SLOTS = 6
STORIES = int(os.environ.get("OSTLER_TEST_FAULTS", "3"))

FAULTS: dict[str, Fault] = {
    "slow": faults.Slow(0.3, 0.3),
    "too slow": faults.Slow(0.0, 2.5),
    "request cut": faults.CutRequest(0.7),
    "request cut in its head": faults.CutRequest(0.1),
    "answer cut": faults.CutAnswer(0.9),
    "answer cut in its head": faults.CutAnswer(0.05),
    "reset before": faults.ResetBefore(),
    "reset after": faults.ResetAfter(),
    "twice": faults.Twice(),
    "429": faults.Instead(429, '{"error":"slow down"}', "application/json", (("Retry-After", "1"),)),
    "500": faults.Instead(500, '{"error":"failed to persist"}', "application/json"),
    "500 after": faults.Instead(500, '{"error":"failed to answer"}', "application/json", acted=True),
    "502": faults.Instead(502, faults.BAD_GATEWAY),
    "502 after": faults.Instead(502, faults.BAD_GATEWAY, acted=True),
    "a proxy that lost the server": faults.Instead(404, "404 page not found", "text/plain"),
    "a firewall": faults.Instead(403, "<html>This request was blocked</html>"),
    "portal": faults.Instead(200, "<html>sign in to the hotel's network</html>"),
    "elsewhere": faults.Instead(302, "", headers=(("Location", "https://hotel.invalid/"),)),
    "half a JSON": faults.HalfJson(),
    "wrong types": faults.WrongTypes(),
    "more fields": faults.MoreFields(),
    "black hole": faults.BlackHole(),
    "black hole after": faults.BlackHole(acted=True),
}
CALLS = (
    "lease", "start", "status", "session", "messages", "messages_since", "progress", "usage", "complete",
    "fail",
)  # fmt: skip
"""Of one task; a claim is nobody's yet."""


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.add_workspace("Team")
        made.redeliver_s = 2.0
        yield made


@pytest.fixture
async def proxy(server: FakeServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.port) as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, proxy: FaultProxy) -> AsyncIterator[FaultsWorld]:
    """Gone before its proxy and server: it would knock while they close."""
    home = HurriedHome(tmp_path, environ={"OSTLER_DAEMON_SLOTS": str(SLOTS)})
    yield FaultsWorld(home)
    await aside(home.close)


async def signed_in(world: FaultsWorld, server: FakeServer, proxy: FaultProxy) -> tuple[str, str]:
    """A daemon that is connected; gives the connection's name and the shell's runtime."""
    await world.start()
    name = await world.sign_in(proxy.url)
    return name, (await world.runtime(server)).id


async def all_ended(server: FakeServer, tasks: list[FakeTask], patience_s: float = 90.0) -> None:
    await server.until(lambda: all(task.status in ("completed", "failed") for task in tasks), patience_s)


# --- every fault at every call ------------------------------------------------------------------------


async def test_every_call_of_a_task_survives_every_fault(
    world: FaultsWorld, server: FakeServer, proxy: FaultProxy
) -> None:
    name, runtime = await signed_in(world, server, proxy)
    wanted: dict[tuple[str, str], Fault] = {}
    doubled: set[str] = set()
    tasks = []
    claude = (await world.runtime(server, "claude")).id
    for number, (call, kind) in enumerate(itertools.product(CALLS, FAULTS)):
        mark = f"t{number}"
        if call in ("session", "usage"):  # the shell has neither
            said = script({"lines": 3, "text": mark + " {n}\n"})
            task = server.add_task(claude, hint=False, chat_session_id=mark, chat_message=said)
        else:
            said = world.command(mark, 1.3 if call == "status" else 0.0) + (
                "; exit 3" if call == "fail" else ""
            )
            task = server.add_task(runtime, hint=False, chat_session_id=mark, chat_message=said)
        if call == "lease":  # only kept while the start takes its time
            wanted["start", task.id] = faults.Slow(0.9)
        if call == "messages_since":  # only asked when an answer was lost
            wanted["messages", task.id] = faults.ResetAfter()
        if call == "messages" and kind == "twice":
            doubled.add(task.id)
        wanted[call, task.id] = FAULTS[kind]
        tasks.append(task)

    def plan(asked: Asked) -> Fault:
        return wanted.pop((asked.route, asked.task_id), PASS)

    proxy.plan = plan
    server.push("daemon:task_available", {})
    await all_ended(server, tasks, 200)
    await world.at_rest()
    check_served(server, tasks, frozenset(doubled))
    for task, (call, _) in zip(tasks, itertools.product(CALLS, FAULTS), strict=True):
        assert task.status == ("failed" if call == "fail" else "completed"), task
        assert task.starts == 1
        said = "".join(m["content"] for m in {m["seq"]: m for m in task.messages}.values())
        assert len(said.splitlines()) == 3, said
    assert len(world.check_log(SLOTS)) == len(tasks) - 2 * len(FAULTS)
    assert wanted == {}, "every fault has struck"
    assert set(proxy.done) == {type(fault).__name__ for fault in FAULTS.values()}
    await world.wait_status(name, "connected")
    await world.every_state_has_a_reason()


LOST_CLAIMS = (
    "answer cut", "reset after", "twice", "500 after", "half a JSON", "wrong types", "black hole after",
    "502", "429",
)  # fmt: skip
"""For claims of many runtimes at once, which are as other claims but for these."""


@pytest.mark.parametrize("route", ["claim", "claim_many"])
async def test_claims_survive_every_fault(
    world: FaultsWorld, server: FakeServer, proxy: FaultProxy, route: str
) -> None:
    server.later = route == "claim_many"
    name, runtime = await signed_in(world, server, proxy)
    coming = [FAULTS[kind] for kind in LOST_CLAIMS] if server.later else list(FAULTS.values())
    proxy.plan = lambda asked: coming.pop(0) if asked.route == route and coming else PASS
    tasks = [world.add_logged(server, runtime, f"t{number}", hint=not server.later) for number in range(30)]
    await all_ended(server, tasks)
    await server.until(lambda: not coming, PATIENCE_S)
    await world.at_rest()
    check_served(server, tasks)
    # One that the daemon could not read was failed in words; all others were done.
    failed = [task for task in tasks if task.status == "failed"]
    assert all("not understand" in task.reports[0].body["error"] for task in failed)
    assert len(failed) <= 2
    assert len(world.check_log(SLOTS)) == len(tasks) - len(failed)
    await world.wait_status(name, "connected")


@pytest.mark.parametrize("call", ["renew", "workspaces", "register", "heartbeat", "repos", "profiles", "ws"])
async def test_every_other_call_survives_every_fault(
    world: FaultsWorld, server: FakeServer, proxy: FaultProxy, call: str
) -> None:
    """Each is met by all faults, one after the other, while tasks come."""
    name, runtime = await signed_in(world, server, proxy)
    coming = iter(FAULTS.values())
    proxy.plan = lambda asked: next(coming, PASS) if asked.route == call else PASS
    if call in ("renew", "register"):
        await aside(world.home.kill)  # these are asked at a start
        await world.start()
    elif call == "ws":
        proxy.cut()
    tasks = [world.add_logged(server, runtime, f"t{number}") for number in range(5)]
    await all_ended(server, tasks)
    check_served(server, tasks)
    proxy.plan = lambda asked: PASS
    await aside(lambda: world.home.call("POST", "/v1/connections/try-again", {}))
    await world.wait_status(name, "connected")
    last = world.add_logged(server, (await world.runtime(server)).id, "last")
    await all_ended(server, [last])
    await world.at_rest()
    check_served(server, [*tasks, last])
    assert not server.orphans or all(task.status == "completed" for task in tasks)


# --- a real server --------------------------------------------------------------------------------------


async def test_a_hub_behind_faults_and_restarts_has_every_task_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    limits = Limits(lease_s=2, redelivery_s=2)
    async with (
        HubServer(tmp_path / "server.db", limits=limits) as hub,
        FaultProxy(hub.port) as proxy,
    ):
        home = HurriedHome(tmp_path, environ={"OSTLER_DAEMON_SLOTS": str(SLOTS)})
        world = FaultsWorld(home)
        try:
            await world.start()
            name = await world.sign_in(proxy.url, hub.token)
            await aside(lambda: wait_until(lambda: hub.runtimes("shell"), "the shell at the hub"))
            agent = await hub.agent("Shell", hub.runtimes("shell")[0])
            # What cannot be read of a claim is failed in words; here everything is to be done.
            kinds = [kind for kind in FAULTS if kind != "wrong types"]
            proxy.plan = lambda asked: FAULTS[chance.choice(kinds)] if chance.random() < 0.25 else PASS
            tasks = []
            for number in range(40):
                tasks.append(await hub.chat(agent, world.command(f"t{number}", lines=20)))
                if number == 15:
                    await hub.restart()
                elif number == 25:
                    await aside(home.kill)
                    await aside(home.launch)
            proxy.plan = lambda asked: PASS

            def over() -> bool:
                return all(hub.status(task) in ("completed", "failed") for task in tasks)

            await aside(lambda: wait_until(over, "all tasks to end at the hub", 90))
            await world.at_rest()
            for task in tasks:
                if hub.check(task) != "completed":  # killed in the middle of its claim: given back
                    facts = hub.rows("SELECT failure_reason, started_at FROM task WHERE id = ?", task)
                    assert facts == [("runtime_recovery", None)]
                    continue
                ((answer,),) = hub.rows(
                    "SELECT content FROM chat_message WHERE role = 'assistant' AND task_id = ?", task
                )
                assert len(answer.splitlines()) == 20
            world.check_log(SLOTS)
            assert sum(hub.status(task) == "completed" for task in tasks) >= len(tasks) - 1
            await world.wait_status(name, "connected")
        finally:
            await aside(home.close)


# --- sockets that lie -----------------------------------------------------------------------------------


async def test_a_half_open_websocket_is_noticed_and_replaced(
    world: FaultsWorld, server: FakeServer, proxy: FaultProxy
) -> None:
    name, runtime = await signed_in(world, server, proxy)
    await server.until(lambda: len(server.sockets) == 1, PATIENCE_S)
    sockets = len(server.handshakes)
    assert proxy.freeze() == 1
    task = world.add_logged(server, runtime, "t")  # its hint is lost
    await all_ended(server, [task])
    await server.until(lambda: len(server.handshakes) > sockets, PATIENCE_S)
    assert all(runtime.online for runtime in server.runtimes.values())
    check_served(server, [task])
    await world.wait_status(name, "connected")


# --- states and their reasons ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outage", "reason"),
    [
        ("refused", "refused"),
        ("reset before", "reset"),
        ("black hole", "timeout"),
        ("502", "http_status"),
        ("429", "http_status"),
        ("a proxy that lost the server", "not_the_server"),
        ("portal", "not_the_server"),
        ("elsewhere", "not_the_server"),
        ("half a JSON", "unreadable"),
        ("wrong types", "unreadable"),
    ],
)
async def test_an_outage_has_its_reason_and_ends_by_itself(
    world: FaultsWorld, server: FakeServer, proxy: FaultProxy, outage: str, reason: str
) -> None:
    name, runtime = await signed_in(world, server, proxy)
    go = world.home.root / "go"
    command = f"while [ ! -e {go} ]; do sleep 0.05; done; echo made it"
    task = server.add_task(runtime, chat_session_id="c", chat_message=command)

    def in_state(state: str) -> bool:
        return world.home.journal("SELECT state FROM tasks") == [(state,)]

    await aside(lambda: wait_until(lambda: in_state("started"), "the run to begin"))
    if outage == "refused":
        await proxy.close_door()
    else:
        proxy.plan = lambda asked: FAULTS[outage]
        proxy.cut()
    found = await world.wait_status(name, "unreachable")
    assert (found["reason"], found["reason_params"]["reason"]) == ("server_unreachable", reason)
    assert found["since"]
    assert found["next_try_at"]
    await world.every_state_has_a_reason()
    conditions = {each["code"]: each for each in (await world.status())["conditions"]}
    assert conditions["server_unreachable"]["action"]
    said = await world.ostler("daemon", "status")
    assert name in said.out
    if reason == "not_the_server":
        assert "something else answers in its place" in said.out + said.err
    go.touch()  # it ends while nobody can be told
    await aside(lambda: wait_until(lambda: in_state("ended"), "the task to end here"))
    # Where only answers are spoilt, the server has heard of it and the daemon does not know that.
    assert task.status == "running" or reason == "unreadable"
    proxy.plan = lambda asked: PASS
    await proxy.open_door()
    await world.wait_status(name, "connected")
    await all_ended(server, [task])
    await world.at_rest()
    assert server.check(task.id).body["output"] == "made it"
    assert "server_unreachable" not in {each["code"] for each in (await world.status())["conditions"]}


async def test_the_barrier_waits_for_a_slow_claim_and_nothing_is_claimed_while_it_is_up(
    world: FaultsWorld, server: FakeServer, proxy: FaultProxy
) -> None:
    _, runtime = await signed_in(world, server, proxy)
    claims: list[str] = []
    seen = asyncio.Event()

    def plan(asked: Asked) -> Fault:
        if asked.route != "claim":
            return PASS
        claims.append("asked")
        seen.set()
        return faults.Slow(0.4, 0.4)

    proxy.plan = plan
    first = world.add_logged(server, runtime, "first")
    await seen.wait()
    await aside(lambda: world.home.call("POST", "/v1/daemon/pause", {}))  # answered when it is up
    assert world.home.journal("SELECT task_id FROM tasks") == [(first.id,)]
    while_up = len(claims)
    later = [world.add_logged(server, runtime, f"later{number}") for number in range(3)]
    await all_ended(server, [first])  # it was on its way, and is a task like any other
    await asyncio.sleep(2.5)  # two polls: that nothing happens can only be waited for
    assert len(claims) == while_up
    assert {task.status for task in later} == {"queued"}
    await aside(lambda: world.home.call("POST", "/v1/daemon/resume", {}))
    await all_ended(server, later)
    await world.at_rest()
    check_served(server, [first, *later])


# --- any order of everything ----------------------------------------------------------------------------

_FAULT = st.sampled_from(sorted(FAULTS))
_STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 4), st.sampled_from([0.0, 0.2, 1.0])),
    st.tuples(st.just("spoil"), st.lists(_FAULT, min_size=1, max_size=12), st.floats(0.1, 0.6)),
    st.tuples(st.just("heal")),
    st.tuples(
        st.just("kill"),
        st.sampled_from(
            ["", "started", "before_spawn", "committed", "result", "report_messages", "reported_complete"]
        ),
    ),
    st.tuples(st.just("restart server")),
    st.tuples(st.just("cut")),
    st.tuples(st.just("freeze")),
    st.tuples(st.just("shut door"), st.floats(0.1, 1.5)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.floats(0.05, 1.0)),
)


def given_back(task: FakeTask) -> bool:
    """Killed in the middle of a claim, the daemon never knew of the task; it then says that it has nothing of
    this runtime, and the server fails the task by itself."""
    return task.status == "failed" and task.starts == 0 and not task.reports


class Story:
    """One story and what it leaves to be checked."""

    def __init__(
        self, world: FaultsWorld, server: FakeServer, proxy: FaultProxy, chance: random.Random
    ) -> None:
        self.world = world
        self.server = server
        self.proxy = proxy
        self.random = chance
        self.tasks: list[FakeTask] = []
        self.cancelled: set[str] = set()
        self.doubled: set[str] = set()
        self.unread = 0
        self.runtime = ""

    def spoil(self, kinds: list[str], share: float) -> None:
        def plan(asked: Asked) -> Fault:
            if self.random.random() >= share:
                return PASS
            kind = self.random.choice(kinds)
            if kind == "twice" and asked.route == "messages":
                self.doubled.add(asked.task_id)
            self.unread += kind == "wrong types" and asked.route == "claim"
            return FAULTS[kind]

        self.proxy.plan = plan

    async def step(self, what: tuple[Any, ...]) -> None:
        world, server, proxy, home = self.world, self.server, self.proxy, self.world.home
        match what:
            case "add", count, seconds:
                for _ in range(count):
                    mark = f"t{len(self.tasks)}"
                    self.tasks.append(world.add_logged(server, self.runtime, mark, seconds, lines=40))
            case "spoil", kinds, share:
                self.spoil(kinds, share)
            case ("heal",):
                proxy.plan = lambda asked: PASS
            case "kill", place:
                await aside(home.kill)
                daemon = await aside(lambda: home.launch(kill_at=place))

                def up() -> bool:
                    return daemon.poll() is not None or bool(home.status().get("pid"))

                await aside(lambda: wait_until(up, "the daemon to answer or to be killed"))
                assert daemon.poll() in (None, -signal.SIGKILL), home.said()
            case ("restart server",):
                await server.stop()
                await server.start()
            case ("cut",):
                proxy.cut()
            case ("freeze",):
                proxy.freeze()
            case "shut door", seconds:
                await proxy.close_door()
                await asyncio.sleep(seconds)
                await proxy.open_door()
            case "cancel", number:
                if self.tasks:
                    task = self.tasks[number % len(self.tasks)]
                    if task.status not in ("completed", "failed"):
                        self.cancelled.add(task.id)
                        server.end_task(task.id)
            case "wait", seconds:
                await asyncio.sleep(seconds)  # the story's own time: nothing is waited for

    async def end(self) -> None:
        self.proxy.plan = lambda asked: PASS
        await aside(self.world.home.kill)
        await self.world.start()
        rest = [task for task in self.tasks if task.id not in self.cancelled]
        await all_ended(self.server, rest)
        await self.world.at_rest()
        rest = [task for task in rest if not given_back(task)]
        check_served(self.server, rest, frozenset(self.doubled))
        assert sum(task.status == "failed" for task in rest) <= self.unread
        for task in self.tasks:
            if task.id in self.cancelled:
                assert not any(report.effective for report in task.reports)
            elif task.status == "completed":
                lines = {message["seq"]: message["content"] for message in task.messages}
                assert len("".join(lines.values()).splitlines()) == 40
        self.world.check_log(SLOTS)
        await self.world.wait_status(name_of(self.proxy), "connected")
        await self.world.every_state_has_a_reason()


async def _tell(steps: list[tuple[Any, ...]], chance: random.Random) -> None:
    root = Path(tempfile.mkdtemp(prefix="ostler-faults-"))
    home = HurriedHome(root, environ={"OSTLER_DAEMON_SLOTS": str(SLOTS)})
    world = FaultsWorld(home)
    try:
        async with FakeServer() as server, FaultProxy(server.port) as proxy:
            server.add_workspace("Team")
            server.redeliver_s = 2.0
            story = Story(world, server, proxy, chance)
            try:
                _, story.runtime = await signed_in(world, server, proxy)
                for step in [("add", 2, 0.2), *steps]:
                    await story.step(step)
                await story.end()
            finally:
                await aside(home.close)  # before its servers: it would knock while they close
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.timeout(120 + 60 * STORIES)
@settings(
    max_examples=STORIES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # time decides, too: smaller stories prove nothing
    print_blob=True,
)
@given(steps=st.lists(_STEP, min_size=4, max_size=14), seed=st.integers(0, 1 << 32))
def test_any_order_of_faults_deaths_and_tasks(steps: list[tuple[Any, ...]], seed: int) -> None:
    asyncio.run(_tell(steps, random.Random(seed)))
