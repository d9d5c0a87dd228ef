"""Every text of the desktop in German and Chinese, and what is shipped is what was written."""

from __future__ import annotations

import datetime as dt
import gettext
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QLocale, Qt
from PySide6.QtWidgets import QApplication

from desktop.language import Language
from desktop.text import _, choose_language, n_
from desktop.windows.wording import short_number
from desktop.words import clock
from translating.catalogue import PLURALS, Entry, compiled, mistakes, read
from translating.sources import SourceError, Text, collect, setting_texts

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def english_again(qapp: QApplication) -> Iterator[None]:
    before = QLocale()
    yield
    Language(qapp).choose("en")
    choose_language(["en"])
    QLocale.setDefault(before)
    qapp.setLayoutDirection(Qt.LayoutDirection.LeftToRight)


@pytest.mark.parametrize("language", PLURALS)
def test_every_text_is_translated_and_what_is_shipped_is_that(language: str) -> None:
    """After a new or changed text: ``packaging/translations``, then fill in what is empty, then again."""
    texts = {**setting_texts(), **collect(ROOT / "desktop")}
    entries = read(ROOT / "resources" / "translations" / f"{language}.po")
    assert list(mistakes(language, texts, entries)) == []
    shipped = ROOT / "desktop" / "locale" / language / "LC_MESSAGES" / "ostler.mo"
    assert shipped.read_bytes() == compiled(language, entries)


def test_mistakes_are_found() -> None:
    texts = {
        "{a} is {b}": Text("{a} is {b}", places={"x.py"}),
        "{n} task": Text("{n} task", "{n} tasks", {"x.py"}),
        "More…": Text("More…", places={"x.py"}),
        "New": Text("New", places={"x.py"}),
    }
    entries = {
        "{a} is {b}": Entry("{a} is {b}", "", ("{a} ist {c}",)),
        "{n} task": Entry("{n} task", "{n} tasks", ("eine Aufgabe", "Aufgaben")),
        "More…": Entry("More…", "", ("Mehr",)),
        "Gone": Entry("Gone", "", ("Weg",)),
    }
    found = "\n".join(mistakes("de", texts, entries))
    for part in (
        "'{a} ist {c}' is to have",
        "'Aufgaben' is to have",
        "'Mehr' and",
        "not translated: 'New'",
        "'Gone'",
    ):
        assert part in found
    assert "eine Aufgabe" not in found  # "one task" says its number in words


def test_a_text_that_is_put_together_first_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text('def f(n): return _(f"{n} tasks")\n')
    with pytest.raises(SourceError, match=r"x\.py:1"):
        collect(tmp_path)


def test_gettext_reads_what_is_compiled() -> None:
    entries = {
        "a": Entry("a", "", ("ä\n„x“",)),
        "{n} b": Entry("{n} b", "{n} bs", ("{n} B", "{n} Bs")),
        "empty": Entry("empty", "", ("",)),
    }
    found = gettext.GNUTranslations(io.BytesIO(compiled("de", entries)))
    assert found.gettext("a") == "ä\n„x“"
    assert [found.ngettext("{n} b", "{n} bs", n) for n in (0, 1, 2)] == ["{n} Bs", "{n} B", "{n} Bs"]
    assert found.gettext("empty") == "empty"


def test_words_numbers_and_qts_own_texts_speak_the_language(qapp: QApplication) -> None:
    language = Language(qapp)

    def own(text: str) -> str:
        return QCoreApplication.translate("QPlatformTheme", text)

    assert language.choose("de")
    assert (_("Cancel"), own("Cancel")) == ("Abbrechen", "Abbrechen")
    assert [n_("{n} task", "{n} tasks", count) for count in (1, 2)] == ["1 Aufgabe", "2 Aufgaben"]
    assert QLocale().toString(1234.5, "f", 1) == "1.234,5"
    assert short_number(12_345) == "12,3 k"
    later = dt.datetime(2026, 2, 1, 12, tzinfo=dt.UTC)
    assert clock("2026-01-05T12:34:00Z", later).startswith("05.01.26 ")
    assert language.choose("zh_CN")
    assert (_("Cancel"), own("Cancel")) == ("取消", "取消")
    assert n_("{n} task", "{n} tasks", 2) == "2 个任务"
    assert not language.choose("zh_CN")
    assert language.choose("en")
    assert (_("Cancel"), own("Cancel")) == ("Cancel", "Cancel")


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [(["de-AT", "en"], "de"), (["zh-Hans-CN"], "zh_CN"), (["zh-TW", "de"], "de"), (["fr"], "en"), ([], "en")],
)
def test_the_first_language_that_there_is(wanted: list[str], taken: str) -> None:
    assert choose_language(wanted) == taken
