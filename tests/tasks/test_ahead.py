"""What is made ready while the server is asked for the start, and told while the agent goes."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from daemon_core.tasks.life import TaskLife
from tests.end_to_end.home import holding
from tests.support.fake_server import FakeTask, Status, refuse
from tests.tasks.test_followup import Follow
from tests.tasks.world import World

HELLO: dict[str, Any] = {"text": "Hello."}
SECRET = "sesame-4711"
SERVERS = {"mcpServers": {"lab": {"command": "true", "env": {"KEY": SECRET}}}}


async def prepared(world: World, task: FakeTask) -> TaskLife:
    """A task whose run is ready, while its server does not take the start."""
    lives = world.engine.lives
    key = f"srv/{task.id}"
    await world.until(lambda: key in lives and lives[key].run.family)
    await lives[key].ahead.settled()
    return lives[key]


async def test_a_run_is_ready_before_the_start_and_made_anew_for_a_newer_claim(world: World) -> None:
    world.server.always("start", Status(503))
    dump = world.base / "dump"
    async with world.life():
        task = world.add({"dump": str(dump)}, HELLO)
        life = await prepared(world, task)
        assert life.record.state == "ready"
        assert not dump.exists()
        assert life.claim is not None
        newer = msgspec.structs.replace(life.claim, auth_token="mat_" + "ef" * 20)
        await life.renew_claim(newer)
        world.server.heal("start")

        def over() -> bool:
            world.engine.reconcile("srv")  # no pause between two tries is waited out
            return task.status == "completed"

        await world.until(over)
        await world.settled(task)
        assert json.loads(dump.read_text())["environ"]["OSTLER_TOKEN"] == newer.auth_token


async def test_nothing_secret_of_a_run_stays_that_was_ready_and_is_not_to_begin(world: World) -> None:
    world.server.always("start", Status(503))
    async with world.life():
        task = world.add(HELLO, agent={"id": "a", "name": "a", "mcp_config": SERVERS})
        life = await prepared(world, task)
        assert holding(world.base / "runs", SECRET)
        world.server.always("start", refuse(400, "no such thing"))

        def over() -> bool:
            world.engine.reconcile("srv")
            return task.status == "failed"

        await world.until(over)
        await world.settled(task)
        assert life.run.pid is None
        assert holding(world.base / "runs", SECRET) == []


async def test_what_cannot_be_made_ready_is_told_when_the_server_may_hear_it(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, auth_token="mul_" + "ab" * 20)
        await world.finished(task, "failed")
        assert "task token" in world.server.check(task.id).body["error"]
        assert len(world.server.seen("start")) == 1


async def test_usage_is_told_once_and_before_the_result(world: World) -> None:
    follow = Follow(world)
    async with follow.life():
        task = world.add(HELLO)
        await world.finished(task)
    told = [each.route for each in world.server.requests if each.route in ("usage", "complete")]
    assert told == ["usage", "complete"]
    assert task.usage
