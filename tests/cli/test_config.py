"""``ostler config`` and ``ostler doctor``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Ostler
from tests.control.memory_backend import MemoryBackend


async def test_every_setting_is_listed_with_its_source(ostler: Ostler) -> None:
    ostler.environ = {"OSTLER_WATCHDOG_IDLE": "1h"}
    await ostler("config", "set", "daemon.slots", "3")
    await ostler("config", "set", "agents.claude.model", "opus")
    rows = {row["key"]: row for row in (await ostler("config", "list", "--json")).document}
    assert (rows["daemon.slots"]["value"], rows["daemon.slots"]["default"]) == (3, 8)
    assert rows["daemon.slots"]["source"] == "file"
    assert rows["watchdog.idle"]["source"] == "OSTLER_WATCHDOG_IDLE"
    assert rows["watchdog.tool"] | {"source": "default", "value": "2h"} == rows["watchdog.tool"]
    assert rows["agents.claude.model"]["value"] == "opus"
    told = (await ostler("config", "list")).out
    assert "  slots = 3  (file)\n      How many runs may go on at once." in told


async def test_set_get_and_unset(ostler: Ostler) -> None:
    done = await ostler("config", "set", "agents.claude.args", "--", "--verbose", "two words")
    assert (done.code, done.out) == (0, "agents.claude.args = --verbose two words.\n")
    done = await ostler("config", "get", "agents.claude.args", "--json")
    assert done.document == {"key": "agents.claude.args", "value": ["--verbose", "two words"]}
    assert (await ostler("config", "get", "daemon.slots")).out == "8\n"
    assert (await ostler("config", "unset", "agents.claude.args")).code == 0
    assert (await ostler("config", "get", "agents.claude.args")).out == "(none)\n"
    assert "is not set" in (await ostler("config", "unset", "agents.claude.args")).out
    assert (await ostler("config", "path")).out == f"{ostler.directories.config_file}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "daemon.slost", "3"], "There is no setting daemon.slost. Did you mean daemon.slots?"),
        (["set", "daemon.slots", "many"], "daemon.slots must be a whole number from 1 to 256"),
        (["set", "daemon.slots", "1", "2"], "daemon.slots takes one value, not 2"),
        (["get", "x.y"], "There is no setting x.y"),
        (["unset", "x.y"], "There is no setting x.y"),
        (["set", "daemon.slots"], "Missing argument 'VALUE...'"),
    ],
)
async def test_mistakes_are_wrong_usage(ostler: Ostler, arguments: list[str], said: str) -> None:
    done = await ostler("config", *arguments)
    assert (done.code, said in done.err) == (2, True), done.err
    assert not ostler.directories.config_file.exists()


async def test_what_a_newer_version_has_left_in_the_file_locks_nothing(ostler: Ostler) -> None:
    ostler.directories.ensure()
    file = ostler.directories.config_file
    file.write_text("[daemon]\nslots = 3\nwings = 2\n")
    said = f"{file}:3: there is no setting daemon.wings, so it is left out. "
    done = await ostler("config", "set", "daemon.slots", "4")
    assert (done.code, done.out) == (0, "daemon.slots = 4.\n"), done.err
    assert done.err.count(said) == 1
    assert file.read_text() == "[daemon]\nslots = 4\nwings = 2\n"
    assert (await ostler("config", "get", "daemon.slots")).out == "4\n"
    assert said in (await ostler("config", "list")).err
    assert (await ostler("config", "unset", "daemon.slots")).code == 0
    assert file.read_text() == "[daemon]\nwings = 2\n"


async def test_a_running_daemon_is_told_of_each_change(ostler: Ostler, backend: MemoryBackend) -> None:
    done = await ostler("config", "set", "daemon.slots", "3")
    assert done.out == "daemon.slots = 3.\n"
    done = await ostler("config", "set", "daemon.port", "21999")
    assert done.out == "daemon.port = 21999. `ostler daemon restart` brings it into force.\n"
    assert (await ostler("config", "set", "daemon.port", "0", "--json")).document["needs_restart"] is True
    assert backend.reloads == 3


async def test_edit_takes_over_only_what_is_valid(ostler: Ostler, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncat "$SAMPLE" > "$1"\n')
    editor.chmod(0o700)
    sample = tmp_path / "sample.toml"
    ostler.environ = {"VISUAL": str(editor), "EDITOR": str(editor), "SAMPLE": str(sample)}
    sample.write_text("[daemon]\nslots = 4\n")
    assert (await ostler("config", "edit")).code == 0
    assert (await ostler("config", "get", "daemon.slots")).out == "4\n"
    sample.write_text("[daemon]\nslots = \n")
    done = await ostler("config", "edit")
    assert done.code == 2
    assert "Line 2: this is not valid TOML" in done.err
    rejected = ostler.directories.config / "config.toml.rejected"
    assert str(rejected) in done.err
    assert rejected.read_text() == sample.read_text()
    assert (await ostler("config", "get", "daemon.slots")).out == "4\n"


async def test_doctor_works_without_a_daemon(ostler: Ostler) -> None:
    done = await ostler("doctor", "--json")
    assert done.code == 1
    checks = {check["name"]: check for check in done.document["checks"]}
    for check in checks.values():
        assert set(check) == {"name", "ok", "detail", "hint"}
    assert checks["daemon"]["ok"] is False
    assert checks["daemon"]["hint"] == "Start it with `ostler daemon start`"
    assert {"directories", "settings", "disk space", "git", "supervisor", "port"} <= set(checks)
    assert all(checks[name]["ok"] for name in ("directories", "settings", "supervisor"))


async def test_doctor_asks_the_daemon_where_there_is_one(ostler: Ostler, backend: MemoryBackend) -> None:
    done = await ostler("doctor")
    assert "FAIL  agent claude" in done.out
    assert "version 1.0.3 is too old" in done.out.lower()
    assert "ok    agent shell" in done.out


async def test_doctor_tells_what_is_wrong_and_goes_on(ostler: Ostler) -> None:
    ostler.directories.ensure()
    ostler.directories.config_file.write_text("[daemon]\nslots = 0\n")
    ostler.environ = {"OSTLER_PROFILE": "", "OSTLER_DAEMON_SLOST": "3"}
    checks = {check["name"]: check for check in (await ostler("doctor", "--json")).document["checks"]}
    assert checks["settings"]["ok"] is False
    assert "config.toml:2: daemon.slots must be" in checks["settings"]["detail"]
    assert checks["git"]["ok"] is True
    ostler.directories.config_file.unlink()
    ostler.directories.lock_file.mkdir()
    checks = {check["name"]: check for check in (await ostler("doctor", "--json")).document["checks"]}
    assert "Did you mean OSTLER_DAEMON_SLOTS?" in checks["settings"]["hint"]
    assert checks["daemon"]["ok"] is False
    assert str(ostler.directories.lock_file) in checks["daemon"]["detail"]
    assert "agent shell" in checks


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's directory")
async def test_doctor_tells_of_another_users_directory(ostler: Ostler) -> None:
    ostler.directories.ensure()
    os.chown(ostler.directories.data, 65534, 65534)
    checks = {check["name"]: check for check in (await ostler("doctor", "--json")).document["checks"]}
    assert checks["directories"]["ok"] is False
    assert "belongs to another user" in checks["directories"]["detail"]
