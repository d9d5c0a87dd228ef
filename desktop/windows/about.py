"""Everything else about a task: where it runs, its runs, its session, what it used."""

from __future__ import annotations

import datetime as dt
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from daemon_core.control.turn_views import TurnView
from daemon_core.control.views import JobView, RunView, TaskRow, TaskView
from desktop.commands import Command
from desktop.models.jobs import job_name
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.theme.tokens import Colours
from desktop.windows.bits import Elided, GlyphLabel, label, plain, quiet_button, tint
from desktop.windows.job_words import job_glyph, job_state, job_time
from desktop.windows.wording import (
    cost_text,
    reason_text,
    seconds_between,
    short_number,
    span,
    state_glyph,
    state_text,
)
from desktop.words import clock, condition_text, cut

PROMPT_CHARS: Final = 90


class AboutPane(QScrollArea):
    """The tab.

    Signals:
        wanted(object): Something was chosen: a ``Command``.
    """

    wanted = Signal(object)

    def __init__(self, colours: Colours) -> None:
        super().__init__()
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setAccessibleName(_("About this task"))
        self._colours = colours
        self._task: TaskView | None = None
        self._turns: list[TurnView] = []
        self._jobs: list[JobView] = []

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._colours = colours
        if self._task is not None:
            self.show_task(self._task)

    def show_turns(self, turns: list[TurnView]) -> None:
        """The tasks of its conversation."""
        if turns != self._turns:
            self._turns = turns
            self._fill()

    def show_jobs(self, jobs: list[JobView]) -> None:
        """Jobs that its conversation has started."""
        if jobs != self._jobs:
            self._jobs = jobs
            self._fill()

    def show_task(self, task: TaskView) -> None:
        """Show this one."""
        self._task = task
        self._fill()

    def _fill(self) -> None:
        task = self._task
        if task is None:
            return
        place = self.verticalScrollBar().value()
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(24, tokens.GRID * 2, 24, tokens.GRID * 2)
        grid = QGridLayout()
        grid.setHorizontalSpacing(tokens.GRID * 2)
        grid.setVerticalSpacing(tokens.GRID)
        grid.setColumnStretch(1, 1)
        column.addLayout(grid)
        self._add_lists(column, task)
        column.addStretch(1)
        for name, value, mono in _facts(task):
            self._row(grid, name, value, mono=mono)
        if task.cost_how:
            self._row(grid, _("Cost"), cost_sentence(task.cost, task.cost_how))
        for number, run in enumerate(task.runs, 1):
            self._row(grid, _("Run {n}", n=number), run_sentence(run))
        for used in task.usage:
            self._row(grid, used.model or used.provider or _("Tokens"), _used(
                used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens
            ))  # fmt: skip
        self.setWidget(page)
        self.verticalScrollBar().setValue(place)

    def _add_lists(self, column: QVBoxLayout, task: TaskView) -> None:
        if task.plan:
            self._heading(column, _("Plan"))
            for step in task.plan:
                shape, colour, said = _step(step.status, self._colours)
                going = step.status == "in_progress"
                self._entry(column, (shape, colour), step.text, said, None, strong=going)
        if len(self._turns) > 1:
            self._heading(column, _("This conversation"))
            for number, turn in enumerate(self._turns, 1):
                current = turn.id == task.id
                text = cut(turn.prompt, PROMPT_CHARS) or _("Turn {n}", n=number)
                detail = turn_sentence(turn)
                row = TaskRow(id=turn.id, title="", status=turn.status, failure_reason=turn.failure_reason)
                glyph = state_glyph(row, self._colours)
                command = None if current else Command("open_task", turn.id)
                self._entry(column, glyph, f"{number}. {text}", detail, command)
        if task.children:
            self._heading(column, _("Handed on"))
            for child in task.children:
                row = TaskRow(id=child.id, title=child.title, status=child.status,
                              failure_reason=child.failure_reason)  # fmt: skip
                took = span(seconds_between(child.started_at, child.ended_at))
                parts = (child.agent or child.runtime, state_text(row), took)
                detail = " · ".join(part for part in parts if part)
                command = Command("open_task", child.task_id or child.id)
                self._entry(column, state_glyph(row, self._colours), child.title, detail, command)
        if self._jobs:
            self._heading(column, _("Jobs"))
            now = dt.datetime.now(dt.UTC)
            for job in self._jobs:
                detail = " · ".join(part for part in (job_state(job), job_time(job, now)) if part)
                command = Command("open", "jobs", job.id)
                self._entry(column, job_glyph(job, self._colours), job_name(job), detail, command)

    def _heading(self, column: QVBoxLayout, text: str) -> None:
        told = label(text, strong=True)
        told.setContentsMargins(0, tokens.GRID * 2, 0, tokens.HALF)
        column.addWidget(told)

    def _entry(
        self,
        column: QVBoxLayout,
        glyph: tuple[str, str],
        text: str,
        detail: str,
        command: Command | None,
        *,
        strong: bool = True,
    ) -> None:
        mark = GlyphLabel()
        mark.show_glyph(*glyph, detail)
        told = Elided(detail)
        told.setMinimumHeight(tokens.ROW_COMPACT)
        told.set_text(detail, self._colours.muted)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(tokens.GRID)
        row.addWidget(mark)
        if command is None:
            row.addWidget(Elided(text, strong=strong), 3)
        else:
            link = quiet_button(plain(text), lambda: self.wanted.emit(command))
            link.setAccessibleName(text)
            link.setProperty("quiet", True)
            link.setStyleSheet("text-align: left; padding: 2px 0;")
            link.setMinimumWidth(40)
            link.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            link.setCursor(Qt.CursorShape.PointingHandCursor)
            row.addWidget(link, 3)
        row.addWidget(told, 2)
        column.addLayout(row)

    def _row(self, grid: QGridLayout, name: str, value: str, *, mono: bool = False) -> None:
        row = grid.rowCount()
        told = label(name)
        tint(told, self._colours.muted)
        text = label(value, wrap=True)
        text.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        text.setAccessibleName(f"{name}: {value}")
        if mono:
            text.setFont(mono_font())
        grid.addWidget(told, row, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(text, row, 1)


def _facts(task: TaskView) -> list[tuple[str, str, bool]]:
    agent = " · ".join(part for part in (task.agent, task.runtime, task.model, task.thinking) if part)
    found = [
        (_("Waits"), condition_text(task.waiting) if task.waiting is not None else "", False),
        (_("Failed"), reason_text(task.failure_reason) if task.failure_reason else "", False),
        (_("Error"), task.error, True),
        (_("Agent"), agent, False),
        (_("Server"), _("this machine") if task.server == "hub" else task.server, False),
        (_("Directory"), task.work_dir or task.directory, True),
        (_("Repository"), " ".join(part for part in (task.repo, task.ref) if part), True),
        (_("Added"), clock(task.created_at), False),
        (_("Began"), clock(task.started_at), False),
        (_("Ended"), clock(task.ended_at), False),
        (_("Took"), span(seconds_between(task.started_at, task.ended_at)), False),
        (_("Attempt"), str(task.attempt) if task.attempt > 1 else "", False),
        (_("Session"), task.session_id, True),
        (_("Task"), task.id, True),
    ]
    found += [(_("Note"), condition_text(notice), False) for notice in task.notices]
    return [fact for fact in found if fact[1]]


def _step(status: str, colours: Colours) -> tuple[str, str, str]:
    """(glyph, colour, word) for a step of an agent's plan."""
    return {
        "completed": ("circle-check", colours.done, _("done")),
        "in_progress": ("circle-dot", colours.running, _("in progress")),
    }.get(status, ("circle", colours.neutral, _("to do")))


def plan_text(task: TaskView) -> str:
    """How far a task is by its agent's own plan; empty where it has none."""
    done = sum(step.status == "completed" for step in task.plan)
    return _("{done} of {all} steps", done=done, all=len(task.plan)) if task.plan else ""


def turn_sentence(turn: TurnView) -> str:
    """How one turn of a conversation went."""
    row = TaskRow(id=turn.id, title="", status=turn.status, failure_reason=turn.failure_reason)
    took = span(seconds_between(turn.started_at, turn.ended_at))
    when = clock(turn.started_at or turn.created_at)
    parts = (
        state_text(row),
        when,
        took,
        cost_text(turn.cost, turn.cost_how) if turn.cost is not None else "",
    )
    return " · ".join(part for part in parts if part)


def cost_sentence(cost: float | None, how: str) -> str:
    """What it cost, and how that is known."""
    return {
        "stated": _("{cost}, as the agent states it"),
        "priced": _("{cost}, by list prices"),
        "partial": _("{cost}; of some of it nothing is known"),
    }.get(how, "{cost}").format(cost=cost_text(cost, how))


def run_sentence(run: RunView) -> str:
    """How one run went."""
    how = {
        "starting": _("starting"),
        "running": _("running"),
        "ended": _("ended"),
        "lost": _("lost"),
        "never_started": _("never started"),
    }.get(run.status, run.status)
    if run.status == "ended" and run.signal is not None:
        how = _("ended by signal {number}", number=run.signal)
    elif run.status == "ended" and run.exit_code:
        how = _("ended with code {number}", number=run.exit_code)
    took = span(seconds_between(run.started_at, run.ended_at))
    process = _("process {pid}", pid=run.pid) if run.status == "running" and run.pid else ""
    return " · ".join(part for part in (clock(run.started_at), how, took, process) if part)


def _used(given: int, made: int, read: int, written: int) -> str:
    parts = [
        _("{n} in", n=short_number(given)),
        _("{n} out", n=short_number(made)),
        _("{n} from the cache", n=short_number(read)) if read else "",
        _("{n} into the cache", n=short_number(written)) if written else "",
    ]
    return " · ".join(part for part in parts if part)
