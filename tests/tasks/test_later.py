"""What later servers tell of a task, in words; of earlier ones nothing is said."""

from __future__ import annotations

from typing import Any

import pytest

from daemon_core.protocol.wire import Agent, Task
from daemon_core.tasks import later
from daemon_core.tasks.briefs import Surroundings, brief_of
from daemon_core.tasks.prompts import prompt_of

SERVER = Surroundings(work_dir="/w", user_owned=False, hub=False)
KINDS: dict[str, dict[str, Any]] = {
    "direct": {"issue_id": "i1"},
    "comment": {"issue_id": "i1", "trigger_comment_id": "c1", "trigger_comment_content": "Look."},
    "chat": {"chat_session_id": "s1", "chat_message": "Hello."},
    "quick_create": {"quick_create_prompt": "Make it."},
}
STATUSES = [
    {
        "key": "waiting_for_parts",
        "name": "Waiting `x`",
        "category": "blocked",
        "description": "Not\nhere",
    },
    {"key": "todo", "name": "Todo", "category": "todo"},
    {"key": "later", "name": "Later", "category": "later"},
]


def task(kind: str = "direct", **more: Any) -> Task:
    return Task(**{"id": "t1", "agent": Agent(id="a", name="Bo"), **KINDS[kind], **more})


@pytest.mark.parametrize("kind", KINDS)
def test_an_earlier_server_changes_nothing(kind: str) -> None:
    plain = task(kind)
    for words in (later.statuses, later.siblings, later.lost_session, later.surface, later.introduction):
        assert words(plain) == ""
    assert later.without_skills(plain) == ""
    assert "## Statuses" not in brief_of(plain, SERVER)
    assert "Skills" not in brief_of(plain, SERVER)


def test_the_statuses_of_a_workspace_are_named_by_their_keys() -> None:
    brief = brief_of(task(issue_statuses=STATUSES, issue_statuses_omitted=3), SERVER)
    assert "- `waiting_for_parts`: Waiting x (counts as blocked). Not here" in brief
    assert "- `later`: Later\n" in brief
    assert "`todo`:" not in brief, "everybody knows those"
    assert "- and 3 more, which are not listed here" in brief
    assert "Statuses" not in brief_of(task("quick_create", issue_statuses=STATUSES), SERVER)
    many = [{"key": f"k{number}"} for number in range(60)]
    told = later.statuses(task(issue_statuses=many, issue_statuses_omitted=2))
    assert told.count("\n- `k") == 50
    assert told.endswith("- and 12 more, which are not listed here")


@pytest.mark.parametrize("kind", ["direct", "comment"])
def test_other_runs_of_the_agent_are_told_of(kind: str) -> None:
    runs = [
        {"task_id": "t2", "issue_id": "i2", "issue_identifier": "LOC-2", "issue_title": "The\ndoor",
         "started_at": "2026-01-01T00:00:00Z"},
        {"task_id": "t1", "issue_id": "i1", "issue_identifier": "LOC-1"},
        {"task_id": "t3", "issue_id": "i3"},
    ]  # fmt: skip
    prompt = prompt_of(task(kind, active_sibling_runs=runs), "claude", hub=False)
    assert "- LOC-2 (The door), since 2026-01-01T00:00:00Z\n- i3" in prompt
    assert "LOC-1" not in prompt
    assert "i3" not in prompt_of(task("chat", active_sibling_runs=runs), "claude", hub=False)


@pytest.mark.parametrize(
    ("kind", "where"),
    [("direct", "comments"), ("comment", "comments"), ("chat", "`ostler chat history`")],
)
def test_a_session_that_cannot_be_gone_on_with_is_said(kind: str, where: str) -> None:
    prompt = prompt_of(task(kind, prior_session_resume_unavailable=True), "claude", hub=False)
    assert "you remember nothing of it" in prompt
    assert where in prompt
    assert "not seen this issue yet" not in prompt
    resumed = task(kind, prior_session_resume_unavailable=True, prior_session_id="s")
    assert "remember nothing" not in prompt_of(resumed, "claude", hub=False)


def test_a_channel_says_who_reads_it_and_whether_files_arrive() -> None:
    def told(**more: Any) -> str:
        return prompt_of(task("chat", chat_channel_type="slack", **more), "claude", hub=False)

    assert "Several people read it" in told(chat_type="group")
    assert "One person alone" in told(chat_type="p2p")
    assert "arrives as text" in told()
    assert "`ostler attachment upload FILE`" in told(chat_channel_delivers_files=True)
    assert "arrives as text" not in told(chat_channel_delivers_files=True)
    assert "arrives as text" not in prompt_of(task("chat"), "claude", hub=False)


def test_a_chat_that_nobody_has_begun_is_begun() -> None:
    prompt = prompt_of(task("chat", chat_intro=True, chat_message=None), "claude", hub=False)
    assert "Nobody has written yet" in prompt
    assert "The message:" not in prompt
    assert "Nobody has written" not in prompt_of(task("chat", chat_intro=True), "claude", hub=False)


def test_skills_that_are_not_wanted_are_named() -> None:
    off = [
        {"provider": "codex", "root": "provider", "key": "deploy"},
        {"key": "deploy"},
        {"name": "Other"},
        1,
    ]
    unwanted = task(agent=Agent(id="a", disabled_runtime_skills=off))
    assert later.unwanted_skills(unwanted, "codex") == ["deploy", "Other"]
    off_elsewhere = task(agent=Agent(id="a", disabled_runtime_skills=off[:1]))
    assert later.unwanted_skills(off_elsewhere, "claude") == []
    assert "not for you, whoever names them: deploy, Other." in brief_of(unwanted, SERVER)
