"""What a screen reader is told of the widgets that paint themselves.

Qt knows its own widgets. One of ours says what it is by an attribute ``access_role``, its name and
description are set as on every widget, and a view whose contents are painted gives them by ``spoken()``:
what is in sight, piece by piece, as children that can be read. Nothing of it is made before a screen reader
asks.
"""

from __future__ import annotations

from typing import Final, Protocol, cast

from PySide6.QtCore import QObject, QPoint, QRect
from PySide6.QtGui import QAccessible, QAccessibleInterface
from PySide6.QtWidgets import QAbstractButton, QAccessibleWidget, QWidget
from shiboken6 import isValid

PURGE_AT: Final = 256


class SpeakingView(Protocol):
    """A view that tells what is in sight."""

    def spoken(self) -> list[tuple[str, QRect]]:
        """(text, place in the view's own coordinates) from the top."""
        ...


class Pressable(Protocol):
    """A widget that can be clicked without being a button of Qt's."""

    def open_it(self) -> None:
        """What a click does."""
        ...


class _Spoken(QAccessibleWidget):
    """A widget of ours."""

    def __init__(self, widget: QWidget, role: QAccessible.Role) -> None:
        super().__init__(widget, role)
        self._of = widget

    def actionNames(self) -> list[str]:  # noqa: N802
        names = list(super().actionNames())
        return [self.pressAction(), *names] if hasattr(self._of, "open_it") else names

    def state(self) -> QAccessible.State:
        found = super().state()
        if isValid(self._of) and isinstance(self._of, QAbstractButton) and self._of.isCheckable():
            found.checkable = True
            found.checked = self._of.isChecked()
            found.selected = self._of.isChecked()
        return found

    def doAction(self, actionName: str) -> None:  # noqa: N802, N803
        if actionName == self.pressAction():
            cast("Pressable", self._of).open_it()
        else:
            super().doAction(actionName)

    def forget(self) -> None:
        """The widget is gone."""


class _Piece(QAccessibleInterface):
    """The n-th thing in sight of a view."""

    def __init__(self, view: QWidget, number: int) -> None:
        super().__init__()
        self._view = view
        self._number = number

    def _spoken(self) -> tuple[str, QRect]:
        if isValid(self._view):
            found = cast("SpeakingView", self._view).spoken()
            if self._number < len(found):
                return found[self._number]
        return "", QRect()

    def isValid(self) -> bool:  # noqa: N802 - Qt's names, here and below
        return isValid(self._view)

    def object(self) -> QObject:
        return cast("QObject", None)  # it is no object of its own

    def parent(self) -> QAccessibleInterface:
        found = QAccessible.queryAccessibleInterface(self._view) if isValid(self._view) else None
        return cast("QAccessibleInterface", found)

    def child(self, index: int) -> QAccessibleInterface:
        return cast("QAccessibleInterface", None)

    def childAt(self, x: int, y: int) -> QAccessibleInterface:  # noqa: N802
        return cast("QAccessibleInterface", None)

    def childCount(self) -> int:  # noqa: N802
        return 0

    def indexOfChild(self, arg__1: QAccessibleInterface) -> int:  # noqa: N802
        return -1

    def text(self, t: QAccessible.Text) -> str:
        return self._spoken()[0] if t is QAccessible.Text.Name else ""

    def setText(self, t: QAccessible.Text, text: str) -> None:  # noqa: N802
        pass  # nothing here is written into

    def rect(self) -> QRect:
        place = self._spoken()[1]
        return place.translated(self._view.mapToGlobal(QPoint(0, 0))) if isValid(self._view) else place

    def role(self) -> QAccessible.Role:
        return QAccessible.Role.ListItem

    def state(self) -> QAccessible.State:
        return QAccessible.State()


class _SpokenView(_Spoken):
    """A view, with what is in sight as its children."""

    def __init__(self, widget: QWidget, role: QAccessible.Role) -> None:
        super().__init__(widget, role)
        self._pieces: list[tuple[_Piece, int]] = []

    def childCount(self) -> int:  # noqa: N802
        return len(cast("SpeakingView", self._of).spoken()) if isValid(self._of) else 0

    def child(self, index: int) -> QAccessibleInterface:
        if not 0 <= index < self.childCount():
            return cast("QAccessibleInterface", None)
        while len(self._pieces) <= index:
            piece = _Piece(self._of, len(self._pieces))
            self._pieces.append((piece, QAccessible.registerAccessibleInterface(piece)))
        return self._pieces[index][0]

    def childAt(self, x: int, y: int) -> QAccessibleInterface:  # noqa: N802
        here = self._of.mapFromGlobal(QPoint(x, y))
        for index, (_text, place) in enumerate(cast("SpeakingView", self._of).spoken()):
            if place.contains(here):
                return self.child(index)
        return cast("QAccessibleInterface", None)

    def indexOfChild(self, arg__1: QAccessibleInterface) -> int:  # noqa: N802
        return next((at for at, (piece, _ident) in enumerate(self._pieces) if piece is arg__1), -1)

    def forget(self) -> None:
        for _piece, ident in self._pieces:
            QAccessible.deleteAccessibleInterface(ident)
        self._pieces.clear()


_made: list[_Spoken] = []
"""Qt ends them with their widgets and holds no reference to what is Python's of them."""


def _interface(_class_name: str, thing: QObject) -> QAccessibleInterface | None:
    role = getattr(thing, "access_role", None)
    if not isinstance(thing, QWidget) or not isinstance(role, QAccessible.Role):
        return None
    if len(_made) >= PURGE_AT:
        gone = [each for each in _made if not isValid(each)]
        _made[:] = [each for each in _made if isValid(each)]
        for each in gone:
            each.forget()
    made = (_SpokenView if hasattr(thing, "spoken") else _Spoken)(thing, role)
    _made.append(made)
    return made


def install() -> None:
    """Have it told from now on."""
    QAccessible.installFactory(_interface)
