"""The environment of a run: what it is given, and what it must never see (promise P7)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daemon_core.protocol.wire import Agent, Task
from daemon_core.tasks.environment import MARK_NAME, child_environment, command_directories, is_blocked

SECRET = "the-daemons-own"
BASE = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/ada",
    "LANG": "C.UTF-8",
    "ANTHROPIC_API_KEY": "the user's",
    "OSTLER_TOKEN": SECRET,
    "OSTLER_CONTROL_TOKEN": SECRET,
    "ostler_token": SECRET,
    "MULTICA_TOKEN": SECRET,
    "Multica_Daemon_Token": SECRET,
    "OSTLER_HOME": "/old",
    "OSTLER_PROFILE": "old",
}


def env_of(*, is_hub: bool = False, base: dict[str, str] | None = None, **fields: Any) -> dict[str, str]:
    task = Task(
        id="task-1", agent_id="agent-1", runtime_id="r", workspace_id="w1", auth_token=" mat_x\n",
        agent=Agent(id="agent-1", name="Ada", **fields.pop("agent", {})), **fields,
    )  # fmt: skip
    return child_environment(
        base=BASE if base is None else base, task=task, run_id="run-1", mark="mark-1", slot=3,
        server_url="https://server", control_url="http://127.0.0.1:7", loopback_port=7, is_hub=is_hub,
        home="/o", profile="default",
    )  # fmt: skip


def test_nothing_of_the_daemons_own_gets_through() -> None:
    for is_hub in (True, False):
        assert SECRET not in env_of(is_hub=is_hub).values()


def test_the_users_own_variables_do() -> None:
    env = env_of()
    assert (env["HOME"], env["LANG"], env["ANTHROPIC_API_KEY"]) == ("/home/ada", "C.UTF-8", "the user's")


def test_the_directory_of_the_command_line_is_first_in_the_path() -> None:
    (place,) = command_directories()
    assert env_of()["PATH"] == f"{place}{os.pathsep}/usr/bin:/bin"
    assert env_of(base={})["PATH"].startswith(f"{place}{os.pathsep}")
    assert (place / "ostler").exists()


def test_where_it_is_installed_the_launcher_comes_before_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTLER_LAUNCHER", str(tmp_path))
    assert len(command_directories()) == 1, "there is none: it was uninstalled meanwhile"
    (tmp_path / "ostler").touch()
    assert command_directories()[0] == tmp_path
    assert env_of()["PATH"].startswith(f"{tmp_path}{os.pathsep}")


def test_a_run_knows_its_task_and_its_daemon() -> None:
    env = env_of(is_hub=True)
    assert {name: value for name, value in env.items() if name.startswith("OSTLER_")} == {
        "OSTLER_TASK_ID": "task-1",
        "OSTLER_RUN_ID": "run-1",
        "OSTLER_WORKSPACE_ID": "w1",
        "OSTLER_AGENT_ID": "agent-1",
        "OSTLER_AGENT_NAME": "Ada",
        "OSTLER_TASK_SLOT": "3",
        "OSTLER_SERVER_URL": "https://server",
        "OSTLER_TOKEN": "mat_x",
        "OSTLER_CONTROL_URL": "http://127.0.0.1:7",
        "OSTLER_HOME": "/o",
        "OSTLER_PROFILE": "default",
        MARK_NAME: "mark-1",
    }


def test_multica_names_are_for_runs_of_servers_alone() -> None:
    assert not [name for name in env_of(is_hub=True) if name.upper().startswith("MULTICA_")]
    env = env_of(autopilot_run_id="ar", autopilot_id="a")
    assert {name: value for name, value in env.items() if name.startswith("MULTICA_")} == {
        "MULTICA_TOKEN": "mat_x",
        "MULTICA_SERVER_URL": "https://server",
        "MULTICA_DAEMON_PORT": "7",
        "MULTICA_WORKSPACE_ID": "w1",
        "MULTICA_AGENT_NAME": "Ada",
        "MULTICA_AGENT_ID": "agent-1",
        "MULTICA_TASK_ID": "task-1",
        "MULTICA_TASK_SLOT": "3",
        "MULTICA_AUTOPILOT_RUN_ID": "ar",
        "MULTICA_AUTOPILOT_ID": "a",
    }
    assert not [name for name in env_of() if "AUTOPILOT" in name]


@pytest.mark.parametrize(
    "name",
    [
        "HOME", "PATH", "USER", "SHELL", "TERM", "CODEX_HOME", "CURSOR_DATA_DIR", "OPENCLAW_CONFIG_PATH",
        "OPENCLAW_INCLUDE_ROOTS", "CLAUDE_CONFIG_DIR", "OSTLER_TOKEN", "OSTLER_ANYTHING", "MULTICA_TOKEN",
        "MULTICA_X", MARK_NAME,
    ],
)  # fmt: skip
@pytest.mark.parametrize("case", [str, str.lower, str.title])
def test_custom_variables_cannot_say_what_runs_and_as_whom(name: str, case: Any) -> None:
    given = case(name)
    assert is_blocked(given)
    env = env_of(agent={"custom_env": {given: "theirs"}})
    assert "theirs" not in env.values()


def test_other_custom_variables_win_over_inherited_ones() -> None:
    env = env_of(agent={"custom_env": {"LANG": "de", "MY_KEY": "v", "PATHS": "p", "HOMEPAGE": "h"}})
    assert (env["LANG"], env["MY_KEY"], env["PATHS"], env["HOMEPAGE"]) == ("de", "v", "p", "h")


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")])
def test_what_is_no_variable_is_left_out(name: str, value: str) -> None:
    assert env_of(agent={"custom_env": {name: value}}) == env_of()
