"""The real Claude Code CLI, pinned, for tests.

It is installed from npm once into ``.cache/agents/`` of the project, by whichever worker comes first, and
used from there. Its native binary is run directly, since install scripts (which would link it) may be
switched off.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent.parent
_CACHE = _HERE.parent / ".cache" / "agents"
_PACKAGE = "@anthropic-ai/claude-code"
INSTALL_LIMIT_S = 300.0

REQUIRE_VARIABLE = "OSTLER_REQUIRE_AGENTS"
"""Set to 1 (CI does): a CLI that cannot be installed fails its tests instead of skipping them."""


class InstallError(Exception):
    """The CLI cannot be had here."""


def pinned_version() -> str:
    """The version that ``tests/package.json`` names."""
    found = json.loads((_HERE / "package.json").read_text())
    return str(found["dependencies"][_PACKAGE])


@functools.cache
def claude_binary() -> Path:
    """The CLI's executable, installed if need be. Raises ``InstallError``."""
    target = _CACHE / f"claude-code-{pinned_version()}"
    binary = target / _binary_path()
    if binary.exists():
        return binary
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _install(target)
    if not binary.exists():
        raise InstallError(f"npm installed no {binary}")
    return binary


def require_claude() -> Path:
    """The CLI's executable; skips the test (or fails it, see ``REQUIRE_VARIABLE``) if it cannot be had."""
    try:
        return claude_binary()
    except InstallError as error:
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(f"the pinned Claude Code CLI cannot be installed: {error}")
        pytest.skip(f"the pinned Claude Code CLI cannot be installed: {error}")


def claude_env(home: Path, base_url: str, *, retries: int = 1) -> dict[str, str]:
    """A whole environment for the CLI: a home of its own, the scripted model, few retries, nothing else
    outside.
    """
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": "sk-test",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": str(retries),
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
    }


def link_claude(bin_dir: Path) -> Path:
    """Put the CLI into ``bin_dir`` as ``claude``, for tests that look it up in PATH."""
    bin_dir.mkdir(parents=True, exist_ok=True)
    link = bin_dir / "claude"
    link.symlink_to(require_claude())
    return link


def _binary_path() -> Path:
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    arch = machine.get(platform.machine().lower(), platform.machine())
    name = f"claude-code-{'darwin' if sys.platform == 'darwin' else 'linux'}-{arch}"
    if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":
        name += "-musl"
    return Path("node_modules", "@anthropic-ai", name, "claude")


def _install(target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is not installed")
    work = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / name, work / name)
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(work)],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise InstallError(done.stdout.decode("utf-8", "replace").strip()[-600:])
        # What an earlier, broken installation left gives way.
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(str(error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
