"""Tasks with repositories: ``--repo`` on the hub, ``ostler repo checkout`` inside a run, deaths."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.control.errors import ControlError
from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.git_server import PASSWORD, GitServer, add_commit, git, make_repository

IDENTITY = "[user]\n\tname = Tester\n\temail = tester@example.com\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OstlerHome]:
    home = OstlerHome(tmp_path, environ={"GIT_CONFIG_NOSYSTEM": "1"}, claude=False)
    (home.user_home / ".gitconfig").write_text(IDENTITY)
    os.symlink(Path(sys.executable).parent / "ostler", home.bin / "ostler")
    yield home
    home.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "srv" / "app")


def cli(home: OstlerHome, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *arguments],
        env={**home.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )


def ended(home: OstlerHome, task_id: str, status: str = "completed") -> dict[str, Any]:
    task = home.wait(task_id)
    assert task["status"] == status, (task["error"], home.text(task_id))
    return task


def test_a_task_begins_with_its_repository_and_commits_to_it(world: OstlerHome, source: Path) -> None:
    world.start()
    prompt = "cd app && git branch --show-current && echo new > new.txt && git add . && git commit -qm agent"
    added = cli(world, "task", "add", prompt, "--runtime", "shell", "--repo", str(source), "--json")
    assert added.returncode == 0, added.stderr
    task_id = json.loads(added.stdout)["id"]
    task = ended(world, task_id)
    assert task["repo"] == f"file://{source}"
    work_tree = Path(task["work_dir"]) / "app"
    branch = world.text(task_id).strip()
    assert branch.startswith("agent/shell/")
    assert branch.endswith(task_id[:8])
    log = git("log", "--format=%s|%b", branch, cwd=work_tree).splitlines()
    assert log[0] == "agent|"  # no trailer unless the user wants one
    assert git("log", "--format=%s", "--all", cwd=source).splitlines() == [
        "more"
    ]  # the user's own is as it was

    # The next turn goes on where this one was, uncommitted work and all.
    (work_tree / "left").write_text("uncommitted")
    add_commit(source, {"theirs": "1"})
    reply = world.call("POST", f"/v1/tasks/{task_id}/reply", {"prompt": "cd app && cat left new.txt"})
    ended(world, reply["id"])
    assert world.text(reply["id"]).split() == ["uncommittednew"]

    # At the end of the conversation its work tree and branch are forgotten.
    (mirror,) = world.directories.repositories.glob("*/*.git")
    world.call("DELETE", f"/v1/tasks/{task_id}")
    wait_until(lambda: not list(mirror.glob("worktrees/*")), "the work tree to be forgotten")
    assert not work_tree.exists()
    wait_until(lambda: "agent/" not in git("branch", cwd=mirror), "its branch to be deleted")


def test_an_agent_gets_a_repository_by_command(world: OstlerHome, source: Path) -> None:
    other = make_repository(source.parent / "lib", {"lib.py": "1\n"})
    git("checkout", "-q", "-b", "dev", cwd=other)
    wanted = add_commit(other, {"dev.py": "1\n"})
    git("checkout", "-q", "main", cwd=other)
    assert cli(world, "config", "set", "repositories.urls", str(other)).returncode == 0
    assert (
        cli(world, "config", "set", "repositories.co_author", "Helper <helper@example.com>").returncode == 0
    )
    world.start()
    prompt = f"""
        mkdir deep && cd deep
        cd "$(ostler repo checkout {other} --ref dev)" && pwd && git rev-parse HEAD
        git commit -q --allow-empty -m x && git log -1 --format=%b
        cd / && ostler repo checkout {other} --json > /dev/null || exit 9
        ostler repo checkout {source}; echo "refused $?"
        ostler repo checkout {other} --ref nowhere; echo "unknown $?"
        ostler repo checkout --json -- --upload-pack=x; echo "bad $?"
        ostler repo checkout {other} --ref=-x; echo "ref $?"
        true
    """
    task_id = world.add(prompt, "shell")
    task = ended(world, task_id)
    said = world.text(task_id)
    assert f"{task['work_dir']}/lib\n{wanted}\nCo-authored-by: Helper <helper@example.com>\n" in said
    for line in ("refused 4", "unknown 5", "bad 2", "ref 2"):
        assert line in said, said
    assert "not configured for this task" in said


def test_a_repository_that_cannot_be_had_fails_the_task_in_words(world: OstlerHome, tmp_path: Path) -> None:
    world.start()
    task_id = world.add("true", "shell", repo="http://127.0.0.1:9/x/y")
    task = ended(world, task_id, "failed")
    assert "cannot be reached" in task["error"]
    assert task["work_dir"]  # so that it goes with its conversation
    assert "http://127.0.0.1:9/x/y" in cli(world, "task", "show", task_id).stdout
    empty = tmp_path / "empty"
    git("init", "-q", str(empty), cwd=tmp_path)
    task = ended(world, world.add("true", "shell", repo=str(empty)), "failed")
    assert "is empty" in task["error"]


@pytest.mark.parametrize(
    ("repo", "why"),
    [
        (f"https://me:{PASSWORD}@example.com/a", "credentials_in_url"),
        ("ext::sh -c x", "bad_url"),
        ("ext::sh", "unsafe_url"),
        ("--upload-pack=x", "unsafe_url"),
        ("/nowhere/at/all", "not_found"),
    ],
)
def test_addresses_are_looked_at_before_anything_is_stored(world: OstlerHome, repo: str, why: str) -> None:
    world.start()
    with pytest.raises(ControlError) as caught:
        world.add("true", "shell", repo=repo)
    assert (caught.value.code, caught.value.params["why"]) == ("repository_refused", why)
    assert PASSWORD not in str(caught.value)
    said = cli(world, "task", "add", "true", "--runtime", "shell", f"--repo={repo}")
    assert said.returncode == 2
    assert PASSWORD not in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_credential_is_nowhere_but_in_its_helper(world: OstlerHome, source: Path) -> None:
    server = GitServer(source.parent)
    try:
        server.helper_config(world.user_home / ".gitconfig")
        world.start()
        task_id = world.add("cat app/README.md", "shell", repo=server.url("app/.git"))
        ended(world, task_id)
        assert world.text(task_id) == "hello\n"
        server.open = False
        second = world.add("cat app/README.md", "shell", repo=server.url("app/.git"))
        ended(world, second)  # older code
        world.stop()
    finally:
        server.close()
    for path in Path(world.environ["OSTLER_HOME"]).rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "place", ["repo_cloning", "repo_cloned", "repo_fetched", "repo_worktree", "repo_checked_out", "prepared"]
)
def test_a_daemon_that_dies_while_it_prepares_goes_on_after_it(
    world: OstlerHome, source: Path, place: str
) -> None:
    world.start(kill_at=place)
    task_id = world.add("cd app && git status --porcelain && cat README.md", "shell", repo=str(source))
    world.wait_dead()
    world.start()
    ended(world, task_id)
    assert world.text(task_id) == "hello\n"
    (mirror,) = world.directories.repositories.glob("*/*.git")
    assert len(list(mirror.glob("worktrees/*"))) == 1
    assert not list(mirror.parent.glob("*.new-*"))


def test_many_tasks_on_one_repository(world: OstlerHome, source: Path) -> None:
    world.start()
    prompt = (
        "cd app && echo $OSTLER_TASK_ID > mine && git add . && git commit -qm mine && git log --format=%s"
    )
    tasks = [world.add(prompt, "shell", repo=str(source)) for _ in range(6)]
    for task_id in tasks:
        ended(world, task_id)
        assert world.text(task_id).split() == ["mine", "more"]


# --- the route -----------------------------------------------------------------------------------------


def ask(home: OstlerHome, body: Any, token: str = "", method: str = "POST") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", home.status()["port"], timeout=60)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(
            method, "/repo/checkout", body if isinstance(body, str) else json.dumps(body), headers
        )
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith(
            "application/json" if answer.status == 200 else "text/plain"
        )
        return answer.status, answer.read().decode().strip()
    finally:
        connection.close()


def test_the_route_answers_the_tasks_own_token_alone(world: OstlerHome, source: Path) -> None:
    world.start()
    tell = 'echo "$OSTLER_TOKEN $OSTLER_WORKSPACE_ID" > told; mv told env'
    prompt = f"{tell}; while [ ! -e end ]; do sleep 0.05; done"
    first = world.add(prompt, "shell", repo=str(source))
    second = world.add(prompt, "shell", repo=str(source))
    tokens = {}
    for task_id in (first, second):
        world.wait(task_id, "running")
        told = Path(world.task(task_id)["work_dir"]) / "env"
        wait_until(told.exists, "the token")
        tokens[task_id], workspace = told.read_text().split()
    work_dir = world.task(first)["work_dir"]
    body = {"url": str(source), "workspace_id": workspace, "workdir": work_dir, "task_id": first, "new": [1]}
    token = tokens[first]

    assert ask(world, body, token, method="GET") == (405, "method not allowed")
    assert ask(world, "{", token) == (400, "invalid request body")
    for name in ("url", "workspace_id", "workdir"):
        assert ask(world, {**body, name: ""}, token) == (400, f"{name} is required")
    assert ask(world, body)[0] == 401  # a task of the hub has a command line that sends the token
    assert ask(world, body, "mat_wrong")[0] == 401
    assert ask(world, body, tokens[second])[0] == 403
    assert ask(world, {**body, "workspace_id": "other"}, token)[0] == 403
    for outside in (
        "/",
        "/tmp",
        work_dir + "/..",
        "relative",
        world.task(second)["work_dir"],
        work_dir + "\0",
    ):
        assert ask(world, {**body, "workdir": outside}, token)[0] == 403, outside
    (Path(work_dir) / "link").symlink_to("/tmp")
    assert ask(world, {**body, "workdir": work_dir + "/link"}, token)[0] == 403
    assert ask(world, {**body, "url": "https://example.com/x"}, token)[0] == 400

    (Path(work_dir) / "below").mkdir()
    status, said = ask(world, {**body, "workdir": work_dir + "/below", "agent_name": "A B"}, token)
    assert status == 200, said
    answer = json.loads(said)
    assert answer["path"] == f"{work_dir}/below/app"
    assert answer["branch_name"] == f"agent/a-b/{first[:8]}"
    for task_id in (first, second):
        (Path(world.task(task_id)["work_dir"]) / "end").touch()
        ended(world, task_id)
    assert ask(world, body, token)[0] == 401  # the run is over, and with it the token


def test_outside_of_a_task_the_command_says_what_to_do_instead(world: OstlerHome, source: Path) -> None:
    said = cli(world, "repo", "checkout", str(source))
    assert said.returncode == 2
    assert "inside a task only" in said.stderr
