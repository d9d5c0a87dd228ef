"""Discovery and lists of models with the real programs, in a home of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from daemon_core.runtimes.discovery import discover
from daemon_core.runtimes.models import ModelCatalog
from daemon_core.runtimes.providers import builtin
from tests.support import npm_clis

NODE = Path(shutil.which("node") or "/usr/bin/node").parent
SETTINGS = {
    "gemini": {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
    },
    "qwen": {"security": {"auth": {"selectedType": "openai"}}, "privacy": {"usageStatisticsEnabled": False}},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("claude", marks=pytest.mark.claude),
        pytest.param("codex", marks=pytest.mark.codex),
        pytest.param("opencode", marks=pytest.mark.streams),
        pytest.param("gemini", marks=pytest.mark.streams),
        pytest.param("qwen", marks=pytest.mark.streams),
    ],
)
async def test_the_real_program_is_found_and_tells_its_models(name: str, tmp_path: Path) -> None:
    npm_clis.link(name, tmp_path / "bin")
    home = tmp_path / "home"
    settings = home / f".{name}" / "settings.json"
    settings.parent.mkdir(parents=True)
    if name in SETTINGS:
        settings.write_text(json.dumps(SETTINGS[name]))
    environ = {
        "HOME": str(home), "PATH": f"{tmp_path / 'bin'}:{NODE}:/usr/bin:/bin",
        "GEMINI_API_KEY": "k", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_MODEL": "stub-model", "ANTHROPIC_API_KEY": "k", "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }  # fmt: skip
    provider = builtin().get(name)
    assert provider is not None
    (agent,) = await discover([provider], environ=environ, cache_path=None, common_places=(), limit_s=60)
    assert agent.usable, agent
    assert agent.version == npm_clis.version(name)
    assert agent.version in provider.verified
    assert agent.signed_in == ("unknown" if name == "opencode" else "yes")

    catalog = ModelCatalog(None)
    found = await catalog.list_models(provider, agent, environ, limit_s=60)
    assert found.error == ""
    assert found.models
    levels = {level for info in found.models for level in info.thinking_levels}
    assert ("high" in levels) == (name in ("claude", "codex", "opencode"))

    choice = await catalog.choose(provider, agent, environ, "", "no-such-level")
    assert choice.thinking_level == ""
    assert choice.warnings
