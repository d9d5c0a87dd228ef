from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from daemon_core.protocol.wire import Skill
from daemon_core.workdirs.provider_homes import codex_config, codex_home, user_codex_home, write_home

CONFIG = """model = "m"  # mine

[features]
multi_agent = true
other = true

[skills]
keep = 1

[[skills.config]]
path = "/home/me/x"
enabled = false

[mcp_servers.lab]
command = "lab"
"""


def users(tmp_path: Path) -> Path:
    home = tmp_path / "user" / ".codex"
    (home / "sessions").mkdir(parents=True)
    (home / "plugins" / "cache").mkdir(parents=True)
    (home / "skills" / "mine").mkdir(parents=True)
    (home / "skills" / "deploy").mkdir(parents=True)
    (home / "auth.json").write_text("token")
    (home / "config.toml").write_text(CONFIG)
    (home / "instructions.md").write_text("be brief")
    return home


def test_sign_in_and_sessions_are_the_users_and_settings_are_a_copy(tmp_path: Path) -> None:
    home = users(tmp_path)
    plan = codex_home(tmp_path / "env", home, [Skill(id="1", name="Deploy", content="ours")])
    write_home(plan)
    root = tmp_path / "env" / "codex-home"
    assert plan.env == {"CODEX_HOME": str(root)}
    assert (root / "auth.json").is_symlink()
    (root / "auth.json").write_text("renewed")
    assert (home / "auth.json").read_text() == "renewed"
    assert (root / "sessions").resolve() == home / "sessions"
    assert (root / "plugins" / "cache").resolve() == home / "plugins" / "cache"
    assert (root / "instructions.md").read_text() == "be brief"
    assert not (root / "config.toml").is_symlink()
    assert (root / "skills" / "mine").resolve() == home / "skills" / "mine"
    assert (root / "skills" / "deploy" / "SKILL.md").read_text().endswith("ours")
    assert (home / "config.toml").read_text() == CONFIG
    assert not list((home / "skills" / "deploy").iterdir())


def test_a_home_is_brought_up_to_date(tmp_path: Path) -> None:
    home = users(tmp_path)
    write_home(codex_home(tmp_path / "env", home, [Skill(id="1", name="Deploy", content="ours")]))
    root = tmp_path / "env" / "codex-home"
    (root / "history.jsonl").write_text("codex wrote it")
    (home / "config.toml").write_text('model = "other"')
    write_home(codex_home(tmp_path / "env", home))
    assert tomllib.loads((root / "config.toml").read_text())["model"] == "other"
    assert (root / "skills" / "deploy").resolve() == home / "skills" / "deploy"
    assert (root / "history.jsonl").exists()


def test_a_sign_in_that_was_written_in_place_of_the_link_stays(tmp_path: Path) -> None:
    home = users(tmp_path)
    write_home(codex_home(tmp_path / "env", home))
    auth = tmp_path / "env" / "codex-home" / "auth.json"
    auth.unlink()
    auth.write_text("newer")
    write_home(codex_home(tmp_path / "env", home))
    assert auth.read_text() == "newer"


def test_the_copy_of_the_settings(tmp_path: Path) -> None:
    made = codex_config(CONFIG.encode(), "linux")
    found = tomllib.loads(made.decode())
    assert found["skills"] == {"keep": 1}
    assert found["sandbox_mode"] == "workspace-write"
    assert found["sandbox_workspace_write"] == {"network_access": True}
    assert found["features"] == {"multi_agent": False, "memories": False, "other": True}
    assert found["mcp_servers"]["lab"]["command"] == "lab"
    assert b"# mine" in made
    mac = tomllib.loads(codex_config(CONFIG.encode(), "darwin").decode())
    assert mac["sandbox_mode"] == "danger-full-access"
    assert tomllib.loads(codex_config(b"", "linux").decode())["features"]["memories"] is False


@pytest.mark.parametrize("content", [b"= broken", b"\xff", b"[a]\n[a]\n"])
def test_settings_that_are_not_valid_stay_as_they_are(content: bytes) -> None:
    assert codex_config(content, "linux") == content


def test_a_user_without_codex_gets_an_empty_home(tmp_path: Path) -> None:
    plan = codex_home(tmp_path / "env", tmp_path / "none")
    write_home(plan)
    assert plan.links == {}
    assert [path.name for path in (tmp_path / "env" / "codex-home").iterdir()] == ["config.toml"]


def test_where_the_users_home_is() -> None:
    assert user_codex_home({"CODEX_HOME": "/x"}) == Path("/x")
    assert user_codex_home({"HOME": "/h"}) == Path("/h/.codex")
