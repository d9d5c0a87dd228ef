"""The real opencode, gemini and qwen over ACP, started as ``plan`` says, against scripted models.

With ``OSTLER_RECORD=1`` the outputs become the recordings that ``test_acp_reader`` replays.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.agents import events as ev
from daemon_core.agents.acp import AcpFamily
from daemon_core.agents.family import Drive, LaunchRequest, Reader
from daemon_core.protocol import failures
from daemon_core.runtimes.providers import builtin
from tests.support import npm_clis
from tests.support.acp_clis import AGENTS, AcpCli
from tests.support.driving import Driven, drive, wait_for
from tests.support.model_server import CallTool, Fail, Hang, ModelServer, Say, Step, Think

pytestmark = [pytest.mark.acp, pytest.mark.timeout(240)]

RECORDINGS = Path(__file__).with_name("recordings") / "acp"


@pytest.fixture(scope="module", params=sorted(AGENTS))
def cli(request: pytest.FixtureRequest) -> AcpCli:
    agent: AcpCli = AGENTS[request.param]
    npm_clis.require(agent.name)
    return agent


@pytest.fixture(scope="module")
def model(cli: AcpCli) -> Iterator[ModelServer]:
    with cli.server() as server:
        yield server


class Machine:
    """A home, a work directory and run directories; ``run`` starts the CLI there."""

    def __init__(self, root: Path, cli: AcpCli, model: ModelServer, name: str) -> None:
        self.root, self.cli, self.model, self.name = root, cli, model, name
        self.work_dir = root / "work"
        self.work_dir.mkdir()
        self.runs = 0

    @property
    def drive(self) -> Drive:
        entry = builtin().get(self.cli.name)
        assert entry is not None
        assert entry.ask_drive is not None
        return entry.ask_drive

    def run(self, prompt: str, steps: list[Step], on_event: Any = None, **request: Any) -> Driven:
        self.runs += 1
        run_dir = self.root / f"run-{self.runs}"
        run_dir.mkdir(mode=0o700)
        url = self.model.scenario(self.name, steps)
        wanted = LaunchRequest(
            provider=self.cli.name,
            drive=self.drive,
            executable=str(npm_clis.require(self.cli.name)),
            prompt=prompt,
            work_dir=str(self.work_dir),
            run_dir=str(run_dir),
            **{"model": self.cli.model, **request},
        )
        environ = self.cli.environ(self.root / "home", url)
        driven = drive(AcpFamily(), wanted, environ, on_event or (lambda *_: None))
        if os.environ.get("OSTLER_RECORD"):
            self._record(wanted, driven)
        return driven

    def shell(self, command: str, text: str = "") -> CallTool:
        return self.cli.shell(command, text)

    def requests(self) -> list[dict[str, Any]]:
        return self.model.requests(self.name)

    def _record(self, wanted: LaunchRequest, driven: Driven) -> None:
        """Keep the output and what was asked for, without the places and long lists of this machine."""
        lines = []
        for line in driven.stdout.decode().splitlines():
            fields = json.loads(line)
            update = fields.get("params", {}).get("update", {})
            if update.get("sessionUpdate") == "available_commands_update":
                update["availableCommands"] = update["availableCommands"][:2]
                update.pop("_meta", None)
            text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            text = text.replace(str(self.work_dir), "/srv/task").replace(str(self.root), "/srv")
            lines.append(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text) + "\n")
        number = f"-{self.runs}" if self.runs > 1 else ""
        RECORDINGS.mkdir(parents=True, exist_ok=True)
        name = f"{self.cli.name}-{self.name}{number}"
        (RECORDINGS / f"{name}.jsonl").write_text("".join(lines))
        kept = msgspec.structs.replace(
            wanted, executable="/bin/agent", work_dir="/srv/task", run_dir="/srv/run", mcp_servers=None
        )
        (RECORDINGS / f"{name}.request.json").write_bytes(msgspec.json.encode(kept) + b"\n")


@pytest.fixture
def machine(tmp_path: Path, cli: AcpCli, model: ModelServer, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, cli, model, request.node.name.removeprefix("test_").split("[")[0])


def kinds(driven: Driven) -> list[str]:
    passing = (ev.Notice, ev.UsageSeen)
    return [type(event).__name__ for event in driven.events if not isinstance(event, passing)]


def test_a_tool_call_really_writes_a_file(machine: Machine) -> None:
    command = "echo written > note.txt; cat note.txt"
    prompt = "Write (with a \\ and a\r\nline, and ünïcode)"
    driven = machine.run(prompt, [machine.shell(command, "I write."), Say("Done it.", pieces=3)])

    assert driven.outcome.success, (driven.outcome, driven.stderr)
    assert driven.outcome.output == "Done it."
    assert driven.outcome.session_id
    assert (machine.work_dir / "note.txt").read_text() == "written\n"
    expected = ["SessionStarted", "Text", "ToolUse", "ToolResult", "Text", "TurnEnded"]
    assert [kind for at, kind in enumerate(kinds(driven)) if kind != "SessionStarted" or not at] == expected
    (call,), (result,) = driven.of(ev.ToolUse), driven.of(ev.ToolResult)
    assert isinstance(call, ev.ToolUse)
    assert isinstance(result, ev.ToolResult)
    assert call.input["command"] == command
    assert result.call_id == call.call_id
    assert not result.is_error
    # gemini does not tell what its shell printed.
    assert ("written" in result.output) == (machine.cli.name != "gemini")
    assert prompt.replace("\r\n", "\n") in machine.cli.said(machine.requests()[0]).replace("\r\n", "\n")
    assert [(one.provider, *machine.cli.counts(one)) for one in driven.outcome.usage] == [
        (machine.cli.name, *machine.cli.one_tool_usage)
    ]
    assert driven.survivors == []


def test_thinking_is_told_apart_from_text_and_the_model_is_chosen(machine: Machine) -> None:
    driven = machine.run("think", [Think("I ponder.", "Thought.")], model=machine.cli.other_model)

    assert driven.of(ev.Thinking)
    assert driven.of(ev.Text) == [ev.Text("Thought.")]
    assert driven.outcome.success, driven.outcome
    assert driven.outcome.output == "Thought."
    assert not driven.of(ev.Notice)
    told = [usage.model for usage in driven.outcome.usage]
    assert machine.requests()[0].get("model", told[0]) == machine.cli.sent_model


def test_a_request_for_permission_waits_and_an_allowance_for_the_task_holds(machine: Machine) -> None:
    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.PermissionRequest):
            assert [each.request_id for each in reader.open_requests] == [event.request_id]
            assert event.input["command"] == "echo asked > asked.txt"
            assert not (machine.work_dir / "asked.txt").exists()
            reader.answer(event.request_id, "allow-task")

    first, second = machine.shell("echo asked > asked.txt"), machine.shell("echo again > again.txt")
    driven = machine.run("ask first", [first, second, Say("Over.")], on_event, permission_mode="ask")

    assert driven.outcome.success, driven.outcome
    assert driven.outcome.output == "Over."
    assert len(driven.of(ev.PermissionRequest)) == 1
    assert (machine.work_dir / "asked.txt").exists()
    assert (machine.work_dir / "again.txt").exists()


def test_a_denied_request_is_not_done(machine: Machine) -> None:
    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.PermissionRequest):
            reader.answer(event.request_id, "deny")

    # With the policy "deny" nobody is asked; what the agent is told is the same.
    mode = "deny" if machine.cli.name == "gemini" else "ask"
    steps: list[Step] = [machine.shell("echo no > no.txt"), Say("Over.")]
    driven = machine.run("try", steps, on_event, permission_mode=mode)

    assert not (machine.work_dir / "no.txt").exists()
    if mode == "deny":
        said = [notice.text for notice in driven.events if isinstance(notice, ev.Notice)]
        assert "permission denied: " in "".join(said)
    else:
        assert len(driven.of(ev.PermissionRequest)) == 1


def test_an_interrupt_stops_the_tool_and_the_run(machine: Machine) -> None:
    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.ToolUse):
            assert reader.tools_in_flight == 1
            wait_for((machine.work_dir / "started").exists, "the tool")
            reader.interrupt()

    long = machine.shell('bash -c "touch started; sleep 60; echo b"')
    driven = machine.run("work", [long, Say("never said")], on_event)

    assert not driven.outcome.success
    assert driven.outcome.reason == failures.CANCELLED
    assert driven.outcome.session_id
    assert not any("sleep 60" in left for left in driven.survivors)


@pytest.mark.parametrize("cli", ["gemini"], indirect=True)  # nothing here depends on which
def test_a_hanging_model_is_left_by_an_interrupt(machine: Machine) -> None:
    gate = machine.model.gate()

    def on_event(event: ev.Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.ToolResult):
            gate.wait_reached()
            reader.interrupt()

    driven = machine.run("hang", [machine.shell("true"), Hang(gate=gate)], on_event)

    assert driven.outcome.reason == failures.CANCELLED
    assert not driven.outcome.success


@pytest.mark.parametrize("cli", ["gemini", "qwen"], indirect=True)
def test_a_request_without_authority_fails(machine: Machine) -> None:
    """Not of opencode: its ACP gives the words of an error, but not its status."""
    driven = machine.run("try", [Fail(401)])

    _is_refused(driven)
    assert driven.outcome.reason == failures.AGENT_AUTH


def test_settings_that_are_not_offered_are_notices_and_a_wrong_request_fails(machine: Machine) -> None:
    driven = machine.run("try", [Fail(400)], model="no-such-model", thinking_level="no-such-level")

    _is_refused(driven)
    # opencode does not tell the status.
    unsaid = machine.cli.name == "opencode"
    assert driven.outcome.reason == (failures.AGENT_UNKNOWN if unsaid else failures.API_INVALID_REQUEST)
    said = "\n".join(notice.text for notice in driven.events if isinstance(notice, ev.Notice))
    # gemini takes any name for a model; opencode alone has levels to choose.
    assert ("no-such-model" in said) == (machine.cli.name != "gemini")
    assert ("no-such-level" in said) == (machine.cli.name == "opencode")


def _is_refused(driven: Driven) -> None:
    assert not driven.outcome.success
    assert "scripted failure" in driven.outcome.error
    assert driven.of(ev.ErrorText)
    assert not driven.of(ev.Text)
    assert not driven.outcome.resume_refused


def test_gemini_is_not_resumed_over_acp() -> None:
    """Its ``session/load`` (0.61.0) refuses every session and spoils the stored one, so that its other family
    could not resume it either; there is no ``session/resume``."""
    gemini = builtin().get("gemini")
    assert gemini is not None
    assert gemini.ask_drive is not None
    assert gemini.ask_drive.resume == ""
    assert gemini.drive.resume


@pytest.mark.parametrize("cli", ["opencode", "qwen"], indirect=True)
def test_a_session_is_resumed_or_refused(machine: Machine) -> None:
    first = machine.run("Remember the word marmalade", [Say("I shall.")])
    second = machine.run("Which word?", [Say("marmalade")], resume_session_id=first.outcome.session_id)

    assert second.outcome.success, second.outcome
    assert second.outcome.session_id == first.outcome.session_id
    assert second.of(ev.Text) == [ev.Text("marmalade")]  # the history was told again, and dropped
    assert "marmalade" in json.dumps(machine.requests()[-1])

    third = machine.run("go on", [Say("never said")], resume_session_id=machine.cli.unknown_session)
    assert not third.outcome.success
    assert third.outcome.resume_refused
    assert third.outcome.session_id == ""


def test_an_mcp_server_is_used_and_does_not_keep_the_run(machine: Machine) -> None:
    server = {"command": "python3", "args": [str(Path(__file__).parent.parent / "support" / "mcp_echo.py")]}
    tool = machine.cli.mcp_tool("lab", "echo")
    # Some agents ask their model while they still ask their servers what they can do.
    listed = machine.root / "listed"
    gate = machine.model.gate()

    def release() -> None:
        gate.wait_reached()
        wait_for(listed.exists, "the tools to be known")
        gate.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    steps: list[Step] = [CallTool(tool, {"text": "through"}, gate=gate, deferred=True), Say("Echoed.")]
    env = {"LAB_WORD": "secret-word", "LAB_LISTED": str(listed)}
    driven = machine.run("echo", steps, mcp_servers={"lab": {**server, "env": env}})
    releasing.join()

    assert driven.outcome.success, driven.outcome
    assert driven.outcome.output == "Echoed."
    assert "through secret-word" in json.dumps(machine.requests())
    run_dir = machine.root / "run-1"
    assert b"secret-word" in (run_dir / "spec.acp-mcp.json").read_bytes()
