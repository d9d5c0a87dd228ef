"""What an installer puts on the disk, the same for every kind of it.

```
launcher/            the launcher with its own libraries: the program `ostler`
payload/<version>/   the first version
install.json         what was installed and where updates come from
root.json            the root of trust for updates
```
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from building import manifest, places

FORMAT: Final = 1
PROGRAMS: Final = ("ostler", "ostlerd", "ostler-desktop")


@dataclass(frozen=True, slots=True)
class Source:
    """What installers are made of.

    Attributes:
        payload: A finished payload directory.
        launcher: The launcher's directory.
        url: Where updates' metadata comes from; empty: this build is not updated.
        targets_url: Where their files come from, if that is somewhere else.
        root: The root of trust, a file; None: this build is not updated.
        trial: How long an update has to prove itself, where not as usual: ``healthy_s``, ``settle_s``.
    """

    payload: Path
    launcher: Path
    url: str = ""
    targets_url: str = ""
    channel: str = "stable"
    root: Path | None = None
    trial: Mapping[str, float] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return str(manifest.read_payload(self.payload)["version"])

    @property
    def platform(self) -> str:
        return str(manifest.read_payload(self.payload)["platform"])


def install_json(source: Source, kind: str) -> dict[str, Any]:
    """What ``install.json`` says. ``kind``: deb, rpm, arch, tarball, windows or macos."""
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": source.version,
        "kind": kind,
        "seed": f"payload/{source.version}",
        "channel": source.channel,
        "url": source.url,
    }
    if source.targets_url:
        found["targets_url"] = source.targets_url
    if source.trial:
        found["trial"] = dict(source.trial)
    return found


def lay_out(source: Source, kind: str, out: Path) -> None:
    """Make the installed directory itself. Files are shared with the build where the disk allows it."""
    shutil.copytree(source.launcher, out / "launcher", symlinks=True, copy_function=_share)
    shutil.copytree(source.payload, out / "payload" / source.version, symlinks=True, copy_function=_share)
    (out / "install.json").write_text(json.dumps(install_json(source, kind), indent=1) + "\n")
    if source.root is not None:
        shutil.copyfile(source.root, out / "root.json")
    for path in (out / "install.json", out / "root.json"):
        if path.exists():
            path.chmod(0o644)
            os.utime(path, (places.source_time(),) * 2)


def _share(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
