"""What the windows show, before it is drawn: transcripts as items, heights, diffs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.control.views import TranscriptLine
from desktop.models.diff import DiffRow, rows_of
from desktop.models.heights import CHUNK, Heights
from desktop.models.transcript import STEPS, TEXT_CHARS, Kind, Transcript, split_markdown, split_raw
from tests.desktop import canned


def lines(*given: tuple[Any, ...]) -> list[TranscriptLine]:
    made = []
    for seq, (kind, *rest) in enumerate(given, 1):
        if kind == "use":
            made.append(TranscriptLine(seq=seq, type="tool_use", tool=rest[0], input=rest[1]))
        elif kind == "result":
            made.append(TranscriptLine(seq=seq, type="tool_result", tool=rest[0], output=rest[1]))
        else:
            made.append(TranscriptLine(seq=seq, type=kind, content=rest[0]))
    return made


def test_lines_become_items() -> None:
    made = Transcript()
    made.say("Do it")
    made.take(canned.transcript(running=False))
    made.end()
    assert [item.kind for item in made.items] == [
        Kind.SAID, Kind.THINKING, Kind.TEXT, Kind.STEPS, Kind.TEXT, Kind.STEPS, Kind.ERROR, Kind.TEXT,
        Kind.STEPS, Kind.TEXT,
    ]  # fmt: skip
    assert made.errors == [6]
    steps = made.items[3]
    assert [step.summary for step in steps.steps][:2] == [
        "redirect\\(",
        "/home/me/shop-web/src/auth/redirect.ts",
    ]
    assert steps.folded
    assert not made.items[5].folded  # one call needs no folding
    assert not made.waiting


def test_results_find_their_calls_whatever_the_order() -> None:
    made = Transcript()
    made.take(lines(("use", "Bash", "a"), ("use", "Read", "b"), ("use", "Bash", "c")))
    assert all(made.waits(step) for step in made.items[0].steps)
    made.take(
        [
            TranscriptLine(seq=4, type="tool_result", tool="Read", output="of b"),
            TranscriptLine(seq=5, type="tool_result", tool="Bash", output="of a"),
            TranscriptLine(seq=6, type="tool_result", tool="Other", output="of c"),
            TranscriptLine(seq=7, type="tool_result", tool="Lost", output="of nothing"),
        ]
    )
    assert [(step.tool, step.output) for step in made.items[0].steps] == [
        ("Bash", "of a"),
        ("Read", "of b"),
        ("Bash", "of c"),
        ("Lost", "of nothing"),
    ]
    assert not made.waiting


def test_a_result_that_comes_late_changes_the_item_of_its_call() -> None:
    made = Transcript()
    made.take(lines(("use", "Bash", "a"), ("text", "meanwhile")))
    version = made.items[0].version
    first = made.take([TranscriptLine(seq=3, type="tool_result", tool="Bash", output="late")])
    assert first == 0
    assert made.items[0].version > version


def test_lines_that_were_seen_are_passed_over() -> None:
    made = Transcript()
    given = lines(("text", "one"), ("text", "two"))
    made.take(given)
    assert made.take(given) == len(made.items)
    assert made.items[0].text == "one\n\ntwo"


_kinds = st.sampled_from(["text", "thinking", "error", "use", "result"])
_words = st.text(alphabet="abc `\n#-", min_size=1, max_size=40)


@given(st.lists(st.tuples(_kinds, _words), max_size=60), st.lists(st.integers(1, 9), max_size=20))
def test_nothing_is_lost_and_batches_do_not_matter(
    given_lines: list[tuple[str, str]], cuts: list[int]
) -> None:
    made = lines(
        *((kind, "Tool", word) if kind in ("use", "result") else (kind, word) for kind, word in given_lines)
    )
    whole, parts = Transcript(), Transcript()
    whole.take(made)
    rest = made
    for cut in [*cuts, len(made)]:
        parts.take(rest[:cut])
        rest = rest[cut:]
    assert [list(item.plain()) for item in whole.items] == [list(item.plain()) for item in parts.items]
    said = "".join(text for item in whole.items for text in item.parts)
    kept = "".join(line.content or "" for line in made)
    assert "".join(said.split()) == "".join(kept.split())
    calls = sum(len(item.steps) for item in whole.items)
    assert calls >= sum(line.type == "tool_use" for line in made)
    assert all(len(item.steps) <= STEPS for item in whole.items)


def test_long_texts_are_cut_between_lines_and_code_stays_code() -> None:
    code = "\n".join(f"print({number})" for number in range(800))
    pieces = split_markdown(f"Look:\n\n```python\n{code}\n```\nDone.", TEXT_CHARS)
    assert len(pieces) > 3
    for piece in pieces:
        assert piece.count("```") % 2 == 0
    assert all(piece.startswith("```python") for piece in pieces[1:-1])
    shown = "\n".join(pieces)
    assert all(f"print({number})" in shown for number in range(800))


def test_a_line_without_an_end_is_cut_too() -> None:
    pieces = split_markdown("x" * 100_000, 1000)
    assert max(map(len, pieces)) <= 8_000
    assert sum(map(len, pieces)) == 100_000


_facts = st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(0, 2000))


@given(st.lists(_facts, min_size=1, max_size=3 * CHUNK), st.data())
def test_heights_add_up(given_facts: list[tuple[int, int, int]], data: st.DataObject) -> None:
    heights = Heights(16.0, 80.0)
    for index, facts in enumerate(given_facts):
        heights.put(index, *facts)
    exact = {}
    for _round in range(data.draw(st.integers(0, 8))):
        index = data.draw(st.integers(0, len(given_facts) - 1))
        exact[index] = data.draw(st.integers(1, 500))
        heights.measured(index, exact[index])
    expected = [
        exact.get(index, fixed + 16.0 * (breaks + chars / 80.0))
        for index, (fixed, breaks, chars) in enumerate(given_facts)
    ]
    assert abs(heights.total() - sum(expected)) < 0.01
    index = data.draw(st.integers(0, len(given_facts) - 1))
    assert abs(heights.start(index) - sum(expected[:index])) < 0.01
    place, inside = heights.at(heights.start(index) + expected[index] / 2)
    if expected[index] > 1:
        assert place == index
        assert abs(inside - expected[index] / 2) < 0.01
    heights.reflow(10.0, 40.0)
    again = sum(fixed + 10.0 * (breaks + chars / 40.0) for fixed, breaks, chars in given_facts)
    assert abs(heights.total() - again) < 0.01


def test_a_diff_has_the_numbers_of_both_files() -> None:
    rows = rows_of(canned.DIFF)
    assert rows[0] == DiffRow("hunk", "export function afterSignIn(request: Request): Response {")
    assert rows[3] == DiffRow("removed", '    return redirect("/sign-in");', old=14)
    assert [row.new for row in rows if row.kind == "added"] == [14, 15, 17, 18, 48, 49, 50, 51, 52]
    assert rows_of("Binary files differ") == []


@pytest.mark.parametrize("text", ["", "a", "one\ntwo\n" * 400, "x" * 5_000, "\n" * 3_000])
def test_output_is_cut_into_pieces_and_nothing_of_it_is_lost(text: str) -> None:
    pieces = split_raw(text, 1_000)
    assert "".join(pieces) == text
    assert max(len(piece) for piece in pieces) <= 1_000


def test_an_empty_line_without_its_blank_is_a_line_of_both_files() -> None:
    rows = rows_of("@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n")
    assert [(row.kind, row.old, row.new) for row in rows] == [
        ("hunk", None, None), ("same", 1, 1), ("same", 2, 2), ("removed", 3, None), ("added", None, 3),
    ]  # fmt: skip
