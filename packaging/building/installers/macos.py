"""The application bundle for macOS: a recipe for a Mac, written after Apple's documentation and untried.

``Ostler.app`` is the stable face: macOS ties permissions, login items and notifications to its identifier and
signature, so it holds the launcher and the first version, and updates go below the user's own data, signed
by the same certificate. What can be done anywhere (the bundle's directory and its property list) is done
here; signing, notarising and the disk image are steps of ``packaging/macos/finish``, which needs a Mac.
"""

from __future__ import annotations

import plistlib
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from building import places
from building.installers import icons, layout

DATA: Final = places.PACKAGING / "macos"
IDENTIFIER: Final = "org.ostler.desktop"


def not_here() -> list[str]:
    return [
        "the bundle for macOS: it has to be built, signed and notarised on a Mac (packaging/macos/finish)"
    ]


def make(source: layout.Source, out: Path) -> tuple[list[Path], list[str]]:
    """Make the unsigned bundle; what is left to do is said."""
    made = bundle(source, out)
    return [made], [f"the signature of {made.name}: packaging/macos/finish {made} IDENTITY PROFILE"]


def bundle(source: layout.Source, out: Path) -> Path:
    """Make ``Ostler.app`` around a payload, unsigned; its directory."""
    target = out / "Ostler.app"
    shutil.rmtree(target, ignore_errors=True)
    inside = target / "Contents"
    (inside / "MacOS").mkdir(parents=True)
    layout.lay_out(source, "macos", inside / "Resources" / "ostler")
    icons.draw(out / ".icons")
    shutil.copyfile(out / ".icons" / "ostler.icns", inside / "Resources" / "ostler.icns")
    shutil.rmtree(out / ".icons")
    # What Finder starts. A program and not a link: the signature of a bundle is that of its main program.
    starter = inside / "MacOS" / "Ostler"
    starter.write_text(
        '#!/bin/sh\nexec "$(dirname "$0")/../Resources/ostler/launcher/ostler" --as=ostler-desktop "$@"\n'
    )
    starter.chmod(0o755)
    with open(inside / "Info.plist", "wb") as file:
        plistlib.dump(information(source.version), file)
    (inside / "PkgInfo").write_text("APPL????")
    return target


def information(version: str) -> dict[str, Any]:
    """The bundle's ``Info.plist``."""
    return {
        "CFBundleDevelopmentRegion": "en",
        "CFBundleDisplayName": "Ostler",
        "CFBundleExecutable": "Ostler",
        "CFBundleIconFile": "ostler",
        "CFBundleIdentifier": IDENTIFIER,
        "CFBundleInfoDictionaryVersion": "6.0",
        "CFBundleLocalizations": ["en", "de", "zh_CN"],
        "CFBundleName": "Ostler",
        "CFBundlePackageType": "APPL",
        "CFBundleShortVersionString": version.partition("-")[0],
        "CFBundleVersion": version.partition("-")[0],
        "LSApplicationCategoryType": "public.app-category.developer-tools",
        "LSMinimumSystemVersion": "13.0",
        "LSUIElement": True,  # in the menu bar, not in the Dock
        "NSHighResolutionCapable": True,
        "NSHumanReadableCopyright": "The Ostler authors, Apache License 2.0",
        "NSSupportsAutomaticTermination": False,
        "NSSupportsSuddenTermination": False,
    }


if __name__ == "__main__":
    sys.exit("use packaging/installers")
