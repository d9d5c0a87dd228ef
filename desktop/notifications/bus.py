"""The session bus, as far as notifications need it: calls, signals and who owns a name. Nothing waits.

jeepney makes and reads the messages, Qt's socket carries them. Qt's own D-Bus cannot be used for this from
Python: it gives no way to send an unsigned integer, and ``Notify`` begins with one behind the name.

A connection is made when something is first asked. One that was lost is made again after a growing pause, for
those who listen, and at once when something is asked. A call that nobody answers fails after its time, and
its answer is dropped when it comes all the same.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.bus import parse_addresses
from jeepney.bus_messages import MatchRule
from jeepney.low_level import HeaderFields, Message, MessageFlag, MessageType, Parser
from jeepney.wrappers import DBusAddress, new_method_call
from PySide6.QtCore import QByteArray, QObject, QTimer, Signal
from PySide6.QtNetwork import QLocalSocket

log = logging.getLogger("ostler.desktop.bus")

CALL_TIMEOUT_MS: Final = 5_000
FIRST_PAUSE_MS: Final = 1_000
LAST_PAUSE_MS: Final = 60_000
"""A bus that went away is most often back within seconds, or the login is over."""
BUS: Final = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")

Done = Callable[[tuple[Any, ...]], None]
Failed = Callable[[str], None]
Told = Callable[[tuple[Any, ...], str], None]
"""The body of a signal, and the connection that sent it. Anybody on the bus can send anything to anybody:
what matters has to be held against the owner of the name it should come from."""


@dataclass(slots=True)
class _Call:
    deadline: float
    done: Done | None
    failed: Failed | None
    late: Done | None


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    rule: MatchRule
    told: Told


class SessionBus(QObject):
    """One connection to the bus of this login.

    Args:
        address: As in ``DBUS_SESSION_BUS_ADDRESS``; None: what the environment says.

    Attributes:
        ident: The bus's own: another one when the login is another one. Empty: not connected.
        name: What this connection is called on it, as in ``:1.7``.

    Signals:
        up(): Connected (again): whoever keeps state about others on the bus has to ask anew.
        down(): The connection is gone.
    """

    up = Signal()
    down = Signal()

    def __init__(self, address: str | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._address = address
        self._socket: QLocalSocket | None = None
        self._auth: Authenticator | None = None
        self._parser = Parser()
        self._serial = 0
        self._calls: dict[int, _Call] = {}
        self._late: dict[int, Done] = {}
        self._waiting: list[tuple[int, Message]] = []
        self._listeners: list[_Listener] = []
        self._ready = False
        self._opening = False
        self.ident = ""
        self.name = ""
        self._clock = QTimer(self)
        self._clock.setSingleShot(True)
        self._clock.timeout.connect(self._on_clock)
        self._was_up = False
        self._pause_ms = FIRST_PAUSE_MS
        self._again = QTimer(self)
        self._again.setSingleShot(True)
        self._again.timeout.connect(self._connect)

    @property
    def ready(self) -> bool:
        """Whether the connection stands."""
        return self._ready

    # --- asking ------------------------------------------------------------------------------------

    def call(
        self,
        target: DBusAddress,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        *,
        done: Done | None = None,
        failed: Failed | None = None,
        late: Done | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
        start: bool = True,
    ) -> None:
        """Call a method. One of ``done`` (with what it answers) and ``failed`` (with an error's name) comes.

        Args:
            late: Told an answer that came after the call had failed for want of one.
            start: Whether the bus may start a program for the name.
        """
        message = new_method_call(target, member, signature or None, body)
        if not start:
            message.header.flags |= MessageFlag.no_auto_start
        self._serial += 1
        serial = self._serial
        self._calls[serial] = _Call(time.monotonic() + timeout_ms / 1000, done, failed, late)
        self._set_clock()
        if self._ready:
            self._send(message, serial)
        else:
            self._waiting.append((serial, message))
            self._connect()

    def listen(self, rule: MatchRule, told: Told) -> Callable[[], None]:
        """Have ``told`` called for every signal that ``rule`` fits, now and over reconnections; what ends
        that."""
        listener = _Listener(rule, told)
        self._listeners.append(listener)
        if self._ready:
            self._add_match(rule)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                if self._ready:
                    self.call(BUS, "RemoveMatch", "s", (rule.serialise(),))

        return end

    def watch_owner(self, name: str, told: Callable[[str], None]) -> None:
        """Have ``told`` called with the new owner of a name (empty: none) whenever it changes."""
        rule = MatchRule(
            type="signal", sender=BUS.bus_name, interface=BUS.interface, member="NameOwnerChanged",
            path=BUS.object_path,
        )  # fmt: skip
        rule.add_arg_condition(0, name)

        def changed(body: tuple[Any, ...], sender: str) -> None:
            if sender == BUS.bus_name and len(body) > 2:
                told(str(body[2]))

        self.listen(rule, changed)

    def close(self) -> None:
        """Let go of the connection; nothing is called any more."""
        self._clock.stop()
        self._again.stop()
        self._opening = False
        self._calls.clear()
        self._waiting.clear()
        self._listeners.clear()
        socket, self._socket = self._socket, None
        if socket is not None:
            self._let_go(socket)
            socket.flush()
            socket.abort()
        self._ready = False

    # --- the connection ----------------------------------------------------------------------------

    def _connect(self) -> None:
        # Never within a call itself: some failures come at once, and whoever asks is not ready for them.
        if self._socket is None and not self._opening:
            self._opening = True
            QTimer.singleShot(0, self, self._open)

    def _open(self) -> None:
        if not self._opening:
            return
        self._opening = False
        place = place_of(self._address or os.environ.get("DBUS_SESSION_BUS_ADDRESS") or usual_address())
        if place is None:
            self._try_again()
            self._fail_all("no_bus")
            return
        name, abstract = place
        socket = QLocalSocket(self)
        if abstract:
            socket.setSocketOptions(QLocalSocket.SocketOption.AbstractNamespaceOption)
        self._socket, self._auth, self._parser = socket, Authenticator(), Parser()
        socket.connected.connect(self._on_connected)
        socket.readyRead.connect(self._on_ready)
        socket.disconnected.connect(self._on_lost)
        socket.errorOccurred.connect(self._on_lost)
        socket.connectToServer(name)

    def _let_go(self, socket: QLocalSocket) -> None:
        """Hear nothing of it any more. One by one: Qt's way to take all at once goes past PySide's books."""
        socket.connected.disconnect(self._on_connected)
        socket.readyRead.disconnect(self._on_ready)
        socket.disconnected.disconnect(self._on_lost)
        socket.errorOccurred.disconnect(self._on_lost)

    def _on_connected(self) -> None:
        self._say_auth()

    def _say_auth(self) -> None:
        auth, socket = self._auth, self._socket
        if auth is None or socket is None:
            return
        data = auth.data_to_send()
        if data:
            socket.write(QByteArray(data))
        if auth.authenticated:
            socket.write(QByteArray(BEGIN))
            self._auth = None
            self._serial += 1
            self._calls[self._serial] = _Call(
                time.monotonic() + CALL_TIMEOUT_MS / 1000, self._on_hello, lambda _why: self._on_lost(), None
            )
            self._send(new_method_call(BUS, "Hello"), self._serial)
            self._set_clock()

    def _on_hello(self, body: tuple[Any, ...]) -> None:
        self._ready = self._was_up = True
        self._pause_ms = FIRST_PAUSE_MS
        self._again.stop()
        self.name = str(body[0]) if body else ""
        self.call(BUS, "GetId", done=self._on_ident)
        for listener in self._listeners:
            self._add_match(listener.rule)
        waiting, self._waiting = self._waiting, []
        for serial, message in waiting:
            if serial in self._calls:
                self._send(message, serial)
        self.up.emit()

    def _on_ident(self, body: tuple[Any, ...]) -> None:
        self.ident = str(body[0]) if body else ""

    def _add_match(self, rule: MatchRule) -> None:
        self.call(BUS, "AddMatch", "s", (rule.serialise(),))

    def _send(self, message: Message, serial: int) -> None:
        if self._socket is not None:
            self._socket.write(QByteArray(message.serialise(serial=serial)))

    def _on_ready(self) -> None:
        if self._socket is None:
            return
        data = bytes(self._socket.readAll().data())
        try:
            if self._auth is not None:
                self._auth.feed(data)
                self._say_auth()
                return
            messages = self._parser.feed(data)
        except (AuthenticationError, AssertionError, ValueError, LookupError) as error:
            # What cannot be read leaves no way to find the next message.
            log.warning("the bus said something that makes no sense: %s", error)
            self._on_lost()
            return
        for message in messages:
            self._take(message)

    def _on_lost(self, _error: object = None) -> None:
        socket, self._socket = self._socket, None
        if socket is None:
            return
        was_ready, self._ready = self._ready, False
        self._auth = None
        self.ident = self.name = ""
        self._let_go(socket)
        socket.abort()
        socket.deleteLater()
        self._late.clear()
        self._try_again()
        self._fail_all("no_bus")
        if was_ready:
            self.down.emit()

    def _try_again(self) -> None:
        """Where there never was a bus nobody waits for one."""
        if self._was_up and self._listeners:
            self._again.start(self._pause_ms)
            self._pause_ms = min(2 * self._pause_ms, LAST_PAUSE_MS)

    # --- what comes --------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        header = message.header
        if header.message_type in (MessageType.method_return, MessageType.error):
            self._answer(message)
        elif header.message_type is MessageType.signal:
            for listener in list(self._listeners):
                if _fits(listener.rule, message):
                    listener.told(message.body, str(header.fields.get(HeaderFields.sender, "")))

    def _answer(self, message: Message) -> None:
        serial = message.header.fields.get(HeaderFields.reply_serial, 0)
        call = self._calls.pop(serial, None)
        good = message.header.message_type is MessageType.method_return
        if call is None:
            late = self._late.pop(serial, None)
            if late is not None and good:
                late(message.body)
            return
        self._set_clock()
        if good and call.done is not None:
            call.done(message.body)
        elif not good and call.failed is not None:
            call.failed(str(message.header.fields.get(HeaderFields.error_name, "error")))

    def _on_clock(self) -> None:
        now = time.monotonic()
        for serial in [serial for serial, call in self._calls.items() if call.deadline <= now]:
            call = self._calls.pop(serial)
            if call.late is not None:
                self._late[serial] = call.late
            if call.failed is not None:
                call.failed("timeout")
        self._waiting = [(serial, message) for serial, message in self._waiting if serial in self._calls]
        self._set_clock()

    def _set_clock(self) -> None:
        if not self._calls:
            self._clock.stop()
            return
        first = min(call.deadline for call in self._calls.values())
        self._clock.start(max(0, round((first - time.monotonic()) * 1000)))

    def _fail_all(self, why: str) -> None:
        calls, self._calls, self._waiting = list(self._calls.values()), {}, []
        self._set_clock()
        for call in calls:
            if call.failed is not None:
                call.failed(why)


def _fits(rule: MatchRule, message: Message) -> bool:
    """Whether a signal is one that was asked for.

    The sender is not looked at: a rule has a well-known name, a message the connection behind it.
    """
    fields, wanted = message.header.fields, rule.header_fields
    for key, field in (
        ("interface", HeaderFields.interface),
        ("member", HeaderFields.member),
        ("path", HeaderFields.path),
    ):
        if key in wanted and wanted[key] != fields.get(field):
            return False
    for number, (value, kind) in rule.arg_conditions.items():
        if kind == "string" and (len(message.body) <= number or message.body[number] != value):
            return False
    return True


@functools.lru_cache(maxsize=4)
def place_of(address: str) -> tuple[str, bool] | None:
    """The socket behind an address and whether its name is abstract; None where there is none for us."""
    if not address or address.startswith("disabled"):
        return None
    try:
        for transport, values in parse_addresses(address):
            if transport == "unix" and values.get("path"):
                return values["path"], False
            if transport == "unix" and values.get("abstract"):
                return values["abstract"], True
    except ValueError:
        log.warning("the address of the session bus makes no sense")
    return None


def usual_address() -> str:
    """Where a login's bus is when nobody says so."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    path = os.path.join(runtime, "bus")
    return f"unix:path={path}" if runtime and os.path.exists(path) else ""
