"""One resident: how it stands and why, what it uses, its log; started, stopped and switched from here."""

from __future__ import annotations

import datetime as dt
import os
from typing import Final
from urllib.parse import quote

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import QDesktopServices, QHideEvent, QShowEvent
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.control.resident_views import ResidentRestart, ResidentStart
from daemon_core.control.views import ResidentView
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.daemon.stats import StatsFeed
from desktop.models.jobs import AT_WORK
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.windows.bits import (
    Elided,
    GlyphButton,
    GlyphLabel,
    hairline,
    label,
    quiet_button,
    refusal_label,
    tint,
)
from desktop.windows.context import Context
from desktop.windows.job_detail import FollowedOutput
from desktop.windows.job_words import (
    job_refusal,
    resident_facts,
    resident_glyph,
    resident_state,
    resident_why,
)
from desktop.windows.sparkline import Sparkline

TICK_MS: Final = 1_000


class ResidentDetail(QWidget):
    """The detail."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._stats = StatsFeed.of(context.link)
        self._stats.came.connect(self._show_stats)
        self.resident: ResidentView | None = None
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._show_facts)
        self._title = Elided(size=tokens.TITLE, strong=True)
        self._facts = Elided()
        self._glyph = GlyphLabel()
        self._about = label(wrap=True)
        self._place = Elided(middle=True)
        self._place.setFont(mono_font())
        self._why = label(wrap=True)
        self._told = refusal_label()
        self._told.hide()
        self.line = Sparkline(context)
        self._processes = label()
        self.start = quiet_button(_("Start"), lambda: self._post("start", ResidentStart()))
        self.stop = quiet_button(_("Stop"), lambda: self._post("stop"))
        self.restart = quiet_button(_("Start again"), lambda: self._post("restart", ResidentRestart()))
        self.file = GlyphButton("file-text", _("Open its file"), context.colours)
        self.file.clicked.connect(lambda _checked=False: self._open_file())
        self.enabled = QCheckBox(_("Start with Ostler"))
        self.enabled.clicked.connect(lambda on: self._post("enable" if on else "disable"))
        self.output = FollowedOutput(context)
        self.output.feed.failed.connect(self._on_failed)
        self._build()
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def _build(self) -> None:
        first = QHBoxLayout()
        first.setSpacing(tokens.GRID)
        first.addWidget(self._title, 1)
        for widget in (self.file, self.restart, self.stop, self.start):
            first.addWidget(widget)
        second = QHBoxLayout()
        second.setSpacing(tokens.GRID)
        second.addWidget(self._glyph)
        second.addWidget(self._facts, 1)
        second.addWidget(self._processes)
        second.addWidget(self.line)
        third = QHBoxLayout()
        third.addWidget(self._place, 1)
        third.addWidget(self.enabled)
        head = QVBoxLayout()
        head.setContentsMargins(24, tokens.GRID * 2, 24, tokens.GRID)
        head.setSpacing(tokens.HALF)
        head.addLayout(first)
        head.addLayout(second)
        head.addWidget(self._about)
        head.addLayout(third)
        head.addWidget(self._why)
        head.addWidget(self._told)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(hairline())
        column.addWidget(self.output, 1)

    def show_resident(self, resident: ResidentView) -> None:
        """Show this one, as it is now."""
        other = self.resident is None or self.resident.id != resident.id
        self.resident = resident
        if other:
            self.say("")
            self._open_log()
        at_work = resident.state in AT_WORK
        usable = resident.state != "invalid" and bool(resident.file)
        self._title.set_text(
            " ".join(part for part in (resident.name or resident.id, resident.version) if part)
        )
        self._about.setText(resident.description)
        self._about.setVisible(bool(resident.description))
        self._place.set_text(resident.file or resident.directory, self._context.colours.muted)
        self.file.setVisible(bool(resident.file))
        self.start.setVisible(usable and not at_work)
        self.stop.setVisible(at_work)
        self.stop.setEnabled(resident.state != "stopping")
        self.restart.setVisible(usable and resident.state == "running")
        self.enabled.setVisible(usable)
        self.enabled.setChecked(resident.enabled)
        why = resident_why(resident)
        grave = resident.state in ("gave_up", "invalid")
        tint(self._why, self._context.colours.failed if grave else self._context.colours.muted)
        self._why.setText(why)
        self._why.setVisible(bool(why))
        self._show_facts()
        self._show_stats()
        if at_work and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def say(self, sentence: str) -> None:
        """Why something was not done; empty: nothing is wrong."""
        self._told.setText(sentence)
        self._told.setVisible(bool(sentence))

    def _open_log(self) -> None:
        resident = self.resident
        if resident is None:
            return
        if resident.state == "invalid" or not self._context.link.state.connected:
            self.output.feed.close()
        else:
            self.output.feed.open_log(resident.id)
        message = (
            _("It has no log: it was started elsewhere.") if resident.adopted else _("Its log is empty.")
        )
        if resident.state == "invalid":
            message = _(
                "It cannot be started as long as its file has a mistake. Save the file, and it is read."
            )
        self.output.begin(message)

    def _show_facts(self) -> None:
        resident = self.resident
        if resident is not None:
            colours = self._context.colours
            self._glyph.show_glyph(*resident_glyph(resident, colours), resident_state(resident))
            self._facts.set_text(resident_facts(resident, dt.datetime.now(dt.UTC)), colours.muted)

    def _show_stats(self) -> None:
        series = self._stats.series("resident", self.resident.id) if self.resident is not None else None
        self.line.show_series(series)
        processes = series.processes if series is not None else 0
        self._processes.setText(n_("{n} process", "{n} processes", processes))
        self._processes.setVisible(processes > 1)

    def _open_file(self) -> None:
        if self.resident is not None and os.path.exists(self.resident.file):
            QDesktopServices.openUrl(QUrl.fromLocalFile(self.resident.file))

    def _post(self, what: str, body: ResidentStart | ResidentRestart | None = None) -> None:
        resident = self.resident
        if resident is None:
            return
        buttons = (self.start, self.stop, self.restart, self.enabled)
        for button in buttons:
            button.setEnabled(False)

        def again() -> None:
            for button in buttons:
                button.setEnabled(True)

        def done(now: ResidentView) -> None:
            again()
            if self.resident is not None and self.resident.id == now.id:
                self.say("")
                self.show_resident(now)

        def failed(failure: Failure) -> None:
            again()
            self.say(job_refusal(failure))
            if self.resident is not None:
                self.show_resident(self.resident)

        path = f"/v1/residents/{quote(resident.id, safe='')}/{what}"
        self._context.link.call(
            ResidentView, "POST", path, body, done=done, failed=failed, timeout_ms=WORK_TIMEOUT_MS
        )

    def _on_failed(self, failure: Failure) -> None:
        self.say(job_refusal(failure))

    def _recolour(self) -> None:
        colours = self._context.colours
        tint(self._about, colours.text)
        tint(self._told, colours.failed)
        tint(self._processes, colours.muted)
        self.file.recolour(colours)
        self.output.recolour()
        if self.resident is not None:
            self.show_resident(self.resident)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._stats.watch(self)
        if self.resident is not None:
            self.output.feed.resume()
            self.show_resident(self.resident)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._stats.leave(self)
        self._tick.stop()
        self.output.feed.pause()
