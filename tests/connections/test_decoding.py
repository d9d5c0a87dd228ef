"""What servers may leave out, send as null, or add."""

from __future__ import annotations

import msgspec
import pytest

from daemon_core.connections.decoding import decode
from daemon_core.protocol import wire


def test_null_stands_for_absent_where_the_type_has_no_null() -> None:
    task = decode(
        b'{"task":{"id":"t","status":null,"attempt":null,"agent":{"name":null,"skills":[{"id":"s","hash":null}]}}}',
        wire.ClaimResponse,
    ).task
    assert task is not None
    assert (task.status, task.attempt) == ("", 1)
    assert task.agent is not None
    assert task.agent.skills is not None
    assert task.agent.skills[0].hash == ""


def test_null_inside_free_content_stays() -> None:
    task = decode(b'{"id":"t","status":null,"agent":{"mcp_config":{"a":null,"b":[null]}}}', wire.Task)
    assert task.agent is not None
    assert task.agent.mcp_config == {"a": None, "b": [None]}


def test_unknown_fields_pass() -> None:
    assert decode(b'{"id":"t","new":{"x":[1]}}', wire.Task).id == "t"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b'{"id":5}', b'{"id":null}', b'{"id":"\xff"}', b"[" * 5000 + b"]" * 5000]
)
def test_what_does_not_fit_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data, wire.Task)
