"""The scripted model server itself, where the real CLI does not show it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.model_server import Break, CallTool, Fail, Hang, ModelServer, Say, Step, Think

TOOLS = [{"name": "Bash"}]
ASKED = {"role": "user", "content": "do it"}


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def ask(url: str, **body: Any) -> bytes:
    data = json.dumps({"model": "m", "messages": [ASKED], "tools": TOOLS, **body}).encode()
    request = urllib.request.Request(url + "/v1/messages?beta=true", data)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def ask_text(url: str, **body: Any) -> str:
    return "".join(part.get("text", "") for part in json.loads(ask(url, **body))["content"])


def test_each_main_request_takes_a_step_and_side_requests_none(model: ModelServer) -> None:
    url = model.scenario("s", [Say("one"), CallTool("Bash", {"command": "ls"}), Think("hm", "three")])

    assert ask_text(url) == "one"
    assert ask_text(url, tools=[]) == "ok"
    called = json.loads(ask(url))
    assert called["stop_reason"] == "tool_use"
    assert called["content"][0]["input"] == {"command": "ls"}
    assert ask_text(url) == "three"
    assert ask_text(url) == "Done."
    assert (len(model.requests("s")), len(model.side_requests("s"))) == (4, 1)


def test_a_tool_that_is_not_offered_is_not_called(model: ModelServer) -> None:
    url = model.scenario("s", [CallTool("Bash", {})])

    assert "not offered" in ask_text(url, tools=[{"name": "Read"}])


def test_steps_can_be_counted_from_each_prompt(model: ModelServer) -> None:
    steps: list[Step] = [CallTool("Bash", {}), Say("end")]
    url = model.scenario("s", steps, each_turn=True)
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}

    assert json.loads(ask(url))["stop_reason"] == "tool_use"
    assert ask_text(url, messages=[ASKED, call, result]) == "end"
    again = [ASKED, call, result, {"role": "assistant", "content": "end"}, ASKED]
    assert json.loads(ask(url, messages=again))["stop_reason"] == "tool_use"


def test_failures_end_when_told(model: ModelServer) -> None:
    url = model.scenario("s", [Fail(500, times=2), Say("then")])
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(url)
        assert caught.value.code == 500
        caught.value.close()
    assert ask_text(url) == "then"


def test_a_stream_has_the_events_of_the_real_one(model: ModelServer) -> None:
    url = model.scenario("s", [Say("abcdef", pieces=3), Break("cut")])
    kinds = [line[7:] for line in ask(url, stream=True).decode().splitlines() if line.startswith("event: ")]

    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert b"message_stop" not in ask(url, stream=True)


def test_a_gate_holds_an_answer(model: ModelServer) -> None:
    gate = model.gate()
    url = model.scenario("s", [Say("late", gate=gate)])
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(ask_text(url)))
    asking.start()
    gate.wait_reached()
    assert answers == []
    gate.release()
    asking.join(20)
    assert answers == ["late"]


def test_closing_ends_what_hangs() -> None:
    model = ModelServer().start()
    url = model.scenario("s", [Hang("begun")])
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(ask(url, stream=True)))
    asking.start()
    model.wait_requests("s", 1)
    model.close()
    asking.join(20)

    assert b"begun" in answers[0]


def test_the_small_routes_are_answered(model: ModelServer) -> None:
    url = model.url("s")
    counted = urllib.request.Request(url + "/v1/messages/count_tokens", b"{}")
    with urllib.request.urlopen(counted, timeout=20) as answer:
        assert json.load(answer) == {"input_tokens": 10}
    with urllib.request.urlopen(url + "/v1/models", timeout=20) as answer:
        assert json.load(answer)["data"]
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
        assert answer.status == 200
