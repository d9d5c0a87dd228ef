"""Opens directories in what the user works with: a terminal, an editor, the file manager.

What is started is the user's own program and has nothing to do with ours: it is detached, gets no console of
ours and outlives us. Which one: the setting, else what the platform offers. ``plan_*`` say what would be
started and are pure; Linux is tried, macOS and Windows are written and untried.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QProcess, QUrl
from PySide6.QtGui import QDesktopServices

Which = Callable[[str], str | None]

_LINUX_TERMINALS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("xdg-terminal-exec", ()),
    ("x-terminal-emulator", ()),
    ("gnome-terminal", ("--working-directory={directory}",)),
    ("kgx", ("--working-directory={directory}",)),
    ("ptyxis", ("--working-directory={directory}", "--new-window")),
    ("konsole", ("--workdir", "{directory}")),
    ("xfce4-terminal", ("--working-directory={directory}",)),
    ("kitty", ("--directory", "{directory}")),
    ("alacritty", ("--working-directory", "{directory}")),
    ("foot", ("--working-directory={directory}",)),
    ("wezterm", ("start", "--cwd", "{directory}")),
    ("xterm", ()),
)
_EDITORS: Final = (
    "code",
    "codium",
    "cursor",
    "zed",
    "zeditor",
    "windsurf",
    "subl",
    "idea",
    "kate",
    "gnome-text-editor",
)
"""Editors with a window of their own that open a directory."""


@dataclass(frozen=True, slots=True)
class Start:
    """A program to start. ``program`` empty: the directory goes to whatever the system opens it with."""

    program: str = ""
    arguments: tuple[str, ...] = ()
    directory: str = ""


def plan_terminal(
    directory: str,
    setting: str = "",
    *,
    platform: str = sys.platform,
    environ: Mapping[str, str] = os.environ,
    which: Which = shutil.which,
) -> Start | None:
    """What opens a terminal there; None: nothing was found that could."""
    configured = _configured(setting, directory, platform, which)
    if configured is not None:
        return configured
    if platform == "darwin":
        return Start("/usr/bin/open", ("-a", "Terminal", directory), directory)
    if platform == "win32":
        if found := which("wt.exe"):
            return Start(found, ("-d", directory), directory)
        return Start(which("cmd.exe") or "cmd.exe", ("/c", "start", "", "cmd.exe"), directory)
    wanted = environ.get("TERMINAL", "")
    if wanted and (found := which(wanted)):
        return Start(found, (), directory)
    for name, arguments in _LINUX_TERMINALS:
        if found := which(name):
            return Start(found, _filled(arguments, directory), directory)
    return None


def plan_editor(
    directory: str, setting: str = "", *, platform: str = sys.platform, which: Which = shutil.which
) -> Start:
    """What opens an editor there; where none is known, the directory is opened as the system does."""
    configured = _configured(setting, directory, platform, which)
    if configured is not None:
        return configured if "{directory}" in setting else _with_directory(configured)
    for name in _EDITORS:
        if found := which(name):
            return Start(found, (directory,), directory)
    return Start(directory=directory)


def start(plan: Start) -> bool:
    """Start it and let go of it; whether it began."""
    if not plan.program:
        return QDesktopServices.openUrl(QUrl.fromLocalFile(plan.directory))
    began, _pid = QProcess.startDetached(plan.program, list(plan.arguments), plan.directory)
    return began


def _configured(setting: str, directory: str, platform: str, which: Which) -> Start | None:
    try:
        parts = shlex.split(setting, posix=platform != "win32")
    except ValueError:
        return None
    if not parts:
        return None
    program = os.path.expanduser(parts[0].strip('"'))
    return Start(which(program) or program, _filled(parts[1:], directory), directory)


def _with_directory(plan: Start) -> Start:
    return Start(plan.program, (*plan.arguments, plan.directory), plan.directory)


def _filled(arguments: tuple[str, ...] | list[str], directory: str) -> tuple[str, ...]:
    return tuple(argument.replace("{directory}", directory) for argument in arguments)
