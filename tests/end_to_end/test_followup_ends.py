"""What was begun in the background meets the end of what has begun it: a cancel, a deletion, a parent's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, wait_gone, wait_until
from tests.support.scripted_agent import script


def job(command: str) -> dict[str, Any]:
    """The step of an agent that starts a job."""
    return {"run": ["ostler", "job", "run", "--", command]}


def until(path: Path, then: str) -> str:
    """A command that goes on until a file is there."""
    return f"while [ ! -e {path} ]; do sleep 0.05; done; {then}"


def the_job(home: OstlerHome) -> dict[str, Any]:
    found: dict[str, Any] = wait_until(lambda: home.call("GET", "/v1/jobs"), "the job")[0]
    return found


def notices(home: OstlerHome) -> list[tuple[Any, ...]]:
    return home.journal("SELECT kind, state FROM notices ORDER BY id")


def handed_on(home: OstlerHome, prompt: str, *options: str, then: dict[str, Any] | None = None) -> str:
    """A task that hands something on to an agent of its own kind; its id."""
    command = ["ostler", "task", "delegate", prompt, *options]
    return home.add(script({"run": command}, *([then] if then else [])))


def child_of(home: OstlerHome, parent: str) -> str:
    return str(wait_until(lambda: home.task(parent)["children"], "the child")[0]["id"])


def turns(home: OstlerHome, task: str) -> list[tuple[Any, ...]]:
    return home.hub(
        "SELECT id, status FROM task WHERE conversation_id ="
        " (SELECT conversation_id FROM task WHERE id = ?) ORDER BY no",
        task,
    )


def test_a_cancelled_turn_is_not_followed_by_one_for_what_had_happened_before(
    home: OstlerHome, tmp_path: Path
) -> None:
    home.start()
    task = home.add(script(job("echo forty-two"), {"wait_for": str(tmp_path / "never")}))
    wait_until(lambda: notices(home) == [("job_ended", "pending")], "the job to end")
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait_delivered(task)
    home.kill()
    home.start()
    reply = home.call("POST", f"/v1/tasks/{task}/reply", {"prompt": "And now?"})["id"]
    assert "forty-two" in home.wait(reply)["result"]  # it waited for the user's next word
    assert turns(home, task) == [(task, "cancelled"), (reply, "completed")]
    wait_until(lambda: notices(home) == [("job_ended", "delivered")], "it to be told")


@pytest.mark.parametrize("also_daemon", [False, True])
def test_a_child_is_over_when_what_it_has_begun_is(
    home: OstlerHome, tmp_path: Path, also_daemon: bool
) -> None:
    go = tmp_path / "go"
    home.start()
    prompt = script({"text": "The tests run."}, job(until(go, "echo all tests are green")))
    parent = handed_on(home, prompt, "--wait")
    child = child_of(home, parent)
    assert home.wait(child)["result"] == "The tests run."
    wait_until(lambda: home.status()["active_runs"] == 1, "the child's slot to be free")
    if also_daemon:
        home.kill()
        home.start()
    assert home.journal("SELECT told FROM delegations") == [("",)]
    go.touch()
    done = home.wait(parent)
    assert done["status"] == "completed", done["error"]
    (row,) = home.task(parent)["children"]
    assert row["over"]
    assert "all tests are green" in row["result"]  # and not what it said before it was woken
    assert home.journal("SELECT told FROM delegations") == [("answer",)]
    assert [status for _, status in turns(home, child)] == ["completed", "completed"]


def test_a_child_that_is_not_woken_is_over_with_its_turn(home: OstlerHome) -> None:
    home.start(OSTLER_JOBS_WAKE_LIMIT="0")
    parent = handed_on(home, script({"text": "It runs."}, job("sleep 600")), "--wait")
    assert home.wait(parent)["status"] == "completed"
    (row,) = home.task(parent)["children"]
    assert (row["over"], row["result"]) == (True, "It runs.")


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_jobs_of_what_was_handed_on_end_with_the_parent(home: OstlerHome, tmp_path: Path, how: str) -> None:
    home.start()
    prompt = script({"text": "It runs."}, job("sleep 600"))
    parent = handed_on(home, prompt, then={"wait_for": str(tmp_path / "never")})
    child = child_of(home, parent)
    home.wait(child)
    pid = the_job(home)["pid"]
    home.call(
        *(("POST", f"/v1/tasks/{parent}/cancel") if how == "cancel" else ("DELETE", f"/v1/tasks/{parent}"))
    )
    wait_gone(pid)
    wait_until(lambda: home.journal("SELECT told FROM delegations") == [("dropped",)], "the end of the child")
    assert the_job(home)["status"] == "killed"
    assert notices(home) == []
    assert [status for _, status in turns(home, child)] == ["completed"]


def test_a_deleted_conversation_leaves_no_job_in_its_directory(home: OstlerHome, tmp_path: Path) -> None:
    """Neither one that was begun while its run was being ended."""
    home.start()
    late = "trap '' INT TERM; while [ ! -e {} ]; do sleep 0.02; done; ostler job run -- 'sleep 600'"
    go, gate = tmp_path / "go", tmp_path / "gate"
    steps: list[dict[str, Any]] = [
        {"ignore_sigterm": True},
        {"run": ["sh", "-c", late.format(go)]},
        {"wait_for": str(gate)},
    ]
    task = home.add(script(job("trap '' TERM; sleep 600"), *steps))
    work_dir = Path(wait_until(lambda: home.task(task)["work_dir"], "its directory"))
    pid = the_job(home)["pid"]
    home.call("DELETE", f"/v1/tasks/{task}")
    go.touch()
    wait_gone(pid)
    wait_until(lambda: not work_dir.exists(), "its directory to go")
    wait_until(lambda: not home.journal("SELECT 1 FROM jobs"), "its jobs to go")
    wait_until(lambda: len(home.processes()) == 1, f"nothing but the daemon: {home.processes()}")
