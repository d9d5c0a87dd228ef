"""The page "Messages": what was notified and nobody has handled, the newest first."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import (
    QColor,
    QHideEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QShowEvent,
)
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from desktop.commands import Command
from desktop.notifications.planner import Fact, Kind
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.bits import Elided, GlyphButton, GlyphLabel, label, plain, quiet_button, tint
from desktop.windows.context import Context
from desktop.words import ago

TICK_MS: Final = 60_000

_GLYPHS: Final[Mapping[Kind, str]] = {
    Kind.NEEDS_YOU: "circle-alert",
    Kind.FINISHED: "circle-check",
    Kind.FAILED: "circle-x",
    Kind.STALLED: "hourglass",
    Kind.JOB: "terminal",
    Kind.PARKED: "circle-pause",
    Kind.UPDATE: "arrow-down",
    Kind.TROUBLE: "triangle-alert",
}


def kind_colour(kind: Kind, colours: Colours) -> str:
    """The colour that goes with the glyph."""
    return {
        Kind.FINISHED: colours.done,
        Kind.JOB: colours.accent,
        Kind.FAILED: colours.failed,
        Kind.TROUBLE: colours.failed,
        Kind.UPDATE: colours.accent,
    }.get(kind, colours.waiting)


class MessageLine(QWidget):
    """One message: a click opens what it is about."""

    def __init__(self, context: Context, fact: Fact) -> None:
        super().__init__()
        self._context = context
        self.fact = fact
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName(f"{fact.title}: {fact.text}")
        colours = context.colours
        glyph = GlyphLabel()
        glyph.show_glyph(_GLYPHS[fact.kind], kind_colour(fact.kind, colours))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(Elided(fact.title, strong=True))
        text = Elided()
        text.set_text(fact.text, colours.muted)
        words.addWidget(text)
        self._when = label()
        tint(self._when, colours.muted)
        row = QHBoxLayout(self)
        row.setContentsMargins(tokens.GRID, tokens.GRID, tokens.HALF, tokens.GRID)
        row.setSpacing(12)
        row.addWidget(glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        for told, command in fact.buttons if fact.kind is not Kind.NEEDS_YOU else ():
            row.addWidget(quiet_button(plain(told), partial(self._act, command)))
        row.addWidget(self._when)
        away = GlyphButton("x", _("Put away"), colours)
        away.clicked.connect(lambda _checked=False: self._put_away())
        kept = away.sizePolicy()
        kept.setRetainSizeWhenHidden(True)  # the times stand below each other
        away.setSizePolicy(kept)
        row.addWidget(away)
        away.setVisible(fact.kind is not Kind.NEEDS_YOU)
        self.show_time()

    def show_time(self) -> None:
        """Count on."""
        self._when.setText(ago(self.fact.at))

    def _open(self) -> None:
        if self._context.messages is not None:
            self._context.messages.open(self.fact)

    def _act(self, command: Command) -> None:
        self._put_away()
        self._context.do(command)

    def _put_away(self) -> None:
        if self._context.messages is not None:
            self._context.messages.put_away(self.fact.subject)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(event.position().toPoint()):
            self._open()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._open()
        elif event.key() == Qt.Key.Key_Delete and self.fact.kind is not Kind.NEEDS_YOU:
            self._put_away()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        if not self.hasFocus() and not self.underMouse():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colours = self._context.colours
        box = self.rect().adjusted(1, 1, -1, -1)
        if self.underMouse():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colours.hover))
            painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        if self.hasFocus():
            painter.setPen(QPen(QColor(colours.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        painter.end()


class MessagesPage(QWidget):
    """The page."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: tuple[Fact, ...] | None = None
        self.lines: list[MessageLine] = []
        self._sentence = Elided(size=tokens.SENTENCE, strong=True)
        self._empty = label(wrap=True)
        self.clear = quiet_button(_("Put all away"), self._put_all_away)
        self._area = QScrollArea()
        self._area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._area.setWidgetResizable(True)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setAccessibleName(_("Messages"))
        head = QHBoxLayout()
        head.setContentsMargins(24, 0, 24, 0)
        head.addWidget(self._sentence, 1)
        head.addWidget(self.clear)
        self._empty.setContentsMargins(24, 0, 24, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 24, 0, 0)
        column.setSpacing(tokens.GRID * 2)
        column.addLayout(head)
        column.addWidget(self._empty)
        column.addWidget(self._area, 1)
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._on_tick)
        if context.messages is not None:
            context.messages.changed.connect(self._show)
        context.theme.changed.connect(self._recolour)
        self.setFocusProxy(self._area)

    def _facts(self) -> tuple[Fact, ...]:
        return self._context.messages.facts if self._context.messages is not None else ()

    def _show(self) -> None:
        if not self.isVisible():
            return
        facts = self._facts()
        news = sum(fact.kind is not Kind.NEEDS_YOU for fact in facts)
        self._sentence.set_text(n_("{n} message", "{n} messages", len(facts)) if facts else _("No messages"))
        self.clear.setVisible(news > 0)
        tint(self._empty, self._context.colours.muted)
        self._empty.setText(
            _("What Ostler notified you of is listed here until you have opened it or put it away.")
        )
        self._empty.setVisible(not facts)
        if facts != self._shown:
            self._shown = facts
            self._fill(facts)

    def _fill(self, facts: tuple[Fact, ...]) -> None:
        place = self._area.verticalScrollBar().value()
        focused = next((at for at, line in enumerate(self.lines) if line.hasFocus()), None)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(24 - tokens.GRID, 0, 24 - tokens.GRID, 24)
        column.setSpacing(tokens.HALF)
        self.lines = [MessageLine(self._context, fact) for fact in facts]
        for line in self.lines:
            column.addWidget(line)
        column.addStretch(1)
        self._area.setWidget(inner)
        self._area.verticalScrollBar().setValue(place)
        if focused is not None and self.lines:
            self.lines[min(focused, len(self.lines) - 1)].setFocus(Qt.FocusReason.OtherFocusReason)

    def _put_all_away(self) -> None:
        if self._context.messages is not None:
            self._context.messages.put_all_away()

    def _on_tick(self) -> None:
        for line in self.lines:
            line.show_time()

    def _recolour(self) -> None:
        self._shown = None
        self._show()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show()
        self._on_tick()
        self._tick.start()
        if self._context.messages is not None:
            self._context.messages.seen()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._tick.stop()
