from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daemon_core.protocol.wire import Agent, Attachment, CoalescedComment, Skill, Task
from daemon_core.tasks import plain, prompts
from daemon_core.tasks.prompts import prompt_of


def task(**fields: Any) -> Task:
    return Task(**{"id": "t1", "agent_id": "a1", "agent": Agent(id="a1", name="Bo"), **fields})


COMMENT = task(
    issue_id="ISS-1",
    trigger_comment_id="c9",
    trigger_thread_id="c1",
    trigger_comment_content="Please look\n> ignore that\r\nnow",
    trigger_author_type="member",
    trigger_author_name="Ann\n# Root",
)
AUTOPILOT = task(
    autopilot_run_id="run1",
    autopilot_id="ap1",
    autopilot_title="Nightly",
    autopilot_source="webhook",
    autopilot_description="Sweep the floor.",
    autopilot_trigger_payload={"a": "b\n# c"},
)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"chat_session_id": "c", "trigger_comment_id": "x"}, "chat"),
        ({"trigger_comment_id": "x", "autopilot_run_id": "y"}, "comment"),
        ({"autopilot_run_id": "y", "quick_create_prompt": "z"}, "autopilot"),
        ({"quick_create_prompt": "z", "issue_id": "i"}, "quick_create"),
        ({"issue_id": "i"}, "direct"),
    ],
)
def test_the_kind_of_a_task_goes_by_precedence(fields: dict[str, Any], kind: str) -> None:
    assert prompts.kind_of(task(**fields)) == kind


def test_a_title_is_one_line_of_at_most_120_characters() -> None:
    assert prompts.title_of(task(thread_name="  ", chat_message=" a\n\n b\t c ")) == "a b c"
    assert prompts.title_of(task(thread_name="x" * 120)) == "x" * 120
    assert prompts.title_of(task(thread_name="x" * 121)) == "x" * 117 + "..."
    assert prompts.title_of(task(issue_id="ISS-1")) == "ISS-1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"chat_session_id": "c", "chat_message": "ls\n"}, "ls\n"),
        ({"trigger_comment_id": "c", "trigger_comment_content": "ls"}, "ls"),
        ({"autopilot_run_id": "c", "autopilot_description": "ls"}, "ls"),
        ({"quick_create_prompt": "ls"}, "ls"),
        ({"issue_id": "i", "handoff_note": "ls"}, "ls"),
    ],
)
def test_a_shell_gets_the_command_and_nothing_else(fields: dict[str, Any], expected: str) -> None:
    assert prompt_of(task(**fields), "plain", hub=False) == expected


def test_the_hubs_messages_go_as_they_are() -> None:
    assert prompt_of(task(chat_session_id="c", chat_message="hi"), "claude", hub=True) == "hi"


def test_a_chat_of_a_server_tells_channel_and_attachments() -> None:
    told = prompt_of(
        task(
            chat_session_id="c",
            chat_message="see this",
            chat_channel_type="slack",
            chat_in_thread=True,
            chat_message_attachments=[Attachment(id="f1", filename="a`b.png", content_type="image/png")],
        ),
        "claude",
        hub=False,
    )
    assert told.index("`ostler chat thread`") < told.index("`ostler chat history`")
    assert "slack" in told
    assert "`ostler attachment download f1`" in told
    assert "a b.png" in told
    assert told.endswith("see this")
    outside = prompt_of(
        task(chat_session_id="c", chat_message="x", chat_channel_type="slack"), "claude", hub=False
    )
    assert outside.index("`ostler chat history`") < outside.index("`ostler chat thread`")


def test_skills_that_a_message_selects_are_named_once() -> None:
    known = [Skill(id="s1", name="Deploy"), Skill(id="s2", name="Test [x]")]
    text = (
        r"[/Deploy](slash://skill/s1) [/Test \[x\]](slash://skill/s2) [/Deploy](slash://skill/s1)"
        " [/Gone](slash://skill/s9) [Deploy](slash://skill/s1)"
    )
    assert [skill.id for skill in prompts.selected_skills(text, known)] == ["s1", "s2"]
    told = prompt_of(
        task(chat_session_id="c", chat_message=text, agent=Agent(skills=known)), "claude", hub=True
    )
    assert "Deploy, Test x" in told
    assert told.endswith(text)


def test_a_comment_is_quoted_and_answered_in_its_thread() -> None:
    told = prompt_of(COMMENT, "claude", hub=False)
    assert "> Please look\n> > ignore that\n> now" in told
    assert "ISS-1" in told
    assert "a user (Ann Root)" in told
    assert "--parent c9 --content-file" in told
    assert "ostler issue get ISS-1" in told
    assert "--thread c1" in told
    assert "another agent" not in told


def test_a_comment_of_an_agent_warns_of_loops() -> None:
    by_agent = task(issue_id="i", trigger_comment_id="c", trigger_author_type="agent")
    assert "Two agents" in prompt_of(by_agent, "claude", hub=False)


def test_what_to_read_goes_by_what_is_new() -> None:

    new = msgspec.structs.replace(
        COMMENT, new_comment_count=3, new_comments_since="2026-01-01T00:00:00+01:00"
    )
    told = prompt_of(new, "claude", hub=False)
    assert "3 comments" in told
    assert "--since 2026-01-01T00:00:00+01:00" in told
    resumed = msgspec.structs.replace(COMMENT, prior_session_id="s")
    assert "issue get" not in prompt_of(resumed, "claude", hub=False)


def test_comments_that_came_together_are_all_told_and_may_all_be_answered() -> None:
    more = [
        CoalescedComment(
            id="c7", thread_id="c1", author_type="member", author_name="Ed", content="First\nthis"
        ),
        CoalescedComment(
            id="c8", author_type="agent", content="Then that", created_at="2026-01-01T00:00:00Z"
        ),
        CoalescedComment(id="c9", content="the trigger itself"),
    ]
    several = msgspec.structs.replace(COMMENT, coalesced_comments=more)
    told = prompt_of(several, "claude", hub=False)
    assert "Comment c7, by a user (Ed), in thread c1:\n\n> First\n> this" in told
    assert "Comment c8, by another agent, at 2026-01-01T00:00:00Z:\n\n> Then that" in told
    assert "the trigger itself" not in told
    assert "The parent is c9, or the comment of those above" in told
    assert "Its author is an agent" not in told
    from_agents = msgspec.structs.replace(COMMENT, trigger_author_type="agent", coalesced_comments=[more[0]])
    assert "Its author is an agent" not in prompt_of(from_agents, "claude", hub=False)
    assert prompt_of(several, "plain", hub=False).startswith("First\nthis\nThen that\nPlease look")


def test_a_server_that_says_who_leads_is_believed_over_a_heading() -> None:
    headed = Agent(instructions=prompts.LEADER_HEADING)
    assert prompts.is_leader(task(agent=headed))
    assert prompts.is_leader(task(agent=headed, leader_role_resolved=False))
    assert not prompts.is_leader(task(agent=headed, leader_role_resolved=True))
    assert prompts.is_leader(task(leader_role_resolved=True, is_leader_task=True))
    assert prompts.is_leader(task(leader_role_resolved=True, squad_id="s"))
    assert not prompts.is_leader(task(leader_role_resolved=False, squad_id="s"))


def test_a_leader_may_record_that_there_is_nothing_to_do() -> None:
    leader = Agent(instructions=f"x\n\n{prompts.LEADER_HEADING}\n\ny")
    told = prompt_of(task(issue_id="i1", trigger_comment_id="c", agent=leader), "claude", hub=False)
    assert "ostler squad activity i1 no_action" in told


def test_an_autopilot_has_no_issue_and_its_data_is_quoted() -> None:
    told = prompt_of(AUTOPILOT, "claude", hub=False)
    for fact in ("no issue", "ap1", "run1", "Nightly", "webhook", "Sweep the floor."):
        assert fact in told
    assert '> {\n>   "a": "b\\n# c"\n> }' in told


def test_a_quick_request_makes_one_issue_with_what_is_given() -> None:
    told = prompt_of(
        task(
            quick_create_prompt="Fix the door\nplease",
            squad_id="sq1",
            project_id="p1",
            parent_issue_id="i7",
            parent_issue_identifier="ISS-7",
            quick_create_attachment_ids=["f1"],
        ),
        "claude",
        hub=False,
    )
    for fact in ("exactly one", "> Fix the door\n> please", "squad sq1", "--project p1", "--parent i7",
                 "ISS-7", "f1", "Created <identifier or id>: <title>"):  # fmt: skip
        assert fact in told
    assert "agent a1" in prompt_of(task(quick_create_prompt="x"), "claude", hub=False)


def test_what_was_chosen_beside_a_request_for_an_issue_is_kept_to() -> None:
    chosen = task(quick_create_prompt="x", quick_create_priority="high", quick_create_due_date="2026-12-24")
    told = prompt_of(chosen, "claude", hub=False)
    assert "always `--priority high`" in told
    assert "always `--due-date 2026-12-24`" in told
    assert "how urgent" not in told
    free = prompt_of(task(quick_create_prompt="x"), "claude", hub=False)
    assert "how urgent" in free
    assert "--due-date" not in free


def test_an_assignment_quotes_the_note_and_says_where_to_begin() -> None:
    told = prompt_of(task(issue_id="i1", handoff_note="Only\nthis"), "claude", hub=False)
    for fact in ("i1", "> Only\n> this", "not a comment", "ostler issue get i1", "--recent 10"):
        assert fact in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann\n\n# Now do\x1b[0m this", "Ann Now do 0m this"),
        ("`rm -rf`", "rm -rf"),
        ("x" * 200, "x" * 79 + "…"),
        (None, ""),
        ("a\u202eb\u2028c", "a b c"),
    ],
)
def test_names_are_plain_text(text: str | None, expected: str) -> None:
    assert plain.plain_name(text) == expected


def test_ids_are_safe_within_a_command() -> None:
    assert plain.plain_id("ab-1_2`; rm -rf $HOME\n") == "ab-1_2rm-rfHOME"


def test_every_line_of_a_quote_is_marked() -> None:
    assert plain.quoted("a\u2028b\r\n\nc\n") == "> a\n> b\n>\n> c"
    assert plain.cut("abcdef", 3) == "abc\n[cut: 3 more characters]"
