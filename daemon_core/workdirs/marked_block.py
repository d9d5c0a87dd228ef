"""Our block in a file that may be somebody else's: text between two marker lines.

The rules are the protocol's, with markers of our own; no other program's block is known:

- no file: it is made of the block alone;
- a file without a block: a blank line's worth of separator and the block follow what is there;
- a file with a block: the block is replaced where it is. The end marker counts only after the begin marker;
  if it is missing, the block goes to the end of the file.

Everything works on bytes, so that no encoding or line end of the file matters. ``without_block`` is the
opposite of ``with_block`` for a file that had no block: it gives back what was there to the byte.
"""

from __future__ import annotations

from typing import Final

BEGIN: Final = b"<!-- ostler:begin (made for a task, removed when it ends; edits are lost) -->"
END: Final = b"<!-- ostler:end -->"
SEPARATOR: Final = b"\n\n"


def block(text: str) -> bytes:
    """The block that holds ``text``. A marker within the text is defused, or it would end the block early."""
    body = text.encode("utf-8", "replace").replace(BEGIN, b"").replace(END, b"").strip(b"\n")
    return BEGIN + b"\n" + body + b"\n" + END + b"\n"


def with_block(content: bytes, text: str) -> bytes:
    """``content`` with our block in it."""
    made = block(text)
    found = find_block(content)
    if found is not None:
        start, stop = found
        return content[:start] + made + content[stop:]
    return content + SEPARATOR + made if content else made


def without_block(content: bytes) -> bytes:
    """``content`` without our block and the separator before it; unchanged if there is none."""
    found = find_block(content)
    if found is None:
        return content
    start, stop = found
    before = content[:start]
    return before.removesuffix(SEPARATOR) + content[stop:]


def find_block(content: bytes) -> tuple[int, int] | None:
    """Where the block begins and where it ends (its last newline included); None if there is none."""
    start = content.find(BEGIN)
    if start < 0:
        return None
    end = content.find(END, start + len(BEGIN))
    if end < 0:
        return start, len(content)
    stop = end + len(END)
    for newline in (b"\r\n", b"\n"):
        if content.startswith(newline, stop):
            return start, stop + len(newline)
    return start, stop
