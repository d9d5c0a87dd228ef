"""Notifications over a bus: what is sent, what comes back, and servers that misbehave."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from desktop.notifications import bus as bus_module
from desktop.notifications.bus import SessionBus, place_of
from desktop.notifications.disturbance import FreedesktopDisturbance
from desktop.notifications.freedesktop import Freedesktop
from desktop.notifications.library import LibraryService
from desktop.notifications.service import Balloon, Button, Chain, Notification, Service, cut
from tests.desktop.notices import NotificationServer
from tests.desktop.screen import session_bus

WAIT_MS = 20_000


@pytest.fixture(autouse=True)
def nothing_is_collected_in_a_thread() -> Iterator[None]:
    """A collection in the server's thread would destroy Qt's objects there, which Qt does not survive."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def server(address: str) -> Iterator[NotificationServer]:
    made = NotificationServer(address)
    yield made
    made.close()


class Ears:
    """What a service told."""

    def __init__(self, service: Service) -> None:
        self.heard: list[tuple[Any, ...]] = []
        for name in ("opened", "pressed", "replied", "gone", "failed", "revived"):
            getattr(service, name).connect(lambda *given, name=name: self.heard.append((name, *given)))


@pytest.fixture
def service(qapp: QApplication, address: str) -> Iterator[Freedesktop]:
    bus = SessionBus(address)
    made = Freedesktop(bus)
    yield made
    made.close()
    bus.close()


def asking(ident: str = "q", text: str = "Wants to run `git push`") -> Notification:
    return Notification(
        ident, "Fix <login> & redirect", text, buttons=(Button("0", "Allow once"), Button("1", "Deny")),
        reply="Your answer", category="im.received", sound="message-new-instant", stays=True,
    )  # fmt: skip


def test_everything_that_the_server_can_is_used(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer
) -> None:
    service.show(asking(text="a < b & c"))
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    (notice,) = server.record.notices
    assert notice.title == "Fix <login> & redirect"
    assert notice.text == "a &lt; b &amp; c"
    assert notice.buttons == {"Allow once": "0", "Deny": "1", "Answer": "inline-reply"}
    assert notice.actions[:2] == ["default", "Open"]
    assert notice.time_ms == 0
    assert notice.hints == {
        "urgency": 1, "desktop-entry": "ostler", "resident": True, "category": "im.received",
        "sound-name": "message-new-instant", "x-kde-reply-placeholder-text": "Your answer",
        "x-kde-reply-submit-button-text": "Send",
    }  # fmt: skip
    assert service.abilities.buttons
    assert service.abilities.reply


def test_a_poor_server_gets_what_it_can(qtbot: QtBot, service: Freedesktop, address: str) -> None:
    poor = NotificationServer(address, capabilities=("body",))
    try:
        service.show(asking(text="a < b"))
        qtbot.waitUntil(lambda: len(poor.record.shown) == 1, timeout=WAIT_MS)
        (notice,) = poor.record.notices
        assert notice.text == "a < b"
        assert notice.actions == []
        assert set(notice.hints) == {"urgency", "desktop-entry", "category"}
    finally:
        poor.close()


def test_a_burst_for_one_ident_stays_one_notification(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer
) -> None:
    for number in range(20):
        service.show(asking(text=f"step {number}"))
    qtbot.waitUntil(
        lambda: [each.text for each in server.record.shown.values()] == ["step 19"], timeout=WAIT_MS
    )
    assert len(server.record.shown) == 1
    assert len(server.record.notices) < 20  # what was overtaken was not sent


def test_what_is_pressed_comes_back_with_its_token(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer
) -> None:
    ears = Ears(service)
    service.show(asking())
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    server.press(1, "1")
    server.press(1, "default", token="may-focus")
    server.reply(1, "yes, with tests")
    server.dismiss(1)
    qtbot.waitUntil(lambda: len(ears.heard) == 4, timeout=WAIT_MS)
    assert ears.heard == [
        ("pressed", "q", "1", ""),
        ("opened", "q", "may-focus"),
        ("replied", "q", "yes, with tests"),
        ("gone", "q", True),
    ]


def test_nobody_but_the_server_can_press_a_button(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer, address: str
) -> None:
    ears = Ears(service)
    service.show(asking())
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)

    async def forge() -> None:
        bus = await MessageBus(address, bus_type=BusType.SESSION).connect()
        names = await bus.call(
            Message(
                destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus", member="ListNames",
            )
        )  # fmt: skip
        assert names is not None
        for name in names.body[0]:
            if name.startswith(":"):
                forged = Message(
                    destination=name, path="/org/freedesktop/Notifications",
                    interface="org.freedesktop.Notifications", member="ActionInvoked",
                    message_type=MessageType.SIGNAL, signature="us", body=[1, "0"],
                )  # fmt: skip
                await bus.send(forged)
        bus.disconnect()

    asyncio.run(forge())
    server.dismiss(1)  # comes after what was forged
    qtbot.waitUntil(lambda: bool(ears.heard), timeout=WAIT_MS)
    assert ears.heard == [("gone", "q", True)]


def test_what_is_withdrawn_before_its_number_came_is_taken_back(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer
) -> None:
    service.show(asking("first"))
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    ears = Ears(service)
    service.show(asking("second"))
    service.withdraw("second")
    service.withdraw("first")
    qtbot.waitUntil(lambda: set(server.record.withdrawn) == {1, 2}, timeout=WAIT_MS)
    assert ears.heard == []


def test_a_server_that_comes_back_is_told_of_and_asked_anew(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer
) -> None:
    ears = Ears(service)
    service.show(asking())
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    server.stop()
    qtbot.waitUntil(lambda: ears.heard == [("gone", "q", False)], timeout=WAIT_MS)
    server.start()
    qtbot.waitUntil(lambda: ears.heard[-1] == ("revived",), timeout=WAIT_MS)
    service.show(asking())
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    assert server.record.notices[-1].replaces == 0


def test_without_a_server_the_tray_says_it(
    qtbot: QtBot, qapp: QApplication, address: str, service: Freedesktop
) -> None:
    said: list[tuple[str, str]] = []
    chain = Chain([service, Balloon(lambda *given: said.append(given))])
    chain.show(asking())
    qtbot.waitUntil(lambda: bool(said), timeout=WAIT_MS)
    assert said == [("Fix <login> & redirect", "Wants to run `git push`")]
    # One that comes later is used from then on.
    late = NotificationServer(address)
    try:
        chain.show(asking())
        qtbot.waitUntil(lambda: len(late.record.shown) == 1, timeout=WAIT_MS)
        assert len(said) == 1
    finally:
        late.close()


@pytest.mark.parametrize("address", ["disabled:", "unix:path=/nowhere/at/all", "nonsense", "tcp:host=x"])
def test_without_a_bus_it_has_failed(qtbot: QtBot, qapp: QApplication, address: str) -> None:
    bus = SessionBus(address)
    service = Freedesktop(bus)
    ears = Ears(service)
    service.show(asking())
    assert ears.heard == []  # never within the call
    qtbot.waitUntil(lambda: ears.heard == [("failed", "q")], timeout=WAIT_MS)
    bus.close()


def test_a_server_that_hangs_holds_up_nothing_and_its_late_answer_is_taken_back(
    qtbot: QtBot, service: Freedesktop, server: NotificationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears = Ears(service)
    service.show(asking("first"))
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    monkeypatch.setattr(bus_module.SessionBus.call, "__kwdefaults__",
                        {**(bus_module.SessionBus.call.__kwdefaults__ or {}), "timeout_ms": 100})  # fmt: skip
    server.hang(hangs=True)
    service.show(asking("second"))
    qtbot.waitUntil(lambda: ears.heard == [("failed", "second")], timeout=WAIT_MS)
    server.hang(hangs=False)
    qtbot.waitUntil(lambda: server.record.withdrawn == [2], timeout=WAIT_MS)


def test_a_bus_that_is_begun_anew_is_found_and_what_waits_is_said_again(
    qtbot: QtBot, qapp: QApplication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "FIRST_PAUSE_MS", 20)
    with session_bus(tmp_path) as address:
        bus = SessionBus(address)
        service = Freedesktop(bus)
        ears = Ears(service)
        server = NotificationServer(address)
        service.show(asking())
        qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
        qtbot.waitUntil(lambda: bool(service._idents), timeout=WAIT_MS)
        server.close()
    qtbot.waitUntil(lambda: ears.heard == [("gone", "q", False)], timeout=WAIT_MS)
    with session_bus(tmp_path) as address:
        server = NotificationServer(address)
        qtbot.waitUntil(lambda: ("revived",) in ears.heard, timeout=WAIT_MS)
        service.show(asking())
        qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
        service.close()
        bus.close()
        server.close()


@pytest.mark.parametrize("says", [b"HELO\r\n", b"OK 1234\r\nl\x00garbage", b"x" * 9000, b""])
def test_a_bus_that_talks_nonsense_is_left(
    qtbot: QtBot, qapp: QApplication, tmp_path: Path, says: bytes
) -> None:
    path = tmp_path / "bus"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def talk() -> None:
        connection, _peer = listener.accept()
        connection.recv(4096)
        connection.sendall(says)
        if not says:
            connection.close()
            return
        connection.settimeout(20)
        while connection.recv(4096):
            connection.sendall(b"\x01\x02" * 40)
        connection.close()

    thread = threading.Thread(target=talk)
    thread.start()
    bus = SessionBus(f"unix:path={path}")
    service = Freedesktop(bus)
    ears = Ears(service)
    service.show(asking())
    qtbot.waitUntil(lambda: ears.heard == [("failed", "q")], timeout=WAIT_MS)
    bus.close()
    thread.join(20)
    listener.close()


def test_do_not_disturb_is_read_and_followed(
    qtbot: QtBot, qapp: QApplication, address: str, server: NotificationServer
) -> None:
    bus = SessionBus(address)
    watched = FreedesktopDisturbance(bus, environ={})
    assert not watched.silenced
    qtbot.waitUntil(lambda: bus.ready, timeout=WAIT_MS)
    server.inhibit(on=True)
    qtbot.waitUntil(lambda: watched.silenced, timeout=WAIT_MS)
    server.inhibit(on=False)
    qtbot.waitUntil(lambda: not watched.silenced, timeout=WAIT_MS)
    assert not watched.away
    bus.close()


def forget(service: LibraryService) -> None:
    """On D-Bus the library leaves its connection open for good: that is none of ours."""
    service._notifier = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_the_library_of_other_platforms_shows_presses_and_takes_back(
    qtbot: QtBot,
    qapp: QApplication,
    server: NotificationServer,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    service = LibraryService()
    ears = Ears(service)
    try:
        service.show(asking())
        qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
        (notice,) = server.record.notices
        assert notice.title == "Fix <login> & redirect"
        server.press(notice.number, notice.buttons["Deny"])
        qtbot.waitUntil(lambda: ("pressed", "q", "1", "") in ears.heard, timeout=WAIT_MS)
        service.show(asking("another"))
        qtbot.waitUntil(lambda: len(server.record.notices) == 2, timeout=WAIT_MS)
        service.withdraw("another")
        another = server.record.notices[1].number
        qtbot.waitUntil(lambda: another in server.record.withdrawn, timeout=WAIT_MS)
        assert service.abilities.buttons
    finally:
        service.close()
        forget(service)


def test_the_library_that_fails_in_silence_is_found_out(
    qtbot: QtBot, qapp: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "disabled:")
    service = LibraryService()
    ears = Ears(service)
    service.show(asking())
    qtbot.waitUntil(lambda: ears.heard == [("failed", "q")], timeout=WAIT_MS)
    service.close()
    forget(service)


def test_addresses_and_texts() -> None:
    assert place_of("unix:path=/run/user/1000/bus,guid=1") == ("/run/user/1000/bus", False)
    assert place_of("unix:abstract=/tmp/dbus-x") == ("/tmp/dbus-x", True)
    assert place_of("tcp:host=x,port=1;unix:path=/b") == ("/b", False)
    assert place_of("") is None
    assert cut("a\0b\ud800" + "c" * 300, 10) == "ab?cccccc…"


def test_what_a_crash_has_left_is_taken_back_by_the_next_life(
    qtbot: QtBot, qapp: QApplication, server: NotificationServer, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "shown.json"

    def life() -> tuple[SessionBus, Freedesktop, list[frozenset[str]]]:
        bus = SessionBus(address)
        made = Freedesktop(bus, kept=path)
        left: list[frozenset[str]] = []
        made.left.connect(left.append)
        return bus, made, left

    bus, first, _left = life()
    first.begin()
    for ident in ("q", "r"):
        first.show(asking(ident))
    qtbot.waitUntil(lambda: len(server.record.shown) == 2, timeout=WAIT_MS)
    server.dismiss(2)
    qtbot.waitUntil(lambda: path.exists() and b'"r"' not in path.read_bytes(), timeout=WAIT_MS)
    assert path.stat().st_mode & 0o077 == 0
    bus.close()  # it crashes: nobody takes anything back
    other, second, left = life()
    second.show(asking("s"))  # another desktop that has not the place yet says nothing of its own
    qtbot.waitUntil(lambda: len(server.record.notices) == 3, timeout=WAIT_MS)
    second.begin()
    qtbot.waitUntil(lambda: server.record.withdrawn == [1], timeout=WAIT_MS)
    assert left == [frozenset({"q"})]
    second.close()
    other.close()
    assert not path.exists()


def test_numbers_of_another_server_are_left_alone(
    qtbot: QtBot, qapp: QApplication, server: NotificationServer, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "shown.json"
    bus = SessionBus(address)
    first = Freedesktop(bus, kept=path)
    first.begin()
    first.show(asking())
    qtbot.waitUntil(path.exists, timeout=WAIT_MS)
    bus.close()
    server.stop()
    server.start()
    bus = SessionBus(address)
    second = Freedesktop(bus, kept=path)
    second.begin()
    second.show(asking("t"))
    qtbot.waitUntil(lambda: len(server.record.shown) == 1, timeout=WAIT_MS)
    second.show(asking("u"))
    qtbot.waitUntil(lambda: len(server.record.shown) == 2, timeout=WAIT_MS)
    assert server.record.withdrawn == []
    second.close()
    bus.close()
