"""The real Claude Code CLI, started as ``plan`` says, against the scripted model.

With ``OSTLER_RECORD=1`` the outputs become the recordings that ``test_claude_reader`` replays.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.agents import events as ev
from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.family import LaunchRequest, Reader
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage
from tests.support.claude_cli import claude_env, require_claude
from tests.support.driving import Driven, drive, wait_for
from tests.support.model_server import CallTool, Fail, Hang, ModelServer, Say, Step, Think, user_texts

pytestmark = pytest.mark.claude

RECORDINGS = Path(__file__).with_name("recordings")


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


class Machine:
    """A home, a work directory and a run directory; ``run`` starts the CLI there."""

    def __init__(self, root: Path, model: ModelServer, name: str) -> None:
        self.root = root
        self.model = model
        self.name = name
        self.work_dir = root / "work"
        self.work_dir.mkdir()
        self.runs = 0

    def run(self, prompt: str, steps: list[Step], on_event: Any = None, **request: Any) -> Driven:
        self.runs += 1
        run_dir = self.root / f"run-{self.runs}"
        run_dir.mkdir(mode=0o700)
        url = self.model.scenario(self.name, steps)
        wanted = LaunchRequest(
            executable=str(require_claude()),
            prompt=prompt,
            work_dir=str(self.work_dir),
            run_dir=str(run_dir),
            **request,
        )
        environ = claude_env(self.root / "home", url)
        del environ["IS_SANDBOX"]  # the plan's business
        driven = drive(ClaudeFamily(), wanted, environ, on_event or (lambda *_: None))
        if os.environ.get("OSTLER_RECORD"):
            self._record(driven)
        return driven

    def requests(self) -> list[dict[str, Any]]:
        return self.model.requests(self.name)

    def _record(self, driven: Driven) -> None:
        """Keep the output, without the places and lists of this machine."""
        lines = []
        for line in driven.stdout.decode().splitlines():
            fields = json.loads(line)
            fields.pop("memory_paths", None)
            for key, value in fields.items():
                if fields.get("subtype") == "init" and isinstance(value, list):
                    fields[key] = value[:3]
            text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            text = text.replace(str(self.work_dir), "/srv/task").replace(str(self.root), "/srv")
            lines.append(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text) + "\n")
        number = f"-{self.runs}" if self.runs > 1 else ""
        (RECORDINGS / f"{self.name}{number}.jsonl").write_text("".join(lines))


@pytest.fixture
def machine(tmp_path: Path, model: ModelServer, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, model, request.node.name.removeprefix("test_").split("[")[0])


def test_a_text_is_the_result(machine: Machine) -> None:
    driven = machine.run("Say hello (with a \\ and a\r\nline)", [Say("Hello\nthere")])

    assert driven.outcome.success
    assert driven.outcome.output == "Hello\nthere"
    assert driven.exit_code == 0
    assert driven.of(ev.Text) == [ev.Text("Hello\nthere")]
    started = driven.of(ev.SessionStarted)
    assert len(started) == 1
    assert driven.outcome.session_id
    assert "Say hello (with a \\ and a\r\nline)" in user_texts(machine.requests()[0])


def test_a_tool_call_really_writes_a_file(machine: Machine) -> None:
    command = "echo written > note.txt; cat note.txt"
    driven = machine.run("write", [CallTool("Bash", {"command": command}, text="I write."), Say("Done it.")])

    assert (machine.work_dir / "note.txt").read_text() == "written\n"
    assert driven.outcome.success
    kinds = [type(event).__name__ for event in driven.events if not isinstance(event, ev.UsageSeen)]
    assert kinds == ["SessionStarted", "Text", "ToolUse", "ToolResult", "Text", "TurnEnded"]
    assert driven.of(ev.UsageSeen)
    call = driven.of(ev.ToolUse)[0]
    result = driven.of(ev.ToolResult)[0]
    assert isinstance(call, ev.ToolUse)
    assert isinstance(result, ev.ToolResult)
    assert call.input == {"command": command}
    assert (result.call_id, result.tool, result.output, result.is_error) == (
        call.call_id,
        "Bash",
        "written",
        False,
    )
    # Two requests, each 10 in, 12 out, 3 read from and 2 written to the cache.
    used = driven.outcome.usage
    assert [
        (one.input_tokens, one.output_tokens, one.cache_read_tokens, one.cache_write_tokens) for one in used
    ] == [(20, 24, 6, 4)]
    assert isinstance(used[0], Usage)
    assert used[0].provider == "claude"


def test_thinking_is_told_apart_from_text(machine: Machine) -> None:
    driven = machine.run("think", [Think("I ponder.", "Thought.")])

    assert driven.of(ev.Thinking) == [ev.Thinking("I ponder.")]
    assert driven.of(ev.Text) == [ev.Text("Thought.")]
    assert driven.outcome.output == "Thought."


def test_a_resumed_session_knows_what_was_said(machine: Machine) -> None:
    first = machine.run("Remember the word marmalade", [Say("I shall.")])
    second = machine.run("Which word?", [Say("marmalade")], resume_session_id=first.outcome.session_id)

    assert second.outcome.success
    assert second.outcome.session_id == first.outcome.session_id
    history = json.dumps(machine.requests()[-1]["messages"])
    assert "Remember the word marmalade" in history
    assert "I shall." in history


@pytest.mark.parametrize("session", ["00000000-0000-4000-8000-000000000000", "not-a-uuid", "--help"])
def test_an_unknown_session_is_a_refused_resume(machine: Machine, session: str) -> None:
    driven = machine.run("go on", [Say("never said")], resume_session_id=session)

    assert not driven.outcome.success
    assert driven.outcome.resume_refused
    assert driven.outcome.session_id == ""
    assert driven.exit_code == 1
    assert machine.requests() == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, failures.API_INVALID_REQUEST),
        (401, failures.AGENT_AUTH),
        (429, failures.AGENT_RATE_LIMIT),
        (500, failures.AGENT_SERVER),
        (529, failures.AGENT_RATE_LIMIT),
    ],
)
def test_a_refused_request_fails_with_its_reason(machine: Machine, status: int, reason: str) -> None:
    machine.name = f"refused_{status}"
    driven = machine.run("try", [Fail(status)])

    assert not driven.outcome.success
    assert driven.outcome.reason == reason
    assert "scripted failure" in driven.outcome.error or status == 529
    assert driven.exit_code == 1
    assert not driven.outcome.resume_refused
    assert driven.of(ev.ErrorText)
    assert not driven.of(ev.Text)
    assert bool(driven.of(ev.Notice)) == (status != 400)


def test_a_prompt_that_is_too_long_is_a_context_overflow(machine: Machine) -> None:
    driven = machine.run("long", [Fail(400, message="prompt is too long: 300000 tokens > 200000 maximum")])

    assert driven.outcome.reason == failures.AGENT_CONTEXT


def test_the_limit_of_turns_is_a_failure(machine: Machine) -> None:
    steps: list[Step] = [CallTool("Bash", {"command": "true"}), Say("never said")]
    driven = machine.run("loop", steps, extra_args=("--max-turns", "1"))

    assert not driven.outcome.success
    assert driven.outcome.reason == failures.ITERATION_LIMIT
    assert "maximum number of turns" in driven.outcome.error
    assert driven.outcome.usage


def _in_the_tool(machine: Machine, act: Any) -> Any:
    """Calls ``act`` once the tool of ``_long_tool`` runs."""

    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.ToolUse):
            assert reader.tools_in_flight == 1
            wait_for((machine.work_dir / "started").exists, "the tool")
            act(reader, process)

    return on_event


def _long_tool() -> list[Step]:
    return [CallTool("Bash", {"command": 'bash -c "touch started; sleep 60; echo b"'}), Say("never said")]


def test_an_interrupt_stops_the_tool_and_the_run(machine: Machine) -> None:
    on_event = _in_the_tool(machine, lambda reader, process: reader.interrupt())
    driven = machine.run("work", _long_tool(), on_event)

    assert not driven.outcome.success
    assert driven.outcome.reason == failures.CANCELLED
    assert driven.exit_code == 1
    assert driven.outcome.session_id
    assert not any("sleep 60" in left for left in driven.survivors)


def test_a_sigterm_in_a_tool_is_a_failure_without_a_result(machine: Machine) -> None:
    def end(reader: Reader, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGTERM)

    driven = machine.run("work", _long_tool(), _in_the_tool(machine, end))

    assert driven.exit_code == 143
    assert not driven.outcome.success
    assert driven.outcome.reason == failures.AGENT_PROCESS
    assert driven.outcome.session_id
    # The tool's shell has a session of its own: this is why the shim sweeps.
    assert any("sleep 60" in left for left in driven.survivors)


def test_a_hanging_model_is_left_by_an_interrupt(machine: Machine) -> None:
    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.SessionStarted):
            machine.model.wait_requests(machine.name, 1)
            reader.interrupt()

    driven = machine.run("wait", [Hang()], on_event)

    assert driven.outcome.reason == failures.CANCELLED


def test_a_dead_mcp_server_is_a_notice_and_the_run_goes_on(machine: Machine) -> None:
    dead = {"type": "stdio", "command": "/nonexistent/server", "args": [], "env": {"SECRET": "hidden"}}
    driven = machine.run("go", [Say("went")], mcp_servers={"dead": dead})

    assert driven.outcome.success
    assert ev.Notice("MCP server dead: failed", "mcp_server_failed") in driven.events


def test_an_empty_mcp_configuration_is_accepted(machine: Machine) -> None:
    assert machine.run("go", [Say("went")], mcp_servers={}).outcome.success


def test_model_instructions_and_thinking_level_arrive(machine: Machine) -> None:
    driven = machine.run(
        "go",
        [Say("went")],
        model="claude-sonnet-4-6",
        instructions="Answer in rhymes only.",
        thinking_level="low",
    )

    assert driven.outcome.success
    body = machine.requests()[0]
    assert body["model"] == "claude-sonnet-4-6"
    assert "Answer in rhymes only." in json.dumps(body["system"])
    assert body["output_config"]["effort"] == "low"
    assert "AskUserQuestion" not in [tool["name"] for tool in body["tools"]]


def test_a_denied_permission_reaches_the_model(machine: Machine) -> None:
    steps: list[Step] = [CallTool("Bash", {"command": "touch forbidden"}), Say("I may not.")]
    driven = machine.run("try", steps, permission_mode="deny")

    assert driven.outcome.success
    assert not (machine.work_dir / "forbidden").exists()
    result = driven.of(ev.ToolResult)[0]
    assert isinstance(result, ev.ToolResult)
    assert result.is_error
    assert "denies Bash" in result.output


def test_a_prompt_of_a_megabyte_arrives_whole(machine: Machine) -> None:
    prompt = "start " + "0123456789abcdef" * 65536 + " end"
    driven = machine.run(prompt, [Say("read it")])

    assert driven.outcome.success
    assert prompt in user_texts(machine.requests()[0])


def test_a_missing_key_is_told_as_not_signed_in(machine: Machine) -> None:
    url = machine.model.scenario(machine.name, [])
    environ = claude_env(machine.root / "home", url)
    del environ["ANTHROPIC_API_KEY"]
    run_dir = machine.root / "run"
    run_dir.mkdir()
    request = LaunchRequest(
        executable=str(require_claude()), prompt="x", work_dir=str(machine.work_dir), run_dir=str(run_dir)
    )
    driven = drive(ClaudeFamily(), request, environ)

    assert driven.outcome.reason == failures.AGENT_AUTH
