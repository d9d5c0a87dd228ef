"""Whether this is a bad moment: "do not disturb" of the desktop, or nobody there to see it.

Read where the platform tells, and told by it rather than asked again and again:

- KDE: the property ``Inhibited`` of the notification server.
- dunst: its property ``paused``.
- GNOME: the setting ``show-banners``, through the settings portal.
- Xfce: the setting ``/do-not-disturb`` of its notification daemon.
- A locked or blanked screen: the screen saver's ``ActiveChanged``.
- Windows: ``SHQueryUserNotificationState``. It can only be asked: whenever something is to be said, and once
  a minute while something waits.
- macOS tells no program about Focus; it keeps notifications back by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from PySide6.QtCore import QObject, QTimer, Signal

AGAIN_MS: Final = 60_000

_PORTAL: Final = "org.freedesktop.portal.Desktop"
_PORTAL_SETTINGS: Final = "org.freedesktop.portal.Settings"
_GNOME_NAMESPACE: Final = "org.gnome.desktop.notifications"
_BANNERS: Final = "show-banners"
_SAVERS: Final = (
    ("org.freedesktop.ScreenSaver", "/org/freedesktop/ScreenSaver"),
    ("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver"),
)
_NOTIFICATIONS: Final = "/org/freedesktop/Notifications"


class Disturbance(QObject):
    """Signals:
    changed(): ``silenced`` or ``away`` is another one.
    """

    changed = Signal()

    @property
    def silenced(self) -> bool:
        """Whether the desktop is on "do not disturb"."""
        return False

    @property
    def away(self) -> bool:
        """Whether the screen is locked or dark."""
        return False

    def waits(self, something: bool) -> None:
        """Whether something waits for a better moment."""

    def close(self) -> None:
        """Let go."""


class FreedesktopDisturbance(Disturbance):
    """Over the session bus: one connection, a few questions at the start, then signals."""

    def __init__(
        self, bus: Any, parent: QObject | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(parent)
        self._bus = bus
        self._reasons: dict[str, bool] = {}
        desktop = (os.environ if environ is None else environ).get("XDG_CURRENT_DESKTOP", "").upper()
        self._gnome = "GNOME" in desktop or "UNITY" in desktop
        self._xfce = "XFCE" in desktop
        self._listen()
        bus.up.connect(self._ask)
        bus.down.connect(self._on_down)
        self._ask_at_first()

    @property
    def silenced(self) -> bool:
        return any(on for name, on in self._reasons.items() if not name.startswith("saver"))

    @property
    def away(self) -> bool:
        return any(on for name, on in self._reasons.items() if name.startswith("saver"))

    def _set(self, name: str, on: object) -> None:
        before = (self.silenced, self.away)
        self._reasons[name] = on is True
        if (self.silenced, self.away) != before:
            self.changed.emit()

    def _listen(self) -> None:
        from jeepney.bus_messages import MatchRule

        changes = MatchRule(
            type="signal", interface="org.freedesktop.DBus.Properties", member="PropertiesChanged",
            path=_NOTIFICATIONS,
        )  # fmt: skip
        self._bus.listen(changes, self._on_properties)
        self._bus.watch_owner("org.freedesktop.Notifications", self._on_server)
        for name, _path in _SAVERS:
            rule = MatchRule(type="signal", interface=name, member="ActiveChanged")
            self._bus.listen(
                rule, lambda body, _sender, name=name: self._set(f"saver {name}", body[0] if body else False)
            )
        if self._gnome:
            rule = MatchRule(type="signal", interface=_PORTAL_SETTINGS, member="SettingChanged")
            rule.add_arg_condition(0, _GNOME_NAMESPACE)
            self._bus.listen(rule, self._on_setting)
        if self._xfce:
            rule = MatchRule(type="signal", interface="org.xfce.Xfconf", member="PropertyChanged")
            self._bus.listen(rule, self._on_xfconf)

    def _ask_at_first(self) -> None:
        # The connection is made by the first question; ``up`` asks the others.
        from desktop.notifications.bus import BUS

        self._bus.call(BUS, "GetId", failed=lambda _why: None)

    def _ask(self) -> None:
        from jeepney.wrappers import DBusAddress

        self._ask_server()
        for name, path in _SAVERS:
            self._bus.call(
                DBusAddress(path, name, name), "GetActive", start=False,
                done=lambda body, name=name: self._set(f"saver {name}", body[0] if body else False),
            )  # fmt: skip
        if self._gnome:
            portal = DBusAddress("/org/freedesktop/portal/desktop", _PORTAL, _PORTAL_SETTINGS)
            self._bus.call(
                portal, "Read", "ss", (_GNOME_NAMESPACE, _BANNERS),
                done=lambda body: self._set("gnome", _plain(body[0]) is False if body else False),
            )  # fmt: skip
        if self._xfce:
            xfconf = DBusAddress("/org/xfce/Xfconf", "org.xfce.Xfconf", "org.xfce.Xfconf")
            self._bus.call(
                xfconf, "GetProperty", "ss", ("xfce4-notifyd", "/do-not-disturb"), start=False,
                done=lambda body: self._set("xfce", _plain(body[0]) if body else False),
            )  # fmt: skip

    def _ask_server(self) -> None:
        from jeepney.wrappers import DBusAddress

        server = DBusAddress(
            _NOTIFICATIONS, "org.freedesktop.Notifications", "org.freedesktop.DBus.Properties"
        )
        for interface, name in (
            ("org.freedesktop.Notifications", "Inhibited"),
            ("org.dunstproject.cmd0", "paused"),
        ):
            self._bus.call(
                server, "Get", "ss", (interface, name), start=False,
                done=lambda body, name=name: self._set(name, _plain(body[0]) if body else False),
            )  # fmt: skip

    def _on_properties(self, body: tuple[Any, ...], _sender: str) -> None:
        if len(body) < 2 or not isinstance(body[1], dict):
            return
        for name in ("Inhibited", "paused"):
            if name in body[1]:
                self._set(name, _plain(body[1][name]))

    def _on_server(self, owner: str) -> None:
        self._set("Inhibited", False)
        self._set("paused", False)
        if owner:
            self._ask_server()

    def _on_setting(self, body: tuple[Any, ...], _sender: str) -> None:
        if len(body) > 2 and body[1] == _BANNERS:
            self._set("gnome", _plain(body[2]) is False)

    def _on_xfconf(self, body: tuple[Any, ...], _sender: str) -> None:
        if len(body) > 2 and body[0] == "xfce4-notifyd" and body[1] == "/do-not-disturb":
            self._set("xfce", _plain(body[2]))

    def _on_down(self) -> None:
        for name in list(self._reasons):
            self._set(name, False)


class WindowsDisturbance(Disturbance):
    """``SHQueryUserNotificationState``. Written after its documentation, not tried."""

    NOT_PRESENT: Final = 1
    ACCEPTS: Final = 5

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setInterval(AGAIN_MS)
        self._timer.timeout.connect(self.changed)

    @property
    def silenced(self) -> bool:
        return self._state() not in (0, self.NOT_PRESENT, self.ACCEPTS)

    @property
    def away(self) -> bool:
        return self._state() == self.NOT_PRESENT

    def waits(self, something: bool) -> None:
        if something != self._timer.isActive():
            if something:
                self._timer.start()
            else:
                self._timer.stop()

    def close(self) -> None:
        self._timer.stop()

    def _state(self) -> int:
        """A ``QUERY_USER_NOTIFICATION_STATE``; 0 where it cannot be read."""
        if sys.platform == "win32":
            import ctypes

            state = ctypes.c_int(0)
            failed = ctypes.windll.shell32.SHQueryUserNotificationState(ctypes.byref(state))
            return 0 if failed else state.value
        return 0


def _plain(value: object) -> object:
    """What is in a variant, or in variants of variants."""
    while isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    return value
