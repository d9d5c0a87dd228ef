"""How Ostler stands with its updates, on the page "Health": one sentence, what is new, what can be done, and
what became of earlier updates."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QAccessible, QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLayout, QPushButton, QVBoxLayout, QWidget

from daemon_core.control.views import UpdateResult, UpdateView
from desktop.commands import Command
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.updates import words
from desktop.windows.bits import GlyphLabel, label, primary_button, quiet_button, tint
from desktop.windows.context import Context
from desktop.words import UPDATE_AWAY, full_stop

SHOWN_NOTES: Final = 8
SHOWN_RESULTS: Final = 3
BAR_WIDTH: Final = 360
_GLYPHS: Final = {"committed": "circle-check", "rolled_back": "rotate-ccw", "failed": "circle-x"}


class UpdateSection(QWidget):
    """The section. The page tells it to show; it asks for nothing by itself."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: object = None
        self.all_results = False
        self.title = label(_("Updates"), size=tokens.TITLE, strong=True)
        self.sentence = label(wrap=True)
        self.detail = label(wrap=True)
        self.bar = Bar(context)
        self.restart: QPushButton = primary_button(_("Restart now"), self._on_restart)
        self.later: QPushButton = quiet_button(_("Remind me in a week"), self._on_later)
        self.check: QPushButton = quiet_button(_("Look now"), lambda: context.do(Command("update_check")))
        self.back: QPushButton = quiet_button("", lambda: context.do(Command("update_rollback")))
        self.more: QPushButton = quiet_button("", self._on_more)
        self.back.hide()
        self.more.hide()
        self.notes = QVBoxLayout()
        self.notes.setSpacing(tokens.HALF)
        self.results = QVBoxLayout()
        self.results.setSpacing(tokens.GRID)
        buttons = QHBoxLayout()
        buttons.setSpacing(tokens.GRID)
        for button in (self.restart, self.later, self.check, self.back):
            buttons.addWidget(button)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(tokens.GRID)
        column.addWidget(self.title)
        column.addWidget(self.sentence)
        column.addWidget(self.detail)
        column.addWidget(self.bar)
        column.addSpacing(tokens.HALF)
        column.addLayout(self.notes)
        column.addSpacing(tokens.HALF)
        column.addLayout(buttons)
        column.addSpacing(tokens.GRID)
        column.addLayout(self.results)
        column.addWidget(self.more, 0, Qt.AlignmentFlag.AlignLeading)

    def show_state(self, state: DesktopState) -> None:
        """Show this; nothing where the daemon tells nothing of updates."""
        update = state.update
        self.setVisible(update is not None)
        if update is None:
            return
        self.sentence.setText(words.sentence(update))
        tint(self.detail, self._context.colours.muted)
        self.detail.setText(words.detail(update))
        self.detail.setVisible(bool(self.detail.text()))
        self._show_progress(update)
        away = update.stage in UPDATE_AWAY
        settled = state.connected and not away
        version = update.version.version if update.version is not None else ""
        # Where nothing is looked for by itself, nothing is fetched by itself either: then this does it all.
        available = update.stage == "available"
        self.restart.setText(_("Fetch it and restart") if available else _("Restart now"))
        self.restart.setVisible(settled and (update.ready or available))
        self.restart.setAccessibleName(_("Restart now to update to {version}", version=version))
        self.later.setVisible(settled and update.ready and update.waits_for != "reminder")
        calm = settled and update.possible and not update.ready and update.stage != "downloading"
        self.check.setVisible(calm)
        self.check.setEnabled(update.stage != "checking")
        self.back.setVisible(calm and bool(update.previous))
        self.back.setText(_("Go back to {version}", version=update.previous))
        key = (update.version, update.stage, update.history, self.all_results, self._context.colours.muted)
        if key != self._shown:
            self._shown = key
            self._fill_notes(update)
            self._fill_results(update.history)

    def recolour(self) -> None:
        """The look is another one; the page shows the state after that."""
        self._shown = None

    # --- parts -------------------------------------------------------------------------------------

    def _show_progress(self, update: UpdateView) -> None:
        share = words.share(update)
        self.bar.setVisible(share is not None)
        if share is not None:
            self.bar.show_share(share)

    def _fill_notes(self, update: UpdateView) -> None:
        _clear(self.notes)
        wanted = update.ready or update.stage in ("committed", "downloading", "available", *UPDATE_AWAY)
        lines = words.notes(update) if wanted else ()
        if lines:
            self.notes.addWidget(label(_("What is new"), strong=True))
        for line in lines[:SHOWN_NOTES]:
            row = QHBoxLayout()
            row.setSpacing(tokens.GRID)
            row.addWidget(label("•"), 0, Qt.AlignmentFlag.AlignTop)
            row.addWidget(label(line, wrap=True), 1)
            self.notes.addLayout(row)
        if len(lines) > SHOWN_NOTES:
            rest = len(lines) - SHOWN_NOTES
            self.notes.addWidget(self._muted(n_("and {n} more", "and {n} more", rest)))

    def _fill_results(self, results: list[UpdateResult]) -> None:
        _clear(self.results)
        shown = results if self.all_results else results[:SHOWN_RESULTS]
        if shown:
            self.results.addWidget(label(_("Earlier updates"), strong=True))
        for result in shown:
            self.results.addLayout(self._result(result))
        hidden = len(results) - len(shown)
        self.more.setVisible(hidden > 0)
        self.more.setText(n_("Show {n} more", "Show {n} more", hidden))

    def _result(self, result: UpdateResult) -> QHBoxLayout:
        colours = self._context.colours
        colour = {"committed": colours.done, "rolled_back": colours.waiting}.get(
            result.result, colours.failed
        )
        title = words.result_title(result)
        glyph = GlyphLabel()
        glyph.show_glyph(_GLYPHS[result.result], colour, "")
        texts = QVBoxLayout()
        texts.setSpacing(2)
        texts.addWidget(label(full_stop(title), wrap=True))
        texts.addWidget(self._muted(words.result_detail(result)))
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(texts, 1)
        return row

    def _muted(self, text: str) -> QWidget:
        made = label(text, wrap=True)
        tint(made, self._context.colours.muted)
        return made

    # --- what is clicked ---------------------------------------------------------------------------

    def _version(self) -> str:
        update = self._context.link.state.update
        return update.version.version if update is not None and update.version is not None else ""

    def _on_restart(self) -> None:
        self._context.do(Command("update", self._version()))

    def _on_later(self) -> None:
        self._context.do(Command("update_later", self._version()))

    def _on_more(self) -> None:
        self.all_results = True
        self.show_state(self._context.link.state)


class Bar(QWidget):
    """How far something is: a thin line that moves when there is news, and never by itself."""

    access_role = QAccessible.Role.ProgressBar

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.share = 0.0
        self._colour = ""
        self.setFixedHeight(tokens.HALF)
        self.setMaximumWidth(BAR_WIDTH)

    def show_share(self, share: float, name: str = "", colour: str = "") -> None:
        """Show this, from 0 to 1; ``name`` says what of, the update where nothing else is given."""
        if (share, colour) != (self.share, self._colour):
            self.share, self._colour = share, colour
            self.update()
        self.setAccessibleName(name or _("{n} percent of the update are done", n=round(share * 100)))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        colours = self._context.colours
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        whole = QRectF(self.rect())
        round_px = whole.height() / 2
        painter.setBrush(QColor(colours.line))
        painter.drawRoundedRect(whole, round_px, round_px)
        done = QRectF(whole)
        done.setWidth(max(whole.height(), whole.width() * self.share))
        if self.layoutDirection() is Qt.LayoutDirection.RightToLeft:
            done.moveRight(whole.right())
        painter.setBrush(QColor(self._colour or colours.accent))
        painter.drawRoundedRect(done, round_px, round_px)
        painter.end()


def _clear(layout: QLayout) -> None:
    while (item := layout.takeAt(0)) is not None:
        inner = item.layout()
        if inner is not None:
            _clear(inner)
        if (widget := item.widget()) is not None:
            widget.hide()
            widget.deleteLater()
