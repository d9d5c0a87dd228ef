"""The shortcut on X11: a passive grab on a connection of our own, so that nothing of Qt's is touched.

A key is grabbed with each state of the locks (Caps, Num), which would else make it another one. When another
program has it already, the server says so, and nothing is grabbed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import logging
from typing import Any, Final

from PySide6.QtCore import QObject, QSocketNotifier, Signal

from desktop.shortcuts.keys import Keys

log = logging.getLogger("ostler.desktop.shortcuts")

_MASKS: Final = {"shift": 1, "ctrl": 4, "alt": 8, "meta": 64}
_LOCKS: Final = (2, 16)
"""Caps Lock and, as everywhere, Num Lock on the second modifier."""
_KEY_PRESS: Final = 2
_ASYNC: Final = 1
_EVENT_BYTES: Final = 192
"""An XEvent is 24 longs."""
_NAMES: Final = {"pageup": "Prior", "pagedown": "Next"}

_HANDLER: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class X11Shortcut(QObject):
    """Signals:
    pressed(): The keys were pressed, wherever the focus was.
    """

    pressed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._x11 = _library()
        self._display: int | None = None
        self._notifier: QSocketNotifier | None = None

    def grab(self, keys: Keys, display: str = "") -> str:
        """Take these keys; why that was not possible: no_display, no_such_key, taken. Empty: done."""
        self.release()
        x11 = self._x11
        handle = x11.XOpenDisplay(display.encode() or None) if x11 is not None else None
        if x11 is None or not handle:
            return "no_display"
        self._display = handle
        name = _NAMES.get(keys.key, keys.key if len(keys.key) == 1 else keys.key.capitalize())
        symbol = x11.XStringToKeysym((name.lower() if len(name) == 1 else name).encode())
        code = x11.XKeysymToKeycode(handle, symbol) if symbol else 0
        if not code:
            self.release()
            return "no_such_key"
        mask = sum(_MASKS[modifier] for modifier in keys.modifiers)
        root = x11.XDefaultRootWindow(handle)
        errors: list[int] = []

        def on_error(_display: int, _event: int) -> int:
            errors.append(1)
            return 0

        # The handler is the process's: Qt's own is put back before anything else can happen.
        handler = _HANDLER(on_error)
        before = x11.XSetErrorHandler(handler)
        try:
            for held in itertools.chain.from_iterable(
                itertools.combinations(_LOCKS, count) for count in range(len(_LOCKS) + 1)
            ):
                x11.XGrabKey(handle, code, mask | sum(held), root, 0, _ASYNC, _ASYNC)
            x11.XSync(handle, 0)
        finally:
            x11.XSetErrorHandler(ctypes.cast(before, _HANDLER) if before else _HANDLER())
        if errors:
            self.release()
            return "taken"
        self._notifier = QSocketNotifier(x11.XConnectionNumber(handle), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._on_ready)
        return ""

    def release(self) -> None:
        """Give the keys back."""
        if self._notifier is not None:
            self._notifier.setEnabled(False)
            self._notifier.deleteLater()
            self._notifier = None
        if self._display is not None:
            self._x11.XCloseDisplay(self._display)
        self._display = None

    def _on_ready(self) -> None:
        x11 = self._x11
        if x11 is None or self._display is None:
            return
        event = ctypes.create_string_buffer(_EVENT_BYTES)
        presses = 0
        while x11.XPending(self._display):
            x11.XNextEvent(self._display, event)
            presses += ctypes.cast(event, ctypes.POINTER(ctypes.c_int))[0] == _KEY_PRESS
        # Told when nothing is read any more: whoever hears may give the keys back.
        if presses:
            self.pressed.emit()


def _library() -> Any:
    """libX11 with the types of what is used; None where there is none."""
    name = ctypes.util.find_library("X11") or "libX11.so.6"
    try:
        x11 = ctypes.CDLL(name)
    except OSError:
        return None
    pointer, number, unsigned = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
    for function, result, arguments in (
        ("XOpenDisplay", pointer, [ctypes.c_char_p]),
        ("XCloseDisplay", number, [pointer]),
        ("XDefaultRootWindow", unsigned, [pointer]),
        ("XStringToKeysym", unsigned, [ctypes.c_char_p]),
        ("XKeysymToKeycode", ctypes.c_ubyte, [pointer, unsigned]),
        ("XGrabKey", number, [pointer, number, ctypes.c_uint, unsigned, number, number, number]),
        ("XSync", number, [pointer, number]),
        ("XPending", number, [pointer]),
        ("XNextEvent", number, [pointer, ctypes.c_char_p]),
        ("XConnectionNumber", number, [pointer]),
        ("XSetErrorHandler", pointer, [_HANDLER]),
    ):
        found = getattr(x11, function)
        found.restype, found.argtypes = result, arguments
    return x11
