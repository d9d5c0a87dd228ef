"""Writes the parts into one file that only the user can read, whole or not at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ABOUT: Final = """Ostler: diagnostics

Gathered on {at}. Nothing was sent anywhere: this file goes where you send it.

Not in here: prompts, transcripts, files of your projects, what agents said. Taken out: tokens, passwords,
what stands before the @ of addresses, values of environments{paths}. Look through it before you hand it on.

{contents}
"""


def write(target: Path, files: Iterable[tuple[str, str]], at: str) -> int:
    """Write the archive; its size in bytes.

    Args:
        files: (name, text).
        at: When it was gathered, as RFC 3339.

    Raises:
        OSError: It cannot be written there.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        stamp = tuple(int(part) for part in (at[0:4], at[5:7], at[8:10], at[11:13], at[14:16], at[17:19]))
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in files:
                    entry = zipfile.ZipInfo(f"ostler-diagnostics/{name}", stamp)  # type: ignore[arg-type]
                    entry.external_attr = 0o600 << 16
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, text.encode("utf-8", "replace"))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return target.stat().st_size
