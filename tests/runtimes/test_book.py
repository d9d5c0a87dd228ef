"""What this machine remembers about its runtimes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from daemon_core.runtimes import book as books
from daemon_core.runtimes.book import Off, RuntimeBook, Start


async def test_it_is_all_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "runtimes.json"
    book = RuntimeBook.open(path)
    off = Off(subject="claude", connection="hub", workspace="w", runtime_id="r")
    await book.switch(off=[off, Off(subject="codex")])
    await book.set_path("p1", "/opt/x")
    await book.set_path("p2", "/opt/y")
    await book.set_path("p2", "")
    await book.remember("hub", [("r1", Start(provider="claude", path="/x", args=("-a",)))])
    again = RuntimeBook.open(path)
    assert again.off == (off, Off(subject="codex"))
    assert again.paths == {"p1": "/opt/x"}
    assert (again.path_of("p1"), again.path_of("p2")) == ("/opt/x", "")
    assert again.start_of("hub", "r1") == Start(provider="claude", path="/x", args=("-a",))
    assert again.start_of("other", "r1") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_switch_is_for_all_or_for_one(tmp_path: Path) -> None:
    book = RuntimeBook()
    one = Off(subject="claude", connection="hub", workspace="w")
    await book.switch(off=[one, one, Off(subject="codex")])
    assert book.is_off("hub", "w", "claude")
    assert not book.is_off("hub", "v", "claude")
    assert book.is_off("any", "where", "codex")
    await book.switch(on=[one])
    assert not book.is_off("hub", "w", "claude")


async def test_what_cannot_be_written_is_not_in_force(tmp_path: Path) -> None:
    book = RuntimeBook(tmp_path / "nowhere" / "runtimes.json")
    with pytest.raises(OSError):
        await book.switch(off=[Off(subject="claude")])
    with pytest.raises(OSError):
        await book.set_path("p", "/x")
    assert not book.is_off("hub", "w", "claude")
    assert book.path_of("p") == ""


@pytest.mark.parametrize("damage", [b"", b"{", b'{"off": 3}', b"\xff"])
async def test_a_damaged_file_is_set_aside(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runtimes.json"
    path.write_bytes(damage)
    book = RuntimeBook.open(path)
    assert book.off == ()
    assert (tmp_path / "runtimes.json.damaged").read_bytes() == damage
    assert "set aside" in caplog.text
    await book.switch(off=[Off(subject="x")])
    assert RuntimeBook.open(path).off == (Off(subject="x"),)


async def test_only_so_many_starts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "STARTS_LIMIT", 2)
    book = RuntimeBook()
    for name in "abcb":
        await book.remember("s", [(name, Start(provider=name, path=name))])
    await book.remember("s", [("d", Start(provider="d", path="d"))])
    assert [name for name in "abcd" if book.start_of("s", name)] == ["c", "d"]
