"""What Claude Code asks, what it tells of a run that goes on, and the limits of its account."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon_core.agents import events as ev
from daemon_core.agents.claude_reader import REQUESTS_LIMIT, ClaudeReader
from daemon_core.protocol import failures
from tests.agents.test_claude_reader import assistant, called, init, line, read, request, result, returned


def asks(request_id: str = "R1", tool: str = "Bash", **fields: Any) -> bytes:
    asked = {"subtype": "can_use_tool", "tool_name": tool, "input": {"command": "ls"}, **fields}
    return line(type="control_request", request_id=request_id, request=asked)


def answers(reader: ClaudeReader) -> list[dict[str, Any]]:
    return [json.loads(write.data)["response"] for write in reader.pending_writes() if write.data]


QUESTION = {
    "questions": [
        {"question": "Which?", "options": [{"label": "Red"}, {"label": "Blue"}], "header": "Colour"}
    ]
}


def test_a_request_waits_for_its_answer() -> None:
    reader, events = read(init(), called(), asks(description="List\nfiles"), permission_mode="ask")
    open_request = ev.PermissionRequest("R1", "Bash", {"command": "ls"}, "permission", "List files")
    assert events[-1] == open_request
    assert list(reader.open_requests) == [open_request]
    assert reader.pending_writes() == []

    again = ClaudeReader(snapshot=reader.snapshot())
    assert list(again.open_requests) == [open_request]
    assert again.answer("R2", "allow") == []
    assert again.answer("R1", "allow") == [ev.PermissionSettled("R1", "allow")]
    assert again.answer("R1", "deny") == []
    (answer,) = answers(again)
    assert (answer["request_id"], answer["response"]) == (
        "R1",
        {"behavior": "allow", "updatedInput": {"command": "ls"}},
    )
    assert ClaudeReader(snapshot=again.snapshot()).pending_writes() == again.pending_writes()


def test_a_refusal_carries_its_reason() -> None:
    reader, _ = read(asks(), permission_mode="ask")
    reader.answer("R1", "deny", "not on a Friday")
    assert answers(reader)[0]["response"] == {"behavior": "deny", "message": "not on a Friday"}


def test_what_is_allowed_for_the_task_is_not_asked_again() -> None:
    reader, _ = read(asks("R1"), asks("R2"), asks("R3", "Write"), permission_mode="ask")
    settled = reader.answer("R1", "allow-task")
    assert settled == [ev.PermissionSettled("R1", "allow-task"), ev.PermissionSettled("R2", "allow")]
    reader = ClaudeReader(snapshot=reader.snapshot())
    assert reader.feed(asks("R4")) == []
    assert [each.request_id for each in reader.open_requests] == ["R3"]
    assert [answer["request_id"] for answer in answers(reader)] == ["R1", "R2", "R4"]


def test_a_question_is_one_and_its_answer_goes_back_in_the_input() -> None:
    reader, events = read(asks(tool="AskUserQuestion", input=QUESTION), permission_mode="ask")
    asked = events[0]
    assert isinstance(asked, ev.PermissionRequest)
    assert (asked.kind, asked.title, asked.options) == ("question", "Which?", ("Red", "Blue"))
    reader.answer("R1", "allow", "Blue")
    assert answers(reader)[0]["response"] == {
        "behavior": "allow",
        "updatedInput": {**QUESTION, "answers": {"Which?": "Blue"}},
    }


@pytest.mark.parametrize("text", ['{"A?": "one", "B?": "two"}', "one\ntwo\n"])
def test_several_questions_are_answered_each(text: str) -> None:
    given = {"questions": [{"question": "A?"}, {"question": "B?"}, "rubbish"]}
    reader, _ = read(asks(tool="AskUserQuestion", input=given), permission_mode="ask")
    reader.answer("R1", "allow", text)
    assert answers(reader)[0]["response"]["updatedInput"]["answers"] == {"A?": "one", "B?": "two"}


@pytest.mark.parametrize(
    "ending", [result(), line(type="control_cancel_request", request_id="R1")], ids=["result", "cancel"]
)
def test_a_request_that_nobody_waits_for_is_withdrawn(ending: bytes) -> None:
    reader, events = read(asks(), ending, permission_mode="ask")
    assert ev.PermissionSettled("R1", "withdrawn") in events
    assert reader.open_requests == []
    assert reader.answer("R1", "allow") == []


def test_more_requests_than_anybody_answers_are_refused() -> None:
    lines = [asks(f"R{number}") for number in range(REQUESTS_LIMIT + 5)]
    reader, _ = read(*lines, permission_mode="ask")
    assert len(reader.open_requests) == REQUESTS_LIMIT
    assert [answer["response"]["behavior"] for answer in answers(reader)] == ["deny"] * 5


@example({"questions": [{"question": "0"}, {"question": 1, "options": [{"label": "x"}]}]})
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["questions", "question", "options", "label", "x"]), inner)))  # fmt: skip
def test_no_question_makes_it_fail(given: Any) -> None:
    reader = ClaudeReader(request(permission_mode="ask"))
    reader.feed(asks(tool="AskUserQuestion", input=given))
    for decision in ("allow", "deny"):
        copy = ClaudeReader(snapshot=reader.snapshot())
        for asked in list(copy.open_requests):
            assert copy.answer(asked.request_id, decision, "x")
        assert copy.open_requests == []


def test_a_list_of_things_to_do_is_told_whole() -> None:
    todos = {"todos": [{"content": "a", "status": "completed"}, {"content": "b", "status": "odd"}, 5]}
    part = {"type": "tool_use", "id": "t1", "name": "TodoWrite", "input": todos}
    _, events = read(assistant(part), assistant(part))
    plans = [event for event in events if isinstance(event, ev.PlanChanged)]
    assert plans == [ev.PlanChanged((ev.PlanEntry("a", "completed"), ev.PlanEntry("b", "pending")))]


def test_a_list_made_entry_by_entry_is_told_whole() -> None:
    def used(call_id: str, name: str, **given: Any) -> bytes:
        return assistant({"type": "tool_use", "id": call_id, "name": name, "input": given})

    reader, events = read(
        used("t1", "TaskCreate", subject="Look"), returned("Task #1 created successfully: Look", "t1"),
        used("t2", "TaskCreate", subject="Do"), returned("Task #2 created successfully: Do", "t2"),
        used("t3", "TaskUpdate", taskId="1", status="in_progress"),
    )  # fmt: skip
    reader = ClaudeReader(snapshot=reader.snapshot())
    events += reader.feed(used("t4", "TaskUpdate", taskId="1", status="completed"))
    events += reader.feed(used("t5", "TaskUpdate", taskId="2", status="deleted"))
    plans = [event.entries for event in events if isinstance(event, ev.PlanChanged)]
    assert [[(entry.text, entry.status) for entry in plan] for plan in plans] == [
        [("Look", "pending")],
        [("Look", "pending"), ("Do", "pending")],
        [("Look", "in_progress"), ("Do", "pending")],
        [("Look", "completed"), ("Do", "pending")],
        [("Look", "completed")],
    ]


def test_live_usage_counts_a_message_once() -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 3}

    def spoke(message_id: str, text: str) -> bytes:
        content = [{"type": "text", "text": text}]
        return line(
            type="assistant", message={"id": message_id, "model": "m", "content": content, "usage": usage}
        )

    _, events = read(spoke("m1", "a"), spoke("m1", "b"), spoke("m2", "c"))
    seen = [event.usage[0] for event in events if isinstance(event, ev.UsageSeen)]
    assert [(each.input_tokens, each.output_tokens, each.cache_read_tokens) for each in seen] == [
        (10, 1, 3),
        (20, 2, 6),
    ]


def test_a_used_up_plan_is_a_limit_with_its_time() -> None:
    soon = int(time.time()) + 3600
    text = f"Claude AI usage limit reached|{soon}"
    reader, _ = read(result(text, is_error=True, api_error_status=429))
    outcome = reader.outcome(1, None, "")
    assert outcome.reason == failures.AGENT_QUOTA
    assert outcome.limit is not None
    assert outcome.limit.kind == "usage"
    assert outcome.limit.resets_at != ""


def test_the_programs_own_word_on_the_limit_counts() -> None:
    soon = int(time.time()) + 7200
    told = line(type="rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": soon})
    reader, _ = read(told, result("You've hit your session limit", is_error=True, api_error_status=429))
    limit = reader.outcome(1, None, "").limit
    assert limit is not None
    assert limit.kind == "usage"
    assert limit.resets_at.endswith("Z")
    calm = line(type="rate_limit_event", rate_limit_info={"status": "allowed_warning", "resetsAt": soon})
    reader, _ = read(told, calm, result("boom", is_error=True, api_error_status=500))
    assert reader.outcome(1, None, "").limit is None


def test_a_success_meets_no_limit() -> None:
    reader, _ = read(result("the usage limit is reached"))
    assert reader.outcome(0, None, "").limit is None
