"""The words for updates: what a stage means, and why something is not possible or did not work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from daemon_core.cli import show

_Params = Mapping[str, Any]


def _size(value: object) -> str:
    return show.size(value) if isinstance(value, int) else "?"


def _detail(p: _Params) -> str:
    return f" ({show.one_line(str(p['detail']), 160)})" if p.get("detail") else ""


def _disk_full(p: _Params) -> str:
    if p.get("needed"):
        return (
            f"the disk of {p.get('path', 'the data')} has {_size(p.get('free'))} free, "
            f"{_size(p.get('needed'))} are needed"
        )
    return f"the disk of {p.get('path', 'the data')} is full"


def _clock(p: _Params) -> str:
    if not p.get("there"):
        return f"this machine's clock says {p.get('here', '?')}, and the server's certificate is not of then"
    return (
        f"this machine's clock says {p.get('here', '?')}, the server's {p.get('there', '?')}: "
        "whether what it sends is of today cannot be told"
    )


_REASONS: Final[dict[str, Callable[[_Params], str]]] = {
    # Why there are none here.
    "source": lambda p: "this Ostler runs from source",
    "package_manager": lambda p: "this Ostler is kept up to date by the system's package manager",
    "launcher_gone": lambda p: f"the launcher {p.get('path', '')} is gone",
    "no_trust": lambda p: f"the installation has no {p.get('path', 'root.json')}, so nothing can be trusted",
    "no_address": lambda p: "the installation names no place to get updates from",
    "elsewhere": lambda p: "another daemon of yours (another profile) looks after the updates",
    # Asking what there is.
    "unreachable": lambda p: f"the update server cannot be reached{_detail(p)}",
    "server_error": lambda p: f"the update server answers with status {p.get('status', '?')}",
    "slow": lambda p: "the update server does not answer in time",
    "expired": lambda p: "what the update server says has expired, so it may be an old copy",
    "clock": _clock,
    "untrusted": lambda p: f"what the update server says is not signed by Ostler's makers{_detail(p)}",
    "old_metadata": lambda p: "the update server sends older metadata than it did before",
    "endless": lambda p: "the update server sends more than it should",
    "trust_missing": lambda p: f"{p.get('path', 'root.json')} cannot be read{_detail(p)}",
    "child_failed": lambda p: f"the check could not be made{_detail(p)}",
    "internal": lambda p: f"an error inside Ostler{_detail(p)}",
    # Fetching.
    "cut_off": lambda p: "the connection broke off",
    "stalled": lambda p: "the server stopped sending",
    "too_slow": lambda p: "the server sends too slowly",
    "too_long": lambda p: "the server sends more than was signed",
    "wrong_size": lambda p: "the file at the server has another size than was signed",
    "wrong_range": lambda p: "the server sends another part than was asked for",
    "redirect": lambda p: f"the server sends on to {p.get('host') or 'another place'}, which is not trusted",
    "mismatch": lambda p: "what came is not what was signed",
    "too_large": lambda p: (
        f"it has {_size(p.get('size'))}, more than the {_size(p.get('limit'))} that are allowed"
    ),
    "disk_full": _disk_full,
    "no_permission": lambda p: f"{p.get('path', 'its directory')} cannot be written to",
    "disk_error": lambda p: f"the disk fails at {p.get('path', 'its directory')}{_detail(p)}",
    # Unpacking.
    "archive_damaged": lambda p: f"the package is damaged{_detail(p)}",
    "archive_unsafe": lambda p: f"the package has a file in a forbidden place: {p.get('name', '?')}",
    "manifest": lambda p: f"{p.get('name', 'a file')} is not what the package's list says",
    "wrong_version": lambda p: f"the package holds another version{_detail(p)}",
    # Switching.
    "not_installed": lambda p: "this Ostler runs from source",
    "owned": lambda p: "this Ostler is kept up to date by the system's package manager",
    "version_missing": lambda p: "it is not here whole any more",
    "version_bad": lambda p: "it failed on this machine before",
    "nothing_before": lambda p: "there is no version before",
    "current": lambda p: "it runs already",
    "older": lambda p: "it is older than what runs",
    "trial": lambda p: f"version {p.get('version', '?')} is on trial",
    "busy": lambda p: "another change of the installation is going on",
    "claims": lambda p: "a task was on its way in for too long",
    "stopping": lambda p: "the daemon was about to stop",
    "settings": lambda p: f"no daemon could start with the settings as they are: {p.get('what', '')}",
    "launcher_missing": lambda p: "the launcher is missing",
    "disk": lambda p: f"the disk does not take it{_detail(p)}",
    "lost": lambda p: "it was broken off",
    # On trial.
    "crashed": lambda p: f"it crashed{_detail(p)}",
    "hung": lambda p: f"it did not answer{_detail(p)}",
    "unhealthy": lambda p: f"it found that it does not work here{_detail(p)}",
    "starts": lambda p: f"it was started too often{_detail(p)}",
    "files": lambda p: f"its files are damaged{_detail(p)}",
    "asked": lambda p: "you wanted the version before",
}

_AGAIN: Final = "It is tried again by itself; `ostler update check` tries now"
_INSTALL: Final = "Install Ostler again; tasks, settings and agents stay"
_HINTS: Final[dict[str, str]] = {
    "source": "Update the source",
    "package_manager": "Update it with the system's own tool",
    "owned": "Update it with the system's own tool",
    "launcher_gone": _INSTALL,
    "launcher_missing": _INSTALL,
    "no_trust": _INSTALL,
    "trust_missing": _INSTALL,
    "no_address": "Set one with `ostler config set updates.url URL`",
    "elsewhere": "Ask that one: `ostler --profile NAME update check`",
    "unreachable": _AGAIN,
    "server_error": _AGAIN,
    "slow": _AGAIN,
    "cut_off": _AGAIN,
    "stalled": _AGAIN,
    "too_slow": _AGAIN,
    "expired": "It is tried again by itself; if it stays so, get the newest installer",
    "old_metadata": "It is tried again by itself; if it stays so, get the newest installer",
    "untrusted": "Nothing was changed. Check `ostler config get updates.url`; else get the newest installer",
    "clock": "Set the clock, then `ostler update check`",
    "disk_full": "Free some space; `ostler disk` shows what Ostler has there",
    "no_permission": "Give yourself the directory back, or remove it: it is made again",
    "too_large": "Allow it with `ostler config set updates.size_limit SIZE`",
    "redirect": "Check `ostler config get updates.url`",
}

STAGES: Final[dict[str, str]] = {
    "idle": "up to date as far as is known",
    "checking": "looking for a newer version",
    "available": "a newer version is there, and is fetched next",
    "downloading": "a newer version is being fetched",
    "staged": "ready: a restart brings it",
    "waiting": "ready; it is put in place when no task runs",
    "switching": "being put in place",
    "restarting": "being put in place",
    "verifying": "the new version shows that it works",
    "committed": "updated",
    "rolled_back": "the version before runs again",
    "failed": "not put in place",
}


def update_reason(code: str, params: _Params) -> str:
    """Why, as the rest of a sentence."""
    maker = _REASONS.get(code)
    return maker(params) if maker is not None else str(params.get("detail") or code.replace("_", " "))


def update_hint(code: str) -> str:
    """What to do about it; may be empty."""
    return _HINTS.get(code, "")


def stage_words(stage: str) -> str:
    return STAGES.get(stage, stage.replace("_", " "))


def blocked(p: _Params) -> str:
    """The condition: there have been no answers for long."""
    code = str(p.get("reason", ""))
    since = show.local_time(str(p.get("since") or ""))
    return f"No updates since {since}: {update_reason(code, p.get('reason_params') or {})}"


def _off(p: _Params) -> tuple[str, str]:
    code = str(p.get("reason") or "")
    return (
        f"There are no updates here: {update_reason(code, p.get('reason_params') or {})}",
        update_hint(code),
    )


def _none(p: _Params) -> tuple[str, str]:
    version = str(p.get("version") or "")
    match str(p.get("why")):
        case "not_known":
            code = str(p.get("reason") or "")
            return (
                f"What is new could not be learnt: {update_reason(code, p.get('reason_params') or {})}",
                update_hint(code),
            )
        case "no_previous":
            return "There is no version before this one on this machine", ""
        case "passed_over" if p.get("because") == "bad":
            return f"Version {version} failed on this machine before", "A newer one is taken by itself"
        case "passed_over":
            return f"Version {version} is not given to everybody yet", "It comes by itself within some days"
        case _ if version:
            return (
                f"There is no version {version} for this machine",
                "`ostler update check` shows what is new",
            )
        case _:
            return "There is nothing newer than what runs", ""


REFUSALS: Final[dict[str, Callable[[_Params], tuple[str, str]]]] = {
    "updates_off": _off,
    "no_update": _none,
    "update_conflict": lambda p: (
        f"Another step of an update goes on: {stage_words(str(p.get('stage', '')))}",
        "`ostler update status` shows when it is over",
    ),
}
