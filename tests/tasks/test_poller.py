"""When a runtime polls for the first time."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from daemon_core.tasks.poller import first_delay_s


def test_the_worked_value_of_the_protocol() -> None:
    assert round(first_delay_s("00000000-0000-0000-0000-000000000001", 30.0) * 1e9) == 4_096_290_878


@given(runtime_id=st.uuids(), poll_s=st.floats(0.001, 600))
def test_it_is_within_the_interval(runtime_id: uuid.UUID, poll_s: float) -> None:
    assert 0 <= first_delay_s(str(runtime_id), poll_s) <= poll_s
