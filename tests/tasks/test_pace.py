from __future__ import annotations

from daemon_core.tasks.pace import AT_ONCE, COALESCE_S, EACH_S, Pace


def test_a_few_lines_are_read_at_once_and_many_in_batches() -> None:
    now = 100.0
    pace = Pace(lambda: now)
    assert [pace.pause_s() for _ in range(AT_ONCE + 2)] == [0.0] * AT_ONCE + [COALESCE_S] * 2
    now += EACH_S
    assert [pace.pause_s() for _ in range(2)] == [0.0, COALESCE_S]
    now += 3600.0
    assert [pace.pause_s() for _ in range(AT_ONCE + 1)] == [0.0] * AT_ONCE + [COALESCE_S]


def test_an_agent_that_chatters_is_looked_at_little_more_often_than_every_batch() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    looks = 0
    while now < 60.0:
        looks += 1
        now += pace.pause_s() + 0.001
    assert looks < 60.0 / COALESCE_S * 1.15
