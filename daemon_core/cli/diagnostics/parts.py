"""Gathers the parts. Each is made by itself: one that cannot be had says why in its place."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import daemon_core
from daemon_core.cli.diagnostics.redact import Redactor, is_secret_name
from daemon_core.cli.diagnostics.timeline import timeline

if TYPE_CHECKING:
    from daemon_core.cli.session import Session

LOG_LINES: Final = 4_000
DESKTOP_LINES: Final = 2_000
TIMELINE_LINES: Final = 200_000
LISTED: Final = 2_000
DATABASE_WAIT_S: Final = 2.0
PACKAGES: Final = (
    "aiohttp", "click", "keyring", "msgspec", "platformdirs", "psutil", "PySide6-Essentials", "pyyaml",
    "tomlkit", "tuf",
)  # fmt: skip
SURROUNDINGS: Final = (
    "XDG_CURRENT_DESKTOP", "XDG_SESSION_TYPE", "DESKTOP_SESSION", "LANG", "LC_ALL", "TZ", "SHELL", "TERM",
    "QT_QPA_PLATFORM", "QT_QPA_PLATFORMTHEME", "QT_SCALE_FACTOR", "container", "WSL_DISTRO_NAME",
)  # fmt: skip
"""Variables of the environment that are told with their values; of no other more than that it is set."""
WHETHER: Final = (
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_CONNECTION",
    "XDG_RUNTIME_DIR",
)
UNTOLD: Final = ("title", "text", "what", "prompt")
"""Parameters of conditions that may hold the user's own words."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive. ``make`` gives a text, or what becomes JSON; secrets are still in it."""

    name: str
    what: str
    make: Callable[[], Any]


def parts(session: Session) -> list[Part]:
    """All of them, in the order in which somebody would read them."""

    def part(name: str, what: str, make: Callable[[Session], Any]) -> Part:
        return Part(name, what, lambda: make(session))

    return [
        Part("versions.json", "Versions of Ostler, Python and the libraries", _versions),
        part("system.json", "The operating system, the desktop, memory and disks", _system),
        part("doctor.json", "What `ostler doctor` finds", _doctor),
        part("status.json", "What the daemon says of itself, or why it says nothing", _status),
        part("settings.json", "Your settings, values of secrets and environments removed", _settings),
        part("timeline.txt", "Starts, ends, crashes and updates", _timeline),
        part("records.json", "How many tasks, runs and reports there are; nothing they say", _records),
        part("updates.json", "What the updater did last", _updates),
        part("files.txt", "Names and sizes of Ostler's own files", _files),
        part("daemon.log", f"The last {LOG_LINES} lines of the daemon's log", _log),
        part("start-error.log", "What a daemon said that could not start", _start_error),
        part("desktop.log", f"The last {DESKTOP_LINES} lines of the desktop's log", _desktop_log),
    ]


def redactor(session: Session, *, keep_paths: bool = False) -> Redactor:
    """Knows the credentials that can be read here without asking anybody."""
    return Redactor(_credentials(session), "" if keep_paths else os.path.expanduser("~"))


def text_of(part: Part, redact: Redactor) -> str:
    """A part's text without secrets."""
    try:
        made = part.make()
    except Exception as error:  # noqa: BLE001 - help is asked for because something is broken: the rest is told
        made = f"This could not be gathered: {type(error).__name__}: {error}\n"
    if isinstance(made, str):
        return redact.text(made)
    return json.dumps(redact.value(made), indent=2, ensure_ascii=False, default=str) + "\n"


def _credentials(session: Session) -> Iterator[str]:
    directories = session.directories
    places = [directories.token_file]
    with contextlib.suppress(OSError):
        places += sorted(directories.credentials.iterdir())
    for place in places:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            yield place.read_text(encoding="utf-8")
    for name, value in os.environ.items():
        if is_secret_name(name):
            yield value


def _versions() -> dict[str, Any]:
    from importlib import metadata

    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {
        "ostler": daemon_core.__version__,
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "frozen": bool(getattr(sys, "frozen", False)),
        "sqlite": sqlite3.sqlite_version,
        "packages": found,
    }


def _system(session: Session) -> dict[str, Any]:
    import psutil

    directories = session.directories
    disks = {}
    for name in ("config", "data", "state", "cache", "run"):
        place: Path = getattr(directories, name)
        existing = next((each for each in (place, *place.parents) if each.exists()), None)
        if existing is not None:
            usage = shutil.disk_usage(existing)
            disks[name] = {
                "path": str(place),
                "there": place.exists(),
                "free": usage.free,
                "total": usage.total,
                "writable": os.access(existing, os.W_OK),
            }
    release: dict[str, str] = {}
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
    memory = psutil.virtual_memory()
    return {
        "system": platform.system(),
        "release": release.get("PRETTY_NAME", platform.platform()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "memory": {"total": memory.total, "available": memory.available},
        "up_s": round(time.time() - psutil.boot_time()),
        "profile": directories.profile,
        "environment": {name: os.environ[name] for name in SURROUNDINGS if name in os.environ},
        "is_set": {name: name in os.environ for name in WHETHER},
        "disks": disks,
    }


def _doctor(session: Session) -> list[dict[str, Any]]:
    from daemon_core.cli.commands.doctor import checks

    return [asdict(check) for check in checks(session)]


def _status(session: Session) -> dict[str, Any]:
    import msgspec

    from daemon_core.control.client import DaemonUnreachableError
    from daemon_core.control.errors import ControlError
    from daemon_core.control.views import DaemonStatus

    try:
        status = session.client.call(DaemonStatus, "GET", "/v1/status")
    except (DaemonUnreachableError, ControlError) as error:
        why = error.why if isinstance(error, DaemonUnreachableError) else error.code
        return {"unreachable": why, "detail": str(error)}
    told: dict[str, Any] = msgspec.to_builtins(status)
    for condition in told.get("conditions", ()):
        condition["params"] = {
            name: value for name, value in condition.get("params", {}).items() if name not in UNTOLD
        }
    return told


def _settings(session: Session) -> dict[str, Any]:
    from daemon_core.settings import file
    from daemon_core.settings.errors import SettingsError

    path = session.directories.config_file
    told: dict[str, Any] = {"file": str(path), "there": path.exists()}
    try:
        told["set"] = file.set_in(file.content(path), path)
    except SettingsError as error:
        # What cannot be read cannot be told apart either: only where it is broken is told.
        told["broken"] = {"line": error.line, "what": error.what}
    told["overridden"] = {entry.name: value for _, entry, value in file.overrides(os.environ)}
    told["providers of your own"] = _names(session.directories.providers)
    told["residents"] = _names(session.directories.resident_files)
    return told


def _names(place: Path) -> list[str]:
    try:
        return sorted(each.name for each in place.iterdir())
    except OSError:
        return []


def _records(session: Session) -> dict[str, Any]:
    directories = session.directories
    told: dict[str, Any] = {
        "journal": _counts(directories.journal_file, (("tasks", "state"), ("tasks", "outcome"),
                           ("tasks", "failure_reason"), ("tasks", "delivery"), ("tasks", "provider"),
                           ("runs", "state"), ("outbox", "kind"), ("jobs", "status"), ("notices", "state"))),
        "hub": _counts(directories.hub_file, (("task", "status"),)),
    }  # fmt: skip
    runs = {"directories": 0, "ended": 0, "begun": 0}
    with contextlib.suppress(OSError):
        for place in directories.runs.iterdir():
            runs["directories"] += 1
            runs["ended"] += (place / "exit.json").exists()
            runs["begun"] += (place / "shim.json").exists()
    told["runs"] = runs
    return told


def _counts(path: Path, columns: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """How many rows the tables have, and how many of each of some states. Never a text of a row."""
    if not path.exists():
        return {"there": False}
    told: dict[str, Any] = {"there": True, "bytes": path.stat().st_size}
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=DATABASE_WAIT_S)
        ) as database:
            told["schema"] = database.execute("PRAGMA user_version").fetchone()[0]
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            names = sorted(str(name) for (name,) in database.execute(query))
            told["rows"] = [
                {"table": name, "rows": database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]}
                for name in names
            ]
            for table, column in columns:
                if table in names and column in {
                    row[1] for row in database.execute(f'PRAGMA table_info("{table}")')
                }:
                    told[f"{table} by {column}"] = dict(
                        database.execute(
                            f'SELECT "{column}", count(*) FROM "{table}" GROUP BY 1 ORDER BY 2 DESC LIMIT 40'
                        ).fetchall()
                    )
    except sqlite3.Error as error:
        told["broken"] = str(error)
    return told


def _updates(session: Session) -> dict[str, Any]:
    """The updater's own files, wherever an installation has them."""
    place = session.directories.data.parent / "app"
    own = getattr(session.directories, "app", None)
    if isinstance(own, Path):
        place = own
    told: dict[str, Any] = {"there": place.is_dir()}
    for name in ("current.json", "update.json"):
        with contextlib.suppress(OSError):
            try:
                told[name] = json.loads((place / name).read_text(encoding="utf-8"))
            except ValueError as error:
                told[name] = f"damaged: {error}"
    told["versions"] = _names(place / "versions")
    return told


def _files(session: Session) -> str:
    """The first two levels of what is ours, workspaces and runs only counted."""
    lines = []
    for name in ("config", "data", "state", "cache", "run"):
        top: Path = getattr(session.directories, name)
        lines.append(f"{name}  {top}")
        for each in _listed(top, 2):
            with contextlib.suppress(OSError):
                facts = each.lstat()
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(facts.st_mtime))
                mode = stat.filemode(facts.st_mode)
                lines.append(f"  {mode} {facts.st_size:>12} {when} {each.relative_to(top)}")
    return "\n".join(lines[:LISTED]) + "\n"


def _listed(top: Path, depth: int) -> Iterator[Path]:
    try:
        found = sorted(top.iterdir())
    except OSError:
        return
    for each in found:
        yield each
        if depth > 1 and each.is_dir() and not each.is_symlink() and each.name not in ("workspaces", "repos"):
            yield from _listed(each, depth - 1)


def _log(session: Session) -> str:
    """With what the daemon died of, if it has not been started since."""
    from daemon_core.control.logtail import tail

    directories = session.directories
    lines = [*tail(directories.log_file, LOG_LINES), *tail(directories.crash_file, LOG_LINES)]
    return "".join(line.decode("utf-8", "replace") + "\n" for line in lines)


def _desktop_log(session: Session) -> str:
    """With what it died of, if it has not been started since."""
    from daemon_core.control.logtail import tail

    directories = session.directories
    lines: list[bytes] = []
    for each in (directories.desktop_log_file, directories.desktop_crash_file):
        lines += tail(each, DESKTOP_LINES)
    return "".join(line.decode("utf-8", "replace") + "\n" for line in lines)


def _start_error(session: Session) -> str:
    try:
        return session.directories.start_error_file.read_text(encoding="utf-8", errors="replace")[-65536:]
    except FileNotFoundError:
        return ""


def _timeline(session: Session) -> str:
    from daemon_core.control.logtail import tail

    lines = (line.decode("utf-8", "replace") for line in tail(session.directories.log_file, TIMELINE_LINES))
    return "\n".join(timeline(lines)) + "\n"
