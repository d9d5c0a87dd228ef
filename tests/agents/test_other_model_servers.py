"""The scripted model servers for chat completions and for Gemini, where the real CLIs do not show them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support import model_chat, model_gemini
from tests.support.model_chat import ChatServer
from tests.support.model_gemini import GeminiServer
from tests.support.model_server import Break, CallTool, Fail, Hang, ModelServer, Say, Step, Think

CHAT_TOOLS = [{"type": "function", "function": {"name": "bash"}}]
GEMINI_TOOLS = [{"functionDeclarations": [{"name": "shell"}]}]


def post(url: str, **body: Any) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=20) as answer:
        return bytes(answer.read())


def chat(url: str, **body: Any) -> bytes:
    asked = {"model": "m", "messages": [{"role": "user", "content": "do"}], "tools": CHAT_TOOLS}
    return post(f"{url}/v1/chat/completions", **(asked | body))


def gemini(url: str, verb: str = "streamGenerateContent", **body: Any) -> bytes:
    asked = {"contents": [{"role": "user", "parts": [{"text": "do"}]}], "tools": GEMINI_TOOLS}
    return post(f"{url}/v1beta/models/m:{verb}?alt=sse", **(asked | body))


def chunks(answer: bytes) -> list[Any]:
    return [
        json.loads(line.removeprefix("data: "))
        for line in answer.decode().splitlines()
        if line.startswith("data: {")
    ]


STEPS: list[Step] = [Think("hm", "one"), Say("two words", pieces=3), Say("end")]


def test_chat_completions_take_a_step_each_and_are_streamed_or_whole() -> None:
    with ChatServer() as server:
        url = server.scenario("s", [CallTool("bash", {"command": "ls"}, text="I look."), *STEPS])
        whole = json.loads(chat(url))
        (call,) = whole["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"command": "ls"}
        assert whole["choices"][0]["finish_reason"] == "tool_calls"
        deltas = [
            chunk["choices"][0]["delta"] for chunk in chunks(chat(url, stream=True)) if chunk["choices"]
        ]
        assert {"reasoning_content": "hm"} in deltas
        assert json.loads(chat(url, tools=[]))["choices"][0]["message"]["content"] == "ok"
        streamed = chunks(chat(url, stream=True))
        texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in streamed if chunk["choices"]]
        assert "".join(texts) == "two words"
        assert len([text for text in texts if text]) == 3
        assert streamed[-1]["usage"] == model_chat.USAGE
        assert (len(server.requests("s")), len(server.side_requests("s"))) == (3, 1)
        history = [
            *(
                {"role": "system", "content": "be"},
                {"role": "user", "content": [{"type": "text", "text": "do"}]},
            ),
            *({"role": "assistant", "content": None}, {"role": "tool", "content": "made"}),
        ]
        body = {"messages": history}
        assert (model_chat.user_texts(body), model_chat.system_texts(body)) == (["do"], ["be"])
        assert model_chat.tool_results(body) == ["made"]
        assert server.answers_since_prompt(body) == 1


def test_gemini_takes_a_step_each_and_streams_it() -> None:
    with GeminiServer() as server:
        url = server.scenario("s", [CallTool("shell", {"command": "ls"}), *STEPS])
        first = chunks(gemini(url))
        parts = [part for chunk in first for part in chunk["candidates"][0]["content"]["parts"]]
        assert {"functionCall": {"name": "shell", "args": {"command": "ls"}}} in parts
        assert first[-1]["usageMetadata"] == model_gemini.USAGE
        parts = [part for chunk in chunks(gemini(url)) for part in chunk["candidates"][0]["content"]["parts"]]
        assert {"text": "hm", "thought": True} in parts
        classified = json.loads(gemini(url, "generateContent", tools=[]))
        assert "complexity_score" in classified["candidates"][0]["content"]["parts"][0]["text"]
        assert json.loads(gemini(url, "generateContent"))["candidates"][0]["finishReason"] == "STOP"
        assert json.loads(gemini(url, "countTokens")) == {"totalTokens": 10}
        assert server.requests("s")[0]["model"] == "m"
        answer = {
            "role": "user",
            "parts": [{"functionResponse": {"name": "shell", "response": {"output": "x"}}}],
        }
        model = {"role": "model", "parts": []}
        body = {"contents": [{"role": "user", "parts": [{"text": "do"}]}, model, answer, model]}
        assert server.answers_since_prompt(body) == 2
        assert model_gemini.user_texts(body) == ["do"]
        assert model_gemini.tool_results(body) == [{"output": "x"}]


@pytest.mark.parametrize(("server", "ask"), [(ChatServer(), chat), (GeminiServer(), gemini)])
def test_failures_gates_and_broken_streams(server: ModelServer, ask: Any) -> None:
    with server:
        gate = server.gate()
        url = server.scenario(
            "s", [Fail(429, retry_after="7", times=1), Break("cut o"), Say("late", gate=gate)]
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(url)
        assert (refused.value.code, refused.value.headers["retry-after"]) == (429, "7")
        assert json.loads(refused.value.read())["error"]["message"] == "scripted failure"
        refused.value.close()
        assert b"cut o" in ask(url, stream=True)
        answers: list[bytes] = []
        asker = threading.Thread(target=lambda: answers.append(ask(url, stream=True)))
        asker.start()
        gate.wait_reached()
        assert answers == []
        gate.release()
        asker.join()
        assert b"late" in answers[0]
        with pytest.raises(urllib.error.HTTPError) as missing:
            post(f"{url}/v1/elsewhere")
        missing.value.close()
        server.scenario("s", [Hang("I hang.")])
        asker = threading.Thread(target=lambda: answers.append(ask(url, stream=True)))
        asker.start()
        server.wait_requests("s", 1)
        server.close()  # lets go of what hangs
        asker.join()
        assert b"I hang." in answers[1]
