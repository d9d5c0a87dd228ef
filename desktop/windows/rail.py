"""The rail at the left: the pages, by glyph and name, by glyph alone where the window is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QAccessible, QColor, QFontMetrics, QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QButtonGroup, QVBoxLayout, QWidget

from desktop.theme import glyphs, tokens
from desktop.theme.palette import Theme, body_font, sized

WIDE: Final = 168
NARROW: Final = 56
HEIGHT: Final = 36
BEFORE: Final = tokens.GRID + glyphs.LARGE + 10
"""Up to the name."""
AFTER: Final = 28
"""For a number."""


class RailButton(QAbstractButton):
    """One page. A number at its end says how much there needs somebody."""

    access_role = QAccessible.Role.PageTab

    def __init__(self, theme: Theme, glyph: str, text: str, keys: str) -> None:
        super().__init__()
        self._theme = theme
        self._glyph = glyph
        self._count = 0
        self.narrow = False
        self.setText(text)
        self.setAccessibleName(text)
        self.setCheckable(True)
        self.setToolTip(f"{text} ({keys})")
        self.setFixedHeight(HEIGHT)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def show_count(self, count: int, meaning: str = "") -> None:
        """Say how much there needs somebody."""
        if count != self._count:
            self._count = count
            self.setAccessibleDescription(meaning)
            self.update()

    def open_it(self) -> None:
        """For a screen reader."""
        self.click()

    def wide(self) -> int:
        """The width that its name needs in any state, with a number behind it."""
        name = QFontMetrics(sized(body_font(), tokens.BODY, strong=True)).horizontalAdvance(self.text())
        return 2 * tokens.GRID + BEFORE + name + AFTER

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(NARROW if self.narrow else WIDE, HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        colours = self._theme.colours
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = self.rect().adjusted(tokens.GRID, 2, -tokens.GRID, -2)
        painter.setPen(Qt.PenStyle.NoPen)
        if self.isChecked() or self.underMouse():
            painter.setBrush(QColor(colours.selected if self.isChecked() else colours.hover))
            painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        if self.hasFocus():
            painter.setPen(QPen(QColor(colours.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        tint = colours.accent if self.isChecked() else colours.muted
        drawn = glyphs.pixmap(self._glyph, tint, glyphs.LARGE, self.devicePixelRatioF())
        rtl = self.layoutDirection() is Qt.LayoutDirection.RightToLeft
        x = (self.width() - glyphs.LARGE) // 2 if self.narrow else box.left() + tokens.GRID
        if rtl:
            x = self.width() - x - glyphs.LARGE
        painter.drawPixmap(x, (self.height() - glyphs.LARGE) // 2, drawn)
        flags = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeading)
        if not self.narrow:
            painter.setFont(sized(body_font(), tokens.BODY, strong=self.isChecked()))
            painter.setPen(QColor(colours.text))
            after = AFTER if self._count else 0
            room = box.adjusted(after, 0, -BEFORE, 0) if rtl else box.adjusted(BEFORE, 0, -after, 0)
            painter.drawText(room, flags, self.text())
        if self._count:
            painter.setFont(sized(body_font(), tokens.SMALL, strong=True))
            painter.setPen(QColor(colours.waiting))
            right = int(Qt.AlignmentFlag.AlignTrailing | Qt.AlignmentFlag.AlignVCenter)
            top = int(Qt.AlignmentFlag.AlignTrailing | Qt.AlignmentFlag.AlignTop)
            side = 1 if self.narrow else tokens.GRID
            place = box.adjusted(side, int(self.narrow), -side, 0)
            painter.drawText(place, top if self.narrow else right, str(min(self._count, 99)))
        painter.end()


class Rail(QWidget):
    """Signals:
    chosen(str): A page is wanted.
    """

    chosen = Signal(str)
    access_role = QAccessible.Role.PageTabList

    def __init__(self, theme: Theme, pages: Sequence[tuple[str, str, str]]) -> None:
        """``pages``: (name, glyph, text) from the top."""
        super().__init__()
        self._theme = theme
        self.setAccessibleName("Ostler")
        self.buttons: dict[str, RailButton] = {}
        group = QButtonGroup(self)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 12, 0, 12)
        column.setSpacing(0)
        for number, (name, glyph, text) in enumerate(pages, 1):
            button = RailButton(theme, glyph, text, f"Ctrl+{number}")
            button.clicked.connect(lambda _checked=False, wanted=name: self.chosen.emit(wanted))
            group.addButton(button)
            column.addWidget(button)
            self.buttons[name] = button
        column.addStretch(1)
        self.set_narrow(False)
        theme.changed.connect(self.update)

    def set_narrow(self, narrow: bool) -> None:
        """Glyphs alone, or with names."""
        wide = max(WIDE, *(button.wide() for button in self.buttons.values()))
        self.setFixedWidth(NARROW if narrow else wide)
        for button in self.buttons.values():
            button.narrow = narrow
            button.updateGeometry()
            button.update()

    def mark(self, name: str) -> None:
        """This page is shown."""
        if name in self.buttons:
            self.buttons[name].setChecked(True)
            # Tab comes to the rail once, at the page that is shown; arrows go on from there.
            for each, button in self.buttons.items():
                button.setFocusPolicy(Qt.FocusPolicy.TabFocus if each == name else Qt.FocusPolicy.NoFocus)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}.get(Qt.Key(event.key()), 0)
        names = list(self.buttons)
        focused = [name for name in names if self.buttons[name].hasFocus()]
        if not step or not focused:
            super().keyPressEvent(event)
            return
        wanted = names[(names.index(focused[0]) + step) % len(names)]
        self.buttons[wanted].setFocus(Qt.FocusReason.OtherFocusReason)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(self._theme.colours.raised))
        painter.end()
