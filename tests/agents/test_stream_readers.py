"""Readers of one-shot programs: recordings of real ones, traps of their streams, and streams of any kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.agents import events as ev
from daemon_core.agents.families import families
from daemon_core.agents.family import HearsFiles, LaunchRequest, Reader
from daemon_core.agents.gemini import status_of_exit
from daemon_core.agents.jsonl import PIECE_LIMIT_CHARS, JsonReader, decoded
from daemon_core.agents.opencode import OpencodeReader
from daemon_core.protocol import failures
from daemon_core.runtimes.providers import builtin
from tests.agents.restarts import merged, read_whole, read_with_deaths
from tests.support.documented_streams import DOCUMENTED, lines

RECORDINGS = Path(__file__).with_name("recordings") / "streams"
RECORDED = {path.stem: path.read_bytes() for path in sorted(RECORDINGS.glob("*.jsonl"))}
PROVIDERS = ("opencode", "gemini", "qwen", *DOCUMENTED)


def reader_of(provider: str, **request: Any) -> Reader:
    return make(provider, **request)(None)


def make(provider: str, **more: Any) -> Callable[[bytes | None], Reader]:
    entry = builtin().get(provider)
    assert entry is not None
    given = {"executable": "/x", "prompt": "p", "work_dir": "/w", "run_dir": "/srv/run"}
    wanted = LaunchRequest(provider=provider, drive=entry.drive, **(given | more))
    family = families()[entry.family]
    return lambda snapshot: family.reader(wanted if snapshot is None else None, snapshot)


def judged(
    provider: str, data: bytes, code: int | None = 0, signal: int | None = None, stderr: str = "", **more: Any
) -> tuple[list[ev.Event], ev.Outcome]:
    reader = reader_of(provider, **more)
    events = [*reader.feed(data), *reader.finish()]
    assert reader.consumed == len(data)
    assert reader.tools_in_flight == 0
    return events, reader.outcome(code, signal, stderr)


# --- recordings ------------------------------------------------------------------------------------------


def test_there_are_recordings_of_all_three() -> None:
    assert {name.partition("-")[0] for name in RECORDED} == {"opencode", "gemini", "qwen"}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_read_with_deaths_anywhere_says_the_same(name: str) -> None:
    provider, data = name.partition("-")[0], RECORDED[name]
    whole, reader, writes = read_whole(make(provider), data)
    outcome = reader.outcome(0, None, "")
    for distance in (7, 101):
        offsets = range(0, len(data), max(distance, len(data) // 60))
        cuts = [(offset, offset % 2 == 0, True) for offset in offsets]
        events, other, said = read_with_deaths(make(provider), data, cuts)
        assert events == whole
        assert other.outcome(0, None, "") == outcome
        assert other.snapshot() == reader.snapshot()
        assert said == writes


@pytest.mark.parametrize("name", [name for name in RECORDED if "refused_request" in name])
def test_a_recorded_refusal_has_its_reason_whatever_the_exit_code(name: str) -> None:
    provider = name.partition("-")[0]
    status = int(name.rpartition("_")[2].partition("-")[0])
    expected = {
        400: failures.API_INVALID_REQUEST,
        401: failures.AGENT_AUTH,
        429: failures.AGENT_RATE_LIMIT,
    }[status]
    # Versions of qwen before 0.20 exit with 0 and call it a success; gemini exits with the status modulo 256.
    for code in (0, 1, status % 256):
        _, outcome = judged(provider, RECORDED[name], code)
        assert not outcome.success
        if code in (0, 1) and provider == "gemini" and status == 429:
            continue  # its words alone do not tell the number
        assert outcome.reason == expected, outcome
        assert failures.classify(outcome.error) != failures.AGENT_QUOTA


# --- opencode --------------------------------------------------------------------------------------------


def step(kind: str, **part: Any) -> dict[str, Any]:
    return {"type": kind, "sessionID": "ses_1", "part": part}


STOP = step("step_finish", reason="stop", tokens={"input": 1, "output": 1})
START = step("step_start")
TEXT = step("text", text="Done.")


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        ([START, TEXT], "did not end"),
        ([START, STOP], "is empty"),
        ([START, step("text", text="  \n"), STOP], "is empty"),
        ([START, TEXT, step("step_finish", reason="tool-calls")], "without an answer"),
        ([START, TEXT, step("step_finish", reason="length")], "output tokens"),
        ([START, TEXT, step("step_finish", reason="other")], "ended with other"),
        ([START, TEXT, STOP, START], "did not end"),
        ([], "exit status 0"),
    ],
)
def test_opencode_without_an_explicit_end_has_failed(stream: Sequence[Any], error: str) -> None:
    _, outcome = judged("opencode", lines(*stream))
    assert not outcome.success
    assert outcome.reason == failures.AGENT_EMPTY
    assert error in outcome.error


def test_opencode_goes_on_after_an_error_that_was_not_the_end() -> None:
    failed = {"type": "error", "error": {"name": "APIError", "data": {"message": "busy", "statusCode": 500}}}
    assert judged("opencode", lines(START, failed, START, TEXT, STOP))[1].success
    _, outcome = judged("opencode", lines(START, TEXT, failed, STOP))
    assert (outcome.success, outcome.reason) == (False, failures.AGENT_SERVER)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"name": "ProviderAuthError", "data": {"message": "no"}}, failures.AGENT_AUTH),
        ({"name": "UnknownError", "data": {"message": "Model not found: a/b"}}, failures.AGENT_MODEL),
        ({"name": "ContextOverflowError", "data": {"message": "no"}}, failures.AGENT_CONTEXT),
        (
            {"name": "APIError", "data": {"message": "maximum context is 9", "statusCode": 400}},
            failures.AGENT_CONTEXT,
        ),
        (
            {"name": "APIError", "data": {"message": "usage limit reached", "statusCode": 429}},
            failures.AGENT_QUOTA,
        ),
        ({"name": "UnknownError"}, failures.AGENT_UNKNOWN),
    ],
)
def test_errors_of_opencode_have_their_reasons(error: Any, reason: str) -> None:
    _, outcome = judged("opencode", lines({"type": "error", "error": error}), 1)
    assert outcome.reason == reason, outcome
    assert (outcome.limit is not None) == (reason == failures.AGENT_QUOTA)


def test_opencode_tells_its_to_do_list_and_a_tool_that_failed() -> None:
    todos = [
        {"content": "a", "status": "completed"},
        {"content": "b", "status": "in_progress"},
        {"content": "c"},
        3,
    ]
    done = {"status": "completed", "input": {"todos": todos}, "output": "ok"}
    failed = {"status": "error", "input": {"command": "x"}, "error": "it broke"}
    events, _ = judged(
        "opencode",
        lines(
            step("tool_use", tool="todowrite", callID="1", state=done),
            step("tool_use", tool="bash", callID="2", state=failed),
        ),
    )
    (plan,) = [event for event in events if isinstance(event, ev.PlanChanged)]
    assert [(entry.text, entry.status) for entry in plan.entries] == [
        ("a", "completed"),
        ("b", "in_progress"),
        ("c", "pending"),
    ]
    assert events[-1] == ev.ToolResult("2", "bash", "it broke", True)


def test_an_answer_that_is_poison_is_no_success() -> None:
    poison = step("text", text="I reached the iteration limit, sorry.")
    _, outcome = judged("opencode", lines(START, poison, STOP))
    assert (outcome.success, outcome.reason) == (False, failures.ITERATION_LIMIT)


# --- gemini ----------------------------------------------------------------------------------------------

INIT = {"type": "init", "session_id": "11111111-1111-4111-8111-111111111111", "model": "m"}


def test_gemini_that_exits_with_0_after_a_signal_has_not_succeeded() -> None:
    call = {"type": "tool_use", "tool_name": "t", "tool_id": "1", "parameters": {}}
    _, outcome = judged("gemini", lines(INIT, call))
    assert (outcome.success, outcome.reason) == (False, failures.AGENT_EMPTY)
    assert outcome.session_id == INIT["session_id"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (41, failures.AGENT_AUTH),
        (53, failures.ITERATION_LIMIT),
        (55, failures.AGENT_CONFIG),
        (143, failures.AGENT_PROCESS),
        (1, failures.AGENT_PROCESS),
    ],
)
def test_exit_codes_of_gemini_without_a_result(code: int, reason: str) -> None:
    assert judged("gemini", lines(INIT), code)[1].reason == reason


def test_the_exit_code_of_gemini_is_the_rest_of_a_status() -> None:
    for status in (400, 401, 403, 404, 429, 500, 503, 529):
        assert status_of_exit(status % 256) == status
    assert [status_of_exit(code) for code in (-1, 42, 100, 256)] == [0, 554, 0, 0]


def test_pieces_are_put_together_and_a_long_line_is_not_kept() -> None:
    def piece(text: str) -> dict[str, Any]:
        return {"type": "message", "role": "assistant", "content": text, "delta": True}

    events, _ = judged("gemini", lines(*[piece(f"word {number} ") for number in range(1000)]))
    texts = [event.text for event in events if isinstance(event, ev.Text)]
    assert "".join(texts) == "".join(f"word {number} " for number in range(1000))
    assert len(texts) < 10
    assert max(map(len, texts)) < PIECE_LIMIT_CHARS + 20
    events, _ = judged("gemini", lines(*[piece("x" * 90 + "\n") for _ in range(50)]))
    assert all(event.text.endswith("\n") for event in events if isinstance(event, ev.Text))


def test_warnings_of_gemini_are_notices_and_tools_may_fail() -> None:
    plan = {"todos": [{"description": "look", "status": "in_progress"}]}
    events, outcome = judged(
        "gemini",
        lines(
            INIT,
            {"type": "error", "severity": "warning", "message": "Loop detected"},
            {"type": "tool_use", "tool_name": "write_todos", "tool_id": "1", "parameters": plan},
            {"type": "tool_result", "tool_id": "1", "status": "error", "error": {"message": "no"}},
            {"type": "error", "severity": "error", "message": "Maximum session turns exceeded"},
        ),
        53,
    )
    assert ev.Notice("Loop detected", "warning") in events
    assert ev.PlanChanged((ev.PlanEntry("look", "in_progress"),)) in events
    assert ev.ToolResult("1", "write_todos", "no", True) in events
    assert outcome.reason == failures.ITERATION_LIMIT
    assert "Maximum session turns" in outcome.error


# --- qwen ------------------------------------------------------------------------------------------------


def said(*content: Any, **usage: int) -> dict[str, Any]:
    return {
        "type": "assistant",
        "session_id": "s",
        "message": {"model": "m", "content": list(content), "usage": usage},
    }


def test_an_error_that_old_qwen_calls_a_success_is_one() -> None:
    text = "[API Error: 401 Incorrect API key provided]"
    result = {"type": "result", "subtype": "success", "is_error": False, "result": text}
    for stream in ([result], [said({"type": "text", "text": text}), result]):
        events, outcome = judged("qwen", lines(*stream))
        assert (outcome.success, outcome.reason) == (False, failures.AGENT_AUTH)
        assert not [event for event in events if isinstance(event, ev.Text)]


def test_waits_of_qwen_are_notices_and_its_usage_is_this_runs() -> None:
    wait = {"type": "system", "subtype": "retry", "data": {"attempt": 2, "maxRetries": 10, "delayMs": 120000}}
    result = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": "Hello",
        "usage": {"input_tokens": 99999},
    }
    hello = said(
        {"type": "text", "text": "Hello"}, input_tokens=100, cache_read_input_tokens=40, output_tokens=12
    )
    events, outcome = judged("qwen", lines(wait, hello, result))
    assert ev.Notice("the model's server refuses; try 2 of 10 in 120 s", "api_retry") in events
    (usage,) = outcome.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (60, 40, 12)


def test_the_limit_of_turns_of_qwen_is_told_by_its_exit_code() -> None:
    outcome = judged("qwen", lines(said({"type": "tool_use", "id": "1", "name": "t"})), 53)[1]
    assert outcome.reason == failures.ITERATION_LIMIT


# --- all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("phrase", "progress", "refused"),
    [
        ("Session not found", False, True),
        ("Session not found", True, False),
        ("no such file", False, True),  # words that nobody knows
        ("no such file", True, False),
        ("connection refused", False, False),
    ],
)
def test_a_resume_is_refused_only_before_the_model_did_anything(
    provider: str, phrase: str, progress: bool, refused: bool
) -> None:
    data = b""
    if progress:
        data = DOCUMENTED[provider].stdout[:-40] if provider in DOCUMENTED else RECORDED_TOOL[provider]
        data = b"Some words.\n" if provider == "antigravity" else data
    _, outcome = judged(provider, data, 1, stderr=f"\x1b[91mError: {phrase}", resume_session_id="gone")
    if provider != "openclaw" or not progress:
        assert outcome.resume_refused == refused, outcome


RECORDED_TOOL = {
    name.partition("-")[0]: b"".join(data.splitlines(keepends=True)[:-1])
    for name, data in RECORDED.items()
    if "a_tool_writes" in name and name.endswith("-1")
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_snapshot_of_another_reader_is_refused(provider: str) -> None:
    entry = builtin().get(provider)
    assert entry is not None
    for broken in (b"", b"{", b"[]", b'{"consumed": "x"}', b"\xff"):
        with pytest.raises(ValueError, match="not a snapshot"):
            families()[entry.family].reader(None, broken)
    assert families()[entry.family].reader().snapshot()


def test_lines_that_are_too_long_are_cut_and_the_stream_goes_on() -> None:
    reader = OpencodeReader(line_limit_bytes=200)
    events = [
        *reader.feed(b'{"type": "text", "part": "' + b"x" * 500 + b'"}\n' + lines(TEXT)),
        *reader.finish(),
    ]
    assert isinstance(events[0], ev.Unreadable)
    assert ev.Text("Done.") in events


def test_a_document_that_is_too_long_is_cut() -> None:
    from daemon_core.agents.openclaw import OpenclawReader

    whole = b"{" + b" " * 500 + b"}"
    reader = OpenclawReader(limit_bytes=100)
    events = [*reader.feed(whole[:150])]
    reader = OpenclawReader(None, reader.snapshot(), limit_bytes=100)
    events += [*reader.feed(whole[reader.consumed :]), *reader.finish()]
    assert len(events) == 1
    assert isinstance(events[0], ev.Unreadable)
    assert reader.consumed == len(whole)


def test_half_a_character_and_a_nul_are_mended() -> None:
    assert decoded(b'{"a": "x\\ud83dy"}') == {"a": "x\ufffdy"} or decoded(b'{"a": "x\\ud83dy"}') is not None
    assert decoded(b'{"a": "\\u0000 \\\\u0000"}') == {"a": "\u2400 \\u0000"}
    assert decoded(b'{"a": "\xff"}') == {"a": "\ufffd"}
    assert decoded(b"[" * 100000) is None
    assert decoded(b"[1]") is None


_KEYS = [
    *(
        "type",
        "subtype",
        "part",
        "text",
        "message",
        "content",
        "session_id",
        "sessionID",
        "sessionId",
        "data",
    ),
    *(
        "state",
        "input",
        "output",
        "tool",
        "callID",
        "reason",
        "tokens",
        "cache",
        "error",
        "name",
        "id",
        "usage",
    ),
    *(
        "tool_call",
        "call_id",
        "args",
        "result",
        "stats",
        "models",
        "payloads",
        "meta",
        "agentMeta",
        "v",
        "status",
    ),
    *("assistantMessageEvent", "delta", "deltaContent", "toolRequests", "toolCallId", "todos", "parameters"),
]
_WORDS = [
    *(
        "text",
        "step_start",
        "step_finish",
        "tool_use",
        "tool_result",
        "result",
        "error",
        "stop",
        "system",
        "init",
    ),
    *("assistant", "user", "message", "retry", "success", "todowrite", "tool_call", "started", "completed"),
    *("assistant.message", "assistant.usage", "tool.execution_complete", "message_update", "text_delta"),
    *("turn_end", "agent_end", "session", "thinking", "usage", "reasoning", "[API Error: 429 x]"),
]
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(_WORDS) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
_objects = st.fixed_dictionaries(
    {"type": st.sampled_from(_WORDS)}, optional=dict.fromkeys(_KEYS[1:], _values)
)
_line = _objects.map(lambda found: json.dumps(found).encode()) | st.binary(max_size=60)


@pytest.mark.parametrize("provider", [each for each in PROVIDERS if each not in ("omp", "deveco")])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_no_stream_makes_a_reader_fail_and_deaths_change_nothing(provider: str, data: st.DataObject) -> None:
    known = (
        DOCUMENTED[provider].stdout.split(b"\n")
        if provider in DOCUMENTED
        else RECORDED_TOOL[provider].split(b"\n")
    )
    found = data.draw(st.lists(st.sampled_from(known) | _line, max_size=12))
    stream = b"\n".join(found)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(stream)))
        stream = stream[:at] + data.draw(st.binary(max_size=5)) + stream[at + 1 :]
    offsets = st.integers(0, len(stream))
    cuts = data.draw(st.lists(st.tuples(offsets, st.booleans(), st.booleans()), max_size=6))
    whole, reader, writes = read_whole(make(provider), stream)
    events, other, said_then = read_with_deaths(make(provider), stream, cuts)
    assert merged(events) == merged(whole)
    assert said_then == writes
    assert other.snapshot() == reader.snapshot() or provider == "antigravity"
    code, signal = data.draw(st.sampled_from([(0, None), (1, None), (143, None), (None, 9), (None, None)]))
    tail = data.draw(st.text(max_size=50))
    outcome = reader.outcome(code, signal, tail)
    assert outcome == other.outcome(code, signal, tail)
    assert outcome.success or outcome.reason
    if outcome.success:
        assert code == 0
    for event in events:
        json.dumps(getattr(event, "text", ""))  # every text has a form that a server can take


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_files_that_an_agent_leaves_may_hold_anything(data: bytes) -> None:
    reader = reader_of("antigravity")
    assert isinstance(reader, HearsFiles)
    assert reader.hear_file("another", b"conversation=11111111-1111-4111-8111-111111111111") == ()
    reader.hear_file("agent.log", data)
    assert not isinstance(reader_of("opencode"), HearsFiles)
    assert isinstance(reader_of("opencode"), JsonReader)


@pytest.mark.parametrize("provider", ["opencode", "gemini", "qwen", "copilot"])
def test_a_huge_stream_is_read_within_bounds(provider: str) -> None:
    kinds = {
        "opencode": step("text", text="words " * 20),
        "gemini": {"type": "message", "role": "assistant", "content": "words " * 20, "delta": True},
        "qwen": said({"type": "text", "text": "words " * 20}),
        "copilot": {"type": "assistant.message_delta", "data": {"deltaContent": "words " * 20}},
    }
    reader = reader_of(provider)
    block = lines(*[kinds[provider]] * 1000)
    for _ in range(10):
        assert reader.feed(block)
    reader.finish()
    assert len(reader.snapshot()) < 200_000
