"""Kinds of setting: how each is written in the file and in text, and what is refused.

Every parser raises ``BadValueError`` whose text completes "<key> …", such as "must be a whole number from 1
to 64, not 0".
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from typing import Any, Final, Literal

from daemon_core.settings.errors import BadValueError

Kind = Literal["flag", "count", "amount", "text", "choice", "duration", "size", "words", "counts", "texts"]

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZES: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class Key:
    """What a setting is. Stands beside the type of its field (``Annotated``) and is the documentation too."""

    kind: Kind
    what: str
    """What it sets, one sentence."""
    why: str = ""
    """Why the default is what it is."""
    least: float = 0
    most: float = 2**53
    choices: tuple[str, ...] = ()
    live: bool = True
    """Whether a running daemon takes a change over without a restart."""


def parse_duration(text: str) -> float:
    """Seconds of "30m", "1h30m", "2d", "300ms" or "0"."""
    compact = text.strip()
    if compact == "0":
        return 0.0
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise BadValueError(
            f'must be a duration such as "30s", "30m", "1h30m" or "2d", not {_shown(text)}',
            "duration",
            given=_shown(text),
        )
    found = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if math.isinf(found):
        raise ValueError(f"must be shorter than {_shown(text)}")
    return found


def format_duration(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads as the same (to the millisecond)."""
    rest = round(seconds * 1000)
    if rest == 0:
        return "0"
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return text


def parse_size(text: str) -> int:
    """Bytes of "10MiB", "500 MB" or "4096"."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _SIZES:
        raise BadValueError(
            f'must be a size such as "10MiB" or "500MB", not {_shown(text)}', "size", given=_shown(text)
        )
    found = float(match[1]) * _SIZES[match[2]]
    if math.isinf(found):
        raise ValueError(f"must be smaller than {_shown(text)}")
    return round(found)


def format_size(count: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _SIZES[unit] == 0:
            return f"{count // _SIZES[unit]}{unit}"
    return str(count)


def from_toml(key: Key, value: Any) -> Any:
    """The setting's value for what stands in the file."""
    match key.kind:
        case "flag":
            if not isinstance(value, bool):
                raise _no_flag(value)
            return value
        case "count":
            return _count(key, value)
        case "amount":
            return _amount(key, value)
        case "text":
            return _text(value)
        case "choice":
            return _choice(key, value)
        case "duration":
            if isinstance(value, int | float) and not isinstance(value, bool) and value != 0:
                raise BadValueError(
                    f'needs a unit: "{value}s", "{value}m" or "{value}h", in quotation marks',
                    "unit",
                    given=str(value),
                )
            return _within(key, parse_duration("0" if value == 0 else _text(value)), format_duration)
        case "size":
            plain = isinstance(value, int) and not isinstance(value, bool)
            return _within(key, parse_size(str(value) if plain else _text(value)), format_size)
        case "words":
            if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
                raise BadValueError(
                    f'must be a list of texts such as ["a", "b"], not {_shown(value)}',
                    "words",
                    given=_shown(value),
                )
            return tuple(value)
        case "counts":
            return {name: _count(key, count) for name, count in _table(value).items()}
        case "texts":
            return {name: _text(text) for name, text in _table(value).items()}


def from_text(key: Key, text: str) -> Any:
    """What would stand in the file for ``text``, as given on a command line or in the environment."""
    stripped = text.strip()
    match key.kind:
        case "flag":
            if stripped.lower() in _TRUE | _FALSE:
                return stripped.lower() in _TRUE
            raise _no_flag(text)
        case "count":
            try:
                return int(stripped)
            except ValueError:
                return _count(key, text)  # raises, with the range in its text
        case "amount":
            try:
                return float(stripped)
            except ValueError:
                return _amount(key, text)  # raises, with the range in its text
        case "size":
            return int(stripped) if stripped.isdigit() else stripped
        case "words":
            try:
                return shlex.split(text)
            except ValueError as error:
                raise BadValueError(f"cannot be split into words: {error}", "quotes") from error
        case "counts" | "texts":
            pairs = [part.partition("=") for part in text.split(",") if part.strip()]
            if not all(sign for _, sign, _ in pairs):
                raise BadValueError(
                    f"must be pairs such as name=value,name=value, not {_shown(text)}",
                    "pairs",
                    given=_shown(text),
                )
            if key.kind == "texts":
                return {name.strip(): value for name, _, value in pairs}
            counter = Key("count", "", least=key.least, most=key.most)
            return {name.strip(): from_text(counter, value) for name, _, value in pairs}
        case _:
            return stripped if key.kind != "text" else text


def to_toml(key: Key, value: Any) -> Any:
    """The inverse of ``from_toml``: a plain value for a file, for JSON and for showing."""
    match key.kind:
        case "duration":
            return format_duration(value)
        case "size":
            return format_size(value)
        case "words":
            return list(value)
        case _:
            return value


def _no_flag(value: Any) -> BadValueError:
    return BadValueError(f"must be true or false, not {_shown(value)}", "flag", given=_shown(value))


def _count(key: Key, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not key.least <= value <= key.most:
        upper = f" to {key.most:.0f}" if key.most < 2**53 else " upwards"
        params = {"least": f"{key.least:.0f}", "given": _shown(value)}
        if key.most < 2**53:
            params["most"] = f"{key.most:.0f}"
        raise BadValueError(
            f"must be a whole number from {key.least:.0f}{upper}, not {_shown(value)}",
            "count" if "most" in params else "count_from",
            **params,
        )
    return value


def _amount(key: Key, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not key.least <= value <= key.most:
        raise BadValueError(
            f"must be a number from {key.least:g} to {key.most:g}, not {_shown(value)}",
            "amount",
            least=f"{key.least:g}",
            most=f"{key.most:g}",
            given=_shown(value),
        )
    return float(value)


def _within(key: Key, value: Any, show: Any) -> Any:
    if not key.least <= value <= key.most:
        bound = "at least" if value < key.least else "at most"
        limit = key.least if value < key.least else key.most
        raise BadValueError(
            f'must be {bound} "{show(limit)}", not {_shown(show(value))}',
            "least" if value < key.least else "most",
            limit=str(show(limit)),
            given=str(show(value)),
        )
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValueError(
            f"must be a text in quotation marks, not {_shown(value)}", "text", given=_shown(value)
        )
    if "\0" in value:
        raise BadValueError("must not contain a NUL character", "nul")
    return value


def _choice(key: Key, value: Any) -> str:
    if value not in key.choices:
        raise BadValueError(
            f"must be one of {', '.join(key.choices)}, not {_shown(value)}",
            "choice",
            choices=", ".join(key.choices),
            given=_shown(value),
        )
    return str(value)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadValueError(
            f"must be a table such as {{ name = 1 }}, not {_shown(value)}", "table", given=_shown(value)
        )
    return value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
