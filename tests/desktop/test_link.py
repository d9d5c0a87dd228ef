"""The link against a real daemon that comes, goes, is killed and stops answering."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from PySide6.QtCore import QCoreApplication
from pytestqt.qtbot import QtBot

from daemon_core.control.errors import ControlError
from daemon_core.control.views import DaemonStatus, Snapshot, TaskAdd, TaskView
from desktop.daemon import link as link_module
from desktop.daemon.http import Failure, Unreachable
from desktop.daemon.link import Link
from desktop.models.state import LinkPhase
from desktop.theme.mark import Shape
from desktop.tray.view import shape_of
from tests.end_to_end.home import OstlerHome

PATIENCE_MS = 40_000
SNAPSHOT = Snapshot(revision=1, status=DaemonStatus(status="running", version="1.0.0", pid=1))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    yield found
    found.close()


@pytest.fixture
def link(home: OstlerHome, qapp: QCoreApplication) -> Iterator[Link]:
    made = Link(home.directories)
    yield made
    made.stop()


def until(qtbot: QtBot, condition: Callable[[], bool]) -> None:
    qtbot.waitUntil(condition, timeout=PATIENCE_MS)


def test_a_daemon_that_comes_is_noticed_and_its_tasks_are_followed(
    home: OstlerHome, link: Link, qtbot: QtBot
) -> None:
    link.start()
    until(qtbot, lambda: link.state.link is LinkPhase.ABSENT)
    home.start()
    until(qtbot, lambda: link.state.connected)
    gate = home.root / "gate"
    task = home.add(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo over", "shell")
    until(qtbot, lambda: task in [each.id for each in link.state.active])
    seen: list[int] = []
    link.transcript.connect(lambda ident, seq: seen.append(seq) if ident == task else None)
    gate.touch()
    until(qtbot, lambda: task in [each.id for each in link.state.ended])
    assert link.state.ended[0].status == "completed"
    assert seen == sorted(seen)
    assert seen


def test_a_killed_daemon_is_gone_at_once_and_the_next_one_is_found(
    home: OstlerHome, link: Link, qtbot: QtBot
) -> None:
    home.start()
    link.start()
    until(qtbot, lambda: link.state.connected)
    task = home.add("sleep 1000", "shell")
    until(qtbot, lambda: bool(link.state.active))
    home.kill()
    until(qtbot, lambda: not link.state.connected)
    assert link.state.link is LinkPhase.ABSENT
    assert task in link.state.tasks  # what was known is not forgotten
    home.start()
    until(qtbot, lambda: link.state.connected)
    until(qtbot, lambda: task in [each.id for each in link.state.active])


def test_a_daemon_that_hangs_is_found_out_when_somebody_looks(
    home: OstlerHome, link: Link, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "STALE_MS", 0)
    home.start()
    link.start()
    until(qtbot, lambda: link.state.connected)
    link.look()
    until(qtbot, lambda: link._asked is None)  # it is there
    assert link.state.connected
    daemon = home.daemon
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        link._silence.start(0)  # nothing was heard for long, or somebody looks: the same question
        until(qtbot, lambda: link.state.link is LinkPhase.HUNG)
        assert link.state.next_try_at
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    until(qtbot, lambda: link.state.connected)


def test_what_is_waited_for_is_not_shown_as_well_and_a_look_finds_out_when_it_is_back(
    home: OstlerHome, link: Link, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "STALE_MS", 0)
    monkeypatch.setattr(link_module, "ANSWER_MS", 200)
    home.start()
    link.start()
    until(qtbot, lambda: link.state.connected)
    assert shape_of(link.state) is Shape.IDLE
    daemon = home.daemon
    assert daemon is not None
    seen: list[tuple[LinkPhase, bool, Shape]] = []
    link.changed.connect(lambda _before, now: seen.append((now.link, now.unsure, shape_of(now))))
    os.kill(daemon.pid, signal.SIGSTOP)
    try:

        def hangs() -> bool:
            link.look()  # what it said last is to be older than a moment
            return link.state.link is LinkPhase.HUNG

        until(qtbot, hangs)
        assert seen == [
            (LinkPhase.CONNECTED, True, Shape.DISCONNECTED),
            (LinkPhase.HUNG, False, Shape.PROBLEM),
        ]
        link._again.stop()  # the next try by itself may be half a minute away
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    monkeypatch.setattr(link_module, "ANSWER_MS", PATIENCE_MS)
    until(qtbot, lambda: link._snapshot is None)
    link._again.stop()
    link.look()
    until(qtbot, lambda: link.state.connected)


def test_a_daemon_that_takes_long_to_be_ready_is_asked_until_it_is(
    home: OstlerHome, link: Link, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in its directory tells when it is: there are no signs of it but the first one."""
    monkeypatch.setattr(link_module, "HINT_MS", 0)
    link.start()
    until(qtbot, lambda: link.state.link is LinkPhase.ABSENT)
    path = home.directories.checked_socket()
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = [*3 * [(503, b'{"error":{"code":"not_ready"}}')], (200, msgspec.json.encode(SNAPSHOT))]
    with answering(path, answers):
        until(qtbot, lambda: link.state.connected)
    assert answers == []


def test_a_socket_that_somebody_removed_is_missed(
    home: OstlerHome, link: Link, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "MISSING_MS", 0)
    home.start()
    link.start()
    until(qtbot, lambda: link.state.connected)
    home.directories.checked_socket().unlink()
    until(qtbot, lambda: link.state.link is LinkPhase.ABSENT)


def test_answers_refusals_and_silence_are_told_apart(home: OstlerHome, link: Link, qtbot: QtBot) -> None:
    failures: list[Failure] = []
    link.call(object, "GET", "/v1/status", failed=failures.append)
    until(qtbot, lambda: bool(failures))
    assert isinstance(failures[0], Unreachable)
    assert failures[0].why == "absent"
    home.start()
    made: list[TaskView] = []
    link.call(TaskView, "POST", "/v1/tasks", TaskAdd(prompt="true", runtime="shell"), done=made.append)
    until(qtbot, lambda: bool(made))
    assert made[0].runtime == "shell"
    link.call(TaskView, "GET", "/v1/tasks/00000000", failed=failures.append)
    until(qtbot, lambda: len(failures) == 2)
    assert isinstance(failures[1], ControlError)
    assert failures[1].code == "not_found"


def test_many_refused_connections_do_not_use_up_those_to_come(
    home: OstlerHome, link: Link, qtbot: QtBot
) -> None:
    home.start()
    home.kill()  # its socket is still there, and nobody listens
    failures: list[Failure] = []
    for count in range(1, 13):
        link.call(object, "GET", "/v1/status", failed=failures.append)
        until(qtbot, lambda count=count: len(failures) == count)  # type: ignore[misc]
    assert {each.why for each in failures if isinstance(each, Unreachable)} == {"absent"}
    home.start()
    answers: list[object] = []
    link.call(object, "GET", "/v1/status", done=answers.append)
    until(qtbot, lambda: bool(answers))


def test_what_was_cancelled_answers_nobody(home: OstlerHome, link: Link, qtbot: QtBot) -> None:
    home.start()
    answers: list[object] = []
    call = link.call(object, "GET", "/v1/status", done=answers.append, failed=answers.append)
    call.cancel()
    others: list[object] = []
    link.call(object, "GET", "/v1/status", done=others.append)
    until(qtbot, lambda: bool(others))
    assert answers == []


@contextmanager
def answering(path: Path, answers: list[tuple[int, bytes]]) -> Iterator[None]:
    """Somebody at the socket who gives these answers, one to each connection, and then none to any."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        listener.settimeout(0.2)
        kept: list[socket.socket] = []

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                kept.append(connection)
                connection.recv(4096)
                if answers:
                    status, body = answers.pop(0)
                    head = f"HTTP/1.1 {status} So\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    connection.sendall(head.encode() + body)
                    connection.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            for connection in kept:
                connection.close()


def test_something_else_in_the_daemons_place(home: OstlerHome, link: Link, qtbot: QtBot) -> None:
    link.start()
    until(qtbot, lambda: link.state.link is LinkPhase.ABSENT)
    path = home.directories.checked_socket()
    path.parent.mkdir(parents=True, exist_ok=True)
    with answering(path, [(404, b"hello")] * 20):
        until(qtbot, lambda: link.state.link is LinkPhase.FOREIGN)
