"""Builds payload and launcher from the source: ``packaging/bundle``.

What was built is kept in ``.cache/bundle/<key>``, the key being a hash of everything that goes in, so that
tests, installers and benchmarks share one build. Two builds of one source give the same files: hashes are not
salted, times are the commit's, and modes are set here.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from building import elf, licences, manifest, modules, places

BUILT: Final = "built"
"""Marks a finished build."""
KEPT: Final = 3
_PACKED: Final = ("daemon_core", "desktop", "resources", "packaging/building", "packaging/licences")
_NOT_PACKED: Final = ("installers", "stamping.py", "__pycache__")


def key() -> str:
    """A short hash of all that a build is made from."""
    digest = hashlib.sha256()
    files = [places.SOURCE / "requirements" / "run.txt", places.SOURCE / "LICENSE"]
    for name in _PACKED:
        files += [path for path in (places.SOURCE / name).rglob("*") if path.is_file()]
    for path in sorted(files):
        if path.suffix != ".pyc" and not set(path.parts) & set(_NOT_PACKED):
            digest.update(f"{path.relative_to(places.SOURCE)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(f"{sys.version}\0{os.path.realpath(sys.executable)}\0{_bundler_version()}".encode())
    return digest.hexdigest()[:16]


def build(*, fresh: bool = False, release: bool = False) -> Path:
    """The directory with ``payload`` and ``launcher`` of the present source, built now unless it is there.

    Args:
        fresh: Build it in any case.
        release: Not one of another commit, whose files are the same but for what they say about that.
    """
    out = places.CACHE / key()
    with _one_at_a_time(places.CACHE):
        if fresh or (release and (out / BUILT).exists() and not _is_of_this_commit(out)):
            shutil.rmtree(out, ignore_errors=True)
        if not (out / BUILT).exists():
            _build(out)
            _forget_old(out)
        os.utime(out)
        _point(out)
    return out


def _is_of_this_commit(out: Path) -> bool:
    said = manifest.read_payload(out / "payload")
    return all(said.get(name) == value for name, value in _facts().items())


def _build(out: Path) -> None:
    work = out.with_name(f".work-{out.name}")
    for directory in (*out.parent.glob(".work-*"), out):  # also what builds that were broken off have left
        shutil.rmtree(directory, ignore_errors=True)
    _run_bundler(work)
    payload, launcher = work / "dist" / "payload", work / "dist" / "launcher"
    if sys.platform == "linux":
        for directory in (payload, launcher):
            for library in directory.rglob("*.so*"):
                if library.is_file():
                    elf.make_relative(library, directory / "_internal")
            modules.forget_builder(directory / "_internal")
    licences.gather(payload)
    manifest.write_payload(payload, _facts())
    for directory in (payload, launcher):
        _normalise(directory)
    manifest.write_manifest(payload)
    _stamp_times(payload)
    _stamp_times(launcher)
    out.mkdir(parents=True)
    payload.rename(out / "payload")
    launcher.rename(out / "launcher")
    (out / BUILT).write_text(f"{out.name}\n")
    shutil.rmtree(work)


def _run_bundler(work: Path) -> None:
    environ = {
        **os.environ,
        "OSTLER_PACKAGING": str(places.PACKAGING),
        "OSTLER_SOURCE": str(places.SOURCE),
        "OSTLER_ICON": str(work / "ostler.ico"),
        "PYTHONHASHSEED": "0",
        "PYINSTALLER_CONFIG_DIR": str(places.CACHE / "bundler"),
        "SOURCE_DATE_EPOCH": str(places.source_time()),
        "LC_ALL": "C.UTF-8",
    }
    for name in [name for name in environ if name.startswith("COVERAGE_")]:
        del environ[name]
    work.mkdir(parents=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN",
            "--distpath", str(work / "dist"), "--workpath", str(work / "work"),
            str(places.PACKAGING / "building" / "ostler.spec"),
        ],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the bundler failed:\n{done.stdout[-4000:]}{done.stderr[-8000:]}")


def _facts() -> dict[str, Any]:
    """What ``payload.json`` says."""
    from daemon_core.control.views import API_VERSIONS
    from daemon_core.journal.schema import MIGRATIONS

    return {
        "version": source_version(),
        "platform": places.platform_name(),
        "commit": places.commit(),
        "journal": len(MIGRATIONS),
        "api": list(API_VERSIONS),
        "built_at": datetime.fromtimestamp(places.source_time(), UTC).isoformat().replace("+00:00", "Z"),
    }


def source_version() -> str:
    """The version that the source says it is."""
    text = (places.SOURCE / "daemon_core" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise ValueError("daemon_core/__init__.py has no version")
    return found[1]


def _normalise(directory: Path) -> None:
    """Modes that do not depend on the builder's umask."""
    for path in [directory, *directory.rglob("*")]:
        if path.is_symlink():
            continue
        runs = path.is_dir() or (os.access(path, os.X_OK) and ".so" not in path.name)
        path.chmod(0o755 if runs else 0o644)


def _stamp_times(directory: Path) -> None:
    at = places.source_time()
    for path in [*directory.rglob("*"), directory]:
        os.utime(path, (at, at), follow_symlinks=False)


def _bundler_version() -> str:
    from importlib import metadata

    return f"{metadata.version('pyinstaller')} {metadata.version('pyinstaller-hooks-contrib')}"


def _forget_old(kept: Path) -> None:
    builds = [path for path in places.CACHE.iterdir() if (path / BUILT).exists() and not path.is_symlink()]
    for path in sorted(builds, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        if path != kept:
            shutil.rmtree(path, ignore_errors=True)


def _point(out: Path) -> None:
    """``.cache/bundle/current`` leads to the build that was asked for last."""
    link = places.CACHE / ".current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(out.name)
    link.replace(places.CACHE / "current")


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Test workers ask for the same build at the same time: the first builds, the others wait for it."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="packaging/bundle", description="Build payload and launcher; print where they are."
    )
    parser.add_argument("--fresh", action="store_true", help="build even if this source was built before")
    options = parser.parse_args(arguments)
    print(build(fresh=options.fresh))  # noqa: T201


if __name__ == "__main__":
    main()
