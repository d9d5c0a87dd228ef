"""The table of verbs: every one makes a request, and what is wrong is said."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.protocol.verbs import (
    VERBS,
    Parameter,
    Verb,
    VerbError,
    request_of,
    rows_of,
    schema_of,
    verbs_below,
)

IMPLIED = {"workspace": "ws", "origin_type": "quick_create", "origin_id": "t", "attachment": ["a"]}


def verb(*name: str) -> Verb:
    return next(each for each in VERBS if each.name == name)


def value_for(parameter: Parameter) -> Any:
    match parameter.kind:
        case "integer":
            return 3
        case "flag":
            return True
        case "list":
            return ["x", "y"]
        case _:
            return parameter.choices[0] if parameter.choices else f"a {parameter.name}/?"


def test_names_of_verbs_and_tools_are_unique() -> None:
    assert len({each.name for each in VERBS}) == len(VERBS)
    assert len({each.tool for each in VERBS}) == len(VERBS)


@pytest.mark.parametrize("each", VERBS, ids=lambda each: each.tool)
def test_every_verb_makes_a_request_with_all_its_parameters(each: Verb) -> None:
    asked = [parameter for parameter in each.parameters if not parameter.implied]
    values = {parameter.name: value_for(parameter) for parameter in asked}
    made = request_of(each, values, IMPLIED)
    assert made.method == each.method
    assert made.path.startswith("/api/")
    assert "{" not in made.path
    assert " " not in made.path
    if each.method in ("GET", "DELETE"):
        assert made.body is None
    else:
        assert made.body is not None
        for parameter in asked:
            if parameter.place == "body":
                assert made.body[parameter.wire_name] == values[parameter.name]


@pytest.mark.parametrize("each", VERBS, ids=lambda each: each.tool)
def test_path_parameters_are_those_of_the_path(each: Verb) -> None:
    named = {name for _, name, _, _ in string.Formatter().parse(each.path) if name}
    assert named == {p.wire_name for p in each.parameters if p.place == "path"}
    assert all(p.required for p in each.parameters if p.place == "path")


@pytest.mark.parametrize("each", VERBS, ids=lambda each: each.tool)
def test_schemas_name_every_parameter_that_is_asked_for(each: Verb) -> None:
    schema = schema_of(each)
    asked = {p.name for p in each.parameters if not p.implied}
    assert set(schema["properties"]) == asked
    assert set(schema["required"]) <= asked
    assert all(entry["description"] for entry in schema["properties"].values())


def test_ids_cannot_leave_their_place_in_the_path() -> None:
    made = request_of(verb("issue", "get"), {"issue": "../../daemon/register?x=1#y"})
    assert made.path == "/api/issues/..%2F..%2Fdaemon%2Fregister%3Fx%3D1%23y"


def test_names_on_the_wire() -> None:
    made = request_of(
        verb("issue", "comment", "add"),
        {"issue": "A-1", "content": "hi", "parent": "c1", "attachment": ["f"]},
    )
    assert made.body == {"content": "hi", "parent_id": "c1", "attachment_ids": ["f"]}
    made = request_of(verb("issue", "comment", "list"), {"issue": "A-1", "roots_only": True, "recent": 10})
    assert made.path == "/api/issues/A-1/comments?recent=10&roots_only=true"


def test_what_is_missing_or_unknown_is_said() -> None:
    with pytest.raises(VerbError, match="issue is missing"):
        request_of(verb("issue", "get"), {})
    with pytest.raises(VerbError, match="does not know colour"):
        request_of(verb("issue", "get"), {"issue": "x", "colour": "red"})
    with pytest.raises(VerbError, match="nothing to change"):
        request_of(verb("issue", "update"), {"issue": "x"})
    with pytest.raises(VerbError, match="one of action, no_action, failed"):
        request_of(verb("squad", "activity"), {"issue": "x", "outcome": "maybe"})


def test_what_the_task_says_itself_cannot_be_said_by_the_agent() -> None:
    with pytest.raises(VerbError, match="does not know origin_id"):
        request_of(verb("issue", "create"), {"title": "t", "origin_id": "other"}, IMPLIED)
    made = request_of(verb("issue", "create"), {"title": "t"}, IMPLIED)
    assert made.body == {
        "title": "t",
        "attachment_ids": ["a"],
        "origin_type": "quick_create",
        "origin_id": "t",
    }


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(VERBS), st.dictionaries(st.text(max_size=8) | st.sampled_from(["issue"]), _json))
def test_whatever_is_given_is_a_request_or_a_clear_refusal(each: Verb, values: dict[str, Any]) -> None:
    try:
        made = request_of(each, values, IMPLIED)
    except VerbError:
        return
    assert made.path.isascii()


@given(st.sampled_from(VERBS), _json)
def test_rows_are_found_or_not_in_whatever_a_server_says(each: Verb, answer: Any) -> None:
    rows = rows_of(each, answer)
    assert rows is None or all(isinstance(row, dict) for row in rows)


def test_lists_are_found_bare_and_below_a_name() -> None:
    each = verb("issue", "list")
    assert rows_of(each, [{"id": "1"}]) == [{"id": "1"}]
    assert rows_of(each, {"issues": [{"id": "1"}], "total": 1}) == [{"id": "1"}]
    assert rows_of(each, {"id": "1"}) is None


def test_verbs_below_a_word() -> None:
    assert [each.name[2] for each in verbs_below("issue", "metadata")] == ["list", "set", "delete"]


def test_nought_is_a_number_like_others() -> None:
    made = request_of(verb("issue", "messages"), {"task": "t", "since": 0})
    assert made.path == "/api/tasks/t/messages?since=0"
