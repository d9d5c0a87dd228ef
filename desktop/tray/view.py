"""What the tray says, made from the state and nothing else.

The icon's shape answers: does anything need me, is anything wrong, does anything run? The menu is one
immutable tree; two equal trees are one menu, so nothing is rebuilt for nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal

from daemon_core.control.views import RuntimeView, TaskRow
from desktop.commands import Command
from desktop.models.state import DesktopState, LinkPhase, Supervision
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
    status_sentence,
    updating,
)

TITLE_CHARS: Final = 44
SHOWN_TASKS: Final = 4
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


def shape_of(state: DesktopState) -> Shape:
    """The icon's shape."""
    if not state.connected and not _expected_away(state):
        troubled = state.supervision in (Supervision.GAVE_UP, Supervision.FAILED) or state.link in (
            LinkPhase.FOREIGN,
            LinkPhase.HUNG,
            LinkPhase.TOO_OLD,
            LinkPhase.TOO_NEW,
        )
        return Shape.PROBLEM if troubled else Shape.DISCONNECTED
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
    messages: int = 0,
    snoozed_until: str = "",
    now: dt.datetime | None = None,
) -> TrayView:
    """Everything that the tray shows.

    Args:
        messages: How much was notified and is not handled.
        snoozed_until: Until when nothing is notified (RFC 3339); empty: it is.
    """
    sentence = status_sentence(state, now)
    troubles = [condition for condition in state.conditions if condition.code in TROUBLES]
    tooltip = _("Ostler: {sentence}.", sentence=sentence)
    if state.connected and troubles:
        tooltip += " " + full_stop(condition_text(troubles[0]))
    rows: list[Row] = [Row("text", sentence, bold=True)]
    if not state.connected:
        rows += _down_rows(state)
    else:
        for condition in troubles[:SHOWN_TROUBLES]:
            action = condition_action(condition)
            inner = (Row("action", action[0], action[1]),) if action is not None else ()
            text = cut(condition_text(condition), TITLE_CHARS + 16)
            rows.append(Row("menu", text, rows=inner) if inner else Row("text", text))
        rows += _task_rows(state, now)
        rows.append(SEPARATOR)
        rows.append(Row("action", _("New task…"), Command("new_task")))
        rows.append(_runtimes_row(state))
        rows.append(_pause_row(state))
    rows.append(_snooze_row(snoozed_until, now))
    rows.append(SEPARATOR)
    if ready(state):
        rows.append(_update_row(state))
    if messages:
        text = n_("{n} message…", "{n} messages…", messages)
        rows.append(Row("action", text, Command("open", "messages")))
    rows.append(Row("action", _("Open Ostler"), Command("open", "now")))
    rows.append(Row("action", _("Settings…"), Command("open", "settings")))
    rows.append(Row("action", _("Quit…"), Command("quit")))
    count = len(state.needing) + len(state.active) if state.connected else 0
    return TrayView(shape=shape_of(state), count=count, tooltip=tooltip, rows=tuple(rows))


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
    if state.link is LinkPhase.HUNG:
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


def _task_rows(state: DesktopState, now: dt.datetime | None) -> list[Row]:
    needing, active = state.needing, state.active
    if not needing and not active:
        return []
    rows = [SEPARATOR]
    rows += [_needing_row(task) for task in needing[:SHOWN_NEEDING]]
    rows += [_active_row(task, now) for task in active[:SHOWN_TASKS]]
    more = len(needing[SHOWN_NEEDING:]) + len(active[SHOWN_TASKS:])
    if more:
        rows.append(Row("action", n_("{n} more task…", "{n} more tasks…", more), Command("open", "now")))
    return rows


def _needing_row(task: TaskRow) -> Row:
    title = cut(task.title, TITLE_CHARS)
    return Row(
        "menu",
        _("{title}: needs you", title=title),
        rows=(
            Row("text", cut(task.last_action, TITLE_CHARS + 16) or _("It waits for your answer")),
            Row("action", _("Answer…"), Command("open_task", task.id)),
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
    rows = tuple(_runtime_row(each) for each in runtimes if each.status in ("online", "offline", "disabled"))
    usable = sum(each.status == "online" for each in runtimes)
    text = n_("{n} agent is ready", "{n} agents are ready", usable)
    return Row(
        "menu", text, rows=(*rows, SEPARATOR, Row("action", _("All of them…"), Command("open", "runtimes")))
    )


def _runtime_row(runtime: RuntimeView) -> Row:
    name = " ".join(part for part in (runtime.name or runtime.provider, runtime.version) if part)
    on = runtime.status != "disabled"
    switch = (
        Row("action", _("Switch off"), Command("runtime_off", runtime.id))
        if on
        else Row("action", _("Switch on"), Command("runtime_on", runtime.id))
    )
    state = {
        "online": n_("{n} task", "{n} tasks", runtime.busy) if runtime.busy else _("ready"),
        "offline": _("offline"),
        "disabled": _("off"),
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
