"""One build under another version, without building again: ``packaging/stamp``.

A release candidate becomes the release this way, and tests have many versions of one build. For them a
version can also be broken in the ways that updates have to survive; what runs is then a real payload whose
daemon really crashes, hangs, and so on.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from building import manifest, places
from building.licences import SBOM
from building.modules import write_module

_WHOLE: Final = """
import importlib.util, sys
_place = __file__.replace("app.pyc", "app_whole.pyc")
_spec = importlib.util.spec_from_file_location("daemon_core.app", _place)
_module = importlib.util.module_from_spec(_spec)
sys.modules["daemon_core.app"] = _module
_spec.loader.exec_module(_module)
main = _module.main
"""
BREAKS: Final = {
    "crash": """
import sys
def main():
    sys.exit("this version is broken: it crashes at once")
""",
    "hang": """
import time
def main():
    while True:
        time.sleep(3600)
""",
    "late-crash": _WHOLE
    + """
import os, threading
_timer = threading.Timer({after_s}, lambda: os.kill(os.getpid(), 11))
_timer.daemon = True
_timer.start()
""",
    "journal": _WHOLE
    + """
from daemon_core.journal import schema
def _refuse(connection):
    raise ValueError("this version is broken: it cannot read the journal")
schema.migrate = _refuse
""",
    "no-health": _WHOLE
    + """
import asyncio
from daemon_core.control.server import ControlServer
async def _never(self, request):
    await asyncio.sleep(3600)
ControlServer._status = _never
""",
}
"""For each way to be broken the module that takes the place of the daemon's."""
LATE_S: Final = 20.0


def stamp(
    payload: Path, version: str, out: Path, *, broken: str | None = None, after_s: float = LATE_S
) -> Path:
    """Copy a payload under another version. Files are shared with the original where the disk allows it.

    Args:
        payload: A finished payload directory.
        version: What the copy says it is.
        out: The directory to make; it must not exist.
        broken: One of `BREAKS`.
        after_s: When ``late-crash`` crashes.
    """
    known = manifest.read_manifest(payload)["files"]
    shutil.copytree(payload, out, symlinks=True, copy_function=_share)
    for name in (manifest.PAYLOAD, manifest.MANIFEST, SBOM):
        (out / name).unlink()
    facts = {name: value for name, value in manifest.read_payload(payload).items() if name != "format"}
    before = facts["version"]
    manifest.write_payload(out, {**facts, "version": version})
    bill = (payload / SBOM).read_text(encoding="utf-8")
    (out / SBOM).write_text(
        bill.replace(f'"version": "{before}"', f'"version": "{version}"', 1), encoding="utf-8"
    )
    if broken is not None:
        known = _break(out, BREAKS[broken].replace("{after_s}", str(after_s)), known)
    manifest.write_manifest(out, {name: entry for name, entry in known.items() if not _changes(name)})
    at = places.source_time()
    for name in (manifest.PAYLOAD, manifest.MANIFEST, SBOM):
        os.utime(out / name, (at, at))
    return out


def _changes(name: str) -> bool:
    return name in (manifest.PAYLOAD, SBOM)


def _share(source: str, target: str) -> str:
    """A second name for the file: nothing in a payload is ever written again. A copy on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _break(out: Path, source: str, known: dict[str, object]) -> dict[str, object]:
    module = out / "_internal" / "daemon_core" / "app.pyc"
    module.rename(module.with_name("app_whole.pyc"))
    write_module(module, source, "daemon_core/app.py")
    name = module.relative_to(out).as_posix()
    return {other: entry for other, entry in known.items() if other != name}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="packaging/stamp", description="Give a built payload another version."
    )
    parser.add_argument("payload", type=Path, metavar="DIR", help="a payload directory")
    parser.add_argument("version", metavar="VERSION")
    parser.add_argument("out", type=Path, metavar="OUT", help="the directory to make")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="for tests: broken like this")
    parser.add_argument("--after", type=float, default=LATE_S, metavar="S", help="when late-crash crashes")
    options = parser.parse_args(arguments)
    stamp(options.payload, options.version, options.out, broken=options.broken, after_s=options.after)


if __name__ == "__main__":
    main()
