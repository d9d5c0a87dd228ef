"""What a client makes of a repository: asked with the very program that the daemon asks with.

A directory is served on the loopback interface for that time, as a static web server would.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon_core.updates import update_child
from releasing.errors import ReleaseError

WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer to one client.

    Attributes:
        code: ``ok``, or why the client trusts nothing of it.
        version: What it is offered; empty: nothing.
        delta: Whether it gets there by a delta.
        withdrawn: Versions that it hears are withdrawn.
        passed_over: The newest version that it is not offered, and why.
    """

    code: str
    params: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    delta: bool = False
    files: tuple[tuple[str, int, str], ...] = ()
    """Address, length and SHA-256 of what it would fetch."""
    withdrawn: tuple[str, ...] = ()
    passed_over: tuple[str, str] = ("", "")
    notes: dict[str, list[str]] = field(default_factory=dict)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """The address of a directory, while it is served."""
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def ask(
    url: str,
    root: bytes,
    *,
    platform: str,
    installed: str,
    metadata_dir: Path | None = None,
    bucket: str = "",
    anyway: bool = True,
) -> Seen:
    """Be a client.

    Args:
        url: The repository's address: ``metadata/`` and ``targets/`` are below it.
        root: The root of trust that the installer brought.
        installed: The version that the client has.
        metadata_dir: Where it remembers what it has seen; None: it is new.
        anyway: It asks by itself: the fraction does not count.

    Raises:
        ReleaseError: The client did not answer at all.
    """
    with tempfile.TemporaryDirectory(prefix="ostler-client-") as work:
        (Path(work) / "root.json").write_bytes(root)
        question = {
            "metadata_dir": str(metadata_dir or Path(work) / "metadata"),
            "metadata_url": f"{url}/metadata",
            "root": str(Path(work) / "root.json"),
            "platform": platform,
            "installed": installed,
            "bucket": bucket,
            "bad": [],
            "anyway": anyway,
            "timeout_s": 15,
            "agent": "ostler-release",
        }
        said = subprocess.run(
            [sys.executable, "-P", str(update_child.__file__)],
            input=json.dumps(question).encode(),
            capture_output=True,
            check=False,
            timeout=WAIT_S,
        )
    try:
        answer = json.loads(said.stdout)
    except ValueError as error:
        raise ReleaseError(f"the client failed: {said.stderr.decode(errors='replace')[-500:]}") from error
    if answer["code"] != "ok":
        return Seen(answer["code"], answer.get("params", {}))
    checked = answer["checked"]
    offer = checked.get("offer") or {}
    return Seen(
        "ok",
        version=offer.get("version", ""),
        delta="delta" in offer,
        files=tuple(
            (f"{url}/targets/{each['url_path']}", each["length"], each["sha256"])
            for each in (offer.get("full"), offer.get("delta"))
            if each is not None
        ),
        withdrawn=tuple(checked["withdrawn"]),
        passed_over=(checked["passed_over"], checked["passed_over_why"]),
        notes=offer.get("notes", {}),
    )


def missing(seen: Seen) -> list[str]:
    """Which of the files that the client would fetch the server does not have in that length."""
    wrong: list[str] = []
    for url, length, _sha256 in seen.files:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=WAIT_S) as answer:
                there = int(answer.headers.get("Content-Length") or -1)
        except (urllib.error.URLError, ValueError) as error:
            wrong.append(f"{url}: {error}")
            continue
        if there not in (-1, length):
            wrong.append(f"{url}: {there} bytes instead of {length}")
    return wrong
