"""Every visible word goes through here: gettext with the catalogues of ``desktop/locale``.

English is in the code. ``_`` is for one text, ``n_`` for one with a number (the form follows the number), and
``mark`` for a text that stands in a table and is translated where it is shown. Values are filled in by name,
so that a translation can order them as its language wants.
"""

from __future__ import annotations

import gettext
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DOMAIN: Final = "ostler"
CATALOGUES: Final = Path(__file__).resolve().parent / "locale"
LANGUAGES: Final = ("en", "de", "zh_CN")

_catalogue: gettext.NullTranslations = gettext.NullTranslations()
_language = "en"


def choose_language(wanted: Sequence[str]) -> str:
    """Take the first language that there is a catalogue for; the one taken (``en`` if there is none).

    Args:
        wanted: Names as the system has them: ``de-AT``, ``zh_CN``, ``zh-Hans-CN``; the preferred one first.
    """
    global _catalogue, _language
    for name in wanted:
        known = _known(name)
        if known == "en":
            break
        if known:
            found = gettext.translation(DOMAIN, CATALOGUES, [known], fallback=True)
            if not isinstance(found, gettext.GNUTranslations):
                continue
            _catalogue, _language = found, known
            return known
    _catalogue, _language = gettext.NullTranslations(), "en"
    return "en"


def language() -> str:
    """The one in force: ``en``, ``de``, ``zh_CN``."""
    return _language


def _known(name: str) -> str:
    parts = name.replace("-", "_").split(".")[0].split("_")
    language = parts[0].lower()
    if language == "zh":
        # Traditional Chinese is another script: English reads better than the wrong one.
        return "" if {"TW", "HK", "MO", "Hant"} & set(parts) else "zh_CN"
    return language if language in LANGUAGES else ""


def _(text: str, **values: object) -> str:
    """A text in the user's language, with its values filled in."""
    found = _catalogue.gettext(text)
    return found.format_map(values) if values else found


def n_(one: str, many: str, count: int, **values: object) -> str:
    """A text with a number, in the form that goes with it; the number itself is ``{n}``."""
    return _catalogue.ngettext(one, many, count).format_map({"n": count, **values})


def mark(text: str) -> str:
    """The text itself: it is collected for the catalogues here and translated where it is shown."""
    return text
