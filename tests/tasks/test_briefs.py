from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.protocol.wire import Agent, ProjectResource, Repo, Skill, Task
from daemon_core.tasks import prompts
from daemon_core.tasks.briefs import JobLine, Surroundings, brief_of
from daemon_core.tasks.preparing import context_of, wanted_of
from daemon_core.workdirs.skills import PlacedSkill
from tests.support.layouts import layout_of

KINDS: dict[str, dict[str, Any]] = {
    "chat": {"chat_session_id": "chat1", "chat_message": "hi"},
    "comment": {"issue_id": "ISS-1", "trigger_comment_id": "c1"},
    "autopilot": {"autopilot_run_id": "r1", "autopilot_id": "ap1", "autopilot_title": "Nightly"},
    "quick_create": {"quick_create_prompt": "make it"},
    "direct": {"issue_id": "ISS-1"},
}
SKILLS = [PlacedSkill(id="s", name="Deploy", description="How to", directory=".claude/skills/deploy")]
SERVER = Surroundings(
    work_dir="/w/dir", user_owned=False, hub=False, context_folder=".ostler", context_files=("context.md",)
)
HUB = Surroundings(work_dir="/w/dir", user_owned=True, hub=True)


def task(kind: str, **more: Any) -> Task:
    return Task(
        **{
            "id": "t1",
            "agent_id": "a1",
            "auth_token": "mat_secret",
            "agent": Agent(id="a1", name="Bo `x`", instructions="Be kind.", custom_env={"K": "sesame"}),
            "requesting_user_name": "Ann",
            "requesting_user_profile_description": "I like tea.\n# Root",
            "initiator_type": "member",
            "initiator_name": "Cy",
            "initiator_id": "u1",
            "workspace_context": "We make doors.",
            "connected_apps": [{"provider": "p", "server_name": "mail", "toolkit_slug": "gmail"}],
            "repos": [Repo(url="https://example.org/a.git", ref="main", description="The code")],
            "project_id": "p1",
            "project_title": "Doors",
            "project_description": "All of them",
            "project_resources": [ProjectResource(id="x", resource_type="github_repo", label="code")],
            **KINDS[kind],
            **more,
        }
    )


ALL = {"/w/dir", "## Work that takes long", "Bo x", "a1", "Be kind.", "Ann says", "> I like tea.\n> # Root",
       "Cy (a member, id u1)", "We make doors.", "gmail", "mail", ".ostler/context.md"}  # fmt: skip
FACTS: dict[str, set[str]] = {
    "--content-file": {"comment", "direct"},
    "The project": {"comment", "direct"},
    "ostler issue metadata list ID": {"comment", "direct"},
    "What counts more": {"direct"},
    "Sub-issues": {"comment", "direct"},
    "Mentions": {"comment", "direct"},
    "attachment download ID": {"comment", "direct"},
    "https://example.org/a.git, at main": {"chat", "comment", "autopilot", "direct"},
    ".claude/skills/deploy/SKILL.md": {"chat", "comment", "autopilot", "direct"},
    "ostler repo checkout URL [--ref REF]": {"chat", "comment", "autopilot", "direct"},
    "ostler issue create --title": {"quick_create"},
    "status ISS-1 in_review": {"direct"},
    "Do not call its web interface": set(KINDS),
    "## What is read": set(KINDS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_task_has_its_facts(kind: str) -> None:
    brief = brief_of(task(kind), SERVER, SKILLS)
    for fact in ALL:
        assert fact in brief
    for fact, kinds in FACTS.items():
        assert (fact in brief) == (kind in kinds), fact
    assert "mat_secret" not in brief
    assert "sesame" not in brief
    assert len(brief) < 8000


def test_sections_that_have_nothing_to_say_are_left_out() -> None:
    brief = brief_of(Task(id="t", chat_session_id="c"), SERVER)
    for title in ("Who asks", "Who started", "workspace\n", "Connected", "Repositories", "Skills", "Who you"):
        assert title not in brief


def test_a_leader_is_told_of_its_way_out() -> None:
    leader = Agent(instructions=prompts.LEADER_HEADING)
    assert "ostler squad activity ISS-1 no_action" in brief_of(task("direct", agent=leader), SERVER)


def test_the_hubs_brief_is_short_and_names_what_there_is() -> None:
    plain = Task(id="t", chat_session_id="c", agent=Agent(name="Bo", instructions="Be kind."))
    brief = brief_of(plain, HUB)
    assert "directory of the user" in brief
    assert "Be kind." in brief
    assert "ostler task list" in brief
    assert "ostler job run" in brief
    for absent in ("ostler issue", "Checked out already"):
        assert absent not in brief
    assert len(brief) < 1500
    assert "Checked out already" in brief_of(msgspec.structs.replace(plain, repos=[Repo(url="/r")]), HUB)


def test_running_jobs_are_listed() -> None:
    job = JobLine(
        id="j1", name="build", command="make", since="2026-01-01T00:00:00Z", output_path="/o/stdout"
    )
    where = msgspec.structs.replace(HUB, jobs=(job,), commands=frozenset({"task", "job"}))
    brief = brief_of(task("chat"), where)
    assert "- j1: build, since 2026-01-01T00:00:00Z, output in `/o/stdout`" in brief
    assert "ostler job run" in brief


def test_context_files_hold_card_and_project() -> None:
    files = context_of(task("direct", handoff_note="Only this"))
    card = files["context.md"].decode()
    for fact in ("t1", "ISS-1", "p1", "> Only this", "kind: direct"):
        assert fact in card
    resources = json.loads(files["project/resources.json"])
    assert resources["project_title"] == "Doors"
    assert resources["resources"] == [
        {"id": "x", "resource_type": "github_repo", "resource_ref": None, "label": "code"}
    ]
    empty = context_of(task("direct", project_resources=None))
    assert json.loads(empty["project/resources.json"])["resources"] == []
    assert "project/resources.json" not in context_of(task("direct", project_id=None))


def test_what_is_wanted_goes_by_provider_and_server(tmp_path: Path) -> None:
    given = task("direct", agent=Agent(id="a1", skills=[Skill(id="s", name="x")]))

    def wanted(provider: str, *, hub: bool) -> Any:
        return wanted_of(
            given,
            layout=layout_of(provider),
            work_dir=tmp_path,
            user_owned=True,
            run_dir=tmp_path,
            hub=hub,
            environ={},
        )

    server = wanted("claude", hub=False)
    assert [marker.managed_by for marker in server.user_markers] == ["multica-daemon-task"]
    assert json.loads(server.user_markers[0].content()) == {
        "managed_by": "multica-daemon-task",
        "agent_id": "a1",
        "issue_id": "ISS-1",
    }
    assert server.context
    hub = wanted("claude", hub=True)
    assert (hub.user_markers, hub.context) == ((), {})
    assert hub.brief is not None
    shell = wanted("shell", hub=True)
    assert (shell.brief, shell.skills) == (None, ())
