"""Where this installation gets its updates from, or why it gets none.

The installer's ``install.json`` names the address of the signed metadata (``url``), that of the files
(``targets_url``, else ``targets/`` beside or below it) and hosts that a download may be sent on to
(``other_hosts``); its ``root.json`` is what is trusted.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.updates.offers import Problem
from daemon_core.updates.trust import Source
from daemon_core.updates.versions import Installation, app_directory

ROOT: Final = "root.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where updates come from.

    Attributes:
        source: None: there are no updates here, because of ``why_not``.
    """

    source: Source | None = None
    why_not: Problem | None = None


def find(environ: Mapping[str, str], url: str = "") -> Place:
    """Look (blocks, shortly).

    Args:
        url: In place of the installer's own address, from the settings; empty: that.
    """
    installation = Installation.of(dict(environ))
    if installation is None:
        return Place(why_not=Problem(code="source"))
    if installation.owned:
        return Place(why_not=Problem(code="package_manager"))
    if not os.path.exists(installation.launcher):
        return Place(why_not=Problem(code="launcher_gone", params={"path": installation.launcher}))
    about = installation.about()
    # The address first: one that was made here without any has no root either, and is none the worse for it.
    given = url or about.get("url")
    if not isinstance(given, str) or not _is_address(given):
        return Place(why_not=Problem(code="no_address", params={"url": str(given or "")}))
    root = Path(installation.root) / ROOT
    if not root.is_file():
        return Place(why_not=Problem(code="no_trust", params={"path": str(root)}))
    targets = about.get("targets_url")
    hosts = about.get("other_hosts")
    return Place(
        source=Source(
            metadata_url=_directory(given),
            # The installer's word about the files holds for the installer's metadata alone.
            targets_url=_directory(targets)
            if not url and isinstance(targets, str) and _is_address(targets)
            else _targets_of(given),
            root=root,
            metadata_dir=Path(app_directory(dict(environ))) / "metadata",
            other_hosts=tuple(str(host) for host in hosts) if isinstance(hosts, list) else (),
        )
    )


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _directory(url: str) -> str:
    return url if url.endswith("/") else url + "/"


def _targets_of(url: str) -> str:
    """The files beside a directory called ``metadata``, else below the metadata."""
    plain = url.rstrip("/")
    return (plain.removesuffix("/metadata") if plain.endswith("/metadata") else plain) + "/targets/"
