"""Colours, type and spacing: the only place where any of them is a number.

A colour is named by what it means. The contrast of every text on every ground it appears on is tested from
this table: 4.5 to 1 for text, 3 to 1 for glyphs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

GRID: Final = 8
HALF: Final = 4
"""Inside rows."""
RADIUS: Final = 6
ROW: Final = 32
ROW_COMPACT: Final = 28
TEXT_WIDTH: Final = 760
"""The widest column of a transcript."""

SMALL: Final = 11
BODY: Final = 13
TITLE: Final = 15
SENTENCE: Final = 20
MONO: Final = 12
"""Type sizes in pixels at 100 %."""
REGULAR: Final = 400
STRONG: Final = 600

MOTION_MS: Final = 120
"""The longest a change is drawn out; nothing moves when the system asks for less."""


@dataclass(frozen=True, slots=True)
class Colours:
    """One scheme. Hexadecimal, as Qt and style sheets take them."""

    dark: bool
    background: str
    surface: str
    raised: str
    line: str
    text: str
    muted: str
    accent: str
    on_accent: str
    running: str
    done: str
    waiting: str
    failed: str
    neutral: str
    handle: str
    """Of scroll bars: seen, and never the first thing that is."""
    hover: str
    selected: str
    added: str
    """Ground of added lines of a diff."""
    removed: str


LIGHT: Final = Colours(
    dark=False,
    background="#FBFBFA",
    surface="#FFFFFF",
    raised="#F3F3F1",
    line="#E3E3E0",
    text="#1F2023",
    muted="#63656B",
    accent="#8A5A2B",
    on_accent="#FFFFFF",
    running="#2862C9",
    done="#2B7449",
    waiting="#9A5B00",
    failed="#C0392B",
    neutral="#6B6E76",
    handle="#888B93",
    hover="#F3F3F1",
    selected="#F2E9DF",
    added="#E8F4EC",
    removed="#FBEBE9",
)

DARK: Final = Colours(
    dark=True,
    background="#1C1D1F",
    surface="#242528",
    raised="#2C2D31",
    line="#3A3B40",
    text="#ECECEE",
    muted="#A3A5AD",
    accent="#D9A066",
    on_accent="#1C1D1F",
    running="#7DA9FF",
    done="#6FCF97",
    waiting="#F2B45A",
    failed="#FF8A80",
    neutral="#9A9DA6",
    handle="#767982",
    hover="#2C2D31",
    selected="#3A3128",
    added="#1F3328",
    removed="#3B2624",
)

LIGHT_CONTRAST: Final = replace(
    LIGHT,
    background="#FFFFFF",
    raised="#FFFFFF",
    line="#1F2023",
    text="#000000",
    muted="#303136",
    accent="#6B3F14",
    running="#1B4796",
    done="#1B5434",
    waiting="#6E4100",
    failed="#96281B",
    neutral="#44464C",
    handle="#44464C",
    hover="#EDEDED",
    selected="#E6D8C8",
)

DARK_CONTRAST: Final = replace(
    DARK,
    background="#000000",
    surface="#000000",
    raised="#000000",
    line="#ECECEE",
    text="#FFFFFF",
    muted="#D5D6DB",
    accent="#F0BE88",
    running="#A9C6FF",
    done="#9BE5B8",
    waiting="#FFD08A",
    failed="#FFB3AC",
    neutral="#C9CBD1",
    handle="#C9CBD1",
    hover="#202124",
    selected="#4A3A26",
)


def colours(*, dark: bool, contrast: bool = False) -> Colours:
    """The scheme for what the system asks for."""
    if contrast:
        return DARK_CONTRAST if dark else LIGHT_CONTRAST
    return DARK if dark else LIGHT


def contrast_ratio(first: str, second: str) -> float:
    """How far two colours are apart for the eye: 1 to 21, as the accessibility guidelines reckon it."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
