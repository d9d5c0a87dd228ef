"""Agents that nobody here could run: how they are started, and documented streams through a stand-in."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_core.agents import cursor_mcp
from daemon_core.agents import events as ev
from daemon_core.agents.families import families
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest
from daemon_core.agents.launching import ARGUMENT_LIMIT_BYTES
from daemon_core.protocol import failures
from daemon_core.runtimes.providers import builtin
from tests.support.documented_streams import ANSWER, DOCUMENTED, SESSION, Documented, lines
from tests.support.driving import Driven, drive

PROMPT = 'Make "it" & a\nline'
SECRET = "sesame"
SERVERS: dict[str, object] = {
    "web": {"type": "http", "url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": SECRET}},
    "old": {"type": "sse", "url": "http://127.0.0.1:1/sse"},
    "lab": {"command": "python3", "args": ["server.py"], "env": {"KEY": SECRET}},
    "none": {"what": "is this"},
}

STAND_IN = f"""#!{sys.executable}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
said = sys.stdin.readline() if os.environ.get("STAND_IN_LINE") else sys.stdin.read()
with open(os.path.join(here, "seen.json"), "w") as seen:
    json.dump({{"argv": sys.argv[1:], "stdin": said, "env": dict(os.environ)}}, seen)
for name in os.listdir(os.path.join(here, "left")):
    with open(os.path.join(here, "left", name)) as left, open(os.path.join(here, "run", name), "w") as made:
        made.write(left.read())
with open(os.path.join(here, "stdout"), "rb") as output:
    sys.stdout.buffer.write(output.read())
sys.stdout.flush()
sys.stderr.write(os.environ.get("STAND_IN_STDERR", ""))
sys.exit(int(os.environ.get("STAND_IN_CODE", "0")))
"""


def request(provider: str, root: str = "/srv", **changes: Any) -> LaunchRequest:
    entry = builtin().get(provider)
    assert entry is not None
    given: dict[str, Any] = {
        "provider": provider,
        "drive": entry.drive,
        "executable": f"{root}/agent",
        "prompt": PROMPT,
        "work_dir": f"{root}/work",
        "run_dir": f"{root}/run",
    }
    return LaunchRequest(**(given | changes))


def plan(provider: str, **changes: Any) -> LaunchPlan:
    entry = builtin().get(provider)
    assert entry is not None
    return families()[entry.family].plan(request(provider, **changes))


class StandIn:
    """A program that prints what it is told to and tells what it was given."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("work", "run", "left"):
            (root / name).mkdir()
        self.program = root / "agent"
        self.program.write_text(STAND_IN)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def run(self, provider: str, stdout: bytes, code: int = 0, stderr: str = "", **changes: Any) -> Driven:
        (self.root / "stdout").write_bytes(stdout)
        environ = {"PATH": os.defpath, "STAND_IN_CODE": str(code), "STAND_IN_STDERR": stderr}
        if provider == "dsh":
            environ["STAND_IN_LINE"] = "1"
        entry = builtin().get(provider)
        assert entry is not None
        return drive(families()[entry.family], request(provider, str(self.root), **changes), environ)

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "seen.json").read_text())
        return found


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


@pytest.mark.parametrize("run", DOCUMENTED.values(), ids=str)
def test_a_documented_run_becomes_events_and_a_success(run: Documented, stand_in: StandIn) -> None:
    for name, text in run.files.items():
        (stand_in.root / "left" / name).write_text(text)
    driven = stand_in.run(run.provider, run.stdout)
    assert driven.outcome.success, driven.outcome
    assert (driven.outcome.output, driven.outcome.session_id) == (ANSWER, run.session_id)
    assert driven.outcome.usage == run.usage
    shown = [
        event
        for event in driven.events
        if isinstance(event, ev.Text | ev.Thinking | ev.ToolUse | ev.ToolResult)
    ]
    if not run.has_tool:
        assert "".join(event.text for event in shown if isinstance(event, ev.Text)).strip() == ANSWER
    else:
        assert shown == [
            ev.Thinking("I ponder."),
            ev.ToolUse("c1", run.tool, {"command": "echo hi > note.txt"}),
            ev.ToolResult("c1", run.tool, "made"),
            ev.Text(ANSWER),
        ]
    assert not driven.of(ev.Unreadable)
    assert driven.survivors == []


@pytest.mark.parametrize("provider", DOCUMENTED)
def test_a_run_that_is_cut_or_exits_with_an_error_is_no_success(provider: str, stand_in: StandIn) -> None:
    run = DOCUMENTED[provider]
    assert not stand_in.run(provider, run.stdout, code=3).outcome.success
    (stand_in.root / "seen.json").unlink()
    cut = stand_in.run(provider, run.stdout[: len(run.stdout) // 2] if provider != "antigravity" else b"")
    assert not cut.outcome.success
    assert cut.outcome.reason == failures.AGENT_EMPTY, cut.outcome


FAILED = {
    "cursor": lines({"type": "result", "subtype": "error", "is_error": True, "result": "429 rate limit"}),
    "copilot": lines(
        {
            "type": "session.error",
            "data": {"errorType": "rate_limit", "message": "rate limit", "statusCode": 429},
        },
        {"type": "result", "sessionId": SESSION, "exitCode": 1},
    ),
    "pi": lines(
        {
            "type": "turn_end",
            "message": {"stopReason": "error", "errorMessage": "429 rate limit", "usage": {}},
        },
        {"type": "agent_end"},
    ),
    "omp": lines({"type": "auto_retry_end", "success": False, "finalError": "429 rate limit"}),
    "openclaw": lines({"payloads": [{"text": "429 rate limit", "isError": True}], "meta": {"durationMs": 3}}),
    "dsh": lines(
        {"v": 1, "type": "result", "status": "failed", "error": {"code": "429", "message": "rate limit"}}
    ),
    "antigravity": b"",
    "deveco": lines(
        {"type": "error", "error": {"name": "APIError", "data": {"message": "rate limit", "statusCode": 429}}}
    ),
}


@pytest.mark.parametrize("provider", DOCUMENTED)
def test_a_limit_is_told_apart_with_its_time(provider: str, stand_in: StandIn) -> None:
    stderr = "429 rate limit" if provider == "antigravity" else ""
    outcome = stand_in.run(provider, FAILED[provider], code=1, stderr=stderr).outcome
    assert not outcome.success
    assert outcome.reason == failures.AGENT_RATE_LIMIT, outcome
    assert outcome.limit is not None
    assert outcome.limit.kind == "rate"


@pytest.mark.parametrize("provider", DOCUMENTED)
def test_a_session_that_is_gone_is_a_refused_resume(provider: str, stand_in: StandIn) -> None:
    said = (
        lines({"v": 1, "type": "result", "status": "failed", "resume_rejected": True})
        if provider == "dsh"
        else b""
    )
    stderr = f"Error: Session not found: {SESSION}"
    # The second in words that nobody here knows.
    for words in (stderr, f"Oops: {SESSION} does not ring a bell"):
        driven = stand_in.run(provider, said, code=1, stderr=words, resume_session_id=SESSION)
        assert driven.outcome.resume_refused, driven.outcome
        assert driven.outcome.session_id == ""
    for words in ("Error: 401 unauthorized", "Error: connection refused"):
        driven = stand_in.run(provider, b"", code=1, stderr=words, resume_session_id=SESSION)
        assert not driven.outcome.resume_refused, driven.outcome
    fresh = stand_in.run(provider, b"" if provider == "dsh" else said, code=1, stderr=stderr)
    assert not fresh.outcome.resume_refused


# --- how they are started --------------------------------------------------------------------------------


def test_cursor_gets_its_prompt_by_standard_input() -> None:
    found = plan("cursor", model="gpt-5", resume_session_id=SESSION, extra_args=("--yolo", "--x", "-p"))
    assert found.argv == (
        *("/srv/agent", "--x", "-p", "--output-format", "stream-json", "--yolo", "--workspace", "/srv/work"),
        *("--model", "gpt-5", "--resume", SESSION),
    )
    assert found.stdin == PROMPT.encode()
    assert found.dropped_args == ("--yolo", "-p")
    assert "--yolo" not in plan("cursor", permission_mode="deny").argv


def test_cursor_is_told_of_mcp_servers_by_a_file_that_has_no_secrets() -> None:
    servers: dict[str, object] = {
        "lab": {
            "command": "python3",
            "args": ["server.py", "--key=k1"],
            "env": {"KEY": "k2", "AT": "${env:AT}"},
        },
        "web": {"type": "http", "url": "https://x/mcp?key=k3", "headers": {"Authorization": "Bearer k4"}},
        "none": 1,
    }
    content = cursor_mcp.settings(servers, {"ostler": {"url": "u"}})
    told = json.loads(content)["mcpServers"]
    assert told["lab"]["env"]["AT"] == "${env:AT}"
    assert told["ostler"] == {"url": "u"}
    assert "none" not in told
    assert not any(f"k{number}".encode() in content for number in range(1, 5))

    found = plan("cursor", mcp_servers=servers, settings_files=(cursor_mcp.FILE,))
    assert "--approve-mcps" in found.argv
    whole = re.sub(
        r"\$\{env:(OSTLER_MCP_\d+)\}", lambda match: found.env[match[1]], content.decode(), flags=re.ASCII
    )
    assert json.loads(whole)["mcpServers"] == {
        "lab": servers["lab"],
        "web": {"url": "https://x/mcp?key=k3", "headers": {"Authorization": "Bearer k4"}},
        "ostler": {"url": "u"},
    }
    assert found.warnings == ()
    denied = plan("cursor", permission_mode="deny", mcp_servers=servers, settings_files=(cursor_mcp.FILE,))
    assert "--approve-mcps" not in denied.argv

    # Where the project has a file of its own, nothing is given and nothing of it approved.
    without = plan("cursor", mcp_servers=servers)
    assert "--approve-mcps" not in without.argv
    assert not any(name.startswith("OSTLER_MCP_") for name in without.env)
    assert "lab" in without.warnings[0]
    assert cursor_mcp.settings({}, {}) == b""


def test_copilot_gets_its_prompt_as_an_argument() -> None:
    found = plan("copilot", model="gpt-5", resume_session_id=SESSION, extra_args=("--allow-tool", "a", "b"))
    assert found.argv == (
        *("/srv/agent", "-p", PROMPT, "--output-format", "json", "--allow-all", "--no-ask-user"),
        *("--model", "gpt-5", "--resume", SESSION),
    )
    assert found.stdin is None
    assert found.dropped_args == ("--allow-tool", "a", "b")
    assert "--allow-all" not in plan("copilot", permission_mode="deny").argv


@pytest.mark.parametrize("provider", ["pi", "omp"])
def test_pi_goes_on_in_a_session_by_its_id(provider: str) -> None:
    found = plan(provider, model="anthropic/sonnet", thinking_level="high", resume_session_id=SESSION)
    assert found.argv == (
        *("/srv/agent", "-p", "--mode", "json", "--session", SESSION),
        *("--model", "anthropic/sonnet", "--thinking", "high"),
    )
    assert found.stdin == PROMPT.encode()


def test_openclaw_gets_a_session_of_ours() -> None:
    found = plan("openclaw", model="writer", instructions="Be brief.")
    assert found.argv[:5] == ("/srv/agent", "agent", "--local", "--json", "--session-id")
    assert found.argv[5] == plan("openclaw").argv[5] != plan("openclaw", run_dir="/srv/other").argv[5]
    assert found.argv[6:] == ("--agent", "writer", f"--message=Be brief.\n\n{PROMPT}")
    assert plan("openclaw", resume_session_id=SESSION).argv[5] == SESSION


def test_deveco_is_started_as_opencode_with_its_prompt_as_an_argument() -> None:
    found = plan("deveco", model="m", thinking_level="high", resume_session_id=SESSION)
    assert found.argv == (
        *("/srv/agent", "run", "--format", "json", "--dangerously-skip-permissions", "--thinking"),
        *("--dir", "/srv/work", "--model", "m", "--variant", "high", "-s", SESSION, "--", PROMPT),
    )
    assert found.stdin is None
    assert found.env["PWD"] == "/srv/work"


def test_antigravity_writes_its_log_into_the_run_directory() -> None:
    found = plan(
        "antigravity", model="m", resume_session_id=SESSION, extra_args=("--settings", "x", "-i", "y")
    )
    assert found.argv == (
        *("/srv/agent", "-p", PROMPT, "--dangerously-skip-permissions", "--print-timeout", "24h"),
        *(
            "--log-file",
            "/srv/run/agent.log",
            "--add-dir",
            "/srv/work",
            "--model",
            "m",
            "--conversation",
            SESSION,
        ),
    )
    assert found.stdin is None
    assert found.dropped_args == ("--settings", "x", "-i", "y")


def test_dsh_gets_one_frame_and_takes_a_cancel() -> None:
    found = plan(
        "dsh",
        model="open%2Frouter/m%20x",
        thinking_level="high",
        resume_session_id=SESSION,
        mcp_servers=SERVERS,
    )
    assert found.argv == ("/srv/agent", "--profile", "multica", "--stdio")
    assert found.stdin is not None
    frame = json.loads(found.stdin)
    assert frame == {
        "v": 1,
        "type": "execute",
        "request_id": "ostler-run",
        "cwd": "/srv/work",
        "prompt": PROMPT,
        "resume_session_id": SESSION,
        "model": {"provider": "open/router", "id": "m x"},
        "reasoning_effort": "high",
        "mcp_servers": [
            {
                "name": "web",
                "transport": "streamable-http",
                "url": "http://127.0.0.1:1/mcp",
                "headers": {"Authorization": SECRET},
            },
            {
                "name": "lab",
                "transport": "stdio",
                "command": "python3",
                "args": ["server.py"],
                "env": {"KEY": SECRET},
            },
        ],
    }
    assert len(found.warnings) == 2
    assert found.files["spec.mcp.json"] in found.stdin  # so it is taken out of what is kept of it
    reader = families()["dsh"].reader(request("dsh"))
    cancel, close = reader.interrupt()
    assert cancel.data is not None
    assert json.loads(cancel.data) == {"v": 1, "type": "cancel", "request_id": "ostler-run"}
    assert close.data is None
    assert list(reader.interrupt()) == [cancel, close]


@pytest.mark.parametrize("provider", [*DOCUMENTED, "opencode", "gemini", "qwen", "codebuddy"])
def test_no_secret_is_an_argument_and_what_cannot_be_is_said(provider: str) -> None:
    found = plan(provider, mcp_servers=SERVERS)
    assert not any(SECRET in arg for arg in found.argv)
    told = [*found.files, *found.env.values(), *([found.stdin.decode()] if found.stdin else ())]
    told += [json.dumps(value) for value in found.json_env.values()]
    takes = any(SECRET in each for each in told) or any(
        SECRET.encode() in data for data in found.files.values()
    )
    assert takes or any("web" in warning and "lab" in warning for warning in found.warnings)
    assert all(name.startswith("spec.") for name, data in found.files.items() if SECRET.encode() in data)


@pytest.mark.parametrize("provider", [*DOCUMENTED, "opencode", "gemini", "qwen"])
def test_what_a_program_cannot_do_is_refused_or_said(provider: str) -> None:
    with pytest.raises(LaunchError, match="policy 'ask'"):
        plan(provider, permission_mode="ask")
    entry = builtin().get(provider)
    assert entry is not None
    if not entry.drive.thinking and provider != "dsh":
        assert any(
            "thinking level 'high'" in warning for warning in plan(provider, thinking_level="high").warnings
        )
    if plan(provider).stdin is None:
        with pytest.raises(LaunchError, match="too long"):
            plan(provider, prompt="x" * (ARGUMENT_LIMIT_BYTES + 1))
        with pytest.raises(LaunchError, match="NUL"):
            plan(provider, prompt="a\0b")
    else:
        assert plan(provider, prompt="x" * (ARGUMENT_LIMIT_BYTES + 1)).stdin is not None
    half = plan(provider, prompt="half \ud83d of it")
    assert "half ? of it" in (half.stdin or b"").decode() or any("half ? of it" in arg for arg in half.argv)


def test_codebuddy_is_started_as_claude_with_its_own_options() -> None:
    found = plan(
        "codebuddy", instructions="Be brief.", added_mcp_servers=SERVERS, model="m", thinking_level="high"
    )
    words = " ".join(found.argv)
    assert "--output-format stream-json" in words
    assert "--append-system-prompt Be brief." in words
    assert "--disallowedTools AskUserQuestion EnterPlanMode ExitPlanMode" in words
    assert "--model m --effort high" in words
    assert "--strict-mcp-config" not in found.argv
    assert SECRET in found.files["spec.mcp.json"].decode()
    assert "--strict-mcp-config" in plan("codebuddy", mcp_servers=SERVERS).argv
    reader = families()["claude-stream-json"].reader(request("codebuddy"))
    reader.feed((Path(__file__).with_name("recordings") / "a_text_is_the_result.jsonl").read_bytes())
    outcome = reader.outcome(0, None, "")
    assert outcome.success
    assert {usage.provider for usage in outcome.usage} == {"codebuddy"}
