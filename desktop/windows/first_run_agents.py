"""The step of the first run that shows the agents of this machine, each to be tried, and how to get more."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.control.runtime_requests import MissingAgent
from daemon_core.control.views import RuntimeView, TaskAdd, TaskRow, TaskView
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import DesktopState
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import Elided, GlyphLabel, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.first_run_steps import Step, Told
from desktop.windows.missing_agents import MissingAgents
from desktop.windows.runtime_words import runtime_glyph, runtime_sentence
from desktop.windows.task import refusal_sentence
from desktop.windows.wording import reason_text, seconds_between, span
from desktop.words import link_sentence

SHELL: Final = "shell"
MOST_MISSING: Final = 4
TRY_PROMPT: Final = "Reply with the single word: ready. Use no tools."
REFRESH_MS: Final = 60_000


class AgentLine(QWidget):
    """One agent: what was found, and a try with a real, tiny task if it is wanted."""

    def __init__(self, context: Context, runtime: RuntimeView) -> None:
        super().__init__()
        self._context = context
        self.runtime = runtime
        self.task = ""
        self._glyph = GlyphLabel()
        self._title = Elided(strong=True)
        self.state = label(wrap=True)
        self.try_it = quiet_button(_("Try it"), self._try)
        self.try_it.setToolTip(_("Starts a real task of a few words; it may cost a little."))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self._title)
        words.addWidget(self.state)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, tokens.HALF, 0, tokens.HALF)
        row.setSpacing(12)
        self.setMinimumHeight(tokens.ROW + tokens.GRID * 2)
        row.addWidget(self._glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        row.addWidget(self.try_it, 0, Qt.AlignmentFlag.AlignVCenter)
        self.show_runtime(runtime)

    def show_runtime(self, runtime: RuntimeView) -> None:
        """It is like this now; what was tried stays said."""
        self.runtime = runtime
        name = runtime.name or runtime.provider
        self._title.set_text(" ".join(part for part in (name, runtime.version) if part))
        self.try_it.setAccessibleName(_("Try {agent}", agent=name))
        online = runtime.status == "online"
        self.try_it.setVisible(online)
        if not self.task:
            glyph, colour = runtime_glyph(runtime, self._context.colours)
            self._say(glyph, colour, runtime_sentence(runtime))

    def show_task(self, task: TaskRow | TaskView) -> None:
        """How the try goes."""
        colours = self._context.colours
        if task.status == "completed":
            took = span(seconds_between(task.started_at, task.ended_at))
            self._over("circle-check", colours.done, _("It answered in {time}.", time=took or _("no time")))
        elif task.status in ("failed", "cancelled"):
            why = reason_text(task.failure_reason or task.status)
            self._over("circle-x", colours.failed, _("It did not work: {why}.", why=why))

    def _try(self) -> None:
        name = self.runtime.name or self.runtime.provider
        self.try_it.setEnabled(False)
        self._say("hourglass", self._context.colours.running, _("It is given a small task …"))
        wanted = TaskAdd(
            prompt=TRY_PROMPT,
            runtime=self.runtime.id if self.runtime.profile else self.runtime.provider,
            title=_("Trying {agent}", agent=name),
            permissions="deny",
        )
        self._context.link.call(
            TaskView, "POST", "/v1/tasks", wanted, timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_started, failed=self._on_refused,
        )  # fmt: skip

    def _on_started(self, task: TaskView) -> None:
        self.task = task.id
        known = self._context.link.state.tasks.get(task.id)
        self.show_task(known if known is not None else task)

    def _on_refused(self, failure: Failure) -> None:
        self._over("circle-x", self._context.colours.failed, refusal_sentence(failure))

    def _over(self, glyph: str, colour: str, text: str) -> None:
        self._say(glyph, colour, text)
        self.try_it.setEnabled(True)
        self.try_it.setText(_("Try again"))

    def _say(self, glyph: str, colour: str, text: str) -> None:
        self._glyph.show_glyph(glyph, colour, text)
        self.state.setText(text)
        tint(self.state, self._context.colours.muted)


class AgentsStep(Step):
    """The step."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.heading = _("Agents on this machine")
        self.words = _(
            "Each was asked for its version. A try gives it a real task of a few words, if you want."
        )
        self.lines: dict[str, AgentLine] = {}
        self.told = Told()
        self._list = QVBoxLayout()
        self._list.setSpacing(0)
        self.missing = MissingAgents(context, MOST_MISSING)
        self.again = quiet_button(_("Look again"), self._look_again)
        self._column.addWidget(self.told)
        self._column.addLayout(self._list)
        self._column.addWidget(self.again, 0, Qt.AlignmentFlag.AlignLeft)
        self._column.addSpacing(tokens.GRID)
        self._column.addWidget(self.missing)
        self._column.addStretch(1)
        self._looks = QTimer(self)  # a search that never answers does not keep the button for ever
        self._looks.setSingleShot(True)
        self._looks.setInterval(REFRESH_MS)
        self._looks.timeout.connect(self._looked)
        context.link.changed.connect(self._on_state)

    def begin(self) -> None:
        self._show_state(self._context.link.state)
        self._ask_missing()

    def show_missing(self, found: list[MissingAgent]) -> None:
        """How to get those that are not here."""
        self.missing.show_agents(found)

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if not self.isVisible():
            return
        if before.runtimes is not state.runtimes or before.link is not state.link:
            self._show_state(state)
        if state.connected and not before.connected:
            self._ask_missing()
        for line in self.lines.values():
            task = state.tasks.get(line.task)
            if task is not None and task is not before.tasks.get(line.task):
                line.show_task(task)

    def _show_state(self, state: DesktopState) -> None:
        found: dict[str, RuntimeView] = {}
        for runtime in state.runtimes.values():
            key = runtime.id if runtime.profile else runtime.provider
            if runtime.provider != SHELL and runtime.connection in ("", "hub") and key not in found:
                found[key] = runtime
        for key in [key for key in self.lines if key not in found]:
            gone = self.lines.pop(key)
            gone.hide()
            gone.deleteLater()
        for key, runtime in sorted(found.items(), key=lambda each: each[1].status != "online"):
            if key in self.lines:
                self.lines[key].show_runtime(runtime)
            else:
                self.lines[key] = AgentLine(self._context, runtime)
                self._list.addWidget(self.lines[key])
        colours = self._context.colours
        self.again.setEnabled(state.connected and not self._looks.isActive())
        if not state.connected:
            text = _("{what}. Agents are looked for as soon as it is up.", what=link_sentence(state))
            self.told.tell("hourglass", colours.waiting, text)
        elif not found:
            text = _("No agent was found. Install one of those below, sign in with it, and look again.")
            self.told.tell("circle-alert", colours.waiting, text)
        else:
            self.told.tell("", colours.muted, "")

    def _ask_missing(self) -> None:
        if self._context.link.state.connected:
            self._context.link.call(list[MissingAgent], "GET", "/v1/runtimes/missing", done=self.show_missing)

    def _look_again(self) -> None:
        self.again.setEnabled(False)
        self._looks.start()
        self._context.link.call(
            list[RuntimeView], "GET", "/v1/runtimes?refresh=1", timeout_ms=REFRESH_MS,
            done=lambda _found: self._looked(), failed=lambda _failure: self._looked(),
        )  # fmt: skip

    def _looked(self) -> None:
        self._looks.stop()
        self._show_state(self._context.link.state)
        self._ask_missing()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self.begin()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._looks.stop()
