"""A shortcut as the user writes it: "Ctrl+Alt+O". No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Modifier = Literal["ctrl", "alt", "shift", "meta"]
_MODIFIERS: Final[dict[str, Modifier]] = {
    "ctrl": "ctrl", "control": "ctrl", "alt": "alt", "option": "alt", "shift": "shift", "meta": "meta",
    "super": "meta", "win": "meta", "cmd": "meta", "command": "meta",
}  # fmt: skip
_NAMED: Final = frozenset(
    {"space", "return", "tab", "escape", "insert", "delete", "home", "end", "pageup", "pagedown", "left",
     "right", "up", "down", *(f"f{number}" for number in range(1, 25))}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """``key`` is a capital letter, a digit, or one of the named keys in small letters."""

    modifiers: frozenset[Modifier]
    key: str

    def __str__(self) -> str:
        order = ("ctrl", "alt", "shift", "meta")
        parts = [name.capitalize() for name in order if name in self.modifiers]
        return "+".join([*parts, self.key if len(self.key) == 1 else self.key.capitalize()])


def parse(text: str) -> Keys | None:
    """The shortcut; None for what is none, or would take a key that is needed for writing."""
    parts = [part.strip() for part in text.split("+")]
    modifiers: set[Modifier] = set()
    for part in parts[:-1]:
        modifier = _MODIFIERS.get(part.lower())
        if modifier is None or modifier in modifiers:
            return None
        modifiers.add(modifier)
    key = parts[-1].lower() if parts else ""
    if key in _NAMED:
        plain = not modifiers - {"shift"} and not (key[:1] == "f" and key[1:].isdigit())
    elif len(key) == 1 and key.isascii() and key.isalnum():
        key = key.upper()
        plain = not modifiers - {"shift"}
    else:
        return None
    return None if plain else Keys(frozenset(modifiers), key)
