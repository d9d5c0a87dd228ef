"""Back-off and clock: pure, so no waiting here."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.clock import Clock, JumpDetector
from daemon_core.connections.timing import HUB, SERVER


def test_pauses_double_up_to_the_limit_and_start_anew_after_a_reset() -> None:
    backoff = Backoff(1, 30, jitter=0)
    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 1


@given(st.integers())
def test_jitter_stays_within_a_fifth(seed: int) -> None:
    backoff = Backoff(1, 30, jitter=0.2, rng=random.Random(seed))
    for base in (1, 2, 4, 8, 16, 30, 30):
        assert base * 0.8 <= backoff.next() <= base * 1.2


@pytest.mark.parametrize(("first", "limit", "jitter"), [(0, 1, 0), (2, 1, 0), (1, 2, 1)])
def test_nonsense_is_refused(first: float, limit: float, jitter: float) -> None:
    with pytest.raises(ValueError, match="no back-off"):
        Backoff(first, limit, jitter=jitter)


def test_a_sleep_shows_as_a_jump_once() -> None:
    now = {"wall": 1000.0, "monotonic": 50.0}
    detector = JumpDetector(Clock(lambda: now["monotonic"], lambda: now["wall"]), 10)
    now["wall"] += 15
    now["monotonic"] += 15
    assert not detector.jumped()
    now["wall"] += 3600  # the monotonic clock stands still while the machine sleeps
    assert detector.jumped()
    assert not detector.jumped()


def test_a_clock_set_back_and_a_very_late_timer_are_jumps_too() -> None:
    now = {"wall": 1000.0}
    detector = JumpDetector(Clock(lambda: 0.0, lambda: now["wall"]), 10)
    now["wall"] -= 100
    assert detector.jumped()
    assert detector.jumped(late_s=11)
    assert not detector.jumped(late_s=9)


def test_the_hub_is_polled_rarely_and_a_server_as_the_protocol_says() -> None:
    assert (SERVER.poll_s, SERVER.heartbeat_s, SERVER.status_poll_s, SERVER.lease_s) == (30, 15, 5, 15)
    assert (SERVER.sync_s, SERVER.fresh_s, SERVER.read_deadline_s) == (30, 30, 60)
    assert (HUB.poll_s, HUB.heartbeat_s, HUB.status_poll_s, HUB.sync_s) == (600, 60, 300, 600)
    assert HUB.loopback
    assert HUB.read_deadline_s is None
