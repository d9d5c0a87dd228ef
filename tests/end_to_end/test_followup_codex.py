"""Follow-up with the real Codex CLI: another turn of the same process."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.home import check_transcript, wait_until
from tests.end_to_end.test_codex import CodexHome, shell
from tests.support.model_responses import ResponsesServer
from tests.support.model_server import Say

pytestmark = pytest.mark.codex


@pytest.fixture
def model() -> Iterator[ResponsesServer]:
    with ResponsesServer() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, model: ResponsesServer, request: pytest.FixtureRequest) -> Iterator[CodexHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = CodexHome(tmp_path, model, name)
    yield made
    made.close()


@pytest.mark.parametrize("place", ["", "more_given", "said:3"])
def test_a_job_that_ends_while_the_agent_works_is_told_in_the_same_run(home: CodexHome, place: str) -> None:
    gate = home.model.gate()
    line = [sys.executable, "-m", "daemon_core.cli", "job", "run", "--", "echo forty-two"]
    home.script(shell(shlex.join(line)), Say("First answer.", gate=gate), Say("And the job is done."))
    home.start(kill_at=place)
    task = home.task_of("Run it.")
    gate.wait_reached()
    wait_until(lambda: home.journal("SELECT 1 FROM notices WHERE state = 'pending'"), "the job to end")
    gate.release()
    if place:
        home.wait_dead()
        home.start()
    done = home.wait(task)
    assert done["status"] == "completed", done["error"]
    assert done["result"] == "First answer.\n\nAnd the job is done."
    assert len(done["runs"]) == 1
    assert home.journal("SELECT state FROM notices") == [("delivered",)]
    assert json.dumps(home.model.requests(home.name)[-1]["input"]).count("Your background job") == 1
    home.wait_delivered(task)
    check_transcript(home, task)


def test_a_conversation_is_woken_in_its_session(home: CodexHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"while [ ! -e {go} ]; do sleep 0.05; done; exit 3"
    line = [sys.executable, "-m", "daemon_core.cli", "job", "run", "--", command]
    home.script(shell(shlex.join(line)), Say("Started."), Say("It failed."))
    home.start()
    first = home.wait(home.task_of("Run it."))
    assert first["result"] == "Started."
    home.wait_delivered(first["id"])
    go.touch()
    found = wait_until(
        lambda: [each for each in home.call("GET", "/v1/tasks?all=true") if each["id"] != first["id"]],
        "the conversation to be woken",
    )
    woken = home.wait(found[0]["id"])
    assert woken["result"] == "It failed."
    assert woken["session_id"] == first["session_id"]
    assert "Run it." in json.dumps(home.model.requests(home.name)[-1]["input"])
    wait_until(lambda: home.journal("SELECT state FROM notices") == [("delivered",)], "it to be told")
