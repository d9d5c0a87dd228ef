"""JSON lines as programs really write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

# A NUL as JSON has it, the backslash of which is not itself escaped.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def understood(
    line: bytes,
    decode: Callable[[bytes], T],
    mend: Callable[[dict[str, Any]], None] = lambda found: None,
) -> T | None:
    """What ``decode`` makes of a line, or None if it is not a JSON object.

    Valid UTF-8 and JSON take the short way. What JavaScript writes beyond that (half a surrogate pair, where
    a text was cut in the middle of a character) is mended rather than lost.

    Args:
        mend: Takes out of an object, in the second try, what ``decode`` would stumble over.
    """
    if b"\\u0000" in line:
        line = _ESCAPED_NUL.sub(rb"\1\\u2400", line)
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # Replaced bytes are only ever content of strings: elsewhere they are no JSON.
        found = json.loads(line.decode("utf-8", "replace"))
        if not isinstance(found, dict):
            return None
        mend(found)
        text = json.dumps(found, ensure_ascii=False)
        return decode(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode())
    except (ValueError, RecursionError):
        return None
