"""Reading a job's output: pieces, digests, plain text."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from daemon_core.jobs.output import DIGEST_LIMIT_CHARS, digest, plain, read_piece, read_tail, size_of


def written(place: Path, data: bytes) -> Path:
    (place / "stdout").write_bytes(data)
    return place


def test_pieces_put_together_are_the_output(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    written(tmp_path, data)
    found, offset = b"", 0
    while (piece := read_piece(tmp_path, "stdout", offset, 777)).data:
        assert piece.offset == offset
        assert piece.size == len(data)
        found += piece.data
        offset += len(piece.data)
    assert found == data
    beyond = read_piece(tmp_path, "stdout", 1 << 50, 10)
    assert (beyond.data, beyond.offset) == (b"", len(data))


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    assert size_of(tmp_path) == 0
    assert read_piece(tmp_path, "stderr", 5, 10).data == b""
    assert digest(tmp_path).text == ""
    assert read_tail(tmp_path, "stdout") == b""


def test_a_short_output_is_told_whole(tmp_path: Path) -> None:
    found = digest(written(tmp_path, "grüße\n".encode() * 10))
    assert found.text == "grüße\n" * 10
    assert not found.shortened


def test_a_long_output_is_told_by_both_ends_and_its_true_size(tmp_path: Path) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(500_000))
    found = digest(written(tmp_path, lines))
    assert found.shortened
    assert found.size == len(lines)
    assert found.text.startswith("line 0\nline 1\n")
    assert found.text.endswith("line 499999\n")
    assert f"{len(lines):,} bytes" in found.text
    assert DIGEST_LIMIT_CHARS - 100 < len(found.text) < DIGEST_LIMIT_CHARS + 200


def test_an_output_of_control_sequences_and_little_text_is_told_whole(tmp_path: Path) -> None:
    data = (
        b"begin\r\n"
        + b"".join(b"\r\x1b[2K%d%%" % (number % 100) for number in range(30_000))
        + b"\r\nend\r\n"
    )
    found = digest(written(tmp_path, data))
    assert found.text.startswith("begin\n")
    assert found.text.endswith("end\n")
    assert len(found.text) < 1000


def test_a_huge_output_takes_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "stdout", "wb") as file:
        file.write(b"first\n")
        file.truncate(3 << 30)
        file.seek(0, 2)
        file.write(b"\nlast\n")
    tracemalloc.start()
    found = digest(tmp_path)
    read_piece(tmp_path, "stdout", 1 << 31, 1 << 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.text.startswith("first")
    assert found.text.endswith("last\n")
    assert peak < 16 * 2**20


def test_plain_text_is_what_a_terminal_would_leave() -> None:
    assert plain(b"\x1b[31mred\x1b[0m \x1b]0;title\x07text\x1b(B\x1b[?25l") == "red text"
    assert plain(b"10%\r50%\r100%\r\ndone\r\n") == "100%\ndone\n"
    assert plain(b"ab\x08 \x08c") == "ac"
    assert plain(b"\x00\x01tab\tkept\n") == "tab\tkept\n"
    assert plain("ü€".encode()[1:], cut_start=True) == "€"
    assert plain("a€".encode()[:-1], cut_end=True) == "a"
    assert plain(b"text\x1b[3", cut_end=True) == "text"


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_no_bytes_are_too_much(data: bytes, start: bool, end: bool) -> None:
    text = plain(data, cut_start=start, cut_end=end)
    assert not any(ord(char) < 32 and char not in "\t\n" for char in text)
    text.encode()
