"""A row that goes on below where there is no room beside: for buttons whose words may be long.

A widget and no layout: Qt frees the items of a layout that Python has made at moments of its own.
"""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRect, QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from desktop.theme import tokens


class Flow(QWidget):
    """Widgets one after the other, from the side where reading begins."""

    def __init__(self) -> None:
        super().__init__()
        self._inside: list[QWidget] = []
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def add(self, widget: QWidget) -> None:
        """One more at the end."""
        widget.setParent(self)
        self._inside.append(widget)
        self.updateGeometry()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's names, here and below
        sizes = [each.sizeHint() for each in self._inside]
        width = sum(size.width() + tokens.GRID for size in sizes) - tokens.GRID
        return QSize(max(0, width), max((size.height() for size in sizes), default=0))

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        widest = max((each.minimumSizeHint().width() for each in self._inside), default=0)
        return QSize(widest, self.sizeHint().height())

    def hasHeightForWidth(self) -> bool:  # noqa: N802
        return True

    def heightForWidth(self, arg__1: int) -> int:  # noqa: N802
        return max((place.bottom() + 1 for place in self._places(arg__1)), default=0)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self._place()

    def event(self, event: QEvent) -> bool:
        if event.type() is QEvent.Type.LayoutRequest:  # one of them has become wider or narrower
            self.updateGeometry()
            self._place()
        return super().event(event)

    def _place(self) -> None:
        for widget, place in zip(self._inside, self._places(self.width()), strict=True):
            widget.setGeometry(place)

    def _places(self, room: int) -> list[QRect]:
        places: list[QRect] = []
        x, y, line = 0, 0, 0
        for widget in self._inside:
            size = widget.sizeHint()
            width = min(size.width(), max(room, widget.minimumSizeHint().width()))
            if x and x + width > room:
                x, y, line = 0, y + line + tokens.GRID, 0
            places.append(QRect(room - x - width if self.isRightToLeft() else x, y, width, size.height()))
            x += width + tokens.GRID
            line = max(line, size.height())
        return places
