"""A Codex that says something and does not get on: a stand-in app-server, driven as the real one is."""

from __future__ import annotations

import sys
import time
from typing import Any

from daemon_core.agents.codex import CodexFamily
from daemon_core.agents.family import LaunchRequest
from daemon_core.protocol import failures
from daemon_core.tasks import clock
from daemon_core.tasks.launch import Launcher
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.watchdog import Watchdog, WatchLimits
from tests.tasks.world import World

# Its noise is what the real one tells while nothing goes on.
_STAND_IN = """#!{python}
import json, os, select, sys
from pathlib import Path

go = Path({go!r})

def tell(**fields):
    print(json.dumps(fields), flush=True)

def about(method, **params):
    tell(method=method, params={{"threadId": "t", "turnId": "u", **params}})

answers = {{
    "thread/start": {{"thread": {{"id": "t"}}, "model": "m"}},
    "turn/start": {{"turn": {{"id": "u"}}}},
}}
at_work = said = False
ended = False
rest = b""
while True:
    if select.select([0], [], [], 0.05)[0]:
        data = os.read(0, 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            asked = json.loads(line)
            if "id" in asked:
                tell(id=asked["id"], result=answers.get(asked["method"], {{}}))
            at_work = at_work or asked["method"] == "turn/start"
    if at_work and not said:
        said = True
        {first}
    if at_work:
        about("thread/status/changed", status={{"type": "active"}})
    if go.exists() and not ended:
        ended = True
        {last}
        about("item/completed", item={{"type": "agentMessage", "id": "m", "text": "Hello."}})
        about("turn/completed", turn={{"id": "u", "status": "completed"}})
"""
_TOOL = '{"type": "commandExecution", "id": "i", "command": "make", "status": "%s"}'
STARTS_TOOL = f'about("item/started", item={_TOOL % "inProgress"})'
ENDS_TOOL = f'about("item/completed", item={_TOOL % "completed"})'
THINKS = 'about("item/reasoning/summaryTextDelta", itemId="r", delta="I ponder.")'


def stand_in(world: World, first: str, last: str = "") -> dict[str, Any]:
    """Fields of a life in which the agent is such a program; it ends its turn when ``go`` is there."""
    program = world.bin / "stand-in"
    go = str(world.base / "go")
    program.write_text(
        _STAND_IN.format(python=sys.executable, go=go, first=first or "pass", last=last or "pass")
    )
    program.chmod(0o755)
    family = CodexFamily()
    world.families[family.name] = family
    launcher = Launcher(provider="codex", executable=str(program), family=family)
    return {"launchers": {**world.launchers(), "claude": launcher}}


def watchdog_of(life: TaskLife) -> Watchdog:
    assert life.driver is not None
    return life.driver.watchdog


async def test_one_that_does_not_get_on_is_ended_although_it_speaks(world: World) -> None:
    world.limits = WatchLimits(idle_s=60, progress_s=0.8)
    async with world.life(**stand_in(world, THINKS)):
        task = world.add()
        await world.finished(task, "failed")
        record = await world.record(task)
        assert record.failure_reason == failures.CODEX_SEMANTIC_INACTIVITY
        assert failures.timeout_reason("codex", record.error) == record.failure_reason


async def test_one_with_a_tool_at_work_need_not_get_on(world: World) -> None:
    world.limits = WatchLimits(idle_s=60, tool_s=60, progress_s=60)
    async with world.life(**stand_in(world, STARTS_TOOL, ENDS_TOOL)):
        task = world.add()
        life = await world.running(task)
        watchdog = watchdog_of(life)
        await world.until(lambda: watchdog.kind == "tool")
        world.engine.watch_by(WatchLimits(idle_s=60, tool_s=60, progress_s=0.1))
        assert life.driver is not None
        driver, position = life.driver, life.driver.position
        await world.until(lambda: driver.position > position + 1000)  # some ten times its noise
        world.engine.watch_by(world.limits)
        (world.base / "go").touch()
        await world.finished(task)


def test_only_progress_takes_a_warning_of_it_back() -> None:
    limits = WatchLimits(idle_s=60, progress_s=30)
    reader = CodexFamily().reader(
        LaunchRequest(executable="/bin/codex", prompt="x", work_dir="/w", run_dir="/r")
    )
    watchdog = Watchdog(reader, limits, started_wall=time.time() - 27)
    assert watchdog.view().kind == "progress"
    watchdog.warned = True

    watchdog.heard()
    assert watchdog.view().warned
    watchdog.progressed()
    assert not watchdog.view().warned

    watchdog.limits = WatchLimits(idle_s=10, progress_s=30)
    assert watchdog.view().kind == "idle"  # that is over first
    watchdog.limits = WatchLimits(idle_s=0, progress_s=0)
    assert (watchdog.view().kind, watchdog.view().ends_at) == ("idle", "")


async def test_a_restart_is_no_progress(world: World) -> None:
    world.limits = WatchLimits(idle_s=600, progress_s=60)
    fields = stand_in(world, THINKS)
    async with world.life(**fields):
        task = world.add()
        life = await world.running(task)
        run = life.run.run_id
        await world.until(lambda: life.driver is not None and life.driver.reader.session_id)

        async def last() -> str:
            (found,) = await world.journal.runs(f"srv/{task.id}")
            assert found.run_id == run
            return found.progress_at

        while not (at := await last()):
            offset = life.driver.position if life.driver is not None else 0
            await world.until(lambda: life.driver is not None and life.driver.position > offset)  # noqa: B023
    async with world.life(**fields):
        life = await world.running(task)
        view = watchdog_of(life).view()
        assert view.kind == "progress"
        (world.base / "go").touch()
        await world.finished(task)
    began, told = clock.parse(at), clock.parse(view.silent_since)
    assert began is not None
    assert told is not None
    assert abs((told - began).total_seconds()) < 0.05  # and not since the second life has begun
