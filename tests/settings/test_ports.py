"""The loopback port: kept over restarts, never another program's."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from daemon_core.settings.directories import Directories, resolve
from daemon_core.settings.ports import (
    FOREIGN_PORTS,
    PortInUseError,
    default_port,
    open_loopback,
    stored_port,
)


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    found = resolve({"OSTLER_HOME": str(tmp_path)}, "ports-under-test")
    found.ensure()
    return found


def test_the_port_is_stored_and_used_again(directories: Directories) -> None:
    with open_loopback(directories) as first:
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        assert stored_port(directories) == port
        with socket.create_connection(("127.0.0.1", port)):
            served, _ = first.accept()
            served.close()  # leaves the port in TIME_WAIT
    with open_loopback(directories, may_move=False) as second:
        assert second.getsockname()[1] == port


def test_a_taken_port_is_left_only_where_no_run_knows_it(directories: Directories) -> None:
    with open_loopback(directories) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError) as error:
            open_loopback(directories, may_move=False)
        assert (error.value.port, error.value.fixed) == (port, "runs")
        assert stored_port(directories) == port
        with open_loopback(directories) as moved:
            assert moved.getsockname()[1] == stored_port(directories) != port


def test_a_configured_port_is_the_only_one(directories: Directories) -> None:
    with open_loopback(directories) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError) as error:
            open_loopback(directories, port)
        assert error.value.fixed == "configured"


@pytest.mark.parametrize("left", [b"", b"x", b"80", b"19514", b"70000", b"-1", b"\xff\xff"])
def test_a_damaged_file_counts_as_none(directories: Directories, left: bytes) -> None:
    directories.port_file.write_bytes(left)
    assert stored_port(directories) is None


def test_profiles_look_in_different_places_and_not_at_another_programs() -> None:
    ports = [default_port(name) for name in ("default", "work", "play", "a", "b")]
    assert len(set(ports)) == len(ports)
    for port in ports:
        assert port not in FOREIGN_PORTS
        assert 1024 <= port <= 32767
