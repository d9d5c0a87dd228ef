"""Ostler as people install it, used by somebody who is not root: from the .deb, and from the archive."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from building.installers import layout, linux
from tests.desktop.host import Host, make_host
from tests.desktop.screen import x_server
from tests.end_to_end.home import wait_until
from tests.packaging.conftest import Stamp, needs_root
from tests.packaging.machine import INSTALLED, DebPackages, Tarball, User

pytestmark = [pytest.mark.root, needs_root, pytest.mark.xdist_group("dpkg"), pytest.mark.timeout(600)]

# What only the bundle itself may see: its libraries would be loaded by whatever is started from here.
FOREIGN = re.compile(
    r"^(LD_LIBRARY_PATH|_PYI|PYINSTALLER|_MEI|QT_PLUGIN_PATH|QML|OSTLER_LAUNCHER|OSTLER_LEASE)"
)
WAITING = "echo started; while [ ! -e {door} ]; do sleep 0.1; done; echo gone on"


def ran(user: User, ostler: str | Path, prompt: str) -> list[str]:
    """The output of a task on the shell runtime, as its transcript has it."""
    said = user.run(ostler, "task", "add", "--runtime", "shell", "--wait", prompt)
    return said.splitlines()


@dataclass(slots=True)
class Waiting:
    """A task whose run waits for a file."""

    task: str
    run: Path
    door: Path

    def goes_on(self) -> None:
        """Let it end; its supervisor writes everything down with no daemon there."""
        assert not (self.run / "exit.json").exists(), "it waits"
        self.door.touch()
        wait_until((self.run / "exit.json").exists, "the run to end")
        assert (self.run / "stdout").read_bytes() == b"started\ngone on\n"
        assert json.loads((self.run / "exit.json").read_bytes())["code"] == 0


def one_waits(user: User, ostler: str | Path) -> Waiting:
    """Start a task that waits for a file."""
    before = set(runs(user))
    door = user.home / "door"
    task = user.json(ostler, "task", "add", "--runtime", "shell", WAITING.format(door=door))
    wait_until(lambda: set(runs(user)) - before, "the run")
    (run,) = set(runs(user)) - before
    wait_until(lambda: b"started" in (run / "stdout").read_bytes(), "its first line")
    return Waiting(task["id"], run, door)


def runs(user: User) -> list[Path]:
    return [path.parent for path in (user.state / "runs").glob("*/stdout")]


async def test_the_deb_is_used_by_somebody_who_is_not_root(installed_deb: DebPackages, user: User) -> None:
    version = installed_deb.source.version
    assert user.json("ostler", "version")["version"] == version
    user.run("ostler", "daemon", "start")
    (daemon,) = user.processes("ostlerd")
    assert Path(daemon.exe()).parent == user.home / ".local/share/ostler/app/versions" / version, (
        "it runs from the user's own copy, so that an upgrade of the package takes nothing away from it"
    )

    # What a run sees: a clean environment, and an `ostler` that works.
    output = ran(user, "ostler", "env; echo WHICH $(command -v ostler); ostler version; git --version")
    assert not [line for line in output if FOREIGN.match(line)]
    assert f"WHICH {INSTALLED}/launcher/ostler" in output
    assert any(line.startswith(f"ostler {version} ") for line in output), output
    assert any(line.startswith("git version") for line in output)
    checks = json.loads(user.run("ostler", "doctor", "--json", code=None))["checks"]
    assert {check["name"] for check in checks if not check["ok"]} <= {"no agents"}, checks

    waiting = one_waits(user, "ostler")
    with x_server() as display, user.bus() as address:
        host = await make_host(address)
        with user.desktop("ostler-desktop", display=display) as desktop:
            await _shown(host)
            while not await asyncio.to_thread(_windows, user, display):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # outside of this process
            assert len(user.processes("ostlerd")) == 1, "the daemon that was there was taken"
            assert not [line for line in _environment(desktop.pid) if line.startswith("QT_PLUGIN_PATH")]

            elsewhere = str(user.home / "another place")
            await asyncio.to_thread(partial(user.run, "ostler", "daemon", "start", OSTLER_HOME=elsewhere))
            said = await asyncio.to_thread(installed_deb.remove)
            assert "tasks that are running go on" in said, "it says what remains"
            wait_until(lambda: not user.processes("ostlerd"), "both daemons to end")
            await asyncio.to_thread(desktop.wait, 30)
            assert desktop.returncode == 0, (user.home / "desktop.out").read_text()
        host.bus.disconnect()
    assert not INSTALLED.exists()
    assert not Path("/usr/bin/ostler").exists()
    assert [process.name() for process in user.processes("ostler-shim")], "the run goes on"
    waiting.goes_on()
    assert (user.home / ".local/share/ostler/hub.db").exists()

    # Installed again, everything is there, and the task that ended meanwhile is reported.
    installed_deb.install(installed_deb.make())
    user.run("ostler", "daemon", "start")
    wait_until(
        lambda: user.json("ostler", "task", "show", waiting.task)["status"] == "completed", "the report"
    )
    user.run("ostler", "daemon", "stop")
    assert "~/.local/state/ostler" in installed_deb.purge()
    assert (user.state / "journal.db").exists()


async def _shown(host: Host) -> None:
    """Wait until there is an icon, and it knows its daemon."""
    async with asyncio.timeout(120):
        await host.watcher.came.wait()
        while (await host.property("ToolTip"))[2] in ("", "Ostler: Connecting."):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # outside of this process


def _windows(user: User, display: str) -> str:
    return user.run(
        "xdotool", "search", "--onlyvisible", "--name", "Ostler", code=None, DISPLAY=display
    ).strip()


def _environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


def test_the_archive_is_installed_updated_and_removed_by_a_user(
    bundle: layout.Source, installed_tarball: Tarball, user: User, stamped: Stamp, tmp_path: Path
) -> None:
    ostler = installed_tarball.program()
    assert user.json(ostler, "version")["version"] == bundle.version
    assert not user.processes(), "nothing is started by an installation"
    desktop_entry = (user.home / ".local/share/applications/ostler.desktop").read_text()
    assert f'Exec="{installed_tarball.bin}/ostler-desktop"' in desktop_entry
    unit = (user.home / ".local/share/systemd/user/ostler.service").read_text()
    assert f"ExecStart={installed_tarball.bin}/ostlerd" in unit
    assert "KillMode=process" in unit
    assert not list(user.home.glob(".config/autostart/*")), "off until chosen"

    user.run(ostler, "daemon", "start")
    waiting = one_waits(user, ostler)

    # A newer archive over it: the daemon goes on until it is started anew, the run does not notice.
    newer = layout.Source(payload=stamped("99.0.0"), launcher=bundle.launcher)
    installed_tarball.install(linux.tarball(newer, tmp_path, fast=True))
    assert len(user.processes("ostlerd")) == 1
    user.run(ostler, "daemon", "restart")
    assert user.json(ostler, "daemon", "status")["version"] == "99.0.0"
    assert user.json(ostler, "version")["version"] == "99.0.0"
    assert user.json(ostler, "task", "show", waiting.task)["status"] == "running"

    entry = user.home / ".config/autostart/ostler.desktop"
    user.run("mkdir", "-p", entry.parent)
    user.run("sh", "-c", f'echo "Exec={ostler}-desktop --background" > {entry}')
    said = installed_tarball.uninstall("--remove-data", code=1)
    assert "Tasks are still running, so your data stays" in said
    assert not user.processes("ostlerd")
    assert not entry.exists()
    assert _leftovers(user) == [], "everything but the data is gone"
    waiting.goes_on()


def test_without_a_terminal_the_data_stays_unless_it_is_told_otherwise(
    installed_tarball: Tarball, user: User
) -> None:
    ostler = installed_tarball.program()
    user.run(ostler, "daemon", "start")
    assert "Your data was left" in installed_tarball.uninstall()
    assert (user.state / "journal.db").exists()

    installed_tarball.install()
    home = user.home / "my things"
    user.run(ostler, "daemon", "start", OSTLER_HOME=str(home))
    user.run("touch", home / "mine")
    script = installed_tarball.place / "uninstall.sh"
    said = user.run("sh", script, "--remove-data", OSTLER_HOME=str(home))
    assert f"Your data was deleted: {home}/config {home}/data" in said
    assert [path.name for path in home.iterdir()] == ["mine"], "what else is there is not Ostler's"
    assert (user.state / "journal.db").exists()

    installed_tarball.install()
    assert "Your data was deleted" in installed_tarball.uninstall("--remove-data")
    assert not user.state.exists()
    assert not (user.home / ".local/share/ostler").exists()
    assert not (user.home / ".config/ostler").exists()


def _leftovers(user: User) -> list[str]:
    """Files of the installation that are still there."""
    local = user.home / ".local"
    places = [local / "bin", local / "lib", local / "share/applications", local / "share/icons",
              local / "share/man", local / "share/systemd", local / "share/bash-completion"]  # fmt: skip
    return [
        str(path)
        for place in places
        for path in place.rglob("*")
        if os.path.lexists(path) and not path.is_dir()
    ]
