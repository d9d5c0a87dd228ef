"""The app-server's reader and plan: recordings of the real CLI, lines made up, deaths and damage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.agents import events as ev
from daemon_core.agents.codex import BLOCKED_ARGS, CodexFamily
from daemon_core.agents.codex_reader import CALLS_LIMIT, PROMPT_FILE, RESULT_LIMIT_BYTES, CodexReader
from daemon_core.agents.events import Event, Limit
from daemon_core.agents.family import Drive, LaunchError, LaunchRequest, StdinWrite
from daemon_core.protocol import failures
from tests.agents.restarts import read_whole, read_with_deaths

RECORDINGS = {
    path.stem: path for path in sorted((Path(__file__).with_name("recordings") / "codex").glob("*.jsonl"))
}
THREAD = "01a1fe0c-8c22-7961-93c7-4a9a099203e4"
TURN = "01a1fe0c-8c55-7ca0-bf1a-4c5cef9a8d6f"
FAMILY = CodexFamily()


def request(**changes: Any) -> LaunchRequest:
    return LaunchRequest(
        **{"executable": "/bin/codex", "prompt": "x", "work_dir": "/w", "run_dir": "/r"} | changes
    )


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def told(method: str, **params: Any) -> bytes:
    return line(method=method, params={"threadId": THREAD, "turnId": TURN} | params)


def opened(model: str = "stub", resumed: bool = False) -> bytes:
    return line(id=1, result={"userAgent": "x"}) + line(
        id=2, result={"thread": {"id": THREAD, "turns": []}, "model": model}
    )


def begun() -> bytes:
    turn = {"id": TURN, "status": "inProgress", "items": []}
    return opened() + line(id=3, result={"turn": turn}) + told("turn/started", turn=turn)


def item(kind: str, name: str = "i1", *, done: bool = True, **fields: Any) -> bytes:
    return told(f"item/{'completed' if done else 'started'}", item={"type": kind, "id": name} | fields)


def said(text: str, name: str = "m1", **fields: Any) -> bytes:
    return item("agentMessage", name, text=text, **fields)


def delta(text: str, name: str = "m1") -> bytes:
    return told("item/agentMessage/delta", itemId=name, delta=text)


def command(name: str = "c1", *, done: bool, **fields: Any) -> bytes:
    found = {"command": "/bin/bash -lc 'ls -l'", "cwd": "/w", "status": "inProgress"} | fields
    return item("commandExecution", name, done=done, **found)


def used(total: int, last: int = 0, turn: str = TURN, output: int = 1) -> bytes:
    def counts(tokens: int) -> dict[str, int]:
        return {"inputTokens": tokens, "cachedInputTokens": tokens // 2, "outputTokens": output}

    usage = {"total": counts(total), "last": counts(last or total)}
    return told("thread/tokenUsage/updated", turnId=turn, tokenUsage=usage)


def ended(status: str = "completed", **fields: Any) -> bytes:
    return told("turn/completed", turn={"id": TURN, "status": status, "error": None, "items": []} | fields)


def asked(
    number: int | str = 0, method: str = "item/commandExecution/requestApproval", **params: Any
) -> bytes:
    found = {"threadId": THREAD, "turnId": TURN, "itemId": "c1", "command": "/bin/bash -lc 'rm x'"} | params
    return line(id=number, method=method, params=found)


def read(*data: bytes, **changes: Any) -> tuple[CodexReader, list[Event]]:
    reader = FAMILY.reader(request(**changes))
    assert isinstance(reader, CodexReader)
    return reader, [*reader.feed(b"".join(data))]


def said_by(reader: CodexReader) -> list[Any]:
    """What the reader has to say: messages, and None for the end."""
    return [json.loads(write.data) if write.data is not None else None for write in reader.pending_writes()]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def opening_of(**changes: Any) -> list[Any]:
    """What the program is told before it has said anything."""
    plan = FAMILY.plan(request(**changes))
    assert plan.stdin is not None
    return [json.loads(said) for said in plan.stdin.splitlines()]


# --- the plan --------------------------------------------------------------------------------------


def test_the_program_is_started_as_a_server_and_texts_are_files() -> None:
    plan = FAMILY.plan(request(prompt='say "é"', instructions="be brief"))

    assert plan.argv == ("/bin/codex", "app-server", "--listen", "stdio://")
    assert plan.files == {
        "spec.prompt.json": '"say \\"é\\""'.encode(),
        "spec.instructions.json": b'"be brief"',
    }
    hello, initialized, start = opening_of(instructions="be brief")
    assert hello["method"] == "initialize"
    assert initialized == {"method": "initialized"}
    assert start["params"]["developerInstructions"] == "be brief"
    assert "CODEX_HOME" not in plan.drop_env
    assert "CODEX_API_KEY" not in plan.drop_env


@pytest.mark.parametrize("option", sorted(BLOCKED_ARGS))
def test_options_of_ours_cannot_be_given(option: str) -> None:
    given_args = (option, "value") if BLOCKED_ARGS[option] == "1" else (option,)
    plan = FAMILY.plan(request(extra_args=(*given_args, "-c", "model_verbosity=low")))

    assert plan.dropped_args == given_args
    assert plan.argv[2:4] == ("-c", "model_verbosity=low")


def test_a_subcommand_and_more_mcp_servers_cannot_be_given() -> None:
    extra = (
        "generate-ts",
        "--out",
        "-c",
        "mcp_servers.x.command=y",
        "-cmcp_servers.z.url=u",
        "--enable",
        "goals",
    )
    plan = FAMILY.plan(request(extra_args=extra, mcp_servers={}))

    assert plan.dropped_args == ("generate-ts", "-c", "mcp_servers.x.command=y", "-cmcp_servers.z.url=u")
    assert plan.argv == ("/bin/codex", "app-server", "--out", "--enable", "goals", "--listen", "stdio://")
    kept = FAMILY.plan(request(extra_args=("-c", "mcp_servers.x.command=y")))
    assert kept.dropped_args == ()


def test_a_providers_entry_adds_to_it() -> None:
    drive = Drive(args=("-p", "work"), blocked={"--oss": "0"}, env={"A": "b"}, drop_env=("C",))
    plan = FAMILY.plan(request(drive=drive, extra_args=("--oss",)))

    assert plan.argv[:4] == ("/bin/codex", "-p", "work", "app-server")
    assert plan.dropped_args == ("--oss",)
    assert plan.env == {"A": "b"}
    assert "C" in plan.drop_env


@pytest.mark.parametrize(
    ("mode", "approval", "sandbox"),
    [
        ("allow", "never", "danger-full-access"),
        ("ask", "untrusted", "danger-full-access"),
        ("deny", "untrusted", "read-only"),
    ],
)
def test_a_permission_mode_is_a_policy(mode: str, approval: str, sandbox: str) -> None:
    params = opening_of(permission_mode=mode)[2]["params"]
    assert (params["approvalPolicy"], params["sandbox"]) == (approval, sandbox)


def test_a_mode_that_nobody_has_is_refused() -> None:
    with pytest.raises(LaunchError):
        FAMILY.plan(request(permission_mode="maybe"))


# --- the opening -----------------------------------------------------------------------------------


def test_a_thread_is_begun_and_then_a_turn() -> None:
    _, _, start = opening_of(model="m", thinking_level="high", instructions="brief")
    reader, events = read(opened(), model="m", thinking_level="high", instructions="brief")

    assert (start["id"], start["method"]) == (2, "thread/start")
    assert (start["params"]["cwd"], start["params"]["model"]) == ("/w", "m")
    assert events == [ev.SessionStarted(THREAD, "stub")]
    (turn,) = said_by(reader)
    assert turn["method"] == "turn/start"
    assert turn["params"]["effort"] == "high"
    assert turn["params"]["input"] == [{"type": "text", "text": f"@{PROMPT_FILE}@"}]
    (write,) = reader.pending_writes()
    assert (write.number, write.files) == (2, (PROMPT_FILE,))
    assert reader.session_id == THREAD


def test_a_thread_is_asked_for_again_by_a_program_that_was_not_ready() -> None:
    early = line(id=2, error={"code": -32600, "message": "Not initialized"})
    reader, events = read(early + line(id=1, result={}), instructions="brief")

    assert events == []
    (start,) = said_by(reader)
    assert (start["id"], start["method"]) == (3, "thread/start")
    assert start["params"]["developerInstructions"] == "@spec.instructions.json@"

    again = line(id=3, error={"code": -32600, "message": "Not initialized"})
    reader, events = read(early + line(id=1, result={}) + again)
    assert kinds(events) == ["ErrorText", "TurnEnded"]  # once is enough


def test_a_program_that_refuses_us_ends_the_run_once() -> None:
    refused = [line(id=n, error={"code": -32600, "message": "unsupported client"}) for n in (1, 2)]
    reader, events = read(b"".join(refused))

    assert kinds(events) == ["ErrorText", "TurnEnded"]
    assert said_by(reader) == [None]
    assert "initialize: unsupported client" in reader.outcome(0, None, "").error


def test_answers_of_the_opening_may_come_in_any_order() -> None:
    reader, events = read(b"".join(reversed(opened().splitlines(keepends=True))))

    assert events == [ev.SessionStarted(THREAD, "stub")]
    assert [said["method"] for said in said_by(reader)] == ["turn/start"]


def test_a_run_that_an_earlier_version_has_begun_goes_on() -> None:
    state = json.loads(FAMILY.reader(request(model="m")).snapshot())
    state["rpc"] = {"next_id": 2, "outstanding": {"1": {"method": "initialize", "context": ""}}}
    reader = CodexReader.restored(json.dumps(state).encode())
    reader.feed(line(id=1, result={}))

    notified, start = said_by(reader)
    assert notified == {"method": "initialized"}
    assert (start["id"], start["method"], start["params"]["model"]) == (2, "thread/start", "m")


def test_a_session_is_resumed_without_its_history() -> None:
    resume = opening_of(resume_session_id=THREAD)[2]
    assert resume["method"] == "thread/resume"
    assert resume["params"]["threadId"] == THREAD
    assert resume["params"]["excludeTurns"] is True


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("no rollout found for thread id x", True),
        ("invalid session id: nonsense", True),
        ("failed to load rollout `/x.jsonl`: empty session file", True),
        ("failed to load configuration", False),
    ],
)
def test_a_resume_that_is_refused(message: str, refused: bool) -> None:
    reader, events = read(
        line(id=1, result={}),
        line(id=2, error={"code": -32600, "message": message}),
        resume_session_id=THREAD,
    )

    assert kinds(events) == ["ErrorText", "TurnEnded"]
    assert said_by(reader)[-1] is None
    outcome = reader.outcome(0, None, "")
    assert not outcome.success
    assert outcome.resume_refused is refused
    assert message in outcome.error


@pytest.mark.parametrize(
    "data",
    [
        line(id=1, error={"code": -32600, "message": "Not initialized"}),
        line(id=1, result={}) + line(id=2, result={"thread": {}}),
        line(id=1, result={}) + line(id=2, result=None),
        opened() + line(id=3, error={"code": 1, "message": "no such model"}),
    ],
)
def test_an_opening_that_fails_ends_the_run(data: bytes) -> None:
    reader, events = read(data)

    assert isinstance(events[-1], ev.TurnEnded)
    assert said_by(reader)[-1] is None
    assert not reader.outcome(0, None, "").success


# --- the turn --------------------------------------------------------------------------------------


def test_a_turn_and_its_end() -> None:
    reader, events = read(
        begun(),
        command(done=False),
        command(done=True, aggregatedOutput="x\n", exitCode=0, status="completed"),
        said("Looking.", "m1", phase="commentary"),
        said("Done.", "m2", phase="final_answer"),
        said("Off I go.", "m3", phase="commentary"),
        used(10),
        ended(),
    )

    assert kinds(events) == [
        *["SessionStarted", "ToolUse", "ToolResult", "Text", "Text", "Text", "UsageSeen", "TurnEnded"]
    ]
    assert events[1] == ev.ToolUse("c1", "exec_command", {"command": "ls -l", "cwd": "/w"})
    assert reader.tools_in_flight == 0
    assert said_by(reader)[-1] is None
    outcome = reader.outcome(0, None, "")
    assert outcome.success
    assert outcome.output == "Done."
    assert outcome.session_id == THREAD
    # Whatever comes later is no part of it.
    assert reader.feed(said("late") + ended("failed") + used(100)) == []


def test_what_is_told_of_other_threads_and_turns_is_not_the_runs() -> None:
    _, events = read(
        begun(),
        told("item/completed", threadId="other", item={"type": "agentMessage", "id": "a", "text": "theirs"}),
        told("item/completed", turnId="old", item={"type": "agentMessage", "id": "b", "text": "earlier"}),
        told("error", threadId="other", error={"message": "theirs"}, willRetry=False),
        told("turn/completed", threadId="other", turn={"id": "t", "status": "failed"}),
        told("turn/completed", turn={"id": "t", "status": "failed"}),
    )

    assert kinds(events) == ["SessionStarted"]


def test_a_text_is_told_in_lines_and_its_rest_at_the_end() -> None:
    first = "line\n" * 300
    _, events = read(
        begun(), delta(first[:700]), delta(first[700:] + "the re"), delta("st"), said(first + "the rest")
    )

    texts = [event.text for event in events if isinstance(event, ev.Text)]
    assert "".join(texts) == first + "the rest"
    assert len(texts) == 2


def test_a_message_that_is_never_finished_is_told_once_the_turn_ends() -> None:
    _, events = read(begun(), delta("half a sen"), ended("interrupted"))

    assert ev.Text("half a sen") in events


def test_usage_is_what_the_turn_has_used() -> None:
    reader, events = read(
        opened(),
        used(1000, 400, turn="earlier"),
        line(id=3, result={"turn": {"id": TURN}}),
        used(1010, 10),
        used(1010, 10),
        used(1040, 30),
        used(1040, 30),
        ended(),
        resume_session_id=THREAD,
    )

    seen = [event for event in events if isinstance(event, ev.UsageSeen)]
    assert len(seen) == 2
    (usage,) = reader.outcome(0, None, "").usage
    assert usage.input_tokens + usage.cache_read_tokens == 40
    assert usage.cache_read_tokens == 20


def test_usage_of_a_resumed_thread_that_tells_no_total_is_its_last() -> None:
    reader, _ = read(
        opened(), line(id=3, result={"turn": {"id": TURN}}), used(900, 20), resume_session_id=THREAD
    )

    (usage,) = reader.outcome(0, None, "").usage
    assert usage.input_tokens + usage.cache_read_tokens == 20


def test_usage_is_told_by_model() -> None:
    reader, events = read(begun(), used(10), told("model/rerouted", toModel="other"), used(30, 20))

    assert [usage.model for usage in reader.outcome(0, None, "").usage] == ["stub", "other"]
    assert ev.Notice("the model is now other", "model_rerouted") in events


def test_a_plan_is_told_whole() -> None:
    plan = [{"step": "a", "status": "inProgress"}, {"step": "b", "status": "new"}, 3, {"status": 1}]
    _, events = read(begun(), told("turn/plan/updated", plan=plan))

    entries = (ev.PlanEntry("a", "in_progress"), ev.PlanEntry("b"), ev.PlanEntry(""))
    assert events[-1] == ev.PlanChanged(entries)


@pytest.mark.parametrize(
    ("fields", "tool", "given", "output", "is_error"),
    [
        (
            {"type": "mcpToolCall", "server": "lab", "tool": "echo", "arguments": {"a": 1}}
            | {"result": {"content": [{"type": "text", "text": "hi"}, {"type": "image"}]}},
            "mcp__lab__echo",
            {"a": 1},
            "hi\n[image]",
            False,
        ),
        (
            {"type": "mcpToolCall", "server": "lab", "tool": "echo", "error": {"message": "gone"}},
            "mcp__lab__echo",
            None,
            "gone",
            True,
        ),
        ({"type": "webSearch", "query": "cats"}, "web_search", {"query": "cats"}, "", False),
        (
            {
                "type": "dynamicToolCall",
                "tool": "t",
                "arguments": 1,
                "success": False,
                "contentItems": ["no"],
            },
            "t",
            1,
            "no",
            True,
        ),
        ({"type": "imageView", "path": "/x.png"}, "view_image", {"path": "/x.png"}, "", False),
        ({"type": "commandExecution"}, "exec_command", {"command": ""}, "", False),
        ({"type": "fileChange", "changes": 3}, "apply_patch", {"changes": []}, "", False),
    ],
)
def test_what_it_does_is_a_call_with_its_result(
    fields: dict[str, Any], tool: str, given: Any, output: str, is_error: bool
) -> None:
    _, events = read(begun(), told("item/completed", item={"id": "i"} | fields))

    assert events[1:] == [ev.ToolUse("i", tool, given), ev.ToolResult("i", tool, output, is_error)]


def test_notices() -> None:
    _, events = read(
        begun(),
        told("error", error={"message": "Reconnecting... 1/5"}, willRetry=True),
        told("warning", message="careful"),
        told("mcpServer/startupStatus/updated", name="lab", status="failed", error="no such file"),
        told("item/completed", item={"type": "contextCompaction", "id": "x"}),
    )

    assert events[1:] == [
        ev.Notice("Reconnecting... 1/5", "api_retry"),
        ev.Notice("careful", "warning"),
        ev.Notice("MCP server lab: no such file", "mcp_server_failed"),
        ev.Notice("the conversation was compacted", "compacted"),
    ]


@pytest.mark.parametrize(
    ("info", "message", "reason"),
    [
        ("contextWindowExceeded", "full", failures.AGENT_CONTEXT),
        ("usageLimitExceeded", "You've hit your usage limit.", failures.AGENT_QUOTA),
        ("rateLimitExceeded", "slow down", failures.AGENT_RATE_LIMIT),
        ("serverOverloaded", "busy", failures.AGENT_RATE_LIMIT),
        ("unauthorized", "sign in", failures.AGENT_AUTH),
        ("badRequest", "bad", failures.API_INVALID_REQUEST),
        ("modelNotFound", "no such model", failures.AGENT_MODEL),
        ({"httpConnectionFailed": {"httpStatusCode": 401}}, "401", failures.AGENT_AUTH),
        ({"httpConnectionFailed": {"httpStatusCode": None}}, "error sending request", failures.AGENT_NETWORK),
        ({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}, "x", failures.AGENT_RATE_LIMIT),
        ({"responseStreamDisconnected": {"httpStatusCode": 503}}, "x", failures.AGENT_SERVER),
        ("other", "stream disconnected before completion", failures.AGENT_NETWORK),
        ("other", '{"error":{"message":"bad","type":"invalid_request_error"}}', failures.API_INVALID_REQUEST),
        ("other", "unexpected status 402 Payment Required", failures.AGENT_QUOTA),
        ("other", "who knows", failures.AGENT_UNKNOWN),
        (None, "who knows", failures.AGENT_UNKNOWN),
        ([1], "who knows", failures.AGENT_UNKNOWN),
    ],
)
def test_an_error_has_its_reason(info: Any, message: str, reason: str) -> None:
    error = {"message": message, "codexErrorInfo": info}
    reader, events = read(begun(), told("error", error=error, willRetry=False), ended("failed", error=error))

    assert kinds(events)[1:] == ["ErrorText", "TurnEnded"]
    outcome = reader.outcome(0, None, "")
    assert (outcome.success, outcome.reason) == (False, reason)


def test_a_used_up_limit_without_a_time_is_still_one() -> None:
    error = {"message": "You've hit your usage limit.", "codexErrorInfo": "usageLimitExceeded"}
    reader, _ = read(begun(), ended("failed", error=error))

    assert reader.outcome(0, None, "").limit == Limit("usage")


@pytest.mark.parametrize("status", ["failed", "interrupted", "inProgress", None, 3])
def test_only_a_completed_turn_is_a_success(status: Any) -> None:
    reader, _ = read(begun(), said("All done."), ended(status))

    assert not reader.outcome(0, None, "").success


def test_a_completed_turn_counts_once_the_program_was_told_or_ended_well() -> None:
    reader, _ = read(begun(), said("All done."), ended())

    assert not reader.outcome(1, None, "").success
    assert reader.outcome(0, None, "").success
    reader.acknowledged(99)
    assert reader.done
    assert reader.outcome(None, 9, "").success


@pytest.mark.parametrize(
    ("code", "signal", "stderr", "reason"),
    [
        (0, None, "", failures.AGENT_EMPTY),
        (None, 9, "", failures.AGENT_PROCESS),
        (1, None, "\x1b[31mnot logged in\x1b[0m", failures.AGENT_AUTH),
        (101, None, "thread 'main' panicked", failures.AGENT_PROCESS),
    ],
)
def test_a_run_without_an_end_has_failed(
    code: int | None, signal: int | None, stderr: str, reason: str
) -> None:
    reader, _ = read(begun(), said("All done."))

    outcome = reader.outcome(code, signal, stderr)
    assert (outcome.success, outcome.reason, outcome.session_id) == (False, reason, THREAD)
    assert "\x1b" not in outcome.error


# --- what is asked ---------------------------------------------------------------------------------


def answered(reader: CodexReader) -> Any:
    return said_by(reader)[-1]


@pytest.mark.parametrize(
    ("decision", "word"), [("allow", "accept"), ("allow-task", "acceptForSession"), ("deny", "decline")]
)
def test_a_request_waits_for_its_answer(decision: str, word: str) -> None:
    reader, events = read(begun(), command(done=False), asked(7), permission_mode="ask")

    (open_one,) = reader.open_requests
    assert events[-1] == open_one
    assert open_one == ev.PermissionRequest("7", "exec_command", {"command": "rm x"}, title="rm x")
    restored = CodexReader.restored(reader.snapshot())
    assert restored.answer("8", decision) == []
    assert restored.answer("7", decision) == [ev.PermissionSettled("7", decision)]
    assert answered(restored) == {"id": 7, "result": {"decision": word}}
    assert restored.open_requests == []
    assert restored.answer("7", decision) == []


def test_a_request_is_withdrawn_with_its_turn() -> None:
    reader, _ = read(begun(), asked(1), asked("1"), permission_mode="ask")
    assert [each.request_id for each in reader.open_requests] == ["1", "s1"]

    assert reader.feed(told("serverRequest/resolved", requestId="1")) == [
        ev.PermissionSettled("s1", "withdrawn")
    ]
    assert ev.PermissionSettled("1", "withdrawn") in reader.feed(ended("interrupted"))


@pytest.mark.parametrize(("mode", "word"), [("allow", "accept"), ("deny", "decline")])
def test_a_policy_answers_at_once(mode: str, word: str) -> None:
    reader, events = read(begun(), asked(3), permission_mode=mode)

    assert answered(reader) == {"id": 3, "result": {"decision": word}}
    assert not any(isinstance(event, ev.PermissionRequest) for event in events)


def test_old_requests_have_words_of_their_own() -> None:
    reader, _ = read(begun(), asked(3, "execCommandApproval", command=["rm", "x"]), permission_mode="deny")

    assert answered(reader)["result"] == {"decision": "denied"}


def test_permissions_that_are_granted() -> None:
    wanted = {"network": {"enabled": True}}
    reader, _ = read(
        begun(), asked(1, "item/permissions/requestApproval", permissions=wanted), permission_mode="ask"
    )
    reader.answer("1", "allow-task")

    assert answered(reader)["result"] == {"permissions": wanted, "scope": "session"}


def test_a_question_is_answered_with_a_text() -> None:
    questions = [{"id": "q", "question": "Which?", "options": [{"label": "red"}, {"label": "blue"}]}]
    reader, events = read(
        begun(), asked(1, "item/tool/requestUserInput", questions=questions), permission_mode="ask"
    )

    assert isinstance(events[-1], ev.PermissionRequest)
    assert (events[-1].kind, events[-1].title, events[-1].options) == ("question", "Which?", ("red", "blue"))
    reader.answer("1", "allow", "blue")
    assert answered(reader)["result"] == {"answers": {"q": {"answers": ["blue"]}}}


@pytest.mark.parametrize(
    ("schema", "text", "result"),
    [
        ({}, "", {"action": "accept", "content": None, "_meta": None}),
        ({"n": {"type": "integer"}}, "3", {"action": "accept", "content": {"n": 3}, "_meta": None}),
        ({"n": {"type": "integer"}}, "x", {"action": "decline", "content": None, "_meta": None}),
        ({"b": {"type": "boolean"}}, "yes", {"action": "accept", "content": {"b": True}, "_meta": None}),
        ({"s": {"type": "string"}}, "", {"action": "decline", "content": None, "_meta": None}),
    ],
)
def test_an_mcp_server_asks(schema: Any, text: str, result: Any) -> None:
    wanted = {"type": "object", "properties": schema}
    reader, _ = read(
        begun(),
        asked(1, "mcpServer/elicitation/request", serverName="lab", message="Sure?", requestedSchema=wanted),
        permission_mode="ask",
    )
    assert reader.open_requests[0].kind == ("question" if schema else "permission")
    reader.answer("1", "allow", text)

    assert answered(reader)["result"] == result


def test_what_nobody_knows_is_refused_or_passed_over() -> None:
    reader, events = read(
        begun(),
        line(id="x", method="item/tool/call", params={}),
        told("thread/unheard", of=1),
        told("item/started", item={"type": "unheardOf", "id": "u"}),
        line(id=99, result={}),
        permission_mode="ask",
    )

    assert kinds(events) == ["SessionStarted"]
    assert answered(reader)["id"] == "x"
    assert answered(reader)["error"]["code"] == -32601


# --- ends, bounds, deaths and damage ---------------------------------------------------------------


def test_an_interrupt_ends_turn_terminals_and_input_and_only_once() -> None:
    reader, _ = read(begun(), command(done=False))
    before = len(reader.pending_writes())
    said_now = reader.interrupt()

    assert [json.loads(write.data)["method"] if write.data else None for write in said_now[before:]] == [
        "turn/interrupt",
        "thread/backgroundTerminals/clean",
        None,
    ]
    assert reader.interrupt() == said_now
    assert reader.outcome(0, None, "").reason == failures.CANCELLED


def test_an_interrupt_before_there_is_a_turn_closes_the_input() -> None:
    reader, _ = read(line(id=1, result={}))
    reader.interrupt()

    assert said_by(reader)[-1] is None
    assert reader.feed(line(id=2, result={"thread": {"id": THREAD}})) == [ev.SessionStarted(THREAD)]
    assert said_by(reader)[-1] is None


def test_state_stays_small_whatever_comes() -> None:
    calls = b"".join(command(f"c{number}", done=False) for number in range(3 * CALLS_LIMIT))
    requests = b"".join(asked(number) for number in range(500))
    streams = b"".join(delta("x", f"m{number}") for number in range(500))
    reader, _ = read(
        begun(), calls, requests, streams, said("y" * 3 * RESULT_LIMIT_BYTES), permission_mode="ask"
    )
    for write in reader.pending_writes():
        reader.acknowledged(write.number)

    assert reader.tools_in_flight == CALLS_LIMIT
    assert len(reader.snapshot()) < RESULT_LIMIT_BYTES + 200_000


def test_something_that_is_no_snapshot_is_refused() -> None:
    for snapshot in (b"", b"{", b"[]", b'{"consumed":"x"}'):
        with pytest.raises(ValueError):
            FAMILY.reader(snapshot=snapshot)


def test_recordings_are_there() -> None:
    assert len(RECORDINGS) > 20


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_a_recording_is_read_without_a_line_that_is_not_understood(name: str) -> None:
    mode = "ask" if "permission" in name or "asked" in name else "allow"
    reader, events = read(RECORDINGS[name].read_bytes(), permission_mode=mode)
    events += reader.finish()

    assert not any(isinstance(event, ev.Unreadable) for event in events)
    assert any(isinstance(event, ev.SessionStarted) for event in events) == ("unknown_session" not in name)
    assert reader.snapshot() == CodexReader.restored(reader.snapshot()).snapshot()


_texts = st.sampled_from(["", "x", "line\n", "word " * 300 + "\n", "é\u2028𝄞", "y" * 20_000])
_names = st.sampled_from(["a", "b", "c"])
_pieces = st.one_of(
    st.builds(said, _texts, _names),
    st.builds(delta, _texts, _names),
    st.builds(lambda name, done: command(name, done=done), _names, st.booleans()),
    st.builds(used, st.integers(0, 100), st.integers(0, 50), st.sampled_from([TURN, "old"])),
    st.builds(
        asked,
        st.sampled_from([0, 1, 2, "a"]),
        st.sampled_from(
            ["item/commandExecution/requestApproval", "mcpServer/elicitation/request", "what/ever"]
        ),
    ),
    st.builds(ended, st.sampled_from(["completed", "failed", "interrupted"])),
    st.builds(lambda retry: told("error", error={"message": "e"}, willRetry=retry), st.booleans()),
    st.sampled_from(
        [
            opened(),
            begun(),
            line(id=3, result={"turn": {"id": TURN}}),
            line(id=2, error={"code": -32600, "message": "no rollout found"}),
            b"\n",
            b"{}\n",
            b"[1]\n",
            b"not json\n",
            b'{"id":4}\n',
            b'{"method":5,"id":1}\n',
            told("serverRequest/resolved", requestId=1),
            told("turn/plan/updated", plan=[{"step": "s", "status": "completed"}]),
        ]
    ),
)
_stream = st.lists(_pieces, max_size=30).map(lambda pieces: begun() + b"".join(pieces))


def make_for(mode: str) -> Any:
    def make(snapshot: bytes | None) -> CodexReader:
        reader = FAMILY.reader(request(permission_mode=mode) if snapshot is None else None, snapshot)
        assert isinstance(reader, CodexReader)
        return reader

    return make


@given(
    data=_stream,
    picks=st.lists(st.tuples(st.integers(0, 100_000), st.booleans(), st.booleans())),
    mode=st.sampled_from(["allow", "ask", "deny"]),
)
@settings(deadline=None, max_examples=60)
def test_dying_and_being_restored_changes_nothing(
    data: bytes, picks: list[tuple[int, bool, bool]], mode: str
) -> None:
    make = make_for(mode)
    events, reader, writes = read_whole(make, data)
    cuts = [(offset % (len(data) + 1), flush, die) for offset, flush, die in picks]
    again, other, other_writes = read_with_deaths(make, data, cuts)

    assert again == events
    assert other_writes == writes
    assert other.snapshot() == reader.snapshot()
    numbers = [write.number for write in writes]
    assert numbers == list(range(2, 2 + len(numbers)))


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_damaged_recordings_never_make_it_raise(seed: int) -> None:
    # Seeded, not drawn: these are long and hypothesis gains nothing from shrinking each byte.
    chance = random.Random(seed)
    lines = RECORDINGS[chance.choice(sorted(RECORDINGS))].read_bytes().splitlines(keepends=True)
    chance.shuffle(lines) if chance.random() < 0.3 else None
    data = bytearray(b"".join(lines))
    for _ in range(chance.randrange(1, 40)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 200)]
            case 2:
                data[at:at] = chance.choice(
                    [b"\n", b'"', b"null", b"\x00", b"{}", b"[[[[", b"\\ud800", b"1e999"]
                )
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 400)]
        if len(data) < 2:
            break
    make = make_for(chance.choice(["allow", "ask", "deny"]))
    events, reader, writes = read_whole(make, bytes(data))
    cuts = [(chance.randrange(len(data) + 1), False, True) for _ in range(3)]
    assert read_with_deaths(make, bytes(data), cuts)[0] == events
    assert read_with_deaths(make, bytes(data), cuts)[2] == writes
    reader.outcome(0, None, "")


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda children: (
            st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
        ),
        max_leaves=8,
    ),
    method=st.sampled_from(
        [
            "item/started",
            "item/completed",
            "turn/completed",
            "turn/plan/updated",
            "thread/tokenUsage/updated",
            "account/rateLimits/updated",
            "error",
            "warning",
            "serverRequest/resolved",
            "model/rerouted",
            "item/commandExecution/requestApproval",
            "item/fileChange/requestApproval",
            "applyPatchApproval",
            "item/permissions/requestApproval",
            "mcpServer/elicitation/request",
            "item/tool/requestUserInput",
        ]
    ),
    name=st.sampled_from(
        [
            "item",
            "turn",
            "plan",
            "tokenUsage",
            "rateLimits",
            "error",
            "message",
            "requestId",
            "toModel",
            "command",
            "permissions",
            "requestedSchema",
            "questions",
            "fileChanges",
            "itemId",
            "reason",
            "serverName",
        ]
    ),
)
@settings(deadline=None, max_examples=300)
def test_any_value_anywhere_never_makes_it_raise(value: Any, method: str, name: str) -> None:
    wrapped = [value, {"type": value, "id": "x"}, {"type": "fileChange", "changes": [value], "id": value}]
    data = begun()
    for number, each in enumerate(
        [*wrapped, {"properties": {"a": value}}, [{"id": "q", "options": [value]}]]
    ):
        params = {"threadId": THREAD, "turnId": TURN, name: each}
        data += json.dumps({"method": method, "params": params}).encode() + b"\n"
        data += json.dumps({"method": method, "id": number, "params": params}).encode() + b"\n"
    reader, _ = read(data, permission_mode="ask")
    restored = CodexReader.restored(reader.snapshot())
    for each in restored.open_requests:
        restored.answer(each.request_id, "allow", "3")
    restored.finish()
    restored.outcome(0, None, "")
    assert all(isinstance(write, StdinWrite) for write in restored.pending_writes())
