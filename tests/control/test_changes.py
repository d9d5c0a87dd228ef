"""The change log: revisions, bounded memory, slow readers."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from daemon_core.control.changes import ChangeLog
from daemon_core.control.views import ChangeEvent


async def read(log: ChangeLog, since: int | None) -> list[ChangeEvent]:
    with log.subscribe(since) as subscription:
        return await subscription.next(0.01)


async def test_a_reader_gets_what_came_after_its_revision_in_order() -> None:
    log = ChangeLog(first=10)
    for number in range(3):
        log.publish("task", f"task:{number}", {"id": number})
    assert [event.revision for event in await read(log, 11)] == [12, 13]
    assert [bytes(event.data) for event in await read(log, 12)] == [b'{"id":2}']
    assert await read(log, 13) == []
    assert await read(log, None) == []


async def test_too_old_and_unknown_revisions_are_told_to_start_over() -> None:
    log = ChangeLog(history=2, first=0)
    for number in range(5):
        log.publish("task", f"task:{number}")
    assert [event.revision for event in await read(log, 3)] == [4, 5]
    for since, reason in ((2, b"too_old"), (99, b"ahead")):
        (event,) = await read(log, since)
        assert event.kind == "reset"
        assert event.revision == 5
        assert reason in bytes(event.data)


async def test_a_revision_of_the_daemon_before_is_too_old_for_the_next_one() -> None:
    before = ChangeLog(first=1000)
    old = before.publish("status", "status")
    after = ChangeLog(first=60_000)
    (event,) = await read(after, old)
    assert event.kind == "reset"


async def test_a_slow_reader_gets_the_newest_of_each_subject_only() -> None:
    log = ChangeLog(first=0)
    with log.subscribe() as subscription:
        log.publish("task", "task:a", 1)
        log.publish("task", "task:b", 2)
        log.publish("task_removed", "task:a", 3)
        events = await subscription.next(0)
        assert [(event.revision, event.kind) for event in events] == [(2, "task"), (3, "task_removed")]


async def test_a_reader_with_too_much_waiting_is_reset_and_can_go_on() -> None:
    log = ChangeLog(first=0, pending=3)
    with log.subscribe() as subscription:
        for number in range(4):
            log.publish("task", f"task:{number}")
        (event,) = await subscription.next(0)
        assert event.kind == "reset"
        assert event.revision == 4
        log.publish("task", "task:x")
        (event,) = await subscription.next(0)
        assert event.revision == 5


async def test_a_waiting_reader_is_woken_by_an_event_and_by_the_end() -> None:
    log = ChangeLog()
    with log.subscribe() as subscription:
        asyncio.get_running_loop().call_soon(log.publish, "status", "status")
        assert len(await subscription.next()) == 1
        asyncio.get_running_loop().call_soon(log.close)
        assert await subscription.next() == []
        assert subscription.closed
    assert log.readers == 0


STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans()))


@given(STEPS, st.integers(1, 8), st.integers(1, 6))
def test_applying_events_over_a_snapshot_gives_the_state(
    steps: list[tuple[int, bool]], history: int, pending: int
) -> None:
    """Whatever is merged or dropped: one that takes a snapshot at each reset ends with the true state."""

    async def scenario() -> None:
        log = ChangeLog(first=0, history=history, pending=pending)
        truth: dict[str, int] = {}
        seen: dict[str, int] = {}
        with log.subscribe(0) as subscription:
            for number, (subject, look) in enumerate(steps):
                truth[f"{subject}"] = number
                log.publish("value", f"{subject}", [f"{subject}", number])
                if look:
                    apply(await subscription.next(0), truth, seen)
            apply(await subscription.next(0.001), truth, seen)
        assert seen == truth

    def apply(events: list[ChangeEvent], truth: dict[str, int], seen: dict[str, int]) -> None:
        import msgspec

        for event in events:
            if event.kind == "reset":
                seen.clear()
                seen.update(truth)
            else:
                subject, number = msgspec.json.decode(event.data)
                seen[subject] = number

    asyncio.run(scenario())
