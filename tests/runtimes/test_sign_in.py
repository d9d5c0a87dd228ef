"""Whether somebody is signed in, from variables and files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon_core.runtimes.providers import Home, Provider, SignIn, builtin
from daemon_core.runtimes.sign_in import home_of, signed_in

AGENT = Provider(
    id="agent",
    name="Agent",
    executables=("agent",),
    family="plain",
    home=Home(variable="AGENT_HOME", directory="~/.agent"),
    sign_in=SignIn(
        env=("AGENT_KEY",),
        files=("auth.json", "~/.agent-token"),
        maybe=("settings.json",),
        certain_on=("linux",),
    ),
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".agent").mkdir()
    return {"HOME": str(tmp_path)}


def test_nothing_anywhere_is_a_no_where_that_is_certain(environ: dict[str, str]) -> None:
    assert signed_in(AGENT, environ, "linux") == "no"
    assert signed_in(AGENT, environ, "darwin") == "unknown"
    assert signed_in(AGENT, {}, "linux") == "unknown"


@pytest.mark.parametrize(("value", "found"), [("k", "yes"), ("", "no"), ("  ", "no")])
def test_a_variable(environ: dict[str, str], value: str, found: str) -> None:
    assert signed_in(AGENT, environ | {"AGENT_KEY": value}, "linux") == found


@pytest.mark.parametrize("name", [".agent/auth.json", ".agent-token"])
def test_a_file_with_something_in_it(environ: dict[str, str], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    assert signed_in(AGENT, environ, "linux") == "no"
    (tmp_path / name).write_text("{}")
    assert signed_in(AGENT, environ, "darwin") == "yes"


def test_settings_that_may_hold_a_key_leave_it_open(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".agent" / "settings.json").write_text("{}")
    assert signed_in(AGENT, environ, "linux") == "unknown"


def test_another_home(environ: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "auth.json").write_text("{}")
    assert signed_in(AGENT, environ | {"AGENT_HOME": str(other)}, "linux") == "yes"
    assert home_of(AGENT, environ | {"AGENT_HOME": str(other)}) == str(other)
    assert home_of(AGENT, environ) == str(tmp_path / ".agent")


def test_an_entry_that_says_nothing_knows_nothing(environ: dict[str, str]) -> None:
    assert (
        signed_in(Provider(id="a", name="A", executables=("a",), family="plain"), environ, "linux")
        == "unknown"
    )


def test_of_what_comes_with_ostler_an_empty_home_says_no_only_where_it_is_certain(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    told = {provider.id: signed_in(provider, environ, "linux") for provider in builtin()}
    assert {name for name, found in told.items() if found == "no"} <= {"claude", "codex", "gemini", "qwen"}
    assert "yes" not in told.values()


def test_how_to_sign_in_is_told_without_words_too() -> None:
    told = {provider.id: provider.sign_in for provider in builtin() if provider.sign_in.hint}
    assert told.keys() >= {"claude", "codex", "gemini", "qwen"}
    for sign_in in told.values():
        code, params = sign_in.how
        assert code in ("sign_in_run", "sign_in_type", "sign_in_choose")
        assert all(each in sign_in.hint for each in params.values())
    assert told["claude"].how == (
        "sign_in_type",
        {"run": "claude", "type": "/login", "set": "ANTHROPIC_API_KEY"},
    )
