"""The real Codex CLI, pinned, for tests. See ``npm_clis``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support import npm_clis

KEY = "sk-test"


def require_codex() -> Path:
    """The CLI's executable; skips the test (or fails it) if it cannot be had."""
    return npm_clis.require("codex")


def link_codex(bin_dir: Path) -> Path:
    """Put the CLI into ``bin_dir`` as ``codex``, for tests that look it up in PATH."""
    return npm_clis.link("codex", bin_dir)


def codex_settings(base_url: str, *, retries: int = 0, more: str = "") -> str:
    """A ``config.toml``: the scripted model, few retries, nothing that looks outside. ``more`` goes to its
    end.
    """
    return f"""model = "stub-model"
model_provider = "stub"
model_reasoning_summary = "detailed"
analytics.enabled = false
features.plugins = false
check_for_update_on_startup = false
[model_providers.stub]
name = "stub"
base_url = {json.dumps(base_url + "/v1")}
wire_api = "responses"
env_key = "STUB_KEY"
request_max_retries = {retries}
stream_max_retries = {retries}
{more}
"""


def codex_env(home: Path, base_url: str, *, retries: int = 0, more: str = "") -> dict[str, str]:
    """A whole environment for the CLI, and its settings in ``home``."""
    folder = home / ".codex"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(codex_settings(base_url, retries=retries, more=more))
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "STUB_KEY": KEY,
    }
