"""Noticing that agents were installed, upgraded or removed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.runtimes.watching import AgentWatch, expanded
from tests.support.fake_server import eventually


class Scene:
    """A watch over a directory, and how often it made for a search."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.bin.mkdir()
        self.programs: list[str] = []
        self.searches = 0
        self.fail = False
        self.happened = asyncio.Event()
        self.watch = AgentWatch(
            lambda: ["~/versions/*/bin", "$NOWHERE/bin", "~/later"],
            lambda: self.programs,
            {"PATH": f"{self.bin}:relative", "HOME": str(root)},
            self.search,
            every_s=0,
        )

    async def search(self) -> None:
        self.searches += 1
        self.happened.set()
        if self.fail:
            raise RuntimeError("no luck")

    async def looked(self) -> None:
        """Let one look happen, and be over."""
        before = self.watch.looks
        self.watch.look()
        await eventually(lambda: self.watch.looks > before)


@contextlib.asynccontextmanager
async def watching(root: Path) -> AsyncIterator[Scene]:
    scene = Scene(root)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.watch.run())
        await eventually(lambda: scene.watch.looks == 1)
        try:
            yield scene
        finally:
            task.cancel()


async def test_nothing_new_makes_for_no_search(tmp_path: Path) -> None:
    async with watching(tmp_path) as scene:
        for _ in range(3):
            await scene.looked()
        assert scene.searches == 0


async def test_what_comes_and_goes_is_searched_for_once(tmp_path: Path) -> None:
    async with watching(tmp_path) as scene:
        program = scene.bin / "agent"
        program.write_text("one")
        await scene.looked()
        await scene.looked()
        assert scene.searches == 1
        scene.programs = [str(program)]
        await scene.looked()  # what was found is looked at from now on
        count = scene.searches
        program.write_text("in place, and longer")
        await scene.looked()
        assert scene.searches == count + 1
        program.unlink()
        await scene.looked()
        assert scene.searches == count + 2


async def test_an_upgrade_behind_a_link_is_seen(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("1")
    async with watching(tmp_path) as scene:
        (scene.bin / "agent").symlink_to(real)
        scene.programs = [str(scene.bin / "agent")]
        await scene.looked()
        count = scene.searches
        replacement = tmp_path / "new"
        replacement.write_text("2")
        os.replace(replacement, real)
        await scene.looked()
        assert scene.searches == count + 1


async def test_a_directory_that_was_not_there_is_seen(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    async with watching(tmp_path) as scene:
        (tmp_path / "later").mkdir()
        await scene.looked()
        assert scene.searches == 1
        (tmp_path / "versions" / "v22" / "bin").mkdir(parents=True)
        await scene.looked()
        assert scene.searches == 2


async def test_a_search_that_fails_is_made_again_at_the_next_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(tmp_path) as scene:
        scene.fail = True
        (scene.bin / "agent").write_text("x")
        await scene.looked()
        scene.fail = False
        await scene.looked()
        await scene.looked()
        assert scene.searches == 2
    assert "looking for agents failed" in caplog.text


async def test_looks_are_rare_but_a_reason_makes_one_at_once(tmp_path: Path) -> None:
    async with watching(tmp_path) as scene:
        scene.watch._every_s = 3600
        (scene.bin / "agent").write_text("x")
        scene.watch.look()
        assert not scene.watch._wanted.is_set()
        scene.watch.look(every_s=0)
        await asyncio.wait_for(scene.happened.wait(), 5)
        scene.happened.clear()
        scene.watch.look(now=True)  # a program turned out to be gone
        await asyncio.wait_for(scene.happened.wait(), 5)


def test_places_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / "n" / "v1" / "bin").mkdir(parents=True)
    found = expanded(["~/n/*/bin", "$A/x", "$UNSET/x", "/opt/y", "rel"], {"HOME": str(tmp_path), "A": "/a"})
    assert found == [f"{tmp_path}/n", f"{tmp_path}/n/v1/bin", "/a/x", "/opt/y"]
