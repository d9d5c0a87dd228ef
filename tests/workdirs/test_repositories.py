"""Checking out repositories for tasks, with real git over files and over http behind a password."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from daemon_core.workdirs.git import Git, kill_tree
from daemon_core.workdirs.mirrors import living_worktrees
from daemon_core.workdirs.repositories import Checkout, Repositories
from daemon_core.workdirs.repository_errors import (
    RefNotFoundError,
    RepositoryBusyError,
    RepositoryError,
    RepositoryInputError,
    RepositoryUnavailableError,
)
from daemon_core.workdirs.repository_urls import RepositoryUrl, parse_url
from daemon_core.workdirs.worktrees import branch_name, branch_of, read_record
from tests.support.git_server import (
    PASSWORD,
    GitServer,
    add_commit,
    clean_environment,
    git,
    make_repository,
)

TASK = "0123abcd-0000-4000-8000-000000000001"


class World:
    """One daemon's repositories, a place for tasks, and a repository to clone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = clean_environment(root)
        self.source = make_repository(root / "srv" / "app")
        self.url = parse_url(str(self.source), allow_local=True)
        self.repositories = Repositories(root / "repos", self.environ)

    def work_dir(self, name: str = "one") -> Path:
        path = self.root / "tasks" / name / "workdir"
        path.mkdir(parents=True, exist_ok=True)
        return path

    async def checkout(self, name: str = "one", url: RepositoryUrl | None = None, **more: Any) -> Checkout:
        return await self.repositories.checkout(
            url or self.url,
            **{
                "workspace_id": "ws",
                "work_dir": self.work_dir(name),
                "task_id": TASK,
                "agent_name": "Agent Smith",
                **more,
            },
        )

    def mirror(self, url: RepositoryUrl | None = None) -> Path:
        return self.repositories.mirrors.path("ws", url or self.url)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    server = GitServer(tmp_path / "srv")
    yield server
    server.close()


def codes(checkout: Checkout) -> list[str]:
    return [notice.code for notice in checkout.notices]


# --- first and later uses ------------------------------------------------------------------------------


async def test_a_checkout_is_a_work_tree_on_a_branch_of_its_own(world: World) -> None:
    done = await world.checkout()
    assert done.path == world.work_dir() / "app"
    assert done.branch == "agent/agent-smith/0123abcd"
    assert done.made
    assert (done.path / "src" / "app.py").read_text() == "print(1)\n"
    assert git("symbolic-ref", "--short", "HEAD", cwd=done.path) == done.branch
    assert git("rev-parse", "HEAD", cwd=done.path) == git("rev-parse", "HEAD", cwd=world.source)
    assert git("status", "--porcelain", cwd=done.path) == ""
    assert world.mirror().parent == world.root / "repos" / "ws"
    assert world.mirror().name.startswith("_local+")
    record = read_record(done.path)
    assert record is not None
    assert (record.base, record.branches) == (done.commit, [done.branch])


async def test_each_checkout_has_what_is_new_at_the_server(world: World) -> None:
    await world.checkout("one")
    new = add_commit(world.source, {"new.txt": "new\n"})
    done = await world.checkout("two")
    assert done.commit == new
    assert (done.path / "new.txt").exists()
    assert done.branch.startswith("agent/agent-smith/0123abcd-")  # taken by the first one
    assert done.branch.removeprefix("agent/agent-smith/0123abcd-").isdigit()


async def test_branches_that_are_gone_and_moved_tags_are_followed(world: World) -> None:
    git("branch", "old", cwd=world.source)
    git("tag", "v1", cwd=world.source)
    await world.checkout("one")
    git("branch", "-D", "old", cwd=world.source)
    git("branch", "old/below", cwd=world.source)
    new = add_commit(world.source, {"x": "1"})
    git("tag", "-f", "v1", cwd=world.source)
    done = await world.checkout("two", ref="v1")
    assert done.commit == new
    assert codes(done) == []
    with pytest.raises(RefNotFoundError):
        await world.checkout("three", ref="old")


@pytest.mark.parametrize("name", ["branch", "tag", "commit", "short", "full", "unborn"])
async def test_refs(world: World, name: str) -> None:
    git("checkout", "-q", "-b", "feature/x", cwd=world.source)
    commit = add_commit(world.source, {"f": "1"})
    git("tag", "-a", "v2", "-m", "two", cwd=world.source)
    git("checkout", "-q", "main", cwd=world.source)
    refs = {
        "branch": "feature/x",
        "tag": "v2",
        "commit": commit,
        "short": commit[:10],
        "full": "refs/heads/feature/x",
    }
    if name == "unborn":
        with pytest.raises(RefNotFoundError) as caught:
            await world.checkout(ref="nowhere")
        assert caught.value.code == "unknown_ref"
    else:
        assert (await world.checkout(ref=refs[name])).commit == commit


async def test_a_branch_comes_before_a_tag_of_the_same_name(world: World) -> None:
    git("tag", "both", cwd=world.source)
    git("checkout", "-q", "-b", "both", cwd=world.source)
    commit = add_commit(world.source, {"f": "1"})
    assert (await world.checkout(ref="both")).commit == commit


async def test_a_commit_on_no_branch_is_asked_for_by_name(world: World) -> None:
    await world.checkout("one")
    git("checkout", "-q", "--detach", cwd=world.source)
    commit = add_commit(world.source, {"pull": "1"})
    git("update-ref", "refs/pull/7/head", commit, cwd=world.source)
    git("checkout", "-q", "main", cwd=world.source)
    assert (await world.checkout("two", ref="refs/pull/7/head")).commit == commit


async def test_the_default_branch_is_the_servers_own(world: World) -> None:
    git("checkout", "-q", "-b", "trunk", cwd=world.source)
    commit = add_commit(world.source, {"t": "1"})
    assert (await world.checkout("one")).commit == commit
    git("checkout", "-q", "main", cwd=world.source)
    assert (await world.checkout("two")).commit != commit  # it has changed at the server


async def test_without_a_default_branch_nothing_is_guessed(world: World) -> None:
    git("branch", "-m", "a", cwd=world.source)
    git("branch", "b", cwd=world.source)
    git("symbolic-ref", "HEAD", "refs/heads/none", cwd=world.source)
    with pytest.raises(RefNotFoundError) as caught:
        await world.checkout()
    assert caught.value.code == "no_default_branch"
    git("branch", "-D", "b", cwd=world.source)
    assert (await world.checkout()).made  # the only one


async def test_an_empty_repository_says_so(world: World) -> None:
    git("init", "-q", str(world.root / "srv" / "empty"), cwd=world.root)
    with pytest.raises(RefNotFoundError) as caught:
        await world.checkout(url=parse_url(str(world.root / "srv" / "empty"), allow_local=True))
    assert caught.value.code == "empty"


# --- what is there already -----------------------------------------------------------------------------


async def test_uncommitted_work_is_never_touched(world: World) -> None:
    first = await world.checkout()
    (first.path / "README.md").write_text("mine\n")
    (first.path / "untracked").write_text("mine\n")
    add_commit(world.source, {"README.md": "theirs\n"})
    again = await world.checkout()
    assert codes(again) == ["kept_uncommitted"]
    assert "2 files" in again.notices[0].message
    assert (again.path, again.branch, again.made) == (first.path, first.branch, False)
    assert (first.path / "README.md").read_text() == "mine\n"
    assert (first.path / "untracked").read_text() == "mine\n"


async def test_a_clean_work_tree_gets_a_new_branch_and_keeps_the_old_one(world: World) -> None:
    first = await world.checkout()
    mine = add_commit(first.path, {"mine": "1"})
    theirs = add_commit(world.source, {"theirs": "1"})
    again = await world.checkout()
    assert codes(again) == ["earlier_branch"]
    assert again.commit == git("rev-parse", "HEAD", cwd=first.path) == theirs
    assert again.branch != first.branch
    assert git("rev-parse", first.branch, cwd=first.path) == mine


async def test_asking_twice_changes_nothing(world: World) -> None:
    first = await world.checkout()
    again = await world.checkout()
    assert (again.path, again.branch, codes(again)) == (first.path, first.branch, [])


async def test_a_later_turn_finds_its_work_tree_as_it_was(world: World) -> None:
    first = await world.checkout()
    mine = add_commit(first.path, {"mine": "1"})
    (first.path / "more").write_text("uncommitted")
    add_commit(world.source, {"theirs": "1"})
    again = await world.checkout(keep=True)
    assert not again.made
    assert git("rev-parse", "HEAD", cwd=first.path) == mine
    assert (first.path / "more").read_text() == "uncommitted"


async def test_a_rebase_in_its_middle_is_kept(world: World) -> None:
    first = await world.checkout()
    (first.path / ".git").read_text()
    git_dir = Path(git("rev-parse", "--absolute-git-dir", cwd=first.path))
    (git_dir / "rebase-merge").mkdir()
    add_commit(world.source, {"x": "1"})
    assert codes(await world.checkout()) == ["kept_uncommitted"]


async def test_commits_on_no_branch_are_kept(world: World) -> None:
    first = await world.checkout()
    git("checkout", "-q", "--detach", cwd=first.path)
    add_commit(first.path, {"loose": "1"})
    assert codes(await world.checkout()) == ["kept_uncommitted"]


async def test_something_else_in_its_place_is_left_alone(world: World) -> None:
    taken = world.work_dir() / "app"
    taken.mkdir()
    (taken / "precious").write_text("x")
    done = await world.checkout()
    assert done.path == world.work_dir() / "app-2"
    assert (taken / "precious").read_text() == "x"
    assert (await world.checkout()).path == done.path


async def test_a_link_in_its_place_is_not_followed(world: World) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    (world.work_dir() / "app").symlink_to(outside)
    assert (await world.checkout()).path.name == "app-2"
    assert not any(outside.iterdir())


async def test_two_repositories_of_one_name_live_side_by_side(world: World) -> None:
    other = parse_url(
        str(make_repository(world.root / "srv" / "fork" / "app", {"other": "1"})), allow_local=True
    )
    first, second = await world.checkout(), await world.checkout(url=other)
    assert (first.path.name, second.path.name) == ("app", "app-2")
    assert (second.path / "other").exists()


async def test_what_ostler_writes_is_not_the_agents_to_commit(world: World) -> None:
    done = await world.checkout()
    for name in ("CLAUDE.md", "AGENTS.md", ".claude/x", ".opencode/x", ".agent_context/x"):
        path = done.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert git("status", "--porcelain", cwd=done.path) == ""
    exclude = world.mirror() / "info" / "exclude"
    exclude.write_text(exclude.read_text() + "theirs\n")
    await world.checkout("two")
    assert exclude.read_text().count("/CLAUDE.md") == 1
    assert "theirs" in exclude.read_text()


async def test_what_an_agent_did_to_the_shared_configuration_is_mended(world: World) -> None:
    done = await world.checkout()
    git("remote", "set-url", "origin", "https://nowhere.invalid/x", cwd=done.path)
    git("config", "--add", "remote.origin.fetch", "+refs/heads/*:refs/heads/*", cwd=done.path)
    new = add_commit(world.source, {"x": "1"})
    assert (await world.checkout("two")).commit == new
    assert git("config", "--get-all", "remote.origin.fetch", cwd=done.path).count("\n") == 0


# --- trailer -------------------------------------------------------------------------------------------


async def test_the_trailer_comes_and_goes_with_the_setting(world: World) -> None:
    trailer = "Co-authored-by: It's me <me@example.com>"
    done = await world.checkout(trailer=trailer)
    add_commit(done.path, {"a": "1"}, "one")
    assert git("log", "-1", "--format=%B", cwd=done.path) == f"one\n\n{trailer}"
    git("commit", "--amend", "--no-edit", "-q", cwd=done.path)
    assert git("log", "-1", "--format=%B", cwd=done.path).count("Co-authored-by") == 1
    other = await world.checkout("two")
    add_commit(other.path, {"b": "1"}, "two")
    assert (
        git("log", "-1", "--format=%B", cwd=other.path) == "two"
    )  # one work tree's setting is not another's
    await world.checkout(keep=True)
    add_commit(done.path, {"c": "1"}, "three")
    assert git("log", "-1", "--format=%B", cwd=done.path) == "three"


@pytest.mark.parametrize("where", ["local", "global", "repository"])
async def test_the_users_own_hooks_go_on(world: World, where: str) -> None:
    hooks = world.root / "own hooks"
    config = world.root / "gitconfig"
    if where == "global":
        config.write_text(f'[core]\n\thooksPath = "{hooks}"\n')
    done = await world.checkout(trailer="Co-authored-by: A <a@b>")
    if where == "local":
        git("config", "core.hooksPath", ".hooks", cwd=done.path)  # as husky does, after the checkout
        hooks = done.path / ".hooks"
    if where == "repository":
        hooks = world.mirror() / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "prepare-commit-msg", "commit-msg"):
        (hooks / name).write_text(f'#!/bin/sh\necho {name} "$2" >> "{world.root}/ran"\n')
        (hooks / name).chmod(0o755)
    env = {"GIT_CONFIG_GLOBAL": str(config)} if where == "global" else {}
    (done.path / "x").write_text("1")
    git("add", "x", cwd=done.path)
    git("commit", "-q", "-m", "x", cwd=done.path, env=env)
    assert (world.root / "ran").read_text().split() == [
        "pre-commit",
        "prepare-commit-msg",
        "message",
        "commit-msg",
    ]
    assert "Co-authored-by: A <a@b>" in git("log", "-1", "--format=%B", cwd=done.path)
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(AssertionError):
        git("commit", "-q", "--allow-empty", "-m", "y", cwd=done.path, env=env)


# --- what a repository may hold ------------------------------------------------------------------------


async def test_submodules_and_large_files_are_left_sane(world: World) -> None:
    inner = make_repository(world.root / "srv" / "inner")
    git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "inner", cwd=world.source)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"
    add_commit(
        world.source, {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "a.bin": pointer}
    )
    # The user's configuration wants git-lfs, which is not there.
    config = world.root / "gitconfig"
    config.write_text(
        '[filter "lfs"]\n\tsmudge = git-lfs smudge -- %f\n\tclean = git-lfs clean -- %f\n'
        "\tprocess = git-lfs filter-process\n\trequired = true\n"
    )
    world.repositories = Repositories(
        world.root / "repos", {**world.environ, "GIT_CONFIG_GLOBAL": str(config)}
    )
    done = await world.checkout()
    assert sorted(codes(done)) == ["lfs_pointers", "submodules"]
    assert (done.path / "a.bin").read_text() == pointer
    assert list((done.path / "inner").iterdir()) == []


async def test_hooks_of_the_user_do_not_run_for_what_ostler_does(world: World) -> None:
    hooks = world.root / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {world.root}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    config = world.root / "gitconfig"
    config.write_text(f"[core]\n\thooksPath = {hooks}\n")
    world.repositories = Repositories(
        world.root / "repos", {**world.environ, "GIT_CONFIG_GLOBAL": str(config)}
    )
    await world.checkout()
    assert not (world.root / "ran").exists()


# --- credentials ---------------------------------------------------------------------------------------


async def test_http_with_a_credential_helper_leaves_no_trace_of_it(world: World, server: GitServer) -> None:
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(server.helper_config(world.root / "gitconfig"))}
    world.repositories = Repositories(world.root / "repos", environ)
    url = parse_url(server.url("app/.git").replace("//", f"//me:{PASSWORD}@"), allow_local=False)
    assert url.had_credentials
    done = await world.checkout(url=url)
    assert (done.path / "README.md").exists()
    for place in (world.root / "repos", world.root / "tasks"):
        for path in place.rglob("*"):
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path


async def test_without_a_helper_nothing_is_asked_and_the_reason_is_told(
    world: World, server: GitServer
) -> None:
    asked = world.root / "asked"
    askpass = world.root / "askpass"
    askpass.write_text(f"#!/bin/sh\ntouch {asked}\necho {PASSWORD}\n")
    askpass.chmod(0o755)
    environ = {**world.environ, "GIT_ASKPASS": str(askpass), "SSH_ASKPASS": str(askpass), "DISPLAY": ":0"}
    world.repositories = Repositories(world.root / "repos", environ)
    with pytest.raises(RepositoryUnavailableError) as caught:
        await world.checkout(url=parse_url(server.url("app/.git"), allow_local=False))
    assert caught.value.code == "access"
    assert "there is no copy of it yet" in str(caught.value)
    assert not asked.exists()
    assert {path.suffix for path in (world.root / "repos" / "ws").iterdir()} == {".lock"}


async def test_a_server_in_trouble_means_older_code_and_a_notice(world: World, server: GitServer) -> None:
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(server.helper_config(world.root / "gitconfig"))}
    world.repositories = Repositories(world.root / "repos", environ)
    url = parse_url(server.url("app/.git"), allow_local=False)
    old = await world.checkout(url=url)
    server.open = False
    again = await world.checkout("two", url=url)
    assert codes(again) == ["fetch_failed"]
    assert again.commit == old.commit
    server.open = True
    new = add_commit(world.source, {"x": "1"})
    third = await world.checkout("three", url=url)
    assert (third.commit, codes(third)) == (new, [])


async def test_errors_say_what_to_do(world: World, server: GitServer) -> None:
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(server.helper_config(world.root / "gitconfig"))}
    world.repositories = Repositories(world.root / "repos", environ)
    cases = [
        (parse_url(server.url("nothing"), allow_local=False), "not_found"),
        (parse_url("http://127.0.0.1:9/x", allow_local=False), "network"),
        (parse_url(str(world.root / "nothing"), allow_local=True), "not_found"),
    ]
    for url, code in cases:
        with pytest.raises(RepositoryUnavailableError) as caught:
            await world.checkout(url=url)
        assert caught.value.code == code, str(caught.value)


async def test_no_git_is_said(world: World) -> None:
    world.repositories = Repositories(world.root / "repos", {"PATH": str(world.root)})
    with pytest.raises(RepositoryError) as caught:
        await world.checkout()
    assert caught.value.code == "no_git"


# --- malicious input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ref", ["--upload-pack=x", "-x", "a..b", "a b", "x:y", "a\nb", "@{-1}", "a*", "/x", "x" * 300]
)
async def test_names_that_are_no_ref_are_refused(world: World, ref: str) -> None:
    with pytest.raises(RepositoryInputError) as caught:
        await world.checkout(ref=ref)
    assert caught.value.code == "bad_ref"


def test_branch_names() -> None:
    assert branch_name("", TASK) == "agent/agent/0123abcd"
    assert branch_name("../../x; rm", TASK) == "agent/x-rm/0123abcd"
    assert branch_name("--" + "a" * 29 + "-b", TASK) == "agent/" + "a" * 29 + "/0123abcd"
    assert branch_name("Ünï", "zz") == "agent/n/task"


async def test_a_transport_that_starts_programs_is_never_used(world: World) -> None:
    evil = RepositoryUrl(
        text=f"ext::sh -c touch% {world.root}/evil", key="x", cache_name="x.git", name="x", local=True
    )
    with pytest.raises(RepositoryError):
        await world.checkout(url=evil)
    assert not (world.root / "evil").exists()


# --- at the same time ----------------------------------------------------------------------------------


async def test_concurrent_first_uses_are_one_clone(world: World, server: GitServer) -> None:
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(server.helper_config(world.root / "gitconfig"))}
    world.repositories = Repositories(world.root / "repos", environ)
    url = parse_url(server.url("app/.git"), allow_local=False)
    done = await asyncio.gather(*(world.checkout(f"t{n}", url=url, task_id=f"{n:08x}-x") for n in range(6)))
    assert len({one.path for one in done}) == 6
    assert len({one.branch for one in done}) == 6
    packs = [path for path in server.requests if path.endswith("/git-upload-pack")]
    # Protocol v2: a listing for HEAD, a listing and a pack for the one clone; nothing for the other five.
    assert len(packs) <= 3


async def test_two_daemons_share_one_cache(world: World) -> None:
    other = Repositories(world.root / "repos", world.environ)
    jobs = []
    for number in range(8):
        repositories = (world.repositories, other)[number % 2]
        jobs.append(
            repositories.checkout(
                world.url, workspace_id="ws", work_dir=world.work_dir(f"t{number}"), task_id=f"{number:08x}"
            )
        )
    done = await asyncio.gather(*jobs)
    assert all(codes(one) == [] for one in done)
    assert len(living_worktrees(world.mirror())) == 8


async def test_agents_that_commit_do_not_disturb_checkouts(world: World) -> None:
    first = await world.checkout("one")
    stop = threading.Event()

    def commit() -> int:
        count = 0
        while not stop.is_set():
            add_commit(first.path, {"n": str(count)})
            count += 1
        return count

    agent = asyncio.create_task(asyncio.to_thread(commit))
    try:
        for number in range(5):
            add_commit(world.source, {"n": str(number)})
            done = await world.checkout(f"t{number}")
            assert codes(done) == []
    finally:
        stop.set()
    assert await agent > 0
    assert git("fsck", "--connectivity-only", cwd=first.path) == ""


async def test_a_lock_that_is_not_to_be_had_says_busy(world: World) -> None:
    mirror = world.mirror()
    async with world.repositories.mirrors.hold(mirror):
        with pytest.raises(RepositoryBusyError):
            async with Repositories(world.root / "repos", world.environ).mirrors.hold(mirror, wait_s=0.2):
                pass


# --- interrupted ---------------------------------------------------------------------------------------


async def test_a_command_over_its_limit_is_killed_with_all_it_started(
    world: World, server: GitServer
) -> None:
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(server.helper_config(world.root / "gitconfig"))}
    server.hold = threading.Event()
    world.repositories = Repositories(world.root / "repos", environ, git_limit_s=1.5)
    with pytest.raises(RepositoryUnavailableError) as caught:
        await world.checkout(url=parse_url(server.url("app/.git"), allow_local=False))
    assert caught.value.code == "timed_out"
    assert server.held.is_set()
    assert gits_of(world) == []


async def test_a_cancelled_checkout_leaves_nothing_running_and_the_next_one_works(
    world: World, server: GitServer
) -> None:
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(server.helper_config(world.root / "gitconfig"))}
    world.repositories = Repositories(world.root / "repos", environ)
    server.hold = threading.Event()
    url = parse_url(server.url("app/.git"), allow_local=False)
    task = asyncio.create_task(world.checkout(url=url))
    await asyncio.to_thread(server.held.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gits_of(world) == []
    server.hold.set()
    server.hold = None
    assert (await world.checkout(url=url)).made
    assert list(world.mirror(url).parent.glob("*.new-*")) == []


PLACES = ["repo_cloning", "repo_cloned", "repo_fetched", "repo_worktree", "repo_checked_out"]


@pytest.mark.parametrize("visit", [1, 2])
@pytest.mark.parametrize("place", PLACES)
async def test_a_death_at_any_place_is_mended_by_the_next_one(world: World, place: str, visit: int) -> None:
    """The process dies as by kill -9 in its first checkout, or in a second one on the same mirror."""
    if visit == 2:
        await world.checkout("zero")
        add_commit(world.source, {"later": "1"})
    if (place, visit) in (("repo_cloning", 2), ("repo_cloned", 2)):
        return  # a second checkout does not clone
    assert run_elsewhere(world, place) == -signal.SIGKILL
    done = await world.checkout()
    assert done.path == world.work_dir() / "app"
    assert git("status", "--porcelain", cwd=done.path) == ""
    assert git("rev-parse", "HEAD", cwd=done.path) == git("rev-parse", "HEAD", cwd=world.source)
    assert len(living_worktrees(world.mirror())) == visit
    assert git("fsck", "--connectivity-only", cwd=done.path) == ""
    assert list(world.mirror().parent.glob("*.new-*")) == []


async def test_the_git_of_a_dead_daemon_is_ended_by_the_next_one(world: World, server: GitServer) -> None:
    config = server.helper_config(world.root / "gitconfig")
    environ = {**world.environ, "GIT_CONFIG_GLOBAL": str(config)}
    server.hold = threading.Event()
    url = server.url("app/.git")
    child = start_elsewhere(world, url, environ)
    await asyncio.to_thread(server.held.wait, 20)
    child.kill()
    child.wait()
    assert gits_of(world)  # it has outlived its daemon
    release = server.hold
    server.hold = None
    world.repositories = Repositories(world.root / "repos", environ)
    done = await world.checkout(url=parse_url(url, allow_local=False))
    release.set()
    assert done.made
    await until(lambda: not gits_of(world))


@pytest.mark.parametrize("when_ms", [5, 20, 40, 60, 80, 110, 150, 200])
async def test_kill_9_of_git_and_daemon_at_any_moment(world: World, when_ms: int) -> None:
    """Not at a chosen place: whatever git was doing just then, with its lock files and half-made files."""
    add_commit(world.source, {f"d{n}/f{m}": f"{n} {m}\n" * 20 for n in range(20) for m in range(20)})
    await world.checkout("zero")
    add_commit(world.source, {f"d{n}/f{m}": f"{m} {n}\n" * 20 for n in range(20) for m in range(20)})
    child = start_elsewhere(world, str(world.source), world.environ)
    await until(lambda: gits_of(world) or child.poll() is not None)
    await asyncio.sleep(when_ms / 1000)
    child.kill()
    child.wait()
    for process in gits_of(world):
        kill_tree(process.pid)
    done = await world.checkout()
    assert git("status", "--porcelain", cwd=done.path) == ""
    assert git("rev-parse", "HEAD", cwd=done.path) == git("rev-parse", "HEAD", cwd=world.source)
    assert codes(done) == []


async def test_lock_files_that_a_killed_git_left_are_removed(world: World) -> None:
    await world.checkout("one")
    new = add_commit(world.source, {"x": "1"})
    mirror = world.mirror()
    for name in ("packed-refs.lock", "refs/remotes/origin/main.lock", "config.lock", "HEAD.lock"):
        (mirror / name).write_text("")
    done = await world.checkout("two")
    assert (done.commit, codes(done)) == (new, [])


# --- damaged -------------------------------------------------------------------------------------------


def spoil(mirror: Path, how: str) -> None:
    if how == "HEAD":
        (mirror / "HEAD").write_text("")
    elif how == "objects":
        for path in (mirror / "objects").rglob("*"):
            if path.is_file():
                path.chmod(0o600)
                path.write_bytes(b"")
    elif how == "config":
        (mirror / "config").write_text("[[[")
    elif how == "refs":
        (mirror / "refs" / "remotes" / "origin" / "main").write_text("")


@pytest.mark.parametrize("how", ["HEAD", "objects", "config", "refs"])
async def test_a_damaged_mirror_nobody_uses_is_cloned_anew(world: World, how: str) -> None:
    done = await world.checkout("one")
    subprocess.run(["rm", "-rf", str(done.path)], check=True)
    spoil(world.mirror(), how)
    again = await world.checkout("two")
    assert "replaced" in codes(again) or how == "refs"
    assert git("rev-parse", "HEAD", cwd=again.path) == git("rev-parse", "HEAD", cwd=world.source)
    if "replaced" in codes(again):
        assert len(list(world.mirror().parent.glob("*.damaged-*"))) == 1
        await world.repositories.prune()
        assert not list(world.mirror().parent.glob("*.damaged-*"))


async def test_a_damaged_mirror_in_use_is_never_taken_away(world: World) -> None:
    done = await world.checkout("one")
    (done.path / "precious").write_text("x")
    spoil(world.mirror(), "objects")
    try:
        again = await world.checkout("two")
    except RepositoryError as error:
        assert error.code == "damaged"  # noqa: PT017 - either outcome is right
    else:
        assert "repaired" in codes(again)
    assert (done.path / "precious").read_text() == "x"
    assert world.mirror().exists()
    assert not list(world.mirror().parent.glob("*.damaged-*"))


# --- clearing up ---------------------------------------------------------------------------------------


async def test_pruning_forgets_what_is_gone_and_keeps_what_is_there(world: World) -> None:
    gone, there = await world.checkout("one"), await world.checkout("two")
    kept_too = (await world.checkout("two", ref=git("rev-parse", "HEAD", cwd=world.source))).branch
    subprocess.run(["rm", "-rf", str(world.work_dir("one"))], check=True)
    pruned = await world.repositories.prune(gone_only=True)
    assert (pruned.worktrees, pruned.branches) == (1, 1)
    branches = git("branch", "--format=%(refname:short)", cwd=there.path).split()
    assert gone.branch not in branches
    assert {there.branch, kept_too} <= set(branches)
    assert (await world.repositories.prune()).worktrees == 0


async def test_an_unused_mirror_can_be_removed_and_comes_back(world: World) -> None:
    await world.checkout("one")
    (use,) = world.repositories.usage()
    assert (use.path, use.workspace, len(use.worktrees)) == (world.mirror(), "ws", 1)
    assert not await world.repositories.remove(world.mirror())
    subprocess.run(["rm", "-rf", str(world.work_dir("one"))], check=True)
    await world.repositories.collect(world.mirror())
    assert await world.repositories.remove(world.mirror())
    assert not world.mirror().exists()
    assert (await world.checkout("two")).made


async def test_collecting_is_noted_and_gives_way_to_a_checkout(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.checkout("one")
    mark = world.mirror() / "ostler-collected"
    assert not mark.exists()
    assert await world.repositories.collect(world.mirror())
    assert world.repositories.usage()[0].collected_at == mark.stat().st_mtime
    mark.unlink()
    began = asyncio.Event()

    async def long(*_: object) -> None:
        began.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(world.repositories, "_collect", long)
    async with asyncio.TaskGroup() as group:
        collecting = group.create_task(world.repositories.collect(world.mirror()))
        await began.wait()
        assert (await world.checkout("two")).made
    assert not collecting.result()
    assert not mark.exists()
    async with world.repositories.mirrors.hold(world.mirror()):
        assert not await world.repositories.collect(world.mirror())


async def test_the_branch_of_a_task_is_told_where_there_is_one(world: World) -> None:
    done = await world.checkout("one")
    assert branch_of(world.work_dir("one"), TASK) == done.branch
    assert branch_of(world.work_dir("one"), "ffffffff-1") == done.branch  # a later turn, on the same branch
    again = await world.checkout("one", ref=git("rev-parse", "HEAD", cwd=world.source))
    if again.branch != done.branch:
        assert branch_of(world.work_dir("one"), TASK) == ""
    assert branch_of(world.root / "nowhere", TASK) == ""


async def test_pruning_leaves_a_mirror_that_somebody_works_on(world: World) -> None:
    await world.checkout("one")
    async with world.repositories.mirrors.hold(world.mirror()):
        other = Repositories(world.root / "repos", world.environ)
        assert (await other.prune()).skipped == 1


# --- helpers -------------------------------------------------------------------------------------------

ELSEWHERE = """
import asyncio, os, signal, sys
from pathlib import Path
from daemon_core.workdirs.repositories import Repositories
from daemon_core.workdirs.repository_urls import parse_url
root, url, work_dir, task, place = sys.argv[1:]
def reach(name):
    if name == place:
        os.kill(os.getpid(), signal.SIGKILL)
repositories = Repositories(Path(root), dict(os.environ), reach=reach)
asyncio.run(repositories.checkout(
    parse_url(url, allow_local=True), workspace_id="ws", work_dir=Path(work_dir), task_id=task,
    agent_name="Agent Smith"))
"""


def arguments(world: World, url: str, place: str) -> list[str]:
    return [str(world.root / "repos"), url, str(world.work_dir()), TASK, place]


def start_elsewhere(world: World, url: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """A checkout by another daemon, going on."""
    return subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, *arguments(world, url, "")],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )


def run_elsewhere(world: World, place: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *arguments(world, str(world.source), place)],
        env=world.environ,
        check=False,
        cwd=Path(__file__).parents[2],
    ).returncode


def gits_of(world: World) -> list[psutil.Process]:
    """Living git processes that work for this world."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("HOME") == str(world.root)
            is_git = "git" in os.path.basename(process.exe()) and "http-backend" not in process.cmdline()
            if ours and is_git and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def until(condition: Callable[[], object], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def test_the_environment_of_git_is_free_of_ours() -> None:
    env = Git({"PATH": "/usr/bin", "OSTLER_TOKEN": "x", "MULTICA_TOKEN": "x", "GIT_DIR": "/x"})._environ
    assert not any(name.startswith(("OSTLER_", "MULTICA_")) for name in env)
    assert "GIT_DIR" not in env
