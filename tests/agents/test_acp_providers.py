"""Every provider that is driven over ACP and that nobody here can run: a stand-in under its name is started
as its entry says, and plays what its makers document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon_core.agents import events as ev
from daemon_core.agents.acp import AcpFamily
from daemon_core.agents.family import Drive, LaunchRequest
from daemon_core.protocol import failures
from daemon_core.runtimes.providers import Provider, builtin
from tests.support.driving import Driven, drive
from tests.support.scripted_acp import install_scripted_acp, script

RESUMES = {
    "session/resume": ["hermes", "kimi", "qoder", "qoderclicn", "reasonix"],
    "session/load": ["kiro", "grok", "traecli", "qwenpaw", "mcode", "dim"],
}
ARGUMENTS: dict[str, list[str]] = {
    "hermes": ["acp"],
    "kimi": ["acp"],
    "kiro": ["acp", "--trust-all-tools"],
    "reasonix": [
        *("acp", "--profile", "balanced", "--planner", "auto", "--sandbox-network", "auto"),
        *("--sandbox-bash", "auto", "--workspace-only"),
    ],
    "qoder": ["--yolo", "--acp"],
    "qoderclicn": ["--yolo", "--acp"],
    "traecli": ["acp", "serve", "--yolo"],
    "grok": ["--no-auto-update", "agent", "--always-approve", "stdio"],
    "qwenpaw": ["acp", "--workspace", "{work}"],
    "mcode": ["acp"],
    "dim": ["acp"],
    "codex-acp": [],
    "claude-code-acp": [],
    "copilot": ["--acp"],
    "gemini": ["--acp"],
    "qwen": ["--acp"],
    "opencode": ["acp"],
}
ASKING: dict[str, list[str]] = {
    "kiro": ["acp"],
    "qoder": ["--acp"],
    "qoderclicn": ["--acp"],
    "traecli": ["acp", "serve"],
    "grok": ["--no-auto-update", "agent", "stdio"],
}
"""Without what lets them do everything unasked."""


def entry(name: str) -> Provider:
    found = builtin().get(name)
    assert found is not None
    return found


def drive_of(name: str) -> Drive:
    """How a provider is driven over ACP, always or when the user wants to be asked."""
    found = entry(name)
    if found.family == "acp":
        return found.drive
    assert found.ask_family == "acp"
    assert found.ask_drive is not None
    return found.ask_drive


class World:
    """Directories for runs of one stand-in, and what it has seen."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.place = root / "seen"
        self.place.mkdir()
        self.work_dir = root / "work"
        self.work_dir.mkdir()
        self.program = install_scripted_acp(root / "bin", entry(name).executables[0])
        self.runs = 0

    def run(self, *steps: dict[str, Any], **changes: Any) -> Driven:
        self.runs += 1
        run_dir = self.root / f"run-{self.runs}"
        run_dir.mkdir(mode=0o700)
        request = LaunchRequest(
            provider=self.name,
            drive=drive_of(self.name),
            executable=str(self.program),
            prompt=script(*steps),
            work_dir=str(self.work_dir),
            run_dir=str(run_dir),
            **changes,
        )
        environ = {"PATH": "/usr/bin:/bin", "SCRIPTED_ACP": str(self.place)}
        return drive(AcpFamily(), request, environ)

    def offer(self, **offers: Any) -> None:
        (self.place / "offers.json").write_text(json.dumps(offers))

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.place / "received").read_text().splitlines()]

    def methods(self) -> list[str]:
        return [message["method"] for message in self.received() if "method" in message]

    def argv(self) -> list[str]:
        found: list[str] = json.loads((self.place / "argv").read_text())
        return found

    def environ(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.place / "environ").read_text())
        return found


def test_no_provider_over_acp_is_forgotten() -> None:
    over_acp = {each.id for each in builtin() if "acp" in (each.family, each.ask_family)}

    assert over_acp == set(ARGUMENTS)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_a_turn_of_each_provider(tmp_path: Path, name: str) -> None:
    world = World(tmp_path, name)
    steps: list[dict[str, Any]] = [
        {"thinking": "Hm."},
        {"text": "I look."},
        {"tool": {"id": "t1", "rawInput": {"command": "ls"}, "output": "a\nb"}},
        {"update": {"sessionUpdate": "plan", "entries": [{"content": "one", "status": "pending"}]}},
        {"ask": {}},
        {"request": "fs/read_text_file"},
        {"text": " Done."},
    ]
    driven = world.run(*steps)

    assert driven.outcome.success, (driven.outcome, driven.stderr)
    assert driven.outcome.output == "The answer was allow_once-option.The error was -32601. Done."
    assert driven.exit_code == 0
    kinds = [type(event).__name__ for event in driven.events if not isinstance(event, ev.UsageSeen)]
    assert kinds == [
        *("SessionStarted", "Thinking", "Text", "ToolUse", "ToolResult", "PlanChanged", "ToolUse", "Text"),
        "TurnEnded",
    ]
    assert [(one.provider, one.input_tokens, one.output_tokens) for one in driven.outcome.usage] == [
        (name, 60, 12)
    ]
    assert world.argv() == [arg.format(work=world.work_dir) for arg in ARGUMENTS[name]]
    assert world.methods()[:2] == ["initialize", "session/new"]


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_each_provider_under_the_policy_ask_may_not_do_everything_unasked(tmp_path: Path, name: str) -> None:
    world = World(tmp_path, name)
    driven = world.run({"ask": {}}, permission_mode="deny")

    assert driven.outcome.output == "The answer was reject_once-option."
    expected = ASKING.get(name, ARGUMENTS[name])
    assert world.argv() == [arg.format(work=world.work_dir) for arg in expected]
    assert "HERMES_YOLO_MODE" not in world.environ()
    assert ("OPENCODE_PERMISSION" in world.environ()) == (name == "opencode")


@pytest.mark.parametrize(
    ("method", "name"), [(way, name) for way, names in RESUMES.items() for name in names]
)
def test_each_provider_resumes_in_its_way(tmp_path: Path, method: str, name: str) -> None:
    world = World(tmp_path, name)
    first = world.run({"text": "one"})
    second = world.run({"text": "two"}, resume_session_id=first.outcome.session_id)
    third = world.run({"text": "three"}, resume_session_id="gone")

    assert (second.outcome.success, second.outcome.output) == (True, "two")
    assert second.outcome.session_id == first.outcome.session_id
    assert second.of(ev.Text) == [ev.Text("two")]
    assert method in world.methods()
    assert third.outcome.resume_refused


def test_hermes_does_everything_unasked_only_when_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, "hermes")
    world.run({"text": "x"})

    assert world.environ()["HERMES_YOLO_MODE"] == "1"


def test_grok_signs_in_first_and_takes_its_level_before_its_subcommand(tmp_path: Path) -> None:
    world = World(tmp_path, "grok")
    world.offer(hello={"authMethods": [{"id": "cached_token", "name": "Cached"}]})
    driven = world.run(
        {"text": "x"}, thinking_level="high", model="grok-x", extra_args=("--verbose", "--resume", "s")
    )

    assert driven.outcome.success
    assert world.methods()[:4] == ["initialize", "authenticate", "session/new", "session/set_model"]
    assert world.received()[1]["params"] == {"methodId": "cached_token"}
    assert world.argv() == [
        *("--no-auto-update", "agent", "--always-approve", "--verbose", "--effort", "high", "stdio")
    ]


def test_dim_gets_its_permissions_and_its_session_is_closed(tmp_path: Path) -> None:
    world = World(tmp_path, "dim")
    world.run({"text": "x"})

    asked = [
        (each["method"], each["params"].get("configId"), each["params"].get("value"))
        for each in world.received()
    ]
    assert ("session/set_config_option", "mode", "agent") in asked
    assert ("session/set_config_option", "permission", "full-access") in asked
    assert world.methods()[-1] == "session/close"
    world.run({"text": "x"}, permission_mode="deny")
    again = world.received()[len(asked) :]
    assert "full-access" not in json.dumps(again)


def test_kimi_fails_where_only_its_stderr_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, "kimi")
    driven = world.run({"stderr": "LLM API call failed: Error code: 401 - invalid"})

    assert not driven.outcome.success
    assert driven.outcome.reason == failures.AGENT_AUTH


@pytest.mark.parametrize(
    ("name", "mode"), [("codex-acp", "full-access"), ("claude-code-acp", "bypassPermissions")]
)
def test_a_mode_is_chosen_where_it_is_offered(tmp_path: Path, name: str, mode: str) -> None:
    world = World(tmp_path, name)
    modes = {
        "currentModeId": "auto",
        "availableModes": [{"id": "auto", "name": "A"}, {"id": mode, "name": "F"}],
    }
    world.offer(session={"modes": modes})
    world.run({"text": "x"})

    (asked,) = [each for each in world.received() if each.get("method") == "session/set_mode"]
    assert asked["params"]["modeId"] == mode


def test_an_agent_that_ignores_the_end_of_its_input_is_ended(tmp_path: Path) -> None:
    world = World(tmp_path, "kimi")
    driven = world.run({"text": "Finished."}, {"ignore_eof": True})

    assert driven.exit_code == -15
    assert (driven.outcome.success, driven.outcome.output) == (True, "Finished.")
