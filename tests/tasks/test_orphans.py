"""Tasks that only their server knows any more: a claim is left on the disk, and no record of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon_core.protocol.wire import Task
from daemon_core.tasks.secrets import ClaimFile, new_run_id
from tests.support.fake_server import FakeTask, html_502
from tests.tasks.world import World


def leave_claim(world: World, task: FakeTask) -> Path:
    """A run directory that holds nothing but the claim."""
    run_dir = world.base / "runs" / new_run_id()
    ClaimFile(run_dir).write(Task(id=task.id, runtime_id=task.runtime_id, auth_token="mat_x"))
    return run_dir


@pytest.mark.parametrize(
    ("status", "told"),
    [("running", True), ("waiting_local_directory", True), ("dispatched", False), ("cancelled", False)],
)
async def test_what_has_begun_at_its_server_is_failed_and_nothing_else(
    world: World, status: str, told: bool
) -> None:
    lost, sibling = world.add(), world.add()
    lost.status, sibling.status = status, "running"
    run_dir = leave_claim(world, lost)
    async with world.life(claim=False) as engine:
        assert run_dir.exists()
        await engine.lost.fail("srv", "claude")
        assert [report.kind for report in lost.reports] == (["fail"] if told else [])
        if told:
            assert lost.reports[0].body["failure_reason"] == "runtime_recovery"
        assert sibling.status == "running"
        assert world.server.orphans == []
        assert not run_dir.exists()


async def test_a_server_that_does_not_answer_is_told_another_time(world: World) -> None:
    lost = world.add()
    lost.status = "running"
    run_dir = leave_claim(world, lost)
    async with world.life(claim=False) as engine:
        world.server.script("status", html_502())
        await engine.lost.fail("srv", "claude")
        assert lost.reports == []
        assert run_dir.exists()
    async with world.life(claim=False) as engine:  # the next start finds it again
        await engine.lost.fail("srv", "claude")
        assert len(lost.reports) == 1
        assert not run_dir.exists()


async def test_a_task_that_was_handed_out_again_is_left_alone(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"
    lost = world.add({"wait_for": str(go)})
    leave_claim(world, lost)
    async with world.life() as engine:
        await world.running(lost)
        await engine.lost.fail("srv", "claude")
        assert lost.reports == []
        go.touch()
        await world.finished(lost)


async def test_after_the_bulk_call_nothing_is_left_to_tell(world: World) -> None:
    lost = world.add()
    lost.status = "running"
    run_dir = leave_claim(world, lost)
    async with world.life(claim=False) as engine:
        await engine.lost.forget("srv", "claude")
        await engine.lost.fail("srv", "claude")
        await engine.lost.fail("unknown", "claude")
        assert lost.reports == []
        assert not run_dir.exists()


async def test_old_and_unreadable_claims_are_removed(world: World) -> None:
    old, broken = leave_claim(world, world.add()), leave_claim(world, world.add())
    (broken / "claim.json").write_text("{")
    os.utime(old, (0, 0))
    async with world.life(claim=False):
        assert not old.exists()
        assert not broken.exists()
