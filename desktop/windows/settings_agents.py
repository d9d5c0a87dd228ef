"""Named agents of the hub: the list, the form for one, and the short list of what each may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from daemon_core.control.errors import ControlError
from daemon_core.control.model_views import ModelsView
from daemon_core.control.views import AgentAdd, AgentEdit, AgentView
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import DesktopState
from desktop.text import _, mark
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.asking import ask
from desktop.windows.bits import (
    Choice,
    Elided,
    GlyphButton,
    PromptBox,
    label,
    primary_button,
    quiet_button,
    refusal_label,
    tint,
)
from desktop.windows.context import Context
from desktop.windows.settings_editors import CalmChoice
from desktop.windows.settings_words import refusal_words

POLICIES: Final = (
    ("", mark("As set for all")),
    ("allow", mark("Everything")),
    ("ask", mark("Ask me first")),
    ("deny", mark("Nothing it must ask for")),
)
RESUMES: Final = ((None, mark("As set for its program")), (True, mark("Yes, by itself")),
                  (False, mark("No, wait for me")))  # fmt: skip
FIELD_WIDTH: Final = 280


class AgentsPanel(QWidget):
    """The list with its form. The form stands in the place of the list while it is open."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: list[AgentView] | None = None
        self._asking = ""
        """The agent of which is asked whether it is to go."""
        self._empty = label(
            _(
                "There is none yet. Tasks name a program then, such as Claude Code. Add one to give it"
                " instructions, a model or rules of its own."
            ),
            wrap=True,
        )
        self._error = refusal_label()
        self._list = QVBoxLayout()
        self._list.setSpacing(tokens.GRID)
        self.add = quiet_button(_("Add an agent"), lambda: self.open_form(None))
        self._listed = QWidget()
        column = QVBoxLayout(self._listed)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        column.setSpacing(12)
        column.addWidget(self._empty)
        column.addLayout(self._list)
        column.addWidget(self._error)
        column.addWidget(self.add, 0, Qt.AlignmentFlag.AlignLeft)
        self._place = QVBoxLayout(self)
        self._place.setContentsMargins(0, 0, 0, 0)
        self._place.addWidget(self._listed)
        self.form: AgentForm | None = None
        self._error.hide()
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def open_form(self, agent: AgentView | None) -> None:
        """The form for an agent, or for a new one."""
        self.close_form()
        self.form = AgentForm(self._context, agent)
        self.form.left.connect(self.close_form)
        self._place.addWidget(self.form)
        self._listed.hide()
        self.form.name.setFocus(Qt.FocusReason.OtherFocusReason)

    def close_form(self) -> None:
        """Back to the list."""
        if self.form is not None:
            had = self.form.isAncestorOf(self.focusWidget()) if self.focusWidget() is not None else False
            self.form.hide()
            self.form.deleteLater()
            self.form = None
            self._listed.show()
            if had:
                self.add.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        self._show_agents()

    def _recolour(self) -> None:
        tint(self._empty, self._context.colours.muted)
        tint(self._error, self._context.colours.failed)
        self._shown = None
        self._show_agents()

    def _show_agents(self) -> None:
        agents = sorted(self._context.link.state.agents.values(), key=lambda each: each.name.casefold())
        self._empty.setVisible(not agents)
        if agents == self._shown:
            return
        self._shown = agents
        while (item := self._list.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for agent in agents:
            self._list.addWidget(self._row(agent))

    def _row(self, agent: AgentView) -> QWidget:
        made = QWidget()
        colours = self._context.colours
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(Elided(agent.name, strong=True))
        facts = Elided(facts_of(agent, self._context))
        facts.set_text(facts.text, colours.muted)
        words.addWidget(facts)
        row = QHBoxLayout(made)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(tokens.GRID)
        row.addLayout(words, 1)
        if agent.id == self._asking:
            question = label(_("Remove it? Its conversations stay."))
            row.addWidget(question)
            remove = quiet_button(_("Remove"), lambda: self._remove(agent))
            remove.setAccessibleName(_("Remove {name}", name=agent.name))
            row.addWidget(remove)
            row.addWidget(quiet_button(_("Keep"), lambda: self._ask(None)))
            remove.setFocus(Qt.FocusReason.OtherFocusReason)
            return made
        edit = GlyphButton("pencil", _("Change {name}", name=agent.name), colours)
        edit.clicked.connect(lambda _checked=False: self.open_form(agent))
        remove_glyph = GlyphButton("x", _("Remove {name}", name=agent.name), colours)
        remove_glyph.clicked.connect(lambda _checked=False: self._ask(agent))
        row.addWidget(edit)
        row.addWidget(remove_glyph)
        return made

    def _ask(self, agent: AgentView | None) -> None:
        self._asking = agent.id if agent is not None else ""
        self._shown = None
        self._show_agents()

    def _remove(self, agent: AgentView) -> None:
        self._ask(None)
        self._error.hide()
        ask(self, self._context.link, AgentView, "DELETE", _path(agent), failed=self._on_refused)

    def _on_refused(self, failure: Failure) -> None:
        self._error.setText(agent_refusal(failure))
        self._error.show()


class AgentForm(QWidget):
    """One agent. What the form does not show (environment, skills, MCP servers) stays as it is.

    Signals:
        left(): It was saved, or given up.
    """

    left = Signal()

    def __init__(self, context: Context, agent: AgentView | None) -> None:
        super().__init__()
        self._context = context
        self._agent = agent
        self._models: ModelsView | None = None

        def colours() -> Colours:
            return context.colours

        self.name = QLineEdit(agent.name if agent else "")
        self.name.setAccessibleName(_("Name"))
        self.runtime = CalmChoice(_("Program"), colours)
        self._fill_runtimes()
        self.runtime.setEnabled(agent is None)
        self.model = _Words(_("Model"), agent.model if agent else "", colours)
        self.thinking = _Words(_("Thinking level"), agent.thinking if agent else "", colours)
        self.permissions = CalmChoice(_("What it may do"), colours)
        for value, text in POLICIES:
            self.permissions.addItem(_(text), value)
        self.resume = CalmChoice(_("Go on after a usage limit"), colours)
        for wish, text in RESUMES:
            self.resume.addItem(_(text), wish)
        self.instructions = PromptBox(_("What it is told with each task"))
        if agent is not None:
            self.permissions.setCurrentIndex(max(0, self.permissions.findData(agent.permissions)))
            self.resume.setCurrentIndex([wish for wish, _text in RESUMES].index(agent.resume_after_limit))
            self.instructions.setPlainText(agent.instructions)
        self.error = refusal_label()
        self.error.hide()
        self.save = primary_button(_("Save") if agent else _("Add"), self.send)
        cancel = quiet_button(_("Cancel"), self.left.emit)
        grid = QGridLayout()
        grid.setHorizontalSpacing(tokens.GRID * 2)
        grid.setVerticalSpacing(tokens.GRID)
        grid.setColumnStretch(1, 1)
        fields: tuple[QWidget, ...] = (
            self.name, self.runtime, self.model, self.thinking, self.permissions, self.resume,
        )  # fmt: skip
        for line, field in enumerate(fields):
            title = label(field.accessibleName())
            title.setBuddy(field)
            grid.addWidget(title, line, 0)
            if isinstance(field, QLineEdit | QComboBox):
                field.setMaximumWidth(FIELD_WIDTH)
            grid.addWidget(field, line, 1)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(cancel)
        buttons.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        column.setSpacing(12)
        title = label(
            _("Change {name}", name=agent.name) if agent else _("A new agent"), size=tokens.TITLE, strong=True
        )
        column.addWidget(title)
        column.addLayout(grid)
        column.addWidget(label(_("Instructions")))
        column.addWidget(self.instructions)
        column.addWidget(self.error)
        column.addLayout(buttons)
        self.runtime.activated.connect(lambda _row: self._ask_models())
        self.model.currentTextChanged.connect(lambda _text: self._fill_levels())
        self.name.textChanged.connect(lambda _text: self._enable())
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self._enable()
        self._ask_models()

    def send(self) -> None:
        """Save it."""
        self.save.setEnabled(False)
        self.error.hide()
        given: dict[str, Any] = {
            "name": self.name.text().strip(),
            "model": self.model.currentText().strip(),
            "thinking": self.thinking.currentText().strip(),
            "permissions": str(self.permissions.currentData() or ""),
            "resume_after_limit": RESUMES[max(0, self.resume.currentIndex())][0],
            "instructions": self.instructions.toPlainText(),
        }
        if self._agent is None:
            body: Any = AgentAdd(runtime=str(self.runtime.currentData() or ""), **given)
            method, path = "POST", "/v1/agents"
        else:
            body, method, path = AgentEdit(**given), "PATCH", _path(self._agent)
        ask(
            self,
            self._context.link,
            AgentView,
            method,
            path,
            body,
            done=lambda _agent: self.left.emit(),
            failed=self._on_refused,
        )

    def _on_refused(self, failure: Failure) -> None:
        self.error.setText(agent_refusal(failure))
        self.error.show()
        self._enable()

    def _enable(self) -> None:
        self.save.setEnabled(bool(self.name.text().strip()) and self.runtime.count() > 0)

    def _fill_runtimes(self) -> None:
        seen: set[str] = set()
        for runtime in self._context.link.state.runtimes.values():
            own = runtime.connection in ("", "hub")
            if own and runtime.status in ("online", "offline") and runtime.provider not in seen:
                seen.add(runtime.provider)
                self.runtime.addItem(runtime.name or runtime.provider, runtime.provider)
        if self._agent is not None and self._agent.runtime not in seen:
            self.runtime.addItem(self._agent.runtime, self._agent.runtime)
        wanted = self._agent.runtime if self._agent is not None else ""
        self.runtime.setCurrentIndex(max(0, self.runtime.findData(wanted)))

    def _ask_models(self) -> None:
        provider = str(self.runtime.currentData() or "")
        if provider:
            ask(self, self._context.link,
                ModelsView, "GET", f"/v1/runtimes/{quote(provider, safe='')}/models",
                done=self._on_models, timeout_ms=WORK_TIMEOUT_MS,
            )  # fmt: skip

    def _on_models(self, models: ModelsView) -> None:
        if models.runtime == self.runtime.currentData():
            self._models = models
            self.model.offer([each.id for each in models.models])
            self._fill_levels()

    def _fill_levels(self) -> None:
        chosen = self.model.currentText().strip()
        levels: list[str] = []
        for each in self._models.models if self._models is not None else ():
            if each.id == chosen or (not chosen and each.default):
                levels = list(each.thinking_levels)
        self.thinking.offer(levels)

    def _recolour(self) -> None:
        tint(self.error, self._context.colours.failed)


class _Words(Choice):
    """A text that may be chosen from a list, or be another one; empty: the agent's own choice."""

    def __init__(self, name: str, text: str, colours: Callable[[], Colours]) -> None:
        super().__init__(name, colours)
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        field = self.lineEdit()
        if field is not None:
            field.setPlaceholderText(_("its own choice"))
            field.setAccessibleName(name)
        self.setCurrentText(text)

    def offer(self, texts: list[str]) -> None:
        """Offer these; what stands there stays."""
        written = self.currentText()
        self.blockSignals(True)
        self.clear()
        self.addItems(texts)
        self.setCurrentText(written)
        self.blockSignals(False)


class AgentPolicies(QWidget):
    """What each named agent may do; not there while there are none."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: list[tuple[str, str, str]] | None = None
        self.choices: dict[str, CalmChoice] = {}
        self._heading = label(_("Named agents"), size=tokens.TITLE, strong=True)
        self._error = refusal_label()
        self._error.hide()
        self._rows = QVBoxLayout()
        self._rows.setSpacing(tokens.GRID)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID * 2, tokens.ROW + tokens.HALF, 0)
        column.setSpacing(tokens.GRID)
        column.addWidget(self._heading)
        column.addLayout(self._rows)
        column.addWidget(self._error)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self._show_agents()

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        self._show_agents()

    def _show_agents(self) -> None:
        agents = sorted(self._context.link.state.agents.values(), key=lambda each: each.name.casefold())
        wanted = [(each.id, each.name, each.permissions) for each in agents]
        self.setVisible(bool(agents))
        if wanted == self._shown:
            return
        self._shown = wanted
        while (item := self._rows.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self.choices = {}
        for agent in agents:
            choice = CalmChoice(f"{agent.name}: {_('What it may do')}", lambda: self._context.colours)
            for value, text in POLICIES:
                choice.addItem(_(text), value)
            choice.setCurrentIndex(max(0, choice.findData(agent.permissions)))
            choice.activated.connect(lambda _row, which=agent, field=choice: self._set(which, field))
            holder = QWidget()
            row = QHBoxLayout(holder)
            row.setContentsMargins(0, 0, 0, 0)
            row.addWidget(Elided(agent.name), 1)
            row.addWidget(choice)
            self._rows.addWidget(holder)
            self.choices[agent.name] = choice

    def _set(self, agent: AgentView, choice: CalmChoice) -> None:
        self._error.hide()
        ask(self, self._context.link,
            AgentView, "PATCH", _path(agent), AgentEdit(permissions=str(choice.currentData())),
            failed=self._on_refused,
        )  # fmt: skip

    def _on_refused(self, failure: Failure) -> None:
        self._error.setText(agent_refusal(failure))
        self._error.show()
        self._shown = None
        self._show_agents()

    def _recolour(self) -> None:
        tint(self._error, self._context.colours.failed)


def facts_of(agent: AgentView, context: Context) -> str:
    """What an agent is, on one line."""
    names = {each.provider: each.name for each in context.link.state.runtimes.values() if each.name}
    policy = dict(POLICIES).get(agent.permissions, "") if agent.permissions else ""
    parts = (
        names.get(agent.runtime, agent.runtime),
        agent.model,
        agent.thinking,
        _(policy) if policy else "",
        " ".join(agent.instructions.split())[:120],
    )
    return " · ".join(part for part in parts if part)


def agent_refusal(failure: Failure) -> str:
    """Why an agent was not changed."""
    if isinstance(failure, ControlError):
        params = failure.params
        match failure.code:
            case "agent_exists":
                return _("There is an agent of that name already.")
            case "busy":
                return _("It has a task that goes on. Remove it when that has ended.")
            case "no_such_agent":
                return _("This agent is not there any more.")
            case "unknown_runtime":
                return _("Its program was not found on this machine.")
            case "hub_disabled":
                return _("Named agents belong to the tasks of this machine, which are switched off.")
            case "invalid_input":
                detail = params.get("detail") or str(params.get("why", "")).replace("_", " ")
                return _("{field} cannot be that: {why}.", field=str(params.get("field", "")), why=detail)
    return refusal_words(failure)


def _path(agent: AgentView) -> str:
    return f"/v1/agents/{quote(agent.name, safe='')}"
