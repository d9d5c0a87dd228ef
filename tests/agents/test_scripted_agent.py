"""The stand-in for Claude Code keeps to the same contract as the real one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_core.agents import events as ev
from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchRequest, Reader
from daemon_core.protocol import failures
from tests.support.driving import Driven, drive, wait_for
from tests.support.scripted_agent import install_scripted_agent, script

ENVIRON = {"PATH": "/usr/bin:/bin"}


def run(tmp_path: Path, *steps: dict[str, Any], on_event: Any = None, **changes: Any) -> Driven:
    executable = install_scripted_agent(tmp_path / "bin")
    environ = ENVIRON | changes.pop("environ", {})
    request = LaunchRequest(
        **{
            "executable": str(executable),
            "prompt": script(*steps),
            "work_dir": str(tmp_path),
            "run_dir": str(tmp_path),
        }
        | changes
    )
    return drive(ClaudeFamily(), request, environ, on_event or (lambda *_: None))


def test_it_tells_its_version_and_counts_that(tmp_path: Path) -> None:
    agent = install_scripted_agent(tmp_path, "codex", "codex-cli 0.169.0")
    log = tmp_path / "probes"
    environ = ENVIRON | {"SCRIPTED_AGENT_PROBE_LOG": str(log)}
    told = subprocess.run([agent, "--version"], env=environ, capture_output=True, text=True, check=True)

    assert told.stdout == "codex-cli 0.169.0\n"
    assert len(log.read_text().splitlines()) == 1


def test_a_whole_conversation(tmp_path: Path) -> None:
    driven = run(
        tmp_path,
        {"thinking": "hm"},
        {"text": "I begin."},
        {"tool": {"name": "Bash", "input": {"command": "ls"}, "output": "a\nb"}},
        {"lines": 2500, "text": "line {n}!"},
        {"ask": {"tool": "Bash"}},
        {"text": "The end."},
    )

    assert driven.outcome.success
    assert driven.outcome.output == "The end."
    assert driven.of(ev.ToolResult) == [ev.ToolResult("toolu_1", "Bash", "a\nb")]
    texts = [event.text for event in driven.events if isinstance(event, ev.Text)]
    assert texts[1:2501] == [f"line {number}!" for number in range(1, 2501)]
    assert texts[2501] == "The answer was allow."


def test_a_plain_prompt_is_echoed(tmp_path: Path) -> None:
    assert run(tmp_path, prompt="hello").outcome.output == "You said: hello"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"exit": 7}, failures.AGENT_PROCESS),
        ({"exit": 0}, failures.AGENT_EMPTY),
        ({"die": signal.SIGKILL}, failures.AGENT_PROCESS),
        ({"no_result": True, "text": ""}, failures.AGENT_EMPTY),
        ({"error": 401}, failures.AGENT_AUTH),
        ({"max_turns": True}, failures.ITERATION_LIMIT),
    ],
)
def test_ways_to_fail(tmp_path: Path, step: dict[str, Any], reason: str) -> None:
    def close(event: Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        # Without a result nobody closes its standard input.
        if "no_result" in step and process.stdin is not None:
            process.stdin.close()

    assert run(tmp_path, step, on_event=close).outcome.reason == reason


def test_damage_in_the_middle_does_not_lose_the_end(tmp_path: Path) -> None:
    driven = run(
        tmp_path, {"invalid_json": True}, {"invalid_utf8": True}, {"long_line": 50_000_000}, {"text": "end"}
    )

    assert driven.outcome.output == "end"
    assert len(driven.of(ev.Unreadable)) == 3
    assert [len(event.text) for event in driven.events if isinstance(event, ev.Text)] == [50_000_000, 3]


def test_an_interrupt_ends_its_waiting(tmp_path: Path) -> None:
    def interrupt(event: Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.ToolUse):
            reader.interrupt()

    driven = run(tmp_path, {"tool_start": {}}, {"wait_for": str(tmp_path / "never")}, on_event=interrupt)

    assert driven.outcome.reason == failures.CANCELLED
    assert driven.exit_code == 1


def test_an_unknown_session_is_refused_as_the_real_one_does(tmp_path: Path) -> None:
    environ = {"SCRIPTED_AGENT_SESSIONS": str(tmp_path / "sessions")}
    first = run(tmp_path, {"text": "hi"}, environ=environ)
    again = run(tmp_path, {"text": "hi"}, environ=environ, resume_session_id=first.outcome.session_id)
    other = run(tmp_path, {"text": "hi"}, environ=environ, resume_session_id="unknown")

    assert again.outcome.session_id == first.outcome.session_id
    assert other.outcome.resume_refused


def test_it_leaves_children_and_traces_as_told(tmp_path: Path) -> None:
    driven = run(
        tmp_path,
        {"count_start": str(tmp_path / "starts")},
        {"spawn": {"seconds": 60, "pid_file": str(tmp_path / "pids")}},
        {"wait_for": str(tmp_path / "pids")},
        {"dump": str(tmp_path / "dump")},
        {"stderr": "a warning"},
    )

    assert driven.outcome.success
    assert len(driven.survivors) == 1
    assert driven.stderr == "a warning\n"
    assert json.loads((tmp_path / "dump").read_text())["environ"]["PATH"] == ENVIRON["PATH"]
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


def test_a_file_releases_it(tmp_path: Path) -> None:
    def release(event: Event, reader: Reader, process: subprocess.Popen[bytes]) -> None:
        if isinstance(event, ev.ToolUse):
            wait_for((tmp_path / "here").exists, "the agent")
            (tmp_path / "go").touch()

    driven = run(
        tmp_path,
        {"tool_start": {}},
        {"touch": str(tmp_path / "here")},
        {"wait_for": str(tmp_path / "go")},
        {"tool_end": {"output": "went"}},
        on_event=release,
    )

    assert driven.of(ev.ToolResult) == [ev.ToolResult("toolu_1", "Bash", "went")]


def test_it_runs_isolated(tmp_path: Path) -> None:
    first = install_scripted_agent(tmp_path).read_text().splitlines()[0]

    assert first == f"#!{sys.executable} -IS"
