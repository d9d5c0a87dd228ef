"""JSON-RPC over lines as the readers use it: what is asked, answered, told and not understood."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.agents.events import Unreadable
from daemon_core.agents.lines import OverlongLine
from daemon_core.agents.rpc import (
    METHOD_NOT_FOUND,
    OUTSTANDING_LIMIT,
    Notification,
    Outstanding,
    Request,
    Response,
    Rpc,
    RpcError,
    RpcState,
)
from daemon_core.agents.writes import Writes


def heard(rpc: Rpc, *lines: Any) -> list[Any]:
    raw = [line if isinstance(line, bytes | OverlongLine) else json.dumps(line).encode() for line in lines]
    return list(rpc.incoming(raw))


def said(writes: Writes) -> list[Any]:
    return [json.loads(write.data) for write in writes.pending() if write.data is not None]


def test_a_request_is_numbered_and_its_answer_knows_what_was_asked() -> None:
    writes = Writes()
    rpc = Rpc(writes)
    assert rpc.request("session/new", {"cwd": "/w"}, "first") == 1
    assert rpc.request("session/prompt") == 2
    assert said(writes) == [
        {"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {"cwd": "/w"}},
        {"jsonrpc": "2.0", "id": 2, "method": "session/prompt"},
    ]
    assert rpc.outstanding("session/prompt")
    assert heard(rpc, {"jsonrpc": "2.0", "id": 1, "result": {"sessionId": "s"}}) == [
        Response(1, Outstanding("session/new", "first"), {"sessionId": "s"})
    ]
    error = {"code": -32602, "message": "no", "data": {"details": "because"}}
    (refused,) = heard(rpc, {"id": "2", "error": error})
    assert refused.error == RpcError(-32602, "no", {"details": "because"})
    assert refused.error.text == "no: because"
    assert not rpc.outstanding()


def test_without_the_version_nothing_says_it() -> None:
    writes = Writes()
    rpc = Rpc(writes, versioned=False)
    rpc.notify("initialized")
    rpc.respond(3, {"decision": "accept"})
    rpc.refuse_unknown(Request("x", "what/ever", {}))
    assert said(writes) == [
        {"method": "initialized"},
        {"id": 3, "result": {"decision": "accept"}},
        {"id": "x", "error": {"code": METHOD_NOT_FOUND, "message": "Method not found: what/ever"}},
    ]


def test_what_the_other_side_tells_and_asks() -> None:
    rpc = Rpc(Writes())
    assert heard(
        rpc,
        {"jsonrpc": "2.0", "method": "session/update", "params": {"a": 1}},
        {"method": "told", "params": [1]},
        {"method": "asked", "id": 0},
        {"method": "asked", "id": "x", "params": {"b": 2}},
        b"  ",
    ) == [
        Notification("session/update", {"a": 1}),
        Notification("told", {}),
        Request(0, "asked", {}),
        Request("x", "asked", {"b": 2}),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"id":1}',
        b'{"method":3,"id":1}',
        b'{"method":"x","id":1.5}',
        b'{"method":"x","id":99999999999999999999999}',
        b'{"method":"x","id":true}',
        b'{"id":null,"error":{"code":-32700,"message":"parse error"}}',
        OverlongLine(b"{"),
    ],
)
def test_what_is_no_message_is_kept_as_it_came(raw: bytes | OverlongLine) -> None:
    (found,) = heard(Rpc(Writes()), raw)
    assert isinstance(found, Unreadable)
    assert found.raw == (raw.head if isinstance(raw, OverlongLine) else raw).decode()


def test_an_answer_to_what_was_not_asked_is_passed_over() -> None:
    rpc = Rpc(Writes())
    rpc.request("a")
    assert heard(rpc, {"id": 7, "result": 1}, {"id": "seven", "result": 1}, {"id": True, "result": 1}) == []
    assert len(heard(rpc, {"id": 1, "result": None}, {"id": 1, "result": None})) == 1


@pytest.mark.parametrize("error", [{}, "gone", {"code": "x", "message": 3}, {"code": True}, [1]])
def test_an_error_of_any_form_is_one(error: Any) -> None:
    rpc = Rpc(Writes())
    rpc.request("a")
    (found,) = heard(rpc, {"id": 1, "error": error})
    assert found.error is not None
    assert found.error.text


def test_nothing_is_asked_once_the_input_is_closed() -> None:
    writes = Writes()
    rpc = Rpc(writes)
    writes.close()
    assert rpc.request("a") == 0
    assert not rpc.outstanding()


def test_state_is_kept_small_and_restored() -> None:
    rpc = Rpc(Writes())
    for _ in range(OUTSTANDING_LIMIT + 10):
        rpc.request("a", context="c")
    state = msgspec.json.decode(msgspec.json.encode(rpc.state()), type=RpcState)
    assert len(state.outstanding) == OUTSTANDING_LIMIT
    restored = Rpc(Writes(), state)
    assert restored.request("b") == OUTSTANDING_LIMIT + 11
    assert heard(restored, {"id": 1, "result": 1}) == []  # the oldest are forgotten first
    assert len(heard(restored, {"id": OUTSTANDING_LIMIT, "result": 1})) == 1


def test_half_a_character_and_a_nul_are_mended() -> None:
    rpc = Rpc(Writes())
    raw = b'{"method":"m","params":{"t":"a\\ud800b","n":"x\\u0000y","e":"\\\\u0000","r":"\xff"}}'
    assert heard(rpc, raw) == [
        Notification("m", {"t": "a\ufffd\ufffd\ufffdb", "n": "x\u2400y", "e": "\\u0000", "r": "\ufffd"})
    ]
    writes = Writes()
    Rpc(writes).notify("m", {"t": "a\ud800b"})
    assert said(writes)[0]["params"] == {"t": "a\ufffd\ufffd\ufffdb"}


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b'{"id":1,"result":1}', b'{"method":"a","id":"b"}']))
)
def test_no_input_makes_it_raise(lines: list[bytes]) -> None:
    rpc = Rpc(Writes())
    rpc.request("a")
    for found in rpc.incoming(lines):
        assert isinstance(found, Response | Notification | Request | Unreadable)
