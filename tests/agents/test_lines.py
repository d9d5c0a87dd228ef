"""Cutting bytes into lines and texts to size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon_core.agents.lines import LineBuffer, OverlongLine, cut_output, cut_tail, raw_text


@given(text=st.text(), limit=st.integers(0, 60))
def test_output_is_cut_at_a_character_and_as_late_as_possible(text: str, limit: int) -> None:
    cut = cut_output(text, limit)

    assert text.startswith(cut)
    assert len(cut.encode()) <= limit
    if cut != text:
        assert len(text[: len(cut) + 1].encode()) > limit


def test_output_of_half_a_surrogate_pair_is_cut_too() -> None:
    assert len(cut_output("\ud800" * 100, 10)) <= 10


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_the_pieces(data: bytes, cuts: list[int]) -> None:
    pieces = LineBuffer(limit_bytes=20)
    lines: list[bytes | OverlongLine] = []
    at = 0
    for cut in sorted([*cuts, len(data)]):
        lines += pieces.feed(data[at:cut])
        at = max(at, cut)
    lines += pieces.finish()

    assert pieces.consumed == len(data)
    expected = [OverlongLine(line[:20]) if len(line) > 20 else line for line in data.split(b"\n")]
    assert lines == (expected if expected[-1] else expected[:-1])


def test_raw_text_can_be_stored_anywhere() -> None:
    assert raw_text(b"a\x00b\xff") == "a\u2400b\ufffd"
    assert raw_text(b"x" * 10, 4) == "xxxx…"


def test_a_tail_begins_with_a_line() -> None:
    assert cut_tail("one\ntwo\nthree", 9) == "three"
    assert cut_tail("one\ntwo", 100) == "one\ntwo"
    assert cut_tail("x" * 20, 5) == "xxxxx"
    assert cut_tail("x" * 20 + "\n", 5) == "xxxx\n"
