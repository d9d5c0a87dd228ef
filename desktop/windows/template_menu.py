"""The menu of saved prompts, and the form that asks for what is to be filled in."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QGridLayout, QInputDialog, QLineEdit, QMenu, QWidget

from desktop.models import templates
from desktop.models.templates import Field
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import GlyphButton, label, tint
from desktop.windows.context import Context
from desktop.words import cut


class TemplateButton(GlyphButton):
    """Opens the menu. Files are read when it opens, and only then.

    Signals:
        chosen(object): A ``Template`` was chosen.
        told(str): Why something was not done.
    """

    chosen = Signal(object)
    told = Signal(str)

    def __init__(self, context: Context) -> None:
        super().__init__("bookmark", _("Saved prompts"), context.colours)
        self._directory: Path = context.link.directories.config / "templates"
        self.text_to_save = ""
        self.clicked.connect(lambda _checked=False: self.open_menu())

    def make_menu(self) -> QMenu:
        """The menu as the files are now."""
        menu = QMenu(self)
        found = templates.load(self._directory)
        for template in found:
            action = menu.addAction(template.name.replace("&", "&&"))
            action.setToolTip(cut(template.text, 200))
            action.triggered.connect(lambda _on=False, each=template: self.chosen.emit(each))
        if not found:
            told = menu.addAction(_("Prompts that you save are offered here"))
            told.setEnabled(False)
        menu.addSeparator()
        save = menu.addAction(_("Save this prompt…"))
        save.setEnabled(bool(self.text_to_save.strip()))
        save.triggered.connect(lambda _on=False: self._ask_name())
        if found:
            gone = menu.addMenu(_("Remove"))
            for template in found:
                action = gone.addAction(template.name.replace("&", "&&"))
                action.triggered.connect(lambda _on=False, each=template: self._remove(each.name))
        menu.addAction(_("Open their directory"), self._open)
        return menu

    def open_menu(self) -> None:
        """Show the menu above the button."""
        menu = self.make_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        place = self.mapToGlobal(self.rect().topLeft())
        menu.popup(place - menu.rect().topLeft() - type(place)(0, menu.sizeHint().height()))

    def save(self, name: str) -> None:
        """Keep the prompt under this name."""
        try:
            templates.save(self._directory, name, self.text_to_save)
        except ValueError:
            self.told.emit(_("This name cannot be that of a file."))
        except OSError as error:
            self.told.emit(_("It could not be saved: {why}", why=error.strerror or str(error)))

    def _ask_name(self) -> None:
        dialog = QInputDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(_("Save this prompt"))
        dialog.setLabelText(_("Name. In the text, {{what}} is asked for each time."))
        dialog.setTextValue(cut(self.text_to_save, 40))
        dialog.textValueSelected.connect(self.save)
        dialog.open()

    def _remove(self, name: str) -> None:
        try:
            templates.remove(self._directory, name)
        except OSError as error:
            self.told.emit(_("It could not be removed: {why}", why=error.strerror or str(error)))

    def _open(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self.told.emit(_("It could not be opened: {why}", why=error.strerror or str(error)))
            return
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._directory)))


class FieldForm(QWidget):
    """What is to be filled in; not there while there is nothing.

    Signals:
        changed(): A value is another one.
        done(): Enter was pressed in the last of them.
    """

    changed = Signal()
    done = Signal()

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(tokens.HALF)
        self._grid.setColumnStretch(1, 1)
        self._fields: tuple[Field, ...] = ()
        self.edits: dict[str, QLineEdit] = {}
        self.hide()

    @property
    def values(self) -> dict[str, str]:
        """What was filled in so far."""
        return {name: edit.text().strip() for name, edit in self.edits.items() if edit.text().strip()}

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self.values) == len(self.edits)

    def show_fields(self, fields: tuple[Field, ...]) -> None:
        """Ask for these; what was filled in stays."""
        if fields == self._fields:
            return
        values = self.values
        self._fields = fields
        while self._grid.count():
            item = self._grid.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self.edits = {}
        for row, field in enumerate(fields):
            told = label(field.name)
            tint(told, self._context.colours.muted)
            edit = QLineEdit(values.get(field.name, ""))
            edit.setAccessibleName(field.name)
            edit.setPlaceholderText(field.hint)
            edit.textChanged.connect(lambda _text: self.changed.emit())
            edit.returnPressed.connect(self._on_enter)
            self.edits[field.name] = edit
            self._grid.addWidget(told, row, 0)
            self._grid.addWidget(edit, row, 1)
        self.setVisible(bool(fields))

    def focus_first(self) -> None:
        """The first that is empty."""
        for edit in self.edits.values():
            if not edit.text():
                edit.setFocus(Qt.FocusReason.OtherFocusReason)
                return

    def _on_enter(self) -> None:
        if self.complete:
            self.done.emit()
        else:
            self.focus_first()
