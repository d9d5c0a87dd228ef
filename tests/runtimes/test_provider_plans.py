"""How each provider that comes with Ostler is started, against how it is documented to be."""

from __future__ import annotations

import pytest

from daemon_core.agents.families import families
from daemon_core.agents.family import LaunchPlan, LaunchRequest
from daemon_core.runtimes.providers import Provider, builtin

# What follows the program: everything unasked, a model "m", a thinking level "high", an earlier session "s".
STARTED = {
    "claude": "-p --input-format stream-json --output-format stream-json --verbose"
    " --permission-mode bypassPermissions --model m --effort high --resume s"
    " --disallowedTools AskUserQuestion",
    "codebuddy": "-p --input-format stream-json --output-format stream-json --verbose"
    " --permission-mode bypassPermissions --model m --effort high --resume s"
    " --disallowedTools AskUserQuestion EnterPlanMode ExitPlanMode",
    "codex": "app-server --listen stdio://",
    "opencode": "run --format json --auto --thinking --dir /w -m m --variant high -s s",
    "deveco": "run --format json --dangerously-skip-permissions --thinking --dir /w --model m --variant high"
    " -s s -- PROMPT",
    "gemini": "-o stream-json --yolo -m m -r s",
    "qwen": "-o stream-json --yolo --model m --resume s",
    "copilot": "-p PROMPT --output-format json --allow-all --no-ask-user --model m --resume s",
    "cursor": "-p --output-format stream-json --yolo --workspace /w --model m --resume s",
    "antigravity": "-p PROMPT --dangerously-skip-permissions --print-timeout 24h --log-file /r/agent.log"
    " --add-dir /w --model m --conversation s",
    "openclaw": "agent --local --json --session-id s --agent m --message=PROMPT",
    "pi": "-p --mode json --session s --model m --thinking high",
    "omp": "-p --mode json --session s --model m --thinking high",
    "dsh": "--profile multica --stdio",
    "hermes": "acp",
    "kimi": "acp",
    "kiro": "acp --trust-all-tools",
    "reasonix": "acp --profile balanced --planner auto --sandbox-network auto --sandbox-bash auto"
    " --workspace-only",
    "qoder": "--yolo --acp",
    "qoderclicn": "--yolo --acp",
    "traecli": "acp serve --yolo",
    "grok": "--no-auto-update agent --always-approve --effort high stdio",
    "qwenpaw": "acp --workspace /w",
    "mcode": "acp",
    "dim": "acp",
    "codex-acp": "",
    "claude-code-acp": "",
    "shell": "/r/command.sh",
}
# Options that nobody else may give, with a value where they take one.
REFUSED = {
    "claude": "-p --output-format x --input-format x --permission-mode x --mcp-config x --effort x",
    "codex": "--listen x",
    "opencode": "--format x --dir x --variant x --dangerously-skip-permissions",
    "deveco": "--format x --dir x --variant x --dangerously-skip-permissions",
    "qwen": "--output-format x --model x --resume x --mcp-config x --safe-mode --approval-mode x"
    " --core-tools x",
    "copilot": "-p --output-format x --allow-all --allow-tool x --yolo --no-ask-user --resume --acp",
    "cursor": "-p --output-format x --yolo",
    "antigravity": "-p x --dangerously-skip-permissions --model x --print-timeout x --log-file x"
    " --conversation x --add-dir x -c -i x --settings x",
    "openclaw": "--local --json --session-id x --message x --model x --system-prompt x",
    "hermes": "acp --yolo",
    "kiro": "acp --trust-all-tools",
    "reasonix": "acp --profile x --planner x --sandbox-network x --sandbox-bash x --workspace-only",
    "qoder": "--yolo --acp",
    "traecli": "acp serve --yolo",
    "grok": "agent stdio --always-approve --model x --effort x --resume --worktree",
    "dim": "acp",
}


def plan(provider: Provider, **more: object) -> LaunchPlan:
    fields = {
        "model": "m", "thinking_level": "high", "resume_session_id": "s", "executable": "/x",
        "prompt": "PROMPT", "work_dir": "/w", "run_dir": "/r",
    }  # fmt: skip
    request = LaunchRequest(provider=provider.id, drive=provider.drive, **{**fields, **more})  # type: ignore[arg-type]
    return families()[provider.family].plan(request)


def test_none_is_forgotten() -> None:
    assert STARTED.keys() == set(builtin().ids)


@pytest.mark.parametrize("provider", builtin().providers, ids=lambda provider: provider.id)
def test_it_is_started_as_documented(provider: Provider) -> None:
    assert " ".join(plan(provider).argv[1:]) == STARTED[provider.id]


@pytest.mark.parametrize("name", tuple(REFUSED))
def test_what_decides_how_it_is_driven_is_refused_from_others(name: str) -> None:
    provider = builtin().get(name)
    assert provider is not None
    given = tuple(REFUSED[name].split())
    made = plan(provider, extra_args=(*given, "--harmless"))

    assert made.dropped_args == given
    assert " ".join(made.argv[1:]).replace(" --harmless", "").replace("--harmless ", "") == STARTED[name]
    assert "--harmless" in made.argv


@pytest.mark.parametrize("name", ["gemini", "qwen", "copilot", "opencode"])
def test_while_the_user_wants_to_be_asked_it_speaks_acp(name: str) -> None:
    provider = builtin().get(name)
    assert provider is not None
    assert provider.ask_family == "acp"
    assert provider.ask_drive is not None
    request = LaunchRequest(
        provider=name, drive=provider.ask_drive, executable="/x", prompt="p", work_dir="/w", run_dir="/r",
        permission_mode="ask",
    )  # fmt: skip
    argv = families()["acp"].plan(request).argv
    assert argv == ("/x", "acp" if name == "opencode" else "--acp")


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("hermes", "HERMES_YOLO_MODE", "1"),
        ("gemini", "GEMINI_CLI_NO_RELAUNCH", "true"),
        ("qwen", "QWEN_CODE_NO_RELAUNCH", "true"),
        ("deveco", "PWD", "/w"),
    ],
)
def test_variables_that_it_needs(name: str, variable: str, value: str) -> None:
    provider = builtin().get(name)
    assert provider is not None
    assert plan(provider).env[variable] == value


def test_a_provider_of_the_users_own_brings_its_own_variables() -> None:
    claude = builtin().get("claude")
    assert claude is not None
    drive = type(claude.drive)(args=("--settings", "{run_dir}/x"), env={"CLAUDE_CONFIG_DIR": "/mine"})
    request = LaunchRequest(
        provider="mine", drive=drive, executable="/x", prompt="p", work_dir="/w", run_dir="/r", model="m"
    )
    made = families()["claude-stream-json"].plan(request)
    assert made.argv[1:4] == ("--settings", "/r/x", "-p")
    assert made.env["CLAUDE_CONFIG_DIR"] == "/mine"
    assert "--model" in made.argv
