"""One setting on the page: what it is, its field, the way back to its default, and what there is to say."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from daemon_core.control.settings_views import SettingChanged
from desktop.commands import Command
from desktop.daemon.http import Failure
from desktop.models.settings import SettingsStore
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.asking import while_there
from desktop.windows.bits import GlyphButton, label, quiet_button, refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.settings_editors import Editor, editor_for
from desktop.windows.settings_words import default_text, hint_of, refusal_words, title_of


class SettingRow(QWidget):
    """A change is made at once. One that is refused stays in the field, with the reason below it."""

    def __init__(
        self, context: Context, store: SettingsStore, key: str, editor: Editor | None = None
    ) -> None:
        super().__init__()
        self.key = key
        self._context = context
        self._store = store
        view = store.settings[key]
        self.editor = editor if editor is not None else editor_for(view, lambda: context.colours)
        self.title = label(title_of(key), wrap=True)
        self._hint = label(hint_of(view), wrap=True)
        if not self._hint.text():
            self._hint.hide()
        self._note = label(wrap=True)
        self.error = refusal_label()
        self.restart = quiet_button(_("Restart it now"), lambda: context.do(Command("restart_daemon")))
        self.restart.setToolTip(_("Tasks go on while Ostler's daemon starts again."))
        self.reset = GlyphButton("rotate-ccw", "", context.colours)
        self.reset.clicked.connect(lambda _checked=False: self.unset())
        kept = self.reset.sizePolicy()
        kept.setRetainSizeWhenHidden(True)
        self.reset.setSizePolicy(kept)
        self.setAccessibleName(title_of(key))

        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self.title)
        words.addWidget(self._hint)
        head = QHBoxLayout()
        head.setSpacing(tokens.GRID)
        head.addLayout(words, 1)
        side = QHBoxLayout()
        side.setSpacing(tokens.HALF)
        if not self.editor.wide:
            side.addWidget(self.editor, 0, Qt.AlignmentFlag.AlignVCenter)
        side.addWidget(self.reset, 0, Qt.AlignmentFlag.AlignVCenter)
        head.addLayout(side)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        column.setSpacing(tokens.HALF)
        column.addLayout(head)
        if self.editor.wide:
            below = QHBoxLayout()
            below.setContentsMargins(0, 2, tokens.ROW + tokens.HALF if self.editor.aligned else 0, 0)
            below.addWidget(self.editor)
            column.addLayout(below)
        note = QHBoxLayout()
        note.setSpacing(tokens.GRID)
        note.addWidget(self._note, 1)
        note.addWidget(self.restart)
        column.addLayout(note)
        column.addWidget(self.error)

        self.editor.edited.connect(self.set)
        self.editor.wrong.connect(self.show_error)
        store.changed.connect(self._on_changed)
        context.theme.changed.connect(self._recolour)
        self.show_error("")
        self._recolour()
        self._show()

    def set(self, value: object) -> None:
        """The user wants this value."""
        self.show_error("")
        self._store.set(
            self.key, value, done=while_there(self, self._on_done), failed=while_there(self, self._on_failed)
        )

    def unset(self) -> None:
        """The user wants the default."""
        self.show_error("")
        self._store.unset(
            self.key, done=while_there(self, self._on_done), failed=while_there(self, self._on_failed)
        )

    def show_error(self, sentence: str) -> None:
        """Say why what stands in the field does not hold; empty: it does."""
        self.error.setText(sentence)
        self.error.setVisible(bool(sentence))
        self.editor.setAccessibleDescription(sentence or self._hint.text())

    def hide_hint(self) -> None:
        """Where the same sentence would stand in row after row."""
        self._hint.hide()

    def _on_done(self, _answer: SettingChanged) -> None:
        self._show()

    def _on_failed(self, failure: Failure) -> None:
        # What was written stays in the field, to be mended; only a switch and a choice go back.
        self.show_error(refusal_words(failure, self.key))
        view = self._store.settings.get(self.key)
        if view is not None and view.kind in ("flag", "choice"):
            self.editor.show_value(view.value)

    def _on_changed(self, keys: frozenset[str]) -> None:
        if self.key in keys and not self._store.busy(self.key) and not self.error.text():
            self._show()

    def _show(self) -> None:
        view = self._store.settings.get(self.key)
        if view is None:
            return
        # Of a value that the environment overrides, the one that holds is shown.
        self.editor.show_value(view.value)
        told = _("Reset to the default: {value}", value=default_text(view))
        self.reset.setToolTip(told)
        self.reset.setAccessibleName(f"{title_of(self.key)}: {told}")
        had_focus = self.reset.hasFocus()
        self.reset.setVisible(view.written is not None)
        if had_focus and self.reset.isHidden():
            self.editor.setFocus(Qt.FocusReason.OtherFocusReason)
        notes = []
        if view.variable:
            notes.append(
                _("The environment variable {name} decides this, whatever is set here.", name=view.variable)
            )
        if view.pending:
            notes.append(_("Takes effect when Ostler's daemon starts again."))
        self._note.setText(" ".join(notes))
        self._note.setVisible(bool(notes))
        self.restart.setVisible(view.pending)
        self.editor.setEnabled(not view.variable)

    def _recolour(self) -> None:
        colours = self._context.colours
        tint(self._hint, colours.muted)
        tint(self._note, colours.waiting)
        tint(self.error, colours.failed)
        self.reset.recolour(colours)
        self.editor.update()
