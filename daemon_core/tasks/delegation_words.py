"""What agents are told of tasks that were handed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from daemon_core.agents.events import PlanEntry
from daemon_core.hub.delegating import Child
from daemon_core.tasks.delegation_store import DelegationRow
from daemon_core.tasks.plain import cut, plain_name

RESULT_CHARS: Final = 16_000
"""Of a result in a notice; the whole is to be had with ``ostler task delegate result``."""
ENTRIES_SHOWN: Final = 20


def told_of(row: DelegationRow, child: Child | None) -> str:
    """The end of a child, for its parent."""
    if child is None:
        return f"The task {row.task_id} that you handed on was deleted before its end was told."
    task = child.task
    who = plain_name(task.agent) or task.provider
    what = f"The task {row.task_id} that you handed to {who} ({plain_name(task.title, 120)})"
    where = f"\n\nIt worked in {task.work_dir}" if task.work_dir else ""
    where += f", on the branch {task.branch_name}" if where and task.branch_name else ""
    where += "." if where else ""
    match task.status:
        case "completed":
            left = [entry for entry in row.entries if entry.status != "completed"]
            undone = f"\n\nIts to-do list is not done:\n{_list(left)}" if left else ""
            result = cut((task.result or "").strip(), RESULT_CHARS)
            said = f"Its result:\n\n{result}" if result else "It said nothing as its result."
            return f"{what} is completed. {said}{undone}{where}"
        case "cancelled":
            return f"{what} was cancelled.{where}"
        case _:
            error = cut((task.error or "").strip(), RESULT_CHARS) or "nothing is known of why"
            reason = f" ({task.failure_reason})" if task.failure_reason else ""
            return f"{what} failed{reason}: {error}{where}"


def ask_to_go_on(entries: Sequence[PlanEntry]) -> str:
    """The prompt of a further turn for a child that has ended before its list was done."""
    return (
        "Your turn has ended, and these points of your own to-do list are not done:\n\n"
        f"{_list(entries)}\n\n"
        "Go on with them. Mark on the list what is done or not needed any more, and end with the result of"
        " the whole task: whoever handed it to you reads only your last message."
    )


def _list(entries: Sequence[PlanEntry]) -> str:
    lines = [f"- {plain_name(entry.text, 300)}" for entry in entries[:ENTRIES_SHOWN]]
    if len(entries) > ENTRIES_SHOWN:
        lines.append(f"- and {len(entries) - ENTRIES_SHOWN} more")
    return "\n".join(lines)
