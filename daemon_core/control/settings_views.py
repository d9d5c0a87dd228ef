"""What crosses the control API about settings."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon_core.control.views import Request, View


class SettingView(View, frozen=True, kw_only=True):
    """One setting. Values are as they stand in the file: "30m", "2GiB", 8, true, ["a"], {"claude": 2}.

    ``value`` is in force now, or will be with the next start where ``pending``. ``written`` is what the file
    says (null: nothing), which an environment variable may override. ``least`` and ``most`` are bounds of a
    count, of an amount, of seconds or of bytes; null where there is none.
    """

    key: str
    kind: Literal["flag", "count", "amount", "text", "choice", "duration", "size", "words", "counts", "texts"]
    value: Any = None
    default: Any = None
    written: Any = None
    source: Literal["default", "file", "environment"] = "default"
    variable: str = ""
    """The environment variable that overrides it now; empty: none does."""
    what: str = ""
    why: str = ""
    least: float | None = None
    most: float | None = None
    choices: list[str] = msgspec.field(default_factory=list)
    live: bool = True
    """Whether a change is in force at once."""
    pending: bool = False
    """It was changed and is in force only after the next start."""


class SettingsProblem(View, frozen=True, kw_only=True):
    """What is wrong with the file; what was in force before is so still, and nothing is written into it."""

    what: str
    hint: str = ""
    file: str = ""
    line: int | None = None
    key: str = ""
    reason: str = ""
    """The same as a code with parameters; empty: there are only the words above."""
    reason_params: dict[str, Any] = msgspec.field(default_factory=dict)


class SettingsView(View, frozen=True, kw_only=True):
    """Settings, in the order of the documentation. ``agents.<provider>.…`` stand once for each agent that is
    on this machine or set."""

    file: str = ""
    exists: bool = False
    settings: list[SettingView] = msgspec.field(default_factory=list)
    problem: SettingsProblem | None = None
    left_out: list[SettingsProblem] = msgspec.field(default_factory=list)
    """Settings in the file that this version does not know: it goes without them, and leaves their lines."""
    providers: list[str] = msgspec.field(default_factory=list)
    """Names that may stand below ``agents`` and in ``limits.runtimes``."""


class SettingSet(Request, frozen=True, kw_only=True):
    """Either ``value`` as it would stand in the file, or ``text`` as on a command line."""

    value: Any = msgspec.UNSET
    text: str | None = None


class SettingChanged(View, frozen=True, kw_only=True):
    """A setting after a change. ``applied``: the daemon goes by it now."""

    setting: SettingView
    applied: bool = True


class SettingsEvent(View, frozen=True, kw_only=True):
    """The event ``settings``: what is in force, or the file, is different. It is to be asked for anew."""

    problem: bool = False
