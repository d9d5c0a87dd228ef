"""What of a state is news: pure steps from what the daemon tells to facts for the planner.

Each piece of news has a subject (what it is about) and a key (what of it): the same key of the same subject
is the same news, however often a state says it, and over restarts of everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from daemon_core.control.views import (
    Condition,
    JobView,
    RequestView,
    TaskChanges,
    TaskRow,
    TaskView,
    UpdateNotice,
    UpdateView,
)
from desktop.commands import Command
from desktop.models.requests import encode_answer, request_in_short
from desktop.models.state import DesktopState, LinkPhase, Supervision, hangs
from desktop.notifications.planner import Fact, Kind
from desktop.text import _, n_
from desktop.tray.view import TROUBLES
from desktop.updates.words import in_language, reason_words
from desktop.windows.job_words import job_state
from desktop.windows.wording import reason_text, seconds_between, span
from desktop.words import clock, condition_action, condition_text, cut, link_sentence

TITLE_CHARS: Final = 80
TEXT_CHARS: Final = 240
OPTION_CHARS: Final = 32
MOST_BUTTONS: Final = 3
"""More than three, and servers begin to leave some out."""
SEEN_S: Final = 10.0
"""Who starts a command looks at it for so long: its end within that is no news."""
NOTIFIED: Final = TROUBLES | {"spend_limit", "clock_jump"}
"""Conditions that are news when they come: somebody has to do something, or would want to know."""


@dataclass(frozen=True, slots=True)
class News:
    """A fact and what makes it the same one."""

    fact: Fact
    key: str


# --- tasks -----------------------------------------------------------------------------------------


def task_subject(task_id: str) -> str:
    return f"task:{task_id}"


def ask_subject(task_id: str, request_id: str) -> str:
    return f"ask:{task_id}:{request_id}"


def title_of(task: TaskRow | TaskView) -> str:
    return cut(task.title, TITLE_CHARS) or _("A task")


def ended_key(task: TaskRow) -> str:
    """What makes the end of a task the same one; empty where it has not ended, or nobody waits to hear of it:
    the user's own cancel, and what an agent has handed on and will hear of itself."""
    if task.status not in ("completed", "failed") or task.parent_id:
        return ""
    return f"{task.status} {task.ended_at or ''}"


def ended_news(task: TaskRow, changes: TaskChanges | None = None) -> News:
    """A task is over."""
    took = span(seconds_between(task.started_at, task.ended_at))
    if task.status == "completed":
        text = _("Done in {time}", time=took) if took else _("Done")
        if changes is not None and changes.files_total:
            text += ": " + n_("{n} file changed", "{n} files changed", changes.files_total)
        kind = Kind.FINISHED
    else:
        reason = reason_text(task.failure_reason) if task.failure_reason else ""
        text = _("Failed after {time}", time=took) if took else _("Failed")
        text += f": {reason}" if reason else ""
        kind = Kind.FAILED
    return News(_task_fact(task, kind, task_subject(task.id), text, at=task.ended_at or ""), ended_key(task))


def waiting_news(task: TaskRow) -> News | None:
    """A task that goes on and about which there is something to know: parked, or silent for long."""
    if task.status == "parked":
        until = task.parked_until
        text = (
            _("Usage limit reached: goes on at {time}", time=clock(until))
            if until
            else _("Usage limit reached: nobody knows until when")
        )
        fact = _task_fact(task, Kind.PARKED, task_subject(task.id), text)
        return News(fact, f"parked {until or ''}")
    notice = task.notice
    if task.status == "running" and notice is not None and notice.code == "silent":
        since, end = clock(notice.since), clock(notice.next_try_at)
        if notice.params.get("kind") == "progress":
            text = _("No progress since {since}; ends at {end}", since=since, end=end)
        elif notice.next_try_at:
            text = _("Silent since {since}; ends at {end}", since=since, end=end)
        else:
            text = _("Silent since {since}", since=since)
        fact = _task_fact(
            task, Kind.STALLED, task_subject(task.id), text,
            buttons=(
                (_("Give it more time"), Command("extend_task", task.id)),
                (_("Cancel it"), Command("cancel_task", task.id)),
            ),
        )  # fmt: skip
        return News(fact, f"silent {notice.since}")
    return None


def asking_news(task: TaskView) -> Iterator[News]:
    """What a task waits to be answered."""
    for request in task.requests:
        yield News(_request_fact(task, request), "asked")


def _request_fact(task: TaskView, request: RequestView) -> Fact:
    def answer(choice: str, words: str = "") -> Command:
        return Command("answer", task.id, request.id, encode_answer(choice, words))

    buttons: tuple[tuple[str, Command], ...]
    reply: Command | None = None
    if request.kind != "question":
        buttons = (
            (_("Allow once"), answer("allow")),
            (_("For this task"), answer("allow-task")),
            (_("Deny"), answer("deny")),
        )
    elif 0 < len(request.options) <= MOST_BUTTONS:
        buttons = tuple((cut(each, OPTION_CHARS), answer("allow", each)) for each in request.options)
    else:
        buttons = ((_("Answer…"), Command("open_task", task.id)),)
        reply = answer("allow") if not request.options else None
    return Fact(
        Kind.NEEDS_YOU,
        ask_subject(task.id, request.id),
        title_of(task),
        cut(request_in_short(request), TEXT_CHARS),
        task=task.id,
        command=Command("open_task", task.id),
        buttons=buttons,
        reply=reply,
        at=request.since,
    )


def _task_fact(
    task: TaskRow,
    kind: Kind,
    subject: str,
    text: str,
    *,
    buttons: tuple[tuple[str, Command], ...] = (),
    at: str = "",
) -> Fact:
    return Fact(
        kind,
        subject,
        title_of(task),
        cut(text, TEXT_CHARS),
        task=task.id,
        command=Command("open_task", task.id),
        buttons=buttons,
        at=at,
    )


# --- jobs ------------------------------------------------------------------------------------------


def job_subject(job_id: str) -> str:
    return f"job:{job_id}"


def job_ended_key(job: JobView) -> str:
    """What makes the end of a job the same one; empty where it has not ended, or nobody waits to hear of it:
    an agent hears of its own, who killed one knows, and what was over at once was seen by who began it."""
    took_s = seconds_between(job.started_at, job.ended_at)
    if job.ended_at is None or job.task_id or job.conversation or job.status == "killed":
        return ""
    if took_s is not None and took_s < SEEN_S:
        return ""
    return f"{job.status} {job.ended_at}"


def job_ended_news(job: JobView) -> News:
    """A background command that a person has started is over."""
    took = span(seconds_between(job.started_at, job.ended_at))
    if job.status == "done":
        text = _("Done in {time}", time=took) if took else _("Done")
    else:
        why = job_state(job) if job.exit_code is not None or not job.error else job.error
        text = _("Failed after {time}", time=took) if took else _("Failed")
        text += f": {why}"
    fact = _job_fact(job, Kind.JOB, cut(text, TEXT_CHARS), job.ended_at or "")
    return News(fact, job_ended_key(job))


def ended_jobs(state: DesktopState, since: str) -> Sequence[JobView]:
    """Jobs whose end is news for somebody who knows of everything up to ``since``; the oldest first."""
    found = [job for job in state.jobs.values() if job_ended_key(job) and (job.ended_at or "") > since]
    return sorted(found, key=lambda job: job.ended_at or "")


def _job_fact(job: JobView, kind: Kind, text: str, at: str) -> Fact:
    return Fact(
        kind,
        job_subject(job.id),
        cut(job.name or job.command, TITLE_CHARS) or _("A background job"),
        text,
        task=job_subject(job.id),
        command=Command("open", "jobs", job.id),
        at=at,
    )


# --- everything else -------------------------------------------------------------------------------


def job_news(job: JobView) -> News | None:
    """A background command seems to wait for somebody to type something."""
    if not job.stalled or job.ended_at is not None:
        return None
    fact = _job_fact(job, Kind.STALLED, _("Seems to wait for input"), job.stalled_at or "")
    return News(fact, f"stalled {job.stalled_at or ''}")


def condition_news(condition: Condition) -> News | None:
    """A condition that somebody has to do something about."""
    if condition.code not in NOTIFIED:
        return None
    about = [str(condition.params[name]) for name in sorted(condition.params) if name in _ABOUT]
    action = condition_action(condition)
    fact = Fact(
        Kind.TROUBLE,
        ":".join(("condition", condition.code, *about)),
        _("Ostler needs a hand") if condition.code in TROUBLES else "Ostler",
        cut(condition_text(condition), TEXT_CHARS),
        command=Command("open", "health"),
        buttons=(action,) if action is not None and action[1].name != "open" else (),
        at=condition.since,
    )
    return News(fact, "on")


_ABOUT: Final = frozenset({"server", "provider", "path", "name", "port", "id", "file"})
"""Parameters that say what a condition is about; the others tell how it stands."""


def daemon_news(state: DesktopState) -> News | None:
    """Ostler's daemon does not run, and does not come back by itself."""
    grave = state.supervision in (Supervision.GAVE_UP, Supervision.FAILED)
    hung = hangs(state)
    odd = state.link in (LinkPhase.FOREIGN, LinkPhase.TOO_OLD, LinkPhase.TOO_NEW)
    if not grave and not hung and not odd:
        return None
    buttons: tuple[tuple[str, Command], ...] = ()
    if hung or state.link is LinkPhase.TOO_OLD:
        buttons = ((_("Restart it"), Command("restart_daemon")),)
    elif grave:
        buttons = ((_("Start it"), Command("start_daemon")), (_("Show the log"), Command("show_logs")))
    fact = Fact(
        Kind.TROUBLE,
        "daemon",
        link_sentence(state),
        _("No new tasks are taken; what runs goes on by itself."),
        command=Command("open", "health"),
        buttons=buttons,
        at=state.since,
    )
    what = state.supervision.value if grave else LinkPhase.HUNG.value if hung else state.link.value
    return News(fact, what)


def update_news(update: UpdateView | None) -> Iterator[News]:
    """What the daemon wants told about updates; it is told to it when that was done."""
    for notice in update.notices if update is not None else ():
        yield News(_update_fact(notice), notice.kind)


def update_holds(subject: str, update: UpdateView | None) -> bool:
    """Whether an update that was said to be ready still is; what else is told of updates is not about now."""
    _what, _colon, rest = subject.partition(":")
    kind, _colon, version = rest.partition(":")
    if kind != "ready":
        return True
    return bool(update and update.ready and update.version and update.version.version == version)


def update_subject(notice: UpdateNotice) -> str:
    return f"update:{notice.kind}:{notice.version}"


def _update_fact(notice: UpdateNotice) -> Fact:
    reason = reason_words(notice.reason)
    buttons: tuple[tuple[str, Command], ...] = ()
    match notice.kind:
        case "ready":
            title = _("Ostler {version} is ready", version=notice.version)
            text = _("It comes with a restart; tasks go on meanwhile.")
            buttons = (
                (_("Restart now"), Command("update", notice.version)),
                (_("Later"), Command("update_later")),
            )
        case "updated":
            title = _("Updated to Ostler {version}", version=notice.version)
            text = " · ".join(in_language(notice.notes)[:2]) or _("The update is in place.")
        case "rolled_back":
            title = _("The update to Ostler {version} did not work here", version=notice.version)
            text = _("The version before runs again.") + (
                " " + _("The reason: {why}.", why=reason) if reason else ""
            )
        case _:
            title = _("The update to Ostler {version} could not be put in place", version=notice.version)
            text = _("Nothing was changed.") + (" " + _("The reason: {why}.", why=reason) if reason else "")
    return Fact(
        Kind.UPDATE,
        update_subject(notice),
        title,
        cut(text, TEXT_CHARS),
        command=Command("open", "health"),
        buttons=buttons,
    )


def standing_news(state: DesktopState) -> dict[str, News]:
    """What holds in this state, apart from ends and questions; by subject."""
    found: list[News | None] = [daemon_news(state)]
    if state.connected:
        found += [waiting_news(task) for task in state.tasks.values()]
        found += [job_news(job) for job in state.jobs.values()]
        found += [condition_news(condition) for condition in state.conditions]
        found += list(update_news(state.update))
    return {news.fact.subject: news for news in found if news is not None}


def ended_tasks(state: DesktopState, since: str) -> Sequence[TaskRow]:
    """Tasks whose end is news for somebody who knows of everything up to ``since``; the oldest first."""
    found = [task for task in state.tasks.values() if ended_key(task) and (task.ended_at or "") > since]
    return sorted(found, key=lambda task: task.ended_at or "")
