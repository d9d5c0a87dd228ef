"""The real Claude Code CLI hands on work: by the command line and by tool, waiting and woken."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.home import check_transcript, wait_until
from tests.end_to_end.test_claude import ClaudeHome
from tests.support.model_server import CallTool, ModelServer, Say, Step

pytestmark = pytest.mark.claude


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, model: ModelServer, request: pytest.FixtureRequest) -> Iterator[ClaudeHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = ClaudeHome(tmp_path, model, name)
    yield made
    made.close()


def by_command(prompt: str, *options: str) -> Step:
    line = [sys.executable, "-m", "daemon_core.cli", "task", "delegate", prompt, *options]
    return CallTool("Bash", {"command": shlex.join(line)})


@pytest.mark.parametrize("way", ["command", "tool"])
def test_claude_hands_on_and_waits_with_one_slot(home: ClaudeHome, way: str) -> None:
    if way == "command":
        step = by_command("echo 6 times 7 is 42", "--runtime", "shell", "--wait")
    else:
        given = {"prompt": "echo 6 times 7 is 42", "runtime": "shell", "wait": True}
        step = CallTool("mcp__ostler__delegate", given)
    home.script(step, Say("It found 42."))
    home.start(OSTLER_DAEMON_SLOTS="1")
    task = home.add("Find out what 6 times 7 is", model="claude-sonnet-4-6")
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "It found 42."), done["error"]
    (child,) = done["children"]
    assert (child["status"], child["result"].strip()) == ("completed", "6 times 7 is 42")
    assert any("6 times 7 is 42" in (line.get("output") or "") for line in home.transcript(task))
    assert home.journal("SELECT told FROM delegations") == [("answer",)]
    home.wait_delivered(task)
    check_transcript(home, task)


def test_claude_is_woken_by_the_end_of_what_it_handed_on(home: ClaudeHome, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo found it at last"
    home.script(by_command(command, "--runtime", "shell"), Say("I wait to hear."), Say("I have heard."))
    home.start()
    task = home.add("Have it looked for", model="claude-sonnet-4-6")
    assert home.wait(task)["result"] == "I wait to hear."
    home.kill()
    gate.touch()
    home.start()
    (conversation,) = home.hub("SELECT conversation_id FROM task WHERE id = ?", task)[0]

    def results() -> list[str]:
        rows = home.hub("SELECT output FROM task WHERE conversation_id = ? ORDER BY no", conversation)
        return [output for (output,) in rows]

    wait_until(lambda: results() == ["I wait to hear.", "I have heard."], "the second turn")
    wait_until(
        lambda: home.journal("SELECT state FROM notices") == [("delivered",)], "the notice to be delivered"
    )
