"""What spending and updates came to last: a sentence each above their settings, and the one thing to do."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.control.views import SpendView
from desktop.commands import Command
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.updates.words import detail, ready, sentence
from desktop.windows.asking import ask
from desktop.windows.bits import label, quiet_button, refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.settings_words import refusal_words
from desktop.windows.wording import dollars
from desktop.words import UPDATE_AWAY, clock


class _Panel(QWidget):
    """Sentences that follow the state, and a button."""

    def __init__(self, context: Context, button: str) -> None:
        super().__init__()
        self._context = context
        self.sentence = label(wrap=True)
        self.detail = label(wrap=True)
        self.error = refusal_label()
        self.error.hide()
        self.act = quiet_button(button, self._on_act)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        column.setSpacing(tokens.HALF)
        column.addWidget(self.sentence)
        column.addWidget(self.detail)
        column.addWidget(self.error)
        column.addSpacing(tokens.HALF)
        column.addWidget(self.act, 0, Qt.AlignmentFlag.AlignLeft)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self._show_state()

    def _show_state(self) -> None:
        raise NotImplementedError

    def _on_act(self) -> None:
        raise NotImplementedError

    def _call(self, path: str) -> None:
        self.error.hide()
        self.act.setEnabled(False)
        ask(
            self,
            self._context.link,
            object,
            "POST",
            path,
            timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_done,
            failed=self._on_refused,
        )

    def _on_done(self, _answer: object) -> None:
        self.act.setEnabled(True)

    def _on_refused(self, failure: Failure) -> None:
        self.act.setEnabled(True)
        self.error.setText(refusal_words(failure))
        self.error.show()

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        if self.isVisible():
            self._show_state()

    def _say(self, sentence: str, detail: str = "") -> None:
        self.sentence.setText(sentence)
        self.sentence.setVisible(bool(sentence))
        self.detail.setText(detail)
        self.detail.setVisible(bool(detail))

    def _recolour(self) -> None:
        tint(self.detail, self._context.colours.muted)
        tint(self.error, self._context.colours.failed)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show_state()


class SpendPanel(_Panel):
    """What today cost, and the word that it may go on."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, _("Go on today all the same"))

    def _show_state(self) -> None:
        status = self._context.link.state.status
        spend = status.spend if status is not None else None
        if spend is not None:
            self._say(*spend_text(spend))
        else:
            self._say("")
        self.act.setVisible(spend is not None and spend.held)

    def _on_act(self) -> None:
        self._call("/v1/spend/continue")


class UpdatePanel(_Panel):
    """Which version this is, what was found last, and a look now."""

    def __init__(self, context: Context) -> None:
        self._ready = ""
        super().__init__(context, _("Look for a newer version now"))

    def _show_state(self) -> None:
        state = self._context.link.state
        if state.update is not None:
            self._say(sentence(state.update), detail(state.update))
        else:
            self._say("")
        update = state.update
        away = update is not None and update.stage in (*UPDATE_AWAY, "checking", "downloading")
        self.act.setVisible(update is not None and update.possible and not away)
        self._ready = ready(state)
        self.act.setText(_("Restart now") if self._ready else _("Look for a newer version now"))

    def _on_act(self) -> None:
        if self._ready:
            self._context.do(Command("update", self._ready))
        else:
            self._call("/v1/update/check")


class SnoozePanel(QWidget):
    """Whether notifications wait now, and for how long they are to."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.sentence = label(wrap=True)
        self.hour = quiet_button(_("None for an hour"), lambda: self._snooze("1h"))
        self.day = quiet_button(_("None until tomorrow"), lambda: self._snooze("tomorrow"))
        self.off = quiet_button(_("Show them again"), lambda: self._snooze("off"))
        buttons = QHBoxLayout()
        buttons.setSpacing(tokens.GRID)
        for button in (self.hour, self.day, self.off):
            buttons.addWidget(button)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        column.setSpacing(tokens.GRID)
        column.addWidget(self.sentence)
        column.addLayout(buttons)
        if context.messages is not None:
            context.messages.changed.connect(self._show_state)
        self._show_state()

    def _show_state(self) -> None:
        messages = self._context.messages
        if messages is None:
            self.hide()
            return
        until = messages.snoozed_until()
        if until:
            self.sentence.setText(_("No notifications until {time}.", time=clock(until)))
        elif messages.silenced():
            self.sentence.setText(_("Your desktop is on “do not disturb”."))
        else:
            self.sentence.setText("")
        self.sentence.setVisible(bool(self.sentence.text()))
        for button, shown in ((self.hour, not until), (self.day, not until), (self.off, bool(until))):
            button.setVisible(shown)

    def _snooze(self, how: str) -> None:
        self._context.do(Command("snooze", detail=how))

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show_state()


def spend_text(spend: SpendView) -> tuple[str, str]:
    """(what today cost, what comes of it)."""
    spent = dollars(spend.spent)
    if spend.limit:
        sentence = _("Today: {spent} of {limit}.", spent=spent, limit=dollars(spend.limit))
    else:
        sentence = _("Today: {spent}. There is no limit.", spent=spent)
    parts = []
    if spend.held:
        parts.append(
            _("The limit is reached: no tasks are taken before {time}.", time=clock(spend.resets_at))
            if spend.resets_at
            else _("The limit is reached: no tasks are taken until midnight.")
        )
    elif spend.allowed:
        parts.append(_("You let today go on beyond its limit."))
    if spend.unknown_tasks:
        parts.append(
            n_(
                "It is at least that much: of {n} task the cost is not known.",
                "It is at least that much: of {n} tasks the cost is not known.",
                spend.unknown_tasks,
            )
        )
    return sentence, " ".join(parts)
