"""Notices: told exactly once or still pending, whatever is broken off where."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon_core.jobs.conversations import conversation_of
from daemon_core.jobs.notices import Notices, put_notice
from daemon_core.journal import Journal, JournalError, RunRecord, Stretch, TaskRecord

T = TypeVar("T")

KEY = "hub/t1"
HERE = "hub/c1"
RUNS = ("run1", "run2", "run3")


def task() -> TaskRecord:
    return TaskRecord(
        key=KEY, connection="hub", task_id="t1", runtime_id="r", workspace_id="w", provider="claude",
        conversation_id="c1", kind="chat", run_id="run1", claimed_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


async def opened(path: Path) -> Journal:
    journal = await Journal.open(path)
    await journal.add_task(task(), RunRecord(run_id="run1", task_key=KEY))
    for number, run_id in enumerate(RUNS[1:], start=2):
        if run_id not in await journal.known_runs():
            await journal.add_run(RunRecord(run_id=run_id, task_key=KEY, number=number))
    return journal


def stretch(run_id: str, next_seq: int, **more: Any) -> Stretch:
    return Stretch(
        run_id=run_id, task_key=KEY, stdout_offset=1, reader=b"", next_seq=next_seq,
        at="2026-01-01T00:00:01.000Z", **more,
    )  # fmt: skip


@pytest.fixture
async def notices(tmp_path: Path) -> AsyncIterator[Notices]:
    journal = await opened(tmp_path / "journal.db")
    yield Notices(journal)
    await journal.close()


async def add(notices: Notices, subject: str = "job1", **more: Any) -> int:
    return await notices.add(
        **{"conversation": HERE, "kind": "job_ended", "subject": subject, "body": f"{subject} ended", **more}
    )


async def test_a_notice_is_made_once_and_who_gives_it_hears_of_it(notices: Notices) -> None:
    heard: list[str] = []
    notices.on_added = heard.append
    first = await add(notices)
    assert await add(notices, body="something else") == first
    assert heard == [HERE, HERE]
    (pending,) = await notices.pending(HERE)
    assert (pending.body, pending.times, pending.wake) == ("job1 ended", 0, True)
    assert await notices.waiting() == [HERE]
    assert await notices.pending("hub/c2") == []


async def test_what_is_written_with_a_jobs_end_is_undone_with_it(notices: Notices) -> None:
    def end(db: sqlite3.Connection) -> None:
        put_notice(db, conversation=HERE, kind="job_ended", subject="job1", body="x")
        raise KeyError("the rest of it failed")

    with pytest.raises(KeyError):
        await notices.journal.transact(end)
    assert await notices.pending(HERE) == []


async def test_delivered_is_committed_with_the_answer_and_not_without(notices: Notices) -> None:
    await add(notices)
    assert [notice.id for notice in await notices.take(HERE, "run1")] == [1]
    assert await notices.pending(HERE) == []
    with pytest.raises(JournalError):  # of a task that is not there: nothing of it is kept
        await notices.journal.commit_stretch(
            Stretch(
                run_id="run1",
                task_key="hub/none",
                stdout_offset=1,
                reader=b"",
                next_seq=2,
                at="x",
                chunks=[(1, 1, b"[]")],
                turns=1,
            )
        )
    assert [notice.state for notice in await notices.of_subject("job1")] == ["given"]
    await notices.journal.commit_stretch(stretch("run1", 1, turns=1))
    assert [notice.state for notice in await notices.of_subject("job1")] == ["delivered"]
    assert await notices.put_back("run1") == 0


async def test_a_later_turn_is_not_taken_up_by_the_answer_to_an_earlier_one(notices: Notices) -> None:
    number = await add(notices)
    await notices.journal.commit_stretch(stretch("run1", 1, turns=1, given=[number], given_turn=2))
    await notices.journal.commit_stretch(stretch("run1", 1, turns=1))
    assert [notice.given_turn for notice in await notices.given("run1")] == [2]
    await notices.journal.commit_stretch(stretch("run1", 1, turns=2))
    assert await notices.given("run1") == []
    assert await notices.holders() == []


async def test_what_was_put_back_is_shown_again_as_such(notices: Notices) -> None:
    await add(notices)
    await notices.take(HERE, "run1")
    assert await notices.put_back("run1") == 1
    assert [notice.times for notice in await notices.pending(HERE)] == [1]
    (again,) = await notices.take(HERE, "run2")
    assert (again.times, again.given_to) == (1, "run2")
    assert await notices.put_back("run2", unseen=True) == 1  # it never began
    assert [notice.times for notice in await notices.pending(HERE)] == [1]


async def test_a_start_that_is_done_again_tells_the_same(notices: Notices) -> None:
    await add(notices, "job1")
    await notices.take(HERE, "run1")
    await add(notices, "job2")
    taken = await notices.take(HERE, "run1")
    assert [(notice.subject, notice.times) for notice in taken] == [("job1", 0), ("job2", 0)]


async def test_a_killed_job_is_not_told_and_a_deleted_conversation_tells_nothing(notices: Notices) -> None:
    await add(notices, "job1")
    await add(notices, "job2")
    await notices.woken(HERE)
    assert await notices.drop_subject("job1") == 1
    await notices.take(HERE, "run1")
    assert await notices.drop_conversation(HERE) == 1
    assert await notices.put_back("run1") == 0
    assert await notices.waiting() == []
    assert await notices.wakes(HERE) == 0
    assert await notices.prune("2000-01-01T00:00:00.000Z") == 0
    assert await notices.prune("9999-01-01T00:00:00.000Z") == 2


async def test_wake_ups_are_counted_from_what_a_person_says(notices: Notices) -> None:
    assert [await notices.woken(HERE) for _ in range(3)] == [1, 2, 3]
    await notices.person_spoke(HERE)
    assert await notices.wakes(HERE) == 0


def test_agents_that_share_an_issue_do_not_share_their_jobs() -> None:
    chat, issue = task(), task()
    issue.kind, issue.agent_id = "comment", "a1"
    alone = task()
    alone.kind, alone.conversation_id, alone.agent_id = "direct", "", "a1"
    assert [conversation_of(each) for each in (chat, issue, alone)] == ["hub/c1", "hub/c1/a1", "hub/t1"]


class Telling(RuleBasedStateMachine):
    """Jobs that stall and end, runs that take notices, answer, fail and end, and a daemon that dies.

    ``heard`` is what an agent has really been shown in a turn that it has answered: told by nobody but the
    model of the agent. A death loses whatever was not committed, and nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "journal.db"
        self.journal = self.do(lambda: opened(self.path))
        self.notices = Notices(self.journal)
        self.made: set[str] = set()
        self.dropped: set[str] = set()
        self.shown: dict[str, list[str]] = {}
        """Runs that go on: what the agent was shown in the turn that it has not answered yet."""
        self.answered: dict[str, int] = {}
        self.heard: list[str] = []
        self.again: set[str] = set()
        self.unused = [f"r{number}" for number in range(200)]

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        return self.loop.run_until_complete(_awaited(work()))

    def teardown(self) -> None:
        self.do(self.journal.close)
        self.loop.close()
        self.directory.cleanup()

    @rule(job=st.integers(0, 4), kind=st.sampled_from(["job_ended", "job_stalled"]))
    def tell(self, job: int, kind: str) -> None:
        """A job stalls or ends; told again after a crash, it is the same notice."""
        dedup = f"{kind}:{job}"
        self.do(
            lambda: self.notices.add(
                conversation=HERE, kind=kind, subject=f"job{job}", body=dedup, dedup=dedup
            )
        )
        self.made.add(dedup)

    @precondition(lambda self: len(self.shown) < 2)
    @rule(crash=st.booleans())
    def begin(self, crash: bool) -> None:
        """A turn begins with what is pending; a death before the spawn has it taken again."""
        run_id = self.unused.pop()
        self.do(lambda: self.journal.add_run(RunRecord(run_id=run_id, task_key=KEY, number=9)))
        taken = self.do(lambda: self.notices.take(HERE, run_id))
        if crash:
            self.die()
            taken = self.do(lambda: self.notices.take(HERE, run_id))
        self.shown[run_id] = [notice.body for notice in taken]
        for notice in taken:
            assert (notice.times > 0) == (notice.body in self.again)
        self.answered[run_id] = 0

    @precondition(lambda self: self.shown)
    @rule(data=st.data(), committed=st.booleans())
    def answer(self, data: st.DataObject, committed: bool) -> None:
        """The agent answers; a death may come before that is committed, and then it is read again."""
        run_id = data.draw(st.sampled_from(sorted(self.shown)))
        turns = self.answered[run_id] + 1
        if not committed:
            self.die()
        self.do(lambda: self.journal.commit_stretch(stretch(run_id, 1, turns=turns)))
        self.heard += self.shown[run_id]
        self.shown[run_id] = []
        self.answered[run_id] = turns

    @precondition(lambda self: any(not said and self.answered[run] for run, said in self.shown.items()))
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """A run that has answered is told more at the end of its turn."""
        ready = sorted(run for run, said in self.shown.items() if not said and self.answered[run])
        run_id = data.draw(st.sampled_from(ready))
        pending = self.do(lambda: self.notices.pending(HERE))
        turns = self.answered[run_id]
        self.do(
            lambda: self.journal.commit_stretch(
                stretch(run_id, 1, turns=turns, given=[each.id for each in pending], given_turn=turns + 1)
            )
        )
        self.shown[run_id] = [notice.body for notice in pending]

    @precondition(lambda self: self.shown)
    @rule(data=st.data(), crash=st.booleans())
    def end(self, data: st.DataObject, crash: bool) -> None:
        """A run ends; what it has not answered is put back, also if a death comes in between."""
        run_id = data.draw(st.sampled_from(sorted(self.shown)))
        lost = self.shown.pop(run_id)
        if crash:
            self.die()
        assert self.do(lambda: self.notices.put_back(run_id)) == len(
            [x for x in lost if x not in self.dropped]
        )
        self.do(lambda: self.notices.put_back(run_id))
        self.again |= set(lost)

    @rule(job=st.integers(0, 4))
    def kill(self, job: int) -> None:
        """Somebody kills a job: what is still pending of it is not told."""
        for notice in self.do(lambda: self.notices.of_subject(f"job{job}")):
            if notice.state == "pending":
                self.dropped.add(notice.body)
        self.do(lambda: self.notices.drop_subject(f"job{job}"))

    @rule()
    def die(self) -> None:
        """kill -9: the connection is gone without a word; the next life opens the journal again."""
        self.do(self.journal.close)
        self.journal = self.do(lambda: opened(self.path))
        self.notices = Notices(self.journal)

    @invariant()
    def told_once_or_still_to_be_told(self) -> None:
        found: dict[str, list[str]] = {}
        for number in range(5):
            for notice in self.do(lambda number=number: self.notices.of_subject(f"job{number}")):  # type: ignore[misc]
                found.setdefault(notice.state, []).append(notice.body)
        assert sorted(found.get("delivered", [])) == sorted(self.heard)
        assert len(self.heard) == len(set(self.heard))
        assert sorted(found.get("given", [])) == sorted(body for said in self.shown.values() for body in said)
        assert set(found.get("dropped", [])) == self.dropped
        everything = [body for bodies in found.values() for body in bodies]
        assert sorted(everything) == sorted(self.made)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


TestTelling = Telling.TestCase
TestTelling.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
