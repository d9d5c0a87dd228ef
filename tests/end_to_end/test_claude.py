"""The real Claude Code CLI as an agent of the real daemon, against a scripted model on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.home import OstlerHome, check_transcript, wait_gone, wait_until
from tests.support.claude_cli import claude_env, link_claude
from tests.support.model_server import CallTool, Fail, Hang, ModelServer, Say, Step, user_texts

pytestmark = pytest.mark.claude


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


class ClaudeHome(OstlerHome):
    """A home whose ``claude`` is the real one, talking to one scenario of the scripted model."""

    def __init__(self, root: Path, model: ModelServer, name: str) -> None:
        self.model = model
        self.name = name
        environ = claude_env(root / "user", model.url(name))
        del environ["PATH"]
        super().__init__(root, environ=environ, claude=False)
        link_claude(self.bin)

    def script(self, *steps: Step) -> None:
        self.model.scenario(self.name, list(steps))


@pytest.fixture
def home(tmp_path: Path, model: ModelServer, request: pytest.FixtureRequest) -> Iterator[ClaudeHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = ClaudeHome(tmp_path, model, name)
    yield made
    made.close()


def test_a_task_reads_and_writes_files_by_tools(home: ClaudeHome, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "in.txt").write_text("forty-two\n")
    home.script(
        CallTool("Read", {"file_path": str(project / "in.txt")}, text="I look at it."),
        CallTool("Bash", {"command": "cp in.txt out.txt && echo copied"}),
        Say("It says forty-two; I copied it."),
    )
    home.start()
    task = home.add("Copy in.txt", directory=str(project), model="claude-sonnet-4-6")
    done = home.wait(task)
    assert done["status"] == "completed", done["error"]
    assert done["result"] == "It says forty-two; I copied it."
    assert (project / "out.txt").read_text() == "forty-two\n"
    assert done["session_id"]
    assert done["work_dir"] == str(project)
    (usage,) = done["usage"]
    assert usage["provider"] == "claude"
    assert usage["model"] == "claude-sonnet-4-6"
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0
    home.wait_delivered(task)
    check_transcript(home, task)
    lines = home.transcript(task)
    assert [(line["type"], line.get("tool")) for line in lines] == [
        ("text", None),
        ("tool_use", "Read"),
        ("tool_result", "Read"),
        ("tool_use", "Bash"),
        ("tool_result", "Bash"),
        ("text", None),
    ]
    assert "forty-two" in lines[2]["output"]
    assert lines[3]["input"]["command"].startswith("cp in.txt")
    assert "copied" in lines[4]["output"]
    assert home.model.requests(home.name)[0]["model"] == "claude-sonnet-4-6"
    assert {path.name for path in project.iterdir()} == {"in.txt", "out.txt"}  # nothing of ours is left


def test_a_reply_goes_on_in_the_same_session_and_directory(home: ClaudeHome) -> None:
    home.script(Say("The word is heron."), Say("It was heron."))
    home.start()
    first = home.wait(home.add("Think of a word."))
    assert first["status"] == "completed", first["error"]
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "Which word was it?"})
    assert reply["conversation_id"] == first["conversation_id"]
    second = home.wait(reply["id"])
    assert second["result"] == "It was heron."
    assert (second["session_id"], second["work_dir"]) == (first["session_id"], first["work_dir"])
    history = json.dumps(home.model.requests(home.name)[-1]["messages"])
    assert "Think of a word." in history
    assert "The word is heron." in history


def test_a_session_that_is_gone_begins_afresh_and_says_so(home: ClaudeHome) -> None:
    home.script(Say("one"), Say("two"))
    home.start()
    first = home.wait(home.add("first"))
    shutil.rmtree(home.user_home / ".claude" / "projects")
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "second"})
    done = home.wait(reply["id"])
    assert (done["status"], done["result"]) == ("completed", "two")
    assert done["session_id"] not in ("", first["session_id"])
    assert [run["status"] for run in done["runs"]] == ["ended", "ended"]
    assert "fresh session" in done["runs"][1]["reason"]
    home.wait_delivered(reply["id"])
    check_transcript(home, reply["id"])


def test_cancel_in_mid_tool_ends_agent_tool_and_task(home: ClaudeHome, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    home.script(
        CallTool("Bash", {"command": f"bash -c 'echo $$ > {pid_file}; sleep 600; echo b'"}), Say("never")
    )
    home.start()
    task = home.add("run it")
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
    home: ClaudeHome, status: int, reason: str
) -> None:
    home.script(Fail(status))
    home.start()
    done = home.wait(home.add("try"))
    assert (done["status"], done["failure_reason"]) == ("failed", reason)
    assert done["error"]
    assert any(line["type"] == "error" for line in home.transcript(done["id"]))


def test_a_model_server_that_hangs_is_ended_by_the_watchdog(home: ClaudeHome) -> None:
    home.script(Hang())
    home.start(OSTLER_WATCHDOG_IDLE="2s")
    done = home.wait(home.add("wait"))
    assert (done["status"], done["failure_reason"]) == ("failed", "idle_watchdog")
    assert "silent" in done["error"]
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    wait_until(lambda: len(home.processes()) == 1, "nothing but the daemon")


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_killed_before_during_and_after_the_tool_call(home: ClaudeHome, tmp_path: Path, when: str) -> None:
    started, go, counted = tmp_path / "started", tmp_path / "go", tmp_path / "counted"
    call, end = home.model.gate(), home.model.gate()
    tool = (
        f"echo x >> {counted}; touch {started}; while [ ! -e {go} ]; do sleep 0.05; done; echo tool-is-done"
    )
    home.script(CallTool("Bash", {"command": tool}, text="I call it.", gate=call), Say("All done.", gate=end))
    home.start()
    task = home.add("do it")
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
    assert (done["status"], done["result"]) == ("completed", "All done.")
    assert counted.read_text() == "x\n"
    home.wait_delivered(task)
    check_transcript(home, task, "I call it.All done.")
    kinds = [line["type"] for line in home.transcript(task)]
    assert kinds == ["text", "tool_use", "tool_result", "text"]
    assert len(home.model.requests(home.name)) == 2


def test_a_turn_that_ends_while_no_daemon_lives_waits_for_it(home: ClaudeHome) -> None:
    end = home.model.gate()
    home.script(Say("Here is the answer.", gate=end))
    home.start()
    task = home.add("ask")
    end.wait_reached()
    run_dir = home.run_dir(task)
    home.kill()
    end.release()
    wait_until(lambda: b'"result"' in (run_dir / "stdout").read_bytes(), "the agent to finish its turn")
    home.start()
    assert home.wait(task)["result"] == "Here is the answer."
    home.wait_delivered(task)
    check_transcript(home, task, "Here is the answer.")


def test_a_named_agent_brings_instructions_environment_and_mcp_servers(
    home: ClaudeHome, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    home.script(CallTool("Bash", {"command": f"env > {seen}; ls -la $OSTLER_HOME/state/runs/*"}), Say("done"))
    home.start()
    agent = home.call(
        "POST",
        "/v1/agents",
        {
            "name": "Reviewer",
            "runtime": "claude",
            "instructions": "Answer like a heron.",
            "model": "claude-sonnet-4-6",
            "env": {"REVIEW_KEY": "sesame", "OSTLER_TOKEN": "stolen", "PATH": "/nowhere"},
            "mcp_config": {"mcpServers": {"dead": {"type": "stdio", "command": "/nonexistent/server"}}},
        },
    )
    assert agent["env_names"]
    assert "sesame" not in json.dumps(agent)
    task = home.add("go", "", agent="reviewer")
    done = home.wait(task)
    assert (done["status"], done["agent"]) == ("completed", "Reviewer"), done["error"]
    environ = dict(line.partition("=")[::2] for line in seen.read_text().splitlines() if "=" in line)
    assert environ["REVIEW_KEY"] == "sesame"
    assert environ["OSTLER_TOKEN"].startswith("mat_")
    assert environ["OSTLER_TASK_ID"] == task
    assert environ["OSTLER_AGENT_NAME"] == "Reviewer"
    assert environ["OSTLER_SERVER_URL"] == environ["OSTLER_CONTROL_URL"]
    assert environ["PATH"] != "/nowhere"
    assert not any(name.startswith("MULTICA_") for name in environ)
    body = home.model.requests(home.name)[0]
    assert body["model"] == "claude-sonnet-4-6"
    assert "Answer like a heron." in json.dumps(body["system"])
    assert user_texts(body)[-1].endswith("go")
    assert not list(home.run_dir(task).glob("spec*"))


SKILL = {
    "name": "Heron lore",
    "content": "The heron's name is Ardea.\n",
    "description": "What to know about the heron",
    "files": {"facts/legs.txt": "It has two.\n"},
}


def _bytes(root: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Every path with its mode, its time (files) and its content."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns if path.is_file() else 0,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(root.rglob("*"))
    }


def _with_agent(home: ClaudeHome) -> None:
    home.call(
        "POST",
        "/v1/agents",
        {"name": "Keeper", "runtime": "claude", "instructions": "Answer like a heron.", "skills": [SKILL]},
    )


def _check_brief(home: ClaudeHome) -> None:
    """Instructions and skill are in what the model was sent."""
    body = json.dumps(home.model.requests(home.name)[0])
    assert "Answer like a heron." in body
    assert "What to know about the heron" in body


def test_brief_and_skill_reach_the_model_from_a_directory_of_ostlers_own(home: ClaudeHome) -> None:
    home.script(
        CallTool("Skill", {"skill": "heron-lore"}),
        CallTool("Bash", {"command": "cat .claude/skills/heron-lore/facts/legs.txt .ostler/task.json"}),
        Say("It is Ardea."),
        Say("Still Ardea."),
    )
    home.start()
    _with_agent(home)
    done = home.wait(home.add("What is it called?", "", agent="Keeper"))
    assert (done["status"], done["result"]) == ("completed", "It is Ardea."), done["error"]
    _check_brief(home)
    requests = home.model.requests(home.name)
    assert "The heron's name is Ardea." in json.dumps(requests[1])
    lines = home.transcript(done["id"])
    assert any("It has two." in (line.get("output") or "") for line in lines)
    assert any("ostler-task" in (line.get("output") or "") for line in lines)
    home.call("PATCH", "/v1/agents/Keeper", {"skills": []})
    second = home.call("POST", f"/v1/tasks/{done['id']}/reply", {"prompt": "And now?"})
    done = home.wait(second["id"])
    assert done["result"] == "Still Ardea."
    assert not (Path(done["work_dir"]) / ".claude").exists()  # what the earlier run had is taken out first


@pytest.mark.parametrize("killed", ["", "spawned", "in_run", "environment_write:6", "run_ended"])
def test_a_directory_of_the_user_is_as_it_was_whatever_happened(
    home: ClaudeHome, tmp_path: Path, killed: str
) -> None:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "CLAUDE.md").write_bytes(b"Mine, without a newline")
    (project / "src" / "a.py").write_bytes(b"print()\n")
    (project / ".claude" / "skills" / "heron-lore").mkdir(parents=True)
    (project / ".claude" / "skills" / "heron-lore" / "SKILL.md").write_bytes(b"mine")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "all")):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=project, check=True
        )
    before = _bytes(project)
    end = home.model.gate()
    status = tmp_path / "git-status"
    home.script(
        CallTool("Bash", {"command": f"git status --porcelain > {status}; ls .claude/skills"}),
        Say("It is Ardea.", gate=end),
    )
    home.start(kill_at="" if killed == "in_run" else killed)
    _with_agent(home)
    task = home.add("What is it called?", "", agent="Keeper", directory=str(project))
    if killed not in ("", "in_run", "run_ended"):
        home.wait_dead()
        home.start()
    end.wait_reached()
    if killed == "in_run":
        home.kill()
        home.start()
    end.release()
    if killed == "run_ended":
        home.wait_dead()
        home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "It is Ardea."), done["error"]
    _check_brief(home)
    assert "heron-lore-ostler" in home.transcript(task)[1]["output"]
    assert status.read_text() == ""  # nothing of ours is a change for git
    after = {path: found for path, found in _bytes(project).items() if not path.startswith(".git/index")}
    assert after == {path: found for path, found in before.items() if not path.startswith(".git/index")}


def test_what_a_daemon_left_goes_at_the_next_start_even_if_the_task_is_gone(
    home: ClaudeHome, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    home.script(Say("never"))
    home.start(kill_at="environment_write:9")
    _with_agent(home)
    task = home.add("go", "", agent="Keeper", directory=str(project))
    home.wait_dead()
    assert (project / ".claude").exists()
    home.directories.hub_file.unlink()
    home.directories.journal_file.unlink()
    home.start()
    assert not list(project.iterdir())
    assert task
