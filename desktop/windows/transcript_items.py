"""Lays out and paints one item of a transcript. What was laid out is thrown away when the item changes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from PySide6.QtCore import QPoint, QRect, QRectF, Qt, QUrl
from PySide6.QtGui import (
    QAbstractTextDocumentLayout,
    QColor,
    QFont,
    QFontMetrics,
    QPainter,
    QPalette,
    QPen,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextOption,
    QTransform,
)
from PySide6.QtWidgets import QStyle

from desktop.models.transcript import Item, Kind, Step, Transcript
from desktop.text import _, n_
from desktop.theme import glyphs, tokens
from desktop.theme.palette import body_font, mono_font, sized
from desktop.theme.tokens import Colours
from desktop.windows.wording import seconds_between, span
from desktop.words import elapsed

GAP: Final = tokens.GRID + tokens.HALF
"""Between two items."""
ROW: Final = tokens.ROW_COMPACT
PAD: Final = 12
INDENT: Final = 24
SHOWN_LINES: Final = 60
"""Of an input or output, until more is wanted."""
SHOWN_CHARS: Final = 8_000
MOST_LINES: Final = 1_000
"""Then so much, which is still laid out in a moment; the whole of it can be copied."""
MOST_CHARS: Final = 100_000
CODE_PAD: Final = 12
CODE_ROOM: Final = 6
"""Above and below it."""
SLOW_S: Final = 1.0
"""Calls that took less than this have no duration: it would say nothing."""

_TOOL_GLYPHS: Final = (
    (("bash", "shell", "exec", "command", "terminal"), "terminal"),
    (("edit", "write", "patch", "replace"), "pencil"),
    (("grep", "glob", "search", "find"), "search"),
    (("web", "fetch", "browse", "http"), "globe"),
    (("todo", "plan"), "list-checks"),
    (("agent", "task"), "bot"),
    (("read", "file", "view", "cat", "ls", "list"), "file-text"),
)


def tool_glyph(tool: str) -> str:
    """The glyph that goes with a tool's name."""
    low = tool.lower()
    return next((glyph for words, glyph in _TOOL_GLYPHS if any(word in low for word in words)), "wrench")


@dataclass(slots=True)
class Row:
    """One line that can be clicked."""

    glyph: str
    name: str
    summary: str
    colour: str
    step: Step | None = None
    fold: str = ""
    """The chevron at its end: right or down; none where nothing opens."""
    right: str = ""


@dataclass(slots=True)
class Piece:
    """A part of a laid-out item, placed from the item's top left."""

    rect: QRect
    document: QTextDocument | None = None
    row: Row | None = None
    colour: str = ""
    ground: QRect | None = None
    bar: bool = False
    what: str = ""
    """What a click does: fold (the item), step (one call of it), or more (of what the call gave)."""
    step: int = -1
    codes: tuple[QRect, ...] = ()
    """What code stands on, from the document's top left."""


@dataclass(slots=True)
class Laid:
    version: int
    height: int
    pieces: list[Piece]


class _Document(QTextDocument):
    """A document that fetches nothing: what an agent writes must not make this machine open files."""

    def loadResource(self, _kind: int, _url: QUrl | str) -> Any:  # noqa: N802 - Qt's name
        return None


class ItemLayout:
    """Makes ``Laid`` of items for a width, and paints them."""

    def __init__(self, colours: Colours, *, rtl: bool = False) -> None:
        self.rtl = rtl
        self.body = body_font()
        self.strong = sized(self.body, tokens.BODY, strong=True)
        self.small = sized(self.body, tokens.SMALL)
        self.mono = mono_font()
        self.colours = colours
        metrics = QFontMetrics(self.body)
        self.line = float(metrics.lineSpacing())
        self.average = metrics.horizontalAdvance("abcdefghij nopqrstuv ") / 21

    def columns(self, width: int) -> float:
        """Characters on a line, about."""
        return width / self.average

    def facts(self, item: Item) -> tuple[int, int, int]:
        """(fixed, breaks, characters) for an estimate."""
        match item.kind:
            case Kind.STEPS:
                return (ROW + GAP, 0, 0) if item.folded else (ROW * max(1, len(item.steps)) + GAP, 0, 0)
            case Kind.THINKING if not item.open:
                return ROW + GAP, 0, 0
            case Kind.SAID:
                return 2 * PAD + GAP, item.breaks, item.chars
            case _:
                return GAP, item.breaks, item.chars

    # --- laying out --------------------------------------------------------------------------------

    def lay(self, item: Item, width: int) -> Laid:
        """Lay an item out."""
        pieces: list[Piece] = []
        match item.kind:
            case Kind.STEPS:
                bottom = self._lay_steps(item, width, pieces)
            case Kind.THINKING:
                bottom = self._lay_thinking(item, width, pieces)
            case Kind.SAID:
                document = self._document(item.text, width - 2 * PAD, markdown=False)
                height = _height(document)
                ground = QRect(0, 0, width, height + 2 * PAD)
                pieces.append(Piece(QRect(PAD, PAD, width - 2 * PAD, height), document, ground=ground))
                bottom = ground.height()
            case Kind.ERROR:
                text, left = shortened(item.text)
                if left:
                    text += "\n" + n_("{n} more line", "{n} more lines", left)
                document = self._document(text, width - PAD, markdown=False)
                height = _height(document)
                rect = QRect(PAD, 0, width - PAD, height)
                pieces.append(Piece(rect, document, colour=self.colours.failed, bar=True))
                bottom = height
            case _:
                raw = item.kind is Kind.RAW
                document = self._document(item.text, width, markdown=not raw, mono=raw)
                bottom = _height(document)
                codes = () if raw else _code_grounds(document, width)
                pieces.append(Piece(QRect(0, 0, width, bottom), document, codes=codes))
        if self.rtl:
            for piece in pieces:
                piece.rect = _mirrored(piece.rect, width)
                piece.ground = _mirrored(piece.ground, width) if piece.ground is not None else None
        return Laid(item.version, bottom + GAP, pieces)

    def _lay_steps(self, item: Item, width: int, pieces: list[Piece]) -> int:
        y = 0
        if item.over and len(item.steps) > 1:
            text = n_("{n} step", "{n} steps", len(item.steps))
            took = seconds_between(item.steps[0].began_at, item.steps[-1].ended_at)
            if took is not None and took >= SLOW_S:
                text += " · " + span(took)
            row = Row("list-checks", "", text, self.colours.muted, fold="right" if item.folded else "down")
            pieces.append(Piece(QRect(0, 0, width, ROW), row=row, what="fold"))
            y = ROW
            if item.folded:
                return y
        indent = INDENT if y else 0
        for number, step in enumerate(item.steps):
            row = Row(
                tool_glyph(step.tool),
                step.tool,
                step.summary,
                self.colours.text,
                step=step,
                fold="down" if step.open else "right",
            )
            rect = QRect(indent, y, width - indent, ROW)
            pieces.append(Piece(rect, row=row, what="step", step=number))
            y += ROW
            if step.open:
                y = self._lay_details(step, number, indent + INDENT, y, width, pieces)
        return y

    def _lay_details(self, step: Step, number: int, x: int, y: int, width: int, pieces: list[Piece]) -> int:
        output = _("It has not answered yet") if step.output is None else step.output or _("No output")
        for text, colour in ((step.input_text, self.colours.text), (output, self.colours.muted)):
            if not text:
                continue
            lines, chars = (MOST_LINES, MOST_CHARS) if step.whole else (SHOWN_LINES, SHOWN_CHARS)
            shown, left = shortened(text, lines, chars)
            if left and step.whole:
                shown += "\n" + n_(
                    "{n} more line, which can be copied", "{n} more lines, which can be copied", left
                )
            inner = width - x - 2 * PAD
            document = self._document(shown, inner, mono=True)
            height = _height(document)
            ground = QRect(x, y, width - x, height + PAD)
            rect = QRect(x + PAD, y + PAD // 2, inner, height)
            pieces.append(Piece(rect, document, colour=colour, ground=ground))
            y += ground.height() + tokens.HALF
            if left and not step.whole:
                more = Row("", "", n_("Show {n} more line", "Show {n} more lines", left), self.colours.accent)
                rect = QRect(x, y, width - x, ROW)
                pieces.append(Piece(rect, row=more, what="more", step=number))
                y += ROW + tokens.HALF
        return y + tokens.HALF

    def _lay_thinking(self, item: Item, width: int, pieces: list[Piece]) -> int:
        first = " ".join(item.parts[0][:300].split()) if item.parts else ""
        row = Row("brain", "", _("Thought") if item.open else first, self.colours.muted)
        row.fold = "down" if item.open else "right"
        pieces.append(Piece(QRect(0, 0, width, ROW), row=row, what="fold"))
        if not item.open:
            return ROW
        document = self._document(item.text, width - INDENT)
        height = _height(document)
        rect = QRect(INDENT, ROW, width - INDENT, height)
        pieces.append(Piece(rect, document, colour=self.colours.muted))
        return ROW + height

    def _document(
        self, text: str, width: int, *, markdown: bool = False, mono: bool = False
    ) -> QTextDocument:
        document = _Document()
        document.setUndoRedoEnabled(False)
        document.setDocumentMargin(0)
        document.setDefaultFont(self.mono if mono else self.body)
        option = QTextOption()
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        document.setDefaultTextOption(option)
        document.setIndentWidth(20)
        if markdown:
            features = QTextDocument.MarkdownFeature
            document.setMarkdown(text, features.MarkdownDialectGitHub | features.MarkdownNoHTML)
            whole = QTextCursor(document)
            whole.beginEditBlock()
            self._dress(document)
            whole.endEditBlock()
        else:
            document.setPlainText(text)
        document.setTextWidth(max(1, width))
        return document

    def _dress(self, document: QTextDocument) -> None:
        """Our type on what Markdown made: quiet headings, our monospace, room between paragraphs."""
        cursor = QTextCursor(document)
        block = document.begin()
        while block.isValid():
            form = block.blockFormat()
            cursor.setPosition(block.position())
            code = _is_code(block)
            changed = QTextBlockFormat()
            follows = block.next()
            if code:
                # It stands on a ground of its own, which ``paint`` draws.
                begins = not _is_code(block.previous())
                ends = not _is_code(follows)
                changed.setNonBreakableLines(False)
                changed.setLeftMargin(CODE_PAD)
                changed.setRightMargin(CODE_PAD)
                above = tokens.GRID * 2 if block.previous().isValid() else tokens.GRID
                changed.setTopMargin(above if begins else 0)
                changed.setBottomMargin(
                    (tokens.GRID * 2 if follows.isValid() else tokens.GRID) if ends else 0
                )
                self._font(cursor, self.mono, strong=False)
            elif form.headingLevel():
                size = tokens.TITLE if form.headingLevel() < 3 else tokens.BODY
                self._font(cursor, sized(self.body, size, strong=True), strong=True)
                changed.setTopMargin(0 if block == document.begin() else tokens.GRID)
                changed.setBottomMargin(tokens.HALF)
            elif block.textList() is not None:
                listed = follows.isValid() and follows.textList() is not None
                changed.setTopMargin(0)
                changed.setBottomMargin(2 if listed else tokens.GRID if follows.isValid() else 0)
            else:
                changed.setTopMargin(0)
                changed.setBottomMargin(tokens.GRID if follows.isValid() else 0)
            cursor.mergeBlockFormat(changed)
            if not code:
                self._dress_fragments(document, block)
            block = block.next()

    def _font(self, cursor: QTextCursor, font: QFont, *, strong: bool) -> None:
        cursor.select(QTextCursor.SelectionType.BlockUnderCursor)
        if not cursor.hasSelection():
            cursor.select(QTextCursor.SelectionType.LineUnderCursor)
        form = QTextCharFormat()
        form.setFontFamilies(font.families() or [font.family()])
        form.setProperty(QTextFormat.Property.FontPixelSize, font.pixelSize())
        form.setProperty(QTextFormat.Property.FontSizeAdjustment, 0)
        if strong:
            form.setFontWeight(tokens.STRONG)
        cursor.mergeCharFormat(form)
        cursor.clearSelection()

    def _dress_fragments(self, document: QTextDocument, block: QTextBlock) -> None:
        found = []
        walk = block.begin()
        while not walk.atEnd():
            fragment = walk.fragment()
            if fragment.isValid() and fragment.charFormat().fontFixedPitch():
                found.append((fragment.position(), fragment.length()))
            walk += 1
        for position, length in found:
            cursor = QTextCursor(document)
            cursor.setPosition(position)
            cursor.setPosition(position + length, QTextCursor.MoveMode.KeepAnchor)
            form = QTextCharFormat()
            form.setFontFamilies(self.mono.families() or [self.mono.family()])
            form.setProperty(QTextFormat.Property.FontPixelSize, tokens.MONO)
            form.setBackground(QColor(self.colours.raised))
            cursor.mergeCharFormat(form)

    # --- painting ----------------------------------------------------------------------------------

    def paint(
        self,
        painter: QPainter,
        laid: Laid,
        transcript: Transcript,
        *,
        left: int,
        top: int,
        clip: QRect,
        marked: tuple[int, QTextCursor] | None,
        needle: str,
        hovered: int,
        now: dt.datetime,
    ) -> None:
        """Paint an item whose top left is at (left, top); what is outside of ``clip`` is left out."""
        for number, piece in enumerate(laid.pieces):
            rect = piece.rect.translated(left, top)
            reach = piece.ground.translated(left, top) if piece.ground is not None else rect
            if not reach.intersects(clip):
                continue
            if piece.ground is not None:
                self._paint_ground(painter, QRectF(reach))
            for code in piece.codes:
                self._paint_ground(painter, QRectF(code.translated(rect.topLeft())))
            if piece.bar:
                edge = rect.right() + PAD - 2 if self.rtl else left
                painter.fillRect(QRect(edge, rect.top(), 3, rect.height()), QColor(self.colours.failed))
            if piece.row is not None:
                self._paint_row(painter, piece.row, rect, transcript, hovered == number, now)
            elif piece.document is not None:
                cursor = marked[1] if marked is not None and marked[0] == number else None
                self._paint_document(painter, piece, rect, clip, cursor, needle)

    def _paint_ground(self, painter: QPainter, place: QRectF) -> None:
        """A raised surface. Where more contrast is asked for there is but one ground, so its edge says it."""
        colours = self.colours
        edged = colours.raised == colours.background
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(colours.line), 1) if edged else Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.raised))
        painter.drawRoundedRect(place.adjusted(0.5, 0.5, -0.5, -0.5), tokens.RADIUS, tokens.RADIUS)

    def _paint_row(
        self,
        painter: QPainter,
        row: Row,
        rect: QRect,
        transcript: Transcript,
        hovered: bool,
        now: dt.datetime,
    ) -> None:
        colours = self.colours
        if hovered:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colours.hover))
            painter.drawRoundedRect(QRectF(rect), tokens.RADIUS, tokens.RADIUS)
        ratio = painter.device().devicePixelRatio()
        runs = row.step is not None and row.step.output is None and transcript.waits(row.step)
        middle = rect.top() + (rect.height() - glyphs.SMALL) // 2
        leading = int(Qt.AlignmentFlag.AlignLeading | Qt.AlignmentFlag.AlignVCenter)
        flags = leading | int(Qt.TextFlag.TextSingleLine)
        own = Qt.LayoutDirection.RightToLeft if self.rtl else Qt.LayoutDirection.LeftToRight

        def place(x: int, width: int) -> QRect:
            """From ``x`` on, as it is from left to right."""
            return QStyle.visualRect(own, rect, QRect(x, rect.top(), width, rect.height()))

        def draw(x: int, glyph: str, colour: str, *, turned: bool = False) -> None:
            made = glyphs.pixmap(glyph, colour, glyphs.SMALL, ratio)
            if turned:
                made = made.transformed(QTransform().scale(-1, 1))
            painter.drawPixmap(place(x, glyphs.SMALL).left(), middle, made)

        tint = colours.running if runs else colours.muted
        if row.glyph:
            draw(rect.left(), row.glyph, tint)
        right = rect.right() - tokens.HALF
        if row.fold:
            right -= glyphs.SMALL
            draw(right, f"chevron-{row.fold}", colours.muted, turned=self.rtl and row.fold == "right")
            right -= tokens.HALF
        painter.setLayoutDirection(own)
        told = _row_time(row, runs, now)
        if told:
            painter.setFont(self.small)
            painter.setPen(QColor(colours.running if runs else colours.muted))
            width = QFontMetrics(self.small).horizontalAdvance(told)
            painter.drawText(place(right - width, width), flags, told)
            right -= width + tokens.GRID
        x = rect.left() + (INDENT if row.glyph else 0)
        if row.name:
            painter.setFont(self.mono)
            painter.setPen(QColor(row.colour))
            metrics = QFontMetrics(self.mono)
            name = metrics.elidedText(row.name, Qt.TextElideMode.ElideMiddle, max(0, (right - x) // 2))
            width = metrics.horizontalAdvance(name)
            painter.drawText(place(x, width + 2), flags, name)
            x += width + tokens.GRID
        font = self.mono if row.name else self.body
        painter.setFont(font)
        painter.setPen(QColor(colours.muted if row.glyph else row.colour))
        where = Qt.TextElideMode.ElideMiddle if row.name else Qt.TextElideMode.ElideRight
        metrics = QFontMetrics(font)
        summary = metrics.elidedText(row.summary, where, max(0, right - x))
        if row.name:
            # Commands and paths are written from left to right everywhere; only their place follows the page.
            painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)
            width = min(metrics.horizontalAdvance(summary) + 2, max(0, right - x))
            painter.drawText(place(x, width), flags, summary)
        else:
            painter.drawText(place(x, max(0, right - x)), flags, summary)

    def _paint_document(
        self,
        painter: QPainter,
        piece: Piece,
        rect: QRect,
        clip: QRect,
        cursor: QTextCursor | None,
        needle: str,
    ) -> None:
        document = piece.document
        assert document is not None
        context = QAbstractTextDocumentLayout.PaintContext()
        palette = QPalette()
        palette.setColor(QPalette.ColorRole.Text, QColor(piece.colour or self.colours.text))
        context.palette = palette
        selections = []
        if needle:
            selections += self._found(document, needle)
        if cursor is not None and cursor.hasSelection():
            selection = QAbstractTextDocumentLayout.Selection()
            selection.cursor = cursor
            form = QTextCharFormat()
            form.setBackground(QColor(self.colours.accent))
            form.setForeground(QColor(self.colours.on_accent))
            selection.format = form
            selections.append(selection)
        if selections:
            context.selections = selections
        painter.save()
        painter.translate(rect.topLeft())
        visible = clip.translated(-rect.topLeft())
        painter.setClipRect(QRect(QPoint(0, 0), rect.size()).intersected(visible))
        context.clip = QRectF(visible)
        document.documentLayout().draw(painter, context)
        painter.restore()

    def _found(self, document: QTextDocument, needle: str) -> list[QAbstractTextDocumentLayout.Selection]:
        found: list[QAbstractTextDocumentLayout.Selection] = []
        form = QTextCharFormat()
        form.setBackground(QColor(self.colours.waiting))
        form.setForeground(QColor(self.colours.surface))
        cursor = document.find(needle)
        while not cursor.isNull() and len(found) < 200:
            selection = QAbstractTextDocumentLayout.Selection()
            selection.cursor = cursor
            selection.format = form
            found.append(selection)
            cursor = document.find(needle, cursor)
        return found


def _is_code(block: QTextBlock) -> bool:
    if not block.isValid():
        return False
    form = block.blockFormat()
    return form.hasProperty(QTextFormat.Property.BlockCodeFence) or form.nonBreakableLines()


def shortened(text: str, most_lines: int = SHOWN_LINES, most_chars: int = SHOWN_CHARS) -> tuple[str, int]:
    """The beginning of a long text, and how many lines are left out."""
    lines = text.rstrip("\n").split("\n")
    shown = "\n".join(lines[:most_lines])
    if len(shown) > most_chars:
        return shown[:most_chars], max(1, len(lines) - shown[:most_chars].count("\n") - 1)
    return shown, max(0, len(lines) - most_lines)


def _mirrored(rect: QRect, width: int) -> QRect:
    """Where it stands in a column that is read from right to left."""
    return QRect(width - rect.left() - rect.width(), rect.top(), rect.width(), rect.height())


def _code_grounds(document: QTextDocument, width: int) -> tuple[QRect, ...]:
    """What the blocks of code in a document stand on."""
    found: list[QRect] = []
    block, layout = document.begin(), document.documentLayout()
    while block.isValid():
        if _is_code(block):
            first, last = block, block
            while _is_code(last.next()):
                last = last.next()
            top = layout.blockBoundingRect(first).top() - CODE_ROOM
            bottom = layout.blockBoundingRect(last).bottom() + CODE_ROOM
            found.append(QRect(0, round(top), width, round(bottom - top)))
            block = last
        block = block.next()
    return tuple(found)


def _row_time(row: Row, runs: bool, now: dt.datetime) -> str:
    if row.step is None:
        return row.right
    if runs:
        return elapsed(row.step.began_at, now)
    took = seconds_between(row.step.began_at, row.step.ended_at)
    return span(took) if took is not None and took >= SLOW_S else ""


def _height(document: QTextDocument) -> int:
    return max(1, round(document.size().height()))
