"""The real agent CLIs, pinned, for tests.

Each has a manifest and a lock file of its own in ``tests/clis/<name>/`` and is installed from npm once into
``.cache/agents/<name>-<version>``, by whichever worker comes first, and used from there. Install scripts stay
off; what they would link or unpack is run directly.

A CLI that cannot be had skips its tests, which say so; with ``OSTLER_REQUIRE_AGENTS=1`` (CI) it fails them.
``python -m tests.support.npm_clis`` installs all that are missing, side by side, before the tests: a download
that takes long is then no test's time. One that has failed is not tried again by each test.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

_NPM_OPTIONS = (
    *("--no-audit", "--no-fund", "--no-progress", "--ignore-scripts", "--prefer-offline"),
    *("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"),
)
_ROOT = Path(__file__).resolve().parent.parent.parent
_MANIFESTS = _ROOT / "tests" / "clis"
_CACHE = _ROOT / ".cache" / "agents"
INSTALL_LIMIT_S = 300.0
FAILURE_COUNTS_S = 600.0
"""How long nobody tries again what could not be installed."""

REQUIRE_VARIABLE = "OSTLER_REQUIRE_AGENTS"
"""Set to 1 (CI does): a CLI that cannot be installed fails its tests instead of skipping them."""


class InstallError(Exception):
    """The CLI cannot be had here."""


def require(name: str) -> Path:
    """The executable of a CLI of ``tests/clis``; skips the test (or fails it) if it cannot be had."""
    try:
        return install(name)
    except InstallError as error:
        _cannot(f"the pinned {name} CLI cannot be installed: {error}")


def link(name: str, bin_dir: Path, program: str = "") -> Path:
    """Put a CLI into ``bin_dir`` under its program's name, for tests that look it up in PATH."""
    bin_dir.mkdir(parents=True, exist_ok=True)
    path = bin_dir / (program or name)
    path.symlink_to(require(name))
    return path


def version(name: str) -> str:
    """The version that a CLI's manifest names."""
    found = json.loads((_MANIFESTS / name / "package.json").read_text())
    (pinned,) = found["dependencies"].values()
    return str(pinned)


def _target(name: str) -> Path:
    return _CACHE / f"{name}-{version(name)}"


@functools.cache
def install(name: str) -> Path:
    """The CLI's executable, installed if need be. Raises ``InstallError``."""
    target = _target(name)
    find = _EXECUTABLES[name]
    _CACHE.mkdir(parents=True, exist_ok=True)
    if (found := find(target / "node_modules")) is not None:
        return found
    with open(_CACHE / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find(target / "node_modules") is None:
            failed = _CACHE / f".{name}.failed"
            _recall(failed)
            try:
                _install(_MANIFESTS / name, target)
            except InstallError as error:
                failed.write_text(str(error))
                raise
    if (found := find(target / "node_modules")) is None:
        raise InstallError(f"npm installed no executable of {name} in {target}")
    return found


def _recall(failed: Path) -> None:
    """Raises what somebody else has met a moment ago: the next one would wait as long for the same."""
    with contextlib.suppress(FileNotFoundError):
        if time.time() - failed.stat().st_mtime < FAILURE_COUNTS_S:
            raise InstallError(failed.read_text())


def _install(manifest: Path, target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is not installed")
    work = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(manifest / name, work / name)
        done = subprocess.run(
            # Not "ci": it wants the packages of all platforms in the lock, and a mirror may not have them.
            [npm, "install", *_NPM_OPTIONS, "--prefix", str(work)],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise InstallError(done.stdout.decode("utf-8", "replace").strip()[:400])
        # What an earlier, broken installation left gives way.
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(str(error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _cannot(text: str) -> NoReturn:
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(text)
    pytest.skip(text)


# --- where a package has its program ---------------------------------------------------------------------


def _platform() -> str:
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    arch = machine.get(platform.machine().lower(), platform.machine())
    return f"{'darwin' if sys.platform == 'darwin' else 'linux'}-{arch}"


def _musl() -> str:
    return "-musl" if sys.platform == "linux" and platform.libc_ver()[0] != "glibc" else ""


def _native(pattern: str) -> Callable[[Path], Path | None]:
    """A native program that a package for this platform holds."""

    def find(modules: Path) -> Path | None:
        for path in sorted(modules.glob(pattern.format(platform=_platform(), musl=_musl()))):
            if os.access(path, os.X_OK):
                return path
        return None

    return find


def _script(program: str) -> Callable[[Path], Path | None]:
    """A program in JavaScript, which its package's link leads to."""

    def find(modules: Path) -> Path | None:
        path = modules / ".bin" / program
        return path if path.exists() else None

    return find


_EXECUTABLES: dict[str, Callable[[Path], Path | None]] = {
    "claude": _native("@anthropic-ai/claude-code-{platform}{musl}/claude"),
    # Its binaries for Linux are static.
    "codex": _native("@openai/codex-{platform}/vendor/*/bin/codex"),
    "opencode": _native("opencode-{platform}{musl}/bin/opencode"),
    "gemini": _script("gemini"),
    "qwen": _script("qwen"),
    "qwen-0.15": _script("qwen"),
}


def main() -> int:
    """Install what is missing, and say so; 1 if something cannot be had."""
    missing = [name for name in _EXECUTABLES if _EXECUTABLES[name](_target(name) / "node_modules") is None]
    if not missing:
        return 0
    print(f"installing the agents that are tested for real: {', '.join(missing)}", file=sys.stderr)  # noqa: T201
    began = time.monotonic()
    for name in missing:
        (_CACHE / f".{name}.failed").unlink(missing_ok=True)

    def one(name: str) -> str:
        try:
            install(name)
        except InstallError as error:
            return f"{name} cannot be installed, its tests cannot run: {error}"
        return ""

    with ThreadPoolExecutor(max_workers=3) as pool:
        failures = [said for said in pool.map(one, missing) if said]
    for said in failures:
        print(said, file=sys.stderr)  # noqa: T201
    count = len(missing) - len(failures)
    print(f"{count} agents installed in {time.monotonic() - began:.0f} s", file=sys.stderr)  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
