"""Words and glyphs for jobs and residents: how one stands, and why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from daemon_core.control.errors import ControlError
from daemon_core.control.views import JobView, ResidentView
from desktop.daemon.http import Failure
from desktop.text import _, mark, n_
from desktop.theme.tokens import Colours
from desktop.windows.wording import seconds_between, span
from desktop.words import ago, clock, elapsed

_JOB_STATES: Final[Mapping[str, str]] = {
    "running": mark("running"),
    "done": mark("done"),
    "failed": mark("failed"),
    "killed": mark("ended by you"),
    "timed_out": mark("timed out"),
    "lost": mark("lost when the machine went down"),
}
_RESIDENT_STATES: Final[Mapping[str, str]] = {
    "stopped": mark("stopped"),
    "starting": mark("starting"),
    "building": mark("being built"),
    "running": mark("running"),
    "stopping": mark("stopping"),
    "waiting": mark("waits to be started again"),
    "gave_up": mark("ended too often"),
    "ended": mark("ended"),
    "invalid": mark("its file has a mistake"),
}
_RESIDENT_REASONS: Final[Mapping[str, str]] = {
    "lost": mark("What kept it was ended from outside."),
    "ended_unseen": mark("It ended; how, nobody saw."),
    "not_started": mark("It could not be started: {error}"),
    "build_failed": mark("Its build failed."),
    "background": mark("It went into the background by itself. Give it the option that keeps it in front."),
    "directory_gone": mark("Its directory {path} is not there."),
    "provider_gone": mark("There is no usable {provider} on this machine."),
    "env_file": mark("{what}"),
    "file_gone": mark("Its file is gone or cannot be used."),
    "elsewhere": mark("Another daemon of yours keeps it."),
    "outside": mark("It runs already and was not started by Ostler (process {pid})."),
    "barrier": mark("An update is being put in place; it starts afterwards."),
    "resident_invalid": mark("{what}"),
}


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def job_glyph(job: JobView, colours: Colours) -> tuple[str, str]:
    """(glyph, colour) for how a job stands."""
    if job.ended_at is None:
        return ("circle-alert", colours.waiting) if job.stalled else ("circle-dot", colours.running)
    return {
        "done": ("circle-check", colours.done),
        "failed": ("circle-x", colours.failed),
        "timed_out": ("circle-x", colours.failed),
        "lost": ("circle-x", colours.failed),
    }.get(job.status, ("circle-slash", colours.neutral))


def job_state(job: JobView) -> str:
    """How a job stands, in words."""
    if job.ended_at is None and job.status == "killed":
        return _("being ended")
    if job.ended_at is None and job.stalled:
        return _("waits for an answer")
    if job.status == "failed" and job.signal is not None:
        return _("ended by signal {number}", number=job.signal)
    if job.status == "failed" and job.exit_code is not None:
        return _("ended with code {number}", number=job.exit_code)
    known = _JOB_STATES.get(job.status)
    return _(known) if known is not None else job.status


def job_time(job: JobView, now: dt.datetime) -> str:
    """The time that goes with a job: how long it runs, or how long ago it ended."""
    return elapsed(job.started_at or job.created_at, now) if job.ended_at is None else ago(job.ended_at, now)


def job_facts(job: JobView, now: dt.datetime) -> str:
    """What stands under a job's name."""
    if job.ended_at is None:
        took = elapsed(job.started_at or job.created_at, now)
        left = job.time_limit and job.started_at
        limit = _("ended after {time} at the latest", time=span(job.time_limit)) if left else ""
        return " · ".join(part for part in (job_state(job), took, limit) if part)
    took = span(seconds_between(job.started_at, job.ended_at))
    return " · ".join(part for part in (job_state(job), took, clock(job.ended_at)) if part)


def resident_glyph(resident: ResidentView, colours: Colours) -> tuple[str, str]:
    """(glyph, colour) for how a resident stands."""
    return {
        "running": ("circle-dot", colours.running),
        "starting": ("hourglass", colours.running),
        "building": ("hourglass", colours.running),
        "stopping": ("hourglass", colours.neutral),
        "waiting": ("clock", colours.waiting),
        "gave_up": ("circle-x", colours.failed),
        "invalid": ("triangle-alert", colours.failed),
        "ended": ("circle-check", colours.neutral),
    }.get(resident.state, ("circle", colours.neutral))


def resident_state(resident: ResidentView) -> str:
    """How a resident stands, in a few words."""
    return _(_RESIDENT_STATES.get(resident.state, resident.state))


def resident_facts(resident: ResidentView, now: dt.datetime) -> str:
    """What stands under a resident's name."""
    parts = [resident_state(resident)]
    if resident.state == "running":
        parts.append(elapsed(resident.started_at, now))
    if resident.next_try_at and resident.state == "waiting":
        parts.append(_("at {time}", time=clock(resident.next_try_at)))
    if resident.restarts:
        parts.append(n_("started again once", "started again {n} times", resident.restarts))
    return " · ".join(part for part in parts if part)


def resident_why(resident: ResidentView) -> str:
    """Why it is as it is, with the file and the line where a file is to blame; empty: nothing to say."""
    params = resident.reason_params
    place = ""
    if params.get("file"):
        place = f"{params['file']}:{params['line']}: " if params.get("line") else f"{params['file']}: "
    if resident.reason in ("exited", "build_failed"):
        how = _("It ended with code {number}.", number=params.get("exit_code", "?"))
        if params.get("timed_out"):
            how = _("It took too long.")
        elif params.get("signal") is not None:
            how = _("It was ended by signal {number}.", number=params["signal"])
        error = str(params.get("error") or "")
        first = _("Its build failed.") if resident.reason == "build_failed" else ""
        return " ".join(part for part in (first, how, error) if part)
    known = _RESIDENT_REASONS.get(resident.reason)
    if known is None:
        return resident.reason.replace("_", " ")
    text = _(known).format_map(_Known(params))
    hint = str(params.get("hint") or "")
    return " ".join(part for part in (f"{place}{text}", hint) if part)


def job_refusal(failure: Failure) -> str:
    """Why something was not done with a job or a resident."""
    if not isinstance(failure, ControlError):
        return _("Ostler's daemon did not answer. Nothing is known of what became of it.")
    params = failure.params
    known = {
        "job_ended": _("It has ended meanwhile."),
        "job_input_closed": _("Its input was closed."),
        "job_unreachable": _("It cannot be reached at the moment."),
    }.get(str(params.get("what", "")))
    if known is not None:
        return known
    by_code = {
        "directory_not_found": _("This directory is not there."),
        "directory_not_a_directory": _("This is not a directory."),
        "directory_not_absolute": _("The directory has to be given in full."),
        "barrier_up": _("An update is being put in place. Try again in a moment."),
        "not_ready": _("Ostler is still starting. Try again in a moment."),
        "not_found": _("It is not there any more."),
        "resident_elsewhere": _("Another daemon of yours keeps it. Stop it there first."),
        "resident_outside": _(
            "It runs already as process {pid} and was not started by Ostler. End that one first.",
            pid=params.get("pid", "?"),
        ),
        "resident_file": _("Its file is left as it is: {detail}", detail=params.get("detail", "")),
    }.get(failure.code)
    if by_code is not None:
        return by_code
    if failure.code == "resident_unusable":
        found = ResidentView(
            id=str(params.get("id", "")),
            reason=str(params.get("reason", "")),
            reason_params=dict(params.get("reason_params") or {}),
        )
        return _("It cannot be started. {why}", why=resident_why(found))
    if failure.code == "invalid_input":
        return _("It was not accepted: {detail}", detail=params.get("detail") or params.get("why") or "")
    return _("It was refused: {code}.", code=failure.code.replace("_", " "))
