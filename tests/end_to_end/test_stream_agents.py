"""The real opencode, gemini and qwen as agents of the real daemon, in their own formats, on scripted models.

What happens to refused requests and unknown sessions is shown without the daemon, in ``test_stream_clis``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.home import PATIENT, OstlerHome, check_transcript, wait_gone, wait_until
from tests.support import npm_clis
from tests.support.acp_clis import AGENTS, AcpCli
from tests.support.model_server import ModelServer, Say, Step
from tests.support.stream_clis import NAMES, environ_of

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


class StreamHome(OstlerHome):
    """A home with one real CLI, talking to one scenario of the scripted model."""

    def __init__(self, root: Path, cli: AcpCli, model: ModelServer, name: str) -> None:
        self.cli, self.model, self.name = cli, model, name
        environ = environ_of(cli.name, root / "user", model.url(name))
        del environ["PATH"]
        super().__init__(root, environ={**environ, **PATIENT}, claude=False)
        npm_clis.link(cli.name, self.bin)
        # Two of them are scripts, which look their interpreter up.
        node = shutil.which("node")
        assert node is not None
        (self.bin / "node").symlink_to(node)

    def script(self, *steps: Step) -> None:
        self.model.scenario(self.name, list(steps))

    def give(self, prompt: str, **more: str) -> str:
        model = {"model": self.cli.model} if self.cli.model else {}
        return self.add(prompt, self.cli.name, **model, **more)


@pytest.fixture
def home(
    tmp_path: Path, cli: AcpCli, model: ModelServer, request: pytest.FixtureRequest
) -> Iterator[StreamHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = StreamHome(tmp_path, cli, model, name)
    yield made
    made.close()


def test_killed_in_mid_tool_and_a_reply_goes_on_in_the_session(home: StreamHome, tmp_path: Path) -> None:
    cli = home.cli
    project = tmp_path / "project"
    project.mkdir()
    started, go, counted = tmp_path / "started", tmp_path / "go", tmp_path / "counted"
    command = (
        f"echo x >> {counted}; touch {started}; while [ ! -e {go} ]; do sleep 0.05; done; echo is-done > out"
    )
    home.script(cli.shell(command, "I call it."), Say("All done."))
    home.start()
    task = home.give("Do the thing", directory=str(project))
    wait_until(started.exists, "the tool to run")
    agent = home.shim(task)["child_pid"]
    home.kill()
    os.kill(agent, 0)
    go.touch()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "All done."), done["error"]
    assert counted.read_text() == "x\n"
    assert (project / "out").read_text() == "is-done\n"
    assert (done["work_dir"], bool(done["session_id"])) == (str(project), True)
    (usage,) = done["usage"]
    assert (usage["provider"], usage["input_tokens"], usage["cache_read_tokens"]) == (cli.name, 120, 80)
    home.wait_delivered(task)
    check_transcript(home, task, "I call it.All done.")
    lines = [(line["type"], line.get("tool")) for line in home.transcript(task)]
    tool = cli.shell_tool
    assert lines == [("text", None), ("tool_use", tool), ("tool_result", tool), ("text", None)]
    assert {path.name for path in project.iterdir()} == {"out"}  # nothing of ours is left

    home.script(Say("It was the thing."))
    reply = home.call("POST", f"/v1/tasks/{task}/reply", {"prompt": "What was it?"})
    second = home.wait(reply["id"])
    assert (second["status"], second["result"]) == ("completed", "It was the thing."), second["error"]
    assert (second["session_id"], second["work_dir"]) == (done["session_id"], done["work_dir"])
    history = json.dumps(home.model.requests(home.name)[-1])
    assert "Do the thing" in history
    assert "All done." in history
    (usage,) = second["usage"]
    assert (usage["input_tokens"], usage["cache_read_tokens"]) == (60, 40)  # not what was used before
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")


def test_cancel_in_mid_tool_ends_agent_tool_and_task(home: StreamHome, tmp_path: Path) -> None:
    """None of the three has a word for stopping in its own format: it is ended by signals, and what is left
    of its tools by the shim."""
    pid_file = tmp_path / "pid"
    home.script(home.cli.shell(f"bash -c 'echo $$ > {pid_file}; sleep 600; echo b'"), Say("never"))
    home.start()
    task = home.give("run it")
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the tool to run")
    tool, agent = int(pid_file.read_text()), home.shim(task)["child_pid"]
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait(task, "cancelled")
    wait_gone(tool, agent)
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")
    home.wait_delivered(task)
    check_transcript(home, task)
