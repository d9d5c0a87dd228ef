from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon_core.agents.family import LaunchPlan, LaunchRequest
from daemon_core.tasks import launch, own_mcp

USERS_SETTINGS = [
    (".claude.json", '{"mcpServers": {"ostler": {"command": "mine"}}}'),
    (".codex/config.toml", '[mcp_servers."ostler"]\ncommand = "mine"\n'),
    (".codex/config.toml", "[mcp_servers.ostler.env]\nA = 'b'\n"),
    (".codex/config.toml", "mcp_servers.ostler.command = 'mine'\n"),
    (".config/opencode/opencode.jsonc", '{"mcp": {"ostler" : {}}}'),
]


def free_name(
    root: Path, environ: dict[str, str] | None = None, mcp_servers: dict[str, object] | None = None
) -> str:
    work_dir = root / "work"
    work_dir.mkdir(exist_ok=True)
    request = LaunchRequest(
        executable="/bin/true",
        prompt="x",
        work_dir=str(work_dir),
        run_dir=str(root),
        mcp_servers=mcp_servers,
    )
    return own_mcp._free_name(request, {"HOME": str(root), **(environ or {})})


@pytest.mark.parametrize(("path", "content"), USERS_SETTINGS)
def test_a_server_of_the_user_keeps_its_name(tmp_path: Path, path: str, content: str) -> None:
    assert free_name(tmp_path) == "ostler"
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    assert free_name(tmp_path) == "ostler-own"
    assert free_name(tmp_path, mcp_servers={}) == "ostler"  # the user's do not apply to such a task


def test_so_does_one_of_the_project_and_one_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".mcp.json").write_text('{"mcpServers": {"ostler": {}, "ostler-own": {}}}')
    assert free_name(tmp_path) == "ostler-own-2"
    assert free_name(tmp_path, mcp_servers={"ostler": {}}) == "ostler-own"


def test_a_home_of_codex_elsewhere_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.toml").write_text("[mcp_servers.ostler]\n")
    assert free_name(tmp_path, {"CODEX_HOME": str(tmp_path / "elsewhere")}) == "ostler-own"


def test_what_merely_speaks_of_it_takes_no_name(tmp_path: Path) -> None:
    (tmp_path / ".claude.json").write_text('{"history": ["ask ostler", "ostler"], "mcp_servers.ostlers": 1}')
    assert free_name(tmp_path) == "ostler"


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (None, {"mcp": {"ours": {"url": "u"}}}),
        ('{"model": "m"}', {"model": "m", "mcp": {"ours": {"url": "u"}}}),
        ('{"mcp": {"theirs": {}}}', {"mcp": {"theirs": {}, "ours": {"url": "u"}}}),
        ('{"mcp": 7}', {"mcp": {"ours": {"url": "u"}}}),
        ("no json", {"mcp": {"ours": {"url": "u"}}}),
        ("[1]", {"mcp": {"ours": {"url": "u"}}}),
    ],
)
def test_a_variable_that_holds_settings_keeps_them(there: str | None, found: dict[str, object]) -> None:
    plan = LaunchPlan(
        argv=("x",), env={"A": "1"}, drop_env=("B*",), json_env={"C": {"mcp": {"ours": {"url": "u"}}}}
    )
    env = {"B1": "2", "D": "3", **({"C": there} if there is not None else {})}
    made = launch.run_environment(env, plan)
    assert json.loads(made.pop("C")) == found
    assert made == {"A": "1", "D": "3"}
