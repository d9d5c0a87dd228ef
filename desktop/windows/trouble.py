"""The strip above the page while something is wrong between the window and the daemon, with one action."""

from __future__ import annotations

from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from desktop.commands import Command
from desktop.models.state import DesktopState, LinkPhase, Supervision, hangs
from desktop.text import _
from desktop.windows.bits import GlyphLabel, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.words import clock, cut, full_stop, link_sentence, updating

DETAIL_CHARS = 300


class TroubleStrip(QWidget):
    """Says it; not there while all is well."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._command: Command | None = None
        self._glyph = GlyphLabel()
        self._sentence = label(strong=True, wrap=True)
        self._detail = label(wrap=True)
        self.act: QPushButton = quiet_button("", self._on_act)
        self.log: QPushButton = quiet_button(_("Show the log"), lambda: context.do(Command("show_logs")))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self._sentence)
        words.addWidget(self._detail)
        row = QHBoxLayout(self)
        row.setContentsMargins(24, 12, 24, 12)
        row.setSpacing(12)
        row.addWidget(self._glyph)
        row.addLayout(words, 1)
        row.addWidget(self.log)
        row.addWidget(self.act)
        self.hide()
        # Methods and no lambdas: Qt drops them when this strip is gone.
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._refresh)
        self._refresh()

    def _on_state(self, _before: DesktopState, state: DesktopState) -> None:
        self.show_state(state)

    def _refresh(self) -> None:
        self.show_state(self._context.link.state)

    def show_state(self, state: DesktopState) -> None:
        """Say what is wrong."""
        sentence = link_sentence(state)
        calm = state.link is LinkPhase.CONNECTING and state.supervision is Supervision.NONE
        self.setVisible(bool(sentence) and not calm)
        if not sentence:
            return
        colours = self._context.colours
        grave = state.supervision in (Supervision.GAVE_UP, Supervision.FAILED)
        colour = colours.failed if grave else colours.waiting
        self._glyph.show_glyph("triangle-alert" if grave else "circle-alert", colour, sentence)
        self._sentence.setText(full_stop(sentence))
        self._detail.setText(detail_sentence(state))
        self._detail.setVisible(bool(self._detail.text()))
        tint(self._detail, colours.muted)
        found = action_of(state)
        self.act.setVisible(found is not None)
        self.log.setVisible(grave)
        if found is not None:
            text, self._command = found
            self.act.setText(text)

    def _on_act(self) -> None:
        if self._command is not None:
            self._context.do(self._command)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(self._context.colours.raised))
        painter.end()


def action_of(state: DesktopState) -> tuple[str, Command] | None:
    """The one thing to do about a daemon that cannot be reached."""
    if updating(state) and state.supervision not in (Supervision.GAVE_UP, Supervision.FAILED):
        return None
    match state.link:
        case _ if hangs(state):
            return _("Restart it"), Command("restart_daemon")
        case LinkPhase.TOO_OLD:
            return _("Restart it"), Command("restart_daemon")
        case LinkPhase.ABSENT if state.supervision not in (Supervision.STARTING, Supervision.WAITING):
            return _("Start it"), Command("start_daemon")
        case LinkPhase.TOO_NEW:
            return _("Restart this window"), Command("restart_desktop")
        case LinkPhase.FOREIGN:
            return _("Look again"), Command("reconnect")
        case _:
            return None


def detail_sentence(state: DesktopState) -> str:
    """What happens next, and what goes on."""
    parts = []
    if hangs(state) or state.link is LinkPhase.TOO_OLD:
        parts.append(_("Tasks go on while it is restarted."))
    elif state.link is LinkPhase.TOO_NEW:
        parts.append(_("Ostler was updated meanwhile. Tasks go on."))
    elif state.link is LinkPhase.FOREIGN:
        parts.append(_("It has taken the place that belongs to Ostler. End it, and Ostler goes on."))
    elif state.link is LinkPhase.ABSENT:
        parts.append(_("What runs goes on by itself."))
    if state.next_try_at:
        parts.append(_("Next try at {time}.", time=clock(state.next_try_at)))
    if state.supervision in (Supervision.GAVE_UP, Supervision.FAILED) and state.said:
        parts.append(_("Its last words: {words}", words=cut(state.said, DETAIL_CHARS)))
    return " ".join(parts)
