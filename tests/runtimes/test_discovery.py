"""Discovery with stand-in executables: what is found, what it costs, what can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.runtimes import discovery, formats, login_path, probes
from daemon_core.runtimes.discovery import FoundAgent, discover, parse_version, version_in
from daemon_core.runtimes.providers import Provider, builtin
from tests.support.driving import wait_for
from tests.support.scripted_agent import install_scripted_agent

AGENT = Provider(id="agent", name="Agent", executables=("some-agent",), min_version="2.0.0", family="plain")


class Machine:
    """A home, a PATH of one directory and a cache; nothing of the real machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.home = root / "home"
        self.home.mkdir()
        self.cache = root / "cache" / "agents.json"
        self.log = root / "probes"
        self.environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "SCRIPTED_AGENT_PROBE_LOG": str(self.log),
        }

    def install(self, name: str = "some-agent", version: str = "2.1.3 (Some Agent)") -> Path:
        return install_scripted_agent(self.bin, name, version)

    def script(self, text: str, name: str = "some-agent", directory: Path | None = None) -> Path:
        directory = directory or self.bin
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    async def look(self, providers: Sequence[Provider] = (AGENT,), **options: object) -> list[FoundAgent]:
        given: dict[str, object] = {"common_places": (), "environ": self.environ, "cache_path": self.cache}
        return await discover(providers, **{**given, **options})  # type: ignore[arg-type]

    async def one(self, **options: object) -> FoundAgent:
        (found,) = await self.look((AGENT,), **options)
        return found

    def probes(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_an_agent_in_path_is_usable(machine: Machine) -> None:
    path = machine.install()
    found = await machine.one()

    assert found.usable
    assert (found.path, found.version, found.family) == (str(path), "2.1.3", "plain")
    assert (found.reason, found.params) == ("", {})


async def test_nothing_installed_is_told_with_a_hint(machine: Machine) -> None:
    found = await machine.look(builtin().providers, environ={"PATH": "", "HOME": str(machine.home)})

    assert {one.status for one in found} == {"missing"}
    assert {one.reason for one in found} == {"not_found"}
    assert found[0].install_hint


async def test_twenty_agents_are_asked_at_once(machine: Machine) -> None:
    providers = [
        Provider(id=f"a{n}", name="A", executables=(f"agent-{n}",), family="plain") for n in range(20)
    ]
    for number in range(20):
        # Each waits until all have been started: one after the other, none would ever answer.
        machine.script(
            f'touch "{machine.root}/here-{number}"\n'
            f'while [ "$(ls {machine.root} | grep -c ^here-)" -lt 20 ]; do sleep 0.02; done\n'
            f"echo agent {number}.0.1",
            f"agent-{number}",
        )
    found = await machine.look(providers)

    assert [one.version for one in found] == [f"{number}.0.1" for number in range(20)]
    assert all(one.usable for one in found)


async def test_with_a_warm_cache_no_process_is_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.install()
    first = await machine.one()
    assert machine.probes() == 1

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", never)
    assert await machine.one() == first
    assert machine.cache.stat().st_mode & 0o777 == 0o600


async def test_a_changed_program_is_asked_again(machine: Machine) -> None:
    path = machine.install()
    await machine.one()
    os.utime(path, ns=(1, 1))
    await machine.one()
    assert machine.probes() == 2

    machine.install(version="3.0.0 (Some Agent)")
    assert (await machine.one()).version == "3.0.0"
    await machine.one()
    assert machine.probes() == 3


async def test_a_link_that_is_switched_is_asked_again(machine: Machine) -> None:
    old = install_scripted_agent(machine.root / "versions" / "old", "x", "2.0.0")
    new = install_scripted_agent(machine.root / "versions" / "new", "x", "2.5.0")
    link = machine.bin / "some-agent"
    link.symlink_to(old)
    assert (await machine.one()).version == "2.0.0"
    link.unlink()
    link.symlink_to(new)
    found = await machine.one()

    assert (found.version, found.path) == ("2.5.0", str(link))


async def test_refresh_asks_again(machine: Machine) -> None:
    machine.install()
    await machine.one()
    await machine.one(refresh=True)

    assert machine.probes() == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\x00",
        b"[]",
        b'{"version":1,"entries":{"x":5}}',
        b'{"version":99,"entries":{}}',
        b"[" * 100_000,
    ],
)
async def test_a_damaged_cache_is_made_anew(machine: Machine, content: bytes) -> None:
    machine.install()
    machine.cache.parent.mkdir()
    machine.cache.write_bytes(content)

    assert (await machine.one()).usable
    assert (await machine.one()).usable
    assert machine.probes() == 1


async def test_a_cache_that_cannot_be_written_costs_only_time(machine: Machine) -> None:
    machine.install()
    machine.cache.parent.write_text("a file where a directory should be")

    assert (await machine.one()).usable
    assert (await machine.one()).usable
    assert machine.probes() == 2


async def test_an_agent_that_hangs_is_killed_with_all_it_started(machine: Machine) -> None:
    # A child in its own session that ignores what can be ignored, as agents do.
    machine.script(
        f"trap '' TERM INT HUP\nsetsid sh -c 'trap \"\" TERM; echo $$ > {machine.root}/child; sleep 60' &\n"
        f"while ! [ -s {machine.root}/child ]; do sleep 0.01; done\nsleep 60"
    )
    started = time.monotonic()
    found = await machine.one(limit_s=1.0)

    assert time.monotonic() - started < 5
    assert (found.status, found.reason, found.params) == ("broken", "probe_timed_out", {"limit_s": "1"})
    child = int((machine.root / "child").read_text())
    await asyncio.to_thread(wait_for, lambda: not _runs(child), "the end of the child")


async def test_an_agent_that_hung_is_not_waited_for_again_for_a_while(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.script(f"echo x >> {machine.log}; sleep 60")
    await machine.one(limit_s=0.3)
    found = await machine.one(limit_s=0.3)
    assert found.reason == "probe_timed_out"
    assert machine.probes() == 1

    monkeypatch.setattr(discovery, "HANGING_FOR_S", -1.0)
    await machine.one(limit_s=0.3, refresh=True)
    await machine.one(limit_s=0.3)
    assert machine.probes() == 3


async def test_a_child_that_keeps_the_output_open_does_not_hold_the_answer(machine: Machine) -> None:
    machine.script(f"sleep 30 &\necho $! > {machine.root}/child; echo 2.3.4")
    started = time.monotonic()
    found = await machine.one()

    assert found.version == "2.3.4"
    assert time.monotonic() - started < 10
    psutil.Process(int((machine.root / "child").read_text())).kill()


@pytest.mark.parametrize(
    ("text", "status", "reason", "params"),
    [
        ("echo nothing to see", "broken", "version_unreadable", {"output": "nothing to see"}),
        ("true", "broken", "version_unreadable", {"output": ""}),
        ("printf '\\377\\0\\033[31m'", "broken", "version_unreadable", {"output": "\ufffd\ufffd"}),
        ("echo oh no >&2; exit 3", "broken", "probe_failed", {"exit_code": "3", "output": "oh no"}),
        ("kill -9 $$", "broken", "probe_failed", {"exit_code": "-9", "output": ""}),
        ("yes 1.2.3", "broken", "version_unreadable", None),
        ("echo 1.9.9", "too_old", "version_too_old", {"version": "1.9.9", "min_version": "2.0.0"}),
    ],
)
async def test_what_cannot_be_used_is_told_apart(
    machine: Machine, text: str, status: str, reason: str, params: dict[str, str] | None
) -> None:
    machine.script(text)
    found = await machine.one()

    assert (found.status, found.reason) == (status, reason)
    if params is not None:
        assert found.params == params


async def test_a_program_of_another_machine_is_not_started(machine: Machine) -> None:
    path = machine.bin / "some-agent"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    found = await machine.one()

    assert (found.status, found.reason) == ("broken", "probe_not_started")
    assert found.params["error"]


def program_for(machine: int, *, loader: bytes = b"") -> bytes:
    """The beginning of a program for Linux: enough to be told what it is, not enough to run."""
    head = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9) + struct.pack("<HHI", 2, machine, 1)
    head += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, 1 if loader else 0, 0, 0, 0)
    if loader:
        head += struct.pack("<IIQQQQQQ", 3, 4, 120, 120, 120, len(loader) + 1, len(loader) + 1, 1)
        head += loader + b"\0"
    return head


@pytest.mark.parametrize(
    ("content", "built_for"),
    [
        (program_for(0xF3), "Linux on riscv64"),
        (program_for(0x15), "Linux on ppc64"),
        (program_for(0x1234), "Linux on a machine of kind 4660"),
        (bytes.fromhex("cffaedfe0c000001") + bytes(32), "macOS on arm64"),
        (bytes.fromhex("cafebabe00000002") + struct.pack(">IIIII", 0x01000007, 0, 0, 0, 0) * 2, None),
        (
            b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664),
            "Windows on x86-64",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="says what Linux cannot start")
async def test_a_program_of_another_architecture_is_told(
    machine: Machine, content: bytes, built_for: str | None
) -> None:
    path = machine.bin / "some-agent"
    path.write_bytes(content)
    path.chmod(0o755)
    found = await machine.one()

    assert (found.status, found.reason) == ("broken", "wrong_architecture"), found.params
    assert found.params["machine"] == formats.this_machine()
    if built_for is not None:
        assert found.params["built_for"] == built_for


@pytest.mark.parametrize(
    ("content", "interpreter"),
    [
        (b"#!/no/such/interpreter -x\n", "/no/such/interpreter"),
        (b"#!/usr/bin/env no-such-node\n", "no-such-node"),
        (b"#!/usr/bin/env -S no-such-node --flag\n", "no-such-node"),
    ],
)
async def test_a_script_without_its_interpreter_is_told(
    machine: Machine, content: bytes, interpreter: str
) -> None:
    path = machine.bin / "some-agent"
    path.write_bytes(content)
    path.chmod(0o755)
    found = await machine.one()

    assert (found.status, found.reason) == ("broken", "interpreter_missing"), found.params
    assert found.params == {"interpreter": interpreter}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its program is for that machine")
async def test_a_program_without_its_loader_is_told(machine: Machine) -> None:
    path = machine.bin / "some-agent"
    path.write_bytes(program_for(0x3E, loader=b"/lib/ld-of-another-libc.so.1"))
    path.chmod(0o755)
    found = await machine.one()

    assert found.params == {"interpreter": "/lib/ld-of-another-libc.so.1"}, found.reason


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x7fELF\2\1", b"MZ", b"\xca\xfe\xba\xbe", b"#!"]))
def test_no_head_of_a_file_is_too_odd(rest: bytes, begin: bytes) -> None:
    formats.built_for(begin + rest)
    formats.interpreter_of(begin + rest)


async def test_shims_are_told_apart_and_asked_every_time(machine: Machine) -> None:
    # One program behind many names, which finds out by its own name what is wanted.
    shim = machine.script(
        f'echo "$0" >> {machine.log}; case "$0" in *one) echo 1.0.1;; *) cat {machine.root}/two;; esac',
        "volta-shim",
        machine.root / "volta",
    )
    (machine.root / "two").write_text("2.0.2\n")
    (machine.bin / "one").symlink_to(shim)
    (machine.bin / "two").symlink_to(shim)
    both = [Provider(id=name, name=name, executables=(name,), family="plain") for name in ("one", "two")]
    assert [found.version for found in await machine.look(both)] == ["1.0.1", "2.0.2"]
    (machine.root / "two").write_text("2.3.4\n")
    assert [found.version for found in await machine.look(both)] == ["1.0.1", "2.3.4"]
    assert machine.probes() == 4


async def test_a_program_replaced_by_one_of_the_same_size_and_time_is_asked_again(machine: Machine) -> None:
    path = machine.script("echo 2.0.1")
    os.utime(path, ns=(10**18, 10**18))
    assert (await machine.one()).version == "2.0.1"
    path.unlink()
    path = machine.script("echo 2.0.2")
    os.utime(path, ns=(10**18, 10**18))
    assert (await machine.one()).version == "2.0.2"


async def test_the_users_terminal_goes_before_places_and_after_path(machine: Machine) -> None:
    theirs = machine.home / "theirs"
    machine.script("echo 7.0.0", directory=theirs)
    machine.script("echo 8.0.0", directory=machine.home / "place")
    (machine.home / ".profile").write_text(f"export PATH=$PATH:{theirs}\n")
    environ = machine.environ | {"SHELL": "/bin/sh"}
    options = {"environ": environ, "login_shell": True, "common_places": ("~/place",)}

    found = await machine.one(**options)
    assert found.version == "7.0.0"
    assert str(theirs) in found.search_path
    machine.script("echo 6.0.0")
    assert (await machine.one(**options)).version == "6.0.0"


@pytest.mark.parametrize("text", ["echo 1.9.9", "exit 3", "exec sleep 1000"])
async def test_a_program_that_cannot_be_used_hides_none_that_can(machine: Machine, text: str) -> None:
    machine.script(text)
    good = machine.script("echo x >> $SCRIPTED_AGENT_PROBE_LOG; echo 3.0.0", directory=machine.home / "place")
    options = {"common_places": ("~/place",), "limit_s": 0.5 if "sleep" in text else 10.0}
    found = await machine.one(**options)
    assert (found.status, found.path, found.version) == ("usable", str(good), "3.0.0")
    assert (await machine.one(**options)).path == str(good)
    assert machine.probes() == 1  # what is known is not asked again
    good.unlink()
    assert (await machine.one(**options)).path == str(machine.bin / "some-agent")
    assert not (await machine.one(**options)).usable


async def test_a_program_that_only_has_the_name_is_told(machine: Machine) -> None:
    dsh = builtin().get("dsh")
    assert dsh is not None
    named = msgspec.structs.replace(AGENT, check=dsh.check)
    frame = {"v": 1, "type": "probe", "runtime": "dsh", "protocol_version": 1, "more": []}
    good = f"echo note; echo '{json.dumps(frame)}'"
    for said, status in (
        (good.replace('"protocol_version": 1', '"protocol_version": 2'), "broken"),
        (f"{good}; exit 1", "broken"),
        ("exec sleep 1000", "broken"),
        (good, "usable"),
    ):
        machine.script(f'case "$*" in --version) echo 2.1.3;; "--profile multica --probe") {said};; esac')
        (found,) = await machine.look((named,), limit_s=0.5 if "sleep" in said else 10.0)
        assert (found.status, found.version) == (status, "2.1.3"), said
        assert found.reason == ("" if status == "usable" else "another_program")


async def test_an_interpreter_is_found_where_the_users_terminal_finds_it(machine: Machine) -> None:
    theirs = machine.home / "theirs"
    machine.script("echo 5.0.5", "their-node", theirs)
    agent = machine.bin / "some-agent"
    agent.write_text("#!/usr/bin/env their-node\n")
    agent.chmod(0o755)
    (machine.home / ".profile").write_text(f"export PATH=$PATH:{theirs}\n")
    environ = machine.environ | {"SHELL": "/bin/sh"}

    assert (await machine.one(environ=environ)).reason == "interpreter_missing"
    found = await machine.one(environ=environ, login_shell=True)
    assert found.usable, found
    assert found.search_path[-1:] == (str(theirs),) or str(theirs) in found.search_path


async def test_places_named_by_variables(machine: Machine) -> None:
    machine.script("echo 9.8.7", directory=machine.root / "pnpm")
    environ = machine.environ | {"PNPM_HOME": str(machine.root / "pnpm"), "VOLTA_HOME": "relative"}
    places = ("$NOT_SET/bin", "$VOLTA_HOME/bin", "$PNPM_HOME")

    assert (await machine.one(environ=environ, common_places=places)).version == "9.8.7"


async def test_more_than_are_asked_at_once_get_their_turn(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "AT_ONCE_LIMIT", 2)
    many = [Provider(id=f"a{n}", name="A", executables=(f"agent-{n}",), family="plain") for n in range(7)]
    for number in range(7):
        machine.script(
            f"echo + >> {machine.log}; sleep 0.05; echo - >> {machine.log}; echo {number}.0.0",
            f"agent-{number}",
        )
    found = await machine.look(many)

    assert [one.version for one in found] == [f"{number}.0.0" for number in range(7)]
    running, most = 0, 0
    for sign in machine.log.read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most == 2


async def test_a_file_that_is_not_executable_is_told(machine: Machine) -> None:
    path = machine.install()
    path.chmod(0o644)
    found = await machine.one()

    assert (found.status, found.reason, found.path) == ("not_executable", "not_executable", str(path))


async def test_a_directory_of_that_name_is_no_agent(machine: Machine) -> None:
    (machine.bin / "some-agent").mkdir()

    assert (await machine.one()).status == "missing"


async def test_an_agent_that_cannot_be_driven_is_listed(machine: Machine) -> None:
    machine.install("codex", "codex-cli 0.169.0")
    codex = next(provider for provider in builtin() if provider.id == "codex")
    (found,) = await machine.look([codex], families=["plain"])

    assert (found.status, found.reason, found.version) == ("unsupported", "not_supported_yet", "0.169.0")


async def test_the_shell_is_always_there(machine: Machine) -> None:
    shell = next(provider for provider in builtin() if provider.id == "shell")
    (found,) = await machine.look([shell])
    assert found.usable

    machine.script("exit 2", "bash")
    (without_version,) = await machine.look([shell])
    assert without_version.usable
    assert without_version.version == ""


async def test_settings_and_environment_name_a_program(machine: Machine) -> None:
    machine.install()
    other = install_scripted_agent(machine.root / "other", "renamed", "2.7.0")
    third = install_scripted_agent(machine.home / "third", "renamed", "2.8.0")

    by_settings = await machine.one(overrides={"agent": str(other)})
    assert (by_settings.path, by_settings.version) == (str(other), "2.7.0")
    environ = machine.environ | {"OSTLER_AGENT_PATH": "~/third/renamed"}
    by_environment = await machine.one(overrides={"agent": str(other)}, environ=environ)
    assert (by_environment.path, by_environment.version) == (str(third), "2.8.0")
    machine.install("by-name", "2.9.0")
    assert (await machine.one(overrides={"agent": "by-name"})).version == "2.9.0"


@pytest.mark.parametrize("named", ["/nonexistent/agent", "relative/agent", "no-such-name", "nul\0"])
async def test_a_named_program_that_is_not_there_is_not_replaced_by_another(
    machine: Machine, named: str
) -> None:
    machine.install()
    found = await machine.one(overrides={"agent": named})

    assert (found.status, found.reason) == ("missing", "override_not_found")
    assert found.params == {"path": named, "source": "settings"}


async def test_places_beyond_path_are_looked_at(machine: Machine) -> None:
    places = ("~/.nvm/versions/node/*/bin",)
    for version in ("9.1.0", "20.2.0", "20.10.0"):
        directory = machine.home / ".nvm" / "versions" / "node" / f"v{version}" / "bin"
        machine.script(f"echo {version}", directory=directory)

    assert (await machine.one(common_places=places)).version == "20.10.0"


async def test_the_login_shells_path_is_asked_for_and_remembered(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = machine.home / "hidden" / "bin"
    machine.script("echo 6.0.1", directory=hidden)
    profile = machine.home / ".profile"
    profile.write_text(f"echo noise; export PATH={hidden}:$PATH; echo x >> {machine.log}\n")
    environ = machine.environ | {"SHELL": "/bin/sh"}

    assert (await machine.one(environ=environ)).status == "missing"
    found = await machine.one(environ=environ, login_shell=True)
    assert (found.path, found.version) == (str(hidden / "some-agent"), "6.0.1")
    assert machine.probes() == 1

    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", None)
        assert await machine.one(environ=environ, login_shell=True) == found
    profile.write_text(f"echo x >> {machine.log}\n")
    assert (await machine.one(environ=environ, login_shell=True)).status == "missing"
    assert machine.probes() == 2


@pytest.mark.parametrize("shell", ["", "bash", "/bin/false", "/nonexistent/bash", "/bin/csh"])
async def test_a_shell_that_cannot_be_asked_is_no_trouble(machine: Machine, shell: str) -> None:
    environ = machine.environ | {"SHELL": shell}

    assert (await machine.one(environ=environ, login_shell=True)).status == "missing"


async def test_a_login_shell_that_hangs_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_path, "LIMIT_S", 0.5)
    (machine.home / ".profile").write_text(f"echo $$ > {machine.root}/pid; sleep 60\n")
    environ = machine.environ | {"SHELL": "/bin/sh"}
    machine.install()

    assert (await machine.one(environ=environ, login_shell=True)).usable
    assert not _runs(int((machine.root / "pid").read_text()))


async def test_a_script_finds_its_interpreter_beside_itself(machine: Machine) -> None:
    directory = machine.home / "node" / "bin"
    machine.script("echo 4.5.6", "my-node", directory)
    agent = machine.script("exec my-node", "some-agent", directory)

    assert (await machine.one(overrides={"agent": str(agent)})).version == "4.5.6"


async def test_wrappers_of_another_daemon_are_passed_over(machine: Machine) -> None:
    hooks = machine.home / ".multica" / "hooks" / "bin"
    machine.script("echo 9.9.9", directory=hooks)
    machine.install()
    environ = machine.environ | {"PATH": f"{hooks}:{machine.bin}:/usr/bin:/bin"}

    assert (await machine.one(environ=environ)).version == "2.1.3"


async def test_a_probe_sees_no_credentials(machine: Machine) -> None:
    machine.script(f"env > {machine.root}/env; cat; echo 2.0.0")
    environ = machine.environ | {"OSTLER_TOKEN": "secret", "MULTICA_TOKEN": "secret", "CLAUDECODE": "1"}
    assert (await machine.one(environ=environ)).usable

    assert "secret" not in (machine.root / "env").read_text()
    assert "CLAUDECODE" not in (machine.root / "env").read_text()


async def test_a_cancelled_discovery_leaves_nothing(machine: Machine) -> None:
    machine.script(f"echo $$ > {machine.root}/pid; exec sleep 60")
    looking = asyncio.ensure_future(machine.one())
    pid = machine.root / "pid"
    await asyncio.to_thread(wait_for, lambda: pid.exists() and pid.read_text() != "", "the probe")
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking

    assert not _runs(int((machine.root / "pid").read_text()))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2.1.197 (Claude Code)", "2.1.197"),
        ("codex-cli 0.169.0", "0.169.0"),
        ("warning: old\nv1.2.3-beta.4+5\n9.9.9", "1.2.3"),
        ("GNU bash, version 5.2.37(1)-release", "5.2.37"),
        ("\x1b[1m3.4.5\x1b[0m", "3.4.5"),
        ("1.2", ""),
        ("", ""),
        ("9" * 5000 + ".1.1", "999999999.1.1"),
    ],
)
def test_the_version_is_in_the_first_line_that_has_one(text: str, version: str) -> None:
    assert version_in(text) == version


def test_versions_compare_as_numbers() -> None:
    assert parse_version("0.100.0") == (0, 100, 0)
    assert parse_version("none") is None
    found = parse_version("0.99.1")
    least = parse_version("0.100.0")
    assert found is not None
    assert least is not None
    assert found < least


def test_the_table_of_providers_is_sound() -> None:
    ids = [provider.id for provider in builtin()]

    assert len(set(ids)) == len(ids)
    for provider in builtin():
        assert provider.executables
        assert not provider.min_version or parse_version(provider.min_version)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
