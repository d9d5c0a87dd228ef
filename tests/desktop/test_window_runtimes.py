"""The page "Runtimes": off and on again, why an agent cannot be used, its models; also with a real daemon."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pytestqt.qtbot import QtBot

from daemon_core.control.model_views import ModelsView, ModelView
from daemon_core.control.views import RuntimeView
from daemon_core.protocol import failures
from daemon_core.runtimes import discovery
from desktop.commands import Command
from desktop.models.state import LinkPhase
from desktop.theme.palette import Theme
from desktop.windows import runtime_words, wording
from desktop.windows.runtime_words import models_sentence, runtime_sentence
from desktop.windows.runtimes import RuntimeRow, RuntimesPage
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.hands import click
from tests.desktop.test_window_daemon import WAIT_MS, LiveDesk, live_at
from tests.end_to_end.home import OstlerHome

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
    pytest.mark.skipif(sys.platform == "win32", reason="the control API is a unix socket here"),
]


@pytest.fixture
def page(qtbot: QtBot, desk: Desk) -> RuntimesPage:
    made = RuntimesPage(desk.context)
    qtbot.addWidget(made)
    made.resize(760, 600)
    made.show()
    desk.link.tell(**canned.connected())
    return made


def test_what_is_off_can_be_switched_on_again(desk: Desk, page: RuntimesPage) -> None:
    off, on, broken = page.rows["r3"], page.rows["r1"], page.rows["r4"]
    assert off.switch.isVisible()
    assert not off.switch.isChecked()
    click(off.switch)
    click(on.switch)
    assert desk.asked == [Command("runtime_on", "r3"), Command("runtime_off", "r1")]
    assert not broken.switch.isVisible()
    assert off.state.text() == "Switched off"
    assert "0.1.0 or newer is needed" in broken.state.text()


def test_a_row_stays_when_its_agent_changes(desk: Desk, page: RuntimesPage) -> None:
    row = page.rows["r1"]
    row.show_models(ModelsView(runtime="claude", models=(ModelView(id="opus", default=True),), open=False))
    changed = {**canned.runtimes(), "r1": RuntimeView(id="r1", provider="claude", name="Claude Code")}
    desk.link.tell(**canned.connected(runtimes=changed))
    assert page.rows["r1"] is row
    assert row.state.text() == "Ready"
    assert row.models.text() == "Models: opus (usual)."
    fewer = {ident: runtime for ident, runtime in changed.items() if ident != "r1"}
    desk.link.tell(**canned.connected(runtimes=fewer))
    assert "r1" not in page.rows
    desk.link.tell(link=LinkPhase.ABSENT, runtimes={})
    assert "daemon is away" in page._empty.text()


def test_every_reason_has_words() -> None:
    reasons = {
        getattr(discovery, name)
        for name in ("NOT_SUPPORTED", "TOO_OLD", "TIMED_OUT", "NOT_STARTED", "WRONG_ARCHITECTURE",
                     "INTERPRETER_MISSING", "FAILED", "UNREADABLE", "NOT_EXECUTABLE", "NOT_FOUND",
                     "OVERRIDE_NOT_FOUND")
    }  # fmt: skip
    for reason in sorted(reasons):
        assert reason in runtime_words._REASONS, reason
        told = runtime_sentence(RuntimeView(id="x", provider="x", status="unusable", reason=reason))
        assert reason.replace("_", " ").capitalize() not in told
    every = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, str)}
    assert len(every) > 25
    rare: Final = {"invalid_task_identity", "issue_window_restricted", "agent_error.unknown"}
    assert {value for value in every if value not in wording._REASONS} == rare


def test_sentences_of_agents() -> None:
    server = RuntimeView(
        id="a", provider="claude", connection="agents.example.org", workspace="Shop", path="/usr/bin/claude"
    )
    assert runtime_sentence(server) == "Ready · Shop · agents.example.org · /usr/bin/claude"
    signed_out = RuntimeView(id="a", provider="claude", signed_in="no", hint="Run claude once.", path="/c")
    assert runtime_sentence(signed_out) == "Run claude once.\nReady · /c"
    mistake = {"file": "/p/x.toml", "line": 3, "what": "no such key", "hint": "Remove it."}
    told = runtime_sentence(
        RuntimeView(id="a", provider="x", status="unusable", reason="provider_invalid", reason_params=mistake)
    )
    assert told == "/p/x.toml:3: no such key Remove it."
    assert "busy" in models_sentence(ModelsView(runtime="x", error="busy"))
    assert "no list" in models_sentence(ModelsView(runtime="x"))


@pytest.fixture
def live(tmp_path: Path, theme: Theme, qtbot: QtBot) -> Iterator[LiveDesk]:
    home = OstlerHome(tmp_path)
    with live_at(qtbot, home, theme, "runtimes") as made:
        yield made
    home.close()


def test_an_agent_is_switched_off_and_on_and_tells_its_models(qtbot: QtBot, live: LiveDesk) -> None:
    page = live.windows.main.page("runtimes")
    assert isinstance(page, RuntimesPage)

    def is_now(status: str) -> bool:
        return row_of("claude").runtime.status == status

    def row_of(provider: str) -> RuntimeRow:
        return next(each for each in page.rows.values() if each.runtime.provider == provider)

    qtbot.waitUntil(lambda: any(row.runtime.provider == "claude" for row in page.rows.values()),
                    timeout=WAIT_MS)  # fmt: skip
    qtbot.waitUntil(lambda: is_now("online"), timeout=WAIT_MS)
    row = row_of("claude")
    click(row.ask_models)
    qtbot.waitUntil(lambda: row.models.text().startswith(("Models:", "It tells no")), timeout=WAIT_MS)
    click(row.switch)
    qtbot.waitUntil(lambda: is_now("off"), timeout=WAIT_MS)
    click(row_of("claude").switch)
    qtbot.waitUntil(lambda: is_now("online"), timeout=WAIT_MS)
