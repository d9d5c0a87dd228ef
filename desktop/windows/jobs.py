"""The page "Jobs": commands in the background and residents, each with what it writes and what it asks."""

from __future__ import annotations

import datetime as dt
from typing import Final

from PySide6.QtCore import (
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QSettings,
    QSize,
    Qt,
    QTimer,
    QUrl,
)
from PySide6.QtGui import (
    QColor,
    QDesktopServices,
    QFontMetrics,
    QHideEvent,
    QKeySequence,
    QPainter,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QListView,
    QSplitter,
    QStackedWidget,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from daemon_core.control.views import JobView
from desktop.daemon.stats import StatsFeed
from desktop.models.jobs import AT_WORK, ENTRY, Entry, JobsModel, entries_of
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.theme import glyphs, tokens
from desktop.theme.palette import body_font, sized
from desktop.windows.bits import PLAIN_LIST, Elided, label, paint_ground, quiet_button, tab_by_place, tint
from desktop.windows.context import Context
from desktop.windows.job_detail import JobDetail
from desktop.windows.job_words import job_glyph, job_state, job_time, resident_facts, resident_glyph
from desktop.windows.new_job import NewJobBox
from desktop.windows.resident_detail import ResidentDetail
from desktop.words import elapsed

Index = QModelIndex | QPersistentModelIndex
ROW: Final = 52
HEADING: Final = 32
TICK_MS: Final = 1_000


class JobDelegate(QStyledItemDelegate):
    """Draws headings, and jobs and residents in two lines."""

    def __init__(self, context: Context, parent: QWidget) -> None:
        super().__init__(parent)
        self._context = context
        self._strong = sized(body_font(), tokens.BODY, strong=True)
        self._body = body_font()
        self._heading = sized(body_font(), tokens.SMALL, strong=True)

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802 - Qt's name
        entry = index.data(ENTRY)
        return QSize(120, HEADING if isinstance(entry, Entry) and entry.heading else ROW)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        entry = index.data(ENTRY)
        if not isinstance(entry, Entry):
            return
        rect: QRect = option.rect
        state: QStyle.StateFlag = option.state
        colours = self._context.colours
        direction: Qt.LayoutDirection = option.direction
        leading = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeading
        flags = int(leading | Qt.TextFlag.TextSingleLine)
        painter.save()
        painter.setLayoutDirection(direction)

        def place(inside: QRect, rect: QRect) -> QRect:
            return QStyle.visualRect(direction, inside, rect)

        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if entry.heading:
            painter.setFont(self._heading)
            painter.setPen(QColor(colours.muted))
            room = place(rect, rect.adjusted(24, tokens.GRID, -tokens.GRID, 0))
            painter.drawText(room, flags, entry.name)
            painter.restore()
            return
        box = QRectF(place(rect, rect.adjusted(16, 1, -tokens.GRID, -1)))
        paint_ground(painter, box, state, colours)
        inner = box.toRect().adjusted(tokens.GRID, 6, -tokens.GRID, -6)
        half = inner.height() // 2
        first = QRect(inner.left(), inner.top(), inner.width(), half)
        second = QRect(inner.left(), inner.top() + half, inner.width(), half)
        (glyph, colour), right, detail = self._told(entry)
        ratio = painter.device().devicePixelRatio()
        top = first.top() + (first.height() - glyphs.SMALL) // 2
        spot = place(first, QRect(first.left(), top, glyphs.SMALL, glyphs.SMALL))
        painter.drawPixmap(spot.topLeft(), glyphs.pixmap(glyph, colour, glyphs.SMALL, ratio))
        left = glyphs.SMALL + tokens.GRID
        painter.setFont(self._body)
        painter.setPen(QColor(colours.muted))
        metrics = QFontMetrics(self._body)
        width = metrics.horizontalAdvance(right) if right else 0
        at_end = QRect(first.right() - width, first.top(), width + 2, half)
        painter.drawText(place(first, at_end), flags, right)
        shown = metrics.elidedText(detail, Qt.TextElideMode.ElideRight, max(0, second.width() - left))
        painter.drawText(place(second, second.adjusted(left, 0, 0, 0)), flags, shown)
        painter.setFont(self._strong)
        painter.setPen(QColor(colours.text))
        width = max(0, first.width() - left - width - tokens.GRID)
        shown = QFontMetrics(self._strong).elidedText(entry.name, Qt.TextElideMode.ElideRight, width)
        painter.drawText(place(first, QRect(first.left() + left, first.top(), width, half)), flags, shown)
        painter.restore()

    def _told(self, entry: Entry) -> tuple[tuple[str, str], str, str]:
        """(glyph and its colour, time, second line)."""
        now = dt.datetime.now(dt.UTC)
        colours = self._context.colours
        if entry.job is not None:
            job = entry.job
            where = job.directory.rstrip("/").rpartition("/")[2]
            detail = " · ".join(part for part in (job_state(job), where) if part)
            return job_glyph(job, colours), job_time(job, now), detail
        resident = entry.resident
        assert resident is not None
        time = elapsed(resident.started_at, now) if resident.state == "running" else ""
        detail = resident_facts(resident, now)
        if time:
            detail = " · ".join(part for part in detail.split(" · ") if part != time)
        return resident_glyph(resident, colours), time, detail


class JobsPage(QWidget):
    """The page."""

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._sentence = Elided(size=tokens.SENTENCE, strong=True)
        self.model = JobsModel(self)
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setMouseTracking(True)
        self.list.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setAccessibleName(_("Jobs and residents"))
        self.list.setStyleSheet(PLAIN_LIST)
        self.list.setMinimumWidth(220)
        self.list.setItemDelegate(JobDelegate(context, self.list))
        self.list.selectionModel().currentChanged.connect(lambda now, _before: self._on_chosen(now))
        self.job = JobDetail(context)
        self.resident = ResidentDetail(context)
        self.new_job = NewJobBox(context, settings)
        self.new_job.started.connect(self._on_started)
        self.new_job.left.connect(self._on_left)
        self.empty = self._make_empty()
        self.detail = QStackedWidget()
        for widget in (self.empty, self.job, self.resident, self.new_job):
            self.detail.addWidget(widget)
        self.detail.setMinimumWidth(320)
        self.new = quiet_button(_("New job…"), self.begin_job)
        self.new.setToolTip("Ctrl+Shift+N")
        QShortcut(QKeySequence("Ctrl+Shift+N"), self, self._begin_by_key)
        head = QHBoxLayout()
        head.setContentsMargins(24, 24, 24, 12)
        head.addWidget(self._sentence, 1)
        head.addWidget(self.new)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.addWidget(self.list)
        split.addWidget(self.detail)
        split.setSizes([300, 520])
        split.setStretchFactor(1, 1)
        split.setHandleWidth(1)
        split.setChildrenCollapsible(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(split, 1)
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self.list.viewport().update)
        StatsFeed.of(context.link)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self.setFocusProxy(self.new)
        self._recolour()

    def _make_empty(self) -> QWidget:
        page = QWidget()
        self._empty_jobs = label(wrap=True)
        self._empty_residents = label(wrap=True)
        self._folder = quiet_button(_("Open the directory for residents"), self._open_residents)
        column = QVBoxLayout(page)
        column.setContentsMargins(24, tokens.GRID * 2, 24, 24)
        column.setSpacing(12)
        column.addWidget(label(_("Jobs"), strong=True))
        column.addWidget(self._empty_jobs)
        column.addSpacing(tokens.GRID)
        column.addWidget(label(_("Residents"), strong=True))
        column.addWidget(self._empty_residents)
        column.addWidget(self._folder, 0, Qt.AlignmentFlag.AlignLeft)
        column.addStretch(1)
        self._empty_jobs.setText(
            _(
                "Commands that go on in the background: agents start them, and so can you. What they write is"
                " shown here, and a question of theirs is answered here. Start the first one with New job."
            )
        )
        self._empty_residents.setText(
            _(
                "Programs that Ostler keeps up, each described by a file. Put the first one into the"
                " directory for residents, and it appears here."
            )
        )
        return page

    def begin_job(self) -> None:
        """Show the box for a new job."""
        self.detail.setCurrentWidget(self.new_job)
        self.new_job.command.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def _begin_by_key(self) -> None:
        if self.new.isEnabled():
            self.begin_job()

    @property
    def job_id(self) -> str:
        """The job that is looked at; empty: none."""
        job = self.job.job if self.detail.currentWidget() is self.job else None
        return job.id if job is not None else ""

    def choose_job(self, job_id: str) -> None:
        """Show this job, from wherever one comes."""
        self._show_state()
        if self.detail.currentWidget() is self.new_job:
            self.detail.setCurrentWidget(self.job)
        self.choose(f"job {job_id}")

    def choose(self, key: str) -> None:
        """Show this entry, if it is there."""
        row = self.model.row_of(key)
        if row >= 0:
            self.list.selectionModel().setCurrentIndex(
                self.model.index(row), QItemSelectionModel.SelectionFlag.ClearAndSelect
            )

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if self.isVisible() and (
            before.jobs is not state.jobs
            or before.residents is not state.residents
            or before.connected is not state.connected
        ):
            self._show_state()
            if state.connected and not before.connected:
                self._resume()

    def _resume(self) -> None:
        for detail in (self.job, self.resident):
            if detail.isVisible():
                detail.output.feed.resume()

    def _show_state(self) -> None:
        state = self._context.link.state
        self.model.show_entries(entries_of(state.jobs.values(), state.residents.values()))
        self._sentence.set_text(jobs_sentence(state))
        self.new.setEnabled(state.connected)
        busy = any(job.ended_at is None for job in state.jobs.values()) or any(
            resident.state in AT_WORK for resident in state.residents.values()
        )
        if busy and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()
        index = self.list.currentIndex()
        entry = index.data(ENTRY) if index.isValid() else None
        if self.detail.currentWidget() is not self.new_job:
            if isinstance(entry, Entry) and not entry.heading:
                self._show_entry(entry)
            elif self.model.entries:
                self._choose_first()
            else:
                self.detail.setCurrentWidget(self.empty)
        self.list.setVisible(bool(self.model.entries))
        # The proxy has to be in sight: Tab would be caught at one that is not.
        self.setFocusProxy(self.list if self.model.entries else self.new)

    def focusNextPrevChild(self, next: bool) -> bool:  # noqa: N802 - Qt's names
        # Tab comes first to what has the focus in the place of the page.
        if self.model.entries:
            tab_by_place(self.list, self.detail, self.new)
        else:
            tab_by_place(self.new, self.detail)
        return super().focusNextPrevChild(next)

    def _choose_first(self) -> None:
        first = next((entry for entry in self.model.entries if not entry.heading), None)
        if first is not None:
            self.choose(first.key)

    def _show_entry(self, entry: Entry) -> None:
        if entry.job is not None:
            self.job.show_job(entry.job)
            self.detail.setCurrentWidget(self.job)
        elif entry.resident is not None:
            self.resident.show_resident(entry.resident)
            self.detail.setCurrentWidget(self.resident)

    def _on_chosen(self, index: Index) -> None:
        entry = index.data(ENTRY) if index.isValid() else None
        if isinstance(entry, Entry) and not entry.heading:
            self._show_entry(entry)

    def _on_started(self, job: JobView) -> None:
        # Its event may come later than the answer: it is shown at once all the same.
        jobs = {**self._context.link.state.jobs, job.id: self._context.link.state.jobs.get(job.id, job)}
        self.model.show_entries(entries_of(jobs.values(), self._context.link.state.residents.values()))
        self.list.show()
        self.setFocusProxy(self.list)
        self.detail.setCurrentWidget(self.job)
        self.choose(f"job {job.id}")
        self.list.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_left(self) -> None:
        self.detail.setCurrentWidget(self.empty)
        self._show_state()
        self.list.setFocus(Qt.FocusReason.OtherFocusReason)

    def _open_residents(self) -> None:
        place = self._context.link.directories.config / "residents"
        place.mkdir(parents=True, exist_ok=True)
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(place)))

    def _recolour(self) -> None:
        for text in (self._empty_jobs, self._empty_residents):
            tint(text, self._context.colours.muted)
        self.list.viewport().update()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show_state()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._tick.stop()


def jobs_sentence(state: DesktopState) -> str:
    """How jobs and residents stand, in one sentence."""
    if not state.connected:
        return _("As it was last") if state.jobs or state.residents else _("Jobs and residents")
    going = [job for job in state.jobs.values() if job.ended_at is None]
    stalled = sum(job.stalled for job in going)
    if stalled:
        return n_("{n} job waits for an answer", "{n} jobs wait for an answer", stalled)
    if going:
        return n_("{n} job is running", "{n} jobs are running", len(going))
    up = sum(resident.state == "running" for resident in state.residents.values())
    if up:
        return n_("{n} resident is running", "{n} residents are running", up)
    return _("No job is running")
