"""Credentials in a real keyring service, and in files where there is none."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_core.settings import credentials
from daemon_core.settings.credentials import CredentialError, CredentialStore, Kept
from tests.support.keyring_service import KeyringService, keyring_service

NAME, ACCOUNT, TOKEN = "host", "https://host [1]", "mul_" + "ab" * 20
NO_BUS = {"PATH": "/usr/bin:/bin", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent/bus"}


@pytest.fixture(scope="module")
def service() -> Iterator[KeyringService]:
    with keyring_service() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, service: KeyringService) -> CredentialStore:
    return CredentialStore(tmp_path / "credentials", service.environ)


async def test_a_keyring_keeps_gives_and_forgets(store: CredentialStore) -> None:
    assert await store.keep(NAME, ACCOUNT, TOKEN) == Kept("keyring", backend="SecretService Keyring")
    assert await store.read(NAME, ACCOUNT, "keyring") == TOKEN
    await store.keep(NAME, ACCOUNT, "other")  # replaces
    assert await store.read(NAME, ACCOUNT, "keyring") == "other"
    assert not store.directory.exists()
    await store.remove(NAME, ACCOUNT, "keyring")
    with pytest.raises(CredentialError) as caught:
        await store.read(NAME, ACCOUNT, "keyring")
    assert caught.value.code == "missing"
    await store.remove(NAME, ACCOUNT, "keyring")  # gone is gone


async def test_what_goes_into_the_keyring_leaves_the_file(store: CredentialStore) -> None:
    assert (await store.keep(NAME, ACCOUNT, TOKEN, "file")).why_file == ""  # asked for
    assert store.file_of(NAME).exists()
    await store.keep(NAME, ACCOUNT, TOKEN, "auto")
    assert not store.file_of(NAME).exists()
    await store.keep(NAME, ACCOUNT, TOKEN, "file")  # and the other way round
    with pytest.raises(CredentialError) as caught:
        await store.read(NAME, ACCOUNT, "keyring")
    assert caught.value.code == "missing"


async def test_a_locked_keyring_is_no_reason_for_a_file(tmp_path: Path) -> None:
    with keyring_service() as service:
        store = CredentialStore(tmp_path / "credentials", service.environ)
        await store.keep(NAME, ACCOUNT, TOKEN)
        await asyncio.to_thread(service.lock)
        for work in (store.read(NAME, ACCOUNT, "keyring"), store.keep(NAME, ACCOUNT, TOKEN)):
            with pytest.raises(CredentialError) as caught:
                await work
            assert caught.value.code == "keyring_locked"
        with pytest.raises(CredentialError):
            await store.remove(NAME, ACCOUNT, "keyring")
        assert not store.file_of(NAME).exists()


@pytest.mark.parametrize(
    "environ", [NO_BUS, {**NO_BUS, "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}]
)
async def test_without_a_keyring_a_file_of_the_users_own(tmp_path: Path, environ: dict[str, str]) -> None:
    store = CredentialStore(tmp_path / "credentials", environ)
    assert await store.keep(NAME, ACCOUNT, TOKEN) == Kept("file", why_file="keyring_absent")
    path = store.file_of(NAME)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    path.chmod(0o644)
    assert await store.read(NAME, ACCOUNT, "file") == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # mended
    with pytest.raises(CredentialError) as caught:
        await store.keep(NAME, ACCOUNT, TOKEN, "keyring")
    assert caught.value.code == "keyring_absent"
    await store.remove(NAME, ACCOUNT, "file")
    with pytest.raises(CredentialError) as caught:
        await store.read(NAME, ACCOUNT, "file")
    assert caught.value.code == "missing"


async def test_a_keyring_that_takes_and_keeps_nothing_is_none(tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(
        "from keyring.backend import KeyringBackend\n"
        "class Keyring(KeyringBackend):\n"
        "    priority = 1\n"
        "    def set_password(self, service, name, password): pass\n"
        "    def get_password(self, service, name): return None\n"
    )
    environ = {**NO_BUS, "PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": "forgetful.Keyring"}
    store = CredentialStore(tmp_path / "credentials", environ)
    assert (await store.keep(NAME, ACCOUNT, TOKEN)).place == "file"


async def test_a_keyring_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text(
        "import time\n"
        "from keyring.backend import KeyringBackend\n"
        "class Keyring(KeyringBackend):\n"
        "    priority = 1\n"
        "    def set_password(self, service, name, password): time.sleep(600)\n"
        "    def get_password(self, service, name): time.sleep(600)\n"
    )
    environ = {**NO_BUS, "PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": "hanging.Keyring"}
    monkeypatch.setattr(credentials, "QUIET_LIMIT_S", 0.5)
    store = CredentialStore(tmp_path / "credentials", environ)
    with pytest.raises(CredentialError) as caught:
        await store.read(NAME, ACCOUNT, "keyring")
    assert caught.value.code == "keyring_timeout"
    assert not await asyncio.to_thread(_children_with, "hanging.Keyring")


def _children_with(mark: str) -> list[str]:
    return [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if mark.encode() in _read(path) and path.parent.name != str(sys.modules["os"].getpid())
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_an_error_says_nothing_of_the_secret(tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(
        "from keyring.backend import KeyringBackend\n"
        "class Keyring(KeyringBackend):\n"
        "    priority = 1\n"
        "    def set_password(self, service, name, password): raise RuntimeError('cannot keep ' + password)\n"
        "    def get_password(self, service, name): return None\n"
    )
    environ = {**NO_BUS, "PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": "telling.Keyring"}
    store = CredentialStore(tmp_path / "credentials", environ)
    with pytest.raises(CredentialError) as caught:
        await store.keep(NAME, ACCOUNT, TOKEN)
    assert caught.value.code == "keyring_failed"
    assert TOKEN not in str(caught.value)
