"""Shows a transcript of any length: only what is on the screen is laid out, and a frame is never long.

What holds the place is an anchor (an item and how far into it), never a pixel of the whole: the heights of
what was not seen yet are estimates, and correcting one above the screen must not move what is read.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QSize, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QContextMenuEvent,
    QDesktopServices,
    QGuiApplication,
    QHideEvent,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QResizeEvent,
    QShowEvent,
    QTextCursor,
)
from PySide6.QtWidgets import QMenu, QWidget

from desktop.models.heights import Heights
from desktop.models.transcript import Item, Transcript
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.bits import ReadingArea
from desktop.windows.transcript_items import GAP, ROW, ItemLayout, Laid, Piece, shortened
from desktop.words import cut

KEPT: Final = 160
"""Laid-out items that are kept; a screen shows a few dozen."""
SIDE: Final = 24
TICK_MS: Final = 1_000
SEARCH_MS: Final = 6
"""How long a slice of a search may take: the screen stays alive beside it."""
SPOKEN_CHARS: Final = 4_000
_LINKS: Final = ("http", "https", "mailto")


class TranscriptView(ReadingArea):
    """The transcript of one task.

    Signals:
        following_changed(bool): Whether the end is followed.
        found(int, int): (which hit is shown, how many there are) of the search.
    """

    following_changed = Signal(bool)
    found = Signal(int, int)
    access_role = QAccessible.Role.List

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.transcript = Transcript()
        self.setAccessibleName(_("Transcript"))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.viewport().setMouseTracking(True)
        self.viewport().setBackgroundRole(QPalette.ColorRole.Window)
        self._layout = ItemLayout(colours, rtl=self.isRightToLeft())
        self._heights = Heights(self._layout.line, 100.0)
        self._laid: OrderedDict[int, Laid] = OrderedDict()
        self._width = 0
        self._anchor = (0, 0.0)
        self._following = True
        self._moving = False
        self._current = -1
        self._hovered = (-1, -1)
        self._marked: tuple[int, int, QTextCursor] | None = None
        self._pressed: tuple[int, int, int] | None = None
        """Where the mouse went down: (item, piece, place in its text; -1 where it is none)."""
        self._needle = ""
        self._hits: list[int] = []
        self._hit = -1
        self._search_at = 0
        self._search = QTimer(self)
        self._search.setInterval(0)
        self._search.timeout.connect(self._search_on)
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self.viewport().update)
        self.verticalScrollBar().valueChanged.connect(self._on_scrolled)

    # --- content -----------------------------------------------------------------------------------

    def measure(self, transcript: Transcript, first: int = 0, heights: Heights | None = None) -> Heights:
        """Estimate heights from item ``first`` on: for a transcript that is read while another is shown."""
        if heights is None:
            heights = Heights(self._layout.line, self._layout.columns(max(1, self._width)))
        for number in range(first, len(transcript.items)):
            heights.put(number, *self._layout.facts(transcript.items[number]))
        return heights

    def show_transcript(self, transcript: Transcript, heights: Heights | None = None) -> None:
        """Show another transcript, or the same with more before it: the place is kept by number of line.

        Args:
            heights: What ``measure`` has made of it.
        """
        index, inside = self._anchor
        items = self.transcript.items
        seq = items[index].seq if index < len(items) else 0
        self.transcript = transcript
        self._laid.clear()
        self._marked = self._pressed = None
        self._current = -1
        self._heights = heights if heights is not None else self.measure(transcript)
        self._heights.reflow(self._layout.line, self._layout.columns(max(1, self._width)))
        if not self._following and seq:
            self._anchor = (self._index_of(seq), inside)
        self._needle, needle = "", self._needle
        self.search(needle)
        self._arrange()

    def grown(self, first: int) -> None:
        """Items from ``first`` on are new or changed."""
        self.measure(self.transcript, first, self._heights)
        if self._needle:  # also while it looks: it may be beyond what has changed
            self._search_at = min(self._search_at, first)
            self._hits = [hit for hit in self._hits if hit < first]
            self._search.start()
        self._arrange()
        self._keep_time()

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._layout = ItemLayout(colours, rtl=self.isRightToLeft())
        self._laid.clear()
        self._reflow()

    # --- place -------------------------------------------------------------------------------------

    @property
    def following(self) -> bool:
        """Whether what comes is scrolled to."""
        return self._following

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._set_following(True)
        self._arrange()

    def show_item(self, index: int) -> None:
        """Bring an item to the upper part of the screen."""
        self._set_following(False)
        self._current = index
        self._anchor = (index, -self.viewport().height() / 4)
        self._arrange()

    def next_error(self) -> None:
        """Go to the next error, and from the last one to the first."""
        errors = self.transcript.errors
        if errors:
            later = [error for error in errors if error > self._current]
            self.show_item(later[0] if later else errors[0])

    def copy(self) -> None:
        """Put what is marked on the clipboard, else the current item."""
        if self._marked is not None and self._marked[2].hasSelection():
            text = self._marked[2].selection().toPlainText()
        elif 0 <= self._current < len(self.transcript.items):
            text = self.transcript.items[self._current].copied()
        else:
            return
        QGuiApplication.clipboard().setText(text)

    def copy_all(self) -> None:
        """Put everything on the clipboard, folded or not."""
        text = "\n\n".join(item.copied().strip("\n") for item in self.transcript.items)
        QGuiApplication.clipboard().setText(text)

    # --- search ------------------------------------------------------------------------------------

    def search(self, needle: str) -> None:
        """Look for a text everywhere, folded or not; ``found`` tells as hits come."""
        if needle == self._needle:
            return
        self._needle = needle
        self._hits, self._hit, self._search_at = [], -1, 0
        if needle:
            self._search.start()
        else:
            self._search.stop()
        self.found.emit(0, 0)
        self.viewport().update()

    def next_hit(self, step: int = 1) -> None:
        """Show the next hit (or with -1 the one before)."""
        if self._hits:
            self._hit = (self._hit + step) % len(self._hits)
            index = self._hits[self._hit]
            self._unfold_hit(index)
            self.show_item(index)
            self.found.emit(self._hit + 1, len(self._hits))

    def _search_on(self) -> None:
        low, items = self._needle.lower(), self.transcript.items
        before = len(self._hits)
        deadline = _clock_ms() + SEARCH_MS
        while self._search_at < len(items) and _clock_ms() < deadline:
            for _each in range(32):
                if self._search_at >= len(items):
                    break
                if any(low in text.lower() for text in items[self._search_at].plain()):
                    self._hits.append(self._search_at)
                self._search_at += 1
        if self._search_at >= len(items):
            self._search.stop()
        if before == 0 and self._hits and self._hit < 0:
            self.next_hit()
        elif len(self._hits) != before or not self._search.isActive():
            self.found.emit(self._hit + 1, len(self._hits))

    def _unfold_hit(self, index: int) -> None:
        item = self.transcript.items[index]
        low = self._needle.lower()
        item.open = item.open or bool(item.steps) or item.kind.value == "thinking"
        for step in item.steps:
            texts = (step.input_text, step.output or "")
            if any(low in text.lower() for text in texts):
                step.open = True
                shown = any(low in shortened(text)[0].lower() for text in texts)
                step.whole = step.whole or not shown
        self._changed(index)

    # --- geometry ----------------------------------------------------------------------------------

    def _column(self) -> tuple[int, int]:
        """(left, width) of the column of text."""
        room = self.viewport().width() - 2 * SIDE
        width = max(120, min(tokens.TEXT_WIDTH, room))
        return max(SIDE, (self.viewport().width() - width) // 2), width

    def _reflow(self) -> None:
        self._width = self._column()[1]
        self._laid.clear()
        self._heights.reflow(self._layout.line, self._layout.columns(self._width))
        self._arrange()

    def _lay(self, index: int) -> Laid:
        item = self.transcript.items[index]
        laid = self._laid.get(index)
        if laid is None or laid.version != item.version:
            laid = self._layout.lay(item, self._width)
            self._laid[index] = laid
            if self._marked is not None and self._marked[0] == index:
                self._marked = None
            if len(self._laid) > KEPT:
                self._laid.popitem(last=False)
        self._laid.move_to_end(index)
        self._heights.measured(index, laid.height)
        return laid

    def _arrange(self) -> None:
        """Lay out what is on the screen, correct the place, and bring the scroll bar in line."""
        count, room = len(self.transcript.items), self.viewport().height()
        if not count or not self.isVisible():
            self._anchor = (0, 0.0) if not count else self._anchor
            self.verticalScrollBar().setRange(0, 0)
            self.viewport().update()
            return
        index, inside = self._anchor
        index = min(index, count - 1)
        if not self._following:
            while inside < 0 and index > 0:
                index -= 1
                inside += self._lay(index).height
            inside = max(0.0, inside)
            while index < count - 1 and inside >= (height := self._lay(index).height):
                inside -= height
                index += 1
            bottom, below = -inside, index
            while below < count and bottom < room:
                bottom += self._lay(below).height
                below += 1
            if bottom < room and below == count:
                index, inside = self._from_end(room)
        else:
            index, inside = self._from_end(room)
        self._anchor = (index, inside)
        total = round(self._heights.total())
        self._moving = True
        bar = self.verticalScrollBar()
        bar.setRange(0, max(0, total + GAP - room))
        bar.setPageStep(max(1, room))
        bar.setSingleStep(ROW)
        if self._following:
            bar.setValue(bar.maximum())
        else:
            bar.setValue(round(self._heights.start(index) + inside))
        self._moving = False
        self.viewport().update()

    def _from_end(self, room: int) -> tuple[int, float]:
        """The anchor with which the last item ends at the bottom."""
        index, height = len(self.transcript.items), GAP
        while index > 0 and height < room:
            index -= 1
            height += self._lay(index).height
        return index, max(0.0, float(height - room))

    def _on_scrolled(self, value: int) -> None:
        if self._moving:
            return
        bar = self.verticalScrollBar()
        if value >= bar.maximum():
            self._set_following(True)
        else:
            self._set_following(False)
            self._anchor = self._heights.at(float(value))
        self._arrange()

    def _scroll_by(self, pixels: float) -> None:
        if pixels < 0:
            self._set_following(False)
        index, inside = self._anchor
        self._anchor = (index, inside + pixels)
        self._arrange()
        bar = self.verticalScrollBar()
        if pixels > 0 and bar.value() >= bar.maximum():
            self._set_following(True)

    def _set_following(self, following: bool) -> None:
        if following != self._following:
            self._following = following
            self.following_changed.emit(following)

    def _index_of(self, seq: int) -> int:
        items, low, high = self.transcript.items, 0, len(self.transcript.items)
        while low < high:
            middle = (low + high) // 2
            if items[middle].seq < seq:
                low = middle + 1
            else:
                high = middle
        return min(low, max(0, len(items) - 1))

    def _changed(self, index: int) -> None:
        item = self.transcript.items[index]
        item.version += 1
        self._heights.put(index, *self._layout.facts(item))

    # --- events ------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self.viewport())
        left, width = self._column()
        clip = event.rect()
        index, inside = self._anchor
        y = -round(inside)
        now = dt.datetime.now(dt.UTC)
        items = self.transcript.items
        room = self.viewport().height()
        while index < len(items) and y < room:
            laid = self._lay(index)
            if y + laid.height >= clip.top() and y <= clip.bottom():
                marked = self._marked
                self._layout.paint(
                    painter, laid, self.transcript, left=left, top=y, clip=clip,
                    marked=(marked[1], marked[2]) if marked is not None and marked[0] == index else None,
                    needle=self._needle,
                    hovered=self._hovered[1] if self._hovered[0] == index else -1,
                    now=now,
                )  # fmt: skip
                if index == self._current and self.hasFocus():
                    painter.setPen(QPen(QColor(self._layout.colours.accent), 2))
                    painter.setBrush(Qt.BrushStyle.NoBrush)
                    ring = QRect(left, y, width, laid.height - GAP).adjusted(-6, -3, 6, 3)
                    painter.drawRoundedRect(ring, tokens.RADIUS, tokens.RADIUS)
            y += laid.height
            index += 1
        if not 0 <= self._current < len(items):
            self.paint_ring(painter, self._layout.colours)
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        if self._column()[1] != self._width:
            self._reflow()
        else:
            self._arrange()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802
        super().showEvent(event)
        self._reflow()
        self._keep_time()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._tick.stop()

    def scrollContentsBy(self, dx: int, dy: int) -> None:  # noqa: N802
        """Nothing: ``_on_scrolled`` places everything."""

    def _keep_time(self) -> None:
        """Count the seconds of a running call, while it can be seen."""
        if self.transcript.waiting and self.isVisible():
            if not self._tick.isActive():
                self._tick.start()
        else:
            self._tick.stop()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        room, key = self.viewport().height(), event.key()
        steps: dict[int, Callable[[], None]] = {
            int(Qt.Key.Key_PageDown): lambda: self._scroll_by(room * 0.9),
            int(Qt.Key.Key_PageUp): lambda: self._scroll_by(-room * 0.9),
            int(Qt.Key.Key_Space): lambda: self._scroll_by(room * 0.9),
            int(Qt.Key.Key_Home): lambda: self._to_start(),
            int(Qt.Key.Key_End): self.follow,
            int(Qt.Key.Key_Down): lambda: self._move_current(1),
            int(Qt.Key.Key_Up): lambda: self._move_current(-1),
            int(Qt.Key.Key_Return): self._toggle_current,
            int(Qt.Key.Key_Enter): self._toggle_current,
        }
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        elif key in steps and event.modifiers() in (
            Qt.KeyboardModifier.NoModifier,
            Qt.KeyboardModifier.KeypadModifier,
        ):
            steps[key]()
        else:
            super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:  # noqa: N802
        if not self.transcript.items:
            return
        if event.reason() is QContextMenuEvent.Reason.Mouse:
            found = self._piece_at(QPointF(event.pos()))
            if found is not None and (self._marked is None or self._marked[0] != found[0]):
                self._current = found[0]
                self.viewport().update()
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        marked = self._marked is not None and self._marked[2].hasSelection()
        one = menu.addAction(_("Copy") if marked else _("Copy this part"), self.copy)
        one.setEnabled(marked or 0 <= self._current < len(self.transcript.items))
        menu.addAction(_("Copy the whole transcript"), self.copy_all)
        menu.popup(event.globalPos())

    def _to_start(self) -> None:
        self._set_following(False)
        self._anchor = (0, 0.0)
        self._arrange()

    def _move_current(self, step: int) -> None:
        if not self.transcript.items:
            return
        if self._current < 0:
            self._current = self._anchor[0]
        else:
            self._current = min(max(self._current + step, 0), len(self.transcript.items) - 1)
        top = self._heights.start(self._current)
        first = self._heights.start(self._anchor[0]) + self._anchor[1]
        bottom = top + self._lay(self._current).height
        if top < first:
            self._scroll_by(top - first)
        elif bottom > first + self.viewport().height():
            self._scroll_by(min(top - first, bottom - first - self.viewport().height()))
        self.viewport().update()

    def _toggle_current(self) -> None:
        if 0 <= self._current < len(self.transcript.items):
            item = self.transcript.items[self._current]
            if len(item.steps) == 1:
                item.steps[0].open = not item.steps[0].open
            elif item.steps or item.kind.value == "thinking":
                item.open = not item.open
            else:
                return
            self._hold(self._current)

    def _hold(self, index: int) -> None:
        """An item was folded or unfolded: what is above it stays where it is."""
        if self._following and self._heights.total() > self.viewport().height():
            self._set_following(False)
        self._changed(index)
        self._arrange()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.button() is not Qt.MouseButton.LeftButton:
            super().mousePressEvent(event)
            return
        self._marked = self._pressed = None
        found = self._piece_at(event.position())
        if found is not None:
            index, number, piece, inside = found
            self._current = index
            place = -1
            if piece.document is not None:
                place = piece.document.documentLayout().hitTest(inside, Qt.HitTestAccuracy.FuzzyHit)
            self._pressed = (index, number, place)
        self.viewport().update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Mark the word."""
        found = self._piece_at(event.position())
        if event.button() is not Qt.MouseButton.LeftButton or found is None or found[2].document is None:
            return
        index, number, piece, inside = found
        document = piece.document
        assert document is not None
        place = document.documentLayout().hitTest(inside, Qt.HitTestAccuracy.FuzzyHit)
        cursor = QTextCursor(document)
        cursor.setPosition(max(0, place))
        cursor.select(QTextCursor.SelectionType.WordUnderCursor)
        self._marked, self._pressed = (index, number, cursor), None
        self.viewport().update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        found = self._piece_at(event.position())
        if self._pressed is not None and event.buttons() & Qt.MouseButton.LeftButton:
            index, number, start = self._pressed
            if (
                start >= 0
                and found is not None
                and found[:2] == (index, number)
                and found[2].document is not None
            ):
                document = found[2].document
                end = document.documentLayout().hitTest(found[3], Qt.HitTestAccuracy.FuzzyHit)
                cursor = QTextCursor(document)
                cursor.setPosition(start)
                cursor.setPosition(max(0, end), QTextCursor.MoveMode.KeepAnchor)
                self._marked = (index, number, cursor)
                self.viewport().update()
            return
        hovered = (found[0], found[1]) if found is not None and found[2].row is not None else (-1, -1)
        if hovered != self._hovered:
            self._hovered = hovered
            self.viewport().update()
        shape = Qt.CursorShape.ArrowCursor
        if found is not None:
            if found[2].row is not None or self._link_at(found[2], found[3]):
                shape = Qt.CursorShape.PointingHandCursor
            elif found[2].document is not None:
                shape = Qt.CursorShape.IBeamCursor
        self.viewport().setCursor(shape)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        pressed, self._pressed = self._pressed, None
        found = self._piece_at(event.position())
        if found is None or pressed is None or event.button() is not Qt.MouseButton.LeftButton:
            return
        index, number, piece, inside = found
        if pressed[:2] != (index, number):
            return  # it went down elsewhere: what was marked on the way here is no click
        item = self.transcript.items[index]
        if piece.what == "fold":
            item.open = not item.open
            self._hold(index)
        elif piece.what == "step":
            item.steps[piece.step].open = not item.steps[piece.step].open
            self._hold(index)
        elif piece.what == "more":
            item.steps[piece.step].whole = True
            self._hold(index)
        elif self._marked is None and (link := self._link_at(piece, inside)):
            QDesktopServices.openUrl(QUrl(link))

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802
        super().leaveEvent(event)
        self._hovered = (-1, -1)
        self.viewport().update()

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(tokens.TEXT_WIDTH, 400)

    def _link_at(self, piece: Piece, inside: QPointF) -> str:
        if piece.document is None:
            return ""
        link = piece.document.documentLayout().anchorAt(inside)
        return link if QUrl(link).scheme() in _LINKS else ""

    def _piece_at(self, position: QPointF) -> tuple[int, int, Piece, QPointF] | None:
        """(item, number of the piece, piece, place inside of it) at a place of the viewport."""
        left, _width = self._column()
        index, inside = self._anchor
        y = -round(inside)
        items = self.transcript.items
        while index < len(items) and y <= position.y():
            laid = self._lay(index)
            if position.y() < y + laid.height:
                for number, piece in enumerate(laid.pieces):
                    rect = piece.rect.translated(left, y)
                    if rect.contains(position.toPoint()):
                        return index, number, piece, position - QPointF(rect.topLeft())
                return None
            y += laid.height
            index += 1
        return None

    def spoken(self) -> list[tuple[str, QRect]]:
        """What is in sight, for a screen reader: (text, place in this widget)."""
        found: list[tuple[str, QRect]] = []
        left, width = self._column()
        index, inside = self._anchor
        y, items = -round(inside), self.transcript.items
        while self.isVisible() and index < len(items) and y < self.viewport().height():
            height = self._lay(index).height
            found.append((cut(items[index].copied(), SPOKEN_CHARS), QRect(left, y, width, height)))
            y += height
            index += 1
        return found

    def item_at(self, position: QPoint) -> Item | None:
        """The item at a place of the viewport."""
        found = self._piece_at(QPointF(position))
        return self.transcript.items[found[0]] if found is not None else None


def _clock_ms() -> float:
    from time import monotonic

    return monotonic() * 1000
