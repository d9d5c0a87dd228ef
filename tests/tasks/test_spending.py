"""What tasks cost, and the limit of a day: over a real journal, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.agents.costs import dollars
from daemon_core.journal import Journal, RunRecord, TaskRecord
from daemon_core.protocol.wire import Usage
from daemon_core.tasks.prices import SHIPPED, Cost, Price, Prices, PricesError
from daemon_core.tasks.results import Result, add_usage, reports_of
from daemon_core.tasks.spend_store import DayTotal, SpendStore
from daemon_core.tasks.spending import SpendBook, Spender

NOON = dt.datetime(2026, 11, 21, 12, 0).astimezone()
TABLE = Prices({"known": Price(input=1.0, output=10.0, cache_read=0.1, as_of="2026-01-01")}, "2026-01-01")


def used(model: str = "known", tokens: int = 1_000_000, **more: float) -> Usage:
    return Usage(provider="p", model=model, input_tokens=tokens, **more)  # type: ignore[arg-type]


class Till:
    """A book with what it said."""

    def __init__(self, journal: Journal) -> None:
        self.now = NOON
        self.allowed: str | None = None
        self.changes = 0
        self.booked: list[str] = []
        self.journal = journal
        self.book = self.make()

    def make(self) -> SpendBook:
        book = SpendBook(
            SpendStore(self.journal),
            carry=self.carry,
            keep_allowed=self.keep,
            on_change=self.changed,
            on_booked=self.booked.append,
            now=lambda: self.now,
        )
        book.set_prices(TABLE)
        return book

    async def carry(self, work: Callable[[], Awaitable[DayTotal]]) -> DayTotal:
        return await work()

    async def keep(self, day: str | None) -> None:
        self.allowed = day

    def changed(self) -> None:
        self.changes += 1

    async def again(self) -> None:
        """A restart."""
        await self.book.close()
        limit, warn = self.book._limit, self.book._warn
        self.book = self.make()
        self.book.set_limit(limit, warn)
        await self.book.open(self.allowed)

    async def spend(self, key: str, *usage: Usage, connection: str = "hub") -> None:
        self.book.book(Spender(key, connection, "", "p"), usage)
        await self.book.settled()

    def held(self) -> bool:
        return self.book.held

    @property
    def spent(self) -> float:
        return round(self.book.standing().spent, 6)


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    journal = await Journal.open(tmp_path / "journal.db")
    made = Till(journal)
    await made.book.open(None)
    yield made
    await made.book.close()
    await journal.close()


async def test_only_the_difference_is_booked(till: Till) -> None:
    await till.spend("hub/a", used(tokens=100_000))
    await till.spend("hub/a", used(tokens=400_000))
    await till.spend("hub/a", used(tokens=400_000))
    assert till.spent == 0.4
    # the agent's own word at the end corrects what was reckoned before, also downwards
    await till.spend("hub/a", used(tokens=500_000, cost_usd=0.3))
    assert till.spent == 0.3
    assert till.book.cost_of("hub/a") == Cost(usd=0.3, how="stated")
    await till.spend("hub/b", used(tokens=1_000_000))
    assert till.spent == 1.3


async def test_nothing_is_booked_twice_over_restarts(till: Till) -> None:
    await till.spend("hub/a", used(tokens=400_000))
    await till.again()
    await till.spend("hub/a", used(tokens=600_000))
    assert till.spent == 0.6
    await till.again()
    assert till.spent == 0.6
    assert (await till.book.costs(["hub/a", "hub/none"])) == {"hub/a": Cost(usd=0.6, how="priced")}


async def test_what_ended_unbooked_is_booked_at_the_next_start(till: Till) -> None:
    record = TaskRecord(
        key="hub/x", connection="hub", task_id="x", runtime_id="r", workspace_id="w", provider="p",
        claimed_at="2026-11-21T10:00:00Z",
    )  # fmt: skip
    await till.journal.add_task(record, RunRecord(run_id="run", task_key="hub/x"))
    usage = msgspec.json.encode([used(tokens=2_000_000)])
    ended_at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await till.journal.end_task("hub/x", {"usage": usage, "ended_at": ended_at, "outcome": "failed"}, [])
    await till.again()
    assert till.spent == 2.0
    await till.again()
    assert till.spent == 2.0


async def test_at_the_limit_claims_wait_until_midnight(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon_core.tasks.spending.LOOK_AGAIN_S", 0.01)
    till.book.set_limit(2.0, 0.8)
    await till.spend("hub/a", used(tokens=1_500_000))
    assert not till.held()
    assert not till.book.standing().near
    await till.spend("hub/a", used(tokens=1_600_000))
    assert till.book.standing().near
    assert not till.held()
    await till.spend("other/b", used(tokens=400_000), connection="other")
    assert till.held()
    waiting = asyncio.ensure_future(till.book.wait())
    till.now = NOON.replace(hour=23, minute=59)
    for _ in range(3):
        await asyncio.sleep(0.02)
    assert not waiting.done()
    till.now = NOON + dt.timedelta(hours=13)
    await asyncio.wait_for(waiting, 10)
    assert not till.held()
    assert till.spent == 0.0
    # what goes on of an earlier task counts for the new day, and only that
    await till.spend("hub/a", used(tokens=2_000_000))
    assert till.spent == 0.4


async def test_the_limit_holds_over_a_restart_and_the_users_word_too(till: Till) -> None:
    till.book.set_limit(1.0, 0.8)
    await till.spend("hub/a", used(tokens=1_000_000))
    assert till.held()
    await till.again()
    assert till.held()
    waiting = asyncio.ensure_future(till.book.wait())
    await till.book.allow_today()
    await asyncio.wait_for(waiting, 10)
    assert not till.held()
    assert till.allowed == "2026-11-21"
    await till.again()
    assert not till.held()
    assert till.book.standing().allowed
    till.now = NOON + dt.timedelta(days=1)
    await till.again()
    await till.spend("hub/b", used(tokens=1_000_000))
    assert till.held()  # the word was for that day


async def test_a_clock_that_is_set_back_counts_that_day(till: Till) -> None:
    till.book.set_limit(1.0, 0.8)
    await till.spend("hub/a", used(tokens=1_000_000))
    till.now = NOON + dt.timedelta(days=1)
    await till.book.wait()
    assert not till.held()
    await till.spend("hub/b", used(tokens=100_000))
    assert till.spent == 0.1
    till.now = NOON
    assert till.held()  # not known of that day: looked up before anything is claimed
    waiting = asyncio.ensure_future(till.book.wait())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert till.spent == 1.0
    till.book.set_limit(5.0, 0.8)
    await asyncio.wait_for(waiting, 10)


async def test_what_is_not_known_is_said(till: Till) -> None:
    till.book.set_limit(1.0, 0.8)
    await till.spend("hub/a", used("strange"))
    assert till.book.cost_of("hub/a") == Cost(how="unknown")
    assert till.book.standing().unknown == 1
    assert till.spent == 0.0
    await till.spend("hub/b", used("strange", cost_usd=0.5, cost_partial=True))
    assert till.book.cost_of("hub/b") == Cost(usd=0.5, how="partial")
    # the user gives a price: what comes from then on is known
    till.book.set_prices(Prices({"strange": Price(input=2.0, output=0.0)}))
    await till.spend("hub/a", used("strange", tokens=1_500_000))
    assert till.book.cost_of("hub/a") == Cost(usd=3.0, how="priced")
    assert till.book.standing().unknown == 1


async def test_sums_are_by_day_connection_and_agent(till: Till) -> None:
    till.book.book(Spender("hub/a", "hub", "Ann", "p"), [used(tokens=1_000_000)])
    till.book.book(Spender("hub/b", "hub", "Ann", "p"), [used(tokens=1_000_000)])
    till.book.book(Spender("far/c", "far", "", "p"), [used(tokens=3_000_000), used("strange", tokens=5)])
    await till.book.settled()
    rows = await till.book.store.since("2026-11-21")
    assert [(row.connection, row.agent, row.model, row.cost, row.input_tokens) for row in rows] == [
        ("far", "", "known", 3.0, 3_000_000),
        ("far", "", "strange", 0.0, 5),
        ("hub", "Ann", "known", 2.0, 2_000_000),
    ]
    assert await till.book.store.since("2026-11-22") == []


# --- prices -----------------------------------------------------------------------------------------


def test_the_shipped_prices_can_be_used() -> None:
    prices = Prices.load(None)
    assert prices.as_of >= "2026-01-01"
    assert len(prices.models) > 20
    for name, price in prices.models.items():
        assert price.as_of, name
        assert price.input <= price.output, name
    exact = prices.cost(
        Usage(model="claude-opus-4-5-20251101", input_tokens=1_000_000, output_tokens=1_000_000,
              cache_read_tokens=1_000_000, cache_write_tokens=1_000_000)
    )  # fmt: skip
    assert exact == Cost(usd=36.75, how="priced")
    for alike in ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5[1m]", "claude-sonnet-4-5@20250929"):
        assert prices.find(alike) is prices.models["claude-sonnet-4-5"]
    for other in ("claude-sonnet-4", "opus", "", "gpt-5-codex-spark", "20250929"):
        assert prices.find(other) is None


def test_the_users_prices_come_first(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(
        'as_of = "2026-11-01"\n[models."gpt-5"]\ninput = 9\noutput = 9\n'
        "[models.mine]\ninput = 0\noutput = 0\n"
    )
    prices = Prices.load(own)
    assert prices.own == 2
    assert prices.models["gpt-5"].as_of == "2026-11-01"
    assert prices.cost(used("gpt-5")).usd == 9.0
    assert prices.cost(used("mine")) == Cost(usd=0.0, how="priced")


@pytest.mark.parametrize(
    "text",
    [
        "models = 3",
        "[models.x]\ninput = -1\noutput = 1",
        "[models.x]\ninput = 1",
        "\xff",
        'currency = "EUR"',
        "x = " + "[" * 20_000,
    ],
    ids=["models", "negative", "half", "bytes", "currency", "deep"],
)
def test_a_table_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    own = tmp_path / "prices.toml"
    own.write_bytes(text.encode("latin-1"))
    with pytest.raises(PricesError) as refused:
        Prices.load(own)
    assert refused.value.path == own
    assert SHIPPED.is_file()


# --- usage with its cost ----------------------------------------------------------------------------


def test_costs_add_up_and_say_when_they_are_not_all() -> None:
    whole = add_usage([used(tokens=1, cost_usd=1.0)], [used(tokens=2, cost_usd=0.5)])
    assert whole == [used(tokens=3, cost_usd=1.5)]
    for parts in (
        ([used(tokens=1)], [used(tokens=2, cost_usd=0.5)]),
        ([used(tokens=2, cost_usd=0.5)], [used(tokens=1)]),
    ):
        (part,) = add_usage(*parts)
        assert part.cost_usd == 0.5
        assert part.cost_partial is True
        assert TABLE.cost(part).how == "priced"
    assert add_usage([used(tokens=1)], [used(tokens=2)])[0].cost_usd is msgspec.UNSET


@pytest.mark.parametrize(
    ("stated", "ticks"),
    [
        ({"cost_usd": 1.5}, 15_000_000_000),
        ({"cost_usd": 1e-10}, 1),
        ({"cost_usd": 0.1 + 0.2}, 3_000_000_000),
        ({"cost_usd": 1e-11}, None),
        ({"cost_usd": 0.0}, None),
        ({"cost_usd": 1.5, "cost_partial": True}, None),
        ({}, None),
    ],
)
def test_a_server_is_told_what_an_agent_said_that_all_of_it_cost(
    stated: dict[str, Any], ticks: int | None
) -> None:
    result = Result(outcome="completed", usage=[used(tokens=3, **stated)])
    body = dict(reports_of(result, ""))["usage"]
    (told,) = msgspec.json.decode(body)["usage"]
    assert told.pop("cost_usd_ticks", None) == ticks
    assert not any("cost" in name for name in told)
    assert msgspec.convert(told, Usage) == used(tokens=3)


@pytest.mark.parametrize("told", [None, "1", True, 0, 0.0, -1, float("nan"), float("inf"), 1e12])
def test_no_statement_is_none(told: object) -> None:
    assert dollars(told) is msgspec.UNSET


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PricesError):
        Prices.load(None, tmp_path / "prices.toml")
