"""Colours of code: what is what in a line, whatever is in it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desktop.models import syntax
from desktop.models.syntax import language_of, parts_of
from desktop.theme import tokens
from desktop.theme.tokens import contrast_ratio


def told(text: str, path: str) -> list[tuple[str, str]]:
    return [(text[first:last], kind) for first, last, kind in parts_of(text, language_of(path))]


@pytest.mark.parametrize(
    ("path", "text", "parts"),
    [
        ("a.py", "def run(x):  # once", [("def", "keyword"), ("run", "name"), ("# once", "comment")]),
        ("a.py", "x = 'a # b' + 0x1F", [("'a # b'", "string"), ("0x1F", "number")]),
        ("a.py", "@cache", [("@cache", "name")]),
        ("src/x.ts", "const a = `b`; // c", [("const", "keyword"), ("`b`", "string"), ("// c", "comment")]),
        ("x.ts", " * of a comment", [(" * of a comment", "comment")]),
        ("x.rs", "let x: &'a str = 1_000u32;", [("let", "keyword"), ("1_000u32", "number")]),
        ("x.sql", "SELECT 1 -- all", [("SELECT", "keyword"), ("1", "number"), ("-- all", "comment")]),
        ("x.json", '{"a": "b"}', [('"a"', "name"), ('"b"', "string")]),
        ("x.yaml", "key: true", [("key", "name"), ("true", "keyword")]),
        ("x.html", '<a href="x">', [("<a", "keyword"), ('"x"', "string"), (">", "keyword")]),
        ("Dockerfile", "set -e", [("set", "keyword")]),
        ("x.go", "a.type()", []),
        ("README", "if it is", []),
        ("x.unknown", "if it is", []),
    ],
)
def test_what_is_what(path: str, text: str, parts: list[tuple[str, str]]) -> None:
    assert told(text, path) == parts


@given(st.text(max_size=60), st.sampled_from(sorted(set(syntax._BY_SUFFIX.values()))))
@settings(max_examples=50, deadline=None)
def test_parts_are_in_order_and_apart(text: str, language: str) -> None:
    place = 0
    for first, last, _kind in parts_of(text, language):
        assert place <= first < last <= len(text)
        place = last


def test_the_colours_can_be_read_on_every_ground_of_a_diff() -> None:
    for scheme in (tokens.LIGHT, tokens.DARK):
        for colour in (scheme.muted, scheme.done, scheme.waiting, scheme.running, scheme.accent):
            for ground in (scheme.surface, scheme.added, scheme.removed):
                assert contrast_ratio(colour, ground) >= 4.5, (scheme.dark, colour, ground)
