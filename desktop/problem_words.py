"""What is wrong with the settings, in the user's words.

The daemon sends a reason with its parameters, and its own words for readers that have none of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from desktop.text import _, mark

_REASONS: Final[Mapping[str, str]] = {
    "flag": mark("It must be true or false, not {given}"),
    "count": mark("It must be a whole number from {least} to {most}, not {given}"),
    "count_from": mark("It must be a whole number from {least} upwards, not {given}"),
    "amount": mark("It must be a number from {least} to {most}, not {given}"),
    "duration": mark("It must be a time such as 30s, 30m, 1h30m or 2d, not {given}"),
    "size": mark("It must be a size such as 10MiB or 500MB, not {given}"),
    "unit": mark("It needs a unit: {given}s, {given}m or {given}h"),
    "least": mark("It must be at least {limit}, not {given}"),
    "most": mark("It must be at most {limit}, not {given}"),
    "words": mark("It must be a list of texts, not {given}"),
    "quotes": mark("A quotation mark is missing, or what follows a backslash"),
    "pairs": mark("It must be pairs such as name=value,name=value, not {given}"),
    "text": mark("It must be a text in quotation marks, not {given}"),
    "nul": mark("It must not contain a NUL character"),
    "choice": mark("It must be one of {choices}, not {given}"),
    "table": mark("It must be a table of names and values, not {given}"),
    "port": mark(
        "It must be 0 or from 1024 to 65535, not {given}; {first} to {last} belong to another program"
    ),
    "span": mark("It must be from when to when, such as 22:00-07:00, or off, not {given}"),
    "span_empty": mark("It must begin and end at different times, not {given}"),
    "day": mark("It must name days as {days}, not {given}"),
    "variable": mark("No variable can have the name {given}"),
    "path": mark("It must be a whole path or a bare name, not {given}"),
    "no_setting": mark("There is no such setting"),
    "no_section": mark("There is no section {given}"),
    "section": mark("It must be a section, written [{given}]"),
    "no_provider": mark("There is no agent {given}"),
    "unreadable": mark("The settings cannot be read: {error}"),
    "unwritable": mark("The settings cannot be written: {error}"),
    "too_large": mark("The file is larger than 1 MiB"),
    "not_utf8": mark("The file is not UTF-8 text"),
    "not_toml": mark("This is not valid TOML: {error}"),
    "changing": mark("The file is being changed by another program all the time"),
}
_OF_THE_FILE: Final = frozenset(
    {"no_section", "unreadable", "unwritable", "too_large", "not_utf8", "not_toml", "changing"}
)
"""These are about no single setting, or name it themselves."""


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def problem_sentence(problem: Mapping[str, Any], *, about: str = "") -> str:
    """What is wrong, where, and what was probably meant, in one or two sentences.

    Args:
        problem: A mistake as the control API tells it.
        about: The setting that the words stand beside: neither it nor its line has to be said.
    """
    key = str(problem.get("key") or "")
    params = problem.get("reason_params")
    params = params if isinstance(params, Mapping) else {}
    reason = str(problem.get("reason") or "")
    known = _REASONS.get(reason)
    if known is None:  # a newer daemon's, or one that only the command line meets
        what = str(problem.get("what") or "")
        what = what.removeprefix(key).strip() if about and key == about else what
        hint = ""
    else:
        what = _(known).format_map(_Known(params))
        near = str(params.get("near") or "")
        hint = _("Did you mean {name}?", name=near) if near else ""
        if key and key != about and reason not in _OF_THE_FILE:
            what = f"{key}: {what}"
    place = problem_place(problem) if key != about or not about else ""
    if not place and not (key and what.startswith(key)):
        what = f"{what[:1].upper()}{what[1:]}"
    sentence = f"{place}: {what}" if place else what
    return " ".join(part for part in (_("{sentence}.", sentence=sentence), hint) if part)


def problem_place(problem: Mapping[str, Any]) -> str:
    """Where a mistake is: "config.toml:5"; empty where it is in no file."""
    name = Path(str(problem["file"])).name if problem.get("file") else ""
    return f"{name}:{problem['line']}" if name and problem.get("line") else name


def all_problems(problems: object, otherwise: object) -> str:
    """Several of them, without the last full stop, for a sentence around them."""
    found = [each for each in problems if isinstance(each, Mapping)] if isinstance(problems, Iterable) else []
    told = " ".join(problem_sentence(each) for each in found) or str(otherwise or "")
    return told.removesuffix(_("{sentence}.", sentence=""))
