"""The shortcut on Wayland: the portal asks the user and may give other keys than wished for. Untried."""

from __future__ import annotations

import logging
import uuid
from typing import Any, Final

from jeepney.bus_messages import MatchRule
from jeepney.wrappers import DBusAddress
from PySide6.QtCore import QObject, Signal

from desktop.notifications.bus import SessionBus
from desktop.shortcuts.keys import Keys
from desktop.text import _

log = logging.getLogger("ostler.desktop.shortcuts")

NAME: Final = "org.freedesktop.portal.Desktop"
PATH: Final = "/org/freedesktop/portal/desktop"
SHORTCUTS: Final = DBusAddress(PATH, NAME, "org.freedesktop.portal.GlobalShortcuts")
IDENT: Final = "new-task"
ASKING_MS: Final = 120_000
"""The portal may ask the user, who may take a while."""
_NAMES: Final = {"ctrl": "CTRL", "alt": "ALT", "shift": "SHIFT", "meta": "LOGO"}


class PortalShortcut(QObject):
    """Signals:
    pressed(): The keys were pressed.
    refused(str): The keys were not given: an error's name.
    """

    pressed = Signal()
    refused = Signal(str)

    def __init__(self, parent: QObject | None = None, bus: SessionBus | None = None) -> None:
        super().__init__(parent)
        self._bus = bus or SessionBus(parent=self)
        self._session = ""
        self._wish = 0
        self._bus.listen(
            MatchRule(type="signal", interface=SHORTCUTS.interface, member="Activated", path=PATH),
            self._on_activated,
        )

    def grab(self, keys: Keys) -> None:
        """Ask for these keys; ``refused`` tells where they are not given."""
        self.release()
        self._wish += 1
        wish, token = self._wish, uuid.uuid4().hex
        options = {"handle_token": ("s", f"ostler{token}"), "session_handle_token": ("s", f"ostler{token}")}

        def made(code: int, results: dict[str, Any]) -> None:
            session = str(results.get("session_handle", ("s", ""))[1])
            if wish != self._wish or code or not session:
                self.refused.emit("refused")
                return
            self._session = session
            self._bind(keys)

        self._ask("CreateSession", "a{sv}", (options,), made)

    def release(self) -> None:
        """Give the keys back."""
        self._wish += 1
        session, self._session = self._session, ""
        if session:
            self._bus.call(DBusAddress(session, NAME, "org.freedesktop.portal.Session"), "Close")

    def _bind(self, keys: Keys) -> None:
        shortcut = {"description": ("s", _("New task")), "preferred_trigger": ("s", trigger(keys))}
        options = {"handle_token": ("s", f"ostler{uuid.uuid4().hex}")}

        def bound(code: int, _results: dict[str, Any]) -> None:
            if code:
                self.refused.emit("refused")

        body = (self._session, [(IDENT, shortcut)], "", options)
        self._ask("BindShortcuts", "oa(sa{sv})sa{sv}", body, bound)

    def _ask(self, member: str, signature: str, body: tuple[Any, ...], answered: Any) -> None:
        """A request of the portal's: its answer comes as a signal of the object that the call gives."""

        def begun(reply: tuple[Any, ...]) -> None:
            rule = MatchRule(
                type="signal",
                interface="org.freedesktop.portal.Request",
                member="Response",
                path=str(reply[0]),
            )
            self._bus.listen(rule, lambda found, _sender: answered(int(found[0]), dict(found[1])))

        self._bus.call(
            SHORTCUTS, member, signature, body, done=begun, failed=self.refused.emit, timeout_ms=ASKING_MS
        )

    def _on_activated(self, body: tuple[Any, ...], _sender: str) -> None:
        if len(body) > 1 and body[0] == self._session and body[1] == IDENT:
            self.pressed.emit()


def trigger(keys: Keys) -> str:
    """As the shortcuts specification writes it."""
    parts = [_NAMES[name] for name in ("ctrl", "alt", "shift", "meta") if name in keys.modifiers]
    key = keys.key.lower() if len(keys.key) == 1 else keys.key.capitalize()
    return "+".join([*parts, key])
