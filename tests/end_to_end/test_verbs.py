"""``ostler issue …`` and the like inside a task: real commands, real daemon, the hub as the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.home import OstlerHome, wait_until

PLACE = Path(__file__).parents[2]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OstlerHome]:
    home = OstlerHome(tmp_path, claude=False)
    os.symlink(Path(sys.executable).parent / "ostler", home.bin / "ostler")
    yield home
    home.close()


def inside(home: OstlerHome, script: str, **more: Any) -> str:
    """What a script says that runs as a task; it has to end well."""
    task = home.add(f"set -eu\n{script}", "shell", **more)
    done = home.wait(task)
    assert done["status"] == "completed", (done["error"], home.text(task))
    return home.text(task)


def outside(home: OstlerHome, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *arguments],
        env={**home.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=PLACE,
    )


def test_an_issue_from_its_creation_to_its_comments(world: OstlerHome) -> None:
    world.start()
    said = inside(
        world,
        """
printf '%s' 'Steps:\n\n1. `open`\n2. "close" $HOME' > body.md
ostler issue create --title "Login redirect" --description-file body.md --priority high --json > made.json
key=$(python3 -c 'import json; print(json.load(open("made.json"))["identifier"])')
ostler issue status "$key" in_progress > /dev/null
ostler issue metadata set "$key" pr https://example.com/1 > /dev/null
printf 'Found it: `redirect_uri` & co.' > found.md
ostler issue comment add "$key" --content-file - --json < found.md > comment.json
id=$(python3 -c 'import json; print(json.load(open("comment.json"))["id"])')
ostler issue comment add "$key" --parent "$id" --content 'And mended.' > /dev/null
ostler issue create --title "A part" --parent "$key" > /dev/null
ostler issue get "$key" --json; echo @@
ostler issue comment list "$key" --json; echo @@
ostler issue metadata list "$key" --json; echo @@
ostler issue children "$key" --json; echo @@
ostler issue search redirect --json; echo @@
ostler issue comment list "$key"; echo @@
ostler issue list
""",
    )
    issue, comments, notes, children, found, read, listed = [part.strip() for part in said.split("@@")]
    shown = json.loads(issue)
    assert shown["title"] == "Login redirect"
    assert shown["description"] == 'Steps:\n\n1. `open`\n2. "close" $HOME'
    assert (shown["status"], shown["priority"]) == ("in_progress", "high")
    texts = [each["content"] for each in _rows(comments)]
    assert texts == ["Found it: `redirect_uri` & co.", "And mended."]
    assert "https://example.com/1" in notes
    assert [each["title"] for each in _rows(children)] == ["A part"]
    assert "Login redirect" in [each["title"] for each in _rows(found)]
    assert "Found it: `redirect_uri` & co." in read
    assert "And mended." in read
    assert shown["identifier"] in listed
    assert "Login redirect" in listed


def test_files_go_up_and_come_down(world: OstlerHome) -> None:
    world.start()
    said = inside(
        world,
        """
head -c 300000 /dev/urandom > data.bin
id=$(ostler attachment upload data.bin)
ostler attachment download "$id" --output back.bin > /dev/null
cmp data.bin back.bin && echo same
ostler attachment download "$id" --output back.bin 2> refused && exit 1
cat refused
name=$(printf '檔%.0s' $(seq 83)).bin; cp data.bin "$name"  # as long as names can be
id=$(ostler attachment upload "$name")
cmp data.bin "$(ostler attachment download "$id")" && echo same
ls -a | grep -c part || true
""",
    )
    assert said.splitlines()[0] == said.splitlines()[-2] == "same"
    assert "is there already" in said
    assert said.strip().endswith("0")


def test_what_is_wrong_is_said_with_its_exit_code(world: OstlerHome) -> None:
    world.start()
    said = inside(
        world,
        """
code() { set +e; "$@" > out 2> err; echo "$? $(cat err)"; set -e; }
code ostler issue get NOPE-1
code ostler issue get NOPE-1 --json; cat out
code ostler issue status NOPE-1
code ostler issue create --title ''
code ostler issue comment add X-1
code ostler issue comment add X-1 --content a --content-file b
code ostler issue comment add X-1 --content-file /no/such/file
code env OSTLER_TOKEN=mul_users ostler issue list
code env OSTLER_TOKEN=mat_wrong ostler issue list
""",
    )
    lines = said.splitlines()
    assert lines[0].startswith("5 ")
    assert json.loads("\n".join(lines[2 : lines.index("}", 2) + 1]))["error"]["code"] == "not_found"
    rest = lines[lines.index("}", 2) + 1 :]
    assert [line.split(" ")[0] for line in rest] == ["2", "2", "2", "2", "2", "4", "4"], rest


def test_outside_a_task_there_is_nobody_to_act_for(world: OstlerHome) -> None:
    for words in (["issue", "list"], ["attachment", "upload", "x"], ["chat", "history"], ["repo", "list"]):
        done = outside(world, *words)
        assert done.returncode == 2, done
        assert "inside a task" in done.stderr


def test_a_restarting_daemon_is_waited_for(world: OstlerHome) -> None:
    world.start()
    gate = world.root / "gate"
    wait = f"touch {world.root}/on; while [ ! -e {gate} ]; do sleep 0.02; done"
    task = world.add(f"{wait}; ostler issue list && echo listed", "shell")
    wait_until((world.root / "on").exists, "the run")
    world.kill()
    gate.touch()
    world.start()
    done = world.wait(task)
    assert done["status"] == "completed", world.text(task)
    assert world.text(task).rstrip().endswith("listed")


def test_an_issue_given_to_an_agent_is_worked_on(world: OstlerHome) -> None:
    world.start()
    made = outside(world, "agent", "add", "worker", "--runtime", "shell", "--json")
    assert made.returncode == 0, made.stderr
    agent = json.loads(made.stdout)["id"]
    said = inside(
        world,
        f"""
ostler workspace agents --json > agents.json
grep -q {agent} agents.json
ostler issue create --title "Do it" --assignee-type agent --assignee-id {agent} --status todo --json
""",
    )
    issue = json.loads(said)["id"]

    def ran() -> bool:
        tasks = world.journal(
            "SELECT kind, state FROM tasks WHERE conversation_id = ? OR title = ?", issue, "Do it"
        )
        return any(state == "ended" for _, state in tasks)

    wait_until(ran, "the issue's task")


def _rows(said: str) -> list[dict[str, Any]]:
    found = json.loads(said)
    if isinstance(found, dict):
        found = next(each for each in found.values() if isinstance(each, list))
    return list(found)
