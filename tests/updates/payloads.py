"""Payloads and installations as the build and the installers make them, with scripts for programs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

PROGRAMS = ("ostler", "ostlerd", "ostler-desktop")


def write_payload(
    place: Path, version: str, programs: dict[str, str] | None = None, *, small: bool = False
) -> Path:
    """A whole payload: the programs are shell scripts, by default ones that say who they are.

    Args:
        small: the daemon's alone, for tests that count operations.
    """
    place.mkdir(parents=True)
    (place / "_internal").mkdir()
    (place / "_internal" / "library").write_text(f"shared by the programs of {version}\n")
    if not small:
        (place / "_internal" / "link").symlink_to("library")
    names = ("ostlerd",) if small else PROGRAMS
    usual = {name: f'#!/bin/sh\necho "{name} {version} $*"\n' for name in names}
    for name, text in {**usual, **(programs or {})}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (place / "payload.json").write_text(json.dumps({"format": 1, "version": version, "journal": 1}))
    write_manifest(place, version)
    return place


def write_manifest(place: Path, version: str) -> None:
    files: dict[str, dict[str, object]] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink():
            files[name] = {"link": os.readlink(path)}
        elif path.is_file() and name != "manifest.json":
            content = path.read_bytes()
            files[name] = {
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "mode": path.stat().st_mode & 0o777,
            }
    (place / "manifest.json").write_text(json.dumps({"format": 1, "version": version, "files": files}))


def write_installation(
    root: Path, seed: str, programs: dict[str, str] | None = None, *, small: bool = False
) -> Path:
    """What an installer brings, with the launcher from source; gives the launcher's directory."""
    launcher = root / "launcher"
    launcher.mkdir(parents=True, exist_ok=True)
    script = launcher / "ostler"
    script.write_text(
        f'#!/bin/sh\nexport OSTLER_LAUNCHER="{launcher}"\n'
        f'exec "{sys.executable}" -m daemon_core.updates.launcher "--as=${{0##*/}}" "$@"\n'
    )
    script.chmod(0o755)
    for name in ("ostlerd", "ostler-desktop"):
        if not (launcher / name).exists():
            (launcher / name).symlink_to("ostler")
    write_payload(root / "payload" / seed, seed, programs, small=small)
    about = {"format": 1, "version": seed, "kind": "tarball", "seed": f"payload/{seed}", "channel": "stable"}
    (root / "install.json").write_text(json.dumps(about))
    return launcher
