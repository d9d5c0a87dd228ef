"""Structures are prepared before there are threads.

msgspec works out how a structure is decoded when it is first used, and a thread that uses it while another
one is at it finds half of that: the process is gone. So all that is known when the daemon begins is worked
out at once, by one thread.
"""

from __future__ import annotations

import msgspec


def prepare(package: str = "") -> int:
    """Work out every structure that has been imported; gives their number. Call it before any thread.

    Args:
        package: Only those of modules whose names begin so, which no other thread knows yet: for what is
            loaded later, when there are threads. All others are theirs.
    """
    seen: set[type] = set()
    waiting: list[type] = [msgspec.Struct]
    prepared = 0
    while waiting:
        below: list[type] = type.__subclasses__(waiting.pop())
        for found in below:
            if found in seen:
                continue
            seen.add(found)
            waiting.append(found)
            if not found.__module__.startswith(package):
                continue
            try:
                msgspec.json.Decoder(found)
            except (TypeError, NameError):
                continue  # never decoded: of types that JSON has not, or with names for type checkers alone
            prepared += 1
    return prepared
