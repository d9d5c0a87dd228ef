"""The state machine of a task: the table, and the same over the wire for every state and call."""

from __future__ import annotations

import itertools

import pytest

from daemon_core.hub import NewTask
from daemon_core.hub.states import ACTIVE, FINAL, TRANSITIONS, TaskEvent, TaskState, TransitionError, step
from tests.hub.world import World

ALLOWED = {
    ("deferred", "due"): "queued",
    ("deferred", "cancel"): "cancelled",
    ("queued", "claim"): "dispatched",
    ("queued", "cancel"): "cancelled",
    ("dispatched", "redeliver"): "dispatched",
    ("dispatched", "wait"): "waiting_local_directory",
    ("dispatched", "start"): "running",
    ("dispatched", "fail"): "failed",
    ("dispatched", "cancel"): "cancelled",
    ("waiting_local_directory", "start"): "running",
    ("waiting_local_directory", "fail"): "failed",
    ("waiting_local_directory", "cancel"): "cancelled",
    ("dispatched", "park"): "parked",
    ("waiting_local_directory", "park"): "parked",
    ("running", "park"): "parked",
    ("parked", "due"): "queued",
    ("parked", "fail"): "failed",
    ("parked", "cancel"): "cancelled",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
    ("running", "cancel"): "cancelled",
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(TaskState, TaskEvent)))
def test_the_table_allows_what_the_protocol_allows_and_nothing_else(
    state: TaskState, event: TaskEvent
) -> None:
    expected = ALLOWED.get((state, event))
    if expected is None:
        with pytest.raises(TransitionError, match=f"cannot {event} a task that is {state}"):
            step(state, event)
    else:
        assert step(state, event) == expected


def test_final_states_are_never_left() -> None:
    assert not {state for state, _event in TRANSITIONS} & FINAL
    assert not ACTIVE & FINAL


async def bring_to(world: World, state: str) -> str:
    """A task in a state."""
    task_id = (await world.hub.add_task(NewTask(prompt="x", provider="shell", max_attempts=1))).id
    if state == "queued":
        return task_id
    await world.claim()
    if state == "waiting_local_directory":
        await world.task(task_id, "wait-local-directory", {"reason": "taken"})
    if state in ("running", "completed", "parked"):
        await world.task(task_id, "start")
    if state == "completed":
        await world.task(task_id, "complete", {"output": "first"})
    if state == "parked":
        await world.task(task_id, "fail", {"error": "usage limit", "parked": {}})
    if state == "failed":
        await world.task(task_id, "fail", {"error": "first"})
    if state == "cancelled":
        await world.post(f"/api/tasks/{task_id}/cancel")
    assert await world.status(task_id) == state
    return task_id


WIRE_STATES = [state for state in TaskState if state is not TaskState.DEFERRED]
CALLS = {
    "start": ("start", {}),
    "wait": ("wait-local-directory", {"reason": "r"}),
    "complete": ("complete", {"output": "second"}),
    "fail": ("fail", {"error": "second"}),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(WIRE_STATES, [*CALLS, "cancel"])))
async def test_each_call_in_each_state(world: World, state: str, event: str) -> None:
    task_id = await bring_to(world, state)
    before = await world.hub.get(task_id)
    if event == "cancel":
        answer = await world.post(f"/api/tasks/{task_id}/cancel")
    else:
        answer = await world.task(task_id, *CALLS[event])
    expected = ALLOWED.get((state, event))
    if expected is not None:
        assert (answer.status, answer.body["status"]) == (200, expected)
        assert await world.status(task_id) == expected
    else:
        if event in ("start", "wait"):
            assert answer == (400, {"error": f"cannot {event} a task that is {state}"})
        else:
            assert (answer.status, answer.body["status"]) == (200, state)
        assert await world.hub.get(task_id) == before


async def test_a_cancel_tells_whoever_listens_in_the_process(world: World) -> None:
    task_id = await bring_to(world, "running")
    world.changes.clear()
    await world.hub.cancel(task_id)
    assert [(each.kind, each.task_id, each.status) for each in world.changes] == [
        ("task", task_id, "cancelled")
    ]
