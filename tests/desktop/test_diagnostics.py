"""The button on "Health" that gathers one file for whoever helps; it needs no daemon."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from desktop.windows.diagnostics import PARTS, DiagnosticsSection
from tests.desktop.conftest import Desk
from tests.desktop.hands import click

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
]
WAIT_MS = 60_000


def test_what_is_in_it_is_shown_and_the_file_is_written(
    qtbot: QtBot, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTLER_HOME", str(tmp_path / "o"))
    section = DiagnosticsSection(desk.context)
    qtbot.addWidget(section)
    section.show()
    click(section.preview)
    assert not section.save.isEnabled()
    qtbot.waitUntil(section.contents.isVisible, timeout=WAIT_MS)
    lines = section.contents.text().splitlines()
    assert [line.removeprefix("• ").rpartition(" (")[0] for line in lines] == list(PARTS.values())
    told: set[str] = set()

    def saved() -> bool:
        told.add(section.told.text())
        return section.folder.isVisible()

    section.gather(str(tmp_path / "x.zip"))
    qtbot.waitUntil(saved, timeout=WAIT_MS)
    assert any(sentence.startswith("Gathering") for sentence in told)
    assert str(tmp_path / "x.zip") in section.told.text()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        names = {name.removeprefix("ostler-diagnostics/") for name in archive.namelist()}
    assert names == {"README.txt", *PARTS}


def test_a_place_that_cannot_be_written_is_said(
    qtbot: QtBot, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTLER_HOME", str(tmp_path / "o"))
    section = DiagnosticsSection(desk.context)
    qtbot.addWidget(section)
    section.show()
    section.gather(str(tmp_path / "missing" / "x.zip"))
    qtbot.waitUntil(lambda: "could not be gathered" in section.told.text(), timeout=WAIT_MS)
    assert section.save.isEnabled()
    assert not section.folder.isVisible()
