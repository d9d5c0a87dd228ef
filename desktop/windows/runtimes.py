"""The page "Runtimes": the agents that were found, how each stands and what can be done about it, what models
it has, and how to get those that are not here."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from daemon_core.control.model_views import ModelsView
from daemon_core.control.runtime_requests import MissingAgent
from daemon_core.control.views import RuntimeView
from desktop.commands import Command
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import SHELL, DesktopState
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.asking import ask
from desktop.windows.bits import Elided, GlyphLabel, label, quiet_button, tab_by_place, tint
from desktop.windows.context import Context
from desktop.windows.missing_agents import MissingAgents
from desktop.windows.runtime_words import models_sentence, runtime_glyph, runtime_sentence
from desktop.windows.switch import Switch
from desktop.words import ready_sentence

MOST_MISSING: Final = 6
REFRESH_MS: Final = 60_000
SETTLED_MS: Final = 4_000
"""What was switched shows as it is by then, also where the daemon did not want it."""


class RuntimeRow(QWidget):
    """One agent."""

    def __init__(self, context: Context, runtime: RuntimeView) -> None:
        super().__init__()
        self._context = context
        self.runtime = runtime
        self._glyph = GlyphLabel()
        self._title = Elided(strong=True)
        self.state = label(wrap=True)
        self.models = label(wrap=True)
        self.models.hide()
        self.ask_models = quiet_button(_("Models"), self._on_models)
        self.ask_models.setProperty("quiet", True)
        self.switch = Switch("", lambda: context.colours)
        self.switch.clicked.connect(self._on_switched)
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._settled.timeout.connect(lambda: self.show_runtime(self.runtime))
        words = QVBoxLayout()
        words.setSpacing(2)
        for each in (self._title, self.state, self.models):
            words.addWidget(each)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        row.setSpacing(12)
        row.addWidget(self._glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        for control in (self.ask_models, self.switch):
            policy = control.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            policy.setVerticalPolicy(QSizePolicy.Policy.Fixed)
            control.setSizePolicy(policy)
            row.addWidget(control, 0, Qt.AlignmentFlag.AlignTop)
        self.show_runtime(runtime)

    def show_runtime(self, runtime: RuntimeView) -> None:
        """It is like this now."""
        self.runtime = runtime
        colours = self._context.colours
        glyph, colour = runtime_glyph(runtime, colours)
        sentence = runtime_sentence(runtime)
        name = runtime.name or runtime.provider
        self._glyph.show_glyph(glyph, colour, sentence)
        self._title.set_text(" ".join(part for part in (name, runtime.version) if part))
        self.state.setText(sentence)
        tint(self.state, colours.muted)
        tint(self.models, colours.muted)
        self.switch.setVisible(runtime.status in ("online", "offline", "off"))
        self.switch.setChecked(runtime.status != "off")
        self.switch.setAccessibleName(_("Use {agent}", agent=name))
        self.switch.setToolTip(_("Switch on") if runtime.status == "off" else _("Switch off"))
        self.ask_models.setVisible(runtime.status == "online" and runtime.provider != SHELL)
        self.ask_models.setAccessibleName(_("Models of {agent}", agent=name))
        if not self.ask_models.isVisibleTo(self):
            self.models.hide()

    def show_models(self, found: ModelsView) -> None:
        """Which models it has."""
        self._say(models_sentence(found))

    def _say(self, text: str) -> None:
        self.models.setText(text)
        self.models.show()

    def _on_switched(self, on: bool) -> None:
        self._settled.start()
        self._context.do(Command("runtime_on" if on else "runtime_off", self.runtime.id))

    def _on_models(self) -> None:
        if self.models.isVisibleTo(self):
            self.models.hide()
            return
        self._say(_("It is asked …"))
        ask(self, self._context.link,
            ModelsView, "GET", f"/v1/runtimes/{quote(self.runtime.id, safe='')}/models",
            timeout_ms=WORK_TIMEOUT_MS, done=self.show_models, failed=self._on_no_models,
        )  # fmt: skip

    def _on_no_models(self, _failure: Failure) -> None:
        self._say(_("It cannot be asked for its models now."))


class RuntimesPage(QWidget):
    """The page."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.rows: dict[str, RuntimeRow] = {}
        self._sentence = Elided(size=tokens.SENTENCE, strong=True)
        self._empty = label(wrap=True)
        self._list = QVBoxLayout()
        self._list.setSpacing(0)
        self.missing = MissingAgents(context, MOST_MISSING)
        self._inner = inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(24, 0, 24, 24)
        column.setSpacing(tokens.GRID * 2)
        column.addWidget(self._empty)
        column.addLayout(self._list)
        column.addWidget(self.missing)
        column.addStretch(1)
        self._area = QScrollArea()
        self._area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._area.setWidgetResizable(True)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setWidget(inner)
        head = QHBoxLayout()
        head.setContentsMargins(24, 0, 24, 0)
        head.addWidget(self._sentence, 1)
        self._again = quiet_button(_("Look again"), self._look_again)
        head.addWidget(self._again)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 24, 0, 0)
        column.setSpacing(tokens.GRID)
        column.addLayout(head)
        column.addWidget(self._area, 1)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)

    def _look_again(self) -> None:
        self._again.setEnabled(False)
        ask(self, self._context.link,
            list[RuntimeView], "GET", "/v1/runtimes?refresh=1", timeout_ms=REFRESH_MS,
            done=lambda _found: self._looked(), failed=lambda _failure: self._looked(),
        )  # fmt: skip

    def _looked(self) -> None:
        self._again.setEnabled(self._context.link.state.connected)
        self._ask_missing()

    def _ask_missing(self) -> None:
        if self._context.link.state.connected and self.isVisible():
            ask(self, self._context.link,
                list[MissingAgent], "GET", "/v1/runtimes/missing", done=self.missing.show_agents,
            )  # fmt: skip

    def _recolour(self) -> None:
        for row in self.rows.values():
            row.show_runtime(row.runtime)
        self._show_state(self._context.link.state)

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        self._show_state(state)
        if state.connected and not before.connected:
            self._ask_missing()

    def _show_state(self, state: DesktopState) -> None:
        if not self.isVisible():
            return
        order = {"online": 0, "offline": 1, "off": 2}
        found = sorted(
            state.runtimes.values(),
            key=lambda each: (order.get(each.status, 3), (each.name or each.provider).casefold(), each.id),
        )
        self._sentence.set_text(ready_sentence(state))
        tint(self._empty, self._context.colours.muted)
        self._empty.setVisible(not any(each.provider != SHELL for each in found))
        self._empty.setText(
            _("No agent was found on this machine. Install one, sign in with it, and look again.")
            if state.connected
            else _("The agents cannot be told while the daemon is away.")
        )
        self._again.setEnabled(state.connected)
        wanted = {each.id: each for each in found}
        for ident in [ident for ident in self.rows if ident not in wanted]:
            gone = self.rows.pop(ident)
            gone.hide()
            gone.deleteLater()
        for place, (ident, runtime) in enumerate(wanted.items()):
            row = self.rows.get(ident)
            if row is None:
                row = self.rows[ident] = RuntimeRow(self._context, runtime)
            elif row.runtime != runtime:
                row.show_runtime(runtime)
            if self._list.indexOf(row) != place:
                self._list.insertWidget(place, row)

    def focusNextPrevChild(self, next: bool) -> bool:  # noqa: N802 - Qt's names
        tab_by_place(self._inner)
        return super().focusNextPrevChild(next)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802
        super().showEvent(event)
        self._show_state(self._context.link.state)
        self._ask_missing()
