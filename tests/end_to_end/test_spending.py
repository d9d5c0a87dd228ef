"""The spend limit of a day: claims wait at it, over a restart, and go on by the user's word."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.scripted_agent import script


def _costing(usd: float) -> str:
    counts = {"inputTokens": 1000, "outputTokens": 100, "cacheReadInputTokens": 0,
              "cacheCreationInputTokens": 0, "costUSD": usd}  # fmt: skip
    return script({"text": "Done."}, {"result": {"modelUsage": {"stub-model": counts}, "result": "Done."}})


def _cli(home: OstlerHome, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", *arguments],
        env=home.environ, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout


def _spend(home: OstlerHome) -> dict[str, Any]:
    found: dict[str, Any] = home.status()["spend"]
    return found


def test_claims_wait_at_the_limit_and_go_on_by_the_users_word(home: OstlerHome) -> None:
    home.start(OSTLER_SPEND_DAILY_LIMIT="1.5")
    first = home.add(_costing(1.25))
    home.wait(first, "completed")
    wait_until(lambda: _spend(home)["spent"] == 1.25, "the cost to be booked")
    codes = {each["code"]: each for each in home.status()["conditions"]}
    assert codes["spend_near"]["params"]["limit"] == 1.5
    # One that runs when the limit is reached goes on to its end; its tokens without a price stay unknown.
    gate = home.root / "gate"
    running = home.add(script({"text": "I go on."}, {"wait_for": str(gate)}))
    home.wait(running, "running")
    second = home.add(_costing(0.5))
    home.wait(second, "completed")
    wait_until(lambda: _spend(home)["held"], "the limit to hold")
    held = home.add(_costing(0.1))
    task = home.task(held)
    assert task["status"] == "queued"
    assert task["waiting"]["code"] == "spend_limit"
    assert task["waiting"]["action"] == "continue_today"
    assert task["waiting"]["next_try_at"]
    home.kill()
    home.start(OSTLER_SPEND_DAILY_LIMIT="1.5")
    assert _spend(home)["held"]
    assert _spend(home)["spent"] == 1.75
    gate.touch()
    home.wait(running, "completed")
    assert home.task(held)["status"] == "queued"
    wait_until(lambda: _spend(home)["unknown_tasks"] == 1, "the other one to be booked")
    history = {row["id"]: row for row in home.call("GET", "/v1/history")["tasks"]}
    assert (history[first]["cost"], history[first]["cost_how"]) == (1.25, "stated")
    assert (history[running]["cost"], history[running]["cost_how"]) == (None, "unknown")
    told = _cli(home, "spend")
    assert "at least $1.75 of $1.50; no more tasks are taken" in told
    assert "unknown" in told
    assert "are taken again today" in _cli(home, "spend", "continue")
    home.wait(held, "completed")
    wait_until(lambda: home.task(held).get("cost") == 0.1, "its cost")
    report = home.call("GET", "/v1/spend?days=1")
    assert report["unknown_models"] == ["stub-model"]
    assert report["today"]["allowed"]
    assert {entry["connection"] for entry in report["entries"]} == {"hub"}


def test_prices_of_the_users_own_count_at_once(home: OstlerHome) -> None:
    own = home.directories.config / "prices.toml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text('[models."stub-model"]\ninput = "free"\n')
    home.start()
    (condition,) = [each for each in home.status()["conditions"] if each["code"] == "prices_invalid"]
    assert condition["params"]["path"] == str(own)
    own.write_text('[models."stub-model"]\ninput = 0\noutput = 1000.0\ncache_read = 0\n')
    home.call("POST", "/v1/settings/reload")
    assert not [each for each in home.status()["conditions"] if each["code"] == "prices_invalid"]
    task = home.add(script({"text": "Done."}))
    home.wait(task, "completed")
    # 12 tokens of output at a tenth of a cent each, as the scripted agent tells them
    wait_until(lambda: home.task(task).get("cost") == 0.012, "its cost")
    assert home.task(task)["cost_how"] == "priced"
    assert b"cost" not in b"".join(
        body for (body,) in home.journal("SELECT body FROM outbox WHERE kind = 'usage'") if body
    )
