"""Whether the end of an output is a menu that is moved through with the arrow keys.

Such a program hides the cursor and leaves no question at the end of a line: what can be told is how it draws.
A menu is a question, choices below it of which one is pointed at, and mostly a hint which keys to use, above
or below. Any of these alone is in the output of ordinary builds (a test runner points at the file it is in),
so two of them are wanted, at the very end of what was written.
"""

from __future__ import annotations

import re
from typing import Final

MENU_LINES: Final = 40
"""So much of the end is looked at: a screen."""
LINE_CHARS: Final = 200

_KEYS: Final = "\u2191\u2193\u2190\u2192"  # arrows
_MARKS: Final = "\u276f\u203a\u00bb\u25b8\u25ba\u27a4\u25b6"  # what points at a choice
_TICKS: Final = "\u25cb\u25ef\u25fb\u25fc\u2610\u2611\u2714\u2b21\u2b22\u25cf\u25c9"  # boxes and circles
_SIDE: Final = "\u2502"  # the left side of a frame
_ARROWS: Final = re.compile(
    rf"\b(use|with)\s+(the\s+)?(arrow[ -]?keys|arrows|up/down|[{_KEYS}])|\barrow[ -]keys\b"
    rf"|[{_KEYS}]\s?/?\s?[{_KEYS}]?\s*(to\s+)?(move|navigate|toggle|select|choose|up|down)\b"
    rf"|[{_KEYS}]\s?/\s?[{_KEYS}]\s*:",
    re.I,
)
"""Which keys move about: said beside a question, or below the choices."""
_TAKES: Final = re.compile(
    r"\b(enter|return|\u23ce|\u21b5)\s*[:=]?\s*(to\s+)?(submit|select|confirm|choose|accept|continue|finish)\b"
    r"|\bpress\s+<?space>?\s+to\s+(select|toggle)\b|\btype to (filter|search)\b",
    re.I,
)
"""Which key takes what is pointed at."""
_BULLET: Final = re.compile(rf"[{_KEYS}\u2022\u00b7\[(]")
_POINTED: Final = re.compile(rf"^[\s{_SIDE}|]{{0,4}}([{_MARKS}>]\s+\S|[{_MARKS}]\S)")
_CHOICE: Final = re.compile(
    rf"^\s{{2,}}\S|^[\s{_SIDE}|]{{0,4}}[{_TICKS}]\s{{0,4}}\S|^\s{{0,2}}(\[[ xX*]?\]|\([ xX*]?\))\s"
    r"|^\s*[\u2500-]{3,}\s*$"
)
_TICKED: Final = re.compile(rf"^\s{{0,2}}[{_TICKS}]\s+\S")
_ASKS: Final = re.compile(r"^\s{0,2}(\? |\u25c6 {1,2})\S")
"""How these libraries begin a question that was not answered yet."""
_BRACKETED: Final = re.compile(r"[(\[][^)\]]{0,40}\b(arrow[ -]?keys|arrows)\b", re.I)
_KEY_LINE: Final = re.compile(rf"^\s*[{_KEYS}]\s?/\s?[{_KEYS}]\s*:")
_FRAME_END: Final = re.compile(r"^\u2514\s*$")
_FRAME_ASKS: Final = re.compile(r"^\u25c6\s+\S")
_FRAME_SIDE: Final = re.compile(rf"^{_SIDE}")
_MORE: Final = re.compile(
    rf"^\s*(\(?(move|scroll|use)\b.{{0,60}}\b(up|down|reveal|choices)\b|[{_KEYS}\u2026]\s*$)", re.I
)


def is_menu(lines: list[str]) -> bool:
    """Whether these lines, the last of an output, end in a menu that waits for somebody."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    if not end or len(lines) - end > 2:
        return False  # whoever draws a menu leaves no page of nothing below it
    shown = lines[max(0, end - MENU_LINES) : end]
    if any(len(line) > LINE_CHARS for line in shown[-3:]):
        return False
    return _framed(shown) or _hint_below(shown) or _hint_above(shown)


def _framed(lines: list[str]) -> bool:
    """A frame whose question is the open one, and whose last line says nothing (else it is the end)."""
    if not _FRAME_END.search(lines[-1]):
        return False
    for line in reversed(lines[:-1]):
        if _FRAME_ASKS.search(line):
            return True
        if not _FRAME_SIDE.search(line):
            return False
    return False


def _hint_below(lines: list[str]) -> bool:
    """Choices, or buttons side by side, then a line that says which keys there are."""
    last = lines[-1]
    if not _TAKES.search(last) or not (_ARROWS.search(last) or _BULLET.search(last)):
        return False
    return any(line.strip() for line in lines[:-1])


def _hint_above(lines: list[str]) -> bool:
    """Choices up to the end, one of them pointed at, below a question that says or shows that it is one."""
    pointed = 0
    at = len(lines) - 1
    while at >= 0 and _MORE.search(lines[at]):
        at -= 1
    bottom = at
    while at >= 0:
        line = lines[at]
        if _asks(line):
            return pointed == 1 or (pointed == 0 and _ticked(lines[at + 1 : bottom + 1]))
        if _POINTED.search(line):
            pointed += 1
        elif line.strip() and not _CHOICE.search(line):
            return False
        at -= 1
    return False


def _asks(line: str) -> bool:
    # Keys are named beside the question in brackets, or in lines of their own.
    return bool(_ASKS.search(line) or _BRACKETED.search(line) or _KEY_LINE.search(line))


def _ticked(lines: list[str]) -> bool:
    """Choices that are ticked one by one: the one that is pointed at is told by its looks alone."""
    return len(lines) > 1 and all(_TICKED.search(line) for line in lines[-2:])
