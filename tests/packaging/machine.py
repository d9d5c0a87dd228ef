"""A machine's users as tests need them: real ones, made for a test, with a home, a screen and a bus of their
own; and Ostler as it is installed for them by its packages."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from building.installers import layout, linux
from tests.end_to_end.home import PATIENT, reserve_port, wait_until

INSTALLED = Path("/usr/lib/ostler")
"""Where the packages of package managers put Ostler."""
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


class User:
    """Somebody who is not root. What they have started is ended with them.

    Attributes:
        home: Their home directory, readable for them alone.
        state: Where Ostler keeps what it knows.
        environ: What their programs start with; a test may add to it.
    """

    def __init__(self, name: str, home: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name, self.uid, self.gid, self.home = name, entry.pw_uid, entry.pw_gid, home
        self.state = home / ".local" / "state" / "ostler"
        runtime = home / ".runtime"
        runtime.mkdir(mode=0o700)
        reserve_port(self.state / "port")
        for path in (runtime, *home.glob(".local"), *home.glob(".local/**/*")):
            os.chown(path, self.uid, self.gid)
        self.environ = {
            "HOME": str(home), "USER": name, "LOGNAME": name, "SHELL": "/bin/sh", "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(runtime),
            **PATIENT,
        }  # fmt: skip

    def start(self, *command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program as this user."""
        environ = {**self.environ, **options.pop("environ", {})}
        options.setdefault("cwd", self.home)
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(
            [str(word) for word in command],
            user=self.uid, group=self.gid, extra_groups=[], env=environ, umask=0o022, **options,
        )  # fmt: skip

    def run(self, *command: str | Path, code: int | None = 0, timeout_s: float = 90.0, **environ: str) -> str:
        """Run a program as this user to its end; what it said. ``code``: its exit status; None: any."""
        process = self.start(*command, environ=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            raw, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raw, _ = process.communicate()
            raise AssertionError(f"{command} hangs: {raw.decode()}") from None
        said = raw.decode()
        assert code is None or process.returncode == code, f"{command}: {process.returncode}: {said}"
        return said

    def json(self, *command: str | Path) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.run(*command, "--json"))

    def processes(self, program: str = "") -> list[psutil.Process]:
        """What runs as this user; ``program``: the name of its executable."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                mine = process.uids().real == self.uid and process.status() != psutil.STATUS_ZOMBIE
                # Not psutil's word, which it keeps: a launcher becomes a daemon in the same process.
                if mine and (
                    not program or os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) == program
                ):
                    found.append(process)
        return found

    def end_processes(self) -> None:
        def none_left() -> bool:
            found = self.processes()  # again and again: one may just have started another
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            return not found

        wait_until(none_left, f"the processes of {self.name} to end")

    @contextmanager
    def bus(self) -> Iterator[str]:
        """A session bus of theirs, which root may use too; programs started meanwhile find it."""
        place = self.home / ".runtime" / "bus"
        config = self.home / ".runtime" / "bus.conf"
        config.write_text(_BUS.format(path=place))
        config.chmod(0o644)
        process = self.start("dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1",
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert address, "dbus-daemon did not start"
        self.environ["DBUS_SESSION_BUS_ADDRESS"] = address
        try:
            yield address
        finally:
            del self.environ["DBUS_SESSION_BUS_ADDRESS"]
            process.terminate()
            process.wait(20)
            process.stdout.close()

    @contextmanager
    def desktop(
        self, *command: str | Path, display: str, **environ: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Their desktop on a screen; ended in order at the end, if it is still there."""
        with open(self.home / "desktop.out", "ab") as log:
            process = self.start(
                *command,
                environ={"DISPLAY": display, "QT_QPA_PLATFORM": "xcb", **environ},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        except BaseException:
            print((self.home / "desktop.out").read_text())  # noqa: T201 - the test has failed: why?
            raise
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)


@contextmanager
def a_user() -> Iterator[User]:
    """A new user of this machine, taken away again with all that they have."""
    home = Path(tempfile.mkdtemp(prefix="ostler-user-"))
    name = f"ost{os.getpid() % 100_000}{os.urandom(2).hex()}"
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", name],
        check=True, capture_output=True,
    )  # fmt: skip
    user: User | None = None
    try:
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        user = User(name, home)
        yield user
    finally:
        if user is not None:
            user.end_processes()
        # By force: a process that has ended and that nobody has asked after yet counts as one of theirs.
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
        shutil.rmtree(home)


class DebPackages:
    """This machine's Ostler from .deb packages: at most one at a time, taken away at the end."""

    def __init__(self, source: layout.Source, out: Path, made: dict[str, Path]) -> None:
        self.source = source
        self.out = out
        self.made = made

    def make(self, source: layout.Source | None = None) -> Path:
        """A package of the bundle, or of another source; made once for each version."""
        wanted = source or self.source
        if wanted.version not in self.made:
            self.made[wanted.version] = linux.package(wanted, "deb", self.out, fast=True)
        return self.made[wanted.version]

    def install(self, package: Path) -> str:
        """Install or upgrade; what the package manager said."""
        return _dpkg("--install", str(package))

    def remove(self) -> str:
        return _dpkg("--remove", "ostler")

    def purge(self) -> str:
        return _dpkg("--purge", "ostler")

    @staticmethod
    def installed() -> bool:
        done = subprocess.run(["dpkg-query", "--show", "--showformat=${Status}", "ostler"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        return done.returncode == 0 and "not-installed" not in done.stdout


def _dpkg(*arguments: str) -> str:
    done = subprocess.run(
        ["dpkg", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Tarball:
    """Ostler from its archive, installed by a user for themselves.

    Attributes:
        place: Its own directory.
        bin: Where its programs' links are.
    """

    def __init__(self, user: User, archive: Path) -> None:
        self.user = user
        self.archive = archive
        self.bin = user.home / ".local" / "bin"
        self.place = user.home / ".local" / "lib" / "ostler"

    def install(self, archive: Path | None = None) -> str:
        """Unpack and install, as the user; what the script said."""
        unpacked = Path(tempfile.mkdtemp(dir=self.user.home))
        try:
            with tarfile.open(archive or self.archive) as tar:
                tar.extractall(unpacked, filter="data")
            unpacked.chmod(0o755)
            (top,) = unpacked.iterdir()
            return self.user.run("sh", top / "install.sh")
        finally:
            shutil.rmtree(unpacked)

    def uninstall(self, *options: str, code: int = 0) -> str:
        """Run its own script, as the user; what it said."""
        return self.user.run("sh", self.place / "uninstall.sh", *options, code=code)

    def program(self, name: str = "ostler") -> Path:
        return self.bin / name
