"""The real opencode, gemini and qwen in their own formats, started as ``plan`` says, against scripted models.

With ``OSTLER_RECORD=1`` the outputs become the recordings that ``test_stream_readers`` replays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_core.agents import events as ev
from tests.support import npm_clis
from tests.support.acp_clis import AGENTS, AcpCli
from tests.support.mcp_server import McpServer
from tests.support.model_server import CallTool, ModelServer, Say, Step, Think
from tests.support.stream_clis import NAMES, REASONS, Machine, refusal

pytestmark = [pytest.mark.streams, pytest.mark.timeout(240)]


@pytest.fixture(scope="module", params=NAMES)
def cli(request: pytest.FixtureRequest) -> AcpCli:
    npm_clis.require(request.param)
    found: AcpCli = AGENTS[request.param]
    return found


@pytest.fixture(scope="module")
def model(cli: AcpCli) -> Iterator[ModelServer]:
    with cli.server() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, cli: AcpCli, model: ModelServer, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, cli, model, request.node.name.removeprefix("test_").split("[")[0])


def kinds(events: list[ev.Event]) -> list[str]:
    passing = (ev.Notice, ev.UsageSeen)
    return [type(event).__name__ for event in events if not isinstance(event, passing)]


def test_a_tool_writes_a_file_and_a_later_run_goes_on_in_the_session(machine: Machine) -> None:
    cli = machine.cli
    prompt = 'Make "it" (with a \\ and a\nline)'
    steps: list[Step] = [
        cli.shell("echo written > note.txt; cat note.txt", "I do it."),
        Think("I ponder.", "It is made."),
    ]
    first = machine.run(prompt, steps)
    assert first.outcome.success, first.outcome
    assert first.outcome.output == "It is made."
    assert first.survivors == []
    assert (machine.work_dir / "note.txt").read_text() == "written\n"
    assert {path.name for path in machine.work_dir.iterdir()} == {"note.txt"}
    assert prompt in cli.said(machine.requests()[0])
    thought = [] if cli.name == "gemini" else ["Thinking"]  # it tells no thoughts in this format
    expected = ["SessionStarted", "Text", "ToolUse", "ToolResult", *thought, "Text", "TurnEnded"]
    assert kinds(first.events) == expected
    call, result = first.of(ev.ToolUse)[0], first.of(ev.ToolResult)[0]
    assert isinstance(call, ev.ToolUse)
    assert isinstance(result, ev.ToolResult)
    assert (call.tool, call.input["command"]) == (cli.shell_tool, "echo written > note.txt; cat note.txt")
    assert (result.call_id, result.tool, result.output.strip()) == (call.call_id, call.tool, "written")
    (usage,) = first.outcome.usage
    output = 34 if cli.name == "gemini" else 24
    assert (usage.provider, usage.input_tokens, usage.cache_read_tokens) == (cli.name, 120, 80)
    assert usage.output_tokens == output  # with what was thought
    seen = first.of(ev.UsageSeen)[-1]
    assert isinstance(seen, ev.UsageSeen)
    assert seen.usage == first.outcome.usage

    second = machine.run(
        "And now?", [Say("Still there.", pieces=4)], resume_session_id=first.outcome.session_id
    )
    assert second.outcome.success, second.outcome
    assert second.outcome.output == "Still there."
    assert second.of(ev.Text) == [ev.Text("Still there.")]
    assert second.outcome.session_id == first.outcome.session_id
    history = json.dumps(machine.requests()[-1])
    assert "It is made." in history
    # What the session has used before is not counted twice.
    (usage,) = second.outcome.usage
    assert (usage.input_tokens, usage.cache_read_tokens) == (60, 40)


def test_an_unknown_session_is_a_refused_resume(machine: Machine) -> None:
    driven = machine.run("Go on", [Say("never")], resume_session_id=machine.cli.unknown_session)
    assert not driven.outcome.success
    assert driven.outcome.resume_refused, driven.outcome
    assert driven.outcome.session_id == ""
    assert machine.requests() == []


@pytest.mark.parametrize("status", sorted(REASONS))
def test_a_refused_request_fails_with_its_reason(machine: Machine, status: int) -> None:
    machine.name += f"_{status}"
    driven = machine.run("Try", [refusal(machine.cli.name, status)])
    assert not driven.outcome.success
    assert driven.outcome.reason == REASONS[status], driven.outcome
    assert "scripted failure" in driven.outcome.error
    assert driven.of(ev.ErrorText)
    assert not driven.of(ev.Text)
    assert driven.outcome.session_id
    assert not driven.outcome.resume_refused
    if status == 429:
        assert driven.outcome.limit is not None
        assert driven.outcome.limit.kind == "rate"
        # Only opencode tells the header in which the server said when.
        assert bool(driven.outcome.limit.resets_at) == (machine.cli.name == "opencode")


def test_what_would_need_permission_is_not_possible_under_deny(machine: Machine) -> None:
    driven = machine.run("Do it", [machine.cli.shell("touch made"), Say("no")], permission_mode="deny")
    assert machine.cli.shell_tool not in machine.offered()
    assert not (machine.work_dir / "made").exists()
    assert driven.outcome.success


def test_mcp_servers_get_their_secrets_by_file_or_environment(machine: Machine) -> None:
    cli = machine.cli
    with McpServer() as server:
        given = {"lab": {"type": "http", "url": server.url, "headers": {"Authorization": "Bearer sesame"}}}
        tool = cli.mcp_tool("lab", "echo")
        steps: list[Step] = [CallTool(tool, {"text": "heron"}), Say("done")]
        if cli.name == "gemini":
            # Its settings files of the system must belong to root, and the others are the user's and the
            # project's: there is no way to give it one, and the plan says so.
            assert machine.run("Call it", steps, mcp_servers=given).outcome.success
            assert server.authorizations == []
            return
        driven = machine.run("Call it", steps, added_mcp_servers=given)
        assert driven.outcome.success, driven.outcome
        assert set(server.authorizations) == {"Bearer sesame"}
        if cli.name == "opencode":
            assert server.calls == [{"text": "heron"}]
        else:
            # It hides such tools behind a search; the scripted model calls only what is offered.
            assert "tool_search" in machine.offered()
