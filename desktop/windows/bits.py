"""Small widgets that the pages are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from PySide6.QtCore import QEvent, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QFocusEvent,
    QFontMetrics,
    QFontMetricsF,
    QKeyEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
)
from PySide6.QtWidgets import (
    QAbstractScrollArea,
    QComboBox,
    QFrame,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QToolButton,
    QWidget,
)

from desktop.theme import glyphs, tokens
from desktop.theme.palette import body_font, sized
from desktop.theme.tokens import Colours

ROOM_BESIDE = 48
"""What a choice has beside its text: its padding and the chevron."""
LINE = 10
"""What is this near in height stands in one line."""
PLAIN_LIST = "QListView { background: transparent; } QListView:focus { border: none; }"
"""A list on the page's own ground; its delegate draws the focus around the current row."""


def paint_ground(painter: QPainter, box: QRectF, state: QStyle.StateFlag, colours: Colours) -> None:
    """What a list's row stands on: nothing, or the ground of one that is pointed at or chosen, with focus."""
    selected = bool(state & QStyle.StateFlag.State_Selected)
    if selected or state & QStyle.StateFlag.State_MouseOver:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.selected if selected else colours.hover))
        painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
    if selected and state & QStyle.StateFlag.State_HasFocus:
        painter.setPen(QPen(QColor(colours.accent), 2))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(box.adjusted(1, 1, -1, -1), tokens.RADIUS, tokens.RADIUS)


class Choice(QComboBox):
    """A quiet choice with a chevron.

    Args:
        hugs: It is as wide as what is chosen, not as the widest that can be.
    """

    def __init__(self, name: str, colours: Callable[[], Colours], *, hugs: bool = False) -> None:
        super().__init__()
        self._colours = colours
        self._hugs = hugs
        if hugs:
            self.currentTextChanged.connect(lambda _text: self.updateGeometry())
        self.setAccessibleName(name)
        self.setAccessibleDescription(name)  # on Linux the name of a choice is what is chosen
        self.setToolTip(name)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.setMaximumWidth(240)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        hint = super().sizeHint() + QSize(tokens.GRID, 0)
        if self._hugs:
            text = self.fontMetrics().horizontalAdvance(self.currentText())
            hint.setWidth(min(hint.width(), text + ROOM_BESIDE))
        return hint

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        least = super().minimumSizeHint()
        return QSize(ROOM_BESIDE, least.height()) if self._hugs else least

    def initStyleOption(self, option: QStyleOptionComboBox) -> None:  # noqa: N802
        super().initStyleOption(option)
        part = QStyle.SubControl.SC_ComboBoxEditField
        room = self.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, self).width()
        text = option.currentText
        option.currentText = self.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, room - 2)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        super().paintEvent(event)
        painter = QPainter(self)
        glyph = glyphs.pixmap("chevron-down", self._colours().muted, glyphs.SMALL, self.devicePixelRatioF())
        rtl = self.layoutDirection() is Qt.LayoutDirection.RightToLeft
        x = tokens.HALF if rtl else self.width() - glyphs.SMALL - 6
        painter.drawPixmap(x, (self.height() - glyphs.SMALL) // 2, glyph)
        painter.end()


class Elided(QWidget):
    """One line of text that is shortened where there is no room; the whole is in its tooltip.

    Args:
        middle: It is a path: its beginning and its end tell most.
    """

    access_role = QAccessible.Role.StaticText

    def __init__(
        self,
        text: str = "",
        *,
        size: int = tokens.BODY,
        strong: bool = False,
        middle: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setFont(sized(body_font(), size, strong=strong))
        self._mode = Qt.TextElideMode.ElideMiddle if middle else Qt.TextElideMode.ElideRight
        self._text = ""
        self._colour = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.set_text(text)

    @property
    def text(self) -> str:
        """All of it."""
        return self._text

    def set_text(self, text: str, colour: str = "") -> None:
        """Show this; the window's text colour where no other is given."""
        if (text, colour) != (self._text, self._colour):
            self._text, self._colour = text, colour
            self.setAccessibleName(text)
            self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        metrics = QFontMetrics(self.font())
        return QSize(metrics.horizontalAdvance(self._text) + 2, metrics.height() + 2)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(24, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setFont(self.font())
        colour = QColor(self._colour) if self._colour else self.palette().color(QPalette.ColorRole.WindowText)
        painter.setPen(colour)
        shown = QFontMetrics(self.font()).elidedText(self._text, self._mode, self.width())
        if shown != self._text and self.toolTip() != self._text:
            self.setToolTip(self._text)
        side = Qt.AlignmentFlag.AlignLeading
        if self._mode is Qt.TextElideMode.ElideMiddle:
            # A path is written from left to right everywhere; only its place follows the page.
            painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)
            side = Qt.AlignmentFlag.AlignRight if self.isRightToLeft() else Qt.AlignmentFlag.AlignLeft
        flags = int(Qt.AlignmentFlag.AlignVCenter | side | Qt.TextFlag.TextSingleLine)
        painter.drawText(self.rect(), flags, shown)
        painter.end()


class GlyphLabel(QWidget):
    """A glyph that says something; its meaning is its accessible name."""

    access_role = QAccessible.Role.Graphic

    def __init__(self, size: int = glyphs.SMALL, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._size = size
        self._glyph = ("", "")
        self.setFixedSize(size, size)

    def show_glyph(self, name: str, colour: str, meaning: str = "") -> None:
        """Show this one."""
        if (name, colour) != self._glyph:
            self._glyph = (name, colour)
            self.update()
        self.setAccessibleName(meaning)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        if self._glyph[0]:
            painter = QPainter(self)
            painter.drawPixmap(0, 0, glyphs.pixmap(*self._glyph, self._size, self.devicePixelRatioF()))
            painter.end()


class GlyphButton(QToolButton):
    """A quiet button with a glyph; what it does is its tooltip and its accessible name."""

    def __init__(self, glyph: str, what: str, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._glyph = glyph
        self.setToolTip(what)
        self.setAccessibleName(what)
        self.setAutoRaise(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setIconSize(QSize(glyphs.SMALL, glyphs.SMALL))
        self.setFixedSize(tokens.ROW, tokens.ROW_COMPACT)
        self.recolour(colours)

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self.colours = colours
        self.setIcon(glyphs.icon(self._glyph, colours.muted))

    def show_glyph(self, glyph: str, colour: str) -> None:
        """Another glyph, until the next ``recolour``."""
        self.setIcon(glyphs.icon(glyph, colour))


def quiet_button(text: str, act: Callable[[], None], parent: QWidget | None = None) -> QPushButton:
    """A button that does not ask to be pressed."""
    button = QPushButton(text, parent)
    button.setAutoDefault(False)
    button.clicked.connect(lambda _checked=False: act())
    return button


def plain(text: str) -> str:
    """What users and agents wrote, as the text of a button or a menu, where an "&" underlines a letter."""
    return text.replace("&", "&&")


def primary_button(text: str, act: Callable[[], None], parent: QWidget | None = None) -> QPushButton:
    """The one thing to do in a view."""
    button = quiet_button(text, act, parent)
    button.setProperty("primary", True)
    return button


class _Label(QLabel):
    """Keeps the colour that it was given.

    WORKAROUND for Qt 6.11: of a widget inside a splitter or a stack the style sheet puts back the palette of
    its first polish when the page comes into a window, and a colour given in between is lost.
    """

    colour = ""

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        super().changeEvent(event)
        now = self.palette().color(QPalette.ColorRole.WindowText)
        if event.type() is QEvent.Type.PaletteChange and self.colour and now != QColor(self.colour):
            tint(self, self.colour)


def label(text: str = "", *, size: int = tokens.BODY, strong: bool = False, wrap: bool = False) -> QLabel:
    """A text. Never read as rich text: what it says may come from an agent."""
    return _dressed(_Label(text), size, strong=strong, wrap=wrap)


class _Refusal(_Label):
    """Its glyph says that something is wrong; its colour alone would not."""

    def __init__(self) -> None:
        super().__init__()
        self.setIndent(glyphs.SMALL + tokens.GRID)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        super().paintEvent(event)
        if not self.text():
            return
        room = self.contentsRect()
        line = QFontMetrics(self.font()).height()
        # The text stands in the middle of what it is given.
        needed = self.heightForWidth(self.width()) - self.height() + room.height()
        y = room.top() + max(0, (room.height() - needed) // 2) + (line - glyphs.SMALL) // 2
        x = room.right() + 1 - glyphs.SMALL if self.isRightToLeft() else room.left()
        colour = self.palette().color(QPalette.ColorRole.WindowText).name()
        painter = QPainter(self)
        painter.drawPixmap(
            x, y, glyphs.pixmap("circle-alert", colour, glyphs.SMALL, self.devicePixelRatioF())
        )
        painter.end()


def refusal_label() -> QLabel:
    """Why something was not done, beside where it was wanted."""
    return _dressed(_Refusal(), tokens.BODY, strong=False, wrap=True)


def _dressed(made: QLabel, size: int, *, strong: bool, wrap: bool) -> QLabel:
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setFont(sized(body_font(), size, strong=strong))
    made.setWordWrap(wrap)
    if made.isRightToLeft():
        # Qt goes by the letters of the text, and many of them are Latin on a page from right to left.
        made.setAlignment(
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignAbsolute
        )
    return made


def at_the_end(made: QLabel) -> QLabel:
    """Have a label's text stand where lines end."""
    side = Qt.AlignmentFlag.AlignLeft if made.isRightToLeft() else Qt.AlignmentFlag.AlignRight
    made.setAlignment(side | Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignAbsolute)
    return made


def tab_by_place(*places: QWidget) -> None:
    """Have Tab go through these one after the other, and inside each from the top to the bottom. Qt goes by
    age, and rows come and go."""
    found: list[QWidget] = []
    for place in places:
        inside = [each for each in (place, *place.findChildren(QWidget)) if _takes_tab(each)]
        found += _read(inside, place)
    for first, second in pairwise(found):
        QWidget.setTabOrder(first, second)


def _takes_tab(widget: QWidget) -> bool:
    wants = widget.focusPolicy() & Qt.FocusPolicy.TabFocus
    return bool(wants) and widget.isVisible() and widget.focusProxy() is None


def _read(widgets: list[QWidget], page: QWidget) -> list[QWidget]:
    """As one reads them: lines from the top, and what stands in one line from the side where reading
    begins."""
    rtl = page.layoutDirection() is Qt.LayoutDirection.RightToLeft

    def middle(widget: QWidget) -> int:
        return widget.mapTo(page, widget.rect().center()).y()

    def beginning(widget: QWidget) -> int:
        at = widget.mapTo(page, widget.rect().topRight() if rtl else widget.rect().topLeft())
        return -at.x() if rtl else at.x()

    lines: list[list[QWidget]] = []
    for widget in sorted(widgets, key=middle):
        if lines and middle(widget) - middle(lines[-1][0]) <= LINE:
            lines[-1].append(widget)
        else:
            lines.append([widget])
    return [widget for line in lines for widget in sorted(line, key=beginning)]


def tint(widget: QWidget, colour: str) -> None:
    """Give a label a colour of the tokens."""
    if isinstance(widget, _Label):
        widget.colour = colour
    palette = widget.palette()
    palette.setColor(QPalette.ColorRole.WindowText, QColor(colour))
    widget.setPalette(palette)


def hairline(parent: QWidget | None = None) -> QFrame:
    """A line between two things that do not belong together."""
    line = QFrame(parent)
    line.setFrameShape(QFrame.Shape.NoFrame)
    line.setFixedHeight(1)
    line.setBackgroundRole(QPalette.ColorRole.Mid)
    line.setAutoFillBackground(True)
    return line


class ReadingArea(QAbstractScrollArea):
    """Base of views that paint themselves. A focus that came by a key is shown by a ring around all of it;
    who clicked knows where the focus is."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._ringed = False
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def paint_ring(self, painter: QPainter, colours: Colours) -> None:
        """The last thing to be painted."""
        if self._ringed and self.hasFocus():
            painter.setPen(QPen(QColor(colours.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.viewport().rect().adjusted(1, 1, -1, -1))

    def focusInEvent(self, event: QFocusEvent) -> None:  # noqa: N802 - Qt's name
        super().focusInEvent(event)
        self._ringed = event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        super().focusOutEvent(event)
        self.viewport().update()


class PromptBox(QPlainTextEdit):
    """A text box that grows with what is in it, and sends with Ctrl+Enter.

    Signals:
        sent(): Ctrl+Enter was pressed.
    """

    sent = Signal()

    def __init__(self, hint: str, *, most_lines: int = 8, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._most = most_lines
        self.setPlaceholderText(hint)
        self.setAccessibleName(hint)
        self.setTabChangesFocus(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.document().documentLayout().documentSizeChanged.connect(lambda _size: self._fit())
        self._fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.sent.emit()
        else:
            super().keyPressEvent(event)

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit()

    def _fit(self) -> None:
        lines = min(max(1, round(self.document().size().height())), self._most)
        # Lines are a fraction higher than their whole number of pixels: what fits must not show a scroll bar.
        self.setFixedHeight(math.ceil(lines * (QFontMetricsF(self.font()).lineSpacing() + 1)) + 20)
