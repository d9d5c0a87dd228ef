"""The small synchronous client, against the real server and against listeners that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon_core.control.client import ControlClient, DaemonUnreachableError
from daemon_core.control.errors import ControlError
from daemon_core.control.server import ControlServer
from daemon_core.control.views import DaemonStatus, TaskAdd, TaskView, TranscriptLine
from tests.control.memory_backend import MemoryBackend

LISTEN = """
import os, socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock.listen()
print("listening", flush=True)
print(len(sock.accept()[0].recv(10)), "bytes")
"""


async def test_answers_are_decoded_and_refusals_raised(server: ControlServer) -> None:
    client = ControlClient(server.socket_path)

    def work() -> None:
        assert client.call(DaemonStatus, "GET", "/v1/status").version == "9.9.9"
        made = client.call(TaskView, "POST", "/v1/tasks", TaskAdd(prompt="p" * 2_000_000))
        assert len(made.prompt) == 2_000_000
        with pytest.raises(ControlError) as refused:
            client.call(TaskView, "GET", "/v1/tasks/ffffffff")
        assert refused.value.code == "not_found"
        assert refused.value.http_status == 404

    await asyncio.to_thread(work)


async def test_a_large_body_that_is_refused_unread_is_still_a_refusal(server: ControlServer) -> None:
    def work() -> None:
        client = ControlClient(server.socket_path)
        with pytest.raises(ControlError) as refused:
            client.call(TaskView, "POST", "/v1/tasks", TaskAdd(prompt="p" * (20 * 2**20)))
        assert refused.value.code == "too_large"

    await asyncio.to_thread(work)


async def test_lines_come_as_they_are_said(server: ControlServer, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x"))
    await backend.say(made.id, *(TranscriptLine(seq=n, type="text", content="é" * n) for n in range(1, 600)))
    loop = asyncio.get_running_loop()

    def work() -> int:
        seen = 0
        for line in ControlClient(server.socket_path).lines(f"/v1/tasks/{made.id}/transcript?follow=1"):
            seen += 1
            assert f'"seq":{seen},'.encode() in line
            if seen == 599:
                asyncio.run_coroutine_threadsafe(backend.text(made.id, "last"), loop).result()
            if seen == 600:
                asyncio.run_coroutine_threadsafe(backend.finish(made.id), loop).result()
        return seen

    assert await asyncio.to_thread(work) == 600


async def test_a_stream_cut_off_by_a_stopping_daemon_is_no_complete_one(
    server: ControlServer, backend: MemoryBackend
) -> None:
    made = await backend.add_task(TaskAdd(prompt="x"))
    await backend.text(made.id, "one")
    loop = asyncio.get_running_loop()

    def work() -> None:
        lines = ControlClient(server.socket_path).lines(f"/v1/tasks/{made.id}/transcript?follow=1")
        next(lines)
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        with pytest.raises(DaemonUnreachableError) as broken:
            next(lines)
        assert broken.value.why == "broken"

    await asyncio.to_thread(work)


def test_nothing_listening_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        with pytest.raises(DaemonUnreachableError) as error:
            ControlClient(path).call(DaemonStatus, "GET", "/v1/status")
        assert error.value.why == "absent"
        with socket.socket(socket.AF_UNIX) as dead:  # a socket file without a listener
            if not path.exists():
                dead.bind(str(path))


@contextmanager
def listener(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def work() -> None:
            connection, _ = sock.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_answers_that_make_no_sense_are_broken(tmp_path: Path, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        try:
            connection.sendall(answer)
        except OSError:
            pass

    with listener(tmp_path / "s", serve), pytest.raises(DaemonUnreachableError) as error:
        ControlClient(tmp_path / "s").call(DaemonStatus, "GET", "/v1/status")
    assert error.value.why == "broken"


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def test_a_daemon_that_does_not_answer_is_a_timeout(tmp_path: Path) -> None:
    with (
        listener(tmp_path / "s", silent),
        pytest.raises(DaemonUnreachableError) as error,
    ):
        ControlClient(tmp_path / "s", timeout_s=0.1).call(DaemonStatus, "GET", "/v1/status")
    assert error.value.why == "timeout"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_users_listener_is_told_nothing(tmp_path: Path) -> None:
    """A credential of the socket is that of whoever called listen."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        with subprocess.Popen(
            [sys.executable, "-c", LISTEN, str(sock.fileno())],
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"listening\n"
            with pytest.raises(DaemonUnreachableError) as error:
                ControlClient(path).call(DaemonStatus, "GET", "/v1/status")
            assert error.value.why == "foreign"
            assert other.stdout.read() == b"0 bytes\n"
