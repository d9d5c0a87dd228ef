"""What Claude Code's stream tells of a run that goes on: its list of things to do, and tokens so far.

Lists come in two ways: older versions (and others that speak the protocol) send the whole list with each
change, newer ones make and change one entry at a time, whose number is told by the tool's result.

Tokens are counted once a message (its ``usage`` is repeated on each of its lines, as it was when the message
began, so the output is too low until the result tells the truth).
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from daemon_core.agents.events import PlanEntry
from daemon_core.protocol.wire import Usage

ENTRIES_LIMIT: Final = 100
TEXT_LIMIT_CHARS: Final = 500
MODELS_LIMIT: Final = 16
_STATUSES: Final = ("pending", "in_progress", "completed")
_COUNT_LIMIT: Final = 2**53
_MADE: Final = re.compile(r"Task #(\w{1,20}) created")


class Item(msgspec.Struct):
    """One entry of the list; ``id`` is empty where the whole list is always told."""

    id: str
    text: str
    status: str


class Live(msgspec.Struct):
    """Part of the reader's snapshot. ``making`` are entries whose number is not known yet, by tool call."""

    items: list[Item] = []
    making: dict[str, str] = {}
    message_id: str = ""
    counts: dict[str, list[int]] = {}

    # --- the list ------------------------------------------------------------------------------

    def tool_used(self, call_id: str, tool: str, given: Any) -> bool:
        """A tool call began; whether the list is another one now."""
        if not isinstance(given, dict):
            return False
        if tool in ("TodoWrite", "todo_write"):
            return self._replace(given.get("todos"))
        if tool == "TaskCreate" and call_id:
            self.making = {
                **dict(list(self.making.items())[-ENTRIES_LIMIT:]),
                call_id: _text(given.get("subject")),
            }
            return False
        if tool == "TaskUpdate":
            return self._change(given)
        return False

    def tool_ended(self, call_id: str, output: str) -> bool:
        """A tool call ended; whether the list is another one now."""
        text = self.making.pop(call_id, "")
        made = _MADE.search(output) if text else None
        if made is None or len(self.items) >= ENTRIES_LIMIT:
            return False
        self.items = [*self.items, Item(made[1], text, "pending")]
        return True

    def plan(self) -> tuple[PlanEntry, ...]:
        """The list as it is now."""
        return tuple(PlanEntry(item.text, item.status) for item in self.items)

    def _replace(self, todos: Any) -> bool:
        if not isinstance(todos, list):
            return False
        items = []
        for todo in todos[:ENTRIES_LIMIT]:
            if isinstance(todo, dict):
                text = _text(todo.get("content"))
                if text:
                    items.append(Item("", text, _status(todo.get("status"))))
        if items == self.items:
            return False
        self.items = items
        return True

    def _change(self, given: dict[str, Any]) -> bool:
        number = str(given.get("taskId"))
        place = next((place for place, item in enumerate(self.items) if item.id and item.id == number), None)
        if place is None:
            return False
        item = self.items[place]
        if given.get("status") == "deleted":
            self.items = self.items[:place] + self.items[place + 1 :]
            return True
        status = given.get("status")
        changed = Item(
            item.id, _text(given.get("subject")) or item.text, _status(status) if status else item.status
        )
        if changed == item:
            return False
        self.items = [*self.items[:place], changed, *self.items[place + 1 :]]
        return True

    # --- tokens --------------------------------------------------------------------------------

    def message_seen(self, message_id: Any, model: Any, usage: Any) -> bool:
        """A line of a message; whether it is the first of it and has counts."""
        if not isinstance(message_id, str) or not message_id or message_id == self.message_id:
            return False
        if not isinstance(usage, dict):
            return False
        self.message_id = message_id[:TEXT_LIMIT_CHARS]
        name = model[:TEXT_LIMIT_CHARS] if isinstance(model, str) else ""
        if name not in self.counts and len(self.counts) >= MODELS_LIMIT:
            return False
        before = self.counts.get(name, [0, 0, 0, 0])
        fields = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        more = [_count(usage.get(field)) for field in fields]
        if not any(more):
            return False
        self.counts = {
            **self.counts,
            name: [min(a + b, _COUNT_LIMIT) for a, b in zip(before, more, strict=True)],
        }
        return True

    def usage(self, provider: str) -> tuple[Usage, ...]:
        """Tokens so far by model."""
        return tuple(
            Usage(
                provider=provider,
                model=model,
                input_tokens=counts[0],
                output_tokens=counts[1],
                cache_read_tokens=counts[2],
                cache_write_tokens=counts[3],
            )
            for model, counts in self.counts.items()
            if len(counts) == 4
        )


def _text(value: Any) -> str:
    return " ".join(value[:TEXT_LIMIT_CHARS].split()) if isinstance(value, str) else ""


def _status(value: Any) -> str:
    return value if value in _STATUSES else "pending"


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < _COUNT_LIMIT else 0
