"""What the updater does next: pure decisions, with clocks that are wrong."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import msgspec
import pytest

from daemon_core.updates import policy
from daemon_core.updates.history import (
    Book,
    Notice,
    Result,
    left_s,
    text,
    told,
    until_s,
    with_notice,
    with_result,
)
from daemon_core.updates.offers import Problem
from daemon_core.updates.policy import Decision, Do, Moment, Rules, Timing, decide
from daemon_core.updates.stages import Stage, State

NOW = dt.datetime(2026, 5, 4, 10, tzinfo=dt.UTC)
RULES, TIMING = Rules(), Timing()
HOUR_S = 3600.0
READY = State(stage=Stage.WAITING, target="1.1", whole=True, ready_since=text(NOW))


def moment(*, after_s: float = 0.0, check_in_s: float = HOUR_S, quiet_for_s: float = 0.0,
           alive_s: float = 1e9, wanted: bool = False, announced: bool = True) -> Moment:  # fmt: skip
    return Moment(
        now=NOW + dt.timedelta(seconds=after_s),
        check_in_s=check_in_s,
        quiet_for_s=quiet_for_s,
        alive_s=alive_s,
        wanted=wanted,
        announced=announced,
    )


def next_step(state: State, rules: Rules = RULES, book: Book | None = None, **known: Any) -> Decision:
    book = msgspec.structs.replace(book or Book(), state=state)
    return decide(book, rules, moment(**known), TIMING)


def test_a_quiet_moment_is_waited_for_up_to_the_limit() -> None:
    assert next_step(READY).do is None  # a task runs
    assert next_step(READY, quiet_for_s=5) == Decision(None, 15)
    assert next_step(READY, quiet_for_s=20).do is Do.SWITCH
    assert next_step(READY, after_s=24 * HOUR_S).do is Do.SWITCH
    assert next_step(READY, Rules(quiet_limit_s=0)).do is Do.SWITCH
    assert next_step(READY, quiet_for_s=1e6, alive_s=10) == Decision(None, 50)  # not right at the start


def test_what_the_user_wants_does_not_wait() -> None:
    wanted = msgspec.structs.replace(READY, at_once=True)
    assert next_step(wanted).do is Do.SWITCH
    assert (
        next_step(msgspec.structs.replace(wanted, stage=Stage.STAGED), Rules(automatic=False)).do is Do.SWITCH
    )
    later = msgspec.structs.replace(wanted, next_try_at=text(NOW + dt.timedelta(seconds=30)))
    assert next_step(later) == Decision(None, 30)


def test_the_users_switches() -> None:
    staged = msgspec.structs.replace(READY, stage=Stage.STAGED)
    assert next_step(staged).do is Do.ARM
    assert next_step(READY, Rules(automatic=False)).do is Do.DISARM
    assert next_step(staged, Rules(automatic=False)).do is None
    later = Book(remind_version="1.1", remind_at=text(NOW + dt.timedelta(days=7)))
    assert next_step(READY, book=later, quiet_for_s=1e6).do is Do.DISARM
    assert next_step(staged, book=later, announced=False).do is None
    assert next_step(staged, book=later, after_s=8 * 86400, announced=False).do is Do.REMIND
    assert next_step(State(), Rules(check=False), check_in_s=-1).do is None
    assert next_step(State(), Rules(check=False), check_in_s=-1, wanted=True).do is Do.CHECK


def test_what_has_failed_before_waits_for_a_word() -> None:
    failed = msgspec.structs.replace(READY, stage=Stage.STAGED, failed_before=True)
    assert next_step(failed, quiet_for_s=HOUR_S, announced=False).do is None
    assert next_step(failed, after_s=48 * HOUR_S, check_in_s=1e6, announced=False).do is None
    assert next_step(msgspec.structs.replace(failed, at_once=True)).do is Do.SWITCH


def test_it_is_announced_unless_it_is_applied_within_minutes() -> None:
    assert next_step(READY, announced=False) == Decision(None, TIMING.announce_s)
    assert next_step(READY, announced=False, after_s=TIMING.announce_s).do is Do.ANNOUNCE
    staged = msgspec.structs.replace(READY, stage=Stage.STAGED)
    assert next_step(staged, Rules(automatic=False), announced=False).do is Do.ANNOUNCE


@pytest.mark.parametrize("stage", [Stage.IDLE, Stage.COMMITTED, Stage.ROLLED_BACK, Stage.FAILED])
def test_checks_go_on_whatever_the_last_result_was(stage: Stage) -> None:
    assert next_step(State(stage=stage), check_in_s=10) == Decision(None, 10)
    assert next_step(State(stage=stage), check_in_s=0).do is Do.CHECK


def test_what_takes_too_long_is_looked_into() -> None:
    away = State(stage=Stage.VERIFYING, target="1.1", since=text(NOW))
    assert next_step(away) == Decision(None, 300)
    assert next_step(away, after_s=301).do is Do.SETTLE
    assert next_step(away, after_s=-1e9) == Decision(None, 300)  # a clock that was set back
    assert next_step(away, after_s=1e9, alive_s=10) == Decision(None, 290)  # and one that was set years ahead


def test_a_clock_that_is_set_ends_a_wait_or_begins_it_anew() -> None:
    since = text(NOW)
    assert left_s(since, 100, NOW + dt.timedelta(seconds=40)) == 60
    assert left_s(since, 100, NOW + dt.timedelta(days=900)) == 0
    assert left_s(since, 100, NOW - dt.timedelta(days=900)) == 100
    assert left_s("no time", 100, NOW) == 0
    assert until_s(text(NOW + dt.timedelta(days=900)), 100, NOW) == 100


def test_checks_are_spread_and_failures_are_patient() -> None:
    rng = random.Random(1)
    first = [policy.first_check_s(Book(), RULES, TIMING, NOW, rng) for _ in range(100)]
    assert min(first) >= 120
    assert max(first) <= 480
    assert max(first) - min(first) > 200
    recent = Book(checked_at=text(NOW - dt.timedelta(hours=1)))
    assert policy.first_check_s(recent, RULES, TIMING, NOW, rng) == 5 * HOUR_S
    pauses = [policy.next_check_s(failures, RULES, TIMING, rng) for failures in range(1, 12)]
    assert pauses[0] < 400
    assert 0.8 * RULES.interval_s < pauses[-1] < 1.2 * RULES.interval_s
    assert policy.retry_s(9, RULES, TIMING, rng, lasting=True) > 3 * 86400


def test_a_word_is_said_when_it_lasts() -> None:
    since = text(NOW)
    for code, days in (("unreachable", 14), ("expired", 14), ("clock", 1), ("untrusted", 1)):
        problem = Problem(code=code)
        before, after = (NOW + dt.timedelta(days=days, hours=hours) for hours in (-1, 1))
        assert not policy.worth_a_word(problem, since, before)
        assert policy.worth_a_word(problem, since, after)
    assert not policy.worth_a_word(None, since, NOW + dt.timedelta(days=99))


def test_the_same_failure_is_one_line() -> None:
    book = Book()
    for number, code in enumerate(("mismatch", "mismatch", "manifest")):
        line = Result(
            version="1.1", from_version="1.0", result="failed", at=str(number), problem=Problem(code=code)
        )
        book = with_result(book, line)
    assert [line.at for line in book.history] == ["2", "1"]


def test_a_notice_is_told_once() -> None:
    ready = Notice(kind="ready", version="1.1")
    book = with_notice(Book(), ready)
    assert with_notice(book, ready).notices == [ready]
    book = told(book, "ready", "1.1")
    assert with_notice(book, ready).notices == []
    newer = with_notice(book, Notice(kind="ready", version="1.2"))
    assert [each.version for each in newer.notices] == ["1.2"]
    done = with_notice(newer, Notice(kind="updated", version="1.2"))
    assert [each.kind for each in done.notices] == ["updated"]
