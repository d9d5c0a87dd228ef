"""What only the running task itself knows, added to its views. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from daemon_core.control.views import Condition, PlanEntryView, RequestView, TaskRow, TaskView, WatchView
from daemon_core.journal import TaskRecord
from daemon_core.journal.records import Remark
from daemon_core.protocol.wire import Usage
from daemon_core.tasks import keeping
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.requests import OpenRequest
from daemon_core.tasks.results import add_usage


def open_requests(life: TaskLife | None) -> list[OpenRequest]:
    """What a task waits to be answered."""
    return life.driver.requests.open if life is not None and life.driver is not None else []


def live_row(row: TaskRow, life: TaskLife | None) -> TaskRow:
    """A task in a list, with what is so at this moment."""
    if life is None:
        return row
    if life.waiting_model:
        row = msgspec.structs.replace(row, waiting=_waits_for_model(life))
    notices = _silent(life) + _said(life)
    return msgspec.structs.replace(
        row,
        needs_input=bool(open_requests(life)),
        notice=notices[0] if notices else None,
        tool_calls=life.progress.tool_calls,
        tokens=all_tokens(add_usage(life.used(), life.progress.usage)) or row.tokens,
    )


def all_tokens(usage: Iterable[Usage]) -> int:
    """How many tokens of all kinds were used."""
    return sum(
        each.input_tokens + each.output_tokens + each.cache_read_tokens + each.cache_write_tokens
        for each in usage
    )


def live_view(view: TaskView, record: TaskRecord | None, life: TaskLife | None) -> TaskView:
    """A task with everything about it, with what is so at this moment."""
    warnings = _warnings(record)
    if life is None:
        return msgspec.structs.replace(view, notices=warnings) if warnings else view
    if life.waiting_model:
        view = msgspec.structs.replace(view, waiting=_waits_for_model(life))
    waiting = open_requests(life)
    return msgspec.structs.replace(
        view,
        needs_input=bool(waiting),
        requests=[request_view(request) for request in waiting],
        plan=[PlanEntryView(text=entry.text, status=entry.status) for entry in life.progress.plan],
        usage=add_usage(life.used(), life.progress.usage) if life.progress.usage else view.usage,
        watch=_watch(life),
        waiting=_kept_open(life) or view.waiting,
        notices=[*_silent(life), *_said(life), *warnings],
    )


def _waits_for_model(life: TaskLife) -> Condition:
    model = life.waiting_model
    limit = life.engine.slots.models.get(model, 0)
    return Condition(code="waiting_model", params={"model": model, "limit": limit})


def request_view(request: OpenRequest) -> RequestView:
    """One open request."""
    return RequestView(
        id=request.id,
        kind=request.kind,
        tool=request.tool,
        input=request.input,
        title=request.title,
        options=list(request.options),
        since=request.since,
    )


def _kept_open(life: TaskLife) -> Condition | None:
    """Why a task has no run although its server has it as running."""
    if not life.waiting:
        return None
    until = life.kept_until
    return Condition(
        code="waiting_jobs" if life.waiting == keeping.FOR_JOBS else "waiting_wake",
        params={"until": until} if until else {},
        next_try_at=until or None,
    )


def _watch(life: TaskLife) -> WatchView | None:
    if life.driver is None:
        return None
    found = life.driver.watchdog.view()
    return WatchView(
        kind=found.kind,
        budget=found.budget_s,
        silent_since=found.silent_since,
        ends_at=found.ends_at or None,
        warned=found.warned,
    )


def _silent(life: TaskLife) -> list[Condition]:
    if life.driver is None or not life.driver.watchdog.warned:
        return []
    found = life.driver.watchdog.view()
    params = {"kind": found.kind, "ends_at": found.ends_at, "id": life.record.task_id}
    return [
        Condition(
            code="silent",
            params=params,
            since=found.silent_since,
            next_try_at=found.ends_at or None,
            action="extend",
        )
    ]


def _said(life: TaskLife) -> list[Condition]:
    text = life.progress.notice
    return [Condition(code="agent", params={"text": text})] if text and life.driver is not None else []


def _warnings(record: TaskRecord | None) -> list[Condition]:
    if record is None or record.warnings in ("", "[]"):
        return []
    texts = msgspec.json.decode(record.warnings, type=list[str])
    known = {each.text: each for each in msgspec.json.decode(record.remarks, type=list[Remark])}
    return [
        Condition(
            code="warning",
            params={**known[text].params, "what": known[text].code, "text": text}
            if text in known
            else {"text": text},
        )
        for text in texts
    ]
