"""The real Claude Code CLI, pinned, for tests. See ``npm_clis``."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support import npm_clis


def require_claude() -> Path:
    """The CLI's executable; skips the test (or fails it) if it cannot be had."""
    return npm_clis.require("claude")


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
    return npm_clis.link("claude", bin_dir)
