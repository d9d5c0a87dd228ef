"""Tasks hand on work: through the real daemon, its command line inside runs, restarts and kills."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.scripted_agent import script

MakeHome = Callable[..., OstlerHome]


@pytest.fixture
def make_home(tmp_path: Path) -> Iterator[MakeHome]:
    made: list[OstlerHome] = []

    def make(**environ: str) -> OstlerHome:
        home = OstlerHome(tmp_path, environ=environ)
        made.append(home)
        return home

    yield make
    for home in made:
        home.close()


def handing_on(home: OstlerHome, prompt: str, *options: str, then: tuple[dict[str, Any], ...] = ()) -> str:
    """The prompt of a scripted agent that hands something on and says what the command said."""
    (home.root / "handed-on").write_text(prompt)
    command = f'ostler task delegate "$(cat {home.root}/handed-on)" {" ".join(options)}; echo "exit $?"'
    return script({"run": ["sh", "-c", f"{{ {command}; }} >{home.root}/said-$OSTLER_TASK_ID 2>&1"]}, *then)


def said(home: OstlerHome, task: str) -> str:
    """What a task said, and what the command said that it ran."""
    command = home.root / f"said-{task}"
    return home.text(task) + (command.read_text() if command.exists() else "")


def children(home: OstlerHome, parent: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.task(parent)["children"]
    return found


def the_child(home: OstlerHome, parent: str) -> str:
    return str(wait_until(lambda: children(home, parent), "a child")[0]["id"])


def row(home: OstlerHome) -> tuple[Any, ...]:
    return home.journal("SELECT told, waiting_key FROM delegations")[0]


def notices(home: OstlerHome) -> list[tuple[Any, ...]]:
    return home.journal("SELECT state, body FROM notices WHERE kind = 'child_ended'")


def hears(home: OstlerHome, parent: str) -> str:
    """What the parent's conversation said once it was told of an end: in the same turn, or woken for it."""
    (conversation,) = home.hub("SELECT conversation_id FROM task WHERE id = ?", parent)[0]
    wait_until(lambda: [state for state, _ in notices(home)] == ["delivered"], "the end to be told")

    def quiet() -> bool:
        return home.hub(
            "SELECT count(*) FROM task WHERE conversation_id = ? AND status <> 'completed'", conversation
        ) == [(0,)]

    wait_until(quiet, "the parent's turns to end")
    turns = home.hub("SELECT id FROM task WHERE conversation_id = ? ORDER BY no", conversation)
    return "".join(home.text(turn) for (turn,) in turns)


def most_at_once(log: Path) -> int:
    """Of lines + and - how many were in between at most."""
    now = most = 0
    for line in log.read_text().split():
        now += 1 if line == "+" else -1
        most = max(most, now)
    return most


def test_one_slot_is_enough_for_a_parent_that_waits(make_home: MakeHome) -> None:
    home = make_home(OSTLER_DAEMON_SLOTS="1")
    home.start()
    parent = home.add(handing_on(home, "echo done by the child", "--runtime shell", "--wait"))
    done = home.wait(parent)
    assert done["status"] == "completed", done["error"]
    text = said(home, parent)
    assert "done by the child" in text
    assert "exit 0" in text
    (child,) = children(home, parent)
    assert child["over"]
    assert child["status"] == "completed"
    assert home.task(child["id"])["parent_id"] == parent
    wait_until(lambda: row(home) == ("answer", ""), "the end to be told")
    assert notices(home) == []


def test_the_end_of_what_was_handed_on_in_the_background_wakes_the_parent_once(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    parent = home.add(handing_on(home, "echo found it", "--runtime shell"))
    assert home.wait(parent)["status"] == "completed"
    text = hears(home, parent)
    assert text.count("is completed. Its result:\n\nfound it") == 1
    assert row(home)[0] == "notice"


def test_a_failure_is_told_in_words(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    parent = home.add(handing_on(home, "echo bad >&2; exit 3", "--runtime shell"))
    assert "failed" in hears(home, parent)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--agent nobody", "There is no agent nobody"),
        ("--runtime nothing", "There is no runtime nothing"),
        ("--dir /nowhere/at/all", "/nowhere/at/all"),
    ],
)
def test_what_cannot_begin_is_refused_at_once_and_takes_nothing(
    make_home: MakeHome, options: str, says: str
) -> None:
    home = make_home(OSTLER_DAEMON_SLOTS="1")
    home.start()
    parent = home.add(handing_on(home, "echo no", options, "--wait"))
    home.wait(parent)
    assert says in said(home, parent)
    assert children(home, parent) == []
    assert home.wait(home.add("echo free", "shell"))["status"] == "completed"


def test_a_child_is_not_laxer_than_its_parent_was_told_to_be(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    parent = home.add(handing_on(home, script({"text": "done"}), "--wait"), permissions="ask")
    assert home.wait(parent)["status"] == "completed"
    child = the_child(home, parent)
    query = "SELECT permissions FROM conversation WHERE id = (SELECT conversation_id FROM task WHERE id = ?)"
    assert home.hub(query, child) == [("ask",)]


def test_a_child_may_not_hand_on_unless_that_is_set(make_home: MakeHome) -> None:
    home = make_home(OSTLER_DAEMON_SLOTS="1")
    home.start()
    inner = "ostler task delegate 'echo inner' --runtime shell --wait 2>&1; echo inner exit $?"
    parent = home.add(handing_on(home, inner, "--runtime shell", "--wait"))
    home.wait(parent)
    assert "was handed on itself" in said(home, parent)
    assert "inner exit 6" in said(home, parent)


def test_deeper_levels_share_one_slot(make_home: MakeHome) -> None:
    home = make_home(OSTLER_DAEMON_SLOTS="1", OSTLER_DELEGATION_DEPTH="3")
    home.start()
    third = "ostler task delegate 'echo third' --runtime shell --wait 2>/dev/null"
    second = f'ostler task delegate "{third}; echo second" --runtime shell --wait 2>/dev/null'
    parent = home.add(handing_on(home, second + "; echo first", "--runtime shell", "--wait"))
    home.wait(parent)
    text = said(home, parent)
    assert text.index("third") < text.index("second") < text.index("first")
    assert [child["depth"] for child in children(home, parent)] == [1, 2, 3]


def test_the_numbers_are_limited(make_home: MakeHome) -> None:
    home = make_home(OSTLER_DELEGATION_AT_ONCE="2", OSTLER_DELEGATION_PER_TASK="3")
    home.start()
    gate = home.root / "gate"
    (home.root / "wait.sh").write_text(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    more = f"ostler task delegate 'sh {home.root}/wait.sh' --runtime shell"
    ready = f"until [ -e {home.root}/over ]; do sleep 0.05; done"
    parent = home.add(f"({more}; {more}; {more}; {ready}; {more}; {more}) 2>&1", "shell")
    wait_until(lambda: "2 tasks that were handed on" in said(home, parent), "the third to be refused")
    assert len(children(home, parent)) == 2
    gate.touch()
    wait_until(lambda: all(child["over"] for child in children(home, parent)), "both to end")
    (home.root / "over").touch()
    home.wait(parent)
    assert "This task has handed on 3 tasks" in said(home, parent)
    assert len(children(home, parent)) == 3


def test_a_time_out_lets_the_child_go_on_and_its_end_is_told_then(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    gate = home.root / "gate"
    (home.root / "wait.sh").write_text(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo at last")
    parent = home.add(handing_on(home, f"sh {home.root}/wait.sh", "--runtime shell", "--wait", "--timeout 1"))
    assert home.wait(parent)["status"] == "completed"
    assert "exit 124" in said(home, parent)
    assert home.task(the_child(home, parent))["status"] == "running"
    gate.touch()
    assert "at last" in hears(home, parent)


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_what_was_handed_on_ends_with_its_parent(make_home: MakeHome, how: str) -> None:
    home = make_home()
    home.start()
    parent = home.add(handing_on(home, "sleep 600", "--runtime shell", "--wait"))
    child = the_child(home, parent)
    home.wait(child, "running")
    if how == "cancel":
        home.call("POST", f"/v1/tasks/{parent}/cancel")
    else:
        home.call("DELETE", f"/v1/tasks/{parent}")
    assert home.wait(child)["status"] == "cancelled"
    # Who waited may have heard of it before it was ended itself.
    wait_until(lambda: row(home)[0] in ("dropped", "answer"), "the end of it")
    assert notices(home) == []
    if how == "cancel":
        assert [each["id"] for each in children(home, parent)] == [child]
    assert home.wait(home.add("echo free", "shell"))["status"] == "completed"


def test_the_parent_cancels_a_child_and_hears_of_it(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    first = f"{sys.executable} -c 'import json, sys; print(json.load(sys.stdin)[0][\"id\"])'"
    command = f"ostler task delegate cancel $(ostler task delegate list --json | {first})"
    then = ({"run": ["sh", "-c", command]},)
    parent = home.add(handing_on(home, "sleep 600", "--runtime shell", then=then))
    home.wait(parent)
    assert home.wait(the_child(home, parent))["status"] == "cancelled"
    assert "was cancelled" in hears(home, parent)


def test_a_list_that_is_not_done_makes_a_child_go_on(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    todos = [{"content": "one", "status": "completed"}, {"content": "two", "status": "pending"}]
    prompt = script(
        {"tool": {"name": "TodoWrite", "input": {"todos": todos}, "output": "ok"}}, {"text": "enough"}
    )
    parent = home.add(handing_on(home, prompt, "--wait"))
    home.wait(parent)
    text = said(home, parent)
    assert "Its to-do list is not done: two" in text
    (conversation,) = home.hub("SELECT conversation_id FROM task WHERE id = ?", the_child(home, parent))[0]
    turns = home.hub("SELECT id FROM task WHERE conversation_id = ? ORDER BY no", conversation)
    assert len(turns) == 3
    assert "- two" in said(home, turns[1][0])


KILLS = ["delegation_added", "delegation_recorded", "delegation_waits", "claimed:2", "claim_recorded:2",
         "started:2", "spawned:2", "result:1", "child_ended", "delegation_answered"]  # fmt: skip


@pytest.mark.parametrize("place", KILLS)
def test_a_waiting_parent_survives_the_daemon_at_each_step(make_home: MakeHome, place: str) -> None:
    home = make_home(OSTLER_DAEMON_SLOTS="1")
    home.start(kill_at=place)
    parent = home.add(handing_on(home, "echo from the child", "--runtime shell", "--wait"))
    home.wait_dead()
    home.start()
    done = home.wait(parent)
    assert done["status"] == "completed", done["error"]
    text = said(home, parent)
    assert "from the child" in text
    assert "exit 0" in text
    assert len(children(home, parent)) == 1
    wait_until(lambda: row(home) == ("answer", ""), "the end to be told")
    assert notices(home) == []
    assert home.wait(home.add("echo free", "shell"))["status"] == "completed"


@pytest.mark.parametrize(
    "place", ["delegation_added", "delegation_recorded", "child_ended", "child_told", "before_wake", "woken"]
)
def test_the_end_of_a_background_child_is_told_once_whenever_the_daemon_is_killed(
    make_home: MakeHome, place: str
) -> None:
    home = make_home()
    home.start(kill_at=place)
    gate = home.root / "gate"
    (home.root / "wait.sh").write_text(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo from the child")
    parent = home.add(handing_on(home, f"sh {home.root}/wait.sh", "--runtime shell"))
    if place.startswith("delegation"):
        home.wait_dead()
        home.start()
        home.wait(parent)
        gate.touch()
    else:
        home.wait(parent)
        gate.touch()
        home.wait_dead()
        home.start()
    assert hears(home, parent).count("from the child") == 1
    assert len(children(home, parent)) == 1


def test_two_parents_and_one_place_for_a_model(make_home: MakeHome) -> None:
    home = make_home()
    config = home.directories.config_file
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[limits]\nmodels = { "rare" = 1 }\n')
    home.start()
    log = home.root / "log"
    prompt = script(
        {"append": {"path": str(log), "text": "+\n"}},
        {"sleep": 0.3},
        {"append": {"path": str(log), "text": "-\n"}},
        {"text": "worked"},
    )
    parents = [home.add(handing_on(home, prompt, "--model rare", "--wait")) for _ in range(2)]
    parents += [home.add(handing_on(home, prompt, "--model rare")) for _ in range(2)]
    for parent in parents:
        assert home.wait(parent)["status"] == "completed"
    wait_until(lambda: log.read_text().count("-") == 4, "all children")
    assert most_at_once(log) == 1
    assert all("exit 0" in said(home, parent) for parent in parents)


def test_a_tool_hands_on_and_waits(make_home: MakeHome) -> None:
    home = make_home(OSTLER_DAEMON_SLOTS="1")
    home.start()
    (home.root / "ask.py").write_text(
        "import json, os, sys, urllib.request\n"
        "def call(name, **given):\n"
        "    body = {'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call',"
        " 'params': {'name': name, 'arguments': given}}\n"
        "    asked = urllib.request.Request(os.environ['OSTLER_CONTROL_URL'] + '/mcp',"
        " json.dumps(body).encode(), {'Authorization': 'Bearer ' + os.environ['OSTLER_TOKEN']})\n"
        "    return json.load(urllib.request.urlopen(asked, timeout=60))['result']\n"
        "made = call('delegate', prompt='echo by tool', runtime='shell', wait=True)\n"
        "print(json.dumps(made['structuredContent']))\n"
        "print(call('delegate', prompt='x', agent='nobody')['content'][0]['text'])\n"
        "print(len(call('delegation_list')['structuredContent']['delegations']))\n"
        "print(call('delegation_result', id='00000000')['content'][0]['text'])\n"
    )
    parent = home.add(f"{sys.executable} {home.root}/ask.py", "shell")
    done = home.wait(parent)
    assert done["status"] == "completed", said(home, parent)
    lines = said(home, parent).splitlines()
    made = json.loads(lines[0])
    assert (made["status"], made["over"], made["result"].strip()) == ("completed", True, "by tool")
    assert lines[1].startswith("There is no agent nobody")
    assert lines[2] == "1"
    assert lines[3] == "You have handed on no task 00000000."
    assert row(home)[0] == "answer"


def git(directory: Path, *arguments: str) -> str:
    name = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *name, *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_a_child_works_in_a_work_tree_of_its_parents_repository(make_home: MakeHome) -> None:
    home = make_home(GIT_CONFIG_NOSYSTEM="1")
    project = home.root / "project"
    project.mkdir()
    git(project, "init", "-q", "-b", "trunk")
    (project / "file").write_text("committed\n")
    git(project, "add", "file")
    git(project, "commit", "-q", "-m", "first")
    home.start()
    taken = f'ostler task delegate "echo no" --runtime shell --dir {project} 2>&1; echo refused $?'
    parent = home.add(
        f"ostler task delegate 'pwd; cat */file' --runtime shell --wait; {taken}",
        "shell",
        directory=str(project),
    )
    done = home.wait(parent)
    assert done["status"] == "completed", done["error"]
    text = said(home, parent)
    assert "committed" in text
    assert "is in use by another task" in text
    assert "refused 6" in text
    (child,) = children(home, parent)
    assert Path(child["work_dir"]).is_relative_to(home.directories.workspaces)
    assert git(project, "status", "--porcelain") == ""
