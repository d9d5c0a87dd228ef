"""Agents of the user's own, their models, and what `ostler doctor` makes of all that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.scripted_agent import install_scripted_agent, script

MINE = 'extends = "claude"\nname = "Mine"\nexecutables = ["my-agent"]\n'


def ostler(home: OstlerHome, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *arguments],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def own_provider(home: OstlerHome, text: str, name: str = "mine") -> Path:
    file = home.directories.providers / f"{name}.toml"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text(text)
    return file


def runtimes(home: OstlerHome, *, refresh: bool = False) -> dict[str, dict[str, Any]]:
    found = home.call("GET", f"/v1/runtimes{'?refresh=true' if refresh else ''}")
    return {view["provider"]: view for view in found}


def checks(home: OstlerHome, *arguments: str) -> dict[str, dict[str, Any]]:
    done = ostler(home, "doctor", "--json", *arguments)
    assert done.stdout, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_provider_of_the_users_own_comes_goes_and_runs_without_a_restart(home: OstlerHome) -> None:
    install_scripted_agent(home.bin, "my-agent")
    home.start()
    assert "mine" not in runtimes(home)

    file = own_provider(home, MINE)
    runtimes(home, refresh=True)
    wait_until(lambda: runtimes(home).get("mine", {}).get("status") == "online", "it to be online")
    assert runtimes(home)["mine"]["verified"] is False
    task = home.wait(home.add(script({"text": "from mine"}), runtime="mine"))
    assert task["status"] == "completed"
    assert task["runtime"] == "mine"

    file.write_text(MINE.replace("extends", "extend"))
    runtimes(home, refresh=True)
    (condition,) = [each for each in home.status()["conditions"] if each["code"] == "provider_invalid"]
    assert condition["params"]["file"] == str(file)
    assert condition["params"]["line"] == 1
    assert condition["params"]["hint"] == "Did you mean extends?"
    assert runtimes(home)["mine"]["reason"] == "provider_invalid"
    assert f"{file}:1: there is no key extend" in ostler(home, "runtimes").stderr

    file.write_text(MINE)
    home.call("POST", "/v1/settings/reload")
    wait_until(lambda: not home.status()["conditions"], "the condition to be cleared")
    wait_until(lambda: runtimes(home).get("mine", {}).get("status") == "online", "it to be online again")


def test_a_choice_that_an_agent_does_not_have_is_dropped_with_a_warning(home: OstlerHome) -> None:
    install_scripted_agent(home.bin, "my-agent")
    own_provider(
        home,
        MINE + '[models]\nsource = "static"\nknown = [{ id = "one", thinking = ["low"] }]\nany = false\n'
        "[thinking]\nlevels = []\nhelp = []\n",
    )
    home.start()
    listed = home.call("GET", "/v1/runtimes/mine/models")
    assert [model["id"] for model in listed["models"]] == ["one"]
    assert (listed["source"], listed["open"]) == ("static", False)
    with pytest.raises(ControlError) as unknown:
        home.call("GET", "/v1/runtimes/nobody/models")
    assert unknown.value.code == "unknown_runtime"

    task = home.wait(home.add(script({"text": "x"}), runtime="mine", model="two", thinking="low"))
    assert task["status"] == "completed"
    assert any("no model two here" in str(notice["params"]) for notice in task["notices"]), task["notices"]

    table = ostler(home, "models", "mine")
    assert table.returncode == 0, table.stderr
    assert "one" in table.stdout
    document = json.loads(ostler(home, "models", "mine", "--json").stdout)
    assert document["models"][0]["thinking_levels"] == ["low"]


def test_doctor_gives_agents_a_tiny_task_only_when_asked(home: OstlerHome) -> None:
    home.start()
    assert not any(name.startswith("run of") for name in checks(home))
    assert home.call("GET", "/v1/tasks?all=true") == []

    told = checks(home, "--agent", "shell", "--agent", "nobody")
    assert told["run of shell"]["ok"] is True
    assert "It answered in" in told["run of shell"]["detail"]
    assert told["run of nobody"]["ok"] is False
    assert home.call("GET", "/v1/tasks?all=true") == []

    every = checks(home, "--run-agents")
    assert "run of claude" in every
    assert "run of shell" not in every


def test_doctor_looks_for_agents_itself_while_no_daemon_can_be_asked(home: OstlerHome) -> None:
    file = own_provider(home, MINE.replace('["my-agent"]', "[]"))
    found = checks(home)
    assert found["agent claude"]["ok"] is True
    assert found["provider invalid"]["detail"].endswith(f"{file}:3: no program is named")


def test_a_program_that_cannot_run_here_is_told_apart(home: OstlerHome) -> None:
    foreign = home.bin / "opencode"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(44))
    foreign.chmod(0o755)
    (home.bin / "gemini").write_text("#!/usr/bin/env no-such-node\n")
    (home.bin / "gemini").chmod(0o755)
    (home.bin / "qwen").write_text("not executable")
    home.start()
    found = checks(home)
    assert "program for Linux on riscv64" in found["agent opencode"]["detail"]
    assert "no-such-node" in found["agent gemini"]["detail"]
    assert "chmod +x" in found["agent qwen"]["hint"]
    assert not any(found[f"agent {name}"]["ok"] for name in ("opencode", "gemini", "qwen"))


def test_a_run_finds_its_interpreter_where_the_users_terminal_does(tmp_path: Path) -> None:
    """As with a daemon that a desktop started, and a node that a version manager put into PATH."""
    home = OstlerHome(tmp_path, environ={"SHELL": "/bin/sh"})
    try:
        theirs = home.user_home / "theirs"
        theirs.mkdir()
        (theirs / "their-sh").symlink_to("/bin/sh")
        real = install_scripted_agent(home.root / "real", "agent")
        mine = theirs / "my-agent"
        mine.write_text(f'#!/usr/bin/env their-sh\nexec "{real}" "$@"\n')
        mine.chmod(0o755)
        (home.user_home / ".profile").write_text(f"export PATH=$PATH:{theirs}\n")
        own_provider(home, MINE)
        home.start()
        assert runtimes(home)["mine"]["path"] == str(mine)
        task = home.wait(home.add(script({"text": "found it"}), runtime="mine"))
        assert task["status"] == "completed", task
    finally:
        home.close()
