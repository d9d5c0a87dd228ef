"""Fields for the kinds of setting: each shows a value as it stands in the file, and tells another one.

A field says ``edited`` when the user is done with it, not at each key; the wheel changes nothing, since it is
there to move the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent, QHideEvent, QKeyEvent, QWheelEvent
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from daemon_core.control.settings_views import SettingView
from daemon_core.settings.values import parse_duration, parse_size
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.tokens import Colours
from desktop.windows.bits import Choice, PromptBox, label
from desktop.windows.settings_words import (
    DURATION_UNITS,
    NEVER,
    SIZE_UNITS,
    UNLIMITED,
    choice_text,
    title_of,
    unit_text,
)
from desktop.windows.switch import Switch

WIDTH: Final = 200
"""Of fields that stand beside their title."""
UNIT_WIDTH: Final = 116
SETTLE_MS: Final = 500
"""Steps that follow each other faster than this are one change."""
MOST: Final = 2**31 - 1


class Editor(QWidget):
    """Base of all.

    Attributes:
        wide: Whether it wants a line of its own below its title.
        aligned: Whether it ends where the other fields end; else it takes what room there is.

    Signals:
        edited(object): The user wants this value.
        wrong(str): What the user wrote is no value; why, in a sentence.
    """

    edited = Signal(object)
    wrong = Signal(str)
    wide = False
    aligned = True

    def show_value(self, value: Any) -> None:
        """Show this; says nothing."""
        raise NotImplementedError

    def _holding(self, *fields: QWidget) -> None:
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(tokens.GRID)
        row.addStretch(1)
        for field in fields:
            row.addWidget(field)
        self.setFocusProxy(fields[0])


class FlagEditor(Editor):
    """On or off."""

    def __init__(self, name: str, colours: Callable[[], Colours]) -> None:
        super().__init__()
        self.switch = Switch(name, colours)
        self.switch.clicked.connect(lambda on: self.edited.emit(on))
        self._holding(self.switch)

    def show_value(self, value: Any) -> None:
        self.switch.setChecked(bool(value))


class CalmChoice(Choice):
    """A choice that the wheel does not change."""

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        event.ignore()


class ChoiceEditor(Editor):
    """One of a few."""

    def __init__(self, name: str, colours: Callable[[], Colours], view: SettingView) -> None:
        super().__init__()
        self.choice = CalmChoice(name, colours)
        for each in view.choices:
            self.choice.addItem(choice_text(view.key, each), each)
        self.choice.activated.connect(lambda _row: self.edited.emit(self.choice.currentData()))
        self._holding(self.choice)

    def show_value(self, value: Any) -> None:
        self.choice.setCurrentIndex(self.choice.findData(value))


class Spin(QSpinBox):
    """A whole number, by keys and arrows.

    Signals:
        settled(int): The user stays with this number.
    """

    settled = Signal(int)

    def __init__(self, name: str, least: float | None, most: float | None) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setRange(int(least or 0), int(min(most if most is not None else MOST, MOST)))
        self.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.lineEdit().setTextMargins(tokens.HALF, 0, tokens.HALF + 2, 0)
        self.setKeyboardTracking(False)
        self.setFixedWidth(100)
        self._shown = self.value()
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.commit)
        self.valueChanged.connect(lambda _value: self._settle.start())
        self.editingFinished.connect(self.commit)

    def show_number(self, number: int) -> None:
        """Show this; says nothing."""
        self._shown = number
        self.setValue(number)
        self._settle.stop()

    def commit(self) -> None:
        """Tell what stands there, if that is news."""
        self._settle.stop()
        if self.value() != self._shown:
            self._shown = self.value()
            self.settled.emit(self._shown)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        event.ignore()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        self.commit()


class CountEditor(Editor):
    """A whole number."""

    def __init__(self, name: str, view: SettingView) -> None:
        super().__init__()
        self.spin = Spin(name, view.least, view.most)
        self.spin.settled.connect(lambda number: self.edited.emit(number))
        self._holding(self.spin)

    def show_value(self, value: Any) -> None:
        self.spin.show_number(value if isinstance(value, int) else 0)


class MoneyEditor(Editor):
    """A number with two places behind the point."""

    def __init__(self, name: str, view: SettingView) -> None:
        super().__init__()
        self.field = QDoubleSpinBox()
        self.field.setAccessibleName(name)
        self.field.setDecimals(2)
        self.field.setRange(view.least or 0.0, view.most if view.most is not None else 1e9)
        self.field.setKeyboardTracking(False)
        self.field.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.field.lineEdit().setTextMargins(tokens.HALF, 0, tokens.HALF + 2, 0)
        self.field.setFixedWidth(120)
        self.field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        if view.key in UNLIMITED:
            self.field.setSpecialValueText(_("no limit"))
        self._shown = 0.0
        self.field.editingFinished.connect(self._tell)
        self._holding(self.field)

    def show_value(self, value: Any) -> None:
        self._shown = float(value) if isinstance(value, int | float) else 0.0
        self.field.setValue(self._shown)

    def _tell(self) -> None:
        if self.field.value() != self._shown:
            self._shown = self.field.value()
            self.edited.emit(self._shown)


class AmountEditor(Editor):
    """A number and its unit: a span of time, or a size."""

    def __init__(self, name: str, colours: Callable[[], Colours], view: SettingView) -> None:
        super().__init__()
        self._time = view.kind == "duration"
        self._units: dict[str, float] = {}
        self._zero = "0" if self._time else 0
        self.spin = Spin(name, 0, None)
        if view.key in NEVER:
            self.spin.setSpecialValueText(_("never"))
        elif view.key in UNLIMITED:
            self.spin.setSpecialValueText(_("no limit"))
        self.unit = CalmChoice(_("Unit of: {name}", name=name), colours)
        for unit, size in DURATION_UNITS if self._time else SIZE_UNITS:
            self._add(unit, size)
        self.unit.setFixedWidth(UNIT_WIDTH)
        self.spin.settled.connect(lambda _number: self._tell())
        self.spin.valueChanged.connect(lambda _number: self._show_unit())
        self.unit.activated.connect(lambda _row: self._tell())
        self._holding(self.spin, self.unit)

    def show_value(self, value: Any) -> None:
        try:
            amount = parse_duration(str(value)) if self._time else float(parse_size(str(value)))
        except ValueError:
            amount = 0.0
        if amount:
            unit = self._unit_for(amount)
            self.unit.setCurrentIndex(self.unit.findData(unit))
            self.spin.show_number(min(round(amount / self._units[unit]), MOST))
        else:
            self.unit.setCurrentIndex(self.unit.findData("m" if self._time else "GiB"))
            self.spin.show_number(0)
        self._show_unit()

    def _show_unit(self) -> None:
        """ "Never" has no unit, and takes its room. A unit goes with its number: "1 day", "2 days"."""
        number = self.spin.value()
        shown = bool(number) or not self.spin.specialValueText()
        self.unit.setVisible(shown)
        self.spin.setFixedWidth(WIDTH - UNIT_WIDTH - tokens.GRID if shown else WIDTH)
        for row in range(self.unit.count()):
            self.unit.setItemText(row, unit_text(str(self.unit.itemData(row)), number))

    def _unit_for(self, amount: float) -> str:
        """The largest unit of which it is a whole number."""
        fitting = [unit for unit, size in self._units.items() if math.isclose(amount % size, 0, abs_tol=1e-9)]
        if not fitting:
            self._add("ms", 0.001) if self._time else self._add("B", 1)
            return "ms" if self._time else "B"
        return max(fitting, key=lambda unit: self._units[unit])

    def _add(self, unit: str, size: float) -> None:
        if unit not in self._units:
            self._units[unit] = size
            self.unit.addItem(unit_text(unit, 2), unit)

    def _tell(self) -> None:
        number, unit = self.spin.value(), str(self.unit.currentData())
        self.edited.emit(f"{number}{unit}" if number else self._zero)


class TextEditor(Editor):
    """One line."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._shown = ""
        self.field = QLineEdit()
        self.field.setAccessibleName(name)
        self.field.setFixedWidth(WIDTH)
        self.field.editingFinished.connect(self._tell)
        self._holding(self.field)

    def show_value(self, value: Any) -> None:
        self._shown = str(value or "")
        self.field.setText(self._shown)
        self.field.setCursorPosition(0)
        self.field.setToolTip(self._shown)

    def _tell(self) -> None:
        if self.field.text() != self._shown:
            self._shown = self.field.text()
            self.edited.emit(self._shown)


class LinesBox(PromptBox):
    """Signals:
    finished(): The user is done with it: Ctrl+Enter, or on to something else.
    """

    finished = Signal()

    def __init__(self, name: str) -> None:
        super().__init__("", most_lines=6)
        self.setAccessibleName(name)
        self.sent.connect(self.finished)

    def _fit(self) -> None:
        super()._fit()
        over = round(self.document().size().height()) > self._most
        policy = Qt.ScrollBarPolicy.ScrollBarAsNeeded if over else Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        self.setVerticalScrollBarPolicy(policy)

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        super().focusOutEvent(event)
        if event.reason() is not Qt.FocusReason.PopupFocusReason:
            self.finished.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        # Escape belongs to the page; a box swallows it otherwise.
        if event.key() == Qt.Key.Key_Escape:
            event.ignore()
        else:
            super().keyPressEvent(event)


class LinesEditor(Editor):
    """A list or a table, one entry a line."""

    wide = True

    def __init__(self, name: str, view: SettingView) -> None:
        super().__init__()
        self._kind = view.kind
        self._shown: Any = None
        self.setAccessibleName(name)
        self.box = LinesBox(name)
        self.box.setPlaceholderText(
            {"words": _("None"), "counts": _("name = number")}.get(view.kind, _("name = value"))
        )
        self.box.finished.connect(self._tell)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.box)
        self.setFocusProxy(self.box)

    def show_value(self, value: Any) -> None:
        self._shown = value or ([] if self._kind == "words" else {})
        if self._kind == "words":
            text = "\n".join(str(each) for each in self._shown)
        else:
            text = "\n".join(f"{name} = {each}" for name, each in self._shown.items())
        if text != self.box.toPlainText():
            self.box.setPlainText(text)

    def _tell(self) -> None:
        lines = [line.strip() for line in self.box.toPlainText().splitlines() if line.strip()]
        if self._kind == "words":
            wanted: Any = lines
        else:
            wanted = {}
            for line in lines:
                name, sign, value = (part.strip() for part in line.partition("="))
                if not sign or not name:
                    self.wrong.emit(_("Write each line as name = value; this is none: {line}", line=line))
                    return
                if self._kind == "counts" and not (value.isascii() and value.isdigit()):
                    self.wrong.emit(_("{name} needs a whole number.", name=name))
                    return
                wanted[name] = int(value) if self._kind == "counts" else value
        if wanted != self._shown:
            self._shown = wanted
            self.edited.emit(wanted)


class EachAgentEditor(Editor):
    """A number for each agent of this machine; an empty field: as for all."""

    wide = True

    def __init__(self, view: SettingView, agents: list[tuple[str, str]]) -> None:
        """``agents``: (provider, name)."""
        super().__init__()
        self._value: dict[str, int] = {}
        self.spins: dict[str, Spin] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(tokens.GRID * 2, 0, 0, 0)
        column.setSpacing(tokens.HALF)
        for provider, name in agents:
            spin = Spin(f"{title_of(view.key)}: {name}", -1, view.most)
            spin.setSpecialValueText(_("as for all"))
            spin.settled.connect(lambda number, which=provider: self._on_settled(which, number))
            row = QHBoxLayout()
            row.addWidget(label(name), 1)
            spin.setFixedWidth(120)
            row.addWidget(spin)
            column.addLayout(row)
            self.spins[provider] = spin

    def show_value(self, value: Any) -> None:
        self._value = dict(value or {})
        for provider, spin in self.spins.items():
            spin.show_number(self._value.get(provider, -1))

    def _on_settled(self, provider: str, number: int) -> None:
        wanted = {name: count for name, count in self._value.items() if name != provider}
        if number >= 0:
            wanted[provider] = number
        self._value = wanted
        self.edited.emit(wanted)


def editor_for(view: SettingView, colours: Callable[[], Colours]) -> Editor:
    """The field for a setting."""
    name = title_of(view.key)
    match view.kind:
        case "flag":
            return FlagEditor(name, colours)
        case "choice":
            return ChoiceEditor(name, colours, view)
        case "count":
            return CountEditor(name, view)
        case "amount":
            return MoneyEditor(name, view)
        case "duration" | "size":
            return AmountEditor(name, colours, view)
        case "text":
            return TextEditor(name)
        case _:
            return LinesEditor(name, view)
