"""What shows notifications: one small interface, a chain of those that can, the tray's balloon at its end.

A service shows under idents of ours, in place where it can, and tells what became of each. It never waits and
never raises for a platform that fails: it says ``failed``, and the next one in the chain is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PySide6.QtCore import QObject, Signal

Urgency = Literal["low", "normal", "critical"]

TITLE_CHARS = 120
TEXT_CHARS = 400


@dataclass(frozen=True, slots=True)
class Button:
    """``key`` comes back when it is pressed."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification; another one with the same ``ident`` takes its place.

    Attributes:
        reply: What the field for a written answer is called; empty: there is none.
        category: As the desktop notification specification names them; others leave it out.
        sound: Name of a sound of the desktop's theme; empty: silent.
        stays: It is shown until it is answered or taken back, rather than for a moment.
    """

    ident: str
    title: str
    text: str
    urgency: Urgency = "normal"
    buttons: tuple[Button, ...] = ()
    reply: str = ""
    category: str = ""
    sound: str = ""
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a service can do.

    Attributes:
        name: What it calls itself; empty: not known.
    """

    name: str = ""
    buttons: bool = False
    reply: bool = False


class Service(QObject):
    """Shows notifications.

    Signals:
        opened(str, str): The whole of it was clicked; ident, and a token to be allowed to take the focus.
        pressed(str, str, str): One of its buttons; ident, key, token.
        replied(str, str): An answer was written; ident, text.
        gone(str, bool): It is not shown any more; whether a person closed it.
        failed(str): It could not be shown.
        revived(): The service lost everything it showed and is there again.
        left(object): What an earlier life of the desktop had left on the screen, by ident: it crashed, its
            buttons were dead, and it was taken back.
    """

    opened = Signal(str, str)
    pressed = Signal(str, str, str)
    replied = Signal(str, str)
    gone = Signal(str, bool)
    failed = Signal(str)
    revived = Signal()
    left = Signal(object)

    _abilities = Abilities()

    @property
    def abilities(self) -> Abilities:
        """What it can do, as far as it is known by now."""
        return self._abilities

    def begin(self) -> None:
        """This is the only desktop now: what another one before it has left is to be cleared away."""

    def show(self, wanted: Notification) -> None:
        """Show this; what comes of it comes as a signal."""
        raise NotImplementedError

    def withdraw(self, ident: str) -> None:
        """Take it back, wherever it is by now; nothing is told of it any more."""
        raise NotImplementedError

    def close(self) -> None:
        """Take everything back: what is still shown could not be answered any more."""


class Balloon(Service):
    """The tray's own balloon: the last resort. No buttons, nothing comes back, nothing can be taken back."""

    def __init__(self, tell: Callable[[str, str], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._tell = tell

    def show(self, wanted: Notification) -> None:
        self._tell(wanted.title, wanted.text)

    def withdraw(self, ident: str) -> None:
        pass


class Chain(Service):
    """Shows with the first service that can; one that fails is asked again the next time."""

    def __init__(self, services: Sequence[Service], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = list(services)
        self._wanted: dict[str, tuple[int, Notification]] = {}
        for place, service in enumerate(self._services):
            service.opened.connect(self.opened)
            service.pressed.connect(self.pressed)
            service.replied.connect(self.replied)
            service.gone.connect(self._on_gone)
            service.revived.connect(self.revived)
            service.left.connect(self.left)
            service.failed.connect(lambda ident, at=place: self._on_failed(ident, at))

    @property
    def abilities(self) -> Abilities:
        return self._services[0].abilities if self._services else Abilities()

    def begin(self) -> None:
        for service in self._services:
            service.begin()

    def show(self, wanted: Notification) -> None:
        wanted = replace(wanted, title=cut(wanted.title, TITLE_CHARS), text=cut(wanted.text, TEXT_CHARS))
        self._wanted[wanted.ident] = (0, wanted)
        if self._services:
            self._services[0].show(wanted)

    def withdraw(self, ident: str) -> None:
        self._wanted.pop(ident, None)
        for service in self._services:
            service.withdraw(ident)

    def close(self) -> None:
        self._wanted.clear()
        for service in self._services:
            service.close()

    def _on_gone(self, ident: str, by_user: bool) -> None:
        self._wanted.pop(ident, None)
        self.gone.emit(ident, by_user)

    def _on_failed(self, ident: str, place: int) -> None:
        at, wanted = self._wanted.get(ident, (-1, None))
        if wanted is None or at != place:
            return
        if place + 1 < len(self._services):
            self._wanted[ident] = (place + 1, wanted)
            self._services[place + 1].show(wanted)
        else:
            del self._wanted[ident]
            self.failed.emit(ident)


def cut(text: str, limit: int) -> str:
    """Shortened at its end, without what no platform can carry."""
    clean = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"
