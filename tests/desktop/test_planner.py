"""What is said, once, and what is not."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from desktop.commands import Command
from desktop.notifications.planner import (
    LIMIT,
    SUMMARY_ID,
    URGENT,
    WINDOW_S,
    Context,
    Fact,
    Kind,
    Planner,
    Result,
    Show,
    Withdraw,
)


def fact(subject: str, kind: Kind = Kind.FINISHED) -> Fact:
    return Fact(
        kind,
        subject,
        f"Task {subject}",
        "Done in 12 min",
        task=subject,
        command=Command("open_task", subject),
    )


def test_an_end_is_said_once_and_in_place() -> None:
    planner = Planner()
    (first,) = planner.happened(fact("a"), Context(0))
    assert isinstance(first, Show)
    assert (first.ident, first.title) == ("a", "Task a")
    (second,) = planner.happened(fact("a", Kind.FAILED), Context(1))
    assert isinstance(second, Show)
    assert second.ident == "a"
    assert list(planner.open) == ["a"]


def test_nothing_is_said_of_what_is_looked_at() -> None:
    planner = Planner()
    assert planner.happened(fact("a"), Context(0, looked_at="a")) == []
    assert planner.open == {}
    # But a question is: the window may show another part of it.
    assert len(planner.happened(fact("a", Kind.NEEDS_YOU), Context(0, looked_at="a"))) == 1


def test_what_is_switched_off_is_not_said() -> None:
    planner = Planner()
    assert planner.happened(fact("a"), Context(0, off=frozenset({Kind.FINISHED}))) == []
    assert planner.open == {}


def test_many_at_once_become_one_summary_that_is_updated() -> None:
    planner = Planner()
    shown: list[Result] = []
    for number in range(LIMIT + 3):
        shown += planner.happened(fact(str(number)), Context(number * 0.1))
    singles = [each for each in shown if isinstance(each, Show) and each.ident != SUMMARY_ID]
    summaries = [each for each in shown if isinstance(each, Show) and each.ident == SUMMARY_ID]
    assert len(singles) == LIMIT
    assert [each.title for each in summaries] == ["1 task is done", "2 tasks are done", "3 tasks are done"]


def test_quiet_hours_keep_all_but_what_waits_and_end_in_one_summary() -> None:
    planner = Planner()
    quiet = Context(0, quiet=True)
    assert planner.happened(fact("a"), quiet) == []
    assert planner.happened(fact("b", Kind.FAILED), quiet) == []
    assert len(planner.happened(fact("q", Kind.NEEDS_YOU), quiet)) == 1
    assert planner.tick(Context(10, quiet=True)) == []
    (summary,) = planner.tick(Context(20))
    assert isinstance(summary, Show)
    assert summary.title == "1 task is done, 1 failed"
    assert set(planner.open) == {"a", "b", "q"}


def test_one_that_was_kept_is_said_as_itself() -> None:
    planner = Planner()
    planner.happened(fact("a"), Context(0, quiet=True))
    (said,) = planner.tick(Context(1))
    assert isinstance(said, Show)
    assert said.ident == "a"


def test_what_is_settled_is_taken_back() -> None:
    planner = Planner()
    planner.happened(fact("a", Kind.NEEDS_YOU), Context(0))
    assert planner.settled("a") == [Withdraw("a")]
    assert planner.settled("a") == []


def test_opening_the_list_takes_back_all_but_what_waits() -> None:
    planner = Planner()
    planner.happened(fact("a"), Context(0))
    planner.happened(fact("q", Kind.NEEDS_YOU), Context(0))
    assert planner.seen() == [Withdraw("a")]
    assert list(planner.open) == ["q"]


class Machine(RuleBasedStateMachine):
    """Nothing is lost: what happened and is not handled is open; nothing is shown that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.planner = Planner()
        self.now = 0.0
        self.quiet = False
        self.visible: dict[str, Show] = {}
        self.open: dict[str, Kind] = {}
        self.moments: list[float] = []

    def _take(self, results: list[Result]) -> None:
        for each in results:
            if isinstance(each, Show):
                if each.ident not in self.visible and each.kind not in URGENT:
                    self.moments.append(self.now)
                self.visible[each.ident] = each
            elif isinstance(each, Withdraw):
                assert each.ident in self.visible
                del self.visible[each.ident]

    def _context(self) -> Context:
        return Context(self.now, quiet=self.quiet)

    @rule(subject=st.sampled_from("abcdefgh"), kind=st.sampled_from(list(Kind)))
    def happens(self, subject: str, kind: Kind) -> None:
        self.open[subject] = kind
        self._take(self.planner.happened(fact(subject, kind), self._context()))

    @rule(subject=st.sampled_from("abcdefgh"))
    def settles(self, subject: str) -> None:
        self.open.pop(subject, None)
        self._take(self.planner.settled(subject))

    @rule()
    def looks(self) -> None:
        self.open = {subject: kind for subject, kind in self.open.items() if kind is Kind.NEEDS_YOU}
        self._take(self.planner.seen())

    @rule(quiet=st.booleans())
    def quiet_changes(self, quiet: bool) -> None:
        self.quiet = quiet
        self._take(self.planner.tick(self._context()))

    @rule(seconds=st.floats(0, 100))
    def waits(self, seconds: float) -> None:
        self.now += seconds
        self._take(self.planner.tick(self._context()))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert {subject: each.kind for subject, each in self.planner.open.items()} == self.open

    @invariant()
    def nothing_is_shown_that_is_handled(self) -> None:
        assert set(self.visible) - {SUMMARY_ID} <= set(self.open)

    @invariant()
    def questions_are_seen(self) -> None:
        assert all(subject in self.visible for subject, kind in self.open.items() if kind is Kind.NEEDS_YOU)

    @invariant()
    def never_more_than_stated(self) -> None:
        lately = [at for at in self.moments if self.now - at < WINDOW_S]
        assert len(lately) <= LIMIT + 1  # and the summary


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
