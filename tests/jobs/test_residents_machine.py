"""The machine of a resident, by every order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon_core.jobs.residents.files import RestartRules
from daemon_core.jobs.residents.machine import Machine, Phase, pause_s

RULES = RestartRules(policy="always", first_s=1.0, last_s=60.0, give_up_after=4, within_s=100.0)


class Life(RuleBasedStateMachine):
    """Events as the keeper gives them; beside it what a person wants and what lives."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.now = 1000.0
        self.wanted = False
        self.alive = False
        self.starts: list[float] = []
        """Since a person's last word."""

    @rule()
    def start(self) -> None:
        if self.machine.phase not in (Phase.STARTING, Phase.RUNNING):
            self.starts = []
        self.machine.start()
        self.wanted = True

    @rule()
    def stop(self) -> None:
        self.machine.stop()
        self.wanted = False

    @rule()
    def restart(self) -> None:
        self.machine.restart()
        self.wanted = True
        self.starts = []

    @precondition(lambda self: self.machine.phase is Phase.STARTING)
    @rule()
    def spawned(self) -> None:
        assert not self.alive, "two at once"
        self.alive = True
        self.starts.append(self.now)
        self.machine.spawned()

    @precondition(lambda self: self.machine.phase is Phase.STARTING)
    @rule()
    def held(self) -> None:
        self.machine.hold(self.now + 5)
        assert self.machine.next_at == self.now + 5

    @precondition(lambda self: self.machine.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING))
    @rule(success=st.booleans())
    def ended(self, success: bool) -> None:
        asked = self.machine.phase is Phase.STOPPING
        self.alive = False
        self.machine.ended(RULES, self.now, success=success)
        if asked:
            assert self.machine.phase is (Phase.STARTING if self.wanted else Phase.STOPPED)
        else:
            assert self.machine.phase in (Phase.WAITING, Phase.GAVE_UP)

    @precondition(lambda self: self.machine.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING))
    @rule()
    def hopeless(self) -> None:
        self.alive = False
        self.machine.give_up()

    @precondition(lambda self: self.machine.phase is Phase.WAITING)
    @rule()
    def due(self) -> None:
        assert self.machine.next_at - self.now <= RULES.last_s
        self.now = max(self.now, self.machine.next_at)
        self.machine.due()

    @rule(seconds=st.floats(0.1, 500))
    def passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_not_wanted_does_not_start(self) -> None:
        if not self.wanted:
            assert self.machine.phase in (Phase.STOPPED, Phase.STOPPING)
            assert not self.machine.again

    @invariant()
    def what_lives_is_attended(self) -> None:
        if self.alive:
            assert self.machine.phase in (Phase.RUNNING, Phase.STOPPING)

    @invariant()
    def it_is_given_up_in_time(self) -> None:
        recent = [at for at in self.machine.ends if at > self.now - RULES.within_s]
        assert len(recent) <= RULES.give_up_after
        if len(self.machine.ends) >= RULES.give_up_after:
            assert self.machine.phase is Phase.GAVE_UP

    @invariant()
    def a_time_is_known_exactly_while_it_waits(self) -> None:
        assert bool(self.machine.next_at) == (self.machine.phase is Phase.WAITING)


TestLife = Life.TestCase


@given(ends=st.integers(1, 10_000), first=st.floats(0.001, 1000), last=st.floats(0, 10_000))
def test_pauses_grow_to_the_limit(ends: int, first: float, last: float) -> None:
    rules = RestartRules(first_s=first, last_s=first + last)
    assert rules.first_s <= pause_s(rules, ends) <= rules.last_s
    assert pause_s(rules, ends) <= pause_s(rules, ends + 1)


def test_pauses_double() -> None:
    assert [pause_s(RULES, ends) for ends in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    ("policy", "success", "phase"),
    [
        ("always", True, Phase.WAITING),
        ("always", False, Phase.WAITING),
        ("on-failure", True, Phase.ENDED),
        ("on-failure", False, Phase.WAITING),
        ("never", True, Phase.ENDED),
        ("never", False, Phase.ENDED),
    ],
)
def test_policies(policy: str, success: bool, phase: Phase) -> None:
    machine = Machine(phase=Phase.RUNNING)
    machine.ended(RestartRules(policy=policy), 100.0, success=success)  # type: ignore[arg-type]
    assert machine.phase is phase


def test_old_ends_are_forgotten() -> None:
    machine = Machine(phase=Phase.RUNNING)
    for at in (0.0, 101.0, 202.0, 303.0, 404.0, 505.0):
        machine.phase = Phase.RUNNING
        machine.ended(RULES, at, success=False)
        assert machine.phase is Phase.WAITING
        assert machine.next_at == at + 1


def test_a_clock_set_back_does_not_count_against_it() -> None:
    machine = Machine(phase=Phase.RUNNING, ends=[9000.0, 9001.0, 9002.0])
    machine.ended(RULES, 100.0, success=False)
    assert machine.phase is Phase.WAITING


def test_zero_means_it_is_never_given_up() -> None:
    rules = RestartRules(policy="always", give_up_after=0, first_s=0.0, last_s=0.0)
    machine = Machine(phase=Phase.RUNNING)
    for _ in range(1000):
        machine.phase = Phase.RUNNING
        machine.ended(rules, 100.0, success=False)
        assert machine.phase is Phase.WAITING
