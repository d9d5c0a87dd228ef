"""The shortcut on Windows: a hot key of this thread, whose message Qt hands to a filter. Untried."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from PySide6.QtCore import QAbstractNativeEventFilter, QCoreApplication, QObject, Signal

from desktop.shortcuts.keys import Keys

WM_HOTKEY: Final = 0x0312
IDENT: Final = 0x4F53
NO_REPEAT: Final = 0x4000
_MASKS: Final = {"alt": 1, "ctrl": 2, "shift": 4, "meta": 8}
_CODES: Final = {
    "space": 0x20, "return": 0x0D, "tab": 0x09, "escape": 0x1B, "insert": 0x2D, "delete": 0x2E, "home": 0x24,
    "end": 0x23, "pageup": 0x21, "pagedown": 0x22, "left": 0x25, "up": 0x26, "right": 0x27, "down": 0x28,
    **{f"f{number}": 0x6F + number for number in range(1, 25)},
}  # fmt: skip


def code_of(key: str) -> int:
    """The virtual key's code."""
    return ord(key) if len(key) == 1 else _CODES[key]


def mask_of(keys: Keys) -> int:
    """The modifiers as ``RegisterHotKey`` takes them."""
    return NO_REPEAT | sum(_MASKS[modifier] for modifier in keys.modifiers)


class _Filter(QAbstractNativeEventFilter):
    def __init__(self, told: Any) -> None:
        super().__init__()
        self._told = told

    def nativeEventFilter(self, kind: Any, message: int) -> tuple[bool, int]:  # noqa: N802
        # A MSG begins with a window and then, at the place of a pointer, the number of the message.
        if bytes(kind) == b"windows_generic_MSG" or bytes(kind) == b"windows_dispatcher_MSG":
            number = ctypes.c_uint.from_address(int(message) + ctypes.sizeof(ctypes.c_void_p)).value
            word = ctypes.c_size_t.from_address(int(message) + 2 * ctypes.sizeof(ctypes.c_void_p)).value
            if number == WM_HOTKEY and word == IDENT:
                self._told()
                return True, 0
        return False, 0


class WindowsShortcut(QObject):
    """Signals:
    pressed(): The keys were pressed.
    """

    pressed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._filter: _Filter | None = None

    def grab(self, keys: Keys) -> str:
        """Take these keys; why that was not possible: taken. Empty: done."""
        self.release()
        user32 = _user32()
        if user32 is None:
            return "no_display"
        if not user32.RegisterHotKey(None, IDENT, mask_of(keys), code_of(keys.key)):
            return "taken"
        self._filter = _Filter(self.pressed.emit)
        application = QCoreApplication.instance()
        assert application is not None
        application.installNativeEventFilter(self._filter)
        return ""

    def release(self) -> None:
        """Give the keys back."""
        user32 = _user32()
        if self._filter is None or user32 is None:
            return
        application = QCoreApplication.instance()
        if application is not None:
            application.removeNativeEventFilter(self._filter)
        self._filter = None
        user32.UnregisterHotKey(None, IDENT)


def _user32() -> Any:
    """The library; None where this is no Windows."""
    windll = getattr(ctypes, "windll", None)
    return windll.user32 if windll is not None else None
