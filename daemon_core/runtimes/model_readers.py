"""Reads what agents answer when they are asked for their models. Never raises on any text.

Every function gives None where the answer is not in the form it reads, and otherwise what it found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

MODELS_LIMIT: Final = 2000
TEXT_LIMIT_CHARS: Final = 200


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model that an agent can be told to use."""

    id: str
    """What the agent is told."""
    name: str = ""
    default: bool = False
    """Whether it is used when nothing is said."""
    thinking_levels: tuple[str, ...] = ()
    default_level: str = ""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says."""

    models: tuple[ModelInfo, ...] = ()
    levels_told: bool = False
    """Whether it tells for every model which levels it has, be it none."""


_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\-]*")
_LEVELS = re.compile(r"\(([^()]*)\)")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_JSON_LINE = re.compile(r"^[{\[]", re.MULTILINE)
_LAST: Final = 10**9
_OPENCODE_HEAD = re.compile(r"[^\s{}\"]+/[^\s{}\"]+")


def codex(text: str) -> Listed | None:
    """``{"models": [{slug, display_name, visibility, supported_reasoning_levels, …}]}``."""
    found = _json(text)
    entries = found.get("models") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        return None
    made: list[tuple[int, ModelInfo | None]] = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("visibility") == "hide":
            continue
        levels = entry.get("supported_reasoning_levels")
        priority = entry.get("priority")
        info = _info(
            entry.get("slug"),
            entry.get("display_name"),
            levels=[_level(level) for level in levels] if isinstance(levels, list) else [],
            level=entry.get("default_reasoning_level"),
        )
        made.append((priority if isinstance(priority, int) else _LAST, info))
    made.sort(key=lambda each: each[0])
    return _listed((info for _, info in made), levels_told=True)


def opencode(text: str) -> Listed | None:
    """A line ``provider/model`` and below it what is known of it, as JSON over many lines."""
    decoder = json.JSONDecoder()
    made: list[ModelInfo | None] = []
    rest = _ESCAPES.sub("", text).lstrip()
    told = False
    while rest and len(made) < MODELS_LIMIT:
        line, _, after = rest.partition("\n")
        head = _OPENCODE_HEAD.fullmatch(line.strip())
        rest = after.lstrip()
        if head is None:
            continue
        facts: Any = {}
        if rest.startswith("{"):
            try:
                facts, end = decoder.raw_decode(rest)
                rest = rest[end:].lstrip()
                told = True
            except (ValueError, RecursionError):
                facts = {}
        variants = facts.get("variants") if isinstance(facts, dict) else None
        name = facts.get("name") if isinstance(facts, dict) else None
        made.append(_info(head.group(), name, levels=list(variants) if isinstance(variants, dict) else []))
    return _listed(made, levels_told=told) if made else None


def lines(text: str) -> Listed | None:
    """One model a line: ``id`` or ``id - Name (current, default)``; headings have neither form."""
    made = []
    for line in _ESCAPES.sub("", text).splitlines():
        model, dash, name = line.strip().lstrip("*-• ").partition(" - ")
        model = model.strip()
        if not _WORD.fullmatch(model):
            continue
        notes = _LEVELS.findall(name)
        default = any("default" in note for note in notes)
        made.append(_info(model, _LEVELS.sub("", name) if dash else "", default=default))
    return _listed(made) if made else None


def table(text: str) -> Listed | None:
    """Columns, the first two of which are provider and model."""
    made = []
    for line in _ESCAPES.sub("", text).splitlines():
        words = line.split()
        if len(words) < 2 or words[0].lower() == "provider":
            continue
        if _WORD.fullmatch(words[0]) and _WORD.fullmatch(words[1]):
            made.append(_info(f"{words[0]}/{words[1]}", words[1]))
    return _listed(made) if made else None


def any_json(text: str) -> Listed | None:
    """A list of names or objects, bare or below ``models`` or ``agents``; an object may tell its thinking
    levels."""
    found = _json(text)
    if isinstance(found, dict):
        found = next((found[key] for key in ("models", "agents", "items", "data") if key in found), None)
    if not isinstance(found, list):
        return None
    made = []
    for entry in found:
        if isinstance(entry, str):
            made.append(_info(entry, ""))
        elif isinstance(entry, dict):
            model = next((entry[key] for key in ("id", "slug", "model", "name") if entry.get(key)), None)
            provider = entry.get("provider")
            if isinstance(provider, str) and isinstance(model, str) and "/" not in model:
                model = f"{provider}/{model}"
            name = entry.get("label") or entry.get("display_name") or entry.get("name")
            default = bool(entry.get("default") or entry.get("isDefault"))
            thinking = entry.get("thinking")
            told = thinking if isinstance(thinking, dict) else {}
            levels = told.get("supported_levels")
            values = [each.get("value") if isinstance(each, dict) else each for each in levels or ()] if (
                isinstance(levels, list)
            ) else []  # fmt: skip
            made.append(_info(model, name, default=default, levels=values, level=told.get("default_level")))
    return _listed(made)


def acp_session(result: object, *, by_name: bool = False) -> Listed:
    """What the answer to ``session/new`` says: ``models``, or ``configOptions`` of these categories.

    Args:
        by_name: The agent is told a model by its name elsewhere than in this protocol.
    """
    result = result if isinstance(result, dict) else {}
    made: list[ModelInfo | None] = []
    models = result.get("models")
    levels: list[object] = []
    level: object = ""
    options = result.get("configOptions")
    for option in options if isinstance(options, list) else ():
        if not isinstance(option, dict):
            continue
        values = _values(option.get("options"))
        if option.get("category") == "thought_level" or option.get("id") in ("effort", "thought_level"):
            levels, level = [value for value, _ in values], option.get("currentValue")
        elif option.get("category") == "model" or option.get("id") == "model":
            current = option.get("currentValue")
            made += [
                _info(name if by_name else value, name, default=value == current) for value, name in values
            ]
    available = models.get("availableModels") if isinstance(models, dict) else None
    if not made and isinstance(models, dict) and isinstance(available, list):
        current = models.get("currentModelId")
        for entry in available:
            if isinstance(entry, dict):
                model, name = entry.get("modelId"), entry.get("name")
                made.append(_info(name if by_name else model, name, default=model == current))
    # Which levels there are is told for the model in use; others may have fewer.
    with_levels = [_with_levels(info, levels, level) for info in made if info is not None]
    return _listed(with_levels)


def levels_in_help(text: str, option: str) -> tuple[str, ...]:
    """The values that a help text names in brackets beside an option."""
    begin = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) if option else None
    if begin is None:
        return ()
    about = text[begin.end() : begin.end() + 1000]
    after = re.search(r"\n\s*-{1,2}[A-Za-z]", about)
    about = about[: after.start()] if after else about
    for group in _LEVELS.findall(about):
        _, _, named = group.rpartition(":")
        words = [word.strip().strip("\"'`") for word in re.split(r"[,|/]", named)]
        if len(words) > 1 and all(re.fullmatch(r"[a-z][a-z0-9_-]{1,15}", word) for word in words):
            return tuple(dict.fromkeys(words))
    return ()


READERS: Final[Mapping[str, Callable[[str], Listed | None]]] = {
    "codex": codex,
    "opencode": opencode,
    "lines": lines,
    "table": table,
    "json": any_json,
}
"""By the name that a provider's entry gives."""


def _json(text: str) -> object:
    """The JSON in an output, which may be preceded by other lines."""
    begin = min((found for mark in "{[" if (found := text.find(mark)) >= 0), default=-1)
    while 0 <= begin < len(text):
        try:
            return json.JSONDecoder().raw_decode(text, begin)[0]
        except (ValueError, RecursionError):
            # Perhaps a note before it, which begins with a bracket; the document begins a line.
            following = _JSON_LINE.search(text, begin + 1)
            begin = following.start() if following else -1
    return None


def _values(options: object) -> list[tuple[object, object]]:
    """Value and name of each choice; choices may be in groups."""
    made: list[tuple[object, object]] = []
    for entry in options if isinstance(options, list) else ():
        if isinstance(entry, dict):
            if isinstance(entry.get("options"), list):
                made += [
                    (each.get("value"), each.get("name"))
                    for each in entry["options"]
                    if isinstance(each, dict)
                ]
            else:
                made.append((entry.get("value"), entry.get("name")))
    return made


def _level(entry: object) -> object:
    return entry.get("effort") if isinstance(entry, dict) else entry


def _with_levels(info: ModelInfo, levels: Iterable[object], level: object) -> ModelInfo:
    kept = _words(levels)
    return msgspec.structs.replace(
        info, thinking_levels=kept, default_level=level if isinstance(level, str) and level in kept else ""
    )


def _words(values: Iterable[object]) -> tuple[str, ...]:
    kept = (value for value in values if isinstance(value, str) and value and len(value) <= 64)
    return tuple(dict.fromkeys(kept))[:64]


def _info(
    model: object,
    name: object,
    *,
    default: bool = False,
    levels: Iterable[object] = (),
    level: object = "",
) -> ModelInfo | None:
    if not isinstance(model, str) or not model.strip() or len(model) > TEXT_LIMIT_CHARS:
        return None
    if not model.isprintable():
        return None
    kept = _words(levels)
    return ModelInfo(
        id=model.strip(),
        name=" ".join(name.split())[:TEXT_LIMIT_CHARS] if isinstance(name, str) else "",
        default=default,
        thinking_levels=kept,
        default_level=level if isinstance(level, str) and level in kept else "",
    )


def _listed(models: Iterable[ModelInfo | None], *, levels_told: bool = False) -> Listed:
    made: dict[str, ModelInfo] = {}
    for info in models:
        if info is not None and len(made) < MODELS_LIMIT:
            made.setdefault(info.id, info)
    return Listed(models=tuple(made.values()), levels_told=levels_told)
