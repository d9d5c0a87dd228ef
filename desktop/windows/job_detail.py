"""One job: how it stands, what it wrote, what it asks; answered, spoken to and ended from here."""

from __future__ import annotations

import datetime as dt
from typing import Final
from urllib.parse import quote

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QColor, QHideEvent, QPainter, QPaintEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from daemon_core.control.job_views import JobInput
from daemon_core.control.views import JobView
from desktop.commands import Command
from desktop.daemon.http import Failure
from desktop.daemon.outputs import OutputFeed
from desktop.models.jobs import job_name
from desktop.text import _
from desktop.theme import glyphs, tokens
from desktop.theme.palette import mono_font
from desktop.windows.bits import (
    Choice,
    Elided,
    GlyphButton,
    GlyphLabel,
    hairline,
    label,
    primary_button,
    quiet_button,
    refusal_label,
    tint,
)
from desktop.windows.context import Context
from desktop.windows.job_words import job_facts, job_glyph, job_refusal, job_state
from desktop.windows.output_view import OutputView

TICK_MS: Final = 1_000
QUESTION_LINES: Final = 6


class Raised(QWidget):
    """A surface that stands out a little."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self._context.colours.raised))
        painter.drawRoundedRect(self.rect(), tokens.RADIUS, tokens.RADIUS)
        painter.end()


class FollowedOutput(QWidget):
    """Output with a feed of its own, and the way back to its end."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.feed = OutputFeed(context.link.http, self)
        self.view = OutputView(context.colours)
        self.view.show_output(self.feed.output)
        self.feed.replaced.connect(self._on_replaced)
        self.feed.grown.connect(self.view.grown)
        self.feed.went.connect(self.view.went)
        self.view.top_reached.connect(self.feed.ask_earlier)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.view)
        self.latest = QPushButton(_("Latest"), self.view)
        self.latest.setCursor(Qt.CursorShape.PointingHandCursor)
        self.latest.clicked.connect(lambda _checked=False: self.view.follow())
        self.latest.hide()
        self.view.following_changed.connect(lambda _on: self._place())
        self.recolour()

    def begin(self, message: str) -> None:
        """Something else was opened: show it from its end; ``message`` stands there while it is empty."""
        self.view.show_output(self.feed.output, message)

    def recolour(self) -> None:
        """The look is another one."""
        self.view.recolour(self._context.colours)
        self.latest.setIcon(glyphs.icon("arrow-down", self._context.colours.muted))

    def _on_replaced(self) -> None:
        self.view.show_output(self.feed.output, self.view.message)

    def _place(self) -> None:
        self.latest.setVisible(not self.view.following)
        self.latest.adjustSize()
        left = (self.view.viewport().width() - self.latest.width()) // 2
        self.latest.move(left, self.view.height() - tokens.GRID * 2 - self.latest.height())
        self.latest.raise_()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._place()


class JobDetail(QWidget):
    """The detail."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.job: JobView | None = None
        self._stream = "stdout"
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._show_facts)
        colours = context.colours
        self._title = Elided(size=tokens.TITLE, strong=True)
        self._facts = Elided()
        self._place = Elided(middle=True)
        self._glyph = GlyphLabel()
        self._task = GlyphButton("bot", _("Open the task that started it"), colours)
        self._task.clicked.connect(lambda _checked=False: self._open_task())
        self.kill = quiet_button(_("End it"), self._kill)
        self._which = Choice(_("Which output"), lambda: context.colours)
        self._which.addItem(_("Output"), "stdout")
        self._which.addItem(_("Errors"), "stderr")
        self._which.activated.connect(lambda _row: self._on_stream())
        self.output = FollowedOutput(context)
        self.output.feed.grown.connect(lambda _first: self._show_question())
        self.output.feed.replaced.connect(self._show_question)
        self.output.feed.failed.connect(self._on_failed)
        self.output.feed.ended.connect(self._on_ended)
        self._build()
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def _build(self) -> None:
        first = QHBoxLayout()
        first.setSpacing(tokens.GRID)
        first.addWidget(self._title, 1)
        first.addWidget(self._which)
        first.addWidget(self._task)
        first.addWidget(self.kill)
        second = QHBoxLayout()
        second.setSpacing(tokens.GRID)
        second.addWidget(self._glyph)
        second.addWidget(self._facts, 1)
        self._told = refusal_label()
        self._told.hide()
        head = QVBoxLayout()
        head.setContentsMargins(24, tokens.GRID * 2, 24, tokens.GRID)
        head.setSpacing(tokens.HALF)
        head.addLayout(first)
        head.addLayout(second)
        head.addWidget(self._place)
        head.addWidget(self._told)
        self.question = Raised(self._context)
        self._question_head = label(_("It waits for an answer"), strong=True)
        self._question_text = label(wrap=True)
        self._question_text.setFont(mono_font())
        asked = QVBoxLayout(self.question)
        asked.setContentsMargins(12, tokens.GRID, 12, tokens.GRID)
        asked.setSpacing(tokens.HALF)
        asked.addWidget(self._question_head)
        asked.addWidget(self._question_text)
        self.question.hide()
        self.input = QLineEdit()
        self.input.setFont(mono_font())
        self.input.setPlaceholderText(_("Say something to it"))
        self.input.setAccessibleName(_("Say something to it"))
        self.input.returnPressed.connect(self._say)
        self.send = primary_button(_("Send"), self._say)
        self.close_input = quiet_button(_("End of input"), lambda: self._post_input(JobInput(eof=True)))
        self.close_input.setToolTip(_("Tell it that nothing more follows"))
        self._talk = QWidget()
        row = QHBoxLayout(self._talk)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(tokens.GRID)
        row.addWidget(self.input, 1)
        row.addWidget(self.close_input)
        row.addWidget(self.send)
        foot = QVBoxLayout()
        foot.setContentsMargins(24, 12, 24, 12)
        foot.setSpacing(tokens.GRID)
        foot.addWidget(self.question)
        foot.addWidget(self._talk)
        self._foot = QWidget()
        self._foot.setLayout(foot)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(hairline())
        column.addWidget(self.output, 1)
        column.addWidget(self._foot)

    # --- shown -------------------------------------------------------------------------------------

    def show_job(self, job: JobView) -> None:
        """Show this one, as it is now."""
        other = self.job is None or self.job.id != job.id
        self.job = job
        if other:
            self.input.clear()
            self.say("")
            self._stream = "stdout"
            self._which.setCurrentIndex(0)
            self._open()
        elif not self.output.feed.over:
            self.output.feed.resume()
        self._title.set_text(job_name(job))
        self._task.setVisible(bool(job.task_id))
        self._which.setVisible(not job.terminal)
        self.kill.setVisible(job.ended_at is None)
        self.kill.setEnabled(job.status == "running")
        self._foot.setVisible(job.ended_at is None)
        self._show_facts()
        self._show_question()
        if job.ended_at is None and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def say(self, sentence: str) -> None:
        """Why something was not done; empty: nothing is wrong."""
        self._told.setText(sentence)
        self._told.setVisible(bool(sentence))

    def _open(self) -> None:
        if self.job is None:
            return
        size = self.job.errors_bytes if self._stream == "stderr" else self.job.output_bytes
        if self._context.link.state.connected:
            self.output.feed.open_job(self.job.id, size, self._stream)
        else:
            self.output.feed.close()
        ended = self.job.ended_at is not None
        self.output.begin(_("It wrote nothing.") if ended else _("It has written nothing so far."))

    def _show_facts(self) -> None:
        job = self.job
        if job is None:
            return
        colours = self._context.colours
        self._glyph.show_glyph(*job_glyph(job, colours), job_state(job))
        self._facts.set_text(job_facts(job, dt.datetime.now(dt.UTC)), colours.muted)
        command = " ".join(job.command.split())
        place = job.directory if job_name(job) == command else f"{job.directory}   {command}"
        self._place.set_text(place, colours.muted)
        if job.error:
            self.say(job.error)

    def _show_question(self) -> None:
        job = self.job
        asks = job is not None and job.stalled and job.ended_at is None
        tail = self.output.feed.output.tail(QUESTION_LINES) if asks else ""
        self._question_text.setText(tail)
        self._question_text.setVisible(bool(tail))
        self.question.setVisible(asks)

    def _recolour(self) -> None:
        colours = self._context.colours
        self._place.setFont(mono_font())
        tint(self._told, colours.failed)
        tint(self._question_head, colours.waiting)
        self._task.recolour(colours)
        self.output.recolour()
        self._show_facts()

    # --- done --------------------------------------------------------------------------------------

    def _open_task(self) -> None:
        if self.job is not None and self.job.task_id:
            self._context.do(Command("open_task", self.job.task_id))

    def _kill(self) -> None:
        if self.job is not None:
            self.kill.setEnabled(False)
            self._post("kill", None)

    def _say(self) -> None:
        self._post_input(JobInput(text=self.input.text()))

    def _post_input(self, wanted: JobInput) -> None:
        self.send.setEnabled(False)
        self._post("input", wanted)

    def _post(self, what: str, body: JobInput | None) -> None:
        job = self.job
        if job is None:
            return

        def done(now: JobView) -> None:
            self.send.setEnabled(True)
            if self.job is not None and self.job.id == now.id:
                self.say("")
                if what == "input":
                    self.input.clear()
                self.show_job(now)

        def failed(failure: Failure) -> None:
            self.send.setEnabled(True)
            self.kill.setEnabled(True)
            self.say(job_refusal(failure))

        path = f"/v1/jobs/{quote(job.id, safe='')}/{what}"
        self._context.link.call(JobView, "POST", path, body, done=done, failed=failed, timeout_ms=30_000)

    def _on_stream(self) -> None:
        self._stream = str(self._which.currentData())
        self._open()

    def _on_failed(self, failure: Failure) -> None:
        self.say(job_refusal(failure))

    def _on_ended(self) -> None:
        self.output.view.say(_("It wrote nothing."))

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        if self.job is not None:
            self.output.feed.resume()
            self.show_job(self.job)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._tick.stop()
        self.output.feed.pause()
