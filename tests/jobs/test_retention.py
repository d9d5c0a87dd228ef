"""When ended jobs go."""

from __future__ import annotations

import datetime as dt

from daemon_core.jobs.retention import KeepRules, due, goes_at
from daemon_core.jobs.store import JobRecord

NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


def ended(name: str, hours_ago: float, state: str = "ended") -> JobRecord:
    moment = NOW - dt.timedelta(hours=hours_ago)
    return JobRecord(
        id=name, command="true", cwd="/", created_at="", state=state, ended_at=moment.isoformat()
    )


def at(hours_ago: float) -> str:
    return (NOW - dt.timedelta(hours=hours_ago)).isoformat()


def test_told_ones_go_after_an_hour_and_others_after_a_day() -> None:
    jobs = [
        (ended("old", 25), ""),
        (ended("told", 20), at(1.1)),
        (ended("told late", 20), at(0.5)),
        (ended("untold", 20), ""),
    ]
    going, following = due(jobs, {}, KeepRules(), NOW)
    assert going == ["old", "told"]
    assert following == NOW + dt.timedelta(minutes=30)


def test_one_that_goes_on_never_goes() -> None:
    job = ended("running", 9999, state="started")
    assert goes_at(job, "", KeepRules()) is None
    assert due([(job, "")], {"running": 1 << 50}, KeepRules(budget_bytes=1), NOW) == ([], None)


def test_beyond_the_room_told_ones_go_first_then_the_oldest() -> None:
    jobs = [(ended("a", 3), ""), (ended("b", 2), at(0.5)), (ended("c", 1), ""), (ended("d", 0.5), "")]
    sizes = {"a": 40, "b": 40, "c": 40, "d": 40}
    assert due(jobs, sizes, KeepRules(budget_bytes=160), NOW)[0] == []
    assert due(jobs, sizes, KeepRules(budget_bytes=120), NOW)[0] == ["b"]
    assert due(jobs, sizes, KeepRules(budget_bytes=100), NOW)[0] == ["b", "a"]
    assert due(jobs, sizes, KeepRules(budget_bytes=0), NOW)[0] == []
