"""Real agent CLIs are given Ostler's own MCP server, and call it: also the one of the next daemon."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.home import PATIENT, OstlerHome, check_transcript, holding, wait_until
from tests.support import npm_clis
from tests.support.acp_clis import AGENTS
from tests.support.claude_cli import claude_env
from tests.support.codex_cli import codex_env
from tests.support.git_server import make_repository
from tests.support.model_responses import ResponsesServer
from tests.support.model_server import CallTool, ModelServer, Say
from tests.support.stream_clis import environ_of

pytestmark = pytest.mark.timeout(240)

Environ = Callable[[Path, str], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Cli:
    """One CLI: its scripted model, its environment, and how its model calls what."""

    name: str
    server: Callable[[], ModelServer]
    environ: Environ
    shell: Callable[[str], CallTool]
    tool: str
    model: Mapping[str, str] = field(default_factory=dict)
    deferred: bool = False
    """Its model finds such tools by a search."""


def _stream(name: str) -> Cli:
    cli = AGENTS[name]
    return Cli(
        name=name,
        server=cli.server,
        environ=lambda home, url: environ_of(name, home, url),
        shell=lambda command: cli.shell(command),
        tool=cli.mcp_tool("ostler", "repo_checkout"),
        model={"model": cli.model} if cli.model else {},
        deferred=name == "qwen",
    )


CLIS = (
    Cli(
        name="claude",
        server=ModelServer,
        environ=claude_env,
        shell=lambda command: CallTool("Bash", {"command": command}),
        tool="mcp__ostler__repo_checkout",
    ),
    Cli(
        name="codex",
        server=ResponsesServer,
        environ=codex_env,
        shell=lambda command: CallTool("exec_command", {"cmd": command, "yield_time_ms": 30000}),
        tool="mcp__ostler.repo_checkout",
    ),
    *(_stream(name) for name in ("opencode", "gemini", "qwen")),
)


@pytest.fixture(
    params=[
        pytest.param(cli, id=cli.name, marks=getattr(pytest.mark, mark))
        for cli, mark in zip(CLIS, ("claude", "codex", "streams", "streams", "streams"), strict=True)
    ]
)
def cli(request: pytest.FixtureRequest) -> Cli:
    npm_clis.require(request.param.name)
    found: Cli = request.param
    return found


@pytest.fixture
def model(cli: Cli) -> Iterator[ModelServer]:
    with cli.server() as server:
        yield server


@pytest.fixture
def home(cli: Cli, model: ModelServer, tmp_path: Path) -> Iterator[OstlerHome]:
    environ = cli.environ(tmp_path / "user", model.url("own"))
    del environ["PATH"]
    made = OstlerHome(tmp_path, environ={**environ, **PATIENT, "GIT_CONFIG_NOSYSTEM": "1"}, claude=False)
    npm_clis.link(cli.name, made.bin)
    node = shutil.which("node")
    assert node is not None
    (made.bin / "node").symlink_to(node)
    (made.user_home / ".gitconfig").write_text("[user]\n\tname = T\n\temail = t@example.com\n")
    yield made
    made.close()


def configure(home: OstlerHome, text: str) -> None:
    home.directories.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.directories.config_file.write_text(text)


def _command_lines(agent: psutil.Process) -> Iterator[str]:
    """Of the agent and all below it; what it has running comes and goes meanwhile."""
    for each in (agent, *agent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield " ".join(each.cmdline())


def test_an_agent_calls_a_tool_of_a_daemon_that_began_after_it(
    home: OstlerHome, cli: Cli, model: ModelServer, tmp_path: Path
) -> None:
    source = make_repository(tmp_path / "srv" / "app")
    configure(home, f'[repositories]\nurls = ["{source}"]\n')
    started, go = tmp_path / "started", tmp_path / "go"
    waiting = f"touch {started}; while [ ! -e {go} ]; do sleep 0.05; done; echo is-done"
    model.scenario(
        "own",
        [cli.shell(waiting), CallTool(cli.tool, {"url": str(source)}, deferred=cli.deferred), Say("Got it.")],
    )
    home.start()
    task = home.add("Get the repository", cli.name, **cli.model)
    wait_until(started.exists, "the tool to run")
    agent = psutil.Process(home.shim(task)["child_pid"])
    token = agent.environ()["OSTLER_TOKEN"]
    assert token.startswith("mat_")
    home.kill()
    assert agent.is_running()
    assert not [line for line in _command_lines(agent) if token in line]
    run_dir = home.run_dir(task)
    secret = holding(tmp_path, token)
    assert {path.parent for path in secret} == {run_dir}
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert all(path.name.startswith("spec") or path.name == "claim.json" for path in secret), secret
    home.start()
    go.touch()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "Got it."), done["error"]
    results = [line for line in home.transcript(task) if line["type"] == "tool_result"]
    assert [path for path in Path(done["work_dir"]).iterdir() if (path / ".git").is_file()], results
    home.wait_delivered(task)
    check_transcript(home, task)
    results = [line for line in home.transcript(task) if line["type"] == "tool_result"]
    assert len(results) == 2
    assert '"branch"' in results[1]["output"].replace("\\", "")
    wait_until(lambda: not holding(tmp_path, token), "the token to be gone")


@pytest.mark.claude
def test_users_who_do_not_offer_it_have_agents_without_it(tmp_path: Path) -> None:
    with ModelServer() as model:
        home = OstlerHome(tmp_path, environ=_without_path(claude_env(tmp_path / "user", model.url("own"))),
                          claude=False)  # fmt: skip
        npm_clis.link("claude", home.bin)
        try:
            configure(home, "[agents.claude]\nmcp = 'off'\n")
            model.scenario("own", [Say("one")])
            home.start()
            assert home.wait(home.add("go"))["status"] == "completed"
            assert not _tools_of_ours(model)
            configure(home, "[mcp]\noffer = true\n")
            home.call("POST", "/v1/settings/reload")
            model.scenario("own", [Say("two")])
            (home.user_home / ".claude.json").write_text(json.dumps({"mcpServers": {"ostler": {}}}))
            assert home.wait(home.add("go"))["status"] == "completed"
            assert _tools_of_ours(model) == {"mcp__ostler-own__repo_checkout"}
        finally:
            home.close()


def _without_path(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name != "PATH"}


def _tools_of_ours(model: ModelServer) -> set[str]:
    body: dict[str, Any] = model.requests("own")[-1]
    return {name for name in model.offered(body) if "repo_checkout" in name}
