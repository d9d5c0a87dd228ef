"""The page "Settings": sections at the left, one of them at the right, and a search through all of them.

What is changed is in force at once, and what somebody else changes (``ostler config set``, an editor) shows
at once. The file is watched only while the page is on the screen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec
from PySide6.QtCore import QFileSystemWatcher, Qt, QTimer, QUrl
from PySide6.QtGui import (
    QColor,
    QDesktopServices,
    QFocusEvent,
    QHideEvent,
    QKeyEvent,
    QKeySequence,
    QPainter,
    QPaintEvent,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from desktop.models.settings import SettingsStore
from desktop.models.state import DesktopState
from desktop.problem_words import problem_sentence
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.windows.bits import GlyphLabel, hairline, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.settings_editors import EachAgentEditor, Editor
from desktop.windows.settings_quiet import QuietHoursEditor
from desktop.windows.settings_row import SettingRow
from desktop.windows.settings_sections import (
    GROUPS,
    SECTIONS,
    Heading,
    Keys,
    Note,
    OfAgents,
    Panel,
    Rest,
    Section,
    agents_of,
    keys_of,
    matching,
    section_named,
    shown_sections,
)
from desktop.windows.settings_words import title_of

NAV_WIDTH: Final = 192
TEXT_WIDTH: Final = 640
SEARCH_MS: Final = 120
"""Keys that follow each other faster than this are one search."""
SHOWN_LEFT_OUT: Final = 6
SAVED_MS: Final = 200
"""An editor writes a file in several steps."""


class SectionList(QListWidget):
    """The sections. Its current row wears the accent's ground, with a ring while it has the focus."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.setAccessibleName(_("Sections of the settings"))
        self.setFixedWidth(NAV_WIDTH)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.recolour()

    def recolour(self) -> None:
        """The look is another one."""
        colours, half = self._context.colours, tokens.HALF
        self.setStyleSheet(f"""
            QListWidget {{ background: transparent; }}
            QListWidget:focus {{ border: none; }}
            QListWidget::item {{ padding: 6px {half}px; margin: 1px {half}px; color: {colours.text};
                border: 2px solid transparent; border-radius: {tokens.RADIUS}px; }}
            QListWidget::item:hover {{ background: {colours.hover}; }}
            QListWidget::item:selected {{ background: {colours.selected}; color: {colours.text}; }}
            QListWidget:focus::item:selected {{ border-color: {colours.accent}; }}""")


class SettingsPage(QWidget):
    """The page."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.store = context.store or SettingsStore(context.link, parent=self)
        self._section = SECTIONS[0].name
        self._built: tuple[str, str, tuple[str, ...]] | None = None
        self.rows: dict[str, SettingRow] = {}
        self.field = QLineEdit()
        self.field.setPlaceholderText(_("Search settings"))
        self.field.setAccessibleName(_("Search settings"))
        self.field.setClearButtonEnabled(True)
        self.field.setFixedWidth(NAV_WIDTH - tokens.GRID)
        self.sections = SectionList(context)
        self.sections.currentItemChanged.connect(self._on_section)
        self.sections.itemClicked.connect(self._choose)
        self.sections.itemActivated.connect(self._choose)
        self._search = _timer(self, SEARCH_MS, self._build)
        self.field.textChanged.connect(lambda _text: self._search.start())
        self._saved = _timer(self, SAVED_MS, self._on_saved)
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(lambda _path: self._saved.start())
        self._watcher.fileChanged.connect(lambda _path: self._saved.start())
        self._seen: tuple[int, int, int] | None = None

        self._mistake = _Mistake(context, self.store)
        self._away = label(wrap=True)
        self._away.setContentsMargins(24, 12, 24, 0)
        self.area = QScrollArea()
        self.area.setFrameShape(QScrollArea.Shape.NoFrame)
        self.area.setWidgetResizable(True)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        nav = QVBoxLayout()
        rtl = self.isRightToLeft()  # Qt turns no margins round
        nav.setContentsMargins(0 if rtl else tokens.GRID, 24, tokens.GRID if rtl else 0, 12)
        nav.setSpacing(12)
        search = QHBoxLayout()
        search.setContentsMargins(tokens.HALF, 0, tokens.HALF if rtl else 0, 0)  # as the rows below
        search.addWidget(self.field, 0, Qt.AlignmentFlag.AlignLeading)
        nav.addLayout(search)
        nav.addWidget(self.sections, 1)
        side = QVBoxLayout()
        side.setSpacing(0)
        side.addWidget(self._mistake)
        side.addWidget(self._away)
        side.addWidget(self.area, 1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addLayout(nav)
        row.addLayout(side, 1)
        find = QShortcut(QKeySequence(QKeySequence.StandardKey.Find), self, self._begin_search)
        find.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        self.store.changed.connect(self._on_changed)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self._recolour()

    # --- from outside ------------------------------------------------------------------------------

    @property
    def section(self) -> str:
        """The section that is shown, or was before the search."""
        return self._section

    def open_section(self, name: str) -> None:
        """Show a section."""
        self.field.clear()
        self._section = section_named(name).name
        self._build()

    def sign_in(self, server: str) -> None:
        """The form for a new token of a server, by name or address; for another server where it is empty."""
        from desktop.windows.settings_connections import ConnectionsPanel

        self.open_section("connections")
        panel = self.panel(ConnectionsPanel)
        if isinstance(panel, ConnectionsPanel):
            panel.sign_in(server)

    def panel(self, kind: type[QWidget]) -> QWidget | None:
        """The panel of this kind, if it is shown now."""
        inner = self.area.widget()
        return inner.findChild(kind) if inner is not None else None

    # --- what happens ------------------------------------------------------------------------------

    def _on_changed(self, _keys: frozenset[str]) -> None:
        if self.isVisible():
            self._refresh()

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if self.isVisible() and before.connected is not state.connected:
            self._refresh()

    def _on_section(self, item: QListWidgetItem | None) -> None:
        # A list that gets the focus makes its first row the current one: that alone is no wish.
        if item is not None and item.data(Qt.ItemDataRole.UserRole) != self._section:
            self._choose(item)

    def _choose(self, item: QListWidgetItem) -> None:
        self.open_section(str(item.data(Qt.ItemDataRole.UserRole)))

    def _refresh(self) -> None:
        """Show what is there now; what is built already follows by itself."""
        connected = self._context.link.state.connected
        known = self.store.known
        self.field.setVisible(known)
        self.sections.setVisible(known)
        self._away.setVisible(not connected)
        self._away.setText(
            _("Ostler's daemon is not there. Settings can be looked at, and changed once it is back.")
            if known
            else _("The settings come from Ostler's daemon, which is not there yet.")
        )
        self._mistake.show_problem()
        shown = [each.name for each in shown_sections(self.store)]
        listed = [
            self.sections.item(row).data(Qt.ItemDataRole.UserRole) for row in range(self.sections.count())
        ]
        if shown != listed:
            self.sections.blockSignals(True)
            self.sections.clear()
            for name in shown:
                item = QListWidgetItem(_(section_named(name).title))
                item.setData(Qt.ItemDataRole.UserRole, name)
                self.sections.addItem(item)
            self.sections.blockSignals(False)
            self._mark_section()
        self._build()
        inner = self.area.widget()
        if inner is not None:
            inner.setEnabled(connected and self.store.problem is None)
        self._watch()

    def _mark_section(self) -> None:
        """The list shows which section there is; none of them while the search shows from all."""
        names = [
            self.sections.item(row).data(Qt.ItemDataRole.UserRole) for row in range(self.sections.count())
        ]
        self.sections.blockSignals(True)
        self.sections.setCurrentRow(names.index(self._section) if self._section in names else -1)
        if self.field.text().strip():
            self.sections.clearSelection()
        self.sections.blockSignals(False)

    # --- building ----------------------------------------------------------------------------------

    def _build(self) -> None:
        """Make the right side, if it is not there as it has to be."""
        self._search.stop()
        query = self.field.text().strip()
        wanted = (self._section, query, tuple(self.store.settings))
        if wanted == self._built or not self.store.known:
            return
        same_place = self._built is not None and self._built[:2] == wanted[:2]
        place = self.area.verticalScrollBar().value() if same_place else 0
        self._built = wanted
        self._mark_section()
        self.rows = {}
        inner = QWidget()
        inner.setMaximumWidth(TEXT_WIDTH + 48)
        column = QVBoxLayout(inner)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(0)
        if query:
            self._build_found(column, query)
        else:
            self._build_section(column, section_named(self._section))
        column.addStretch(1)
        holder = QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(inner, 1)
        row.addStretch(0)
        holder.setEnabled(self._context.link.state.connected and self.store.problem is None)
        # Not deleted at once, as ``setWidget`` does: what asks for this may be a button in there. A parent
        # keeps it, since what ``takeWidget`` gives is deleted with its last reference here.
        old = self.area.takeWidget()
        if old is not None:
            old.setParent(self)
            old.deleteLater()
        self.area.setWidget(holder)
        self.area.verticalScrollBar().setValue(place)

    def _build_section(self, column: QVBoxLayout, section: Section) -> None:
        title = label(_(section.title), size=tokens.SENTENCE, strong=True)
        column.addWidget(title)
        if section.intro:
            self._say(column, _(section.intro))
        column.addSpacing(tokens.GRID)
        for part in section.parts:
            match part:
                case Heading(text):
                    self._head(column, _(text))
                case Note(text):
                    self._say(column, _(text))
                case Panel():
                    column.addWidget(part.make(self._context, self.store))
                case Keys():
                    self._add(column, keys_of(part, self.store))
                case OfAgents():
                    self._of_agents(column, keys_of(part, self.store))
                case Rest():
                    self._grouped(column, keys_of(part, self.store))

    def _build_found(self, column: QVBoxLayout, query: str) -> None:
        found_any = False
        for section in shown_sections(self.store):
            found = matching(section, query, self._context, self.store)
            if not found:
                continue
            found_any = True
            self._head(column, _(section.title), first=column.count() == 0)
            for each in found:
                if isinstance(each, Panel):
                    open_ = quiet_button(
                        _("{what}: open the section", what=_(each.words)),
                        lambda name=section.name: self.open_section(name),  # type: ignore[misc]
                    )
                    column.addWidget(open_, 0, Qt.AlignmentFlag.AlignLeft)
                    continue
                agent = self._agent_of(each)
                if agent:
                    self._say(column, agent)
                self._add(column, [each])
        if not found_any:
            column.addWidget(label(_("Nothing is called that."), size=tokens.SENTENCE, strong=True))
            self._say(column, _("Try another word, or look under Advanced."))

    def _add(self, column: QVBoxLayout, keys: Sequence[str]) -> None:
        for key in keys:
            row = SettingRow(self._context, self.store, key, self._own_editor(key))
            self.rows[key] = row
            column.addWidget(row)

    def _own_editor(self, key: str) -> Editor | None:
        if key == "notifications.quiet_hours":
            return QuietHoursEditor(lambda: self._context.colours)
        if key == "limits.runtimes":
            return EachAgentEditor(self.store.settings[key], agents_of(self._context, self.store))
        return None

    def _of_agents(self, column: QVBoxLayout, keys: Sequence[str]) -> None:
        """One setting of several agents: the agent's name stands in the place of the title."""
        for key in keys:
            self._add(column, [key])
            row = self.rows[key]
            name = self._agent_of(key)
            row.title.setText(name)
            field = row.editor.focusProxy()
            if field is not None:
                field.setAccessibleName(f"{name}: {title_of(key)}")
            row.hide_hint()

    def _grouped(self, column: QVBoxLayout, keys: Sequence[str]) -> None:
        last = ""
        for key in keys:
            group = self._agent_of(key) or key.partition(".")[0]
            if group != last:
                last = group
                known = GROUPS.get(group)
                self._head(column, _(known) if known is not None else group)
            self._add(column, [key])

    def _agent_of(self, key: str) -> str:
        if not key.startswith("agents."):
            return ""
        return dict(agents_of(self._context, self.store)).get(key.split(".")[1], key.split(".")[1])

    def _head(self, column: QVBoxLayout, text: str, *, first: bool = False) -> None:
        if not first:
            column.addSpacing(tokens.GRID * 2)
        column.addWidget(label(text, size=tokens.TITLE, strong=True))
        column.addSpacing(tokens.HALF)

    def _say(self, column: QVBoxLayout, text: str) -> None:
        said = label(text, wrap=True)
        said.setContentsMargins(0, tokens.HALF, 0, tokens.HALF)
        tint(said, self._context.colours.muted)
        column.addWidget(said)

    # --- the file ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Be told when somebody else saves the file: its directory, since a save is often a rename."""
        place = os.path.dirname(self.store.file)
        wanted = [path for path in (place, self.store.file) if path and os.path.exists(path)]
        watched = [*self._watcher.directories(), *self._watcher.files()]
        if missing := [path for path in wanted if path not in watched]:
            self._watcher.addPaths(missing)
            if self._seen is None:
                self._seen = _stamp(self.store.file)

    def _on_saved(self) -> None:
        stamp = _stamp(self.store.file)
        if stamp != self._seen:
            self._seen = stamp
            self.store.take_over()
        self._watch()

    # --- small -------------------------------------------------------------------------------------

    def _begin_search(self) -> None:
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()

    def _recolour(self) -> None:
        self.sections.recolour()
        tint(self._away, self._context.colours.waiting)
        self._mistake.recolour()
        # Sentences that are no rows were made with the other colours.
        self._built = None
        if self.isVisible():
            self._build()

    def focusInEvent(self, event: QFocusEvent) -> None:  # noqa: N802 - Qt's name
        super().focusInEvent(event)
        self.sections.setFocus(event.reason())

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.key() == Qt.Key.Key_Escape and self.field.text():
            self.field.clear()
        elif event.key() == Qt.Key.Key_Down and self.field.hasFocus():
            self.sections.setFocus(Qt.FocusReason.OtherFocusReason)
        else:
            super().keyPressEvent(event)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802
        super().showEvent(event)
        if self.store.known and _stamp(self.store.file) != self._seen and self._seen is not None:
            self._seen = _stamp(self.store.file)
            self.store.take_over()
        self._refresh()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self._search.stop()
        self._saved.stop()
        if watched := [*self._watcher.directories(), *self._watcher.files()]:
            self._watcher.removePaths(watched)


class _Mistake(QWidget):
    """The strip that says what is wrong with the file, with the way to it."""

    def __init__(self, context: Context, store: SettingsStore) -> None:
        super().__init__()
        self._context = context
        self._store = store
        self._glyph = GlyphLabel()
        self.sentence = label(strong=True, wrap=True)
        self.then = label(wrap=True)
        self.open = quiet_button(_("Open the file"), self._open)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self.sentence)
        words.addWidget(self.then)
        row = QHBoxLayout()
        row.setContentsMargins(24, 12, 24, 12)
        row.setSpacing(12)
        row.addWidget(self._glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        row.addWidget(self.open, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(row)
        column.addWidget(hairline())
        self.hide()

    def show_problem(self) -> None:
        """Say it; not there where nothing is wrong."""
        problem, left_out = self._store.problem, self._store.left_out
        self.setVisible(problem is not None or bool(left_out))
        if problem is not None:
            self.sentence.setText(problem_sentence(msgspec.to_builtins(problem)))
            self.then.setText(
                _("What was in force is so still. Nothing can be changed here until the file is mended.")
            )
        elif left_out:
            self.sentence.setText(
                n_(
                    "The file has {n} setting that this version does not know.",
                    "The file has {n} settings that this version does not know.",
                    len(left_out),
                )
            )
            shown = [
                _("line {line}: {key}", line=each.line, key=each.key) if each.line else each.key
                for each in left_out[:SHOWN_LEFT_OUT]
            ]
            if len(left_out) > len(shown):
                rest = len(left_out) - len(shown)
                shown.append(n_("and {n} more", "and {n} more", rest))
            where = "; ".join(shown)
            self.then.setText(_("Left out, and kept for the version that knows them: {where}.", where=where))
        self.recolour()

    def recolour(self) -> None:
        """The look is another one."""
        colours = self._context.colours
        if self._store.problem is not None:
            self._glyph.show_glyph("triangle-alert", colours.failed, _("A mistake in the settings file"))
        else:
            self._glyph.show_glyph("triangle-alert", colours.waiting, _("Settings that are not known"))
        tint(self.then, colours.muted)

    def _open(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(self._store.file))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(self._context.colours.raised))
        painter.end()


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What tells one content of the file from another."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _timer(parent: QWidget, interval_ms: int, slot: object) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    timer.timeout.connect(slot)
    return timer
