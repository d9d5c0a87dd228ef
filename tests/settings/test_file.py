"""The settings file: values, overrides, and what is said about a mistake."""

from __future__ import annotations

import tomllib
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.settings import values
from daemon_core.settings.edit import template
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.file import (
    entries,
    find,
    load,
    override_name,
    parse,
    unknown_overrides,
    value_of,
)
from daemon_core.settings.sections import AgentSettings, Settings

PATH = Path("/c/config.toml")


def read(text: str, **environ: str) -> Settings:
    return parse(text.encode(), PATH, environ)


def mistake(text: str, **environ: str) -> SettingsError:
    with pytest.raises(SettingsError) as error:
        read(text, **environ)
    return error.value


def test_nothing_set_is_the_documented_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path / "absent.toml", {})
    assert settings == Settings()
    for entry in entries():
        if "<" not in entry.name:
            assert value_of(settings, entry.name) == values.to_toml(entry.key, entry.default)


def test_every_setting_is_documented_and_its_default_is_valid() -> None:
    for entry in entries():
        assert entry.key.what.endswith("."), entry.name
        written = values.to_toml(entry.key, entry.default)
        assert values.from_toml(entry.key, written) == entry.default, entry.name


def test_the_template_documents_everything_and_sets_nothing() -> None:
    text = template()
    assert read(text) == Settings()
    lines = [line.removeprefix("# ") for line in text.splitlines() if " = " in line or line.startswith("# [")]
    uncommented = "\n".join(line for line in lines if line.startswith("[") or tomllib_line(line))
    assert read(uncommented) == Settings(agents={"claude": AgentSettings()})
    assert len(list(entries())) == sum(not line.startswith("[") for line in uncommented.splitlines())


def tomllib_line(line: str) -> bool:
    try:
        return bool(tomllib.loads(line))
    except tomllib.TOMLDecodeError:
        return False


def test_all_kinds_are_read() -> None:
    settings = read(
        """
        [daemon]
        slots = 3
        claim = false
        [watchdog]
        idle = "1h30m"
        tool = 0
        [log]
        size = "1MiB"
        level = "debug"
        [limits]
        per_runtime = 2
        runtimes = { claude = 1 }
        [environment]
        set = { EDITOR = "true" }
        drop = ["AWS_*"]
        [agents.claude]
        path = "/opt/claude"
        args = ["--verbose"]
        """
    )
    assert settings.daemon.slots == 3
    assert settings.daemon.claim is False
    assert (settings.watchdog.idle, settings.watchdog.tool) == (5400.0, 0.0)
    assert (settings.log.size, settings.log.level) == (1048576, "debug")
    assert settings.environment.set == {"EDITOR": "true"}
    assert settings.environment.drop == ("AWS_*",)
    assert settings.agent("claude").args == ("--verbose",)
    assert settings.agent("codex") == AgentSettings()
    assert [settings.run_limit(provider) for provider in ("claude", "codex")] == [1, 2]


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("[daemon]\n\nslosts = 3", 3, "daemon.slosts", "Did you mean daemon.slots?"),
        ("# c\n[daemn]\nslots = 3", 2, "daemn", "Did you mean daemon?"),
        ("[daemon]\nidle = '3s'", 2, "daemon.idle", "Did you mean watchdog.idle?"),
        ("[daemon]\nslots = 'many'", 2, "daemon.slots", 'must be a whole number from 1 to 256, not "many"'),
        ("[daemon]\nslots = 0", 2, "daemon.slots", "from 1 to 256, not 0"),
        ("[daemon]\nslots = true", 2, "daemon.slots", "not true"),
        ("[daemon]\nclaim = 1", 2, "daemon.claim", "must be true or false, not 1"),
        ("[daemon]\nport = 19600", 2, "daemon.port", "19514 to 20513"),
        ("[watchdog]\nidle = 30", 2, "watchdog.idle", 'needs a unit: "30s"'),
        ("[watchdog]\nidle = '30 minutes'", 2, "watchdog.idle", '"1h30m"'),
        ("[log]\nlevel = 'loud'", 2, "log.level", "debug, info, warning, error"),
        ("[log]\nsize = '1 byte'", 2, "log.size", "10MiB"),
        ("[log]\nsize = '1KB'", 2, "log.size", 'at least "64KiB"'),
        ("daemon.slots = 1\n[agents]\nclaude = 'x'", 3, "agents.claude", "[agents.claude]"),
        ("[agents.claude]\npth = 'x'", 2, "agents.claude.pth", "Did you mean agents.claude.path?"),
        ("agents = { claude = { pth = 'x' } }", 1, "agents.claude.pth", "Did you mean"),
        ("[agents.claude]\npath = './claude'", 2, "agents.claude.path", "absolute"),
        ("[agents.claude]\nargs = '-v'", 2, "agents.claude.args", "list of texts"),
        ("[environment]\nset = { 'A=B' = 'x' }", 2, "environment.set", "impossible name"),
        ("daemon = 3", 1, "daemon", "[daemon]"),
        ("[daemon]\nslots = \n", 2, "", "not valid TOML"),
        ("[daemon]\nslots = 1\nslots = 2", 3, "", "not valid TOML"),
        ("[daemon\n", 1, "", "not valid TOML"),
        ('[daemon]\nname = "x', 2, "", "not valid TOML"),
        ("x = " + "[" * 20_000, 1, "", "nested too deeply"),
        ("[daemon]\nslots = " + "9" * 5000, 2, "", "a number is too long"),
        (f"[log]\nsize = '{'9' * 400}GB'", 2, "log.size", "must be smaller"),
        (f"[watchdog]\nidle = '{'9' * 400}d'", 2, "watchdog.idle", "must be shorter"),
    ],
)
def test_a_mistake_is_told_with_line_key_and_what_to_write(text: str, line: int, key: str, said: str) -> None:
    error = mistake(text)
    assert (error.file, error.line, error.key) == (PATH, line, key)
    assert said in str(error)
    assert str(error).startswith(f"{PATH}:{line}: ")


def test_an_unknown_provider_is_told_where_they_are_known() -> None:
    for text in ("[agents.cladue]\nmodel = 'x'", "[limits]\nruntimes = { cladue = 1 }"):
        with pytest.raises(SettingsError, match="Did you mean claude") as error:
            parse(text.encode(), PATH, {}, ["claude", "shell"])
        assert error.value.line == 2


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not UTF-8") as error:
        parse(b"[daemon]\nname = '\xff'", PATH)
    assert error.value.line == 2
    with pytest.raises(SettingsError, match="larger than"):
        parse(b"#" * 2_000_000, PATH)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, {})
    assert parse(b"\xef\xbb\xbf[daemon]\r\nslots = 2\r\n", PATH).daemon.slots == 2


def test_the_environment_comes_before_the_file() -> None:
    settings = read(
        "[daemon]\nslots = 3\n[agents.claude]\nmodel = 'a'\npath = '/x'",
        OSTLER_DAEMON_SLOTS="5",
        OSTLER_AGENTS_CLAUDE_MODEL="opus",
        OSTLER_AGENTS_CODEX_ARGS="-c 'a b'",
        OSTLER_WATCHDOG_IDLE="2d",
        OSTLER_LIMITS_RUNTIMES="claude=2,codex=1",
        OSTLER_DAEMON_CLAIM="off",
        OSTLER_LOG_SIZE="",
        OSTLER_AGENT_NAME="a run's own variable",
    )
    assert settings.daemon.slots == 5
    assert settings.daemon.claim is False
    assert settings.agents["claude"] == AgentSettings(model="opus", path="/x")
    assert settings.agents["codex"].args == ("-c", "a b")
    assert settings.watchdog.idle == 172800
    assert settings.limits.runtimes == {"claude": 2, "codex": 1}


def test_a_malformed_override_is_told_by_its_own_name() -> None:
    error = mistake("", OSTLER_DAEMON_SLOTS="many")
    assert (error.key, error.file) == ("OSTLER_DAEMON_SLOTS", None)
    assert "OSTLER_DAEMON_SLOTS must be a whole number" in str(error)
    assert unknown_overrides({"OSTLER_DAEMON_SLOST": "1", "OSTLER_TASK_ID": "x", "OSTLER_HOME": "/"}) == [
        ("OSTLER_DAEMON_SLOST", "OSTLER_DAEMON_SLOTS")
    ]


def test_names_of_settings_and_overrides_are_unique() -> None:
    names = [override_name(entry.name) for entry in entries()]
    assert len(set(names)) == len(names)
    with pytest.raises(SettingsError):
        find("agents.<provider>.path")
    with pytest.raises(SettingsError):
        find("slots")


@given(st.floats(0, 10**8).map(lambda seconds: round(seconds, 3)))
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert values.parse_duration(values.format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


@given(st.integers(0, 2**50))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    assert values.parse_size(values.format_size(size)) == size


@pytest.mark.parametrize("text", ["", "h", "1", "-1s", "1x", "1s1", "s1", "1 h", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        values.parse_duration(text)


TOML: st.SearchStrategy[typing.Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(entries())), TOML)
def test_a_value_of_any_shape_is_read_or_refused_in_words(entry: typing.Any, value: object) -> None:
    try:
        read = values.from_toml(entry.key, value)
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert refused.startswith(("must", "needs", "has"))
    else:
        assert values.from_toml(entry.key, values.to_toml(entry.key, read)) == read
