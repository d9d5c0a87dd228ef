"""When a daemon that ended is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from desktop.daemon.restarts import (
    CRASHES,
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    WITHIN_S,
    Adopt,
    GiveUp,
    LeaveIt,
    Restarts,
    Wait,
)


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def test_pauses_double_and_then_it_gives_up() -> None:
    restarts = Restarts(jitter=middle)
    found = [restarts.ended(1, float(at)) for at in range(CRASHES)]
    assert found == [Wait(1.0), Wait(2.0), Wait(4.0), Wait(8.0), GiveUp()]


def test_crashes_long_ago_do_not_count() -> None:
    restarts = Restarts(jitter=middle)
    for number in range(20):
        assert restarts.ended(-9, number * (WITHIN_S + 1)) == Wait(1.0)


def test_a_start_by_the_user_begins_anew() -> None:
    restarts = Restarts(jitter=middle)
    for at in range(CRASHES):
        last = restarts.ended(1, float(at))
    assert last == GiveUp()
    restarts.started_by_user()
    assert restarts.ended(1, 10.0) == Wait(1.0)


def test_what_is_no_crash() -> None:
    restarts = Restarts()
    assert restarts.ended(0, 1.0) == LeaveIt(failed=False)
    assert restarts.ended(-15, 1.0, wanted=True) == LeaveIt(failed=False)
    assert restarts.ended(2, 1.0) == LeaveIt(failed=True)
    assert restarts.ended(6, 1.0) == Adopt()
    assert restarts.crashes == []


@given(st.lists(st.tuples(st.integers(-20, 20) | st.none(), st.floats(0, 400)), max_size=40))
def test_never_more_starts_than_promised(ends: list[tuple[int | None, float]]) -> None:
    restarts = Restarts()
    now = 0.0
    waits: list[float] = []
    for code, later in ends:
        now += later
        decision = restarts.ended(code, now)
        if isinstance(decision, Wait):
            assert FIRST_PAUSE_S <= decision.pause_s <= LAST_PAUSE_S
            waits.append(now)
            assert len([at for at in waits if now - at < WITHIN_S]) < CRASHES
        if isinstance(decision, GiveUp):
            restarts.started_by_user()
            waits.clear()
