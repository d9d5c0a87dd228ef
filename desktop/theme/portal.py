"""The settings portal of freedesktop systems, as far as it is about the look."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import SLOT, QObject, Signal, Slot
from PySide6.QtDBus import QDBusConnection, QDBusMessage, QDBusPendingCallWatcher, QDBusVariant

from desktop.theme.system import APPEARANCE, GNOME

SERVICE: Final = "org.freedesktop.portal.Desktop"
PATH: Final = "/org/freedesktop/portal/desktop"
INTERFACE: Final = "org.freedesktop.portal.Settings"
ASKED: Final = (
    (APPEARANCE, "color-scheme"),
    (APPEARANCE, "contrast"),
    (APPEARANCE, "reduced-motion"),
    (GNOME, "enable-animations"),
)


class SettingsPortal(QObject):
    """Signals:
    told(str, str, int): A setting, by namespace and key, has this value.
    """

    told = Signal(str, str, int)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: dict[QDBusPendingCallWatcher, tuple[str, str]] = {}

    def ask(self) -> None:
        """Ask once for everything; changes come by themselves. Nothing waits, and no portal is no error."""
        bus = QDBusConnection.sessionBus()
        if not bus.isConnected():
            return
        slot = SLOT("_on_setting(QString,QString,QDBusVariant)")
        bus.connect(SERVICE, PATH, INTERFACE, "SettingChanged", self, slot)  # type: ignore[call-overload]
        for namespace, key in ASKED:
            message = QDBusMessage.createMethodCall(SERVICE, PATH, INTERFACE, "Read")
            message.setArguments([namespace, key])
            watcher = QDBusPendingCallWatcher(bus.asyncCall(message), self)
            self._waiting[watcher] = (namespace, key)
            watcher.finished.connect(self._on_answer)

    def _on_answer(self, watcher: QDBusPendingCallWatcher) -> None:
        namespace, key = self._waiting.pop(watcher)
        reply = watcher.reply()
        watcher.deleteLater()
        if reply.type() is QDBusMessage.MessageType.ReplyMessage and reply.arguments():
            self._tell(namespace, key, reply.arguments()[0])

    @Slot(str, str, QDBusVariant)
    def _on_setting(self, namespace: str, key: str, value: QDBusVariant) -> None:
        if (namespace, key) in ASKED:
            self._tell(namespace, key, value)

    def _tell(self, namespace: str, key: str, value: object) -> None:
        while isinstance(value, QDBusVariant):  # the portal's first version wraps twice
            value = value.variant()
        if isinstance(value, bool | int):
            self.told.emit(namespace, key, int(value))
