"""Everything else about a task: where it runs, its runs, its session, what it used."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QScrollArea, QVBoxLayout, QWidget

from daemon_core.control.views import RunView, TaskView
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.theme.tokens import Colours
from desktop.windows.bits import label, tint
from desktop.windows.wording import reason_text, seconds_between, short_number, span
from desktop.words import clock, condition_text


class AboutPane(QScrollArea):
    """The tab."""

    def __init__(self, colours: Colours) -> None:
        super().__init__()
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setAccessibleName(_("About this task"))
        self._colours = colours
        self._task: TaskView | None = None

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._colours = colours
        if self._task is not None:
            self.show_task(self._task)

    def show_task(self, task: TaskView) -> None:
        """Show this one."""
        self._task = task
        place = self.verticalScrollBar().value()
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(24, tokens.GRID * 2, 24, tokens.GRID * 2)
        grid = QGridLayout()
        grid.setHorizontalSpacing(tokens.GRID * 2)
        grid.setVerticalSpacing(tokens.GRID)
        grid.setColumnStretch(1, 1)
        column.addLayout(grid)
        column.addStretch(1)
        for name, value, mono in _facts(task):
            self._row(grid, name, value, mono=mono)
        for number, run in enumerate(task.runs, 1):
            self._row(grid, _("Run {n}", n=number), run_sentence(run))
        for used in task.usage:
            self._row(grid, used.model or used.provider or _("Tokens"), _used(
                used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens
            ))  # fmt: skip
        self.setWidget(page)
        self.verticalScrollBar().setValue(place)

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
