from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from daemon_core.protocol.wire import Skill
from daemon_core.workdirs.provider_homes import (
    McpServers,
    codex_config,
    codex_home,
    user_codex_home,
    write_home,
)

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


def test_a_skill_of_the_user_that_is_not_wanted_is_not_there(tmp_path: Path) -> None:
    home = users(tmp_path)
    write_home(codex_home(tmp_path / "env", home))
    mine = tmp_path / "env" / "codex-home" / "skills" / "mine"
    assert mine.is_symlink()
    write_home(codex_home(tmp_path / "env", home, unwanted=["mine", "of another machine"]))
    assert not mine.is_symlink()
    assert (home / "skills" / "mine").is_dir()


def test_a_home_is_brought_up_to_date(tmp_path: Path) -> None:
    home = users(tmp_path)
    write_home(codex_home(tmp_path / "env", home, [Skill(id="1", name="Deploy", content="ours")]))
    root = tmp_path / "env" / "codex-home"
    (root / "history.jsonl").write_text("codex wrote it")
    # Unpacked by the program, which takes as long as all that we do before its start.
    (root / "skills" / ".system" / "review").mkdir(parents=True)
    (root / "skills" / "gone").mkdir()
    (root / "skills" / ".gone").symlink_to(tmp_path / "nowhere")
    (home / "config.toml").write_text('model = "other"')
    write_home(codex_home(tmp_path / "env", home))
    kept = {path.name for path in (root / "skills").iterdir()}
    assert kept == {".system", "deploy", "mine"}
    assert (root / "skills" / ".system" / "review").is_dir()
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
    off = dict.fromkeys(("multi_agent", "memories", "shell_snapshot"), False)
    assert found["features"] == {**off, "other": True}
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


def test_settings_are_a_file_of_the_run_and_linked(tmp_path: Path) -> None:
    home = users(tmp_path)
    root = tmp_path / "env" / "codex-home"
    for number in (1, 2):
        run_dir = tmp_path / f"run{number}"
        run_dir.mkdir()
        write_home(codex_home(tmp_path / "env", home, run_dir=run_dir))
        settings = run_dir / "spec.codex.toml"
        assert settings.stat().st_mode & 0o777 == 0o600
        assert (root / "config.toml").resolve() == settings
        settings.unlink()  # as at the end of a run
    # Also where the program has put a file of its own in place of the link.
    (root / "config.toml").unlink()
    (root / "config.toml").write_text("an earlier run's")
    write_home(codex_home(tmp_path / "env", home, run_dir=run_dir))
    assert "an earlier run's" not in (root / "config.toml").read_text()


def test_what_the_user_says_to_every_agent_is_there(tmp_path: Path) -> None:
    home = users(tmp_path)
    (home / "AGENTS.md").write_text("please")
    (home / "rules").mkdir()
    write_home(codex_home(tmp_path / "env", home))
    root = tmp_path / "env" / "codex-home"
    assert (root / "AGENTS.md").read_text() == "please"
    assert (root / "rules").resolve() == home / "rules"


def test_mcp_servers_of_a_task_are_beside_or_in_place_of_the_users() -> None:
    added: dict[str, object] = {
        "ostler": {"type": "http", "url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": "x"}}
    }

    def given(servers: McpServers) -> dict[str, object]:
        made = tomllib.loads(codex_config(CONFIG.encode(), "linux", servers=servers).decode())
        found: dict[str, object] = made["mcp_servers"]
        return found

    ours = {"url": "http://127.0.0.1:1/mcp", "http_headers": {"Authorization": "x"}}
    assert given(McpServers(added=added)) == {"lab": {"command": "lab"}, "ostler": ours}
    managed: dict[str, object] = {
        "my server": {"command": "run", "args": ["-x", 1], "env": {"KEY": 'a "quoted" one\n'}},
        "old": {"type": "sse", "url": "http://x"},
        "none": 3,
    }
    assert given(McpServers(managed=managed, added=added)) == {
        "my_server": {"command": "run", "args": ["-x", "1"], "env": {"KEY": 'a "quoted" one\n'}},
        "ostler": ours,
    }
    assert "mcp_servers" not in tomllib.loads(
        codex_config(CONFIG.encode(), "linux", servers=McpServers(managed={})).decode()
    )


def test_a_sandbox_may_write_to_the_mirrors_too() -> None:
    content = b"[sandbox_workspace_write]\nwritable_roots = ['/mine']\n"
    made = tomllib.loads(codex_config(content, "linux", writable=[Path("/o/repos")]).decode())
    assert made["sandbox_workspace_write"] == {
        "network_access": True,
        "writable_roots": ["/mine", "/o/repos"],
    }
