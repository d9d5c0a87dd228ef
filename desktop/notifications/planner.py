"""What deserves a notification: one planner decides, from what happened, what is looked at and what was said.

A step takes a fact and gives what to show and what to take back. Nothing here knows a clock, a bus or a
window: time comes in with each step, and a wish to be called later is one of the results. Rules:

- What waits for an answer is always said, at once, with its answers; it is withdrawn when it is settled.
- What ended is said once: not while its task is looked at, not after its window was seen. During quiet hours
  and "do not disturb" it is kept for one summary afterwards, and so is what happened while nobody looked.
- More than ``limit`` in a minute become one summary, which is updated in place. Questions have a limit and a
  summary of their own, so that a flood of news never hides one, and that summary comes back whenever there
  is a question that nobody has seen.
- A notification that says something about the same subject takes the place of the older one.
- Whatever was notified and not handled is in ``open`` until it is: that a notification went away, or was
  closed, does not handle it.
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
CROWD_ID: Final = "crowd"
"""The summary of what waits for an answer."""
MOST_OPEN: Final = 200
"""So much is listed; what is older goes."""


class Kind(enum.Enum):
    """What a notification is about; each can be switched off."""

    NEEDS_YOU = "needs_you"
    FINISHED = "finished"
    FAILED = "failed"
    STALLED = "stalled"
    JOB = "job"
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
    """The task that is looked at when its window is; of a job: its own subject."""
    command: Command | None = None
    """What a click on the whole does."""
    buttons: tuple[tuple[str, Command], ...] = ()
    reply: Command | None = None
    """What a written answer does; its words are added to it."""
    at: str = ""
    """When it happened (RFC 3339)."""


@dataclass(frozen=True, slots=True)
class Show:
    """Show this, in the place of what has the same id."""

    ident: str
    kind: Kind
    title: str
    text: str
    command: Command | None
    buttons: tuple[tuple[str, Command], ...] = ()
    reply: Command | None = None


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
        looked_at: The task in a focused window of ours, or a job's subject; empty: none.
        quiet: Quiet hours, a snooze, "do not disturb" of the desktop, or nobody there.
        off: Kinds that the user does not want.
        limit: How many may come in a minute.
        mute: The user wants no notifications at all: everything is only listed.
    """

    now: float
    looked_at: str = ""
    quiet: bool = False
    off: frozenset[Kind] = frozenset()
    limit: int = LIMIT
    mute: bool = False


@dataclass(slots=True)
class Planner:
    """Attributes:
    open: What was said or kept and is not handled, newest last; by subject.
    """

    open: dict[str, Fact] = field(default_factory=dict)
    _shown: dict[str, Fact] = field(default_factory=dict)
    _kept: dict[str, Fact] = field(default_factory=dict)
    _crowd: dict[str, Fact] = field(default_factory=dict)
    _moments: list[float] = field(default_factory=list)
    _urgent_moments: list[float] = field(default_factory=list)
    _summary: bool = False
    _crowd_shown: bool = False

    @property
    def keeps(self) -> bool:
        """Whether something waits for a better moment: then ``tick`` says it."""
        return bool(self._kept) and not self._summary

    def happened(self, fact: Fact, context: Context) -> list[Result]:
        """Something happened."""
        if fact.kind in context.off:
            return self.settled(fact.subject)
        if fact.task and fact.task == context.looked_at and fact.kind is not Kind.NEEDS_YOU:
            return self.settled(fact.subject)
        self._list(fact)
        if context.mute:
            return self._told(fact.subject)
        if context.quiet and fact.kind not in URGENT:
            crowded = self._leave_crowd(fact.subject)
            self._kept[fact.subject] = fact
            return self._take_back(fact.subject) + crowded
        return self._say(fact, context)

    def returned(self, facts: Sequence[Fact], context: Context) -> list[Result]:
        """All this happened while nobody looked: one piece of news as itself, more in one summary."""
        results: list[Result] = []
        wanted = [fact for fact in facts if fact.kind not in context.off]
        rest = [fact for fact in wanted if fact.kind not in URGENT]
        for fact in wanted:
            if fact.kind in URGENT or len(rest) == 1 or context.mute:
                results += self.happened(fact, context)
            else:
                self._list(fact)
                self._kept[fact.subject] = fact
                results += self._take_back(fact.subject)
        return results + (self.tick(context) if len(rest) > 1 else [])

    def restore(self, facts: Sequence[Fact]) -> None:
        """What an earlier life has said and nobody has handled: listed, and not said again."""
        for fact in facts:
            self._list(fact)

    def settled(self, subject: str) -> list[Result]:
        """It was answered, opened, put away, or is over by itself."""
        self.open.pop(subject, None)
        return self._told(subject)

    def seen(self) -> list[Result]:
        """The list of everything was opened: only what waits has still to be said. All stays listed."""
        results: list[Result] = []
        for subject, fact in self.open.items():
            if fact.kind not in URGENT:
                results += self._told(subject)
        return results

    def gone(self, ident: str) -> None:
        """A notification is not shown any more: closed, its time over, or its server gone."""
        if ident == SUMMARY_ID:
            self._summary = False
            self._kept.clear()
        elif ident == CROWD_ID:
            self._crowd_shown = False
            self._crowd.clear()
        else:
            self._shown.pop(ident, None)

    def again(self, context: Context) -> list[Result]:
        """The server lost everything it showed: what still waits for an answer is said again."""
        results: list[Result] = []
        for subject, fact in list(self.open.items()) if not context.mute else ():
            if fact.kind is Kind.NEEDS_YOU and subject not in self._shown and subject not in self._crowd:
                results += self._say(fact, context)
        return results

    def tick(self, context: Context) -> list[Result]:
        """Time has passed, or quiet is over."""
        if context.quiet or context.mute or not self._kept:
            return []
        if self._summary or len(self._kept) > 1:
            return self._summarised(show=True, context=context)
        fact = next(iter(self._kept.values()))
        return self._say(fact, context)

    # --- small -------------------------------------------------------------------------------------

    def _list(self, fact: Fact) -> None:
        self.open.pop(fact.subject, None)
        self.open[fact.subject] = fact
        old = [subject for subject, each in self.open.items() if each.kind not in URGENT]
        for subject in old[: max(0, len(self.open) - MOST_OPEN)]:
            if subject not in self._shown and subject not in self._kept:
                del self.open[subject]

    def _say(self, fact: Fact, context: Context) -> list[Result]:
        now, urgent = context.now, fact.kind in URGENT
        moments = self._lately(now, urgent=urgent)
        subject = fact.subject
        before = self._shown.get(subject)
        # What takes another kind's place counts anew: a question in the place of news is one more question.
        replaces = before is not None and (before.kind in URGENT) == urgent
        if not replaces and len(moments) >= context.limit:
            if urgent:
                summarised = self._leave_summary(subject)
                self._crowd[subject] = fact
                return self._take_back(subject) + summarised + self._crowded(show=True)
            crowded = self._leave_crowd(subject)
            self._kept[subject] = fact
            return self._take_back(subject) + crowded + self._summarised(show=True, context=context)
        if not replaces:
            moments.append(now)
        self._shown[subject] = fact
        shown = Show(subject, fact.kind, fact.title, fact.text, fact.command, fact.buttons, fact.reply)
        return [shown, *self._leave_crowd(subject), *self._leave_summary(subject)]

    def _lately(self, now: float, *, urgent: bool) -> list[float]:
        moments = self._urgent_moments if urgent else self._moments
        moments[:] = [at for at in moments if now - at < WINDOW_S]
        return moments

    def _told(self, subject: str) -> list[Result]:
        """Nothing has to be said of it any more."""
        return self._take_back(subject) + self._leave_crowd(subject) + self._leave_summary(subject)

    def _leave_crowd(self, subject: str) -> list[Result]:
        return self._crowded() if self._crowd.pop(subject, None) is not None else []

    def _leave_summary(self, subject: str) -> list[Result]:
        return self._summarised() if self._kept.pop(subject, None) is not None else []

    def _take_back(self, subject: str) -> list[Result]:
        return [Withdraw(subject)] if self._shown.pop(subject, None) is not None else []

    def _crowded(self, *, show: bool = False) -> list[Result]:
        """The summary of what waits, as it is now."""
        if not self._crowd:
            was, self._crowd_shown = self._crowd_shown, False
            return [Withdraw(CROWD_ID)] if was else []
        if not self._crowd_shown and not show:
            return []
        self._crowd_shown = True
        title, text = summary_of(list(self._crowd.values()))
        return [Show(CROWD_ID, Kind.NEEDS_YOU, title, text, Command("open", "now"))]

    def _summarised(self, *, show: bool = False, context: Context | None = None) -> list[Result]:
        """The summary as it is now: shown, updated in place, or taken back when it is empty."""
        if not self._kept:
            was, self._summary = self._summary, False
            return [Withdraw(SUMMARY_ID)] if was else []
        if not self._summary:
            if not show or context is None:
                return []
            moments = self._lately(context.now, urgent=False)
            if len(moments) > context.limit:
                # The one before was just taken back: not another one at once.
                return [CallAgain(WINDOW_S - (context.now - moments[0]))]
            moments.append(context.now)
        self._summary = True
        title, text = summary_of(list(self._kept.values()))
        return [Show(SUMMARY_ID, Kind.FINISHED, title, text, Command("open", "messages"))]


def summary_of(facts: Sequence[Fact]) -> tuple[str, str]:
    """Title and text of a summary."""
    from desktop.text import _, n_

    asking = sum(fact.kind is Kind.NEEDS_YOU for fact in facts)
    done = sum(fact.kind is Kind.FINISHED for fact in facts)
    failed = sum(fact.kind is Kind.FAILED for fact in facts)
    others = len(facts) - asking - done - failed
    parts = [
        n_("{n} question waits for you", "{n} questions wait for you", asking) if asking else "",
        n_("{n} task is done", "{n} tasks are done", done) if done else "",
        n_("{n} failed", "{n} failed", failed) if failed else "",
        n_("{n} other message", "{n} other messages", others) if others else "",
    ]
    title = _(", ").join(part for part in parts if part)
    names = [fact.title for fact in facts[-3:]]
    more = len(facts) - len(names)
    text = " · ".join(names)
    return title, text + (f" · +{more}" if more else "")
