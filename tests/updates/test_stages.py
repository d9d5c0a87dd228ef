"""The stages: the table as a whole, and a machine that is killed anywhere and goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon_core.updates import stages
from daemon_core.updates.history import Book, BookFile
from daemon_core.updates.offers import Offer, Problem, Target
from daemon_core.updates.stages import (
    AWAY,
    HERE,
    LIMITS_S,
    RESULTS,
    TRANSITIONS,
    Event,
    Facts,
    Stage,
    StageError,
    State,
    found,
    recovered,
    step,
)

AT = "2026-05-04T10:00:00.000Z"


def offer(version: str, mark: str = "a") -> Offer:
    return Offer(version=version, full=Target(path=version, url_path=version, length=1, sha256=mark * 64))


def test_every_stage_can_be_reached_and_left() -> None:
    seen = {Stage.IDLE}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in seen} - seen:
        seen |= more
    assert seen == set(Stage)
    assert {before for before, _ in TRANSITIONS} == set(Stage)
    assert set(LIMITS_S) == set(Stage)
    used = {event for _, event in TRANSITIONS}
    assert used == set(Event)
    # What has a limit has somewhere to go when it is over, without anybody's help.
    for stage, limit_s in LIMITS_S.items():
        if limit_s is not None:
            ends = {Event.FAILED, Event.PUT_OFF, Event.NOTHING}
            assert any((stage, event) in TRANSITIONS for event in ends), stage


def test_what_cannot_happen_is_a_fault() -> None:
    with pytest.raises(StageError, match="fetched in the stage idle"):
        step(State(), Event.FETCHED, AT)


def test_what_failed_with_a_version_counts_on_until_it_is_mended() -> None:
    state = found(step(State(), Event.CHECK, AT), offer("2.0"), AT)
    state = step(step(state, Event.FETCH, AT), Event.FAILED, AT, problem=Problem(code="mismatch"))
    again = found(step(state, Event.CHECK, AT), offer("2.0"), AT)
    assert again.attempts == 1
    mended = found(step(state, Event.CHECK, AT), offer("2.0", "b"), AT)
    assert (mended.attempts, mended.problem) == (0, None)


versions = st.sampled_from(["1.1", "1.2", "1.3"])


class Updates(RuleBasedStateMachine):
    """One installation: what is on the disk (the book, the pointer, the versions), and a process."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.file = BookFile(Path(self.place.name) / "app" / "update.json")
        self.proven, self.trial, self.bad = "1.0", "", dict[str, Problem]()
        self.running = "1.0"
        self.whole = {"1.0"}
        self.state = State()
        self.save()

    def teardown(self) -> None:
        self.place.cleanup()

    def save(self) -> None:
        self.file.save(Book(state=self.state))

    def go(self, event: Event, **changes: object) -> None:
        self.state = msgspec.structs.replace(step(self.state, event, AT), **changes)
        self.save()

    def facts(self) -> Facts:
        return Facts(
            running=self.running,
            proven=self.proven,
            on_trial=self.trial,
            bad=dict(self.bad),
            whole=self.state.target in self.whole,
        )

    def stage(self) -> Stage:
        return self.state.stage

    # --- checks and downloads

    @precondition(lambda self: (self.state.stage, Event.CHECK) in TRANSITIONS)
    @rule()
    def check(self) -> None:
        self.go(Event.CHECK)

    @precondition(lambda self: self.state.stage is Stage.CHECKING)
    @rule(version=versions)
    def learn(self, version: str) -> None:
        if self.state.whole and version == self.state.target:
            self.go(Event.KEPT)
        elif version > self.proven:
            self.state = found(self.state, offer(version), AT)
            self.save()
        else:
            self.go(Event.NOTHING)

    @precondition(lambda self: self.state.stage is Stage.AVAILABLE)
    @rule(how=st.sampled_from([Event.FETCHED, Event.PUT_OFF, Event.FAILED]))
    def fetch(self, how: Event) -> None:
        self.go(Event.FETCH)
        if how is Event.FETCHED:
            self.whole.add(self.state.target)
        self.go(how)

    @precondition(lambda self: self.state.stage is Stage.AVAILABLE)
    @rule(published=st.booleans())
    def fetch_and_die(self, published: bool) -> None:
        self.go(Event.FETCH)
        if published:  # the version is in place, and the book does not say so yet
            self.whole.add(self.state.target)
        self.die()

    @precondition(lambda self: self.state.stage in HERE)
    @rule()
    def arm_or_not(self) -> None:
        self.go(Event.ARM if self.state.stage is Stage.STAGED else Event.DISARM)

    @precondition(lambda self: self.state.stage in HERE and self.state.target not in (self.running,))
    @rule()
    def lose_the_files(self) -> None:
        if self.state.target != self.proven:
            self.whole.discard(self.state.target)
            self.die()

    # --- the switch

    @precondition(lambda self: self.state.stage in HERE and self.trial == "")
    @rule(how=st.sampled_from(["aborted", "died before", "trial written", "starts"]))
    def switch(self, how: str) -> None:
        self.go(Event.GO, started_from=self.running)
        if how == "aborted":
            self.go(Event.PUT_OFF)
            return
        if how != "died before":
            self.bad.pop(self.state.target, None)
            self.trial = self.state.target
        if how == "starts":
            self.running = self.trial
        self.die()

    @precondition(lambda self: self.trial != "")
    @rule(how=st.sampled_from(["commits", "reverts", "starts again"]))
    def decide(self, how: str) -> None:
        if how == "starts again":
            self.running = self.trial
        elif how == "commits" and self.running == self.trial:
            self.proven, self.trial = self.trial, ""
        elif how == "reverts":
            self.bad[self.trial] = Problem(code="crashed")
            self.running, self.trial = self.proven, ""
        self.die()

    @rule()
    def die(self) -> None:
        """The process is gone; the next one finds what is on the disk."""
        kept = self.file.load().state
        assert kept == self.state
        facts = self.facts()
        self.state = recovered(kept, facts, AT)
        assert recovered(self.state, facts, AT) == self.state
        assert self.state.stage not in (Stage.CHECKING, Stage.DOWNLOADING)
        self.save()

    # --- what always holds

    @invariant()
    def what_is_ready_is_here(self) -> None:
        if self.state.stage in HERE:
            assert self.state.target in self.whole

    @invariant()
    def there_is_something_to_fetch(self) -> None:
        if self.state.stage in (Stage.AVAILABLE, Stage.DOWNLOADING):
            assert self.state.offer is not None

    @invariant()
    def a_result_is_what_the_pointer_says(self) -> None:
        if self.state.stage is Stage.COMMITTED:
            assert self.proven >= self.state.target
        if self.state.stage is Stage.ROLLED_BACK:
            assert self.state.target in self.bad
            assert self.running != self.state.target

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        if self.state.stage in AWAY:
            assert LIMITS_S[self.state.stage] is not None
        if self.state.stage is Stage.VERIFYING:
            assert self.running == self.state.target

    @invariant()
    def results_are_over(self) -> None:
        if self.state.stage in RESULTS:
            assert not self.state.at_once


TestUpdates = Updates.TestCase
TestUpdates.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_the_way_back_has_nothing_to_fetch() -> None:
    """A rollback whose version has vanished is over: nobody offered it."""
    back = State(stage=Stage.STAGED, target="1.0", whole=True, back=True)
    assert recovered(back, Facts(running="1.1", proven="1.1"), AT).stage is Stage.IDLE


def test_a_switch_that_never_begins_is_given_up_at_last() -> None:
    state = State(stage=Stage.STAGED, offer=offer("1.1"), target="1.1", whole=True)
    facts = Facts(running="1.0", proven="1.0", whole=True)
    for _ in range(stages.ATTEMPTS - 1):
        state = recovered(step(state, Event.GO, AT), facts, AT)
        assert state.stage is Stage.STAGED
    assert recovered(step(state, Event.GO, AT), facts, AT).stage is Stage.FAILED


def test_a_version_that_an_installer_brought_is_no_offer_any_more() -> None:
    state = State(stage=Stage.WAITING, offer=offer("1.1"), target="1.1", whole=True)
    assert recovered(state, Facts(running="1.1", proven="1.1", whole=True), AT).stage is Stage.IDLE


def test_a_death_in_the_first_check_after_an_update_does_not_bring_it_once_more() -> None:
    done = State(stage=Stage.COMMITTED, target="1.1", offer=offer("1.1"), started_from="1.0")
    checking = step(done, Event.CHECK, AT)
    assert recovered(checking, Facts(running="1.1", proven="1.1"), AT).stage is Stage.IDLE


def test_a_book_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    file = BookFile(tmp_path / "update.json")
    for damaged in (b"\0\0\0", b'{"format": 99}', b'{"state": {"stage": "flying"}}'):
        file.path.write_bytes(damaged)
        assert file.load() == Book()
        assert not file.path.exists()
    assert (tmp_path / "update.damaged").exists()
