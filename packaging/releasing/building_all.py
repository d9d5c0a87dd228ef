"""Everything that is made of one version, and what this machine cannot make."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from building import manifest, payload, places, stamping
from building.installers import layout, making
from releasing import archives
from releasing.errors import ReleaseError

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Updates:
    """Where installers are told that updates come from; empty: they are not updated."""

    url: str = ""
    targets_url: str = ""
    channel: str = "stable"
    root: Path | None = None


def build(
    out: Path, updates: Updates, *, version: str = "", say: Say, dry_run: bool = False, fast: bool = False
) -> tuple[list[Path], list[str]]:
    """Build payload, launcher, full package and installers of this source.

    Args:
        version: Release this build under another version than the source says; empty: as the source says.
        fast: Large and quick, for trying out.

    Returns:
        The files, and for each kind that could not be made here what it is and what it needs.

    Raises:
        ReleaseError: A step failed.
    """
    wanted = version or payload.source_version()
    if dry_run:
        say(f"would build {wanted} for {places.platform_name()} into {out}")
        return [], []
    if updates.url and (updates.root is None or not updates.root.is_file()):
        raise ReleaseError(
            "installers need a root of trust to be updated: there is no repository (release init)"
        )
    out.mkdir(parents=True, exist_ok=True)
    try:
        built = payload.build(release=True)
        say(f"built {payload.source_version()} in {built}")
        directory = built / "payload"
        if version and version != payload.source_version():
            stamped = built / f"payload-{version}"
            if not stamped.exists():
                partial = built / f".payload-{version}"
                shutil.rmtree(partial, ignore_errors=True)  # of a run that was broken off
                stamping.stamp(directory, version, partial).rename(stamped)
            directory = stamped
        source = layout.Source(
            payload=directory,
            launcher=built / "launcher",
            url=updates.url,
            targets_url=updates.targets_url,
            channel=updates.channel,
            root=updates.root if updates.url else None,
        )
        made, could_not = making.make_all(source, out, fast=fast, say=say)
    except (RuntimeError, subprocess.SubprocessError, FileNotFoundError) as error:
        raise ReleaseError(f"the build failed: {error}") from error
    if not updates.url:
        could_not.append("updates of these installers: they were told no --url")
    say("packing the full package")
    return [*made, archives.pack(directory, out, fast=fast)], could_not


def pack_signed(directory: Path, out: Path) -> Path:
    """Pack a payload whose files were signed after it was built: its manifest is written anew first.

    Raises:
        ReleaseError: It is no payload.
    """
    if not (directory / manifest.PAYLOAD).is_file():
        raise ReleaseError(f"{directory} is no payload")
    manifest.write_manifest(directory)
    return archives.pack(directory, out)
