"""How this program was installed, and how its own programs are started from there.

A packaged Ostler is a *payload*: a directory with one executable for each program and a ``payload.json``. The
launcher at its fixed place chooses the payload and says where it is itself in ``OSTLER_LAUNCHER``. Whatever
lasts longer than this process (a daemon, what a run finds in its search path) is named by the launcher and
not by the payload, so that it goes on to work after an update. Started from source there is neither, and the
same programs are modules of this interpreter.

The programs of a bundle are started with variables of the bundler's own. They must not reach anything that
is started from here: agents, git and the user's browser would load this bundle's libraries instead of the
system's. `begin` takes them out, before anything else is imported.

Every start of every program pays for what is imported here, so that is next to nothing.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in typing, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path
    from typing import Any, Final

FROZEN: Final = bool(getattr(sys, "frozen", False))
"""Whether this is a payload's program and not one that runs from source."""
LAUNCHER_VARIABLE: Final = "OSTLER_LAUNCHER"
LEASE_VARIABLE: Final = "OSTLER_LEASE_FD"
SUFFIX: Final = ".exe" if sys.platform == "win32" else ""
SOURCE_MODULES: Final = {
    "ostler": "daemon_core.cli",
    "ostlerd": "daemon_core.app",
    "ostler-desktop": "desktop.app",
}

_SEARCH_PATHS: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "LIBPATH")
_BUNDLER_PREFIXES: Final = ("_PYI_", "PYINSTALLER_")


def begin(environ: MutableMapping[str, str] | None = None) -> None:
    """Give this process the environment back that its starter gave it. For the first line of a program."""
    env = os.environ if environ is None else environ
    for name in _SEARCH_PATHS:
        kept = env.pop(f"{name}_ORIG", None)
        if kept:
            env[name] = kept
        elif kept is not None or FROZEN:
            env.pop(name, None)
    for name in [name for name in env if name.startswith(_BUNDLER_PREFIXES)]:
        del env[name]
    # The launcher hands the lease on this version over as a descriptor. It is this process's alone: handed
    # on to what is started from here it would keep the version on the disk for as long as that lives.
    lease = env.get(LEASE_VARIABLE, "")
    if lease.isdigit():
        try:
            os.set_inheritable(int(lease), False)
        except OSError:
            del env[LEASE_VARIABLE]


def payload_directory() -> Path | None:
    """Where this payload's programs are; None when run from source."""
    if not FROZEN:
        return None
    from pathlib import Path

    return Path(sys.executable).parent


def launcher_directory() -> Path | None:
    """Where the launcher is that started this program and still is; None if there is none."""
    place = os.environ.get(LAUNCHER_VARIABLE, "")
    if not place or not os.path.isabs(place):
        return None
    if not os.path.exists(os.path.join(place, "ostler" + SUFFIX)):
        return None
    from pathlib import Path

    return Path(place)


def program(name: str) -> list[str]:
    """How one of the three programs is started so that the current version of it starts.

    Args:
        name: ``ostler``, ``ostlerd`` or ``ostler-desktop``.
    """
    launcher = launcher_directory()
    if launcher is None:
        return [beside(name)] if FROZEN else [sys.executable, "-m", SOURCE_MODULES[name]]
    return [str(launcher / ("ostler" + SUFFIX)), *([] if name == "ostler" else [f"--as={name}"])]


def beside(name: str) -> str:
    """A program of this very version, by its path. For a frozen program alone."""
    return os.path.join(os.path.dirname(sys.executable), name + SUFFIX)


def working_directory() -> Path:
    """A directory to start a program in that is nobody's project and that ``-m`` finds the source from."""
    from pathlib import Path

    return Path(os.path.abspath(os.sep)) if FROZEN else Path(__file__).resolve().parents[2]


def apart() -> dict[str, Any]:
    """Options of ``Popen`` for a program that goes on when this one, or its terminal, ends."""
    if sys.platform == "win32":
        # A console of its own that nobody sees: without one every program it starts would open a window.
        return {"creationflags": 0x0800_0000 | 0x0200}  # CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP
    return {"start_new_session": True}


def payload() -> dict[str, Any]:
    """What ``payload.json`` says (version, platform, commit, ...); empty when run from source."""
    if not FROZEN:
        return {}
    try:
        with open(os.path.join(os.path.dirname(sys.executable), "payload.json"), "rb") as file:
            text = file.read()
    except OSError:
        return {}  # this is the launcher
    import json

    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def version(of_source: str) -> str:
    """The version of this program: the payload's own word, since one build can be released under another."""
    return str(payload().get("version") or of_source)
