"""What can be wrong with the user's set-up: one error, whose caller reports it and gives up.

Its text is English, for logs and the command line. Whoever speaks another language makes words of its own
from the reason and its parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class BadValueError(ValueError):
    """A setting cannot have this value.

    Args:
        text: What completes "<key> …", such as "must be a whole number from 1 to 64, not 0".
        reason: The same as a code, with its parameters.
    """

    def __init__(self, text: str, reason: str, **params: Any) -> None:
        self.reason = reason
        self.params = params
        super().__init__(text)


class SettingsError(Exception):
    """A directory, the settings file or an override cannot be used as it is.

    Attributes:
        what: What is wrong, a sentence without its full stop.
        hint: What the user can do, a sentence without its full stop; may be empty.
        file: The file or directory it is about, None for an environment variable or an option.
        line: Line in ``file``, from 1; None where there is none.
        key: Dotted name of the setting, or the environment variable; empty where it is about none.
        reason: What is wrong, as a code; empty where nobody but the command line can meet it.
        params: Of the reason.
    """

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        file: Path | None = None,
        line: int | None = None,
        key: str = "",
        reason: str = "",
        params: dict[str, Any] | None = None,
    ) -> None:
        self.what = what
        self.hint = hint
        self.file = file
        self.line = line
        self.key = key
        self.reason = reason
        self.params = params or {}
        super().__init__(what)

    def __str__(self) -> str:
        where = ""
        if self.file is not None:
            where = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        text = f"{where}{self.what}."
        if not self.hint:
            return text
        return f"{text} {self.hint}" + ("" if self.hint.endswith("?") else ".")

    @classmethod
    def of_value(
        cls,
        name: str,
        problem: ValueError,
        *,
        hint: str = "",
        file: Path | None = None,
        line: int | None = None,
    ) -> SettingsError:
        """``name`` cannot have the value that it was to have."""
        known = problem if isinstance(problem, BadValueError) else None
        return cls(
            f"{name} {problem}",
            hint=hint,
            file=file,
            line=line,
            key=name,
            reason=known.reason if known is not None else "",
            params=known.params if known is not None else None,
        )
