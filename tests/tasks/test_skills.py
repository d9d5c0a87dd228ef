from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest

from daemon_core.protocol.errors import PermanentError, TaskGoneError, TransientError
from daemon_core.protocol.wire import Agent, Skill, SkillFile, SkillRef, Task
from daemon_core.tasks import skills
from daemon_core.tasks.skills import SkillCache, SkillError, forget_unused


def bundle(content: str = "main", *files: tuple[str, str], skill_id: str = "skill-1") -> Skill:
    skill = Skill(
        id=skill_id,
        source="workspace",
        name="deploy",
        content=content,
        files=[SkillFile(path=path, content=text) for path, text in files] or None,
    )
    return msgspec.structs.replace(skill, hash=skills.manifest_hash(skill), size_bytes=skills.size_of(skill))


def ref(skill: Skill) -> SkillRef:
    return SkillRef(
        id=skill.id,
        source=skill.source,
        name=skill.name,
        hash=skill.hash,
        size_bytes=skill.size_bytes,
        file_count=len(skill.files or []),
    )


def task(*refs: SkillRef) -> Task:
    return Task(id="t", runtime_id="r", workspace_id="w/1", agent=Agent(id="a", skill_refs=list(refs)))


class Server:
    """Answers with what it has; errors first."""

    def __init__(self, *answers: Skill | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[SkillRef] = []

    async def resolve_skill(self, runtime_id: str, task_id: str, ref: SkillRef) -> Skill:
        self.asked.append(ref)
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def no_pause(failed: int, least_s: float) -> None:
    await asyncio.sleep(0)


async def resolve(cache: SkillCache, server: Server, *refs: SkillRef) -> list[Skill]:
    done = await cache.resolved(task(*refs), server, no_pause)
    assert done.agent is not None
    assert done.agent.skill_refs is None
    return done.agent.skills or []


def test_the_worked_values_of_the_protocol() -> None:
    plain = bundle()
    assert plain.hash == "sha256:b83948ff81671da9ad2125bf2aa6adb5dcb2dbda53affbdff848130c30eeec19"
    assert skills.size_of(plain) == 4
    for files in ((("b.md", "b"), ("a.md", "é")), (("a.md", "é"), ("b.md", "b"))):
        with_files = bundle("main", *files)
        assert with_files.hash == "sha256:4ac08ea67746657da67f33c4f00de1b01a07c05a468dc9941f6299cf4f864b4a"
        assert skills.size_of(with_files) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [("sha256:ab", "sha256_ab"), ("", "_"), (".", "_."), ("..", "_.."), ("a/../b", "a_.._b"), ("ü", "_")],
)
def test_pieces_of_a_cache_path(text: str, expected: str) -> None:
    assert skills.segment(text) == expected


async def test_a_task_without_references_stays_as_it_is(tmp_path: Path) -> None:
    plain = task()
    assert await SkillCache(tmp_path).resolved(plain, Server(PermanentError("", "")), no_pause) is plain


async def test_a_bundle_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    skill = bundle("main", ("a/b.md", "x"))
    server = Server(skill)
    assert await resolve(SkillCache(tmp_path), server, ref(skill)) == [skill]
    kept = tmp_path / ".skill-cache" / "v1" / "w_1" / "workspace" / "skill-1" / skills.segment(skill.hash)
    assert [path.name for path in kept.iterdir()] == ["bundle.json"]
    assert await resolve(SkillCache(tmp_path), server, ref(skill)) == [skill]
    assert len(server.asked) == 1


async def test_concurrent_tasks_ask_once(tmp_path: Path) -> None:
    skill = bundle()
    server, cache = Server(skill), SkillCache(tmp_path)
    found = await asyncio.gather(*(resolve(cache, server, ref(skill)) for _ in range(5)))
    assert found == [[skill]] * 5
    assert len(server.asked) == 1
    assert cache._locks == {}


async def test_a_newer_bundle_is_taken_and_kept_under_its_own_hash(tmp_path: Path) -> None:
    old, new = bundle("old"), bundle("new")
    server, cache = Server(new), SkillCache(tmp_path)
    assert await resolve(cache, server, ref(old)) == [new]
    assert await resolve(cache, server, ref(new)) == [new]
    assert len(server.asked) == 1
    assert await resolve(cache, server, ref(old)) == [new]
    assert len(server.asked) == 2


@pytest.mark.parametrize("damage", [b"{", b"null", b'{"id":"skill-1"}'])
async def test_a_cached_bundle_that_does_not_match_is_fetched_anew(tmp_path: Path, damage: bytes) -> None:
    skill = bundle()
    server, cache = Server(skill), SkillCache(tmp_path)
    await resolve(cache, server, ref(skill))
    (file,) = (tmp_path / ".skill-cache").rglob("bundle.json")
    file.write_bytes(damage)
    assert await resolve(cache, server, ref(skill)) == [skill]
    assert len(server.asked) == 2
    wrong = msgspec.structs.replace(ref(skill), file_count=3)
    assert await resolve(cache, server, wrong) == [skill]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (msgspec.structs.replace(bundle(), content="other"), "does not match its hash"),
        (bundle(skill_id="other"), "another skill"),
        (bundle("main", ("../x", "x")), "path '../x'"),
        (bundle("main", ("a\\b", "x")), "path"),
        (bundle("main", *((str(n), "") for n in range(2001))), "2001 files"),
    ],
)
async def test_a_bundle_that_cannot_be_used_fails_in_words(tmp_path: Path, sent: Skill, problem: str) -> None:
    with pytest.raises(SkillError, match="skill 'deploy' cannot be used") as caught:
        await resolve(SkillCache(tmp_path), Server(sent), ref(bundle()))
    assert problem in str(caught.value)
    assert not list(tmp_path.rglob("bundle.json"))


async def test_no_answer_is_tried_again_and_then_told(tmp_path: Path) -> None:
    skill = bundle()
    trouble = TransientError("POST", "/x", 503, "later")
    assert await resolve(SkillCache(tmp_path), Server(trouble, trouble, skill), ref(skill)) == [skill]
    server = Server(trouble)
    with pytest.raises(SkillError, match="503 later"):
        await resolve(SkillCache(tmp_path / "b"), server, ref(skill))
    assert len(server.asked) == skills.TRIES


async def test_a_server_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    skill, trouble = bundle(), TransientError("POST", "/x", 429, "slow down")
    trouble.retry_after_s = 33.0
    asked: list[float] = []

    async def pause(failed: int, least_s: float) -> None:
        asked.append(least_s)

    await SkillCache(tmp_path).resolved(task(ref(skill)), Server(trouble, skill), pause)
    assert asked == [33.0]


async def test_what_is_no_word_of_the_servers_is_tried_again(tmp_path: Path) -> None:
    skill, stranger = bundle(), PermanentError("POST", "/x", 404, "404 page not found")
    assert await resolve(SkillCache(tmp_path), Server(stranger, skill), ref(skill)) == [skill]
    with pytest.raises(SkillError, match="404 page not found") as caught:
        await resolve(SkillCache(tmp_path / "b"), Server(stranger), ref(skill))
    assert caught.value.passing


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (409, "task is not preparing", "not being prepared any more"),
        (409, "the plugin has changed", "the plugin has changed"),
        (404, "skill bundle not found", "skill bundle not found"),
    ],
)
async def test_a_refusal_is_told(tmp_path: Path, status: int, said: str, words: str) -> None:
    first, second = bundle(), bundle(skill_id="skill-2")
    refused = PermanentError("POST", "/x", status, f'{{"error":"{said}"}}')
    with pytest.raises(SkillError, match=words):
        await resolve(SkillCache(tmp_path), Server(first, refused), ref(first), ref(second))
    assert len(list(tmp_path.rglob("bundle.json"))) == 1  # what was fetched stays


async def test_a_task_that_is_gone_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(TaskGoneError):
        await resolve(SkillCache(tmp_path), Server(TaskGoneError("", "", 404)), ref(bundle()))


@pytest.mark.parametrize("broken", [SkillRef(id="x"), SkillRef(id="x", source="workspace")])
async def test_a_reference_without_its_parts_is_refused(tmp_path: Path, broken: SkillRef) -> None:
    with pytest.raises(SkillError, match="no id, source or hash"):
        await resolve(SkillCache(tmp_path), Server(bundle()), broken)


async def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path: Path) -> None:
    (tmp_path / ".skill-cache").write_text("a file")
    skill = bundle()
    assert await resolve(SkillCache(tmp_path), Server(skill), ref(skill)) == [skill]


async def test_entries_that_no_task_has_used_for_72_hours_go(tmp_path: Path) -> None:
    used, unused = bundle(), bundle(skill_id="other")
    server, cache = Server(used, unused, unused), SkillCache(tmp_path)
    await resolve(cache, server, ref(used))
    await resolve(cache, server, ref(unused))
    old = time.time() - 73 * 3600
    entries = sorted(tmp_path.glob(".skill-cache/v1/*/*/*/*"))
    assert len(entries) == 2
    half_made = entries[0].with_name(".1.ab.new")
    half_made.mkdir()
    for entry in (*entries, half_made):
        os.utime(entry, (old, old))
    await resolve(cache, server, ref(used))  # from the cache: it is in use
    assert forget_unused(tmp_path / ".skill-cache", time.time()) > 0
    assert len(list(tmp_path.glob(".skill-cache/v1/*/*/*/*"))) == 1
    assert len(list(tmp_path.glob(".skill-cache/v1/*/*/*"))) == 1
    assert await resolve(cache, server, ref(unused)) == [unused]
    assert forget_unused(tmp_path / "nothing", time.time()) == 0
