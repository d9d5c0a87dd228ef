"""A conversation with a repository: kept with it, and in the claim of each of its turns."""

from __future__ import annotations

import pytest

from daemon_core.hub import InvalidInputError, NewTask
from tests.hub.world import World


async def test_every_turn_brings_the_repository_of_its_conversation(world: World) -> None:
    task = await world.hub.add_task(
        NewTask(prompt="one", provider="shell", repo_url="https://host/a/b", repo_ref="dev")
    )
    assert (task.repo_url, task.repo_ref) == ("https://host/a/b", "dev")
    claimed = await world.claim()
    assert claimed["repos"] == [{"url": "https://host/a/b", "ref": "dev"}]
    await world.run(claimed["id"])
    second = await world.hub.reply(task.id, "two")
    assert second.repo_url == "https://host/a/b"
    assert (await world.claim())["repos"] == [{"url": "https://host/a/b", "ref": "dev"}]


async def test_without_one_there_is_none(world: World) -> None:
    await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    assert "repos" not in await world.claim()


async def test_a_directory_and_a_repository_exclude_each_other(world: World) -> None:
    with pytest.raises(InvalidInputError):
        await world.hub.add_task(
            NewTask(prompt="one", provider="shell", repo_url="https://host/a", directory="/x")
        )
