"""The shortcut on macOS: a Carbon hot key, which needs no permission, told on the main loop. Untried."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from PySide6.QtCore import QObject, Signal

from desktop.shortcuts.keys import Keys

_MASKS: Final = {"meta": 0x0100, "shift": 0x0200, "alt": 0x0800, "ctrl": 0x1000}
_CODES: Final = {
    **dict(zip("ASDFHGZXCV", range(10), strict=True)),
    "B": 11, "Q": 12, "W": 13, "E": 14, "R": 15, "Y": 16, "T": 17, "1": 18, "2": 19, "3": 20, "4": 21,
    "6": 22,
    "5": 23, "9": 25, "7": 26, "8": 28, "0": 29, "O": 31, "U": 32, "I": 34, "P": 35, "return": 36, "L": 37,
    "J": 38, "K": 40, "N": 45, "M": 46, "tab": 48, "space": 49, "escape": 53, "f5": 96, "f6": 97, "f7": 98,
    "f3": 99, "f8": 100, "f9": 101, "f11": 103, "f10": 109, "f12": 111, "home": 115, "pageup": 116,
    "delete": 117, "f4": 118, "end": 119, "f2": 120, "pagedown": 121, "f1": 122, "left": 123, "right": 124,
    "down": 125, "up": 126,
}  # fmt: skip
_KEYBOARD: Final = int.from_bytes(b"keyb", "big")
_PRESSED: Final = 5
_SIGNATURE: Final = int.from_bytes(b"Ostl", "big")


def code_of(key: str) -> int | None:
    """The key's code on every keyboard; None for one that Macs do not have."""
    return _CODES.get(key)


def mask_of(keys: Keys) -> int:
    """The modifiers as Carbon takes them."""
    return sum(_MASKS[modifier] for modifier in keys.modifiers)


class _Kind(ctypes.Structure):
    _fields_ = (("group", ctypes.c_uint32), ("kind", ctypes.c_uint32))


class _Ident(ctypes.Structure):
    _fields_ = (("signature", ctypes.c_uint32), ("number", ctypes.c_uint32))


class MacShortcut(QObject):
    """Signals:
    pressed(): The keys were pressed.
    """

    pressed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._carbon: Any = None
        self._handler: Any = None
        self._key = ctypes.c_void_p()

    def grab(self, keys: Keys) -> str:
        """Take these keys; why that was not possible: no_such_key, taken. Empty: done."""
        self.release()
        code = code_of(keys.key)
        if code is None:
            return "no_such_key"
        carbon = self._carbon = self._carbon or ctypes.CDLL(
            "/System/Library/Frameworks/Carbon.framework/Carbon"
        )
        carbon.GetApplicationEventTarget.restype = ctypes.c_void_p
        target = ctypes.c_void_p(carbon.GetApplicationEventTarget())
        if self._handler is None:
            kind = _Kind(_KEYBOARD, _PRESSED)
            made = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
            self._handler = made(self._on_pressed)
            carbon.InstallEventHandler(target, self._handler, 1, ctypes.byref(kind), None, None)
        ident = _Ident(_SIGNATURE, 1)
        failed = carbon.RegisterEventHotKey(code, mask_of(keys), ident, target, 0, ctypes.byref(self._key))
        return "taken" if failed else ""

    def release(self) -> None:
        """Give the keys back."""
        if self._carbon is not None and self._key.value:
            self._carbon.UnregisterEventHotKey(self._key)
            self._key = ctypes.c_void_p()

    def _on_pressed(self, _next: int, _event: int, _data: int) -> int:
        self.pressed.emit()
        return 0
