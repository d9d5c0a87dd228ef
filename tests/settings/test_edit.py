"""Changes to the settings file: comments stay, mistakes change nothing, two at once take turns."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from daemon_core.settings.edit import replace_text, set_value, unset_value
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.file import load
from tests.settings.another_user import open_place, run_as_another

BEFORE = """# mine
[daemon]   # about the daemon
slots = 3  # three
claim = true
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(BEFORE)
    return path


def test_comments_and_order_stay(path: Path) -> None:
    set_value(path, "daemon.slots", "5")
    assert path.read_text() == BEFORE.replace("slots = 3", "slots = 5")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]


def test_what_is_missing_is_added_and_can_be_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    set_value(path, "agents.claude.args", "--a 'b c'")
    set_value(path, "agents.codex.enabled", "no")
    set_value(path, "limits.runtimes", "claude=2")
    set_value(path, "watchdog.idle", "1h")
    set_value(path, "log.size", "1MiB")
    settings = load(path, {})
    assert settings.agent("claude").args == ("--a", "b c")
    assert settings.agent("codex").enabled is False
    assert settings.limits.runtimes == {"claude": 2}
    assert (settings.watchdog.idle, settings.log.size) == (3600, 2**20)
    assert unset_value(path, "watchdog.idle") is True
    assert unset_value(path, "watchdog.idle") is False
    assert unset_value(path, "hub.enabled") is False
    assert load(path, {}).watchdog.idle == 1800


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("daemon.slost", "3", "Did you mean daemon.slots?"),
        ("daemon.slots", "many", "whole number"),
        ("daemon.slots", "999", "from 1 to 256"),
        ("watchdog.idle", "30", "duration"),
        ("daemon.port", "19514", "19514"),
        ("agents.claude.path", "./x", "absolute"),
    ],
)
def test_a_mistake_changes_nothing(path: Path, key: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        set_value(path, key, value)
    assert said in str(error.value)
    assert path.read_text() == BEFORE


def test_a_file_damaged_before_is_not_made_worse(path: Path) -> None:
    path.write_text("[daemon]\nslots = \n")
    with pytest.raises(SettingsError, match="not valid TOML") as error:
        set_value(path, "daemon.slots", "5")
    assert error.value.line == 2
    assert path.read_text() == "[daemon]\nslots = \n"
    replace_text(path, "[daemon]\nslots = 5\n")
    assert load(path, {}).daemon.slots == 5
    with pytest.raises(SettingsError):
        replace_text(path, "slots = 5\n")


def test_a_link_to_a_file_elsewhere_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    set_value(link, "daemon.slots", "5")
    assert link.is_symlink()
    assert load(path, {}).daemon.slots == 5


def test_two_that_change_it_at_once_lose_nothing(path: Path) -> None:
    keys = ["daemon.slots", "retention.days", "retention.run_days", "log.files"]
    threads = [threading.Thread(target=set_value, args=(path, key, "7")) for key in keys for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settings = load(path, {})
    assert {
        settings.daemon.slots,
        settings.retention.days,
        settings.retention.run_days,
        settings.log.files,
    } == {7}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_directory_that_cannot_be_written_to_is_told() -> None:
    with open_place() as place:
        path = place / "config.toml"
        path.write_text(BEFORE)
        path.chmod(0o644)
        told = run_as_another(
            """
become_another()
try:
    edit.replace_text(__import__("pathlib").Path(sys.argv[1]), "")
except errors.SettingsError as error:
    print(error)
""",
            str(path),
        )
        assert "cannot be written: Permission denied" in told
        assert path.read_text() == BEFORE


def test_what_an_editor_saves_meanwhile_is_not_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = BEFORE + "\n[retention]\ndays = 7\n"
    fsync = os.fsync

    def save_then_sync(descriptor: int) -> None:
        # The moment between reading the file and replacing it.
        if "retention" not in path.read_text():
            path.write_text(saved)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", save_then_sync)
    set_value(path, "daemon.slots", "5")
    assert path.read_text() == saved.replace("slots = 3", "slots = 5")
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]
