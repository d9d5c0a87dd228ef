"""What is said, once, and what is not."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from desktop.commands import Command
from desktop.notifications.planner import (
    CROWD_ID,
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


def test_opening_the_list_takes_back_all_but_what_waits_and_keeps_the_list() -> None:
    planner = Planner()
    planner.happened(fact("a"), Context(0))
    planner.happened(fact("q", Kind.NEEDS_YOU), Context(0))
    assert planner.seen() == [Withdraw("a")]
    assert list(planner.open) == ["a", "q"]


def test_what_somebody_closed_stays_listed() -> None:
    planner = Planner()
    planner.happened(fact("a"), Context(0))
    planner.gone("a")
    assert list(planner.open) == ["a"]
    assert planner.settled("a") == []
    assert planner.open == {}


def test_many_questions_become_one_that_shrinks_as_they_are_answered() -> None:
    planner = Planner()
    shown: list[Result] = []
    for number in range(LIMIT + 2):
        shown += planner.happened(fact(f"q{number}", Kind.NEEDS_YOU), Context(number * 0.1))
    idents = [each.ident for each in shown if isinstance(each, Show)]
    assert idents == [*(f"q{number}" for number in range(LIMIT)), CROWD_ID, CROWD_ID]
    assert isinstance(shown[-1], Show)
    assert shown[-1].title == "2 questions wait for you"
    (smaller,) = planner.settled(f"q{LIMIT}")
    assert isinstance(smaller, Show)
    assert smaller.title == "1 question waits for you"
    assert planner.settled(f"q{LIMIT + 1}") == [Withdraw(CROWD_ID)]


def test_news_do_not_hold_up_a_question() -> None:
    planner = Planner()
    for number in range(LIMIT + 4):
        planner.happened(fact(str(number)), Context(0))
    (asked,) = planner.happened(fact("q", Kind.NEEDS_YOU), Context(0))
    assert isinstance(asked, Show)
    assert asked.ident == "q"


def test_an_absence_ends_in_one_summary_and_its_questions() -> None:
    planner = Planner()
    facts = [fact("a"), fact("b"), fact("c", Kind.FAILED), fact("q", Kind.NEEDS_YOU)]
    shown = planner.returned(facts, Context(0))
    assert [each.ident for each in shown if isinstance(each, Show)] == ["q", SUMMARY_ID]
    assert len(planner.open) == 4
    single = Planner().returned([fact("a")], Context(0))
    assert [each.ident for each in single if isinstance(each, Show)] == ["a"]


def test_an_absence_that_ends_in_quiet_hours_is_told_after_them() -> None:
    planner = Planner()
    assert planner.returned([fact("a"), fact("b")], Context(0, quiet=True)) == []
    assert planner.keeps
    (summary,) = planner.tick(Context(10))
    assert isinstance(summary, Show)
    assert summary.ident == SUMMARY_ID


def test_what_an_earlier_life_said_is_listed_and_not_said_again() -> None:
    planner = Planner()
    planner.restore([fact("a"), fact("q", Kind.NEEDS_YOU)])
    assert list(planner.open) == ["a", "q"]
    assert planner.tick(Context(0)) == []
    assert planner.settled("a") == []


def test_a_server_that_came_back_is_shown_the_questions_again() -> None:
    planner = Planner()
    planner.happened(fact("a"), Context(0))
    planner.happened(fact("q", Kind.NEEDS_YOU), Context(0))
    for ident in ("a", "q"):
        planner.gone(ident)
    (again,) = planner.again(Context(1))
    assert isinstance(again, Show)
    assert again.ident == "q"


class Machine(RuleBasedStateMachine):
    """Nothing is lost: what happened and is not handled is open; nothing is shown that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.planner = Planner()
        self.now = 0.0
        self.quiet = False
        self.visible: dict[str, Show] = {}
        self.open: dict[str, Kind] = {}
        self.closed: set[str] = set()
        self.moments: list[float] = []
        self.urgent: list[float] = []

    def _take(self, results: list[Result]) -> None:
        for each in results:
            if isinstance(each, Show):
                before = self.visible.get(each.ident)
                anew = before is None or (before.kind in URGENT) != (each.kind in URGENT)
                if anew and each.ident != CROWD_ID:
                    (self.urgent if each.kind in URGENT else self.moments).append(self.now)
                self.visible[each.ident] = each
                self.closed.discard(each.ident)
            elif isinstance(each, Withdraw):
                assert each.ident in self.visible
                del self.visible[each.ident]

    def _context(self) -> Context:
        return Context(self.now, quiet=self.quiet)

    @rule(subject=st.sampled_from("abcdefgh"), kind=st.sampled_from(list(Kind)))
    def happens(self, subject: str, kind: Kind) -> None:
        self.open[subject] = kind
        self.closed.discard(subject)
        self._take(self.planner.happened(fact(subject, kind), self._context()))

    @rule(subject=st.sampled_from("abcdefgh"))
    def settles(self, subject: str) -> None:
        self.open.pop(subject, None)
        self._take(self.planner.settled(subject))

    @rule(subjects=st.lists(st.sampled_from("abcdefgh"), unique=True), kind=st.sampled_from(list(Kind)))
    def returns(self, subjects: list[str], kind: Kind) -> None:
        self.open.update(dict.fromkeys(subjects, kind))
        self.closed -= set(subjects)
        self._take(self.planner.returned([fact(each, kind) for each in subjects], self._context()))

    @rule()
    def looks(self) -> None:
        self._take(self.planner.seen())

    @rule(subject=st.sampled_from("abcdefgh"))
    def somebody_closes(self, subject: str) -> None:
        if self.visible.pop(subject, None) is not None:
            self.closed.add(subject)
            self.planner.gone(subject)

    @rule()
    def a_server_comes_back(self) -> None:
        for ident in list(self.visible):
            self.visible.pop(ident)
            self.planner.gone(ident)
        self._take(self.planner.again(self._context()))
        self.closed.clear()

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
        assert set(self.visible) - {SUMMARY_ID, CROWD_ID} <= set(self.open)

    @invariant()
    def questions_are_seen(self) -> None:
        asked = {subject for subject, kind in self.open.items() if kind is Kind.NEEDS_YOU}
        assert CROWD_ID in self.visible or asked - self.closed <= set(self.visible)

    @invariant()
    def never_more_than_stated(self) -> None:
        for moments in (self.moments, self.urgent):
            lately = [at for at in moments if self.now - at < WINDOW_S]
            assert len(lately) <= LIMIT + 1  # and the summary


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
