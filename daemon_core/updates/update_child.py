"""One question to the update server, in a process of its own: run as a program, never imported by the daemon.

What is trusted is decided here, by python-tuf with the root that the installer brought; its libraries take
more memory than most of the daemon's parts, so they are in a process that ends. The question comes as one
JSON object on standard input, the answer goes as one to standard output:

``{"metadata_dir", "metadata_url", "root", "platform", "installed", "bucket", "bad": [...], "anyway": bool,
"timeout_s", "agent"}`` → ``{"code": "ok", "checked": …}`` or ``{"code": <problem>, "params": {…}}``.

Rules kept here, in this order: everything is verified (signatures, thresholds, versions that only grow,
expiry) before any of it is believed; a file is only known by its entry in verified metadata; never an older
version than the installed one; never a withdrawn one; unless the user asks (``anyway``), never one that
failed here, and only if this installation's share of the roll-out has come.

``bucket`` names this installation: which share it falls in is a hash of that and the version, so that it is
not always the same machines that come first.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

ANSWER_LIMIT_BYTES: Final = 4 * 1024 * 1024
TARGETS_LIMIT: Final = 20_000
NOTES_LINES: Final = 50
NOTES_CHARS: Final = 500
CLOCK_S: Final = 2 * 3600.0
"""Between this clock and the server's; more is worth saying when metadata seems to have expired."""


def main() -> None:
    question = json.loads(sys.stdin.buffer.read())
    answer = _answer(question)
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        import tuf.ngclient  # noqa: F401 - seen here whether it is there at all
    except ImportError as error:
        return _problem("child_failed", detail=str(error))
    try:
        with open(question["root"], "rb") as file:
            root = file.read(1 << 20)
    except OSError as error:
        return _problem("trust_missing", path=question["root"], detail=error.strerror)
    try:
        os.makedirs(question["metadata_dir"], mode=0o700, exist_ok=True)
        found = _targets(question, root)
    except OSError as error:
        return _of_system(error, question["metadata_dir"])
    if "code" in found:
        return found
    return {"code": "ok", "checked": choose(found["targets"], question)}


def _problem(code: str, **params: Any) -> dict[str, Any]:
    return {"code": code, "params": {name: value for name, value in params.items() if value}}


def _of_system(error: OSError, place: str) -> dict[str, Any]:
    import errno

    path = str(error.filename or place)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _problem("no_permission", path=path, detail=error.strerror)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _problem("disk_full", path=path)
    return _problem("disk_error", path=path, detail=error.strerror or str(error))


# --- trust ------------------------------------------------------------------------------------------------


def _targets(question: Mapping[str, Any], root: bytes) -> dict[str, Any]:
    """All targets as verified metadata has them, or a problem."""
    import urllib3
    from tuf.api import exceptions
    from tuf.ngclient import Updater
    from tuf.ngclient.config import UpdaterConfig
    from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

    metadata_dir, url = question["metadata_dir"], question["metadata_url"]
    timeout_s = max(1, int(question.get("timeout_s", 15)))
    fetcher = Urllib3Fetcher(socket_timeout=timeout_s, app_user_agent=question.get("agent") or None)
    try:
        updater = Updater(metadata_dir, url, fetcher=fetcher, config=UpdaterConfig(), bootstrap=root)
        updater.refresh()
        return {"targets": list(_listed(updater, metadata_dir))}
    except exceptions.ExpiredMetadataError as error:
        return _expired(str(error), url, timeout_s)
    except exceptions.BadVersionNumberError as error:
        return _problem("old_metadata", detail=_short(error))
    except exceptions.DownloadLengthMismatchError as error:
        return _problem("endless", detail=_short(error))
    except exceptions.SlowRetrievalError as error:
        cause = error.__cause__
        reason = getattr(cause, "reason", cause)
        # To the library a refused connection is one that has timed out.
        refused = isinstance(reason, urllib3.exceptions.NewConnectionError)
        return _problem("unreachable" if refused else "slow", detail=_short(reason or error))
    except exceptions.DownloadHTTPError as error:
        return _problem("server_error", status=error.status_code)
    except exceptions.DownloadError as error:
        cause = error.__cause__ or error
        if isinstance(cause, urllib3.exceptions.HTTPError):
            return _unreachable(cause)
        return _unreachable(error)
    except urllib3.exceptions.HTTPError as error:
        return _unreachable(error)
    # Among others: UnsignedMetadataError, LengthOrHashMismatchError, metadata that is no metadata.
    except exceptions.RepositoryError as error:
        return _problem("untrusted", detail=_short(error))


def _unreachable(error: BaseException) -> dict[str, Any]:
    """No connection. A certificate that is not valid today is most often a clock that is wrong."""
    text = str(error)
    if "certificate is not yet valid" in text or "certificate has expired" in text:
        return _problem("clock", here=_text(time.time()))
    return _problem("unreachable", detail=_short(error))


def _listed(updater: Any, metadata_dir: str) -> Any:
    """Every target. The library names none by itself: the names are read from the file that it has just
    verified and stored, and everything said about one comes from the library again."""
    from tuf.api.metadata import Metadata, Root, Targets

    targets = Metadata[Targets].from_file(os.path.join(metadata_dir, "targets.json")).signed.targets
    prefixed = bool(
        Metadata[Root].from_file(os.path.join(metadata_dir, "root.json")).signed.consistent_snapshot
    )
    for path in list(targets)[:TARGETS_LIMIT]:
        info = updater.get_targetinfo(path)
        if info is None or "sha256" not in info.hashes:
            continue
        directory, slash, name = path.rpartition("/")
        first = next(iter(info.hashes.values()))
        yield {
            "path": path,
            "url_path": f"{directory}{slash}{first}.{name}" if prefixed else path,
            "length": int(info.length),
            "sha256": str(info.hashes["sha256"]),
            "custom": info.custom or {},
        }


def _expired(detail: str, url: str, timeout_s: int) -> dict[str, Any]:
    """Whether the metadata is old, or this machine's clock is wrong: the server's clock decides nothing but
    the words."""
    import email.utils

    import urllib3

    try:
        answer = urllib3.request(
            "HEAD",
            url.rstrip("/") + "/timestamp.json",
            timeout=timeout_s,
            retries=False,
            preload_content=False,
        )
        said = answer.headers.get("Date", "")
        answer.close()
        there = email.utils.parsedate_to_datetime(said).timestamp() if said else time.time()
    except (urllib3.exceptions.HTTPError, ValueError, TypeError):
        there = time.time()
    if abs(there - time.time()) > CLOCK_S:
        return _problem("clock", here=_text(time.time()), there=_text(there))
    return _problem("expired", detail=detail[:300])


def _text(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


# --- choice -----------------------------------------------------------------------------------------------


def choose(targets: Sequence[Mapping[str, Any]], question: Mapping[str, Any]) -> dict[str, Any]:
    """The version to have, from verified targets. Pure."""
    from daemon_core.updates.pointer import is_newer, version_key

    platform, installed = str(question["platform"]), str(question["installed"])
    full: dict[str, Mapping[str, Any]] = {}
    deltas: dict[str, Mapping[str, Any]] = {}
    withdrawn: set[str] = set()
    for target in targets:
        custom = target.get("custom")
        if not isinstance(custom, Mapping) or custom.get("platform") != platform:
            continue
        version = str(custom.get("version", ""))
        if not _fits(target, custom, version, platform):
            continue
        if custom.get("withdrawn"):
            withdrawn.add(version)
        elif custom.get("kind") == "full":
            full[version] = target
        elif custom.get("kind") == "delta" and custom.get("from") == installed:
            deltas[version] = target
    passed_over, why = "", ""
    chosen = None
    for version in sorted(full, key=version_key, reverse=True):
        if version in withdrawn or not is_newer(version, installed):
            continue
        against = "" if question.get("anyway") else _against(version, full[version], question)
        if not against:
            chosen = version
            break
        if not passed_over:
            passed_over, why = version, against
    found: dict[str, Any] = {
        "withdrawn": sorted(withdrawn),
        "passed_over": passed_over,
        "passed_over_why": why,
    }
    if chosen is not None:
        found["offer"] = _offer(chosen, full[chosen], deltas.get(chosen), installed)
    return found


def _fits(target: Mapping[str, Any], custom: Mapping[str, Any], version: str, platform: str) -> bool:
    """Whether a target's name and what is said about it agree."""
    from daemon_core.updates.pointer import is_version

    if not is_version(version):
        return False
    if custom.get("kind") == "full":
        return bool(target["path"] == f"ostler-{version}-{platform}.tar.xz")
    start = str(custom.get("from", ""))
    return is_version(start) and bool(target["path"] == f"ostler-{start}-to-{version}-{platform}.delta")


def _against(version: str, target: Mapping[str, Any], question: Mapping[str, Any]) -> str:
    if version in question.get("bad", ()):
        return "bad"
    # A decimal number as text, "0.25": what is signed (canonical JSON) has no fractions.
    fraction = target["custom"].get("fraction", "1")
    try:
        share = float(fraction) if isinstance(fraction, str | int) else 0.0
    except ValueError:
        share = 0.0  # not understood: as if nobody's turn had come
    return "" if bucket(str(question.get("bucket", "")), version) < share else "fraction"


def bucket(installation: str, version: str) -> float:
    """Where this installation stands in the roll-out of a version: from 0 up to, but not including, 1."""
    digest = hashlib.sha256((installation + version).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _offer(
    version: str, full: Mapping[str, Any], delta: Mapping[str, Any] | None, installed: str
) -> dict[str, Any]:
    custom = full["custom"]
    unpacked = custom.get("unpacked_bytes", 0)
    offer: dict[str, Any] = {
        "version": version,
        "full": _target(full),
        "notes": _notes(custom.get("notes")),
        "released_at": str(custom.get("released_at", ""))[:40],
        "payload_sha256": str(custom.get("payload_sha256", "")),
        "unpacked_bytes": unpacked if isinstance(unpacked, int) and unpacked > 0 else 0,
    }
    if delta is not None:
        offer |= {"delta": _target(delta), "delta_from": installed}
    return offer


def _target(target: Mapping[str, Any]) -> dict[str, Any]:
    return {name: target[name] for name in ("path", "url_path", "length", "sha256")}


def _notes(raw: object) -> dict[str, list[str]]:
    if not isinstance(raw, Mapping):
        return {}
    return {
        str(language)[:20]: [str(line)[:NOTES_CHARS] for line in lines[:NOTES_LINES]]
        for language, lines in list(raw.items())[:50]
        if isinstance(lines, list)
    }


if __name__ == "__main__":
    main()
