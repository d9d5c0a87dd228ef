"""Places where the tests kill the daemon on purpose.

``OSTLER_TEST_KILL_AT`` names a place, optionally with the number of the visit (``spawned:2``); there the
process ends as by ``kill -9``. Without the variable, ``reach`` is a comparison with None.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_wanted = os.environ.get("OSTLER_TEST_KILL_AT")
_visits: Counter[str] = Counter()


def reach(place: str) -> None:
    """Passing a place; ends the process here if the tests want it."""
    if _wanted is None:
        return
    _visits[place] += 1
    name, _, visit = _wanted.partition(":")
    if name == place and _visits[place] == int(visit or 1):
        os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
