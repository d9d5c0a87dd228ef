"""The ACP reader: recordings of real CLIs, lines made up, the protocol's schema, and damage of all kinds."""

from __future__ import annotations

import json
import random
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from acp import schema
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.agents import acp, acp_launch
from daemon_core.agents import events as ev
from daemon_core.agents.acp import AcpFamily, AcpReader
from daemon_core.agents.events import Event, PlanEntry
from daemon_core.agents.family import Drive, LaunchRequest, StdinWrite
from daemon_core.agents.writes import whole
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage
from tests.agents.restarts import read_whole, read_with_deaths

RECORDINGS = {
    path.stem: path for path in sorted((Path(__file__).with_name("recordings") / "acp").glob("*.jsonl"))
}
SESSION = "sess-1"
CAPABLE = {"loadSession": True, "mcpCapabilities": {"http": True, "sse": True}}


def request(**changes: Any) -> LaunchRequest:
    drive = changes.pop("drive", {})
    entry = Drive(**{"args": ("acp",), "mcp": "session", "model": "session/set_model", **drive})
    base = {
        "provider": "kimi",
        "executable": "/bin/kimi",
        "prompt": "Do it",
        "work_dir": "/w",
        "run_dir": "/r",
    }
    return LaunchRequest(drive=entry, **{**base, **changes})


def line(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **fields}).encode() + b"\n"


def reply(number: int, result: Any) -> bytes:
    return line(id=number, result=result)


def refusal(number: int, code: int = -32603, message: str = "no", data: Any = None) -> bytes:
    return line(id=number, error={"code": code, "message": message, "data": data})


def update(kind: str, /, session: str = SESSION, **fields: Any) -> bytes:
    params = {"sessionId": session, "update": {"sessionUpdate": kind, **fields}}
    return line(method="session/update", params=params)


def said(text: str, **fields: Any) -> bytes:
    return update("agent_message_chunk", content={"type": "text", "text": text}, **fields)


def thought(text: str) -> bytes:
    return update("agent_thought_chunk", content={"type": "text", "text": text})


def called(call_id: str = "c1", **fields: Any) -> bytes:
    given = {"status": "in_progress", "title": "ls", "kind": "execute", "rawInput": {"command": "ls"}}
    return update("tool_call", toolCallId=call_id, **{**given, **fields})


def ended(call_id: str = "c1", text: str = "out", **fields: Any) -> bytes:
    content = [{"type": "content", "content": {"type": "text", "text": text}}]
    return update(
        "tool_call_update", toolCallId=call_id, **{"status": "completed", "content": content, **fields}
    )


def asks(number: int | str = 0, call_id: str = "c9", options: Any = None, **fields: Any) -> bytes:
    offered = (
        options
        if options is not None
        else [
            {"optionId": "always", "name": "Always", "kind": "allow_always"},
            {"optionId": "once", "name": "Once", "kind": "allow_once"},
            {"optionId": "no", "name": "No", "kind": "reject_once"},
        ]
    )
    call = {"toolCallId": call_id, "title": "rm x", "kind": "execute", "status": "pending", **fields}
    params = {"sessionId": SESSION, "toolCall": call, "options": offered}
    return line(id=number, method="session/request_permission", params=params)


def opened(result: Any = None, capabilities: Any = None) -> bytes:
    """Answers to ``initialize`` and ``session/new``; the prompt is request 3 if nothing is set."""
    told = {"protocolVersion": 1, "agentCapabilities": CAPABLE if capabilities is None else capabilities}
    return reply(1, told) + reply(2, {"sessionId": SESSION, **(result or {})})


def done(number: int = 3, **fields: Any) -> bytes:
    return reply(number, {"stopReason": "end_turn", **fields})


def read(*data: bytes, **changes: Any) -> tuple[AcpReader, list[Event]]:
    reader = AcpReader(request(**changes))
    return reader, [*reader.feed(b"".join(data))]


def messages(writes: Sequence[StdinWrite]) -> list[dict[str, Any]]:
    """What was said, each checked against the protocol's schema."""
    files = {acp_launch.PROMPT_FILE: b'[{"type":"text","text":"Do it"}]'}
    found = []
    for write in writes:
        data = whole(write, lambda name: files.get(name, b"[]"))
        if data is None:
            continue
        assert data.endswith(b"\n")
        message = json.loads(data)
        assert message["jsonrpc"] == "2.0"
        check_schema(message)
        found.append(message)
    return found


MODELS: dict[str, Any] = {
    "initialize": schema.InitializeRequest,
    "authenticate": schema.AuthenticateRequest,
    "session/new": schema.NewSessionRequest,
    "session/load": schema.LoadSessionRequest,
    "session/resume": schema.ResumeSessionRequest,
    "session/set_mode": schema.SetSessionModeRequest,
    "session/set_config_option": schema.SetSessionConfigOptionSelectRequest,
    "session/prompt": schema.PromptRequest,
    "session/cancel": schema.CancelNotification,
    "session/close": schema.CloseSessionRequest,
}


def check_schema(message: dict[str, Any]) -> None:
    method = message.get("method")
    if method is not None:
        # session/set_model has left the schema, and is what several agents still have.
        if method != "session/set_model":
            MODELS[method].model_validate(message["params"])
    elif "result" in message:
        schema.RequestPermissionResponse.model_validate(message["result"])
    else:
        schema.Error.model_validate(message["error"])


# --- the way to the prompt -----------------------------------------------------------------------


def test_the_plan_begins_the_conversation_and_keeps_prompt_and_secrets_in_files() -> None:
    servers: dict[str, object] = {
        "lab": {"command": "lab", "args": ["-x"], "env": {"KEY": "hidden"}},
        "web": {"type": "http", "url": "http://h/mcp", "headers": {"Authorization": "Bearer hidden"}},
    }
    wanted = request(
        prompt="Do it, ü",
        mcp_servers=servers,
        added_mcp_servers={"events": {"type": "sse", "url": "http://h/s"}},
    )
    plan = AcpFamily().plan(wanted)
    reader = AcpReader(wanted)

    assert plan.argv == ("/bin/kimi", "acp")
    assert plan.stdin is not None
    (first,) = messages([StdinWrite(1, plan.stdin)])
    assert (first["id"], first["method"]) == (1, "initialize")
    assert json.loads(plan.files[acp_launch.PROMPT_FILE]) == [{"type": "text", "text": "Do it, ü"}]
    for name, content in plan.files.items():
        assert name.startswith("spec.")  # so it goes when the run is over
        if name != acp_launch.PROMPT_FILE:
            schema.NewSessionRequest.model_validate({"cwd": "/w", "mcpServers": json.loads(content)})
    named = {
        name: [each["name"] for each in json.loads(text)]
        for name, text in plan.files.items()
        if "mcp" in name
    }
    assert named == {
        "spec.acp-mcp.json": ["lab"],
        "spec.acp-mcp-http.json": ["lab", "web"],
        "spec.acp-mcp-sse.json": ["lab", "events"],
        "spec.acp-mcp-http-sse.json": ["lab", "web", "events"],
    }
    reader.feed(opened())
    written = reader.pending_writes()
    assert [write.files for write in written] == [("spec.acp-mcp-http-sse.json",), (acp_launch.PROMPT_FILE,)]
    real = [whole(write, plan.files.__getitem__) for write in written]
    assert b"hidden" in (real[0] or b"")
    assert json.loads(real[1] or b"")["params"]["prompt"][0]["text"] == "Do it, ü"
    state = reader.snapshot()
    assert b"hidden" not in state
    assert "Do it, ü".encode() not in state


def test_servers_that_the_agent_cannot_take_are_left_out_with_a_notice() -> None:
    servers: dict[str, object] = {
        "web": {"url": "http://h/mcp"},
        "events": {"type": "sse", "url": "http://h/s"},
    }
    reader, events = read(opened(capabilities={"mcpCapabilities": {"http": True}}), mcp_servers=servers)

    assert reader.pending_writes()[0].files == ("spec.acp-mcp-http.json",)
    notices = [event.text for event in events if isinstance(event, ev.Notice)]
    assert notices == ["MCP servers left out, the agent does not take sse: events"]
    assert "web" not in AcpFamily().plan(request(mcp_servers=servers)).files["spec.acp-mcp.json"].decode()


def test_a_plain_conversation() -> None:
    reader, events = read(opened(), said("Hel"), said("lo"), done())

    asked = messages(reader.pending_writes())
    assert [message["method"] for message in asked] == ["session/new", "session/prompt"]
    assert asked[0]["params"] == {"cwd": "/w", "mcpServers": []}
    assert asked[1]["params"] == {"sessionId": SESSION, "prompt": [{"type": "text", "text": "Do it"}]}
    assert reader.pending_writes()[-1] == StdinWrite(4, None)
    assert events == [ev.SessionStarted(SESSION), ev.Text("Hello"), ev.TurnEnded(True, "Hello")]
    assert reader.done
    for exit_code, signal in ((0, None), (1, None), (None, 15)):
        outcome = reader.outcome(exit_code, signal, "")
        assert (outcome.success, outcome.output, outcome.session_id) == (True, "Hello", SESSION)


def test_mode_options_model_and_level_are_set_one_after_the_other() -> None:
    offered = {
        "modes": {"currentModeId": "default", "availableModes": [{"id": "default"}, {"id": "yolo"}]},
        "configOptions": [
            {
                "id": "model",
                "category": "model",
                "type": "select",
                "currentValue": "a",
                "options": [{"value": "a", "name": "A"}, {"value": "b", "name": "Big"}],
            },
        ],
    }
    levels = [
        {
            "id": "think",
            "category": "thought_level",
            "type": "select",
            "currentValue": "low",
            "options": [{"group": "g", "name": "G", "options": [{"value": "low"}, {"value": "high"}]}],
        }
    ]
    options: dict[str, Any] = {
        "allow_mode": "yolo",
        "config": ("mode2=agent",),
        "allow_config": ("permission=full",),
    }
    drive = {
        "model": "set_config_option",
        "thinking": "set_config_option",
        "options": options,
        "resume": "load",
    }
    reader, events = read(
        opened(offered),
        reply(3, {}),
        reply(4, {}),
        refusal(5, message="Invalid params: unknown option"),
        reply(6, {"configOptions": [{**offered["configOptions"][0], "currentValue": "b"}, *levels]}),  # type: ignore[index]
        reply(7, {}),
        drive=drive,
        model="Big",
        thinking_level="high",
    )

    asked = [(message["method"], message["params"]) for message in messages(reader.pending_writes())]
    option = "session/set_config_option"
    assert asked[1:] == [
        ("session/set_mode", {"sessionId": SESSION, "modeId": "yolo"}),
        (option, {"sessionId": SESSION, "configId": "mode2", "value": "agent"}),
        (option, {"sessionId": SESSION, "configId": "permission", "value": "full"}),
        (option, {"sessionId": SESSION, "configId": "model", "value": "b"}),
        (option, {"sessionId": SESSION, "configId": "think", "value": "high"}),
        ("session/prompt", {"sessionId": SESSION, "prompt": [{"type": "text", "text": "Do it"}]}),
    ]
    assert events == [
        ev.SessionStarted(SESSION, "a"),
        ev.Notice("the option permission=full was refused: unknown option", "setting_refused"),
        ev.SessionStarted(SESSION, "b"),
    ]


def test_what_is_not_offered_is_a_notice_and_no_failure() -> None:
    drive = {"thinking": "set_config_option"}
    models = {"models": {"currentModelId": "a", "availableModels": [{"modelId": "a", "name": "A"}]}}
    reader, events = read(
        opened(models),
        refusal(3, -32602, "Invalid params: model not found"),
        drive=drive,
        model="b",
        thinking_level="max",
    )

    assert [message["method"] for message in messages(reader.pending_writes())][1:] == [
        "session/set_model",
        "session/prompt",
    ]
    assert [event.text for event in events if isinstance(event, ev.Notice)] == [
        "the model 'b' was refused: model not found",
        "the thinking level 'max' is left out: this model does not offer it",
    ]


@pytest.mark.parametrize(
    ("way", "told", "method"),
    [
        (True, {"authMethods": [{"id": "key", "name": "Key"}, {"id": "web", "name": "Web"}]}, "key"),
        (
            True,
            {"authMethods": [{"id": "key"}, {"id": "web"}], "_meta": {"defaultAuthMethodId": "web"}},
            "web",
        ),
        ("cached_token", {}, "cached_token"),
        (True, {"authMethods": []}, None),
        (False, {"authMethods": [{"id": "key"}]}, None),
    ],
)
def test_signing_in_where_the_entry_says_so(way: Any, told: dict[str, Any], method: str | None) -> None:
    reader, _ = read(reply(1, told), drive={"options": {"authenticate": way}})
    asked = messages(reader.pending_writes())

    assert asked[0]["method"] == ("session/new" if method is None else "authenticate")
    assert method is None or asked[0]["params"] == {"methodId": method}


@pytest.mark.parametrize("way", ["load", "resume"])
def test_history_told_before_the_session_is_resumed_is_dropped(way: str) -> None:
    replay = (
        update("user_message_chunk", content={"type": "text", "text": "old"}) + said("old answer") + called()
    )
    reader, events = read(
        reply(1, {"agentCapabilities": CAPABLE}),
        replay,
        reply(2, {}),
        said("new"),
        done(),
        drive={"resume": f"session/{way}"},
        resume_session_id=SESSION,
    )

    asked = messages(reader.pending_writes())
    assert asked[0]["method"] == f"session/{way}"
    assert asked[0]["params"]["sessionId"] == SESSION
    assert events == [ev.SessionStarted(SESSION), ev.Text("new"), ev.TurnEnded(True, "new")]


@pytest.mark.parametrize(
    "answer",
    [
        refusal(2, -32603, "Internal error: OpenCode service failure", {"service": "session"}),
        refusal(2, -32002, "Resource not found: session:x"),
        refusal(2, -32602, "Session not found: x"),
        refusal(2, -32603, "Internal error", {"details": "Invalid session identifier"}),
        refusal(2, -32601, '"Method not found": session/load'),
        reply(2, {"sessionId": "a fresh one"}),
    ],
)
def test_a_session_that_is_gone_is_a_refused_resume(answer: bytes) -> None:
    reader, _ = read(reply(1, {}), answer, drive={"resume": "session/load"}, resume_session_id=SESSION)
    outcome = reader.outcome(0, None, "")

    assert not outcome.success
    assert outcome.resume_refused
    assert outcome.session_id == ""
    assert reader.pending_writes()[-1].data is None


def test_a_session_that_is_gone_only_at_the_prompt_is_refused_too_but_never_after_work() -> None:
    gone = refusal(3, -32602, "session not found: x")
    start = [reply(1, {}), reply(2, {})]
    changes: dict[str, Any] = {"drive": {"resume": "session/load"}, "resume_session_id": SESSION}

    assert read(*start, gone, **changes)[0].outcome(0, None, "").resume_refused
    assert not read(*start, said("work"), gone, **changes)[0].outcome(0, None, "").resume_refused
    signed_out = read(reply(1, {}), refusal(2, -32000, "Authentication required"), **changes)[0].outcome(
        0, None, ""
    )
    assert (signed_out.resume_refused, signed_out.reason) == (False, failures.AGENT_AUTH)


def test_an_agent_that_cannot_resume_is_asked_for_a_fresh_session_by_the_next_run() -> None:
    reader, _ = read(reply(1, {}), resume_session_id=SESSION)

    assert reader.outcome(0, None, "").resume_refused


# --- text ----------------------------------------------------------------------------------------


def test_pieces_become_whole_lines_and_nothing_is_lost() -> None:
    text = "".join(f"line {number} of a long answer\n" for number in range(200)) + "x" * 9000 + " end"
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    _, events = read(opened(), *[said(piece) for piece in pieces], done())
    texts = [event.text for event in events if isinstance(event, ev.Text)]

    assert "".join(texts) == text
    assert 10 < len(texts) < 40
    assert all(piece.endswith("\n") for piece in texts[:10])


def test_thinking_text_and_messages_are_kept_apart() -> None:
    _, events = read(
        opened(),
        thought("I "),
        thought("ponder."),
        said("One", messageId="m1"),
        said("Two", messageId="m2"),
        done(),
    )

    assert events[1:4] == [ev.Thinking("I ponder."), ev.Text("One"), ev.Text("Two")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"type": "image", "mimeType": "image/png", "data": "AAAA"}, "[image image/png]"),
        ({"type": "resource_link", "uri": "file:///x", "name": "x"}, "[resource_link file:///x]"),
        ({"type": "resource", "resource": {"uri": "file:///x", "text": "inside"}}, "inside"),
        ({"type": "resource", "resource": {"uri": "file:///x"}}, "[file:///x]"),
        ("bare", "bare"),
        (7, ""),
        ({}, ""),
    ],
)
def test_content_of_every_kind_is_text(content: Any, text: str) -> None:
    _, events = read(opened(), update("agent_message_chunk", content=content), done())

    assert [event.text for event in events if isinstance(event, ev.Text)] == ([text] if text else [])


# --- tools ---------------------------------------------------------------------------------------


def test_a_call_is_told_once_its_input_is_known() -> None:
    announced = called(title="bash", status="pending", rawInput={"cwd": "/w"})
    runs = update(
        "tool_call_update",
        toolCallId="c1",
        status="in_progress",
        title="ls -l",
        rawInput={"command": "ls -l"},
    )
    reader, events = read(opened(), said("I look."), announced, runs, runs)

    assert events[1:] == [ev.Text("I look."), ev.ToolUse("c1", "bash", {"command": "ls -l"})]
    assert reader.tools_in_flight == 1
    more = reader.feed(ended(text="a\nb", title="ls -l") + ended() + done())
    assert more[0] == ev.ToolResult("c1", "bash", "a\nb")
    assert reader.tools_in_flight == 0
    assert [type(event) for event in more] == [ev.ToolResult, ev.TurnEnded]


def test_a_call_that_is_first_told_with_its_end() -> None:
    _, events = read(opened(), ended("c7", "gone", title="rm x", kind="execute"), done())

    assert events[1:3] == [
        ev.ToolUse("c7", "execute", {"command": "rm x"}),
        ev.ToolResult("c7", "execute", "gone"),
    ]


@pytest.mark.parametrize(
    ("fields", "tool"),
    [
        ({"title": "bash"}, "bash"),
        ({"title": "ls -l", "kind": "execute"}, "execute"),
        ({"title": "Read file: x", "kind": "other"}, "Read file: x"),
        ({"title": "Shell", "_meta": {"toolName": "run_shell_command"}}, "run_shell_command"),
        ({"title": "`ls`", "_meta": {"claudeCode": {"toolName": "Bash"}}}, "Bash"),
        ({"title": None, "kind": None}, "tool"),
    ],
)
def test_the_name_of_a_tool(fields: dict[str, Any], tool: str) -> None:
    _, events = read(opened(), called(**fields))

    assert isinstance(events[-1], ev.ToolUse)
    assert events[-1].tool == tool


@pytest.mark.parametrize(
    ("fields", "output", "is_error"),
    [
        ({"content": [{"type": "diff", "path": "/w/x", "newText": "n"}]}, "[changed /w/x]", False),
        ({"content": [{"type": "terminal", "terminalId": "t1"}]}, "[terminal t1]", False),
        ({"content": [], "rawOutput": {"output": "raw", "metadata": {}}}, "raw", False),
        ({"content": None, "rawOutput": "text"}, "text", False),
        ({"content": None, "rawOutput": {"n": 1}}, '{"n":1}', False),
        ({"content": None}, "", False),
        ({"status": "failed"}, "out", True),
    ],
)
def test_the_output_of_a_tool(fields: dict[str, Any], output: str, is_error: bool) -> None:
    _, events = read(opened(), called(), ended(**fields))

    assert events[-1] == ev.ToolResult("c1", "ls", output, is_error)


def test_changes_and_places_are_input_where_there_is_no_other() -> None:
    diff = [{"type": "diff", "path": "/w/x", "oldText": None, "newText": "n"}]
    _, events = read(
        opened(),
        called("c1", title="Edit x", kind="edit", rawInput=None, content=diff),
        called("c2", title="Read x", kind="read", rawInput={}, locations=[{"path": "/w/x", "line": 1}]),
    )

    assert [event.input for event in events if isinstance(event, ev.ToolUse)] == [
        {"changes": [{"path": "/w/x", "old": None, "new": "n"}]},
        {"title": "Read x", "paths": ["/w/x"]},
    ]


def test_the_final_text_is_what_came_after_the_last_tool() -> None:
    reader, _ = read(opened(), said("I look."), called(), ended(), said("It is so."), done())
    assert reader.outcome(0, None, "").output == "It is so."
    silent, _ = read(opened(), said("I look."), called(), ended(), done())
    assert silent.outcome(0, None, "").output == "I look."


def test_a_plan_replaces_the_one_before() -> None:
    entries = [
        {"content": "one", "priority": "high", "status": "completed"},
        {"content": "two", "status": "odd"},
    ]
    _, events = read(
        opened(),
        update("plan", entries=entries),
        update("plan_update", plan={"type": "items", "planId": "p", "entries": entries[:1]}),
        update("plan_removed"),
    )

    assert events[1:] == [
        ev.PlanChanged((PlanEntry("one", "completed"), PlanEntry("two"))),
        ev.PlanChanged((PlanEntry("one", "completed"),)),
        ev.PlanChanged(()),
    ]


def test_what_other_sessions_tell_is_not_ours() -> None:
    _, events = read(
        opened(), update("agent_message_chunk", session="other", content={"type": "text", "text": "no"})
    )

    assert events == [ev.SessionStarted(SESSION)]


# --- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # What came from the cache is in the input, thinking in the output; or neither is.
        (
            {
                "inputTokens": 100,
                "outputTokens": 12,
                "totalTokens": 112,
                "thoughtTokens": 5,
                "cachedReadTokens": 40,
            },
            (60, 12, 40, 0),
        ),
        (
            {
                "inputTokens": 60,
                "outputTokens": 7,
                "totalTokens": 112,
                "thoughtTokens": 5,
                "cachedReadTokens": 40,
            },
            (60, 12, 40, 0),
        ),
        (
            {
                "inputTokens": 100,
                "outputTokens": 7,
                "totalTokens": 112,
                "thoughtTokens": 5,
                "cachedReadTokens": 40,
            },
            (60, 12, 40, 0),
        ),
        ({"inputTokens": 5, "outputTokens": 6, "cachedWriteTokens": 7}, (5, 6, 0, 7)),
        ({"inputTokens": -5, "outputTokens": True, "totalTokens": "x"}, None),
    ],
)
def test_tokens_are_counted_alike(counts: Any, expected: Any) -> None:
    reader, _ = read(opened(), said("x"), done(usage=counts))
    usage = reader.outcome(0, None, "").usage

    found = [
        (one.input_tokens, one.output_tokens, one.cache_read_tokens, one.cache_write_tokens) for one in usage
    ]
    assert found == ([expected] if expected else [])


def test_tokens_of_each_request_are_added_up_and_those_of_the_end_not_counted_again() -> None:
    usage = {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}
    piece = said("", _meta={"usage": usage})
    reader, events = read(opened(), piece, said("x"), piece, done(usage=usage))

    assert reader.outcome(0, None, "").usage == (
        Usage(provider="kimi", model="", input_tokens=20, output_tokens=4),
    )
    assert sum(isinstance(event, ev.UsageSeen) for event in events) == 2


def test_tokens_by_model() -> None:
    counts = [
        {"model": "a", "token_count": {"input_tokens": 1, "output_tokens": 2}},
        {"model": "b", "token_count": {"input_tokens": 3}},
    ]
    reader, _ = read(
        opened(),
        said("x"),
        done(_meta={"quota": {"token_count": {"input_tokens": 4}, "model_usage": counts}}),
    )

    assert [(one.model, one.input_tokens) for one in reader.outcome(0, None, "").usage] == [
        ("a", 1),
        ("b", 3),
    ]


# --- permissions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "option"), [("allow", "once"), ("deny", "no")])
def test_a_request_for_permission_is_answered_by_policy(policy: str, option: str) -> None:
    reader, events = read(opened(), asks(), permission_mode=policy)
    answer = messages(reader.pending_writes())[-1]

    assert answer["id"] == 0
    assert answer["result"] == {"outcome": {"outcome": "selected", "optionId": option}}
    assert reader.open_requests == []
    assert ev.ToolUse("c9", "execute", {"command": "rm x"}) in events
    assert (ev.Notice("permission denied: execute", "permission_denied") in events) == (policy == "deny")


@pytest.mark.parametrize(
    ("options", "policy", "outcome"),
    [
        ([{"optionId": "a", "kind": "allow_always"}], "allow", {"outcome": "selected", "optionId": "a"}),
        ([{"optionId": "a", "kind": "reject_always"}], "deny", {"outcome": "selected", "optionId": "a"}),
        ([{"optionId": "a", "kind": "reject_once"}], "allow", {"outcome": "cancelled"}),
        ([], "deny", {"outcome": "cancelled"}),
        ("odd", "allow", {"outcome": "cancelled"}),
    ],
)
def test_the_option_is_chosen_by_its_kind(options: Any, policy: str, outcome: Any) -> None:
    reader, _ = read(opened(), asks(options=options), permission_mode=policy)

    assert messages(reader.pending_writes())[-1]["result"]["outcome"] == outcome


def test_a_question_to_the_user_waits_and_survives_and_is_answered_once() -> None:
    reader, events = read(opened(), asks("r-1"), asks(7, "c8"), asks("r-1"), permission_mode="ask")
    opens = [event for event in events if isinstance(event, ev.PermissionRequest)]
    assert [(each.request_id, each.tool, each.input, each.title) for each in opens] == [
        ('"r-1"', "execute", {"command": "rm x"}, "rm x"),
        ("7", "execute", {"command": "rm x"}, "rm x"),
    ]
    said_before = len(reader.pending_writes())

    again = AcpReader(snapshot=reader.snapshot())
    assert again.open_requests == opens
    assert again.answer("unknown", "allow") == []
    assert again.answer('"r-1"', "deny") == [ev.PermissionSettled('"r-1"', "deny")]
    assert again.answer('"r-1"', "allow") == []
    assert again.answer("7", "allow-task") == [ev.PermissionSettled("7", "allow-task")]
    answers = messages(again.pending_writes())[said_before:]
    assert [(each["id"], each["result"]["outcome"]["optionId"]) for each in answers] == [
        ("r-1", "no"),
        (7, "once"),
    ]
    # What is like it is not asked again.
    assert not any(isinstance(event, ev.PermissionRequest) for event in again.feed(asks(8)))
    assert messages(again.pending_writes())[-1]["id"] == 8


def test_a_request_is_withdrawn_by_the_agent_or_with_its_turn() -> None:
    reader, _ = read(opened(), asks(1), asks(2), permission_mode="ask")

    assert reader.feed(line(method="$/cancel_request", params={"requestId": 1})) == [
        ev.PermissionSettled("1", "withdrawn")
    ]
    assert ev.PermissionSettled("2", "withdrawn") in reader.feed(done())
    assert reader.open_requests == []


def test_unknown_requests_are_refused() -> None:
    reader, _ = read(
        opened(),
        line(id="q", method="craft/drainMidTurnQueue", params={}),
        line(id=5, method="fs/read_text_file"),
    )

    assert [(each["id"], each["error"]["code"]) for each in messages(reader.pending_writes())[2:]] == [
        ("q", -32601),
        (5, -32601),
    ]


# --- the end ---------------------------------------------------------------------------------------


def test_an_interrupt_answers_what_is_open_and_is_said_once() -> None:
    reader, _ = read(opened(), asks(1), permission_mode="ask")
    writes = reader.interrupt()

    told = messages(writes)[2:]
    assert told[0]["result"] == {"outcome": {"outcome": "cancelled"}}
    assert (told[1]["method"], told[1]["params"]) == ("session/cancel", {"sessionId": SESSION})
    assert writes[-1].data is None
    assert reader.interrupt() == writes
    reader.feed(reply(3, {"stopReason": "cancelled"}))
    assert reader.pending_writes() == writes
    assert reader.done
    assert reader.outcome(0, None, "").reason == failures.CANCELLED


def test_an_interrupt_before_there_is_a_session_only_closes() -> None:
    reader = AcpReader(request())

    assert reader.interrupt() == [StdinWrite(2, None)]
    assert reader.feed(opened()) == []
    assert reader.pending_writes() == [StdinWrite(2, None)]


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("max_tokens", failures.AGENT_CONTEXT),
        ("max_turn_requests", failures.ITERATION_LIMIT),
        ("refusal", failures.AGENT_UNKNOWN),
        ("cancelled", failures.AGENT_UNKNOWN),
        ("from_the_future", failures.AGENT_UNKNOWN),
        (None, failures.AGENT_UNKNOWN),
    ],
)
def test_only_a_turn_that_ended_well_is_a_success(stop: Any, reason: str) -> None:
    reader, _ = read(opened(), said("so far"), reply(3, {"stopReason": stop}))
    outcome = reader.outcome(0, None, "")

    assert not outcome.success
    assert (outcome.reason, outcome.output) == (reason, "so far")
    assert outcome.error


def test_every_stop_reason_of_the_schema_is_known() -> None:
    for stop in typing.get_args(schema.StopReason):
        reader, _ = read(opened(), said("x"), reply(3, {"stopReason": stop}))
        assert "without saying" not in reader.outcome(0, None, "").error


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (
            {"code": 401, "message": '{"error":{"message":"bad key","code":401}}'},
            failures.AGENT_AUTH,
            "bad key",
        ),
        ({"code": 400, "message": "wrong"}, failures.API_INVALID_REQUEST, "wrong"),
        ({"code": 400, "message": "prompt is too long"}, failures.AGENT_CONTEXT, "prompt is too long"),
        ({"code": 429, "message": "slow down"}, failures.AGENT_RATE_LIMIT, "slow down"),
        (
            {"code": 429, "message": "You exceeded your current quota"},
            failures.AGENT_QUOTA,
            "You exceeded your current quota",
        ),
        ({"code": 503, "message": "x"}, failures.AGENT_SERVER, "x"),
        (
            {"code": -32603, "message": "Internal error", "data": {"details": "401 scripted"}},
            failures.AGENT_AUTH,
            "401 scripted",
        ),
        (
            {"code": -32603, "message": "Internal error", "data": {"details": "400 scripted"}},
            failures.API_INVALID_REQUEST,
            "400 scripted",
        ),
        (
            {"code": -32603, "message": "Internal error: connection refused"},
            failures.AGENT_NETWORK,
            "connection refused",
        ),
        (
            {"code": -32603, "message": "Internal error: odd", "data": {"statusCode": 500}},
            failures.AGENT_SERVER,
            "odd",
        ),
        ({"code": -32603, "message": "Internal error"}, failures.AGENT_SERVER, "Internal error"),
        (
            {"code": -32000, "message": "Authentication required"},
            failures.AGENT_AUTH,
            "the agent is not signed in: Authentication required",
        ),
        ("odd", failures.AGENT_UNKNOWN, "odd"),
    ],
)
def test_errors_of_all_kinds(error: Any, reason: str, text: str) -> None:
    reader, events = read(opened(), line(id=3, error=error))
    outcome = reader.outcome(0, None, "")

    assert (outcome.reason, outcome.error) == (reason, text)
    assert events[1:] == [ev.ErrorText(text), ev.TurnEnded(False, "", text)]
    assert not outcome.success


def test_a_limit_of_the_account_is_told_with_its_time() -> None:
    error = {"code": 429, "message": "Usage limit reached, resets at 2100-01-01T00:00:00Z"}
    reader, _ = read(opened(), line(id=3, error=error))
    limit = reader.outcome(0, None, "").limit

    assert limit is not None
    assert limit.kind == "usage"


def test_a_turn_that_ended_well_without_a_word_did_not() -> None:
    reader, _ = read(opened(), done())
    assert reader.outcome(0, None, "").reason == failures.AGENT_EMPTY
    told = reader.outcome(0, None, "INFO x\nError code: 401 - {'error': 'invalid'}\nbye\n")
    assert (told.reason, told.error) == (failures.AGENT_AUTH, "Error code: 401 - {'error': 'invalid'}")


def test_a_failure_that_is_only_in_stderr() -> None:
    stderr = "ERROR API call failed: status 429 rate limit\n"
    quiet: dict[str, Any] = {"drive": {"options": {"failure_in_stderr": True}}}
    failed, _ = read(opened(), called(), ended(), done(), **quiet)
    outcome = failed.outcome(0, None, stderr)
    assert (outcome.success, outcome.reason) == (False, failures.AGENT_RATE_LIMIT)
    # A retry that worked leaves the same line.
    answered, _ = read(opened(), said("It is so."), done(), **quiet)
    assert answered.outcome(0, None, stderr).success


@pytest.mark.parametrize(
    ("exit_code", "signal", "stderr", "reason"),
    [
        (0, None, "", failures.AGENT_EMPTY),
        (0, None, "please login again", failures.AGENT_AUTH),
        (1, None, "", failures.AGENT_PROCESS),
        (1, None, "Error: Invalid API key", failures.AGENT_AUTH),
        (None, 9, "401", failures.AGENT_PROCESS),
        (143, None, "401", failures.AGENT_PROCESS),
    ],
)
def test_a_run_without_an_end_has_failed(
    exit_code: int | None, signal: int | None, stderr: str, reason: str
) -> None:
    reader, _ = read(opened(), said("text"))
    outcome = reader.outcome(exit_code, signal, stderr)

    assert not outcome.success
    assert outcome.reason == reason


def test_poisoned_output_is_no_success() -> None:
    reader, _ = read(opened(), said("I reached the iteration limit."), done())

    assert reader.outcome(0, None, "").reason == failures.ITERATION_LIMIT


def test_the_session_is_closed_first_where_the_entry_says_so() -> None:
    reader, _ = read(opened(), said("x"), done(), drive={"options": {"close": True}})
    writes = reader.pending_writes()

    assert messages(writes)[-1]["method"] == "session/close"
    assert writes[-1].data is None


# --- launch ----------------------------------------------------------------------------------------


def test_arguments_options_and_policy() -> None:
    drive = {
        "args": ("--no-auto-update", "agent", "--always-approve", "stdio", "{work_dir}"),
        "blocked": {"--effort": "1", "stdio": "0"},
        "thinking": "--effort",
        "model": "session/set_model",
        "env": {"YOLO": "1", "OTHER": "2"},
        "options": {
            "args_before": "stdio",
            "allow_args": ("--always-approve",),
            "allow_env": ("YOLO",),
            "ask_env": ("RULES={}",),
        },
    }
    changes: dict[str, Any] = {
        "drive": drive,
        "thinking_level": "high",
        "model": "m",
        "extra_args": ("-v", "--effort", "low", "stdio"),
    }
    free = AcpFamily().plan(request(**changes))
    asking = AcpFamily().plan(request(**changes, permission_mode="ask"))

    assert free.argv == (
        "/bin/kimi",
        "--no-auto-update",
        "agent",
        "--always-approve",
        "-v",
        "--effort",
        "high",
        "stdio",
        "/w",
    )
    assert asking.argv == ("/bin/kimi", "--no-auto-update", "agent", "-v", "--effort", "high", "stdio", "/w")
    assert (free.env, asking.env) == ({"YOLO": "1", "OTHER": "2"}, {"OTHER": "2", "RULES": "{}"})
    assert free.dropped_args == ("--effort", "low", "stdio")
    assert free.warnings == ()


def test_what_an_agent_does_not_have_is_a_warning() -> None:
    changes: dict[str, Any] = {
        "drive": {"model": "", "mcp": ""},
        "model": "m",
        "thinking_level": "high",
        "mcp_servers": {"x": {"command": "y"}},
    }
    plan = AcpFamily().plan(request(**changes))

    assert len(plan.warnings) == 3
    assert plan.argv == ("/bin/kimi", "acp")
    assert not any("mcp" in name for name in plan.files)


# --- the schema --------------------------------------------------------------------------------------


def test_every_update_of_the_schema_is_understood_or_knowingly_passed_over() -> None:
    annotation = schema.SessionNotification.model_fields["update"].annotation
    kinds = {
        typing.get_args(each.model_fields["session_update"].annotation)[0]
        for each in typing.get_args(annotation)
    }

    assert len(kinds) > 8
    assert kinds == set(acp._UPDATES) | acp.PASSED_OVER
    assert not set(acp._UPDATES) & acp.PASSED_OVER


# --- recordings of real CLIs --------------------------------------------------------------------------


def test_recordings_are_there() -> None:
    assert {name.partition("-")[0] for name in RECORDINGS} == {"gemini", "opencode", "qwen"}


def recorded_request(name: str) -> LaunchRequest:
    """What was asked for when it was recorded."""
    return msgspec.json.decode(RECORDINGS[name].with_suffix(".request.json").read_bytes(), type=LaunchRequest)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gemini-a_tool_call_really_writes_a_file", "SessionStarted Text ToolUse ToolResult Text TurnEnded"),
        ("qwen-a_tool_call_really_writes_a_file", "SessionStarted Text ToolUse ToolResult Text TurnEnded"),
        (
            "opencode-a_tool_call_really_writes_a_file",
            "SessionStarted Text ToolUse ToolResult Text TurnEnded",
        ),
        ("opencode-a_session_is_resumed_or_refused-2", "SessionStarted Text TurnEnded"),
        ("opencode-a_session_is_resumed_or_refused-3", "TurnEnded"),
        ("qwen-a_session_is_resumed_or_refused-3", "TurnEnded"),
        ("gemini-a_denied_request_is_not_done", "SessionStarted ToolUse Text TurnEnded"),
        ("gemini-a_request_without_authority_fails", "SessionStarted ErrorText TurnEnded"),
        ("qwen-a_request_without_authority_fails", "SessionStarted ErrorText TurnEnded"),
        ("opencode-an_interrupt_stops_the_tool_and_the_run", "SessionStarted ToolUse"),
    ],
)
def test_a_recording_gives_its_events(name: str, kinds: str) -> None:
    reader = AcpReader(recorded_request(name))
    events = [*reader.feed(RECORDINGS[name].read_bytes())]

    passing = (ev.UsageSeen, ev.Notice)
    found = " ".join(type(event).__name__ for event in events if not isinstance(event, passing))
    assert found.replace("SessionStarted SessionStarted", "SessionStarted").startswith(kinds)


# --- properties ----------------------------------------------------------------------------------------

ALL_LINES = b"".join(path.read_bytes() for path in RECORDINGS.values()).splitlines(keepends=True)
OWN_LINES = [
    opened(),
    said("a\nb"),
    thought("t"),
    called(),
    ended(),
    called("c2", status="pending", rawInput={}),
    asks(1),
    asks(2),
    update("plan", entries=[{"content": "x", "status": "pending"}]),
    done(),
    refusal(3),
    refusal(2),
    reply(1, {}),
    reply(2, {}),
    said("", _meta={"usage": {"inputTokens": 3, "outputTokens": 1}}),
    line(id="q", method="x/y"),
    line(method="$/cancel_request", params={"requestId": 1}),
    b"\n",
    b"plain words\n",
    b"[1]\n",
]

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_kinds = st.sampled_from([*acp._UPDATES, *sorted(acp.PASSED_OVER), "odd"])
_update = st.fixed_dictionaries(
    {"sessionUpdate": _kinds | _json},
    optional={
        "content": _json | st.just({"type": "text", "text": "words \n" * 90}),
        "toolCallId": st.sampled_from(["c1", "c2", ""]) | _json,
        "status": st.sampled_from(["pending", "in_progress", "completed", "failed"]) | _json,
        "title": _json,
        "kind": _json,
        "rawInput": _json,
        "rawOutput": _json,
        "locations": _json,
        "entries": _json | st.lists(st.fixed_dictionaries({"content": _json, "status": _json}), max_size=3),
        "plan": _json,
        "configOptions": _json
        | st.lists(st.fixed_dictionaries({"id": _json, "options": _json, "category": _json}), max_size=2),
        "_meta": _json | st.just({"usage": {"inputTokens": 1e300, "outputTokens": 5}, "toolName": 5}),
        "messageId": _json,
    },
).map(lambda fields: line(method="session/update", params={"sessionId": SESSION, "update": fields}))
_reply = st.tuples(
    st.integers(1, 6) | _json,
    _json
    | st.fixed_dictionaries(
        {},
        optional={
            "sessionId": st.just(SESSION) | _json,
            "stopReason": st.just("end_turn") | _json,
            "usage": _json,
            "models": _json | st.just({"currentModelId": "a", "availableModels": [{"modelId": "a"}, 5]}),
            "modes": _json,
            "agentCapabilities": _json,
            "_meta": _json
            | st.just({"quota": {"model_usage": [{"model": "m", "token_count": {"input_tokens": 5}}, 7]}}),
        },
    ),
).map(lambda pair: line(id=pair[0], result=pair[1]))
_asks = st.tuples(st.integers(0, 3) | _json, _json, _json).map(
    lambda each: line(
        id=each[0], method="session/request_permission", params={"toolCall": each[1], "options": each[2]}
    )
)
_stream = st.lists(
    st.sampled_from(OWN_LINES)
    | st.sampled_from(ALL_LINES or [b"\n"])
    | _update
    | _reply
    | _asks
    | st.binary(max_size=60)
    | st.sampled_from(OWN_LINES).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda at: whole[:at])),
    max_size=16,
).map(lambda parts: opened() + b"".join(parts) if len(parts) % 3 else b"".join(parts))


@given(
    data=_stream,
    picks=st.lists(st.tuples(st.integers(0, 100_000), st.booleans(), st.booleans())),
    policy=st.sampled_from(["allow", "ask", "deny"]),
)
@settings(max_examples=300, deadline=None)
def test_dying_and_being_restored_changes_nothing(
    data: bytes, picks: list[tuple[int, bool, bool]], policy: str
) -> None:
    drive = {
        "resume": "session/load",
        "thinking": "set_config_option",
        "options": {"allow_mode": "yolo", "close": True},
    }
    wanted = request(
        drive=drive,
        permission_mode=policy,
        model="m",
        thinking_level="high",
        mcp_servers={"x": {"command": "y"}},
    )

    def make(snapshot: bytes | None) -> AcpReader:
        return AcpReader(wanted, snapshot, line_limit_bytes=4000)

    cuts = [(at % (len(data) + 1), flush, die) for at, flush, die in picks]
    events, reader, writes = read_whole(make, data)
    again, other, other_writes = read_with_deaths(make, data, cuts)

    assert again == events
    assert other_writes == writes
    assert other.consumed == reader.consumed == len(data)
    assert other.snapshot() == reader.snapshot()
    for exit_code in (0, 1, 143, None):
        assert other.outcome(exit_code, None, "stderr") == reader.outcome(exit_code, None, "stderr")
    assert other.tools_in_flight == 0
    assert other.open_requests == []
    messages(writes)


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_a_recording_reads_the_same_cut_anywhere(name: str) -> None:
    data = RECORDINGS[name].read_bytes()
    dice = random.Random(name)
    cuts = [(dice.randrange(len(data)), False, dice.random() < 0.5) for _ in range(40)]

    def make(snapshot: bytes | None) -> AcpReader:
        return AcpReader(recorded_request(name), snapshot)

    events, reader, writes = read_whole(make, data)
    again, other, other_writes = read_with_deaths(make, data, cuts)

    assert again == events
    assert other_writes == writes
    assert other.snapshot() == reader.snapshot()
    assert not [event for event in events if isinstance(event, ev.Unreadable)]
    assert reader.outcome(0, None, "").success == (reader.outcome(None, 9, "").success)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_damaged_recordings_never_make_it_raise(seed: int) -> None:
    # Seeded, not drawn: these are long and hypothesis gains nothing from shrinking each byte.
    dice = random.Random(seed)
    lines = [*OWN_LINES, *ALL_LINES]
    dice.shuffle(lines)
    data = bytearray(opened() + b"".join(lines[:40]))
    for _ in range(dice.randrange(1, 40)):
        at = dice.randrange(len(data))
        if dice.random() < 0.3:
            del data[at : at + dice.randrange(1, 200)]
        else:
            data[at] = dice.randrange(256)
    reader = AcpReader(request(permission_mode=dice.choice(["allow", "ask", "deny"])))
    at = 0
    while at < len(data):
        size = dice.randrange(1, 5000)
        reader.feed(bytes(data[at : at + size]))
        reader.flush()
        reader.snapshot()
        for open_request in reader.open_requests:
            if dice.random() < 0.3:
                reader.answer(open_request.request_id, dice.choice(["allow", "allow-task", "deny"]))
        at += size
    reader.finish()
    reader.outcome(dice.choice([0, 1, None]), None, "x")
    messages(reader.pending_writes())


def test_state_stays_small_whatever_comes() -> None:
    reader, _ = read(opened(), permission_mode="ask")
    for number in range(1500):
        reader.feed(called(f"id-{number}" * 100, title="n" * 10_000, status="pending", rawInput={}))
        reader.feed(asks(number, f"a-{number}"))

    assert len(reader.snapshot()) < 2_000_000
    assert len(reader.open_requests) == acp.REQUESTS_LIMIT


def test_a_huge_piece_and_a_huge_line() -> None:
    text = "y" * 20_000_000
    reader, events = read(opened(), said(text), called(rawInput={"text": text}), done())

    assert "".join(event.text for event in events if isinstance(event, ev.Text)) == text
    assert reader.outcome(0, None, "").output == text[: 128 * 1024]
    assert len(reader.snapshot()) < 400_000


def test_deep_nesting_is_no_harm() -> None:
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    params = (
        b'{"sessionId":"sess-1","update":{"sessionUpdate":"tool_call","toolCallId":"c","rawInput":'
        + deep
        + b"}}"
    )
    reader, _ = read(opened(), b'{"jsonrpc":"2.0","method":"session/update","params":' + params + b"}\n")

    AcpReader(snapshot=reader.snapshot())


def test_something_that_is_no_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        AcpReader(snapshot=b"{")
