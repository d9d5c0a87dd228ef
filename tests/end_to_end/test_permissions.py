"""Permission requests of the real Claude Code CLI: asked, shown, answered, over the death of the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError
from tests.end_to_end.home import check_transcript, wait_gone, wait_until
from tests.end_to_end.test_claude import ClaudeHome
from tests.support.model_server import CallTool, ModelServer, Say, Step

pytestmark = pytest.mark.claude


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


class AskingHome(ClaudeHome):
    """A home whose user wants to be asked."""

    def __init__(self, root: Path, model: ModelServer, name: str) -> None:
        super().__init__(root, model, name)
        self.environ["OSTLER_PERMISSIONS_DEFAULT"] = "ask"

    def request(self, task: str) -> dict[str, Any]:
        """The one request that a task has open, once it has one."""

        def one() -> dict[str, Any] | None:
            found = self.task(task)
            assert found["status"] not in ("completed", "failed", "cancelled"), found
            return found["requests"][0] if found["requests"] else None

        request: dict[str, Any] = wait_until(one, "the agent to ask")
        return request

    def answer(self, task: str, request: str, decision: str, text: str = "") -> dict[str, Any]:
        path = f"/v1/tasks/{task}/requests/{request}/answer"
        found: dict[str, Any] = self.call("POST", path, {"decision": decision, "text": text})
        return found

    def told(self) -> str:
        """What the model was told last."""
        return json.dumps(self.model.requests(self.name)[-1]["messages"])


@pytest.fixture
def home(tmp_path: Path, model: ModelServer, request: pytest.FixtureRequest) -> Iterator[AskingHome]:
    name = "".join(character if character.isalnum() else "_" for character in request.node.name)
    made = AskingHome(tmp_path, model, name)
    yield made
    made.close()


def touch(path: Path) -> Step:
    return CallTool("Bash", {"command": f"echo x >> {path}"})


def test_allowed_once_and_denied_with_a_reason(home: AskingHome, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    home.script(touch(first), touch(second), Say("done"))
    home.start()
    task = home.add("write")
    asked = home.request(task)
    assert (asked["kind"], asked["tool"]) == ("permission", "Bash")
    assert asked["input"] == {"command": f"echo x >> {first}"}
    assert asked["since"]
    assert home.task(task)["needs_input"]
    assert home.status()["needs_input"] == 1
    (row,) = home.call("GET", "/v1/tasks")
    assert row["needs_input"]
    assert home.task(task)["watch"]["kind"] == "request"
    assert home.task(task)["watch"]["ends_at"] is None  # what waits for the user is not ended by itself
    assert not first.exists()
    home.answer(task, asked["id"][:8], "allow")

    wait_until(lambda: home.request(task)["id"] != asked["id"], "the next request")
    home.answer(task, home.request(task)["id"], "deny", "not on a Friday")
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "done")
    assert (first.read_text(), second.exists()) == ("x\n", False)
    assert "not on a Friday" in home.told()
    assert not done["needs_input"]
    home.wait_delivered(task)
    check_transcript(home, task)


def test_allowed_for_the_task_is_not_asked_again(home: AskingHome, tmp_path: Path) -> None:
    file = tmp_path / "file"
    home.script(touch(file), touch(file), touch(file), Say("done"))
    home.start()
    task = home.add("write")
    home.answer(task, home.request(task)["id"], "allow-task")
    assert home.wait(task)["status"] == "completed"
    assert file.read_text() == "x\nx\nx\n"


def test_a_question_is_answered_in_words(home: AskingHome) -> None:
    question = {
        "question": "Which colour?",
        "header": "Colour",
        "multiSelect": False,
        "options": [{"label": "Red", "description": "r"}, {"label": "Blue", "description": "b"}],
    }
    home.script(CallTool("AskUserQuestion", {"questions": [question]}), Say("done"))
    home.start()
    task = home.add("paint")
    asked = home.request(task)
    assert (asked["kind"], asked["title"], asked["options"]) == ("question", "Which colour?", ["Red", "Blue"])
    with pytest.raises(ControlError) as refused:
        home.answer(task, asked["id"], "allow")
    assert refused.value.params["why"] == "answer_missing"
    home.answer(task, asked["id"], "allow", "Blue")
    assert home.wait(task)["status"] == "completed"
    assert "Your questions have been answered" in home.told()
    assert "Blue" in home.told().partition("Your questions have been answered")[2]


@pytest.mark.parametrize("place", ["", "answer_taken", "answer_kept", "said"])
def test_the_daemon_may_die_with_a_request_open_and_the_answer_arrives_once(
    home: AskingHome, tmp_path: Path, place: str
) -> None:
    """``place``: where it dies; empty: before the answer. Once kept, an answer is not asked for again."""
    file = tmp_path / "file"
    home.script(touch(file), Say("done"))
    home.start(kill_at=place)
    task = home.add("write")
    asked = home.request(task)
    if place:
        with contextlib.suppress(DaemonUnreachableError, ControlError):  # it dies while it answers
            home.answer(task, asked["id"], "allow")
        home.wait_dead()
    else:
        home.kill()
    home.start()
    if place in ("", "answer_taken"):
        again = home.request(task)
        assert (again["id"], again["since"]) == (asked["id"], asked["since"])
        home.answer(task, asked["id"], "allow")
    assert home.wait(task)["status"] == "completed"
    assert file.read_text() == "x\n"
    assert len(home.task(task)["runs"]) == 1
    home.wait_delivered(task)
    check_transcript(home, task)


def test_of_two_answers_the_first_counts_and_the_second_is_told(home: AskingHome, tmp_path: Path) -> None:
    file = tmp_path / "file"
    home.script(touch(file), touch(file), Say("done"))
    home.start()
    task = home.add("write")
    asked = home.request(task)
    outcomes: list[str] = []
    ready = threading.Barrier(2)

    def say(decision: str) -> None:
        ready.wait()
        try:
            home.answer(task, asked["id"], decision)
            outcomes.append(decision)
        except ControlError as error:
            outcomes.append(f"{error.params['what']} {error.params['decision']}")

    threads = [threading.Thread(target=say, args=(decision,)) for decision in ("allow", "deny")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = next(outcome for outcome in outcomes if " " not in outcome)
    assert sorted(outcomes) == sorted([winner, f"request_settled {winner}"])
    home.answer(task, wait_until(lambda: _other(home, task, asked["id"]), "the next request"), "allow")
    assert home.wait(task)["status"] == "completed"
    assert file.read_text() == ("x\nx\n" if winner == "allow" else "x\n")


def _other(home: AskingHome, task: str, known: str) -> str:
    ids = [request["id"] for request in home.task(task)["requests"] if request["id"] != known]
    return ids[0] if ids else ""


def test_a_task_with_an_open_request_can_be_cancelled(home: AskingHome, tmp_path: Path) -> None:
    home.script(touch(tmp_path / "file"), Say("never"))
    home.start()
    task = home.add("write")
    asked = home.request(task)
    agent = home.shim(task)["child_pid"]
    home.call("POST", f"/v1/tasks/{task}/cancel")
    home.wait(task, "cancelled")
    wait_gone(agent)
    wait_until(lambda: home.status()["active_runs"] == 0, "the run to be over")
    assert not home.task(task)["needs_input"]
    with pytest.raises(ControlError) as refused:
        home.answer(task, asked["id"], "allow")
    assert refused.value.params["what"] == "task_ended"
    assert not (tmp_path / "file").exists()


def test_a_policy_of_the_task_itself_counts_for_more(home: AskingHome, tmp_path: Path) -> None:
    home.script(touch(tmp_path / "file"), Say("done"))
    home.start()
    task = home.add("write", permissions="deny")
    done = home.wait(task)
    assert (done["status"], (tmp_path / "file").exists()) == ("completed", False)
    assert "denies Bash" in home.told()


def test_the_shell_asks_nobody(home: AskingHome) -> None:
    home.start()
    assert home.wait(home.add("echo hello", runtime="shell"))["result"].strip() == "hello"


def ostler(home: AskingHome, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *args],
        env=home.environ,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_shows_and_answers(home: AskingHome, tmp_path: Path) -> None:
    file = tmp_path / "file"
    home.script(touch(file), Say("done"))
    home.start()
    task = home.add("write")
    asked = home.request(task)
    assert "needs you" in ostler(home, "task", "list").stdout
    shown = ostler(home, "task", "show", task[:8]).stdout
    assert f"Request {asked['id'][:8]}: Bash" in shown
    assert f"ostler task answer {task[:8]} {asked['id'][:8]} allow|allow-task|deny" in shown
    assert ostler(home, "task", "answer", task[:8], "ffff0000", "allow").returncode == 5
    assert ostler(home, "task", "extend", task[:8], "10m").returncode == 0
    done = ostler(home, "task", "answer", task[:8], asked["id"][:8], "allow", "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, task)
    again = ostler(home, "task", "answer", task, asked["id"], "deny")
    assert again.returncode == 6
    assert "was allowed already" in again.stderr
    assert home.wait(task)["status"] == "completed"


def test_a_run_cannot_answer_for_its_user(home: AskingHome, tmp_path: Path) -> None:
    home.script(touch(tmp_path / "file"), Say("done"))
    home.start()
    task = home.add("write")
    asked = home.request(task)
    command = f"ostler task answer {task} {asked['id']} allow; echo code $?"
    done = home.wait(home.add(command, runtime="shell"))
    assert done["result"].rstrip().endswith("code 4"), done["result"]
    assert home.request(task)["id"] == asked["id"]
    home.answer(task, asked["id"], "deny")
    assert home.wait(task)["status"] == "completed"


def test_waiting_for_an_answer_costs_nothing(home: AskingHome, tmp_path: Path) -> None:
    home.script(touch(tmp_path / "file"), Say("done"))
    home.start()
    task = home.add("write")
    home.request(task)
    assert home.daemon is not None
    pids = [home.daemon.pid, home.shim(task)["pid"]]
    time.sleep(1)  # what the request itself made to do is done
    before = sum(map(_cpu_s, pids))
    time.sleep(4)
    assert sum(map(_cpu_s, pids)) - before < 0.06
    home.answer(task, home.request(task)["id"], "allow")
    assert home.wait(task)["status"] == "completed"


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
