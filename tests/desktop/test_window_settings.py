"""The page "Settings" over states made up: what stands where, found by words and by keys, and its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from PySide6.QtCore import Qt, QTime
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QListWidget,
    QPlainTextEdit,
    QStyleOptionComboBox,
    QWidget,
)
from pytestqt.qtbot import QtBot

from daemon_core.control.connection_views import WorkspaceView
from daemon_core.control.errors import ControlError
from daemon_core.control.settings_views import SettingsView, SettingView
from daemon_core.settings import file
from daemon_core.settings.values import to_toml
from desktop.daemon.http import Unreachable
from desktop.models.settings import DEFAULTS, SettingsStore
from desktop.models.state import LinkPhase
from desktop.windows.bits import Choice
from desktop.windows.main import LEAST_HEIGHT, LEAST_WIDTH, MainWindow
from desktop.windows.rail import NARROW
from desktop.windows.settings import SettingsPage
from desktop.windows.settings_agents import AgentsPanel, agent_refusal
from desktop.windows.settings_connections import ConnectionsPanel, connection_refusal, state_text
from desktop.windows.settings_disk import DiskPanel
from desktop.windows.settings_editors import AmountEditor, CountEditor, EachAgentEditor, LinesEditor
from desktop.windows.settings_quiet import QuietHoursEditor
from desktop.windows.settings_row import SettingRow
from desktop.windows.settings_sections import SECTIONS, keys_of
from desktop.windows.settings_words import TITLES, refusal_words, table_key
from tests.desktop import canned, canned_settings
from tests.desktop.conftest import Desk
from tests.desktop.hands import click, press

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),
]


@pytest.fixture
def window(qtbot: QtBot, desk: Desk) -> MainWindow:
    made = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(made)
    desk.link.tell(**canned.connected(agents=canned_settings.agents()))
    made.open_page("settings")
    made.show()
    qtbot.waitExposed(made)
    return made


@pytest.fixture
def page(window: MainWindow, tmp_path: Path) -> SettingsPage:
    found = window.page("settings")
    assert isinstance(found, SettingsPage)
    found.store.tell(canned_settings.settings(tmp_path))
    return found


# --- what stands where -----------------------------------------------------------------------------


def test_every_setting_has_a_name_and_a_place(page: SettingsPage) -> None:
    assert {table_key(entry.name) for entry in file.entries()} <= set(TITLES)
    places = [key for section in SECTIONS for part in section.parts for key in keys_of(part, page.store)]
    assert sorted(places) == sorted(page.store.settings)
    shown = set()
    for section in SECTIONS:
        page.open_section(section.name)
        shown |= set(page.rows)
    assert shown == set(page.store.settings)


def test_what_nobody_here_knows_is_shown_all_the_same(page: SettingsPage) -> None:
    newer = SettingView(key="weather.sunny", kind="flag", value=True, default=True, what="Whether it shines.")
    view = SettingsView(settings=[*page.store.settings.values(), newer], file=page.store.file)
    page.store.tell(view)
    page.open_section("advanced")
    assert page.rows["weather.sunny"].title.text() == "Sunny"


def test_what_is_remembered_has_the_defaults_of_the_settings(tmp_path: Path, desk: Desk) -> None:
    ours = {entry.name: to_toml(entry.key, entry.default) for entry in file.entries()}
    assert dict(DEFAULTS) == {
        key: value for key, value in ours.items() if key.startswith(("desktop.", "notifications."))
    }
    cache = tmp_path / "cache.json"
    store = SettingsStore(desk.link, cache)
    assert store.flag("notifications.finished")
    store.tell(canned_settings.settings(tmp_path))
    again = SettingsStore(desk.link, cache)
    assert not again.known
    assert not again.flag("notifications.finished")
    assert again.table("notifications.quiet_hours")["sat"] == "23:30-10:00"
    cache.write_bytes(b"[")
    assert SettingsStore(desk.link, cache).flag("notifications.finished")
    cache.write_bytes(b'{"notifications.finished": "no", "desktop.appearance": "dark"}')
    mixed = SettingsStore(desk.link, cache)
    assert (mixed.flag("notifications.finished"), mixed.text("desktop.appearance")) == (True, "dark")


def test_nothing_is_cut_off_in_the_smallest_window(
    qtbot: QtBot, window: MainWindow, page: SettingsPage
) -> None:
    window.resize(LEAST_WIDTH, LEAST_HEIGHT)
    qtbot.waitUntil(lambda: page.width() == LEAST_WIDTH - NARROW)
    for section in SECTIONS:
        page.open_section(section.name)
        panel = page.panel(ConnectionsPanel)
        if isinstance(panel, ConnectionsPanel):
            panel.show_connections(canned_settings.connections())
            panel.open_form("https://agents.example.org")
        agents = page.panel(AgentsPanel)
        if isinstance(agents, AgentsPanel):
            agents.open_form(canned_settings.agents()["reviewer"])
        inner = page.area.widget()
        assert inner is not None
        # A bar may come at the side.
        room = page.area.width() - page.area.verticalScrollBar().sizeHint().width()
        assert inner.minimumSizeHint().width() <= room, section.name


def test_everything_that_can_be_focused_has_a_name(page: SettingsPage) -> None:
    kinds = (QAbstractButton, QLineEdit, QPlainTextEdit, QComboBox, QAbstractSpinBox, QListWidget)
    nameless: list[tuple[str, QWidget]] = []
    for section in SECTIONS:
        page.open_section(section.name)
        panel = page.panel(ConnectionsPanel)
        if isinstance(panel, ConnectionsPanel):
            panel.show_connections(canned_settings.connections())
            panel.open_form("")
        nameless += [
            (section.name, found)
            for kind in kinds
            for found in page.findChildren(kind)
            if found.focusPolicy() != Qt.FocusPolicy.NoFocus
            and found.isVisibleTo(page)
            and not found.accessibleName()
            and not (isinstance(found, QAbstractButton) and found.text())
            and not isinstance(found.parent(), QAbstractSpinBox | QLineEdit)
        ]
    assert not nameless


# --- moving about ----------------------------------------------------------------------------------


def test_sections_by_keys(window: MainWindow, page: SettingsPage) -> None:
    window.open_page("settings")
    assert window.focusWidget() is page.sections
    press(page.sections, Qt.Key.Key_Down)
    assert page.section == "tasks"
    assert "daemon.slots" in page.rows
    press(page.sections, Qt.Key.Key_End)
    assert page.section == "advanced"
    press(page.sections, Qt.Key.Key_Tab)
    focused = window.focusWidget()
    assert focused is not None
    assert page.area.isAncestorOf(focused)


def test_search_by_keys_and_back(qtbot: QtBot, window: MainWindow, page: SettingsPage) -> None:
    page.open_section("tasks")
    press(page.sections, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    assert window.focusWidget() is page.field
    page.field.setText("usage LIMIT")
    qtbot.waitUntil(lambda: "agents.claude.resume_after_limit" in page.rows)
    assert "daemon.slots" not in page.rows
    assert not page.sections.selectedItems()
    page.field.setText("slots")  # by its key, and by the name of its section
    qtbot.waitUntil(lambda: "watchdog.idle" in page.rows)
    page.field.setText("no such thing")
    qtbot.waitUntil(lambda: not page.rows)
    press(page.field, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: "daemon.slots" in page.rows)
    assert [item.text() for item in page.sections.selectedItems()] == ["Tasks and slots"]
    assert window.page_name == "settings"
    press(page.field, Qt.Key.Key_Escape)
    assert window.page_name == "now"


def test_a_search_leads_to_what_is_more_than_a_setting(qtbot: QtBot, page: SettingsPage) -> None:
    page.field.setText("sign in")
    qtbot.waitUntil(lambda: page._built is not None and page._built[1] == "sign in")
    inner = page.area.widget()
    assert inner is not None
    (button,) = [each for each in inner.findChildren(QAbstractButton) if "Servers" in each.text()]
    click(button)
    assert page.section == "connections"
    assert page.panel(ConnectionsPanel) is not None


def test_a_choice_without_room_shows_that_there_is_more(qtbot: QtBot, desk: Desk) -> None:
    choice = Choice("Store", lambda: desk.context.colours)
    qtbot.addWidget(choice)
    choice.addItem("In the system keyring, or in a file where there is none")
    for width, whole in ((160, False), (600, True)):
        choice.setMaximumWidth(width)
        choice.resize(width, 28)
        option = QStyleOptionComboBox()
        choice.initStyleOption(option)
        assert option.currentText.endswith("none" if whole else "…")


# --- without a daemon, with a mistake --------------------------------------------------------------


def test_a_daemon_that_went_away_leaves_what_is_known(desk: Desk, page: SettingsPage) -> None:
    page.open_section("tasks")
    spin = page.rows["daemon.slots"].editor
    assert spin.isEnabled()
    desk.link.tell(link=LinkPhase.ABSENT)
    assert not spin.isEnabled()
    assert page._away.isVisible()
    desk.link.tell(link=LinkPhase.CONNECTED)
    assert spin.isEnabled()
    assert not page._away.isVisible()


def test_a_mistake_is_said_with_its_line(page: SettingsPage, tmp_path: Path) -> None:
    page.open_section("tasks")
    page.store.tell(canned_settings.settings(tmp_path, canned_settings.TEXT + "[daemno]\nslots = 1\n"))
    said = page._mistake.sentence.text()
    assert said == "config.toml:21: There is no section daemno. Did you mean daemon?"
    assert not page.rows["daemon.slots"].editor.isEnabled()
    assert page._mistake.open.isEnabled()
    page.store.tell(canned_settings.settings(tmp_path))
    assert page._mistake.isHidden()
    assert page.rows["daemon.slots"].editor.isEnabled()


def test_settings_of_a_newer_version_lock_nothing(page: SettingsPage, tmp_path: Path) -> None:
    page.open_section("tasks")
    text = canned_settings.TEXT + "[weather]\nrain = true\n[mcp]\nshape = 1\n"
    page.store.tell(canned_settings.settings(tmp_path, text, not_ours=("weather", "mcp.shape")))
    assert page._mistake.isVisible()
    assert page._mistake.sentence.text() == "The file has 2 settings that this version does not know."
    assert "line 21: weather; line 24: mcp.shape" in page._mistake.then.text()
    assert page.rows["daemon.slots"].editor.isEnabled()
    page.store.tell(canned_settings.settings(tmp_path))
    assert page._mistake.isHidden()


def test_what_the_environment_decides_cannot_be_changed_here(page: SettingsPage) -> None:
    page.open_section("advanced")
    row = page.rows["jobs.stall"]
    assert not row.editor.isEnabled()
    assert "OSTLER_JOBS_STALL" in row._note.text()


def test_a_refusal_stands_beside_its_field(page: SettingsPage) -> None:
    page.open_section("advanced")
    row = page.rows["daemon.port"]
    assert isinstance(row.editor, CountEditor)
    row.editor.spin.setValue(80)
    params = {
        "what": "daemon.port must be 0 or from 1024 to 65535 without 19514 to 20513, not 80",
        "key": "daemon.port",
        "reason": "port",
        "reason_params": {"given": "80", "first": 19514, "last": 20513},
    }
    row._on_failed(ControlError("settings_invalid", params))
    assert row.error.text() == (
        "It must be 0 or from 1024 to 65535, not 80; 19514 to 20513 belong to another program."
    )
    assert row.editor.accessibleDescription() == row.error.text()
    assert row.editor.spin.value() == 80, "what was written is there to be mended"
    assert "does not answer" in refusal_words(Unreachable("timeout"))
    assert "inside a task" in refusal_words(ControlError("refused_from_run"))


# --- fields ----------------------------------------------------------------------------------------


def told(editor: Any) -> list[Any]:
    found: list[Any] = []
    editor.edited.connect(found.append)
    return found


@pytest.mark.parametrize(
    ("kind", "value", "number", "unit", "then", "said"),
    [
        ("duration", "45m", 45, "m", 50, "50m"),
        ("duration", "1h30m", 90, "m", 0, "0"),
        ("duration", "2d", 2, "d", 3, "3d"),
        ("duration", "1s500ms", 1500, "ms", 20, "20ms"),
        ("size", "2GiB", 2, "GiB", 5, "5GiB"),
        ("size", "1536KiB", 1536, "KiB", 0, 0),
        ("size", "1000", 1000, "B", 7, "7B"),
    ],
)
def test_amounts_have_the_unit_that_fits(
    qtbot: QtBot, desk: Desk, kind: Any, value: str, number: int, unit: str, then: int, said: object
) -> None:
    view = SettingView(key="watchdog.idle", kind=kind, value=value)
    editor = AmountEditor("x", lambda: desk.context.colours, view)
    qtbot.addWidget(editor)
    heard = told(editor)
    editor.show_value(value)
    assert (editor.spin.value(), editor.unit.currentData()) == (number, unit)
    assert not heard
    editor.spin.setValue(then)
    press(editor.spin, Qt.Key.Key_Return)
    assert heard == [said]
    editor.show_value("0")
    assert editor.spin.text() == "never"


def test_steps_are_one_change_and_the_wheel_is_none(qtbot: QtBot) -> None:
    editor = CountEditor("x", SettingView(key="daemon.slots", kind="count", least=1, most=256))
    qtbot.addWidget(editor)
    editor.show()
    heard = told(editor)
    editor.show_value(4)
    for _step in range(3):
        press(editor.spin, Qt.Key.Key_Up)
    assert not heard
    qtbot.waitUntil(lambda: heard == [7])
    place = editor.spin.rect().center()
    wheel = QWheelEvent(
        place, editor.spin.mapToGlobal(place), place, editor.spin.mapToGlobal(place) - place,
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    editor.spin.wheelEvent(wheel)
    assert not wheel.isAccepted()
    press(editor.spin, Qt.Key.Key_Up)
    editor.hide()  # nothing is lost with the page
    assert heard == [7, 8]


def test_lines_are_lists_and_tables(qtbot: QtBot) -> None:
    editor = LinesEditor("x", SettingView(key="environment.set", kind="texts"))
    qtbot.addWidget(editor)
    heard = told(editor)
    wrong: list[str] = []
    editor.wrong.connect(wrong.append)
    editor.show_value({"A": "1, 2 = 3"})
    assert editor.box.toPlainText() == "A = 1, 2 = 3"
    editor.box.setPlainText("A = 1, 2 = 3\n\nB=\n")
    editor.box.finished.emit()
    assert heard == [{"A": "1, 2 = 3", "B": ""}]
    editor.box.setPlainText("nonsense")
    editor.box.finished.emit()
    assert wrong == ["Write each line as name = value; this is none: nonsense"]
    counts = LinesEditor("x", SettingView(key="limits.models", kind="counts"))
    qtbot.addWidget(counts)
    heard = told(counts)
    counts.wrong.connect(wrong.append)
    counts.box.setPlainText("opus = many")
    counts.box.finished.emit()
    assert wrong[1:] == ["opus needs a whole number."]
    counts.box.setPlainText("opus = 2")
    counts.box.finished.emit()
    assert heard == [{"opus": 2}]


def test_a_number_for_each_agent_leaves_others_alone(qtbot: QtBot) -> None:
    view = SettingView(key="limits.runtimes", kind="counts", least=0, most=256)
    editor = EachAgentEditor(view, [("claude", "Claude Code"), ("codex", "Codex")])
    qtbot.addWidget(editor)
    heard = told(editor)
    editor.show_value({"claude": 2, "gone": 1})
    assert editor.spins["codex"].text() == "as for all"
    editor.spins["codex"].setValue(3)
    editor.spins["codex"].commit()
    editor.spins["claude"].setValue(-1)
    editor.spins["claude"].commit()
    assert heard == [{"claude": 2, "gone": 1, "codex": 3}, {"gone": 1, "codex": 3}]


def test_quiet_hours_of_every_day_and_of_one(qtbot: QtBot, desk: Desk) -> None:
    editor = QuietHoursEditor(lambda: desk.context.colours)
    qtbot.addWidget(editor)
    editor.show()
    heard = told(editor)
    wrong: list[str] = []
    editor.wrong.connect(wrong.append)
    editor.show_value({})
    daily, sunday = editor.rows["daily"], editor.rows["sun"]
    assert not daily.begin.isVisible()
    assert not sunday.mode.isVisible()
    daily.mode.setCurrentIndex(daily.mode.findData("hours"))
    daily.mode.activated.emit(daily.mode.currentIndex())
    assert heard == [{"daily": "22:00-07:00"}]
    daily.end.setTime(QTime(6, 30))
    daily.end.editingFinished.emit()
    click(editor.more)
    assert sunday.mode.isVisible()
    sunday.mode.setCurrentIndex(sunday.mode.findData("off"))
    sunday.mode.activated.emit(sunday.mode.currentIndex())
    assert heard[1:] == [{"daily": "22:00-06:30"}, {"daily": "22:00-06:30", "sun": "off"}]
    daily.end.setTime(QTime(22, 0))
    daily.end.editingFinished.emit()
    assert wrong
    editor.show_value({"sat": "9:00-11:00"})
    assert editor.rows["sat"].begin.isVisible()
    assert len(heard) == 3


# --- panels ----------------------------------------------------------------------------------------


def test_connections_in_words(page: SettingsPage) -> None:
    page.open_section("connections")
    panel = page.panel(ConnectionsPanel)
    assert isinstance(panel, ConnectionsPanel)
    hub, team, lab, old = canned_settings.connections()
    panel.show_connections([old, lab, team, hub])
    assert list(panel.rows) == ["hub", "agents.example.org", "lab", "old"]
    assert panel.rows["hub"].out.isHidden()
    assert panel.rows["agents.example.org"].try_now.isHidden()
    assert not panel.rows["lab"].try_now.isHidden()
    assert "nothing listens there" in state_text(lab)
    assert "Next try at" in state_text(lab)
    assert "it refuses the token" in state_text(old)
    facts = panel.rows["agents.example.org"].facts.text()
    for part in ("Shop, Ops", "3 tasks here", "2 results wait", "Token in the keyring", "renewed 1 h ago"):
        assert part in facts
    refused = [*team.workspaces, WorkspaceView(id="w3", name="Lab", problem="a seat is missing")]
    panel.show_connections([msgspec.structs.replace(team, workspaces=refused)])
    facts = panel.rows["agents.example.org"].facts.text()
    assert "Lab does not take the agents of this machine: a seat is missing" in facts
    panel.show_connections([old, lab, team, hub])
    row = panel.rows["agents.example.org"]
    click(row.out)
    assert "3 tasks of it are here. 2 results are not delivered yet." in row.question.text()
    assert row.yes.text() == "End them and sign out"
    click(row.no)
    assert not row.out.isHidden()
    # one without tasks; and tasks that came in the meantime
    row = panel.rows["old"]
    click(row.out)
    assert row.yes.text() == "Sign out"
    busy = {"what": "connection_busy", "server": "old", "tasks": 1, "undelivered": 0}
    row._on_refused(ControlError("conflict", busy))
    assert row.yes.text() == "End them and sign out"
    assert "1 task of it is here." in row.question.text()
    panel.show_connections([hub])
    assert list(panel.rows) == ["hub"]


def test_a_token_is_never_shown_and_not_kept_in_the_form(page: SettingsPage) -> None:
    page.sign_in("hub")
    panel = page.panel(ConnectionsPanel)
    assert isinstance(panel, ConnectionsPanel)
    form = panel.form
    assert form.token.echoMode() is QLineEdit.EchoMode.Password
    assert not form.send_button.isEnabled()
    form.url.setText("https://agents.example.org")
    form.token.setText("mul_secret")
    assert form.send_button.isEnabled()
    click(form.cancel)
    assert (form.token.text(), form.isVisible()) == ("", False)


@pytest.mark.parametrize(
    ("code", "params", "said"),
    [
        ("sign_in_failed", {"why": "token_refused", "server": "s"}, "s refuses the token"),
        ("sign_in_failed", {"why": "no_answer", "server": "s", "reason": "refused"}, "nothing listens there"),
        ("sign_in_failed", {"why": "no_answer", "server": "s", "reason": "tls"}, "certificate"),
        ("sign_in_failed", {"why": "error", "server": "s", "status": 502}, "status 502"),
        ("credential_store", {"why": "keyring_locked", "action": "keep"}, "could not be kept"),
        ("invalid_input", {"field": "server", "why": "url"}, "no address"),
        ("conflict", {"what": "runs_do_not_end"}, "do not end"),
        ("not_ready", {}, "still starting"),
    ],
)
def test_refusals_of_servers_in_words(code: str, params: dict[str, Any], said: str) -> None:
    assert said in connection_refusal(ControlError(code, params))


def test_refusals_of_agents_in_words() -> None:
    for code in ("agent_exists", "busy", "no_such_agent", "unknown_runtime", "hub_disabled", "invalid_input"):
        sentence = agent_refusal(ControlError(code, {"field": "name", "why": "too_long"}))
        assert code not in sentence
        assert sentence.endswith(".")


def test_clean_up_says_what_goes_before_it_goes(page: SettingsPage) -> None:
    page.open_section("disk")
    panel = page.panel(DiskPanel)
    assert isinstance(panel, DiskPanel)
    panel.show_report(canned_settings.disk())
    assert panel.used.text() == "Ostler uses 4.8 GB; 81.0 GB are free."
    assert panel.last.text() == (
        "Last clean-up: 2 h ago. Gone: 4 directories, 12 tasks, the raw output of 31 runs, 1.2 GB."
    )
    panel.show_offer(canned_settings.offer())
    assert panel.clean.isVisible()
    assert panel.offer.text() == "This would go: 1 directory, the raw output of 3 runs, 812 MB."
    click(panel.keep)
    assert not panel.clean.isVisible()
    panel.show_offer(msgspec.structs.replace(canned_settings.offer(), items=[], runs=0))
    assert "nothing that may go" in panel.offer.text()


def test_a_theme_that_changes_recolours_the_page(desk: Desk, window: MainWindow, page: SettingsPage) -> None:
    page.open_section("tasks")
    try:
        desk.context.theme.choose("dark")
        row = page.rows["daemon.slots"]
        assert isinstance(row, SettingRow)
        assert row._hint.palette().windowText().color().name() == desk.context.colours.muted.lower()
        assert window.grab().toImage().pixelColor(600, 400).lightness() < 80
    finally:
        desk.context.theme.choose("light")


MISTAKES = [
    ("[daemon]\nslots = 0\n", "config.toml:2: daemon.slots: It must be a whole number from 1 to 256, not 0."),
    ('[silence]\nagent = "soon"\n', 'It must be a time such as 30s, 30m, 1h30m or 2d, not "soon".'),
    ("[silence]\nagent = 30\n", "silence.agent: It needs a unit: 30s, 30m or 30h."),
    ('[desktop]\nappearance = "pink"\n', "desktop.appearance: It must be one of "),
    ("[daemon]\nslts = 1\n", "daemon.slts: There is no such setting. Did you mean daemon.slots?"),
    ("[agents]\nclaude = 1\n", "It must be a section, written [agents.claude]."),
    ("[daemon\n", "config.toml:1: This is not valid TOML: "),
]


MISTAKES = [
    ("[daemon]\nslots = 0\n", "config.toml:2: daemon.slots: It must be a whole number from 1 to 256, not 0."),
    ('[silence]\nagent = "soon"\n', 'It must be a time such as 30s, 30m, 1h30m or 2d, not "soon".'),
    ("[silence]\nagent = 30\n", "silence.agent: It needs a unit: 30s, 30m or 30h."),
    ('[desktop]\nappearance = "pink"\n', "desktop.appearance: It must be one of "),
    ("[daemon]\nslts = 1\n", "daemon.slts: There is no such setting. Did you mean daemon.slots?"),
    ("[agents]\nclaude = 1\n", "It must be a section, written [agents.claude]."),
    ("[daemon\n", "config.toml:1: This is not valid TOML: "),
]


MISTAKES = [
    ("[daemon]\nslots = 0\n", "config.toml:2: daemon.slots: It must be a whole number from 1 to 256, not 0."),
    ('[silence]\nagent = "soon"\n', 'It must be a time such as 30s, 30m, 1h30m or 2d, not "soon".'),
    ("[silence]\nagent = 30\n", "silence.agent: It needs a unit: 30s, 30m or 30h."),
    ('[desktop]\nappearance = "pink"\n', "desktop.appearance: It must be one of "),
    ("[daemon]\nslts = 1\n", "daemon.slts: There is no such setting. Did you mean daemon.slots?"),
    ("[agents]\nclaude = 1\n", "It must be a section, written [agents.claude]."),
    ("[daemon\n", "config.toml:1: This is not valid TOML: "),
]


MISTAKES = [
    ("[daemon]\nslots = 0\n", "config.toml:2: daemon.slots: It must be a whole number from 1 to 256, not 0."),
    ('[silence]\nagent = "soon"\n', 'It must be a time such as 30s, 30m, 1h30m or 2d, not "soon".'),
    ("[silence]\nagent = 30\n", "silence.agent: It needs a unit: 30s, 30m or 30h."),
    ('[desktop]\nappearance = "pink"\n', "desktop.appearance: It must be one of "),
    ("[daemon]\nslts = 1\n", "daemon.slts: There is no such setting. Did you mean daemon.slots?"),
    ("[agents]\nclaude = 1\n", "It must be a section, written [agents.claude]."),
    ("[daemon\n", "config.toml:1: This is not valid TOML: "),
]
