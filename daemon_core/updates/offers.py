"""What the updater knows of a version that can be had, and of what went wrong: data that is stored and shown.

The words for a problem's code are made by whoever shows it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon_core.updates.errors import UpdateError


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why something did not work. ``params`` may have ``detail``, the system's own text."""

    code: str
    params: dict[str, Any] = {}


class ProblemError(Exception):
    """An attempt has failed.

    Attributes:
        problem: What it is.
        lasting: The same attempt would end in the same way: nothing is tried again before the next check.
        pause_s: Whoever refused wants to be left alone for so long; 0: said nothing.
    """

    def __init__(self, code: str, *, lasting: bool = False, pause_s: float = 0.0, **params: Any) -> None:
        self.problem = Problem(code=code, params={name: value for name, value in params.items() if value})
        self.lasting = lasting
        self.pause_s = pause_s
        super().__init__(f"{code} {self.problem.params}" if self.problem.params else code)

    @property
    def code(self) -> str:
        return self.problem.code


def problem_of(error: UpdateError) -> Problem:
    """The same as data."""
    return Problem(code=error.code, params=dict(error.params))


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One file, as signed metadata describes it. ``url_path`` is relative to where the files are."""

    path: str
    url_path: str
    length: int
    sha256: str


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A version that may be put in place here.

    Attributes:
        payload_sha256: Of its ``manifest.json``; empty: not told, the archive's own sum has to do.
        delta_from: The version that ``delta`` leads from.
    """

    version: str
    full: Target
    delta: Target | None = None
    delta_from: str = ""
    notes: dict[str, list[str]] = {}
    released_at: str = ""
    payload_sha256: str = ""
    unpacked_bytes: int = 0


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a check has brought.

    Attributes:
        withdrawn: Versions that are not to be put in place any more, whoever has them.
        passed_over: The newest version that is not offered, and why (bad, fraction): empty where there is
            none.
    """

    offer: Offer | None = None
    withdrawn: tuple[str, ...] = ()
    passed_over: str = ""
    passed_over_why: str = ""
