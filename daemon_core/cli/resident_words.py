"""The words for residents: why one is as it is, and why a wish is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_Params = Mapping[str, Any]


def _place(p: _Params) -> str:
    if not p.get("file"):
        return ""
    return f"{p['file']}:{p['line']}: " if p.get("line") else f"{p['file']}: "


def _ended(p: _Params) -> str:
    error = f" ({p['error']})" if p.get("error") else ""
    if p.get("timed_out"):
        return f"it took too long{error}"
    if p.get("signal") is not None:
        return f"it was ended by signal {p['signal']}{error}"
    return f"it ended with exit code {p.get('exit_code', '?')}{error}"


_REASONS: Final[dict[str, Callable[[_Params], str]]] = {
    "exited": _ended,
    "lost": lambda p: "what kept it was killed; everything of it was ended",
    "ended_unseen": lambda p: "it ended; how, nobody saw",
    "not_started": lambda p: str(p.get("error") or "it could not be started"),
    "build_failed": lambda p: f"its build failed: {_ended(p)}",
    "background": lambda p: "it went into the background by itself, where nothing can keep it",
    "directory_gone": lambda p: f"its directory {p.get('path', '')} is not there",
    "provider_gone": lambda p: f"there is no usable {p.get('provider', 'program')} on this machine",
    "env_file": lambda p: f"{_place(p)}{p.get('what', 'its environment file cannot be read')}",
    "file_gone": lambda p: "its file is gone, or cannot be used",
    "elsewhere": lambda p: (
        f"another daemon of yours keeps it ({p['holder']})"
        if p.get("holder")
        else "another daemon of yours keeps it"
    ),
    "outside": lambda p: f"it runs already, and was not started by Ostler (process {p.get('pid', '?')})",
    "barrier": lambda p: "an update is being applied; it starts afterwards",
    "resident_invalid": lambda p: f"{_place(p)}{p.get('what', 'its file cannot be used')}",
}

_HINTS: Final[dict[str, Callable[[_Params, str], str]]] = {
    "exited": lambda p, ident: f"`ostler resident logs {ident}` shows its last words",
    "build_failed": lambda p, ident: f"`ostler resident logs {ident}` shows what it said",
    "background": lambda p, ident: "Give it the option that keeps it in the foreground",
    "outside": lambda p, ident: f"End it, or take it on with `ostler resident start {ident} --adopt`",
    "resident_invalid": lambda p, ident: str(p.get("hint") or ""),
    "env_file": lambda p, ident: "Correct the file; it is read at each start",
}


def resident_reason(code: str, params: _Params) -> str:
    maker = _REASONS.get(code)
    return maker(params) if maker is not None else code.replace("_", " ")


def resident_hint(code: str, params: _Params, ident: str) -> str:
    """What to do about it; may be empty."""
    maker = _HINTS.get(code)
    return maker(params, ident) if maker is not None else ""


def _unusable(p: _Params) -> tuple[str, str]:
    ident, reason = str(p.get("id", "")), str(p.get("reason") or "file_gone")
    params = p.get("reason_params") or {}
    what = resident_reason(reason, params)
    return f"{ident} cannot be started: {what}", resident_hint(reason, params, ident)


_WHY_NOT_CLEARED: Final = {
    "outside": "it is not below the resident's directory",
    "protected": "it is too close to what must not be lost",
    "link": "it is a link",
    "not_a_directory": "it is not a directory",
    "mount": "it is a file system of its own",
    "unreadable": "it cannot be read",
}


def _clear(p: _Params) -> tuple[str, str]:
    why = _WHY_NOT_CLEARED.get(str(p.get("why")), str(p.get("why")))
    return f"{p.get('path', 'The directory')} is not emptied, nor is any other: {why}", "Correct the file"


REFUSALS: Final[dict[str, Callable[[_Params], tuple[str, str]]]] = {
    "resident_unusable": _unusable,
    "resident_elsewhere": lambda p: (
        f"{p.get('id', 'It')} is kept by another daemon of yours"
        + (f" ({p['holder']})" if p.get("holder") else ""),
        "Stop it there first",
    ),
    "resident_outside": lambda p: (
        f"{p.get('id', 'It')} runs already as process {p.get('pid', '?')}, and was not started by Ostler",
        f"End that one, or take it on with `ostler resident start {p.get('id', 'ID')} --adopt`",
    ),
    "resident_not_outside": lambda p: (
        f"There is no {p.get('id', 'resident')} running that could be taken on",
        "Start it without --adopt",
    ),
    "resident_at_work": lambda p: (
        f"{p.get('id', 'It')} runs",
        f"`ostler resident stop {p.get('id', 'ID')}` first",
    ),
    "resident_file": lambda p: (
        f"The file of {p.get('id', 'it')} is left as it is: {p.get('detail', '')}",
        "Change `enabled` in it yourself",
    ),
    "resident_clear": _clear,
}


def gave_up(p: _Params) -> str:
    """The condition."""
    why = resident_reason(str(p.get("why", "")), p.get("params") or {})
    return f"{p.get('name') or p.get('id') or 'A resident'} is not started again by itself: {why}"


def invalid(p: _Params) -> str:
    """The condition."""
    return f"A resident cannot be used: {_place(p)}{p.get('what', '')}"
