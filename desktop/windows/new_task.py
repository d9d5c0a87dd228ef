"""The box for a new task: what should be done, and in quiet choices by whom, how and where."""

from __future__ import annotations

import json
import os
from typing import Final

from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QHideEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from daemon_core.control.model_views import ModelsView, ModelView
from daemon_core.control.views import TaskAdd, TaskView
from desktop.commands import Command
from desktop.daemon.folders import FolderLook
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.models.state import ACTIVE, DesktopState, known_agents
from desktop.models.templates import Template, fields_of, filled
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.windows.bits import Choice, GlyphLabel, PromptBox, label, primary_button, refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.task import refusal_sentence
from desktop.windows.template_menu import FieldForm, TemplateButton
from desktop.words import cut

RECENT: Final = 8
"""Directories that are offered again."""
DROPPED_CHARS: Final = 100_000
LEAST_WIDTH: Final = 72
_OWN, _OTHER, _REPO = "", "\0other", "\0repo"
_OF_AGENT: Final = ("model", "thinking")


class NewTaskBox(QWidget):
    """Starts tasks. What was chosen last is chosen again.

    Args:
        settings: Where the choices are kept.
    """

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._settings = settings
        self._known: list[tuple[str, str]] = []
        self._models_of = ""
        self._models: tuple[ModelView, ...] = ()
        self._wanted = ("", "")
        """Model and thinking level that were chosen last for this agent; empty: the usual ones."""
        self._dirty: tuple[str, int] = ("", -1)
        self._starting = False
        """Asked for, and not answered yet: one press is one task, whatever happens in between."""
        self._look = FolderLook(self)
        self._look.known.connect(self._on_looked)
        self.prompt = PromptBox(_("What should be done?"))
        self.prompt.sent.connect(self.start)
        self.prompt.textChanged.connect(self._on_typed)
        self.prompt.setAcceptDrops(False)  # what is dropped there is the box's
        self.fields = FieldForm(context)
        self.fields.changed.connect(self._show_button)
        self.fields.done.connect(self.start)
        self.agent = self._choice(_("Agent"))
        self.folder = self._choice(_("Directory"))
        self.model = self._choice(_("Model"))
        self.thinking = self._choice(_("Thinking"))
        self.templates = TemplateButton(context)
        self.templates.chosen.connect(self.use_template)
        self.templates.told.connect(self._refuse)
        self.button = primary_button(_("Start"), self.start)
        self.button.setToolTip(_("Ctrl+Enter"))
        self.button.setEnabled(False)
        self._refusal = refusal_label()
        self._refusal.hide()
        self.repo = QLineEdit()
        self.repo.setPlaceholderText(_("Address of a repository, or a path"))
        self.repo.setAccessibleName(_("Address of a repository, or a path"))
        self.ref = QLineEdit()
        self.ref.setPlaceholderText(_("Branch, tag or commit"))
        self.ref.setAccessibleName(_("Branch, tag or commit"))
        for field in (self.repo, self.ref):
            field.textChanged.connect(lambda _text: self._show_button())
            field.returnPressed.connect(self.prompt.setFocus)
        self._build()
        self.agent.activated.connect(lambda _row: self._on_agent())
        self.folder.activated.connect(lambda _row: self._on_folder())
        self.model.activated.connect(lambda _row: self._on_model())
        self.thinking.activated.connect(lambda _row: self._on_thinking())
        self.setAcceptDrops(True)
        self._fill_folders()
        self._fill_models(())
        self.prompt.setPlainText(context.drafts.get("new_task", ""))
        self.repo.setText(str(settings.value("new_task/repo", "") or ""))
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self.show_state(context.link.state)
        self._restore()
        keys = {"A": self.agent, "D": self.folder, "M": self.model, "T": self.thinking}
        for key, choice in keys.items():
            shortcut = QShortcut(QKeySequence(f"Alt+{key}"), self, lambda each=choice: self._open(each))
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            choice.setToolTip(f"{choice.accessibleName()} (Alt+{key})")
        saved = QShortcut(QKeySequence("Ctrl+T"), self, self._open_templates)
        saved.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        self.templates.setToolTip(_("Saved prompts (Ctrl+T)"))

    def _choice(self, name: str) -> Choice:
        made = Choice(name, lambda: self._context.colours, hugs=True)
        made.setMinimumWidth(LEAST_WIDTH)
        made.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        return made

    def _build(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(tokens.GRID)
        for choice in (self.agent, self.folder, self.model, self.thinking):
            row.addWidget(choice)
        row.addWidget(self.templates)
        row.addStretch(1)
        row.addWidget(self.button)
        self._repository = QWidget()
        where = QHBoxLayout(self._repository)
        where.setContentsMargins(0, 0, 0, 0)
        where.setSpacing(tokens.GRID)
        where.addWidget(self.repo, 3)
        where.addWidget(self.ref, 1)
        self._glyph = GlyphLabel()
        self._place_text = label(wrap=True)
        self._place = QWidget()
        told = QHBoxLayout(self._place)
        told.setContentsMargins(0, 0, 0, 0)
        told.setSpacing(tokens.GRID)
        told.addWidget(self._glyph)
        told.addWidget(self._place_text, 1)
        self._place.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 12, 24, 12)
        column.setSpacing(tokens.GRID)
        column.addWidget(self._refusal)
        column.addWidget(self.fields)
        column.addWidget(self.prompt)
        column.addWidget(self._repository)
        column.addWidget(self._place)
        column.addLayout(row)

    # --- what is offered ---------------------------------------------------------------------------

    def show_state(self, state: DesktopState) -> None:
        """Offer the agents that there are now. While the daemon is away, for a restart say, what is being
        written can be written on."""
        self._show_place()
        self._show_button()
        known = known_agents(state)
        self.agent.setVisible(bool(known))
        if known == self._known:
            return
        self._known = known
        before = self.agent.currentData()
        chosen = before or str(self._settings.value("new_task/agent", ""))
        self.agent.clear()
        for name, what in known:
            self.agent.addItem(name, what)
        self.agent.setCurrentIndex(max(0, self.agent.findData(chosen)))
        self._models_of = ""
        if self.agent.currentData() != before:  # that others came or went changes nothing of what was chosen
            self._load_wanted()
            self._fill_models(())
        if self.prompt.toPlainText().strip():
            self._ask_models()

    def start(self) -> None:
        """Start what is written there."""
        prompt = filled(self.prompt.toPlainText(), self.fields.values)
        if not prompt.strip() or not self.button.isEnabled():
            return
        what, _space, name = str(self.agent.currentData() or "").partition(" ")
        directory = self.directory
        repository = self.repo.text().strip() if self._from_repository else ""
        wanted = TaskAdd(
            prompt=prompt,
            agent=name if what == "agent" else "",
            runtime=name if what == "runtime" else "",
            directory=directory,
            model=str(self.model.currentData() or ""),
            thinking=str(self.thinking.currentData() or ""),
            repo=os.path.expanduser(repository),
            ref=self.ref.text().strip() if repository else "",
        )
        self._settings.setValue("new_task/agent", self.agent.currentData())
        self._settings.setValue(self._kept("model"), wanted.model)
        self._settings.setValue(self._kept("thinking"), wanted.thinking)
        self._settings.setValue("new_task/directory", _REPO if repository else directory)
        self._settings.setValue("new_task/repo", repository or self._settings.value("new_task/repo", ""))
        self._starting = True
        self._show_button()
        self._refusal.hide()
        self._context.link.call(
            TaskView, "POST", "/v1/tasks", wanted, timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_started, failed=self._on_refused,
        )  # fmt: skip

    @property
    def directory(self) -> str:
        """The user's directory that is chosen; empty: Ostler makes one."""
        chosen = str(self.folder.currentData() or "")
        return "" if chosen in (_OTHER, _REPO) else chosen

    def choose_directory(self, path: str) -> None:
        """Take this directory, and offer it again later."""
        recent = [path, *(each for each in self._recent() if each != path)][:RECENT]
        self._settings.setValue("new_task/recent", recent)
        self._settings.setValue("new_task/directory", path)
        self._fill_folders()

    def use_template(self, template: Template) -> None:
        """Write a saved prompt into the box, and ask for what is to be filled in."""
        self.prompt.setPlainText(template.text)
        if template.fields:
            self.fields.focus_first()
        else:
            self.prompt.setFocus(Qt.FocusReason.OtherFocusReason)
            self.prompt.moveCursor(self.prompt.textCursor().MoveOperation.End)

    @property
    def _from_repository(self) -> bool:
        return bool(self.folder.currentData() == _REPO)

    def _on_started(self, task: TaskView) -> None:
        self._starting = False
        self.prompt.clear()
        self._context.do(Command("open_task", task.id))

    def _on_refused(self, failure: Failure) -> None:
        self._starting = False
        self._refuse(refusal_sentence(failure))
        self._show_button()

    def _refuse(self, sentence: str) -> None:
        tint(self._refusal, self._context.colours.failed)
        self._refusal.setText(sentence)
        self._refusal.show()

    def _on_typed(self) -> None:
        text = self.prompt.toPlainText()
        self._context.drafts["new_task"] = text
        self.fields.show_fields(fields_of(text))
        self.templates.text_to_save = text
        self._show_button()
        if text.strip():
            self._ask_models()

    def _show_button(self) -> None:
        ready = self._context.link.state.connected and not self._starting
        ready = ready and bool(self.prompt.toPlainText().strip()) and self.fields.complete
        if self._from_repository and not self.repo.text().strip():
            ready = False
        self.button.setEnabled(ready)

    # --- models ------------------------------------------------------------------------------------

    def _on_agent(self) -> None:
        self._models_of = ""
        self._load_wanted()
        self._fill_models(())
        self._ask_models()

    def _on_model(self) -> None:
        self._wanted = (str(self.model.currentData() or ""), self._wanted[1])
        self._fill_thinking()

    def _on_thinking(self) -> None:
        self._wanted = (self._wanted[0], str(self.thinking.currentData() or ""))

    def _kept(self, what: str) -> str:
        """Where a choice that is one agent's is kept."""
        return f"new_task_{what}/{self.agent.currentData() or ''}"

    def _load_wanted(self) -> None:
        model, thinking = (str(self._settings.value(self._kept(what), "") or "") for what in _OF_AGENT)
        self._wanted = (model, thinking)
        self.thinking.clear()

    def _ask_models(self) -> None:
        """Ask for the models once somebody begins to write: an agent may have to be started for it."""
        what, _space, name = str(self.agent.currentData() or "").partition(" ")
        if what == "agent":
            known = self._context.link.state.agents.get(name)
            name = known.runtime if known is not None else ""
        if not name or name in (self._models_of, "shell") or not self._context.link.state.connected:
            return
        self._models_of = name

        def show(found: ModelsView) -> None:
            if self._models_of == name:
                self._fill_models(found.models)

        self._context.link.call(
            ModelsView, "GET", f"/v1/runtimes/{name}/models", done=show, timeout_ms=WORK_TIMEOUT_MS
        )

    def _fill_models(self, models: tuple[ModelView, ...]) -> None:
        self._models = models
        self.model.clear()
        usual = next((model.name or model.id for model in models if model.default), "")
        self.model.addItem(_("Usual: {name}", name=usual) if usual else _("Usual model"), "")
        for model in models:
            self.model.addItem(model.name or model.id, model.id)
        wanted = self._wanted[0]
        if wanted and not models:  # not known yet: what was taken last is offered until it is
            self.model.addItem(wanted, wanted)
        self.model.setCurrentIndex(max(0, self.model.findData(wanted)))
        self.model.setVisible(self.model.count() > 1)
        self._fill_thinking()

    def _fill_thinking(self) -> None:
        """The levels of the model that is chosen."""
        wanted = str(self.model.currentData() or "")
        model = next((each for each in self._models if (each.id == wanted if wanted else each.default)), None)
        levels = model.thinking_levels if model is not None else ()
        wanted_level = str(self.thinking.currentData() or self._wanted[1])
        if wanted_level and not self._models:
            levels = (wanted_level,)
        self.thinking.clear()
        usual = model.default_level if model is not None else ""
        self.thinking.addItem(_("Usual: {level}", level=usual) if usual else _("Usual thinking"), "")
        for level in levels:
            self.thinking.addItem(_("Thinking: {level}", level=level), level)
        self.thinking.setCurrentIndex(max(0, self.thinking.findData(wanted_level)))
        self.thinking.setVisible(bool(levels))

    # --- where -------------------------------------------------------------------------------------

    def _recent(self) -> list[str]:
        found = self._settings.value("new_task/recent", [])
        paths = found if isinstance(found, list) else [found]
        return [str(path) for path in paths if path and os.path.isdir(str(path))]

    def _fill_folders(self) -> None:
        last = str(self._settings.value("new_task/directory", "") or "")
        self.folder.clear()
        self.folder.addItem(_("Own directory"), _OWN)
        for path in self._recent():
            self.folder.addItem(os.path.basename(path) or path, path)
            self.folder.setItemData(self.folder.count() - 1, path, Qt.ItemDataRole.ToolTipRole)
        self.folder.addItem(_("From a repository…"), _REPO)
        self.folder.addItem(_("Another directory…"), _OTHER)
        self.folder.setCurrentIndex(max(0, self.folder.findData(last)))
        self._look_there()

    def _on_folder(self) -> None:
        if self.folder.currentData() != _OTHER:
            self._look_there()
            if self._from_repository:
                self.repo.setFocus(Qt.FocusReason.OtherFocusReason)
            return
        self.folder.setCurrentIndex(0)
        self._look_there()
        dialog = QFileDialog(self, _("Where should it work?"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.choose_directory)
        dialog.open()

    def _look_there(self) -> None:
        self._repository.setVisible(self._from_repository)
        self._dirty = ("", -1)
        self._look.stop()
        if self.directory:
            self._look.look(self.directory)
        self._show_place()
        self._show_button()

    def _on_looked(self, directory: str, files: int) -> None:
        self._dirty = (directory, files)
        self._show_place()

    def _show_place(self) -> None:
        """One line where the directory is in use, or has what is not committed."""
        directory = self.directory
        text = place_sentence(directory, self._dirty, self._context.link.state) if directory else ""
        self._place_text.setText(text)
        self._place.setVisible(bool(text))

    # --- dropped -----------------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        if event.mimeData().hasUrls() or event.mimeData().hasText():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        """A directory is where to work; files are named in the prompt; text is added to it."""
        data = event.mimeData()
        paths = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
        directory = next((path for path in paths if os.path.isdir(path)), "")
        if directory:
            self.choose_directory(directory)
        files = "\n".join(path for path in paths if not os.path.isdir(path))
        text = files if paths else data.text()
        if text and not (directory and not files):
            self._add_text(text[:DROPPED_CHARS])
        event.acceptProposedAction()

    def _add_text(self, text: str) -> None:
        cursor = self.prompt.textCursor()
        before = self.prompt.toPlainText()[: cursor.position()]
        cursor.insertText(text if not before or before[-1].isspace() else f"\n{text}")
        self.prompt.setFocus(Qt.FocusReason.OtherFocusReason)

    # --- small -------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """What was chosen and filled in, for this box made anew in another language."""
        drafts = self._context.drafts
        drafts["new_task agent"] = str(self.agent.currentData() or "")
        drafts["new_task folder"] = str(self.folder.currentData() or "")
        drafts["new_task model"], drafts["new_task thinking"] = self._wanted
        drafts["new_task ref"] = self.ref.text()
        drafts["new_task fields"] = json.dumps(self.fields.values)

    def _restore(self) -> None:
        drafts = self._context.drafts
        if "new_task agent" not in drafts:
            return
        at = self.agent.findData(drafts["new_task agent"])
        if at >= 0:
            self.agent.setCurrentIndex(at)
            self._wanted = (drafts["new_task model"], drafts["new_task thinking"])
            self._fill_models(())
        at = self.folder.findData(drafts["new_task folder"])
        if at >= 0:
            self.folder.setCurrentIndex(at)
            self._look_there()
        self.ref.setText(drafts["new_task ref"])
        for name, value in json.loads(drafts["new_task fields"]).items():
            if name in self.fields.edits:
                self.fields.edits[name].setText(value)

    def _open(self, choice: Choice) -> None:
        if choice.isVisible():
            choice.setFocus(Qt.FocusReason.ShortcutFocusReason)
            choice.showPopup()

    def _open_templates(self) -> None:
        self.templates.open_menu()

    def _recolour(self) -> None:
        colours = self._context.colours
        self._glyph.show_glyph("circle-alert", colours.waiting)
        tint(self._place_text, colours.waiting)
        self.templates.recolour(colours)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._look.stop()
        self._keep()


def place_sentence(directory: str, dirty: tuple[str, int], state: DesktopState) -> str:
    """What is to be known about a directory before a task begins in it; empty: nothing."""
    real = os.path.realpath(directory)
    user = next(
        (
            task
            for task in state.tasks.values()
            if task.status in ACTIVE and task.directory and os.path.realpath(task.directory) == real
        ),
        None,
    )
    parts = []
    if user is not None:
        parts.append(
            _("“{title}” works in this directory; the new task waits for it.", title=cut(user.title, 60))
        )
    if dirty[0] == directory and dirty[1] > 0:
        parts.append(
            n_(
                "{n} file there has changes that are not committed.",
                "{n} files there have changes that are not committed.",
                dirty[1],
            )
        )
    return " ".join(parts)
