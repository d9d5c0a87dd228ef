"""What a packaged program does with its environment, and how own programs are named."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

import pytest

from daemon_core.settings import certificates, installed


def test_the_bundlers_variables_go_and_the_users_come_back() -> None:
    env = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/payload/_internal",
        "LD_LIBRARY_PATH_ORIG": "/opt/users/lib",
        "_PYI_ARCHIVE_FILE": "/payload/ostlerd",
        "PYINSTALLER_RESET_ENVIRONMENT": "1",
        "OSTLER_LAUNCHER": "/usr/lib/ostler/launcher",
    }
    installed.begin(env)
    assert env == {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/users/lib",
        "OSTLER_LAUNCHER": "/usr/lib/ostler/launcher",
    }


def test_from_source_the_users_own_library_path_is_kept() -> None:
    env = {"LD_LIBRARY_PATH": "/opt/users/lib"}
    installed.begin(env)
    assert env == {"LD_LIBRARY_PATH": "/opt/users/lib"}


def test_a_lease_is_not_handed_on() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    env = {"OSTLER_LEASE_FD": str(reading)}
    installed.begin(env)
    assert not os.get_inheritable(reading)
    assert env == {"OSTLER_LEASE_FD": str(reading)}, "whoever needs it knows it"
    os.close(reading)
    os.close(writing)
    installed.begin(env)
    assert env == {}, "one that is not there is forgotten"


def test_programs_are_the_launchers_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed.program("ostlerd") == [sys.executable, "-m", "daemon_core.app"]
    monkeypatch.setattr(installed, "FROZEN", True)
    assert installed.program("ostlerd") == [str(Path(sys.executable).with_name("ostlerd"))]
    monkeypatch.setenv("OSTLER_LAUNCHER", str(tmp_path))
    assert installed.program("ostler") == [str(Path(sys.executable).with_name("ostler"))], "it was removed"
    (tmp_path / "ostler").touch()
    assert installed.program("ostler") == [str(tmp_path / "ostler")]
    assert installed.program("ostler-desktop") == [str(tmp_path / "ostler"), "--as=ostler-desktop"]


def test_certificates_are_pointed_out_where_openssl_finds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca-bundle.crt"
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert certificates.missing([str(bundle)]) == ""
    bundle.touch()
    assert ssl.get_default_verify_paths().cafile is None
    assert certificates.missing([str(tmp_path / "other"), str(bundle)]) == str(bundle)
    with certificates.pointed_out([str(bundle)]):
        assert os.environ["SSL_CERT_FILE"] == str(bundle)
    assert os.environ["SSL_CERT_FILE"] == str(tmp_path / "none.pem"), "as it was"
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert certificates.missing([str(bundle)]) == "", "it is found"
