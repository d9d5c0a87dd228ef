"""The plain family with a real shell, and its reader."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event, Text
from daemon_core.agents.family import LaunchError, LaunchRequest, Reader
from daemon_core.agents.shell import (
    EVENT_LIMIT_BYTES,
    PARTIAL_LIMIT_BYTES,
    RESULT_LIMIT_CHARS,
    ShellFamily,
    ShellReader,
)
from daemon_core.protocol import failures
from tests.agents.restarts import merged, read_whole, read_with_deaths
from tests.support.driving import Driven, drive

BASH = shutil.which("bash") or "/bin/bash"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path


def run(place: Path, prompt: str, shell: str = BASH) -> Driven:
    request = LaunchRequest(
        executable=shell, prompt=prompt, work_dir=str(place / "work"), run_dir=str(place / "run")
    )
    return drive(ShellFamily(), request, {"PATH": os.environ["PATH"], "HOME": str(place)})


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def test_output_and_errors_are_the_transcript_and_the_result(place: Path) -> None:
    driven = run(place, "echo one; echo two >&2; pwd")

    assert driven.outcome.success
    assert driven.outcome.output == f"one\ntwo\n{place / 'work'}"
    assert text_of(driven.events) == driven.outcome.output + "\n"
    mode = (place / "run" / "command.sh").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    ("prompt", "code", "output"),
    [
        ("echo a; exit 3; echo b", 3, "a"),
        ("exit", 0, ""),
        ("", 0, ""),
        ("echo a (", 2, None),
        ("(echo a", 2, None),
        ("echo a \\", 0, "a"),
        ("echo 'never closed", 2, None),
        ("if true\r\nthen\r\n  echo a\r\nfi\r\n", 0, "a"),
        ("cat <<END\nin a document\nEND", 0, "in a document"),
        ("read line; echo \"got '$line'\"", 0, "got ''"),
        ("no-such-command-here", 127, None),
        ("echo -n no newline", 0, "no newline"),
        ("printf 'ü\\0€\\377'", 0, "ü\u2400€\ufffd"),
        ("echo I reached the iteration limit", 0, "I reached the iteration limit"),
        ("exec echo replaced", 0, "replaced"),
        ("set -e; false; echo b", 1, ""),
    ],
)
def test_any_command_ends_with_its_own_status(
    place: Path, prompt: str, code: int, output: str | None
) -> None:
    driven = run(place, prompt)

    assert driven.exit_code == code
    assert driven.outcome.success == (code == 0)
    if code:
        assert driven.outcome.error == f"exit status {code}"
        assert driven.outcome.reason == failures.AGENT_PROCESS
    if output is not None:
        assert driven.outcome.output == output


def test_a_command_killed_by_a_signal_has_failed(place: Path) -> None:
    driven = run(place, "echo a; kill -9 $$")

    assert not driven.outcome.success
    assert driven.outcome.error == "ended by signal 9 (SIGKILL)"
    assert driven.outcome.output == "a"


def test_a_command_of_a_megabyte_runs(place: Path) -> None:
    prompt = "x='" + "a" * (1 << 20) + "'\necho ${#x}"

    assert run(place, prompt).outcome.output == str(1 << 20)


def test_it_runs_with_a_plain_sh(place: Path) -> None:
    assert run(place, "echo from sh", "/bin/sh").outcome.output == "from sh"


def test_a_command_with_a_nul_is_refused(place: Path) -> None:
    with pytest.raises(LaunchError):
        run(place, "echo \0")


def test_nothing_of_the_command_is_in_the_arguments(place: Path) -> None:
    request = LaunchRequest(executable=BASH, prompt="secret", work_dir="/", run_dir=str(place))

    assert "secret" not in " ".join(ShellFamily().plan(request).argv)


def test_the_result_is_the_end_of_a_long_output(place: Path) -> None:
    driven = run(place, "seq 1 200000")

    assert (
        text_of(driven.events)
        == subprocess.run(["seq", "1", "200000"], capture_output=True, text=True, check=True).stdout
    )
    assert driven.outcome.output.endswith("\n199999\n200000")
    assert driven.outcome.output.split("\n")[0].isdigit()
    assert RESULT_LIMIT_CHARS - 10 < len(driven.outcome.output) <= RESULT_LIMIT_CHARS


def test_events_are_whole_lines_of_bounded_size() -> None:
    reader = ShellReader()
    lines = b"".join(b"%d\n" % number for number in range(20_000))
    events = reader.feed(lines + b"partial")

    for event in events:
        assert isinstance(event, Text)
        assert event.text.endswith("\n")
        assert len(event.text) <= EVENT_LIMIT_BYTES
    assert len(events) < len(lines) / EVENT_LIMIT_BYTES + 2
    assert reader.consumed == len(lines)
    assert reader.flush() == [ev.Text("partial")]
    assert reader.flush() == []


def test_a_flush_never_splits_a_character() -> None:
    reader = ShellReader()
    euro = "€".encode()
    assert reader.feed(b"a" + euro[:2]) == []
    assert reader.flush() == [ev.Text("a")]
    assert reader.consumed == 1
    assert reader.feed(euro[2:]) == []
    assert reader.flush() == [ev.Text("€")]


def test_output_without_newlines_needs_no_memory() -> None:
    reader = ShellReader()
    total = 0
    for _ in range(100):
        for event in reader.feed(b"." * 50_000):
            assert isinstance(event, Text)
            total += len(event.text)
            assert len(event.text) < PARTIAL_LIMIT_BYTES + 50_000
    assert total + len(b"." * 50_000) * 2 > 5_000_000
    assert len(reader.snapshot()) < 2 * RESULT_LIMIT_CHARS


_piece = (
    st.sampled_from([b"\n", b"\r\n", b"\0", b"\xff", "€".encode(), "😀".encode(), b"\xe2\x82", b"\x1b[0m"])
    | st.binary(max_size=12)
    | st.integers(1, 3000).map(lambda count: b"x" * count)
)


@given(
    data=st.lists(_piece, max_size=40).map(b"".join),
    picks=st.lists(st.tuples(st.integers(0, 100_000), st.booleans(), st.booleans())),
)
@settings(max_examples=300, deadline=None)
def test_dying_and_being_restored_changes_nothing(data: bytes, picks: list[tuple[int, bool, bool]]) -> None:
    def make(snapshot: bytes | None) -> Reader:
        return ShellReader(snapshot)

    cuts = [(at % (len(data) + 1), flush, die) for at, flush, die in picks]
    events, reader, _ = read_whole(make, data)
    again, other, _ = read_with_deaths(make, data, cuts)

    assert merged(again) == merged(events)
    assert text_of(events) == data.decode("utf-8", "replace").replace("\0", "\u2400")
    assert other.consumed == reader.consumed == len(data)
    assert other.snapshot() == reader.snapshot()
    assert other.outcome(0, None, "") == reader.outcome(0, None, "")
