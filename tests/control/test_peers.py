"""Who is at the other end, by what the kernel tells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from daemon_core.control import peers


def test_both_ends_of_a_unix_socket_know_process_and_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peers.unix_peer(ours) == (os.getpid(), os.geteuid())


def test_the_user_of_a_loopback_connection_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            served, address = listener.accept()
            with served:
                assert peers.tcp_peer_uid(served.getsockname(), address) == os.geteuid()
        assert peers.tcp_peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_a_mapped_address_of_a_dual_stack_client_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET6) as client:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        client.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        served, address = listener.accept()
        with served:
            assert peers.tcp_peer_uid(served.getsockname(), address) == os.geteuid()


def test_only_known_marks_count() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"OSTLER_MARK": "m", "X": "OSTLER_MARK=n"},
    )
    assert child.stdout is not None
    child.stdout.readline()  # before the program runs, it has no environment yet
    try:
        assert peers.descends_from_run(child.pid, {"m"}.__contains__)
        assert not peers.descends_from_run(child.pid, {"n"}.__contains__)
        assert not peers.descends_from_run(os.getpid(), {"m"}.__contains__)
    finally:
        child.communicate(b"\n")


def test_a_process_that_is_gone_counts_as_a_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert peers.descends_from_run(child.pid, lambda mark: False)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Host": "localhost"}, None),
        ({"Host": "LOCALHOST:21514"}, None),
        ({"Host": "localhost:evil"}, "host"),
        ({"Host": "localhost", "Sec-Fetch-Site": "none"}, None),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, "origin"),
        ({"Host": "localhost", "Origin": "http://localhost"}, "origin"),
        ({"Host": "rebound.example:21514"}, "host"),
        ({}, "host"),
    ],
)
def test_what_only_a_browser_sends_is_foreign(headers: dict[str, str], why: str | None) -> None:
    assert peers.foreign(headers, frozenset({"localhost"})) == why
