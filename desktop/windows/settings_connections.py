"""Servers: how each connection stands and since when, signing in with a token, signing out and its price.

A token is typed or pasted into a field that does not show it, goes to the daemon over the local socket, is
checked there against the server, and is kept in the keyring. It is never in a setting or in a log.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from daemon_core.control.connection_views import (
    ConnectionDetail,
    SignedIn,
    SignedOut,
    SignIn,
    SignOut,
    TryAgain,
)
from daemon_core.control.errors import ControlError
from daemon_core.control.views import Condition
from desktop.daemon.http import WORK_TIMEOUT_MS, Call, Failure
from desktop.models.state import DesktopState
from desktop.text import _, mark, n_
from desktop.theme import tokens
from desktop.windows.asking import ask
from desktop.windows.bits import Elided, GlyphLabel, label, primary_button, quiet_button, refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.settings_editors import CalmChoice
from desktop.windows.settings_words import refusal_words
from desktop.words import ago, clock, condition_text, full_stop

FIELD_WIDTH: Final = 400
STORES: Final = (
    ("auto", mark("In the system keyring, or in a file where there is none")),
    ("keyring", mark("Only in the system keyring")),
    ("file", mark("In a file that only you can read")),
)
NO_ANSWER: Final = {
    "name_not_resolved": mark("its name was not found"),
    "network_unreachable": mark("its network cannot be reached"),
    "refused": mark("nothing listens there"),
    "connect_failed": mark("no connection to it can be made"),
    "connect_timeout": mark("no connection came about in time"),
    "timeout": mark("it did not answer in time"),
    "cut_off": mark("it broke off in the middle of an answer"),
    "reset": mark("it broke the connection off"),
    "tls": mark("there is no secure connection to it"),
    "not_the_server": mark("something else answers in its place"),
    "unreadable": mark("its answer cannot be understood"),
}
SIGNED_OUT_WHY: Final = {
    "token_refused": mark("it refuses the token"),
    "keyring_locked": mark("the keyring with its token is locked"),
    "keyring_absent": mark("the keyring with its token cannot be reached"),
    "keyring_timeout": mark("the keyring with its token does not answer"),
    "keyring_failed": mark("the keyring with its token failed"),
    "missing": mark("its token is gone from this machine"),
    "unreadable": mark("the file with its token cannot be read"),
    "not_listed": mark("its address is not known any more"),
}


class ConnectionsPanel(QWidget):
    """The list, and below it the form for one more server."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._shown: list[ConnectionDetail] | None = None
        self._asking: Call[list[ConnectionDetail]] | None = None
        self.rows: dict[str, ConnectionRow] = {}
        self._list = QVBoxLayout()
        self._list.setSpacing(tokens.GRID * 2)
        self.told = label(wrap=True)
        self.told.hide()
        self.add = quiet_button(_("Sign in at a server"), lambda: self.open_form(""))
        self.form = SignInForm(context)
        self.form.hide()
        self.form.done.connect(self._on_signed_in)
        self.form.left.connect(self.close_form)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, tokens.GRID)
        column.setSpacing(12)
        column.addLayout(self._list)
        column.addSpacing(tokens.GRID)
        column.addWidget(self.told)
        column.addWidget(self.add, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self.form)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        self._recolour()

    def refresh(self) -> None:
        """Ask how they are."""
        if self._asking is None and self._context.link.state.connected:
            self._asking = ask(
                self,
                self._context.link,
                list[ConnectionDetail],
                "GET",
                "/v1/connections",
                done=self._on_list,
                failed=self._on_no_list,
            )

    def show_connections(self, found: list[ConnectionDetail]) -> None:
        """Show these; the hub first."""
        found = sorted(found, key=lambda each: (not each.embedded, each.name))
        if found == self._shown:
            return
        self._shown = found
        names = [each.name for each in found]
        for name in [name for name in self.rows if name not in names]:
            gone = self.rows.pop(name)
            gone.hide()
            gone.deleteLater()
        for place, each in enumerate(found):
            row = self.rows.get(each.name)
            if row is None:
                row = self.rows[each.name] = ConnectionRow(self._context)
                row.sign_in.connect(self.open_form)
                row.gone.connect(self._on_signed_out)
                row.looked.connect(self.refresh)
                self._list.insertWidget(place, row)
            row.show_connection(each)

    def open_form(self, url: str) -> None:
        """The form, for this address."""
        self.told.hide()
        self.add.hide()
        self.form.begin(url)
        self.form.show()
        (self.form.token if url else self.form.url).setFocus(Qt.FocusReason.OtherFocusReason)

    def sign_in(self, server: str) -> None:
        """The form for a server that is known by this name; for another one where nobody is."""
        known = self._context.link.state.status
        urls = {each.name: each.url for each in known.connections} if known is not None else {}
        self.open_form(urls.get(server, server if "://" in server else ""))

    def close_form(self) -> None:
        """Away with it, and with what was typed."""
        self.form.clear()
        self.form.hide()
        self.add.show()

    def _on_signed_in(self, answer: SignedIn) -> None:
        self.close_form()
        self._say(signed_in_text(answer))
        self.refresh()

    def _on_signed_out(self, answer: SignedOut) -> None:
        parts = [_("Signed out of {name}.", name=answer.name)]
        if answer.given_up:
            parts.append(
                n_("The results of {n} task were given up.", "The results of {n} tasks were given up.",
                   answer.given_up)
            )  # fmt: skip
        self._say(" ".join(parts))
        self.refresh()

    def _say(self, text: str) -> None:
        self.told.setText(text)
        self.told.show()

    def _on_list(self, found: list[ConnectionDetail]) -> None:
        self._asking = None
        self.show_connections(found)

    def _on_no_list(self, _failure: Failure) -> None:
        self._asking = None

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if not self.isVisible() or state.status is None:
            return
        old = before.status.connections if before.status is not None else []
        if state.status.connections != old or before.connected is not state.connected:
            self.refresh()

    def _recolour(self) -> None:
        tint(self.told, self._context.colours.done)
        found, self._shown = self._shown, None
        if found is not None:
            self.show_connections(found)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self.refresh()


class ConnectionRow(QWidget):
    """One server.

    Signals:
        sign_in(str): A new token is to be given, for this address.
        gone(SignedOut): It was signed out of.
        looked(): It was tried again.
    """

    sign_in = Signal(str)
    gone = Signal(object)
    looked = Signal()

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._detail = ConnectionDetail(name="")
        self._glyph = GlyphLabel()
        self.name = Elided(strong=True)
        self.state = label(wrap=True)
        self.facts = label(wrap=True)
        self.facts.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.error = refusal_label()
        self.error.hide()
        self.try_now = quiet_button(_("Try now"), self._try_now)
        self.again = quiet_button(_("New token"), lambda: self.sign_in.emit(self._detail.url))
        self.out = quiet_button(_("Sign out"), lambda: self._ask(force=False))
        self.question = label(wrap=True)
        self.yes = quiet_button("", self._sign_out)
        self.no = quiet_button(_("Stay signed in"), self._forget)
        self._force = False
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self.name)
        for each in (self.state, self.facts):
            words.addWidget(each)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, tokens.HALF, 0, 0)
        buttons.setSpacing(tokens.GRID)
        for button in (self.try_now, self.again, self.out):
            buttons.addWidget(button)
        buttons.addStretch(1)
        words.addLayout(buttons)
        words.addWidget(self.question)
        answers = QHBoxLayout()
        answers.setSpacing(tokens.GRID)
        answers.addWidget(self.yes)
        answers.addWidget(self.no)
        answers.addStretch(1)
        words.addLayout(answers)
        words.addWidget(self.error)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(12)
        row.addWidget(self._glyph, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        self._forget()

    def show_connection(self, detail: ConnectionDetail) -> None:
        """How it stands."""
        self._detail = detail
        colours = self._context.colours
        glyph, colour = {
            "connected": ("circle-check", colours.done),
            "connecting": ("circle-dot", colours.running),
            "signed_out": ("circle-alert", colours.waiting),
            "off": ("circle-slash", colours.neutral),
        }.get(detail.status, ("circle-x", colours.failed))
        sentence = state_text(detail)
        self._glyph.show_glyph(glyph, colour, sentence)
        title = _("This machine") if detail.embedded else detail.name
        address = detail.url.removeprefix("https://").removeprefix("http://")
        self.name.set_text(title if detail.embedded or address in ("", title) else f"{title} · {address}")
        self.state.setText(sentence)
        self.facts.setText(facts_text(detail))
        tint(self.state, colours.text)
        tint(self.facts, colours.muted)
        tint(self.error, colours.failed)
        asks = self.question.isVisibleTo(self)
        for button, shown in (
            (self.try_now, detail.status == "unreachable"),
            (self.again, not detail.embedded),
            (self.out, not detail.embedded),
        ):
            button.setVisible(shown and not asks)
            button.setAccessibleName(f"{button.text()}: {title}")

    def _try_now(self) -> None:
        ask(self, self._context.link,
            list[ConnectionDetail], "POST", "/v1/connections/try-again", TryAgain(server=self._name()),
            done=lambda _found: self.looked.emit(), failed=self._on_refused,
        )  # fmt: skip

    def _name(self) -> str:
        return "" if self._detail.embedded else self._detail.name

    def _ask(self, *, force: bool) -> None:
        """What it costs, and whether it is wanted all the same."""
        self._force = force
        detail = self._detail
        self.error.hide()
        self.question.setText(cost_text(detail) if force or detail.tasks else _(
            "Its token is removed from this machine, and no more tasks come from there."
        ))  # fmt: skip
        self._force = force or bool(detail.tasks)
        self.yes.setText(_("End them and sign out") if self._force else _("Sign out"))
        self.yes.setEnabled(True)
        for widget in (self.question, self.yes, self.no):
            widget.show()
        for button in (self.try_now, self.again, self.out):
            button.hide()
        self.no.setFocus(Qt.FocusReason.OtherFocusReason)

    def _forget(self) -> None:
        for widget in (self.question, self.yes, self.no):
            widget.hide()
        if self._detail.name:
            self.show_connection(self._detail)

    def _sign_out(self) -> None:
        self.yes.setEnabled(False)
        ask(self, self._context.link,
            SignedOut, "POST", "/v1/connections/sign-out",
            SignOut(server=self._detail.name, force=self._force), timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_out, failed=self._on_refused,
        )  # fmt: skip

    def _on_out(self, answer: SignedOut) -> None:
        self._forget()
        self.gone.emit(answer)

    def _on_refused(self, failure: Failure) -> None:
        self._forget()
        if isinstance(failure, ControlError) and failure.params.get("what") == "connection_busy":
            # Tasks came in the meantime: what it costs now is another question.
            self._detail = _with_tasks(self._detail, failure)
            self._ask(force=True)
            return
        self.error.setText(connection_refusal(failure))
        self.error.show()


class SignInForm(QWidget):
    """Signals:
    done(SignedIn): The server took the token.
    left(): It was given up.
    """

    done = Signal(object)
    left = Signal()

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.url = QLineEdit()
        self.url.setAccessibleName(_("Address of the server"))
        self.url.setPlaceholderText("https://")
        self.token = QLineEdit()
        self.token.setAccessibleName(_("Personal access token"))
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.token.setInputMethodHints(
            Qt.InputMethodHint.ImhSensitiveData | Qt.InputMethodHint.ImhNoPredictiveText
        )
        self.place = CalmChoice(_("Where the token is kept"), lambda: context.colours)
        for value, text in STORES:
            self.place.addItem(_(text), value)
        self.hint = label(
            _("Make a personal access token in your account at the server, and paste it here."), wrap=True
        )
        self.error = refusal_label()
        self.error.hide()
        self.send_button = primary_button(_("Sign in"), self.send)
        self.cancel = quiet_button(_("Cancel"), self.left.emit)
        grid = QGridLayout()
        grid.setHorizontalSpacing(tokens.GRID * 2)
        grid.setVerticalSpacing(tokens.GRID)
        grid.setColumnStretch(1, 1)
        for line, field in enumerate((self.url, self.token, self.place)):
            title = label(field.accessibleName())
            title.setBuddy(field)
            field.setMaximumWidth(FIELD_WIDTH)
            grid.addWidget(title, line, 0)
            grid.addWidget(field, line, 1)
        self.place.setSizeAdjustPolicy(CalmChoice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.cancel)
        buttons.addWidget(self.send_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, tokens.GRID, 0, 0)
        column.setSpacing(12)
        column.addWidget(label(_("Sign in at a server"), size=tokens.TITLE, strong=True))
        column.addWidget(self.hint)
        column.addLayout(grid)
        column.addWidget(self.error)
        column.addLayout(buttons)
        for field in (self.url, self.token):
            field.textChanged.connect(lambda _text: self._enable())
            field.returnPressed.connect(self.send)
        context.theme.changed.connect(self._recolour)
        self._recolour()
        self._enable()

    def begin(self, url: str) -> None:
        """Empty but for the address."""
        self.clear()
        self.url.setText(url)

    def clear(self) -> None:
        """Forget what was typed, above all the token."""
        self.url.clear()
        self.token.clear()
        self.error.hide()

    def send(self) -> None:
        """Have the daemon try it."""
        if not self.send_button.isEnabled():
            return
        self.send_button.setEnabled(False)
        self.send_button.setText(_("The server is asked …"))
        self.error.hide()
        ask(
            self,
            self._context.link,
            SignedIn,
            "POST",
            "/v1/connections/sign-in",
            SignIn(
                url=self.url.text().strip(),
                token=self.token.text().strip(),
                store=self.place.currentData(),
            ),
            timeout_ms=WORK_TIMEOUT_MS,
            done=self._on_done,
            failed=self._on_refused,
        )

    def _on_done(self, answer: SignedIn) -> None:
        self._ready()
        self.clear()
        self.done.emit(answer)

    def _on_refused(self, failure: Failure) -> None:
        self._ready()
        self.error.setText(connection_refusal(failure))
        self.error.show()
        field = self.url if _about_address(failure) else self.token
        field.setFocus(Qt.FocusReason.OtherFocusReason)
        field.selectAll()

    def _ready(self) -> None:
        self.send_button.setText(_("Sign in"))
        self._enable()

    def _enable(self) -> None:
        self.send_button.setEnabled(bool(self.url.text().strip()) and bool(self.token.text().strip()))

    def _recolour(self) -> None:
        tint(self.hint, self._context.colours.muted)
        tint(self.error, self._context.colours.failed)


def state_text(detail: ConnectionDetail) -> str:
    """How it stands, why, since when, and when something happens by itself."""
    since = clock(detail.since)
    match detail.status:
        case "connected":
            parts = [_("Connected since {time}.", time=since) if since else _("Connected.")]
            if not detail.websocket:
                parts.append(_("Its push channel is down: new tasks are looked for now and then."))
        case "connecting":
            parts = [_("Connecting …")]
        case "signed_out":
            why = SIGNED_OUT_WHY.get(str(detail.reason_params.get("reason", "")))
            parts = [
                _("Signed out since {time}: {why}.", time=since, why=_(why))
                if why
                else _("Signed out since {time}.", time=since),
                _("Its results wait here."),
            ]
        case "off":
            parts = [_("Switched off.")]
        case _:
            told = condition_text(Condition(code=detail.reason, params=detail.reason_params))
            why = NO_ANSWER.get(str(detail.reason_params.get("reason", "")))
            what = _("{what}: {why}", what=told, why=_(why)) if why else told
            parts = [full_stop(what), _("Since {time}.", time=since)]
    if detail.next_try_at:
        parts.append(_("Next try at {time}.", time=clock(detail.next_try_at)))
    return " ".join(parts)


def facts_text(detail: ConnectionDetail) -> str:
    """What there is to know besides."""
    if detail.embedded:
        return _("The tasks that you start here. Nobody signs in.")
    names = ", ".join(each.name or each.id for each in detail.workspaces[:5])
    token = {
        "keyring": _("Token in the keyring"),
        "file": _("Token in {path}", path=detail.credential.detail),
    }.get(detail.credential.place, "")
    if token and detail.renewed_at:
        token = _("{token}, renewed {when}", token=token, when=ago(detail.renewed_at))
    if token and detail.expires_at:
        token = _("{token}, good until {time}", token=token, time=clock(detail.expires_at))
    parts = (
        n_("Workspace: {names}", "Workspaces: {names}", len(detail.workspaces), names=names) if names else "",
        n_("{n} task here", "{n} tasks here", detail.tasks) if detail.tasks else "",
        n_("{n} result waits to be taken", "{n} results wait to be taken", detail.undelivered)
        if detail.undelivered
        else "",
        *(
            _(
                "{workspace} does not take the agents of this machine: {why}",
                workspace=each.name or each.id,
                why=each.problem,
            )
            for each in [each for each in detail.workspaces if each.problem][:2]
        ),
        token,
    )
    return " · ".join(part for part in parts if part)


def cost_text(detail: ConnectionDetail) -> str:
    """What signing out costs while tasks of the server are here."""
    parts = [n_("{n} task of it is here.", "{n} tasks of it are here.", detail.tasks)]
    if detail.undelivered:
        parts.append(
            n_("{n} result is not delivered yet.", "{n} results are not delivered yet.", detail.undelivered)
        )
    parts.append(_("Signing out now ends what runs and gives up what the server does not take."))
    return " ".join(parts)


def signed_in_text(answer: SignedIn) -> str:
    """What came of signing in."""
    connection = answer.connection
    place = {
        "keyring": _("Its token is in the system keyring."),
        "file": _("Its token is in a file that only you can read."),
    }.get(connection.credential.place, "")
    why = {
        "keyring_absent": _("No keyring runs here."),
        "keyring_locked": _("The keyring is locked."),
        "keyring_timeout": _("The keyring does not answer."),
    }.get(answer.why_file, "")
    notes = {
        "insecure": _("The token goes over the network unencrypted: use https:// where you can."),
        "no_workspace": _("Your account has no workspace there yet, so no task can come."),
    }
    parts = [_("Signed in at {name}.", name=connection.name), place, why]
    parts += [notes[note] for note in answer.notes if note in notes]
    if answer.expires_at:
        parts.append(_("The token is good until {time}.", time=clock(answer.expires_at)))
    return " ".join(part for part in parts if part)


def connection_refusal(failure: Failure) -> str:
    """Why signing in or out did not work, and what to do."""
    if not isinstance(failure, ControlError):
        return refusal_words(failure)
    params = failure.params
    server = str(params.get("server") or _("The server"))
    match failure.code, str(params.get("why", "")):
        case "sign_in_failed", "token_refused":
            return _("{server} refuses the token. Make a new one in your account there.", server=server)
        case "sign_in_failed", "token_kind":
            return _("This is no personal token, but one that a program was given. Make one in your account.")
        case "sign_in_failed", "token_unfit":
            return _("The token has characters that no token has. Copy it again, whole and alone.")
        case "sign_in_failed", "account":
            return _("{server} lets your account do nothing. Ask whoever runs it.", server=server)
        case "sign_in_failed", "not_a_server":
            return _(
                "What answers at {server} is no server of this kind. Is the address right?", server=server
            )
        case "sign_in_failed", "no_answer" if params.get("reason") == "tls":
            return _(
                "There is no secure connection to {server}: its certificate is not valid.", server=server
            )
        case "sign_in_failed", "no_answer":
            why = NO_ANSWER.get(str(params.get("reason", "")))
            told = _(why) if why else str(params.get("reason", ""))
            return _("{server} does not answer: {why}.", server=server, why=told)
        case "sign_in_failed", _other:
            status = params.get("status", "?")
            return _("{server} answers with status {status}. Try again later.", server=server, status=status)
        case "credential_store", why_code:
            store_why = SIGNED_OUT_WHY.get(why_code)
            if params.get("action") == "keep":
                lead = _("The token could not be kept.")
            else:
                lead = _("The token could not be removed.")
            return f"{lead} {_(store_why).capitalize()}." if store_why else lead
        case "invalid_input", _other:
            return _("This is no address of a server.")
        case "conflict", _other if params.get("what") == "runs_do_not_end":
            return _("Its tasks do not end. Try again in a moment.")
        case "not_found", _other:
            return _("This server is not there any more.")
        case _:
            return refusal_words(failure)


def _about_address(failure: Failure) -> bool:
    if not isinstance(failure, ControlError):
        return False
    return failure.code == "invalid_input" or failure.params.get("why") in ("not_a_server", "no_answer")


def _with_tasks(detail: ConnectionDetail, failure: ControlError) -> ConnectionDetail:
    import msgspec

    tasks, undelivered = failure.params.get("tasks"), failure.params.get("undelivered")
    return msgspec.structs.replace(
        detail,
        tasks=tasks if isinstance(tasks, int) else detail.tasks,
        undelivered=undelivered if isinstance(undelivered, int) else detail.undelivered,
    )
