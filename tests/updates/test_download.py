"""Downloads from servers that do everything wrong, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.updates.download import Downloader, Limits, forget
from daemon_core.updates.offers import ProblemError, Target
from tests.updates.mirror import (
    Changed,
    Cut,
    Drip,
    Endless,
    Fault,
    Longer,
    Mirror,
    Stall,
    Status,
    Whole,
    WrongPart,
)

DATA = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(40_000))
LIMITS = Limits(connect_s=2, stall_s=0.2, slow_window_s=0.15, slow_bytes=1000, attempts=2, first_pause_s=0.01)

ONCE = Limits(attempts=1, slow_bytes=10**9)
"""One attempt, whatever it brings."""


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Mirror]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_bytes(DATA)
    async with Mirror(tmp_path / "site") as mirror:
        yield mirror


def target(data: bytes = DATA, **changes: object) -> Target:
    facts = {"path": "file", "url_path": "file", "length": len(data)}
    facts["sha256"] = hashlib.sha256(data).hexdigest()
    return Target(**{**facts, **changes})  # type: ignore[arg-type]


async def fetch(mirror: Mirror, place: Path, wanted: Target | None = None, limits: Limits = LIMITS) -> Path:
    async with Downloader(mirror.url, limits) as downloader:
        return await downloader.fetch(wanted or target(), place / "downloads")


async def code(mirror: Mirror, place: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(ProblemError) as caught:
        await fetch(mirror, place, limits=limits)
    return caught.value.code


async def test_a_file_comes_whole_and_its_progress_is_told(mirror: Mirror, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    async with Downloader(mirror.url + "/", LIMITS) as downloader:
        path = await downloader.fetch(
            target(), tmp_path / "d", lambda done, total: told.append((done, total))
        )
    assert path.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    # What is here whole is not asked for again.
    asked = len(mirror.requests)
    async with Downloader(mirror.url, LIMITS) as downloader:
        await downloader.fetch(target(), tmp_path / "d")
    assert len(mirror.requests) == asked


async def test_a_broken_connection_is_taken_up_where_it_broke(mirror: Mirror, tmp_path: Path) -> None:
    mirror.script("file", Cut(500_000), Cut(400_000))
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA
    first, second, third = mirror.asked_for("file")
    assert first == ""
    starts = [int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in (second, third)]
    assert 0 < starts[0] <= 500_000
    assert starts[0] < starts[1] <= 900_000


async def test_a_later_life_goes_on_with_what_is_here(mirror: Mirror, tmp_path: Path) -> None:
    mirror.script("file", Stall(400_000))
    begun = asyncio.Event()

    def progress(done: int, total: int) -> None:
        if done >= 400_000:
            begun.set()

    async with Downloader(mirror.url, Limits(stall_s=60)) as downloader:
        work = asyncio.create_task(downloader.fetch(target(), tmp_path / "downloads", progress))
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA
    assert mirror.asked_for("file") == ["", "bytes=400000-"]


async def test_a_file_that_has_changed_meanwhile_is_begun_anew(mirror: Mirror, tmp_path: Path) -> None:
    mirror.script("file", Cut(500_000))
    with pytest.raises(ProblemError):
        await fetch(mirror, tmp_path, limits=ONCE)
    (mirror.directory / "file").write_bytes(DATA[::-1])  # another file: ``If-Range`` does not fit
    wanted = target(DATA[::-1])
    (tmp_path / "downloads" / f"{target().sha256}.part").rename(
        tmp_path / "downloads" / f"{wanted.sha256}.part"
    )
    (tmp_path / "downloads" / f"{target().sha256}.json").rename(
        tmp_path / "downloads" / f"{wanted.sha256}.json"
    )
    assert (await fetch(mirror, tmp_path, wanted)).read_bytes() == DATA[::-1]


@pytest.mark.parametrize("fault", [Whole(), WrongPart()])
async def test_a_wrong_answer_to_a_range(mirror: Mirror, tmp_path: Path, fault: Fault) -> None:
    """The whole in place of the rest is taken as such; another part makes it begin anew."""
    mirror.script("file", Cut(500_000), fault)
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA


async def test_damage_in_what_was_kept_is_mended(mirror: Mirror, tmp_path: Path) -> None:
    mirror.script("file", Cut(500_000))
    with pytest.raises(ProblemError):
        await fetch(mirror, tmp_path, limits=ONCE)
    part = tmp_path / "downloads" / f"{target().sha256}.part"
    part.write_bytes(b"\0" * 1000 + part.read_bytes()[1000:])  # as a power cut leaves it
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA
    assert mirror.asked_for("file")[-1] == ""


async def test_what_is_kept_without_a_mark_is_begun_anew(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f"{target().sha256}.part").write_bytes(b"x" * 1000)
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA
    (tmp_path / "downloads" / f"{target().sha256}.part").write_bytes(DATA + b"more")
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Cut(100), "cut_off"),
        (Stall(100), "stalled"),
        (Drip(pause_s=0.01), "too_slow"),
        (Endless(), "too_long|mismatch"),
        (Longer(), "too_long"),
        (Changed(), "mismatch"),
        (Changed(at=900_000), "mismatch"),
        (Status(500), "server_error"),
        (Status(404), "server_error"),
        (Status(503, (("Retry-After", "900"),)), "server_error"),
        (Status(302, (("Location", "http://localhost:1/file"),)), "redirect"),
        (Status(302, (("Location", "ftp://127.0.0.1/file"),)), "redirect"),
        (Status(302, (("Location", "/file"),)), "redirect"),
        (Status(302), "redirect"),
    ],
    ids=str,
)
async def test_every_fault_ends_in_a_word(mirror: Mirror, tmp_path: Path, fault: Fault, word: str) -> None:
    mirror.always("file", fault)
    assert await code(mirror, tmp_path) in word.split("|")
    mirror.always("file", None)  # and the next attempt is a good one
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA


async def test_a_shorter_file_is_refused_by_its_length(mirror: Mirror, tmp_path: Path) -> None:
    (mirror.directory / "file").write_bytes(DATA[:-1])
    assert await code(mirror, tmp_path) == "wrong_size"


async def test_nobody_listens(tmp_path: Path) -> None:
    async with Downloader("http://127.0.0.1:1/", LIMITS) as downloader:
        with pytest.raises(ProblemError) as caught:
            await downloader.fetch(target(), tmp_path)
    assert caught.value.code == "unreachable"
    assert not caught.value.lasting


async def test_a_server_that_wants_to_be_left_alone_is(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always("file", Status(503, (("Retry-After", "900"),)))
    with pytest.raises(ProblemError) as caught:
        await fetch(mirror, tmp_path)
    assert caught.value.pause_s == 900
    assert len(mirror.asked_for("file")) == 1


async def test_sent_on_to_a_host_that_the_installation_names(mirror: Mirror, tmp_path: Path) -> None:
    there = f"http://localhost:{mirror.port}/file"
    mirror.script("file", Status(302, (("Location", there),)))
    async with Downloader(mirror.url, LIMITS, other_hosts=("localhost",)) as downloader:
        assert (await downloader.fetch(target(), tmp_path / "d")).read_bytes() == DATA


async def test_the_cap_holds_before_anything_is_asked(mirror: Mirror, tmp_path: Path) -> None:
    assert await code(mirror, tmp_path, Limits(size_bytes=1000)) == "too_large"
    assert mirror.requests == []


async def test_a_full_disk_and_a_closed_directory(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "downloads").write_text("in the way")
    assert await code(mirror, tmp_path) == "disk_error"
    (tmp_path / "downloads").unlink()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert await code(mirror, tmp_path) == "disk_full"
    assert (await fetch(mirror, tmp_path)).read_bytes() == DATA


def test_what_nobody_needs_is_removed(tmp_path: Path) -> None:
    for name in ("a" * 64, "b" * 64):
        (tmp_path / f"{name}.part").write_text("")
        (tmp_path / f"{name}.json").write_text("{}")
    forget(tmp_path, frozenset({"a" * 64}))
    assert sorted(os.listdir(tmp_path)) == ["a" * 64 + ".json", "a" * 64 + ".part"]
    forget(tmp_path / "none")
