"""What holds for every reader: it may die and be restored at any byte and still says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daemon_core.agents.events import Event, Text
from daemon_core.agents.family import Reader, StdinWrite

MakeReader = Callable[[bytes | None], Reader]


def read_whole(make: MakeReader, data: bytes) -> tuple[list[Event], Reader, list[StdinWrite]]:
    """The events of an undisturbed life, the reader and all it wanted to say."""
    reader = make(None)
    events = [*reader.feed(data), *reader.finish()]
    return events, reader, list(reader.pending_writes())


def read_with_deaths(
    make: MakeReader, data: bytes, cuts: Sequence[tuple[int, bool, bool]]
) -> tuple[list[Event], Reader, list[StdinWrite]]:
    """The same in pieces: ``cuts`` are (offset, whether to flush there, whether to die there).

    A dying reader loses what it has not consumed, as a killed daemon does; the next one is fed from there.
    """
    reader = make(None)
    events: list[Event] = []
    position = 0
    for offset, flush, die in sorted(cuts):
        if offset > position:
            events += reader.feed(data[position:offset])
            position = offset
        if flush:
            events += reader.flush()
        assert reader.consumed <= position
        if die:
            snapshot = reader.snapshot()
            position = reader.consumed
            reader = make(snapshot)
            assert reader.consumed == position
            assert reader.snapshot() == snapshot
    events += reader.feed(data[position:])
    events += reader.finish()
    return events, reader, list(reader.pending_writes())


def merged(events: Sequence[Event]) -> list[Event]:
    """Neighbouring texts put together: plain text may be cut anywhere."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Text) and isinstance(last, Text):
            result[-1] = Text(last.text + event.text)
        else:
            result.append(event)
    return result
