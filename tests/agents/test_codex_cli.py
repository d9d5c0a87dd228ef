"""The real Codex, started as ``plan`` says, against the scripted model.

With ``OSTLER_RECORD=1`` the outputs become the recordings that ``test_codex_reader`` replays.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.agents import events as ev
from daemon_core.agents.codex import CodexFamily
from daemon_core.agents.events import Limit
from daemon_core.agents.family import LaunchRequest, Reader
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage
from daemon_core.workdirs.provider_homes import McpServers, codex_home, write_home
from tests.support.codex_cli import codex_env, require_codex
from tests.support.driving import Driven, drive, wait_for
from tests.support.mcp_server import McpServer
from tests.support.model_responses import ResponsesServer, developer_texts, tool_results, user_texts
from tests.support.model_server import Break, CallTool, Fail, Hang, Say, Step, Think

pytestmark = pytest.mark.codex

RECORDINGS = Path(__file__).with_name("recordings") / "codex"
OnEvent = Callable[[ev.Event, Reader, "subprocess.Popen[bytes]"], None]


@pytest.fixture
def model() -> Iterator[ResponsesServer]:
    with ResponsesServer() as server:
        yield server


class Machine:
    """A home, a work directory and run directories; ``run`` starts the CLI there."""

    def __init__(self, root: Path, model: ResponsesServer, name: str) -> None:
        self.root = root
        self.model = model
        self.name = name
        self.work_dir = root / "work"
        self.work_dir.mkdir()
        self.retries = 0
        self.env: dict[str, str] = {}
        self.runs = 0

    def run(self, prompt: str, steps: list[Step], on_event: OnEvent | None = None, **request: Any) -> Driven:
        self.runs += 1
        run_dir = self.root / f"run-{self.runs}"
        run_dir.mkdir(mode=0o700)
        url = self.model.scenario(self.name, steps)
        wanted = LaunchRequest(
            executable=str(require_codex()),
            prompt=prompt,
            work_dir=str(self.work_dir),
            run_dir=str(run_dir),
            **request,
        )
        environ = codex_env(self.root / "home", url, retries=self.retries) | self.env
        # As a task has it: a home of its own for each run.
        (self.root / "home" / ".codex" / "sessions").mkdir(exist_ok=True)
        home = codex_home(
            run_dir,
            self.root / "home" / ".codex",
            run_dir=run_dir,
            servers=McpServers(managed=wanted.mcp_servers, added=wanted.added_mcp_servers),
        )
        write_home(home)
        driven = drive(CodexFamily(), wanted, environ | home.env, on_event or (lambda *_: None))
        if os.environ.get("OSTLER_RECORD"):
            self._record(driven)
        return driven

    def requests(self) -> list[dict[str, Any]]:
        return self.model.requests(self.name)

    def _record(self, driven: Driven) -> None:
        """Keep the output, without the places of this machine."""
        text = driven.stdout.decode().replace(str(self.work_dir), "/srv/task").replace(str(self.root), "/srv")
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text)
        text = re.sub(r'"installationId":"[^"]*"', '"installationId":"i"', text)
        text = re.sub(r'"serverName":"[^"]*"', '"serverName":"s"', text)
        text = re.sub(r"0123456789abcdef(0123456789abcdef)+", "0123456789abcdef", text)
        RECORDINGS.mkdir(exist_ok=True)
        number = f"-{self.runs}" if self.runs > 1 else ""
        (RECORDINGS / f"{self.name}{number}.jsonl").write_text(text)


@pytest.fixture
def machine(tmp_path: Path, model: ResponsesServer, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, model, request.node.name.removeprefix("test_").split("[")[0])


def kinds(driven: Driven) -> list[str]:
    """The kinds of events but notices, which depend on the machine."""
    return [type(event).__name__ for event in driven.events if not isinstance(event, ev.Notice)]


def counts(driven: Driven) -> list[tuple[int, int, int, int]]:
    return [
        (one.input_tokens, one.output_tokens, one.cache_read_tokens, one.cache_write_tokens)
        for one in driven.outcome.usage
    ]


def test_a_text_is_the_result(machine: Machine) -> None:
    driven = machine.run('Say "hello" (with a \\ and a\r\nline)', [Say("Hello\nthere", pieces=4)])

    assert driven.outcome.success
    assert driven.outcome.output == "Hello\nthere"
    assert driven.exit_code == 0
    assert driven.of(ev.Text) == [ev.Text("Hello\nthere")]
    assert kinds(driven) == ["SessionStarted", "Text", "UsageSeen", "TurnEnded"]
    assert driven.outcome.session_id
    assert 'Say "hello" (with a \\ and a\r\nline)' in user_texts(machine.requests()[0])


def test_a_tool_call_really_writes_a_file(machine: Machine) -> None:
    command = "echo written > note.txt; cat note.txt"
    # With limits told: the program then repeats its usage.
    machine.model.limits = {
        "x-codex-primary-used-percent": "50",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "1900000000",
    }
    steps: list[Step] = [CallTool("exec_command", {"cmd": command}, text="I write."), Say("Done it.")]
    driven = machine.run("write", steps)

    assert (machine.work_dir / "note.txt").read_text() == "written\n"
    assert driven.outcome.success
    assert driven.outcome.output == "Done it."
    assert kinds(driven) == [
        *["SessionStarted", "Text", "ToolUse", "ToolResult", "UsageSeen"],
        *["Text", "UsageSeen", "TurnEnded"],
    ]
    call, result = driven.of(ev.ToolUse)[0], driven.of(ev.ToolResult)[0]
    assert isinstance(call, ev.ToolUse)
    assert call.tool == "exec_command"
    assert call.input == {"command": command, "cwd": str(machine.work_dir)}
    assert result == ev.ToolResult(call.call_id, "exec_command", "written\n", False)
    # Two requests, each 100 in, of which 40 were cached, and 12 out.
    assert counts(driven) == [(120, 24, 80, 0)]
    assert driven.outcome.usage[0].provider == "codex"
    assert driven.outcome.usage[0].model == "stub-model"
    assert driven.survivors == []


def test_a_command_that_fails_says_its_exit_status(machine: Machine) -> None:
    driven = machine.run(
        "fail", [CallTool("exec_command", {"cmd": "echo no >&2; exit 3"}), Say("It failed.")]
    )

    (result,) = driven.of(ev.ToolResult)
    assert isinstance(result, ev.ToolResult)
    assert result.is_error
    assert result.output == "no\nexit status 3"
    assert driven.outcome.success


def test_a_change_of_files_is_told(machine: Machine) -> None:
    patch = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch\n"
    steps: list[Step] = [CallTool("apply_patch", {"input": patch}), Say("Patched.")]
    driven = machine.run("patch", steps, model="gpt-5.5")

    assert (machine.work_dir / "new.txt").read_text() == "hello\n"
    (call,), (result,) = driven.of(ev.ToolUse), driven.of(ev.ToolResult)
    assert isinstance(call, ev.ToolUse)
    assert isinstance(result, ev.ToolResult)
    path = str(machine.work_dir / "new.txt")
    assert call.tool == result.tool == "apply_patch"
    assert call.input == {"changes": [{"path": path, "kind": "add", "diff": "hello\n"}]}
    assert (result.output, result.is_error) == (f"add {path}", False)


def test_thinking_is_told_apart_from_text(machine: Machine) -> None:
    driven = machine.run("think", [Think("I ponder.", "Thought.")])

    assert driven.of(ev.Thinking) == [ev.Thinking("I ponder.")]
    assert driven.of(ev.Text) == [ev.Text("Thought.")]
    assert driven.outcome.output == "Thought."


def test_a_long_text_is_told_while_it_is_written_and_only_once(machine: Machine) -> None:
    text = "".join(f"line {number} of a long answer\n" for number in range(300))
    driven = machine.run("write much", [Say(text, pieces=50)])

    told = [event.text for event in driven.events if isinstance(event, ev.Text)]
    assert len(told) > 3
    assert "".join(told) == text
    assert all(piece.endswith("\n") for piece in told)
    assert driven.outcome.output == text


def test_a_plan_is_told(machine: Machine) -> None:
    plan = [{"step": "look", "status": "completed"}, {"step": "do", "status": "in_progress"}]
    driven = machine.run(
        "plan",
        [CallTool("update_plan", {"plan": plan}), Say("Planned.")],
        extra_args=("-c", "tools.update_plan.enabled=true"),
    )

    entries = (ev.PlanEntry("look", "completed"), ev.PlanEntry("do", "in_progress"))
    assert driven.of(ev.PlanChanged) == [ev.PlanChanged(entries)]


def test_a_resumed_session_knows_what_was_said_and_counts_its_own_usage(machine: Machine) -> None:
    first = machine.run("Remember the word marmalade", [Say("I shall.")])
    second = machine.run("Which word?", [Say("marmalade")], resume_session_id=first.outcome.session_id)

    assert second.outcome.success
    assert second.outcome.session_id == first.outcome.session_id
    history = json.dumps(machine.requests()[-1]["input"])
    assert "Remember the word marmalade" in history
    assert "I shall." in history
    assert second.of(ev.Text) == [ev.Text("marmalade")]
    assert counts(first) == counts(second) == [(60, 12, 40, 0)]


@pytest.mark.parametrize("session", ["01a1fe0c-8c22-7961-93c7-4a9a099203e4", "not-an-id", "--help"])
def test_an_unknown_session_is_a_refused_resume(machine: Machine, session: str) -> None:
    driven = machine.run("go on", [Say("never said")], resume_session_id=session)

    assert not driven.outcome.success
    assert driven.outcome.resume_refused
    assert driven.outcome.session_id == ""
    assert machine.requests() == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, failures.API_INVALID_REQUEST),
        (401, failures.AGENT_AUTH),
        (403, failures.AGENT_AUTH),
        (429, failures.AGENT_RATE_LIMIT),
        (500, failures.AGENT_SERVER),
    ],
)
def test_a_refused_request_fails_with_its_reason(machine: Machine, status: int, reason: str) -> None:
    machine.name = f"refused_{status}"
    driven = machine.run("try", [Fail(status)])

    assert not driven.outcome.success
    assert driven.outcome.reason == reason
    assert driven.outcome.error
    # The program itself ends well: only the turn's status tells.
    assert driven.exit_code == 0
    assert not driven.outcome.resume_refused
    assert len(driven.of(ev.ErrorText)) == 1
    assert not driven.of(ev.Text)
    assert driven.outcome.limit == (Limit(kind="rate") if status == 429 else None)


def test_a_model_that_is_not_there(machine: Machine) -> None:
    driven = machine.run("try", [Fail(404, kind="model_not_found", message="The model `x` does not exist")])

    assert driven.outcome.reason == failures.AGENT_MODEL


def test_a_context_that_is_full(machine: Machine) -> None:
    driven = machine.run("long", [Fail(400, message="Your input exceeds the context length of this model")])

    assert driven.outcome.reason == failures.AGENT_CONTEXT


def test_a_used_up_plan_is_a_limit_with_its_reset(machine: Machine) -> None:
    at = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=3)
    seconds = int(at.timestamp())
    machine.model.limits = {
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": str(seconds),
    }
    machine.model.error_fields = {"plan_type": "pro", "resets_at": seconds}
    driven = machine.run("try", [Fail(429, kind="usage_limit_reached")])

    assert driven.outcome.reason == failures.AGENT_QUOTA
    assert driven.outcome.limit == Limit("usage", at.isoformat().replace("+00:00", "Z"))


def test_a_retry_is_a_notice_and_the_turn_goes_on(machine: Machine) -> None:
    machine.retries = 2
    driven = machine.run("try", [Break("cut o", times=1), Say("whole")])

    assert driven.outcome.success
    assert driven.outcome.output == "whole"
    assert any(isinstance(event, ev.Notice) and event.code == "api_retry" for event in driven.events)
    assert not driven.of(ev.ErrorText)


# --- ends ------------------------------------------------------------------------------------------


def _in_the_tool(machine: Machine, act: Callable[[Reader, Any], object]) -> OnEvent:
    """Calls ``act`` once the tool of ``_long_tool`` runs."""

    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.ToolUse):
            assert reader.tools_in_flight == 1
            wait_for((machine.work_dir / "started").exists, "the tool")
            act(reader, process)

    return on_event


def _long_tool() -> list[Step]:
    command = 'bash -c "touch started; sleep 60; echo b"'
    return [CallTool("exec_command", {"cmd": command, "yield_time_ms": 30000}), Say("never said")]


def test_an_interrupt_stops_the_tool_and_the_run(machine: Machine) -> None:
    on_event = _in_the_tool(machine, lambda reader, process: reader.interrupt())
    driven = machine.run("work", _long_tool(), on_event)

    assert not driven.outcome.success
    assert driven.outcome.reason == failures.CANCELLED
    assert driven.outcome.session_id
    assert driven.survivors == []

    again = machine.run("and now?", [Say("I am here.")], resume_session_id=driven.outcome.session_id)
    assert again.outcome.success
    assert "work" in json.dumps(machine.requests()[-1]["input"])


def test_a_sigterm_in_a_tool_is_a_failure_although_it_exits_with_0(machine: Machine) -> None:
    driven = machine.run(
        "work",
        _long_tool(),
        _in_the_tool(machine, lambda reader, process: os.killpg(process.pid, signal.SIGTERM)),
    )

    assert driven.exit_code == 0
    assert not driven.outcome.success
    assert driven.outcome.reason == failures.AGENT_EMPTY
    assert driven.outcome.session_id


def test_after_a_kill_the_session_can_be_resumed(machine: Machine) -> None:
    driven = machine.run(
        "work",
        _long_tool(),
        _in_the_tool(machine, lambda reader, process: os.killpg(process.pid, signal.SIGKILL)),
    )

    assert driven.outcome.reason == failures.AGENT_PROCESS
    again = machine.run("and now?", [Say("I am here.")], resume_session_id=driven.outcome.session_id)
    assert again.outcome.success
    assert again.outcome.output == "I am here."


def test_a_hanging_model_is_left_by_an_interrupt_and_what_it_said_is_kept(machine: Machine) -> None:
    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.Text):
            reader.interrupt()

    driven = machine.run("wait", [Hang("said before\n" * 100)], on_event)

    assert driven.outcome.reason == failures.CANCELLED
    assert driven.of(ev.Text) == [ev.Text("said before\n" * 100)]


# --- what it is given ------------------------------------------------------------------------------


def test_model_instructions_and_thinking_level_arrive(machine: Machine) -> None:
    driven = machine.run(
        "go",
        [Say("went")],
        model="gpt-5.5",
        instructions='Answer in "rhymes" only.',
        thinking_level="low",
        service_tier="flex",
        provider="codex-nightly",
    )

    assert driven.outcome.success
    body = machine.requests()[0]
    assert body["model"] == "gpt-5.5"
    assert 'Answer in "rhymes" only.' in "\n".join(developer_texts(body))
    assert body["reasoning"]["effort"] == "low"
    assert body["service_tier"] == "flex"
    assert driven.outcome.usage == (
        Usage("codex-nightly", "gpt-5.5", input_tokens=60, output_tokens=12, cache_read_tokens=40),
    )


def test_a_prompt_of_a_megabyte_arrives_whole(machine: Machine) -> None:
    prompt = "start " + "0123456789abcdef" * 65000 + " end"
    driven = machine.run(prompt, [Say("read it")])

    assert driven.outcome.success
    assert prompt in user_texts(machine.requests()[0])

    too_long = machine.run("0123456789abcdef" * 70000, [Say("never read")])
    assert too_long.outcome.reason == failures.AGENT_CONTEXT
    assert "maximum length" in too_long.outcome.error


def test_a_session_around_the_daemon_is_not_this_runs(machine: Machine) -> None:
    machine.env = {"CODEX_THREAD_ID": "outer", "CODEX_SANDBOX": "seatbelt", "CODEX_CI": "1"}
    command = "echo ${CODEX_SANDBOX:-none} ${CODEX_THREAD_ID:-none}"
    driven = machine.run("look", [CallTool("exec_command", {"cmd": command}), Say("ok")])

    (result,) = driven.of(ev.ToolResult)
    assert isinstance(result, ev.ToolResult)
    assert result.output.split() == ["none", driven.outcome.session_id]


def test_an_mcp_server_is_used_and_its_secrets_are_in_files_of_the_run_alone(machine: Machine) -> None:
    with McpServer() as web:
        servers = {"web": {"type": "http", "url": web.url, "headers": {"Authorization": "Bearer s3cret"}}}
        steps: list[Step] = [CallTool("mcp__web.echo", {"text": "hi"}), Say("Called.")]
        driven = machine.run("call", steps, mcp_servers=servers)

        assert driven.outcome.success
        (result,) = driven.of(ev.ToolResult)
        assert isinstance(result, ev.ToolResult)
        assert (result.tool, result.output, result.is_error) == ("mcp__web__echo", "echo: hi", False)
        assert set(web.authorizations) == {"Bearer s3cret"}
    holding = [
        path
        for path in machine.root.rglob("*")
        if path.is_file() and not path.is_symlink() and b"s3cret" in path.read_bytes()
    ]
    assert holding == [machine.root / "run-1" / "spec.codex.toml"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


def test_a_dead_mcp_server_is_a_notice_and_the_run_goes_on(machine: Machine) -> None:
    dead = {"type": "stdio", "command": "/nonexistent/server", "args": [], "env": {"SECRET": "hidden"}}
    driven = machine.run("go", [Say("went")], mcp_servers={"dead": dead})

    assert driven.outcome.success
    notices = [event for event in driven.events if isinstance(event, ev.Notice)]
    assert any(event.code == "mcp_server_failed" and "dead" in event.text for event in notices)


# --- permissions -----------------------------------------------------------------------------------


def _answering(decision: str, seen: list[ev.PermissionRequest]) -> OnEvent:
    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.PermissionRequest):
            assert [event] == list(reader.open_requests)
            seen.append(event)
            settled = reader.answer(event.request_id, decision)
            assert settled == [ev.PermissionSettled(event.request_id, decision)]
            assert not reader.open_requests

    return on_event


def _asking(name: str = "made") -> CallTool:
    return CallTool("exec_command", {"cmd": f"touch {name}"})


def test_a_permission_that_is_given(machine: Machine) -> None:
    seen: list[ev.PermissionRequest] = []
    driven = machine.run(
        "try", [_asking(), _asking(), Say("ok")], _answering("allow", seen), permission_mode="ask"
    )

    assert driven.outcome.success
    assert (machine.work_dir / "made").exists()
    assert len(seen) == 2
    assert seen[0].tool == "exec_command"
    assert seen[0].title == "touch made"
    assert seen[0].input == {"command": "touch made", "cwd": str(machine.work_dir)}


def test_a_permission_for_the_task_is_asked_once(machine: Machine) -> None:
    seen: list[ev.PermissionRequest] = []
    driven = machine.run(
        "try", [_asking(), _asking(), Say("ok")], _answering("allow-task", seen), permission_mode="ask"
    )

    assert driven.outcome.success
    assert len(seen) == 1


def test_a_permission_that_is_refused(machine: Machine) -> None:
    seen: list[ev.PermissionRequest] = []
    driven = machine.run("try", [_asking(), Say("ok")], _answering("deny", seen), permission_mode="ask")

    assert driven.outcome.success
    assert not (machine.work_dir / "made").exists()
    (result,) = driven.of(ev.ToolResult)
    assert isinstance(result, ev.ToolResult)
    assert result.is_error
    assert "declined" in result.output
    assert "rejected" in str(tool_results(machine.requests()[-1]))


def test_a_policy_that_denies(machine: Machine) -> None:
    driven = machine.run("try", [_asking(), Say("I may not.")], permission_mode="deny")

    assert driven.outcome.success
    assert not (machine.work_dir / "made").exists()
    assert ev.Notice("permission denied: exec_command", "permission_denied") in driven.events
    assert not driven.of(ev.PermissionRequest)


def test_a_change_of_files_is_asked_for(machine: Machine) -> None:
    patch = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch\n"
    seen: list[ev.PermissionRequest] = []
    driven = machine.run(
        "patch",
        [CallTool("apply_patch", {"input": patch}), Say("Patched.")],
        _answering("allow", seen),
        model="gpt-5.5",
        permission_mode="ask",
    )

    assert driven.outcome.success
    assert (machine.work_dir / "new.txt").exists()
    assert [request.tool for request in seen] == ["apply_patch"]


def test_a_tool_of_an_mcp_server_is_asked_for(machine: Machine) -> None:
    seen: list[ev.PermissionRequest] = []
    with McpServer() as web:
        steps: list[Step] = [CallTool("mcp__web.echo", {"text": "hi"}), Say("Called.")]
        driven = machine.run(
            "call",
            steps,
            _answering("allow", seen),
            mcp_servers={"web": {"type": "http", "url": web.url}},
            permission_mode="ask",
        )

    (result,) = driven.of(ev.ToolResult)
    assert isinstance(result, ev.ToolResult)
    assert result.output == "echo: hi"
    assert [request.kind for request in seen] == ["permission"]
    assert seen[0].tool == "mcp__web"
