"""A session bus of its own with a real keyring service on it, in a private directory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = b"open sesame\n"
"""The line end is part of it."""
_COLLECTION = "/org/freedesktop/secrets/collection/login"


class KeyringService:
    """``environ`` leads a program to it."""

    def __init__(self, root: Path, environ: dict[str, str]) -> None:
        self.root = root
        self.environ = environ

    def call(self, path: str, method: str, *arguments: str) -> str:
        """Call a method of the service; gives what it answers as text."""
        done = subprocess.run(
            ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.secrets", path, method,
             *arguments],
            env=self.environ, capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        return done.stdout

    def lock(self) -> None:
        """Lock it, as when the user's session is locked for good."""
        self.call(
            "/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock", f"array:objpath:{_COLLECTION}"
        )

    def items(self) -> str:
        """The stored items, as text."""
        return self.call(
            _COLLECTION, "org.freedesktop.DBus.Properties.Get",
            "string:org.freedesktop.Secret.Collection", "string:Items",
        )  # fmt: skip


@contextmanager
def keyring_service() -> Iterator[KeyringService]:
    """Run one; everything of it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="kr-") as name, _bus(Path(name)) as environ:
        root = Path(name)
        daemon = subprocess.Popen(
            ["gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ,
        )  # fmt: skip
        try:
            assert daemon.stdin is not None
            daemon.stdin.write(PASSWORD)
            daemon.stdin.close()
            service = KeyringService(root, environ)
            _until_ready(service)
            yield service
        finally:
            daemon.kill()
            daemon.wait()


@contextmanager
def _bus(root: Path) -> Iterator[dict[str, str]]:
    """A session bus, and the environment of programs on it."""
    address = f"unix:path={root}/bus"
    environ = {
        "HOME": str(root),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_RUNTIME_DIR": str(root),
        "DBUS_SESSION_BUS_ADDRESS": address,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
    }
    (root / "data").mkdir()
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", f"--address={address}", "--print-address"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    try:
        assert bus.stdout is not None
        assert bus.stdout.readline()  # it listens
        yield environ
    finally:
        bus.kill()
        bus.wait()
        if bus.stdout is not None:
            bus.stdout.close()


def _until_ready(service: KeyringService) -> None:
    """Wait until ours has the name. Calling it before would make the bus start another one, not unlocked."""
    deadline = time.monotonic() + 20
    while True:
        done = subprocess.run(
            ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus",
             "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"],
            env=service.environ, capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        if "boolean true" in done.stdout:
            return
        assert time.monotonic() < deadline, "the keyring service does not come up"
        time.sleep(0.02)
