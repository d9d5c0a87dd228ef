"""Where files go, and that the places are this user's own."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from daemon_core.settings.directories import (
    SOCKET_PATH_LIMIT_BYTES,
    Directories,
    make_private,
    resolve,
    socket_path,
)
from daemon_core.settings.errors import SettingsError
from tests.settings.another_user import open_place, run_as_another


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_below_the_home(tmp_path: Path) -> None:
    found = resolve({"OSTLER_HOME": str(tmp_path)})
    assert found == Directories(
        tmp_path / "config", tmp_path / "data", tmp_path / "state", tmp_path / "cache", tmp_path / "run"
    )
    assert found.control_socket == tmp_path / "run" / "control.sock"


def test_a_profile_has_places_of_its_own(tmp_path: Path) -> None:
    environ = {"OSTLER_HOME": str(tmp_path), "OSTLER_PROFILE": "work"}
    assert resolve(environ).state == tmp_path / "state" / "profiles" / "work"
    assert resolve(environ).profile == "work"
    assert resolve(environ, "default").state == tmp_path / "state"
    assert resolve(environ, "other").state == tmp_path / "state" / "profiles" / "other"


def test_without_a_home_the_platforms_places_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone at logout"))
    found = resolve({"OSTLER_HOME": ""})
    assert found.config == tmp_path / "config" / "ostler"
    assert found.run == tmp_path / "state" / "ostler" / "run"


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve({"OSTLER_HOME": "here"}).data == tmp_path / "here" / "data"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-x", "nul", "com1", "x" * 33, "a b", "ä", "a\n"])
def test_a_name_that_could_be_no_directory_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as error:
        resolve({}, name)
    assert error.value.key == "--profile"


def test_directories_are_made_private_and_made_so_again(tmp_path: Path) -> None:
    os.umask(old := os.umask(0))
    found = resolve({"OSTLER_HOME": str(tmp_path / "a" / "b"), "OSTLER_PROFILE": "p"})
    found.ensure()
    for path in (
        found.config,
        found.data,
        found.state,
        found.cache,
        found.run,
        found.log_dir,
        tmp_path / "a",
    ):
        assert mode(path) == 0o700
    os.chmod(found.state, 0o755)
    found.ensure()
    assert mode(found.state) == 0o700
    os.umask(old)


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SettingsError, match="not a directory") as error:
        resolve({"OSTLER_HOME": str(tmp_path)}).ensure()
    assert error.value.file == tmp_path / "state"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's directory")
def test_another_users_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(0o777)
    os.chown(tmp_path / "data", 65534, 65534)
    with pytest.raises(SettingsError, match="belongs to another user") as error:
        resolve({"OSTLER_HOME": str(tmp_path)}).ensure()
    assert "OSTLER_HOME" in error.value.hint


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_place_that_cannot_be_written_to_is_told() -> None:
    with open_place() as place:
        told = run_as_another(
            """
become_another()
try:
    directories.resolve({"OSTLER_HOME": sys.argv[1]}).ensure()
except errors.SettingsError as error:
    print(error)
""",
            str(place / "x"),
        )
    assert "cannot be made: Permission denied" in told


def test_a_socket_path_that_is_too_long_gets_a_private_place(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    found = resolve({"OSTLER_HOME": str(deep)})
    path = found.control_socket
    assert len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES
    assert path == socket_path(deep / "run", "control.sock"), "the same for every process"
    assert path != resolve({"OSTLER_HOME": str(deep)}, "p").control_socket
    make_private(path.parent)
    try:
        assert mode(path.parent) == 0o700
        assert found.checked_socket() == path
        os.chmod(path.parent, 0o770)
        with pytest.raises(SettingsError, match="other users can enter"):
            found.checked_socket()
    finally:
        path.parent.rmdir()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's directory")
def test_a_private_place_that_somebody_else_made_first_is_refused(tmp_path: Path) -> None:
    path = resolve({"OSTLER_HOME": str(tmp_path / ("e" * 90))})
    place = path.control_socket.parent
    place.mkdir(0o700)
    try:
        os.chown(place, 65534, 65534)
        with pytest.raises(SettingsError, match="belongs to another user"):
            make_private(place)
        with pytest.raises(SettingsError, match="belongs to another user"):
            path.checked_socket()
    finally:
        place.rmdir()


def test_a_link_in_the_private_place_is_not_followed(tmp_path: Path) -> None:
    found = resolve({"OSTLER_HOME": str(tmp_path / ("f" * 90))})
    place = found.control_socket.parent
    place.symlink_to(tmp_path)
    try:
        with pytest.raises(SettingsError, match="not a directory"):
            make_private(place)
    finally:
        place.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_a_home_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    home = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        resolve({"OSTLER_HOME": home}).ensure()
    assert list(tmp_path.iterdir()) == []
