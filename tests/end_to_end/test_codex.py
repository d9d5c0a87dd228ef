"""The real Codex CLI as an agent of the real daemon, against a scripted model on loopback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, check_transcript, holding, wait_gone, wait_until
from tests.support.codex_cli import codex_env, link_codex
from tests.support.mcp_server import McpServer
from tests.support.model_responses import ResponsesServer, developer_texts, tool_results, user_texts
from tests.support.model_server import CallTool, Fail, Hang, Say, Step

pytestmark = pytest.mark.codex


@pytest.fixture
def model() -> Iterator[ResponsesServer]:
    with ResponsesServer() as server:
        yield server


class CodexHome(OstlerHome):
    """A home whose ``codex`` is the real one, talking to one scenario of the scripted model."""

    def __init__(self, root: Path, model: ResponsesServer, name: str) -> None:
        self.model = model
        self.name = name
        environ = codex_env(root / "user", model.url(name))
        del environ["PATH"]
        super().__init__(root, environ=environ, claude=False)
        link_codex(self.bin)

    def script(self, *steps: Step) -> None:
        self.model.scenario(self.name, list(steps))

    def task_of(self, prompt: str, **more: Any) -> str:
        return self.add(prompt, "codex", **more)

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
def home(tmp_path: Path, model: ResponsesServer, request: pytest.FixtureRequest) -> Iterator[CodexHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = CodexHome(tmp_path, model, name)
    yield made
    made.close()


def shell(command: str, **more: Any) -> CallTool:
    return CallTool("exec_command", {"cmd": command, "yield_time_ms": 30000}, **more)


def test_a_task_writes_files_by_a_tool(home: CodexHome, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "in.txt").write_text("forty-two\n")
    home.script(shell("cp in.txt out.txt && cat out.txt", text="I look at it."), Say("It says forty-two."))
    home.start()
    task = home.task_of("Copy in.txt", directory=str(project))
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "It says forty-two."), done["error"]
    assert (project / "out.txt").read_text() == "forty-two\n"
    assert done["work_dir"] == str(project)
    (usage,) = done["usage"]
    assert (usage["provider"], usage["model"]) == ("codex", "stub-model")
    assert (usage["input_tokens"], usage["output_tokens"], usage["cache_read_tokens"]) == (120, 24, 80)
    home.wait_delivered(task)
    check_transcript(home, task)
    lines = home.transcript(task)
    assert [(line["type"], line.get("tool")) for line in lines] == [
        ("text", None),
        ("tool_use", "exec_command"),
        ("tool_result", "exec_command"),
        ("text", None),
    ]
    assert lines[1]["input"]["command"] == "cp in.txt out.txt && cat out.txt"
    assert lines[2]["output"] == "forty-two\n"
    assert {path.name for path in project.iterdir()} == {"in.txt", "out.txt"}  # nothing of ours is left
    assert not list(home.run_dir(task).glob("spec*"))
    assert not (home.run_dir(task) / "codex-home").exists()
    assert len(list((home.directories.state / "homes").iterdir())) == 1


@pytest.mark.parametrize("own", [True, False])
def test_a_reply_goes_on_in_the_same_session_and_directory(
    home: CodexHome, tmp_path: Path, own: bool
) -> None:
    (tmp_path / "project").mkdir()
    home.script(Say("The word is heron."), Say("It was heron."))
    home.start()
    where = {} if own else {"directory": str(tmp_path / "project")}
    first = home.wait(home.task_of("Think of a word.", **where))
    assert first["status"] == "completed", first["error"]
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "Which word was it?"})
    second = home.wait(reply["id"])
    assert second["result"] == "It was heron."
    assert (second["session_id"], second["work_dir"]) == (first["session_id"], first["work_dir"])
    (usage,) = second["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (60, 12)  # its own, not the session's
    history = json.dumps(home.model.requests(home.name)[-1]["input"])
    assert "Think of a word." in history
    assert "The word is heron." in history


def test_a_session_that_is_gone_begins_afresh_and_says_so(home: CodexHome) -> None:
    home.script(Say("one"), Say("two"))
    home.start()
    first = home.wait(home.task_of("first"))
    shutil.rmtree(home.user_home / ".codex" / "sessions")
    for database in Path(first["work_dir"]).parent.glob("codex-home/*.sqlite*"):
        database.unlink()
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "second"})
    done = home.wait(reply["id"])
    assert (done["status"], done["result"]) == ("completed", "two"), done["error"]
    assert done["session_id"] not in ("", first["session_id"])
    assert [run["status"] for run in done["runs"]] == ["ended", "ended"]
    assert "fresh session" in done["runs"][1]["reason"]
    home.wait_delivered(reply["id"])
    check_transcript(home, reply["id"])


def test_cancel_in_mid_tool_ends_agent_tool_and_task(home: CodexHome, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    home.script(shell(f"bash -c 'echo $$ > {pid_file}; sleep 600; echo b'"), Say("never"), Say("Still here."))
    home.start()
    task = home.task_of("run it")
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the tool to run")
    tool, agent = int(pid_file.read_text()), home.shim(task)["child_pid"]
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait(task, "cancelled")
    wait_gone(tool, agent)
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")
    home.wait_delivered(task)
    check_transcript(home, task)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "api_invalid_request"),
        (401, "agent_error.provider_auth_or_access"),
        (429, "agent_error.provider_capacity_or_rate_limit"),
        (500, "agent_error.provider_server_error"),
    ],
)
def test_a_model_server_that_refuses_fails_the_task_with_its_reason(
    home: CodexHome, status: int, reason: str
) -> None:
    home.script(Fail(status))
    home.start()
    done = home.wait(home.task_of("try"))
    assert (done["status"], done["failure_reason"]) == ("failed", reason)
    assert done["error"]
    assert [line["type"] for line in home.transcript(done["id"])] == ["error"]


def test_a_model_server_that_hangs_is_ended_by_the_watchdog(home: CodexHome) -> None:
    home.script(Hang())
    home.start(OSTLER_WATCHDOG_IDLE="2s")
    done = home.wait(home.task_of("wait"))
    assert (done["status"], done["failure_reason"]) == ("failed", "idle_watchdog")
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_killed_before_during_and_after_the_tool_call(home: CodexHome, tmp_path: Path, when: str) -> None:
    started, go, counted = tmp_path / "started", tmp_path / "go", tmp_path / "counted"
    call, end = home.model.gate(), home.model.gate()
    tool = (
        f"echo x >> {counted}; touch {started}; while [ ! -e {go} ]; do sleep 0.05; done; echo tool-is-done"
    )
    home.script(shell(tool, text="I call it.", gate=call), Say("All done.", gate=end))
    home.start()
    task = home.task_of("do it")
    call.wait_reached()
    agent = home.shim(task)["child_pid"]
    if when == "before":
        home.kill()
    call.release()
    wait_until(started.exists, "the tool to run")
    if when == "during":
        home.kill()
    go.touch()
    end.wait_reached()
    if when == "after":
        home.kill()
    os.kill(agent, 0)
    home.start()
    assert home.wait(task, "running")["runs"][0]["pid"] == agent
    end.release()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "All done."), done["error"]
    assert counted.read_text() == "x\n"
    home.wait_delivered(task)
    check_transcript(home, task, "I call it.All done.")
    kinds = [line["type"] for line in home.transcript(task)]
    assert kinds == ["text", "tool_use", "tool_result", "text"]
    assert len(home.model.requests(home.name)) == 2
    (usage,) = done["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (120, 24)


@pytest.mark.parametrize(
    "point",
    ["before_spawn", "spawned"]
    + [f"{name}:{time}" for name in ("before_commit", "committed") for time in (1, 2, 3)]
    + ["said:1", "said:2"],
)
def test_killed_in_mid_request_the_conversation_goes_on(home: CodexHome, point: str) -> None:
    """The opening is said at once; what follows is a request that waits for its answer."""
    home.script(shell("echo one >> log; cat log"), Say("Done."))
    home.start(kill_at=point)
    task = home.task_of("do it")
    home.wait_dead()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "Done."), done["error"]
    assert (Path(done["work_dir"]) / "log").read_text() == "one\n"
    assert len(home.model.requests(home.name)) == 2
    home.wait_delivered(task)
    check_transcript(home, task, "Done.")


def test_a_turn_that_ends_while_no_daemon_lives_waits_for_it(home: CodexHome) -> None:
    end = home.model.gate()
    home.script(Say("Here is the answer.", gate=end))
    home.start()
    task = home.task_of("ask")
    end.wait_reached()
    run_dir = home.run_dir(task)
    home.kill()
    end.release()
    wait_until(lambda: b"turn/completed" in (run_dir / "stdout").read_bytes(), "the agent to finish its turn")
    home.start()
    assert home.wait(task)["result"] == "Here is the answer."
    home.wait_delivered(task)
    check_transcript(home, task, "Here is the answer.")


@pytest.mark.parametrize("decision", ["allow", "deny"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_permission_is_asked_and_answered_also_over_the_death_of_the_daemon(
    home: CodexHome, tmp_path: Path, decision: str, killed: bool
) -> None:
    made = tmp_path / "made"
    home.environ["OSTLER_PERMISSIONS_DEFAULT"] = "ask"
    home.script(shell(f"touch {made}"), Say("Done."))
    home.start()
    task = home.task_of("make it")
    asked = home.request(task)
    assert (asked["kind"], asked["tool"]) == ("permission", "exec_command")
    assert asked["input"]["command"] == f"touch {made}"
    if killed:
        home.kill()
        home.start()
        assert home.request(task)["id"] == asked["id"]
    assert not made.exists()
    home.answer(task, asked["id"], decision)
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "Done."), done["error"]
    assert made.exists() == (decision == "allow")
    assert ("rejected" in str(tool_results(home.model.requests(home.name)[-1]))) == (decision == "deny")
    home.wait_delivered(task)
    check_transcript(home, task)


SKILL = {
    "name": "Heron lore",
    "content": "The heron's name is Ardea.\n",
    "description": "What to know about the heron",
    "files": {"facts/legs.txt": "It has two.\n"},
}


def test_a_named_agent_brings_instructions_skills_environment_and_mcp_servers(
    home: CodexHome, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    (home.user_home / ".codex" / "AGENTS.md").write_text("Always say please.\n")
    with McpServer() as web:
        home.script(
            shell(f"env > {seen}; cat $CODEX_HOME/skills/heron-lore/facts/legs.txt"),
            CallTool("mcp__web.echo", {"text": "hi"}),
            Say("done"),
        )
        home.start()
        home.call(
            "POST",
            "/v1/agents",
            {
                "name": "Reviewer",
                "runtime": "codex",
                "instructions": "Answer like a heron.",
                "model": "another-stub",
                "skills": [SKILL],
                "env": {"REVIEW_KEY": "sesame", "CODEX_HOME": "/nowhere"},
                "mcp_config": {
                    "mcpServers": {"web": {"url": web.url, "headers": {"Authorization": "Bearer s3cret"}}}
                },
            },
        )
        task = home.add("go", "", agent="reviewer")
        done = home.wait(task)
        assert (done["status"], done["result"]) == ("completed", "done"), done["error"]
        assert web.calls == [{"text": "hi"}]
        assert set(web.authorizations) == {"Bearer s3cret"}
    environ = dict(line.partition("=")[::2] for line in seen.read_text().splitlines() if "=" in line)
    assert environ["REVIEW_KEY"] == "sesame"
    assert environ["CODEX_HOME"] == str(Path(done["work_dir"]).parent / "codex-home")
    body = home.model.requests(home.name)[0]
    assert body["model"] == "another-stub"
    assert "Answer like a heron." in "\n".join(developer_texts(body))
    assert "What to know about the heron" in json.dumps(body["input"])
    assert "Always say please." in json.dumps(body["input"])
    assert user_texts(body)[-1].endswith("go")
    assert any("It has two." in (line.get("output") or "") for line in home.transcript(task))
    # Promise 7: no file but the hub's own record of the agent has the secret once the run is over.
    wait_until(lambda: not list(home.run_dir(task).glob("spec*")), "the secrets to be gone")
    state = home.directories.state
    assert holding(state / "runs", "s3cret") == []
    assert holding(Path(done["work_dir"]).parent, "s3cret") == []
    assert holding(home.user_home, "s3cret") == []
