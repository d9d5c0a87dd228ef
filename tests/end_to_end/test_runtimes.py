"""`ostler runtimes off|on|restart|set-path` with a real daemon and its hub."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.scripted_agent import install_scripted_agent, script

ROOT = Path(__file__).parents[2]


def ostler(home: OstlerHome, *arguments: str, code: int = 0) -> Any:
    """The command with ``--json``; its document."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *arguments, "--json"],
        env=home.environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def views(home: OstlerHome) -> dict[str, dict[str, Any]]:
    return {view["provider"]: view for view in home.call("GET", "/v1/runtimes")}


def test_a_runtime_that_is_switched_off_takes_nothing_until_it_is_on_again(home: OstlerHome) -> None:
    home.start()
    (off,) = ostler(home, "runtimes", "off", "shell")
    assert (off["provider"], off["status"], off["reason"]) == ("shell", "off", "switched_off")
    assert home.hub("SELECT status FROM runtime WHERE provider = 'shell'") == [("offline",)]
    with pytest.raises(ControlError) as refused:
        home.add("true", "shell")
    assert refused.value.code == "runtime_unusable"
    assert refused.value.params["reason"] == "switched_off"
    home.stop()
    home.start()
    assert views(home)["shell"]["status"] == "off"
    (row,) = [view for view in ostler(home, "runtimes") if view["provider"] == "shell"]
    assert row["reason"] == "switched_off"
    (on,) = ostler(home, "runtimes", "on", "shell")
    assert on["status"] == "online"
    assert home.wait(home.add("echo back", "shell"))["status"] == "completed"
    ostler(home, "runtimes", "on", "shell")  # again: nothing happens


def test_switching_off_and_restarting_leave_a_run_alone(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    go = tmp_path / "go"
    task = home.add(script({"text": "one "}, {"wait_for": str(go)}, {"text": "two"}))
    home.wait(task, "running")
    pid = home.shim(task)["child_pid"]
    runtime = views(home)["claude"]["id"]
    (again,) = ostler(home, "runtimes", "restart", runtime[:8])
    assert (again["id"], again["status"], again["busy"]) == (runtime, "online", 1)
    (off,) = ostler(home, "runtimes", "off", runtime)
    assert (off["status"], off["busy"]) == ("off", 1)
    assert home.hub("SELECT status FROM runtime WHERE id = ?", runtime) == [("online",)]  # its run lives
    assert home.shim(task)["child_pid"] == pid
    os.kill(pid, 0)
    go.touch()
    assert home.wait(task)["status"] == "completed"
    wait_until(
        lambda: home.hub("SELECT status FROM runtime WHERE id = ?", runtime) == [("offline",)],
        "the runtime to be deregistered once its run is over",
    )
    (on,) = ostler(home, "runtimes", "on", "claude")
    assert (on["id"], on["status"]) == (runtime, "online")
    assert home.wait(home.add(script({"text": "hello"})))["status"] == "completed"


def test_a_restart_asks_the_program_again(home: OstlerHome) -> None:
    home.start()
    log = home.root / "probes"
    home.stop()
    home.start(SCRIPTED_AGENT_PROBE_LOG=str(log))
    before = log.read_text().count("\n") if log.exists() else 0
    (again,) = ostler(home, "runtimes", "restart", "claude")
    assert again["status"] == "online"
    assert log.read_text().count("\n") == before + 1


def test_what_cannot_be_named_is_refused(home: OstlerHome) -> None:
    home.start()
    for what in ("restart", "off", "on"):
        error = ostler(home, "runtimes", what, "nonesuch", code=5)["error"]
        assert error["code"] == "unknown_runtime"
    ostler(home, "runtimes", "off", "claude")
    assert ostler(home, "runtimes", "restart", "claude", code=6)["error"]["code"] == "runtime_unusable"
    assert ostler(home, "runtimes", "set-path", "nonesuch", "/bin/sh", code=5)["error"]["code"] == "not_found"
    unknown = str(uuid.uuid4())
    assert ostler(home, "runtimes", "set-path", unknown, "/etc/passwd", code=2)["error"]["code"] == (
        "invalid_input"
    )
    ostler(home, "runtimes", "set-path", unknown, code=2)


def test_a_run_may_not_switch_anything(home: OstlerHome) -> None:
    home.start()
    command = f"{sys.executable} -m daemon_core.cli runtimes off shell --json; test $? = 4 && echo refused"
    task = home.add(f"cd {ROOT} && {command}", "shell")
    assert home.wait(task)["status"] == "completed"
    assert "refused" in home.text(task)
    assert views(home)["shell"]["status"] == "online"


def test_agents_that_come_and_go_are_noticed(home: OstlerHome) -> None:
    (home.bin / "claude").unlink()
    home.start()
    assert "claude" not in views(home)
    install_scripted_agent(home.bin)
    wait_until(lambda: views(home).get("claude", {}).get("status") == "online", "the new agent to be offered")
    assert home.wait(home.add(script({"text": "hello"})))["status"] == "completed"
    (home.bin / "claude").unlink()
    wait_until(lambda: "claude" not in views(home), "the agent to be gone")


# --- custom profiles -------------------------------------------------------------------------------


@pytest.fixture
def profiled(tmp_path: Path) -> Iterator[tuple[OstlerHome, str]]:
    """A home whose hub has a custom profile of Claude Code, and no plain one."""
    home = OstlerHome(tmp_path / "h", claude=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    install_scripted_agent(elsewhere)
    (elsewhere / "claude").rename(elsewhere / "other-claude")
    home.start()
    home.stop()
    profile = str(uuid.uuid4())
    with closing(sqlite3.connect(home.directories.hub_file)) as db, db:
        (workspace,) = db.execute("SELECT id FROM workspace").fetchone()
        db.execute(
            "INSERT INTO runtime_profile (id, workspace_id, display_name, protocol_family, command_name,"
            " fixed_args, enabled, created_at, updated_at)"
            " VALUES (?, ?, 'Mine', 'claude', 'my-claude', ?, 1, 0, 0)",
            (profile, workspace, json.dumps(["--settings", "fixed.json"])),
        )
    yield home, profile
    home.close()


def test_a_custom_profile_gets_its_program_and_runs_with_its_arguments(
    profiled: tuple[OstlerHome, str], tmp_path: Path
) -> None:
    home, profile = profiled
    home.start()
    (failed,) = [view for view in ostler(home, "runtimes") if view.get("profile") == profile]
    assert (failed["status"], failed["reason"]) == ("unusable", "profile_unusable")
    assert "'my-claude' was not found" in failed["reason_params"]["detail"]
    program = tmp_path / "elsewhere" / "other-claude"
    answer = ostler(home, "runtimes", "set-path", "mine", str(program))
    assert (answer["profile"], answer["path"], answer["command"]) == (profile, str(program), "my-claude")
    (runtime,) = answer["runtimes"]
    dump = tmp_path / "dump.json"
    done = home.wait(home.add(script({"dump": str(dump)}, {"text": "hi"}), runtime))
    assert done["status"] == "completed"
    argv = json.loads(dump.read_text())["argv"]
    assert any("fixed.json" in argument for argument in argv)
    # A task that was claimed before a crash is begun with the same program after it.
    home.stop()
    home.start(kill_at="prepared")
    task = home.add(script({"dump": str(tmp_path / "again.json")}, {"text": "again"}), runtime)
    home.wait_dead()
    home.start()
    assert home.wait(task)["status"] == "completed"
    assert any(
        "fixed.json" in argument for argument in json.loads((tmp_path / "again.json").read_text())["argv"]
    )
    answer = ostler(home, "runtimes", "set-path", profile, "--unset")
    assert (answer["path"], answer["runtimes"]) == ("", [])
    assert "not found" in answer["reason"]
