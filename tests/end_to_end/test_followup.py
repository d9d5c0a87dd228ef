"""Follow-up with the real daemon, the real Claude Code CLI and real jobs: told once, whatever dies."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import check_transcript, wait_until
from tests.end_to_end.test_claude import ClaudeHome
from tests.support.model_server import CallTool, Fail, ModelServer, Say, Step

pytestmark = pytest.mark.claude

TOLD = "Your background job"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, model: ModelServer, request: pytest.FixtureRequest) -> Iterator[ClaudeHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = ClaudeHome(tmp_path, model, name)
    yield made
    made.close()


def job(command: str, *options: str) -> Step:
    """The agent starts a job by the command line of its task."""
    line = [sys.executable, "-m", "daemon_core.cli", "job", "run", *options, "--", command]
    return CallTool("Bash", {"command": shlex.join(line)})


def until_file(path: Path, then: str) -> str:
    """A command that goes on until a file is there."""
    return f"while [ ! -e {path} ]; do sleep 0.05; done; {then}"


def tasks(home: ClaudeHome) -> list[dict[str, Any]]:
    """All turns, oldest first."""
    found: list[dict[str, Any]] = home.call("GET", "/v1/tasks?all=true")
    return sorted(found, key=lambda task: str(task["created_at"]))


def second(home: ClaudeHome, first: str) -> dict[str, Any]:
    """The turn after the first, once it is over."""

    def there() -> str:
        return next((str(task["id"]) for task in tasks(home) if task["id"] != first), "")

    return home.wait(wait_until(there, "the conversation to be woken"))


def notices(home: ClaudeHome) -> list[tuple[str, str]]:
    return [
        (str(kind), str(state)) for kind, state in home.journal("SELECT kind, state FROM notices ORDER BY id")
    ]


def all_told(home: ClaudeHome, count: int = 1) -> None:
    wait_until(
        lambda: [state for _, state in notices(home)] == ["delivered"] * count,
        f"{count} notices to be delivered",
    )


def ended(home: ClaudeHome) -> bool:
    assert home.daemon is not None
    return home.daemon.poll() is not None


def messages(home: ClaudeHome) -> str:
    """Everything that the model was told in its newest request."""
    return json.dumps(home.model.requests(home.name)[-1]["messages"])


def test_a_job_that_ended_while_the_daemon_was_dead_wakes_its_conversation_once(
    home: ClaudeHome, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    home.script(
        job(until_file(go, "echo forty-two; exit 3"), "--name", "build"), Say("It builds."), Say("It failed.")
    )
    home.start()
    first = home.wait(home.add("Build it.", model="claude-sonnet-4-6"))
    assert first["status"] == "completed", first["error"]
    assert first["result"] == "It builds."
    home.wait_delivered(first["id"])
    assert home.status()["active_runs"] == 0  # its slot is free meanwhile
    home.kill()
    go.touch()
    (shim_exit,) = (path for path in home.directories.jobs.glob("*"))
    wait_until((shim_exit / "exit.json").exists, "the job to end without a daemon")
    home.start()
    woken = second(home, first["id"])
    assert (woken["status"], woken["result"]) == ("completed", "It failed."), woken["error"]
    same = ("session_id", "work_dir", "conversation_id", "model", "agent", "runtime")
    assert [woken[name] for name in same] == [first[name] for name in same]
    told = messages(home)
    assert told.count(TOLD) == 1
    assert "exit code 3" in told
    assert "forty-two" in told
    assert "Build it." in told  # the same session
    assert "exit code 3" in woken["prompt"]  # and the user can see why
    all_told(home)
    home.wait_delivered(woken["id"])
    check_transcript(home, woken["id"])
    asked = len(home.model.requests(home.name))
    home.kill()
    home.start()
    home.wait_delivered(woken["id"])
    assert len(tasks(home)) == 2
    assert len(home.model.requests(home.name)) == asked


@pytest.mark.parametrize(
    "place",
    ["before_wake", "woken", "notices_given", "before_spawn", "before_commit:1", "committed:1", "result"],
)
def test_a_death_anywhere_between_a_jobs_end_and_the_agents_answer_loses_nothing(
    home: ClaudeHome, tmp_path: Path, place: str
) -> None:
    go = tmp_path / "go"
    home.script(job(until_file(go, "echo forty-two")), Say("Started."), Say("Seen."), Say("Seen again."))
    home.start()
    first = home.wait(home.add("Run it."))
    assert first["status"] == "completed", first["error"]
    home.wait_delivered(first["id"])
    home.kill()
    go.touch()
    (place_of_job,) = home.directories.jobs.glob("*")
    wait_until((place_of_job / "exit.json").exists, "the job to end")
    home.launch(kill_at=place)
    home.wait_dead()
    home.start()
    woken = second(home, first["id"])
    assert woken["status"] == "completed", woken["error"]
    all_told(home)
    assert messages(home).count(TOLD) == 1  # in the session that counts, it was said once
    home.wait_delivered(woken["id"])
    check_transcript(home, woken["id"])
    assert len(tasks(home)) == 2


def test_a_job_that_ends_while_the_agent_works_is_told_in_the_same_run(
    home: ClaudeHome, tmp_path: Path
) -> None:
    gate = home.model.gate()
    home.script(job("echo forty-two"), Say("First answer.", gate=gate), Say("And the job is done."))
    home.start()
    task = home.add("Run it.")
    gate.wait_reached()
    wait_until(lambda: notices(home) == [("job_ended", "pending")], "the job to end")
    gate.release()
    done = home.wait(task)
    assert done["status"] == "completed", done["error"]
    assert done["result"] == "First answer.\n\nAnd the job is done."
    assert len(done["runs"]) == 1
    assert len(tasks(home)) == 1
    all_told(home)
    assert messages(home).count(TOLD) == 1
    home.wait_delivered(task)
    check_transcript(home, task)


@pytest.mark.parametrize("place", ["more_taken", "more_given", "said:2", "committed:4", "committed:5"])
def test_a_death_while_a_run_is_told_loses_nothing_and_ends_in_one_answer(
    home: ClaudeHome, tmp_path: Path, place: str
) -> None:
    gate = home.model.gate()
    home.script(job("echo forty-two"), Say("First answer.", gate=gate), Say("And the job is done."))
    home.start(kill_at=place)
    task = home.add("Run it.")
    gate.wait_reached()
    wait_until(lambda: notices(home) == [("job_ended", "pending")] or ended(home), "the job to end")
    gate.release()
    home.wait_dead()
    home.start()
    done = home.wait(task)
    assert done["status"] == "completed", done["error"]
    assert done["result"] == "First answer.\n\nAnd the job is done."
    all_told(home)
    assert messages(home).count(TOLD) == 1
    home.wait_delivered(task)
    check_transcript(home, task)
    assert len(tasks(home)) == 1


def test_two_jobs_that_end_at_once_are_one_wake_up(home: ClaudeHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.script(
        job(until_file(go, "echo one"), "--name", "one"),
        job(until_file(go, "echo two"), "--name", "two"),
        Say("Both run."),
        Say("Both are done."),
    )
    home.start()
    first = home.wait(home.add("Run both."))
    home.wait_delivered(first["id"])
    home.kill()
    go.touch()
    places = list(home.directories.jobs.glob("*"))
    assert len(places) == 2
    wait_until(lambda: all((each / "exit.json").exists() for each in places), "both to end")
    home.start()
    woken = second(home, first["id"])
    assert woken["result"] == "Both are done."
    all_told(home, 2)
    assert messages(home).count(TOLD) == 2
    assert len(tasks(home)) == 2


def test_the_users_own_message_carries_what_was_pending(home: ClaudeHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.script(job(until_file(go, "echo forty-two")), Say("Started."), Say("Yes, it is done."))
    home.start()
    first = home.wait(home.add("Run it."))
    home.wait_delivered(first["id"])
    home.call("POST", "/v1/daemon/pause", {})
    go.touch()
    wait_until(lambda: notices(home) == [("job_ended", "pending")], "the job to end")
    waits = wait_until(lambda: [task for task in tasks(home) if task["status"] == "queued"], "a turn to wait")
    assert len(waits) == 1
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "Is it done?"})
    home.call("POST", "/v1/daemon/resume", {})
    done = home.wait(reply["id"])
    assert done["result"] == "Yes, it is done."
    told = messages(home)
    assert told.count(TOLD) == 1
    assert told.index(TOLD) < told.index("Is it done?")
    all_told(home)
    assert [task["status"] for task in tasks(home)] == ["completed", "cancelled", "completed"]


def test_a_killed_job_and_one_that_may_not_wake_nobody(home: ClaudeHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    home.script(
        job("sleep 600", "--name", "killed"),
        job(until_file(go, "echo quiet"), "--no-wake", "--name", "quiet"),
        Say("Started."),
        Say("I know."),
    )
    home.start()
    first = home.wait(home.add("Run them."))
    home.wait_delivered(first["id"])
    killed = next(each for each in home.call("GET", "/v1/jobs") if each["name"] == "killed")
    home.call("POST", f"/v1/jobs/{killed['id']}/kill")
    go.touch()
    wait_until(lambda: notices(home) == [("job_ended", "pending")], "the quiet one to end")
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "Anything new?"})
    assert home.wait(reply["id"])["result"] == "I know."
    told = messages(home)
    assert told.count(TOLD) == 1
    assert "quiet" in told.partition(TOLD)[2]
    assert len(tasks(home)) == 2


def test_a_stall_is_told_and_then_the_end(home: ClaudeHome, tmp_path: Path) -> None:
    home.script(
        job("read -p 'Password: ' word; echo the word is $word"),
        Say("Started."),
        Say("It asks."),
        Say("Done."),
    )
    home.start(OSTLER_JOBS_STALL="1s")
    first = home.wait(home.add("Run it."))
    stalled = second(home, first["id"])
    assert stalled["result"] == "It asks."
    assert "Password:" in stalled["prompt"]
    home.wait_delivered(stalled["id"])
    (there,) = home.call("GET", "/v1/jobs")
    home.call("POST", f"/v1/jobs/{there['id']}/input", {"text": "heron\n"})
    wait_until(lambda: len(tasks(home)) == 3, "the end to be told")
    ended = home.wait(tasks(home)[2]["id"])
    assert ended["result"] == "Done."
    assert "the word is heron" in ended["prompt"]
    wait_until(
        lambda: notices(home) == [("job_stalled", "delivered"), ("job_ended", "delivered")], "both to be told"
    )


def test_a_conversation_that_is_woken_too_often_waits_for_the_user(home: ClaudeHome) -> None:
    home.script(job("echo 1"), Say("a"), job("echo 2"), Say("b"), Say("I see."))
    home.start(OSTLER_JOBS_WAKE_LIMIT="1")
    first = home.wait(home.add("Loop."))
    wait_until(lambda: [kind for kind, _ in notices(home)] == ["job_ended"] * 2, "both jobs to end")
    held = wait_until(lambda: conditions(home, "wake_limit"), "the user to be told")
    assert held[0]["params"]["title"] == "Loop."
    assert [state for _, state in notices(home)] == ["delivered", "pending"]
    newest = tasks(home)[-1]
    assert home.wait(newest["id"])["result"].endswith("b")
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "Enough."})
    assert home.wait(reply["id"])["result"] == "I see."
    all_told(home, 2)
    wait_until(lambda: not conditions(home, "wake_limit"), "it to be over")


def conditions(home: ClaudeHome, code: str) -> list[dict[str, Any]]:
    return [each for each in home.status().get("conditions", []) if each["code"] == code]


def test_a_turn_that_fails_is_not_begun_again_for_the_same_notice(home: ClaudeHome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    failure = Fail(400, "invalid_request_error", times=1)
    home.script(job(until_file(go, "echo forty-two")), Say("Started."), failure, Say("I see."))
    home.start()
    first = home.wait(home.add("Run it."))
    home.wait_delivered(first["id"])
    go.touch()
    failed = second(home, first["id"])
    assert failed["status"] == "failed"
    home.wait_delivered(failed["id"])
    wait_until(lambda: notices(home) == [("job_ended", "pending")], "the notice to be put back")
    home.kill()
    home.start()
    assert len(tasks(home)) == 2
    reply = home.call("POST", f"/v1/tasks/{first['id']}/reply", {"prompt": "And now?"})
    assert home.wait(reply["id"])["result"] == "I see."
    assert "You may have been told this before" in messages(home)
    all_told(home)


def test_a_deleted_conversation_is_told_nothing_and_leaves_nothing(home: ClaudeHome) -> None:
    home.script(job("sleep 600"), job("echo quiet", "--no-wake"), Say("Started."))
    home.start()
    first = home.wait(home.add("Run it."))
    home.wait_delivered(first["id"])
    wait_until(lambda: notices(home) == [("job_ended", "pending")], "the quiet one to end")
    home.call("DELETE", f"/v1/tasks/{first['id']}")
    wait_until(lambda: notices(home) == [("job_ended", "dropped")], "its notice to end with it")
    wait_until(lambda: not home.journal("SELECT 1 FROM tasks"), "the conversation to go")
    assert home.hub("SELECT 1 FROM task") == []
