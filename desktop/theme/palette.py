"""The tokens as a Qt palette and a short style sheet, put on the whole application at once.

Qt's own colour scheme is not relied on: ``setColorScheme`` does nothing on plain X11, so the palette is ours
on the Fusion style, and what the system wants is only read. ``Theme`` follows it live.
"""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

from desktop.theme import tokens
from desktop.theme.system import SystemLook
from desktop.theme.tokens import Colours

Choice = Literal["system", "light", "dark"]


def palette_of(colours: Colours) -> QPalette:
    """A palette in which every role is one of the tokens."""
    palette = QPalette()
    role = QPalette.ColorRole
    plain = {
        role.Window: colours.background,
        role.WindowText: colours.text,
        role.Base: colours.surface,
        role.AlternateBase: colours.raised,
        role.Text: colours.text,
        role.PlaceholderText: colours.muted,
        role.Button: colours.raised,
        role.ButtonText: colours.text,
        role.ToolTipBase: colours.raised,
        role.ToolTipText: colours.text,
        role.BrightText: colours.failed,
        role.Highlight: colours.selected,
        role.HighlightedText: colours.text,
        role.Link: colours.accent,
        role.LinkVisited: colours.accent,
        role.Accent: colours.accent,
        role.Light: colours.surface,
        role.Midlight: colours.raised,
        role.Mid: colours.line,
        role.Dark: colours.line,
        role.Shadow: colours.line,
    }
    for which, colour in plain.items():
        palette.setColor(which, QColor(colour))
    for which in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, which, QColor(colours.muted))
    return palette


def style_sheet(colours: Colours) -> str:
    """What Fusion does not do as we want it: quiet frames, one kind of button, a visible focus."""
    c, grid, half, radius = colours, tokens.GRID, tokens.HALF, tokens.RADIUS
    # WORKAROUND for Qt 6.11: under a style sheet a spin box with ``NoButtons`` has a field of one pixel, so
    # the buttons are there and have no width; the field then ignores the box's own padding.
    return f"""
    QToolTip {{ border: 1px solid {c.line}; padding: {half}px {grid}px; }}
    QPushButton {{ background: {c.raised}; border: 1px solid {c.line}; border-radius: {radius}px;
        padding: 5px 14px; min-height: 18px; }}
    QPushButton:hover {{ background: {c.selected}; }}
    QPushButton:pressed {{ background: {c.line}; }}
    QPushButton:disabled {{ color: {c.muted}; }}
    QPushButton:focus, QToolButton:focus, QComboBox:focus, QLineEdit:focus, QPlainTextEdit:focus,
        QAbstractItemView:focus {{ border: 2px solid {c.accent}; outline: none; }}
    QPushButton:focus {{ padding: 4px 13px; }}
    QPushButton[primary="true"] {{ background: {c.accent}; color: {c.on_accent}; border-color: {c.accent};
        font-weight: {tokens.STRONG}; }}
    QPushButton[primary="true"]:disabled {{ background: {c.raised}; color: {c.muted};
        border-color: {c.line}; }}
    QPushButton[primary="true"]:focus {{ border: 2px solid {c.text}; }}
    QPushButton[quiet="true"], QToolButton {{ background: transparent; border: 1px solid transparent;
        border-radius: {radius}px; padding: {half}px {grid}px; }}
    QPushButton[quiet="true"]:focus, QToolButton:focus {{ border: 2px solid {c.accent};
        padding: {half - 1}px {grid - 1}px; }}
    QPushButton[quiet="true"]:hover, QToolButton:hover {{ background: {c.hover}; }}
    QLineEdit, QPlainTextEdit, QTextEdit, QComboBox, QSpinBox {{ background: {c.surface};
        border: 1px solid {c.line}; border-radius: {radius}px; padding: {half}px {grid}px;
        selection-background-color: {c.accent}; selection-color: {c.on_accent}; }}
    QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QComboBox:focus {{
        padding: {half - 1}px {grid - 1}px; }}
    QAbstractSpinBox {{ background: {c.surface}; border: 1px solid {c.line}; border-radius: {radius}px;
        padding: {half}px {grid}px; selection-background-color: {c.accent};
        selection-color: {c.on_accent}; }}
    QAbstractSpinBox::up-button, QAbstractSpinBox::down-button {{ width: 0; border: none; }}
    QAbstractSpinBox:focus {{ border: 2px solid {c.accent}; }}
    QComboBox QLineEdit {{ border: none; padding: 0; background: transparent; }}
    QAbstractSpinBox QLineEdit {{ border: none; padding: 0 {grid}px; background: transparent; }}
    QLineEdit:disabled, QPlainTextEdit:disabled, QComboBox:disabled, QAbstractSpinBox:disabled {{
        background: {c.raised}; color: {c.muted}; }}
    QComboBox::drop-down {{ border: none; width: 20px; }}
    QMenu {{ background: {c.surface}; border: 1px solid {c.line}; padding: {half}px; }}
    QMenu::item {{ padding: 6px 24px 6px 12px; border-radius: {half}px; }}
    QMenu::item:selected {{ background: {c.selected}; color: {c.text}; }}
    QMenu::item:disabled {{ color: {c.muted}; }}
    QMenu::separator {{ height: 1px; background: {c.line}; margin: {half}px {grid}px; }}
    QAbstractItemView {{ background: {c.surface}; border: none; outline: none; }}
    QHeaderView::section {{ background: {c.background}; color: {c.muted}; border: none;
        border-bottom: 1px solid {c.line}; padding: {half}px {grid}px; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
    QScrollBar:horizontal {{ background: transparent; height: 10px; margin: 0; }}
    QScrollBar::handle {{ background: {c.handle}; border-radius: 3px; margin: 2px; min-height: 32px;
        min-width: 32px; }}
    QScrollBar::handle:hover, QScrollBar::handle:pressed {{ background: {c.neutral}; }}
    QScrollBar::add-line, QScrollBar::sub-line, QScrollBar::add-page, QScrollBar::sub-page {{
        background: none; border: none; width: 0; height: 0; }}
    QTabBar::tab {{ background: transparent; border: none; border-bottom: 2px solid transparent;
        padding: {grid}px 12px; color: {c.muted}; }}
    QTabBar::tab:selected {{ border-bottom-color: {c.accent}; color: {c.text}; }}
    QTabWidget::pane {{ border: none; border-top: 1px solid {c.line}; }}
    QSplitter::handle {{ background: {c.line}; }}
    """


class Theme(QObject):
    """The look in force.

    Attributes:
        colours: The scheme in force.

    Signals:
        changed: The scheme is another one; what paints by itself has to paint again.
    """

    changed = Signal()

    def __init__(self, app: QApplication, choice: Choice = "system") -> None:
        super().__init__(app)
        self._app = app
        self._choice: Choice = choice
        self._system = SystemLook(self)
        app.setStyle("Fusion")
        app.setFont(body_font())
        self.colours = self._wanted()
        self._apply()
        self._system.changed.connect(self._on_system_changed)

    @property
    def motion_ms(self) -> int:
        """How long a change may be drawn out; 0 where the system asks for less motion."""
        return 0 if self._system.calm else tokens.MOTION_MS

    def choose(self, choice: Choice) -> None:
        """The user's wish; ``system`` follows the system live."""
        self._choice = choice
        self._on_system_changed()

    def _on_system_changed(self) -> None:
        wanted = self._wanted()
        if wanted != self.colours:
            self.colours = wanted
            self._apply()
            self.changed.emit()

    def _wanted(self) -> Colours:
        dark = self._system.dark if self._choice == "system" else self._choice == "dark"
        return tokens.colours(dark=dark, contrast=self._system.contrast)

    def _apply(self) -> None:
        self._app.setPalette(palette_of(self.colours))
        self._app.setStyleSheet(style_sheet(self.colours))


def body_font() -> QFont:
    """The system's face at our size."""
    return sized(QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont), tokens.BODY)


def mono_font() -> QFont:
    """The system's monospace face, for tools, paths and diffs."""
    return sized(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont), tokens.MONO)


def sized(font: QFont, pixels: int, *, strong: bool = False) -> QFont:
    """The same face at another size; numbers keep their width, so that what counts does not jitter."""
    made = QFont(font)
    made.setPixelSize(pixels)
    made.setWeight(QFont.Weight.DemiBold if strong else QFont.Weight.Normal)
    made.setFeature(QFont.Tag("tnum"), 1)
    return made
