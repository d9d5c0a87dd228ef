"""A transcript as one reads it: items made of its lines, in the order in which they came. No Qt.

Lines are many and small; items are what stands on the screen: a stretch of text, a folded run of tool calls,
a thought, an error. An item is bounded, so that laying one out never takes long, however much an agent says.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from daemon_core.control.views import TranscriptLine

TEXT_CHARS: Final = 1_600
TEXT_PARTS: Final = 24
"""A stretch of text is so long at most; what follows begins the next item."""
STEPS: Final = 200
"""So many calls fold into one line at most."""
SUMMARY_CHARS: Final = 400
_TELLING: Final = (
    "command", "pattern", "query", "file_path", "notebook_path", "path", "url", "prompt", "description",
)  # fmt: skip


class Kind(enum.Enum):
    """What an item is."""

    SAID = "said"
    """By the user."""
    TEXT = "text"
    RAW = "raw"
    """The output of a program, as it came."""
    THINKING = "thinking"
    STEPS = "steps"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Step:
    """One tool call. ``output`` is None until it came."""

    tool: str
    input: Any = None
    output: str | None = None
    began_at: str = ""
    ended_at: str = ""
    open: bool = False
    whole: bool = False
    """Whether more of a long output is shown than its beginning."""

    @property
    def summary(self) -> str:
        """The one thing of its input that tells most, on one line."""
        return _flat(_telling(self.input))

    @property
    def input_text(self) -> str:
        """The whole input, for reading."""
        if isinstance(self.input, str):
            return self.input
        if isinstance(self.input, dict) and len(self.input) == 1 and _telling(self.input):
            return _telling(self.input)
        if self.input in (None, {}, ""):
            return ""
        return msgspec.json.format(msgspec.json.encode(self.input), indent=2).decode()


@dataclass(slots=True, eq=False)
class Item:
    """One thing on the screen.

    Attributes:
        seq: Number of its first line.
        version: Grows with every change, so that what was laid out for an older one is known to be stale.
        open: Whether what is folded by itself is shown.
        over: Nothing more comes into it.
    """

    kind: Kind
    seq: int
    parts: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    chars: int = 0
    breaks: int = 0
    version: int = 0
    open: bool = False
    over: bool = False

    @property
    def text(self) -> str:
        """All that it says."""
        between = "" if self.kind is Kind.RAW else "\n\n"
        return between.join(part if self.kind is Kind.RAW else part.strip("\n") for part in self.parts)

    @property
    def folded(self) -> bool:
        """Whether a run of calls shows as one line."""
        return self.over and len(self.steps) > 1 and not self.open

    def plain(self) -> Iterator[str]:
        """Everything in it that can be searched, piece by piece."""
        yield from self.parts
        for step in self.steps:
            yield step.tool
            yield step.input_text
            yield step.output or ""

    def copied(self) -> str:
        """What goes onto the clipboard for the whole of it."""
        if self.kind is not Kind.STEPS:
            return self.text
        return "\n\n".join(
            "\n".join(part for part in (step.tool, step.input_text, step.output or "") if part)
            for step in self.steps
        )


class Transcript:
    """Takes lines, gives items.

    Args:
        raw: The task's output is a program's, not Markdown.

    Attributes:
        items: In order. The last one may still grow.
        last_seq: The newest line that is in here.
        errors: Where errors are, as indexes of ``items``.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self.items: list[Item] = []
        self.last_seq = 0
        self.errors: list[int] = []
        self._raw = raw
        self._waiting: list[tuple[Step, Item]] = []

    def say(self, prompt: str) -> None:
        """What the user asked for."""
        for part in split_markdown(prompt, TEXT_CHARS * 2):
            self._new(Kind.SAID, 0)
            self._add(part)

    def take(self, lines: Iterable[TranscriptLine]) -> int:
        """Add lines; the index of the first item that is new or changed."""
        first = len(self.items)
        for line in lines:
            if line.seq <= self.last_seq:
                continue
            self.last_seq = line.seq
            first = min(first, self._take(line))
        return first

    def end(self) -> None:
        """Nothing follows: what still waits for a result never gets one."""
        self._waiting.clear()
        if self.items and not self.items[-1].over:
            self._close()

    def waits(self, step: Step) -> bool:
        """Whether a call waits for its result."""
        return step.output is None and any(waiting is step for waiting, _ in self._waiting)

    @property
    def waiting(self) -> bool:
        """Whether any call waits for its result."""
        return bool(self._waiting)

    def _take(self, line: TranscriptLine) -> int:
        match line.type:
            case "tool_use":
                return self._take_call(line)
            case "tool_result":
                return self._take_result(line)
            case "thinking":
                return self._take_text(Kind.THINKING, line)
            case "error":
                self._new(Kind.ERROR, line.seq)
                self._add((line.content or "").strip())
                self.errors.append(len(self.items) - 1)
                return max(0, len(self.items) - 2)
            case _:
                return self._take_text(Kind.RAW if self._raw else Kind.TEXT, line)

    def _take_text(self, kind: Kind, line: TranscriptLine) -> int:
        content = line.content or ""
        if not content.strip() and kind is not Kind.RAW:
            return len(self.items)
        before = len(self.items)
        split = split_raw if kind is Kind.RAW else split_markdown
        for part in split(content, TEXT_CHARS):
            last = self.items[-1] if self.items else None
            full = last is not None and (last.chars + len(part) > TEXT_CHARS or len(last.parts) >= TEXT_PARTS)
            if last is None or last.kind is not kind or full:
                self._new(kind, line.seq)
            self._add(part)
        return max(0, before - 1)

    def _take_call(self, line: TranscriptLine) -> int:
        last = self.items[-1] if self.items else None
        if last is None or last.kind is not Kind.STEPS or len(last.steps) >= STEPS:
            last = self._new(Kind.STEPS, line.seq)
        step = Step(tool=line.tool or "tool", input=line.input, began_at=line.at)
        last.steps.append(step)
        last.version += 1
        self._waiting.append((step, last))
        return max(0, len(self.items) - 2)

    def _take_result(self, line: TranscriptLine) -> int:
        """Results carry no number of their call: the eldest call of that tool that waits, else the eldest."""
        found = next((each for each in self._waiting if each[0].tool == line.tool), None)
        if found is None and self._waiting:
            found = self._waiting[0]
        if found is None:
            last = self.items[-1] if self.items else None
            if last is None or last.kind is not Kind.STEPS or len(last.steps) >= STEPS:
                last = self._new(Kind.STEPS, line.seq)
            found = Step(tool=line.tool or "tool", began_at=line.at), last
            last.steps.append(found[0])
        else:
            self._waiting.remove(found)
        step, item = found
        step.output = line.output or ""
        step.ended_at = line.at
        item.version += 1
        # Nearly always the last item; calls that ended late are looked for from the end.
        for index in range(len(self.items) - 1, -1, -1):
            if self.items[index] is item:
                return index
        return len(self.items) - 1

    def _new(self, kind: Kind, seq: int) -> Item:
        self._close()
        item = Item(kind, seq)
        self.items.append(item)
        return item

    def _close(self) -> None:
        if self.items and not self.items[-1].over:
            self.items[-1].over = True
            self.items[-1].version += 1

    def _add(self, part: str) -> None:
        item = self.items[-1]
        item.parts.append(part)
        item.chars += len(part)
        item.breaks += part.count("\n") + (0 if item.kind is Kind.RAW else 2)
        item.version += 1


def split_raw(text: str, limit: int) -> list[str]:
    """A program's output in pieces of at most ``limit`` characters, cut behind lines where there are any."""
    pieces: list[str] = []
    at = 0
    while len(text) - at > limit:
        end = text.rfind("\n", at, at + limit) + 1 or at + limit
        pieces.append(text[at:end])
        at = end
    return [*pieces, text[at:]]


def split_markdown(text: str, limit: int) -> list[str]:
    """A text in pieces of about ``limit`` characters, cut between lines; a code block that is cut is closed
    and opened again. Lines longer than four times the limit are cut too."""
    if len(text) <= limit:
        return [text]
    pieces: list[str] = []
    lines: list[str] = []
    size, fence = 0, ""
    for raw_line in text.split("\n"):
        for at in range(0, max(1, len(raw_line)), limit * 4):
            line = raw_line[at : at + limit * 4]
            if size >= limit and (fence or not line.strip() or size >= 2 * limit):
                pieces.append("\n".join([*lines, "```"] if fence else lines))
                lines, size = ([fence] if fence else []), 0
            stripped = line.lstrip()
            if stripped.startswith("```"):
                fence = "" if fence else stripped
            lines.append(line)
            size += len(line) + 1
    pieces.append("\n".join(lines))
    return [piece for piece in pieces if piece.strip()]


def _telling(value: Any) -> str:
    if isinstance(value, dict):
        for name in _TELLING:
            if isinstance(value.get(name), str):
                return str(value[name])
    if value in (None, "", {}):
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _flat(text: str) -> str:
    return " ".join(text[:SUMMARY_CHARS].split())
