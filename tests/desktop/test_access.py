"""Without a mouse, without eyes, with other eyes: names and roles on a real accessibility bus, a walk through
every page by Tab alone, a focus that can be seen, more contrast and less motion when asked for, and right to
left."""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbus_fast import Variant
from PySide6.QtCore import QCoreApplication, QEvent, QObject, QPoint, Qt
from PySide6.QtGui import QAccessible, QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QAbstractItemView, QApplication, QWidget
from pytestqt.qtbot import QtBot

from desktop.models.diff import rows_of
from desktop.theme import tokens
from desktop.theme.palette import Theme, palette_of
from desktop.windows import access
from desktop.windows.bits import Elided
from desktop.windows.diff_view import DiffView
from desktop.windows.main import PAGES, MainWindow
from desktop.windows.now import NowPage
from desktop.windows.panel import Panel
from desktop.windows.task_line import TaskLine
from tests.desktop import atspi, canned
from tests.desktop.conftest import Desk
from tests.desktop.portal import look_portal
from tests.desktop.screen import desktop, said, session_bus, x_server
from tests.end_to_end.home import OstlerHome

DESKTOP = Path(__file__).parents[2] / "desktop"
INTERACTIVE = frozenset({
    "push button", "toggle button", "check box", "radio button", "combo box", "text", "list item", "page tab",
    "page tab list", "link", "slider", "spin button", "menu item", "tree", "password text", "entry",
})  # fmt: skip
offscreen = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),
]


# --- a screen reader's side -----------------------------------------------------------------------


def nameless(tree: atspi.Node) -> list[str]:
    """What can be used and has no name, with the way to it."""
    found: list[str] = []

    def walk(node: atspi.Node, way: list[str]) -> None:
        if node.role in INTERACTIVE and node.showing and not node.name.strip():
            found.append(" / ".join([*way, str(node)]))
        for child in node.children:
            walk(child, [*way, str(node)])

    walk(tree, [])
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    made = OstlerHome(tmp_path, claude=False)
    yield made
    made.close()


async def test_a_screen_reader_finds_names_and_roles_on_every_page(home: OstlerHome, tmp_path: Path) -> None:
    home.start()
    task = home.add("echo the horses; echo are fed", "shell", title="Feed the horses")
    home.wait(task)
    with (
        x_server() as display,
        session_bus(tmp_path) as address,
        desktop(
            home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address, QT_LINUX_ACCESSIBILITY_ALWAYS_ON="1"
        ),
    ):
        reader = await atspi.reader(address)
        try:
            tree = await reader.until("ostler", lambda tree: any(n.role == "page tab" for n in tree.all()))
            pages = [node.name for node in tree.all() if node.role == "page tab"]
            assert pages == [page.text for page in PAGES]
            for page in [*pages[1:], pages[0]]:
                tab = next(node for node in tree.all() if node.role == "page tab" and node.name == page)
                await reader.press(tab)
                tree = await reader.until("ostler", functools.partial(shows, page))
                assert nameless(tree) == []
            line = await reader.until_node("ostler", "list item", "Feed the horses: done")
            await reader.press(line)
            read = await reader.until_node("ostler", "list item", "the horses are fed")
            assert read.showing
            tree = await reader.program("ostler")
            assert nameless(tree) == []
        finally:
            reader.bus.disconnect()
    assert "Traceback" not in said(home)


def shows(page: str, tree: atspi.Node) -> bool:
    """Whether this page is shown, as the rail tells."""
    return [node.name for node in tree.all() if node.role == "page tab" and node.checked] == [page]


# --- by keys alone --------------------------------------------------------------------------------


def focusable(top: QWidget) -> set[QWidget]:
    """What Tab has to reach: all that is in sight, on and takes it. Of an exclusive group one is enough."""
    return {
        each
        for each in top.findChildren(QWidget)
        if each.isVisible()
        and each.isEnabled()
        and each.focusPolicy() & Qt.FocusPolicy.TabFocus
        and each.focusProxy() is None
        and each.window() is top
        and not (isinstance(each, QAbstractButton) and each.group() is not None and not each.isChecked())
    }


def walk(top: QWidget) -> list[QWidget]:
    """Where Tab goes round and round."""
    seen: list[QWidget] = []
    for _step in range(400):
        focused: QWidget | None = top.focusWidget()
        here = focused if focused is not None else top
        if here in seen:
            return seen[seen.index(here) :]
        seen.append(here)
        QTest.keyClick(here, Qt.Key.Key_Tab)
    raise AssertionError("Tab comes to no end")


@pytest.fixture
def window(qtbot: QtBot, desk: Desk) -> MainWindow:
    made = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(made)
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    made.open_page("now")
    made.show()
    qtbot.waitExposed(made)
    now = made.page("now")
    assert isinstance(now, NowPage)
    now.needing.show_requests(canned.asking_view(canned.permission()))
    return made


class TestKeys:
    pytestmark = offscreen

    @pytest.mark.parametrize("name", [*(page.name for page in PAGES), "task"])
    def test_tab_reaches_everything_of_a_page_and_is_caught_nowhere(
        self, window: MainWindow, name: str
    ) -> None:
        if name == "task":
            window.open_task("a1")
        else:
            window.open_page(name)
        QApplication.processEvents()
        wanted = focusable(window)
        seen = walk(window)
        missed = {
            f"{type(each).__name__} {each.accessibleName() or getattr(each, 'text', str)()!r}"
            for each in wanted - set(seen)
        }
        assert not missed

    def test_tab_goes_from_the_top_to_the_bottom(self, window: MainWindow) -> None:
        page = window.page("now")
        assert isinstance(page, NowPage)
        lines = [each for each in walk(window) if isinstance(each, TaskLine)]
        rows = [line.mapTo(page, QPoint(0, 0)).y() for line in lines]
        assert rows == sorted(rows)
        assert len(rows) == len(canned.busy_rows())
        QApplication.processEvents()
        assert [line.task.id for line in lines if line._tools.isVisible()] == []  # they go with the focus

    def test_nothing_but_the_window_comes_up_while_pages_are_made(self, window: MainWindow) -> None:
        """A part that is shown before it has its place is a window for a moment, and takes the focus away."""
        others: list[str] = []

        class Watch(QObject):
            def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
                top = isinstance(watched, QWidget) and watched.isWindow() and watched is not window
                if event.type() is QEvent.Type.Show and top:
                    others.append(str(watched))
                return False

        watch = Watch()
        application = QApplication.instance()
        assert application is not None
        application.installEventFilter(watch)
        for page in PAGES:
            window.open_page(page.name)
        window.open_task("a1")
        application.removeEventFilter(watch)
        assert others == []

    def test_the_focus_can_be_seen_wherever_it_is(self, window: MainWindow) -> None:
        unseen = []
        for page in PAGES:
            window.open_page(page.name)
            QApplication.processEvents()
            for widget in walk(window):
                if isinstance(widget, QAbstractItemView):
                    if not widget.model().rowCount():
                        continue  # there is nothing in it to be at
                    widget.setCurrentIndex(widget.model().index(0, 0))
                widget.setFocus(Qt.FocusReason.TabFocusReason)
                with_focus = widget.grab().toImage()
                widget.clearFocus()
                if with_focus == widget.grab().toImage():
                    unseen.append(f"{page.name}: {type(widget).__name__} {widget.accessibleName()!r}")
        assert not unseen


# --- as the system wants it -----------------------------------------------------------------------


async def test_more_contrast_a_dark_look_and_less_motion_are_taken_from_the_portal(
    tmp_path: Path, home: OstlerHome
) -> None:
    appearance, gnome = "org.freedesktop.appearance", "org.gnome.desktop.interface"
    told = {(appearance, "color-scheme"): 1, (appearance, "contrast"): 1, (gnome, "enable-animations"): 0}
    program = """
import sys
from PySide6.QtWidgets import QApplication
from desktop.theme.palette import Theme
app = QApplication([])
theme = Theme(app)
def say():
    print(theme.colours.background, theme.motion_ms, flush=True)
    if not theme.colours.dark:
        app.quit()
theme.changed.connect(say)
sys.exit(app.exec())
"""
    with session_bus(tmp_path) as address:
        async with look_portal(address, told) as portal:
            environ = {**home.environ, "QT_QPA_PLATFORM": "offscreen", "DBUS_SESSION_BUS_ADDRESS": address}
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, env=environ, stdout=asyncio.subprocess.PIPE, cwd=DESKTOP.parent
            )
            assert child.stdout is not None
            strong = tokens.DARK_CONTRAST.background
            async with asyncio.timeout(30):
                while not (line := (await child.stdout.readline()).decode()).startswith(strong):
                    assert line
                portal.SettingChanged(appearance, "color-scheme", Variant("u", 2))
                assert (await child.stdout.readline()).decode() == f"{tokens.LIGHT_CONTRAST.background} 0\n"
                assert await child.wait() == 0


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_of_the_palette_is_a_token(dark: bool, contrast: bool) -> None:
    scheme = tokens.colours(dark=dark, contrast=contrast)
    known = {
        QColor(value).name() for value in (getattr(scheme, name) for name in scheme.__dataclass_fields__)
        if isinstance(value, str)
    }  # fmt: skip
    palette = palette_of(scheme)
    for group in (palette.ColorGroup.Active, palette.ColorGroup.Inactive):
        for role in (palette.ColorRole.Window, palette.ColorRole.Text, palette.ColorRole.Button,
                     palette.ColorRole.Highlight, palette.ColorRole.PlaceholderText):  # fmt: skip
            assert palette.color(group, role).name() in known


def test_nothing_moves_by_itself() -> None:
    """So nobody has to ask for less of it. What is to move some day asks ``Theme.motion_ms``."""
    moving = re.compile(r"QPropertyAnimation|QVariantAnimation|QTimeLine|QMovie")
    assert [path.name for path in DESKTOP.rglob("*.py") if moving.search(path.read_text())] == []


# --- right to left --------------------------------------------------------------------------------


class TestRightToLeft:
    pytestmark = offscreen

    @pytest.fixture(autouse=True)
    def rtl(self, qapp: QApplication) -> Iterator[None]:
        qapp.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
        yield
        qapp.setLayoutDirection(Qt.LayoutDirection.LeftToRight)

    def test_the_window_is_mirrored(self, window: MainWindow, desk: Desk) -> None:
        assert window.rail.mapTo(window, QPoint(0, 0)).x() > window.width() / 2
        now = window.page("now")
        assert isinstance(now, NowPage)
        line = now.active.lines["b1"]
        assert line._glyph.x() > line._time.x()

    def test_what_is_painted_by_hand_is_mirrored_too(self, window: MainWindow, theme: Theme) -> None:
        glyph = window.rail.buttons["history"].grab().toImage()
        ground = glyph.pixelColor(2, 2)
        inked = [
            x
            for x in range(glyph.width())
            if any(
                glyph.pixelColor(x, y) != ground
                for y in range(glyph.height() // 2 - 4, glyph.height() // 2 + 4)
            )
        ]
        assert max(inked) > glyph.width() * 0.8  # the glyph stands at the right
        assert min(inked) > glyph.width() * 0.3

    def test_the_panel_is_mirrored(self, qtbot: QtBot, desk: Desk) -> None:
        panel = Panel(desk.context, desk.settings)
        qtbot.addWidget(panel)
        desk.link.tell(**canned.connected(*canned.busy_rows()))
        panel.come_up(lambda size: panel.rect().adjusted(0, 0, 0, 0))
        assert panel.more.x() < panel._mark.x()
        assert panel.new_task.button.x() < panel.new_task.prompt.x()


def test_views_that_paint_their_lines_tell_what_is_in_sight(qtbot: QtBot, theme: Theme) -> None:
    view = DiffView(theme.colours)
    qtbot.addWidget(view)
    view.resize(500, 200)
    view.show()
    view.show_rows(rows_of(canned.DIFF), path="x.ts")
    told = [text for text, _place in view.spoken()]
    assert any(text.startswith("+") and "const next" in text for text in told)
    assert len(told) < len(rows_of(canned.DIFF))  # what cannot be seen is not read out
    view.show_rows([], "This task changed no files.")
    assert [text for text, _place in view.spoken()] == ["This task changed no files."]


def test_what_is_told_ends_with_the_widget_it_is_told_of(qtbot: QtBot, theme: Theme) -> None:
    access.install()
    for round_ in range(2 * access.PURGE_AT):
        widget = Elided(f"line {round_}") if round_ % 8 else DiffView(theme.colours)
        interface = QAccessible.queryAccessibleInterface(widget)
        if isinstance(widget, DiffView):
            widget.show_rows(rows_of(canned.DIFF))
            widget.resize(400, 100)
            first = interface.child(0)
            assert first.role() is QAccessible.Role.ListItem
            assert first.text(QAccessible.Text.Name) == widget.spoken()[0][0]
            assert interface.child(-1) is None
        else:
            assert interface.role() is QAccessible.Role.StaticText
            assert interface.text(QAccessible.Text.Name) == f"line {round_}"
        widget.deleteLater()
        del widget, interface
        QCoreApplication.sendPostedEvents(None, int(QEvent.Type.DeferredDelete.value))
    assert len(access._made) <= access.PURGE_AT + 1
