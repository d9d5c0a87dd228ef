"""One line about what today cost: quiet while all is well, with its one action at the limit."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QWidget

from daemon_core.control.views import SpendView
from desktop.commands import Command
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.windows.bits import GlyphLabel, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.wording import dollars
from desktop.words import clock


class SpendStrip(QWidget):
    """Not there while there is neither a limit nor anything known to be spent."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._glyph = GlyphLabel()
        self._text = label(wrap=True)
        self.go_on = quiet_button(_("Go on for today"), lambda: context.do(Command("spend_continue")))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self._glyph, 0, Qt.AlignmentFlag.AlignVCenter)
        row.addWidget(self._text, 1)
        row.addWidget(self.go_on)
        self.hide()

    def show_state(self, state: DesktopState) -> None:
        """Say how the day stands."""
        spend = state.status.spend if state.connected and state.status is not None else None
        text = spend_sentence(spend) if spend is not None else ""
        self.setVisible(bool(text))
        if spend is None or not text:
            return
        colours = self._context.colours
        near = spend.limit > 0 and spend.spent >= spend.warn_at and not spend.allowed
        colour = colours.waiting if near else colours.muted
        self._glyph.show_glyph("circle-pause" if spend.held else "coins", colour, "")
        self._text.setText(text)
        tint(self._text, colour)
        self.go_on.setVisible(spend.held)


def spend_sentence(spend: SpendView) -> str:
    """How the day stands; empty where there is nothing to say."""
    if not spend.limit and not spend.spent:
        return ""
    spent = dollars(spend.spent)
    if spend.unknown_tasks:
        spent = _("at least {amount}", amount=spent)
    if spend.held:
        return _(
            "The limit of {limit} for today is reached. New tasks wait until {time}; what runs goes on.",
            limit=dollars(spend.limit),
            time=clock(spend.resets_at),
        )
    if spend.limit:
        told = _("{spent} of {limit} spent today", spent=spent, limit=dollars(spend.limit))
    else:
        told = _("{spent} spent today", spent=spent)
    if spend.limit and spend.allowed and spend.spent >= spend.limit:
        told = _("{told}; you let today go on", told=told)
    if spend.unknown_tasks:
        unknown = n_(
            "the cost of {n} task is not known", "the cost of {n} tasks is not known", spend.unknown_tasks
        )
        told = f"{told} · {unknown}"
    return told
