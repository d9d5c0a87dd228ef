"""What is so with a running task at this moment, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from daemon_core.cli import show
from daemon_core.cli.words import condition
from daemon_core.control.views import RequestView, TaskView

_MARKS = {"completed": "x", "in_progress": ">", "pending": " "}


def live_facts(task: TaskView) -> Iterator[tuple[str, str]]:
    """Lines for the table of facts: notices, watchdog, the agent's list of things to do."""
    for notice in task.notices:
        said, hint = condition(notice.code, notice.params)
        text = show.safe(said) + (f" ({hint.replace('ID', task.id[:8])})" if hint else "")
        yield ("Warning" if notice.code == "warning" else "Notice"), text
    if task.parked_until is not None or task.status == "parked":
        when = show.local_time(task.parked_until) if task.parked_until else "nobody said when"
        yield "Parked", f"until {when}, then it goes on by itself" if task.goes_on else f"until {when}"
    watch = task.watch
    if watch is not None and watch.budget > 0 and watch.ends_at is not None and not watch.warned:
        what = {"tool": "with a tool at work, ", "request": "waiting for you, "}.get(watch.kind, "")
        why = "without progress" if watch.kind == "progress" else "silent"
        yield "Watchdog", f"{what}ended if {why} until {show.local_time(watch.ends_at)}"
    for entry in task.plan:
        yield "To do", f"[{_MARKS.get(entry.status, ' ')}] {show.safe(entry.text)}"


def request_lines(task: TaskView) -> Iterator[str]:
    """What it waits to be answered, and how to answer."""
    for request in task.requests:
        short = request.id[:8]
        yield ""
        if request.kind == "question":
            yield f"Question {short}: {show.safe(request.title)}"
            if request.options:
                yield "  One of: " + ", ".join(show.safe(option) for option in request.options)
            yield f'  `ostler task answer {task.id[:8]} {short} allow --text "..."`'
        else:
            title = f": {show.safe(request.title)}" if request.title else ""
            yield f"Request {short}: {show.safe(request.tool)}{title}"
            detail = _input(request)
            if detail:
                yield f"  {detail}"
            yield f"  `ostler task answer {task.id[:8]} {short} allow|allow-task|deny`"


def _input(request: RequestView) -> str:
    given: Any = request.input
    if not isinstance(given, dict) or not given:
        return ""
    parts = [f"{name}: {value}" for name, value in given.items() if isinstance(value, str | int | float)]
    return show.one_line("; ".join(parts), 300)
