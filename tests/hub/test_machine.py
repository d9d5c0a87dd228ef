"""The hub against a model of it: any order of calls, over a real socket, with restarts in between."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from daemon_core.hub import ConflictError, NewTask
from tests.hub.world import World

ACTIVE = ("dispatched", "waiting_local_directory", "running")
FINAL = ("completed", "failed", "cancelled")
PROVIDERS = ("shell", "claude")
REASONS = ("", "runtime_recovery", "timeout", "idle_watchdog", "api_invalid_request")

PICK = st.integers(0, 1000)
some = precondition(lambda machine: machine.model)


@dataclass
class Task:
    """What the model knows of one."""

    id: str
    conversation: str
    provider: str
    priority: int
    place: int
    status: str = "queued"
    attempt: int = 1
    dispatched_at: int = 0
    lease_until: int = 0
    lines: int = 0
    token: str = ""


class HubMachine(RuleBasedStateMachine):
    """Each rule is one call of a daemon or a user; each has its effect on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.world = World(self.directory / "hub.db")
        self.model: dict[str, Task] = {}
        self.timers = False
        self.places = 0

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.do(self.world.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    @initialize()
    def begin(self) -> None:
        self.do(self.world.open())
        self.do(self.world.register(*PROVIDERS))

    def picked(self, pick: int) -> str:
        return list(self.model)[pick % len(self.model)]

    # --- the user ---------------------------------------------------------------------------------------

    def learn(self, view: Any) -> None:
        self.places += 1
        self.model[view.id] = Task(view.id, view.conversation_id, view.provider, view.priority, self.places)

    @rule(provider=st.sampled_from(PROVIDERS), priority=st.integers(0, 2))
    def add(self, provider: str, priority: int) -> None:
        new = NewTask(prompt="x", provider=provider, priority=priority)
        self.learn(self.do(self.world.hub.add_task(new)))

    @some
    @rule(pick=PICK)
    def reply(self, pick: int) -> None:
        task_id = self.picked(pick)
        self.learn(self.do(self.world.hub.reply(task_id, "more")))

    @some
    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        task_id = self.picked(pick)
        try:
            view = self.do(self.world.hub.retry(task_id))
        except ConflictError:
            assert self.model[task_id].status not in FINAL
            return
        assert self.model[task_id].status in FINAL
        self.learn(view)

    @some
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        answer = self.do(self.world.post(f"/api/tasks/{task_id}/cancel"))
        if task.status not in FINAL:
            task.status = "cancelled"
        assert (answer.status, answer.body["status"]) == (200, task.status)

    # --- the daemon -------------------------------------------------------------------------------------

    def next_of(self, provider: str) -> Task | None:
        now = self.world.clock.now()
        lost = [
            task
            for task in self.model.values()
            if task.provider == provider
            and task.status == "dispatched"
            and task.dispatched_at + 90_000_000 <= now
            and task.lease_until <= now
        ]
        if self.timers and lost:
            return min(lost, key=lambda task: (task.dispatched_at, task.place))
        busy = {task.conversation for task in self.model.values() if task.status in ACTIVE}
        ready = [
            task
            for task in self.model.values()
            if task.provider == provider and task.status == "queued" and task.conversation not in busy
        ]
        return min(ready, key=lambda task: (-task.priority, task.place, task.attempt), default=None)

    @rule(provider=st.sampled_from(PROVIDERS))
    def claim(self, provider: str) -> None:
        expected = self.next_of(provider)
        got = self.do(self.world.claim(provider))
        if expected is None:
            assert got is None
            return
        if expected.status == "dispatched":  # several may have been lost at the same moment
            expected = self.model[got["id"]]
            assert expected.status == "dispatched"
        assert got["id"] == expected.id
        assert got["attempt"] == expected.attempt
        now = self.world.clock.now()
        expected.status, expected.token = "dispatched", got["auth_token"]
        expected.dispatched_at, expected.lease_until = now, now + 45_000_000

    @some
    @rule(pick=PICK)
    def start(self, pick: int) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        answer = self.do(self.world.task(task_id, "start"))
        if task.status in ("dispatched", "waiting_local_directory"):
            assert answer.status == 200
            task.status = "running"
        else:
            assert answer.status == 400

    @some
    @rule(pick=PICK)
    def wait(self, pick: int) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        answer = self.do(self.world.task(task_id, "wait-local-directory", {"reason": "r"}))
        assert answer.status == (200 if task.status == "dispatched" else 400)
        if answer.status == 200:
            task.status = "waiting_local_directory"

    @some
    @rule(pick=PICK)
    def lease(self, pick: int) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        answer = self.do(self.world.lease(task_id, task.provider))
        assert answer.status == (200 if task.status in ACTIVE[:2] else 400)
        if answer.status == 200:
            task.lease_until = self.world.clock.now() + 45_000_000

    @some
    @rule(pick=PICK)
    def complete(self, pick: int) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        answer = self.do(self.world.task(task_id, "complete", {"output": "o"}))
        if task.status == "running":
            task.status = "completed"
        assert (answer.status, answer.body["status"]) == (200, task.status)

    def failed(self, task: Task, reason: str) -> None:
        task.status = "failed"
        again = self.do(self.world.hub.get(task.id)).retried_as
        if reason in ("runtime_recovery", "timeout") and task.attempt < 2:
            child = self.do(self.world.hub.get(again))
            assert (child.attempt, child.status) == (2, "queued")
            self.model[again] = Task(
                again, task.conversation, task.provider, task.priority, task.place, attempt=2
            )
        else:
            assert again is None

    @some
    @rule(pick=PICK, reason=st.sampled_from(REASONS))
    def fail(self, pick: int, reason: str) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        answer = self.do(self.world.task(task_id, "fail", {"error": "e", "failure_reason": reason}))
        if task.status in ACTIVE:
            self.failed(task, reason)
        assert (answer.status, answer.body["status"]) == (200, task.status)

    @rule(provider=st.sampled_from(PROVIDERS))
    def recover_orphans(self, provider: str) -> None:
        path = f"/api/daemon/runtimes/{self.world.runtimes[provider]}/recover-orphans"
        answer = self.do(self.world.post(path))
        orphans = [
            task for task in self.model.values() if task.provider == provider and task.status in ACTIVE
        ]
        assert answer.body["orphaned"] == len(orphans)
        assert answer.body["retried"] == sum(task.attempt < 2 for task in orphans)
        for task in orphans:
            self.failed(task, "runtime_recovery")

    @some
    @rule(pick=PICK, start=st.integers(0, 3), count=st.integers(1, 120))
    def messages(self, pick: int, start: int, count: int) -> None:
        task_id = self.picked(pick)
        task = self.model[task_id]
        first = max(1, task.lines + 1 - start)
        last = max(task.lines, first + count - 1)
        lines = [{"seq": n, "type": "text", "content": str(n)} for n in range(first, last + 1)]
        assert self.do(self.world.task(task_id, "messages", {"messages": lines})).status == 200
        task.lines = last

    @rule(seconds=st.sampled_from([1, 44, 46, 91, 3600, 200_000]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        self.do(self.world.hub.sweep())

    @rule()
    def restart(self) -> None:
        self.do(self.world.reopen())
        self.do(self.world.register(*PROVIDERS))
        self.timers = False

    @rule()
    def start_timers(self) -> None:
        self.world.hub.start_timers()
        self.timers = True

    @some
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        task_id = self.picked(pick)
        conversation = self.model[task_id].conversation
        deleted = self.do(self.world.hub.delete(task_id))
        gone = {task.id for task in self.model.values() if task.conversation == conversation}
        assert set(deleted.task_ids) == gone
        for gone_id in gone:
            del self.model[gone_id]

    # --- what always holds ------------------------------------------------------------------------------

    @invariant()
    def the_hub_agrees_with_the_model(self) -> None:
        if not hasattr(self.world, "hub"):
            return
        views = {view.id: view for view in self.do(self.world.hub.list(all=True))}
        assert {key: view.status for key, view in views.items()} == {
            key: task.status for key, task in self.model.items()
        }
        for key, view in views.items():
            assert (view.ended_at is not None) == (view.status in FINAL), key

    @invariant()
    def no_conversation_has_two_at_once(self) -> None:
        active = [task.conversation for task in self.model.values() if task.status in ACTIVE]
        assert len(active) == len(set(active))

    @invariant()
    def transcripts_have_neither_holes_nor_doubles(self) -> None:
        for task in list(self.model.values())[-3:]:
            stored = self.do(self.world.hub.messages(task.id, 0, 10_000))
            assert [line.seq for line in stored] == list(range(1, task.lines + 1))

    @invariant()
    def only_tasks_that_are_not_over_have_tokens(self) -> None:
        for task in self.model.values():
            if task.token and task.status in FINAL:
                answer = self.do(self.world.get("/api/agents", token=task.token))
                assert answer.status == 401


HubMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("HUB_MACHINE_EXAMPLES", "40")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_any_order_of_calls = HubMachine.TestCase
