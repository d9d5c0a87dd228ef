"""Whether the system starts the tray at login: read from the system itself, each time, and never kept.

The user's choice may be made anywhere (here, in the desktop's own settings, by hand), so nothing is written
unless the switch is clicked. What is started is the launcher at its fixed place, so an entry survives
updates; run from source it is this Python.

- XDG (Linux and others): a file in the user's ``autostart`` directory, which hides the system's of the same
  name. ``Hidden``, ``X-GNOME-Autostart-enabled``, ``TryExec``, ``OnlyShowIn`` and ``NotShowIn`` count.
- Windows: a value below ``Run`` of the user, unless the task manager has switched it off
  (``StartupApproved``). Written after the documentation, tried with a registry of its own only.
- macOS: a file in ``LaunchAgents``, read and written as property list. ``SMAppService`` would show Ostler's
  own name instead of its maker's; it can only be called from a signed bundle, which there is none of yet.
"""

from __future__ import annotations

import contextlib
import os
import plistlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from daemon_core.settings.directories import Directories
from desktop.text import _

FLAG: Final = "--background"
LABEL: Final = "org.ostler.desktop"
_RUN_KEY: Final = r"Software\Microsoft\Windows\CurrentVersion\Run"
_APPROVED_KEY: Final = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"
_RESERVED: Final = "\"'\\><~|&;$*?#()` \t\n"
"""An argument with one of these is quoted in an ``Exec`` line."""


class Autostart(Protocol):
    """How one system does it. Methods raise ``OSError`` where it does not let us."""

    def enabled(self) -> bool | None:
        """What the system says now; None: it does not tell."""
        ...

    def enable(self, on: bool) -> None:
        """Have the system start the tray at login, or not."""
        ...

    def explanation(self) -> str:
        """Where the entry is, or why it does not work as it stands: a sentence."""
        ...


def start_command(
    directories: Directories, environ: Mapping[str, str] | None = None, executable: str = sys.executable
) -> list[str]:
    """What starts this desktop again, over updates and in another session."""
    environ = os.environ if environ is None else environ
    launcher = environ.get("OSTLER_LAUNCHER", "")
    if launcher:
        # A link in the search path is what the user knows and what a package manager keeps.
        linked = shutil.which("ostler-desktop", path=environ.get("PATH"))
        if linked and Path(linked).resolve().parent == Path(launcher).resolve():
            command = [linked]
        else:
            name = "ostler.exe" if sys.platform == "win32" else "ostler"
            command = [str(Path(launcher) / name), "--as=ostler-desktop"]
    else:
        script = Path(executable).with_name(
            "ostler-desktop.exe" if sys.platform == "win32" else "ostler-desktop"
        )
        command = [str(script)] if script.exists() else [executable, "-m", "desktop.app"]
    if directories.profile != "default":
        command += ["--profile", directories.profile]
    command.append(FLAG)
    home = environ.get("OSTLER_HOME", "")
    return ["env", f"OSTLER_HOME={home}", *command] if home and sys.platform != "win32" else command


def entry_name(profile: str) -> str:
    """What the entry is called; each profile has one of its own."""
    return "ostler" if profile == "default" else f"ostler-{profile}"


def platform_autostart(directories: Directories) -> Autostart:
    """That of this system."""
    name = entry_name(directories.profile)
    command = start_command(directories)
    if sys.platform == "win32":
        return WindowsRun(WindowsRegistry(), name, command)
    if sys.platform == "darwin":
        return LaunchAgent(Path.home() / "Library" / "LaunchAgents", directories.profile, command)
    return XdgAutostart.of_environment(os.environ, name, command)


# --- freedesktop -----------------------------------------------------------------------------------


class XdgAutostart:
    """The autostart specification.

    Args:
        user: The user's ``autostart`` directory.
        system: Those of the system, the most important one first.
        desktops: What the desktop calls itself (``XDG_CURRENT_DESKTOP``), parted.
    """

    def __init__(
        self,
        user: Path,
        system: Sequence[Path],
        desktops: Sequence[str],
        name: str,
        command: Sequence[str],
        search_path: str | None = None,
    ) -> None:
        self._file = user / f"{name}.desktop"
        self._others = [directory / f"{name}.desktop" for directory in system]
        self._desktops = set(desktops)
        self._command = list(command)
        self._path = search_path

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], name: str, command: Sequence[str]) -> XdgAutostart:
        """As the environment says."""
        home = environ.get("HOME") or str(Path.home())
        config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        system = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        return cls(
            Path(config) / "autostart",
            [Path(each) / "autostart" for each in system.split(":") if each],
            [each for each in environ.get("XDG_CURRENT_DESKTOP", "").split(":") if each],
            name,
            command,
            environ.get("PATH"),
        )

    def enabled(self) -> bool | None:
        found = self._entry()
        return found is not None and not self._why_not(found[1])

    def enable(self, on: bool) -> None:
        if on:
            self._switch_on()
        else:
            self._switch_off()

    def explanation(self) -> str:
        found = self._entry()
        if found is None:
            return ""
        path, entry = found
        why = self._why_not(entry)
        if why == "program":
            return _("{path} is there, but the program it names is gone.", path=path)
        if why == "desktop":
            return _("{path} is for other desktops only.", path=path)
        if why:
            return ""
        if not self._is_ours(entry):
            return _("{path} starts {program}.", path=path, program=entry.get("Exec", "?"))
        return _("{path} starts it.", path=path)

    # --- small -------------------------------------------------------------------------------------

    def _entry(self) -> tuple[Path, dict[str, str]] | None:
        """The entry that counts: the first one there is, the user's before the system's."""
        for path in (self._file, *self._others):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except (FileNotFoundError, NotADirectoryError):
                continue
            return path, _values(lines)
        return None

    def _why_not(self, entry: Mapping[str, str]) -> str:
        """Why this entry starts nothing; empty: it does."""
        if entry.get("Hidden", "").lower() == "true":
            return "hidden"
        if entry.get("X-GNOME-Autostart-enabled", "").lower() == "false":
            return "off"
        program = entry.get("TryExec", "")
        if not entry.get("Exec") or (program and not shutil.which(program, path=self._path)):
            return "program"
        if not self._exec_is_there(entry["Exec"]):
            return "program"
        only, never = _list(entry.get("OnlyShowIn", "")), _list(entry.get("NotShowIn", ""))
        if (only and not only & self._desktops) or never & self._desktops:
            return "desktop"
        return ""

    def _exec_is_there(self, line: str) -> bool:
        words = exec_words(line)
        if words[:1] == ["env"]:
            words = [word for word in words[1:] if "=" not in word]
        return bool(words) and shutil.which(words[0], path=self._path) is not None

    def _is_ours(self, entry: Mapping[str, str]) -> bool:
        return entry.get("Exec", "") == _exec_line(self._command)

    def _switch_on(self) -> None:
        """What the user's file says besides is kept; what keeps it from starting goes."""
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            lines = []
        if "[Desktop Entry]" not in lines:
            lines = ["[Desktop Entry]", "Type=Application", "Name=Ostler", "Icon=ostler", "Terminal=false",
                     f"Comment={_('Keeps coding agents at work')}", "X-GNOME-Autostart-Delay=5"]  # fmt: skip
        gone = ("Hidden", "X-GNOME-Autostart-enabled", "TryExec", "OnlyShowIn", "NotShowIn", "Exec")
        lines = _without(lines, gone)
        at = lines.index("[Desktop Entry]") + 1
        lines[at:at] = [f"Exec={_exec_line(self._command)}"]
        self._write(lines)

    def _switch_off(self) -> None:
        """Where the system has an entry too, the user's file has to hide it; else it goes."""
        if any(path.exists() for path in self._others):
            self._write(["[Desktop Entry]", "Type=Application", "Name=Ostler", "Hidden=true"])
        else:
            self._file.unlink(missing_ok=True)

    def _write(self, lines: Sequence[str]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._file, ("\n".join(lines) + "\n").encode())


def _values(lines: Sequence[str]) -> dict[str, str]:
    """The plain keys of the main group."""
    found: dict[str, str] = {}
    inside = False
    for line in lines:
        if line.startswith("["):
            inside = line.strip() == "[Desktop Entry]"
        elif inside and "=" in line and not line.startswith("#"):
            key, _equals, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found


def _without(lines: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Without these keys in the main group."""
    kept: list[str] = []
    inside = False
    for line in lines:
        if line.startswith("["):
            inside = line.strip() == "[Desktop Entry]"
        if not (inside and line.partition("=")[0].strip() in keys):
            kept.append(line)
    return kept


def _list(value: str) -> set[str]:
    return {each for each in value.split(";") if each}


def _exec_line(command: Sequence[str]) -> str:
    """Quoted as an ``Exec`` line wants it: the string's own escapes come on top of the argument's."""
    words = []
    for word in command:
        plain = word.replace("%", "%%")
        if not plain or any(each in _RESERVED for each in plain):
            for each in '\\"`$':
                plain = plain.replace(each, "\\" + each)
            plain = '"' + plain.replace("\\", "\\\\") + '"'
        words.append(plain)
    return " ".join(words)


def exec_words(line: str) -> list[str]:
    """The arguments of an ``Exec`` line; what cannot be read has none."""
    plain = line.replace("\\\\", "\\").replace("%%", "%")
    words: list[str] = []
    for part in re.finditer(r'"((?:[^"\\]|\\.)*)"|(\S+)', plain):
        quoted, bare = part.group(1), part.group(2)
        words.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare)
    return words


def _replace(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


# --- Windows ---------------------------------------------------------------------------------------


class Registry(Protocol):
    """Values below the user's key."""

    def read(self, key: str, name: str) -> str | bytes | None:
        """A value; None where there is none."""
        ...

    def write(self, key: str, name: str, value: str | bytes) -> None:
        """Make or change it: a text, or bytes."""
        ...

    def remove(self, key: str, name: str) -> None:
        """Take it away, if it is there."""
        ...


class WindowsRegistry:
    """The real one."""

    def read(self, key: str, name: str) -> str | bytes | None:
        if sys.platform == "win32":
            import winreg

            try:
                with winreg.OpenKey(winreg.HKEY_CURRENT_USER, key) as opened:
                    value, _kind = winreg.QueryValueEx(opened, name)
            except FileNotFoundError:
                return None
            return value if isinstance(value, str | bytes) else None
        return None

    def write(self, key: str, name: str, value: str | bytes) -> None:
        if sys.platform == "win32":
            import winreg

            kind = winreg.REG_SZ if isinstance(value, str) else winreg.REG_BINARY
            with winreg.CreateKey(winreg.HKEY_CURRENT_USER, key) as opened:
                winreg.SetValueEx(opened, name, 0, kind, value)

    def remove(self, key: str, name: str) -> None:
        if sys.platform == "win32":
            import winreg

            try:
                with winreg.OpenKey(winreg.HKEY_CURRENT_USER, key, 0, winreg.KEY_SET_VALUE) as opened:
                    winreg.DeleteValue(opened, name)
            except FileNotFoundError:
                pass


class WindowsRun:
    """A value below ``Run``. The task manager's switch is a value of the same name elsewhere; its first byte
    is odd where it is off."""

    def __init__(self, registry: Registry, name: str, command: Sequence[str]) -> None:
        self._registry = registry
        self._name = "Ostler" if name == "ostler" else name
        self._command = list(command)

    def enabled(self) -> bool | None:
        return bool(self._registry.read(_RUN_KEY, self._name)) and not self._switched_off()

    def enable(self, on: bool) -> None:
        if not on:
            self._registry.remove(_RUN_KEY, self._name)
            self._registry.remove(_APPROVED_KEY, self._name)
            return
        import subprocess

        self._registry.write(_RUN_KEY, self._name, subprocess.list2cmdline(self._command))
        if self._switched_off():
            self._registry.write(_APPROVED_KEY, self._name, b"\x02" + bytes(11))

    def explanation(self) -> str:
        if self._registry.read(_RUN_KEY, self._name) and self._switched_off():
            return _("It was switched off in the task manager.")
        return ""

    def _switched_off(self) -> bool:
        value = self._registry.read(_APPROVED_KEY, self._name)
        return isinstance(value, bytes) and bool(value) and bool(value[0] & 1)


# --- macOS -----------------------------------------------------------------------------------------


class LaunchAgent:
    """A property list that launchd reads at login."""

    def __init__(self, directory: Path, profile: str, command: Sequence[str]) -> None:
        self._label = LABEL if profile == "default" else f"{LABEL}.{profile}"
        self._file = directory / f"{self._label}.plist"
        self._command = list(command)

    def enabled(self) -> bool | None:
        entry = self._entry()
        return entry is not None and bool(entry.get("RunAtLoad")) and not entry.get("Disabled")

    def enable(self, on: bool) -> None:
        if not on:
            self._file.unlink(missing_ok=True)
            return
        command = self._command
        if command[:1] == ["env"]:
            command = ["/usr/bin/env", *command[1:]]
        entry = {
            "Label": self._label,
            "ProgramArguments": command,
            "RunAtLoad": True,
            "ProcessType": "Interactive",
            "LimitLoadToSessionType": "Aqua",
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._file, plistlib.dumps(entry))

    def explanation(self) -> str:
        entry = self._entry()
        arguments = entry.get("ProgramArguments") if entry is not None else None
        if isinstance(arguments, list) and arguments:
            program = str(arguments[0])
            if os.path.isabs(program) and not os.path.exists(program):
                return _("{path} is there, but the program it names is gone.", path=self._file)
            return _("{path} starts it.", path=self._file)
        return ""

    def _entry(self) -> dict[str, object] | None:
        try:
            found = plistlib.loads(self._file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (plistlib.InvalidFileException, ValueError, OverflowError):
            return None
        return found if isinstance(found, dict) else None
