"""Sentences about updates, from the daemon's view alone: what is so, what comes next, what became of earlier
ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

from daemon_core.control.views import Condition, UpdateResult, UpdateView
from desktop.models.state import DesktopState
from desktop.text import _, language, mark
from desktop.words import UPDATE_AWAY, ago, clock, condition_text, decimal

_WHY_NOT: Final[Mapping[str, str]] = {
    "source": mark("This Ostler was not installed by its installer, so it does not update itself."),
    "package_manager": mark("The package manager of your system updates Ostler."),
    "launcher_gone": mark("The installed launcher is gone: install Ostler again to have updates."),
    "no_trust": mark("What updates are checked with is missing: install Ostler again to have updates."),
    "no_address": mark("It is not known where updates come from."),
    "elsewhere": mark("Another profile of yours looks after the updates."),
}
_REASONS: Final[Mapping[str, str]] = {
    "unreachable": mark("the update server cannot be reached"),
    "server_error": mark("the update server answers with error {status}"),
    "slow": mark("the update server answers too slowly"),
    "expired": mark("what the update server says has expired"),
    "clock": mark("the clock of this machine is wrong: it says {here}, the server {there}"),
    "untrusted": mark("what the update server says is not signed as it has to be"),
    "old_metadata": mark("the update server says something older than before"),
    "endless": mark("the update server sends more than it may"),
    "trust_missing": mark("what updates are checked with is missing"),
    "child_failed": mark("the check itself failed"),
    "internal": mark("Ostler itself has made a mistake; its log says more"),
    "cut_off": mark("the download was cut off"),
    "stalled": mark("the download stood still"),
    "too_slow": mark("the download was too slow"),
    "too_long": mark("the server sent more than it had said"),
    "wrong_size": mark("the file has another size than it should"),
    "wrong_range": mark("the server sent another part than was asked for"),
    "redirect": mark("the server sends downloads to {host}, which is not known"),
    "mismatch": mark("the file is not the one that was signed"),
    "too_large": mark("it is larger than the limit in your settings"),
    "disk_full": mark("the disk of {path} is full"),
    "no_permission": mark("{path} may not be written"),
    "disk_error": mark("the disk of {path} fails"),
    "archive_damaged": mark("the package is damaged"),
    "archive_unsafe": mark("the package has files that do not belong there"),
    "manifest": mark("a file of the package is not what it should be"),
    "wrong_version": mark("the package holds another version"),
    "not_installed": mark("this Ostler was not installed by its installer"),
    "owned": mark("the package manager of your system updates Ostler"),
    "launcher_missing": mark("the installed launcher is gone"),
    "nothing_before": mark("there is no version before this one"),
    "current": mark("that version runs already"),
    "older": mark("it is older than the version that runs"),
    "disk": mark("the disk does not take it"),
    "stopping": mark("Ostler was about to stop"),
    "settings": mark("the settings have a mistake: {what}"),
    "claims": mark("tasks that were just starting took too long"),
    "busy": mark("something else is being changed"),
    "trial": mark("another version is being tried"),
    "version_missing": mark("it is not here whole"),
    "version_bad": mark("it did not work here before"),
    "lost": mark("it was interrupted too often"),
    "crashed": mark("it ended by itself"),
    "hung": mark("it did not answer"),
    "unhealthy": mark("it could not take up what was there"),
    "starts": mark("it was started several times without success"),
    "files": mark("a file of it is missing or damaged"),
    "asked": mark("you asked for the version before"),
}
_NO_TIME_THERE: Final = mark(
    "the clock of this machine is wrong: it says {here}, when the server's certificate is not valid"
)
_STEPS: Final[Mapping[str, float]] = {"switching": 0.25, "restarting": 0.5, "verifying": 0.75}
_BY: Final[Mapping[str, str]] = {
    "automatic": mark("by itself"),
    "user": mark("you asked for it"),
    "server": mark("a server asked for it"),
    "installer": mark("a newer package was installed"),
}


def ready(state: DesktopState) -> str:
    """The version that a restart brings and that the user may be shown; empty: there is none."""
    update = state.update
    if not state.connected or update is None or not update.ready or update.version is None:
        return ""
    if update.waits_for == "reminder" or update.stage in UPDATE_AWAY:
        return ""
    return update.version.version


def notes(update: UpdateView) -> Sequence[str]:
    """What is new in the version that it is about, in the user's language if there is such a text."""
    return in_language(update.version.notes) if update.version is not None else ()


def in_language(by_language: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The notes in the user's language, else in English."""
    mine = language()
    for name in (mine, mine.partition("_")[0], "en"):
        if by_language.get(name):
            return by_language[name]
    return ()


def reason_words(reason: Condition | None) -> str:
    """Why something did not work, as the second half of a sentence; empty where nothing is known."""
    if reason is None:
        return ""
    known = _REASONS.get(reason.code)
    if known is None and reason.code in _WHY_NOT:
        return _(_WHY_NOT[reason.code]).rstrip(".。")
    if known is None:
        return condition_text(reason)
    if reason.code == "clock" and not reason.params.get("there"):
        known = _NO_TIME_THERE
    values = {"status": "?", "here": "?", "there": "?", "host": "?", "path": "?", "what": "?"}
    return _(known).format_map({**values, **reason.params})


def sentence(update: UpdateView, now: dt.datetime | None = None) -> str:
    """How it stands, in one sentence."""
    version = update.version.version if update.version is not None else ""
    if not update.possible:
        known = _WHY_NOT.get(update.why_not.code) if update.why_not is not None else None
        return _(known) if known else _("There are no updates here.")
    match update.stage:
        case "checking" if not update.ready:
            return _("Looking for a newer version.")
        case "available":
            if update.next_try_at:
                return _(
                    "{version} is there. It is fetched at {time}.",
                    version=version,
                    time=clock(update.next_try_at, now),
                )
            return _("{version} can be had.", version=version)
        case "downloading":
            if update.progress is not None and update.progress.phase == "unpack":
                return _("{version} is being checked.", version=version)
            return _("{version} is being fetched.", version=version)
        case "switching" | "restarting" | "verifying":
            return _("Updating to {version}. Tasks go on.", version=version)
        case "committed" if version == update.current:
            return _("Updated to {version}.", version=version)
        case "rolled_back":
            return _(
                "{version} did not work here, {current} runs again.", version=version, current=update.current
            )
        case "failed" if version:
            return _("{version} could not be put in place. Nothing was changed.", version=version)
    if update.ready:
        return _(
            "Ostler {version} is ready. It comes with a restart; tasks go on meanwhile.", version=version
        )
    if update.problem is not None:
        return _("It is not known whether there is a newer version.")
    if update.checked_at is None:
        return _("Nobody has looked for a newer version yet.")
    return _("Ostler {version} is the newest version.", version=update.current)


def detail(update: UpdateView, now: dt.datetime | None = None) -> str:
    """What comes next and when, or why not."""
    if not update.possible:
        return _("This is version {version}.", version=update.current)
    parts: list[str] = []
    if update.problem is not None and update.stage not in UPDATE_AWAY:
        parts.append(_("The reason: {why}.", why=reason_words(update.problem)))
    progress = update.progress
    if update.stage == "downloading" and progress is not None and progress.phase == "download":
        parts.append(_amount(progress.done_bytes, progress.total_bytes))
    if update.stage in UPDATE_AWAY:
        parts.append(_("It takes some seconds; new tasks wait for that long."))
    elif update.ready and update.waits_for == "reminder":
        parts.append(_("You are reminded on {time}.", time=clock(update.remind_at, now)))
    elif update.ready and update.waits_for == "quiet" and update.applies_at:
        parts.append(
            _(
                "By itself it comes when no task runs, at the latest at {time}.",
                time=clock(update.applies_at, now),
            )
        )
    elif update.ready and not update.automatic:
        parts.append(_("It comes when you say so."))
    elif update.stage not in ("downloading", "checking", "committed"):
        if update.checked_at:
            parts.append(_("Last look: {when}.", when=ago(update.checked_at, now)))
        if update.next_check_at:
            parts.append(_("Next look at {time}.", time=clock(update.next_check_at, now)))
    return " ".join(parts)


def _amount(done: int, total: int) -> str:
    here = decimal(done / 1e6, 1)
    if not total:
        return _("{done} MB are here.", done=here)
    return _("{done} of {total} MB are here.", done=here, total=decimal(total / 1e6, 1))


def share(update: UpdateView) -> float | None:
    """How far it is, from 0 to 1, of a download or of the change of versions; None: neither goes on, or
    nobody knows."""
    if update.stage in _STEPS:
        return _STEPS[update.stage]
    progress = update.progress
    if update.stage != "downloading" or progress is None or not progress.total_bytes:
        return None
    return min(1.0, progress.done_bytes / progress.total_bytes)


def result_title(result: UpdateResult) -> str:
    """A line of the history."""
    match result.result:
        case "committed":
            return _("Updated from {old} to {new}", old=result.from_version, new=result.version)
        case "rolled_back":
            return _("{new} did not work, back to {old}", old=result.from_version, new=result.version)
        case _:
            return _("{new} could not be put in place", new=result.version)


def result_detail(result: UpdateResult, now: dt.datetime | None = None) -> str:
    """When, who wanted it, and why it went that way."""
    by = _BY.get(result.asked_by)
    parts = (clock(result.at, now), _(by) if by else "", reason_words(result.reason))
    return " · ".join(part for part in parts if part)
