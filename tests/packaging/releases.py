"""A repository with its keys for tests, payloads to publish in it, and python-tuf's client as the judge."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from daemon_core.updates.files import Files
from releasing import archives, publishing, upkeep
from releasing.keys import KeyRing, Passphrases
from releasing.repository import ROLES, Lifetimes, Repository

PLATFORM = "linux-x86_64"
PASSPHRASE = "correct horse"
SHAPES = {
    "root": upkeep.Shape(3, 2),
    "targets": upkeep.Shape(2, 2),
    "snapshot": upkeep.Shape(1, 1),
    "timestamp": upkeep.Shape(1, 1),
}


def payload(directory: Path, version: str, *, platform: str = PLATFORM, journal: int = 1) -> Path:
    """A payload directory: a large file of which a little differs from version to version, and small ones."""
    base = random.Random(1).randbytes(60_000)
    mark = version.encode()
    contents = {
        "ostlerd": base[:30_000] + mark + base[30_000:],
        "_internal/libsame.so": base[::-1],
        "_internal/version.txt": mark,
        "payload.json": json.dumps(
            {"format": 1, "version": version, "platform": platform, "journal": journal}
        ).encode(),
    }
    files: dict[str, Any] = {"_internal/libsame.so.1": {"link": "libsame.so"}}
    for path, content in contents.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        mode = 0o755 if "/" not in path and "." not in path else 0o644
        target.chmod(mode)
        files[path] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "mode": mode}
    (directory / "_internal/libsame.so.1").symlink_to("libsame.so")
    (directory / "manifest.json").write_text(json.dumps({"format": 1, "version": version, "files": files}))
    return directory


class Releases:
    """Everything that whoever releases has. ``now`` is the tool's clock; clients have the real one."""

    def __init__(self, place: Path, *, lifetimes: Lifetimes | None = None) -> None:
        self.place = place
        self.lifetimes = lifetimes or Lifetimes()
        self.offset = dt.timedelta()
        self.offline, self.online, self.dist = place / "offline", place / "online", place / "dist"

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.offset

    def repository(self, files: Files | None = None) -> Repository:
        return Repository(self.place / "repo", files=files, clock=self.now, lifetimes=self.lifetimes)

    def ring(self, *places: Path, passphrase: str = PASSPHRASE) -> KeyRing:
        return KeyRing(list(places or (self.offline, self.online)), Passphrases({}, piped=passphrase))

    def init(self) -> Releases:
        places = {role: self.offline if role in ("root", "targets") else self.online for role in ROLES}
        upkeep.init(self.repository(), self.ring(), places, SHAPES)
        return self

    def package(self, version: str, *, platform: str = PLATFORM, journal: int = 1) -> Path:
        directory = payload(
            self.place / "built" / f"{version}-{platform}", version, platform=platform, journal=journal
        )
        return archives.pack(directory, self.dist)

    def publish(self, version: str, *, fraction: float = 1.0, files: Files | None = None) -> None:
        if not (self.dist / archives.archive_name(version, PLATFORM)).exists():
            self.package(version)
        publishing.publish(
            self.repository(files),
            self.ring(),
            version,
            self.dist.iterdir(),
            {"en": [f"What is new in {version}."]},
            fraction=fraction,
        )

    def client(self, name: str = "client", *, root: bytes | None = None) -> Client:
        first = (self.place / "repo/metadata/1.root.json").read_bytes()
        return Client(self.place / "repo", root or first, self.place / name)

    def copy(self, to: Path) -> Releases:
        """The same once more, to do something to it."""
        shutil.copytree(self.place, to, symlinks=True)
        other = Releases(to, lifetimes=self.lifetimes)
        other.offset = self.offset
        return other


class _FromDirectory(FetcherInterface):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._directory / urlparse(url).path.lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError(f"no {path.name}", 404)
        yield path.read_bytes()


class Client:
    """python-tuf's own client: what it accepts is right. It remembers, as clients do."""

    def __init__(self, repository: Path, root: bytes, place: Path) -> None:
        self._repository = repository
        self._root = root
        self._place = place
        self.metadata_dir = place / "metadata"

    def look(self) -> dict[str, dict[str, Any]]:
        """What it is told of each target; raises python-tuf's errors."""
        self._refreshed()
        targets = Metadata[Targets].from_file(str(self.metadata_dir / "targets.json")).signed.targets
        return {path: target.custom or {} for path, target in targets.items()}

    def versions(self) -> set[str]:
        return {
            about["version"]
            for about in self.look().values()
            if about["kind"] == "full" and not about["withdrawn"]
        }

    def fetch(self, path: str) -> Path:
        updater = self._refreshed()
        target = updater.get_targetinfo(path)
        assert target is not None
        return Path(updater.download_target(target, str(self._place / path)))

    def _refreshed(self) -> Updater:
        self.metadata_dir.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(self.metadata_dir),
            "http://here/metadata",
            str(self._place),
            "http://here/targets",
            fetcher=_FromDirectory(self._repository),
            bootstrap=self._root,
        )
        updater.refresh()
        return updater
