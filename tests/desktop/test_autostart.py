"""Starting at login: what the system says is what is shown, and what somebody else has decided stays."""

from __future__ import annotations

import os
import plistlib
import sys
from pathlib import Path

import pytest

from daemon_core.settings.directories import resolve
from desktop.autostart import (
    LaunchAgent,
    WindowsRun,
    XdgAutostart,
    entry_name,
    exec_words,
    start_command,
)
from desktop.windows.settings_general import Autostart

COMMAND = [sys.executable, "-m", "desktop.app", "--background"]


def xdg(tmp_path: Path, desktop: str = "XFCE", command: list[str] | None = None) -> XdgAutostart:
    environ = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_DIRS": f"{tmp_path}/etc/xdg:{tmp_path}/usr/etc/xdg",
        "XDG_CURRENT_DESKTOP": desktop,
        "PATH": os.environ["PATH"],
    }
    return XdgAutostart.of_environment(environ, "ostler", command or COMMAND)


def entry(tmp_path: Path) -> Path:
    return tmp_path / ".config" / "autostart" / "ostler.desktop"


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[Desktop Entry]\n" + "\n".join(lines) + "\n")


def test_it_is_switched_on_and_off(tmp_path: Path) -> None:
    autostart: Autostart = xdg(tmp_path)
    assert autostart.enabled() is False
    assert autostart.explanation() == ""
    autostart.enable(True)
    assert autostart.enabled() is True
    assert str(entry(tmp_path)) in autostart.explanation()
    autostart.enable(False)
    assert autostart.enabled() is False
    assert not entry(tmp_path).exists()
    autostart.enable(False)  # twice does no harm


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ((), True),
        (("Hidden=true",), False),
        (("Hidden=false",), True),
        (("X-GNOME-Autostart-enabled=false",), False),
        (("TryExec=/no/such/program",), False),
        (("TryExec=sh",), True),
        (("OnlyShowIn=GNOME;KDE;",), False),
        (("OnlyShowIn=XFCE;",), True),
        (("NotShowIn=XFCE;",), False),
        (("[Desktop Action x]", "Hidden=true"), True),
    ],
)
def test_whatever_keeps_it_from_starting_counts_and_goes_when_it_is_switched_on(
    tmp_path: Path, lines: tuple[str, ...], state: bool
) -> None:
    write(entry(tmp_path), f"Exec={sys.executable} --background", "Name[de]=Stallknecht", *lines)
    autostart = xdg(tmp_path)
    assert autostart.enabled() is state
    autostart.enable(True)
    assert autostart.enabled() is True
    assert "Name[de]=Stallknecht" in entry(tmp_path).read_text()


def test_a_program_that_is_gone_is_said(tmp_path: Path) -> None:
    write(entry(tmp_path), "Exec=/old/place/ostler-desktop --background")
    autostart = xdg(tmp_path)
    assert autostart.enabled() is False
    assert "gone" in autostart.explanation()
    autostart.enable(True)
    assert autostart.enabled() is True


def test_an_entry_of_the_system_is_hidden_rather_than_missed(tmp_path: Path) -> None:
    theirs = tmp_path / "usr" / "etc" / "xdg" / "autostart" / "ostler.desktop"
    write(theirs, f"Exec={sys.executable}")
    autostart = xdg(tmp_path)
    assert autostart.enabled() is True
    autostart.enable(False)
    assert autostart.enabled() is False
    assert "Hidden=true" in entry(tmp_path).read_text()
    autostart.enable(True)
    assert autostart.enabled() is True
    assert theirs.read_text() == f"[Desktop Entry]\nExec={sys.executable}\n"


def test_a_directory_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("")
    autostart = xdg(tmp_path)
    assert autostart.enabled() is False
    with pytest.raises(OSError, match=r"autostart|File exists|Not a directory"):
        autostart.enable(True)


def test_odd_paths_are_quoted_as_the_specification_wants(tmp_path: Path) -> None:
    odd = tmp_path / 'a "quoted" $place\\100%'
    odd.mkdir()
    program = odd / "ostler-desktop"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    autostart = xdg(tmp_path, command=[str(program), "--background"])
    autostart.enable(True)
    (line,) = [line for line in entry(tmp_path).read_text().splitlines() if line.startswith("Exec=")]
    assert "100%%" in line
    assert r'\\"quoted\\" \\$place\\\\' in line
    assert exec_words(line.removeprefix("Exec=")) == [str(program), "--background"]
    assert autostart.enabled() is True


def test_what_is_started_survives_an_update(tmp_path: Path) -> None:
    directories = resolve({"HOME": str(tmp_path), "OSTLER_HOME": str(tmp_path / "o")}, None)
    launcher = tmp_path / "lib" / "launcher"
    launcher.mkdir(parents=True)
    program = launcher / "ostler"
    program.write_text("")
    program.chmod(0o755)
    environ = {"OSTLER_LAUNCHER": str(launcher), "PATH": str(tmp_path / "bin")}
    assert start_command(directories, environ) == [str(program), "--as=ostler-desktop", "--background"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ostler-desktop").symlink_to(program)
    assert start_command(directories, environ) == [str(tmp_path / "bin" / "ostler-desktop"), "--background"]
    other = resolve({"HOME": str(tmp_path), "OSTLER_HOME": str(tmp_path / "o")}, "work")
    assert start_command(other, environ)[1:] == ["--profile", "work", "--background"]
    assert entry_name(other.profile) == "ostler-work"
    kept = start_command(directories, {**environ, "OSTLER_HOME": "/srv/o"})
    assert kept[:2] == ["env", "OSTLER_HOME=/srv/o"]
    assert start_command(directories, {}, str(tmp_path / "python"))[1:] == [
        "-m",
        "desktop.app",
        "--background",
    ]


class FakeRegistry:
    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str | bytes] = {}

    def read(self, key: str, name: str) -> str | bytes | None:
        return self.values.get((key, name))

    def write(self, key: str, name: str, value: str | bytes) -> None:
        self.values[key, name] = value

    def remove(self, key: str, name: str) -> None:
        self.values.pop((key, name), None)


def test_windows_asks_the_task_manager_too() -> None:
    registry = FakeRegistry()
    run: Autostart = WindowsRun(registry, "ostler", [r"C:\Program Files\Ostler\ostler.exe", "--background"])
    assert run.enabled() is False
    run.enable(True)
    assert run.enabled() is True
    assert r'"C:\Program Files\Ostler\ostler.exe" --background' in registry.values.values()
    approved = next(key for key, _name in registry.values).replace(
        "\\Run", "\\Explorer\\StartupApproved\\Run"
    )
    registry.write(approved, "Ostler", b"\x03" + bytes(11))
    assert run.enabled() is False
    assert "task manager" in run.explanation()
    run.enable(True)
    assert run.enabled() is True
    run.enable(False)
    assert registry.values == {}


def test_macos_has_a_file_for_launchd(tmp_path: Path) -> None:
    agent: Autostart = LaunchAgent(tmp_path / "LaunchAgents", "default", [sys.executable, "--background"])
    assert agent.enabled() is False
    agent.enable(True)
    assert agent.enabled() is True
    (file,) = (tmp_path / "LaunchAgents").iterdir()
    written = plistlib.loads(file.read_bytes())
    assert written["ProgramArguments"] == [sys.executable, "--background"]
    file.write_bytes(plistlib.dumps({**written, "Disabled": True}))
    assert agent.enabled() is False
    file.write_bytes(b"not a list")
    assert agent.enabled() is False
    agent.enable(False)
    assert list((tmp_path / "LaunchAgents").iterdir()) == []
