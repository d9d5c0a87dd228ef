"""The daemon's MCP endpoint, asked from inside runs and from outside."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.git_server import make_repository

ASK = """
import json, os, sys, urllib.error, urllib.request
for line in sys.stdin:
    request = urllib.request.Request(
        os.environ["OSTLER_CONTROL_URL"] + "/mcp",
        line.encode(),
        {"Authorization": "Bearer " + os.environ["OSTLER_TOKEN"], "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OstlerHome]:
    home = OstlerHome(tmp_path, environ={"GIT_CONFIG_NOSYSTEM": "1"}, claude=False)
    (home.root / "ask.py").write_text(ASK)
    yield home
    home.close()


def message(method: str, ident: int | None = 1, **params: Any) -> str:
    found: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(found if ident is None else {**found, "id": ident})


def ask_inside(home: OstlerHome, *lines: str) -> list[tuple[int, Any]]:
    """Say these to the endpoint from inside a task; statuses and decoded answers."""
    (home.root / "lines").write_text("".join(f"{line}\n" for line in lines))
    task = home.add(f"{sys.executable} {home.root}/ask.py < {home.root}/lines", "shell")
    done = home.wait(task)
    assert done["status"] == "completed", (done["error"], home.text(task))
    answers = []
    for line in home.text(task).splitlines():
        status, _, body = line.partition(" ")
        answers.append((int(status), json.loads(body) if body else None))
    return answers


def raw(port: int, method: str, headers: dict[str, str], body: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, "/mcp", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_run_is_offered_its_tools(world: OstlerHome) -> None:
    world.start()
    answers = ask_inside(
        world,
        message("initialize", 1, protocolVersion="2025-03-26", capabilities={}, clientInfo={"name": "t"}),
        message("notifications/initialized", None),
        message("tools/list", 2),
        message("ping", 3),
        message("resources/list", 4),
        "not json",
        "[]",
        json.dumps({"jsonrpc": "2.0", "id": 5}),
        "[" * 20_000,
    )
    first = answers[0][1]["result"]
    assert first["protocolVersion"] == "2025-03-26"
    assert first["serverInfo"]["name"] == "ostler"
    assert answers[1] == (202, None)
    tools = {tool["name"]: tool for tool in answers[2][1]["result"]["tools"]}
    assert "repo_checkout" in tools
    assert "issue_get" not in tools  # a conversation on this machine has no issue
    assert tools["repo_checkout"]["inputSchema"]["required"] == ["url"]
    assert answers[3][1]["result"] == {}
    assert answers[4][1]["error"]["code"] == -32601
    assert answers[5][0] == 400
    assert answers[5][1]["error"]["code"] == -32700
    assert answers[6] == (202, None)
    assert answers[7][1]["error"]["code"] == -32600
    assert answers[8][0] == 400
    assert answers[8][1]["error"]["code"] == -32700


def test_a_repository_is_checked_out_by_a_tool(world: OstlerHome, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "srv" / "app")
    (world.user_home / ".gitconfig").write_text("[user]\n\tname = T\n\temail = t@example.com\n")
    world.directories.config_file.parent.mkdir(parents=True, exist_ok=True)
    world.directories.config_file.write_text(f'[repositories]\nurls = ["{source}"]\n')
    world.start()
    answers = ask_inside(
        world,
        message("tools/call", 1, name="repo_checkout", arguments={"url": str(source)}),
        message("tools/call", 2, name="repo_checkout", arguments={"url": str(tmp_path / "elsewhere")}),
        message("tools/call", 3, name="repo_checkout", arguments={"url": 7}),
        message("tools/call", 4, name="no_such_tool", arguments={}),
        message("tools/call", 5, name="repo_checkout", arguments=[1]),
    )
    done = answers[0][1]["result"]
    assert done["isError"] is False
    assert Path(done["structuredContent"]["path"]).joinpath(".git").exists()
    assert answers[1][1]["result"]["isError"] is True
    assert answers[2][1]["result"]["isError"] is True
    assert answers[3][1]["error"]["code"] == -32602
    assert answers[4][1]["error"]["code"] == -32602


def test_nobody_else_is_answered(world: OstlerHome) -> None:
    world.start()
    port = world.status()["port"]
    body = message("tools/list")
    assert raw(port, "POST", {}, body)[0] == 401
    assert raw(port, "POST", {"Authorization": "Bearer mat_guess"}, body)[0] == 401
    own = (world.directories.token_file).read_text().strip()
    assert raw(port, "POST", {"Authorization": f"Bearer {own}"}, body)[0] == 401  # the user is not a task
    assert raw(port, "GET", {})[0] == 405
    gate = world.root / "gate"
    task = world.add(
        f"echo $OSTLER_TOKEN > {world.root}/token; while [ ! -e {gate} ]; do sleep 0.05; done", "shell"
    )
    token = wait_until(lambda: _text(world.root / "token"), "the run's token")
    good = {"Authorization": f"Bearer {token}"}
    assert raw(port, "POST", good, body)[0] == 200
    assert raw(port, "POST", {**good, "Origin": "http://example.com"}, body)[0] == 403
    assert raw(port, "POST", {**good, "Host": "example.com"}, body)[0] == 403
    assert raw(port, "POST", good, "x" * (1024 * 1024 + 1))[0] == 413
    gate.touch()
    world.wait(task)
    assert raw(port, "POST", good, body)[0] == 401  # the token has ended with its task


def test_the_same_port_answers_after_a_restart(world: OstlerHome) -> None:
    world.start()
    gate = world.root / "gate"
    ask = f"{sys.executable} {world.root}/ask.py < {world.root}/lines"
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; {ask}"
    (world.root / "lines").write_text(message("tools/list") + "\n")
    task = world.add(script, "shell")
    wait_until(lambda: world.task(task)["status"] == "running", "the run")
    world.kill()
    world.start()
    gate.touch()
    done = world.wait(task)
    assert done["status"] == "completed", world.text(task)
    assert world.text(task).startswith("200 ")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
