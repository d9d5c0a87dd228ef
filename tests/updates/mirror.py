"""A signed repository made by hand, so that it can be made wrong, and a server that misbehaves on request.

::

    repo = SignedRepository(tmp_path / "repo")
    offer = repo.add("1.1.0", payload)          # a full package of a payload directory
    repo.publish()
    async with Mirror(repo.directory) as mirror:
        mirror.script("1.1.0", Drip(10))        # the next answer to a path with this in it
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import shutil
import ssl
import tarfile
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from tests.updates.payloads import write_manifest, write_payload

PLATFORM: Final = "linux-x86_64"
ROLES: Final = ("root", "targets", "snapshot", "timestamp")


def made_payload(place: Path, version: str, *, platform: str = PLATFORM, filler: int = 0) -> Path:
    """A payload that says which machine it is for; ``filler``: bytes of a file that does not compress."""
    write_payload(place, version)
    about = {"format": 1, "version": version, "platform": platform, "journal": 1}
    (place / "payload.json").write_text(json.dumps(about))
    if filler:
        blocks = (hashlib.sha256(f"{version}{n}".encode()).digest() for n in range(filler // 32))
        (place / "_internal" / "filler").write_bytes(b"".join(blocks))
    write_manifest(place, version)
    return place


def pack(payload: Path, archive: Path, version: str) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=0) as tar:
        tar.add(payload, f"ostler-{version}")
    return archive


class SignedRepository:
    """Keys and metadata in memory; ``publish`` writes what a server serves. Root: two of two."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metadata_dir = directory / "metadata"
        self.targets_dir = directory / "targets"
        self.metadata_dir.mkdir(parents=True)
        self.targets_dir.mkdir()
        self.keys = {role: [CryptoSigner.generate_ed25519()] for role in ROLES}
        self.keys["root"].append(CryptoSigner.generate_ed25519())
        later = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=30)
        self.root = Root(version=1, expires=later, consistent_snapshot=True)
        for role, signers in self.keys.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
            self.root.roles[role].threshold = len(signers)
        self.targets = Targets(version=1, expires=later)
        self.snapshot = Snapshot(version=1, expires=later)
        self.timestamp = Timestamp(version=1, expires=later)
        self.trusted = directory / "trusted-root.json"
        self.write("root", self.root, self.metadata_dir / "1.root.json")
        self.trusted.write_bytes((self.metadata_dir / "1.root.json").read_bytes())

    # --- what is in it ---------------------------------------------------------------------------

    def add(self, version: str, payload: Path, **custom: Any) -> TargetFile:
        """A full package."""
        archive = pack(payload, self.directory / "made" / f"ostler-{version}-{PLATFORM}.tar.xz", version)
        manifest = (payload / "manifest.json").read_bytes()
        unpacked = sum(path.stat().st_size for path in payload.rglob("*") if path.is_file())
        facts = {
            "payload_sha256": hashlib.sha256(manifest).hexdigest(),
            "unpacked_bytes": unpacked,
            "notes": {"en": [f"What is new in {version}"], "de": [f"Was neu ist in {version}"]},
        }
        return self.add_file(archive, version=version, kind="full", **{**facts, **custom})

    def add_file(self, file: Path, **custom: Any) -> TargetFile:
        """Any file, under its own name."""
        target = TargetFile.from_file(file.name, str(file))
        facts = {"platform": PLATFORM, "fraction": "1", "withdrawn": False, "journal": 1, **custom}
        target.unrecognized_fields["custom"] = facts
        self.targets.targets[file.name] = target
        shutil.copy(file, self.targets_dir / f"{target.hashes['sha256']}.{file.name}")
        return target

    def custom(self, version: str) -> dict[str, Any]:
        """What is said about a full package; may be changed before the next ``publish``."""
        name = f"ostler-{version}-{PLATFORM}.tar.xz"
        found = self.targets.targets[name].unrecognized_fields["custom"]
        assert isinstance(found, dict)
        return found

    # --- signing ---------------------------------------------------------------------------------

    def publish(self) -> None:
        """New versions of all but the root, consistently."""
        for signed in (self.targets, self.snapshot, self.timestamp):
            signed.version += 1
        self.snapshot.meta["targets.json"] = MetaFile(version=self.targets.version)
        self.timestamp.snapshot_meta = MetaFile(version=self.snapshot.version)
        self.write("targets", self.targets, self.metadata_dir / f"{self.targets.version}.targets.json")
        self.write("snapshot", self.snapshot, self.metadata_dir / f"{self.snapshot.version}.snapshot.json")
        self.write("timestamp", self.timestamp, self.metadata_dir / "timestamp.json")

    def write(self, role: str, signed: Signed, path: Path, signers: list[CryptoSigner] | None = None) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        for signer in self.keys[role] if signers is None else signers:
            metadata.sign(signer, append=True)
        metadata.to_file(str(path))

    def expire(self, role: str = "timestamp", days: float = -1) -> None:
        """Let a role have expired (or expire in so many days)."""
        moment = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=days)
        getattr(self, role).expires = moment
        if role == "root":
            self.root.version += 1
            self.write("root", self.root, self.metadata_dir / f"{self.root.version}.root.json")
        else:
            self.publish()


# --- the server -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong."""


@dataclass(frozen=True)
class Status(Fault):
    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cut(Fault):
    """The connection breaks after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing comes after so many bytes."""

    after: int


@dataclass(frozen=True)
class Drip(Fault):
    """A byte at a time, for ever; ``after``: so many at once before."""

    after: int = 0
    pause_s: float = 0.02


@dataclass(frozen=True)
class Endless(Fault):
    """Other bytes, without a length and without an end."""


@dataclass(frozen=True)
class Longer(Fault):
    """More than there is, and the length says so."""

    by: int = 100_000


@dataclass(frozen=True)
class Changed(Fault):
    """The same length, other bytes from here on."""

    at: int = 0


@dataclass(frozen=True)
class Whole(Fault):
    """The whole file although a part was asked for."""


@dataclass(frozen=True)
class WrongPart(Fault):
    """206 with another part than was asked for."""


class Mirror:
    """Serves a directory on loopback, with ranges and ETags, unless told otherwise."""

    def __init__(self, directory: Path, tls: ssl.SSLContext | None = None) -> None:
        self.directory = directory
        self._tls = tls
        self.requests: list[tuple[str, str]] = []
        """Path and ``Range`` of each request."""
        self.headers: dict[str, str] = {}
        """Put into every answer."""
        self._scripts: dict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._runner: web.AppRunner | None = None
        self._release = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def script(self, part: str, *faults: Fault) -> None:
        """One answer each to paths with ``part`` in them."""
        self._scripts[part].extend(faults)

    def always(self, part: str, fault: Fault | None) -> None:
        self._always.pop(part, None)
        if fault is not None:
            self._always[part] = fault

    def asked_for(self, part: str) -> list[str]:
        """The ranges of the requests to such paths."""
        return [wanted for path, wanted in self.requests if part in path]

    async def __aenter__(self) -> Mirror:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._release.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def _fault(self, path: str) -> Fault:
        for part, faults in self._scripts.items():
            if part in path and faults:
                return faults.popleft()
        return next((fault for part, fault in self._always.items() if part in path), Fault())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.requests.append((path, request.headers.get("Range", "")))
        fault = self._fault(path)
        file = self.directory / path
        if isinstance(fault, Status):
            return web.Response(status=fault.status, headers={**self.headers, **dict(fault.headers)})
        if not file.is_file():
            return web.Response(status=404, headers=self.headers)
        data = file.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start = 0
        wanted = request.headers.get("Range", "")
        partial = wanted.startswith("bytes=") and request.headers.get("If-Range", etag) == etag
        if partial and not isinstance(fault, Whole):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(data):
                return web.Response(status=416)
        part = start != 0
        if isinstance(fault, WrongPart):
            start, part = max(start - 7, 0), True
        body = data[start:]
        if isinstance(fault, Changed):
            body = body[: fault.at] + bytes(byte ^ 0xFF for byte in body[fault.at :])
        headers = {**self.headers, "ETag": etag, "Accept-Ranges": "bytes"}
        if part:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if part else 200, headers=headers)
        length = len(body) + (fault.by if isinstance(fault, Longer) else 0)
        if isinstance(fault, Endless):
            response.enable_chunked_encoding()
        else:
            response.content_length = length
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # who asked has left
            await self._send(request, response, body, fault)
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault
    ) -> None:
        match fault:
            case Cut():
                await response.write(body[: fault.after])
                assert request.transport is not None
                request.transport.close()
            case Stall():
                await response.write(body[: fault.after])
                await self._release.wait()
            case Drip():
                await response.write(body[: fault.after])
                for at in range(fault.after, len(body)):
                    if self._release.is_set():
                        return
                    await response.write(body[at : at + 1])
                    await asyncio.sleep(fault.pause_s)
            case Endless():
                while not self._release.is_set():
                    await response.write(b"x" * 5000)
            case Longer():
                await response.write(body + b"x" * fault.by)
            case _:
                await response.write(body)
