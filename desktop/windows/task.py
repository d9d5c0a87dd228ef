"""One task: what it said and did, what it changed, and what can be done about it."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QKeyEvent, QKeySequence, QResizeEvent, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from daemon_core.control.errors import ControlError
from daemon_core.control.turn_views import TurnView
from daemon_core.control.views import JobView, TaskChanges, TaskReply, TaskRow, TaskView
from desktop.commands import Command
from desktop.daemon.http import WORK_TIMEOUT_MS, Call, Failure
from desktop.daemon.link import now_text
from desktop.daemon.stats import StatsFeed
from desktop.models.state import ACTIVE, ENDED, DesktopState
from desktop.text import _, n_
from desktop.theme import glyphs, tokens
from desktop.windows.about import AboutPane, plan_text
from desktop.windows.bits import (
    Elided,
    GlyphButton,
    GlyphLabel,
    PromptBox,
    hairline,
    label,
    primary_button,
    quiet_button,
    refusal_label,
    tab_by_place,
    tint,
)
from desktop.windows.changes import ChangesPane
from desktop.windows.context import Context
from desktop.windows.requests import RequestList
from desktop.windows.search_bar import SearchBar
from desktop.windows.sparkline import Sparkline
from desktop.windows.transcript_feed import TranscriptFeed
from desktop.windows.transcript_view import TranscriptView
from desktop.windows.wording import (
    cost_text,
    seconds_between,
    span,
    state_glyph,
    state_text,
    tokens_text,
)
from desktop.words import condition_text, elapsed, full_stop, parse

TRANSCRIPT, CHANGES, ABOUT = range(3)
AGAIN_MS: Final = 300
"""A task that changes all the time is asked about this often at most."""
TICK_MS: Final = 1_000


class TaskPage(QWidget):
    """Shows one task at a time.

    Signals:
        left(): Back to where one came from.
        title_changed(str): For the window's title.
    """

    left = Signal()
    title_changed = Signal(str)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._task: TaskView | None = None
        self._id = ""
        self._call: Call[TaskView] | None = None
        self._changes_call: Call[TaskChanges] | None = None
        self._changes_stale = True
        self._again = _timer(self, AGAIN_MS, self._ask)
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._show_facts)
        colours = context.colours
        self.transcript = TranscriptView(colours)
        self.feed = TranscriptFeed(context.link.http, self.transcript, self)
        self.feed.changed.connect(self._on_fed)
        self.feed.failed.connect(self._on_feed_failed)
        self.search = SearchBar(colours)
        self.changes = ChangesPane(colours)
        self.about = AboutPane(colours)
        self.about.wanted.connect(context.do)
        self._turns_call: Call[list[TurnView]] | None = None
        self._turns_stale = True
        self._stats = StatsFeed.of(context.link)
        self._stats.came.connect(self._show_stats)
        self._build()
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        QShortcut(QKeySequence.StandardKey.Find, self, self.begin_search)

    # --- building ----------------------------------------------------------------------------------

    def _build(self) -> None:
        colours = self._context.colours
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(self._build_header())
        self.requests = RequestList(self._context)
        self.notice = QWidget()
        row = QHBoxLayout(self.notice)
        row.setContentsMargins(0, 0, 0, tokens.HALF)
        self._notice_text = label(wrap=True)
        self._more_time = quiet_button(_("Give it more time"), lambda: self._do("extend_task"))
        row.addWidget(self._notice_text, 1)
        row.addWidget(self._more_time)
        self.notice.hide()
        upper = QVBoxLayout()
        upper.setContentsMargins(24, 0, 24, 0)
        upper.addWidget(self.notice)
        upper.addWidget(self.requests)
        column.addLayout(upper)
        self.tabs = QTabBar()
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setUsesScrollButtons(False)
        self.tabs.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.tabs.setAccessibleName(_("Parts of the task"))
        for name in (_("Transcript"), _("Changes"), _("About")):
            self.tabs.addTab(name)
        tabs = QHBoxLayout()
        tabs.setContentsMargins(12, 0, 24, 0)
        tabs.addWidget(self.tabs)
        tabs.addStretch(1)
        self.beside = quiet_button("", lambda: self.tabs.setCurrentIndex(ABOUT))
        self.beside.setProperty("quiet", True)
        self.beside.setIconSize(QSize(glyphs.SMALL, glyphs.SMALL))
        # Where there is little room this is cut off, not the names of the tabs.
        self.beside.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.beside.setMinimumWidth(tokens.ROW)
        self.beside.hide()
        tabs.addWidget(self.beside)
        self.errors = QPushButton(n_("{n} error", "{n} errors", 0))
        self.errors.setProperty("quiet", True)
        self.errors.setIconSize(QSize(glyphs.SMALL, glyphs.SMALL))
        self.errors.setToolTip(_("Go to the next error"))
        self.errors.clicked.connect(self._on_errors)
        tabs.addWidget(self.errors)
        self._find = GlyphButton("search", _("Search in the transcript"), colours)
        self._find.setToolTip(_("Search in the transcript (Ctrl+F)"))
        self._find.clicked.connect(lambda _checked=False: self.begin_search())
        tabs.addWidget(self._find)
        column.addLayout(tabs)
        column.addWidget(hairline())
        self.stack = QStackedWidget()
        reading = QWidget()
        inner = QVBoxLayout(reading)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(0)
        inner.addWidget(self.search)
        inner.addWidget(self.transcript, 1)
        for pane in (reading, self.changes, self.about):
            self.stack.addWidget(pane)
        self.tabs.currentChanged.connect(self._on_tab)
        column.addWidget(self.stack, 1)
        self.latest = QPushButton(_("Latest"), self.transcript)
        self.latest.clicked.connect(lambda _checked=False: self.transcript.follow())
        self.latest.setCursor(Qt.CursorShape.PointingHandCursor)
        self.latest.hide()
        self.errors.hide()
        self.transcript.following_changed.connect(lambda _on: self._place_pills())
        self.search.changed.connect(self.transcript.search)
        self.search.moved.connect(self.transcript.next_hit)
        self.search.closed.connect(self.transcript.setFocus)
        self.transcript.found.connect(self.search.show_count)
        self._colour_pills()
        column.addWidget(hairline())
        column.addLayout(self._build_reply())
        tint(self._notice_text, colours.waiting)

    def _build_header(self) -> QVBoxLayout:
        colours = self._context.colours
        self._title = Elided(size=tokens.TITLE, strong=True)
        self._facts = Elided()
        self._glyph = GlyphLabel()
        self._back = GlyphButton("arrow-left", _("Back"), colours)
        self._back.clicked.connect(lambda _checked=False: self.left.emit())
        self._directory = GlyphButton("folder-open", _("Open its directory"), colours)
        self._directory.clicked.connect(lambda _checked=False: self._do("open_directory"))
        self._terminal = GlyphButton("terminal", _("Open a terminal in its directory"), colours)
        self._terminal.clicked.connect(lambda _checked=False: self._do("open_terminal"))
        self._editor = GlyphButton("code", _("Open its directory in an editor"), colours)
        self._editor.clicked.connect(lambda _checked=False: self._do("open_editor"))
        self.line = Sparkline(self._context)
        self._cancel = quiet_button(_("Cancel"), lambda: self._do("cancel_task"))
        self._retry = quiet_button(_("Try again"), lambda: self._do("retry_task"))
        first = QHBoxLayout()
        first.setSpacing(tokens.GRID)
        first.addWidget(self._back)
        first.addWidget(self._title, 1)
        for opener in (self._directory, self._terminal, self._editor):
            first.addWidget(opener)
        first.addWidget(self._cancel)
        first.addWidget(self._retry)
        second = QHBoxLayout()
        second.setContentsMargins(tokens.ROW + tokens.GRID, 0, 0, 0)
        second.setSpacing(tokens.GRID)
        second.addWidget(self._glyph)
        second.addWidget(self._facts, 1)
        second.addWidget(self.line)
        header = QVBoxLayout()
        header.setContentsMargins(12, tokens.GRID * 2, 24, tokens.GRID)
        header.setSpacing(tokens.HALF)
        header.addLayout(first)
        header.addLayout(second)
        return header

    def _build_reply(self) -> QVBoxLayout:
        self.reply = PromptBox(_("Reply, and it goes on in the same conversation"))
        self.reply.sent.connect(self._send)
        self.reply.textChanged.connect(self._show_send)
        self.reply.textChanged.connect(self._keep_draft)
        self.send = primary_button(_("Send"), self._send)
        self.send.setEnabled(False)
        # As high as one line of the reply: its frame and padding are 12 pixels.
        self.send.setStyleSheet(f"min-height: {self.reply.height() - 12}px")
        self._sending = False
        self.send.setToolTip(_("Ctrl+Enter"))
        self._refusal = refusal_label()
        tint(self._refusal, self._context.colours.failed)
        self._refusal.hide()
        row = QHBoxLayout()
        row.setSpacing(tokens.GRID)
        row.addWidget(self.reply, 1)
        row.addWidget(self.send, 0, Qt.AlignmentFlag.AlignBottom)
        column = QVBoxLayout()
        column.setContentsMargins(24, 12, 24, 12)
        column.addWidget(self._refusal)
        column.addLayout(row)
        return column

    # --- what is shown -----------------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        """Of the task that is shown; empty: none."""
        return self._id

    def open_task(self, task_id: str) -> None:
        """Show this task from now on."""
        if task_id != self._id:
            self._keep_draft()
            self.close_task()
            self._id = task_id
            self._task = None
            self._changes_stale = True
            self._turns_stale = True
            self.about.show_turns([])
            self.tabs.setCurrentIndex(TRANSCRIPT)
            row = self._context.link.state.tasks.get(task_id)
            self._title.set_text(row.title if row is not None else "")
            self._facts.set_text("")
            self._refusal.hide()
            self._sending = False
            self.reply.setPlainText(self._context.drafts.get(f"reply {task_id}", ""))
            self.transcript.follow()
        self._ask()

    def _keep_draft(self) -> None:
        """What is written for this task and was not sent is there again when the task is, also after a
        crash."""
        name, text = f"reply {self._id}", self.reply.toPlainText()
        if self._id and text.strip():
            self._context.drafts[name] = text
        else:
            self._context.drafts.pop(name, None)

    def close_task(self) -> None:
        """Let go of it."""
        self.feed.close()
        self._again.stop()
        self._id = ""
        self._cancel_calls()

    def _cancel_calls(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._changes_call is not None:
            self._changes_call.cancel()
            self._changes_stale = True
        if self._turns_call is not None:
            self._turns_call.cancel()
            self._turns_stale = True
        self._call = self._changes_call = self._turns_call = None

    def show_task(self, task: TaskView) -> None:
        """What is known of the task now."""
        self._task = task
        self._title.set_text(task.title)
        self.title_changed.emit(task.title)
        self._show_facts()
        self.requests.show_task(task)
        self.about.show_task(task)
        ended = task.status in ENDED
        self._cancel.setVisible(not ended)
        self._retry.setVisible(ended)
        for opener in (self._directory, self._terminal, self._editor):
            opener.setEnabled(bool(task.work_dir or task.directory))
        self._show_stats()
        self._show_beside()
        silent = next((notice for notice in task.notices if notice.code == "silent"), None)
        told = silent or task.waiting
        self.notice.setVisible(told is not None)
        self._more_time.setVisible(silent is not None)
        if silent is not None:
            left = elapsed_until(silent.next_try_at)
            self._notice_text.setText(
                _("It has made no progress for a while and will be ended {when}.", when=left)
                if silent.params.get("kind") == "progress"
                else _("It has been silent for a while and will be ended {when}.", when=left)
            )
        elif told is not None:
            self._notice_text.setText(full_stop(condition_text(told)))
        if task.status in ACTIVE and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def _show_stats(self) -> None:
        running = self._task is not None and self._task.status in ACTIVE
        self.line.show_series(self._stats.series("task", self._id) if running else None)

    def _show_beside(self) -> None:
        """How far its plan is, and what goes on beside it: jobs that its conversation has started, and tasks
        that it has handed on."""
        task = self._task
        if task is None:
            return
        jobs = jobs_of(task, self._context.link.state)
        self.about.show_jobs(jobs)
        going = sum(job.ended_at is None for job in jobs)
        children = sum(not child.over for child in task.children)
        plan = plan_text(task) if task.status in ACTIVE else ""
        parts = [
            plan,
            n_("{n} job is running", "{n} jobs are running", going) if going else "",
            n_("{n} handed on", "{n} handed on", children) if children else "",
        ]
        _say(self.beside, " · ".join(part for part in parts if part))
        self.beside.setVisible(bool(plan or going or children))

    def _show_facts(self) -> None:
        task = self._task
        if task is None:
            return
        colours = self._context.colours
        row = as_row(task)
        state = state_text(row)
        glyph, colour = state_glyph(row, colours)
        self._glyph.show_glyph(glyph, colour, state)
        end = parse(task.ended_at)
        time = elapsed(task.started_at, end)
        agent = " ".join(part for part in (task.agent or task.runtime, task.model) if part)
        place = task.directory or task.work_dir
        cost = cost_text(task.cost, task.cost_how)
        facts = (state, time, agent, tokens_text(task.usage), cost, place)
        self._facts.set_text(" · ".join(fact for fact in facts if fact), colours.muted)

    def begin_search(self) -> None:
        """Ctrl+F."""
        self.tabs.setCurrentIndex(TRANSCRIPT)
        self.search.begin()

    # --- asking ------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._id and self._call is None and self._context.link.state.connected:
            self._call = self._context.link.call(
                TaskView, "GET", f"/v1/tasks/{self._id}", done=self._on_task, failed=self._on_no_task
            )

    def _on_task(self, task: TaskView) -> None:
        self._call = None
        first = self._task is None
        self._id = task.id
        self.show_task(task)
        if first:
            raw = task.runtime == "shell"
            self.feed.open(task.id, prompt=task.prompt, lines=task.messages, raw=raw)
        if self.tabs.currentIndex() == CHANGES and self._changes_stale:
            self._ask_changes()
        self._turns_stale = True
        if self.tabs.currentIndex() == ABOUT:
            self._ask_turns()

    def _ask_turns(self) -> None:
        if self._turns_stale and self._turns_call is None and self._id and self._context.link.state.connected:
            self._turns_stale = False
            self._turns_call = self._context.link.call(
                list[TurnView], "GET", f"/v1/tasks/{self._id}/turns",
                done=self._on_turns, failed=self._on_no_turns,
            )  # fmt: skip

    def _on_turns(self, turns: list[TurnView]) -> None:
        self._turns_call = None
        self.about.show_turns(turns)

    def _on_no_turns(self, _failure: Failure) -> None:
        self._turns_call = None  # asked again with the next change, or when the tab is opened again
        self._turns_stale = True

    def _on_no_task(self, failure: Failure) -> None:
        self._call = None
        if isinstance(failure, ControlError):
            self._title.set_text(_("This task is not there any more"))
            self._facts.set_text("")

    def _ask_changes(self) -> None:
        if self._changes_call is None and self._id and self._context.link.state.connected:
            self._changes_stale = False
            self._changes_call = self._context.link.call(
                TaskChanges, "GET", f"/v1/tasks/{self._id}/changes", timeout_ms=WORK_TIMEOUT_MS,
                done=self._on_changes, failed=self._on_no_changes,
            )  # fmt: skip

    def _on_changes(self, changes: TaskChanges) -> None:
        self._changes_call = None
        self.changes.show_changes(changes)

    def _on_no_changes(self, _failure: Failure) -> None:
        self._changes_call = None
        self._changes_stale = True
        self.changes.say(_("What it changed cannot be told now."))

    def _do(self, name: str) -> None:
        match name:
            case (
                "extend_task"
                | "open_directory"
                | "open_terminal"
                | "open_editor"
                | "cancel_task"
                | "retry_task"
            ):
                self._context.do(Command(name, self._id))
            case _:
                raise ValueError(name)

    def _send(self) -> None:
        prompt = self.reply.toPlainText()
        if not prompt.strip() or not self._id or not self.send.isEnabled():
            return
        self._sending = True
        self._show_send()
        self._refusal.hide()
        task_id = self._id
        self._context.link.call(
            TaskView, "POST", f"/v1/tasks/{task_id}/reply", TaskReply(prompt=prompt),
            done=lambda task: self._on_replied(task_id, task),
            failed=lambda failure: self._on_not_replied(task_id, failure),
        )  # fmt: skip

    def _show_send(self) -> None:
        self.send.setEnabled(bool(self.reply.toPlainText().strip()) and not self._sending)

    def _on_replied(self, task_id: str, task: TaskView) -> None:
        self._context.drafts.pop(f"reply {task_id}", None)
        if task_id != self._id:
            return  # another one is looked at by now, and may be written to
        self._sending = False
        self.reply.clear()
        self._show_send()
        self._context.do(Command("open_task", task.id))

    def _on_not_replied(self, task_id: str, failure: Failure) -> None:
        if task_id == self._id:
            self._on_refused(failure)

    def _on_refused(self, failure: Failure) -> None:
        self._sending = False
        self._show_send()
        self._refusal.setText(refusal_sentence(failure))
        self._refusal.show()

    # --- what happens ------------------------------------------------------------------------------

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if not self._id or not self.isVisible():
            return
        if state.connected and not before.connected:
            self.feed.resume()
            self._again.start()
        elif state.tasks.get(self._id) != before.tasks.get(self._id):
            self._changes_stale = True
            if not self._again.isActive():
                self._again.start()
        if state.jobs is not before.jobs:
            self._show_beside()

    def _on_fed(self) -> None:
        self._changes_stale = True
        self._place_pills()

    def _on_feed_failed(self, failure: Failure) -> None:
        # A daemon that went comes again: the link tells, and the transcript goes on.
        if isinstance(failure, ControlError):
            self._refusal.setText(refusal_sentence(failure))
            self._refusal.show()
        elif self.feed.complete:
            self._refusal.setText(_("The rest of the transcript cannot be read."))
            self._refusal.show()

    def _on_tab(self, index: int) -> None:
        self.stack.setCurrentIndex(index)
        if index == CHANGES and self._changes_stale:
            self._ask_changes()
        elif index == ABOUT:
            self._ask_turns()

    def _place_pills(self) -> None:
        errors = len(self.transcript.transcript.errors)
        self.errors.setVisible(bool(errors))
        _say(self.errors, n_("{n} error", "{n} errors", errors))
        self.latest.setVisible(not self.transcript.following)
        self.latest.adjustSize()
        left = (self.transcript.viewport().width() - self.latest.width()) // 2
        self.latest.move(left, self.transcript.height() - tokens.GRID * 2 - self.latest.height())
        self.latest.raise_()

    def _on_errors(self) -> None:
        self.tabs.setCurrentIndex(TRANSCRIPT)
        self.transcript.next_error()

    def _colour_pills(self) -> None:
        colours = self._context.colours
        self.errors.setIcon(glyphs.icon("circle-alert", colours.failed))
        self.beside.setIcon(glyphs.icon("terminal", colours.muted))
        self.latest.setIcon(glyphs.icon("arrow-down", colours.muted))

    def _recolour(self) -> None:
        colours = self._context.colours
        self.transcript.recolour(colours)
        self.changes.recolour(colours)
        self.about.recolour(colours)
        self.search.recolour(colours)
        tint(self._notice_text, colours.waiting)
        tint(self._refusal, colours.failed)
        self._colour_pills()
        for button in (self._back, self._directory, self._terminal, self._editor, self._find):
            button.recolour(colours)
        self._show_facts()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._place_pills()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802
        super().showEvent(event)
        self._stats.watch(self)
        self._ask()
        self.feed.resume()
        QTimer.singleShot(0, self, self._place_pills)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._stats.leave(self)
        self._tick.stop()
        self._again.stop()
        self._cancel_calls()
        self._keep_draft()

    def focusNextPrevChild(self, next: bool) -> bool:  # noqa: N802 - Qt's names
        head = (self._back, self._directory, self._terminal, self._editor, self._cancel, self._retry)
        tabs = (self.tabs, self.beside, self.errors, self._find)
        pane = self.stack.currentWidget() or self.stack
        tab_by_place(*head, self.notice, self.requests, *tabs, pane, self.reply, self.send)
        return super().focusNextPrevChild(next)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.key() == Qt.Key.Key_Escape:
            if self.search.isVisible():
                self.search.close_search()
            else:
                self.left.emit()
        else:
            super().keyPressEvent(event)


def jobs_of(task: TaskView, state: DesktopState) -> list[JobView]:
    """The jobs of a task's conversation, those that go on first."""
    found = [
        job
        for job in state.jobs.values()
        if job.task_id == task.id or (job.conversation and job.conversation == task.conversation_id)
    ]
    return sorted(found, key=lambda job: (job.ended_at is not None, job.created_at))


def as_row(task: TaskView) -> TaskRow:
    """What lists show of a task, taken from all that is known of it."""
    return TaskRow(
        id=task.id, title=task.title, status=task.status, runtime=task.runtime, agent=task.agent,
        model=task.model, created_at=task.created_at, started_at=task.started_at, ended_at=task.ended_at,
        directory=task.directory, needs_input=task.needs_input, failure_reason=task.failure_reason,
        server=task.server, parked_until=task.parked_until,
    )  # fmt: skip


def elapsed_until(moment: str | None) -> str:
    """When something will be: "in 4 min"; "soon" where nobody said."""
    left = seconds_between(now_text(), moment)
    return _("in {time}", time=span(left)) if left else _("soon")


def refusal_sentence(failure: Failure) -> str:
    """Why something was not done, in a sentence."""
    if not isinstance(failure, ControlError):
        return _("Ostler's daemon did not answer. Nothing is known of what became of it.")
    if failure.code == "internal":
        detail = failure.params.get("detail")
        if not detail:
            return _("The daemon could not do it. Its log says more.")
        return _("The daemon could not do it: {detail}. Check the disk.", detail=detail)
    known = {
        "conflict": _("The task does not allow it in its present state."),
        "runtime_unusable": _("This agent cannot be used now."),
        "no_agent": _("No agent was found that could do it."),
        "too_large": _("This text is too long."),
        "directory_not_found": _("This directory is not there."),
        "directory_not_a_directory": _("This is not a directory."),
        "directory_not_writable": _("Nothing can be written into this directory."),
        "directory_protected": _("This directory is protected."),
        "not_found": _("This task is not there any more."),
        "not_ready": _("Ostler is still starting. Try again in a moment."),
    }.get(failure.code)
    return known if known is not None else _("It was refused: {code}.", code=failure.code.replace("_", " "))


def _timer(parent: QWidget, interval_ms: int, slot: object) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    timer.timeout.connect(slot)
    return timer


def _say(button: QPushButton, text: str) -> None:
    """The text of a button without a frame: some room between it and the glyph, which Qt leaves out there."""
    button.setText(f"\N{FOUR-PER-EM SPACE}{text}")
    button.setAccessibleName(text)
