"""Events into numbered, encoded, bounded transcript lines (promise P3)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.agents import events as ev
from daemon_core.tasks.translate import (
    CHUNK_BYTES,
    CHUNK_MESSAGES,
    INPUT_LIMIT_BYTES,
    TEXT_PIECE_CHARS,
    TOOL_NAME_CHARS,
    Digest,
    digest,
    storable_text,
)


def lines(made: Digest) -> list[dict[str, Any]]:
    return [line for _, _, body in made.chunks for line in msgspec.json.decode(body)]


def check_numbers(made: Digest, first: int) -> None:
    """No hole, no double, and every chunk says which numbers it has."""
    expected = first
    for begin, end, body in made.chunks:
        numbers = [line["seq"] for line in msgspec.json.decode(body)]
        assert numbers == list(range(begin, end + 1))
        assert begin == expected
        expected = end + 1
    assert made.next_seq == expected


texts = st.text(st.characters(codec=None), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
some_events = st.one_of(
    st.builds(ev.Text, texts),
    st.builds(ev.Thinking, texts),
    st.builds(ev.ToolUse, call_id=st.just("1"), tool=texts, input=values),
    st.builds(ev.ToolResult, call_id=st.just("1"), tool=texts, output=texts),
    st.builds(ev.ErrorText, texts),
    st.builds(ev.Unreadable, raw=texts, why=st.just("x")),
    st.builds(ev.SessionStarted, session_id=texts),
    st.builds(ev.Notice, text=texts),
    st.builds(ev.TurnEnded, success=st.booleans()),
)


@given(happened=st.lists(some_events, max_size=20), first=st.integers(1, 10**9))
def test_whatever_happens_is_numbered_without_a_hole_and_can_be_stored(
    happened: list[ev.Event], first: int
) -> None:
    made = digest(happened, first)
    check_numbers(made, first)
    assert made.messages == made.next_seq - first
    for _, _, body in made.chunks:
        body.decode("utf-8")
        assert "\0" not in repr(msgspec.json.decode(body)).replace("\\x00", "\0")


def test_every_event_becomes_its_line() -> None:
    made = digest(
        [
            ev.Thinking("hm"),
            ev.ToolUse("1", "Bash", {"command": "ls"}),
            ev.ToolResult("1", "Bash", "a b"),
            ev.Text("done"),
            ev.ErrorText("oh"),
            ev.Unreadable("\x1b[31mWarning", "no JSON"),
            ev.SessionStarted("s1"),
        ],
        7,
    )
    assert lines(made) == [
        {"seq": 7, "type": "thinking", "content": "hm"},
        {"seq": 8, "type": "tool_use", "tool": "Bash", "input": {"command": "ls"}},
        {"seq": 9, "type": "tool_result", "tool": "Bash", "output": "a b"},
        {"seq": 10, "type": "text", "content": "done"},
        {"seq": 11, "type": "error", "content": "oh"},
        {"seq": 12, "type": "text", "content": "\x1b[31mWarning"},
    ]
    assert (made.session_id, made.tool_calls, made.last_action) == ("s1", 1, "Bash")


def test_nothing_makes_nothing() -> None:
    made = digest([], 5)
    assert (made.chunks, made.next_seq, made.notice) == ([], 5, None)


def test_chunks_are_bounded_in_lines() -> None:
    made = digest([ev.Text("x")] * (2 * CHUNK_MESSAGES + 1), 1)
    assert [(first, last) for first, last, _ in made.chunks] == [(1, 500), (501, 1000), (1001, 1001)]


def test_chunks_are_bounded_in_bytes() -> None:
    made = digest([ev.Text("x" * 100_000)] * 20, 1)
    check_numbers(made, 1)
    assert len(made.chunks) > 1
    assert all(len(body) <= CHUNK_BYTES + 2 + CHUNK_MESSAGES for _, _, body in made.chunks)


def test_one_line_larger_than_a_chunk_is_a_chunk_of_its_own() -> None:
    made = digest([ev.Text("a"), ev.Text("\x01" * TEXT_PIECE_CHARS), ev.Text("b")], 1)
    check_numbers(made, 1)
    assert [last - first + 1 for first, last, _ in made.chunks] == [1, 1, 1]


def test_a_huge_text_is_cut_into_pieces_that_make_it_up_again() -> None:
    text = "äöü😀\n" * 200_000
    made = digest([ev.Text(text)], 1)
    check_numbers(made, 1)
    assert "".join(line["content"] for line in lines(made)) == text
    assert {line["type"] for line in lines(made)} == {"text"}
    assert all(len(line["content"]) <= TEXT_PIECE_CHARS for line in lines(made))


@pytest.mark.parametrize("fill", range(4))
def test_an_output_is_cut_at_a_character_within_8192_bytes(fill: int) -> None:
    (line,) = lines(digest([ev.ToolResult("1", "Bash", "x" * fill + "😀" * 4000)], 1))
    size = len(line["output"].encode())
    assert 8192 - 4 < size <= 8192
    assert line["output"].rstrip("😀") == "x" * fill


def test_an_output_that_has_to_be_mended_keeps_the_limit() -> None:
    (line,) = lines(digest([ev.ToolResult("1", "Bash", "\ud800" * 2000)], 1))
    assert 8192 - 6 < len(line["output"].encode()) <= 8192


def test_an_output_within_the_limit_is_whole() -> None:
    text = "é" * 4096
    (line,) = lines(digest([ev.ToolResult("1", "Bash", text)], 1))
    assert line["output"] == text


def test_what_has_no_utf8_form_or_is_a_nul_is_shown_as_what_it_is() -> None:
    made = digest(
        [
            ev.Text("a\ud800b"),
            ev.Text("a\0b"),
            ev.ToolUse("1", "t\udfff", {"k\0": ["v\ud800", {"deep": "\0"}]}),
            ev.ToolResult("1", "t", "o\ud800\0"),
        ],
        1,
    )
    assert [line.get("content") or line.get("output") or line["input"] for line in lines(made)] == [
        "a\\ud800b",
        "a\u2400b",
        {"k\u2400": ["v\\ud800", {"deep": "\u2400"}]},
        "o\\ud800\u2400",
    ]


def test_a_text_about_a_nul_is_left_as_it_is() -> None:
    (line,) = lines(digest([ev.Text("write \\u0000 or \\0")], 1))
    assert line["content"] == "write \\u0000 or \\0"


@pytest.mark.parametrize("given_input", ["text", 7, ["a", "b"], True])
def test_an_input_that_is_no_object_is_wrapped(given_input: Any) -> None:
    (line,) = lines(digest([ev.ToolUse("1", "x", given_input)], 1))
    assert line["input"] == {"value": given_input}


def test_no_input_is_an_empty_one() -> None:
    (line,) = lines(digest([ev.ToolUse("1", "x", None)], 1))
    assert line["input"] == {}


def test_a_huge_input_is_told_by_its_beginning_and_its_size() -> None:
    (line,) = lines(digest([ev.ToolUse("1", "Write", {"text": "ü" * 10_000_000})], 1))
    assert line["input"]["size_bytes"] > 20_000_000
    assert line["input"]["truncated"].startswith('{"text":"üü')
    assert len(line["input"]["truncated"].encode()) <= 4096
    (line,) = lines(digest([ev.ToolUse("1", "Write", {"text": "x" * (INPUT_LIMIT_BYTES - 100)})], 1))
    assert len(line["input"]["text"]) == INPUT_LIMIT_BYTES - 100


def test_an_input_that_is_nested_without_end_is_told_in_words() -> None:
    nested: Any = "\0"
    for _ in range(5000):
        nested = [nested]
    (line,) = lines(digest([ev.ToolUse("1", "x", {"deep": nested})], 1))
    assert "cannot be shown" in str(line["input"])


def test_the_name_of_a_tool_has_a_limit() -> None:
    made = digest([ev.ToolUse("1", "x" * 10_000, {}), ev.ToolResult("1", "x" * 10_000, "")], 1)
    assert {len(line["tool"]) for line in lines(made)} == {TOOL_NAME_CHARS}
    assert len(made.last_action) == TOOL_NAME_CHARS


def test_a_notice_lasts_until_the_agent_goes_on() -> None:
    assert digest([ev.Notice("retrying")], 1).notice == "retrying"
    assert digest([ev.Notice("retrying"), ev.Thinking("hm")], 1).notice == "retrying"
    assert digest([ev.Notice("retrying"), ev.Text("on")], 1).notice == ""
    assert digest([ev.Text("on")], 1).notice == ""  # it may be of an earlier stretch
    assert digest([ev.ToolUse("1", "x", {})], 1).notice == ""
    assert digest([ev.Thinking("hm")], 1).notice is None


def test_storable_text() -> None:
    assert storable_text("as it is ü 😀") == "as it is ü 😀"
    assert storable_text("\0\ud800") == "\u2400\\ud800"
