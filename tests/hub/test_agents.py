"""Named agents of the hub."""

from __future__ import annotations

import pytest

from daemon_core.hub import AgentChanges, AgentSpec, ConflictError, InvalidInputError, NewTask, NotFoundError
from daemon_core.protocol.wire import Skill, SkillFile
from tests.hub.world import World


async def test_the_secrets_of_an_agent_are_shown_only_when_asked_for(world: World) -> None:
    spec = AgentSpec(name="A", provider="claude", custom_env={"KEY": "hidden"}, mcp_config={"k": "hidden"})
    added = await world.hub.add_agent(spec)
    assert added.custom_env_names == ["KEY"]
    assert added.has_mcp_config
    for view in (added, await world.hub.get_agent("a"), (await world.hub.list_agents())[0]):
        assert "hidden" not in repr(view)
    told = await world.hub.get_agent("a", secrets=True)
    assert (told.custom_env, told.mcp_config) == ({"KEY": "hidden"}, {"k": "hidden"})
    assert "hidden" not in str((await world.get("/api/agents")).body)


async def test_names_are_unique_whatever_their_case(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="Größe", provider="claude"))
    for name in ("GRÖSSE", " größe "):
        with pytest.raises(ConflictError) as refused:
            await world.hub.add_agent(AgentSpec(name=name, provider="shell"))
        assert (refused.value.code, refused.value.params) == ("agent_exists", {"agent": "Größe"})


async def test_an_unknown_agent_is_told_with_the_known_ones(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="one", provider="claude"))
    with pytest.raises(NotFoundError) as refused:
        await world.hub.add_task(NewTask(prompt="x", agent="two"))
    assert refused.value.code == "unknown_agent"
    assert refused.value.params == {"agent": "two", "known": ["one"]}


async def test_an_agent_of_another_provider_is_refused(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="one", provider="claude"))
    with pytest.raises(InvalidInputError) as refused:
        await world.hub.add_task(NewTask(prompt="x", agent="one", provider="shell"))
    assert refused.value.code == "agent_provider_mismatch"


async def test_each_provider_gets_one_default_when_needed(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="Shell", provider="claude"))
    first = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    second = await world.hub.add_task(NewTask(prompt="x", provider=" SHELL "))
    assert first.agent == second.agent == "shell 2"
    assert (await world.hub.get_agent("shell 2")).is_default


async def test_an_agent_is_edited_in_part(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="A", provider="claude", model="m", instructions="i"))
    task = await world.hub.add_task(NewTask(prompt="x", agent="a"))
    edited = await world.hub.edit_agent(
        "a", AgentChanges(name="B", model=None, custom_args=["-v"], custom_env={"X": "1"}, mcp_config={})
    )
    assert (edited.name, edited.model, edited.instructions) == ("B", None, "i")
    assert (await world.hub.get(task.id)).agent == "B"  # type: ignore[union-attr]
    claimed = await world.claim("claude")
    assert claimed["agent"]["custom_args"] == ["-v"]
    assert claimed["agent"]["custom_env"] == {"X": "1"}
    assert "model" not in claimed["agent"]
    await world.hub.edit_agent("B", AgentChanges(name="b"))
    assert (await world.hub.get_agent("B")).name == "b"


async def test_nonsense_in_an_agent_is_refused(world: World) -> None:
    for spec, code in (
        (AgentSpec(name=" ", provider="x"), "agent_name_invalid"),
        (AgentSpec(name="a\nb", provider="x"), "agent_name_invalid"),
        (AgentSpec(name="a", provider=" "), "provider_missing"),
        (AgentSpec(name="a", provider="x", custom_env={"A=B": ""}), "custom_env_invalid"),
        (AgentSpec(name="a", provider="x", max_concurrent_tasks=-1), "max_concurrent_tasks_invalid"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await world.hub.add_agent(spec)
        assert refused.value.code == code


async def test_an_agent_is_not_removed_while_it_has_tasks(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="A", provider="shell"))
    task = await world.hub.add_task(NewTask(prompt="x", agent="A"))
    with pytest.raises(ConflictError) as refused:
        await world.hub.remove_agent("a")
    assert refused.value.params == {"agent": "A", "active_tasks": 1}
    await world.claim()
    with pytest.raises(ConflictError):
        await world.hub.remove_agent("a")
    await world.run(task.id)
    await world.hub.remove_agent("a")
    with pytest.raises(NotFoundError):
        await world.hub.get_agent("a")
    with pytest.raises(ConflictError) as refused:
        await world.hub.reply(task.id, "and now?")
    assert refused.value.code == "agent_removed"
    assert (await world.hub.get(task.id)).agent == "A"  # type: ignore[union-attr]


async def test_a_removed_default_comes_back_when_needed(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    await world.run(task.id)
    await world.hub.remove_agent("shell")
    assert (await world.hub.reply(task.id, "y")).agent == "shell"
    assert (await world.claim())["agent"]["name"] == "shell"


async def test_the_skills_of_an_agent_go_out_whole_with_its_tasks(world: World) -> None:
    skill = Skill(
        id="local:Deploy",
        name="Deploy",
        source="workspace",
        content="how",
        files=[SkillFile(path="a/b.md", content="x")],
    )
    await world.hub.add_agent(AgentSpec(name="A", provider="claude", skills=[skill]))
    assert (await world.hub.get_agent("a")).skill_names == ["Deploy"]
    await world.hub.edit_agent("a", AgentChanges(model="m"))
    assert (await world.hub.get_agent("a")).skill_names == ["Deploy"]
    await world.hub.edit_agent("a", AgentChanges(skills=[]))
    assert (await world.hub.get_agent("a")).skill_names == []
