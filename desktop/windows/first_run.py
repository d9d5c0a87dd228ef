"""The first run: five short steps, each of which can be left out, at any time, with a daemon or without.

It is shown by itself once, when the desktop is first started by a person in a fresh profile, and again from
the settings. Nothing here has to be done: every step is a page of the settings as well.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QSettings, QSize, Qt, Signal
from PySide6.QtGui import QCloseEvent, QColor, QKeyEvent, QKeySequence, QPainter, QPaintEvent, QShortcut
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from desktop.commands import Command
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import hairline, label, primary_button, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.first_run_agents import AgentsStep
from desktop.windows.first_run_places import PlacesStep
from desktop.windows.first_run_steps import LoginStep, NoticeStep, Step, WhereStep

WIDTH: Final = 640
HEIGHT: Final = 600
DONE_KEY: Final = "first_run/done"
DOT: Final = 8


class Dots(QWidget):
    """Where one is: one dot a step, the present one longer."""

    def __init__(self, context: Context, count: int) -> None:
        super().__init__()
        self._context = context
        self._count = count
        self._at = 0
        self.setFixedSize(self.sizeHint())
        context.theme.changed.connect(self.update)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(self._count * 2 * DOT, DOT)

    def show_step(self, at: int) -> None:
        """This one is shown, from 0."""
        self._at = at
        self.setAccessibleName(_("Step {n} of {count}", n=at + 1, count=self._count))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        rtl = self.layoutDirection() is Qt.LayoutDirection.RightToLeft
        x = 0
        for step in range(self._count):
            width = 2 * DOT if step == self._at else DOT
            colour = self._context.colours.accent if step == self._at else self._context.colours.line
            painter.setBrush(QColor(colour))
            left = self.width() - x - width if rtl else x
            painter.drawRoundedRect(left, 0, width, DOT, DOT / 2, DOT / 2)
            x += width + DOT
        painter.end()


class FirstRunWindow(QWidget):
    """Signals:
    finished(): It was gone through, or closed.
    """

    finished = Signal()

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._settings = settings
        self._at = 0
        self._settles = True
        self.setWindowTitle(_("Welcome to Ostler"))
        self.resize(WIDTH, HEIGHT)
        self.setMinimumSize(WIDTH - 80, HEIGHT - 120)
        self.steps: list[Step] = [
            WhereStep(context),
            AgentsStep(context),
            PlacesStep(context, settings),
            LoginStep(context),
            NoticeStep(context),
        ]
        self._heading = label(size=tokens.SENTENCE, strong=True, wrap=True)
        self._words = label(wrap=True)
        self.stack = QStackedWidget()
        for step in self.steps:
            area = QScrollArea()
            area.setFrameShape(QScrollArea.Shape.NoFrame)
            area.setWidgetResizable(True)
            area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
            area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            area.setWidget(step)
            self.stack.addWidget(area)
        self.dots = Dots(context, len(self.steps))
        self.leave = quiet_button(_("Skip the rest"), self.skip)
        self.leave.setProperty("quiet", True)
        policy = self.leave.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.leave.setSizePolicy(policy)
        self.back = quiet_button(_("Back"), self.go_back)
        self.next = primary_button(_("Next"), self.go_on)
        head = QVBoxLayout()
        head.setContentsMargins(32, 32, 32, tokens.GRID * 2)
        head.setSpacing(tokens.GRID)
        head.addWidget(self._heading)
        head.addWidget(self._words)
        ways = QHBoxLayout()
        ways.setSpacing(tokens.GRID)
        ways.setContentsMargins(0, 0, tokens.GRID, 0)  # below the edge of what is above
        ways.addStretch(1)
        ways.addWidget(self.back)
        ways.addWidget(self.next)
        # As much room at the one side as at the other: the dots stand in the middle.
        foot = QGridLayout()
        foot.setContentsMargins(24, 12, 24, 12)
        foot.setSpacing(tokens.GRID)
        foot.addWidget(self.leave, 0, 0, Qt.AlignmentFlag.AlignLeading | Qt.AlignmentFlag.AlignVCenter)
        foot.addWidget(self.dots, 0, 1, Qt.AlignmentFlag.AlignCenter)
        foot.addLayout(ways, 0, 2)
        foot.setColumnStretch(0, 1)
        foot.setColumnStretch(2, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(self.stack, 1)
        column.addWidget(hairline())
        column.addLayout(foot)
        QShortcut(QKeySequence(QKeySequence.StandardKey.Back), self, self.go_back)
        QShortcut(QKeySequence(QKeySequence.StandardKey.Forward), self, self.go_on)
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self.show_step(0)

    @property
    def at(self) -> int:
        """The step that is shown, from 0."""
        return self._at

    def show_step(self, at: int) -> None:
        """Show one of the steps."""
        self._at = at
        step = self.steps[at]
        self._heading.setText(step.heading)
        self._words.setText(step.words)
        self.stack.setCurrentIndex(at)
        self.dots.show_step(at)
        last = at == len(self.steps) - 1
        self.back.setEnabled(at > 0)
        self.leave.setVisible(not last)
        self.next.setText(_("Finish") if last else _("Next"))
        step.begin()
        self.next.setFocus(Qt.FocusReason.OtherFocusReason)

    def go_on(self) -> None:
        """The next step, or the end."""
        self.steps[self._at].end()
        if self._at + 1 < len(self.steps):
            self.show_step(self._at + 1)
        else:
            self.close()
            self._context.do(Command("new_task"))

    def skip(self) -> None:
        """Enough of it."""
        self.close()

    def go_back(self) -> None:
        """The step before."""
        if self._at:
            self.steps[self._at].end()
            self.show_step(self._at - 1)

    def abandon(self) -> None:
        """The desktop ends while it is shown: it comes again the next time."""
        self._settles = False
        self.close()

    def bring_up(self) -> None:
        """Show it and bring it to the front."""
        self.show()
        self.raise_()
        self.activateWindow()

    def _recolour(self) -> None:
        tint(self._words, self._context.colours.muted)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.key() == Qt.Key.Key_Escape:
            self.close()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            # A field has its own use for it: what is typed there is not thrown away by going on.
            if not isinstance(self.focusWidget(), QLineEdit):
                self.go_on()
        else:
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        for step in self.steps:
            step.end()
        if self._settles:
            self._settings.setValue(DONE_KEY, True)
        super().closeEvent(event)
        self.finished.emit()
