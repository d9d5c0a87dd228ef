"""What goes into a payload and what stays out: a list of what is wanted, since bundlers collect generously.

Qt brings plugins for screens that no desktop has and, with them, half of GTK. Kept are the plugins in
``QT_PLUGINS`` and what the kept files need. Libraries that a system has to provide for its own screen, fonts
and bus (X11, GL, fontconfig, D-Bus) are left to it: a bundled copy that is older than its driver fails. They
are the packages' dependencies. Python's own (OpenSSL, SQLite, ...) are bundled, since their versions differ
from one system to the next.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

Entry = tuple[str, str, str]
"""As the bundler has them: name in the bundle, file, kind."""

HIDDEN_MODULES: Final = ("keyring.backends.SecretService", "keyring.backends.kwallet")
EXCLUDED_STANDARD: Final = (
    "_curses", "_tkinter", "curses", "distutils", "doctest", "ensurepip", "idlelib", "lib2to3",
    "pdb", "pydoc", "pydoc_data", "readline", "test", "tkinter", "turtle", "turtledemo", "unittest", "venv",
    "xmlrpc",
)  # fmt: skip
EXCLUDED_OPTIONAL: Final = (
    "IPython", "PySide6.QtQml", "PySide6.QtQuick", "brotli", "brotlicffi", "gi", "h2", "numpy", "socks",
    "uvloop", "zope",
)  # fmt: skip
"""What libraries use if it is there; whether it is on the machine that builds must make no difference."""
EXCLUDED_FROM_LAUNCHER: Final = (
    "_compression", "argparse", "ast", "base64", "bz2", "calendar", "csv", "ctypes", "dataclasses",
    "datetime", "decimal", "dis", "email", "encodings.idna", "fractions", "getopt", "gettext",
    "gzip", "hashlib", "importlib.metadata", "importlib.resources", "inspect", "ipaddress",
    "logging", "lzma", "pathlib", "pickle", "pprint", "py_compile", "random", "shutil", "socket",
    "ssl", "statistics", "string", "tarfile", "tempfile", "tokenize", "tracemalloc", "unicodedata",
    "urllib", "zipfile",
)  # fmt: skip
"""Bundlers bring half of the standard library along for programs of every kind; this one only chooses."""

QT_PLUGINS: Final = (
    "iconengines/libqsvgicon",
    "imageformats/libqsvg",
    "platforminputcontexts/libcomposeplatforminputcontextplugin",
    "platforminputcontexts/libibusplatforminputcontextplugin",
    "platforms/libqoffscreen",
    "platforms/libqwayland",
    "platforms/libqxcb",
    "platformthemes/libqxdgdesktopportal",
    "wayland-decoration-client/",
    "wayland-graphics-integration-client/libqt-plugin-wayland-egl",
    "wayland-shell-integration/libxdg-shell",
    "wayland-shell-integration/libwl-shell-plugin",
)
QT_TRANSLATIONS: Final = ("qtbase_de.qm", "qtbase_zh_CN.qm")
SYSTEM_LIBRARIES: Final = (
    "libpython3", "libssl", "libcrypto", "libffi", "libsqlite3", "libz.so", "liblzma", "libbz2", "libuuid",
    "libexpat", "libmpdec", "libcrypt.so",
)  # fmt: skip
"""Of the libraries that are not a Python package's own, these are bundled."""
_BUNDLED_BY_WHEELS: Final = re.compile(r"(^|/)([\w.-]+\.libs/|PySide6/|shiboken6/)")
_NEEDED: Final = re.compile(rb"^\s+NEEDED\s+(\S+)$", re.MULTILINE)


def data_files(root: Path) -> list[tuple[str, str]]:
    """Files that the code reads, each with the directory it belongs into."""
    found = [
        (str(path), str(path.parent.relative_to(root)))
        for package in ("daemon_core", "desktop")
        for path in sorted((root / package).rglob("*"))
        if path.is_file()
        and path.suffix not in (".py", ".pyc", ".po", ".pot")
        and "__pycache__" not in path.parts
    ]
    found += [(str(path), "resources") for path in sorted((root / "resources").iterdir()) if path.is_file()]
    return found


def wanted_datas(datas: Iterable[Entry]) -> list[Entry]:
    """The data files without Qt's translations, documentation and type stubs."""
    return sorted(entry for entry in datas if entry[2] != "SYMLINK" and _is_wanted_data(entry[0]))


def _is_wanted_data(name: str) -> bool:
    path = name.replace("\\", "/")
    if "/translations/" in path and path.startswith("PySide6/"):
        return path.rpartition("/")[2] in QT_TRANSLATIONS
    if path.startswith("PySide6/") and not path.endswith((".py", ".pyc")):
        return False
    if ".dist-info/" in path:  # entry points are read at run time, the licences are gathered elsewhere
        return path.rpartition("/")[2] in ("entry_points.txt", "METADATA")
    return not path.endswith((".pyi", ".pyx", ".pxd", ".c", ".h", "py.typed"))


def wanted_binaries(binaries: Iterable[Entry]) -> list[Entry]:
    """The libraries and extension modules that are wanted, and what these need. Not the links to libraries of
    packages: these find each other by themselves."""
    if sys.platform != "linux":
        return sorted(binaries)
    entries = {name: (name, file, kind) for name, file, kind in binaries if kind != "SYMLINK"}
    libraries = {name.rpartition("/")[2]: name for name in entries if ".so" in name}
    wanted: set[str] = set()
    waiting = [name for name in entries if _is_root(name, entries[name][2])]
    while waiting:
        name = waiting.pop()
        if name in wanted:
            continue
        wanted.add(name)
        needed = (libraries.get(library) for library in _needed(entries[name][1]))
        waiting += [other for other in needed if other is not None and _may_come(other)]
    return sorted(entries[name] for name in wanted)


def _is_root(name: str, kind: str) -> bool:
    """Whether a file is wanted for its own sake: extension modules and the named plugins."""
    if "/plugins/" in name:
        return name.partition("/plugins/")[2].startswith(QT_PLUGINS)
    return kind == "EXTENSION" or name.rpartition("/")[2].startswith("libpython3")


def _may_come(name: str) -> bool:
    """Whether a library that is needed is brought along, or the system's is used."""
    if _BUNDLED_BY_WHEELS.search(name):
        return True
    return name.rpartition("/")[2].startswith(SYSTEM_LIBRARIES)


def _needed(file: str) -> list[str]:
    said = subprocess.run(["objdump", "-p", file], capture_output=True, check=True).stdout
    return [name.decode() for name in _NEEDED.findall(said)]


def excluded_modules(root: Path) -> list[str]:
    """What is not to be looked for: the packages of everything that is installed and that is not among what
    Ostler needs to run."""
    lock = (root / "requirements" / "run.txt").read_text()
    needed = {_canonical(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)} | {"ostler"}
    foreign = [
        package
        for package, owners in metadata.packages_distributions().items()
        if not any(_canonical(owner) in needed for owner in owners)
    ]
    return sorted({*foreign, *EXCLUDED_STANDARD, *EXCLUDED_OPTIONAL})


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
