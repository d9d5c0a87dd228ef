"""The stream-json reader: recordings of the real CLI, lines made up, and damage of all kinds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.agents import events as ev
from daemon_core.agents.claude_reader import RESULT_LIMIT_BYTES, ClaudeReader
from daemon_core.agents.events import Event, UsageSeen
from daemon_core.agents.family import LaunchRequest, StdinWrite
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage
from tests.agents.restarts import read_whole, read_with_deaths

RECORDINGS = {path.stem: path for path in sorted(Path(__file__).with_name("recordings").glob("*.jsonl"))}
BUT_LAST = slice(None, -1)
SESSION = "11111111-1111-4111-8111-111111111111"


def request(**changes: Any) -> LaunchRequest:
    return LaunchRequest(executable="/bin/claude", prompt="x", work_dir="/w", run_dir="/r", **changes)


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def assistant(*parts: dict[str, Any], **fields: Any) -> bytes:
    return line(type="assistant", message={"role": "assistant", "content": list(parts)}, **fields)


def said(text: str) -> bytes:
    return assistant({"type": "text", "text": text})


def called(call_id: str = "t1", name: str = "Bash") -> bytes:
    return assistant({"type": "tool_use", "id": call_id, "name": name, "input": {"command": "ls"}})


def returned(content: Any, call_id: str = "t1", **fields: Any) -> bytes:
    part = {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}
    return line(type="user", message={"role": "user", "content": [part]})


def result(text: str = "done", **fields: Any) -> bytes:
    return line(**{"type": "result", "subtype": "success", "is_error": False, "result": text} | fields)


def init(session: str = SESSION, **fields: Any) -> bytes:
    return line(type="system", subtype="init", session_id=session, model="stub", **fields)


def read(*data: bytes, **changes: Any) -> tuple[ClaudeReader, list[Event]]:
    reader = ClaudeReader(request(**changes))
    events = [*reader.feed(b"".join(data))]
    return reader, events


# --- recordings of the real CLI ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("a_text_is_the_result", "SessionStarted Text TurnEnded"),
        (
            "a_tool_call_really_writes_a_file",
            "SessionStarted Text ToolUse ToolResult Text TurnEnded",
        ),
        ("thinking_is_told_apart_from_text", "SessionStarted Thinking Text TurnEnded"),
        ("a_denied_permission_reaches_the_model", "SessionStarted ToolUse ToolResult Text Notice TurnEnded"),
        ("an_interrupt_stops_the_tool_and_the_run", "SessionStarted ToolUse ToolResult TurnEnded"),
        ("a_sigterm_in_a_tool_is_a_failure_without_a_result", "SessionStarted ToolUse"),
        ("an_unknown_session_is_a_refused_resume", "TurnEnded"),
        ("refused_400", "SessionStarted ErrorText TurnEnded"),
        ("refused_401", "SessionStarted Notice ErrorText TurnEnded"),
        ("the_limit_of_turns_is_a_failure", "SessionStarted ToolUse ToolResult TurnEnded"),
        ("a_dead_mcp_server_is_a_notice_and_the_run_goes_on", "SessionStarted Notice Text TurnEnded"),
    ],
)
def test_a_recording_gives_its_events(name: str, kinds: str) -> None:
    reader, events = read(RECORDINGS[name].read_bytes())

    shown = [event for event in events if not isinstance(event, UsageSeen)]
    assert " ".join(type(event).__name__ for event in shown) == kinds
    assert reader.consumed == RECORDINGS[name].stat().st_size


@pytest.mark.parametrize(
    ("name", "exit_code", "reason"),
    [
        ("a_text_is_the_result", 0, ""),
        ("a_text_is_the_result", 1, failures.AGENT_PROCESS),
        ("a_text_is_the_result", None, failures.AGENT_PROCESS),
        ("a_resumed_session_knows_what_was_said-2", 0, ""),
        ("a_sigterm_in_a_tool_is_a_failure_without_a_result", 143, failures.AGENT_PROCESS),
        ("a_sigterm_in_a_tool_is_a_failure_without_a_result", 0, failures.AGENT_EMPTY),
        ("refused_400", 1, failures.API_INVALID_REQUEST),
        ("refused_401", 1, failures.AGENT_AUTH),
        ("refused_401", 0, failures.AGENT_AUTH),
        ("refused_429", 1, failures.AGENT_RATE_LIMIT),
        ("refused_500", 1, failures.AGENT_SERVER),
        ("refused_529", 1, failures.AGENT_RATE_LIMIT),
        ("a_prompt_that_is_too_long_is_a_context_overflow", 1, failures.AGENT_CONTEXT),
        ("the_limit_of_turns_is_a_failure", 1, failures.ITERATION_LIMIT),
        ("an_unknown_session_is_a_refused_resume", 1, failures.AGENT_UNKNOWN),
        ("an_interrupt_stops_the_tool_and_the_run", 1, failures.AGENT_PROCESS),
    ],
)
def test_a_recording_is_judged_by_result_and_exit_code(name: str, exit_code: int | None, reason: str) -> None:
    reader, _ = read(RECORDINGS[name].read_bytes())
    outcome = reader.outcome(exit_code, None, "")

    assert outcome.reason == reason
    assert outcome.success == (reason == "")
    assert bool(outcome.error) == (reason != "")


# --- events --------------------------------------------------------------------------------------


def test_a_tool_result_without_a_name_takes_its_calls() -> None:
    _, events = read(called("t1", "Bash"), called("t2", "Read"), returned("a", "t2"), returned("b", "t1"))

    assert [event.tool for event in events if isinstance(event, ev.ToolResult)] == ["Read", "Bash"]


def test_tools_in_flight_never_go_below_zero() -> None:
    reader, _ = read(called("t1"), called("t1"))
    assert reader.tools_in_flight == 1
    reader.feed(returned("a", "t1") + returned("a", "t1") + returned("a", "never begun"))
    assert reader.tools_in_flight == 0
    reader.feed(called("t2") + result())
    assert reader.tools_in_flight == 0


@pytest.mark.parametrize(
    ("content", "output"),
    [
        ("text", "text"),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "image", "source": {"media_type": "image/png", "data": "AAAA"}}], "[image image/png]"),
        ([{"type": "strange"}, "bare", 5, None], "[strange]\nbare\n[int]\n[NoneType]"),
        ({"text": "one part"}, "one part"),
        (None, ""),
        (7, "[int]"),
    ],
)
def test_a_tools_output_is_text_in_every_form(content: Any, output: str) -> None:
    _, events = read(called(), returned(content))
    found = events[-1]

    assert isinstance(found, ev.ToolResult)
    assert found.output == output


def test_a_retry_is_a_notice() -> None:
    _, events = read(
        line(
            type="system",
            subtype="api_retry",
            attempt=2,
            max_retries=10,
            error_status=429,
            error="rate_limit",
        )
    )

    assert events == [ev.Notice("rate_limit (429), try 2 of 10", "api_retry")]


def test_what_nobody_knows_is_passed_over() -> None:
    _, events = read(
        line(type="stream_event", event={}),
        line(type="system", subtype="from_the_future"),
        line(type="keep_alive"),
        assistant({"type": "redacted_thinking", "data": "x"}, {"no": "type"}),
        b"\n",
        b"  \r\n",
    )

    assert events == []


@pytest.mark.parametrize(
    "raw",
    [
        b"Warning: something\n",
        b'{"type":"assistant","message":{\n',
        b"\xff\xfe\xfa\n",
        b"5\n",
        b"null\n",
        b'["type"]\n',
        b"{}\n",
        b'{"type":7}\n',
        b"[" * 100_000 + b"\n",
        b'{"type":"assistant","x":' + b"9" * 5000 + b"}x\n",
    ],
)
def test_what_cannot_be_understood_is_kept_and_the_stream_goes_on(raw: bytes) -> None:
    reader, events = read(raw, said("still here"))

    assert isinstance(events[0], ev.Unreadable)
    assert events[0].raw[:20] == raw[BUT_LAST][:20].decode("utf-8", "replace")
    assert len(events[0].raw) <= 4097
    assert events[1:] == [ev.Text("still here")]
    assert reader.consumed == len(raw) + len(said("still here"))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (
            rb'{"type":"assistant","message":{"content":"half \ud83d of a pair"}}',
            "half \ufffd\ufffd\ufffd of a pair",
        ),
        (rb'{"type":"assistant","message":{"content":"whole \ud83d\ude00"}}', "whole \U0001f600"),
        (rb'{"type":"assistant","message":{"content":"nul \u0000 here"}}', "nul \u2400 here"),
        (rb'{"type":"assistant","message":{"content":"no nul \\u0000 here"}}', "no nul \\u0000 here"),
        (b'{"type":"assistant","message":{"content":"bad \xff byte"}}', "bad \ufffd byte"),
        (b'{"type":"assistant","message":{"content":"r"},"session_id":NaN}', "r"),
    ],
)
def test_damage_inside_a_text_does_not_lose_the_line(raw: bytes, text: str) -> None:
    _, events = read(raw + b"\n")
    found = [event.text for event in events if isinstance(event, ev.Text)]

    if "NaN" in raw.decode("latin-1"):
        assert [type(event) for event in events] == [ev.Unreadable]
    else:
        assert found == [text]


def test_a_line_of_50_megabytes_is_read() -> None:
    text = "x" * 50_000_000
    data = said(text) + said("after")
    reader = ClaudeReader()
    events: list[Event] = []
    for at in range(0, len(data), 1 << 20):
        events += reader.feed(data[at : at + (1 << 20)])

    assert events == [ev.Text(text), ev.Text("after")]


def test_a_line_beyond_the_limit_is_skipped_to_its_end_in_bounded_memory() -> None:
    data = b"y" * 5000 + b'"}\n' + said("after")
    whole = ClaudeReader(line_limit_bytes=1000)
    events = [*whole.feed(data)]
    assert [type(event) for event in events] == [ev.Unreadable, ev.Text]
    assert whole.consumed == len(data)

    pieces = ClaudeReader(line_limit_bytes=1000)
    in_pieces: list[Event] = []
    for at in range(0, len(data), 100):
        in_pieces += pieces.feed(data[at : at + 100])
        if at == 2000:
            assert pieces.consumed == 2100
            pieces = ClaudeReader(snapshot=pieces.snapshot(), line_limit_bytes=1000)
    assert in_pieces[1:] == events[1:]
    assert isinstance(in_pieces[0], ev.Unreadable)


def test_a_last_line_without_newline_counts() -> None:
    reader = ClaudeReader()
    assert reader.feed(result()[BUT_LAST]) == []
    assert reader.consumed == 0
    assert [type(event) for event in reader.finish()] == [ev.TurnEnded]
    assert reader.consumed == len(result()) - 1
    assert reader.outcome(0, None, "").success


# --- talking -------------------------------------------------------------------------------------


def test_a_result_closes_standard_input_once() -> None:
    reader, _ = read(init(), result(), result("again"))

    assert reader.pending_writes() == [StdinWrite(2, None)]
    reader.acknowledged(2)
    assert reader.pending_writes() == []


@pytest.mark.parametrize(("mode", "behavior"), [("allow", "allow"), ("deny", "deny")])
def test_a_request_for_permission_is_answered_by_policy(mode: str, behavior: str) -> None:
    asked = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "ls"}}
    reader, _ = read(
        line(type="control_request", request_id="R1", request=asked),
        line(type="control_request", request_id="R2", request={"subtype": "hook_callback"}),
        permission_mode=mode,
    )
    first, second = reader.pending_writes()

    assert (first.number, second.number) == (2, 3)
    assert first.data is not None
    assert first.data.endswith(b"\n")
    answer = json.loads(first.data)["response"]
    assert answer["request_id"] == "R1"
    assert answer["response"]["behavior"] == behavior
    assert answer["response"].get("updatedInput") == ({"command": "ls"} if mode == "allow" else None)
    assert second.data is not None
    assert json.loads(second.data)["response"]["response"]["behavior"] == "allow"


def test_an_interrupt_is_said_after_what_is_unsaid_and_only_once() -> None:
    asked = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
    reader, _ = read(init(), line(type="control_request", request_id="R1", request=asked))
    writes = reader.interrupt()

    assert [write.number for write in writes] == [2, 3, 4]
    assert writes[1].data is not None
    assert json.loads(writes[1].data)["request"] == {"subtype": "interrupt"}
    assert writes[2].data is None
    assert reader.interrupt() == writes
    reader.feed(result(subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools"))
    assert reader.pending_writes() == writes
    assert ClaudeReader(snapshot=reader.snapshot()).pending_writes() == writes
    assert reader.outcome(1, None, "").reason == failures.CANCELLED


# --- judging -------------------------------------------------------------------------------------


def test_the_text_of_the_last_result_counts() -> None:
    reader, _ = read(init(), result("first"), init(), said("more"), result("second"))

    assert reader.outcome(0, None, "").output == "second"


def test_a_turn_begun_after_a_result_needs_a_result_of_its_own() -> None:
    reader, _ = read(init(), result("first"), said("more"))

    assert not reader.outcome(0, None, "").success


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"is_error": None}, failures.AGENT_UNKNOWN),
        ({"is_error": "false"}, failures.AGENT_UNKNOWN),
        ({"subtype": "something_new"}, failures.AGENT_UNKNOWN),
        ({"subtype": None}, failures.AGENT_UNKNOWN),
        ({"terminal_reason": "prompt_too_long"}, failures.AGENT_CONTEXT),
        ({"terminal_reason": "model_error"}, failures.AGENT_UNKNOWN),
        ({"text": "I reached the iteration limit."}, failures.ITERATION_LIMIT),
        (
            {"text": " Put your final update inside the content string\n"},
            failures.AGENT_FALLBACK_MESSAGE,
        ),
        ({"is_error": True, "text": "Not logged in · Please run /login"}, failures.AGENT_AUTH),
        (
            {"is_error": True, "api_error_status": 500, "text": "check 127.0.0.1:40133"},
            failures.AGENT_SERVER,
        ),
        (
            {"is_error": True, "api_error_status": 400, "text": "Your credit balance is too low"},
            failures.AGENT_QUOTA,
        ),
        (
            {"is_error": True, "api_error_status": 429, "text": "You've hit your limit · resets 3pm"},
            failures.AGENT_QUOTA,
        ),
    ],
)
def test_only_an_explicit_success_is_one(fields: dict[str, Any], reason: str) -> None:
    reader, _ = read(init(), result(**fields))
    outcome = reader.outcome(0, None, "")

    assert not outcome.success
    assert outcome.reason == reason
    assert outcome.error


@pytest.mark.parametrize(
    ("exit_code", "signal", "stderr", "reason"),
    [
        (0, None, "", failures.AGENT_EMPTY),
        (1, None, "", failures.AGENT_PROCESS),
        (1, None, "Error: Invalid API key · 401", failures.AGENT_AUTH),
        (None, 9, "401", failures.AGENT_PROCESS),
        (137, None, "401", failures.AGENT_PROCESS),
        (None, None, "", failures.AGENT_PROCESS),
    ],
)
def test_a_run_without_a_result_has_failed(
    exit_code: int | None, signal: int | None, stderr: str, reason: str
) -> None:
    reader, _ = read(init(), said("text"))
    outcome = reader.outcome(exit_code, signal, stderr)

    assert not outcome.success
    assert outcome.reason == reason
    assert outcome.session_id == SESSION


def test_usage_is_the_newest_results_and_never_negative() -> None:
    counts = {
        "big": {"inputTokens": 5, "outputTokens": -7, "cacheReadInputTokens": 1e300},
        "odd": {"inputTokens": "many", "outputTokens": True, "cacheCreationInputTokens": 2.0},
        "none": {"inputTokens": 0},
        "broken": 7,
    }
    reader, _ = read(result(modelUsage={"old": {"inputTokens": 1}}), result(modelUsage=counts))

    assert reader.outcome(0, None, "").usage == (
        Usage(provider="claude", model="big", input_tokens=5),
        Usage(provider="claude", model="odd", cache_write_tokens=2),
    )
    assert reader.outcome(None, 9, "").usage == reader.outcome(0, None, "").usage


@pytest.mark.parametrize(
    ("data", "stderr", "refused"),
    [
        ([result(is_error=True, errors=["No conversation found with session ID: s1"], text="")], "", True),
        ([], "No conversation found with session ID: s1\n", True),
        ([result(is_error=True, session_id="another", text="odd")], "", True),
        ([init("another"), result(is_error=True, session_id="another", text="odd")], "", True),
        ([init("another"), said("work"), result(is_error=True, text="odd")], "", False),
        ([init("s1"), result(is_error=True, text="API Error: 500")], "", False),
        ([], "", False),
    ],
)
def test_a_refused_resume_is_recognised(data: list[bytes], stderr: str, refused: bool) -> None:
    reader, _ = read(*data, resume_session_id="s1")
    outcome = reader.outcome(1, None, stderr)

    assert outcome.resume_refused == refused
    fresh, _ = read(*data)
    assert not fresh.outcome(1, None, stderr).resume_refused


def test_a_huge_result_is_cut_and_the_snapshot_stays_small() -> None:
    reader, events = read(result("ü" * RESULT_LIMIT_BYTES))
    last = events[-1]

    assert isinstance(last, ev.TurnEnded)
    assert len(last.text) == RESULT_LIMIT_BYTES
    assert len(reader.outcome(0, None, "").output.encode()) <= RESULT_LIMIT_BYTES


def test_state_stays_small_whatever_comes() -> None:
    reader = ClaudeReader()
    for number in range(5000):
        reader.feed(called(f"id-{number}" * 100, "n" * 10_000))

    assert len(reader.snapshot()) < 200_000


def test_something_that_is_no_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        ClaudeReader(snapshot=b"{")


# --- properties ----------------------------------------------------------------------------------

ALL_RECORDED = b"".join(path.read_bytes() for path in RECORDINGS.values())
ALL_LINES = ALL_RECORDED.splitlines(keepends=True)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_part = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "tool_use", "tool_result", "x"]) | _json},
    optional={
        "text": _json,
        "thinking": _json,
        "id": _json,
        "name": _json,
        "input": _json,
        "tool_use_id": _json,
        "content": _json,
        "is_error": _json,
    },
)
_odd_line = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["assistant", "user", "system", "result", "control_request", "control_response"]
        )
    },
    optional={
        "subtype": st.sampled_from(["init", "api_retry", "success", "error_max_turns"]) | _json,
        "message": _json | st.fixed_dictionaries({"content": st.lists(_part, max_size=3) | _json}),
        "session_id": _json,
        "model": _json,
        "mcp_servers": _json | st.lists(st.just({"name": 5, "status": "failed"})),
        "request_id": _json,
        "request": _json | st.just({"subtype": "can_use_tool", "tool_name": 5, "input": "x"}),
        "response": _json | st.just({"subtype": "error", "error": 5}),
        "is_error": _json,
        "result": _json,
        "errors": _json | st.lists(st.text()),
        "error": _json,
        "api_error_status": _json,
        "modelUsage": _json | st.dictionaries(st.text(), st.dictionaries(st.text(), _json)),
        "permission_denials": _json | st.lists(_json),
        "terminal_reason": _json,
        "attempt": _json,
    },
).map(lambda fields: json.dumps(fields).encode() + b"\n")

_stream = st.lists(
    st.sampled_from(ALL_LINES)
    | _odd_line
    | st.binary(max_size=60)
    | st.just(b"\n")
    | st.sampled_from(ALL_LINES).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda at: whole[:at])),
    max_size=12,
).map(b"".join)


@given(data=_stream, picks=st.lists(st.tuples(st.integers(0, 100_000), st.booleans(), st.booleans())))
@settings(max_examples=300, deadline=None)
def test_dying_and_being_restored_changes_nothing(data: bytes, picks: list[tuple[int, bool, bool]]) -> None:
    def make(snapshot: bytes | None) -> ClaudeReader:
        return ClaudeReader(request(resume_session_id="s1"), snapshot, line_limit_bytes=1500)

    cuts = [(at % (len(data) + 1), flush, die) for at, flush, die in picks]
    events, reader, writes = read_whole(make, data)
    again, other, other_writes = read_with_deaths(make, data, cuts)

    # An overlong line is known as one after as many bytes as it took; its head is the same.
    assert again == events
    assert other_writes == writes
    assert other.consumed == reader.consumed == len(data)
    assert other.snapshot() == reader.snapshot()
    for exit_code in (0, 1, 143, None):
        assert other.outcome(exit_code, None, "stderr") == reader.outcome(exit_code, None, "stderr")
    assert other.tools_in_flight == 0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_damaged_recordings_never_make_it_raise(seed: int) -> None:
    # Seeded, not drawn: these are long and hypothesis gains nothing from shrinking each byte.
    dice = random.Random(seed)
    lines = list(ALL_LINES)
    dice.shuffle(lines)
    data = bytearray(b"".join(lines[:30]))
    for _ in range(dice.randrange(1, 40)):
        at = dice.randrange(len(data))
        if dice.random() < 0.3:
            del data[at : at + dice.randrange(1, 200)]
        else:
            data[at] = dice.randrange(256)
    reader = ClaudeReader(request())
    at = 0
    while at < len(data):
        size = dice.randrange(1, 5000)
        reader.feed(bytes(data[at : at + size]))
        reader.flush()
        reader.snapshot()
        assert reader.tools_in_flight >= 0
        at += size
    reader.finish()
    assert reader.consumed == len(data)
    for exit_code in (0, 1, None):
        reader.outcome(exit_code, None, "")


# --- more than one turn ----------------------------------------------------------------------------


def holding(*data: bytes, **changes: Any) -> ClaudeReader:
    reader = ClaudeReader(request(**changes))
    reader.hold()
    reader.feed(b"".join(data))
    return reader


def test_a_reader_that_holds_waits_at_the_end_of_a_turn_and_lets_go_when_told() -> None:
    reader = holding(init(), said("one"), result("one"))
    assert (reader.turn_over, reader.turns, list(reader.pending_writes())) == (True, 1, [])
    reader.no_more()
    reader.no_more()
    assert list(reader.pending_writes()) == [StdinWrite(2, None)]
    assert not reader.turn_over
    assert reader.outcome(0, None, "").output == "one"


def test_another_turn_is_another_line_and_both_answers_are_the_result() -> None:
    reader = holding(init(), said("one"), result("one"))
    reader.say_more("news")
    (write,) = reader.pending_writes()
    assert write.number == 2
    assert json.loads(write.data or b"")["message"]["content"] == [{"type": "text", "text": "news"}]
    assert (reader.turn_over, reader.turns) == (False, 1)
    assert not reader.outcome(0, None, "").success  # the turn was begun and has not ended
    reader.acknowledged(2)
    reader.feed(init())
    assert reader.turns == 1  # the model has not answered yet
    reader.feed(said("two"))
    assert reader.turns == 2
    reader.feed(result("two"))
    reader.no_more()
    assert reader.outcome(0, None, "").output == "one\n\ntwo"
    assert [write.number for write in reader.pending_writes()] == [3]


def test_a_turn_that_fails_is_not_waited_at_and_an_error_is_no_answer() -> None:
    failed = assistant({"type": "text", "text": "API Error: 500"}, error="unknown")
    reader = holding(init(), failed, result("API Error: 500", is_error=True, api_error_status=500))
    assert (reader.turn_over, reader.turns) == (False, 0)
    assert [write.data for write in reader.pending_writes()] == [None]


def test_an_interrupt_ends_the_waiting() -> None:
    reader = holding(init(), said("one"), result("one"))
    assert reader.interrupt()[-1].data is None
    assert not reader.turn_over
    reader.say_more("news")
    assert reader.pending_writes()[-1].data is None


def test_a_reader_restored_before_it_was_told_more_counts_what_was_said() -> None:
    start = ClaudeReader(request())
    start.hold()
    again = ClaudeReader(snapshot=start.snapshot())
    again.feed(b"".join([init(), said("one"), result("one"), init(), said("two"), result("two")]))
    assert (again.turn_over, again.turns) == (True, 2)
    again.no_more()
    assert list(again.pending_writes()) == [StdinWrite(3, None)]  # 2 was what it was told


@pytest.mark.parametrize("died", ["before", "after"])
def test_what_is_said_between_turns_survives_in_the_snapshot(died: str) -> None:
    reader = holding(init(), said("one"), result("one"))
    if died == "before":
        reader = ClaudeReader(snapshot=reader.snapshot())
        assert reader.turn_over
    reader.say_more("news")
    if died == "after":
        reader = ClaudeReader(snapshot=reader.snapshot())
    assert [write.number for write in reader.pending_writes()] == [2]
    reader.feed(said("two") + result("two"))
    assert (reader.turn_over, reader.turns) == (True, 2)
