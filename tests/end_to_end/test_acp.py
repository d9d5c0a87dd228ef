"""Agents over ACP under the real daemon: a stand-in wherever a daemon can die, and the real CLIs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import PATIENT, OstlerHome, check_transcript, holding, wait_gone, wait_until
from tests.support import npm_clis
from tests.support.acp_clis import AGENTS, AcpCli
from tests.support.model_server import ModelServer, Say
from tests.support.scripted_acp import install_scripted_acp, script


class AcpHome(OstlerHome):
    """A home with a stand-in for kimi; ``place`` is where it says what it has seen."""

    def __init__(self, root: Path) -> None:
        self.place = root / "seen"
        self.place.mkdir()
        super().__init__(root, environ={"SCRIPTED_ACP": str(self.place)}, claude=False)
        install_scripted_acp(self.bin, "kimi")

    def task_of(self, *steps: dict[str, Any], **more: Any) -> str:
        return self.add(script(*steps), "kimi", **more)

    def received(self) -> list[dict[str, Any]]:
        file = self.place / "received"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def methods(self) -> list[str]:
        return [message["method"] for message in self.received() if "method" in message]

    def hold(self, method: str) -> Path:
        """The stand-in does not answer this method until the file is gone."""
        path = self.place / f"hold-{method.replace('/', '-')}"
        path.touch()
        return path

    def request(self, task: str) -> dict[str, Any]:
        """The one request that a task has open, once it has one."""

        def one() -> dict[str, Any] | None:
            found = self.task(task)
            assert found["status"] not in ("completed", "failed", "cancelled"), found
            return found["requests"][0] if found["requests"] else None

        request: dict[str, Any] = wait_until(one, "the agent to ask")
        return request

    def answer(self, task: str, request: str, decision: str) -> None:
        self.call("POST", f"/v1/tasks/{task}/requests/{request}/answer", {"decision": decision, "text": ""})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[AcpHome]:
    made = AcpHome(tmp_path)
    yield made
    made.close()


def test_a_task_and_its_reply(home: AcpHome) -> None:
    home.start()
    tool = {"rawInput": {"command": "ls"}, "output": "a\nb"}
    task = home.task_of({"text": "I look."}, {"tool": tool}, {"text": "Two files."})
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "Two files."), done["error"]
    (usage,) = done["usage"]
    assert (usage["provider"], usage["input_tokens"], usage["cache_read_tokens"]) == ("kimi", 60, 40)
    home.wait_delivered(task)
    check_transcript(home, task, "I look.Two files.")
    assert [line["type"] for line in home.transcript(task)] == ["text", "tool_use", "tool_result", "text"]

    reply = home.call("POST", f"/v1/tasks/{task}/reply", {"prompt": script({"text": "Again."})})
    again = home.wait(reply["id"])
    assert (again["result"], again["session_id"]) == ("Again.", done["session_id"])
    assert "session/resume" in home.methods()


def test_a_session_that_is_gone_begins_afresh(home: AcpHome) -> None:
    home.start()
    first = home.wait(home.task_of({"text": "one"}))
    (home.place / "sessions" / first["session_id"]).unlink()
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": script({"text": "two"})})
    done = home.wait(reply["id"])
    assert (done["status"], done["result"]) == ("completed", "two"), done["error"]
    assert done["session_id"] != first["session_id"]
    assert "fresh session" in done["runs"][1]["reason"]


@pytest.mark.parametrize("method", ["initialize", "session/new", "session/prompt"])
def test_killed_while_a_request_waits_for_its_answer(home: AcpHome, method: str) -> None:
    gate = home.hold(method)
    home.start()
    task = home.task_of({"text": "Here is "}, {"tool": {"output": "x"}}, {"text": "the answer."})
    wait_until(lambda: method in home.methods(), f"the agent to have {method}")
    agent = home.shim(task)["child_pid"]
    home.kill()
    gate.unlink()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "the answer."), done["error"]
    assert done["runs"][0]["pid"] == agent
    # Each request was made once, whoever made it.
    assert home.methods() == ["initialize", "session/new", "session/prompt"]
    home.wait_delivered(task)
    check_transcript(home, task, "Here is the answer.")


@pytest.mark.parametrize(
    "point",
    ["before_spawn", "spawned"]
    + [f"{name}:{time}" for name in ("before_commit", "committed", "said") for time in (1, 2, 3)],
)
def test_killed_at_every_step_of_the_conversation(home: AcpHome, point: str) -> None:
    home.start(kill_at=point)
    task = home.task_of({"text": "I ask."}, {"ask": {}}, {"text": " Done."})
    home.wait_dead()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "The answer was allow_once-option. Done."), done
    assert home.methods() == ["initialize", "session/new", "session/prompt"]
    assert [message["id"] for message in home.received()] == [1, 2, 3, 1001]
    home.wait_delivered(task)
    check_transcript(home, task, "I ask.The answer was allow_once-option. Done.")


def test_an_answer_that_comes_while_no_daemon_lives_waits_for_it(home: AcpHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.start()
    task = home.task_of(
        {"text": "Before."}, {"wait_for": str(go)}, {"tool": {"output": "x"}}, {"text": "After."}
    )
    wait_until(lambda: "session/prompt" in home.methods(), "the turn to begin")
    run_dir = home.run_dir(task)
    home.kill()
    go.touch()
    wait_until(lambda: b"stopReason" in (run_dir / "stdout").read_bytes(), "the turn to end")
    home.start()
    assert home.wait(task)["result"] == "After."
    home.wait_delivered(task)
    check_transcript(home, task, "Before.After.")


def test_a_run_that_only_its_directory_knows_goes_on_with_its_conversation(home: AcpHome) -> None:
    """The journal is lost in mid-request: what the reader needs is beside the run."""
    gate = home.hold("session/new")
    home.start()
    task = home.task_of({"text": "Still here."})
    wait_until(lambda: "session/new" in home.methods(), "the agent to be asked for a session")
    home.kill()
    for file in home.directories.journal_file.parent.glob("journal.db*"):
        file.unlink()
    gate.unlink()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "Still here."), done["error"]
    assert home.methods() == ["initialize", "session/new", "session/prompt"]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    ("decision", "option"), [("allow", "allow_once-option"), ("deny", "reject_once-option")]
)
def test_a_permission_is_asked_and_answered_also_over_a_death(
    home: AcpHome, killed: bool, decision: str, option: str
) -> None:
    home.environ["OSTLER_PERMISSIONS_DEFAULT"] = "ask"
    home.start()
    task = home.task_of({"ask": {"title": "rm -r x"}})
    asked = home.request(task)
    assert (asked["tool"], asked["input"]) == ("execute", {"command": "rm -r x"})
    if killed:
        home.kill()
        home.start()
        assert home.request(task)["id"] == asked["id"]
    home.answer(task, asked["id"], decision)
    done = home.wait(task)
    assert done["result"] == f"The answer was {option}."


def test_cancel_breaks_the_turn_off_and_ends_what_it_started(home: AcpHome, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    home.start()
    task = home.task_of({"spawn": {"pid_file": str(pid_file)}}, {"wait_for": str(tmp_path / "never")})
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the tool to run")
    agent = home.shim(task)["child_pid"]
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait(task, "cancelled")
    wait_gone(int(pid_file.read_text()), agent)
    assert "session/cancel" in home.methods()


def test_an_agent_that_stays_after_its_turn_is_ended_and_has_succeeded(home: AcpHome) -> None:
    home.start()
    task = home.task_of({"text": "Finished."}, {"ignore_eof": True})
    wait_until(lambda: "session/prompt" in home.methods(), "the turn to begin")
    agent = home.shim(task)["child_pid"]
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "Finished."), done["error"]
    wait_gone(agent)


def test_secrets_of_mcp_servers_reach_the_agent_and_are_gone_with_the_run(
    home: AcpHome, tmp_path: Path
) -> None:
    servers = {"lab": {"command": "lab", "env": {"KEY": "s3cret-word"}}}
    go = tmp_path / "go"
    home.start()
    agent = {"name": "Reviewer", "runtime": "kimi", "mcp_config": {"mcpServers": servers}}
    home.call("POST", "/v1/agents", agent)
    task = home.add(script({"wait_for": str(go)}, {"text": "Done."}), "", agent="reviewer")
    wait_until(lambda: "session/prompt" in home.methods(), "the turn to begin")
    run_dir = home.run_dir(task)
    (opened,) = [message for message in home.received() if message.get("method") == "session/new"]
    entries = {entry["name"]: entry for entry in opened["params"]["mcpServers"]}
    assert entries["lab"]["env"] == [{"name": "KEY", "value": "s3cret-word"}]
    ours = entries["ostler"]
    assert (ours["type"], ours["url"]) == ("http", f"http://127.0.0.1:{home.status()['port']}/mcp")
    ((name, token),) = [(header["name"], header["value"]) for header in ours["headers"]]
    assert name == "Authorization"
    token = token.removeprefix("Bearer ")
    assert token.startswith("mat_")
    assert b"s3cret-word" in (run_dir / "stdin").read_bytes()
    (state,) = home.journal("SELECT reader FROM runs")[0]
    assert b"s3cret" not in bytes(state)
    go.touch()
    assert home.wait(task)["result"] == "Done."
    left = [path.name for path in run_dir.iterdir() if b"s3cret" in path.read_bytes()]
    assert left == []
    assert b"s3cret-word" not in home.directories.journal_file.read_bytes()
    wait_until(lambda: not holding(tmp_path / "o", token), "the token to be gone")


# --- the real CLIs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(AGENTS))
def cli(request: pytest.FixtureRequest) -> AcpCli:
    agent: AcpCli = AGENTS[request.param]
    npm_clis.require(agent.name)
    return agent


@pytest.fixture(scope="module")
def model(cli: AcpCli) -> Iterator[ModelServer]:
    with cli.server() as server:
        yield server


@pytest.mark.acp
def test_a_real_cli_goes_on_over_two_deaths_of_the_daemon(
    cli: AcpCli, model: ModelServer, tmp_path: Path
) -> None:
    """Killed while the user is asked, and again while the model thinks; asked once, done once."""
    end = model.gate()
    url = model.scenario("deaths", [cli.shell("echo x >> log", "I write."), Say("All done.", gate=end)])
    environ = cli.environ(tmp_path / "user", url)
    path = environ.pop("PATH")
    home = AcpHomeOf(tmp_path, cli, {**environ, "OSTLER_PERMISSIONS_DEFAULT": "ask"}, path)
    try:
        home.start()
        task = home.add("Write", cli.name, **({"model": cli.model} if cli.model else {}))
        asked = home.request(task)
        assert asked["input"]["command"] == "echo x >> log"
        agent = home.shim(task)["child_pid"]
        home.kill()
        home.start()
        assert home.request(task)["id"] == asked["id"]
        home.answer(task, asked["id"], "allow")
        end.wait_reached()
        home.kill()
        os.kill(agent, 0)
        home.start()
        assert home.wait(task, "running")["runs"][0]["pid"] == agent
        end.release()
        done = home.wait(task)
        assert (done["status"], done["result"]) == ("completed", "All done."), done["error"]
        assert (Path(done["work_dir"]) / "log").read_text() == "x\n"
        home.wait_delivered(task)
        check_transcript(home, task, "I write.All done.")
        wait_gone(agent)
    finally:
        home.close()


class AcpHomeOf(AcpHome):
    """A home with a real CLI."""

    def __init__(self, root: Path, cli: AcpCli, environ: dict[str, str], path: str) -> None:
        super().__init__(root)
        self.environ |= {**environ, **PATIENT}
        self.environ["PATH"] = f"{self.bin}:{path}"
        npm_clis.link(cli.name, self.bin)
