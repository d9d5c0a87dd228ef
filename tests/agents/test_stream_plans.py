"""How opencode, gemini and qwen are started; that the real ones take it is shown in ``test_stream_clis``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon_core.agents.families import families
from daemon_core.agents.family import LaunchPlan, LaunchRequest
from daemon_core.agents.launching import allowed_args
from daemon_core.runtimes.providers import builtin

SESSION = "11111111-1111-4111-8111-111111111111"
SERVERS: dict[str, object] = {
    "web": {"type": "http", "url": "http://h/mcp", "headers": {"Authorization": "sesame"}},
    "old": {"type": "sse", "url": "http://h/sse"},
    "lab": {"command": "python3", "args": ["server.py"], "env": {"KEY": "sesame"}},
}
OURS: dict[str, object] = {"ostler": {"type": "http", "url": "http://h/ours"}}


def plan(provider: str, **changes: Any) -> LaunchPlan:
    entry = builtin().get(provider)
    assert entry is not None
    given: dict[str, Any] = {
        "provider": provider,
        "drive": entry.drive,
        "executable": "/bin/agent",
        "prompt": 'Make "it"\nnow',
        "work_dir": "/srv/task",
        "run_dir": "/srv/run",
    }
    return families()[entry.family].plan(LaunchRequest(**(given | changes)))


def test_opencode() -> None:
    found = plan(
        "opencode",
        model="anthropic/sonnet",
        thinking_level="high",
        resume_session_id="ses_1",
        extra_args=("--agent", "build", "--dir", "/", "--session=x", "--print-logs"),
    )
    assert found.argv == (
        *(
            "/bin/agent",
            "run",
            "--agent",
            "build",
            "--print-logs",
            "--format",
            "json",
            "--auto",
            "--thinking",
        ),
        *("--dir", "/srv/task", "-m", "anthropic/sonnet", "--variant", "high", "-s", "ses_1"),
    )
    assert found.stdin == b'Make "it"\nnow'
    assert found.dropped_args == ("--dir", "/", "--session=x")
    assert found.env == {"OPENCODE_DISABLE_AUTOUPDATE": "1", "PWD": "/srv/task"}
    assert not found.files


def test_opencode_gets_mcp_servers_and_refusals_by_its_environment() -> None:
    found = plan("opencode", mcp_servers=SERVERS, added_mcp_servers=OURS, permission_mode="deny")
    assert found.json_env["OPENCODE_CONFIG_CONTENT"] == {
        "mcp": {
            "web": {
                "type": "remote",
                "url": "http://h/mcp",
                "headers": {"Authorization": "sesame"},
                "enabled": True,
            },
            "old": {"type": "remote", "url": "http://h/sse", "headers": {}, "enabled": True},
            "lab": {
                "type": "local",
                "command": ["python3", "server.py"],
                "environment": {"KEY": "sesame"},
                "enabled": True,
            },
            "ostler": {"type": "remote", "url": "http://h/ours", "headers": {}, "enabled": True},
        }
    }
    assert json.loads(found.env["OPENCODE_PERMISSION"])["*"] == "deny"
    assert "--auto" not in found.argv


def test_gemini() -> None:
    found = plan(
        "gemini", model="gemini-2.5-pro", resume_session_id=SESSION, extra_args=("-p", "x", "--yolo", "-d")
    )
    assert found.argv == (
        *("/bin/agent", "-d", "-o", "stream-json", "--yolo", "-m", "gemini-2.5-pro", "-r", SESSION),
    )
    assert found.stdin == b'Make "it"\nnow'
    assert found.dropped_args == ("-p", "x", "--yolo")
    assert found.env == {"GEMINI_CLI_NO_RELAUNCH": "true", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    denied = plan("gemini", permission_mode="deny", mcp_servers=SERVERS, thinking_level="high")
    assert denied.argv == ("/bin/agent", "-o", "stream-json", "--approval-mode", "default")
    assert len(denied.warnings) == 2


def test_qwen() -> None:
    found = plan(
        "qwen", model="m", resume_session_id=SESSION, extra_args=("--core-tools", "a", "b", "--debug", "-c")
    )
    assert found.argv == (
        *("/bin/agent", "--debug", "-o", "stream-json", "--yolo", "--model", "m", "--resume", SESSION),
    )
    assert found.stdin == b'Make "it"\nnow'
    assert found.dropped_args == ("--core-tools", "a", "b", "-c")
    assert found.env == {"QWEN_CODE_NO_RELAUNCH": "true"}


@pytest.mark.parametrize(("mode", "trust"), [("allow", {"trust": True}), ("deny", {})])
def test_qwen_gets_mcp_servers_by_a_file_that_is_removed_with_the_run(
    mode: str, trust: dict[str, bool]
) -> None:
    found = plan("qwen", mcp_servers=SERVERS, added_mcp_servers=OURS, permission_mode=mode)
    assert found.argv[-2:] == ("--mcp-config", "/srv/run/spec.mcp.json")
    assert json.loads(found.files["spec.mcp.json"]) == {
        "mcpServers": {
            "web": {"httpUrl": "http://h/mcp", "headers": {"Authorization": "sesame"}, **trust},
            "old": {"url": "http://h/sse", "headers": {}, **trust},
            "lab": {"command": "python3", "args": ["server.py"], "env": {"KEY": "sesame"}, **trust},
            "ostler": {"httpUrl": "http://h/ours", "headers": {}, **trust},
        }
    }


@pytest.mark.parametrize("provider", ["opencode", "gemini", "qwen"])
def test_instructions_lead_the_prompt_and_odd_values_are_no_options(provider: str) -> None:
    found = plan(provider, instructions="Be brief.", model="--yolo", resume_session_id="-x")
    assert found.stdin == b'Be brief.\n\nMake "it"\nnow'
    assert any(arg.endswith("=--yolo") for arg in found.argv)
    assert any(arg.endswith("=-x") for arg in found.argv)


def test_blocked_arguments_are_dropped_with_their_values() -> None:
    tables = ({"--one": "1", "--many": "*"}, {"--maybe": "?", "--none": "0", "--one": "0"})
    given = (
        "--one",
        "-v",
        "a",
        "--many",
        "b",
        "c",
        "-x",
        "--maybe",
        "--none",
        "d",
        "--maybe",
        "e",
        "--",
        "f",
    )
    assert allowed_args(given, *tables) == (
        ("a", "-x", "d"),
        ("--one", "-v", "--many", "b", "c", "--maybe", "--none", "--maybe", "e", "--", "f"),
    )
