"""What clean-up did last, how much room is used, and a round now, after it was said what would go."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.control.views import CleanRequest, CleanRound, DiskReport
from desktop.daemon.http import WORK_TIMEOUT_MS, Call, Failure
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.updates.section import Bar
from desktop.windows.asking import ask
from desktop.windows.bits import label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.settings_words import refusal_words
from desktop.words import ago, decimal


class DiskPanel(QWidget):
    """Two sentences, how full the disk is, and a button."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._measuring: Call[DiskReport] | None = None
        self.used = label(_("Being measured …"), wrap=True)
        self.last = label(wrap=True)
        self.last.hide()
        self.meter = Bar(context)
        self.meter.hide()
        self._report: DiskReport | None = None
        self.offer = label(wrap=True)
        self.look = quiet_button(_("Clean up now"), self.ask)
        self.clean = quiet_button(_("Remove it"), self.do)
        self.keep = quiet_button(_("Keep it"), self._forget)
        buttons = QHBoxLayout()
        buttons.setSpacing(tokens.GRID)
        for button in (self.look, self.clean, self.keep):
            buttons.addWidget(button)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID * 2)
        column.setSpacing(tokens.GRID)
        column.addWidget(self.used)
        column.addWidget(self.meter)
        column.addWidget(self.last)
        column.addWidget(self.offer)
        column.addLayout(buttons)
        self._forget()
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def show_report(self, report: DiskReport) -> None:
        """Say what is used, and what was done last."""
        self._stop_measuring()
        self._report = report
        self._show_meter(report)
        free = min((space.free for space in report.spaces), default=0)
        used = size_text(report.total_bytes)
        self.used.setText(_("Ostler uses {used}; {free} are free.", used=used, free=size_text(free)))
        self.last.setText(last_text(report.last_clean))
        self.last.show()

    def _show_meter(self, report: DiskReport) -> None:
        """How full the fullest disk is that Ostler writes to."""
        space = max(report.spaces, key=lambda each: 1 - each.free / max(1, each.total), default=None)
        self.meter.setVisible(space is not None and space.total > 0)
        if space is not None and space.total > 0:
            share = 1 - space.free / space.total
            colours = self._context.colours
            full = _("{n} percent of the disk are in use", n=round(share * 100))
            self.meter.show_share(share, full, colours.failed if space.low else colours.neutral)
            self.meter.setToolTip(full)

    def show_offer(self, found: CleanRound) -> None:
        """Say what a round would take away."""
        if not found.items and not found.tasks and not found.runs:
            self.offer.setText(_("There is nothing that may go now."))
        else:
            self.offer.setText(_("This would go: {what}.", what=round_text(found)))
            self.clean.show()
            self.keep.show()
            self.look.hide()
            self.clean.setFocus(Qt.FocusReason.OtherFocusReason)
        self.offer.show()
        self.look.setEnabled(True)

    def ask(self) -> None:
        """Find out what would go."""
        self.look.setEnabled(False)
        self._call(CleanRequest(dry_run=True), self.show_offer)

    def do(self) -> None:
        """Remove it."""
        self.clean.setEnabled(False)
        self._call(CleanRequest(), lambda _round: self._done())

    def _done(self) -> None:
        self._forget()
        self.look.setFocus(Qt.FocusReason.OtherFocusReason)
        self.measure()

    def measure(self) -> None:
        """Ask how much is used; big directories take their time."""
        if self._measuring is not None or not self._context.link.state.connected:
            return
        self._measuring = ask(self, self._context.link,
            DiskReport, "GET", "/v1/disk", timeout_ms=WORK_TIMEOUT_MS,
            done=self.show_report, failed=self._on_unmeasured,
        )  # fmt: skip

    def _on_unmeasured(self, failure: Failure) -> None:
        self._measuring = None
        self.used.setText(_("It could not be measured."))

    def _stop_measuring(self) -> None:
        call, self._measuring = self._measuring, None
        if call is not None:
            call.cancel()

    def _call(self, request: CleanRequest, done: Callable[[CleanRound], None]) -> None:
        ask(self, self._context.link,
            CleanRound, "POST", "/v1/disk/clean", request, timeout_ms=WORK_TIMEOUT_MS,
            done=done, failed=self._on_refused,
        )  # fmt: skip

    def _on_refused(self, failure: Failure) -> None:
        self._forget()
        self.offer.setText(refusal_words(failure))
        self.offer.show()

    def _forget(self) -> None:
        self.offer.hide()
        self.clean.hide()
        self.keep.hide()
        self.look.show()
        self.look.setEnabled(True)
        self.clean.setEnabled(True)

    def _recolour(self) -> None:
        tint(self.last, self._context.colours.muted)
        if self._report is not None:
            self._show_meter(self._report)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self.measure()


def last_text(done: CleanRound | None) -> str:
    """What the last round did, and when."""
    if done is None or not done.at:
        return _("Clean-up has had nothing to do so far.")
    when = ago(done.at)
    if not done.items and not done.tasks and not done.runs:
        return _("Last clean-up: {when}. Nothing had to go.", when=when)
    return _("Last clean-up: {when}. Gone: {what}.", when=when, what=round_text(done))


def round_text(found: CleanRound) -> str:
    """What went, or would."""
    parts = [
        n_("{n} directory", "{n} directories", len(found.items)) if found.items else "",
        n_("{n} task", "{n} tasks", found.tasks) if found.tasks else "",
        n_("the raw output of {n} run", "the raw output of {n} runs", found.runs) if found.runs else "",
        size_text(found.freed_bytes) if found.freed_bytes else "",
    ]
    return ", ".join(part for part in parts if part)


def size_text(count: int) -> str:
    """ "812 MB", "4.2 GB"."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{decimal(amount, 1 if unit == 'GB' and amount < 100 else 0)} {unit}"
        amount /= 1000
    return f"{decimal(amount, 1)} TB"
