"""Steps of the first run: where tasks come from, start at login, notifications."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import QAbstractButton, QButtonGroup, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from daemon_core.control.connection_views import SignedIn
from desktop.models.state import DesktopState
from desktop.text import _
from desktop.theme import glyphs, tokens
from desktop.windows.bits import GlyphLabel, label, quiet_button, tint
from desktop.windows.context import Context
from desktop.windows.settings_connections import SignInForm, signed_in_text
from desktop.windows.settings_general import AutostartRow
from desktop.words import link_sentence


class Step(QWidget):
    """One step.

    Attributes:
        heading, words: What stands above it.
    """

    heading = ""
    words = ""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(32, tokens.HALF, 32, 24)
        self._column.setSpacing(12)

    def begin(self) -> None:
        """It is shown."""

    def end(self) -> None:
        """It is left."""


class Told(QWidget):
    """A glyph and a sentence: how something stands."""

    def __init__(self) -> None:
        super().__init__()
        self._glyph = GlyphLabel()
        self._text = label(wrap=True)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(tokens.GRID)
        row.addWidget(self._glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self._text, 1)
        self.hide()

    @property
    def text(self) -> str:
        """The sentence."""
        return self._text.text()

    def tell(self, glyph: str, colour: str, text: str) -> None:
        """Say it; an empty text says nothing any more."""
        self._glyph.show_glyph(glyph, colour, text)
        self._text.setText(text)
        self.setVisible(bool(text))


class ChoiceCard(QAbstractButton):
    """One of two ways: a radio button as large as what it means."""

    def __init__(self, context: Context, glyph: str, title: str, text: str) -> None:
        super().__init__()
        self._context = context
        self._glyph = glyph
        self.setText(title)
        self.setAccessibleName(title)
        self.setAccessibleDescription(text)
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self._title = label(title, strong=True)
        self._words = label(text, wrap=True)
        for each in (self._title, self._words):
            each.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            each.setForegroundRole(QPalette.ColorRole.WindowText)  # in a button it would be the button's
        column = QVBoxLayout(self)
        column.setContentsMargins(16 + glyphs.LARGE + 12, 12, 40, 12)
        column.setSpacing(2)
        column.addWidget(self._title)
        column.addWidget(self._words)
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(400, 72)

    def hasHeightForWidth(self) -> bool:  # noqa: N802
        return True

    def heightForWidth(self, width: int) -> int:  # noqa: N802
        inner = self.layout()
        return max(64, inner.heightForWidth(width)) if inner is not None else 64

    def _recolour(self) -> None:
        tint(self._words, self._context.colours.muted)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        colours = self._context.colours
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = self.rect().adjusted(1, 1, -1, -1)
        chosen = self.isChecked()
        painter.setPen(QPen(QColor(colours.accent if chosen or self.hasFocus() else colours.line),
                            2 if self.hasFocus() else 1))  # fmt: skip
        ground = colours.selected if chosen else colours.hover if self.underMouse() else colours.surface
        painter.setBrush(QColor(ground))
        painter.drawRoundedRect(box, tokens.RADIUS, tokens.RADIUS)
        rtl = self.layoutDirection() is Qt.LayoutDirection.RightToLeft
        tint_ = colours.accent if chosen else colours.muted
        drawn = glyphs.pixmap(self._glyph, tint_, glyphs.LARGE, self.devicePixelRatioF())
        x = self.width() - 16 - glyphs.LARGE if rtl else 16
        painter.drawPixmap(x, 14, drawn)
        if chosen:
            tick = glyphs.pixmap("circle-check", colours.accent, glyphs.LARGE, self.devicePixelRatioF())
            end = 14 if rtl else self.width() - 14 - glyphs.LARGE
            painter.drawPixmap(end, (self.height() - glyphs.LARGE) // 2, tick)
        painter.end()


class WhereStep(Step):
    """Local, or with a server as well."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.heading = _("Where do your tasks come from?")
        self.words = _("Both can be changed later, under Settings.")
        self.local = ChoiceCard(
            context, "monitor", _("From this machine"),
            _("You start tasks here, in a window or with the ostler command. No account is needed."),
        )  # fmt: skip
        self.server = ChoiceCard(
            context, "server", _("From a server as well"),
            _("A server that your team uses hands tasks to the agents of this machine."),
        )  # fmt: skip
        group = QButtonGroup(self)
        for card in (self.local, self.server):
            group.addButton(card)
            self._column.addWidget(card)
        self.local.setChecked(True)
        self.form = SignInForm(context)
        self.form.cancel.hide()
        self.form.send_button.setProperty("primary", False)  # the one of this view is "Next"
        self.told = Told()
        self._column.addWidget(self.told)
        self._column.addWidget(self.form)
        self._column.addStretch(1)
        self.local.toggled.connect(lambda _on: self._show())
        self.form.done.connect(self._on_signed_in)
        self._signed_in = ""
        context.link.changed.connect(self._on_state)
        self._show()

    def end(self) -> None:
        """The token that was typed is not kept."""
        self.form.token.clear()

    def _on_signed_in(self, answer: SignedIn) -> None:
        self._signed_in = signed_in_text(answer)
        self.form.clear()
        self._show()

    def _on_state(self, _before: DesktopState, _state: DesktopState) -> None:
        if self.isVisible():
            self._show()

    def _show(self) -> None:
        colours, state = self._context.colours, self._context.link.state
        wants = self.server.isChecked()
        self.form.setVisible(wants and not self._signed_in)
        self.form.setEnabled(state.connected)
        if not wants:
            self.told.tell("", colours.muted, "")
        elif self._signed_in:
            self.told.tell("circle-check", colours.done, self._signed_in)
        elif not state.connected:
            text = _("{what}. Signing in is possible as soon as it is up.", what=link_sentence(state))
            self.told.tell("hourglass", colours.waiting, text)
        else:
            self.told.tell("", colours.muted, "")

    def begin(self) -> None:
        self._show()


class LoginStep(Step):
    """The switch, as the system has it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.heading = _("Should Ostler be there when you log in?")
        self.words = _(
            "It sits in the tray and keeps your agents ready. You can change your mind at any time."
        )
        self.row = AutostartRow(context, way_back=False)
        self._none = label(
            _("This system has no way to start programs at login that Ostler knows."), wrap=True
        )
        self._none.setVisible(context.autostart is None)
        tint(self._none, context.colours.muted)
        self._column.addWidget(self.row)
        self._column.addWidget(self._none)
        self._column.addStretch(1)

    def begin(self) -> None:
        self.row.read()


class NoticeStep(Step):
    """A test notification, and what to do if it was not seen."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.heading = _("Can Ostler reach you?")
        self.words = _("It tells you when a task is done, failed or has a question; nothing else, and once.")
        self.show_one = quiet_button(_("Show a test notification"), self._test)
        self.asked = label(_("Did you see it?"))
        self.yes = quiet_button(_("Yes"), lambda: self._answer(True))
        self.no = quiet_button(_("No"), lambda: self._answer(False))
        self.told = Told()
        row = QHBoxLayout()
        row.setSpacing(tokens.GRID)
        row.addWidget(self.asked)
        row.addWidget(self.yes)
        row.addWidget(self.no)
        row.addStretch(1)
        self._column.addWidget(self.show_one, 0, Qt.AlignmentFlag.AlignLeft)
        self._column.addLayout(row)
        self._column.addWidget(self.told)
        self._column.addStretch(1)
        self._show_question(False)
        self.show_one.setEnabled(context.messages is not None)
        if context.messages is not None:
            context.messages.test_came.connect(self._on_came)

    def _test(self) -> None:
        if self._context.messages is not None:
            self.told.tell("", self._context.colours.muted, "")
            self._show_question(True)
            self.yes.setFocus(Qt.FocusReason.OtherFocusReason)
            self._context.messages.test()

    def _on_came(self, what: str) -> None:
        self._answer(what == "opened")

    def _answer(self, seen: bool) -> None:
        self._show_question(False)
        self.show_one.setText(_("Show it again"))
        self.show_one.setFocus(Qt.FocusReason.OtherFocusReason)
        colours, messages = self._context.colours, self._context.messages
        if seen:
            self.told.tell("circle-check", colours.done, _("Notifications work here."))
            return
        server = messages.server() if messages is not None else ""
        if messages is not None and messages.silenced():
            text = _('Your desktop is on "do not disturb". What Ostler has to say waits until that is over.')
        elif server:
            text = _(
                "{server} shows notifications here: look in its settings whether Ostler may. Whatever was"
                " said is listed under Messages in any case.",
                server=server,
            )
        else:
            text = _(
                "Nothing on this desktop shows notifications, so Ostler's tray icon has to. Whatever was said"
                " is listed under Messages in any case."
            )
        self.told.tell("circle-alert", colours.waiting, text)

    def _show_question(self, asked: bool) -> None:
        for widget in (self.asked, self.yes, self.no):
            widget.setVisible(asked)
