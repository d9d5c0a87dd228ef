"""A verdict of ``ostler doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict. ``ok`` with a hint is a remark: it works, and could be better."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
