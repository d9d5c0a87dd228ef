"""A whole daemon does what the hub's board asks: issues, comments, chats; with a token made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.scripted_agent import script


class Board:
    """The hub of a running daemon, over its loopback port."""

    def __init__(self, home: OstlerHome) -> None:
        self.home = home
        self.port = int(home.call("GET", "/v1/status")["port"])
        command = [sys.executable, "-m", "daemon_core.hub.mint", str(home.directories.hub_file)]
        self.token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        (self.workspace,) = self.ask("GET", "/api/workspaces")
        (self.runtime,) = [
            each["id"] for each in self.ask("GET", "/api/runtimes") if each["provider"] == "claude"
        ]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", **headers},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def comments(self, issue_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/api/issues/{issue_id}/comments")
        return found


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    home = OstlerHome(tmp_path)
    home.start()
    try:
        yield Board(home)
        home.stop()
    finally:
        home.close()


def test_an_issue_is_worked_on_and_answered(board: Board) -> None:
    body = {
        "name": "Ann",
        "runtime_id": board.runtime,
        "custom_env": {"SCRIPTED_AGENT_SCRIPT": script({"text": "It is oiled."})},
    }
    agent = board.ask("POST", "/api/agents", body)
    issue = board.ask(
        "POST",
        "/api/issues",
        {"title": "Mend the door", "assignee_type": "agent", "assignee_id": agent["id"]},
    )
    (said,) = wait_until(lambda: board.comments(issue["id"]), "the answer on the issue")
    assert (said["author_type"], said["content"]) == ("agent", "It is oiled.")
    (run,) = board.ask("GET", f"/api/issues/{issue['id']}/task-runs")
    assert (run["status"], run["kind"]) == ("completed", "direct")
    shown = board.home.task(run["id"])
    assert shown["status"] == "completed"

    asked = board.ask("POST", f"/api/issues/{issue['id']}/comments", {"content": "And the window?"})

    def answered() -> list[dict[str, Any]]:
        return [each for each in board.comments(issue["id"]) if each["parent_id"] == asked["id"]]

    (said,) = wait_until(answered, "the answer to the comment")
    assert said["content"] == "It is oiled."


def test_the_agent_is_told_of_its_issue_and_the_commands_for_it(board: Board, tmp_path: Path) -> None:
    dump, go = tmp_path / "dump.json", tmp_path / "go"
    steps = script({"dump": str(dump)}, {"wait_for": str(go)}, {"text": "So."})
    body = {"name": "Ann", "runtime_id": board.runtime, "custom_env": {"SCRIPTED_AGENT_SCRIPT": steps}}
    agent = board.ask("POST", "/api/agents", body)
    issue = board.ask(
        "POST",
        "/api/issues",
        {"title": "Mend the door", "assignee_type": "agent", "assignee_id": agent["id"]},
    )
    wait_until(lambda: dump.exists() and dump.read_text().endswith("}"), "the agent to begin")
    told = json.loads(dump.read_text())
    argv = told["argv"]
    brief = Path(argv[argv.index("--append-system-prompt-file") + 1]).read_text()
    assert f"ostler issue metadata list {issue['id']}" in brief
    assert told["environ"]["OSTLER_TOKEN"].startswith("mat_")
    asked = board.ask("GET", "/api/issues/LOC-1", Authorization=f"Bearer {told['environ']['OSTLER_TOKEN']}")
    assert asked["id"] == issue["id"]
    key = asked["identifier"]
    assert ostler(told, "issue", "get", key)["id"] == issue["id"]
    assert ostler(told, "issue", "status", key, "in_progress")["status"] == "in_progress"
    ostler(told, "issue", "comment", "add", key, "--content", "I have begun.")
    assert [each["content"] for each in ostler(told, "issue", "comment", "list", key)] == ["I have begun."]
    assert ostler(told, "issue", "metadata", "set", key, "pr", "12")["metadata"] == {"pr": "12"}
    assert [each["id"] for each in ostler(told, "issue", "runs", key)] == [told["environ"]["OSTLER_TASK_ID"]]
    assert ostler(told, "project", "list")["projects"] == []
    note = tmp_path / "note é.txt"
    note.write_bytes(bytes(range(256)))
    file = ostler(told, "attachment", "upload", str(note))
    assert (file["filename"], file["size_bytes"]) == ("note é.txt", 256)
    ostler(told, "attachment", "download", file["id"], "-o", str(tmp_path / "again.txt"))
    assert (tmp_path / "again.txt").read_bytes() == note.read_bytes()
    go.touch()
    (run,) = board.ask("GET", f"/api/issues/{issue['id']}/task-runs")
    board.home.wait(run["id"])
    assert [each["content"] for each in board.comments(issue["id"])] == ["I have begun."]


def ostler(told: dict[str, Any], *words: str) -> Any:
    """What the command line says to an agent, in its environment and directory."""
    command = [sys.executable, "-m", "daemon_core.cli", *words, "--json"]
    environ = {**told["environ"], "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environ, cwd=told["cwd"], timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_strangers_and_web_pages_are_refused(board: Board) -> None:
    for headers, status in (
        ({"Authorization": "Bearer mul_" + "0" * 40}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            board.ask("GET", "/api/workspaces", **headers)
        assert refused.value.code == status
        refused.value.close()


def test_there_is_no_token_for_a_hub_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "daemon_core.hub.mint", str(tmp_path / "hub.db")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert not (tmp_path / "hub.db").exists()


def test_a_workspace_that_is_made_is_worked_in_until_it_is_gone(board: Board) -> None:
    made = board.ask("POST", "/api/workspaces", {"name": "Side work"})
    here = {"X-Workspace-ID": made["id"]}

    def claude() -> Any:
        listed = board.ask("GET", "/api/runtimes", **here)
        return next((each for each in listed if each["provider"] == "claude"), None)

    wait_until(lambda: claude() is not None, "the daemon to register there")
    agent = board.ask("POST", "/api/agents", {"name": "Ann", "runtime_id": claude()["id"]}, **here)
    issue = board.ask(
        "POST",
        "/api/issues",
        {
            "title": "Say it",
            "description": script({"text": "It is said."}),
            "assignee_type": "agent",
            "assignee_id": agent["id"],
        },
        **here,
    )
    path = f"/api/issues/{issue['id']}/task-runs"

    def ended() -> bool:
        return [each["status"] for each in board.ask("GET", path, **here)] == ["completed"]

    wait_until(ended, "the task")
    board.ask("DELETE", f"/api/workspaces/{made['id']}")

    def left() -> bool:
        known = board.home.call("GET", "/v1/runtimes")
        return made["id"] not in {each["workspace_id"] for each in known}

    wait_until(left, "the daemon to leave it")
    assert board.home.wait(board.home.add("echo still here", "shell"))["status"] == "completed"
