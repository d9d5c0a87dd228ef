"""What was notified and nobody has handled: the list behind the notifications, for windows and the tray."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, Signal

from desktop.notifications.planner import Fact, Kind


class Messages(QObject):
    """Attributes:
    facts: The newest first.

    Signals:
        changed(): ``facts`` is another list.
        test_came(str): What became of a test notification: shown, opened, failed.
    """

    changed = Signal()
    test_came = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.facts: tuple[Fact, ...] = ()
        self.open: Callable[[Fact], None] = lambda _fact: None
        """Do what a click on its notification does."""
        self.put_away: Callable[[str], None] = lambda _subject: None
        """Nothing more to be done about this subject."""
        self.seen: Callable[[], None] = lambda: None
        """The list is looked at."""
        self.test: Callable[[], None] = lambda: None
        """Show a test notification; ``test_came`` tells what becomes of it."""
        self.server: Callable[[], str] = lambda: ""
        """What shows notifications calls itself; empty: not known."""
        self.silenced: Callable[[], bool] = lambda: False
        """Whether the desktop is on "do not disturb"."""
        self.snoozed_until: Callable[[], str] = lambda: ""
        """Until when nothing is notified (RFC 3339); empty: nobody wanted that."""

    @property
    def news(self) -> tuple[Fact, ...]:
        """Without what waits for an answer: that has places of its own."""
        return tuple(fact for fact in self.facts if fact.kind is not Kind.NEEDS_YOU)

    def show(self, facts: tuple[Fact, ...]) -> None:
        """These are open now."""
        if facts != self.facts:
            self.facts = facts
            self.changed.emit()

    def put_all_away(self) -> None:
        """Nothing more to be done about any of the news."""
        for fact in self.news:
            self.put_away(fact.subject)
