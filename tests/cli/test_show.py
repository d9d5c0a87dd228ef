"""Words, tables, times, safe text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.cli import show, times, words
from daemon_core.cli.words import CliError
from daemon_core.control.errors import STATUS


def test_every_code_of_the_api_has_words() -> None:
    for code in STATUS:
        found = words.refusal(code, {})
        assert code not in found.message
        assert found.exit_code in (1, 2, 3, 4, 5, 6)
        assert not found.message.endswith(".")


def test_an_unknown_code_is_shown_rather_than_hidden() -> None:
    assert "new_code" in words.refusal("new_code", {"a": 1}).message
    assert words.condition("new_code", {}) == ("New code", "")
    assert words.runtime_reason("new_code", {"detail": "d"}) == "d"
    assert words.failure("new_code") == "new_code"


def test_plurals() -> None:
    assert [words.plural(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert words.plural(2, "entry", "entries") == "2 entries"


@given(st.text())
def test_safe_text_moves_no_cursor(text: str) -> None:
    for colours in (False, True):
        found = show.safe(text + "\x1b[2J\x1b]0;title\x07\r\x9b1A", colours=colours)
        assert not any(ord(char) < 32 and char not in "\t\n\x1b" for char in found)
        assert "\x1b" not in found or colours
        assert "\x9b" not in found


def test_a_terminal_is_neither_reset_nor_given_another_character_set() -> None:
    for colours in (False, True):
        assert show.safe("a\x1bcb\x1b(0c\x1b>d\x1bP1;1|x\x1b\\e\x1b7", colours=colours) == "abcde"


def test_colours_may_stay() -> None:
    assert show.safe("\x1b[31mred\x1b[0m\x1b[2J", colours=True) == "\x1b[31mred\x1b[0m"


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_and_short(text: str, limit: int) -> None:
    found = show.one_line(text, limit)
    assert len(found) <= limit
    assert "\n" not in found


@given(st.lists(st.uuids().map(str), min_size=1, max_size=30, unique=True))
def test_prefixes_name_one_task_each(ids: list[str]) -> None:
    for ident, short in show.prefixes(ids).items():
        assert [other for other in ids if other.startswith(short)] == [ident]
        assert len(short) >= 8


def test_prefixes_of_ids_made_in_the_same_moment_grow() -> None:
    ids = ["0190c0de-0000-7000-8000-00000000000a", "0190c0de-0000-7000-8000-00000000000b"]
    assert show.prefixes(ids) == {ident: ident for ident in ids}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h")]
)
def test_spans(seconds: float, told: str) -> None:
    assert show.span(seconds) == told


def test_times_are_of_the_users_clock() -> None:
    now = datetime(2026, 5, 4, 12, 30, tzinfo=UTC).astimezone()
    assert times.moment("23:59", "--until", now).strftime("%H:%M") == "23:59"
    early = times.moment("0:01", "--until", now)
    assert now < early < now + timedelta(days=1)
    assert times.moment("tomorrow", "--until", now).date() == now.date() + timedelta(days=1)
    assert times.stamp(times.moment("2026-05-05T00:00:00Z", "--until", now)) == "2026-05-05T00:00:00.000Z"
    for past_or_beyond in ("2026-05-03", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(CliError, match="usage"):
            times.moment(past_or_beyond, "--until", now)


def test_durations_are_seconds_or_have_a_unit() -> None:
    assert [times.seconds(text, "--timeout") for text in ("90", "1.5", "2m")] == [90, 1.5, 120]
    for wrong in ("soon", "²", "9" * 60, f"{'9' * 400}d"):
        with pytest.raises(CliError):
            times.seconds(wrong, "--timeout")


def test_tables_and_facts_are_without_it_too() -> None:
    bad = "x\x1b[2J\x9b"
    assert show.table(("A", "B"), [(bad, bad)]).splitlines()[1] == "x  x"
    assert show.facts([("Name", bad)]) == "Name  x"


def test_what_is_wrong_is_told_without_what_would_take_over_a_terminal() -> None:
    assert (
        words.sentence("The server said\n\x1b[2Jno\x07", "\x9bTry again") == "The server said no. Try again."
    )
