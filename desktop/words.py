"""Sentences for states and codes: what is so, what happens next, what can be done.

The daemon sends codes with parameters; this is where the desktop's words for them are. A code that nobody
here knows (a newer daemon's) is shown as it is rather than hidden.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from daemon_core.control.views import Condition, TaskRow
from desktop.commands import Command
from desktop.models.state import DesktopState, LinkPhase, Supervision, ready_agents
from desktop.text import _, mark, n_

UPDATE_LONGEST_S: Final = 300.0
"""No change of versions takes longer: what is not over by then is not shown as going on any more."""
UPDATE_AWAY: Final = frozenset({"switching", "restarting", "verifying"})


def updating(state: DesktopState, now: dt.datetime | None = None) -> str:
    """The version that is being put in place at this moment; empty: none is.

    The daemon is away for some seconds meanwhile, and that is no trouble.
    """
    update = state.update
    if update is None or update.stage not in UPDATE_AWAY or update.version is None:
        return ""
    began = parse(update.since)
    if began is not None:
        age_s = ((now or dt.datetime.now(dt.UTC)) - began).total_seconds()
        if age_s > UPDATE_LONGEST_S:
            return ""
    return update.version.version


def status_sentence(state: DesktopState, now: dt.datetime | None = None) -> str:
    """The one sentence that says how things are: what needs somebody first, then what is wrong, then what
    runs."""
    trouble = link_sentence(state)
    if trouble:
        return trouble
    version = updating(state, now)
    needing, active = len(state.needing), len(state.active)
    waiting = len(state.waiting)
    spent = any(condition.code == "spend_limit" for condition in state.conditions)
    if needing:
        return n_("{n} task needs you", "{n} tasks need you", needing)
    if version:
        return _("Updating to {version}; tasks go on", version=version)
    if active:
        running = n_("{n} task is running", "{n} tasks are running", active)
        if state.barrier is not None and state.barrier.reason == "user":
            return _("{running}; no new ones are taken", running=running)
        return _("{running}; no new ones are taken today", running=running) if spent else running
    if state.barrier is not None and state.barrier.reason == "user":
        if state.barrier.until:
            return _("Paused until {time}", time=clock(state.barrier.until, now))
        return _("Paused")
    if spent:
        return _("Today's spend limit is reached")
    if waiting:
        return n_("{n} task is waiting", "{n} tasks are waiting", waiting)
    return _("Nothing is running")


def ready_sentence(state: DesktopState) -> str:
    """How many agents can be given a task."""
    ready = ready_agents(state)
    return n_("{n} agent is ready", "{n} agents are ready", ready) if ready else _("No agent is ready")


def link_sentence(state: DesktopState) -> str:
    """What is wrong between the desktop and the daemon; empty where all is well."""
    match state.link:
        case LinkPhase.CONNECTED:
            slow = state.unsure and not updating(state)
            return _("Ostler's daemon takes long to answer") if slow else ""
        case LinkPhase.ABSENT | LinkPhase.CONNECTING if updating(state):
            if state.supervision not in (Supervision.GAVE_UP, Supervision.FAILED):
                return _("Updating to {version}; tasks go on", version=updating(state))
        case LinkPhase.HUNG:
            return _("Ostler's daemon does not answer")
        case LinkPhase.FOREIGN:
            return _("Another program answers in the daemon's place")
        case LinkPhase.TOO_OLD:
            return _("The daemon that runs is too old for this window")
        case LinkPhase.TOO_NEW:
            return _("The daemon that runs is newer than this window")
        case _:
            pass
    match state.supervision:
        case Supervision.STARTING:
            return _("Ostler is starting")
        case Supervision.WAITING:
            return _("Ostler's daemon stopped unexpectedly and is being started again")
        case Supervision.GAVE_UP:
            return _("Ostler's daemon stopped several times in a row")
        case Supervision.STOPPED:
            return _("Ostler's daemon is stopped")
        case Supervision.FAILED:
            return _("Ostler's daemon cannot start")
        case Supervision.STUCK:
            return _("Ostler's daemon does not answer")
        case _:
            return (
                _("Connecting") if state.link is LinkPhase.CONNECTING else _("Ostler's daemon is not running")
            )


_CONDITIONS: Final[Mapping[str, str]] = {
    "paused": mark("Taking tasks is paused"),
    "update_barrier": mark("An update is being put in place"),
    "update_blocked": mark("Ostler has not been able to look for updates for some time"),
    "signed_out": mark("Signed out of {server}; its results wait here"),
    "network_down": mark("Waiting for the network to reach {server}"),
    "server_unreachable": mark("{server} does not answer; tasks that run here go on"),
    "server_refuses": mark("{server} answers and refuses"),
    "no_agents": mark("No agent was found on this machine; shell commands can be run all the same"),
    "agent_missing": mark("{provider} was not found"),
    "agent_too_old": mark("{provider} {version} is too old"),
    "agent_not_signed_in": mark("{provider} is not signed in"),
    "disk_full": mark("The disk of {path} is full"),
    "disk_low": mark("The disk of {path} is nearly full: no tasks are taken"),
    "usage_limit": mark("{provider} has reached its usage limit"),
    "spend_limit": mark("The limit of {limit} for today is reached; new tasks wait, what runs goes on"),
    "spend_near": mark("{spent} of today's limit of {limit} are spent"),
    "prices_invalid": mark("The prices in {path} cannot be used: {what}"),
    "port_in_use": mark("Port {port} is in use by another program"),
    "settings_invalid": mark("The settings are not valid: {what}"),
    "provider_invalid": mark("An agent of your own cannot be used: {what}"),
    "resident_gave_up": mark("{name} ended too often and is not started again"),
    "resident_invalid": mark("A resident cannot be used: {what}"),
    "journal_damaged": mark("The record of tasks was damaged and set aside as {path}"),
    "hub_damaged": mark("The local tasks were damaged and set aside as {path}"),
    "hub_lost": mark("The local tasks are gone: {path} was missing or empty"),
    "servers_damaged": mark("The list of servers was damaged and set aside as {path}"),
    "result_not_wanted": mark("A server had ended a task that still ran here; its result is kept"),
    "waiting_slot": mark("Waits until another task has ended"),
    "waiting_turn": mark("Waits for an earlier task of this conversation"),
    "waiting_model": mark("Waits until another task with {model} has ended"),
    "waiting_directory": mark("Waits until the directory is free"),
    "waiting_runtime": mark("Waits for {runtime}"),
    "waiting_jobs": mark("Waits for its background jobs"),
    "waiting_wake": mark("Goes on when a slot is free"),
    "no_runtime": mark("Waits for an agent that can do it"),
    "runtime_offline": mark("Waits until its agent is there again"),
    "conversation_busy": mark("Waits for an earlier task of this conversation"),
    "agent_busy": mark("Waits until its agent has ended another task"),
    "local_directory": mark("Waits until the directory is free"),
    "path_not_found": mark("What your login shell has in PATH could not be read"),
    "wake_limit": mark("“{title}” was woken often enough: it waits for your reply"),
}

_ACTIONS: Final[Mapping[str, tuple[str, Command]]] = {
    "paused": (mark("Resume"), Command("resume")),
    "spend_limit": (mark("Go on for today"), Command("spend_continue")),
    "spend_near": (mark("Change the limit"), Command("open", "settings")),
    "signed_out": (mark("Sign in"), Command("sign_in")),
    "server_unreachable": (mark("Try now"), Command("retry_now")),
    "network_down": (mark("Try now"), Command("retry_now")),
    "no_agents": (mark("See how to get one"), Command("open", "runtimes")),
    "agent_missing": (mark("Look again"), Command("open", "runtimes")),
    "agent_too_old": (mark("See how to update it"), Command("open", "runtimes")),
    "agent_not_signed_in": (mark("See how to sign in"), Command("open", "runtimes")),
    "update_blocked": (mark("See why"), Command("open", "health")),
    "disk_full": (mark("See what takes room"), Command("open", "health")),
    "disk_low": (mark("See what takes room"), Command("open", "health")),
    "settings_invalid": (mark("Open the settings"), Command("open", "settings")),
}


_NEXT: Final[Mapping[str, str]] = {
    "disk_full": mark("Tasks are taken again by themselves when there is room."),
    "disk_low": mark("Tasks are taken again by themselves when there is room."),
    "settings_invalid": mark("What was in force before is so still."),
}


_WARNINGS: Final[Mapping[str, str]] = {
    "fresh_session": mark(
        "The earlier conversation is gone at the agent: it does not know what was said before."
    ),
    "model_not_chosen": mark("{agent} cannot be told which model to use: {model} is left out."),
    "left_out_model": mark("This agent cannot be told which model to use: {value} is left out."),
    "model_unknown": mark("{agent} has no model {model} here: it uses its usual one."),
    "no_thinking_levels": mark("{agent} has no thinking levels: {level} is left out."),
    "left_out_thinking_level": mark("This agent has no thinking levels: {value} is left out."),
    "thinking_level_unknown": mark(
        "{model} has no thinking level {level} (it has: {levels}): it is left out."
    ),
    "left_out_earlier_session": mark("This agent cannot go on with an earlier conversation."),
    "mcp_server_unusable": mark("MCP server {name} is left out: it is neither a command nor an address."),
    "mcp_servers_left_out": mark(
        "MCP servers are left out ({names}): this agent takes them from its settings alone."
    ),
}
"""What was asked for a task and is not done."""


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def condition_text(condition: Condition) -> str:
    """What is so, in a sentence."""
    known = _CONDITIONS.get(condition.code)
    if condition.code == "warning":
        known = _WARNINGS.get(str(condition.params.get("what")))
    if known is None:
        return str(condition.params.get("text") or condition.code.replace("_", " ").capitalize())
    params: Mapping[str, Any] = condition.params
    if condition.code == "settings_invalid":
        from desktop.problem_words import all_problems

        params = {"what": all_problems(params.get("problems", ()), params.get("what"))}
    if condition.code in ("spend_limit", "spend_near"):
        amounts: dict[str, Any] = {
            name: f"${decimal(params[name], 2)}" for name in ("spent", "limit") if name in params
        }
        params = {**params, **amounts}
    return _(known).format_map(_Known(params))


def condition_next(condition: Condition) -> str:
    """What happens next without anybody doing anything; empty where there is no more to say than when."""
    known = _NEXT.get(condition.code)
    return _(known) if known is not None else ""


def full_stop(sentence: str) -> str:
    """With the mark that ends a sentence in the user's language."""
    return _("{sentence}.", sentence=sentence)


def condition_action(condition: Condition) -> tuple[str, Command] | None:
    """The one thing that the user can do about it: (label, command)."""
    found = _ACTIONS.get(condition.code)
    if found is None:
        return None
    label, command = found
    server = condition.params.get("server")
    if command.name in ("sign_in", "retry_now") and isinstance(server, str):
        command = Command(command.name, server)
    return _(label), command


def elapsed(start: str | None, now: dt.datetime | None = None) -> str:
    """Time since then as a clock shows it: ``0:32``, ``12:41``, ``1:02:03``; empty where nothing began."""
    moment = parse(start)
    if moment is None:
        return ""
    seconds = max(0, int(((now or dt.datetime.now(dt.UTC)) - moment).total_seconds()))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def ago(moment_text: str | None, now: dt.datetime | None = None) -> str:
    """How long ago, in its largest unit: "just now", "18 min ago", "1 h ago", "3 d ago"."""
    moment = parse(moment_text)
    if moment is None:
        return ""
    seconds = max(0, int(((now or dt.datetime.now(dt.UTC)) - moment).total_seconds()))
    if seconds < 60:
        return _("just now")
    if seconds < 3600:
        return _("{n} min ago", n=seconds // 60)
    if seconds < 86400:
        return _("{n} h ago", n=seconds // 3600)
    return n_("{n} day ago", "{n} days ago", seconds // 86400)


def clock(moment_text: str | None, now: dt.datetime | None = None) -> str:
    """A time as the user's clock shows it; with its date where that is not today."""
    moment = parse(moment_text)
    if moment is None:
        return ""
    local = moment.astimezone()
    today = (now or dt.datetime.now(dt.UTC)).astimezone()
    return _as_written_here(local, with_date=local.date() != today.date())


def _as_written_here(local: dt.datetime, *, with_date: bool) -> str:
    """In the form of the user's language and country."""
    from PySide6.QtCore import QDate, QLocale, QTime

    locale = QLocale()
    if locale.language() is QLocale.Language.C:
        return local.strftime("%Y-%m-%d %H:%M" if with_date else "%H:%M")
    short = QLocale.FormatType.ShortFormat
    time = locale.toString(QTime(local.hour, local.minute), short)
    return (
        f"{locale.toString(QDate(local.year, local.month, local.day), short)} {time}" if with_date else time
    )


def decimal(number: float, places: int) -> str:
    """With so many decimals, as the user's language writes it."""
    from PySide6.QtCore import QLocale

    return QLocale().toString(float(number), "f", places)


def parse(moment_text: str | None) -> dt.datetime | None:
    """An RFC 3339 time; None where there is none."""
    if not moment_text:
        return None
    try:
        moment = dt.datetime.fromisoformat(moment_text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def place_of(task: TaskRow) -> str:
    """Where a task works, by the last part of its path."""
    return task.directory.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if task.directory else ""


def cut(text: str, limit: int) -> str:
    """On one line, shortened at its end."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"
