"""Notifications by the desktop's own server over D-Bus: the Desktop Notifications Specification, 1.2 and 1.3.

- What a server can do is asked before it is shown anything, and again after it was replaced by another.
- ``replaces_id`` needs the server's number of the one before, so what comes while a number is on its way
  waits for it, and only the newest of what waits is sent.
- A server that does not answer in time has failed: somebody else shows it. If it shows it later all the same,
  it is taken back.
- Signals are held against the connection that owns the server's name: anybody can send them, and a button
  may allow something.
- KDE's field for a reply is used where the server names it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jeepney.bus_messages import MatchRule
from jeepney.wrappers import DBusAddress
from PySide6.QtCore import QObject

from desktop.notifications.bus import BUS, SessionBus
from desktop.notifications.leftovers import Leftovers
from desktop.notifications.service import Abilities, Notification, Service
from desktop.text import _

log = logging.getLogger("ostler.desktop.notifications")

NAME: Final = "org.freedesktop.Notifications"
SERVER: Final = DBusAddress("/org/freedesktop/Notifications", NAME, NAME)
DEFAULT_ACTION: Final = "default"
REPLY_ACTION: Final = "inline-reply"
BY_USER: Final = 2
"""Why a notification was closed, as the specification numbers it; 1: its time was over, 3: taken back."""
URGENCIES: Final = {"low": 0, "normal": 1, "critical": 2}
REVIVE_PAUSE_S: Final = 60.0
"""A server that we bring down is not fed again at once."""
DESKTOP_ENTRY: Final = "ostler"


@dataclass(slots=True)
class _Shown:
    """One ident of ours at the server.

    Attributes:
        number: The server's; 0: not known yet.
        asked: Whether an answer with the number is on its way.
        waiting: The newest that is to take its place once the number is known.
        unwanted: Taken back before the number came.
        token: To be allowed to take the focus: it comes just before what was pressed.
    """

    number: int = 0
    asked: bool = False
    waiting: Notification | None = None
    unwanted: bool = False
    token: str = ""


class Freedesktop(Service):
    """The server of this login.

    Args:
        bus: Shared with others; not closed here.
        icon: Gives the icon's name, or its file as a ``file:`` address; asked with the first notification.
        kept: The file that says what is shown, for a life of the desktop after this one that has crashed.
    """

    def __init__(
        self,
        bus: SessionBus,
        parent: QObject | None = None,
        icon: Callable[[], str] = lambda: "ostler",
        kept: Path | None = None,
    ) -> None:
        super().__init__(parent)
        self._bus = bus
        self._icon = functools.cache(icon)
        self._leftovers = Leftovers(kept)
        self._shown: dict[str, _Shown] = {}
        self._idents: dict[int, str] = {}
        self._owner = ""
        self._capabilities: frozenset[str] | None = None
        self._asking = False
        self._waiting: dict[str, Notification] = {}
        self._revived_at = 0.0
        self._bereft = False
        self._closing = False
        for member, told in (
            ("ActionInvoked", self._on_action),
            ("NotificationClosed", self._on_closed),
            ("NotificationReplied", self._on_replied),
            ("ActivationToken", self._on_token),
        ):
            rule = MatchRule(
                type="signal", sender=NAME, interface=NAME, member=member, path=SERVER.object_path
            )

            def checked(body: tuple[Any, ...], sender: str, told: Any = told) -> None:
                if sender and sender == self._owner and body:
                    told(body)

            bus.listen(rule, checked)
        bus.watch_owner(NAME, self._on_owner)
        bus.up.connect(self._on_up)
        bus.down.connect(self._on_down)

    def begin(self) -> None:
        found = self._leftovers.read()
        self._leftovers.begin()
        if found is None:
            return

        def same_bus(body: tuple[Any, ...]) -> None:
            if str(body[0]) == found.bus:
                self._bus.call(BUS, "GetNameOwner", "s", (NAME,), done=same_server, start=False)

        def same_server(body: tuple[Any, ...]) -> None:
            # Numbers are one server's own: another one may have given them to other programs.
            if str(body[0]) == found.owner:
                for number in found.shown.values():
                    self._bus.call(SERVER, "CloseNotification", "u", (number,), start=False)
                log.info("%d notifications of an earlier life are taken back", len(found.shown))
                self.left.emit(frozenset(found.shown))

        self._bus.call(BUS, "GetId", done=same_bus)

    def show(self, wanted: Notification) -> None:
        if self._closing:
            return
        if self._capabilities is None:
            self._waiting[wanted.ident] = wanted
            self._ask()
            return
        shown = self._shown.setdefault(wanted.ident, _Shown())
        shown.unwanted = False
        if shown.asked:
            shown.waiting = wanted
        else:
            self._notify(wanted, shown)

    def withdraw(self, ident: str) -> None:
        self._waiting.pop(ident, None)
        shown = self._shown.get(ident)
        if shown is None:
            return
        shown.waiting = None
        if shown.asked:
            shown.unwanted = True
            return
        self._forget(ident)
        if shown.number:
            self._bus.call(SERVER, "CloseNotification", "u", (shown.number,), start=False)

    def close(self) -> None:
        self._closing = True
        for ident in list(self._shown):
            self.withdraw(ident)

    # --- asking what it can ------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._asking:
            return
        self._asking = True
        self._bus.call(SERVER, "GetCapabilities", done=self._on_capabilities, failed=self._on_no_server)

    def _on_capabilities(self, body: tuple[Any, ...]) -> None:
        found = (
            frozenset(str(each) for each in body[0]) if body and isinstance(body[0], list) else frozenset()
        )
        self._bus.call(
            BUS,
            "GetNameOwner",
            "s",
            (NAME,),
            done=lambda owner: self._on_known(found, str(owner[0])),
            failed=self._on_no_server,
        )
        self._bus.call(SERVER, "GetServerInformation", done=self._on_name, failed=lambda _why: None)

    def _on_known(self, capabilities: frozenset[str], owner: str) -> None:
        self._asking = False
        self._owner = owner
        self._capabilities = capabilities
        self._abilities = Abilities(
            self.abilities.name, buttons="actions" in capabilities, reply=REPLY_ACTION in capabilities
        )
        waiting, self._waiting = self._waiting, {}
        for wanted in waiting.values():
            self.show(wanted)

    def _on_name(self, body: tuple[Any, ...]) -> None:
        if body:
            self._abilities = Abilities(str(body[0]), self.abilities.buttons, self.abilities.reply)

    def _on_no_server(self, why: str) -> None:
        self._asking = False
        log.info("no notification server answers (%s)", why)
        waiting, self._waiting = self._waiting, {}
        for ident in waiting:
            self.failed.emit(ident)

    # --- showing -----------------------------------------------------------------------------------

    def _notify(self, wanted: Notification, shown: _Shown) -> None:
        shown.asked = True
        ident = wanted.ident
        self._bus.call(
            SERVER,
            "Notify",
            "susssasa{sv}i",
            self._body(wanted, shown.number),
            done=lambda body: self._on_shown(ident, body),
            failed=lambda why: self._on_not_shown(ident, why),
            late=self._on_late,
        )

    def _body(self, wanted: Notification, number: int) -> tuple[Any, ...]:
        can = self._capabilities or frozenset()
        actions: list[str] = []
        hints: dict[str, tuple[str, Any]] = {
            "urgency": ("y", URGENCIES[wanted.urgency]),
            "desktop-entry": ("s", DESKTOP_ENTRY),
        }
        if "actions" in can:
            actions += [DEFAULT_ACTION, _("Open")]
            for button in wanted.buttons:
                actions += [button.key, button.text]
            if wanted.reply and REPLY_ACTION in can:
                actions += [REPLY_ACTION, _("Answer")]
                hints["x-kde-reply-placeholder-text"] = ("s", wanted.reply)
                hints["x-kde-reply-submit-button-text"] = ("s", _("Send"))
            if wanted.stays:
                hints["resident"] = ("b", True)
        if wanted.category:
            hints["category"] = ("s", wanted.category)
        if not wanted.stays and wanted.urgency == "low":
            hints["transient"] = ("b", True)
        if not wanted.sound:
            hints["suppress-sound"] = ("b", True)
        elif "sound" in can:
            hints["sound-name"] = ("s", wanted.sound)
        text = _escaped(wanted.text) if "body-markup" in can else wanted.text
        title = wanted.title if "body" in can else f"{wanted.title}: {wanted.text}"
        time_ms = 0 if wanted.stays else -1  # for ever; as the server likes
        return ("Ostler", number, self._icon(), title, text, actions, hints, time_ms)

    def _on_shown(self, ident: str, body: tuple[Any, ...]) -> None:
        number = int(body[0]) if body else 0
        shown = self._shown.get(ident)
        if shown is None:  # the server was replaced meanwhile
            return
        shown.asked = False
        if shown.number and shown.number != number:
            self._idents.pop(shown.number, None)
        shown.number = number
        self._idents[number] = ident
        self._keep()
        waiting, shown.waiting = shown.waiting, None
        if shown.unwanted:
            self.withdraw(ident)
        elif waiting is not None:
            self._notify(waiting, shown)

    def _on_not_shown(self, ident: str, why: str) -> None:
        log.warning("a notification could not be shown: %s", why)
        shown = self._shown.get(ident)
        unwanted = shown is None or shown.unwanted
        self._forget(ident)
        self._capabilities = None  # asked again before the next one
        if not unwanted:
            self.failed.emit(ident)

    def _on_late(self, body: tuple[Any, ...]) -> None:
        if body:
            self._bus.call(SERVER, "CloseNotification", "u", (int(body[0]),), start=False)

    def _forget(self, ident: str) -> None:
        shown = self._shown.pop(ident, None)
        if shown is not None:
            self._idents.pop(shown.number, None)
            self._keep()

    def _keep(self) -> None:
        """Write down what is shown now."""
        self._leftovers.write(
            self._bus.ident, self._owner, {ident: number for number, ident in self._idents.items()}
        )

    # --- what the server tells ---------------------------------------------------------------------

    def _on_action(self, body: tuple[Any, ...]) -> None:
        ident = self._idents.get(body[0])
        if ident is None or len(body) < 2:
            return
        shown = self._shown[ident]
        token, shown.token = shown.token, ""
        key = str(body[1])
        if key == DEFAULT_ACTION:
            self.opened.emit(ident, token)
        elif key != REPLY_ACTION:  # its text follows in a signal of its own
            self.pressed.emit(ident, key, token)

    def _on_replied(self, body: tuple[Any, ...]) -> None:
        ident = self._idents.get(body[0])
        if ident is not None and len(body) > 1:
            self.replied.emit(ident, str(body[1]))

    def _on_token(self, body: tuple[Any, ...]) -> None:
        ident = self._idents.get(body[0])
        if ident is not None and len(body) > 1:
            self._shown[ident].token = str(body[1])

    def _on_closed(self, body: tuple[Any, ...]) -> None:
        ident = self._idents.get(body[0])
        if ident is None:
            return
        shown = self._shown[ident]
        del self._idents[shown.number]
        shown.number = 0
        self._keep()
        if not shown.asked:
            del self._shown[ident]
            self.gone.emit(ident, len(body) > 1 and body[1] == BY_USER)

    def _on_owner(self, owner: str) -> None:
        """Another server, or none: what the one before showed is gone, and its numbers mean nothing."""
        if owner == self._owner:
            return
        lost = [ident for ident, shown in self._shown.items() if shown.number]
        self._owner = owner
        self._capabilities = None
        for ident in lost:
            self._forget(ident)
            self.gone.emit(ident, False)
        self._bereft = self._bereft or bool(lost)
        if owner and self._bereft and not self._closing:
            self._bereft = False
            now = time.monotonic()
            if not self._revived_at or now - self._revived_at > REVIVE_PAUSE_S:
                self._revived_at = now
                self.revived.emit()

    def _on_up(self) -> None:
        """A server that is on the bus before us tells nobody that it came."""
        if self._bereft:
            self._bus.call(
                BUS, "GetNameOwner", "s", (NAME,), done=lambda body: self._on_owner(str(body[0])), start=False
            )

    def _on_down(self) -> None:
        self._on_owner("")


def _escaped(text: str) -> str:
    """As text in markup. The library's own way would bring a table of all names of characters along."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
