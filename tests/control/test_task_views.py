"""Tasks as they are shown: what the hub and the journal know, put together."""

from __future__ import annotations

import msgspec
import pytest

from daemon_core.control import task_views
from daemon_core.hub import HubTask
from daemon_core.journal import RunRecord, TaskRecord
from daemon_core.protocol.wire import Usage


def record(**changes: object) -> TaskRecord:
    made = TaskRecord(
        key="hub/t", connection="hub", task_id="t", runtime_id="r", workspace_id="w", provider="claude"
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def task(**changes: object) -> HubTask:
    made = HubTask(
        id="t",
        conversation_id="c",
        title="Title",
        status="running",
        provider="claude",
        agent="claude",
        prompt="do",
        created_at="2026-01-01T00:00:00Z",
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("state", "outcome", "shown"),
    [
        ("claimed", "", "dispatched"),
        ("waiting_directory", "", "waiting_local_directory"),
        ("ready", "", "dispatched"),
        ("started", "", "running"),
        ("ended", "completed", "completed"),
        ("ended", "failed", "failed"),
        ("ended", "abandoned", "cancelled"),
    ],
)
def test_a_journal_state_in_the_words_of_the_protocol(state: str, outcome: str, shown: str) -> None:
    assert task_views.status_of(record(state=state, outcome=outcome)) == shown


def test_a_result_that_the_server_did_not_take_is_shown_from_here() -> None:
    kept = record(
        output="done here",
        session_id="s",
        work_dir="/w",
        next_seq=8,
        usage=msgspec.json.encode([Usage(model="m", input_tokens=3)]),
    )
    view = task_views.view(task(status="cancelled"), kept, [], None)
    assert (view.result, view.session_id, view.work_dir, view.messages) == ("done here", "s", "/w", 7)
    assert view.usage[0].input_tokens == 3


def test_the_servers_word_goes_before_ours() -> None:
    view = task_views.view(task(status="completed", result="theirs"), record(output="ours"), [], None)
    assert view.result == "theirs"


def test_a_last_action_is_cut_to_a_line() -> None:
    assert len(task_views.row(task(), "x" * 1000).last_action) == task_views.ACTION_CHARS
    assert len(task_views.row_of_record(record(), "x" * 1000).last_action) == task_views.ACTION_CHARS


def test_a_run_that_was_recorded_and_followed_by_another_never_started() -> None:
    run = RunRecord(run_id="r", task_key="hub/t", state="created")
    assert task_views.run_view(run, current=False).status == "never_started"
    assert task_views.run_view(run, current=True).status == "starting"
