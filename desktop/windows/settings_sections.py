"""Which settings stand where: the sections of the page as a table, and what each is built from.

A setting that no section names is under "Advanced", so that nothing that Ostler does by itself lacks a
switch, also not in a daemon that is newer than this window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from PySide6.QtWidgets import QWidget

from desktop.models.settings import SettingsStore
from desktop.text import _, mark
from desktop.windows.context import Context
from desktop.windows.settings_words import hint_of, title_of


@dataclass(frozen=True, slots=True)
class Heading:
    """A smaller heading inside a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence that has to be said there."""

    text: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Settings by name. One that ends in ``.`` stands for all below it."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfAgents:
    """Settings of each agent on this machine, under its name (or beside it, where it is only one)."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Something that is more than a setting. ``words``: what it is found by."""

    make: Callable[[Context, SettingsStore], QWidget]
    words: str = ""


@dataclass(frozen=True, slots=True)
class Rest:
    """All that no other section names."""


Part = Heading | Note | Keys | OfAgents | Panel | Rest


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    intro: str
    parts: tuple[Part, ...]


def _autostart(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_general import AutostartRow

    return AutostartRow(context)


def _first_steps(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.first_run_again import FirstStepsRow

    return FirstStepsRow(context)


def _policies(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_agents import AgentPolicies

    return AgentPolicies(context)


def _agents(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_agents import AgentsPanel

    return AgentsPanel(context)


def _connections(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_connections import ConnectionsPanel

    return ConnectionsPanel(context)


def _spend(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_status import SpendPanel

    return SpendPanel(context)


def _updates(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_status import UpdatePanel

    return UpdatePanel(context)


def _snooze(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_status import SnoozePanel

    return SnoozePanel(context)


def _disk(context: Context, store: SettingsStore) -> QWidget:
    from desktop.windows.settings_disk import DiskPanel

    return DiskPanel(context)


SECTIONS: Final = (
    Section(
        "general",
        mark("General"),
        "",
        (
            Panel(_autostart, mark("Start at login")),
            Keys(("desktop.appearance", "desktop.language", "desktop.")),
            Panel(_first_steps, mark("The first steps")),
        ),
    ),
    Section(
        "tasks",
        mark("Tasks and slots"),
        mark("How much goes on at once, and how long an agent may be silent before it is ended."),
        (
            Keys(("daemon.claim", "daemon.slots", "limits.per_runtime", "limits.runtimes")),
            Heading(mark("Silence")),
            Keys(("watchdog.idle", "watchdog.tool", "watchdog.request", "watchdog.run_time_limit")),
        ),
    ),
    Section(
        "permissions",
        mark("Permissions"),
        "",
        (
            Note(
                mark(
                    "This decides about what an agent asks for. What its own shell does once it may run is"
                    " not fenced: that takes a sandbox, and Ostler is none."
                )
            ),
            Keys(("permissions.default",)),
            Heading(mark("Agents on this machine")),
            OfAgents(("permissions",)),
            Panel(_policies, mark("Named agents")),
        ),
    ),
    Section(
        "agents",
        mark("Agents"),
        mark("A named agent is a way of working: which program, which model, what it is told each time."),
        (
            Panel(_agents, mark("Named agents")),
            Heading(mark("Go on after a usage limit")),
            OfAgents(("resume_after_limit",)),
        ),
    ),
    Section(
        "connections",
        mark("Connections"),
        mark("Who gives tasks to this machine."),
        (Panel(_connections, mark("Servers: sign in, sign out, token")),),
    ),
    Section(
        "notifications",
        mark("Notifications"),
        "",
        (
            Keys(("notifications.enabled",)),
            Panel(_snooze, mark("No notifications for an hour, or until tomorrow")),
            Heading(mark("When")),
            Keys(
                (
                    "notifications.needs_you", "notifications.finished", "notifications.failed",
                    "notifications.stalled", "notifications.job", "notifications.parked",
                    "notifications.update", "notifications.trouble",
                )
            ),
            Heading(mark("How")),
            Keys(("notifications.quiet_hours", "notifications.respect_do_not_disturb", "notifications.")),
        ),
    ),
    Section(
        "spending",
        mark("Spending"),
        mark("Cost is what the agents say, or is reckoned from a table of prices."),
        (Panel(_spend, mark("What today cost")), Keys(("spend.",))),
    ),
    Section(
        "updates",
        mark("Updates"),
        "",
        (Panel(_updates, mark("Look for a newer version")), Keys(("updates.",))),
    ),
    Section(
        "disk",
        mark("Disk and clean-up"),
        mark("What Ostler removes by itself, and when. Your own directories are never touched."),
        (Panel(_disk, mark("Clean up now")), Keys(("retention.", "workdirs.", "jobs.output_budget"))),
    ),
    Section(
        "advanced",
        mark("Advanced"),
        mark("Everything else that Ostler does by itself. The defaults suit nearly everybody."),
        (Rest(),),
    ),
)  # fmt: skip
_WITHOUT_KEYS: Final = frozenset({"agents", "connections"})
"""Sections that are there for what they show besides settings."""
GROUPS: Final[Mapping[str, str]] = {
    "daemon": mark("Daemon"),
    "limits": mark("Limits"),
    "delegation": mark("Handing on work"),
    "jobs": mark("Background jobs"),
    "watchdog": mark("Silence"),
    "hub": mark("Tasks of this machine"),
    "repositories": mark("Repositories"),
    "mcp": mark("Ostler's tools"),
    "discovery": mark("Finding agents"),
    "environment": mark("Environment"),
    "log": mark("Log"),
}
"""Headings under "Advanced"."""


def agents_of(context: Context, store: SettingsStore) -> list[tuple[str, str]]:
    """(provider, name) of each agent that has settings here."""
    names = {each.provider: each.name for each in context.link.state.runtimes.values() if each.name}
    found = {key.split(".")[1] for key in store.settings if key.startswith("agents.")}
    return [(provider, names.get(provider, provider.capitalize())) for provider in sorted(found)]


def _named_elsewhere(names: tuple[str, ...]) -> frozenset[str]:
    """Settings that another part names: a part that takes all of a kind leaves them there."""
    every = {
        name
        for section in SECTIONS
        for part in section.parts
        if isinstance(part, Keys)
        for name in part.names
    }
    return frozenset(every - set(names))


def keys_of(part: Part, store: SettingsStore) -> list[str]:
    """The settings that a part shows, in order."""
    match part:
        case Keys(names):
            found: dict[str, None] = {}
            for name in names:
                for key in store.settings:
                    if key == name or (
                        name.endswith(".") and key.startswith(name) and key not in _named_elsewhere(names)
                    ):
                        found[key] = None
            return list(found)
        case OfAgents(names):
            return [
                key for key in store.settings if key.startswith("agents.") and key.split(".", 2)[2] in names
            ]
        case Rest():
            taken = {
                key
                for section in SECTIONS
                for each in section.parts
                if not isinstance(each, Rest)
                for key in keys_of(each, store)
            }
            return [key for key in store.settings if key not in taken]
        case _:
            return []


def section_named(name: str) -> Section:
    """By its name; the first for one that nobody knows."""
    return next((each for each in SECTIONS if each.name == name), SECTIONS[0])


def shown_sections(store: SettingsStore) -> list[Section]:
    """Those that have anything in them: a daemon that knows nothing of spending has no such section."""
    return [
        section
        for section in SECTIONS
        if section.name in _WITHOUT_KEYS or any(keys_of(part, store) for part in section.parts)
    ]


def finds(words: Iterable[str], *texts: str) -> bool:
    """Whether every word is in one of the texts."""
    whole = "\n".join(texts).casefold()
    return all(word in whole for word in words)


def matching(section: Section, query: str, context: Context, store: SettingsStore) -> list[str | Panel]:
    """Settings and panels of a section that a search finds; all of them where it finds the section itself."""
    words = query.casefold().split()
    everything = finds(words, _(section.title))
    names = dict(agents_of(context, store))
    found: list[str | Panel] = []
    for part in section.parts:
        if isinstance(part, Panel):
            if everything or finds(words, _(part.words)):
                found.append(part)
            continue
        for key in keys_of(part, store):
            view = store.settings[key]
            agent = names.get(key.split(".")[1], "") if key.startswith("agents.") else ""
            if everything or finds(words, agent, title_of(key), hint_of(view), key, view.what, view.why):
                found.append(key)
    return found
