"""The state after a snapshot and after changes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.control.views import AgentView, ChangeEvent, DaemonStatus, RuntimeView, Snapshot, TaskRow
from desktop.models.state import DesktopState, LinkPhase, ResetNeededError, apply, from_snapshot


def event(revision: int, kind: str, data: Any) -> ChangeEvent:
    return ChangeEvent(revision=revision, kind=kind, data=msgspec.Raw(msgspec.json.encode(data)))


def task(ident: str, status: str = "running", **more: Any) -> TaskRow:
    return TaskRow(id=ident, title=f"Task {ident}", status=status, **more)


def start(*tasks: TaskRow) -> DesktopState:
    snapshot = Snapshot(revision=10, status=DaemonStatus(status="running"), tasks=list(tasks))
    return from_snapshot(DesktopState(link=LinkPhase.CONNECTED), snapshot)


def test_tasks_are_sorted_by_what_they_want() -> None:
    state = start(
        task("a", started_at="2026-01-01T10:00:00Z"),
        task("b", needs_input=True),
        task("c", "queued"),
        task("d", "completed", ended_at="2026-01-01T09:00:00Z"),
        task("e", "failed", ended_at="2026-01-01T11:00:00Z"),
        task("f", started_at="2026-01-01T08:00:00Z"),
        task("g", "completed", needs_input=True, ended_at="2026-01-01T07:00:00Z"),
    )
    assert [each.id for each in state.needing] == ["b"]
    assert [each.id for each in state.active] == ["f", "a"]
    assert [each.id for each in state.waiting] == ["c"]
    assert [each.id for each in state.ended] == ["e", "d", "g"]


def test_changes_replace_add_and_remove() -> None:
    before = start(task("a"), task("b"))
    after = apply(
        before,
        [
            event(11, "task", task("b", "completed")),
            event(12, "task", task("n", "queued")),
            event(13, "task_removed", {"id": "a"}),
            event(14, "runtime", RuntimeView(id="r", provider="claude")),
            event(15, "agent", AgentView(id="1", name="old")),
            event(16, "agent", AgentView(id="1", name="new")),
            event(17, "status", DaemonStatus(status="stopping")),
            event(18, "something_of_tomorrow", {"x": 1}),
        ],
    )
    assert list(after.tasks) == ["n", "b"]
    assert after.tasks["b"].status == "completed"
    assert list(after.runtimes) == ["r"]
    assert list(after.agents) == ["new"]
    assert after.status is not None
    assert after.status.status == "stopping"
    assert after.revision == 18
    assert list(before.tasks) == ["a", "b"]  # the one before is as it was


def test_a_reset_asks_for_a_new_snapshot() -> None:
    with pytest.raises(ResetNeededError):
        apply(start(), [event(11, "reset", {"reason": "too_old"})])


_ids = st.sampled_from(["a", "b", "c"])
_steps = st.lists(st.tuples(_ids, st.sampled_from(["queued", "running", "completed", "gone"])), max_size=30)


@given(_steps, st.lists(st.integers(1, 5), max_size=10))
def test_it_does_not_matter_how_changes_are_batched(steps: list[tuple[str, str]], cuts: list[int]) -> None:
    events = [
        event(20 + number, "task_removed", {"id": ident})
        if status == "gone"
        else event(20 + number, "task", task(ident, status))
        for number, (ident, status) in enumerate(steps)
    ]
    at_once = apply(start(), events)
    in_parts = start()
    rest = events
    for size in [*cuts, len(events)]:
        part, rest = rest[:size], rest[size:]
        in_parts = apply(in_parts, part)
    assert at_once == in_parts
