"""Custom profiles: their signature, and what becomes of them on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.connections.client import RuntimeProfile
from daemon_core.runtimes.profiles import ProfileResolver, signature
from daemon_core.runtimes.providers import builtin

FIRST = "00000000-0000-0000-0000-000000000001"


def profile(id_: str = FIRST, **fields: Any) -> RuntimeProfile:
    given_fields = {
        "display_name": "Mine",
        "protocol_family": "claude",
        "command_name": "my-claude",
        "visibility": "workspace",
        **fields,
    }
    return RuntimeProfile(id=id_, **given_fields)


def program(directory: Path, name: str, says: str = "2.3.4", *, mode: int = 0o755) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f'#!/bin/sh\necho x >> "{directory}/asked-{name}"\necho "{says}"\n')
    path.chmod(mode)
    return path


def asked(directory: Path, name: str) -> int:
    file = directory / f"asked-{name}"
    return len(file.read_text().split()) if file.exists() else 0


def resolver(
    bin_: Path, paths: dict[str, str] | None = None, *, drivable: bool = True, beyond: tuple[str, ...] = ()
) -> ProfileResolver:
    chosen = paths if paths is not None else {}
    return ProfileResolver(
        builtin().get,
        {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": str(bin_.parent)},
        lambda id_: chosen.get(id_, ""),
        lambda _: drivable,
        beyond=lambda: beyond,
        common_places=(),
    )


# --- the signature ---------------------------------------------------------------------------------


def test_the_signature_has_the_worked_value() -> None:
    assert signature([profile(fixed_args=["--a", "b c"])]) == "376481173cbea717"
    assert signature([]) == "0"


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"display_name": "Other"}, False),
        ({"description": "Other"}, False),
        ({"protocol_family": "codex"}, True),
        ({"command_name": "other"}, True),
        ({"fixed_args": ["--x"]}, True),
        ({"visibility": "private"}, True),
        ({"enabled": False}, True),
    ],
)
def test_the_signature_tells_what_matters_for_a_start(change: dict[str, Any], counts: bool) -> None:
    assert (signature([profile()]) != signature([profile(**change)])) is counts


@given(st.permutations([profile("a"), profile("b", fixed_args=["x"]), profile("é")]))
def test_the_order_of_profiles_does_not_matter(order: list[RuntimeProfile]) -> None:
    assert signature(order) == signature([profile("a"), profile("b", fixed_args=["x"]), profile("é")])


def test_arguments_are_told_apart_from_each_other() -> None:
    assert signature([profile(fixed_args=["ab"])]) != signature([profile(fixed_args=["a", "b"])])


# --- on this machine -------------------------------------------------------------------------------


async def test_a_command_in_path_is_resolved_and_asked_for_its_version_once(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    path = program(bin_, "my-claude")
    found = resolver(bin_)
    for _ in range(2):
        (usable,) = (await found.resolve([profile(fixed_args=["--a"])])).usable
        assert (usable.path, usable.version, usable.args) == (str(path), "2.3.4", ("--a",))
        assert (usable.provider, usable.name) == ("claude", "Mine")
    assert asked(bin_, "my-claude") == 1
    program(bin_, "my-claude", "3.0.0 and more")
    (usable,) = (await found.resolve([profile()])).usable
    assert usable.version == "3.0.0"


async def test_a_command_is_found_where_the_users_terminal_finds_it(tmp_path: Path) -> None:
    path = program(tmp_path / "theirs", "my-claude")
    found = resolver(tmp_path / "bin", beyond=(str(path.parent),))
    (usable,) = (await found.resolve([profile()])).usable
    assert (usable.path, usable.version) == (str(path), "2.3.4")


async def test_the_users_own_path_goes_before_the_command(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    program(bin_, "my-claude")
    mine = program(tmp_path / "elsewhere", "special", "9.9.9")
    (usable,) = (await resolver(bin_, {FIRST: str(mine)}).resolve([profile()])).usable
    assert (usable.path, usable.version) == (str(mine), "9.9.9")


async def test_a_path_that_cannot_be_executed_falls_back_to_the_command(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    path = program(bin_, "my-claude")
    plain = program(tmp_path / "elsewhere", "special", mode=0o644)
    (usable,) = (await resolver(bin_, {FIRST: str(plain)}).resolve([profile()])).usable
    assert usable.path == str(path)


async def test_what_cannot_be_used_is_told_with_every_reason(tmp_path: Path) -> None:
    plain = program(tmp_path / "elsewhere", "special", mode=0o644)
    found = resolver(tmp_path / "bin", {"b": str(plain)})
    resolved = await found.resolve([profile("a"), profile("b", protocol_family="traecli"), profile("c")])
    assert resolved.usable == ()
    reasons = {failed.profile_id: failed.reason for failed in resolved.failed}
    assert reasons["a"] == "the command 'my-claude' was not found in PATH"
    assert "'traecli' is not supported" in reasons["b"]
    assert str(plain) in reasons["b"]
    assert "not found" in reasons["b"]
    assert {failed.command_name for failed in resolved.failed} == {"my-claude"}


async def test_a_family_that_cannot_be_driven_yet_is_told_so(tmp_path: Path) -> None:
    program(tmp_path / "bin", "my-claude")
    (failed,) = (await resolver(tmp_path / "bin", drivable=False).resolve([profile()])).failed
    assert "cannot drive" in failed.reason


async def test_a_version_below_the_familys_minimum_is_refused(tmp_path: Path) -> None:
    program(tmp_path / "bin", "my-claude", "1.9.9")
    (failed,) = (await resolver(tmp_path / "bin").resolve([profile()])).failed
    assert "1.9.9 is too old" in failed.reason


async def test_a_command_that_tells_no_version_is_used_all_the_same(tmp_path: Path) -> None:
    program(tmp_path / "bin", "my-claude", "hello")
    (usable,) = (await resolver(tmp_path / "bin").resolve([profile()])).usable
    assert usable.version == ""


@pytest.mark.parametrize(
    "left_out", [{"command_name": " "}, {"protocol_family": ""}, {"enabled": False}], ids=str
)
async def test_half_a_profile_is_passed_over(tmp_path: Path, left_out: dict[str, Any]) -> None:
    program(tmp_path / "bin", "my-claude")
    resolved = await resolver(tmp_path / "bin").resolve([profile(**left_out)])
    assert (resolved.usable, resolved.failed) == ((), ())


@pytest.mark.parametrize("command", ["./my-claude", "bin/my-claude", "../bin/my-claude"])
async def test_a_relative_command_is_not_looked_for(tmp_path: Path, command: str) -> None:
    program(tmp_path / "bin", "my-claude")
    resolved = await resolver(tmp_path / "bin").resolve([profile(command_name=command)])
    assert len(resolved.failed) == 1
