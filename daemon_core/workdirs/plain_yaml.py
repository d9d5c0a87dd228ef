"""YAML of which only the plain part is read: no references, and not nested without end.

References to references grow without bound when they are put in, and what is nested some ten thousand deep
takes the reader's stack, and with it the process. Both fit into a few kilobytes, so they are looked for in
the stream of events, which is not deep, before anything is made of the text.
"""

from __future__ import annotations

from typing import Any, Final, Literal

DEPTH_LIMIT: Final = 32


def what_is_not_plain(text: str, loader: Any) -> tuple[Literal["reference", "depth"], int] | None:
    """What there is of it first, and on which line; None where all is plain.

    Args:
        loader: The class of loader that will read it.

    Raises:
        yaml.YAMLError: It is not valid up to there.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=loader):
        mark = event.start_mark
        line = mark.line + 1 if mark is not None else 1
        if isinstance(event, yaml.AliasEvent):
            return "reference", line
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                return "depth", line
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None
