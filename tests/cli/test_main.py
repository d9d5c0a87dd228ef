"""What holds for every command: options anywhere, errors in one line or one document, exit codes."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys

import pytest

import daemon_core
from daemon_core.control.views import TaskAdd
from tests.cli.conftest import ROOT, Ostler
from tests.control.memory_backend import MemoryBackend


async def test_version(ostler: Ostler) -> None:
    done = await ostler("version", "--json")
    assert set(done.document) >= {"version", "python", "platform", "commit"}
    assert done.document["version"] == daemon_core.__version__
    assert (await ostler("version")).out.startswith(f"ostler {daemon_core.__version__} (Python ")
    assert (await ostler("--version")).out == (await ostler("version")).out


async def test_without_a_screen_there_is_no_desktop(ostler: Ostler, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    for arguments in ((), ("desktop",), ("desktop", "--background")):
        done = await ostler(*arguments)
        assert done.code == 2
        assert "There is no screen here" in done.err
        assert "ostler task add" in done.err
    assert (await ostler("--json")).error["code"] == "usage"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["taks"], "There is no command ostler taks. Did you mean `ostler task`?"),
        (["task", "lst"], "There is no command ostler task lst. Did you mean `ostler task list`?"),
        (["task", "add"], "Missing argument 'PROMPT'. `ostler task add --help` shows how it is used."),
        (["task", "add", "fix", "the", "door"], "(the door). Put what belongs together in quotation marks;"),
        (["task", "list", "--al"], "No such option '--al'"),
        (["daemon", "logs", "-n", "x"], "'x' is not a valid integer"),
        (["--profile", "a/b", "daemon", "status"], "--profile: 'a/b' cannot be the name of a profile"),
    ],
)
async def test_wrong_usage_is_one_line_and_exit_code_2(
    ostler: Ostler, arguments: list[str], said: str
) -> None:
    done = await ostler(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert done.err.count("\n") == 1
    for with_json in (["--json", *arguments], [*arguments, "--json"]):
        done = await ostler(*with_json)
        assert done.code == 2
        assert done.error["code"] in ("usage", "settings_invalid")
        assert done.err == ""


@pytest.mark.parametrize("group", [["task"], ["config"], ["issue", "comment"]])
async def test_a_group_without_a_command_shows_its_commands(ostler: Ostler, group: list[str]) -> None:
    done = await ostler(*group)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Usage: ostler {' '.join(group)} [OPTIONS] COMMAND")
    assert "\n  list " in done.err
    done = await ostler(*group, "--json")
    assert (done.code, done.error["code"], done.err) == (2, "usage", "")


async def test_what_is_no_text_is_one_line(ostler: Ostler) -> None:
    given = b"\xff\xfe\xfd\xfc".decode("utf-8", "surrogateescape")
    for arguments in (["task", "show", given], ["agent", "add", given, "--runtime", "shell"]):
        done = await ostler(*arguments)
        assert (done.code, done.err) == (2, "Something that was given is not UTF-8 text. Convert it.\n")


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("config list >/dev/full", 1),
        ("config list --json >/dev/full", 1),
        ("version >/dev/full", 1),  # so little that it is still to be written at the end
        ("config list >&-", 0),
        ("config list --json >&-", 0),
    ],
)
async def test_output_that_nobody_takes(ostler: Ostler, where: str, code: int) -> None:
    command = f"exec {sys.executable} -m daemon_core.cli {where}"
    environ = {**os.environ, "OSTLER_HOME": str(ostler.home)}
    process = await asyncio.create_subprocess_shell(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == code
    assert err.decode().startswith("No space left on device" if code else "")
    assert err.count(b"\n") == code, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("task add - <&-", "The prompt is empty."),
        ("login --server http://127.0.0.1:9 --token-stdin <&-", "There is no token on standard input."),
        ("login --server http://127.0.0.1:9 <&-", "There is no terminal to ask for the token."),
    ],
)
async def test_an_input_that_is_closed_is_an_empty_one(ostler: Ostler, arguments: str, said: str) -> None:
    command = f"exec {sys.executable} -m daemon_core.cli {arguments}"
    environ = {**os.environ, "OSTLER_HOME": str(ostler.home)}
    process = await asyncio.create_subprocess_shell(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE)
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().startswith(said)
    assert err.count(b"\n") == 1, err


async def test_an_input_that_is_no_text_is_one_line(ostler: Ostler, backend: MemoryBackend) -> None:
    ostler.environ = {"PYTHONIOENCODING": "utf-8:strict"}
    for arguments in (
        ["login", "--server", "http://127.0.0.1:9", "--token-stdin"],
        ["agent", "add", "ann", "--runtime", "shell", "--instructions", "-"],
    ):
        done = await ostler(*arguments, stdin=b"\xff\xfe\n")
        assert (done.code, done.err) == (2, "Something that was given is not UTF-8 text. Convert it.\n")


async def test_a_terminal_without_the_characters_is_no_fault(ostler: Ostler, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x", runtime="shell"))
    await backend.text(made.id, "“日本” ok\n")
    await backend.finish(made.id)
    ostler.environ = {"PYTHONIOENCODING": "latin-1"}
    done = await ostler("task", "logs", made.id)
    assert (done.code, done.out) == (0, "???? ok\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["runtimes"],
        ["task", "add", "x"],
        ["task", "list"],
        ["task", "show", "abcdef"],
        ["task", "logs", "abcdef"],
        ["task", "logs", "abcdef", "-f"],
        ["daemon", "pause"],
        ["daemon", "resume"],
        ["agent", "list"],
    ],
)
async def test_without_a_daemon_the_exit_code_is_3(ostler: Ostler, arguments: list[str]) -> None:
    done = await ostler(*arguments)
    assert (done.code, done.out) == (3, "")
    assert done.err == "Ostler's daemon is not running. Start it with `ostler daemon start`.\n"
    done = await ostler(*arguments, "--json")
    assert done.code == 3
    assert done.error == {
        "code": "daemon_unreachable",
        "message": "Ostler's daemon is not running",
        "hint": "Start it with `ostler daemon start`",
    }


@pytest.mark.usefixtures("backend")
async def test_refusals_have_words_and_their_exit_codes(ostler: Ostler) -> None:
    first = (await ostler("task", "add", "one")).out.strip()
    second = (await ostler("task", "add", "two")).out.strip()
    cases = [
        (["task", "show", "ffffffff"], 5, "not_found", "There is no task ffffffff"),
        (["task", "show", "0000"], 2, "ambiguous_id", f"0000 matches several: {first}, {second}"),
        (["task", "show", "00"], 2, "invalid_input", "'00' is too short for an id"),
        (["task", "add", "x", "--runtime", "cladue"], 5, "unknown_runtime", "There are: claude, shell"),
        (["task", "add", "x", "--agent", "bob"], 5, "no_such_agent", "There is no agent bob"),
        (["task", "add", "x", "--dir", "/no/such"], 2, "directory_not_found", "/no/such does not exist"),
        (["task", "retry", first], 6, "conflict", "has not ended yet"),
        (["task", "add", "  "], 2, "invalid_input", "The prompt is empty"),
        (["task", "add", "x", "--timeout", "3"], 2, "usage", "--timeout needs --wait"),
        (["agent", "show", "bob"], 5, "no_such_agent", "There is no agent bob"),
    ]
    for arguments, code, name, said in cases:
        done = await ostler(*arguments)
        assert (done.code, done.out) == (code, ""), arguments
        assert said in done.err
        assert done.err.count("\n") == 1
        done = await ostler(*arguments, "--json")
        assert (done.code, done.error["code"], done.err) == (code, name, ""), arguments


async def test_a_run_cannot_change_its_keeper(ostler: Ostler, backend: MemoryBackend) -> None:
    backend.own_marks.add("m")
    ostler.environ = {"OSTLER_MARK": "m", "OSTLER_TASK_ID": "t"}
    for arguments in (["daemon", "stop"], ["daemon", "pause"], ["config", "set", "daemon.slots", "3"]):
        done = await ostler(*arguments)
        assert done.code == 4, arguments
        assert "A task that Ostler runs must not do this" in done.err
    assert not backend.stopped.is_set()
    assert (await ostler("task", "list")).code == 0


async def test_a_profile_has_a_daemon_of_its_own(ostler: Ostler, backend: MemoryBackend) -> None:
    assert (await ostler("daemon", "status", "--profile", "other")).code == 3
    ostler.environ = {"OSTLER_PROFILE": "other"}
    assert (await ostler("daemon", "status")).code == 3
    assert (await ostler("daemon", "status", "--profile", "default")).code == 0


async def test_a_reader_that_goes_away_is_no_error(ostler: Ostler, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x", runtime="shell"))
    for _ in range(3000):
        await backend.text(made.id, "x" * 100 + "\n")
    await backend.finish(made.id)
    process = await ostler.begin("task", "logs", made.id)
    assert process.stdout is not None
    await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    assert await process.stderr.read() == b""
    await process.wait()


async def test_a_short_command_imports_next_to_nothing(ostler: Ostler, backend: MemoryBackend) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "daemon_core.cli",
        "daemon",
        "status",
        cwd=ROOT,
        env={**os.environ, "OSTLER_HOME": str(ostler.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert b"Running" in out
    imported = {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}
    assert "daemon_core.control.views" in imported
    heavy = {"asyncio", "aiohttp", "psutil", "tomlkit", "http.client", "ssl", "daemon_core.control.server"}
    assert not heavy & imported


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's directory")
async def test_another_users_home_is_refused_in_words(ostler: Ostler) -> None:
    ostler.directories.ensure()
    os.chown(ostler.directories.state, 65534, 65534)
    done = await ostler("daemon", "start")
    assert done.code == 2
    assert "belongs to another user" in done.err
    assert stat.S_ISDIR(ostler.directories.state.stat().st_mode)
