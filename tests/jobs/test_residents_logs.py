"""A resident's log over starts and files, and the directories that may be emptied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.jobs.residents import logs
from daemon_core.jobs.residents.clearing import ClearRefusedError, clear
from daemon_core.jobs.residents.files import Resident
from daemon_core.jobs.residents.logs import LogReader, Position, before_last
from daemon_core.jobs.residents.places import LockedElsewhereError, Place, Record, ResidentLock


def lay_out(root: Path, starts: list[list[bytes]]) -> Place:
    """A log as shims leave it: starts, each in stretches, the last of which is the present file."""
    place = Place(root, "one")
    for number, stretches in enumerate(starts, 1):
        run_dir = place.run_dir(number)
        run_dir.mkdir(parents=True)
        at = 0
        for stretch in stretches[:-1]:
            (run_dir / f"stdout.{at}").write_bytes(stretch)
            at += len(stretch)
        (run_dir / "stdout").write_bytes(stretches[-1])
    return place


def all_of(reader: LogReader) -> list[bytes]:
    found = []
    while lines := reader.read():
        found += lines
    rest = reader.unfinished()
    return [*found, rest] if rest else found


def lines_of(starts: list[list[bytes]]) -> list[bytes]:
    found = []
    for stretches in starts:
        whole = b"".join(stretches)
        lines = whole.split(b"\n")
        found += lines[:-1] if lines[-1] == b"" else lines
    return found


STRETCHES = st.lists(
    st.lists(st.text("ab\n", min_size=1, max_size=12).map(str.encode), min_size=1, max_size=4), max_size=4
)


@settings(max_examples=150, deadline=None)
@given(starts=STRETCHES, count=st.integers(0, 30), block=st.integers(1, 9))
def test_the_last_lines_whatever_is_where(
    tmp_path_factory: pytest.TempPathFactory, starts: list[list[bytes]], count: int, block: int
) -> None:
    place = lay_out(tmp_path_factory.mktemp("log"), starts)
    before, logs.BLOCK_BYTES = logs.BLOCK_BYTES, block  # type: ignore[misc]
    try:
        expected = lines_of(starts)
        assert all_of(LogReader(place, before_last(place, count))) == (expected[-count:] if count else [])
    finally:
        logs.BLOCK_BYTES = before  # type: ignore[misc]


def test_reading_along(tmp_path: Path) -> None:
    place = lay_out(tmp_path, [[b"one\ntw"]])
    reader = LogReader(place, before_last(place, 10))
    assert reader.read() == [b"one"]
    assert reader.read() == []
    with open(place.run_dir(1) / "stdout", "ab") as file:
        file.write(b"o\nthr")
    assert reader.read() == [b"two"]
    # The file is full and the start over: neither costs a line.
    os.rename(place.run_dir(1) / "stdout", place.run_dir(1) / "stdout.0")
    (place.run_dir(1) / "stdout").write_bytes(b"ee\nlast words")
    place.run_dir(2).mkdir()
    (place.run_dir(2) / "stdout").write_bytes(b"again\n")
    assert [*reader.read(), *reader.read(), *reader.read()] == [b"three", b"last words", b"again"]
    assert reader.position == Position(2, 6)


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    place = lay_out(tmp_path, [[b"x" * 300_000]])
    assert b"".join(all_of(LogReader(place, Position(1, 0)))) == b"x" * 300_000


def test_old_starts_go_and_the_present_one_stays(tmp_path: Path) -> None:
    place = lay_out(tmp_path, [[b"x" * 100] for _ in range(30)])
    place.prune(10_000, 30)
    assert place.starts() == list(range(11, 31))
    place.prune(350, 30)
    assert place.starts() == [28, 29, 30]
    place.prune(1, 28)
    assert place.starts() == [28]
    assert place.log_bytes() == 100


def test_a_record_is_kept(tmp_path: Path) -> None:
    place = Place(tmp_path, "one")
    assert place.read() is None
    record = Record(start=3, mark="m", stopped=True, params={"a": 1})
    place.write(record)
    assert place.read() == record
    (place.path / "resident.json").write_text('{"start": "x"}')
    assert place.read() is None


def test_one_lock_of_one_id(tmp_path: Path) -> None:
    first = ResidentLock.take(tmp_path / "locks", "one", "the first")
    with pytest.raises(LockedElsewhereError) as refused:
        ResidentLock.take(tmp_path / "locks", "one", "the second")
    assert refused.value.holder == "the first"
    ResidentLock.take(tmp_path / "locks", "two", "the second").release()
    # A shim that has inherited it holds it on.
    copy = os.dup(first.fd)
    first.release()
    first.release()
    with pytest.raises(LockedElsewhereError):
        ResidentLock.take(tmp_path / "locks", "one", "the second")
    os.close(copy)
    ResidentLock.take(tmp_path / "locks", "one", "the second").release()


# --- clearing -----------------------------------------------------------------------------------------


@pytest.fixture
def resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resident:
    home = tmp_path / "home" / "me"
    work = home / "agents" / "one"
    (work / "cache" / "deep").mkdir(parents=True)
    (work / "cache" / "deep" / "file").write_text("x" * 10)
    (work / "cache" / "file").write_text("x" * 5)
    (home / "ostler" / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "cache").mkdir(parents=True)
    (work / "link").symlink_to(tmp_path / "elsewhere" / "cache")
    (work / "around").symlink_to(tmp_path / "elsewhere")
    (work / "plain").write_text("")
    monkeypatch.setenv("HOME", str(home))
    return Resident(id="one", file="f", name="one", argv=("x",), directory=str(work))


def own(resident: Resident) -> list[Path]:
    return [Path(resident.directory).parents[1] / "ostler" / "data"]


def test_what_is_named_is_emptied_and_stays(resident: Resident, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "cache"
    (outside / "old").write_text("x")
    done = clear(resident, ["cache", "./cache", "none", str(outside)], own(resident))
    cache = Path(resident.directory) / "cache"
    assert (done.paths, done.freed_bytes, done.left) == ([str(cache), str(outside)], 16, [])
    assert list(cache.iterdir()) == list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".", "outside"),
        ("..", "outside"),
        ("../two", "outside"),
        ("cache/../..", "outside"),
        ("~", "protected"),
        ("~/agents", "protected"),
        ("~/agents/one", "protected"),
        ("/", "protected"),
        ("/usr", "protected"),
        ("/usr/lib", "protected"),
        ("~/ostler", "protected"),
        ("~/ostler/data", "protected"),
        ("~/ostler/data/journal", "protected"),
        ("link", "link"),
        ("around/cache", "link"),
        ("plain", "not_a_directory"),
    ],
)
def test_what_is_never_emptied(resident: Resident, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "elsewhere" / "cache" / "file").write_text("kept")
    with pytest.raises(ClearRefusedError) as refused:
        clear(resident, ["cache", name], own(resident))
    assert refused.value.why == why
    # All are looked at before the first is touched.
    assert (Path(resident.directory) / "cache" / "file").exists()
    assert (tmp_path / "elsewhere" / "cache" / "file").exists()


def test_links_inside_are_removed_and_not_followed(resident: Resident, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "cache" / "file").write_text("kept")
    (Path(resident.directory) / "cache" / "deep" / "link").symlink_to(tmp_path / "elsewhere" / "cache")
    (Path(resident.directory) / "cache" / "link").symlink_to(tmp_path / "elsewhere" / "cache")
    clear(resident, ["cache"], own(resident))
    assert (tmp_path / "elsewhere" / "cache" / "file").read_text() == "kept"
