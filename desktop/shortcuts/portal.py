"""The shortcut on Wayland: the portal asks the user and may give other keys than wished for. Untried."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

from jeepney.bus_messages import MatchRule
from jeepney.wrappers import DBusAddress
from PySide6.QtCore import QObject, Signal

from desktop.notifications.bus import BUS, SessionBus
from desktop.shortcuts.keys import Keys
from desktop.text import _

log = logging.getLogger("ostler.desktop.shortcuts")

NAME: Final = "org.freedesktop.portal.Desktop"
PATH: Final = "/org/freedesktop/portal/desktop"
SHORTCUTS: Final = DBusAddress(PATH, NAME, "org.freedesktop.portal.GlobalShortcuts")
IDENT: Final = "new-task"
REQUEST: Final = "org.freedesktop.portal.Request"
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
        self._lost: Keys | None = None
        """What was held on a bus that has gone."""
        self._keys: Keys | None = None
        self._bus.up.connect(self._on_up)
        self._bus.down.connect(self._on_down)
        self._bus.listen(
            MatchRule(type="signal", interface=SHORTCUTS.interface, member="Activated", path=PATH),
            self._on_activated,
        )

    def grab(self, keys: Keys) -> None:
        """Ask for these keys; ``refused`` tells where they are not given."""
        self.release()
        self._keys = keys
        self._wish += 1
        wish = self._wish

        def made(code: int, results: dict[str, Any]) -> None:
            session = str(results.get("session_handle", ("s", ""))[1])
            if code or not session:
                self._refuse(wish)
            elif wish != self._wish:
                self._close(session)  # other keys are wanted by now
            else:
                self._session = session
                self._bind(keys, wish)

        def begin() -> None:
            if wish == self._wish:
                options = {"session_handle_token": ("s", f"ostler{uuid.uuid4().hex}")}
                self._ask("CreateSession", "a{sv}", lambda token: ({**options, **token},), made, wish)

        if self._bus.ready:
            begin()
        else:
            self._bus.call(BUS, "GetId", done=lambda _body: begin(), failed=lambda _why: self._refuse(wish))

    def release(self) -> None:
        """Give the keys back."""
        self._wish += 1
        self._keys = self._lost = None
        session, self._session = self._session, ""
        if session:
            self._close(session)

    def _on_down(self) -> None:
        if self._session:
            self._session, self._lost = "", self._keys

    def _on_up(self) -> None:
        if self._lost is not None:
            self.grab(self._lost)

    def _close(self, session: str) -> None:
        self._bus.call(DBusAddress(session, NAME, "org.freedesktop.portal.Session"), "Close")

    def _refuse(self, wish: int, why: str = "refused") -> None:
        if wish == self._wish:
            self.refused.emit(why)

    def _bind(self, keys: Keys, wish: int) -> None:
        shortcut = {"description": ("s", _("New task")), "preferred_trigger": ("s", trigger(keys))}
        session = self._session

        def bound(code: int, _results: dict[str, Any]) -> None:
            if code:
                self._refuse(wish)

        self._ask(
            "BindShortcuts", "oa(sa{sv})sa{sv}",
            lambda token: (session, [(IDENT, shortcut)], "", token), bound, wish,
        )  # fmt: skip

    def _ask(
        self,
        member: str,
        signature: str,
        body: Callable[[dict[str, tuple[str, str]]], tuple[Any, ...]],
        answered: Callable[[int, dict[str, Any]], None],
        wish: int,
    ) -> None:
        """A request of the portal's. Its answer is a signal of an object whose name follows from ours and the
        request's token: it is listened to before the call, since it may come as soon as that is answered."""
        token = f"ostler{uuid.uuid4().hex}"
        sender = self._bus.name.removeprefix(":").replace(".", "_")
        rule = MatchRule(
            type="signal", interface=REQUEST, member="Response", path=f"{PATH}/request/{sender}/{token}"
        )

        def heard(found: tuple[Any, ...], _sender: str) -> None:
            end()
            if len(found) > 1:
                answered(int(found[0]), dict(found[1]))

        def failed(why: str) -> None:
            end()
            self._refuse(wish, why)

        end = self._bus.listen(rule, heard)
        options = {"handle_token": ("s", token)}
        self._bus.call(SHORTCUTS, member, signature, body(options), failed=failed, timeout_ms=ASKING_MS)

    def _on_activated(self, body: tuple[Any, ...], _sender: str) -> None:
        if len(body) > 1 and body[0] == self._session and body[1] == IDENT:
            self.pressed.emit()


def trigger(keys: Keys) -> str:
    """As the shortcuts specification writes it."""
    parts = [_NAMES[name] for name in ("ctrl", "alt", "shift", "meta") if name in keys.modifiers]
    key = keys.key.lower() if len(keys.key) == 1 else keys.key.capitalize()
    return "+".join([*parts, key])
