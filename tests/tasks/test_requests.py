"""The book of requests, the policy for permissions, and what a limit makes of a result."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.events import Limit, PermissionRequest
from daemon_core.agents.shell import ShellFamily
from daemon_core.agents.text import TextFamily
from daemon_core.protocol.wire import Agent, Parked, Task
from daemon_core.tasks import parking
from daemon_core.tasks.launch import Launcher, PrepareError
from daemon_core.tasks.policy import launcher_for, mode_of
from daemon_core.tasks.requests import INPUT_LIMIT_BYTES, SETTLED_LIMIT, RequestBook
from daemon_core.tasks.results import Result

IDS = st.sets(st.sampled_from("abcdef"), max_size=6)


def request(ident: str) -> PermissionRequest:
    return PermissionRequest(ident, "Bash", {"command": "ls"})


@given(st.lists(st.tuples(IDS, st.dictionaries(st.sampled_from("abcdef"), st.just("allow"))), max_size=8))
def test_the_book_follows_the_reader(steps: list[tuple[set[str], dict[str, str]]]) -> None:
    book = RequestBook()
    since: dict[str, str] = {}
    for number, (waiting, told) in enumerate(steps):
        now = f"{number}"
        told = {ident: decision for ident, decision in told.items() if ident not in waiting}
        book.update([request(ident) for ident in sorted(waiting)], told, now)
        since = {ident: since.get(ident, now) for ident in waiting}
        assert {each.id: each.since for each in book.open} == since
        assert all(book.decision(ident) is not None for ident in told)
        assert RequestBook.read(book.text()) == book


def test_what_is_gone_without_a_word_was_withdrawn() -> None:
    book = RequestBook()
    assert book.update([request("a")], {}, "1")
    assert not book.update([request("a")], {}, "2")
    assert book.update([], {}, "3")
    assert (book.decision("a"), book.answered_at) == ("withdrawn", "3")


def test_the_book_stays_small() -> None:
    book = RequestBook()
    for number in range(SETTLED_LIMIT * 2):
        large = PermissionRequest(f"r{number}", "Write", {"content": "x" * 10**6}, title="t" * 10**5)
        book.update([large], {}, "1")
    assert len(book.settled) == SETTLED_LIMIT
    assert len(book.text()) < 3 * INPUT_LIMIT_BYTES


@pytest.mark.parametrize("text", ["", "{", "[]", '{"open": 5}'])
def test_a_book_that_cannot_be_read_is_an_empty_one(text: str) -> None:
    assert RequestBook.read(text) == RequestBook()


# --- policy -----------------------------------------------------------------------------------------

CLAUDE = Launcher(provider="claude", executable="/bin/claude", family=ClaudeFamily())
TEXT = dataclasses.replace(CLAUDE, family=TextFamily())
SHELL = dataclasses.replace(CLAUDE, family=ShellFamily())


def claimed(permissions: str | None) -> Task:
    return Task(id="t", runtime_id="r", workspace_id="w", agent=Agent(permissions=permissions))


@pytest.mark.parametrize(
    ("launcher", "said", "hub", "mode"),
    [
        (CLAUDE, "deny", True, "deny"),
        (CLAUDE, "deny", False, "ask"),  # another server's word
        (CLAUDE, None, True, "ask"),
        (CLAUDE, "nonsense", True, "ask"),
        (SHELL, "deny", True, "allow"),
    ],
)
def test_whose_word_counts(launcher: Launcher, said: str | None, hub: bool, mode: str) -> None:
    assert mode_of(claimed(said), launcher, lambda provider: "ask", hub=hub) == mode


def test_who_cannot_be_asked_is_refused_in_words() -> None:
    assert launcher_for(CLAUDE, "ask") is CLAUDE
    assert launcher_for(TEXT, "allow") is TEXT
    with pytest.raises(PrepareError, match="claude cannot be run with the permission policy 'ask'"):
        launcher_for(TEXT, "ask")
    both = dataclasses.replace(TEXT, ask_family=ClaudeFamily())
    assert launcher_for(both, "ask").family.name == ClaudeFamily.name
    with pytest.raises(PrepareError):
        launcher_for(both, "deny")


# --- limits -----------------------------------------------------------------------------------------

TIME = "2026-01-01T00:00:00Z"


def failed(limit: Limit | None) -> Result:
    return Result(outcome="failed", error="no more", reason="r", limit=limit)


@pytest.mark.parametrize(
    ("limit", "agent", "setting", "parked"),
    [
        (Limit("usage", TIME), None, True, Parked(until=TIME, goes_on=True)),
        (Limit("usage", TIME), None, False, Parked(until=TIME)),
        (Limit("usage", TIME), False, True, Parked(until=TIME)),
        (Limit("usage", TIME), True, False, Parked(until=TIME, goes_on=True)),
        (Limit("usage"), None, False, Parked()),
        (Limit("rate", TIME), None, False, Parked(until=TIME)),
        (Limit("rate"), None, True, None),
        (None, None, True, None),
    ],
)
def test_what_is_parked(
    limit: Limit | None, agent: bool | None, setting: bool, parked: Parked | None
) -> None:
    task = Task(id="t", runtime_id="r", workspace_id="w", agent=Agent(resume_after_limit=agent))
    found = parking.settle(failed(limit), task, "claude", lambda provider: setting, hub=True)
    assert found.parked == parked
    assert found.outcome == ("failed" if parked is None else "parked")


def test_another_server_is_told_the_time_once() -> None:
    def settled(result: Result) -> Result:
        return parking.settle(result, None, "claude", lambda provider: True, hub=False)

    first = settled(failed(Limit("usage", TIME)))
    assert (first.outcome, first.error) == ("failed", f"no more (the limit resets at {TIME})")
    assert settled(first) == first
    assert settled(failed(Limit("usage"))).error == "no more"


def test_a_result_that_is_no_failure_is_left_alone() -> None:
    done = Result(outcome="completed", output="x", limit=Limit("usage", TIME))
    assert parking.settle(done, None, "claude", lambda provider: True, hub=True) is done
