"""What deserves a notification: one planner decides, from what happened, what is looked at and what was said.

A step takes a fact and gives what to show and what to take back. Nothing here knows a clock, a bus or a
window: time comes in with each step, and a wish to be called later is one of the results. Rules:

- What waits for an answer is always said, at once, with its answers; it is withdrawn when it is settled.
- What ended is said once: not while its task is looked at, not after its window was seen. During quiet hours
  and "do not disturb" it is kept for one summary afterwards.
- More than ``LIMIT`` in a minute become one summary, which is updated in place.
- A notification that says something about the same subject takes the place of the older one.
- Whatever was notified and not handled is in ``open`` until it is.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from desktop.commands import Command

LIMIT: Final = 5
WINDOW_S: Final = 60.0
SUMMARY_ID: Final = "summary"


class Kind(enum.Enum):
    """What a notification is about; each can be switched off."""

    NEEDS_YOU = "needs_you"
    FINISHED = "finished"
    FAILED = "failed"
    STALLED = "stalled"
    PARKED = "parked"
    UPDATE = "update"
    TROUBLE = "trouble"


URGENT: Final = frozenset({Kind.NEEDS_YOU, Kind.TROUBLE})
"""Said also in quiet hours: without an answer nothing goes on."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened. ``subject`` is what it is about; a newer fact replaces an older one of it."""

    kind: Kind
    subject: str
    title: str
    text: str
    task: str = ""
    """The task that is looked at when its window is."""
    command: Command | None = None
    """What a click on the whole does."""
    buttons: tuple[tuple[str, Command], ...] = ()


@dataclass(frozen=True, slots=True)
class Show:
    """Show this, in the place of what has the same id."""

    ident: str
    kind: Kind
    title: str
    text: str
    command: Command | None
    buttons: tuple[tuple[str, Command], ...] = ()


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take this back: it is settled, or it was seen elsewhere."""

    ident: str


@dataclass(frozen=True, slots=True)
class CallAgain:
    """Step with ``tick`` after so many seconds: then something may be due."""

    after_s: float


Result = Show | Withdraw | CallAgain


@dataclass(frozen=True, slots=True)
class Context:
    """How things are at a step.

    Attributes:
        now: Seconds of any clock that only goes forward.
        looked_at: The task in a focused window of ours; empty: none.
        quiet: Quiet hours, a snooze, or "do not disturb" of the desktop.
        off: Kinds that the user does not want.
    """

    now: float
    looked_at: str = ""
    quiet: bool = False
    off: frozenset[Kind] = frozenset()


@dataclass(slots=True)
class Planner:
    """Attributes:
    open: What was said or kept and is not handled, newest last; by subject.
    """

    open: dict[str, Fact] = field(default_factory=dict)
    _shown: dict[str, Fact] = field(default_factory=dict)
    _kept: dict[str, Fact] = field(default_factory=dict)
    _moments: list[float] = field(default_factory=list)
    _summary: bool = False

    def happened(self, fact: Fact, context: Context) -> list[Result]:
        """Something happened."""
        if fact.kind in context.off:
            return []
        if fact.task and fact.task == context.looked_at and fact.kind is not Kind.NEEDS_YOU:
            return self.settled(fact.subject)
        self.open.pop(fact.subject, None)
        self.open[fact.subject] = fact
        if context.quiet and fact.kind not in URGENT:
            self._kept[fact.subject] = fact
            return self._take_back(fact.subject)
        return self._say(fact, context)

    def settled(self, subject: str) -> list[Result]:
        """It was answered, opened, dismissed, or is over by itself."""
        self.open.pop(subject, None)
        self._kept.pop(subject, None)
        results = self._take_back(subject)
        return results + self._summarised()

    def seen(self) -> list[Result]:
        """The window that lists everything was opened: nothing has to be said any more but what waits."""
        results: list[Result] = []
        for subject, fact in list(self.open.items()):
            if fact.kind is not Kind.NEEDS_YOU:
                self.open.pop(subject)
                self._kept.pop(subject, None)
                results += self._take_back(subject)
        return results + self._summarised()

    def tick(self, context: Context) -> list[Result]:
        """Time has passed, or quiet is over."""
        if context.quiet or not self._kept:
            return []
        self._moments = [at for at in self._moments if context.now - at < WINDOW_S]
        if self._summary or len(self._kept) > 1:
            return self._summarised(show=True, now=context.now)
        fact = next(iter(self._kept.values()))
        return self._say(fact, context)

    # --- small -------------------------------------------------------------------------------------

    def _say(self, fact: Fact, context: Context) -> list[Result]:
        now = context.now
        self._moments = [at for at in self._moments if now - at < WINDOW_S]
        replaces = fact.subject in self._shown
        if fact.kind not in URGENT and not replaces and len(self._moments) >= LIMIT:
            self._kept[fact.subject] = fact
            return self._summarised(show=True, now=now)
        if not replaces:
            self._moments.append(now)
        self._kept.pop(fact.subject, None)
        self._shown[fact.subject] = fact
        return [Show(fact.subject, fact.kind, fact.title, fact.text, fact.command, fact.buttons)]

    def _take_back(self, subject: str) -> list[Result]:
        return [Withdraw(subject)] if self._shown.pop(subject, None) is not None else []

    def _summarised(self, *, show: bool = False, now: float = 0.0) -> list[Result]:
        """The summary as it is now: shown, updated in place, or taken back when it is empty."""
        if not self._kept:
            if self._summary:
                self._summary = False
                return [Withdraw(SUMMARY_ID)]
            return []
        if not self._summary and not show:
            return []
        if not self._summary:
            if len(self._moments) > LIMIT:
                # The one before was just taken back: not another one at once.
                return [CallAgain(WINDOW_S - (now - self._moments[0]))]
            self._moments.append(now)
        self._summary = True
        title, text = summary_of(list(self._kept.values()))
        return [Show(SUMMARY_ID, Kind.FINISHED, title, text, Command("open", "history"))]

    def summary_gone(self) -> None:
        """The summary was dismissed or opened: what it told is told."""
        self._summary = False
        self._kept.clear()


def summary_of(facts: Sequence[Fact]) -> tuple[str, str]:
    """Title and text of a summary."""
    from desktop.text import _, n_

    done = sum(fact.kind is Kind.FINISHED for fact in facts)
    failed = sum(fact.kind is Kind.FAILED for fact in facts)
    others = len(facts) - done - failed
    parts = [
        n_("{n} task is done", "{n} tasks are done", done) if done else "",
        n_("{n} failed", "{n} failed", failed) if failed else "",
        n_("{n} other message", "{n} other messages", others) if others else "",
    ]
    title = _(", ").join(part for part in parts if part)
    names = [fact.title for fact in facts[-3:]]
    more = len(facts) - len(names)
    text = " · ".join(names)
    return title, text + (f" · +{more}" if more else "")
