"""Words of the settings: what each is called, what its choices are called, and what the units are.

A setting that nobody here knows (a newer daemon's) is shown by its key with the daemon's own sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daemon_core.control.errors import ControlError
from daemon_core.control.settings_views import SettingView
from desktop.daemon.http import Failure
from desktop.problem_words import problem_sentence
from desktop.text import _, mark, n_

TITLES: Final[Mapping[str, str]] = {
    "daemon.slots": mark("Tasks at once"),
    "daemon.claim": mark("Take tasks"),
    "daemon.port": mark("Local port"),
    "daemon.name": mark("Name of this machine"),
    "daemon.stop_timeout": mark("Deliver before stopping"),
    "limits.per_runtime": mark("Tasks at once for each agent"),
    "limits.runtimes": mark("Other numbers for single agents"),
    "limits.models": mark("Tasks at once for a model"),
    "delegation.depth": mark("How deep work may be handed on"),
    "delegation.at_once": mark("Tasks handed on at once"),
    "delegation.per_task": mark("Tasks handed on in all"),
    "delegation.more_turns": mark("Asked to finish its list"),
    "jobs.time_limit": mark("Time limit of a job"),
    "jobs.stall": mark("Notice a question after"),
    "jobs.keep_told": mark("Keep a job that was told"),
    "jobs.keep_untold": mark("Keep a job that nobody was told of"),
    "jobs.wake_limit": mark("Wake a conversation at most"),
    "jobs.keep_open": mark("Keep tasks of servers open for their jobs"),
    "jobs.keep_open_for": mark("Keep them open for at most"),
    "jobs.output_limit": mark("Kept of one job's output"),
    "jobs.output_budget": mark("Room for the output of jobs"),
    "watchdog.idle": mark("End a silent agent after"),
    "watchdog.tool": mark("End a silent tool after"),
    "watchdog.progress": mark("End a Codex that gets nowhere after"),
    "watchdog.request": mark("Wait for your answer at most"),
    "watchdog.run_time_limit": mark("End any run after"),
    "permissions.default": mark("What agents may do"),
    "retention.days": mark("Keep conversations (days)"),
    "retention.run_days": mark("Keep raw output (days)"),
    "workdirs.budget": mark("Room for work directories"),
    "workdirs.free_floor": mark("Keep free on the disk"),
    "workdirs.artifacts": mark("Directories that tools make again"),
    "hub.enabled": mark("Tasks of this machine"),
    "repositories.urls": mark("Repositories agents may check out"),
    "repositories.co_author": mark("Co-author of commits"),
    "mcp.offer": mark("Give agents Ostler's tools"),
    "discovery.login_shell": mark("Ask the login shell for agents"),
    "discovery.timeout": mark("Wait for an agent's version"),
    "environment.set": mark("Variables every agent gets"),
    "environment.drop": mark("Variables no agent gets"),
    "log.level": mark("How much the log says"),
    "log.size": mark("Size of a log file"),
    "log.files": mark("Old log files kept"),
    "desktop.appearance": mark("Appearance"),
    "desktop.language": mark("Language"),
    "desktop.explain_close": mark("Explain closing the window"),
    "desktop.terminal": mark("Terminal"),
    "desktop.editor": mark("Editor"),
    "desktop.global_shortcut": mark("Shortcut for a new task"),
    "notifications.enabled": mark("Notifications"),
    "notifications.needs_you": mark("A task needs you"),
    "notifications.finished": mark("A task is done"),
    "notifications.failed": mark("A task failed"),
    "notifications.stalled": mark("A task is silent for long"),
    "notifications.job": mark("A job of yours has ended"),
    "notifications.parked": mark("A task waits for a usage limit"),
    "notifications.update": mark("An update is ready"),
    "notifications.trouble": mark("Trouble with Ostler itself"),
    "notifications.sound": mark("Sound"),
    "notifications.respect_do_not_disturb": mark("Follow “do not disturb”"),
    "notifications.quiet_hours": mark("Quiet hours"),
    "notifications.per_minute": mark("Notifications a minute"),
    "agents.enabled": mark("Offer it"),
    "agents.path": mark("Program"),
    "agents.args": mark("Further arguments"),
    "agents.model": mark("Model"),
    "agents.thinking": mark("Thinking level"),
    "agents.permissions": mark("What it may do"),
    "agents.mcp": mark("Ostler's tools"),
    "agents.resume_after_limit": mark("Go on after a usage limit"),
    "spend.daily_limit": mark("Spend limit a day (US dollars)"),
    "spend.warn_at": mark("Tell me at (per cent of it)"),
    "updates.automatic": mark("Update by itself"),
    "updates.check": mark("Look for newer versions"),
    "updates.interval": mark("Look every"),
    "updates.quiet_limit": mark("Wait for a quiet moment at most"),
    "updates.size_limit": mark("Largest download"),
    "updates.url": mark("Another address"),
    "updates.channel": mark("Channel"),
}
HINTS: Final[Mapping[str, str]] = {
    "notifications.finished": "",
    "notifications.failed": "",
    "notifications.parked": "",
    "notifications.update": "",
    "daemon.slots": mark("More than that wait. An agent takes 0.2 to 0.9 GB of memory in all."),
    "daemon.claim": mark("Off: this machine shows its agents and runs nothing."),
    "limits.per_runtime": mark("0: only the number above limits them."),
    "limits.runtimes": mark("Instead of the number for each agent."),
    "watchdog.idle": mark("One that says nothing and has no tool at work."),
    "watchdog.tool": mark("Builds and tests may be silent for long."),
    "watchdog.progress": mark("One that says something, and neither thinks nor does anything."),
    "watchdog.request": mark("You may be away; what waits costs nothing but its slot."),
    "watchdog.run_time_limit": mark("Whatever it does. Long work is no fault."),
    "jobs.time_limit": mark("Unless the job names its own."),
    "jobs.output_budget": mark("What ended first goes first; a job that goes on never."),
    "permissions.default": mark("For every agent that has no rule of its own below."),
    "desktop.appearance": mark("As the system: it changes when your desktop does."),
    "desktop.language": mark("The window is made anew at once; what runs is not touched."),
    "desktop.explain_close": mark(
        "Says once, when the window is closed, that Ostler goes on in the tray. It switches itself off then."
    ),
    "desktop.terminal": mark("A command; {directory} stands for where. Empty: that of your desktop."),
    "desktop.editor": mark("A command; {directory} stands for what. Empty: one that is found."),
    "desktop.global_shortcut": mark(
        "From anywhere, where your desktop allows it: Ctrl+Alt+O, say. Empty: none."
    ),
    "notifications.enabled": mark("Off: nothing pops up. What would have is listed in the window."),
    "notifications.needs_you": mark("Comes in quiet hours too: without an answer nothing goes on."),
    "notifications.trouble": mark("Comes in quiet hours too: tasks may not be taken meanwhile."),
    "notifications.stalled": mark("Before it is ended, so that you can give it more time."),
    "notifications.job": mark("A command that you started in the background, not those of agents."),
    "notifications.quiet_hours": mark("What waited is told in one summary afterwards."),
    "notifications.per_minute": mark("More than that become one summary."),
    "retention.days": mark("With their own work directories. Your own are never touched. 0: for ever."),
    "retention.run_days": mark("The transcript stays; this only helps with a fault. 0: for ever."),
    "workdirs.budget": mark("What ended first goes first; what is in use and your own never. 0: no limit."),
    "workdirs.free_floor": mark("With less than this no task is taken. 0: never mind."),
    "workdirs.artifacts": mark("Removed from work directories first. One name a line."),
    "hub.enabled": mark("Off: only servers give tasks, none can be started here."),
    "agents.enabled": mark("Off: it gets no tasks."),
    "agents.mcp": mark("Whether it is given Ostler's tools; else as set for all."),
    "agents.model": mark("Where neither task nor agent names one. Empty: its own choice."),
    "agents.thinking": mark("Where neither task nor agent names one. Empty: its own choice."),
    "agents.path": mark("Empty: looked for where programs are."),
    "agents.args": mark("One a line, before those of Ostler, which win."),
    "agents.resume_after_limit": mark(
        "A task that met a usage limit goes on by itself when that has reset. Off: it waits for you."
    ),
    "environment.set": mark("One NAME = value a line."),
    "environment.drop": mark("One name a line; a name may end in *."),
    "repositories.urls": mark("For your own tasks, besides the one of the task. One address a line."),
    "spend.daily_limit": mark(
        "At the limit no more tasks are taken until midnight; what runs goes on. 0: none."
    ),
    "updates.check": mark("They are fetched too. Off: you look when you want."),
    "updates.automatic": mark("When no task runs. It takes seconds, and runs go on. Off: it waits for you."),
    "updates.interval": "",
    "updates.quiet_limit": mark("After that it is put in place all the same; runs go on. 0: at once."),
    "updates.size_limit": "",
    "updates.url": mark("A mirror. What comes from it has to have the same signatures."),
    "limits.models": mark("One model = number a line."),
}
CHOICES: Final[Mapping[str, Mapping[str, str]]] = {
    "desktop.appearance": {
        "system": mark("As the system"), "light": mark("Light"), "dark": mark("Dark"),
    },
    "desktop.language": {
        "system": mark("As the system"), "en": "English", "de": "Deutsch", "zh_CN": "简体中文",
    },
    "permissions.default": {
        "allow": mark("Everything"), "ask": mark("Ask me first"), "deny": mark("Nothing it must ask for"),
    },
    "agents.permissions": {
        "as-default": mark("As above"), "allow": mark("Everything"), "ask": mark("Ask me first"),
        "deny": mark("Nothing it must ask for"),
    },
    "agents.mcp": {"as-default": mark("As set for all"), "on": mark("On"), "off": mark("Off")},
    "log.level": {
        "debug": mark("Everything"), "info": mark("As usual"), "warning": mark("Warnings"),
        "error": mark("Errors only"),
    },
    "updates.channel": {"stable": mark("Stable"), "beta": mark("Beta")},
}  # fmt: skip
NEVER: Final = frozenset(
    {
        "watchdog.idle", "watchdog.tool", "watchdog.progress", "watchdog.run_time_limit",
    }
)  # fmt: skip
"""Spans of time where 0 means "never"."""
UNLIMITED: Final = frozenset(
    {
        "jobs.output_budget", "jobs.time_limit", "workdirs.budget", "spend.daily_limit", "watchdog.request",
    }
)  # fmt: skip
"""Amounts where 0 means "no limit"."""
DURATION_UNITS: Final = (("s", 1), ("m", 60), ("h", 3600), ("d", 86400))
SIZE_UNITS: Final = (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30))


def unit_text(unit: str, count: int) -> str:
    """What a unit is called after this number."""
    match unit:
        case "ms":
            return n_("millisecond", "milliseconds", count)
        case "s":
            return n_("second", "seconds", count)
        case "m":
            return n_("minute", "minutes", count)
        case "h":
            return n_("hour", "hours", count)
        case "d":
            return n_("day", "days", count)
        case "B":
            return n_("byte", "bytes", count)
        case _:
            return unit


def table_key(key: str) -> str:
    """The key as the tables above have it: of an agent's settings without its name."""
    parts = key.split(".")
    return f"agents.{parts[2]}" if parts[0] == "agents" and len(parts) == 3 else key


def title_of(key: str) -> str:
    """What a setting is called."""
    known = TITLES.get(table_key(key))
    if known is not None:
        return _(known)
    return key.rpartition(".")[2].replace("_", " ").capitalize()


def hint_of(view: SettingView) -> str:
    """What there is to know about it, in a sentence or two."""
    known = HINTS.get(table_key(view.key))
    if known is None:
        return _(view.what)
    return _(known) if known else ""


def choice_text(key: str, value: str) -> str:
    """What a choice is called."""
    known = CHOICES.get(table_key(key), {}).get(value)
    return _(known) if known is not None else value


def default_text(view: SettingView) -> str:
    """The default in words, for the button that goes back to it."""
    match view.default:
        case bool():
            return _("on") if view.default else _("off")
        case "":
            return _("empty")
        case str() if view.kind == "choice":
            return choice_text(view.key, view.default)
        case list() | dict() if not view.default:
            return _("none")
        case list():
            return ", ".join(str(each) for each in view.default)
        case dict():
            return ", ".join(f"{name} = {each}" for name, each in view.default.items())
        case "0" | 0 if view.key in NEVER:
            return _("never")
        case "0" | 0 if view.key in UNLIMITED:
            return _("no limit")
        case _:
            return str(view.default)


def refusal_words(failure: Failure, about: str = "") -> str:
    """Why a change was not made, in a sentence or two.

    Args:
        about: The setting that the words stand beside: neither it nor its line has to be said.
    """
    if not isinstance(failure, ControlError):
        return _("Ostler's daemon does not answer, so this was not changed.")
    params = failure.params
    if failure.code == "settings_invalid":
        return problem_sentence(params, about=about)
    return {
        "refused_from_run": _("Settings cannot be changed from inside a task."),
        "not_ready": _("Ostler is still starting. Try again in a moment."),
    }.get(failure.code, _("It was refused: {code}.", code=failure.code.replace("_", " ")))
