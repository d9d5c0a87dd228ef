"""Pages of the hub's tasks, newest first, for a list that may be tens of thousands long."""

from __future__ import annotations

from collections.abc import Sequence

from daemon_core.hub.rows import load_tasks
from daemon_core.hub.store import Tx
from daemon_core.hub.views import HubTask


def page(
    tx: Tx, *, before: int | None, limit: int, words: str, statuses: Sequence[str]
) -> list[tuple[int, HubTask]]:
    """(number, task) of up to ``limit`` tasks older than number ``before``.

    Args:
        words: In the title, the agent's name or the directory; capitals do not count.
        statuses: Only these; empty: all.
    """
    conditions, parameters = ["1"], list[object]()
    if before is not None:
        conditions.append("t.no < ?")
        parameters.append(before)
    if statuses:
        conditions.append(f"t.status IN ({', '.join('?' * len(statuses))})")
        parameters += statuses
    if words:
        pattern = like(words)
        conditions.append(
            r"(c.title LIKE ? ESCAPE '\' OR t.agent_name LIKE ? ESCAPE '\' OR t.provider LIKE ? ESCAPE '\'"
            r" OR c.directory LIKE ? ESCAPE '\')"
        )
        parameters += [pattern] * 4
    rows = tx.all(
        "SELECT t.no, t.id FROM task AS t JOIN conversation AS c ON c.id = t.conversation_id"
        f" WHERE {' AND '.join(conditions)} ORDER BY t.no DESC LIMIT ?",
        (*parameters, limit),
    )
    if not rows:
        return []
    numbers = {str(row["id"]): int(row["no"]) for row in rows}
    marks = ", ".join("?" * len(numbers))
    tasks = load_tasks(tx, f"WHERE t.id IN ({marks}) ORDER BY t.no DESC", tuple(numbers), cut=True)
    return [(numbers[task.id], task) for task in tasks]


def like(words: str) -> str:
    """A pattern for LIKE that finds these words anywhere, taken as they are."""
    plain = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{plain}%"
