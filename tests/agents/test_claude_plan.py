"""How Claude Code is started: arguments, files, environment, standard input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon_core.agents.claude import ClaudeFamily, allowed_args
from daemon_core.agents.families import families
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest


def plan(**changes: Any) -> LaunchPlan:
    request = LaunchRequest(
        **{"executable": "/bin/claude", "prompt": "do it", "work_dir": "/work", "run_dir": "/run"} | changes
    )
    return ClaudeFamily().plan(request)


def test_the_arguments_of_a_plain_run() -> None:
    assert plan().argv == (
        "/bin/claude",
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--permission-mode",
        "bypassPermissions",
        "--disallowedTools",
        "AskUserQuestion",
    )


def test_everything_long_or_secret_is_in_files() -> None:
    made = plan(
        prompt="SECRET prompt",
        instructions="SECRET instructions",
        mcp_servers={"n": {"type": "http", "url": "http://x", "headers": {"Authorization": "SECRET"}}},
    )

    assert "SECRET" not in " ".join(made.argv)
    assert "SECRET" not in json.dumps(made.env)
    assert json.loads(made.files["spec.mcp.json"])["mcpServers"]["n"]["headers"] == {
        "Authorization": "SECRET"
    }
    assert made.files["spec.instructions.md"] == b"SECRET instructions"
    assert made.argv[made.argv.index("--mcp-config") + 1] == "/run/spec.mcp.json"
    assert "--strict-mcp-config" in made.argv
    assert made.argv[made.argv.index("--append-system-prompt-file") + 1] == "/run/spec.instructions.md"


def test_without_mcp_servers_the_agents_own_configuration_applies() -> None:
    assert "--strict-mcp-config" not in plan().argv
    assert "--strict-mcp-config" in plan(mcp_servers={}).argv


def test_the_prompt_is_one_line_of_standard_input() -> None:
    stdin = plan(prompt="two\nlines and \ud83d half a pair").stdin
    assert stdin is not None
    assert stdin.count(b"\n") == 1
    content = json.loads(stdin)["message"]["content"]
    assert content == [{"type": "text", "text": "two\nlines and ? half a pair"}]


@pytest.mark.parametrize(
    ("extra", "kept", "dropped"),
    [
        (["--max-turns", "3"], ["--max-turns", "3"], []),
        (["-p", "--verbose"], ["--verbose"], ["-p"]),
        (["--output-format", "text", "--debug"], ["--debug"], ["--output-format", "text"]),
        (["--permission-mode=plan", "x"], ["x"], ["--permission-mode=plan"]),
        (["--mcp-config", "a", "b", "--debug"], ["--debug"], ["--mcp-config", "a", "b"]),
        (["--resume", "--debug"], ["--debug"], ["--resume"]),
        (["--resume", "id", "--debug"], ["--debug"], ["--resume", "id"]),
        (["--effort"], [], ["--effort"]),
        (["--debug", "--", "-p", "text"], ["--debug"], ["--", "-p", "text"]),
    ],
)
def test_arguments_of_ostlers_own_are_dropped_and_told(
    extra: list[str], kept: list[str], dropped: list[str]
) -> None:
    assert allowed_args(extra) == (tuple(kept), tuple(dropped))
    made = plan(extra_args=tuple(extra))
    assert made.dropped_args == tuple(dropped)
    assert made.argv[1 : 1 + len(kept)] == tuple(kept)


def test_values_that_look_like_options_stay_values() -> None:
    argv = plan(model="--help", resume_session_id="-x", thinking_level="high").argv

    assert "--model=--help" in argv
    assert "--resume=-x" in argv
    assert argv[argv.index("--effort") + 1] == "high"


def test_a_run_inside_a_claude_session_does_not_know_of_it() -> None:
    assert {"CLAUDECODE*", "CLAUDE_CODE_SSE_PORT"} <= set(plan().drop_env)


def test_permission_modes() -> None:
    denied = plan(permission_mode="deny").argv
    assert denied[denied.index("--permission-mode") + 1] == "default"
    assert denied[denied.index("--permission-prompt-tool") + 1] == "stdio"
    asked = plan(permission_mode="ask").argv
    assert asked[asked.index("--permission-prompt-tool") + 1] == "stdio"
    assert "AskUserQuestion" in denied  # switched off where nobody is there to answer
    assert "AskUserQuestion" not in asked
    with pytest.raises(LaunchError):
        plan(permission_mode="maybe")


def test_families_are_known_by_their_own_names() -> None:
    assert all(family.name == name for name, family in families().items())
