"""Whatever comes in, the daemon says what is wrong, loses nothing and lives on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, busy_port, check_transcript, wait_until
from tests.support.scripted_agent import script


def refused(home: OstlerHome, path: str, body: dict[str, Any]) -> ControlError:
    with pytest.raises(ControlError) as caught:
        home.call("POST", path, body)
    return caught.value


def test_a_second_daemon_is_refused_and_the_first_goes_on(home: OstlerHome) -> None:
    home.start()
    first = home.daemon
    second = subprocess.run(
        [sys.executable, "-m", "daemon_core.app"],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 6
    assert "another daemon of this profile is running" in second.stderr
    assert first is not None
    assert first.poll() is None
    assert home.status()["status"] == "running"


def test_a_configured_port_in_use_is_said_with_what_to_do(home: OstlerHome) -> None:
    with busy_port() as port:
        daemon = home.launch(OSTLER_DAEMON_PORT=str(port))
        assert daemon.wait(30) == 6
    assert f"port {port} is in use by another program" in home.said()
    assert "ostler config set daemon.port" in home.said()


def test_a_chosen_port_moves_if_nobody_needs_the_old_one(home: OstlerHome) -> None:
    home.start()
    port = home.status()["port"]
    home.stop()
    import socket

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        home.start()
        assert home.status()["port"] != port


def test_settings_with_a_typo_name_file_line_and_key(home: OstlerHome) -> None:
    home.directories.config.mkdir(parents=True)
    home.directories.config_file.write_text('[daemon]\nslots = 2\nport = "many"\n')
    daemon = home.launch()
    assert daemon.wait(30) == 2
    said = home.said()
    assert "config.toml:3" in said
    assert "daemon.port" in said
    # A name that there is not may be another version's: the daemon starts, and says it.
    home.directories.config_file.write_text("[daemon]\nslots = 2\nslotz = 3\n")
    home.start()
    (told,) = [each for each in home.status()["conditions"] if each["code"] == "settings_invalid"]
    for part in ("config.toml:3", "daemon.slotz", "daemon.slots"):
        assert part in told["params"]["what"]


def test_an_unknown_runtime_is_refused_with_the_known_ones(home: OstlerHome) -> None:
    home.start()
    error = refused(home, "/v1/tasks", {"prompt": "x", "runtime": "nonesuch"})
    assert error.code == "unknown_runtime"
    assert set(error.params["known"]) == {"claude", "shell"}


def test_without_any_agent_a_task_needs_the_shell_by_name(tmp_path: Path) -> None:
    home = OstlerHome(tmp_path, claude=False)
    try:
        home.start()
        assert [condition["code"] for condition in home.status()["conditions"]] == ["no_agents"]
        assert refused(home, "/v1/tasks", {"prompt": "rm -rf build"}).code == "no_agent"
        task = home.add("echo hello", "shell")
        assert home.wait(task)["result"] == "hello"
    finally:
        home.close()


def test_directories_that_cannot_be_used_are_refused_before_anything_starts(
    home: OstlerHome, tmp_path: Path
) -> None:
    home.start()
    (tmp_path / "file").write_text("")
    for directory, code in (
        (str(tmp_path / "nowhere"), "directory_not_found"),
        (str(tmp_path / "file"), "directory_not_a_directory"),
        ("relative/path", "directory_not_absolute"),
        ("/", "directory_protected"),
        ("/etc", "directory_protected"),
        (str(home.user_home), "directory_protected"),
    ):
        error = refused(home, "/v1/tasks", {"prompt": "true", "runtime": "shell", "directory": directory})
        assert error.code == code, directory
    assert home.call("GET", "/v1/tasks") == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a read-only place")
def test_a_directory_on_a_read_only_place_is_refused(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    place = tmp_path / "read-only"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", place], check=True)
    try:
        error = refused(home, "/v1/tasks", {"prompt": "true", "runtime": "shell", "directory": str(place)})
        assert error.code == "directory_not_writable"
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_directory_that_vanishes_before_the_run_fails_the_task_in_words(
    home: OstlerHome, tmp_path: Path
) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    home.start(OSTLER_DAEMON_CLAIM="false")
    task = home.add("true", "shell", directory=str(directory))
    home.kill()
    directory.rmdir()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["failure_reason"]) == ("failed", "local_directory_error")
    assert "does not exist" in done["error"]


def test_one_directory_one_task_also_by_another_path(home: OstlerHome, tmp_path: Path) -> None:
    directory, link = tmp_path / "project", tmp_path / "link"
    directory.mkdir()
    link.symlink_to(directory)
    go = tmp_path / "go"
    home.start()
    first = home.add(f"while [ ! -e {go} ]; do sleep 0.05; done", "shell", directory=str(directory))
    home.wait(first, "running")
    second = home.add("echo second", "shell", directory=str(link))
    waiting = home.wait(second, "waiting_local_directory")
    assert waiting["waiting"]["code"] == "waiting_directory"
    assert waiting["waiting"]["params"]["held_by"] == first
    third = home.add("echo third", "shell", directory=str(directory))
    home.wait(third, "waiting_local_directory")
    home.call("POST", f"/v1/tasks/{third}/cancel")
    home.wait(third, "cancelled")
    home.kill()
    home.start()  # the lock is the run's, not the daemon's
    assert home.wait(second, "waiting_local_directory")
    go.touch()
    assert home.wait(first)["status"] == "completed"
    assert home.wait(second)["result"] == "second"


def test_a_directory_locked_by_another_program_is_waited_for(home: OstlerHome, tmp_path: Path) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    facts = directory.stat()
    locks = home.user_home / ".local/state/ostler/directory-locks"
    locks.mkdir(parents=True)
    with open(locks / f"{facts.st_dev:x}-{facts.st_ino:x}.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        home.start()
        task = home.add("echo mine", "shell", directory=str(directory))
        home.wait(task, "waiting_local_directory")
    assert home.wait(task)["result"] == "mine"


@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ([{"invalid_json": True}, {"text": "fine"}], "completed", ""),
        ([{"invalid_utf8": True}, {"text": "fine"}], "completed", ""),
        ([{"long_line": 50 * 1024 * 1024}, {"text": "fine"}], "completed", ""),
        ([{"exit": 0}], "failed", "agent_error.empty_or_unparseable_output"),
        ([{"exit": 7}], "failed", "agent_error.process_failure"),
        ([{"die": 9}], "failed", "agent_error.process_failure"),
        ([{"error": 401, "message": "invalid x-api-key"}], "failed", "agent_error.provider_auth_or_access"),
        ([{"error": 429, "message": "rate limit"}], "failed", "agent_error.provider_capacity_or_rate_limit"),
        ([{"error": 500, "message": "Internal error"}], "failed", "agent_error.provider_server_error"),
    ],
    ids=["invalid-json", "invalid-utf8", "50-mb-line", "nothing", "exit-7", "killed", "401", "429", "500"],
)
def test_what_an_agent_may_do_wrong(
    home: OstlerHome, steps: list[dict[str, object]], status: str, reason: str
) -> None:
    home.start()
    task = home.add(script(*steps))
    done = home.wait(task)
    assert (done["status"], done["failure_reason"]) == (status, reason), done["error"]
    if status == "failed":
        assert done["error"]
    home.wait_delivered(task)
    check_transcript(home, task)
    assert home.wait(home.add("echo alive", "shell"))["result"] == "alive"


def test_a_prompt_of_one_megabyte_arrives_whole(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    padding = "x" * (1024 * 1024)
    task = home.add(f"# {padding}\necho arrived", "shell")
    assert home.wait(task)["result"] == "arrived"
    told = home.add("Größe " + padding)
    assert home.wait(told)["result"].endswith(padding[-100:])


@pytest.mark.parametrize(
    ("command", "status", "result"),
    [
        ("echo a; exit 0; echo b", "completed", "a"),
        ("echo a; exit 4", "failed", ""),
        ("echo (", "failed", ""),
        ("echo a \\", "completed", "a"),
        ("cat <<X\nopen here-document", "completed", "open here-document"),
        ("printf 'no newline'", "completed", "no newline"),
        ("true", "completed", ""),
    ],
)
def test_shell_commands_that_could_break_the_record_of_their_end(
    home: OstlerHome, command: str, status: str, result: str
) -> None:
    home.start()
    done = home.wait(home.add(command, "shell"))
    assert done["status"] == status
    if result:
        assert result in done["result"]


def test_ids_that_match_several_things_name_them(home: OstlerHome) -> None:
    home.start()
    with pytest.raises(ControlError) as short:
        home.task("abc")
    assert short.value.code == "invalid_input"
    with pytest.raises(ControlError) as missing:
        home.task("ffffffff")
    assert missing.value.code == "not_found"
    task = home.add("true", "shell")
    assert home.task(task[:8])["id"] == task
    conversation = home.task(task)["conversation_id"]
    assert home.task(conversation[:10])["id"] == task


def test_an_agent_that_was_removed_fails_its_task_in_words(home: OstlerHome) -> None:
    home.start()
    # Found at the start, gone when it is to be run.
    (home.bin / "claude").unlink()
    done = home.wait(home.add("hello"))
    assert (done["status"], done["failure_reason"]) == ("failed", "agent_error.runtime_missing_executable")
    assert "does not exist" in done["error"]
    assert home.wait(home.add("echo alive", "shell"))["result"] == "alive"


def fill_up(path: Path) -> None:
    """Write until the disk is full to the last block."""
    with open(path, "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"\0" * 4096):
            pass
    assert os.statvfs(path).f_bavail == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_holds_the_run_and_loses_no_line(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], check=True)
    home = OstlerHome(place)
    try:
        home.start()
        go = tmp_path / "go"
        task = home.add(
            script(
                {"text": "begun\n"}, {"wait_for": str(go)}, {"lines": 20000, "text": "{n} " + "x" * 40 + "\n"}
            )
        )
        wait_until(lambda: len(home.server_messages(task)) == 1, "the first line")
        ballast = place / "ballast"
        fill_up(ballast)
        go.touch()
        wait_until(
            lambda: (
                any(c["code"] == "disk_full" for c in home.status().get("conditions", []))
                or home.task(task)["status"] == "running"
            ),
            "the disk to be noticed",
        )
        assert home.task(task)["status"] == "running"
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
        assert home.wait(task)["status"] == "completed"
        home.wait_delivered(task)
        expected = "begun\n" + "".join(f"{n} " + "x" * 40 + "\n" for n in range(1, 20001))
        check_transcript(home, task, expected)
        assert home.agent_starts() == 1
    finally:
        home.close()
        subprocess.run(["umount", "-l", place], check=True)
