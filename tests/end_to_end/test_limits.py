"""Usage limits met by the real Claude Code CLI: the task is parked, claims are held, and both go on."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_core.hub.parking import GO_ON
from tests.end_to_end.home import check_transcript, wait_until
from tests.end_to_end.test_claude import ClaudeHome
from tests.support.model_server import CallTool, Fail, ModelServer, Say, user_texts

pytestmark = pytest.mark.claude


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


def limited(seconds: float) -> Fail:
    """What the model's server says of a used-up plan; the program tries a second time at once."""
    return Fail(429, message=f"Claude AI usage limit reached|{int(time.time() + seconds)}", times=2)


def held(home: ClaudeHome) -> bool:
    return any(condition["code"] == "usage_limit" for condition in home.status()["conditions"])


def test_a_parked_task_goes_on_by_itself_over_the_death_of_the_daemon(
    home: ClaudeHome, tmp_path: Path
) -> None:
    home.environ["OSTLER_AGENTS_CLAUDE_RESUME_AFTER_LIMIT"] = "true"
    file = tmp_path / "file"
    home.script(CallTool("Bash", {"command": f"echo x >> {file}"}), limited(25), Say("done"))
    home.start()
    task = home.add("write")
    parked = home.wait(task, "parked")
    assert parked["goes_on"]
    assert parked["failure_reason"] == "agent_error.provider_quota_limit"
    assert parked["waiting"]["code"] == "usage_limit"
    until = dt.datetime.fromisoformat(parked["parked_until"])
    assert abs((until - dt.datetime.now(dt.UTC)).total_seconds()) < 25
    wait_until(lambda: home.status()["active_runs"] == 0, "the slot to be free")
    assert held(home)
    home.kill()
    home.start()
    seen, holding = home.task(task)["status"], held(home)
    if dt.datetime.now(dt.UTC) < until:  # on a slow machine the start may have taken until then
        assert (seen, holding) == ("parked", True)
    done = home.wait(task)
    assert dt.datetime.now(dt.UTC) >= until
    assert (done["status"], done["result"], file.read_text()) == ("completed", "done", "x\n")
    assert (done["session_id"], done["work_dir"]) == (parked["session_id"], parked["work_dir"])
    assert len(done["runs"]) == 2
    assert GO_ON in user_texts(home.model.requests(home.name)[-1])[-1]
    wait_until(lambda: not held(home), "claims to be free")
    # Of both runs, each counted once: one answer of the model each.
    assert sum(usage["input_tokens"] for usage in done["usage"]) == 20
    home.wait_delivered(task)
    check_transcript(home, task)


def test_the_user_decides_when_nothing_else_is_allowed(home: ClaudeHome) -> None:
    home.script(limited(3600), Say("done"), Say("other"))
    home.start()
    task = home.add("write")
    assert not home.wait(task, "parked")["goes_on"]
    wait_until(lambda: held(home), "claims to be held")
    (runtime,) = [each for each in home.call("GET", "/v1/runtimes") if each["provider"] == "claude"]
    assert runtime["reason"] == "usage_limit"
    other = home.add("other")
    wait_until(lambda: home.task(other)["waiting"], "the reason why it waits")
    assert home.task(other)["waiting"]["code"] == "usage_limit"
    assert home.wait(home.add("echo hi", runtime="shell"))["status"] == "completed"
    again = home.call("POST", f"/v1/tasks/{task}/retry")
    assert again["id"] == task
    results = {home.wait(each)["result"] for each in (task, other)}
    assert results == {"done", "other"}


def test_where_the_session_is_gone_meanwhile_the_whole_prompt_is_said_again(home: ClaudeHome) -> None:
    home.script(limited(3600), Say("done"))
    home.start()
    task = home.add("paint the barn")
    parked = home.wait(task, "parked")
    shutil.rmtree(home.user_home / ".claude" / "projects")
    home.call("POST", f"/v1/tasks/{task}/retry")
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "done")
    assert done["session_id"] not in ("", parked["session_id"])
    said = user_texts(home.model.requests(home.name)[-1])
    assert any("paint the barn" in text for text in said)
    assert not any(GO_ON in text for text in said)
    (notice,) = [notice for notice in done["notices"] if notice["code"] == "warning"]
    assert "session is gone" in notice["params"]["text"]
    home.wait_delivered(task)
    check_transcript(home, task)


def test_a_parked_task_can_be_cancelled(home: ClaudeHome) -> None:
    home.script(limited(3600))
    home.start()
    task = home.add("write")
    home.wait(task, "parked")
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait(task, "cancelled")
    home.wait_delivered(task)
