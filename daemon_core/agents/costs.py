"""What an agent says that something cost."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

MOST_USD: Final = 1_000_000.0


def dollars(told: Any) -> float | msgspec.UnsetType:
    """US dollars as an agent states them. Nothing, or 0, is no statement: programs say that of models whose
    price they do not know."""
    if isinstance(told, bool) or not isinstance(told, int | float):
        return msgspec.UNSET
    amount = float(told)
    return amount if math.isfinite(amount) and 0 < amount < MOST_USD else msgspec.UNSET
