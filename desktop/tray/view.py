"""What the tray says, made from the state and nothing else.

The icon's shape answers: does anything need me, is anything wrong, does anything run? The menu is one
immutable tree; two equal trees are one menu, so nothing is rebuilt for nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from daemon_core.control.views import RuntimeView, TaskRow
from desktop.commands import Command
from desktop.models.state import DesktopState, LinkPhase, Supervision, hangs
from desktop.text import _, n_
from desktop.theme.mark import Shape
from desktop.updates.words import notes, ready
from desktop.words import (
    clock,
    condition_action,
    condition_text,
    cut,
    elapsed,
    full_stop,
    link_sentence,
    place_of,
    ready_sentence,
    status_sentence,
    updating,
)

TITLE_CHARS: Final = 44
MOST_ROWS: Final = 12
"""At the top level, whatever comes together. Lines between rows are none."""
SHOWN_TASKS: Final = 3
SHOWN_NEEDING: Final = 2
SHOWN_TROUBLES: Final = 1
SHOWN_NOTES: Final = 4
TROUBLES: Final = frozenset(
    {
        "signed_out",
        "server_refuses",
        "disk_full",
        "disk_low",
        "settings_invalid",
        "provider_invalid",
        "resident_gave_up",
        "resident_invalid",
        "port_in_use",
        "journal_damaged",
        "hub_damaged",
        "hub_lost",
        "servers_damaged",
        "crash_loop",
        "prices_invalid",
    }
)
"""Conditions that somebody has to do something about; the others pass by themselves or belong to one task."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the menu. ``text`` rows say something and cannot be chosen."""

    kind: Literal["text", "action", "menu", "separator"]
    text: str = ""
    command: Command | None = None
    rows: tuple[Row, ...] = ()
    checked: bool | None = None
    bold: bool = False


@dataclass(frozen=True, slots=True)
class TrayView:
    """Icon, number and words of the tray at one moment."""

    shape: Shape
    count: int
    tooltip: str
    rows: tuple[Row, ...]


SEPARATOR: Final = Row("separator")


class Asked(NamedTuple):
    """What a task asks, and the answers that can be given with a click."""

    text: str
    buttons: tuple[tuple[str, Command], ...]


NOTHING_ASKED: Final[Mapping[str, Asked]] = {}


def shape_of(state: DesktopState) -> Shape:
    """The icon's shape."""
    if state.connected and state.unsure and not updating(state):
        return Shape.DISCONNECTED
    if not state.connected and not _expected_away(state):
        troubled = state.supervision in (Supervision.GAVE_UP, Supervision.FAILED, Supervision.STUCK)
        odd = state.link in (LinkPhase.FOREIGN, LinkPhase.HUNG, LinkPhase.TOO_OLD, LinkPhase.TOO_NEW)
        return Shape.PROBLEM if troubled or odd else Shape.DISCONNECTED
    if state.needing:
        return Shape.NEEDS_YOU
    if any(condition.code in TROUBLES for condition in state.conditions):
        return Shape.PROBLEM
    if state.active:
        return Shape.WORKING
    if state.barrier is not None and state.barrier.reason == "user":
        return Shape.PAUSED
    return Shape.IDLE


def _expected_away(state: DesktopState) -> bool:
    """The daemon is becoming another version: what was known of the tasks is still so."""
    calm = state.supervision not in (Supervision.GAVE_UP, Supervision.FAILED)
    return calm and state.link in (LinkPhase.ABSENT, LinkPhase.CONNECTING) and bool(updating(state))


def tray_view(
    state: DesktopState,
    *,
    asked: Mapping[str, Asked] = NOTHING_ASKED,
    messages: int = 0,
    snoozed_until: str = "",
    now: dt.datetime | None = None,
) -> TrayView:
    """Everything that the tray shows.

    Args:
        asked: By task what it waits to be answered, as far as that is known.
        messages: How much was notified and is not handled.
        snoozed_until: Until when nothing is notified (RFC 3339); empty: it is.
    """
    sentence = status_sentence(state, now)
    troubles = [condition for condition in state.conditions if condition.code in TROUBLES]
    tooltip = _("Ostler: {sentence}.", sentence=sentence)
    if state.connected and troubles:
        tooltip += " " + full_stop(condition_text(troubles[0]))
    head = [Row("text", sentence, bold=True)]
    if not state.connected:
        head += _down_rows(state)
    else:
        for condition in troubles[:SHOWN_TROUBLES]:
            action = condition_action(condition)
            inner = (Row("action", action[0], action[1]),) if action is not None else ()
            text = cut(condition_text(condition), TITLE_CHARS + 16)
            head.append(Row("menu", text, rows=inner) if inner else Row("text", text))
    news = [_update_row(state)] if ready(state) else []
    if messages:
        text = n_("{n} message…", "{n} messages…", messages)
        news.append(Row("action", text, Command("open", "messages")))
    rows = _fitted(state, head, news, asked, snoozed_until, now)
    count = len(state.needing) + len(state.active) if state.connected else 0
    return TrayView(shape=shape_of(state), count=count, tooltip=tooltip, rows=tuple(rows))


def _fitted(
    state: DesktopState,
    head: list[Row],
    news: list[Row],
    asked: Mapping[str, Asked],
    snoozed_until: str,
    now: dt.datetime | None,
) -> list[Row]:
    """The whole menu. Where there is much to say, what can be reached otherwise goes into menus of its own;
    what is left over is what the tasks get."""
    work = []
    if state.connected:
        work = [Row("action", _("New task…"), Command("new_task")), _runtimes_row(state)]
    holding = _pause_rows(state, snoozed_until, now)
    ours = [Row("action", _("Settings…"), Command("open", "settings"))]
    if state.connected:
        ours.append(Row("action", _("Show the log"), Command("show_logs")))
    window = Row("action", _("Open Ostler"), Command("open", "now"))
    leave = Row("action", _("Quit…"), Command("quit"))

    def room() -> int:
        return MOST_ROWS - sum(map(len, (head, work, holding, news, ours))) - 2

    wanted = min(len(state.needing) + len(state.active), SHOWN_TASKS + 1) if state.connected else 0
    if room() < wanted and len(ours) > 1:
        ours = [Row("menu", _("More"), rows=tuple(ours))]
    if room() < wanted and len(holding) > 1:
        holding = [Row("menu", _("Pause"), rows=tuple(holding))]
    tasks = _task_rows(state, asked, now, room()) if state.connected else []
    return [
        *head,
        *tasks,
        *([SEPARATOR, *work] if work else []),
        *holding,
        SEPARATOR,
        *news,
        window,
        *ours,
        leave,
    ]


def _update_row(state: DesktopState) -> Row:
    """The one row about an update; what is new, and the way to hear of it later, are inside."""
    version = ready(state)
    news = notes(state.update) if state.update is not None else ()
    lines = tuple(Row("text", "• " + cut(line, TITLE_CHARS + 16)) for line in news[:SHOWN_NOTES])
    more = Row("action", _("What is new…"), Command("open", "health"))
    return Row(
        "menu",
        _("Restart to update to {version}", version=version),
        rows=(
            Row("action", _("Restart now; tasks go on"), Command("update", version)),
            Row("action", _("Remind me in a week"), Command("update_later", version)),
            SEPARATOR,
            *lines,
            more,
        ),
    )


def _down_rows(state: DesktopState) -> list[Row]:
    if _expected_away(state):
        return []
    if hangs(state):
        return [Row("action", _("Restart it; tasks go on"), Command("restart_daemon"))]
    if state.link is LinkPhase.TOO_OLD:
        return [Row("action", _("Restart it with this version; tasks go on"), Command("restart_daemon"))]
    if state.link is LinkPhase.TOO_NEW:
        return [Row("action", _("Restart this window"), Command("restart_desktop"))]
    if state.link is LinkPhase.FOREIGN:
        return [Row("action", _("Look again"), Command("reconnect"))]
    if state.supervision in (Supervision.GAVE_UP, Supervision.FAILED, Supervision.STOPPED):
        return [
            Row("action", _("Start it"), Command("start_daemon")),
            Row("action", _("Show the log"), Command("show_logs")),
        ]
    if state.supervision is Supervision.NONE and link_sentence(state) and state.link is LinkPhase.ABSENT:
        return [Row("action", _("Start it"), Command("start_daemon"))]
    return []


def _task_rows(
    state: DesktopState, asked: Mapping[str, Asked], now: dt.datetime | None, room: int
) -> list[Row]:
    """What needs somebody, then what runs, in at most so many rows; the last one says how many more there
    are."""
    needing, active = state.needing, state.active
    count = len(needing) + len(active)
    if not count:
        return []
    most = SHOWN_TASKS if count <= room else min(SHOWN_TASKS, room - 1)
    shown = needing[: min(SHOWN_NEEDING, most)]
    going = active[: most - len(shown)]
    rows = [SEPARATOR]
    rows += [_needing_row(task, asked.get(task.id)) for task in shown]
    rows += [_active_row(task, now) for task in going]
    more = count - len(shown) - len(going)
    if more:
        rows.append(Row("action", n_("{n} more task…", "{n} more tasks…", more), Command("open", "now")))
    return rows


def _needing_row(task: TaskRow, asked: Asked | None) -> Row:
    title = cut(task.title, TITLE_CHARS)
    text = asked.text if asked is not None else task.last_action
    answers = asked.buttons if asked is not None else ()
    opening = Command("open_task", task.id)
    return Row(
        "menu",
        _("{title}: needs you", title=title),
        rows=(
            Row("text", cut(text, TITLE_CHARS + 16) or _("It waits for your answer")),
            *(Row("action", label, command) for label, command in answers if command != opening),
            Row("action", _("Open") if answers else _("Answer…"), opening),
            Row("action", _("Cancel the task"), Command("cancel_task", task.id)),
        ),
        bold=True,
    )


def _active_row(task: TaskRow, now: dt.datetime | None) -> Row:
    where = " · ".join(part for part in (task.runtime, place_of(task), task.last_action) if part)
    return Row(
        "menu",
        f"{cut(task.title, TITLE_CHARS)}  {elapsed(task.started_at or task.created_at, now)}",
        rows=(
            Row("text", cut(where, TITLE_CHARS + 16)),
            Row("action", _("Open"), Command("open_task", task.id)),
            Row("action", _("Cancel the task"), Command("cancel_task", task.id)),
        ),
    )


def _runtimes_row(state: DesktopState) -> Row:
    runtimes = sorted(
        state.runtimes.values(), key=lambda each: (each.status != "online", each.name or each.provider)
    )
    rows = tuple(_runtime_row(each) for each in runtimes if each.status in ("online", "offline", "off"))
    every = Row("action", _("All of them…"), Command("open", "runtimes"))
    return Row("menu", ready_sentence(state), rows=(*rows, SEPARATOR, every))


def _runtime_row(runtime: RuntimeView) -> Row:
    name = " ".join(part for part in (runtime.name or runtime.provider, runtime.version) if part)
    on = runtime.status != "off"
    switch = (
        Row("action", _("Switch off"), Command("runtime_off", runtime.id))
        if on
        else Row("action", _("Switch on"), Command("runtime_on", runtime.id))
    )
    state = {
        "online": n_("{n} task", "{n} tasks", runtime.busy) if runtime.busy else _("ready"),
        "offline": _("offline"),
        "off": _("off"),
    }.get(runtime.status, runtime.status)
    return Row(
        "menu",
        f"{name}: {state}",
        rows=(switch, Row("action", _("Restart"), Command("runtime_restart", runtime.id))),
    )


def _snooze_row(until: str, now: dt.datetime | None) -> Row:
    if until:
        text = _("Notify me again (quiet until {time})", time=clock(until, now))
        return Row("action", text, Command("snooze", detail="off"))
    return Row(
        "menu",
        _("Notify me of nothing"),
        rows=(
            Row("action", _("For an hour"), Command("snooze", detail="1h")),
            Row("action", _("Until tomorrow"), Command("snooze", detail="tomorrow")),
        ),
    )


def _pause_rows(state: DesktopState, snoozed_until: str, now: dt.datetime | None) -> list[Row]:
    """What can be held for a while as one row; what is held has a row of its own that ends it."""
    snooze = _snooze_row(snoozed_until, now)
    if not state.connected:
        return [snooze]
    pause = _pause_row(state)
    if pause.kind == snooze.kind == "menu":
        return [Row("menu", _("Pause"), rows=(pause, snooze))]
    return [pause, snooze]


def _pause_row(state: DesktopState) -> Row:
    if state.barrier is not None and state.barrier.reason == "user":
        return Row("action", _("Take tasks again"), Command("resume"))
    return Row(
        "menu",
        _("Take no new tasks"),
        rows=(
            Row("action", _("For an hour"), Command("pause", detail="1h")),
            Row("action", _("Until tomorrow"), Command("pause", detail="tomorrow")),
            Row("action", _("Until I resume"), Command("pause", detail="until_resumed")),
        ),
    )
