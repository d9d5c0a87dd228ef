"""One operation of the control API, as data: what the tables of routes are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Stream = Literal["", "events", "lines"]


@dataclass(frozen=True, slots=True)
class Query:
    name: str
    what: str
    kind: Literal["integer", "boolean", "string", "number"]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. ``name`` is the method that answers it, without its leading underscore."""

    name: str
    method: str
    path: str
    what: str
    answers: Any
    takes: Any = None
    query: tuple[Query, ...] = ()
    stream: Stream = ""
    guarded: bool = False
    """Refused to a caller that descends from a run."""
    refusals: tuple[str, ...] = ()
    status: int = 200
