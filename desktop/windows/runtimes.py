"""The page "Runtimes": the agents that were found, how each stands, and what is missing."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from daemon_core.control.views import Condition, RuntimeView
from desktop.commands import Command
from desktop.models.state import DesktopState
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.windows.bits import Elided, GlyphLabel, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.words import condition_text


class RuntimesPage(QWidget):
    """The page."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: list[RuntimeView] | None = None
        self._sentence = Elided(size=tokens.SENTENCE, strong=True)
        self._empty = label(wrap=True)
        self._area = QScrollArea()
        self._area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._area.setWidgetResizable(True)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        head = QHBoxLayout()
        head.addWidget(self._sentence, 1)
        self._again = quiet_button(_("Look again"), self._look_again)
        head.addWidget(self._again)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 0)
        column.setSpacing(tokens.GRID * 2)
        column.addLayout(head)
        column.addWidget(self._empty)
        column.addWidget(self._area, 1)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)

    def _look_again(self) -> None:
        self._again.setEnabled(False)
        self._context.link.call(
            list[RuntimeView], "GET", "/v1/runtimes?refresh=1", timeout_ms=60_000,
            done=lambda _found: self._again.setEnabled(True),
            failed=lambda _failure: self._again.setEnabled(True),
        )  # fmt: skip

    def _recolour(self) -> None:
        self._shown = None
        self._show_state(self._context.link.state)

    def _on_state(self, _before: DesktopState, state: DesktopState) -> None:
        self._show_state(state)

    def _show_state(self, state: DesktopState) -> None:
        if not self.isVisible():
            return
        order = {"online": 0, "offline": 1, "disabled": 2}
        found = sorted(
            state.runtimes.values(), key=lambda each: (order.get(each.status, 3), each.name or each.provider)
        )
        usable = sum(each.status == "online" for each in found)
        self._sentence.set_text(n_("{n} agent is ready", "{n} agents are ready", usable))
        tint(self._empty, self._context.colours.muted)
        self._empty.setVisible(not found)
        self._empty.setText(
            _("No agent was found on this machine. Install one, sign in with it, and look again.")
        )
        if found != self._shown:
            self._shown = found
            self._fill(found)

    def _fill(self, found: list[RuntimeView]) -> None:
        place = self._area.verticalScrollBar().value()
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, tokens.GRID, 24)
        column.setSpacing(12)
        for runtime in found:
            column.addLayout(self._row(runtime))
        column.addStretch(1)
        self._area.setWidget(inner)
        self._area.verticalScrollBar().setValue(place)

    def _row(self, runtime: RuntimeView) -> QHBoxLayout:
        colours = self._context.colours
        name, colour = {
            "online": ("circle-check", colours.done),
            "offline": ("circle-alert", colours.waiting),
            "disabled": ("circle-slash", colours.neutral),
        }.get(runtime.status, ("circle-x", colours.neutral))
        glyph = GlyphLabel()
        state = runtime_sentence(runtime)
        glyph.show_glyph(name, colour, state)
        title = " ".join(part for part in (runtime.name or runtime.provider, runtime.version) if part)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(Elided(title, strong=True))
        told = label(state, wrap=True)
        tint(told, colours.muted)
        words.addWidget(told)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        if runtime.status in ("online", "offline", "disabled"):
            off = runtime.status == "disabled"
            text = _("Switch on") if off else _("Switch off")
            command = Command("runtime_on" if off else "runtime_off", runtime.id)
            row.addWidget(quiet_button(text, lambda: self._context.do(command)))
        return row

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._show_state(self._context.link.state)


def runtime_sentence(runtime: RuntimeView) -> str:
    """How a runtime stands, and what to do where it cannot be used."""
    reason = ""
    if runtime.reason:
        params = {"provider": runtime.name or runtime.provider, "version": runtime.version}
        reason = condition_text(Condition(code=runtime.reason, params={**params, **runtime.reason_params}))
    state = {
        "online": n_("{n} task runs with it", "{n} tasks run with it", runtime.busy)
        if runtime.busy
        else _("Ready"),
        "offline": _("Offline"),
        "disabled": _("Switched off"),
    }.get(runtime.status, reason or _("Cannot be used"))
    signed_out = runtime.hint if runtime.signed_in == "no" else ""
    shown_reason = reason if reason != state else ""
    return " · ".join(part for part in (state, shown_reason, signed_out, runtime.path) if part)
