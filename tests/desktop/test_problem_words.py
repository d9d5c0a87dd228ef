"""What is wrong with the settings is said in the user's language, from the reasons that the daemon sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from daemon_core.control.settings_desk import condition_params, settings_refusal
from daemon_core.control.views import Condition
from daemon_core.settings import edit, file
from daemon_core.settings.errors import SettingsError
from desktop import text
from desktop.problem_words import _REASONS, problem_sentence
from desktop.words import condition_text

IN_FILES = [
    ("[daemon]\nclaim = 1", "config.toml:2: daemon.claim: It must be true or false, not 1."),
    ("[daemon]\nslots = 0", "config.toml:2: daemon.slots: It must be a whole number from 1 to 256, not 0."),
    (
        "[spend]\ndaily_limit = -1",
        "config.toml:2: spend.daily_limit: It must be a number from 0 to 1e+06, not -1.",
    ),
    (
        '[watchdog]\nidle = "soon"',
        'config.toml:2: watchdog.idle: It must be a time such as 30s, 30m, 1h30m or 2d, not "soon".',
    ),
    ("[watchdog]\nidle = 30", "config.toml:2: watchdog.idle: It needs a unit: 30s, 30m or 30h."),
    (
        '[workdirs]\nfree_floor = "much"',
        'config.toml:2: workdirs.free_floor: It must be a size such as 10MiB or 500MB, not "much".',
    ),
    ('[discovery]\ntimeout = "1ms"', "config.toml:2: discovery.timeout: It must be at least 100ms, not 1ms."),
    ("[daemon]\nname = 5", "config.toml:2: daemon.name: It must be a text in quotation marks, not 5."),
    (
        '[permissions]\ndefault = "maybe"',
        'config.toml:2: permissions.default: It must be one of allow, ask, deny, not "maybe".',
    ),
    (
        "[limits]\nruntimes = 5",
        "config.toml:2: limits.runtimes: It must be a table of names and values, not 5.",
    ),
    (
        "[daemon]\nport = 80",
        "config.toml:2: daemon.port: It must be 0 or from 1024 to 65535, not 80; ",
    ),
    (
        '[notifications]\nquiet_hours = { daily = "late" }',
        "config.toml:2: notifications.quiet_hours: It must be from when to when, such as 22:00-07:00, or off,"
        ' not "late".',
    ),
    (
        '[notifications]\nquiet_hours = { daily = "7:00-7:00" }',
        "config.toml:2: notifications.quiet_hours: It must begin and end at different times,",
    ),
    (
        '[notifications]\nquiet_hours = { someday = "off" }',
        "config.toml:2: notifications.quiet_hours: It must name days as daily, mon, ",
    ),
    (
        '[environment]\nset = { "A=B" = "x" }',
        'config.toml:2: environment.set: No variable can have the name "A=B".',
    ),
    (
        '[agents.claude]\npath = "bin/claude"',
        'config.toml:2: agents.claude.path: It must be a whole path or a bare name, not "bin/claude".',
    ),
    (
        "[daemon]\nslts = 1",
        "config.toml:2: daemon.slts: There is no such setting. Did you mean daemon.slots?",
    ),
    ("[daemno]\nslots = 1", "config.toml:1: There is no section daemno. Did you mean daemon?"),
    ("daemon = 1", "config.toml:1: daemon: It must be a section, written [daemon]."),
    (
        "[agents.clude]\npath = ''",
        "config.toml:2: agents.clude.path: There is no agent clude. Did you mean claude?",
    ),
    ("[daemon\n", "config.toml:1: This is not valid TOML: "),
    ("\n\udcff", "config.toml:2: The file is not UTF-8 text."),
]


def mistake_in(content: str) -> SettingsError:
    with pytest.raises(SettingsError) as error:
        file.parse(content.encode(errors="surrogateescape"), Path("/c/config.toml"), providers=["claude"])
    return error.value


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    text.choose_language(["en"])


@pytest.mark.parametrize(("content", "said"), IN_FILES, ids=[said[:60] for _, said in IN_FILES])
def test_a_mistake_in_the_file(content: str, said: str) -> None:
    mistake = mistake_in(content)
    params = settings_refusal(mistake).params
    assert problem_sentence(params).startswith(said)
    assert mistake.reason in _REASONS
    # Beside its field neither the setting nor its line is said.
    if mistake.key and mistake.reason not in ("no_section",):
        assert mistake.key + ":" not in problem_sentence(params, about=mistake.key)


def test_what_is_typed_into_a_field(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for key, given, said in (
        ("limits.runtimes", "claude", 'It must be pairs such as name=value,name=value, not "claude".'),
        ("workdirs.artifacts", "'a", "A quotation mark is missing, or what follows a backslash."),
        ("daemon.name", "a\0b", "It must not contain a NUL character."),
    ):
        with pytest.raises(SettingsError) as error:
            edit.set_value(path, key, given)
        assert problem_sentence(settings_refusal(error.value).params, about=key) == said


def test_it_is_said_in_every_language() -> None:
    params = settings_refusal(mistake_in("[daemon]\nslts = 1")).params
    text.choose_language(["de"])
    said = "config.toml:2: daemon.slts: Diese Einstellung gibt es nicht. Ist daemon.slots gemeint?"
    assert problem_sentence(params) == said
    condition = Condition(
        code="settings_invalid", params=condition_params([mistake_in("[daemon]\nslots = 0")])
    )
    assert condition_text(condition) == (
        "Die Einstellungen sind nicht gültig: config.toml:2: daemon.slots: Es muss eine ganze Zahl von 1 bis"
        " 256 sein, nicht 0"
    )
    text.choose_language(["zh_CN"])
    assert "没有这个设置" in problem_sentence(params)


def test_a_reason_that_nobody_knows_is_told_in_the_daemons_words() -> None:
    problem = msgspec.to_builtins(SettingsProblemLike("daemon.slots is blue", "daemon.slots", "colour"))
    assert problem_sentence(problem, about="daemon.slots") == "Is blue."
    assert problem_sentence(problem) == "daemon.slots is blue."
    old = Condition(code="settings_invalid", params={"what": "daemon.slots is blue."})
    assert condition_text(old) == "The settings are not valid: daemon.slots is blue"


class SettingsProblemLike(msgspec.Struct):
    """Of a newer daemon."""

    what: str
    key: str
    reason: str


def test_a_warning_of_a_task_is_worded_here_where_its_code_is_known() -> None:
    text = "Shell has no thinking levels: high is left out"
    params = {"text": text, "what": "no_thinking_levels", "agent": "Shell", "level": "high"}
    assert condition_text(Condition(code="warning", params=params)) == f"{text}."
    assert condition_text(Condition(code="warning", params={"text": text})) == text
    assert condition_text(Condition(code="warning", params={**params, "what": "newer"})) == text
